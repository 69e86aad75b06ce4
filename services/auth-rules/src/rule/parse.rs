//! Parser of rules: from JSON to the syntax tree, with a diagnostic for every error.

use std::sync::atomic::{AtomicU64, Ordering};

use query::{Columns, Comparison, Operation, resources::MatchMode};
use serde_json::{Map, Value as Json};

use super::{Condition, Kind, Policy, Rule, columns, dependency};
use crate::{path::Scope, questions::AskedFunction};

mod matching;

/// The number of the next policy.
static NEXT_POLICY: AtomicU64 = AtomicU64::new(0);

/// Most levels of rules within rules.
const MAX_DEPTH: usize = 32;
/// Most rules within one policy.
const MAX_NODES: usize = 1024;

/// Keys that any rule may have.
const COMMON: [&str; 5] = ["rule", "error", "name", "id", "mode"];
/// Keys that only the outermost rule of an operation may have.
const OUTERMOST: [&str; 5] = ["columns", "allowAll", "anonymous", "rowFilter", "withCheck"];
/// Keys that belong to one kind of rule. On another kind they are ignored with a warning, since editors write them empty.
const OF_KINDS: [&str; 21] = [
    "type",
    "eval",
    "f1",
    "f2",
    "clauses",
    "clause",
    "db",
    "col",
    "find",
    "cache",
    "service",
    "func",
    "url",
    "claims",
    "template",
    "requestTemplate",
    "outputFormat",
    "store",
    "field",
    "value",
    "fields",
];
/// Keys of later versions, which restrict access and so must not be ignored.
const UNSUPPORTED: [&str; 7] = ["ttl", "allowHosts", "timeoutMs", "maxRows", "requireWhere", "requireLimit", "owner"];

/// An error or a warning in a resource, with its path: `spec.rules.read.clauses.1.eval`.
#[derive(Debug, Clone, PartialEq)]
pub struct Diagnostic {
    /// The path in the document.
    pub path: String,
    /// The text.
    pub message: String,
}

/// A parser of rules, which collects diagnostics.
#[derive(Debug, Default)]
pub struct Parser {
    /// Errors: what has one is not in force.
    pub errors: Vec<Diagnostic>,
    /// Warnings: valid, but probably not what the author meant.
    pub warnings: Vec<Diagnostic>,
    scope: Scope,
    nodes: usize,
}

impl Parser {
    /// The policy of one operation of a table; `None` where it has an error.
    ///
    /// A comparison with a column has `mode` unless the rule says otherwise; `None` leaves it to the project.
    pub fn policy(
        &mut self,
        json: &Json,
        operation: Operation,
        mode: Option<MatchMode>,
        table: &Columns,
    ) -> Option<Policy> {
        let path = &format!("spec.rules.{}", operation.name());
        self.nodes = 0;
        let errors = self.errors.len();
        let rule = self.rule(json, path, mode, 0);
        let anonymous = self.flag(json, path, "anonymous");
        let allow_all = self.flag(json, path, "allowAll");
        let columns = match json.get("columns") {
            Some(columns) => columns::parse(columns, &format!("{path}.columns"), table, &mut self.errors),
            None => table.clone(),
        };
        let row_filter = self.condition(json, path, "rowFilter", operation != Operation::Create);
        let writes = matches!(operation, Operation::Create | Operation::Update);
        let with_check = self.condition(json, path, "withCheck", writes);
        let rule = rule.filter(|_| self.errors.len() == errors)?;
        let columns = std::sync::Arc::new(columns);
        let conditions = [row_filter.as_ref(), with_check.as_ref()];
        Some(Policy {
            id: NEXT_POLICY.fetch_add(1, Ordering::Relaxed),
            depends_on_claims_only: dependency::is_on_claims_only(operation, &rule, conditions),
            relations: dependency::relations(&rule, conditions),
            rule,
            anonymous,
            row_filter,
            with_check,
            allow_all,
            columns,
            place: String::new(),
        })
    }

    /// The policy at `path` of what is no table; `None` where it has an error.
    pub fn policy_in(&mut self, scope: Scope, json: &Json, path: &str) -> Option<Policy> {
        (self.scope, self.nodes) = (scope, 0);
        let rule = self.rule(json, path, None, 0);
        let anonymous = self.flag(json, path, "anonymous");
        let rule = rule?;
        Some(Policy {
            id: NEXT_POLICY.fetch_add(1, Ordering::Relaxed),
            depends_on_claims_only: false,
            relations: None,
            rule,
            anonymous,
            row_filter: None,
            with_check: None,
            allow_all: false,
            columns: std::sync::Arc::default(),
            place: String::new(),
        })
    }

