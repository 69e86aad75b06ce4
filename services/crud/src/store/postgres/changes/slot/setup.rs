//! What a slot needs in the database: a publication of the followed tables, their identity, and the slot itself.
//!
//! Nothing of it may fail a statement of an application: a table is published only after its replica identity is `FULL`,
//! and partitions one by one, so that one that is made later is none whose updates need an identity. What an identity
//! was stands in the comment of the publication, and is restored when the table is followed no longer.

use std::{
    collections::BTreeMap,
    fmt::Write,
    hash::{DefaultHasher, Hasher},
};

use tokio_postgres::types::{ToSql, Type as Native};

use super::obstacle::SlotObstacle;
use crate::store::postgres::{connection::Connection, error::PostgresError, replication::Lsn};

/// By which a publication of ours is told from another of the same name. The record of its tables stands behind.
pub const MARK: &str = "Changes of tables that live queries read. Made by Perigee, and removed with the last one.";

/// Begins a transaction that makes a slot: it waits until all transactions have ended that write.
const BEGIN_SLOT: &str = "\
BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL statement_timeout TO '5s'; SET LOCAL search_path TO pg_catalog";
const CREATE_SLOT: &str = "SELECT pg_catalog.pg_create_logical_replication_slot($1, 'pgoutput')";
const DROP_SLOT: &str = "\
SELECT pg_catalog.pg_drop_replication_slot(s.slot_name) FROM pg_catalog.pg_replication_slots s
WHERE s.slot_name OPERATOR(pg_catalog.=) $1::pg_catalog.name AND s.database OPERATOR(pg_catalog.=) pg_catalog.current_database()";

/// Ends who reads a slot of ours: who says to be `$2`, where that is not `NULL`.
const END_READER: &str = "\
SELECT pg_catalog.pg_terminate_backend(s.active_pid) FROM pg_catalog.pg_replication_slots s
WHERE s.slot_name OPERATOR(pg_catalog.=) $1::pg_catalog.name AND s.active AND s.plugin OPERATOR(pg_catalog.=) 'pgoutput'
    AND s.database OPERATOR(pg_catalog.=) pg_catalog.current_database()
    AND ($2::text IS NULL OR EXISTS (SELECT FROM pg_catalog.pg_stat_activity a
        WHERE a.pid OPERATOR(pg_catalog.=) s.active_pid AND a.application_name OPERATOR(pg_catalog.=) $2::text))";

/// What there is for the slot and the publication `$1`.
const STATE: &str = "\
SELECT pg_catalog.current_setting('wal_level'),
    COALESCE((SELECT r.rolreplication OR r.rolsuper FROM pg_catalog.pg_roles r
        WHERE r.rolname OPERATOR(pg_catalog.=) current_user), false)
        OR EXISTS (SELECT FROM pg_catalog.pg_roles g WHERE g.rolname OPERATOR(pg_catalog.=) 'rds_replication'
            AND pg_catalog.pg_has_role(current_user, g.oid, 'USAGE')),
    pg_catalog.pg_is_in_recovery(),
    (SELECT s.setting::pg_catalog.int8 FROM pg_catalog.pg_settings s
        WHERE s.name OPERATOR(pg_catalog.=) 'max_slot_wal_keep_size'),
    pg_catalog.current_setting('synchronous_standby_names'),
    pg_catalog.current_setting('max_replication_slots')::pg_catalog.int8
        OPERATOR(pg_catalog.-) (SELECT pg_catalog.count(*) FROM pg_catalog.pg_replication_slots),
    pg_catalog.current_setting('max_wal_senders')::pg_catalog.int8
        OPERATOR(pg_catalog.-) (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_replication),
    pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE'),
    pg_catalog.format('%I', pg_catalog.current_database()), pg_catalog.format('%I', current_user),
    s.slot_name IS NOT NULL, COALESCE(s.active, false), COALESCE(s.wal_status OPERATOR(pg_catalog.=) 'lost', false),
    s.confirmed_flush_lsn::text,
    COALESCE(s.plugin OPERATOR(pg_catalog.=) 'pgoutput'
        AND s.database OPERATOR(pg_catalog.=) pg_catalog.current_database(), true),
    p.oid IS NOT NULL, COALESCE(pg_catalog.pg_has_role(p.pubowner, 'USAGE'), true),
    pg_catalog.obj_description(p.oid, 'pg_publication'),
    pg_catalog.current_setting('max_replication_slots')::pg_catalog.int8,
    pg_catalog.current_setting('max_wal_senders')::pg_catalog.int8
