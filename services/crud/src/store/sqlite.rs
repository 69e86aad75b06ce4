//! SQLite: short reads inline on the caller's thread, longer ones on blocking threads, one writer, write-ahead log.

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use mesh::Tasks;
use rusqlite::Connection;
use tokio::sync::{Mutex as AsyncMutex, Notify, OwnedMutexGuard, Semaphore};

use super::Statement;
use crate::{
    Error, Introspected,
    blocking::{self, Stop, StopOnDrop},
    budget::{Budget, Room, SMALL_BYTES},
    error::StatementError,
};

mod bind;
pub mod changes;
mod equality;
mod error;
mod form;
mod group_commit;
pub mod log;
mod open;
mod plain;
mod reader;
mod rows;
mod schema;
mod slow;
#[cfg(test)]
mod tests;
mod wal_index;

use error::SqliteError;
use group_commit::Begun;
use plain::PlainColumns;
use reader::{Reader, Snapshot};
pub use rows::SqliteRows;
use slow::SlowStatements;
use wal_index::WalIndex;

/// How long a read may block the runtime's thread. One that took longer goes to a blocking thread the next time.
const INLINE_TIME: Duration = Duration::from_millis(1);
/// Steps of SQLite's virtual machine between two calls of the progress handler: some ten microseconds.
const PROGRESS_STEPS: std::ffi::c_int = 1000;
/// After this many calls, about [`INLINE_TIME`], a read is started again on a blocking thread.
const INLINE_CALLS: u32 = 20;
/// How long a statement on a blocking thread waits for the lock of another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Time between two attempts to take it.
const BUSY_INTERVAL: Duration = Duration::from_millis(5);
/// Reads on blocking threads at the same time; more wait.
const BLOCKING_READS: usize = 8;
/// No limit, for rows that are known to be few and small.
const UNLIMITED: Room = Room { bytes: usize::MAX, limit: u64::MAX };

thread_local! {
    /// The stop of this thread's statement: SQLite passes nothing to the busy handler that could hold it.
    static CURRENT_STOP: RefCell<Option<Stop>> = const { RefCell::new(None) };
}

/// A database file.
#[derive(Debug, Clone)]
pub struct Sqlite {
    inner: Arc<SqliteInner>,
}

#[derive(Debug)]
struct SqliteInner {
    path: PathBuf,
    tasks: Tasks,
    /// Idle connections for reading; as many as were ever needed at once.
    #[expect(clippy::vec_box, reason = "a reader is half a kilobyte that each read would move twice")]
    readers: Mutex<Vec<Box<Reader>>>,
    /// Whether a task expires old snapshots.
    is_watched: AtomicBool,
    writer: Arc<AsyncMutex<Connection>>,
    queue: group_commit::WriteQueue,
    blocking_reads: Semaphore,
    /// Held while a connection for short reads is opened, so that one is.
    opening: AsyncMutex<()>,
    slow: SlowStatements,
    plain: PlainColumns,
    /// The index of the log that the writer maps: used no longer than that.
    wal: Option<WalIndex>,
    /// Told of commits of the writer; one task waits for it.
    commits: Notify,
    /// As `commits`, for the task that reads the log.
    log_commits: Notify,
}

/// A transaction on the writing connection.
#[derive(Debug)]
pub struct SqliteTx {
    /// `None` only while statements run, and after one of them was abandoned.
    lease: Option<WriterLease>,
    inner: Arc<SqliteInner>,
    has_begun: bool,
    /// What it found.
    begun: Option<Begun>,
}

/// Lease of the writing connection for one transaction; what is not committed when it is dropped is rolled back.
#[derive(Debug)]
struct WriterLease {
    writer: OwnedMutexGuard<Connection>,
}

/// Deadline after which a running statement is interrupted.
enum Interrupt {
    /// After so many times [`PROGRESS_STEPS`] of each statement, or rather than wait for another process. Steps and not
    /// time: a thread that has to wait for a processor is not to do its work twice.
    After(u32),
    /// When its stop is due.
    When(Stop),
}

impl Sqlite {
    /// Opens the file at `path`. Where there is none, it is made by the SQL files of `init`, as a whole or not at all.
    ///
    /// Blocks.
    pub fn open(path: &Path, init: &[PathBuf], tasks: &Tasks) -> Result<Self, Error> {
        open::create(path, init)?;
        Self::existing(path, tasks)
    }

