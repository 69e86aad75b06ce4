//! Triggers on schedules: times are delivered, in both shapes of the mesh.

use std::time::{Duration, SystemTime};

use anyhow::Context;
use mesh::clock;
use serde_json::{Value, json};
use tests::{
    engine::Engine,
    mesh::{Setup, Shape, TestMesh},
    webhook::{Delivery, Webhook},
};

scenarios!(times_are_delivered_once_each);

/// A time in milliseconds since 1970 as documents have it.
fn written(ms: i64) -> String {
    let mut text = Vec::new();
    query::datetime::rfc3339(&mut text, ms * 1000);
    String::from_utf8_lossy(&text).into_owned()
}

fn due_ms(delivery: &Delivery) -> anyhow::Result<i64> {
    let due = delivery.request.body["data"]["due"].as_str().context("a time")?;
    Ok(query::datetime::parse_wide_timestamp(due).context("a time")? / 1000)
}

async fn times_are_delivered_once_each(shape: Shape) -> anyhow::Result<()> {
    let webhook = Webhook::start().await?;
    let at = clock::unix_ms(SystemTime::now() + Duration::from_secs(25));
    let document = |id: &str, on: Value| {
        let spec = json!({ "on": on, "to": { "url": webhook.url(&format!("/{id}")) }, "timeout": 5 });
        json!({ "kind": "trigger", "meta": { "project": "shop", "id": id }, "spec": spec }).to_string()
    };
    let seconds = document("seconds", json!({ "schedule": "* * * * * *", "timeZone": "Asia/Tokyo" }));
    let once = document("once", json!({ "at": written(at) }));
    let past = document("past", json!({ "at": "2020-01-01T00:00:00Z" }));
    let resources = [seconds, once, past].join("\n---\n");
    let _mesh = TestMesh::with(shape, Engine::Sqlite, &Setup { resources, ..Setup::default() }).await?;

    let once = webhook.count("/once", 1).await?;
    let event = &once[0].request.body;
    assert_eq!((&event["type"], &event["source"]), (&json!("SCHEDULE"), &json!("perigee:shop/once")));
    assert_eq!((&event["time"], event["id"].as_str()), (&event["data"]["due"], Some(once[0].id())));
    assert_eq!(due_ms(&once[0])?, at);
    assert!(clock::unix_ms(SystemTime::now()) >= at, "it is not early");

    let before = webhook.deliveries("/seconds").len();
    let all = webhook.count("/seconds", before + 3).await?;
    let now_ms = clock::unix_ms(SystemTime::now());
    let mut due = all.iter().map(due_ms).collect::<anyhow::Result<Vec<i64>>>()?;
    assert!(due.iter().all(|due| due % 1000 == 0 && *due <= now_ms), "{due:?}");
    let count = due.len();
    due.sort_unstable();
    due.dedup();
    assert_eq!(due.len(), count, "each time once");
    assert_eq!((webhook.deliveries("/once").len(), webhook.deliveries("/past").len()), (1, 0));
    Ok(())
}
