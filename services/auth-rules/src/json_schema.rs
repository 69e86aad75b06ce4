//! JSON Schema of `table` documents, for editors.

use mesh::resources::PartSchemas;
use query::{
    event::{Event, EventMeta},
    function::{Service, ServiceMeta},
    hook::BeforeWrites,
    resources::{Bucket, BucketMeta, TableLink, TableMeta},
};
use schemars::{SchemaGenerator, json_schema};
use serde_json::{Map, Value as Json, json};

use crate::table::OPERATIONS;

/// Schemas of `meta` and `spec` of a table.
pub fn table(generator: &mut SchemaGenerator) -> PartSchemas {
    let definitions = generator.definitions_mut();
    definitions.insert("Rule".to_owned(), rule(Map::new()));
    definitions.insert("Policy".to_owned(), rule(outermost()));
    definitions.insert("RowCondition".to_owned(), json!({
        "type": "object",
        "description": "A condition on rows, in the syntax of clients' conditions, with paths for values: {org: args.auth.org}.",
    }));
    definitions.insert("ColumnSets".to_owned(), column_sets());
    let mode = mode();
    let link = generator.subschema_for::<TableLink>();
    let before = generator.subschema_for::<BeforeWrites>();
    let rules: Map<String, Json> =
        OPERATIONS.iter().map(|operation| (operation.name().to_owned(), json!({ "$ref": "#/$defs/Policy" }))).collect();
    let spec = json_schema!({
        "type": ["object", "null"],
        "additionalProperties": false,
        "properties": {
            "rules": {
                "type": ["object", "null"],
                "description": "Who may do what; an operation without a rule is denied.",
                "additionalProperties": false,
                "properties": rules,
            },
            "columns": { "$ref": "#/$defs/ColumnSets" },
            "mode": mode,
            "before": before,
            "links": {
                "type": ["object", "null"],
                "description": "Relations to other tables, by name; one of a foreign key that has the name is replaced.",
                "additionalProperties": link,
            },
        },
    });
    PartSchemas { meta: generator.subschema_for::<TableMeta>(), spec }
}

/// Schemas of `meta` and `spec` of a bucket.
pub fn bucket(generator: &mut SchemaGenerator) -> PartSchemas {
    let (meta, spec) = (generator.subschema_for::<BucketMeta>(), generator.subschema_for::<Bucket>());
    let definitions = generator.definitions_mut();
    add_anonymous_policy(definitions);
    if let Some(Json::Object(properties)) = definitions.get_mut("FileRule").and_then(|rule| rule.get_mut("properties"))
    {
        for (key, property) in properties.iter_mut().filter(|(key, _)| *key != "prefix") {
            let description = property.get("description").cloned().unwrap_or_else(|| key.as_str().into());
            *property = json!({ "$ref": "#/$defs/AnonymousPolicy", "description": description });
        }
    }
    PartSchemas { meta, spec }
}

/// Schemas of `meta` and `spec` of a service.
pub fn service(generator: &mut SchemaGenerator) -> PartSchemas {
    let (meta, spec) = (generator.subschema_for::<ServiceMeta>(), generator.subschema_for::<Service>());
    let definitions = generator.definitions_mut();
    add_anonymous_policy(definitions);
    let rule = definitions.get_mut("Function").and_then(|function| function.pointer_mut("/properties/rule"));
    if let Some(rule) = rule {
        *rule = json!({ "$ref": "#/$defs/AnonymousPolicy", "description": "Who may call it; absent: nobody." });
    }
    let register = definitions.get_mut("WorkerPool").and_then(|pool| pool.pointer_mut("/properties/register"));
    if let Some(register) = register {
        let description = "Who may register as a worker; absent: in development everybody, else nobody.";
        *register = json!({ "$ref": "#/$defs/AnonymousPolicy", "description": description });
    }
    PartSchemas { meta, spec }
}

/// Schemas of `meta` and `spec` of an event.
pub fn event(generator: &mut SchemaGenerator) -> PartSchemas {
    let (meta, spec) = (generator.subschema_for::<EventMeta>(), generator.subschema_for::<Event>());
    let definitions = generator.definitions_mut();
    add_anonymous_policy(definitions);
    if let Some(rule) = definitions.get_mut("Event").and_then(|event| event.pointer_mut("/properties/rule")) {
        *rule = json!({ "$ref": "#/$defs/AnonymousPolicy", "description": "Who may queue it; absent: nobody." });
    }
    PartSchemas { meta, spec }
}

/// Adds the schema of rules that are of no table.
fn add_anonymous_policy(definitions: &mut Map<String, Json>) {
    definitions.insert("Rule".to_owned(), rule(Map::new()));
    let anonymous = outermost().into_iter().filter(|(key, _)| key == "anonymous");
    definitions.insert("AnonymousPolicy".to_owned(), rule(anonymous.collect()));
}

