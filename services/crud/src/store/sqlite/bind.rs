//! Arguments as SQLite holds them.

use rusqlite::{
    ToSql,
    types::{ToSqlOutput, Value, ValueRef},
};

use crate::{bind::Bind, json, time};

impl ToSql for Bind {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Bind::Null(_) => ToSqlOutput::Owned(Value::Null),
            Bind::Bool(value) => ToSqlOutput::Owned(Value::Integer(i64::from(*value))),
            Bind::Int(_, value) => ToSqlOutput::Owned(Value::Integer(*value)),
            Bind::Float(value) => ToSqlOutput::Owned(Value::Real(*value)),
            // The column's affinity makes a number of it.
            Bind::Decimal(text) => borrowed(text),
            Bind::Text(text) | Bind::Date(text) | Bind::Time(text) => borrowed(text),
            Bind::Uuid(text) | Bind::Json(text) | Bind::Other(text) => borrowed(text),
            Bind::Bytes(bytes) => ToSqlOutput::Borrowed(ValueRef::Blob(bytes)),
            Bind::Timestamp(micros) => ToSqlOutput::Owned(Value::Text(timestamp(*micros))),
            Bind::List(_, items) => ToSqlOutput::Owned(Value::Text(list(items))),
        })
    }
}

fn borrowed(text: &str) -> ToSqlOutput<'_> {
    ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes()))
}

/// A timestamp as `CURRENT_TIMESTAMP` and `datetime()` write it, so that texts compare as times do.
fn timestamp(micros: i64) -> String {
    time::written(|out| time::timestamp(out, micros, b' '))
}

/// A JSON array for `json_each`.
fn list(items: &[Bind]) -> String {
    time::written(|out| {
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

fn member(out: &mut Vec<u8>, item: &Bind) {
    match item {
        Bind::Null(_) => out.extend_from_slice(b"null"),
        Bind::Bool(value) => json::int(out, i64::from(*value)),
        Bind::Int(_, value) => json::int(out, *value),
        Bind::Float(value) => json::float(out, *value),
        Bind::Decimal(text) | Bind::Text(text) | Bind::Date(text) | Bind::Time(text) => json::string(out, text),
        Bind::Uuid(text) | Bind::Json(text) | Bind::Other(text) => json::string(out, text),
        Bind::Timestamp(micros) => json::string(out, &timestamp(*micros)),
        // JSON has no bytes: the compiler writes lists of them out.
        Bind::Bytes(_) | Bind::List(..) => out.extend_from_slice(b"null"),
    }
}
