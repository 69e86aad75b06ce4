//! Grants as crud accepts them: nothing is compiled for a table without one that the rule engine sealed for it.

use std::sync::Arc;

use mesh::seal::Opener;
use prost::Message;
use proto::auth::v1 as auth;
use query::{Columns, Filter, Grant, Operation, Table};

use crate::Error;

/// A grant that the rule engine sealed and that holds now. There is no other way to make one than [`Grants::take`].
#[derive(Debug)]
pub struct Granted {
    grants: Arc<[Grant]>,
    at: usize,
}

/// The grants of one request, in the order in which its operations touch tables. A clone starts where it is.
#[derive(Debug, Clone)]
pub struct Grants<'a> {
    place: Place<'a>,
    grants: Arc<[Grant]>,
    next: usize,
}

/// What grants are asked for, and when.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The project's id.
    pub project: &'a str,
    /// The database's id.
    pub database: &'a str,
    /// Milliseconds since the Unix epoch.
    pub now_ms: i64,
}

impl<'a> Grants<'a> {
    /// Opens the grants of a request.
    pub fn open(opener: &Opener, place: Place<'a>, sealed: &[auth::SealedGrant]) -> Result<Self, Error> {
        let grants: Result<Arc<[Grant]>, Error> = sealed.iter().map(|sealed| open(opener, sealed)).collect();
        Ok(Self { place, grants: grants?, next: 0 })
    }

    /// The next grant, which must be for `operation` on `table`.
    pub fn take(&mut self, table: &Table, operation: Operation) -> Result<Granted, Error> {
        let wanted = || format!("{} of table {}", operation.name(), table.name);
        let at = self.next;
        let Some(grant) = self.grants.get(at) else {
            return Err(refused(&format!("no grant for {}", wanted())));
        };
        self.next += 1;
        let is_wanted = grant.project == self.place.project
            && grant.database == self.place.database
            && grant.table == table.name
            && grant.operation == operation;
        if !is_wanted {
            return Err(refused(&format!(
                "a grant for {} of table {} stands where one for {} is needed",
                grant.operation.name(),
                grant.table,
                wanted()
            )));
        }
        if grant.expires_ms < self.place.now_ms {
            return Err(Error::Denied(format!("the grant for {} has expired", wanted())));
        }
        Ok(Granted { grants: self.grants.clone(), at })
    }

    /// That no grant is left over: one more means that caller and callee walk differently.
    pub fn finish(self) -> Result<(), Error> {
        match self.grants.get(self.next) {
            None => Ok(()),
            Some(grant) => Err(refused(&format!("the grant for table {} was not needed", grant.table))),
        }
    }
}

impl Granted {
    fn grant(&self) -> &Grant {
        &self.grants[self.at]
    }

    /// Rows outside it do not exist for the caller.
    pub fn filter(&self) -> &Filter {
        &self.grant().filter
    }

    /// Every row written must pass it.
    pub fn check(&self) -> &Filter {
        &self.grant().check
    }

    /// Changing or deleting all rows at once is allowed.
    pub fn allows_all(&self) -> bool {
        self.grant().allow_all
    }

    /// That the caller may see `column`.
    pub fn may_read(&self, column: &str) -> Result<(), Error> {
        self.within(column, "read", |columns| &columns.read)
    }

    /// That the caller may search and sort by `column`.
    pub fn may_filter(&self, column: &str) -> Result<(), Error> {
        self.within(column, "filtered or sorted by", |columns| &columns.filter)
    }

    /// That the caller may write `column`.
    pub fn may_write(&self, column: &str) -> Result<(), Error> {
        self.within(column, "written", |columns| &columns.write)
    }

    fn within(&self, column: &str, what: &str, set: impl Fn(&Columns) -> &Option<Vec<String>>) -> Result<(), Error> {
        let columns = &self.grant().columns;
        let has = |names: &[String]| names.iter().any(|name| name == column);
        if has(&columns.deny) || set(columns).as_ref().is_some_and(|names| !has(names)) {
            return Err(Error::Denied(format!("column {column} of table {} may not be {what}", self.grant().table)));
        }
        Ok(())
    }
}

fn open(opener: &Opener, sealed: &auth::SealedGrant) -> Result<Grant, Error> {
    if !opener.is_sealed(&sealed.grant, &sealed.seal) {
        tracing::error!("a grant has a foreign seal: the nodes of this mesh have different values of mesh_key");
        return Err(Error::Seal);
    }
    let grant = auth::Grant::decode(sealed.grant.as_ref()).map_err(|error| refused(&error.to_string()))?;
    Grant::try_from(grant).map_err(|error| refused(&error.to_string()))
}

/// The edge asks for every grant that is needed, so this is never the client's doing.
fn refused(reason: &str) -> Error {
    tracing::error!(reason, "grants do not fit the operation");
    Error::Denied("the operation is not covered by its grants".to_owned())
}
