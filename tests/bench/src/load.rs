//! A lean load generator: a fixed number of connections, each with one request under way.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use proto::api::v1::{CreateRequest, ReadRequest, data_client::DataClient};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::{metadata::AsciiMetadataValue, transport::Channel};

/// Connections at once.
pub const CONNECTIONS: usize = 32;

/// What a client sends, again and again.
#[derive(Debug, Clone)]
pub enum Requests {
    /// Whole HTTP/1.1 requests, taken in turn.
    Http(Vec<Vec<u8>>),
    /// gRPC reads, taken in turn, with a token.
    GrpcRead(Vec<ReadRequest>, String),
    /// gRPC creates, taken in turn, with a token.
    GrpcCreate(Vec<CreateRequest>, String),
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
    let channels = channels(port, requests).await?;
    for client in 0..CONNECTIONS {
        let requests = requests.clone();
        let channel = channels.get(client % channels.len().max(1)).cloned();
        clients.spawn(async move {
            let mut client =
                Client { connection: Connection::open(port, channel).await?, requests, turn: first(client) };
            client.until(until).await
        });
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

async fn channels(port: u16, requests: &Requests) -> anyhow::Result<Vec<Channel>> {
    let mut channels = Vec::new();
    if !matches!(requests, Requests::Http(_)) {
        for _ in 0..4 {
            channels.push(channel(port).await?);
        }
    }
    Ok(channels)
}

async fn channel(port: u16) -> anyhow::Result<Channel> {
    Ok(Channel::from_shared(format!("http://127.0.0.1:{port}"))?.connect().await?)
}

/// A client with one request under way on one connection.
pub struct Client {
    connection: Connection,
    requests: Requests,
    turn: usize,
}

enum Connection {
    Http { stream: TcpStream, answer: Vec<u8> },
    Grpc(Box<DataClient<Channel>>),
}

impl Connection {
    async fn open(port: u16, channel: Option<Channel>) -> anyhow::Result<Self> {
        if let Some(channel) = channel {
            return Ok(Self::Grpc(Box::new(DataClient::new(channel))));
        }
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self::Http { stream, answer: Vec::with_capacity(64 * 1024) })
    }
}

impl Client {
    /// Connects on a connection of its own.
    pub async fn connect(port: u16, requests: Requests) -> anyhow::Result<Self> {
        let channel = match requests {
            Requests::Http(_) => None,
            Requests::GrpcRead(..) | Requests::GrpcCreate(..) => Some(channel(port).await?),
        };
        Ok(Self { connection: Connection::open(port, channel).await?, requests, turn: 0 })
    }

    /// Sends the next `count` requests, each when the one before is answered.
    pub async fn send(&mut self, count: usize) -> anyhow::Result<()> {
        for _ in 0..count {
            self.next().await?;
        }
        Ok(())
    }

    /// Begins with the first request again.
    pub fn rewind(&mut self) {
        self.turn = 0;
    }

    /// Sends until the time is up; how long each answer took.
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
        match (&mut self.connection, &self.requests) {
            (Connection::Http { stream, answer }, Requests::Http(requests)) => {
                stream.write_all(&requests[turn % requests.len()]).await?;
                exchange(stream, answer).await
            }
            (Connection::Grpc(data), Requests::GrpcRead(reads, token)) => {
                data.read(authorised(reads[turn % reads.len()].clone(), token)?).await?;
                Ok(())
            }
            (Connection::Grpc(data), Requests::GrpcCreate(creates, token)) => {
                data.create(authorised(creates[turn % creates.len()].clone(), token)?).await?;
                Ok(())
            }
            (Connection::Grpc(_), Requests::Http(_)) | (Connection::Http { .. }, _) => {
                bail!("these requests take another connection")
            }
        }
    }
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

fn authorised<T>(message: T, token: &str) -> anyhow::Result<tonic::Request<T>> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("authorization", AsciiMetadataValue::try_from(format!("Bearer {token}"))?);
    Ok(request)
}

/// Where a client begins in its list, so that they do not all ask for the same at once.
fn first(client: usize) -> usize {
    client * 7919
}
