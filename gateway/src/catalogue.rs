//! What the gateway knows of a project: its settings, its databases and what they hold.

use std::sync::Arc;

use query::{Schema, resources};

/// A project at one moment. Swapped as a whole.
#[derive(Debug, Clone)]
pub struct Project {
    /// Its id.
    pub id: String,
    /// Its settings.
    pub spec: resources::Project,
    /// Its databases, in the order of their resources.
    pub databases: Vec<Database>,
    /// Changes whenever the settings or a schema do: what is planned under one version is void under another.
    pub version: u64,
}

/// A database of a project.
#[derive(Debug, Clone)]
pub struct Database {
    /// Its id.
    pub id: String,
    /// Which engine.
    pub engine: resources::Engine,
    /// What it holds; `None` while it has not been reached.
    pub schema: Option<Arc<Schema>>,
}

impl Project {
    /// The database that `alias` means: its id; else without a `sql-` prefix; else, for `postgres`, `mysql`, `sqlite` and
    /// `mongo` (with or without `sql-`), the only database of that engine. `None` where nothing is meant.
    pub fn database(&self, _alias: &str) -> Option<&Database> {
        todo!()
    }
}
