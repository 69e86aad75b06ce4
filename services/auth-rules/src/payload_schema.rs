//! JSON Schemas of the payloads of custom events. Source: JSON Schema 2020-12.

use jsonschema::{PatternOptions, Validator};
use serde_json::Value as Json;

/// The only dialect.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";
/// Bytes of the text of an error.
const ERROR_BYTES: usize = 300;

/// A schema, ready to be held against payloads.
#[derive(Debug)]
pub struct PayloadSchema(Validator);

impl PayloadSchema {
    /// The schema that `json` is. Errors: the path in it, which begins with a dot where there is one, and why.
    ///
    /// Patterns are matched in a time that grows with the text alone, whatever a stranger sends: those with references back
    /// and around are none.
    pub fn of(json: &Json) -> Result<Self, (String, String)> {
        if !json.is_object() && !json.is_boolean() {
            return Err((String::new(), "expected mapping or boolean".to_owned()));
        }
        check_references(json, &mut String::new())?;
        let options = jsonschema::draft202012::options().with_pattern_options(PatternOptions::regex());
        let validator = options.build(json).map_err(|error| {
            let path = error.instance_path().to_string().replace('/', ".");
            (path, shortened(format!("invalid JSON Schema: {error}")))
        })?;
        Ok(Self(validator))
    }

    /// Whether a payload, JSON, is what it has to be. Errors: why not, without its values.
    pub fn check(&self, payload: &[u8]) -> Result<(), String> {
        let payload: Json =
            serde_json::from_slice(payload).map_err(|error| format!("it is not valid JSON: {error}"))?;
        self.0.validate(&payload).map_err(|error| {
            let path = error.instance_path().to_string();
            let at = if path.is_empty() { String::new() } else { format!("{path}: ") };
            shortened(format!("{at}{}", error.masked()))
        })
    }
}

/// Refuses references that lead outside, and other dialects.
fn check_references(json: &Json, path: &mut String) -> Result<(), (String, String)> {
    let inside = |path: &mut String, name: &str, json: &Json| {
        let before = path.len();
        path.push('.');
        path.push_str(name);
        check_references(json, path)?;
        path.truncate(before);
        Ok(())
    };
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
                inside(path, name, member)?;
            }
            Ok(())
        }
        Json::Array(items) => {
            items.iter().enumerate().try_for_each(|(index, item)| inside(path, &index.to_string(), item))
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => Ok(()),
    }
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
}
