use std::pin::pin;

use super::*;

const ACTIVE: &str = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' AND state = 'active' \
                      AND application_name = ";

#[tokio::test]
async fn violated_constraints_are_named_without_values() {
    let Some(server) = Server::with(
        "constraints",
        "CREATE TABLE artist (id int PRIMARY KEY, name text NOT NULL, year int CONSTRAINT sane CHECK (year > 1900));
         CREATE UNIQUE INDEX name_index ON artist (name, year);
         CREATE UNIQUE INDEX lower_index ON artist (lower(name)) WHERE year IS NULL;
         CREATE TABLE album (artist_id int CONSTRAINT by REFERENCES artist DEFERRABLE);
         INSERT INTO artist VALUES (1, 'secret', 2000), (2, 'hidden', NULL);",
    )
    .await
    else {
        return;
    };
    let store = server.store(4);
    let refused = async |sql: &str| store.write(&statement(sql, Vec::new())).await.unwrap_err();
    let conflict = |columns: &[&str]| Error::Conflict { columns: columns.iter().map(|&name| name.into()).collect() };

    assert_eq!(refused("INSERT INTO artist VALUES (1, 'x', NULL)").await, conflict(&["id"]));
    store.introspect(&[]).await.unwrap();
    assert_eq!(refused("INSERT INTO artist VALUES (3, 'secret', 2000)").await, conflict(&["name", "year"]));
    assert_eq!(refused("INSERT INTO artist VALUES (3, 'HIDDEN', NULL)").await, conflict(&["lower(name)"]));
    let text = refused("INSERT INTO artist VALUES (3, NULL, NULL)").await;
    assert_eq!(text, Error::NotNull("name".into()));
    let text = refused("INSERT INTO artist VALUES (3, 'x', 1800)").await;
    assert_eq!(text, Error::Constraint("check sane of table artist does not hold".into()));
    let text = refused("INSERT INTO album VALUES (99)").await;
    assert_eq!(text, Error::Constraint("foreign key by of table album does not hold".into()));

    let mut tx = store.begin().await.unwrap();
    let late = ["SET CONSTRAINTS ALL DEFERRED", "INSERT INTO album VALUES (99)"];
    tx.run(&late.map(|sql| statement(sql, Vec::new())), &Budget::unlimited()).await.unwrap();
    assert_eq!(tx.commit().await.unwrap_err(), Error::Constraint("foreign key by of table album does not hold".into()));
}

#[tokio::test]
async fn a_transaction_lasts_when_committed_and_only_then() {
    let Some(server) = Server::with("transactions", "CREATE TABLE t (a int PRIMARY KEY)").await else { return };
    let store = server.store(2);
    let insert = |value| statement("INSERT INTO t VALUES ($1)", vec![int(value)]);
    let count = "SELECT count(*) FROM t";

    let mut dropped = store.begin().await.unwrap();
    assert_eq!(dropped.run(&[insert(1), insert(2)], &Budget::unlimited()).await.unwrap().len(), 2);
    drop(dropped);
    assert_eq!(cells(&store, count, Vec::new()).await, ["Int(0)"]);

    let mut failed = store.begin().await.unwrap();
    failed.run(&[insert(1)], &Budget::unlimited()).await.unwrap();
    let error = failed.run(&[insert(2), insert(1), insert(3)], &Budget::unlimited()).await.unwrap_err();
    assert!(matches!(error, Error::Conflict { .. }), "{error:?}");
    assert!(failed.run(&[insert(4)], &Budget::unlimited()).await.is_err());
    assert!(failed.commit().await.is_err());
    assert_eq!(cells(&store, count, Vec::new()).await, ["Int(0)"]);

    let mut unprepared = store.begin().await.unwrap();
    unprepared.run(&[insert(1)], &Budget::unlimited()).await.unwrap();
    let error = unprepared.run(&[statement("SELECT * FROM nowhere", vec![])], &Budget::unlimited()).await.unwrap_err();
    assert_eq!(error, Error::SchemaMoved("relation \"nowhere\" does not exist (42P01)".to_owned()));
    assert!(unprepared.commit().await.is_err());
    assert_eq!(cells(&store, count, Vec::new()).await, ["Int(0)"]);

    let mut committed = store.begin().await.unwrap();
    committed.run(&[insert(1)], &Budget::unlimited()).await.unwrap();
    committed.run(&[insert(2)], &Budget::unlimited()).await.unwrap();
    committed.commit().await.unwrap();
    store.begin().await.unwrap().commit().await.unwrap();
    assert_eq!(cells(&store, count, Vec::new()).await, ["Int(2)"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_sees_one_state() {
    let Some(server) = Server::with("snapshots", "CREATE TABLE t (a int); INSERT INTO t VALUES (0)").await else {
        return;
    };
    let store = server.store(4);
    let writer = {
        let store = store.clone();
        tokio::spawn(async move {
            for _ in 0..200 {
                store.write(&statement("UPDATE t SET a = a + 1", Vec::new())).await.unwrap();
            }
        })
    };
    let read = || statement("SELECT a FROM t", Vec::new());
    while !writer.is_finished() {
        let levels = store.snapshot(&[read(), read(), read()], &Budget::unlimited()).await.unwrap();
        let seen: Vec<String> = levels.iter().map(|rows| format!("{:?}", rows.cell(0, 0))).collect();
        assert!(seen.iter().all(|cell| *cell == seen[0]), "{seen:?}");
    }
    writer.await.unwrap();
    assert_eq!(cells(&store, "SELECT a FROM t", Vec::new()).await, ["Int(200)"]);
}

#[tokio::test]
async fn a_failure_in_a_snapshot_is_the_statements_own_and_leaves_the_connection_good() {
    let Some(server) = Server::with("failures", "").await else { return };
    let store = server.store(1);
    let good = statement("SELECT 1", Vec::new());
    let bad = statement("SELECT 1 / $1::int", vec![int(0)]);
    for _ in 0..3 {
        let error = store.snapshot(&[good.clone(), bad.clone(), good.clone()], &Budget::unlimited()).await.unwrap_err();
        assert_eq!(error.statement, Some(1));
        let Error::InvalidValue(invalid) = error.error else { panic!("{error:?}") };
        assert_eq!((invalid.kind, &*invalid.cause), (InvalidKind::Computation, "22012 in int4div"));
        assert_eq!(store.snapshot(&[good.clone(), good.clone()], &Budget::unlimited()).await.unwrap().len(), 2);
    }
    let write = statement("CREATE TABLE t ()", Vec::new());
    assert!(store.snapshot(&[good, write], &Budget::unlimited()).await.is_err(), "a snapshot only reads");
}

#[tokio::test]
async fn who_leaves_ends_the_statement() {
    let Some(server) = Server::with("leaving", "").await else { return };
    let store = server.store(2);
    let active = format!("{ACTIVE}'{}'", server.schema);

    let slow = [statement("SELECT 1 FROM pg_sleep(60)", Vec::new())];
    let budget = Budget::unlimited();
    let mut reading = Box::pin(store.snapshot(&slow, &budget));
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut reading).await.is_err());
    until(&server, &active, 1).await;
    drop(reading);
    until(&server, &active, 0).await;

    let mut tx = store.begin().await.unwrap();
    let mut running = Box::pin(tx.run(&slow, &budget));
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut running).await.is_err());
    until(&server, &active, 1).await;
    drop(running);
    drop(tx);
    until(&server, &active, 0).await;
    assert_eq!(cells(&store, "SELECT 1", Vec::new()).await, ["Int(1)"]);
}

