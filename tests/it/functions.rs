//! Functions of servers and workers of the user's, by every protocol, in both shapes of the mesh.

mod asked;
mod documented;
mod failures;
mod graphql;
mod grpc;
mod hooks;
mod json_workers;
mod limits;
mod lists;
mod schemas;
mod streams;
mod workers;

use anyhow::{Context, ensure};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::Method;
use proto::api::v1::{CallRequest, CallResponse};
use serde_json::{Value, json};
use tests::{
    client::{Client, Protocol, reason},
    engine::Engine,
    mesh::{Setup, Shape, TestMesh},
    token,
    user_server::UserServer,
};

scenarios!(
    golden_cases_of_calls,
    paths_and_headers_are_made_of_values,
    rules_see_claims_and_parameters,
    the_identity_is_for_the_service_only,
    answers_that_are_none,
    grpc_calls_functions_too,
    edited_services_are_in_force,
    calls_are_counted,
);

/// A call of a function of `mail` by gRPC.
fn message(function: &str, params: &Value) -> CallRequest {
    CallRequest {
        project: "shop".to_owned(),
        service: "mail".to_owned(),
        function: function.to_owned(),
        params: params.to_string().into_bytes().into(),
        timeout: None,
    }
}

/// A mesh with a service `mail` that is a server of the test.
struct Stage {
    mesh: TestMesh,
    server: UserServer,
}

/// The answer to a call.
#[derive(Debug)]
struct Answer {
    status: u16,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("{self:?}"))
    }
}

/// The document of service `mail` at `url` with these functions, and more of its `spec`.
fn service(url: &str, functions: Value, more: Value) -> String {
    let mut spec = json!({ "http": { "url": url }, "functions": functions });
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    // JSON is YAML.
    json!({ "kind": "service", "meta": { "project": "shop", "id": "mail" }, "spec": spec }).to_string()
}

fn allowed(more: Value) -> Value {
    let mut function = json!({ "rule": { "rule": "allow" } });
    for (key, value) in more.as_object().into_iter().flatten() {
        function[key] = value.clone();
    }
    function
}

impl Stage {
    async fn with(shape: Shape, functions: Value) -> anyhow::Result<Self> {
        Self::with_more(shape, functions, json!({})).await
    }

    async fn with_more(shape: Shape, functions: Value, more: Value) -> anyhow::Result<Self> {
        let server = UserServer::start().await?;
        let resources = service(&server.url(), functions, more);
        let mesh = TestMesh::with(shape, Engine::Sqlite, &Setup { resources, introspection: true, ..Setup::default() })
            .await?;
        Ok(Self { mesh, server })
    }

    /// Calls by `services/mail/{function}`.
    async fn call(&self, function: &str, body: Value) -> anyhow::Result<Answer> {
        call(&self.mesh.client, &format!("services/mail/{function}"), body).await
    }

    /// Calls a function, which fails with this status and code.
    async fn fails(&self, function: &str, body: Value, expected: (u16, &str)) -> anyhow::Result<Value> {
        let answer = self.call(function, body).await?;
        let told = answer.json()?;
        ensure!((answer.status, told["code"].as_str().unwrap_or_default()) == expected, "{function}: {answer:?}");
        Ok(told)
    }
}

async fn call(client: &Client, path: &str, body: Value) -> anyhow::Result<Answer> {
    let headers = [("content-type", "application/json")];
    let response = client.send(Method::POST, &format!("/v1/api/shop/{path}"), &headers, body.to_string()).await?;
    Ok(Answer { status: response.status().as_u16(), body: response.into_body() })
}

