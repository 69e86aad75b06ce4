//! WebSockets: handshake, connection and queues to the client, which all that is spoken over them shares.

mod closing;
mod connection;
mod handshake;
pub mod outgoing;
mod receive;
mod running;

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::response::Response;
use bytes::Bytes;
use futures::{Sink, Stream};
use http::{HeaderMap, header};
use hyper::upgrade::OnUpgrade;
use mesh::{Call, Code, Fault, listener::Connection, telemetry::Gauge};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tungstenite::{Message, Utf8Bytes};

pub use self::{
    closing::Closing,
    handshake::{Upgrade, is_asked},
    outgoing::{AnswerSlot, Outgoing, Overflow, Written},
    receive::SMALL_BYTES,
    running::{Completed, Completion, Operation, RunningOperations},
};
use self::{handshake::Accepted, receive::Incomplete};
use crate::{
    Service,
    catalogue::Project,
    edge::Caller,
    http::{body, cors},
    live::{CallerId, Hold, SocketQuota},
};

/// What is spoken over a connection: what a client's messages begin and end.
pub trait SocketSession: Send + 'static {
    /// What any connection has.
    fn state(&self) -> &SocketState;

    /// The same, to change it.
    fn state_mut(&mut self) -> &mut SocketState;

    /// Whether the client has said what it has to say in time.
    fn has_begun(&self) -> bool;

    /// Acts on a client that has not begun in time. An error ends the connection; else it has begun.
    fn time_out(&mut self) -> Result<(), Closing>;

    /// Whether a message can be acted on.
    fn takes_messages(&self) -> bool;

    /// Tells the client that the server lives, where that has a message.
    fn keep_alive(&self, outgoing: &Outgoing);

    /// Waits until something has happened that is no message. An error ends the connection. Cancel safe.
    fn next(&mut self, outgoing: &Outgoing) -> impl Future<Output = Result<(), Closing>> + Send;

    /// Acts on a message. An error ends the connection.
    fn received(&mut self, message: Received, outgoing: &Outgoing) -> Result<(), Closing>;
}

/// A message of a client.
pub enum Received {
    /// A text.
    Text(Utf8Bytes),
    /// Bytes.
    Binary(Bytes),
}

/// State that any connection has.
pub struct SocketState {
    /// The gateway.
    pub service: Service,
    /// The project's id.
    pub project: String,
    /// The id of the request that opened it.
    pub request_id: Arc<str>,
    /// The client's address, where it is known.
    pub peer: Option<IpAddr>,
    /// What is received of a message that is not complete.
    pub incomplete: Incomplete,
    /// Operations of its client.
    pub running: RunningOperations,
    /// Bounds what its operations hold. Until it is identified, it counts for whom the handshake names.
    pub quota: SocketQuota,
    is_identified: bool,
    is_draining: bool,
    /// The memory of the largest message so far, which the buffer of the connection may keep.
    buffer: Option<(Hold, usize)>,
}

impl SocketState {
    /// State of a connection of `caller` from `peer` to a project, which is counted by `quota`.
    pub fn new(
        service: &Service,
        caller: &Caller,
        (project, peer): (String, Option<IpAddr>),
        quota: SocketQuota,
    ) -> Self {
        Self {
            service: service.clone(),
            project,
            request_id: caller.call.request_id.clone(),
            peer,
            incomplete: Incomplete::default(),
            running: RunningOperations::default(),
            quota,
            is_identified: false,
            is_draining: false,
            buffer: None,
        }
    }

    /// Begins nothing more: the node drains. Live queries end by themselves.
    pub fn drain(&mut self) {
        self.is_draining = true;
    }

    /// Whether the node drains.
    pub fn is_draining(&self) -> bool {
        self.is_draining
    }

    /// Whether the node drains, and all that was begun has ended.
    pub fn is_drained(&self) -> bool {
        self.is_draining && self.running.is_empty()
    }

    /// Whether it is known for whom it counts.
    pub fn is_identified(&self) -> bool {
        self.is_identified
    }

    /// Whether it counts for more than one who has yet to say who they are.
    pub fn is_counted(&self) -> bool {
        self.quota.caller() != CallerId::unidentified(&self.project, self.peer)
    }

