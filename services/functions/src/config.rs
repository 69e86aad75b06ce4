//! Configuration of the service.

use std::path::PathBuf;

use mesh::{config::QueueConfig, egress::Egress};

/// Configuration of the service.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Addresses that functions and webhooks may have.
    pub egress: Egress,
    /// The data folder, below which the queue of events is where that is a file.
    pub data: PathBuf,
    /// Where the queue of events is.
    pub queue: QueueConfig,
}
