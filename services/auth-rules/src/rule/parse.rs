//! From the JSON of a rule to its tree, with every fault and where it stands.

use query::{Columns, Comparison, Operation, resources::MatchMode};
use serde_json::{Map, Value as Json};

use super::{Guard, Kind, Rule};
use crate::{columns, condition::Condition};

mod matching;

/// A rule nests no deeper.
const DEPTH: usize = 32;
/// A rule has no more parts.
const NODES: usize = 1024;

/// Keys that any rule may have.
const COMMON: [&str; 5] = ["rule", "error", "name", "id", "mode"];
/// Keys that only the outermost rule of an operation may have.
const OUTERMOST: [&str; 5] = ["columns", "allowAll", "anonymous", "rowFilter", "withCheck"];
/// Keys that belong to some kind of rule. On another kind they say nothing: editors write them empty.
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
/// Keys of later versions, which must not be passed over.
const LATER: [&str; 7] = ["ttl", "allowHosts", "timeoutMs", "maxRows", "requireWhere", "requireLimit", "owner"];

/// Something that is wrong or odd, and where: `spec.rules.read.clauses.1.eval`.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// Where.
    pub path: String,
    /// What.
    pub message: String,
}

/// What surrounds a rule.
#[derive(Debug, Clone, Copy)]
pub struct Context {
    /// What a comparison with a column does where the rule does not say.
    pub mode: MatchMode,
}

/// Parses rules; collects what is wrong with them.
#[derive(Debug, Default)]
pub struct Parser {
    /// What is wrong.
    pub faults: Vec<Fault>,
    /// What is odd, but has a meaning.
    pub warnings: Vec<Fault>,
    nodes: usize,
}

impl Parser {
    /// The rule of one operation of a table; `None` where it has a fault.
    pub fn guard(&mut self, json: &Json, operation: Operation, context: Context, table: &Columns) -> Option<Guard> {
        let path = &format!("spec.rules.{}", operation.name());
        self.nodes = 0;
        let faults = self.faults.len();
        let rule = self.rule(json, path, context, 0);
        let anonymous = self.flag(json, path, "anonymous");
        let allow_all = self.flag(json, path, "allowAll");
        let columns = match json.get("columns") {
            Some(columns) => columns::parse(columns, &format!("{path}.columns"), table, &mut self.faults),
            None => table.clone(),
        };
        let row_filter = self.condition(json, path, "rowFilter", operation != Operation::Create);
        let writes = matches!(operation, Operation::Create | Operation::Update);
        let with_check = self.condition(json, path, "withCheck", writes);
        let rule = rule.filter(|_| self.faults.len() == faults)?;
        let columns = std::sync::Arc::new(columns);
        Some(Guard { rule, anonymous, row_filter, with_check, allow_all, columns })
    }

    fn condition(&mut self, json: &Json, path: &str, key: &str, has_use: bool) -> Option<Condition> {
        let at = format!("{path}.{key}");
        let condition = json.get(key)?;
        if !has_use {
            self.fault(&at, format!("{key} says nothing of this operation"));
            return None;
        }
        Condition::parse(condition, &at, self)
    }

    /// Notes that something is wrong at `path`.
    pub fn fault(&mut self, path: &str, message: impl Into<String>) {
        self.faults.push(Fault { path: path.to_owned(), message: message.into() });
    }

    fn warn(&mut self, path: &str, message: impl Into<String>) {
        self.warnings.push(Fault { path: path.to_owned(), message: message.into() });
    }

    fn rule(&mut self, json: &Json, path: &str, context: Context, depth: usize) -> Option<Rule> {
        if depth >= DEPTH {
            self.fault(path, format!("the rule nests deeper than {DEPTH}"));
            return None;
        }
        self.nodes += 1;
        if self.nodes > NODES {
            if self.nodes == NODES + 1 {
                self.fault(path, format!("the rule has more than {NODES} parts"));
            }
            return None;
        }
        let Json::Object(members) = json else {
            self.fault(path, format!("expected a rule such as {{rule: allow}}, got {}", kind_of(json)));
            return None;
        };
        let context = self.narrowed(members, path, context);
        let error = self.text(members, path, "error");
        let kind = self.kind(members, path, context, depth);
        self.keys(members, path, depth);
        Some(Rule { kind: kind?, error: error.map(str::to_owned) })
    }

