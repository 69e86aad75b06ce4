//! Configuration of the service.

/// Configuration of the service.
#[derive(Clone)]
pub struct Config {
    /// What positions are signed with, the same on all nodes of a mesh.
    pub position_secret: Vec<u8>,
    /// Bytes of JSON that the rows of a table may have together.
    pub answer_bytes: u64,
    /// Bytes of rows that may wait to be told, of all watches together.
    pub waiting_bytes: usize,
}
