//! Introspection: a schema as PostgreSQL's catalog has it, read in one snapshot.

use std::collections::HashMap;

use query::{Abilities, Column, ForeignKey, Matching, Schema, Table, TableKind, Type, Writes};
use tokio_postgres::{
    Row,
    types::{ToSql, Type as Native},
};

use super::{
    connection::Connection,
    equality,
    error::{Keys, PostgresError},
    rewritten::{self, Events, Rewritten},
    unordered::{self, Unordered},
};
use crate::{Introspected, LeftOut};

/// Tables and views our role may use, without the partitions of others and what belongs to extensions, with their
/// columns; a domain counts as what is under it.
const COLUMNS: &str = "\
WITH RECURSIVE base (type, base, required) AS (
    SELECT oid, oid, false FROM pg_catalog.pg_type WHERE typtype <> 'd'
    UNION ALL
    SELECT domain.oid, base.base, base.required OR domain.typnotnull
    FROM pg_catalog.pg_type domain JOIN base ON domain.typbasetype = base.type WHERE domain.typtype = 'd'
)
SELECT c.relname::text,
    c.relkind::text,
    a.attname::text,
    base.base,
    under.typname::text,
    NOT (a.attnotnull OR base.required),
    a.atthasdef OR a.attidentity <> '' OR own.typdefault IS NOT NULL,
    a.attidentity = 'a' OR a.attgenerated <> '',
    pg_catalog.format_type(a.atttypid, a.atttypmod),
    pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT'),
    within.oid,
    within.typname::text
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN (pg_catalog.pg_attribute a
    JOIN base ON base.type = a.atttypid
    JOIN pg_catalog.pg_type own ON own.oid = a.atttypid
    JOIN pg_catalog.pg_type under ON under.oid = base.base
    LEFT JOIN pg_catalog.pg_type item ON item.typarray = base.base
    LEFT JOIN base item_base ON item_base.type = item.oid
    LEFT JOIN pg_catalog.pg_type within ON within.oid = item_base.base)
    ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    AND pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT, INSERT, UPDATE')
WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition
    AND (c.relkind <> 'm' OR c.relispopulated)
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
        WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')
    AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
    AND (pg_catalog.has_table_privilege(c.oid, 'SELECT, INSERT, UPDATE, DELETE')
        OR pg_catalog.has_any_column_privilege(c.oid, 'SELECT, INSERT, UPDATE'))
ORDER BY c.relname, a.attnum";

/// What is special of tables: row triggers before inserts (7) and updates (19), their own and those of the tables below
/// them, tables that inherit from them, and whether the row identifier can be read, which few foreign tables have.
const TRAITS: &str = "\
WITH RECURSIVE below (root, relation) AS (
    SELECT inhparent, inhrelid FROM pg_catalog.pg_inherits
    UNION
    SELECT below.root, i.inhrelid FROM below JOIN pg_catalog.pg_inherits i ON i.inhparent = below.relation
), row_triggers (relation, type) AS (
    SELECT tgrelid, tgtype FROM pg_catalog.pg_trigger WHERE tgtype & 67 = 3 AND tgenabled IN ('O', 'A')
), fired (relation, type) AS (
    SELECT relation, type FROM row_triggers
    UNION ALL
    SELECT below.root, type FROM below JOIN row_triggers USING (relation)
)
SELECT c.relname::text,
    EXISTS (SELECT FROM fired f WHERE f.relation = c.oid AND f.type & 4 <> 0),
    EXISTS (SELECT FROM fired f WHERE f.relation = c.oid AND f.type & 16 <> 0),
    c.relkind <> 'p' AND EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhparent = c.oid),
    pg_catalog.has_table_privilege(c.oid, 'SELECT') AND (c.relkind <> 'f' OR EXISTS (
        SELECT FROM pg_catalog.pg_foreign_table t
        JOIN pg_catalog.pg_foreign_server s ON s.oid = t.ftserver
        JOIN pg_catalog.pg_foreign_data_wrapper w ON w.oid = s.srvfdw
        JOIN pg_catalog.pg_proc p ON p.oid = w.fdwhandler
        WHERE t.ftrelid = c.oid AND p.proname = 'postgres_fdw_handler')),
    NOT EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhparent = c.oid)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'f') AND NOT c.relispartition";

