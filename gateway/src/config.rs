//! What a request may ask of this node.

use std::time::Duration;

/// Limits of the edge; a project may lower those of bodies and time.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// How long a request may take.
    pub time: Duration,
    /// Levels of nesting in a filter, a selection or a document.
    pub depth: usize,
    /// Selected fields of a GraphQL document, with those of fragments wherever they are spread.
    pub nodes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { body_bytes: 8 * 1024 * 1024, time: Duration::from_secs(30), depth: 16, nodes: 2000 }
    }
}
