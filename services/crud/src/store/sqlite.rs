//! SQLite: short reads inline on the caller's thread, longer ones on blocking threads, one writer, write-ahead log.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use query::Schema;
use rusqlite::Connection;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, Semaphore};

use super::Statement;
use crate::Error;

mod bind;
mod failure;
mod group;
mod log;
mod open;
mod reader;
mod rows;
mod schema;
#[cfg(test)]
mod tests;

use failure::Failure;
use reader::Reader;
pub use rows::Rows;

/// How long a read may hold the runtime's thread before it is started again on a blocking one.
const INLINE: Duration = Duration::from_millis(1);
/// Steps of SQLite's machine between two looks at the clock: some microseconds.
const STEPS: std::ffi::c_int = 1000;
/// How long a statement on a blocking thread waits for another process that writes.
const BUSY: Duration = Duration::from_secs(5);
/// Reads on blocking threads at the same time; more wait.
const LONG_READS: usize = 8;

/// A database file.
#[derive(Debug, Clone)]
pub struct Sqlite {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    /// Idle connections for reading; as many as were ever needed at once.
    readers: Mutex<Vec<Reader>>,
    /// Somebody looks for snapshots that are old.
    is_watched: AtomicBool,
    writer: Arc<AsyncMutex<Connection>>,
    queue: group::Queue,
    long_reads: Semaphore,
}

/// A transaction on the writer.
#[derive(Debug)]
pub struct Tx {
    /// `None` only while statements run, and after one of them was abandoned.
    lease: Option<Lease>,
    has_begun: bool,
}

/// The writer, for as long as one transaction needs it; whatever is not committed when it ends is rolled back.
#[derive(Debug)]
struct Lease {
    writer: OwnedMutexGuard<Connection>,
}

/// When a running statement has to stop.
enum Stop {
    /// After this long, or rather than wait for another process.
    Budget(Duration),
    /// When nobody waits for it.
    Abandoned(Arc<AtomicBool>),
}

/// Says on drop that nobody waits.
struct Waiting(Arc<AtomicBool>);

impl Sqlite {
    /// Opens the file at `path`. Where there is none, it is made by the SQL files of `init`, as a whole or not at all.
    ///
    /// Blocks.
    pub fn open(path: &Path, init: &[PathBuf]) -> Result<Self, Error> {
        open::create(path, init)?;
        Self::existing(path)
    }

    /// Opens the file at `path`, which must be there.
    ///
    /// Blocks.
    pub fn existing(path: &Path) -> Result<Self, Error> {
        let writer = Arc::new(AsyncMutex::new(open::writer(path)?));
        let inner = Inner {
            path: path.to_owned(),
            readers: Mutex::default(),
            is_watched: AtomicBool::new(false),
            writer,
            queue: group::Queue::default(),
            long_reads: Semaphore::new(LONG_READS),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// See [`super::Store::snapshot`].
    pub async fn snapshot(&self, statements: &[Statement]) -> Result<Vec<Rows>, Error> {
        let done = self.inner.read(&Stop::Budget(INLINE), |reader| snapshot(reader, statements));
        self.watch();
        match done {
            // It takes long, or has to wait for another process.
            Err(Failure::Interrupted | Failure::Failed(Error::Unavailable(_))) => {}
            settled => return Ok(settled?),
        }
        let statements = statements.to_vec();
        Box::pin(self.read_long(move |reader| snapshot(reader, &statements))).await
    }

    /// See [`super::Store::write`].
    pub async fn write(&self, statement: &Statement) -> Result<Rows, Error> {
        let waiting = Waiting::new();
        let mut answer = self.inner.queue.add(statement.clone(), waiting.0.clone());
        let ended = |_| Error::Unavailable("the write was given up".to_owned());
        loop {
            // Whoever gets the writer first writes for those who wait for it; with very many, not for himself.
            let mut lease = tokio::select! {
                biased;
                answer = &mut answer => return answer.map_err(ended)?,
                lease = self.lease() => lease,
            };
            let inner = self.inner.clone();
            blocking(move || {
                group::perform(&mut lease.writer, inner.queue.take());
                Ok(())
            })
            .await?;
        }
    }

    /// See [`super::Store::begin`]. The transaction begins in the database with its first statement.
    pub async fn begin(&self) -> Result<Tx, Error> {
        Ok(Tx { lease: Some(self.lease().await), has_begun: false })
    }

    /// See [`super::Store::introspect`].
    pub async fn introspect(&self) -> Result<Schema, Error> {
        self.read_long(schema::introspect).await
    }

    /// See [`super::Store::schema_mark`].
    pub async fn schema_mark(&self) -> Result<Option<String>, Error> {
        let version =
            |reader: &Connection| Ok(reader.query_row("PRAGMA schema_version", [], |row| row.get::<_, i64>(0))?);
        let version = self.read_long(version).await?;
        Ok(Some(version.to_string()))
    }

    /// See [`super::Store::ping`].
    pub async fn ping(&self) -> Result<(), Error> {
        self.schema_mark().await.map(|_| ())
    }

    async fn read_long<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Error> {
        let _turn = self.inner.long_reads.acquire().await.expect("nobody closes the semaphore");
        let inner = self.inner.clone();
        let waiting = Waiting::new();
        let stop = waiting.stop();
        blocking(move || inner.read(&stop, work)).await
    }

    /// Sees to it that snapshots which short reads keep end when the reads do.
    fn watch(&self) {
        if self.inner.is_watched.load(Ordering::Relaxed) || self.inner.is_watched.swap(true, Ordering::Relaxed) {
            return;
        }
        let inner = Arc::downgrade(&self.inner);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(reader::LONGEST).await;
                let Some(inner) = inner.upgrade() else { return };
                if !inner.expire() {
                    return;
                }
            }
        });
    }

    async fn lease(&self) -> Lease {
        Lease { writer: self.inner.writer.clone().lock_owned().await }
    }
}

