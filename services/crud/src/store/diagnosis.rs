//! What a database has for live queries, what it lacks, and what of ours stands in it.

/// Diagnosis of a database: whether changes of its tables can be followed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diagnosis {
    /// Tables and views that are served, by name.
    pub tables: Vec<String>,
    /// What changes of rows are learnt from: `slot`, `triggers`, `binlog`, `off`, or `none` where none is possible.
    pub source: &'static str,
    /// Those of them that can be followed as they are.
    pub followed: Vec<String>,
    /// What keeps others from being followed, and what else an operator may want to know.
    pub findings: Vec<Finding>,
    /// Objects whose names begin with `perigee_`, whoever made them.
    pub objects: Vec<NamedObject>,
}

/// Something of a database that an operator may change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it means for live queries.
    pub severity: Severity,
    /// What is found, and what was expected.
    pub text: String,
    /// SQL that would change it; `None` where there is none.
    pub sql: Option<String>,
}

/// What a finding means for live queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Those of a table, or all of them, are refused until it is changed.
    Missing,
    /// Those of a table or view are refused because of its kind.
    Unfollowed,
    /// They are possible.
    Note,
}

/// An object of a database whose name may be one of ours.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamedObject {
    /// `table`, `trigger`, `schema`.
    pub kind: String,
    /// Its name, for a trigger with its table.
    pub name: String,
}

/// What was removed from a database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removal {
    /// Objects that are there no longer.
    pub removed: Vec<NamedObject>,
    /// Objects called as ours are that stay: another made them, or they could not be removed.
    pub left: Vec<NamedObject>,
    /// Why not all of ours is removed, or who may make it again.
    pub warnings: Vec<String>,
    /// Whether something of ours stays.
    pub is_partial: bool,
}

/// Whether objects are removed that a server was seen to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhileUsed {
    /// Nothing is.
    Refuse,
    /// All are: a server that runs makes them again.
    Remove,
}

impl Removal {
    /// What is gone of the objects `before` where these are there `after`.
    pub fn between(before: Vec<NamedObject>, after: Vec<NamedObject>) -> Self {
        let removed = before.into_iter().filter(|object| !after.contains(object)).collect();
        Self { removed, left: after, ..Self::default() }
    }
}
