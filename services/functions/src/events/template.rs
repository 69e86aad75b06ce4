//! Templates of messages: minijinja over `event`, which gives JSON. They read nothing, and are bounded in steps and size.
//!
//! A value stands as JSON wherever it is written, so that nothing in an event is ever taken for a part of the message.

use std::io;

use minijinja::{
    AutoEscape, Environment, Error, State, UndefinedBehavior, Value, escape_formatter, filters, value::Serde,
};
use serde::de::IgnoredAny;
use serde_json::Value as Json;

/// Bytes of a message that a template gives.
const OUTPUT_BYTES: usize = 1 << 20;
/// Steps of a template: what takes some 50 ms.
const STEPS: u64 = 200_000;
/// Bytes of a text of which each part costs as much as a step.
const STEP_BYTES: usize = 64;
/// How deep blocks of a template may be within each other.
const DEPTH: usize = 100;
/// Bytes of the text of an error.
const ERROR_BYTES: usize = 300;

/// Errors: why a text is no template.
pub fn check(template: &str) -> Result<(), String> {
    environment().template_from_str(template).map(drop).map_err(|error| told(&error))
}

/// What a template makes of an event; `None` where it gives no text, which means the event. Errors: why there is no message.
pub fn render(template: &str, event: &[u8]) -> Result<Option<Vec<u8>>, String> {
    let event: Json = serde_json::from_slice(event).map_err(|error| format!("the event cannot be read: {error}"))?;
    let environment = environment();
    let template = environment.template_from_str(template).map_err(|error| told(&error))?;
    let values = Json::Object([("event".to_owned(), event)].into_iter().collect());
    let mut output = BoundedOutput(Vec::new());
    template.render_captured_to(Value::from(Serde(values)), &mut output).map(drop).map_err(|error| told(&error))?;
    let BoundedOutput(text) = output;
    if text.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    match serde_json::from_slice::<IgnoredAny>(&text) {
        Ok(_) => Ok(Some(text)),
        Err(error) => Err(format!("it gave no valid JSON: {error}")),
    }
}

fn environment<'t>() -> Environment<'t> {
    let mut environment = Environment::empty();
    environment.set_auto_escape_callback(|_| AutoEscape::Json);
    environment.set_undefined_behavior(UndefinedBehavior::Chainable);
    environment.set_formatter(|out, state, value| match value.is_undefined() {
        true => escape_formatter(out, state, &Value::from(())),
        false => escape_formatter(out, state, value),
    });
    environment.set_fuel(Some(STEPS));
    environment.set_recursion_limit(DEPTH);
    // Those that give no more than they take.
    environment.add_filter("abs", filters::abs);
    environment.add_filter("bool", filters::bool);
    environment.add_filter("capitalize", filters::capitalize);
    environment.add_filter("default", filters::default);
    environment.add_filter("first", filters::first);
    environment.add_filter("float", filters::float);
    environment.add_filter("int", filters::int);
    environment.add_filter("items", filters::items);
    environment.add_filter("join", join);
    environment.add_filter("last", filters::last);
    environment.add_filter("length", filters::length);
    environment.add_filter("lower", filters::lower);
    environment.add_filter("round", filters::round);
    environment.add_filter("sort", filters::sort);
    environment.add_filter("string", filters::string);
    environment.add_filter("tojson", filters::tojson);
    environment.add_filter("trim", filters::trim);
    environment.add_filter("upper", filters::upper);
    environment.add_test("defined", minijinja::tests::is_defined);
    environment.add_test("none", minijinja::tests::is_none);
    environment.add_test("undefined", minijinja::tests::is_undefined);
    environment
}

/// A list as one text, with another text between its items.
fn join(state: &State, values: &Value, between: Option<String>) -> Result<String, Error> {
    let between = between.unwrap_or_default();
    let mut text = String::new();
    for (index, value) in values.try_iter()?.enumerate() {
        if index > 0 {
            text.push_str(&between);
        }
        let value = value.to_string();
        state.consume_fuel(1 + ((value.len() + between.len()) / STEP_BYTES) as u64)?;
        text.push_str(&value);
        if text.len() > OUTPUT_BYTES {
            return Err(Error::new(minijinja::ErrorKind::InvalidOperation, "the joined text is too long"));
        }
    }
    Ok(text)
}

