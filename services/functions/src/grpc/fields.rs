//! Fields that parameters name: each once. A field has two names, that of its JSON and that of the contract, and a rule that looks
//! at one of them must not be told another value than the server.

use std::collections::HashSet;

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value};

/// Messages of protocol buffers themselves, whose JSON is their own.
const WELL_KNOWN: &str = "google.protobuf.";

/// Errors: a field is set twice, with its place.
pub fn check(params: &Value, input: &MessageDescriptor) -> Result<(), String> {
    check_message(params, input).map_err(|(path, text)| {
        let path: String = path.into_iter().rev().collect();
        if path.is_empty() { text } else { format!("{}: {text}", path.trim_start_matches('.')) }
    })
}

/// The keys that lead to a fault, the innermost first, and its text.
type Placed = (Vec<String>, String);

fn check_message(value: &Value, message: &MessageDescriptor) -> Result<(), Placed> {
    let Value::Object(members) = value else { return Ok(()) };
    if message.full_name().starts_with(WELL_KNOWN) {
        return packed(members, message).map_or(Ok(()), |inner| check_members(members, &inner));
    }
    check_members(members, message)
}

fn check_members(members: &Map<String, Value>, message: &MessageDescriptor) -> Result<(), Placed> {
    let mut seen = HashSet::new();
    for (name, value) in members {
        let field = message.get_field_by_json_name(name).or_else(|| message.get_field_by_name(name));
        // What is unknown is refused when the message is made.
        let Some(field) = field else { continue };
        if !seen.insert(field.number()) {
            let text = format!("field {} is set twice, as {} and as {}", field.name(), field.json_name(), field.name());
            return Err((Vec::new(), text));
        }
        check_field(value, &field).map_err(|(mut path, text)| {
            path.push(format!(".{name}"));
            (path, text)
        })?;
    }
    Ok(())
}

fn check_field(value: &Value, field: &FieldDescriptor) -> Result<(), Placed> {
    let Kind::Message(inner) = field.kind() else { return Ok(()) };
    let at = |key: String| {
        move |(mut path, text): Placed| {
            path.push(key);
            (path, text)
        }
    };
    match value {
        Value::Object(entries) if field.is_map() => {
            let entry = inner.map_entry_value_field();
            entries.iter().try_for_each(|(key, value)| check_field(value, &entry).map_err(at(format!(".{key}"))))
        }
        Value::Array(items) if field.is_list() => items
            .iter()
            .enumerate()
            .try_for_each(|(index, item)| check_message(item, &inner).map_err(at(format!("[{index}]")))),
        other => check_message(other, &inner),
    }
}

/// The message that an `Any` with these members has in it.
fn packed(members: &Map<String, Value>, any: &MessageDescriptor) -> Option<MessageDescriptor> {
    let (_, name) =
        members.get("@type").filter(|_| any.full_name() == "google.protobuf.Any")?.as_str()?.rsplit_once('/')?;
    any.parent_pool().get_message_by_name(name).filter(|inner| !inner.full_name().starts_with(WELL_KNOWN))
}

#[cfg(test)]
mod tests {
    use prost_reflect::DescriptorPool;
    use prost_types::{
        DescriptorProto, FieldDescriptorProto, FileDescriptorProto,
        field_descriptor_proto::{Label, Type},
    };
    use serde_json::json;

    use super::*;

    /// A letter with two names for each of its fields.
    fn letter() -> MessageDescriptor {
        let field = |(number, name, r#type, type_name, label): (i32, &str, Type, &str, Label)| FieldDescriptorProto {
            name: Some(name.to_owned()),
            number: Some(number),
            label: Some(label.into()),
            r#type: Some(r#type.into()),
            type_name: Some(type_name.to_owned()).filter(|name| !name.is_empty()),
            ..Default::default()
        };
        let fields = [
            (1, "user_id", Type::String, "", Label::Optional),
            (2, "sent_before", Type::Message, ".Letter", Label::Repeated),
            (3, "the_any", Type::Message, ".google.protobuf.Any", Label::Optional),
            (4, "the_struct", Type::Message, ".google.protobuf.Struct", Label::Optional),
        ];
        let message =
            DescriptorProto { name: Some("Letter".to_owned()), field: fields.map(field).into(), ..Default::default() };
        let file = FileDescriptorProto {
            name: Some("letter.proto".to_owned()),
            syntax: Some("proto3".to_owned()),
            message_type: vec![message],
            dependency: ["any", "struct"].map(|name| format!("google/protobuf/{name}.proto")).into(),
            ..Default::default()
        };
        let known = ["any", "struct"].map(|name| {
            let file = DescriptorPool::global().get_file_by_name(&format!("google/protobuf/{name}.proto"));
            file.unwrap().file_descriptor_proto().clone()
        });
        let mut pool = DescriptorPool::new();
        pool.add_file_descriptor_protos(known.into_iter().chain([file])).unwrap();
        pool.get_message_by_name("Letter").unwrap()
    }

    #[test]
    fn a_field_is_set_once() {
        let letter = letter();
        for sound in [
            json!({ "userId": "a", "sentBefore": [{ "user_id": "b" }, { "userId": "c" }] }),
            json!({ "user_id": "a", "theStruct": { "userId": 1, "user_id": 2 } }),
            json!({ "theAny": { "@type": "t/google.protobuf.Struct", "value": { "userId": 1, "user_id": 2 } } }),
            json!([1]),
        ] {
            assert_eq!(check(&sound, &letter), Ok(()), "{sound}");
        }
        let twice = || json!({ "userId": "a", "user_id": "b" });
        let told = "field user_id is set twice, as userId and as user_id";
        let mut packed = twice();
        packed["@type"] = json!("type.googleapis.com/Letter");
        for (params, place) in [
            (twice(), ""),
            (json!({ "sent_before": [{}, twice()] }), "sent_before[1]: "),
            (json!({ "sentBefore": [{ "sentBefore": [twice()] }] }), "sentBefore[0].sentBefore[0]: "),
            (json!({ "theAny": packed }), "theAny: "),
        ] {
            assert_eq!(check(&params, &letter), Err(format!("{place}{told}")), "{params}");
        }
    }
}
