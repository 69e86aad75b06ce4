//! Rows copied out of SQLite, and the conversion of its five storage classes to the types that columns declare.

use std::{borrow::Cow, sync::Arc};

use query::{Type, datetime, number, uuid};
use rusqlite::types::ValueRef;

use super::SqliteError;
use crate::{
    Error,
    bind::Stored,
    budget::Room,
    cell::{self, Cell, Key, KeyForm},
    store::Output,
};

/// Room for the texts of a short row.
const FIRST_BYTES: usize = 64;
/// Seconds of a day.
const DAY: i64 = 86_400;
/// The Julian day number of 1970-01-01T00:00Z.
const EPOCH: f64 = 2_440_587.5;

/// The rows of one statement.
#[derive(Debug)]
pub struct SqliteRows {
    columns: Arc<[Output]>,
    /// Row-major.
    slots: Vec<Slot>,
    /// Bytes of texts and blobs, one after the other.
    bytes: Vec<u8>,
    len: usize,
}

#[derive(Debug, Clone, Copy)]
enum Slot {
    Null,
    Int(i64),
    Float(f64),
    Text(Span),
    Blob(Span),
}

#[derive(Debug, Clone, Copy)]
struct Span {
    start: u32,
    len: u32,
}

impl SqliteRows {
    /// The result of a statement without result columns.
    pub fn affected(len: usize) -> Self {
        Self { columns: Arc::default(), slots: Vec::new(), bytes: Vec::new(), len }
    }

    /// Copies all rows, as far as there is room for them.
    pub fn collect(columns: Arc<[Output]>, mut cursor: rusqlite::Rows<'_>, room: Room) -> Result<Self, SqliteError> {
        let slots = Vec::with_capacity(columns.len());
        let mut rows = Self { columns, slots, bytes: Vec::new(), len: 0 };
        while let Some(row) = cursor.next()? {
            for column in 0..rows.columns.len() {
                let value = row.get_ref(column)?;
                if let ValueRef::Text(bytes) | ValueRef::Blob(bytes) = value
                    && bytes.len() > room.bytes
                {
                    return Err(SqliteError::Full(room.limit));
                }
                let slot = rows.slot(value)?;
                rows.slots.push(slot);
            }
            rows.len += 1;
            if rows.size() > room.bytes {
                return Err(SqliteError::Full(room.limit));
            }
        }
        Ok(rows)
    }

    /// Memory that they take, in bytes.
    pub fn size(&self) -> usize {
        self.slots.len() * size_of::<Slot>() + self.bytes.len()
    }

