//! What is removed from the database, and who learns that something is missing.

use super::*;

#[tokio::test]
async fn what_is_released_leaves_nothing_and_spares_what_others_need() {
    let Some(server) = Server::with("released", MUSIC).await else { return };
    server.execute("CREATE SCHEMA film; CREATE TABLE film.title (id int)").await;
    let store = server.store();
    let film = Postgres::open("shop", &server.url, "film", 4, &Tasks::default()).unwrap();
    let mut position = captured(&store, &["album", "it's", "part", "parent"]).await;
    let mut of_film = captured(&film, &["title"]).await;

    store.release(&mut position, &["album".to_owned()]).await.unwrap();
    assert_eq!(changed(&store, &mut position).await, Vec::<String>::new());
    server
        .execute("UPDATE album SET title = 'x'; INSERT INTO parent VALUES (1); INSERT INTO film.title VALUES (1)")
        .await;
    assert_eq!(changed(&store, &mut position).await, ["album"]);
    assert_eq!(changed(&film, &mut of_film).await, ["title"]);
    store.release(&mut position, &[]).await.unwrap();
    assert_eq!(server.ours().await, 3, "schema, function and the trigger of the other");
    server
        .execute("UPDATE album SET title = 'x'; INSERT INTO part VALUES (1, 1); INSERT INTO film.title VALUES (1)")
        .await;
    film.release(&mut of_film, &[]).await.unwrap();
    assert_eq!(server.ours().await, 0);
    server.execute("UPDATE album SET title = 'x'; INSERT INTO film.title VALUES (1)").await;
    film.release(&mut of_film, &[]).await.unwrap();
}

#[tokio::test]
async fn what_a_process_left_is_taken_over_and_two_share_a_database() {
    let Some(server) = Server::with("shared", MUSIC).await else { return };
    let (one, other) = (server.store(), server.store());
    let mut position = captured(&one, &["album", "part"]).await;
    let made = server.ours().await;
    let mut of_other = captured(&other, &["album", "part"]).await;
    assert_eq!(server.ours().await, made);
    server.execute("UPDATE album SET title = 'x'").await;
    assert_eq!(changed(&one, &mut position).await, ["album"]);
    assert_eq!(changed(&other, &mut of_other).await, ["album"]);

    // One that does not know of the other removes what that needs, which is noticed.
    one.release(&mut position, &[]).await.unwrap();
    assert_eq!(server.ours().await, 0);
    server.execute("INSERT INTO part VALUES (1, 1)").await;
    assert_eq!(changed(&other, &mut of_other).await, ["any"]);
    for table in ["album", "part"] {
        other.capture(&mut of_other, table).await.unwrap();
    }
    server.execute("INSERT INTO part VALUES (1, 1)").await;
    assert_eq!(changed(&other, &mut of_other).await, ["part"]);
    // A new process, which captures nothing.
    server.store().release(&mut Position::default(), &[]).await.unwrap();
    assert_eq!(server.ours().await, 0);
}

#[tokio::test]
async fn what_may_have_lost_entries_is_noticed() {
    let Some(server) = Server::with("lost", MUSIC).await else { return };
    let store = server.store();
    let mut position = captured(&store, &["album"]).await;
    for sql in [
        // A crash of the server empties what is unlogged.
        "TRUNCATE perigee_changes.log, perigee_changes.state",
        "DROP SCHEMA perigee_changes CASCADE",
        "DROP TRIGGER \"perigee_changes_' || oid || '\" ON album",
        // As after a restore from a server that is further.
        "UPDATE perigee_changes.state SET pruned = '{later}:{later}:'",
        "INSERT INTO perigee_changes.log VALUES ('{later}', 1)",
    ] {
        let oid = server.count("SELECT 'album'::regclass::oid::bigint").await.to_string();
        let later = server.count("SELECT pg_current_xact_id()::text::bigint + 100000").await.to_string();
        server.execute(&sql.replace("' || oid || '", &oid).replace("{later}", &later)).await;
        if !sql.starts_with("INSERT") {
            assert_eq!(changed(&store, &mut position).await, ["any"], "{sql}");
        }
        store.capture(&mut position, "album").await.unwrap();
        changed(&store, &mut position).await;
        server.execute("UPDATE album SET title = 'x'").await;
        let found = changed(&store, &mut position).await;
        assert!(found == ["album"] || found == ["any"], "{sql}: {found:?}");
        store.capture(&mut position, "album").await.unwrap();
        server.execute("UPDATE album SET title = 'x'").await;
        assert_eq!(changed(&store, &mut position).await, ["album"], "{sql}");
    }
}

