//! `service` resources: the policies of functions; the rest of them is checked here, and used by the gateway and the
//! service of functions.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use mesh::resources::{Document, Kind, Parsed, ResourceFault, Snapshot};
use query::function::{Function, ServiceMeta, ServiceResource as Spec};

use crate::{
    json_schema,
    path::Scope,
    rule::{Diagnostic, Parser, Policy},
};

/// The resource kind `service`.
pub const SERVICE: Kind = Kind { name: "service", parse: ServiceResource::parse, check, schema: json_schema::service };

/// Most bytes of the name of a function.
const NAME_BYTES: usize = 128;

/// A parsed `service` resource.
#[derive(Debug)]
pub struct ServiceResource {
    /// Its key.
    pub meta: ServiceMeta,
    /// Its policies.
    pub policies: FunctionPolicies,
    /// Warnings about it.
    pub warnings: Vec<Diagnostic>,
}

/// The policies of the functions of a service.
#[derive(Debug, Clone, Default)]
pub struct FunctionPolicies {
    by_name: BTreeMap<String, FunctionPolicy>,
    /// Of functions that are not listed.
    default: FunctionPolicy,
}

/// The policy of a function.
#[derive(Debug, Clone, Default)]
pub struct FunctionPolicy {
    /// Who may call it; `None`: nobody.
    pub policy: Option<Arc<Policy>>,
    /// Whether it gets the caller's own token.
    pub forwards: bool,
}

impl FunctionPolicies {
    /// The policy of a function.
    pub fn of(&self, function: &str) -> &FunctionPolicy {
        self.by_name.get(function).unwrap_or(&self.default)
    }
}

impl ServiceResource {
    /// Parses a document; all errors in it if it has any.
    pub fn parse(document: &Document) -> Result<Parsed, Vec<ResourceFault>> {
        let Spec { meta, spec } = document.read().map_err(|fault| vec![fault])?;
        let mut parser = Parser::default();
        check_id(&meta.id, &mut parser);
        let mut by_name = BTreeMap::new();
        for (name, function) in &spec.functions {
            let at = format!("spec.functions.{name}");
            if name.is_empty() || name.len() > NAME_BYTES || name.chars().any(char::is_control) {
                parser.error(&at, format!("invalid function name {name:?}: expected up to {NAME_BYTES} characters"));
            }
            by_name.insert(name.clone(), policy(function, &at, document, &mut parser));
        }
        let default = spec.default.as_ref().map(|function| policy(function, "spec.default", document, &mut parser));
        if !parser.errors.is_empty() {
            return Err(parser.errors.into_iter().map(|error| document.fault(&error.path, error.message)).collect());
        }
        let policies = FunctionPolicies { by_name, default: default.unwrap_or_default() };
        Ok(Arc::new(ServiceResource { meta, policies, warnings: parser.warnings }))
    }
}

/// The policy of the function at `at`, whose limits are checked too.
fn policy(function: &Function, at: &str, document: &Document, parser: &mut Parser) -> FunctionPolicy {
    for (key, message) in function.faults() {
        parser.error(&format!("{at}.{key}"), message);
    }
    let path = format!("{at}.rule");
    let parsed = function.rule.as_ref().and_then(|rule| parser.policy_in(Scope::Functions, rule, &path));
    let policy = parsed.map(|policy| {
        let ResourceFault { file, line, .. } = document.fault(&path, "");
        Arc::new(Policy { place: format!("{file}:{line}: {path}"), ..policy })
    });
    FunctionPolicy { policy, forwards: function.forward }
}

fn check_id(id: &str, parser: &mut Parser) {
    let is_first = |byte: u8| byte.is_ascii_alphabetic();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if !id.bytes().next().is_some_and(is_first) || !id.bytes().all(is_plain) || id.len() > 63 {
        let message =
            format!("invalid service id {id:?}: expected up to 63 letters, digits, _ and -, beginning with a letter");
        parser.error("meta.id", message);
    }
}

