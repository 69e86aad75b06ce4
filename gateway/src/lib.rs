//! The edge: one authorised path, and the protocols that end there.

#![cfg_attr(test, allow(clippy::large_futures, reason = "a test moves its futures once"))]

mod catalogue;
mod config;
mod edge;
mod error;
mod graphql;
mod grpc;
mod http;
mod rest;
mod service;
mod target;
#[cfg(test)]
mod tests;
mod write;

pub use catalogue::{check, is_project_id};
pub use config::Config;
pub use http::{Front, node_routes, server::serve};
pub use service::Service;
