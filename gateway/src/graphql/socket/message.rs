//! Messages of the protocol, and the codes with which a connection is closed.

use std::sync::Arc;

use mesh::Fault;
use query::{Guard, Object, Value};
use tungstenite::{Message, Utf8Bytes, protocol::CloseFrame};

use crate::{graphql::request::Request, http::bearer};

/// Bytes that the id of an operation may have.
const ID_BYTES_MAX: usize = 256;
/// Bytes that a token may have: auth-rules takes none that is longer.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Bytes that the reason of a close frame may have. Source: RFC 6455, section 5.5.
const REASON_BYTES_MAX: usize = 123;

/// A message of a client.
#[derive(Debug, PartialEq)]
pub enum ClientMessage {
    /// `connection_init`
    Init {
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
    /// `subscribe`
    Subscribe {
        /// The client's id of the operation.
        id: String,
        /// What to carry out.
        request: Box<Request>,
    },
    /// `complete`
    Complete {
        /// The client's id of the operation.
        id: String,
    },
}

/// A message to a client.
#[derive(Debug)]
pub enum ServerMessage<'a> {
    /// `connection_ack`
    Acknowledgement,
    /// `pong`
    Pong,
    /// `next`
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
    /// `complete`
    Complete {
        /// The client's id of the operation.
        id: &'a str,
    },
}

/// Why a connection is closed.
#[derive(Debug, Clone, PartialEq)]
pub struct Closing {
    /// By RFC 6455, section 7.4, or by the protocol: 4400 and above.
    pub code: u16,
    /// For people.
    pub reason: Utf8Bytes,
}

impl Closing {
    /// The node stops; the client connects anew, elsewhere.
    pub const RESTART: Closing = Closing::with(1012, "the node stops; connect again");
    /// `subscribe` before `connection_ack`.
    pub const UNAUTHORIZED: Closing = Closing::with(4401, "Unauthorized");
    /// No `connection_init` in time.
    pub const INIT_TIMEOUT: Closing = Closing::with(4408, "Connection initialisation timeout");
    /// A second `connection_init`.
    pub const INITIALISED_AGAIN: Closing = Closing::with(4429, "Too many initialisation requests");
    /// A message over its limit.
    pub const TOO_LARGE: Closing = Closing::with(1009, "the message is over the limit of limits.body_bytes");
    const MALFORMED: Closing = Closing::with(1002, "invalid frame");

    const fn with(code: u16, reason: &'static str) -> Self {
        Self { code, reason: Utf8Bytes::from_static(reason) }
    }

    fn because(code: u16, reason: &str) -> Self {
        Self { code, reason: reason[..reason.floor_char_boundary(REASON_BYTES_MAX)].to_owned().into() }
    }

    /// A message that is none of the protocol.
    pub fn invalid(what: &str) -> Self {
        Self::because(4400, &format!("invalid message: {what}"))
    }

    /// An operation with an id that is taken.
    pub fn known_subscriber(id: &str) -> Self {
        Self::because(4409, &format!("Subscriber for {id} already exists"))
    }

    /// A token that is not valid.
    pub fn forbidden(fault: &Fault) -> Self {
        Self::because(4403, &format!("Forbidden: {}", fault.message))
    }

    /// The token cannot be checked.
    pub fn failed(fault: &Fault) -> Self {
        // Not 4500, after which clients of the protocol do not come back.
        Self::because(1013, &fault.message)
    }

    /// What the client holds by its messages is over a limit.
    pub fn full(fault: &Fault) -> Self {
        Self::because(1013, &fault.message)
    }

    /// The end of a connection whose frames cannot be read; `None` where it is broken.
    pub fn of(error: &tungstenite::Error) -> Option<Self> {
        match error {
            tungstenite::Error::Capacity(_) => Some(Self::TOO_LARGE),
            tungstenite::Error::Io(error) if error.kind() == std::io::ErrorKind::FileTooLarge => Some(Self::TOO_LARGE),
            tungstenite::Error::Protocol(_) | tungstenite::Error::Utf8(_) => Some(Self::MALFORMED),
            _ => None,
        }
    }
}

impl From<Closing> for Message {
    fn from(closing: Closing) -> Self {
        Message::Close(Some(CloseFrame { code: closing.code.into(), reason: closing.reason }))
    }
}

impl ClientMessage {
    /// Parses a message, as far as `guard` lets it pass.
    pub fn parse(text: &[u8], guard: Guard) -> Result<Self, Closing> {
        let message = proto::json::parse(text, guard).map_err(|error| Closing::invalid(&error.to_string()))?;
        let Value::Object(Object(members)) = message else {
            return Err(Closing::invalid(&format!("expected object, found {}", message.kind())));
        };
        let (mut r#type, mut id, mut payload) = (None, None, Value::Null);
        for (name, value) in members {
            match (name.as_str(), value) {
                ("type", Value::Text(text)) => r#type = Some(text),
                ("id", Value::Text(text)) => id = Some(text),
                ("payload", value) => payload = value,
                ("type" | "id", other) => {
                    return Err(Closing::invalid(&format!("invalid {name}: expected string, found {}", other.kind())));
                }
                _ => {}
            }
        }
        let id = || match id {
            Some(id) if (1..=ID_BYTES_MAX).contains(&id.len()) => Ok(id),
            Some(_) => Err(Closing::invalid(&format!("invalid id: expected 1 to {ID_BYTES_MAX} bytes"))),
            None => Err(Closing::invalid("id is required")),
        };
        match r#type.as_deref() {
            Some("connection_init") => Ok(Self::Init { token: token(payload)? }),
            Some("ping") => Ok(Self::Ping { token: token(payload)? }),
            Some("pong") => Ok(Self::Pong),
            Some("complete") => Ok(Self::Complete { id: id()? }),
            Some("subscribe") => {
                let Value::Object(members) = payload else {
                    return Err(Closing::invalid(&wrong_payload("object", &payload)));
                };
                let request = Request::of_members(members).map_err(|fault| Closing::invalid(&fault.message))?;
                Ok(Self::Subscribe { id: id()?, request: Box::new(request) })
            }
            Some(other) => Err(Closing::invalid(&format!("type {other} is not known"))),
            None => Err(Closing::invalid("type is required")),
        }
    }
}

