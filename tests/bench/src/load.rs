//! A lean load generator: a fixed number of requests is under way.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::grpc::{self, Calls};

/// Requests under way at once.
const CONCURRENCY: usize = 32;
/// Those of gRPC share connections, as many each.
const STREAMS: usize = 8;

/// What a client sends, again and again.
#[derive(Debug, Clone)]
pub enum Requests {
    /// Whole HTTP/1.1 requests, taken in turn.
    Http(Vec<Vec<u8>>),
    /// Calls of gRPC.
    Grpc(Calls),
}

/// What one round measured.
#[derive(Debug, Clone)]
pub struct Round {
    /// Answers per second.
    pub per_second: f64,
    /// Half of the answers took at most this long.
    pub p50: Duration,
    /// 99 of 100 answers took at most this long.
    pub p99: Duration,
    /// Answers in all.
    pub answers: u64,
}

/// Loads a loopback port for a while. Every answer must be a success.
pub async fn round(port: u16, requests: &Requests, lasting: Duration) -> anyhow::Result<Round> {
    let until = Instant::now() + lasting;
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CONCURRENCY / requests.streams() {
        let requests = requests.clone();
        clients.spawn(async move { Client::open(port, requests, first(client)).await?.until(until).await });
    }
    let began = Instant::now();
    let mut times = Vec::new();
    while let Some(client) = clients.join_next().await {
        times.extend(client??);
    }
    let elapsed = began.elapsed();
    ensure!(!times.is_empty(), "no answer within {lasting:?}");
    times.sort_unstable();
    Ok(Round {
        per_second: times.len() as f64 / elapsed.as_secs_f64(),
        p50: times[times.len() / 2],
        p99: times[times.len() * 99 / 100],
        answers: times.len() as u64,
    })
}

impl Requests {
    /// How many are under way on one connection.
    fn streams(&self) -> usize {
        match self {
            Self::Http(_) => 1,
            Self::Grpc(_) => STREAMS,
        }
    }
}

/// A client on a connection of its own.
pub enum Client {
    /// HTTP/1.1, with one request under way.
    Http(HttpConnection),
    /// gRPC.
    Grpc(grpc::Connection),
}

/// A connection of HTTP/1.1, and what is sent on it.
pub struct HttpConnection {
    stream: TcpStream,
    requests: Vec<Vec<u8>>,
    turn: usize,
    answer: Vec<u8>,
}

impl Client {
    /// Connects; begins with the first request.
    pub async fn connect(port: u16, requests: Requests) -> anyhow::Result<Self> {
        Self::open(port, requests, 0).await
    }

    async fn open(port: u16, requests: Requests, turn: usize) -> anyhow::Result<Self> {
        let requests = match requests {
            Requests::Grpc(calls) => return Ok(Self::Grpc(grpc::Connection::open(port, calls, turn).await?)),
            Requests::Http(requests) => requests,
        };
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self::Http(HttpConnection { stream, requests, turn, answer: Vec::with_capacity(64 * 1024) }))
    }

    /// Sends the next `count` requests, each when the one before is answered.
    pub async fn send(&mut self, count: usize) -> anyhow::Result<()> {
        for _ in 0..count {
            match self {
                Self::Http(connection) => connection.next().await?,
                Self::Grpc(connection) => {
                    connection.begin();
                    while connection.ended().await?.is_empty() {}
                }
            }
        }
        Ok(())
    }

    /// Begins with the first request again.
    pub fn rewind(&mut self) {
        match self {
            Self::Http(connection) => connection.turn = 0,
            Self::Grpc(connection) => connection.rewind(),
        }
    }

    /// Sends until the time is up; how long each answer took.
    async fn until(&mut self, until: Instant) -> anyhow::Result<Vec<Duration>> {
        match self {
            Self::Http(connection) => connection.until(until).await,
            Self::Grpc(connection) => calls_until(connection, until).await,
        }
    }
}

impl HttpConnection {
    async fn until(&mut self, until: Instant) -> anyhow::Result<Vec<Duration>> {
        let mut times = Vec::new();
        loop {
            let began = Instant::now();
            if began >= until {
                return Ok(times);
            }
            self.next().await?;
            times.push(began.elapsed());
        }
    }

    async fn next(&mut self) -> anyhow::Result<()> {
        let turn = self.turn;
        self.turn += 1;
        self.stream.write_all(&self.requests[turn % self.requests.len()]).await?;
        exchange(&mut self.stream, &mut self.answer).await
    }
}

async fn calls_until(connection: &mut grpc::Connection, until: Instant) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::new();
    (0..STREAMS).for_each(|_| connection.begin());
    while connection.running() > 0 {
        for began in connection.ended().await? {
            times.push(began.elapsed());
            if Instant::now() < until {
                connection.begin();
            }
        }
    }
    Ok(times)
}

/// Reads one answer with a content length and checks that it is a success without errors.
async fn exchange(stream: &mut TcpStream, answer: &mut Vec<u8>) -> anyhow::Result<()> {
    answer.clear();
    let head = loop {
        ensure!(stream.read_buf(answer).await? > 0, "the server hung up");
        if let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let text = std::str::from_utf8(&answer[..head])?.to_ascii_lowercase();
    let length: usize = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .context("an answer without content length")?
        .trim()
        .parse()?;
    while answer.len() < head + length {
        ensure!(stream.read_buf(answer).await? > 0, "the server hung up");
    }
    let body = &answer[head..];
    ensure!(
        text.starts_with("http/1.1 200") && !body.starts_with(br#"{"errors""#),
        "a failure: {}",
        String::from_utf8_lossy(&answer[..answer.len().min(600)])
    );
    Ok(())
}

/// Where a client begins in its list, so that they do not all ask for the same at once.
fn first(client: usize) -> usize {
    client * 7919
}
