//! REST.

use std::sync::atomic::Ordering;

use mesh::{Code, Fault};
use proto::{
    auth::{Access, TableAccess},
    grant,
};
use query::{FieldKind, Limits, MutationKind, Operation};

use super::stage::{Stage, Told};
use crate::Config;

const ALL: &str = r#"{"op":"all"}"#;

fn path(table: &str, operation: &str) -> String {
    format!("/v1/api/shop/crud/music/{table}/{operation}")
}

async fn read(stage: &Stage, table: &str, token: &str, body: &str) -> Told {
    stage.post(&path(table, "read"), token, body).await
}

#[tokio::test]
async fn reads_answer_the_bytes_of_the_database_as_they_are() {
    let stage = Stage::new().await;
    *stage.world.json.lock().unwrap() = Some(r#"[{"n": 1.10}]"#);
    let told = read(&stage, "album", "", ALL).await;
    assert_eq!(told.text(), r#"{"result":[{"n": 1.10}]}"#);
    assert_eq!(told.header("content-type"), "application/json");
    assert_eq!(told.header("cache-control"), "no-store");
}

#[tokio::test]
async fn one_is_a_row_and_count_a_number() {
    let stage = Stage::new().await;
    assert_eq!(read(&stage, "album", "", r#"{"op":"one"}"#).await.text(), r#"{"result":{"album_id":1}}"#);
    assert_eq!(read(&stage, "album", "", r#"{"op":"count"}"#).await.text(), r#"{"result":2}"#);
    *stage.world.json.lock().unwrap() = Some("null");
    assert_eq!(read(&stage, "album", "", r#"{"op":"one"}"#).await.refusal(), (404, "NOT_FOUND".to_owned()));
}

#[tokio::test]
async fn a_cut_answer_says_so() {
    let stage = Stage::new().await;
    *stage.world.truncated.lock().unwrap() = true;
    let told = read(&stage, "album", "", ALL).await;
    assert_eq!(told.header("x-perigee-truncated"), "true");
    assert_eq!(told.json()["truncated"], true);
}

#[tokio::test]
async fn a_read_carries_its_select_tree_and_one_grant_for_each_table() {
    let stage = Stage::new().await;
    let body = r#"{"op":"all","find":{"album_id":{"$gt":1}},"options":{"sort":["-title"],"skip":1,"limit":2,
        "select":{"title":1,"track":{"select":{"name":1},"limit":5}}}}"#;
    assert_eq!(read(&stage, "album", "", body).await.status(), 200);
    let sent = stage.sent_read();
    let (_, verifier) = grant::pair(b"test");
    let tables =
        sent.grants.into_iter().map(|grant| verifier.terms(grant).expect("it is of this process").table.clone());
    assert_eq!(tables.collect::<Vec<_>>(), ["album", "track"]);
    let node = &sent.reads[0].node;
    assert_eq!((node.skip, node.limit), (1, Some(2)));
    assert!(node.sort[0].descending);
    assert!(matches!(&node.fields[1].kind, FieldKind::Relation { name, .. } if name == "track"));
    let asked = stage.world.authorisations.lock().unwrap().pop().expect("a grant was asked for");
    let Access::Table(TableAccess { find, op, limit, .. }) = &asked.accesses[0];
    assert!(find.is_some());
    assert_eq!((*op, *limit), ("all", Some(2)));
}

#[tokio::test]
async fn an_alias_means_its_database() {
    let stage = Stage::new().await;
    for alias in ["music", "sqlite", "sql-sqlite", "sql-music"] {
        let told = stage.post(&format!("/v1/api/shop/crud/{alias}/album/read"), "", ALL).await;
        assert_eq!(told.status(), 200, "{alias}");
        let told =
            stage.post(&format!("/v1/api/shop/crud/{alias}/album/read"), "", r#"{"op":"all","find":{"nope":1}}"#).await;
        assert_eq!(told.refusal(), (400, "UNKNOWN_COLUMN".to_owned()), "rules know it by its id");
    }
}

#[tokio::test]
async fn the_limits_of_the_node_hold() {
    let limits = Limits { nodes: 3, statements: 2, values: 3, ..Limits::default() };
    let stage = Stage::with(Config { limits, ..Config::default() }).await;
    let over = (400, "TOO_COMPLEX".to_owned());
    let ids = |count: u32| (0..count).map(|id| format!(r#"{{"album_id":{id}}}"#)).collect::<Vec<_>>().join(",");
    for (conditions, is_over) in [(1, false), (2, true)] {
        let body = format!(r#"{{"op":"count","find":{{"$or":[{}]}}}}"#, ids(conditions));
        assert_eq!(read(&stage, "album", "", &body).await.status() == 400, is_over, "{body}");
    }
    for (items, is_over) in [(2, false), (3, true)] {
        let item = r#"{"type":"delete","col":"album","op":"all","find":{"album_id":1}}"#;
        let body = format!(r#"{{"reqs":[{}]}}"#, vec![item; items].join(","));
        let told = stage.post("/v1/api/shop/crud/music/batch", "", &body).await;
        assert_eq!(told.status() == 400, is_over, "{}", told.text());
    }
    let select = r#""options":{"select":["title"]}"#;
    let doc = r#"{"title":"x","album_id":1}"#;
    for (operation, within, beyond) in [
        ("read", select.to_owned(), format!(r#"{select},"find":{{"$or":[{{"title":"x"}},{{"title":"y"}}]}}"#)),
        ("create", format!(r#""doc":[{doc}]"#), format!(r#""doc":[{doc},{doc}]"#)),
    ] {
        let told = stage.post(&path("album", operation), "", &format!(r#"{{"op":"all",{within}}}"#)).await;
        assert_eq!(told.status(), 200, "{}", told.text());
        let told = stage.post(&path("album", operation), "", &format!(r#"{{"op":"all",{beyond}}}"#)).await;
        assert_eq!(told.refusal(), over, "{operation}");
    }
    // No more of a body is read than what is within the limits could take.
    for (count, is_over) in [(1000, false), (1100, true)] {
        let members: Vec<String> = (0..count).map(|name| format!(r#""{name}":1"#)).collect();
        let body = format!(r#"{{"op":"all","find":{{{}}}}}"#, members.join(","));
        let told = stage.post("/v1/api/bare/crud/music/album/read", "", &body).await;
        assert_eq!(told.refusal() == over, is_over, "{}", told.text());
    }
}

#[tokio::test]
async fn an_unknown_project_is_told_before_a_wrong_body() {
    let stage = Stage::new().await;
    let told = stage.post("/v1/api/nope/crud/music/album/read", "", "{").await;
    assert_eq!(told.refusal(), (404, "UNKNOWN_PROJECT".to_owned()));
}

#[tokio::test]
async fn nobody_without_rights_can_tell_an_unknown_table_from_a_denied_one() {
    let stage = Stage::new().await;
    for (token, status) in [("", 401), ("audit", 403)] {
        for operation in ["read", "create", "update", "delete"] {
            let body = r#"{"op":"all","doc":[{"nope":1}],"update":{"$set":{"nope":1}},"find":{"nope":1}}"#;
            let text = |told: &Told, name: &str| told.json()["error"].to_string().replace(name, "?");
            let known = stage.post(&path("secret", operation), token, body).await;
            let unknown = stage.post(&path("secrets", operation), token, body).await;
            assert_eq!(known.status(), status, "{operation}");
            assert_eq!(unknown.refusal(), known.refusal());
            assert_eq!(text(&unknown, "secrets"), text(&known, "secret"));
            let nowhere = stage.post(&format!("/v1/api/shop/crud/nope/secret/{operation}"), token, body).await;
            assert_eq!(nowhere.refusal(), known.refusal());
        }
    }
}

#[tokio::test]
async fn the_denial_of_a_plain_request_is_the_same_as_a_veiled_one() {
    let stage = Stage::new().await;
    let plain = read(&stage, "secret", "", ALL).await;
    let veiled = read(&stage, "secret", "", r#"{"op":"all","find":{"nope":1}}"#).await;
    assert_eq!(plain.json()["error"], veiled.json()["error"]);
}

#[tokio::test]
async fn who_may_use_a_table_learns_what_is_wrong() {
    let stage = Stage::new().await;
    let told = read(&stage, "invoces", "staff", ALL).await;
    assert_eq!(told.refusal(), (404, "UNKNOWN_TABLE".to_owned()));
    assert_eq!(told.json()["error"], "table invoces is not in the database; did you mean invoice?");
    let told = read(&stage, "album", "", r#"{"op":"all","find":{"titel":"x"}}"#).await;
    assert_eq!(told.refusal(), (400, "UNKNOWN_COLUMN".to_owned()));
    let told = stage.post("/v1/api/shop/crud/down/album/read", "", ALL).await;
    assert_eq!(told.refusal(), (503, "UNAVAILABLE".to_owned()));
}

#[tokio::test]
async fn a_hint_never_names_a_table_of_others() {
    let stage = Stage::new().await;
    let told = read(&stage, "secreta", "staff", ALL).await;
    assert_eq!(told.json()["error"], "table secreta is not in the database");
}

#[tokio::test]
async fn a_hint_never_names_a_relation_to_a_table_of_others() {
    let stage = Stage::new().await;
    let told = read(&stage, "track", "staff", r#"{"op":"all","find":{"secrets":1}}"#).await;
    assert_eq!(told.json()["error"], "column secrets is not in table track");
    let told = read(&stage, "track", "staff", r#"{"op":"all","options":{"select":["secrets"]}}"#).await;
    assert_eq!(told.json()["error"], "column secrets is not in table track");
    let told = read(&stage, "track", "staff", r#"{"op":"all","options":{"select":["albums"]}}"#).await;
    assert_eq!(told.json()["error"], "column albums is not in table track; did you mean album?");
}

#[tokio::test]
async fn nothing_is_told_of_a_value_for_a_table_of_others() {
    let stage = Stage::new().await;
    for condition in [r#"{"secret_id":"x"}"#, r#"{"title":5}"#, r#"{"nope":5}"#, r#"{"title":{"$like":5}}"#] {
        let body = format!(r#"{{"op":"all","find":{{"secret":{{"$some":{condition}}}}}}}"#);
        assert_eq!(read(&stage, "track", "staff", &body).await.refusal(), (403, "DENIED".to_owned()), "{condition}");
        let select = format!(r#"{{"op":"all","options":{{"select":{{"secret":{{"find":{condition}}}}}}}}}"#);
        assert_eq!(read(&stage, "track", "staff", &select).await.refusal(), (403, "DENIED".to_owned()), "{condition}");
    }
    let body = r#"{"op":"all","find":{"album":{"album_id":"x"}}}"#;
    assert_eq!(read(&stage, "track", "staff", body).await.refusal(), (400, "WRONG_TYPE".to_owned()));
}

#[tokio::test]
async fn who_may_only_read_a_table_learns_what_is_wrong_with_a_write() {
    let stage = Stage::new().await;
    let body = r#"{"op":"one","doc":{"nope":1}}"#;
    let told = stage.post(&path("invoice", "create"), "audit", body).await;
    assert_eq!(told.refusal(), (400, "UNKNOWN_COLUMN".to_owned()));
    let body = r#"{"op":"one","doc":{"invoice_id":1,"total":"x"}}"#;
    let told = stage.post(&path("invoice", "create"), "audit", body).await;
    assert_eq!(told.refusal(), (403, "DENIED".to_owned()));
}

#[tokio::test]
async fn a_column_that_is_new_is_found_on_first_use() {
    let stage = Stage::new().await;
    stage.world.added.lock().unwrap().push("year");
    let told = read(&stage, "album", "", r#"{"op":"all","find":{"year":"1970"}}"#).await;
    assert_eq!(told.status(), 200, "{}", told.text());
    assert_eq!(stage.world.looks.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn unknown_names_make_one_look_a_second_at_most() {
    let stage = Stage::new().await;
    for _ in 0..5 {
        assert_eq!(read(&stage, "album", "", r#"{"op":"all","find":{"nope":1}}"#).await.status(), 400);
    }
    assert_eq!(stage.world.looks.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn the_edge_sends_nothing_twice() {
    let stage = Stage::new().await;
    let gone = || Fault::new(Code::Unavailable, "gone");
    *stage.world.faults.lock().unwrap() = vec![gone()];
    let told = read(&stage, "album", "", ALL).await;
    assert_eq!(told.refusal(), (503, "UNAVAILABLE".to_owned()));
    assert_eq!(stage.world.reads.lock().unwrap().len(), 1);
    *stage.world.faults.lock().unwrap() = vec![gone()];
    let told = stage.post(&path("album", "delete"), "", r#"{"op":"all","find":{"album_id":1}}"#).await;
    assert_eq!(told.refusal(), (503, "UNAVAILABLE".to_owned()));
    assert_eq!(stage.world.writes.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn bodies_that_are_wrong_are_refused() {
    let stage = Stage::new().await;
    for (body, message) in [
        ("[]", "invalid body: expected object, found array"),
        ("", "invalid parameter provided: op is required, expected one of all, one, count"),
        (r#"{"op":"all","find":[]}"#, "invalid find: expected object, found array"),
        (r#"{"op":"all","options":[]}"#, "invalid options: expected object, found array"),
    ] {
        let told = read(&stage, "album", "", body).await;
        assert_eq!(told.refusal(), (400, "BAD_REQUEST".to_owned()), "{body}");
        assert_eq!(told.json()["error"], message);
    }
    for body in [r#"{"op":"#, r#"{"op":"all"} x"#, "{\"op\":\"a\u{0}ll\"}", r#"{"op":"all","op":"one"}"#] {
        assert_eq!(read(&stage, "album", "", body).await.refusal(), (400, "BAD_REQUEST".to_owned()), "{body}");
    }
    let deep = format!(r#"{{"op":"all","find":{}1{}}}"#, r#"{"$not":"#.repeat(80), "}".repeat(80));
    assert_eq!(read(&stage, "album", "", &deep).await.refusal(), (400, "TOO_COMPLEX".to_owned()));
    let told = read(&stage, "album", "", r#"{"op":"all","find":{"album_id":{"$foo":1}}}"#).await;
    assert_eq!(told.refusal(), (400, "UNKNOWN_OPERATOR".to_owned()));
}

#[tokio::test]
async fn writes_answer_nothing_unless_asked() {
    let stage = Stage::new().await;
    let one = r#"{"op":"one","doc":{"album_id":1,"title":"x"}}"#;
    assert_eq!(stage.post(&path("album", "create"), "", one).await.text(), "{}");
    let asked = r#"{"op":"one","doc":{"album_id":1,"title":"x"},"returning":["album_id"]}"#;
    let told = stage.post(&path("album", "create"), "", asked).await;
    assert_eq!(told.text(), r#"{"affected":1,"result":[{"album_id":1}]}"#);
    let asked = r#"{"op":"all","find":{"album_id":1},"update":{"$set":{"title":"y"}},"returning":{"album_id":1}}"#;
    assert_eq!(stage.post(&path("album", "update"), "", asked).await.json()["affected"], 1);
}

#[tokio::test]
async fn a_write_asks_for_its_own_operation_and_for_what_it_returns() {
    let stage = Stage::new().await;
    let body = r#"{"op":"one","find":{"album_id":1},"returning":{"track":{"select":{"name":1}}}}"#;
    assert_eq!(stage.post(&path("album", "delete"), "", body).await.status(), 200);
    let asked = stage.world.authorisations.lock().unwrap().pop().expect("a grant was asked for");
    let asked: Vec<_> =
        asked.accesses.iter().map(|Access::Table(access)| (access.table.as_str(), access.operation)).collect();
    let expected = [("album", Operation::Delete), ("album", Operation::Read), ("track", Operation::Read)];
    assert_eq!(asked, expected);
    let sent = stage.world.writes.lock().unwrap().pop().expect("a write was sent");
    assert!(matches!(&sent.mutations[0].kind, MutationKind::Delete { one: true, .. }));
    assert_eq!(sent.grants.len(), 3);
}

#[tokio::test]
async fn a_batch_is_one_write() {
    let stage = Stage::new().await;
    let body = r#"{"reqs":[{"type":"create","col":"album","op":"one","doc":{"album_id":1,"title":"x"}},
        {"type":"update","col":"album","op":"all","find":{"album_id":1},"update":{"$set":{"title":"y"}}},
        {"type":"delete","col":"track","op":"all","find":{"album_id":1}}]}"#;
    let batch = "/v1/api/shop/crud/music/batch";
    assert_eq!(stage.post(batch, "", body).await.text(), "{}");
    let sent = stage.world.writes.lock().unwrap().pop().expect("a write was sent");
    assert_eq!((sent.mutations.len(), sent.grants.len()), (3, 3));
    assert_eq!(stage.post(batch, "", r#"{"reqs":[]}"#).await.text(), "{}");
    assert!(stage.world.writes.lock().unwrap().is_empty());
}

#[tokio::test]
async fn in_development_an_unknown_table_is_told_to_everybody() {
    let stage = Stage::with(Config { development: true, ..Config::default() }).await;
    let told = stage.post("/v1/api/shop/crud/music/albun/read", "", r#"{"op":"all"}"#).await;
    assert_eq!(told.refusal(), (404, "UNKNOWN_TABLE".to_owned()));
    assert_eq!(told.json()["error"], "table albun is not in the database; did you mean album?");
    let request = http::Request::post("/v1/api/shop/graphql").header("content-type", "application/json");
    let body = axum::body::Body::from(r#"{"query": "{ secrets @music { title } }"}"#);
    let told = stage.send(request.body(body).expect("the test's request is legal")).await;
    assert_eq!(told.json()["errors"][0]["extensions"]["code"], "UNKNOWN_TABLE", "{}", told.text());
    assert!(told.text().contains("did you mean secret?"), "{}", told.text());
}

#[tokio::test]
async fn one_denied_item_stops_a_batch() {
    let stage = Stage::new().await;
    let body = r#"{"reqs":[{"type":"create","col":"album","op":"one","doc":{"album_id":1,"title":"x"}},
        {"type":"delete","col":"secret","op":"all","find":{"secret_id":1}}]}"#;
    let told = stage.post("/v1/api/shop/crud/music/batch", "", body).await;
    assert_eq!(told.refusal(), (401, "UNAUTHENTICATED".to_owned()));
    assert!(stage.world.writes.lock().unwrap().is_empty());
}
