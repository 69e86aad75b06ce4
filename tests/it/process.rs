//! Nodes as processes: spread over four of them, killed, told to stop, and edited while they work.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{
    client::Client,
    engine::{Database, Engine},
    mesh::{ENGINES, Setup, ready, set_up},
    process::{self, Process, Spread, free_address},
    token,
};

/// Rules under which the tests write.
const NOTES: &str = r#"
kind: table
meta: { project: shop, database: lab, id: note }
spec:
  rules:
    create: { rule: allow }
    read: { rule: allow }
"#;

struct Fixture {
    folder: TempDir,
    lab: Database,
}

impl Fixture {
    async fn new(engine: Engine) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let notes = "CREATE TABLE note (id BIGINT PRIMARY KEY, body TEXT);".to_owned();
        let setup = Setup { lab: Some(notes), resources: NOTES.to_owned(), ..Setup::default() };
        let (_, lab) = set_up(engine, folder.path(), &setup).await?;
        Ok(Self { folder, lab: lab.context("a lab")? })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// One process of all services, ready.
    async fn near(&self) -> anyhow::Result<(Process, Client)> {
        let http = free_address()?;
        let node = Process::serve(self.path(), "near", &[], &process::config(self.path(), http, free_address()?, ""))?;
        let client = Client::new(http, "shop");
        ready(&client).await?;
        Ok((node, client))
    }
}

