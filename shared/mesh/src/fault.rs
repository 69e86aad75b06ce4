//! Errors as they travel between services and to clients.

use std::{collections::HashMap, fmt::Display};

use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt};

use crate::call;

/// Who the reasons in an `ErrorInfo` belong to.
const DOMAIN: &str = "perigee";

/// The stable code of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// Body, header or argument malformed.
    BadRequest,
    /// The column is not known.
    UnknownColumn,
    /// The operator is not known.
    UnknownOperator,
    /// The argument is not known.
    UnknownArgument,
    /// The relation is not known.
    UnknownRelation,
    /// A value does not fit its column.
    WrongType,
    /// A value is too large for its column.
    OutOfRange,
    /// A required value is missing.
    Required,
    /// Update or delete of everything.
    WhereRequired,
    /// Too deep or too large.
    TooComplex,
    /// Foreign key, check, not null.
    Constraint,
    /// No token, bad token, expired.
    Unauthenticated,
    /// The token of a live query has expired.
    TokenExpired,
    /// A rule denies it.
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
    /// The path does not allow the method.
    Method,
    /// A unique constraint is violated.
    Conflict,
    /// The body or answer is too large.
    TooLarge,
    /// Too many requests; slow down.
    TooMany,
    /// An internal error; the log has the cause.
    Internal,
    /// A service or database cannot be reached; retry.
    Unavailable,
    /// The deadline has passed.
    Deadline,
    /// No such bucket.
    UnknownBucket,
    /// The file is not as the caller said that it must be.
    Precondition,
    /// The media type is not allowed.
    UnsupportedType,
    /// No part of the file is in the range.
    Range,
    /// The disk is full, or cannot be written.
    Full,
    /// User code said no.
    Function,
    /// A target broke off, redirected, or answered something else than it may.
    BadGateway,
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
    /// Every code, in the order of their HTTP statuses.
    pub const ALL: [Code; 33] = [
        Code::BadRequest,
        Code::UnknownColumn,
        Code::UnknownOperator,
        Code::UnknownArgument,
        Code::UnknownRelation,
        Code::WrongType,
        Code::OutOfRange,
        Code::Required,
        Code::WhereRequired,
        Code::TooComplex,
        Code::Constraint,
        Code::Unauthenticated,
        Code::TokenExpired,
        Code::Denied,
        Code::UnknownProject,
        Code::UnknownDatabase,
        Code::UnknownTable,
        Code::UnknownQuery,
        Code::UnknownBucket,
        Code::NotFound,
        Code::Method,
        Code::Conflict,
        Code::Precondition,
        Code::TooLarge,
        Code::UnsupportedType,
        Code::Range,
        Code::TooMany,
        Code::Internal,
        Code::Function,
        Code::BadGateway,
        Code::Unavailable,
        Code::Deadline,
        Code::Full,
    ];

    /// Whether it says that the caller may not, as they are.
    pub fn is_denial(self) -> bool {
        matches!(self, Code::Denied | Code::Unauthenticated)
    }

    /// `UNKNOWN_TABLE` and so on.
    pub fn as_str(self) -> &'static str {
        self.mapping().0
    }

    /// The code called `text`.
    pub fn parse(text: &str) -> Option<Code> {
        Code::ALL.into_iter().find(|code| code.as_str() == text)
    }

    /// The HTTP status it goes with.
    pub fn http(self) -> u16 {
        self.mapping().1
    }

    /// The gRPC code it goes with.
    pub fn grpc(self) -> tonic::Code {
        self.mapping().2
    }

    /// Name, HTTP status and gRPC code.
    fn mapping(self) -> (&'static str, u16, tonic::Code) {
        use tonic::Code as Grpc;
        match self {
            Code::BadRequest => ("BAD_REQUEST", 400, Grpc::InvalidArgument),
            Code::UnknownColumn => ("UNKNOWN_COLUMN", 400, Grpc::InvalidArgument),
            Code::UnknownOperator => ("UNKNOWN_OPERATOR", 400, Grpc::InvalidArgument),
            Code::UnknownArgument => ("UNKNOWN_ARGUMENT", 400, Grpc::InvalidArgument),
            Code::UnknownRelation => ("UNKNOWN_RELATION", 400, Grpc::InvalidArgument),
            Code::WrongType => ("WRONG_TYPE", 400, Grpc::InvalidArgument),
            Code::OutOfRange => ("OUT_OF_RANGE", 400, Grpc::InvalidArgument),
            Code::Required => ("REQUIRED", 400, Grpc::InvalidArgument),
            Code::WhereRequired => ("WHERE_REQUIRED", 400, Grpc::FailedPrecondition),
            Code::TooComplex => ("TOO_COMPLEX", 400, Grpc::InvalidArgument),
            Code::Constraint => ("CONSTRAINT", 400, Grpc::FailedPrecondition),
            Code::Unauthenticated => ("UNAUTHENTICATED", 401, Grpc::Unauthenticated),
            Code::TokenExpired => ("TOKEN_EXPIRED", 401, Grpc::Unauthenticated),
            Code::Denied => ("DENIED", 403, Grpc::PermissionDenied),
            Code::UnknownProject => ("UNKNOWN_PROJECT", 404, Grpc::NotFound),
            Code::UnknownDatabase => ("UNKNOWN_DATABASE", 404, Grpc::NotFound),
            Code::UnknownTable => ("UNKNOWN_TABLE", 404, Grpc::NotFound),
            Code::UnknownQuery => ("UNKNOWN_QUERY", 404, Grpc::NotFound),
            Code::NotFound => ("NOT_FOUND", 404, Grpc::NotFound),
            Code::Method => ("METHOD", 405, Grpc::Unimplemented),
            Code::Conflict => ("CONFLICT", 409, Grpc::AlreadyExists),
            Code::TooLarge => ("TOO_LARGE", 413, Grpc::ResourceExhausted),
            Code::TooMany => ("TOO_MANY", 429, Grpc::ResourceExhausted),
            Code::Internal => ("INTERNAL", 500, Grpc::Internal),
            Code::Unavailable => ("UNAVAILABLE", 503, Grpc::Unavailable),
            Code::Deadline => ("DEADLINE", 504, Grpc::DeadlineExceeded),
            Code::UnknownBucket => ("UNKNOWN_BUCKET", 404, Grpc::NotFound),
            Code::Precondition => ("PRECONDITION", 412, Grpc::FailedPrecondition),
            Code::UnsupportedType => ("UNSUPPORTED_TYPE", 415, Grpc::InvalidArgument),
            Code::Range => ("RANGE", 416, Grpc::OutOfRange),
            Code::Full => ("FULL", 507, Grpc::ResourceExhausted),
            Code::Function => ("FUNCTION", 500, Grpc::Unknown),
            Code::BadGateway => ("BAD_GATEWAY", 502, Grpc::Unavailable),
        }
    }
}

