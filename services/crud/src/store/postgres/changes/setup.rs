//! What capture needs in the database: a schema of ours with the log, and triggers that write to it.
//!
//! Nothing of it may fail a statement of an application: names of triggers are unique beside those that a partition
//! takes over from its root, whoever owns it; entries conflict with none of other transactions; the log has no sequence
//! and is not replicated (it is unlogged: after a crash of the server it is empty, which shows). Whoever may read all else
//! may read the log, or `pg_dump` would fail; a right of a role by its name would keep that role from being dropped.
//!
//! Only what our role made is used. A superuser that reads or writes a table of another role runs the code of that role.

use tokio_postgres::{
    Row,
    types::{ToSql, Type as Native},
};

use super::{
    super::{connection::Connection, error::PostgresError},
    images,
    obstacle::Obstacle,
};

/// Begins a transaction that makes or removes something. One at a time does, in the whole database: what a trigger needs
/// is not removed while it is made. Nobody else waits behind that lock.
pub const BEGIN: &str = "\
BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL statement_timeout TO '30s';
SET LOCAL client_min_messages TO warning; SET LOCAL search_path TO pg_catalog; SET LOCAL default_tablespace TO '';
SET LOCAL lock_timeout TO '1s'; SELECT pg_catalog.pg_advisory_xact_lock(8099000146718220899);
SET LOCAL lock_timeout TO '100ms'";

/// Keeps the log from being dropped until the end of the transaction. Needs no snapshot: the one that is taken after it
/// shows who owns what is locked.
pub const LOCK_LOG: &str = "\
LOCK TABLE perigee_changes.log, perigee_changes.state, perigee_changes.readers IN ACCESS SHARE MODE";

/// Fails as for a table that is not there, unless the log is of our role.
pub const REQUIRE_OWN: &str = "\
SELECT (CASE WHEN 3 = (SELECT pg_catalog.count(*) FROM pg_catalog.pg_class c
        WHERE c.oid IN ('perigee_changes.log'::pg_catalog.regclass, 'perigee_changes.state'::pg_catalog.regclass,
                'perigee_changes.readers'::pg_catalog.regclass)
            AND c.relkind = 'r' AND pg_catalog.pg_get_userbyid(c.relowner) = current_user)
    THEN 'pg_catalog.pg_class' ELSE 'pg_catalog.perigee_changes_of_another_role' END)::pg_catalog.regclass";

/// By which our schema is told from another of the same name.
pub(super) const MARK: &str =
    "Changes of tables that live queries read. Made by Perigee, and removed with the last one.";

/// The body of the function of our triggers.
const NOTE: &str = " BEGIN
    INSERT INTO perigee_changes.log (xid, tbl) VALUES (pg_catalog.pg_current_xact_id(), TG_RELID) ON CONFLICT DO NOTHING;
    RETURN NULL;
END ";

