//! The harness of the scenarios: a mesh in either shape on either engine, clients of every protocol, and cases as data
//! with one runner.

pub mod case;
pub mod client;
pub mod compose;
pub mod document;
pub mod echo;
pub mod engine;
pub mod event_stream;
pub mod graphql;
pub mod grpc_server;
pub mod json_socket;
pub mod mesh;
pub mod nats;
pub mod node_tool;
pub mod object_store;
pub mod operation;
pub mod process;
pub mod python_tool;
pub mod socket;
pub mod token;
pub mod tool;
pub mod user_server;
pub mod watching;
pub mod webhook;
pub mod worker;
pub mod worker_program;

/// Messages of contracts that only tests have.
#[allow(missing_docs, clippy::allow_attributes_without_reason, reason = "generated from commented contracts")]
pub mod wire {
    mod tree {
        include!(concat!(env!("OUT_DIR"), "/messages.rs"));
    }

    pub use tree::test::*;
}

/// The contract of a service of a user.
#[allow(
    missing_docs,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated from commented contracts"
)]
pub mod mail {
    include!(concat!(env!("OUT_DIR"), "/test.mail.v1.rs"));

    /// Its descriptors, as `protoc --include_imports` writes them.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/mail.bin"));
}

/// Services that only tests have.
#[allow(missing_docs, clippy::allow_attributes_without_reason, reason = "generated from commented contracts")]
pub mod services {
    include!(concat!(env!("OUT_DIR"), "/services.rs"));
}
