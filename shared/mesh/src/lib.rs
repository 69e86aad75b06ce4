//! Infrastructure that all services share: links to other services, call context, faults, node configuration,
//! resources, health, tasks, telemetry. Tables and rules are not known here.

#![cfg_attr(
    test,
    allow(clippy::large_futures, clippy::disallowed_methods, reason = "tests hold futures and tasks of their own")
)]

pub mod batch;
pub mod bus;
pub mod cache;
pub mod call;
pub mod clock;
pub mod config;
pub mod contract;
mod deserialize;
pub mod egress;
pub mod fault;
pub mod follow;
pub mod health;
pub mod json_schema;
pub mod link;
pub mod listener;
mod meter;
pub mod resources;
pub mod seal;
pub mod server;
pub mod tasks;
pub mod telemetry;
mod yaml;

pub use call::Call;
pub use fault::{Code, Fault};
pub use health::{Component, ComponentState, Health};
pub use link::Mesh;
pub use tasks::Tasks;
