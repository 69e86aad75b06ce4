//! What clients of the predecessor alone speak: its socket of JSON messages, and its gRPC service.

pub mod grpc;
mod message;
mod session;
mod subscription;
mod worker;

use axum::{
    Router,
    extract::{Path, State},
    response::Response,
    routing::get,
};
use http::HeaderMap;
use mesh::{Code, Fault};

use self::session::JsonSession;
use crate::{
    Service,
    edge::Caller,
    http::answer,
    socket::{self, Upgrade},
};

/// Routes of the predecessor.
pub fn routes() -> Router<Service> {
    Router::new().route("/v1/api/{project}/socket/json", get(open))
}

/// Answers a handshake. No subprotocol is spoken.
async fn open(
    State(service): State<Service>,
    caller: Caller,
    Path(project): Path<String>,
    headers: HeaderMap,
    upgrade: Upgrade,
) -> Response {
    let accepted = socket::accept(&service, &caller, (project, &headers), upgrade, || Ok(None));
    match Box::pin(accepted).await {
        Ok(accepted) => accepted.serve(|state| JsonSession::new(state, caller.token.clone())),
        Err(fault) => answer::fault(&fault, &caller.call),
    }
}

/// What clients know as the error of a request without a token.
const NO_TOKEN: &str = "token contains an invalid number of segments";

/// The text of a fault as clients know it.
fn error_text(fault: &Fault, has_token: bool) -> &str {
    match fault.code {
        Code::Unauthenticated if !has_token => NO_TOKEN,
        _ => &fault.message,
    }
}
