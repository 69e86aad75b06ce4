//! Workers that dial in over gRPC.

use anyhow::{Context, ensure};
use futures::{StreamExt, stream::FuturesUnordered};
use proto::api::v1::{Drain, GatewayMessage, WorkerMessage, gateway_message::Message, worker_message};
use serde_json::{Value, json};
use tests::{
    client::{Client, reason},
    engine::Engine,
    mesh::{Setup, Shape, TestMesh},
    token,
    worker::Worker,
};

use super::{Answer, allowed, call};

scenarios!(
    a_worker_takes_calls_and_answers,
    answers_are_as_large_as_they_may_be,
    strangers_do_not_register,
    the_least_busy_worker_is_called,
    a_worker_that_goes_fails_its_calls,
    a_worker_is_told_that_nobody_waits,
    a_worker_that_drains_ends_what_it_runs,
    calls_wait_for_room_and_are_refused,
    a_worker_is_found_by_every_node,
    a_call_that_is_malformed_or_foreign_is_no_answer,
    a_worker_that_may_not_be_one_any_more_is_told_so,
    a_node_that_stops_drains_its_workers,
);

/// A mesh with workers of service `mail`, which staff registers.
async fn stage(shape: Shape, functions: Value) -> anyhow::Result<TestMesh> {
    TestMesh::with(shape, Engine::Sqlite, &setup(functions)).await
}

fn setup(functions: Value) -> Setup {
    let register = json!({ "rule": "match", "type": "string", "eval": "==", "f1": "args.auth.role", "f2": "staff" });
    let spec = json!({ "worker": { "register": register }, "functions": functions });
    let resources = json!({ "kind": "service", "meta": { "project": "shop", "id": "mail" }, "spec": spec }).to_string();
    Setup { resources, ..Setup::default() }
}

async fn worker(mesh: &TestMesh, capacity: u32) -> anyhow::Result<Worker> {
    Ok(Worker::register(&mesh.staff(), "mail", &[], capacity).await??)
}

async fn send(client: &Client, body: Value) -> anyhow::Result<Answer> {
    call(client, "services/mail/send", body).await
}