/// Tables and views that are not among those: why.
const LEFT_OUT: &str = "\
SELECT c.relname::text,
    CASE WHEN c.relkind = 'm' AND NOT c.relispopulated THEN 'the materialized view has not been populated'
        ELSE pg_catalog.format('role %s has no privilege to use it', current_user) END
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
        WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')
    AND (c.relkind = 'm' AND NOT c.relispopulated OR NOT (pg_catalog.has_schema_privilege(n.oid, 'USAGE')
        AND (pg_catalog.has_table_privilege(c.oid, 'SELECT, INSERT, UPDATE, DELETE')
            OR pg_catalog.has_any_column_privilege(c.oid, 'SELECT, INSERT, UPDATE'))))";

/// Unique indexes, those of constraints included, that hold for all rows and whose columns are plain.
const KEYS: &str = "\
SELECT c.relname::text, x.relname::text, i.indisprimary,
    ARRAY(SELECT a.attname::text
        FROM pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, position)
        JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
        WHERE k.position <= i.indnkeyatts ORDER BY k.position)
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class c ON c.oid = i.indrelid
JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
ORDER BY c.relname, x.relname";

/// Foreign keys between tables of the schema.
const FOREIGN_KEYS: &str = "\
SELECT c.relname::text, f.relname::text,
    ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(k.conkey) WITH ORDINALITY AS p (attnum, position)
        JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = p.attnum ORDER BY p.position),
    ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(k.confkey) WITH ORDINALITY AS p (attnum, position)
        JOIN pg_catalog.pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = p.attnum ORDER BY p.position)
FROM pg_catalog.pg_constraint k
JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
JOIN pg_catalog.pg_class f ON f.oid = k.confrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND f.relnamespace = n.oid AND k.contype = 'f' AND k.conparentid = 0
ORDER BY c.relname, k.conkey, k.conname";

/// Labels of every enumerated type, by the name that its columns have; a domain's are those of what is under it.
const LABELS: &str = "\
WITH RECURSIVE base (type, base) AS (
    SELECT oid, oid FROM pg_catalog.pg_type WHERE typtype = 'e'
    UNION ALL
    SELECT domain.oid, base.base FROM pg_catalog.pg_type domain JOIN base ON domain.typbasetype = base.type
    WHERE domain.typtype = 'd'
)
SELECT pg_catalog.format_type(base.type, NULL),
    ARRAY(SELECT e.enumlabel::text FROM pg_catalog.pg_enum e WHERE e.enumtypid = base.base ORDER BY e.enumsortorder)
FROM base";

