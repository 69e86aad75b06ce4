//! Limits of calls: time, sizes, numbers, addresses, and callers who leave.

use anyhow::ensure;
use serde_json::json;
use tests::{
    engine::Engine,
    mesh::{Setup, Shape, TestMesh},
    user_server::UserServer,
};

use super::{Stage, allowed, call, service};

scenarios!(
    a_call_ends_in_time,
    parameters_and_answers_have_limits,
    calls_wait_and_are_refused,
    slow_functions_leave_room_for_reads,
    who_leaves_ends_the_call,
    addresses_inside_are_not_dialled,
);

async fn a_call_ends_in_time(shape: Shape) -> anyhow::Result<()> {
    let functions = json!({
        "short": allowed(json!({ "path": "/hang", "timeout": "20ms" })),
        "hang": allowed(json!({ "timeout": "300s" })),
        "add": allowed(json!({ "timeout": "7s" })),
    });
    let stage = Stage::with(shape, functions).await?;
    stage.fails("short", json!({}), (504, "DEADLINE")).await?;
    // It only shortens.
    stage.fails("short", json!({ "timeout": 300 }), (504, "DEADLINE")).await?;
    stage.fails("hang", json!({ "timeout": 0.02 }), (504, "DEADLINE")).await?;
    stage.server.left(3).await?;
    let wrapped = call(&stage.mesh.client, "functions/mail/hang", json!({ "timeout": 0.02 })).await?;
    assert_eq!(wrapped.status, 504);
    stage.server.seen();

    for (timeout, most) in [(json!(0), 7000), (json!(3), 3000), (json!(6000), 6000)] {
        stage.call("add", json!({ "timeout": timeout })).await?;
        let left: u64 = stage.server.only()?.headers["x-perigee-timeout-ms"].parse()?;
        ensure!(left <= most && left > most.min(3000) / 2, "{timeout}: {left}");
    }
    Ok(())
}

async fn parameters_and_answers_have_limits(shape: Shape) -> anyhow::Result<()> {
    let functions = json!({
        "add": allowed(json!({ "maxRequest": 20 })),
        "large": allowed(json!({ "maxAnswer": "2001B" })),
        "larger": allowed(json!({ "maxAnswer": 2002, "path": "/large" })),
        "status": allowed(json!({ "maxAnswer": 3, "path": "/status/500" })),
    });
    let stage = Stage::with(shape, functions).await?;
    assert_eq!(stage.call("add", json!({ "params": "x".repeat(18) })).await?.status, 200);
    let told = stage.fails("add", json!({ "params": "x".repeat(19) }), (413, "TOO_LARGE")).await?;
    assert_eq!(told["error"], "the parameters of 21 bytes are over the limit of 20 bytes of the function");
    assert_eq!(stage.server.seen().len(), 1);
    let told = stage.fails("large", json!({}), (413, "TOO_LARGE")).await?;
    assert_eq!(told["error"], "the answer of the function is over the limit of 2001 bytes");
    assert_eq!(stage.call("larger", json!({})).await?.body.len(), 2002);
    stage.fails("status", json!({}), (413, "TOO_LARGE")).await?;
    Ok(())
}

async fn calls_wait_and_are_refused(shape: Shape) -> anyhow::Result<()> {
    let functions = json!({
        "one": allowed(json!({ "path": "/wait", "concurrency": 1, "queue": 1, "timeout": "60s" })),
        "other": allowed(json!({})),
    });
    let stage = Stage::with(shape, functions).await?;
    let first = stage.call("one", json!({}));
    let second = async {
        stage.server.waits(1).await?;
        loop {
            let answer = stage.call("one", json!({})).await?;
            // The place in the queue may be that of a call below, for a while.
            if answer.status != 429 {
                return anyhow::Ok(answer);
            }
        }
    };
    let rest = async {
        stage.server.waits(1).await?;
        // The second waits for the first: with it the queue is full sooner or later.
        loop {
            let refused = stage.call("one", json!({ "timeout": 0.05 })).await?;
            match refused.status {
                429 => break,
                status => ensure!(status == 504, "{refused:?}"),
            }
        }
        // Other functions are not held up.
        ensure!(stage.call("other", json!({})).await?.status == 200);
        stage.server.release(2);
        anyhow::Ok(())
    };
    let (first, second, rest) = futures::join!(first, second, rest);
    rest?;
    assert_eq!((first?.status, second?.status), (200, 200));
    // Nobody is in the way afterwards.
    stage.server.release(1);
    assert_eq!(stage.call("one", json!({})).await?.status, 200);
    Ok(())
}

