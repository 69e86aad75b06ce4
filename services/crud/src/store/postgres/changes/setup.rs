//! What capture needs in the database: a schema of ours with the log, and triggers that write to it.
//!
//! Nothing of it may fail a statement of an application: names of triggers are unique beside those that a partition
//! takes over from its root, entries conflict with none of other transactions, the log has no sequence and is not
//! replicated (it is unlogged: after a crash of the server it is empty, which shows).

use tokio_postgres::{
    Row,
    types::{ToSql, Type as Native},
};

use super::super::{connection::Connection, error::PostgresError};

/// Begins a transaction that makes or removes something. One at a time does, in the whole database: what a trigger needs
/// is not removed while it is made.
pub const BEGIN: &str = "\
BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout TO '100ms'; SET LOCAL statement_timeout TO '30s';
SET LOCAL client_min_messages TO warning; SET LOCAL search_path TO pg_catalog;
SELECT pg_catalog.pg_advisory_xact_lock(8099000146718220899)";

/// By which our schema is told from another of the same name.
const MARK: &str = "Changes of tables that live queries read. Made by Perigee, and removed with the last one.";

/// The body of the function of our triggers.
const NOTE: &str = " BEGIN
    INSERT INTO perigee_changes.log (xid, tbl) VALUES (pg_catalog.pg_current_xact_id(), TG_RELID) ON CONFLICT DO NOTHING;
    RETURN NULL;
END ";

/// What there is of our schema.
const FOUND: &str = "\
SELECT n.oid IS NOT NULL,
    COALESCE(pg_catalog.pg_has_role(n.nspowner, 'USAGE'), true),
    pg_catalog.pg_get_userbyid(n.nspowner)::text,
    COALESCE(pg_catalog.obj_description(n.oid, 'pg_namespace') = $1, false),
    NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.relnamespace = n.oid)
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_proc p WHERE p.pronamespace = n.oid),
    pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE'),
    pg_catalog.format('%I', pg_catalog.current_database()), pg_catalog.format('%I', current_user),
    2 = (SELECT pg_catalog.count(*) FROM pg_catalog.pg_class c
        WHERE c.relnamespace = n.oid AND c.relkind = 'r' AND c.relname IN ('log', 'state'))
        AND EXISTS (SELECT FROM pg_catalog.pg_proc p
            WHERE p.pronamespace = n.oid AND p.proname = 'note' AND p.prosrc = $2),
    EXISTS (SELECT FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
        WHERE p.pronamespace = n.oid)
FROM (SELECT) one LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = 'perigee_changes'";

/// A log whose entries are of transactions that have not begun is one of another server, as after a restore.
const START_LOG: &str = "\
DELETE FROM perigee_changes.state WHERE pg_catalog.pg_snapshot_xmax(pruned::pg_catalog.pg_snapshot)
        > pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())
    OR EXISTS (SELECT FROM perigee_changes.log l
        WHERE l.xid >= pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot()));
DELETE FROM perigee_changes.log WHERE NOT EXISTS (SELECT FROM perigee_changes.state);
INSERT INTO perigee_changes.state (epoch) VALUES (pg_catalog.gen_random_uuid()::text) ON CONFLICT DO NOTHING";

/// A table and those below it, itself first: partitions have the triggers of their root.
const TREE: &str = "\
WITH RECURSIVE tree (relation, below) AS (
    SELECT c.oid, false
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relname = $2
    UNION
    SELECT i.inhrelid, true FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.relation
), ours AS (
    SELECT t.tgrelid, t.tgname, t.tgenabled
    FROM pg_catalog.pg_trigger t
    JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
    JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname = 'perigee_changes' AND NOT t.tgisinternal
)
SELECT tree.relation, pg_catalog.format('%I.%I', n.nspname, c.relname),
    CASE WHEN c.relkind = 'v' THEN 'a view' WHEN c.relkind = 'm' THEN 'a materialized view'
        WHEN c.relkind = 'f' THEN 'a foreign table' WHEN c.relkind NOT IN ('r', 'p') THEN 'no table'
        WHEN c.relpersistence = 'u' THEN 'an unlogged table' WHEN c.relpersistence <> 'p' THEN 'a temporary table' END,
    pg_catalog.pg_has_role(c.relowner, 'USAGE'),
    pg_catalog.format('%I', pg_catalog.pg_get_userbyid(c.relowner)), pg_catalog.format('%I', current_user),
    EXISTS (SELECT FROM ours WHERE ours.tgrelid = c.oid),
    ARRAY(SELECT pg_catalog.format('%I', ours.tgname) FROM ours WHERE ours.tgrelid = c.oid AND ours.tgenabled <> 'A')
FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.relation
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
ORDER BY tree.below, tree.relation";

/// Statements that drop the triggers of the schema `$1` on other tables than `$2` and those below them.
const NEEDLESS: &str = "\
WITH RECURSIVE tree (relation) AS (
    SELECT c.oid
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relname = ANY ($2)
    UNION
    SELECT i.inhrelid FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.relation
)
SELECT pg_catalog.format('DROP TRIGGER IF EXISTS %I ON %I.%I', t.tgname, n.nspname, c.relname)
FROM pg_catalog.pg_trigger t
JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
JOIN pg_catalog.pg_namespace own ON own.oid = p.pronamespace
JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE own.nspname = 'perigee_changes' AND t.tgparentid = 0
    AND t.tgargs = pg_catalog.convert_to($1, pg_catalog.getdatabaseencoding()) || '\\x00'::bytea
    AND c.oid NOT IN (SELECT relation FROM tree)
ORDER BY c.oid";

/// Makes what is missing for the capture of a table of a schema. An inner error says why that is not possible.
pub async fn capture(connection: &Connection, schema: &str, table: &str) -> Result<Result<(), String>, PostgresError> {
    if let Some(why) = unfollowed(&tree(connection, schema, table).await?)? {
        return Ok(Err(why));
    }
    if let Some(why) = make_log(connection).await? {
        return Ok(Err(why));
    }
    // What is made on a root is there on its partitions.
    while let Some(sql) = missing(&tree(connection, schema, table).await?, schema)? {
        connection.define(&sql).await?;
    }
    Ok(Ok(()))
}

async fn tree(connection: &Connection, schema: &str, table: &str) -> Result<Vec<Row>, PostgresError> {
    connection.query(TREE, &[(&schema, Native::TEXT), (&table, Native::TEXT)]).await
}

/// Why a table with those below it cannot be followed.
fn unfollowed(tree: &[Row]) -> Result<Option<String>, PostgresError> {
    if tree.is_empty() {
        return Ok(Some("expected a table, found nothing of that name".to_owned()));
    }
    for (index, row) in tree.iter().enumerate() {
        let name: String = row.try_get(1)?;
        if let Some(kind) = row.try_get::<_, Option<String>>(2)? {
            let below = if index == 0 { String::new() } else { format!(", {name}, below it") };
            return Ok(Some(format!("expected a table, found {kind}{below}")));
        }
        if !row.try_get::<_, bool>(3)? {
            let (owner, role): (String, String) = (row.try_get(4)?, row.try_get(5)?);
            return Ok(Some(format!("role {role} must own {name} to make triggers, its owner is {owner}")));
        }
    }
    Ok(None)
}

/// The statement that makes one more trigger, or lets one fire for replicated changes too; `None` where all are made.
fn missing(tree: &[Row], schema: &str) -> Result<Option<String>, PostgresError> {
    for row in tree {
        let (id, name, is_captured): (u32, String, bool) = (row.try_get(0)?, row.try_get(1)?, row.try_get(6)?);
        if !is_captured {
            // The argument says for whom it is.
            let schema = schema.replace('\'', "''");
            return Ok(Some(format!(
                "CREATE TRIGGER perigee_changes_{id} AFTER INSERT OR UPDATE OR DELETE ON {name} FOR EACH ROW \
                 EXECUTE FUNCTION perigee_changes.note('{schema}')"
            )));
        }
        let partly: Vec<String> = row.try_get(7)?;
        if let Some(trigger) = partly.first() {
            return Ok(Some(format!("ALTER TABLE ONLY {name} ENABLE ALWAYS TRIGGER {trigger}")));
        }
    }
    Ok(None)
}

