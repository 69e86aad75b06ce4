use serde_json::json;

use super::*;

fn parse(text: &str) -> Result<JsonMessage, String> {
    JsonMessage::parse(text.as_bytes(), Guard::default())
}

fn subscribe(data: &str) -> (Query, Result<Box<LiveQueryRequest>, String>) {
    match parse(&format!(r#"{{"id": "r1", "type": "realtime-subscribe", "data": {data}}}"#)) {
        Ok(JsonMessage { head, request: JsonRequest::Subscribe(query, parsed) }) => {
            assert_eq!(head, Head { id: "r1".to_owned(), r#type: "realtime-subscribe".to_owned() });
            (query, parsed)
        }
        other => panic!("{data}: {other:?}"),
    }
}

fn json(text: &[u8]) -> serde_json::Value {
    serde_json::from_slice(text).expect("messages are JSON")
}

#[test]
fn a_live_query_is_asked_for_as_each_client_does() {
    let (query, parsed) = subscribe(
        r#"{"id": "q1", "group": "todos", "dbType": "sql-postgres", "where": {"owner": "u1"},
            "options": {"skipInitial": true, "changesOnly": true}, "project": "other", "token": "Bearer a.b.c"}"#,
    );
    assert_eq!(query, Query { id: "q1".to_owned(), group: "todos".to_owned() });
    let find = Value::Object(Object(vec![("owner".to_owned(), Value::Text("u1".to_owned()))]));
    let subscription =
        LiveQueryRequest { db_type: "sql-postgres".to_owned(), find, skip_initial: true, token: "a.b.c".into() };
    assert_eq!(parsed, Ok(Box::new(subscription)));
    for data in [
        r#"{"id": "q", "group": "t", "dbType": "db", "where": null, "options": null, "token": null}"#,
        r#"{"id": "q", "group": "t", "dbType": "db", "options": {}, "token": ""}"#,
        r#"{"id": "q", "group": "t", "dbType": "db"}"#,
    ] {
        let bare = LiveQueryRequest {
            db_type: "db".to_owned(),
            find: Value::Null,
            skip_initial: false,
            token: Arc::default(),
        };
        assert_eq!(subscribe(data).1, Ok(Box::new(bare)), "{data}");
    }
}

#[test]
fn what_is_wrong_with_a_live_query_is_told() {
    let long = "x".repeat(NAME_BYTES_MAX + 1);
    let token = "x".repeat(TOKEN_BYTES_MAX + 1);
    for (data, expected) in [
        ("{}", INCOMPLETE.to_owned()),
        ("null", INCOMPLETE.to_owned()),
        (r#"{"group": "t"}"#, INCOMPLETE.to_owned()),
        (r#"{"dbType": "db"}"#, INCOMPLETE.to_owned()),
        ("[]", "invalid data: expected object, found array".to_owned()),
        (r#"{"id": 1, "group": "t", "dbType": "db"}"#, "invalid id: expected string, found integer".to_owned()),
        (r#"{"group": ["t"], "dbType": "db"}"#, "invalid group: expected string, found array".to_owned()),
        (r#"{"group": "t", "dbType": {}}"#, "invalid dbType: expected string, found object".to_owned()),
        (&format!(r#"{{"group": "{long}", "dbType": "db"}}"#), "group must be at most 256 bytes long".to_owned()),
        (r#"{"group": "t", "dbType": "db", "where": []}"#, "invalid where: expected object, found array".to_owned()),
        (
            r#"{"group": "t", "dbType": "db", "options": 1}"#,
            "invalid options: expected object, found integer".to_owned(),
        ),
        (
            r#"{"group": "t", "dbType": "db", "options": {"skipInitial": "no"}}"#,
            "invalid options.skipInitial: expected boolean, found string".to_owned(),
        ),
        (
            r#"{"group": "t", "dbType": "db", "token": false}"#,
            "invalid token: expected string, found boolean".to_owned(),
        ),
        (
            &format!(r#"{{"group": "t", "dbType": "db", "token": "{token}"}}"#),
            "token must be at most 16384 bytes long".to_owned(),
        ),
    ] {
        assert_eq!(subscribe(data).1, Err(expected), "{data}");
    }
    // What is named is named in the reply.
    assert_eq!(subscribe(r#"{"id": "q", "group": 1}"#).0, Query { id: "q".to_owned(), group: String::new() });
}

#[test]
fn what_is_no_message_is_unreadable() {
    for text in ["abc", "", "[]", "1", r#"{"type": 1}"#, r#"{"id": {}, "type": "x"}"#] {
        assert!(parse(text).is_err(), "{text}");
    }
    let long = "x".repeat(NAME_BYTES_MAX + 1);
    for name in ["id", "type"] {
        assert!(parse(&format!(r#"{{"{name}": "{long}"}}"#)).is_err(), "replies repeat the {name}");
    }
    assert!(parse(&"[".repeat(100_000)).is_err());
    assert!(JsonMessage::parse(b"{\"type\": \"\xff\"}", Guard::default()).is_err());
    for (text, request) in [
        ("{}", JsonRequest::Unknown),
        (r#"{"type": "bogus", "data": 7}"#, JsonRequest::Unknown),
        (r#"{"type": "service-register", "data": {}}"#, JsonRequest::Register(Ok(RegisterRequest::default()))),
        (r#"{"type": "service-request", "data": {"id": 1}}"#, JsonRequest::WorkerAnswer(None)),
        (r#"{"type": "pubsub-unsubscribe-all"}"#, JsonRequest::PubSub),
        (r#"{"type": "realtime-unsubscribe", "data": {"id": 7}}"#, JsonRequest::Unsubscribe(Query::default())),
    ] {
        assert_eq!(parse(text).map(|message| message.request), Ok(request), "{text}");
    }
}

#[test]
fn replies_have_every_member() {
    let head = Head { id: "r\"1".to_owned(), r#type: "realtime-subscribe".to_owned() };
    let query = Query { id: "q1".to_owned(), group: "to\"dos".to_owned() };
    let reply = |ack: bool, error: &str, docs: serde_json::Value| {
        json!({ "type": "realtime-subscribe", "id": "r\"1",
            "data": { "group": "to\"dos", "id": "q1", "ack": ack, "error": error, "docs": docs } })
    };
    assert_eq!(json(&head.acknowledged(&query)), reply(true, "", json!([])));
    assert_eq!(json(&head.refused(&query, "no")), reply(false, "no", json!([])));
    assert_eq!(json(&head.begun(&query, b"[1,2]")), reply(true, "", json!([1, 2])));
    let of = |r#type: &str| Head { id: "x".to_owned(), r#type: r#type.to_owned() };
    let unknown = json!({ "type": "bogus", "data": { "error": "Invalid message type" }, "id": "x" });
    assert_eq!(json(&of("bogus").unknown()), unknown);
    let register = of("service-register");
    assert_eq!(json(&register.registered())["data"], json!({ "ack": true }));
    assert_eq!(json(&register.not_registered("no"))["data"], json!({ "ack": false, "error": "no" }));
    let topics = json!({ "status": 404, "error": "This feature isn't enabled", "msg": null });
    assert_eq!(json(&of("pubsub-subscribe").no_topics())["data"], topics);
    assert_eq!(json(UNREADABLE.as_bytes())["data"]["error"], "invalid request sent");
}

#[test]
fn a_row_is_told_with_both_of_its_names() {
    let query = Query { id: "q1".to_owned(), group: "todos".to_owned() };
    let bytes = |text: &'static str| bytes::Bytes::from_static(text.as_bytes());
    let row = |kind, row| FeedRow { kind, row: bytes(row), key: bytes(r#"{"id":"t1"}"#), time_ms: 7 };
    let told = |kind: &str, payload: serde_json::Value| {
        json!({ "type": "realtime-feed", "id": "", "data": {
            "id": "q1", "docId": "t1", "find": { "id": "t1" }, "type": kind, "payload": payload, "time": 7,
            "group": "todos", "dbType": "sql-postgres" } })
    };
    let insert = feed(&query, "sql-postgres", &row(FeedKind::Insert, r#"{"id":"t1","n":1}"#));
    assert_eq!(json(&insert), told("insert", json!({ "id": "t1", "n": 1 })));
    let delete = feed(&query, "sql-postgres", &row(FeedKind::Delete, r#"{"id":"t1"}"#));
    assert_eq!(json(&delete), told("delete", serde_json::Value::Null));
}
