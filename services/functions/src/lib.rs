//! Functions of users: called over HTTP, by gRPC or on workers that dialled in, with the identity of their caller, within limits of
//! time, size and number. Events of changes of rows, of times and custom ones, delivered to webhooks and functions.
//!
//! Whether a caller may is decided elsewhere: a call comes with a grant of the rule engine. Addresses that a target's
//! name leads to are checked before one of them is dialled.

#![cfg_attr(
    test,
    allow(clippy::large_futures, clippy::disallowed_methods, reason = "tests hold futures and tasks of their own")
)]

mod answer;
mod answer_cache;
mod asked;
mod attempts;
mod backoff;
mod batch;
mod breaker;
mod client;
mod config;
mod conversions;
mod error;
mod events;
mod grpc;
mod health;
mod limiter;
mod request;
mod retries;
mod schemas;
mod service;
mod streams;
mod targets;
mod workers;

pub use config::Config;
pub use error::Error;
pub use events::{EventFilter, EventStatus, EventSummary, Queue, QueueError, TRIGGER};
pub use service::Service;