/// What there is of our schema.
async fn found(connection: &Connection) -> Result<Row, PostgresError> {
    let args: [(&(dyn ToSql + Sync), Native); 2] = [(&MARK, Native::TEXT), (&NOTE, Native::TEXT)];
    connection.query(FOUND, &args).await?.pop().ok_or_else(PostgresError::unanswered)
}

/// Makes the log where it is missing. Says why that is not possible.
async fn make_log(connection: &Connection) -> Result<Option<String>, PostgresError> {
    let found = found(connection).await?;
    let (exists, is_owned, is_marked): (bool, bool, bool) = (found.try_get(0)?, found.try_get(1)?, found.try_get(3)?);
    let (is_empty, may_create, is_complete): (bool, bool, bool) =
        (found.try_get(4)?, found.try_get(5)?, found.try_get(8)?);
    let (database, role): (String, String) = (found.try_get(6)?, found.try_get(7)?);
    if !exists && !may_create {
        let right = format!("role {role} needs the right CREATE on database {database}");
        return Ok(Some(format!("{right}, or a schema perigee_changes of its own")));
    }
    if exists && !is_marked && !is_empty {
        return Ok(Some("the database has another schema perigee_changes".to_owned()));
    }
    if !is_owned {
        let owner: String = found.try_get(2)?;
        return Ok(Some(format!("role {role} must own schema perigee_changes, its owner is {owner}")));
    }
    if !exists {
        connection.define("CREATE SCHEMA perigee_changes").await?;
    }
    if !is_complete || !is_marked {
        connection.define(&made()).await?;
    }
    connection.define(START_LOG).await?;
    Ok(None)
}

/// The statements that make what is in our schema.
fn made() -> String {
    format!(
        "COMMENT ON SCHEMA perigee_changes IS '{MARK}';
         CREATE UNLOGGED TABLE IF NOT EXISTS perigee_changes.log (xid xid8, tbl oid, PRIMARY KEY (xid, tbl));
         CREATE UNLOGGED TABLE IF NOT EXISTS perigee_changes.state (
             one boolean PRIMARY KEY DEFAULT true CHECK (one), epoch text NOT NULL, pruned text);
         CREATE OR REPLACE FUNCTION perigee_changes.note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
             SET search_path = pg_catalog, pg_temp AS $note${NOTE}$note$;
         REVOKE ALL ON SCHEMA perigee_changes FROM PUBLIC;
         REVOKE ALL ON perigee_changes.log, perigee_changes.state FROM PUBLIC;
         REVOKE ALL ON FUNCTION perigee_changes.note() FROM PUBLIC"
    )
}

/// The statements that drop the triggers of other tables of a schema than `kept`.
pub async fn needless(connection: &Connection, schema: &str, kept: &[String]) -> Result<Vec<String>, PostgresError> {
    let rows = connection.query(NEEDLESS, &[(&schema, Native::TEXT), (&kept, Native::TEXT_ARRAY)]).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Removes the log where there is no trigger any more that writes to it.
pub async fn remove(connection: &Connection) -> Result<(), PostgresError> {
    let found = found(connection).await?;
    let (exists, is_owned, is_marked): (bool, bool, bool) = (found.try_get(0)?, found.try_get(1)?, found.try_get(3)?);
    if !exists || !is_owned || !is_marked || found.try_get(9)? {
        return Ok(());
    }
    let sql = "DROP FUNCTION IF EXISTS perigee_changes.note(); \
               DROP TABLE IF EXISTS perigee_changes.log, perigee_changes.state; \
               COMMENT ON SCHEMA perigee_changes IS NULL";
    connection.command(sql).await?;
    let found = self::found(connection).await?;
    // One that was made for us could not be made again; what others put there is theirs.
    match found.try_get(4)? && found.try_get(5)? {
        true => connection.command("DROP SCHEMA perigee_changes").await,
        false => Ok(()),
    }
}
