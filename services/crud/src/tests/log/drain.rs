//! How fast a log is told that nobody has read for a while, from each source of a server.

use std::time::Instant;

use query::resources::ChangesSource;

use super::{
    postgres::{run, server_by},
    *,
};
use crate::tests::support::same_schema_by;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_has_read_is_told_whole_by_each_source() {
    let transactions = if std::env::var_os("PROVE").is_some() { 50_000 } else { 2_000 };
    for source in [ChangesSource::Triggers, ChangesSource::Slot] {
        let Some(db) = server_by("CREATE TABLE {s}item (id int PRIMARY KEY, v text)", source).await else { return };
        run(&db, "INSERT INTO {s}item SELECT i, repeat('x', 150) FROM generate_series(1, 1000) i").await;
        let mut log = Follower::of(&db, &["item"], Bytes::new()).await;
        run(&db, "UPDATE {s}item SET v = v WHERE id = 1").await;
        log.changes().await;
        let other = same_schema_by(&db, source).await;
        // As where the process was killed.
        let position = log.position.clone();
        drop(log);
        db.tasks.stop().cancel();
        let write = "DO $$ BEGIN FOR i IN 1..{n} LOOP UPDATE {s}item SET v = v WHERE id = i % 1000 + 1; COMMIT; END LOOP; END $$";
        let began = Instant::now();
        run_alone(&other, &write.replace("{n}", &transactions.to_string())).await;
        let written = began.elapsed();
        let began = Instant::now();
        let mut log = Follower::of(&other, &["item"], position).await;
        let (mut told, mut last) = (0, 0);
        while told < transactions {
            match log.next().await.unwrap() {
                Event::Transaction(transaction) => {
                    told += transaction.changes.len();
                    assert_ne!(transaction.id, last, "each is a transaction of its own");
                    last = transaction.id;
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(told, transactions);
        let rate = |elapsed: Duration| transactions as f64 / elapsed.as_secs_f64();
        eprintln!("{source:?}: written {:.0}/s, told {:.0}/s", rate(written), rate(began.elapsed()));
    }
}

/// Runs a block that commits within.
async fn run_alone(db: &Db, sql: &str) {
    let (client, connection) =
        tokio_postgres::connect(&crate::tests::postgres_url().unwrap(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(&sql.replace("{s}", &db.prefix())).await.unwrap();
}