/// What there is of our schema. An object of another role is named with its owner. All roles have one right on each part
/// but the images of rows, and none has one by its name.
const FOUND: &str = "\
WITH ours AS (
    SELECT n.oid, n.nspowner AS owner, n.nspname::text AS named, n.nspacl AS acl FROM pg_catalog.pg_namespace n
    WHERE n.nspname = 'perigee_changes'
), parts AS (
    SELECT ours.owner, 'schema ' || ours.named AS named, 'n' AS kind, '' AS args, ours.acl, true AS is_made FROM ours
    UNION ALL
    SELECT c.relowner, 'perigee_changes.' || c.relname, CASE WHEN c.relname = 'images' THEN 'p' ELSE 't' END, '', c.relacl,
        c.relkind = CASE WHEN c.relname = 'images_seq_seq' THEN 'S' ELSE 'r' END
    FROM ours JOIN pg_catalog.pg_class c ON c.relnamespace = ours.oid AND c.relname IN (
        'log', 'state', 'readers', 'images', 'images_seq_seq', 'followed')
    UNION ALL
    SELECT p.proowner, 'function perigee_changes.' || p.proname, 'f', '()',
        COALESCE(p.proacl, pg_catalog.acldefault('f', p.proowner)),
        p.prosrc = CASE WHEN p.proname = 'note' THEN $2 ELSE $3 END
    FROM ours JOIN pg_catalog.pg_proc p ON p.pronamespace = ours.oid AND p.proname IN ('note', 'image') AND p.pronargs = 0
), given AS (
    SELECT parts.named, parts.kind, parts.args, a.grantee, a.privilege_type AS privilege
    FROM parts CROSS JOIN pg_catalog.aclexplode(parts.acl) a WHERE a.grantee <> parts.owner
), sound AS (
    SELECT parts.named LIKE '%perigee\\_changes.image%' OR parts.named = 'perigee_changes.followed' AS is_of_images FROM parts
    WHERE parts.is_made AND CASE parts.kind WHEN 'p' THEN '{}'
        WHEN 'n' THEN '{0 USAGE}' WHEN 't' THEN '{0 SELECT}' ELSE '{0 EXECUTE}' END::text[] = ARRAY(
            SELECT pg_catalog.concat_ws(' ', given.grantee, given.privilege) FROM given
            WHERE given.named = parts.named)
), foreign_parts AS (
    SELECT parts.named || ', its owner is ' || pg_catalog.pg_get_userbyid(parts.owner) AS named FROM parts
    WHERE pg_catalog.pg_get_userbyid(parts.owner) <> current_user ORDER BY parts.kind = 'n' DESC, parts.named LIMIT 1
)
SELECT EXISTS (SELECT FROM ours), (SELECT named FROM foreign_parts),
    COALESCE((SELECT pg_catalog.obj_description(ours.oid, 'pg_namespace') FROM ours) = $1, false),
    NOT EXISTS (SELECT FROM ours JOIN pg_catalog.pg_depend d
        ON d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.refobjid = ours.oid AND d.deptype = 'n'),
    pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE'),
    pg_catalog.format('%I', pg_catalog.current_database()), pg_catalog.format('%I', current_user),
    5 = (SELECT pg_catalog.count(*) FROM sound WHERE NOT sound.is_of_images),
    EXISTS (SELECT FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
        JOIN ours ON p.pronamespace = ours.oid),
    ARRAY(SELECT DISTINCT pg_catalog.format('REVOKE ALL ON %s%s FROM %I CASCADE', given.named, given.args,
        pg_catalog.pg_get_userbyid(given.grantee)) FROM given WHERE given.grantee <> 0),
    pg_catalog.pg_is_in_recovery(), 4 = (SELECT pg_catalog.count(*) FROM sound WHERE sound.is_of_images)";

/// A log whose entries are of transactions that have not begun is one of another server, as after a restore.
const START_LOG: &str = "\
DELETE FROM perigee_changes.state WHERE pg_catalog.pg_snapshot_xmax(pruned::pg_catalog.pg_snapshot)
        > pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())
    OR EXISTS (SELECT FROM perigee_changes.log l
        WHERE l.xid >= pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot()));
DELETE FROM perigee_changes.log WHERE NOT EXISTS (SELECT FROM perigee_changes.state);";
const START_IMAGES: &str = "\
DELETE FROM perigee_changes.images WHERE NOT EXISTS (SELECT FROM perigee_changes.state);
DELETE FROM perigee_changes.followed WHERE NOT EXISTS (SELECT FROM perigee_changes.state);";
const START_EPOCH: &str = "\
INSERT INTO perigee_changes.state (epoch)
    SELECT pg_catalog.gen_random_uuid()::text WHERE NOT EXISTS (SELECT FROM perigee_changes.state)";

/// Notes that tables of the schema `$1` are captured now. Those whose images are read have a row of their own.
const READ: &str = "\
INSERT INTO perigee_changes.readers (schema, seen) VALUES ($1, pg_catalog.now())
ON CONFLICT (schema) DO UPDATE SET seen = EXCLUDED.seen";
/// The schemas whose tables are captured. Who reads the log says so at least once a minute.
const READERS: &str = "\
SELECT r.schema FROM perigee_changes.readers r WHERE r.seen > pg_catalog.now() - '5 minutes'::pg_catalog.interval
    AND NOT EXISTS (SELECT FROM perigee_changes.readers own WHERE r.schema = '!' || own.schema)
ORDER BY r.schema";

/// Whether images are read, as [`READERS`] says of schemas.
const IMAGES_READ: &str = "\
SELECT FROM perigee_changes.readers r
WHERE r.schema = $1 AND r.seen > pg_catalog.now() - '5 minutes'::pg_catalog.interval";

