//! Rows of a table in a binary log, as the values that a read would have answered.

use std::collections::BTreeMap;

use bytes::Bytes;
use mysql_async::Value;
use query::resources::Numbers;

use super::{
    charset::Charset,
    decode::{self, Input},
};
use crate::store::{
    log::{Image, ImageWriter},
    mysql::rows,
};

/// What the catalog says of a column, beyond what the log does.
#[derive(Debug, Clone)]
pub struct ColumnNature {
    pub charset: Charset,
    pub is_unsigned: bool,
    /// Of `enum` and `set`.
    pub labels: Vec<String>,
    pub form: ColumnForm,
}

/// How the bytes of a column are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnForm {
    Plain,
    Uuid,
    Inet4,
    Inet6,
    /// Bytes of one length.
    Binary(usize),
}

/// How rows of a table are laid out in the log.
#[derive(Debug)]
pub struct RowLayout {
    columns: Vec<LoggedColumn>,
    /// Of each column of the writer: where it is in the rows.
    places: Vec<usize>,
}

#[derive(Debug)]
struct LoggedColumn {
    kind: u8,
    meta: [u8; 2],
    nature: Option<ColumnNature>,
}

/// A table as an event names it.
#[derive(Debug, PartialEq, Eq)]
pub struct MappedTable {
    pub id: u64,
    pub database: String,
    pub table: String,
    /// What follows the names.
    rest: Bytes,
}

/// Rows of an event, of one table.
pub struct LoggedRows<'a> {
    input: Input<'a>,
    columns: usize,
    has_before: bool,
    has_after: bool,
    /// Whether all columns are in all images.
    pub is_full: bool,
}

impl MappedTable {
    /// The table that an event names.
    pub fn parse(body: &Bytes) -> Option<Self> {
        let mut input = Input(body);
        let id = input.number(6)?;
        input.take(2)?;
        let mut name = || {
            let length = usize::from(input.take(1)?[0]);
            let name = String::from_utf8(input.take(length)?.to_vec()).ok()?;
            input.take(1)?;
            Some(name)
        };
        let (database, table) = (name()?, name()?);
        let rest = body.slice(body.len() - input.0.len()..);
        Some(Self { id, database, table, rest })
    }

    /// Whether the log says the names of its columns.
    pub fn has_names(&self) -> bool {
        self.columns().is_some()
    }

    /// How its rows are laid out, for a writer of columns whose natures are known; `None` where it has no such columns.
    pub fn layout(&self, writer: &ImageWriter, natures: &BTreeMap<String, ColumnNature>) -> Option<RowLayout> {
        let (kinds, mut metas, names) = self.columns()?;
        let mut columns = Vec::with_capacity(names.len());
        for (kind, name) in kinds.iter().zip(&names) {
            let meta = decode::meta(*kind, &mut metas)?;
            columns.push(LoggedColumn { kind: *kind, meta, nature: natures.get(*name).cloned() });
        }
        let place = |column: &crate::store::log::ImageColumn| {
            let place = names.iter().position(|name| *name == column.name)?;
            columns[place].nature.is_some().then_some(place)
        };
        let places = writer.columns().iter().map(place).collect::<Option<_>>()?;
        Some(RowLayout { columns, places })
    }

    /// Types, what is said of them, and names of its columns.
    fn columns(&self) -> Option<(&[u8], Input<'_>, Vec<&str>)> {
        const COLUMN_NAMES: u8 = 4;
        let mut input = Input(&self.rest);
        let count = usize::try_from(input.length()?).ok()?;
        let kinds = input.take(count)?;
        let length = usize::try_from(input.length()?).ok()?;
        let metas = Input(input.take(length)?);
        input.take(count.div_ceil(8))?;
        let mut names = Vec::with_capacity(count);
        while !input.0.is_empty() {
            let kind = input.take(1)?[0];
            let length = usize::try_from(input.length()?).ok()?;
            let mut told = Input(input.take(length)?);
            while kind == COLUMN_NAMES && !told.0.is_empty() {
                let length = usize::try_from(told.length()?).ok()?;
                names.push(std::str::from_utf8(told.take(length)?).ok()?);
            }
        }
        (names.len() == count).then_some((kinds, metas, names))
    }
}

impl<'a> LoggedRows<'a> {
    /// The table and the rows of an event that has images before or after.
    pub fn parse(body: &'a [u8], has_before: bool, has_after: bool) -> Option<(u64, Self)> {
        let mut input = Input(body);
        let id = input.number(6)?;
        input.take(2)?;
        let columns = usize::try_from(input.length()?).ok()?;
        let mut is_full = true;
        for _ in 0..usize::from(has_before) + usize::from(has_after) {
            let present = input.take(columns.div_ceil(8))?;
            is_full &= (0..columns).all(|column| present[column / 8] >> (column % 8) & 1 == 1);
        }
        Some((id, Self { input, columns, has_before, has_after, is_full }))
    }

