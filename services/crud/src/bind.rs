//! Bind parameters: the values of a statement's placeholders.

use query::Typed;

/// A bind parameter: what stands for a placeholder.
///
/// Its values are of their column's type already: drivers convert, they do not judge.
#[derive(Debug, Clone, PartialEq)]
pub enum Bind {
    /// A value.
    Value(Typed),
    /// Values of one type, for `= ANY($1)` and `IN (SELECT value FROM json_each(?))`.
    List(Vec<Typed>),
    /// No greater than any array of PostgreSQL that has the same values, whatever their subscripts are.
    LeastArray(Vec<Typed>),
    /// No less than any array of PostgreSQL that has the same values, whatever their subscripts are.
    GreatestArray(Vec<Typed>),
    /// A value that SQLite had stored, as it was.
    Stored(Stored),
}

/// A value in a storage class of SQLite.
#[derive(Debug, Clone, PartialEq)]
pub enum Stored {
    /// An integer.
    Int(i64),
    /// A double.
    Real(f64),
    /// Text, which may be no UTF-8.
    Text(Vec<u8>),
    /// Bytes.
    Blob(Vec<u8>),
}

impl Bind {
    /// Whether a request that gives `given` makes a statement that has this parameter.
    pub fn is_made_of(&self, given: &Bind) -> bool {
        match (self, given) {
            (Bind::LeastArray(items) | Bind::GreatestArray(items), Bind::Value(Typed::List(given))) => items == given,
            _ => self == given,
        }
    }
}

impl From<Stored> for Bind {
    fn from(value: Stored) -> Self {
        Bind::Stored(value)
    }
}

impl From<Typed> for Bind {
    fn from(value: Typed) -> Self {
        Bind::Value(value)
    }
}
