//! Values of a document as values of the model.

use async_graphql_value::{ConstValue, Number, Value as AstValue};
use query::{Object, Value};

use super::{
    document::Document,
    names::{Field, Names},
    refusal::{Refusal, Result},
    variables::Variables,
};

/// Meaning of enum values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnumValues {
    /// Text.
    Text,
    /// Text in which `__` is a dot, as in conditions.
    Path,
}

/// A value in which variables have been put in; `None` for a variable that is declared but absent.
pub fn value(
    document: &Document,
    variables: &Variables<'_>,
    enums: EnumValues,
    written: &AstValue,
) -> Result<Option<Value>> {
    Ok(Some(match written {
        AstValue::Variable(name) => return variables.copied(name),
        AstValue::Null => Value::Null,
        AstValue::Number(number) => self::number(number),
        AstValue::String(text) => Value::Text(checked(text)?),
        AstValue::Boolean(bool) => Value::Bool(*bool),
        AstValue::Enum(word) => self::word(document, enums, word),
        AstValue::List(items) => {
            let mut list = Vec::with_capacity(items.len());
            for item in items {
                list.push(value(document, variables, enums, item)?.unwrap_or(Value::Null));
            }
            Value::List(list)
        }
        AstValue::Object(members) => {
            let mut object = Vec::with_capacity(members.len());
            for (name, member) in members {
                // A member whose variable is absent is absent itself.
                if let Some(member) = value(document, variables, enums, member)? {
                    object.push((name.as_str().to_owned(), member));
                }
            }
            Value::Object(Object(object))
        }
        AstValue::Binary(_) => return Err(Refusal::malformed("invalid bytes: expected base64 string")),
    }))
}

/// Whether a variable stands in a value.
pub fn has_variables(written: &AstValue) -> bool {
    match written {
        AstValue::Variable(_) => true,
        AstValue::List(items) => items.iter().any(has_variables),
        AstValue::Object(members) => members.values().any(has_variables),
        AstValue::Null
        | AstValue::Number(_)
        | AstValue::String(_)
        | AstValue::Boolean(_)
        | AstValue::Enum(_)
        | AstValue::Binary(_) => false,
    }
}

/// Approximate memory of what is planned of a value, in bytes; variables count for their names.
pub fn memory(document: &Document, written: &AstValue) -> usize {
    /// Of a condition or a typed value, besides its texts.
    const BYTES: usize = 100;
    BYTES
        + match written {
            AstValue::Null | AstValue::Boolean(_) | AstValue::Number(_) => 0,
            AstValue::Variable(name) => name.len(),
            // A number that the tree cannot hold stands in it as a short word.
            AstValue::Enum(word) => document.numbers.get(word.as_str()).map_or(word.len(), String::len),
            AstValue::String(text) => text.len(),
            AstValue::Binary(bytes) => bytes.len(),
            AstValue::List(items) => items.iter().map(|item| memory(document, item)).sum(),
            AstValue::Object(members) => members.iter().map(|(name, value)| name.len() + memory(document, value)).sum(),
        }
}

/// A value without variables.
pub fn constant(document: &Document, written: &ConstValue) -> Result<Value> {
    let value = value(document, &Variables::default(), EnumValues::Text, &written.clone().into_value())?;
    Ok(value.expect("only variables can be absent"))
}

fn number(number: &Number) -> Value {
    match number.as_i64() {
        Some(int) => Value::Int(int),
        None => Value::Number(number.to_string()),
    }
}

fn checked(text: &str) -> Result<String> {
    if text.contains('\0') {
        return Err(Refusal::malformed("a NUL character is not allowed in a string"));
    }
    Ok(text.to_owned())
}

fn word(document: &Document, enums: EnumValues, word: &str) -> Value {
    if let Some(number) = document.numbers.get(word) {
        return Value::Number(number.clone());
    }
    Value::Text(match enums {
        EnumValues::Text => word.to_owned(),
        EnumValues::Path => word.replace("__", "."),
    })
}

/// A condition on rows of the table at an index, with the database's names for those of GraphQL.
pub fn stored_condition(names: &Names, table: usize, condition: Value) -> Value {
    let Value::Object(Object(members)) = condition else { return condition };
    let members = members.into_iter().map(|(key, value)| stored_member(names, table, key, value));
    Value::Object(Object(members.collect()))
}

fn stored_member(names: &Names, table: usize, key: String, value: Value) -> (String, Value) {
    if is_connective(&key) {
        let value = match value {
            Value::List(items) => {
                Value::List(items.into_iter().map(|item| stored_condition(names, table, item)).collect())
            }
            single => stored_condition(names, table, single),
        };
        return (key, value);
    }
    let stored = names.stored(table);
    let is_stored = stored.columns.iter().any(|column| column.name == key);
    let field = names.table(table).field(&key);
    match field {
        Some(Field::Relation(index, to)) => {
            let name = stored.relations[index].name.clone();
            (name, stored_relation(names, to, value))
        }
        _ if is_stored => (key, value),
        Some(Field::Column(column)) => (stored.columns[column].name.clone(), value),
        Some(Field::Aggregate(..)) | None => (key, value),
    }
}

/// A condition on related rows: of the other table, or behind a quantifier.
fn stored_relation(names: &Names, to: usize, condition: Value) -> Value {
    let Value::Object(Object(members)) = condition else { return condition };
    let members = members.into_iter().map(|(key, value)| match key.trim_start_matches(['_', '$']) {
        "some" | "none" | "every" if !names.table(to).fields.contains_key(&key) => {
            (key, stored_condition(names, to, value))
        }
        _ => stored_member(names, to, key, value),
    });
    Value::Object(Object(members.collect()))
}

/// `_or` and the like, which may be told apart by a suffix: `_or:1`.
fn is_connective(key: &str) -> bool {
    let key = key.split_once(':').map_or(key, |(connective, _)| connective);
    matches!(key, "_and" | "_or" | "_not" | "$and" | "$or" | "$not")
}

/// A document to write with the database's names for those of GraphQL.
pub fn stored_members(names: &Names, table: usize, document: Value) -> Value {
    let Value::Object(Object(members)) = document else { return document };
    let stored = names.stored(table);
    let members = members.into_iter().map(|(key, value)| {
        let is_stored = stored.columns.iter().any(|column| column.name == key);
        match names.table(table).fields.get(&key) {
            Some(Field::Column(column)) if !is_stored => (stored.columns[*column].name.clone(), value),
            Some(Field::Column(_) | Field::Relation(..) | Field::Aggregate(..)) | None => (key, value),
        }
    });
    Value::Object(Object(members.collect()))
}
