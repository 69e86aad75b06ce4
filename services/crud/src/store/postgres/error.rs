//! Errors of PostgreSQL and its driver, mapped to those of crud. Values of rows never get into a text.

use std::collections::HashMap;

use tokio_postgres::{
    error::{DbError, Severity},
    types::Type,
};

use super::bind::Unfit;
use crate::Error;

/// Columns of every unique key, by its table's and its own name.
pub type Keys = HashMap<(String, String), Vec<String>>;

/// Error of the server, the driver or a connection, before it is mapped to one of crud.
#[derive(Debug)]
pub enum PostgresError {
    /// The server or the driver failed.
    Driver(tokio_postgres::Error),
    /// Its rows are too large and not taken. More of them may come over the connection.
    Refused(Error),
    /// No connection could be made.
    Connect(String),
    /// A column of the answer has a type that must be cast to text by the statement.
    Undecodable {
        /// The column.
        column: String,
        /// Its type.
        native: String,
    },
}

impl From<tokio_postgres::Error> for PostgresError {
    fn from(error: tokio_postgres::Error) -> Self {
        PostgresError::Driver(error)
    }
}

impl PostgresError {
    /// A column of the answer that has no decoder.
    pub fn undecodable(column: &str, ty: &Type) -> Self {
        PostgresError::Undecodable { column: column.to_owned(), native: ty.name().to_owned() }
    }

    /// The connection died under the statement: what is idempotent may be sent again over another.
    pub fn is_lost(&self) -> bool {
        let PostgresError::Driver(error) = self else { return false };
        match error.as_db_error() {
            Some(error) => is_shutdown(error.code().code()),
            None => error.is_closed() || is_io(error),
        }
    }

    /// Nothing more can be sent over the connection.
    pub fn is_fatal(&self) -> bool {
        let PostgresError::Driver(error) = self else { return false };
        match error.as_db_error() {
            Some(error) => {
                matches!(error.parsed_severity(), Some(Severity::Fatal | Severity::Panic))
                    || is_shutdown(error.code().code())
            }
            None => unfit(error).is_none(),
        }
    }

    /// The server's statements are older than its tables.
    pub fn is_stale(&self) -> bool {
        let PostgresError::Driver(error) = self else { return false };
        error.as_db_error().is_some_and(is_stale)
    }

    /// The error as callers of `database` see it.
    pub fn into_error(self, database: &str, keys: &Keys) -> Error {
        match self {
            PostgresError::Refused(error) => error,
            PostgresError::Connect(cause) => unavailable(database, &cause),
            PostgresError::Undecodable { column, native } => {
                Error::Database(format!("column {column} of type {native} is not cast to text by its statement"))
            }
            PostgresError::Driver(error) => match error.as_db_error() {
                Some(error) => refused(error, database, keys),
                None => match unfit(&error) {
                    Some(unfit) => Error::WrongType(unfit.to_string()),
                    None if error.is_closed() || is_io(&error) => unavailable(database, &chain(&error)),
                    None => Error::Database(chain(&error)),
                },
            },
        }
    }
}

/// An error and what caused it, in one line, for the log.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn is_io(error: &tokio_postgres::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<std::io::Error>())
}

fn unfit(error: &tokio_postgres::Error) -> Option<&Unfit> {
    std::error::Error::source(error)?.downcast_ref()
}

/// `57P01` to `57P05`: the server or the session is being shut down; class 08: the connection failed.
fn is_shutdown(code: &str) -> bool {
    code.starts_with("57P") || code.starts_with("08")
}

/// A table, column, type or function is gone or has another type than the statement was made for.
fn is_stale(error: &DbError) -> bool {
    match error.code().code() {
        "42703" | "42P01" | "42704" | "42804" | "3F000" | "26000" => true,
        // "cached plan must not change result type" has no code of its own. Servers translate the text, but not the
        // name of the routine that says it.
        "0A000" => error.routine() == Some("RevalidateCachedQuery") || error.message().contains("cached plan"),
        _ => false,
    }
}

