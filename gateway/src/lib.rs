//! API gateway: GraphQL, REST and gRPC on one port, authorized and forwarded to the database service.

#![cfg_attr(
    test,
    allow(clippy::large_futures, clippy::disallowed_methods, reason = "tests hold futures and tasks of their own")
)]

mod catalogue;
mod config;
mod edge;
mod error;
mod events;
mod files;
mod front;
mod function_answers;
mod graphql;
mod grpc;
mod http;
mod legacy;
mod live;
mod openapi;
mod pages;
mod plan;
mod rest;
mod service;
mod socket;
#[cfg(test)]
mod tests;
mod worker;
mod write;

pub use catalogue::{PROJECT, is_project_id};
pub use config::Config;
pub use front::{Front, node_routes, server::serve};
pub use service::Service;