/// A table and those below it, itself first: partitions have the triggers of their root. Temporary tables of a session
/// below it are seen by that session only.
///
/// Before version 15 these are internal, and only a superuser may have them fire for replicated changes: there, each
/// partition gets one of its own beside it.
///
/// A partitioned table has no rows of its own: whether it is unlogged means nothing, and cannot be changed.
const TREE: &str = "\
WITH RECURSIVE tree (relation, below) AS (
    SELECT c.oid, false
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relname = $2
    UNION
    SELECT i.inhrelid, true
    FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.relation
    JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid AND c.relpersistence <> 't'
), ours AS (
    SELECT t.tgrelid, pg_catalog.array_agg(pg_catalog.format('%I', t.tgname)) FILTER (WHERE t.tgenabled <> 'A') AS partly
    FROM pg_catalog.pg_trigger t
    JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
    JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname = 'perigee_changes' AND p.proname = $3 AND NOT t.tgisinternal
    GROUP BY t.tgrelid
)
SELECT tree.relation, pg_catalog.format('%I.%I', n.nspname, c.relname),
    CASE WHEN c.relkind = 'v' THEN 'a view' WHEN c.relkind = 'm' THEN 'a materialized view'
        WHEN c.relkind = 'f' THEN 'a foreign table' WHEN c.relkind NOT IN ('r', 'p') THEN 'no table'
        WHEN c.relpersistence = 'u' AND c.relkind = 'r' THEN 'an unlogged table'
        WHEN c.relpersistence = 't' THEN 'a temporary table' END,
    pg_catalog.pg_has_role(c.relowner, 'USAGE'),
    pg_catalog.format('%I', pg_catalog.pg_get_userbyid(c.relowner)), pg_catalog.format('%I', current_user),
    ours.tgrelid IS NOT NULL, COALESCE(ours.partly, '{}'), tree.below AND c.relispartition
FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.relation
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN ours ON ours.tgrelid = c.oid
ORDER BY tree.below, tree.relation";

/// Triggers of the schema `$1` on other tables than `$2` and those below them, and of schemas that are none of `$3`
/// unless it is null: their tables, with the statements that drop them.
const NEEDLESS: &str = "\
WITH RECURSIVE tree (relation) AS (
    SELECT c.oid
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relname = ANY ($2)
    UNION
    SELECT i.inhrelid FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.relation
)
SELECT c.oid, pg_catalog.format('DROP TRIGGER IF EXISTS %I ON %I.%I', t.tgname, n.nspname, c.relname)
FROM pg_catalog.pg_trigger t
JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
JOIN pg_catalog.pg_namespace own ON own.oid = p.pronamespace
JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE own.nspname = 'perigee_changes' AND p.proname = $4 AND t.tgparentid = 0
    AND pg_catalog.starts_with(t.tgname, $5) AND pg_catalog.pg_get_userbyid(p.proowner) = current_user
    AND CASE WHEN t.tgargs = pg_catalog.convert_to($1, pg_catalog.getdatabaseencoding()) || '\\x00'::bytea
        THEN c.oid NOT IN (SELECT relation FROM tree)
        ELSE $3::text[] IS NOT NULL AND t.tgargs <> ALL (ARRAY(
            SELECT pg_catalog.convert_to(r.schema, pg_catalog.getdatabaseencoding()) || '\\x00'::bytea
            FROM pg_catalog.unnest($3::text[]) r (schema))) END
ORDER BY c.oid";

/// What stands before the name of a schema whose images are read, among the readers.
const IMAGES_OF: char = '!';
/// Triggers that execute a function of our schema, each with its table.
const EXECUTING: &str = "\
SELECT pg_catalog.format('%I on %I.%I', t.tgname, n.nspname, c.relname)
FROM pg_catalog.pg_trigger t
JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
JOIN pg_catalog.pg_namespace own ON own.oid = p.pronamespace
JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE own.nspname = 'perigee_changes' AND t.tgparentid = 0
ORDER BY 1";

/// Steps in which triggers are made: on a table and those that inherit from it, on partitions that are without one, and
/// that all fire for replicated changes too. Writers wait meanwhile, so there are as many for any number of tables.
pub(super) const CAPTURE_STEPS: usize = 3;

/// A table with those below it.
pub struct TableTree {
    rows: Vec<Row>,
    kind: TriggerKind,
}

