//! The log of changes, with the rows before and after: what a look at it finds, whatever the engine.

use std::{collections::BTreeSet, sync::Arc};

use proto::crud::{Change, Operation, ResyncReason, Snapshot};
use query::{Table, resources::Numbers};

use super::Output;
use crate::{Error, cell::Cell, json};

/// Memory that a change takes beside its images.
const CHANGE_BYTES: usize = 128;
/// Most bytes of one message: larger changes are not told.
const PART_BYTES_MAX: usize = 32 << 20;

mod position;

pub use position::{CAPTURE_BITS, LogPosition, Place, of_all, place_after};

/// What a look at the log finds.
#[derive(Debug)]
pub struct LogLook {
    /// What may have been missed before the parts.
    pub losses: Vec<Loss>,
    /// Tables that cannot be followed any more.
    pub failed: Vec<(String, Error)>,
    /// Transactions in the order in which they are told.
    pub parts: Vec<LogPart>,
    /// The position after all of it.
    pub position: LogPosition,
    /// Whether there is more to look at.
    pub has_more: bool,
    /// What sees all of it, where positions are places of commits and do not say that.
    pub visible: Option<Arc<Snapshot>>,
}

/// How far what was told is behind what was committed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogLag {
    /// Bytes of the log.
    pub bytes: u64,
    /// Since when the first of what waits does, in microseconds since 1970; `None` where nothing does.
    pub since_us: Option<i64>,
}

/// A transaction, or a part of one.
#[derive(Debug, Clone)]
pub struct LogPart {
    /// Where it stands.
    pub place: Place,
    /// When its changes were made, in microseconds since 1970.
    pub committed_us: i64,
    /// In the order in which they were made.
    pub changes: Vec<Change>,
    /// The position after it.
    pub position: LogPosition,
}

/// Changes that may have been missed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// Why.
    pub reason: ResyncReason,
    /// Of which tables; empty: of all.
    pub tables: Vec<String>,
}

/// Writer of the images of a table's rows.
#[derive(Debug)]
pub struct ImageWriter {
    columns: Vec<ImageColumn>,
}

/// A column of images.
#[derive(Debug)]
pub struct ImageColumn {
    /// Its name.
    pub name: String,
    /// Its type.
    pub output: Output,
    /// Cast after a result of it.
    pub cast: &'static str,
    /// Its name as JSON, with the colon.
    key: Vec<u8>,
}

/// An image that is being written.
#[derive(Debug)]
pub struct Image {
    out: Vec<u8>,
    numbers: Numbers,
}

impl LogLook {
    /// What was found up to a position, with nothing besides.
    pub fn of(parts: Vec<LogPart>, position: LogPosition) -> Self {
        Self { losses: Vec::new(), failed: Vec::new(), parts, position, has_more: false, visible: None }
    }

    /// The position after all of it, as that of what is captured from there on: a read that goes on there sees all before.
    pub fn since(&self) -> LogPosition {
        let seen = self.visible.as_deref().unwrap_or(&self.position.seen).clone();
        LogPosition { seen, ..self.position.clone() }
    }

    /// Removes the changes of a table.
    pub fn remove(&mut self, table: &str) {
        for part in &mut self.parts {
            part.changes.retain(|change| change.table != table);
        }
    }
}

impl Loss {
    /// Whether it may be changes of a table.
    pub fn concerns(&self, table: &String) -> bool {
        self.tables.is_empty() || self.tables.contains(table)
    }
}

impl LogPart {
    /// Memory of its images.
    pub fn bytes(&self) -> usize {
        self.changes.iter().map(|change| change.before.len() + change.after.len() + CHANGE_BYTES).sum()
    }

    /// Whether it is more than is told at once.
    pub fn is_too_large(&self) -> bool {
        self.bytes() > PART_BYTES_MAX
    }

    /// The tables that it changed.
    pub fn tables(&self) -> Vec<String> {
        let tables: BTreeSet<&String> = self.changes.iter().map(|change| &change.table).collect();
        tables.into_iter().cloned().collect()
    }
}

impl ImageWriter {
    /// The writer of all readable columns of a table. Results of a column are cast by what `cast` says.
    pub fn of(table: &Table, cast: impl Fn(&query::Column) -> &'static str) -> Self {
        let column = |column: &query::Column| {
            let mut key = Vec::with_capacity(column.name.len() + 3);
            json::string(&mut key, &column.name);
            key.push(b':');
            ImageColumn { name: column.name.clone(), output: Output::of(column), cast: cast(column), key }
        };
        Self { columns: table.columns.iter().filter(|column| column.readable).map(column).collect() }
    }

    /// The columns, in the order in which they are written.
    pub fn columns(&self) -> &[ImageColumn] {
        &self.columns
    }
}

impl Image {
    /// An image without columns yet.
    pub fn new(numbers: Numbers) -> Self {
        Self { out: vec![b'{'], numbers }
    }

    /// Writes the next column.
    pub fn column(&mut self, column: &ImageColumn, cell: &Cell<'_>) {
        if self.out.len() > 1 {
            self.out.push(b',');
        }
        self.out.extend_from_slice(&column.key);
        json::cell(&mut self.out, cell, self.numbers);
    }

    /// The whole image.
    pub fn finish(mut self) -> bytes::Bytes {
        self.out.push(b'}');
        self.out.into()
    }
}

/// A change of a row of a table.
pub fn change(table: &str, operation: Operation, before: bytes::Bytes, after: bytes::Bytes) -> Change {
    Change { table: table.to_owned(), operation: operation.into(), before, after }
}
