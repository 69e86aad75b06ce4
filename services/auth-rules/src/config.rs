//! Configuration of the service.

use std::path::{Path, PathBuf};

/// Configuration of the service.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Settings of a node for development; `None`: one for production.
    pub development: Option<Development>,
}

/// Settings of a node for development, whose refusals say which clause of a rule denies.
#[derive(Debug, Clone)]
pub struct Development {
    /// The folder of development keys, for projects without a key; elsewhere tokens of such a project are never valid.
    pub keys: PathBuf,
    /// Options with which `perigee token` finds the resources and the keys of this node, such as ` --dir shop`.
    pub token_options: String,
}

impl Config {
    /// The folder of development keys.
    pub fn dev_keys(&self) -> Option<&Path> {
        self.development.as_ref().map(|development| development.keys.as_path())
    }
}
