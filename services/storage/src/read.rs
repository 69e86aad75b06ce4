//! Parts of a file that are read. Source of ranges: RFC 9110, section 14.1.2.

use std::ops::Range;

use bytes::Bytes;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use proto::storage::{ByteRange, Part};

use crate::Error;

/// Bytes that are handed on at a time.
pub const PIECE_BYTES: usize = 256 * 1024;

/// Pieces of a file in their order.
pub type Pieces = BoxStream<'static, Result<Bytes, Error>>;

/// The parts of a file that are asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Parts {
    /// All of it.
    Whole,
    /// These, each of which has a byte.
    Some(Vec<Range<u64>>),
    /// None of those that were asked for is in the file.
    Unsatisfiable,
}

impl Parts {
    /// The parts of a file of `size` bytes that `ranges` ask for; the whole where there are none.
    pub fn of(ranges: &[ByteRange], size: u64) -> Self {
        if ranges.is_empty() {
            return Parts::Whole;
        }
        let parts: Vec<Range<u64>> = ranges.iter().filter_map(|range| part(range, size)).collect();
        if parts.is_empty() { Parts::Unsatisfiable } else { Parts::Some(parts) }
    }

    /// As messages tell them.
    pub fn to_wire(&self) -> Vec<Part> {
        match self {
            Parts::Whole | Parts::Unsatisfiable => Vec::new(),
            Parts::Some(parts) => {
                parts.iter().map(|part| Part { start: part.start, size: part.end - part.start }).collect()
            }
        }
    }
}

/// `parts` of `bytes`, in pieces that share their memory.
pub fn pieces_of(bytes: Bytes, parts: Parts) -> Pieces {
    let ranges = match parts {
        Parts::Whole => std::iter::once(0..bytes.len() as u64).collect(),
        Parts::Some(ranges) => ranges,
        Parts::Unsatisfiable => Vec::new(),
    };
    let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
    let parts: Vec<Bytes> = ranges.iter().map(|range| bytes.slice(index(range.start)..index(range.end))).collect();
    let pieces = parts.into_iter().flat_map(|mut part| {
        std::iter::from_fn(move || {
            let length = part.len().min(PIECE_BYTES);
            (length > 0).then(|| Ok(part.split_to(length)))
        })
    });
    stream::iter(pieces).boxed()
}

fn part(range: &ByteRange, size: u64) -> Option<Range<u64>> {
    let part = match (range.first, range.last) {
        (Some(first), Some(last)) => first..last.saturating_add(1).min(size),
        (Some(first), None) => first..size,
        (None, Some(last)) => size.saturating_sub(last)..size,
        (None, None) => return None,
    };
    (part.start < part.end).then_some(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_to_the_file() {
        let range = |first, last| ByteRange { first, last };
        let parts = |ranges: &[ByteRange]| Parts::of(ranges, 10);
        assert_eq!(parts(&[]), Parts::Whole);
        for (asked, expected) in [
            (range(Some(0), Some(3)), 0..4),
            (range(Some(9), Some(9)), 9..10),
            (range(Some(5), Some(u64::MAX)), 5..10),
            (range(Some(5), None), 5..10),
            (range(None, Some(3)), 7..10),
            (range(None, Some(99)), 0..10),
        ] {
            assert_eq!(parts(&[asked]), Parts::Some(vec![expected]));
        }
        for none in [range(Some(10), None), range(Some(10), Some(20)), range(None, Some(0)), range(None, None)] {
            assert_eq!(parts(&[none]), Parts::Unsatisfiable);
        }
        let found = parts(&[range(Some(99), None), range(Some(1), Some(1)), range(Some(3), Some(4))]);
        assert_eq!(found, Parts::Some(vec![1..2, 3..5]));
        assert_eq!(Parts::of(&[range(Some(0), None)], 0), Parts::Unsatisfiable);
    }
}
