//! The contracts between the services of the mesh and with clients: generated code and nothing else.

#![allow(missing_docs, clippy::allow_attributes_without_reason, reason = "generated from commented contracts")]

/// Values, filters, reads, mutations and schemas.
pub mod query {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("perigee.query.v1");
    }
}

/// Rows in databases.
pub mod crud {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("perigee.crud.v1");
    }
}

/// Who may do what.
pub mod auth {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("perigee.auth.v1");
    }
}

/// What clients call.
pub mod api {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("perigee.api.v1");
    }

    /// Descriptors of the public services, for reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/public.bin"));
}
