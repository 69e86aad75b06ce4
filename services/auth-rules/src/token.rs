//! Verification of JSON Web Tokens (RFC 7519) with the keys of a project.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey};
use mesh::cache::{self, WeightedCache, Weighter};
use query::{
    Guard, Object, Value,
    resources::{self, TokenKey},
};
use serde::Deserialize;

use crate::grant_cache::{GRANTS_MAX, GrantCache};

/// Most bytes of a token.
const MAX_TOKEN_BYTES: usize = 16 << 10;
/// Most levels and nodes of claims.
pub const CLAIM_LIMITS: Guard = Guard::new(32, 4096);
/// Capacity of a project's cache of verified tokens, in bytes.
const CACHE_BYTES: u64 = 24 << 20;
/// Approximate memory of a grant that is kept with a token, in bytes.
const GRANT_BYTES: usize = 300;
/// Tokens of the size that is usual that it holds.
const TOKENS_EXPECTED: usize = 8000;
/// Least bytes of a secret for HS256: as many as its hash. Source: RFC 7518, 3.2.
pub const SECRET_BYTES: usize = 32;

/// What the audience of a token begins with that is made for a service of user code.
const SERVICE_AUDIENCE: &str = "service:";

/// The audience of tokens that are made for a service.
pub fn service_audience(service: &str) -> String {
    format!("{SERVICE_AUDIENCE}{service}")
}

/// Whether an audience is of a service: whoever was called must not call in the name of its caller.
fn is_of_service(aud: &Value) -> bool {
    match aud {
        Value::Text(text) => text.starts_with(SERVICE_AUDIENCE),
        Value::List(items) => items.iter().any(is_of_service),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Number(_) | Value::Object(_) => false,
    }
}

/// The reason why a token is not valid. Clients of earlier servers know these texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// None was sent.
    #[error("a token is needed, and none was sent")]
    Missing,
    /// It is not a JSON Web Token.
    #[error("token contains an invalid number of segments")]
    Malformed,
    /// Its algorithm is not the key's.
    #[error("invalid signing method type")]
    Algorithm,
    /// Its signature is not of any key of the project.
    #[error("signature is invalid")]
    Signature,
    /// The project has no key with its `kid`.
    #[error("the key that the token names is not known")]
    UnknownKey,
    /// Its `exp` has passed.
    #[error("Token is expired")]
    Expired,
    /// Its `nbf` is in the future.
    #[error("Token is not valid yet")]
    NotYet,
    /// Its `iat` is in the future.
    #[error("Token used before issued")]
    NotIssued,
    /// One of its times is not a number, or its `exp` is not positive.
    #[error("the token's {0} is not a time in seconds")]
    WrongTime(&'static str),
    /// Its `iss` is not one that the key accepts.
    #[error("the token's issuer is not accepted")]
    Issuer,
    /// Its `aud` is not one that the key accepts.
    #[error("the token's audience is not accepted")]
    Audience,
    /// The project has no access key of this id.
    #[error("the access key is not known")]
    AccessKey,
}

/// The key set of a project, with a cache of the tokens that it verified.
///
/// It has no `Debug`, so that neither is ever printed.
pub struct KeySet {
    specs: Vec<TokenKey>,
    keys: Vec<VerifyingKey>,
    cache: WeightedCache<Arc<str>, Arc<VerifiedToken>, TokenWeighter>,
}

/// A token with a valid signature, issuer and audience. Its validity period is checked at every use.
pub struct VerifiedToken {
    /// Its claims.
    pub claims: Object,
    /// Grants that its bearer was given.
    pub grants: GrantCache,
    period: ValidityPeriod,
}

impl VerifiedToken {
    /// What has these claims and never expires, as an access key.
    pub fn lasting(claims: Object) -> Self {
        Self { claims, grants: GrantCache::default(), period: ValidityPeriod { exp: None, nbf: None, iat: None } }
    }