async fn slow_functions_leave_room_for_reads(shape: Shape) -> anyhow::Result<()> {
    let server = UserServer::start().await?;
    let functions = json!({ "wait": allowed(json!({ "timeout": "60s" })), "other": allowed(json!({})), "denied": {} });
    let resources = service(&server.url(), functions, json!({}));
    let setup = Setup { resources, node_limits: "in_flight: 4, queue: 0", ..Setup::default() };
    let mesh = TestMesh::with(shape, Engine::Sqlite, &setup).await?;
    let call = async |function: &str| call(&mesh.client, &format!("services/mail/{function}"), json!({})).await;
    let rest = async {
        server.waits(2).await?;
        let refused = call("other").await?;
        ensure!((refused.status, &refused.json()?["code"]) == (429, &json!("TOO_MANY")), "{refused:?}");
        ensure!(call("denied").await?.status == 403, "what is denied is told");
        let (_, answer) = mesh.client.graphql("{ artist(limit: 1) { artist_id } }", json!({})).await?;
        ensure!(answer["data"]["artist"].is_array(), "{answer}");
        let (_, answer) = mesh.client.graphql("mutation { mail { other } }", json!({})).await?;
        ensure!(answer["errors"][0]["extensions"]["code"] == "TOO_MANY", "{answer}");
        server.release(2);
        anyhow::Ok(())
    };
    let (first, second, rest) = futures::join!(call("wait"), call("wait"), rest);
    rest?;
    assert_eq!((first?.status, second?.status), (200, 200));
    assert_eq!(call("other").await?.status, 200, "there is room again");
    Ok(())
}

async fn who_leaves_ends_the_call(shape: Shape) -> anyhow::Result<()> {
    let functions = json!({ "hang": allowed(json!({ "timeout": "300s", "concurrency": 1, "queue": 0 })) });
    let stage = Stage::with(shape, functions).await?;
    for round in 1..=3 {
        let until = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
        loop {
            tokio::select! {
                answered = stage.call("hang", json!({})) => {
                    let answered = answered?;
                    // The server may see the end of a call a moment before its place is free.
                    ensure!(round > 1 && answered.status == 429 && tokio::time::Instant::now() < until, "{answered:?}");
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
                waits = stage.server.waits(round) => break waits?,
            }
        }
        // The caller is gone: its connection is closed, and that of the function too.
        stage.server.left(round).await?;
    }
    Ok(())
}

async fn addresses_inside_are_not_dialled(shape: Shape) -> anyhow::Result<()> {
    let server = UserServer::start().await?;
    let port = server.address().port();
    let mesh = TestMesh::with(shape, Engine::Sqlite, &Setup::default()).await?;
    for (index, host) in
        ["[::1]", "0.0.0.0", "10.255.255.1", "169.254.169.254", "[::ffff:10.0.0.1]", "[fd00::1]"].iter().enumerate()
    {
        // Another name each time shows when it is in force.
        let function = format!("f{index}");
        let allowed = allowed(json!({ "path": "/echo", "timeout": "60s" }));
        mesh.edit(&service(&format!("http://{host}:{port}"), json!({ function.clone(): allowed }), json!({})))?;
        let until = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
        let told = loop {
            let answer = call(&mesh.client, &format!("services/mail/{function}"), json!({})).await?;
            let told = answer.json()?;
            if told["code"] == "BAD_GATEWAY" {
                break told;
            }
            ensure!(tokio::time::Instant::now() < until, "{host}: {told}");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        };
        assert_eq!(told["error"], "service mail is at an address that egress.allow does not list", "{host}");
    }
    assert_eq!(server.seen(), []);
    Ok(())
}
