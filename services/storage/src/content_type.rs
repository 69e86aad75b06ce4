//! Media types: by content, and whether a bucket takes them. Source: RFC 9110, section 8.3.1.

use query::media_type::{self, UNKNOWN};

use crate::Error;

/// Bytes of a file that tell its type.
pub const SNIFFED_BYTES: usize = 4096;

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

/// The type of a file called `name` with which `stored` is kept, if anything is: other programs keep what no header may have.
pub fn of_stored(stored: Option<&str>, name: &str) -> String {
    let is_sound = |text: &&str| !text.is_empty() && text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    stored.filter(is_sound).unwrap_or_else(|| media_type::of_name(name)).to_owned()
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
    fn what_no_header_may_have_is_no_type() {
        for (stored, expected) in [
            (Some("text/x-own; a=\"b\""), "text/x-own; a=\"b\""),
            (Some("text/größe"), "image/png"),
            (Some("text/plain\r\nx: y"), "image/png"),
            (Some(""), "image/png"),
            (None, "image/png"),
        ] {
            assert_eq!(of_stored(stored, "a.png"), expected, "{stored:?}");
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
