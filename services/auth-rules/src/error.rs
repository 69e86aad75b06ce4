//! Errors of authorization and of signing.

use mesh::{Code, Fault};

use crate::token::TokenError;

/// An error of this service.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such project.
    #[error("project {0} is not known")]
    UnknownProject(String),
    /// An access needs a valid token.
    #[error("{reason}{explanation}")]
    Unauthenticated {
        /// The reason why the caller's is not valid.
        reason: TokenError,
        /// In development, why one is needed; else empty.
        explanation: String,
        /// Its position in the request.
        access: usize,
    },
    /// The token that came with a question about its bearer is not valid.
    #[error("{0}")]
    InvalidToken(TokenError),
    /// The policies deny an access.
    #[error("{message}{explanation}")]
    Denied {
        /// The text for the caller.
        message: String,
        /// In development, the clause that denies; else empty.
        explanation: String,
        /// Its position in the request.
        access: usize,
    },
    /// The payload of a custom event is not what the schema of its type says.
    #[error("{message}")]
    Payload {
        /// The text for the caller.
        message: String,
        /// Its position in the request.
        access: usize,
    },
    /// A signed address is not good.
    #[error("{0}")]
    Signature(&'static str),
    /// The request is malformed.
    #[error(transparent)]
    Malformed(#[from] query::Error),
    /// The project has no signing key.
    #[error("project {0} has no signing key: add one to its tokens")]
    NoKey(String),
    /// The development key cannot be read or generated.
    #[error("development key: {0}")]
    DevKey(#[from] std::io::Error),
    /// The token cannot be signed.
    #[error("signing failed: {0}")]
    Sign(#[source] jsonwebtoken::errors::Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let (code, access) = match &error {
            Error::UnknownProject(_) => (Code::UnknownProject, None),
            Error::Unauthenticated { access, .. } => (Code::Unauthenticated, Some(*access)),
            Error::InvalidToken(_) => (Code::Unauthenticated, None),
            Error::Signature(_) => (Code::Denied, None),
            Error::Denied { access, .. } => (Code::Denied, Some(*access)),
            Error::Payload { access, .. } => (Code::BadRequest, Some(*access)),
            Error::Malformed(inner) => (Code::from(inner), None),
            Error::NoKey(_) | Error::DevKey(_) | Error::Sign(_) => (Code::Internal, None),
        };
        let mut fault = Fault::new(code, error.to_string());
        fault.details.extend(access.map(|access| ("access".to_owned(), access.to_string())));
        fault
    }
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        Fault::from(error).into()
    }
}
