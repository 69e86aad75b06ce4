//! The handshake of a WebSocket. Source: RFC 6455, section 4.

use std::{convert::Infallible, net::IpAddr, sync::Arc};

use axum::{body::Body, extract::FromRequestParts, response::Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts};
use hyper::upgrade::OnUpgrade;
use mesh::{Fault, listener::Connection};
use tungstenite::handshake::derive_accept_key;

use crate::error;

/// What a connection may become after a handshake.
pub struct Upgrade {
    /// The bytes after the handshake, where the connection can be upgraded.
    connection: Option<OnUpgrade>,
    /// The client's address, where it is known.
    pub peer: Option<IpAddr>,
    method: Method,
}

impl<S: Sync> FromRequestParts<S> for Upgrade {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        let peer = parts.extensions.get::<Arc<Connection>>().map(|connection| connection.peer.ip());
        Ok(Self { connection: parts.extensions.remove(), peer, method: parts.method.clone() })
    }
}

/// Whether a request asks for a WebSocket.
pub fn is_asked(headers: &HeaderMap) -> bool {
    has_token(headers.get(header::UPGRADE), "websocket")
}

/// A handshake that is accepted.
pub struct Accepted {
    /// The answer to it.
    pub response: Response,
    /// The connection after it.
    pub upgraded: OnUpgrade,
}

/// Accepts a handshake; `subprotocol` says which one is spoken, if any.
pub fn accept(
    headers: &HeaderMap,
    upgrade: Upgrade,
    subprotocol: impl FnOnce() -> Result<Option<&'static str>, Fault>,
) -> Result<Accepted, Fault> {
    let refused = |what: &str| error::bad_request(format!("expected a WebSocket handshake: {what}"));
    if upgrade.method != Method::GET {
        return Err(refused("the method must be GET"));
    }
    if !is_asked(headers) {
        return Err(refused("header upgrade must be websocket"));
    }
    if !has_token(headers.get(header::CONNECTION), "upgrade") {
        return Err(refused("header connection must be upgrade"));
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes) != Some(b"13") {
        return Err(refused("header sec-websocket-version must be 13"));
    }
    let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY) else {
        return Err(refused("header sec-websocket-key is required"));
    };
    let subprotocol = subprotocol()?;
    let upgraded = upgrade.connection.ok_or_else(|| refused("it needs HTTP/1.1"))?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let accepted = HeaderValue::try_from(derive_accept_key(key.as_bytes())).expect("base64 is ASCII");
    let written = response.headers_mut();
    written.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    written.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    written.insert(header::SEC_WEBSOCKET_ACCEPT, accepted);
    if let Some(name) = subprotocol {
        written.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
    }
    Ok(Accepted { response, upgraded })
}

/// Whether `token` is in the list that a header is; case aside.
fn has_token(list: Option<&HeaderValue>, token: &str) -> bool {
    let list = list.and_then(|list| list.to_str().ok()).unwrap_or_default();
    list.split(',').any(|one| one.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handshake() -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            (header::UPGRADE, "WebSocket"),
            (header::CONNECTION, "keep-alive, Upgrade"),
            (header::SEC_WEBSOCKET_VERSION, "13"),
            (header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ=="),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers
    }

    fn refusal(change: impl FnOnce(&mut HeaderMap)) -> String {
        let mut headers = handshake();
        change(&mut headers);
        let upgrade = Upgrade { connection: None, peer: None, method: Method::GET };
        let accepted = accept(&headers, upgrade, || Err(error::bad_request("no subprotocol")));
        accepted.map(|_| "accepted").expect_err("it is refused").message
    }

    #[test]
    fn what_a_handshake_lacks_is_told() {
        let spoken = accept(&handshake(), Upgrade { connection: None, peer: None, method: Method::GET }, || Ok(None));
        let told = spoken.map(|_| "accepted").expect_err("the connection cannot be upgraded").message;
        assert_eq!(told, "expected a WebSocket handshake: it needs HTTP/1.1");
        assert_eq!(refusal(|_| ()), "no subprotocol");
        for (name, expected) in [
            (header::CONNECTION, "header connection must be upgrade"),
            (header::SEC_WEBSOCKET_VERSION, "header sec-websocket-version must be 13"),
            (header::SEC_WEBSOCKET_KEY, "header sec-websocket-key is required"),
        ] {
            let told = refusal(|headers| drop(headers.remove(name)));
            assert_eq!(told, format!("expected a WebSocket handshake: {expected}"));
        }
    }
}
