//! Grants: the authorised access to one table.

use std::sync::Arc;

use crate::{Operation, RuleFilter};

/// Terms of a grant for one table access of a request: made by the rule engine, applied by crud.
#[derive(Debug, Clone, PartialEq)]
pub struct GrantTerms {
    /// The project's id.
    pub project: String,
    /// The database's id.
    pub database: String,
    /// The table's name.
    pub table: String,
    /// What is granted.
    pub operation: Operation,
    /// Rows outside it do not exist for the caller.
    pub filter: RuleFilter,
    /// Every row written must pass it.
    pub check: RuleFilter,
    /// Columns the caller may see, search and write.
    pub columns: Arc<Columns>,
    /// Changing or deleting all rows at once is allowed.
    pub allow_all: bool,
    /// Milliseconds since the Unix epoch after which the grant is void.
    pub expires_ms: i64,
}

/// Sets of columns; `None` means every column.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Columns {
    /// May appear in answers.
    pub read: Option<Vec<String>>,
    /// May appear in conditions and orders.
    pub filter: Option<Vec<String>>,
    /// May be written.
    pub write: Option<Vec<String>>,
    /// May be neither read, searched nor written, whatever the other sets say.
    pub deny: Vec<String>,
}

impl Columns {
    /// Whether `set`, one of these, has the column, and `deny` does not.
    pub fn allow(&self, set: &Option<Vec<String>>, column: &str) -> bool {
        let has = |names: &[String]| names.iter().any(|name| name == column);
        !has(&self.deny) && set.as_deref().is_none_or(has)
    }
}
