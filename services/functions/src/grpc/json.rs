//! Messages as JSON and back. Source: "ProtoJSON Format" of protocol buffers, but for 64-bit integers, which are as in rows.

use std::io::{self, Write};

use bytes::Bytes;
use prost::Message;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use query::resources::Numbers;
use serde_json::{
    Serializer, Value as Json,
    ser::{CompactFormatter, Formatter},
};

use super::{fields, wire};
use crate::Error;

/// The greatest integer up to which a double holds each one.
const SAFE_INTEGER: u64 = 1 << 53;
/// Levels of JSON. Messages have fewer, but for those that are packed into one another.
const DEPTH: usize = 128;

/// Parameters as the bytes of a message; null is a message without fields. Errors: they are none of its JSON.
pub fn message(params: &[u8], input: &MessageDescriptor) -> Result<Bytes, Error> {
    if params.is_empty() || params.trim_ascii() == b"null" {
        return Ok(Bytes::new());
    }
    let json: Json = serde_json::from_slice(params).map_err(|error| Error::Malformed(error.to_string()))?;
    fields::check(&json, input).map_err(Error::Malformed)?;
    match DynamicMessage::deserialize(input.clone(), &json) {
        Ok(message) => Ok(message.encode_to_vec().into()),
        Err(error) => Err(Error::Malformed(told(&json, input).unwrap_or_else(|| error.to_string()))),
    }
}

/// What is wrong with parameters, with its place.
fn told(params: &Json, input: &MessageDescriptor) -> Option<String> {
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(params, &mut track);
    let error = DynamicMessage::deserialize(input.clone(), tracked).err()?;
    let path = track.path();
    Some(if path.iter().next().is_none() { error.to_string() } else { format!("{path}: {error}") })
}

/// The bytes of a message as JSON of at most `limit` bytes.
pub fn json(bytes: Bytes, output: &MessageDescriptor, numbers: Numbers, limit: u64) -> Result<Bytes, Error> {
    let invalid = |cause: String| Error::WrongMessage { message: output.full_name().to_owned(), cause };
    let many =
        |wire::TooManyValues| invalid(format!("it has more than {} values, or levels without end", wire::VALUES_MAX));
    wire::check(&bytes, output).map_err(many)?;
    let size = bytes.len();
    let message = DynamicMessage::decode(output.clone(), bytes).map_err(|error| invalid(error.to_string()))?;
    let out = Limited { json: Vec::with_capacity(size * 2), limit };
    let options = prost_reflect::SerializeOptions::new().stringify_64_bit_integers(false);
    let mut serializer = Serializer::with_formatter(out, Format { numbers, depth: 0 });
    match message.serialize_with_options(&mut serializer, &options) {
        Ok(()) => Ok(serializer.into_inner().json.into()),
        Err(error) if error.io_error_kind() == Some(io::ErrorKind::FileTooLarge) => Err(Error::LargeAnswer(limit)),
        Err(error) => Err(invalid(error.to_string())),
    }
}

/// JSON up to a limit: a few bytes of a message may be many of JSON.
struct Limited {
    json: Vec<u8>,
    limit: u64,
}

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if (self.json.len() + bytes.len()) as u64 > self.limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.json.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// JSON without white space, with integers as a project wants them, and of bounded depth.
struct Format {
    numbers: Numbers,
    depth: usize,
}

impl Format {
    fn deeper(&mut self) -> io::Result<()> {
        self.depth += 1;
        if self.depth > DEPTH { Err(io::Error::other(format!("it has more than {DEPTH} levels"))) } else { Ok(()) }
    }

    fn is_text(&self, magnitude: u64) -> bool {
        self.numbers == Numbers::Strings && magnitude > SAFE_INTEGER
    }
}

impl Formatter for Format {
    fn write_i64<W: ?Sized + Write>(&mut self, writer: &mut W, value: i64) -> io::Result<()> {
        if self.is_text(value.unsigned_abs()) {
            return write!(writer, "\"{value}\"");
        }
        CompactFormatter.write_i64(writer, value)
    }