    /// The second since the Unix epoch from which it is no longer valid; `None` where it does not expire.
    pub fn expires(&self) -> Option<i64> {
        // Its last valid second is the whole part.
        self.period.exp.map(|exp| (exp.floor() as i64).saturating_add(1))
    }
}

/// Approximate memory of a verified token in bytes.
#[derive(Clone)]
struct TokenWeighter;

impl Weighter<Arc<str>, Arc<VerifiedToken>> for TokenWeighter {
    fn weight(&self, token: &Arc<str>, _: &Arc<VerifiedToken>) -> u64 {
        // Besides the claims, grants may hold values of them.
        (token.len() * 4 + 256 + GRANTS_MAX * GRANT_BYTES) as u64
    }
}

/// The times of a token, in seconds since the Unix epoch.
struct ValidityPeriod {
    exp: Option<f64>,
    nbf: Option<f64>,
    iat: Option<f64>,
}

/// A key with the claims that tokens of it must have.
struct VerifyingKey {
    kid: Option<String>,
    algorithm: Algorithm,
    decoding: DecodingKey,
    aud: Vec<String>,
    iss: Vec<String>,
}

/// The header of a token. Source: RFC 7515, 4.1; a token with critical extensions must be refused.
#[derive(Deserialize)]
struct JoseHeader {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    crit: Option<serde::de::IgnoredAny>,
}

/// A decoded token, not verified yet.
struct DecodedToken<'a> {
    header: JoseHeader,
    signed: &'a str,
    signature: &'a str,
    claims: Object,
}

impl KeySet {
    /// The keys as configured. One with too short a secret verifies nothing.
    pub fn new(specs: Vec<TokenKey>) -> Self {
        let long_enough = |spec: &&TokenKey| spec.secret.len() >= SECRET_BYTES;
        let keys = specs.iter().filter(long_enough).map(VerifyingKey::new).collect();
        let cache = cache::weighted(CACHE_BYTES, TOKENS_EXPECTED, TokenWeighter);
        Self { specs, keys, cache }
    }

    /// The configuration that it was made from.
    pub fn specs(&self) -> &[TokenKey] {
        &self.specs
    }

    /// The token, if it is valid at `now`, in seconds since the Unix epoch.
    pub fn verified(&self, token: &str, now: i64) -> Result<Arc<VerifiedToken>, TokenError> {
        if token.is_empty() {
            return Err(TokenError::Missing);
        }
        let verified = match self.cache.get(token) {
            Some(verified) => verified,
            None => {
                let verified = Arc::new(self.verify(token)?);
                verified.period.check(now)?;
                self.cache.insert(token.into(), verified.clone());
                verified
            }
        };
        verified.period.check(now)?;
        Ok(verified)
    }

    /// Claims of the token, likewise.
    #[cfg(test)]
    pub fn claims(&self, token: &str, now: i64) -> Result<Object, TokenError> {
        self.verified(token, now).map(|verified| verified.claims.clone())
    }

    fn verify(&self, token: &str) -> Result<VerifiedToken, TokenError> {
        let parts = DecodedToken::of(token)?;
        let key = self.key(&parts)?;
        let period = ValidityPeriod::of(&parts.claims)?;
        if !is_accepted(&key.iss, parts.claims.get("iss")) {
            return Err(TokenError::Issuer);
        }
        let aud = parts.claims.get("aud");
        if !is_accepted(&key.aud, aud) || aud.is_some_and(is_of_service) {
            return Err(TokenError::Audience);
        }
        Ok(VerifiedToken { claims: parts.claims, grants: GrantCache::default(), period })
    }

