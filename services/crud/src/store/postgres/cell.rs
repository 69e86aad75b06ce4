//! Values of a row, decoded from PostgreSQL's binary format only when they are written.

use std::borrow::Cow;

use query::datetime;
use tokio_postgres::types::{FromSql, Kind, Type};

use crate::cell::{self, Cell};

mod address;
mod array;
mod text;

pub use text::{ListForm, TextForm};

/// From 1970-01-01, where our timestamps start, to 2000-01-01, where PostgreSQL's do.
pub const EPOCH_MICROS: i64 = 946_684_800_000_000;
/// Microseconds of a day.
pub const DAY_MICROS: i64 = 86_400_000_000;
/// Days between the two epochs.
pub const EPOCH_DAYS: i32 = 10_957;

/// Decoder of the bytes of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoder {
    /// `bool`.
    Bool,
    /// `int2`.
    Int2,
    /// `int4`.
    Int4,
    /// `int8`.
    Int8,
    /// `oid`: 32 bits without a sign.
    Oid,
    /// `float4`.
    Float4,
    /// `float8`.
    Float8,
    /// `numeric`.
    Numeric,
    /// Whatever is its own text: `text`, `varchar`, enums.
    Text,
    /// `bytea`.
    Bytes,
    /// `date`.
    Date,
    /// `time`.
    Time,
    /// `timestamp` and `timestamptz`: both are UTC on the wire.
    Timestamp,
    /// `uuid`.
    Uuid,
    /// `json`.
    Json,
    /// `jsonb`: a version byte, then the text.
    Jsonb,
    /// `inet` and `cidr`.
    Address,
    /// `void`: what a function without a result answers.
    Void,
    /// An array of what another decodes.
    List(&'static Decoder),
}

/// Decoders of the values of arrays.
static ITEMS: [Decoder; 18] = [
    Decoder::Bool,
    Decoder::Int2,
    Decoder::Int4,
    Decoder::Int8,
    Decoder::Oid,
    Decoder::Float4,
    Decoder::Float8,
    Decoder::Numeric,
    Decoder::Text,
    Decoder::Bytes,
    Decoder::Date,
    Decoder::Time,
    Decoder::Timestamp,
    Decoder::Uuid,
    Decoder::Json,
    Decoder::Jsonb,
    Decoder::Address,
    Decoder::Void,
];

/// The bytes of a value, whatever its type.
pub struct Raw<'a>(pub &'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Raw(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

impl Decoder {
    /// The one for columns of `ty`; `None` for types whose binary form is not known here.
    pub fn of(ty: &Type) -> Option<Self> {
        Some(match *ty {
            Type::BOOL => Self::Bool,
            Type::INT2 => Self::Int2,
            Type::INT4 => Self::Int4,
            Type::INT8 => Self::Int8,
            Type::OID => Self::Oid,
            Type::FLOAT4 => Self::Float4,
            Type::FLOAT8 => Self::Float8,
            Type::NUMERIC => Self::Numeric,
            Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::CHAR | Type::UNKNOWN => Self::Text,
            Type::BYTEA => Self::Bytes,
            Type::DATE => Self::Date,
            Type::TIME => Self::Time,
            Type::TIMESTAMP | Type::TIMESTAMPTZ => Self::Timestamp,
            Type::UUID => Self::Uuid,
            Type::JSON => Self::Json,
            Type::JSONB => Self::Jsonb,
            Type::INET | Type::CIDR => Self::Address,
            Type::VOID => Self::Void,
            _ => match ty.kind() {
                Kind::Enum(_) => Self::Text,
                Kind::Domain(under) => return Self::of(under),
                Kind::Array(item) => {
                    let item = Self::of(item)?;
                    return ITEMS.iter().find(|known| **known == item).map(Self::List);
                }
                _ if ty.name() == "citext" => Self::Text,
                _ => return None,
            },
        })
    }

    /// The value in `raw`. Bytes of a length that the type cannot have are null: no server sends them.
    pub fn decode(self, raw: &[u8]) -> Cell<'_> {
        match self.decoded(raw) {
            Some(cell) => cell,
            None => Cell::Null,
        }
    }

    fn decoded(self, raw: &[u8]) -> Option<Cell<'_>> {
        Some(match self {
            Self::Bool => Cell::Bool(u8::from_be_bytes(raw.try_into().ok()?) != 0),
            Self::Int2 => Cell::Int(i16::from_be_bytes(raw.try_into().ok()?).into()),
            Self::Int4 => Cell::Int(i32::from_be_bytes(raw.try_into().ok()?).into()),
            Self::Int8 => Cell::Int(i64::from_be_bytes(raw.try_into().ok()?)),
            Self::Oid => Cell::Int(u32::from_be_bytes(raw.try_into().ok()?).into()),
            Self::Float4 => Cell::Float(widened(f32::from_be_bytes(raw.try_into().ok()?))),
            Self::Float8 => Cell::Float(f64::from_be_bytes(raw.try_into().ok()?)),
            Self::Numeric => Cell::Decimal(numeric(raw)?),
            Self::Text => Cell::Text(cell::text(raw)),
            Self::Bytes => Cell::Bytes(raw),
            Self::Date => date(i32::from_be_bytes(raw.try_into().ok()?)),
            Self::Time => Cell::Time(i64::from_be_bytes(raw.try_into().ok()?)),
            Self::Timestamp => timestamp(i64::from_be_bytes(raw.try_into().ok()?)),
            Self::Uuid => Cell::Uuid(raw.try_into().ok()?),
            Self::Json => Cell::Json(raw),
            Self::Jsonb => Cell::Json(raw.get(1..)?),
            Self::Address => Cell::Text(Cow::Owned(address::text(raw)?)),
            Self::Void => Cell::Null,
            Self::List(item) => array::list(*item, raw)?,
        })
    }
}