/// Cases 89 to 94 of the reference, and F05 to F31 as far as they are about HTTP.
async fn golden_cases_of_calls(shape: Shape) -> anyhow::Result<()> {
    let functions = json!({
        "add": allowed(json!({})),
        "fail": allowed(json!({ "path": "status/500" })),
        "missing": allowed(json!({ "path": "/status/404" })),
        "nothing": allowed(json!({ "path": "/status/204" })),
        "secure": { "rule": { "rule": "authenticated" } },
    });
    let stage = Stage::with(shape, functions).await?;
    let sent = json!({ "params": { "a": 1, "b": 12345678901234567890_u64 }, "timeout": 5 });

    let bare = stage.call("add", sent.clone()).await?;
    let echoed = json!({ "method": "POST", "path": "/add", "body": sent["params"] });
    assert_eq!((bare.status, bare.json()?), (200, echoed.clone()));
    assert_eq!(stage.server.only()?.headers["content-type"], "application/json");
    let wrapped = call(&stage.mesh.client, "functions/mail/add", sent).await?;
    assert_eq!((wrapped.status, wrapped.json()?), (200, json!({ "result": echoed })));

    for (function, status) in [("fail", 500), ("missing", 404)] {
        let bare = stage.call(function, json!({ "params": {} })).await?;
        assert_eq!((bare.status, bare.json()?), (status, json!({ "error": "boom" })), "{function}");
        let wrapped = call(&stage.mesh.client, &format!("functions/mail/{function}"), json!({})).await?;
        let told = wrapped.json()?;
        assert_eq!((wrapped.status, &told["error"], &told["code"]), (status, &json!("boom"), &json!("FUNCTION")));
    }
    let bare = stage.call("nothing", json!({})).await?;
    assert_eq!((bare.status, &bare.body[..]), (204, &b""[..]));
    let wrapped = call(&stage.mesh.client, "functions/mail/nothing", json!({})).await?;
    assert_eq!((wrapped.status, wrapped.json()?), (200, json!({ "result": null })));

    for path in ["services/mail/none", "functions/mail/none", "services/nobody/add", "functions/nobody/x"] {
        let denied = call(&stage.mesh.client, path, json!({})).await?;
        let told = denied.json()?;
        assert_eq!((denied.status, &told["code"]), (403, &json!("DENIED")), "{path}");
        assert_eq!(told["error"], "Auth: No rule has been provided", "{path}");
    }
    stage.fails("secure", json!({}), (401, "UNAUTHENTICATED")).await?;
    for body in [json!([]), json!({ "timeout": "soon" }), json!({ "timeout": -1 })] {
        stage.fails("add", body, (400, "BAD_REQUEST")).await?;
    }
    let got = stage.mesh.client.send(Method::GET, "/v1/api/shop/services/mail/add", &[], "").await?;
    assert_eq!((got.status().as_u16(), &got.headers()["allow"]), (405, &http::HeaderValue::from_static("POST")));
    let described = stage.mesh.client.get(&stage.mesh.client.openapi_path()).await?.1;
    for path in ["/services/{service}/{function}", "/functions/{service}/{function}"] {
        assert!(described["paths"][path]["post"]["responses"]["502"].is_object(), "{path}");
    }
    assert!(!described.to_string().contains("secure"), "names of functions are not told");
    let unknown = stage.mesh.client.send(Method::POST, "/v1/api/nowhere/services/mail/add", &[], "{}").await?;
    assert_eq!(unknown.status(), 404);
    Ok(())
}

