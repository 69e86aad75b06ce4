//! Parameters and answers that are checked against JSON Schemas.

use anyhow::ensure;
use serde_json::json;
use tests::mesh::Shape;

use super::{Stage, allowed};

scenarios!(parameters_are_checked_before_the_call, answers_are_checked_before_anybody_gets_them);

async fn parameters_are_checked_before_the_call(shape: Shape) -> anyhow::Result<()> {
    let input = json!({
        "type": "object",
        "properties": { "to": { "type": "string", "minLength": 1 }, "cc": { "type": "array", "items": { "$ref": "#/properties/to" } } },
        "required": ["to"],
        "additionalProperties": false,
    });
    let functions = json!({ "send": allowed(json!({ "input": input })), "denied": { "input": input } });
    let stage = Stage::with(shape, functions).await?;
    assert_eq!(stage.call("send", json!({ "params": { "to": "ann", "cc": ["bob"] } })).await?.status, 200);
    stage.server.seen();
    for (params, told) in [
        (json!({}), "\"to\" is a required property"),
        (json!(null), "value is not of type \"object\""),
        (json!({ "to": "ann", "cc": ["bob", 5] }), "/cc/1: value is not of type \"string\""),
        (json!({ "to": "ann", "bcc": [] }), "bcc"),
    ] {
        let answer = stage.fails("send", json!({ "params": params }), (400, "BAD_REQUEST")).await?;
        let text = answer["error"].as_str().unwrap_or_default();
        ensure!(text.starts_with("invalid params: ") && text.contains(told), "{params}: {text}");
    }
    stage.fails("denied", json!({ "params": {} }), (403, "DENIED")).await?;
    let (_, answer) = stage.mesh.client.graphql("mutation { mail { send(too: \"ann\") } }", json!({})).await?;
    ensure!(answer["errors"][0]["extensions"]["code"] == "BAD_REQUEST", "{answer}");
    assert_eq!(stage.server.seen(), [], "nothing of it was called");
    Ok(())
}

async fn answers_are_checked_before_anybody_gets_them(shape: Shape) -> anyhow::Result<()> {
    let functions = json!({
        "fits": allowed(json!({ "output": { "required": ["path"] } })),
        "other": allowed(json!({ "output": { "required": ["none"] } })),
        "fails": allowed(json!({ "path": "/status/409", "output": { "required": ["none"] } })),
    });
    let stage = Stage::with(shape, functions).await?;
    assert_eq!(stage.call("fits", json!({})).await?.status, 200);
    let told = stage.fails("other", json!({}), (502, "BAD_GATEWAY")).await?;
    assert_eq!(told["error"], "the function answered what its output does not allow: \"none\" is a required property");
    // What it says of a failure is its own.
    let failed = stage.call("fails", json!({})).await?;
    assert_eq!((failed.status, failed.json()?), (409, json!({ "error": "boom" })));
    Ok(())
}
