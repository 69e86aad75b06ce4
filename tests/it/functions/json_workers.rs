//! Workers over the predecessor's JSON socket.

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use tests::{
    document::Document,
    engine::Engine,
    json_socket::JsonSocket,
    mesh::{Setup, Shape, TestMesh},
    node_tool,
    socket::Incoming,
    token,
};
use tokio_tungstenite::tungstenite::Message;

use super::{Answer, allowed, call};

scenarios!(
    the_golden_exchange_of_workers_is_answered,
    registrations_are_refused_with_their_reason,
    a_worker_takes_calls_beside_live_queries_and_another_takes_its_place,
    an_old_worker_is_not_told_of_cancels_and_a_new_one_is,
    the_client_of_npm_is_a_worker,
    the_documented_messages_of_workers_are_exchanged,
);

async fn stage(shape: Shape, functions: Value) -> anyhow::Result<TestMesh> {
    let register = json!({ "rule": "match", "type": "string", "eval": "==", "f1": "args.auth.role", "f2": "staff" });
    let spec = json!({ "worker": { "register": register }, "functions": functions, "default": allowed(json!({})) });
    let resources = json!({ "kind": "service", "meta": { "project": "shop", "id": "mail" }, "spec": spec }).to_string();
    TestMesh::with(shape, Engine::Sqlite, &Setup { resources, ..Setup::default() }).await
}

async fn register(mesh: &TestMesh, data: Value) -> anyhow::Result<JsonSocket> {
    let mut socket = JsonSocket::open(mesh.client.address()).await?;
    let mut data = data;
    data["service"] = json!("mail");
    data["project"] = json!("shop");
    data["token"] = json!(token::staff());
    ensure!(socket.ask("service-register", data).await? == json!({ "ack": true }));
    Ok(socket)
}

/// The `data` of the message of a type that comes next, which was not asked for.
async fn pushed(socket: &mut JsonSocket, r#type: &str) -> anyhow::Result<Value> {
    match socket.next().await? {
        Incoming::Message(mut message) if message["type"] == r#type && message["id"] == "" => {
            Ok(message["data"].take())
        }
        other => bail!("no {type}: {other:?}"),
    }
}

async fn send(mesh: &TestMesh, path: &str, body: Value) -> anyhow::Result<Answer> {
    call(&mesh.client, path, body).await
}

/// Cases F01 to F04, F12, F13 and F32 of the reference.
async fn the_golden_exchange_of_workers_is_answered(shape: Shape) -> anyhow::Result<()> {
    let mesh = stage(shape, json!({ "slow": allowed(json!({ "timeout": "300s" })) })).await?;
    let mut worker = register(&mesh, json!({})).await?;
    let mut stranger = register(&mesh, json!({})).await?;
    for (answer, expected) in [
        (json!({ "params": { "sum": 3 } }), (200, json!({ "result": { "sum": 3 } }))),
        (json!({ "params": 7, "error": "", "token": "t" }), (200, json!({ "result": 7 }))),
        (json!({}), (200, json!({ "result": null }))),
    ] {
        let answers = async {
            let (mut call, is_first) = tokio::select! {
                call = pushed(&mut worker, "service-request") => (call?, true),
                call = pushed(&mut stranger, "service-request") => (call?, false),
            };
            let id = call["id"].take();
            let told =
                json!({ "id": null, "auth": {}, "params": { "a": 1 }, "service": "mail", "func": "sum", "error": "" });
            ensure!(call == told && id.as_str().is_some_and(|id| id.len() >= 32), "{id} {call}");
            let (own, other) = if is_first { (&mut worker, &mut stranger) } else { (&mut stranger, &mut worker) };
            // One that is of the other's call, of none or without an id is ignored; nothing is sent back.
            other.send("service-request", json!({ "id": id, "params": "forged" })).await?;
            own.send("service-request", json!({ "id": "none", "params": "lost" })).await?;
            own.send("service-request", json!({ "params": "lost" })).await?;
            for socket in [other, &mut *own] {
                ensure!(socket.ask("bogus", json!({})).await? == json!({ "error": "Invalid message type" }));
            }
            let mut answer = answer;
            answer["id"] = id;
            own.send("service-request", answer.clone()).await?;
            // Once answered, it is no call of anybody.
            answer["params"] = json!("again");
            own.send("service-request", answer).await
        };
        let (answered, answers) =
            futures::join!(send(&mesh, "functions/mail/sum", json!({ "params": { "a": 1 }, "timeout": 5 })), answers);
        answers?;
        let answered = answered?;
        assert_eq!((answered.status, answered.json()?), expected);
    }
    drop(stranger);
    let fails = async {
        let call = pushed(&mut worker, "service-request").await?;
        worker.send("service-request", json!({ "id": call["id"], "error": "boom" })).await
    };
    // The other one may still be known for a moment, and fail its call.
    let (answered, fails) = futures::join!(
        async {
            loop {
                let answered = send(&mesh, "functions/mail/sum", json!({})).await?;
                if answered.status != 503 {
                    return anyhow::Ok(answered);
                }
            }
        },
        fails
    );
    fails?;
    let answered = answered?;
    assert_eq!((answered.status, &answered.json()?["error"]), (500, &json!("boom")));

    let goes = async {
        pushed(&mut worker, "service-request").await?;
        drop(worker);
        anyhow::Ok(())
    };
    let (failed, goes) = futures::join!(send(&mesh, "functions/mail/slow", json!({})), goes);
    goes?;
    let failed = failed?;
    assert_eq!((failed.status, &failed.json()?["error"]), (503, &json!("service disconnected")));
    let nobody = send(&mesh, "functions/mail/slow", json!({})).await?;
    let told = nobody.json()?["error"].as_str().unwrap_or_default().to_owned();
    assert!(nobody.status == 503 && told.starts_with("No service available"), "{nobody:?}");
    mesh.stop().await;
    Ok(())
}

