//! Opens connections to a database file, and creates the file.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OpenFlags};

use super::{BUSY_TIMEOUT, SqliteError, form};
use crate::Error;

/// Prepared statements kept on one connection.
const STATEMENT_CACHE_CAPACITY: usize = 256;

/// Opens the writing connection.
pub fn writer(path: &Path) -> Result<Connection, Error> {
    let writer = connection(path, "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;");
    writer.map_err(|failure| at(path, failure))
}

/// Opens a read-only connection.
pub fn reader(path: &Path) -> Result<Connection, Error> {
    connection(path, "PRAGMA query_only = ON;").map_err(|failure| at(path, failure))
}

/// Opens a connection that may write, in whatever journal mode the file has.
pub fn plain(path: &Path) -> Result<Connection, Error> {
    connection(path, "").map_err(|failure| at(path, failure))
}

/// Creates the file where there is none: under another name first, so that a partial one is never taken for it.
pub fn create(path: &Path, init: &[PathBuf]) -> Result<(), Error> {
    if path.exists() {
        return Ok(());
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(|error| unavailable(folder, &error))?;
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}.draft", std::process::id()));
    let draft = PathBuf::from(draft);
    remove(&draft)?;
    let made = fill(&draft, init).and_then(|()| publish(&draft, path));
    remove(&draft)?;
    made
}

fn fill(draft: &Path, init: &[PathBuf]) -> Result<(), Error> {
    let connection = Connection::open(draft).map_err(|error| at(draft, error.into()))?;
    // Nobody reads the draft, and one that is cut short is thrown away.
    let quick = connection.execute_batch("PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF;");
    quick.map_err(|error| at(draft, error.into()))?;
    for file in init {
        let sql = fs::read_to_string(file).map_err(|error| unavailable(file, &error))?;
        let failed = |error| Error::Database(format!("{}: {error}", file.display()));
        connection.execute_batch(&sql).map_err(failed)?;
        if !connection.is_autocommit() {
            return Err(Error::Database(format!("{}: a transaction is left open", file.display())));
        }
    }
    connection.close().map_err(|(_, error)| at(draft, error.into()))
}

fn publish(draft: &Path, path: &Path) -> Result<(), Error> {
    // An empty database has no file until something is written.
    let file =
        fs::OpenOptions::new().append(true).create(true).open(draft).map_err(|error| unavailable(draft, &error))?;
    file.sync_all().map_err(|error| unavailable(draft, &error))?;
    // Unlike a rename, a link does not replace what another process made meanwhile.
    match fs::hard_link(draft, path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(_) => fs::rename(draft, path).map_err(|error| unavailable(path, &error)),
    }
}

fn remove(draft: &Path) -> Result<(), Error> {
    match fs::remove_file(draft) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(unavailable(draft, &error)),
        _ => Ok(()),
    }
}

fn connection(path: &Path, pragmas: &str) -> Result<Connection, SqliteError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE_CAPACITY);
    form::define(&connection)?;
    connection.execute_batch(pragmas)?;
    Ok(connection)
}

fn at(path: &Path, failure: SqliteError) -> Error {
    let error = Error::from(failure);
    let cause = error.cause().map_or_else(|| error.to_string(), str::to_owned);
    Error::Unavailable(format!("{}: {cause}", path.display()))
}

fn unavailable(path: &Path, error: &std::io::Error) -> Error {
    Error::Unavailable(format!("{}: {error}", path.display()))
}