    /// Opens the file at `path`, which must be there.
    ///
    /// Blocks.
    pub fn existing(path: &Path, tasks: &Tasks) -> Result<Self, Error> {
        let writer = open::writer(path)?;
        let wal = WalIndex::of(&writer);
        let writer = Arc::new(AsyncMutex::new(writer));
        let inner = SqliteInner {
            path: path.to_owned(),
            tasks: tasks.clone(),
            readers: Mutex::default(),
            is_watched: AtomicBool::new(false),
            writer,
            queue: group_commit::WriteQueue::default(),
            blocking_reads: Semaphore::new(BLOCKING_READS),
            opening: AsyncMutex::default(),
            slow: SlowStatements::default(),
            plain: PlainColumns::default(),
            wal,
            commits: Notify::new(),
            log_commits: Notify::new(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Runs reads in one snapshot, as [`super::Store::snapshot`].
    pub async fn snapshot(
        &self,
        statements: &[Statement],
        budget: &Budget<'_>,
    ) -> Result<Vec<SqliteRows>, StatementError> {
        // What is rare is boxed, to be kept out of the futures of all others.
        if self.inner.slow.contain(statements) {
            return Box::pin(self.snapshot_on_thread(statements, budget)).await;
        }
        let reader = match self.inner.idle() {
            Some(reader) => reader,
            None => Box::pin(self.open_reader()).await?,
        };
        let Room { bytes, limit } = budget.row_room();
        let room = Room { bytes: bytes.min(SMALL_BYTES), limit };
        let start = Instant::now();
        let plain = &self.inner.plain;
        let done = self
            .inner
            .read(reader, &Interrupt::After(INLINE_CALLS), start, |reader| snapshot(reader, statements, room, plain));
        self.watch();
        match done {
            Ok((rows, is_plain)) => {
                if !is_plain {
                    self.scan(statements);
                }
                // The disk may have been waited for, which nothing interrupts.
                if start.elapsed() > INLINE_TIME {
                    self.inner.slow.ran(statements, true);
                }
                return Ok(rows);
            }
            Err(SqliteError::Interrupted | SqliteError::Full(_)) => self.inner.slow.ran(statements, true),
            Err(SqliteError::Busy(_) | SqliteError::Failed(Error::Unavailable(_))) => {}
            Err(failure) => return Err(failure.into()),
        }
        Box::pin(self.snapshot_on_thread(statements, budget)).await
    }

    /// Runs it on a blocking thread: once more where its rows turn out not to be small, when there is memory for them.
    async fn snapshot_on_thread(
        &self,
        statements: &[Statement],
        budget: &Budget<'_>,
    ) -> Result<Vec<SqliteRows>, StatementError> {
        let statements: Arc<[Statement]> = statements.into();
        loop {
            let (work, room, inner) = (statements.clone(), budget.row_room(), self.inner.clone());
            let done = self.read_on_thread(move |reader| {
                let start = Instant::now();
                match snapshot(reader, &work, room, &inner.plain) {
                    Ok((rows, is_plain)) => Ok(Some((rows, is_plain, start.elapsed()))),
                    Err(SqliteError::Full(_)) => Ok(None),
                    Err(failure) => Err(failure),
                }
            });
            match done.await? {
                Some((rows, is_plain, time)) => {
                    if !is_plain {
                        self.scan(&statements);
                    }
                    self.inner.slow.ran(&statements, time > INLINE_TIME / 2);
                    return Ok(rows);
                }
                None => budget.grow().await?,
            }
        }
    }

    /// Runs one write in its own transaction, which is undone where its rows take more than `room`: that is `TooLarge`.
    pub async fn write(&self, statement: &Statement, room: Option<Room>) -> Result<SqliteRows, Error> {
        let waiting = StopOnDrop::new();
        let mut answer = self.inner.queue.add(statement.clone(), room, waiting.stop());
        let ended = |_| Error::Panicked("whoever wrote for it ended without an answer".to_owned());
        loop {
            // Whoever gets the writer first writes for those who wait for it; with very many, not for himself.
            let mut lease = tokio::select! {
                biased;
                answer = &mut answer => return answer.map_err(ended)?,
                lease = self.lease() => lease,
            };
            let inner = self.inner.clone();
            blocking::run(move |_| group_commit::perform(&mut lease.writer, &inner)).await?;
        }
    }

    /// Begins a transaction that may write: it begins in the database with its first statement.
    pub async fn begin(&self) -> Result<SqliteTx, Error> {
        Ok(SqliteTx { lease: Some(self.lease().await), inner: self.inner.clone(), has_begun: false, begun: None })
    }

    /// Introspects the schema.
    pub async fn introspect(&self) -> Result<Introspected, Error> {
        Ok(self.read_on_thread(|reader| schema::introspect(reader.connection)).await?)
    }

    /// `PRAGMA schema_version`, which changes whenever the schema does.
    pub async fn schema_mark(&self) -> Result<Option<String>, Error> {
        let version = |reader: &Snapshot<'_>| {
            Ok(reader.connection.query_row("PRAGMA schema_version", [], |row| row.get::<_, i64>(0))?)
        };
        let version = self.read_on_thread(version).await?;
        Ok(Some(version.to_string()))
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), Error> {
        self.schema_mark().await.map(|_| ())
    }

    async fn read_on_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Snapshot<'_>) -> Result<T, SqliteError> + Send + 'static,
    ) -> Result<T, StatementError> {
        let _turn = self.inner.blocking_reads.acquire().await.expect("nobody closes the semaphore");
        let inner = self.inner.clone();
        let done = blocking::run(move |stop| {
            let reader = inner.idle().map_or_else(|| Reader::open(&inner.path).map(Box::new), Ok)?;
            inner.read(reader, &Interrupt::When(stop.clone()), Instant::now(), work)
        });
        Ok(done.await??)
    }

    /// Opens a connection for short reads where none is idle, and reads the schema, on a blocking thread.
    async fn open_reader(&self) -> Result<Box<Reader>, Error> {
        let _turn = self.inner.opening.lock().await;
        if let Some(reader) = self.inner.idle() {
            return Ok(reader);
        }
        let inner = self.inner.clone();
        let opened = blocking::run(move |stop| {
            let mut reader = Box::new(Reader::open(&inner.path)?);
            let schema = |reader: &Snapshot<'_>| {
                Ok(reader.connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?)
            };
            reader.read(&Interrupt::When(stop.clone()), Instant::now(), schema)?;
            Ok::<_, SqliteError>(reader)
        });
        Ok(opened.await??)
    }