/// Every row of the catalog that the others read of schemas, by the transaction that wrote it, and those that say what of
/// them is published, which the log of changes depends on. One pass for all of them.
const MARK: &str = "\
WITH n AS MATERIALIZED (
    SELECT oid, xmin FROM pg_catalog.pg_namespace WHERE nspname = ANY ($1)
)
SELECT pg_catalog.md5(pg_catalog.concat(
    (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', n.oid, n.xmin), ',' ORDER BY n.oid) FROM n),
    (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', c.oid, c.xmin), ',' ORDER BY c.oid)
        FROM pg_catalog.pg_class c WHERE c.relnamespace IN (SELECT oid FROM n)),
    (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', a.attrelid, a.attnum, a.xmin), ','
            ORDER BY a.attrelid, a.attnum)
        FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
        WHERE c.relnamespace IN (SELECT oid FROM n) AND a.attnum > 0),
    (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', t.oid, t.xmin), ',' ORDER BY t.oid)
        FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
        WHERE c.relnamespace IN (SELECT oid FROM n) AND NOT t.tgisinternal),
    (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', r.oid, r.xmin), ',' ORDER BY r.oid)
        FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class c ON c.oid = r.ev_class
        WHERE c.relnamespace IN (SELECT oid FROM n)),
    (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', i.inhrelid, i.inhparent, i.xmin), ','
            ORDER BY i.inhrelid, i.inhparent)
        FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhparent
        WHERE c.relnamespace IN (SELECT oid FROM n)),
    (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', k.oid, k.xmin), ',' ORDER BY k.oid)
        FROM pg_catalog.pg_constraint k WHERE k.connamespace IN (SELECT oid FROM n)),
    (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', p.oid, p.xmin), ',' ORDER BY p.oid)
        FROM pg_catalog.pg_publication_rel p JOIN pg_catalog.pg_class c ON c.oid = p.prrelid
        WHERE c.relnamespace IN (SELECT oid FROM n)),
    (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', e.oid, e.xmin), ',' ORDER BY e.oid)
        FROM pg_catalog.pg_enum e)))
WHERE EXISTS (SELECT FROM n)";

/// What an introspection finds in the catalog.
pub struct Catalog {
    /// Tables, by name, and what is left out so far.
    pub found: Introspected,
    /// Columns of unique keys, by the names of table and key.
    pub keys: Keys,
    /// Foreign tables of the schema, and their servers.
    pub foreign: Vec<(String, String)>,
    /// Labels of the enumerated types, by the names of the types.
    pub labels: HashMap<String, Vec<String>>,
}

