//! Functions of users: called over HTTP or on workers that dialled in, with the identity of their caller, within limits of
//! time, size and number. Events of changes of rows and of times, delivered to webhooks.
//!
//! Whether a caller may is decided elsewhere: a call comes with a grant of the rule engine. Addresses that a target's
//! name leads to are checked before one of them is dialled.

#![cfg_attr(
    test,
    allow(clippy::large_futures, clippy::disallowed_methods, reason = "tests hold futures and tasks of their own")
)]

mod answer;
mod backoff;
mod breaker;
mod client;
mod config;
mod error;
mod events;
mod limiter;
mod request;
mod retries;
mod service;
mod targets;
mod workers;

pub use config::Config;
pub use error::Error;
pub use events::{EventFilter, EventStatus, EventSummary, Queue, QueueError, TRIGGER};
pub use service::Service;
