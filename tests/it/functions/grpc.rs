//! Functions of a gRPC server of the user's: found by reflection or in a file, called with JSON by every protocol.

use std::time::Duration;

use anyhow::{Context, ensure};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::Method;
use prost::Message;
use proto::api::v1::CallResponse;
use serde_json::{Value, json};
use tests::{
    client::{Client, Protocol, reason},
    engine::Engine,
    grpc_server::{GrpcServer, Reflection},
    mesh::{Setup, Shape, TestMesh},
    process::free_address,
    token,
    user_server::UserServer,
};

use super::{Answer, allowed, call, message};

scenarios!(
    a_contract_is_found_by_reflection_or_in_a_file,
    messages_are_json_and_back,
    integers_are_as_the_project_wants_them,
    the_identity_is_for_the_service_only,
    codes_keep_their_meaning,
    what_does_not_fit_is_refused,
    limits_of_time_size_and_number,
    who_leaves_cancels_the_call,
    what_is_idempotent_is_tried_again,
    a_server_that_comes_later_is_asked_again,
    rules_and_documents_ask_it_too,
    addresses_inside_are_not_dialled,
    servers_of_another_kind_are_told,
);

/// A mesh with a service `mail` of a gRPC server.
pub struct GrpcStage {
    /// The mesh.
    pub mesh: TestMesh,
    /// The server.
    pub server: GrpcServer,
}

/// The document of service `mail` of the server at `url`, with more keys of `grpc`.
pub fn service(url: &str, more: &Value, functions: Value) -> String {
    let mut grpc = json!({ "url": url, "service": "test.mail.v1.Mail" });
    for (key, value) in more.as_object().into_iter().flatten() {
        grpc[key] = value.clone();
    }
    let spec = json!({ "grpc": grpc, "functions": functions });
    json!({ "kind": "service", "meta": { "project": "shop", "id": "mail" }, "spec": spec }).to_string()
}

/// The same, with the contract found by reflection.
pub fn reflected(url: &str, functions: Value) -> String {
    service(url, &json!({ "reflection": true }), functions)
}

impl GrpcStage {
    /// With these functions.
    pub async fn with(shape: Shape, functions: Value) -> anyhow::Result<Self> {
        Self::limited(shape, functions, "").await
    }

    async fn limited(shape: Shape, functions: Value, limits: &'static str) -> anyhow::Result<Self> {
        let server = GrpcServer::start(Reflection::V1).await?;
        let resources = reflected(&server.url(), functions);
        let setup = Setup { resources, introspection: true, limits, ..Setup::default() };
        Ok(Self { mesh: TestMesh::with(shape, Engine::Sqlite, &setup).await?, server })
    }

    /// Calls by `services/mail/{function}`.
    pub async fn call(&self, function: &str, params: Value) -> anyhow::Result<Answer> {
        call(&self.mesh.client, &format!("services/mail/{function}"), json!({ "params": params })).await
    }

    /// Calls a function, which fails with this status and code.
    async fn fails(&self, function: &str, params: Value, expected: (u16, &str)) -> anyhow::Result<String> {
        let answer = self.call(function, params).await?;
        let told = answer.json()?;
        ensure!((answer.status, told["code"].as_str().unwrap_or_default()) == expected, "{function}: {answer:?}");
        Ok(told["error"].as_str().unwrap_or_default().to_owned())
    }
}

