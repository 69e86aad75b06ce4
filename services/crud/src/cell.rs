//! Values of rows, borrowed from the driver, and the keys that join the levels of a tree.

use std::borrow::Cow;

use query::Type;

use crate::{bind::Bind, time, uuid};

/// A value of a row, borrowed from the driver's bytes.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell<'a> {
    /// SQL NULL.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A double; not finite ones are written as null.
    Float(f64),
    /// An exact decimal as JSON number text; `NaN` and infinities are written as strings.
    Decimal(Cow<'a, str>),
    /// Text, and whatever the database writes as text.
    Text(Cow<'a, str>),
    /// Bytes; base64.
    Bytes(&'a [u8]),
    /// Days since 1970-01-01.
    Date(i32),
    /// Microseconds since midnight.
    Time(i64),
    /// Microseconds since 1970-01-01T00:00:00Z.
    Timestamp(i64),
    /// A UUID.
    Uuid([u8; 16]),
    /// JSON text, written as it is.
    Json(&'a [u8]),
}

/// A value of a key column, comparable between the two sides of a relation whatever their exact types.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// Integers of any width, and decimals and doubles that are integers.
    Int(i64),
    /// Everything else, in its canonical form.
    Bytes(Box<[u8]>),
    /// Of a key of several columns.
    Many(Box<[Key]>),
}

impl Cell<'_> {
    /// The value as a key; `None` for NULL, which equals nothing.
    pub fn key(&self) -> Option<Key> {
        Some(match self {
            Cell::Null => return None,
            Cell::Bool(value) => Key::Int(i64::from(*value)),
            Cell::Int(value) | Cell::Time(value) | Cell::Timestamp(value) => Key::Int(*value),
            Cell::Date(days) => Key::Int(i64::from(*days)),
            Cell::Float(value) => number(&value.to_string()),
            Cell::Decimal(text) => number(text),
            Cell::Text(text) => Key::Bytes(text.as_bytes().into()),
            Cell::Bytes(bytes) | Cell::Json(bytes) => Key::Bytes((*bytes).into()),
            Cell::Uuid(bytes) => Key::Bytes(bytes.as_slice().into()),
        })
    }

    /// The text, of a text.
    pub fn text(&self) -> Option<String> {
        match self {
            Cell::Text(text) => Some(text.as_ref().to_owned()),
            _ => None,
        }
    }

    /// The value as an argument for a column of `type`; `None` for NULL.
    pub fn bind(&self, r#type: Type) -> Option<Bind> {
        Some(match self {
            Cell::Null => return None,
            Cell::Bool(value) => Bind::Bool(*value),
            Cell::Int(value) => match r#type {
                Type::Decimal => Bind::Decimal(value.to_string()),
                Type::Bool => Bind::Bool(*value != 0),
                Type::Text => Bind::Text(value.to_string()),
                Type::Other => Bind::Other(value.to_string()),
                Type::Int16
                | Type::Int32
                | Type::Int64
                | Type::Float
                | Type::Bytes
                | Type::Date
                | Type::Time
                | Type::Timestamp
                | Type::Uuid
                | Type::Json => Bind::Int(r#type, *value),
            },
            Cell::Float(value) => Bind::Float(*value),
            Cell::Decimal(text) => Bind::Decimal(text.as_ref().to_owned()),
            Cell::Text(text) if r#type == Type::Other => Bind::Other(text.as_ref().to_owned()),
            Cell::Text(text) => Bind::Text(text.as_ref().to_owned()),
            Cell::Bytes(bytes) => Bind::Bytes(bytes.to_vec()),
            Cell::Date(days) => Bind::Date(time::written(|out| time::date(out, *days))),
            Cell::Time(micros) => Bind::Time(time::written(|out| time::clock(out, *micros))),
            Cell::Timestamp(micros) => Bind::Timestamp(*micros),
            Cell::Uuid(bytes) => Bind::Uuid(time::written(|out| uuid::write(out, bytes))),
            Cell::Json(bytes) => Bind::Json(String::from_utf8_lossy(bytes).into_owned()),
        })
    }
}

/// The key of a number: `1`, `1.0` and `1.00` are one key.
fn number(text: &str) -> Key {
    let trimmed = match text.contains(['.', 'e', 'E']) {
        true if !text.contains(['e', 'E']) => text.trim_end_matches('0').trim_end_matches('.'),
        _ => text,
    };
    match trimmed.parse::<i64>() {
        Ok(value) => Key::Int(value),
        Err(_) => Key::Bytes(trimmed.as_bytes().into()),
    }
}
