//! Validation of the hooks of tables; the gateway asks them.

use mesh::resources::{Document, ResourceFault};
use query::hook::BeforeWrites;
use serde::Deserialize;

/// Key of the hooks in the `spec` of a table.
pub const KEY: &str = "before";

/// Faults of the hooks in a document.
pub fn faults(document: &Document) -> Vec<ResourceFault> {
    let Some(json) = document.spec.get(KEY).filter(|json| !json.is_null()) else { return Vec::new() };
    if !json.is_object() {
        return vec![document.fault(&format!("spec.{KEY}"), "expected mapping")];
    }
    match BeforeWrites::deserialize(json) {
        Ok(hooks) => {
            hooks.faults().into_iter().map(|(path, text)| document.fault(&format!("spec.{KEY}.{path}"), text)).collect()
        }
        Err(error) => vec![document.fault(&format!("spec.{KEY}"), error.to_string())],
    }
}

#[cfg(test)]
mod tests {
    use mesh::resources::Snapshot;
    use serde_json::{Value as Json, json};

    use crate::cases::parsed;

    #[test]
    fn hooks_are_checked_when_they_are_loaded() {
        let faults = |before: Json| {
            let project = json!({"kind": "project", "meta": {"id": "shop"}});
            let database =
                json!({"kind": "database", "meta": {"project": "shop", "id": "main"}, "spec": {"url": "sqlite:a.db"}});
            let meta = json!({"project": "shop", "database": "main", "id": "invoice"});
            let table = json!({"kind": "table", "meta": meta, "spec": {"before": before}});
            let told = parsed(&[project, database, table]).map(|_: Snapshot| Vec::new());
            told.unwrap_or_else(|faults| {
                faults.iter().map(|fault| format!("{}: {}", fault.path, fault.message)).collect()
            })
        };
        let hook = json!({"service": "checks", "function": "invoice", "timeout": "2s"});
        assert_eq!(faults(json!({"create": hook, "update": hook, "delete": hook})), Vec::<String>::new());
        for (before, told) in [
            (json!({"read": hook}), "spec.before: unknown field `read`"),
            (json!({"create": {"service": "checks"}}), "spec.before: missing field `function`"),
            (json!({"create": {"service": "", "function": "f"}}), "spec.before.create.service: must not be empty"),
            (json!([]), "spec.before: expected mapping"),
        ] {
            let found = faults(before.clone());
            assert!(found.iter().any(|fault| fault.starts_with(told)), "{before}: {found:?}");
        }
    }
}
