//! From a token to its claims: JSON Web Tokens (RFC 7519) signed with one of the project's keys.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey};
use moka::sync::Cache;
use query::{
    Guard, Object, Value,
    resources::{self, TokenKey},
};
use serde::Deserialize;

/// Longer tokens are not looked at.
const TOKEN_BYTES: usize = 16 << 10;
/// Claims nest no deeper and have no more parts.
const CLAIMS: Guard = Guard::new(32, 4096);
/// Bytes of verified tokens that are remembered per project.
const CACHE_BYTES: u64 = 8 << 20;
/// Secrets for HS256 have at least as many bytes as its hash. Source: RFC 7518, 3.2.
pub const SECRET_BYTES: usize = 32;

/// Why a token is not valid. The texts are those that clients of earlier servers know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is none, or it is no token.
    #[error("token contains an invalid number of segments")]
    Malformed,
    /// It is signed in a way that the key is not for.
    #[error("invalid signing method type")]
    Algorithm,
    /// No key of the project signed it.
    #[error("signature is invalid")]
    Signature,
    /// It names a key that the project has not.
    #[error("the key that the token names is not known")]
    UnknownKey,
    /// Its time is over.
    #[error("Token is expired")]
    Expired,
    /// Its time has not begun.
    #[error("Token is not valid yet")]
    NotYet,
    /// It was made in the future.
    #[error("Token used before issued")]
    NotIssued,
    /// A time in it is no number, or ends before time began.
    #[error("the token's {0} is not a time in seconds")]
    WrongTime(&'static str),
    /// It was made by somebody else than the key says.
    #[error("the token's issuer is not accepted")]
    Issuer,
    /// It was made for somebody else than the key says.
    #[error("the token's audience is not accepted")]
    Audience,
}

/// The keys of a project, and the tokens they verified. Neither is ever printed.
pub struct Keys {
    specs: Vec<TokenKey>,
    keys: Vec<Key>,
    verified: Cache<Arc<str>, Arc<Verified>, foldhash::quality::RandomState>,
}

/// A token with a good signature.
struct Verified {
    claims: Arc<Object>,
    times: Times,
}

struct Times {
    exp: Option<f64>,
    nbf: Option<f64>,
    iat: Option<f64>,
}

struct Key {
    kid: Option<String>,
    algorithm: Algorithm,
    decoding: DecodingKey,
    aud: Vec<String>,
    iss: Vec<String>,
}

/// The header of a token. Source: RFC 7515, 4.1; a token with critical extensions must be refused.
#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    crit: Option<serde::de::IgnoredAny>,
}

/// A token in its parts.
struct Parts<'a> {
    header: Header,
    signed: &'a str,
    signature: &'a str,
    claims: Object,
}

impl Keys {
    /// Keys as configured. One that has too short a secret verifies nothing.
    pub fn new(specs: Vec<TokenKey>) -> Self {
        let long_enough = |spec: &&TokenKey| spec.secret.len() >= SECRET_BYTES;
        let keys = specs.iter().filter(long_enough).map(Key::new).collect();
        let weight = |token: &Arc<str>, _: &Arc<Verified>| u32::try_from(2 * token.len() + 256).unwrap_or(u32::MAX);
        let verified = Cache::builder().max_capacity(CACHE_BYTES).weigher(weight).build_with_hasher(Default::default());
        Self { specs, keys, verified }
    }

    /// What they were made of.
    pub fn specs(&self) -> &[TokenKey] {
        &self.specs
    }

    /// Claims of the token, if it is valid at `now`, in seconds since the Unix epoch.
    pub fn claims(&self, token: &str, now: i64) -> Result<Arc<Object>, Error> {
        let verified = match self.verified.get(token) {
            Some(verified) => verified,
            None => {
                let verified = Arc::new(self.verify(token)?);
                verified.times.check(now)?;
                self.verified.insert(token.into(), verified.clone());
                verified
            }
        };
        verified.times.check(now)?;
        Ok(verified.claims.clone())
    }

    fn verify(&self, token: &str) -> Result<Verified, Error> {
        let parts = Parts::of(token)?;
        let key = self.key(&parts)?;
        let times = Times::of(&parts.claims)?;
        if !named(&key.iss, parts.claims.get("iss")) {
            return Err(Error::Issuer);
        }
        if !named(&key.aud, parts.claims.get("aud")) {
            return Err(Error::Audience);
        }
        Ok(Verified { claims: Arc::new(parts.claims), times })
    }

