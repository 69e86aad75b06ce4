//! Functions that take lists of parameters, and answers that are kept.

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::Method;
use proto::{Links, api::v1::CallResponse, auth::AuthorizeCallRequest, functions};
use serde_json::{Value, json};
use tests::{client::Protocol, mesh::Shape, token};

use super::{Stage, allowed, call, message};

scenarios!(
    a_list_is_one_call,
    the_rule_is_asked_of_each_item,
    a_list_is_taken_as_the_rule_was_asked_of_it,
    lists_that_do_not_fit_are_refused,
    answers_are_kept,
);

async fn a_list_is_one_call(shape: Shape) -> anyhow::Result<()> {
    let stage = Stage::with(shape, json!({ "each": allowed(json!({ "batch": true, "idempotent": true })) })).await?;
    let items = json!([{ "id": 1 }, "bad", { "id": 1 }, { "id": 2 }]);
    let expected =
        json!([{ "got": { "id": 1 } }, { "error": "it is bad" }, { "got": { "id": 1 } }, { "got": { "id": 2 } }]);
    let answer = stage.call("each", json!({ "params": items })).await?;
    assert_eq!((answer.status, answer.json()?), (200, expected.clone()));
    assert_eq!(stage.server.only()?.body, json!([{ "id": 1 }, "bad", { "id": 2 }]), "equal items go once");
    let wrapped = call(&stage.mesh.client, "functions/mail/each", json!({ "params": items })).await?;
    assert_eq!(wrapped.json()?, json!({ "result": expected }));
    let message = message("each", &items);
    let path = "/perigee.api.v1.Functions/Call";
    let answer = stage.mesh.client.unary_at::<_, CallResponse>(Protocol::Grpc, path, message).await??;
    assert_eq!(serde_json::from_slice::<Value>(&answer.result)?, expected);
    stage.server.seen();

    // Two hundred parents are one call.
    let many: Value = (0..200).map(|id| json!({ "id": id })).collect();
    let answer = stage.call("each", json!({ "params": many })).await?.json()?;
    ensure!(answer.as_array().is_some_and(|items| items.len() == 200), "{answer}");
    assert_eq!(stage.server.seen().len(), 1);

    // One that is no list is one item.
    let one = stage.call("each", json!({ "params": { "id": 1 } })).await?;
    assert_eq!((one.status, one.json()?), (200, json!({ "got": { "id": 1 } })));
    assert_eq!(stage.server.only()?.body, json!([{ "id": 1 }]));
    let (_, answer) = stage.mesh.client.graphql("{ mail { each(id: 1) } }", json!({})).await?;
    assert_eq!(answer["data"]["mail"]["each"], json!({ "got": { "id": 1 } }));
    stage.server.seen();
    let bad = stage.call("each", json!({ "params": "bad" })).await?;
    assert_eq!((bad.status, bad.json()?), (500, json!({ "error": "it is bad" })));
    stage.server.seen();
    let none = stage.call("each", json!({ "params": [] })).await?;
    assert_eq!((none.status, none.json()?), (200, json!([])));
    assert_eq!(stage.server.seen(), [], "there is nothing to ask");
    Ok(())
}

async fn the_rule_is_asked_of_each_item(shape: Shape) -> anyhow::Result<()> {
    let own = json!({
        "rule": "match", "type": "string", "eval": "==", "f1": "args.params.to", "f2": "args.auth.id", "error": "not yours",
    });
    let functions = json!({ "each": { "rule": own, "batch": true }, "never": { "path": "/each", "batch": true } });
    let stage = Stage::with(shape, functions).await?;
    let ann = stage.mesh.client.with_token(&token::sign(json!({ "id": "ann" })));
    let items = json!([{ "to": "bob" }, { "to": "ann", "n": 1 }, { "to": "ann", "n": 2 }, "x"]);
    let answer = call(&ann, "services/mail/each", json!({ "params": items })).await?;
    let denied = json!({ "error": "not yours", "code": "DENIED" });
    let expected = json!([denied, { "got": { "to": "ann", "n": 1 } }, { "got": { "to": "ann", "n": 2 } }, denied]);
    assert_eq!((answer.status, answer.json()?), (200, expected.clone()));
    let allowed = json!([{ "to": "ann", "n": 1 }, { "to": "ann", "n": 2 }]);
    assert_eq!(stage.server.only()?.body, allowed);
    // So it is where the answer is a stream of one.
    let message = message("each", &items);
    let path = "/perigee.api.v1.Functions/Stream";
    let mut answers = ann.streaming_at::<_, CallResponse>(path, message).await??;
    let answer = answers.message().await?.context("one answer")?;
    assert_eq!(serde_json::from_slice::<Value>(&answer.result)?, expected);
    assert!(answers.message().await?.is_none());
    assert_eq!(stage.server.only()?.body, allowed);
    let refused = call(&ann, "services/mail/each", json!({ "params": [{ "to": "bob" }, {}] })).await?;
    assert_eq!((refused.status, &refused.json()?["error"]), (403, &json!("not yours")));
    assert_eq!(call(&stage.mesh.client, "services/mail/each", json!({ "params": items })).await?.status, 401);
    assert_eq!(call(&ann, "services/mail/never", json!({ "params": items })).await?.status, 403);
    assert_eq!(stage.server.seen(), []);
    Ok(())
}

