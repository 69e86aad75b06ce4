//! Change capture: triggers count the changes of each table that somebody listens to.
//!
//! A trigger adds one to the version of its table inside the transaction that changes rows, whichever program runs it.
//! There is one row for each captured table, so nothing grows and nothing has to be pruned.

use std::time::Duration;

use foldhash::HashMap;
use rusqlite::{Connection, OptionalExtension};
use tokio::sync::Notify;

use super::{
    Sqlite, SqliteError, blocking, interrupt_when,
    wal_index::{WalHeader, WalIndex},
};
use crate::{
    Error,
    store::{Changed, identifier},
};

pub mod diagnosis;

/// Table with the versions; nobody is served it.
const TABLE: &str = "perigee_changes";
/// The text of that table, by which it is told from one of an application.
pub const TABLE_SQL: &str =
    "CREATE TABLE perigee_changes (tbl TEXT PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID";
/// What a trigger of ours does, up to the name of the table.
const COUNT: &str = " BEGIN UPDATE perigee_changes SET version = version + 1 WHERE tbl = '";
/// Names of tables, indexes and views mean the same in upper and lower case.
const NAMED: &str =
    "SELECT type, sql FROM sqlite_schema WHERE type <> 'trigger' AND name = 'perigee_changes' COLLATE NOCASE";
const TRIGGERS: &str =
    "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' AND name LIKE 'perigee\\_changes\\_%' ESCAPE '\\'";
const ON_OURS: &str =
    "SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'perigee_changes' ORDER BY 1";
/// How often commits of other programs are looked for, in memory that all connections share.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// What triggers are made for.
const EVENTS: [&str; 3] = ["insert", "update", "delete"];
/// Why nothing is captured in a file where an application has the name of our table.
const OTHER_TABLE: &str = "the database has another object called perigee_changes";

/// Versions of the captured tables when they were last read.
#[derive(Debug, Default)]
pub struct Versions {
    header: Option<WalHeader>,
    schema: i64,
    tables: HashMap<String, i64>,
}

impl Sqlite {
    /// Captures the changes of a table from now on. Its triggers are made where they are missing or not ours any more, as
    /// after `ALTER TABLE … RENAME`.
    pub async fn capture(&self, table: &str) -> Result<(), Error> {
        let table = table.to_owned();
        self.on_writer(move |writer| capture(writer, &table)).await
    }

    /// Ends the capture of all tables but `kept`, also that which a process before did not end. Without any, nothing of
    /// ours is left in the file.
    pub async fn release(&self, kept: &[String]) -> Result<(), Error> {
        let kept = kept.to_vec();
        self.on_writer(move |writer| release(writer, &kept)).await
    }

    /// The tables that transactions changed which were committed since `versions` were read; these become those of now.
    pub async fn changes_since(&self, versions: &mut Versions) -> Result<Changed, Error> {
        // Before the read: what is committed during it is read again.
        let header = self.inner.wal.as_ref().map(WalIndex::header);
        let (schema, tables) = self.read_on_thread(|reader| current(reader.connection)).await?;
        let before = std::mem::replace(versions, Versions { header, schema, tables });
        let is_lost = |table: &String| !versions.tables.contains_key(table);
        if before.schema != schema || before.tables.keys().any(is_lost) {
            return Ok(Changed::Any);
        }
        let has_changed = |(table, version): &(&String, &i64)| before.tables.get(*table) != Some(version);
        let changed = versions.tables.iter().filter(has_changed).map(|(table, _)| table.clone());
        Ok(Changed::Tables(changed.collect()))
    }

    /// Waits until something may have been committed since `versions` were read. Runs no statement.
    pub async fn commit_after(&self, versions: &Versions) {
        self.commit_since(versions.header.as_ref(), &self.inner.commits).await;
    }

    /// Waits until something may have been committed since the log was in the state of `before`; `commits` is told of
    /// ours.
    pub(super) async fn commit_since(&self, before: Option<&WalHeader>, commits: &Notify) {
        loop {
            let header = self.inner.wal.as_ref().map(WalIndex::header);
            if header.is_some() && header.as_ref() != before {
                return;
            }
            tokio::select! {
                () = commits.notified() => {}
                () = tokio::time::sleep(POLL_INTERVAL) => {}
            }
            if header.is_none() {
                return;
            }
        }
    }

    /// Works on the writing connection, on a blocking thread.
    pub(super) async fn on_writer<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, SqliteError> + Send + 'static,
    ) -> Result<T, Error> {
        let mut lease = self.lease().await;
        // The lease rolls back what fails.
        Ok(blocking::run(move |stop| interrupt_when(stop, &mut lease.writer, |writer| work(writer))).await??)
    }
}

