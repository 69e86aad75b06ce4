//! GraphQL sockets by the subprotocol `graphql-ws`, which clients spoke before `graphql-transport-ws`.

use anyhow::Context;
use serde_json::{Value, json};
use tests::{
    engine::{Database, Engine},
    mesh::{ENGINES, OPEN_LAB, Setup, Shape, TestMesh},
    node_tool,
    socket::{Incoming, Socket},
    token,
};
use tokio_tungstenite::tungstenite::Message;

scenarios!(
    live_queries_queries_and_mutations_are_answered,
    the_handshake_decides_what_is_spoken,
    the_golden_exchange_is_answered,
    each_operation_may_have_its_token,
    who_breaks_the_protocol_is_told_so,
    a_node_that_stops_says_so,
    clients_of_npm_are_served,
);

const NOTES: &str = "CREATE TABLE note (id BIGINT PRIMARY KEY, owner TEXT, text TEXT);
    CREATE TABLE other (id BIGINT PRIMARY KEY);";

/// Rules that let everybody see their own notes.
const OWN: &str = "---\nkind: table\nmeta: { project: shop, database: lab, id: note }\n\
    spec: { rules: { read: { rule: match, type: string, eval: \"==\", f1: args.find.owner, f2: args.auth.id } } }\n";

async fn notes(shape: Shape, engine: Engine, resources: &str) -> anyhow::Result<(TestMesh, Database)> {
    let setup = Setup { lab: Some(NOTES.to_owned()), resources: resources.to_owned(), ..Setup::default() };
    let mesh = TestMesh::with(shape, engine, &setup).await?;
    let database = mesh.lab.clone().context("the lab")?;
    Ok((mesh, database))
}

async fn start(socket: &mut Socket, id: &str, query: &str) -> anyhow::Result<()> {
    socket.send(&json!({ "type": "start", "id": id, "payload": { "query": query } })).await
}

/// The next message, which has this type and id; its payload.
async fn told(socket: &mut Socket, r#type: &str, id: &str) -> anyhow::Result<Value> {
    match socket.next().await? {
        Incoming::Message(mut message) if message["type"] == r#type && message["id"] == id => {
            Ok(message["payload"].take())
        }
        other => anyhow::bail!("no {type} of {id}: {other:?}"),
    }
}

async fn data(socket: &mut Socket, id: &str) -> anyhow::Result<Value> {
    Ok(told(socket, "data", id).await?["data"].take())
}

/// The code of the error of an operation, whose message stands beside the list.
async fn code(socket: &mut Socket, id: &str) -> anyhow::Result<Value> {
    let mut payload = told(socket, "error", id).await?;
    assert_eq!(payload["message"], payload["errors"][0]["message"]);
    Ok(payload["errors"][0]["extensions"]["code"].take())
}

async fn live_queries_queries_and_mutations_are_answered(shape: Shape) -> anyhow::Result<()> {
    for engine in ENGINES {
        let (mesh, lab) = notes(shape, engine, OPEN_LAB).await?;
        let mut socket = Socket::open_legacy(mesh.client.address(), json!({})).await?;
        let with_variables = json!({
            "query": "subscription L($text: String!) { note(where: {text: {_eq: $text}}) { id } }",
            "variables": { "text": "b" }, "operationName": "L", "extensions": null,
        });
        socket.send(&json!({ "type": "start", "id": "1", "payload": with_variables })).await?;
        assert_eq!(data(&mut socket, "1").await?, json!({ "note": [] }));
        lab.run("INSERT INTO note VALUES (7, NULL, 'b')").await?;
        assert_eq!(data(&mut socket, "1").await?, json!({ "note": [{ "id": 7 }] }));

        for (query, answer) in [
            ("mutation { insert_note(docs: [{id: 8}]) { affected } }", json!({ "insert_note": { "affected": 1 } })),
            ("{ __typename note_by_pk(id: 8) { id } }", json!({ "__typename": "Query", "note_by_pk": { "id": 8 } })),
        ] {
            start(&mut socket, "q", query).await?;
            assert_eq!(data(&mut socket, "q").await?, answer);
            assert_eq!(told(&mut socket, "complete", "q").await?, Value::Null);
        }
        socket.send(&json!({ "type": "stop", "id": "1" })).await?;
        assert_eq!(told(&mut socket, "complete", "1").await?, Value::Null);
        // Another operation may have its id, also while the first one runs.
        for text in ["c", "d"] {
            let query = format!("subscription {{ note(where: {{text: {{_eq: \"{text}\"}}}}) {{ text }} }}");
            start(&mut socket, "1", &query).await?;
            assert_eq!(data(&mut socket, "1").await?, json!({ "note": [] }));
        }
        lab.run("INSERT INTO note VALUES (9, NULL, 'c'), (10, NULL, 'd')").await?;
        assert_eq!(data(&mut socket, "1").await?, json!({ "note": [{ "text": "d" }] }));
        socket.send(&json!({ "type": "connection_terminate" })).await?;
        assert_eq!(socket.next().await?, Incoming::Closed(1000));
        mesh.stop().await;
    }
    Ok(())
}