    /// The images of the next row, empty where the event has none; `None` after the last one, or of one that cannot be read:
    /// then not all bytes are read.
    pub fn next(&mut self, layout: &RowLayout, writer: &ImageWriter, numbers: Numbers) -> Option<(Bytes, Bytes)> {
        // Rows without columns would have no end.
        if self.input.0.is_empty() || self.columns == 0 || self.columns != layout.columns.len() {
            return None;
        }
        let mut image = |has: bool| match has {
            true => layout.image(&mut self.input, writer, numbers),
            false => Some(Bytes::new()),
        };
        Some((image(self.has_before)?, image(self.has_after)?))
    }

    /// Whether an update changed the values of a column; also where that does not show.
    pub fn has_changed(body: &[u8], map: &MappedTable, column: &str) -> bool {
        let read = || {
            let (_, mut rows) = LoggedRows::parse(body, true, true).filter(|(_, rows)| rows.is_full)?;
            let (kinds, mut metas, names) = map.columns()?;
            let place = names.iter().position(|name| *name == column)?;
            let metas = kinds.iter().map(|kind| decode::meta(*kind, &mut metas)).collect::<Option<Vec<_>>>()?;
            let mut value = || {
                let nulls = rows.input.take(kinds.len().div_ceil(8))?;
                let mut found = None;
                for (index, (kind, meta)) in kinds.iter().zip(&metas).enumerate() {
                    let is_null = nulls[index / 8] >> (index % 8) & 1 == 1;
                    let value =
                        if is_null { Value::NULL } else { decode::value(*kind, *meta, false, &mut rows.input)? };
                    found = if index == place { Some(value) } else { found };
                }
                Some((found, rows.input.0.is_empty()))
            };
            loop {
                let ((before, _), (after, is_last)) = (value()?, value()?);
                if before != after || is_last {
                    return Some(before != after);
                }
            }
        };
        read().unwrap_or(true)
    }

    /// Whether all of it has been read.
    pub fn is_read(&self) -> bool {
        self.input.0.is_empty()
    }
}

impl RowLayout {
    fn image(&self, input: &mut Input<'_>, writer: &ImageWriter, numbers: Numbers) -> Option<Bytes> {
        let nulls = input.take(self.columns.len().div_ceil(8))?;
        let mut values = Vec::with_capacity(self.columns.len());
        for (index, column) in self.columns.iter().enumerate() {
            let is_null = nulls[index / 8] >> (index % 8) & 1 == 1;
            values.push(if is_null { Value::NULL } else { column.value(input)? });
        }
        let mut image = Image::new(numbers);
        for (column, place) in writer.columns().iter().zip(&self.places) {
            let is_bits = || self.columns[*place].kind == decode::BIT;
            image.column(column, &rows::read(column.output.r#type, &values[*place], is_bits));
        }
        Some(image.finish())
    }
}

impl LoggedColumn {
    fn value(&self, input: &mut Input<'_>) -> Option<Value> {
        let is_unsigned = self.nature.as_ref().is_some_and(|nature| nature.is_unsigned);
        let value = decode::value(self.kind, self.meta, is_unsigned, input)?;
        let Some(nature) = &self.nature else { return Some(Value::NULL) };
        Some(match (decode::real_kind(self.kind, self.meta), value) {
            (decode::ENUM, Value::UInt(index)) => Value::Bytes(label(&nature.labels, index)),
            (decode::SET, Value::UInt(bits)) => Value::Bytes(labels(&nature.labels, bits)),
            (decode::BIT, value) => value,
            (_, Value::Bytes(bytes)) => Value::Bytes(nature.bytes(bytes)),
            (_, value) => value,
        })
    }
}

impl ColumnNature {
    fn bytes(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        // The log has no zeros at their ends.
        let length = match self.form {
            ColumnForm::Plain => 0,
            ColumnForm::Inet4 => 4,
            ColumnForm::Uuid | ColumnForm::Inet6 => 16,
            ColumnForm::Binary(length) => length,
        };
        bytes.resize(length.max(bytes.len()), 0);
        match self.form {
            ColumnForm::Plain if self.charset == Charset::Plain => bytes,
            ColumnForm::Plain => self.charset.utf8(&bytes).into_owned(),
            ColumnForm::Uuid => decode::uuid(&bytes).into_bytes(),
            ColumnForm::Inet4 => decode::inet4(&bytes).into_bytes(),
            ColumnForm::Inet6 => decode::inet6(&bytes).into_bytes(),
            ColumnForm::Binary(_) => bytes,
        }
    }
}

/// A label by its number, from one on; zero is the label of what was no label.
fn label(labels: &[String], number: u64) -> Vec<u8> {
    let index = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
    index.and_then(|index| labels.get(index)).map(|label| label.clone().into_bytes()).unwrap_or_default()
}

fn labels(labels: &[String], bits: u64) -> Vec<u8> {
    let is_set = |(index, label): (usize, &'_ String)| (bits >> index & 1 == 1).then(|| label.clone());
    labels.iter().take(64).enumerate().filter_map(is_set).collect::<Vec<_>>().join(",").into_bytes()
}
