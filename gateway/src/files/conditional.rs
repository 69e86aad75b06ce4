//! Conditional requests. Source: RFC 9110, section 13.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use mesh::Fault;
use proto::storage::{Entry, Precondition};

use crate::error;

/// Most entity tags of a condition.
const ETAGS_MAX: usize = 64;

/// Outcome of the conditions of a request for a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConditionOutcome {
    /// It is answered.
    Go,
    /// 304: the client has it.
    NotModified,
    /// 412.
    Failed,
}

/// A list of entity tags.
#[derive(Debug, PartialEq)]
enum Etags {
    Any,
    /// Opaque parts, and whether they are weak.
    These(Vec<(String, bool)>),
}

/// The outcome of the conditions of a request for the file `entry`.
pub fn evaluate(headers: &HeaderMap, entry: &Entry) -> Result<ConditionOutcome, Fault> {
    let modified_s = entry.modified_ms.div_euclid(1000);
    match etags(headers, &header::IF_MATCH)? {
        Some(Etags::These(etags)) if !etags.iter().any(|(etag, is_weak)| !is_weak && *etag == entry.etag) => {
            return Ok(ConditionOutcome::Failed);
        }
        Some(_) => {}
        None => {
            if date(headers, &header::IF_UNMODIFIED_SINCE).is_some_and(|since| modified_s > since) {
                return Ok(ConditionOutcome::Failed);
            }
        }
    }
    let has_it = match etags(headers, &header::IF_NONE_MATCH)? {
        Some(Etags::Any) => true,
        Some(Etags::These(etags)) => etags.iter().any(|(etag, _)| *etag == entry.etag),
        None => date(headers, &header::IF_MODIFIED_SINCE).is_some_and(|since| modified_s <= since),
    };
    Ok(if has_it { ConditionOutcome::NotModified } else { ConditionOutcome::Go })
}

/// Entity tags that the client has.
pub fn known_etags(headers: &HeaderMap) -> Result<Vec<String>, Fault> {
    Ok(match etags(headers, &header::IF_NONE_MATCH)? {
        Some(Etags::These(etags)) => etags.into_iter().map(|(etag, _)| etag).collect(),
        Some(Etags::Any) | None => Vec::new(),
    })
}

/// The precondition that the headers of a change of a file make; `None` where they make none.
pub fn of_change(headers: &HeaderMap) -> Result<Option<Precondition>, Fault> {
    let mut precondition = Precondition::default();
    match etags(headers, &header::IF_MATCH)? {
        None => {}
        Some(Etags::Any) => precondition.present = true,
        // A weak tag matches nothing.
        Some(Etags::These(etags)) => {
            precondition.etags =
                etags.into_iter().map(|(etag, is_weak)| if is_weak { String::new() } else { etag }).collect()
        }
    }
    match etags(headers, &header::IF_NONE_MATCH)? {
        None => {}
        Some(Etags::Any) => precondition.absent = true,
        Some(Etags::These(_)) => return Err(error::bad_request("invalid if-none-match: expected *")),
    }
    Ok((precondition != Precondition::default()).then_some(precondition))
}

/// The entity tag that `If-Range` names, or the second that it does; a weak tag is one that no file has.
pub fn if_range(headers: &HeaderMap) -> Option<Result<String, i64>> {
    let text = headers.get(header::IF_RANGE)?.to_str().unwrap_or_default().trim();
    if text.starts_with('"') || text.starts_with("W/") {
        let strong = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        return Some(Ok(strong.unwrap_or("\0").to_owned()));
    }
    // What is no date is of no file.
    Some(Err(seconds(text).unwrap_or(i64::MIN)))
}

/// The header value of an entity tag.
pub fn etag(opaque: &str) -> Result<HeaderValue, Fault> {
    let value = HeaderValue::from_str(&format!("\"{opaque}\""));
    value.map_err(|error| Fault::internal("the file cannot be described", error))
}

/// The value of `Last-Modified`.
pub fn last_modified(entry: &Entry) -> Option<HeaderValue> {
    let since = Duration::from_secs(u64::try_from(entry.modified_ms.div_euclid(1000)).ok()?);
    HeaderValue::from_str(&httpdate::fmt_http_date(UNIX_EPOCH + since)).ok()
}

fn date(headers: &HeaderMap, name: &HeaderName) -> Option<i64> {
    seconds(headers.get(name)?.to_str().ok()?)
}

