//! A node under clients that hold on to what they get. `PROVE=1` runs it with the numbers that are promised.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use serde_json::json;
use tests::{
    client::Client,
    engine::Engine,
    mesh::{Setup, ready, set_up},
    process::{self, Process, free_address},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
};

const PAGES: &str = r#"
kind: table
meta: { project: shop, database: lab, id: page }
spec:
  rules:
    read: { rule: allow }
"#;

/// The bytes of a page.
const PAGE: usize = 10_000;

/// What a slow reader takes at a time, and how often.
const SLOW_BYTES: usize = 1024;
const SLOW_INTERVAL: Duration = Duration::from_secs(1);

const MEMORY: u64 = 800 << 20;

/// How hard the node is tried.
struct Load {
    readers: usize,
    idle: usize,
    time: Duration,
    /// Time that ninety-nine of a hundred point reads take at most. The small run shares the machine with other tests.
    p99: Duration,
    /// Pages in an answer.
    pages: usize,
    limits: &'static str,
}

impl Load {
    fn new() -> Self {
        match std::env::var_os("PROVE") {
            Some(_) => Self {
                readers: 500,
                idle: 5000,
                time: Duration::from_secs(60),
                p99: Duration::from_secs(1),
                pages: 500,
                limits: "",
            },
            None => Self {
                readers: 50,
                idle: 500,
                time: Duration::from_secs(4),
                p99: Duration::from_secs(10),
                pages: 40,
                limits: "limits: { unsent_bytes: 4194304 }\n",
            },
        }
    }

    fn pages(&self) -> String {
        let (pages, half) = (self.pages, PAGE / 2);
        format!(
            "CREATE TABLE page (id BIGINT PRIMARY KEY, body TEXT);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {pages})
             INSERT INTO page SELECT i, hex(zeroblob({half})) FROM n;"
        )
    }
}

/// How the answers of slow readers ended.
#[derive(Default)]
struct Ended {
    refused: AtomicUsize,
    cut: AtomicUsize,
}

/// Asks for all pages again and again, and takes them as slowly as it can.
async fn read_slowly(address: SocketAddr, stop: Arc<AtomicBool>, ended: Arc<Ended>) -> anyhow::Result<()> {
    let body = r#"{"op":"all"}"#;
    let request = format!(
        "POST /v1/api/shop/crud/lab/page/read HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    while !stop.load(Ordering::Relaxed) {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(SLOW_BYTES as u32)?;
        let mut socket = socket.connect(address).await?;
        socket.write_all(request.as_bytes()).await?;
        let mut piece = [0; SLOW_BYTES];
        let mut first = None;
        // An error is the end as well: a connection that is cut with bytes under way is reset.
        while let Ok(count @ 1..) = socket.read(&mut piece).await {
            let is_refused = piece[..count].starts_with(b"HTTP/1.1 503");
            first.get_or_insert(is_refused);
            if is_refused || stop.load(Ordering::Relaxed) {
                break;
            }
            tokio::time::sleep(SLOW_INTERVAL).await;
        }
        if first == Some(true) {
            ended.refused.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(SLOW_INTERVAL).await;
        } else if !stop.load(Ordering::Relaxed) {
            ended.cut.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// Reads single rows for `time`; how long each took.
async fn point_reads(client: &Client, time: Duration) -> anyhow::Result<Vec<Duration>> {
    let until = Instant::now() + time;
    let mut times = Vec::new();
    while Instant::now() < until {
        let began = Instant::now();
        let query = "query($id: Int) { genre(where: {genre_id: $id}) { name } }";
        let (status, body) = client.graphql(query, json!({ "id": 1 + times.len() % 20 })).await?;
        ensure!(status == 200, "{status} {body}");
        times.push(began.elapsed());
    }
    times.sort();
    Ok(times)
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_readers_and_idle_connections_leave_point_reads_alone() -> anyhow::Result<()> {
    let load = Load::new();
    let folder = tempfile::tempdir()?;
    let setup = Setup { lab: Some(load.pages()), resources: PAGES.to_owned(), ..Setup::default() };
    set_up(Engine::Sqlite, folder.path(), &setup).await?;
    let http = free_address()?;
    let config = process::config(folder.path(), http, free_address()?, "") + load.limits;
    let node = Process::serve(folder.path(), "node", &[], &config)?;
    let client = Client::new(http, "shop");
    ready(&client).await?;
    let (status, pages) = client.post("crud/lab/page/read", &json!({ "op": "all" })).await?;
    ensure!(status == 200 && pages.to_string().len() > load.pages * PAGE, "{status}: an answer has all pages");

    let mut idle = Vec::with_capacity(load.idle);
    for _ in 0..load.idle {
        idle.push(TcpStream::connect(http).await.context("an idle connection")?);
    }
    let (stop, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(Ended::default()));
    let mut readers = JoinSet::new();
    for _ in 0..load.readers {
        readers.spawn(read_slowly(http, stop.clone(), ended.clone()));
    }
    let times = point_reads(&client, load.time).await?;
    let metrics = client.send(http::Method::GET, "/metrics", &[], "").await?;
    let metrics = String::from_utf8_lossy(metrics.body()).into_owned();
    stop.store(true, Ordering::Relaxed);

    let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    let (memory, refused) = (node.peak_memory()?, ended.refused.load(Ordering::Relaxed));
    let cut = ended.cut.load(Ordering::Relaxed);
    println!(
        "{} point reads, p50 {p50:?}, p99 {p99:?}; peak of {} MB; {refused} answers refused, {cut} cut",
        times.len(),
        memory >> 20
    );
    assert!(p99 < load.p99, "p99 is {p99:?}");
    assert!(memory < MEMORY, "{memory} bytes were used");
    assert!(refused + cut > 0, "the budget was never full: {metrics}");
    let shed = metrics.lines().find_map(|line| line.strip_prefix("perigee_shed_total{limit=\"unsent_bytes\"} "));
    assert!(shed.context("it is counted")?.parse::<u64>()? > 0, "{metrics}");
    while let Some(ended) = readers.join_next().await {
        ended??;
    }
    Ok(())
}