impl Inner {
    /// Works with an idle reader, or a new one.
    fn read<T>(&self, stop: &Stop, work: impl FnOnce(&Connection) -> Result<T, Failure>) -> Result<T, Failure> {
        let idle = self.readers().pop();
        let mut reader = match idle {
            Some(reader) => reader,
            None => Reader::open(&self.path)?,
        };
        let done = reader.read(stop, work);
        if reader.settle() {
            self.readers().push(reader);
        }
        done
    }

    /// Ends the snapshots that are old; whether there are others.
    fn expire(&self) -> bool {
        let mut readers = self.readers();
        let are_kept = readers.iter_mut().map(Reader::expire).filter(|is_kept| *is_kept).count() > 0;
        // Under the lock: a read that gives its reader back after this looks for a watcher after that.
        self.is_watched.store(are_kept, Ordering::Relaxed);
        are_kept
    }

    fn readers(&self) -> std::sync::MutexGuard<'_, Vec<Reader>> {
        self.readers.lock().expect("no code panics while it holds this lock")
    }
}

impl Tx {
    /// See [`super::Tx::run`].
    pub async fn run(&mut self, statements: &[Statement]) -> Result<Vec<Rows>, Error> {
        let statements = statements.to_vec();
        let begins = !std::mem::replace(&mut self.has_begun, true);
        self.with_writer(move |writer| {
            if begins {
                writer.execute_batch("BEGIN IMMEDIATE")?;
            }
            statements.iter().map(|statement| run(writer, statement)).collect()
        })
        .await
    }

    /// See [`super::Tx::commit`].
    pub async fn commit(mut self) -> Result<(), Error> {
        if !self.has_begun {
            return Ok(());
        }
        self.with_writer(|writer| Ok(writer.execute_batch("COMMIT")?)).await
    }

    /// Works on a blocking thread. A failure gives the writer back, and rolls back with that.
    async fn with_writer<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Error> {
        let Some(mut lease) = self.lease.take() else {
            return Err(Error::Database("a statement after the transaction had failed".to_owned()));
        };
        let waiting = Waiting::new();
        let stop = waiting.stop();
        let (done, lease) = blocking(move || {
            let done = stop.over(&mut lease.writer, |writer| work(writer))?;
            Ok((done, lease))
        })
        .await?;
        self.lease = Some(lease);
        Ok(done)
    }
}

impl Drop for Lease {
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

impl Stop {
    /// Works with `connection`, interrupting its statements when it is time.
    fn over<T>(
        &self,
        connection: &mut Connection,
        work: impl FnOnce(&mut Connection) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        match self {
            Stop::Budget(budget) => {
                let (start, budget) = (Instant::now(), *budget);
                connection.busy_timeout(Duration::ZERO)?;
                connection.progress_handler(STEPS, Some(move || start.elapsed() > budget))?;
            }
            Stop::Abandoned(abandoned) => {
                let abandoned = abandoned.clone();
                connection.busy_timeout(BUSY)?;
                connection.progress_handler(STEPS, Some(move || abandoned.load(Ordering::Relaxed)))?;
            }
        }
        let done = work(connection);
        connection.progress_handler(0, None::<fn() -> bool>)?;
        done
    }
}

impl Waiting {
    fn new() -> Self {
        Self(Arc::default())
    }

    fn stop(&self) -> Stop {
        Stop::Abandoned(self.0.clone())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// All statements, more than one of them in one read transaction, which [`Reader::settle`] ends: here it might be
/// interrupted.
fn snapshot(reader: &Connection, statements: &[Statement]) -> Result<Vec<Rows>, Failure> {
    if statements.len() > 1 && reader.is_autocommit() {
        reader.prepare_cached("BEGIN")?.execute([])?;
    }
    statements.iter().map(|statement| run(reader, statement)).collect()
}

fn run(connection: &Connection, statement: &Statement) -> Result<Rows, Failure> {
    let mut prepared = connection.prepare_cached(&statement.text)?;
    for (index, value) in statement.args.iter().enumerate() {
        prepared.raw_bind_parameter(index + 1, value)?;
    }
    if statement.columns.is_empty() {
        return Ok(Rows::affected(prepared.raw_execute()?));
    }
    Rows::collect(statement.columns.clone(), prepared.raw_query())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done?),
        Err(stopped) => Err(Error::Unavailable(stopped.to_string())),
    }
}
