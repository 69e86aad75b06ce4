//! Faults of malformed requests.

use mesh::{Code, Fault};

/// Detail of a fault: seconds after which the request may come again.
pub const RETRY_AFTER: &str = "retry_after_seconds";

/// A request that is malformed in the way `message` says.
pub fn bad_request(message: impl Into<String>) -> Fault {
    Fault::new(Code::BadRequest, message)
}
