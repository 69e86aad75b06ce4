//! Rows of an answer, whose values are made cells when they are asked for.

use std::{borrow::Cow, fmt, sync::Arc};

use mysql_async::{Row, Value, consts::ColumnType};
use query::{Type, datetime, uuid};

use crate::{
    cell::{self, Cell, Key, KeyForm},
    store::Output,
};

/// The rows of one statement.
pub struct MysqlRows {
    rows: Vec<Row>,
    columns: Arc<[Output]>,
    affected: u64,
    /// Memory that they take.
    size: usize,
}

impl MysqlRows {
    /// The rows of a statement that affected so many.
    pub fn new(rows: Vec<Row>, columns: Arc<[Output]>, affected: u64, size: usize) -> Self {
        Self { rows, columns, affected, size }
    }

    /// Number of rows; for a statement without result columns, of affected rows.
    pub fn len(&self) -> usize {
        if self.columns.is_empty() { usize::try_from(self.affected).unwrap_or(usize::MAX) } else { self.rows.len() }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory that they take, in bytes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// A value of a row.
    ///
    /// Panics where there is no such row or column.
    pub fn cell(&self, row: usize, column: usize) -> Cell<'_> {
        let row = &self.rows[row];
        let is_bits = || row.columns_ref()[column].column_type() == ColumnType::MYSQL_TYPE_BIT;
        match row.as_ref(column) {
            Some(value) => read(self.columns[column].r#type, value, is_bits),
            None => Cell::Null,
        }
    }

    /// A value of a row as a key; `None` for NULL.
    pub fn key(&self, row: usize, column: usize, form: KeyForm) -> Option<Key> {
        match form {
            KeyForm::Equal => self.cell(row, column).key(),
            KeyForm::Identical => match self.rows[row].as_ref(column)? {
                Value::NULL => None,
                Value::Bytes(bytes) => Some(Key::tagged(b'b', bytes)),
                other => Some(Key::tagged(b'v', format!("{other:?}").as_bytes())),
            },
        }
    }
}

impl fmt::Debug for MysqlRows {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("MysqlRows").field("len", &self.len()).field("columns", &self.columns).finish()
    }
}

