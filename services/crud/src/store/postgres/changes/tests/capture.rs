//! Which changes are captured, of which tables, and who is told.

use super::*;

#[tokio::test]
async fn every_way_to_change_rows_is_captured() {
    let Some(server) = Server::with("ways", MUSIC).await else { return };
    let store = server.store();
    server.role("changes_writer").await;
    let mut position = captured(&store, &["album", "it's", "part", "parent", "own"]).await;
    for (sql, expected) in [
        ("SELECT 1", &[][..]),
        ("INSERT INTO album VALUES (3, 'c')", &["album"]),
        ("INSERT INTO album VALUES (3, 'x') ON CONFLICT (id) DO UPDATE SET title = 'd'", &["album"]),
        ("UPDATE album SET id = 4 WHERE id = 3", &["album"]),
        ("BEGIN; UPDATE album SET title = 'x'; ROLLBACK", &[]),
        (
            "BEGIN; SAVEPOINT a; UPDATE album SET title = 'x'; ROLLBACK TO a; DELETE FROM parent; INSERT INTO parent VALUES (1); COMMIT",
            &["parent"],
        ),
        (
            "BEGIN; SAVEPOINT a; UPDATE album SET title = 'x'; ROLLBACK TO a; UPDATE album SET title = 'y'; COMMIT",
            &["album"],
        ),
        ("DELETE FROM album WHERE id = 1", &["album", "it's"]),
        ("DO $$ BEGIN INSERT INTO album VALUES (9, 'z'); RAISE 'x'; EXCEPTION WHEN OTHERS THEN NULL; END $$", &[]),
        ("INSERT INTO part VALUES (1, 1), (2, 11)", &["part"]),
        ("UPDATE part SET year = 12 WHERE id = 1", &["part"]),
        ("INSERT INTO part_2_1 VALUES (3, 13)", &["part"]),
        ("DELETE FROM part_2", &["part"]),
        ("INSERT INTO child VALUES (1, 2)", &["parent"]),
        ("UPDATE parent SET id = 5", &["parent"]),
        ("INSERT INTO own VALUES (1, 2)", &["own"]),
        ("UPDATE above SET id = 5", &["own"]),
        (
            "SET session_replication_role TO replica; UPDATE album SET title = 'r'; RESET session_replication_role",
            &["album"],
        ),
        (
            "SET session_replication_role TO replica; INSERT INTO part_1 VALUES (1, 1); RESET session_replication_role",
            &["part"],
        ),
        ("SET ROLE changes_writer; UPDATE album SET title = 'w'; RESET ROLE", &["album"]),
        ("BEGIN ISOLATION LEVEL SERIALIZABLE; UPDATE album SET title = 's'; COMMIT", &["album"]),
        (
            "BEGIN ISOLATION LEVEL REPEATABLE READ; UPDATE album SET title = 's'; UPDATE album SET title = 't'; COMMIT",
            &["album"],
        ),
        ("COPY (SELECT 1) TO STDOUT", &[]),
        ("BEGIN READ ONLY; SELECT * FROM album; COMMIT", &[]),
        ("TRUNCATE parent", &["any"]),
    ] {
        match sql.starts_with("COPY") {
            true => drop(server.client.copy_out(sql).await.unwrap()),
            false => server.execute(sql).await,
        }
        assert_eq!(changed(&store, &mut position).await, expected, "{sql}");
    }
}

/// Mutants of the reader are asked beside it: a cut by the greatest id that was seen, and one by the oldest in progress.
#[tokio::test]
async fn a_transaction_is_seen_when_it_is_committed_and_not_before() {
    let Some(server) = Server::with("visibility", MUSIC).await else { return };
    let store = server.store();
    let mut position = captured(&store, &["album", "parent"]).await;
    let (long, short) = (server.other().await, server.other().await);
    let by_greatest = async |after: i64| -> i64 {
        let log = "SELECT count(*) FROM perigee_changes.log WHERE xid::text::bigint > ";
        server.count(&format!("{log} {after}")).await
    };
    let before_oldest = "SELECT count(*) FROM perigee_changes.log WHERE xid < pg_snapshot_xmin(pg_current_snapshot())";

    long.batch_execute("BEGIN; SAVEPOINT a; INSERT INTO album VALUES (7, 'g'); SAVEPOINT b").await.unwrap();
    short.batch_execute("INSERT INTO parent VALUES (1)").await.unwrap();
    assert_eq!(server.count(before_oldest).await, 0, "a cut by the oldest in progress waits");
    assert_eq!(changed(&store, &mut position).await, ["parent"]);
    assert_eq!(changed(&store, &mut position).await, Vec::<String>::new(), "it is told once");
    let greatest = server.count("SELECT max(xid::text::bigint) FROM perigee_changes.log").await;

    short.batch_execute("UPDATE album SET title = 'x'").await.unwrap();
    assert_eq!(changed(&store, &mut position).await, ["album"]);
    let greatest = greatest.max(server.count("SELECT max(xid::text::bigint) FROM perigee_changes.log").await);
    long.batch_execute("COMMIT").await.unwrap();
    assert_eq!(by_greatest(greatest).await, 0, "a cut by the greatest id misses it");
    assert_eq!(changed(&store, &mut position).await, ["album"]);
    assert_eq!(changed(&store, &mut position).await, Vec::<String>::new());

    if server.count("SELECT current_setting('max_prepared_transactions')::bigint").await > 0 {
        long.batch_execute("BEGIN; DELETE FROM parent; PREPARE TRANSACTION 'held'").await.unwrap();
        short.batch_execute("UPDATE album SET title = 'y'").await.unwrap();
        assert_eq!(changed(&store, &mut position).await, ["album"]);
        long.batch_execute("COMMIT PREPARED 'held'").await.unwrap();
        assert_eq!(changed(&store, &mut position).await, ["parent"]);
    }
}