async fn paths_and_headers_are_made_of_values(shape: Shape) -> anyhow::Result<()> {
    let headers = json!([
        { "key": "X-User", "value": "auth.id" },
        { "key": "X-N", "value": "args.n" },
        { "key": "X-Fixed", "value": "a b" },
        { "key": "X-Two", "value": "one", "op": "add" },
        { "key": "X-Two", "value": "two", "op": "add" },
        { "key": "Accept", "op": "del" },
    ]);
    let functions = json!({
        "get": allowed(json!({ "path": "/u/{args.id}/{auth.role}?q={args.id}", "method": "GET" })),
        "put": allowed(json!({ "path": "x", "method": "PUT", "headers": headers })),
    });
    let stage = Stage::with_more(shape, functions, json!({ "default": allowed(json!({})) })).await?;
    let ann = stage.mesh.client.with_token(&token::sign(json!({ "id": "ann", "role": "admin" })));

    let params = json!({ "params": { "id": "a/b?x={auth.role}#%2e" } });
    assert_eq!(call(&ann, "services/mail/get", params).await?.status, 200);
    let seen = stage.server.only()?;
    let encoded = "a%2Fb%3Fx%3D%7Bauth.role%7D%23%252e";
    assert_eq!((seen.method.as_str(), seen.path), ("GET", format!("/u/{encoded}/admin?q={encoded}")));

    for id in [json!(""), json!("."), json!(".."), json!(true), json!(null), json!([1]), json!({})] {
        let refused = call(&ann, "services/mail/get", json!({ "params": { "id": id } })).await?;
        ensure!(refused.status == 400, "{id}: {refused:?}");
    }
    let long = "x".repeat(100_000);
    for (function, params) in [("get", json!({ "id": long })), ("put", json!({ "n": long }))] {
        let refused = call(&ann, &format!("services/mail/{function}"), json!({ "params": params })).await?;
        ensure!(refused.status == 400, "{function}: {refused:?}");
    }
    let refused = stage.call(&"x".repeat(10_000), json!({})).await?;
    ensure!(refused.status == 400, "{refused:?}");
    // A stranger has no role.
    let refused = stage.call("get", json!({ "params": { "id": 5 } })).await?;
    assert_eq!((refused.status, &refused.json()?["code"]), (400, &json!("REQUIRED")));
    assert_eq!(stage.server.seen(), []);

    call(&ann, "services/mail/put", json!({ "params": { "n": { "a": 1 } } })).await?;
    let seen = stage.server.only()?;
    let header = |name: &str| seen.headers.get(name).map(String::as_str);
    assert_eq!((header("x-user"), header("x-n"), header("x-fixed")), (Some("ann"), Some("{\"a\":1}"), Some("a b")));
    assert_eq!((header("x-two"), seen.method.as_str()), (Some("one,two"), "PUT"));
    assert!(header("accept").is_none_or(|accept| accept != "application/json"), "{seen:?}");
    let split = call(&ann, "services/mail/put", json!({ "params": { "n": "a\r\nX-Evil: 1" } })).await?;
    assert_eq!(split.status, 400);
    stage.call("put", json!({ "params": {} })).await?;
    let seen = stage.server.only()?;
    assert!(!seen.headers.contains_key("x-user") && !seen.headers.contains_key("x-n"), "{seen:?}");

    // A function that is not listed is a path of its own, whatever its name.
    stage.call("a%2F..%2Fb", json!({})).await?;
    assert_eq!(stage.server.only()?.path, "/a%2F..%2Fb");
    Ok(())
}

async fn rules_see_claims_and_parameters(shape: Shape) -> anyhow::Result<()> {
    let rule = json!({ "rule": "or", "clauses": [
        { "rule": "match", "type": "string", "eval": "==", "f1": "args.params.to", "f2": "args.auth.mail" },
        { "rule": "match", "type": "string", "eval": "==", "f1": "args.auth.role", "f2": "staff" },
    ], "error": "only to yourself" });
    let functions = json!({ "send": { "rule": rule }, "never": { "rule": { "rule": "deny" } }, "unruled": {} });
    let stage = Stage::with(shape, functions).await?;
    let ann = stage.mesh.client.with_token(&token::sign(json!({ "mail": "ann@x" })));
    let staff = stage.mesh.staff();
    let status = async |client: &Client, to: Value| {
        anyhow::Ok(call(client, "services/mail/send", json!({ "params": { "to": to } })).await?.status)
    };
    assert_eq!(status(&ann, json!("ann@x")).await?, 200);
    assert_eq!(status(&staff, json!("bob@x")).await?, 200);
    assert_eq!(stage.server.seen().len(), 2);
    for to in [json!("bob@x"), json!(["ann@x"]), json!(null)] {
        assert_eq!(status(&ann, to).await?, 403);
    }
    let denied = call(&ann, "services/mail/send", json!({})).await?.json()?;
    assert_eq!(denied["error"], "only to yourself");
    let expired = stage.mesh.client.with_token(&token::sign_with(json!({ "mail": "ann@x" }), token::SECRET, -5));
    assert_eq!(status(&expired, json!("ann@x")).await?, 401);
    assert_eq!(status(&stage.mesh.client, json!("ann@x")).await?, 401);
    stage.fails("never", json!({}), (403, "DENIED")).await?;
    stage.fails("unruled", json!({}), (403, "DENIED")).await?;
    assert_eq!(stage.server.seen(), [], "what is denied is not called");
    Ok(())
}