/// Reads the schema called `name`.
pub async fn catalog(connection: &Connection, name: &str) -> Result<Catalog, PostgresError> {
    let schema: [(&(dyn ToSql + Sync), Native); 1] = [(&name, Native::TEXT)];
    let found = async {
        let columns = connection.query(COLUMNS, &schema).await?;
        let keys = connection.query(KEYS, &schema).await?;
        let foreign_keys = connection.query(FOREIGN_KEYS, &schema).await?;
        let left_out = connection.query(LEFT_OUT, &schema).await?;
        let traits = connection.query(TRAITS, &schema).await?;
        let collations = connection.query(equality::COLLATIONS, &schema).await?;
        let unordered = unordered::types(connection).await?;
        let labels = labels(connection).await?;
        Ok::<_, PostgresError>((columns, traits, keys, foreign_keys, left_out, collations, unordered, labels))
    };
    let found = connection.in_catalog(Box::pin(found)).await?;
    let (columns, traits, keys, foreign_keys, unusable, collations, unordered, labels) = found;
    let Rewritten { events, mut left_out, foreign } = Box::pin(rewritten::find(connection, name)).await?;
    for row in &unusable {
        left_out.push(LeftOut::until_change(row.try_get::<_, String>(0)?, row.try_get::<_, String>(1)?));
    }

    let mut tables = Tables { events, unordered, ..Tables::default() };
    let is_left_out = |name: &str| left_out.iter().any(|object| object.name == name);
    for row in &columns {
        if !is_left_out(row.try_get(0)?) {
            tables.column(row)?;
        }
    }
    traits.iter().try_for_each(|row| tables.traits(row))?;
    collations.iter().try_for_each(|row| tables.collation(row))?;
    let mut names = Keys::new();
    for row in &keys {
        let (table, name, columns) = tables.key(row)?;
        names.insert((table, name), columns);
    }
    foreign_keys.iter().try_for_each(|row| tables.foreign_key(row))?;
    tables.tables.iter_mut().filter(|table| !table.primary_key.is_empty()).for_each(|table| table.row_id.clear());
    for column in tables.tables.iter_mut().flat_map(|table| &mut table.columns) {
        column.abilities.matching = equality::matching(column.r#type, &column.equality);
    }
    let found = Introspected { schema: Schema::new(tables.tables), left_out };
    Ok(Catalog { found, keys: names, foreign, labels })
}

/// Labels of the enumerated types, by the names of the types: as columns have them in the same transaction.
async fn labels(connection: &Connection) -> Result<HashMap<String, Vec<String>>, PostgresError> {
    let rows = connection.query(LABELS, &[]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// A text that changes when one of the schemas called `names` does; `None` if there is none of them.
pub async fn mark(connection: &Connection, names: &[&str]) -> Result<Option<String>, PostgresError> {
    let schemas: [(&(dyn ToSql + Sync), Native); 1] = [(&names, Native::TEXT_ARRAY)];
    let rows = connection.in_catalog(Box::pin(connection.query(MARK, &schemas))).await?;
    rows.first().map(|row| row.try_get(0).map_err(PostgresError::from)).transpose()
}

#[derive(Default)]
struct Tables {
    tables: Vec<Table>,
    by_name: HashMap<String, usize>,
    /// What can be written through views and foreign tables.
    events: HashMap<String, Events>,
    /// The types without an order.
    unordered: HashMap<u32, Unordered>,
}

impl Tables {
    fn column(&mut self, row: &Row) -> Result<(), PostgresError> {
        let table: String = row.try_get(0)?;
        let (kind, writes) = match (row.try_get(1)?, self.events.get(&table)) {
            ("r" | "p", _) => (TableKind::Table, Writes::ALL),
            ("f", Some(events)) if events.writes != Writes::NONE => (TableKind::Table, events.writes),
            ("v", Some(events)) => (TableKind::View, events.writes),
            _ => (TableKind::View, Writes::NONE),
        };
        let is_read_only = |column: &String| {
            writes != Writes::NONE && self.events.get(&table).is_some_and(|events| events.read_only.contains(column))
        };
        let column: Option<String> = row.try_get(2)?;
        let is_read_only = column.as_ref().is_some_and(is_read_only);
        let index = *self.by_name.entry(table).or_insert_with_key(|name| {
            self.tables.push(Table { kind, writes, ..Table::new(name, Vec::new()) });
            self.tables.len() - 1
        });
        let Some(name) = column else { return Ok(()) };
        let (base, native): (u32, String) = (row.try_get(3)?, row.try_get(8)?);
        let item: Option<u32> = row.try_get(10)?;
        let unordered = self.unordered.get(&item.unwrap_or(base)).copied().unwrap_or_default();
        self.tables[index].columns.push(Column {
            name,
            r#type: match item {
                Some(item) => held(item, row.try_get(11)?).listed().unwrap_or(Type::Other),
                None => held(base, row.try_get(4)?),
            },
            nullable: row.try_get(5)?,
            has_default: row.try_get(6)?,
            generated: row.try_get::<_, bool>(7)? || is_read_only,
            readable: row.try_get(9)?,
            equality: equality::of(base, &native),
            abilities: Abilities {
                comparisons: if item.is_some() { unordered.arrays } else { unordered.values },
                wide_times: true,
                matching: Matching::None,
            },
            native,
        });
        Ok(())
    }

    fn traits(&mut self, row: &Row) -> Result<(), PostgresError> {
        let (has_children, has_row_id, is_alone): (bool, bool, bool) =
            (row.try_get(3)?, row.try_get(4)?, row.try_get(5)?);
        let Some(table) = self.table(row.try_get(0)?) else { return Ok(()) };
        table.row_triggers = Writes { insert: row.try_get(1)?, update: row.try_get(2)?, delete: false };
        table.has_children = has_children;
        if has_row_id && table.kind == TableKind::Table {
            // A place in one of the tables that hold its rows.
            let names: &[&str] = if is_alone { &["ctid"] } else { &["tableoid", "ctid"] };
            table.row_id = names.iter().map(|name| (*name).to_owned()).collect();
        }
        Ok(())
    }

    /// Notes the collation of a column.
    fn collation(&mut self, row: &Row) -> Result<(), PostgresError> {
        let column: String = row.try_get(1)?;
        if let Some(table) = self.table(row.try_get(0)?)
            && let Some(column) = table.columns.iter_mut().find(|known| known.name == column)
        {
            column.equality = equality::in_collation(&column.equality, row.try_get(2)?, row.try_get(3)?);
        }
        Ok(())
    }

    /// Adds a unique key to its table. Returns the table, the key's name and its columns.
    fn key(&mut self, row: &Row) -> Result<(String, String, Vec<String>), PostgresError> {
        let table_name: String = row.try_get(0)?;
        let is_primary: bool = row.try_get(2)?;
        let columns: Vec<String> = row.try_get(3)?;
        if let Some(table) = self.table(&table_name).filter(|table| !table.has_children && table.has(&columns)) {
            if is_primary {
                table.primary_key.clone_from(&columns);
                table.unique_keys.retain(|key| *key != columns);
            } else if table.primary_key != columns && !table.unique_keys.contains(&columns) {
                table.unique_keys.push(columns.clone());
            }
        }
        Ok((table_name, row.try_get(1)?, columns))
    }

    fn foreign_key(&mut self, row: &Row) -> Result<(), PostgresError> {
        let foreign_table: String = row.try_get(1)?;
        let columns: Vec<String> = row.try_get(2)?;
        let foreign_columns: Vec<String> = row.try_get(3)?;
        if !self.table(&foreign_table).is_some_and(|table| table.has(&foreign_columns)) {
            return Ok(());
        }
        if let Some(table) = self.table(row.try_get(0)?).filter(|table| table.has(&columns)) {
            table.foreign_keys.push(ForeignKey { columns, foreign_database: None, foreign_table, foreign_columns });
        }
        Ok(())
    }

    fn table(&mut self, name: &str) -> Option<&mut Table> {
        self.by_name.get(name).map(|&index| &mut self.tables[index])
    }
}

/// Keys over columns our role may not read are none to us.
pub trait Has {
    /// Whether it has all of them, and they may be read.
    fn has(&self, columns: &[String]) -> bool;
}

impl Has for Table {
    fn has(&self, columns: &[String]) -> bool {
        columns.iter().all(|name| self.columns.iter().any(|column| column.name == *name && column.readable))
    }
}

/// Types by their object identifiers; extensions by name, as they get theirs when they are made.
fn held(oid: u32, name: &str) -> Type {
    match Native::from_oid(oid) {
        Some(Native::BOOL) => Type::Bool,
        Some(Native::INT2) => Type::Int16,
        Some(Native::INT4) => Type::Int32,
        Some(Native::INT8 | Native::OID) => Type::Int64,
        Some(Native::FLOAT4 | Native::FLOAT8) => Type::Float,
        Some(Native::NUMERIC) => Type::Decimal,
        Some(Native::TEXT | Native::VARCHAR | Native::BPCHAR | Native::NAME) => Type::Text,
        Some(Native::BYTEA) => Type::Bytes,
        Some(Native::DATE) => Type::Date,
        Some(Native::TIME) => Type::Time,
        Some(Native::TIMESTAMP | Native::TIMESTAMPTZ) => Type::Timestamp,
        Some(Native::UUID) => Type::Uuid,
        Some(Native::JSON | Native::JSONB) => Type::Json,
        Some(Native::INET | Native::CIDR) => Type::Address,
        None if name == "citext" => Type::Text,
        Some(_) | None => Type::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_told_by_their_identifier() {
        assert_eq!(held(23, "int4"), Type::Int32);
        assert_eq!(held(1186, "interval"), Type::Other);
        assert_eq!(held(16_400, "citext"), Type::Text);
        assert_eq!(held(16_400, "mood"), Type::Other);
    }
}
