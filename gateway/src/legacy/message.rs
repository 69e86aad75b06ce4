//! Messages of the JSON socket: `{"id", "type", "data"}` both ways. A reply has the id and the type of its message.

use std::sync::Arc;

use mesh::Fault;
use proto::functions::WorkResult;
use query::{Guard, Object, Value};
use serde::Serialize;

use super::worker::{self, RegisterRequest};
use crate::{
    http::{TOKEN_BYTES_MAX, bearer},
    live::{FeedKind, FeedRow},
};

/// Bytes that an id, a type or a name may have: replies repeat them.
pub const NAME_BYTES_MAX: usize = 256;

/// The reply to what is no message, before the connection is closed.
pub const UNREADABLE: &str = r#"{"type":"unknown","data":{"error":"invalid request sent"},"id":"0"}"#;
/// What a request lacks whose table or database is not named.
const INCOMPLETE: &str = "invalid request parameters provided";

/// A message of a client.
#[derive(Debug, PartialEq)]
pub struct JsonMessage {
    /// Its id and its type.
    pub head: Head,
    /// What it asks for.
    pub request: JsonRequest,
}

/// What a reply repeats of its message.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Head {
    /// The message's id.
    pub id: String,
    /// The message's type.
    pub r#type: String,
}

/// What a message asks for.
#[derive(Debug, PartialEq)]
pub enum JsonRequest {
    /// `realtime-subscribe`; an error says what is wrong with it.
    Subscribe(Query, Result<Box<LiveQueryRequest>, String>),
    /// `realtime-unsubscribe`
    Unsubscribe(Query),
    /// `service-register`; an error says what is wrong with it.
    Register(Result<RegisterRequest, String>),
    /// `service-request`: the answer of a worker, `None` where it is of no call. Nothing may be sent to it: clients take it
    /// for another call.
    WorkerAnswer(Option<WorkResult>),
    /// `pubsub-subscribe` and the like.
    PubSub,
    /// Any other.
    Unknown,
}

/// A live query as its client names it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Query {
    /// Its id, which the client chose.
    pub id: String,
    /// The table.
    pub group: String,
}

/// A live query to begin.
#[derive(Debug, PartialEq)]
pub struct LiveQueryRequest {
    /// The database, as the client spells it: it finds its rows by that.
    pub db_type: String,
    /// The condition, by REST's grammar.
    pub find: Value,
    /// The rows that there are are not told.
    pub skip_initial: bool,
    /// Its token; empty: that of the handshake.
    pub token: Arc<str>,
}

impl JsonMessage {
    /// Parses a message, as far as `guard` lets it pass. An error says why it is none.
    pub fn parse(text: &[u8], guard: Guard) -> Result<Self, String> {
        let message = proto::json::parse(text, guard).map_err(|error| error.to_string())?;
        let Value::Object(Object(members)) = message else {
            return Err(format!("expected object, found {}", message.kind()));
        };
        let (mut head, mut data) = (Head::default(), Value::Null);
        for (name, value) in members {
            match name.as_str() {
                "id" => head.id = name_of("id", value)?,
                "type" => head.r#type = name_of("type", value)?,
                "data" => data = value,
                _ => {}
            }
        }
        let request = match head.r#type.as_str() {
            "realtime-subscribe" => JsonRequest::subscribe(data),
            "realtime-unsubscribe" => JsonRequest::Unsubscribe(Query::of(&data).0),
            "service-register" => JsonRequest::Register(RegisterRequest::of(data)),
            "service-request" => JsonRequest::WorkerAnswer(worker::answer(data)),
            "pubsub-subscribe" | "pubsub-unsubscribe" | "pubsub-unsubscribe-all" => JsonRequest::PubSub,
            _ => JsonRequest::Unknown,
        };
        Ok(Self { head, request })
    }
}

impl JsonRequest {
    fn subscribe(data: Value) -> Self {
        let (query, wrong) = Query::of(&data);
        let parsed = match wrong {
            Some(wrong) => Err(wrong),
            None => LiveQueryRequest::of(&query, data).map(Box::new),
        };
        JsonRequest::Subscribe(query, parsed)
    }
}

