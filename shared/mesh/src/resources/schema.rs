//! JSON Schema of resource documents, for editors. Source: JSON Schema 2020-12.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Value, json};

use super::Kind;

/// JSON Schemas of the parts of a document.
#[derive(Debug)]
pub struct PartSchemas {
    /// Of `meta`.
    pub meta: Schema,
    /// Of `spec`.
    pub spec: Schema,
}

/// The `schema` of a kind whose documents are a resource of `M` and `S`.
pub fn schema_typed<M: JsonSchema, S: JsonSchema>(generator: &mut SchemaGenerator) -> PartSchemas {
    PartSchemas { meta: generator.subschema_for::<M>(), spec: generator.subschema_for::<S>() }
}

/// The JSON Schema of documents of `kinds`.
pub fn json_schema(kinds: &[Kind]) -> Value {
    let mut generator = SchemaGenerator::default();
    let of_kind = |kind: &Kind| {
        let PartSchemas { meta, spec } = (kind.schema)(&mut generator);
        json!({
            "if": { "properties": { "kind": { "const": kind.name } } },
            "then": { "properties": { "meta": meta, "spec": spec } },
        })
    };
    let by_kind: Vec<Value> = kinds.iter().map(of_kind).collect();
    let names: Vec<&str> = kinds.iter().map(|kind| kind.name).collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Perigee resource",
        "type": ["object", "null"],
        "required": ["kind", "meta"],
        "additionalProperties": false,
        "properties": {
            "kind": { "enum": names, "description": "What the document describes." },
            "meta": { "type": "object", "description": "Identity of the document." },
            "spec": { "type": ["object", "null"], "description": "Content of the document." },
        },
        "allOf": by_kind,
        "$defs": generator.take_definitions(true),
    })
}
