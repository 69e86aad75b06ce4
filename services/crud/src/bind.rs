//! Bind parameters: the values of a statement's placeholders.

use query::Type;

/// A bind parameter: a value for a placeholder.
///
/// It is already checked against its column's type: drivers convert, they do not judge.
#[derive(Debug, Clone, PartialEq)]
pub enum Bind {
    /// NULL of that type.
    Null(Type),
    /// For `bool` columns.
    Bool(bool),
    /// For integer columns and limits; the type says how wide.
    Int(Type, i64),
    /// For `float` columns.
    Float(f64),
    /// For `decimal` columns: plain or exponent decimal text.
    Decimal(String),
    /// For `text` columns.
    Text(String),
    /// For `bytes` columns.
    Bytes(Vec<u8>),
    /// For `date` columns: `2009-01-31`.
    Date(String),
    /// For `time` columns: `13:14:15.5`.
    Time(String),
    /// For `timestamp` columns: microseconds since 1970-01-01T00:00:00Z.
    Timestamp(i64),
    /// For `uuid` columns: lower case, with hyphens.
    Uuid(String),
    /// For `json` columns: JSON text.
    Json(String),
    /// For all other columns: the database's text form.
    Other(String),
    /// A list of one type, for `= ANY($1)` and `IN (SELECT value FROM json_each(?))`.
    List(Type, Vec<Bind>),
}