async fn the_handshake_decides_what_is_spoken(shape: Shape) -> anyhow::Result<()> {
    let (mesh, _) = notes(shape, Engine::Sqlite, OPEN_LAB).await?;
    for path in ["/v1/api/shop/graphql", "/v1/api/shop/graphql/socket"] {
        for (offered, spoken) in [
            (Some("graphql-ws"), Ok("graphql-ws")),
            (Some("graphql-transport-ws"), Ok("graphql-transport-ws")),
            (Some("graphql-ws, graphql-transport-ws"), Ok("graphql-transport-ws")),
            (Some("chat"), Err(400)),
            (None, Err(400)),
        ] {
            let header = offered.map(|offered| ("sec-websocket-protocol", offered));
            // A client that offers several takes any of them.
            let socket = Socket::connect(mesh.client.address(), path, header.as_slice()).await;
            let got = socket.as_ref().map(|socket| socket.protocol.as_str()).map_err(|status| *status);
            assert_eq!(got, spoken, "{path} {offered:?}");
        }
    }
    mesh.stop().await;
    Ok(())
}

/// The exchange that clients of the predecessor know, as far as it is not about single rows.
async fn the_golden_exchange_is_answered(shape: Shape) -> anyhow::Result<()> {
    let (mesh, _) = notes(shape, Engine::Sqlite, OPEN_LAB).await?;
    let path = "/v1/api/shop/graphql/socket";
    let connected = Socket::connect(mesh.client.address(), path, &[("sec-websocket-protocol", "graphql-ws")]).await;
    let mut socket = connected.map_err(|status| anyhow::anyhow!("refused with {status}"))?;
    socket.send(&json!({ "id": "i", "type": "connection_init" })).await?;
    assert_eq!(told(&mut socket, "connection_ack", "i").await?, json!({}));
    assert_eq!(told(&mut socket, "ka", "i").await?, json!({}));
    socket.send(&json!({ "id": "9", "type": "stop" })).await?;
    assert_eq!(told(&mut socket, "error", "9").await?["message"], "got stop wanted start");
    socket.send(&json!({ "id": "x", "type": "bogus" })).await?;
    assert_eq!(told(&mut socket, "error", "x").await?["message"], "invalid message type (bogus) provided");
    start(&mut socket, "1", "subscription {").await?;
    assert_eq!(code(&mut socket, "1").await?, "BAD_REQUEST");
    start(&mut socket, "1", "subscription { note { id } other { id } }").await?;
    assert_eq!(code(&mut socket, "1").await?, "BAD_REQUEST");
    // It stays open.
    start(&mut socket, "1", "{ note { id } }").await?;
    assert_eq!(data(&mut socket, "1").await?, json!({ "note": [] }));
    mesh.stop().await;
    Ok(())
}

async fn each_operation_may_have_its_token(shape: Shape) -> anyhow::Result<()> {
    for engine in ENGINES {
        let (mesh, lab) = notes(shape, engine, OWN).await?;
        lab.run("INSERT INTO note VALUES (1, 'ann', 'a'), (2, 'bob', 'b')").await?;
        let (ann, bob) = (token::sign(json!({ "id": "ann" })), token::sign(json!({ "id": "bob" })));
        let short = token::sign_with(json!({ "id": "ann" }), token::SECRET, 1);
        let mut socket =
            Socket::open_legacy(mesh.client.address(), json!({ "connectionParams": { "token": ann } })).await?;
        let query = "subscription { note { id } }";
        start(&mut socket, "own", query).await?;
        assert_eq!(data(&mut socket, "own").await?, json!({ "note": [{ "id": 1 }] }));
        for (token, expected) in [(json!(format!("Bearer {bob}")), 2), (json!(""), 1)] {
            let payload = json!({ "query": query, "authToken": token });
            socket.send(&json!({ "type": "start", "id": "other", "payload": payload })).await?;
            assert_eq!(data(&mut socket, "other").await?, json!({ "note": [{ "id": expected }] }), "{token}");
        }
        for (token, refused) in [("a.b.c", "UNAUTHENTICATED"), (&short, "TOKEN_EXPIRED")] {
            let payload = json!({ "query": query, "authToken": token });
            socket.send(&json!({ "type": "start", "id": "other", "payload": payload })).await?;
            if refused == "TOKEN_EXPIRED" {
                assert_eq!(data(&mut socket, "other").await?, json!({ "note": [{ "id": 1 }] }));
            }
            assert_eq!(code(&mut socket, "other").await?, refused);
        }
        // The others go on.
        lab.run("UPDATE note SET owner = 'ann'").await?;
        assert_eq!(data(&mut socket, "own").await?, json!({ "note": [{ "id": 1 }, { "id": 2 }] }));

        // A token that is not valid is told by the first operation.
        let mut forged = Socket::open_legacy(mesh.client.address(), json!({ "authToken": "a.b.c" })).await?;
        start(&mut forged, "1", query).await?;
        assert_eq!(code(&mut forged, "1").await?, "UNAUTHENTICATED");
        let mut denied = Socket::open_legacy(mesh.client.address(), json!({ "Authorization": ann })).await?;
        for query in ["subscription { other { id } }", "subscription { lost { id } }"] {
            start(&mut denied, "1", query).await?;
            assert_eq!(code(&mut denied, "1").await?, "DENIED", "{query}");
        }
        mesh.stop().await;
    }
    Ok(())
}

