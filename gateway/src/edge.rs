//! The one authorised path: every protocol ends here. It asks for grants for everything a request touches, then forwards.

use std::sync::Arc;

use bytes::Bytes;
use mesh::{Call, Fault};
use query::{Mutation, Read};

use crate::catalogue::Project;

/// Who calls, for what project, as which step of which trace.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Trace, request id and deadline.
    pub call: Call,
    /// The token as sent, without its scheme; empty where there is none.
    pub token: String,
}

/// The answer of one read.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The JSON that the read's shape asks for.
    pub json: Bytes,
    /// The database's limit cut rows off.
    pub truncated: bool,
}

/// What one mutation did.
#[derive(Debug, Clone)]
pub struct Written {
    /// Rows inserted, changed or deleted.
    pub affected: u64,
    /// The JSON that `returning` asks for; empty where it asks for nothing.
    pub rows: Bytes,
}

/// The authorised path.
#[derive(Clone)]
pub struct Edge {}

impl Edge {
    /// The project called `id`, as it is now.
    pub async fn project(&self, _caller: &Caller, _id: &str) -> Result<Arc<Project>, Fault> {
        todo!()
    }

    /// The project after asking crud to look at its databases again (at most once a second): for a caller whose request
    /// names something unknown. `None` where nothing changed.
    pub async fn refreshed(&self, _caller: &Caller, _project: &Project) -> Result<Option<Arc<Project>>, Fault> {
        todo!()
    }

    /// Reads, which may be of several databases: one authorisation for all, then one snapshot per database. A denial has
    /// the index of its read as detail `read`.
    pub async fn read(&self, _caller: &Caller, _project: &Project, _reads: Vec<Read>) -> Result<Vec<Answer>, Fault> {
        todo!()
    }

    /// Mutations as `(database, mutation)` in document order: all authorised first, then one transaction per database.
    /// Databases run one after the other in order of their first mutation; the first failure stops the rest. One result per
    /// mutation, in order; a mutation of a database that failed has that failure, one of a database not reached
    /// `UNAVAILABLE`. A denial fails as a whole, before anything runs.
    pub async fn write(
        &self,
        _caller: &Caller,
        _project: &Project,
        _mutations: Vec<(String, Mutation)>,
    ) -> Result<Vec<Result<Written, Fault>>, Fault> {
        todo!()
    }

    /// What to tell a caller whose request names a table or column wrongly: `fault` if a rule lets the caller use
    /// `table` in any operation, else the denial, so that nobody learns of tables that are not theirs.
    pub async fn veiled(
        &self,
        _caller: &Caller,
        _project: &Project,
        _database: &str,
        _table: &str,
        _fault: Fault,
    ) -> Fault {
        todo!()
    }
}
