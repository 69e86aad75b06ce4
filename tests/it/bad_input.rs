//! Invalid input: every request gets its code and a message that names the fault, and the node stays up.

use http::Method;
use jsonwebtoken::{Algorithm, Header};
use proto::api::v1 as api;
use serde_json::{Value, json};
use tests::{
    client::{Client, Protocol, reason},
    engine::Engine,
    mesh::{Shape, TestMesh},
    token,
};

scenarios!(
    bodies_that_are_no_request_are_refused,
    documents_beyond_reason_are_refused,
    tokens_that_prove_nothing_are_refused,
    bytes_that_are_no_message_are_an_invalid_argument,
    paths_and_methods_that_lead_nowhere_say_so,
    a_write_of_everything_is_refused_by_every_way,
);

const GRAPHQL: &str = "/v1/api/shop/graphql";
const READ: &str = "/v1/api/shop/crud/music/album/read";

async fn mesh(shape: Shape) -> anyhow::Result<TestMesh> {
    TestMesh::shop(shape, Engine::Sqlite).await
}

/// Status and code of the answer, whichever envelope it has.
async fn post(client: &Client, path: &str, body: impl Into<bytes::Bytes>) -> anyhow::Result<(u16, String, String)> {
    let response = client.send(Method::POST, path, &[("content-type", "application/json")], body).await?;
    let body: Value = serde_json::from_slice(response.body())?;
    let error = body["errors"].get(0);
    let code = error.map_or(&body["code"], |error| &error["extensions"]["code"]);
    let text = error.map_or(&body["error"], |error| &error["message"]);
    let plain = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok((response.status().as_u16(), plain(code), plain(text)))
}

async fn lives(mesh: &TestMesh) -> anyhow::Result<()> {
    let (status, answer) = mesh.client.graphql("{ album_by_pk(album_id: 1) { album_id } }", json!({})).await?;
    assert_eq!((status, &answer["data"]), (200, &json!({ "album_by_pk": { "album_id": 1 } })));
    Ok(())
}

