//! Errors of crud, and the faults that callers see.

use mesh::{Code, Fault};

use crate::invalid_value::InvalidValue;

/// Most characters of a text that the code of a database raises: it travels in headers.
const RAISED_CHARS_MAX: usize = 500;

/// Error of the crud service.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// The operation does not fit the model or the schema.
    #[error(transparent)]
    Query(#[from] query::Error),
    /// No grant, or not the one that is needed.
    #[error("{0}")]
    Denied(String),
    /// The grants are those of another operation. The text goes to the log only.
    #[error("the operation is not covered by its grants")]
    Ungranted(String),
    /// A grant was not signed with this node's key.
    #[error("the grants of this call cannot be verified")]
    Signature,
    /// There is no such project.
    #[error("project {0} does not exist")]
    UnknownProject(String),
    /// The project has no such database.
    #[error("database {0} is not in the project")]
    UnknownDatabase(String),
    /// A unique constraint is violated.
    #[error("a row with the same {} exists", .columns.join(", "))]
    Conflict {
        /// Columns of the constraint.
        columns: Vec<String>,
    },
    /// Another constraint is violated. The text is for the client.
    #[error("{0}")]
    Constraint(String),
    /// A column would be null that must not be.
    #[error("column {0} must not be null")]
    NotNull(String),
    /// Rows were written by others between two statements that must see the same ones. Nothing was written.
    #[error("the rows were changed meanwhile; try again")]
    Raced,
    /// A bound value does not fit its column, says the database. The text is for the client.
    #[error("{0}")]
    WrongType(String),
    /// A value is outside what its column can hold, says the database. The text is for the client.
    #[error("{0}")]
    OutOfRange(String),
    /// A value does not fit its column, says the database, before it is known which column that is.
    #[error("a value does not fit its column")]
    InvalidValue(InvalidValue),
    /// The database refused the statement for a reason that has a code of its own.
    #[error("{text}")]
    Refused {
        /// The code.
        code: Code,
        /// For the client.
        text: String,
        /// For the log, where the operator of the database may want to act.
        cause: Option<String>,
    },
    /// A view that keeps its rows has none yet: its name.
    #[error("a view that is read has no data yet; refresh it")]
    Unpopulated(String),
    /// A statement has more parts than the database takes.
    #[error("the request has more conditions or values than the database takes in one statement")]
    TooComplex,
    /// The answer has more rows than a level may have, or more bytes than an answer may have.
    #[error("{0}")]
    TooLarge(String),
    /// The statement names something that is no longer there: the schema moved. The text goes to the log only.
    #[error("the schema of the database changed; try again")]
    SchemaMoved(String),
    /// What the database prepared of the statement is older than the schema. The text goes to the log only.
    #[error("the schema of the database changed; try again")]
    StaleStatement(String),
    /// The database cannot be reached or is shutting down. The text goes to the log only.
    #[error("the database cannot be reached")]
    Unavailable(String),
    /// The deadline of the call passed.
    #[error("the time for this request is over")]
    Deadline,
    /// The database failed. The text goes to the log only.
    #[error("the database failed")]
    Database(String),
    /// Work of ours panicked. The text goes to the log only.
    #[error("the request could not be answered")]
    Panicked(String),
}

/// An error of one of several statements.
#[derive(Debug, Clone, PartialEq)]
pub struct StatementError {
    /// What went wrong.
    pub error: Error,
    /// The statement that failed; `None` where it is unknown, or no one's in particular.
    pub statement: Option<usize>,
}

impl From<Error> for StatementError {
    fn from(error: Error) -> Self {
        Self { error, statement: None }
    }
}

impl From<StatementError> for Error {
    fn from(failure: StatementError) -> Self {
        failure.error
    }
}

/// An error of the reads of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadError {
    /// What went wrong.
    pub error: Error,
    /// The read that it is about; `None` where it is about all of them.
    pub read: Option<usize>,
}

impl From<Error> for ReadError {
    fn from(error: Error) -> Self {
        Self { error, read: None }
    }
}

impl Error {
    /// The database's own code, a trigger or a function, raised an error with `text`.
    pub fn raised(code: Code, text: &str) -> Self {
        let text: String = text.chars().take(RAISED_CHARS_MAX).collect();
        let text = if text.is_empty() { "a trigger or function of the database refused it".to_owned() } else { text };
        Error::Refused { code, text, cause: None }
    }

