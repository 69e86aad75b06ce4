//! Faults of malformed requests.

use mesh::{Code, Fault};

/// A request that is malformed in the way `message` says.
pub fn bad_request(message: impl Into<String>) -> Fault {
    Fault::new(Code::BadRequest, message)
}
