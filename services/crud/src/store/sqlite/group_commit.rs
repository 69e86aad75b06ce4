//! Group commit: single writes that wait for the writer together are one transaction, and wait for the disk once.

use std::sync::{Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::{
    SqliteError, SqliteInner, SqliteRows, UNLIMITED, interrupt_when, run,
    wal_index::{self, WalHeader, WalIndex},
};
use crate::{Error, blocking::Stop, budget::Room, store::Statement};

/// Most writes of one transaction: more would keep the first waiting.
const GROUP_SIZE: usize = 64;

/// Queue of writes that wait for the writer.
#[derive(Debug, Default)]
pub struct WriteQueue {
    /// Bounded by the callers: each waits for its own.
    waiting: Mutex<Vec<QueuedWrite>>,
}

/// A write in the queue.
#[derive(Debug)]
pub struct QueuedWrite {
    statement: Statement,
    /// Budget of its rows, where they may be large; over it the write is undone.
    room: Option<Room>,
    stop: Stop,
    answer: oneshot::Sender<Result<SqliteRows, Error>>,
}

impl WriteQueue {
    /// Enqueues a write; its answer comes when whoever has the writer takes it.
    pub fn add(
        &self,
        statement: Statement,
        room: Option<Room>,
        stop: Stop,
    ) -> oneshot::Receiver<Result<SqliteRows, Error>> {
        let (answer, receiver) = oneshot::channel();
        self.waiting().push(QueuedWrite { statement, room, stop, answer });
        receiver
    }

    /// Dequeues the writes that have waited longest.
    pub fn take(&self) -> Vec<QueuedWrite> {
        let mut waiting = self.waiting();
        let count = waiting.len().min(GROUP_SIZE);
        waiting.drain(..count).collect()
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<QueuedWrite>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs the writes that wait and answers them once committed: in one transaction if that works, else in one each.
pub fn perform(writer: &mut Connection, file: &SqliteInner) {
    let writes = file.queue.take();
    let (late, writes): (Vec<QueuedWrite>, Vec<QueuedWrite>) =
        writes.into_iter().partition(|write| write.stop.is_due());
    late.into_iter().for_each(|write| write.answer(Err(SqliteError::Interrupted)));
    let together = match writes.len() {
        0 | 1 => None,
        _ => commit_together(writer, file, &writes),
    };
    if let Some(results) = together {
        for (write, result) in writes.into_iter().zip(results) {
            write.answer(result);
        }
        return;
    }
    for write in writes {
        let done = write.commit_alone(writer, file);
        write.answer(done);
    }
}

/// Runs writes in one transaction, in which one that fails undoes itself only. `None` where nothing was committed: a
/// write ended the transaction, or a deferred constraint failed.
fn commit_together(
    writer: &mut Connection,
    file: &SqliteInner,
    writes: &[QueuedWrite],
) -> Option<Vec<Result<SqliteRows, SqliteError>>> {
    let results = in_transaction(writer, file, writes);
    if results.is_none() && !writer.is_autocommit() {
        writer.execute_batch("ROLLBACK").ok()?;
    }
    results
}

fn in_transaction(
    writer: &mut Connection,
    file: &SqliteInner,
    writes: &[QueuedWrite],
) -> Option<Vec<Result<SqliteRows, SqliteError>>> {
    let done = |writer: &Connection, sql: &str| writer.prepare_cached(sql).and_then(|mut sql| sql.execute([])).ok();
    done(writer, "BEGIN IMMEDIATE")?;
    let begun = file.begun(writer);
    let mut results = Vec::with_capacity(writes.len());
    for write in writes {
        done(writer, "SAVEPOINT write")?;
        let result = write.run(writer, file.holds_plain(&write.statement, begun.as_ref()));
        if writer.is_autocommit() || (result.is_err() && done(writer, "ROLLBACK TO write").is_none()) {
            return None;
        }
        done(writer, "RELEASE write")?;
        results.push(result);
    }
    done(writer, "COMMIT")?;
    file.committed(writer, begun);
    Some(results)
}

/// What a transaction of the writer found.
#[derive(Debug, Clone, Copy)]
pub struct Begun {
    /// State of the file.
    header: WalHeader,
    /// Pages that the writer had written.
    pages_written: i32,
}

impl SqliteInner {
    /// What the transaction that `writer` has begun finds: nobody else commits while it lasts.
    pub fn begun(&self, writer: &Connection) -> Option<Begun> {
        let header = self.wal.as_ref().map(WalIndex::header)?;
        Some(Begun { header, pages_written: wal_index::pages_written(writer)? })
    }

    /// Notes a commit of the writer, whose transaction found `begun`: tells who waits for commits, and keeps what is
    /// known of columns.
    ///
    /// A commit that changed nothing leaves the file as it was, and one that follows it is of another program.
    pub fn committed(&self, writer: &Connection, begun: Option<Begun>) {
        self.commits.notify_one();
        self.log_commits.notify_one();
        if let (Some(begun), Some(after)) = (begun, self.begun(writer))
            && begun.pages_written != after.pages_written
        {
            self.plain.keep(&begun.header, after.header);
        }
    }

    /// Whether a statement runs on values as they are stored, in a transaction that found `begun` and may have written.
    pub fn holds_plain(&self, statement: &Statement, begun: Option<&Begun>) -> bool {
        statement.plain.is_some() && begun.is_some_and(|begun| self.plain.hold_while_writing(statement, &begun.header))
    }
}

impl QueuedWrite {
    /// Runs it in a transaction of its own, begun for each: `ON CONFLICT FAIL` and `RAISE(FAIL)` end a statement with an
    /// error and keep what it changed before.
    fn commit_alone(&self, writer: &mut Connection, file: &SqliteInner) -> Result<SqliteRows, SqliteError> {
        let done = self.interruptible(writer, |writer| {
            writer.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
            let begun = file.begun(writer);
            let is_plain = file.holds_plain(&self.statement, begun.as_ref());
            let rows = run(writer, &self.statement, self.room(), is_plain)?;
            writer.prepare_cached("COMMIT")?.execute([])?;
            file.committed(writer, begun);
            Ok(rows)
        });
        if !writer.is_autocommit() {
            writer.execute_batch("ROLLBACK")?;
        }
        done
    }

    fn run(&self, writer: &mut Connection, is_plain: bool) -> Result<SqliteRows, SqliteError> {
        self.interruptible(writer, |writer| run(writer, &self.statement, self.room(), is_plain))
    }

    fn interruptible(
        &self,
        writer: &mut Connection,
        work: impl FnOnce(&mut Connection) -> Result<SqliteRows, SqliteError>,
    ) -> Result<SqliteRows, SqliteError> {
        interrupt_when(&self.stop, writer, work)
    }

    /// Room of its rows.
    fn room(&self) -> Room {
        self.room.unwrap_or(UNLIMITED)
    }

    fn answer(self, result: Result<SqliteRows, SqliteError>) {
        // An error means that nobody waits any more.
        let _ = self.answer.send(result.map_err(Error::from));
    }
}
