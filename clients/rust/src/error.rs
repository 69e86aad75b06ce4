//! Errors of a worker.

use tonic::{Code, Status};

/// Why a worker has ended, or is not connected.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address of the gateway is none.
    #[error("invalid address {0}: expected http://HOST:PORT or https://HOST:PORT (with the feature tls)")]
    Address(String),
    /// A worker has no function.
    #[error("a worker needs a function")]
    NoFunctions,
    /// The gateway refuses the worker, and would again.
    #[error("refused: {}", .0.message())]
    Refused(Status),
    /// The connection ended.
    #[error("disconnected: {}", .0.message())]
    Disconnected(Status),
}

impl Error {
    /// The error of a registration that was refused.
    pub(crate) fn refused(status: Status) -> Self {
        match status.code() {
            Code::InvalidArgument
            | Code::Unauthenticated
            | Code::PermissionDenied
            | Code::NotFound
            | Code::Unimplemented => Self::Refused(status),
            _ => Self::Disconnected(status),
        }
    }
}
