//! Operations as cases write them, and as each protocol says them.

use prost_types::{Struct, value::Kind};
use proto::api::v1 as api;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// One operation on one table.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Operation {
    /// Rows, one row or a number.
    Read(Read),
    /// New rows.
    Create(Create),
    /// Changes.
    Update(Update),
    /// The end of rows.
    Delete(Delete),
    /// Several writes in one transaction.
    Batch(Vec<Operation>),
}

/// A read.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Read {
    /// Which table.
    pub table: String,
    /// `all`, `one`, `count`.
    #[serde(default = "all")]
    pub op: String,
    /// The condition in REST's grammar.
    #[serde(default)]
    pub find: Value,
    /// Names, or a tree.
    #[serde(default)]
    pub select: Value,
    /// `name`, `-name`.
    #[serde(default)]
    pub sort: Vec<String>,
    /// Rows left out.
    #[serde(default)]
    pub skip: Option<u32>,
    /// At most this many.
    #[serde(default)]
    pub limit: Option<u32>,
}

/// An insert.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// Which table.
    pub table: String,
    /// Rows.
    pub docs: Vec<Value>,
    /// Names, or a tree; absent: nothing is answered.
    #[serde(default)]
    pub returning: Value,
}

/// An update.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Update {
    /// Which table.
    pub table: String,
    /// The condition in REST's grammar.
    #[serde(default)]
    pub find: Value,
    /// `{"$set": {…}, "$inc": {…}}`.
    pub update: Map<String, Value>,
    /// Names, or a tree; absent: nothing is answered.
    #[serde(default)]
    pub returning: Value,
}

/// A delete.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delete {
    /// Which table.
    pub table: String,
    /// The condition in REST's grammar.
    #[serde(default)]
    pub find: Value,
    /// Names, or a tree; absent: nothing is answered.
    #[serde(default)]
    pub returning: Value,
}

fn all() -> String {
    "all".to_owned()
}

