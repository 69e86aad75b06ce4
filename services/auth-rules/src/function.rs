//! `service` resources: the policies of functions; the rest of them is checked here, and used by the gateway and the
//! service of functions.

mod descriptor;

use std::{collections::BTreeMap, sync::Arc};

use mesh::{
    json_schema::JsonSchema,
    resources::{Document, Kind, Parsed, ResourceFault, Snapshot},
};
use query::function::{Function, HttpMethod, Service, ServiceMeta, ServiceResource as Spec};
use serde_json::Value as Json;

use crate::{
    json_schema, names,
    path::Scope,
    rule::{self, Diagnostic, Parser, Policy},
};

/// The resource kind `service`.
pub const SERVICE: Kind = Kind { name: "service", parse: ServiceResource::parse, check, schema: json_schema::service };

/// The id of the document of services without one of their own.
pub const DEFAULT: &str = "default";
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
    /// Who may register as a worker; `None`: it is not said.
    pub register: Option<Arc<Policy>>,
    /// Whether its functions are those of workers.
    pub is_worker: bool,
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
    /// Whether one of them asks a function.
    pub fn asks(&self) -> bool {
        let functions = self.by_name.values().chain([&self.default]).filter_map(|function| function.policy.as_ref());
        functions.chain(&self.register).any(|policy| rule::asks(&policy.rule))
    }

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
        check_kind(&meta.id, &spec, document, &mut parser);
        let register = spec.worker.as_ref().and_then(|worker| worker.register.as_ref());
        let register = register.and_then(|rule| placed(rule, "spec.worker.register", document, &mut parser));
        if !parser.errors.is_empty() {
            return Err(parser.errors.into_iter().map(|error| document.fault(&error.path, error.message)).collect());
        }
        let is_worker = spec.worker.is_some();
        let policies = FunctionPolicies { by_name, default: default.unwrap_or_default(), register, is_worker };
        Ok(Arc::new(ServiceResource { meta, policies, warnings: parser.warnings }))
    }
}

/// The policy of the function at `at`, whose limits are checked too.
fn policy(function: &Function, at: &str, document: &Document, parser: &mut Parser) -> FunctionPolicy {
    for (key, message) in function.faults() {
        parser.error(&format!("{at}.{key}"), message);
    }
    for (key, schema) in [("input", &function.input), ("output", &function.output)] {
        if let Some(Err((path, message))) = schema.as_ref().map(JsonSchema::new) {
            parser.error(&format!("{at}.{key}{path}"), message);
        }
    }
    let rule = function.rule.as_ref();
    let policy = rule.and_then(|rule| placed(rule, &format!("{at}.rule"), document, parser));
    FunctionPolicy { policy, forwards: function.forward }
}

/// The policy of the rule at `path`.
fn placed(rule: &Json, path: &str, document: &Document, parser: &mut Parser) -> Option<Arc<Policy>> {
    let policy = parser.policy_in(Scope::Functions, rule, path)?;
    let ResourceFault { file, line, .. } = document.fault(path, "");
    Some(Arc::new(Policy { place: format!("{file}:{line}: {path}"), ..policy }))
}

/// Refuses a service that is of no kind or of two, and what its kind does not have.
fn check_kind(id: &str, spec: &Service, document: &Document, parser: &mut Parser) {
    let excluded = match (&spec.http, &spec.grpc, &spec.worker) {
        (Some(_), None, None) => "",
        (None, Some(server), None) => {
            descriptor::check(server, document, parser);
            "path, method, headers, batch and cache do not apply to functions of gRPC servers"
        }
        (None, None, Some(_)) => "path, headers, forward and cache do not apply to functions of workers",
        _ => return parser.error("spec", "expected one of http, grpc and worker"),
    };
    if id == DEFAULT && spec.worker.is_none() {
        parser.error("meta.id", "service default must have workers");
    }
    let listed = spec.functions.iter().map(|(name, function)| (format!("spec.functions.{name}"), function));
    let default = spec.default.iter().map(|function| ("spec.default".to_owned(), function));
    for (at, function) in listed.chain(default) {
        let is_http = function.path.is_some() || !function.headers.is_empty() || function.cache.is_some();
        let is_excluded = match (&spec.grpc, &spec.worker) {
            (Some(_), _) => is_http || function.batch || function.method != HttpMethod::default(),
            (_, Some(_)) => is_http || function.forward,
            (None, None) => false,
        };
        if is_excluded {
            parser.error(&at, excluded);
        }
    }
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
    names::faults(snapshot, SERVICE.name, |_, _| None)
}

#[cfg(test)]
mod tests {
    use mesh::resources::Snapshot;
    use serde_json::{Value as Json, json};

    use super::NAME_BYTES;
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

    fn grpc(more: Json, function: Json) -> Json {
        let mut server = json!({"url": "http://mail:9000", "service": "mail.v1.Mail"});
        for (key, value) in more.as_object().into_iter().flatten() {
            server[key] = value.clone();
        }
        json!({"grpc": server, "functions": {"Send": function}})
    }

    #[test]
    fn a_sound_service_has_no_faults() {
        let rule =
            json!({"rule": "match", "type": "string", "eval": "==", "f1": "args.params.to", "f2": "args.auth.mail"});
        let function = json!({
            "rule": rule, "timeout": "2s", "idempotent": true, "retries": 0, "concurrency": 2, "queue": 0, "maxRequest": "1kB",
            "maxAnswer": 5, "forward": true, "path": "/u/{args.id}", "method": "GET",
            "headers": [{"key": "X-User", "value": "auth.id"}, {"key": "Accept", "op": "del"}],
        });
        assert_eq!(faults("mail", with(function)), Vec::<String>::new());
        let default =
            json!({"http": {"url": "https://mail"}, "default": {"rule": {"rule": "authenticated", "anonymous": true}}});
        assert_eq!(faults("mail", default), Vec::<String>::new());
        let served = grpc(json!({"reflection": true}), json!({"rule": {"rule": "allow"}, "forward": true}));
        assert_eq!(faults("mail", served), Vec::<String>::new());
    }

