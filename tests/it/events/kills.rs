//! Processes that are killed while events are made and delivered to a webhook that answers badly: a ledger at the webhook
//! shows every event at least once, and none after its acknowledgement was written.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use serde_json::json;
use tests::{
    engine::{Database, Engine},
    mesh::{Setup, Shape, set_up},
    process::{self, Process, free_address},
    webhook::{Manner, Webhook},
};

use super::{TABLES, documents, operated::eventually};

scenarios!(nothing_is_lost_by_kills);

/// Rows that are written, and kills meanwhile; `PROVE` makes both so many times more.
const ROWS: i64 = 300;
const KILLS: usize = 4;
const LONG: i64 = 10;

/// The processes that make and deliver events; with crud apart in the shape of several.
struct Nodes(Vec<Process>);

impl Nodes {
    fn start(shape: Shape, folder: &Path) -> anyhow::Result<Self> {
        let egress = "egress: { allow: [127.0.0.0/8] }\n";
        let serve = |name: &str, services: &[&str], mesh, peers: &str| {
            Process::serve(folder, name, services, &process::config(folder, free_address()?, mesh, peers))
        };
        match shape {
            Shape::OneProcess => Ok(Self(vec![serve("near", &["crud", "functions"], free_address()?, egress)?])),
            Shape::Split | Shape::Processes => {
                let crud = free_address()?;
                let peers = format!("{egress}peers: {{ crud: [\"http://{crud}\"] }}\n");
                let functions = serve("functions", &["functions"], free_address()?, &peers)?;
                Ok(Self(vec![functions, serve("crud", &["crud"], crud, "")?]))
            }
        }
    }
}

