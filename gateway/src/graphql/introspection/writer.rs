//! Answers to introspection, written from a schema straight into compressed JSON.
//!
//! The answer for a thousand tables is megabytes of JSON and a few hundred kilobytes compressed: the former is never in
//! memory as a whole.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
};

use async_graphql::registry::{MetaDirective, MetaEnumValue, MetaField, MetaInputValue, MetaType, Registry};
use bytes::Bytes;
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use query::Value;
use serde::Serialize;

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
    registry: &'a Registry,
    /// Types that fields, arguments and directives lead to.
    visible: BTreeSet<&'a str>,
}

impl<'a> Introspector<'a> {
    /// An introspector of the schema that `registry` describes.
    pub fn new(registry: &'a Registry) -> Self {
        let mut visible = BTreeSet::new();
        let roots = [Some(registry.query_type.as_str()), registry.mutation_type.as_deref(), Some("__Schema")];
        let mut open: Vec<&str> = roots.into_iter().flatten().collect();
        let arguments = registry.directives.values().flat_map(|directive| directive.args.values());
        open.extend(arguments.map(|argument| named(&argument.ty)));
        while let Some(name) = open.pop() {
            let Some(r#type) = registry.types.get(name) else { continue };
            if !visible.insert(name) {
                continue;
            }
            match r#type {
                MetaType::Object { fields, .. } => {
                    for field in fields.values() {
                        open.push(named(&field.ty));
                        open.extend(field.args.values().map(|argument| named(&argument.ty)));
                    }
                }
                MetaType::InputObject { input_fields, .. } => {
                    open.extend(input_fields.values().map(|field| named(&field.ty)));
                }
                MetaType::Scalar { .. }
                | MetaType::Enum { .. }
                | MetaType::Interface { .. }
                | MetaType::Union { .. } => {}
            }
        }
        Self { registry, visible }
    }

    /// The answer to a field of `Query`, of at most so many bytes.
    pub fn answer(&self, field: &IntrospectionField, bytes_max: u64) -> Result<CompressedJson, NoAnswer> {
        let mut out = Output::new(bytes_max);
        match field.name.as_str() {
            "__schema" => {
                self.check("__Schema", field)?;
                self.object(&mut out, Described::Schema, &field.fields)?;
            }
            _ => {
                self.check("__Type", field)?;
                let known = match &field.argument {
                    Some(Value::Text(name)) => self.visible.get(name.as_str()),
                    _ => None,
                };
                self.optional(&mut out, known.map(|name| Described::Type(name)), &field.fields)?;
            }
        }
        out.finish()
    }

    /// Checks that the selection of a field whose type is called `name` fits it.
    fn check(&self, name: &str, field: &IntrospectionField) -> Result<(), NoAnswer> {
        let Some(MetaType::Object { fields, .. }) = self.registry.types.get(name) else {
            return match field.fields.is_empty() {
                true => Ok(()),
                false => Err(NoAnswer::Invalid(format!("field {} has no fields to select", field.name))),
            };
        };
        if field.fields.is_empty() {
            return Err(NoAnswer::Invalid(format!("field {} needs a selection of its fields", field.name)));
        }
        for inner in field.fields.iter().filter(|inner| inner.name != "__typename") {
            let Some(meta) = fields.get(&inner.name) else {
                let hint = query::nearest(&inner.name, fields.keys().map(String::as_str));
                let hint = hint.map(|name| format!("; did you mean {name}?")).unwrap_or_default();
                return Err(NoAnswer::Invalid(format!("field {} is not in {name}{hint}", inner.name)));
            };
            self.check(named(&meta.ty), inner)?;
        }
        Ok(())
    }

