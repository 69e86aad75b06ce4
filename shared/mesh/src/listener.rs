//! The accept loop of a port: HTTP/1.1 and HTTP/2 with prior knowledge on one listener, connection limits and timeouts,
//! graceful shutdown.
//!
//! The public port and the mesh port differ in their [`Settings`] and nothing else.

mod activity;
#[cfg(test)]
mod tests;
mod wake;

use std::{
    convert::Infallible, error::Error, future::poll_fn, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use hyper::body::{Body, Incoming};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    time::{MissedTickBehavior, interval},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use activity::Running;
use activity::{Activity, Observed, Watched};
pub use wake::RequestBody;
use wake::WakeFilter;

use crate::telemetry::{Counter, Gauge};

/// The pause after a failure to accept: file descriptors may have run out.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// Connections are compared with their timeouts this often; with shorter timeouts more often.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a client may take to leave a connection that is being closed for want of requests.
const RETIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// Limits and timeouts of a port.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Connections at once. One more is closed as soon as it is made: its client learns at once that it has to go
    /// elsewhere, where one left in the backlog would wait without a word.
    pub connections: usize,
    /// HTTP/2 requests at once on a connection.
    pub streams: u32,
    /// Bytes that a client may send ahead in one HTTP/2 request.
    pub stream_window: u32,
    /// Bytes that a client may send ahead in all HTTP/2 requests of a connection.
    pub connection_window: u32,
    /// Bytes of answers that are buffered above the socket, by HTTP/1.1 connection and by HTTP/2 stream; also the most
    /// that the head of an HTTP/1.1 request may have.
    pub send_buffer: usize,
    /// Bytes that the socket takes beyond what its client is ready for; `None`: as many as the system likes, megabytes.
    pub unsent: Option<u32>,
    /// How often a silent HTTP/2 connection is asked whether it lives.
    pub ping: Duration,
    /// How long it may take to answer.
    pub pong: Duration,
    /// HTTP/2 requests that a client may reset before they are accepted; `None`: the library's defence against floods.
    pub resets: Option<usize>,
    /// When connections are closed.
    pub timeouts: Timeouts,
    /// How long open HTTP/1.1 connections are told of the end by their answers before idle ones are closed.
    pub notice: Duration,
    /// Connections now.
    pub open: Gauge,
    /// Connections closed because there were too many.
    pub shed: Counter,
}

/// When a connection is closed; `None`: never for this reason.
#[derive(Debug, Clone, Default)]
pub struct Timeouts {
    /// Without a first byte.
    pub first: Option<Duration>,
    /// While the head of an HTTP/1.1 request is not whole.
    pub head: Option<Duration>,
    /// Without a request: HTTP/1.1 between requests, HTTP/2 without streams.
    pub idle: Option<Duration>,
    /// While its client takes no byte of what is written, or acknowledges none.
    pub write: Option<Duration>,
}

impl Timeouts {
    fn check_interval(&self) -> Duration {
        let all = [self.first, self.head, self.idle, self.write];
        let shortest = all.into_iter().flatten().min().unwrap_or(CHECK_INTERVAL);
        (shortest / 4).clamp(Duration::from_millis(1), CHECK_INTERVAL)
    }
}

/// A connection of a client, as its requests see it.
#[derive(Debug)]
pub struct Connection {
    /// The address at the other end.
    pub peer: SocketAddr,
    activity: Arc<Activity>,
    /// One of the tokens below is cancelled, or the port is closed: the only one that is looked at for each request.
    attention: CancellationToken,
    /// Ends it when no request is left on it.
    retire: CancellationToken,
    /// Ends it now.
    cut: CancellationToken,
}

impl Connection {
    /// A connection from `peer` that nobody watches.
    pub fn new(peer: SocketAddr) -> Self {
        Self::of(peer, CancellationToken::new())
    }

    /// A connection from `peer` to a port that is closed when `attention` is cancelled.
    fn of(peer: SocketAddr, attention: CancellationToken) -> Self {
        let (retire, cut) = (CancellationToken::new(), CancellationToken::new());
        Self { peer, activity: Arc::default(), attention, retire, cut }
    }

