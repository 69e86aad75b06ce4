//! Result of an introspection: the schema, and what of the database is not in it.

use query::Schema;

/// A schema as it was read, and the objects that are left out of it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Introspected {
    /// The schema.
    pub schema: Schema,
    /// Tables and views that are not in it although they are in the database, by name.
    pub left_out: Vec<LeftOut>,
}

/// A table or view that cannot be served. The rest of its database is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Its name.
    pub name: String,
    /// Reason, as the database says it.
    pub why: String,
    /// Whether it may be served again without a change of the schema: a foreign server that answers again.
    pub is_transient: bool,
}

impl LeftOut {
    /// An object that is left out until the schema changes.
    pub fn until_change(name: impl Into<String>, why: impl Into<String>) -> Self {
        Self { name: name.into(), why: why.into(), is_transient: false }
    }
}
