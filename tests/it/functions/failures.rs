//! Functions that fail: what is tried again, and what is not called for a while.

use anyhow::{bail, ensure};
use serde_json::{Value, json};
use tests::{
    engine::Engine,
    mesh::{Setup, Shape, TestMesh},
    process::free_address,
    user_server::UserServer,
    worker::Worker,
};

use super::{Stage, allowed, call, service, until};

scenarios!(
    what_is_idempotent_is_tried_again,
    a_server_that_cannot_be_reached_is_not_called_for_a_while,
    no_caller_takes_a_function_away,
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
        "html": again(json!({})),
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
        ("html", 502, 3),
        ("hang", 504, 1),
    ] {
        let answer = stage.call(function, json!({})).await?;
        assert_eq!((answer.status, stage.server.seen().len()), (status, attempts), "{function}: {answer:?}");
    }
    let metrics = stage.mesh.metrics().await?;
    ensure!(metrics.lines().any(|line| line == "perigee_function_retries_total 7"), "{metrics}");
    Ok(())
}

async fn a_server_that_cannot_be_reached_is_not_called_for_a_while(shape: Shape) -> anyhow::Result<()> {
    let stage = Stage::with(shape, json!({ "any": allowed(json!({})) })).await?;
    // Nobody listens there yet.
    let address = free_address()?;
    let functions = json!({ "any": allowed(json!({})), "again": allowed(json!({ "idempotent": true })) });
    stage.mesh.edit(&service(&format!("http://{address}"), functions, json!({})))?;
    for function in ["any", "again"] {
        let text = format!("service mail cannot be reached, and function {function} is tried again in");
        let is_open = |_, told: &Value| told["error"].as_str().is_some_and(|error| error.contains(&text));
        let told = until(&stage, function, is_open).await?;
        assert_eq!(told["code"], "UNAVAILABLE");
    }
    let server = UserServer::at(address).await?;
    for function in ["any", "again"] {
        until(&stage, function, |status, _| status == 200).await?;
        ensure!(!server.seen().is_empty());
        assert_eq!(stage.call(function, json!({})).await?.status, 200, "it is called as before");
    }
    let metrics = stage.mesh.metrics().await?;
    ensure!(metrics.lines().any(|line| line == "perigee_function_circuits_opened_total 2"), "{metrics}");
    Ok(())
}

/// What a caller sends makes the server break off or hang: others call the function as before.
async fn no_caller_takes_a_function_away(shape: Shape) -> anyhow::Result<()> {
    let function = allowed(json!({ "path": "/{args.path}", "timeout": "500ms" }));
    let stage = Stage::with(shape, json!({ "any": function })).await?;
    let called = |path: &str, timeout: f64| json!({ "params": { "path": path }, "timeout": timeout });
    for (path, timeout, expected) in
        [("early", 0.0, (502, "BAD_GATEWAY")), ("hang", 0.01, (504, "DEADLINE")), ("hang", 0.0, (504, "DEADLINE"))]
    {
        for _ in 0..6 {
            stage.fails("any", called(path, timeout), expected).await?;
        }
        assert_eq!(stage.call("any", called("echo", 0.0)).await?.status, 200, "{path}");
    }
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
