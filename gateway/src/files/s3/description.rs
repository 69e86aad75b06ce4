//! What is said of files: entity tags, media types and metadata, in the forms of the protocol.

use std::{
    collections::HashMap,
    time::{Duration, UNIX_EPOCH},
};

use http::{HeaderMap, HeaderName};
use mesh::Fault;
use proto::storage::{Entry, Precondition};
use s3s::dto::{ETag, Metadata, Timestamp};
use serde_json::{Map, Value};

use super::fault::{invalid, not_implemented};
use crate::files::{checked_type, conditional, upload};

/// What entity tags end with here: of one with a dash, no client takes the rest for the MD5 of the file.
const SUFFIX: &str = "-1";
/// Headers of what is not kept of a file, or not done for it.
const REFUSED: [&str; 14] = [
    "cache-control",
    "content-disposition",
    "content-language",
    "expires",
    "x-amz-grant-full-control",
    "x-amz-grant-read",
    "x-amz-grant-read-acp",
    "x-amz-grant-write-acp",
    "x-amz-object-lock-legal-hold",
    "x-amz-object-lock-mode",
    "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-customer-algorithm",
    "x-amz-tagging",
    "x-amz-website-redirect-location",
];
const ACL: HeaderName = HeaderName::from_static("x-amz-acl");

/// The entity tag of a file.
pub fn etag(opaque: &str) -> ETag {
    ETag::Strong(format!("{opaque}{SUFFIX}"))
}

/// The opaque part of the tag of a file that the protocol tells as `told`.
pub fn opaque(told: &str) -> &str {
    told.strip_suffix(SUFFIX).unwrap_or(told)
}

/// A file as its conditions see it.
pub fn conditional_entry(entry: &Entry) -> Entry {
    Entry { etag: format!("{}{SUFFIX}", entry.etag), ..entry.clone() }
}

/// What must hold of the file that is there, by the headers of a change.
pub fn precondition(headers: &HeaderMap) -> Result<Option<Precondition>, Fault> {
    let mut precondition = conditional::of_change(headers)?;
    if let Some(precondition) = &mut precondition {
        precondition.etags.iter_mut().for_each(|etag| *etag = opaque(etag).to_owned());
    }
    Ok(precondition)
}

/// A moment as the protocol tells it; `None` where it is not known.
pub fn moment(unix_ms: i64) -> Option<Timestamp> {
    let since = Duration::from_millis(u64::try_from(unix_ms).ok().filter(|ms| *ms != 0)?);
    Some(Timestamp::from(UNIX_EPOCH + since))
}

/// The media type and the metadata of a file that is written. Errors: there is more that is to be kept of it.
pub fn written(
    headers: &HeaderMap,
    content_type: Option<&str>,
    metadata: Option<&Metadata>,
) -> Result<(String, String), Fault> {
    if let Some(other) = REFUSED.into_iter().find(|name| headers.contains_key(*name)) {
        return Err(not_implemented(&format!("the header {other}")));
    }
    if headers.get(ACL).is_some_and(|acl| acl != "private" && acl != "bucket-owner-full-control") {
        return Err(not_implemented("an access control list: rules say who may do what, and this"));
    }
    let content_type = checked_type(content_type.unwrap_or_default())?;
    let meta = match metadata.filter(|metadata| !metadata.is_empty()) {
        None => String::new(),
        Some(metadata) => {
            let members: Map<String, Value> =
                metadata.iter().map(|(name, value)| (name.to_ascii_lowercase(), Value::from(value.as_str()))).collect();
            let text =
                serde_json::to_string(&members).map_err(|error| invalid("InvalidArgument", error.to_string()))?;
            upload::meta(&text)?
        }
    };
    Ok((content_type, meta))
}

/// The metadata of a file, as far as headers can have it.
pub fn metadata(entry: &Entry) -> Option<Metadata> {
    let members: Map<String, Value> = serde_json::from_str(&entry.meta).ok()?;
    let told = members.into_iter().filter_map(|(name, value)| {
        HeaderName::try_from(name.as_str()).ok()?;
        Some((name, value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
    });
    let told: HashMap<String, String> = told.collect();
    (!told.is_empty()).then_some(told)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn metadata_goes_both_ways() {
        let metadata_of = |meta: &str| metadata(&Entry { meta: meta.to_owned(), ..Entry::default() });
        let sent = Metadata::from([("Author".to_owned(), "ann \"x\"".to_owned())]);
        let (content_type, meta) = written(&HeaderMap::new(), Some("text/plain"), Some(&sent)).expect("it is sound");
        assert_eq!((content_type.as_str(), meta.as_str()), ("text/plain", r#"{"author":"ann \"x\""}"#));
        assert_eq!(metadata_of(&meta), Some(Metadata::from([("author".to_owned(), "ann \"x\"".to_owned())])));
        assert_eq!(metadata_of(r#"{"a": 1, "no name": 2}"#), Some(Metadata::from([("a".to_owned(), "1".to_owned())])));
        assert_eq!((metadata_of(""), metadata_of("{}")), (None, None));
    }

    #[test]
    fn what_is_not_kept_is_refused() {
        for (name, value, is_refused) in [
            ("cache-control", "no-cache", true),
            ("x-amz-tagging", "a=b", true),
            ("x-amz-server-side-encryption", "AES256", true),
            ("x-amz-acl", "public-read", true),
            ("x-amz-acl", "private", false),
            ("x-amz-storage-class", "STANDARD", false),
        ] {
            let headers = HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static(value))]);
            assert_eq!(written(&headers, None, None).is_err(), is_refused, "{name} {value}");
        }
    }

    #[test]
    fn an_entity_tag_is_no_md5() {
        assert_eq!(etag("ea8f163db38682925e4491c5e58d4bb3").value(), "ea8f163db38682925e4491c5e58d4bb3-1");
        assert_eq!((opaque("a-1"), opaque("a")), ("a", "a"));
    }
}
