//! Values as the server writes them as texts, which a slot tells: the cells that the same values have in an answer.

use std::borrow::Cow;

use super::{Cell, DAY_MICROS, Decoder, EPOCH_DAYS, cell, date, timestamp, widened};
use query::{datetime, uuid};

/// Lists within lists that a text may have. Source: `MAXDIM` in PostgreSQL's `c.h`.
const DIMENSIONS_MAX: usize = 6;

/// How texts of a column are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextForm {
    /// The decoder of its results.
    pub decoder: Decoder,
    /// How lists are written.
    pub list: ListForm,
}

/// How lists of a type are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListForm {
    /// As an array, with this between its items.
    Array(u8),
    /// With spaces between the items.
    Vector,
}

/// A value that is taken apart: what a cell borrows from.
#[derive(Debug, PartialEq)]
pub enum TextValue<'a> {
    /// It is null.
    Null,
    /// Its bytes.
    Scalar(Cow<'a, [u8]>),
    /// Its items.
    List(Vec<TextValue<'a>>),
}

impl TextForm {
    /// Takes a text apart; one that no server writes is null.
    pub fn parse(self, text: &[u8]) -> TextValue<'_> {
        self.parsed(text).unwrap_or(TextValue::Null)
    }

    fn parsed(self, text: &[u8]) -> Option<TextValue<'_>> {
        match (self.decoder, self.list) {
            (Decoder::List(item), ListForm::Array(delimiter)) => {
                // Bounds that are not the usual ones stand before the items.
                let start =
                    if text.first() == Some(&b'[') { text.iter().position(|byte| *byte == b'=')? + 1 } else { 0 };
                let mut array = ArrayText { rest: &text[start..], item: *item, delimiter };
                let list = array.list(DIMENSIONS_MAX)?;
                array.rest.is_empty().then_some(list)
            }
            (Decoder::List(item), ListForm::Vector) => {
                let items = text.split(|byte| *byte == b' ').filter(|item| !item.is_empty());
                items.map(|text| scalar(*item, Cow::Borrowed(text))).collect::<Option<_>>().map(TextValue::List)
            }
            (decoder, _) => scalar(decoder, Cow::Borrowed(text)),
        }
    }

    /// The cell of a value that this form took apart.
    pub fn cell<'a>(self, value: &'a TextValue<'_>) -> Cell<'a> {
        cell_of(self.decoder, value).unwrap_or(Cell::Null)
    }
}

/// A value that is no list. Bytes are written as digits.
fn scalar(decoder: Decoder, text: Cow<'_, [u8]>) -> Option<TextValue<'_>> {
    match decoder {
        Decoder::Bytes => Some(TextValue::Scalar(Cow::Owned(bytes(&text)?))),
        _ => Some(TextValue::Scalar(text)),
    }
}

/// What is left of the text of an array.
struct ArrayText<'a> {
    rest: &'a [u8],
    item: Decoder,
    delimiter: u8,
}

impl<'a> ArrayText<'a> {
    /// The next list. Source: `array_out` in PostgreSQL's `arrayfuncs.c`.
    fn list(&mut self, depth: usize) -> Option<TextValue<'a>> {
        self.take(b'{')?;
        let mut items = Vec::new();
        if self.take(b'}').is_some() {
            return Some(TextValue::List(items));
        }
        loop {
            items.push(match self.rest.first()? {
                b'{' => self.list(depth.checked_sub(1)?)?,
                b'"' => self.quoted()?,
                _ => self.plain()?,
            });
            if self.take(b'}').is_some() {
                return Some(TextValue::List(items));
            }
            self.take(self.delimiter)?;
        }
    }

    fn plain(&mut self) -> Option<TextValue<'a>> {
        let end = self.rest.iter().position(|byte| *byte == self.delimiter || *byte == b'}')?;
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        match text {
            b"NULL" => Some(TextValue::Null),
            text => scalar(self.item, Cow::Borrowed(text)),
        }
    }

    fn quoted(&mut self) -> Option<TextValue<'a>> {
        let inner = &self.rest[1..];
        let end = inner.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
        if inner[end] == b'"' {
            self.rest = &inner[end + 1..];
            return scalar(self.item, Cow::Borrowed(&inner[..end]));
        }
        let mut text = inner[..end].to_vec();
        let mut at = end;
        loop {
            match inner.get(at)? {
                b'"' => break,
                b'\\' => at += 1,
                _ => {}
            }
            text.push(*inner.get(at)?);
            at += 1;
        }
        self.rest = &inner[at + 1..];
        scalar(self.item, Cow::Owned(text))
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        self.rest = self.rest.strip_prefix(&[byte])?;
        Some(())
    }
}