/// A rule with `more` keys.
fn rule(more: Map<String, Json>) -> Json {
    let operand = json!({ "type": ["string", "number", "boolean"] });
    let mut properties = Map::from_iter([
        (
            "rule".to_owned(),
            json!({
                "enum": ["allow", "authenticated", "deny", "match", "and", "or", "not", "func"],
                "description": "allow: everybody; authenticated: every valid token; match: a comparison; and, or, not: of other rules; func: a function that acknowledges.",
            }),
        ),
        (
            "type".to_owned(),
            json!({ "enum": ["string", "number", "bool", "boolean", "date"], "description": "Type that a match compares in." }),
        ),
        (
            "eval".to_owned(),
            json!({
                "enum": ["==", "!=", "<", "<=", ">", ">=", "in", "notIn", "isNull", "startsWith", "matches"],
                "description": "Operator of a match.",
            }),
        ),
        (
            "f1".to_owned(),
            described(
                &operand,
                "Left side of a match: args.auth.… of the token, args.find.… of the rows, args.doc.… of what is written.",
            ),
        ),
        (
            "f2".to_owned(),
            json!({ "type": ["string", "number", "boolean", "array"], "description": "Right side of a match." }),
        ),
        (
            "clauses".to_owned(),
            json!({ "type": "array", "minItems": 1, "items": { "$ref": "#/$defs/Rule" }, "description": "Rules of an and, an or." }),
        ),
        ("clause".to_owned(), json!({ "$ref": "#/$defs/Rule", "description": "Rule of a not." })),
        ("service".to_owned(), json!({ "type": "string", "description": "Service of the function of a func." })),
        ("func".to_owned(), json!({ "type": "string", "description": "Function that a func asks." })),
        ("mode".to_owned(), mode()),
        ("error".to_owned(), json!({ "type": "string", "description": "Text for callers whom the rule refuses." })),
        ("name".to_owned(), json!({ "type": "string" })),
        ("id".to_owned(), json!({ "type": "string" })),
    ]);
    properties.extend(more);
    let when = |rules: &[&str], keys: &[&str]| json!({ "if": { "properties": { "rule": { "enum": rules } } }, "then": { "required": keys } });
    json!({
        "type": "object",
        "required": ["rule"],
        "additionalProperties": false,
        "properties": properties,
        "allOf": [
            when(&["match"], &["type", "eval", "f1"]),
            when(&["and", "or"], &["clauses"]),
            when(&["not"], &["clause"]),
            when(&["func"], &["service", "func"]),
        ],
    })
}

/// Keys of the outermost rule of an operation.
fn outermost() -> Map<String, Json> {
    Map::from_iter([
        ("columns".to_owned(), json!({ "$ref": "#/$defs/ColumnSets" })),
        (
            "allowAll".to_owned(),
            json!({ "type": "boolean", "description": "Permits an update or a delete without a condition." }),
        ),
        (
            "anonymous".to_owned(),
            json!({ "type": "boolean", "description": "Evaluates the rule without a valid token too." }),
        ),
        ("rowFilter".to_owned(), json!({ "$ref": "#/$defs/RowCondition" })),
        ("withCheck".to_owned(), json!({ "$ref": "#/$defs/RowCondition" })),
    ])
}

fn column_sets() -> Json {
    let names = json!({ "type": "array", "items": { "type": "string" } });
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "read": described(&names, "Columns that answers may have."),
            "filter": described(&names, "Columns that conditions and orders may have."),
            "write": described(&names, "Columns that may be written."),
            "deny": described(&names, "Columns that may be neither read, searched nor written."),
        },
    })
}

fn mode() -> Json {
    json!({ "enum": ["check", "filter", "auto"], "description": "Effect of a match on args.find." })
}

fn described(schema: &Json, description: &str) -> Json {
    let mut schema = schema.clone();
    schema["description"] = description.into();
    schema
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BUCKET, SERVICE, TABLE};

    fn definitions() -> Json {
        mesh::resources::json_schema(&[TABLE, BUCKET, SERVICE])["$defs"].take()
    }

    /// Keys of a definition that a rule inside others has not.
    fn further(definitions: &Json, name: &str) -> Vec<String> {
        let keys =
            |name: &str| definitions[name]["properties"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        let inner = keys("Rule");
        assert!(["rule", "f1", "clauses", "func", "error"].iter().all(|key| inner.iter().any(|inner| inner == key)));
        keys(name).into_iter().filter(|key| !inner.contains(key)).collect()
    }

    #[test]
    fn an_outermost_rule_has_the_keys_of_its_resource() {
        let definitions = definitions();
        let of_tables = ["columns", "allowAll", "anonymous", "rowFilter", "withCheck"];
        assert_eq!(further(&definitions, "Policy"), of_tables);
        assert_eq!(further(&definitions, "AnonymousPolicy"), ["anonymous"]);
        let files = &definitions["FileRule"]["properties"];
        for operation in ["create", "read", "delete", "list"] {
            assert_eq!(files[operation]["$ref"], "#/$defs/AnonymousPolicy", "{operation}");
        }
        assert_eq!(files["prefix"]["$ref"], Json::Null);
        assert_eq!(definitions["Function"]["properties"]["rule"]["$ref"], "#/$defs/AnonymousPolicy");
        assert_eq!(definitions["WorkerPool"]["properties"]["register"]["$ref"], "#/$defs/AnonymousPolicy");
    }

    #[test]
    fn keys_of_rules_are_described() {
        let definitions = definitions();
        let rule = &definitions["Rule"]["properties"];
        assert_eq!(rule["mode"]["enum"], json!(["check", "filter", "auto"]));
        assert!(rule["f1"]["description"].as_str().unwrap().starts_with("Left side of a match"));
        let sets = definitions["ColumnSets"]["properties"].as_object().unwrap();
        assert_eq!(sets.keys().collect::<Vec<_>>(), ["read", "filter", "write", "deny"]);
        for (name, set) in sets {
            assert_eq!(set["items"]["type"], "string", "{name}");
            assert!(set["description"].as_str().unwrap().starts_with("Columns that "), "{name}");
        }
    }
}
