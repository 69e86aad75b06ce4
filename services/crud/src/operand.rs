//! Values of conditions and rows, as the columns of the schema that is in force take them.

use std::borrow::Cow;

use query::{Column, Error as Unfit, Type, Typed, Value};

use crate::{Error, decimal};

/// A value of a condition, on its way to the column that it is compared with.
pub trait Operand: Sized {
    /// The value as the column can be compared with it.
    fn compared_with(&self, column: &Column) -> Result<Cow<'_, Typed>, Unfit>;

    /// All of `values`, as the column can be compared with them.
    fn all_compared_with<'v>(values: &'v [Self], column: &Column) -> Result<Cow<'v, [Typed]>, Unfit>;
}

/// Of a rule, which knows no schema: it is typed here.
impl Operand for Value {
    fn compared_with(&self, column: &Column) -> Result<Cow<'_, Typed>, Unfit> {
        query::comparable(column, self).map(Cow::Owned)
    }

    fn all_compared_with<'v>(values: &'v [Self], column: &Column) -> Result<Cow<'v, [Typed]>, Unfit> {
        values.iter().map(|value| query::comparable(column, value)).collect()
    }
}

/// Of a caller: typed when it was planned, and borrowed unless the schema has moved since.
impl Operand for Typed {
    fn compared_with(&self, column: &Column) -> Result<Cow<'_, Typed>, Unfit> {
        match is_comparable(self, column) {
            true => Ok(Cow::Borrowed(self)),
            false => query::comparable(column, &self.to_value()).map(Cow::Owned),
        }
    }

    fn all_compared_with<'v>(values: &'v [Self], column: &Column) -> Result<Cow<'v, [Typed]>, Unfit> {
        match values.iter().all(|value| is_comparable(value, column)) {
            true => Ok(Cow::Borrowed(values)),
            false => values.iter().map(|value| query::comparable(column, &value.to_value())).collect(),
        }
    }
}

fn is_comparable(value: &Typed, column: &Column) -> bool {
    column.r#type != Type::Json && *value != Typed::Null && value.is_of(column)
}

/// The value as the column stores it.
pub fn stored<'v>(column: &Column, value: &'v Typed) -> Result<Cow<'v, Typed>, Error> {
    let value = match value.is_of(column) {
        true => Cow::Borrowed(value),
        false => Cow::Owned(query::typed(column, &value.to_value())?),
    };
    match &*value {
        Typed::Decimal(text) => match decimal::stored(column, text)? {
            Cow::Borrowed(_) => Ok(value),
            Cow::Owned(rounded) => Ok(Cow::Owned(Typed::Decimal(rounded))),
        },
        _ => Ok(value),
    }
}
