//! Nodes that share a queue in PostgreSQL: each is killed in turn while events are made and delivered to a webhook that
//! answers badly. A ledger at the webhook shows every event, in order where that is asked for, and never twice at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
    time::Duration,
};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tests::{
    engine::{Database, Engine},
    mesh::{Setup, set_up},
    process::{self, Process, binary, free_address},
    webhook::{Delivery, Manner, Webhook},
};

use super::{
    TABLES, documents,
    kills::{begun, place},
};

/// Rows that are written, and kills meanwhile; `PROVE` makes both so many times more.
const ROWS: i64 = 240;
const KILLS: usize = 3;
const LONG: i64 = 10;
/// Nodes that deliver.
const NODES: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn nodes_share_a_queue_and_their_kills_lose_nothing() -> anyhow::Result<()> {
    let factor = if std::env::var_os("PROVE").is_some() { LONG } else { 1 };
    let (folder, webhook) = (tempfile::tempdir()?, Webhook::start().await?);
    let patient = json!({ "max": 1000, "first": 0.05, "longest": 0.2 });
    let own = json!({ "where": { "id": { "$gt": 0 } } });
    let one = json!({ "on": own, "retries": patient, "timeout": 1 });
    let two = json!({ "on": own, "retries": patient, "timeout": 1, "ordered": true });
    let resources = documents(&webhook, &[("one", one), ("two", two)]);
    let setup = Setup { lab: Some(TABLES.to_owned()), resources, ..Setup::default() };
    let (_, lab) = set_up(Engine::Sqlite, folder.path(), &setup).await?;
    let lab = lab.context("a lab")?;
    let queue = Database::filled(Engine::Postgres, folder.path(), "SELECT 1").await?;

    let crud = free_address()?;
    let config = process::config(folder.path(), free_address()?, crud, "");
    let _crud = Process::serve(folder.path(), "crud", &["crud"], &config)?;
    let mut nodes = Vec::new();
    for node in 0..NODES {
        let more = format!(
            "egress: {{ allow: [127.0.0.0/8] }}\npeers: {{ crud: [\"http://{crud}\"] }}\n\
             queue: {{ kind: postgres, url: \"{}\", schema: shared }}\n",
            queue.url
        );
        let config = process::config(folder.path(), free_address()?, free_address()?, &more);
        nodes.push(Process::serve(folder.path(), &format!("functions{node}"), &["functions"], &config)?);
    }
    begun(&lab, &webhook).await.with_context(|| nodes.iter().map(Process::log).collect::<String>())?;
    for path in ["/one", "/two"] {
        webhook.answers(path, Manner::Badly);
    }

    let (rows, kills) = (ROWS * factor, KILLS * factor as usize);
    for id in 1..=rows {
        lab.run(&format!("INSERT INTO note (id, n) VALUES ({id}, 0); UPDATE note SET n = 1 WHERE id = {id}")).await?;
        if id % (rows / (kills as i64 + 1)) == 0 && id / (rows / (kills as i64 + 1)) <= kills as i64 {
            let victim = (id / (rows / (kills as i64 + 1))) as usize % NODES;
            nodes[victim].kill()?;
            nodes[victim].restart()?;
        }
    }

    let expected: BTreeSet<(i64, &str)> = (1..=rows).flat_map(|id| [(id, "DB_INSERT"), (id, "DB_UPDATE")]).collect();
    for path in ["/one", "/two"] {
        let is_whole = |all: &[Delivery]| {
            all.len() >= expected.len() && {
                let told: BTreeSet<_> = all.iter().filter_map(|delivery| place(&delivery.request.body)).collect();
                told.is_superset(&expected)
            }
        };
        let all = webhook.until(path, is_whole).await.map_err(|error| {
            let short: String = error.to_string().chars().take(80).collect();
            anyhow::anyhow!("{path}: {short}\n{}", nodes.iter().map(Process::log).collect::<String>())
        })?;
        let mut ids: BTreeMap<(i64, &str), BTreeSet<&str>> = BTreeMap::new();
        for delivery in &all {
            if let Some(place) = place(&delivery.request.body) {
                ids.entry(place).or_default().insert(delivery.id());
            }
        }
        ensure!(ids.values().all(|ids| ids.len() == 1), "an event has one id, whoever makes it: {ids:?}");
    }
    let waiting = "SELECT count(*) FROM shared.events WHERE status <> 'processed' AND trigger_id <> 'begun'";
    let until = tokio::time::Instant::now() + Duration::from_secs(120);
    while queue.number(waiting).await? > 0 {
        ensure!(tokio::time::Instant::now() < until, "all are acknowledged");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(queue.number("SELECT count(*) FROM shared.events WHERE trigger_id <> 'begun'").await?, 4 * rows);
    assert_eq!(webhook.overlaps(), 0, "no event is delivered twice at once");
    in_order(&webhook.deliveries("/two"))?;
    operated(&folder.path().join("functions0.yaml").display().to_string())
}

/// An update of a row is not delivered before its insertion is acknowledged.
fn in_order(deliveries: &[Delivery]) -> anyhow::Result<()> {
    let mut updated = BTreeSet::new();
    for (id, kind) in deliveries.iter().filter_map(|delivery| place(&delivery.request.body)) {
        if kind == "DB_UPDATE" {
            updated.insert(id);
        } else {
            ensure!(!updated.contains(&id), "row {id}: its insertion came after its update");
        }
    }
    Ok(())
}

/// Any node's configuration leads `perigee events` to the queue.
fn operated(config: &str) -> anyhow::Result<()> {
    let events = |arguments: &[&str]| -> anyhow::Result<String> {
        let output = Command::new(binary()).arg("events").args(arguments).args(["--config", config]).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    };
    let listed = events(&["list", "--trigger", "two", "--json"])?;
    let first: Value = serde_json::from_str(listed.lines().next().context("a line")?)?;
    let id = first["id"].as_str().context("an id")?;
    assert_eq!((&first["status"], &first["type"]), (&json!("processed"), &json!("DB_INSERT")));
    assert_eq!(events(&["replay", id])?, "1 events are delivered again\n");
    let purged = events(&["purge", "--trigger", "one", "--status", "processed"])?;
    ensure!(purged.ends_with(" events are removed\n") && !purged.starts_with("0 "), "{purged}");
    assert_eq!(events(&["list", "--trigger", "one"])?, "");
    Ok(())
}
