//! Live changes of rows: what the caller of a watch may see of the changes of a table, in the order of the commits.
//!
//! One stream of the log of a table is shared by all watches of the table. A watch reads the rows that there are and the
//! snapshot that saw them, and tells every transaction of the log that the snapshot does not see.

#![cfg_attr(
    test,
    allow(clippy::large_futures, clippy::disallowed_methods, reason = "tests hold futures and tasks of their own")
)]

mod access;
mod config;
mod error;
mod feed;
mod image;
mod memory;
mod plan;
mod position;
mod reread;
mod rights;
mod row_rights;
mod rules;
mod schemas;
mod service;
mod shared;
mod table_id;
mod watch;

#[cfg(test)]
mod tests;

pub use config::Config;
pub use error::Error;
pub use service::Service;
