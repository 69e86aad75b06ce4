//! `table` documents: who may do what with one table.

use std::sync::Arc;

use mesh::resources::{self, Document};
use query::{
    Columns, Operation,
    resources::{MatchMode, TableMeta},
};
use serde_json::{Map, Value as Json};

use crate::{
    columns,
    rule::{Context, Fault, Guard, Parser},
};

/// The id of the document that stands for every table without rules of its own.
pub const DEFAULT: &str = "default";

/// All operations on a table.
pub const OPERATIONS: [Operation; 4] = [Operation::Create, Operation::Read, Operation::Update, Operation::Delete];

/// What each operation on a table needs; where there is nothing, it is denied.
#[derive(Debug, Clone, Default)]
pub struct Guards {
    create: Option<Arc<Guard>>,
    read: Option<Arc<Guard>>,
    update: Option<Arc<Guard>>,
    delete: Option<Arc<Guard>>,
}

impl Guards {
    /// What the operation needs.
    pub fn of(&self, operation: Operation) -> Option<&Guard> {
        match operation {
            Operation::Create => self.create.as_deref(),
            Operation::Read => self.read.as_deref(),
            Operation::Update => self.update.as_deref(),
            Operation::Delete => self.delete.as_deref(),
        }
    }

    /// These, and those of `default` for operations that these say nothing of.
    pub fn or(self, default: &Guards) -> Guards {
        Guards {
            create: self.create.or_else(|| default.create.clone()),
            read: self.read.or_else(|| default.read.clone()),
            update: self.update.or_else(|| default.update.clone()),
            delete: self.delete.or_else(|| default.delete.clone()),
        }
    }

    fn set(&mut self, operation: Operation, guard: Option<Guard>) {
        let place = match operation {
            Operation::Create => &mut self.create,
            Operation::Read => &mut self.read,
            Operation::Update => &mut self.update,
            Operation::Delete => &mut self.delete,
        };
        *place = guard.map(Arc::new);
    }
}

/// A `table` document as it was read.
#[derive(Debug)]
pub struct Table {
    /// Names it.
    pub meta: TableMeta,
    /// Its rules. An operation whose rule has a fault is denied.
    pub guards: Guards,
    /// What is wrong with it.
    pub faults: Vec<Fault>,
    /// What is odd about it.
    pub warnings: Vec<Fault>,
}

impl Table {
    /// Reads a document whose comparisons with columns do `mode` where it does not say.
    pub fn read(document: &Document, mode: MatchMode) -> Result<Table, resources::Fault> {
        let (meta, spec): (TableMeta, Json) = document.read()?;
        let mut parser = Parser::default();
        let guards = guards(&spec, mode, &mut parser);
        Ok(Table { meta, guards, faults: parser.faults, warnings: parser.warnings })
    }
}

/// Rules of a table's `spec`.
fn guards(spec: &Json, mode: MatchMode, parser: &mut Parser) -> Guards {
    let mut guards = Guards::default();
    let Json::Object(spec) = spec else {
        if !spec.is_null() {
            parser.fault("spec", "expected an object with rules");
        }
        return guards;
    };
    known(spec, "spec", &["rules", "columns", "mode"], &["schema", "links"], parser);
    let mode = spec.get("mode").and_then(|mode| parser.mode(mode, "spec")).unwrap_or(mode);
    let columns = match spec.get("columns") {
        Some(json) => columns::parse(json, "spec.columns", &Columns::default(), &mut parser.faults),
        None => Columns::default(),
    };
    let rules = match spec.get("rules") {
        None | Some(Json::Null) => return guards,
        Some(Json::Object(rules)) => rules,
        Some(_) => {
            parser.fault("spec.rules", "expected an object of a rule per operation");
            return guards;
        }
    };
    known(rules, "spec.rules", &OPERATIONS.map(Operation::name), &["aggr"], parser);
    for operation in OPERATIONS {
        if let Some(rule) = rules.get(operation.name()) {
            let guard = parser.guard(rule, operation, Context { mode }, &columns);
            guards.set(operation, guard);
        }
    }
    guards
}

fn known(members: &Map<String, Json>, path: &str, known: &[&str], later: &[&str], parser: &mut Parser) {
    for key in members.keys().filter(|key| !known.contains(&key.as_str())) {
        let message = if later.contains(&key.as_str()) {
            format!("{key} is not supported yet by this version")
        } else {
            match query::nearest(key, known.iter().copied()) {
                Some(nearest) => format!("key {key} is not known, did you mean {nearest}?"),
                None => format!("key {key} is not known, expected one of {}", known.join(", ")),
            }
        };
        parser.fault(&format!("{path}.{key}"), message);
    }
}
