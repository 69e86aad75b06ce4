//! Configuration of the service.

use std::path::PathBuf;

/// Configuration of the service.
#[derive(Debug, Clone)]
pub struct Config {
    /// Base folder of local buckets.
    pub data: PathBuf,
}