/// What triggers write to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TriggerKind {
    /// The log without anything of rows.
    Note,
    /// The log with the rows before and after.
    Image,
}

impl TriggerKind {
    /// The function that they run.
    fn function(self) -> &'static str {
        match self {
            TriggerKind::Note => "note",
            TriggerKind::Image => "image",
        }
    }

    /// How their names begin. Triggers run in the order of their names: what one of an application changes is logged
    /// after what it is run by.
    fn prefix(self) -> &'static str {
        match self {
            TriggerKind::Note => "perigee_changes_",
            TriggerKind::Image => images::TRIGGER_PREFIX,
        }
    }
}

/// Makes what is missing for the capture of a table of a schema. An inner error says why that is not possible.
pub async fn capture(
    connection: &Connection,
    schema: &str,
    table: &str,
    kind: TriggerKind,
) -> Result<Result<(), String>, PostgresError> {
    let tree = tree(connection, schema, table, kind).await?;
    if let Some(why) = tree.obstacles()?.first() {
        return Ok(Err(why.to_string()));
    }
    if let Some(why) = make_log(connection, kind).await? {
        return Ok(Err(why));
    }
    note_reader(connection, schema, kind).await?;
    let wanting = tree.wanting()?;
    if wanting.is_empty() {
        return Ok(Ok(()));
    }
    // All at once, so that no table is locked while the next one is waited for again and again.
    let lock = format!("LOCK TABLE ONLY {} IN SHARE ROW EXCLUSIVE MODE", wanting.join(", ONLY "));
    connection.define(&format!("SET LOCAL statement_timeout TO '200ms'; {lock}")).await?;
    connection.command("SET LOCAL statement_timeout TO '30s'").await?;
    for _ in 0..CAPTURE_STEPS {
        match self::tree(connection, schema, table, kind).await?.missing(schema)? {
            Some(sql) => connection.define(&sql).await?,
            None => return Ok(Ok(())),
        }
    }
    Ok(Ok(()))
}

/// The table of a schema with those below it.
pub async fn tree(
    connection: &Connection,
    schema: &str,
    table: &str,
    kind: TriggerKind,
) -> Result<TableTree, PostgresError> {
    let function = kind.function();
    let args: [(&(dyn ToSql + Sync), Native); 3] =
        [(&schema, Native::TEXT), (&table, Native::TEXT), (&function, Native::TEXT)];
    let rows = connection.query(TREE, &args).await?;
    Ok(TableTree { rows, kind })
}

/// Keeps the log from being dropped until the end of the transaction. Fails unless it is of our role.
pub async fn require_own(connection: &Connection) -> Result<(), PostgresError> {
    connection.command(LOCK_LOG).await?;
    connection.query(REQUIRE_OWN, &[]).await.map(drop)
}

/// Whether somebody reads the images of tables of the schema, as far as the log says so.
pub async fn are_images_read(connection: &Connection, schema: &str) -> Result<bool, PostgresError> {
    let found = found(connection).await?;
    if !found.is_complete || found.of_others.is_some() || found.is_standby {
        return Ok(false);
    }
    let rows = connection.query(IMAGES_READ, &[(&format!("{IMAGES_OF}{schema}"), Native::TEXT)]).await?;
    Ok(!rows.is_empty())
}

/// Notes that tables of the schema are captured now.
pub async fn note_reader(connection: &Connection, schema: &str, kind: TriggerKind) -> Result<(), PostgresError> {
    if kind == TriggerKind::Image {
        let images = format!("{IMAGES_OF}{schema}");
        connection.query(READ, &[(&images, Native::TEXT)]).await?;
    }
    connection.query(READ, &[(&schema, Native::TEXT)]).await.map(drop)
}

impl TableTree {
    /// Its id; `None` where there is no table of that name.
    pub fn root(&self) -> Result<Option<u32>, PostgresError> {
        Ok(self.rows.first().map(|row| row.try_get(0)).transpose()?)
    }

    /// Why the table with those below it cannot be followed.
    pub fn obstacles(&self) -> Result<Vec<Obstacle>, PostgresError> {
        if self.rows.is_empty() {
            return Ok(vec![Obstacle::NoTable]);
        }
        let mut obstacles = Vec::new();
        for (index, row) in self.rows.iter().enumerate() {
            let table = row.try_get(1)?;
            if let Some(kind) = row.try_get(2)? {
                obstacles.push(Obstacle::Kind { table, kind, is_below: index > 0 });
            } else if !row.try_get::<_, bool>(3)? {
                obstacles.push(Obstacle::Owner { table, owner: row.try_get(4)?, role: row.try_get(5)? });
            }
        }
        Ok(obstacles)
    }

