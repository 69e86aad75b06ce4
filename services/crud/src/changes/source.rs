//! Source of changes: the capture of one database, and how far it has been read.

use futures::{FutureExt, future};

use crate::{
    Error,
    store::{
        Changed, Store,
        mysql::{Mysql, binlog::BinlogReader},
        postgres::{Postgres, changes::Position},
        sqlite::{Sqlite, changes::Versions},
    },
};

/// The capture of a database and the point up to which its changes are known.
///
/// The futures of a server are boxed, as those of [`Store`].
#[derive(Debug)]
pub enum ChangeSource {
    /// Counting triggers of a file.
    Sqlite(Sqlite, Versions),
    /// The trigger log of a server.
    Postgres(Postgres, Position),
    /// The binary log of a server.
    Mysql(Mysql, Box<BinlogReader>),
}

impl ChangeSource {
    /// The source of a database of which nothing has been read yet.
    pub fn new(store: &Store) -> Self {
        match store {
            Store::Sqlite(store) => ChangeSource::Sqlite(store.clone(), Versions::default()),
            Store::Postgres(store) => ChangeSource::Postgres(store.clone(), Position::default()),
            Store::Mysql(store) => ChangeSource::Mysql(store.clone(), Box::default()),
        }
    }

    /// Captures the changes of a table from now on. Errors: it cannot be followed, or not now.
    pub async fn capture(&mut self, table: &str) -> Result<(), Error> {
        match self {
            ChangeSource::Sqlite(store, _) => store.capture(table).await,
            ChangeSource::Postgres(store, position) => Box::pin(store.capture(position, table)).await,
            ChangeSource::Mysql(store, reader) => Box::pin(store.capture_binlog(reader, table, None)).await.map(|_| ()),
        }
    }

    /// Ends the capture of all tables but `kept`, also that which a process before did not end. Without any, nothing of
    /// ours is left in the database.
    pub async fn release(&mut self, kept: &[String]) -> Result<(), Error> {
        match self {
            ChangeSource::Sqlite(store, _) => store.release(kept).await,
            ChangeSource::Postgres(store, position) => Box::pin(store.release(position, kept)).await,
            ChangeSource::Mysql(store, reader) => {
                store.release_binlog(reader, kept);
                Ok(())
            }
        }
    }

    /// What was changed by transactions that were committed since this was last asked.
    pub async fn changed(&mut self) -> Result<Changed, Error> {
        match self {
            ChangeSource::Sqlite(store, versions) => store.changes_since(versions).await,
            ChangeSource::Postgres(store, position) => Box::pin(store.changes_since(position)).await,
            ChangeSource::Mysql(store, reader) => Box::pin(store.changes_in_binlog(reader)).await,
        }
    }

    /// Keeps what is noted of changes from growing, beside all else. It ends with this source.
    pub fn pruning(&self) -> impl Future<Output = ()> + Send + use<> {
        match self {
            ChangeSource::Sqlite(..) | ChangeSource::Mysql(..) => future::pending().left_future(),
            ChangeSource::Postgres(store, position) => store.pruning(position).right_future(),
        }
    }

    /// Waits until something may have been committed since then. Runs no statement.
    pub async fn commit_after(&self) {
        match self {
            ChangeSource::Sqlite(store, versions) => store.commit_after(versions).await,
            ChangeSource::Postgres(store, position) => store.commit_after(position).await,
            ChangeSource::Mysql(_, reader) => reader.arrival().await,
        }
    }
}
