//! JSON writer of values, shared by all engines.

use base64::{Engine, engine::general_purpose::STANDARD};
use query::{datetime, number, resources::Numbers, uuid};

use crate::cell::Cell;

/// Writes a value.
pub fn cell(out: &mut Vec<u8>, cell: &Cell<'_>, numbers: Numbers) {
    match cell {
        Cell::Null => out.extend_from_slice(b"null"),
        Cell::Bool(true) => out.extend_from_slice(b"true"),
        Cell::Bool(false) => out.extend_from_slice(b"false"),
        Cell::Int(value) if numbers == Numbers::Strings && value.unsigned_abs() > number::MAX_EXACT.unsigned_abs() => {
            quoted(out, |out| int(out, *value));
        }
        Cell::Int(value) => int(out, *value),
        Cell::Float(value) => match number::not_finite_text(*value) {
            Some(text) => string(out, text),
            None => float(out, *value),
        },
        Cell::Decimal(digits) if numbers == Numbers::Strings || !is_number(digits) => string(out, digits),
        Cell::Decimal(digits) => out.extend_from_slice(digits.as_bytes()),
        Cell::Text(text) => string(out, text),
        Cell::Bytes(bytes) => quoted(out, |out| base64(out, bytes)),
        Cell::Date(days) => quoted(out, |out| datetime::date(out, *days)),
        Cell::Time(micros) => quoted(out, |out| datetime::clock(out, *micros)),
        Cell::Timestamp(micros) => quoted(out, |out| datetime::rfc3339(out, *micros)),
        Cell::Uuid(bytes) => quoted(out, |out| uuid::write(out, bytes)),
        Cell::Json(json) => out.extend_from_slice(json),
        Cell::List(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                self::cell(out, item, numbers);
            }
            out.push(b']');
        }
    }
}

/// Writes a JSON string.
pub fn string(out: &mut Vec<u8>, text: &str) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    escaped(out, text.as_bytes());
    out.push(b'"');
}

/// Writes part of what stands between the quotes of a JSON string; it may begin and end within a character.
pub fn escaped(out: &mut Vec<u8>, bytes: &[u8]) {
    let mut rest = bytes;
    loop {
        let (plain, escaped) = rest.split_at(plain_len(rest));
        out.extend_from_slice(plain);
        let Some((byte, after)) = escaped.split_first() else { return };
        escape(out, *byte);
        rest = after;
    }
}

/// Number of bytes before the first that is escaped.
fn plain_len(bytes: &[u8]) -> usize {
    let mut at = 0;
    // Eight at a time: nearly all texts have no such byte.
    while let Some(word) = bytes[at..].first_chunk() {
        if has_escaped(u64::from_ne_bytes(*word)) {
            break;
        }
        at += size_of::<u64>();
    }
    let rest = &bytes[at..];
    at + rest.iter().position(|byte| ESCAPED[usize::from(*byte)]).unwrap_or(rest.len())
}

/// Whether one of the eight bytes is escaped.
fn has_escaped(word: u64) -> bool {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGHS: u64 = ONES << 7;
    // The high bit of the lowest byte that is less than `limit` is set, and that of no byte where none is.
    // Source: Anderson, "Bit Twiddling Hacks", "Determine if a word has a byte less than n".
    let below = |word: u64, limit: u8| word.wrapping_sub(ONES * u64::from(limit)) & !word;
    let is = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    (below(word, b' ') | is(b'"') | is(b'\\')) & HIGHS != 0
}

/// Which bytes cannot stand in a JSON string as they are.
const ESCAPED: [bool; 256] = {
    let mut table = [false; 256];
    let mut control = 0;
    while control < 0x20 {
        table[control] = true;
        control += 1;
    }
    table[b'"' as usize] = true;
    table[b'\\' as usize] = true;
    table
};

fn escape(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    match byte {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        _ => {
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
}

/// The two digits of each number below a hundred.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[b'0'; 2]; 100];
    let mut number = 0;
    while number < pairs.len() {
        pairs[number] = [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8];
        number += 1;
    }
    pairs
};

/// Writes an integer.
pub fn int(out: &mut Vec<u8>, value: i64) {
    let mut buffer = [0; 20];
    let mut at = buffer.len();
    let mut rest = value.unsigned_abs();
    while rest >= 10 {
        at -= 2;
        buffer[at..at + 2].copy_from_slice(&PAIRS[(rest % 100) as usize]);
        rest /= 100;
    }
    // Of an odd number of digits the first is left; of an even number nothing.
    if rest > 0 || at == buffer.len() {
        at -= 1;
        buffer[at] = b'0' + rest as u8;
    }
    if value < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&buffer[at..]);
}

