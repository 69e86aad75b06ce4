//! Information disclosure: errors about a table are shown only to callers who may use it.
//!
//! All others get a denial, which is the same whether the table exists or not. In development, errors are shown to all.

use mesh::Fault;
use proto::auth::{Access, TableAccess};
use query::{Document, Error, Operation, RelatedTable};

use super::{Caller, Edge};
use crate::catalogue::Project;

/// The access that a failed request attempted: an operation on a table.
#[derive(Debug, Clone, Copy)]
pub struct AttemptedAccess<'a> {
    /// The database's id, or its alias where nothing is known by it.
    pub database: &'a str,
    /// The table as the caller named it.
    pub table: &'a str,
    /// The attempted operation.
    pub operation: Operation,
}

const OPERATIONS: [Operation; 4] = [Operation::Read, Operation::Create, Operation::Update, Operation::Delete];

impl Edge {
    /// `fault` if a rule lets the caller use the table in some operation, else the denial of what they tried.
    pub async fn denied_or(
        &self,
        caller: &Caller,
        project: &Project,
        attempt: AttemptedAccess<'_>,
        fault: Fault,
    ) -> Fault {
        if self.is_development {
            return fault;
        }
        match self.denial(caller, project, attempt).await {
            Some(denial) => denial,
            None => fault,
        }
    }

    /// The fault of a request that does not fit the schema, or a denial where the caller may not use the attempted
    /// table or the one that the error names. A hint to a table that is not the caller's is left out.
    pub async fn denied_or_error(
        &self,
        caller: &Caller,
        project: &Project,
        attempt: AttemptedAccess<'_>,
        error: Error,
    ) -> Fault {
        let (error, related) = error.split_related();
        if self.is_development {
            return Fault::from(error);
        }
        if let Some(denial) = self.denial(caller, project, attempt).await {
            return denial;
        }
        let Some(RelatedTable { database, table }) = related else {
            return Fault::from(self.without_hidden_hint(caller, project, (attempt.database, attempt), error).await);
        };
        let database = database.as_deref().unwrap_or(attempt.database);
        let related = AttemptedAccess { database, table: &table, operation: Operation::Read };
        if let Some(denial) = self.denial(caller, project, related).await {
            return denial;
        }
        Fault::from(self.without_hidden_hint(caller, project, (attempt.database, related), error).await)
    }

    /// `error`, which is about the attempted table of a request to database `planned`, without a hint to a table that the
    /// caller may not use.
    async fn without_hidden_hint(
        &self,
        caller: &Caller,
        project: &Project,
        (planned, attempt): (&str, AttemptedAccess<'_>),
        mut error: Error,
    ) -> Error {
        let hinted = if let Error::UnknownTable { nearest: Some(near), .. } = &error {
            Some((attempt.database.to_owned(), near.clone()))
        } else if let Error::UnknownColumn { nearest: Some(near), .. }
        | Error::UnknownRelation { nearest: Some(near), .. } = &error
        {
            relation_target(project, planned, attempt, near)
        } else {
            None
        };
        let Some((database, table)) = hinted else { return error };
        let hinted = AttemptedAccess { database: &database, table: &table, ..attempt };
        let is_hidden = self.denial(caller, project, hinted).await.is_some();
        if is_hidden
            && let Error::UnknownTable { nearest, .. }
            | Error::UnknownColumn { nearest, .. }
            | Error::UnknownRelation { nearest, .. } = &mut error
        {
            *nearest = None;
        }
        error
    }

    /// Why the caller may use the table in no operation at all: the denial of what they tried, or that nobody can tell.
    /// `None` where there is something they may do.
    async fn denial(&self, caller: &Caller, project: &Project, attempt: AttemptedAccess<'_>) -> Option<Fault> {
        let denial = self.allowed(caller, project, attempt).await.err()?;
        if !denial.code.is_denial() {
            return Some(denial);
        }
        for operation in OPERATIONS.into_iter().filter(|operation| *operation != attempt.operation) {
            match self.allowed(caller, project, AttemptedAccess { operation, ..attempt }).await {
                Ok(()) => return None,
                Err(fault) if fault.code.is_denial() => {}
                Err(fault) => return Some(fault),
            }
        }
        Some(denial)
    }

    /// Whether a rule lets the caller do it at all, with no condition, and with one document that says nothing.
    async fn allowed(&self, caller: &Caller, project: &Project, attempt: AttemptedAccess<'_>) -> Result<(), Fault> {
        let mut access = TableAccess::new(attempt.database, attempt.table, attempt.operation);
        access.docs = (attempt.operation == Operation::Create).then(Document::default).into_iter().collect();
        self.grants(caller, project, vec![Access::Table(access)]).await.map(|_| ())
    }
}

/// Database and name of the table that `relation` of the attempted table leads to, as the schema of database `planned` or
/// its own has it; `None` where that is no relation.
fn relation_target(
    project: &Project,
    planned: &str,
    attempt: AttemptedAccess<'_>,
    relation: &str,
) -> Option<(String, String)> {
    [planned, attempt.database].into_iter().find_map(|home| {
        let neighbour = (attempt.database != home).then_some(attempt.database);
        let table = project.schema(home).ok()?.table_of(neighbour, attempt.table).ok()?;
        let relation = table.find_relation(relation)?;
        Some((relation.database.as_deref().unwrap_or(home).to_owned(), relation.table.clone()))
    })
}
