//! Values of parameters, as the driver sends them.

use mysql_async::{Row, Value};
use query::{Typed, datetime, uuid};

use crate::{Error, bind::Bind};

/// Memory that a value takes beside its bytes.
const VALUE_BYTES: usize = 32;
/// Microseconds of a day.
const DAY_MICROS: i64 = 86_400_000_000;

/// The value of a parameter.
pub fn value(bind: &Bind) -> Result<Value, Error> {
    match bind {
        Bind::Value(value) => Ok(typed(value)),
        Bind::List(_) | Bind::LeastArray(_) | Bind::GreatestArray(_) | Bind::Stored(_) => {
            Err(Error::Database("MariaDB has no parameters that are lists".to_owned()))
        }
    }
}

fn typed(value: &Typed) -> Value {
    match value {
        Typed::Null => Value::NULL,
        Typed::Bool(value) => Value::Int(i64::from(*value)),
        Typed::Int(value) => Value::Int(*value),
        Typed::Float(value) => Value::Double(*value),
        Typed::Decimal(text) => decimal(text),
        Typed::Text(text) | Typed::Json(text) | Typed::Other(text) => Value::Bytes(text.as_bytes().to_vec()),
        Typed::Bytes(bytes) => Value::Bytes(bytes.clone()),
        Typed::Date(days) => date(*days),
        Typed::Time(micros) => time(*micros),
        Typed::Timestamp(micros) => timestamp(*micros),
        Typed::Uuid(bytes) => Value::Bytes(datetime::written(|out| uuid::write(out, bytes)).into_bytes()),
        // No column is one.
        Typed::List(_) => Value::NULL,
    }
}

/// Integers go out as such: a text is compared with a column of integers as a double, and stored in one of bits as its
/// characters.
fn decimal(text: &str) -> Value {
    match (text.parse(), text.parse()) {
        (Ok(value), _) => Value::Int(value),
        (_, Ok(value)) => Value::UInt(value),
        _ => Value::Bytes(text.as_bytes().to_vec()),
    }
}

#[allow(clippy::cast_possible_truncation, reason = "parts of a day are small")]
fn clock(micros: i64) -> (u8, u8, u8, u32) {
    let seconds = micros / 1_000_000;
    ((seconds / 3600) as u8, (seconds / 60 % 60) as u8, (seconds % 60) as u8, (micros % 1_000_000) as u32)
}

fn time(micros: i64) -> Value {
    let (hours, minutes, seconds, fraction) = clock(micros);
    Value::Time(false, u32::from(hours / 24), hours % 24, minutes, seconds, fraction)
}

fn date(days: i32) -> Value {
    day(days, (0, 0, 0, 0)).unwrap_or_else(|| text(|out| datetime::date(out, days)))
}

fn timestamp(micros: i64) -> Value {
    let days = i32::try_from(micros.div_euclid(DAY_MICROS)).ok();
    let value = days.and_then(|days| day(days, clock(micros.rem_euclid(DAY_MICROS))));
    value.unwrap_or_else(|| text(|out| datetime::rfc3339(out, micros)))
}

/// A day and a time, where the year has four digits.
fn day(days: i32, (hours, minutes, seconds, fraction): (u8, u8, u8, u32)) -> Option<Value> {
    let (year, month, day) = datetime::year_month_day(days);
    let year = u16::try_from(year).ok().filter(|year| *year <= 9999)?;
    let (month, day) = (u8::try_from(month).ok()?, u8::try_from(day).ok()?);
    Some(Value::Date(year, month, day, hours, minutes, seconds, fraction))
}

/// What the server does not take for a moment, and says so.
fn text(write: impl FnOnce(&mut Vec<u8>)) -> Value {
    Value::Bytes(datetime::written(write).into_bytes())
}

/// Memory that the values of a row take.
pub fn row_bytes(row: &Row) -> usize {
    let bytes = |at| match row.as_ref(at) {
        Some(Value::Bytes(bytes)) => VALUE_BYTES + bytes.len(),
        Some(_) | None => VALUE_BYTES,
    };
    (0..row.len()).map(bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_sent_as_such() {
        assert_eq!(decimal("5"), Value::Int(5));
        assert_eq!(decimal("18446744073709551615"), Value::UInt(u64::MAX));
        assert_eq!(decimal("-0.5"), Value::Bytes(b"-0.5".to_vec()));
    }

    #[test]
    fn moments_are_parts() {
        assert_eq!(typed(&Typed::Timestamp(-1)), Value::Date(1969, 12, 31, 23, 59, 59, 999_999));
        assert_eq!(typed(&Typed::Date(0)), Value::Date(1970, 1, 1, 0, 0, 0, 0));
        assert_eq!(typed(&Typed::Time(86_400_000_000)), Value::Time(false, 1, 0, 0, 0, 0));
        assert_eq!(typed(&Typed::Time(47_655_500_000)), Value::Time(false, 0, 13, 14, 15, 500_000));
    }
}
