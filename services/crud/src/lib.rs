//! Rows in databases: compiles the operation model to SQL under grants, runs it, and writes the rows as JSON once.

pub mod cell;
pub mod error;
pub mod store;

pub use error::Error;