impl Fault {
    /// A fault without details.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: Vec::new() }
    }

    /// Our own failure: `cause` goes to the log under the request's id, and only there; `message` to the caller.
    pub fn internal(message: impl Into<String>, cause: impl Display) -> Self {
        let message = message.into();
        let request_id = call::current_request_id();
        tracing::error!(request_id = request_id.as_deref(), %cause, what = message, "internal fault");
        Self::new(Code::Internal, message)
    }

    /// The fault with one more detail.
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.details.push((name.into(), value.into()));
        self
    }

    /// The detail called `name`.
    pub fn detail(&self, name: &str) -> Option<&str> {
        self.details.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// The message about an answer of more than `limit` bytes.
pub fn answer_too_large(limit: u64) -> String {
    format!("the answer is over the limit of {limit} bytes; ask for less with select, where or limit")
}

impl From<Fault> for Status {
    /// With `google.rpc.ErrorInfo`: reason is the code, domain `perigee`, metadata the details.
    fn from(fault: Fault) -> Self {
        let metadata: HashMap<String, String> = fault.details.into_iter().collect();
        let details = ErrorDetails::with_error_info(fault.code.as_str(), DOMAIN, metadata);
        Status::with_error_details(fault.code.grpc(), fault.message, details)
    }
}

impl From<Status> for Fault {
    /// By its `ErrorInfo`; without one by the gRPC code, and what is neither ours nor known is internal.
    fn from(status: Status) -> Self {
        if let Some(fault) = from_error_info(&status) {
            return fault;
        }
        match transport_code(&status) {
            Code::Internal => Fault::internal("a service failed", &status),
            code => Fault::new(code, status.message()),
        }
    }
}

impl From<&query::Error> for Code {
    fn from(error: &query::Error) -> Self {
        use query::Error;
        match error {
            Error::Malformed(_) => Code::BadRequest,
            Error::TooComplex { .. } => Code::TooComplex,
            Error::TooLong { .. } => Code::TooLarge,
            Error::UnknownTable { .. } => Code::UnknownTable,
            Error::UnknownColumn { .. } => Code::UnknownColumn,
            Error::UnknownRelation { .. } => Code::UnknownRelation,
            Error::UnknownOperator { .. } => Code::UnknownOperator,
            Error::UnknownArgument { .. } => Code::UnknownArgument,
            Error::WrongType { .. } => Code::WrongType,
            Error::OutOfRange { .. } => Code::OutOfRange,
            Error::Required(_) => Code::Required,
            Error::WhereRequired(_) => Code::WhereRequired,
            Error::Related { error, .. } => Code::from(&**error),
        }
    }
}

impl From<query::Error> for Fault {
    /// The fault of an invalid operation, with its message.
    fn from(error: query::Error) -> Self {
        Fault::new(Code::from(&error), error.to_string())
    }
}

/// The fault that `status` was made of, if it was made of one.
fn from_error_info(status: &Status) -> Option<Fault> {
    if status.details().is_empty() {
        return None;
    }
    let info = status.get_details_error_info().filter(|info| info.domain == DOMAIN)?;
    let code = Code::parse(&info.reason)?;
    let mut details: Vec<(String, String)> = info.metadata.into_iter().collect();
    details.sort();
    Some(Fault { code, message: status.message().to_owned(), details })
}

/// The code of a status that the transport made.
fn transport_code(status: &Status) -> Code {
    use tonic::Code as Grpc;
    match status.code() {
        Grpc::InvalidArgument => Code::BadRequest,
        Grpc::Unauthenticated => Code::Unauthenticated,
        Grpc::PermissionDenied => Code::Denied,
        Grpc::NotFound => Code::NotFound,
        Grpc::AlreadyExists => Code::Conflict,
        Grpc::FailedPrecondition => Code::Constraint,
        Grpc::Unimplemented => Code::Method,
        // tonic's words for a message over the limit of either side.
        Grpc::OutOfRange | Grpc::ResourceExhausted if status.message().contains("message length too large") => {
            Code::TooLarge
        }
        Grpc::ResourceExhausted => Code::TooMany,
        Grpc::Unavailable => Code::Unavailable,
        // A server that sees `grpc-timeout` pass answers Cancelled.
        Grpc::DeadlineExceeded | Grpc::Cancelled => Code::Deadline,
        Grpc::Ok | Grpc::Unknown | Grpc::OutOfRange | Grpc::Aborted | Grpc::Internal | Grpc::DataLoss => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_own_name() {
        for code in Code::ALL {
            assert_eq!(Code::parse(code.as_str()), Some(code));
        }
    }

    #[test]
    fn an_error_of_the_model_keeps_its_code_and_text() {
        let error = query::Error::Required("doc".to_owned());
        let (code, text) = (error.reason(), error.to_string());
        let fault = Fault::from(error);
        assert_eq!((fault.code.as_str(), fault.message), (code, text));
    }

    #[test]
    fn a_fault_survives_the_wire() {
        let fault = Fault::new(Code::Conflict, "a row with the same email exists").with("columns", "email");
        let status = Status::from(fault.clone());
        assert_eq!(status.code(), tonic::Code::AlreadyExists);
        assert_eq!(Fault::from(status), fault);
    }

    #[test]
    fn a_foreign_status_is_told_by_its_grpc_code() {
        let told = |code| Fault::from(Status::new(code, "x")).code;
        assert_eq!(told(tonic::Code::InvalidArgument), Code::BadRequest);
        assert_eq!(told(tonic::Code::Cancelled), Code::Deadline);
        assert_eq!(told(tonic::Code::Unimplemented), Code::Method);
        assert_eq!(told(tonic::Code::Unavailable), Code::Unavailable);
        assert_eq!(told(tonic::Code::ResourceExhausted), Code::TooMany);
        assert_eq!(told(tonic::Code::DataLoss), Code::Internal);
    }

    #[test]
    fn a_message_over_the_limit_is_too_large() {
        let text = "Error, decoded message length too large: found 5 bytes, the limit is: 4 bytes";
        assert_eq!(Fault::from(Status::out_of_range(text)).code, Code::TooLarge);
    }

    #[test]
    fn the_text_of_a_foreign_failure_stays_here() {
        let fault = Fault::from(Status::unknown("password=secret in driver text"));
        assert_eq!(fault, Fault::new(Code::Internal, "a service failed"));
    }
}
