//! Values and objects.

use query::{Error, Object, Value};
use wire::value::Kind;

use super::{all, each, required};
use crate::wire::query::v1 as wire;

impl From<Value> for wire::Value {
    fn from(value: Value) -> Self {
        let kind = match value {
            Value::Null => Kind::Null(true),
            Value::Bool(flag) => Kind::Bool(flag),
            Value::Int(number) => Kind::Int(number),
            Value::Number(text) => Kind::Number(text),
            Value::Text(text) => Kind::Text(text),
            Value::List(items) => Kind::List(wire::List { items: each(items) }),
            Value::Object(object) => Kind::Object(object.into()),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<wire::Value> for Value {
    type Error = Error;

    fn try_from(value: wire::Value) -> Result<Self, Error> {
        Ok(match required(value.kind, "value.kind")? {
            Kind::Null(_) => Value::Null,
            Kind::Bool(flag) => Value::Bool(flag),
            Kind::Int(number) => Value::Int(number),
            Kind::Number(text) => {
                Value::number(&text).ok_or_else(|| Error::Malformed("invalid number in value.number".to_owned()))?
            }
            Kind::Text(text) => Value::Text(text),
            Kind::List(list) => Value::List(all(list.items)?),
            Kind::Object(object) => Value::Object(object.try_into()?),
        })
    }
}

impl From<Object> for wire::Object {
    fn from(object: Object) -> Self {
        let member = |(name, value): (String, Value)| wire::Member { name, value: Some(value.into()) };
        Self { members: object.0.into_iter().map(member).collect() }
    }
}

impl TryFrom<wire::Object> for Object {
    type Error = Error;

    fn try_from(object: wire::Object) -> Result<Self, Error> {
        let mut members = Vec::with_capacity(object.members.len());
        for member in object.members {
            let value = required(member.value, "member.value")?;
            members.push((member.name, value.try_into()?));
        }
        Object::new(members)
    }
}
