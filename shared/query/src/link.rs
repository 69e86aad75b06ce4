//! Links: relations that resources declare, put among those of foreign keys.

use crate::{Relation, Table};

/// `relations` with the links of `table`, each in the place of the relation of its name, or at the end. A link that has
/// a column's name, or whose table or columns are not there, is left out. A relation whose place is taken keeps its long
/// name, if it has one.
pub fn placed<'t>(
    table: &Table,
    mut relations: Vec<Relation>,
    target: impl Fn(&Relation) -> Option<&'t Table>,
) -> Vec<Relation> {
    for link in &table.links {
        let has_columns =
            |far: &Table| link.on.iter().all(|(own, other)| table.column(own).is_ok() && far.column(other).is_ok());
        if table.column(&link.name).is_ok() || !target(link).is_some_and(has_columns) {
            continue;
        }
        let Some(relation) = relations.iter_mut().find(|relation| relation.name == link.name) else {
            relations.push(link.clone());
            continue;
        };
        let mut replaced = std::mem::replace(relation, link.clone());
        if let Some(name) = replaced.long_name.take().filter(|name| relations.iter().all(|one| one.name != *name)) {
            relations.push(Relation { name, ..replaced });
        }
    }
    // A name means one thing, to rules as well.
    let names: Vec<String> = relations.iter().map(|relation| relation.name.clone()).collect();
    for relation in &mut relations {
        relation.long_name.take_if(|name| names.contains(name));
    }
    relations
}

#[cfg(test)]
mod tests {
    use crate::{Relation, Schema, fixtures::chinook};

    /// Relations of a table, and the tables they lead to.
    fn relations<'s>(schema: &'s Schema, table: &str) -> Vec<(&'s str, &'s str)> {
        schema.table(table).unwrap().relations.iter().map(|to| (to.name.as_str(), to.table.as_str())).collect()
    }

    #[test]
    fn a_link_takes_the_place_of_a_relation_or_the_last() {
        let link = |name: &str, table: &str, on: (&str, &str)| Relation {
            name: name.to_owned(),
            long_name: None,
            database: None,
            table: table.to_owned(),
            many: true,
            refers: true,
            on: vec![(on.0.to_owned(), on.1.to_owned())],
        };
        let mut tables = chinook().into_tables();
        let album = tables.iter_mut().find(|table| table.name == "album").unwrap();
        album.links = vec![
            link("homonym", "track", ("title", "name")),
            link("artist", "customer", ("artist_id", "customer_id")),
            link("title", "track", ("title", "name")),
            link("lost", "nowhere", ("title", "name")),
            link("lost_here", "track", ("titel", "name")),
            link("lost_there", "track", ("title", "nmae")),
        ];

        let schema = Schema::new(tables);

        assert_eq!(relations(&schema, "album"), [("artist", "customer"), ("track", "track"), ("homonym", "track")]);
        assert_eq!(relations(&schema, "artist"), [("album", "album")]);
        let again = Schema::new(schema.clone().into_tables());
        assert_eq!(again, schema);
    }
}
