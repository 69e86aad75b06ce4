//! What the front and the protocols ask about the headers of a request, answered by one pass over them.
//!
//! Looking a header up costs a hash of its name, and nearly all requests lack most of those that are looked up.

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// The request id of a client.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The trace of a client.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The time limit of a gRPC request.
pub(crate) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

const JSON: &[u8] = b"application/json";
const GRPC: &[u8] = b"application/grpc";

/// Summary of the headers of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct HeaderSummary {
    /// The content type, as far as it decides who reads the body.
    pub content: ContentType,
    /// There is one `Accept`, which is `application/json`.
    pub accepts_json: bool,
    /// There is an `Origin`.
    pub has_origin: bool,
    /// There is a `Content-Encoding`.
    pub has_encoding: bool,
    /// There is an `X-Request-Id`, a `traceparent` or a `grpc-timeout`.
    pub has_context: bool,
    /// There is an `Expect`.
    pub has_expect: bool,
}

/// Content type of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum ContentType {
    /// None, or one that the protocols look at themselves.
    #[default]
    Other,
    /// `application/json` without parameters.
    Json,
    /// One that begins with `application/grpc`.
    Grpc,
}

impl HeaderSummary {
    /// The summary of `headers`.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut summary = Self::default();
        let (mut has_content_type, mut accepted) = (false, 0);
        for (name, value) in headers {
            if *name == header::CONTENT_TYPE {
                // The first counts, as where it is looked up.
                if !std::mem::replace(&mut has_content_type, true) {
                    summary.content = ContentType::of(value);
                }
            } else if *name == header::ACCEPT {
                accepted += 1;
                summary.accepts_json = accepted == 1 && is_json(value);
            } else if *name == header::ORIGIN {
                summary.has_origin = true;
            } else if *name == header::CONTENT_ENCODING {
                summary.has_encoding = true;
            } else if *name == REQUEST_ID || *name == TRACEPARENT || *name == GRPC_TIMEOUT {
                summary.has_context = true;
            } else if *name == header::EXPECT {
                summary.has_expect = true;
            }
        }
        summary
    }
}

impl ContentType {
    fn of(value: &HeaderValue) -> Self {
        match value.as_bytes() {
            _ if is_json(value) => ContentType::Json,
            bytes if bytes.starts_with(GRPC) => ContentType::Grpc,
            _ => ContentType::Other,
        }
    }
}

fn is_json(value: &HeaderValue) -> bool {
    value.as_bytes().eq_ignore_ascii_case(JSON)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(headers: &[(HeaderName, &'static str)]) -> HeaderSummary {
        let headers = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
        let mut map = HeaderMap::new();
        headers.for_each(|(name, value)| {
            map.append(name, value);
        });
        HeaderSummary::of(&map)
    }

    #[test]
    fn the_first_content_type_counts() {
        use ContentType::{Grpc, Json, Other};
        for (values, expected) in [
            (&["Application/JSON"][..], Json),
            (&["application/json; charset=utf-8"], Other),
            (&["application/grpc"], Grpc),
            (&["application/grpc-web+proto"], Grpc),
            (&["text/plain", "application/json"], Other),
            (&["application/json", "application/grpc"], Json),
            (&[], Other),
        ] {
            let headers: Vec<_> = values.iter().map(|value| (header::CONTENT_TYPE, *value)).collect();
            assert_eq!(summary(&headers).content, expected, "{values:?}");
        }
    }

    #[test]
    fn a_single_accept_of_json_has_no_preferences() {
        for (values, expected) in [
            (&["application/json"][..], true),
            (&["application/json", "text/html"], false),
            (&["text/html", "application/json"], false),
            (&["application/json, text/html"], false),
            (&["*/*"], false),
            (&[], false),
        ] {
            let headers: Vec<_> = values.iter().map(|value| (header::ACCEPT, *value)).collect();
            assert_eq!(summary(&headers).accepts_json, expected, "{values:?}");
        }
    }

    #[test]
    fn headers_that_most_requests_lack_are_seen() {
        let seen = |name: HeaderName| summary(&[(header::HOST, "localhost"), (name, "x"), (header::TE, "trailers")]);
        let none = HeaderSummary::default();
        assert_eq!(seen(header::ORIGIN), HeaderSummary { has_origin: true, ..none });
        assert_eq!(seen(header::CONTENT_ENCODING), HeaderSummary { has_encoding: true, ..none });
        assert_eq!(seen(header::EXPECT), HeaderSummary { has_expect: true, ..none });
        for name in [REQUEST_ID, TRACEPARENT, GRPC_TIMEOUT] {
            assert_eq!(seen(name), HeaderSummary { has_context: true, ..none });
        }
        assert_eq!(seen(header::AUTHORIZATION), none);
    }
}