/// `value` with `$x` for `_x` in every key, as GraphQL variables carry conditions.
pub fn underscored(value: &Value) -> Value {
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

/// A GraphQL selection: of names, or of a tree with the arguments of its relations as literals.
pub fn selection(select: &Value) -> String {
    let fields: Vec<String> = match select {
        Value::Array(names) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Value::Object(members) => members.iter().map(|(name, value)| field(name, value)).collect(),
        _ => Vec::new(),
    };
    format!("{{ {} }}", fields.join(" "))
}

fn field(name: &str, value: &Value) -> String {
    let Value::Object(options) = value else { return name.to_owned() };
    let mut arguments = Vec::new();
    if let Some(find) = options.get("find") {
        arguments.push(format!("where: {}", literal(&underscored(find))));
    }
    for option in ["sort", "skip", "limit"] {
        if let Some(value) = options.get(option) {
            arguments.push(format!("{option}: {}", literal(value)));
        }
    }
    let arguments = if arguments.is_empty() { String::new() } else { format!("({})", arguments.join(", ")) };
    format!("{name}{arguments} {}", selection(options.get("select").unwrap_or(&Value::Null)))
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

/// A selection of gRPC.
pub fn select(select: &Value) -> Option<api::Select> {
    match select {
        Value::Null => None,
        Value::Array(names) => Some(api::Select {
            columns: names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            relations: Default::default(),
        }),
        Value::Object(members) => {
            let mut select = api::Select::default();
            for (name, value) in members {
                match value {
                    Value::Object(options) => {
                        select.relations.insert(name.clone(), related(options));
                    }
                    _ => select.columns.push(name.clone()),
                }
            }
            Some(select)
        }
        other => panic!("a case selects by names or a tree, not by {other}"),
    }
}

fn related(options: &Map<String, Value>) -> api::Related {
    let number = |name: &str| options.get(name).and_then(Value::as_u64).map(|number| number as u32);
    let sort = options.get("sort").and_then(Value::as_array).cloned().unwrap_or_default();
    api::Related {
        select: select(options.get("select").unwrap_or(&Value::Null)),
        r#where: options.get("find").and_then(structure),
        sort: sort.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        skip: number("skip").unwrap_or(0),
        limit: number("limit"),
    }
}

/// An object as a protobuf `Struct`.
pub fn structure(value: &Value) -> Option<Struct> {
    let members = value.as_object()?;
    Some(Struct { fields: members.iter().map(|(name, value)| (name.clone(), protobuf(value))).collect() })
}

fn protobuf(value: &Value) -> prost_types::Value {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(flag) => Kind::BoolValue(*flag),
        Value::Number(number) => Kind::NumberValue(number.as_f64().expect("a case's numbers fit a double")),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(items) => Kind::ListValue(prost_types::ListValue { values: items.iter().map(protobuf).collect() }),
        Value::Object(_) => Kind::StructValue(structure(value).expect("an object")),
    };
    prost_types::Value { kind: Some(kind) }
}

impl Operation {
    /// The table, of a batch the first one's.
    pub fn table(&self) -> &str {
        match self {
            Operation::Read(read) => &read.table,
            Operation::Create(create) => &create.table,
            Operation::Update(update) => &update.table,
            Operation::Delete(delete) => &delete.table,
            Operation::Batch(items) => items.first().map_or("", Operation::table),
        }
    }

    /// Whether rows may change.
    pub fn is_write(&self) -> bool {
        !matches!(self, Operation::Read(_))
    }

    /// Path, its names as they are, and body of REST, below `/v1/api/{project}/crud/{database}`.
    pub fn rest(&self) -> (String, Value) {
        let with_returning = |mut body: Value, returning: &Value| {
            if !returning.is_null() {
                body["returning"] = returning.clone();
            }
            body
        };
        match self {
            Operation::Read(read) => {
                let mut options = json!({});
                for (name, value) in [("select", &read.select), ("sort", &json!(read.sort))] {
                    if !value.is_null() && *value != json!([]) {
                        options[name] = value.clone();
                    }
                }
                options["skip"] = json!(read.skip);
                options["limit"] = json!(read.limit);
                let body = json!({ "op": read.op, "find": read.find, "options": options });
                (format!("{}/read", read.table), body)
            }
            Operation::Create(create) => {
                let body = with_returning(json!({ "op": "all", "doc": create.docs }), &create.returning);
                (format!("{}/create", create.table), body)
            }
            Operation::Update(update) => {
                let body = json!({ "op": "all", "find": update.find, "update": update.update });
                (format!("{}/update", update.table), with_returning(body, &update.returning))
            }
            Operation::Delete(delete) => {
                let body = with_returning(json!({ "op": "all", "find": delete.find }), &delete.returning);
                (format!("{}/delete", delete.table), body)
            }
            Operation::Batch(items) => {
                let items: Vec<Value> = items.iter().map(Operation::batch_item).collect();
                ("batch".to_owned(), json!({ "reqs": items }))
            }
        }
    }

    fn batch_item(&self) -> Value {
        let (path, mut body) = self.rest();
        let (table, operation) = path.rsplit_once('/').expect("a batch has no batch inside");
        body["type"] = json!(operation);
        body["col"] = json!(table);
        body
    }

    /// A document and variables of GraphQL: every field answers under `r0`, `r1`, … in order.
    pub fn graphql(&self, database: &str) -> (String, Value) {
        let single = std::slice::from_ref(self);
        let fields = if let Operation::Batch(items) = self { items.as_slice() } else { single };
        let mut variables = Map::new();
        let mut declared = Vec::new();
        let mut text = Vec::new();
        for (position, operation) in fields.iter().enumerate() {
            let (field, arguments, select) = operation.graphql_field();
            let mut given = Vec::new();
            for (name, r#type, value) in arguments {
                let variable = format!("{name}{position}");
                declared.push(format!("${variable}: {type}"));
                given.push(format!("{name}: ${variable}"));
                variables.insert(variable, value);
            }
            let given = if given.is_empty() { String::new() } else { format!("({})", given.join(", ")) };
            text.push(format!("r{position}: {field}{given} @{database} {select}"));
        }
        let kind = if self.is_write() { "mutation" } else { "query" };
        let declared = if declared.is_empty() { String::new() } else { format!("({})", declared.join(", ")) };
        (format!("{kind}{declared} {{ {} }}", text.join(" ")), variables.into())
    }

    /// Name, arguments as name, type and value, and selection of a root field.
    fn graphql_field(&self) -> (String, Vec<(&str, &'static str, Value)>, String) {
        let written = |returning: &Value| match returning {
            Value::Null => "{ affected }".to_owned(),
            select => format!("{{ affected returning {} }}", selection(select)),
        };
        match self {
            Operation::Read(read) => {
                let mut arguments = Vec::new();
                if !read.find.is_null() {
                    arguments.push(("where", "Where", underscored(&read.find)));
                }
                if !read.sort.is_empty() {
                    arguments.push(("sort", "[String!]", json!(read.sort)));
                }
                for (name, value) in [("skip", read.skip), ("limit", read.limit)] {
                    if let Some(value) = value {
                        arguments.push((name, "Int", json!(value)));
                    }
                }
                if read.op != "all" {
                    arguments.push(("op", "ReadOp", json!(read.op)));
                }
                let select = if read.op == "count" { String::new() } else { selection(&read.select) };
                (read.table.clone(), arguments, select)
            }
            Operation::Create(create) => {
                let arguments = vec![("docs", "[Doc!]!", json!(create.docs))];
                (format!("insert_{}", create.table), arguments, written(&create.returning))
            }
            Operation::Update(update) => {
                let mut arguments = vec![("where", "Where", underscored(&update.find))];
                arguments.retain(|(_, _, find)| !find.is_null());
                for (operator, value) in &update.update {
                    arguments.push((operator.trim_start_matches('$'), "Changes", value.clone()));
                }
                (format!("update_{}", update.table), arguments, written(&update.returning))
            }
            Operation::Delete(delete) => {
                let mut arguments = vec![("where", "Where", underscored(&delete.find))];
                arguments.retain(|(_, _, find)| !find.is_null());
                (format!("delete_{}", delete.table), arguments, written(&delete.returning))
            }
            Operation::Batch(_) => panic!("a batch has no batch inside"),
        }
    }
}
