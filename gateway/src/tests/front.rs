//! What every request passes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::body::Body;
use http::Request;
use mesh::{Component, ComponentState, config::ServiceName};
use proto::services::crud::CRUD;
use tokio::sync::Notify;

use super::stage::{Stage, World};
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
            assert_eq!(told.json()["error"], "content-encoding gzip is not supported: send none or identity");
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
    let peer = Component::Peer { service: ServiceName::of(&CRUD), url: "http://crud-0:4130".into() };
    let health = stage.service.mesh().health().clone();
    health.set(peer.clone(), ComponentState::Failing("nobody there".to_owned()));
    let told = stage.send_from("127.0.0.1", get("/ready")).await;
    assert_eq!(told.status(), 503);
    assert_eq!(told.json()["parts"][peer.to_string()]["error"], "nobody there");
    health.set(peer, ComponentState::Ready);
    while stage.send(get("/ready")).await.status() != 200 {
        // The databases of some project are not described yet.
        tokio::task::yield_now().await;
    }
    let told = stage.send_from("::1", get("/metrics")).await;
    assert!(told.header("content-type").starts_with("application/openmetrics-text"));
    assert!(told.text().ends_with("# EOF\n"), "{}", told.text());
}

#[tokio::test]
async fn a_node_is_ready_when_no_database_is_being_opened() {
    let world = Arc::new(World { is_opening: AtomicBool::new(true), ..World::default() });
    let stage = Stage::around(world, Config::default()).await;
    let read = || stage.post("/v1/api/shop/crud/down/album/read", "", r#"{"op": "one", "find": {}}"#);

    let told = read().await;

    assert_eq!(told.refusal(), (503, "UNAVAILABLE".to_owned()));
    assert_eq!(told.json()["error"], "database down is still being opened");
    assert_eq!(stage.send(get("/ready")).await.status(), 503);
    stage.world.is_opening.store(false, Ordering::SeqCst);
    while stage.send(get("/ready")).await.status() != 200 {
        tokio::task::yield_now().await;
    }
    assert_eq!(read().await.json()["error"], "database down cannot be reached");
}

#[tokio::test]
async fn callers_elsewhere_learn_only_whether_the_node_is_ready() {
    let stage = Stage::new().await;
    let passed_on = |name: &str, path: &str| {
        let mut request = get(path);
        let name: http::HeaderName = name.parse().expect("the test's header is legal");
        request.headers_mut().insert(name, "for=10.0.0.1".parse().expect("the test's header is legal"));
        request
    };
    stage
        .service
        .mesh()
        .health()
        .set(Component::Service(ServiceName::of(&CRUD)), ComponentState::Failing("gone".to_owned()));
    for (peer, request) in [
        ("10.0.0.1", get("/ready")),
        ("::ffff:10.0.0.1", get("/ready")),
        ("127.0.0.1", passed_on("forwarded", "/ready")),
        ("127.0.0.1", passed_on("x-forwarded-for", "/ready")),
    ] {
        let told = stage.send_from(peer, request).await;
        assert_eq!((told.status().as_u16(), told.text()), (503, r#"{"ready":false}"#), "{peer}");
    }
    for (peer, request) in [("10.0.0.1", get("/metrics")), ("::1", passed_on("forwarded", "/metrics"))] {
        assert_eq!(stage.send_from(peer, request).await.refusal(), (404, "NOT_FOUND".to_owned()), "{peer}");
    }
    let local = stage.send_from("::ffff:127.0.0.1", get("/ready")).await;
    assert_eq!(local.json()["parts"]["service crud"]["error"], "gone");
}

#[tokio::test]
async fn details_are_told_to_everybody_where_the_configuration_says_so() {
    let stage = Stage::with(Config { http_details: true, ..Config::default() }).await;
    stage.service.mesh().health().set(Component::Service(ServiceName::of(&CRUD)), ComponentState::Ready);
    assert_eq!(stage.send_from("10.0.0.1", get("/ready")).await.json()["parts"]["service crud"]["ready"], true);
    assert_eq!(stage.send_from("10.0.0.1", get("/metrics")).await.status(), 200);
}

#[tokio::test]
async fn the_mesh_port_tells_details() {
    let stage = Stage::new().await;
    let routes = crate::node_routes(stage.service.mesh().clone());
    let answer = tower::ServiceExt::oneshot(routes, get("/metrics")).await.expect("routes do not fail");
    assert_eq!(answer.status(), 200);
}

/// A request for a project by each protocol, and the code of its refusal.
async fn refusals(stage: &Stage) -> Vec<(&'static str, u16, String)> {
    let rest = stage.post(READ, "", r#"{"op":"all"}"#).await;
    assert_eq!(rest.header("retry-after"), "1");
    let request = Request::post("/v1/api/shop/graphql").header("content-type", "application/json");
    let request = request.body(Body::from(r#"{"query":"{ album { id } }"}"#)).expect("the test's request is legal");
    let graphql = stage.send(request).await;
    assert_eq!(graphql.header("retry-after"), "1");
    let by_get = stage.send(get("/v1/api/shop/graphql?query=%7B%20album%20%7B%20id%20%7D%20%7D")).await;
    let code = |told: &super::stage::Told| {
        assert!(!told.header("x-request-id").is_empty());
        let json = told.json();
        let code = json["errors"][0]["extensions"]["code"].as_str().or(json["code"].as_str());
        code.unwrap_or_default().to_owned()
    };
    let mut all = vec![
        ("rest", rest.status().as_u16(), code(&rest)),
        ("graphql", graphql.status().as_u16(), code(&graphql)),
        ("graphql by get", by_get.status().as_u16(), code(&by_get)),
    ];
    for (name, content) in [("grpc", "application/grpc"), ("grpc-web", "application/grpc-web+proto")] {
        let request = Request::post("/perigee.api.v1.Data/Read").version(http::Version::HTTP_2);
        let request = request.header("content-type", content).body(Body::from(vec![0; 5]));
        let told = stage.send(request.expect("the test's request is legal")).await;
        all.push((name, told.status().as_u16(), told.header("grpc-status").to_owned()));
    }
    all
}

#[tokio::test]
async fn requests_over_the_limit_are_refused_by_every_protocol_in_its_form() {
    let stage = Stage::with(Config { in_flight: 1, queue: 0, ..Config::default() }).await;
    let gate = Arc::new(Notify::new());
    *stage.world.gate.lock().unwrap() = Some(gate.clone());
    let running = stage.post(READ, "", r#"{"op":"all"}"#);
    let others = async {
        stage.world.arrived.notified().await;
        let refusals = refusals(&stage).await;
        for path in ["/live", "/ready", "/v1/api/health-check"] {
            assert!(!stage.send_from("127.0.0.1", get(path)).await.text().contains("UNAVAILABLE"), "{path}");
        }
        let metrics = stage.send_from("127.0.0.1", get("/metrics")).await.text().to_owned();
        gate.notify_one();
        (refusals, metrics)
    };
    let (running, (refusals, metrics)) = tokio::join!(running, others);
    let unavailable = |name| (name, 503, "UNAVAILABLE".to_owned());
    let grpc = |name| (name, 200, "14".to_owned());
    let wanted = [unavailable("rest"), unavailable("graphql"), unavailable("graphql by get")];
    assert_eq!(refusals, [&wanted[..], &[grpc("grpc"), grpc("grpc-web")]].concat());
    assert_eq!(running.status(), 200);
    for line in [r#"perigee_shed_total{limit="in_flight"} 5"#, "perigee_in_flight 1"] {
        assert!(metrics.lines().any(|have| have == line), "{line} is not in {metrics}");
    }
    *stage.world.gate.lock().unwrap() = None;
    assert_eq!(stage.post(READ, "", r#"{"op":"all"}"#).await.status(), 200, "there is room again");
}

#[tokio::test]
async fn a_request_whose_body_does_not_come_takes_no_slot() {
    let stage = Stage::with(Config { in_flight: 1, queue: 0, ..Config::default() }).await;
    let endless = futures::stream::pending::<Result<bytes::Bytes, std::convert::Infallible>>();
    let mut slow = Box::pin(stage.send(Request::post(READ).body(Body::from_stream(endless)).expect("it is legal")));
    assert!(futures::poll!(slow.as_mut()).is_pending());
    assert_eq!(stage.post(READ, "", r#"{"op":"all"}"#).await.status(), 200);
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
