//! What travels with every call: who asked, as part of which trace, and how much time is left.

use std::{sync::Arc, time::Duration, time::Instant};

/// One request of a client on its way through the mesh.
#[derive(Debug, Clone)]
pub struct Call {
    /// The client's `X-Request-Id`, or one made at the edge.
    pub request_id: Arc<str>,
    /// W3C trace context of the span that this call belongs to.
    pub traceparent: Option<Arc<str>>,
    /// When the answer is no longer wanted.
    pub deadline: Option<Instant>,
}

impl Call {
    /// The call that `request` belongs to, out of its metadata (and extensions, when near).
    pub fn of<T>(_request: &tonic::Request<T>) -> Call {
        todo!()
    }

    /// `message` as the next step of this call: identity, trace and the time that is left travel with it.
    pub fn next<T>(&self, _message: T) -> tonic::Request<T> {
        todo!()
    }

    /// Time until the deadline; zero when it has passed, `None` without one.
    pub fn left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }
}