/// What is read of a value. What is none of its column's type, as the day `0000-00-00`, is read as its text.
pub fn read(r#type: Type, value: &Value, is_bits: impl Fn() -> bool) -> Cell<'_> {
    match value {
        Value::NULL => Cell::Null,
        Value::Int(value) => integer(r#type, *value),
        Value::UInt(value) => match i64::try_from(*value) {
            Ok(value) => integer(r#type, value),
            Err(_) if r#type == Type::Bool => Cell::Bool(true),
            Err(_) => Cell::Decimal(Cow::Owned(value.to_string())),
        },
        Value::Float(value) => Cell::Float(single(*value)),
        Value::Double(value) => Cell::Float(*value),
        Value::Bytes(bytes) if matches!(r#type, Type::Bool | Type::Decimal) && is_bits() => bits(r#type, bytes),
        Value::Bytes(bytes) => text(r#type, bytes),
        Value::Date(year, month, day, hours, minutes, seconds, micros) => {
            let clock = u64::from(*hours) * 3600 + u64::from(*minutes) * 60 + u64::from(*seconds);
            let clock = clock * 1_000_000 + u64::from(*micros);
            moment(r#type, (*year, *month, *day), i64::try_from(clock).unwrap_or_default())
        }
        Value::Time(is_negative, days, hours, minutes, seconds, micros) => {
            let hours = u64::from(*days) * 24 + u64::from(*hours);
            duration(*is_negative, hours, (*minutes, *seconds, *micros))
        }
    }
}

fn integer(r#type: Type, value: i64) -> Cell<'static> {
    match r#type {
        Type::Bool => Cell::Bool(value != 0),
        _ => Cell::Int(value),
    }
}

/// The double with the fewest digits that is nearest to a single.
fn single(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| f64::from(value))
}

/// The number that bits are, of which there are 64 at most.
fn bits(r#type: Type, bytes: &[u8]) -> Cell<'static> {
    let number = bytes.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    match (r#type, i64::try_from(number)) {
        (Type::Bool, _) => Cell::Bool(number != 0),
        (_, Ok(number)) => Cell::Int(number),
        (_, Err(_)) => Cell::Decimal(Cow::Owned(number.to_string())),
    }
}

fn text(r#type: Type, bytes: &[u8]) -> Cell<'_> {
    let text = || cell::text(bytes);
    let parsed = match r#type {
        Type::Bytes => Some(Cell::Bytes(bytes)),
        Type::Decimal => Some(Cell::Decimal(text())),
        Type::Uuid => uuid::parse(&text()).map(Cell::Uuid),
        // A check keeps others out, which a session may turn off.
        Type::Json => serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok().then_some(Cell::Json(bytes)),
        _ => None,
    };
    parsed.unwrap_or_else(|| Cell::Text(text()))
}

/// A day, or a moment of it in microseconds.
fn moment(r#type: Type, (year, month, day): (u16, u8, u8), clock: i64) -> Cell<'static> {
    const DAY_MICROS: i64 = 86_400_000_000;
    let date = format!("{year:04}-{month:02}-{day:02}");
    let at = || datetime::written(|out| datetime::clock(out, clock));
    match (datetime::parse_date(&date), r#type) {
        (Some(days), Type::Date) => Cell::Date(days),
        (Some(days), _) => Cell::Timestamp(i64::from(days) * DAY_MICROS + clock),
        (None, Type::Date) => Cell::Text(Cow::Owned(date)),
        (None, _) => Cell::Text(Cow::Owned(format!("{date} {}", at()))),
    }
}

/// A time of a day; a duration that is none as its text.
fn duration(is_negative: bool, hours: u64, (minutes, seconds, micros): (u8, u8, u32)) -> Cell<'static> {
    let clock = (u64::from(minutes) * 60 + u64::from(seconds)) * 1_000_000 + u64::from(micros);
    let whole = i64::try_from(hours * 3_600_000_000 + clock).unwrap_or(i64::MAX);
    if !is_negative && hours < 24 {
        return Cell::Time(whole);
    }
    let below = datetime::written(|out| datetime::clock(out, i64::try_from(clock).unwrap_or_default()));
    let sign = if is_negative { "-" } else { "" };
    Cell::Text(Cow::Owned(format!("{sign}{hours:02}{}", below.trim_start_matches("00"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(r#type: Type, value: &Value) -> Cell<'_> {
        read(r#type, value, || false)
    }

    #[test]
    fn values_are_read_as_of_their_columns() {
        assert_eq!(cell(Type::Bool, &Value::Int(5)), Cell::Bool(true));
        assert_eq!(cell(Type::Decimal, &Value::UInt(u64::MAX)), Cell::Decimal("18446744073709551615".into()));
        assert_eq!(cell(Type::Float, &Value::Float(0.1)), Cell::Float(0.1));
        assert_eq!(read(Type::Decimal, &Value::Bytes(vec![1, 0]), || true), Cell::Int(256));
        assert_eq!(read(Type::Bool, &Value::Bytes(vec![0]), || true), Cell::Bool(false));
        assert_eq!(cell(Type::Json, &Value::Bytes(b"{\"a\": 1}".to_vec())), Cell::Json(b"{\"a\": 1}"));
        assert_eq!(cell(Type::Json, &Value::Bytes(b"{".to_vec())), Cell::Text("{".into()));
    }

    #[test]
    fn what_is_no_moment_is_its_text() {
        let day = |year, month, day| Value::Date(year, month, day, 0, 0, 0, 0);
        assert_eq!(cell(Type::Date, &day(1970, 1, 2)), Cell::Date(1));
        assert_eq!(cell(Type::Date, &day(0, 0, 0)), Cell::Text("0000-00-00".into()));
        assert_eq!(cell(Type::Timestamp, &day(2020, 2, 30)), Cell::Text("2020-02-30 00:00:00".into()));
        assert_eq!(cell(Type::Timestamp, &Value::Date(1969, 12, 31, 23, 59, 59, 5)), Cell::Timestamp(-999_995));
        assert_eq!(cell(Type::Time, &Value::Time(false, 0, 1, 2, 3, 4)), Cell::Time(3_723_000_004));
        assert_eq!(cell(Type::Time, &Value::Time(true, 1, 1, 2, 3, 0)), Cell::Text("-25:02:03".into()));
        assert_eq!(cell(Type::Time, &Value::Time(false, 34, 22, 59, 59, 500_000)), Cell::Text("838:59:59.5".into()));
    }
}
