//! Errors of the S3 protocol. Source: Amazon S3 API reference, error responses.

use axum::{body::Body, response::Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use mesh::{Call, Code, Fault};
use s3s::{S3Error, S3ErrorCode};

use crate::error::RETRY_AFTER;

/// Detail of a fault that has a code of the protocol of its own.
const CODE: &str = "s3";

/// Detail of a fault that tells an entity tag, in quotes.
pub const ETAG: &str = "etag";

/// The fault with its code in the protocol.
pub fn with_code(code: &'static str, fault: Fault) -> Fault {
    fault.with(CODE, code)
}

/// The fault of a request that is malformed, with its code in the protocol.
pub fn invalid(code: &'static str, message: impl Into<String>) -> Fault {
    with_code(code, Fault::new(Code::BadRequest, message))
}

/// The fault of what the protocol has, and Perigee has not.
pub fn not_implemented(what: &str) -> Fault {
    invalid("NotImplemented", format!("{what} is not supported"))
}

/// The error that clients are told of a fault.
pub fn error_of(fault: Fault) -> S3Error {
    let code = fault.detail(CODE).unwrap_or_else(|| code_of(&fault)).to_owned();
    let code = S3ErrorCode::from_bytes(code.as_bytes()).unwrap_or(S3ErrorCode::InternalError);
    let status = code.status_code().or_else(|| StatusCode::from_u16(fault.code.http()).ok());
    let told = [(ETAG, header::ETAG), (RETRY_AFTER, header::RETRY_AFTER)].map(|(detail, name)| {
        let value = fault.detail(detail).and_then(|value| HeaderValue::from_str(value).ok())?;
        Some((name, value))
    });
    let mut error = S3Error::with_message(code, fault.message);
    let told = HeaderMap::from_iter(told.into_iter().flatten());
    if !told.is_empty() {
        error.set_headers(told);
    }
    if let Some(status) = status {
        error.set_status_code(status);
    }
    error
}

fn code_of(fault: &Fault) -> &'static str {
    match fault.code {
        Code::Denied | Code::Unauthenticated | Code::TokenExpired => "AccessDenied",
        Code::NotFound if fault.message.starts_with("upload ") => "NoSuchUpload",
        Code::NotFound => "NoSuchKey",
        Code::UnknownBucket => "NoSuchBucket",
        Code::Conflict if fault.detail("busy").is_some() => "OperationAborted",
        Code::Conflict => "Conflict",
        Code::Precondition => "PreconditionFailed",
        Code::Range => "InvalidRange",
        Code::TooLarge => "EntityTooLarge",
        Code::UnsupportedType => "UnsupportedType",
        Code::Full => "InsufficientStorage",
        Code::TooMany => "SlowDown",
        Code::Unavailable => "ServiceUnavailable",
        Code::Deadline => "RequestTimeout",
        Code::Method => "MethodNotAllowed",
        Code::Internal => "InternalError",
        _ if fault.code.http() < 500 => "InvalidArgument",
        _ => "InternalError",
    }
}

/// The answer that tells a fault.
pub fn response(fault: Fault, call: &Call) -> Response {
    let mut error = error_of(fault);
    error.set_request_id(call.request_id.to_string());
    answered(error)
}

/// The answer of the library, as the gateway gives it.
pub fn answered(error: S3Error) -> Response {
    match error.to_http_response() {
        Ok(response) => response.map(Body::new),
        Err(_) => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_told_by_the_codes_of_the_protocol() {
        let told = |fault: Fault| {
            let error = error_of(fault);
            (error.code().as_str().to_owned(), error.status_code().map(|status| status.as_u16()))
        };
        for (fault, code, status) in [
            (Fault::new(Code::Denied, "no"), "AccessDenied", 403),
            (Fault::new(Code::NotFound, "file not found"), "NoSuchKey", 404),
            (Fault::new(Code::NotFound, "upload not found"), "NoSuchUpload", 404),
            (Fault::new(Code::UnknownBucket, "bucket x is not known"), "NoSuchBucket", 404),
            (Fault::new(Code::Precondition, "no"), "PreconditionFailed", 412),
            (Fault::new(Code::Range, "no"), "InvalidRange", 416),
            (Fault::new(Code::Conflict, "a folder"), "Conflict", 409),
            (Fault::new(Code::TooMany, "no"), "SlowDown", 503),
            (Fault::new(Code::Full, "no"), "InsufficientStorage", 507),
            (Fault::new(Code::UnsupportedType, "no"), "UnsupportedType", 415),
            (Fault::new(Code::BadRequest, "no"), "InvalidArgument", 400),
            (invalid("BadDigest", "no"), "BadDigest", 400),
            (not_implemented("it"), "NotImplemented", 501),
        ] {
            assert_eq!(told(fault), (code.to_owned(), Some(status)));
        }
    }
}
