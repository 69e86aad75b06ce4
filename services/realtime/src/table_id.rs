//! Names of tables.

use std::sync::Arc;

/// A table in its project.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableId {
    /// The project's id.
    pub project: Arc<str>,
    /// The database's id.
    pub database: Arc<str>,
    /// The table's name.
    pub table: Arc<str>,
}
