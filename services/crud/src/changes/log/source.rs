//! Source of a log: the capture of one database with images, and how far it has been read.

use std::sync::Arc;

use proto::crud::Snapshot;
use query::resources::Numbers;

use crate::{
    Error,
    store::{
        Store,
        log::{ImageWriter, LogLag, LogLook, LogPosition},
        mysql::{Mysql, binlog::BinlogReader},
        postgres::{Postgres, changes::source::PostgresLog},
        sqlite::{Sqlite, log::LogReader},
    },
};

/// The capture of a database, and the point up to which its log is read.
///
/// The futures of a server are boxed, as those of [`Store`].
#[derive(Debug)]
pub enum LogSource {
    /// The log in a file.
    Sqlite(Sqlite, Box<LogReader>),
    /// The log of a server.
    Postgres(Postgres, Box<PostgresLog>),
    /// The binary log of a server.
    Mysql(Mysql, Box<BinlogReader>),
}

impl LogSource {
    /// The source of a database of which nothing has been read yet.
    pub fn new(store: &Store) -> Self {
        match store {
            Store::Sqlite(store) => LogSource::Sqlite(store.clone(), Box::default()),
            Store::Postgres(store) => LogSource::Postgres(store.clone(), Box::default()),
            Store::Mysql(store) => LogSource::Mysql(store.clone(), Box::default()),
        }
    }

    /// The source of the reader that is elected among those that share the database, by an election of this id.
    pub fn elected(store: &Store, election: String) -> Self {
        match Self::new(store) {
            LogSource::Postgres(store, _) => LogSource::Postgres(store, Box::new(PostgresLog::elected(election))),
            other @ (LogSource::Sqlite(..) | LogSource::Mysql(..)) => other,
        }
    }

    /// A source of the same tables that reads from a position on, by itself; `None` where only one may read the log.
    pub fn at(&self, position: &LogPosition) -> Option<Self> {
        Some(match self {
            LogSource::Sqlite(store, reader) => LogSource::Sqlite(store.clone(), Box::new(reader.at(position))),
            LogSource::Postgres(store, log) => LogSource::Postgres(store.clone(), Box::new(log.at(position)?)),
            LogSource::Mysql(store, reader) => LogSource::Mysql(store.clone(), Box::new(reader.at(position))),
        })
    }

    /// What is up to a position is taken for good: whoever comes back finds it here. A source that keeps what is not taken
    /// need not keep it any more.
    pub fn confirm(&mut self, position: &LogPosition) {
        match self {
            LogSource::Sqlite(..) | LogSource::Mysql(..) => {}
            LogSource::Postgres(_, log) => log.confirm(position),
        }
    }

    /// How far what was told is behind what was committed. A file is read whole with each look.
    pub fn lag(&self) -> LogLag {
        match self {
            LogSource::Sqlite(..) => LogLag::default(),
            LogSource::Mysql(_, reader) => reader.lag(),
            LogSource::Postgres(_, log) => log.lag(),
        }
    }

    /// Captures the changes of a table; the position after which the log has all of them.
    pub async fn capture(&mut self, table: &str, writer: Arc<ImageWriter>) -> Result<LogPosition, Error> {
        match self {
            LogSource::Sqlite(store, reader) => store.capture_log(reader, table, writer).await,
            LogSource::Postgres(store, log) => Box::pin(store.capture_log(log, table, writer)).await,
            LogSource::Mysql(store, reader) => Box::pin(store.capture_binlog(reader, table, Some(writer))).await,
        }
    }

    /// Images of a table have the columns of `writer` from now on.
    pub fn describe(&mut self, table: &str, writer: Arc<ImageWriter>) {
        match self {
            LogSource::Sqlite(_, reader) => reader.describe(table, writer),
            LogSource::Postgres(_, reader) => reader.describe(table, writer),
            LogSource::Mysql(_, reader) => reader.describe(table, writer),
        }
    }

    /// Ends the capture of all tables but `kept`, also that which a process before did not end. Without any, nothing of
    /// the log is left in the database.
    pub async fn release(&mut self, kept: &[String]) -> Result<(), Error> {
        match self {
            LogSource::Sqlite(store, reader) => store.release_log(reader, kept).await,
            LogSource::Postgres(store, log) => Box::pin(store.release_log(log, kept)).await,
            LogSource::Mysql(store, reader) => {
                store.release_binlog(reader, kept);
                Ok(())
            }
        }
    }

    /// Whether any table is captured, or was and its followers do not know yet that it is not.
    pub fn is_capturing(&self) -> bool {
        match self {
            LogSource::Sqlite(_, reader) => reader.position().is_some(),
            LogSource::Postgres(_, log) => log.is_capturing(),
            LogSource::Mysql(_, reader) => reader.position().is_some(),
        }
    }

    /// The position after the last look; `None` where nothing is captured.
    pub fn position(&self) -> Option<LogPosition> {
        match self {
            LogSource::Sqlite(_, reader) => reader.position(),
            LogSource::Postgres(_, reader) => reader.position(),
            LogSource::Mysql(_, reader) => reader.position(),
        }
    }

    /// As [`LogSource::position`], or later where a server has told since that nothing was committed that concerns us.
    pub fn passed(&self) -> Option<LogPosition> {
        match self {
            LogSource::Sqlite(_, reader) => reader.position(),
            LogSource::Postgres(_, log) => log.passed(),
            LogSource::Mysql(_, reader) => reader.position(),
        }
    }

    /// What sees all that was told, where positions do not say that.
    pub fn visible(&self) -> Option<Arc<Snapshot>> {
        match self {
            LogSource::Sqlite(..) | LogSource::Mysql(..) => None,
            LogSource::Postgres(_, log) => log.visible(),
        }
    }

    /// Whether what is committed arrives by itself: a look at few transactions costs about as much as one at none.
    pub fn is_streamed(&self) -> bool {
        match self {
            LogSource::Sqlite(..) => false,
            LogSource::Mysql(..) => true,
            LogSource::Postgres(_, log) => log.is_streamed(),
        }
    }

    /// What was committed since the last look.
    pub async fn look(&mut self, numbers: Numbers) -> Result<LogLook, Error> {
        match self {
            LogSource::Sqlite(store, reader) => store.look(reader, numbers).await,
            LogSource::Postgres(store, log) => Box::pin(store.look_at_log(log, numbers)).await,
            LogSource::Mysql(store, reader) => Box::pin(store.look_at_binlog(reader, numbers)).await,
        }
    }

    /// Waits until something may have been committed since the last look. Runs no statement.
    pub async fn commit_after(&self) {
        match self {
            LogSource::Sqlite(store, reader) => store.log_commit_after(reader).await,
            LogSource::Postgres(store, log) => Box::pin(store.log_commit_after(log)).await,
            LogSource::Mysql(_, reader) => reader.arrival().await,
        }
    }
}
