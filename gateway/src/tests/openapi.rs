//! The description of the REST API: to whom it is shown, and what of it.

use std::sync::atomic::Ordering;

use axum::body::Body;
use http::{Request, header};
use serde_json::{Value, json};

use super::{
    introspection::shows,
    stage::{Stage, Told},
};
use crate::Config;

async fn stage() -> Stage {
    Stage::with(Config { introspection: true, ..Config::default() }).await
}

async fn ask_for(stage: &Stage, path: &str, token: &str) -> Told {
    let mut request = Request::get(path);
    if !token.is_empty() {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    stage.send(request.body(Body::empty()).unwrap()).await
}

async fn ask(stage: &Stage, token: &str) -> Told {
    ask_for(stage, "/v1/api/bare/openapi.json", token).await
}

fn paths(told: &Told) -> Vec<String> {
    assert_eq!((told.status().as_u16(), told.header("content-type")), (200, "application/json"), "{}", told.text());
    told.json()["paths"].as_object().expect("paths").keys().cloned().collect()
}

fn of_table(table: &str) -> [String; 5] {
    ["read", "create", "update", "delete", "watch"].map(|verb| format!("/crud/music/{table}/{verb}"))
}

#[tokio::test]
async fn callers_see_the_operations_that_they_reach() {
    let stage = stage().await;

    let (anonymous, audit, staff) = (ask(&stage, "").await, ask(&stage, "audit").await, ask(&stage, "staff").await);

    let open = [vec!["/crud/music/batch".to_owned()], of_table("album").into(), of_table("track").into()].concat();
    assert_eq!(paths(&anonymous), open);
    let invoice = of_table("invoice");
    assert_eq!(paths(&audit), [&open[..], &invoice[..1], &invoice[4..]].concat());
    assert_eq!(paths(&staff), [&open[..], &of_table("invoice")].concat());
    assert!(!anonymous.text().contains("invoice"), "a table of others");
    assert!(!staff.text().contains("secret"), "nobody reaches it");
}

#[tokio::test]
async fn a_document_says_what_rows_and_bodies_look_like() {
    let stage = stage().await;

    let document = ask(&stage, "").await.json();

    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["servers"][0]["url"], "/v1/api/bare");
    assert_eq!(document["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
    let schemas = &document["components"]["schemas"];
    let reference = |name: &str| json!({ "$ref": format!("#/components/schemas/{name}") });
    let row = &schemas["music.track.Row"]["properties"];
    assert_eq!(row["track_id"], reference("Int64"));
    assert_eq!(row["album"]["anyOf"][0], reference("music.album.Row"));
    assert_eq!(schemas["music.album.Row"]["properties"]["track"]["items"], reference("music.track.Row"));
    assert_eq!(schemas["music.track.Insert"]["required"], json!(["track_id", "name", "album_id"]));
    assert_eq!(schemas["music.track.Filter"]["properties"]["name"], reference("TextCondition"));
    assert_eq!(schemas["music.track.Changes"]["properties"]["$inc"]["properties"]["album_id"], reference("Int64Input"));
    assert_eq!(schemas["Int64"]["maximum"], i64::MAX);
    let read = &document["paths"]["/crud/music/track/read"]["post"];
    assert_eq!(read["requestBody"]["content"]["application/json"]["schema"], reference("music.track.Read"));
    let conflict = &document["components"]["responses"]["Error409"];
    let schema = &conflict["content"]["application/json"]["schema"];
    assert_eq!(schema["allOf"][1]["properties"]["code"]["enum"], json!(["CONFLICT"]));
}

#[tokio::test]
async fn every_reference_of_a_document_leads_somewhere() {
    fn check(document: &Value, value: &Value) {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(reference)) = members.get("$ref") {
                    let found = document.pointer(reference.strip_prefix('#').expect("it is within the document"));
                    assert!(found.is_some(), "{reference}");
                }
                members.values().for_each(|member| check(document, member));
            }
            Value::Array(items) => items.iter().for_each(|item| check(document, item)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let stage = stage().await;
    for token in ["", "audit", "staff"] {
        let document = ask(&stage, token).await.json();
        check(&document, &document);
    }
}

#[tokio::test]
async fn where_no_schema_is_shown_there_is_no_document() {
    let stage = Stage::new().await;

    let refused = ask(&stage, "staff").await;

    assert_eq!(refused.refusal(), (404, "NOT_FOUND".to_owned()));
    assert_eq!(refused.json()["error"], "the OpenAPI document is not available in this project");
    assert_eq!(stage.world.reaches.load(Ordering::SeqCst), 0);
    stage.resources.send_replace(shows(true));
    while ask(&stage, "").await.status() != 200 {
        tokio::task::yield_now().await;
    }
    stage.resources.send_replace(shows(false));
    while ask(&stage, "").await.status() != 404 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_unknown_project_is_told_as_unknown() {
    let stage = stage().await;
    let told = ask_for(&stage, "/v1/api/nowhere/openapi.json", "").await;
    assert_eq!(told.refusal(), (404, "UNKNOWN_PROJECT".to_owned()));
}

#[tokio::test]
async fn a_document_over_the_limit_of_an_answer_is_refused() {
    let stage = Stage::with(Config { introspection: true, answer_bytes: 1000, ..Config::default() }).await;
    for _ in 0..2 {
        let told = ask(&stage, "").await;
        assert_eq!(told.refusal(), (413, "TOO_LARGE".to_owned()));
        assert!(told.text().contains("limit of 1000 bytes"), "{}", told.text());
    }
}

#[tokio::test]
async fn a_document_is_read_and_not_posted() {
    let stage = stage().await;
    let told = stage.post("/v1/api/bare/openapi.json", "", "{}").await;
    assert_eq!(told.refusal(), (405, "METHOD".to_owned()));
    assert_eq!(told.header("allow"), "GET,HEAD");
}

#[tokio::test]
async fn a_schema_that_changed_is_described_as_it_is() {
    let stage = stage().await;
    assert!(!ask(&stage, "").await.text().contains("\"year\""));

    stage.world.grown.lock().unwrap().push("year");
    stage.world.added.lock().unwrap().push("year");
    // A name that is not known makes the gateway look again.
    stage.post("/v1/api/bare/crud/music/album/read", "", r#"{"op": "all", "find": {"year": 1}}"#).await;

    assert!(ask(&stage, "").await.text().contains("\"year\""));
}
