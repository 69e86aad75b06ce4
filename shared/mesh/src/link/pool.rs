//! All addresses of the peers that run one service, and calls spread over those that are up.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use http::{
    Request, Response, Uri,
    uri::{Authority, PathAndQuery, Scheme},
};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::{sync::watch, time};
use tokio_util::sync::DropGuard;
use tonic::{Status, body::Body};
use tower::retry::budget::{Budget, TpsBudget};

use super::{
    connection::{ConnectionState, PeerConnection, reason},
    unavailable,
};
use crate::{
    Call, Component, ComponentState, Health, Tasks,
    config::{self, ServiceName},
};

/// How long a call waits for peers that have not been tried yet.
const FIRST_CONNECT_TIMEOUT: Duration = Duration::from_millis(800);
/// How long a name server may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);
/// How often names are looked up while some address is not connected.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// How often names are looked up otherwise.
const REFRESH_INTERVAL: Duration = Duration::from_secs(5);

/// Calls that may be sent once more: a minimum per second, and a ratio of all calls.
const RETRIES_PER_SECOND: u32 = 10;
const RETRY_RATIO: f32 = 0.2;
/// How long a call counts towards the ratio.
const RETRY_WINDOW: Duration = Duration::from_secs(10);

/// The peers that run one service. Clones are the same peers.
#[derive(Clone)]
pub(super) struct Pool {
    inner: Arc<Inner>,
    /// The only address that is called.
    only: Option<SocketAddr>,
}

struct Inner {
    shared: Arc<Shared>,
    turn: AtomicUsize,
    retries: TpsBudget,
    /// Ends the tasks that keep the peers connected.
    _stop: DropGuard,
}

struct Shared {
    service: ServiceName,
    peers: Vec<Peer>,
    connections: ArcSwap<Vec<Arc<PeerConnection>>>,
    /// Counts changes of any connection's state.
    changes: watch::Sender<u64>,
    health: Health,
    /// Held while health is set: a later state must not be overwritten by an earlier one.
    report_lock: Mutex<()>,
    tasks: Tasks,
}

struct Peer {
    url: Arc<str>,
    authority: Authority,
}

impl Pool {
    /// The peers at `urls`; they are connected in the background, until the pool is dropped.
    pub(super) fn open(service: ServiceName, urls: &[String], health: &Health) -> Result<Self, config::Error> {
        let peer = |url: &String| match config::peer_authority(url) {
            Ok(authority) => Ok(Peer { url: url.as_str().into(), authority }),
            Err(message) => Err(config::Error(format!("peers.{service}: {url}: {message}"))),
        };
        let peers: Vec<Peer> = urls.iter().map(peer).collect::<Result<_, _>>()?;
        for peer in &peers {
            let state = ComponentState::Failing("not connected yet".to_owned());
            health.set(Component::Peer { service, url: peer.url.clone() }, state);
        }
        let (tasks, health) = (Tasks::default(), health.clone());
        let (connections, changes) = (ArcSwap::default(), watch::Sender::new(0));
        let stop = tasks.stop().clone().drop_guard();
        let shared = Arc::new(Shared {
            service,
            peers,
            connections,
            changes,
            health,
            report_lock: Mutex::default(),
            tasks: tasks.clone(),
        });
        tasks.spawn("peer addresses", shared.clone().resolve());
        let retries = TpsBudget::new(RETRY_WINDOW, RETRIES_PER_SECOND, RETRY_RATIO);
        let inner = Inner { shared, turn: AtomicUsize::new(0), retries, _stop: stop };
        Ok(Self { inner: Arc::new(inner), only: None })
    }

    /// The same peers, of which the one at `address` alone is called.
    pub(super) fn only(&self, address: SocketAddr) -> Self {
        Self { inner: self.inner.clone(), only: Some(address) }
    }

    /// The addresses that are up.
    pub(super) fn up(&self) -> Vec<SocketAddr> {
        let connections = self.inner.shared.connections.load();
        connections.iter().filter(|one| one.sender().is_some()).map(|one| one.address).collect()
    }

