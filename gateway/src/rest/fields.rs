//! Lenient access to the fields of a JSON body: old clients differ in case and send unused fields.

use std::borrow::Cow;

use mesh::Fault;
use query::{Object, Value};

use crate::error;

/// Members of an object. They go by their name, or by the name in another case where that does not stand there; null is
/// as good as absent; those that nobody asks for are ignored, since old clients send some.
#[derive(Debug, Default)]
pub struct Fields {
    members: Vec<(String, Value)>,
    /// Path of the object, for messages: empty, or `options`.
    inside: Cow<'static, str>,
}

impl Fields {
    /// The fields of a body.
    pub fn new(object: Object) -> Self {
        Self { members: object.0, inside: Cow::Borrowed("") }
    }

    /// The fields of an object inside the body, which messages call `name`.
    pub fn inside(name: impl Into<Cow<'static, str>>, object: Object) -> Self {
        Self { members: object.0, inside: name.into() }
    }

    /// Takes the value of the field called `name`.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        let exact = self.members.iter().position(|(key, _)| key == name);
        let place = exact.or_else(|| self.members.iter().position(|(key, _)| key.eq_ignore_ascii_case(name)))?;
        let (_, value) = self.members.swap_remove(place);
        Some(value).filter(|value| *value != Value::Null)
    }

    /// The field as a string.
    pub fn text(&mut self, name: &str) -> Result<Option<String>, Fault> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong_type(name, "string", &other)),
        }
    }

    /// The field as an object.
    pub fn object(&mut self, name: &str) -> Result<Option<Object>, Fault> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(object)),
            Some(other) => Err(self.wrong_type(name, "object", &other)),
        }
    }

    /// The field as an array.
    pub fn list(&mut self, name: &str) -> Result<Option<Vec<Value>>, Fault> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::List(items)) => Ok(Some(items)),
            Some(other) => Err(self.wrong_type(name, "array", &other)),
        }
    }

    /// Rejects an unsupported field, unless it is null or an empty list, object or text.
    pub fn reject_unsupported(&mut self, name: &str) -> Result<(), Fault> {
        match self.take(name) {
            Some(value) if !is_empty(&value) => {
                Err(error::bad_request(format!("{} is not supported by this version", self.name(name))))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The fault of a field of the wrong type.
    pub fn wrong_type(&self, name: &str, expected: &str, found: &Value) -> Fault {
        error::bad_request(format!("invalid {}: expected {expected}, found {}", self.name(name), found.kind()))
    }

    /// The full name of the field `name`, for messages.
    pub fn name(&self, name: &str) -> String {
        match self.inside.is_empty() {
            true => name.to_owned(),
            false => format!("{}.{name}", self.inside),
        }
    }
}

/// Whether it is a list, object or text with nothing in it.
pub fn is_empty(value: &Value) -> bool {
    match value {
        Value::Text(text) => text.is_empty(),
        Value::List(items) => items.is_empty(),
        Value::Object(object) => object.0.is_empty(),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(members: &[(&str, Value)]) -> Fields {
        Fields::new(Object(members.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()))
    }

    #[test]
    fn the_exact_name_wins_over_another_case() {
        let mut both = fields(&[("OP", Value::Int(1)), ("op", Value::Int(2))]);
        assert_eq!(both.take("op"), Some(Value::Int(2)));
        assert_eq!(fields(&[("Op", Value::Int(1))]).take("op"), Some(Value::Int(1)));
    }

    #[test]
    fn null_is_absent() {
        assert_eq!(fields(&[("find", Value::Null)]).object("find"), Ok(None));
        assert_eq!(fields(&[("group", Value::Null)]).reject_unsupported("group"), Ok(()));
    }

    #[test]
    fn a_wrong_type_names_the_field() {
        let fault = fields(&[("find", Value::List(Vec::new()))]).object("find").unwrap_err();
        assert_eq!(fault.message, "invalid find: expected object, found array");
        let inside = Object(vec![("join".to_owned(), Value::Bool(true))]);
        let fault = Fields::inside("options", inside).reject_unsupported("join").unwrap_err();
        assert_eq!(fault.message, "options.join is not supported by this version");
    }
}
