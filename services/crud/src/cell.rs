//! Values of rows, borrowed from the driver, and the keys that join the levels of a tree.

use std::borrow::Cow;

use query::{Type, Typed};

/// A value of a row, borrowed from the driver's bytes.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell<'a> {
    /// SQL NULL.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A double; `NaN` and infinities are written as strings.
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
    /// A list of values, of nulls, and of lists.
    List(Vec<Cell<'a>>),
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

/// Form of a value as a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyForm {
    /// Keys are the same where the database takes the values for equal, in columns whose keys join exactly.
    Equal,
    /// Keys are the same where the values are stored in the same form.
    Identical,
}

/// The text in `bytes`, with what is no UTF-8 replaced.
///
/// Nearly all texts are, which is seen faster than where one is not.
pub fn text(bytes: &[u8]) -> Cow<'_, str> {
    match str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(bytes),
    }
}

impl Key {
    /// The key of bytes of a kind of its own.
    pub fn tagged(tag: u8, bytes: &[u8]) -> Self {
        Key::Bytes([&[tag], bytes].concat().into())
    }
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
            // Alike in all parts: their database compares lists for equality.
            Cell::List(items) => Key::Bytes(format!("{items:?}").into_bytes().into()),
        })
    }

    /// The text, of a text.
    pub fn text(&self) -> Option<String> {
        match self {
            Cell::Text(text) => Some(text.as_ref().to_owned()),
            _ => None,
        }
    }

    /// The value as one of a column of `type`; `None` for NULL.
    pub fn typed(&self, r#type: Type) -> Option<Typed> {
        Some(match self {
            Cell::Null => return None,
            Cell::Bool(value) => Typed::Bool(*value),
            Cell::Int(value) => match r#type {
                Type::Decimal => Typed::Decimal(value.to_string()),
                Type::Bool => Typed::Bool(*value != 0),
                Type::Text => Typed::Text(value.to_string()),
                Type::Other | Type::Address => Typed::Other(value.to_string()),
                Type::Int16
                | Type::Int32
                | Type::Int64
                | Type::Float
                | Type::Bytes
                | Type::Date
                | Type::Time
                | Type::Timestamp
                | Type::Uuid
                | Type::Json
                | Type::Any
                | Type::List(_) => Typed::Int(*value),
            },
            Cell::Float(value) => Typed::Float(*value),
            Cell::Decimal(text) => Typed::Decimal(text.as_ref().to_owned()),
            Cell::Text(text) => match r#type {
                Type::Other | Type::Address => Typed::Other(text.as_ref().to_owned()),
                _ => Typed::Text(text.as_ref().to_owned()),
            },
            Cell::Bytes(bytes) => Typed::Bytes(bytes.to_vec()),
            Cell::Date(days) => Typed::Date(*days),
            Cell::Time(micros) => Typed::Time(*micros),
            Cell::Timestamp(micros) => Typed::Timestamp(*micros),
            Cell::Uuid(bytes) => Typed::Uuid(*bytes),
            Cell::Json(bytes) => Typed::Json(String::from_utf8_lossy(bytes).into_owned()),
            Cell::List(items) => {
                Typed::List(items.iter().map(|item| item.typed(r#type.item()).unwrap_or(Typed::Null)).collect())
            }
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