#[tokio::test]
async fn a_statement_has_the_same_results_with_triggers() {
    let Some(server) = Server::with("results", MUSIC).await else { return };
    let _ = captured(&server.store(), &["it's", "part"]).await;

    assert_eq!(server.client.execute("INSERT INTO \"it's\" (album) VALUES (1), (2)", &[]).await.unwrap(), 2);
    assert_eq!(server.count("SELECT lastval()").await, 3);
    assert_eq!(server.client.execute("UPDATE \"it's\" SET album = 2", &[]).await.unwrap(), 3);
    assert_eq!(
        server.client.execute("INSERT INTO part SELECT 1, n FROM generate_series(0, 19) n", &[]).await.unwrap(),
        20
    );
}

#[tokio::test]
async fn only_tables_whose_changes_can_be_seen_are_captured() {
    let Some(server) = Server::with("kinds", MUSIC).await else { return };
    let store = server.store();
    for (table, found) in [
        ("titles", "a view"),
        ("kept", "a materialized view"),
        ("fleeting", "an unlogged table"),
        ("lost", "nothing of that name"),
    ] {
        let error = refusal(&store, table).await;
        assert_eq!(error, format!("changes of {table} cannot be followed: expected a table, found {found}"));
    }
    server.execute("CREATE UNLOGGED TABLE below () INHERITS (parent)").await;
    let error = refusal(&store, "parent").await;
    let below = "expected a table, found an unlogged table, music.below, below it";
    assert_eq!(error, format!("changes of parent cannot be followed: {below}"));
    assert_eq!(server.ours().await, 0);
}

#[tokio::test]
async fn a_missing_right_is_named() {
    let Some(server) = Server::with("rights", MUSIC).await else { return };
    let store = server.store_of("changes_app").await;
    let mine = "CREATE TABLE mine (id int); ALTER TABLE mine OWNER TO changes_app";
    server.execute(mine).await;
    assert_eq!(
        refusal(&store, "album").await,
        "changes of album cannot be followed: role changes_app must own music.album to make triggers, its owner is postgres"
    );
    assert_eq!(
        refusal(&store, "mine").await,
        "changes of mine cannot be followed: role changes_app needs the right CREATE on database changes_rights, \
         or a schema perigee_changes of its own"
    );
    server.execute("CREATE SCHEMA perigee_changes").await;
    assert_eq!(
        refusal(&store, "mine").await,
        "changes of mine cannot be followed: role changes_app must own schema perigee_changes, its owner is postgres"
    );
    server.execute("ALTER SCHEMA perigee_changes OWNER TO changes_app").await;
    let mut position = captured(&store, &["mine"]).await;
    server.execute("INSERT INTO mine VALUES (1)").await;
    assert_eq!(changed(&store, &mut position).await, ["mine"]);
    store.release(&mut position, &[]).await.unwrap();
    assert_eq!(server.ours().await, 1, "a schema that we could not make again stays");

    server.execute("DROP SCHEMA perigee_changes; GRANT CREATE ON DATABASE changes_rights TO changes_app").await;
    let mut position = captured(&store, &["mine"]).await;
    store.release(&mut position, &[]).await.unwrap();
    assert_eq!(server.ours().await, 0);
}