    /// Its triggers of ours that do not fire for all changes, each with its table.
    pub fn silent(&self) -> Result<Vec<(String, String)>, PostgresError> {
        let mut silent = Vec::new();
        for row in &self.rows {
            let (table, triggers): (String, Vec<String>) = (row.try_get(1)?, row.try_get(7)?);
            silent.extend(triggers.into_iter().map(|trigger| (table.clone(), trigger)));
        }
        Ok(silent)
    }

    /// The tables without a trigger that fires for all changes, by their names.
    pub fn wanting(&self) -> Result<Vec<String>, PostgresError> {
        let mut wanting = Vec::new();
        for row in &self.rows {
            if !row.try_get::<_, bool>(6)? || !row.try_get::<_, Vec<String>>(7)?.is_empty() {
                wanting.push(row.try_get(1)?);
            }
        }
        Ok(wanting)
    }

    /// The statements of the next step of [`CAPTURE_STEPS`]; `None` where all is made.
    pub(super) fn missing(&self, schema: &str) -> Result<Option<String>, PostgresError> {
        // The argument says for whom it is.
        let schema = schema.replace('\'', "''");
        let (prefix, function) = (self.kind.prefix(), self.kind.function());
        let (mut first, mut below, mut firing) = (Vec::new(), Vec::new(), Vec::new());
        for row in &self.rows {
            let (id, name, is_captured): (u32, String, bool) = (row.try_get(0)?, row.try_get(1)?, row.try_get(6)?);
            if !is_captured {
                // What is made on a root is there on its partitions.
                let step = if row.try_get(8)? { &mut below } else { &mut first };
                step.push(format!(
                    "CREATE TRIGGER \"{prefix}{id}\" AFTER INSERT OR UPDATE OR DELETE ON {name} FOR EACH ROW \
                     EXECUTE FUNCTION perigee_changes.{function}('{schema}')"
                ));
            }
            for trigger in row.try_get::<_, Vec<String>>(7)? {
                firing.push(format!("ALTER TABLE ONLY {name} ENABLE ALWAYS TRIGGER {trigger}"));
            }
        }
        let next = [first, below, firing].into_iter().find(|step| !step.is_empty());
        Ok(next.map(|step| step.join("; ")))
    }
}

/// What there is of our schema.
struct FoundLog {
    exists: bool,
    /// An object of another role, with its owner.
    of_others: Option<String>,
    is_marked: bool,
    is_empty: bool,
    may_create: bool,
    database: String,
    role: String,
    /// What all triggers need is there.
    is_complete: bool,
    has_triggers: bool,
    /// The statements that take rights from roles that have them by their names.
    revocations: Vec<String>,
    is_standby: bool,
    /// What triggers of images need besides is there.
    has_images: bool,
}

async fn found(connection: &Connection) -> Result<FoundLog, PostgresError> {
    let args: [(&(dyn ToSql + Sync), Native); 3] =
        [(&MARK, Native::TEXT), (&NOTE, Native::TEXT), (&images::IMAGE, Native::TEXT)];
    let row = connection.query(FOUND, &args).await?.pop().ok_or_else(PostgresError::unanswered)?;
    Ok(FoundLog {
        exists: row.try_get(0)?,
        of_others: row.try_get(1)?,
        is_marked: row.try_get(2)?,
        is_empty: row.try_get(3)?,
        may_create: row.try_get(4)?,
        database: row.try_get(5)?,
        role: row.try_get(6)?,
        is_complete: row.try_get(7)?,
        has_triggers: row.try_get(8)?,
        revocations: row.try_get(9)?,
        is_standby: row.try_get(10)?,
        has_images: row.try_get(11)?,
    })
}

/// What keeps the log from being made or used, if anything does.
pub async fn log_obstacle(connection: &Connection) -> Result<Option<Obstacle>, PostgresError> {
    Ok(found(connection).await?.obstacle())
}

