//! Errors of this service.

use mesh::{Code, Fault};
use proto::grant::Unverified;

/// An error of this service.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such database in the project.
    #[error("database {0} is not known")]
    UnknownDatabase(String),
    /// The database has not been reached.
    #[error("database {0} cannot be reached")]
    Unreachable(String),
    /// The request cannot be watched.
    #[error("{0}")]
    Refused(String),
    /// The request does not fit the schema.
    #[error(transparent)]
    Malformed(#[from] query::Error),
    /// The grant of the rule engine is not one.
    #[error(transparent)]
    Ungranted(#[from] Unverified),
    /// The token has expired.
    #[error("the token has expired")]
    TokenExpired,
    /// Of another service.
    #[error("{0}")]
    Called(Fault),
    /// An answer of another service that cannot be read.
    #[error("the database service gave an answer that cannot be read")]
    Unreadable(String),
}

impl Error {
    /// Whether it says that the caller has no valid token.
    pub fn is_unauthenticated(&self) -> bool {
        matches!(self, Error::Called(fault) if fault.code == Code::Unauthenticated)
    }

    /// Whether what failed may succeed when it is tried again.
    pub fn may_pass(&self) -> bool {
        match self {
            Error::Called(fault) => matches!(fault.code, Code::Unavailable | Code::Deadline | Code::TooMany),
            Error::Unreachable(_) => true,
            Error::UnknownDatabase(_)
            | Error::Refused(_)
            | Error::Malformed(_)
            | Error::Ungranted(_)
            | Error::TokenExpired
            | Error::Unreadable(_) => false,
        }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Error::Called(fault)
    }
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        Error::Called(Fault::from(status))
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::UnknownDatabase(_) => Code::UnknownDatabase,
            Error::Unreachable(_) => Code::Unavailable,
            Error::Refused(_) => Code::BadRequest,
            Error::Malformed(inner) => Code::from(inner),
            Error::TokenExpired => Code::TokenExpired,
            Error::Called(fault) => return fault.clone(),
            Error::Ungranted(cause) => return Fault::internal("the watch could not be authorised", cause),
            Error::Unreadable(cause) => return Fault::internal(error.to_string(), cause),
        };
        Fault::new(code, error.to_string())
    }
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        Fault::from(error).into()
    }
}
