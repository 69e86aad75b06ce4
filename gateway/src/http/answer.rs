//! Answers: JSON on every status, and pages.

use axum::{body::Body, extract::Request, response::Response};
use http::{HeaderValue, StatusCode, header};
use mesh::{Call, Code, Fault};
use serde::Serialize;

use crate::error::RETRY_AFTER;

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// JSON that is not to be stored.
pub fn json(status: StatusCode, body: impl Into<Body>) -> Response {
    of_type(JSON, status, body)
}

/// JSON of the media type `content_type` that is not to be stored.
pub fn of_type(content_type: HeaderValue, status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    response
}

/// An HTML page that is not to be stored; where it leads is not told where it was.
pub fn page(content: impl Into<Body>) -> Response {
    let mut response = of_type(HeaderValue::from_static("text/html; charset=utf-8"), StatusCode::OK, content);
    let headers = response.headers_mut();
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The error answer of a fault: `{"error", "rawError", "code", "requestId"}` with the status of its code.
pub fn fault(fault: &Fault, call: &Call) -> Response {
    let status = StatusCode::from_u16(fault.code.http()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(status, fault_json(fault, call));
    if fault.code == Code::TooMany || fault.code == Code::Unavailable {
        let told = fault.detail(RETRY_AFTER).and_then(|seconds| HeaderValue::from_str(seconds).ok());
        response.headers_mut().insert(header::RETRY_AFTER, told.unwrap_or(HeaderValue::from_static("1")));
    }
    if fault.code == Code::Unauthenticated {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// The body of the error answer of a fault.
pub fn fault_json(fault: &Fault, call: &Call) -> Vec<u8> {
    let body =
        ErrorBody { error: &fault.message, raw_error: "", code: fault.code.as_str(), request_id: &call.request_id };
    serde_json::to_vec(&body).expect("texts can always be written as JSON")
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ErrorBody<'a> {
    error: &'a str,
    raw_error: &'static str,
    code: &'static str,
    request_id: &'a str,
}

/// 404 for a path without a route.
pub(crate) async fn unknown_path(request: Request) -> Response {
    let message = format!("path {} is not known", request.uri().path());
    refused(&Fault::new(Code::NotFound, message))
}

/// 405 for a method that a path does not have. The router adds `Allow`.
pub(crate) async fn wrong_method(request: Request) -> Response {
    let message = format!("method {} is not allowed for path {}", request.method(), request.uri().path());
    refused(&Fault::new(Code::Method, message))
}

fn refused(what: &Fault) -> Response {
    fault(what, &super::current())
}