impl FoundLog {
    /// Whether all is there that triggers of this kind need.
    fn is_made_for(&self, kind: TriggerKind) -> bool {
        self.is_complete && self.is_marked && (self.has_images || kind == TriggerKind::Note)
    }

    fn obstacle(&self) -> Option<Obstacle> {
        let Self { is_marked, .. } = *self;
        if self.is_standby {
            return Some(Obstacle::Standby);
        }
        if !self.exists && !self.may_create {
            return Some(Obstacle::NoSchema { role: self.role.clone(), database: self.database.clone() });
        }
        if self.exists && !is_marked && !self.is_empty {
            return Some(Obstacle::OtherSchema);
        }
        let object = self.of_others.clone()?;
        Some(Obstacle::OtherRole { role: self.role.clone(), object, is_marked })
    }
}

/// Makes the log where it is missing. Says why that is not possible.
async fn make_log(connection: &Connection, kind: TriggerKind) -> Result<Option<String>, PostgresError> {
    let mut found = self::found(connection).await?;
    if let Some(obstacle) = found.obstacle() {
        return Ok(Some(obstacle.to_string()));
    }
    if !found.exists {
        connection.define("CREATE SCHEMA perigee_changes").await?;
    }
    if !found.is_made_for(kind) {
        connection.define(&made(kind)).await?;
        // Default privileges of our role are on its new tables too.
        let revocations = self::found(connection).await?.revocations;
        connection.define(&revocations.join("; ")).await?;
        // Others may be allowed to make something in a schema that was there.
        found = self::found(connection).await?;
        if !found.is_made_for(kind) || found.of_others.is_some() {
            return Ok(Some(Obstacle::OtherSchema.to_string()));
        }
    }
    let images = if found.has_images { START_IMAGES } else { "" };
    connection.define(&format!("{START_LOG} {images} {START_EPOCH}")).await?;
    Ok(None)
}

/// The statements that make what triggers of a kind need. The owner of a table needs the right to execute the function of
/// its triggers when a partition is made or attached.
fn made(kind: TriggerKind) -> String {
    let images = match kind {
        TriggerKind::Note => String::new(),
        TriggerKind::Image => made_images(),
    };
    format!(
        "COMMENT ON SCHEMA perigee_changes IS '{MARK}';
         CREATE UNLOGGED TABLE IF NOT EXISTS perigee_changes.log (xid xid8, tbl oid, PRIMARY KEY (xid, tbl)) USING heap;
         CREATE UNLOGGED TABLE IF NOT EXISTS perigee_changes.state (
             one boolean PRIMARY KEY DEFAULT true CHECK (one), epoch text NOT NULL, pruned text) USING heap;
         CREATE UNLOGGED TABLE IF NOT EXISTS perigee_changes.readers (
             schema text PRIMARY KEY, seen timestamp with time zone NOT NULL) USING heap;
         CREATE OR REPLACE FUNCTION perigee_changes.note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
             SET search_path = pg_catalog, pg_temp AS $note${NOTE}$note$;
         REVOKE ALL ON SCHEMA perigee_changes FROM PUBLIC;
         REVOKE ALL ON perigee_changes.log, perigee_changes.state, perigee_changes.readers FROM PUBLIC;
         GRANT USAGE ON SCHEMA perigee_changes TO PUBLIC;
         GRANT SELECT ON perigee_changes.log, perigee_changes.state, perigee_changes.readers TO PUBLIC;
         GRANT EXECUTE ON FUNCTION perigee_changes.note() TO PUBLIC; {images}"
    )
}

/// The statements that make what triggers of images need besides. Without them, any role may read all that is ours, as a
/// program does that dumps all.
fn made_images() -> String {
    format!(
        "{TABLES}
         CREATE OR REPLACE FUNCTION perigee_changes.image() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
             SET search_path = pg_catalog, pg_temp SET \"DateStyle\" = 'ISO, MDY' SET \"IntervalStyle\" = postgres
             SET extra_float_digits = 1 AS $image${IMAGE}$image$;
         REVOKE ALL ON perigee_changes.images, perigee_changes.followed, perigee_changes.images_seq_seq FROM PUBLIC;
         GRANT SELECT ON perigee_changes.followed, perigee_changes.images_seq_seq TO PUBLIC;
         GRANT EXECUTE ON FUNCTION perigee_changes.image() TO PUBLIC",
        TABLES = images::TABLES,
        IMAGE = images::IMAGE,
    )
}

