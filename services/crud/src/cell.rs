//! One value of a row as the driver holds it, and how it is written: the only place where rows become JSON.

use std::borrow::Cow;

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
    /// Integers of any width.
    Int(i64),
    /// Everything else, in its canonical form.
    Bytes(Box<[u8]>),
}