fn cell_of<'a>(decoder: Decoder, value: &'a TextValue<'_>) -> Option<Cell<'a>> {
    let raw = match (value, decoder) {
        (TextValue::Null, _) => return Some(Cell::Null),
        (TextValue::List(items), Decoder::List(item)) => {
            return items.iter().map(|value| cell_of(*item, value)).collect::<Option<_>>().map(Cell::List);
        }
        // A list within a list, whose decoder is that of its items.
        (TextValue::List(items), item) => {
            return items.iter().map(|value| cell_of(item, value)).collect::<Option<_>>().map(Cell::List);
        }
        (TextValue::Scalar(raw), _) => &**raw,
    };
    let text = || str::from_utf8(raw).ok();
    Some(match decoder {
        Decoder::Bool => Cell::Bool(raw == b"t"),
        Decoder::Int2 | Decoder::Int4 | Decoder::Int8 | Decoder::Oid => Cell::Int(text()?.parse().ok()?),
        Decoder::Float4 => Cell::Float(widened(text()?.parse().ok()?)),
        Decoder::Float8 => Cell::Float(text()?.parse().ok()?),
        Decoder::Numeric => Cell::Decimal(Cow::Borrowed(text()?)),
        Decoder::Text | Decoder::Address => Cell::Text(cell::text(raw)),
        Decoder::Bytes => Cell::Bytes(raw),
        Decoder::Date => day(text()?)?,
        Decoder::Time => Cell::Time(clock(text()?)?),
        Decoder::Timestamp => moment(text()?)?,
        Decoder::Uuid => Cell::Uuid(uuid::parse(text()?)?),
        Decoder::Json | Decoder::Jsonb => Cell::Json(raw),
        Decoder::Void | Decoder::List(_) => return None,
    })
}

/// Bytes as two digits each after `\x`.
fn bytes(text: &[u8]) -> Option<Vec<u8>> {
    let digits = text.strip_prefix(b"\\x")?;
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |pair: &[u8]| match pair {
        [high, low] => u8::try_from(digit(*high)? << 4 | digit(*low)?).ok(),
        _ => None,
    };
    digits.chunks(2).map(byte).collect()
}

fn day(text: &str) -> Option<Cell<'static>> {
    Some(match text {
        "infinity" => date(datetime::LAST_DAY),
        "-infinity" => date(datetime::FIRST_DAY),
        _ => {
            let (text, is_before_christ) = era(text);
            date(days(text, is_before_christ)?)
        }
    })
}

fn moment(text: &str) -> Option<Cell<'static>> {
    match text {
        "infinity" => return Some(timestamp(datetime::LAST_MICROS)),
        "-infinity" => return Some(timestamp(datetime::FIRST_MICROS)),
        _ => {}
    }
    let (text, is_before_christ) = era(text);
    let (day, time) = text.split_once(' ')?;
    // Sessions are in UTC.
    let time = clock(time.strip_suffix("+00").unwrap_or(time))?;
    Some(timestamp(i64::from(days(day, is_before_christ)?).checked_mul(DAY_MICROS)?.checked_add(time)?))
}

/// Whether a text ends in `BC`, and what stands before that.
fn era(text: &str) -> (&str, bool) {
    text.strip_suffix(" BC").map_or((text, false), |text| (text, true))
}

/// Days since 2000-01-01 of `YYYY-MM-DD`, whose year may be longer.
fn days(text: &str, is_before_christ: bool) -> Option<i32> {
    let mut parts = text.split('-');
    let mut part = || parts.next()?.parse::<i64>().ok();
    let (year, month, day) = (part()?, part()?, part()?);
    // The year before 1 is the last one before Christ.
    let year = if is_before_christ { 1 - year } else { year };
    // Years begin in March here: a leap day is the last one of its year.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let of_years = year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let of_epoch = 719_468 + i64::from(EPOCH_DAYS);
    i32::try_from(of_years + (153 * month + 2) / 5 + day - 1 - of_epoch).ok()
}

