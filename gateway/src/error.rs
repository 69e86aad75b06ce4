//! Errors of the model as faults.

use mesh::{Code, Fault};

/// The fault that tells a client what is wrong with its operation.
pub fn query(error: query::Error) -> Fault {
    Fault::new(code(&error), error.to_string())
}

fn code(error: &query::Error) -> Code {
    use query::Error;
    match error {
        Error::Malformed(_) => Code::BadRequest,
        Error::TooComplex { .. } => Code::TooComplex,
        Error::UnknownTable { .. } => Code::UnknownTable,
        Error::UnknownColumn { .. } => Code::UnknownColumn,
        Error::UnknownRelation { .. } => Code::UnknownRelation,
        Error::UnknownOperator { .. } => Code::UnknownOperator,
        Error::UnknownArgument { .. } => Code::UnknownArgument,
        Error::WrongType { .. } => Code::WrongType,
        Error::OutOfRange { .. } => Code::OutOfRange,
        Error::Required(_) => Code::Required,
        Error::WhereRequired(_) => Code::WhereRequired,
        Error::Related { error, .. } => code(error),
    }
}

/// A request that is malformed in the way `message` says.
pub fn bad_request(message: impl Into<String>) -> Fault {
    Fault::new(Code::BadRequest, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_error_keeps_its_code_and_text() {
        let fault = query(query::Error::Required("doc".to_owned()));
        assert_eq!(fault.code, Code::Required);
        assert_eq!(fault.message, "doc is required");
    }
}