    /// Starts the task that expires the snapshots kept by short reads, unless it runs.
    fn watch(&self) {
        if self.inner.is_watched.load(Ordering::Relaxed) || self.inner.is_watched.swap(true, Ordering::Relaxed) {
            return;
        }
        let inner = Arc::downgrade(&self.inner);
        self.inner.tasks.spawn("sqlite snapshots", async move {
            loop {
                tokio::time::sleep(reader::SNAPSHOT_LIFETIME).await;
                let Some(inner) = inner.upgrade() else { return };
                if !inner.expire() {
                    return;
                }
            }
        });
    }

    /// Starts a task that looks at the columns whose forms `statements` compare, as far as it is time for that.
    fn scan(&self, statements: &[Statement]) {
        let columns = if plain::have_plain(statements) { self.inner.plain.to_scan(statements) } else { return };
        if columns.is_empty() {
            return;
        }
        let store = self.clone();
        self.inner.tasks.spawn("sqlite forms", async move {
            for column in columns {
                let (scanned, start) = (column.clone(), Instant::now());
                let found = store.read_on_thread(move |reader| {
                    reader.connection.execute_batch("BEGIN")?;
                    let Some(header) = reader.header()? else { return Ok(None) };
                    Ok(Some((plain::scan(reader.connection, &scanned)?, header)))
                });
                // A column that cannot be read is none whose forms are known.
                let found = found.await.ok().flatten();
                store.inner.plain.scanned(column, start, found);
            }
            store.inner.plain.scanned_all();
        });
    }

    async fn lease(&self) -> WriterLease {
        WriterLease { writer: self.inner.writer.clone().lock_owned().await }
    }
}

