//! Logs and metrics.

/// Counters of this node, written as OpenMetrics text.
#[derive(Debug, Clone, Default)]
pub struct Metrics {}
