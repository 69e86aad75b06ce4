//! Arrays.

use super::Decoder;
use crate::cell::Cell;

/// Dimensions that an array may have. Source: `MAXDIM` in PostgreSQL's `c.h`.
const DIMENSIONS_MAX: usize = 6;

/// An array as lists within lists, whatever the bounds of its subscripts.
///
/// Source: `array_send` in PostgreSQL's `arrayfuncs.c`: number of dimensions, whether there are nulls, type of the
/// values, length and lower bound of each dimension, then each value after its length, which is -1 for null.
pub fn list(item: Decoder, raw: &[u8]) -> Option<Cell<'_>> {
    let mut rest = raw;
    let dimensions = usize::try_from(word(&mut rest)?).ok().filter(|count| *count <= DIMENSIONS_MAX)?;
    word(&mut rest)?;
    word(&mut rest)?;
    let mut lengths = Vec::with_capacity(dimensions);
    for _ in 0..dimensions {
        lengths.push(usize::try_from(word(&mut rest)?).ok()?);
        word(&mut rest)?;
    }
    // Each value takes four bytes at least.
    let count = lengths.iter().try_fold(1, |count: usize, length| count.checked_mul(*length))?;
    if dimensions > 0 && count > rest.len() / 4 {
        return None;
    }
    match lengths.as_slice() {
        [] => Some(Cell::List(Vec::new())),
        lengths => items(item, lengths, &mut rest),
    }
}

fn items<'a>(item: Decoder, lengths: &[usize], rest: &mut &'a [u8]) -> Option<Cell<'a>> {
    let [length, within @ ..] = lengths else {
        let length = word(rest)?;
        if length < 0 {
            return Some(Cell::Null);
        }
        let (value, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        *rest = after;
        return Some(item.decode(value));
    };
    (0..*length).map(|_| items(item, within, rest)).collect::<Option<_>>().map(Cell::List)
}

fn word(rest: &mut &[u8]) -> Option<i32> {
    let (word, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(i32::from_be_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(words: &[i32]) -> Cell<'static> {
        let raw: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        Decoder::List(&Decoder::Int4).decode(raw.leak())
    }

    #[test]
    fn arrays_are_lists_whatever_their_lower_bounds() {
        let pair = |one, other| Cell::List(vec![Cell::Int(one), Cell::Int(other)]);
        assert_eq!(decoded(&[0, 0, 23]), Cell::List(Vec::new()));
        assert_eq!(decoded(&[1, 1, 23, 2, -3, 4, 7, -1]), Cell::List(vec![Cell::Int(7), Cell::Null]));
        let square = [2, 0, 23, 2, 1, 2, 0, 4, 1, 4, 2, 4, 3, 4, 4];
        assert_eq!(decoded(&square), Cell::List(vec![pair(1, 2), pair(3, 4)]));
    }

    #[test]
    fn what_no_server_sends_is_null() {
        for words in
            [&[][..], &[1, 0, 23], &[1, 0, 23, i32::MAX, 1], &[7, 0, 23], &[1, 0, 23, 2, 1, 4, 7], &[-1, 0, 23]]
        {
            assert_eq!(decoded(words), Cell::Null, "{words:?}");
        }
    }
}
