//! The edge: one authorised path, and the protocols that end there.

pub mod catalogue;
pub mod edge;
