//! Errors of crud, and the faults that callers see.

use mesh::{Code, Fault};

/// Error of the crud service.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// The operation does not fit the model or the schema.
    #[error(transparent)]
    Query(#[from] query::Error),
    /// No grant, or not the one that is needed.
    #[error("{0}")]
    Denied(String),
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
    /// A statement has more parts than the database takes.
    #[error("the request has more conditions or values than the database takes in one statement")]
    TooComplex,
    /// The answer has more rows than a level may have, or more bytes than an answer may have.
    #[error("{0}")]
    TooLarge(String),
    /// The statement names something that is no longer there: the schema moved.
    #[error("the schema of the database changed; try again")]
    SchemaMoved,
    /// The database cannot be reached, is busy or is shutting down. The text goes to the log only.
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

impl Error {
    /// The message of the driver, for the log; `None` where there is no more to say.
    pub fn cause(&self) -> Option<&str> {
        match self {
            Error::Unavailable(cause) | Error::Database(cause) | Error::Panicked(cause) => Some(cause),
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
            | Error::TooComplex
            | Error::TooLarge(_)
            | Error::Deadline
            | Error::SchemaMoved => None,
        }
    }

    fn code(&self) -> Code {
        match self {
            Error::Query(error) => Code::from(error),
            Error::Denied(_) => Code::Denied,
            Error::UnknownProject(_) => Code::UnknownProject,
            Error::UnknownDatabase(_) => Code::UnknownDatabase,
            Error::Conflict { .. } => Code::Conflict,
            Error::Constraint(_) | Error::NotNull(_) => Code::Constraint,
            Error::WrongType(_) => Code::WrongType,
            Error::OutOfRange(_) => Code::OutOfRange,
            Error::TooComplex => Code::TooComplex,
            Error::TooLarge(_) => Code::TooLarge,
            Error::SchemaMoved | Error::Raced | Error::Unavailable(_) => Code::Unavailable,
            Error::Deadline => Code::Deadline,
            Error::Signature | Error::Database(_) | Error::Panicked(_) => Code::Internal,
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
    fn no_name_of_the_schema_is_told_but_those_of_the_request() {
        let unknown = query::Error::UnknownTable { table: "pair".to_owned(), nearest: Some("secret_pair".to_owned()) };
        assert_eq!(Fault::from(Error::Query(unknown)).message, "table pair is not in the database");
    }
}
