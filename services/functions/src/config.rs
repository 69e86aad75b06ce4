//! Configuration of the service.

use mesh::egress::Egress;

/// Configuration of the service.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Addresses that functions may have.
    pub egress: Egress,
}
