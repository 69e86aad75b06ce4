//! Variables of a request, checked against their declarations.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_graphql_parser::types::{BaseType, OperationDefinition, Type};
use mesh::{Code, Fault};
use query::{Error, Object, Value};

use super::{
    refusal::{Refusal, Result},
    value::constant,
};
use crate::graphql::document::Document;

/// Bytes of memory that copies of variables may take, if the variables themselves do not take more.
const COPIES_BYTES: usize = 32 << 20;

/// Variables of an operation.
#[derive(Debug, Default)]
pub struct Variables<'a> {
    /// Values of those that it declares, by name, sorted by it; `None` for those that are absent.
    values: Vec<(&'a str, Option<Value>)>,
    /// Bytes of memory that copies take: a document may name a large value in many places.
    copied: AtomicUsize,
}

impl<'a> Variables<'a> {
    /// The variables of `operation` out of what was sent: defaults where a value is missing, an error where it does not
    /// fit its type. Values that nobody declared are ignored, as the specification says.
    pub fn new(document: &Document, operation: &'a OperationDefinition, sent: Object) -> Result<Self> {
        let definitions = &operation.variable_definitions;
        let mut variables = Vec::with_capacity(definitions.len());
        if definitions.is_empty() {
            return Ok(Self::default());
        }
        let Object(mut sent) = sent;
        sent.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        for definition in definitions {
            let name = definition.node.name.node.as_str();
            let r#type = &definition.node.var_type.node;
            let found = sent.binary_search_by(|(sent, _)| sent.as_str().cmp(name)).ok();
            let found = found.map(|index| std::mem::replace(&mut sent[index].1, Value::Null));
            let value = match (found, &definition.node.default_value) {
                (Some(value), _) => Some(value),
                (None, Some(default)) => Some(constant(document, &default.node)?),
                (None, None) => None,
            };
            let checked = match value {
                Some(value) => coerce(name, r#type, value).map(Some),
                None if r#type.nullable => Ok(None),
                None => Err(required(name, r#type)),
            };
            let checked = checked.map_err(|error| Refusal::new(error).at(definition.pos))?;
            variables.push((name, checked));
        }
        variables.sort_by_key(|(name, _)| *name);
        match variables.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            None => Ok(Self { values: variables, copied: AtomicUsize::new(0) }),
            Some(pair) => {
                let name = pair[0].0;
                let refusal = Refusal::malformed(format!("variable ${name} is declared twice"));
                let last = definitions.iter().rfind(|definition| definition.node.name.node == name);
                Err(match last {
                    Some(definition) => refusal.at(definition.pos),
                    None => refusal,
                })
            }
        }
    }

    /// Whether none is declared.
    pub fn are_none(&self) -> bool {
        self.values.is_empty()
    }

    /// The value of a variable: `Ok(None)` where it is declared but absent.
    pub fn value(&self, name: &str) -> std::result::Result<Option<&Value>, Error> {
        match self.values.binary_search_by(|(declared, _)| (*declared).cmp(name)) {
            Ok(index) => Ok(self.values[index].1.as_ref()),
            Err(_) => Err(Error::Malformed(format!("variable ${name} is not declared"))),
        }
    }

    /// A copy of the value of a variable, likewise. Errors: `TOO_LARGE` where copies take too much memory.
    pub fn copied(&self, name: &str) -> Result<Option<Value>> {
        let Some(value) = self.value(name).map_err(Refusal::new)? else { return Ok(None) };
        let bytes = value.memory_bytes();
        let copied = self.copied.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if copied > COPIES_BYTES {
            let own: usize = self.values.iter().filter_map(|(_, value)| value.as_ref()).map(Value::memory_bytes).sum();
            let limit = own.max(COPIES_BYTES);
            if copied > limit {
                let text = format!("variables are over the limit of {limit} bytes where the document has them");
                return Err(Refusal::new(Fault::new(Code::TooLarge, text)));
            }
        }
        Ok(Some(value.clone()))
    }

    /// Begins to count copies anew, for another plan.
    pub fn begin(&self) {
        self.copied.store(0, Ordering::Relaxed);
    }
}

fn required(name: &str, r#type: &Type) -> Error {
    Error::Required(format!("variable ${name} of type {type}"))
}

/// `value` as an input of `type`. Types that the specification does not name are checked where their value meets a
/// column.
fn coerce(name: &str, r#type: &Type, value: Value) -> std::result::Result<Value, Error> {
    if value == Value::Null {
        return if r#type.nullable { Ok(value) } else { Err(required(name, r#type)) };
    }
    match &r#type.base {
        BaseType::List(item) => match value {
            Value::List(items) => {
                let items: std::result::Result<_, _> =
                    items.into_iter().map(|value| coerce(name, item, value)).collect();
                Ok(Value::List(items?))
            }
            single => Ok(Value::List(vec![coerce(name, item, single)?])),
        },
        BaseType::Named(named) => coerce_named(name, named, value),
    }
}

fn coerce_named(name: &str, named: &str, value: Value) -> std::result::Result<Value, Error> {
    let fits = match (named, &value) {
        ("Int", Value::Int(_)) | ("Float", Value::Int(_) | Value::Number(_)) => true,
        // Beyond 64 bits: the column says what it can hold.
        ("Int", Value::Number(number)) => number.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit()),
        ("String", Value::Text(_)) | ("Boolean", Value::Bool(_)) => true,
        ("ID", Value::Text(_) | Value::Int(_)) => true,
        ("Int" | "Float" | "String" | "Boolean" | "ID", _) => false,
        _ => true,
    };
    if fits {
        return Ok(value);
    }
    Err(Error::WrongType {
        name: format!("variable ${name}"),
        expected: named.to_owned(),
        found: value.kind().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graphql::refusal::Cause;

    fn variables(text: &str, sent: &[(&str, Value)]) -> std::result::Result<Vec<Option<Value>>, String> {
        let document = Document::parse(text, query::Guard::default()).unwrap();
        let operation = document.operation(None).unwrap();
        let sent = Object(sent.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect());
        match Variables::new(&document, &operation.node, sent) {
            Ok(variables) => {
                let names = operation.node.variable_definitions.iter().map(|definition| &definition.node.name.node);
                Ok(names.map(|name| variables.value(name).unwrap().cloned()).collect())
            }
            Err(refusal) => match refusal.cause {
                Cause::Model(error) => Err(error.to_string()),
                Cause::Fault(fault) => Err(fault.message),
            },
        }
    }

    #[test]
    fn a_missing_required_variable_is_refused() {
        let text = "query($id: ID!) { __typename }";

        assert_eq!(variables(text, &[]), Err("variable $id of type ID! is required".to_owned()));
        assert_eq!(variables(text, &[("id", Value::Null)]), Err("variable $id of type ID! is required".to_owned()));
        assert_eq!(variables(text, &[("id", Value::Int(1))]), Ok(vec![Some(Value::Int(1))]));
    }

    #[test]
    fn a_default_stands_in_for_what_is_absent_but_not_for_null() {
        let text = "query($x: Int = 3, $y: Int) { __typename }";

        assert_eq!(variables(text, &[]), Ok(vec![Some(Value::Int(3)), None]));
        assert_eq!(variables(text, &[("x", Value::Null)]), Ok(vec![Some(Value::Null), None]));
    }

    #[test]
    fn values_must_fit_their_declared_types() {
        let wrong = [
            ("Int", Value::Text("2".to_owned())),
            ("Int", Value::Number("2.9".to_owned())),
            ("String", Value::Int(2)),
            ("Boolean", Value::Int(1)),
            ("[Int!]", Value::List(vec![Value::Null])),
            ("Float", Value::Bool(true)),
        ];

        for (r#type, value) in wrong {
            assert!(variables(&format!("query($x: {type}) {{ a }}"), &[("x", value)]).is_err(), "{type}");
        }
    }

    #[test]
    fn a_variable_is_declared_once() {
        let twice = variables("query($x: Int, $x: Int) { a }", &[("x", Value::Int(1))]);

        assert_eq!(twice, Err("variable $x is declared twice".to_owned()));
    }

    #[test]
    fn a_single_value_becomes_a_list_of_one() {
        assert_eq!(
            variables("query($x: [Int!]) { a }", &[("x", Value::Int(1))]),
            Ok(vec![Some(Value::List(vec![Value::Int(1)]))])
        );
    }

    #[test]
    fn types_of_the_schema_take_any_value() {
        let filter = Value::Object(Object(vec![("title".to_owned(), Value::Text("x".to_owned()))]));

        assert!(variables("query($x: AlbumFilter!) { a }", &[("x", filter)]).is_ok());
    }
}
