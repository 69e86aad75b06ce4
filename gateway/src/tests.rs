//! The edge as clients see it, over a database service and a rule engine that only pretend.

mod browser;
mod catalogue;
mod events;
mod front;
mod graphql;
mod grpc;
mod introspection;
mod kept_reads;
mod live;
mod live_shared;
mod openapi;
mod rest;
mod server;
pub(crate) mod stage;
