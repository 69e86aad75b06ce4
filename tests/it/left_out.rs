//! One broken object does not close a database: the rest is served, and what is left out is told by name.

use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::{Value, json};
use tests::{
    client::Client,
    engine::{Database, Engine},
    mesh::{OPEN_LAB, Setup, ready, write_resources},
    process::{self, Process, free_address},
};

const SQLITE: &str = "
    CREATE TABLE good (id INTEGER PRIMARY KEY, v TEXT);
    INSERT INTO good VALUES (1, 'x');
    CREATE TABLE breaking (a INTEGER);
    CREATE VIEW later AS SELECT a FROM breaking;
    CREATE VIEW column_gone AS SELECT gone FROM good;
    CREATE VIEW table_gone AS SELECT * FROM nowhere;
    CREATE VIEW function_gone AS SELECT lost(id) AS n FROM good;
    CREATE VIEW ring AS SELECT * FROM ring_too;
    CREATE VIEW ring_too AS SELECT * FROM ring;
    PRAGMA writable_schema = ON;
    INSERT INTO sqlite_schema VALUES ('table', 'virtual', 'virtual', 0, 'CREATE VIRTUAL TABLE virtual USING lost(a)');
    PRAGMA writable_schema = RESET;";

const POSTGRES: &str = "
    DO $$ BEGIN CREATE ROLE left_out_app LOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
    CREATE TABLE good (id int PRIMARY KEY, v text);
    INSERT INTO good VALUES (1, 'x');
    CREATE TABLE breaking (a int);
    CREATE VIEW later AS SELECT a FROM breaking;
    CREATE TABLE unreadable (a int);
    CREATE EXTENSION postgres_fdw; CREATE EXTENSION file_fdw; CREATE FOREIGN DATA WRAPPER dummy;
    CREATE SERVER none FOREIGN DATA WRAPPER dummy;
    CREATE SERVER away FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '1');
    CREATE USER MAPPING FOR PUBLIC SERVER away OPTIONS (user 'a', password 'b');
    CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
    CREATE FOREIGN TABLE no_handler (a int) SERVER none;
    CREATE FOREIGN TABLE server_away (a int) SERVER away;
    CREATE FOREIGN TABLE no_file (a int) SERVER files OPTIONS (filename '/nowhere/at/all');
    CREATE MATERIALIZED VIEW unfilled AS SELECT id FROM good WITH NO DATA;
    GRANT ALL ON ALL TABLES IN SCHEMA public TO left_out_app;
    REVOKE ALL ON unreadable FROM left_out_app;";

const MYSQL: &str = "
    CREATE USER IF NOT EXISTS left_out_app@'%';
    CREATE TABLE good (id int PRIMARY KEY, v varchar(9));
    INSERT INTO good VALUES (1, 'x');
    CREATE TABLE breaking (a int);
    CREATE VIEW later AS SELECT a FROM breaking;
    CREATE TABLE gone (a int);
    CREATE VIEW column_gone AS SELECT a FROM gone;
    CREATE VIEW view_gone AS SELECT a FROM column_gone;
    DROP TABLE gone;
    CREATE TABLE partly (a int PRIMARY KEY, secret int);
    CREATE TABLE hidden (a int);
    GRANT ALL ON good TO left_out_app@'%';
    GRANT SELECT ON breaking TO left_out_app@'%'; GRANT ALL ON later TO left_out_app@'%';
    GRANT ALL ON column_gone TO left_out_app@'%'; GRANT ALL ON view_gone TO left_out_app@'%';
    GRANT SELECT (a) ON partly TO left_out_app@'%';";

/// The names and reasons that `/ready` tells of database `lab`, which is ready.
async fn left_out(client: &Client) -> anyhow::Result<Vec<(String, String)>> {
    let (status, report) = client.get("/ready").await?;
    let lab = &report["parts"]["database shop/lab"];
    ensure!(status == 200 && lab["ready"] == true, "{status} {report}");
    let parts = lab["left_out"].as_object().cloned().unwrap_or_default();
    Ok(parts.into_iter().map(|(name, why)| (name, why.as_str().unwrap_or_default().to_owned())).collect())
}

