use mesh::listener;
use serde_json::{Value, json};
use tungstenite::Message;

use super::*;
use crate::{
    Config,
    http::SocketProgress,
    socket::{
        SocketSession as _,
        outgoing::{self, Queued},
    },
    tests::stage::Stage,
};

/// A client without a connection: what it sends is acted on at once, what it is sent waits.
struct Client {
    stage: Stage,
    session: JsonSession,
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
        let quota = stage.service.quotas().socket(CallerId::unidentified("shop", None)).expect("there is room");
        let state = SocketState::new(&stage.service, &caller, ("shop".to_owned(), None), quota);
        Self { session: JsonSession::new(state, Arc::default()), stage, outgoing, queued }
    }

    fn send(&mut self, message: &Value) -> Result<(), Closing> {
        self.session.received(Received::Text(message.to_string().into()), &self.outgoing)
    }

    fn subscribe(&mut self, id: &str, data: Value) -> Result<(), Closing> {
        let mut data = data;
        data["id"] = json!(id);
        self.send(&json!({ "id": format!("r-{id}"), "type": "realtime-subscribe", "data": data }))
    }

    fn reply(&mut self) -> Value {
        let Ok(Message::Text(text)) = self.queued.replies.try_recv() else { panic!("no reply") };
        serde_json::from_str(&text).expect("a reply is JSON")
    }

    fn is_silent(&mut self) -> bool {
        self.queued.replies.try_recv().is_err()
    }
}

fn albums() -> Value {
    json!({ "group": "album", "dbType": "music" })
}

#[tokio::test]
async fn what_is_not_known_is_told_and_answers_of_workers_are_not_replied_to() {
    let mut client = Client::new(Config::default()).await;
    assert!(client.session.takes_messages(), "nothing has to come before");
    for (message, data) in [
        (json!({ "id": "1", "type": "foo" }), json!({ "error": "Invalid message type" })),
        (
            json!({ "id": "1", "type": "service-register", "data": { "service": "w", "project": "other" } }),
            json!({ "ack": false, "error": "the socket is of project shop" }),
        ),
        (
            json!({ "id": "1", "type": "pubsub-subscribe", "data": { "subject": "news" } }),
            json!({ "status": 404, "error": "This feature isn't enabled", "msg": null }),
        ),
        (
            json!({ "id": "1", "type": "realtime-unsubscribe", "data": { "id": "q9", "group": "todos" } }),
            json!({ "group": "todos", "id": "q9", "ack": true, "error": "", "docs": [] }),
        ),
        (
            json!({ "id": "1", "type": "realtime-subscribe", "data": { "id": "q1", "group": "todos" } }),
            json!({ "group": "todos", "id": "q1", "ack": false,
                "error": "invalid request parameters provided", "docs": [] }),
        ),
    ] {
        assert_eq!(client.send(&message), Ok(()));
        assert_eq!(client.reply(), json!({ "type": message["type"], "data": data, "id": "1" }));
    }
    let answer = json!({ "id": "x", "type": "service-request", "data": { "id": "c", "params": 1 } });
    assert_eq!(client.send(&answer), Ok(()));
    assert!(client.is_silent(), "clients take what follows for another call, without an end");
}

#[tokio::test]
async fn what_is_unreadable_is_told_before_the_end() {
    for message in [Received::Text("abc".into()), Received::Binary(vec![0xff].into()), Received::Text("[]".into())] {
        let mut client = Client::new(Config::default()).await;
        let closing = client.session.received(message, &client.outgoing).expect_err("it ends");
        assert_eq!(closing.code, 1007);
        let told = json!({ "type": "unknown", "data": { "error": "invalid request sent" }, "id": "0" });
        assert_eq!(client.reply(), told);
    }
}