async fn the_identity_is_for_the_service_only(shape: Shape) -> anyhow::Result<()> {
    let functions = json!({
        "who": allowed(json!({})),
        "own": allowed(json!({ "forward": true })),
        "secure": { "rule": { "rule": "authenticated" } },
    });
    let stage = Stage::with(shape, functions).await?;
    let own = token::sign(json!({ "id": "ann", "role": "admin" }));
    let ann = stage.mesh.client.with_token(&own);

    call(&ann, "services/mail/who", json!({})).await?;
    let seen = stage.server.only()?;
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(&seen.headers["x-perigee-claims"])?)?;
    assert_eq!((&claims["id"], &claims["role"]), (&json!("ann"), &json!("admin")));
    let bearer = seen.headers["authorization"].strip_prefix("Bearer ").context("a token")?;
    assert_ne!(bearer, own);
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::HS256);
    validation.set_audience(&["service:mail"]);
    let key = jsonwebtoken::DecodingKey::from_secret(token::SECRET.as_bytes());
    let verified = jsonwebtoken::decode::<Value>(bearer, &key, &validation)?.claims;
    assert_eq!(verified["id"], "ann");
    assert_eq!(verified["exp"].as_i64().context("exp")? - verified["iat"].as_i64().context("iat")?, 60);
    // Who was called cannot call in the name of its caller.
    let again = stage.mesh.client.with_token(bearer);
    assert_eq!(call(&again, "services/mail/secure", json!({})).await?.status, 401);
    assert_eq!(again.post("crud/music/invoice/read", &json!({ "op": "all", "find": {} })).await?.0, 401);

    stage.call("who", json!({})).await?;
    let seen = stage.server.only()?;
    assert_eq!(URL_SAFE_NO_PAD.decode(&seen.headers["x-perigee-claims"])?, b"{}");

    call(&ann, "services/mail/own", json!({})).await?;
    assert_eq!(stage.server.only()?.headers["authorization"], format!("Bearer {own}"));
    call(&stage.mesh.client.with_token("a.b.c"), "services/mail/own", json!({})).await?;
    assert!(!stage.server.only()?.headers.contains_key("authorization"));
    Ok(())
}

async fn answers_that_are_none(shape: Shape) -> anyhow::Result<()> {
    let functions = ["text", "empty", "redirect", "early", "cut"];
    let mut functions: serde_json::Map<String, Value> =
        functions.iter().map(|name| ((*name).to_owned(), allowed(json!({})))).collect();
    functions.insert("status".to_owned(), allowed(json!({ "path": "/status/{args.status}" })));
    let stage = Stage::with(shape, functions.into()).await?;
    for function in ["text", "empty", "redirect", "early", "cut"] {
        stage.fails(function, json!({}), (502, "BAD_GATEWAY")).await?;
        let seen = stage.server.only()?;
        assert_eq!(seen.path, format!("/{function}"), "a redirect is not followed");
    }
    for status in ["600", "999"] {
        let answered = stage.call("status", json!({ "params": { "status": status } })).await?;
        assert_eq!((answered.status, &answered.json()?["code"]), (502, &json!("BAD_GATEWAY")), "{status}");
    }
    // Nobody listens at a port that was just free.
    let closed = tests::process::free_address()?;
    stage.mesh.edit(&service(&format!("http://{closed}"), json!({ "gone": allowed(json!({})) }), json!({})))?;
    // Before, it is known to some of the nodes only.
    let is_told = |told: &Value| told["error"].as_str().is_some_and(|text| text.starts_with("No service available"));
    let told = until(&stage, "gone", |status, told| status == 503 && is_told(told)).await?;
    assert_eq!(told["code"], "UNAVAILABLE");
    Ok(())
}

