//! Events of triggers: what is delivered, how often, and that nothing is lost, in both shapes of the mesh.

mod answers;
mod custom;
mod documented;
mod kills;
mod operated;
mod schedules;
mod shared;

use anyhow::{Context, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tests::{
    engine::{Database, Engine},
    mesh::{ENGINES, Setup, Shape, TestMesh},
    node_tool,
    webhook::{Delivery, Manner, Webhook},
};

scenarios!(
    changes_are_delivered_as_cloud_events,
    conditions_choose_changes,
    messages_are_signed_with_all_secrets,
    bad_answers_are_tried_again,
    events_of_a_row_wait_for_each_other,
    a_hanging_endpoint_holds_up_nobody_else,
    an_endpoint_that_fails_is_paused,
    edited_triggers_are_in_force,
    an_event_is_counted,
);

const TABLES: &str = "CREATE TABLE note (id BIGINT PRIMARY KEY, body TEXT, n BIGINT, state TEXT);
    CREATE TABLE pair (a BIGINT, b BIGINT, c TEXT, PRIMARY KEY (a, b));";

/// A mesh, a webhook, and a database that others write.
struct Stage {
    mesh: TestMesh,
    webhook: Webhook,
    lab: Database,
}

/// The document of a trigger on `note` that delivers to the path of its name.
fn trigger(webhook: &Webhook, id: &str, more: Value) -> String {
    let mut spec = json!({
        "on": { "database": "lab", "table": "note" },
        "to": { "url": webhook.url(&format!("/{id}")) },
        "retries": { "max": 5, "first": 0.05, "longest": 0.2 },
        "timeout": 0.5,
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        match (&mut spec[key], value) {
            (Value::Object(members), Value::Object(more)) => members.extend(more.clone()),
            (member, value) => *member = value.clone(),
        }
    }
    // JSON is YAML.
    json!({ "kind": "trigger", "meta": { "project": "shop", "id": id }, "spec": spec }).to_string()
}

impl Stage {
    /// With these triggers, in force and their tables followed.
    async fn with(shape: Shape, engine: Engine, triggers: &[(&str, Value)]) -> anyhow::Result<Self> {
        let webhook = Webhook::start().await?;
        let documents = documents(&webhook, triggers);
        let setup = Setup { lab: Some(TABLES.to_owned()), resources: documents, ..Setup::default() };
        let mesh = TestMesh::with(shape, engine, &setup).await?;
        let lab = mesh.lab.clone().context("a lab")?;
        let stage = Self { mesh, webhook, lab };
        stage.begun().await?;
        Ok(stage)
    }

    /// Waits until changes of `note` are taken: a row of its own is told.
    async fn begun(&self) -> anyhow::Result<()> {
        for id in 1.. {
            self.lab.run(&format!("INSERT INTO note (id, body, n, state) VALUES (-{id}, 'begun', 0, 'begun')")).await?;
            let begun = self.webhook.until("/begun", |told| !told.is_empty());
            if tokio::time::timeout(std::time::Duration::from_millis(500), begun).await.is_ok() {
                return Ok(());
            }
            ensure!(id < 60, "changes are not taken");
        }
        Ok(())
    }
}

/// The documents of triggers, and of one that tells the beginning.
fn documents(webhook: &Webhook, triggers: &[(&str, Value)]) -> String {
    let begun = [("begun", json!({ "on": { "where": { "body": "begun" } } }))];
    let all = begun.iter().chain(triggers);
    all.map(|(id, more)| trigger(webhook, id, more.clone())).collect::<Vec<_>>().join("\n---\n")
}

/// What is told of the rows of a test: those of the beginning are left out.
fn told(deliveries: &[Delivery]) -> Vec<(String, Value)> {
    let is_own = |event: &&Value| event["data"]["find"]["id"].as_i64().is_none_or(|id| id > 0);
    let event = |event: &Value| (event["type"].as_str().unwrap_or_default().to_owned(), event["data"].clone());
    deliveries.iter().map(|delivery| &delivery.request.body).filter(is_own).map(event).collect()
}

fn own(deliveries: &[Delivery]) -> usize {
    told(deliveries).len()
}

async fn changes_are_delivered_as_cloud_events(shape: Shape) -> anyhow::Result<()> {
    for engine in ENGINES {
        let pair = json!({ "on": { "table": "pair" } });
        let stage = Stage::with(shape, engine, &[("all", json!({})), ("pairs", pair)]).await?;
        let lab = &stage.lab;
        lab.run("INSERT INTO note (id, body, n, state) VALUES (1, 'a \"q\"', 9007199254740993, NULL)").await?;
        lab.run("UPDATE note SET body = 'b' WHERE id = 1").await?;
        lab.run("DELETE FROM note WHERE id = 1").await?;
        let deliveries = stage.webhook.until("/all", |all| own(all) >= 3).await?;
        let (first, second) = (
            json!({ "id": 1, "body": "a \"q\"", "n": 9007199254740993_i64, "state": null }),
            json!({ "id": 1, "body": "b", "n": 9007199254740993_i64, "state": null }),
        );
        let of = |more: Value| {
            let mut data = json!({ "db": "lab", "col": "note", "find": { "id": 1 }, "docId": "1" });
            data.as_object_mut()
                .into_iter()
                .for_each(|data| data.extend(more.as_object().cloned().unwrap_or_default()));
            data
        };
        let expected = [
            ("DB_INSERT", of(json!({ "doc": first }))),
            ("DB_UPDATE", of(json!({ "doc": second, "before": first }))),
            ("DB_DELETE", of(json!({ "before": second }))),
        ];
        let mut found = told(&deliveries);
        found.sort_by_key(|(kind, _)| expected.iter().position(|(known, _)| known == kind));
        assert_eq!(found, expected.map(|(kind, data)| (kind.to_owned(), data)), "{engine:?}");

        let delivery =
            deliveries.iter().find(|delivery| delivery.request.body["type"] == "DB_UPDATE").context("one")?;
        let (event, headers) = (&delivery.request.body, &delivery.request.headers);
        assert_eq!((&event["specversion"], &event["source"]), (&json!("1.0"), &json!("perigee:shop/lab/note")));
        assert_eq!((&event["subject"], event["id"].as_str()), (&json!("1"), Some(delivery.id())));
        assert_eq!(headers["content-type"], "application/cloudevents+json");
        assert_eq!((delivery.request.method.as_str(), delivery.attempt()), ("POST", 1));
        assert!(!headers.contains_key("webhook-signature") && !headers.contains_key("authorization"), "{headers:?}");
        let mut ids: Vec<&str> = deliveries.iter().map(Delivery::id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), deliveries.len(), "each event has its own id");

        stage.until_pairs().await?;
        stage.mesh.stop().await;
    }
    Ok(())
}

impl Stage {
    /// Rows with a key of two columns are told, once their table is followed.
    async fn until_pairs(&self) -> anyhow::Result<()> {
        for b in 1.. {
            self.lab.run(&format!("INSERT INTO pair (a, b, c) VALUES (1, {b}, 'x')")).await?;
            let first = self.webhook.count("/pairs", 1);
            let Ok(first) = tokio::time::timeout(std::time::Duration::from_millis(500), first).await else {
                ensure!(b < 60, "changes are not taken");
                continue;
            };
            let data = &first?[0].request.body["data"];
            let b = data["find"]["b"].as_i64().context("a key")?;
            assert_eq!((&data["find"], &data["docId"]), (&json!({ "a": 1, "b": b }), &json!(format!("[1,{b}]"))));
            break;
        }
        Ok(())
    }
}

async fn conditions_choose_changes(shape: Shape) -> anyhow::Result<()> {
    // MariaDB does not log an update that changes nothing.
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let paid = json!({ "on": { "where": { "state": "paid" }, "before": { "state": { "$ne": "paid" } } } });
        let large = json!({ "on": { "operations": ["insert"], "where": { "n": { "$gte": 10 } } } });
        let bodies = json!({ "on": { "operations": ["update"], "columns": ["body"] } });
        let gone = json!({ "on": { "operations": ["delete"], "before": { "n": { "$in": [1, 2] } } } });
        let left_out = json!({ "on": { "where": { "nothing": 1 } } });
        let triggers = [
            ("paid", paid),
            ("large", large),
            ("bodies", bodies),
            ("gone", gone),
            ("wrong", left_out),
            ("all", json!({})),
        ];
        let stage = Stage::with(shape, engine, &triggers).await?;
        stage
            .lab
            .run(
                "INSERT INTO note (id, body, n, state) VALUES (1, 'a', 1, 'open'), (2, 'b', 10, 'paid'), (3, 'c', 3, NULL);
                 UPDATE note SET state = 'paid' WHERE id < 4 AND id > 0; UPDATE note SET body = 'd' WHERE id = 3;
                 UPDATE note SET body = body WHERE id = 1; DELETE FROM note WHERE id > 0",
            )
            .await?;
        // All changes of the table are told in order: after these, nothing more is told of them.
        stage.webhook.until("/all", |all| own(all) >= 11).await?;
        let keys = |path: &str| {
            let mut keys: Vec<i64> = told(&stage.webhook.deliveries(path))
                .iter()
                .filter_map(|(_, data)| data["find"]["id"].as_i64())
                .collect();
            keys.sort_unstable();
            keys
        };
        for path in ["/paid", "/large", "/bodies", "/gone"] {
            stage.webhook.count(path, 1).await?;
        }
        // What was null before was not known to be another.
        assert_eq!(keys("/paid"), [1], "{engine:?}");
        assert_eq!(keys("/large"), [2], "{engine:?}");
        assert_eq!(keys("/bodies"), [3], "{engine:?}");
        assert_eq!(keys("/gone"), [1], "{engine:?}");
        assert_eq!(keys("/wrong"), [0_i64; 0], "{engine:?}");
        if shape == Shape::OneProcess {
            let (status, ready) = stage.mesh.client.get("/ready").await?;
            let why = &ready["parts"]["service functions"]["left_out"]["trigger shop/wrong"];
            assert!(status == 200 && why.as_str().is_some_and(|why| why.contains("nothing")), "{ready}");
        }
        stage.mesh.stop().await;
    }
    Ok(())
}

