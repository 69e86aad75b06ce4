//! What an answer of success says besides: that it is none, what whoever waits gets, and events that follow.

use std::collections::BTreeMap;

use bytes::Bytes;
use query::event::{self, Moment};
use serde::Deserialize;
use serde_json::{Value as Json, value::RawValue};

/// Most bytes of an answer that are read.
pub const ANSWER_BYTES: usize = 256 << 10;
/// Events that may follow from one answer.
const FOLLOWUPS_MAX: usize = 100;
/// Bytes of what is told of events that are left out.
const LEFT_OUT_BYTES: usize = 300;

/// What an answer says.
#[derive(Debug, Default, PartialEq)]
pub struct Reply {
    /// It has an `error` that is not empty, or `ack: false`.
    pub is_refusal: bool,
    /// JSON.
    pub response: Option<Bytes>,
    /// Events that follow.
    pub events: Vec<Followup>,
    /// Why there are none of those that it asks for.
    pub left_out: Option<String>,
}

/// A custom event that an answer asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Followup {
    /// Its type.
    pub r#type: String,
    /// JSON.
    pub payload: Bytes,
    /// Milliseconds that it waits.
    pub delay_ms: u64,
    /// When it is to be due.
    pub at: Option<Moment>,
}

#[derive(Deserialize)]
struct ReplyMembers {
    #[serde(default)]
    error: Json,
    #[serde(default)]
    ack: Option<Json>,
    #[serde(default)]
    response: Option<Box<RawValue>>,
    #[serde(default)]
    event: Option<Box<RawValue>>,
    #[serde(default)]
    events: Option<Box<RawValue>>,
}

impl Reply {
    /// What an answer says; nothing where it is no JSON object.
    pub fn of(body: &[u8]) -> Self {
        let is_object = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
        let members: Option<ReplyMembers> = is_object.then(|| serde_json::from_slice(body).ok()).flatten();
        let Some(ReplyMembers { error, ack, response, event, events }) = members else { return Self::default() };
        if !is_empty(&error) || ack == Some(Json::Bool(false)) {
            return Self { is_refusal: true, ..Self::default() };
        }
        let response = response.map(|response| Bytes::copy_from_slice(response.get().as_bytes()));
        let (events, left_out) = match followups(event.as_deref(), events.as_deref()) {
            Ok(events) => (events, None),
            Err(mut why) => {
                why.truncate(why.floor_char_boundary(LEFT_OUT_BYTES));
                (Vec::new(), Some(why))
            }
        };
        Self { is_refusal: false, response, events, left_out }
    }
}

fn is_empty(error: &Json) -> bool {
    match error {
        Json::Null => true,
        Json::String(text) => text.is_empty(),
        Json::Object(members) => members.is_empty(),
        Json::Array(items) => items.is_empty(),
        Json::Bool(flag) => !flag,
        Json::Number(_) => false,
    }
}

/// The events of an answer, all or none. Errors: why none.
fn followups(event: Option<&RawValue>, events: Option<&RawValue>) -> Result<Vec<Followup>, String> {
    let mut all: Vec<&RawValue> = event.into_iter().collect();
    if let Some(events) = events {
        let items: Vec<&RawValue> =
            serde_json::from_str(events.get()).map_err(|_| "events: expected array".to_owned())?;
        all.extend(items);
    }
    if all.len() > FOLLOWUPS_MAX {
        return Err(format!("{} events are over the limit of {FOLLOWUPS_MAX} events of an answer", all.len()));
    }
    all.into_iter().map(followup).collect()
}