    /// Told of each change of a connection.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.inner.shared.changes.subscribe()
    }

    /// The answer of one of the peers that are up. A call that could not be sent goes to the next; one that was sent
    /// and broke may have been done and is `UNAVAILABLE`.
    pub(super) async fn send(&self, mut request: Request<Body>) -> Result<Response<Body>, Status> {
        let shared = &self.inner.shared;
        self.inner.retries.deposit();
        if let Some(call) = request.extensions().get::<Call>().cloned() {
            call.write_headers(request.headers_mut());
        }
        let mut changes = shared.changes.subscribe();
        let mut timeout = std::pin::pin!(time::sleep(FIRST_CONNECT_TIMEOUT));
        loop {
            request = match self.try_send(request).await {
                Ok(answer) => return answer,
                Err(unsent) => unsent,
            };
            if !shared.is_new() {
                return Err(shared.unreachable());
            }
            tokio::select! {
                // The sender lives in `shared`.
                _ = changes.changed() => (),
                () = timeout.as_mut() => return Err(shared.unreachable()),
            }
        }
    }

    /// The service.
    pub(super) fn service(&self) -> &'static str {
        self.inner.shared.service.as_str()
    }

    /// Whether one more call may be sent again: a service that fails must not get all its calls twice.
    pub(super) fn may_retry(&self) -> bool {
        self.inner.retries.withdraw()
    }

    /// The request comes back if no peer took it.
    async fn try_send(&self, mut request: Request<Body>) -> Result<Result<Response<Body>, Status>, Request<Body>> {
        let Inner { shared, turn, .. } = &*self.inner;
        let connections = shared.connections.load_full();
        let turn = turn.fetch_add(1, Ordering::Relaxed);
        for index in 0..connections.len() {
            let connection = &connections[(turn + index) % connections.len()];
            if self.only.is_some_and(|only| only != connection.address) {
                continue;
            }
            let Some(mut sender) = connection.sender() else { continue };
            *request.uri_mut() = shared.target(connection, request.uri());
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(Ok(shared.watched(connection, response))),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Ok(Err(shared.broken(connection, error.error()))),
                },
            }
        }
        Err(request)
    }
}

impl Shared {
    /// Keeps `connections` what the name servers say, until the pool is dropped.
    async fn resolve(self: Arc<Self>) {
        let stop = self.tasks.stop().clone();
        stop.run_until_cancelled(async {
            loop {
                for peer in &self.peers {
                    match self.lookup(&peer.authority).await {
                        Ok(addresses) => self.update(peer, addresses),
                        // The addresses of before are the best guess.
                        Err(why) => self.report(&peer.url, Some(&why)),
                    }
                }
                let is_up = |connection: &Arc<PeerConnection>| matches!(*connection.state(), ConnectionState::Up(_));
                let connections = self.connections.load_full();
                let all_up = !connections.is_empty() && connections.iter().all(is_up);
                time::sleep(if all_up { REFRESH_INTERVAL } else { RETRY_INTERVAL }).await;
            }
        })
        .await;
    }

    async fn lookup(&self, authority: &Authority) -> Result<BTreeSet<SocketAddr>, String> {
        let host = authority.host().trim_matches(['[', ']']);
        let found = time::timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host((host, authority.port_u16().unwrap_or(80))));
        match found.await {
            Ok(Ok(addresses)) => Ok(addresses.collect()),
            Ok(Err(error)) => Err(format!("the name {host} cannot be looked up: {error}")),
            Err(_) => Err(format!("the name {host} cannot be looked up in time")),
        }
    }

    /// Retires connections of `peer` that are no longer among its `addresses` and adds those that are new.
    fn update(self: &Arc<Self>, peer: &Peer, mut addresses: BTreeSet<SocketAddr>) {
        let mut connections = Vec::clone(&self.connections.load_full());
        let before = connections.len();
        connections.retain(|connection| {
            let stays = connection.url != peer.url || addresses.remove(&connection.address);
            if !stays {
                connection.retired.cancel();
            }
            stays
        });
        if addresses.is_empty() && connections.len() == before {
            return;
        }
        for address in addresses {
            let connection = Arc::new(PeerConnection::new(peer.url.clone(), address, self.tasks.stop().child_token()));
            connections.push(connection.clone());
            let shared = self.clone();
            self.tasks.spawn("peer connection", async move {
                connection.keep(|connection| shared.report(&connection.url, None)).await
            });
        }
        self.connections.store(Arc::new(connections));
        self.report(&peer.url, None);
    }

    /// Sets the health of the peer at `url`, and wakes waiting calls.
    fn report(&self, url: &Arc<str>, failure: Option<&str>) {
        let _guard = self.report_lock.lock().expect("no code panics while it holds this lock");
        let mut why = failure.map(str::to_owned);
        let mut is_up = false;
        for connection in self.connections.load().iter().filter(|connection| &connection.url == url) {
            match &*connection.state() {
                ConnectionState::Up(_) => is_up = true,
                ConnectionState::Down(reason) => why = Some(format!("{}: {reason}", connection.address)),
                ConnectionState::New => (),
            }
        }
        let why = why.unwrap_or_else(|| "not connected yet".to_owned());
        let state = if is_up { ComponentState::Ready } else { ComponentState::Failing(why) };
        self.health.set(Component::Peer { service: self.service, url: url.clone() }, state);
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// Whether some address has not been tried yet.
    fn is_new(&self) -> bool {
        let connections = self.connections.load();
        connections.is_empty() && *self.changes.borrow() == 0
            || connections.iter().any(|connection| matches!(*connection.state(), ConnectionState::New))
    }

    fn target(&self, connection: &PeerConnection, uri: &Uri) -> Uri {
        let peer = self.peers.iter().find(|peer| peer.url == connection.url).expect("connections come from peers");
        let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        let mut parts = http::uri::Parts::default();
        (parts.scheme, parts.authority, parts.path_and_query) =
            (Some(Scheme::HTTP), Some(peer.authority.clone()), Some(path));
        Uri::from_parts(parts).expect("it has all three parts")
    }

    /// An answer whose body, should it break, says so as `UNAVAILABLE`.
    fn watched(self: &Arc<Self>, connection: &Arc<PeerConnection>, response: Response<Incoming>) -> Response<Body> {
        let (shared, connection) = (self.clone(), connection.clone());
        response.map(|body| Body::new(body.map_err(move |error| shared.broken(&connection, &error))))
    }

    fn broken(&self, connection: &PeerConnection, error: &hyper::Error) -> Status {
        let (service, why) = (self.service, reason(error));
        tracing::warn!(%service, peer = &*connection.url, address = %connection.address, why, "call broken off");
        unavailable(format!("the connection to service {service} broke"))
    }

    fn unreachable(&self) -> Status {
        unavailable(format!("service {} cannot be reached", self.service))
    }
}

