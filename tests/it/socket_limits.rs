//! Sockets and event streams of one caller are bounded, so that nobody takes the connections of all.

use anyhow::Context;
use serde_json::json;
use tests::{
    engine::Engine,
    event_stream::{EventStream, Version},
    mesh::{OPEN_LAB, Setup, Shape, TestMesh},
    socket::{Incoming, Socket},
    token,
};

scenarios!(sockets_and_event_streams_of_a_caller_are_bounded);

const PATH: &str = "/v1/api/shop/graphql";
const PROTOCOL: (&str, &str) = ("sec-websocket-protocol", "graphql-transport-ws");

async fn connect(mesh: &TestMesh, token: &str) -> Result<Socket, u16> {
    let authorization = format!("Bearer {token}");
    let headers: &[_] = match token {
        "" => &[PROTOCOL],
        _ => &[PROTOCOL, ("authorization", &authorization)],
    };
    Socket::connect(mesh.client.address(), PATH, headers).await
}

async fn stream(mesh: &TestMesh, token: &str) -> anyhow::Result<Result<EventStream, u16>> {
    EventStream::post(Version::Http1, mesh.client.address(), token, "subscription { note { id } }").await
}

async fn sockets_and_event_streams_of_a_caller_are_bounded(shape: Shape) -> anyhow::Result<()> {
    let lab = Some("CREATE TABLE note (id BIGINT PRIMARY KEY)".to_owned());
    let setup = Setup { lab, resources: OPEN_LAB.to_owned(), node_limits: "sockets: 2", ..Setup::default() };
    let mesh = TestMesh::with(shape, Engine::Sqlite, &setup).await?;
    let (ann, bob) = (token::sign(json!({ "id": "ann" })), token::sign(json!({ "id": "bob" })));

    // Who says in the handshake who they are is refused there.
    let mut first = connect(&mesh, &ann).await.expect("there is room");
    let mut events = stream(&mesh, &ann).await?.expect("there is room");
    assert_eq!(events.answer().await?, json!({ "note": [] }));
    assert_eq!(connect(&mesh, &ann).await.map(|_| "connected"), Err(429));
    assert_eq!(stream(&mesh, &ann).await?.map(|_| "a stream"), Err(429));
    // The same claims are the same caller, whatever the token says else.
    let later = token::sign_with(json!({ "id": "ann" }), token::SECRET, 7200);
    assert_eq!(connect(&mesh, &later).await.map(|_| "connected"), Err(429));
    // Who says it in the first message is told there.
    let payload = json!({ "type": "connection_init", "payload": { "token": ann } });
    let mut late = connect(&mesh, "").await.expect("nobody knows who it is");
    late.send(&payload).await?;
    assert_eq!(late.next().await?, Incoming::Closed(1013));

    // Others have room, and those who have said nothing yet take none of it from those without a token.
    let silent = [connect(&mesh, "").await, connect(&mesh, "").await];
    assert!(silent.iter().all(Result::is_ok));
    assert_eq!(connect(&mesh, "").await.map(|_| "connected"), Err(429));
    assert!(connect(&mesh, &bob).await.is_ok() && stream(&mesh, "").await?.is_ok());
    assert_eq!(connect(&mesh, "a.b.c").await.map(|_| "connected"), Err(429), "a forged token counts for nobody");
    drop(silent);

    // Who is gone leaves room; what is sent tells that the first one still is there.
    drop(events);
    first.send(&json!({ "type": "connection_init" })).await?;
    assert_eq!(first.next().await?, Incoming::Message(json!({ "type": "connection_ack" })));
    let again = async {
        loop {
            if let Ok(socket) = connect(&mesh, &ann).await {
                return socket;
            }
        }
    };
    let again = tokio::time::timeout(std::time::Duration::from_secs(10), again).await.context("there is room again")?;
    assert_eq!(connect(&mesh, &ann).await.map(|_| "connected"), Err(429));
    drop(again);
    mesh.stop().await;
    Ok(())
}
