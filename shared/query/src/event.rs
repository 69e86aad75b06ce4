//! Custom events, as operators declare them: who may queue them, and what their payload has to be.

use serde::Deserialize;

use crate::{datetime, resources::Resource};

/// Most bytes of the type of an event.
const NAME_BYTES: usize = 128;
/// Types that only Perigee makes events of, in the spelling of earlier servers too.
const BUILT_IN: [&str; 9] = [
    "DB_INSERT",
    "DB_UPDATE",
    "DB_DELETE",
    "FILE_CREATE",
    "FILE_DELETE",
    "SCHEDULE",
    "create-crud",
    "update-crud",
    "delete-crud",
];
/// What the types of dead letters begin with; the trigger's id follows.
pub const DEAD_LETTER: &str = "dlq_";

/// An `event` document.
pub type EventResource = Resource<EventMeta, Event>;

/// `meta` of an event.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct EventMeta {
    /// The project's id.
    pub project: String,
    /// The type; `default`: of all without a document of their own.
    pub id: String,
}

/// `spec` of an event.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Event {
    /// Who may queue it; absent: nobody.
    pub rule: Option<serde_json::Value>,
    /// JSON Schema 2020-12 of its payload, in which `$ref` leads to places inside it only; absent: any.
    pub schema: Option<serde_json::Value>,
}

/// The longest time that a custom event waits, in milliseconds: a year.
pub const DELAY_MAX_MS: u64 = 366 * 86_400_000;
/// A number of a time from this one on is of milliseconds, a smaller one of seconds.
const MILLISECONDS_MIN: f64 = 1e11;

/// When an event is to be due, as its sender writes it.
#[derive(Debug, Clone, PartialEq)]
pub enum Moment {
    /// RFC 3339.
    Text(String),
    /// Seconds or milliseconds since 1970.
    Number(f64),
}

/// The milliseconds of a delay in a unit: `s`, which it is in where none is written, or `ms`. Errors: the key, and why.
pub fn delay_ms(delay: Option<f64>, unit: Option<&str>) -> Result<u64, (&'static str, String)> {
    let factor = match unit {
        None | Some("s") => 1000.0,
        Some("ms") => 1.0,
        Some(other) => return Err(("delayUnit", format!("expected s or ms, found {:?}", shown(other)))),
    };
    let Some(delay) = delay else { return Ok(0) };
    let ms = delay * factor;
    // A number that is none is in no range.
    match (0.0..=DELAY_MAX_MS as f64).contains(&ms) {
        true => Ok(ms as u64),
        false => Err(("delay", format!("expected from 0 to a year, found {delay}"))),
    }
}

impl Moment {
    /// In milliseconds since 1970; `None` for an empty text, which says nothing. Errors: why it is none.
    pub fn unix_ms(&self, now_ms: i64) -> Result<Option<i64>, String> {
        let (ms, found) = match self {
            Moment::Text(text) if text.is_empty() => return Ok(None),
            Moment::Text(text) => {
                (datetime::parse_timestamp(text).map(|micros| micros.div_euclid(1000)), format!("{:?}", shown(text)))
            }
            Moment::Number(number) => {
                let ms = if *number >= MILLISECONDS_MIN { *number } else { number * 1000.0 };
                ((0.0..1e15).contains(&ms).then_some(ms as i64), number.to_string())
            }
        };
        match ms.filter(|ms| *ms <= now_ms.saturating_add_unsigned(DELAY_MAX_MS)) {
            Some(ms) => Ok(Some(ms)),
            None => Err(format!("expected RFC 3339, or seconds since 1970, up to a year from now, found {found}")),
        }
    }
}

/// The beginning of a text.
fn shown(text: &str) -> &str {
    text.get(..text.floor_char_boundary(64)).unwrap_or_default()
}

/// Whether only Perigee makes events of a type.
pub fn is_built_in(name: &str) -> bool {
    BUILT_IN.contains(&name)
}

/// Whether nobody may queue events of a type: it is built in, or of dead letters.
pub fn is_internal(name: &str) -> bool {
    is_built_in(name) || name.starts_with(DEAD_LETTER)
}

/// Errors: why a text is no type of events.
pub fn check_name(name: &str) -> Result<(), String> {
    match (1..=NAME_BYTES).contains(&name.len()) && !name.chars().any(char::is_control) {
        true => Ok(()),
        false => {
            let shown = name.get(..name.floor_char_boundary(NAME_BYTES)).unwrap_or_default();
            let expected = format!("expected 1 to {NAME_BYTES} characters, none of them a control character");
            Err(format!("invalid event type {shown:?}: {expected}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_and_some_are_internal() {
        for name in ["order", "order.placed", "Größe 1", &"a".repeat(NAME_BYTES)] {
            assert!(check_name(name).is_ok() && !is_internal(name), "{name}");
        }
        for name in ["", "a\u{0}", "a\n", &"a".repeat(NAME_BYTES + 1), &"ä".repeat(NAME_BYTES)] {
            assert!(check_name(name).unwrap_err().len() < 300, "{name}");
        }
        for name in ["DB_INSERT", "FILE_DELETE", "SCHEDULE", "create-crud", "dlq_", "dlq_a"] {
            assert!(is_internal(name), "{name}");
        }
        assert!(!is_built_in("dlq_a"));
    }
}
