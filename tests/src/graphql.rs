//! Operations as GraphQL documents, in several spellings that must answer alike.

use serde_json::{Map, Value, json};

use crate::operation::{Operation, Read};

/// Spelling of an operation in a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// A database named by a directive; arguments are variables.
    Directive,
    /// A root of the typed schema; arguments are literals with an operator for each column, every field has an alias.
    Typed,
    /// A database named by a directive; arguments are literals, selections are fragments.
    Fragments,
}

/// Every spelling.
pub const SPELLINGS: [Spelling; 3] = [Spelling::Directive, Spelling::Typed, Spelling::Fragments];

/// Begins every alias.
const ALIAS: &str = "alias_";

/// `response` with the fields' names in place of their aliases.
pub fn unaliased(response: Value) -> Value {
    match response {
        Value::Object(members) => members
            .into_iter()
            .map(|(key, value)| (key.strip_prefix(ALIAS).map_or(key.clone(), str::to_owned), unaliased(value)))
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(items) => items.into_iter().map(unaliased).collect(),
        other => other,
    }
}

impl Operation {
    /// A document and its variables: every field answers under `r0`, `r1`, … in order.
    pub fn graphql(&self, spelling: Spelling, database: &str) -> (String, Value) {
        let single = std::slice::from_ref(self);
        let fields = if let Operation::Batch(items) = self { items.as_slice() } else { single };
        let mut document = Document::new(spelling);
        let mut text = Vec::with_capacity(fields.len());
        for (position, operation) in fields.iter().enumerate() {
            let (field, arguments, select) = root(&mut document, operation);
            let given: Vec<String> =
                arguments.into_iter().map(|argument| document.argument(position, argument)).collect();
            let given = if given.is_empty() { String::new() } else { format!("({})", given.join(", ")) };
            let named = if spelling == Spelling::Typed { String::new() } else { format!("@{database} ") };
            text.push(format!("r{position}: {field}{given} {named}{select}"));
        }
        let kind = if self.is_write() { "mutation" } else { "query" };
        document.finish(kind, &text.join(" "))
    }
}

/// An argument: name, type and value.
type Argument<'a> = (&'a str, &'static str, Value);

/// A document while it is written.
struct Document {
    spelling: Spelling,
    declared: Vec<String>,
    variables: Map<String, Value>,
    fragments: Vec<String>,
}

impl Document {
    fn new(spelling: Spelling) -> Self {
        Self { spelling, declared: Vec::new(), variables: Map::new(), fragments: Vec::new() }
    }

    fn finish(self, kind: &str, fields: &str) -> (String, Value) {
        let declared = if self.declared.is_empty() { String::new() } else { format!("({})", self.declared.join(", ")) };
        (format!("{kind}{declared} {{ {fields} }} {}", self.fragments.join(" ")), self.variables.into())
    }

    /// `name: value`; what has no literal is a variable in any spelling.
    fn argument(&mut self, position: usize, (name, r#type, value): Argument<'_>) -> String {
        if self.spelling != Spelling::Directive && is_literal(&value) {
            let is_enum = name == "op" || (name == "sort" && self.spelling == Spelling::Typed);
            return format!("{name}: {}", if is_enum { words(&value) } else { literal(&value) });
        }
        let variable = format!("{name}{position}");
        self.declared.push(format!("${variable}: {type}"));
        self.variables.insert(variable.clone(), value);
        format!("{name}: ${variable}")
    }

    /// A condition in REST's grammar as one of GraphQL.
    fn condition(&self, find: &Value) -> Value {
        match self.spelling {
            Spelling::Typed => typed(find),
            Spelling::Directive | Spelling::Fragments => underscored(find),
        }
    }

    /// An order: `name`, `-name`.
    fn sort(&self, sort: &Value) -> Value {
        let typed = |key: &Value| match key.as_str() {
            Some(key) => {
                json!([key.trim_start_matches('-'), if key.starts_with('-') { "desc" } else { "asc" }].join("_"))
            }
            None => key.clone(),
        };
        match (self.spelling, sort) {
            (Spelling::Typed, Value::Array(keys)) => keys.iter().map(typed).collect(),
            _ => sort.clone(),
        }
    }

    /// A field of a selection.
    fn field(&self, name: &str, rest: &str) -> String {
        match self.spelling {
            Spelling::Typed => format!("{ALIAS}{name}: {name}{rest}"),
            Spelling::Directive | Spelling::Fragments => format!("{name}{rest}"),
        }
    }

    /// A selection of names, or of a tree with the arguments of its relations as literals.
    fn selection(&mut self, select: &Value) -> String {
        let fields: Vec<String> = match select {
            Value::Array(names) => names.iter().filter_map(Value::as_str).map(|name| self.field(name, "")).collect(),
            Value::Object(members) => members.iter().map(|(name, value)| self.member(name, value)).collect(),
            _ => Vec::new(),
        };
        if self.spelling != Spelling::Fragments || fields.is_empty() {
            return format!("{{ {} }}", fields.join(" "));
        }
        // The first field in a fragment of its own, the others inline.
        let name = format!("F{}", self.fragments.len());
        self.fragments.push(format!("fragment {name} on Row {{ {} }}", fields[0]));
        match &fields[1..] {
            [] => format!("{{ ...{name} }}"),
            rest => format!("{{ ...{name} ... on Row {{ {} }} }}", rest.join(" ")),
        }
    }

    fn member(&mut self, name: &str, value: &Value) -> String {
        let Value::Object(options) = value else { return self.field(name, "") };
        let mut arguments = Vec::new();
        if let Some(find) = options.get("find") {
            arguments.push(format!("where: {}", literal(&self.condition(find))));
        }
        for option in ["sort", "skip", "limit"] {
            if let Some(value) = options.get(option) {
                let value = if option == "sort" { self.sort(value) } else { value.clone() };
                let is_enum = option == "sort" && self.spelling == Spelling::Typed;
                arguments.push(format!("{option}: {}", if is_enum { words(&value) } else { literal(&value) }));
            }
        }
        let arguments = if arguments.is_empty() { String::new() } else { format!("({})", arguments.join(", ")) };
        let selection = self.selection(options.get("select").unwrap_or(&Value::Null));
        self.field(name, &format!("{arguments} {selection}"))
    }

    /// The selection of a mutation's result.
    fn written(&mut self, returning: &Value) -> String {
        let affected = self.field("affected", "");
        match returning {
            Value::Null => format!("{{ {affected} }}"),
            select => {
                let rows = self.selection(select);
                format!("{{ {affected} {} }}", self.field("returning", &format!(" {rows}")))
            }
        }
    }
}

/// Name, arguments and selection of a root field.
fn root<'o>(document: &mut Document, operation: &'o Operation) -> (String, Vec<Argument<'o>>, String) {
    let given = |document: &Document, find: &Value| {
        let condition = (!find.is_null()).then(|| ("where", "Where", document.condition(find)));
        condition.into_iter().collect::<Vec<_>>()
    };
    match operation {
        Operation::Read(read) => {
            let mut arguments = given(document, &read.find);
            arguments.extend(page(document, read));
            let select = if read.op == "count" { String::new() } else { document.selection(&read.select) };
            (read.table.clone(), arguments, select)
        }
        Operation::Create(create) => {
            let arguments = vec![("docs", "[Doc!]!", json!(create.docs))];
            (format!("insert_{}", create.table), arguments, document.written(&create.returning))
        }
        Operation::Update(update) => {
            let mut arguments = given(document, &update.find);
            arguments.extend(op(&update.op));
            for (operator, value) in &update.update {
                arguments.push((operator.trim_start_matches('$'), "Changes", value.clone()));
            }
            (format!("update_{}", update.table), arguments, document.written(&update.returning))
        }
        Operation::Delete(delete) => {
            let mut arguments = given(document, &delete.find);
            arguments.extend(op(&delete.op));
            (format!("delete_{}", delete.table), arguments, document.written(&delete.returning))
        }
        Operation::Batch(_) => panic!("a batch has no batch inside"),
    }
}