impl SqliteInner {
    fn idle(&self) -> Option<Box<Reader>> {
        self.readers().pop()
    }

    /// Works with `reader`, which is idle after that.
    fn read<T>(
        &self,
        mut reader: Box<Reader>,
        interrupt: &Interrupt,
        now: Instant,
        work: impl FnOnce(&Snapshot<'_>) -> Result<T, SqliteError>,
    ) -> Result<T, SqliteError> {
        let done = reader.read(interrupt, now, work);
        if reader.finish() {
            self.readers().push(reader);
        }
        done
    }

    /// Expires the snapshots that are old; whether others are kept.
    fn expire(&self) -> bool {
        let mut readers = self.readers();
        let are_kept = readers.iter_mut().map(|reader| reader.expire()).filter(|is_kept| *is_kept).count() > 0;
        // Under the lock: a read that gives its reader back after this looks for a watcher after that.
        self.is_watched.store(are_kept, Ordering::Relaxed);
        are_kept
    }

    #[expect(clippy::vec_box, reason = "as above")]
    fn readers(&self) -> std::sync::MutexGuard<'_, Vec<Box<Reader>>> {
        self.readers.lock().expect("no code panics while it holds this lock")
    }
}

impl SqliteTx {
    /// Runs statements of the transaction in their order. The first that fails ends it.
    pub async fn run(&mut self, statements: &[Statement], budget: &Budget<'_>) -> Result<Vec<SqliteRows>, Error> {
        let (statements, room) = (statements.to_vec(), budget.row_room());
        let begins = !std::mem::replace(&mut self.has_begun, true);
        let (inner, begun) = (self.inner.clone(), self.begun);
        let work = move |writer: &Connection| {
            let begun = if begins {
                writer.execute_batch("BEGIN IMMEDIATE")?;
                inner.begun(writer)
            } else {
                begun
            };
            let is_plain = |statement: &Statement| inner.holds_plain(statement, begun.as_ref());
            Ok((run_all(writer, &statements, room, is_plain)?, begun))
        };
        let (rows, begun) = self.with_writer(work).await?;
        self.begun = begun;
        Ok(rows)
    }

    /// Commits.
    pub async fn commit(mut self) -> Result<(), Error> {
        if !self.has_begun {
            return Ok(());
        }
        let (inner, begun) = (self.inner.clone(), self.begun);
        let commit = move |writer: &Connection| {
            writer.execute_batch("COMMIT")?;
            inner.committed(writer, begun);
            Ok(())
        };
        self.with_writer(commit).await
    }

    /// Works on a blocking thread. A failure gives the writer back, and rolls back with that.
    async fn with_writer<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&Connection) -> Result<T, SqliteError> + Send + 'static,
    ) -> Result<T, Error> {
        let Some(mut lease) = self.lease.take() else {
            return Err(Error::Database("a statement after the transaction had failed".to_owned()));
        };
        let done = blocking::run(move |stop| {
            let done = interrupt_when(stop, &mut lease.writer, |writer| work(writer))?;
            Ok::<_, SqliteError>((done, lease))
        });
        let (done, lease) = done.await??;
        self.lease = Some(lease);
        Ok(done)
    }
}

impl Drop for WriterLease {
    fn drop(&mut self) {
        if self.writer.is_autocommit() {
            return;
        }
        // Nobody waits for it any more; a writer that cannot even roll back fails the next transaction's BEGIN.
        if let Err(error) = self.writer.execute_batch("ROLLBACK") {
            tracing::error!(%error, "roll back failed");
        }
    }
}

/// Works with `connection`, interrupting its statements when `stop` is due.
fn interrupt_when<T>(
    stop: &Stop,
    connection: &mut Connection,
    work: impl FnOnce(&mut Connection) -> Result<T, SqliteError>,
) -> Result<T, SqliteError> {
    CURRENT_STOP.set(Some(stop.clone()));
    connection.busy_handler(Some(on_busy))?;
    let is_due = {
        let stop = stop.clone();
        move || stop.is_due()
    };
    connection.progress_handler(PROGRESS_STEPS, Some(is_due))?;
    let done = work(connection);
    CURRENT_STOP.set(None);
    connection.progress_handler(0, None::<fn() -> bool>)?;
    done
}

