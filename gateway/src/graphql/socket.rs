//! GraphQL over WebSocket: the handshake, and one task per connection.
//!
//! Source: the protocol `graphql-transport-ws` of github.com/enisdenjo/graphql-ws, PROTOCOL.md.

mod handshake;
mod message;
mod operation;
mod outgoing;
mod receive;

use std::{collections::HashMap, net::IpAddr, pin::pin, sync::Arc, time::Duration};

use axum::{
    extract::{Path, State},
    response::Response,
};
use futures::{
    FutureExt, Stream, StreamExt,
    future::{AbortHandle, BoxFuture, abortable},
    stream::FuturesUnordered,
};
use http::{HeaderMap, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use mesh::{Call, Code, Fault, listener, telemetry::Gauge};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, MissedTickBehavior},
};
use tokio_tungstenite::WebSocketStream;
use tungstenite::{
    Message,
    protocol::{Role, WebSocketConfig},
};

pub use self::handshake::{Upgrade, is_asked};
use self::{
    message::{ClientMessage, Closing, ServerMessage},
    operation::Operations,
    outgoing::Outgoing,
    receive::{BoundedReads, Incomplete},
};
use crate::{
    Service,
    edge::Caller,
    error,
    graphql::request::Request,
    http::{SocketProgress, answer, body, claims, cors},
    live::{CallerId, Hold, SocketQuota},
};

/// How long a client may take to begin.
const INIT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a client is asked whether it lives.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// How long a client may send nothing, not even a pong, and take nothing either.
const SILENCE_MAX: Duration = Duration::from_secs(40);
/// How long a client may take to agree to the end of its connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes that are read of a connection at once: there are many that are idle.
const READ_BUFFER: usize = 4 * 1024;

/// Answers a handshake.
pub async fn open(
    State(service): State<Service>,
    caller: Caller,
    Path(project): Path<String>,
    headers: HeaderMap,
    upgrade: Upgrade,
) -> Response {
    match accept(&service, &caller, project, &headers, upgrade).await {
        Ok(response) => response,
        Err(fault) => answer::fault(&fault, &caller.call),
    }
}

