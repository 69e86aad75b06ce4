//! YAML 1.2 (core schema) as JSON values, with the position of every node.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};
use serde_json::{Map, Number, Value};

/// Most levels of nesting.
const MAX_DEPTH: usize = 64;
/// Most nodes of a text, once its aliases are expanded.
const MAX_NODES: usize = 200_000;

/// Position in a text: line and column, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub line: usize,
    pub column: usize,
}

/// A syntax error, or YAML that is not supported here.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ParseError {
    pub position: Position,
    /// Dotted; empty at the root.
    pub path: String,
    pub message: String,
}

/// One document: its value, and the position of each node by dotted path. The value of a key has the position of the
/// key.
#[derive(Debug, Clone)]
pub(crate) struct ParsedDocument {
    pub value: Value,
    pub positions: Positions,
}

/// Positions of the nodes of a document, by dotted path.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Positions(HashMap<String, Position>);

impl Positions {
    /// The position of the node at `path`, or of its nearest ancestor.
    pub fn nearest(&self, path: &str) -> Position {
        let mut path = path;
        loop {
            if let Some(position) = self.0.get(path) {
                return *position;
            }
            match path.rfind('.') {
                Some(dot) => path = &path[..dot],
                None => return self.0.get("").copied().unwrap_or(Position { line: 1, column: 1 }),
            }
        }
    }
}

/// The path of `key` under `parent`.
pub(crate) fn below(parent: &str, key: &str) -> String {
    if parent.is_empty() { key.to_owned() } else { format!("{parent}.{key}") }
}

/// Every document of `text`.
pub(crate) fn parse(text: &str) -> Result<Vec<ParsedDocument>, ParseError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader { events: Parser::new_from_str(text), anchors: HashMap::new(), nodes: 0 };
    let mut documents = Vec::new();
    loop {
        match reader.next("")? {
            (Event::StreamEnd, _) => return Ok(documents),
            (Event::DocumentStart(_), _) => {
                let mut positions = Positions::default();
                let (event, span) = reader.next("")?;
                positions.0.insert(String::new(), position(span.start));
                let value = reader.node(event, span, "", 0, &mut positions)?;
                documents.push(ParsedDocument { value, positions });
            }
            (_, _) => (),
        }
    }
}

struct Reader<'a> {
    events: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, Anchor>,
    nodes: usize,
}

struct Anchor {
    value: Value,
    nodes: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self, path: &str) -> Result<(Event<'a>, Span), ParseError> {
        let event = self.events.next_event().unwrap_or_else(|| {
            let end = Marker::new(0, 1, 0);
            Err(ScanError::new_str(end, "unexpected end of the text"))
        });
        event.map_err(|error| ParseError {
            position: position(*error.marker()),
            path: path.to_owned(),
            message: format!("not valid YAML: {}", error.info()),
        })
    }

    fn node(
        &mut self,
        event: Event<'a>,
        span: Span,
        path: &str,
        depth: usize,
        positions: &mut Positions,
    ) -> Result<Value, ParseError> {
        let at = |message: &str| ParseError {
            position: position(span.start),
            path: path.to_owned(),
            message: message.to_owned(),
        };
        let before = self.nodes;
        self.nodes += 1;
        if depth > MAX_DEPTH {
            return Err(at(&format!("nested deeper than {MAX_DEPTH} levels")));
        }
        let (value, anchor) = match event {
            Event::Alias(id) => {
                // The anchor of a node that is still open is not known yet: a node cannot contain itself.
                let anchor =
                    self.anchors.get(&id).ok_or_else(|| at("an alias must not refer to a node that contains it"))?;
                self.nodes += anchor.nodes;
                if self.nodes > MAX_NODES {
                    return Err(at(&format!("aliases make more than {MAX_NODES} nodes of this file")));
                }
                (anchor.value.clone(), 0)
            }
            Event::Scalar(text, style, anchor, tag) => {
                (scalar(&text, style, tag.as_deref()).map_err(|message| at(&message))?, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                known_tag(tag.as_deref(), "seq").map_err(|message| at(&message))?;
                (self.sequence(path, depth, positions)?, anchor)
            }
            Event::MappingStart(anchor, tag) => {
                known_tag(tag.as_deref(), "map").map_err(|message| at(&message))?;
                (self.mapping(path, depth, positions)?, anchor)
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::SequenceEnd
            | Event::MappingEnd => return Err(at("expected a value")),
        };
        if anchor != 0 {
            self.anchors.insert(anchor, Anchor { value: value.clone(), nodes: self.nodes - before });
        }
        Ok(value)
    }

    fn sequence(&mut self, path: &str, depth: usize, positions: &mut Positions) -> Result<Value, ParseError> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next(path)?;
            if event == Event::SequenceEnd {
                return Ok(Value::Array(items));
            }
            let path = below(path, &items.len().to_string());
            positions.0.insert(path.clone(), position(span.start));
            items.push(self.node(event, span, &path, depth + 1, positions)?);
        }
    }

    fn mapping(&mut self, path: &str, depth: usize, positions: &mut Positions) -> Result<Value, ParseError> {
        let mut entries = Map::new();
        loop {
            let (event, span) = self.next(path)?;
            if event == Event::MappingEnd {
                return Ok(Value::Object(entries));
            }
            let start = position(span.start);
            let Event::Scalar(key, ..) = event else {
                let message = "a key must be a scalar".to_owned();
                return Err(ParseError { position: start, path: path.to_owned(), message });
            };
            let path = below(path, &key);
            if entries.contains_key(&*key) {
                return Err(ParseError { position: start, path, message: format!("duplicate key {key}") });
            }
            positions.0.insert(path.clone(), start);
            let (event, span) = self.next(&path)?;
            let value = self.node(event, span, &path, depth + 1, positions)?;
            entries.insert(key.into_owned(), value);
        }
    }
}