/// Who made the object that has the name of our table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Maker {
    /// There is none.
    Nobody,
    Us,
    /// An application: it is left alone.
    Other,
}

/// The schema's version, then those of tables: a change of the schema in between is one after the schema's version.
fn current(reader: &Connection) -> Result<(i64, HashMap<String, i64>), SqliteError> {
    let schema = reader.query_row("PRAGMA schema_version", [], |row| row.get(0))?;
    if maker(reader)? != Maker::Us {
        return Ok((schema, HashMap::default()));
    }
    let mut all = reader.prepare_cached("SELECT tbl, CAST(version AS INTEGER) FROM perigee_changes")?;
    let tables = all.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok((schema, tables.collect::<Result<_, _>>()?))
}

fn maker(reader: &Connection) -> Result<Maker, SqliteError> {
    let mut named = reader.prepare_cached(NAMED)?;
    let sql = named.query_row([], |row| row.get::<_, Option<String>>(1)).optional()?;
    Ok(match sql {
        None => Maker::Nobody,
        Some(sql) if sql.as_deref() == Some(TABLE_SQL) => Maker::Us,
        Some(_) => Maker::Other,
    })
}

/// Triggers whose name may be one of ours, and their text.
fn triggers(reader: &Connection) -> Result<Vec<(String, String)>, SqliteError> {
    let mut all = reader.prepare_cached(TRIGGERS)?;
    let triggers = all.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(triggers.collect::<Result<_, _>>()?)
}

/// Whether the text of a trigger is one of ours, also after `ALTER TABLE … RENAME`: it does nothing else than ours do.
fn is_ours(sql: &str) -> bool {
    let table = sql.split_once(COUNT).and_then(|(_, rest)| rest.strip_suffix("'; END"));
    table.is_some_and(|table| !table.replace("''", "").contains('\''))
}

/// A trigger on our table; it is of an application.
fn trigger_on_ours(reader: &Connection) -> Result<Option<String>, SqliteError> {
    let mut named = reader.prepare_cached(ON_OURS)?;
    Ok(named.query_row([], |row| row.get(0)).optional()?)
}

/// What a table is that cannot be captured; `None` where it can.
fn kind(reader: &Connection, table: &str) -> Result<Option<&'static str>, SqliteError> {
    let kind = "SELECT type FROM pragma_table_list WHERE schema = 'main' AND name = ?1";
    let kind: Option<String> = reader.prepare_cached(kind)?.query_row([table], |row| row.get(0)).optional()?;
    Ok(match kind.as_deref() {
        Some("table") => None,
        Some("view") => Some("a view"),
        Some(_) => Some("a virtual table or a part of one"),
        None => Some("nothing of that name"),
    })
}

/// Why one of the triggers of a table cannot be made beside those that are `found`.
fn conflict(found: &[(String, String)], table: &str, event: &str) -> Option<String> {
    let name = trigger_name(table, event);
    let is_other = |(other, sql): &&(String, String)| other.eq_ignore_ascii_case(&name) && !is_ours(sql);
    found.iter().find(is_other).map(|_| format!("the database has another trigger called {name}"))
}

/// Checks that the changes of a table can be followed.
pub fn check_followed(reader: &Connection, table: &str) -> Result<(), SqliteError> {
    match kind(reader, table)? {
        None => Ok(()),
        Some(kind) => Err(unfollowed(table, &format!("expected a table, found {kind}"))),
    }
}

fn capture(writer: &Connection, table: &str) -> Result<(), SqliteError> {
    check_followed(writer, table)?;
    let wanted = EVENTS.map(|event| (trigger_name(table, event), trigger(table, event)));
    let found = triggers(writer)?;
    let is_made = maker(writer)? == Maker::Us && wanted.iter().all(|trigger| found.contains(trigger));
    if is_made && current(writer)?.1.contains_key(table) {
        return Ok(());
    }
    writer.execute_batch("BEGIN IMMEDIATE")?;
    match maker(writer)? {
        Maker::Us => {}
        Maker::Nobody => writer.execute_batch(TABLE_SQL)?,
        Maker::Other => return Err(unfollowed(table, OTHER_TABLE)),
    }
    let found = triggers(writer)?;
    // Another version than any before: a row that was deleted and is made anew has changed.
    writer.execute(
        "INSERT INTO perigee_changes (tbl, version) VALUES (?1, random() / 2) ON CONFLICT DO NOTHING",
        [table],
    )?;
    if let Some(conflict) = EVENTS.iter().find_map(|event| conflict(&found, table, event)) {
        return Err(unfollowed(table, &conflict));
    }
    for (name, sql) in &wanted {
        match found.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)) {
            Some((_, found)) if found == sql => continue,
            Some((found, _)) => writer.execute_batch(&format!("DROP TRIGGER {}", identifier(found)))?,
            None => {}
        }
        writer.execute_batch(sql)?;
    }
    Ok(writer.execute_batch("COMMIT")?)
}

