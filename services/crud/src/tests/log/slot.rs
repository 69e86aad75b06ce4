//! What only a slot can bring.

use query::resources::ChangesSource;

use super::{
    postgres::{run, server_by},
    *,
};
use crate::tests::support::same_schema_by;

/// The slot of the schema of `db`, as the server shows it.
async fn slot(db: &Db, condition: &str) -> i64 {
    let sql =
        format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{}' AND {condition}", name(db).await);
    db.count(&sql).await
}

async fn name(db: &Db) -> String {
    let known = db.schema();
    let schema = known.dialect.schema().unwrap().to_owned();
    let url = crate::tests::postgres_url().unwrap();
    let database = url.rsplit('/').next().unwrap().split('?').next().unwrap().to_owned();
    crate::store::postgres::changes::slot::setup::name(&database, &schema)
}

/// Waits until a statement answers this number.
async fn until(db: &Db, sql: &str, number: i64) {
    for _ in 0..600 {
        if db.count(sql).await == number {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{sql} is not {number}");
}

const NOTE: &str = "CREATE TABLE {s}note (id int PRIMARY KEY, v text, w text)";

#[tokio::test]
async fn partitions_and_tables_below_are_told_by_a_slot_as_the_table_that_is_followed() {
    let schema = "CREATE TABLE {s}part_y (v text, year int, id int) PARTITION BY RANGE (year);
        CREATE TABLE {s}part_1 (id int, year int, v text);
        ALTER TABLE {s}part_y ATTACH PARTITION {s}part_1 FOR VALUES FROM (0) TO (10);
        CREATE TABLE {s}part_2 PARTITION OF {s}part_y FOR VALUES FROM (10) TO (20);
        CREATE TABLE {s}above (id int); CREATE TABLE {s}below (more int) INHERITS ({s}above)";
    let Some(db) = server_by(schema, ChangesSource::Slot).await else { return };
    let mut log = Follower::of(&db, &["part_y", "above"], Bytes::new()).await;
    run(&db, "INSERT INTO {s}part_y VALUES ('a', 5, 1)").await;
    assert_eq!(log.changes().await, [r#"part_y + {"v":"a","year":5,"id":1}"#]);
    run(&db, "UPDATE {s}part_y SET year = 15").await;
    assert_eq!(
        log.changes().await,
        [r#"part_y - {"v":"a","year":5,"id":1}"#, r#"part_y + {"v":"a","year":15,"id":1}"#]
    );
    run(&db, "INSERT INTO {s}below VALUES (1, 2)").await;
    assert_eq!(log.changes().await, [r#"above + {"id":1}"#]);
    // A partition that is made beside the reader, without a key: nothing of it fails, and it is found.
    run(&db, "CREATE TABLE {s}part_3 PARTITION OF {s}part_y FOR VALUES FROM (20) TO (30)").await;
    run(&db, "INSERT INTO {s}part_y VALUES ('b', 25, 2)").await;
    run(&db, "UPDATE {s}part_y SET v = 'c' WHERE year = 25").await;
    run(&db, "DELETE FROM {s}part_y WHERE year = 25").await;
    db.database.refresh().await.unwrap();
    let resync = log.resync().await;
    assert_eq!((resync.reason(), resync.tables), (ResyncReason::LogLost, vec!["part_y".to_owned()]));
    run(&db, "INSERT INTO {s}part_y VALUES ('d', 26, 3)").await;
    assert_eq!(log.changes().await, [r#"part_y + {"v":"d","year":26,"id":3}"#]);
}

#[tokio::test]
async fn truncate_and_changes_of_columns_are_resyncs_of_a_slot() {
    let Some(db) = server_by(NOTE, ChangesSource::Slot).await else { return };
    let mut log = Follower::of(&db, &["note", "artist"], Bytes::new()).await;
    run(&db, "INSERT INTO {s}note VALUES (1, 'a', 'b')").await;
    log.changes().await;
    for (sql, reason) in [
        ("TRUNCATE {s}note", ResyncReason::Truncate),
        ("ALTER TABLE {s}note ADD COLUMN x int DEFAULT 5", ResyncReason::LogLost),
        ("ALTER TABLE {s}note DROP COLUMN w", ResyncReason::LogLost),
        ("ALTER TABLE {s}note RENAME COLUMN v TO u", ResyncReason::LogLost),
        ("ALTER TABLE {s}note ALTER COLUMN u TYPE varchar(50)", ResyncReason::LogLost),
    ] {
        run(&db, sql).await;
        db.database.refresh().await.unwrap();
        let resync = log.resync().await;
        assert_eq!((resync.reason(), resync.tables.as_slice()), (reason, &["note".to_owned()][..]), "{sql}");
        run(&db, "INSERT INTO {s}note (id) VALUES (7)").await;
        assert_eq!(log.changes().await.len(), 1, "{sql}");
        run(&db, "DELETE FROM {s}note").await;
        while !log.changes().await.iter().any(|told| told.starts_with("note - {\"id\":7")) {}
    }
    run(&db, "DROP TABLE {s}note").await;
    db.database.refresh().await.unwrap();
    assert!(log.next().await.is_err());
}

/// What the stream itself tells, before anybody looks at the catalog.
#[tokio::test]
async fn a_change_of_columns_within_a_transaction_is_told_where_it_was_made() {
    let Some(db) = server_by(NOTE, ChangesSource::Slot).await else { return };
    let mut log = Follower::of(&db, &["note"], Bytes::new()).await;
    run(
        &db,
        "DO $$ BEGIN INSERT INTO {s}note VALUES (1, 'a', 'b'); ALTER TABLE {s}note DROP COLUMN w;
            INSERT INTO {s}note VALUES (2, 'c'); TRUNCATE {s}note; INSERT INTO {s}note VALUES (3, 'd'); END $$",
    )
    .await;
    let mut told = Vec::new();
    loop {
        match log.next().await.unwrap() {
            Event::Transaction(transaction) => told.extend(self::told(&transaction)),
            Event::Resync(resync) => told.push(format!("{:?}", resync.reason())),
            Event::Started(_) => panic!("it has started"),
        }
        if told.last().is_some_and(|told| told.starts_with("note + {\"id\":3")) {
            break;
        }
    }
    assert!(told.iter().any(|told| told == "LogLost"), "{told:?}");
    assert_eq!(told.last().map(String::as_str), Some(r#"note + {"id":3,"v":"d"}"#));
}

#[tokio::test]
async fn tables_without_keys_and_long_values_fail_no_statement_and_are_whole() {
    let schema = "CREATE TABLE {s}keyless (v text, n int)";
    let Some(db) = server_by(schema, ChangesSource::Slot).await else { return };
    let mut log = Follower::of(&db, &["keyless"], Bytes::new()).await;
    run(&db, "INSERT INTO {s}keyless SELECT string_agg(md5(i::text), ''), 1 FROM generate_series(1, 2000) i").await;
    let inserted = log.changes().await.remove(0);
    // The long value is not sent again: it is that of the row before.
    run(&db, "UPDATE {s}keyless SET n = 2").await;
    let updated = log.changes().await.remove(0);
    let image = |n: i32| inserted.trim_start_matches("keyless + ").replace("\"n\":1", &format!("\"n\":{n}"));
    assert!(image(1).len() > 60_000);
    assert_eq!(updated, format!("keyless ~ {} {}", image(1), image(2)));
    run(&db, "DELETE FROM {s}keyless").await;
    assert_eq!(log.changes().await, [format!("keyless - {}", image(2))]);
}

#[tokio::test]
async fn a_slot_is_taken_over_and_followers_go_on_where_they_were() {
    let Some(db) = server_by(NOTE, ChangesSource::Slot).await else { return };
    let mut log = Follower::of(&db, &["note"], Bytes::new()).await;
    run(&db, "INSERT INTO {s}note VALUES (1, 'a', 'b')").await;
    log.changes().await;
    let position = log.position.clone();
    // More than a part of a message.
    run(&db, "INSERT INTO {s}note SELECT i, repeat('x', 20000), 'b' FROM generate_series(2, 600) i").await;
    let mut within = Bytes::new();
    let mut count = 0;
    while count < 599 {
        count += log.changes().await.len();
        if within.is_empty() {
            within = log.position.clone();
            assert!(count < 599, "it is told in parts");
        }
    }
    let first = count;
    // As where the process was killed: nothing is released.
    let other = same_schema_by(&db, ChangesSource::Slot).await;
    assert_eq!(slot(&db, "active").await, 1);
    drop(log);
    db.tasks.stop().cancel();
    until(
        &other,
        &format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{}' AND active", name(&other).await),
        0,
    )
    .await;
    run(&other, "DELETE FROM {s}note WHERE id = 1").await;

    let mut next = Follower::of(&other, &["note"], position).await;
    assert_eq!(next.so_many(600).await.last().map(String::as_str), Some(r#"note - {"id":1,"v":"a","w":"b"}"#));
    let mut resumed = Follower::of(&other, &["note"], within).await;
    let mut count = 0;
    loop {
        let changes = resumed.changes().await;
        count += changes.len();
        if changes.iter().any(|told| told.starts_with("note - ")) {
            break;
        }
    }
    assert!(count < first, "what was told of a transaction is not told again: {count}");
    assert!(resumed.is_idle());
}

#[tokio::test]
async fn a_slot_that_is_dropped_is_one_resync_and_all_is_exact_after_it() {
    let Some(db) = server_by(NOTE, ChangesSource::Slot).await else { return };
    let mut log = Follower::of(&db, &["note"], Bytes::new()).await;
    run(&db, "INSERT INTO {s}note VALUES (1, 'a', 'b')").await;
    log.changes().await;
    let position = log.position.clone();
    let name = name(&db).await;
    run(
        &db,
        &format!(
            "DO $$ BEGIN PERFORM pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{name}';
                FOR i IN 1..400 LOOP
                    BEGIN PERFORM pg_drop_replication_slot('{name}'); EXIT;
                    EXCEPTION WHEN object_in_use THEN
                        PERFORM pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{name}';
                        PERFORM pg_sleep(0.002);
                    END;
                END LOOP; END $$"
        ),
    )
    .await;
    let resync = log.resync().await;
    assert_eq!((resync.reason(), resync.tables), (ResyncReason::LogLost, Vec::new()));
    run(&db, "INSERT INTO {s}note VALUES (2, 'c', 'd')").await;
    assert_eq!(log.changes().await, [r#"note + {"id":2,"v":"c","w":"d"}"#]);
    assert!(log.is_idle());
    let mut old = Follower::of(&db, &["note"], position).await;
    assert_eq!(old.resync().await.reason(), ResyncReason::LogLost);
}

#[tokio::test]
async fn a_connection_that_is_killed_loses_nothing() {
    let Some(db) = server_by(NOTE, ChangesSource::Slot).await else { return };
    let mut log = Follower::of(&db, &["note"], Bytes::new()).await;
    let kill = format!(
        "DO $$ BEGIN PERFORM pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{}'; END $$",
        name(&db).await
    );
    let mut told = Vec::new();
    for id in 1..=30 {
        run(&db, &format!("INSERT INTO {{s}}note VALUES ({id}, repeat('x', 100000), 'b')")).await;
        if id % 7 == 0 {
            run(&db, &kill).await;
        }
    }
    while told.len() < 30 {
        told.extend(log.changes().await);
    }
    let ids: Vec<String> = told.iter().map(|told| told.split(',').next().unwrap().to_owned()).collect();
    let expected: Vec<String> = (1..=30).map(|id| format!("note + {{\"id\":{id}")).collect();
    assert_eq!(ids, expected);
    assert!(log.is_idle());
}

/// Each time before the server knows what has arrived, often within a transaction.
#[tokio::test]
async fn a_connection_that_is_killed_time_and_again_tells_each_row_once() {
    let Some(db) = server_by(NOTE, ChangesSource::Slot).await else { return };
    let mut log = Follower::of(&db, &["note"], Bytes::new()).await;
    let kill = format!(
        "DO $$ BEGIN PERFORM pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{}'; END $$",
        name(&db).await
    );
    let killing = async {
        for wait in (0..40).map(|round| 2 + round * 7 % 40) {
            run(&db, &kill).await;
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
    };
    let writing = async {
        for round in 0..10 {
            let (large, small) = (round * 1000, round * 1000 + 600);
            let rows = format!("generate_series({large}, {})", large + 399);
            run(&db, &format!("INSERT INTO {{s}}note SELECT i, repeat('x', 20000), 'b' FROM {rows} i")).await;
            for id in small..small + 20 {
                run(&db, &format!("INSERT INTO {{s}}note VALUES ({id}, 'a', 'b')")).await;
            }
        }
    };
    let mut ids = Vec::new();
    let reading = async {
        while ids.len() < 4200 {
            let id =
                |told: &String| told[r#"note + {"id":"#.len()..].split(',').next().unwrap().parse::<u32>().unwrap();
            ids.extend(log.changes().await.iter().map(id));
        }
    };
    tokio::join!(killing, writing, reading);
    let expected: Vec<u32> =
        (0..10).flat_map(|round| (0..400).chain(600..620).map(move |id| round * 1000 + id)).collect();
    assert!(ids == expected, "{} rows, not each once and in order", ids.len());
    run(&db, "DELETE FROM {s}note WHERE id = 0").await;
    assert!(log.changes().await[0].starts_with("note - "));
}

#[tokio::test]
async fn who_left_before_a_resync_is_told_of_it_where_it_comes_back() {
    let Some(db) = server_by(NOTE, ChangesSource::Slot).await else { return };
    let mut log = Follower::of(&db, &["note"], Bytes::new()).await;
    run(&db, "DO $$ BEGIN INSERT INTO {s}note VALUES (1, 'a', 'b'); TRUNCATE {s}note; END $$").await;
    assert_eq!(log.changes().await.len(), 1);
    let before = log.position.clone();
    assert_eq!(log.resync().await.reason(), ResyncReason::Truncate);
    let mut again = Follower::of(&db, &["note"], before).await;
    again.resync().await;
    run(&db, "INSERT INTO {s}note VALUES (2, 'c', 'd')").await;
    for log in [&mut log, &mut again] {
        assert_eq!(log.changes().await, [r#"note + {"id":2,"v":"c","w":"d"}"#]);
    }
    // Whom it was told of goes on.
    let mut after = Follower::of(&db, &["note"], log.position.clone()).await;
    assert!(after.missed.is_none() && after.is_idle());
}

#[tokio::test]
async fn a_follower_that_comes_late_to_a_slot_that_was_taken_over_goes_on_too() {
    let Some(db) = server_by(NOTE, ChangesSource::Slot).await else { return };
    let mut notes = Follower::of(&db, &["note"], Bytes::new()).await;
    let artists = Follower::of(&db, &["artist"], Bytes::new()).await;
    run(&db, "INSERT INTO {s}note VALUES (1, 'a', 'b')").await;
    notes.changes().await;
    let (note, artist) = (notes.position.clone(), artists.position.clone());
    let other = same_schema_by(&db, ChangesSource::Slot).await;
    drop((notes, artists));
    db.tasks.stop().cancel();
    let active =
        format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{}' AND active", name(&other).await);
    until(&other, &active, 0).await;
    let mut notes = Follower::of(&other, &["note"], note).await;
    run(&other, "INSERT INTO {s}note VALUES (2, 'c', 'd')").await;
    assert_eq!(notes.changes().await, [r#"note + {"id":2,"v":"c","w":"d"}"#]);
    // What others were told meanwhile does not concern it.
    let mut artists = Follower::of(&other, &["artist"], artist).await;
    assert_eq!(artists.missed, None);
    run(&other, "INSERT INTO {s}artist VALUES (102, 'x')").await;
    assert_eq!(artists.changes().await, [r#"artist + {"artist_id":102,"name":"x"}"#]);
}

#[tokio::test]
async fn a_slot_that_another_process_reads_leaves_the_triggers() {
    let Some(db) = server_by(NOTE, ChangesSource::Slot).await else { return };
    let mut log = Follower::of(&db, &["note"], Bytes::new()).await;
    let auto = same_schema_by(&db, ChangesSource::Auto).await;
    let mut other = Follower::of(&auto, &["note"], Bytes::new()).await;
    run(&db, "INSERT INTO {s}note VALUES (1, 'a', 'b')").await;
    assert_eq!(log.changes().await, other.changes().await);
    // A read of either is placed in the log of either by what it saw.
    let (_, snapshot, _) = read_at(&auto, "note").await;
    run(&db, "INSERT INTO {s}note VALUES (2, 'c', 'd')").await;
    let Event::Transaction(transaction) = log.next().await.unwrap() else { panic!("changes") };
    assert!(!snapshot.sees(transaction.id));
    assert_eq!(other.changes().await, told(&transaction));
}

#[tokio::test]
async fn a_slot_that_another_process_lets_go_of_is_read() {
    let Some(db) = server_by(NOTE, ChangesSource::Slot).await else { return };
    let log = Follower::of(&db, &["note"], Bytes::new()).await;
    let auto = same_schema_by(&db, ChangesSource::Auto).await;
    let mut following = Box::pin(Follower::of(&auto, &["note"], Bytes::new()));
    let waited = tokio::time::timeout(Duration::from_millis(500), &mut following).await;
    assert!(waited.is_err(), "it does not fall back to triggers at once");
    drop(log);
    db.tasks.stop().cancel();
    let mut log = following.await;
    assert_eq!(slot(&auto, "active").await, 1);
    run(&auto, "INSERT INTO {s}note VALUES (1, 'a', 'b')").await;
    assert_eq!(log.changes().await.len(), 1);
}

#[tokio::test]
async fn a_table_that_a_slot_does_not_tell_whole_is_told_by_triggers() {
    let schema = "CREATE TABLE {s}note (id int PRIMARY KEY, v text);
        CREATE TABLE {s}sums (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED)";
    let Some(db) = server_by(schema, ChangesSource::Auto).await else { return };
    let mut log = Follower::of(&db, &["note"], Bytes::new()).await;
    assert_eq!(slot(&db, "active").await, 1);
    let mut sums = Follower::of(&db, &["sums"], Bytes::new()).await;
    assert_eq!(log.resync().await.reason(), ResyncReason::LogLost);
    run(&db, "INSERT INTO {s}sums (id) VALUES (4)").await;
    loop {
        match sums.next().await.unwrap() {
            Event::Transaction(transaction) => {
                assert_eq!(told(&transaction), [r#"sums + {"id":4,"twice":8}"#]);
                break;
            }
            Event::Resync(resync) => assert_eq!(resync.reason(), ResyncReason::LogLost),
            Event::Started(_) => panic!("it has started"),
        }
    }
    run(&db, "INSERT INTO {s}note VALUES (1, 'a')").await;
    assert_eq!(log.changes().await, [r#"note + {"id":1,"v":"a"}"#]);
    assert_eq!(slot(&db, "true").await, 0);
    let by_slot = same_schema_by(&db, ChangesSource::Slot).await;
    let refused = Follower::not_started(&by_slot, &["sums"], Bytes::new()).next().await.unwrap_err().to_string();
    assert!(refused.contains("column twice is generated"), "{refused}");
}