/// Calls a function until its answer is the one that is wanted.
async fn until(stage: &Stage, function: &str, is_wanted: impl Fn(u16, &Value) -> bool) -> anyhow::Result<Value> {
    let until = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        let answer = stage.call(function, json!({})).await?;
        let told = answer.json()?;
        if is_wanted(answer.status, &told) {
            return Ok(told);
        }
        ensure!(tokio::time::Instant::now() < until, "{answer:?}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

async fn grpc_calls_functions_too(shape: Shape) -> anyhow::Result<()> {
    let functions = json!({
        "add": allowed(json!({})),
        "fail": allowed(json!({ "path": "/status/409" })),
        "nothing": allowed(json!({ "path": "/status/204" })),
        "hang": allowed(json!({})),
    });
    let stage = Stage::with(shape, functions).await?;
    let request = |function: &str, params: &str, timeout: Option<i32>| CallRequest {
        params: params.as_bytes().to_vec().into(),
        timeout: timeout.map(|nanos| prost_types::Duration { seconds: 0, nanos }),
        ..message(function, &Value::Null)
    };
    for protocol in [Protocol::Grpc, Protocol::GrpcWeb] {
        let call = async |message: CallRequest| {
            let path = "/perigee.api.v1.Functions/Call";
            stage.mesh.client.unary_at::<_, CallResponse>(protocol, path, message).await
        };
        let added = call(request("add", r#"{"a":1}"#, None)).await??;
        assert_eq!(serde_json::from_slice::<Value>(&added.result)?["body"], json!({ "a": 1 }));
        assert_eq!(call(request("nothing", "", None)).await??.result, "null");
        for (message, code, expected) in [
            (request("fail", "{}", None), tonic::Code::Unknown, "FUNCTION"),
            (request("none", "{}", None), tonic::Code::PermissionDenied, "DENIED"),
            (request("add", "{", None), tonic::Code::InvalidArgument, "BAD_REQUEST"),
            (request("add", "{}", Some(-1)), tonic::Code::InvalidArgument, "BAD_REQUEST"),
            (request("", "{}", None), tonic::Code::InvalidArgument, "REQUIRED"),
            (request("hang", "{}", Some(1_000_000)), tonic::Code::DeadlineExceeded, "DEADLINE"),
        ] {
            let Err(refused) = call(message.clone()).await? else { anyhow::bail!("{message:?} is refused") };
            assert_eq!((refused.code(), reason(&refused)?.as_str()), (code, expected), "{message:?}: {refused:?}");
        }
    }
    Ok(())
}

async fn edited_services_are_in_force(shape: Shape) -> anyhow::Result<()> {
    let stage = Stage::with(shape, json!({ "add": allowed(json!({})) })).await?;
    assert_eq!(stage.call("add", json!({})).await?.status, 200);
    let other = UserServer::start().await?;
    stage.mesh.edit(&service(&other.url(), json!({ "other": allowed(json!({})) }), json!({})))?;
    until(&stage, "other", |status, _| status == 200).await?;
    assert_eq!(other.seen().last().context("it was called")?.path, "/other");
    stage.fails("add", json!({}), (403, "DENIED")).await?;
    Ok(())
}

async fn calls_are_counted(shape: Shape) -> anyhow::Result<()> {
    let stage =
        Stage::with(shape, json!({ "add": allowed(json!({})), "fail": allowed(json!({ "path": "/status/404" })) }))
            .await?;
    stage.call("add", json!({})).await?;
    stage.call("fail", json!({})).await?;
    let metrics = stage.mesh.metrics().await?;
    for line in [
        r#"perigee_function_answers_total{class="2xx"} 1"#,
        r#"perigee_function_answers_total{class="4xx"} 1"#,
        r#"perigee_requests_total{service="functions",method="Call",code="Ok"} 2"#,
        "perigee_function_calls 0",
    ] {
        ensure!(metrics.lines().any(|have| have == line), "{line} is not in\n{metrics}");
    }
    Ok(())
}