    /// The key that signed the token: the one it names, else whichever did.
    fn key(&self, parts: &Parts<'_>) -> Result<&Key, Error> {
        if let Some(kid) = &parts.header.kid {
            let mut named = self.keys.iter().filter(|key| key.kid.as_ref() == Some(kid));
            let key = named.next().ok_or(Error::UnknownKey)?;
            return key.check(parts).map(|()| key);
        }
        let mut error = if self.keys.is_empty() { Error::Signature } else { Error::Algorithm };
        for key in &self.keys {
            match key.check(parts) {
                Ok(()) => return Ok(key),
                Err(Error::Signature) => error = Error::Signature,
                Err(_) => {}
            }
        }
        Err(error)
    }
}

impl Key {
    fn new(spec: &TokenKey) -> Self {
        let (algorithm, decoding) = match spec.alg {
            resources::Algorithm::Hs256 => (Algorithm::HS256, DecodingKey::from_secret(spec.secret.as_bytes())),
        };
        Self { kid: spec.kid.clone(), algorithm, decoding, aud: spec.aud.clone(), iss: spec.iss.clone() }
    }

    fn check(&self, parts: &Parts<'_>) -> Result<(), Error> {
        if parts.header.alg.parse() != Ok(self.algorithm) {
            return Err(Error::Algorithm);
        }
        match jsonwebtoken::crypto::verify(parts.signature, parts.signed.as_bytes(), &self.decoding, self.algorithm) {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(Error::Signature),
        }
    }
}

impl<'a> Parts<'a> {
    fn of(token: &'a str) -> Result<Self, Error> {
        if token.len() > TOKEN_BYTES {
            return Err(Error::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(Error::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(Error::Malformed)?;
        let header: Header = serde_json::from_slice(&decoded(header)?).map_err(|_| Error::Malformed)?;
        if header.crit.is_some() {
            return Err(Error::Malformed);
        }
        match proto::json::parse(&decoded(payload)?, CLAIMS) {
            Ok(Value::Object(claims)) => Ok(Self { header, signed, signature, claims }),
            Ok(_) | Err(_) => Err(Error::Malformed),
        }
    }
}

fn decoded(part: &str) -> Result<Vec<u8>, Error> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Error::Malformed)
}

impl Times {
    fn of(claims: &Object) -> Result<Self, Error> {
        let time = |name: &'static str| match claims.get(name) {
            None => Ok(None),
            Some(Value::Int(seconds)) => Ok(Some(*seconds as f64)),
            Some(Value::Number(text)) => {
                text.parse().ok().filter(|time: &f64| time.is_finite()).map(Some).ok_or(Error::WrongTime(name))
            }
            Some(Value::Null | Value::Bool(_) | Value::Text(_) | Value::List(_) | Value::Object(_)) => {
                Err(Error::WrongTime(name))
            }
        };
        let times = Times { exp: time("exp")?, nbf: time("nbf")?, iat: time("iat")? };
        match times.exp {
            Some(exp) if exp <= 0.0 => Err(Error::WrongTime("exp")),
            Some(_) | None => Ok(times),
        }
    }

    fn check(&self, now: i64) -> Result<(), Error> {
        let now = now as f64;
        if self.exp.is_some_and(|exp| now > exp) {
            return Err(Error::Expired);
        }
        if self.nbf.is_some_and(|nbf| now < nbf) {
            return Err(Error::NotYet);
        }
        if self.iat.is_some_and(|iat| now < iat) {
            return Err(Error::NotIssued);
        }
        Ok(())
    }
}