    fn condition(&mut self, json: &Json, path: &str, key: &str, applies: bool) -> Option<Condition> {
        let at = format!("{path}.{key}");
        let condition = json.get(key)?;
        if !applies {
            self.error(&at, format!("{key} does not apply to this operation"));
            return None;
        }
        Condition::parse(condition, &at, self)
    }

    /// Adds an error at `path`.
    pub fn error(&mut self, path: &str, message: impl Into<String>) {
        self.errors.push(Diagnostic { path: path.to_owned(), message: message.into() });
    }

    fn warn(&mut self, path: &str, message: impl Into<String>) {
        self.warnings.push(Diagnostic { path: path.to_owned(), message: message.into() });
    }

    fn rule(&mut self, json: &Json, path: &str, mode: Option<MatchMode>, depth: usize) -> Option<Rule> {
        if depth >= MAX_DEPTH {
            self.error(path, format!("the rule nests deeper than {MAX_DEPTH} levels"));
            return None;
        }
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            if self.nodes == MAX_NODES + 1 {
                self.error(path, format!("the rule has more than {MAX_NODES} parts"));
            }
            return None;
        }
        let Json::Object(members) = json else {
            self.error(path, format!("expected a rule such as {{rule: allow}}, found {}", kind_of(json)));
            return None;
        };
        let mode = members.get("mode").and_then(|json| self.mode(json, path)).or(mode);
        let error = self.string(members, path, "error");
        let kind = self.kind(members, path, mode, depth);
        self.check_keys(members, path, depth);
        Some(Rule { kind: kind?, error: error.map(str::to_owned) })
    }

    fn kind(&mut self, members: &Map<String, Json>, path: &str, mode: Option<MatchMode>, depth: usize) -> Option<Kind> {
        const KNOWN: [&str; 8] = ["allow", "authenticated", "deny", "match", "and", "or", "not", "func"];
        const UNSUPPORTED: [&str; 7] = ["query", "webhook", "force", "remove", "encrypt", "decrypt", "hash"];
        let at = format!("{path}.rule");
        let Some(Json::String(name)) = members.get("rule") else {
            self.error(&at, format!("expected the kind of the rule, one of {}", KNOWN.join(", ")));
            return None;
        };
        match name.as_str() {
            "allow" => Some(Kind::Allow),
            "authenticated" => Some(Kind::Authenticated),
            "deny" => Some(Kind::Deny),
            "match" => self.matching(members, path, mode).map(Kind::Match),
            "and" => self.clauses(members, path, mode, depth).map(Kind::And),
            "or" => self.clauses(members, path, mode, depth).map(Kind::Or),
            "not" => {
                let at = format!("{path}.clause");
                let Some(clause) = members.get("clause") else {
                    self.error(&at, "expected a rule: the clause that is negated");
                    return None;
                };
                self.rule(clause, &at, mode, depth + 1).map(|rule| Kind::Not(Box::new(rule)))
            }
            "func" if self.scope == Scope::Files => {
                self.error(&at, "rule kind func does not apply to rules of files");
                None
            }
            "func" => self.func(members, path).map(Kind::Func),
            later if UNSUPPORTED.contains(&later) => {
                self.error(&at, format!("rule kind {later} is not supported by this version"));
                None
            }
            unknown => {
                self.error(&at, format!("unknown rule kind {unknown:?}, expected one of {}", KNOWN.join(", ")));
                None
            }
        }
    }

    fn func(&mut self, members: &Map<String, Json>, path: &str) -> Option<AskedFunction> {
        let mut named = |key: &str, what: &str| {
            let errors = self.errors.len();
            let name = self.string(members, path, key);
            if name.is_none() && self.errors.len() == errors {
                self.error(&format!("{path}.{key}"), format!("expected the name of the {what} that is asked"));
            }
            name.map(str::to_owned)
        };
        let (service, function) = (named("service", "service"), named("func", "function"));
        Some(AskedFunction { service: service?, function: function? })
    }

    fn clauses(
        &mut self,
        members: &Map<String, Json>,
        path: &str,
        mode: Option<MatchMode>,
        depth: usize,
    ) -> Option<Vec<Rule>> {
        let at = format!("{path}.clauses");
        let Some(Json::Array(clauses)) = members.get("clauses") else {
            self.error(&at, "expected a list of rules");
            return None;
        };
        if clauses.is_empty() {
            self.error(&at, "expected at least one rule");
            return None;
        }
        let mut rules = Vec::with_capacity(clauses.len().min(MAX_NODES));
        for (index, clause) in clauses.iter().enumerate() {
            rules.push(self.rule(clause, &format!("{at}.{index}"), mode, depth + 1));
        }
        rules.into_iter().collect()
    }

    /// The match mode that `json`, the `mode` of the object at `path`, names.
    pub fn mode(&mut self, json: &Json, path: &str) -> Option<MatchMode> {
        match json.as_str() {
            Some("check") => Some(MatchMode::Check),
            Some("filter") => Some(MatchMode::Filter),
            Some("auto") => Some(MatchMode::Auto),
            _ => {
                self.error(&format!("{path}.mode"), "expected check, filter or auto");
                None
            }
        }
    }

    fn check_keys(&mut self, members: &Map<String, Json>, path: &str, depth: usize) {
        let kind = members.get("rule").and_then(Json::as_str).unwrap_or_default();
        let used: &[&str] = match kind {
            "match" => &["type", "eval", "f1", "f2"],
            "and" | "or" => &["clauses"],
            "not" => &["clause"],
            "func" => &["service", "func"],
            _ => &[],
        };
        for (key, value) in members {
            let at = format!("{path}.{key}");
            let key = key.as_str();
            let of_outermost: &[&str] = if self.scope == Scope::Tables { &OUTERMOST } else { &["anonymous"] };
            if COMMON.contains(&key) || used.contains(&key) || (depth == 0 && of_outermost.contains(&key)) {
                continue;
            }
            if OUTERMOST.contains(&key) && !of_outermost.contains(&key) {
                self.error(&at, format!("{key} does not apply to rules of {}", self.scope.name()));
            } else if OUTERMOST.contains(&key) {
                self.error(&at, format!("{key} is allowed in the outermost rule of an operation only"));
            } else if UNSUPPORTED.contains(&key) {
                self.error(&at, format!("{key} is not supported by this version"));
            } else if !OF_KINDS.contains(&key) {
                let known = COMMON.iter().chain(&OUTERMOST).chain(used).copied();
                let hint = query::nearest(key, known).map(|known| format!(", did you mean {known}?"));
                self.error(&at, format!("unknown key {key}{}", hint.unwrap_or_default()));
            } else if !is_empty(value) {
                self.warn(&at, format!("{key} has no effect in a rule of kind {kind}"));
            }
        }
    }

    fn string<'a>(&mut self, members: &'a Map<String, Json>, path: &str, key: &str) -> Option<&'a str> {
        match members.get(key) {
            None | Some(Json::Null) => None,
            Some(Json::String(text)) => Some(text).filter(|text| !text.is_empty()).map(String::as_str),
            Some(other) => {
                self.error(&format!("{path}.{key}"), format!("expected string, found {}", kind_of(other)));
                None
            }
        }
    }

    fn flag(&mut self, json: &Json, path: &str, key: &str) -> bool {
        match json.get(key) {
            None | Some(Json::Null) => false,
            Some(Json::Bool(flag)) => *flag,
            Some(other) => {
                self.error(&format!("{path}.{key}"), format!("expected boolean, found {}", kind_of(other)));
                false
            }
        }
    }
}

/// The name of a JSON value's type, for messages.
pub fn kind_of(json: &Json) -> &'static str {
    match json {
        Json::Null => "null",
        Json::Bool(_) => "boolean",
        Json::Number(_) => "number",
        Json::String(_) => "string",
        Json::Array(_) => "array",
        Json::Object(_) => "object",
    }
}

fn is_empty(json: &Json) -> bool {
    match json {
        Json::Null => true,
        Json::Bool(flag) => !flag,
        Json::Number(_) => false,
        Json::String(text) => text.is_empty(),
        Json::Array(items) => items.is_empty(),
        Json::Object(members) => members.is_empty(),
    }
}

/// The comparison with its sides exchanged.
fn mirrored(comparison: Comparison) -> Comparison {
    match comparison {
        Comparison::Eq => Comparison::Eq,
        Comparison::Ne => Comparison::Ne,
        Comparison::Gt => Comparison::Lt,
        Comparison::Gte => Comparison::Lte,
        Comparison::Lt => Comparison::Gt,
        Comparison::Lte => Comparison::Gte,
    }
}
