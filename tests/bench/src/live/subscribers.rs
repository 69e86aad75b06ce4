//! Subscribers: clients of live queries over real sockets, which note when what is told came.

use std::{
    collections::HashMap,
    ops::RangeInclusive,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use futures::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};
use tokio_tungstenite::{WebSocketStream, client_async};
use tungstenite::{Message, client::IntoClientRequest, http::HeaderValue};

use super::writers::Commits;

/// Live queries on one WebSocket.
const PER_SOCKET: usize = 100;
/// Time until all of them are answered.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(120);

/// What tells changes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Framing {
    /// GraphQL over a WebSocket: whole answers.
    Answers,
    /// GraphQL over a WebSocket: changes of rows.
    Changes,
    /// Lines of server-sent events, a connection for each.
    Lines,
}

/// What subscribers ask for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Asked {
    /// A note by its rank.
    Note,
    /// A post by its rank, with its topic, which it shares with all others.
    Post,
}

impl Asked {
    /// Where servers by hand tell of it.
    fn path(self) -> &'static str {
        match self {
            Asked::Note => "live",
            Asked::Post => "joined",
        }
    }

    /// It as a selection.
    fn selection(self, row: usize) -> String {
        let of = |table: &str, selected: &str| {
            format!(
                "{table}(where: {{rank: {{_eq: {row}}}}}, sort: [{table}_id_desc], limit: 1) {{ {table}_id {selected} }}"
            )
        };
        match self {
            Asked::Note => of("note", "body"),
            Asked::Post => of("post", "topic { body }"),
        }
    }
}

/// Subscribers of a row each. Dropped, they leave.
pub struct Subscribers {
    /// When the number of a transaction was told, to each to whom it was.
    told: Arc<Mutex<Told>>,
    _clients: JoinSet<anyhow::Result<()>>,
}

type Socket = WebSocketStream<TcpStream>;
type Told = HashMap<usize, Vec<Instant>>;

impl Subscribers {
    /// Subscribers of these rows, once each has the first answer.
    pub async fn begin(
        port: u16,
        token: &str,
        (framing, asked): (Framing, Asked),
        rows: RangeInclusive<usize>,
    ) -> anyhow::Result<Self> {
        let told = Arc::new(Mutex::new(Told::new()));
        let mut clients = JoinSet::new();
        let rows: Vec<usize> = rows.collect();
        match framing {
            Framing::Lines => {
                for row in rows {
                    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
                    let request = format!("GET /{}?rank={row} HTTP/1.1\r\nhost: localhost\r\n\r\n", asked.path());
                    stream.write_all(request.as_bytes()).await?;
                    let mut received = Vec::new();
                    while !received.windows(2).any(|pair| pair == b"}\n") {
                        ensure!(stream.read_buf(&mut received).await? > 0, "the server hung up");
                    }
                    clients.spawn(lines(stream, told.clone()));
                }
            }
            Framing::Answers | Framing::Changes => {
                for rows in rows.chunks(PER_SOCKET) {
                    let mut socket = connect(port, token).await?;
                    tokio::time::timeout(BEGIN_TIMEOUT, subscribe(&mut socket, (framing, asked), rows)).await??;
                    clients.spawn(messages(socket, told.clone()));
                }
            }
        }
        Ok(Self { told, _clients: clients })
    }

    /// From each commit until each was told to whom it was.
    pub fn latencies(&self, commits: &Commits) -> Vec<Duration> {
        let told = self.told.lock().expect("no code panics while it holds this lock");
        let latencies = |(number, commit): (usize, &Instant)| {
            let times = told.get(&number).map_or(&[][..], Vec::as_slice);
            times.iter().map(|time| time.saturating_duration_since(*commit)).collect::<Vec<_>>()
        };
        commits.iter().enumerate().flat_map(latencies).collect()
    }
}

/// A follower of the changes of the first note.
pub struct Follower {
    socket: Socket,
}

