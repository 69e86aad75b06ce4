//! GraphQL over HTTP.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::body::Body;
use http::{Request, header};
use mesh::{Code, Fault};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::stage::{Stage, Told};

const PATH: &str = "/v1/api/shop/graphql";
const RESPONSE: &str = "application/graphql-response+json";
const JSON: &str = "application/json";

fn post(accept: &str, token: &str, body: String) -> Request<Body> {
    let mut request = Request::post(PATH).header(header::CONTENT_TYPE, JSON);
    if !accept.is_empty() {
        request = request.header(header::ACCEPT, accept);
    }
    if !token.is_empty() {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    request.body(Body::from(body)).unwrap()
}

async fn ask(stage: &Stage, token: &str, query: &str) -> Told {
    stage.send(post(RESPONSE, token, json!({ "query": query }).to_string())).await
}

/// Status and code of a request that is refused, which has no data.
fn refusal(told: &Told) -> (u16, String) {
    let json = told.json();
    assert!(json.get("data").is_none(), "{json}");
    failure(told)
}

/// Status and code of a request with one error.
fn failure(told: &Told) -> (u16, String) {
    let json = told.json();
    let errors = json["errors"].as_array().expect("a refusal has errors");
    assert_eq!(errors.len(), 1, "{json}");
    assert_eq!(errors[0]["extensions"]["requestId"], told.header("x-request-id"));
    (told.status().as_u16(), errors[0]["extensions"]["code"].as_str().unwrap_or_default().to_owned())
}

fn code(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test]
async fn answers_are_the_bytes_of_the_database_in_the_order_of_the_document() {
    let stage = Stage::new().await;

    let told = ask(
        &stage,
        "",
        "{ __typename b: album { album_id } one: album_by_pk(album_id: 1) { album_id } n: album(op: count) }",
    )
    .await;

    assert_eq!(
        told.text(),
        r#"{"data":{"__typename":"Query","b":[{"album_id":1},{"album_id":2}],"one":{"album_id":1},"n":2}}"#
    );
    assert_eq!(told.status(), 200);
    assert_eq!(told.header("content-type"), "application/graphql-response+json; charset=utf-8");
    assert_eq!(told.header("cache-control"), "no-store");
    let read = stage.sent_read();
    assert_eq!(read.reads.len(), 3, "one call for all");
}

#[tokio::test]
async fn a_cut_answer_names_its_path() {
    let stage = Stage::new().await;
    *stage.world.truncated.lock().unwrap() = true;

    let told = ask(&stage, "", "{ a: album { title } b: track { name } }").await;

    assert_eq!(told.json()["extensions"], json!({ "truncated": ["a", "b"] }));
}

#[tokio::test]
async fn a_mutation_answers_what_is_selected_in_its_order() {
    let stage = Stage::new().await;

    let told = ask(
        &stage,
        "",
        r#"mutation {
            __typename
            new: insert_album(docs: [{album_id: 1, title: "x"}]) { rows: returning { album_id } status error affected __typename }
            delete_album(where: {album_id: 1}) { affected }
            insert_track @music
        }"#,
    )
    .await;

    assert_eq!(
        told.text(),
        concat!(
            r#"{"data":{"__typename":"Mutation","new":{"rows":[{"album_id":1}],"status":200,"error":null,"affected":1,"#,
            r#""__typename":"AlbumMutation"},"delete_album":{"affected":1},"insert_track":{}}}"#
        )
    );
    assert_eq!(stage.world.writes.lock().unwrap().len(), 1, "one transaction");
}

#[tokio::test]
async fn a_failed_mutation_is_data_where_error_is_selected_and_else_an_error() {
    let stage = Stage::new().await;
    stage.world.faults.lock().unwrap().push(Fault::new(Code::Conflict, "album_id 1 is taken"));

    let told = ask(
        &stage,
        "",
        r#"mutation {
            a: insert_album(docs: {album_id: 1, title: "x"}) { status error affected returning { album_id } }
            b: insert_album(docs: {album_id: 1, title: "x"}) { status }
        }"#,
    )
    .await;

    let json = told.json();
    assert_eq!(told.status(), 200);
    assert_eq!(
        json["data"],
        json!({
            "a": { "status": 409, "error": "album_id 1 is taken", "affected": 0, "returning": [] },
            "b": null,
        })
    );
    assert_eq!(json["errors"].as_array().map(Vec::len), Some(1));
    assert_eq!(json["errors"][0]["path"], json!(["b"]));
    assert_eq!(json["errors"][0]["locations"], json!([{ "line": 3, "column": 13 }]));
    assert_eq!(json["errors"][0]["extensions"]["code"], "CONFLICT");
}

