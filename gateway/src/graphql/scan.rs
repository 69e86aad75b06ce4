//! One cheap pass over a document's text before it is parsed, for what the parser's tree cannot tell: nesting that
//! would exhaust the stack, numbers that it would round, members that it would drop.

use std::{borrow::Cow, collections::HashMap, collections::HashSet, ops::Range};

use async_graphql_parser::Pos;
use query::{Error, Guard};

use super::refusal::{Refusal, Result};

/// A text that is safe to parse.
#[derive(Debug)]
pub struct Scanned<'a> {
    /// The text, in which numbers that a double cannot hold are written as enum values.
    pub text: Cow<'a, str>,
    /// The replaced numbers, by the enum value in their place.
    pub numbers: HashMap<String, String>,
}

/// Scans `text`, whose brackets, names, numbers and texts `guard` counts. What is wrong in other ways is left for the
/// parser to say.
pub fn scan(text: &str, guard: Guard) -> Result<Scanned<'_>> {
    let mut scanner =
        Scanner { text, bytes: text.as_bytes(), at: 0, open: Vec::new(), parens: 0, guard, inexact: Vec::new() };
    scanner.run()?;
    Ok(replace(text, &scanner.inexact))
}

struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    open: Vec<Bracket<'a>>,
    /// Open parentheses: braces inside them are object values.
    parens: usize,
    guard: Guard,
    inexact: Vec<Range<usize>>,
}

enum Bracket<'a> {
    Paren,
    Plain,
    Object(HashSet<&'a str>),
}

impl<'a> Scanner<'a> {
    fn run(&mut self) -> Result<()> {
        while let Some(&byte) = self.bytes.get(self.at) {
            match byte {
                0 => {
                    return Err(
                        self.refuse(Error::Malformed("a NUL character is not allowed in a document".to_owned()))
                    );
                }
                b'#' => self.comment(),
                b'"' => {
                    self.count()?;
                    self.string()?;
                }
                b'(' | b'[' | b'{' => self.open(byte)?,
                b')' | b']' | b'}' => self.close(),
                b'-' | b'0'..=b'9' => {
                    self.count()?;
                    self.number();
                }
                b'_' | b'a'..=b'z' | b'A'..=b'Z' => {
                    self.count()?;
                    self.name()?;
                }
                _ => self.at += 1,
            }
        }
        Ok(())
    }

    fn refuse(&self, error: Error) -> Box<Refusal> {
        Refusal::new(error).at(position(self.text, self.at))
    }

    fn count(&mut self) -> Result<()> {
        self.guard.token().map_err(|error| self.refuse(error))
    }

    fn open(&mut self, byte: u8) -> Result<()> {
        let bracket = match byte {
            b'(' => Bracket::Paren,
            b'{' if self.parens > 0 => Bracket::Object(HashSet::new()),
            _ => Bracket::Plain,
        };
        if matches!(bracket, Bracket::Paren) {
            self.parens += 1;
        }
        self.open.push(bracket);
        self.guard.depth(self.open.len()).map_err(|error| self.refuse(error))?;
        self.at += 1;
        Ok(())
    }

    fn close(&mut self) {
        if let Some(Bracket::Paren) = self.open.pop() {
            self.parens -= 1;
        }
        self.at += 1;
    }

    fn comment(&mut self) {
        self.skip(|byte| byte != b'\n' && byte != b'\r');
    }

    fn string(&mut self) -> Result<()> {
        if self.bytes[self.at..].starts_with(b"\"\"\"") {
            self.at += 3;
            while self.at < self.bytes.len() {
                if self.bytes[self.at..].starts_with(b"\\\"\"\"") {
                    // The parser would keep the backslash.
                    let text = "\\\"\"\" in a block string is not supported: write a string with escapes";
                    return Err(self.refuse(Error::Malformed(text.to_owned())));
                } else if self.bytes[self.at..].starts_with(b"\"\"\"") {
                    self.at += 3;
                    return Ok(());
                } else {
                    self.at += 1;
                }
            }
            return Ok(());
        }
        self.at += 1;
        while let Some(&byte) = self.bytes.get(self.at) {
            match byte {
                b'\\' => self.at += 2,
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\n' | b'\r' => return Ok(()),
                _ => self.at += 1,
            }
        }
        self.at = self.bytes.len();
        Ok(())
    }

    fn number(&mut self) {
        let start = self.at;
        let length = number_length(&self.bytes[start..]);
        self.at += length.max(1);
        // The parser refuses a number that runs on into a name.
        let runs_on = self.bytes.get(self.at).is_some_and(|byte| *byte == b'_' || byte.is_ascii_alphabetic());
        if length > 0 && !runs_on && !is_exact(&self.text[start..self.at]) {
            self.inexact.push(start..self.at);
        }
    }

    fn name(&mut self) -> Result<()> {
        let start = self.at;
        self.skip(|byte| byte == b'_' || byte.is_ascii_alphanumeric());
        let name = &self.text[start..self.at];
        let Some(Bracket::Object(members)) = self.open.last_mut() else { return Ok(()) };
        let next = self.bytes[self.at..].iter().find(|byte| !byte.is_ascii_whitespace());
        if next == Some(&b':') && !members.insert(name) {
            self.at = start;
            return Err(self.refuse(Error::Malformed(format!("member {name} is given twice in one object"))));
        }
        Ok(())
    }

    fn skip(&mut self, wanted: impl Fn(u8) -> bool) {
        while self.bytes.get(self.at).is_some_and(|byte| wanted(*byte)) {
            self.at += 1;
        }
    }
}

/// Line and column of a byte, both from 1, the column in characters.
fn position(text: &str, at: usize) -> Pos {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
    Pos { line, column }
}