/// Writes a finite double with the fewest digits that read back the same.
pub fn float(out: &mut Vec<u8>, value: f64) {
    serde_json::to_writer(out, &value).expect("writing a number to memory cannot fail");
}

/// Writes base64; where more follows, the length of `bytes` is a multiple of three.
pub fn base64(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    STANDARD.encode_slice(bytes, &mut out[start..]).expect("the room is the encoding's length");
}

fn quoted(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(b'"');
    write(out);
    out.push(b'"');
}

/// Whether a decimal's text is a JSON number: databases also say `NaN` and `Infinity`.
fn is_number(digits: &str) -> bool {
    digits.bytes().next_back().is_some_and(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    fn written(value: &Cell<'_>, numbers: Numbers) -> String {
        let mut out = Vec::new();
        cell(&mut out, value, numbers);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_kind_of_value_has_its_form() {
        let cases = [
            (Cell::Null, "null"),
            (Cell::Bool(true), "true"),
            (Cell::Int(i64::MIN), "-9223372036854775808"),
            (Cell::Int(0), "0"),
            (Cell::Float(0.1), "0.1"),
            (Cell::Float(f64::NAN), "\"NaN\""),
            (Cell::Float(f64::NEG_INFINITY), "\"-Infinity\""),
            (Cell::Decimal(Cow::Borrowed("0.990")), "0.990"),
            (Cell::Decimal(Cow::Borrowed("NaN")), "\"NaN\""),
            (Cell::Text(Cow::Borrowed("a\"\\\n\u{1}ä")), "\"a\\\"\\\\\\n\\u0001ä\""),
            (Cell::Bytes(b"\0\xff"), "\"AP8=\""),
            (Cell::Date(14275), "\"2009-01-31\""),
            (Cell::Time(47_655_500_000), "\"13:14:15.5\""),
            (Cell::Timestamp(1_230_768_000_000_000), "\"2009-01-01T00:00:00Z\""),
            (Cell::Uuid([0xab; 16]), "\"abababab-abab-abab-abab-abababababab\""),
            (Cell::Json(b"{\"a\": 1}"), "{\"a\": 1}"),
            (Cell::List(Vec::new()), "[]"),
            (Cell::List(vec![Cell::List(vec![Cell::Null, Cell::Int(1)]), Cell::List(vec![])]), "[[null,1],[]]"),
        ];
        for (value, expected) in cases {
            assert_eq!(written(&value, Numbers::Exact), expected);
        }
    }

    #[test]
    fn texts_are_escaped_wherever_that_is_needed() {
        for escaped in ["\"", "\\", "\n", "\u{0}", "\u{1f}", " ", "!", "#", "[", "]", "\u{7f}", "\u{80}", "ä", "€"] {
            for length in 0..20 {
                for at in 0..=length {
                    let text = format!("{}{escaped}{}", "a".repeat(at), "b".repeat(length - at));
                    for text in [text.clone(), format!("{text}{escaped}")] {
                        let expected = serde_json::to_string(&text).unwrap();
                        assert_eq!(written(&Cell::Text(Cow::Borrowed(&text)), Numbers::Exact), expected);
                    }
                }
            }
        }
    }

    #[test]
    fn integers_have_all_their_digits() {
        let powers = (0..19).map(|power| 10_i64.pow(power));
        let near = powers.flat_map(|power| [power - 1, power, power + 1, power * 9, power.saturating_mul(25)]);
        for value in near.chain([i64::MAX, i64::MIN, i64::MIN + 1]).flat_map(|value| [value, value.wrapping_neg()]) {
            assert_eq!(written(&Cell::Int(value), Numbers::Exact), value.to_string());
        }
    }

    #[test]
    fn numbers_that_a_double_cannot_hold_become_strings_where_asked() {
        assert_eq!(written(&Cell::Int(1 << 53), Numbers::Strings), "9007199254740992");
        assert_eq!(written(&Cell::Int((1 << 53) + 1), Numbers::Strings), "\"9007199254740993\"");
        assert_eq!(written(&Cell::Decimal(Cow::Borrowed("0.99")), Numbers::Strings), "\"0.99\"");
    }
}
