//! Values as clients write them.

use crate::Error;

/// Most members among which a duplicate name is searched by linear scan; more are sorted.
const LINEAR_SCAN_MAX: usize = 16;

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
    /// The object with these members.
    ///
    /// Errors: `BAD_REQUEST` where a name appears twice.
    pub fn new(members: Vec<(String, Value)>) -> Result<Self, Error> {
        match duplicate_name(&members) {
            Some(name) => Err(Error::Malformed(duplicate_member(name))),
            None => Ok(Self(members)),
        }
    }

    /// Writes the object as JSON text.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        for (index, (name, value)) in self.0.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write_text(name, out);
            out.push(b':');
            value.write_json(out);
        }
        out.push(b'}');
    }

    /// The member called `name`.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }
}

impl Value {
    /// The number that `text` is in JSON's grammar: `Int` where it is a 64-bit integer, else `Number`; `None` for any
    /// other text.
    pub fn number(text: &str) -> Option<Value> {
        let integer = text.strip_prefix('-').unwrap_or(text).bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(text) {
            return None;
        }
        match text.parse() {
            Ok(number) if integer => Some(Value::Int(number)),
            _ => Some(Value::Number(text.to_owned())),
        }
    }

    /// Writes the value as JSON text.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        match self {
            Value::Null => out.extend_from_slice(b"null"),
            Value::Bool(true) => out.extend_from_slice(b"true"),
            Value::Bool(false) => out.extend_from_slice(b"false"),
            Value::Int(number) => write_integer(*number, out),
            Value::Number(text) => out.extend_from_slice(text.as_bytes()),
            Value::Text(text) => write_text(text, out),
            Value::List(items) => write_list(items, out),
            Value::Object(object) => object.write_json(out),
        }
    }

    /// The JSON type of the value, for messages: `string`, `integer`, `number`, `null`.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Int(_) => "integer",
            Value::Number(_) => "number",
            Value::Text(_) => "string",
            Value::List(_) => "array",
            Value::Object(_) => "object",
        }
    }
}

impl From<&serde_json::Value> for Value {
    fn from(value: &serde_json::Value) -> Self {
        match value {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(flag) => Value::Bool(*flag),
            serde_json::Value::Number(number) => {
                number.as_i64().map_or_else(|| Value::Number(number.to_string()), Value::Int)
            }
            serde_json::Value::String(text) => Value::Text(text.clone()),
            serde_json::Value::Array(items) => Value::List(items.iter().map(Value::from).collect()),
            serde_json::Value::Object(members) => {
                Value::Object(Object(members.iter().map(|(name, value)| (name.clone(), value.into())).collect()))
            }
        }
    }
}

/// The first duplicate name.
pub(crate) fn duplicate_name(members: &[(String, Value)]) -> Option<&str> {
    if members.len() <= LINEAR_SCAN_MAX {
        let again =
            |(index, (name, _)): (usize, &(String, Value))| members[..index].iter().any(|(known, _)| known == name);
        return members.iter().enumerate().find(|&member| again(member)).map(|(_, (name, _))| name.as_str());
    }
    let mut names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}

fn duplicate_member(name: &str) -> String {
    format!("member {} appears twice", crate::error::truncated(name))
}

/// Whether `text` is a number in the grammar of RFC 8259, section 6.
fn is_number(text: &str) -> bool {
    let rest = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (rest, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|exponent| digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)))
}

fn write_list(items: &[Value], out: &mut Vec<u8>) {
    out.push(b'[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        item.write_json(out);
    }
    out.push(b']');
}

fn write_integer(number: i64, out: &mut Vec<u8>) {
    serde_json::to_writer(out, &number).expect("an integer is JSON and memory takes it");
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("a text is JSON and memory takes it");
}

#[cfg(test)]
pub(crate) mod tests;