#[cfg(test)]
mod tests {
    use proto::services::crud::CRUD;

    use super::*;

    /// Peers whose names are not looked up as long as a test awaits nothing.
    fn pool() -> (Pool, Health) {
        let health = Health::default();
        let urls = ["http://a.test:1".to_owned(), "http://b.test:2".to_owned()];
        (Pool::open(ServiceName::of(&CRUD), &urls, &health).expect("the addresses are sound"), health)
    }

    fn addresses(ports: &[u16]) -> BTreeSet<SocketAddr> {
        ports.iter().map(|port| SocketAddr::from(([127, 0, 0, 1], *port))).collect()
    }

    #[tokio::test]
    async fn connections_follow_the_addresses_of_a_name() {
        let (pool, _) = pool();
        let shared = &pool.inner.shared;
        let [one, two] = &shared.peers[..] else { panic!("there are two") };
        let ports = || {
            let connections = shared.connections.load();
            let mut ports: Vec<u16> = connections.iter().map(|connection| connection.address.port()).collect();
            ports.sort_unstable();
            ports
        };
        shared.update(one, addresses(&[1, 2]));
        shared.update(two, addresses(&[3]));
        assert_eq!(ports(), [1, 2, 3]);
        let first = shared.connections.load_full();

        shared.update(one, addresses(&[2, 4]));
        assert_eq!(ports(), [2, 3, 4]);
        let retired: Vec<bool> = first.iter().map(|connection| connection.retired.is_cancelled()).collect();
        assert_eq!(retired, [true, false, false]);

        let before = shared.connections.load_full();
        shared.update(one, addresses(&[2, 4]));
        assert!(Arc::ptr_eq(&before, &shared.connections.load_full()), "nothing changes");

        shared.update(one, addresses(&[]));
        assert_eq!(ports(), [3]);
    }

    #[tokio::test]
    async fn calls_wait_for_addresses_that_were_not_tried_yet() {
        let (pool, health) = pool();
        let shared = &pool.inner.shared;
        let peer = &shared.peers[0];
        assert!(shared.is_new(), "no name was looked up");
        shared.report(&peer.url, Some("nobody knows the name"));
        assert!(!shared.is_new());
        let component = Component::Peer { service: ServiceName::of(&CRUD), url: peer.url.clone() };
        assert_eq!(health.get(&component), Some(ComponentState::Failing("nobody knows the name".to_owned())));
        shared.update(peer, addresses(&[1]));
        assert!(shared.is_new());
    }

    #[tokio::test(start_paused = true)]
    async fn calls_are_sent_again_under_a_budget() {
        let (pool, _) = pool();
        let granted = |tried: usize| (0..tried).filter(|_| pool.may_retry()).count();
        assert_eq!(granted(1000), 100);
        for _ in 0..1000 {
            pool.inner.retries.deposit();
        }
        assert_eq!(granted(1000), 200);
    }
}
