//! Functions that answer with a stream: over gRPC, server-sent events and GraphQL, ended by whoever leaves.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use futures::StreamExt;
use proto::api::v1::CallResponse;
use serde_json::{Value, json};
use tests::{
    client::{Client, reason},
    event_stream::{EventStream, Sent, Version},
    mesh::Shape,
    socket::{Incoming, Socket},
    token,
};

use super::{
    allowed,
    grpc::{GrpcStage, reflected},
    message,
};

scenarios!(
    answers_come_one_after_the_other_by_every_protocol,
    what_goes_wrong_ends_the_stream,
    who_leaves_ends_the_stream,
    who_reads_nothing_is_sent_no_more,
    a_stream_has_a_place_among_the_calls,
    an_answer_that_takes_too_long_ends_the_stream,
    who_may_no_more_is_told_so,
);

const STREAM: &str = "/perigee.api.v1.Functions/Stream";

async fn streamed(client: &Client, params: &Value) -> anyhow::Result<tonic::Streaming<CallResponse>> {
    Ok(client.streaming_at::<_, CallResponse>(STREAM, message("Count", params)).await??)
}

fn number(response: &CallResponse) -> anyhow::Result<i64> {
    let json: Value = serde_json::from_slice(&response.result)?;
    json["number"].as_i64().with_context(|| json.to_string())
}

async fn events(stage: &GrpcStage, path: &str, params: &Value) -> anyhow::Result<EventStream> {
    let address = stage.mesh.client.address();
    let path = format!("/v1/api/shop/{path}");
    let opened = EventStream::post_path(address, "", &path, &json!({ "params": params })).await?;
    opened.map_err(|refused| anyhow::anyhow!("{refused:?}"))
}

fn event(name: &str, data: Value) -> Sent {
    Sent::Event { name: name.to_owned(), id: None, data }
}

async fn answers_come_one_after_the_other_by_every_protocol(shape: Shape) -> anyhow::Result<()> {
    let functions = json!({ "Count": allowed(json!({ "idempotent": true })), "Grow": allowed(json!({})) });
    let stage = GrpcStage::with(shape, functions).await?;
    let params = json!({ "times": 3 });
    let messages: Vec<_> = streamed(&stage.mesh.client, &params).await?.collect().await;
    let numbers = messages.into_iter().map(|message| number(&message?));
    assert_eq!(numbers.collect::<anyhow::Result<Vec<_>>>()?, [1, 2, 3]);

    let mut bare = events(&stage, "services/mail/Count", &params).await?;
    let mut wrapped = events(&stage, "functions/mail/Count", &params).await?;
    for number in 1..=3 {
        assert_eq!(bare.next().await?, event("message", json!({ "number": number })));
        assert_eq!(wrapped.next().await?, event("message", json!({ "result": { "number": number } })));
    }
    for mut ended in [bare, wrapped] {
        assert_eq!([ended.next().await?, ended.next().await?], [event("end", json!({})), Sent::End]);
    }
    // One that answers once is a stream of one.
    let mut once = events(&stage, "services/mail/Grow", &json!({ "name": "a" })).await?;
    assert_eq!(
        [once.next().await?, once.next().await?],
        [event("message", json!({ "name": "a" })), event("end", json!({}))]
    );

    for (document, key) in [
        ("subscription { mail { Count(times: 3) } }", "/mail/Count/number"),
        ("subscription { n: Count(times: 3) @mail }", "/n/number"),
    ] {
        let address = stage.mesh.client.address();
        let stream = EventStream::post(Version::Http2, address, "", document).await?;
        let mut stream = stream.map_err(|status| anyhow::anyhow!("{status}"))?;
        let mut socket = Socket::open(address, "").await?;
        socket.subscribe("1", document).await?;
        for number in 1..=3 {
            assert_eq!(stream.answer().await?.pointer(key), Some(&json!(number)), "{document}");
            assert_eq!(socket.answer("1").await?.pointer(key), Some(&json!(number)), "{document}");
        }
        assert_eq!([stream.next().await?, stream.next().await?], [Sent::Complete, Sent::End]);
        let Incoming::Message(end) = socket.next().await? else { bail!("no message") };
        assert_eq!(end, json!({ "type": "complete", "id": "1" }));
    }
    Ok(())
}

