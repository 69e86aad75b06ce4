//! Two gateways, two of crud, auth-rules, realtime and NATS, as processes that are killed while rows change and watches are
//! told of it: nothing is lost, told twice or out of order, and what may have been lost is said once.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{
    client::Client,
    engine::{Database, Engine},
    mesh::{OPEN_LAB, Setup, ready, set_up},
    nats::NatsServer,
    process::{self, Process, free_address},
    watching::{Asked, Change, Framing, Watching},
};

mod rolling;

/// Rows that are written to.
const ROWS: i64 = 20;
/// How long something may take until it is seen.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How much is done.
struct Budget {
    /// Times that the reader is killed.
    kills: usize,
    /// Transactions between two faults.
    transactions: usize,
    /// How long NATS is away.
    away: Duration,
}

fn budget() -> Budget {
    match std::env::var_os("PROVE") {
        Some(_) => Budget { kills: 10, transactions: 2000, away: Duration::from_secs(30) },
        None => Budget { kills: 2, transactions: 100, away: Duration::from_secs(4) },
    }
}

/// The mesh.
struct Nodes {
    nats: NatsServer,
    crud: [(Process, Client); 2],
    gateways: [(Process, Client); 2],
    /// Auth-rules and realtime.
    others: [(Process, Client); 2],
    lab: Database,
    folder: TempDir,
}