impl Follower {
    /// Follows them after a position; from now on, where it is empty.
    pub async fn begin(port: u16, token: &str, position: &str) -> anyhow::Result<Self> {
        let mut socket = connect(port, token).await?;
        let after = if position.is_empty() { String::new() } else { format!(", after: \\\"{position}\\\"") };
        let query = format!(
            "note_changes(where: {{rank: {{_eq: 1}}}}, initial: false{after}) {{ type reason row {{ body }} position }}"
        );
        let message = format!(r#"{{"type":"subscribe","id":"1","payload":{{"query":"subscription {{ {query} }}"}}}}"#);
        socket.send(Message::Text(message.into())).await?;
        let message = text(&mut socket).await?;
        ensure!(message.contains("READY"), "{message}");
        Ok(Self { socket })
    }

    /// Waits until the body is told; the position of that.
    pub async fn until(&mut self, body: &str) -> anyhow::Result<String> {
        loop {
            let message = text(&mut self.socket).await?;
            ensure!(message.contains("UPDATE"), "{message}");
            if message.contains(&format!(r#""body":"{body}""#)) {
                let position = message.split(r#""position":""#).nth(1).and_then(|rest| rest.split('"').next());
                return Ok(position.context("a position")?.to_owned());
            }
        }
    }
}

/// Waits until a server that has just been started answers.
pub async fn ready(port: u16, token: &str) -> anyhow::Result<()> {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let mut socket = connect(port, token).await?;
        match subscribe(&mut socket, (Framing::Answers, Asked::Note), &[1]).await {
            Ok(()) => return Ok(()),
            Err(failure) if Instant::now() > until => return Err(failure.context("no first answer")),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn connect(port: u16, token: &str) -> anyhow::Result<Socket> {
    let mut request = format!("ws://127.0.0.1:{port}/v1/api/shop/graphql").into_client_request()?;
    let protocol = HeaderValue::from_static("graphql-transport-ws");
    request.headers_mut().insert("sec-websocket-protocol", protocol);
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    let (mut socket, _) = client_async(request, stream).await?;
    let begin = format!(r#"{{"type":"connection_init","payload":{{"authorization":"Bearer {token}"}}}}"#);
    socket.send(Message::Text(begin.into())).await?;
    let acknowledged = text(&mut socket).await?;
    ensure!(acknowledged.contains("connection_ack"), "{acknowledged}");
    Ok(socket)
}

async fn subscribe(socket: &mut Socket, (framing, asked): (Framing, Asked), rows: &[usize]) -> anyhow::Result<()> {
    for row in rows {
        let query = match framing {
            Framing::Changes => format!("note_changes(where: {{rank: {{_eq: {row}}}}}) {{ type row {{ body }} }}"),
            Framing::Answers | Framing::Lines => asked.selection(*row),
        };
        let message =
            format!(r#"{{"type":"subscribe","id":"{row}","payload":{{"query":"subscription {{ {query} }}"}}}}"#);
        socket.send(Message::Text(message.into())).await?;
    }
    let mut answered = 0;
    while answered < rows.len() {
        let message = text(socket).await?;
        ensure!(message.contains(r#""type":"next""#), "{message}");
        let is_first = framing != Framing::Changes || message.contains("READY");
        answered += usize::from(is_first);
    }
    Ok(())
}

async fn text(socket: &mut Socket) -> anyhow::Result<String> {
    loop {
        match socket.next().await.context("the server hung up")?? {
            Message::Text(text) => return Ok(text.as_str().to_owned()),
            Message::Close(frame) => bail!("closed: {frame:?}"),
            _ => {}
        }
    }
}

async fn messages(mut socket: Socket, told: Arc<Mutex<Told>>) -> anyhow::Result<()> {
    loop {
        note(&text(&mut socket).await?, &told);
    }
}

async fn lines(mut stream: TcpStream, told: Arc<Mutex<Told>>) -> anyhow::Result<()> {
    let mut received = Vec::new();
    loop {
        ensure!(stream.read_buf(&mut received).await? > 0, "the server hung up");
        while let Some(end) = received.windows(2).position(|pair| pair == b"}\n") {
            note(&String::from_utf8_lossy(&received[..end]), &told);
            received.drain(..end + 2);
        }
    }
}

/// Notes the number that the body of a row is.
fn note(message: &str, told: &Mutex<Told>) {
    let number = message.split(r#""body":""#).nth(1).and_then(|rest| rest.split('"').next()?.parse().ok());
    if let Some(number) = number {
        let mut told = told.lock().expect("no code panics while it holds this lock");
        told.entry(number).or_default().push(Instant::now());
    }
}