/// Calls a function until its answer is the one that is wanted.
async fn until(client: &Client, function: &str, is_wanted: impl Fn(u16, &Value) -> bool) -> anyhow::Result<Value> {
    let until = tokio::time::Instant::now() + Duration::from_secs(15);
    loop {
        let answer = call(client, &format!("services/mail/{function}"), json!({ "params": {} })).await?;
        let told = answer.json()?;
        if is_wanted(answer.status, &told) {
            return Ok(told);
        }
        ensure!(tokio::time::Instant::now() < until, "{answer:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn a_contract_is_found_by_reflection_or_in_a_file(shape: Shape) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("mail.bin");
    std::fs::write(&file, tests::mail::DESCRIPTORS)?;
    for (reflection, more) in [
        (Reflection::V1, json!({ "reflection": true })),
        (Reflection::V1Alpha, json!({ "reflection": true })),
        (Reflection::None, json!({ "descriptor": file })),
    ] {
        let server = GrpcServer::start(reflection).await?;
        let resources = service(&server.url(), &more, json!({ "Send": allowed(json!({})) }));
        let mesh = TestMesh::with(shape, Engine::Sqlite, &Setup { resources, ..Setup::default() }).await?;
        let answer = call(&mesh.client, "services/mail/Send", json!({ "params": { "to": "ann" } })).await?;
        ensure!((answer.status, &answer.json()?["text"]) == (200, &json!("sent to ann")), "{reflection:?}: {answer:?}");
        let answer = call(&mesh.client, "functions/mail/Send", json!({ "params": { "to": "ann" } })).await?;
        ensure!(answer.json()?["result"]["text"] == "sent to ann", "{reflection:?}: {answer:?}");
        // What is not listed is denied as everywhere.
        let denied = call(&mesh.client, "services/mail/Fail", json!({})).await?;
        ensure!((denied.status, &denied.json()?["code"]) == (403, &json!("DENIED")), "{denied:?}");
        mesh.stop().await;
    }
    Ok(())
}

async fn messages_are_json_and_back(shape: Shape) -> anyhow::Result<()> {
    let stage = GrpcStage::with(shape, json!({ "Send": allowed(json!({})), "Grow": allowed(json!({})) })).await?;
    let letter = json!({
        "to": "ann", "number": -9_007_199_254_740_993_i64, "big": u64::MAX, "tags": ["a", "b"], "counts": { "x": 1 },
        "data": "AQI=", "kind": "KIND_PARCEL", "sentAt": "2026-01-02T03:04:05.006Z", "delay": "1.500s",
        "more": { "a": [1.0, null, true, { "b": "c" }] }, "text": "hello", "urgent": false, "weight": 0.5,
    });
    let answer = stage.call("Send", letter.clone()).await?.json()?;
    assert_eq!(answer["letter"], letter);
    // Names of the proto, texts for integers and numbers of enums are taken too.
    let other = json!({ "number": "12", "big": "13", "sent_at": "2026-01-02T03:04:05Z", "kind": 1 });
    let answer = stage.call("Send", other).await?.json()?;
    let expected = json!({ "number": 12, "big": 13, "sentAt": "2026-01-02T03:04:05Z", "kind": "KIND_PARCEL" });
    assert_eq!(answer["letter"], expected);
    // No parameters are a message without fields.
    let empty = call(&stage.mesh.client, "services/mail/Send", json!({})).await?.json()?;
    assert_eq!((&empty["letter"], &empty["text"]), (&json!({}), &json!("sent to ")));
    let tree = json!({ "name": "root", "branches": [{ "name": "a", "branches": [{ "name": "b" }] }, {}] });
    assert_eq!(stage.call("Grow", tree.clone()).await?.json()?, tree);
    Ok(())
}

async fn integers_are_as_the_project_wants_them(shape: Shape) -> anyhow::Result<()> {
    let server = GrpcServer::start(Reflection::V1).await?;
    let project = json!({ "kind": "project", "meta": { "id": "other" }, "spec": { "numbers": "strings" } });
    let resources = reflected(&server.url(), json!({ "Send": allowed(json!({})) })).replace("\"shop\"", "\"other\"");
    let resources = format!("{project}\n---\n{resources}");
    let mesh = TestMesh::with(shape, Engine::Sqlite, &Setup { resources, ..Setup::default() }).await?;
    let other = mesh.client.with_project("other");
    let params = json!({ "params": { "number": -9_007_199_254_740_993_i64, "big": 9_007_199_254_740_992_u64 } });
    let (status, answer) = other.post("services/mail/Send", &params).await?;
    let expected = json!({ "number": "-9007199254740993", "big": 9_007_199_254_740_992_u64 });
    assert_eq!((status, &answer["letter"]), (200, &expected));
    Ok(())
}

async fn the_identity_is_for_the_service_only(shape: Shape) -> anyhow::Result<()> {
    let functions = json!({ "Send": allowed(json!({ "timeout": "7s" })), "Fail": allowed(json!({ "forward": true })) });
    let stage = GrpcStage::with(shape, functions).await?;
    let own = token::sign(json!({ "id": "ann" }));
    let ann = stage.mesh.client.with_token(&own);
    let path = "/v1/api/shop/services/mail/Send";
    let headers = [("content-type", "application/json"), ("x-request-id", "r-1")];
    let answer: Value = serde_json::from_slice(ann.send(Method::POST, path, &headers, "{}").await?.body())?;
    let metadata = &answer["metadata"];
    let text = |name: &str| metadata[name].as_str().unwrap_or_default().to_owned();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text("x-perigee-claims"))?)?;
    assert_eq!(claims["id"], "ann");
    assert_eq!(text("x-request-id"), "r-1");
    let left = text("grpc-timeout").strip_suffix('u').and_then(|micros| micros.parse::<u64>().ok());
    ensure!(left.is_some_and(|micros| (1_000_000..=7_000_000).contains(&micros)), "{metadata}");
    let bearer = text("authorization").strip_prefix("Bearer ").context("a token")?.to_owned();
    assert_ne!(bearer, own);
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::HS256);
    validation.set_audience(&["service:mail"]);
    let key = jsonwebtoken::DecodingKey::from_secret(token::SECRET.as_bytes());
    assert_eq!(jsonwebtoken::decode::<Value>(&bearer, &key, &validation)?.claims["id"], "ann");
    let again = stage.mesh.client.with_token(&bearer);
    assert_eq!(again.post("crud/music/invoice/read", &json!({ "op": "all", "find": {} })).await?.0, 401);

    let stranger = stage.call("Send", json!({})).await?.json()?;
    assert_eq!(URL_SAFE_NO_PAD.decode(stranger["metadata"]["x-perigee-claims"].as_str().unwrap_or_default())?, b"{}");
    Ok(())
}

