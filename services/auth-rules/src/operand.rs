//! Operands of comparisons: literals, paths into the request, and calls of helpers.

use query::{Value, datetime};
use time::Duration;

use crate::{
    date::CalendarUnit,
    path::{Cursor, Path, Root, Scope},
};

/// Most levels of helpers within helpers.
const MAX_DEPTH: usize = 8;

/// An expression that yields a value.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    /// A constant of the rule.
    Literal(Value),
    /// A value of the request.
    Path(Path),
    /// A function call.
    Helper(Helper),
}

/// A call of a built-in function.
#[derive(Debug, Clone, PartialEq)]
pub enum Helper {
    /// Whether the request has a value at the path; null counts.
    Exists(Path),
    /// Items of a list, members of an object, bytes of a text.
    Length(Box<Operand>),
    /// The time of the request.
    Now,
    /// An instant plus a signed duration.
    AddDuration(Box<Operand>, Duration),
    /// An instant truncated to the beginning of its year, month and so on.
    RoundUpDate(Box<Operand>, CalendarUnit),
}

/// The list operand of `in` and `notIn`.
#[derive(Debug)]
pub enum ListOperand {
    /// Operands that stand in the rule.
    Items(Vec<Operand>),
    /// A list of the request.
    Reference(Operand),
}

impl ListOperand {
    /// The operands that stand in it.
    pub fn operands(&self) -> &[Operand] {
        match self {
            ListOperand::Items(items) => items,
            ListOperand::Reference(operand) => std::slice::from_ref(operand),
        }
    }
}

/// The static type of an operand: its type as far as it is known when the rule is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StaticType {
    /// A boolean.
    Bool,
    /// A number.
    Number,
    /// A string.
    Text,
    /// Null, a list or an object, which no comparison takes.
    Incomparable,
    /// Known only with the request.
    Dynamic,
}

impl Operand {
    /// Parses a text of a rule of tables that starts with `args.` or `utils.`; any other text is a literal.
    pub fn parse(text: &str) -> Result<Operand, String> {
        Operand::parse_in(Scope::Tables, text)
    }

    /// As [`Operand::parse`], of a rule of `scope`.
    pub fn parse_in(scope: Scope, text: &str) -> Result<Operand, String> {
        if !text.starts_with("args.") && !text.starts_with("utils.") {
            return Ok(Operand::Literal(Value::Text(text.to_owned())));
        }
        let mut cursor = Cursor { rest: text, scope };
        let operand = expression(&mut cursor, 0)?;
        match cursor.rest {
            "" => Ok(operand),
            rest => Err(format!("unexpected {rest:?} after {:?}", &text[..text.len() - rest.len()])),
        }
    }

    /// Its static type.
    pub fn static_type(&self) -> StaticType {
        match self {
            Operand::Literal(Value::Bool(_)) => StaticType::Bool,
            Operand::Literal(Value::Int(_) | Value::Number(_)) => StaticType::Number,
            Operand::Literal(Value::Text(_)) => StaticType::Text,
            Operand::Literal(Value::Null | Value::List(_) | Value::Object(_)) => StaticType::Incomparable,
            Operand::Path(_) => StaticType::Dynamic,
            Operand::Helper(Helper::Exists(_)) => StaticType::Bool,
            Operand::Helper(Helper::Length(_)) => StaticType::Number,
            Operand::Helper(Helper::Now | Helper::AddDuration(..) | Helper::RoundUpDate(..)) => StaticType::Text,
        }
    }

    /// Whether its value depends on a value under `root`.
    pub fn depends_on(&self, root: Root) -> bool {
        self.depends_on_any(&|one| one == root)
    }

    /// Whether its value depends on a value under one of the roots that are meant.
    pub fn depends_on_any(&self, is_meant: &impl Fn(Root) -> bool) -> bool {
        match self {
            Operand::Literal(_) | Operand::Helper(Helper::Now) => false,
            Operand::Path(path) | Operand::Helper(Helper::Exists(path)) => path.depends_on_any(is_meant),
            Operand::Helper(Helper::Length(of) | Helper::AddDuration(of, _) | Helper::RoundUpDate(of, _)) => {
                of.depends_on_any(is_meant)
            }
        }
    }
}

fn expression(cursor: &mut Cursor<'_>, depth: usize) -> Result<Operand, String> {
    if depth > MAX_DEPTH {
        return Err(format!("helpers nest deeper than {MAX_DEPTH}"));
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
        return Err(format!("unknown helper utils.{name}{}", hint.unwrap_or_default()));
    }
    expect(cursor, "(", name)?;
    skip_blanks(cursor);
    let helper = match name {
        "exists" => Helper::Exists(cursor.path()?),
        "length" => Helper::Length(Box::new(expression(cursor, depth + 1)?)),
        "addDuration" => {
            let of = date_argument(cursor, depth)?;
            let by = quoted_argument(cursor, name)?;
            // A day is no fixed time in a zone whose clocks are moved.
            let by = datetime::duration(by).filter(|_| !by.contains('d')).ok_or_else(|| {
                format!("invalid duration {by:?}: expected one such as '24h' or '-1h30m', in units ns, us, ms, s, m, h")
            })?;
            Helper::AddDuration(of, by)
        }
        "roundUpDate" => {
            let of = date_argument(cursor, depth)?;
            let unit = quoted_argument(cursor, name)?;
            let unit = CalendarUnit::named(unit)
                .ok_or_else(|| format!("invalid unit {unit:?}: expected year, month, day, hour, minute or second"))?;
            Helper::RoundUpDate(of, unit)
        }
        _ => Helper::Now,
    };
    skip_blanks(cursor);
    expect(cursor, ")", name)?;
    Ok(helper)
}

