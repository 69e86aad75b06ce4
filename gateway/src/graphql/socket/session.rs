//! The protocol of one connection: what a client's messages begin and end.

use std::{net::IpAddr, sync::Arc};

use futures::{FutureExt, future::BoxFuture};
use mesh::{Call, Code};
use tokio::sync::watch;
use tungstenite::Message;

use super::{
    message::{ClientMessage, Closing, ServerMessage},
    operation::{self, Operations},
    outgoing::Outgoing,
    receive::{self, Incomplete},
    running::{Completion, RunningOperations},
};
use crate::{
    Service,
    edge::Caller,
    graphql::request::Request,
    http::claims,
    live::{CallerId, Hold, SocketQuota},
};

/// State of one connection.
pub struct Session {
    /// The gateway.
    pub service: Service,
    /// The client's address, where it is known.
    pub peer: Option<IpAddr>,
    /// What is received of a message that is not complete.
    pub incomplete: Incomplete,
    project: String,
    request_id: Arc<str>,
    /// The token of its operations, which a ping may renew.
    token: watch::Sender<Arc<str>>,
    phase: Phase,
    is_draining: bool,
    running: RunningOperations,
    /// The memory of the largest message so far, which the buffer of the connection may keep.
    buffer: Option<(Hold, usize)>,
}

/// How far a client is.
enum Phase {
    /// It has said nothing.
    New,
    /// `connection_init` came, and its token is being checked.
    Checking(BoxFuture<'static, Result<(), Closing>>),
    /// `connection_ack` is sent; this bounds what its operations hold.
    Acknowledged(SocketQuota),
}

impl Session {
    /// A session of `caller`, who has opened a connection to `project`.
    pub fn new(service: Service, caller: &Caller, project: String, peer: Option<IpAddr>) -> Self {
        let (request_id, token) = (caller.call.request_id.clone(), watch::Sender::new(caller.token.clone()));
        let (incomplete, running, buffer) = Default::default();
        let (phase, is_draining) = (Phase::New, false);
        Self { service, peer, incomplete, project, request_id, token, phase, is_draining, running, buffer }
    }

