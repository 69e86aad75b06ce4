//! Tokens of the callers in tests.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

/// Signs the tokens of project `shop` in tests.
pub const SECRET: &str = "a-secret-of-the-tests-that-is-long-enough";

/// A token of `claims`, valid for an hour.
pub fn sign(claims: Value) -> String {
    sign_with(claims, SECRET, 3600)
}

/// A token of `claims` under `secret`, expiring in `seconds` (which may be negative).
pub fn sign_with(mut claims: Value, secret: &str, seconds: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_secs() as i64;
    claims["exp"] = json!(now + seconds);
    sign_raw(&claims, secret, &Header::new(Algorithm::HS256))
}

/// A token of exactly these claims.
pub fn sign_raw(claims: &Value, secret: &str, header: &Header) -> String {
    jsonwebtoken::encode(header, claims, &EncodingKey::from_secret(secret.as_bytes())).expect("claims can be signed")
}

/// The token of customer `id` of the music shop.
pub fn customer(id: i64) -> String {
    sign(json!({ "id": id }))
}

/// The token of an employee of the music shop.
pub fn staff() -> String {
    sign(json!({ "id": 3, "role": "staff" }))
}
