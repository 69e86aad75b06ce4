//! Why custom events are not queued.

use std::time::Duration;

use mesh::{Code, Fault};

use super::queue::QueueError;

/// Why custom events are not queued.
#[derive(Debug, thiserror::Error)]
pub enum QueueRefusal {
    /// An event is malformed.
    #[error("{0}")]
    Malformed(String),
    /// There are too many in a request.
    #[error("{count} events are over the limit of {limit} events of a request")]
    ManyEvents {
        /// How many.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// They are too large.
    #[error("events of {bytes} bytes are over the limit of {limit} bytes")]
    LargeEvents {
        /// Their size, for each trigger.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The name of a request was that of another one.
    #[error("Idempotency-Key {0} was sent with another request within the last 24 hours")]
    OtherRequest(String),
    /// Too many events of a trigger wait.
    #[error("too many events of trigger {0} wait, try again later")]
    Crowded(String),
    /// Too many events of a trigger are delayed.
    #[error("too many events of trigger {0} are delayed, try again later")]
    ManyDelayed(String),
    /// Too many requests of a project have names.
    #[error(
        "the limit of {limit} requests with an Idempotency-Key of a project within 24 hours is reached, try again later"
    )]
    ManyNames {
        /// The limit.
        limit: i64,
    },
    /// Too many messages of a request.
    #[error(
        "events for {count} triggers are over the limit of {limit} of a request: each is one for each trigger of its type"
    )]
    ManyMessages {
        /// How many.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// Too many requests wait for answers.
    #[error("the limit of {limit} requests that wait for answers of triggers is reached, try again later")]
    ManyWait {
        /// The limit.
        limit: usize,
    },
    /// No trigger could deliver an event that was waited for.
    #[error("no trigger could deliver the event: {}", last(*.0))]
    Undelivered(Option<i64>),
    /// It takes too long to wait for an answer.
    #[error("no trigger answered within {0:?}")]
    Late(Duration),
    /// The queue is not open.
    #[error("the queue of events is not open, try again later")]
    NoQueue,
    /// The queue failed.
    #[error("the queue of events failed, try again later")]
    Queue(#[source] QueueError),
}

/// What a last answer was; what was in it is for operators.
fn last(code: Option<i64>) -> String {
    code.map_or_else(|| "nobody answered".to_owned(), |code| format!("the last answer had status {code}"))
}

impl From<QueueRefusal> for Fault {
    fn from(refusal: QueueRefusal) -> Self {
        let code = match &refusal {
            QueueRefusal::Malformed(_) => Code::BadRequest,
            QueueRefusal::ManyEvents { .. } | QueueRefusal::LargeEvents { .. } | QueueRefusal::ManyMessages { .. } => {
                Code::TooLarge
            }
            QueueRefusal::OtherRequest(_) => Code::Conflict,
            QueueRefusal::Crowded(_)
            | QueueRefusal::ManyDelayed(_)
            | QueueRefusal::ManyNames { .. }
            | QueueRefusal::ManyWait { .. } => Code::TooMany,
            QueueRefusal::Undelivered(_) => Code::BadGateway,
            QueueRefusal::Late(_) => Code::Deadline,
            QueueRefusal::NoQueue => Code::Unavailable,
            QueueRefusal::Queue(cause) => {
                tracing::warn!(?cause, "events are not queued");
                Code::Unavailable
            }
        };
        Fault::new(code, refusal.to_string())
    }
}
