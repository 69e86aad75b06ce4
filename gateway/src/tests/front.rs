//! What every request passes.

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use http::Request;
use tokio::sync::Notify;

use super::stage::Stage;
use crate::Config;

const READ: &str = "/v1/api/shop/crud/music/album/read";

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).expect("the test's request is legal")
}

#[tokio::test]
async fn an_unknown_path_is_told_as_json() {
    let stage = Stage::new().await;
    for path in ["/nope", "/", "/v1/api/shop", "/v1/api/shop/crud/music/album/aggr"] {
        let told = stage.send(get(path)).await;
        assert_eq!(told.refusal(), (404, "NOT_FOUND".to_owned()), "{path}");
        assert_eq!(told.json()["error"], format!("path {path} is not known"));
    }
}

#[tokio::test]
async fn a_wrong_method_is_told_with_those_that_are_known() {
    let stage = Stage::new().await;
    let told = stage.send(get(READ)).await;
    assert_eq!(told.refusal(), (405, "METHOD".to_owned()));
    assert_eq!(told.header("allow"), "POST");
    let told = stage.post("/live", "", "").await;
    assert_eq!(told.refusal(), (405, "METHOD".to_owned()));
    assert_eq!(told.header("allow"), "GET,HEAD");
}

#[tokio::test]
async fn options_tell_the_methods_of_a_path() {
    let stage = Stage::new().await;
    let told = stage.send(Request::options(READ).body(Body::empty()).expect("the test's request is legal")).await;
    assert_eq!((told.status().as_u16(), told.text(), told.header("allow")), (200, "{}", "POST"));
}

#[tokio::test]
async fn paths_with_double_and_last_slashes_are_served() {
    let stage = Stage::new().await;
    for path in [
        "/v1/api//shop/crud/music/album/read",
        "//v1/api/shop/crud/music/./album/read/",
        "/v1/api/shop/%63rud/music/%61lbum/read",
    ] {
        assert_eq!(stage.post(path, "", r#"{"op":"all"}"#).await.status(), 200, "{path}");
    }
}

#[tokio::test]
async fn a_path_that_is_no_text_is_refused() {
    let stage = Stage::new().await;
    for path in ["/v1/api/shop/crud/music/%ff/read", "/v1/api/shop/crud/music/a%00b/read"] {
        assert_eq!(stage.post(path, "", r#"{"op":"all"}"#).await.refusal(), (400, "BAD_REQUEST".to_owned()), "{path}");
    }
}

#[tokio::test]
async fn an_encoded_body_is_refused_with_its_encoding() {
    let stage = Stage::new().await;
    for (encoding, status) in [("gzip", 400), ("identity", 200), ("", 200)] {
        let request = Request::post(READ).header("content-encoding", encoding).body(Body::from(r#"{"op":"all"}"#));
        let told = stage.send(request.expect("the test's request is legal")).await;
        assert_eq!(told.status(), status, "{encoding}");
        if status == 400 {
            assert_eq!(told.json()["error"], "content-encoding gzip is not known, expected none or identity");
        }
    }
}

#[tokio::test]
async fn a_request_id_is_kept_if_it_is_printable_and_short() {
    let stage = Stage::new().await;
    for (id, is_kept) in
        [("abc-1 x", true), ("", false), (&*"x".repeat(64), true), (&*"x".repeat(65), false), ("a\tb", false)]
    {
        let mut request = get("/live");
        request.headers_mut().insert("x-request-id", id.parse().expect("the test's header is legal"));
        let told = stage.send(request).await;
        assert_eq!(told.header("x-request-id") == id, is_kept, "{id:?}");
        assert!(!told.header("x-request-id").is_empty());
    }
}

#[tokio::test]
async fn the_node_says_how_it_is_doing() {
    let stage = Stage::new().await;
    assert_eq!(stage.send(get("/v1/api/health-check")).await.text(), "{}");
    assert_eq!(stage.send(get("/live")).await.text(), "{}");
    let part = "peer crud http://crud-0:4130";
    let board = stage.service.mesh().board().clone();
    board.set(part, mesh::State::Failing("nobody there".to_owned()));
    let told = stage.send(get("/ready")).await;
    assert_eq!(told.status(), 503);
    assert_eq!(told.json()["parts"][part]["error"], "nobody there");
    board.set(part, mesh::State::Ready);
    while stage.send(get("/ready")).await.status() != 200 {
        // The databases of some project are not described yet.
        tokio::task::yield_now().await;
    }
    let told = stage.send(get("/metrics")).await;
    assert!(told.header("content-type").starts_with("application/openmetrics-text"));
    assert!(told.text().ends_with("# EOF\n"), "{}", told.text());
}

#[tokio::test]
async fn a_body_over_the_limit_of_the_project_is_refused() {
    let stage = Stage::new().await;
    let body = format!(r#"{{"op":"all","x":"{}"}}"#, "x".repeat(1000));
    let told = stage.post(READ, "", &body).await;
    assert_eq!(told.refusal(), (413, "TOO_LARGE".to_owned()));
    assert_eq!(told.json()["error"], "the body of 1019 bytes is over the limit of 1000 bytes");
    assert_eq!(stage.post("/v1/api/bare/crud/music/album/read", "", &body).await.status(), 200);
}

#[tokio::test]
async fn a_request_whose_time_is_over_is_answered() {
    let stage = Stage::with(Config { time: Duration::from_millis(50), ..Config::default() }).await;
    *stage.world.gate.lock().unwrap() = Some(Arc::new(Notify::new()));
    let told = stage.post(READ, "", r#"{"op":"all"}"#).await;
    assert_eq!(told.refusal(), (504, "DEADLINE".to_owned()));
}
