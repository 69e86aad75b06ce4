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
}

impl From<Typed> for Bind {
    fn from(value: Typed) -> Self {
        Bind::Value(value)
    }
}
