//! The bearer token of a request. Source: RFC 6750, section 2.1.

use std::sync::Arc;

use axum::{extract::FromRequestParts, response::Response};
use http::{HeaderMap, header, request};
use mesh::{Call, Code, Fault};

use super::{answer, current};
use crate::edge::Caller;

/// Bytes that a token in a message may have: auth-rules takes none that is longer.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;

impl Caller {
    /// The caller of a request with these `headers`: the token of `Authorization`.
    ///
    /// The scheme before the token is optional and its case is free; `Bearer` alone means no token. Errors:
    /// `UNAUTHENTICATED` for a header that is not ASCII.
    pub(crate) fn of(call: Call, headers: &HeaderMap) -> Result<Self, Fault> {
        let Some(value) = headers.get(header::AUTHORIZATION) else {
            return Ok(Self { call, token: Arc::default() });
        };
        let text =
            value.to_str().map_err(|_| Fault::new(Code::Unauthenticated, "the authorization header is not ASCII"))?;
        Ok(Self { call, token: bearer(text).into() })
    }
}

/// The token of the value of an `Authorization` header.
pub(crate) fn bearer(text: &str) -> &str {
    let text = text.trim();
    match text.split_at_checked(6) {
        Some((scheme, rest))
            if scheme.eq_ignore_ascii_case("bearer") && !rest.starts_with(|c: char| !c.is_whitespace()) =>
        {
            rest.trim_start()
        }
        _ => text,
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut request::Parts, _state: &S) -> Result<Self, Self::Rejection> {
        let call = current();
        Caller::of(call.clone(), &parts.headers).map_err(|fault| answer::fault(&fault, &call))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn token(header: &[u8]) -> Result<String, Code> {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_bytes(header).expect("the test sends a legal header"));
        let call = Call::begin(None, None, None);
        Caller::of(call, &headers).map(|caller| caller.token.to_string()).map_err(|fault| fault.code)
    }

    #[test]
    fn the_scheme_of_a_token_is_optional_and_its_case_is_free() {
        for header in ["Bearer a.b.c", "bearer a.b.c", "BEARER   a.b.c ", "a.b.c", " a.b.c"] {
            assert_eq!(token(header.as_bytes()).as_deref(), Ok("a.b.c"), "{header}");
        }
    }

    #[test]
    fn a_bare_scheme_is_no_token() {
        for header in ["Bearer", "bearer ", ""] {
            assert_eq!(token(header.as_bytes()).as_deref(), Ok(""), "{header:?}");
        }
    }

    #[test]
    fn a_token_that_begins_like_the_scheme_is_kept() {
        assert_eq!(token(b"bearertoken").as_deref(), Ok("bearertoken"));
    }

    #[test]
    fn a_token_that_is_not_ascii_is_refused() {
        assert_eq!(token("Bearer ä".as_bytes()), Err(Code::Unauthenticated));
    }
}