fn position(marker: Marker) -> Position {
    Position { line: marker.line(), column: marker.col() + 1 }
}

fn known_tag(tag: Option<&Tag>, kind: &str) -> Result<(), String> {
    match tag {
        Some(tag) if !(tag.is_yaml_core_schema() && tag.suffix == kind) => Err(format!("the tag {tag} is not known")),
        Some(_) | None => Ok(()),
    }
}

/// A scalar by the core schema. Source: YAML 1.2.2, section 10.3.
fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, String> {
    let Some(tag) = tag else {
        let is_plain = style == ScalarStyle::Plain;
        return if is_plain { resolved(text) } else { Ok(Value::String(text.to_owned())) };
    };
    if !tag.is_yaml_core_schema() {
        return Err(format!("the tag {tag} is not known"));
    }
    let value = if tag.suffix == "str" { Value::String(text.to_owned()) } else { resolved(text)? };
    let fits = match (tag.suffix.as_str(), &value) {
        ("str", _) | ("null", Value::Null) | ("bool", Value::Bool(_)) => true,
        ("int", Value::Number(number)) => !number.is_f64(),
        ("float", Value::Number(_)) => true,
        _ => false,
    };
    if fits { Ok(value) } else { Err(format!("{text} is not a valid {}", tag.suffix)) }
}

fn resolved(text: &str) -> Result<Value, String> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Value::Null),
        "true" | "True" | "TRUE" => return Ok(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(Value::Bool(false)),
        ".nan" | ".NaN" | ".NAN" => return Err("NaN is not allowed".to_owned()),
        _ => (),
    }
    let (sign, digits) = match text.strip_prefix(['-', '+']) {
        Some(digits) => (&text[..1], digits),
        None => ("", text),
    };
    if matches!(digits, ".inf" | ".Inf" | ".INF") {
        return Err("infinity is not allowed".to_owned());
    }
    if let Some(number) = integer(sign, digits) {
        return Ok(Value::Number(number));
    }
    if is_float(digits) {
        let float = text.parse().ok().and_then(Number::from_f64);
        return float.map(Value::Number).ok_or_else(|| format!("number {text} is out of range"));
    }
    Ok(Value::String(text.to_owned()))
}

fn integer(sign: &str, digits: &str) -> Option<Number> {
    if sign.is_empty() {
        if let Some(octal) = digits.strip_prefix("0o").filter(|octal| octal.bytes().all(|byte| byte.is_ascii_digit())) {
            return u64::from_str_radix(octal, 8).ok().map(Number::from);
        }
        if let Some(hex) = digits.strip_prefix("0x").filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit())) {
            return u64::from_str_radix(hex, 16).ok().map(Number::from);
        }
    }
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    match sign {
        "-" => format!("-{digits}").parse::<i64>().ok().map(Number::from),
        _ => digits.parse::<u64>().ok().map(Number::from),
    }
}