impl Query {
    /// The live query that `data` is about, as far as it is named, and what is wrong with its name.
    fn of(data: &Value) -> (Self, Option<String>) {
        let (mut query, mut wrong) = (Self::default(), None);
        let members = match data {
            Value::Object(Object(members)) => members.as_slice(),
            Value::Null => &[],
            other => {
                let wrong = format!("invalid data: expected object, found {}", other.kind());
                return (query, Some(wrong));
            }
        };
        for (name, value) in members {
            let part = match name.as_str() {
                "id" => &mut query.id,
                "group" => &mut query.group,
                _ => continue,
            };
            match name_of(name, value.clone()) {
                Ok(text) => *part = text,
                Err(text) => wrong = wrong.or(Some(text)),
            }
        }
        (query, wrong)
    }
}

impl LiveQueryRequest {
    fn of(query: &Query, data: Value) -> Result<Self, String> {
        let members = if let Value::Object(Object(members)) = data { members } else { Vec::new() };
        let mut parsed = Self { db_type: String::new(), find: Value::Null, skip_initial: false, token: Arc::default() };
        for (name, value) in members {
            match name.as_str() {
                "dbType" => parsed.db_type = name_of(&name, value)?,
                "where" => parsed.find = object_or_null(&name, value)?,
                "options" => parsed.skip_initial = skip_initial(object_or_null(&name, value)?)?,
                "token" => parsed.token = token(value)?,
                _ => {}
            }
        }
        match query.group.is_empty() || parsed.db_type.is_empty() {
            true => Err(INCOMPLETE.to_owned()),
            false => Ok(parsed),
        }
    }
}

/// A text that replies may repeat; null is an empty one.
pub fn name_of(name: &str, value: Value) -> Result<String, String> {
    match value {
        Value::Null => Ok(String::new()),
        Value::Text(text) if text.len() <= NAME_BYTES_MAX => Ok(text),
        Value::Text(_) => Err(format!("{name} must be at most {NAME_BYTES_MAX} bytes long")),
        other => Err(format!("invalid {name}: expected string, found {}", other.kind())),
    }
}

fn object_or_null(name: &str, value: Value) -> Result<Value, String> {
    match value {
        Value::Null | Value::Object(_) => Ok(value),
        other => Err(format!("invalid {name}: expected object, found {}", other.kind())),
    }
}

fn skip_initial(options: Value) -> Result<bool, String> {
    let Value::Object(Object(members)) = options else { return Ok(false) };
    match members.into_iter().find(|(name, _)| name == "skipInitial") {
        None | Some((_, Value::Null)) => Ok(false),
        Some((_, Value::Bool(skip))) => Ok(skip),
        Some((_, other)) => Err(format!("invalid options.skipInitial: expected boolean, found {}", other.kind())),
    }
}

/// A token, of which the scheme is left out.
pub fn token(value: Value) -> Result<Arc<str>, String> {
    match value {
        Value::Null => Ok(Arc::default()),
        Value::Text(text) => match bearer(&text) {
            token if token.len() > TOKEN_BYTES_MAX => {
                Err(format!("token must be at most {TOKEN_BYTES_MAX} bytes long"))
            }
            token => Ok(token.into()),
        },
        other => Err(format!("invalid token: expected string, found {}", other.kind())),
    }
}

/// A message to a client.
#[derive(Serialize)]
struct JsonReply<'a, T> {
    r#type: &'a str,
    data: T,
    id: &'a str,
}

#[derive(Serialize)]
struct ErrorData<'a> {
    error: &'a str,
}

#[derive(Serialize)]
struct RegisterData<'a> {
    ack: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

#[derive(Serialize)]
struct PubSubData<'a> {
    status: u16,
    error: &'a str,
    msg: (),
}

impl Head {
    /// The reply about a live query, without rows.
    pub fn acknowledged(&self, query: &Query) -> Vec<u8> {
        self.about(query, Ok(b"[]"))
    }

    /// The reply to a live query that begins with these rows, a JSON array.
    pub fn begun(&self, query: &Query, docs: &[u8]) -> Vec<u8> {
        self.about(query, Ok(docs))
    }

