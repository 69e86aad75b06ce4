//! Values of a message in its encoding, counted before they are made: a byte may be a value that takes fifty of memory. Source:
//! "Encoding" of protocol buffers.

use prost::{
    Message,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

/// Most values of a message, with those of all messages in it.
pub const VALUES_MAX: u64 = 1_000_000;
/// Levels of messages, as many as decoding follows.
const DEPTH: usize = 100;
/// Bytes of a message that is packed into another that take as much memory as a value.
const COPIED_BYTES: u64 = 64;

/// Errors: the message has more values than may be. Whether it is one at all is for decoding to say.
pub fn check(message: &[u8], descriptor: &MessageDescriptor) -> Result<(), TooManyValues> {
    // Each takes a byte.
    if message.len() as u64 <= VALUES_MAX {
        return Ok(());
    }
    let mut left = VALUES_MAX;
    match count(&mut &*message, Some(descriptor), &mut left, DEPTH) {
        None if left == 0 => Err(TooManyValues),
        _ => Ok(()),
    }
}

/// A message has more than [`VALUES_MAX`] values.
#[derive(Debug, PartialEq, Eq)]
pub struct TooManyValues;

/// Takes the values of a message, up to its end or that of its group, from those that are `left`; `None` where there are not so
/// many, or where it is malformed. Without a descriptor no field is known.
fn count(message: &mut &[u8], descriptor: Option<&MessageDescriptor>, left: &mut u64, depth: usize) -> Option<()> {
    let Some(depth) = depth.checked_sub(1) else {
        *left = 0;
        return None;
    };
    if let Some(any) = descriptor.filter(|descriptor| descriptor.full_name() == "google.protobuf.Any") {
        return count_packed(message, any, left, depth);
    }
    while !message.is_empty() {
        let (number, wire) = decode_key(message).ok()?;
        if wire == WireType::EndGroup {
            return Some(());
        }
        take(1, left)?;
        let field = descriptor.and_then(|descriptor| descriptor.get_field(number));
        match (wire, field) {
            (WireType::StartGroup, field) => match field.map(|field| field.kind()) {
                Some(Kind::Message(inner)) => count(message, Some(&inner), left, depth)?,
                _ => count(message, None, left, depth)?,
            },
            (WireType::LengthDelimited, Some(field)) => {
                let length = usize::try_from(decode_varint(message).ok()?).ok()?;
                let (mut content, rest) = message.split_at_checked(length)?;
                *message = rest;
                match field.kind() {
                    Kind::Message(inner) => count(&mut content, Some(&inner), left, depth)?,
                    _ => take(packed(content, &field), left)?,
                }
            }
            _ => skip_field(wire, number, message, DecodeContext::default()).ok()?,
        }
    }
    Some(())
}

/// Takes the values of the message that is packed into an `Any`: its JSON is made of it, of a copy.
fn count_packed(any: &mut &[u8], descriptor: &MessageDescriptor, left: &mut u64, depth: usize) -> Option<()> {
    let any = prost_types::Any::decode(std::mem::take(any)).ok()?;
    take(1 + any.value.len() as u64 / COPIED_BYTES, left)?;
    let (_, name) = any.type_url.rsplit_once('/')?;
    let inner = descriptor.parent_pool().get_message_by_name(name)?;
    count(&mut &*any.value, Some(&inner), left, depth)
}

fn take(values: u64, left: &mut u64) -> Option<()> {
    match left.checked_sub(values) {
        Some(rest) => *left = rest,
        None => {
            *left = 0;
            return None;
        }
    }
    Some(())
}

/// Values of a packed list.
fn packed(content: &[u8], field: &FieldDescriptor) -> u64 {
    let bytes = content.len() as u64;
    match field.kind() {
        Kind::String | Kind::Bytes | Kind::Message(_) => 0,
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => bytes / 8,
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => bytes / 4,
        // The last byte of each has no continuation bit.
        Kind::Int32
        | Kind::Int64
        | Kind::Uint32
        | Kind::Uint64
        | Kind::Sint32
        | Kind::Sint64
        | Kind::Bool
        | Kind::Enum(_) => content.iter().filter(|byte| **byte < 0x80).count() as u64,
    }
}

#[cfg(test)]
mod tests {
    use prost_reflect::DescriptorPool;
    use prost_types::{Any, FileDescriptorProto, ListValue, Struct, Value, value};

    use super::*;

    fn known(name: &str) -> MessageDescriptor {
        DescriptorPool::global().get_message_by_name(&format!("google.protobuf.{name}")).unwrap()
    }

    fn values(message: &[u8], name: &str) -> Option<u64> {
        let mut left = VALUES_MAX;
        count(&mut &*message, Some(&known(name)), &mut left, DEPTH).map(|()| VALUES_MAX - left)
    }

    #[test]
    fn each_value_counts_wherever_it_is() {
        // A list of three values, each of which is a message with a number.
        let number = |number| Value { kind: Some(value::Kind::NumberValue(number)) };
        let list = ListValue { values: vec![number(1.0), number(2.0), number(3.0)] };
        assert_eq!(values(&list.encode_to_vec(), "ListValue"), Some(6));
        let of_struct = Struct { fields: [("a".to_owned(), number(1.0))].into() };
        assert_eq!(
            values(&of_struct.encode_to_vec(), "Struct"),
            Some(4),
            "an entry, its key, its value, the number in that"
        );
        // public_dependency, packed and not.
        assert_eq!(values(&[0x52, 4, 1, 2, 0x80, 1], "FileDescriptorProto"), Some(4));
        let unpacked = FileDescriptorProto { public_dependency: vec![1, 2, 300], ..Default::default() };
        assert_eq!(values(&unpacked.encode_to_vec(), "FileDescriptorProto"), Some(3));
        // An unknown field, and a group in one.
        assert_eq!(values(&[0xf8, 0x7f, 1], "FileDescriptorProto"), Some(1));
        assert_eq!(values(&[0xfb, 0x7f, 0x08, 1, 0xfc, 0x7f], "FileDescriptorProto"), Some(2));
        assert_eq!(values(&[0x0a, 5, 1], "FileDescriptorProto"), None);
    }

    #[test]
    fn a_message_of_more_values_than_may_be_is_refused() {
        let packed = |count: usize| {
            let mut message = vec![0x52];
            prost::encoding::encode_varint(count as u64, &mut message);
            message.resize(message.len() + count, 1);
            message
        };
        let check = |message: &[u8], name| check(message, &known(name));
        assert_eq!(check(&packed(VALUES_MAX as usize - 1), "FileDescriptorProto"), Ok(()));
        assert_eq!(check(&packed(VALUES_MAX as usize), "FileDescriptorProto"), Err(TooManyValues));
        let empty = [0x0a, 0].repeat(VALUES_MAX as usize + 1);
        assert_eq!(check(&empty, "ListValue"), Err(TooManyValues));
        let malformed = [b"\xff".repeat(20), vec![0; VALUES_MAX as usize]].concat();
        assert_eq!(check(&malformed, "ListValue"), Ok(()), "decoding says so");
        // Whatever is packed into it counts too.
        let pack = |name: &str, value| Any { type_url: format!("t/google.protobuf.{name}"), value }.encode_to_vec();
        assert_eq!(check(&pack("ListValue", empty), "Any"), Err(TooManyValues));
        let nested = (0..20).fold(vec![0; 8 << 20], |value, _| pack("Any", value));
        assert_eq!(check(&nested, "Any"), Err(TooManyValues));
        let deep = (0..2 * DEPTH).fold(Vec::new(), |value, _| pack("Any", value));
        let mut left = VALUES_MAX;
        assert_eq!((count(&mut &*deep, Some(&known("Any")), &mut left, DEPTH), left), (None, 0));
    }
}