    /// Closes it, whatever runs on it; what its client has not received is lost.
    pub fn cut(&self) {
        self.activity.cut();
        self.cut.cancel();
        self.attention.cancel();
    }

    /// Closes it when no request is left on it.
    fn retire(&self) {
        self.retire.cancel();
        self.attention.cancel();
    }

    /// Ends when it is cut.
    pub async fn until_cut(&self) {
        self.cut.cancelled().await;
    }

    /// Whether it is closed, or about to be.
    pub fn is_cut(&self) -> bool {
        self.cut.is_cancelled()
    }

    /// Keeps it from being idle until the answer is dropped.
    pub fn running(&self) -> Running {
        Running::new(self.activity.clone())
    }

    /// Ends when its client was asked to leave, had the time to, and waits for nothing.
    async fn retired(&self) {
        self.retire.cancelled().await;
        tokio::time::sleep(RETIRE_TIMEOUT).await;
        while self.activity.is_running() {
            tokio::time::sleep(RETIRE_TIMEOUT).await;
        }
    }
}

/// Answers requests by the service that `service` makes of a connection, until `stop` fires; then accepts no more
/// connections, lets running requests finish for up to `drain`, and closes what is left.
///
/// Connections that wait in the backlog at that time are served. Clients that keep connections open learn of the end
/// without losing a request: HTTP/1.1 by `Connection: close` on their next answer, HTTP/2 by GOAWAY.
pub async fn serve<M, S, A, B>(
    listener: TcpListener,
    settings: Settings,
    service: M,
    stop: CancellationToken,
    drain: Duration,
) where
    M: Fn(&Arc<Connection>) -> S,
    S: Fn(Request<RequestBody>) -> A + Send + 'static,
    A: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let server = Server::new(settings);
    let connections = TaskTracker::new();
    let mut watched: Vec<Watched> = Vec::new();
    let mut checks = interval(server.settings.timeouts.check_interval());
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let open = |socket: TcpStream, peer: SocketAddr| {
        let connection = Arc::new(Connection::of(peer, server.leave.child_token()));
        let work = server.clone().connection(socket, connection.clone(), service(&connection));
        connections.spawn(work);
        Watched::new(connection)
    };
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            now = checks.tick() => {
                watched.retain_mut(|watched| watched.is_open_at(now, &server.settings.timeouts));
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(_) if connections.len() >= server.settings.connections => {
                server.settings.shed.inc();
            }
            Ok((socket, peer)) => watched.push(open(socket, peer)),
            Err(error) => not_accepted(&error).await,
        }
    }
    for (socket, peer) in waiting(listener) {
        watched.push(open(socket, peer));
    }
    server.closed.cancel();
    connections.close();
    server.ended(&connections, drain).await;
}

/// The connections that clients made and nobody has accepted yet; afterwards the port is closed.
///
/// The system is asked itself: the runtime learns of a connection only some time after it is there.
fn waiting(listener: TcpListener) -> Vec<(TcpStream, SocketAddr)> {
    let mut sockets = Vec::new();
    let Ok(listener) = listener.into_std() else { return sockets };
    while let Ok((socket, peer)) = listener.accept() {
        if socket.set_nonblocking(true).is_ok() {
            sockets.extend(TcpStream::from_std(socket).map(|socket| (socket, peer)));
        }
    }
    sockets
}

/// A connection that cannot be accepted is the client's business, unless this process has no file handles left: then
/// some must be closed first.
async fn not_accepted(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        return;
    }
    tracing::error!(%error, "connection not accepted");
    tokio::time::sleep(ACCEPT_RETRY_INTERVAL).await;
}

#[derive(Clone)]
struct Server {
    builder: Builder<TokioExecutor>,
    settings: Arc<Settings>,
    /// No more connections. Fires when the port is closed, not before: a client that is told to leave connects anew at
    /// once, and a connection that nobody accepts any more would cost it a request.
    closed: CancellationToken,
    /// No more requests.
    leave: CancellationToken,
    /// No more answers.
    cut: CancellationToken,
}

