//! Diagnosis of a file, and removal of what is ours. Neither changes anything else, such as the journal mode.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{EVENTS, Maker, OTHER_TABLE, SqliteError, conflict, kind, maker, release, trigger_on_ours, triggers};
use crate::{
    Error,
    store::{
        diagnosis::{Diagnosis, Finding, NamedObject, Removal, Severity},
        sqlite::{log, open, schema},
    },
};

const NAMED_OBJECTS: &str = "\
SELECT type, CASE type WHEN 'trigger' THEN name || ' on ' || tbl_name ELSE name END
FROM sqlite_schema
WHERE name LIKE 'perigee\\_%' ESCAPE '\\' OR (type = 'trigger' AND tbl_name = 'perigee_changes') ORDER BY 1, 2";

/// What live queries have of the file at `path`, which must be there.
///
/// Blocks.
pub fn diagnose(path: &Path) -> Result<Diagnosis, Error> {
    require(path)?;
    let reader = open::reader(path)?;
    Ok(examine(&reader)?)
}

/// Removes what is ours from the file at `path`, which must be there.
///
/// Blocks.
pub fn remove(path: &Path) -> Result<Removal, Error> {
    require(path)?;
    let is_open = is_open_elsewhere(path);
    let connection = open::plain(path)?;
    let before = objects(&connection)?;
    let released = release(&connection, &[]).and_then(|()| log::triggers::release(&connection, &[]));
    if !connection.is_autocommit() {
        connection.execute_batch("ROLLBACK").map_err(SqliteError::from)?;
    }
    let mut removal = Removal::between(before, objects(&connection)?);
    if let Err(failure) = released {
        let error = Error::from(failure);
        removal.is_partial = true;
        removal.warnings.push(error.cause().map_or_else(|| error.to_string(), str::to_owned));
    } else if maker(&connection)? == Maker::Us
        && let Some(trigger) = trigger_on_ours(&connection)?
    {
        removal.is_partial = true;
        removal.warnings.push(format!(
            "the table perigee_changes stays: an application has trigger {trigger} on it; drop it, and remove once more"
        ));
    }
    if is_open {
        let text = "another program has the file open; if that is a server of Perigee with live queries, it makes the \
                    objects again: stop it, and remove them once more";
        removal.warnings.push(text.to_owned());
    }
    Ok(removal)
}

fn require(path: &Path) -> Result<(), Error> {
    match path.is_file() {
        true => Ok(()),
        false => {
            Err(Error::Unavailable(format!("there is no file {}; a server makes it at its start", path.display())))
        }
    }
}

fn examine(reader: &Connection) -> Result<Diagnosis, SqliteError> {
    let served = schema::introspect(reader)?.schema;
    let tables: Vec<String> = served.tables().iter().map(|table| table.name.clone()).collect();
    let mut diagnosis = Diagnosis { objects: objects(reader)?, source: "triggers", ..Diagnosis::default() };
    let missing = |text: &str| Finding { severity: Severity::Missing, text: text.to_owned(), sql: None };
    let (maker, found) = (maker(reader)?, triggers(reader)?);
    if maker == Maker::Other {
        diagnosis.findings.push(missing(OTHER_TABLE));
    }
    for table in &tables {
        let conflict = EVENTS.iter().find_map(|event| conflict(&found, table, event));
        if let Some(kind) = kind(reader, table)? {
            let text = format!("{table}: expected a table, found {kind}");
            diagnosis.findings.push(Finding { severity: Severity::Unfollowed, text, sql: None });
        } else if let Some(conflict) = conflict {
            diagnosis.findings.push(missing(&format!("{table}: {conflict}")));
        } else if maker != Maker::Other {
            diagnosis.followed.push(table.clone());
        }
    }
    let mode: String = reader.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    if mode != "wal" {
        diagnosis.findings.push(Finding {
            severity: Severity::Note,
            text: format!(
                "the journal mode is {mode}; a server sets wal at its start, and where it cannot, asks for changes every 20 ms"
            ),
            sql: Some("PRAGMA journal_mode = WAL;".to_owned()),
        });
    }
    Ok(Diagnosis { tables, ..diagnosis })
}

/// Objects whose names begin as ours do.
fn objects(reader: &Connection) -> Result<Vec<NamedObject>, SqliteError> {
    let mut all = reader.prepare(NAMED_OBJECTS)?;
    let objects = all.query_map([], |row| Ok(NamedObject { kind: row.get(0)?, name: row.get(1)? }))?;
    Ok(objects.collect::<Result<_, _>>()?)
}