FROM (VALUES ($1::pg_catalog.name)) ours (name)
LEFT JOIN pg_catalog.pg_replication_slots s ON s.slot_name OPERATOR(pg_catalog.=) ours.name
LEFT JOIN pg_catalog.pg_publication p ON p.pubname OPERATOR(pg_catalog.=) ours.name";

/// Tables of the schema `$1` with those below them that have rows: what they are, how they are published by `$3`, whether
/// they have generated columns, and a publication of a part of their columns: servers before version 15 know of none.
const CATALOG: &str = "\
WITH RECURSIVE tree (name, relation) AS (
    SELECT c.relname::text, c.oid
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
    WHERE n.nspname OPERATOR(pg_catalog.=) $1 AND c.relname OPERATOR(pg_catalog.=) ANY ($2::pg_catalog.name[])
    UNION
    SELECT tree.name, i.inhrelid
    FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent OPERATOR(pg_catalog.=) tree.relation
    JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.inhrelid
        AND c.relpersistence OPERATOR(pg_catalog.<>) 't'
)
SELECT tree.name, tree.relation, pg_catalog.format('%I.%I', n.nspname, c.relname), c.relfilenode,
    c.relreplident::text, COALESCE((SELECT i.indexrelid FROM pg_catalog.pg_index i
        WHERE i.indrelid OPERATOR(pg_catalog.=) c.oid AND i.indisreplident LIMIT 1), 0::oid),
    EXISTS (SELECT FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_publication p
        ON p.oid OPERATOR(pg_catalog.=) r.prpubid
        WHERE r.prrelid OPERATOR(pg_catalog.=) c.oid AND p.pubname OPERATOR(pg_catalog.=) $3::pg_catalog.name),
    (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(':', a.atttypid::int8, a.atttypmod, a.attname), ',' ORDER BY a.attnum)
        FROM pg_catalog.pg_attribute a
        WHERE a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped),
    EXISTS (SELECT FROM pg_catalog.pg_attribute a
        WHERE a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped
            AND a.attgenerated OPERATOR(pg_catalog.<>) ''),
    (SELECT p.pubname::text FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_publication p
            ON p.oid OPERATOR(pg_catalog.=) r.prpubid
        WHERE (r.prrelid OPERATOR(pg_catalog.=) c.oid
                OR r.prrelid IN (SELECT a.relid::oid FROM pg_catalog.pg_partition_ancestors(c.oid) a (relid)))
            AND (pg_catalog.to_jsonb(r) OPERATOR(pg_catalog.->>) 'prattrs') IS NOT NULL
        ORDER BY p.pubname LIMIT 1)
FROM tree JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) tree.relation
    AND c.relkind OPERATOR(pg_catalog.<>) 'p'
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
ORDER BY tree.name, tree.relation";

/// Which transactions are visible now, and the end of the server's log after that.
const NOW: &str = "SELECT pg_catalog.pg_current_snapshot()::text, pg_catalog.pg_current_wal_insert_lsn()::text";

/// How an identity is restored of the table `$1`, which was `$2`, by the index `$3`. A table that is gone needs none.
const RESTORE: &str = "\
SELECT pg_catalog.format('ALTER TABLE ONLY %I.%I REPLICA IDENTITY %s', n.nspname, c.relname,
        CASE WHEN $2 OPERATOR(pg_catalog.=) 'n' THEN 'NOTHING' ELSE COALESCE((SELECT pg_catalog.format('USING INDEX %I', x.relname)
            FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid OPERATOR(pg_catalog.=) i.indexrelid
            WHERE i.indrelid OPERATOR(pg_catalog.=) c.oid AND i.indexrelid OPERATOR(pg_catalog.=) $3
                AND i.indisunique AND i.indisvalid AND i.indimmediate), 'DEFAULT') END),
    pg_catalog.format('%I.%I', n.nspname, c.relname), c.relreplident::text OPERATOR(pg_catalog.=) 'f',
    EXISTS (SELECT FROM pg_catalog.pg_publication_rel r JOIN pg_catalog.pg_publication p
        ON p.oid OPERATOR(pg_catalog.=) r.prpubid
        WHERE r.prrelid OPERATOR(pg_catalog.=) c.oid AND p.pubname OPERATOR(pg_catalog.=) $4::pg_catalog.name)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
