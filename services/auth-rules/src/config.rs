//! Configuration of the service.

use std::path::PathBuf;

/// Configuration of the service.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// The folder of development keys, for projects without a key. `None`: tokens of such a project are never valid.
    pub dev_keys: Option<PathBuf>,
}
