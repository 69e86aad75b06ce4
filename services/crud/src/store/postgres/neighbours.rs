//! Tables of neighbours: other schemas of the same database, as far as foreign keys or links connect them.

use std::collections::HashSet;

use query::{ForeignKey, Table};
use tokio_postgres::{
    Row,
    types::{ToSql, Type as Native},
};

use super::{
    connection::Connection,
    error::PostgresError,
    introspect::{self, Has},
};
use crate::{LeftOut, neighbour::Neighbour};

/// Foreign keys from one of the schemas into another.
const KEYS: &str = "\
SELECT n.nspname::text, c.relname::text, m.nspname::text, f.relname::text,
    ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(k.conkey) WITH ORDINALITY AS p (attnum, position)
        JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = p.attnum ORDER BY p.position),
    ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(k.confkey) WITH ORDINALITY AS p (attnum, position)
        JOIN pg_catalog.pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = p.attnum ORDER BY p.position),
    pg_catalog.concat_ws(' ', k.oid, k.xmin)
FROM pg_catalog.pg_constraint k
JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
JOIN pg_catalog.pg_class f ON f.oid = k.confrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_namespace m ON m.oid = f.relnamespace
WHERE k.contype = 'f' AND k.conparentid = 0 AND n.oid <> m.oid AND n.nspname = ANY ($1) AND m.nspname = ANY ($1)
ORDER BY n.nspname, c.relname, k.conkey, k.conname";

/// Tables with a column of a type whose operators are found in their own schema only, not from ours: they would compare
/// in another way here.
const HIDDEN_TYPES: &str = "\
WITH RECURSIVE under (type, base) AS (
    SELECT oid, oid FROM pg_catalog.pg_type WHERE typtype <> 'd'
    UNION ALL
    SELECT domain.oid, under.base
    FROM pg_catalog.pg_type domain JOIN under ON domain.typbasetype = under.type WHERE domain.typtype = 'd'
)
SELECT DISTINCT c.relname::text
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN under ON under.type = a.atttypid
LEFT JOIN pg_catalog.pg_type list ON list.oid = under.base AND list.typcategory = 'A'
LEFT JOIN under item ON item.type = list.typelem
JOIN pg_catalog.pg_type t ON t.oid = COALESCE(item.base, under.base)
WHERE n.nspname = $1 AND t.typtype = 'b' AND NOT pg_catalog.pg_type_is_visible(t.oid)";

/// A foreign key from one schema into another.
struct CrossingKey {
    schema: String,
    table: String,
    foreign_schema: String,
    foreign_table: String,
    columns: Vec<String>,
    foreign_columns: Vec<String>,
    /// Changes when it does.
    mark: String,
}

/// `tables` of schema `own` with those of the neighbours that keys or links connect with it, and with the foreign keys
/// between them; and the keys of its own tables that lead to none of these.
pub async fn join(
    connection: &Connection,
    own: &str,
    neighbours: &[Neighbour],
    mut tables: Vec<Table>,
) -> Result<(Vec<Table>, Vec<LeftOut>), PostgresError> {
    let keys = keys(connection, own, neighbours).await?;
    let connected = connected(own, neighbours, &keys);
    for neighbour in &connected {
        tables.extend(tables_of(connection, neighbour).await?);
    }
    let mut left_out = Vec::new();
    for key in keys {
        let database = |schema: &str| connected.iter().find(|one| one.schema == schema).map(|one| one.database.clone());
        let is_known = |schema: &str| schema == own || database(schema).is_some();
        if !is_known(&key.schema) || !is_known(&key.foreign_schema) {
            continue;
        }
        let foreign_database = database(&key.foreign_schema);
        let place = |tables: &[Table], database: &Option<String>, name: &str, columns: &[String]| {
            tables.iter().position(|table| table.database == *database && table.name == name && table.has(columns))
        };
        let Some(from) = place(&tables, &database(&key.schema), &key.table, &key.columns) else { continue };
        let to = place(&tables, &foreign_database, &key.foreign_table, &key.foreign_columns);
        if key.schema == own && to.is_none_or(|to| tables[to].is_left_out) {
            left_out.push(unusable(&key));
        }
        if to.is_none() {
            continue;
        }
        let CrossingKey { columns, foreign_table, foreign_columns, .. } = key;
        tables[from].foreign_keys.push(ForeignKey { columns, foreign_database, foreign_table, foreign_columns });
    }
    Ok((tables, left_out))
}

