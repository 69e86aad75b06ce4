//! Values as an index finds them: by a hash that equal values have in common, and by a place that keeps their order.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;

use crate::{Column, Type, Typed, Value, row::held};

/// Doubles up to this hold each integer.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// A value that is looked up or entered.
#[derive(Debug)]
pub enum Probe<'v> {
    /// SQL NULL.
    Null,
    /// An integer.
    Int(i64),
    /// A text.
    Text(&'v str),
    /// Any other.
    Held(Typed),
}

impl<'v> Probe<'v> {
    /// A value of a row; `None` where it is not of its column, so that no comparison with it is true.
    pub fn held(column: &Column, value: &'v Value) -> Option<Self> {
        match (column.r#type, value) {
            (_, Value::Null) => Some(Probe::Null),
            (Type::Text, Value::Text(text)) => Some(Probe::Text(text)),
            (Type::Int16 | Type::Int32 | Type::Int64, Value::Int(number)) => Some(Probe::Int(*number)),
            _ => held(column, value).map(Probe::Held),
        }
    }

    /// A value of a filter.
    pub fn operand(value: &'v Typed) -> Self {
        match value {
            Typed::Int(number) => Probe::Int(*number),
            Typed::Text(text) => Probe::Text(text),
            other => Probe::Held(other.clone()),
        }
    }

    /// A hash that is the same for all values that compare as equal; `None` where values of its type have none.
    pub fn hash(&self, hasher: &RandomState) -> Option<u64> {
        Some(match self {
            Probe::Null => hasher.hash_one(0_u8),
            Probe::Int(number) | Probe::Held(Typed::Int(number)) => hasher.hash_one((1_u8, *number)),
            Probe::Text(text) => hasher.hash_one((2_u8, *text)),
            Probe::Held(Typed::Text(text)) => hasher.hash_one((2_u8, text.as_str())),
            Probe::Held(Typed::Float(number)) => match whole(*number) {
                Some(number) => hasher.hash_one((1_u8, number)),
                None => hasher.hash_one((3_u8, ordered(*number))),
            },
            Probe::Held(Typed::Bool(flag)) => hasher.hash_one((4_u8, *flag)),
            Probe::Held(Typed::Bytes(bytes)) => hasher.hash_one((5_u8, bytes.as_slice())),
            Probe::Held(Typed::Date(days)) => hasher.hash_one((6_u8, *days)),
            Probe::Held(Typed::Time(micros)) => hasher.hash_one((7_u8, *micros)),
            Probe::Held(Typed::Timestamp(micros)) => hasher.hash_one((8_u8, *micros)),
            Probe::Held(Typed::Uuid(bytes)) => hasher.hash_one((9_u8, *bytes)),
            Probe::Held(Typed::Null | Typed::Decimal(_) | Typed::Json(_) | Typed::Other(_) | Typed::List(_)) => {
                return None;
            }
        })
    }

    /// The class of the value, and its place there: values of two classes do not compare, and of two of one class the
    /// smaller has no greater place. Values that differ may have the same place. `None` where values of its type have none.
    pub fn place(&self) -> Option<(u8, u128)> {
        Some(match self {
            Probe::Int(number) | Probe::Held(Typed::Int(number)) => (1, ordered(*number as f64).into()),
            Probe::Held(Typed::Float(number)) => (1, ordered(*number).into()),
            Probe::Text(text) => (2, prefix(text.as_bytes())),
            Probe::Held(Typed::Text(text)) => (2, prefix(text.as_bytes())),
            Probe::Held(Typed::Bool(flag)) => (4, u128::from(*flag)),
            Probe::Held(Typed::Bytes(bytes)) => (5, prefix(bytes)),
            Probe::Held(Typed::Date(days)) => (6, shifted(i64::from(*days))),
            Probe::Held(Typed::Time(micros)) => (7, shifted(*micros)),
            Probe::Held(Typed::Timestamp(micros)) => (8, shifted(*micros)),
            Probe::Held(Typed::Uuid(bytes)) => (9, u128::from_be_bytes(*bytes)),
            Probe::Null
            | Probe::Held(Typed::Null | Typed::Decimal(_) | Typed::Json(_) | Typed::Other(_) | Typed::List(_)) => {
                return None;
            }
        })
    }
}

/// The integer as which a double compares, where there is one.
fn whole(number: f64) -> Option<i64> {
    if number.fract() == 0.0 && number.abs() <= EXACT_MAX {
        return Some(number as i64);
    }
    // Beyond, doubles compare with integers by their decimals.
    if number.abs() > EXACT_MAX { number.to_string().parse().ok() } else { None }
}

/// A number that has the order of doubles; NaN is the greatest.
fn ordered(number: f64) -> u64 {
    // Zero has one place, whatever its sign.
    let bits = (number + 0.0).to_bits();
    match number {
        _ if number.is_nan() => u64::MAX,
        _ if bits >> 63 == 1 => !bits,
        _ => bits | 1 << 63,
    }
}

/// The first bytes, by which most texts differ.
fn prefix(bytes: &[u8]) -> u128 {
    let mut first = [0; 16];
    let length = bytes.len().min(first.len());
    first[..length].copy_from_slice(&bytes[..length]);
    u128::from_be_bytes(first)
}

/// A number that is not negative and has the order of integers.
fn shifted(number: i64) -> u128 {
    (number.cast_unsigned() ^ (1 << 63)).into()
}
