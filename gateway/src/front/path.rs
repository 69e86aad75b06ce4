//! Paths as clients write them and as routes know them.

use http::Uri;
use mesh::Fault;

use crate::error;

/// `uri` with a path that routes know: no empty segments, no dot segments, no slash at the end, and letters, digits and
/// `-._~` as themselves rather than percent-encoded (RFC 3986, section 6.2.2). `None` where it is so already.
///
/// Errors: `BAD_REQUEST` where the path does not decode to UTF-8 without NUL.
pub fn clean(uri: &Uri) -> Result<Option<Uri>, Fault> {
    let path = uri.path();
    let is_clean =
        !path.contains('%') && !path.contains("//") && !path.contains("/.") && (path == "/" || !path.ends_with('/'));
    if is_clean {
        return Ok(None);
    }
    let mut segments: Vec<String> = Vec::new();
    for segment in path.split('/') {
        let segment = if segment.contains('%') { decoded(segment)? } else { segment.to_owned() };
        match segment.as_str() {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            _ => segments.push(segment),
        }
    }
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let text = format!("/{}{query}", segments.join("/"));
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(text.parse().map_err(|_| malformed())?);
    Uri::from_parts(parts).map(Some).map_err(|_| malformed())
}

/// `segment` with its unreserved characters decoded and everything else as it is.
fn decoded(segment: &str) -> Result<String, Fault> {
    let mut text = String::with_capacity(segment.len());
    let mut whole = Vec::with_capacity(segment.len());
    let mut rest = segment;
    while let Some(place) = rest.find('%') {
        let escape = rest.get(place..place + 3).ok_or_else(malformed)?;
        if !escape[1..].bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(malformed());
        }
        let byte = u8::from_str_radix(&escape[1..], 16).map_err(|_| malformed())?;
        text.push_str(&rest[..place]);
        whole.extend_from_slice(&rest.as_bytes()[..place]);
        whole.push(byte);
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => text.push(char::from(byte)),
            _ => text.push_str(escape),
        }
        rest = &rest[place + 3..];
    }
    text.push_str(rest);
    whole.extend_from_slice(rest.as_bytes());
    match std::str::from_utf8(&whole) {
        Ok(whole) if !whole.contains('\0') => Ok(text),
        Ok(_) => Err(error::bad_request("the path has a NUL character")),
        Err(_) => Err(error::bad_request("the path is not UTF-8")),
    }
}

fn malformed() -> Fault {
    error::bad_request("the path is malformed")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert_eq, proptest};

    use super::*;

    fn cleaned(path: &str) -> Result<String, String> {
        let uri: Uri = path.parse().expect("the test sends a legal uri");
        match clean(&uri) {
            Ok(changed) => Ok(changed.unwrap_or(uri).to_string()),
            Err(fault) => Err(fault.message),
        }
    }

    #[test]
    fn empty_and_dot_segments_and_the_last_slash_are_left_out() {
        assert_eq!(cleaned("/v1//api/./shop/x/../graphql/").as_deref(), Ok("/v1/api/shop/graphql"));
        assert_eq!(cleaned("/../..//").as_deref(), Ok("/"));
    }

    #[test]
    fn a_query_is_kept() {
        assert_eq!(cleaned("/a//b/?c=//%20").as_deref(), Ok("/a/b?c=//%20"));
    }

    #[test]
    fn letters_are_decoded_and_reserved_characters_are_not() {
        assert_eq!(cleaned("/%63rud/a%2Fb/%C3%A4").as_deref(), Ok("/crud/a%2Fb/%C3%A4"));
    }

    #[test]
    fn an_encoded_dot_segment_does_not_escape() {
        assert_eq!(cleaned("/a/%2e%2e/b").as_deref(), Ok("/b"));
    }

    proptest! {
        #[test]
        fn a_clean_path_stays_as_it_is(path in "(/|\\.|%2[eEfF]|%[0-9a-fA-F]{2}|[a-z~%]){0,20}") {
            let Ok(uri) = format!("/{path}?q=//").parse::<Uri>() else { return Ok(()) };
            if let Ok(Some(once)) = clean(&uri) {
                prop_assert_eq!(once.query(), uri.query());
                prop_assert_eq!(clean(&once).map(|again| again.unwrap_or(once.clone())), Ok(once));
            }
        }
    }

    #[test]
    fn what_is_no_text_is_refused() {
        assert_eq!(cleaned("/a%ff").unwrap_err(), "the path is not UTF-8");
        assert_eq!(cleaned("/a%00").unwrap_err(), "the path has a NUL character");
        assert_eq!(cleaned("/a%+f").unwrap_err(), "the path is malformed");
        assert_eq!(cleaned("/a%2").unwrap_err(), "the path is malformed");
    }
}