/// Errors between services, and in the names that they refer to.
fn check(snapshot: &Snapshot) -> Vec<ResourceFault> {
    let projects: HashSet<&str> = snapshot.of_kind("project").filter_map(|project| project.name("id")).collect();
    let mut seen = HashSet::new();
    let mut faults = Vec::new();
    for document in snapshot.of_kind(SERVICE.name) {
        let (Some(project), Some(id)) = (document.name("project"), document.name("id")) else { continue };
        if !projects.contains(project) {
            let hint = query::nearest(project, projects.iter().copied()).map(|near| format!(", did you mean {near}?"));
            faults
                .push(document.fault("meta.project", format!("unknown project {project}{}", hint.unwrap_or_default())));
        }
        if !seen.insert((project, id)) {
            faults.push(document.fault("meta.id", format!("duplicate document of service {id}")));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use mesh::resources::Snapshot;
    use serde_json::{Value as Json, json};

    use crate::cases::parsed;

    fn faults(id: &str, spec: Json) -> Vec<String> {
        let project = json!({"kind": "project", "meta": {"id": "shop"}});
        let service = json!({"kind": "service", "meta": {"project": "shop", "id": id}, "spec": spec});
        let told = parsed(&[project, service]).map(|_: Snapshot| Vec::new());
        told.unwrap_or_else(|faults| faults.iter().map(|fault| format!("{}: {}", fault.path, fault.message)).collect())
    }

    fn with(function: Json) -> Json {
        json!({"http": {"url": "http://mail/"}, "functions": {"send": function}})
    }

    #[test]
    fn a_sound_service_has_no_faults() {
        let rule =
            json!({"rule": "match", "type": "string", "eval": "==", "f1": "args.params.to", "f2": "args.auth.mail"});
        let function = json!({
            "rule": rule, "timeout": "2s", "idempotent": true, "concurrency": 2, "queue": 0, "maxRequest": "1kB",
            "maxAnswer": 5, "forward": true, "path": "/u/{args.id}", "method": "GET",
            "headers": [{"key": "X-User", "value": "auth.id"}, {"key": "Accept", "op": "del"}],
        });
        assert_eq!(faults("mail", with(function)), Vec::<String>::new());
        let default =
            json!({"http": {"url": "https://mail"}, "default": {"rule": {"rule": "authenticated", "anonymous": true}}});
        assert_eq!(faults("mail", default), Vec::<String>::new());
    }

    #[test]
    fn faults_name_their_place_and_the_nearest() {
        for (spec, told) in [
            (json!({"http": {"url": "mail"}}), "spec.http.url"),
            (json!({"functions": {}}), "http"),
            (with(json!({"rle": {}})), "spec.functions.send.rle"),
            (with(json!({"rule": {"rule": "alow"}})), "spec.functions.send.rule.rule: unknown rule kind"),
            (with(json!({"rule": {"rule": "allow", "rowFilter": {}}})), "does not apply to rules of functions"),
            (
                with(
                    json!({"rule": {"rule": "match", "type": "string", "eval": "==", "f1": "args.find.a", "f2": "x"}}),
                ),
                "args.find is not available in rules of functions",
            ),
            (with(json!({"timeout": "301s"})), "spec.functions.send.timeout"),
            (with(json!({"concurrency": 0})), "spec.functions.send.concurrency: must be from 1"),
            (with(json!({"path": "/{id}"})), "spec.functions.send.path"),
            (with(json!({"method": "TRACE"})), "spec.functions.send.method"),
            (with(json!({"headers": [{"key": "Host", "value": "x"}]})), "spec.functions.send.headers"),
            (with(json!({"headers": [{"key": "A", "value": "token"}]})), "forward: true"),
        ] {
            let found = faults("mail", spec.clone());
            assert!(found.iter().any(|fault| fault.contains(told)), "{spec}: {found:?}");
        }
        assert!(faults("1mail", with(json!({})))[0].contains("invalid service id"));
    }

    #[test]
    fn a_service_has_one_document_and_a_known_project() {
        let project = json!({"kind": "project", "meta": {"id": "shop"}});
        let of = |project: &str| json!({"kind": "service", "meta": {"project": project, "id": "mail"}, "spec": {"http": {"url": "http://m"}}});
        let faults = |documents: &[Json]| parsed(documents).err().unwrap_or_default().len();
        assert_eq!(faults(&[project.clone(), of("shop")]), 0);
        assert_eq!(faults(&[project.clone(), of("shop"), of("shop")]), 1);
        assert_eq!(faults(&[project, of("shap")]), 1);
    }
}
