//! Connection to one address of a peer, with reconnects.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use hyper::client::conn::http2::{Builder, Connection, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{net::TcpStream, time};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

/// How long a peer may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// The pause before the next attempt.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);
/// Interval of keep-alive pings; a peer that does not answer within `PING_TIMEOUT` is given up.
const PING_INTERVAL: Duration = Duration::from_secs(1);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes in flight per call, of answers and of streams that their reader takes slowly.
const STREAM_WINDOW: u32 = 512 << 10;
/// Bytes in flight per connection: what streams have in flight that nobody takes must leave room for all other calls.
const CONNECTION_WINDOW: u32 = 1 << 30;

/// A connection to one address of a peer.
pub(super) struct PeerConnection {
    /// The URL that named it.
    pub url: Arc<str>,
    pub address: SocketAddr,
    /// Fires when the address is no longer one of the peer's.
    pub retired: CancellationToken,
    state: ArcSwap<ConnectionState>,
}

/// State of a connection.
pub(super) enum ConnectionState {
    /// The first attempt to connect is not over.
    New,
    Up(SendRequest<Body>),
    /// Not connected; why, for people.
    Down(String),
}

type Tcp = TokioIo<TcpStream>;

impl PeerConnection {
    pub(super) fn new(url: Arc<str>, address: SocketAddr, retired: CancellationToken) -> Self {
        Self { url, address, retired, state: ArcSwap::from_pointee(ConnectionState::New) }
    }

    pub(super) fn state(&self) -> Arc<ConnectionState> {
        self.state.load_full()
    }

    /// The sender of requests, while the connection is up.
    pub(super) fn sender(&self) -> Option<SendRequest<Body>> {
        match &**self.state.load() {
            ConnectionState::Up(sender) => Some(sender.clone()),
            ConnectionState::New | ConnectionState::Down(_) => None,
        }
    }

    /// Connects, and connects again, until the address is retired; `changed` is called with every change of state.
    /// Calls that are under way when it is retired still end.
    pub(super) async fn keep(&self, changed: impl Fn(&PeerConnection)) {
        let set = |state| {
            self.state.store(Arc::new(state));
            changed(self);
        };
        while let Some(connected) = self.retired.run_until_cancelled(Box::pin(connect(self.address))).await {
            match connected {
                Ok((sender, connection)) => {
                    tracing::info!(peer = &*self.url, address = %self.address, "peer connected");
                    set(ConnectionState::Up(sender));
                    let mut connection = std::pin::pin!(connection);
                    let ended = tokio::select! {
                        ended = connection.as_mut() => ended,
                        () = self.retired.cancelled() => {
                            // The connection ends when the last call on it has, once nobody can begin another.
                            set(ConnectionState::Down("no longer an address of the peer".to_owned()));
                            connection.await
                        }
                    };
                    let why = ended.err().map_or("closed by the peer".to_owned(), |error| reason(&error));
                    tracing::warn!(peer = &*self.url, address = %self.address, why, "peer lost");
                    set(ConnectionState::Down(why));
                }
                Err(why) => {
                    if let ConnectionState::New = *self.state() {
                        tracing::warn!(peer = &*self.url, address = %self.address, why, "peer not reached; trying on");
                    }
                    set(ConnectionState::Down(why));
                }
            }
            if self.retired.run_until_cancelled(time::sleep(RETRY_INTERVAL)).await.is_none() {
                return;
            }
        }
    }
}

async fn connect(address: SocketAddr) -> Result<(SendRequest<Body>, Connection<Tcp, Body, TokioExecutor>), String> {
    let stream = match time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err(format!("no connection within {} ms", CONNECT_TIMEOUT.as_millis())),
    };
    // A port that nobody listens on may be drawn for the socket itself, which then reaches itself and keeps the peer
    // from coming back. Source: RFC 9293, section 3.5, simultaneous open.
    if stream.local_addr().is_ok_and(|local| local == address) {
        return Err("connection refused".to_owned());
    }
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| reason(&error))
}

/// The innermost cause: the outer ones only say `connection error`.
pub(super) fn reason(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}
