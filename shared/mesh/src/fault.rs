//! Errors as they travel between services and to clients.

use tonic::Status;

/// The stable code of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// Body, header or argument malformed.
    BadRequest,
    /// Nobody knows the column.
    UnknownColumn,
    /// Nobody knows the operator.
    UnknownOperator,
    /// Nobody knows the argument.
    UnknownArgument,
    /// Nobody knows the relation.
    UnknownRelation,
    /// A value does not fit its column.
    WrongType,
    /// A value is too large for its column.
    OutOfRange,
    /// A value that must be there is not.
    Required,
    /// Update or delete of everything.
    WhereRequired,
    /// Too deep or too large.
    TooComplex,
    /// Foreign key, check, not null.
    Constraint,
    /// No token, bad token, expired.
    Unauthenticated,
    /// A rule said no.
    Denied,
    /// No such project.
    UnknownProject,
    /// No such database.
    UnknownDatabase,
    /// No such table.
    UnknownTable,
    /// No such prepared query.
    UnknownQuery,
    /// No such row, path or file.
    NotFound,
    /// The path knows other methods.
    Method,
    /// A unique constraint is violated.
    Conflict,
    /// The body or answer is too large.
    TooLarge,
    /// Slow down.
    TooMany,
    /// Our fault; the log has the cause.
    Internal,
    /// A service or database cannot be reached; retry.
    Unavailable,
    /// The time is over.
    Deadline,
}

/// An error with its stable code, a text for people and details for programs.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// For programs.
    pub code: Code,
    /// For people: lower case, no full stop, names the thing.
    pub message: String,
    /// More for programs: `columns` of a constraint, `access` index of a denial.
    pub details: Vec<(String, String)>,
}

impl Code {
    /// `UNKNOWN_TABLE` and so on.
    pub fn as_str(self) -> &'static str {
        todo!()
    }

    /// The code called `text`.
    pub fn parse(_text: &str) -> Option<Code> {
        todo!()
    }

    /// The HTTP status it goes with.
    pub fn http(self) -> u16 {
        todo!()
    }

    /// The gRPC code it goes with.
    pub fn grpc(self) -> tonic::Code {
        todo!()
    }
}

impl Fault {
    /// A fault without details.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: Vec::new() }
    }

    /// The detail called `name`.
    pub fn detail(&self, name: &str) -> Option<&str> {
        self.details.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl From<Fault> for Status {
    /// With `google.rpc.ErrorInfo`: reason is the code, domain `perigee`, metadata the details.
    fn from(_fault: Fault) -> Self {
        todo!()
    }
}

impl From<Status> for Fault {
    /// By its `ErrorInfo`; without one by the gRPC code, and what is neither ours nor known is internal.
    fn from(_status: Status) -> Self {
        todo!()
    }
}
