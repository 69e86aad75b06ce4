//! What an operator may choose of this service.

use std::path::PathBuf;

/// Configuration of this service.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Where keys of projects without any are made and kept; `None` makes none, and such a project verifies nothing.
    pub dev_keys: Option<PathBuf>,
}