fn seconds(text: &str) -> Option<i64> {
    let since = httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_secs()).ok()
}

fn etags(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Etags>, Fault> {
    let malformed = || error::bad_request(format!("invalid {name}: expected * or entity tags in quotes"));
    let mut found = Vec::new();
    let mut is_any = false;
    for value in headers.get_all(name) {
        let mut rest = value.to_str().map_err(|_| malformed())?.trim();
        if rest == "*" {
            is_any = true;
            continue;
        }
        while !rest.is_empty() {
            let is_weak = rest.starts_with("W/");
            let tag = rest.strip_prefix("W/").unwrap_or(rest);
            let (opaque, after) = tag.strip_prefix('"').and_then(|tag| tag.split_once('"')).ok_or_else(malformed)?;
            found.push((opaque.to_owned(), is_weak));
            if found.len() > ETAGS_MAX {
                return Err(error::bad_request(format!("invalid {name}: over the limit of {ETAGS_MAX} entity tags")));
            }
            rest = after.trim_start();
            rest = match rest.strip_prefix(',') {
                Some(more) => more.trim_start(),
                None if rest.is_empty() => rest,
                None => return Err(malformed()),
            };
        }
    }
    Ok(match (is_any, found.is_empty()) {
        (true, true) => Some(Etags::Any),
        (true, false) => return Err(malformed()),
        (false, false) => Some(Etags::These(found)),
        (false, true) if headers.contains_key(name) => return Err(malformed()),
        (false, true) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    fn outcome(pairs: &[(HeaderName, &'static str)]) -> Option<ConditionOutcome> {
        let entry = Entry { etag: "a".to_owned(), modified_ms: 784_111_777_999, ..Entry::default() };
        evaluate(&headers(pairs), &entry).ok()
    }

    const THEN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";

    #[test]
    fn conditions_are_evaluated_in_their_order() {
        use header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE};
        for (pairs, expected) in [
            (&[][..], ConditionOutcome::Go),
            (&[(IF_NONE_MATCH, "\"a\"")], ConditionOutcome::NotModified),
            (&[(IF_NONE_MATCH, "\"b\", W/\"a\"")], ConditionOutcome::NotModified),
            (&[(IF_NONE_MATCH, "*")], ConditionOutcome::NotModified),
            (&[(IF_NONE_MATCH, "\"b\""), (IF_MODIFIED_SINCE, THEN)], ConditionOutcome::Go),
            (&[(IF_MODIFIED_SINCE, THEN)], ConditionOutcome::NotModified),
            (&[(IF_MODIFIED_SINCE, BEFORE)], ConditionOutcome::Go),
            (&[(IF_MODIFIED_SINCE, "soon")], ConditionOutcome::Go),
            (&[(IF_MATCH, "\"a\"")], ConditionOutcome::Go),
            (&[(IF_MATCH, "*")], ConditionOutcome::Go),
            (&[(IF_MATCH, "W/\"a\"")], ConditionOutcome::Failed),
            (&[(IF_MATCH, "\"b\"")], ConditionOutcome::Failed),
            (&[(IF_UNMODIFIED_SINCE, THEN)], ConditionOutcome::Go),
            (&[(IF_UNMODIFIED_SINCE, BEFORE)], ConditionOutcome::Failed),
            (&[(IF_MATCH, "\"a\""), (IF_UNMODIFIED_SINCE, BEFORE)], ConditionOutcome::Go),
        ] {
            assert_eq!(outcome(pairs), Some(expected), "{pairs:?}");
        }
        for malformed in ["a", "\"a", "\"a\" \"b\"", "*, \"a\"", ""] {
            assert_eq!(outcome(&[(IF_MATCH, malformed)]), None, "{malformed}");
        }
    }

    #[test]
    fn changes_have_preconditions() {
        let of = |pairs: &[(HeaderName, &'static str)]| of_change(&headers(pairs));
        assert_eq!(of(&[]), Ok(None));
        let absent = Precondition { absent: true, ..Precondition::default() };
        assert_eq!(of(&[(header::IF_NONE_MATCH, "*")]), Ok(Some(absent)));
        let etags = Precondition { etags: vec!["a".to_owned(), String::new()], ..Precondition::default() };
        assert_eq!(of(&[(header::IF_MATCH, "\"a\", W/\"b\"")]), Ok(Some(etags)));
        assert!(of(&[(header::IF_NONE_MATCH, "\"a\"")]).is_err());
    }
}
