//! An attempt to deliver an event to a webhook.

use std::time::{Duration, SystemTime};

use query::trigger::Webhook;
use reqwest::{
    Method, Request, Response, StatusCode, Url,
    header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER},
};

use super::{
    attempt::{Answer, Message, Verdict},
    reply::{ANSWER_BYTES, Reply},
    signature,
};
use crate::client::{self, Client, SendError};

/// Headers of Standard Webhooks, and the number of the attempt.
const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const ATTEMPT: HeaderName = HeaderName::from_static("x-perigee-attempt");

/// Sends a message to a webhook and reads the answer.
pub async fn send(client: &Client, webhook: &Webhook, message: Message) -> Answer {
    let request = match request(webhook, message) {
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

fn request(webhook: &Webhook, message: Message) -> Result<Request, String> {
    let Message { id, attempt, body, is_event, .. } = message;
    let url = Url::parse(&webhook.url.0).map_err(|error| format!("invalid URL: {error}"))?;
    let mut request = Request::new(Method::POST, url);
    let unix_seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let content = if is_event { "application/cloudevents+json" } else { "application/json" };
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(TIMESTAMP, HeaderValue::from(unix_seconds));
    headers.insert(ATTEMPT, HeaderValue::from(attempt));
    let text = |text: &str| HeaderValue::from_str(text).map_err(|error| error.to_string());
    headers.insert(ID, text(&id)?);
    if let Some(signature) = signature::signatures(&webhook.secret, &id, unix_seconds, &body) {
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
    let reply = if status.is_success() { Reply::of(&body) } else { Reply::default() };
    let verdict = match status {
        status if status.is_success() && !reply.is_refusal => Verdict::Delivered,
        StatusCode::GONE => Verdict::Gone,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Verdict::Failed { retry_after },
        _ => Verdict::Failed { retry_after: None },
    };
    Answer::new(verdict, Some(status.as_u16()), &body, reply)
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
    fn waits_are_seconds_or_dates() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let of = |text: &'static str| after(&HeaderValue::from_static(text), now);
        assert_eq!(of("120"), Some(Duration::from_secs(120)));
        assert_eq!(of("Sun, 06 Nov 1994 08:50:37 GMT"), Some(Duration::from_secs(60)));
        assert_eq!(of("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!((of("soon"), of("-1")), (None, None));
    }
}