/// After an error each table is captured anew, by who listens to it then.
#[tokio::test]
async fn a_table_that_nobody_listens_to_after_an_error_is_forgotten() {
    let Some(server) = Server::with("forgotten", MUSIC).await else { return };
    server.execute("ALTER DATABASE changes_forgotten SET statement_timeout TO '1s'").await;
    let store = server.store();
    let mut position = captured(&store, &["album", "parent"]).await;
    let other = server.other().await;
    other.batch_execute("BEGIN; LOCK TABLE perigee_changes.log").await.unwrap();
    assert!(store.changes_since(&mut position).await.is_err());
    other.batch_execute("COMMIT").await.unwrap();

    server.execute("DROP TABLE parent CASCADE").await;
    store.capture(&mut position, "album").await.unwrap();
    assert_eq!(changed(&store, &mut position).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_trigger_that_is_lost_before_the_first_look_is_made_anew() {
    let Some(server) = Server::with("window", MUSIC).await else { return };
    let store = server.store();
    store.make_triggers("part", TriggerKind::Note).await.unwrap();
    assert!(store.baseline("part").await.unwrap().is_some());
    for sql in [
        "ALTER TABLE part_1 DISABLE TRIGGER ALL",
        "CREATE TABLE part_0 (id int, year int); ALTER TABLE part ATTACH PARTITION part_0 FOR VALUES FROM (-9) TO (0);
         ALTER TABLE part_0 DISABLE TRIGGER ALL",
        "DROP SCHEMA perigee_changes CASCADE",
        "TRUNCATE perigee_changes.state",
    ] {
        server.execute(sql).await;
        assert!(store.baseline("part").await.unwrap().is_none(), "{sql}");
        let mut position = captured(&store, &["part"]).await;
        server.execute("INSERT INTO part VALUES (1, 1)").await;
        assert_eq!(changed(&store, &mut position).await, ["part"], "{sql}");
    }
}

#[tokio::test]
async fn defaults_of_a_role_are_not_in_the_way() {
    let Some(server) = Server::with("defaults", MUSIC).await else { return };
    server
        .execute(
            "CREATE ACCESS METHOD rows TYPE TABLE HANDLER heap_tableam_handler;
             ALTER DATABASE changes_defaults SET default_table_access_method TO rows;
             ALTER DATABASE changes_defaults SET default_transaction_read_only TO on;
             ALTER DATABASE changes_defaults SET default_transaction_deferrable TO on;
             ALTER DATABASE changes_defaults SET search_path TO none",
        )
        .await;
    let store = server.store();
    let mut position = captured(&store, &["album"]).await;
    server.execute("UPDATE album SET title = 'x'").await;
    assert_eq!(changed(&store, &mut position).await, ["album"]);
    let heaps = "SELECT count(*) FROM pg_class c JOIN pg_am m ON m.oid = c.relam \
                 WHERE c.relnamespace = 'perigee_changes'::regnamespace AND c.relkind = 'r' AND m.amname = 'heap'";
    assert_eq!(server.count(heaps).await, 3, "nothing that is of rows, which others may not read");
    store.make_triggers("album", TriggerKind::Image).await.unwrap();
    assert_eq!(server.count(heaps).await, 5);
    store.release_images(&mut super::super::images::ImageReader::default(), &[]).await.unwrap();
    store.prune(&position.last.clone().unwrap().snapshot, &ServerSnapshot::default()).await.unwrap();
    store.release(&mut position, &[]).await.unwrap();
    assert_eq!(server.ours().await, 0);
}

#[tokio::test]
async fn looks_become_rare_while_nothing_changes() {
    let Some(server) = Server::with("pause", MUSIC).await else { return };
    let store = server.store();
    let mut position = captured(&store, &["album"]).await;
    for _ in 0..10 {
        store.changes_since(&mut position).await.unwrap();
    }
    assert_eq!(position.pause, POLL_INTERVAL_MAX);
    server.execute("UPDATE album SET title = 'x'").await;
    assert_eq!(changed(&store, &mut position).await, ["album"]);
    assert_eq!(position.pause, POLL_INTERVAL_MIN);
}

#[tokio::test]
async fn own_commits_are_waited_for() {
    let Some(server) = Server::with("own", MUSIC).await else { return };
    let store = server.store();
    let position = Position { pause: Duration::from_secs(3600), ..Position::default() };
    let statement = |text: &str| crate::store::Statement {
        text: text.into(),
        args: Vec::new(),
        columns: [].into(),
        sources: Vec::new(),
        plain: None,
    };
    store.write(&statement("DELETE FROM parent")).await.unwrap();
    store.commit_after(&position).await;
    let mut tx = store.begin().await.unwrap();
    tx.run(&[statement("DELETE FROM parent")], &crate::budget::Budget::unlimited()).await.unwrap();
    tx.commit().await.unwrap();
    store.commit_after(&position).await;
}
