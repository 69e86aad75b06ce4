//! What only a file can bring: a log must disturb no application, and tell what it has lost.

use rusqlite::Connection;

use super::*;
use crate::tests::support::sqlite;

/// A file with tables of an application, and its own connection to it.
async fn file(schema: &str) -> (Db, Connection) {
    let db = sqlite().await;
    let other = Connection::open(db.file()).unwrap();
    other.execute_batch(schema).unwrap();
    assert!(db.database.refresh().await.unwrap());
    (db, other)
}

const NOTES: &str = "CREATE TABLE note (id INTEGER PRIMARY KEY, k TEXT UNIQUE COLLATE NOCASE, v);
    CREATE TABLE pair (a INT, b TEXT, v, PRIMARY KEY (b, a)) WITHOUT ROWID;
    INSERT INTO note VALUES (1, 'a', 1), (2, 'b', 2);
    INSERT INTO pair VALUES (1, 'x', 1), (2, 'y', 2);";

#[tokio::test]
async fn every_way_to_change_rows_is_told() {
    let (db, other) = file(NOTES).await;
    let mut log = Follower::of(&db, &["note", "pair"], Bytes::new()).await;
    for (sql, expected) in [
        (
            "REPLACE INTO note VALUES (2, 'c', 3)",
            &[r#"note - {"id":2,"k":"b","v":2}"#, r#"note + {"id":2,"k":"c","v":3}"#][..],
        ),
        // It takes the place of two rows.
        (
            "REPLACE INTO note VALUES (1, 'C', 4)",
            &[
                r#"note - {"id":1,"k":"a","v":1}"#,
                r#"note - {"id":2,"k":"c","v":3}"#,
                r#"note + {"id":1,"k":"C","v":4}"#,
            ],
        ),
        ("INSERT OR IGNORE INTO note VALUES (1, 'z', 5)", &[]),
        ("INSERT INTO note (k, v) VALUES ('c', 6) ON CONFLICT (k) DO NOTHING", &[]),
        (
            "INSERT INTO note (k, v) VALUES ('c', 6) ON CONFLICT (k) DO UPDATE SET v = excluded.v",
            &[r#"note ~ {"id":1,"k":"C","v":4} {"id":1,"k":"C","v":6}"#],
        ),
        ("INSERT INTO note (v) VALUES (x'00ff')", &[r#"note + {"id":2,"k":null,"v":"AP8="}"#]),
        (
            "UPDATE OR REPLACE note SET k = 'C', v = 7 WHERE id = 2",
            &[r#"note - {"id":1,"k":"C","v":6}"#, r#"note ~ {"id":2,"k":null,"v":"AP8="} {"id":2,"k":"C","v":7}"#],
        ),
        ("UPDATE note SET id = -1", &[r#"note ~ {"id":2,"k":"C","v":7} {"id":-1,"k":"C","v":7}"#]),
        ("INSERT OR REPLACE INTO note (k, v) VALUES ('n', 9.5)", &[r#"note + {"id":0,"k":"n","v":9.5}"#]),
        (
            "PRAGMA recursive_triggers = ON; REPLACE INTO note VALUES (0, 'm', 1); PRAGMA recursive_triggers = OFF",
            &[r#"note - {"id":0,"k":"n","v":9.5}"#, r#"note + {"id":0,"k":"m","v":1}"#],
        ),
        ("UPDATE pair SET v = 3 WHERE a = 1", &[r#"pair ~ {"a":1,"b":"x","v":1} {"a":1,"b":"x","v":3}"#]),
        ("UPDATE pair SET b = 'z' WHERE a = 1", &[r#"pair ~ {"a":1,"b":"x","v":3} {"a":1,"b":"z","v":3}"#]),
        (
            "REPLACE INTO pair VALUES (1, 'z', 4)",
            &[r#"pair - {"a":1,"b":"z","v":3}"#, r#"pair + {"a":1,"b":"z","v":4}"#],
        ),
        ("DELETE FROM pair", &[r#"pair - {"a":2,"b":"y","v":2}"#, r#"pair - {"a":1,"b":"z","v":4}"#]),
    ] {
        other.execute_batch(sql).unwrap();
        let mut told = log.so_many(expected.len()).await;
        let mut expected: Vec<&str> = expected.to_vec();
        if sql == "DELETE FROM pair" || sql.contains("(1, 'C', 4)") {
            told.sort();
            expected.sort_unstable();
        }
        assert_eq!(told, expected, "{sql}");
    }
    other
        .execute_batch("BEGIN; UPDATE note SET v = 0; SAVEPOINT a; DELETE FROM note; ROLLBACK TO a; ROLLBACK")
        .unwrap();
    other.execute_batch("DELETE FROM note WHERE id = 0").unwrap();
    assert_eq!(log.changes().await, [r#"note - {"id":0,"k":"m","v":1}"#]);
    assert!(log.is_idle());
}

#[tokio::test]
async fn statements_of_an_application_are_the_same_with_a_log() {
    let schema = "PRAGMA foreign_keys = ON;
        CREATE TABLE \"it's\" (id INTEGER PRIMARY KEY, \"a \"\"b\" TEXT UNIQUE, \"rowid\" INT, twice AS (\"rowid\" * 2), \"new\" INT);
        CREATE TABLE below (id INTEGER PRIMARY KEY, of INT REFERENCES \"it's\" ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED);
        CREATE VIEW shown AS SELECT id FROM \"it's\";
        CREATE TRIGGER shown_insert INSTEAD OF INSERT ON shown BEGIN INSERT INTO \"it's\" (id) VALUES (NEW.id); END;
        CREATE TRIGGER first AFTER INSERT ON \"it's\" BEGIN UPDATE \"it's\" SET \"new\" = 1 WHERE id = NEW.id; END;";
    let (db, other) = file(schema).await;
    let mut log = Follower::of(&db, &["it's", "below"], Bytes::new()).await;
    other.execute_batch("PRAGMA foreign_keys = ON").unwrap();

    let insert = "INSERT INTO \"it's\" (id, \"a \"\"b\", \"rowid\") VALUES (5, 'x', 7), (6, 'y', 8) RETURNING id";
    let ids: Vec<i64> =
        other.prepare(insert).unwrap().query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert_eq!((ids, other.changes(), other.last_insert_rowid()), (vec![5, 6], 2, 6));
    let told = log.so_many(4).await;
    let row = |id, a, r, new| format!(r#"{{"id":{id},"a \"b":"{a}","rowid":{r},"twice":{},"new":{new}}}"#, r * 2);
    assert_eq!(
        told,
        [
            format!("it's + {}", row(5, "x", 7, "null")),
            format!("it's ~ {} {}", row(5, "x", 7, "null"), row(5, "x", 7, "1")),
            format!("it's + {}", row(6, "y", 8, "null")),
            format!("it's ~ {} {}", row(6, "y", 8, "null"), row(6, "y", 8, "1")),
        ]
    );
    // A trigger that is made later runs before ours until ours are made again.
    other
        .execute_batch("CREATE TRIGGER later AFTER UPDATE OF \"rowid\" ON \"it's\" BEGIN UPDATE \"it's\" SET \"new\" = 2 WHERE id = NEW.id; END")
        .unwrap();
    db.execute("INSERT INTO below VALUES (1, 5)").await;
    assert_eq!(log.changes().await, [r#"below + {"id":1,"of":5}"#]);
    recaptured(&db, "it's").await;
    assert_eq!(other.execute("UPDATE \"it's\" SET \"rowid\" = 9 WHERE id = 5", []).unwrap(), 1);
    assert_eq!(
        log.so_many(2).await,
        [
            format!("it's ~ {} {}", row(5, "x", 7, "1"), row(5, "x", 9, "1")),
            format!("it's ~ {} {}", row(5, "x", 9, "1"), row(5, "x", 9, "2")),
        ]
    );
    assert_eq!(other.execute("DELETE FROM \"it's\" WHERE id = 5", []).unwrap(), 1);
    assert_eq!(log.so_many(2).await.len(), 2);
    assert_eq!(other.execute("INSERT INTO shown VALUES (9)", []).unwrap(), 0);
    assert_eq!(log.so_many(2).await.len(), 2);
    assert!(other.execute_batch("BEGIN; INSERT INTO below VALUES (3, 77); COMMIT").is_err());
    other.execute_batch("ROLLBACK").unwrap();
    assert!(other.execute("INSERT INTO \"it's\" (\"a \"\"b\") VALUES ('y')", []).is_err());
    assert!(log.is_idle());
}

#[tokio::test]
async fn a_log_is_not_complete_where_an_index_removes_rows() {
    let (db, other) = file(NOTES).await;
    let check = async || {
        let tables = ["note", "pair"].map(str::to_owned);
        db.database.check_complete(&tables).await.map_err(|error| error.to_string())
    };
    assert_eq!(check().await, Ok(()));
    other.execute_batch("CREATE UNIQUE INDEX some ON pair (v) WHERE v > 1").unwrap();
    let why = "changes of pair cannot be followed: rows that REPLACE removes by the index some are not told";
    assert_eq!(check().await, Err(why.to_owned()));
}

/// Waits until the triggers of a table are the newest again.
async fn recaptured(db: &Db, table: &str) {
    let newest = format!(
        "SELECT name LIKE 'perigee%' FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = '{}' ORDER BY rowid DESC",
        table.replace('\'', "''")
    );
    while db.count(&newest).await == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_application_changes_its_schema_beside_a_log() {
    let (db, other) = file(NOTES).await;
    let mut log = Follower::of(&db, &["note", "pair"], Bytes::new()).await;
    // All at once: nothing of ours is made again meanwhile.
    let schema = "BEGIN;
        ALTER TABLE note ADD COLUMN more TEXT; INSERT INTO note (id, more) VALUES (7, 'a');
        ALTER TABLE note RENAME COLUMN more TO less; UPDATE note SET less = 'b' WHERE id = 7;
        ALTER TABLE note RENAME COLUMN v TO w; UPDATE note SET w = 3 WHERE id = 7;
        ALTER TABLE note DROP COLUMN w; UPDATE note SET less = 'c' WHERE id = 7;
        ALTER TABLE note DROP COLUMN less; UPDATE note SET k = 'k' WHERE id = 7;
        ALTER TABLE note RENAME COLUMN k TO l; UPDATE note SET l = 'm' WHERE id = 7;
        ALTER TABLE pair RENAME COLUMN a TO c; UPDATE pair SET v = 9 WHERE c = 1; REPLACE INTO pair VALUES (1, 'x', 8);
        CREATE INDEX by_v ON pair (v); DROP INDEX by_v; COMMIT";
    other.execute_batch(schema).unwrap();
    other.execute_batch("VACUUM; REINDEX; ANALYZE; DELETE FROM note WHERE id = 7").unwrap();
    let mut told = Vec::new();
    while told.last().is_none_or(|last: &String| !last.starts_with("note - ")) {
        match log.next().await.unwrap() {
            Event::Transaction(transaction) => told.extend(super::told(&transaction)),
            Event::Resync(_) => told.push("resync".to_owned()),
            Event::Started(_) => panic!("it started"),
        }
    }
    assert_eq!(told.iter().filter(|told| told.starts_with("note + {\"id\":7")).count(), 1, "{told:?}");

    other.execute_batch("ALTER TABLE note RENAME TO other; INSERT INTO other (id) VALUES (8)").unwrap();
    let error = loop {
        if let Err(error) = log.next().await {
            break error.to_string();
        }
    };
    assert_eq!(error, "changes of note cannot be followed: expected a table, found nothing of that name");
    other
        .execute_batch("INSERT INTO other (id) VALUES (9); DROP TABLE other; ALTER TABLE pair RENAME TO pairs")
        .unwrap();
}

#[tokio::test]
async fn a_log_that_lost_something_says_so_once() {
    let (db, other) = file(NOTES).await;
    let mut log = Follower::of(&db, &["note"], Bytes::new()).await;
    other.execute_batch("UPDATE note SET v = 5 WHERE id = 1; UPDATE note SET v = 6 WHERE id = 1").unwrap();
    log.so_many(2).await;
    let before = log.position.clone();
    for (sql, reason) in [
        // As after a restore of an older copy, and of one that was written to.
        ("DELETE FROM perigee_log WHERE seq > 3", ResyncReason::Restored),
        ("DELETE FROM perigee_log", ResyncReason::Restored),
        ("UPDATE perigee_log_shapes SET columns = 'another' WHERE shape = 0", ResyncReason::LogLost),
    ] {
        // Entries are told apart by their times, which are milliseconds.
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        other.execute_batch(sql).unwrap();
        other.execute_batch("UPDATE note SET v = v + 1 WHERE id = 2").unwrap();
        assert_eq!(log.resync().await.reason(), reason, "{sql}");
        other.execute_batch("UPDATE note SET v = 7 WHERE id = 1").unwrap();
        let told = log.so_many(1).await;
        assert!(told[0].ends_with("\"v\":7}"), "{told:?}");
        let mut late = Follower::of(&db, &["note"], before.clone()).await;
        assert!(matches!(late.resync().await.reason(), ResyncReason::Restored | ResyncReason::LogLost), "{sql}");
        assert!(log.is_idle());
    }
}

#[tokio::test]
async fn a_slow_follower_is_told_that_it_missed_something_and_goes_on() {
    let (db, other) =
        file("CREATE TABLE large (id INTEGER PRIMARY KEY, v BLOB); INSERT INTO large VALUES (1, x'00')").await;
    let mut slow = Follower::of(&db, &["large"], Bytes::new()).await;
    let mut quick = Follower::of(&db, &["large"], Bytes::new()).await;
    for _ in 0..50 {
        other.execute_batch("UPDATE large SET v = randomblob(1000000)").unwrap();
        quick.so_many(1).await;
    }
    assert_eq!(slow.resync().await.reason(), ResyncReason::Overflow);
    other.execute_batch("UPDATE large SET v = 1").unwrap();
    assert_eq!(slow.changes().await.len(), 1);
    assert!(slow.is_idle());
}

#[tokio::test]
async fn a_follower_goes_on_after_another_process_has_ended() {
    let (db, other) = file(NOTES).await;
    let mut log = Follower::of(&db, &["note"], Bytes::new()).await;
    other.execute_batch("UPDATE note SET v = 5 WHERE id = 1; UPDATE note SET v = 6 WHERE id = 1").unwrap();
    log.changes().await;
    // Another process that has the file: it reads the log from the position on.
    let after = crate::tests::support::same_file(&db).await;
    let mut next = Follower::of(&after, &["note"], log.position.clone()).await;
    assert_eq!(next.changes().await, log.changes().await);
    other.execute_batch("UPDATE note SET v = 7 WHERE id = 1").unwrap();
    assert_eq!(next.changes().await, log.changes().await);
    assert!(next.is_idle());
    // A table that was not followed before.
    let mut both = Follower::of(&after, &["note", "pair"], log.position.clone()).await;
    assert_eq!(both.resync().await.tables, ["pair"]);
}

#[tokio::test]
async fn a_log_is_not_served_and_leaves_nothing() {
    let (db, other) = file(NOTES).await;
    let before = db.schema().schema.clone();
    let log = Follower::of(&db, &["note", "pair"], Bytes::new()).await;
    db.database.refresh().await.unwrap();
    assert_eq!(db.schema().schema, before);
    drop((log, db.database));
    let ours = "SELECT count(*) FROM sqlite_schema WHERE name LIKE '%perigee%'";
    while other.query_row(ours, [], |row| row.get::<_, i64>(0)).unwrap() > 0 {
        tokio::task::yield_now().await;
    }
    other.execute_batch("UPDATE note SET v = 1").unwrap();
}

#[tokio::test]
async fn a_table_of_very_many_columns_is_not_followed() {
    let columns = |count: usize| (0..count).map(|index| format!(", c{index}")).collect::<String>();
    let (db, other) = file(&format!(
        "CREATE TABLE wide (id INTEGER PRIMARY KEY{}); CREATE TABLE too_wide (id{})",
        columns(63),
        columns(64)
    ))
    .await;
    let mut log = Follower::of(&db, &["wide"], Bytes::new()).await;
    other.execute_batch("INSERT INTO wide (c62) VALUES ('x')").unwrap();
    assert!(log.changes().await[0].ends_with(r#""c62":"x"}"#));
    let error = Follower::not_started(&db, &["too_wide"], Bytes::new()).next().await.unwrap_err().to_string();
    assert_eq!(
        error,
        "changes of too_wide cannot be followed: expected at most 64 columns, and a name of rowid that none of them has"
    );
    other.execute_batch("INSERT INTO too_wide (c62) VALUES ('x')").unwrap();
}
