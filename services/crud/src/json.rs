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
    let mut start = 0;
    for (index, &byte) in bytes.iter().enumerate() {
        if !ESCAPED[usize::from(byte)] {
            continue;
        }
        out.extend_from_slice(&bytes[start..index]);
        start = index + 1;
        escape(out, byte);
    }
    out.extend_from_slice(&bytes[start..]);
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

/// Writes an integer.
pub fn int(out: &mut Vec<u8>, value: i64) {
    let mut buffer = [0; 20];
    let mut at = buffer.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        buffer[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
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
    fn numbers_that_a_double_cannot_hold_become_strings_where_asked() {
        assert_eq!(written(&Cell::Int(1 << 53), Numbers::Strings), "9007199254740992");
        assert_eq!(written(&Cell::Int((1 << 53) + 1), Numbers::Strings), "\"9007199254740993\"");
        assert_eq!(written(&Cell::Decimal(Cow::Borrowed("0.99")), Numbers::Strings), "\"0.99\"");
    }
}
