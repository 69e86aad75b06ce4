//! Relations that the documents of tables declare: resolved in the schema of their database, or left out of it.

use std::collections::BTreeMap;

use foldhash::{HashMap, HashMapExt};
use mesh::resources::Snapshot;
use query::{Column, Relation, Schema, Table, resources::TableLink};

use crate::{LeftOut, neighbour::Neighbour, sql::Dialect};

/// The links of a database: by table, then by the name of the relation.
pub type TableLinks = BTreeMap<String, BTreeMap<String, TableLink>>;

/// The links of a database and of its neighbours.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DatabaseLinks {
    /// The database's id.
    database: String,
    own: TableLinks,
    neighbours: BTreeMap<String, TableLinks>,
}

impl DatabaseLinks {
    /// Those of the database called `database`, out of `all` links by project and database.
    pub fn of(
        project: &str,
        database: &str,
        neighbours: &[Neighbour],
        all: &HashMap<(String, String), TableLinks>,
    ) -> Self {
        let of = |id: &str| all.get(&(project.to_owned(), id.to_owned())).cloned().unwrap_or_default();
        let neighbours = neighbours.iter().map(|one| (one.database.clone(), of(&one.database))).collect();
        let links = Self { database: database.to_owned(), own: of(database), neighbours };
        // Equal to those of before any were declared.
        if links.is_empty() { Self::default() } else { links }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.own.is_empty() && self.neighbours.values().all(BTreeMap::is_empty)
    }

    /// The database that a link of `home` leads to, as the schema of this one knows it.
    fn target(&self, home: Option<&str>, link: &TableLink) -> Option<String> {
        let target = link.database.as_deref().or(home)?;
        (target != self.database).then(|| target.to_owned())
    }
}

#[cfg(test)]
impl From<TableLinks> for DatabaseLinks {
    fn from(own: TableLinks) -> Self {
        Self { own, ..Self::default() }
    }
}

/// The links of the databases of a snapshot, by project and database.
pub fn of(snapshot: &Snapshot) -> HashMap<(String, String), TableLinks> {
    let mut all: HashMap<(String, String), TableLinks> = HashMap::new();
    for document in snapshot.of_kind("table") {
        let names = (document.name("project"), document.name("database"), document.name("id"));
        let (Some(project), Some(database), Some(table)) = names else { continue };
        // A snapshot with faults is never in force.
        let links = document.entries("links").unwrap_or_default();
        if !links.is_empty() {
            all.entry((project.to_owned(), database.to_owned())).or_default().insert(table.to_owned(), links);
        }
    }
    all
}

/// `schema` with the relations that `links` declare in the place of those declared before, and the links that are left
/// out because it has no such relations.
pub fn apply(schema: Schema, links: &DatabaseLinks, dialect: &Dialect) -> (Schema, Vec<LeftOut>) {
    let mut resolved = HashMap::<(Option<&str>, &str), Vec<Relation>>::new();
    let mut left_out = Vec::new();
    let neighbours = links.neighbours.iter().map(|(id, links)| (Some(id.as_str()), links));
    for (home, of_database) in [(None, &links.own)].into_iter().chain(neighbours) {
        for (table, name, link) in each(of_database) {
            let target = links.target(home, link);
            let own = schema.table_of(home, table);
            let found = own
                .map_err(|error| error.to_string())
                .and_then(|own| relation(&schema, own, name, Link { link, target }, dialect));
            match found {
                Ok(relation) => {
                    if home.is_none() && schema.target(&relation).is_ok_and(|far| far.is_left_out) {
                        let why = format!("no relation: table {} is left out here", relation.table);
                        left_out.push(LeftOut::until_change(format!("{table}.links.{name}"), why));
                    }
                    resolved.entry((home, table)).or_default().push(relation);
                }
                // Of a neighbour: it is left out there.
                Err(_) if home.is_some() => {}
                Err(why) => left_out.push(LeftOut::until_change(format!("{table}.links.{name}"), why)),
            }
        }
    }
    let database = schema.database().to_owned();
    let mut tables = schema.into_tables();
    for table in &mut tables {
        table.links = resolved.remove(&(table.database.as_deref(), table.name.as_str())).unwrap_or_default();
    }
    (Schema::with_neighbours(database, tables), left_out)
}

/// Table, name and link of each.
fn each(links: &TableLinks) -> impl Iterator<Item = (&str, &str, &TableLink)> {
    links.iter().flat_map(|(table, links)| links.iter().map(move |(name, link)| (table.as_str(), name.as_str(), link)))
}

/// A link, and the database that it leads to: `None` for the schema's own.
struct Link<'l> {
    link: &'l TableLink,
    target: Option<String>,
}

