//! Projects with their keys and rules, as they are in force.

use std::{path::Path, sync::Arc};

use foldhash::{HashMap, HashMapExt};
use mesh::resources::Snapshot;
use query::resources::{MatchMode, Project as Spec, ProjectMeta, TokenKey};
use tracing::{error, warn};

use crate::{
    key,
    table::{self, Guards, Table},
    token::Keys,
};

/// All projects.
#[derive(Default)]
pub struct State {
    projects: HashMap<String, Project>,
}

/// A project.
pub struct Project {
    /// What verifies its tokens.
    pub keys: Arc<Keys>,
    databases: HashMap<String, Database>,
    mode: MatchMode,
}

/// Rules of one database.
#[derive(Debug, Default)]
struct Database {
    tables: HashMap<String, Guards>,
    default: Guards,
}

impl State {
    /// The project called `id`.
    pub fn project(&self, id: &str) -> Option<&Project> {
        self.projects.get(id)
    }

    /// What `snapshot` says. Keys that are as in `before` remember the tokens they verified.
    ///
    /// A snapshot in force was checked; should there be a fault nevertheless, its part is left out and so denied.
    pub fn new(snapshot: &Snapshot, dev_keys: Option<&Path>, before: &State) -> State {
        let mut projects = HashMap::new();
        for document in snapshot.of("project") {
            match document.read::<ProjectMeta, Spec>() {
                Ok((meta, spec)) => {
                    let keys = keys(&meta.id, &spec.tokens, dev_keys, before);
                    projects
                        .insert(meta.id, Project { keys, databases: HashMap::new(), mode: spec.security.match_mode });
                }
                Err(fault) => error!(%fault, "project left out"),
            }
        }
        let mut state = State { projects };
        for document in snapshot.of("table") {
            let project = document.meta.get("project").and_then(serde_json::Value::as_str);
            let mode = project.and_then(|id| state.projects.get(id)).map(|project| project.mode);
            match Table::read(document, mode.unwrap_or_default()) {
                Ok(table) => state.add(table),
                Err(fault) => error!(%fault, "table left out"),
            }
        }
        state.projects.values_mut().for_each(Project::fall_back);
        state
    }

    fn add(&mut self, table: Table) {
        let Table { meta, guards, faults, warnings } = table;
        for fault in faults {
            error!(
                project = meta.project,
                database = meta.database,
                table = meta.id,
                path = fault.path,
                fault = fault.message,
                "rule left out"
            );
        }
        for warning in warnings {
            warn!(
                project = meta.project,
                database = meta.database,
                table = meta.id,
                path = warning.path,
                warning = warning.message,
                "rule is odd"
            );
        }
        let Some(project) = self.projects.get_mut(&meta.project) else {
            error!(project = meta.project, table = meta.id, "table of an unknown project left out");
            return;
        };
        let database = project.databases.entry(meta.database).or_default();
        if meta.id == table::DEFAULT {
            database.default = guards;
        } else {
            database.tables.insert(meta.id, guards);
        }
    }
}

impl Project {
    /// What operations on the table need; `None` where there is no rule at all.
    pub fn guards(&self, database: &str, table: &str) -> Option<&Guards> {
        let database = self.databases.get(database)?;
        Some(database.tables.get(table).unwrap_or(&database.default))
    }

    /// Each table with rules of its own, and the default of each database, in order of their names.
    pub fn tables(&self) -> Vec<(&str, &str, &Guards)> {
        let mut tables = Vec::new();
        for (id, database) in &self.databases {
            tables.extend(database.tables.iter().map(|(name, guards)| (id.as_str(), name.as_str(), guards)));
            tables.push((id.as_str(), table::DEFAULT, &database.default));
        }
        tables.sort_by_key(|(database, table, _)| (*database, *table));
        tables
    }

    fn fall_back(&mut self) {
        for database in self.databases.values_mut() {
            for guards in database.tables.values_mut() {
                *guards = std::mem::take(guards).or(&database.default);
            }
        }
    }
}

fn keys(id: &str, tokens: &[TokenKey], dev_keys: Option<&Path>, before: &State) -> Arc<Keys> {
    let mut specs = tokens.to_vec();
    if let Some(dir) = dev_keys.filter(|_| specs.is_empty()) {
        match key::dev(dir, id) {
            Ok(key) => specs.push(key),
            Err(error) => error!(project = id, %error, "no development key: no token of the project is valid"),
        }
    }
    match before.projects.get(id) {
        Some(project) if project.keys.specs() == specs => project.keys.clone(),
        Some(_) | None => Arc::new(Keys::new(specs)),
    }
}
