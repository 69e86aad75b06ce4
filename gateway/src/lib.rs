//! The edge: one authorised path, and the protocols that end there.

pub mod catalogue;
pub mod config;
pub mod edge;
pub mod error;
pub mod graphql;
mod grpc;
pub mod http;
mod rest;
mod service;
mod target;
#[cfg(test)]
mod tests;

pub use catalogue::check;
pub use config::Config;
pub use http::{node_routes, server::serve};
pub use service::Service;
