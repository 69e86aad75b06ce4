//! Whether a browser shows a file or saves it. Source: RFC 6266.

use http::HeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What an extended parameter may have as it is. Source: RFC 8187, section 3.2.1.
const EXTENDED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// Whether a type has a comma outside of quotes: browsers take the last of several types, not the first. Source: the Fetch
/// standard, "extract a MIME type".
pub fn is_list(content_type: &str) -> bool {
    let (mut is_quoted, mut is_escaped) = (false, false);
    content_type.chars().any(|c| {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            _ => return c == ',' && !is_quoted,
        }
        false
    })
}

/// Whether a browser would run, or let run, what a file of the type holds.
pub fn is_active(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_script = ["javascript", "ecmascript", "jscript", "livescript"].iter().any(|word| essence.contains(word));
    let is_markup = matches!(
        essence.as_str(),
        "text/html"
            | "application/xhtml+xml"
            | "text/xml"
            | "application/xml"
            | "image/svg+xml"
            | "application/mathml+xml"
    );
    // What cannot be told is not trusted.
    is_list(content_type)
        || is_script
        || is_markup
        || essence.ends_with("+xml")
        || !essence.contains('/')
        || essence.starts_with("multipart/")
}

/// `attachment` with a name for the file.
pub fn attachment(name: &str) -> HeaderValue {
    let is_plain = |c: char| (' '..='~').contains(&c) && !matches!(c, '"' | '\\' | '%');
    let plain: String = name.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    let extended = utf8_percent_encode(name, EXTENDED);
    let text = match plain == name {
        true => format!("attachment; filename=\"{plain}\""),
        false => format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{extended}"),
    };
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("attachment"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_run_is_active() {
        for active in [
            "text/html",
            "TEXT/HTML; charset=utf-8",
            "image/svg+xml",
            "application/atom+xml",
            "text/javascript",
            "application/x-javascript",
            "",
            "html",
            "image/png;, text/html",
            "image/png; a=\"\\\"\", text/html",
        ] {
            assert!(is_active(active), "{active}");
        }
        for passive in
            ["image/png", "text/plain", "application/pdf", "application/json", "video/mp4; codecs=\"a, b\"", "text/css"]
        {
            assert!(!is_active(passive), "{passive}");
        }
    }

    #[test]
    fn names_are_quoted_and_encoded() {
        for (name, expected) in [
            ("a b.png", "attachment; filename=\"a b.png\""),
            ("é\".png", "attachment; filename=\"__.png\"; filename*=UTF-8''%C3%A9%22.png"),
            (
                "a\r\nSet-Cookie: x",
                "attachment; filename=\"a__Set-Cookie: x\"; filename*=UTF-8''a%0D%0ASet-Cookie%3A%20x",
            ),
        ] {
            assert_eq!(attachment(name), expected, "{name}");
        }
    }
}