/// The error of a table whose changes cannot be followed.
pub fn unfollowed(table: &str, why: &str) -> SqliteError {
    Error::unfollowed(table, why).into()
}

fn release(writer: &Connection, kept: &[String]) -> Result<(), SqliteError> {
    let is_needless = || Ok::<_, SqliteError>(maker(writer)? != Maker::Us && triggers(writer)?.is_empty());
    if is_needless()? {
        return Ok(());
    }
    writer.execute_batch("BEGIN IMMEDIATE")?;
    let wanted = |sql: &str| kept.iter().any(|table| EVENTS.iter().any(|event| trigger(table, event) == sql));
    // First the triggers: without their table they would fail the statements of applications.
    let mut is_captured = false;
    for (name, sql) in triggers(writer)?.iter().filter(|(_, sql)| is_ours(sql)) {
        match wanted(sql) {
            true => is_captured = true,
            false => writer.execute_batch(&format!("DROP TRIGGER {}", identifier(name)))?,
        }
    }
    match maker(writer)? {
        Maker::Us if !is_captured && trigger_on_ours(writer)?.is_none() => {
            writer.execute_batch("DROP TABLE perigee_changes")?
        }
        Maker::Us => {
            for table in current(writer)?.1.into_keys().filter(|table| !kept.contains(table)) {
                writer.execute("DELETE FROM perigee_changes WHERE tbl = ?1", [table])?;
            }
        }
        Maker::Nobody | Maker::Other => {}
    }
    Ok(writer.execute_batch("COMMIT")?)
}

fn trigger_name(table: &str, event: &str) -> String {
    format!("{TABLE}_{table}_{event}")
}

