//! Messages of the service for live changes of rows.

use std::sync::Arc;

use query::{Field, Read};
use tonic::Status;

use crate::{
    carried::Carried,
    convert::{all, each, invalid, required},
    wire::realtime::v1 as wire,
};

pub use wire::{Ready, Resync, Row, WatchResponse, watch_response::Event};

/// Changes of the rows of one table that a caller may see.
#[derive(Debug, Clone, PartialEq)]
pub struct WatchRequest {
    /// The project's id.
    pub project: Arc<str>,
    /// The caller's token; empty where there is none.
    pub token: Arc<str>,
    /// The rows and what is told of them.
    pub read: Read,
    /// What is told of a row as it was; none given means the fields of `read`.
    pub before: Vec<Field>,
    /// The rows that there are at the beginning are not told.
    pub skip_initial: bool,
    /// The position to go on after; empty: from now on.
    pub after: String,
}

impl Carried for WatchRequest {
    type Wire = wire::WatchRequest;

    fn into_wire(self) -> wire::WatchRequest {
        wire::WatchRequest {
            project: self.project.as_ref().to_owned(),
            token: self.token.as_ref().to_owned(),
            read: Some(self.read.into()),
            before: each(self.before),
            skip_initial: self.skip_initial,
            after: self.after,
        }
    }

    fn from_wire(wire: wire::WatchRequest) -> Result<Self, Status> {
        Ok(Self {
            project: wire.project.into(),
            token: wire.token.into(),
            read: required(wire.read, "watch.read").and_then(Read::try_from).map_err(invalid)?,
            before: all(wire.before).map_err(invalid)?,
            skip_initial: wire.skip_initial,
            after: wire.after,
        })
    }

    fn bytes(&self) -> usize {
        0
    }
}
