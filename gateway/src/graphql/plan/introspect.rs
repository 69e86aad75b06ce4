//! Fields of introspection: their selection with fragments expanded and variables put in.

use std::fmt::Write;

use query::{Error, Object, Value};

use super::{
    FieldSource, Planner, at_field,
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
    /// Arguments as a document has them, with their parentheses.
    pub arguments: String,
    /// What is selected of it.
    pub fields: Vec<IntrospectionField>,
}

impl IntrospectionField {
    /// Appends the field as a document has it.
    pub fn write(&self, out: &mut String) {
        if self.key != self.name {
            out.extend([&self.key, ":"]);
        }
        out.extend([&self.name, self.arguments.as_str()]);
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
        let arguments = self.written_arguments(group)?;
        let mut fields = Vec::new();
        let sets = group.selections();
        if !sets.is_empty() {
            for (key, group) in self.collect(&sets)? {
                let field = self.introspection(&group, depth + 1, counted);
                let field = field.map_err(|refusal| at_field(refusal, key, &group))?;
                fields.push(IntrospectionField { key: key.to_owned(), ..field });
            }
        }
        Ok(IntrospectionField { key: String::new(), name: group.name().to_owned(), arguments, fields })
    }

    fn written_arguments(&self, group: &Group<'a>) -> Result<String> {
        let known: &[&str] = match group.name() {
            "__type" => &["name"],
            "fields" | "inputFields" | "enumValues" | "args" => &["includeDeprecated"],
            _ => &[],
        };
        self.arguments(group.field, known)?;
        let mut written = String::new();
        for name in known {
            let Some(value) = self.argument(group.field, name, EnumValues::Text)? else { continue };
            written.extend(["(", name, ":"]);
            write_literal(&mut written, &value);
            written.push(')');
        }
        Ok(written)
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

/// Appends `value` as a literal of a document.
fn write_literal(out: &mut String, value: &Value) {
    let writes = match value {
        Value::Null => out.write_str("null"),
        Value::Bool(flag) => write!(out, "{flag}"),
        Value::Int(number) => write!(out, "{number}"),
        Value::Number(number) => out.write_str(number),
        Value::Text(text) => write!(out, "{}", serde_json::Value::from(text.as_str())),
        Value::List(items) => {
            out.push('[');
            for item in items {
                write_literal(out, item);
                out.push(' ');
            }
            out.write_str("]")
        }
        Value::Object(Object(members)) => {
            out.push('{');
            for (name, member) in members {
                out.extend([name, ":"]);
                write_literal(out, member);
                out.push(' ');
            }
            out.write_str("}")
        }
    };
    writes.expect("memory takes what is written");
}