/// Whether another connection has the file open, as far as that shows: in WAL mode each holds a lock as long as it is.
fn is_open_elsewhere(path: &Path) -> bool {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let locked = Connection::open_with_flags(path, flags).and_then(|alone| {
        alone.busy_timeout(Duration::ZERO)?;
        alone.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; ROLLBACK")
    });
    // What else is wrong with the file, its removal says.
    locked.is_err_and(|error| error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy))
}

#[cfg(test)]
mod tests {
    use mesh::Tasks;

    use super::*;
    use crate::store::sqlite::Sqlite;

    const MUSIC: &str = "
        CREATE TABLE album (id INTEGER PRIMARY KEY);
        CREATE TABLE \"it's\" (id INTEGER PRIMARY KEY);
        CREATE VIEW names AS SELECT id FROM album;
        CREATE VIRTUAL TABLE words USING fts5 (word);";

    fn query(path: &Path, sql: &str) -> Vec<String> {
        let connection = Connection::open(path).unwrap();
        let mut statement = connection.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    }

    /// All that the schema says, and the journal mode.
    fn catalog(path: &Path) -> Vec<String> {
        let schema = "SELECT type || name || coalesce(sql, '') FROM sqlite_schema ORDER BY 1";
        [query(path, schema), query(path, "PRAGMA journal_mode")].concat()
    }

    fn texts(diagnosis: &Diagnosis, severity: Severity) -> Vec<&str> {
        let findings = diagnosis.findings.iter().filter(|finding| finding.severity == severity);
        findings.map(|finding| finding.text.as_str()).collect()
    }

    fn names(objects: &[NamedObject]) -> Vec<String> {
        objects.iter().map(|object| format!("{} {}", object.kind, object.name)).collect()
    }

    async fn capture(path: &Path, tables: &[&str]) -> Sqlite {
        let store = Sqlite::existing(path, &Tasks::default()).unwrap();
        for table in tables {
            store.capture(table).await.unwrap();
        }
        store
    }

    #[test]
    fn what_cannot_be_followed_is_named_and_nothing_is_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.db");
        Connection::open(&path).unwrap().execute_batch(MUSIC).unwrap();
        let before = catalog(&path);

        let diagnosis = diagnose(&path).unwrap();

        assert_eq!(diagnosis.followed, ["album", "it's"]);
        let expected = [
            "names: expected a table, found a view",
            "words: expected a table, found a virtual table or a part of one",
        ];
        assert_eq!(texts(&diagnosis, Severity::Unfollowed), expected);
        assert_eq!(texts(&diagnosis, Severity::Missing), [""; 0]);
        let notes = texts(&diagnosis, Severity::Note);
        assert!(notes.len() == 1 && notes[0].starts_with("the journal mode is delete;"), "{notes:?}");
        let removal = remove(&path).unwrap();
        assert_eq!(removal, Removal::default());
        assert_eq!(catalog(&path), before);

