//! Runs `cases/*.json`: a rule, a request, and the expected outcome.
//!
//! A rule in a list is short for a `match`: type, operator, left and right side; `{"and": […]}` is short for its rule.
//! `auth` are the claims of a valid token, `token` is sent instead where it is given. What is expected is `allow`,
//! `where <filter>`, `stored <check>` of a create (both of an update that checks otherwise), `denied`,
//! `unauthenticated`, or `refused at <path in the rule>` when it is loaded.

use std::sync::Arc;

use arc_swap::ArcSwap;
use mesh::resources::{Kind, ResourceFault, Snapshot, parse_typed, schema_typed};
use proto::{
    auth::{Access, AuthorizeRequest, TableAccess},
    grant::{self, Grant},
};
use query::{
    Change, Comparison, Document, Filter, Operation, Quantifier, RuleFilter, Typed, Value,
    resources::{Algorithm, Database, DatabaseMeta, Project, ProjectMeta, TokenKey},
};
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};
use std::time::SystemTime;

use crate::{BUCKET, Development, EVENT, Error, SERVICE, Service, TABLE, key, policy_set::PolicySet};

const SECRET: &str = "a secret that has thirty-two bytes";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleFile {
    operation: String,
    mode: String,
    cases: Vec<RuleCase>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleCase {
    name: String,
    rule: Json,
    expect: String,
    operation: Option<String>,
    mode: Option<String>,
    auth: Option<Json>,
    token: Option<String>,
    find: Option<Map<String, Json>>,
    docs: Option<Vec<Json>>,
    #[serde(default)]
    set: Map<String, Json>,
    #[serde(default)]
    inc: Map<String, Json>,
    limit: Option<u64>,
    skip: Option<u64>,
}

#[test]
fn matches_are_decided() {
    run(include_str!("../cases/match.json"));
}

#[test]
fn rules_compose() {
    run(include_str!("../cases/composition.json"));
}

#[test]
fn comparisons_with_columns_become_filters() {
    run(include_str!("../cases/filter.json"));
}

#[test]
fn rows_are_filtered_and_checked_besides_the_rule() {
    run(include_str!("../cases/rows.json"));
}

#[test]
fn conditions_of_clients_do_not_widen_a_grant() {
    run(include_str!("../cases/where.json"));
}

fn run(text: &str) {
    let file: RuleFile = serde_json::from_str(text).unwrap();
    let mut failed = Vec::new();
    for case in &file.cases {
        let operation = case.operation.as_deref().unwrap_or(&file.operation);
        let mode = case.mode.as_deref().unwrap_or(&file.mode);
        let found = outcome(case, operation, mode);
        let met = match case.expect.strip_prefix("refused at") {
            Some(at) => found == format!("refused at spec.rules.{operation}{}{}", dot(at.trim()), at.trim()),
            None => found == case.expect || (case.expect == "denied" && found.starts_with("denied: ")),
        };
        if !met {
            failed.push(format!("{}: expected {}, found {found}", case.name, case.expect));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

fn dot(at: &str) -> &'static str {
    if at.is_empty() { "" } else { "." }
}

fn outcome(case: &RuleCase, operation: &str, mode: &str) -> String {
    let documents = match parsed(&shop(json!({ "mode": mode, "rules": { operation: expanded(&case.rule) } }))) {
        Ok(documents) => documents,
        Err(faults) => return format!("refused at {}", faults[0].path),
    };
    let auth = case
        .auth
        .clone()
        .unwrap_or_else(|| json!({"id": "u1", "role": "user", "lvl": 3, "ok": true, "groups": ["g1", "g2"]}));
    let token = case.token.clone().unwrap_or_else(|| token(&auth));
    let access = TableAccess {
        find: case.find.as_ref().map(filter),
        docs: case.docs.iter().flatten().map(document).collect(),
        changes: changes(case),
        limit: case.limit,
        skip: case.skip,
        ..TableAccess::new("music", "t", named(operation))
    };
    let request =
        AuthorizeRequest { project: "shop".into(), token: token.into(), accesses: vec![Access::Table(access)] };
    match service(&documents).authorize(request, now()) {
        Ok(mut response) => granted(response.grants.remove(0), named(operation)),
        Err(Error::Denied { message, .. }) => format!("denied: {message}"),
        Err(Error::Unauthenticated { .. }) => "unauthenticated".to_owned(),
        Err(error) => format!("{error:?}"),
    }
}

fn granted(grant: Grant, operation: Operation) -> String {
    let grant = grant::pair(b"mesh").1.terms(grant).unwrap();
    assert_eq!((grant.project.as_str(), grant.database.as_str(), grant.table.as_str()), ("shop", "music", "t"));
    assert_eq!(grant.operation, operation);
    let (filter, check) = (written(&grant.filter), written(&grant.check));
    match operation {
        Operation::Create => assert_eq!(filter, "true"),
        Operation::Update if filter != check => return format!("where {filter}, stored {check}"),
        Operation::Update => {}
        Operation::Read | Operation::Delete => assert_eq!(check, "true"),
    }
    match (filter.as_str(), check.as_str()) {
        ("true", "true") => "allow".to_owned(),
        ("true", check) => format!("stored {check}"),
        (filter, _) => format!("where {filter}"),
    }
}

/// Documents of a project with a table `t` of this spec.
pub fn shop(spec: Json) -> [Json; 3] {
    [
        json!({"kind": "project", "meta": {"id": "shop"}, "spec": {"tokens": [{"kid": "main", "secret": SECRET}]}}),
        json!({"kind": "database", "meta": {"project": "shop", "id": "music"}, "spec": {"url": "sqlite:music.db"}}),
        json!({"kind": "table", "meta": {"project": "shop", "database": "music", "id": "t"}, "spec": spec}),
    ]
}

/// Resources of these documents, if they are valid.
pub fn parsed(documents: &[Json]) -> Result<Snapshot, Vec<ResourceFault>> {
    let check = |_: &Snapshot| Vec::new();
    let project = Kind {
        name: "project",
        parse: parse_typed::<ProjectMeta, Project>,
        check,
        schema: schema_typed::<ProjectMeta, Project>,
    };
    let database = Kind {
        name: "database",
        parse: parse_typed::<DatabaseMeta, Database>,
        check,
        schema: schema_typed::<DatabaseMeta, Database>,
    };
    let texts: Vec<_> = documents.iter().map(Json::to_string).collect();
    Snapshot::parse(&texts.join("\n---\n"), &[project, database, TABLE, BUCKET, SERVICE, EVENT])
}

/// Resources of these documents.
pub fn snapshot(documents: &[Json]) -> Snapshot {
    parsed(documents).unwrap_or_else(|faults| panic!("{faults:?}"))
}

/// A service with these resources in force.
pub fn service(documents: &Snapshot) -> Service {
    let policies = PolicySet::new(documents, None, &PolicySet::default());
    Service::of(Arc::new(ArcSwap::from_pointee(policies)), grant::pair(b"mesh").0)
}

/// As [`service`], in development.
pub fn developing(documents: &Snapshot) -> Service {
    let keys = std::path::PathBuf::new();
    service(documents).developing(Development { keys, token_options: " --dir there".to_owned() })
}

/// A token of the project with these claims.
pub fn token(claims: &Json) -> String {
    let key = TokenKey {
        kid: Some("main".to_owned()),
        alg: Algorithm::Hs256,
        secret: SECRET.to_owned(),
        aud: vec![],
        iss: vec![],
        primary: true,
    };
    key::encode(&key, claims.as_object().unwrap()).unwrap()
}

/// The time of all requests.
pub fn now() -> SystemTime {
    time::macros::datetime!(2025-06-01 12:00:00.250 UTC).into()
}

fn named(operation: &str) -> Operation {
    crate::table::OPERATIONS.into_iter().find(|known| known.name() == operation).unwrap()
}

fn expanded(rule: &Json) -> Json {
    match rule {
        Json::Array(parts) => {
            let [r#type, eval, f1, f2] = parts.as_slice() else { panic!("{rule}") };
            json!({"rule": "match", "type": r#type, "eval": eval, "f1": f1, "f2": f2})
        }
        Json::Object(members) => {
            let mut rule = Map::new();
            for (name, value) in members {
                match (name.as_str(), value) {
                    ("and" | "or", Json::Array(clauses)) => {
                        rule.insert("rule".to_owned(), name.as_str().into());
                        rule.insert("clauses".to_owned(), clauses.iter().map(expanded).collect());
                    }
                    ("clause", clause) => {
                        rule.insert(name.clone(), expanded(clause));
                    }
                    (_, value) => {
                        rule.insert(name.clone(), value.clone());
                    }
                }
            }
            Json::Object(rule)
        }
        other => other.clone(),
    }
}

fn value(json: &Json) -> Value {
    proto::json::parse(json.to_string().as_bytes(), query::Guard::default()).unwrap()
}

/// The value as a column of its type holds it.
fn typed(json: &Json) -> Typed {
    match value(json) {
        Value::Null => Typed::Null,
        Value::Bool(flag) => Typed::Bool(flag),
        Value::Int(number) => Typed::Int(number),
        Value::Number(text) => Typed::Decimal(text),
        Value::Text(text) => Typed::Text(text),
        Value::List(_) | Value::Object(_) => Typed::Json(json.to_string()),
    }
}

fn document(json: &Json) -> Document {
    let members = json.as_object().unwrap().iter();
    Document(members.map(|(name, json)| (name.clone(), typed(json))).collect())
}

fn changes(case: &RuleCase) -> Vec<Change> {
    let set = case.set.iter().map(|(column, json)| Change::Set { column: column.clone(), value: typed(json) });
    let inc = case.inc.iter().map(|(column, json)| Change::Inc { column: column.clone(), by: typed(json) });
    set.chain(inc).collect()
}

/// Parses a condition in the syntax of REST.
fn filter(find: &Map<String, Json>) -> Filter {
    let all = |items: &Json| items.as_array().unwrap().iter().map(|item| filter(item.as_object().unwrap())).collect();
    let conditions = find.iter().map(|(name, json)| match (name.as_str(), json) {
        ("$or", items) => Filter::Or(all(items)),
        ("$and", items) => Filter::And(all(items)),
        ("$not", inner) => Filter::Not(Box::new(filter(inner.as_object().unwrap()))),
        (_, Json::Null) => Filter::IsNull { column: name.clone() },
        (_, Json::Array(items)) => Filter::In { column: name.clone(), values: items.iter().map(typed).collect() },
        (_, Json::Object(operators)) if operators.contains_key("$some") => Filter::Related {
            relation: name.clone(),
            long_name: None,
            quantifier: Quantifier::Some,
            filter: Box::new(filter(operators["$some"].as_object().unwrap())),
        },
        (_, Json::Object(operators)) => {
            let (operator, json) = operators.iter().next().unwrap();
            let comparison = match operator.as_str() {
                "$ne" => Comparison::Ne,
                "$gt" => Comparison::Gt,
                "$gte" => Comparison::Gte,
                other => panic!("{other}"),
            };
            Filter::Compare { column: name.clone(), comparison, value: typed(json) }
        }
        (_, json) => Filter::Compare { column: name.clone(), comparison: Comparison::Eq, value: typed(json) },
    });
    Filter::And(conditions.collect())
}

/// Renders a filter.
fn written(filter: &RuleFilter) -> String {
    let all = |filters: &[RuleFilter], word: &str| {
        let parts: Vec<_> = filters.iter().map(written).collect();
        format!("({})", parts.join(word))
    };
    match filter {
        Filter::And(filters) if filters.is_empty() => "true".to_owned(),
        Filter::And(filters) => all(filters, " and "),
        Filter::Or(filters) => all(filters, " or "),
        Filter::Not(inner) => match inner.as_ref() {
            Filter::And(_) | Filter::Or(_) => format!("not {}", written(inner)),
            Filter::Not(_)
            | Filter::Compare { .. }
            | Filter::In { .. }
            | Filter::IsNull { .. }
            | Filter::Related { .. } => format!("not ({})", written(inner)),
        },
        Filter::Compare { column, comparison, value } => {
            let operator = match comparison {
                Comparison::Eq => "=",
                Comparison::Ne => "!=",
                Comparison::Gt => ">",
                Comparison::Gte => ">=",
                Comparison::Lt => "<",
                Comparison::Lte => "<=",
            };
            format!("{column} {operator} {}", literal(value))
        }
        Filter::In { column, values } => {
            format!("{column} in ({})", values.iter().map(literal).collect::<Vec<_>>().join(", "))
        }
        Filter::IsNull { column } => format!("{column} is null"),
        Filter::Related { relation, quantifier, filter, .. } => {
            let word = match quantifier {
                Quantifier::Some => "some",
                Quantifier::None => "none",
                Quantifier::Every => "every",
            };
            format!("{word} {relation} ({})", written(filter))
        }
    }
}

fn literal(value: &Value) -> String {
    match value {
        Value::Text(text) => format!("'{text}'"),
        Value::Int(int) => int.to_string(),
        Value::Number(text) => text.clone(),
        Value::Bool(bool) => bool.to_string(),
        other => panic!("{other:?} in a filter"),
    }
}
