//! GraphQL over WebSocket: the handshake, and one task per connection.
//!
//! Source: the protocol `graphql-transport-ws` of github.com/enisdenjo/graphql-ws, PROTOCOL.md.

mod message;
mod operation;

use std::{collections::HashMap, pin::pin, sync::Arc, time::Duration};

use axum::{
    extract::{
        Path, State,
        ws::{Message, WebSocket, WebSocketUpgrade, rejection::WebSocketUpgradeRejection},
    },
    response::Response,
};
use futures::{
    FutureExt, SinkExt, Stream, StreamExt,
    future::{AbortHandle, BoxFuture, abortable},
    stream::{FuturesUnordered, SplitSink},
};
use http::{HeaderMap, HeaderValue, header};
use mesh::{Call, Code, Fault, telemetry::Gauge};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::{Instant, MissedTickBehavior},
};

use self::{
    message::{ClientMessage, Closing, ServerMessage},
    operation::Operations,
};
use crate::{
    Service,
    edge::Caller,
    error,
    http::{answer, cors},
};

/// The subprotocol.
const PROTOCOL: &str = "graphql-transport-ws";
/// How long a client may take to begin.
const INIT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a client is asked whether it lives.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// How long a client may send nothing, not even a pong.
const SILENCE_MAX: Duration = Duration::from_secs(40);
/// How long a client may take to agree to the end of its connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Answers that wait for a slow client; while there are as many, operations wait before they read.
const ANSWERS_MAX: usize = 4;
/// Replies that wait for a slow client; with more, no message of it is taken.
const REPLIES_MAX: usize = 64;

/// A WebSocket handshake, if the request is one.
pub type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

/// Whether a request asks for a WebSocket.
pub fn is_asked(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(header::UPGRADE).map(HeaderValue::as_bytes);
    upgrade.is_some_and(|upgrade| upgrade.eq_ignore_ascii_case(b"websocket"))
}

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
    let upgrade = upgrade.map_err(|cause| error::bad_request(format!("expected a WebSocket handshake: {cause}")))?;
    service.edge().project(caller, (&*project).into()).await?;
    check_origin(service, &project, headers)?;
    let upgrade = upgrade.protocols([PROTOCOL]);
    if upgrade.selected_protocol().is_none() {
        return Err(error::bad_request(format!("invalid subprotocol: expected {PROTOCOL}")));
    }
    let open = OpenSocket::new(service)?;
    let most = service.config().body_bytes;
    let connection = Connection::new(service.clone(), caller, project);
    let tasks = service.tasks().clone();
    let upgrade = upgrade.max_message_size(most).max_frame_size(most).write_buffer_size(0);
    Ok(upgrade.on_upgrade(move |socket| async move {
        tasks.spawn("socket", async move {
            Box::pin(connection.run(socket)).await;
            drop(open);
        });
    }))
}

/// Refuses pages of other sites that the project does not list: a browser lets any page open a socket.
fn check_origin(service: &Service, project: &str, headers: &HeaderMap) -> Result<(), Fault> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let site = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, site)| site);
    let is_own = host.is_some() && site == host;
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

/// Ends of the queues to the client.
#[derive(Clone)]
struct Outgoing {
    answers: mpsc::Sender<Message>,
    replies: mpsc::Sender<Message>,
}

impl Connection {
    fn new(service: Service, caller: &Caller, project: String) -> Self {
        let (request_id, token) = (caller.call.request_id.clone(), watch::Sender::new(caller.token.clone()));
        Self { service, project, request_id, token, is_acknowledged: false, running: RunningOperations::default() }
    }

