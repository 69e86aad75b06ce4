//! Custom events: callers queue them under rules, they are durable before the answer, and triggers get them.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{Method, Response};
use mesh::clock;
use serde_json::{Value, json};
use tests::{
    client::Client,
    engine::Engine,
    mesh::{Setup, Shape, TestMesh, ready},
    node_tool,
    process::{Process, free_address},
    token,
    webhook::{Delivery, Manner, Webhook},
};

scenarios!(
    golden_cases_of_the_queue,
    rules_and_schemas_decide_what_is_queued,
    a_request_with_a_name_is_made_once,
    lists_are_queued_together,
    events_wait_for_their_time,
    events_of_a_value_wait_for_each_other,
    the_client_of_npm_queues_events,
);

/// A mesh with events and triggers, and their webhook.
struct Stage {
    mesh: TestMesh,
    webhook: Webhook,
}

fn event(id: &str, spec: Value) -> String {
    json!({ "kind": "event", "meta": { "project": "shop", "id": id }, "spec": spec }).to_string()
}

fn open(id: &str) -> String {
    event(id, json!({ "rule": { "rule": "allow" } }))
}

/// A trigger of custom events of type `order` that delivers to the path of its name.
fn trigger(webhook: &Webhook, id: &str, more: Value) -> String {
    let mut spec = json!({
        "on": { "event": "order" },
        "to": { "url": webhook.url(&format!("/{id}")) },
        "retries": { "max": 5, "first": 0.05, "longest": 0.2 },
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    json!({ "kind": "trigger", "meta": { "project": "shop", "id": id }, "spec": spec }).to_string()
}

impl Stage {
    async fn with(shape: Shape, documents: impl Fn(&Webhook) -> Vec<String>) -> anyhow::Result<Self> {
        let webhook = Webhook::start().await?;
        let resources = documents(&webhook).join("\n---\n");
        let mesh = TestMesh::with(shape, Engine::Sqlite, &Setup { resources, ..Setup::default() }).await?;
        Ok(Self { mesh, webhook })
    }

    async fn queue(&self, body: Value) -> anyhow::Result<(u16, Value)> {
        self.mesh.client.post("eventing/queue", &body).await
    }

    /// Queues under a name.
    async fn named(&self, name: &str, body: &Value) -> anyhow::Result<(u16, Value)> {
        let headers = [("content-type", "application/json"), ("idempotency-key", name)];
        let path = "/v1/api/shop/eventing/queue";
        let response: Response<Bytes> = self.mesh.client.send(Method::POST, path, &headers, body.to_string()).await?;
        Ok((response.status().as_u16(), serde_json::from_slice(response.body())?))
    }
}

/// The payloads of what was delivered.
fn payloads(deliveries: &[Delivery]) -> Vec<Value> {
    deliveries.iter().map(|delivery| delivery.request.body["data"].clone()).collect()
}

async fn golden_cases_of_the_queue(shape: Shape) -> anyhow::Result<()> {
    let documents = |webhook: &Webhook| vec![open("order"), open("unheard"), trigger(webhook, "t1", json!({}))];
    let stage = Stage::with(shape, documents).await?;
    let plain = |name: &str| json!({ "type": name, "delay": 0, "timestamp": "", "payload": {}, "options": {}, "isSynchronous": false });
    assert_eq!(stage.queue(plain("order")).await?, (200, json!({})));
    for (name, status, code, told) in [
        ("DB_INSERT", 400, "BAD_REQUEST", "cannot create internal event (DB_INSERT) with project token"),
        ("dlq_t1", 400, "BAD_REQUEST", "cannot create internal event (dlq_t1) with project token"),
        ("SCHEDULE", 400, "BAD_REQUEST", "cannot create internal event (SCHEDULE) with project token"),
        ("unknown", 403, "DENIED", "No security rule provided for event type (unknown)"),
    ] {
        let (found, body) = stage.queue(plain(name)).await?;
        let text = body["error"].as_str().unwrap_or_default();
        ensure!((found, &body["code"]) == (status, &json!(code)) && text.starts_with(told), "{found} {body}");
    }
    // Nobody listens: nothing is kept.
    assert_eq!(stage.queue(plain("unheard")).await?, (200, json!({})));
    assert_eq!(stage.queue(json!({ "type": "order", "data": { "email": "a@b" } })).await?, (200, json!({})));
    let all = stage.webhook.count("/t1", 2).await?;
    let told = payloads(&all);
    ensure!(told.contains(&json!({})) && told.contains(&json!({ "email": "a@b" })), "{told:?}");
    let (event, headers) = (&all[0].request.body, &all[0].request.headers);
    assert_eq!((&event["specversion"], &event["type"]), (&json!("1.0"), &json!("order")));
    assert_eq!((&event["source"], event["id"].as_str()), (&json!("perigee:shop"), Some(all[0].id())));
    assert_eq!((headers["content-type"].as_str(), all[0].attempt()), ("application/cloudevents+json", 1));
    for (path, body, status) in [
        ("eventing/queue", "{", 400),
        ("eventing/queue", "[]", 400),
        ("eventing/queue", "{}", 400),
        ("eventing/queue", r#"{"type":"order","delay":-1}"#, 400),
        ("eventing/queue", r#"{"type":"order","timestamp":"soon"}"#, 400),
    ] {
        let (found, answer) = stage.mesh.client.post_bytes(path, body).await?;
        let is_told = ["BAD_REQUEST", "REQUIRED"].iter().any(|code| answer["code"] == *code);
        ensure!(found == status && is_told, "{body}: {found} {answer}");
    }
    let other = stage.mesh.client.with_project("other").post("eventing/queue", &plain("order")).await?;
    ensure!(other.0 == 404 && other.1["code"] == "UNKNOWN_PROJECT", "{other:?}");
    stage.mesh.stop().await;
    Ok(())
}

async fn rules_and_schemas_decide_what_is_queued(shape: Shape) -> anyhow::Result<()> {
    let own =
        json!({ "rule": "match", "type": "string", "eval": "==", "f1": "args.auth.role", "f2": "args.params.by" });
    let schema = json!({
        "type": "object", "required": ["by"],
        "properties": { "by": { "type": "string" }, "lines": { "type": "array", "items": { "$ref": "#/$defs/line" } } },
        "$defs": { "line": { "type": "object", "required": ["n"], "properties": { "n": { "type": "integer" } } } },
    });
    let documents = |webhook: &Webhook| {
        vec![event("order", json!({ "rule": own, "schema": schema })), trigger(webhook, "t1", json!({}))]
    };
    let stage = Stage::with(shape, documents).await?;
    let staff = stage.mesh.staff();
    let large: Vec<Value> = (0..5000).map(|n| json!({ "n": n })).collect();
    for (client, payload, status, code, told) in [
        (&staff, json!({ "by": "staff", "lines": [{ "n": 1 }] }), 200, Value::Null, ""),
        (&staff, json!({ "by": "staff", "lines": large }), 200, Value::Null, ""),
        (&staff, json!({ "by": "ann" }), 403, json!("DENIED"), "You are not authorized"),
        (&stage.mesh.client, json!({ "by": "staff" }), 401, json!("UNAUTHENTICATED"), "a token is needed"),
        (
            &staff,
            json!({ "by": "staff", "lines": [{}] }),
            400,
            json!("BAD_REQUEST"),
            "invalid payload of event order: /lines/0: \"n\" is a required property",
        ),
    ] {
        let (found, body) = client.post("eventing/queue", &json!({ "type": "order", "payload": payload })).await?;
        let text = body["error"].as_str().unwrap_or_default();
        ensure!(found == status && body["code"] == code && text.starts_with(told), "{found} {body}");
    }
    let expired = stage.mesh.client.with_token(&token::sign_with(
        json!({ "role": "staff" }),
        "another secret, of 32 bytes or so",
        60,
    ));
    let (status, _) = expired.post("eventing/queue", &json!({ "type": "order", "payload": { "by": "staff" } })).await?;
    assert_eq!(status, 401);
    assert_eq!(stage.webhook.count("/t1", 2).await?.len(), 2);
    stage.mesh.stop().await;
    Ok(())
}

async fn a_request_with_a_name_is_made_once(shape: Shape) -> anyhow::Result<()> {
    let documents = |webhook: &Webhook| {
        vec![open("order"), open("other"), trigger(webhook, "t1", json!({})), trigger(webhook, "t2", json!({}))]
    };
    let stage = Stage::with(shape, documents).await?;
    let order = json!({ "type": "order", "payload": { "n": 1 } });
    let again = futures::future::join_all((0..8).map(|_| stage.named("k 1", &order))).await;
    for answered in again {
        assert_eq!(answered?, (200, json!({})));
    }
    let (status, body) = stage.named("k 1", &json!({ "type": "order", "payload": { "n": 2 } })).await?;
    ensure!(status == 409 && body["code"] == "CONFLICT", "{status} {body}");
    // Another type has names of its own, and so has another request.
    assert_eq!(stage.named("k 1", &json!({ "type": "other", "payload": { "n": 2 } })).await?.0, 200);
    assert_eq!(stage.named("k 2", &json!({ "type": "order", "payload": { "n": 3 } })).await?.0, 200);
    // A time is what was sent, whatever the clock says a moment later.
    let soon = clock::unix_ms(SystemTime::now()) + 30_500;
    let timed = json!({ "type": "order", "payload": 1, "timestamp": soon });
    assert_eq!(stage.named("k 3", &timed).await?, (200, json!({})));
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(stage.named("k 3", &timed).await?, (200, json!({})));
    for wrong in ["k".repeat(256), String::new()] {
        let (status, body) = stage.named(&wrong, &order).await?;
        ensure!(status == 400 && body["code"] == "BAD_REQUEST", "{status} {body}");
    }
    let last = |all: &[Delivery]| payloads(all).contains(&json!({ "n": 3 }));
    for path in ["/t1", "/t2"] {
        let mut told: Vec<i64> = payloads(&stage.webhook.until(path, last).await?)
            .iter()
            .filter_map(|payload| payload["n"].as_i64())
            .collect();
        told.sort_unstable();
        assert_eq!(told, [1, 3], "{path}");
    }
    stage.mesh.stop().await;
    Ok(())
}

async fn lists_are_queued_together(shape: Shape) -> anyhow::Result<()> {
    let documents = |webhook: &Webhook| {
        let other = json!({ "on": { "event": "other" } });
        vec![open("order"), open("other"), trigger(webhook, "t1", json!({})), trigger(webhook, "t2", other)]
    };
    let stage = Stage::with(shape, documents).await?;
    let of = |names: &[&str]| -> Value {
        let all: Vec<Value> = names.iter().enumerate().map(|(n, name)| json!({ "type": name, "payload": n })).collect();
        json!({ "events": all })
    };
    for path in ["eventing/queue", "eventing/admin-queue"] {
        assert_eq!(stage.mesh.client.post(path, &of(&["order", "other", "order"])).await?, (200, json!({})));
        assert_eq!(stage.mesh.client.post(path, &of(&[])).await?, (200, json!({})));
        // One that is refused refuses all.
        for (wrong, status) in [("unknown", 403), ("DB_DELETE", 400)] {
            assert_eq!(
                stage.mesh.client.post(path, &of(&["order", "order", "order", wrong])).await?.0,
                status,
                "{wrong}"
            );
        }
    }
    let (status, body) = stage.queue(of(&["order"; 1001])).await?;
    ensure!(status == 413 && body["code"] == "TOO_LARGE", "{status} {body}");
    assert_eq!(stage.queue(of(&["order"; 1000])).await?, (200, json!({})));
    stage.webhook.count("/t2", 2).await?;
    let orders = payloads(&stage.webhook.count("/t1", 1004).await?);
    assert_eq!((orders.len(), stage.webhook.deliveries("/t2").len()), (1004, 2));
    stage.mesh.stop().await;
    Ok(())
}

async fn events_wait_for_their_time(shape: Shape) -> anyhow::Result<()> {
    let stage = Stage::with(shape, |webhook: &Webhook| vec![open("order"), trigger(webhook, "t1", json!({}))]).await?;
    let begun = Instant::now();
    let now = clock::unix_ms(SystemTime::now()) / 1000;
    for body in [
        json!({ "type": "order", "payload": "delay", "delay": 2 }),
        json!({ "type": "order", "payload": "ms", "delay": 1500, "delayUnit": "ms" }),
        json!({ "type": "order", "payload": "past", "timestamp": 1_587_902_400 }),
        // The clock of a client may be ahead.
        json!({ "type": "order", "payload": "ahead", "timestamp": now + 20 }),
        json!({ "type": "order", "payload": "far", "timestamp": now + 3600 }),
    ] {
        assert_eq!(stage.queue(body).await?, (200, json!({})));
    }
    let all = stage.webhook.count("/t1", 4).await?;
    let at = |name: &str| -> anyhow::Result<Duration> {
        let found = all.iter().find(|delivery| delivery.request.body["data"] == name).context("it came")?;
        Ok(found.at.duration_since(begun))
    };
    for (name, least) in [("delay", 2000), ("ms", 1500), ("past", 0), ("ahead", 0)] {
        let waited = at(name)?;
        ensure!(waited >= Duration::from_millis(least), "{name} is early: {waited:?}");
        ensure!(waited < Duration::from_millis(least + 8000), "{name} is late: {waited:?}");
    }
    stage.mesh.stop().await;
    Ok(())
}

async fn events_of_a_value_wait_for_each_other(shape: Shape) -> anyhow::Result<()> {
    let documents = |webhook: &Webhook| {
        let by = json!({ "ordered": "customer.id" });
        vec![open("order"), trigger(webhook, "values", by), trigger(webhook, "all", json!({ "ordered": true }))]
    };
    let stage = Stage::with(shape, documents).await?;
    stage.webhook.answers("/values", Manner::Badly);
    stage.webhook.answers("/all", Manner::Badly);
    // One that waited for its time would hold back all after it.
    let (status, body) = stage.queue(json!({ "type": "order", "payload": {}, "delay": 3600 })).await?;
    let text = body["error"].as_str().unwrap_or_default();
    ensure!(status == 400 && text.starts_with("invalid delay or timestamp of event order"), "{status} {body}");
    for n in 0..40 {
        let body = json!({ "type": "order", "payload": { "n": n, "customer": { "id": n % 3 } } });
        assert_eq!(stage.queue(body).await?.0, 200);
    }
    let done = |all: &[Delivery]| {
        let numbers: std::collections::BTreeSet<i64> =
            payloads(all).iter().filter_map(|payload| payload["n"].as_i64()).collect();
        numbers.len() == 40
    };
    for path in ["/values", "/all"] {
        let told = payloads(&stage.webhook.until(path, done).await?);
        for customer in 0..3 {
            let of = |payload: &&Value| path == "/all" || payload["customer"]["id"] == customer;
            let numbers: Vec<i64> = told.iter().filter(of).filter_map(|payload| payload["n"].as_i64()).collect();
            assert!(numbers.is_sorted(), "{path} {customer}: {numbers:?}");
        }
    }
    stage.mesh.stop().await;
    Ok(())
}

async fn the_client_of_npm_queues_events(shape: Shape) -> anyhow::Result<()> {
    let stage = Stage::with(shape, |webhook: &Webhook| vec![open("order"), trigger(webhook, "t1", json!({}))]).await?;
    let url = format!("http://{}", stage.mesh.client.address());
    let got: Value = serde_json::from_str(&node_tool::script("space_api_events.js", &[&url, "shop"]).await?)?;
    for name in ["now", "later", "dated"] {
        assert_eq!(got[name]["status"], 200, "{got}");
    }
    assert_eq!((&got["unknown"]["status"], &got["internal"]["status"]), (&json!(403), &json!(400)), "{got}");
    let mut numbers: Vec<i64> =
        payloads(&stage.webhook.count("/t1", 3).await?).iter().filter_map(|payload| payload["n"].as_i64()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3]);
    stage.mesh.stop().await;
    Ok(())
}

/// What was answered is there after a kill.
#[tokio::test(flavor = "multi_thread")]
async fn a_queued_event_outlives_its_process() -> anyhow::Result<()> {
    let (folder, webhook, address) = (tempfile::tempdir()?, Webhook::start().await?, free_address()?);
    webhook.answers("/t1", Manner::Hangs);
    let resources = folder.path().join("resources");
    std::fs::create_dir_all(&resources)?;
    let project = json!({ "kind": "project", "meta": { "id": "shop" } }).to_string();
    let documents = [project, open("order"), trigger(&webhook, "t1", json!({ "timeout": 60 }))];
    std::fs::write(resources.join("shop.yaml"), documents.join("\n---\n"))?;
    let mut node = Process::dev(folder.path(), address)?;
    let client = Client::new(address, "shop");
    ready(&client).await?;
    for n in 0..50 {
        let (status, body) = client.post("eventing/queue", &json!({ "type": "order", "payload": n })).await?;
        ensure!(status == 200, "{status} {body} {}", node.log());
    }
    node.kill()?;
    webhook.answers("/t1", Manner::Says(200, ""));
    node.restart()?;
    let done = |all: &[Delivery]| {
        let numbers: std::collections::BTreeSet<i64> = payloads(all).iter().filter_map(Value::as_i64).collect();
        numbers.len() == 50
    };
    webhook.until("/t1", done).await.with_context(|| node.log())?;
    Ok(())
}
