//! Configuration of the service.

use std::path::PathBuf;

/// Configuration of the service.
#[derive(Clone)]
pub struct Config {
    /// Base folder of local buckets.
    pub data: PathBuf,
    /// What cursors of lists are sealed with: the same on all nodes.
    pub cursor_secret: Vec<u8>,
}
