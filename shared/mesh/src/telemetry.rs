//! Logs and metrics.

use std::time::Duration;

/// Counters of this node, written as OpenMetrics text.
#[derive(Debug, Clone, Default)]
pub struct Metrics {}

impl Metrics {
    /// A call between services was answered.
    pub fn rpc(&self, _service: &'static str, _method: &'static str, _code: tonic::Code, _elapsed: Duration) {}
}