async fn accept(
    service: &Service,
    caller: &Caller,
    project: String,
    headers: &HeaderMap,
    upgrade: Upgrade,
) -> Result<Response, Fault> {
    let found = service.edge().project(caller, (&*project).into()).await?;
    check_origin(service, &project, headers)?;
    let peer = upgrade.peer;
    let (response, upgraded) = handshake::accept(headers, upgrade)?;
    let open = OpenSocket::new(service)?;
    let most = body::limit(service.config(), Some(&found));
    let time = service.config().time(&found.spec);
    let connection = Connection::new(service.clone(), caller, project, peer);
    service.tasks().clone().spawn("socket", async move {
        Box::pin(connection.upgraded(upgraded, most, time)).await;
        drop(open);
    });
    Ok(response)
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

/// One connection.
struct Connection {
    service: Service,
    project: String,
    request_id: Arc<str>,
    /// The token of its operations, which a ping may renew.
    token: watch::Sender<Arc<str>>,
    is_acknowledged: bool,
    running: RunningOperations,
    /// The client's address, where it is known.
    peer: Option<IpAddr>,
    /// What its operations may hold; `None` before the acknowledgement, which says whose they are.
    quota: Option<SocketQuota>,
    /// The memory of the largest message so far, which the buffer of the connection may keep.
    buffer: Option<(Hold, usize)>,
    incomplete: Incomplete,
}

/// Limits of a connection whose messages have `most` bytes.
fn transport(most: usize) -> WebSocketConfig {
    // Every ping has the socket write a pong: what the client does not take of them is bounded.
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(outgoing::WRITE_BUFFER)
        .max_message_size(Some(most))
        .max_frame_size(Some(most))
}

/// The operations of a connection that have not ended.
#[derive(Default)]
struct RunningOperations {
    /// By the client's id: number of the operation, and what ends it.
    by_id: HashMap<String, (u64, AbortHandle)>,
    /// Yields an operation's number and id when it has ended.
    ends: FuturesUnordered<BoxFuture<'static, (u64, String)>>,
    count: u64,
}

impl Connection {
    fn new(service: Service, caller: &Caller, project: String, peer: Option<IpAddr>) -> Self {
        let (request_id, token) = (caller.call.request_id.clone(), watch::Sender::new(caller.token.clone()));
        let (is_acknowledged, running, quota, buffer, incomplete) = Default::default();
        Self { service, project, request_id, token, is_acknowledged, running, peer, quota, buffer, incomplete }
    }

    /// Serves the client once the answer to its handshake is sent. A message may have `most` bytes and take `time`.
    async fn upgraded(mut self, upgraded: OnUpgrade, most: usize, time: Duration) {
        // An error means that the client is gone.
        let Ok(upgraded) = upgraded.await else { return };
        let reads = BoundedReads::new(TokioIo::new(upgraded), self.service.large_messages().clone(), time);
        self.incomplete = reads.incomplete();
        let socket = WebSocketStream::from_raw_socket(reads, Role::Server, Some(transport(most))).await;
        Box::pin(self.run(socket)).await;
    }

    /// Serves the client until it leaves, breaks the protocol, or the node stops.
    async fn run(mut self, socket: WebSocketStream<BoundedReads<TokioIo<hyper::upgrade::Upgraded>>>) {
        let (sink, mut messages) = socket.split();
        let config = self.service.config();
        let peer = (self.peer.unwrap_or(IpAddr::from([0; 4])), 0).into();
        let progress = SocketProgress::new(Arc::new(listener::Connection::new(peer)));
        let (outgoing, queued) = outgoing::queues(self.service.send_budget().clone(), progress, config.socket_bytes);
        let mut writer = pin!(outgoing::write(sink, queued, config.write_timeout));
        let closing = tokio::select! {
            // The client is gone, or takes nothing.
            () = writer.as_mut() => return,
            closing = self.serve(&mut messages, &outgoing) => closing,
        };
        // Nothing is written after the end.
        drop(self);
        let Some(closing) = closing else { return };
        if outgoing.replies.try_send(closing.into()).is_err() {
            return;
        }
        drop(outgoing);
        let ended = async {
            writer.await;
            // A connection that is dropped while the client still sends loses what was written.
            while let Some(Ok(_)) = messages.next().await {}
        };
        // Whether the client agrees in time does not matter.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, ended).await;
    }

    /// Why the connection is to be closed; `None` where the client has left.
    async fn serve(
        &mut self,
        messages: &mut (impl Stream<Item = tungstenite::Result<Message>> + Unpin),
        outgoing: &Outgoing,
    ) -> Option<Closing> {
        let draining = self.service.tasks().draining().clone();
        let (begin, mut last_message) = (Instant::now(), Instant::now());
        let mut ping = tokio::time::interval_at(begin + PING_INTERVAL, PING_INTERVAL);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut taken = 0;
        loop {
            // Each branch takes one thing that is already there and leaves the others as they are.
            tokio::select! {
                () = draining.cancelled() => return Some(Closing::RESTART),
                Some((number, id)) = self.running.ends.next() => self.running.ended(number, &id),
                message = messages.next(), if outgoing.replies.capacity() > 0 => {
                    last_message = Instant::now();
                    match message? {
                        Ok(message) => if let Err(closing) = self.received(message, outgoing).await? {
                            return Some(closing);
                        },
                        Err(error) => return Closing::of(&error),
                    }
                }
                // A client that takes no replies is not read from until it does.
                Ok(_) = outgoing.replies.reserve(), if outgoing.replies.capacity() == 0 => {}
                _ = ping.tick() => {
                    // While a long answer is sent, no ping is.
                    if std::mem::replace(&mut taken, outgoing.progress.taken()) != outgoing.progress.taken() {
                        last_message = Instant::now();
                    }
                    if last_message.elapsed() >= SILENCE_MAX {
                        return None;
                    }
                    // Where replies wait, the client is slow, and that has a limit of its own.
                    let _ = outgoing.replies.try_send(Message::Ping(Default::default()));
                }
                () = tokio::time::sleep_until(begin + INIT_TIMEOUT), if !self.is_acknowledged => {
                    return Some(Closing::INIT_TIMEOUT);
                }
            }
        }
    }

    /// Acts on a message. `None` where the client closes.
    async fn received(&mut self, message: Message, outgoing: &Outgoing) -> Option<Result<(), Closing>> {
        let text = match message {
            Message::Text(text) => text,
            Message::Binary(_) => return Some(Err(Closing::invalid("expected text, found binary"))),
            Message::Ping(payload) | Message::Pong(payload) => {
                self.incomplete.control(payload.len());
                return Some(Ok(()));
            }
            Message::Close(_) | Message::Frame(_) => return None,
        };
        self.incomplete.completed();
        if let Err(closing) = self.keep_buffer(text.len()) {
            return Some(Err(closing));
        }
        Some(match ClientMessage::parse(text.as_bytes(), self.service.guard()) {
            Ok(message) => {
                drop(text);
                self.act(message, outgoing).await
            }
            Err(closing) => Err(closing),
        })
    }

    /// Counts a buffer that a message of `size` bytes may leave behind. Before the acknowledgement nobody is known who
    /// it could be counted for.
    fn keep_buffer(&mut self, size: usize) -> Result<(), Closing> {
        if size <= receive::SMALL_BYTES {
            return Ok(());
        }
        let Some(quota) = &self.quota else { return Err(Closing::TOO_LARGE) };
        let kept = match &mut self.buffer {
            Some((_, before)) if *before >= size => Ok(()),
            Some((hold, before)) => hold.resize(size).map(|()| *before = size),
            None => quota.hold(size).map(|hold| self.buffer = Some((hold, size))),
        };
        kept.map_err(|fault| Closing::full(&fault))
    }

    async fn act(&mut self, message: ClientMessage, outgoing: &Outgoing) -> Result<(), Closing> {
        let reply = |message: ServerMessage<'_>| {
            outgoing.replies.try_send(message.into()).map_err(|_| Closing::invalid("too many messages at once"))
        };
        match message {
            ClientMessage::Init { .. } if self.is_acknowledged => Err(Closing::INITIALISED_AGAIN),
            ClientMessage::Init { token } => {
                if let Some(token) = token {
                    self.token.send_replace(token);
                }
                self.check_token().await?;
                let caller = CallerId::of(&self.project, &self.token.borrow(), self.peer);
                self.quota = Some(self.service.quotas().socket(caller));
                self.is_acknowledged = true;
                reply(ServerMessage::Acknowledgement)
            }
            ClientMessage::Ping { token } => {
                if let Some(token) = token.filter(|_| self.is_acknowledged) {
                    self.renew(token);
                }
                reply(ServerMessage::Pong)
            }
            ClientMessage::Pong => Ok(()),
            ClientMessage::Subscribe { .. } if !self.is_acknowledged => Err(Closing::UNAUTHORIZED),
            ClientMessage::Subscribe { id, .. } if self.running.by_id.contains_key(&id) => {
                Err(Closing::known_subscriber(&id))
            }
            ClientMessage::Subscribe { id, request } => match self.hold(&request) {
                Ok(hold) => {
                    self.start(id, *request, hold, outgoing);
                    Ok(())
                }
                Err(fault) => {
                    let errors = operation::errors(&fault, &Call::begin(Some(&self.request_id), None, None));
                    reply(ServerMessage::Error { id: &id, errors: &errors })
                }
            },
            ClientMessage::Complete { id } => {
                self.running.complete(&id);
                Ok(())
            }
        }
    }

    /// Counts a request, which may wait for others before it begins.
    fn hold(&mut self, request: &Request) -> Result<Hold, Fault> {
        self.running.drop_ended();
        let Some(quota) = &self.quota else { return Err(error::bad_request("the connection is not acknowledged")) };
        quota.hold(request.memory_bytes())
    }

    fn start(&mut self, id: String, request: Request, hold: Hold, outgoing: &Outgoing) {
        let operations = Operations {
            service: self.service.clone(),
            project: self.project.clone(),
            request_id: self.request_id.clone(),
            token: self.token.subscribe(),
            outgoing: outgoing.clone(),
            hold,
        };
        self.running.start(id.clone(), async move { operations.run(&id, request).await }.boxed());
    }

    /// Puts another token in place. Live queries are asked again where its claims differ; else when the token before
    /// would expire, or something else changes.
    fn renew(&self, token: Arc<str>) {
        self.token.send_if_modified(|current| {
            let identity = claims::identity(&token);
            let is_same = **current == *token || (identity.is_some() && identity == claims::identity(current));
            *current = token;
            !is_same
        });
    }

    /// Refuses a token that is not valid. Without one, everybody is let in, and rules say what for.
    async fn check_token(&mut self) -> Result<(), Closing> {
        let token = self.token.borrow().clone();
        if token.is_empty() {
            return Ok(());
        }
        let call = Call::begin(Some(&self.request_id), None, Some(self.service.config().time));
        let caller = Caller { call, token };
        let project = self
            .service
            .edge()
            .project(&caller, (&*self.project).into())
            .await
            .map_err(|fault| Closing::failed(&fault))?;
        match self.service.edge().reach(&caller, &project).await {
            Ok(_) => Ok(()),
            Err(fault) if fault.code == Code::Unauthenticated => Err(Closing::forbidden(&fault)),
            Err(fault) => Err(Closing::failed(&fault)),
        }
    }
}

