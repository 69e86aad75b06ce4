//! Relations that the documents of tables declare: resolved in the schema of their database, or left out of it.

use std::collections::BTreeMap;

use foldhash::{HashMap, HashMapExt};
use mesh::resources::Snapshot;
use query::{Column, Relation, Schema, Table, resources::TableLink};

use crate::{LeftOut, sql::Dialect};

/// The links of a database: by table, then by the name of the relation.
pub type TableLinks = BTreeMap<String, BTreeMap<String, TableLink>>;

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
pub fn apply(schema: Schema, links: &TableLinks, dialect: &Dialect) -> (Schema, Vec<LeftOut>) {
    let (mut resolved, mut left_out) = (HashMap::<&str, Vec<Relation>>::new(), Vec::new());
    for (table, links) in links {
        for (name, link) in links {
            match relation(&schema, table, name, link, dialect) {
                Ok(relation) => resolved.entry(table.as_str()).or_default().push(relation),
                Err(why) => left_out.push(LeftOut::until_change(format!("{table}.links.{name}"), why)),
            }
        }
    }
    let mut tables = schema.into_tables();
    for table in &mut tables {
        table.links = resolved.remove(table.name.as_str()).unwrap_or_default();
    }
    (Schema::new(tables), left_out)
}

/// The relation called `name` of `table` that `link` declares, or why there is none.
fn relation(schema: &Schema, table: &str, name: &str, link: &TableLink, dialect: &Dialect) -> Result<Relation, String> {
    let told = |error: query::Error| error.to_string();
    let own = schema.table(table).map_err(told)?;
    let far = schema.table(&link.table).map_err(told)?;
    if own.column(name).is_ok() {
        return Err(format!("{name} is a column of table {table}: expected another name"));
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
