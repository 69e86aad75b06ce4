//! Media types: by name, by content, and whether a bucket takes them. Source: RFC 9110, section 8.3.1.

use crate::Error;

/// Bytes of a file that tell its type.
pub const SNIFFED_BYTES: usize = 4096;
/// The type of what has none.
pub const UNKNOWN: &str = "application/octet-stream";

/// Types by the end of names.
const BY_EXTENSION: [(&str, &str); 58] = [
    ("aac", "audio/aac"),
    ("apng", "image/apng"),
    ("avi", "video/x-msvideo"),
    ("avif", "image/avif"),
    ("bmp", "image/bmp"),
    ("bz2", "application/x-bzip2"),
    ("css", "text/css"),
    ("csv", "text/csv"),
    ("doc", "application/msword"),
    ("docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    ("eot", "application/vnd.ms-fontobject"),
    ("epub", "application/epub+zip"),
    ("flac", "audio/flac"),
    ("gif", "image/gif"),
    ("gz", "application/gzip"),
    ("heic", "image/heic"),
    ("htm", "text/html"),
    ("html", "text/html"),
    ("ico", "image/vnd.microsoft.icon"),
    ("ics", "text/calendar"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("js", "text/javascript"),
    ("json", "application/json"),
    ("jsonld", "application/ld+json"),
    ("m4a", "audio/mp4"),
    ("md", "text/markdown"),
    ("mjs", "text/javascript"),
    ("mov", "video/quicktime"),
    ("mp3", "audio/mpeg"),
    ("mp4", "video/mp4"),
    ("mpeg", "video/mpeg"),
    ("odp", "application/vnd.oasis.opendocument.presentation"),
    ("ods", "application/vnd.oasis.opendocument.spreadsheet"),
    ("odt", "application/vnd.oasis.opendocument.text"),
    ("ogg", "audio/ogg"),
    ("otf", "font/otf"),
    ("pdf", "application/pdf"),
    ("png", "image/png"),
    ("ppt", "application/vnd.ms-powerpoint"),
    ("pptx", "application/vnd.openxmlformats-officedocument.presentationml.presentation"),
    ("rtf", "application/rtf"),
    ("svg", "image/svg+xml"),
    ("tar", "application/x-tar"),
    ("tif", "image/tiff"),
    ("tiff", "image/tiff"),
    ("ttf", "font/ttf"),
    ("txt", "text/plain"),
    ("wasm", "application/wasm"),
    ("wav", "audio/wav"),
    ("weba", "audio/webm"),
    ("webm", "video/webm"),
    ("webp", "image/webp"),
    ("woff2", "font/woff2"),
    ("xhtml", "application/xhtml+xml"),
    ("xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
    ("xml", "application/xml"),
    ("zip", "application/zip"),
];

/// The type that the end of a name tells.
pub fn of_name(name: &str) -> &'static str {
    let extension = name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase()).unwrap_or_default();
    let at = BY_EXTENSION.binary_search_by(|(known, _)| (*known).cmp(extension.as_str()));
    at.map_or(UNKNOWN, |at| BY_EXTENSION[at].1)
}

/// Whether a bucket with these `globs` takes a file that is declared as `declared` and begins with `beginning`.
///
/// Where the content tells a type, that has to match as well; where it tells none though it would of what is declared,
/// the file is not what it is declared to be.
pub fn check(globs: &[String], declared: &str, beginning: &[u8]) -> Result<(), Error> {
    check_declared(globs, declared)?;
    if globs.is_empty() {
        return Ok(());
    }
    let refused = |of: &str| Err(Error::UnsupportedType(of.to_owned()));
    let declared = essence(declared);
    match infer::get(beginning).map(|found| found.mime_type()) {
        Some(found) if !globs.iter().any(|glob| matches(glob, found)) => refused(found),
        None if infer::is_mime_supported(&declared) => refused(UNKNOWN),
        Some(_) | None => Ok(()),
    }
}

/// Whether a bucket with these `globs` takes files that are declared as `declared`.
pub fn check_declared(globs: &[String], declared: &str) -> Result<(), Error> {
    let declared = essence(declared);
    match globs.is_empty() || globs.iter().any(|glob| matches(glob, &declared)) {
        true => Ok(()),
        false => Err(Error::UnsupportedType(declared)),
    }
}

/// The type without its parameters, in lower case.
fn essence(media_type: &str) -> String {
    media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Whether `text` is as `glob` says, in which `*` stands for anything.
fn matches(glob: &str, text: &str) -> bool {
    let glob = glob.to_ascii_lowercase();
    let Some((first, rest)) = glob.split_once('*') else { return glob == text };
    let Some(mut left) = text.strip_prefix(first) else { return false };
    let (middle, last) = rest.rsplit_once('*').map_or((None, rest), |(middle, last)| (Some(middle), last));
    for part in middle.into_iter().flat_map(|middle| middle.split('*')) {
        match left.find(part) {
            Some(at) => left = &left[at + part.len()..],
            None => return false,
        }
    }
    left.len() >= last.len() && left.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";

    #[test]
    fn names_tell_types() {
        assert!(BY_EXTENSION.is_sorted_by_key(|(extension, _)| *extension));
        for (name, expected) in
            [("a.PNG", "image/png"), ("a.tar.gz", "application/gzip"), ("a", UNKNOWN), ("a.", UNKNOWN)]
        {
            assert_eq!(of_name(name), expected, "{name}");
        }
    }

    #[test]
    fn globs_match_whole_types() {
        for (glob, text, expected) in [
            ("image/*", "image/png", true),
            ("image/*", "images/png", false),
            ("*/*", "a/b", true),
            ("application/*+json", "application/ld+json", true),
            ("application/*+json", "application/json", false),
            ("Image/PNG", "image/png", true),
            ("image/png", "image/pngx", false),
            ("a*a/b", "a/b", false),
        ] {
            assert_eq!(matches(glob, text), expected, "{glob} {text}");
        }
    }

    #[test]
    fn what_is_declared_and_what_is_there_must_both_be_taken() {
        let globs = ["image/*".to_owned(), "text/csv".to_owned()];
        for (declared, content, is_taken) in [
            ("image/png", PNG, true),
            ("image/png; x=y", PNG, true),
            ("application/pdf", PNG, false),
            ("image/png", b"%PDF-1.7", false),
            ("image/png", b"no drawing", false),
            ("text/csv", b"a,b\n1,2\n", true),
            ("text/csv", b"%PDF-1.7", false),
            ("image/x-own", b"anything", true),
        ] {
            assert_eq!(check(&globs, declared, content).is_ok(), is_taken, "{declared}");
        }
        assert!(check(&[], "application/pdf", PNG).is_ok());
    }
}