async fn a_worker_takes_calls_and_answers(shape: Shape) -> anyhow::Result<()> {
    let mesh = stage(shape, json!({ "send": allowed(json!({})), "other": allowed(json!({ "maxAnswer": 5 })) })).await?;
    let nobody = send(&mesh.client, json!({})).await?;
    assert_eq!((nobody.status, &nobody.json()?["code"]), (503, &json!("UNAVAILABLE")));
    let mut worker = worker(&mesh, 10).await?;

    let ann = mesh.client.with_token(&token::sign(json!({ "id": "ann" })));
    let answered = async {
        let called = worker.call().await?;
        assert_eq!((called.function.as_str(), &called.params[..]), ("send", &br#"{"a":[1.50]}"#[..]));
        assert_eq!(serde_json::from_slice::<Value>(&called.auth)?["id"], "ann");
        let left = called.timeout.context("a time")?;
        ensure!(left.seconds < 3, "{left:?}");
        worker.answer(&called.id, &json!({ "sum": 3 })).await
    };
    let sent = json!({ "params": { "a": [1.50] }, "timeout": 3 });
    let raw = r#"{"params": {"a": [1.50]}, "timeout": 3}"#;
    let (bare, answered) = futures::join!(
        ann.send(http::Method::POST, "/v1/api/shop/services/mail/send", &[("content-type", "application/json")], raw),
        answered
    );
    answered?;
    let bare = bare?;
    assert_eq!((bare.status().as_u16(), &bare.body()[..]), (200, &br#"{"sum":3}"#[..]));

    for (result, error, path, expected) in [
        ("[1]", "", "functions/mail/send", (200, json!({ "result": [1] }))),
        ("", "", "services/mail/send", (200, json!(null))),
        ("", "boom", "services/mail/send", (500, json!({ "error": "boom" }))),
    ] {
        let answered = async {
            let called = worker.call().await?;
            worker.answer_raw("another call", "1", "").await?;
            worker.answer_raw(&called.id, result, error).await
        };
        let (got, answered) = futures::join!(call(&mesh.client, path, sent.clone()), answered);
        answered?;
        let got = got?;
        assert_eq!((got.status, got.json()?), expected);
    }
    for (function, result, expected) in [("send", "{", (502, "BAD_GATEWAY")), ("other", "\"long\"", (413, "TOO_LARGE"))]
    {
        let answered = async {
            let called = worker.call().await?;
            worker.answer_raw(&called.id, result, "").await
        };
        let path = format!("services/mail/{function}");
        let (got, answered) = futures::join!(call(&mesh.client, &path, json!({})), answered);
        answered?;
        let got = got?;
        assert_eq!((got.status, got.json()?["code"].as_str().unwrap_or_default()), expected);
    }
    Ok(())
}

async fn answers_are_as_large_as_they_may_be(shape: Shape) -> anyhow::Result<()> {
    let mesh = stage(shape, json!({ "send": allowed(json!({ "timeout": "60s" })) })).await?;
    let mut worker = worker(&mesh, 10).await?;
    for (more, expected) in [(0, 200), (1, 413)] {
        let result = format!("\"{}\"", "x".repeat((8 << 20) - 2 + more));
        let answered = async {
            let called = worker.call().await?;
            worker.answer_raw(&called.id, &result, "").await
        };
        let (got, answered) = futures::join!(send(&mesh.client, json!({ "timeout": 60 })), answered);
        answered?;
        let got = got?;
        ensure!(got.status == expected, "{more}: {}", got.status);
        ensure!(expected != 200 || got.body == result, "{}", got.body.len());
    }
    Ok(())
}

async fn strangers_do_not_register(shape: Shape) -> anyhow::Result<()> {
    let mesh = stage(shape, json!({ "send": allowed(json!({})) })).await?;
    for (client, service, code) in [
        (mesh.client.clone(), "mail", "UNAUTHENTICATED"),
        (mesh.customer(1), "mail", "DENIED"),
        (mesh.staff(), "other", "DENIED"),
        (mesh.staff(), "", "REQUIRED"),
    ] {
        let Err(refused) = Worker::register(&client, service, &[], 1).await? else { anyhow::bail!("{service}") };
        assert_eq!(reason(&refused)?, code, "{service}");
    }
    let Err(refused) = Worker::register(&mesh.staff(), "mail", &[], 1001).await? else { anyhow::bail!("capacity") };
    assert_eq!(reason(&refused)?, "BAD_REQUEST");
    let long = "n".repeat(129);
    for (service, functions) in [(&*long, &[][..]), ("mail", &[&*long][..])] {
        let Err(refused) = Worker::register(&mesh.staff(), service, functions, 1).await? else {
            anyhow::bail!("names")
        };
        assert_eq!(reason(&refused)?, "BAD_REQUEST");
    }
    assert_eq!(send(&mesh.client, json!({})).await?.status, 503, "nobody is registered");
    Ok(())
}

async fn the_least_busy_worker_is_called(shape: Shape) -> anyhow::Result<()> {
    let mesh = stage(shape, json!({ "send": allowed(json!({ "timeout": "60s" })), "one": allowed(json!({})) })).await?;
    let (mut one, mut two) = (worker(&mesh, 10).await?, worker(&mesh, 10).await?);
    let calls = futures::future::join_all((0..6).map(|_| send(&mesh.client, json!({}))));
    let answered = async {
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push((one.call().await?.id, two.call().await?.id));
        }
        for (first, second) in &held {
            // An answer counts of the worker that has the call alone.
            two.answer(first, &json!("forged")).await?;
            one.answer(first, &json!("one")).await?;
            two.answer(second, &json!("two")).await?;
        }
        anyhow::Ok(())
    };
    let (calls, answered) = futures::join!(calls, answered);
    answered?;
    let mut found = Vec::new();
    for answer in calls {
        found.push(answer?.json()?);
    }
    found.sort_by_key(Value::to_string);
    assert_eq!(found, [json!("one"), json!("one"), json!("one"), json!("two"), json!("two"), json!("two")]);

    // One that has the function only is called for it.
    let mut only = Worker::register(&mesh.staff(), "mail", &["one"], 1).await??;
    drop((one, two));
    let until = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while send(&mesh.client, json!({ "timeout": 0.05 })).await?.status != 503 {
        ensure!(tokio::time::Instant::now() < until, "the others are gone");
    }
    let answered = async {
        let called = only.call().await?;
        only.answer(&called.id, &json!("only")).await
    };
    let (got, answered) = futures::join!(call(&mesh.client, "services/mail/one", json!({})), answered);
    answered?;
    assert_eq!(got?.json()?, "only");
    Ok(())
}

async fn a_worker_that_goes_fails_its_calls(shape: Shape) -> anyhow::Result<()> {
    let mesh = stage(shape, json!({ "send": allowed(json!({ "timeout": "300s" })) })).await?;
    let mut worker = worker(&mesh, 10).await?;
    let goes = async {
        worker.call().await?;
        drop(worker);
        anyhow::Ok(())
    };
    let (failed, goes) = futures::join!(send(&mesh.client, json!({})), goes);
    goes?;
    let failed = failed?;
    let told = failed.json()?;
    assert_eq!(
        (failed.status, &told["code"], &told["error"]),
        (503, &json!("UNAVAILABLE"), &json!("service disconnected"))
    );
    assert_eq!(send(&mesh.client, json!({})).await?.status, 503, "at once");
    Ok(())
}

async fn a_worker_is_told_that_nobody_waits(shape: Shape) -> anyhow::Result<()> {
    let mesh = stage(shape, json!({ "send": allowed(json!({ "timeout": "300s" })) })).await?;
    let mut worker = worker(&mesh, 1).await?;
    // Its time is over.
    let cancelled = async {
        let called = worker.call().await?;
        let told = worker.next().await?;
        ensure!(matches!(&told, Some(Message::Cancel(cancel)) if cancel.id == called.id), "{told:?}");
        anyhow::Ok(called.id)
    };
    let (late, cancelled) = futures::join!(send(&mesh.client, json!({ "timeout": 0.05 })), cancelled);
    assert_eq!(late?.status, 504);
    // An answer that comes late is nobody's, and there is room again.
    worker.answer(&cancelled?, &json!(1)).await?;
    // Its caller leaves.
    let called = tokio::select! {
        answered = send(&mesh.client, json!({})) => anyhow::bail!("{answered:?}"),
        called = worker.call() => called?,
    };
    let told = worker.next().await?;
    ensure!(matches!(&told, Some(Message::Cancel(cancel)) if cancel.id == called.id), "{told:?}");
    Ok(())
}

async fn a_worker_that_drains_ends_what_it_runs(shape: Shape) -> anyhow::Result<()> {
    let mesh = stage(shape, json!({ "send": allowed(json!({ "timeout": "60s" })) })).await?;
    let mut worker = worker(&mesh, 10).await?;
    let drains = async {
        let called = worker.call().await?;
        worker.drain().await?;
        let until = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
        // It gets no more.
        while send(&mesh.client, json!({ "timeout": 0.05 })).await?.status != 503 {
            ensure!(tokio::time::Instant::now() < until, "it drains");
        }
        worker.answer(&called.id, &json!("done")).await?;
        let mut is_told = false;
        while let Some(message) = worker.next().await? {
            is_told |= matches!(message, Message::Drain(_));
        }
        ensure!(is_told, "no more calls come");
        anyhow::Ok(())
    };
    let (answered, drains) = futures::join!(send(&mesh.client, json!({})), drains);
    drains?;
    assert_eq!(answered?.json()?, "done");
    Ok(())
}

async fn calls_wait_for_room_and_are_refused(shape: Shape) -> anyhow::Result<()> {
    let mesh = stage(shape, json!({ "send": allowed(json!({ "timeout": "60s", "queue": 2 })) })).await?;
    let mut worker = worker(&mesh, 1).await?;
    let mut calls: FuturesUnordered<_> = (0..40).map(|_| send(&mesh.client, json!({}))).collect();
    // One runs, two wait: all others are refused while it runs.
    for _ in 0..37 {
        let refused = calls.next().await.context("a call")??;
        assert_eq!((refused.status, &refused.json()?["code"]), (429, &json!("TOO_MANY")));
    }
    for n in 0..3 {
        let answers = async {
            let called = worker.call().await?;
            worker.answer(&called.id, &json!(n)).await
        };
        let (answered, answers) = futures::join!(calls.next(), answers);
        answers?;
        assert_eq!(answered.context("a call")??.json()?, json!(n));
    }
    drop(calls);
    mesh.stop().await;
    Ok(())
}

/// Whichever node of several a call reaches, the worker is there, and runs no more calls at once than it said.
async fn a_worker_is_found_by_every_node(shape: Shape) -> anyhow::Result<()> {
    let setup = Setup { more_functions: 2, ..setup(json!({ "send": allowed(json!({ "timeout": "60s" })) })) };
    let mesh = TestMesh::with(shape, Engine::Sqlite, &setup).await?;
    let mut one = worker(&mesh, 1).await?;
    let nodes = if shape == Shape::Split { 3 } else { 1 };
    let until = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while count(&mesh.metrics().await?, "perigee_function_workers") != nodes {
        ensure!(tokio::time::Instant::now() < until, "it is registered at every node");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let calls = futures::future::join_all((0..9).map(|_| send(&mesh.client, json!({}))));
    let answers = async {
        for n in 0..9 {
            let called = one.call().await?;
            // Nothing else comes before it has answered.
            let next = tokio::time::timeout(std::time::Duration::from_millis(30), one.next()).await;
            ensure!(next.is_err(), "one at once: {next:?}");
            one.answer(&called.id, &json!(n)).await?;
        }
        anyhow::Ok(())
    };
    let (calls, answers) = futures::join!(calls, answers);
    answers?;
    let mut found = Vec::new();
    for answer in calls {
        found.push(answer?.json()?.as_i64().context("a number")?);
    }
    found.sort_unstable();
    assert_eq!(found, (0..9).collect::<Vec<_>>());
    mesh.stop().await;
    Ok(())
}

/// The sum of a metric of all nodes.
fn count(metrics: &str, name: &str) -> i64 {
    let values = metrics.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse::<i64>().ok());
    values.sum()
}

async fn a_call_that_is_malformed_or_foreign_is_no_answer(shape: Shape) -> anyhow::Result<()> {
    let mesh = stage(shape, json!({ "send": allowed(json!({ "timeout": "300s" })) })).await?;
    // What does not register first is no worker.
    let message = WorkerMessage { message: Some(worker_message::Message::Drain(Drain {})) };
    let messages = futures::stream::iter([message]);
    let refused = mesh.staff().bidirectional::<_, GatewayMessage>("/perigee.api.v1.Functions/Work", messages).await?;
    assert_eq!(reason(&refused.err().context("it is refused")?)?, "BAD_REQUEST");
    // Who registers twice, or answers more than a message may have, loses its connection and its calls.
    let huge = "1".repeat(17 << 20);
    for is_huge in [false, true] {
        let mut worker = worker(&mesh, 10).await?;
        let answers = async {
            let called = worker.call().await?;
            match is_huge {
                true => worker.answer_raw(&called.id, &huge, "").await?,
                false => worker.register_again("mail").await?,
            }
            while let Ok(Some(_)) = worker.next().await {}
            anyhow::Ok(())
        };
        let (failed, answers) = futures::join!(send(&mesh.client, json!({})), answers);
        answers?;
        let failed = failed?;
        assert_eq!((failed.status, &failed.json()?["error"]), (503, &json!("service disconnected")), "{is_huge}");
    }
    mesh.stop().await;
    Ok(())
}

async fn a_worker_that_may_not_be_one_any_more_is_told_so(shape: Shape) -> anyhow::Result<()> {
    let mesh = stage(shape, json!({ "send": allowed(json!({ "timeout": "300s" })) })).await?;
    let mut worker = worker(&mesh, 10).await?;
    let spec = json!({ "worker": { "register": { "rule": "deny" } }, "functions": { "send": allowed(json!({})) } });
    mesh.edit(&json!({ "kind": "service", "meta": { "project": "shop", "id": "mail" }, "spec": spec }).to_string())?;
    let ended = worker.next().await;
    let ended = ended.err().context("its session ends")?;
    let status = ended.downcast_ref::<tonic::Status>().context("a status")?;
    assert_eq!(reason(status)?, "DENIED");
    assert_eq!(send(&mesh.client, json!({})).await?.status, 503);
    mesh.stop().await;
    Ok(())
}

async fn a_node_that_stops_drains_its_workers(shape: Shape) -> anyhow::Result<()> {
    let mesh = stage(shape, json!({ "send": allowed(json!({ "timeout": "60s" })) })).await?;
    let mut worker = worker(&mesh, 10).await?;
    let client = mesh.client.clone();
    let drained = async {
        let called = worker.call().await?;
        let stops = tokio::spawn(mesh.stop());
        let told = worker.next().await?;
        ensure!(matches!(told, Some(Message::Drain(_))), "{told:?}");
        // What it has it may still answer.
        worker.answer(&called.id, &json!("done")).await?;
        ensure!(worker.next().await?.is_none(), "that is the end");
        stops.await?;
        anyhow::Ok(())
    };
    let (answered, drained) = futures::join!(send(&client, json!({})), drained);
    drained?;
    assert_eq!(answered?.json()?, "done");
    Ok(())
}
