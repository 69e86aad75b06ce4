//! Options of an answer, from the resources of its project and from the request.

use query::resources::Numbers;

use crate::budget::AnswerLimit;

/// Options of an answer: limits, and the form of its numbers.
#[derive(Debug, Clone, Copy)]
pub struct AnswerOptions {
    /// Rows that a read answers where the client gives no limit.
    pub limit: u64,
    /// JSON form of numbers that a double cannot hold.
    pub numbers: Numbers,
    /// Bytes that the answer may have.
    pub answer: AnswerLimit,
    /// Whether reads answer what they saw of the log.
    pub snapshot: bool,
}