/// A text that changes when the tables that [`join`] adds do.
pub async fn mark(connection: &Connection, own: &str, neighbours: &[Neighbour]) -> Result<String, PostgresError> {
    let keys = keys(connection, own, neighbours).await?;
    let connected: Vec<&str> = connected(own, neighbours, &keys).iter().map(|one| one.schema.as_str()).collect();
    let of_keys: String = keys.iter().map(|key| format!(" {}", key.mark)).collect();
    let of_schemas = match connected.is_empty() {
        true => None,
        // All at once: each database with many neighbours asks for those of all.
        false => introspect::mark(connection, &connected).await?,
    };
    Ok(format!("{of_keys}/{}", of_schemas.unwrap_or_default()))
}

fn unusable(key: &CrossingKey) -> LeftOut {
    let CrossingKey { table, columns, foreign_schema, foreign_table, .. } = key;
    let why = format!("no relation: the server's role may not use {foreign_schema}.{foreign_table}, or it is left out");
    LeftOut::until_change(format!("{table}.{}", columns.join(",")), why)
}

async fn keys(connection: &Connection, own: &str, neighbours: &[Neighbour]) -> Result<Vec<CrossingKey>, PostgresError> {
    let schemas: Vec<&str> = neighbours.iter().map(|one| one.schema.as_str()).chain([own]).collect();
    let args: [(&(dyn ToSql + Sync), Native); 1] = [(&schemas, Native::TEXT_ARRAY)];
    let rows = connection.in_catalog(Box::pin(connection.query(KEYS, &args))).await?;
    let key = |row: &Row| {
        Ok(CrossingKey {
            schema: row.try_get(0)?,
            table: row.try_get(1)?,
            foreign_schema: row.try_get(2)?,
            foreign_table: row.try_get(3)?,
            columns: row.try_get(4)?,
            foreign_columns: row.try_get(5)?,
            mark: row.try_get(6)?,
        })
    };
    rows.iter().map(key).collect()
}

/// The neighbours to which keys lead, directly or through others, and those with links.
fn connected<'n>(own: &str, neighbours: &'n [Neighbour], keys: &[CrossingKey]) -> Vec<&'n Neighbour> {
    let linked = neighbours.iter().filter(|neighbour| neighbour.is_linked);
    let mut reached: HashSet<&str> = linked.map(|neighbour| neighbour.schema.as_str()).chain([own]).collect();
    loop {
        let before = reached.len();
        for key in keys {
            if reached.contains(key.schema.as_str()) || reached.contains(key.foreign_schema.as_str()) {
                reached.extend([key.schema.as_str(), key.foreign_schema.as_str()]);
            }
        }
        if reached.len() == before {
            break;
        }
    }
    neighbours.iter().filter(|neighbour| reached.contains(neighbour.schema.as_str())).collect()
}

/// The tables of a neighbour; those of other servers and those with hidden types are left out.
async fn tables_of(connection: &Connection, neighbour: &Neighbour) -> Result<Vec<Table>, PostgresError> {
    let catalog = Box::pin(introspect::catalog(connection, &neighbour.schema)).await?;
    let schema: [(&(dyn ToSql + Sync), Native); 1] = [(&neighbour.schema, Native::TEXT)];
    let hidden = connection.in_catalog(Box::pin(connection.query(HIDDEN_TYPES, &schema))).await?;
    let hidden: Vec<String> = hidden.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    let mut tables = catalog.found.schema.into_tables();
    for table in &mut tables {
        table.is_left_out =
            hidden.contains(&table.name) || catalog.foreign.iter().any(|(foreign, _)| *foreign == table.name);
        table.database = Some(neighbour.database.clone());
        for key in &mut table.foreign_keys {
            key.foreign_database = Some(neighbour.database.clone());
        }
    }
    Ok(tables)
}