/// Arguments that say which of the rows that pass, and in which order.
fn page<'r>(document: &Document, read: &'r Read) -> Vec<Argument<'r>> {
    let mut arguments = Vec::new();
    if !read.sort.is_empty() {
        arguments.push(("sort", "[String!]", document.sort(&json!(read.sort))));
    }
    for (name, value) in [("skip", read.skip), ("limit", read.limit)] {
        if let Some(value) = value {
            arguments.push((name, "Int", json!(value)));
        }
    }
    arguments.extend(op(&read.op));
    arguments
}

/// The argument that says how many rows, where that is not all.
fn op<'o>(op: &str) -> Option<Argument<'o>> {
    (op != "all").then(|| ("op", "Op", json!(op)))
}

/// `value` with `_x` for `$x` in every key, as GraphQL spells operators.
fn underscored(value: &Value) -> Value {
    match value {
        Value::Object(members) => members
            .iter()
            .map(|(key, value)| {
                (key.strip_prefix('$').map_or(key.clone(), |key| format!("_{key}")), underscored(value))
            })
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(items) => items.iter().map(underscored).collect(),
        other => other.clone(),
    }
}

/// A condition with an operator for each column, as the typed schema has it: `{a: {_eq: 1}}`.
fn typed(find: &Value) -> Value {
    let Value::Object(members) = find else { return find.clone() };
    let member = |(key, value): (&String, &Value)| match key.strip_prefix('$') {
        Some(connective @ ("and" | "or" | "not" | "some" | "none" | "every")) => {
            let inner = match value {
                Value::Array(items) => items.iter().map(typed).collect(),
                single => typed(single),
            };
            (format!("_{connective}"), inner)
        }
        Some(operator) => (format!("_{operator}"), value.clone()),
        None => {
            let condition = match value {
                Value::Object(_) => typed(value),
                Value::Null => json!({ "_isNull": true }),
                Value::Array(items) => json!({ "_in": items }),
                single => json!({ "_eq": single }),
            };
            (key.clone(), condition)
        }
    };
    members.iter().map(member).collect::<Map<_, _>>().into()
}

/// Whether `name` is one of GraphQL.
fn is_name(name: &str) -> bool {
    name.bytes().next().is_some_and(|byte| byte == b'_' || byte.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric())
}

/// Whether every name in `value` is one of GraphQL.
fn is_literal(value: &Value) -> bool {
    match value {
        Value::Object(members) => members.iter().all(|(name, value)| is_name(name) && is_literal(value)),
        Value::Array(items) => items.iter().all(is_literal),
        _ => true,
    }
}

/// Values of an enum, where they are names.
fn words(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(words).collect::<Vec<_>>().join(", ")),
        Value::String(word) if is_name(word) => word.clone(),
        other => literal(other),
    }
}

fn literal(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let members: Vec<String> =
                members.iter().map(|(name, value)| format!("{name}: {}", literal(value))).collect();
            format!("{{{}}}", members.join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(literal).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}
