//! Errors of this service.

use std::time::Duration;

use mesh::{Code, Fault};
use proto::grant::Unverified;

use crate::client::SendError;

/// An error of this service.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The grant of the rule engine is not one.
    #[error(transparent)]
    Ungranted(#[from] Unverified),
    /// A grant is void, or there is none.
    #[error("invalid grant: {0}")]
    WrongGrant(&'static str),
    /// The resources of this node do not have the function that was granted.
    #[error("function {function} of service {service} is not known on this node")]
    Unknown {
        /// The service.
        service: String,
        /// The function.
        function: String,
    },
    /// The parameters do not fit what is made of them.
    #[error(transparent)]
    Parameters(#[from] query::Error),
    /// The parameters are too large.
    #[error("the parameters of {bytes} bytes are over the limit of {limit} bytes of the function")]
    LargeParameters {
        /// Their size.
        bytes: usize,
        /// The function's limit.
        limit: u64,
    },
    /// The answer is too large.
    #[error("the answer of the function is over the limit of {0} bytes")]
    LargeAnswer(u64),
    /// As many calls wait as may.
    #[error("too many calls of the function: {running} are running and {waiting} wait")]
    TooMany {
        /// Calls at once.
        running: u32,
        /// Calls that may wait.
        waiting: u32,
    },
    /// The time of the call is over.
    #[error("the function did not answer within {0:?}")]
    Deadline(Duration),
    /// Nobody listens, or its name is not known.
    #[error("No service available: service {service} cannot be reached")]
    Unreachable {
        /// The service.
        service: String,
        /// Why, for the log.
        cause: String,
    },
    /// It could not be reached so often that it is not called for a while.
    #[error(
        "No service available: service {service} cannot be reached, and function {function} is tried again in {left:?}"
    )]
    CircuitOpen {
        /// The service.
        service: String,
        /// The function.
        function: String,
        /// Time until then.
        left: Duration,
    },
    /// It has no worker.
    #[error("No service available: service {0} has no worker")]
    NoWorker(String),
    /// As many workers are registered as may.
    #[error("too many workers of the service: the limit is {0}")]
    TooManyWorkers(usize),
    /// The registration of a worker is malformed.
    #[error("invalid registration: {0}")]
    Registration(&'static str),
    /// A worker went while it ran a call.
    #[error("service disconnected")]
    Disconnected,
    /// It is at an address that is not allowed.
    #[error("service {0} is at an address that egress.allow does not list")]
    Forbidden(String),
    /// It broke off.
    #[error("service {service} broke off")]
    BrokeOff {
        /// The service.
        service: String,
        /// Why, for the log.
        cause: String,
    },
    /// It redirects.
    #[error("the function answered with a redirect (status {0}), which is not followed")]
    Redirect(u16),
    /// Its status is none of HTTP.
    #[error("the function answered with the invalid status {0}")]
    WrongStatus(u16),
    /// What it answered is no JSON.
    #[error("the function answered with status {0} and no valid JSON")]
    NotJson(u16),
    /// Its address cannot be made.
    #[error("the address of the function is invalid")]
    Address(String),
    /// The parameters are none that its method takes.
    #[error("invalid params: {0}")]
    Malformed(String),
    /// A list of parameters is too long.
    #[error("the list of {found} parameters is over the limit of {limit}")]
    ManyItems {
        /// Its length.
        found: usize,
        /// The limit.
        limit: usize,
    },
    /// A function of lists did not answer with as many items as it was sent.
    #[error("{}", wrong_batch(.found, .sent))]
    WrongBatch {
        /// Items that it answered with; `None`: no list.
        found: Option<usize>,
        /// Items that it was sent.
        sent: usize,
    },
    /// Its rule was asked of a list, and it takes none here, or the other way round: its document is being edited.
    #[error("the function is being edited, call it again")]
    Edited,
    /// The answer is not what the function's `output` says.
    #[error("the function answered what its output does not allow: {0}")]
    WrongOutput(String),
    /// A service of a gRPC server has no such method.
    #[error("service {service} has no method {function}")]
    NoMethod {
        /// The service.
        service: String,
        /// The function.
        function: String,
    },
    /// A method cannot be called so.
    #[error("function {function} {why}")]
    NotCallable {
        /// The function.
        function: String,
        /// Why not.
        why: &'static str,
    },
    /// The contract of a gRPC server is not known.
    #[error("No service available: the contract of service {service} is not known")]
    NoContract {
        /// The service.
        service: String,
        /// Why, for the log.
        cause: String,
    },
    /// A message of a gRPC server is none of its contract.
    #[error("the function answered with an invalid {message}: {cause}")]
    WrongMessage {
        /// Full name of the message.
        message: String,
        /// What is wrong.
        cause: String,
    },
    /// What a gRPC server says of a call, where that keeps its meaning.
    #[error("{text}")]
    Said {
        /// The code.
        code: Code,
        /// Its text.
        text: String,
    },
    /// This node has no HTTP client.
    #[error("functions cannot be called from this node")]
    NoClient(String),
}

impl Error {
    /// The error of a request that a server did not answer.
    pub fn unanswered(error: SendError, service: &str) -> Self {
        let service = service.to_owned();
        match error {
            SendError::Forbidden => Self::Forbidden(service),
            SendError::Unreachable(cause) => Self::Unreachable { service, cause },
            SendError::BrokeOff(cause) => Self::BrokeOff { service, cause },
        }
    }
}

fn wrong_batch(found: &Option<usize>, sent: &usize) -> String {
    match found {
        Some(found) => format!("the function answered with {found} items, and was sent {sent}"),
        None => format!("the function answered with no list, and was sent {sent} items"),
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        let code = match error {
            Error::Unknown { .. }
            | Error::CircuitOpen { .. }
            | Error::NoWorker(_)
            | Error::Disconnected
            | Error::Edited => Code::Unavailable,
            Error::Parameters(error) => return error.into(),
            Error::LargeParameters { .. } | Error::LargeAnswer(_) | Error::ManyItems { .. } => Code::TooLarge,
            Error::TooMany { .. } | Error::TooManyWorkers(_) => Code::TooMany,
            Error::Registration(_) => Code::BadRequest,
            Error::Deadline(_) => Code::Deadline,
            Error::Unreachable { service, cause } => {
                tracing::warn!(service, cause, "service cannot be reached");
                Code::Unavailable
            }
            Error::BrokeOff { service, cause } => {
                tracing::warn!(service, cause, "service broke off");
                Code::BadGateway
            }
            Error::Forbidden(service) => {
                tracing::warn!(service, "service is at an address that egress.allow does not list");
                Code::BadGateway
            }
            Error::Redirect(_)
            | Error::WrongStatus(_)
            | Error::NotJson(_)
            | Error::WrongMessage { .. }
            | Error::WrongBatch { .. }
            | Error::WrongOutput(_) => Code::BadGateway,
            Error::Malformed(_) | Error::NotCallable { .. } => Code::BadRequest,
            Error::NoMethod { .. } => Code::NotFound,
            Error::NoContract { service, cause } => {
                tracing::warn!(service, cause, "the contract of a service is not known");
                Code::Unavailable
            }
            Error::Said { code, .. } => code,
            Error::Ungranted(cause) => return Fault::internal("the request could not be authorised", cause),
            Error::WrongGrant(_) => return Fault::internal("the request could not be authorised", text),
            Error::Address(cause) | Error::NoClient(cause) => return Fault::internal(text, cause),
        };
        Fault::new(code, text)
    }
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        Fault::from(error).into()
    }
}
