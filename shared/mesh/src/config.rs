//! Node configuration: a commented default compiled in, then the operator's file, then `PERIGEE_…`
//! variables.

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

/// What this process runs and how it reaches the rest.
#[derive(Debug, Clone)]
pub struct Node {}
