//! Functions as fields of GraphQL: of the schema, and by directive.

use anyhow::ensure;
use serde_json::{Value, json};
use tests::{
    engine::Engine,
    mesh::{Setup, Shape, TestMesh},
    token,
    user_server::UserServer,
};

use super::{Stage, allowed, service};

scenarios!(
    services_are_root_fields,
    a_directive_names_a_service,
    failures_are_errors_beside_data,
    queries_and_mutations_differ,
    documents_that_are_refused,
    a_table_wins_over_a_service,
);

fn functions() -> Value {
    json!({
        "find": allowed(json!({ "idempotent": true })),
        "send": allowed(json!({})),
        "fail": allowed(json!({ "path": "/status/500", "idempotent": true })),
        "secure": { "rule": { "rule": "authenticated" }, "idempotent": true },
        "with-dash": allowed(json!({ "idempotent": true })),
    })
}

async fn services_are_root_fields(shape: Shape) -> anyhow::Result<()> {
    let stage = Stage::with(shape, functions()).await?;
    let query = "query($to: [String!]) { m: mail { __typename a: find(to: $to, n: 1.5) find(deep: {x: [null, RED]}) { ignored } with_dash } __typename }";
    let (status, answer) = stage.mesh.client.graphql(query, json!({ "to": ["x"] })).await?;
    assert_eq!(status, 200, "{answer}");
    let echo = |path: &str, body: Value| json!({ "method": "POST", "path": path, "body": body });
    let expected = json!({ "data": {
        "m": {
            "__typename": "MailService",
            "a": echo("/find", json!({ "to": ["x"], "n": 1.5 })),
            "find": echo("/find", json!({ "deep": { "x": [null, "RED"] } })),
            "with_dash": echo("/with-dash", json!({})),
        },
        "__typename": "Query",
    }});
    assert_eq!(answer, expected);
    // Rows and functions in one document.
    let (_, answer) = stage.mesh.client.graphql("{ artist(limit: 1) { artist_id } mail { find } }", json!({})).await?;
    assert_eq!(answer["data"]["artist"].as_array().map(Vec::len), Some(1), "{answer}");
    assert_eq!(answer["data"]["mail"]["find"]["path"], "/find");
    // The same document with other values is not answered as before.
    for to in ["a", "b"] {
        let (_, answer) =
            stage.mesh.client.graphql("query($to: String) { mail { find(to: $to) } }", json!({ "to": to })).await?;
        assert_eq!(answer["data"]["mail"]["find"]["body"], json!({ "to": to }));
    }
    Ok(())
}

async fn a_directive_names_a_service(shape: Shape) -> anyhow::Result<()> {
    let stage = Stage::with(shape, functions()).await?;
    let graphql = async |query: &str| stage.mesh.client.graphql(query, json!({})).await;
    let (_, answer) = graphql("{ send(a: 1, b: 2) @mail { sum } }").await?;
    assert_eq!(answer["data"]["send"]["body"], json!({ "a": 1, "b": 2 }), "{answer}");
    let (_, answer) = graphql("{ x: anything(a: 1) @mail(func: \"with-dash\", timeout: 2) }").await?;
    assert_eq!(answer["data"]["x"]["path"], "/with-dash", "{answer}");
    let seen = stage.server.seen();
    let left: u64 = seen[1].headers["x-perigee-timeout-ms"].parse()?;
    ensure!(left <= 2000, "{left}");
    let (_, answer) = graphql("mutation { send @mail __typename }").await?;
    assert_eq!(
        answer["data"],
        json!({ "send": { "method": "POST", "path": "/send", "body": {} }, "__typename": "Mutation" })
    );
    Ok(())
}