    /// Number of rows, or of affected rows.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A value of a row.
    ///
    /// Panics where there is no such row or column.
    pub fn cell(&self, row: usize, column: usize) -> Cell<'_> {
        read(self.columns[column], self.value(row, column))
    }

    /// A value of a row as a key; `None` for NULL.
    pub fn key(&self, row: usize, column: usize, form: KeyForm) -> Option<Key> {
        Some(match self.value(row, column) {
            ValueRef::Null => return None,
            ValueRef::Integer(value) => Key::Int(value),
            ValueRef::Real(value) => real(value, form),
            ValueRef::Text(bytes) => Key::tagged(b't', bytes),
            ValueRef::Blob(bytes) => Key::tagged(b'b', bytes),
        })
    }

    /// A value of a row as it is stored; `None` for NULL.
    pub fn stored(&self, row: usize, column: usize) -> Option<Stored> {
        Some(match self.value(row, column) {
            ValueRef::Null => return None,
            ValueRef::Integer(value) => Stored::Int(value),
            ValueRef::Real(value) => Stored::Real(value),
            ValueRef::Text(bytes) => Stored::Text(bytes.to_vec()),
            ValueRef::Blob(bytes) => Stored::Blob(bytes.to_vec()),
        })
    }

    fn value(&self, row: usize, column: usize) -> ValueRef<'_> {
        match self.slots[row * self.columns.len() + column] {
            Slot::Null => ValueRef::Null,
            Slot::Int(value) => ValueRef::Integer(value),
            Slot::Float(value) => ValueRef::Real(value),
            Slot::Text(span) => ValueRef::Text(self.span(span)),
            Slot::Blob(span) => ValueRef::Blob(self.span(span)),
        }
    }

    fn slot(&mut self, value: ValueRef<'_>) -> Result<Slot, Error> {
        Ok(match value {
            ValueRef::Null => Slot::Null,
            ValueRef::Integer(value) => Slot::Int(value),
            ValueRef::Real(value) => Slot::Float(value),
            ValueRef::Text(bytes) => Slot::Text(self.keep(bytes)?),
            ValueRef::Blob(bytes) => Slot::Blob(self.keep(bytes)?),
        })
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<Span, Error> {
        let too_large = |_| Error::TooLarge("the rows hold more than 4 GiB; ask for fewer with a limit".to_owned());
        let start = u32::try_from(self.bytes.len()).map_err(too_large)?;
        let len = u32::try_from(bytes.len()).map_err(too_large)?;
        if self.bytes.capacity() == 0 {
            self.bytes = Vec::with_capacity(bytes.len().max(FIRST_BYTES));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(Span { start, len })
    }

    fn span(&self, span: Span) -> &[u8] {
        &self.bytes[span.start as usize..][..span.len as usize]
    }
}

/// A double as a key: it equals the integer that has its value.
fn real(value: f64, form: KeyForm) -> Key {
    #[allow(clippy::cast_possible_truncation, reason = "checked to be the same number")]
    let integer = value as i64;
    let is_whole = value.fract() == 0.0 && value >= -(2_f64.powi(63)) && value < 2_f64.powi(63);
    match form {
        KeyForm::Equal if is_whole => Key::Int(integer),
        KeyForm::Equal | KeyForm::Identical => Key::tagged(b'r', &value.to_be_bytes()),
    }
}

/// What is read of a stored value.
pub fn read(output: Output, value: ValueRef<'_>) -> Cell<'_> {
    match value {
        ValueRef::Null => Cell::Null,
        ValueRef::Integer(value) => int(output, value),
        ValueRef::Real(value) => float(output, value),
        ValueRef::Text(bytes) => text(output, bytes),
        ValueRef::Blob(bytes) => blob(output, bytes),
    }
}

/// Integers in columns of time are seconds since 1970. Source: SQLite, "Datatypes", 2.2. What lies outside the years of
/// four digits, such as milliseconds, stays a number.
fn int(output: Output, value: i64) -> Cell<'static> {
    let micros = || value.checked_mul(1_000_000).filter(|micros| datetime::has_plain_year(*micros));
    match output.r#type {
        Type::Bool => Cell::Bool(value != 0),
        Type::Int16
        | Type::Int32
        | Type::Int64
        | Type::Bytes
        | Type::Uuid
        | Type::Json
        | Type::Other
        | Type::Any
        | Type::Address
        | Type::List(_) => Cell::Int(value),
        Type::Float => Cell::Float(value as f64),
        Type::Decimal => Cell::Decimal(Cow::Owned(padded(value.to_string(), output.scale))),
        Type::Text => Cell::Text(Cow::Owned(value.to_string())),
        Type::Date => micros().and_then(day).map_or(Cell::Int(value), Cell::Date),
        Type::Time => Cell::Time(value.rem_euclid(DAY) * 1_000_000),
        Type::Timestamp => micros().map_or(Cell::Int(value), Cell::Timestamp),
    }
}

/// Doubles in columns of time are Julian day numbers. Source: SQLite, "Datatypes", 2.2.
fn float(output: Output, value: f64) -> Cell<'static> {
    let micros = || {
        let micros = (value.abs() < 1e8).then(|| ((value - EPOCH) * DAY as f64 * 1e3).round() as i64 * 1000);
        micros.filter(|micros| datetime::has_plain_year(*micros))
    };
    match output.r#type {
        Type::Decimal => Cell::Decimal(Cow::Owned(padded(double(value), output.scale))),
        Type::Text => Cell::Text(Cow::Owned(double(value))),
        Type::Timestamp => micros().map_or(Cell::Float(value), Cell::Timestamp),
        Type::Date => micros().and_then(day).map_or(Cell::Float(value), Cell::Date),
        // An affinity made it of the integer that was written.
        Type::Bool => Cell::Bool(value != 0.0),
        Type::Int16
        | Type::Int32
        | Type::Int64
        | Type::Float
        | Type::Bytes
        | Type::Time
        | Type::Uuid
        | Type::Json
        | Type::Other
        | Type::Any
        | Type::Address
        | Type::List(_) => Cell::Float(value),
    }
}

/// A double as decimal.
fn double(value: f64) -> String {
    number::not_finite_text(value).map_or_else(|| value.to_string(), str::to_owned)
}

/// The day of a point in time, since 1970-01-01.
fn day(micros: i64) -> Option<i32> {
    i32::try_from(micros.div_euclid(DAY * 1_000_000)).ok()
}