/// A gateway and a node of functions may have different documents for a moment.
async fn a_list_is_taken_as_the_rule_was_asked_of_it(shape: Shape) -> anyhow::Result<()> {
    let functions = json!({ "each": allowed(json!({ "batch": true })), "one": allowed(json!({ "path": "/each", "concurrency": 1 })) });
    let stage = Stage::with(shape, functions).await?;
    let (links, call) = (stage.mesh.links()?, mesh::Call::begin(None, None, None));
    let params = Bytes::from_static(b"[1,2]");
    for (function, is_list, of_operator, status) in [
        ("each", true, false, Some(200)),
        ("each", false, false, None),
        ("each", false, true, Some(200)),
        ("one", false, false, Some(200)),
        ("one", true, false, None),
    ] {
        let asked = AuthorizeCallRequest {
            project: "shop".to_owned(),
            token: String::new(),
            service: "mail".to_owned(),
            function: function.to_owned(),
            params: params.clone(),
            of_operator,
            is_list,
        };
        let grant = links.auth_rules().authorize_call(&call, asked).await?.grant;
        let request = functions::CallRequest { grant, params: params.clone(), timeout_ms: 0, answer_bytes: 0 };
        let answered = links.functions().call(&call, request).await;
        assert_eq!(answered.as_ref().ok().map(|answer| answer.status), status, "{function} {is_list} {of_operator}");
        if let Err(refused) = answered {
            let told = (refused.code(), refused.message());
            assert_eq!(told, (tonic::Code::Unavailable, "the function is being edited, call it again"));
        }
    }
    Ok(())
}

async fn lists_that_do_not_fit_are_refused(shape: Shape) -> anyhow::Result<()> {
    let schemas =
        json!({ "batch": true, "path": "/each", "input": { "type": "integer" }, "output": { "required": ["got"] } });
    let functions = json!({
        "each": allowed(json!({ "batch": true })),
        "short": allowed(json!({ "batch": true })),
        "echo": allowed(json!({ "batch": true })),
        "checked": allowed(schemas),
    });
    let stage = Stage::with(shape, functions).await?;
    let told = stage.fails("each", json!({ "params": vec![0; 1001] }), (413, "TOO_LARGE")).await?;
    assert_eq!(told["error"], "the list of 1001 parameters is over the limit of 1000");
    assert_eq!(stage.server.seen(), []);
    let told = stage.fails("short", json!({ "params": [1, 2] }), (502, "BAD_GATEWAY")).await?;
    assert_eq!(told["error"], "the function answered with 1 items, and was sent 2");
    let told = stage.fails("echo", json!({ "params": [1] }), (502, "BAD_GATEWAY")).await?;
    assert_eq!(told["error"], "the function answered with no list, and was sent 1 items");
    stage.server.seen();
    assert_eq!(stage.call("checked", json!({ "params": [1, 2] })).await?.status, 200);
    stage.server.seen();
    let told = stage.fails("checked", json!({ "params": [1, "bad"] }), (400, "BAD_REQUEST")).await?;
    assert_eq!(told["error"], "invalid params: item 1: value is not of type \"integer\"");
    assert_eq!(stage.server.seen(), []);
    Ok(())
}

async fn answers_are_kept(shape: Shape) -> anyhow::Result<()> {
    let cached =
        |path: &str, cache: Value| allowed(json!({ "path": path, "idempotent": true, "retries": 0, "cache": cache }));
    let functions = json!({
        "all": cached("/echo", json!({ "ttl": "60s" })),
        "chosen": cached("/echo", json!({ "ttl": "60s", "key": ["args.a"] })),
        "short": cached("/echo", json!({ "ttl": "1ms" })),
        "fails": cached("/status/404", json!({ "ttl": "60s" })),
        "once": allowed(json!({ "path": "/echo" })),
    });
    let stage = Stage::with(shape, functions).await?;
    let ann = stage.mesh.client.with_token(&token::sign(json!({ "id": "ann" })));
    let asked = async |function: &str, params: Value| -> anyhow::Result<usize> {
        let answer = stage.call(function, json!({ "params": params })).await?;
        if function != "fails" {
            ensure!(answer.status == 200 && answer.json()?["path"] == "/echo", "{answer:?}");
        }
        Ok(stage.server.seen().len())
    };
    for (function, params, requests) in [
        ("all", json!({ "a": 1 }), 1),
        ("all", json!({ "a": 1 }), 0),
        ("all", json!({ "a": 2 }), 1),
        ("chosen", json!({ "a": 1, "b": 1 }), 1),
        ("chosen", json!({ "a": 1, "b": 2 }), 0),
        ("chosen", json!({ "a": 2 }), 1),
        ("fails", json!({}), 1),
        ("fails", json!({}), 1),
        ("once", json!({}), 1),
        ("once", json!({}), 1),
        ("short", json!({}), 1),
    ] {
        assert_eq!(asked(function, params.clone()).await?, requests, "{function} {params}");
    }
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    assert_eq!(asked("short", json!({})).await?, 1, "its time is over");
    // Another caller has an answer of their own, unless the operator says what it depends on.
    call(&ann, "services/mail/all", json!({ "params": { "a": 1 } })).await?;
    assert_eq!(stage.server.seen().len(), 1);
    let kept = ann
        .send(
            Method::POST,
            "/v1/api/shop/services/mail/chosen",
            &[("content-type", "application/json")],
            r#"{"params":{"a":1}}"#,
        )
        .await?;
    assert_eq!((kept.status().as_u16(), stage.server.seen().len()), (200, 0));
    Ok(())
}