/// The double that is written with the digits of the single: 0.1, not 0.10000000149011612.
fn widened(single: f32) -> f64 {
    format!("{single:e}").parse().unwrap_or_else(|_| f64::from(single))
}

/// Both calendars have their infinities at the ends of the same width.
fn date(days: i32) -> Cell<'static> {
    match days {
        datetime::LAST_DAY | datetime::FIRST_DAY => Cell::Date(days),
        _ => Cell::Date(days.saturating_add(EPOCH_DAYS)),
    }
}

/// The last thirty years before the end of PostgreSQL's calendar (294276) do not fit ours and are texts.
fn timestamp(micros: i64) -> Cell<'static> {
    if let datetime::LAST_MICROS | datetime::FIRST_MICROS = micros {
        return Cell::Timestamp(micros);
    }
    match micros.checked_add(EPOCH_MICROS) {
        Some(micros) if micros != datetime::LAST_MICROS => Cell::Timestamp(micros),
        Some(_) | None => Cell::Text(Cow::Owned(late(micros))),
    }
}

/// A point in time after those that fit our count, from its microseconds since 2000.
fn late(micros: i64) -> String {
    let days = i32::try_from(micros / DAY_MICROS).expect("64 bits of microseconds are fewer than 2^31 days");
    datetime::written(|out| {
        datetime::date(out, days + EPOCH_DAYS);
        out.push(b'T');
        datetime::clock(out, micros % DAY_MICROS);
        out.push(b'Z');
    })
}

/// A `numeric` as PostgreSQL writes it, trailing zeros of its scale included.
///
/// Source: `numeric_send` and `get_str_from_var` in PostgreSQL's `numeric.c`: count of base-10000 digits, weight of the
/// first, sign, digits after the point, then the base-10000 digits.
fn numeric(raw: &[u8]) -> Option<Cow<'static, str>> {
    let mut words = raw.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    let count = usize::from(words.next()?);
    let weight = words.next()?.cast_signed();
    let sign = words.next()?;
    let scale = usize::from(words.next()?);
    match sign {
        0xC000 => return Some(Cow::Borrowed("NaN")),
        0xD000 => return Some(Cow::Borrowed("Infinity")),
        0xF000 => return Some(Cow::Borrowed("-Infinity")),
        _ => {}
    }
    let groups: &[u8] = raw.get(8..8 + count * 2)?;
    let group = |position: i32| -> u16 {
        let Ok(index) = usize::try_from(position) else { return 0 };
        groups.get(index * 2..index * 2 + 2).map_or(0, |pair| u16::from_be_bytes([pair[0], pair[1]]))
    };
    let weight = i32::from(weight);

    let mut text = String::with_capacity(count * 4 + scale + 3);
    if sign == 0x4000 {
        text.push('-');
    }
    if weight < 0 {
        text.push('0');
    } else {
        text.push_str(&group(0).to_string());
        (1..=weight).for_each(|position| push_group(&mut text, group(position)));
    }
    if scale > 0 {
        text.push('.');
        let end = text.len() + scale;
        let mut position = weight + 1;
        while text.len() < end {
            push_group(&mut text, group(position));
            position += 1;
        }
        text.truncate(end);
    }
    Some(Cow::Owned(text))
}

