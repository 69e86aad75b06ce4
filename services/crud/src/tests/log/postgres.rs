//! What only a server can bring.

use query::resources::ChangesSource;

use super::*;

async fn server(schema: &str) -> Option<Db> {
    server_by(schema, ChangesSource::Triggers).await
}

/// A database with these tables besides, whose log is read from a source.
pub async fn server_by(schema: &str, source: ChangesSource) -> Option<Db> {
    let db = crate::tests::stored::postgres::postgres_by(source).await?;
    for sql in schema.split(';').map(str::trim).filter(|sql| !sql.is_empty()) {
        db.execute(&sql.replace("{s}", &db.prefix())).await;
    }
    assert!(db.database.refresh().await.unwrap());
    Some(db)
}

/// The database as one node has it, and as a node of a mesh does.
async fn servers(schema: &str) -> Vec<Db> {
    let Some(db) = server(schema).await else { return Vec::new() };
    let mut all = vec![db];
    // A schema of its own: what one test leaves is not there for the other.
    if let Some(other) = server(schema).await {
        all.extend(over_nats(&other, ChangesSource::Triggers).await);
    }
    all
}

pub async fn run(db: &Db, sql: &str) {
    db.execute(&sql.replace("{s}", &db.prefix())).await;
}

#[tokio::test]
async fn partitions_and_tables_below_are_told_as_the_table_that_is_followed() {
    let schema = "CREATE TABLE {s}part_y (v text, year int, id int) PARTITION BY RANGE (year);
        CREATE TABLE {s}part_1 (id int, year int, v text);
        ALTER TABLE {s}part_y ATTACH PARTITION {s}part_1 FOR VALUES FROM (0) TO (10);
        CREATE TABLE {s}part_2 PARTITION OF {s}part_y FOR VALUES FROM (10) TO (20);
        CREATE TABLE {s}above (id int); CREATE TABLE {s}below (more int) INHERITS ({s}above)";
    for db in servers(schema).await {
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
    }
}

#[tokio::test]
async fn truncate_and_changes_of_columns_are_resyncs() {
    for db in servers("CREATE TABLE {s}note (id int PRIMARY KEY, v text, w text)").await {
        let mut log = Follower::of(&db, &["note", "artist"], Bytes::new()).await;
        run(&db, "INSERT INTO {s}note VALUES (1, 'a', 'b')").await;
        log.changes().await;
        for (sql, reason) in [
            ("TRUNCATE {s}note", ResyncReason::Truncate),
            ("ALTER TABLE {s}note ADD COLUMN x int DEFAULT 5", ResyncReason::LogLost),
            ("ALTER TABLE {s}note DROP COLUMN w", ResyncReason::LogLost),
            ("ALTER TABLE {s}note RENAME COLUMN v TO u", ResyncReason::LogLost),
            ("ALTER TABLE {s}note DISABLE TRIGGER USER", ResyncReason::LogLost),
        ] {
            run(&db, sql).await;
            let resync = log.resync().await;
            assert_eq!((resync.reason(), resync.tables.as_slice()), (reason, &["note".to_owned()][..]), "{sql}");
            run(&db, "INSERT INTO {s}note (id) VALUES (7)").await;
            assert_eq!(log.changes().await.len(), 1, "{sql}");
            run(&db, "DELETE FROM {s}note").await;
            while !log.changes().await.iter().any(|told| told.starts_with("note - {\"id\":7")) {}
        }
        run(&db, "DROP TABLE {s}note").await;
        assert!(log.next().await.is_err());
    }
}