/// The relation called `name` of table `own` that `link` declares, or why there is none.
fn relation(
    schema: &Schema,
    own: &Table,
    name: &str,
    Link { link, target }: Link<'_>,
    dialect: &Dialect,
) -> Result<Relation, String> {
    let told = |error: query::Error| error.to_string();
    if let Some(database) = &target
        && dialect.neighbours().iter().all(|neighbour| neighbour.database != *database)
    {
        return Err(format!(
            "invalid database {database}: must be another schema of the same PostgreSQL database, with a url that names the \
             same server, database and role"
        ));
    }
    let far = schema.table_of(target.as_deref(), &link.table).map_err(told)?;
    if own.column(name).is_ok() {
        return Err(format!("{name} is a column of table {}: expected another name", own.name));
    }
    let pairs = link.on.iter().map(|(here, there)| Ok((own.column(here)?, far.column(there)?)));
    let pairs: Vec<(&Column, &Column)> = pairs.collect::<Result<_, _>>().map_err(told)?;
    for (here, there) in &pairs {
        check_equality((own, here), (far, there), dialect)?;
    }
    let has_key = has_key(far, |column| link.on.values().any(|there| there == column));
    let is_single = has_key && pairs.iter().all(|(here, there)| dialect.keeps_apart(there, here));
    if link.many == Some(false) && !is_single {
        let columns: Vec<&str> = link.on.values().map(String::as_str).collect();
        let columns = columns.join(", ");
        return Err(format!(
            "invalid many: expected true, because {columns} of table {} may have several rows",
            far.name
        ));
    }
    Ok(Relation {
        name: name.to_owned(),
        long_name: None,
        database: target,
        table: far.name.clone(),
        many: link.many.unwrap_or(!is_single),
        // The key's collation decides what is equal.
        refers: has_key || !self::has_key(own, |column| link.on.contains_key(column)),
        on: link.on.iter().map(|(here, there)| (here.clone(), there.clone())).collect(),
    })
}

/// Checks that the server may read both columns, and that the database can compare them.
fn check_equality(one: (&Table, &Column), other: (&Table, &Column), dialect: &Dialect) -> Result<(), String> {
    for (table, column) in [one, other] {
        if !column.readable {
            return Err(format!("column {} of table {} may not be read by the server's role", column.name, table.name));
        }
    }
    let [(own, here), (far, there)] = [one, other];
    if dialect.has_equality(here, there) {
        return Ok(());
    }
    let told = |table: &Table, column: &Column| format!("{} of table {} ({})", column.name, table.name, column.native);
    Err(format!("{} cannot be equal to {}", told(own, here), told(far, there)))
}

/// Whether the columns for which `is_fixed` hold a key of the table.
fn has_key(table: &Table, is_fixed: impl Fn(&String) -> bool) -> bool {
    let keys = table.unique_keys.iter().chain([&table.primary_key]);
    keys.into_iter().any(|key| !key.is_empty() && key.iter().all(&is_fixed))
}

#[cfg(test)]
mod tests {
    use mesh::resources::{Kind, parse_typed, schema_typed};
    use serde_json::Value;

    use super::*;
    use crate::tests::KINDS;

    #[test]
    fn links_are_those_of_the_tables_of_each_database() {
        let table = Kind {
            name: "table",
            parse: parse_typed::<Value, Value>,
            check: |_| Vec::new(),
            schema: schema_typed::<Value, Value>,
        };
        let of_table = |database: &str, id: &str, spec: &str| {
            format!("---\nkind: table\nmeta: {{project: shop, database: {database}, id: {id}}}\nspec: {{{spec}}}\n")
        };
        let yaml = [
            "kind: project\nmeta: {id: shop}\n".to_owned(),
            of_table("music", "album", "links: {artist: {table: artist, on: {artist_id: id}, many: false}}"),
            of_table(
                "music",
                "artist",
                "links: {albums: {table: album, on: {id: artist_id}}, fans: {table: fan, on: {}}}",
            ),
            of_table("music", "track", "links: {}"),
            of_table("music", "fan", "rules: []"),
            of_table("films", "film", "links: {actors: {table: actor, on: {id: film_id}}}"),
        ];
        let kinds = [&KINDS[..], &[table]].concat();
        let found = of(&Snapshot::parse(&yaml.concat(), &kinds).unwrap());

        let mut names = Vec::new();
        for ((project, database), tables) in &found {
            for (table, links) in tables {
                names.push(format!(
                    "{project} {database} {table}: {}",
                    Vec::from_iter(links.keys().cloned()).join(", ")
                ));
            }
        }
        names.sort();
        assert_eq!(names, ["shop films film: actors", "shop music album: artist", "shop music artist: albums, fans"]);
        let on = BTreeMap::from([("artist_id".to_owned(), "id".to_owned())]);
        let artist = TableLink { database: None, table: "artist".to_owned(), on, many: Some(false) };
        assert_eq!(found[&("shop".to_owned(), "music".to_owned())]["album"]["artist"], artist);
    }
}
