//! Values as clients write them.

use jiter::{Jiter, JiterError, Peek};

use crate::{Error, Guard};

/// Members among which a name that appears twice is found by looking at each.
const FEW: usize = 16;

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
        match repeated(&members) {
            Some(name) => Err(Error::Malformed(twice(name))),
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
    /// Parses JSON text (RFC 8259). Numbers keep every digit.
    ///
    /// Errors: `BAD_REQUEST` with line and column for text that is no JSON, bytes that are not UTF-8, a member that
    /// appears twice or a NUL character in a name or text; `TOO_COMPLEX` beyond what `guard` lets pass.
    pub fn parse(json: &[u8], guard: Guard) -> Result<Value, Error> {
        let mut reader = Reader { jiter: Jiter::new(json), guard };
        let first = reader.jiter.peek().map_err(|error| reader.malformed(&error))?;
        let value = reader.value(first, 0)?;
        match reader.jiter.finish() {
            Ok(()) => Ok(value),
            Err(error) => Err(reader.malformed(&error)),
        }
    }

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

/// A document while it is read.
struct Reader<'j> {
    jiter: Jiter<'j>,
    guard: Guard,
}

impl Reader<'_> {
    /// The value that starts with `first`, inside `depth` lists and objects.
    fn value(&mut self, first: Peek, depth: usize) -> Result<Value, Error> {
        self.guard.part()?;
        match first {
            Peek::Null => self.jiter.known_null().map(|()| Value::Null).map_err(|error| self.malformed(&error)),
            Peek::True | Peek::False => {
                self.jiter.known_bool(first).map(Value::Bool).map_err(|error| self.malformed(&error))
            }
            Peek::String => self.text(),
            Peek::Array => self.list(depth + 1),
            Peek::Object => self.object(depth + 1),
            _ => self.number(first),
        }
    }

    fn number(&mut self, first: Peek) -> Result<Value, Error> {
        let start = self.jiter.current_index();
        let number = match self.jiter.known_number_bytes(first) {
            Ok(bytes) => std::str::from_utf8(bytes).ok().and_then(Value::number),
            Err(error) => return Err(self.malformed(&error)),
        };
        number.ok_or_else(|| self.wrong("invalid number", start))
    }

    fn text(&mut self) -> Result<Value, Error> {
        let start = self.jiter.current_index();
        let text = match self.jiter.known_str() {
            Ok(text) => text.to_owned(),
            Err(error) => return Err(self.malformed(&error)),
        };
        if text.contains('\0') {
            return Err(self.wrong("NUL character in a text", start));
        }
        Ok(Value::Text(text))
    }

    fn list(&mut self, depth: usize) -> Result<Value, Error> {
        self.guard.depth(depth)?;
        let mut items = Vec::new();
        let mut next = self.jiter.known_array().map_err(|error| self.malformed(&error))?;
        while let Some(first) = next {
            items.push(self.value(first, depth)?);
            next = self.jiter.array_step().map_err(|error| self.malformed(&error))?;
        }
        Ok(Value::List(items))
    }

    fn object(&mut self, depth: usize) -> Result<Value, Error> {
        self.guard.depth(depth)?;
        let start = self.jiter.current_index();
        let mut members: Vec<(String, Value)> = Vec::new();
        let mut next = self.jiter.known_object().map(|name| name.map(str::to_owned));
        while let Some(name) = next.map_err(|error| self.malformed(&error))? {
            if name.contains('\0') {
                return Err(self.wrong("NUL character in a member's name", self.jiter.current_index()));
            }
            let first = self.jiter.peek().map_err(|error| self.malformed(&error))?;
            members.push((name, self.value(first, depth)?));
            next = self.jiter.next_key().map(|name| name.map(str::to_owned));
        }
        match repeated(&members) {
            Some(name) => Err(self.wrong(&twice(name), start)),
            None => Ok(Value::Object(Object(members))),
        }
    }

    /// The text is no JSON.
    fn malformed(&self, error: &JiterError) -> Error {
        let position = error.get_position(&self.jiter);
        Error::Malformed(format!("{} at line {} column {}", error.error_type, position.line, position.column))
    }

    /// The text is JSON, but what stands at `index` is not accepted.
    fn wrong(&self, what: &str, index: usize) -> Error {
        let position = self.jiter.error_position(index);
        Error::Malformed(format!("{what} at line {} column {}", position.line, position.column))
    }
}

/// A name that appears twice.
pub(crate) fn repeated(members: &[(String, Value)]) -> Option<&str> {
    if members.len() <= FEW {
        let again =
            |(index, (name, _)): (usize, &(String, Value))| members[..index].iter().any(|(known, _)| known == name);
        return members.iter().enumerate().find(|&member| again(member)).map(|(_, (name, _))| name.as_str());
    }
    let mut names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}

fn twice(name: &str) -> String {
    format!("member {} appears twice", crate::error::short(name))
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