impl Nodes {
    async fn start() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let rows: Vec<String> = (1..=ROWS).map(|id| format!("({id}, 0)")).collect();
        let note = format!(
            "CREATE TABLE note (id BIGINT PRIMARY KEY, v BIGINT NOT NULL); INSERT INTO note VALUES {};",
            rows.join(", ")
        );
        let setup = Setup { lab: Some(note), resources: OPEN_LAB.to_owned(), ..Setup::default() };
        let (_, lab) = set_up(Engine::Postgres, folder.path(), &setup).await?;
        let nats = NatsServer::start(&folder.path().join("nats")).await?;
        let [auth, realtime, one, two, http_one, http_two] =
            [(); 6].map(|()| free_address()).into_iter().collect::<Result<Vec<_>, _>>()?[..]
        else {
            bail!("six addresses")
        };
        let called = format!("auth-rules: [\"http://{auth}\"], crud: [\"http://{one}\", \"http://{two}\"]");
        let peers = format!("peers: {{ {called} }}\n");
        let of_gateways = format!("peers: {{ {called}, realtime: [\"http://{realtime}\"] }}\n");
        let serve = |name: &str, service: &str, http: SocketAddr, mesh: SocketAddr, peers: &str| {
            let bus = format!("{peers}bus: {{ kind: nats, url: \"{}\" }}\n", nats.url());
            Process::serve(folder.path(), name, &[service], &process::config(folder.path(), http, mesh, &bus))
        };
        let crud = |name, address| {
            Ok::<_, anyhow::Error>((serve(name, "crud", free_address()?, address, "")?, Client::new(address, "shop")))
        };
        let gateway = |name, address| {
            let process = serve(name, "gateway", address, free_address()?, &of_gateways)?;
            Ok::<_, anyhow::Error>((process, Client::new(address, "shop")))
        };
        let other = |name: &str, service: &str, mesh, peers: &str| {
            Ok::<_, anyhow::Error>((serve(name, service, free_address()?, mesh, peers)?, Client::new(mesh, "shop")))
        };
        let others = [other("auth", "auth-rules", auth, "")?, other("realtime", "realtime", realtime, &peers)?];
        let crud = [crud("crud-one", one)?, crud("crud-two", two)?];
        let gateways = [gateway("gateway-one", http_one)?, gateway("gateway-two", http_two)?];
        for (_, client) in crud.iter().chain(&gateways).chain(&others) {
            ready(client).await?;
        }
        Ok(Self { nats, crud, gateways, others, lab: lab.context("a lab")?, folder })
    }

    fn clients(&self) -> [Client; 2] {
        [self.gateways[0].1.clone(), self.gateways[1].1.clone()]
    }

    /// The node of crud that reads the changes for both.
    async fn reader(&self) -> anyhow::Result<usize> {
        let until = Instant::now() + TIMEOUT;
        loop {
            for (index, (_, client)) in self.crud.iter().enumerate() {
                if metric(client, "perigee_changes_read").await.is_ok_and(|value| value > 0) {
                    return Ok(index);
                }
            }
            ensure!(Instant::now() < until, "no node reads the changes: {}", log(self.folder.path(), "crud-one"));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn log(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(format!("{name}.log"))).unwrap_or_default()
}

/// A number that a node tells of itself.
async fn metric(client: &Client, name: &str) -> anyhow::Result<i64> {
    let response = client.send(http::Method::GET, "/metrics", &[], "").await?;
    let text = std::str::from_utf8(response.body())?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(value.with_context(|| format!("{name} in {text}"))?.parse()?)
}

/// Transactions that change rows, beside all else, until told to stop.
struct Writer {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Writer {
    fn start(lab: &Database) -> Self {
        let (stop, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (lab, until, count) = (lab.clone(), stop.clone(), done.clone());
        let task = tokio::spawn(async move {
            let mut round = 0_i64;
            while !until.load(Ordering::Relaxed) {
                round += 1;
                let (id, next) = (1 + round % ROWS, 1 + (round * 7) % ROWS);
                lab.run(&format!(
                    "BEGIN; UPDATE note SET v = v + 1 WHERE id IN ({id}, {next}); \
                     INSERT INTO note VALUES ({}, 0); DELETE FROM note WHERE id = {}; COMMIT",
                    1000 + round,
                    1000 + round - 50,
                ))
                .await?;
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        Self { stop, done, task }
    }

    /// Waits for so many more transactions.
    async fn more(&self, count: usize) -> anyhow::Result<()> {
        let mut done = self.done.load(Ordering::Relaxed);
        let (wanted, mut until) = (done + count, Instant::now() + TIMEOUT);
        while done < wanted {
            ensure!(Instant::now() < until && !self.task.is_finished(), "writes go on");
            tokio::time::sleep(Duration::from_millis(5)).await;
            let before = std::mem::replace(&mut done, self.done.load(Ordering::Relaxed));
            if done > before {
                until = Instant::now() + TIMEOUT;
            }
        }
        Ok(())
    }

    async fn finish(self) -> anyhow::Result<usize> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await??;
        Ok(self.done.load(Ordering::Relaxed))
    }
}

/// What a watch was told.
#[derive(Debug, Default)]
struct Known {
    rows: BTreeMap<i64, Value>,
    changes: usize,
    resyncs: Vec<String>,
}

/// Follows all rows until one is told whose id is -1; each message has to fit those before.
async fn watch(client: Client, framing: Framing, ready: Arc<AtomicUsize>) -> anyhow::Result<Known> {
    let asked = Asked { find: json!({}), table: "note", columns: &["id", "v"], ..Asked::default() };
    let mut watching = Watching::begin(framing, &client, "", &asked).await?.map_err(anyhow::Error::msg)?;
    let mut known = Known::default();
    while !known.rows.contains_key(&-1) {
        // NATS may be away for half a minute.
        let change = loop {
            match tokio::time::timeout(TIMEOUT, watching.next()).await? {
                Err(error) if error.to_string() == "no message came" => {}
                next => break next?.map_err(|code| anyhow::anyhow!("{framing:?} ended with {code}"))?,
            }
        };
        let id = change.row["id"].as_i64().unwrap_or_default();
        known.changes += 1;
        match change.kind.as_str() {
            "READY" => _ = ready.fetch_add(1, Ordering::Relaxed),
            "RESYNC" => {
                known.rows.clear();
                known.resyncs.push(change.reason.context("a reason")?);
            }
            "INITIAL" | "INSERT" => {
                ensure!(known.rows.insert(id, change.row.clone()).is_none(), "{framing:?}: {id} is told twice");
            }
            "UPDATE" => {
                let before = known.rows.insert(id, change.row.clone());
                ensure!(before.as_ref() == Some(&change.before), "{framing:?}: {before:?} is not before {change:?}");
            }
            "DELETE" => {
                let before = known.rows.remove(&id);
                ensure!(before.as_ref() == Some(&change.before), "{framing:?}: {before:?} is not before {change:?}");
            }
            other => bail!("unexpected {other}"),
        }
    }
    Ok(known)
}

/// The rows that there are.
async fn rows(client: &Client) -> anyhow::Result<BTreeMap<i64, Value>> {
    let (_, mut answer) = client.graphql("{ note(sort: [id_asc]) { id v } }", json!({})).await?;
    let rows = answer["data"]["note"].take();
    let rows = rows.as_array().with_context(|| format!("rows: {answer}"))?;
    Ok(rows.iter().map(|row| (row["id"].as_i64().unwrap_or_default(), row.clone())).collect())
}

/// Watches of both gateways, by two protocols, while `fault` happens beside a writer; what they know in the end is what is there.
async fn exact<F>(nodes: &mut Nodes, mut fault: F) -> anyhow::Result<Vec<Known>>
where
    F: AsyncFnMut(&mut Nodes, &Writer) -> anyhow::Result<()>,
{
    let count = Arc::<AtomicUsize>::default();
    let watches: Vec<_> = nodes
        .clients()
        .into_iter()
        .flat_map(|client| [(client.clone(), Framing::Grpc), (client, Framing::Rest)])
        .map(|(client, framing)| tokio::spawn(watch(client, framing, count.clone())))
        .collect();
    nodes.reader().await?;
    let writer = Writer::start(&nodes.lab);
    let until = Instant::now() + TIMEOUT;
    while count.load(Ordering::Relaxed) < watches.len() {
        ensure!(Instant::now() < until, "{count:?} of {} watches are told all rows", watches.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    writer.more(20).await?;
    fault(nodes, &writer).await?;
    let transactions = writer.finish().await?;
    nodes.lab.run("INSERT INTO note VALUES (-1, 0)").await?;
    let there = rows(&nodes.clients()[0]).await?;
    let mut all = Vec::new();
    for watch in watches {
        let known = watch.await??;
        ensure!(known.rows == there, "{:?}\n{there:?}", known.rows);
        all.push(known);
    }
    let changes = all.iter().map(|known| known.changes).collect::<Vec<_>>();
    eprintln!("{transactions} transactions; changes told: {changes:?}");
    Ok(all)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_killed_is_followed_by_the_other_without_a_loss() -> anyhow::Result<()> {
    let (mut nodes, budget) = (Nodes::start().await?, budget());
    let all = exact(&mut nodes, async |nodes, writer| {
        for _ in 0..budget.kills {
            let reader = nodes.reader().await?;
            nodes.crud[reader].0.kill()?;
            writer.more(budget.transactions).await?;
            let begun = Instant::now();
            let other = 1 - reader;
            while metric(&nodes.crud[other].1, "perigee_changes_read").await? == 0 {
                ensure!(begun.elapsed() < TIMEOUT, "the other takes over");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            nodes.crud[reader].0.restart()?;
            ready(&nodes.crud[reader].1).await?;
            writer.more(budget.transactions).await?;
        }
        Ok(())
    })
    .await?;
    for known in all {
        assert_eq!(known.resyncs, Vec::<String>::new());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stands_still_is_followed_by_the_other_on_the_same_slot() -> anyhow::Result<()> {
    let mut nodes = Nodes::start().await?;
    let all = exact(&mut nodes, async |nodes, writer| {
        let reader = nodes.reader().await?;
        let (paused, other) = (&nodes.crud[reader].0, &nodes.crud[1 - reader]);
        paused.signal("STOP")?;
        writer.more(20).await?;
        let begun = Instant::now();
        while metric(&other.1, "perigee_changes_read").await? == 0 {
            ensure!(begun.elapsed() < TIMEOUT, "the other takes over");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // The slot is what the changes are read from, not triggers: it has another reader.
        let is_read = "SELECT count(*) FROM pg_replication_slots WHERE active AND database = current_database()";
        while !other.0.log().contains("is ended") || nodes.lab.number(is_read).await? == 0 {
            ensure!(begun.elapsed() < TIMEOUT, "the reader before is ended: {}", other.0.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        writer.more(20).await?;
        paused.signal("CONT")?;
        writer.more(100).await
    })
    .await?;
    for known in all {
        assert_eq!(known.resyncs, Vec::<String>::new());
    }
    for (node, _) in &nodes.crud {
        assert!(!node.log().contains("source=\"triggers\""), "{}", node.log());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_go_on_while_nats_is_away_and_watches_after_it_without_a_loss() -> anyhow::Result<()> {
    let (mut nodes, budget) = (Nodes::start().await?, budget());
    let all = exact(&mut nodes, async |nodes, writer| {
        nodes.nats.kill()?;
        let away = Instant::now();
        let [one, two] = nodes.clients();
        let mutation = "mutation { update_note(where: {id: {_eq: 3}}, set: {v: 7}) { affected } }";
        let mut is_degraded = false;
        while away.elapsed() < budget.away || !is_degraded {
            ensure!(away.elapsed() < TIMEOUT, "nodes know that NATS is away");
            let (_, answer) = two.graphql(mutation, json!({})).await?;
            assert_eq!(answer["data"]["update_note"]["affected"], 1, "{answer}");
            let (status, answer) = one.get("/ready").await?;
            assert_eq!((status, &answer["ready"]), (200, &json!(true)), "{answer}");
            is_degraded |= answer["degraded"] == json!(["bus"]) && answer["parts"]["bus"]["ready"] == false;
            writer.more(5).await?;
        }
        assert_eq!(metric(&one, "perigee_bus_connected").await?, 0);
        nodes.nats.restart().await?;
        writer.more(budget.transactions).await?;
        nodes.reader().await?;
        let until = Instant::now() + TIMEOUT;
        while metric(&one, "perigee_bus_connected").await? == 0 || one.get("/ready").await?.1.get("degraded").is_some()
        {
            ensure!(Instant::now() < until, "the bus is connected again");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(metric(&one, "perigee_bus_reconnects_total").await? > 0);
        Ok(())
    })
    .await?;
    for known in all {
        assert_eq!(known.resyncs, Vec::<String>::new());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_nats_has_lost_is_one_resync_at_most_and_all_is_exact_afterwards() -> anyhow::Result<()> {
    let (mut nodes, budget) = (Nodes::start().await?, budget());
    let all = exact(&mut nodes, async |nodes, writer| {
        nodes.nats.kill()?;
        nodes.nats.lose_data()?;
        writer.more(20).await?;
        nodes.nats.restart().await?;
        writer.more(budget.transactions).await?;
        nodes.reader().await?;
        writer.more(budget.transactions).await
    })
    .await?;
    for known in all {
        // None where the log of the database tells again all that NATS has lost.
        assert!(known.resyncs.is_empty() || known.resyncs == ["log_lost"], "{:?}", known.resyncs);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_starts_without_nats_and_waits_for_it() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let setup = Setup {
        lab: Some("CREATE TABLE note (id BIGINT PRIMARY KEY, v BIGINT);".to_owned()),
        resources: OPEN_LAB.to_owned(),
        ..Setup::default()
    };
    let (_, lab) = set_up(Engine::Postgres, folder.path(), &setup).await?;
    let lab = lab.context("a lab")?;
    let mut nats = NatsServer::start(&folder.path().join("nats")).await?;
    nats.kill()?;
    let http = free_address()?;
    let bus = format!("bus: {{ kind: nats, url: \"{}\", token: hush-hush }}\n", nats.url());
    let config = process::config(folder.path(), http, free_address()?, &bus);
    let node = Process::serve(folder.path(), "all", &[], &config)?;
    let client = Client::new(http, "shop");
    ready(&client).await?;
    let (_, answer) = client.get("/ready").await?;
    assert_eq!(answer["degraded"], json!(["bus"]), "{answer}");
    let asked = Asked { find: json!({}), table: "note", columns: &["id", "v"], ..Asked::default() };
    let watching = Watching::begin(Framing::Grpc, &client, "", &asked);
    let started = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        nats.restart().await
    };
    let (watching, started) = tokio::join!(watching, started);
    started?;
    let mut watching = watching?.map_err(anyhow::Error::msg)?;
    watching.until_ready().await?;
    lab.run("INSERT INTO note VALUES (1, 2)").await?;
    let change = watching.next().await?.map_err(anyhow::Error::msg)?;
    assert_eq!((change.kind.as_str(), &change.row), ("INSERT", &json!({ "id": 1, "v": 2 })));
    assert!(!node.log().contains("hush"), "a secret is in the log");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_jetstream_is_named_until_it_has_it() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let setup = Setup {
        lab: Some("CREATE TABLE note (id BIGINT PRIMARY KEY, v BIGINT);".to_owned()),
        resources: OPEN_LAB.to_owned(),
        ..Setup::default()
    };
    let (_, lab) = set_up(Engine::Postgres, folder.path(), &setup).await?;
    let lab = lab.context("a lab")?;
    let mut nats = NatsServer::without_jetstream(&folder.path().join("plain")).await?;
    let (address, http) = (nats.address, free_address()?);
    let bus = format!("bus: {{ kind: nats, url: \"{}\" }}\n", nats.url());
    let config = process::config(folder.path(), http, free_address()?, &bus);
    let node = Process::serve(folder.path(), "all", &[], &config)?;
    let client = Client::new(http, "shop");
    ready(&client).await?;
    let watched = client.clone();
    let watching = tokio::spawn(async move {
        let asked = Asked { find: json!({}), table: "note", columns: &["id", "v"], ..Asked::default() };
        Watching::begin(Framing::Grpc, &watched, "", &asked).await
    });
    let until = Instant::now() + TIMEOUT;
    loop {
        let (status, answer) = client.get("/ready").await?;
        assert_eq!(status, 200, "{answer}");
        if answer["parts"]["bus"].to_string().contains("JetStream of NATS does not open") {
            break;
        }
        ensure!(Instant::now() < until, "{answer} {}", node.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(node.log().contains("JetStream refuses"), "{}", node.log());
    nats.kill()?;
    let _nats = NatsServer::start_at(&folder.path().join("nats"), address).await?;
    let mut watching = watching.await??.map_err(anyhow::Error::msg)?;
    watching.until_ready().await?;
    lab.run("INSERT INTO note VALUES (1, 2)").await?;
    let change = watching.next().await?.map_err(anyhow::Error::msg)?;
    assert_eq!((change.kind.as_str(), &change.row), ("INSERT", &json!({ "id": 1, "v": 2 })));
    let (_, answer) = client.get("/ready").await?;
    assert_eq!(answer.get("degraded"), None, "{answer}");
    Ok(())
}