/// What a template has written.
struct BoundedOutput(Vec<u8>);

impl io::Write for BoundedOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > OUTPUT_BYTES {
            return Err(io::Error::other(format!("it gave more than {OUTPUT_BYTES} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn told(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text.truncate(text.floor_char_boundary(ERROR_BYTES));
    text
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use serde_json::json;

    use super::*;

    fn of(template: &str, data: Json) -> Result<Option<Json>, String> {
        let event = json!({"type": "order", "data": data}).to_string();
        render(template, event.as_bytes()).map(|body| body.map(|body| serde_json::from_slice(&body).unwrap()))
    }

    #[test]
    fn values_stand_as_json() {
        let evil = json!({"mail": "a\"b\n,\"admin\":true", "n": 9_007_199_254_740_993_i64, "list": [{"k": 1.5}, null], "on": true});
        for (template, expected) in [
            (r#"{"u": {{ event.data.mail }}}"#, json!({"u": "a\"b\n,\"admin\":true"})),
            ("{{ event.data }}", evil.clone()),
            (r#"[{{ event.data.n }}, {{ event.data.on }}]"#, json!([9_007_199_254_740_993_i64, true])),
            (
                r#"{"none": {{ event.data.missing }}, "deep": {{ event.data.missing.deeper }}}"#,
                json!({"none": null, "deep": null}),
            ),
            (r#"{"type": {{ event.type|upper }}}"#, json!({"type": "ORDER"})),
            (r#"{{ event.data.list|length }}"#, json!(2)),
            (r#"{{ ["a", "b"]|join("-") }}"#, json!("a-b")),
            (r#"{{ "Dear " ~ event.type }}"#, json!("Dear order")),
            (
                r#"[{% for item in event.data.list %}{{ item.k|default(7) }}{% if not loop.last %},{% endif %}{% endfor %}]"#,
                json!([1.5, 7]),
            ),
            (r#"{% if event.data.gone is defined %}1{% else %}2{% endif %}"#, json!(2)),
        ] {
            assert_eq!(of(template, evil.clone()), Ok(Some(expected)), "{template}");
        }
        for empty in ["", "  \n", "{% if false %}x{% endif %}"] {
            assert_eq!(of(empty, json!(1)), Ok(None), "{empty:?}");
        }
    }

    #[test]
    fn what_gives_no_message_says_why() {
        for (template, told) in [
            ("{", "it gave no valid JSON"),
            ("{{ event.data }} x", "it gave no valid JSON"),
            ("{{ event.data|nothing }}", "unknown filter"),
            ("{{ 1 / 0 }}", ""),
            ("{{ env('PATH') }}", "unknown function"),
            ("{% include 'x' %}", ""),
            ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", ""),
            ("{% for x in range(1000000000) %}{{ x }}{% endfor %}", "unknown function"),
        ] {
            let why = of(template, json!({"a": 1})).unwrap_err();
            assert!(why.contains(told) && why.len() <= ERROR_BYTES, "{template}: {why}");
        }
        for wrong in ["{{ event.", "{% for %}", "{% endif %}"] {
            assert!(check(wrong).is_err(), "{wrong}");
        }
        assert_eq!(check("{{ event.data.x }}"), Ok(()));
    }

    #[test]
    fn loops_and_long_texts_end() {
        let long: Vec<Json> = (0..1000).map(|n| json!(n)).collect();
        let text = "x".repeat(200_000);
        let begun = Instant::now();
        for (template, data, told) in [
            (
                "{% for a in event.data %}{% for b in event.data %}{% for c in event.data %}{% endfor %}{% endfor %}{% endfor %}",
                json!(long),
                "fuel",
            ),
            (
                "[{% for a in event.data.l %}{{ event.data.t }},{% endfor %}1]",
                json!({"l": long, "t": text}),
                "more than 1048576 bytes",
            ),
            ("{{ event.data.l|join(event.data.t) }}", json!({"l": long, "t": text}), "too long"),
            (
                "{% for a in event.data %}{% if event.data|join %}{% endif %}{% endfor %}1",
                json!(vec![1; 24_000]),
                "fuel",
            ),
        ] {
            let why = of(template, data).unwrap_err();
            assert!(why.contains(told), "{template}: {why}");
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    }
}