/// Clients that insert notes of their own until told to stop; which were acknowledged, and how others failed.
struct Writers {
    stop: Arc<AtomicBool>,
    stored: Arc<Mutex<BTreeSet<i64>>>,
    failures: Arc<Mutex<Vec<String>>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Writers {
    fn start(client: &Client, count: usize) -> Self {
        let writers =
            Self { stop: Arc::default(), stored: Arc::default(), failures: Arc::default(), tasks: Vec::new() };
        let next = Arc::new(AtomicI64::new(1));
        let tasks = (0..count).map(|_| {
            let (client, next, stop) = (client.clone(), next.clone(), writers.stop.clone());
            let (stored, failures) = (writers.stored.clone(), writers.failures.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let id = next.fetch_add(1, Ordering::Relaxed);
                    let doc = json!({ "op": "one", "doc": { "id": id, "body": "a note" } });
                    match client.post("crud/lab/note/create", &doc).await {
                        Ok((200, _)) => drop(stored.lock().expect("no panic").insert(id)),
                        Ok((status, body)) => failures.lock().expect("no panic").push(format!("{status} {body}")),
                        Err(error) => failures.lock().expect("no panic").push(format!("{error:#}")),
                    }
                }
            })
        });
        Self { tasks: tasks.collect(), ..writers }
    }

    async fn until(&self, count: usize) -> anyhow::Result<()> {
        let until = Instant::now() + Duration::from_secs(30);
        let wanted = self.stored.lock().expect("no panic").len() + count;
        while self.stored.lock().expect("no panic").len() < wanted {
            ensure!(
                Instant::now() < until,
                "writes do not go on: {:?}",
                self.failures.lock().expect("no panic").last()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    fn failed(&self) -> usize {
        self.failures.lock().expect("no panic").len()
    }

    /// Acknowledged ids and failures.
    async fn finish(self) -> (BTreeSet<i64>, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("a writer does not panic");
        }
        let stored = self.stored.lock().expect("no panic").clone();
        let failures = self.failures.lock().expect("no panic").clone();
        (stored, failures)
    }
}

async fn all_stored(lab: &Database, ids: &BTreeSet<i64>) -> anyhow::Result<()> {
    let list: Vec<String> = ids.iter().map(i64::to_string).collect();
    let count = lab.number(&format!("SELECT count(*) FROM note WHERE id IN ({})", list.join(", "))).await?;
    assert_eq!(count, ids.len() as i64, "every acknowledged row is there");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_crud_of_two_may_die_under_load() -> anyhow::Result<()> {
    for engine in ENGINES {
        let fixture = Fixture::new(engine).await?;
        let mut spread = Spread::start(fixture.path()).await?;
        let writers = Writers::start(&spread.client, 8);
        writers.until(50).await?;

        spread.crud[0].kill()?;

        writers.until(100).await?;
        let failed = writers.failed();
        writers.until(200).await?;
        assert_eq!(writers.failed(), failed, "once its end is noticed, everything goes to the other");
        // Reads go on without a failure: a read that broke is sent to the other.
        for _ in 0..50 {
            let (status, body) = spread.client.graphql("{ genre(limit: 1) { name } }", json!({})).await?;
            assert_eq!(status, 200, "{body}");
        }
        let (stored, failures) = writers.finish().await;
        all_stored(&fixture.lab, &stored).await?;
        // A write that was sent to the dead crud is answered as unavailable: it may or may not be stored.
        assert!(failures.iter().all(|failure| failure.contains("UNAVAILABLE")), "{failures:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_crud_requests_are_unavailable_until_it_returns() -> anyhow::Result<()> {
    let fixture = Fixture::new(Engine::Sqlite).await?;
    let mut spread = Spread::start(fixture.path()).await?;
    let query = "{ genre(limit: 1) { name } }";
    for round in 0..2 {
        spread.crud[0].kill()?;
        spread.crud[1].kill()?;

        let began = Instant::now();
        let (status, body) = spread.client.graphql(query, json!({})).await?;
        assert_eq!((status, &body["errors"][0]["extensions"]["code"]), (503, &json!("UNAVAILABLE")), "{round}: {body}");
        assert!(began.elapsed() < Duration::from_secs(1), "{round}: {:?}", began.elapsed());
        let (status, report) = spread.client.get("/ready").await?;
        assert_eq!(status, 503, "{report}");

        spread.crud[0].restart()?;
        spread.crud[1].restart()?;
        let began = Instant::now();
        while spread.client.graphql(query, json!({})).await?.0 != 200 {
            assert!(began.elapsed() < Duration::from_secs(3), "{round}: {}", spread.gateway.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_keeps_every_acknowledged_row() -> anyhow::Result<()> {
    for engine in ENGINES {
        let fixture = Fixture::new(engine).await?;
        let (mut node, client) = fixture.near().await?;
        let writers = Writers::start(&client, 8);
        writers.until(100).await?;

        node.kill()?;

        let (stored, _) = writers.finish().await;
        node.restart()?;
        ready(&client).await?;
        let (_, count) = client.post("crud/lab/note/read", &json!({ "op": "count" })).await?;
        assert!(count["result"].as_u64() >= Some(stored.len() as u64), "{engine:?} {count}");
        all_stored(&fixture.lab, &stored).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_told_to_stop_answers_what_it_took() -> anyhow::Result<()> {
    for engine in ENGINES {
        let fixture = Fixture::new(engine).await?;
        let (mut node, client) = fixture.near().await?;
        let writers = Writers::start(&client, 16);
        writers.until(100).await?;

        let status = node.terminate().await?;

        assert_eq!(status.code(), Some(0), "{}", node.log());
        let (stored, failures) = writers.finish().await;
        all_stored(&fixture.lab, &stored).await?;
        // Only connections that were never taken fail: no request that was sent stays without its answer.
        let cut = |failure: &&String| !failure.contains("Connect") && !failure.contains("refused");
        let cut: Vec<&String> = failures.iter().filter(cut).collect();
        assert!(cut.is_empty(), "{engine:?}: {cut:?}\n{}", node.log());
    }
    Ok(())
}

/// Clients that read albums until told to stop.
struct Readers {
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<anyhow::Result<()>>>,
}

impl Readers {
    fn start(client: &Client, count: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let tasks = (0..count).map(|_| {
            let (client, stop) = (client.clone(), stop.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let (status, body) = client.graphql("{ album(limit: 3) { title } }", json!({})).await?;
                    ensure!(status == 200, "{status} {body}");
                }
                Ok(())
            })
        });
        Self { tasks: tasks.collect(), stop }
    }

    /// Fails if one of their requests did.
    async fn finish(self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await??;
        }
        Ok(())
    }
}

/// Waits until reading genres is allowed, or is not: an edit is in force within a second.
async fn genre_is(client: &Client, allowed: bool) -> anyhow::Result<()> {
    let until = Instant::now() + Duration::from_secs(1);
    loop {
        let (status, body) = client.graphql("{ genre(limit: 1) { name } }", json!({})).await?;
        if (status == 200) == allowed {
            return Ok(());
        }
        ensure!(Instant::now() < until, "an edit is in force within a second: {status} {body}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_are_edited_under_load() -> anyhow::Result<()> {
    let fixture = Fixture::new(Engine::Sqlite).await?;
    let (node, client) = fixture.near().await?;
    let readers = Readers::start(&client, 32);
    genre_is(&client, true).await?;

    let tables = fixture.path().join("resources/tables.yaml");
    let before = std::fs::read_to_string(&tables)?;
    let open = "id: genre }\nspec:\n  rules:\n    read: { rule: allow }";
    assert!(before.contains(open));
    std::fs::write(&tables, before.replace(open, &open.replace("allow", "deny")))?;
    genre_is(&client, false).await?;

    // A broken edit changes nothing and is told.
    let broken = before.replace(open, &open.replace("rule: allow", "rule: alow"));
    std::fs::write(&tables, &broken)?;
    let until = Instant::now() + Duration::from_secs(3);
    let report = loop {
        let (status, report) = client.get("/ready").await?;
        if status != 200 || Instant::now() > until {
            break report.to_string();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let line = 1 + broken[..broken.find("rule: alow").expect("the fault")].matches('\n').count();
    for (place, text) in [("/ready", &report), ("the log", &node.log())] {
        assert!(text.contains(&format!("tables.yaml:{line}:")), "{place} names file and line {line}: {text}");
        assert!(text.contains("spec.rules.read"), "{place} names the path: {text}");
    }
    let (status, _) = client.graphql("{ genre(limit: 1) { name } }", json!({})).await?;
    assert_ne!(status, 200, "the rule before the broken edit stays");

    std::fs::write(&tables, &before)?;
    genre_is(&client, true).await?;
    readers.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_reports_what_it_cannot_reach() -> anyhow::Result<()> {
    let fixture = Fixture::new(Engine::Sqlite).await?;
    let http = free_address()?;
    let peers = format!("peers: {{ crud: [\"http://{}\"] }}\n", free_address()?);
    let config = process::config(fixture.path(), http, free_address()?, &peers);
    let _node = Process::serve(
        fixture.path(),
        "lonely",
        &["gateway", "auth-rules", "realtime", "storage", "functions"],
        &config,
    )?;
    let client = Client::new(http, "shop").with_token(&token::customer(5));
    let until = Instant::now() + Duration::from_secs(10);
    let (status, report): (u16, Value) = loop {
        match client.get("/ready").await {
            Ok(answer) => break answer,
            Err(_) if Instant::now() < until => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(error) => return Err(error),
        }
    };
    assert_eq!(status, 503, "{report}");
    assert!(report.to_string().contains("crud"), "{report}");
    let (status, body) = client.post("crud/music/invoice/read", &json!({ "op": "all" })).await?;
    assert_eq!((status, &body["code"]), (503, &json!("UNAVAILABLE")), "{body}");
    let (status, _) = client.get("/live").await?;
    assert_eq!(status, 200);
    Ok(())
}
