//! One attempt to deliver an event to a webhook.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use query::trigger::Trigger;
use reqwest::{
    Method, Request, Response, StatusCode, Url,
    header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER},
};
use serde::Deserialize;

use super::signature;
use crate::client::{self, Client, SendError};

/// Headers of Standard Webhooks, and the number of the attempt.
const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const ATTEMPT: HeaderName = HeaderName::from_static("x-perigee-attempt");
/// Most bytes of an answer that are read.
const ANSWER_BYTES: usize = 64 << 10;
/// Bytes of an answer that are kept.
const KEPT_BYTES: usize = 1024;

/// A message to deliver.
#[derive(Debug)]
pub struct Message {
    /// The event's id.
    pub id: String,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// The body.
    pub body: Vec<u8>,
}

/// What an attempt came to.
#[derive(Debug, PartialEq)]
pub struct Answer {
    /// What it means.
    pub verdict: Verdict,
    /// The status, where there was an answer.
    pub code: Option<u16>,
    /// The beginning of the answer, or what went wrong.
    pub text: String,
}

/// Meaning of an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The event is delivered.
    Delivered,
    /// It is not.
    Failed {
        /// The wait that the endpoint asked for.
        retry_after: Option<Duration>,
    },
    /// It is not, and the endpoint wants it never.
    Gone,
    /// It was not sent: it was too late to begin.
    Late,
}

/// Sends a message and reads the answer, within the time that the trigger gives. Dropped, the request is given up.
pub async fn attempt(client: &Client, trigger: &Arc<Trigger>, message: Message) -> Answer {
    let time = trigger.timeout();
    match tokio::time::timeout(time, send(client, trigger, message)).await {
        Ok(answer) => answer,
        Err(_) => Answer::failed(None, format!("no answer within {time:?}")),
    }
}

async fn send(client: &Client, trigger: &Trigger, message: Message) -> Answer {
    let request = match request(trigger, message) {
        Ok(request) => request,
        Err(why) => return Answer::failed(None, why),
    };
    match client.send(request).await {
        Ok(response) => answer(response).await,
        Err(SendError::Forbidden) => Answer::failed(None, "the address is not allowed by egress.allow".to_owned()),
        Err(SendError::Unreachable(cause)) => Answer::failed(None, format!("the endpoint cannot be reached: {cause}")),
        Err(SendError::BrokeOff(cause)) => Answer::failed(None, format!("the endpoint broke off: {cause}")),
    }
}

fn request(trigger: &Trigger, message: Message) -> Result<Request, String> {
    let Message { id, attempt, body } = message;
    let url = Url::parse(&trigger.to.url.0).map_err(|error| format!("invalid URL: {error}"))?;
    let mut request = Request::new(Method::POST, url);
    let unix_seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/cloudevents+json"));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(TIMESTAMP, HeaderValue::from(unix_seconds));
    headers.insert(ATTEMPT, HeaderValue::from(attempt));
    let text = |text: &str| HeaderValue::from_str(text).map_err(|error| error.to_string());
    headers.insert(ID, text(&id)?);
    if let Some(signature) = signature::signatures(&trigger.to.secret, &id, unix_seconds, &body) {
        headers.insert(SIGNATURE, text(&signature)?);
    }
    *request.body_mut() = Some(body.into());
    Ok(request)
}

async fn answer(response: Response) -> Answer {
    let status = response.status();
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| after(value, SystemTime::now()));
    let body = match body(response).await {
        Ok(body) => body,
        Err(cause) => return Answer::failed(Some(status.as_u16()), format!("the endpoint broke off: {cause}")),
    };
    let verdict = match status {
        status if status.is_success() && is_accepted(&body) => Verdict::Delivered,
        StatusCode::GONE => Verdict::Gone,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Verdict::Failed { retry_after },
        _ => Verdict::Failed { retry_after: None },
    };
    let kept = &body[..body.len().min(KEPT_BYTES)];
    let text = String::from_utf8_lossy(kept).chars().filter(|char| *char != '\0').collect();
    Answer { verdict, code: Some(status.as_u16()), text }
}

impl Answer {
    /// There was no attempt, since it was too late for one.
    pub fn late() -> Self {
        let text = "the node could not begin in time".to_owned();
        Self { verdict: Verdict::Late, code: None, text }
    }

    fn failed(code: Option<u16>, text: String) -> Self {
        Self { verdict: Verdict::Failed { retry_after: None }, code, text }
    }
}

/// The beginning of the body, and all of it where it is short.
async fn body(mut response: Response) -> Result<Vec<u8>, String> {
    let mut all = Vec::new();
    while let Some(data) = response.chunk().await.map_err(|error| client::chain(&error))? {
        all.extend_from_slice(&data);
        if all.len() > ANSWER_BYTES {
            all.truncate(ANSWER_BYTES);
            break;
        }
    }
    Ok(all)
}

/// What an answer may say against its status.
#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    error: serde_json::Value,
    #[serde(default)]
    ack: Option<serde_json::Value>,
}

/// Whether an answer of success is one: no JSON object with an `error` that is not empty, or with `ack: false`.
fn is_accepted(body: &[u8]) -> bool {
    let is_object = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    let Some(Refusal { error, ack }) = is_object.then(|| serde_json::from_slice(body).ok()).flatten() else {
        return true;
    };
    let is_empty = match &error {
        serde_json::Value::Null => true,
        serde_json::Value::String(text) => text.is_empty(),
        serde_json::Value::Object(members) => members.is_empty(),
        serde_json::Value::Array(items) => items.is_empty(),
        serde_json::Value::Bool(flag) => !flag,
        serde_json::Value::Number(_) => false,
    };
    is_empty && ack != Some(serde_json::Value::Bool(false))
}

/// The wait that `Retry-After` asks for. Source: RFC 9110, section 10.2.3.
fn after(value: &HeaderValue, now: SystemTime) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(text).ok().map(|date| date.duration_since(now).unwrap_or_default()),
    }
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
            assert!(is_accepted(body.as_bytes()), "{body}");
        }
        for body in ["{\"error\":\"no\"}", " {\"ack\":false}", "{\"error\":{\"a\":1}}", "{\"error\":7,\"ack\":true}"] {
            assert!(!is_accepted(body.as_bytes()), "{body}");
        }
    }

    #[test]
    fn waits_are_seconds_or_dates() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let of = |text: &'static str| after(&HeaderValue::from_static(text), now);
        assert_eq!(of("120"), Some(Duration::from_secs(120)));
        assert_eq!(of("Sun, 06 Nov 1994 08:50:37 GMT"), Some(Duration::from_secs(60)));
        assert_eq!(of("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!((of("soon"), of("-1")), (None, None));
    }
}
