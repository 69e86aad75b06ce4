//! What is kept of one request for the next, by the shape of a body of REST or the document of GraphQL: what is answered,
//! and what is written, is the same as without.

use std::sync::Arc;

use axum::body::Body;
use http::{Request, header};
use proto::auth::Access;
use query::{MutationKind, Read, Typed};
use serde_json::json;

use super::stage::{Stage, Told};

const PATH: &str = "/v1/api/shop/crud/music/album/read";
/// In a project without limits of its own.
const UNLIMITED: &str = "/v1/api/bare/crud/music/album/read";

/// The answer to `body` at `path`, and the read that was sent for it.
async fn told(stage: &Stage, path: &str, body: &str) -> (Told, Option<Read>) {
    let told = stage.post(path, "", body).await;
    let sent = stage.world.reads.lock().unwrap().pop();
    (told, sent.and_then(|sent| sent.reads.into_iter().next()))
}

/// What a gateway that has seen `first` makes of `body` is what one makes of it that has seen nothing.
async fn is_the_same_after(first: &str, body: &str) {
    let (seasoned, fresh) = (Stage::new().await, Stage::new().await);
    told(&seasoned, PATH, first).await;
    told(&seasoned, PATH, first).await;
    let (answer, read) = told(&seasoned, PATH, body).await;
    let (expected_answer, expected_read) = told(&fresh, PATH, body).await;
    assert_eq!(read, expected_read, "{body} after {first}");
    assert_eq!(answer.status(), expected_answer.status(), "{body} after {first}");
    assert_eq!(answer.json()["error"], expected_answer.json()["error"], "{body} after {first}");
    assert_eq!(answer.json()["result"], expected_answer.json()["result"], "{body} after {first}");
}