WHERE c.oid OPERATOR(pg_catalog.=) $1";

/// What there is of a slot and a publication of a name.
#[derive(Debug, Clone)]
pub struct SlotState {
    pub wal_level: String,
    pub may_replicate: bool,
    pub is_standby: bool,
    /// Megabytes of the log that are kept for a slot; -1: any number.
    pub keep_megabytes: i64,
    pub synchronous: String,
    pub free_slots: i64,
    pub free_senders: i64,
    pub may_create: bool,
    pub database: String,
    pub role: String,
    pub has_slot: bool,
    pub is_active: bool,
    pub is_lost: bool,
    /// What was committed before is not kept any more.
    pub confirmed: u64,
    pub is_own_slot: bool,
    pub has_publication: bool,
    pub is_own_publication: bool,
    pub record: Option<SlotRecord>,
    pub max_slots: i64,
    pub max_senders: i64,
}

/// What the comment of a publication says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SlotRecord {
    /// Another one with each slot.
    pub epoch: String,
    /// By the ids of their tables.
    pub tables: PublishedTables,
}

/// A table as it was when it was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedTable {
    /// Its identity before: as `relreplident` says, with an index where it is by one.
    pub identity: char,
    pub index: u32,
    /// Hash of its columns and its file.
    pub mark: u64,
}

/// A table as the catalog has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotRelation {
    /// Its name in SQL.
    pub name: String,
    /// Its file: another one after `TRUNCATE`.
    pub file: u32,
    /// Whether updates tell the row before.
    pub is_full: bool,
    pub is_published: bool,
    /// Types and names of its columns, as a relation is told in the stream.
    pub columns: String,
    /// Its identity, as `relreplident` says, with an index where it is by one.
    pub identity: char,
    pub index: u32,
    /// With the identity `FULL`, its updates would fail, or not tell all: why.
    pub obstacle: Option<String>,
}

/// Tables as they were before they were published, by their ids.
pub type PublishedTables = BTreeMap<u32, PublishedTable>;

/// A table and those below it, by their ids.
pub type SlotRelations = BTreeMap<u32, SlotRelation>;

/// What is visible, and the end of the log after that.
#[derive(Debug, Clone)]
pub struct Now {
    pub seen: proto::crud::Snapshot,
    pub end: u64,
}

/// The name of the slot and the publication for a schema of a database: nothing that anybody chose is in it.
///
/// Source: 64-bit FNV-1a, which is the same in each version of this program.
pub fn name(database: &str, schema: &str) -> String {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    let hash = [database.as_bytes(), b"\0", schema.as_bytes()].concat().iter().fold(0xcbf2_9ce4_8422_2325, step);
    format!("perigee_{hash:016x}")
}

/// What the reader of a slot says that it is: two that were elected by different elections are told apart.
pub fn reader_name(slot: &str, election: Option<&str>) -> String {
    election.map_or_else(|| slot.to_owned(), |election| format!("{slot}_{election}"))
}