    fn kind(&mut self, members: &Map<String, Json>, path: &str, context: Context, depth: usize) -> Option<Kind> {
        const KNOWN: [&str; 7] = ["allow", "authenticated", "deny", "match", "and", "or", "not"];
        const LATER: [&str; 8] = ["query", "webhook", "force", "remove", "encrypt", "decrypt", "hash", "func"];
        let at = format!("{path}.rule");
        let Some(Json::String(name)) = members.get("rule") else {
            self.fault(&at, format!("expected the kind of the rule, one of {}", KNOWN.join(", ")));
            return None;
        };
        match name.as_str() {
            "allow" => Some(Kind::Allow),
            "authenticated" => Some(Kind::Authenticated),
            "deny" => Some(Kind::Deny),
            "match" => self.matching(members, path, context).map(Kind::Match),
            "and" => self.clauses(members, path, context, depth).map(Kind::And),
            "or" => self.clauses(members, path, context, depth).map(Kind::Or),
            "not" => {
                let at = format!("{path}.clause");
                let Some(clause) = members.get("clause") else {
                    self.fault(&at, "a not rule needs a clause");
                    return None;
                };
                self.rule(clause, &at, context, depth + 1).map(|rule| Kind::Not(Box::new(rule)))
            }
            later if LATER.contains(&later) => {
                self.fault(&at, format!("rules of kind {later} are not supported yet by this version"));
                None
            }
            unknown => {
                self.fault(&at, format!("rule kind {unknown:?} is not known, expected one of {}", KNOWN.join(", ")));
                None
            }
        }
    }

    fn clauses(
        &mut self,
        members: &Map<String, Json>,
        path: &str,
        context: Context,
        depth: usize,
    ) -> Option<Vec<Rule>> {
        let at = format!("{path}.clauses");
        let Some(Json::Array(clauses)) = members.get("clauses") else {
            self.fault(&at, "expected a list of rules");
            return None;
        };
        if clauses.is_empty() {
            self.fault(&at, "the list of rules is empty");
            return None;
        }
        let mut rules = Vec::with_capacity(clauses.len().min(NODES));
        for (index, clause) in clauses.iter().enumerate() {
            rules.push(self.rule(clause, &format!("{at}.{index}"), context, depth + 1));
        }
        rules.into_iter().collect()
    }

    fn narrowed(&mut self, members: &Map<String, Json>, path: &str, context: Context) -> Context {
        match members.get("mode") {
            Some(mode) => Context { mode: self.mode(mode, path).unwrap_or(context.mode) },
            None => context,
        }
    }

    /// A `mode`, which stands in the object at `path`.
    pub fn mode(&mut self, json: &Json, path: &str) -> Option<MatchMode> {
        match json.as_str() {
            Some("check") => Some(MatchMode::Check),
            Some("filter") => Some(MatchMode::Filter),
            Some("auto") => Some(MatchMode::Auto),
            _ => {
                self.fault(&format!("{path}.mode"), "expected check, filter or auto");
                None
            }
        }
    }

    fn keys(&mut self, members: &Map<String, Json>, path: &str, depth: usize) {
        let kind = members.get("rule").and_then(Json::as_str).unwrap_or_default();
        let used: &[&str] = match kind {
            "match" => &["type", "eval", "f1", "f2"],
            "and" | "or" => &["clauses"],
            "not" => &["clause"],
            _ => &[],
        };
        for (key, value) in members {
            let at = format!("{path}.{key}");
            let key = key.as_str();
            if COMMON.contains(&key) || used.contains(&key) || (depth == 0 && OUTERMOST.contains(&key)) {
                continue;
            }
            if OUTERMOST.contains(&key) {
                self.fault(&at, format!("{key} stands only in the outermost rule of an operation"));
            } else if LATER.contains(&key) {
                self.fault(&at, format!("{key} is not supported yet by this version"));
            } else if !OF_KINDS.contains(&key) {
                let known = COMMON.iter().chain(&OUTERMOST).chain(used).copied();
                let hint = query::nearest(key, known).map(|known| format!(", did you mean {known}?"));
                self.fault(&at, format!("key {key} is not known{}", hint.unwrap_or_default()));
            } else if !is_empty(value) {
                self.warn(&at, format!("{key} says nothing in a rule of kind {kind}"));
            }
        }
    }

    fn text<'a>(&mut self, members: &'a Map<String, Json>, path: &str, key: &str) -> Option<&'a str> {
        match members.get(key) {
            None | Some(Json::Null) => None,
            Some(Json::String(text)) => Some(text).filter(|text| !text.is_empty()).map(String::as_str),
            Some(other) => {
                self.fault(&format!("{path}.{key}"), format!("expected a text, got {}", kind_of(other)));
                None
            }
        }
    }

    fn flag(&mut self, json: &Json, path: &str, key: &str) -> bool {
        match json.get(key) {
            None | Some(Json::Null) => false,
            Some(Json::Bool(flag)) => *flag,
            Some(other) => {
                self.fault(&format!("{path}.{key}"), format!("expected true or false, got {}", kind_of(other)));
                false
            }
        }
    }
}

/// What a JSON value is, for messages.
pub fn kind_of(json: &Json) -> &'static str {
    match json {
        Json::Null => "nothing",
        Json::Bool(_) => "a boolean",
        Json::Number(_) => "a number",
        Json::String(_) => "a text",
        Json::Array(_) => "a list",
        Json::Object(_) => "an object",
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

/// The comparison as seen from the other side.
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