    /// Counts it for `caller` from now on. Errors: the caller has too many.
    pub fn count_for(&mut self, caller: CallerId) -> Result<(), Fault> {
        if caller != self.quota.caller() {
            self.quota = self.service.quotas().socket(caller)?;
        }
        Ok(())
    }

    /// Counts it for `caller` from now on, who may send large messages. Errors: the caller has too many.
    pub fn identify(&mut self, caller: CallerId) -> Result<(), Fault> {
        self.count_for(caller)?;
        self.is_identified = true;
        self.incomplete.acknowledged(self.service.large_messages().of(caller));
        Ok(())
    }

    /// Counts what a message of `size` bytes leaves behind, which is complete. Before it is known for whom, it has to be
    /// small.
    pub fn completed(&mut self, size: usize) -> Result<(), Closing> {
        self.incomplete.completed();
        if size <= SMALL_BYTES {
            return Ok(());
        }
        if !self.is_identified {
            return Err(Closing::TOO_LARGE);
        }
        let kept = match &mut self.buffer {
            Some((_, before)) if *before >= size => Ok(()),
            Some((hold, before)) => hold.resize(size).map(|()| *before = size),
            None => self.quota.buffer(size).map(|hold| self.buffer = Some((hold, size))),
        };
        kept.map_err(|fault| Closing::full(&fault))
    }
}

/// The caller of an operation of a socket that the request `request_id` opened, who has as much time as the project gives.
pub fn caller(service: &Service, project: &str, request_id: &str, token: Arc<str>) -> Caller {
    let (edge, config) = (service.edge(), service.config());
    let time = edge.settings(project).map_or(config.time, |project| config.time(&project.spec));
    Caller { call: Call::begin(Some(request_id), None, Some(time)), token }
}

/// A connection that is accepted.
pub struct AcceptedSocket {
    /// State of its session.
    pub state: SocketState,
    response: Response,
    upgraded: OnUpgrade,
    most_bytes: usize,
    message_time: Duration,
    open: OpenSocket,
}

/// Accepts the handshake of a connection to a project; `subprotocol` says what is spoken, if that has a name.
///
/// Errors: of the project and of the handshake; `DENIED` for a page of another site; there are too many.
pub async fn accept(
    service: &Service,
    caller: &Caller,
    (project, headers): (String, &HeaderMap),
    upgrade: Upgrade,
    subprotocol: impl FnOnce() -> Result<Option<&'static str>, Fault>,
) -> Result<AcceptedSocket, Fault> {
    let found = service.edge().project(caller, (&*project).into()).await?;
    check_origin(service, &project, headers)?;
    let peer = upgrade.peer;
    let Accepted { response, upgraded } = handshake::accept(headers, upgrade, subprotocol)?;
    let quota = quota(service, caller, &found, peer).await?;
    let open = OpenSocket::new(service)?;
    let most_bytes = body::limit(service.config(), Some(&found));
    let message_time = service.config().time(&found.spec);
    let state = SocketState::new(service, caller, (project, peer), quota);
    Ok(AcceptedSocket { state, response, upgraded, most_bytes, message_time, open })
}

impl AcceptedSocket {
    /// Serves its client by the session that `begin` makes, in a task of its own. The answer to the handshake.
    pub fn serve<S: SocketSession>(self, begin: impl FnOnce(SocketState) -> S) -> Response {
        let Self { state, response, upgraded, most_bytes, message_time, open } = self;
        let tasks = state.service.tasks().clone();
        let session = begin(state);
        // What it has begun still ends where the node drains.
        tasks.spawn_until_drain("socket", async move {
            Box::pin(connection::serve(session, upgraded, most_bytes, message_time)).await;
            drop(open);
        });
        response
    }
}

/// A connection that another protocol carries, which is accepted.
pub struct AcceptedStream {
    /// Bytes that a message may have.
    pub most_bytes: usize,
    state: SocketState,
    connection: Arc<Connection>,
    open: OpenSocket,
}

/// Accepts a connection of `caller` to a project, whose messages a stream of another protocol carries over `connection`.
///
/// Errors: of the project; there are too many.
pub async fn accept_stream(
    service: &Service,
    caller: &Caller,
    project: String,
    connection: Arc<Connection>,
) -> Result<AcceptedStream, Fault> {
    let (found, peer) = (service.edge().project(caller, (&*project).into()).await?, Some(connection.peer.ip()));
    let quota = quota(service, caller, &found, peer).await?;
    let open = OpenSocket::new(service)?;
    let most_bytes = body::limit(service.config(), Some(&found));
    let state = SocketState::new(service, caller, (project, peer), quota);
    Ok(AcceptedStream { most_bytes, state, connection, open })
}

