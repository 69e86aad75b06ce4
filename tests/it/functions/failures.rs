//! Functions that fail: what is tried again, and what is not called for a while.

use anyhow::{bail, ensure};
use serde_json::{Value, json};
use tests::{
    engine::Engine,
    mesh::{Setup, Shape, TestMesh},
    worker::Worker,
};

use super::{Stage, allowed, call};

scenarios!(
    what_is_idempotent_is_tried_again,
    a_function_that_fails_is_not_called_for_a_while,
    callers_without_time_take_no_function_away,
    another_worker_takes_the_call_of_one_that_goes,
);

async fn what_is_idempotent_is_tried_again(shape: Shape) -> anyhow::Result<()> {
    let again = |more: Value| {
        let mut function = allowed(json!({ "idempotent": true }));
        function.as_object_mut().expect("it is one").extend(more.as_object().expect("it is one").clone());
        function
    };
    let functions = json!({
        "flaky": again(json!({})),
        "once": allowed(json!({ "path": "/early" })),
        "early": again(json!({})),
        "never": again(json!({ "path": "/early", "retries": 0 })),
        "away": again(json!({ "path": "/status/503", "retries": 1 })),
        "fails": again(json!({ "path": "/status/500" })),
        "text": again(json!({})),
        "hang": again(json!({ "timeout": "50ms" })),
    });
    let stage = Stage::with(shape, functions).await?;
    // Every third request has an answer.
    let answer = stage.call("flaky", json!({ "params": { "a": 1 } })).await?;
    assert_eq!((answer.status, answer.json()?), (200, json!({ "attempts": 3 })));
    let seen = stage.server.seen();
    ensure!(seen.len() == 3 && seen.iter().all(|seen| seen.body == json!({ "a": 1 })), "{seen:?}");
    for (function, status, attempts) in [
        ("once", 502, 1),
        ("early", 502, 3),
        ("never", 502, 1),
        ("away", 503, 2),
        ("fails", 500, 1),
        ("text", 502, 1),
        ("hang", 504, 1),
    ] {
        let answer = stage.call(function, json!({})).await?;
        assert_eq!((answer.status, stage.server.seen().len()), (status, attempts), "{function}: {answer:?}");
    }
    let metrics = stage.mesh.metrics().await?;
    ensure!(metrics.lines().any(|line| line == "perigee_function_retries_total 5"), "{metrics}");
    Ok(())
}

async fn a_function_that_fails_is_not_called_for_a_while(shape: Shape) -> anyhow::Result<()> {
    let functions = json!({
        "any": allowed(json!({ "path": "/{args.path}" })),
        "short": allowed(json!({ "path": "/hang", "timeout": "20ms" })),
        "other": allowed(json!({})),
    });
    let stage = Stage::with(shape, functions).await?;
    let early = json!({ "params": { "path": "early" } });
    let sound = json!({ "params": { "path": "echo" } });
    for _ in 0..4 {
        stage.fails("any", early.clone(), (502, "BAD_GATEWAY")).await?;
    }
    // An answer, whatever it says, begins the count anew.
    assert_eq!(stage.call("any", json!({ "params": { "path": "text" } })).await?.status, 502);
    for _ in 0..5 {
        stage.fails("any", early.clone(), (502, "BAD_GATEWAY")).await?;
    }
    stage.server.seen();
    let told = stage.fails("any", sound.clone(), (503, "UNAVAILABLE")).await?;
    let text = told["error"].as_str().unwrap_or_default();
    ensure!(
        text.starts_with("No service available: function any of service mail fails, and is tried again in"),
        "{text}"
    );
    ensure!(stage.server.seen().is_empty(), "it was not called");
    assert_eq!(stage.call("other", json!({})).await?.status, 200, "it fails alone");

    // One that never answers in its time.
    for _ in 0..5 {
        stage.fails("short", json!({}), (504, "DEADLINE")).await?;
    }
    stage.fails("short", json!({}), (503, "UNAVAILABLE")).await?;

    let until = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    while stage.call("any", sound.clone()).await?.status != 200 {
        ensure!(tokio::time::Instant::now() < until, "it is tried again");
    }
    stage.fails("any", early, (502, "BAD_GATEWAY")).await?;
    assert_eq!(stage.call("any", sound).await?.status, 200, "it is called as before");
    let metrics = stage.mesh.metrics().await?;
    ensure!(metrics.lines().any(|line| line == "perigee_function_circuits_opened_total 2"), "{metrics}");
    Ok(())
}

async fn callers_without_time_take_no_function_away(shape: Shape) -> anyhow::Result<()> {
    let stage = Stage::with(shape, json!({ "any": allowed(json!({ "path": "/{args.path}" })) })).await?;
    for _ in 0..8 {
        let hang = json!({ "params": { "path": "hang" }, "timeout": 0.01 });
        stage.fails("any", hang, (504, "DEADLINE")).await?;
    }
    assert_eq!(stage.call("any", json!({ "params": { "path": "echo" } })).await?.status, 200);
    Ok(())
}

async fn another_worker_takes_the_call_of_one_that_goes(shape: Shape) -> anyhow::Result<()> {
    let functions = json!({
        "send": allowed(json!({ "idempotent": true, "timeout": "60s" })),
        "once": allowed(json!({ "timeout": "60s" })),
    });
    let register = json!({ "rule": "match", "type": "string", "eval": "==", "f1": "args.auth.role", "f2": "staff" });
    let spec = json!({ "worker": { "register": register }, "functions": functions });
    let resources = json!({ "kind": "service", "meta": { "project": "shop", "id": "mail" }, "spec": spec }).to_string();
    let mesh = TestMesh::with(shape, Engine::Sqlite, &Setup { resources, ..Setup::default() }).await?;
    for (function, expected) in [("send", 200), ("once", 503)] {
        let mut one = Worker::register(&mesh.staff(), "mail", &[function], 1).await??;
        let mut two = Worker::register(&mesh.staff(), "mail", &[function], 1).await??;
        let work = async {
            let mut other = tokio::select! {
                called = one.call() => { called?; drop(one); two }
                called = two.call() => { called?; drop(two); one }
            };
            if expected == 200 {
                let called = other.call().await?;
                ensure!(called.params[..] == *b"{\"a\":1}", "{called:?}");
                other.answer(&called.id, &json!("done")).await?;
            }
            // Dropped, its answer would be lost.
            anyhow::Ok(other)
        };
        let path = format!("services/mail/{function}");
        let (answer, worked) = futures::join!(call(&mesh.client, &path, json!({ "params": { "a": 1 } })), work);
        let _other = worked?;
        let answer = answer?;
        if answer.status != expected {
            bail!("{function}: {answer:?}");
        }
    }
    Ok(())
}
