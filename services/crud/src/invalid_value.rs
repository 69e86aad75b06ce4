//! Values that a database does not take, as it says so.

use crate::bind::Bind;

/// A value that the database does not take.
#[derive(Debug, Clone, PartialEq)]
pub struct InvalidValue {
    /// What is wrong with it.
    pub kind: InvalidKind,
    /// The value, where the database says which it is.
    pub value: Option<Bind>,
    /// The column, where the database names it.
    pub column: Option<Box<str>>,
    /// What the database says, which names the type, and may quote the value.
    pub said: Box<str>,
    /// The same for the log, without values.
    pub cause: String,
}

/// What is wrong with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidKind {
    /// It does not have the form of the type.
    Malformed,
    /// A text has more characters than the column.
    TooLong,
    /// A number, or a sum, is outside the column's range.
    OutOfRange,
    /// A text has characters that the database does not store.
    Characters,
    /// The database has no such operator for the type.
    Incomparable,
    /// An expression of the database cannot be computed, as in a division by zero.
    Computation,
}