    /// Whether the client has sent `connection_init`.
    pub fn has_begun(&self) -> bool {
        !matches!(self.phase, Phase::New)
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

    /// Waits until an operation has ended or the token is checked. An error ends the connection. Cancel safe.
    pub async fn next(&mut self, outgoing: &Outgoing) -> Result<(), Closing> {
        let checked = async {
            match &mut self.phase {
                Phase::Checking(check) => check.await,
                Phase::New | Phase::Acknowledged(_) => std::future::pending().await,
            }
        };
        let checked = tokio::select! {
            Some(()) = self.running.next_end() => return Ok(()),
            checked = checked => checked,
        };
        checked?;
        self.acknowledge(outgoing)
    }

    /// Acts on a message. An error ends the connection.
    pub fn received(&mut self, message: Message, outgoing: &Outgoing) -> Result<(), Closing> {
        let text = match message {
            Message::Text(text) => text,
            Message::Binary(_) => return Err(Closing::invalid("expected text, found binary")),
            Message::Ping(payload) | Message::Pong(payload) => {
                self.incomplete.control(payload.len());
                return Ok(());
            }
            // The connection sees to the end, and hands on no parts of messages.
            Message::Close(_) | Message::Frame(_) => return Ok(()),
        };
        self.incomplete.completed();
        self.keep_buffer(text.len())?;
        let message = ClientMessage::parse(text.as_bytes(), self.service.guard())?;
        drop(text);
        self.act(message, outgoing)
    }

    /// Counts a buffer that a message of `size` bytes may leave behind. Before the acknowledgement nobody is known who
    /// it could be counted for.
    fn keep_buffer(&mut self, size: usize) -> Result<(), Closing> {
        if size <= receive::SMALL_BYTES {
            return Ok(());
        }
        let Phase::Acknowledged(quota) = &self.phase else { return Err(Closing::TOO_LARGE) };
        let kept = match &mut self.buffer {
            Some((_, before)) if *before >= size => Ok(()),
            Some((hold, before)) => hold.resize(size).map(|()| *before = size),
            None => quota.buffer(size).map(|hold| self.buffer = Some((hold, size))),
        };
        kept.map_err(|fault| Closing::full(&fault))
    }

    fn act(&mut self, message: ClientMessage, outgoing: &Outgoing) -> Result<(), Closing> {
        match message {
            ClientMessage::Init { .. } if self.has_begun() => Err(Closing::INITIALISED_AGAIN),
            ClientMessage::Init { token } => {
                if let Some(token) = token {
                    self.token.send_replace(token);
                }
                let token = self.token.borrow().clone();
                // Without a token, everybody is let in, and rules say what for.
                if token.is_empty() {
                    return self.acknowledge(outgoing);
                }
                let (service, project, request_id) =
                    (self.service.clone(), self.project.clone(), self.request_id.clone());
                let check = async move { check_token(&service, &project, &request_id, token).await };
                self.phase = Phase::Checking(check.boxed());
                Ok(())
            }
            ClientMessage::Ping { token } => {
                if let (Some(token), Phase::Acknowledged(_)) = (token, &self.phase) {
                    self.renew(token);
                }
                reply(outgoing, ServerMessage::Pong)
            }
            ClientMessage::Pong => Ok(()),
            ClientMessage::Subscribe { id, request } => self.subscribe(id, *request, outgoing),
            ClientMessage::Complete { id } => {
                self.running.complete(&id);
                Ok(())
            }
        }
    }

    fn acknowledge(&mut self, outgoing: &Outgoing) -> Result<(), Closing> {
        let caller = CallerId::of(&self.project, &self.token.borrow(), self.peer);
        self.phase = Phase::Acknowledged(self.service.quotas().socket(caller));
        self.incomplete.acknowledged(self.service.large_messages().of(caller));
        reply(outgoing, ServerMessage::Acknowledgement)
    }

    fn subscribe(&mut self, id: String, request: Request, outgoing: &Outgoing) -> Result<(), Closing> {
        // What ended of its own may not have been noticed yet.
        self.running.drop_ended();
        let Phase::Acknowledged(quota) = &self.phase else { return Err(Closing::UNAUTHORIZED) };
        if self.running.contains(&id) {
            return Err(Closing::known_subscriber(&id));
        }
        if self.is_draining {
            // The client is told to connect again as soon as the others have ended.
            return Ok(());
        }
        // It may wait for others before it begins.
        let hold = match quota.hold(request.memory_bytes()) {
            Ok(hold) => hold,
            Err(fault) => {
                let errors = operation::errors(&fault, &Call::begin(Some(&self.request_id), None, None));
                return reply(outgoing, ServerMessage::Error { id: &id, errors: &errors });
            }
        };
        let completion = Completion::default();
        let operations = Operations {
            service: self.service.clone(),
            project: self.project.clone(),
            request_id: self.request_id.clone(),
            token: self.token.subscribe(),
            outgoing: outgoing.of_operation(completion.clone()),
            hold,
        };
        self.running.start(id.clone(), completion, async move { operations.run(&id, request).await }.boxed());
        Ok(())
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
}

fn reply(outgoing: &Outgoing, message: ServerMessage<'_>) -> Result<(), Closing> {
    outgoing.replies.try_send(message.into()).map_err(|_| Closing::invalid("too many messages at once"))
}

/// Refuses a token that is not valid.
async fn check_token(service: &Service, project: &str, request_id: &str, token: Arc<str>) -> Result<(), Closing> {
    let call = Call::begin(Some(request_id), None, Some(service.config().time));
    let (caller, edge) = (Caller { call, token }, service.edge());
    let reach = async {
        let project = edge.project(&caller, project.into()).await?;
        edge.reach(&caller, &project).await
    };
    match reach.await {
        Ok(_) => Ok(()),
        Err(fault) if fault.code == Code::Unauthenticated => Err(Closing::forbidden(&fault)),
        Err(fault) => Err(Closing::failed(&fault)),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use mesh::listener;
    use serde_json::Value;
    use tokio::sync::Notify;

    use super::{
        super::outgoing::{self, Queued},
        *,
    };
    use crate::{Config, http::SocketProgress, tests::stage::Stage};

    /// A client without a connection: what it sends is acted on at once, what it is sent waits.
    pub struct Client {
        pub stage: Stage,
        pub session: Session,
        pub outgoing: Outgoing,
        pub queued: Queued,
    }

    impl Client {
        pub async fn new(config: Config) -> Self {
            let stage = Stage::with(config).await;
            let caller = Caller { call: Call::begin(Some("r"), None, None), token: Arc::default() };
            let progress = SocketProgress::new(Arc::new(listener::Connection::new(([127, 0, 0, 1], 1).into())));
            let room = stage.service.config().socket_bytes;
            let (outgoing, queued) = outgoing::queues(stage.service.send_budget().clone(), progress, room);
            let session = Session::new(stage.service.clone(), &caller, "shop".to_owned(), None);
            Self { stage, session, outgoing, queued }
        }

        pub fn send(&mut self, text: &str) -> Result<(), Closing> {
            self.session.received(Message::Text(text.to_owned().into()), &self.outgoing)
        }

        pub async fn begin(&mut self) {
            assert_eq!(self.send(r#"{"type": "connection_init"}"#), Ok(()));
            assert_eq!(self.reply()["type"], "connection_ack");
        }

        pub fn reply(&mut self) -> Value {
            let Ok(Message::Text(text)) = self.queued.replies.try_recv() else { panic!("no reply") };
            serde_json::from_str(&text).expect("a reply is JSON")
        }

        /// Waits until so many messages of operations wait; none of them ends before they are written.
        pub async fn queued(&mut self, count: usize) {
            while self.queued.waiting() < count {
                tokio::select! {
                    done = self.session.next(&self.outgoing) => panic!("it ends when it is sent: {done:?}"),
                    () = tokio::task::yield_now() => {}
                }
            }
        }

        /// From now on reads wait for the gate.
        pub fn gate(&self) -> Arc<Notify> {
            self.stage.world.gate.lock().unwrap().insert(Arc::default()).clone()
        }
    }

    #[tokio::test]
    async fn a_token_is_checked_while_the_connection_goes_on() {
        let mut client = Client::new(Config::default()).await;
        assert_eq!(client.send(r#"{"type": "connection_init", "payload": {"token": "staff"}}"#), Ok(()));
        assert!(client.session.has_begun() && client.queued.replies.try_recv().is_err());
        assert_eq!(client.send(r#"{"type": "ping"}"#), Ok(()));
        assert_eq!(client.reply()["type"], "pong");
        assert_eq!(client.send(r#"{"type": "connection_init"}"#), Err(Closing::INITIALISED_AGAIN));
        let early = r#"{"type": "subscribe", "id": "1", "payload": {"query": "{ album { title } }"}}"#;
        assert_eq!(client.send(early), Err(Closing::UNAUTHORIZED));
        assert_eq!(client.session.next(&client.outgoing).await, Ok(()));
        assert_eq!(client.reply()["type"], "connection_ack");
    }

    #[tokio::test]
    async fn a_token_that_cannot_be_checked_now_closes_with_a_code_after_which_clients_come_back() {
        let mut client = Client::new(Config::default()).await;
        assert_eq!(client.send(r#"{"type": "connection_init", "payload": {"token": "staff"}}"#), Ok(()));
        client.stage.world.unreachable.store(true, std::sync::atomic::Ordering::SeqCst);
        let closing = client.session.next(&client.outgoing).await.expect_err("nobody checks it");
        assert_eq!(closing.code, 1013);
    }

    #[tokio::test]
    async fn what_waits_of_an_operation_is_dropped_when_its_client_completes_it() {
        let mut client = Client::new(Config::default()).await;
        client.begin().await;
        let subscribe =
            |query: &str| format!(r#"{{"type": "subscribe", "id": "1", "payload": {{"query": "{query}"}}}}"#);
        for (waiting, query) in [(0, "{ lost }"), (1, "subscription { album { title } }")] {
            assert_eq!(client.send(&subscribe(query)), Ok(()));
            client.queued(waiting + 1).await;
            assert_eq!(client.send(&subscribe("{ album { title } }")), Err(Closing::known_subscriber("1")));
            assert_eq!(client.send(r#"{"type": "complete", "id": "1"}"#), Ok(()));
        }
        assert_eq!(client.send(&subscribe("{ album { title } }")), Ok(()));
        let (sink, sent) = futures::channel::mpsc::unbounded();
        let mut writing = Box::pin(outgoing::write(sink, client.queued, std::time::Duration::from_secs(60)));
        while client.session.running.contains("1") {
            tokio::select! {
                done = client.session.next(&client.outgoing) => done.expect("nothing is wrong"),
                () = writing.as_mut() => panic!("the client is there"),
            }
        }
        drop(writing);
        let sent: Vec<Message> = futures::StreamExt::collect(sent).await;
        let texts: Vec<String> = sent.into_iter().map(|message| message.to_string()).collect();
        assert_eq!(texts.len(), 2, "{texts:?}");
        assert!(texts[0].contains(r#""album":[{"#) && texts[1].contains("complete"), "{texts:?}");
    }

    #[tokio::test]
    async fn a_message_of_more_than_half_of_what_a_socket_holds_is_answered() {
        let mut client = Client::new(Config { socket_bytes: 100_000, ..Config::default() }).await;
        client.begin().await;
        let large =
            format!(r#"{{"query": "{{ album {{ title }} }}", "variables": {{"a": "{}"}}}}"#, "x".repeat(60_000));
        assert_eq!(client.send(&format!(r#"{{"type": "subscribe", "id": "1", "payload": {large}}}"#)), Ok(()));
        assert!(client.queued.replies.try_recv().is_err(), "it is not refused");
    }

    #[tokio::test]
    async fn one_operation_too_many_is_refused_and_the_socket_stays() {
        let mut client = Client::new(Config { subscriptions: 1, ..Config::default() }).await;
        client.begin().await;
        let subscribe = |id: &str| {
            format!(
                r#"{{"type": "subscribe", "id": "{id}", "payload": {{"query": "subscription {{ album {{ title }} }}"}}}}"#
            )
        };
        assert_eq!(client.send(&subscribe("1")), Ok(()));
        assert_eq!(client.send(&subscribe("2")), Ok(()));
        let refused = client.reply();
        assert_eq!((&refused["type"], &refused["id"]), (&Value::from("error"), &Value::from("2")));
        assert_eq!(refused["payload"][0]["extensions"]["code"], "TOO_MANY");
        assert_eq!(client.send(r#"{"type": "complete", "id": "1"}"#), Ok(()));
        assert_eq!(client.send(&subscribe("2")), Ok(()));
        assert!(client.queued.replies.try_recv().is_err(), "there is room again");
    }

    #[tokio::test]
    async fn requests_that_wait_for_a_slow_client_are_bounded() {
        for member in [r#""variables": {"a": "X"}"#, r#""operationName": "X""#] {
            requests_are_bounded(&member.replace('X', &"x".repeat(60_000))).await;
        }
    }

    #[tokio::test]
    async fn the_response_key_of_a_live_query_counts_as_long_as_it_is_live() {
        let mut client = Client::new(Config { socket_bytes: 100_000, ..Config::default() }).await;
        client.begin().await;
        let key = "k".repeat(60_000);
        let subscribe = |id: usize| {
            let payload = format!(r#"{{"query": "subscription {{ {key}: album {{ title }} }}"}}"#);
            format!(r#"{{"type": "subscribe", "id": "{id}", "payload": {payload}}}"#)
        };
        assert_eq!(client.send(&subscribe(1)), Ok(()));
        client.queued(1).await;
        assert_eq!(client.send(&subscribe(2)), Ok(()));
        let refused = client.reply();
        assert_eq!(refused["payload"][0]["extensions"]["code"], "TOO_MANY", "{refused}");
    }

    async fn requests_are_bounded(member: &str) {
        let config = Config { socket_bytes: 100_000, ..Config::default() };
        let mut client = Client::new(config).await;
        client.begin().await;
        let subscribe = |id: usize| {
            let query = r#""query": "{ album { title } }""#;
            format!(r#"{{"type": "subscribe", "id": "{id}", "payload": {{{query}, {member}}}}}"#)
        };
        assert_eq!(client.send(&subscribe(1)), Ok(()));
        assert_eq!(client.send(&subscribe(2)), Ok(()));
        let refused = client.reply();
        assert_eq!((&refused["type"], &refused["id"]), (&Value::from("error"), &Value::from("2")));
        assert_eq!(refused["payload"][0]["extensions"]["code"], "TOO_MANY");
        let message = refused["payload"][0]["message"].as_str().expect("a message");
        assert!(message.ends_with("limits.socket_bytes: 100000"), "{message}");
        assert_eq!(client.send(r#"{"type": "complete", "id": "1"}"#), Ok(()));
        client.session.next(&client.outgoing).await.expect("the first has ended");
        assert_eq!(client.send(&subscribe(2)), Ok(()));
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
            assert_eq!(client.send(&text), Ok(()));
            client.queued(id).await;
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
        assert_eq!(client.send(&text), Err(Closing::TOO_LARGE));
    }

    #[tokio::test]
    async fn the_buffer_that_a_large_message_leaves_behind_is_counted() {
        let mut client = Client::new(Config { caller_bytes: 100_000, ..Config::default() }).await;
        client.begin().await;
        let ping = |size: usize| format!(r#"{{"type": "ping", "payload": {{"a": "{}"}}}}"#, "x".repeat(size));
        for _ in 0..3 {
            assert_eq!(client.send(&ping(70_000)), Ok(()));
        }
        let closing = client.send(&ping(120_000)).expect_err("it is over the limit");
        assert_eq!(closing.code, 1013);
    }

    #[tokio::test]
    async fn a_renewed_token_wakes_live_queries_only_where_its_claims_differ() {
        use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
        let mut client = Client::new(Config::default()).await;
        client.begin().await;
        let token = |payload: &str| format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload));
        let mut watched = client.session.token.subscribe();
        for (payload, wakes) in [
            (r#"{"id": "ann", "exp": 1}"#, true),
            (r#"{"id": "ann", "exp": 1}"#, false),
            (r#"{"id": "ann", "exp": 2}"#, false),
            (r#"{"id": "bob", "exp": 2}"#, true),
        ] {
            let token = token(payload);
            let ping = format!(r#"{{"type": "ping", "payload": {{"token": "{token}"}}}}"#);
            assert_eq!(client.send(&ping), Ok(()));
            assert_eq!(watched.has_changed().expect("the sender lives"), wakes, "{payload}");
            assert_eq!(&**watched.borrow_and_update(), token, "{payload}");
        }
    }
}
