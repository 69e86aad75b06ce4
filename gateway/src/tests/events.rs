//! GraphQL over server-sent events, over faked neighbours.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::body::{Body, BodyDataStream};
use futures::{FutureExt, StreamExt};
use http::{Method, Request, header, response::Parts};
use mesh::listener::Connection;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tower::ServiceExt;

use super::stage::Stage;
use crate::Config;

const PATH: &str = "/v1/api/shop/graphql";
const ALBUMS: &str = "subscription { album { album_id } }";
const INVOICES: &str = "subscription { invoice { total } }";

/// A response that is being read.
struct Opened {
    head: Parts,
    body: BodyDataStream,
    text: String,
}

#[derive(Debug, PartialEq)]
enum Told {
    Next(Value),
    Complete,
    Comment,
    End,
}

impl Opened {
    /// What comes next.
    async fn next(&mut self) -> Told {
        let (block, rest) = loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                break (block.to_owned(), rest.to_owned());
            }
            match self.body.next().await {
                Some(piece) => self.text.push_str(std::str::from_utf8(&piece.expect("it is sound")).expect("UTF-8")),
                None => {
                    assert_eq!(self.text, "", "an event is whole");
                    return Told::End;
                }
            }
        };
        self.text = rest;
        match block.as_str() {
            ":" => Told::Comment,
            "event: complete\ndata:" => Told::Complete,
            event => {
                let data = event.strip_prefix("event: next\ndata: ").unwrap_or_else(|| panic!("no event: {event}"));
                Told::Next(serde_json::from_str(data).expect("JSON"))
            }
        }
    }

    /// The data of the next answer.
    async fn data(&mut self) -> Value {
        match self.next().await {
            Told::Next(mut answer) => answer["data"].take(),
            other => panic!("no answer: {other:?}"),
        }
    }

    /// The code of the error that comes next, and is followed by the end.
    async fn error(&mut self) -> String {
        let Told::Next(answer) = self.next().await else { panic!("no error") };
        assert_eq!((self.next().await, self.next().await), (Told::Complete, Told::End), "{answer}");
        answer["errors"][0]["extensions"]["code"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }
}

fn posted(token: &str, query: &str) -> Request<Body> {
    let mut request = Request::post(PATH)
        .header("accept", "text/event-stream")
        .header("content-type", "application/json")
        .body(Body::from(json!({ "query": query }).to_string()))
        .expect("the test's request is legal");
    if !token.is_empty() {
        request.headers_mut().insert(header::AUTHORIZATION, format!("Bearer {token}").parse().expect("a header"));
    }
    request
}

async fn open(stage: &Stage, request: Request<Body>) -> Opened {
    let connection = Arc::new(Connection::new(([10, 0, 0, 1], 1).into()));
    let Ok(response) = stage.service.front().on(connection).oneshot(request).await;
    let (head, body) = response.into_parts();
    Opened { head, body: body.into_data_stream(), text: String::new() }
}

/// A stream, after the comment that it begins with.
async fn stream(stage: &Stage, token: &str, query: &str) -> Opened {
    let mut opened = open(stage, posted(token, query)).await;
    assert_eq!(opened.head.status, 200);
    assert_eq!(opened.head.headers[header::CONTENT_TYPE], "text/event-stream; charset=utf-8");
    assert_eq!(opened.next().await, Told::Comment);
    opened
}

fn show(stage: &Stage, json: &'static str) {
    *stage.world.json.lock().unwrap() = Some(json);
    stage.world.changed.send_replace(());
}

fn has_metric(stage: &Stage, line: &str) -> bool {
    stage.service.mesh().metrics().render().lines().any(|have| have == line)
}