impl RunningOperations {
    fn start(&mut self, id: String, operation: BoxFuture<'static, ()>) {
        self.count += 1;
        let number = self.count;
        let (operation, handle) = abortable(operation);
        self.by_id.insert(id.clone(), (number, handle));
        self.ends.push(operation.map(move |_| (number, id)).boxed());
    }

    /// Ends an operation whose client wants no more of it.
    fn complete(&mut self, id: &str) {
        if let Some((_, handle)) = self.by_id.remove(id) {
            handle.abort();
        }
    }

    /// Drops operations that have ended, and with them what they held.
    fn drop_ended(&mut self) {
        while let Some(Some((number, id))) = self.ends.next().now_or_never() {
            self.ended(number, &id);
        }
    }

    /// An operation has ended; its id may be another's by now.
    fn ended(&mut self, number: u64, id: &str) {
        if self.by_id.get(id).is_some_and(|(running, _)| *running == number) {
            self.by_id.remove(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use serde_json::Value;

    use super::{outgoing::Queued, *};
    use crate::{Config, tests::stage::Stage};

    struct Client {
        connection: Connection,
        outgoing: Outgoing,
        queued: Queued,
    }

    impl Client {
        async fn new(config: Config) -> Self {
            let stage = Stage::with(config).await;
            let caller = Caller { call: Call::begin(Some("r"), None, None), token: Arc::default() };
            let progress = SocketProgress::new(Arc::new(listener::Connection::new(([127, 0, 0, 1], 1).into())));
            let room = stage.service.config().socket_bytes;
            let (outgoing, queued) = outgoing::queues(stage.service.send_budget().clone(), progress, room);
            let connection = Connection::new(stage.service, &caller, "shop".to_owned(), None);
            Self { connection, outgoing, queued }
        }

        async fn send(&mut self, text: &str) -> Result<(), Closing> {
            let message = Message::Text(text.to_owned().into());
            self.connection.received(message, &self.outgoing).await.expect("the client has not left")
        }

        async fn begin(&mut self) {
            assert_eq!(self.send(r#"{"type": "connection_init"}"#).await, Ok(()));
            assert_eq!(self.reply()["type"], "connection_ack");
        }

        fn reply(&mut self) -> Value {
            let Ok(Message::Text(text)) = self.queued.replies.try_recv() else { panic!("no reply") };
            serde_json::from_str(&text).expect("a reply is JSON")
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_begin_is_closed() {
        let mut client = Client::new(Config::default()).await;
        let closing = client.connection.serve(&mut stream::pending(), &client.outgoing).await;
        assert_eq!(closing, Some(Closing::INIT_TIMEOUT));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_answers_no_ping_is_gone() {
        let mut client = Client::new(Config::default()).await;
        client.connection.is_acknowledged = true;
        let begin = Instant::now();
        assert_eq!(client.connection.serve(&mut stream::pending(), &client.outgoing).await, None);
        assert_eq!(begin.elapsed(), SILENCE_MAX);
        assert_eq!(client.queued.replies.try_recv(), Ok(Message::Ping(Default::default())));
    }

    #[tokio::test]
    async fn one_operation_too_many_is_refused_and_the_socket_stays() {
        let mut client = Client::new(Config { subscriptions: 1, ..Config::default() }).await;
        assert_eq!(client.send(r#"{"type": "connection_init"}"#).await, Ok(()));
        assert_eq!(client.reply()["type"], "connection_ack");
        let subscribe = |id: &str| {
            format!(
                r#"{{"type": "subscribe", "id": "{id}", "payload": {{"query": "subscription {{ album {{ title }} }}"}}}}"#
            )
        };
        assert_eq!(client.send(&subscribe("1")).await, Ok(()));
        assert_eq!(client.send(&subscribe("2")).await, Ok(()));
        let refused = client.reply();
        assert_eq!((&refused["type"], &refused["id"]), (&Value::from("error"), &Value::from("2")));
        assert_eq!(refused["payload"][0]["extensions"]["code"], "TOO_MANY");
        assert_eq!(client.send(r#"{"type": "complete", "id": "1"}"#).await, Ok(()));
        assert_eq!(client.send(&subscribe("2")).await, Ok(()));
        assert!(client.queued.replies.try_recv().is_err(), "there is room again");
    }

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

    #[tokio::test]
    async fn requests_that_wait_for_a_slow_client_are_bounded() {
        for member in [r#""variables": {"a": "X"}"#, r#""operationName": "X""#] {
            requests_are_bounded(&member.replace('X', &"x".repeat(60_000))).await;
        }
    }

    async fn requests_are_bounded(member: &str) {
        let config = Config { socket_bytes: 100_000, ..Config::default() };
        let mut client = Client::new(config).await;
        client.begin().await;
        let subscribe = |id: usize| {
            let query = r#""query": "{ album { title } }""#;
            format!(r#"{{"type": "subscribe", "id": "{id}", "payload": {{{query}, {member}}}}}"#)
        };
        assert_eq!(client.send(&subscribe(1)).await, Ok(()));
        assert_eq!(client.send(&subscribe(2)).await, Ok(()));
        let refused = client.reply();
        assert_eq!((&refused["type"], &refused["id"]), (&Value::from("error"), &Value::from("2")));
        assert_eq!(refused["payload"][0]["extensions"]["code"], "TOO_MANY");
        let message = refused["payload"][0]["message"].as_str().expect("a message");
        assert!(message.ends_with("limits.socket_bytes: 100000"), "{message}");
        assert_eq!(client.send(r#"{"type": "complete", "id": "1"}"#).await, Ok(()));
        client.connection.running.ends.next().await.expect("the first has ended");
        assert_eq!(client.send(&subscribe(2)).await, Ok(()));
        assert!(client.queued.replies.try_recv().is_err(), "there is room again");
    }

    #[tokio::test]
    async fn errors_that_clients_do_not_take_count_as_answers_do() {
        let mut client = Client::new(Config { unsent_bytes: 100_000, ..Config::default() }).await;
        client.begin().await;
        // The path of an error has the keys of the request.
        let key = "k".repeat(80_000);
        for id in 1..=2 {
            let payload = format!(r#"{{"query": "{{ {key}: album {{ lost }} }}"}}"#);
            let text = format!(r#"{{"type": "subscribe", "id": "{id}", "payload": {payload}}}"#);
            assert_eq!(client.send(&text).await, Ok(()));
            client.connection.running.ends.next().await.expect("it ends");
        }
        let errors = client.queued.messages();
        assert_eq!(errors.len(), 2);
        let error = |index: usize| &errors[index]["payload"][0];
        assert_eq!((&errors[0]["type"], &error(0)["path"][0]), (&Value::from("error"), &Value::from(key)));
        assert_eq!((&errors[1]["type"], &errors[1]["id"]), (&Value::from("error"), &Value::from("2")));
        assert_eq!(error(1)["extensions"]["code"], "UNAVAILABLE", "there is no room for another as large");
    }

    #[tokio::test]
    async fn a_large_message_before_the_acknowledgement_closes_the_connection() {
        let mut client = Client::new(Config::default()).await;
        let text = format!(r#"{{"type": "ping", "payload": {{"a": "{}"}}}}"#, "x".repeat(receive::SMALL_BYTES));
        assert_eq!(client.send(&text).await, Err(Closing::TOO_LARGE));
    }

    #[tokio::test]
    async fn the_buffer_that_a_large_message_leaves_behind_is_counted() {
        let mut client = Client::new(Config { caller_bytes: 100_000, ..Config::default() }).await;
        assert_eq!(client.send(r#"{"type": "connection_init"}"#).await, Ok(()));
        let ping = |size: usize| format!(r#"{{"type": "ping", "payload": {{"a": "{}"}}}}"#, "x".repeat(size));
        for _ in 0..3 {
            assert_eq!(client.send(&ping(70_000)).await, Ok(()));
        }
        let closing = client.send(&ping(120_000)).await.expect_err("it is over the limit");
        assert_eq!(closing.code, 1013);
    }

    #[tokio::test]
    async fn a_renewed_token_wakes_live_queries_only_where_its_claims_differ() {
        use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
        let mut client = Client::new(Config::default()).await;
        client.connection.is_acknowledged = true;
        let token = |payload: &str| format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload));
        let mut watched = client.connection.token.subscribe();
        for (payload, wakes) in [
            (r#"{"id": "ann", "exp": 1}"#, true),
            (r#"{"id": "ann", "exp": 1}"#, false),
            (r#"{"id": "ann", "exp": 2}"#, false),
            (r#"{"id": "bob", "exp": 2}"#, true),
        ] {
            let token = token(payload);
            let ping = format!(r#"{{"type": "ping", "payload": {{"token": "{token}"}}}}"#);
            assert_eq!(client.send(&ping).await, Ok(()));
            assert_eq!(watched.has_changed().expect("the sender lives"), wakes, "{payload}");
            assert_eq!(&**watched.borrow_and_update(), token, "{payload}");
        }
    }

    #[tokio::test]
    async fn an_operation_that_ended_does_not_end_another_of_its_id() {
        let mut running = RunningOperations::default();
        running.start("1".to_owned(), std::future::pending().boxed());
        running.complete("1");
        running.start("1".to_owned(), std::future::pending().boxed());
        let (number, id) = running.ends.next().await.expect("the first has ended");
        running.ended(number, &id);
        assert!(running.by_id.contains_key("1"));
    }
}
