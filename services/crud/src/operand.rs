//! Values of conditions and rows, as the columns of the schema that is in force take them.

use std::borrow::Cow;

use query::{Column, Comparisons, Error as Unfit, Typed, Value};

use crate::{Error, bind::Bind, decimal};

/// A value of a condition, on its way to the column that it is compared with.
pub trait Operand: Sized {
    /// The value as the column can be compared with it.
    fn compared_with(&self, column: &Column) -> Result<Cow<'_, Typed>, Unfit>;

    /// All of `values`, as the column can be compared with them.
    fn all_compared_with<'v>(values: &'v [Self], column: &Column) -> Result<Cow<'v, [Typed]>, Unfit>;

    /// It as a value of the request.
    fn one(value: &Self) -> RequestValue<'_>;

    /// A list of them as a value of the request.
    fn many(values: &[Self]) -> RequestValue<'_>;
}

/// A value, or a list of values, in a condition of a request or of its grants.
#[derive(Debug, Clone, Copy)]
pub enum RequestValue<'r> {
    /// Of a caller.
    One(&'r Typed),
    /// A list of a caller.
    Many(&'r [Typed]),
    /// Of a rule.
    RuleOne(&'r Value),
    /// A list of a rule.
    RuleMany(&'r [Value]),
    /// Of a document, which is stored.
    Stored(&'r Typed),
}

impl RequestValue<'_> {
    /// Its address, by which it is found again.
    pub fn address(&self) -> usize {
        match self {
            RequestValue::One(value) | RequestValue::Stored(value) => std::ptr::from_ref(*value).addr(),
            RequestValue::Many(values) => values.as_ptr().addr(),
            RequestValue::RuleOne(value) => std::ptr::from_ref(*value).addr(),
            RequestValue::RuleMany(values) => values.as_ptr().addr(),
        }
    }

    /// The argument of a statement that compares `column` with it, or stores it there.
    pub fn bind(&self, column: &Column) -> Result<Bind, Error> {
        Ok(match self {
            RequestValue::One(value) => Bind::Value(value.compared_with(column)?.into_owned()),
            RequestValue::RuleOne(value) => Bind::Value(value.compared_with(column)?.into_owned()),
            RequestValue::Many(values) => Bind::List(Typed::all_compared_with(values, column)?.into_owned()),
            RequestValue::RuleMany(values) => Bind::List(Value::all_compared_with(values, column)?.into_owned()),
            RequestValue::Stored(value) => Bind::Value(stored(column, value)?.into_owned()),
        })
    }
}

/// A value of a resolved condition, and the address of the request's value that it was made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Compared<V> {
    /// As the column can be compared with it.
    pub value: V,
    /// [`RequestValue::address`].
    pub address: usize,
}

/// Source of an argument of a statement.
#[derive(Debug, Clone, PartialEq)]
pub enum ArgSource {
    /// The same for all requests of the same shape.
    Constant,
    /// A value of the request, compared with the column.
    Request {
        /// [`RequestValue::address`].
        address: usize,
        /// The column.
        column: Column,
    },
    /// Anything else.
    Unknown,
}

/// Of a rule, which knows no schema: it is typed here.
impl Operand for Value {
    fn compared_with(&self, column: &Column) -> Result<Cow<'_, Typed>, Unfit> {
        query::comparable(column, self).map(Cow::Owned)
    }

    fn all_compared_with<'v>(values: &'v [Self], column: &Column) -> Result<Cow<'v, [Typed]>, Unfit> {
        values.iter().map(|value| query::comparable(column, value)).collect()
    }

    fn one(value: &Self) -> RequestValue<'_> {
        RequestValue::RuleOne(value)
    }

    fn many(values: &[Self]) -> RequestValue<'_> {
        RequestValue::RuleMany(values)
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

    fn one(value: &Self) -> RequestValue<'_> {
        RequestValue::One(value)
    }

    fn many(values: &[Self]) -> RequestValue<'_> {
        RequestValue::Many(values)
    }
}

fn is_comparable(value: &Typed, column: &Column) -> bool {
    column.comparisons() != Comparisons::None && *value != Typed::Null && value.is_of(column)
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

#[cfg(test)]
mod tests {
    use query::Type;

    use super::*;

    fn column(r#type: Type) -> Column {
        Column { nullable: true, ..Column::new("c", r#type, "integer") }
    }

    #[test]
    fn a_value_that_was_typed_for_its_column_is_borrowed() {
        let (int, json) = (column(Type::Int32), column(Type::Json));
        assert!(matches!(Typed::Int(5).compared_with(&int), Ok(Cow::Borrowed(Typed::Int(5)))));
        // The type of the column is another than when it was typed.
        let text = Typed::Text("5".to_owned());
        assert!(matches!(text.compared_with(&int), Ok(Cow::Owned(Typed::Int(5)))));
        assert!(Typed::Text("x".to_owned()).compared_with(&int).is_err());
        assert!(Typed::Null.compared_with(&int).is_err());
        assert!(Typed::Json("5".to_owned()).compared_with(&json).is_err());

        let all = |values: &[Typed]| Typed::all_compared_with(values, &int).map(Cow::into_owned);
        assert!(matches!(Typed::all_compared_with(&[Typed::Int(5)], &int), Ok(Cow::Borrowed(_))));
        assert_eq!(all(&[Typed::Int(5), text]), Ok(vec![Typed::Int(5), Typed::Int(5)]));
        assert!(all(&[Typed::Int(5), Typed::Null]).is_err());
    }
}
