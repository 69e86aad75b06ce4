//! Answers to introspection, written from a schema straight into compressed JSON.
//!
//! The answer for a thousand tables is megabytes of JSON and a few hundred kilobytes compressed: the former is never in
//! memory as a whole.

use std::io::{Read, Write};

use bytes::Bytes;
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use query::Value;
use serde::Serialize;

use super::schema::{
    DirectiveDefinition, EnumValueDefinition, FieldDefinition, InputDefinition, Members, PublishedSchema, TypeKey,
    TypeKind, TypeRef, Wrapper, directives, introspection_type,
};
use crate::graphql::plan::IntrospectionField;

/// JSON that is written before it is compressed, and that is read at a time.
const CHUNK_BYTES: usize = 64 * 1024;

/// Compressed JSON.
#[derive(Debug, Clone)]
pub struct CompressedJson {
    compressed: Bytes,
    /// Its length when it is not compressed.
    pub bytes: u64,
}

impl CompressedJson {
    /// `null`
    pub fn null() -> Self {
        let mut out = Output::new(u64::MAX);
        out.null().and_then(|()| out.finish()).expect("there is no limit")
    }

    /// Approximate memory in bytes.
    pub fn memory(&self) -> usize {
        self.compressed.len()
    }

    /// The JSON in pieces.
    pub fn pieces(&self) -> impl Iterator<Item = std::io::Result<Bytes>> + Send + use<> {
        let mut decoder = GzDecoder::new(std::io::Cursor::new(self.compressed.clone())).take(self.bytes);
        std::iter::from_fn(move || {
            let mut piece = Vec::with_capacity(CHUNK_BYTES);
            match decoder.by_ref().take(CHUNK_BYTES as u64).read_to_end(&mut piece) {
                Ok(0) => None,
                Ok(_) => Some(Ok(Bytes::from(piece))),
                Err(error) => Some(Err(error)),
            }
        })
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq)]
pub enum NoAnswer {
    /// The selection does not fit the types of introspection.
    Invalid(String),
    /// The answer would have more bytes than it may.
    TooLarge,
}

/// Writes answers about one schema.
pub struct Introspector<'a> {
    schema: PublishedSchema<'a>,
    /// Types that fields, arguments and directives lead to, ordered by their names.
    types: Vec<TypeKey>,
}

impl<'a> Introspector<'a> {
    /// An introspector of `schema`.
    pub fn new(schema: PublishedSchema<'a>) -> Self {
        Self { types: schema.reachable_types(), schema }
    }

    /// The answer to a field of `Query`, of at most so many bytes.
    pub fn answer(&self, field: &IntrospectionField, bytes_max: u64) -> Result<CompressedJson, NoAnswer> {
        let mut out = Output::new(bytes_max);
        match field.name.as_str() {
            "__schema" => {
                self.check(introspection_type("__Schema"), field)?;
                self.object(&mut out, Described::Schema, &field.fields)?;
            }
            _ => {
                self.check(introspection_type("__Type"), field)?;
                let known = match &field.argument {
                    Some(Value::Text(name)) => self.r#type(name),
                    _ => None,
                };
                self.optional(&mut out, known.map(Described::named), &field.fields)?;
            }
        }
        out.finish()
    }