async fn bodies_that_are_no_request_are_refused(shape: Shape) -> anyhow::Result<()> {
    let mesh = mesh(shape).await?;
    let deep = format!(r#"{{"op":"all","find":{}{{"album_id":1}}{}}}"#, r#"{"$not":"#.repeat(100), "}".repeat(100));
    let deeper = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let bodies: [(&str, Vec<u8>, u16, &str, &str); 14] = [
        (READ, b"{".to_vec(), 400, "BAD_REQUEST", "JSON"),
        (READ, b"{\"op\":\"all\"".to_vec(), 400, "BAD_REQUEST", "JSON"),
        (READ, b"{\"op\":\"all\"} trailing".to_vec(), 400, "BAD_REQUEST", ""),
        (READ, b"\"\xff\xfe\"".to_vec(), 400, "BAD_REQUEST", ""),
        (READ, b"{\"op\":\"all\",\"find\":{\"title\":\"\xff\"}}".to_vec(), 400, "BAD_REQUEST", ""),
        (READ, br#"{"op":"all","find":{"title":"a\u0000b"}}"#.to_vec(), 400, "BAD_REQUEST", "NUL"),
        (READ, br#"{"op":"all","find":{"ti\u0000tle":"a"}}"#.to_vec(), 400, "BAD_REQUEST", "NUL"),
        (READ, br#"{"op":"all","find":{"album_id":1,"album_id":2}}"#.to_vec(), 400, "BAD_REQUEST", "album_id"),
        (READ, br#"{"op":"everything"}"#.to_vec(), 400, "BAD_REQUEST", "op"),
        (READ, br#"{"op":"all","find":{"album_id":99999999999999999999}}"#.to_vec(), 400, "OUT_OF_RANGE", "album_id"),
        (READ, deep.into_bytes(), 400, "TOO_COMPLEX", "depth"),
        (READ, deeper.into_bytes(), 400, "TOO_COMPLEX", "depth"),
        (READ, vec![b' '; 9 * 1024 * 1024], 413, "TOO_LARGE", ""),
        (GRAPHQL, vec![b' '; 9 * 1024 * 1024], 413, "TOO_LARGE", ""),
    ];
    for (path, body, status, code, names) in bodies {
        let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
        let (got, reason, text) = post(&mesh.client, path, body).await?;
        assert_eq!((got, reason.as_str()), (status, code), "{shown}: {text}");
        assert!(text.contains(names), "{shown}: {text}");
    }
    lives(&mesh).await?;
    mesh.stop().await;
    Ok(())
}

async fn documents_beyond_reason_are_refused(shape: Shape) -> anyhow::Result<()> {
    let mesh = mesh(shape).await?;
    let many = format!("{{ album {{ {} }} }}", (0..10_000).map(|n| format!("f{n}: title ")).collect::<String>());
    let nested = format!("{}{}", "{ album { artist ".repeat(20_000), "} }".repeat(20_000));
    let tower = format!("{{ artist {} {{ name }} {} }}", "{ album { artist ".repeat(12), "} }".repeat(12));
    let bomb = (0..30).fold("{ album { ...f0 } }".to_owned(), |text, n| {
        format!("{text} fragment f{n} on Album {{ ...f{m} ...f{m} }}", m = n + 1)
    }) + " fragment f30 on Album { title }";
    let documents = [
        (many.as_str(), "TOO_COMPLEX"),
        (nested.as_str(), "TOO_COMPLEX"),
        (tower.as_str(), "TOO_COMPLEX"),
        ("{ album { ...a } } fragment a on Album { ...b } fragment b on Album { ...a }", "BAD_REQUEST"),
        ("{ album { ...a } } fragment a on Album { ...a }", "BAD_REQUEST"),
        ("{ album { ...nobody } }", "BAD_REQUEST"),
        ("{", "BAD_REQUEST"),
        ("", "BAD_REQUEST"),
        ("{ album @nope { title } }", ""),
        ("{ album { titel } }", "UNKNOWN_COLUMN"),
        ("{ album(wher: {}) { title } }", "UNKNOWN_ARGUMENT"),
        ("{ album(where: {title: {_like_: \"x\"}}) { title } }", "UNKNOWN_OPERATOR"),
        ("{ album(where: {title: 5}) { title } }", "WRONG_TYPE"),
        ("{ album(where: {album_id: 99999999999999999999}) { title } }", "OUT_OF_RANGE"),
        ("{ album(limit: \"2\") { title } }", "WRONG_TYPE"),
        ("{ album(limit: -1) { title } }", "BAD_REQUEST"),
        ("query($id: Int!) { album_by_pk(album_id: $id) { title } }", "REQUIRED"),
        ("subscription { album { title } }", "BAD_REQUEST"),
        ("mutation { drop_album { status } }", ""),
    ];
    for (document, code) in documents {
        let shown = &document[..document.len().min(80)];
        let (status, reason, text) = post(&mesh.client, GRAPHQL, json!({ "query": document }).to_string()).await?;
        assert!((400..500).contains(&status), "{shown}: {status} {text}");
        assert!(code.is_empty() || reason == code, "{shown}: wanted {code}, got {reason} {text}");
        assert!(!text.is_empty() && text.len() < 1000, "{shown}: {text}");
    }
    // 2^30 spreads of one field are one field, found without walking them all.
    let (status, response) = mesh.client.graphql(&bomb, json!({})).await?;
    assert!(status == 200 && response["data"]["album"][0]["title"].is_string(), "{status}");
    lives(&mesh).await?;
    mesh.stop().await;
    Ok(())
}

async fn tokens_that_prove_nothing_are_refused(shape: Shape) -> anyhow::Result<()> {
    let mesh = mesh(shape).await?;
    let claims = json!({ "id": 5 });
    let header = Header::new(Algorithm::HS256);
    let none = {
        let valid = token::sign(claims.clone());
        let (_, rest) = valid.split_once('.').expect("a token has parts");
        let (payload, _) = rest.split_once('.').expect("a token has parts");
        // {"alg":"none","typ":"JWT"}
        format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{payload}.")
    };
    let mut unknown = header.clone();
    unknown.kid = Some("another".to_owned());
    let tokens = [
        ("another key", token::sign_with(claims.clone(), "another-secret-of-another-project-here", 60)),
        ("expired", token::sign_with(claims.clone(), token::SECRET, -10)),
        ("none", none),
        ("garbage", "garbage".to_owned()),
        ("three parts of garbage", "a.b.c".to_owned()),
        ("another algorithm", token::sign_raw(&claims, token::SECRET, &Header::new(Algorithm::HS512))),
        ("an unknown key id", token::sign_raw(&claims, token::SECRET, &unknown)),
        ("exp as text", token::sign_raw(&json!({ "id": 5, "exp": "4000000000" }), token::SECRET, &header)),
        ("exp zero", token::sign_raw(&json!({ "id": 5, "exp": 0 }), token::SECRET, &header)),
        ("not yet", token::sign_raw(&json!({ "id": 5, "nbf": 4_000_000_000_i64 }), token::SECRET, &header)),
        ("claims that are no object", token::sign_raw(&json!([5]), token::SECRET, &header)),
    ];
    for (about, token) in tokens {
        let caller = mesh.client.with_token(&token);
        let (status, code, text) = post(&caller, GRAPHQL, r#"{"query":"{ invoice { total } }"}"#).await?;
        assert_eq!((status, code.as_str()), (401, "UNAUTHENTICATED"), "{about}: {text}");
        let (status, code, text) = post(&caller, "/v1/api/shop/crud/music/invoice/read", r#"{"op":"all"}"#).await?;
        assert_eq!((status, code.as_str()), (401, "UNAUTHENTICATED"), "{about}: {text}");
        for protocol in [Protocol::Grpc, Protocol::GrpcWeb] {
            let request = api::ReadRequest {
                project: "shop".to_owned(),
                database: "music".to_owned(),
                table: "invoice".to_owned(),
                ..Default::default()
            };
            let answer: Result<api::ReadResponse, tonic::Status> = caller.unary(protocol, "Read", request).await?;
            let status = answer.expect_err("no rows without proof");
            assert_eq!(status.code(), tonic::Code::Unauthenticated, "{about} by {protocol:?}");
        }
        // A rule that asks for nothing does not look at the token.
        let (status, _) = caller.graphql("{ genre { name } }", json!({})).await?;
        assert_eq!(status, 200, "{about}");
    }
    lives(&mesh).await?;
    mesh.stop().await;
    Ok(())
}

async fn bytes_that_are_no_message_are_an_invalid_argument(shape: Shape) -> anyhow::Result<()> {
    let mesh = mesh(shape).await?;
    for bytes in [&b"\xff\xff\xff\xff"[..], b"\x0a\xff", b"not protobuf at all"] {
        let answer: Result<api::ReadResponse, tonic::Status> =
            mesh.client.grpc_web("/perigee.api.v1.Data/Read", bytes).await?;
        let status = answer.expect_err("no rows for no request");
        assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status:?}");
        assert_eq!(reason(&status)?, "BAD_REQUEST");
    }
    lives(&mesh).await?;
    mesh.stop().await;
    Ok(())
}

async fn paths_and_methods_that_lead_nowhere_say_so(shape: Shape) -> anyhow::Result<()> {
    let mesh = mesh(shape).await?;
    let requests = [
        (Method::GET, "/nowhere", 404, "NOT_FOUND"),
        (Method::GET, "/v1/api/shop/crud/music/album/read", 405, "METHOD"),
        (Method::DELETE, "/v1/api/shop/graphql", 405, "METHOD"),
        (Method::POST, "/v1/api/nobody/crud/music/album/read", 404, "UNKNOWN_PROJECT"),
        (Method::POST, "/v1/api/nobody/graphql", 404, "UNKNOWN_PROJECT"),
        (Method::POST, "/v1/api/shop/crud/nothing/album/read", 401, "UNAUTHENTICATED"),
        (Method::POST, "/v1/api/shop/crud/music/al%00bum/read", 400, "BAD_REQUEST"),
        (Method::POST, "/v1/api/shop/crud/music/al%ffbum/read", 400, "BAD_REQUEST"),
        (Method::POST, "/v1/api/shop/crud/music/%22;drop/read", 401, "UNAUTHENTICATED"),
    ];
    for (method, path, wanted, code) in requests {
        let headers = [("content-type", "application/json"), ("x-request-id", "mine-1")];
        let body = if path.ends_with("graphql") { r#"{"query":"{ album { title } }"}"# } else { r#"{"op":"all"}"# };
        let response = mesh.client.send(method.clone(), path, &headers, body).await?;
        let answer: Value = serde_json::from_slice(response.body())?;
        let reason = answer["errors"].get(0).map_or(&answer["code"], |error| &error["extensions"]["code"]);
        assert_eq!((response.status().as_u16(), reason), (wanted, &json!(code)), "{method} {path}: {answer}");
        assert_eq!(response.headers().get("x-request-id").map(|id| id.as_bytes()), Some(&b"mine-1"[..]), "{path}");
    }
    lives(&mesh).await?;
    mesh.stop().await;
    Ok(())
}

async fn a_write_of_everything_is_refused_by_every_way(shape: Shape) -> anyhow::Result<()> {
    let mesh = mesh(shape).await?;
    let staff = mesh.staff();
    let (status, code, _) =
        post(&staff, "/v1/api/shop/crud/music/track/update", r#"{"op":"all","update":{"$set":{"unit_price":1}}}"#)
            .await?;
    assert_eq!((status, code.as_str()), (400, "WHERE_REQUIRED"));
    let document = r#"{"query":"mutation { update_track(where: {}, set: {unit_price: 1}) { affected } }"}"#;
    let (_, code, _) = post(&staff, GRAPHQL, document).await?;
    assert_eq!(code, "WHERE_REQUIRED");
    let changed = mesh.music.number("SELECT count(*) FROM track WHERE unit_price = 1").await?;
    assert_eq!(changed, 0);
    mesh.stop().await;
    Ok(())
}
