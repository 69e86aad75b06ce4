//! A webhook of a user: it keeps what it was sent, and answers well or badly, as the test says.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use tokio::{io::AsyncWriteExt, net::TcpStream, sync::watch};

use crate::user_server::{Listening, Seen, read};

/// A running webhook; it ends when dropped.
pub struct Webhook {
    listening: Listening,
    state: Arc<State>,
}

/// A message that it was sent.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The request.
    pub request: Seen,
    /// When it had come.
    pub at: Instant,
}

impl Delivery {
    /// The id of the event.
    pub fn id(&self) -> &str {
        self.request.headers.get("webhook-id").map(String::as_str).unwrap_or_default()
    }

    /// The number of the attempt.
    pub fn attempt(&self) -> u32 {
        self.request.headers.get("x-perigee-attempt").and_then(|text| text.parse().ok()).unwrap_or_default()
    }
}

/// How a webhook answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// With this status and body.
    Says(u16, &'static str),
    /// 429 with `Retry-After: 1`.
    Later,
    /// A redirect to another path of its own.
    Elsewhere,
    /// Never.
    Hangs,
    /// It closes before an answer.
    Closes,
    /// It closes within an answer.
    Cuts,
    /// In one of these ways, by the id, for the first two attempts of a tenth of the events; else well: so few
    /// that ten failures in a row are rare.
    Badly,
}

/// What a bad webhook does.
const BAD: [Manner; 6] = [
    Manner::Hangs,
    Manner::Says(500, "boom"),
    Manner::Later,
    Manner::Closes,
    Manner::Cuts,
    Manner::Says(200, r#"{"error":"not yet"}"#),
];

struct State {
    deliveries: watch::Sender<Vec<Delivery>>,
    /// By path.
    manners: Mutex<HashMap<String, Manner>>,
    /// Requests being answered, and the most at once.
    running: AtomicUsize,
    most: AtomicUsize,
    /// Requests being answered, by the id of their event.
    live: Mutex<HashMap<String, usize>>,
    /// Requests that came while another one of their event was being answered.
    overlaps: AtomicUsize,
}

impl Webhook {
    /// Serves on a free port of this machine; every path answers well.
    pub async fn start() -> anyhow::Result<Self> {
        let (deliveries, manners) = (watch::Sender::default(), Mutex::default());
        let (running, most, overlaps) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        let state = Arc::new(State { deliveries, manners, running, live: Mutex::default(), overlaps, most });
        let served = state.clone();
        let listening = Listening::start(move |socket| {
            let state = served.clone();
            async move { state.serve(socket).await }
        });
        Ok(Self { listening: listening.await?, state })
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.listening.address)
    }

    /// From now on a path answers so.
    pub fn answers(&self, path: &str, manner: Manner) {
        self.state.manners.lock().expect("no test panics here").insert(path.to_owned(), manner);
    }

    /// All that it was sent at a path.
    pub fn deliveries(&self, path: &str) -> Vec<Delivery> {
        self.state.deliveries.borrow().iter().filter(|delivery| delivery.request.path == path).cloned().collect()
    }

    /// The most requests that it had at once.
    pub fn most_at_once(&self) -> usize {
        self.state.most.load(Ordering::SeqCst)
    }

    /// Requests that came while another one of their event was being answered.
    pub fn overlaps(&self) -> usize {
        self.state.overlaps.load(Ordering::SeqCst)
    }

    /// Waits until what it was sent at a path is as the test wants.
    pub async fn until(&self, path: &str, wanted: impl Fn(&[Delivery]) -> bool) -> anyhow::Result<Vec<Delivery>> {
        let mut deliveries = self.state.deliveries.subscribe();
        let of_path = |all: &Vec<Delivery>| -> Vec<Delivery> {
            all.iter().filter(|delivery| delivery.request.path == path).cloned().collect()
        };
        let found =
            tokio::time::timeout(Duration::from_secs(240), deliveries.wait_for(|all| wanted(&of_path(all)))).await;
        match found {
            Ok(all) => Ok(of_path(&*all?)),
            Err(_) => {
                Err(anyhow::anyhow!("{path}: {:?}", self.deliveries(path))).context("what was wanted did not come")
            }
        }
    }

    /// Waits until it was sent so many messages at a path.
    pub async fn count(&self, path: &str, count: usize) -> anyhow::Result<Vec<Delivery>> {
        self.until(path, |deliveries| deliveries.len() >= count).await
    }
}

impl State {
    async fn serve(&self, mut socket: TcpStream) -> anyhow::Result<()> {
        let mut bytes = Vec::new();
        while let Some(request) = read(&mut socket, &mut bytes).await? {
            let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(running, Ordering::SeqCst);
            let id = request.headers.get("webhook-id").cloned().unwrap_or_default();
            self.begin(&id);
            let answered = self.answer(&mut socket, request).await;
            self.end(&id);
            self.running.fetch_sub(1, Ordering::SeqCst);
            if !answered? {
                break;
            }
        }
        Ok(())
    }

    fn begin(&self, id: &str) {
        let mut live = self.live.lock().expect("no test panics here");
        let count = live.entry(id.to_owned()).or_default();
        *count += 1;
        if *count > 1 {
            self.overlaps.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn end(&self, id: &str) {
        if let Some(count) = self.live.lock().expect("no test panics here").get_mut(id) {
            *count -= 1;
        }
    }

    /// Whether the connection goes on.
    async fn answer(&self, socket: &mut TcpStream, request: Seen) -> anyhow::Result<bool> {
        let path = request.path.clone();
        let delivery = Delivery { request, at: Instant::now() };
        let manner = self.manners.lock().expect("no test panics here").get(&path).copied();
        let manner = match manner.unwrap_or(Manner::Says(200, "")) {
            Manner::Badly => bad(delivery.id(), delivery.attempt()),
            manner => manner,
        };
        self.deliveries.send_modify(|all| all.push(delivery));
        let (status, headers, body) = match manner {
            Manner::Says(status, body) => (status, "", body),
            Manner::Later => (429, "Retry-After: 1\r\n", ""),
            Manner::Elsewhere => (302, "Location: /elsewhere\r\n", ""),
            Manner::Hangs => {
                // As long as anybody waits.
                let _left = tokio::io::AsyncReadExt::read(socket, &mut [0]).await;
                return Ok(false);
            }
            Manner::Closes | Manner::Badly => return Ok(false),
            Manner::Cuts => {
                socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"a\":").await?;
                return Ok(false);
            }
        };
        let length = body.len();
        let answer = format!("HTTP/1.1 {status} Said\r\n{headers}Content-Length: {length}\r\n\r\n{body}");
        socket.write_all(answer.as_bytes()).await?;
        Ok(true)
    }
}

fn bad(id: &str, attempt: u32) -> Manner {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    let hash = hasher.finish() as usize;
    match (hash % 10, attempt) {
        (0, 1 | 2) => BAD[(hash / 10 + attempt as usize) % BAD.len()],
        _ => Manner::Says(204, ""),
    }
}