async fn codes_keep_their_meaning(shape: Shape) -> anyhow::Result<()> {
    let stage = GrpcStage::with(shape, json!({ "Fail": allowed(json!({})) })).await?;
    for (of_server, status, code, grpc) in [
        (3, 400, "BAD_REQUEST", tonic::Code::InvalidArgument),
        (5, 404, "NOT_FOUND", tonic::Code::NotFound),
        (7, 403, "DENIED", tonic::Code::PermissionDenied),
        (8, 429, "TOO_MANY", tonic::Code::ResourceExhausted),
        (14, 503, "UNAVAILABLE", tonic::Code::Unavailable),
        (2, 500, "FUNCTION", tonic::Code::Unknown),
        (6, 500, "FUNCTION", tonic::Code::Unknown),
        (13, 500, "FUNCTION", tonic::Code::Unknown),
        (16, 500, "FUNCTION", tonic::Code::Unknown),
    ] {
        let params = json!({ "code": of_server, "text": "said so" });
        let wrapped = call(&stage.mesh.client, "functions/mail/Fail", json!({ "params": params })).await?;
        let told = wrapped.json()?;
        assert_eq!((wrapped.status, &told["code"], &told["error"]), (status, &json!(code), &json!("said so")));
        let bare = stage.call("Fail", params.clone()).await?;
        assert_eq!((bare.status, &bare.json()?["error"]), (status, &json!("said so")));
        let message = message("Fail", &params);
        let path = "/perigee.api.v1.Functions/Call";
        let answer = stage.mesh.client.unary_at::<_, CallResponse>(Protocol::Grpc, path, message).await?;
        let Err(refused) = answer else { anyhow::bail!("{of_server} is an error") };
        assert_eq!((refused.code(), refused.message()), (grpc, "said so"));
        if code != "DENIED" {
            assert_eq!(reason(&refused)?, code);
        }
        let document = format!("mutation {{ mail {{ Fail(code: {of_server}, text: \"said so\") }} }}");
        let (_, answer) = stage.mesh.client.graphql(&document, json!({})).await?;
        let error = &answer["errors"][0];
        assert_eq!((&error["extensions"]["code"], &error["message"]), (&json!(code), &json!("said so")), "{answer}");
    }
    Ok(())
}

async fn what_does_not_fit_is_refused(shape: Shape) -> anyhow::Result<()> {
    let functions = ["Send", "Collect", "Count", "Missing", "Pack"];
    let functions: serde_json::Map<String, Value> =
        functions.iter().map(|name| ((*name).to_owned(), allowed(json!({})))).collect();
    let stage = GrpcStage::with(shape, functions.into()).await?;
    let bad = (400, "BAD_REQUEST");
    let told = stage.fails("Send", json!({ "too": "ann" }), bad).await?;
    assert_eq!(told, "invalid params: unrecognized field name 'too'");
    for params in [
        json!([]),
        json!("x"),
        json!({ "to": 1 }),
        json!({ "big": -1 }),
        json!({ "number": 1.5 }),
        json!({ "data": "***" }),
        json!({ "kind": "KIND_LETTER" }),
        json!({ "sentAt": "yesterday" }),
        json!({ "text": "a", "tree": {} }),
    ] {
        let told = stage.fails("Send", params.clone(), bad).await?;
        ensure!(told.starts_with("invalid params: "), "{params}: {told}");
    }
    let nested = stage.fails("Send", json!({ "tree": { "branches": [{ "name": 1 }] } }), bad).await?;
    ensure!(nested.starts_with("invalid params: tree.branches[0].name: "), "{nested}");
    assert_eq!(stage.server.heard(), 0, "nothing of it reaches the server");

    let told = stage.fails("Collect", json!({}), bad).await?;
    assert_eq!(told, "function Collect takes a stream, and cannot be called");
    ensure!(stage.fails("Count", json!({}), bad).await?.starts_with("function Count answers with a stream"));
    let told = stage.fails("Missing", json!({}), (404, "NOT_FOUND")).await?;
    assert_eq!(told, "service mail has no method Missing");
    let told = stage.fails("Pack", json!({ "bytes": 100_000 }), (502, "BAD_GATEWAY")).await?;
    ensure!(told.contains("more than 128 levels"), "{told}");
    Ok(())
}

