//! Values as clients write them.

use crate::Error;

/// A value as a client wrote it. It gets its database type where it meets a column.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// A boolean.
    Bool(bool),
    /// A 64-bit integer.
    Int(i64),
    /// A number that is no 64-bit integer, as JSON number text: nothing is rounded on the way.
    Number(String),
    /// A text; also dates, decimals, UUIDs and base64 bytes, until they meet a column.
    Text(String),
    /// An array.
    List(Vec<Value>),
    /// An object.
    Object(Object),
}

/// Members in the order in which they were written; no name appears twice.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Object(pub Vec<(String, Value)>);

impl Object {
    /// The member called `name`.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }
}

/// How large a document may be before it is refused as `TOO_COMPLEX`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Levels of nesting.
    pub depth: usize,
    /// Values, members and items in all.
    pub nodes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { depth: 64, nodes: 100_000 }
    }
}

impl Value {
    /// Parses JSON text (RFC 8259). Numbers keep every digit.
    ///
    /// Errors: `BAD_REQUEST` with line and column for text that is no JSON, bytes that are not UTF-8, a member that
    /// appears twice or a NUL character in a name or text; `TOO_COMPLEX` beyond `limits`.
    pub fn parse(_json: &[u8], _limits: Limits) -> Result<Value, Error> {
        todo!()
    }

    /// Writes the value as JSON text.
    pub fn write_json(&self, _out: &mut Vec<u8>) {
        todo!()
    }

    /// What the value is, for messages: `a text`, `a number`, `null`.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Int(_) | Value::Number(_) => "a number",
            Value::Text(_) => "a text",
            Value::List(_) => "a list",
            Value::Object(_) => "an object",
        }
    }
}
