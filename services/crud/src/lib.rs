//! Rows in databases: compiles the operation model to SQL under grants, runs it, and writes the rows as JSON once.

#![cfg_attr(
    test,
    allow(clippy::large_futures, clippy::disallowed_methods, reason = "tests hold futures and tasks of their own")
)]

pub mod bind;
mod blocking;
mod budget;
pub mod cell;
mod changes;
mod config;
mod database;
mod databases;
mod decimal;
mod doctor;
pub mod error;
mod grant;
mod held_tables;
mod introspected;
mod invalid_column;
mod invalid_value;
mod json;
mod links;
mod mapping;
mod meters;
mod neighbour;
mod neighbours;
mod operand;
mod options;
mod prepared;
mod resolve;
mod service;
mod sql;
pub mod store;
mod tree;
mod write;

#[cfg(test)]
mod tests;

pub use config::{Config, DATABASE};
pub use databases::{introspect, survey};
pub use doctor::{diagnose, remove};
pub use error::Error;
pub use introspected::{Introspected, LeftOut};
pub use service::Service;
pub use store::diagnosis::{Diagnosis, Finding, NamedObject, Removal, Severity, WhileUsed};
pub use store::postgres::{OutwardKey, SchemaSize, Survey};
