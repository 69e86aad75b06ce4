//! Errors of PostgreSQL and its driver, mapped to those of crud. Values of rows never get into a text.

use std::collections::HashMap;

use tokio_postgres::{error::DbError, types::Type};

use super::{bind::Unfit, sqlstate};
use crate::{
    Error,
    bind::Bind,
    error::StatementError,
    invalid_value::{InvalidKind, InvalidValue},
};

/// Columns of every unique key, by its table's and its own name.
pub type Keys = HashMap<(String, String), Vec<String>>;

/// Error of the server, the driver or a connection, before it is mapped to one of crud.
#[derive(Debug)]
pub enum PostgresError {
    /// The server or the driver failed.
    Driver(DriverError),
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

/// Error of the server or the driver.
#[derive(Debug)]
pub struct DriverError {
    error: tokio_postgres::Error,
    /// The statement that failed, of several.
    statement: Option<usize>,
    /// The value that was not taken, where it is known.
    value: Option<Bind>,
}

impl From<tokio_postgres::Error> for PostgresError {
    fn from(error: tokio_postgres::Error) -> Self {
        PostgresError::Driver(DriverError { error, statement: None, value: None })
    }
}

impl PostgresError {
    /// What the server says of the statement.
    pub fn db_error(&self) -> Option<&DbError> {
        let PostgresError::Driver(DriverError { error, .. }) = self else { return None };
        error.as_db_error()
    }

    /// A server behind this one cannot be reached.
    pub fn is_behind(&self) -> bool {
        self.db_error().is_some_and(sqlstate::is_behind)
    }

    /// The error of a statement with these arguments.
    pub fn of_args(error: tokio_postgres::Error, args: &[Bind]) -> Self {
        let at = error.as_db_error().and_then(sqlstate::placeholder).or_else(|| unfit(&error).map(|unfit| unfit.at));
        let value = at.and_then(|at| args.get(at)).cloned();
        PostgresError::Driver(DriverError { error, statement: None, value })
    }

    /// The error as one of the statement at an index.
    pub fn of_statement(self, index: usize) -> Self {
        match self {
            PostgresError::Driver(error) => PostgresError::Driver(DriverError { statement: Some(index), ..error }),
            other @ (PostgresError::Refused(_) | PostgresError::Connect(_) | PostgresError::Undecodable { .. }) => {
                other
            }
        }
    }

    /// A column of the answer that has no decoder.
    pub fn undecodable(column: &str, ty: &Type) -> Self {
        PostgresError::Undecodable { column: column.to_owned(), native: ty.name().to_owned() }
    }

    /// A statement that always has a row had none.
    pub fn unanswered() -> Self {
        PostgresError::Connect("the server did not answer with a row".to_owned())
    }

    /// The connection died under the statement: what is idempotent may be sent again over another.
    pub fn is_lost(&self) -> bool {
        let PostgresError::Driver(DriverError { error, .. }) = self else { return false };
        match error.as_db_error() {
            Some(error) => sqlstate::ends_connection(error),
            None => error.is_closed() || is_io(error),
        }
    }

    /// A statement failed that may not fail in another form.
    pub fn is_of_statements(&self) -> bool {
        match self {
            PostgresError::Driver(_) => !self.is_lost() && !self.is_stale() && !self.is_fatal(),
            PostgresError::Undecodable { .. } => true,
            PostgresError::Refused(_) | PostgresError::Connect(_) => false,
        }
    }

    /// Nothing more can be sent over the connection.
    pub fn is_fatal(&self) -> bool {
        let PostgresError::Driver(DriverError { error, .. }) = self else { return false };
        match error.as_db_error() {
            Some(error) => sqlstate::is_fatal(error) || sqlstate::ends_connection(error),
            None => unfit(error).is_none(),
        }
    }

    /// The server's statements are older than its tables.
    pub fn is_stale(&self) -> bool {
        self.db_error().is_some_and(sqlstate::is_stale)
    }

    /// The error as callers of `database` see it.
    pub fn into_error(self, database: &str, keys: &Keys) -> StatementError {
        match self {
            PostgresError::Refused(error) => error.into(),
            PostgresError::Connect(cause) => unavailable(database, &cause).into(),
            PostgresError::Undecodable { column, native } => {
                Error::Database(format!("column {column} of type {native} is not cast to text by its statement")).into()
            }
            PostgresError::Driver(DriverError { error, statement, value }) => {
                let error = match error.as_db_error() {
                    Some(error) => sqlstate::refused(error, value, database, keys),
                    None => match unfit(&error) {
                        Some(unfit) => Error::InvalidValue(InvalidValue {
                            kind: InvalidKind::OutOfRange,
                            value,
                            column: None,
                            said: Box::default(),
                            cause: unfit.to_string(),
                        }),
                        None if error.is_closed() || is_io(&error) => unavailable(database, &chain(&error)),
                        None => Error::Database(chain(&error)),
                    },
                };
                StatementError { error, statement }
            }
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

fn unavailable(database: &str, cause: &str) -> Error {
    Error::Unavailable(format!("{database}: {cause}"))
}