impl Server {
    fn new(settings: Settings) -> Self {
        let (closed, leave, cut) = (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
        Self { builder: builder(&settings), settings: Arc::new(settings), closed, leave, cut }
    }

    async fn connection<S, A, B>(self, socket: TcpStream, connection: Arc<Connection>, service: S)
    where
        S: Fn(Request<RequestBody>) -> A + Send + 'static,
        A: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let _open = Open::new(&self.settings.open);
        self.prepare(&socket);
        let socket = Observed::new(socket, connection.activity.clone());
        let (activity, closed) = (connection.activity.clone(), self.closed);
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let running = Running::new(activity.clone());
            let (version, closed) = (request.version(), closed.clone());
            // The request is handed on at once: as a part of the future it would be moved with it, over and over.
            let answer = service(request.map(|body| RequestBody::new(body, version < Version::HTTP_2)));
            async move {
                let mut response = answer.await;
                let is_upgrade = response.status() == StatusCode::SWITCHING_PROTOCOLS;
                if closed.is_cancelled() && version < Version::HTTP_2 && !is_upgrade {
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                drop(running);
                Ok::<_, Infallible>(response)
            }
        });
        let mut http = pin!(self.builder.serve_connection_with_upgrades(TokioIo::new(socket), service));
        let mut filter = WakeFilter::new(connection.activity.clone());
        tokio::select! {
            biased;
            // A client that goes away is no news.
            _ = poll_fn(|cx| filter.poll(http.as_mut(), cx)) => return,
            () = connection.attention.cancelled() => {}
        };
        if connection.is_cut() {
            return;
        }
        http.as_mut().graceful_shutdown();
        tokio::select! {
            _ = poll_fn(|cx| filter.poll(http.as_mut(), cx)) => {}
            () = connection.cut.cancelled() => {}
            () = self.cut.cancelled() => {}
            () = connection.retired() => {}
        }
    }

    /// Options that no connection fails for lack of.
    fn prepare(&self, socket: &TcpStream) {
        // An answer in two writes must not wait for the client's acknowledgement; without it, it is only slower.
        let _ = socket.set_nodelay(true);
        #[cfg(target_os = "linux")]
        {
            let socket = SockRef::from(socket);
            if let Some(unsent) = self.settings.unsent {
                // Without it, a slow reader costs memory of the system instead of this process.
                let _ = socket.set_tcp_notsent_lowat(unsent);
            }
            if self.settings.timeouts.write.is_some() {
                // What is written to a host that is gone fits into the buffers of the system, which tries for many
                // minutes to send it.
                let _ = socket.set_tcp_user_timeout(self.settings.timeouts.write);
            }
        }
    }

    /// Waits until `connections` have ended, for up to `drain`, and ends what is left.
    async fn ended(&self, connections: &TaskTracker, drain: Duration) {
        let end = async {
            // Whether all have gone by themselves by then does not matter.
            let _ = tokio::time::timeout(self.settings.notice.min(drain), connections.wait()).await;
            self.leave.cancel();
            connections.wait().await;
        };
        if tokio::time::timeout(drain, end).await.is_err() {
            tracing::warn!(connections = connections.len(), "requests cut off at the end of the drain");
        }
        // Where the time is over before it began, nobody has been told to leave, and only who leaves is cut off.
        self.leave.cancel();
        self.cut.cancel();
        connections.wait().await;
    }
}

fn builder(settings: &Settings) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    // Timeouts of heads and of idle connections are those of `Watched`: the library's cost a timer per request.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None);
    builder.http1().keep_alive(true).writev(false).max_buf_size(settings.send_buffer);
    let mut http2 = builder.http2();
    http2
        .timer(TokioTimer::new())
        .keep_alive_interval(settings.ping)
        .keep_alive_timeout(settings.pong)
        .initial_stream_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_concurrent_streams(settings.streams)
        .max_send_buf_size(settings.send_buffer);
    if let Some(resets) = settings.resets {
        http2.max_pending_accept_reset_streams(resets).max_local_error_reset_streams(None);
    }
    builder
}

/// Counts a connection while it is open.
struct Open(Gauge);

impl Open {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