/// Four decimal digits.
fn push_group(text: &mut String, group: u16) {
    for unit in [1000, 100, 10, 1] {
        let digit = u32::from(group / unit % 10);
        text.push(char::from_digit(digit, 10).expect("a remainder of ten is a digit"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[i32]) -> Vec<u8> {
        words.iter().flat_map(|word| u16::try_from(word & 0xffff).unwrap().to_be_bytes()).collect()
    }

    fn decimal(parts: &[i32]) -> String {
        numeric(&words(parts)).unwrap().into_owned()
    }

    #[test]
    fn numerics_keep_their_scale() {
        assert_eq!(decimal(&[0, 0, 0, 0]), "0");
        assert_eq!(decimal(&[0, 0, 0, 2]), "0.00");
        assert_eq!(decimal(&[1, -1, 0, 2, 9900]), "0.99");
        assert_eq!(decimal(&[2, 0, 0, 2, 13, 8600]), "13.86");
        assert_eq!(decimal(&[1, 1, 0, 0, 1]), "10000");
        assert_eq!(decimal(&[3, 1, 0x4000, 3, 1, 2, 500]), "-10002.050");
        assert_eq!(decimal(&[1, -2, 0, 8, 1]), "0.00000001");
        assert_eq!(decimal(&[1, 2, 0, 1, 12]), "1200000000.0");
    }

    #[test]
    fn numerics_that_are_no_numbers_are_named() {
        assert_eq!(decimal(&[0, 0, 0xC000, 0]), "NaN");
        assert_eq!(decimal(&[0, 0, 0xD000, 0]), "Infinity");
        assert_eq!(decimal(&[0, 0, 0xF000, 0]), "-Infinity");
    }

    #[test]
    fn singles_keep_their_digits() {
        assert_eq!(Decoder::Float4.decode(&0.1_f32.to_be_bytes()), Cell::Float(0.1));
        assert_eq!(Decoder::Float4.decode(&f32::MAX.to_be_bytes()), Cell::Float(3.402_823_5e38));
        assert_eq!(Decoder::Float4.decode(&f32::INFINITY.to_be_bytes()), Cell::Float(f64::INFINITY));
    }

    #[test]
    fn times_count_from_1970() {
        assert_eq!(Decoder::Date.decode(&0_i32.to_be_bytes()), Cell::Date(10_957));
        assert_eq!(Decoder::Timestamp.decode(&0_i64.to_be_bytes()), Cell::Timestamp(EPOCH_MICROS));
        assert_eq!(Decoder::Timestamp.decode(&i64::MAX.to_be_bytes()), Cell::Timestamp(datetime::LAST_MICROS));
        assert_eq!(Decoder::Timestamp.decode(&i64::MIN.to_be_bytes()), Cell::Timestamp(datetime::FIRST_MICROS));
        assert_eq!(Decoder::Date.decode(&i32::MIN.to_be_bytes()), Cell::Date(datetime::FIRST_DAY));
        let last = 9_223_371_331_199_999_999_i64;
        assert_eq!(Decoder::Timestamp.decode(&last.to_be_bytes()), Cell::Text("+294276-12-31T23:59:59.999999Z".into()));
    }

    #[test]
    fn jsonb_loses_its_version() {
        assert_eq!(Decoder::Jsonb.decode(b"\x01{}"), Cell::Json(b"{}"));
    }

    #[test]
    fn wrong_lengths_are_null() {
        assert_eq!(Decoder::Int4.decode(&[1]), Cell::Null);
        assert_eq!(Decoder::Numeric.decode(&words(&[4, 0, 0, 0, 1])), Cell::Null);
        assert_eq!(Decoder::Jsonb.decode(&[]), Cell::Null);
    }

    #[test]
    fn types_without_a_known_form_have_no_decoder() {
        assert_eq!(Decoder::of(&Type::INTERVAL), None);
        assert_eq!(Decoder::of(&Type::INTERVAL_ARRAY), None);
        assert_eq!(Decoder::of(&Type::INT4_ARRAY), Some(Decoder::List(&Decoder::Int4)));
        assert_eq!(Decoder::of(&Type::VARCHAR), Some(Decoder::Text));
    }
}
