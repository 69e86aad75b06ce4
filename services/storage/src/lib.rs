//! Files in buckets: taken in and handed out as streams, on a local folder, in memory, or in the object store of a cloud.
//!
//! What is acknowledged is there as a whole: a file becomes visible in one step, after all of its bytes were kept.

#![cfg_attr(
    test,
    allow(clippy::large_futures, clippy::disallowed_methods, reason = "tests hold futures and tasks of their own")
)]

mod backend;
mod buckets;
mod config;
mod content_type;
mod copy;
mod cursor;
mod error;
mod images;
mod list;
mod local;
mod object;
mod put;
mod quota;
mod read;
mod record;
mod remote;
mod resumable;
mod service;
#[cfg(test)]
mod tests;

pub use config::Config;
pub use error::Error;
pub use service::Service;

/// Characters of a name that nothing else has.
const NAME_CHARS: usize = 32;

/// A name that nothing else has.
fn random_name() -> String {
    format!("{:032x}", rand::random::<u128>())
}