    fn r#type(&self, name: &str) -> Option<TypeKey> {
        let found = self.types.binary_search_by_key(&name, |key| self.schema.name(*key));
        found.ok().map(|index| self.types[index])
    }

    /// Checks that the selection of a field of this type fits it.
    fn check(&self, r#type: TypeKey, field: &IntrospectionField) -> Result<(), NoAnswer> {
        let Members::Fields(fields) = self.schema.members(r#type) else {
            return match field.fields.is_empty() {
                true => Ok(()),
                false => Err(NoAnswer::Invalid(format!("field {} has no fields to select", field.name))),
            };
        };
        if field.fields.is_empty() {
            return Err(NoAnswer::Invalid(format!("field {} needs a selection of its fields", field.name)));
        }
        for inner in field.fields.iter().filter(|inner| inner.name != "__typename") {
            let Some(definition) = fields.iter().find(|field| field.name == inner.name) else {
                let hint = query::nearest(&inner.name, fields.iter().map(|field| field.name.as_ref()));
                let hint = hint.map(|name| format!("; did you mean {name}?")).unwrap_or_default();
                let name = self.schema.name(r#type);
                return Err(NoAnswer::Invalid(format!("field {} is not in {name}{hint}", inner.name)));
            };
            self.check(definition.r#type.named, inner)?;
        }
        Ok(())
    }

    fn object(
        &self,
        out: &mut Output,
        described: Described<'_>,
        fields: &[IntrospectionField],
    ) -> Result<(), NoAnswer> {
        out.write(b"{")?;
        for (index, field) in fields.iter().enumerate() {
            out.write(if index > 0 { b",\"" } else { b"\"" })?;
            out.write(field.key.as_bytes())?;
            out.write(b"\":")?;
            match (field.name.as_str(), described) {
                ("__typename", _) => out.json(described.type_name())?,
                (name, Described::Schema) => self.of_schema(out, name, field)?,
                (name, Described::Type(r#type)) => self.of_type(out, r#type, name, field)?,
                (name, Described::Field(definition)) => self.of_field(out, definition, name, field)?,
                (name, Described::Input(definition)) => self.of_input(out, definition, name, field)?,
                (name, Described::EnumValue(definition)) => match name {
                    "name" => out.json(&definition.name)?,
                    "description" => out.json(&definition.description)?,
                    "isDeprecated" => out.json(&false)?,
                    _ => out.null()?,
                },
                (name, Described::Directive(definition)) => self.of_directive(out, definition, name, field)?,
            }
        }
        out.write(b"}")
    }

    fn of_schema(&self, out: &mut Output, name: &str, field: &IntrospectionField) -> Result<(), NoAnswer> {
        match name {
            "types" => self.list(out, self.types.iter().copied().map(Described::named), field),
            "queryType" => self.object(out, Described::named(TypeKey::Query), &field.fields),
            "mutationType" => self.optional(out, self.schema.mutation_type().map(Described::named), &field.fields),
            "subscriptionType" => {
                self.optional(out, self.schema.subscription_type().map(Described::named), &field.fields)
            }
            "directives" => {
                let directives: Vec<_> = directives().collect();
                self.list(out, directives.iter().map(Described::Directive), field)
            }
            _ => out.null(),
        }
    }

    /// Fields of a type, which may be wrapped: `[Album!]!`.
    fn of_type(
        &self,
        out: &mut Output,
        r#type: TypeRef,
        name: &str,
        field: &IntrospectionField,
    ) -> Result<(), NoAnswer> {
        if let Some((wrapper, inner)) = r#type.unwrapped() {
            return match name {
                "kind" => out.json(match wrapper {
                    Wrapper::NonNull => "NON_NULL",
                    Wrapper::List => "LIST",
                }),
                "ofType" => self.object(out, Described::Type(inner), &field.fields),
                _ => out.null(),
            };
        }
        let (schema, key) = (&self.schema, r#type.named);
        match (name, schema.kind(key)) {
            ("name", _) => out.json(schema.name(key)),
            ("kind", kind) => out.json(kind.name()),
            ("description", _) => out.json(&schema.description(key)),
            ("interfaces", TypeKind::Object) => out.write(b"[]"),
            ("isOneOf", TypeKind::InputObject) => out.json(&false),
            ("fields", TypeKind::Object) | ("inputFields", TypeKind::InputObject) | ("enumValues", TypeKind::Enum) => {
                match schema.members(key) {
                    Members::Fields(fields) => self.list(out, fields.iter().map(Described::Field), field),
                    Members::Inputs(inputs) => self.list(out, inputs.iter().map(Described::Input), field),
                    Members::Values(values) => self.list(out, values.iter().map(Described::EnumValue), field),
                    Members::Scalar => out.null(),
                }
            }
            _ => out.null(),
        }
    }

    fn of_field(
        &self,
        out: &mut Output,
        definition: &FieldDefinition<'_>,
        name: &str,
        field: &IntrospectionField,
    ) -> Result<(), NoAnswer> {
        match name {
            "name" => out.json(&definition.name),
            "description" => out.json(&definition.description),
            "args" => self.list(out, definition.arguments.iter().map(Described::Input), field),
            "type" => self.object(out, Described::Type(definition.r#type), &field.fields),
            "isDeprecated" => out.json(&false),
            _ => out.null(),
        }
    }

    fn of_input(
        &self,
        out: &mut Output,
        definition: &InputDefinition<'_>,
        name: &str,
        field: &IntrospectionField,
    ) -> Result<(), NoAnswer> {
        match name {
            "name" => out.json(&definition.name),
            "description" => out.json(&definition.description),
            "type" => self.object(out, Described::Type(definition.r#type), &field.fields),
            "defaultValue" => out.json(&definition.default),
            "isDeprecated" => out.json(&false),
            _ => out.null(),
        }
    }

    fn of_directive(
        &self,
        out: &mut Output,
        definition: &DirectiveDefinition<'_>,
        name: &str,
        field: &IntrospectionField,
    ) -> Result<(), NoAnswer> {
        match name {
            "name" => out.json(&definition.name),
            "description" => out.json(&definition.description),
            "locations" => out.json(&definition.locations),
            "args" => self.list(out, definition.arguments.iter().map(Described::Input), field),
            "isRepeatable" => out.json(&false),
            _ => out.null(),
        }
    }

    fn optional(
        &self,
        out: &mut Output,
        described: Option<Described<'_>>,
        fields: &[IntrospectionField],
    ) -> Result<(), NoAnswer> {
        match described {
            Some(described) => self.object(out, described, fields),
            None => out.null(),
        }
    }

    fn list<'d>(
        &self,
        out: &mut Output,
        all: impl Iterator<Item = Described<'d>>,
        field: &IntrospectionField,
    ) -> Result<(), NoAnswer> {
        out.write(b"[")?;
        for (index, described) in all.enumerate() {
            if index > 0 {
                out.write(b",")?;
            }
            self.object(out, described, &field.fields)?;
        }
        out.write(b"]")
    }
}

/// What an object of an answer describes.
#[derive(Clone, Copy)]
enum Described<'a> {
    Schema,
    Type(TypeRef),
    Field(&'a FieldDefinition<'a>),
    Input(&'a InputDefinition<'a>),
    EnumValue(&'a EnumValueDefinition<'a>),
    Directive(&'a DirectiveDefinition<'a>),
}

impl Described<'_> {
    fn named(key: TypeKey) -> Self {
        Described::Type(TypeRef::of(key))
    }

    fn type_name(self) -> &'static str {
        match self {
            Described::Schema => "__Schema",
            Described::Type(_) => "__Type",
            Described::Field(_) => "__Field",
            Described::Input(_) => "__InputValue",
            Described::EnumValue(_) => "__EnumValue",
            Described::Directive(_) => "__Directive",
        }
    }
}

/// Compresses what is written, up to a limit.
pub struct Output {
    buffer: Vec<u8>,
    encoder: GzEncoder<Vec<u8>>,
    bytes: u64,
    bytes_max: u64,
}

impl Output {
    /// Nothing yet, of at most so many bytes of JSON.
    pub fn new(bytes_max: u64) -> Self {
        let encoder = GzEncoder::new(Vec::new(), Compression::fast());
        Self { buffer: Vec::new(), encoder, bytes: 0, bytes_max }
    }

    /// Writes a part of the JSON.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), NoAnswer> {
        self.buffer.extend_from_slice(bytes);
        self.flush_above(CHUNK_BYTES)
    }

    /// Writes a value as JSON.
    pub fn json<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NoAnswer> {
        serde_json::to_writer(&mut self.buffer, value).expect("texts can always be written to memory");
        self.flush_above(CHUNK_BYTES)
    }

    fn null(&mut self) -> Result<(), NoAnswer> {
        self.write(b"null")
    }

    fn flush_above(&mut self, bytes: usize) -> Result<(), NoAnswer> {
        if self.buffer.len() <= bytes {
            return Ok(());
        }
        self.bytes += self.buffer.len() as u64;
        if self.bytes > self.bytes_max {
            return Err(NoAnswer::TooLarge);
        }
        self.encoder.write_all(&self.buffer).expect("memory takes what is written");
        self.buffer.clear();
        Ok(())
    }

    /// All that was written.
    pub fn finish(mut self) -> Result<CompressedJson, NoAnswer> {
        self.flush_above(0)?;
        let compressed = self.encoder.finish().expect("memory takes what is written");
        Ok(CompressedJson { compressed: compressed.into(), bytes: self.bytes })
    }
}
