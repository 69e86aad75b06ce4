//! Configuration of the service.

use std::path::PathBuf;

use mesh::config::ImageLimits;

/// Configuration of the service.
#[derive(Clone)]
pub struct Config {
    /// Base folder of local buckets.
    pub data: PathBuf,
    /// What cursors of lists are sealed with: the same on all nodes.
    pub cursor_secret: Vec<u8>,
    /// Limits of images that are made of files.
    pub images: ImageLimits,
}