async fn limits_of_time_size_and_number(shape: Shape) -> anyhow::Result<()> {
    let functions = json!({
        "Send": allowed(json!({ "maxRequest": 20 })),
        "Large": allowed(json!({ "maxAnswer": 1000 })),
        "Wait": allowed(json!({ "timeout": "30s", "concurrency": 1, "queue": 0 })),
    });
    let stage = GrpcStage::with(shape, functions).await?;
    assert_eq!(stage.call("Send", json!({ "to": "0123456789" })).await?.status, 200);
    stage.fails("Send", json!({ "to": "01234567890123456789" }), (413, "TOO_LARGE")).await?;
    assert_eq!(stage.call("Large", json!({ "bytes": 900 })).await?.status, 200);
    for bytes in [995, 10_000, 100_000] {
        let told = stage.fails("Large", json!({ "bytes": bytes }), (413, "TOO_LARGE")).await?;
        assert_eq!(told, "the answer of the function is over the limit of 1000 bytes");
    }
    let waiting = call(&stage.mesh.client, "services/mail/Wait", json!({ "timeout": 1.5 }));
    let rest = async {
        stage.server.waits(1).await?;
        stage.fails("Wait", json!({}), (429, "TOO_MANY")).await
    };
    let (waited, rest) = futures::join!(waiting, rest);
    rest?;
    let waited = waited?;
    assert_eq!((waited.status, &waited.json()?["code"]), (504, &json!("DEADLINE")), "{waited:?}");
    stage.server.left(1).await
}

async fn who_leaves_cancels_the_call(shape: Shape) -> anyhow::Result<()> {
    let stage = GrpcStage::with(shape, json!({ "Wait": allowed(json!({ "timeout": "300s" })) })).await?;
    for round in 1..=3 {
        tokio::select! {
            answered = stage.call("Wait", json!({})) => anyhow::bail!("{answered:?}"),
            waits = stage.server.waits(round) => waits?,
        }
        stage.server.left(round).await?;
    }
    Ok(())
}

async fn what_is_idempotent_is_tried_again(shape: Shape) -> anyhow::Result<()> {
    let stage = GrpcStage::with(shape, json!({ "Fail": allowed(json!({ "idempotent": true })) })).await?;
    let answer = stage.call("Fail", json!({ "code": 14, "times": 2 })).await?;
    assert_eq!((answer.status, &answer.json()?["text"]), (200, &json!("after 2")));
    assert_eq!(stage.server.heard(), 3);
    // What is no matter of time is said once.
    stage.fails("Fail", json!({ "code": 9, "times": 5 }), (500, "")).await?;
    assert_eq!(stage.server.heard(), 1);
    Ok(())
}