    fn object(
        &self,
        out: &mut Output,
        described: Described<'a>,
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
                (name, Described::Field(meta)) => self.of_field(out, meta, name, field)?,
                (name, Described::Input(meta)) => self.of_input(out, meta, name, field)?,
                (name, Described::EnumValue(meta)) => match name {
                    "name" => out.json(&meta.name)?,
                    "description" => out.json(&meta.description)?,
                    "isDeprecated" => out.json(&false)?,
                    _ => out.null()?,
                },
                (name, Described::Directive(meta)) => self.of_directive(out, meta, name, field)?,
            }
        }
        out.write(b"}")
    }

    fn of_schema(&self, out: &mut Output, name: &str, field: &IntrospectionField) -> Result<(), NoAnswer> {
        let root = |name: Option<&'a str>| name.map(Described::Type);
        match name {
            "types" => self.list(out, self.visible.iter().map(|name| Described::Type(name)), field),
            "queryType" => self.optional(out, root(Some(&self.registry.query_type)), &field.fields),
            "mutationType" => self.optional(out, root(self.registry.mutation_type.as_deref()), &field.fields),
            "directives" => self.list(out, self.registry.directives.values().map(Described::Directive), field),
            _ => out.null(),
        }
    }

    /// Fields of a type, which may be wrapped: `[Album!]!`.
    fn of_type(
        &self,
        out: &mut Output,
        r#type: &'a str,
        name: &str,
        field: &IntrospectionField,
    ) -> Result<(), NoAnswer> {
        let wrapped = match (r#type.strip_suffix('!'), r#type.strip_prefix('[')) {
            (Some(inner), _) => Some(("NON_NULL", inner)),
            (None, Some(inner)) => Some(("LIST", inner.strip_suffix(']').unwrap_or(inner))),
            (None, None) => None,
        };
        if let Some((kind, inner)) = wrapped {
            return match name {
                "kind" => out.json(kind),
                "ofType" => self.optional(out, Some(Described::Type(inner)), &field.fields),
                _ => out.null(),
            };
        }
        match (name, self.registry.types.get(r#type)) {
            ("name", _) => out.json(r#type),
            ("kind", Some(meta)) => out.json(kind(meta)),
            ("description", Some(meta)) => out.json(&description(meta)),
            ("fields", Some(MetaType::Object { fields, .. })) => {
                // The roots of introspection itself are not listed.
                let fields = fields.values().filter(|field| !field.name.starts_with("__"));
                self.list(out, fields.map(Described::Field), field)
            }
            ("interfaces", Some(MetaType::Object { .. })) => out.write(b"[]"),
            ("inputFields", Some(MetaType::InputObject { input_fields, .. })) => {
                self.list(out, input_fields.values().map(Described::Input), field)
            }
            ("isOneOf", Some(MetaType::InputObject { oneof, .. })) => out.json(oneof),
            ("enumValues", Some(MetaType::Enum { enum_values, .. })) => {
                self.list(out, enum_values.values().map(Described::EnumValue), field)
            }
            ("specifiedByURL", Some(MetaType::Scalar { specified_by_url, .. })) => out.json(specified_by_url),
            _ => out.null(),
        }
    }

    fn of_field(
        &self,
        out: &mut Output,
        meta: &'a MetaField,
        name: &str,
        field: &IntrospectionField,
    ) -> Result<(), NoAnswer> {
        match name {
            "name" => out.json(&meta.name),
            "description" => out.json(&meta.description),
            "args" => self.list(out, meta.args.values().map(Described::Input), field),
            "type" => self.optional(out, Some(Described::Type(&meta.ty)), &field.fields),
            "isDeprecated" => out.json(&false),
            _ => out.null(),
        }
    }

    fn of_input(
        &self,
        out: &mut Output,
        meta: &'a MetaInputValue,
        name: &str,
        field: &IntrospectionField,
    ) -> Result<(), NoAnswer> {
        match name {
            "name" => out.json(&meta.name),
            "description" => out.json(&meta.description),
            "type" => self.optional(out, Some(Described::Type(&meta.ty)), &field.fields),
            "defaultValue" => out.json(&meta.default_value),
            "isDeprecated" => out.json(&false),
            _ => out.null(),
        }
    }

    fn of_directive(
        &self,
        out: &mut Output,
        meta: &'a MetaDirective,
        name: &str,
        field: &IntrospectionField,
    ) -> Result<(), NoAnswer> {
        match name {
            "name" => out.json(&meta.name),
            "description" => out.json(&meta.description),
            "locations" => {
                let locations: Vec<String> = meta.locations.iter().map(|location| format!("{location:?}")).collect();
                out.json(&locations)
            }
            "args" => self.list(out, meta.args.values().map(Described::Input), field),
            "isRepeatable" => out.json(&meta.is_repeatable),
            _ => out.null(),
        }
    }

    fn optional(
        &self,
        out: &mut Output,
        described: Option<Described<'a>>,
        fields: &[IntrospectionField],
    ) -> Result<(), NoAnswer> {
        match described {
            Some(described) => self.object(out, described, fields),
            None => out.null(),
        }
    }

    fn list(
        &self,
        out: &mut Output,
        all: impl Iterator<Item = Described<'a>>,
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
    /// A type by its name, with the `!` and `[]` around it.
    Type(&'a str),
    Field(&'a MetaField),
    Input(&'a MetaInputValue),
    EnumValue(&'a MetaEnumValue),
    Directive(&'a MetaDirective),
}

impl Described<'_> {
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

/// The name within `[Album!]!`.
fn named(r#type: &str) -> &str {
    r#type.trim_matches(['[', ']', '!'])
}

fn kind(meta: &MetaType) -> &'static str {
    match meta {
        MetaType::Scalar { .. } => "SCALAR",
        MetaType::Object { .. } => "OBJECT",
        MetaType::Interface { .. } => "INTERFACE",
        MetaType::Union { .. } => "UNION",
        MetaType::Enum { .. } => "ENUM",
        MetaType::InputObject { .. } => "INPUT_OBJECT",
    }
}

fn description(meta: &MetaType) -> Option<&str> {
    match meta {
        MetaType::Scalar { description, .. }
        | MetaType::Object { description, .. }
        | MetaType::Interface { description, .. }
        | MetaType::Union { description, .. }
        | MetaType::Enum { description, .. }
        | MetaType::InputObject { description, .. } => description.as_deref(),
    }
}

/// Compresses what is written, up to a limit.
struct Output {
    buffer: Vec<u8>,
    encoder: GzEncoder<Vec<u8>>,
    bytes: u64,
    bytes_max: u64,
}

impl Output {
    fn new(bytes_max: u64) -> Self {
        let encoder = GzEncoder::new(Vec::new(), Compression::fast());
        Self { buffer: Vec::new(), encoder, bytes: 0, bytes_max }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), NoAnswer> {
        self.buffer.extend_from_slice(bytes);
        self.flush_above(CHUNK_BYTES)
    }

    fn json<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NoAnswer> {
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

    fn finish(mut self) -> Result<CompressedJson, NoAnswer> {
        self.flush_above(0)?;
        let compressed = self.encoder.finish().expect("memory takes what is written");
        Ok(CompressedJson { compressed: compressed.into(), bytes: self.bytes })
    }
}
