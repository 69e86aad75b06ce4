//! Ranges that are asked for. Source: RFC 9110, section 14.2.

use http::{HeaderMap, header};
use proto::storage::ByteRange;

/// Most ranges of a request; of more, the whole file is sent.
const RANGES_MAX: usize = 16;

/// The ranges of a request; none where it has none, or a header that is malformed or asks for too many.
pub fn ranges(headers: &HeaderMap) -> Vec<ByteRange> {
    let mut values = headers.get_all(header::RANGE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Vec::new() };
    value.to_str().ok().and_then(parse).unwrap_or_default()
}

fn parse(text: &str) -> Option<Vec<ByteRange>> {
    let (unit, list) = text.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let ranges: Vec<&str> = list.split(',').map(str::trim).filter(|range| !range.is_empty()).collect();
    if ranges.is_empty() || ranges.len() > RANGES_MAX {
        return None;
    }
    ranges.into_iter().map(range).collect()
}

fn range(text: &str) -> Option<ByteRange> {
    let (first, last) = text.split_once('-')?;
    let number = |text: &str| match text {
        "" => Some(None),
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(Some(digits.parse().unwrap_or(u64::MAX))),
        _ => None,
    };
    let (first, last) = (number(first.trim())?, number(last.trim())?);
    match (first, last) {
        (None, None) => None,
        (Some(first), Some(last)) if last < first => None,
        (first, last) => Some(ByteRange { first, last }),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn parsed(text: &str) -> Vec<(Option<u64>, Option<u64>)> {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, HeaderValue::from_str(text).expect("the test sends a legal header"));
        ranges(&headers).into_iter().map(|range| (range.first, range.last)).collect()
    }

    #[test]
    fn what_is_malformed_asks_for_everything() {
        assert_eq!(parsed("bytes=0-3"), [(Some(0), Some(3))]);
        assert_eq!(parsed("Bytes = 5-, -3 ,, 1-1"), [(Some(5), None), (None, Some(3)), (Some(1), Some(1))]);
        assert_eq!(parsed("bytes=0-99999999999999999999"), [(Some(0), Some(u64::MAX))]);
        for text in ["bytes=", "bytes=-", "bytes=3-1", "bytes=a-b", "bytes=1", "bytes=+1-2", "items=0-3", "0-3"] {
            assert!(parsed(text).is_empty(), "{text}");
        }
        assert_eq!(parsed(&format!("bytes={}", ["0-0"; 16].join(","))).len(), 16);
        assert!(parsed(&format!("bytes={}", ["0-0"; 17].join(","))).is_empty());
    }
}
