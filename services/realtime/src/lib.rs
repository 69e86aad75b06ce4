//! Live changes of rows: what the callers of a watch may see of the changes of a table, in the order of the commits.

mod access;
mod config;
mod error;
mod image;
mod plan;
mod position;
mod schemas;
mod service;
mod watch;

pub use config::Config;
pub use error::Error;
pub use service::Service;
