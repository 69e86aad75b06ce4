//! Source of a log: the capture of one database with images, and how far it has been read.

use query::{Schema, Table, resources::Numbers};

use crate::{
    Error,
    store::{
        Store,
        log::{LogLook, LogPosition},
        sqlite::{Sqlite, log::LogReader},
    },
};

/// The capture of a database, and the point up to which its log is read.
#[derive(Debug)]
pub enum LogSource {
    /// The log in a file.
    Sqlite(Sqlite, LogReader),
    /// None yet.
    None,
}

impl LogSource {
    /// The source of a database of which nothing has been read yet.
    pub fn new(store: &Store) -> Self {
        match store {
            Store::Sqlite(store) => LogSource::Sqlite(store.clone(), LogReader::default()),
            Store::Postgres(_) => LogSource::None,
        }
    }

    /// Captures the changes of a table; the position after which the log has all of them.
    pub async fn capture(&mut self, table: &Table) -> Result<LogPosition, Error> {
        match self {
            LogSource::Sqlite(store, reader) => store.capture_log(reader, table).await,
            LogSource::None => Err(Error::unfollowed(&table.name, "not on this engine yet")),
        }
    }

    /// Images have the columns of `schema` from now on.
    pub fn describe(&mut self, schema: &Schema) {
        match self {
            LogSource::Sqlite(_, reader) => reader.describe(schema),
            LogSource::None => {}
        }
    }

    /// Ends the capture of all tables but `kept`, also that which a process before did not end. Without any, nothing of
    /// the log is left in the database.
    pub async fn release(&mut self, kept: &[String]) -> Result<(), Error> {
        match self {
            LogSource::Sqlite(store, reader) => store.release_log(reader, kept).await,
            LogSource::None => Ok(()),
        }
    }

    /// Whether any table is captured.
    pub fn is_capturing(&self) -> bool {
        self.position().is_some()
    }

    /// The position after the last look; `None` where nothing is captured.
    pub fn position(&self) -> Option<LogPosition> {
        match self {
            LogSource::Sqlite(_, reader) => reader.position(),
            LogSource::None => None,
        }
    }

    /// What was committed since the last look.
    pub async fn look(&mut self, numbers: Numbers) -> Result<LogLook, Error> {
        match self {
            LogSource::Sqlite(store, reader) => store.look(reader, numbers).await,
            LogSource::None => Err(Error::Unavailable("no log".to_owned())),
        }
    }

    /// Waits until something may have been committed since the last look. Runs no statement.
    pub async fn commit_after(&self) {
        match self {
            LogSource::Sqlite(store, reader) => store.log_commit_after(reader).await,
            LogSource::None => std::future::pending().await,
        }
    }
}
