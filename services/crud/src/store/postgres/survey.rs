//! Survey of a PostgreSQL database: its schemas, and the foreign keys between them.

use tokio_postgres::Row;

use super::{connection::Connection, error::PostgresError};

/// A PostgreSQL database beyond one schema.
#[derive(Debug, Clone, PartialEq)]
pub struct Survey {
    /// Its schemas, those with the most tables first; without those of the server itself.
    pub schemas: Vec<SchemaSize>,
    /// Foreign keys from one schema into another.
    pub outward_keys: Vec<OutwardKey>,
}

/// A schema and how many tables and views of it our role may use.
#[derive(Debug, Clone, PartialEq)]
pub struct SchemaSize {
    /// Its name.
    pub name: String,
    /// Its tables and views.
    pub tables: usize,
}

/// A foreign key that leads out of its schema.
#[derive(Debug, Clone, PartialEq)]
pub struct OutwardKey {
    /// The schema of the table that has it.
    pub schema: String,
    /// The table that has it.
    pub table: String,
    /// Its columns.
    pub columns: Vec<String>,
    /// The schema of the table it refers to.
    pub foreign_schema: String,
    /// The table it refers to.
    pub foreign_table: String,
}

const SCHEMAS: &str = "\
SELECT n.nspname::text, pg_catalog.count(c.oid)
FROM pg_catalog.pg_namespace n
LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
    AND NOT c.relispartition
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
        WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')
    AND (pg_catalog.has_table_privilege(c.oid, 'SELECT, INSERT, UPDATE, DELETE')
        OR pg_catalog.has_any_column_privilege(c.oid, 'SELECT, INSERT, UPDATE'))
WHERE n.nspname::text NOT LIKE 'pg\\_%' AND n.nspname NOT IN ('information_schema', 'perigee_changes')
    AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
GROUP BY n.oid, n.nspname
ORDER BY 2 DESC, n.oid";

const OUTWARD_KEYS: &str = "\
SELECT n.nspname::text, c.relname::text,
    ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(k.conkey) WITH ORDINALITY AS p (attnum, position)
        JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = p.attnum ORDER BY p.position),
    m.nspname::text, f.relname::text
FROM pg_catalog.pg_constraint k
JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
JOIN pg_catalog.pg_class f ON f.oid = k.confrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_namespace m ON m.oid = f.relnamespace
WHERE k.contype = 'f' AND k.conparentid = 0 AND n.oid <> m.oid
ORDER BY n.nspname, c.relname, k.conname";

/// The schemas of the database and the foreign keys between them.
pub async fn survey(connection: &Connection) -> Result<Survey, PostgresError> {
    let schema = |row: &Row| {
        let tables: i64 = row.try_get(1)?;
        Ok(SchemaSize { name: row.try_get(0)?, tables: usize::try_from(tables).unwrap_or_default() })
    };
    let key = |row: &Row| {
        Ok(OutwardKey {
            schema: row.try_get(0)?,
            table: row.try_get(1)?,
            columns: row.try_get(2)?,
            foreign_schema: row.try_get(3)?,
            foreign_table: row.try_get(4)?,
        })
    };
    let found =
        Box::pin(async { Ok((connection.query(SCHEMAS, &[]).await?, connection.query(OUTWARD_KEYS, &[]).await?)) });
    let (schemas, keys) = connection.in_catalog(found).await?;
    let schemas: Result<Vec<_>, PostgresError> = schemas.iter().map(schema).collect();
    let keys: Result<Vec<_>, PostgresError> = keys.iter().map(key).collect();
    Ok(Survey { schemas: schemas?, outward_keys: keys? })
}