async fn failures_are_errors_beside_data(shape: Shape) -> anyhow::Result<()> {
    let stage = Stage::with(shape, functions()).await?;
    let query = "{ mail { find fail secure none: find } oops: fail @mail }";
    let (status, answer) = stage.mesh.client.graphql(query, json!({})).await?;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["data"]["mail"]["find"]["path"], "/find");
    assert_eq!((&answer["data"]["mail"]["fail"], &answer["data"]["oops"]), (&Value::Null, &Value::Null));
    let errors: Vec<_> = answer["errors"].as_array().into_iter().flatten().collect();
    let told = |index: usize| (&errors[index]["message"], &errors[index]["path"], &errors[index]["extensions"]["code"]);
    assert_eq!(errors.len(), 3, "{answer}");
    assert_eq!(told(0), (&json!("boom"), &json!(["mail", "fail"]), &json!("FUNCTION")));
    assert_eq!((told(1).1, told(1).2), (&json!(["mail", "secure"]), &json!("UNAUTHENTICATED")));
    assert_eq!(told(2), (&json!("boom"), &json!(["oops"]), &json!("FUNCTION")));
    // A token goes along.
    let ann = stage.mesh.client.with_token(&token::sign(json!({ "id": "ann" })));
    let (_, answer) = ann.graphql("{ mail { secure } }", json!({})).await?;
    assert_eq!(answer["data"]["mail"]["secure"]["path"], "/secure", "{answer}");
    Ok(())
}

async fn queries_and_mutations_differ(shape: Shape) -> anyhow::Result<()> {
    let stage = Stage::with(shape, functions()).await?;
    let graphql = async |query: &str| stage.mesh.client.graphql(query, json!({})).await;
    // Mutations call one after the other, in their order.
    let (_, answer) = graphql("mutation { mail { a: send(n: 1) b: fail c: send(n: 3) } }").await?;
    assert_eq!(answer["errors"].as_array().map(Vec::len), Some(1), "{answer}");
    let bodies: Vec<Value> = stage.server.seen().into_iter().map(|seen| seen.body).collect();
    assert_eq!(bodies, [json!({ "n": 1 }), json!({}), json!({ "n": 3 })]);

    let (_, answer) = graphql("{ mail { send } }").await?;
    assert_eq!(
        answer["errors"][0]["message"], "function send of service mail is in Mutation, not in Query",
        "{answer}"
    );
    let path = "/v1/api/shop/graphql?query=%7Bsend%20%40mail%7D";
    let got = stage.mesh.client.send(http::Method::GET, path, &[], "").await?;
    assert_eq!(got.status(), 405, "a GET changes nothing");
    let path = "/v1/api/shop/graphql?query=%7Bmail%7Bfind%7D%7D";
    assert_eq!(stage.mesh.client.send(http::Method::GET, path, &[], "").await?.status(), 200);
    assert_eq!(stage.server.seen().len(), 1);
    Ok(())
}

async fn documents_that_are_refused(shape: Shape) -> anyhow::Result<()> {
    let stage = Stage::with(shape, functions()).await?;
    let mixed =
        "mutation { mail { send } update_artist(where: {artist_id: {_eq: 1}}, set: {name: \"x\"}) { affected } }";
    for query in [
        mixed,
        "{ mail }",
        "{ mail(a: 1) { find } }",
        "{ mail { find @include(if: true) @other } }",
        "{ find @mail(fnc: \"x\") }",
        "{ find @mail(func: 1) }",
        "{ find @mail(timeout: \"soon\") }",
        "{ find @nobody }",
        "{ nobody { find } }",
        "{ find(a: 1, a: 2) @mail }",
        "subscription { mail { find } }",
    ] {
        let (_, answer) = stage.mesh.staff().graphql(query, json!({})).await?;
        ensure!(answer["errors"][0]["message"].is_string() && answer.get("data").is_none(), "{query}: {answer}");
    }
    assert_eq!(stage.server.seen(), [], "nothing was called");
    Ok(())
}

async fn a_table_wins_over_a_service(shape: Shape) -> anyhow::Result<()> {
    let server = UserServer::start().await?;
    let resources = service(&server.url(), functions(), json!({})).replace("\"id\":\"mail\"", "\"id\":\"artist\"");
    let mesh = TestMesh::with(shape, Engine::Sqlite, &Setup { resources, ..Setup::default() }).await?;
    let query = "{ artist(limit: 1) { artist_id } artist_service { find } x: find @artist }";
    let (_, answer) = mesh.client.graphql(query, json!({})).await?;
    ensure!(answer["data"]["artist"][0]["artist_id"].is_number(), "{answer}");
    assert_eq!(answer["data"]["artist_service"]["find"]["path"], "/find");
    assert_eq!(answer["data"]["x"]["path"], "/find");
    Ok(())
}