#[tokio::test]
async fn the_log_is_pruned_and_who_missed_entries_learns_it() {
    let Some(server) = Server::with("pruned", MUSIC).await else { return };
    let store = server.store();
    let mut position = captured(&store, &["album"]).await;
    let mut late = Position { last: position.last.clone(), tables: position.tables.clone(), ..Position::default() };
    let long = server.other().await;
    let entries = "SELECT count(*) FROM perigee_changes.log";
    long.batch_execute("BEGIN; UPDATE album SET by = 1 WHERE id = 1").await.unwrap();
    server.execute("UPDATE album SET title = 'x' WHERE id = 2").await;
    assert_eq!(changed(&store, &mut position).await, ["album"]);
    let limit = position.last.clone().unwrap().snapshot;
    long.batch_execute("COMMIT").await.unwrap();
    assert_eq!(server.count(entries).await, 2);

    store.prune(&limit, &ServerSnapshot::default()).await.unwrap();
    assert_eq!(server.count(entries).await, 1, "what the limit does not see stays");
    assert_eq!(changed(&store, &mut position).await, ["album"]);
    assert_eq!(changed(&store, &mut late).await, ["any"]);
    // Another process prunes now.
    let turn = server.other().await;
    turn.batch_execute("BEGIN; SELECT pg_advisory_xact_lock(8099000146718220900)").await.unwrap();
    store.prune(&position.last.clone().unwrap().snapshot, &ServerSnapshot::default()).await.unwrap();
    assert_eq!(server.count(entries).await, 1);
    turn.batch_execute("COMMIT").await.unwrap();
    // Never back.
    store.prune(&ServerSnapshot::default(), &ServerSnapshot::default()).await.unwrap();
    let pruned = format!("SELECT count(*) FROM perigee_changes.state WHERE pruned = '{limit}'");
    assert_eq!(server.count(&pruned).await, 1);
}

/// A process was killed that left many entries.
#[tokio::test]
async fn a_long_log_is_pruned_in_batches_and_not_read_by_a_capture() {
    let Some(server) = Server::with("batches", MUSIC).await else { return };
    let store = server.store();
    let mut position = captured(&store, &["album"]).await;
    let entries = "SELECT count(*) FROM perigee_changes.log";
    let fill = "INSERT INTO perigee_changes.log SELECT n::text::xid8, 'album'::regclass FROM generate_series(1, 600) n, \
                LATERAL (SELECT 1) one; INSERT INTO perigee_changes.log SELECT '700', n FROM generate_series(1, 120000) n";
    server.execute(fill).await;
    let limit = ServerSnapshot { end: 701, running: vec![5] };

    let found = store.baseline("album").await.unwrap().unwrap();
    assert_eq!(found.relations, Vec::<u32>::new());
    assert_eq!(store.prune_batch(&limit, "0").await.unwrap(), Some("700".to_owned()));
    assert_eq!(server.count(entries).await, 70_600);
    // Capture goes on beside it.
    let pruning = server.other().await;
    pruning.batch_execute("BEGIN; SELECT pg_advisory_xact_lock(8099000146718220900)").await.unwrap();
    store.capture(&mut position, "parent").await.unwrap();
    pruning.batch_execute("COMMIT").await.unwrap();
    store.prune(&limit, &ServerSnapshot::default()).await.unwrap();
    assert_eq!(server.count(entries).await, 1, "what the limit does not see stays");
}

/// While a transaction of another goes on for long, what was removed is still in the index.
#[tokio::test]
async fn what_was_pruned_is_not_looked_through_again() {
    let Some(server) = Server::with("again", MUSIC).await else { return };
    let store = server.store();
    let _ = captured(&store, &["album"]).await;
    let entries = "SELECT string_agg(xid::text, ' ' ORDER BY xid) FROM perigee_changes.log";
    let entries = async || -> String { server.client.query_one(entries, &[]).await.unwrap().get(0) };
    server.execute("INSERT INTO perigee_changes.log SELECT x::text::xid8, 1 FROM unnest('{5,7,12,13}'::int[]) x").await;
    let first = ServerSnapshot { end: 10, running: vec![7] };
    store.prune(&first, &ServerSnapshot::default()).await.unwrap();
    assert_eq!(entries().await, "7 12 13");

    server.execute("INSERT INTO perigee_changes.log VALUES ('5', 1)").await;
    let second = ServerSnapshot { end: 20, running: vec![13] };
    store.prune(&second, &first).await.unwrap();
    assert_eq!(entries().await, "5 13");
    // The log was made anew.
    server.execute("UPDATE perigee_changes.state SET pruned = NULL").await;
    store.prune(&second, &first).await.unwrap();
    assert_eq!(entries().await, "13");
}

