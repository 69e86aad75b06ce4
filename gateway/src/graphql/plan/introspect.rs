//! Fields of introspection: their selection with fragments expanded and variables put in.

use std::fmt::Write;

use query::{Error, Value};

use super::{
    FieldSource, Planner,
    arguments::wrong_type,
    at_field,
    select::{FIELD_BYTES, Group, only_conditional_directives},
};
use crate::graphql::{
    refusal::{Refusal, Result},
    value::EnumValues,
};

/// Most fields of one document's introspection; the query of GraphiQL has about 150.
const MAX_FIELDS: usize = 1000;
/// Most levels of its fields; the query of GraphiQL has 15.
const MAX_DEPTH: usize = 24;

/// `__schema`, `__type`, or a field inside them.
#[derive(Debug, Clone, PartialEq)]
pub struct IntrospectionField {
    /// The response key; that of a root field stands elsewhere.
    pub key: String,
    /// The field's name.
    pub name: String,
    /// The value of its argument: the name of `__type`, whether a list has what is deprecated.
    pub argument: Option<Value>,
    /// What is selected of it.
    pub fields: Vec<IntrospectionField>,
}

impl IntrospectionField {
    /// Appends the field in a form that tells it from all others.
    pub fn write(&self, out: &mut String) {
        if self.key != self.name {
            out.extend([&self.key, ":"]);
        }
        out.push_str(&self.name);
        if let Some(argument) = &self.argument {
            write!(out, "({argument:?})").expect("memory takes what is written");
        }
        if !self.fields.is_empty() {
            out.push('{');
            for (index, field) in self.fields.iter().enumerate() {
                if index > 0 {
                    out.push(' ');
                }
                field.write(out);
            }
            out.push('}');
        }
    }
}

impl<'a> Planner<'a> {
    /// The field `__schema` or `__type` of `Query`.
    pub fn introspection_root(
        &mut self,
        group: &Group<'a>,
        introspected: &mut Vec<IntrospectionField>,
    ) -> Result<FieldSource> {
        let mut counted = introspected.iter().map(IntrospectionField::count).sum();
        let mut root = self.introspection(group, 1, &mut counted)?;
        root.key.clone_from(&root.name);
        introspected.push(root);
        Ok(FieldSource::Introspected(introspected.len() - 1))
    }

    fn introspection(&mut self, group: &Group<'a>, depth: usize, counted: &mut usize) -> Result<IntrospectionField> {
        only_conditional_directives(group)?;
        *counted += 1;
        at_most("fields of introspection", *counted, MAX_FIELDS)?;
        at_most("depth of introspection", depth, MAX_DEPTH)?;
        self.takes(FIELD_BYTES);
        let argument = self.introspection_argument(group)?;
        let mut fields = Vec::new();
        let sets = group.selections();
        if !sets.is_empty() {
            for (key, group) in self.collect(&sets)? {
                let field = self.introspection(&group, depth + 1, counted);
                let field = field.map_err(|refusal| at_field(refusal, key, &group))?;
                fields.push(IntrospectionField { key: key.to_owned(), ..field });
            }
        }
        Ok(IntrospectionField { key: String::new(), name: group.name().to_owned(), argument, fields })
    }

    /// The argument that a field of introspection may have.
    fn introspection_argument(&mut self, group: &Group<'a>) -> Result<Option<Value>> {
        let known = match group.name() {
            "__type" => Some("name"),
            "fields" | "inputFields" | "enumValues" | "args" => Some("includeDeprecated"),
            _ => None,
        };
        self.arguments(group.field, known.as_slice())?;
        let Some(name) = known else { return Ok(None) };
        let value = self.argument(group.field, name, EnumValues::Text)?;
        let fits = match (name, &value) {
            ("name", None) => Err(Error::Required("argument name of __type".to_owned())),
            ("name", Some(Value::Text(_))) | ("includeDeprecated", None | Some(Value::Bool(_))) => Ok(()),
            (_, Some(other)) if name == "name" => Err(wrong_type(name, "string", other)),
            (_, other) => Err(wrong_type(name, "boolean", other.as_ref().unwrap_or(&Value::Null))),
        };
        self.of_argument(group.field, name, fits)?;
        Ok(value)
    }
}

impl IntrospectionField {
    fn count(&self) -> usize {
        1 + self.fields.iter().map(IntrospectionField::count).sum::<usize>()
    }
}

fn at_most(what: &'static str, seen: usize, limit: usize) -> Result<()> {
    match seen <= limit {
        true => Ok(()),
        false => Err(Refusal::new(Error::TooComplex { what, seen, limit })),
    }
}