async fn who_breaks_the_protocol_is_told_so(shape: Shape) -> anyhow::Result<()> {
    let (mesh, _) = notes(shape, Engine::Sqlite, OPEN_LAB).await?;
    let (address, path) = (mesh.client.address(), "/v1/api/shop/graphql/socket");
    let protocol = ("sec-websocket-protocol", "graphql-ws");
    let mut early = Socket::connect(address, path, &[protocol]).await.expect("it connects");
    start(&mut early, "1", "{ note { id } }").await?;
    assert_eq!(code(&mut early, "1").await?, "UNAUTHENTICATED");
    early.send(&json!({ "type": "connection_init", "payload": { "token": 1 } })).await?;
    let Incoming::Message(refused) = early.next().await? else { anyhow::bail!("it is told why") };
    assert_eq!(refused["type"], "connection_error", "{refused}");
    assert_eq!(early.next().await?, Incoming::Closed(4400));
    let foreign = Socket::connect(address, path, &[protocol, ("origin", "https://evil.example")]).await;
    assert_eq!(foreign.map(|_| ()), Err(403));

    let text = |text: &str| Message::Text(text.to_owned().into());
    let mut socket = Socket::open_legacy(address, json!({})).await?;
    for (frame, id) in [
        (text("no JSON"), Value::Null),
        (text(r#"{"type": "start", "id": "1", "payload": {"query": 1}}"#), json!("1")),
        (text(r#"{"type": "start", "id": "1", "payload": {"query": "{a}", "authToken": {}}}"#), json!("1")),
        (text(r#"{"type": "subscribe", "id": "2", "payload": {"query": "{a}"}}"#), json!("2")),
        (text(r#"{"type": "start", "id": 3, "payload": {"query": "{a}"}}"#), Value::Null),
    ] {
        socket.send_raw(frame.clone()).await?;
        let Incoming::Message(refused) = socket.next().await? else { anyhow::bail!("{frame}: closed") };
        assert_eq!((&refused["type"], &refused["id"]), (&json!("error"), &id), "{frame}");
        assert_eq!(refused["payload"]["errors"][0]["extensions"]["code"], "BAD_REQUEST", "{refused}");
    }
    socket.send_raw(Message::Binary(vec![0].into())).await?;
    assert_eq!(socket.next().await?, Incoming::Closed(4400));
    // Before it is acknowledged, messages are small.
    let mut large = Socket::connect(address, path, &[protocol]).await.expect("it connects");
    // The server may close before it has taken all of it.
    let _ = start(&mut large, "1", &"x".repeat(20_000)).await;
    assert_eq!(large.next().await?, Incoming::Closed(1009));
    mesh.stop().await;
    Ok(())
}

async fn a_node_that_stops_says_so(shape: Shape) -> anyhow::Result<()> {
    let (mesh, _) = notes(shape, Engine::Sqlite, OPEN_LAB).await?;
    let mut socket = Socket::open_legacy(mesh.client.address(), json!({})).await?;
    start(&mut socket, "1", "subscription { note { id } }").await?;
    assert_eq!(data(&mut socket, "1").await?, json!({ "note": [] }));
    let ((), next) = tokio::join!(mesh.stop(), socket.next());
    assert_eq!(next?, Incoming::Closed(1012));
    Ok(())
}

async fn clients_of_npm_are_served(shape: Shape) -> anyhow::Result<()> {
    for engine in ENGINES {
        let rules = OWN.replace("id: note", "id: other").replace(
            "rule: match, type: string, eval: \"==\", f1: args.find.owner, f2: args.auth.id",
            "rule: authenticated",
        );
        let (mesh, _) = notes(shape, engine, &format!("{OPEN_LAB}{rules}")).await?;
        let url = format!("ws://{}/v1/api/shop/graphql", mesh.client.address());
        let token = token::sign(json!({ "id": "7" }));
        let short = token::sign_with(json!({ "id": "7" }), token::SECRET, 6);
        let got: Value = serde_json::from_str(&node_tool::script("sockets.js", &[&url, &token, &short]).await?)?;
        let expected = |id: i64, forged: Value| {
            json!({
                "inserted": [{ "data": { "insert_note": { "affected": 1 } } }],
                "live": [
                    { "data": { "note": [{ "id": id }] } },
                    { "data": { "note": [{ "id": id }, { "id": id + 1 }] } },
                ],
                "codes": ["UNAUTHENTICATED", "UNKNOWN_COLUMN", "BAD_REQUEST", null, "TOKEN_EXPIRED"],
                "forged": forged,
            })
        };
        assert_eq!(got["current"], expected(1, json!(4403)), "{engine:?}");
        assert_eq!(got["legacy"], expected(11, json!("UNAUTHENTICATED")), "{engine:?}");
        mesh.stop().await;
    }
    Ok(())
}
