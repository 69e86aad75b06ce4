//! Requests from pages of other origins.

use axum::body::Body;
use http::Request;

use super::stage::{Stage, Told};
use crate::Config;

const PAGE: &str = "http://a.test";

async fn read(stage: &Stage, project: &str, origin: &str) -> Told {
    let path = format!("/v1/api/{project}/crud/music/album/read");
    let request = Request::post(path).header("origin", origin).body(Body::from(r#"{"op":"all"}"#));
    stage.send(request.expect("the test's request is legal")).await
}

async fn preflight(stage: &Stage, path: &str, origin: &str, headers: &str) -> Told {
    let request = Request::options(path)
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", headers);
    stage.send(request.body(Body::empty()).expect("the test's request is legal")).await
}

#[tokio::test]
async fn a_listed_origin_is_echoed_with_credentials() {
    let stage = Stage::new().await;
    let told = read(&stage, "shop", PAGE).await;
    assert_eq!(told.header("access-control-allow-origin"), PAGE);
    assert_eq!(told.header("access-control-allow-credentials"), "true");
    assert_eq!(told.header("vary"), "Origin");
    assert!(told.header("access-control-expose-headers").starts_with("Authorization, Content-Type"));
}

#[tokio::test]
async fn another_origin_may_not_read_the_answer() {
    let stage = Stage::new().await;
    for origin in ["http://b.test", "http://a.test:81", "https://a.test", "null"] {
        let told = read(&stage, "shop", origin).await;
        assert_eq!(told.header("access-control-allow-origin"), "", "{origin}");
        assert_eq!(told.header("vary"), "Origin");
    }
}

#[tokio::test]
async fn any_origin_means_no_credentials() {
    let stage = Stage::new().await;
    let told = read(&stage, "open", PAGE).await;
    assert_eq!(told.header("access-control-allow-origin"), "*");
    assert_eq!(told.header("access-control-allow-credentials"), "");
}

#[tokio::test]
async fn a_project_without_origins_says_nothing() {
    let stage = Stage::new().await;
    let told = read(&stage, "bare", PAGE).await;
    assert_eq!((told.header("access-control-allow-origin"), told.header("vary")), ("", ""));
}

#[tokio::test]
async fn in_development_pages_of_this_machine_may_call_and_no_others() {
    let stage = Stage::with(Config { development: true, ..Config::default() }).await;
    for page in ["http://localhost:5173", "http://127.0.0.1:3000", "http://[::1]:80"] {
        assert_eq!(read(&stage, "bare", page).await.header("access-control-allow-origin"), page);
        for path in ["/v1/api/bare/crud/music/album/read", "/v1/api/bare/graphql", "/perigee.api.v1.Data/Read"] {
            let told = preflight(&stage, path, page, "content-type,authorization").await;
            assert_eq!(told.header("access-control-allow-origin"), page, "{path}");
        }
    }
    for page in ["http://evil.test", "http://localhost.evil.test:5173", "null"] {
        assert_eq!(read(&stage, "bare", page).await.header("access-control-allow-origin"), "");
        let told = preflight(&stage, "/v1/api/bare/graphql", page, "content-type").await;
        assert_eq!(told.header("access-control-allow-origin"), "");
    }
    let production = Stage::new().await;
    assert_eq!(read(&production, "bare", "http://localhost:5173").await.header("access-control-allow-origin"), "");
    let told = preflight(&production, "/v1/api/shop/graphql", "http://localhost:5173", "content-type").await;
    assert_eq!(told.header("access-control-allow-origin"), "");
}

#[tokio::test]
async fn errors_can_be_read_too() {
    let stage = Stage::new().await;
    let request = Request::post("/v1/api/shop/crud/music/secret/read").header("origin", PAGE);
    let told = stage.send(request.body(Body::from(r#"{"op":"all"}"#)).expect("the test's request is legal")).await;
    assert_eq!((told.status().as_u16(), told.header("access-control-allow-origin")), (401, PAGE));
}

#[tokio::test]
async fn a_preflight_allows_what_clients_send() {
    let stage = Stage::new().await;
    let path = "/v1/api/shop/crud/music/album/read";
    let told = preflight(&stage, path, PAGE, "content-type,authorization").await;
    assert_eq!((told.status().as_u16(), told.text()), (200, ""));
    assert_eq!(told.header("access-control-allow-origin"), PAGE);
    assert_eq!(told.header("access-control-allow-methods"), "POST");
    assert_eq!(told.header("access-control-allow-headers"), "content-type,authorization");
    assert_eq!(told.header("access-control-allow-credentials"), "true");
    assert!(!told.header("x-request-id").is_empty());
    assert_eq!(preflight(&stage, path, PAGE, "x-custom").await.header("access-control-allow-origin"), "");
    assert_eq!(preflight(&stage, path, "http://b.test", "").await.header("access-control-allow-origin"), "");
}

#[tokio::test]
async fn a_preflight_of_grpc_web_allows_the_origins_of_any_project() {
    let stage = Stage::new().await;
    let told = preflight(&stage, "/perigee.api.v1.Data/Read", PAGE, "content-type,x-grpc-web,x-user-agent").await;
    assert_eq!(told.header("access-control-allow-origin"), PAGE);
}
