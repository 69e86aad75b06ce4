//! Configuration of the service.

/// Configuration of the service.
#[derive(Clone)]
pub struct Config {
    /// What positions are signed with, the same on all nodes of a mesh.
    pub position_secret: Vec<u8>,
}
