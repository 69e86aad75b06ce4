//! The log of changes: triggers write the rows before and after into a table of ours.
//!
//! Values are kept as they are stored, so an image is what a read of the row would have written. SQLite has one writer:
//! numbers of the log are in the order of commits, and the position is one number. Nothing tells a transaction from the
//! next, so each change is told by itself.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hasher},
    sync::Arc,
};

use bytes::Bytes;
use foldhash::HashMap;
use proto::crud::{Operation, ResyncReason, Snapshot as Seen};
use query::{Type, resources::Numbers};
use rusqlite::{Connection, OptionalExtension, Row, types::ValueRef};

use self::triggers::{ABSENT, Captured, Shape, op};
pub use self::triggers::{LOG_SQL, REPLACED_SQL, SHAPES_SQL};
use super::{
    Sqlite, SqliteError, rows,
    wal_index::{WalHeader, WalIndex},
};
use crate::{
    Error,
    bind::Stored,
    cell::Cell,
    store::{
        Rows, Statement,
        log::{Image, ImageWriter, LogLook, LogPart, LogPosition, Loss, Place, change},
    },
};

pub mod triggers;

/// Bytes of images after which a look ends, and is followed by the next.
const LOOK_BYTES: usize = 4 << 20;
/// Memory that a change takes beside its images.
const CHANGE_BYTES: usize = 512;
/// The Julian day of 1970-01-01, and microseconds of a day.
const EPOCH_DAY: f64 = 2_440_587.5;
const DAY_US: f64 = 86_400e6;
/// Columns of an entry before its values.
const HEAD: usize = 5;

/// How far a log has been read, and for which tables.
#[derive(Debug, Clone, Default)]
pub struct LogReader {
    /// The tables that are followed, by name.
    tables: BTreeMap<String, CapturedTable>,
    /// State of the file that was read last; `None` where there is more to read of it.
    header: Option<WalHeader>,
    schema: i64,
    cursor: Option<LogCursor>,
}

/// A table that is followed.
#[derive(Debug, Clone)]
struct CapturedTable {
    writer: Arc<ImageWriter>,
    /// What its triggers are now.
    captured: Captured,
}

/// Place up to which a log has been read.
#[derive(Debug, Clone)]
struct LogCursor {
    source: u64,
    seq: i64,
    mark: u32,
    shapes: HashMap<i64, Arc<Shape>>,
    /// Rows that are about to be changed, by their shapes and keys: each is the last of its key.
    pending: HashMap<(i64, Vec<u8>), Vec<StoredRow>>,
}

/// The values of a row, as the log has them.
type StoredRow = Vec<StoredValue>;

/// A value, as it is stored.
#[derive(Debug, Clone)]
enum StoredValue {
    /// The table had no such column.
    Absent,
    Null,
    Some(Stored),
}

/// What is read of the log in one go.
struct Reading<'r> {
    tables: &'r BTreeMap<String, CapturedTable>,
    numbers: Numbers,
    cursor: LogCursor,
    parts: Vec<LogPart>,
    losses: Vec<Loss>,
    bytes: usize,
}

impl Sqlite {
    /// Captures the changes of a table from now on, with images of its columns. Its triggers are made where they are
    /// missing, or not those that are wanted.
    ///
    /// Returns the position after which the log has all of them.
    pub async fn capture_log(
        &self,
        reader: &mut LogReader,
        table: &str,
        writer: Arc<ImageWriter>,
    ) -> Result<LogPosition, Error> {
        let name = table.to_owned();
        let captured = self.on_writer(move |writer| triggers::capture(writer, &name)).await?;
        let cursor = match &reader.cursor {
            Some(cursor) => cursor,
            // All that is committed after this is read.
            None => reader.cursor.insert(self.read_on_thread(|reader| LogCursor::last(reader.connection)).await?),
        };
        let since = LogPosition::of(cursor.source, seen(captured.since));
        reader.tables.insert(table.to_owned(), CapturedTable { writer, captured });
        Ok(since)
    }

