//! Paths of files in buckets, and what a grant lets be done with one.

use std::fmt;

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use crate::Error;

/// Most bytes of a segment of a path.
pub const SEGMENT_BYTES: usize = 255;
/// Most bytes of a path, without the slash that it begins with.
pub const PATH_BYTES: usize = 1024;
/// Most entries of a page of a folder.
pub const PAGE_MAX: u32 = 1000;
/// What the first segment of a path must not begin with, whatever its case: a bucket keeps its own files there.
pub const RESERVED_PREFIX: &str = ".perigee";

/// The path of a file or a folder in its bucket: normalised (NFC) segments that are all allowed; none is the root.
///
/// It is displayed with the slash that it begins with. Source of the normal form: Unicode Standard Annex 15.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FilePath(String);

impl FilePath {
    /// The path of what follows the slash in an address, percent-encoded; an empty text, and slashes alone, are the root.
    ///
    /// Slashes at the beginning are one. One slash at the end is left out: see [`FilePath::names_folder`].
    pub fn from_address(encoded: &str) -> Result<Self, Error> {
        let encoded = encoded.trim_start_matches('/');
        let encoded = encoded.strip_suffix('/').unwrap_or(encoded);
        if encoded.is_empty() {
            return Ok(Self::default());
        }
        let segments = encoded.split('/').map(|segment| percent_decoded(segment).and_then(|text| allowed(&text)));
        Self::joined(segments.collect::<Result<Vec<_>, _>>()?)
    }

    /// The path of a text that begins with a slash; one slash at the end is left out.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let Some(rest) = text.strip_prefix('/') else {
            return Err(malformed(format!("invalid path {text:?}: expected one that begins with /")));
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.is_empty() {
            return Ok(Self::default());
        }
        Self::joined(rest.split('/').map(allowed).collect::<Result<Vec<_>, _>>()?)
    }

    /// The path of a text without the slash at the beginning, as it was written by [`FilePath::as_str`].
    pub fn from_key(key: &str) -> Result<Self, Error> {
        if key.is_empty() {
            return Ok(Self::default());
        }
        Self::joined(key.split('/').map(allowed).collect::<Result<Vec<_>, _>>()?)
    }

    /// The path of a file of the bucket's own, which no path of a request reaches. It is not checked.
    pub fn reserved(path: String) -> Self {
        debug_assert!(path.starts_with(RESERVED_PREFIX));
        Self(path)
    }

    /// Whether what follows the slash in an address can only be a folder: it ends with a slash.
    pub fn names_folder(encoded: &str) -> bool {
        encoded.ends_with('/')
    }

    /// The path of `name` in this folder.
    pub fn child(&self, name: &str) -> Result<Self, Error> {
        let name = allowed(name)?;
        let segments = self.segments().map(str::to_owned).chain([name]).collect();
        Self::joined(segments)
    }

    /// Its first segment, and the path of the rest.
    pub fn split_first(&self) -> Option<(&str, Result<Self, Error>)> {
        let (first, rest) = self.0.split_once('/').unwrap_or((&self.0, ""));
        (!first.is_empty()).then(|| (first, Self::from_key(rest)))
    }

    /// Whether it is the root of its bucket.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The path without the slash at the beginning.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its last segment; empty for the root.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// Its segments.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|segment| !segment.is_empty())
    }

    fn joined(segments: Vec<String>) -> Result<Self, Error> {
        let path = segments.join("/");
        if path.len() > PATH_BYTES {
            return Err(malformed(format!("the path is over the limit of {PATH_BYTES} bytes: it has {}", path.len())));
        }
        let is_reserved =
            path.get(..RESERVED_PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(RESERVED_PREFIX));
        if is_reserved {
            return Err(malformed(format!("invalid path: names that begin with {RESERVED_PREFIX} are reserved")));
        }
        Ok(Self(path))
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.0)
    }
}

/// The segment in its normal form, if a path may have it.
fn allowed(segment: &str) -> Result<String, Error> {
    let segment: String = match is_nfc_quick(segment.chars()) {
        IsNormalized::Yes => segment.to_owned(),
        IsNormalized::No | IsNormalized::Maybe => segment.nfc().collect(),
    };
    let wrong = |why: &str| Err(malformed(format!("invalid path segment {segment:?}: {why}")));
    match segment.as_str() {
        "" => return wrong("must not be empty"),
        "." | ".." => return wrong("not allowed"),
        _ => {}
    }
    if segment.len() > SEGMENT_BYTES {
        let size = segment.len();
        return Err(malformed(format!(
            "a segment of the path is over the limit of {SEGMENT_BYTES} bytes: it has {size}"
        )));
    }
    let is_control = |c: char| matches!(c, '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}');
    if segment.contains(is_control) {
        return wrong("must not have control characters");
    }
    if segment.contains(['/', '\\']) {
        return wrong("must not have slashes or backslashes");
    }
    Ok(segment)
}