async fn messages_are_signed_with_all_secrets(shape: Shape) -> anyhow::Result<()> {
    let secrets = [STANDARD.encode([7; 24]), STANDARD.encode([8; 64])].map(|secret| format!("whsec_{secret}"));
    let stage = Stage::with(shape, Engine::Sqlite, &[("signed", json!({ "to": { "secret": secrets } }))]).await?;
    let delivery = stage.webhook.count("/signed", 1).await?.remove(0);
    // What was signed is the text that was sent.
    let body = delivery.request.text.clone();
    let message = json!({ "headers": delivery.request.headers, "body": body }).to_string();
    let printed = node_tool::script("webhooks.js", &[&message, &secrets[0], &secrets[1]]).await?;
    assert_eq!(printed.trim(), "DB_INSERT\nDB_INSERT");
    let wrong = format!("whsec_{}", STANDARD.encode([9; 24]));
    assert!(node_tool::script("webhooks.js", &[&message, &wrong]).await.is_err(), "another secret");
    Ok(())
}

async fn bad_answers_are_tried_again(shape: Shape) -> anyhow::Result<()> {
    let few = json!({ "retries": { "max": 2, "first": 0.05, "longest": 0.1 } });
    let once = json!({ "retries": 0 });
    let names = ["fails", "refuses", "redirects", "hangs", "closes", "cuts"];
    let mut triggers: Vec<(&str, Value)> = names.iter().map(|name| (*name, few.clone())).collect();
    triggers.extend([("once", once), ("gone", json!({})), ("later", few.clone()), ("accepted", few)]);
    let stage = Stage::with(shape, Engine::Sqlite, &triggers).await?;
    for (path, manner) in [
        ("/fails", Manner::Says(500, "boom")),
        ("/refuses", Manner::Says(200, r#"{"ack": false}"#)),
        ("/redirects", Manner::Elsewhere),
        ("/hangs", Manner::Hangs),
        ("/closes", Manner::Closes),
        ("/cuts", Manner::Cuts),
        ("/once", Manner::Says(404, "")),
        ("/gone", Manner::Says(410, "")),
        ("/later", Manner::Later),
        ("/accepted", Manner::Says(299, "<html>")),
    ] {
        stage.webhook.answers(path, manner);
    }
    stage.lab.run("INSERT INTO note (id) VALUES (1)").await?;
    let of_row = |path: &str| {
        let mut all = stage.webhook.deliveries(path);
        all.retain(|delivery| delivery.request.body["data"]["find"]["id"] == 1);
        all
    };
    for name in names {
        let path = format!("/{name}");
        stage.webhook.until(&path, |all| own(all) >= 3).await?;
        let attempts: Vec<(String, u32)> =
            of_row(&path).iter().map(|delivery| (delivery.id().to_owned(), delivery.attempt())).collect();
        let id = attempts[0].0.clone();
        assert_eq!(attempts, [1, 2, 3].map(|attempt| (id.clone(), attempt)), "{name}");
    }
    let later = stage.webhook.until("/later", |all| own(all) >= 2).await?;
    let later: Vec<&Delivery> = later.iter().filter(|delivery| own(std::slice::from_ref(*delivery)) == 1).collect();
    let waited = later[1].at - later[0].at;
    assert!(waited.as_millis() >= 990, "the endpoint asked for a second: {waited:?}");
    for path in ["/once", "/gone", "/accepted"] {
        stage.webhook.until(path, |all| own(all) >= 1).await?;
        assert_eq!(of_row(path).len(), 1, "{path}");
    }
    assert!(stage.webhook.deliveries("/elsewhere").is_empty(), "redirects are not followed");
    let failed = stage.queue(&format!("{OF_ROW_ONE} AND status = 'failed'")).await?;
    let expected = ["closes", "cuts", "fails", "gone", "hangs", "later", "once", "redirects", "refuses"];
    assert_eq!(failed, expected, "dead letters");
    assert_eq!(
        stage.queue(&format!("{OF_ROW_ONE} AND status = 'processed' AND trigger_id = 'accepted'")).await?,
        ["accepted"]
    );
    Ok(())
}

const OF_ROW_ONE: &str = "json_extract(CAST(body AS TEXT), '$.data.find.id') = 1";

impl Stage {
    /// The triggers of the events in the queue that have become as a condition says, once all of them are finished.
    async fn queue(&self, condition: &str) -> anyhow::Result<Vec<String>> {
        let file = self.mesh.data().join("functions/events.db");
        operated::eventually(&file, "SELECT count(*) FROM events WHERE finished_ms IS NULL", 0).await?;
        let queue = rusqlite::Connection::open(file)?;
        let mut rows =
            queue.prepare(&format!("SELECT trigger_id FROM events WHERE {condition} ORDER BY trigger_id"))?;
        Ok(rows.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
    }
}

async fn events_of_a_row_wait_for_each_other(shape: Shape) -> anyhow::Result<()> {
    let triggers = [("rows", json!({ "ordered": true })), ("states", json!({ "ordered": "doc.state" }))];
    let stage = Stage::with(shape, Engine::Sqlite, &triggers).await?;
    stage.webhook.answers("/rows", Manner::Badly);
    stage.webhook.answers("/states", Manner::Badly);
    for n in 1..=20 {
        let script = match n {
            1 => "INSERT INTO note (id, n, state) VALUES (1, 1, 'a'), (2, 1, 'b'), (3, 1, 'a')".to_owned(),
            n => format!("UPDATE note SET n = {n} WHERE id > 0"),
        };
        stage.lab.run(&script).await?;
    }
    for path in ["/rows", "/states"] {
        let is_done = |all: &[Delivery]| {
            let last = |id: i64| told(all).iter().any(|(_, data)| data["doc"]["id"] == id && data["doc"]["n"] == 20);
            (1..=3).all(last)
        };
        let all = stage.webhook.until(path, is_done).await?;
        let key = if path == "/rows" { "id" } else { "state" };
        for value in [json!(1), json!(2), json!(3), json!("a"), json!("b")] {
            let of_key: Vec<i64> = told(&all)
                .iter()
                .filter(|(_, data)| data["doc"][key] == value)
                .filter_map(|(_, data)| data["doc"]["n"].as_i64())
                .collect();
            assert!(of_key.is_sorted(), "{path} {value}: {of_key:?}");
        }
    }
    Ok(())
}

async fn a_hanging_endpoint_holds_up_nobody_else(shape: Shape) -> anyhow::Result<()> {
    let slow = json!({ "timeout": 60 });
    let stage = Stage::with(shape, Engine::Sqlite, &[("slow", slow), ("fast", json!({}))]).await?;
    stage.webhook.answers("/slow", Manner::Hangs);
    let rows: Vec<String> = (1..=200).map(|id| format!("({id})")).collect();
    stage.lab.run(&format!("INSERT INTO note (id) VALUES {}", rows.join(","))).await?;
    stage.webhook.until("/fast", |all| own(all) >= 200).await?;
    let slow = own(&stage.webhook.deliveries("/slow"));
    assert!((1..=32).contains(&slow), "deliveries of one trigger at once: {slow}");
    assert!(stage.webhook.most_at_once() <= 96, "{}", stage.webhook.most_at_once());
    Ok(())
}

async fn an_endpoint_that_fails_is_paused(shape: Shape) -> anyhow::Result<()> {
    let stage = Stage::with(shape, Engine::Sqlite, &[("down", json!({ "retries": 100 }))]).await?;
    stage.webhook.answers("/down", Manner::Says(500, "out of order"));
    let rows: Vec<String> = (1..=40).map(|id| format!("({id})")).collect();
    stage.lab.run(&format!("INSERT INTO note (id) VALUES {}", rows.join(","))).await?;
    stage.webhook.until("/down", |all| own(all) >= 10).await?;
    if shape == Shape::OneProcess {
        let part = "endpoint of trigger shop/down";
        let until = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
        loop {
            let (status, ready) = stage.mesh.client.get("/ready").await?;
            let why = ready["parts"]["service functions"]["left_out"][part].as_str().unwrap_or_default();
            if why == "paused after failures in a row, the last with status 500" {
                ensure!(status == 200, "{ready}");
                break;
            }
            ensure!(tokio::time::Instant::now() < until, "{ready}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
    stage.webhook.answers("/down", Manner::Says(200, ""));
    // It is probed, and the rest follows.
    let delivered = stage.queue("status = 'processed' AND trigger_id = 'down'").await?.len();
    assert!(delivered >= 40, "{delivered}");
    Ok(())
}

async fn edited_triggers_are_in_force(shape: Shape) -> anyhow::Result<()> {
    let stage = Stage::with(shape, Engine::Sqlite, &[("old", json!({}))]).await?;
    stage.webhook.answers("/old", Manner::Says(500, ""));
    stage.lab.run("INSERT INTO note (id) VALUES (1)").await?;
    stage.webhook.until("/old", |all| own(all) >= 1).await?;
    let long = json!({ "retries": { "max": 100, "first": "1h" } });
    stage.mesh.edit(&documents(&stage.webhook, &[("old", long), ("new", json!({}))]))?;
    for id in 2.. {
        stage.lab.run(&format!("INSERT INTO note (id) VALUES ({id})")).await?;
        let new = stage.webhook.until("/new", |all| own(all) >= 1);
        if tokio::time::timeout(std::time::Duration::from_millis(500), new).await.is_ok() {
            break;
        }
        ensure!(id < 60, "the edit is not in force");
    }
    let firsts = stage.webhook.deliveries("/new");
    assert!(
        firsts.iter().all(|delivery| delivery.request.body["data"]["find"]["id"] != 1),
        "it begins where it is accepted"
    );
    stage.mesh.edit(&documents(&stage.webhook, &[]))?;
    let failed = stage.queue("status = 'failed' AND last = 'trigger not found'").await?;
    assert!(failed.iter().any(|trigger| trigger == "old"), "{failed:?}");
    Ok(())
}

async fn an_event_is_counted(shape: Shape) -> anyhow::Result<()> {
    let stage = Stage::with(shape, Engine::Sqlite, &[("fails", json!({ "retries": 0 }))]).await?;
    stage.webhook.answers("/fails", Manner::Says(500, ""));
    stage.lab.run("INSERT INTO note (id) VALUES (1)").await?;
    stage.webhook.until("/fails", |all| own(all) >= 1).await?;
    stage.queue("TRUE").await?;
    let metrics = stage.mesh.metrics().await?;
    for line in [
        "perigee_event_deliveries_total{outcome=\"dead\"}",
        "perigee_event_deliveries_total{outcome=\"delivered\"}",
        "perigee_events_queued_total",
    ] {
        let counted =
            metrics.lines().filter_map(|metric| metric.strip_prefix(line)?.trim().parse::<u64>().ok()).sum::<u64>();
        assert!(counted >= 1, "{line}");
    }
    Ok(())
}
