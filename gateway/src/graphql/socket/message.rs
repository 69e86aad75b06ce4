//! Messages of the subprotocols.

use std::sync::Arc;

use query::{Guard, Object, Value};
use serde::Deserialize;

use super::{protocol::Subprotocol, token};
use crate::graphql::{request::Request, response::json};

/// Bytes that an id may have.
const ID_BYTES_MAX: usize = 256;
/// Bytes of what is told of a message that is not valid, of which it may have parts.
const INVALID_BYTES_MAX: usize = 512;

/// A message of a client.
#[derive(Debug, PartialEq)]
pub enum ClientMessage {
    /// `connection_init`
    Init {
        /// Its id, which the old subprotocol knows.
        id: Option<String>,
        /// The token of its payload, if it has one.
        token: Option<Arc<str>>,
    },
    /// `ping`
    Ping {
        /// A new token, if its payload has one.
        token: Option<Arc<str>>,
    },
    /// `pong`
    Pong,
    /// `subscribe`; `start` in the old subprotocol.
    Subscribe {
        /// The client's id of the operation.
        id: String,
        /// What to carry out.
        request: Box<Request>,
        /// A token of its own, which the old subprotocol knows.
        token: Option<Arc<str>>,
    },
    /// `complete`; `stop` in the old subprotocol.
    Complete {
        /// The client's id of the operation.
        id: String,
    },
    /// `connection_terminate`
    Terminate,
}

/// A message of a client that is none of its subprotocol.
#[derive(Debug, PartialEq)]
pub struct InvalidMessage {
    /// Its id, if it has one.
    pub id: Option<String>,
    /// What is wrong with it.
    pub what: String,
    /// Whether it is the first one, without which there are no others.
    pub is_init: bool,
}

/// A message to a client.
#[derive(Debug, Clone, Copy)]
pub enum ServerMessage<'a> {
    /// `connection_ack`
    Acknowledgement {
        /// The id of `connection_init`.
        id: Option<&'a str>,
    },
    /// `connection_error`, which the old subprotocol knows.
    ConnectionError {
        /// JSON of the list of errors.
        errors: &'a [u8],
    },
    /// `ka`, which the old subprotocol knows.
    KeepAlive {
        /// The id of `connection_init`.
        id: Option<&'a str>,
    },
    /// `pong`
    Pong,
    /// `next`; `data` in the old subprotocol.
    Next {
        /// The client's id of the operation.
        id: &'a str,
        /// JSON of the result.
        result: &'a [u8],
    },
    /// `error`
    Error {
        /// The client's id of the operation.
        id: &'a str,
        /// JSON of the list of errors.
        errors: &'a [u8],
    },
    /// `error` of a message, which the old subprotocol knows.
    Invalid {
        /// The message's id.
        id: Option<&'a str>,
        /// JSON of the list of errors.
        errors: &'a [u8],
    },
    /// `complete`
    Complete {
        /// The client's id of the operation.
        id: &'a str,
    },
}

/// What both subprotocols have in a message.
struct Envelope {
    r#type: String,
    id: Option<String>,
    payload: Value,
}

impl ClientMessage {
    /// Parses a message, as far as `guard` lets it pass.
    pub fn parse(protocol: Subprotocol, text: &[u8], guard: Guard) -> Result<Self, InvalidMessage> {
        let envelope = Envelope::parse(text, guard)?;
        match protocol {
            Subprotocol::Current => envelope.current(),
            Subprotocol::Legacy => envelope.legacy(),
        }
    }
}

impl InvalidMessage {
    fn new(what: &str) -> Self {
        Self::told(&format!("invalid message: {what}"))
    }

    fn told(text: &str) -> Self {
        let what = text[..text.floor_char_boundary(INVALID_BYTES_MAX)].to_owned();
        Self { id: None, what, is_init: false }
    }
}

