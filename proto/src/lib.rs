//! The contracts between the services of the mesh and with clients: their messages, the links between services, and the
//! conversions between the words of contracts and the operation model.
//!
//! Services use the messages of [`crud`], [`auth`] and [`realtime`], which hold values of the model; within one process they pass as
//! they are, and [`carried::Codec`] converts them at a wire.

extern crate self as proto;

pub mod auth;
pub mod carried;
mod convert;
pub mod crud;
mod entries;
pub mod grant;
pub mod json;
pub mod link;
pub mod realtime;

/// Messages of calls of functions.
pub mod functions {
    pub use crate::wire::functions::v1::{work_request, work_response, *};

    /// Calls at once of a worker that does not say.
    pub const CAPACITY: u32 = 64;
    /// The most calls at once that a worker may say.
    pub const CAPACITY_MAX: u32 = 1000;
    /// Functions that a worker may name.
    pub const FUNCTIONS_MAX: usize = 1000;
    /// Items of a list of parameters.
    pub const ITEMS_MAX: usize = 1000;
    /// Custom events of a request.
    pub const EVENTS_MAX: usize = 1000;
    /// Bytes of the name of a request to queue events.
    pub const IDEMPOTENCY_KEY_BYTES: usize = 255;
}

/// Messages of files in buckets.
pub mod storage {
    pub use crate::{
        entries::EntriesDigest,
        wire::storage::v1::{checksum, get_response, put_request, *},
    };
}

pub use services::Links;

/// Messages as they are encoded. Only codecs need them.
#[allow(missing_docs, clippy::allow_attributes_without_reason, reason = "generated from commented contracts")]
pub mod wire {
    mod tree {
        include!(concat!(env!("OUT_DIR"), "/messages.rs"));
    }

    pub use tree::perigee::*;
}

/// The server traits of the internal services and links to them, generated from their contracts.
#[allow(missing_docs, clippy::allow_attributes_without_reason, reason = "generated from commented contracts")]
pub mod services {
    include!(concat!(env!("OUT_DIR"), "/services.rs"));
}

/// Contracts for clients.
#[allow(missing_docs, clippy::allow_attributes_without_reason, reason = "generated from commented contracts")]
pub mod api {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("perigee.api.v1");
    }

    /// Descriptors of the public services, for reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/public.bin"));
}

/// What clients of the predecessor speak.
#[allow(missing_docs, clippy::allow_attributes_without_reason, reason = "generated from commented contracts")]
pub mod predecessor {
    tonic::include_proto!("proto");
}
