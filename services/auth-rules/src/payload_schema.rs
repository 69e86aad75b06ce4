//! JSON Schemas of the payloads of custom events. Source: JSON Schema 2020-12.

use jsonschema::{PatternOptions, Validator};
use serde_json::Value as Json;

/// The only dialect.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";
/// Bytes of the text of an error.
const ERROR_BYTES: usize = 300;
/// What is told of a payload that a schema with references refuses.
const UNFIT: &str = "it does not fit the schema of its type";

/// A schema, ready to be held against payloads.
#[derive(Debug)]
pub struct PayloadSchema {
    validator: Validator,
    /// Whether it has references. What is wrong with a payload is asked of one without them alone: details of all branches of
    /// one that refers to itself take a time that doubles with each level of the payload.
    has_references: bool,
}

impl PayloadSchema {
    /// The schema that `json` is. Errors: the path in it, which begins with a dot where there is one, and why.
    ///
    /// Patterns are matched in a time that grows with the text alone, whatever a stranger sends: those with references back
    /// and around are none.
    pub fn of(json: &Json) -> Result<Self, (String, String)> {
        if !json.is_object() && !json.is_boolean() {
            return Err((String::new(), "expected mapping or boolean".to_owned()));
        }
        let has_references = check_references(json, &mut String::new())?;
        let options = jsonschema::draft202012::options().with_pattern_options(PatternOptions::regex());
        let validator = options.build(json).map_err(|error| {
            let path = error.instance_path().to_string().replace('/', ".");
            (path, shortened(format!("invalid JSON Schema: {error}")))
        })?;
        Ok(Self { validator, has_references })
    }

    /// Whether a payload, JSON, is what it has to be. Errors: why not, without its values; of a schema with references only that
    /// it is not.
    pub fn check(&self, payload: &[u8]) -> Result<(), String> {
        let payload: Json =
            serde_json::from_slice(payload).map_err(|error| format!("it is not valid JSON: {error}"))?;
        if self.validator.is_valid(&payload) {
            return Ok(());
        }
        if self.has_references {
            return Err(UNFIT.to_owned());
        }
        self.validator.validate(&payload).map_err(|error| {
            let path = error.instance_path().to_string();
            let at = if path.is_empty() { String::new() } else { format!("{path}: ") };
            shortened(format!("{at}{}", error.masked()))
        })
    }
}

/// Refuses references that lead outside, and other dialects; whether there are references.
fn check_references(json: &Json, path: &mut String) -> Result<bool, (String, String)> {
    let inside = |path: &mut String, name: &str, json: &Json| -> Result<bool, (String, String)> {
        let before = path.len();
        path.push('.');
        path.push_str(name);
        let has_references = check_references(json, path)?;
        path.truncate(before);
        Ok(has_references)
    };
    let mut has_references = false;
    match json {
        Json::Object(members) => {
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
                has_references |= matches!(name.as_str(), "$ref" | "$dynamicRef") | inside(path, name, member)?;
            }
        }
        Json::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                has_references |= inside(path, &index.to_string(), item)?;
            }
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
    Ok(has_references)
}

fn shortened(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(ERROR_BYTES));
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_payload_is_what_it_has_to_be_or_its_place_is_told() {
        let schema = PayloadSchema::of(&json!({
            "type": "object", "required": ["mail"], "additionalProperties": false,
            "properties": {"mail": {"type": "string", "pattern": "^[^@]+@"}, "n": {"type": "integer", "maximum": 9}},
        }))
        .unwrap();
        for sound in [r#"{"mail":"a@b"}"#, r#"{"mail":"a@b","n":9}"#] {
            assert_eq!(schema.check(sound.as_bytes()), Ok(()), "{sound}");
        }
        for (payload, told) in [
            ("{}", "\"mail\" is a required property"),
            (r#"{"mail":"hidden"}"#, "/mail: value does not match"),
            (r#"{"mail":1}"#, "/mail: value is not of type \"string\""),
            (r#"{"mail":"a@b","n":10}"#, "/n: value is greater than the maximum"),
            (r#"{"mail":"a@b","x":1}"#, "'x'"),
            ("[]", "value is not of type \"object\""),
            ("{", "it is not valid JSON"),
        ] {
            let why = schema.check(payload.as_bytes()).unwrap_err();
            assert!(why.contains(told) && !why.contains("hidden"), "{payload}: {why}");
        }
        let long = format!(r#"{{"mail":"a@b","{}":1}}"#, "ä".repeat(1000));
        assert!(schema.check(long.as_bytes()).unwrap_err().len() <= ERROR_BYTES);
    }

    #[test]
    fn a_pattern_takes_no_longer_than_its_text() {
        let schema = PayloadSchema::of(&json!({"pattern": "^(a+)+$"})).unwrap();
        let begun = std::time::Instant::now();
        assert!(schema.check(format!("\"{}!\"", "a".repeat(100_000)).as_bytes()).is_err());
        assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
    }

    #[test]
    fn a_schema_that_refers_to_itself_takes_no_longer_than_the_payload_is_deep() {
        let branch = |name: &str| {
            json!({
                "type": "object", "required": ["next"],
                "properties": { "next": { "$ref": "#" }, (name): { "type": "string" } },
            })
        };
        let schema = PayloadSchema::of(&json!({"anyOf": [branch("a"), branch("b"), {"type": "integer"}]})).unwrap();
        let deep = |end: &str| format!("{}{end}{}", r#"{"next":"#.repeat(60), "}".repeat(60));
        let begun = std::time::Instant::now();
        assert_eq!(schema.check(deep("1").as_bytes()), Ok(()));
        assert_eq!(schema.check(deep("\"x\"").as_bytes()), Err(UNFIT.to_owned()));
        assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
    }
}
