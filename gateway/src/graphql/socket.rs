//! GraphQL over WebSocket.

mod message;
mod operation;
mod protocol;
mod session;
mod token;

use axum::{
    extract::{Path, State},
    response::Response,
};
use http::HeaderMap;

#[cfg(test)]
pub(crate) use self::session::tests as client;
use self::{protocol::Subprotocol, session::GraphqlSession};
use crate::{
    Service,
    edge::Caller,
    error,
    http::answer,
    socket::{self, Upgrade},
};

/// Answers a handshake.
pub async fn open(
    State(service): State<Service>,
    caller: Caller,
    Path(project): Path<String>,
    headers: HeaderMap,
    upgrade: Upgrade,
) -> Response {
    let offered = Subprotocol::offered(&headers);
    let spoken = || match offered {
        Some(protocol) => Ok(Some(protocol.name())),
        None => Err(error::bad_request("invalid subprotocol: expected graphql-transport-ws or graphql-ws")),
    };
    let protocol = offered.unwrap_or(Subprotocol::Current);
    match socket::accept(&service, &caller, (project, &headers), upgrade, spoken).await {
        Ok(accepted) => accepted.serve(|state| GraphqlSession::new(state, protocol, caller.token.clone())),
        Err(fault) => answer::fault(&fault, &caller.call),
    }
}