/// Text that is not what its column declares stays text.
fn text(output: Output, bytes: &[u8]) -> Cell<'_> {
    let text = cell::text(bytes);
    let parsed = match output.r#type {
        Type::Bool => boolean(&text).map(Cell::Bool),
        Type::Bytes => Some(Cell::Bytes(bytes)),
        Type::Date => datetime::parse_timestamp(&text).and_then(|_| datetime::parse_date(&text[..10])).map(Cell::Date),
        Type::Time => datetime::parse_clock(&text).map(Cell::Time),
        Type::Timestamp => datetime::parse_timestamp(&text).map(Cell::Timestamp),
        // Of both cases at once there are too many spellings to look each up in an index.
        Type::Uuid => uuid::parse(&text).filter(|_| is_of_one_case(bytes)).map(Cell::Uuid),
        Type::Json => serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok().then_some(Cell::Json(bytes)),
        Type::Decimal => {
            is_decimal(bytes).then(|| Cell::Decimal(Cow::Owned(padded(text.clone().into_owned(), output.scale))))
        }
        Type::Int16
        | Type::Int32
        | Type::Int64
        | Type::Float
        | Type::Text
        | Type::Other
        | Type::Any
        | Type::Address
        | Type::List(_) => None,
    };
    parsed.unwrap_or(Cell::Text(text))
}

/// The boolean that a text means, in the words that SQLite's drivers and PostgreSQL write.
fn boolean(text: &str) -> Option<bool> {
    let is_one_of = |words: [&str; 3]| words.iter().any(|word| word.eq_ignore_ascii_case(text));
    match (is_one_of(["true", "t", "1"]), is_one_of(["false", "f", "0"])) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        (false, false) => None,
    }
}

/// Whether letters are all lower case or all upper case.
fn is_of_one_case(bytes: &[u8]) -> bool {
    !bytes.iter().any(u8::is_ascii_lowercase) || !bytes.iter().any(u8::is_ascii_uppercase)
}

fn blob(output: Output, bytes: &[u8]) -> Cell<'_> {
    match <[u8; 16]>::try_from(bytes) {
        Ok(uuid) if output.r#type == Type::Uuid => Cell::Uuid(uuid),
        _ => Cell::Bytes(bytes),
    }
}

/// `digits` with as many of them after the point as the column declares; more are kept.
fn padded(mut digits: String, scale: Option<u8>) -> String {
    let Some(scale) = scale.map(usize::from).filter(|scale| *scale > 0) else {
        return digits;
    };
    let has = match digits.split_once('.') {
        Some((_, fraction)) => fraction.len(),
        None if digits.ends_with(|last: char| last.is_ascii_digit()) => {
            digits.push('.');
            0
        }
        None => return digits,
    };
    digits.extend(std::iter::repeat_n('0', scale.saturating_sub(has)));
    digits
}

/// Whether it is plain decimal text that JSON takes as a number: no exponent, no leading zeros.
fn is_decimal(bytes: &[u8]) -> bool {
    let digits = bytes.strip_prefix(b"-").unwrap_or(bytes);
    let has_digits_only = digits.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.');
    has_digits_only && serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(r#type: Type) -> Output {
        Output { r#type, scale: None }
    }

    #[test]
    fn decimals_have_the_digits_of_their_declaration() {
        for (value, scale, expected) in [
            ("0.99", Some(2), "0.99"),
            ("1", Some(2), "1.00"),
            ("1.5", Some(2), "1.50"),
            ("1.005", Some(2), "1.005"),
            ("-3", Some(1), "-3.0"),
            ("7", Some(0), "7"),
            ("7", None, "7"),
            ("inf", Some(2), "inf"),
        ] {
            assert_eq!(padded(value.to_owned(), scale), expected);
        }
    }

    #[test]
    fn times_are_read_from_every_form_that_sqlite_documents() {
        let midnight = Cell::Timestamp(1_230_768_000_000_000);
        assert_eq!(text(output(Type::Timestamp), b"2009-01-01 00:00:00"), midnight);
        assert_eq!(int(output(Type::Timestamp), 1_230_768_000), midnight);
        assert_eq!(float(output(Type::Timestamp), 2_454_832.5), midnight);
        assert_eq!(text(output(Type::Date), b"2009-01-01 00:00:00"), Cell::Date(14_245));
    }

    #[test]
    fn text_that_is_not_of_its_type_stays_text() {
        for r#type in [Type::Timestamp, Type::Date, Type::Time, Type::Uuid, Type::Json, Type::Decimal, Type::Int64] {
            assert_eq!(text(output(r#type), b"soon"), Cell::Text(Cow::Borrowed("soon")), "{type:?}");
        }
        assert_eq!(text(output(Type::Text), b"\xff"), Cell::Text(Cow::Owned("\u{fffd}".to_owned())));
    }
}
