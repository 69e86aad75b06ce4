//! Cache of answers of functions over HTTP, bounded in bytes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use mesh::cache::{self, WeightedCache, Weighter};
use proto::{auth::CallGrant, functions::CallResponse};
use query::{Guard, Value, function::CacheSettings};

use crate::Error;

/// Bytes of all answers on a node. One that takes more than a share of them ([`cache::SHARDS`]) is not kept.
const CACHE_BYTES: u64 = 64 << 20;
/// Answers that are expected, and bytes that each takes beside itself.
const EXPECTED: usize = 4096;
const ENTRY_BYTES: u64 = 128;
/// Guard of what was counted when it was sent, or when a token was verified.
const SENT: Guard = Guard::new(usize::MAX, usize::MAX);

/// What an answer depends on, as a hash that nobody can make twice.
pub type CacheKey = [u8; 32];

/// The answers. Clones are the same.
#[derive(Clone)]
pub struct AnswerCache(Arc<WeightedCache<CacheKey, Kept, ByWeight>>);

/// An answer, and until when it stands.
#[derive(Clone)]
struct Kept {
    answer: CallResponse,
    until: Instant,
}

#[derive(Clone)]
struct ByWeight;

impl Weighter<CacheKey, Kept> for ByWeight {
    fn weight(&self, _: &CacheKey, kept: &Kept) -> u64 {
        kept.answer.body.len() as u64 + ENTRY_BYTES
    }
}

impl AnswerCache {
    /// Without answers.
    pub fn new() -> Self {
        Self(Arc::new(cache::weighted(CACHE_BYTES, EXPECTED, ByWeight)))
    }

    /// The answer that is kept.
    pub fn answer(&self, key: &CacheKey, now: Instant) -> Option<CallResponse> {
        let kept = self.0.get(key)?;
        // The next answer takes the place of one that stands no more.
        (kept.until > now).then_some(kept.answer)
    }

    /// Keeps an answer, if it is one of success.
    pub fn keep(&self, key: CacheKey, answer: &CallResponse, (now, ttl): (Instant, Duration)) {
        if (200..300).contains(&answer.status) {
            // A copy: the answer may be a part of what was read at once, which is not counted.
            let answer = CallResponse { status: answer.status, body: Bytes::copy_from_slice(&answer.body) };
            self.0.insert(key, Kept { answer, until: now + ttl });
        }
    }
}

/// What the answer to a call of the service `number` depends on. Services that were edited have other numbers.
pub fn key(settings: &CacheSettings, number: u64, grant: &CallGrant, params: &[u8]) -> Result<CacheKey, Error> {
    let mut hasher = blake3::Hasher::new();
    let mut part = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    part(&number.to_le_bytes());
    part(grant.function.as_bytes());
    part(&[u8::from(grant.is_list)]);
    match &settings.key {
        None => {
            part(params);
            part(grant.claims.as_bytes());
        }
        Some(values) => {
            let params = if params.is_empty() { &b"null"[..] } else { params };
            let args = proto::json::parse(params, SENT)?;
            let Value::Object(auth) = proto::json::parse(grant.claims.as_bytes(), SENT)? else {
                return Err(Error::WrongGrant("its claims are no object"));
            };
            for value in values {
                let mut json = Vec::new();
                value.value(&args, &auth).unwrap_or(&Value::Null).write_json(&mut json);
                part(&json);
            }
        }
    }
    Ok(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn grant(claims: &str) -> CallGrant {
        CallGrant { function: "send".to_owned(), claims: claims.to_owned(), ..CallGrant::default() }
    }

    fn key_of(settings: serde_json::Value, number: u64, claims: &str, params: &str) -> CacheKey {
        let settings: CacheSettings = serde_json::from_value(settings).unwrap();
        key(&settings, number, &grant(claims), params.as_bytes()).unwrap()
    }

    #[test]
    fn answers_of_others_are_not_told() {
        let all = |number, claims, params| key_of(json!({ "ttl": 1 }), number, claims, params);
        let one = all(1, r#"{"id":"ann"}"#, r#"{"a":1}"#);
        assert_eq!(one, all(1, r#"{"id":"ann"}"#, r#"{"a":1}"#));
        assert_ne!(one, all(2, r#"{"id":"ann"}"#, r#"{"a":1}"#));
        assert_ne!(one, all(1, r#"{"id":"bob"}"#, r#"{"a":1}"#));
        assert_ne!(one, all(1, r#"{"id":"ann"}"#, r#"{"a":2}"#));
        assert_ne!(all(1, "{}", "ab"), all(1, "b{}", "a"), "parts do not run together");
        let chosen = |claims, params| key_of(json!({ "ttl": 1, "key": ["args.a", "auth.id"] }), 1, claims, params);
        let one = chosen(r#"{"id":"ann","exp":1}"#, r#"{"a":1,"b":1}"#);
        assert_eq!(one, chosen(r#"{"id":"ann","exp":2}"#, r#"{"b":2,"a":1}"#));
        assert_ne!(one, chosen(r#"{"id":"bob"}"#, r#"{"a":1}"#));
        assert_ne!(one, chosen(r#"{"id":"ann"}"#, r#"{"a":"1"}"#));
    }

    #[test]
    fn answers_stand_for_their_time() {
        let (cache, now, key) = (AnswerCache::new(), Instant::now(), [1; 32]);
        let answer = |status| CallResponse { status, body: Bytes::from_static(b"1") };
        cache.keep(key, &answer(500), (now, Duration::from_secs(1)));
        assert_eq!(cache.answer(&key, now), None, "a failure is not kept");
        cache.keep(key, &answer(200), (now, Duration::from_secs(1)));
        assert_eq!(cache.answer(&key, now), Some(answer(200)));
        assert_eq!(cache.answer(&key, now + Duration::from_secs(1)), None);
        let later = now + Duration::from_secs(1);
        cache.keep(key, &answer(203), (later, Duration::from_secs(1)));
        assert_eq!(cache.answer(&key, later), Some(answer(203)));
        // However many processors there are.
        let large = CallResponse { status: 200, body: Bytes::from(vec![b'1'; 3 << 20]) };
        cache.keep([2; 32], &large, (now, Duration::from_secs(1)));
        assert_eq!(cache.answer(&[2; 32], now).map(|kept| kept.body.len()), Some(3 << 20));
    }
}
