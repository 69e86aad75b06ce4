//! Headers of resumable uploads. Source: TUS 1.0.0.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue};
use mesh::Fault;
use proto::storage::{Checksum, checksum::Algorithm};

use crate::error;

pub const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");
pub const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
pub const UPLOAD_METADATA: HeaderName = HeaderName::from_static("upload-metadata");
pub const UPLOAD_EXPIRES: HeaderName = HeaderName::from_static("upload-expires");
pub const UPLOAD_CHECKSUM: HeaderName = HeaderName::from_static("upload-checksum");
pub const UPLOAD_DEFER_LENGTH: HeaderName = HeaderName::from_static("upload-defer-length");
pub const UPLOAD_CONCAT: HeaderName = HeaderName::from_static("upload-concat");

/// Most bytes of what is told of an upload: as many as are kept.
const LABEL_BYTES: usize = 4096;

/// The number in a header. Errors: there is none, or it is no number of bytes.
pub fn number(headers: &HeaderMap, name: &HeaderName) -> Result<u64, Fault> {
    let value = headers.get(name).ok_or_else(|| error::bad_request(format!("{name} is required")))?;
    let text = value.to_str().unwrap_or_default();
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = is_number.then(|| text.parse().ok()).flatten();
    number.ok_or_else(|| error::bad_request(format!("invalid {name} {text:?}: expected a number of bytes")))
}

/// What a client tells of a file that it will upload.
#[derive(Debug, Default, PartialEq)]
pub struct Metadata {
    /// The header as it was sent.
    pub label: String,
    pairs: Vec<(String, String)>,
}

impl Metadata {
    /// The metadata of a request. Errors: it is malformed, or has a key twice.
    pub fn of(headers: &HeaderMap) -> Result<Self, Fault> {
        let malformed = || {
            error::bad_request("invalid upload-metadata: expected keys, each once, with values in base64 after a space")
        };
        let Some(value) = headers.get(UPLOAD_METADATA) else { return Ok(Self::default()) };
        if value.len() > LABEL_BYTES {
            let found = value.len();
            return Err(error::bad_request(format!(
                "invalid upload-metadata: over the limit of {LABEL_BYTES} bytes: it has {found}"
            )));
        }
        let label = value.to_str().map_err(|_| malformed())?;
        let mut pairs: Vec<(String, String)> = Vec::new();
        for pair in label.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once(' ').unwrap_or((pair, ""));
            let value = STANDARD.decode(value.trim()).ok().and_then(|value| String::from_utf8(value).ok());
            let value = value.ok_or_else(malformed)?;
            if pairs.iter().any(|(known, _)| known == key) {
                return Err(malformed());
            }
            pairs.push((key.to_owned(), value));
        }
        Ok(Self { label: label.to_owned(), pairs })
    }

    /// The value of a key; empty where there is none.
    pub fn get(&self, key: &str) -> &str {
        self.pairs.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str()).unwrap_or_default()
    }
}

/// The checksum of a request's body; `None` where it has none.
pub fn checksum(headers: &HeaderMap) -> Result<Option<Checksum>, Fault> {
    let Some(value) = headers.get(UPLOAD_CHECKSUM) else { return Ok(None) };
    let malformed =
        || error::bad_request("invalid upload-checksum: expected sha1 or sha256, a space, and the digest in base64");
    let (algorithm, digest) = value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or_else(malformed)?;
    let (algorithm, bytes) = match algorithm {
        "sha1" => (Algorithm::Sha1, 20),
        "sha256" => (Algorithm::Sha256, 32),
        _ => return Err(malformed()),
    };
    let digest = STANDARD.decode(digest.trim()).map_err(|_| malformed())?;
    match digest.len() == bytes {
        true => Ok(Some(Checksum { algorithm: algorithm.into(), digest })),
        false => Err(malformed()),
    }
}

/// A moment as `Upload-Expires` tells it.
pub fn expires(unix_ms: i64) -> Option<HeaderValue> {
    let since = std::time::Duration::from_millis(u64::try_from(unix_ms).ok()?);
    HeaderValue::from_str(&httpdate::fmt_http_date(std::time::UNIX_EPOCH + since)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).expect("the test sends a legal header"))])
    }

    #[test]
    fn metadata_is_keys_with_values_in_base64() {
        let of = |text: &str| Metadata::of(&headers(UPLOAD_METADATA, text));
        let told = of("path L2EudHh0, is_private,filetype dGV4dC9wbGFpbg==").expect("it is sound");
        assert_eq!((told.get("path"), told.get("filetype"), told.get("is_private")), ("/a.txt", "text/plain", ""));
        assert_eq!((told.get("none"), told.label.is_empty()), ("", false));
        for malformed in ["path %", "path L2E,path L2E", "path /w==", "path L2EudHh0 x"] {
            assert!(of(malformed).is_err(), "{malformed}");
        }
        let (most, more) = (format!("k {}", "YWFh".repeat(1023)), format!("kk k,{}", "a,".repeat(2046)));
        assert!(of(&most).is_ok_and(|told| told.get("k").len() == 3069) && more.len() > LABEL_BYTES);
        assert!(of(&more).is_err_and(|fault| fault.message.contains("over the limit of 4096 bytes")));
        assert_eq!(Metadata::of(&HeaderMap::new()), Ok(Metadata::default()));
    }

    #[test]
    fn a_number_has_digits_only() {
        let of = |text: &str| number(&headers(UPLOAD_OFFSET, text), &UPLOAD_OFFSET).ok();
        assert_eq!((of("0"), of("18446744073709551615")), (Some(0), Some(u64::MAX)));
        for malformed in ["", "-1", "+1", "1.5", "18446744073709551616", "x"] {
            assert_eq!(of(malformed), None, "{malformed}");
        }
    }

    #[test]
    fn a_checksum_names_its_algorithm() {
        let of = |text: &str| checksum(&headers(UPLOAD_CHECKSUM, text));
        let sha1 = of("sha1 qZk+NkcGgWq6PiVxeFDCbJzQ2J0=").expect("it is sound").expect("there is one");
        assert_eq!((sha1.algorithm(), sha1.digest.len()), (Algorithm::Sha1, 20));
        for malformed in ["md5 qZk+NkcGgWq6PiVxeFDCbJzQ2J0=", "sha1", "sha1 x", "sha256 qZk+NkcGgWq6PiVxeFDCbJzQ2J0="] {
            assert!(of(malformed).is_err(), "{malformed}");
        }
    }
}
