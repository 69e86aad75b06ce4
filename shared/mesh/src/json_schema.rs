//! JSON Schemas of operators: what they allow to stand in a document, and what values of strangers are held against. Source: JSON
//! Schema 2020-12.

use std::collections::HashMap;

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

/// The only dialect.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";
/// Most bytes of a schema.
const SCHEMA_BYTES: usize = 256 << 10;
/// Levels of a schema.
const DEPTH: usize = 64;
/// Bytes of a text that says what is wrong.
const TEXT_BYTES: usize = 300;
/// Places of a schema, with those that its references lead to in their stead, up to which it is told what is wrong with a value.
const PLACES_MAX: u64 = 10_000;
/// Steps from reference to reference that are counted.
const STEPS_MAX: usize = 100;
/// What is told of a value that a larger schema refuses.
const UNFIT: &str = "it does not fit the schema";

/// A compiled schema. It reaches nothing outside of itself.
#[derive(Debug)]
pub struct JsonSchema {
    validator: Validator,
    /// Whether it is asked what is wrong with a value. Details of all branches of a schema that refers to itself take a time that
    /// doubles with each level of the value.
    tells_details: bool,
}

impl JsonSchema {
    /// Compiles `schema`. Errors: the path in it, which begins with a dot where there is one, and why it is none, is too large, or
    /// leads outside.
    ///
    /// Patterns are matched in a time that grows with the text alone, whatever a stranger sends: those with references back
    /// and around are none.
    pub fn new(schema: &Value) -> Result<Self, (String, String)> {
        if !matches!(schema, Value::Object(_) | Value::Bool(_)) {
            return Err((String::new(), "expected mapping or boolean".to_owned()));
        }
        check_references(schema, &mut String::new(), DEPTH)?;
        if schema.to_string().len() > SCHEMA_BYTES {
            return Err((String::new(), format!("the schema is over the limit of {SCHEMA_BYTES} bytes")));
        }
        let options = jsonschema::draft202012::options().with_pattern_options(PatternOptions::regex());
        let validator = options.build(schema).map_err(|error| {
            let path = error.instance_path().to_string().replace('/', ".");
            (path, shortened(format!("invalid JSON Schema: {error}")))
        })?;
        let tells_details = Expansion::of(schema) <= PLACES_MAX;
        Ok(Self { validator, tells_details })
    }

    /// Whether a text is JSON that the schema allows. Errors: as of [`JsonSchema::check`].
    pub fn check_text(&self, json: &[u8]) -> Result<(), String> {
        let value = serde_json::from_slice(json).map_err(|error| format!("it is not valid JSON: {error}"))?;
        self.check(&value)
    }

    /// Whether the schema allows a value. Errors: where it does not and why, without values, which may be long and secret.
    pub fn check(&self, value: &Value) -> Result<(), String> {
        if self.validator.is_valid(value) {
            return Ok(());
        }
        if !self.tells_details {
            return Err(UNFIT.to_owned());
        }
        self.validator.validate(value).map_err(|error| {
            let path = error.instance_path().to_string();
            let at = if path.is_empty() { String::new() } else { format!("{path}: ") };
            shortened(format!("{at}{}", error.masked()))
        })
    }
}

