//! Serving this node's services, to near links and to other nodes: the layers that every answer passes.

use std::{any::Any, convert::Infallible, panic::AssertUnwindSafe, time::Instant};

use futures::FutureExt;
use http::{Request, Response};
use tonic::{Status, body::Body};
use tower::Service;
use tracing::Instrument;

use crate::{Call, Code, Fault, tasks::panic_text, telemetry::Metrics};

/// The largest message between services.
pub const MESSAGE_BYTES: usize = 64 << 20;

/// Answers one call: as a step of its own in the trace, counted, and with `INTERNAL` where the service panics.
pub(crate) async fn answer<S>(mut service: S, metrics: &Metrics, mut request: Request<Body>) -> Response<Body>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    let started = Instant::now();
    let method = Method::of(request.uri().path());
    let call = match request.extensions_mut().remove::<Call>() {
        Some(call) => call.stepped(),
        None => Call::arrived(request.headers()),
    };
    request.extensions_mut().insert(call.clone());
    let span =
        tracing::debug_span!("rpc", service = method.service, method = method.name, request_id = %call.request_id);
    let work = async move { service.call(request).await }.instrument(span);
    let response = match call.scope(AssertUnwindSafe(work).catch_unwind()).await {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(panic) => panicked(method, &call, panic.as_ref()),
    };
    metrics.rpc(method.service, method.name, grpc_code(&response), started.elapsed());
    response
}

fn panicked(method: Method, call: &Call, panic: &(dyn Any + Send)) -> Response<Body> {
    let (service, method, request_id) = (method.service, method.name, &*call.request_id);
    tracing::error!(service, method, request_id, panic = panic_text(panic), "rpc panicked");
    Status::from(Fault::new(Code::Internal, format!("service {service} failed"))).into_http()
}

/// A method as metrics and spans call it; unknown paths share one name, so that callers cannot make new ones.
#[derive(Clone, Copy)]
struct Method {
    service: &'static str,
    name: &'static str,
}

impl Method {
    const fn new(service: &'static str, name: &'static str) -> Self {
        Self { service, name }
    }

    fn of(path: &str) -> Self {
        match path {
            "/perigee.crud.v1.Crud/Read" => Self::new("crud", "Read"),
            "/perigee.crud.v1.Crud/Write" => Self::new("crud", "Write"),
            "/perigee.crud.v1.Crud/Describe" => Self::new("crud", "Describe"),
            "/perigee.auth.v1.AuthRules/Authorize" => Self::new("auth-rules", "Authorize"),
            "/perigee.auth.v1.AuthRules/Reachable" => Self::new("auth-rules", "Reachable"),
            _ => Self::new("other", "other"),
        }
    }
}

/// The gRPC code of `response`. A unary answer with no status among its headers has it in its trailers, and it is OK.
fn grpc_code(response: &Response<Body>) -> tonic::Code {
    match response.headers().get("grpc-status") {
        Some(status) => tonic::Code::from_bytes(status.as_bytes()),
        None => tonic::Code::Ok,
    }
}
