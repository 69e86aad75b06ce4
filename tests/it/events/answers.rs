//! What triggers deliver to, what they send, and what answers say: functions, templates, events that follow, responses.

use std::time::Instant;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tests::{
    client::Client,
    engine::Engine,
    mesh::{Setup, Shape, TestMesh},
    user_server::UserServer,
    webhook::{Delivery, Manner, Webhook},
};

use super::operated::eventually;

scenarios!(
    functions_are_called_with_events,
    templates_make_messages,
    events_follow_from_answers,
    a_loop_of_events_ends,
    dead_letters_are_events_too,
    callers_wait_for_responses,
);

struct Stage {
    mesh: TestMesh,
    webhook: Webhook,
    server: UserServer,
}

/// A trigger on events of the type that its id is, to the path of its name.
fn trigger(webhook: &Webhook, id: &str, more: Value) -> String {
    let mut spec = json!({
        "on": { "event": id },
        "to": { "url": webhook.url(&format!("/{id}")) },
        "retries": { "max": 3, "first": 0.05, "longest": 0.1 },
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    json!({ "kind": "trigger", "meta": { "project": "shop", "id": id }, "spec": spec }).to_string()
}

impl Stage {
    /// Everybody may queue everything.
    async fn with(shape: Shape, documents: impl Fn(&Webhook, &UserServer) -> Vec<String>) -> anyhow::Result<Self> {
        let (webhook, server) = (Webhook::start().await?, UserServer::start().await?);
        let mut all = documents(&webhook, &server);
        let open = json!({ "kind": "event", "meta": { "project": "shop", "id": "default" }, "spec": { "rule": { "rule": "allow" } } });
        all.push(open.to_string());
        let setup = Setup { resources: all.join("\n---\n"), ..Setup::default() };
        let mesh = TestMesh::with(shape, Engine::Sqlite, &setup).await?;
        Ok(Self { mesh, webhook, server })
    }

    async fn queue(&self, name: &str, payload: Value) -> anyhow::Result<()> {
        let (status, body) =
            self.mesh.client.post("eventing/queue", &json!({ "type": name, "payload": payload })).await?;
        ensure!(status == 200 && body == json!({}), "{status} {body}");
        Ok(())
    }

    async fn all_done(&self) -> anyhow::Result<rusqlite::Connection> {
        let file = self.mesh.data().join("functions/events.db");
        eventually(&file, "SELECT count(*) FROM events WHERE finished_ms IS NULL", 0).await?;
        Ok(rusqlite::Connection::open(file)?)
    }
}

fn payloads(deliveries: &[Delivery]) -> Vec<Value> {
    deliveries.iter().map(|delivery| delivery.request.body["data"].clone()).collect()
}

async fn functions_are_called_with_events(shape: Shape) -> anyhow::Result<()> {
    let stage = Stage::with(shape, |webhook, server| {
        let of = |function: &str| json!({ "service": "mail", "function": function });
        let deny = json!({ "rule": { "rule": "deny" } });
        let fail = json!({ "rule": { "rule": "allow" }, "path": "/status/500" });
        let functions = json!({ "echo": deny, "fail": fail });
        let spec = json!({ "http": { "url": server.url() }, "functions": functions });
        let missing = json!({ "to": { "service": "nobody", "function": "echo" }, "retries": 0 });
        vec![
            json!({ "kind": "service", "meta": { "project": "shop", "id": "mail" }, "spec": spec }).to_string(),
            trigger(webhook, "echo", json!({ "to": of("echo") })),
            trigger(webhook, "fail", json!({ "to": of("fail"), "retries": { "max": 2, "first": 0.05 } })),
            trigger(webhook, "missing", missing),
        ]
    })
    .await?;
    // The links between the services may be new.
    stage.queue("echo", json!({ "n": 0 })).await?;
    stage.all_done().await?;
    stage.queue("echo", json!({ "n": 1 })).await?;
    stage.queue("fail", json!({ "n": 2 })).await?;
    stage.queue("missing", json!({ "n": 3 })).await?;
    let queue = stage.all_done().await?;
    let of = |id: &str| -> anyhow::Result<(String, i64, Option<i64>)> {
        let select = "SELECT status, attempts, code FROM events WHERE trigger_id = ?1 ORDER BY seq DESC LIMIT 1";
        Ok(queue.query_row(select, [id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?)
    };
    assert_eq!(of("echo")?, ("processed".to_owned(), 1, Some(200)));
    assert_eq!(of("fail")?, ("failed".to_owned(), 3, Some(500)));
    assert_eq!(of("missing")?, ("failed".to_owned(), 1, None));
    let seen = stage.server.seen();
    let called = seen.iter().find(|seen| seen.body["data"]["n"] == 1).context("it was called")?;
    assert_eq!((&called.body["type"], &called.body["data"]), (&json!("echo"), &json!({ "n": 1 })));
    // As the node: no claims, and a token that is for the service alone.
    assert_eq!(called.headers["x-perigee-claims"], "e30");
    ensure!(called.headers.contains_key("x-perigee-timeout-ms"), "{called:?}");
    assert_eq!(seen.iter().filter(|seen| seen.path == "/status/500").count(), 3, "{seen:?}");
    stage.mesh.stop().await;
    Ok(())
}

async fn templates_make_messages(shape: Shape) -> anyhow::Result<()> {
    let stage = Stage::with(shape, |webhook, _| {
        let text = r#"{"to": {{ event.data.mail }}, "lines": [{% for line in event.data.lines %}{{ line.n }}{% if not loop.last %},{% endif %}{% endfor %}]}"#;
        vec![
            trigger(webhook, "text", json!({ "template": text })),
            trigger(webhook, "whole", json!({ "template": " " })),
            trigger(webhook, "broken", json!({ "template": "{{ event.data.mail }} x" })),
            trigger(webhook, "loops", json!({ "template": "{% for a in event.data.l %}{% for b in event.data.l %}{% for c in event.data.l %}{% endfor %}{% endfor %}{% endfor %}1" })),
        ]
    })
    .await?;
    let evil = "a\"b\n,\"admin\":true";
    stage.queue("text", json!({ "mail": evil, "lines": [{ "n": 1 }, { "n": 2.5 }] })).await?;
    stage.queue("whole", json!({ "n": 1 })).await?;
    stage.queue("broken", json!({ "mail": "a" })).await?;
    stage.queue("loops", json!({ "l": (0..500).collect::<Vec<i64>>() })).await?;
    let text = &stage.webhook.count("/text", 1).await?[0];
    assert_eq!(text.request.body, json!({ "to": evil, "lines": [1, 2.5] }));
    assert_eq!(text.request.headers["content-type"], "application/json");
    let whole = &stage.webhook.count("/whole", 1).await?[0];
    assert_eq!(whole.request.body["data"], json!({ "n": 1 }));
    assert_eq!(whole.request.headers["content-type"], "application/cloudevents+json");
    let queue = stage.all_done().await?;
    for (id, told) in [("broken", "template: it gave no valid JSON"), ("loops", "template: ")] {
        let select = "SELECT status, attempts, last FROM events WHERE trigger_id = ?1";
        let found: (String, i64, String) =
            queue.query_row(select, [id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        ensure!(found.0 == "failed" && found.1 == 1 && found.2.starts_with(told), "{id}: {found:?}");
        ensure!(stage.webhook.deliveries(&format!("/{id}")).is_empty(), "nothing was sent of {id}");
    }
    stage.mesh.stop().await;
    Ok(())
}

async fn events_follow_from_answers(shape: Shape) -> anyhow::Result<()> {
    let stage = Stage::with(shape, |webhook, _| {
        ["one", "many", "a", "b", "later", "wrong"].map(|id| trigger(webhook, id, json!({}))).to_vec()
    })
    .await?;
    stage.webhook.answers("/one", Manner::Says(200, r#"{"event":{"type":"a","payload":{"by":"one"}}}"#));
    let many = r#"{"events":[{"type":"a","payload":1},{"type":"b","Payload":2},{"type":"later","delay":1},{"type":"nobody"}]}"#;
    stage.webhook.answers("/many", Manner::Says(200, many));
    stage.webhook.answers("/wrong", Manner::Says(200, r#"{"events":[{"type":"a"},{"type":"DB_DELETE"}]}"#));
    let begun = Instant::now();
    for name in ["one", "many", "wrong"] {
        stage.queue(name, json!(0)).await?;
    }
    let a = payloads(&stage.webhook.count("/a", 2).await?);
    ensure!(a.contains(&json!({ "by": "one" })) && a.contains(&json!(1)), "{a:?}");
    assert_eq!(payloads(&stage.webhook.count("/b", 1).await?), [json!(2)]);
    let later = stage.webhook.count("/later", 1).await?;
    ensure!(later[0].at.duration_since(begun).as_millis() >= 1000, "it is early");
    let queue = stage.all_done().await?;
    let (status, last): (String, String) =
        queue.query_row("SELECT status, last FROM events WHERE trigger_id = 'wrong'", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    ensure!(status == "processed" && last.starts_with("events of the answer are left out: cannot create"), "{last}");
    assert_eq!(stage.webhook.deliveries("/a").len(), 2);
    stage.mesh.stop().await;
    Ok(())
}

async fn a_loop_of_events_ends(shape: Shape) -> anyhow::Result<()> {
    let stage =
        Stage::with(shape, |webhook, _| ["once", "twice"].map(|id| trigger(webhook, id, json!({}))).to_vec()).await?;
    stage.webhook.answers("/once", Manner::Says(200, r#"{"event":{"type":"once"}}"#));
    stage
        .webhook
        .answers("/twice", Manner::Says(200, r#"{"events":[{"type":"twice"},{"type":"twice"},{"type":"twice"}]}"#));
    stage.queue("once", json!(0)).await?;
    stage.queue("twice", json!(0)).await?;
    stage.webhook.count("/once", 1001).await?;
    let queue = stage.all_done().await?;
    let count: i64 = queue.query_row("SELECT count(*) FROM events WHERE trigger_id = 'once'", [], |row| row.get(0))?;
    assert_eq!(count, 1001, "and no more");
    let twice: i64 = queue.query_row("SELECT count(*) FROM events WHERE trigger_id = 'twice'", [], |row| row.get(0))?;
    ensure!((100..=1001).contains(&twice), "{twice}");
    let left_out =
        "SELECT count(*) FROM events WHERE status = 'processed' AND last LIKE '%more than 1000 events follow%'";
    ensure!(queue.query_row(left_out, [], |row| row.get::<_, i64>(0))? >= 1, "it is told");
    stage.mesh.stop().await;
    Ok(())
}

async fn dead_letters_are_events_too(shape: Shape) -> anyhow::Result<()> {
    let stage = Stage::with(shape, |webhook, _| {
        vec![
            trigger(webhook, "t1", json!({ "retries": 1 })),
            trigger(webhook, "t2", json!({ "retries": 0 })),
            trigger(webhook, "dead", json!({ "on": { "event": "dlq_t1" } })),
        ]
    })
    .await?;
    stage.webhook.answers("/t1", Manner::Says(500, "boom"));
    stage.webhook.answers("/t2", Manner::Says(500, "boom"));
    stage.queue("t1", json!({ "n": 1 })).await?;
    stage.queue("t2", json!({ "n": 2 })).await?;
    let dead = stage.webhook.count("/dead", 1).await?;
    let event = &dead[0].request.body;
    let first = &stage.webhook.deliveries("/t1")[0];
    assert_eq!(event["type"], "dlq_t1");
    let expected = json!({
        "event_id": first.id(), "event_type": "t1", "event_payload": { "n": 1 },
        "event_timestamp": first.request.body["time"], "event_name": "t1",
    });
    assert_eq!(event["data"], expected);
    stage.all_done().await?;
    assert_eq!(stage.webhook.deliveries("/dead").len(), 1);
    stage.mesh.stop().await;
    Ok(())
}

async fn asked(client: &Client, name: &str) -> anyhow::Result<(u16, Value)> {
    client.post("eventing/queue", &json!({ "type": name, "payload": {}, "isSynchronous": true })).await
}

async fn callers_wait_for_responses(shape: Shape) -> anyhow::Result<()> {
    let stage = Stage::with(shape, |webhook, _| {
        let mut all = ["answers", "silent", "null"].map(|id| trigger(webhook, id, json!({}))).to_vec();
        all.push(trigger(webhook, "fails", json!({ "retries": 1 })));
        all.push(trigger(webhook, "other", json!({ "on": { "event": "answers" } })));
        all
    })
    .await?;
    stage.webhook.answers("/answers", Manner::Says(200, r#"{"response":{"ok":1.50}}"#));
    stage.webhook.answers("/silent", Manner::Says(200, "{}"));
    stage.webhook.answers("/null", Manner::Says(200, r#"{"response":null}"#));
    stage.webhook.answers("/fails", Manner::Says(500, "hidden"));
    let client = &stage.mesh.client;
    assert_eq!(asked(client, "answers").await?, (200, json!({ "result": { "ok": 1.5 } })));
    for name in ["silent", "null", "unheard"] {
        assert_eq!(asked(client, name).await?, (200, json!({})), "{name}");
    }
    let (status, body) = asked(client, "fails").await?;
    ensure!(status == 502 && body["code"] == "BAD_GATEWAY" && !body.to_string().contains("hidden"), "{status} {body}");
    let list = json!({ "events": [{ "type": "answers", "isSynchronous": true }] });
    assert_eq!(client.post("eventing/queue", &list).await?.0, 400);
    let later = json!({ "type": "answers", "delay": 1, "isSynchronous": true });
    let (status, body) = client.post("eventing/queue", &later).await?;
    let text = body["error"].as_str().unwrap_or_default();
    ensure!(status == 400 && text.starts_with("invalid isSynchronous of event answers"), "{status} {body}");
    // The same request again has the same answer, and does nothing more.
    let headers = [("content-type", "application/json"), ("idempotency-key", "k")];
    let request = json!({ "type": "answers", "payload": 7, "isSynchronous": true }).to_string();
    for _ in 0..2 {
        let response =
            client.send(http::Method::POST, "/v1/api/shop/eventing/queue", &headers, request.clone()).await?;
        let body: Value = serde_json::from_slice(response.body())?;
        assert_eq!((response.status().as_u16(), body), (200, json!({ "result": { "ok": 1.5 } })));
    }
    stage.all_done().await?;
    assert_eq!(stage.webhook.deliveries("/answers").len(), 2);
    stage.mesh.stop().await;
    Ok(())
}