async fn what_goes_wrong_ends_the_stream(shape: Shape) -> anyhow::Result<()> {
    let stage = GrpcStage::with(shape, json!({ "Count": allowed(json!({ "maxAnswer": 100 })) })).await?;
    let failing = json!({ "times": 1, "error": "that is all" });
    let mut messages = streamed(&stage.mesh.client, &failing).await?;
    assert_eq!(number(&messages.message().await?.context("one")?)?, 1);
    let Err(ended) = messages.message().await else { bail!("it fails") };
    assert_eq!(
        (ended.code(), reason(&ended)?.as_str(), ended.message()),
        (tonic::Code::Unknown, "FUNCTION", "that is all")
    );

    let mut stream = events(&stage, "services/mail/Count", &failing).await?;
    stream.next().await?;
    let Sent::Event { name, data, .. } = stream.next().await? else { bail!("it fails") };
    assert_eq!((name.as_str(), &data["code"], &data["error"]), ("error", &json!("FUNCTION"), &json!("that is all")));
    assert_eq!(stream.next().await?, Sent::End);

    let mut stream = events(&stage, "services/mail/Count", &json!({ "times": 5, "bytes": 200 })).await?;
    let Sent::Event { name, data, .. } = stream.next().await? else { bail!("it fails") };
    assert_eq!((name.as_str(), &data["code"]), ("error", &json!("TOO_LARGE")));

    let address = stage.mesh.client.address();
    let path = "/v1/api/shop/services/mail/";
    for (function, params, expected) in
        [("Count", json!({ "time": 1 }), (400, "BAD_REQUEST")), ("Send", json!({}), (403, "DENIED"))]
    {
        let opened =
            EventStream::post_path(address, "", &format!("{path}{function}"), &json!({ "params": params })).await?;
        let Err((status, told)) = opened else { bail!("{function} is refused") };
        assert_eq!((status, told["code"].as_str().unwrap_or_default()), expected);
    }
    for (document, code) in [
        (r#"subscription { mail { Count(times: 1, error: "x") } }"#, "FUNCTION"),
        ("subscription { mail { Count(time: 1) } }", "BAD_REQUEST"),
        ("subscription { mail { Send } }", "DENIED"),
    ] {
        let mut socket = Socket::open(address, "").await?;
        socket.subscribe("1", document).await?;
        if code == "FUNCTION" {
            socket.answer("1").await?;
        }
        assert_eq!(socket.error("1").await?, code, "{document}");
    }
    let mut socket = Socket::open(address, "").await?;
    for (id, document) in
        [("1", "subscription { mail { a: Count b: Count } }"), ("2", "subscription { mail { __typename } }")]
    {
        socket.subscribe(id, document).await?;
        assert_eq!(socket.error(id).await?, "BAD_REQUEST", "{document}");
    }
    Ok(())
}

async fn who_leaves_ends_the_stream(shape: Shape) -> anyhow::Result<()> {
    let stage = GrpcStage::with(shape, json!({ "Count": allowed(json!({})) })).await?;
    let params = json!({ "times": 0, "everyMs": 5 });
    let mut messages = streamed(&stage.mesh.client, &params).await?;
    messages.message().await?;
    drop(messages);
    stage.server.left(1).await?;

    let mut stream = events(&stage, "services/mail/Count", &params).await?;
    stream.next().await?;
    drop(stream);
    stage.server.left(2).await?;

    let address = stage.mesh.client.address();
    let document = "subscription { mail { Count(everyMs: 5) } }";
    let mut socket = Socket::open(address, "").await?;
    socket.subscribe("1", document).await?;
    socket.answer("1").await?;
    socket.send(&json!({ "type": "complete", "id": "1" })).await?;
    stage.server.left(3).await?;
    socket.subscribe("2", document).await?;
    stage.server.waits(4).await?;
    drop(socket);
    stage.server.left(4).await
}

/// A stream is made as fast as it is read.
async fn who_reads_nothing_is_sent_no_more(shape: Shape) -> anyhow::Result<()> {
    let stage = GrpcStage::with(shape, json!({ "Count": allowed(json!({ "timeout": "300s" })) })).await?;
    let mut messages = streamed(&stage.mesh.client, &json!({ "times": 0, "bytes": 100_000 })).await?;
    messages.message().await?;
    // Until nothing moves.
    let (mut before, mut made) = (0, stage.server.counted());
    while before != made {
        tokio::time::sleep(Duration::from_millis(300)).await;
        (before, made) = (made, stage.server.counted());
    }
    ensure!(made < 500, "{made} messages were made for nobody");
    // Others are not held up, on a connection of their own.
    let other = Client::new(stage.mesh.client.address(), "shop");
    let other = streamed(&other, &json!({ "times": 1 })).await?.collect::<Vec<_>>().await;
    assert_eq!(other.len(), 1);
    Ok(())
}

async fn a_stream_has_a_place_among_the_calls(shape: Shape) -> anyhow::Result<()> {
    let stage = GrpcStage::with(shape, json!({ "Count": allowed(json!({ "concurrency": 1, "queue": 0 })) })).await?;
    let params = json!({ "times": 0, "everyMs": 5 });
    let mut first = streamed(&stage.mesh.client, &params).await?;
    first.message().await?;
    let second = stage.mesh.client.streaming_at::<_, CallResponse>(STREAM, message("Count", &params)).await?;
    let Err(refused) = second else { bail!("there is one place") };
    assert_eq!(reason(&refused)?, "TOO_MANY");
    drop(first);
    stage.server.left(1).await?;
    let until = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        let again = stage.mesh.client.streaming_at::<_, CallResponse>(STREAM, message("Count", &params)).await?;
        match again {
            Ok(_) => return Ok(()),
            // The server may see the end a moment before the place is free.
            Err(refused) => ensure!(tokio::time::Instant::now() < until, "{refused}"),
        }
    }
}