/// What there is of a slot and a publication.
pub async fn state(connection: &Connection, name: &str) -> Result<SlotState, PostgresError> {
    let rows = connection.query(STATE, &[(&name, Native::TEXT)]).await?;
    let row = rows.first().ok_or_else(PostgresError::unanswered)?;
    let confirmed: Option<String> = row.try_get(13)?;
    let comment: Option<String> = row.try_get(17)?;
    Ok(SlotState {
        wal_level: row.try_get(0)?,
        may_replicate: row.try_get(1)?,
        is_standby: row.try_get(2)?,
        keep_megabytes: row.try_get::<_, Option<i64>>(3)?.unwrap_or(-1),
        synchronous: row.try_get(4)?,
        free_slots: row.try_get(5)?,
        free_senders: row.try_get(6)?,
        may_create: row.try_get(7)?,
        database: row.try_get(8)?,
        role: row.try_get(9)?,
        has_slot: row.try_get(10)?,
        is_active: row.try_get(11)?,
        is_lost: row.try_get(12)?,
        confirmed: confirmed.as_deref().and_then(Lsn::parse).unwrap_or_default(),
        is_own_slot: row.try_get(14)?,
        has_publication: row.try_get(15)?,
        is_own_publication: row.try_get(16)?,
        record: comment.as_deref().and_then(SlotRecord::parse),
        max_slots: row.try_get(18)?,
        max_senders: row.try_get(19)?,
    })
}

impl SlotState {
    /// What keeps the slot from being used, if anything does.
    pub fn obstacle(&self, name: &str, may_be_unbounded: bool) -> Option<SlotObstacle> {
        let is_synchronous = self.synchronous.contains('*') || self.synchronous.contains(name);
        let is_other = !self.is_own_slot || self.has_publication && (!self.is_own_publication || self.record.is_none());
        Some(match () {
            () if self.is_standby => SlotObstacle::Standby,
            () if self.wal_level != "logical" => SlotObstacle::WalLevel(self.wal_level.clone()),
            () if !self.may_replicate => SlotObstacle::Role(self.role.clone()),
            () if is_other => SlotObstacle::Other(name.to_owned()),
            () if !self.has_publication && !self.may_create => {
                SlotObstacle::Create { role: self.role.clone(), database: self.database.clone() }
            }
            () if self.keep_megabytes < 0 && !may_be_unbounded => SlotObstacle::Unbounded,
            () if is_synchronous => SlotObstacle::Synchronous(self.synchronous.clone()),
            () if self.is_active => SlotObstacle::Active,
            () if !self.has_slot && self.free_slots <= 0 => SlotObstacle::Slots(self.max_slots),
            () if self.free_senders <= 0 => SlotObstacle::Senders(self.max_senders),
            () => return None,
        })
    }
}

impl SlotRecord {
    fn parse(comment: &str) -> Option<Self> {
        let mut words = comment.strip_prefix(MARK)?.split(' ').filter(|word| !word.is_empty());
        let mut record = Self { epoch: words.next().unwrap_or_default().to_owned(), tables: BTreeMap::new() };
        for word in words {
            let mut fields = word.split(':');
            let (table, identity) = (fields.next()?.parse().ok()?, fields.next()?.chars().next()?);
            let (index, mark) = (fields.next()?.parse().ok()?, u64::from_str_radix(fields.next()?, 16).ok()?);
            record.tables.insert(table, PublishedTable { identity, index, mark });
        }
        Some(record)
    }

    /// The statement that writes the record.
    fn write(&self, name: &str) -> String {
        // An epoch is a UUID of ours; all else are numbers.
        let mut sql = format!("COMMENT ON PUBLICATION \"{name}\" IS '{MARK} {}", self.epoch);
        for (table, PublishedTable { identity, index, mark }) in &self.tables {
            let _ = write!(sql, " {table}:{identity}:{index}:{mark:x}");
        }
        sql + "'"
    }
}

impl SlotRelation {
    /// Whether something is to be done before it is followed.
    pub fn is_lacking(&self) -> bool {
        !self.is_full || !self.is_published
    }

    /// Hash of its columns and its file.
    pub fn mark(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write(format!("{} {}", self.file, self.columns).as_bytes());
        hasher.finish()
    }
}

/// Makes the publication where it is missing, with a new epoch, before the slot that reads it. `tables` were published before.
pub async fn begin_epoch(
    connection: &Connection,
    name: &str,
    state: &SlotState,
    tables: PublishedTables,
) -> Result<SlotRecord, PostgresError> {
    let rows = connection.query("SELECT pg_catalog.gen_random_uuid()::text", &[]).await?;
    let epoch = rows.first().ok_or_else(PostgresError::unanswered)?.try_get(0)?;
    if !state.has_publication {
        connection.define(&format!("CREATE PUBLICATION \"{name}\"")).await?;
    }
    let record = SlotRecord { epoch, tables };
    connection.define(&record.write(name)).await?;
    Ok(record)
}

