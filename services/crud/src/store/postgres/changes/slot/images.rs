//! Messages of the output plugin as changes with images: the rows that a read would have answered.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, Bytes};
use foldhash::HashMap;
use proto::crud::{Change, Operation, ResyncReason, Snapshot};
use query::resources::Numbers;

use super::{
    SlotTable,
    framing::{RawMessage, RawPart},
};
use crate::{
    cell::Cell,
    store::log::{Image, Loss, change},
};

/// Relations as the stream has told them, by their ids.
#[derive(Debug, Default)]
pub struct ToldRelations {
    by_id: HashMap<u32, ToldRelation>,
    /// Those of which changes were passed over, since no followed table had them.
    passed_over: BTreeSet<u32>,
}

#[derive(Debug)]
struct ToldRelation {
    /// Types and names of its columns, as [`super::setup::SlotRelation::columns`] has them.
    columns: String,
    names: Vec<String>,
    /// The followed tables that it is a part of.
    tables: Vec<TablePart>,
}

/// How rows of a relation are read as rows of a followed table.
#[derive(Debug)]
struct TablePart {
    table: String,
    /// Of each column of the writer: where it is in the rows; `None` where the relation has none of its name.
    places: Vec<Option<usize>>,
    /// Whether the catalog has other columns.
    is_other: bool,
}

/// A value of a row.
#[derive(Debug, Clone, Copy)]
enum Field<'a> {
    Null,
    /// The same as in the row before.
    Unchanged,
    Text(&'a [u8]),
}

/// How a part is read.
#[derive(Debug, Clone, Copy)]
pub struct ReadContext<'a> {
    /// What is seen now.
    pub seen: &'a Snapshot,
    /// The transaction.
    pub id: u64,
    pub numbers: Numbers,
    /// The catalog was asked since the reading stopped.
    pub was_asked: bool,
}

/// What a part of a transaction was read as.
#[derive(Debug, Default)]
pub struct ReadPart {
    /// Changes of followed tables.
    pub changes: Vec<Change>,
    /// Why the part is not read to its end yet.
    pub stop: Option<ReadStop>,
}

/// What has to be done before the rest of a part is read.
#[derive(Debug, PartialEq, Eq)]
pub enum ReadStop {
    /// Something may have been missed here.
    Loss(Loss),
    /// A relation is not as it was: the catalog is to be asked.
    Moved,
}

impl ToldRelations {
    /// Rows are read anew as the tables are now.
    pub fn settle(&mut self, tables: &BTreeMap<String, SlotTable>) {
        for (id, relation) in &mut self.by_id {
            relation.tables = parts(*id, &relation.columns, &relation.names, tables);
        }
    }

    /// Whether changes of a relation were passed over.
    pub fn has_passed_over(&self, id: u32) -> bool {
        self.passed_over.contains(&id)
    }

    /// Reads the messages of a part, as far as nothing stops that, and takes them out of it.
    pub fn read(
        &mut self,
        part: &mut RawPart,
        tables: &mut BTreeMap<String, SlotTable>,
        context: &ReadContext<'_>,
    ) -> ReadPart {
        let mut read = ReadPart::default();
        while let Some(message) = part.messages.pop_front() {
            let stop = match message.body.first() {
                Some(b'R') => match self.relation(&message.body, tables) {
                    Some(true) if !context.was_asked => Some(ReadStop::Moved),
                    Some(_) | None => None,
                },
                Some(b'T') => truncated(self, &message.body, tables, context).map(ReadStop::Loss),
                _ => self.row(&message, tables, context, &mut read.changes).map(ReadStop::Loss),
            };
            if stop == Some(ReadStop::Moved) {
                // It is looked at again, with what the catalog says.
                part.messages.push_front(message);
            }
            if stop.is_some() {
                return ReadPart { stop, ..read };
            }
        }
        read
    }

