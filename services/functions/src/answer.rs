//! The answer of a function: read within its limit, and JSON.

use bytes::{Bytes, BytesMut};
use proto::functions::CallResponse;
use reqwest::{Response, StatusCode};
use serde::de::IgnoredAny;

use crate::{Error, client};

/// The answer, of at most `limit` bytes.
pub async fn read(response: Response, service: &str, limit: u64) -> Result<CallResponse, Error> {
    let status = response.status();
    if status.is_redirection() {
        return Err(Error::Redirect(status.as_u16()));
    }
    if status.as_u16() >= 600 {
        return Err(Error::WrongStatus(status.as_u16()));
    }
    if status == StatusCode::NO_CONTENT {
        return Ok(CallResponse { status: status.as_u16().into(), body: Bytes::new() });
    }
    let body = body(response, service, limit).await?;
    match is_json(&body) {
        true => Ok(CallResponse { status: status.as_u16().into(), body }),
        false => Err(Error::NotJson(status.as_u16())),
    }
}

async fn body(mut response: Response, service: &str, limit: u64) -> Result<Bytes, Error> {
    if response.content_length().is_some_and(|length| length > limit) {
        return Err(Error::LargeAnswer(limit));
    }
    let broke_off = |error| Error::BrokeOff { service: service.to_owned(), cause: client::chain(&error) };
    let Some(first) = response.chunk().await.map_err(broke_off)? else { return Ok(Bytes::new()) };
    let mut all = BytesMut::new();
    let mut next = Some(first.clone());
    while let Some(data) = next {
        if (all.len() + data.len()) as u64 > limit {
            return Err(Error::LargeAnswer(limit));
        }
        all.extend_from_slice(&data);
        next = response.chunk().await.map_err(broke_off)?;
    }
    // Most answers come in one piece.
    Ok(if all.len() == first.len() { first } else { all.freeze() })
}

/// Whether the bytes are one JSON value in UTF-8.
pub fn is_json(body: &[u8]) -> bool {
    std::str::from_utf8(body).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_value_in_utf_8_is_json() {
        for text in ["null", "1", " {\"a\": [true]} ", "\"x\""] {
            assert!(is_json(text.as_bytes()), "{text}");
        }
        for bytes in [&b""[..], b"<html>", b"{\"a\":1} x", b"\"\xff\"", b"{a:1}", b"'x'", b"NaN"] {
            assert!(!is_json(bytes), "{bytes:?}");
        }
    }

    #[test]
    fn a_deep_value_does_not_overflow_the_stack() {
        let deep = format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
        let _either = is_json(deep.as_bytes());
    }
}