/// The first argument of a helper on dates.
fn date_argument(cursor: &mut Cursor<'_>, depth: usize) -> Result<Box<Operand>, String> {
    let operand = expression(cursor, depth + 1)?;
    match &operand {
        Operand::Literal(Value::Text(text)) if datetime::instant(text).is_none() => {
            Err(format!("invalid date {text:?}: expected one such as 2019-11-25, or RFC 3339"))
        }
        Operand::Helper(Helper::Exists(_) | Helper::Length(_)) => Err("expected a date".to_owned()),
        Operand::Literal(_) | Operand::Path(_) | Operand::Helper(_) => Ok(Box::new(operand)),
    }
}

/// The second argument of a helper, always a quoted string.
fn quoted_argument<'a>(cursor: &mut Cursor<'a>, name: &str) -> Result<&'a str, String> {
    skip_blanks(cursor);
    expect(cursor, ",", name)?;
    skip_blanks(cursor);
    quoted(cursor)
}

fn quoted<'a>(cursor: &mut Cursor<'a>) -> Result<&'a str, String> {
    let Some(quote) = cursor.rest.chars().next().filter(|quote| matches!(quote, '\'' | '"')) else {
        return Err("expected a string in quotes, a path that starts with args. or a helper".to_owned());
    };
    let rest = &cursor.rest[1..];
    let end = rest.find(quote).ok_or("expected a closing quote")?;
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
    fn texts_without_a_known_prefix_are_literals() {
        for text in ["", "admin", "args", "utils", "auth.role", "length(args.doc.title)"] {
            assert_eq!(Operand::parse(text), Ok(Operand::Literal(Value::Text(text.to_owned()))));
        }
    }

    #[test]
    fn helpers_nest() {
        let operand = Operand::parse("utils.addDuration(utils.roundUpDate( args.doc.d , 'day'), \"1h\")").unwrap();
        let Operand::Helper(Helper::AddDuration(of, by)) = operand else { panic!("{operand:?}") };
        assert_eq!(by, Duration::HOUR);
        assert!(matches!(*of, Operand::Helper(Helper::RoundUpDate(_, CalendarUnit::Day))));
    }

    #[test]
    fn invalid_helper_calls_are_refused() {
        for (text, part) in [
            ("utils.", "unknown helper utils."),
            ("utils.lenght(args.doc.a)", "did you mean utils.length?"),
            ("utils.exists", "utils.exists(args.…)"),
            ("utils.exists()", "args."),
            ("utils.length", "utils.length(args.…)"),
            ("utils.addDuration", "utils.addDuration(date"),
            ("utils.roundUpDate", "utils.roundUpDate(date"),
            ("utils.exists('a')", "args."),
            ("utils.length(args.doc.a, args.doc.b)", "\")\""),
            ("utils.now(1)", "\")\""),
            ("utils.addDuration(utils.now())", "\",\""),
            ("utils.addDuration('soon', '1h')", "invalid date"),
            ("utils.addDuration(utils.now(), '1d')", "invalid duration"),
            ("utils.roundUpDate(utils.now(), 'week')", "invalid unit"),
            ("utils.roundUpDate(utils.length(args.doc.a), 'day')", "expected a date"),
            ("utils.now() + 1", "unexpected"),
            ("utils.stringToObjectId(args.doc.id)", "not supported yet"),
        ] {
            let error = Operand::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        let deep = "utils.length(".repeat(1000);
        assert!(Operand::parse(&deep).unwrap_err().contains("nest deeper"));
    }

    #[test]
    fn helpers_nest_to_a_limit() {
        let lengths = |levels| format!("{}args.doc.a{}", "utils.length(".repeat(levels), ")".repeat(levels));
        let days = |levels| format!("{}args.doc.a{}", "utils.roundUpDate(".repeat(levels), ", 'day')".repeat(levels));
        for nested in [lengths(MAX_DEPTH), days(MAX_DEPTH)] {
            assert!(Operand::parse(&nested).is_ok(), "{nested}");
        }
        for nested in [lengths(MAX_DEPTH + 1), days(MAX_DEPTH + 1)] {
            assert!(Operand::parse(&nested).unwrap_err().contains("nest deeper"), "{nested}");
        }
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused(text in "(args|utils)?\\.?[a-zA-Z.()\\[\\]',\" é]{0,60}") {
            let _ = Operand::parse(&text);
        }
    }
}