#[tokio::test]
async fn what_is_large_or_strange_fails_no_statement() {
    let schema = "CREATE TABLE {s}strange (\"new\" int PRIMARY KEY, \"old\" json, \"a \"\"b\" text, \"is_read\" bytea, \"kind\" int)";
    for db in servers(schema).await {
        let mut log = Follower::of(&db, &["strange"], Bytes::new()).await;
        run(&db, r#"INSERT INTO {s}strange VALUES (1, '{"a" : "\u0000", "a":1}', 'x', '\x00', 1)"#).await;
        assert_eq!(
            log.changes().await,
            [r#"strange + {"new":1,"old":{"a" : "\u0000", "a":1},"a \"b":"x","is_read":"AA==","kind":1}"#]
        );
        run(&db, "UPDATE {s}strange SET \"a \"\"b\" = repeat(md5('x'), 60000)").await;
        assert!(log.changes().await[0].len() > 1_900_000);
        // More than one message carries.
        run(&db, "UPDATE {s}strange SET \"a \"\"b\" = repeat('x', 70000000)").await;
        assert_eq!(log.resync().await.reason(), ResyncReason::LogLost);
        run(&db, "UPDATE {s}strange SET \"a \"\"b\" = 'x'").await;
        assert_eq!(log.resync().await.reason(), ResyncReason::LogLost);
        run(&db, "ALTER TABLE {s}strange ENABLE ROW LEVEL SECURITY").await;
        run(&db, "ALTER TABLE {s}strange FORCE ROW LEVEL SECURITY").await;
        run(&db, "DELETE FROM {s}strange").await;
        assert!(log.changes().await[0].starts_with("strange - "));
        run(&db, "TRUNCATE {s}strange").await;
        assert_eq!(log.resync().await.reason(), ResyncReason::Truncate);
    }
}

#[tokio::test]
async fn a_log_is_resumed_by_another_process() {
    for db in servers("CREATE TABLE {s}note (id int PRIMARY KEY, v text)").await {
        let mut log = Follower::of(&db, &["note"], Bytes::new()).await;
        run(&db, "INSERT INTO {s}note VALUES (1, 'a')").await;
        run(&db, "INSERT INTO {s}note SELECT i, repeat('x', 20000) FROM generate_series(2, 600) i").await;
        log.changes().await;
        let after = crate::tests::support::same_schema(&db).await;
        // A large transaction is told in parts, and resumed within.
        let mut told = 0;
        let mut next = Follower::of(&after, &["note"], log.position.clone()).await;
        while told < 599 {
            let changes = next.changes().await;
            assert_eq!(changes, log.changes().await);
            told += changes.len();
            let position = next.position.clone();
            next = Follower::of(&after, &["note"], position).await;
        }
        assert!(next.is_idle());
        run(&db, "DELETE FROM {s}note WHERE id = 1").await;
        assert_eq!(next.changes().await, log.changes().await);
    }
}

#[tokio::test]
async fn a_cast_of_the_owner_of_a_table_does_not_run_with_our_rights() {
    let Some(db) = server("CREATE TABLE {s}note (id int PRIMARY KEY, v text)").await else { return };
    let mut log = Follower::of(&db, &["note"], Bytes::new()).await;
    let raise = "CREATE FUNCTION {s}text_of({s}note) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'it ran'; END $$";
    for sql in [raise, "CREATE CAST ({s}note AS text) WITH FUNCTION {s}text_of({s}note) AS IMPLICIT"] {
        run(&db, sql).await;
    }
    run(&db, "INSERT INTO {s}note VALUES (1, 'a')").await;
    run(&db, "UPDATE {s}note SET v = repeat(md5('x'), 60000)").await;
    run(&db, "DELETE FROM {s}note").await;
    assert_eq!(log.changes().await, [r#"note + {"id":1,"v":"a"}"#]);
    assert!(log.changes().await[0].starts_with("note ~ "));
    assert!(log.changes().await[0].starts_with("note - "));
}

#[tokio::test]
async fn rows_are_logged_only_while_the_images_of_their_schema_are_read() {
    let Some(db) = server("CREATE TABLE {s}note (id int PRIMARY KEY, v text)").await else { return };
    let mut log = Follower::of(&db, &["note"], Bytes::new()).await;
    let seen = "UPDATE perigee_changes.readers SET seen = now() - interval '{age}' WHERE schema = '!' || (
        SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE c.oid = '{s}note'::regclass)";
    run(&db, &seen.replace("{age}", "11 minutes")).await;
    // Reading what has no images is not that.
    run(&db, "INSERT INTO {s}note SELECT i, 'a' FROM generate_series(1, 1000) i").await;
    let resync = log.resync().await;
    assert_eq!((resync.reason(), resync.tables), (ResyncReason::LogLost, vec!["note".to_owned()]));
    let entries = "SELECT count(*) FROM perigee_changes.images WHERE tbl = '{s}note'::regclass";
    assert_eq!(db.count(&entries.replace("{s}", &db.prefix())).await, 1);
    run(&db, &seen.replace("{age}", "1 minute")).await;
    run(&db, "DELETE FROM {s}note WHERE id = 1").await;
    assert_eq!(log.changes().await, [r#"note - {"id":1,"v":"a"}"#]);
}