#[tokio::test]
async fn a_slow_statement_on_a_shared_connection_holds_up_nobody_for_long() {
    let Some(server) = Server::with("stuck", "").await else { return };
    let store = server.store(8);
    // Short until its argument makes it slow.
    let maybe = |wait: f64| [statement("SELECT 1 FROM pg_sleep($1)", vec![Typed::Float(wait)])];
    for _ in 0..6 {
        store.snapshot(&maybe(0.0), &Budget::unlimited()).await.unwrap();
        cells(&store, "SELECT 2", Vec::new()).await;
    }
    let slow = maybe(60.0);
    let budget = Budget::unlimited();
    let mut slow: Vec<_> = (0..4).map(|_| Box::pin(store.snapshot(&slow, &budget))).collect();
    let quick = async {
        let behind = (0..20).map(|_| cells(&store, "SELECT 2", Vec::new()));
        for cells in futures::future::join_all(behind).await {
            assert_eq!(cells, ["Int(2)"]);
        }
        for _ in 0..20 {
            assert_eq!(cells(&store, "SELECT 2", Vec::new()).await, ["Int(2)"]);
        }
    };
    let quick = pin!(quick);
    let all = futures::future::select(futures::future::select_all(&mut slow), quick);
    let first = tokio::time::timeout(Duration::from_secs(5), all).await.expect("the quick ones are served");
    assert!(matches!(first, futures::future::Either::Right(_)));

    drop(slow);
    let active = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND state = 'active' \
         AND application_name = '{}'",
        server.schema
    );
    until(&server, &active, 0).await;
    assert_eq!(cells(&store, "SELECT 2", Vec::new()).await, ["Int(2)"]);
}

#[tokio::test]
async fn killed_connections_are_made_again_for_reads() {
    let Some(server) = Server::with("killed", "CREATE TABLE t (a int)").await else { return };
    let store = server.store(6);
    let kill = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = '{}'",
        server.schema
    );
    let one = || statement("SELECT 1", Vec::new());
    for _ in 0..20 {
        for _ in 0..3 {
            assert_eq!(store.snapshot(&[one()], &Budget::unlimited()).await.unwrap().len(), 1);
            assert_eq!(store.snapshot(&[one(), one()], &Budget::unlimited()).await.unwrap().len(), 2);
        }
        assert!(server.count(&kill).await > 0);
    }
    store.ping().await.unwrap();
}

#[tokio::test]
async fn who_waits_for_a_connection_is_served_when_one_is_free() {
    let Some(server) = Server::with("waiting", "").await else { return };
    let store = server.store(1);
    let held = store.begin().await.unwrap();
    let mut waiting = Box::pin(store.begin());
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut waiting).await.is_err());
    drop(held);
    waiting.await.unwrap().commit().await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable() {
    let store = Postgres::open("shop", "postgres://x:hunter2@127.0.0.1:1/x", "public", 4, &Tasks::default()).unwrap();
    let Error::Unavailable(cause) = store.ping().await.unwrap_err() else { panic!("it is unavailable") };
    assert!(cause.starts_with("shop: ") && !cause.contains("hunter2"), "{cause}");
}
