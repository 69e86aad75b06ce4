//! JSON text as values of the model: every digit of a number is kept.

use std::ops::Range;

use jiter::{Jiter, JiterError, Peek};
use query::{Error, Guard, Object, Value};

/// Members that an object has room for at first: as many as it would get with the first of them, at less cost.
const SHORT_OBJECT: usize = 4;

/// A text that was read of the `document`; `None` where it has a NUL character.
///
/// What is borrowed of the document has no escapes, and without an escape a text cannot have one.
fn without_nul(text: &str, document: &Range<*const u8>) -> Option<String> {
    let has_nul = !document.contains(&text.as_ptr()) && text.as_bytes().contains(&0);
    (!has_nul).then(|| text.to_owned())
}

/// The value that a JSON text (RFC 8259) is.
///
/// Errors: `BAD_REQUEST` with line and column for text that is not JSON, bytes that are not UTF-8, a member that appears
/// twice or a NUL character in a name or text; `TOO_COMPLEX` beyond what `guard` lets pass.
pub fn parse(json: &[u8], guard: Guard) -> Result<Value, Error> {
    let mut reader = Reader { jiter: Jiter::new(json), text: json.as_ptr_range(), guard };
    let first = reader.jiter.peek().map_err(|error| reader.malformed(&error))?;
    let value = reader.value(first, 0)?;
    match reader.jiter.finish() {
        Ok(()) => Ok(value),
        Err(error) => Err(reader.malformed(&error)),
    }
}

/// A document while it is read.
struct Reader<'j> {
    jiter: Jiter<'j>,
    /// Addresses of the document.
    text: Range<*const u8>,
    guard: Guard,
}

impl Reader<'_> {
    /// The value that starts with `first`, inside `depth` lists and objects.
    fn value(&mut self, first: Peek, depth: usize) -> Result<Value, Error> {
        self.guard.token()?;
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
        let text = self.jiter.known_str().map(|text| without_nul(text, &self.text));
        match text.map_err(|error| self.malformed(&error))? {
            Some(text) => Ok(Value::Text(text)),
            None => Err(self.wrong("NUL character in a string", start)),
        }
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
        let mut next = self.jiter.known_object().map(|name| name.map(|name| without_nul(name, &self.text)));
        let is_empty = matches!(next, Ok(None));
        let mut members: Vec<(String, Value)> = Vec::with_capacity(if is_empty { 0 } else { SHORT_OBJECT });
        while let Some(name) = next.map_err(|error| self.malformed(&error))? {
            let Some(name) = name else {
                return Err(self.wrong("NUL character in a member's name", self.jiter.current_index()));
            };
            let first = self.jiter.peek().map_err(|error| self.malformed(&error))?;
            members.push((name, self.value(first, depth)?));
            next = self.jiter.next_key().map(|name| name.map(|name| without_nul(name, &self.text)));
        }
        match Object::new(members) {
            Ok(object) => Ok(Value::Object(object)),
            Err(error) => Err(self.wrong(&error.to_string(), start)),
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
