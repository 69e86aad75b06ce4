//! Why a request is not granted, and why a token is not signed.

use mesh::{Code, Fault};

use crate::token;

/// What this service answers instead of grants or a token.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such project.
    #[error("project {0} is not known")]
    UnknownProject(String),
    /// The access needs a valid token.
    #[error("{reason}")]
    Unauthenticated {
        /// What is wrong with the caller's.
        reason: token::Error,
        /// Which access.
        access: usize,
    },
    /// The rules say no.
    #[error("{message}")]
    Denied {
        /// For the caller.
        message: String,
        /// Which access.
        access: usize,
    },
    /// The request is no request.
    #[error(transparent)]
    Malformed(#[from] query::Error),
    /// The project has no key that signs.
    #[error("project {0} has no key to sign tokens with: add one to its tokens")]
    NoKey(String),
    /// The development key cannot be read or made.
    #[error("the development key: {0}")]
    DevKey(#[from] std::io::Error),
    /// The token cannot be signed.
    #[error("the token cannot be signed: {0}")]
    Sign(#[source] jsonwebtoken::errors::Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let (code, access) = match &error {
            Error::UnknownProject(_) => (Code::UnknownProject, None),
            Error::Unauthenticated { access, .. } => (Code::Unauthenticated, Some(*access)),
            Error::Denied { access, .. } => (Code::Denied, Some(*access)),
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
