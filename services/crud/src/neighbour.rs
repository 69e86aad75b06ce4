//! Neighbour of a database: one of the same project that is another schema of the same database of a server.

/// Another schema of the same database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// The id of its database in the project.
    pub database: String,
    /// The schema.
    pub schema: String,
    /// Links lead into it or out of it.
    pub is_linked: bool,
}