/// The text of a trigger, which SQLite keeps as it is.
fn trigger(table: &str, event: &str) -> String {
    let (name, on, event) = (identifier(&trigger_name(table, event)), identifier(table), event.to_ascii_uppercase());
    let table = table.replace('\'', "''");
    format!("CREATE TRIGGER {name} AFTER {event} ON {on}{COUNT}{table}'; END")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use mesh::Tasks;

    use super::*;

    /// A file with two tables, and another program's connection to it.
    async fn file(folder: &Path) -> (Sqlite, Connection) {
        let path = folder.join("file.db");
        let other = Connection::open(&path).unwrap();
        other
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA foreign_keys = ON;
                 CREATE TABLE \"it's\" (id INTEGER PRIMARY KEY, v TEXT UNIQUE);
                 CREATE TABLE track (id INTEGER PRIMARY KEY, of INT REFERENCES \"it's\" ON DELETE CASCADE) WITHOUT ROWID;
                 INSERT INTO \"it's\" VALUES (1, 'a'), (2, 'b');
                 INSERT INTO track VALUES (1, 1);
                 CREATE VIEW names AS SELECT v FROM \"it's\";
                 CREATE VIRTUAL TABLE words USING fts5 (word);",
            )
            .unwrap();
        (Sqlite::existing(&path, &Tasks::default()).unwrap(), other)
    }

    async fn changed(store: &Sqlite, versions: &mut Versions) -> Vec<String> {
        match store.changes_since(versions).await.unwrap() {
            Changed::Tables(mut tables) => {
                tables.sort();
                tables
            }
            Changed::Any => vec!["any".to_owned()],
        }
    }

    #[tokio::test]
    async fn every_way_to_change_rows_is_captured() {
        let folder = tempfile::tempdir().unwrap();
        let (store, other) = file(folder.path()).await;
        store.capture("it's").await.unwrap();
        store.capture("track").await.unwrap();
        let mut versions = Versions::default();
        assert_eq!(changed(&store, &mut versions).await, ["any"]);
        for (sql, expected) in [
            ("SELECT 1", &[][..]),
            ("INSERT INTO track VALUES (2, 2)", &["track"]),
            ("REPLACE INTO \"it's\" VALUES (3, 'c')", &["it's"]),
            ("INSERT INTO \"it's\" VALUES (4, 'c') ON CONFLICT (v) DO UPDATE SET v = 'd'", &["it's"]),
            ("UPDATE \"it's\" SET id = 9 WHERE v = 'd'", &["it's"]),
            ("BEGIN; UPDATE track SET of = 2; ROLLBACK", &[]),
            (
                "BEGIN; SAVEPOINT a; UPDATE track SET of = 2; ROLLBACK TO a; DELETE FROM \"it's\" WHERE id = 9; COMMIT",
                &["it's"],
            ),
            ("DELETE FROM \"it's\" WHERE id = 1", &["it's", "track"]),
            ("DELETE FROM track", &["track"]),
        ] {
            other.execute_batch(sql).unwrap();
            assert_eq!(changed(&store, &mut versions).await, expected, "{sql}");
        }
    }

    #[tokio::test]
    async fn a_table_whose_count_is_lost_is_captured_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (store, other) = file(folder.path()).await;
        for table in ["it's", "track"] {
            store.capture(table).await.unwrap();
        }
        let mut versions = Versions::default();
        changed(&store, &mut versions).await;
        for sql in ["DELETE FROM perigee_changes", "DELETE FROM perigee_changes WHERE tbl = 'track'"] {
            other.execute_batch(sql).unwrap();
            assert_eq!(changed(&store, &mut versions).await, ["any"], "{sql}");
            store.capture("track").await.unwrap();
            store.capture("it's").await.unwrap();
            assert!(changed(&store, &mut versions).await.contains(&"track".to_owned()), "{sql}");
            other.execute_batch("INSERT INTO track VALUES (2, 2); DELETE FROM track WHERE id = 2").unwrap();
            assert_eq!(changed(&store, &mut versions).await, ["track"], "{sql}");
        }

        // The row is made anew before it is missed.
        other.execute_batch("DELETE FROM perigee_changes").unwrap();
        other.execute_batch("DELETE FROM track").unwrap();
        store.capture("track").await.unwrap();
        store.capture("it's").await.unwrap();
        assert_eq!(changed(&store, &mut versions).await, ["it's", "track"]);
        other.execute_batch("UPDATE perigee_changes SET version = 'x' WHERE tbl = 'track'").unwrap();
        assert_eq!(changed(&store, &mut versions).await, ["track"]);
        other.execute_batch("INSERT INTO track VALUES (2, 2)").unwrap();
        assert_eq!(changed(&store, &mut versions).await, ["track"]);
    }

    #[tokio::test]
    async fn a_statement_has_the_same_counts_with_triggers() {
        let folder = tempfile::tempdir().unwrap();
        let (store, other) = file(folder.path()).await;
        store.capture("it's").await.unwrap();

        assert_eq!(other.execute("INSERT INTO \"it's\" (v) VALUES ('x'), ('y')", []).unwrap(), 2);
        assert_eq!(other.last_insert_rowid(), 4);
        assert_eq!(other.execute("INSERT OR IGNORE INTO \"it's\" (v) VALUES ('x')", []).unwrap(), 0);
    }

    #[tokio::test]
    async fn triggers_follow_a_table_that_is_renamed_or_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (store, other) = file(folder.path()).await;
        store.capture("track").await.unwrap();
        let mut versions = Versions::default();
        changed(&store, &mut versions).await;

        other.execute_batch("ALTER TABLE track RENAME TO song; CREATE TABLE track (id INT)").unwrap();
        assert_eq!(changed(&store, &mut versions).await, ["any"]);
        store.capture("track").await.unwrap();
        assert_eq!(changed(&store, &mut versions).await, ["any"]);
        other.execute_batch("INSERT INTO track VALUES (1)").unwrap();
        assert_eq!(changed(&store, &mut versions).await, ["track"]);
        other.execute_batch("INSERT INTO song VALUES (7, 1)").unwrap();
        assert_eq!(changed(&store, &mut versions).await, Vec::<String>::new());
    }

    #[tokio::test]
    async fn what_is_released_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (store, other) = file(folder.path()).await;
        let objects = || -> i64 {
            other
                .query_row("SELECT count(*) FROM sqlite_schema WHERE name LIKE '%perigee%'", [], |row| row.get(0))
                .unwrap()
        };
        store.capture("it's").await.unwrap();
        store.capture("track").await.unwrap();
        // The table, and three triggers for each.
        assert_eq!(objects(), 7);
        store.release(&["track".to_owned()]).await.unwrap();
        assert_eq!(objects(), 4);
        store.release(&[]).await.unwrap();
        assert_eq!(objects(), 0);
        store.release(&[]).await.unwrap();
    }

    #[tokio::test]
    async fn only_tables_are_captured() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = file(folder.path()).await;
        for (name, found) in [
            ("names", "a view"),
            ("words", "a virtual table or a part of one"),
            ("words_data", "a virtual table or a part of one"),
            ("lost", "nothing of that name"),
        ] {
            let error = store.capture(name).await.unwrap_err().to_string();
            assert_eq!(error, format!("changes of {name} cannot be followed: expected a table, found {found}"));
        }
    }

    #[tokio::test]
    async fn what_an_application_calls_as_we_do_is_left_alone() {
        for (kept, why) in [
            ("CREATE TABLE Perigee_changes (mine TEXT)", "another object called perigee_changes"),
            (
                "CREATE TABLE perigee_changes (tbl TEXT PRIMARY KEY, version INT)",
                "another object called perigee_changes",
            ),
            ("CREATE VIEW perigee_changes AS SELECT 1 AS tbl, 2 AS version", "another object called perigee_changes"),
            (
                "CREATE TRIGGER perigee_changes_track_UPDATE AFTER UPDATE ON track BEGIN SELECT 1; END",
                "another trigger called perigee_changes_track_update",
            ),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let (store, other) = file(folder.path()).await;
            other.execute_batch(kept).unwrap();
            let before = store.introspect().await.unwrap().schema;
            let mut versions = Versions::default();
            changed(&store, &mut versions).await;

            let error = store.capture("track").await.unwrap_err().to_string();
            assert_eq!(error, format!("changes of track cannot be followed: the database has {why}"));
            assert_eq!(changed(&store, &mut versions).await, Vec::<String>::new(), "nothing was changed");
            store.release(&[]).await.unwrap();
            let names = "SELECT count(*) FROM sqlite_schema WHERE sql = ?1";
            assert_eq!(other.query_row(names, [kept], |row| row.get::<_, i64>(0)).unwrap(), 1);
            assert_eq!(store.introspect().await.unwrap().schema, before);
            other.execute_batch("UPDATE track SET of = 1; DROP TABLE track").unwrap();
        }
    }

    #[tokio::test]
    async fn an_application_changes_its_schema_beside_us() {
        let folder = tempfile::tempdir().unwrap();
        let (store, other) = file(folder.path()).await;
        for table in ["it's", "track"] {
            store.capture(table).await.unwrap();
        }
        for sql in [
            "ALTER TABLE track ADD COLUMN more TEXT",
            "ALTER TABLE track RENAME COLUMN more TO less",
            "INSERT INTO track (id, less) VALUES (7, 'a')",
            "ALTER TABLE track DROP COLUMN less",
            "CREATE INDEX of_track ON track (of); REINDEX; VACUUM; ANALYZE",
            "ALTER TABLE track RENAME TO song",
            "INSERT INTO song (id) VALUES (8)",
            "ALTER TABLE song RENAME TO \"it''s\"",
            "UPDATE \"it''s\" SET of = 2; DELETE FROM \"it's\" WHERE id = 1",
            "DROP TABLE \"it''s\"",
            "INSERT INTO \"it's\" VALUES (5, 'e')",
            "DROP VIEW names; DROP TABLE \"it's\"",
        ] {
            other.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
        assert!(store.capture("track").await.is_err());
        store.release(&[]).await.unwrap();
    }

    #[tokio::test]
    async fn triggers_of_a_table_that_is_renamed_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (store, other) = file(folder.path()).await;
        for table in ["it's", "track"] {
            store.capture(table).await.unwrap();
        }
        other.execute_batch("ALTER TABLE track RENAME TO song; ALTER TABLE \"it's\" RENAME TO \"it''s\"").unwrap();
        store.release(&["it's".to_owned(), "track".to_owned()]).await.unwrap();
        let ours = "SELECT count(*) FROM sqlite_schema WHERE name LIKE '%perigee%'";
        assert_eq!(other.query_row(ours, [], |row| row.get::<_, i64>(0)).unwrap(), 0);
        other.execute_batch("INSERT INTO song VALUES (9, 1)").unwrap();
    }

    #[tokio::test]
    async fn our_table_is_not_served() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = file(folder.path()).await;
        let before = store.introspect().await.unwrap().schema;
        store.capture("track").await.unwrap();
        assert_eq!(store.introspect().await.unwrap().schema, before);
    }

    #[tokio::test]
    async fn a_commit_of_another_program_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let (store, other) = file(folder.path()).await;
        store.capture("track").await.unwrap();
        let mut versions = Versions::default();
        changed(&store, &mut versions).await;
        let mut waiting = Box::pin(store.commit_after(&versions));
        assert!(futures::poll!(&mut waiting).is_pending());

        other.execute_batch("DELETE FROM track").unwrap();

        waiting.await;
    }
}