#[tokio::test]
async fn bodies_of_one_shape_are_read_with_their_own_values() {
    for (first, body) in [
        (r#"{"op":"one","find":{"album_id":1}}"#, r#"{"op":"one","find":{"album_id":-27}}"#),
        (r#"{"op":"one","find":{"title":"a"}}"#, r#"{"op":"one","find":{"title":"größer"}}"#),
        (
            r#"{ "find": { "album_id" : 1 , "title": "a" }, "op": "all", "options": {"limit": 3, "select": {"title": 1}} }"#,
            r#"{ "find": { "album_id" : 20 , "title": "" }, "op": "all", "options": {"limit": 3, "select": {"title": 1}} }"#,
        ),
        (r#"{"op":"count","find":{"album_id":1}}"#, r#"{"op":"count","find":{"album_id":900719925474099312}}"#),
        (r#"{"op":"all","find":{}}"#, r#"{"op":"all","find":{}}"#),
        // An integer may be given as a text.
        (r#"{"op":"one","find":{"album_id":"1"}}"#, r#"{"op":"one","find":{"album_id":"2"}}"#),
    ] {
        is_the_same_after(first, body).await;
    }
}

/// `body` with a selection of its own: reads of all columns have that of the table.
fn selecting(body: &str) -> String {
    let body = body.strip_suffix('}').expect("a body is an object");
    format!(r#"{body},"options":{{"select":{{"title":1}}}}}}"#)
}

/// Whether `body` was read after `first` without being planned: what it selects is the same memory then.
async fn is_kept_after(path: &str, first: &str, body: &str) -> bool {
    let stage = Stage::new().await;
    let mut selections = Vec::new();
    for body in [first, body] {
        selections.push(told(&stage, path, body).await.1.expect("it is read").node.fields);
    }
    Arc::ptr_eq(&selections[0], &selections[1])
}

#[tokio::test]
async fn bodies_of_one_shape_are_planned_once() {
    let named = |name: &str| format!(r#"{{"op":"one","find":{{"title":"{name}"}}}}"#);
    for (first, body, is_kept) in [
        (r#"{"op":"one","find":{"album_id":1}}"#, r#"{"op":"one","find":{"album_id":-27}}"#, true),
        (r#"{"op":"one","find":{"album_id":1}}"#, r#"{"op":"one","find":{"album_id":0}}"#, true),
        (r#"{"find":{"album_id":10},"op":"all"}"#, r#"{"find":{"album_id":999999999999999999},"op":"all"}"#, true),
        // The last integers of 64 bits are planned: their digits alone do not say that they are within them.
        (r#"{"op":"one","find":{"album_id":1}}"#, r#"{"op":"one","find":{"album_id":1000000000000000000}}"#, false),
        (r#"{"op":"one","find":{"title":"a"}}"#, r#"{"op":"one","find":{"title":"größer"}}"#, true),
        (r#"{"op":"one","find":{"title":"a"}}"#, r#"{"op":"one","find":{"title":"Let There Be Rock"}}"#, true),
        (r#"{"op":"one","find":{"title":"a"}}"#, r#"{"op":"one","find":{"title":"a\tb"}}"#, false),
        (
            "{\n\t\"op\" : \"all\",\r\n\t\"find\" : { \"album_id\" : 1\t, \"title\" : \"a\" } }",
            "{\n\t\"op\" : \"all\",\r\n\t\"find\" : { \"album_id\" : 23\t, \"title\" : \"b\" } }",
            true,
        ),
        (r#"{"op":"all","find":{}}"#, r#"{"op":"all","find":{}}"#, true),
        (r#"{"op":"one","find":{"album_id":1}}"#, r#"{"op":"one","find":{"album_id":"1"}}"#, false),
        // A condition that is more than equality depends on its values.
        (r#"{"op":"all","find":{"album_id":{"$gt":1}}}"#, r#"{"op":"all","find":{"album_id":{"$gt":2}}}"#, false),
        (&named(&"a".repeat(400)), &named(&"b".repeat(600)), true),
    ] {
        let is_known = is_kept_after(PATH, &selecting(first), &selecting(body)).await;
        assert_eq!(is_known, is_kept, "{body} after {first}");
    }
}

#[tokio::test]
async fn what_is_no_condition_is_part_of_the_shape() {
    let limited = |limit: u8, id: u8| {
        let options = format!(r#"{{"limit":{limit},"select":{{"title":1}}}}"#);
        format!(r#"{{"op":"all","options":{options},"find":{{"album_id":{id}}}}}"#)
    };
    for (first, body, is_kept) in [(limited(3, 1), limited(3, 2), true), (limited(3, 1), limited(4, 1), false)] {
        assert_eq!(is_kept_after(PATH, &first, &body).await, is_kept, "{body} after {first}");
    }
}

#[tokio::test]
async fn bodies_over_a_kibibyte_are_planned_each_time() {
    let of_bytes = |bytes: usize, letter: &str| {
        let named = |name: &str| selecting(&format!(r#"{{"op":"one","find":{{"title":"{name}"}}}}"#));
        named(&letter.repeat(bytes - named("").len()))
    };
    for (bytes, is_kept) in [(1023, true), (1024, true), (1025, false)] {
        let (first, body) = (of_bytes(bytes, "a"), of_bytes(bytes, "b"));
        assert_eq!(is_kept_after(UNLIMITED, &first, &body).await, is_kept, "{bytes}");
    }
}

#[tokio::test]
async fn bodies_that_are_nearly_of_a_shape_are_read_as_they_are() {
    let by_key = r#"{"op":"one","find":{"album_id":1}}"#;
    for body in [
        r#"{"op":"one","find":{"album_id":"1"}}"#,
        r#"{"op":"one","find":{"album_id":1.5}}"#,
        r#"{"op":"one","find":{"album_id":1e1}}"#,
        r#"{"op":"one","find":{"album_id":01}}"#,
        r#"{"op":"one","find":{"album_id":-}}"#,
        r#"{"op":"one","find":{"album_id":9223372036854775808}}"#,
        r#"{"op":"one","find":{"album_id":1234567890123456789}}"#,
        r#"{"op":"one","find":{"album_id":null}}"#,
        r#"{"op":"one","find":{"album_id":true}}"#,
        r#"{"op":"one","find":{"album_id":[1]}}"#,
        r#"{"op":"one","find":{"album_id":{"$gt":1}}}"#,
        r#"{"op":"one","find":[1]}"#,
        r#"{"op":"one","find":1}"#,
        r#"{"op":"one","find":{"title":1}}"#,
        r#"{"op":"one","find":{"no_such":1}}"#,
        r#"{"op":"one","find":{"album_id":1},"find":{"album_id":2}}"#,
        r#"{"op":"one","find":{"album_id":1,"album_id":2}}"#,
        r#"{"op":"all","find":{"album_id":1}}"#,
        r#"{"op":"one","find":{"album_id":1}"#,
        r#"{"op":"one","find":{"album_id":1}}}"#,
        "{\"op\":\"one\",\"find\":{\"album_id\":\0}}",
        "{\"op\":\"one\",\"find\":{\"album_id\":\u{1}}}",
        "",
    ] {
        is_the_same_after(by_key, body).await;
    }
    let by_title = r#"{"op":"all","find":{"title":"a"}}"#;
    for body in [
        r#"{"op":"all","find":{"title":"a\nb"}}"#,
        r#"{"op":"all","find":{"title":"a\u0000b"}}"#,
        "{\"op\":\"all\",\"find\":{\"title\":\"a\nb\"}}",
        r#"{"op":"all","find":{"title":"a"b"}}"#,
        r#"{"op":"all","find":{"title":"a","title":"b"}}"#,
        r#"{"op":"all","find":{"title":a}}"#,
    ] {
        is_the_same_after(by_title, body).await;
    }
    // Whatever was seen before, a value that is no value of its column is told.
    let by_text = r#"{"op":"one","find":{"album_id":"1"}}"#;
    for body in [r#"{"op":"one","find":{"album_id":"x"}}"#, r#"{"op":"one","find":{"album_id":""}}"#] {
        is_the_same_after(by_text, body).await;
    }
}

#[tokio::test]
async fn an_exponent_is_no_part_of_a_kept_integer() {
    // Zero with an exponent is the integer zero: the digits alone would be kept as its value.
    is_the_same_after(r#"{"op":"one","find":{"album_id":0e1}}"#, r#"{"op":"one","find":{"album_id":3e1}}"#).await;
    is_the_same_after(r#"{"op":"one","find":{"album_id":0.0}}"#, r#"{"op":"one","find":{"album_id":3.0}}"#).await;
}

#[tokio::test]
async fn a_kept_read_is_of_its_table() {
    let stage = Stage::new().await;
    let body = r#"{"op":"all","find":{"album_id":1}}"#;
    for table in ["album", "track", "album", "track"] {
        stage.post(&format!("/v1/api/shop/crud/music/{table}/read"), "", body).await;
        let sent = stage.sent_read();
        assert_eq!(&*sent.reads[0].table, table);
    }
}

#[tokio::test]
async fn a_kept_read_is_authorised_for_each_caller() {
    let stage = Stage::new().await;
    let path = "/v1/api/shop/crud/music/invoice/read";
    let body = r#"{"op":"one","find":{"invoice_id":1}}"#;
    assert_eq!(stage.post(path, "staff", body).await.status(), 200);
    assert_eq!(stage.post(path, "staff", body).await.status(), 200);
    assert_eq!(stage.post(path, "visitor", body).await.refusal(), (403, "DENIED".to_owned()));
}

#[tokio::test]
async fn selections_without_variables_are_planned_once_for_a_document() {
    for (document, is_kept) in [
        ("query($limit: Int) { album(limit: $limit) { title } }", true),
        ("query($limit: Int, $has: Boolean = true) { album(limit: $limit) { title @include(if: $has) } }", false),
    ] {
        let stage = Stage::new().await;
        let mut selections = Vec::new();
        for limit in [1, 2] {
            let body = json!({ "query": document, "variables": { "limit": limit } }).to_string();
            let request = Request::post("/v1/api/shop/graphql").header(header::CONTENT_TYPE, "application/json");
            let told = stage.send(request.body(Body::from(body)).unwrap()).await;
            assert_eq!(told.status(), 200, "{document}: {:?}", told.body);
            let node = stage.sent_read().reads[0].node.clone();
            assert_eq!(node.limit, Some(limit), "{document}");
            selections.push(node.fields);
        }
        assert_eq!(selections[0], selections[1], "{document}");
        assert_eq!(Arc::ptr_eq(&selections[0], &selections[1]), is_kept, "{document}");
    }
}

#[tokio::test]
async fn a_kept_insert_is_authorised_for_each_caller_with_its_documents() {
    let stage = Stage::new().await;
    let insert = async |token: &str, id: i64| {
        let docs = json!([{ "invoice_id": id, "total": "x" }]);
        let query = "mutation($docs: [InvoiceInsert!]!) { insert_invoice(docs: $docs) { affected } }";
        let body = json!({ "query": query, "variables": { "docs": docs } }).to_string();
        let request = Request::post("/v1/api/shop/graphql")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, format!("Bearer {token}"));
        stage.send(request.body(Body::from(body)).unwrap()).await.status().as_u16()
    };
    let ids = |docs: &[query::Document]| docs.iter().map(|doc| doc.get("invoice_id").cloned()).collect::<Vec<_>>();
    for (token, id, status) in [("staff", 1, 200), ("staff", 2, 200), ("audit", 3, 403), ("staff", 5, 200)] {
        assert_eq!(insert(token, id).await, status, "{token}");
        let asked = stage.world.authorisations.lock().unwrap().pop().expect("each is authorised");
        let Access::Table(access) = &asked.accesses[0];
        assert_eq!((&*asked.token, ids(&access.docs)), (token, vec![Some(Typed::Int(id))]));
        let sent = stage.world.writes.lock().unwrap().pop();
        let sent = sent.map(|sent| match &sent.mutations[0].kind {
            MutationKind::Insert { docs } => ids(docs),
            other => panic!("an insert, not {other:?}"),
        });
        assert_eq!(sent, (status == 200).then(|| vec![Some(Typed::Int(id))]));
    }
}