/// Makes the slot.
pub async fn create_slot(connection: &Connection, name: &str) -> Result<(), PostgresError> {
    connection.command(BEGIN_SLOT).await?;
    connection.query(CREATE_SLOT, &[(&name, Native::TEXT)]).await?;
    connection.command("COMMIT").await
}

/// Drops the slot, where it is there.
pub async fn drop_slot(connection: &Connection, name: &str) -> Result<(), PostgresError> {
    connection.query(DROP_SLOT, &[(&name, Native::TEXT)]).await.map(drop)
}

/// Ends who reads the slot, where that is who is named, if anybody is; whether there was one.
pub async fn end_reader(connection: &Connection, name: &str, reader: Option<&str>) -> Result<bool, PostgresError> {
    let ended = connection.query(END_READER, &[(&name, Native::TEXT), (&reader, Native::TEXT)]).await?;
    Ok(!ended.is_empty())
}

/// The tables of a schema with those below them.
pub async fn catalog(
    connection: &Connection,
    schema: &str,
    tables: &[&str],
    name: &str,
) -> Result<BTreeMap<String, SlotRelations>, PostgresError> {
    let args: [(&(dyn ToSql + Sync), Native); 3] =
        [(&schema, Native::TEXT), (&tables, Native::TEXT_ARRAY), (&name, Native::TEXT)];
    let mut catalog: BTreeMap<String, SlotRelations> = BTreeMap::new();
    for row in connection.query(CATALOG, &args).await? {
        let identity: String = row.try_get(4)?;
        let relation = SlotRelation {
            name: row.try_get(2)?,
            file: row.try_get(3)?,
            is_full: identity == "f",
            is_published: row.try_get(6)?,
            columns: row.try_get::<_, Option<String>>(7)?.unwrap_or_default(),
            identity: identity.chars().next().unwrap_or('d'),
            index: row.try_get(5)?,
            obstacle: obstacle(row.try_get(8)?, row.try_get(9)?),
        };
        catalog.entry(row.try_get(0)?).or_default().insert(row.try_get(1)?, relation);
    }
    Ok(catalog)
}

/// Why a table cannot be published with the identity `FULL`. From version 18 on, updates of one with generated columns
/// fail then, whether those are read or not; those of one in a publication of some of its columns do in any version.
fn obstacle(has_generated: bool, listed_by: Option<String>) -> Option<String> {
    match (has_generated, listed_by) {
        (true, _) => Some("has generated columns, which a slot does not tell".to_owned()),
        (false, Some(publication)) => Some(format!(
            "is in publication {publication} with a list of columns, beside which a slot cannot tell whole rows"
        )),
        (false, None) => None,
    }
}

/// Publishes tables, so that updates tell the rows before. Returns what is visible once nobody writes to them who began
/// before.
pub async fn publish(connection: &Connection, name: &str, relations: &SlotRelations) -> Result<Now, PostgresError> {
    let names = |wanted: &dyn Fn(&SlotRelation) -> bool| {
        relations
            .values()
            .filter(|relation| wanted(relation))
            .map(|relation| relation.name.as_str())
            .collect::<Vec<_>>()
    };
    let lacking = names(&SlotRelation::is_lacking);
    if !lacking.is_empty() {
        // All at once, so that no table is locked while the next one is waited for again and again.
        let is_full = relations.values().all(|relation| relation.is_full);
        let mode = if is_full { "SHARE ROW EXCLUSIVE" } else { "ACCESS EXCLUSIVE" };
        let lock = format!("LOCK TABLE ONLY {} IN {mode} MODE", lacking.join(", ONLY "));
        connection.define(&format!("SET LOCAL statement_timeout TO '200ms'; {lock}")).await?;
        connection.command("SET LOCAL statement_timeout TO '30s'").await?;
    }
    let mut sql: Vec<String> = names(&|relation| !relation.is_full)
        .into_iter()
        .map(|table| format!("ALTER TABLE ONLY {table} REPLICA IDENTITY FULL"))
        .collect();
    let added = names(&|relation| !relation.is_published);
    if !added.is_empty() {
        sql.push(format!("ALTER PUBLICATION \"{name}\" ADD TABLE ONLY {}", added.join(", ONLY ")));
    }
    let mut record = state(connection, name).await?.record.unwrap_or_default();
    for (id, relation) in relations {
        let (identity, index, mark) = (relation.identity, relation.index, relation.mark());
        record.tables.entry(*id).or_insert(PublishedTable { identity, index, mark }).mark = mark;
    }
    sql.push(record.write(name));
    connection.define(&sql.join("; ")).await?;
    now(connection).await
}

