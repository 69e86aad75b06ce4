//! `perigee events`: what it lists, delivers again and removes, beside a node that runs.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tests::{
    client::Client,
    engine::Engine,
    mesh::{Setup, ready, set_up},
    process::{Process, binary, free_address},
    webhook::{Manner, Webhook},
};

use super::{TABLES, documents};

/// Waits until a query of the queue answers a number.
pub async fn eventually(file: &Path, query: &str, wanted: i64) -> anyhow::Result<()> {
    // An endpoint that failed may be paused, and once more where its probe fails.
    let until = tokio::time::Instant::now() + Duration::from_secs(240);
    loop {
        let queue = rusqlite::Connection::open(file)?;
        queue.busy_timeout(Duration::from_secs(5))?;
        // Its tables may still be made.
        let found = queue.query_row(query, [], |row| row.get::<_, i64>(0));
        if found == Ok(wanted) {
            return Ok(());
        }
        ensure!(tokio::time::Instant::now() < until, "{query}: wanted {wanted}, found {found:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn events(data: &Path, arguments: &[&str]) -> anyhow::Result<(bool, String)> {
    let data = data.display().to_string();
    let output = Command::new(binary()).arg("events").args(arguments).args(["--data", &data]).output()?;
    let text = if output.status.success() { output.stdout } else { output.stderr };
    Ok((output.status.success(), String::from_utf8(text)?))
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_replayed_and_removed() -> anyhow::Result<()> {
    let (folder, webhook) = (tempfile::tempdir()?, Webhook::start().await?);
    let data = folder.path().join("data");
    let (is_done, text) = events(&data, &["list"])?;
    ensure!(!is_done && text.contains("there is no queue of events"), "{text}");

    let resources =
        documents(&webhook, &[("dead", json!({ "retries": 0, "on": { "where": { "id": { "$gt": 0 } } } }))]);
    let setup = Setup { lab: Some(TABLES.to_owned()), resources, ..Setup::default() };
    let (_, lab) = set_up(Engine::Sqlite, folder.path(), &setup).await?;
    let lab = lab.context("a lab")?;
    webhook.answers("/dead", Manner::Says(400, "no\nthanks"));
    let address = free_address()?;
    let _node = Process::dev(folder.path(), address)?;
    ready(&Client::new(address, "shop")).await?;
    let queue = data.join("functions/events.db");
    let until = tokio::time::Instant::now() + Duration::from_secs(30);
    for id in 1.. {
        lab.run(&format!("INSERT INTO note (id) VALUES ({id})")).await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
        if !webhook.deliveries("/dead").is_empty() {
            break;
        }
        ensure!(tokio::time::Instant::now() < until, "changes are not taken");
    }
    eventually(&queue, "SELECT count(*) FROM events WHERE finished_ms IS NULL", 0).await?;

    let (_, listed) = events(&data, &["list", "--status", "failed", "--trigger", "dead", "--json"])?;
    let first: Value = serde_json::from_str(listed.lines().next().context("a line")?)?;
    let id = first["id"].as_str().context("an id")?;
    let expected = json!({ "id": id, "project": "shop", "trigger": "dead", "type": "DB_INSERT", "status": "failed",
        "attempts": 1, "code": 400, "last": "no\nthanks" });
    assert_eq!(first, expected);
    let (_, plain) = events(&data, &["list", id])?;
    assert_eq!(plain.trim_end(), format!("{id}  shop/dead  DB_INSERT  failed  attempts 1  400  no thanks"));
    assert_eq!(events(&data, &["list", "--project", "other"])?, (true, String::new()));
    for command in ["list", "replay", "purge"] {
        let (is_done, text) = events(&data, &[command, "evt_0"])?;
        ensure!(!is_done && text.contains("event evt_0 does not exist"), "{command}: {text}");
    }

    let sent = webhook.deliveries("/dead").len();
    webhook.answers("/dead", Manner::Says(200, ""));
    assert_eq!(events(&data, &["replay", id])?, (true, "1 events are delivered again\n".to_owned()));
    let again = webhook.count("/dead", sent + 1).await?;
    let last = again.last().context("one")?;
    assert_eq!((last.id(), last.attempt()), (id, 1), "the same event, as if it had just been made");
    eventually(&queue, "SELECT count(*) FROM events WHERE finished_ms IS NULL", 0).await?;
    let (_, listed) = events(&data, &["list", id, "--json"])?;
    ensure!(listed.contains("\"processed\""), "{listed}");
    assert_eq!(events(&data, &["purge", id])?, (true, "1 events are removed\n".to_owned()));
    ensure!(!events(&data, &["list", id])?.0, "it is gone");
    Ok(())
}
