//! An HTTP server of a user: it keeps what it was asked, and answers as its paths say.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::Context;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinHandle,
};

/// A server on a free port of this machine; it ends when dropped.
pub(crate) struct Listening {
    pub(crate) address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Listening {
    /// Serves each connection to a free port by `serve`. What a caller breaks off is its own affair.
    pub(crate) async fn start<S>(serve: impl Fn(TcpStream) -> S + Send + 'static) -> anyhow::Result<Self>
    where
        S: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        Self::at(([127, 0, 0, 1], 0).into(), serve).await
    }

    async fn at<S>(address: SocketAddr, serve: impl Fn(TcpStream) -> S + Send + 'static) -> anyhow::Result<Self>
    where
        S: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let accepting = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let served = serve(socket);
                tokio::spawn(async move { drop(served.await) });
            }
        });
        Ok(Self { address, accepting })
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A running server; it ends when dropped.
pub struct UserServer {
    listening: Listening,
    state: Arc<State>,
}

/// A request that it got.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// The method.
    pub method: String,
    /// The path with its query, as it was sent.
    pub path: String,
    /// Headers by their names in lower case, several values joined by commas.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Value,
    /// The body, as it was sent.
    pub text: String,
}

struct State {
    seen: Mutex<Vec<Seen>>,
    /// Requests that wait, and callers that left while they did.
    waiting: watch::Sender<(usize, usize)>,
    /// Lets requests to `/wait` go on.
    released: Semaphore,
    /// Requests to `/flaky`.
    flaky: AtomicUsize,
    /// What paths answer with, in the place of anything else.
    says: Mutex<BTreeMap<String, String>>,
}

impl UserServer {
    /// Serves on a free port of this machine.
    pub async fn start() -> anyhow::Result<Self> {
        Self::at(([127, 0, 0, 1], 0).into()).await
    }

    /// Serves at an address.
    pub async fn at(address: SocketAddr) -> anyhow::Result<Self> {
        let (waiting, released) = (watch::Sender::default(), Semaphore::new(0));
        let (flaky, says) = (AtomicUsize::new(0), Mutex::default());
        let state = Arc::new(State { seen: Mutex::default(), waiting, released, flaky, says });
        let served = state.clone();
        let listening = Listening::at(address, move |socket| {
            let state = served.clone();
            async move { state.serve(socket).await }
        });
        Ok(Self { listening: listening.await?, state })
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.listening.address
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.listening.address)
    }

    /// From now on a path answers so.
    pub fn says(&self, path: &str, body: &str) {
        self.state.says.lock().expect("no test panics here").insert(path.to_owned(), body.to_owned());
    }

    /// The requests that it got since it was last asked.
    pub fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.state.seen.lock().expect("no test panics here"))
    }

    /// The only request that it got.
    pub fn only(&self) -> anyhow::Result<Seen> {
        let seen = self.seen();
        anyhow::ensure!(seen.len() == 1, "{seen:?}");
        seen.into_iter().next().context("one request")
    }

    /// Waits until as many requests wait.
    pub async fn waits(&self, count: usize) -> anyhow::Result<()> {
        let mut waiting = self.state.waiting.subscribe();
        waiting.wait_for(|(waiting, _)| *waiting >= count).await?;
        Ok(())
    }

    /// Waits until as many callers have left while their requests waited.
    pub async fn left(&self, count: usize) -> anyhow::Result<()> {
        let mut waiting = self.state.waiting.subscribe();
        waiting.wait_for(|(_, left)| *left >= count).await?;
        Ok(())
    }

    /// Lets so many requests to `/wait` go on.
    pub fn release(&self, count: usize) {
        self.state.released.add_permits(count);
    }
}

impl State {
    async fn serve(&self, mut socket: TcpStream) -> anyhow::Result<()> {
        let mut bytes = Vec::new();
        while let Some(seen) = read(&mut socket, &mut bytes).await? {
            self.seen.lock().expect("no test panics here").push(seen.clone());
            let path = seen.path.split('?').next().unwrap_or_default().to_owned();
            let said = self.says.lock().expect("no test panics here").get(&path).cloned();
            let answer = match path.as_str() {
                _ if said.is_some() => whole(200, "", said.as_deref().unwrap_or_default()),
                "/wait" | "/hang" => {
                    self.waiting.send_modify(|(waiting, _)| *waiting += 1);
                    let goes_on = async {
                        if path == "/hang" { std::future::pending().await } else { self.released.acquire().await }
                    };
                    let mut byte = [0];
                    tokio::select! {
                        permit = goes_on => permit?.forget(),
                        _ = socket.read(&mut byte) => {
                            self.waiting.send_modify(|(_, left)| *left += 1);
                            return Ok(());
                        }
                    }
                    whole(200, "", "\"went on\"")
                }
                "/flaky" => match self.flaky.fetch_add(1, Ordering::Relaxed) + 1 {
                    attempts if attempts % 3 == 0 => whole(200, "", &json!({ "attempts": attempts }).to_string()),
                    _ => whole(503, "", "{}"),
                },
                // What comes of each item of a list.
                "/each" => whole(200, "", &each(&seen.body).to_string()),
                "/short" => whole(200, "", "[1]"),
                "/text" => whole(200, "", "<html>"),
                "/html" => whole(503, "", "<html>"),
                "/empty" => whole(200, "", ""),
                "/redirect" => whole(302, "Location: /echo\r\n", "{}"),
                "/early" => return Ok(()),
                "/cut" => "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"a\":".to_owned(),
                "/large" => format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n\"{}\"", "x".repeat(2000)),
                _ => match path.strip_prefix("/status/").and_then(|status| status.parse().ok()) {
                    Some(204) => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
                    Some(status) => whole(status, "", r#"{"error":"boom"}"#),
                    None => whole(
                        200,
                        "",
                        &json!({ "method": seen.method, "path": seen.path, "body": seen.body }).to_string(),
                    ),
                },
            };
            socket.write_all(answer.as_bytes()).await?;
            if path == "/cut" || path == "/large" {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// The answers to the items of a list; `bad` has none.
fn each(items: &Value) -> Value {
    let one = |item: &Value| if item == "bad" { json!({ "error": "it is bad" }) } else { json!({ "got": item }) };
    items.as_array().map_or(Value::Null, |items| items.iter().map(one).collect())
}

fn whole(status: u16, headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status} Said\r\nContent-Type: application/json\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// The next request; `None` where there is none.
pub(crate) async fn read(socket: &mut TcpStream, bytes: &mut Vec<u8>) -> anyhow::Result<Option<Seen>> {
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        if socket.read_buf(bytes).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec())?;
    let mut lines = head.split("\r\n");
    let mut request = lines.next().unwrap_or_default().split(' ');
    let (method, path) = (request.next().unwrap_or_default().to_owned(), request.next().unwrap_or_default().to_owned());
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        let known = headers.entry(name.to_ascii_lowercase()).or_default();
        *known = if known.is_empty() { value.to_owned() } else { format!("{known},{value}") };
    }
    let length: usize = headers.get("content-length").map_or(Ok(0), |length| length.parse())?;
    while bytes.len() < end + 4 + length {
        anyhow::ensure!(socket.read_buf(bytes).await? > 0, "the body broke off");
    }
    let text = String::from_utf8_lossy(&bytes[end + 4..end + 4 + length]).into_owned();
    let body = serde_json::from_str(&text).unwrap_or(Value::Null);
    bytes.drain(..end + 4 + length);
    Ok(Some(Seen { method, path, headers, body, text }))
}
