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

/// Subscribers of a row each. Dropped, they leave.
pub struct Subscribers {
    /// When the number of a transaction was told.
    told: Arc<Mutex<HashMap<usize, Instant>>>,
    _clients: JoinSet<anyhow::Result<()>>,
}

type Socket = WebSocketStream<TcpStream>;

impl Subscribers {
    /// Subscribers of these rows, once each has the first answer.
    pub async fn begin(port: u16, token: &str, framing: Framing, rows: RangeInclusive<usize>) -> anyhow::Result<Self> {
        let told = Arc::new(Mutex::new(HashMap::new()));
        let mut clients = JoinSet::new();
        let rows: Vec<usize> = rows.collect();
        match framing {
            Framing::Lines => {
                for row in rows {
                    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
                    let request = format!("GET /live?rank={row} HTTP/1.1\r\nhost: localhost\r\n\r\n");
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
                    tokio::time::timeout(BEGIN_TIMEOUT, subscribe(&mut socket, framing, rows)).await??;
                    clients.spawn(messages(socket, told.clone()));
                }
            }
        }
        Ok(Self { told, _clients: clients })
    }

    /// From each commit until it was told, of those that were.
    pub fn latencies(&self, commits: &Commits) -> Vec<Duration> {
        let told = self.told.lock().expect("no code panics while it holds this lock");
        let latency = |(number, commit): (usize, &Instant)| Some(told.get(&number)?.saturating_duration_since(*commit));
        commits.iter().enumerate().filter_map(latency).collect()
    }
}

/// Waits until a server that has just been started answers.
pub async fn ready(port: u16, token: &str) -> anyhow::Result<()> {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let mut socket = connect(port, token).await?;
        match subscribe(&mut socket, Framing::Answers, &[1]).await {
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

async fn subscribe(socket: &mut Socket, framing: Framing, rows: &[usize]) -> anyhow::Result<()> {
    for row in rows {
        let query = match framing {
            Framing::Changes => format!("note_changes(where: {{rank: {{_eq: {row}}}}}) {{ type row {{ body }} }}"),
            _ => format!("note(where: {{rank: {{_eq: {row}}}}}, sort: [note_id_desc], limit: 1) {{ note_id body }}"),
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

async fn messages(mut socket: Socket, told: Arc<Mutex<HashMap<usize, Instant>>>) -> anyhow::Result<()> {
    loop {
        note(&text(&mut socket).await?, &told);
    }
}

async fn lines(mut stream: TcpStream, told: Arc<Mutex<HashMap<usize, Instant>>>) -> anyhow::Result<()> {
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
fn note(message: &str, told: &Mutex<HashMap<usize, Instant>>) {
    let number = message.split(r#""body":""#).nth(1).and_then(|rest| rest.split('"').next()?.parse().ok());
    if let Some(number) = number {
        let mut told = told.lock().expect("no code panics while it holds this lock");
        told.entry(number).or_insert_with(Instant::now);
    }
}
