//! Schemas of databases, as crud describes them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use mesh::{Call, Mesh};
use proto::{Links, crud::DescribeRequest};
use query::Schema;

use crate::Error;

/// Known schemas by project and database, so that each travels once.
pub struct Schemas {
    mesh: Mesh,
    known: Mutex<HashMap<(String, String), SchemaVersion>>,
}

/// A schema and its version.
#[derive(Clone)]
pub struct SchemaVersion {
    /// The same on every node for the same schema.
    pub version: u64,
    /// The schema.
    pub schema: Arc<Schema>,
}

impl Schemas {
    /// None known yet.
    pub fn new(mesh: Mesh) -> Self {
        Self { mesh, known: Mutex::default() }
    }

    /// The schema of a database as crud has it now; `refresh` has it look at the database.
    pub async fn of(
        &self,
        call: &Call,
        project: &str,
        database: &str,
        refresh: Refresh,
    ) -> Result<SchemaVersion, Error> {
        let key = (project.to_owned(), database.to_owned());
        let known = self.known().get(&key).cloned();
        let versions = known.iter().map(|known| (database.to_owned(), known.version)).collect();
        let request =
            DescribeRequest { project: project.to_owned(), refresh: refresh == Refresh::Yes, known: versions };
        let described = self.mesh.crud().describe(call, request).await?;
        let Some(found) = described.databases.into_iter().find(|found| found.id == database) else {
            self.known().remove(&key);
            return Err(Error::UnknownDatabase(database.to_owned()));
        };
        let version = found.version;
        let now = match (found.schema, known) {
            (Some(schema), _) => SchemaVersion { version, schema },
            (None, Some(known)) if known.version == version => return Ok(known),
            (None, _) => return Err(Error::Unreachable(database.to_owned())),
        };
        self.known().insert(key, now.clone());
        Ok(now)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<(String, String), SchemaVersion>> {
        self.known.lock().expect("no code panics while it holds this lock")
    }
}

/// Whether the database is looked at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refresh {
    /// At most once a second.
    Yes,
    /// What is known is enough.
    No,
}