    /// Takes the description of a relation; whether the catalog has other columns for a table that is followed. `None` for
    /// one that is malformed.
    fn relation(&mut self, body: &Bytes, tables: &BTreeMap<String, SlotTable>) -> Option<bool> {
        let mut body = body.clone();
        body.try_get_u8().ok()?;
        let id = body.try_get_u32().ok()?;
        text(&mut body)?;
        text(&mut body)?;
        body.try_get_u8().ok()?;
        let count = body.try_get_u16().ok()?;
        let (mut columns, mut names) = (Vec::new(), Vec::new());
        for _ in 0..count {
            body.try_get_u8().ok()?;
            let name = text(&mut body)?;
            let (native, modifier) = (body.try_get_u32().ok()?, body.try_get_i32().ok()?);
            columns.push(format!("{native}:{modifier}:{name}"));
            names.push(name);
        }
        let columns = columns.join(",");
        let tables = parts(id, &columns, &names, tables);
        let is_other = tables.iter().any(|part| part.is_other);
        self.by_id.insert(id, ToldRelation { columns, names, tables });
        Some(is_other)
    }

    /// Adds the change that a message tells. Returns what it may have missed.
    fn row(
        &mut self,
        message: &RawMessage,
        tables: &mut BTreeMap<String, SlotTable>,
        context: &ReadContext<'_>,
        changes: &mut Vec<Change>,
    ) -> Option<Loss> {
        let (kind, rest) = message.body.split_first()?;
        let (id, rest) = rest.split_first_chunk()?;
        let id = u32::from_be_bytes(*id);
        let Some(relation) = self.by_id.get(&id).filter(|relation| !relation.tables.is_empty()) else {
            self.passed_over.insert(id);
            return None;
        };
        let read = if message.is_cut { None } else { MessageRows::read(*kind, rest, relation.names.len()) };
        let mut lost = Vec::new();
        for part in &relation.tables {
            let Some(table) = tables.get_mut(&part.table) else { continue };
            match &read {
                Some(rows) if !part.is_other => changes.push(rows.change(part, table, context.numbers)),
                // Who was told of the loss has read since, and saw it.
                Some(_) | None if table.lost.sees(context.id) => {}
                Some(_) | None => {
                    table.lost.clone_from(context.seen);
                    lost.push(part.table.clone());
                }
            }
        }
        (!lost.is_empty()).then_some(Loss { reason: ResyncReason::LogLost, tables: lost })
    }
}

/// The followed tables that a relation is a part of.
fn parts(id: u32, columns: &str, names: &[String], tables: &BTreeMap<String, SlotTable>) -> Vec<TablePart> {
    let mut parts = Vec::new();
    for (name, table) in tables {
        let Some(relation) = table.relations.get(&id) else { continue };
        let place = |column: &crate::store::log::ImageColumn| names.iter().position(|name| *name == column.name);
        let places = table.writer.columns().iter().map(place).collect();
        parts.push(TablePart { table: name.clone(), places, is_other: relation.columns != columns });
    }
    parts
}

/// What a `TRUNCATE` means, unless that has been told.
fn truncated(
    told: &mut ToldRelations,
    body: &Bytes,
    tables: &mut BTreeMap<String, SlotTable>,
    context: &ReadContext<'_>,
) -> Option<Loss> {
    let mut body = body.clone();
    body.try_get_u8().ok()?;
    let count = body.try_get_u32().ok()?;
    body.try_get_u8().ok()?;
    let mut lost = Vec::new();
    for _ in 0..count {
        let id = body.try_get_u32().ok()?;
        let Some(relation) = told.by_id.get(&id).filter(|relation| !relation.tables.is_empty()) else {
            told.passed_over.insert(id);
            continue;
        };
        for part in &relation.tables {
            if let Some(table) = tables.get_mut(&part.table)
                && !table.lost.sees(context.id)
            {
                table.has_new_file = true;
                table.lost.clone_from(context.seen);
                lost.push(part.table.clone());
            }
        }
    }
    (!lost.is_empty()).then_some(Loss { reason: ResyncReason::Truncate, tables: lost })
}

/// The rows of a message.
struct MessageRows<'a> {
    operation: Operation,
    before: Option<Vec<Field<'a>>>,
    after: Option<Vec<Field<'a>>>,
}

