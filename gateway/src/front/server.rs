//! HTTP server of the public port: connection limits and time-outs.

use std::{sync::Arc, time::Duration};

use mesh::listener::{self, Connection, RequestBody, Settings, Timeouts};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Front;

/// How long a connection may be without its first byte.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the head of a request may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may be without a request: longer than load balancers keep theirs, so that they close first.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// Keep-alive ping interval and time-out of idle HTTP/2 connections.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// Bytes that a client may send ahead in one HTTP/2 request.
const STREAM_WINDOW: u32 = 1024 * 1024;
/// Bytes of answers that wait above the socket, for each HTTP/1.1 connection and each HTTP/2 stream.
const SEND_BUFFER: usize = 64 * 1024;
/// Bytes that the socket takes beyond what the client is ready for.
const UNSENT_BYTES: u32 = 128 * 1024;
/// How long answers over HTTP/1.1 announce the shutdown before idle connections are closed.
const SHUTDOWN_NOTICE: Duration = Duration::from_millis(250);

/// Answers requests by `front` until `stop` fires; then accepts no more connections, lets running requests finish for
/// up to `drain`, and closes what is left.
pub async fn serve(listener: TcpListener, front: Front, stop: CancellationToken, drain: Duration) {
    let settings = settings(&front);
    let service = move |connection: &Arc<Connection>| {
        let front = front.on(connection.clone());
        move |request: http::Request<RequestBody>| front.answer(request)
    };
    listener::serve(listener, settings, service, stop, drain).await;
}

fn settings(front: &Front) -> Settings {
    let (config, metrics) = (front.service().config(), front.service().mesh().metrics());
    Settings {
        connections: config.connections,
        streams: config.streams,
        stream_window: STREAM_WINDOW,
        connection_window: 4 * STREAM_WINDOW,
        send_buffer: SEND_BUFFER,
        unsent: Some(UNSENT_BYTES),
        ping: PING_INTERVAL,
        pong: PING_INTERVAL,
        resets: None,
        timeouts: Timeouts {
            first: Some(FIRST_BYTE_TIMEOUT),
            head: Some(HEAD_TIMEOUT),
            idle: Some(IDLE_TIMEOUT),
            write: Some(config.write_timeout),
        },
        notice: SHUTDOWN_NOTICE,
        open: metrics.load().connections.clone(),
        shed: metrics.shed("connections"),
    }
}
