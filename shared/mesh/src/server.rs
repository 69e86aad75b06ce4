//! Serving this node's services, to near links and to other nodes: the layers that every answer passes.

use std::{any::Any, convert::Infallible, panic::AssertUnwindSafe, pin::pin, time::Duration};

use futures::FutureExt;
use http::{Request, Response};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{
    net::{TcpListener, TcpStream},
    time,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Status, body::Body};
use tower::Service;
use tracing::Instrument;

use crate::{
    Call, Code, Fault,
    method::{Method, Methods},
    tasks::panic_text,
};

/// The largest message between services.
pub const MESSAGE_BYTES: usize = 64 << 20;

/// A node that went away without a word is asked this often whether it is still there, and given up after `SILENCE`.
const ASK: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_secs(5);
/// Bytes in flight per call and per connection: requests can be large, and peers are trusted.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 32 << 20;
/// Calls at a time on one connection; the caller's own limits come first.
const STREAMS: u32 = 10_000;
/// Callers that give up reset their calls; that many at once is no attack between peers that trust each other.
const RESETS: usize = 10_000;
/// The pause after a failure to accept: file descriptors may have run out.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Serves `answer` over HTTP/2, and HTTP/1.1 for health checks, until `stop` fires and running calls have ended; what
/// takes longer than `drain` is broken off.
pub(crate) async fn serve<F, A>(listener: TcpListener, answer: F, stop: CancellationToken, drain: Duration)
where
    F: Fn(Request<Body>) -> A + Clone + Send + 'static,
    A: Future<Output = Response<Body>> + Send + 'static,
{
    let connections = TaskTracker::new();
    let end = CancellationToken::new();
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, _)) => {
                let (answer, stop, end) = (answer.clone(), stop.clone(), end.clone());
                connections.spawn(async move { end.run_until_cancelled(connection(stream, answer, stop)).await });
            }
            Err(error) => {
                tracing::warn!(%error, "connection not accepted");
                time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
    drop(listener);
    connections.close();
    if time::timeout(drain, connections.wait()).await.is_err() {
        tracing::warn!(connections = connections.len(), "calls between services are broken off");
        end.cancel();
        connections.wait().await;
    }
}

async fn connection<F, A>(stream: TcpStream, answer: F, stop: CancellationToken)
where
    F: Fn(Request<Body>) -> A + Clone + Send + 'static,
    A: Future<Output = Response<Body>> + Send + 'static,
{
    // Without it a large answer waits for the acknowledgement of its first part. It fails only on a dead connection.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = answer(request.map(Body::new));
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(ASK)
        .keep_alive_timeout(SILENCE)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS)
        .max_pending_accept_reset_streams(RESETS)
        .max_local_error_reset_streams(None);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection between services ended");
    }
}

/// Answers one call: as a step of its own in the trace, counted, and with `INTERNAL` where the service panics.
pub(crate) async fn answer<S>(mut service: S, methods: &Methods, mut request: Request<Body>) -> Response<Body>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    let method = methods.at(request.uri().path());
    let running = method.begin();
    let call = match request.extensions_mut().remove::<Call>() {
        Some(call) => call.stepped(),
        None => Call::arrived(request.headers()),
    };
    let span =
        tracing::debug_span!("rpc", service = method.service, method = method.name, request_id = %call.request_id);
    let work = async move { service.call(request).await }.instrument(span);
    let response = match call.clone().scope(AssertUnwindSafe(work).catch_unwind()).await {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(panic) => panicked(method, &call, panic.as_ref()).into_http(),
    };
    running.answered(grpc_code(&response));
    response
}

pub(crate) fn panicked(method: &Method, call: &Call, panic: &(dyn Any + Send)) -> Status {
    let (service, method, request_id) = (method.service, method.name, &*call.request_id);
    tracing::error!(service, method, request_id, panic = panic_text(panic), "rpc panicked");
    Fault::new(Code::Internal, format!("service {service} failed")).into()
}

/// The gRPC code of `response`. A unary answer with no status among its headers has it in its trailers, and it is OK.
fn grpc_code(response: &Response<Body>) -> tonic::Code {
    match response.headers().get("grpc-status") {
        Some(status) => tonic::Code::from_bytes(status.as_bytes()),
        None => tonic::Code::Ok,
    }
}