impl<'a> MessageRows<'a> {
    /// The rows before and after that a message has; `None` where it lacks one, since the identity of its table is not
    /// `FULL`, or is malformed.
    fn read(kind: u8, mut rest: &'a [u8], columns: usize) -> Option<Self> {
        let (mut before, mut after) = (None, None);
        while let Some((side, tuple)) = rest.split_first() {
            rest = tuple;
            match side {
                b'O' => before = Some(fields(&mut rest, columns)?),
                b'N' => after = Some(fields(&mut rest, columns)?),
                _ => return None,
            }
        }
        let operation = match kind {
            b'I' => Operation::Insert,
            b'U' => Operation::Update,
            b'D' => Operation::Delete,
            _ => return None,
        };
        let is_whole = match operation {
            Operation::Insert => after.is_some(),
            Operation::Update => before.is_some() && after.is_some(),
            Operation::Delete | Operation::Unspecified => before.is_some(),
        };
        is_whole.then_some(Self { operation, before, after })
    }

    fn change(&self, part: &TablePart, table: &SlotTable, numbers: Numbers) -> Change {
        let before = self.before.as_ref().map(|row| image(row, None, part, table, numbers)).unwrap_or_default();
        let other = self.before.as_deref();
        let after = self.after.as_ref().map(|row| image(row, other, part, table, numbers)).unwrap_or_default();
        change(&part.table, self.operation, before, after)
    }
}

/// The image of a row. What is unchanged is taken from the one before.
fn image(
    row: &[Field<'_>],
    before: Option<&[Field<'_>]>,
    part: &TablePart,
    table: &SlotTable,
    numbers: Numbers,
) -> Bytes {
    let mut image = Image::new(numbers);
    for ((column, form), place) in table.writer.columns().iter().zip(&table.forms).zip(&part.places) {
        let Some(place) = *place else { continue };
        let field = match (row.get(place), before) {
            (Some(Field::Unchanged), Some(before)) => before.get(place),
            (field, _) => field,
        };
        match field {
            Some(Field::Text(text)) => image.column(column, &form.cell(&form.parse(text))),
            Some(Field::Null | Field::Unchanged) | None => image.column(column, &Cell::Null),
        }
    }
    image.finish()
}

/// The next row.
fn fields<'a>(rest: &mut &'a [u8], columns: usize) -> Option<Vec<Field<'a>>> {
    let (count, tail) = rest.split_first_chunk()?;
    *rest = tail;
    let count = usize::from(u16::from_be_bytes(*count));
    if count != columns {
        return None;
    }
    let mut fields = Vec::with_capacity(count);
    for _ in 0..count {
        let (kind, tail) = rest.split_first()?;
        *rest = tail;
        fields.push(match kind {
            b'n' => Field::Null,
            b'u' => Field::Unchanged,
            b't' => {
                let (length, tail) = rest.split_first_chunk()?;
                let (text, tail) = tail.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
                *rest = tail;
                Field::Text(text)
            }
            _ => return None,
        });
    }
    Some(fields)
}

/// The next text, which ends with a zero.
fn text(body: &mut Bytes) -> Option<String> {
    let end = body.iter().position(|byte| *byte == 0)?;
    let text = String::from_utf8_lossy(&body.split_to(end)).into_owned();
    body.advance(1);
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_malformed_is_no_row() {
        let row = [&[0, 2][..], b"n", b"t", &[0, 0, 0, 1], b"x"].concat();
        let insert = [b"N", &row[..]].concat();
        assert!(MessageRows::read(b'I', &insert, 2).is_some());
        assert!(MessageRows::read(b'I', &insert, 3).is_none(), "another number of columns");
        for end in 1..insert.len() {
            assert!(MessageRows::read(b'I', &insert[..end], 2).is_none(), "{end}");
        }
        assert!(MessageRows::read(b'U', &insert, 2).is_none(), "no row before");
        let by_key = [b"K", &row[..]].concat();
        assert!(MessageRows::read(b'D', &by_key, 2).is_none(), "its key only");
        assert!(MessageRows::read(b'U', &[b"O", &row[..], b"N", &row[..]].concat(), 2).is_some());
    }
}