impl Envelope {
    fn parse(text: &[u8], guard: Guard) -> Result<Self, InvalidMessage> {
        let message = proto::json::parse(text, guard).map_err(|error| InvalidMessage::new(&error.to_string()))?;
        let Value::Object(Object(members)) = message else {
            return Err(InvalidMessage::new(&format!("expected object, found {}", message.kind())));
        };
        let (mut r#type, mut id, mut payload) = (None, None, Value::Null);
        for (name, value) in members {
            match (name.as_str(), value) {
                ("type", Value::Text(text)) => r#type = Some(text),
                ("id", Value::Text(text)) => id = Some(text),
                ("id", Value::Null) => {}
                ("payload", value) => payload = value,
                ("type" | "id", other) => {
                    let what = format!("invalid {name}: expected string, found {}", other.kind());
                    return Err(InvalidMessage::new(&what));
                }
                _ => {}
            }
        }
        if id.as_ref().is_some_and(|id| !(1..=ID_BYTES_MAX).contains(&id.len())) {
            return Err(InvalidMessage::new(&format!("invalid id: expected 1 to {ID_BYTES_MAX} bytes")));
        }
        match r#type {
            Some(r#type) => Ok(Self { r#type, id, payload }),
            None => Err(InvalidMessage { id, ..InvalidMessage::new("type is required") }),
        }
    }

    fn current(self) -> Result<ClientMessage, InvalidMessage> {
        match self.r#type.as_str() {
            "connection_init" => self.init(),
            "ping" => Ok(ClientMessage::Ping { token: self.checked(token::of_payload(&self.payload))? }),
            "pong" => Ok(ClientMessage::Pong),
            "subscribe" => self.subscribe(|_| Ok(None)),
            "complete" => self.complete(),
            other => Err(InvalidMessage::new(&format!("type {other} is not known"))),
        }
    }

    fn legacy(self) -> Result<ClientMessage, InvalidMessage> {
        match self.r#type.as_str() {
            "connection_init" => self.init(),
            "start" => self.subscribe(|payload| token::of_member(payload, "authToken")),
            "stop" => self.complete(),
            "connection_terminate" => Ok(ClientMessage::Terminate),
            other => {
                let told = InvalidMessage::told(&format!("invalid message type ({other}) provided"));
                Err(InvalidMessage { id: self.id, ..told })
            }
        }
    }

    fn init(self) -> Result<ClientMessage, InvalidMessage> {
        match self.checked(token::of_payload(&self.payload)) {
            Ok(token) => Ok(ClientMessage::Init { id: self.id, token }),
            Err(invalid) => Err(InvalidMessage { is_init: true, ..invalid }),
        }
    }

    fn subscribe(
        mut self,
        token: impl Fn(&Object) -> Result<Option<Arc<str>>, String>,
    ) -> Result<ClientMessage, InvalidMessage> {
        let payload = match std::mem::replace(&mut self.payload, Value::Null) {
            Value::Object(members) => Ok(members),
            other => Err(format!("invalid payload: expected object, found {}", other.kind())),
        };
        let payload = self.checked(payload)?;
        let token = self.checked(token(&payload))?;
        let request = self.checked(Request::of_members(payload).map_err(|fault| fault.message))?;
        Ok(ClientMessage::Subscribe { id: self.required_id()?, request: Box::new(request), token })
    }

    fn complete(self) -> Result<ClientMessage, InvalidMessage> {
        Ok(ClientMessage::Complete { id: self.required_id()? })
    }

    fn required_id(self) -> Result<String, InvalidMessage> {
        self.id.ok_or_else(|| InvalidMessage::new("id is required"))
    }

    fn checked<T>(&self, part: Result<T, String>) -> Result<T, InvalidMessage> {
        part.map_err(|what| InvalidMessage { id: self.id.clone(), ..InvalidMessage::new(&what) })
    }
}

/// Payload of a message to a client.
enum Payload<'a> {
    None,
    Empty,
    Json(&'a [u8]),
    /// A list of errors in an object, beside the message of the first.
    Errors(&'a [u8]),
}

impl ServerMessage<'_> {
    /// The message as JSON.
    pub fn into_text(self, protocol: Subprotocol) -> Vec<u8> {
        let is_legacy = protocol == Subprotocol::Legacy;
        let (r#type, id, payload) = match self {
            ServerMessage::Acknowledgement { .. } if !is_legacy => ("connection_ack", None, Payload::None),
            ServerMessage::Acknowledgement { id } => ("connection_ack", id, Payload::Empty),
            ServerMessage::ConnectionError { errors } => ("connection_error", None, Payload::Errors(errors)),
            ServerMessage::KeepAlive { id } => ("ka", id, Payload::Empty),
            ServerMessage::Pong => ("pong", None, Payload::None),
            ServerMessage::Next { id, result } => {
                (if is_legacy { "data" } else { "next" }, Some(id), Payload::Json(result))
            }
            ServerMessage::Error { id, errors } if is_legacy => ("error", Some(id), Payload::Errors(errors)),
            ServerMessage::Error { id, errors } => ("error", Some(id), Payload::Json(errors)),
            ServerMessage::Invalid { id, errors } => ("error", id, Payload::Errors(errors)),
            ServerMessage::Complete { id } => ("complete", Some(id), Payload::None),
        };
        let mut out = Vec::with_capacity(payload.len() + id.map_or(0, str::len) + 64);
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(r#type.as_bytes());
        out.push(b'"');
        if let Some(id) = id {
            out.extend_from_slice(b",\"id\":");
            json(&mut out, id);
        }
        payload.write(&mut out);
        out.push(b'}');
        out
    }
}

impl Payload<'_> {
    /// About its bytes.
    fn len(&self) -> usize {
        match self {
            Payload::None | Payload::Empty => 0,
            Payload::Json(json) | Payload::Errors(json) => json.len(),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Payload::None => return,
            _ => out.extend_from_slice(b",\"payload\":"),
        }
        match self {
            Payload::None => {}
            Payload::Empty => out.extend_from_slice(b"{}"),
            Payload::Json(json) => out.extend_from_slice(json),
            Payload::Errors(errors) => {
                out.extend_from_slice(b"{\"errors\":");
                out.extend_from_slice(errors);
                out.extend_from_slice(b",\"message\":");
                json(out, &first_message(errors));
                out.push(b'}');
            }
        }
    }
}