fn followup(json: &RawValue) -> Result<Followup, String> {
    let members: BTreeMap<String, &RawValue> =
        serde_json::from_str(json.get()).map_err(|_| "event: expected object".to_owned())?;
    // Earlier servers took keys in any case.
    let member = |name: &str| {
        let exact = members.get(name);
        let found =
            exact.or_else(|| members.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, json)| json));
        found.map(|json| json.get()).filter(|json| *json != "null")
    };
    fn read<'j, T: Deserialize<'j>>(name: &str, json: Option<&'j str>, expected: &str) -> Result<Option<T>, String> {
        json.map(|json| serde_json::from_str(json).map_err(|_| format!("{name}: expected {expected}"))).transpose()
    }
    let r#type: String = read("type", member("type"), "string")?.ok_or("type is required")?;
    event::check_name(&r#type)?;
    if event::is_internal(&r#type) {
        return Err(format!("cannot create internal event ({type})"));
    }
    let unit: Option<String> = read("delayUnit", member("delayUnit"), "string")?;
    let delay: Option<f64> = read("delay", member("delay"), "number")?;
    let delay_ms = event::delay_ms(delay, unit.as_deref()).map_err(|(key, why)| format!("{key}: {why}"))?;
    let at = match read("timestamp", member("timestamp"), "string or number")? {
        None => None,
        Some(Json::String(text)) => Some(Moment::Text(text)),
        Some(Json::Number(number)) => Some(Moment::Number(number.as_f64().unwrap_or(f64::NAN))),
        Some(Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_)) => {
            return Err("timestamp: expected string or number".to_owned());
        }
    };
    let payload = member("payload").or_else(|| member("data")).unwrap_or("null");
    Ok(Followup { r#type, payload: Bytes::copy_from_slice(payload.as_bytes()), delay_ms, at })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_may_say_no() {
        for body in [
            "",
            "ok",
            "null",
            "[]",
            "{}",
            "{\"error\":\"\"}",
            "{\"error\":null,\"ack\":true}",
            "{broken",
            "{\"ack\":0}",
        ] {
            assert!(!Reply::of(body.as_bytes()).is_refusal, "{body}");
        }
        for body in ["{\"error\":\"no\"}", " {\"ack\":false}", "{\"error\":{\"a\":1}}", "{\"error\":7,\"ack\":true}"] {
            assert!(Reply::of(body.as_bytes()).is_refusal, "{body}");
        }
        let both = r#"{"error":"no","event":{"type":"a"},"response":1}"#;
        assert_eq!(Reply::of(both.as_bytes()), Reply { is_refusal: true, ..Reply::default() });
    }

    #[test]
    fn an_answer_may_have_a_response_and_events() {
        let reply = Reply::of(br#"{"response": {"n": 1.50}, "event": {"type": "a", "Payload": [1]}, "events":
            [{"type": "b", "data": 7, "delay": 2}, {"Type": "c", "delay": 5, "delayUnit": "ms", "timestamp": 1700000000}]}"#);
        assert_eq!(reply.response.as_deref(), Some(&br#"{"n": 1.50}"#[..]));
        let told: Vec<(&str, &[u8], u64)> =
            reply.events.iter().map(|event| (event.r#type.as_str(), &event.payload[..], event.delay_ms)).collect();
        assert_eq!(told, [("a", &b"[1]"[..], 0), ("b", b"7", 2000), ("c", b"null", 5)]);
        assert_eq!(reply.events[2].at, Some(Moment::Number(1_700_000_000.0)));
        assert_eq!(Reply::of(br#"{"response": null, "event": null}"#), Reply::default());
    }

    #[test]
    fn events_that_are_malformed_are_left_out_and_the_answer_stays_one() {
        let many = format!(r#"{{"events":[{}{{"type":"a"}}]}}"#, r#"{"type":"a"},"#.repeat(FOLLOWUPS_MAX));
        for (body, told) in [
            (r#"{"events":{}}"#, "events: expected array"),
            (r#"{"event":[]}"#, "event: expected object"),
            (r#"{"event":{}}"#, "type is required"),
            (r#"{"event":{"type":"DB_INSERT"}}"#, "cannot create internal event (DB_INSERT)"),
            (r#"{"events":[{"type":"a"},{"type":"dlq_a"}]}"#, "cannot create internal event (dlq_a)"),
            (r#"{"event":{"type":"a","delay":-1}}"#, "delay: expected from 0 to a year"),
            (r#"{"event":{"type":"a","timestamp":true}}"#, "timestamp: expected string or number"),
            (&many, "101 events are over the limit of 100"),
        ] {
            let reply = Reply::of(body.as_bytes());
            assert!(!reply.is_refusal && reply.events.is_empty(), "{body}");
            assert!(reply.left_out.as_deref().is_some_and(|why| why.starts_with(told)), "{body}: {reply:?}");
        }
    }
}