/// Triggers that are needed no longer, by their tables, where those of `kept` of a schema are needed: with the statements
/// that drop them.
pub async fn needless(
    connection: &Connection,
    schema: &str,
    kept: &[String],
    kind: TriggerKind,
) -> Result<Vec<(u32, String)>, PostgresError> {
    let found = found(connection).await?;
    if !found.exists || found.of_others.is_some() {
        return Ok(Vec::new());
    }
    let readers = if found.is_complete { Some(readers(connection).await?) } else { None };
    let (function, prefix) = (kind.function(), kind.prefix());
    let args: [(&(dyn ToSql + Sync), Native); 5] = [
        (&schema, Native::TEXT),
        (&kept, Native::TEXT_ARRAY),
        (&readers, Native::TEXT_ARRAY),
        (&function, Native::TEXT),
        (&prefix, Native::TEXT),
    ];
    let rows = connection.query(NEEDLESS, &args).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// The schemas whose tables are captured now, as far as the log is complete, of our role, and readable here.
pub async fn readers_seen(connection: &Connection) -> Result<Vec<String>, PostgresError> {
    let found = found(connection).await?;
    // A standby reads no unlogged table.
    match found.is_complete && found.of_others.is_none() && !found.is_standby {
        true => readers(connection).await,
        false => Ok(Vec::new()),
    }
}

/// Notes that no table of any schema is captured, whoever captured some. A log of which a part was dropped is made whole:
/// it says whose the triggers are.
pub async fn forget_readers(connection: &Connection) -> Result<(), PostgresError> {
    let found = found(connection).await?;
    if !found.exists || !found.is_marked || make_log(connection, TriggerKind::Image).await?.is_some() {
        return Ok(());
    }
    connection.command("DELETE FROM perigee_changes.readers").await
}

/// Whether the schema of ours is there without anything in it, as one that an administrator made for our role.
pub async fn is_empty_schema(connection: &Connection) -> Result<bool, PostgresError> {
    let found = found(connection).await?;
    Ok(found.exists && found.is_empty && found.of_others.is_none())
}

/// Triggers for which our log stays, each with its table: those that [`needless`] does not name, as one that an application
/// renamed.
pub async fn executing(connection: &Connection) -> Result<Vec<String>, PostgresError> {
    if !found(connection).await?.is_marked {
        return Ok(Vec::new());
    }
    let rows = connection.query(EXECUTING, &[]).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// The schemas whose tables are captured now.
async fn readers(connection: &Connection) -> Result<Vec<String>, PostgresError> {
    require_own(connection).await?;
    let rows = connection.query(READERS, &[]).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Removes the log where there is no trigger any more that writes to it.
pub async fn remove(connection: &Connection) -> Result<(), PostgresError> {
    let found = found(connection).await?;
    if !found.exists || found.of_others.is_some() || !found.is_marked || found.has_triggers {
        return Ok(());
    }
    let sql = "DROP FUNCTION IF EXISTS perigee_changes.note(), perigee_changes.image(); \
               DROP TABLE IF EXISTS perigee_changes.log, perigee_changes.state, perigee_changes.readers, \
               perigee_changes.images, perigee_changes.followed; \
               COMMENT ON SCHEMA perigee_changes IS NULL; REVOKE USAGE ON SCHEMA perigee_changes FROM PUBLIC";
    connection.command(sql).await?;
    let found = self::found(connection).await?;
    // One that was made for us could not be made again; what others put there is theirs.
    match found.is_empty && found.may_create {
        true => connection.command("DROP SCHEMA perigee_changes").await,
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_can_be_made_on_a_standby_whatever_is_there() {
        let primary = FoundLog {
            exists: true,
            of_others: None,
            is_marked: true,
            is_empty: false,
            may_create: true,
            database: "shop".to_owned(),
            role: "app".to_owned(),
            is_complete: true,
            has_triggers: true,
            revocations: Vec::new(),
            is_standby: false,
            has_images: true,
        };
        assert_eq!(primary.obstacle(), None);
        let obstacle = FoundLog { is_standby: true, ..primary }.obstacle().unwrap();
        assert_eq!(obstacle.to_string(), "expected the primary server, found a standby, which takes no writes");
        assert_eq!((obstacle.remedy(), obstacle.is_of_kind()), (None, false));
    }
}