/// The token of a payload: its `authorization`, its `token`, or the `authorization` of its `headers`. Names of headers
/// are of any case.
fn token(payload: Value) -> Result<Option<Arc<str>>, Closing> {
    let members = match payload {
        Value::Null => return Ok(None),
        Value::Object(Object(members)) => members,
        other => return Err(Closing::invalid(&wrong_payload("object", &other))),
    };
    let mut headers = None;
    for (name, value) in members {
        let is_token = name.eq_ignore_ascii_case("authorization") || name == "token";
        match value {
            Value::Text(text) if is_token => return bounded(&name, &text).map(Some),
            Value::Null => {}
            value if is_token => return Err(Closing::invalid(&wrong_token(&name, &value))),
            Value::Object(Object(members)) if name == "headers" => headers = Some(members),
            _ => {}
        }
    }
    for (name, value) in headers.into_iter().flatten() {
        match value {
            Value::Text(text) if name.eq_ignore_ascii_case("authorization") => {
                return bounded("headers.authorization", &text).map(Some);
            }
            Value::Null => {}
            value if name.eq_ignore_ascii_case("authorization") => {
                return Err(Closing::invalid(&wrong_token("headers.authorization", &value)));
            }
            _ => {}
        }
    }
    Ok(None)
}

/// A token that is looked at before it is verified.
fn bounded(name: &str, text: &str) -> Result<Arc<str>, Closing> {
    let token = bearer(text);
    match token.len() <= TOKEN_BYTES_MAX {
        true => Ok(token.into()),
        false => Err(Closing::invalid(&format!("payload.{name} must be at most {TOKEN_BYTES_MAX} bytes long"))),
    }
}

fn wrong_payload(expected: &str, found: &Value) -> String {
    format!("invalid payload: expected {expected}, found {}", found.kind())
}

fn wrong_token(name: &str, found: &Value) -> String {
    format!("invalid payload.{name}: expected string, found {}", found.kind())
}

impl ServerMessage<'_> {
    /// The message as JSON.
    pub fn into_text(self) -> Vec<u8> {
        let (r#type, id, payload) = match self {
            ServerMessage::Acknowledgement => return br#"{"type":"connection_ack"}"#.to_vec(),
            ServerMessage::Pong => return br#"{"type":"pong"}"#.to_vec(),
            ServerMessage::Next { id, result } => ("next", id, Some(result)),
            ServerMessage::Error { id, errors } => ("error", id, Some(errors)),
            ServerMessage::Complete { id } => ("complete", id, None),
        };
        let mut out = Vec::with_capacity(payload.map_or(0, <[u8]>::len) + id.len() + 64);
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(r#type.as_bytes());
        out.extend_from_slice(b"\",\"id\":");
        serde_json::to_writer(&mut out, id).expect("a text can always be written to memory");
        if let Some(payload) = payload {
            out.extend_from_slice(b",\"payload\":");
            out.extend_from_slice(payload);
        }
        out.push(b'}');
        out
    }
}

impl From<ServerMessage<'_>> for Message {
    fn from(message: ServerMessage<'_>) -> Self {
        let text = Utf8Bytes::try_from(message.into_text());
        Message::Text(text.expect("answers are JSON, which is UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ClientMessage, String> {
        ClientMessage::parse(text.as_bytes(), Guard::default()).map_err(|closing| {
            assert_eq!(closing.code, 4400);
            closing.reason.to_string()
        })
    }

    #[test]
    fn a_token_is_found_in_every_place_that_clients_put_it() {
        for payload in [
            r#"{"authorization": "Bearer a.b.c"}"#,
            r#"{"Authorization": "a.b.c"}"#,
            r#"{"token": "a.b.c", "headers": {"authorization": "other"}}"#,
            r#"{"headers": {"x": "y", "Authorization": "bearer a.b.c"}}"#,
        ] {
            let message = parse(&format!(r#"{{"type": "connection_init", "payload": {payload}}}"#));
            assert_eq!(message, Ok(ClientMessage::Init { token: Some("a.b.c".into()) }), "{payload}");
        }
        for payload in ["null", "{}", r#"{"token": null, "headers": {}}"#] {
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
    fn a_reason_fits_its_frame() {
        let closing = Closing::known_subscriber(&"ä".repeat(100));
        assert!(closing.reason.len() <= REASON_BYTES_MAX && closing.reason.starts_with("Subscriber for ä"));
    }

    #[test]
    fn the_id_of_a_client_is_escaped() {
        let message = Message::from(ServerMessage::Next { id: "a\"\n", result: b"{}" });
        assert_eq!(message, Message::Text(r#"{"type":"next","id":"a\"\n","payload":{}}"#.into()));
    }
}
