//! What a rule compares: a literal, the value at a path, or what a helper makes of one.

use query::Value;
use time::Duration;

use crate::{
    date::{self, Unit},
    path::{Cursor, Path, Root},
};

/// Helpers in helpers nest no deeper.
const DEPTH: usize = 8;

/// A value of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    /// As it stands in the rule.
    Literal(Value),
    /// Found in the request.
    Path(Path),
    /// Made of something else.
    Helper(Helper),
}

/// A function of rules.
#[derive(Debug, Clone, PartialEq)]
pub enum Helper {
    /// Whether there is anything at the path, be it null.
    Exists(Path),
    /// Items of a list, members of an object, bytes of a text.
    Length(Box<Operand>),
    /// This instant.
    Now,
    /// An instant later, or earlier.
    AddDuration(Box<Operand>, Duration),
    /// The beginning of an instant's year, month and so on.
    RoundUpDate(Box<Operand>, Unit),
}

/// What an operand is known to be before any request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// A boolean.
    Bool,
    /// A number.
    Number,
    /// A text.
    Text,
    /// Something else, which no comparison takes.
    Other,
    /// It depends on the request.
    Nothing,
}

impl Operand {
    /// Parses a text that starts with `args.` or `utils.`; any other text is a literal.
    pub fn parse(text: &str) -> Result<Operand, String> {
        if !text.starts_with("args.") && !text.starts_with("utils.") {
            return Ok(Operand::Literal(Value::Text(text.to_owned())));
        }
        let mut cursor = Cursor { rest: text };
        let operand = expression(&mut cursor, 0)?;
        match cursor.rest {
            "" => Ok(operand),
            rest => Err(format!("{rest:?} is left over after {:?}", &text[..text.len() - rest.len()])),
        }
    }

    /// What it is, whatever the request.
    pub fn known(&self) -> Known {
        match self {
            Operand::Literal(Value::Bool(_)) => Known::Bool,
            Operand::Literal(Value::Int(_) | Value::Number(_)) => Known::Number,
            Operand::Literal(Value::Text(_)) => Known::Text,
            Operand::Literal(Value::Null | Value::List(_) | Value::Object(_)) => Known::Other,
            Operand::Path(_) => Known::Nothing,
            Operand::Helper(Helper::Exists(_)) => Known::Bool,
            Operand::Helper(Helper::Length(_)) => Known::Number,
            Operand::Helper(Helper::Now | Helper::AddDuration(..) | Helper::RoundUpDate(..)) => Known::Text,
        }
    }

    /// Whether its value depends on what is at `root`.
    pub fn depends_on(&self, root: Root) -> bool {
        match self {
            Operand::Literal(_) | Operand::Helper(Helper::Now) => false,
            Operand::Path(path) | Operand::Helper(Helper::Exists(path)) => path.depends_on(root),
            Operand::Helper(Helper::Length(of) | Helper::AddDuration(of, _) | Helper::RoundUpDate(of, _)) => {
                of.depends_on(root)
            }
        }
    }
}

fn expression(cursor: &mut Cursor<'_>, depth: usize) -> Result<Operand, String> {
    if depth > DEPTH {
        return Err(format!("helpers nest deeper than {DEPTH}"));
    }
    if cursor.rest.starts_with("args.") {
        return cursor.path().map(Operand::Path);
    }
    if cursor.take("utils.") {
        return helper(cursor, depth).map(Operand::Helper);
    }
    quoted(cursor).map(|text| Operand::Literal(Value::Text(text.to_owned())))
}

fn helper(cursor: &mut Cursor<'_>, depth: usize) -> Result<Helper, String> {
    const KNOWN: [&str; 5] = ["exists", "length", "now", "addDuration", "roundUpDate"];
    let name = cursor.word();
    if matches!(name, "stringToObjectId" | "objectIdToString") {
        return Err(format!("utils.{name} is not supported yet by this version"));
    }
    if !KNOWN.contains(&name) {
        let hint = query::nearest(name, KNOWN).map(|known| format!(", did you mean utils.{known}?"));
        return Err(format!("utils.{name} is not known{}", hint.unwrap_or_default()));
    }
    expect(cursor, "(", name)?;
    skip_blanks(cursor);
    let helper = match name {
        "exists" => Helper::Exists(cursor.path()?),
        "length" => Helper::Length(Box::new(expression(cursor, depth + 1)?)),
        "addDuration" => {
            let of = instant(cursor, depth)?;
            let by = second(cursor, name)?;
            let by = date::duration(by).ok_or_else(|| {
                format!("{by:?} is no duration: expected such as '24h' or '-1h30m', in units ns, us, ms, s, m, h")
            })?;
            Helper::AddDuration(of, by)
        }
        "roundUpDate" => {
            let of = instant(cursor, depth)?;
            let unit = second(cursor, name)?;
            let unit = Unit::named(unit)
                .ok_or_else(|| format!("{unit:?} is no unit: expected year, month, day, hour, minute or second"))?;
            Helper::RoundUpDate(of, unit)
        }
        _ => Helper::Now,
    };
    skip_blanks(cursor);
    expect(cursor, ")", name)?;
    Ok(helper)
}

