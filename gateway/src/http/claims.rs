//! Claims of a token as its bearer sent them, unverified: to compare tokens, never to decide what one allows.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

/// Claims that say when and how often a token was issued, not for whom. Source: RFC 7519, section 4.1.
const OF_ISSUE: [&str; 4] = ["exp", "iat", "nbf", "jti"];

/// The claims of a token that say who its bearer is, as a text that is the same for equal claims; `None` where they
/// cannot be read.
pub fn identity(token: &str) -> Option<String> {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?.trim_end_matches('=')).ok()?;
    let mut claims: Map<String, Value> = serde_json::from_slice(&payload).ok()?;
    claims.retain(|name, _| !OF_ISSUE.contains(&name.as_str()));
    claims.sort_keys();
    serde_json::to_string(&claims).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(payload: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload))
    }

    #[test]
    fn a_token_that_is_renewed_has_the_same_identity() {
        let first = identity(&token(r#"{"id": "ann", "role": "admin", "exp": 1, "iat": 2, "nbf": 3, "jti": "4"}"#));
        assert_eq!(first.as_deref(), Some(r#"{"id":"ann","role":"admin"}"#));
        assert_eq!(identity(&token(r#"{"role": "admin", "exp": 9, "id": "ann"}"#)), first);
        assert_ne!(identity(&token(r#"{"role": "user", "exp": 1, "id": "ann"}"#)), first);
    }

    #[test]
    fn what_is_no_token_has_none() {
        for text in ["", "forged", "a.b", "a.!.c", "a..c", &token("[]"), &token("{")] {
            assert_eq!(identity(text), None, "{text}");
        }
    }
}