    /// Errors: a row of a table may be removed without being told.
    pub async fn check_complete(&self, tables: &[String]) -> Result<(), Error> {
        let tables = tables.to_vec();
        let all =
            move |reader: &Connection| tables.iter().try_for_each(|table| triggers::check_complete(reader, table));
        Ok(self.read_on_thread(move |reader| all(reader.connection)).await?)
    }

    /// Ends the capture of all tables but `kept`, also that which a process before did not end. Without any, nothing of
    /// the log is left in the file.
    pub async fn release_log(&self, reader: &mut LogReader, kept: &[String]) -> Result<(), Error> {
        reader.tables.retain(|table, _| kept.contains(table));
        if kept.is_empty() {
            reader.cursor = None;
        }
        let kept = kept.to_vec();
        self.on_writer(move |writer| triggers::release(writer, &kept)).await
    }

    /// What was committed since the last look.
    pub async fn look(&self, reader: &mut LogReader, numbers: Numbers) -> Result<LogLook, Error> {
        // Before the read: what is committed during it is read again.
        let header = self.inner.wal.as_ref().map(WalIndex::header);
        let Some(cursor) = reader.cursor.clone() else {
            return Err(Error::Unavailable("no table is captured".to_owned()));
        };
        let tables = reader.tables.clone();
        let looked = self.read_on_thread(move |reader| look(reader.connection, &tables, numbers, cursor)).await?;
        let FileLook { schema, found } = looked;
        let Some((mut look, cursor)) = found else { return self.lost_log(reader).await };
        if std::mem::replace(&mut reader.schema, schema) != schema
            && let Err(error) = self.changed_schema(reader, &mut look).await
        {
            // It is looked at again.
            reader.schema = 0;
            return Err(error);
        }
        reader.header = header.filter(|_| !look.has_more);
        reader.cursor = Some(cursor);
        Ok(look)
    }

    /// Captures tables anew whose triggers are not those that are wanted. What was logged of them meanwhile may lack
    /// something, or be of another table, unless they were there all the time.
    async fn changed_schema(&self, reader: &mut LogReader, look: &mut LogLook) -> Result<(), Error> {
        for (name, table) in &mut reader.tables {
            let of = name.clone();
            match self.on_writer(move |writer| triggers::capture(writer, &of)).await {
                Ok(captured) if captured.since == table.captured.since => table.captured = captured,
                Ok(captured) => {
                    table.captured = captured;
                    look.losses.push(Loss { reason: ResyncReason::LogLost, tables: vec![name.clone()] });
                    look.remove(name);
                }
                Err(error) if matches!(error, Error::Query(_)) => {
                    look.failed.push((name.clone(), error));
                    look.remove(name);
                }
                Err(error) => return Err(error),
            }
        }
        for (name, _) in &look.failed {
            reader.tables.remove(name);
        }
        Ok(())
    }

    /// The log was removed: all tables are captured anew.
    async fn lost_log(&self, reader: &mut LogReader) -> Result<LogLook, Error> {
        reader.cursor = None;
        let mut failed = Vec::new();
        for (name, table) in reader.tables.clone() {
            match self.capture_log(reader, &name, table.writer).await {
                Ok(_) => {}
                Err(error) if matches!(error, Error::Query(_)) => failed.push((name, error)),
                Err(error) => return Err(error),
            }
        }
        let position = reader.position().ok_or_else(|| Error::Unavailable("the log was removed".to_owned()))?;
        let losses = vec![Loss { reason: ResyncReason::LogLost, tables: Vec::new() }];
        Ok(LogLook { losses, failed, parts: Vec::new(), position, has_more: false, visible: None })
    }

    /// Waits until something may have been committed since the last look. Runs no statement.
    pub async fn log_commit_after(&self, reader: &LogReader) {
        self.commit_since(reader.header.as_ref(), &self.inner.log_commits).await;
    }
}