/// Which transactions are visible now, and the end of the log after that.
pub async fn now(connection: &Connection) -> Result<Now, PostgresError> {
    let rows = connection.query(NOW, &[]).await?;
    let row = rows.first().ok_or_else(PostgresError::unanswered)?;
    let (seen, end): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    let seen = super::super::snapshot::ServerSnapshot::parse(&seen).into();
    Ok(Now { seen, end: Lsn::parse(&end).unwrap_or_default() })
}

/// Takes a table out of the publication and restores its identity.
pub async fn unpublish(connection: &Connection, name: &str, table: u32) -> Result<(), PostgresError> {
    let Some(mut record) = state(connection, name).await?.record else { return Ok(()) };
    let Some(published) = record.tables.remove(&table) else { return Ok(()) };
    let mut sql = restoring(connection, name, table, &published).await?;
    sql.push(record.write(name));
    connection.define(&sql.join("; ")).await
}

/// Restores the identity of a table that is published no longer, since somebody has dropped the publication.
pub async fn restore(
    connection: &Connection,
    name: &str,
    table: u32,
    published: &PublishedTable,
) -> Result<(), PostgresError> {
    match restoring(connection, name, table, published).await?.as_slice() {
        [] => Ok(()),
        sql => connection.define(&sql.join("; ")).await,
    }
}

/// The statements that take a table out of the publication, where it is there, and restore its identity.
async fn restoring(
    connection: &Connection,
    name: &str,
    table: u32,
    published: &PublishedTable,
) -> Result<Vec<String>, PostgresError> {
    let identity = published.identity.to_string();
    let args: [(&(dyn ToSql + Sync), Native); 4] =
        [(&table, Native::OID), (&identity, Native::TEXT), (&published.index, Native::OID), (&name, Native::TEXT)];
    let mut sql = Vec::new();
    if let Some(row) = connection.query(RESTORE, &args).await?.first() {
        let (restore, table): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        if row.try_get(3)? {
            sql.push(format!("ALTER PUBLICATION \"{name}\" DROP TABLE ONLY {table}"));
        }
        // One that was `FULL` before stays so, and one that somebody has changed since.
        if identity != "f" && row.try_get(2)? {
            sql.push(restore);
        }
    }
    Ok(sql)
}

/// Drops the publication.
pub async fn drop_publication(connection: &Connection, name: &str) -> Result<(), PostgresError> {
    connection.define(&format!("DROP PUBLICATION IF EXISTS \"{name}\"")).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_nothing_of_what_they_are_for() {
        assert_eq!(name("shop", "public"), name("shop", "public"));
        assert_ne!(name("shop", "public"), name("shoppublic", ""));
        let name = name("it's\"", "\0x");
        assert!(name.len() == 24 && name["perigee_".len()..].chars().all(|digit| digit.is_ascii_hexdigit()), "{name}");
    }

    #[test]
    fn a_record_is_read_as_it_is_written() {
        let table = |identity, index, mark| PublishedTable { identity, index, mark };
        let tables = [(7, table('d', 0, u64::MAX)), (9, table('i', 12, 1))].into();
        let record = SlotRecord { epoch: "a-b".to_owned(), tables };
        let sql = record.write("perigee_x");
        let comment = sql.split_once("IS '").unwrap().1.trim_end_matches('\'');
        assert_eq!(SlotRecord::parse(comment), Some(record));
        assert_eq!(SlotRecord::parse("of somebody else"), None);
        assert_eq!(SlotRecord::parse(&format!("{MARK} a 1:x")), None);
    }
}