/// Whether a claim, a text or a list, names one of `accepted`; where none is asked for, any does.
fn named(accepted: &[String], claim: Option<&Value>) -> bool {
    let one = |value: &Value| match value {
        Value::Text(text) => accepted.contains(text),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Number(_) | Value::List(_) | Value::Object(_) => false,
    };
    accepted.is_empty()
        || match claim {
            Some(Value::List(items)) => items.iter().any(one),
            Some(value) => one(value),
            None => false,
        }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::EncodingKey;
    use proptest::prelude::*;
    use serde_json::{Value as Json, json};

    use super::*;

    const SECRET: &str = "a secret that has thirty-two bytes";

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        now: i64,
        cases: Vec<Case>,
    }

    /// A token, whole or in parts: its default parts make one that the default key accepts.
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Case {
        name: String,
        keys: Option<Vec<TokenKey>>,
        token: Option<String>,
        header: Option<Json>,
        claims: Option<Json>,
        signed_by: Option<String>,
        signature: Option<String>,
        expect: String,
    }

    fn keys() -> Keys {
        Keys::new(serde_json::from_value(json!([{"kid": "main", "secret": SECRET}])).unwrap())
    }

    fn built(header: &[u8], claims: &[u8], secret: &str) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let key = EncodingKey::from_secret(secret.as_bytes());
        let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, Algorithm::HS256).unwrap();
        format!("{signed}.{signature}")
    }

    fn token(case: &Case) -> String {
        if let Some(token) = &case.token {
            return token.clone();
        }
        let header = case.header.clone().unwrap_or_else(|| json!({"alg": "HS256", "typ": "JWT"}));
        let claims = case.claims.clone().unwrap_or_else(|| json!({"id": "u1"}));
        let secret = case.signed_by.as_deref().unwrap_or(SECRET);
        let token = built(header.to_string().as_bytes(), claims.to_string().as_bytes(), secret);
        match (&case.signature, token.rsplit_once('.')) {
            (Some(signature), Some((signed, _))) => format!("{signed}.{signature}"),
            _ => token,
        }
    }

    #[test]
    fn tokens_are_accepted_or_refused() {
        let file: File = serde_json::from_str(include_str!("../cases/tokens.json")).unwrap();
        for case in &file.cases {
            let keys = case.keys.clone().map_or_else(keys, Keys::new);
            let found = match keys.claims(&token(case), file.now) {
                Ok(_) => "accepted".to_owned(),
                Err(error) => error.to_string(),
            };
            assert_eq!(found, case.expect, "{}", case.name);
        }
    }

    #[test]
    fn a_remembered_token_still_expires() {
        let keys = keys();
        let token = built(br#"{"alg":"HS256"}"#, br#"{"id":"u1","exp":1000}"#, SECRET);
        assert!(keys.claims(&token, 999).is_ok());
        assert!(keys.verified.contains_key(token.as_str()));
        assert!(keys.claims(&token, 1000).is_ok());
        assert_eq!(keys.claims(&token, 1001).unwrap_err(), Error::Expired);
    }

    #[test]
    fn a_refused_token_is_not_remembered() {
        let keys = keys();
        let token = built(br#"{"alg":"HS256"}"#, br#"{"iat":1000}"#, SECRET);
        assert_eq!(keys.claims(&token, 999).unwrap_err(), Error::NotIssued);
        assert!(!keys.verified.contains_key(token.as_str()));
        assert!(keys.claims(&token, 1000).is_ok());
    }

    #[test]
    fn claims_that_say_a_thing_twice_are_refused() {
        let token = built(br#"{"alg":"HS256"}"#, br#"{"id":"u1","id":"u2"}"#, SECRET);
        assert_eq!(keys().claims(&token, 0).unwrap_err(), Error::Malformed);
        let token = built(
            br#"{"alg":"HS256"}"#,
            &format!("{{\"a\":{}1{}}}", "[".repeat(99), "]".repeat(99)).into_bytes(),
            SECRET,
        );
        assert_eq!(keys().claims(&token, 0).unwrap_err(), Error::Malformed);
    }

    #[test]
    fn large_integers_of_claims_keep_their_digits() {
        let token = built(br#"{"alg":"HS256"}"#, br#"{"id":9007199254740993,"n":123456789012345678901}"#, SECRET);
        let claims = keys().claims(&token, 0).unwrap();
        assert_eq!(claims.get("id"), Some(&Value::Int(9_007_199_254_740_993)));
        assert_eq!(claims.get("n"), Some(&Value::Number("123456789012345678901".to_owned())));
    }

    proptest! {
        #[test]
        fn any_token_is_refused_without_panic(token in ".{0,80}", parts in "[A-Za-z0-9_-]{0,40}\\.[A-Za-z0-9_-]{0,40}\\.[A-Za-z0-9_-]{0,60}") {
            prop_assert!(keys().claims(&token, 0).is_err());
            prop_assert!(keys().claims(&parts, 0).is_err());
        }

        #[test]
        fn any_signed_bytes_are_read_without_panic(header in ".{0,60}", claims in prop::collection::vec(any::<u8>(), 0..80), text in "[\\[{\":,0-9a-z.\\]}-]{0,60}") {
            let _ = keys().claims(&built(header.as_bytes(), text.as_bytes(), SECRET), 0);
            let _ = keys().claims(&built(br#"{"alg":"HS256"}"#, &claims, SECRET), 0);
            let _ = keys().claims(&built(br#"{"alg":"HS256"}"#, text.as_bytes(), SECRET), 0);
        }

        #[test]
        fn a_changed_byte_breaks_a_token(at in 0..100_usize, to in "[A-Za-z0-9_.-]") {
            let token = built(br#"{"alg":"HS256"}"#, br#"{"id":"u1","role":"user","n":12345}"#, SECRET);
            let at = at % token.len();
            let changed = format!("{}{to}{}", &token[..at], &token[at + 1..]);
            prop_assume!(changed != token);
            prop_assert!(keys().claims(&changed, 0).is_err());
        }
    }
}
