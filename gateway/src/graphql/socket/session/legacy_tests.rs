use serde_json::{Value, json};

use super::{tests::Client, *};
use crate::Config;

async fn client() -> Client {
    Client::of(Subprotocol::Legacy, Config::default()).await
}

/// A client that is acknowledged.
async fn begun(config: Config) -> Client {
    let mut client = Client::of(Subprotocol::Legacy, config).await;
    assert_eq!(client.send(r#"{"type": "connection_init", "id": "i", "payload": {}}"#), Ok(()));
    assert_eq!(client.reply(), json!({ "type": "connection_ack", "id": "i", "payload": {} }));
    assert_eq!(client.reply(), json!({ "type": "ka", "id": "i", "payload": {} }));
    client
}

fn start(id: &str, payload: Value) -> String {
    json!({ "type": "start", "id": id, "payload": payload }).to_string()
}

fn told(reply: &Value) -> (&str, &str) {
    let message = reply["payload"]["message"].as_str().expect("a message");
    assert_eq!(reply["payload"]["errors"][0]["message"], message);
    (reply["type"].as_str().expect("a type"), message)
}

#[tokio::test]
async fn messages_wait_while_the_token_is_checked() {
    let mut client = client().await;
    assert!(client.session.takes_messages());
    assert_eq!(client.send(r#"{"type": "connection_init", "payload": {"authToken": "staff"}}"#), Ok(()));
    assert!(!client.session.takes_messages(), "clients send start before they are acknowledged");
    assert_eq!(client.session.next(&client.outgoing).await, Ok(()));
    assert!(client.session.takes_messages());
    assert_eq!(client.reply()["type"], "connection_ack");
}

#[tokio::test]
async fn what_is_wrong_is_told_and_the_connection_stays() {
    let mut client = client().await;
    assert_eq!(client.send(&start("1", json!({ "query": "{ album { title } }" }))), Ok(()));
    let early = client.reply();
    assert_eq!((told(&early), &early["id"]), (("error", "expected connection_init, found start"), &json!("1")));
    assert_eq!(early["payload"]["errors"][0]["extensions"]["code"], "UNAUTHENTICATED");

    let mut client = begun(Config::default()).await;
    for (text, id, message) in [
        (r#"{"type": "bogus", "id": "x"}"#, json!("x"), "invalid message type (bogus) provided"),
        (r#"{"type": "stop", "id": "9"}"#, json!("9"), "got stop wanted start"),
        (
            r#"{"type": "start", "id": "1"}"#,
            json!("1"),
            "invalid message: invalid payload: expected object, found null",
        ),
        ("[]", Value::Null, "invalid message: expected object, found array"),
    ] {
        assert_eq!(client.send(text), Ok(()), "{text}");
        let reply = client.reply();
        assert_eq!((told(&reply), &reply["id"]), (("error", message), &id));
    }
}

#[tokio::test]
async fn a_first_message_that_is_none_closes_the_connection() {
    let mut client = client().await;
    let closing = client.send(r#"{"type": "connection_init", "payload": {"token": 1}}"#).expect_err("it is not valid");
    assert_eq!(closing.code, 4400);
    let refused = client.reply();
    let message = "invalid message: invalid payload.token: expected string, found integer";
    assert_eq!(told(&refused), ("connection_error", message));
}

#[tokio::test]
async fn a_second_first_message_renews_the_token() {
    let mut client = begun(Config::default()).await;
    let mut watched = client.session.token.subscribe();
    assert_eq!(client.send(r#"{"type": "connection_init", "payload": {"token": "staff"}}"#), Ok(()));
    assert_eq!(client.reply()["type"], "connection_ack");
    assert_eq!(&**watched.borrow_and_update(), "staff");
}

#[tokio::test]
async fn an_operation_may_have_a_token_of_its_own() {
    let mut client = begun(Config::default()).await;
    for (index, (token, expected)) in
        [(json!("Bearer one"), "one"), (json!(""), ""), (json!(null), "")].into_iter().enumerate()
    {
        let payload = json!({ "query": "{ album { title } }", "authToken": token });
        assert_eq!(client.send(&start(&index.to_string(), payload)), Ok(()));
        client.queued(1).await;
        let messages = client.queued.messages();
        assert_eq!(messages[0]["type"], "data", "{messages:?}");
        let asked = client.stage.world.authorisations.lock().unwrap().pop().map(|asked| asked.token.to_string());
        assert_eq!(asked.as_deref(), Some(expected));
    }
}

#[tokio::test]
async fn an_operation_ends_where_another_takes_its_id_or_it_is_stopped() {
    let mut client = begun(Config::default()).await;
    let live = start("1", json!({ "query": "subscription { album { title } }" }));
    for _ in 0..2 {
        assert_eq!(client.send(&live), Ok(()));
        while client.queued.waiting() == 0 {
            tokio::select! {
                // The one before ends.
                done = client.session.next(&client.outgoing) => done.expect("nothing is wrong"),
                () = tokio::task::yield_now() => {}
            }
        }
        assert_eq!(client.queued.messages()[0]["type"], "data");
    }
    assert_eq!(client.send(r#"{"type": "stop", "id": "1"}"#), Ok(()));
    assert_eq!(client.reply(), json!({ "type": "complete", "id": "1" }));
    assert_eq!(client.session.next(&client.outgoing).await, Ok(()));
    assert!(client.session.state.running.is_empty());
    assert_eq!(client.send(r#"{"type": "connection_terminate"}"#), Err(Closing::TERMINATED));
}

#[tokio::test]
async fn what_is_over_a_limit_is_told() {
    let mut client = begun(Config { subscriptions: 1, ..Config::default() }).await;
    let _gate = client.gate();
    assert_eq!(client.send(&start("1", json!({ "query": "{ album { title } }" }))), Ok(()));
    assert_eq!(client.send(&start("2", json!({ "query": "{ album { title } }" }))), Ok(()));
    let refused = client.reply();
    assert_eq!((&refused["type"], &refused["id"]), (&json!("error"), &json!("2")));
    assert_eq!(refused["payload"]["errors"][0]["extensions"]["code"], "TOO_MANY");
}

#[tokio::test]
async fn a_caller_with_too_many_sockets_is_told_so() {
    for protocol in [Subprotocol::Current, Subprotocol::Legacy] {
        let mut client = Client::of(protocol, Config { sockets: 1, ..Config::default() }).await;
        let caller = CallerId::of("shop", "", None);
        let other = client.stage.service.quotas().socket(caller).expect("it is the first");
        let closing = client.send(r#"{"type": "connection_init"}"#).expect_err("it is the second");
        assert_eq!(closing.code, 1013);
        assert!(closing.reason.ends_with("limits.sockets: 1"), "{}", closing.reason);
        if protocol == Subprotocol::Legacy {
            let refused = client.reply();
            assert_eq!(refused["payload"]["errors"][0]["extensions"]["code"], "TOO_MANY", "{refused}");
            assert_eq!(refused["type"], "connection_error");
        }
        drop(other);
        assert_eq!(client.send(r#"{"type": "connection_init"}"#), Ok(()), "there is room again");
    }
}

#[tokio::test]
async fn a_token_that_is_not_valid_makes_its_bearer_nobody() {
    let mut client = client().await;
    client.stage.world.expired.lock().unwrap().push("staff");
    assert_eq!(client.send(r#"{"type": "connection_init", "payload": {"token": "staff"}}"#), Ok(()));
    assert_eq!(client.session.next(&client.outgoing).await, Ok(()));
    assert_eq!((client.reply()["type"].take(), client.reply()["type"].take()), (json!("connection_ack"), json!("ka")));
    assert_eq!(client.session.state.quota.caller(), CallerId::of("shop", "", None));
    let query = json!({ "query": "{ album { title } }" });
    assert_eq!(client.send(&start("1", query.clone())), Ok(()));
    assert_eq!(client.reply()["payload"]["errors"][0]["extensions"]["code"], "UNAUTHENTICATED");
    let own = json!({ "query": "{ album { title } }", "authToken": "audit" });
    assert_eq!(client.send(&start("1", own)), Ok(()));
    client.queued(1).await;
    assert_eq!(client.queued.messages()[0]["type"], "data");
    assert_eq!(client.send(r#"{"type": "connection_init", "payload": {"token": "audit"}}"#), Ok(()));
    assert_eq!(client.reply()["type"], "connection_ack");
    assert_eq!(client.send(&start("2", query)), Ok(()));
    assert!(client.queued.replies.try_recv().is_err(), "it has another token");
}