/// The text that a segment of an address encodes. Source: RFC 3986, section 2.1.
fn percent_decoded(segment: &str) -> Result<String, Error> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = rest.split_at_checked(2).and_then(|(digits, after)| {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            Some((digit(digits[0])? * 16 + digit(digits[1])?, after))
        });
        let Some((byte, after)) = digits else {
            return Err(malformed("invalid path: % must be followed by two hexadecimal digits".to_owned()));
        };
        bytes.push(u8::try_from(byte).expect("two hexadecimal digits are a byte"));
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_| malformed("invalid path: not UTF-8".to_owned()))
}

fn malformed(message: String) -> Error {
    Error::Malformed(message)
}

/// What is done with a file or a folder, as far as rules know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileOperation {
    /// Write a file, or make a folder.
    Create,
    /// Read a file, and what is known of it.
    Read,
    /// Delete it.
    Delete,
    /// List a folder.
    List,
}

impl FileOperation {
    /// All of them.
    pub const ALL: [FileOperation; 4] =
        [FileOperation::Create, FileOperation::Read, FileOperation::Delete, FileOperation::List];

    /// Its name in rules.
    pub fn name(self) -> &'static str {
        match self {
            FileOperation::Create => "create",
            FileOperation::Read => "read",
            FileOperation::Delete => "delete",
            FileOperation::List => "list",
        }
    }
}

/// Terms of a grant for a file or a folder.
#[derive(Debug, Clone, PartialEq)]
pub struct FileTerms {
    /// The project's id.
    pub project: String,
    /// The bucket's id.
    pub bucket: String,
    /// What may be done.
    pub operation: FileOperation,
    /// With what; `None` in a provisional grant for a file whose path is not known yet.
    pub path: Option<FilePath>,
    /// Bytes of the file that may be written; `None` where they are not known yet: then the grant is provisional.
    pub size: Option<u64>,
    /// Whether the file may be taken in, but not be published without a further grant.
    pub is_provisional: bool,
    /// Milliseconds since the Unix epoch from which it is void.
    pub expires_ms: i64,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn address(encoded: &str) -> Result<String, String> {
        FilePath::from_address(encoded).map(|path| path.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn an_address_is_decoded_once_and_normalised() {
        for (encoded, path) in [
            ("", "/"),
            ("/", "/"),
            ("///", "/"),
            ("img/a.png", "/img/a.png"),
            ("//img/a.png", "/img/a.png"),
            ("img/", "/img"),
            ("a%20b/%25", "/a b/%"),
            ("a%252Fb", "/a%2Fb"),
            ("a..b/...", "/a..b/..."),
            ("e%CC%81", "/é"),
            ("img/.perigee", "/img/.perigee"),
            ("files/a", "/files/a"),
        ] {
            assert_eq!(address(encoded).as_deref(), Ok(path), "{encoded}");
        }
    }

    #[test]
    fn what_could_lead_elsewhere_is_refused() {
        for encoded in [
            "..",
            "a/../b",
            "a/.",
            "%2e%2e/x",
            "a/%2E",
            "a%2Fb",
            "a%2fb",
            "a%5Cb",
            "a\\b",
            "a//b",
            "a///",
            "a%00",
            "a%1f",
            "a%7f",
            "a%C2%85",
            "%",
            "%2",
            "%zz",
            "%ff",
            "%C0%AE%C0%AE",
            ".perigee",
            ".Perigee-x/a",
            ".perigee/uploads/x",
        ] {
            assert!(address(encoded).is_err(), "{encoded}");
        }
        assert!(address(&"x".repeat(256)).is_err());
        assert_eq!(address(&"x".repeat(255)), Ok(format!("/{}", "x".repeat(255))));
        assert!(address(&vec!["x".repeat(204); 5].join("/")).is_ok(), "1024 bytes");
        assert!(address(&format!("{}/x", vec!["x".repeat(204); 5].join("/"))).is_err());
    }

    #[test]
    fn a_text_begins_with_one_slash() {
        assert_eq!(FilePath::parse("/img/").map(|path| path.to_string()).as_deref(), Ok("/img"));
        for text in ["", "img", "//img", "/a/./b", "/a/../b"] {
            assert!(FilePath::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_child_is_one_segment() {
        let folder = FilePath::parse("/img").expect("it is sound");
        assert_eq!(folder.child("a.png").map(|path| path.to_string()).as_deref(), Ok("/img/a.png"));
        for name in ["", ".", "..", "a/b", "../x", "a\\b", "a\0"] {
            assert!(folder.child(name).is_err(), "{name:?}");
        }
        assert!(FilePath::default().child(".perigee").is_err());
    }

    proptest! {
        #[test]
        fn a_path_that_is_taken_is_its_own_key(text in any::<String>()) {
            if let Ok(path) = FilePath::parse(&format!("/{text}")) {
                prop_assert_eq!(FilePath::from_key(path.as_str()), Ok(path.clone()));
                prop_assert!(path.segments().all(|segment| segment != ".." && segment != "." && !segment.contains('\\')));
            }
        }
    }
}