    /// Live queries of a table are not possible; `why` is for the client.
    pub fn unfollowed(table: &str, why: &str) -> Self {
        Error::Query(query::Error::Malformed(format!("changes of {table} cannot be followed: {why}")))
    }

    /// The database refused the statement: `text` is for the client, `cause` for the log.
    pub fn refused(code: Code, text: &str, cause: String) -> Self {
        Error::Refused { code, text: text.to_owned(), cause: Some(cause) }
    }

    /// The message of the driver, for the log; `None` where there is no more to say.
    pub fn cause(&self) -> Option<&str> {
        match self {
            Error::Unavailable(cause)
            | Error::Ungranted(cause)
            | Error::Database(cause)
            | Error::Panicked(cause)
            | Error::SchemaMoved(cause)
            | Error::StaleStatement(cause) => Some(cause),
            Error::Refused { cause, .. } => cause.as_deref(),
            Error::Query(_)
            | Error::Denied(_)
            | Error::Signature
            | Error::UnknownProject(_)
            | Error::UnknownDatabase(_)
            | Error::Conflict { .. }
            | Error::Constraint(_)
            | Error::NotNull(_)
            | Error::Raced
            | Error::WrongType(_)
            | Error::OutOfRange(_)
            | Error::InvalidValue(_)
            | Error::Unpopulated(_)
            | Error::TooComplex
            | Error::TooLarge(_)
            | Error::Deadline => None,
        }
    }

    fn code(&self) -> Code {
        match self {
            Error::Query(error) => Code::from(error),
            Error::Denied(_) | Error::Ungranted(_) => Code::Denied,
            Error::UnknownProject(_) => Code::UnknownProject,
            Error::UnknownDatabase(_) => Code::UnknownDatabase,
            Error::Conflict { .. } => Code::Conflict,
            Error::Constraint(_) | Error::NotNull(_) => Code::Constraint,
            Error::WrongType(_) | Error::InvalidValue(_) => Code::WrongType,
            Error::Refused { code, .. } => *code,
            Error::OutOfRange(_) => Code::OutOfRange,
            Error::TooComplex => Code::TooComplex,
            Error::TooLarge(_) => Code::TooLarge,
            Error::SchemaMoved(_)
            | Error::StaleStatement(_)
            | Error::Raced
            | Error::Unavailable(_)
            | Error::Unpopulated(_) => Code::Unavailable,
            Error::Deadline => Code::Deadline,
            Error::Signature | Error::Database(_) | Error::Panicked(_) => Code::Internal,
        }
    }
}

impl From<ReadError> for Fault {
    fn from(ReadError { error, read }: ReadError) -> Self {
        let fault = Fault::from(error);
        match read {
            Some(read) => fault.with("read", read.to_string()),
            None => fault,
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let code = error.code();
        let error = without_hint(error);
        let mut fault = Fault::new(code, error.to_string());
        if let Error::Conflict { columns } = error {
            fault.details.push(("columns".to_owned(), columns.join(",")));
        }
        fault
    }
}

/// The error without the name that may have been meant: here nobody knows which names the caller may learn.
fn without_hint(error: Error) -> Error {
    use query::Error::{UnknownColumn, UnknownRelation, UnknownTable};
    match error {
        Error::Query(UnknownTable { table, .. }) => Error::Query(UnknownTable { table, nearest: None }),
        Error::Query(UnknownColumn { table, column, .. }) => {
            Error::Query(UnknownColumn { table, column, nearest: None })
        }
        Error::Query(UnknownRelation { table, relation, .. }) => {
            Error::Query(UnknownRelation { table, relation, nearest: None })
        }
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_raised_is_told_as_far_as_it_is_short() {
        let told = |text: &str| Fault::from(Error::raised(Code::Constraint, text)).message;
        assert_eq!(told("sold out"), "sold out");
        assert_eq!(told(&"ß".repeat(10_000)), "ß".repeat(500));
        assert_eq!(told(""), "a trigger or function of the database refused it");
    }

    #[test]
    fn no_name_of_the_schema_is_told_but_those_of_the_request() {
        let unknown = query::Error::UnknownTable { table: "pair".to_owned(), nearest: Some("secret_pair".to_owned()) };
        assert_eq!(Fault::from(Error::Query(unknown)).message, "table pair is not in the database");
    }
}