    /// Serves the client until it leaves, breaks the protocol, or the node stops.
    async fn run(mut self, socket: WebSocket) {
        let (sink, mut messages) = socket.split();
        let (answers, queued_answers) = mpsc::channel(ANSWERS_MAX);
        let (replies, queued_replies) = mpsc::channel(REPLIES_MAX);
        let outgoing = Outgoing { answers, replies };
        let write_timeout = self.service.config().write_timeout;
        let mut writer = pin!(write(sink, queued_replies, queued_answers, write_timeout));
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
        messages: &mut (impl Stream<Item = Result<Message, axum::Error>> + Unpin),
        outgoing: &Outgoing,
    ) -> Option<Closing> {
        let draining = self.service.tasks().draining().clone();
        let (begin, mut last_message) = (Instant::now(), Instant::now());
        let mut ping = tokio::time::interval_at(begin + PING_INTERVAL, PING_INTERVAL);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
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
                        Err(error) => return Closing::of(error),
                    }
                }
                // A client that takes no replies is not read from until it does.
                Ok(_) = outgoing.replies.reserve(), if outgoing.replies.capacity() == 0 => {}
                _ = ping.tick() => {
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
            Message::Ping(_) | Message::Pong(_) => return Some(Ok(())),
            Message::Close(_) => return None,
        };
        Some(match ClientMessage::parse(text.as_bytes(), self.service.guard()) {
            Ok(message) => self.act(message, outgoing).await,
            Err(closing) => Err(closing),
        })
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
                self.is_acknowledged = true;
                reply(ServerMessage::Acknowledgement)
            }
            ClientMessage::Ping { token } => {
                if let Some(token) = token.filter(|_| self.is_acknowledged) {
                    self.token.send_replace(token);
                }
                reply(ServerMessage::Pong)
            }
            ClientMessage::Pong => Ok(()),
            ClientMessage::Subscribe { .. } if !self.is_acknowledged => Err(Closing::UNAUTHORIZED),
            ClientMessage::Subscribe { id, .. } if self.running.by_id.contains_key(&id) => {
                Err(Closing::known_subscriber(&id))
            }
            ClientMessage::Subscribe { id, .. } if self.running.by_id.len() >= self.service.config().subscriptions => {
                self.service.mesh().metrics().shed("subscriptions").inc();
                let limit = self.service.config().subscriptions;
                let fault = Fault::new(Code::TooMany, format!("the socket has {limit} operations, which is the limit"));
                let errors = operation::errors(&fault, &Call::begin(Some(&self.request_id), None, None));
                reply(ServerMessage::Error { id: &id, errors: &errors })
            }
            ClientMessage::Subscribe { id, request } => {
                let operations = Operations {
                    service: self.service.clone(),
                    project: self.project.clone(),
                    request_id: self.request_id.clone(),
                    token: self.token.subscribe(),
                    answers: outgoing.answers.clone(),
                };
                self.running.start(id.clone(), async move { operations.run(&id, *request).await }.boxed());
                Ok(())
            }
            ClientMessage::Complete { id } => {
                self.running.complete(&id);
                Ok(())
            }
        }
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

    /// An operation has ended; its id may be another's by now.
    fn ended(&mut self, number: u64, id: &str) {
        if self.by_id.get(id).is_some_and(|(running, _)| *running == number) {
            self.by_id.remove(id);
        }
    }
}

/// Writes what is queued, replies first, until nobody can queue any more, the connection is closed, or the client takes
/// nothing for `timeout`.
async fn write(
    mut sink: SplitSink<WebSocket, Message>,
    mut replies: mpsc::Receiver<Message>,
    mut answers: mpsc::Receiver<Message>,
    timeout: Duration,
) {
    loop {
        let message = tokio::select! {
            biased;
            Some(message) = replies.recv() => message,
            Some(message) = answers.recv() => message,
            else => return,
        };
        let is_last = matches!(message, Message::Close(_));
        let is_sent = tokio::time::timeout(timeout, sink.send(message)).await.is_ok_and(|sent| sent.is_ok());
        if is_last || !is_sent {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use serde_json::Value;

    use super::*;
    use crate::{Config, tests::stage::Stage};

    struct Client {
        connection: Connection,
        outgoing: Outgoing,
        replies: mpsc::Receiver<Message>,
        _answers: mpsc::Receiver<Message>,
    }

    impl Client {
        async fn new(config: Config) -> Self {
            let stage = Stage::with(config).await;
            let caller = Caller { call: Call::begin(Some("r"), None, None), token: Arc::default() };
            let connection = Connection::new(stage.service, &caller, "shop".to_owned());
            let (answers, _answers) = mpsc::channel(ANSWERS_MAX);
            let (replies, queued) = mpsc::channel(REPLIES_MAX);
            Self { connection, outgoing: Outgoing { answers, replies }, replies: queued, _answers }
        }

        async fn send(&mut self, text: &str) -> Result<(), Closing> {
            let message = Message::Text(text.to_owned().into());
            self.connection.received(message, &self.outgoing).await.expect("the client has not left")
        }

        fn reply(&mut self) -> Value {
            let Ok(Message::Text(text)) = self.replies.try_recv() else { panic!("no reply") };
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
        assert_eq!(client.replies.try_recv(), Ok(Message::Ping(Default::default())));
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
        assert!(client.replies.try_recv().is_err(), "there is room again");
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
