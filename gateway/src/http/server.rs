//! The public port: HTTP/1.1 and HTTP/2 with prior knowledge on one listener, and its end.

use std::{
    convert::Infallible,
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::response::Response;
use http::{HeaderValue, Request, Version, header};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::{Service, ServiceExt};

/// How long a connection may be idle, or take to send the head of a request.
const HEAD: Duration = Duration::from_secs(75);
/// How often a silent HTTP/2 connection is asked whether it lives.
const PING: Duration = Duration::from_secs(30);
/// Requests of one HTTP/2 connection at once.
const STREAMS: u32 = 1024;
/// Bytes that an HTTP/2 client may send ahead in one request.
const STREAM_WINDOW: u32 = 1024 * 1024;
/// How long open HTTP/1.1 connections are told of the end by their answers before idle ones are closed.
const NOTICE: Duration = Duration::from_millis(250);

/// Answers requests by `service` until `stop` fires; then accepts no more connections, lets running requests finish for
/// up to `drain`, and closes what is left.
///
/// Clients that keep connections open learn of the end without losing a request: HTTP/1.1 by `Connection: close` on
/// their next answer, HTTP/2 by GOAWAY.
pub async fn serve<S>(listener: TcpListener, service: S, stop: CancellationToken, drain: Duration)
where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let server = Server::new(service, stop.clone(), HEAD);
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, _)) => drop(connections.spawn(server.clone().connection(socket))),
            Err(error) => refused(&error).await,
        }
    }
    for socket in waiting(listener) {
        connections.spawn(server.clone().connection(socket));
    }
    connections.close();

    let end = async {
        let _ = tokio::time::timeout(NOTICE.min(drain), connections.wait()).await;
        server.leave.cancel();
        connections.wait().await;
    };
    if tokio::time::timeout(drain, end).await.is_err() {
        tracing::warn!(connections = connections.len(), "requests cut off at the end of the drain");
    }
    server.cut.cancel();
    connections.wait().await;
}

/// The connections that clients made and nobody has accepted yet; afterwards the port is closed.
///
/// The system is asked itself: the runtime learns of a connection only some time after it is there.
fn waiting(listener: TcpListener) -> Vec<TcpStream> {
    let mut sockets = Vec::new();
    let Ok(listener) = listener.into_std() else { return sockets };
    while let Ok((socket, _)) = listener.accept() {
        if socket.set_nonblocking(true).is_ok() {
            sockets.extend(TcpStream::from_std(socket));
        }
    }
    sockets
}

#[derive(Clone)]
struct Server<S> {
    builder: Builder<TokioExecutor>,
    service: S,
    /// No more connections.
    stop: CancellationToken,
    /// No more requests.
    leave: CancellationToken,
    /// No more answers.
    cut: CancellationToken,
    /// How long a connection may be without its first request.
    silence: Duration,
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD).keep_alive(true).writev(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(4 * STREAM_WINDOW)
        .max_concurrent_streams(STREAMS);
    builder
}

/// A connection that cannot be accepted is the client's business, unless this process has no file handles left: then
/// some must be closed first.
async fn refused(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        return;
    }
    tracing::error!(%error, "connection not accepted");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

/// Ends when a connection was to ask for something by now and has not; never once it has. Which version of HTTP a
/// client speaks its first bytes say, and for those nobody else waits in vain.
async fn silent(has_asked: &AtomicBool, time: Duration) {
    tokio::time::sleep(time).await;
    if has_asked.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
}

impl<S> Server<S>
where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    fn new(service: S, stop: CancellationToken, silence: Duration) -> Self {
        let (leave, cut) = (CancellationToken::new(), CancellationToken::new());
        Self { builder: builder(), service, stop, leave, cut, silence }
    }

    async fn connection(self, socket: TcpStream) {
        // An answer in two writes must not wait for the client's acknowledgement; without it, it is only slower.
        let _ = socket.set_nodelay(true);
        let (service, stop) = (self.service, self.stop);
        let has_asked = Arc::new(AtomicBool::new(false));
        let asked = has_asked.clone();
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            asked.store(true, Ordering::Relaxed);
            let (service, stop) = (service.clone(), stop.clone());
            async move {
                let version = request.version();
                let Ok(mut response) = service.oneshot(request).await;
                if stop.is_cancelled() && version < Version::HTTP_2 {
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response)
            }
        });
        let mut connection = pin!(self.builder.serve_connection(TokioIo::new(socket), service));
        let left = tokio::select! {
            // A client that goes away is no news.
            _ = connection.as_mut() => return,
            () = self.leave.cancelled() => None,
            () = silent(&has_asked, self.silence) => Some(self.silence),
        };
        connection.as_mut().graceful_shutdown();
        let ended = async {
            match left {
                Some(left) => tokio::time::sleep(left).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = connection => {}
            () = self.cut.cancelled() => {}
            () = ended => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_connection_that_never_asks_for_anything_is_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let server = Server::new(axum::Router::new(), CancellationToken::new(), Duration::from_millis(5));
        for beginning in ["", "PRI * HTTP/2.0\r\n", "GET / HT"] {
            let mut socket = TcpStream::connect(address).await.expect("the port is open");
            socket.write_all(beginning.as_bytes()).await.expect("the connection is open");
            let (accepted, _) = listener.accept().await.expect("it connects");
            server.clone().connection(accepted).await;
            // Closed with bytes unread, a connection is reset.
            assert_eq!(socket.read(&mut [0]).await.unwrap_or_default(), 0, "{beginning:?}");
        }
    }
}
