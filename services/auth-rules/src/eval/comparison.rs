//! Typed comparison of values, with an undecided outcome where a value is missing or of another type.

use std::{borrow::Cow, cmp::Ordering};

use query::{Comparison, Value};

use crate::{
    context::RequestContext,
    operand::ListOperand,
    rule::{Test, Type},
};

/// Whether `value` passes the test; `None` where it, or what it is compared with, is missing or of another type.
pub fn truth(r#type: Type, value: &Value, test: &Test, request: &RequestContext<'_>) -> Option<bool> {
    match test {
        Test::Compare(comparison, operand) => compare(r#type, value, *comparison, &*request.value(operand)?),
        Test::In(list) => contains(r#type, value, list, request),
        Test::NotIn(list) => contains(r#type, value, list, request).map(|contains| !contains),
        Test::IsNull => Some(*value == Value::Null),
        Test::StartsWith(operand) => match (value, request.value(operand)?.as_ref()) {
            (Value::Text(text), Value::Text(prefix)) => Some(text.starts_with(prefix.as_str())),
            // Other types have no prefix.
            _ => None,
        },
        Test::Matches(regex) => match value {
            Value::Text(text) => Some(regex.is_match(text)),
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Number(_) | Value::List(_) | Value::Object(_) => None,
        },
    }
}

/// Whether the comparison holds between two values; `None` where one is not of the type.
pub fn compare(r#type: Type, left: &Value, comparison: Comparison, right: &Value) -> Option<bool> {
    ordering(r#type, left, right).map(|order| comparison.allows(order))
}

/// The value as a query parameter, numbers in their canonical form; `None` where it is not of the type.
pub fn parameter(r#type: Type, value: &Value) -> Option<Value> {
    match (r#type, value) {
        (Type::String, Value::Text(_)) | (Type::Bool, Value::Bool(_)) => Some(value.clone()),
        (Type::Number, Value::Int(_) | Value::Number(_)) => {
            value.compare_numbers(value)?;
            Some(value.canonical_number())
        }
        (Type::Date, Value::Text(text)) => query::datetime::order(text).map(|_| value.clone()),
        (Type::String | Type::Number | Type::Bool | Type::Date, _) => None,
    }
}

/// All values of a list as query parameters; `None` where one is missing or not of the type.
pub fn parameters(r#type: Type, list: &ListOperand, request: &RequestContext<'_>) -> Option<Vec<Value>> {
    match list {
        ListOperand::Items(items) => items.iter().map(|item| parameter(r#type, &*request.value(item)?)).collect(),
        ListOperand::Reference(operand) => match request.value(operand)? {
            Cow::Borrowed(Value::List(items)) => items.iter().map(|item| parameter(r#type, item)).collect(),
            Cow::Owned(Value::List(items)) => items.iter().map(|item| parameter(r#type, item)).collect(),
            Cow::Borrowed(_) | Cow::Owned(_) => None,
        },
    }
}

fn contains(r#type: Type, value: &Value, list: &ListOperand, request: &RequestContext<'_>) -> Option<bool> {
    let mut found = false;
    for item in parameters(r#type, list, request)? {
        found |= ordering(r#type, value, &item)? == Ordering::Equal;
    }
    // An empty list did not check the value's type.
    parameter(r#type, value).map(|_| found)
}

fn ordering(r#type: Type, left: &Value, right: &Value) -> Option<Ordering> {
    match (r#type, left, right) {
        (Type::String, Value::Text(left), Value::Text(right)) => Some(left.cmp(right)),
        (Type::Number, left, right) => left.compare_numbers(right),
        (Type::Bool, Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
        (Type::Date, Value::Text(left), Value::Text(right)) => {
            Some(query::datetime::order(left)?.cmp(&query::datetime::order(right)?))
        }
        (Type::String | Type::Bool | Type::Date, ..) => None,
    }
}
