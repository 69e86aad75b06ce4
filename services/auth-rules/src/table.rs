//! `table` resources: the policies of one table; its links and hooks are checked here, and used by crud and the gateway.

use std::sync::Arc;

use mesh::resources::{Document, Parsed, ResourceFault};
use query::{
    Columns, Operation,
    resources::{Resource, TableMeta},
};
use serde_json::{Map, Value as Json};

use crate::rule::{self, Diagnostic, Parser, Policy, columns};

mod hooks;
mod links;

/// The id of the resource whose policies apply where a table has none of its own.
pub const DEFAULT: &str = "default";

/// The operations that a table has policies for.
pub const OPERATIONS: [Operation; 4] = [Operation::Create, Operation::Read, Operation::Update, Operation::Delete];

/// The policies of a table by operation; an operation without one is denied.
#[derive(Debug, Clone, Default)]
pub struct TablePolicies {
    create: Option<Arc<Policy>>,
    read: Option<Arc<Policy>>,
    update: Option<Arc<Policy>>,
    delete: Option<Arc<Policy>>,
}

impl TablePolicies {
    /// The policy of the operation.
    pub fn of(&self, operation: Operation) -> Option<&Policy> {
        match operation {
            Operation::Create => self.create.as_deref(),
            Operation::Read => self.read.as_deref(),
            Operation::Update => self.update.as_deref(),
            Operation::Delete => self.delete.as_deref(),
        }
    }

    /// Whether one of them asks a function.
    pub fn asks(&self) -> bool {
        let all = [&self.create, &self.read, &self.update, &self.delete];
        all.into_iter().flatten().any(|policy| rule::asks(&policy.rule))
    }

    /// These, and those of `default` for operations without one.
    pub fn or(self, default: &TablePolicies) -> TablePolicies {
        TablePolicies {
            create: self.create.or_else(|| default.create.clone()),
            read: self.read.or_else(|| default.read.clone()),
            update: self.update.or_else(|| default.update.clone()),
            delete: self.delete.or_else(|| default.delete.clone()),
        }
    }

    fn set(&mut self, operation: Operation, policy: Option<Policy>) {
        let policy_of = match operation {
            Operation::Create => &mut self.create,
            Operation::Read => &mut self.read,
            Operation::Update => &mut self.update,
            Operation::Delete => &mut self.delete,
        };
        *policy_of = policy.map(Arc::new);
    }
}

/// A parsed `table` resource.
#[derive(Debug)]
pub struct TableResource {
    /// Its key.
    pub meta: TableMeta,
    /// Its policies.
    pub policies: TablePolicies,
    /// Warnings about it.
    pub warnings: Vec<Diagnostic>,
}

impl TableResource {
    /// Parses a document; all errors in it if it has any.
    pub fn parse(document: &Document) -> Result<Parsed, Vec<ResourceFault>> {
        let Resource { meta, spec } = document.read::<TableMeta, Map<String, Json>>().map_err(|fault| vec![fault])?;
        let mut parser = Parser::default();
        let place = |operation: Operation| {
            let ResourceFault { file, line, .. } = document.fault(&format!("spec.rules.{}", operation.name()), "");
            format!("{file}:{line}")
        };
        let policies = policies(&spec, place, &mut parser);
        let of_others: Vec<ResourceFault> =
            links::faults(document, &meta.id).into_iter().chain(hooks::faults(document)).collect();
        if parser.errors.is_empty() && of_others.is_empty() {
            return Ok(Arc::new(TableResource { meta, policies, warnings: parser.warnings }));
        }
        let of_rules = parser.errors.into_iter().map(|error| document.fault(&error.path, error.message));
        Err(of_rules.chain(of_others).collect())
    }
}

/// The policies of a table's `spec`.
fn policies(spec: &Map<String, Json>, place: impl Fn(Operation) -> String, parser: &mut Parser) -> TablePolicies {
    let mut policies = TablePolicies::default();
    check_keys(spec, "spec", &["rules", "columns", "mode", links::KEY, hooks::KEY], &["schema"], parser);
    let mode = spec.get("mode").and_then(|mode| parser.mode(mode, "spec"));
    let columns = match spec.get("columns") {
        Some(json) => columns::parse(json, "spec.columns", &Columns::default(), &mut parser.errors),
        None => Columns::default(),
    };
    let rules = match spec.get("rules") {
        None | Some(Json::Null) => return policies,
        Some(Json::Object(rules)) => rules,
        Some(_) => {
            parser.error("spec.rules", "expected an object with a rule per operation");
            return policies;
        }
    };
    check_keys(rules, "spec.rules", &OPERATIONS.map(Operation::name), &["aggr"], parser);
    for operation in OPERATIONS {
        if let Some(rule) = rules.get(operation.name()) {
            let policy = parser.policy(rule, operation, mode, &columns);
            policies.set(operation, policy.map(|policy| Policy { place: place(operation), ..policy }));
        }
    }
    policies
}

fn check_keys(members: &Map<String, Json>, path: &str, known: &[&str], unsupported: &[&str], parser: &mut Parser) {
    for key in members.keys().filter(|key| !known.contains(&key.as_str())) {
        let message = if unsupported.contains(&key.as_str()) {
            format!("{key} is not supported by this version")
        } else {
            match query::nearest(key, known.iter().copied()) {
                Some(nearest) => format!("unknown key {key}, did you mean {nearest}?"),
                None => format!("unknown key {key}, expected one of {}", known.join(", ")),
            }
        };
        parser.error(&format!("{path}.{key}"), message);
    }
}
