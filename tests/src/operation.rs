//! Operations as cases write them, and as REST and gRPC say them.

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
    /// `all`, or `one`, which gRPC has no word for.
    #[serde(default = "all")]
    pub op: String,
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
    /// `all`, or `one`, which gRPC has no word for.
    #[serde(default = "all")]
    pub op: String,
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
                let body = json!({ "op": update.op, "find": update.find, "update": update.update });
                (format!("{}/update", update.table), with_returning(body, &update.returning))
            }
            Operation::Delete(delete) => {
                let body = with_returning(json!({ "op": delete.op, "find": delete.find }), &delete.returning);
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

    /// The operation with `returning`: a protocol may tell the number of rows only with them.
    pub fn returning(&self) -> Self {
        let mut asking = self.clone();
        let names = |document: Option<&Map<String, Value>>| {
            let name = document.and_then(|document| document.keys().find(|name| !name.starts_with('$')));
            json!([name.map_or("id", String::as_str)])
        };
        let (returning, wanted) = match &mut asking {
            Operation::Create(create) => {
                let first = create.docs.first().and_then(Value::as_object);
                (&mut create.returning, names(first))
            }
            Operation::Update(update) => {
                let changed = update.update.values().next().and_then(Value::as_object);
                (&mut update.returning, names(changed))
            }
            Operation::Delete(delete) => (&mut delete.returning, names(delete.find.as_object())),
            Operation::Read(_) | Operation::Batch(_) => return asking,
        };
        if returning.is_null() {
            *returning = wanted;
        }
        asking
    }

    /// Whether it asks for the rows that it writes.
    pub fn is_returning(&self) -> bool {
        match self {
            Operation::Create(Create { returning, .. })
            | Operation::Update(Update { returning, .. })
            | Operation::Delete(Delete { returning, .. }) => !returning.is_null(),
            Operation::Read(_) | Operation::Batch(_) => false,
        }
    }
}
