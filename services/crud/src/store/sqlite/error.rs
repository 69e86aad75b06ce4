//! Errors of SQLite, mapped to those of this crate.

use rusqlite::{ErrorCode, ffi};

use crate::{Error, budget};

/// Error of a statement, before it is mapped to one of crud.
#[derive(Debug)]
pub enum SqliteError {
    /// The progress handler interrupted it.
    Interrupted,
    /// Its rows are too large; the limit of the answer that they are for.
    Full(u64),
    /// It failed.
    Failed(Error),
}

impl From<SqliteError> for Error {
    fn from(failure: SqliteError) -> Self {
        match failure {
            // What is interrupted for another reason is started again, or nobody waits for it.
            SqliteError::Interrupted => Error::Deadline,
            SqliteError::Full(limit) => budget::too_large(limit),
            SqliteError::Failed(error) => error,
        }
    }
}

impl From<Error> for SqliteError {
    fn from(error: Error) -> Self {
        SqliteError::Failed(error)
    }
}

impl From<rusqlite::Error> for SqliteError {
    fn from(error: rusqlite::Error) -> Self {
        match &error {
            rusqlite::Error::SqliteFailure(code, text) => failed(*code, text.as_deref().unwrap_or_default()),
            rusqlite::Error::SqlInputError { error: code, msg, .. } => failed(*code, msg),
            _ => SqliteError::Failed(Error::Database(error.to_string())),
        }
    }
}

fn failed(code: ffi::Error, text: &str) -> SqliteError {
    SqliteError::Failed(match code.code {
        ErrorCode::OperationInterrupted => return SqliteError::Interrupted,
        ErrorCode::ConstraintViolation => constraint(code.extended_code, text),
        ErrorCode::TypeMismatch => Error::WrongType("a value does not fit its column".to_owned()),
        ErrorCode::TooBig => Error::TooLarge("a value is too large for the database".to_owned()),
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::CannotOpen => {
            Error::Unavailable(format!("{code}: {text}"))
        }
        _ if text == "integer overflow" => Error::OutOfRange("a sum is out of range of its column".to_owned()),
        _ if is_too_complex(text) => Error::TooComplex,
        _ if text.starts_with("cannot modify ") => {
            Error::Query(query::Error::Malformed("the view has no way to write these columns".to_owned()))
        }
        _ if is_schema(text) => Error::SchemaMoved,
        _ => Error::Database(format!("{code}: {text}")),
    })
}

fn is_too_complex(text: &str) -> bool {
    ["too many SQL variables", "too many terms", "Expression tree is too large", "parser stack overflow"]
        .iter()
        .any(|part| text.contains(part))
}

fn is_schema(text: &str) -> bool {
    ["no such column", "no such table", "has no column named"].iter().any(|part| text.contains(part))
}

/// The error of a violated constraint. After the colon stand names of the schema, as in
/// `UNIQUE constraint failed: album.title, album.artist_id`.
fn constraint(code: i32, text: &str) -> Error {
    let named = text.split_once(": ").map_or("", |(_, names)| names);
    match code {
        ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_ROWID => {
            Error::Conflict { columns: named.split(", ").map(|name| column(name).to_owned()).collect() }
        }
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => Error::Constraint(
            "a foreign key is violated: it refers to a row that does not exist, or the row is still referred to"
                .to_owned(),
        ),
        ffi::SQLITE_CONSTRAINT_NOTNULL => Error::NotNull(column(named).to_owned()),
        ffi::SQLITE_CONSTRAINT_CHECK => Error::Constraint(format!("check {named} is violated")),
        ffi::SQLITE_CONSTRAINT_DATATYPE => {
            let wanted = text.rsplit_once(' ').map_or("", |(_, name)| name);
            Error::WrongType(format!("a value does not fit column {}", column(wanted)))
        }
        _ => Error::Constraint("a constraint of the database is violated".to_owned()),
    }
}

fn column(name: &str) -> &str {
    name.split_once('.').map_or(name, |(_, column)| column)
}