/// What is found is told at once: the log is pruned beside it.
#[tokio::test]
async fn limits_are_pruned_as_they_come() {
    let Some(server) = Server::with("limits", MUSIC).await else { return };
    let store = server.store();
    let mut position = captured(&store, &["album"]).await;
    server.execute("UPDATE album SET title = 'x'").await;
    assert_eq!(changed(&store, &mut position).await, ["album"]);
    let snapshot = position.last.clone().unwrap().snapshot;
    position.history.0 = [(Instant::now().checked_sub(2 * history::PRUNE_AGE).unwrap(), snapshot)].into();
    let pruning = store.pruning(&position);
    let turn = server.other().await;
    turn.batch_execute("BEGIN; LOCK TABLE perigee_changes.log IN SHARE MODE").await.unwrap();

    assert_eq!(changed(&store, &mut position).await, Vec::<String>::new());
    turn.batch_execute("COMMIT").await.unwrap();
    drop(position);
    pruning.await;
    assert_eq!(server.count("SELECT count(*) FROM perigee_changes.log").await, 0);
}

#[test]
fn entries_stay_for_a_while() {
    let mut position = Position::default();
    let start = Instant::now();
    let at = |second: u64| ServerSnapshot { end: second, running: Vec::new() };
    let mut limits = Vec::new();
    for second in 0..100 {
        limits.extend(
            position.history.limit(start + Duration::from_secs(second), &at(second)).map(|limit| (second, limit.end)),
        );
    }
    assert_eq!(limits, [(60, 0), (70, 10), (80, 20), (90, 30)]);
    assert!(position.history.0.len() < 10);
}

/// A crash empties the log, and not what was prepared before it.
#[test]
fn the_end_of_a_transaction_that_was_prepared_before_a_crash_is_noticed() {
    let look = |prepared: &[&str]| LastLook {
        snapshot: ServerSnapshot::default(),
        started: "now".to_owned(),
        epoch: Some("one".to_owned()),
        prepared: prepared.iter().map(|id| (*id).to_owned()).collect(),
    };
    let found = |look: LastLook| Found { look, pruned: None, relations: Vec::new(), catalog: None };
    assert!(!found(look(&["7", "8"])).has_lost(&look(&["7", "8"])));
    assert!(!found(look(&["7"])).has_lost(&look(&[])));
    assert!(found(look(&["8"])).has_lost(&look(&["7", "8"])));
}

#[tokio::test]
async fn triggers_of_a_schema_that_nobody_reads_any_more_are_removed() {
    let Some(server) = Server::with("renamed_schema", MUSIC).await else { return };
    server.execute("CREATE SCHEMA film; CREATE TABLE film.title (id int)").await;
    let store = server.store();
    // As one that was killed, before another schema was configured.
    let film = Postgres::open("shop", &server.url, "film", 4, &Tasks::default()).unwrap();
    let _ = captured(&film, &["title"]).await;
    let mut position = captured(&store, &["album"]).await;
    store.release(&mut position, &["album".to_owned()]).await.unwrap();
    assert_eq!(server.ours().await, 4, "schema, function and both triggers");

    server.execute("UPDATE perigee_changes.readers SET seen = now() - interval '1 hour'").await;
    store.release(&mut position, &["album".to_owned()]).await.unwrap();
    assert_eq!(server.ours().await, 3);
    // Who reads says so.
    server.execute("UPDATE perigee_changes.readers SET seen = now() - interval '1 hour'").await;
    store.prune(&position.last.clone().unwrap().snapshot, &ServerSnapshot::default()).await.unwrap();
    let seen = "SELECT count(*) FROM perigee_changes.readers WHERE seen > now() - interval '1 minute'";
    assert_eq!(server.count(seen).await, 1);
}