#[tokio::test]
async fn denials_name_the_field_and_nothing_is_done() {
    let stage = Stage::new().await;

    let anonymous = ask(&stage, "", "{ album { title } invoice { total } }").await;
    let denied = ask(&stage, "audit", "mutation { delete_invoice(where: {invoice_id: 1}) { status } }").await;

    assert_eq!(refusal(&anonymous), code(401, "UNAUTHENTICATED"));
    assert_eq!(anonymous.json()["errors"][0]["path"], json!(["invoice"]));
    assert_eq!(refusal(&denied), code(403, "DENIED"));
    assert!(stage.world.reads.lock().unwrap().is_empty());
    assert!(stage.world.writes.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_denial_by_what_was_written_fails_as_a_whole_too() {
    let stage = Stage::new().await;
    stage.world.faults.lock().unwrap().push(Fault::new(Code::Denied, "a row of album is denied by the rules"));

    let told =
        ask(&stage, "", r#"mutation { x: insert_album(docs: {album_id: 1, title: "x"}) { status error } }"#).await;

    assert_eq!(refusal(&told), code(403, "DENIED"));
}

#[tokio::test]
async fn nobody_learns_of_tables_that_are_not_theirs() {
    let stage = Stage::new().await;
    let documents = [
        "{ secret { title } }",
        "{ secret { titel } }",
        "{ secret(where: {secret_id: \"x\"}) { title } }",
        "{ secret_by_pk { title } }",
        "{ secret }",
        "{ nothing { title } }",
        "{ nothing @music { title } }",
        "{ secret @music { title { x } } }",
    ];
    for document in documents {
        assert_eq!(refusal(&ask(&stage, "", document).await), code(401, "UNAUTHENTICATED"), "{document}");
        assert_eq!(refusal(&ask(&stage, "somebody", document).await), code(403, "DENIED"), "{document}");
    }
    for verb in ["insert", "update", "delete"] {
        let document = format!("mutation {{ {verb}_secret(x: 1) {{ status }} }}");
        assert_eq!(refusal(&ask(&stage, "somebody", &document).await), code(403, "DENIED"), "{document}");
    }
}

#[tokio::test]
async fn nobody_learns_of_tables_beyond_a_relation_that_are_not_theirs() {
    let stage = Stage::new().await;
    for document in [
        "{ track { secret { titel } } }",
        "{ track { secret { title { x } } } }",
        "{ track { secret(where: {title: 5}) { title } } }",
        "{ track { secret(sort: nope) { title } } }",
        "{ track { secret_aggregate(where: {title: 5}) { count } } }",
        "{ album { track(where: {secret: {_some: {title: 5}}}) { name } } }",
    ] {
        assert_eq!(refusal(&ask(&stage, "staff", document).await), code(403, "DENIED"), "{document}");
    }
    let told = ask(&stage, "staff", "{ album { track(where: {name: 5}) { name } } }").await;
    assert_eq!(refusal(&told), code(400, "WRONG_TYPE"));
    let told = ask(&stage, "staff", "{ album { track { albums { title } } } }").await;
    assert_eq!(told.json()["errors"][0]["message"], "relation albums is not in table track; did you mean album?");
    let told = ask(&stage, "staff", "{ album { track { secrets { title } } } }").await;
    assert_eq!(told.json()["errors"][0]["message"], "relation secrets is not in table track");
}

#[tokio::test]
async fn mistakes_have_their_codes() {
    let stage = Stage::new().await;
    let cases = [
        ("{ album { titel } }", 400, "UNKNOWN_COLUMN"),
        ("{ album(were: {}) { title } }", 400, "UNKNOWN_ARGUMENT"),
        ("{ album { nope { x } } }", 400, "UNKNOWN_RELATION"),
        ("{ album(where: {title: {_nope: 1}}) { title } }", 400, "UNKNOWN_OPERATOR"),
        ("{ album(limit: \"2\") { title } }", 400, "WRONG_TYPE"),
        ("{ album_by_pk { title } }", 400, "REQUIRED"),
        ("{ album @nope { title } }", 404, "UNKNOWN_DATABASE"),
        ("{ album @down { title } }", 503, "UNAVAILABLE"),
        ("{ album", 400, "BAD_REQUEST"),
        ("subscription { album { title } }", 400, "BAD_REQUEST"),
        ("{ a: album { title } a: track { name } }", 400, "BAD_REQUEST"),
        ("query A { album { title } } query B { album { title } }", 400, "BAD_REQUEST"),
        ("query($id: Int!) { album_by_pk(album_id: $id) { title } }", 400, "REQUIRED"),
        (
            "{ album { track { album { track { album { track { album { track { album { track { album { track { album { track { album { track { album { title } } } } } } } } } } } } } } } } } }",
            400,
            "TOO_COMPLEX",
        ),
    ];
    for (document, status, expected) in cases {
        assert_eq!(refusal(&ask(&stage, "", document).await), code(status, expected), "{document}");
    }
    assert_eq!(refusal(&ask(&stage, "staff", "{ nothing @music { title } }").await), code(404, "UNKNOWN_TABLE"));
    assert_eq!(
        refusal(&ask(&stage, "staff", "{ nothing { title } }").await),
        code(503, "UNAVAILABLE"),
        "down may have it"
    );
}

#[tokio::test]
async fn a_column_that_was_just_added_is_found() {
    let stage = Stage::new().await;
    assert_eq!(ask(&stage, "", "{ album { title } }").await.status(), 200);
    let looks = stage.world.looks.load(Ordering::SeqCst);
    stage.world.added.lock().unwrap().push("year");

    let told = ask(&stage, "", "{ album { year } }").await;

    assert_eq!(told.status(), 200, "{}", told.text());
    assert_eq!(stage.world.looks.load(Ordering::SeqCst), looks + 1);
}

#[tokio::test]
async fn variables_and_operation_names_are_honoured() {
    let stage = Stage::new().await;
    let body = json!({
        "query": "query A { track { name } } query B($id: Int!) { b: album_by_pk(album_id: $id) { album_id } }",
        "operationName": "B",
        "variables": { "id": 1, "other": 2 },
        "extensions": {},
    });

    let told = stage.send(post(RESPONSE, "", body.to_string())).await;

    assert_eq!(told.text(), r#"{"data":{"b":{"album_id":1}}}"#);
}

#[tokio::test]
async fn the_media_type_decides_what_the_status_says() {
    let stage = Stage::new().await;
    let fine = || json!({ "query": "{ __typename }" }).to_string();
    let unparsed = || json!({ "query": "{" }).to_string();
    let uncoerced = || json!({ "query": "query($id: ID!) { __typename }", "variables": { "id": null } }).to_string();
    let denied = || json!({ "query": "{ secret { title } }" }).to_string();
    let cases = [
        (RESPONSE, fine(), 200),
        (JSON, fine(), 200),
        ("*/*", fine(), 200),
        ("", fine(), 200),
        ("text/html", fine(), 200),
        (RESPONSE, unparsed(), 400),
        (JSON, unparsed(), 200),
        ("*/*", unparsed(), 400),
        (RESPONSE, uncoerced(), 400),
        (JSON, uncoerced(), 200),
        (RESPONSE, denied(), 401),
        (JSON, denied(), 401),
        (RESPONSE, r#"{ "not a JSON"#.to_owned(), 400),
        (JSON, r#"{ "not a JSON"#.to_owned(), 400),
        (JSON, String::new(), 400),
        (JSON, json!({ "qeury": "{ __typename }" }).to_string(), 400),
        (JSON, json!({ "query": "{ __typename }", "variables": [] }).to_string(), 400),
        (
            RESPONSE,
            json!({ "query": "query($n: String!) { __type(name: $n) { name } }", "variables": { "n": "x" } })
                .to_string(),
            200,
        ),
    ];
    for (accept, body, status) in cases {
        let told = stage.send(post(accept, "", body.clone())).await;

        assert_eq!(told.status(), status, "{accept} {body}");
        let media = if accept == RESPONSE { RESPONSE } else { JSON };
        assert_eq!(told.header("content-type"), format!("{media}; charset=utf-8"));
        assert_eq!(told.json().get("errors").is_none(), body == fine() || body.contains("__type("), "{body}");
    }
}

#[tokio::test]
async fn queries_go_by_get_and_mutations_do_not() {
    let stage = Stage::new().await;
    let get = |query: &str| Request::get(format!("{PATH}?{query}")).body(Body::empty()).unwrap();

    let query = stage
        .send(get(
            "query=query(%24id%3AInt)%7Balbum_by_pk(album_id%3A%24id)%7Balbum_id%7D%7D&variables=%7B%22id%22%3A1%7D",
        ))
        .await;
    let mutation = stage.send(get("query=mutation%7B__typename%7D")).await;
    let nothing = stage.send(get("")).await;
    let put = stage.send(Request::put(PATH).body(Body::empty()).unwrap()).await;

    assert_eq!(query.text(), r#"{"data":{"album_by_pk":{"album_id":1}}}"#);
    assert_eq!(refusal(&mutation), code(405, "METHOD"));
    assert_eq!(mutation.header("allow"), "POST");
    assert_eq!(refusal(&nothing), code(400, "REQUIRED"));
    assert_eq!(put.status(), 405);
    assert!(put.header("allow").contains("POST"));
}

#[tokio::test]
async fn other_content_types_are_refused() {
    let stage = Stage::new().await;
    let sent = |content: &str| {
        let request = Request::post(PATH).header(header::CONTENT_TYPE, content);
        request.body(Body::from(json!({ "query": "{ __typename }" }).to_string())).unwrap()
    };

    for content in ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin1"] {
        assert_eq!(refusal(&stage.send(sent(content)).await), code(415, "BAD_REQUEST"), "{content}");
    }
    assert_eq!(stage.send(sent("application/json; charset=utf-8")).await.status(), 200);
    assert_eq!(stage.post(PATH, "", "{}").await.status(), 415);
}

#[tokio::test]
async fn an_unknown_project_is_not_found() {
    let stage = Stage::new().await;
    let request = Request::post("/v1/api/nope/graphql").header(header::CONTENT_TYPE, JSON);
    let request = request.body(Body::from(json!({ "query": "{ __typename }" }).to_string())).unwrap();

    assert_eq!(stage.send(request).await.refusal(), code(404, "UNKNOWN_PROJECT"));
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let stage = Stage::new().await;
    let body = json!({ "query": "{ __typename }", "operationName": " ".repeat(1000) }).to_string();

    assert_eq!(refusal(&stage.send(post(JSON, "", body)).await), code(413, "TOO_LARGE"));
}

#[tokio::test]
async fn a_long_document_is_planned_too() {
    let stage = Stage::with(crate::Config::default()).await;
    let query = format!("{{ album {{ title }} }} # {}", "x".repeat(40_000));
    let request = Request::post("/v1/api/bare/graphql").header(header::CONTENT_TYPE, JSON);

    let told = stage.send(request.body(Body::from(json!({ "query": query }).to_string())).unwrap()).await;

    assert_eq!(told.status(), 200, "{}", told.text());
}

#[tokio::test]
async fn a_failure_of_the_database_is_an_error_of_the_whole_request() {
    let stage = Stage::new().await;
    // Two: a read that finds nobody there is sent again.
    let fault = Fault::new(Code::Unavailable, "database music cannot be reached");
    stage.world.faults.lock().unwrap().extend([fault.clone(), fault]);

    let told = ask(&stage, "", "{ album { title } }").await;

    assert_eq!(failure(&told), code(503, "UNAVAILABLE"));
    assert_eq!(told.header("retry-after"), "1");
    assert_ne!(told.json()["errors"][0]["message"], Value::Null);
}

#[tokio::test]
async fn a_read_that_fails_is_told_by_its_field_and_leaves_no_data() {
    let stage = Stage::new().await;
    let two = "{ a: album { title }\n b: album { album_id } }";
    for (query, fault, path, locations) in [
        (two, Fault::new(Code::Internal, "x").with("read", "1"), json!(["b"]), json!([{ "line": 2, "column": 2 }])),
        (two, Fault::new(Code::TooLarge, "x").with("read", "0"), json!(["a"]), json!([{ "line": 1, "column": 3 }])),
        (two, Fault::new(Code::Deadline, "x"), Value::Null, Value::Null),
        ("{ a: album { title } }", Fault::new(Code::Deadline, "x"), json!(["a"]), json!([{ "line": 1, "column": 3 }])),
    ] {
        let expected = code(fault.code.http(), fault.code.as_str());
        stage.world.faults.lock().unwrap().push(fault);

        let told = ask(&stage, "", query).await;

        assert_eq!(failure(&told), expected);
        let json = told.json();
        assert_eq!(json.get("data"), Some(&Value::Null), "{json}");
        assert_eq!((&json["errors"][0]["path"], &json["errors"][0]["locations"]), (&path, &locations), "{json}");
    }
}

#[tokio::test]
async fn a_denial_of_the_database_is_that_of_a_rule() {
    let stage = Stage::new().await;
    stage.world.faults.lock().unwrap().push(Fault::new(Code::Denied, "not allowed").with("read", "0"));

    assert_eq!(refusal(&ask(&stage, "", "{ album { title } }").await), code(403, "DENIED"));
}

#[tokio::test]
async fn a_document_whose_time_is_over_is_answered_as_a_document() {
    let stage = Stage::with(crate::Config { time: Duration::from_millis(50), ..crate::Config::default() }).await;
    *stage.world.gate.lock().unwrap() = Some(Arc::new(Notify::new()));
    let query = "query=%7Balbum%7Btitle%7D%7D";

    let by_post = ask(&stage, "", "{ album { title } }").await;
    let by_get = stage.send(Request::get(format!("{PATH}?{query}")).body(Body::empty()).unwrap()).await;

    for told in [by_post, by_get] {
        assert_eq!(refusal(&told), code(504, "DEADLINE"));
    }
}
