use mesh::listener;
use serde_json::Value;
use tokio::sync::Notify;
use tungstenite::Message;

use super::*;
use crate::{
    Config,
    http::SocketProgress,
    socket::{
        SMALL_BYTES,
        outgoing::{self, Queued},
    },
    tests::stage::Stage,
};

/// What clients speak that do not say.
pub const PROTOCOL: Subprotocol = Subprotocol::Current;

/// A client without a connection: what it sends is acted on at once, what it is sent waits.
pub struct Client {
    pub stage: Stage,
    pub session: GraphqlSession,
    pub outgoing: Outgoing,
    pub queued: Queued,
}

impl Client {
    pub async fn new(config: Config) -> Self {
        Self::of(PROTOCOL, config).await
    }

    pub async fn of(protocol: Subprotocol, config: Config) -> Self {
        let stage = Stage::with(config).await;
        let caller = Caller { call: Call::begin(Some("r"), None, None), token: Arc::default() };
        let progress = SocketProgress::new(Arc::new(listener::Connection::new(([127, 0, 0, 1], 1).into())));
        let room = stage.service.config().socket_bytes;
        let (outgoing, queued) = outgoing::queues(stage.service.send_budget().clone(), progress, room);
        let quota = stage.service.quotas().socket(CallerId::unidentified("shop", None)).expect("there is room");
        let state = SocketState::new(&stage.service, &caller, ("shop".to_owned(), None), quota);
        let session = GraphqlSession::new(state, protocol, Arc::default());
        Self { stage, session, outgoing, queued }
    }

    pub fn send(&mut self, text: &str) -> Result<(), Closing> {
        self.session.received(Received::Text(text.to_owned().into()), &self.outgoing)
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
    let subscribe = |query: &str| format!(r#"{{"type": "subscribe", "id": "1", "payload": {{"query": "{query}"}}}}"#);
    for (waiting, query) in [(0, "{ lost }"), (1, "subscription { album { title } }")] {
        assert_eq!(client.send(&subscribe(query)), Ok(()));
        client.queued(waiting + 1).await;
        assert_eq!(client.send(&subscribe("{ album { title } }")), Err(Closing::known_subscriber("1")));
        assert_eq!(client.send(r#"{"type": "complete", "id": "1"}"#), Ok(()));
    }
    assert_eq!(client.send(&subscribe("{ album { title } }")), Ok(()));
    let (sink, sent) = futures::channel::mpsc::unbounded();
    let mut writing = Box::pin(outgoing::write(sink, client.queued, std::time::Duration::from_secs(60)));
    while client.session.state.running.contains("1") {
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
    let large = format!(r#"{{"query": "{{ album {{ title }} }}", "variables": {{"a": "{}"}}}}"#, "x".repeat(60_000));
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
    let text = format!(r#"{{"type": "ping", "payload": {{"a": "{}"}}}}"#, "x".repeat(SMALL_BYTES));
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