/// The error of an SQLSTATE. Source: PostgreSQL manual, appendix A.
fn refused(error: &DbError, database: &str, keys: &Keys) -> Error {
    if is_stale(error) {
        return Error::SchemaMoved;
    }
    let code = error.code().code();
    match code {
        "23505" => Error::Conflict { columns: conflict(error, keys) },
        "23502" => match error.column() {
            Some(column) => Error::NotNull(column.to_owned()),
            None => Error::Constraint("a column must not be null".to_owned()),
        },
        "23503" => Error::Constraint(constraint("foreign key", error)),
        "23514" => Error::Constraint(constraint("check", error)),
        "23P01" => Error::Constraint(constraint("exclusion constraint", error)),
        "44000" => Error::Constraint("the row would not be in the view it is written through".to_owned()),
        "P0001" => Error::Constraint("a trigger or function of the database refused the row".to_owned()),
        "22001" => Error::OutOfRange("a string is too long for its column".to_owned()),
        "22003" => Error::OutOfRange("a number is out of range of its column".to_owned()),
        "22007" | "22008" => Error::WrongType("a date or time is malformed or out of range".to_owned()),
        "22012" => Error::WrongType("a division by zero".to_owned()),
        "22021" => Error::WrongType("a string has characters that the database cannot store".to_owned()),
        "42883" => Error::WrongType("a column cannot be compared or sorted that way".to_owned()),
        "22P02" | "22P03" => Error::WrongType("a value is malformed for the type of its column".to_owned()),
        _ if is_transient(code) => unavailable(database, &spoken(error)),
        _ if code.starts_with("22") => Error::WrongType("a value does not fit its column".to_owned()),
        _ if code.starts_with("23") => Error::Constraint(constraint("constraint", error)),
        _ => Error::Database(spoken(error)),
    }
}

/// Whether a retry may succeed: shutdown, resources, a lost race, a standby, a statement ended from outside.
fn is_transient(code: &str) -> bool {
    let exact = ["40001", "40P01", "55P03", "57014", "25006", "25P03"];
    is_shutdown(code) || code.starts_with("53") || exact.contains(&code)
}

/// Columns of the unique key that is violated: as introspection knows them, else as the server's detail names them.
fn conflict(error: &DbError, keys: &Keys) -> Vec<String> {
    let named = error.table().zip(error.constraint()).map(|(table, name)| (table.to_owned(), name.to_owned()));
    if let Some(columns) = named.and_then(|key| keys.get(&key)) {
        return columns.clone();
    }
    match error.detail().and_then(detail_columns) {
        Some(columns) => columns,
        None => error.constraint().map(|name| vec![name.to_owned()]).unwrap_or_default(),
    }
}

/// The columns in `Key (a, b)=(1, 2) already exists.`, in whatever language.
fn detail_columns(detail: &str) -> Option<Vec<String>> {
    let (_, rest) = detail.split_once('(')?;
    let (columns, _) = rest.split_once(")=(")?;
    Some(columns.split(", ").map(|column| column.trim_matches('"').to_owned()).collect())
}

fn constraint(kind: &str, error: &DbError) -> String {
    match (error.constraint(), error.table()) {
        (Some(name), Some(table)) => format!("{kind} {name} of table {table} does not hold"),
        (Some(name), None) => format!("{kind} {name} does not hold"),
        (None, _) => format!("a {kind} does not hold"),
    }
}

/// Code and message for the log; details and hints may carry values and stay out.
fn spoken(error: &DbError) -> String {
    format!("{} ({})", error.message(), error.code().code())
}

fn unavailable(database: &str, cause: &str) -> Error {
    Error::Unavailable(format!("{database}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_name_columns_in_any_language() {
        let columns = detail_columns("Key (a, b)=(1, (2)) already exists.").unwrap();
        assert_eq!(columns, ["a", "b"]);
        assert_eq!(detail_columns("Schlüssel »(name)=(x)« existiert bereits.").unwrap(), ["name"]);
        assert_eq!(detail_columns("Key (lower(email))=(x) already exists.").unwrap(), ["lower(email)"]);
        assert_eq!(detail_columns("something else"), None);
    }

    #[test]
    fn codes_that_pass_are_told_from_those_that_stay() {
        for code in ["57P01", "08006", "53300", "40001", "40P01", "57014"] {
            assert!(is_transient(code), "{code}");
        }
        for code in ["42501", "23505", "22P02", "XX000"] {
            assert!(!is_transient(code), "{code}");
        }
    }
}
