//! Rules that ask functions.

use anyhow::ensure;
use serde_json::{Value, json};
use tests::{
    engine::Engine,
    mesh::{Setup, Shape, TestMesh},
    token,
    worker::Worker,
};

use super::{allowed, call};

scenarios!(
    a_rule_passes_where_a_function_acknowledges,
    a_rule_that_is_not_answered_passes_in_no_sense,
    a_request_asks_once_and_only_so_much,
);

const TABLE: &str = "CREATE TABLE todos (id BIGINT NOT NULL PRIMARY KEY, owner TEXT);";

/// A mesh where service `guard` is asked about table `todos` and function `send` of service `mail`.
async fn stage(shape: Shape) -> anyhow::Result<TestMesh> {
    let ask = |function: &str| json!({ "rule": "func", "service": "guard", "func": function });
    let mut create = ask("check");
    create["anonymous"] = json!(true);
    let worker = json!({ "register": { "rule": "authenticated" } });
    let send = json!({ "rule": ask("send"), "timeout": "60s" });
    let rules = json!({
        "create": create,
        "read": { "rule": "not", "clause": ask("hidden") },
        "delete": { "rule": "or", "clauses": [ask("one"), ask("two")] },
    });
    let documents = [
        json!({ "kind": "service", "meta": { "project": "shop", "id": "guard" }, "spec": { "worker": worker } }),
        json!({
            "kind": "service", "meta": { "project": "shop", "id": "mail" },
            "spec": { "worker": worker, "functions": { "send": send, "open": allowed(json!({})) } },
        }),
        json!({
            "kind": "table", "meta": { "project": "shop", "database": "lab", "id": "todos" },
            "spec": { "rules": rules },
        }),
    ];
    // Nobody may call the guard: rules ask it all the same. Its functions are those of its default.
    let mut documents = documents;
    documents[0]["spec"]["default"] = json!({ "timeout": "1s" });
    let resources = documents.map(|document| document.to_string()).join("\n---\n");
    let setup = Setup { lab: Some(TABLE.to_owned()), resources, ..Setup::default() };
    TestMesh::with(shape, Engine::Sqlite, &setup).await
}

async fn guard(mesh: &TestMesh, service: &str) -> anyhow::Result<Worker> {
    Ok(Worker::register(&mesh.staff(), service, &[], 50).await??)
}

/// What a request came to, of which `guard` is asked once and answers with `result` or `error`; and what it was asked: the
/// function, its parameters, and who it was asked about.
async fn asked<T>(
    guard: &mut Worker,
    request: impl Future<Output = anyhow::Result<T>>,
    (result, error): (&str, &str),
) -> anyhow::Result<(T, (String, Value, Value))> {
    let answers = async {
        let call = guard.call().await?;
        guard.answer_raw(&call.id, result, error).await?;
        let (params, auth) = (serde_json::from_slice(&call.params)?, serde_json::from_slice(&call.auth)?);
        anyhow::Ok((call.function, params, auth))
    };
    futures::try_join!(request, answers)
}