    /// The reply about a live query that is refused. Some clients fail without a list of rows.
    pub fn refused(&self, query: &Query, error: &str) -> Vec<u8> {
        self.about(query, Err(error))
    }

    /// Tells that a live query has ended that had begun, by which fault.
    pub fn ended(&self, query: &Query, fault: &Fault) -> Vec<u8> {
        let code = written(&fault.code.as_str());
        self.written_about(query, Err(&fault.message), &[(r#","code":"#, &code)])
    }

    fn about(&self, query: &Query, docs: Result<&[u8], &str>) -> Vec<u8> {
        self.written_about(query, docs, &[])
    }

    fn written_about(&self, query: &Query, docs: Result<&[u8], &str>, more: &[(&str, &[u8])]) -> Vec<u8> {
        let (ack, docs, error): (&[u8], _, _) = match docs {
            Ok(docs) => (b"true", docs, ""),
            Err(error) => (b"false", &b"[]"[..], error),
        };
        let mut out = Vec::with_capacity(docs.len() + error.len() + 1024);
        write_members(
            &mut out,
            &[
                (r#"{"type":"#, &written(&self.r#type)),
                (r#","data":{"group":"#, &written(&query.group)),
                (r#","id":"#, &written(&query.id)),
                (r#","ack":"#, ack),
                (r#","error":"#, &written(&error)),
                (r#","docs":"#, docs),
            ],
        );
        write_members(&mut out, more);
        write_members(&mut out, &[(r#"},"id":"#, &written(&self.id)), ("}", b"")]);
        out
    }

    /// The reply to a type that is not known.
    pub fn unknown(&self) -> Vec<u8> {
        self.reply(ErrorData { error: "Invalid message type" })
    }

    /// The reply to a worker that is registered.
    pub fn registered(&self) -> Vec<u8> {
        self.reply(RegisterData { ack: true, error: None })
    }

    /// The reply to a worker that is refused.
    pub fn not_registered(&self, error: &str) -> Vec<u8> {
        self.reply(RegisterData { ack: false, error: Some(error) })
    }

    /// The reply to a message about topics.
    pub fn no_topics(&self) -> Vec<u8> {
        self.reply(PubSubData { status: 404, error: "This feature isn't enabled", msg: () })
    }

    fn reply(&self, data: impl Serialize) -> Vec<u8> {
        written(&JsonReply { r#type: &self.r#type, data, id: &self.id })
    }
}

/// The message that tells a row of a live query.
pub fn feed(query: &Query, db_type: &str, row: &FeedRow) -> Vec<u8> {
    let mut out = Vec::with_capacity(row.row.len() + row.key.len() + 256);
    out.extend_from_slice(br#"{"type":"realtime-feed","data":"#);
    write_row(&mut out, query, db_type, row);
    out.extend_from_slice(br#","id":""}"#);
    out
}

/// Writes a row of a live query as clients keep it. Its payload has the columns of `find`, by which they tell it from others.
pub fn write_row(out: &mut Vec<u8>, query: &Query, db_type: &str, row: &FeedRow) {
    let payload: &[u8] = if row.kind == FeedKind::Delete { b"null" } else { &row.row };
    write_members(
        out,
        &[
            (r#"{"id":"#, &written(&query.id)),
            (r#","docId":"#, &written(&row.doc_id())),
            (r#","type":"#, &written(&row.kind.name())),
            (r#","payload":"#, payload),
            (r#","time":"#, &written(&row.time_ms)),
            (r#","group":"#, &written(&query.group)),
            (r#","dbType":"#, &written(&db_type)),
            (r#","find":"#, &row.key),
            ("}", b""),
        ],
    );
}

/// Writes JSON values, each after the text that leads to it.
fn write_members(out: &mut Vec<u8>, members: &[(&str, &[u8])]) {
    for (before, json) in members {
        out.extend_from_slice(before.as_bytes());
        out.extend_from_slice(json);
    }
}

/// A message as JSON.
pub fn written(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("texts and numbers can always be written to memory")
}

#[cfg(test)]
mod tests;