async fn rows(client: &Client, table: &str, select: &[&str]) -> anyhow::Result<Value> {
    let read = json!({ "op": "all", "options": { "select": select } });
    Ok(client.post(&format!("crud/lab/{table}/read"), &read).await?.1["result"].clone())
}

/// Serves what `script` makes, where `broken` objects are left out; breaks one more by `breaks`, which adds a column
/// beside it, too.
async fn serves_the_rest(
    engine: Engine,
    script: &str,
    role: Option<&str>,
    broken: &[(&str, &str)],
    breaks: &str,
) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let music = Database::shop(Engine::Sqlite, folder.path()).await?;
    let lab = Database::filled(engine, folder.path(), script).await?;
    let role = role.map(str::to_owned);
    let setup = Setup { resources: OPEN_LAB.to_owned(), role, ..Setup::default() };
    write_resources(folder.path(), &music, Some(&lab), &setup)?;
    let http = free_address()?;
    let config = process::config(folder.path(), http, free_address()?, "");
    let node = Process::serve(folder.path(), "broken", &[], &config)?;
    let client = Client::new(http, "shop");
    ready(&client).await?;

    assert_eq!(rows(&client, "good", &["id", "v"]).await?, json!([{"id": 1, "v": "x"}]));
    assert_eq!(rows(&client, "later", &["a"]).await?, json!([]));
    let told = left_out(&client).await?;
    assert_eq!(told.len(), broken.len(), "{told:?}");
    for ((name, why), (expected, reason)) in told.iter().zip(broken) {
        assert!(name == expected && why.contains(reason), "{name}: {why}");
    }

    lab.run(breaks).await?;
    let until = Instant::now() + Duration::from_secs(10);
    while rows(&client, "good", &["id", "more"]).await? != json!([{"id": 1, "more": null}]) {
        ensure!(Instant::now() < until, "the new column is seen: {}", node.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    while left_out(&client).await?.len() != broken.len() + usize::from(engine != Engine::Postgres) {
        ensure!(Instant::now() < until, "what breaks is told: {}", node.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let log = node.log();
    for (name, _) in broken {
        let lines = log.lines().filter(|line| line.contains("left out") && line.contains(&format!("{name:?}"))).count();
        assert_eq!(lines, 1, "{name} is told once: {log}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_broken_objects_serves_the_rest() -> anyhow::Result<()> {
    let broken = [
        ("column_gone", "no such column: gone"),
        ("function_gone", "no such function: lost"),
        ("ring", "circularly defined"),
        ("ring_too", "circularly defined"),
        ("table_gone", "no such table: main.nowhere"),
        ("virtual", "no such module: lost"),
    ];
    let breaks = "DROP TABLE breaking; ALTER TABLE good ADD COLUMN more TEXT;";
    serves_the_rest(Engine::Sqlite, SQLITE, None, &broken, breaks).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_broken_objects_serves_the_rest() -> anyhow::Result<()> {
    let broken = [
        ("no_file", "/nowhere/at/all"),
        ("no_handler", "dummy"),
        ("server_away", "could not connect to server"),
        ("unfilled", "has not been populated"),
        ("unreadable", "role left_out_app has no privilege to use it"),
    ];
    let breaks = "ALTER TABLE good ADD COLUMN more text;";
    serves_the_rest(Engine::Postgres, POSTGRES, Some("left_out_app"), &broken, breaks).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_mariadb_with_broken_objects_serves_the_rest() -> anyhow::Result<()> {
    let broken = [("column_gone", "not there"), ("view_gone", "not there")];
    let breaks = "DROP TABLE breaking; ALTER TABLE good ADD COLUMN more text;";
    serves_the_rest(Engine::Mysql, MYSQL, Some("left_out_app"), &broken, breaks).await
}