/// Microseconds of `HH:MM:SS.ffffff`.
fn clock(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut parts = whole.split(':');
    let mut part = || parts.next()?.parse::<i64>().ok();
    let seconds = (part()? * 60 + part()?) * 60 + part()?;
    let fraction: i64 = if fraction.is_empty() { 0 } else { format!("{fraction:0<6}").parse().ok()? };
    Some(seconds * 1_000_000 + fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(decoder: Decoder, text: &str) -> Cell<'static> {
        let form = TextForm { decoder, list: ListForm::Array(b',') };
        let value: &'static TextValue<'static> = Box::leak(Box::new(form.parse(text.to_owned().leak().as_bytes())));
        form.cell(value)
    }

    #[test]
    fn days_and_moments_are_those_of_the_binary_form() {
        assert_eq!(decoded(Decoder::Date, "1970-01-01"), Cell::Date(0));
        assert_eq!(decoded(Decoder::Date, "2000-02-29"), Cell::Date(11_016));
        assert_eq!(decoded(Decoder::Date, "0001-01-01"), Cell::Date(-719_162));
        assert_eq!(decoded(Decoder::Date, "0001-12-31 BC"), Cell::Date(-719_163));
        assert_eq!(decoded(Decoder::Date, "infinity"), Cell::Date(datetime::LAST_DAY));
        assert_eq!(decoded(Decoder::Timestamp, "1970-01-01 00:00:00.5+00"), Cell::Timestamp(500_000));
        assert_eq!(decoded(Decoder::Timestamp, "1969-12-31 23:59:59"), Cell::Timestamp(-1_000_000));
        assert_eq!(decoded(Decoder::Time, "24:00:00"), Cell::Time(DAY_MICROS));
        let late = decoded(Decoder::Timestamp, "294276-12-31 23:59:59.999999");
        assert_eq!(late, Cell::Text("+294276-12-31T23:59:59.999999Z".into()));
    }

    #[test]
    fn arrays_are_lists_whatever_their_bounds_and_quotes() {
        let texts =
            |items: &[&str]| Cell::List(items.iter().map(|item| Cell::Text((*item).to_owned().into())).collect());
        let list = |text| decoded(Decoder::List(&Decoder::Text), text);
        assert_eq!(list("{}"), texts(&[]));
        assert_eq!(list(r#"{a,"b,\"}\\",""}"#), texts(&["a", r#"b,"}\"#, ""]));
        assert_eq!(list(r#"[2:3]={NULL,"NULL"}"#), Cell::List(vec![Cell::Null, Cell::Text("NULL".into())]));
        let pair = |one, other| Cell::List(vec![Cell::Int(one), Cell::Int(other)]);
        let square = decoded(Decoder::List(&Decoder::Int4), "{{1,2},{3,4}}");
        assert_eq!(square, Cell::List(vec![pair(1, 2), pair(3, 4)]));
        let raw = decoded(Decoder::List(&Decoder::Bytes), r#"{"\\x00ff","\\x"}"#);
        assert_eq!(raw, Cell::List(vec![Cell::Bytes(&[0, 255]), Cell::Bytes(&[])]));
    }

    #[test]
    fn vectors_have_spaces_between_their_items() {
        let form = TextForm { decoder: Decoder::List(&Decoder::Int2), list: ListForm::Vector };
        assert_eq!(form.cell(&form.parse(b"1 2")), Cell::List(vec![Cell::Int(1), Cell::Int(2)]));
        assert_eq!(form.cell(&form.parse(b"")), Cell::List(Vec::new()));
    }

    #[test]
    fn what_no_server_writes_is_null() {
        for text in ["", "{", "{1", "{1}x", "{1;2}", "{{{{{{{{1}}}}}}}}", "{\"", "{\"\\"] {
            assert_eq!(decoded(Decoder::List(&Decoder::Int4), text), Cell::Null, "{text}");
        }
        for (decoder, text) in
            [(Decoder::Int4, "x"), (Decoder::Date, "2000"), (Decoder::Bytes, "\\x0"), (Decoder::Uuid, "")]
        {
            assert_eq!(decoded(decoder, text), Cell::Null, "{text}");
        }
    }
}