/// The ids of events whose acknowledgement was written.
fn acknowledged(queue: &Path) -> anyhow::Result<BTreeSet<String>> {
    let queue = rusqlite::Connection::open(queue)?;
    queue.busy_timeout(Duration::from_secs(5))?;
    let mut ids = queue.prepare("SELECT id FROM events WHERE status = 'processed'")?;
    Ok(ids.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
}

async fn nothing_is_lost_by_kills(shape: Shape) -> anyhow::Result<()> {
    let factor = if std::env::var_os("PROVE").is_some() { LONG } else { 1 };
    for engine in [Engine::Sqlite, Engine::Postgres] {
        Box::pin(killed(shape, engine, factor)).await.with_context(|| format!("{engine:?}"))?;
    }
    Ok(())
}

async fn killed(shape: Shape, engine: Engine, factor: i64) -> anyhow::Result<()> {
    let (folder, webhook) = (tempfile::tempdir()?, Webhook::start().await?);
    let patient = json!({ "retries": { "max": 1000, "first": 0.05, "longest": 0.2 } });
    let own = json!({ "where": { "id": { "$gt": 0 } } });
    let triggers = ["one", "two"].map(|id| (id, json!({ "on": own, "retries": patient["retries"], "timeout": 1 })));
    let resources = documents(&webhook, &triggers);
    let setup = Setup { lab: Some(TABLES.to_owned()), resources, ..Setup::default() };
    let (_, lab) = set_up(engine, folder.path(), &setup).await?;
    let lab = lab.context("a lab")?;
    let mut nodes = Nodes::start(shape, folder.path())?;
    begun(&lab, &webhook).await.with_context(|| nodes.0.iter().map(Process::log).collect::<String>())?;
    for path in ["/one", "/two"] {
        webhook.answers(path, Manner::Badly);
    }

    let rows = ROWS * factor;
    let next = Arc::new(AtomicI64::new(1));
    let (written, writing) = (next.clone(), lab.clone());
    let writer = tokio::spawn(async move {
        while written.load(Ordering::SeqCst) <= rows {
            let id = written.load(Ordering::SeqCst);
            writing
                .run(&format!("INSERT INTO note (id, n) VALUES ({id}, 0); UPDATE note SET n = 1 WHERE id = {id}"))
                .await?;
            written.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        anyhow::Ok(())
    });
    let queue = folder.path().join("data/functions/events.db");
    // By id: when its acknowledgement was seen written, at the latest, while nobody delivered.
    let mut acknowledgements: BTreeMap<String, Instant> = BTreeMap::new();
    let kills = KILLS * factor as usize;
    for kill in 0..kills {
        let at = rows * (kill as i64 + 1) / (kills as i64 + 1);
        while next.load(Ordering::SeqCst) < at {
            ensure!(!writer.is_finished(), "the writer goes on");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let victim = kill % nodes.0.len();
        nodes.0[victim].kill()?;
        if victim == 0 {
            // Requests that were on their way have come by then.
            tokio::time::sleep(Duration::from_millis(100)).await;
            for id in acknowledged(&queue)? {
                acknowledgements.entry(id).or_insert_with(Instant::now);
            }
        }
        nodes.0[victim].restart()?;
    }
    writer.await??;

    let expected: BTreeSet<(i64, &str)> = (1..=rows).flat_map(|id| [(id, "DB_INSERT"), (id, "DB_UPDATE")]).collect();
    for path in ["/one", "/two"] {
        let is_whole = |all: &[tests::webhook::Delivery]| {
            all.len() >= expected.len() && {
                let told: BTreeSet<(i64, &str)> =
                    all.iter().filter_map(|delivery| place(&delivery.request.body)).collect();
                told.is_superset(&expected)
            }
        };
        let all = webhook.until(path, is_whole).await.map_err(|error| {
            let told: BTreeSet<_> = webhook
                .deliveries(path)
                .iter()
                .filter_map(|one| place(&one.request.body).map(|(id, kind)| (id, kind.to_owned())))
                .collect();
            let missing: Vec<_> =
                expected.iter().filter(|(id, kind)| !told.contains(&(*id, (*kind).to_owned()))).take(10).collect();
            let logs: String = nodes.0.iter().map(Process::log).collect();
            let short: String = error.to_string().chars().take(80).collect();
            anyhow::anyhow!("{path}: {short}: missing {missing:?}\n{logs}")
        })?;
        let mut ids: BTreeMap<(i64, &str), BTreeSet<&str>> = BTreeMap::new();
        for delivery in &all {
            if let Some(place) = place(&delivery.request.body) {
                ids.entry(place).or_default().insert(delivery.id());
            }
        }
        ensure!(ids.values().all(|ids| ids.len() == 1), "an event has one id, whatever is killed: {ids:?}");
    }
    eventually(&queue, "SELECT count(*) FROM events WHERE status <> 'processed' AND trigger_id <> 'begun'", 0).await?;
    ensure!(!acknowledgements.is_empty(), "some were acknowledged before a kill");
    for delivery in ["/one", "/two"].iter().flat_map(|path| webhook.deliveries(path)) {
        let acknowledged = acknowledgements.get(delivery.id());
        ensure!(
            acknowledged.is_none_or(|at| delivery.at < *at),
            "{delivery:?} was delivered after its acknowledgement"
        );
    }
    eventually(&queue, "SELECT count(*) FROM events WHERE trigger_id <> 'begun'", 4 * rows).await
}

/// The row and the type of an event.
pub fn place(event: &serde_json::Value) -> Option<(i64, &str)> {
    Some((event["data"]["find"]["id"].as_i64().filter(|id| *id > 0)?, event["type"].as_str()?))
}

/// Waits until changes are taken.
pub async fn begun(lab: &Database, webhook: &Webhook) -> anyhow::Result<()> {
    for id in 1..120 {
        lab.run(&format!("INSERT INTO note (id, body) VALUES (-{id}, 'begun')")).await?;
        let begun = webhook.count("/begun", 1);
        if tokio::time::timeout(Duration::from_millis(500), begun).await.is_ok() {
            return Ok(());
        }
    }
    anyhow::bail!("changes are not taken")
}