async fn registrations_are_refused_with_their_reason(shape: Shape) -> anyhow::Result<()> {
    let mesh = stage(shape, json!({})).await?;
    for (data, reason) in [
        (json!({ "service": "mail" }), "a token is needed"),
        (json!({ "service": "mail", "token": "forged" }), "token"),
        (json!({ "service": "mail", "token": token::customer(1) }), "not authorized"),
        (json!({ "service": "other", "token": token::staff() }), "not authorized"),
        (json!({ "token": token::staff() }), "service"),
        (json!({ "service": "mail", "project": "forum", "token": token::staff() }), "the socket is of project shop"),
        (json!({ "service": 7 }), "invalid service: expected string, found integer"),
        (json!(7), "invalid data: expected object"),
    ] {
        let mut socket = JsonSocket::open(mesh.client.address()).await?;
        let told = socket.ask("service-register", data.clone()).await?;
        let error = told["error"].as_str().unwrap_or_default();
        assert!(told["ack"] == false && error.contains(reason), "{data}: {told}");
    }
    assert_eq!(send(&mesh, "functions/mail/sum", json!({})).await?.status, 503, "nobody is registered");
    mesh.stop().await;
    Ok(())
}

async fn a_worker_takes_calls_beside_live_queries_and_another_takes_its_place(shape: Shape) -> anyhow::Result<()> {
    let mesh = stage(shape, json!({})).await?;
    let mut worker = register(&mesh, json!({})).await?;
    let query = json!({ "id": "q", "group": "artist", "dbType": "music", "where": { "artist_id": -1 }, "options": {} });
    ensure!(worker.ask("realtime-subscribe", query).await?["ack"] == true);
    let again = json!({ "service": "mail", "project": "shop", "token": token::staff() });
    assert_eq!(worker.ask("service-register", again).await?, json!({ "ack": true }));
    // One worker is known, not two: each call comes once.
    for n in 0..3 {
        let answers = async {
            let call = pushed(&mut worker, "service-request").await?;
            worker.send("service-request", json!({ "id": call["id"], "params": n })).await
        };
        let (answered, answers) = futures::join!(send(&mesh, "services/mail/sum", json!({})), answers);
        answers?;
        assert_eq!(answered?.json()?, json!(n));
    }
    mesh.stop().await;
    Ok(())
}

