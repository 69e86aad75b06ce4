//! `event` resources: who may queue custom events, and what their payloads have to be.

use std::sync::Arc;

use mesh::{
    json_schema::JsonSchema,
    resources::{Document, Kind, Parsed, ResourceFault, Snapshot},
};
use query::event::{self, EventMeta, EventResource};

use crate::{
    json_schema, names,
    path::Scope,
    rule::{Diagnostic, Parser, Policy},
};

/// The resource kind `event`.
pub const EVENT: Kind = Kind { name: "event", parse: EventDocument::parse, check, schema: json_schema::event };

/// The id of the document of types without one of their own.
pub const DEFAULT: &str = "default";

/// A parsed `event` resource.
#[derive(Debug)]
pub struct EventDocument {
    /// Its key.
    pub meta: EventMeta,
    /// Its policy.
    pub policy: EventPolicy,
    /// Warnings about it.
    pub warnings: Vec<Diagnostic>,
}

/// The policy of a type of custom events.
#[derive(Debug, Clone, Default)]
pub struct EventPolicy {
    /// Who may queue one; `None`: nobody.
    pub policy: Option<Arc<Policy>>,
    /// What its payload has to be; `None`: anything.
    pub schema: Option<Arc<JsonSchema>>,
}

impl EventDocument {
    /// Parses a document; all errors in it if it has any.
    pub fn parse(document: &Document) -> Result<Parsed, Vec<ResourceFault>> {
        let EventResource { meta, spec } = document.read().map_err(|fault| vec![fault])?;
        let mut parser = Parser::default();
        if let Err(why) = event::check_name(&meta.id) {
            parser.error("meta.id", why);
        } else if event::is_internal(&meta.id) {
            parser.error("meta.id", format!("event type {} is built in, and nobody queues its events", meta.id));
        }
        let policy = spec.rule.as_ref().and_then(|rule| parser.policy_in(Scope::Events, rule, "spec.rule"));
        let policy = policy.map(|policy| {
            let ResourceFault { file, line, .. } = document.fault("spec.rule", "");
            Arc::new(Policy { place: format!("{file}:{line}: spec.rule"), ..policy })
        });
        let schema = match spec.schema.as_ref().map(JsonSchema::new) {
            Some(Ok(schema)) => Some(Arc::new(schema)),
            Some(Err((path, why))) => {
                parser.error(&format!("spec.schema{path}"), why);
                None
            }
            None => None,
        };
        if !parser.errors.is_empty() {
            return Err(parser.errors.into_iter().map(|error| document.fault(&error.path, error.message)).collect());
        }
        Ok(Arc::new(Self { meta, policy: EventPolicy { policy, schema }, warnings: parser.warnings }))
    }
}

/// Errors between events, and in the names that they refer to.
fn check(snapshot: &Snapshot) -> Vec<ResourceFault> {
    names::faults(snapshot, EVENT.name, |_, _| None)
}

#[cfg(test)]
mod tests {
    use mesh::resources::Snapshot;
    use serde_json::{Value as Json, json};

    use crate::cases::parsed;

    fn faults(id: &str, spec: Json) -> Vec<String> {
        let project = json!({"kind": "project", "meta": {"id": "shop"}});
        let event = json!({"kind": "event", "meta": {"project": "shop", "id": id}, "spec": spec});
        let told = parsed(&[project, event]).map(|_: Snapshot| Vec::new());
        told.unwrap_or_else(|faults| faults.iter().map(|fault| format!("{}: {}", fault.path, fault.message)).collect())
    }

    #[test]
    fn a_sound_event_has_no_faults() {
        let rule =
            json!({"rule": "match", "type": "string", "eval": "==", "f1": "args.params.mail", "f2": "args.auth.mail"});
        let schema = json!({"type": "object", "properties": {"mail": {"$ref": "#/$defs/mail"}}, "$defs": {"mail": {"type": "string"}}});
        assert_eq!(faults("signup", json!({"rule": rule, "schema": schema})), Vec::<String>::new());
        assert_eq!(faults("default", json!({})), Vec::<String>::new());
    }

    #[test]
    fn faults_name_their_place() {
        let schema = |schema: Json| json!({"rule": {"rule": "allow"}, "schema": schema});
        for (id, spec, told) in [
            ("a", json!({"rule": {"rule": "alow"}}), "spec.rule.rule: unknown rule kind"),
            ("a", json!({"rul": {}}), "spec.rul"),
            (
                "a",
                json!({"rule": {"rule": "match", "type": "string", "eval": "==", "f1": "args.find.a", "f2": "x"}}),
                "args.find is not available in rules of events",
            ),
            ("DB_INSERT", json!({}), "meta.id: event type DB_INSERT is built in"),
            ("dlq_a", json!({}), "meta.id: event type dlq_a is built in"),
            ("", json!({}), "meta.id: invalid event type"),
            ("a", schema(json!({"type": "strin"})), "spec.schema"),
            ("a", schema(json!([])), "spec.schema: expected mapping"),
            ("a", schema(json!({"pattern": "(a)\\1"})), "spec.schema: invalid JSON Schema"),
            (
                "a",
                schema(json!({"properties": {"a": {"$ref": "http://localhost/x"}}})),
                "spec.schema.properties.a.$ref: expected a place inside the schema",
            ),
            ("a", schema(json!({"$ref": "other.json"})), "spec.schema.$ref: expected a place inside the schema"),
            ("a", schema(json!({"$ref": "#/$defs/none"})), "spec.schema"),
            ("a", schema(json!({"$schema": "http://json-schema.org/draft-07/schema#"})), "spec.schema.$schema"),
        ] {
            let found = faults(id, spec.clone());
            assert!(found.iter().any(|fault| fault.contains(told)), "{spec}: {found:?}");
        }
        let project = json!({"kind": "project", "meta": {"id": "shop"}});
        let of = |project: &str| json!({"kind": "event", "meta": {"project": project, "id": "a"}});
        let count = |documents: &[Json]| parsed(documents).err().unwrap_or_default().len();
        assert_eq!((count(&[project.clone(), of("shop"), of("shop")]), count(&[project, of("shap")])), (1, 1));
    }
}
