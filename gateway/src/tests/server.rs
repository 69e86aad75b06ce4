//! The public port.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::stage::Stage;
use crate::serve;

const REQUEST: &str =
    "POST /v1/api/shop/crud/music/album/read HTTP/1.1\r\nhost: x\r\ncontent-length: 12\r\n\r\n{\"op\":\"all\"}";

async fn served(stage: &Stage, drain: Duration) -> (SocketAddr, CancellationToken, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let stop = CancellationToken::new();
    let server = tokio::spawn(serve(listener, stage.service.front(), stop.clone(), drain));
    (address, stop, server)
}

/// One answer with a body that ends in `}`.
async fn answer(socket: &mut TcpStream) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"}") {
        if socket.read_buf(&mut text).await.expect("the connection is open") == 0 {
            break;
        }
    }
    String::from_utf8(text).expect("the edge writes UTF-8")
}

#[tokio::test]
async fn a_connection_serves_many_requests() {
    let stage = Stage::new().await;
    let (address, _stop, _server) = served(&stage, Duration::from_secs(5)).await;
    let mut socket = TcpStream::connect(address).await.expect("the port is open");
    for _ in 0..3 {
        socket.write_all(REQUEST.as_bytes()).await.expect("the connection is open");
        assert!(answer(&mut socket).await.starts_with("HTTP/1.1 200 OK"));
    }
}

/// A client that is told why it need not send its body sends none, and what comes next is no part of it.
#[tokio::test]
async fn a_connection_ends_where_a_body_is_not_waited_for() {
    let stage = Stage::new().await;
    let (address, _stop, _server) = served(&stage, Duration::from_secs(5)).await;
    for path in ["/v1/api/none/files/a", "/v1/api/none/uploads/a", "/v1/api/none/graphql"] {
        let mut socket = TcpStream::connect(address).await.expect("the port is open");
        let head = format!("PUT {path} HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\n");
        socket.write_all(head.as_bytes()).await.expect("the connection is open");
        let told = answer(&mut socket).await;
        assert!(told.starts_with("HTTP/1.1 4") && told.contains("connection: close"), "{path}: {told}");
        // The server may have closed it already.
        let _ = socket.write_all(REQUEST.as_bytes()).await;
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest).await;
        assert_eq!(String::from_utf8_lossy(&rest), "", "{path}");
    }
}

#[tokio::test]
async fn http2_is_spoken_on_the_same_port() {
    let stage = Stage::new().await;
    let (address, _stop, _server) = served(&stage, Duration::from_secs(5)).await;
    let mut socket = TcpStream::connect(address).await.expect("the port is open");
    socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.expect("the connection is open");
    let mut head = [0; 9];
    socket.read_exact(&mut head).await.expect("the server has settings");
    assert_eq!(head[3], 4, "a SETTINGS frame comes first");
}

#[tokio::test]
async fn a_running_request_is_answered_before_the_end() {
    let stage = Stage::new().await;
    let gate = Arc::new(Notify::new());
    *stage.world.gate.lock().unwrap() = Some(gate.clone());
    let (address, stop, server) = served(&stage, Duration::from_secs(30)).await;
    let mut socket = TcpStream::connect(address).await.expect("the port is open");
    socket.write_all(REQUEST.as_bytes()).await.expect("the connection is open");
    stage.world.arrived.notified().await;
    stop.cancel();
    gate.notify_one();
    let told = answer(&mut socket).await;
    assert!(told.starts_with("HTTP/1.1 200 OK") && told.contains("connection: close"), "{told}");
    server.await.expect("the server ends in order");
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_connection_that_waits_to_be_accepted_is_served_before_the_end() {
    let stage = Stage::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let mut socket = TcpStream::connect(listener.local_addr().expect("it is bound")).await.expect("the port is open");
    socket.write_all(REQUEST.as_bytes()).await.expect("the connection is open");
    let stop = CancellationToken::new();
    stop.cancel();
    let server = tokio::spawn(serve(listener, stage.service.front(), stop, Duration::from_secs(30)));
    let told = answer(&mut socket).await;
    assert!(told.starts_with("HTTP/1.1 200 OK") && told.contains("connection: close"), "{told}");
    server.await.expect("the server ends in order");
}

#[tokio::test]
async fn a_request_that_never_ends_does_not_hold_up_the_end() {
    let stage = Stage::new().await;
    *stage.world.gate.lock().unwrap() = Some(Arc::new(Notify::new()));
    let (address, stop, server) = served(&stage, Duration::from_millis(50)).await;
    let mut socket = TcpStream::connect(address).await.expect("the port is open");
    socket.write_all(REQUEST.as_bytes()).await.expect("the connection is open");
    stage.world.arrived.notified().await;
    stop.cancel();
    server.await.expect("the server ends in order");
    assert_eq!(answer(&mut socket).await, "");
}

#[tokio::test]
async fn an_idle_connection_is_closed_at_the_end() {
    let stage = Stage::new().await;
    let (address, stop, server) = served(&stage, Duration::from_secs(30)).await;
    let mut socket = TcpStream::connect(address).await.expect("the port is open");
    socket.write_all(REQUEST.as_bytes()).await.expect("the connection is open");
    answer(&mut socket).await;
    stop.cancel();
    server.await.expect("the server ends in order");
    assert_eq!(answer(&mut socket).await, "");
}

#[tokio::test(start_paused = true)]
async fn a_quiet_stream_of_events_outlives_the_timeouts_of_connections() {
    let stage = Stage::new().await;
    let (address, _stop, _server) = served(&stage, Duration::from_secs(5)).await;
    let mut socket = TcpStream::connect(address).await.expect("the port is open");
    let body = r#"{"query": "subscription { album { album_id } }"}"#;
    let request = format!(
        "POST /v1/api/shop/graphql HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let begin = tokio::time::Instant::now();
    socket.write_all(request.as_bytes()).await.expect("the connection is open");
    let mut text = Vec::new();
    let mut read_until = async |is_there: &dyn Fn(&str) -> bool| {
        while !is_there(&String::from_utf8_lossy(&text)) {
            assert!(socket.read_buf(&mut text).await.expect("the connection is open") > 0, "it goes on");
        }
    };
    read_until(&|text| text.matches(":\n\n").count() > 30).await;
    assert!(begin.elapsed() >= Duration::from_secs(600), "{:?}", begin.elapsed());
    *stage.world.json.lock().unwrap() = Some("[3]");
    stage.world.changed.send_replace(());
    read_until(&|text| text.contains(r#"data: {"data":{"album":[3]}}"#)).await;
}
