//! Values of rows in a binary log, as the driver would have read them from an answer.

use mysql_async::Value;

/// Types of columns.
const TINY: u8 = 1;
const SHORT: u8 = 2;
const LONG: u8 = 3;
const FLOAT: u8 = 4;
const DOUBLE: u8 = 5;
const LONGLONG: u8 = 8;
const INT24: u8 = 9;
const DATE: u8 = 10;
const YEAR: u8 = 13;
const NEWDATE: u8 = 14;
const VARCHAR: u8 = 15;
/// Bits.
pub const BIT: u8 = 16;
const TIMESTAMP2: u8 = 17;
const DATETIME2: u8 = 18;
const TIME2: u8 = 19;
const NEWDECIMAL: u8 = 246;
/// One label of several.
pub const ENUM: u8 = 247;
/// Any of several labels.
pub const SET: u8 = 248;
const TINY_BLOB: u8 = 249;
const MEDIUM_BLOB: u8 = 250;
const LONG_BLOB: u8 = 251;
const BLOB: u8 = 252;
const VAR_STRING: u8 = 253;
const STRING: u8 = 254;
const GEOMETRY: u8 = 255;

/// Bytes of so many digits of a decimal, fewer than nine.
const DIGIT_BYTES: [usize; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];

/// Bytes that are being read.
#[derive(Debug)]
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// The next bytes.
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// A number of so many bytes, the lowest first.
    pub fn number(&mut self, bytes: usize) -> Option<u64> {
        Some(self.take(bytes)?.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// A number of so many bytes, the highest first.
    fn big_endian(&mut self, bytes: usize) -> Option<u64> {
        Some(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// A number whose first byte says how long it is.
    pub fn length(&mut self) -> Option<u64> {
        match self.number(1)? {
            0xfc => self.number(2),
            0xfd => self.number(3),
            0xfe => self.number(8),
            0xff | 0xfb => None,
            short => Some(short),
        }
    }
}

/// What a table says of a column of a type; `None` of a type that is not understood.
pub fn meta(kind: u8, metas: &mut Input<'_>) -> Option<[u8; 2]> {
    Some(match kind {
        TINY | SHORT | LONG | LONGLONG | INT24 | DATE | YEAR | NEWDATE => [0, 0],
        FLOAT | DOUBLE | TIMESTAMP2 | DATETIME2 | TIME2 | TINY_BLOB | MEDIUM_BLOB | LONG_BLOB | BLOB | GEOMETRY => {
            [metas.take(1)?[0], 0]
        }
        VARCHAR | VAR_STRING | BIT | NEWDECIMAL | ENUM | SET | STRING => {
            let meta = metas.take(2)?;
            [meta[0], meta[1]]
        }
        _ => return None,
    })
}

/// The type of a column whose type in the log may stand for another.
pub fn real_kind(kind: u8, meta: [u8; 2]) -> u8 {
    if kind == STRING && (meta[0] == ENUM || meta[0] == SET) { meta[0] } else { kind }
}

/// The next value of a column. Texts are in the character set of the column, labels are numbers.
pub fn value(kind: u8, meta: [u8; 2], is_unsigned: bool, input: &mut Input<'_>) -> Option<Value> {
    match real_kind(kind, meta) {
        TINY => integer(1, is_unsigned, input),
        SHORT => integer(2, is_unsigned, input),
        INT24 => integer(3, is_unsigned, input),
        LONG => integer(4, is_unsigned, input),
        LONGLONG => integer(8, is_unsigned, input),
        FLOAT => Some(Value::Float(f32::from_le_bytes(*input.take(4)?.first_chunk()?))),
        DOUBLE => Some(Value::Double(f64::from_le_bytes(*input.take(8)?.first_chunk()?))),
        NEWDECIMAL => decimal(usize::from(meta[0]), usize::from(meta[1]), input).map(Value::Bytes),
        YEAR => Some(Value::Int(match input.take(1)?[0] {
            0 => 0,
            year => 1900 + i64::from(year),
        })),
        DATE | NEWDATE => {
            let day = input.number(3)?;
            let (year, month, day) = (day >> 9, day >> 5 & 15, day & 31);
            Some(Value::Date(u16::try_from(year).ok()?, month as u8, day as u8, 0, 0, 0, 0))
        }
        TIMESTAMP2 => {
            let seconds = input.big_endian(4)?;
            let micros = fraction(meta[0], input)?;
            Some(timestamp(seconds, micros))
        }
        DATETIME2 => datetime(meta[0], input),
        TIME2 => time(meta[0], input),
        VARCHAR | VAR_STRING => {
            let bytes = if u16::from_le_bytes(meta) < 256 { 1 } else { 2 };
            counted(input, bytes)
        }
        STRING => {
            // Two bits of the length are kept, inverted, among those of the type.
            let longest = usize::from(meta[1]) | (usize::from(meta[0] & 0x30) ^ 0x30) << 4;
            counted(input, if longest < 256 { 1 } else { 2 })
        }
        TINY_BLOB | MEDIUM_BLOB | LONG_BLOB | BLOB | GEOMETRY => counted(input, usize::from(meta[0])),
        ENUM | SET => Some(Value::UInt(input.number(usize::from(meta[1]))?)),
        BIT => {
            let bits = usize::from(meta[1]) * 8 + usize::from(meta[0]);
            Some(Value::Bytes(input.take(bits.div_ceil(8))?.to_vec()))
        }
        _ => None,
    }
}

/// An integer of so many bytes.
fn integer(bytes: usize, is_unsigned: bool, input: &mut Input<'_>) -> Option<Value> {
    let number = input.number(bytes)?;
    let unused = 64 - 8 * u32::try_from(bytes).ok()?;
    Some(match is_unsigned {
        true => Value::UInt(number),
        false => Value::Int((number << unused).cast_signed() >> unused),
    })
}

/// A moment with microseconds of so many digits.
fn datetime(digits: u8, input: &mut Input<'_>) -> Option<Value> {
    let moment = input.big_endian(5)?.checked_sub(0x80_0000_0000)?;
    let micros = fraction(digits, input)?;
    let (months, day) = (moment >> 22, moment >> 17 & 31);
    let (hours, minutes, seconds) = clock(moment & 0x1_ffff);
    let (year, month) = (u16::try_from(months / 13).ok()?, (months % 13) as u8);
    Some(Value::Date(year, month, day as u8, hours as u8, minutes, seconds, micros))
}

/// Bytes after a number of so many bytes that counts them.
fn counted(input: &mut Input<'_>, bytes: usize) -> Option<Value> {
    if !(1..=4).contains(&bytes) {
        return None;
    }
    let count = usize::try_from(input.number(bytes)?).ok()?;
    Some(Value::Bytes(input.take(count)?.to_vec()))
}

/// Microseconds of so many digits.
fn fraction(digits: u8, input: &mut Input<'_>) -> Option<u32> {
    let scale = match digits {
        0 => return Some(0),
        1 | 2 => 10_000,
        3 | 4 => 100,
        5 | 6 => 1,
        _ => return None,
    };
    let number = input.big_endian(usize::from(digits.div_ceil(2)))?;
    Some(u32::try_from(number).ok()? * scale)
}

/// Hours, minutes and seconds, of six bits each but the first.
fn clock(packed: u64) -> (u64, u8, u8) {
    (packed >> 12, (packed >> 6 & 63) as u8, (packed & 63) as u8)
}

fn time(digits: u8, input: &mut Input<'_>) -> Option<Value> {
    let scale = match digits {
        0 => 0,
        1 | 2 => 10_000,
        3 | 4 => 100,
        5 | 6 => 1,
        _ => return None,
    };
    let bytes = 3 + usize::from(digits.div_ceil(2));
    let fraction_bits = 8 * u32::from(digits.div_ceil(2));
    // All of it is one number, moved up by half of its range.
    let packed = i64::try_from(input.big_endian(bytes)?).ok()? - (1 << (8 * bytes - 1));
    let (is_negative, packed) = (packed < 0, packed.unsigned_abs());
    let micros = u32::try_from(packed & ((1 << fraction_bits) - 1)).ok()? * scale;
    let (hours, minutes, seconds) = clock(packed >> fraction_bits & 0x3f_ffff);
    let (days, hours) = (u32::try_from(hours / 24).ok()?, (hours % 24) as u8);
    Some(Value::Time(is_negative, days, hours, minutes, seconds, micros))
}

/// A moment in UTC by seconds since 1970; zero is the one that is none.
fn timestamp(seconds: u64, micros: u32) -> Value {
    if seconds == 0 && micros == 0 {
        return Value::Date(0, 0, 0, 0, 0, 0, 0);
    }
    let days = i64::try_from(seconds / 86_400).unwrap_or_default();
    let date = time::OffsetDateTime::UNIX_EPOCH + time::Duration::days(days);
    let rest = seconds % 86_400;
    let (hours, minutes, seconds) = ((rest / 3600) as u8, (rest / 60 % 60) as u8, (rest % 60) as u8);
    let year = u16::try_from(date.year()).unwrap_or_default();
    Value::Date(year, u8::from(date.month()), date.day(), hours, minutes, seconds, micros)
}

/// The text of a decimal: groups of nine digits in four bytes, negative ones inverted, the sign in the highest bit.
fn decimal(digits: usize, scale: usize, input: &mut Input<'_>) -> Option<Vec<u8>> {
    let whole = digits.checked_sub(scale)?;
    let size = whole / 9 * 4 + DIGIT_BYTES[whole % 9] + scale / 9 * 4 + DIGIT_BYTES[scale % 9];
    let mut bytes = input.take(size)?.to_vec();
    let first = bytes.first_mut()?;
    let is_negative = *first & 0x80 == 0;
    *first ^= 0x80;
    if is_negative {
        bytes.iter_mut().for_each(|byte| *byte = !*byte);
    }
    let mut groups = Input(&bytes);
    let mut text = String::new();
    let mut group = |digits: usize| {
        let number = groups.big_endian(DIGIT_BYTES[digits])?;
        if digits > 0 {
            text.push_str(&format!("{number:0digits$}"));
        }
        Some(())
    };
    group(whole % 9)?;
    for _ in 0..whole / 9 + scale / 9 {
        group(9)?;
    }
    group(scale % 9)?;
    let (before, after) = text.split_at_checked(whole)?;
    let before = before.trim_start_matches('0');
    let sign = if is_negative { "-" } else { "" };
    let before = if before.is_empty() { "0" } else { before };
    let point = if scale == 0 { "" } else { "." };
    Some(format!("{sign}{before}{point}{after}").into_bytes())
}

/// The text of a UUID. Those with a time are stored with the parts of it that change least first.
pub fn uuid(stored: &[u8]) -> String {
    let Some(stored) = stored.first_chunk::<16>() else { return String::new() };
    let is_swapped = stored[6] & 0x80 != 0 && (1..0x80).contains(&stored[8]);
    let mut bytes = *stored;
    if is_swapped {
        bytes[10..16].copy_from_slice(&stored[0..6]);
        bytes[8..10].copy_from_slice(&stored[6..8]);
        bytes[6..8].copy_from_slice(&stored[8..10]);
        bytes[4..6].copy_from_slice(&stored[10..12]);
        bytes[0..4].copy_from_slice(&stored[12..16]);
    }
    let mut text = Vec::with_capacity(36);
    query::uuid::write(&mut text, &bytes);
    String::from_utf8_lossy(&text).into_owned()
}

/// The text of an address of version 4.
pub fn inet4(stored: &[u8]) -> String {
    stored.first_chunk::<4>().map(|bytes| std::net::Ipv4Addr::from(*bytes).to_string()).unwrap_or_default()
}

/// The text of an address of version 6, as the server writes it: with the last parts in decimals where only these are not zero.
pub fn inet6(stored: &[u8]) -> String {
    let Some(bytes) = stored.first_chunk::<16>() else { return String::new() };
    let low = u32::from_be_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]);
    if bytes[..12].iter().all(|byte| *byte == 0) && low > 0xffff {
        return format!("::{}", std::net::Ipv4Addr::from(low));
    }
    std::net::Ipv6Addr::from(*bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_server_says_is_a_value_or_none() {
        let inputs = [vec![0; 200], vec![0x7f; 200], vec![0xff; 200]];
        for kind in 0..=u8::MAX {
            for first in 0..=u8::MAX {
                for second in [0, 1, 7, 8, 9, 30, 65, u8::MAX] {
                    for input in &inputs {
                        for length in [0, 1, 9, 200] {
                            let mut input = Input(&input[..length]);
                            value(kind, [first, second], first % 2 == 0, &mut input);
                        }
                    }
                }
            }
        }
        assert_eq!(value(TIME2, [7, 0], false, &mut Input(&inputs[0])), None);
    }
}