async fn an_old_worker_is_not_told_of_cancels_and_a_new_one_is(shape: Shape) -> anyhow::Result<()> {
    let mesh = stage(shape, json!({})).await?;
    for takes_cancels in [false, true] {
        let mut worker = register(&mesh, json!({ "cancel": takes_cancels })).await?;
        let late = async {
            let call = pushed(&mut worker, "service-request").await?;
            if takes_cancels {
                ensure!(pushed(&mut worker, "service-cancel").await? == json!({ "id": call["id"] }));
            }
            anyhow::Ok(call)
        };
        let (answered, late) = futures::join!(send(&mesh, "services/mail/sum", json!({ "timeout": 0.2 })), late);
        assert_eq!(answered?.status, 504);
        // An answer that comes late is nobody's.
        worker.send("service-request", json!({ "id": late?["id"], "params": 1 })).await?;
        assert_eq!(worker.ask("bogus", json!({})).await?, json!({ "error": "Invalid message type" }));
        drop(worker);
        let until = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
        while send(&mesh, "services/mail/sum", json!({ "timeout": 0.05 })).await?.status != 503 {
            ensure!(tokio::time::Instant::now() < until, "it is gone");
        }
    }
    mesh.stop().await;
    Ok(())
}

async fn the_client_of_npm_is_a_worker(shape: Shape) -> anyhow::Result<()> {
    let mesh = stage(shape, json!({})).await?;
    let url = format!("http://{}", mesh.client.address());
    let printed = node_tool::script("space_api_worker.js", &[&url, "shop", &token::staff()]).await?;
    let got: Value = serde_json::from_str(&printed)?;
    let mut seen = got["seen"].as_array().context("calls")?.iter();
    for version in ["0.12.1", "0.15.0", "0.19.3"] {
        let told = &got["told"][version];
        // A function that the worker does not have is its own failure.
        assert_eq!(told["missing"]["status"], 500, "{got}");
        for (who, to) in [("anonymous", format!("{version} nobody")), ("known", version.to_owned())] {
            assert_eq!(told[who]["status"], 200, "{got}");
            let data = &told[who]["data"];
            let result = data.get("result").unwrap_or(data);
            assert_eq!(*result, json!({ "sent": to }), "{got}");
            let call = seen.next().context("a call")?;
            assert_eq!(call["params"], json!({ "to": to }));
            assert_eq!(call["auth"]["role"], if who == "known" { json!("staff") } else { Value::Null }, "{call}");
        }
    }
    mesh.stop().await;
    Ok(())
}

/// The messages of `docs/functions.md`: a registration with its reply, a call with its answer.
async fn the_documented_messages_of_workers_are_exchanged(shape: Shape) -> anyhow::Result<()> {
    let document = Document::open("functions.md")?;
    let messages: Vec<Value> = document.block("json")?.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let [mut registers, registered, mut called, mut answers] =
        <[Value; 4]>::try_from(messages).map_err(|found| anyhow::anyhow!("four messages: {found:?}"))?;
    let mesh = stage(shape, json!({})).await?;
    let mut worker = JsonSocket::open(mesh.client.address()).await?;
    registers["data"]["token"] = json!(token::staff());
    worker.send_raw(Message::Text(registers.to_string().into())).await?;
    ensure!(worker.next().await? == Incoming::Message(registered));
    let ann = mesh.client.with_token(&token::sign(json!({ "id": "ann" })));
    let exchanged = async {
        let Incoming::Message(mut call) = worker.next().await? else { bail!("a call") };
        // What a token has besides, such as its end, is a claim too.
        call["data"]["auth"] = json!({ "id": call["data"]["auth"]["id"] });
        let id = call["data"]["id"].clone();
        (called["data"]["id"], answers["data"]["id"]) = (id.clone(), id);
        ensure!(call == called, "{call}");
        worker.send_raw(Message::Text(answers.to_string().into())).await
    };
    let params = json!({ "params": { "to": "x" } });
    let (answered, exchanged) = futures::join!(call(&ann, "services/mail/send", params), exchanged);
    exchanged?;
    assert_eq!(answered?.json()?, json!({ "sent": "x" }));
    mesh.stop().await;
    Ok(())
}
