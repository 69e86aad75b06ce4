//! The HTTP request of a call: its address, its headers, and who calls.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use mesh::Call;
use proto::auth::CallGrant;
use query::{
    Guard, Object, Value,
    function::{Function, HeaderOperation, HttpMethod, HttpServer, PathTemplate},
};
use reqwest::{
    Method, Request, Url,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};

use crate::Error;

/// Claims of the caller: base64url of a JSON object.
const CLAIMS: HeaderName = HeaderName::from_static("x-perigee-claims");
/// Milliseconds until nobody waits for the answer any more.
const TIMEOUT: HeaderName = HeaderName::from_static("x-perigee-timeout-ms");
/// Guard of what was counted when it was sent, or when a token was verified.
const SENT: Guard = Guard::new(usize::MAX, usize::MAX);

/// Values that stand in the address and in headers.
struct Values {
    args: Value,
    auth: Object,
}

impl Values {
    /// The values of a call; nothing is read where nothing is asked for.
    fn of(function: &Function, grant: &CallGrant, params: &[u8]) -> Result<Self, Error> {
        if function.path.is_none() && function.headers.is_empty() {
            return Ok(Self { args: Value::Null, auth: Object::default() });
        }
        let auth = match proto::json::parse(grant.claims.as_bytes(), SENT)? {
            Value::Object(claims) => claims,
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Number(_) | Value::Text(_) | Value::List(_) => {
                Object::default()
            }
        };
        Ok(Self { args: proto::json::parse(params, SENT)?, auth })
    }
}

/// The request of a call that has `left` until its answer. Errors: the parameters do not fit, or the address is none.
pub fn request(
    server: &HttpServer,
    function: &Function,
    grant: &CallGrant,
    (params, left): (Bytes, Duration),
) -> Result<Request, Error> {
    let values = Values::of(function, grant, &params)?;
    let path = match &function.path {
        Some(template) => template.path(&values.args, &values.auth)?,
        None => PathTemplate::of_name(&grant.function)?,
    };
    let url = format!("{}{path}", server.url.0);
    let url = Url::parse(&url).map_err(|error| Error::Address(error.to_string()))?;
    let mut request = Request::new(method(function.method), url);
    let headers = request.headers_mut();
    identify(headers, grant);
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    edit(headers, function, &values)?;
    trace(headers, Some(left));
    *request.body_mut() = Some(params.into());
    Ok(request)
}

fn method(method: HttpMethod) -> Method {
    match method {
        HttpMethod::Get => Method::GET,
        HttpMethod::Post => Method::POST,
        HttpMethod::Put => Method::PUT,
        HttpMethod::Patch => Method::PATCH,
        HttpMethod::Delete => Method::DELETE,
    }
}

/// Says who calls.
pub fn identify(headers: &mut HeaderMap, grant: &CallGrant) {
    let secret = |text: String| {
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    };
    if let Some(claims) = secret(URL_SAFE_NO_PAD.encode(&grant.claims)) {
        headers.insert(CLAIMS, claims);
    }
    let bearer = Some(&grant.bearer).filter(|bearer| !bearer.is_empty());
    if let Some(bearer) = bearer.and_then(|bearer| secret(format!("Bearer {bearer}"))) {
        headers.insert(AUTHORIZATION, bearer);
    }
}

/// Changes headers as the function says.
fn edit(headers: &mut HeaderMap, function: &Function, values: &Values) -> Result<(), Error> {
    for edit in &function.headers {
        let name = HeaderName::try_from(edit.key.0.as_str()).map_err(|error| Error::Address(error.to_string()))?;
        if edit.op == HeaderOperation::Del {
            headers.remove(name);
            continue;
        }
        let Some(text) = edit.value.text(&values.args, &values.auth)? else { continue };
        let mut value = HeaderValue::from_str(&text).map_err(|error| Error::Address(error.to_string()))?;
        value.set_sensitive(true);
        match edit.op {
            HeaderOperation::Set => drop(headers.insert(name, value)),
            HeaderOperation::Add => drop(headers.append(name, value)),
            HeaderOperation::Del => {}
        }
    }
    Ok(())
}

/// Adds the id and the trace of the call, and the time that is left, where there is an end of it.
pub fn trace(headers: &mut HeaderMap, left: Option<Duration>) {
    if let Some(left) = left {
        headers.insert(TIMEOUT, HeaderValue::from(u64::try_from(left.as_millis()).unwrap_or(u64::MAX)));
    }
    let Some(call) = Call::current() else { return };
    if let Ok(id) = HeaderValue::from_str(&call.request_id) {
        headers.insert("x-request-id", id);
    }
    if let Some(parent) = call.traceparent.as_deref().and_then(|parent| HeaderValue::from_str(parent).ok()) {
        headers.insert("traceparent", parent);
    }
}
