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
    /// Connections at once.
    pub connections: usize,
    /// Requests at once on an HTTP/2 connection.
    pub streams: u32,
    /// Requests that are answered at once.
    pub in_flight: usize,
    /// Requests that wait for a short time until they are.
    pub queue: usize,
    /// Bytes of answers that clients have not taken yet.
    pub unsent_bytes: usize,
    /// How long a client may take nothing of its answer.
    pub write_timeout: Duration,
    /// Whether all callers may see `/metrics` and the parts of `/ready`, or those on this machine only.
    pub http_details: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            body_bytes: 8 * 1024 * 1024,
            time: Duration::from_secs(30),
            depth: 16,
            nodes: 2000,
            connections: 10_000,
            streams: 256,
            in_flight: 1024,
            queue: 256,
            unsent_bytes: 256 * 1024 * 1024,
            write_timeout: Duration::from_secs(30),
            http_details: false,
        }
    }
}
