//! Lists: the arrays of PostgreSQL.

use std::cmp::Ordering;

use super::{Typed, typed as one, wrong_type};
use crate::{Column, Error, Type, Value};

/// Dimensions that an array of PostgreSQL may have. Source: `MAXDIM` in PostgreSQL's `c.h`.
const DIMENSIONS_MAX: usize = 6;

/// `value` as a list column whose values are of type `item`.
///
/// A list within a list of JSON is JSON; within any other it is a dimension.
pub fn typed(column: &Column, item: Type, value: &Value) -> Result<Typed, Error> {
    let Value::List(values) = value else {
        return Err(wrong_type(column, value));
    };
    let items = typed_items(&Column { r#type: item, ..column.clone() }, values, 1)?;
    match shape(&items) {
        Some(_) => Ok(Typed::List(items)),
        None => Err(misshapen(column, "arrays of different lengths, or empty ones, within an array")),
    }
}

/// The values of an array that is the dimension `depth` of its column.
fn typed_items(column: &Column, values: &[Value], depth: usize) -> Result<Vec<Typed>, Error> {
    let item = |value: &Value| match value {
        Value::Null => Ok(Typed::Null),
        Value::List(values) if column.r#type != Type::Json => {
            if depth == DIMENSIONS_MAX {
                return Err(misshapen(column, "more dimensions"));
            }
            typed_items(column, values, depth + 1).map(Typed::List)
        }
        value => one(column, value),
    };
    values.iter().map(item).collect()
}

/// The length of a list in each of its dimensions; `None` where the lists within it are of several shapes, or empty.
pub fn shape(items: &[Typed]) -> Option<Vec<usize>> {
    let mut shapes = items.iter().map(|item| match item {
        Typed::List(items) if items.is_empty() => None,
        Typed::List(items) => shape(items),
        _ => Some(Vec::new()),
    });
    let mut below = shapes.next().unwrap_or_else(|| Some(Vec::new()))?;
    if !shapes.all(|shape| shape.as_ref() == Some(&below)) {
        return None;
    }
    below.insert(0, items.len());
    Some(below)
}

/// How two lists compare: value by value, nulls last, then by their numbers of values, of dimensions, and their lengths.
/// Source: `array_cmp` in PostgreSQL's `arrayfuncs.c`.
pub fn compare(one: &[Typed], other: &[Typed]) -> Option<Ordering> {
    let (mut values, mut others) = (Vec::new(), Vec::new());
    flatten(one, &mut values);
    flatten(other, &mut others);
    for pair in values.iter().zip(&others) {
        let order = match pair {
            (Typed::Null, Typed::Null) => Ordering::Equal,
            (Typed::Null, _) => Ordering::Greater,
            (_, Typed::Null) => Ordering::Less,
            (one, other) => one.compare(other)?,
        };
        if order.is_ne() {
            return Some(order);
        }
    }
    let (shape, other_shape) = (shape(one)?, shape(other)?);
    Some(values.len().cmp(&others.len()).then(shape.len().cmp(&other_shape.len())).then(shape.cmp(&other_shape)))
}

fn flatten<'v>(items: &'v [Typed], out: &mut Vec<&'v Typed>) {
    for item in items {
        match item {
            Typed::List(items) => flatten(items, out),
            item => out.push(item),
        }
    }
}

fn misshapen(column: &Column, found: &str) -> Error {
    Error::WrongType {
        name: column.name.clone(),
        expected: format!("array of at most {DIMENSIONS_MAX} dimensions whose arrays are of one length"),
        found: found.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Abilities;

    fn column(item: Type) -> Column {
        let abilities = Abilities { wide_times: true, ..Abilities::default() };
        Column { nullable: true, abilities, ..Column::new("tags", item.listed().unwrap(), "list") }
    }

    fn list(item: Type, json: &str) -> Result<Typed, Error> {
        super::one(&column(item), &Value::from(&serde_json::from_str::<serde_json::Value>(json).unwrap()))
    }

    #[test]
    fn values_of_lists_have_the_form_of_their_type() {
        for (item, json) in [
            (Type::Int32, "[1,null,3]"),
            (Type::Int32, "[[1,2],[3,4]]"),
            (Type::Text, "[]"),
            (Type::Text, "[\"a\",null,\"NULL\"]"),
            (Type::Bool, "[[[true]],[[false]]]"),
            (Type::Int32, "[[[[[[1]]]]]]"),
            (Type::Timestamp, "[\"2020-01-01T08:00:00Z\",\"infinity\"]"),
            (Type::Float, "[\"NaN\",0.5]"),
            (Type::Bytes, "[\"AP8=\"]"),
        ] {
            let mut out = Vec::new();
            list(item, json).unwrap().to_value().write_json(&mut out);
            assert_eq!(String::from_utf8(out).unwrap(), json);
        }
        let json = list(Type::Json, "[[1,2],[3],null,{\"a\":[]}]").unwrap();
        let parts = ["[1,2]", "[3]"].map(|text| Typed::Json(text.to_owned()));
        let parts = [&parts[..], &[Typed::Null, Typed::Json("{\"a\":[]}".to_owned())]].concat();
        assert_eq!(json, Typed::List(parts));
    }

    #[test]
    fn what_is_no_list_of_the_type_is_refused_by_the_name_of_its_column() {
        for (item, json) in [
            (Type::Int32, "1"),
            (Type::Int32, "\"{1,2}\""),
            (Type::Int32, "[\"x\"]"),
            (Type::Int32, "[[1,2],[3]]"),
            (Type::Int32, "[[1],2]"),
            (Type::Int32, "[[1],null]"),
            (Type::Int32, "[[]]"),
            (Type::Int32, "[[[[[[[1]]]]]]]"),
            (Type::Text, "{}"),
        ] {
            match list(item, json) {
                Err(Error::WrongType { name, .. }) => assert_eq!(name, "tags"),
                other => panic!("{json}: {other:?}"),
            }
        }
        let Err(Error::OutOfRange { name, .. }) = list(Type::Int16, "[70000]") else { panic!("a value out of range") };
        assert_eq!(name, "tags");
    }

    #[test]
    fn lists_compare_as_in_the_database() {
        let in_order =
            ["[]", "[1]", "[1,1]", "[1,1,1,1]", "[[1,1],[1,1]]", "[1,1,1,1,1]", "[1,2]", "[1,null]", "[2]", "[null]"];
        let lists: Vec<Typed> = in_order.iter().map(|json| list(Type::Int32, json).unwrap()).collect();
        for (place, one) in lists.iter().enumerate() {
            for (other_place, other) in lists.iter().enumerate() {
                assert_eq!(one.compare(other), Some(place.cmp(&other_place)), "{one:?} {other:?}");
            }
        }
    }
}