/// Refuses references that lead outside, and other dialects.
fn check_references(schema: &Value, path: &mut String, depth: usize) -> Result<(), (String, String)> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err((shortened(path.clone()), format!("the schema has more than {DEPTH} levels")));
    };
    let inside = |path: &mut String, name: &str, member: &Value| {
        let before = path.len();
        path.push('.');
        path.push_str(name);
        check_references(member, path, depth)?;
        path.truncate(before);
        Ok(())
    };
    match schema {
        Value::Object(members) => {
            for (name, member) in members {
                let wrong = match (name.as_str(), member.as_str()) {
                    ("$ref" | "$dynamicRef", Some(text)) if !text.starts_with('#') => {
                        Some(format!("expected a place inside the schema, such as #/$defs/name, found {text:?}"))
                    }
                    ("$schema", Some(text)) if text.trim_end_matches('#') != DIALECT => {
                        Some(format!("expected {DIALECT}, found {text:?}"))
                    }
                    _ => None,
                };
                if let Some(wrong) = wrong {
                    return Err((format!("{path}.{name}"), shortened(wrong)));
                }
                inside(path, name, member)?;
            }
            Ok(())
        }
        Value::Array(items) => {
            items.iter().enumerate().try_for_each(|(index, item)| inside(path, &index.to_string(), item))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

/// Count of the places of a schema, with those that its references lead to in their stead.
struct Expansion<'s> {
    schema: &'s Value,
    /// Of what references lead to; `None` while it is counted.
    counts: HashMap<&'s str, Option<u64>>,
}

impl<'s> Expansion<'s> {
    /// The count; of a schema that refers to itself the greatest number.
    fn of(schema: &'s Value) -> u64 {
        Self { schema, counts: HashMap::new() }.count(schema, STEPS_MAX)
    }

    fn count(&mut self, schema: &'s Value, steps: usize) -> u64 {
        match schema {
            Value::Object(members) => members.iter().fold(1, |sum: u64, (name, member)| {
                let reference = member.as_str().filter(|_| matches!(name.as_str(), "$ref" | "$dynamicRef"));
                sum.saturating_add(match reference {
                    Some(reference) => self.count_target(reference, steps),
                    None => self.count(member, steps),
                })
            }),
            Value::Array(items) => items.iter().fold(1, |sum: u64, item| sum.saturating_add(self.count(item, steps))),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 1,
        }
    }

    fn count_target(&mut self, reference: &'s str, steps: usize) -> u64 {
        if let Some(known) = self.counts.get(reference) {
            return known.unwrap_or(u64::MAX);
        }
        // Where an anchor leads is not looked for.
        let target = reference.strip_prefix('#').and_then(|pointer| self.schema.pointer(pointer));
        let (Some(target), Some(steps)) = (target, steps.checked_sub(1)) else { return u64::MAX };
        self.counts.insert(reference, None);
        let count = self.count(target, steps);
        self.counts.insert(reference, Some(count));
        count
    }
}

fn shortened(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT_BYTES));
    text
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_is_told_what_is_wrong_with_it() {
        let schema = JsonSchema::new(&json!({
            "type": "object",
            "properties": {
                "to": { "type": "string", "pattern": "^[a-z]+$" },
                "copies": { "$ref": "#/$defs/list" },
                "n": { "type": "integer", "maximum": 9 },
            },
            "required": ["to"],
            "additionalProperties": false,
            "$defs": { "list": { "type": "array", "items": { "$ref": "#/properties/to" } } },
        }))
        .unwrap();
        for sound in [r#"{"to":"ann"}"#, r#"{"to":"ann","n":9,"copies":["bob"]}"#] {
            assert_eq!(schema.check_text(sound.as_bytes()), Ok(()), "{sound}");
        }
        for (value, told) in [
            ("{}", "\"to\" is a required property"),
            (r#"{"to":"HIDDEN"}"#, "/to: value does not match"),
            (r#"{"to":1}"#, "/to: value is not of type \"string\""),
            (r#"{"to":"ann","copies":["bob",5]}"#, "/copies/1: value is not of type \"string\""),
            (r#"{"to":"ann","n":10}"#, "/n: value is greater than the maximum"),
            (r#"{"to":"ann","x":1}"#, "'x'"),
            ("[]", "value is not of type \"object\""),
            ("{", "it is not valid JSON"),
        ] {
            let why = schema.check_text(value.as_bytes()).unwrap_err();
            assert!(why.contains(told) && !why.contains("HIDDEN"), "{value}: {why}");
        }
        let long = format!(r#"{{"to":"ann","{}":1}}"#, "ä".repeat(1000));
        assert!(schema.check_text(long.as_bytes()).unwrap_err().len() <= TEXT_BYTES);
    }

    #[test]
    fn a_schema_reaches_nothing_outside_and_is_bounded() {
        let told = |schema| {
            let (path, why) = JsonSchema::new(&schema).map(drop).unwrap_err();
            format!("{path}: {why}")
        };
        let inside = "expected a place inside the schema, such as #/$defs/name, found ";
        let outside = json!({ "$ref": "https://example.com/s.json" });
        assert_eq!(told(outside), format!(".$ref: {inside}\"https://example.com/s.json\""));
        assert_eq!(told(json!({ "items": { "$ref": "a.json" } })), format!(".items.$ref: {inside}\"a.json\""));
        assert!(
            told(json!({ "allOf": [{ "$dynamicRef": "file:///etc/passwd" }] })).starts_with(".allOf.0.$dynamicRef")
        );
        assert!(told(json!({ "$schema": "http://json-schema.org/draft-07/schema#" })).contains("2020-12"));
        for none in [json!({ "type": "text" }), json!({ "pattern": "(a" }), json!({ "pattern": "(a)\\1" })] {
            assert!(told(none.clone()).contains(": invalid JSON Schema: "), "{none}");
        }
        assert!(told(json!({ "$ref": "#/$defs/none" })).contains("invalid JSON Schema: "));
        assert_eq!(told(json!("string")), ": expected mapping or boolean");
        assert!(told(json!({ "const": "x".repeat(SCHEMA_BYTES) })).contains("over the limit"));
        let deep = (0..100).fold(json!({}), |schema, _| json!({ "items": schema }));
        assert!(told(deep).contains("more than 64 levels"));
    }

    #[test]
    fn a_pattern_takes_no_longer_than_its_text() {
        let schema = JsonSchema::new(&json!({ "pattern": "^(a+)+$" })).unwrap();
        let begun = Instant::now();
        assert!(schema.check(&json!(format!("{}!", "a".repeat(100_000)))).is_err());
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }

    #[test]
    fn a_schema_that_refers_to_itself_takes_no_longer_than_the_value_is_deep() {
        let branch = |name: &str| {
            json!({
                "type": "object", "required": ["next"],
                "properties": { "next": { "$ref": "#" }, (name): { "type": "string" } },
            })
        };
        let schema = JsonSchema::new(&json!({ "anyOf": [branch("a"), branch("b"), { "type": "integer" }] })).unwrap();
        let deep = |end: &str| format!("{}{end}{}", r#"{"next":"#.repeat(60), "}".repeat(60));
        let begun = Instant::now();
        assert_eq!(schema.check_text(deep("1").as_bytes()), Ok(()));
        assert_eq!(schema.check_text(deep("\"x\"").as_bytes()), Err(UNFIT.to_owned()));
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }

    #[test]
    fn places_are_counted_as_often_as_they_are_referred_to() {
        assert_eq!(Expansion::of(&json!({ "$ref": "#/$defs/a", "$defs": { "a": { "type": "string" } } })), 6);
        assert_eq!(Expansion::of(&json!({ "items": { "$ref": "#" } })), u64::MAX);
        assert_eq!(Expansion::of(&json!({ "$ref": "#name", "$defs": { "a": { "$anchor": "name" } } })), u64::MAX);
        let doubling = |level: usize| {
            let next = json!({ "$ref": format!("#/$defs/{}", level + 1) });
            (level.to_string(), json!({ "anyOf": [next, next] }))
        };
        let mut levels: serde_json::Map<String, Value> = (0..30).map(doubling).collect();
        levels.insert("30".to_owned(), json!({ "type": "string" }));
        assert!(Expansion::of(&json!({ "$ref": "#/$defs/0", "$defs": levels })) > 1 << 30);
        let chain = |level: usize| (level.to_string(), json!({ "$ref": format!("#/$defs/{}", level + 1) }));
        let chain: serde_json::Map<String, Value> = (0..2000).map(chain).collect();
        assert_eq!(Expansion::of(&json!({ "$ref": "#/$defs/0", "$defs": chain })), u64::MAX);
    }
}
