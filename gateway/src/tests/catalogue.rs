//! Projects and databases that come, change and go.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use axum::body::Body;
use http::Request;
use mesh::resources::Snapshot;

use super::stage::{PROJECTS, Stage, World, snapshot};
use crate::Config;

const ALL: &str = r#"{"op":"all"}"#;
const READ: &str = "/v1/api/shop/crud/music/album/read";

/// Asks until the answer has `status`, which it must within a second.
async fn becomes(stage: &Stage, path: &str, status: u16) {
    let end = Instant::now() + Duration::from_secs(1);
    loop {
        let told = stage.post(path, "", ALL).await;
        if told.status() == status {
            return;
        }
        assert!(Instant::now() < end, "{}", told.text());
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_project_that_comes_is_served_and_one_that_goes_is_not() {
    let stage = Stage::new().await;
    let added = format!(
        "{PROJECTS}---\nkind: project\nmeta: {{ id: new }}\nspec: {{}}\n---\nkind: database\nmeta: {{ project: new, id: music }}\n\
         spec: {{ url: \"sqlite:new.db\" }}\n"
    );
    stage.resources.send_replace(snapshot(&added));
    becomes(&stage, "/v1/api/new/crud/music/album/read", 200).await;
    stage.resources.send_replace(Arc::new(Snapshot::default()));
    becomes(&stage, "/v1/api/new/crud/music/album/read", 404).await;
}

#[tokio::test]
async fn settings_change_without_losing_what_is_known_of_the_databases() {
    let stage = Stage::new().await;
    assert_eq!(stage.post(READ, "", ALL).await.status(), 200);
    stage.world.is_gone.store(true, Ordering::SeqCst);
    let changed = PROJECTS.replace("http://a.test", "http://b.test");
    stage.resources.send_replace(snapshot(&changed));
    let end = Instant::now() + Duration::from_secs(1);
    loop {
        let request = Request::post(READ).header("origin", "http://b.test").body(Body::from(ALL));
        let told = stage.send(request.expect("the test's request is legal")).await;
        assert_eq!(told.json()["error"], "nobody there");
        if told.header("access-control-allow-origin") == "http://b.test" {
            break;
        }
        assert!(Instant::now() < end);
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_gateway_that_starts_before_its_databases_recovers_by_itself() {
    let world = Arc::new(World::default());
    world.is_gone.store(true, Ordering::SeqCst);
    let stage = Stage::around(world, Config::default()).await;
    let told = stage.post(READ, "", ALL).await;
    assert_eq!(told.refusal(), (503, "UNAVAILABLE".to_owned()));
    stage.world.is_gone.store(false, Ordering::SeqCst);
    becomes(&stage, READ, 200).await;
}

#[tokio::test]
async fn a_change_of_the_schema_that_crud_tells_of_makes_a_new_version() {
    let stage = Stage::new().await;
    let caller = crate::edge::Caller { call: mesh::Call::begin(None, None, None), token: Default::default() };
    let before = stage.service.edge().project(&caller, "shop".into()).await.expect("it is there");
    assert!(stage.service.edge().refreshed(&caller, &before).await.expect("crud answers").is_none());
    stage.world.grown.lock().unwrap().push("year");
    stage.service.mesh().bus().publish("schema.changed", "shop/music");
    let end = Instant::now() + Duration::from_secs(1);
    while stage.service.edge().project(&caller, "shop".into()).await.expect("it is there").version == before.version {
        assert!(Instant::now() < end);
        tokio::task::yield_now().await;
    }
}