async fn an_answer_that_takes_too_long_ends_the_stream(shape: Shape) -> anyhow::Result<()> {
    let stage = GrpcStage::with(shape, json!({ "Count": allowed(json!({ "timeout": "1500ms" })) })).await?;
    // Each in its time, all of them in more.
    let mut messages = streamed(&stage.mesh.client, &json!({ "times": 4, "everyMs": 500 })).await?;
    for expected in 1..=4 {
        assert_eq!(number(&messages.message().await?.context("one more")?)?, expected);
    }
    assert!(messages.message().await?.is_none());
    let mut messages = streamed(&stage.mesh.client, &json!({ "times": 6, "everyMs": 20_000 })).await?;
    let Err(late) = messages.message().await else { bail!("it is late") };
    assert_eq!(reason(&late)?, "DEADLINE");
    stage.server.left(2).await
}

async fn who_may_no_more_is_told_so(shape: Shape) -> anyhow::Result<()> {
    let functions = |rule: Value| json!({ "Count": { "rule": rule } });
    let authenticated = json!({ "rule": "authenticated" });
    let stage = GrpcStage::with(shape, functions(authenticated)).await?;
    let params = json!({ "times": 0, "everyMs": 10 });
    let none = stage.mesh.client.streaming_at::<_, CallResponse>(STREAM, message("Count", &params)).await?;
    let Err(refused) = none else { bail!("it needs a token") };
    assert_eq!(refused.code(), tonic::Code::Unauthenticated);
    let token = |seconds| token::sign_with(json!({ "id": "ann" }), token::SECRET, seconds);

    // One whose token expires, one whose token is renewed meanwhile, and one whose token is good for long.
    let mut expiring = streamed(&stage.mesh.client.with_token(&token(3)), &params).await?;
    let mut lasting = streamed(&stage.mesh.client.with_token(&token(600)), &params).await?;
    let mut renewed = Socket::open(stage.mesh.client.address(), &token(3)).await?;
    renewed.subscribe("1", "subscription { mail { Count(everyMs: 10) } }").await?;
    renewed.answer("1").await?;
    let authorization = format!("Bearer {}", token(600));
    renewed.send(&json!({ "type": "ping", "payload": { "authorization": authorization } })).await?;
    assert_eq!(reason(&ended(&mut expiring).await?)?, "TOKEN_EXPIRED");
    stage.server.left(1).await?;
    // The other one would have ended by now.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    number(&lasting.message().await?.context("it goes on")?)?;

    // A rule that is edited.
    let denied = json!({ "rule": "match", "type": "string", "eval": "==", "f1": "args.auth.id", "f2": "bob" });
    stage.mesh.edit(&reflected(&stage.server.url(), functions(denied)))?;
    assert_eq!(ended(&mut lasting).await?.code(), tonic::Code::PermissionDenied);
    let code = loop {
        let Incoming::Message(message) = renewed.next().await? else { bail!("the socket is closed") };
        match message["type"].as_str() {
            Some("next" | "pong") => {}
            _ => break message["payload"][0]["extensions"]["code"].clone(),
        }
    };
    assert_eq!(code, "DENIED", "until then it went on");
    stage.server.left(3).await
}

/// How a stream ends, which it must.
async fn ended(messages: &mut tonic::Streaming<CallResponse>) -> anyhow::Result<tonic::Status> {
    loop {
        match messages.message().await {
            Ok(message) => ensure!(message.is_some(), "it has ended without a word"),
            Err(ended) => return Ok(ended),
        }
    }
}