/// The message of the first of `errors`.
fn first_message(errors: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Error {
        message: String,
    }
    let errors: Vec<Error> = serde_json::from_slice(errors).unwrap_or_default();
    errors.into_iter().next().map(|error| error.message).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::TOKEN_BYTES_MAX;

    fn parse(text: &str) -> Result<ClientMessage, String> {
        parse_of(Subprotocol::Current, text).map_err(|invalid| invalid.what)
    }

    fn parse_of(protocol: Subprotocol, text: &str) -> Result<ClientMessage, InvalidMessage> {
        ClientMessage::parse(protocol, text.as_bytes(), Guard::default())
    }

    #[test]
    fn a_token_is_found_in_every_place_that_clients_put_it() {
        for payload in [
            r#"{"authorization": "Bearer a.b.c"}"#,
            r#"{"Authorization": "a.b.c"}"#,
            r#"{"token": "a.b.c", "headers": {"authorization": "other"}}"#,
            r#"{"headers": {"x": "y", "Authorization": "bearer a.b.c"}}"#,
            r#"{"authToken": "a.b.c"}"#,
            r#"{"token": null, "connectionParams": {"token": "a.b.c"}}"#,
        ] {
            let text = format!(r#"{{"type": "connection_init", "id": "i", "payload": {payload}}}"#);
            for protocol in [Subprotocol::Current, Subprotocol::Legacy] {
                let init = ClientMessage::Init { id: Some("i".to_owned()), token: Some("a.b.c".into()) };
                assert_eq!(parse_of(protocol, &text), Ok(init), "{payload}");
            }
        }
        for payload in ["null", "{}", r#"{"token": null, "headers": {}}"#, r#"{"headers": 1}"#] {
            let message = parse(&format!(r#"{{"type": "ping", "payload": {payload}}}"#));
            assert_eq!(message, Ok(ClientMessage::Ping { token: None }), "{payload}");
        }
    }

    #[test]
    fn a_token_is_no_longer_than_auth_rules_takes() {
        let token = "x".repeat(TOKEN_BYTES_MAX);
        for (name, payload) in [
            ("token", format!(r#"{{"token": "{token}"}}"#)),
            ("headers.authorization", format!(r#"{{"headers": {{"authorization": "{token}"}}}}"#)),
        ] {
            for r#type in ["connection_init", "ping"] {
                let message = format!(r#"{{"type": "{type}", "payload": {payload}}}"#);
                assert!(parse(&message).is_ok(), "{type} {name}");
                let told = format!("invalid message: payload.{name} must be at most 16384 bytes long");
                assert_eq!(parse(&message.replace("xx\"", "xxx\"")), Err(told), "{type}");
            }
        }
    }

    #[test]
    fn what_is_wrong_with_a_message_is_told() {
        for (text, expected) in [
            ("[]", "expected object, found array"),
            ("{}", "type is required"),
            (r#"{"type": 1}"#, "invalid type: expected string, found integer"),
            (r#"{"type": "start"}"#, "type start is not known"),
            (r#"{"type": "complete"}"#, "id is required"),
            (r#"{"type": "complete", "id": 1}"#, "invalid id: expected string, found integer"),
            (r#"{"type": "complete", "id": ""}"#, "invalid id: expected 1 to 256 bytes"),
            (r#"{"type": "subscribe", "id": "1"}"#, "invalid payload: expected object, found null"),
            (r#"{"type": "subscribe", "id": "1", "payload": {}}"#, "query is required"),
            (r#"{"type": "subscribe", "payload": {"query": "{a}"}}"#, "id is required"),
            (r#"{"type": "connection_init", "payload": "x"}"#, "invalid payload: expected object, found string"),
            (r#"{"type": "ping", "payload": {"token": 1}}"#, "invalid payload.token: expected string, found integer"),
            (
                r#"{"type": "ping", "payload": {"headers": {"authorization": []}}}"#,
                "invalid payload.headers.authorization: expected string, found array",
            ),
        ] {
            assert_eq!(parse(text), Err(format!("invalid message: {expected}")), "{text}");
        }
        assert!(parse("{").unwrap_err().starts_with("invalid message: "));
    }

    #[test]
    fn what_is_wrong_with_a_message_of_the_old_subprotocol_is_told_with_its_id() {
        for (text, id, what) in [
            (r#"{"type": "subscribe", "id": "1"}"#, Some("1"), "invalid message type (subscribe) provided"),
            (r#"{"type": "ping"}"#, None, "invalid message type (ping) provided"),
            (r#"{"type": "stop"}"#, None, "invalid message: id is required"),
            (r#"{"id": "1"}"#, Some("1"), "invalid message: type is required"),
            (r#"{"type": "start", "id": "1", "payload": {}}"#, Some("1"), "invalid message: query is required"),
            (
                r#"{"type": "start", "id": "1", "payload": {"query": "{a}", "authToken": 1}}"#,
                Some("1"),
                "invalid message: invalid payload.authToken: expected string, found integer",
            ),
        ] {
            let expected = InvalidMessage { id: id.map(str::to_owned), what: what.to_owned(), is_init: false };
            assert_eq!(parse_of(Subprotocol::Legacy, text), Err(expected), "{text}");
        }
        let invalid = parse_of(Subprotocol::Legacy, r#"{"type": "connection_init", "payload": 1}"#);
        assert!(invalid.is_err_and(|invalid| invalid.is_init));
        let long = parse_of(Subprotocol::Legacy, &format!(r#"{{"type": "{}"}}"#, "ä".repeat(1000)));
        assert!(long.is_err_and(|invalid| invalid.what.len() <= INVALID_BYTES_MAX), "no more than that is sent back");
    }

    #[test]
    fn messages_of_the_old_subprotocol_are_the_same_by_other_names() {
        let start = r#"{"type": "start", "id": "1", "payload": {"query": "{a}", "authToken": "Bearer t"}}"#;
        let Ok(ClientMessage::Subscribe { id, request, token }) = parse_of(Subprotocol::Legacy, start) else {
            panic!("it is legal")
        };
        assert_eq!((id.as_str(), request.query.as_str(), token.as_deref()), ("1", "{a}", Some("t")));
        for (text, message) in [
            (r#"{"type": "stop", "id": "1"}"#, ClientMessage::Complete { id: "1".to_owned() }),
            (r#"{"type": "connection_terminate", "id": null}"#, ClientMessage::Terminate),
        ] {
            assert_eq!(parse_of(Subprotocol::Legacy, text), Ok(message));
        }
        let errors: &[u8] = br#"[{"message":"no \"a\"","path":["a"]},{"message":"b"}]"#;
        for (message, current, legacy) in [
            (
                ServerMessage::Acknowledgement { id: Some("i") },
                r#"{"type":"connection_ack"}"#,
                r#"{"type":"connection_ack","id":"i","payload":{}}"#,
            ),
            (
                ServerMessage::Next { id: "a\"\n", result: b"{}" },
                r#"{"type":"next","id":"a\"\n","payload":{}}"#,
                r#"{"type":"data","id":"a\"\n","payload":{}}"#,
            ),
            (
                ServerMessage::Error { id: "1", errors },
                r#"{"type":"error","id":"1","payload":[{"message":"no \"a\"","path":["a"]},{"message":"b"}]}"#,
                r#"{"type":"error","id":"1","payload":{"errors":[{"message":"no \"a\"","path":["a"]},{"message":"b"}],"message":"no \"a\""}}"#,
            ),
            (ServerMessage::Complete { id: "1" }, r#"{"type":"complete","id":"1"}"#, r#"{"type":"complete","id":"1"}"#),
        ] {
            let text = |message: ServerMessage<'_>, protocol| String::from_utf8(message.into_text(protocol)).unwrap();
            assert_eq!(text(message, Subprotocol::Current), current);
            assert_eq!(text(message, Subprotocol::Legacy), legacy);
        }
        let text = ServerMessage::KeepAlive { id: None }.into_text(Subprotocol::Legacy);
        assert_eq!(text, br#"{"type":"ka","payload":{}}"#);
    }
}