async fn a_rule_passes_where_a_function_acknowledges(shape: Shape) -> anyhow::Result<()> {
    let mesh = stage(shape).await?;
    let (mut rules, mut mail) = (guard(&mesh, "guard").await?, guard(&mesh, "mail").await?);
    for (id, answer, status) in [
        (1, r#"{"ack":true,"more":1}"#, 200),
        (2, r#"{"ack":false}"#, 401),
        (3, r#"{"ack":"true"}"#, 401),
        (4, "true", 401),
        (5, "{}", 401),
        (6, "", 401),
        (8, "[true]", 401),
    ] {
        let create = json!({ "op": "one", "doc": { "id": id, "owner": "ann" } });
        let request = mesh.client.post("crud/lab/todos/create", &create);
        let ((got, _), told) = asked(&mut rules, request, (answer, "")).await?;
        assert_eq!(got, status, "{answer}");
        let params = json!({ "op": "one", "doc": { "id": id, "owner": "ann" } });
        assert_eq!(told, ("check".to_owned(), params, json!({})), "{answer}");
    }
    // With a token the function learns whose it is, and the refusal is another.
    let ann = mesh.client.with_token(&token::sign(json!({ "id": "ann" })));
    let create = json!({ "op": "one", "doc": { "id": 7, "owner": "ann" } });
    let ((got, _), (_, _, auth)) =
        asked(&mut rules, ann.post("crud/lab/todos/create", &create), (r#"{"ack":false}"#, "")).await?;
    assert_eq!((got, &auth["id"]), (403, &json!("ann")));

    // Of a call it learns the parameters.
    let sent = call(&ann, "services/mail/send", json!({ "params": { "to": "x" } }));
    let sent = async {
        let answers = async {
            let called = mail.call().await?;
            mail.answer(&called.id, &json!("sent")).await
        };
        let (sent, answers) = futures::join!(sent, answers);
        answers?;
        sent
    };
    let (sent, (function, params, _)) = asked(&mut rules, sent, (r#"{"ack":true}"#, "")).await?;
    assert_eq!((sent.status, sent.json()?), (200, json!("sent")));
    assert_eq!((function.as_str(), params), ("send", json!({ "params": { "to": "x" } })));
    let denied = call(&ann, "services/mail/send", json!({ "params": 7 }));
    let (denied, (_, params, _)) = asked(&mut rules, denied, (r#"{"ack":false}"#, "")).await?;
    assert_eq!((denied.status, params), (403, json!({ "params": 7 })));
    mesh.stop().await;
    Ok(())
}

async fn a_rule_that_is_not_answered_passes_in_no_sense(shape: Shape) -> anyhow::Result<()> {
    let mesh = stage(shape).await?;
    let ann = mesh.client.with_token(&token::sign(json!({ "id": "ann" })));
    let create = json!({ "op": "one", "doc": { "id": 1, "owner": "ann" } });
    // There is nobody to ask.
    assert_eq!(ann.post("crud/lab/todos/create", &create).await?.0, 403);
    let read = json!({ "op": "all", "find": {} });
    assert_eq!(ann.post("crud/lab/todos/read", &read).await?.0, 403, "its negation neither");
    let mut rules = guard(&mesh, "guard").await?;
    for (answer, status) in [
        // The rule is a negation.
        ((r#"{"ack":false}"#, ""), 200),
        ((r#"{"ack":true}"#, ""), 403),
        (("", "it failed"), 403),
        (("{", ""), 403),
    ] {
        let ((got, _), _) = asked(&mut rules, ann.post("crud/lab/todos/read", &read), answer).await?;
        assert_eq!(got, status, "{answer:?}");
    }
    // It does not answer in time.
    assert_eq!(ann.post("crud/lab/todos/read", &read).await?.0, 403);
    mesh.stop().await;
    Ok(())
}

async fn a_request_asks_once_and_only_so_much(shape: Shape) -> anyhow::Result<()> {
    let mesh = stage(shape).await?;
    let ann = mesh.client.with_token(&token::sign(json!({ "id": "ann" })));
    let mut rules = guard(&mesh, "guard").await?;
    // Documents are asked about one by one, the same ones once.
    let doc = |id: i64| json!({ "id": id, "owner": "ann" });
    for (count, status) in [(16, 200), (17, 403)] {
        let docs: Vec<Value> = (0..count).map(doc).collect();
        let create = json!({ "op": "all", "doc": docs });
        let mut request = std::pin::pin!(ann.post("crud/lab/todos/create", &create));
        let mut seen = 0;
        let got = loop {
            tokio::select! {
                got = &mut request => break got?,
                call = rules.call() => {
                    seen += 1;
                    rules.answer(&call?.id, &json!({ "ack": true })).await?;
                }
            }
        };
        ensure!((got.0, seen) == (status, 16.min(seen)) && seen <= 16, "{count}: {got:?}, asked {seen} times");
        if status == 200 {
            ensure!(seen == 16, "each document is asked about: {seen}");
        }
    }
    mesh.stop().await;
    Ok(())
}