/// Limit of the steps of a connection's statements, which it keeps from one short read to the next.
#[derive(Debug)]
struct StepLimit {
    /// Calls of the progress handler that are left; [`StepLimit::NONE`] for no limit.
    left: Arc<AtomicU32>,
}

impl StepLimit {
    const NONE: u32 = u32::MAX;

    /// Gives `connection` the handlers of short reads: it waits for no other process.
    fn install(connection: &mut Connection) -> Result<Self, SqliteError> {
        let left = Arc::new(AtomicU32::new(Self::NONE));
        let counter = left.clone();
        let is_over = move || match counter.load(Ordering::Relaxed) {
            Self::NONE => false,
            left => {
                let left = left.saturating_sub(1);
                counter.store(left, Ordering::Relaxed);
                left == 0
            }
        };
        connection.busy_timeout(Duration::ZERO)?;
        connection.progress_handler(PROGRESS_STEPS, Some(is_over))?;
        Ok(Self { left })
    }

    /// Sets the calls after which a statement is interrupted.
    fn set(&self, calls: u32) {
        self.left.store(calls, Ordering::Relaxed);
    }

    /// Removes the limit: what ends a transaction is not interrupted.
    fn lift(&self) {
        self.set(Self::NONE);
    }
}

/// Busy handler: whether a statement goes on waiting for another process, as it did `times` before.
fn on_busy(times: std::ffi::c_int) -> bool {
    let waited = BUSY_INTERVAL * times.unsigned_abs();
    let is_due = CURRENT_STOP.with_borrow(|stop| stop.as_ref().is_some_and(Stop::is_due));
    if is_due || waited >= BUSY_TIMEOUT {
        return false;
    }
    std::thread::sleep(BUSY_INTERVAL);
    true
}

/// Runs all statements, several of them in one read transaction, which [`Reader::finish`] ends: here the end might be
/// interrupted.
///
/// Returns whether they ran on values as they are stored, or nothing else was to be done.
fn snapshot(
    reader: &Snapshot<'_>,
    statements: &[Statement],
    room: Room,
    plain: &PlainColumns,
) -> Result<(Vec<SqliteRows>, bool), SqliteError> {
    let has_plain = plain::have_plain(statements);
    if (statements.len() > 1 || has_plain) && reader.connection.is_autocommit() {
        reader.connection.prepare_cached("BEGIN")?.execute([])?;
    }
    let is_plain = has_plain && reader.header()?.is_some_and(|header| plain.hold(statements, &header));
    let rows = run_all(reader.connection, statements, room, |_| is_plain)?;
    Ok((rows, is_plain || !has_plain))
}

/// Runs statements in their order, on values as they are stored where `is_plain`; their rows share the room.
fn run_all(
    connection: &Connection,
    statements: &[Statement],
    mut room: Room,
    is_plain: impl Fn(&Statement) -> bool,
) -> Result<Vec<SqliteRows>, SqliteError> {
    let mut all = Vec::with_capacity(statements.len());
    for statement in statements {
        let rows = run(connection, statement, room, is_plain(statement));
        let rows = rows.map_err(|failure| failure.of_statement(all.len()))?;
        room.bytes -= rows.size();
        all.push(rows);
    }
    Ok(all)
}

/// Runs a statement, on values as they are stored where `is_plain`.
fn run(connection: &Connection, statement: &Statement, room: Room, is_plain: bool) -> Result<SqliteRows, SqliteError> {
    let plain = statement.plain.as_ref().filter(|_| is_plain);
    let text = plain.map_or(&*statement.text, |plain| &*plain.text);
    run_text(connection, text, statement, room).map_err(|failure| failure.of_text(text))
}

fn run_text(connection: &Connection, text: &str, statement: &Statement, room: Room) -> Result<SqliteRows, SqliteError> {
    let mut prepared = connection.prepare_cached(text)?;
    for (index, value) in statement.args.iter().enumerate() {
        prepared.raw_bind_parameter(index + 1, value)?;
    }
    if statement.columns.is_empty() {
        return Ok(SqliteRows::affected(prepared.raw_execute()?));
    }
    SqliteRows::collect(statement.columns.clone(), prepared.raw_query(), room)
}
