//! The binary log of MariaDB: what is told of it, and where something may have been missed.

use mysql_async::{Conn, prelude::Queryable};

use super::*;
use crate::tests::{
    stored::mysql::{filled, mysql},
    support::same_schema_by,
};

pub async fn connect(db: &Db) -> Conn {
    Conn::from_url(db.url().trim_end_matches('?')).await.unwrap()
}

/// Runs scripts, each of several statements, over a connection of their own. One that fails is rolled back.
pub async fn run(db: &Db, scripts: Vec<String>) {
    let mut conn = connect(db).await;
    for script in scripts {
        if conn.query_drop(script).await.is_err() {
            conn.query_drop("ROLLBACK").await.unwrap();
        }
    }
    conn.disconnect().await.unwrap();
}

/// Runs statements, none of which may fail.
pub async fn execute(db: &Db, sql: &str) {
    let mut conn = connect(db).await;
    conn.query_drop(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    conn.disconnect().await.unwrap();
}

async fn noted() -> Option<Db> {
    let db = mysql().await?;
    execute(&db, "CREATE TABLE note (id INT PRIMARY KEY, v TEXT)").await;
    assert!(db.database.refresh().await.unwrap());
    Some(db)
}

/// The row of a key as a read writes it.
async fn row(db: &Db, table: &str, id: i64) -> String {
    let answer = db.answer(table, json!({"find": {"id": id}, "shape": "one"})).await.unwrap();
    String::from_utf8(answer.json.to_vec()).unwrap()
}

#[tokio::test]
async fn images_of_every_type_are_what_a_read_answers() {
    let Some(db) = mysql().await else { return };
    filled(&db).await;
    let mut log = Follower::of(&db, &["every"], Bytes::new()).await;
    let count = db.count("SELECT count(*) FROM every").await;
    for id in 1..=count {
        let before = row(&db, "every", id).await;
        execute(&db, &format!("UPDATE every SET id = id + 100 WHERE id = {id}")).await;
        let after = row(&db, "every", id + 100).await;
        assert_eq!(log.changes().await, [format!("every ~ {before} {after}")]);
    }
}

#[tokio::test]
async fn images_of_values_at_the_ends_of_their_types_are_what_a_read_answers() {
    let Some(db) = mysql().await else { return };
    execute(
        &db,
        "SET sql_mode = ''; CREATE TABLE ends (id INT PRIMARY KEY, t TIME, t1 TIME(1), t3 TIME(3), t6 TIME(6), d DATE, \
         m DATETIME, m4 DATETIME(4), s TIMESTAMP NULL, s2 TIMESTAMP(2) NULL, y YEAR, n DECIMAL(9,9), w DECIMAL(18,9), \
         b BINARY(5), vb VARBINARY(300), c CHAR(200) CHARACTER SET utf8mb4, l VARCHAR(300) CHARACTER SET latin1, \
         u VARCHAR(9) CHARACTER SET utf16, ul VARCHAR(9) CHARACTER SET utf16le, uw VARCHAR(9) CHARACTER SET utf32, \
         e ENUM('a','ä') CHARACTER SET latin1, o SET('x','ö') CHARACTER SET latin1, g POINT, i6 INET6, id7 UUID, \
         k INT AS (id * 2) STORED, h INT INVISIBLE DEFAULT 4)",
    )
    .await;
    let mut conn = connect(&db).await;
    conn.query_drop("SET NAMES utf8mb4; SET sql_mode = ''; SET time_zone = '+05:30'").await.unwrap();
    for (id, values) in [
        "'-838:59:59', '-00:00:00.5', '-01:02:03.456', '-838:59:58.999999', '0000-00-00', '0000-00-00 00:00:00', \
         '2020-00-00 00:00:00.0001', '0000-00-00 00:00:00', '2020-01-01 00:00:00.25', 1901, -0.123456789, -123456789.5, \
         x'6100', x'00ff20', 'ä  ', 'é€', 'a😀', 'a😀', 'a😀', 'ä', 'x,ö', POINT(1, 2), '::1.2.3.4', \
         '018f4e3c-7b1a-7cde-8f00-0123456789ab'",
        "'838:59:59', '00:00:00.9', '100:00:00.001', '-00:00:00.000001', '9999-12-31', '9999-12-31 23:59:59', \
         '0001-01-01 00:00:00.9999', '2038-01-19 08:44:07', '1970-01-01 05:30:01.01', 0, 0.000000001, 999999999.999999999, \
         x'2020202020', '', '', '', '', '', '', '', '', NULL, '::', '018f4e3c-7b1a-1cde-8f00-0123456789ab'",
        "'00:00:00', '-100:00:00.1', '-00:59:00.010', '00:00:00.000001', '2020-02-30', '1000-01-01', '1969-12-31 23:59:59.5', \
         NULL, NULL, 2155, 0, 0, '', REPEAT('x', 300), REPEAT('é', 200), REPEAT('é', 300), NULL, NULL, NULL, NULL, NULL, \
         NULL, 'fe80::1', '018f4e3c-7b1a-4cde-bf00-0123456789ab'",
        "NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, \
         NULL, NULL, NULL, '::ffff', 'ffffffff-ffff-ffff-ffff-ffffffffffff'",
    ]
    .iter()
    .enumerate()
    {
        conn.query_drop(format!("INSERT INTO ends VALUES ({}, {values}, DEFAULT)", id + 1)).await.unwrap();
    }
    assert!(db.database.refresh().await.unwrap());
    let mut log = Follower::of(&db, &["ends"], Bytes::new()).await;
    for id in 1..=4 {
        let before = row(&db, "ends", id).await;
        conn.query_drop(format!("UPDATE ends SET id = id + 100, s = s WHERE id = {id}")).await.unwrap();
        let after = row(&db, "ends", id + 100).await;
        assert_eq!(log.changes().await, [format!("ends ~ {before} {after}")]);
    }
}

#[tokio::test]
async fn what_is_undone_is_not_told_and_a_transaction_is_told_whole() {
    let Some(db) = noted().await else { return };
    let mut log = Follower::of(&db, &["note"], Bytes::new()).await;
    execute(&db, "BEGIN; INSERT INTO note VALUES (1, 'a'); ROLLBACK").await;
    execute(
        &db,
        "BEGIN; INSERT INTO note VALUES (2, 'b'); SAVEPOINT s; INSERT INTO note VALUES (3, 'c'); ROLLBACK TO s; \
         UPDATE note SET id = 4; DELETE FROM note; INSERT INTO note VALUES (5, NULL); COMMIT",
    )
    .await;
    assert_eq!(
        log.changes().await,
        [
            r#"note + {"id":2,"v":"b"}"#,
            r#"note ~ {"id":2,"v":"b"} {"id":4,"v":"b"}"#,
            r#"note - {"id":4,"v":"b"}"#,
            r#"note + {"id":5,"v":null}"#,
        ]
    );
    assert!(log.is_idle());
}

#[tokio::test]
async fn statements_that_change_a_table_otherwise_are_one_resync_each() {
    let Some(db) = noted().await else { return };
    execute(&db, "CREATE TABLE other (id INT PRIMARY KEY)").await;
    let mut log = Follower::of(&db, &["note"], Bytes::new()).await;
    execute(&db, "INSERT INTO note VALUES (1, 'a')").await;
    assert_eq!(log.changes().await, [r#"note + {"id":1,"v":"a"}"#]);
    execute(&db, "TRUNCATE TABLE other; ALTER TABLE other ADD v INT; CREATE INDEX i ON note (v(9))").await;
    execute(&db, "TRUNCATE TABLE note").await;
    let missed = log.resync().await;
    assert_eq!((missed.reason(), missed.tables), (ResyncReason::Truncate, vec!["note".to_owned()]));
    execute(&db, "SET STATEMENT lock_wait_timeout = 9 FOR TRUNCATE TABLE note").await;
    assert_eq!(log.resync().await.reason(), ResyncReason::Truncate);
    execute(&db, "INSERT INTO note VALUES (2, 'b')").await;
    assert_eq!(log.changes().await, [r#"note + {"id":2,"v":"b"}"#]);
    execute(&db, "ALTER TABLE note MODIFY v TEXT CHARACTER SET latin1").await;
    assert_eq!(log.resync().await.reason(), ResyncReason::LogLost);
    execute(&db, "INSERT INTO note VALUES (3, 'é')").await;
    assert_eq!(log.changes().await, [r#"note + {"id":3,"v":"é"}"#]);
    execute(&db, "SET binlog_row_image = MINIMAL; UPDATE note SET v = 'd' WHERE id = 3").await;
    assert_eq!(log.resync().await.reason(), ResyncReason::LogLost);
}

#[tokio::test]
async fn columns_that_are_added_are_told_once_the_schema_is_known() {
    let Some(db) = noted().await else { return };
    let mut log = Follower::of(&db, &["note"], Bytes::new()).await;
    execute(&db, "ALTER TABLE note ADD w INT DEFAULT 7, DROP v").await;
    assert_eq!(log.resync().await.reason(), ResyncReason::LogLost);
    // The schema still has the columns of before: these rows cannot be told.
    execute(&db, "INSERT INTO note VALUES (1, 1)").await;
    assert_eq!(log.resync().await.reason(), ResyncReason::LogLost);
    execute(&db, "INSERT INTO note VALUES (2, 2)").await;
    assert!(db.database.refresh().await.unwrap());
    assert_eq!(log.resync().await.reason(), ResyncReason::LogLost);
    execute(&db, "INSERT INTO note VALUES (3, 3)").await;
    let mut told = log.changes().await;
    // Whether the one before is lost or told is a matter of when it is looked at.
    if told == [r#"note + {"id":2,"w":2}"#] {
        told = log.changes().await;
    }
    assert_eq!(told, [r#"note + {"id":3,"w":3}"#]);
    execute(&db, "DROP TABLE note").await;
    let error = log.next().await.unwrap_err().to_string();
    assert_eq!(error, "changes of note cannot be followed: expected a table, found nothing of that name");
}

#[tokio::test]
async fn a_large_transaction_is_told_in_parts_that_are_resumed() {
    let Some(db) = noted().await else { return };
    execute(&db, "INSERT INTO note SELECT seq, REPEAT('x', 100) FROM seq_1_to_100000").await;
    let mut log = Follower::of(&db, &["note"], Bytes::new()).await;
    execute(&db, "UPDATE note SET v = REPEAT('y', 101)").await;
    let (mut told, mut parts, mut id) = (Vec::new(), 0, None);
    while told.len() < 100_000 {
        let Event::Transaction(transaction) = log.next().await.unwrap() else { panic!("changes") };
        assert_eq!(*id.get_or_insert(transaction.id), transaction.id);
        told.extend(super::told(&transaction));
        parts += 1;
        if parts == 3 {
            // Another process has no ring: it reads the log from there on.
            let other = same_schema_by(&db, query::resources::ChangesSource::Auto).await;
            let mut resumed = Follower::of(&other, &["note"], log.position.clone()).await;
            let mut rest = told.len();
            while rest < 100_000 {
                let Event::Transaction(transaction) = resumed.next().await.unwrap() else { panic!("changes") };
                rest += transaction.changes.len();
            }
            assert_eq!(rest, 100_000);
            assert!(resumed.is_idle());
        }
    }
    assert!(parts > 3 && told.len() == 100_000);
    told.sort_unstable();
    told.dedup();
    assert_eq!(told.len(), 100_000);
}

#[tokio::test]
async fn a_position_is_good_on_other_processes_and_over_rotated_files() {
    let Some(db) = noted().await else { return };
    let mut log = Follower::of(&db, &["note"], Bytes::new()).await;
    execute(&db, "INSERT INTO note VALUES (1, 'a')").await;
    log.changes().await;
    let position = log.position.clone();
    execute(
        &db,
        "FLUSH BINARY LOGS; INSERT INTO note VALUES (2, 'b'); FLUSH BINARY LOGS; INSERT INTO note VALUES (3, 'c')",
    )
    .await;
    let other = same_schema_by(&db, query::resources::ChangesSource::Auto).await;
    for db in [&db, &other] {
        let mut again = Follower::of(db, &["note"], position.clone()).await;
        assert_eq!(again.so_many(2).await, [r#"note + {"id":2,"v":"b"}"#, r#"note + {"id":3,"v":"c"}"#]);
        assert!(again.is_idle());
    }
    assert_eq!(log.so_many(2).await.len(), 2);
}

/// The engine makes them by itself, and does not log them.
#[tokio::test]
async fn what_foreign_keys_change_is_one_resync_for_a_transaction() {
    let Some(db) = noted().await else { return };
    execute(
        &db,
        "CREATE TABLE tag (id INT PRIMARY KEY, note INT REFERENCES note (id) ON DELETE CASCADE ON UPDATE CASCADE); \
         CREATE TABLE piece (id INT PRIMARY KEY, tag INT REFERENCES tag (id) ON DELETE SET NULL); \
         INSERT INTO note VALUES (1, 'a'), (2, 'b'), (3, 'c'); INSERT INTO tag VALUES (1, 1), (2, 2); \
         INSERT INTO piece VALUES (1, 1)",
    )
    .await;
    assert!(db.database.refresh().await.unwrap());
    let mut log = Follower::of(&db, &["piece", "tag"], Bytes::new()).await;
    execute(&db, "UPDATE note SET v = 'd'; INSERT INTO tag VALUES (3, 3)").await;
    assert_eq!(log.changes().await, [r#"tag + {"id":3,"note":3}"#]);
    execute(&db, "UPDATE note SET id = 12 WHERE id = 2").await;
    let missed = log.resync().await;
    assert_eq!((missed.reason(), missed.tables), (ResyncReason::LogLost, vec!["piece".to_owned(), "tag".to_owned()]));
    execute(&db, "BEGIN; DELETE FROM note WHERE id = 1; DELETE FROM note WHERE id = 3; COMMIT").await;
    assert_eq!(log.resync().await.tables, ["piece", "tag"]);
    execute(&db, "INSERT INTO tag VALUES (4, NULL)").await;
    assert_eq!(log.changes().await, [r#"tag + {"id":4,"note":null}"#]);
    assert!(log.is_idle());
}
