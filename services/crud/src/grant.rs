//! Grants as crud accepts them: nothing is compiled for a table without one that the rule engine made for it.

use std::sync::Arc;

use proto::grant::{Grant, Unverified, Verifier};
use query::{Columns, GrantTerms, Operation, RuleFilter, Table};

use crate::Error;

/// The terms of the grants of a request, verified.
pub fn verified(verifier: &Verifier, grants: Vec<Grant>) -> Result<Vec<Arc<GrantTerms>>, Error> {
    // A list of its own: the allocator is asked twice to turn one into another in its place.
    let mut terms = Vec::with_capacity(grants.len());
    for grant in grants {
        terms.push(verifier.terms(grant).map_err(unverified)?);
    }
    Ok(terms)
}

fn unverified(reason: Unverified) -> Error {
    match reason {
        Unverified::Signature => {
            tracing::error!(%reason, "grant refused");
            Error::Signature
        }
        Unverified::Malformed(_) => Error::Ungranted(reason.to_string()),
    }
}

/// A grant of the rule engine that holds now. There is no other way to make one than [`Grants::take`].
#[derive(Debug, Clone, Copy)]
pub struct Granted<'g>(&'g GrantTerms);

/// The grants of one request, in the order in which its operations touch tables. A copy starts where it is.
#[derive(Debug, Clone, Copy)]
pub struct Grants<'g> {
    scope: GrantScope<'g>,
    /// Grants that are not used yet.
    grants: &'g [Arc<GrantTerms>],
}

/// Scope that the grants of a request must match: project, database, and the time of the request.
#[derive(Debug, Clone, Copy)]
pub struct GrantScope<'a> {
    /// The project's id.
    pub project: &'a str,
    /// The database's id.
    pub database: &'a str,
    /// Milliseconds since the Unix epoch.
    pub now_ms: i64,
}

impl<'g> Grants<'g> {
    /// The grants of a request.
    pub fn new(scope: GrantScope<'g>, grants: &'g [Arc<GrantTerms>]) -> Self {
        Self { scope, grants }
    }

    /// The terms of those that are not used yet.
    pub fn terms(&self) -> &'g [Arc<GrantTerms>] {
        self.grants
    }

    /// The next `count`, or as many as there are, which are not among the others any more.
    pub fn split_off(&mut self, count: usize) -> Self {
        let (first, left) = self.grants.split_at(count.min(self.grants.len()));
        self.grants = left;
        Self { scope: self.scope, grants: first }
    }

    /// Whether all of them are for the project of the request, and hold now. What a read accesses decides of which
    /// databases they have to be.
    pub fn are_in_scope(&self) -> bool {
        self.grants.iter().all(|grant| grant.project == self.scope.project && grant.expires_ms >= self.scope.now_ms)
    }

    /// The next grant, which must be for `operation` on `table`.
    pub fn take(&mut self, table: &Table, operation: Operation) -> Result<Granted<'g>, Error> {
        let wanted = || {
            let database = table.database.as_ref().map(|database| format!("{database}.")).unwrap_or_default();
            format!("{} of table {database}{}", operation.name(), table.name)
        };
        let Some((grant, left)) = self.grants.split_first() else {
            return Err(Error::Ungranted(format!("no grant for {}", wanted())));
        };
        self.grants = left;
        let is_wanted = grant.project == self.scope.project
            && grant.database == table.database.as_deref().unwrap_or(self.scope.database)
            && grant.table == table.name
            && grant.operation == operation;
        if !is_wanted {
            return Err(Error::Ungranted(format!(
                "a grant for {} of table {} stands where one for {} is needed",
                grant.operation.name(),
                grant.table,
                wanted()
            )));
        }
        if grant.expires_ms < self.scope.now_ms {
            return Err(Error::Denied(format!("the grant for {} has expired", wanted())));
        }
        Ok(Granted(grant))
    }

    /// Checks that no grant is left over: one more means that caller and callee walk differently.
    pub fn finish(self) -> Result<(), Error> {
        match self.grants.first() {
            None => Ok(()),
            Some(grant) => Err(Error::Ungranted(format!("the grant for table {} was not needed", grant.table))),
        }
    }
}

impl<'g> Granted<'g> {
    /// Row filter: rows outside it do not exist for the caller.
    pub fn filter(self) -> &'g RuleFilter {
        &self.0.filter
    }

    /// Row check: every row written must pass it.
    pub fn check(self) -> &'g RuleFilter {
        &self.0.check
    }

    /// Whether changing or deleting all rows at once is allowed.
    pub fn allows_all(self) -> bool {
        self.0.allow_all
    }

    /// Checks that the caller may read `column`.
    pub fn may_read(self, column: &str) -> Result<(), Error> {
        self.check_column(column, "read", |columns| &columns.read)
    }

    /// Checks that the caller may filter and sort by `column`.
    pub fn may_filter(self, column: &str) -> Result<(), Error> {
        self.check_column(column, "filtered or sorted by", |columns| &columns.filter)
    }

    /// Checks that the caller may write `column`.
    pub fn may_write(self, column: &str) -> Result<(), Error> {
        self.check_column(column, "written", |columns| &columns.write)
    }

    fn check_column(
        self,
        column: &str,
        what: &str,
        set: impl Fn(&Columns) -> &Option<Vec<String>>,
    ) -> Result<(), Error> {
        let columns = &self.0.columns;
        if !columns.allow(set(columns), column) {
            return Err(Error::Denied(format!("column {column} of table {} may not be {what}", self.0.table)));
        }
        Ok(())
    }
}