impl LogReader {
    /// Images have the columns of `writer` from now on.
    pub fn describe(&mut self, table: &str, writer: Arc<ImageWriter>) {
        if let Some(followed) = self.tables.get_mut(table) {
            followed.writer = writer;
        }
    }

    /// A reader of the same tables from a position on.
    pub fn at(&self, position: &LogPosition) -> Self {
        let seq = i64::try_from(position.seen.end).unwrap_or(i64::MAX) - 1;
        let (source, mark) = (position.source, position.mark);
        let cursor = LogCursor { source, seq, mark, shapes: HashMap::default(), pending: HashMap::default() };
        Self { tables: self.tables.clone(), header: None, schema: self.schema, cursor: Some(cursor) }
    }

    /// The position after the last look; `None` where nothing is captured.
    pub fn position(&self) -> Option<LogPosition> {
        self.cursor.as_ref().map(LogCursor::position)
    }
}

impl LogCursor {
    /// The end of the log.
    fn last(reader: &Connection) -> Result<Self, SqliteError> {
        let last = "SELECT seq, at FROM perigee_log ORDER BY seq DESC LIMIT 1";
        let last = reader.query_row(last, [], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let (seq, at) = last.ok_or_else(triggers::lost)?;
        Ok(Self {
            source: source(reader)?,
            seq,
            mark: mark(at),
            shapes: HashMap::default(),
            pending: HashMap::default(),
        })
    }

    /// Why what follows is not all that there was; `None` where it is.
    fn lost(&self, reader: &Connection) -> Result<Option<ResyncReason>, SqliteError> {
        let ends = "SELECT min(seq), max(seq) FROM perigee_log";
        let (first, last): (Option<i64>, Option<i64>) =
            reader.query_row(ends, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let (Some(first), Some(last)) = (first, last) else { return Ok(Some(ResyncReason::LogLost)) };
        if last < self.seq {
            return Ok(Some(ResyncReason::Restored));
        }
        // Numbers have no gaps.
        if first > self.seq + 1 {
            return Ok(Some(ResyncReason::LogLost));
        }
        let at = "SELECT at FROM perigee_log WHERE seq = ?1";
        let at: Option<f64> = reader.prepare_cached(at)?.query_row([self.seq], |row| row.get(0)).optional()?;
        let is_other = self.mark != 0 && at.is_some_and(|at| mark(at) != self.mark);
        Ok(is_other.then_some(ResyncReason::Restored))
    }

    fn position(&self) -> LogPosition {
        LogPosition { mark: self.mark, ..LogPosition::of(self.source, seen(self.seq)) }
    }
}

/// The snapshot that sees all up to an entry.
fn seen(seq: i64) -> Seen {
    let end = u64::try_from(seq).unwrap_or_default() + 1;
    Seen { start: end, end, running: Vec::new() }
}

/// The statement whose row tells the end of the log.
pub fn end_statement() -> Statement {
    Statement {
        text: "SELECT seq, at FROM perigee_log ORDER BY seq DESC LIMIT 1".into(),
        args: Vec::new(),
        columns: [Type::Int64.into(), Type::Float.into()].into(),
        sources: Vec::new(),
        plain: None,
    }
}

/// The snapshot, and the mark of a position, of the row of [`end_statement`].
pub fn end(rows: &Rows) -> Option<(Seen, u32)> {
    match (rows.len(), rows) {
        (1, rows) => match (rows.cell(0, 0), rows.cell(0, 1)) {
            (Cell::Int(seq), Cell::Float(at)) => Some((seen(seq), mark(at))),
            _ => None,
        },
        _ => None,
    }
}

/// Hash of the epoch of the log.
fn source(reader: &Connection) -> Result<u64, SqliteError> {
    let epoch = "SELECT columns FROM perigee_log_shapes WHERE shape = 0";
    let epoch: Option<String> = reader.query_row(epoch, [], |row| row.get(0)).optional()?;
    let mut hasher = DefaultHasher::new();
    hasher.write(epoch.ok_or_else(triggers::lost)?.as_bytes());
    Ok(hasher.finish())
}

/// Hash of the time of an entry: after a restore, another entry has its number.
fn mark(at: f64) -> u32 {
    let mut hasher = DefaultHasher::new();
    hasher.write_u64(at.to_bits());
    hasher.finish() as u32
}

/// What a look at the file finds.
struct FileLook {
    schema: i64,
    /// `None` where the log is not the one that was read before.
    found: Option<(LogLook, LogCursor)>,
}

/// Reads what follows `cursor`, in a transaction that the caller ends.
fn look(
    reader: &Connection,
    tables: &BTreeMap<String, CapturedTable>,
    numbers: Numbers,
    cursor: LogCursor,
) -> Result<FileLook, SqliteError> {
    reader.execute_batch("BEGIN")?;
    let schema = reader.query_row("PRAGMA schema_version", [], |row| row.get(0))?;
    if !triggers::is_made(reader)? || source(reader)? != cursor.source {
        return Ok(FileLook { schema, found: None });
    }
    if let Some(reason) = cursor.lost(reader)? {
        let cursor = LogCursor::last(reader)?;
        let losses = vec![Loss { reason, tables: Vec::new() }];
        let look = LogLook {
            losses,
            failed: Vec::new(),
            parts: Vec::new(),
            position: cursor.position(),
            has_more: false,
            visible: None,
        };
        return Ok(FileLook { schema, found: Some((look, cursor)) });
    }
    let mut reading = Reading { tables, numbers, cursor, parts: Vec::new(), losses: Vec::new(), bytes: 0 };
    let has_more = reading.entries(reader)?;
    if !has_more {
        // A transaction ends here: what is still to be changed was not changed.
        reading.cursor.pending.clear();
    }
    let position = reading.cursor.position();
    let look =
        LogLook { losses: reading.losses, failed: Vec::new(), parts: reading.parts, position, has_more, visible: None };
    Ok(FileLook { schema, found: Some((look, reading.cursor)) })
}

impl Reading<'_> {
    /// Reads entries; whether there are more.
    fn entries(&mut self, reader: &Connection) -> Result<bool, SqliteError> {
        let values = triggers::values_of(reader, "perigee_log")?;
        let names = (0..values).map(|index| format!(", v{index}")).collect::<String>();
        let all = format!("SELECT seq, shape, op, at, k{names} FROM perigee_log WHERE seq > ?1 ORDER BY seq");
        let mut entries = reader.prepare_cached(&all)?;
        let mut entries = entries.query([self.cursor.seq])?;
        while let Some(entry) = entries.next()? {
            if self.bytes > LOOK_BYTES {
                return Ok(true);
            }
            self.entry(reader, entry)?;
        }
        Ok(false)
    }

    fn entry(&mut self, reader: &Connection, entry: &Row<'_>) -> Result<(), SqliteError> {
        let (seq, shape, op, at): (i64, i64, i64, f64) = (entry.get(0)?, entry.get(1)?, entry.get(2)?, entry.get(3)?);
        self.cursor.seq = seq;
        self.cursor.mark = mark(at);
        let Some(known) = self.shape(reader, shape)? else { return Ok(()) };
        let Some((name, followed)) = self.tables.get_key_value(&known.table) else { return Ok(()) };
        let key = (shape, bytes_of(entry.get_ref(4)?));
        let (operation, before, after) = match op {
            op::BEFORE => {
                let row = stored(entry, &known)?;
                self.bytes += row.iter().map(StoredValue::size).sum::<usize>();
                self.cursor.pending.entry(key).or_default().push(row);
                return Ok(());
            }
            op::INSERT => (Operation::Insert, None, Some(stored(entry, &known)?)),
            op::UPDATE => (Operation::Update, self.before(&key), Some(stored(entry, &known)?)),
            op::DELETE => (Operation::Delete, self.before(&key), None),
            op::REPLACED => (Operation::Delete, Some(stored(entry, &known)?), None),
            _ => return Ok(()),
        };
        if before.is_none() && operation != Operation::Insert {
            // The row before was removed from the log.
            self.losses.push(Loss { reason: ResyncReason::LogLost, tables: vec![name.clone()] });
            return Ok(());
        }
        let image = |row: Option<StoredRow>| row.map_or_else(Bytes::new, |row| self.image(followed, &known, &row));
        let (before, after) = (image(before), image(after));
        self.bytes += before.len() + after.len() + CHANGE_BYTES;
        let id = u64::try_from(seq).unwrap_or_default();
        self.parts.push(LogPart {
            place: Place { id, order: (id, id) },
            committed_us: ((at - EPOCH_DAY) * DAY_US).round() as i64,
            changes: vec![change(name, operation, before, after)],
            position: self.cursor.position(),
        });
        Ok(())
    }

    /// The row before a change.
    fn before(&mut self, key: &(i64, Vec<u8>)) -> Option<StoredRow> {
        let rows = self.cursor.pending.get_mut(key)?;
        let row = rows.pop();
        if rows.is_empty() {
            self.cursor.pending.remove(key);
        }
        row
    }

    fn shape(&mut self, reader: &Connection, shape: i64) -> Result<Option<Arc<Shape>>, SqliteError> {
        if let Some(known) = self.cursor.shapes.get(&shape) {
            return Ok(Some(known.clone()));
        }
        let found = triggers::shape(reader, shape)?.map(Arc::new);
        if let Some(found) = &found {
            self.cursor.shapes.insert(shape, found.clone());
        }
        Ok(found)
    }

    fn image(&self, followed: &CapturedTable, shape: &Shape, row: &StoredRow) -> Bytes {
        let mut image = Image::new(self.numbers);
        for column in followed.writer.columns() {
            let at = shape.columns.iter().position(|name| *name == column.name);
            if let Some(value) = at.and_then(|at| row.get(at)?.value()) {
                image.column(column, &rows::read(column.output, value));
            }
        }
        image.finish()
    }
}

impl StoredValue {
    fn of(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Blob(bytes) if bytes == ABSENT => Self::Absent,
            ValueRef::Null => Self::Null,
            ValueRef::Integer(value) => Self::Some(Stored::Int(value)),
            ValueRef::Real(value) => Self::Some(Stored::Real(value)),
            ValueRef::Text(bytes) => Self::Some(Stored::Text(bytes.to_vec())),
            ValueRef::Blob(bytes) => Self::Some(Stored::Blob(bytes.to_vec())),
        }
    }

