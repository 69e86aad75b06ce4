//! Arguments as SQLite holds them.

use rusqlite::{
    ToSql,
    types::{ToSqlOutput, Value, ValueRef},
};

use query::{Typed, datetime, uuid};

use crate::{
    bind::{Bind, Stored},
    json,
};

impl ToSql for Bind {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Bind::Value(value) => bound(value),
            Bind::List(items) | Bind::LeastArray(items) | Bind::GreatestArray(items) => {
                ToSqlOutput::Owned(Value::Text(list(items)))
            }
            Bind::Stored(Stored::Int(value)) => ToSqlOutput::Owned(Value::Integer(*value)),
            Bind::Stored(Stored::Real(value)) => ToSqlOutput::Owned(Value::Real(*value)),
            Bind::Stored(Stored::Text(bytes)) => ToSqlOutput::Borrowed(ValueRef::Text(bytes)),
            Bind::Stored(Stored::Blob(bytes)) => ToSqlOutput::Borrowed(ValueRef::Blob(bytes)),
        })
    }
}

/// A value as a parameter or as the result of a function.
pub fn bound(value: &Typed) -> ToSqlOutput<'_> {
    match value {
        Typed::Null => ToSqlOutput::Owned(Value::Null),
        Typed::Bool(value) => ToSqlOutput::Owned(Value::Integer(i64::from(*value))),
        Typed::Int(value) => ToSqlOutput::Owned(Value::Integer(*value)),
        Typed::Float(value) => ToSqlOutput::Owned(Value::Real(*value)),
        // A number also where no column's affinity makes one of a text, as in a view of expressions.
        Typed::Decimal(text) => ToSqlOutput::Owned(number(text)),
        Typed::Text(text) | Typed::Json(text) | Typed::Other(text) => {
            ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes()))
        }
        Typed::Bytes(bytes) => ToSqlOutput::Borrowed(ValueRef::Blob(bytes)),
        // No column of SQLite holds lists.
        Typed::List(items) => ToSqlOutput::Owned(Value::Text(list(items))),
        Typed::Date(_) | Typed::Time(_) | Typed::Timestamp(_) | Typed::Uuid(_) => {
            ToSqlOutput::Owned(Value::Text(datetime::written(|out| written(out, value))))
        }
    }
}

/// A decimal as SQLite holds it in a column of numbers.
fn number(text: &str) -> Value {
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text };
    match (text.parse(), text.parse()) {
        (Ok(integer), _) => Value::Integer(integer),
        (Err(_), Ok(double)) => Value::Real(double),
        (Err(_), Err(_)) => Value::Text(text.to_owned()),
    }
}

/// Writes a date, time, timestamp or UUID as SQLite holds it; a timestamp as `CURRENT_TIMESTAMP` and `datetime()` do, so
/// that texts compare as times do.
fn written(out: &mut Vec<u8>, value: &Typed) {
    match value {
        Typed::Date(days) => datetime::date(out, *days),
        Typed::Time(micros) => datetime::clock(out, *micros),
        Typed::Timestamp(micros) => datetime::timestamp(out, *micros, b' '),
        Typed::Uuid(bytes) => uuid::write(out, bytes),
        Typed::Null
        | Typed::Bool(_)
        | Typed::Int(_)
        | Typed::Float(_)
        | Typed::Decimal(_)
        | Typed::Text(_)
        | Typed::Bytes(_)
        | Typed::Json(_)
        | Typed::Other(_)
        | Typed::List(_) => {}
    }
}

/// A JSON array for `json_each`.
fn list(items: &[Typed]) -> String {
    datetime::written(|out| {
        out.push(b'[');
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            member(out, item);
        }
        out.push(b']');
    })
}

/// A number of JSON that SQLite reads as the infinite `value`; NaN is null.
fn not_finite(value: f64) -> &'static [u8] {
    match (value.is_nan(), value > 0.0) {
        (true, _) => b"null",
        (false, true) => b"9e999",
        (false, false) => b"-9e999",
    }
}

fn member(out: &mut Vec<u8>, item: &Typed) {
    match item {
        // JSON has no bytes: the compiler writes lists of them out.
        Typed::Null | Typed::Bytes(_) => out.extend_from_slice(b"null"),
        Typed::Bool(value) => json::int(out, i64::from(*value)),
        Typed::Int(value) => json::int(out, *value),
        Typed::Float(value) if !value.is_finite() => out.extend_from_slice(not_finite(*value)),
        Typed::Float(value) => json::float(out, *value),
        Typed::Decimal(text) => match query::number::not_finite(text) {
            Some(value) => out.extend_from_slice(not_finite(value)),
            None => out.extend_from_slice(text.as_bytes()),
        },
        Typed::Text(text) | Typed::Json(text) | Typed::Other(text) => json::string(out, text),
        Typed::List(items) => out.extend_from_slice(list(items).as_bytes()),
        Typed::Date(_) | Typed::Time(_) | Typed::Timestamp(_) | Typed::Uuid(_) => {
            out.push(b'"');
            written(out, item);
            out.push(b'"');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_numbers_and_integers_where_they_are_whole() {
        for (text, expected) in [
            ("9223372036854775807.00", Value::Integer(i64::MAX)),
            ("-5", Value::Integer(-5)),
            ("100", Value::Integer(100)),
            ("0.0", Value::Integer(0)),
            ("0.50", Value::Real(0.5)),
            ("9223372036854775808", Value::Real(9_223_372_036_854_775_808.0)),
        ] {
            assert_eq!(number(text), expected, "{text}");
        }
    }
}