    /// The key that signed the token: the one of its `kid`, else the first whose signature matches.
    fn key(&self, parts: &DecodedToken<'_>) -> Result<&VerifyingKey, TokenError> {
        if let Some(kid) = &parts.header.kid {
            let mut named = self.keys.iter().filter(|key| key.kid.as_ref() == Some(kid));
            let key = named.next().ok_or(TokenError::UnknownKey)?;
            return key.check(parts).map(|()| key);
        }
        let mut error = if self.keys.is_empty() { TokenError::Signature } else { TokenError::Algorithm };
        for key in &self.keys {
            match key.check(parts) {
                Ok(()) => return Ok(key),
                Err(TokenError::Signature) => error = TokenError::Signature,
                Err(_) => {}
            }
        }
        Err(error)
    }
}

impl VerifyingKey {
    fn new(spec: &TokenKey) -> Self {
        let (algorithm, decoding) = match spec.alg {
            resources::Algorithm::Hs256 => (Algorithm::HS256, DecodingKey::from_secret(spec.secret.as_bytes())),
        };
        Self { kid: spec.kid.clone(), algorithm, decoding, aud: spec.aud.clone(), iss: spec.iss.clone() }
    }

    fn check(&self, parts: &DecodedToken<'_>) -> Result<(), TokenError> {
        if parts.header.alg.parse() != Ok(self.algorithm) {
            return Err(TokenError::Algorithm);
        }
        match jsonwebtoken::crypto::verify(parts.signature, parts.signed.as_bytes(), &self.decoding, self.algorithm) {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(TokenError::Signature),
        }
    }
}

impl<'a> DecodedToken<'a> {
    fn of(token: &'a str) -> Result<Self, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        let header: JoseHeader = serde_json::from_slice(&base64_decoded(header)?).map_err(|_| TokenError::Malformed)?;
        if header.crit.is_some() {
            return Err(TokenError::Malformed);
        }
        match proto::json::parse(&base64_decoded(payload)?, CLAIM_LIMITS) {
            Ok(Value::Object(claims)) => Ok(Self { header, signed, signature, claims }),
            Ok(_) | Err(_) => Err(TokenError::Malformed),
        }
    }
}

fn base64_decoded(part: &str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed)
}

impl ValidityPeriod {
    fn of(claims: &Object) -> Result<Self, TokenError> {
        let time = |name: &'static str| match claims.get(name) {
            None => Ok(None),
            Some(Value::Int(seconds)) => Ok(Some(*seconds as f64)),
            Some(Value::Number(text)) => {
                text.parse().ok().filter(|time: &f64| time.is_finite()).map(Some).ok_or(TokenError::WrongTime(name))
            }
            Some(Value::Null | Value::Bool(_) | Value::Text(_) | Value::List(_) | Value::Object(_)) => {
                Err(TokenError::WrongTime(name))
            }
        };
        let period = ValidityPeriod { exp: time("exp")?, nbf: time("nbf")?, iat: time("iat")? };
        match period.exp {
            Some(exp) if exp <= 0.0 => Err(TokenError::WrongTime("exp")),
            Some(_) | None => Ok(period),
        }
    }

    fn check(&self, now: i64) -> Result<(), TokenError> {
        let now = now as f64;
        if self.exp.is_some_and(|exp| now > exp) {
            return Err(TokenError::Expired);
        }
        if self.nbf.is_some_and(|nbf| now < nbf) {
            return Err(TokenError::NotYet);
        }
        if self.iat.is_some_and(|iat| now < iat) {
            return Err(TokenError::NotIssued);
        }
        Ok(())
    }
}