    fn value(&self) -> Option<ValueRef<'_>> {
        Some(match self {
            Self::Absent => return None,
            Self::Null => ValueRef::Null,
            Self::Some(Stored::Int(value)) => ValueRef::Integer(*value),
            Self::Some(Stored::Real(value)) => ValueRef::Real(*value),
            Self::Some(Stored::Text(bytes)) => ValueRef::Text(bytes),
            Self::Some(Stored::Blob(bytes)) => ValueRef::Blob(bytes),
        })
    }

    fn size(&self) -> usize {
        match self {
            Self::Some(Stored::Text(bytes) | Stored::Blob(bytes)) => bytes.len() + size_of::<Self>(),
            Self::Absent | Self::Null | Self::Some(Stored::Int(_) | Stored::Real(_)) => size_of::<Self>(),
        }
    }
}

/// The values of an entry.
fn stored(entry: &Row<'_>, shape: &Shape) -> Result<StoredRow, SqliteError> {
    (0..shape.columns.len()).map(|index| Ok(StoredValue::of(entry.get_ref(HEAD + index)?))).collect()
}

/// A key as bytes, which are others for each.
fn bytes_of(key: ValueRef<'_>) -> Vec<u8> {
    match key {
        ValueRef::Null => Vec::new(),
        ValueRef::Integer(value) => value.to_be_bytes().to_vec(),
        ValueRef::Real(value) => value.to_bits().to_be_bytes().to_vec(),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.to_vec(),
    }
}
