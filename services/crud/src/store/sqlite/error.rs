//! Errors of SQLite, mapped to those of this crate.

use mesh::Code;
use rusqlite::{ErrorCode, ffi};

use crate::{
    Error, budget,
    error::StatementError,
    invalid_value::{InvalidKind, InvalidValue},
    store::identifier,
};

/// Said where `RESTRICT` refuses a change: SQLite makes a trigger of it.
const FOREIGN_KEY: &str = "FOREIGN KEY constraint failed";

/// Error of a statement, before it is mapped to one of crud.
#[derive(Debug)]
pub enum SqliteError {
    /// The progress handler interrupted it.
    Interrupted,
    /// Its rows are too large; the limit of the answer that they are for.
    Full(u64),
    /// It has to wait for another connection, or another process.
    Busy(String),
    /// It failed.
    Failed(Error),
    /// One of several statements failed: its index.
    OfStatement(usize, Error),
}

impl SqliteError {
    /// The error as one of the statement with this text.
    ///
    /// What a statement does not name is named by a trigger or a view: that is no sign of a schema that moved.
    pub fn of_text(self, text: &str) -> Self {
        match self {
            SqliteError::Failed(Error::SchemaMoved(cause)) if !names(text, missing(&cause)) => {
                SqliteError::Failed(Error::Database(format!("{cause}, in a trigger or view of the database")))
            }
            other => other,
        }
    }

    /// The error as one of the statement at an index.
    pub fn of_statement(self, index: usize) -> Self {
        match self {
            SqliteError::Failed(error) => SqliteError::OfStatement(index, error),
            other => other,
        }
    }
}

impl From<SqliteError> for StatementError {
    fn from(failure: SqliteError) -> Self {
        match failure {
            SqliteError::OfStatement(index, error) => StatementError { error, statement: Some(index) },
            other => Error::from(other).into(),
        }
    }
}

impl From<SqliteError> for Error {
    fn from(failure: SqliteError) -> Self {
        match failure {
            // What is interrupted for another reason is started again, or nobody waits for it.
            SqliteError::Interrupted => Error::Deadline,
            SqliteError::Full(limit) => budget::too_large(limit),
            SqliteError::Busy(cause) => {
                let text = "the database is busy: another program has its lock; try again";
                Error::refused(Code::Unavailable, text, cause)
            }
            SqliteError::Failed(error) | SqliteError::OfStatement(_, error) => error,
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
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => return SqliteError::Busy(format!("{code}: {text}")),
        ErrorCode::CannotOpen => Error::Unavailable(format!("{code}: {text}")),
        ErrorCode::ReadOnly if code.extended_code != ffi::SQLITE_READONLY_DBMOVED => {
            let refusal = "not allowed: the database takes no writes, it is read-only";
            Error::refused(Code::Denied, refusal, format!("{code}: {text}"))
        }
        ErrorCode::DiskFull => {
            Error::refused(Code::Unavailable, "the disk of the database is full", format!("{code}: {text}"))
        }
        ErrorCode::SchemaChanged => Error::StaleStatement(format!("{code}: {text}")),
        _ if text == "integer overflow" => Error::InvalidValue(InvalidValue {
            kind: InvalidKind::OutOfRange,
            value: None,
            column: None,
            said: Box::default(),
            cause: text.to_owned(),
        }),
        _ if is_too_complex(text) => Error::TooComplex,
        _ if text.starts_with("cannot modify ") => {
            Error::Query(query::Error::Malformed("the view has no way to write these columns".to_owned()))
        }
        _ if is_schema(text) => Error::SchemaMoved(text.to_owned()),
        _ if text.contains(UNKNOWN_COLLATION) => Error::WrongType(unknown_collation(text)),
        _ => Error::Database(format!("{code}: {text}")),
    })
}

fn is_too_complex(text: &str) -> bool {
    ["too many SQL variables", "too many terms", "Expression tree is too large", "parser stack overflow"]
        .iter()
        .any(|part| text.contains(part))
}

/// What SQLite says before the name of a collation that only another program defines.
const UNKNOWN_COLLATION: &str = "no such collation sequence: ";

fn unknown_collation(text: &str) -> String {
    let name = text.split_once(UNKNOWN_COLLATION).map_or("", |(_, rest)| rest);
    let name = name.split([' ', '\n']).next().unwrap_or_default();
    format!("a column cannot be compared or sorted: its collation {name} is not known to the server")
}

fn is_schema(text: &str) -> bool {
    ["no such column", "no such table", "has no column named"].iter().any(|part| text.contains(part))
}

/// The name in `no such table: main.note` and its like.
fn missing(cause: &str) -> &str {
    match cause.strip_prefix("table ").and_then(|rest| rest.split_once(" has no column named ")) {
        Some((table, _)) => table,
        None => cause.rsplit_once(": ").map_or(cause, |(_, name)| name),
    }
}

/// Whether a statement has `name` as an identifier: as a whole, or behind an alias or the name of its table.
fn names(text: &str, name: &str) -> bool {
    let has = |name: &str| text.contains(&identifier(name));
    match name.split_once('.') {
        // A statement of ours says nothing of the schema.
        Some(("main", _)) | None => has(name),
        Some((alias, column)) => has(name) || has(alias) && has(column),
    }
}

/// The error of a violated constraint. After the colon stand names of the schema, as in
/// `UNIQUE constraint failed: album.title, album.artist_id`.
fn constraint(code: i32, text: &str) -> Error {
    let named = text.split_once(": ").map_or("", |(_, names)| names);
    match code {
        ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_ROWID => {
            Error::Conflict { columns: named.split(", ").map(|name| column(name).to_owned()).collect() }
        }
        ffi::SQLITE_CONSTRAINT_TRIGGER if text != FOREIGN_KEY => Error::raised(Code::Constraint, text),
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY | ffi::SQLITE_CONSTRAINT_TRIGGER => Error::Constraint(
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_is_there_is_reached() {
        let told = |code: i32, text: &str| match Error::from(failed(ffi::Error::new(code), text)) {
            Error::Refused { code, text, .. } => (code, text),
            other => panic!("{other:?}"),
        };
        let (busy, text) = told(ffi::SQLITE_BUSY, "database is locked");
        assert!(busy == Code::Unavailable && text.contains("busy"), "{text}");
        let (full, text) = told(ffi::SQLITE_FULL, "database or disk is full");
        assert!(full == Code::Unavailable && text.contains("full"), "{text}");
        let (refused, text) = told(ffi::SQLITE_READONLY, "attempt to write a readonly database");
        assert!(refused == Code::Denied && text.contains("read-only"), "{text}");
    }

    #[test]
    fn what_a_statement_does_not_name_is_named_by_a_trigger_or_a_view() {
        let text = "INSERT INTO \"note\" (\"id\", \"a.b\") VALUES (?1, ?2) RETURNING \"note\".\"old\"";
        for own in [
            "no such table: note",
            "no such column: note.old",
            "table note has no column named a.b",
            "no such column: old",
            "no such column: a.b",
        ] {
            assert!(names(text, missing(own)), "{own}");
        }
        for other in [
            "no such table: main.audit_log",
            "no such table: main.note",
            "no such column: NEW.createdAt",
            "no such column: NEW.old",
            "table audit has no column named old",
        ] {
            assert!(!names(text, missing(other)), "{other}");
        }
    }
}
