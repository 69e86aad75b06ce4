//! Values and objects.

use query::{Document, Error, Object, Typed, Value, number};
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
            Kind::Float(_)
            | Kind::Decimal(_)
            | Kind::Bytes(_)
            | Kind::Date(_)
            | Kind::Time(_)
            | Kind::Timestamp(_)
            | Kind::Uuid(_)
            | Kind::Json(_)
            | Kind::Other(_) => {
                return Err(Error::Malformed("invalid value.kind: expected a value of a client".to_owned()));
            }
        })
    }
}

impl From<Typed> for wire::Value {
    fn from(value: Typed) -> Self {
        let kind = match value {
            Typed::Null => Kind::Null(true),
            Typed::Bool(flag) => Kind::Bool(flag),
            Typed::Int(number) => Kind::Int(number),
            Typed::Float(number) => Kind::Float(number),
            Typed::Decimal(text) => Kind::Decimal(text),
            Typed::Text(text) => Kind::Text(text),
            Typed::Bytes(bytes) => Kind::Bytes(bytes),
            Typed::Date(days) => Kind::Date(days),
            Typed::Time(micros) => Kind::Time(micros),
            Typed::Timestamp(micros) => Kind::Timestamp(micros),
            Typed::Uuid(bytes) => Kind::Uuid(bytes.to_vec()),
            Typed::Json(text) => Kind::Json(text),
            Typed::Other(text) => Kind::Other(text),
            Typed::List(items) => Kind::List(wire::List { items: each(items) }),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<wire::Value> for Typed {
    type Error = Error;

    fn try_from(value: wire::Value) -> Result<Self, Error> {
        let malformed = |what: &str| Error::Malformed(what.to_owned());
        Ok(match required(value.kind, "value.kind")? {
            Kind::Null(_) => Typed::Null,
            Kind::Bool(flag) => Typed::Bool(flag),
            Kind::Int(number) => Typed::Int(number),
            Kind::Float(number) => Typed::Float(number),
            Kind::Decimal(text) if Value::number(&text).is_some() || number::not_finite(&text).is_some() => {
                Typed::Decimal(text)
            }
            Kind::Decimal(_) => return Err(malformed("invalid decimal in value.decimal")),
            Kind::Text(text) => Typed::Text(text),
            Kind::Bytes(bytes) => Typed::Bytes(bytes),
            Kind::Date(days) => Typed::Date(days),
            Kind::Time(micros) => Typed::Time(micros),
            Kind::Timestamp(micros) => Typed::Timestamp(micros),
            Kind::Uuid(bytes) => Typed::Uuid(bytes.try_into().map_err(|_| malformed("value.uuid must have 16 bytes"))?),
            Kind::Json(text) => Typed::Json(text),
            Kind::Other(text) => Typed::Other(text),
            Kind::List(list) => Typed::List(all(list.items)?),
            Kind::Number(_) | Kind::Object(_) => {
                return Err(malformed("invalid value.kind: expected a value of a column"));
            }
        })
    }
}

impl From<Object> for wire::Object {
    fn from(object: Object) -> Self {
        Self { members: object.0.into_iter().map(sent).collect() }
    }
}

impl TryFrom<wire::Object> for Object {
    type Error = Error;

    fn try_from(object: wire::Object) -> Result<Self, Error> {
        Object::new(members(object)?)
    }
}

impl From<Document> for wire::Object {
    fn from(document: Document) -> Self {
        Self { members: document.0.into_iter().map(sent).collect() }
    }
}

impl TryFrom<wire::Object> for Document {
    type Error = Error;

    fn try_from(object: wire::Object) -> Result<Self, Error> {
        members(object).map(Document)
    }
}

fn sent<V: Into<wire::Value>>((name, value): (String, V)) -> wire::Member {
    wire::Member { name, value: Some(value.into()) }
}

fn members<V: TryFrom<wire::Value, Error = Error>>(object: wire::Object) -> Result<Vec<(String, V)>, Error> {
    let mut members = Vec::with_capacity(object.members.len());
    for member in object.members {
        let value = required(member.value, "member.value")?;
        members.push((member.name, value.try_into()?));
    }
    Ok(members)
}
