//! What can go wrong between an operation and its rows.

use mesh::Fault;

/// Why crud cannot answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operation does not fit the model or the schema.
    #[error(transparent)]
    Query(#[from] query::Error),
    /// No grant, or not the one that is needed.
    #[error("{0}")]
    Denied(String),
    /// The project has no such database.
    #[error("database {0} is not in the project")]
    UnknownDatabase(String),
    /// A unique constraint is violated.
    #[error("a row with the same {} exists", .columns.join(", "))]
    Conflict {
        /// Of the constraint.
        columns: Vec<String>,
    },
    /// Another constraint is violated.
    #[error("{0}")]
    Constraint(String),
    /// A bound value does not fit its column, says the database.
    #[error("{0}")]
    WrongType(String),
    /// The answer has more rows than a level may have.
    #[error("{0}")]
    TooLarge(String),
    /// The statement names something that is no longer there: the schema moved.
    #[error("the schema of the database changed")]
    SchemaMoved,
    /// The database cannot be reached or is shutting down. The text goes to the log only.
    #[error("database {database} cannot be reached")]
    Unavailable {
        /// Its id.
        database: String,
        /// What the driver says, for the log.
        cause: String,
    },
    /// The database failed. The text goes to the log only.
    #[error("the database failed")]
    Database(String),
}

impl From<Error> for Fault {
    fn from(_error: Error) -> Self {
        todo!()
    }
}