        // What it says helps.
        let sql = diagnosis.findings.iter().find_map(|finding| finding.sql.as_deref()).unwrap();
        query(&path, sql);
        assert_eq!(texts(&diagnose(&path).unwrap(), Severity::Note), [""; 0]);
    }

    #[test]
    fn a_file_that_is_missing_is_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("none.db");
        for error in [diagnose(&path).unwrap_err(), remove(&path).unwrap_err()] {
            assert!(error.cause().unwrap().contains("none.db; a server makes it at its start"), "{error:?}");
        }
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn removal_leaves_the_schema_as_it_was_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.db");
        let schema = format!("PRAGMA journal_mode = WAL; {MUSIC}");
        Connection::open(&path).unwrap().execute_batch(&schema).unwrap();
        let before = catalog(&path);
        drop(capture(&path, &["album", "it's"]).await);
        log::triggers::capture(&Connection::open(&path).unwrap(), "album").unwrap();
        // As in a dump of chosen tables, which has no table of ours.
        query(&path, "SELECT id FROM album");
        let there = diagnose(&path).unwrap().objects;
        assert_eq!(there.len(), 7 + 9, "a table, three triggers for each; three tables, six triggers");

        let removal = remove(&path).unwrap();

        assert_eq!(removal, Removal { removed: there, ..Removal::default() });
        assert_eq!(
            names(&removal.removed)[3..5],
            ["table perigee_log_shapes", "trigger perigee_changes_album_delete on album"]
        );
        assert_eq!(catalog(&path), before);
        assert_eq!(remove(&path).unwrap(), Removal::default(), "it is removed once");
    }

    #[tokio::test]
    async fn triggers_without_their_table_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.db");
        Connection::open(&path).unwrap().execute_batch(MUSIC).unwrap();
        drop(capture(&path, &["album"]).await);
        let broken = Connection::open(&path).unwrap();
        broken.execute_batch("DROP TABLE perigee_changes").unwrap();
        broken.execute_batch("INSERT INTO album VALUES (1)").unwrap_err();
        drop(broken);

        assert_eq!(remove(&path).unwrap().removed.len(), 3);

        Connection::open(&path).unwrap().execute_batch("INSERT INTO album VALUES (1)").unwrap();
    }

    #[tokio::test]
    async fn objects_of_an_application_that_are_called_like_ours_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.db");
        let alike = "
            CREATE TABLE perigee_notes (id INTEGER PRIMARY KEY);
            CREATE TRIGGER perigee_changes_album_UPDATE AFTER UPDATE ON album BEGIN SELECT 1; END;
            CREATE TRIGGER perigee_changes_audit AFTER DELETE ON \"it's\" BEGIN SELECT 1; END;";
        Connection::open(&path).unwrap().execute_batch(&format!("PRAGMA journal_mode = WAL; {MUSIC} {alike}")).unwrap();
        let before = catalog(&path);
        drop(capture(&path, &["it's"]).await);

        let diagnosis = diagnose(&path).unwrap();
        let removal = remove(&path).unwrap();

        let expected = "album: the database has another trigger called perigee_changes_album_update";
        assert_eq!(texts(&diagnosis, Severity::Missing), [expected]);
        assert_eq!(diagnosis.followed, ["it's", "perigee_notes"]);
        let left = [
            "table perigee_notes",
            "trigger perigee_changes_album_UPDATE on album",
            "trigger perigee_changes_audit on it's",
        ];
        assert_eq!((names(&removal.left), removal.is_partial), (left.map(str::to_owned).into(), false));
        assert_eq!(catalog(&path), before);

        let other = "CREATE TABLE perigee_changes (mine TEXT)";
        Connection::open(&path).unwrap().execute_batch(other).unwrap();
        let before = catalog(&path);
        let diagnosis = diagnose(&path).unwrap();
        assert_eq!(texts(&diagnosis, Severity::Missing), [OTHER_TABLE, expected]);
        assert_eq!(diagnosis.followed, [""; 0]);
        assert_eq!(remove(&path).unwrap().removed, []);
        assert_eq!(catalog(&path), before);
    }

    #[tokio::test]
    async fn a_trigger_of_an_application_that_does_more_than_ours_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.db");
        Connection::open(&path).unwrap().execute_batch(MUSIC).unwrap();
        drop(capture(&path, &["album", "it's"]).await);
        let more = "CREATE TRIGGER perigee_changes_more AFTER INSERT ON album
            BEGIN UPDATE perigee_changes SET version = version + 1 WHERE tbl = 'album'; SELECT 'x'; END";
        let on_ours = "CREATE TRIGGER mine AFTER UPDATE ON perigee_changes BEGIN SELECT 1; END";
        Connection::open(&path).unwrap().execute_batch(&format!("{more}; {on_ours}")).unwrap();

        let removal = remove(&path).unwrap();

        let left =
            ["table perigee_changes", "trigger mine on perigee_changes", "trigger perigee_changes_more on album"];
        assert_eq!((names(&removal.left), removal.removed.len()), (left.map(str::to_owned).into(), 6));
        let stays = "the table perigee_changes stays: an application has trigger mine on it; ";
        assert!(removal.is_partial && removal.warnings[0].starts_with(stays), "{:?}", removal.warnings);
        assert_eq!(query(&path, "SELECT tbl FROM perigee_changes"), [""; 0]);
        Connection::open(&path).unwrap().execute_batch("INSERT INTO album VALUES (1); DROP TRIGGER mine").unwrap();
        assert_eq!(names(&remove(&path).unwrap().removed), ["table perigee_changes"]);
    }

    #[tokio::test]
    async fn a_program_that_has_the_file_open_is_told_of() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.db");
        Connection::open(&path).unwrap().execute_batch(MUSIC).unwrap();
        let store = capture(&path, &["album"]).await;

        let removal = remove(&path).unwrap();

        assert_eq!(removal.removed.len(), 4);
        assert!(removal.warnings[0].contains("another program has the file open"), "{:?}", removal.warnings);
        drop(store);
        assert_eq!(remove(&path).unwrap().warnings, [""; 0]);
    }

    #[tokio::test]
    async fn a_file_that_is_locked_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.db");
        Connection::open(&path).unwrap().execute_batch(MUSIC).unwrap();
        drop(capture(&path, &["album"]).await);
        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE; INSERT INTO album VALUES (1)").unwrap();

        let removal = remove(&path).unwrap();

        assert_eq!((removal.removed.len(), removal.left.len(), removal.is_partial), (0, 4, true));
        assert!(removal.warnings[0].contains("lock"), "{:?}", removal.warnings);
        other.execute_batch("COMMIT").unwrap();
        drop(other);
        assert_eq!(remove(&path).unwrap().removed.len(), 4);
    }
}