impl AcceptedStream {
    /// Serves its client, whose messages come and go by `transport`, as [`AcceptedSocket::serve`] does.
    pub fn serve<S: SocketSession>(
        self,
        transport: (
            impl Sink<Message> + Send + Unpin + 'static,
            impl Stream<Item = tungstenite::Result<Message>> + Send + Unpin + 'static,
        ),
        begin: impl FnOnce(SocketState) -> S,
    ) {
        let Self { state, connection, open, .. } = self;
        let tasks = state.service.tasks().clone();
        let session = begin(state);
        tasks.spawn_until_drain("stream", async move {
            Box::pin(connection::run(session, transport, connection::Carrier::Stream(connection))).await;
            drop(open);
        });
    }
}

/// Counts the socket for whom the handshake names, until its first message says who it is for. Errors: there are too many.
async fn quota(
    service: &Service,
    caller: &Caller,
    project: &Project,
    peer: Option<IpAddr>,
) -> Result<SocketQuota, Fault> {
    // A token that is not valid would count for whom it names; the first message may bring another.
    let is_known = !caller.token.is_empty() && service.edge().reach(caller, project).await.is_ok();
    service.quotas().socket(match is_known {
        true => CallerId::of(&project.id, &caller.token, peer),
        false => CallerId::unidentified(&project.id, peer),
    })
}

/// Refuses pages of other sites that the project does not list: a browser lets any page open a socket.
fn check_origin(service: &Service, project: &str, headers: &HeaderMap) -> Result<(), Fault> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    // A proxy that speaks TLS for the node says so; the node itself does not speak it.
    let scheme = text("x-forwarded-proto").unwrap_or("http");
    let page = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    let is_own = page.zip(text("host")).is_some_and(|((page_scheme, page_host), host)| {
        page_scheme.eq_ignore_ascii_case(scheme) && page_host.eq_ignore_ascii_case(host)
    });
    let is_local = service.config().development && cors::is_local_page(origin);
    let access = cors::access(&service.edge().origins(Some(project)), origin);
    if is_own || is_local || access != cors::Access::None {
        return Ok(());
    }
    let origin = String::from_utf8_lossy(origin.as_bytes());
    Err(Fault::new(Code::Denied, format!("origin {origin} is not allowed: it is not in cors.origins of the project")))
}

/// A socket that counts as open until it is dropped.
struct OpenSocket {
    open: Gauge,
    _permit: OwnedSemaphorePermit,
}

impl OpenSocket {
    /// Errors: there are too many.
    fn new(service: &Service) -> Result<Self, Fault> {
        let metrics = service.mesh().metrics();
        let permit = Semaphore::try_acquire_owned(service.sockets().clone()).map_err(|_| {
            metrics.shed("sockets").inc();
            Fault::new(Code::Unavailable, "there are too many WebSocket connections; try again later")
        })?;
        let open = metrics.load().sockets.clone();
        open.inc();
        Ok(Self { open, _permit: permit })
    }
}

impl Drop for OpenSocket {
    fn drop(&mut self) {
        self.open.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::stage::Stage;

    fn page(service: &Service, origin: &str, proto: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "shop.test".parse().expect("a header"));
        headers.insert(header::ORIGIN, origin.parse().expect("a header"));
        if let Some(proto) = proto {
            headers.insert("x-forwarded-proto", proto.parse().expect("a header"));
        }
        check_origin(service, "shop", &headers).is_ok()
    }

    #[tokio::test]
    async fn a_page_of_this_site_has_its_scheme_too() {
        let service = Stage::new().await.service;
        assert!(page(&service, "http://shop.test", None));
        assert!(page(&service, "https://shop.test", Some("https")));
        for (origin, proto) in [
            ("https://shop.test", None),
            ("http://shop.test", Some("https")),
            ("ftp://shop.test", None),
            ("http://other.test", None),
            ("http://shop.test:81", None),
            ("null", None),
        ] {
            assert!(!page(&service, origin, proto), "{origin} {proto:?}");
        }
    }
}