#[tokio::test]
async fn binary_messages_are_read_too() {
    let mut client = Client::new(Config::default()).await;
    let message = Received::Binary(br#"{"id": "1", "type": "foo"}"#.to_vec().into());
    assert_eq!(client.session.received(message, &client.outgoing), Ok(()));
    assert_eq!(client.reply()["type"], "foo");
}

#[tokio::test]
async fn a_live_query_that_is_ended_before_its_reply_has_one_all_the_same() {
    let mut client = Client::new(Config::default()).await;
    assert_eq!(client.subscribe("q1", albums()), Ok(()));
    assert!(client.is_silent());
    assert_eq!(client.subscribe("q1", albums()), Ok(()), "another takes its place");
    let begun = client.reply();
    assert_eq!((&begun["id"], &begun["data"]["ack"]), (&json!("r-q1"), &json!(true)));
    let end = json!({ "id": "r2", "type": "realtime-unsubscribe", "data": { "id": "q1", "group": "other" } });
    assert_eq!(client.send(&end), Ok(()));
    assert_eq!(client.reply()["type"], "realtime-subscribe");
    let ended = client.reply();
    assert_eq!((&ended["id"], &ended["type"]), (&json!("r2"), &json!("realtime-unsubscribe")));
    assert!(client.is_silent());
}

#[tokio::test]
async fn the_first_live_query_says_for_whom_its_socket_counts() {
    let mut client = Client::new(Config { sockets: 1, ..Config::default() }).await;
    let mut query = albums();
    query["token"] = json!("staff");
    assert_eq!(client.subscribe("q1", query.clone()), Ok(()));
    assert!(!client.session.takes_messages(), "the token is checked before others are acted on");
    assert_eq!(client.session.next(&client.outgoing).await, Ok(()));
    assert!(client.session.takes_messages());
    assert_eq!(client.session.state().quota.caller(), CallerId::of("shop", "staff", None));
    query["token"] = json!("");
    assert_eq!(client.subscribe("q2", query), Ok(()));
    assert_eq!(client.session.state().quota.caller(), CallerId::of("shop", "staff", None), "no other does");

    // One socket of the bearer is open already.
    let _other = client.stage.service.quotas().socket(CallerId::of("shop", "", None)).expect("there is room");
    let mut refused = Client { session: fresh(&client), ..client };
    assert_eq!(refused.subscribe("q1", albums()).map_err(|closing| closing.code), Err(1013));
    assert_eq!(refused.reply()["data"]["ack"], false);
}

/// Another session of the same stage.
fn fresh(client: &Client) -> JsonSession {
    let caller = Caller { call: Call::begin(Some("r"), None, None), token: Arc::default() };
    let service = &client.stage.service;
    let quota = service.quotas().socket(CallerId::unidentified("shop", None));
    let quota = quota.expect("the other is counted for its bearer");
    JsonSession::new(SocketState::new(service, &caller, ("shop".to_owned(), None), quota), Arc::default())
}

#[tokio::test]
async fn a_token_that_is_not_valid_counts_for_nobody() {
    let mut client = Client::new(Config::default()).await;
    client.stage.world.expire("forged");
    let mut query = albums();
    query["token"] = json!("forged");
    assert_eq!(client.subscribe("q1", query.clone()), Ok(()));
    assert_eq!(client.session.next(&client.outgoing).await, Ok(()));
    assert_eq!(client.session.state().quota.caller(), CallerId::of("shop", "", None));

    let mut client = Client::new(Config::default()).await;
    query["token"] = json!("staff");
    assert_eq!(client.subscribe("q1", query), Ok(()));
    client.stage.world.unreachable.store(true, std::sync::atomic::Ordering::SeqCst);
    let closing = client.session.next(&client.outgoing).await.expect_err("nobody checks it");
    assert_eq!(closing.code, 1013);
}

#[tokio::test]
async fn one_live_query_too_many_is_refused_and_the_socket_stays() {
    let mut client = Client::new(Config { subscriptions: 1, ..Config::default() }).await;
    assert_eq!(client.subscribe("q1", albums()), Ok(()));
    assert_eq!(client.subscribe("q2", albums()), Ok(()));
    let refused = client.reply();
    assert_eq!((&refused["id"], &refused["data"]["ack"]), (&json!("r-q2"), &json!(false)));
    let error = refused["data"]["error"].as_str().expect("an error");
    assert!(error.ends_with("limits.subscriptions: 1"), "{error}");
    assert_eq!(client.subscribe("q1", albums()), Ok(()), "it takes the place of the one before");
    assert_eq!((client.reply()["data"]["ack"].clone(), client.is_silent()), (json!(true), true));
    let large = json!({ "group": "album", "dbType": "music", "where": { "title": "x".repeat(20_000) } });
    assert_eq!(client.subscribe("q1", large), Ok(()), "it is known who sends it");
}

#[tokio::test]
async fn silent_clients_leave_room_to_those_who_have_yet_to_say_who_they_are() {
    let mut client = Client::new(Config { sockets: 1, ..Config::default() }).await;
    assert!(!client.session.has_begun());
    assert_eq!(client.session.time_out(), Ok(()));
    assert!(client.session.has_begun() && !client.session.state().is_identified());
    let mut late = fresh(&client);
    assert_eq!(late.time_out().map_err(|closing| closing.code), Err(1013), "one is silent already");
    let mut query = albums();
    query["token"] = json!("staff");
    assert_eq!(client.subscribe("q1", query), Ok(()));
    assert_eq!(client.session.next(&client.outgoing).await, Ok(()));
    assert_eq!(client.session.state().quota.caller(), CallerId::of("shop", "staff", None));
    assert_eq!(late.time_out(), Ok(()), "who says who they are makes room");
}

#[tokio::test]
async fn a_stranger_sends_small_messages() {
    let mut client = Client::new(Config::default()).await;
    let large = json!({ "id": "1", "type": "foo", "data": "x".repeat(20_000) });
    assert_eq!(client.send(&large), Err(Closing::TOO_LARGE));
}