    #[test]
    fn faults_name_their_place_and_the_nearest() {
        for (spec, told) in [
            (json!({"http": {"url": "mail"}}), "spec.http.url"),
            (json!({"functions": {}}), "spec: expected one of http, grpc and worker"),
            (json!({"http": {"url": "http://m"}, "worker": {}}), "spec: expected one of http, grpc and worker"),
            (json!({"worker": {"register": {"rule": "alow"}}}), "spec.worker.register.rule: unknown rule kind"),
            (json!({"worker": {}, "default": {"forward": true}}), "spec.default: path, headers, forward and cache"),
            (json!({"worker": {}, "default": {"path": "/a"}}), "spec.default: path, headers, forward and cache"),
            (
                json!({"worker": {}, "functions": {"f": {"headers": [{"key": "Accept", "op": "del"}]}}}),
                "spec.functions.f: path, headers, forward and cache",
            ),
            (
                grpc(json!({"reflection": true}), json!({"path": "x"})),
                "path, method, headers, batch and cache do not apply",
            ),
            (
                grpc(json!({"reflection": true}), json!({"method": "GET"})),
                "path, method, headers, batch and cache do not apply",
            ),
            (grpc(json!({}), json!({})), "spec.grpc: expected either reflection: true or descriptor"),
            (
                grpc(json!({"reflection": true, "descriptor": "a.bin"}), json!({})),
                "spec.grpc: expected either reflection: true or descriptor",
            ),
            (
                grpc(json!({"descriptor": "none.bin"}), json!({})),
                "spec.grpc.descriptor: the file none.bin cannot be used",
            ),
            (
                grpc(json!({"reflection": true, "service": "Mail/Send"}), json!({})),
                "spec.grpc.service: invalid service name",
            ),
            (grpc(json!({"reflection": true, "url": "http://m/path"}), json!({})), "spec.grpc.url: invalid URL"),
            (with(json!({"rle": {}})), "spec.functions.send.rle"),
            (with(json!({"rule": {"rule": "alow"}})), "spec.functions.send.rule.rule: unknown rule kind"),
            (with(json!({"rule": {"rule": "allow", "rowFilter": {}}})), "does not apply to rules of functions"),
            (
                with(
                    json!({"rule": {"rule": "match", "type": "string", "eval": "==", "f1": "args.find.a", "f2": "x"}}),
                ),
                "args.find is not available in rules of functions",
            ),
            (with(json!({"input": {"type": "text"}})), "spec.functions.send.input.type: invalid JSON Schema"),
            (
                with(json!({"output": {"$ref": "http://a/b"}})),
                "spec.functions.send.output.$ref: expected a place inside the schema",
            ),
            (with(json!({"cache": {"ttl": "1s"}})), "spec.functions.send.cache: needs idempotent: true"),
            (
                json!({"worker": {}, "default": {"idempotent": true, "cache": {"ttl": "1s"}}}),
                "spec.default: path, headers, forward and cache",
            ),
            (with(json!({"timeout": "301s"})), "spec.functions.send.timeout"),
            (with(json!({"concurrency": 0})), "spec.functions.send.concurrency: must be from 1"),
            (with(json!({"retries": 1})), "spec.functions.send.retries: needs idempotent: true"),
            (
                with(json!({"idempotent": true, "retries": 11})),
                "spec.functions.send.retries: must be at most 10, found 11",
            ),
            (with(json!({"idempotent": true, "retries": -1})), "spec.functions.send.retries"),
            (with(json!({"path": "/{id}"})), "spec.functions.send.path"),
            (with(json!({"method": "TRACE"})), "spec.functions.send.method"),
            (with(json!({"headers": [{"key": "Host", "value": "x"}]})), "spec.functions.send.headers"),
            (with(json!({"headers": [{"key": "A", "value": "token"}]})), "forward: true"),
        ] {
            let found = faults("mail", spec.clone());
            assert!(found.iter().any(|fault| fault.contains(told)), "{spec}: {found:?}");
        }
        let remote = json!({"http": {"url": "http://m"}});
        assert!(faults("default", remote)[0].contains("service default must have workers"));
        assert_eq!(faults("default", json!({"worker": {}})), Vec::<String>::new());
    }

    #[test]
    fn names_are_bounded() {
        let sound = |id: &str| faults(id, with(json!({}))).is_empty();
        let long = "m".repeat(63);
        for id in ["m", "M-1_x", &*long] {
            assert!(sound(id), "{id}");
        }
        for id in ["1mail", "-m", "_m", "m.x", "m x", "mä", &*format!("{long}m")] {
            assert!(faults(id, with(json!({})))[0].contains("invalid service id"), "{id}");
        }
        let of = |name: &str| faults("mail", json!({"http": {"url": "http://m"}, "functions": {name: {}}}));
        let long = "f".repeat(NAME_BYTES);
        assert_eq!(of(&long), Vec::<String>::new());
        for name in ["", "a\u{1}b", &*format!("{long}f")] {
            let found = of(name);
            assert!(found.iter().any(|fault| fault.contains("invalid function name")), "{name:?}: {found:?}");
        }
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