async fn a_server_that_comes_later_is_asked_again(shape: Shape) -> anyhow::Result<()> {
    let address = free_address()?;
    let url = format!("http://{address}");
    let resources = reflected(&url, json!({ "Send": allowed(json!({})) }));
    let mesh = TestMesh::with(shape, Engine::Sqlite, &Setup { resources, ..Setup::default() }).await?;
    let first = call(&mesh.client, "services/mail/Send", json!({})).await?;
    let told = first.json()?;
    assert_eq!((first.status, &told["code"]), (503, &json!("UNAVAILABLE")), "{told}");
    ensure!(told["error"].as_str().is_some_and(|error| error.starts_with("No service available")), "{told}");
    // What does not work is told where operators look.
    let ready = async |is_wanted: fn(&str) -> bool| {
        let until = tokio::time::Instant::now() + Duration::from_secs(15);
        loop {
            let (_, told) = mesh.client.get("/ready").await?;
            let told = told.to_string();
            if is_wanted(&told) {
                return anyhow::Ok(());
            }
            ensure!(tokio::time::Instant::now() < until, "{told}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if shape == Shape::OneProcess {
        ready(|told| told.contains("service shop/mail at http://127.0.0.1")).await?;
    }
    let server = GrpcServer::at(address, Reflection::V1).await?;
    until(&mesh.client, "Send", |status, _| status == 200).await?;
    if shape == Shape::OneProcess {
        ready(|told| !told.contains("service shop/mail at")).await?;
    }
    // Another one at the same address is connected anew.
    drop(server);
    until(&mesh.client, "Send", |status, _| status == 503).await?;
    let _server = GrpcServer::at(address, Reflection::None).await?;
    until(&mesh.client, "Send", |status, _| status == 200).await?;
    Ok(())
}

async fn rules_and_documents_ask_it_too(shape: Shape) -> anyhow::Result<()> {
    let functions = json!({
        "Send": { "rule": { "rule": "func", "service": "mail", "func": "Grow" } },
        "Grow": allowed(json!({ "idempotent": true })),
        "Fail": allowed(json!({})),
    });
    let stage = GrpcStage::with(shape, functions).await?;
    let ann = stage.mesh.client.with_token(&token::sign(json!({ "id": "ann" })));
    // A guard that answers without `ack: true` refuses; its parameters are not of its message.
    let refused = call(&ann, "services/mail/Send", json!({})).await?;
    assert_eq!(refused.status, 403, "{refused:?}");
    let document = r#"{ mail { Grow(name: "a", branches: [{ name: "b" }]) } Grow(name: "c") @mail }"#;
    let (_, answer) = stage.mesh.client.graphql(document, json!({})).await?;
    let expected =
        json!({ "mail": { "Grow": { "name": "a", "branches": [{ "name": "b" }] } }, "Grow": { "name": "c" } });
    assert_eq!(answer["data"], expected, "{answer}");
    let (_, answer) = stage.mesh.client.graphql("{ mail { Fail(code: 2) } }", json!({})).await?;
    ensure!(answer["errors"][0]["message"].as_str().is_some_and(|text| text.contains("in Mutation")), "{answer}");
    Ok(())
}

async fn addresses_inside_are_not_dialled(shape: Shape) -> anyhow::Result<()> {
    let server = GrpcServer::start(Reflection::V1).await?;
    let port = server.address.port();
    let mesh = TestMesh::with(shape, Engine::Sqlite, &Setup::default()).await?;
    for (index, host) in
        ["0.0.0.0", "10.255.255.1", "169.254.169.254", "[::ffff:10.0.0.1]", "[fd00::1]"].iter().enumerate()
    {
        let function = format!("f{index}");
        let functions = json!({ function.clone(): allowed(json!({ "timeout": "60s" })) });
        mesh.edit(&reflected(&format!("http://{host}:{port}"), functions))?;
        let told = until(&mesh.client, &function, |status, _| status == 502).await?;
        assert_eq!(told["error"], "service mail is at an address that egress.allow does not list", "{host}");
    }
    assert_eq!(server.heard(), 0);
    Ok(())
}

async fn servers_of_another_kind_are_told(shape: Shape) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("mail.bin");
    std::fs::write(&file, tests::mail::DESCRIPTORS)?;
    // One of HTTP/1.1, and one without reflection.
    let (web, silent) = (UserServer::start().await?, GrpcServer::start(Reflection::None).await?);
    let mesh = TestMesh::with(shape, Engine::Sqlite, &Setup::default()).await?;
    let functions = |name: &str| json!({ name: allowed(json!({})) });
    mesh.edit(&service(&web.url(), &json!({ "descriptor": file }), functions("Send")))?;
    until(&mesh.client, "Send", |status, told| status == 502 && told["code"] == "BAD_GATEWAY").await?;
    // A file that is edited is in force, as its document is.
    let mut set = prost_types::FileDescriptorSet::decode(tests::mail::DESCRIPTORS)?;
    let services = set.file.iter_mut().flat_map(|file| &mut file.service);
    services.for_each(|service| service.method.retain(|method| method.name() != "Grow"));
    std::fs::write(&file, set.encode_to_vec())?;
    mesh.edit(&service(&silent.url(), &json!({ "descriptor": file }), functions("Grow")))?;
    until(&mesh.client, "Grow", |status, _| status == 404).await?;
    std::fs::write(&file, tests::mail::DESCRIPTORS)?;
    until(&mesh.client, "Grow", |status, _| status == 200).await?;
    mesh.edit(&reflected(&silent.url(), functions("Grow")))?;
    // Before, it is known to some of the nodes only.
    let text = "No service available: the contract of service mail is not known";
    until(&mesh.client, "Grow", |status, told| status == 503 && told["error"] == text).await?;
    // With another name there is no such service.
    let other = reflected(&silent.url(), functions("Large")).replace("mail.v1.Mail", "mail.v1.Post");
    mesh.edit(&other)?;
    until(&mesh.client, "Large", |status, _| status == 503).await?;
    Ok(())
}