/// Whether a claim, a string or a list of them, has one of the `accepted` values; an empty list accepts anything.
fn is_accepted(accepted: &[String], claim: Option<&Value>) -> bool {
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
    struct TokenFile {
        now: i64,
        cases: Vec<TokenCase>,
    }

    /// A token, whole or in parts: its default parts make one that the default key accepts.
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct TokenCase {
        name: String,
        keys: Option<Vec<TokenKey>>,
        token: Option<String>,
        header: Option<Json>,
        claims: Option<Json>,
        signed_by: Option<String>,
        signature: Option<String>,
        expect: String,
    }

    fn keys() -> KeySet {
        KeySet::new(serde_json::from_value(json!([{"kid": "main", "secret": SECRET}])).unwrap())
    }

    fn built(header: &[u8], claims: &[u8], secret: &str) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let key = EncodingKey::from_secret(secret.as_bytes());
        let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, Algorithm::HS256).unwrap();
        format!("{signed}.{signature}")
    }

    fn token(case: &TokenCase) -> String {
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
        let file: TokenFile = serde_json::from_str(include_str!("../cases/tokens.json")).unwrap();
        for case in &file.cases {
            let keys = case.keys.clone().map_or_else(keys, KeySet::new);
            let found = match keys.claims(&token(case), file.now) {
                Ok(_) => "accepted".to_owned(),
                Err(error) => error.to_string(),
            };
            assert_eq!(found, case.expect, "{}", case.name);
        }
    }

    #[test]
    fn a_token_is_so_long_at_most() {
        let of_bytes = |bytes: usize| {
            let least = built(br#"{"alg":"HS256"}"#, br#"{"id":""}"#, SECRET).len();
            let pad = (bytes - least) * 3 / 4;
            let tokens = (pad.saturating_sub(4)..pad + 5).map(|pad| {
                let claims = format!(r#"{{"id":"{}"}}"#, "x".repeat(pad));
                built(br#"{"alg":"HS256"}"#, claims.as_bytes(), SECRET)
            });
            tokens.into_iter().find(|token| token.len() >= bytes).unwrap()
        };
        let longest = of_bytes(MAX_TOKEN_BYTES);
        assert_eq!(longest.len(), MAX_TOKEN_BYTES);
        assert!(keys().claims(&longest, 0).is_ok());
        assert_eq!(keys().claims(&of_bytes(MAX_TOKEN_BYTES + 1), 0).map(|_| ()), Err(TokenError::Malformed));
        assert_eq!(keys().claims(&of_bytes(MAX_TOKEN_BYTES + 100), 0).map(|_| ()), Err(TokenError::Malformed));
    }

    #[test]
    fn a_kept_token_weighs_its_text_its_claims_and_the_grants_that_it_may_hold() {
        let verified = Arc::new(VerifiedToken::lasting(Object::default()));
        let weight = |bytes: usize| TokenWeighter.weight(&"x".repeat(bytes).into(), &verified);
        assert_eq!(weight(1000) - weight(0), 4000);
        assert_eq!(weight(0), 256 + (GRANTS_MAX * GRANT_BYTES) as u64);
    }

    #[test]
    fn a_remembered_token_still_expires() {
        let keys = keys();
        let token = built(br#"{"alg":"HS256"}"#, br#"{"id":"u1","exp":1000}"#, SECRET);
        assert!(keys.claims(&token, 999).is_ok());
        assert!(keys.cache.contains_key(token.as_str()));
        assert!(keys.claims(&token, 1000).is_ok());
        assert_eq!(keys.claims(&token, 1001).unwrap_err(), TokenError::Expired);
    }

    #[test]
    fn a_refused_token_is_not_remembered() {
        let keys = keys();
        let token = built(br#"{"alg":"HS256"}"#, br#"{"iat":1000}"#, SECRET);
        assert_eq!(keys.claims(&token, 999).unwrap_err(), TokenError::NotIssued);
        assert!(!keys.cache.contains_key(token.as_str()));
        assert!(keys.claims(&token, 1000).is_ok());
    }

    #[test]
    fn duplicate_or_deep_claims_are_refused() {
        let token = built(br#"{"alg":"HS256"}"#, br#"{"id":"u1","id":"u2"}"#, SECRET);
        assert_eq!(keys().claims(&token, 0).unwrap_err(), TokenError::Malformed);
        let token = built(
            br#"{"alg":"HS256"}"#,
            &format!("{{\"a\":{}1{}}}", "[".repeat(99), "]".repeat(99)).into_bytes(),
            SECRET,
        );
        assert_eq!(keys().claims(&token, 0).unwrap_err(), TokenError::Malformed);
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