#[tokio::test(start_paused = true)]
async fn a_subscription_is_answered_whenever_its_answer_differs() {
    let stage = Stage::new().await;
    let mut opened = stream(&stage, "", ALBUMS).await;
    assert_eq!(opened.head.headers[header::CACHE_CONTROL], "no-store, no-transform");
    assert_eq!(opened.data().await, json!({ "album": [{ "album_id": 1 }, { "album_id": 2 }] }));
    assert!(has_metric(&stage, "perigee_event_streams 1") && has_metric(&stage, "perigee_live_queries 1"));
    show(&stage, "[3]");
    assert_eq!(opened.data().await, json!({ "album": [3] }));
    stage.world.changed.send_replace(());
    show(&stage, "[4]");
    assert_eq!(opened.data().await, json!({ "album": [4] }));
    drop(opened);
    assert!(has_metric(&stage, "perigee_event_streams 0"));
    while !has_metric(&stage, "perigee_live_queries 0") {
        // Its task ends a moment later.
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_goes_on_while_its_client_takes_nothing() {
    let stage = Stage::new().await;
    let mut opened = stream(&stage, "", ALBUMS).await;
    let gate = Arc::new(Notify::new());
    *stage.world.gate.lock().unwrap() = Some(gate.clone());
    assert!(opened.next().now_or_never().is_none(), "the read is asked for");
    stage.world.arrived.notified().await;
    gate.notify_one();
    while !has_metric(&stage, r#"perigee_live_reads_total{answer="changed"} 1"#) {
        tokio::task::yield_now().await;
    }
    opened.data().await;
}

#[tokio::test(start_paused = true)]
async fn a_quiet_stream_goes_on_with_a_comment_every_twenty_seconds() {
    let stage = Stage::new().await;
    let begin = tokio::time::Instant::now();
    let mut opened = stream(&stage, "", ALBUMS).await;
    opened.data().await;
    for count in 1..=500 {
        assert_eq!(opened.next().await, Told::Comment);
        assert_eq!(begin.elapsed().as_secs(), 20 * count);
    }
    show(&stage, "[3]");
    assert_eq!(opened.data().await, json!({ "album": [3] }));
}

#[tokio::test]
async fn a_query_and_a_mutation_are_answered_once() {
    let stage = Stage::new().await;
    for (query, data) in [
        ("{ album { album_id } }", json!({ "album": [{ "album_id": 1 }, { "album_id": 2 }] })),
        ("{ __typename }", json!({ "__typename": "Query" })),
        (
            "mutation { delete_album(where: {album_id: {_eq: 1}}) { affected } }",
            json!({ "delete_album": { "affected": 1 } }),
        ),
    ] {
        let mut opened = stream(&stage, "", query).await;
        assert_eq!(opened.data().await, data, "{query}");
        assert_eq!((opened.next().await, opened.next().await), (Told::Complete, Told::End));
    }
}

#[tokio::test]
async fn get_streams_what_it_may_ask_for() {
    let stage = Stage::new().await;
    let get = |method: Method, query: &str| {
        let query: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let request = Request::builder().method(method).uri(format!("{PATH}?query={query}"));
        request.header("accept", "text/event-stream").body(Body::empty()).expect("the test's request is legal")
    };
    let mut opened = open(&stage, get(Method::GET, ALBUMS)).await;
    assert_eq!(opened.next().await, Told::Comment);
    opened.data().await;
    assert!(has_metric(&stage, "perigee_live_queries 1"));
    drop(opened);
    let refused = open(&stage, get(Method::GET, "mutation { delete_album(where: {}) { affected } }")).await;
    assert_eq!((refused.head.status.as_u16(), &refused.head.headers[header::ALLOW]), (405, &"POST".parse().unwrap()));
    drop(open(&stage, get(Method::HEAD, ALBUMS)).await);
    assert!(has_metric(&stage, "perigee_event_streams 0"));
}

#[tokio::test]
async fn what_is_wrong_with_an_operation_is_told_in_the_stream() {
    let stage = Stage::new().await;
    for (token, query, code) in [
        ("", INVOICES, "UNAUTHENTICATED"),
        ("user", INVOICES, "DENIED"),
        ("", "{ invoice { total } }", "UNAUTHENTICATED"),
        ("", "subscription { album { lost } }", "UNKNOWN_COLUMN"),
        ("", "subscription { album { title } track { name } }", "BAD_REQUEST"),
        ("", "subscription {", "BAD_REQUEST"),
        ("", "subscription A { album { title } } subscription B { album { title } }", "BAD_REQUEST"),
        ("", "subscription { __typename }", "BAD_REQUEST"),
    ] {
        assert_eq!(stream(&stage, token, query).await.error().await, code, "{query}");
    }
    assert!(stage.world.listened.lock().unwrap().is_empty(), "nothing is set up for them");
}

#[tokio::test]
async fn what_stops_a_request_before_its_document_is_told_by_the_status() {
    let stage = Stage::new().await;
    stage.world.expire("old");
    let change = |change: fn(&mut Request<Body>)| {
        let mut request = posted("", ALBUMS);
        change(&mut request);
        request
    };
    for (request, status, code) in [
        (posted("old", ALBUMS), 401, "UNAUTHENTICATED"),
        (change(|request| *request.body_mut() = Body::from("{")), 400, "BAD_REQUEST"),
        (change(|request| *request.body_mut() = Body::from("{}")), 400, "REQUIRED"),
        (change(|request| drop(request.headers_mut().remove("content-type"))), 415, "BAD_REQUEST"),
        (change(|request| *request.uri_mut() = "/v1/api/lost/graphql".parse().unwrap()), 404, "UNKNOWN_PROJECT"),
        (change(|request| *request.method_mut() = Method::PUT), 405, "METHOD"),
    ] {
        let opened = open(&stage, request).await;
        assert_eq!(opened.head.status, status, "{code}");
        assert!(opened.head.headers[header::CONTENT_TYPE].as_bytes().starts_with(b"application/json"));
        let body = opened.body.map(|piece| piece.expect("it is sound").to_vec()).concat().await;
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        let told = body["errors"][0]["extensions"]["code"].as_str().or(body["code"].as_str());
        assert_eq!(told, Some(code), "{body}");
    }
}

#[tokio::test]
async fn a_subscription_needs_a_stream_that_the_client_accepts() {
    let stage = Stage::new().await;
    for accept in ["application/json", "application/graphql-response+json", "*/*", "text/html"] {
        let mut request = posted("", ALBUMS);
        request.headers_mut().insert(header::ACCEPT, accept.parse().expect("a header"));
        let told = stage.send(request).await;
        let error = &told.json()["errors"][0];
        assert_eq!(error["extensions"]["code"], "BAD_REQUEST", "{accept}");
        assert!(error["message"].as_str().expect("a text").contains("accept: text/event-stream"), "{error}");
    }
}

#[tokio::test]
async fn one_operation_too_many_is_refused_until_another_ends() {
    let stage = Stage::with(Config { subscriptions: 1, ..Config::default() }).await;
    for token in ["", "staff"] {
        let mut first = stream(&stage, token, ALBUMS).await;
        first.data().await;
        let refused = open(&stage, posted(token, ALBUMS)).await;
        assert_eq!(
            (refused.head.status.as_u16(), &refused.head.headers[header::RETRY_AFTER]),
            (429, &"1".parse().unwrap())
        );
        assert!(has_metric(&stage, "perigee_event_streams 1"));
        drop(first);
        stream(&stage, token, ALBUMS).await.data().await;
    }
}

/// A request whose members are as long as they like.
fn long(members: &Value) -> Request<Body> {
    let mut request = posted("", "");
    *request.uri_mut() = "/v1/api/bare/graphql".parse().expect("the test's path is legal");
    *request.body_mut() = Body::from(members.to_string());
    request
}

#[tokio::test]
async fn the_response_key_of_a_stream_counts_as_long_as_it_is_open() {
    let stage = Stage::with(Config { caller_bytes: 100_000, ..Config::default() }).await;
    let key = "k".repeat(60_000);
    let request = || long(&json!({ "query": format!("subscription {{ {key}: album {{ album_id }} }}") }));
    let mut first = open(&stage, request()).await;
    assert_eq!(first.next().await, Told::Comment);
    assert!(first.data().await[&key].is_array());
    assert_eq!(open(&stage, request()).await.head.status, 429);
    drop(first);
}

#[tokio::test]
async fn the_operation_name_of_a_request_counts() {
    let stage = Stage::with(Config { caller_bytes: 50_000, ..Config::default() }).await;
    let request = long(&json!({ "query": ALBUMS, "operationName": "x".repeat(60_000) }));
    assert_eq!(open(&stage, request).await.head.status, 413);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_gets_the_newest_state_and_nothing_is_read_for_it() {
    let stage = Stage::new().await;
    let mut opened = stream(&stage, "", ALBUMS).await;
    opened.data().await;
    let reads = stage.world.reads.lock().unwrap().len();
    for state in ["[3]", "[4]", "[5]"] {
        show(&stage, state);
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    assert_eq!(stage.world.reads.lock().unwrap().len(), reads);
    assert_eq!(opened.data().await, json!({ "album": [5] }));
}

#[tokio::test(start_paused = true)]
async fn answers_are_counted_until_they_are_taken() {
    const LARGE: usize = 100_000;
    let stage = Stage::with(Config { unsent_bytes: 3 * LARGE / 2, ..Config::default() }).await;
    let large: &'static str = format!("[\"{}\"]", "x".repeat(LARGE)).leak();
    show(&stage, large);
    let mut first = stream(&stage, "", ALBUMS).await;
    let piece = first.body.next().await.expect("it goes on").expect("it is sound");
    assert_eq!(piece.len(), 16 * 1024);
    let mut second = stream(&stage, "", ALBUMS).await;
    assert!(second.next().now_or_never().is_none(), "there is no room");
    first.text.push_str(std::str::from_utf8(&piece).expect("UTF-8"));
    first.data().await;
    assert_eq!(second.data().await["album"][0].as_str().map(str::len), Some(LARGE));
    assert!(has_metric(&stage, "perigee_unsent_bytes 0"));

    // An answer that is asked for once is not repeated: its client is told so.
    let _held = {
        let mut held = stream(&stage, "", ALBUMS).await;
        held.body.next().await.expect("it goes on").expect("it is sound");
        held
    };
    assert_eq!(stream(&stage, "", "{ album { title } }").await.error().await, "UNAVAILABLE");
}

#[tokio::test]
async fn the_end_of_a_token_ends_its_stream() {
    let stage = Stage::new().await;
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    *stage.world.token_expires_ms.lock().unwrap() = Some(now + 100);
    let mut opened = stream(&stage, "staff", INVOICES).await;
    opened.data().await;
    stage.world.expire("staff");
    assert_eq!(opened.error().await, "TOKEN_EXPIRED");
}

#[tokio::test]
async fn a_node_that_stops_says_so_and_ends_the_stream() {
    let stage = Stage::new().await;
    let mut opened = stream(&stage, "", ALBUMS).await;
    opened.data().await;
    stage.service.tasks().begin_drain();
    assert_eq!(opened.error().await, "UNAVAILABLE");
    // What is asked for once is answered still.
    let mut opened = stream(&stage, "", "{ __typename }").await;
    assert_eq!(opened.data().await, json!({ "__typename": "Query" }));
}

#[tokio::test]
async fn a_page_of_an_origin_that_is_listed_may_read_a_stream() {
    let stage = Stage::new().await;
    let mut request = posted("", ALBUMS);
    request.headers_mut().insert(header::ORIGIN, "http://a.test".parse().expect("a header"));
    let opened = open(&stage, request).await;
    assert_eq!(opened.head.headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "http://a.test");
}
