//! Images of rows: JSON objects, as the log of changes has them, whose members are told without reading their values.

use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::Value;

/// The columns of an image with the JSON texts of their values, in its order.
///
/// Errors: it is no JSON object.
pub fn columns(json: &[u8]) -> Result<Vec<(String, &RawValue)>, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let columns = reader.deserialize_map(ColumnsVisitor)?;
    reader.end()?;
    Ok(columns)
}

/// The value of a column by which conditions are decided, from its JSON text. Lists and objects, by which none is, are
/// empty.
pub fn column_value(json: &str) -> Value {
    match json.as_bytes().first() {
        Some(b'"') => serde_json::from_str(json).map_or(Value::Null, Value::Text),
        Some(b't') => Value::Bool(true),
        Some(b'f') => Value::Bool(false),
        Some(b'[') => Value::List(Vec::new()),
        Some(b'{') => Value::Object(crate::Object::default()),
        _ => Value::number(json).unwrap_or(Value::Null),
    }
}

/// Reads the members of an object.
struct ColumnsVisitor;

impl<'de> Visitor<'de> for ColumnsVisitor {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut columns = Vec::new();
        while let Some(column) = map.next_entry()? {
            columns.push(column);
        }
        Ok(columns)
    }
}
