//! The harness of the scenarios: a mesh in either shape on either engine, clients of every protocol, and cases as data
//! with one runner.

pub mod case;
pub mod client;
pub mod engine;
pub mod mesh;
pub mod operation;
pub mod process;
pub mod token;