    fn write_u64<W: ?Sized + Write>(&mut self, writer: &mut W, value: u64) -> io::Result<()> {
        if self.is_text(value) {
            return write!(writer, "\"{value}\"");
        }
        CompactFormatter.write_u64(writer, value)
    }

    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.deeper()?;
        CompactFormatter.begin_array(writer)
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.depth -= 1;
        CompactFormatter.end_array(writer)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.deeper()?;
        CompactFormatter.begin_object(writer)
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.depth -= 1;
        CompactFormatter.end_object(writer)
    }
}

#[cfg(test)]
mod tests {
    use prost_reflect::DescriptorPool;
    use prost_types::Any;

    use super::*;

    fn known(name: &str) -> MessageDescriptor {
        DescriptorPool::global().get_message_by_name(&format!("google.protobuf.{name}")).unwrap()
    }

    fn written(json_text: &str, name: &str, numbers: Numbers, limit: u64) -> Result<String, String> {
        let bytes = message(json_text.as_bytes(), &known(name)).map_err(|error| error.to_string())?;
        let json = json(bytes, &known(name), numbers, limit).map_err(|error| error.to_string())?;
        Ok(String::from_utf8(json.to_vec()).unwrap())
    }

    #[test]
    fn integers_are_as_the_project_wants_them() {
        let max = u64::MAX.to_string();
        let text = |json: &str, name, numbers| written(json, name, numbers, 100).unwrap();
        assert_eq!(text(&max, "UInt64Value", Numbers::Exact), max);
        assert_eq!(text(&format!("\"{max}\""), "UInt64Value", Numbers::Strings), format!("\"{max}\""));
        assert_eq!(text("9007199254740992", "Int64Value", Numbers::Strings), "9007199254740992");
        assert_eq!(text("-9007199254740993", "Int64Value", Numbers::Strings), "\"-9007199254740993\"");
        assert_eq!(text("7", "Int32Value", Numbers::Strings), "7");
    }

    #[test]
    fn parameters_that_do_not_fit_are_told_with_their_place() {
        let method = DescriptorPool::global().get_message_by_name("google.protobuf.DescriptorProto").unwrap();
        let told = |json: &str| message(json.as_bytes(), &method).unwrap_err().to_string();
        assert_eq!(told(r#"{"nam": "x"}"#), "invalid params: unrecognized field name 'nam'");
        let deep = told(r#"{"field": [{"name": "a"}, {"number": "x"}]}"#);
        assert!(deep.starts_with("invalid params: field[1].number: "), "{deep}");
        assert!(told("[1]").starts_with("invalid params: "));
        assert!(told("{} {}").starts_with("invalid params: "));
        for empty in ["", "null", " null ", "{}"] {
            assert_eq!(message(empty.as_bytes(), &method).unwrap(), Bytes::new(), "{empty}");
        }
    }

    #[test]
    fn json_is_bounded_in_size_and_depth() {
        assert_eq!(written(r#"{"a":[1.5,true]}"#, "Struct", Numbers::Exact, 16), Ok(r#"{"a":[1.5,true]}"#.to_owned()));
        let large = written(r#"{"a":[1.5,true]}"#, "Struct", Numbers::Exact, 15).unwrap_err();
        assert_eq!(large, "the answer of the function is over the limit of 15 bytes");
        // Messages that are packed into one another have no depth that decoding would see.
        let mut any = Any { type_url: "type.googleapis.com/google.protobuf.Empty".to_owned(), value: Vec::new() };
        for _ in 0..2_000 {
            any = Any { type_url: "t/google.protobuf.Any".to_owned(), value: any.encode_to_vec() };
        }
        let told = json(any.encode_to_vec().into(), &known("Any"), Numbers::Exact, 1 << 23).unwrap_err();
        assert!(told.to_string().contains("more than 128 levels"), "{told}");
        let broken = json(Bytes::from_static(b"\xff"), &known("Any"), Numbers::Exact, 100).unwrap_err();
        assert!(
            broken.to_string().starts_with("the function answered with an invalid google.protobuf.Any"),
            "{broken}"
        );
    }
}