/// `[0-9]+` with a fraction, an exponent or both; or `.` and digits.
fn is_float(digits: &str) -> bool {
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (digits, None),
    };
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let has_digit = !whole.is_empty() || !fraction.is_empty();
    let exponent = exponent.map(|exponent| exponent.strip_prefix(['-', '+']).unwrap_or(exponent));
    has_digit && are_digits(whole) && are_digits(fraction) && exponent.is_none_or(|e| !e.is_empty() && are_digits(e))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn value(text: &str) -> Value {
        let mut documents = parse(text).unwrap();
        assert_eq!(documents.len(), 1);
        documents.remove(0).value
    }

    fn fault(text: &str) -> (usize, usize, String, String) {
        let fault = parse(text).unwrap_err();
        (fault.position.line, fault.position.column, fault.path, fault.message)
    }

    #[test]
    fn scalars_are_typed_by_the_core_schema() {
        let text =
            "[1, -2, +3, 0x1F, 0o17, 1.5, 1e3, .5, 5., true, False, null, ~, yes, 012a, 1_000, 0.9.1, \"1\", '', -]";
        let wanted = json!([
            1, -2, 3, 31, 15, 1.5, 1000.0, 0.5, 5.0, true, false, null, null, "yes", "012a", "1_000", "0.9.1", "1", "",
        ]);
        assert_eq!(value(&text.replace(", -]", "]")), wanted);
        assert_eq!(value("18446744073709551615"), json!(u64::MAX));
        assert_eq!(value("a:"), json!({"a": null}));
        assert_eq!(value("!!str 12"), json!("12"));
        assert_eq!(value("2009-01-01"), json!("2009-01-01"));
        assert_eq!(value("10s"), json!("10s"));
    }

    #[test]
    fn every_node_has_its_place() {
        let documents = parse("a: 1\nb:\n  - c: [x, y]\n---\n  z: 2\n").unwrap();
        let at = |document: usize, path| documents[document].positions.nearest(path);
        assert_eq!(at(0, "a"), Position { line: 1, column: 1 });
        assert_eq!(at(0, "b.0"), Position { line: 3, column: 5 });
        assert_eq!(at(0, "b.0.c"), Position { line: 3, column: 5 });
        assert_eq!(at(0, "b.0.c.1"), Position { line: 3, column: 12 });
        assert_eq!(at(0, "b.0.c.7.z"), Position { line: 3, column: 5 });
        assert_eq!(at(1, "z"), Position { line: 5, column: 3 });
        assert_eq!(at(1, "nothing"), Position { line: 5, column: 3 });
    }

    #[test]
    fn a_key_that_stands_twice_is_refused() {
        assert_eq!(fault("a: {b: 1, b: 2}"), (1, 11, "a.b".to_owned(), "duplicate key b".to_owned()));
    }

    #[test]
    fn what_is_no_yaml_is_refused_with_its_place() {
        let (line, _, _, message) = fault("a: 1\nb: [1, 2\n");
        assert!(line >= 2 && message.starts_with("not valid YAML: "), "{line} {message}");
        let (line, _, _, message) = fault("a: 1\n b: 2");
        assert!(line == 2 && message.starts_with("not valid YAML: "), "{line} {message}");
        assert_eq!(fault("a: !secret x").3, "the tag !secret is not known");
        assert_eq!(fault("a: .inf").3, "infinity is not allowed");
        assert_eq!(fault("? [a]\n: 1").3, "a key must be a scalar");
    }

    #[test]
    fn aliases_are_written_out_up_to_a_limit() {
        assert_eq!(value("a: &x {b: 1}\nc: *x"), json!({"a": {"b": 1}, "c": {"b": 1}}));
        let mut laughs = "a0: &a0 [1,1,1,1,1,1,1,1,1]\n".to_owned();
        for level in 1..9 {
            let list = vec![format!("*a{}", level - 1); 9].join(",");
            laughs.push_str(&format!("a{level}: &a{level} [{list}]\n"));
        }
        assert!(fault(&laughs).3.starts_with("aliases make more than"));
        assert_eq!(fault("a: &x [*x]").3, "an alias must not refer to a node that contains it");
    }

    #[test]
    fn nesting_has_a_limit() {
        assert!(fault(&"[".repeat(100)).3.starts_with("nested deeper"));
    }
}