/// The first argument of a helper that wants a date.
fn instant(cursor: &mut Cursor<'_>, depth: usize) -> Result<Box<Operand>, String> {
    let operand = expression(cursor, depth + 1)?;
    match &operand {
        Operand::Literal(Value::Text(text)) if date::parse(text).is_none() => {
            Err(format!("{text:?} is no date: expected 2019-11-25 or RFC 3339"))
        }
        Operand::Helper(Helper::Exists(_) | Helper::Length(_)) => Err("expected a date".to_owned()),
        Operand::Literal(_) | Operand::Path(_) | Operand::Helper(_) => Ok(Box::new(operand)),
    }
}

/// The second argument of a helper, always a quoted text.
fn second<'a>(cursor: &mut Cursor<'a>, name: &str) -> Result<&'a str, String> {
    skip_blanks(cursor);
    expect(cursor, ",", name)?;
    skip_blanks(cursor);
    quoted(cursor)
}

fn quoted<'a>(cursor: &mut Cursor<'a>) -> Result<&'a str, String> {
    let Some(quote) = cursor.rest.chars().next().filter(|quote| matches!(quote, '\'' | '"')) else {
        return Err("expected a text in quotes, a path that starts with args. or a helper".to_owned());
    };
    let rest = &cursor.rest[1..];
    let end = rest.find(quote).ok_or("a quote is not closed")?;
    cursor.rest = &rest[end + 1..];
    Ok(&rest[..end])
}

fn expect(cursor: &mut Cursor<'_>, text: &str, name: &str) -> Result<(), String> {
    if cursor.take(text) {
        return Ok(());
    }
    let usage = match name {
        "exists" => "utils.exists(args.…)",
        "length" => "utils.length(args.…)",
        "addDuration" => "utils.addDuration(date, '1h')",
        "roundUpDate" => "utils.roundUpDate(date, 'day')",
        _ => "utils.now()",
    };
    Err(format!("expected {text:?}: the helper is written {usage}"))
}

fn skip_blanks(cursor: &mut Cursor<'_>) {
    cursor.rest = cursor.rest.trim_start_matches(' ');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_that_start_otherwise_are_literals() {
        for text in ["", "admin", "args", "utils", "auth.role", "length(args.doc.title)"] {
            assert_eq!(Operand::parse(text), Ok(Operand::Literal(Value::Text(text.to_owned()))));
        }
    }

    #[test]
    fn helpers_nest() {
        let operand = Operand::parse("utils.addDuration(utils.roundUpDate( args.doc.d , 'day'), \"1h\")").unwrap();
        let Operand::Helper(Helper::AddDuration(of, by)) = operand else { panic!("{operand:?}") };
        assert_eq!(by, Duration::HOUR);
        assert!(matches!(*of, Operand::Helper(Helper::RoundUpDate(_, Unit::Day))));
    }

    #[test]
    fn wrong_helpers_are_refused() {
        for (text, part) in [
            ("utils.", "is not known"),
            ("utils.lenght(args.doc.a)", "did you mean utils.length?"),
            ("utils.exists", "utils.exists(args.…)"),
            ("utils.exists()", "args."),
            ("utils.exists('a')", "args."),
            ("utils.length(args.doc.a, args.doc.b)", "\")\""),
            ("utils.now(1)", "\")\""),
            ("utils.addDuration(utils.now())", "\",\""),
            ("utils.addDuration('soon', '1h')", "no date"),
            ("utils.addDuration(utils.now(), '1d')", "no duration"),
            ("utils.roundUpDate(utils.now(), 'week')", "no unit"),
            ("utils.roundUpDate(utils.length(args.doc.a), 'day')", "expected a date"),
            ("utils.now() + 1", "left over"),
            ("utils.stringToObjectId(args.doc.id)", "not supported yet"),
        ] {
            let error = Operand::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        let deep = "utils.length(".repeat(1000);
        assert!(Operand::parse(&deep).unwrap_err().contains("nest deeper"));
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused(text in "(args|utils)?\\.?[a-zA-Z.()\\[\\]',\" é]{0,60}") {
            let _ = Operand::parse(&text);
        }
    }
}
