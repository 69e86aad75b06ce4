//! Serving this node's services, to near links and to other nodes: the layers that every answer passes.

use std::{
    any::Any,
    convert::Infallible,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::FutureExt;
use http::{HeaderMap, Request, Response};
use hyper::body::{Frame, SizeHint};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{Status, body::Body};
use tower::Service;
use tracing::Instrument;

use crate::{
    Call, Code, Fault,
    listener::{self, Connection, RequestBody, Settings, Timeouts},
    meter::{MethodMeter, RunningCall},
    tasks::panic_text,
    telemetry::{Counter, Gauge},
};

/// Interval of keep-alive pings; a node that does not answer within `PING_TIMEOUT` is given up.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes in flight per call and per connection: requests can be large, and peers are trusted.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 32 << 20;
/// Bytes of an answer that wait for its caller.
const SEND_BUFFER: usize = 400 << 10;
/// Calls at a time on one connection; the caller's own limits come first.
const MAX_STREAMS: u32 = 10_000;
/// Callers that give up reset their calls; that many at once is no attack between peers that trust each other.
const MAX_RESETS: usize = 10_000;
/// How long the head of an HTTP/1.1 request may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves `answer` over HTTP/2, and HTTP/1.1 for health checks, until `stop` fires and running calls have ended; what
/// takes longer than `drain` is broken off.
pub(crate) async fn serve<F, A>(listener: TcpListener, answer: F, stop: CancellationToken, drain: Duration)
where
    F: Fn(Request<Body>) -> A + Clone + Send + 'static,
    A: Future<Output = Response<Body>> + Send + 'static,
{
    let service = move |_: &Arc<Connection>| {
        let answer = answer.clone();
        move |request: Request<RequestBody>| answer(request.map(Body::new))
    };
    listener::serve(listener, settings(), service, stop, drain).await;
}

/// Peers trust each other: what limits calls are the limits of those that make them.
fn settings() -> Settings {
    Settings {
        connections: usize::MAX,
        streams: MAX_STREAMS,
        stream_window: STREAM_WINDOW,
        connection_window: CONNECTION_WINDOW,
        send_buffer: SEND_BUFFER,
        unsent: None,
        ping: PING_INTERVAL,
        pong: PING_TIMEOUT,
        resets: Some(MAX_RESETS),
        timeouts: Timeouts { head: Some(HEAD_TIMEOUT), ..Timeouts::default() },
        notice: Duration::ZERO,
        open: Gauge::default(),
        shed: Counter::default(),
    }
}

/// Answers one call: as a step of its own in the trace, counted when its body ends, and with `INTERNAL` where the
/// service panics, be it in the middle of its body.
pub(crate) async fn answer<S>(mut service: S, meter: &MethodMeter, request: Request<Body>) -> Response<Body>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    let running = meter.begin();
    let call = Call::from_headers(request.headers());
    let span = tracing::debug_span!("rpc", service = meter.service, method = meter.name, request_id = %call.request_id);
    let work = async move { service.call(request).await }.instrument(span);
    let response = match call.clone().scope(AssertUnwindSafe(work).catch_unwind()).await {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(panic) => panicked(meter, &call, panic.as_ref()).into_http(),
    };
    match response.headers().get(GRPC_STATUS) {
        Some(status) => {
            running.answered(tonic::Code::from_bytes(status.as_bytes()));
            response
        }
        None => {
            let (service, method) = (meter.service, meter.name);
            response.map(|body| Body::new(CallBody { body, service, method, call, running: Some(running) }))
        }
    }
}

/// Logs a panic of a service, and answers what its caller is told.
pub(crate) fn panicked(meter: &MethodMeter, call: &Call, panic: &(dyn Any + Send)) -> Status {
    panicked_in(meter.service, meter.name, call, panic)
}

/// As [`panicked`], for the RPC `method` of `service`.
pub(crate) fn panicked_in(service: &str, method: &str, call: &Call, panic: &(dyn Any + Send)) -> Status {
    let request_id = &*call.request_id;
    tracing::error!(service, method, request_id, panic = panic_text(panic), "rpc panicked");
    Fault::new(Code::Internal, format!("service {service} failed")).into()
}

const GRPC_STATUS: &str = "grpc-status";

/// The body of an answer, as part of its call.
struct CallBody {
    body: Body,
    service: &'static str,
    method: &'static str,
    call: Call,
    /// `None` once it is counted.
    running: Option<RunningCall>,
}

impl CallBody {
    fn end(&mut self, code: tonic::Code) {
        if let Some(running) = self.running.take() {
            running.answered(code);
        }
    }
}

impl hyper::body::Body for CallBody {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<bytes::Bytes>, Status>>> {
        let this = &mut *self;
        let poll = AssertUnwindSafe(|| this.call.sync_scope(|| Pin::new(&mut this.body).poll_frame(context)));
        let polled = std::panic::catch_unwind(poll).unwrap_or_else(|panic| {
            let status = panicked_in(this.service, this.method, &this.call, panic.as_ref());
            this.body = Body::empty();
            Poll::Ready(Some(trailers(&status).map(Frame::trailers)))
        });
        if let Poll::Ready(frame) = &polled {
            let trailers = frame.as_ref().and_then(|frame| frame.as_ref().ok()).and_then(Frame::trailers_ref);
            let code = trailers.and_then(|trailers| trailers.get(GRPC_STATUS));
            match (frame, code) {
                (_, Some(code)) => this.end(tonic::Code::from_bytes(code.as_bytes())),
                (Some(Err(status)), None) => this.end(status.code()),
                (None, None) => this.end(tonic::Code::Ok),
                (Some(Ok(_)), None) => {}
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// `status` as the trailers of an answer that has begun.
fn trailers(status: &Status) -> Result<HeaderMap, Status> {
    let mut trailers = HeaderMap::new();
    status.add_header(&mut trailers)?;
    Ok(trailers)
}
