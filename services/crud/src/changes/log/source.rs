//! Source of a log: the capture of one database with images, and how far it has been read.

use std::sync::Arc;

use query::resources::Numbers;

use crate::{
    Error,
    store::{
        Store,
        log::{ImageWriter, LogLook, LogPosition},
        postgres::{Postgres, changes::images::ImageReader},
        sqlite::{Sqlite, log::LogReader},
    },
};

/// The capture of a database, and the point up to which its log is read. A clone reads by itself.
///
/// The futures of a server are boxed, as those of [`Store`].
#[derive(Debug, Clone)]
pub enum LogSource {
    /// The log in a file.
    Sqlite(Sqlite, Box<LogReader>),
    /// The log of a server.
    Postgres(Postgres, Box<ImageReader>),
}

impl LogSource {
    /// The source of a database of which nothing has been read yet.
    pub fn new(store: &Store) -> Self {
        match store {
            Store::Sqlite(store) => LogSource::Sqlite(store.clone(), Box::default()),
            Store::Postgres(store) => LogSource::Postgres(store.clone(), Box::default()),
        }
    }

    /// A source of the same tables that reads from a position on.
    pub fn at(&self, position: &LogPosition) -> Self {
        match self {
            LogSource::Sqlite(store, reader) => LogSource::Sqlite(store.clone(), Box::new(reader.at(position))),
            LogSource::Postgres(store, reader) => LogSource::Postgres(store.clone(), Box::new(reader.at(position))),
        }
    }

    /// Captures the changes of a table; the position after which the log has all of them.
    pub async fn capture(&mut self, table: &str, writer: Arc<ImageWriter>) -> Result<LogPosition, Error> {
        match self {
            LogSource::Sqlite(store, reader) => store.capture_log(reader, table, writer).await,
            LogSource::Postgres(store, reader) => Box::pin(store.capture_images(reader, table, writer)).await,
        }
    }

    /// Images of a table have the columns of `writer` from now on.
    pub fn describe(&mut self, table: &str, writer: Arc<ImageWriter>) {
        match self {
            LogSource::Sqlite(_, reader) => reader.describe(table, writer),
            LogSource::Postgres(_, reader) => reader.describe(table, writer),
        }
    }

    /// Ends the capture of all tables but `kept`, also that which a process before did not end. Without any, nothing of
    /// the log is left in the database.
    pub async fn release(&mut self, kept: &[String]) -> Result<(), Error> {
        match self {
            LogSource::Sqlite(store, reader) => store.release_log(reader, kept).await,
            LogSource::Postgres(store, reader) => Box::pin(store.release_images(reader, kept)).await,
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
            LogSource::Postgres(_, reader) => reader.position(),
        }
    }

    /// What was committed since the last look.
    pub async fn look(&mut self, numbers: Numbers) -> Result<LogLook, Error> {
        match self {
            LogSource::Sqlite(store, reader) => store.look(reader, numbers).await,
            LogSource::Postgres(store, reader) => Box::pin(store.changed_images(reader, numbers)).await,
        }
    }

    /// Waits until something may have been committed since the last look. Runs no statement.
    pub async fn commit_after(&self) {
        match self {
            LogSource::Sqlite(store, reader) => store.log_commit_after(reader).await,
            LogSource::Postgres(store, reader) => store.image_commit_after(reader).await,
        }
    }

    /// What is up to a position is kept elsewhere: whoever comes back finds it there. A source that keeps it for this reader
    /// alone may let it go; those by triggers keep changes for a time.
    pub fn confirm(&mut self, _position: &LogPosition) {
        match self {
            LogSource::Sqlite(..) | LogSource::Postgres(..) => {}
        }
    }
}
