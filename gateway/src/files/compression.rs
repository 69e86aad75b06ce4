//! Files that are compressed on the wire, and nowhere else. Source: RFC 9110, sections 8.4 and 12.5.3.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures::{Stream, StreamExt, stream};
use http::{HeaderMap, HeaderValue, header};
use mesh::Fault;
use proto::storage::Entry;

/// Least bytes of a file that is worth it.
const LEAST_BYTES: u64 = 1024;
/// Speed over size: what is sent once is compressed once.
const LEVEL: Compression = Compression::fast();
/// Types that are text, whatever their name says.
const TEXTS: [&str; 9] = [
    "application/javascript",
    "application/json",
    "application/wasm",
    "application/x-ndjson",
    "application/xml",
    "application/yaml",
    "image/bmp",
    "image/svg+xml",
    "application/vnd.ms-fontobject",
];

/// How a file is sent to who asks for it with these headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// As it is, whatever a client accepts.
    Plain,
    /// As it is, since this client accepts nothing else, or asks for parts.
    Identity,
    /// Compressed.
    Gzip,
}

impl Coding {
    /// The coding for `entry`.
    pub fn of(headers: &HeaderMap, entry: &Entry) -> Self {
        if entry.size < LEAST_BYTES || !is_text(&entry.content_type) {
            return Coding::Plain;
        }
        match !headers.contains_key(header::RANGE) && accepts_gzip(headers) {
            true => Coding::Gzip,
            false => Coding::Identity,
        }
    }

    /// Writes what it means into the headers of an answer that describes the file as it is: what is compressed is another
    /// representation, with a weak tag, whose parts cannot be asked for.
    pub fn describe(self, headers: &mut HeaderMap) {
        if self != Coding::Plain {
            headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        }
        if self != Coding::Gzip {
            return;
        }
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        headers.remove(header::CONTENT_LENGTH);
        headers.remove(header::ACCEPT_RANGES);
        let weak = headers.get(header::ETAG).and_then(|etag| etag.to_str().ok()).map(|etag| format!("W/{etag}"));
        if let Some(weak) = weak.and_then(|etag| HeaderValue::from_str(&etag).ok()) {
            headers.insert(header::ETAG, weak);
        }
    }
}

/// Whether bytes of this type become fewer.
fn is_text(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_structured = essence.ends_with("+json") || essence.ends_with("+xml");
    essence.starts_with("text/") || is_structured || TEXTS.contains(&essence.as_str())
}

/// Whether a client takes gzip, by its own name or with all others.
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let mut others = false;
    for value in headers.get_all(header::ACCEPT_ENCODING) {
        for coding in value.to_str().unwrap_or_default().split(',') {
            let (name, parameters) = coding.split_once(';').unwrap_or((coding, ""));
            let weight = parameters.trim().strip_prefix("q=").map_or(Ok(1.0), |weight| weight.trim().parse::<f32>());
            let is_accepted = weight.is_ok_and(|weight| weight > 0.0);
            match name.trim() {
                name if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") => return is_accepted,
                "*" => others = is_accepted,
                _ => {}
            }
        }
    }
    others
}

/// `data` compressed piece by piece, each on a thread that may work for long.
pub fn gzip(
    data: impl Stream<Item = Result<Bytes, Fault>> + Send + 'static,
) -> impl Stream<Item = Result<Bytes, Fault>> + Send + 'static {
    let state = Some((Box::pin(data), GzEncoder::new(Vec::new(), LEVEL)));
    let coded = stream::unfold(state, |state| async {
        let (mut data, encoder) = state?;
        let piece = match data.next().await.transpose() {
            Ok(piece) => piece,
            Err(fault) => return Some((Err(fault), None)),
        };
        let coded = tokio::task::spawn_blocking(move || encoded(encoder, piece)).await;
        match coded.map_err(io::Error::other).and_then(|coded| coded) {
            Ok((coded, Some(encoder))) => Some((Ok(coded), Some((data, encoder)))),
            Ok((coded, None)) => Some((Ok(coded), None)),
            Err(error) => Some((Err(Fault::internal("the file could not be compressed", error)), None)),
        }
    });
    // A piece may still be in the encoder.
    coded.filter(|coded| std::future::ready(!coded.as_ref().is_ok_and(Bytes::is_empty)))
}

/// What comes of one more piece, or of the end of all; the encoder for the next one.
fn encoded(mut encoder: GzEncoder<Vec<u8>>, piece: Option<Bytes>) -> io::Result<(Bytes, Option<GzEncoder<Vec<u8>>>)> {
    let Some(piece) = piece else { return Ok((encoder.finish()?.into(), None)) };
    encoder.write_all(&piece)?;
    let coded = std::mem::take(encoder.get_mut());
    Ok((coded.into(), Some(encoder)))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use futures::TryStreamExt;
    use mesh::Code;

    use super::*;

    fn coding(accepted: &str, content_type: &str, size: u64) -> Coding {
        let accepted = HeaderValue::from_str(accepted).expect("the test sends a legal header");
        let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, accepted)]);
        Coding::of(&headers, &Entry { content_type: content_type.to_owned(), size, ..Entry::default() })
    }

    #[test]
    fn texts_are_compressed_for_who_accepts_it() {
        for (accepted, expected) in [
            ("gzip", Coding::Gzip),
            ("br, GZIP;q=0.5", Coding::Gzip),
            ("*", Coding::Gzip),
            ("*;q=0, gzip", Coding::Gzip),
            ("gzip;q=0, *", Coding::Identity),
            ("gzip; q=0.000", Coding::Identity),
            ("gzip;q=x", Coding::Identity),
            ("br", Coding::Identity),
            ("", Coding::Identity),
        ] {
            assert_eq!(coding(accepted, "text/plain; charset=utf-8", 2000), expected, "{accepted}");
        }
        for (content_type, size, expected) in [
            ("application/ld+json", 1024, Coding::Gzip),
            ("Image/SVG+xml", 2000, Coding::Gzip),
            ("image/png", 2000, Coding::Plain),
            ("application/octet-stream", 2000, Coding::Plain),
            ("text/plain", 1023, Coding::Plain),
        ] {
            assert_eq!(coding("gzip", content_type, size), expected, "{content_type}");
        }
    }

    #[tokio::test]
    async fn what_is_compressed_is_what_was_there() {
        let pieces: Vec<Bytes> = (0..20_u8).map(|byte| vec![byte; 100_000].into()).collect();
        let coded = gzip(stream::iter(pieces.clone()).map(Ok));
        let coded: Vec<Bytes> = coded.try_collect().await.expect("it is sound");
        let coded = coded.concat();
        assert!(coded.len() < 100_000, "{}", coded.len());
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&coded[..]).read_to_end(&mut plain).expect("it is whole");
        assert!(plain == pieces.concat());
    }

    #[tokio::test]
    async fn a_file_that_breaks_off_has_no_end() {
        let pieces = [Ok(Bytes::from_static(b"x")), Err(Fault::new(Code::Internal, "it is damaged"))];
        let coded: Result<Vec<Bytes>, Fault> = gzip(stream::iter(pieces)).try_collect().await;
        assert_eq!(coded.map_err(|fault| fault.code), Err(Code::Internal));
    }
}
