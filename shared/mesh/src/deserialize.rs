//! Deserialization of JSON values, with errors that name the path and the nearest known key.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::yaml::below;

/// A deserialization error: the path of the invalid value, and the reason.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DeserializeError {
    /// Dotted; empty at the root.
    pub path: String,
    pub message: String,
}

impl DeserializeError {
    /// Whether the type has no such key.
    pub(crate) fn is_unknown_key(&self) -> bool {
        self.message.starts_with("key ") && self.message.contains(" is not known")
    }
}

/// `value` as a `T`.
pub(crate) fn read<T: DeserializeOwned>(value: &Value) -> Result<T, DeserializeError> {
    serde_path_to_error::deserialize(value).map_err(|error| describe(&dotted(error.path()), &error.inner().to_string()))
}

/// The known name that `name` was most likely meant to be, if any is near enough.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |candidate: &str| strsim::jaro_winkler(&name.to_lowercase(), &candidate.to_lowercase());
    let near = known.into_iter().map(|candidate| (likeness(candidate), candidate));
    near.filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

/// `what name is not known; did you mean …? known: …`.
pub(crate) fn unknown(what: &str, name: &str, known: &[&str]) -> String {
    let meant = nearest(name, known.iter().copied()).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
    let separator = if meant.is_empty() { ";" } else { "" };
    match known {
        [] => format!("{what} {name} is not known; no {what} is allowed here"),
        known => format!("{what} {name} is not known{meant}{separator} known: {}", known.join(", ")),
    }
}

fn dotted(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    path.iter().fold(String::new(), |parent, segment| match segment {
        Segment::Seq { index } => below(&parent, &index.to_string()),
        Segment::Map { key } => below(&parent, key),
        Segment::Enum { variant } => below(&parent, variant),
        Segment::Unknown => parent,
    })
}

/// A serde error as a [`DeserializeError`]. A value that was given is never repeated: it may be a secret.
fn describe(path: &str, text: &str) -> DeserializeError {
    let here = |message: String| DeserializeError { path: path.to_owned(), message };
    if let Some(rest) = text.strip_prefix("unknown field ") {
        let names = quoted(rest);
        let (name, known) = names.split_first().map_or(("", &[][..]), |(name, known)| (*name, known));
        let path =
            if path == name || path.ends_with(&format!(".{name}")) { path.to_owned() } else { below(path, name) };
        return DeserializeError { path, message: unknown("key", name, known) };
    }
    if let Some(rest) = text.strip_prefix("unknown variant ") {
        let names = quoted(rest);
        let (name, known) = names.split_first().map_or(("", &[][..]), |(name, known)| (*name, known));
        return here(unknown("value", name, known));
    }
    if let Some(rest) = text.strip_prefix("missing field ") {
        return here(format!("the key {} is missing", rest.trim_matches('`')));
    }
    for start in ["invalid type: ", "invalid value: "] {
        let Some(rest) = text.strip_prefix(start) else { continue };
        let (found, expected) = rest.rsplit_once(", expected ").unwrap_or((rest, "another value"));
        let (expected, found) = (expected_type(expected), found_type(found));
        return here(format!("expected {expected}, found {found}"));
    }
    here(text.to_owned())
}

/// The names between backticks in `text`.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

fn expected_type(expected: &str) -> &str {
    match expected {
        "a sequence" => "list",
        "a map" => "mapping",
        "a string" => "string",
        "a boolean" => "boolean",
        "u16" | "u32" | "u64" | "usize" => "non-negative integer",
        "i16" | "i32" | "i64" | "isize" => "integer",
        "f32" | "f64" => "number",
        name if name.starts_with("struct ") || name.starts_with("internally tagged enum ") => "mapping",
        name if name.starts_with("enum ") => "one of its names",
        name => name,
    }
}

/// The name of the type of `value`, for texts that say what was found.
pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "mapping",
    }
}

fn found_type(found: &str) -> &str {
    match found.split([' ', '`']).next() {
        Some("string") => "string",
        Some("integer") if found.contains("`-") => "negative integer",
        Some("integer") => "integer",
        Some("floating") => "number",
        Some("boolean") => "boolean",
        Some("null" | "unit") => "null",
        Some("sequence") => "list",
        Some("map") => "mapping",
        _ => "another value",
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Shop {
        #[expect(dead_code, reason = "only whether it can be read matters here")]
        till: Till,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only whether it can be read matters here")]
    struct Till {
        drawers: Vec<u64>,
        #[serde(default)]
        paint: Paint,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Paint {
        #[default]
        Green,
        Blue,
    }

    fn refused(value: Value) -> (String, String) {
        let error = read::<Shop>(&value).unwrap_err();
        (error.path, error.message)
    }

    fn told(path: &str, message: &str) -> (String, String) {
        (path.to_owned(), message.to_owned())
    }

    #[test]
    fn an_unknown_key_is_told_with_the_nearest_known_one() {
        let expected = told("till.drawer", "key drawer is not known; did you mean drawers? known: drawers, paint");
        assert_eq!(refused(json!({"till": {"drawer": []}})), expected);
        let expected = told("zzz", "key zzz is not known; known: till");
        assert_eq!(refused(json!({"zzz": 1})), expected);
    }

    #[test]
    fn a_missing_key_is_told() {
        assert_eq!(refused(json!({"till": {}})), told("till", "the key drawers is missing"));
    }

    #[test]
    fn a_wrong_type_is_told_without_the_value() {
        let expected = told("till.drawers", "expected list, found string");
        assert_eq!(refused(json!({"till": {"drawers": "a, expected secret"}})), expected);
        let expected = told("till.drawers.1", "expected non-negative integer, found negative integer");
        assert_eq!(refused(json!({"till": {"drawers": [1, -1]}})), expected);
        assert_eq!(refused(json!({"till": null})), told("till", "expected mapping, found null"));
    }

    #[test]
    fn an_unknown_variant_is_told_with_the_known_ones() {
        let expected = told("till.paint", "value blu is not known; did you mean blue? known: green, blue");
        assert_eq!(refused(json!({"till": {"drawers": [], "paint": "blu"}})), expected);
    }
}