/// Length of the GraphQL number at the beginning of the bytes; 0 where there is none.
fn number_length(bytes: &[u8]) -> usize {
    let sign = usize::from(bytes.first() == Some(&b'-'));
    let whole = match bytes.get(sign) {
        Some(b'0') => 1,
        _ => digits(bytes, sign),
    };
    if whole == 0 {
        return 0;
    }
    let mut length = sign + whole;
    if bytes.get(length) == Some(&b'.') && digits(bytes, length + 1) > 0 {
        length += 1 + digits(bytes, length + 1);
    }
    if matches!(bytes.get(length), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(length + 1), Some(b'+' | b'-')));
        let exponent = digits(bytes, length + 1 + sign);
        if exponent > 0 {
            length += 1 + sign + exponent;
        }
    }
    length
}

fn digits(bytes: &[u8], from: usize) -> usize {
    bytes.iter().skip(from).take_while(|byte| byte.is_ascii_digit()).count()
}

/// Whether the parser, which knows 64-bit integers and doubles, keeps every digit. A double keeps 15.
fn is_exact(number: &str) -> bool {
    if number.parse::<i64>().is_ok() {
        return true;
    }
    let digits = number.bytes().filter(u8::is_ascii_digit).count();
    digits <= 15 && !number.contains(['e', 'E'])
}

/// Writes each of `inexact` as an enum value that occurs nowhere else, as wide as it was where that fits, so that
/// positions in messages stay right.
fn replace<'a>(text: &'a str, inexact: &[Range<usize>]) -> Scanned<'a> {
    if inexact.is_empty() {
        return Scanned { text: Cow::Borrowed(text), numbers: HashMap::new() };
    }
    let mut prefix = "_n".to_owned();
    while text.contains(&prefix) {
        prefix.push('_');
    }
    let mut numbers = HashMap::with_capacity(inexact.len());
    let mut replaced = String::with_capacity(text.len());
    let mut done = 0;
    for (index, range) in inexact.iter().enumerate() {
        let name = format!("{prefix}{index}");
        replaced.push_str(&text[done..range.start]);
        replaced.push_str(&format!("{name:<width$}", width = range.len()));
        numbers.insert(name, text[range.clone()].to_owned());
        done = range.end;
    }
    replaced.push_str(&text[done..]);
    Scanned { text: Cow::Owned(replaced), numbers }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(text: &str) -> Result<Scanned<'_>> {
        super::scan(text, Guard::default())
    }

    fn error(text: &str) -> Refusal {
        *scan(text).unwrap_err()
    }

    #[test]
    fn numbers_that_a_double_holds_stay() {
        let text = r#"{ a(x: 1, y: -9223372036854775808, z: 1.5) { b } }"#;

        assert_eq!(scan(text).unwrap().text, text);
    }

    #[test]
    fn numbers_that_a_double_rounds_are_kept_aside() {
        let scanned = scan("{ a(x: 99999999999999999999, y: 1e999) { b } }").unwrap();

        assert_eq!(scanned.text, "{ a(x: _n0                 , y: _n1  ) { b } }");
        assert_eq!(scanned.numbers["_n0"], "99999999999999999999");
        assert_eq!(scanned.numbers["_n1"], "1e999");
    }

    #[test]
    fn the_stand_in_of_a_number_occurs_nowhere_else() {
        let scanned = scan("{ a(x: _n0, y: 1e999) { b } }").unwrap();

        assert_eq!(scanned.numbers.keys().collect::<Vec<_>>(), ["_n_0"]);
    }

    #[test]
    fn texts_and_comments_are_not_looked_into() {
        let text = "{ a(x: \"{{ \\\" 1e999\", y: \"\"\"{{ \" 1e999 \"\"\") # 1e999 {{\n { b } }";

        assert_eq!(scan(text).unwrap().text, text);
    }

    #[test]
    fn deep_nesting_is_refused_before_it_is_parsed() {
        let refused = error(&"[".repeat(1_000_000));

        assert_eq!(refused.cause, Error::TooComplex { what: "depth", seen: 101, limit: 100 }.into());
    }

    #[test]
    fn a_member_given_twice_is_refused_where_it_stands() {
        let refused = error("{ a(where: {x: 1,\n  y: {x: 2}, x : 3}) { a a } }");

        assert_eq!(refused.cause, Error::Malformed("member x is given twice in one object".to_owned()).into());
        assert_eq!(refused.at, Some(Pos { line: 2, column: 14 }));
    }

    #[test]
    fn names_that_are_values_are_no_members() {
        assert!(scan("{ a(where: {x: y, z: y, y: x}) { a } }").is_ok());
    }

    #[test]
    fn numbers_end_where_the_parser_ends_them() {
        let apart = |text| scan(text).unwrap().numbers.into_values().collect::<Vec<_>>();

        assert_eq!(apart("{ a(x: [1-99999999999999999999]) }"), ["-99999999999999999999"]);
        assert_eq!(apart("{ a(x: 1.5e+3) }"), ["1.5e+3"]);
        assert_eq!(apart("{ a(x: 1e5abc, y: 1e, z: 1.) }"), Vec::<String>::new());
        assert_eq!(apart("{ a(x: 00000000000000000000.5) }"), Vec::<String>::new());
    }

    #[test]
    fn what_the_parser_would_misread_is_refused() {
        let refused = error("{ a(x: \"\"\"b \\\"\"\" c\"\"\") }");

        assert!(matches!(refused.cause, crate::graphql::refusal::Cause::Model(Error::Malformed(_))));
    }

    #[test]
    fn unterminated_texts_end_the_scan() {
        assert!(scan("{ a(x: \"\\").is_ok());
        assert!(scan("{ a(x: \"\"\"é\\").is_ok());
        assert!(scan("{ a(x: \"\\é\") }").is_ok());
    }
}
