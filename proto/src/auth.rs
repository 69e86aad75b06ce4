//! Messages of the rule engine.

use std::sync::Arc;

use query::{Change, Columns, Document, Filter, Operation};
use tonic::Status;

use crate::{
    carried::Carried,
    convert::{all, each, invalid, member, required},
    grant::Grant,
    wire::{auth::v1 as wire, query::v1 as words},
};

pub use crate::wire::auth::v1::{
    AuthorizeCallRequest, AuthorizeCallResponse, AuthorizeEventsRequest, AuthorizeEventsResponse,
    AuthorizeFilesRequest, AuthorizeFilesResponse, AuthorizeWorkerRequest, AuthorizeWorkerResponse, CallGrant,
    EventAccess, EventGrant, FileAccess, FileOperation as WireFileOperation, FileSignature, FileVerdict, RefusedItem,
    RevisionsRequest, RevisionsResponse, SignFileRequest, SignFileResponse, SignedGrant, WorkerGrant,
};

/// Request of grants for the accesses of a caller.
#[derive(Debug, Clone, Default)]
pub struct AuthorizeRequest {
    /// The project's id.
    pub project: Arc<str>,
    /// The caller's token; empty where there is none.
    pub token: Arc<str>,
    /// All that the request uses.
    pub accesses: Vec<Access>,
}

/// One resource that a request uses, with what its rule may look at.
#[derive(Debug, Clone, PartialEq)]
pub enum Access {
    /// A table.
    Table(TableAccess),
}

/// An access to a table.
#[derive(Debug, Clone, PartialEq)]
pub struct TableAccess {
    /// The database's id.
    pub database: Arc<str>,
    /// The table's name.
    pub table: String,
    /// The operation on it.
    pub operation: Operation,
    /// The `op` of the client: `one`, `all`, `count`.
    pub op: &'static str,
    /// The client's condition on this table; `None` where it gave none.
    pub find: Option<Filter>,
    /// The documents of a create; the rule is asked for each.
    pub docs: Arc<[Document]>,
    /// The changes of an update.
    pub changes: Vec<Change>,
    /// The client's limit, where it gave one.
    pub limit: Option<u64>,
    /// The client's skip, where it gave one.
    pub skip: Option<u64>,
}

/// Grants, one per access.
#[derive(Debug, Clone, Default)]
pub struct AuthorizeResponse {
    /// One per access, in their order.
    pub grants: Vec<Grant>,
    /// Milliseconds since the Unix epoch from which the token is no longer valid; `None` where it does not expire, or
    /// was not looked at.
    pub token_expires_ms: Option<i64>,
    /// For each access whose rule looks at other tables: how it reaches them.
    pub relations: Vec<RuleRelations>,
}

/// What a rule looks at besides its own table; the same for every request.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleRelations {
    /// The index of the access.
    pub access: usize,
    /// How the tables are reached.
    pub paths: Arc<[RelationPath]>,
}

/// Names of relations that lead from a table to another, one after the other.
pub type RelationPath = Vec<String>;

/// The caller whose reach is asked about.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ReachableRequest {
    /// The project's id.
    pub project: String,
    /// The caller's token; empty where there is none.
    pub token: String,
}

/// What a caller could ever be allowed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ReachableResponse {
    /// The tables with rules of their own, and the default of each database.
    pub tables: Vec<ReachableTable>,
}

/// Operations on a table that a caller could ever be allowed.
#[derive(Debug, Clone, PartialEq)]
pub struct ReachableTable {
    /// The database's id.
    pub database: String,
    /// The table's name; `default` stands for every table that is not listed.
    pub table: String,
    /// The operations, each with the columns that it is allowed on.
    pub operations: Vec<(Operation, Arc<Columns>)>,
}

/// Values of `op`.
const OPS: [&str; 3] = ["one", "all", "count"];

impl TableAccess {
    /// An access without anything that a rule could look at.
    pub fn new(database: &str, table: &str, operation: Operation) -> Self {
        Self {
            database: database.into(),
            table: table.to_owned(),
            operation,
            op: "all",
            find: None,
            docs: Arc::default(),
            changes: Vec::new(),
            limit: None,
            skip: None,
        }
    }

    /// An access of an operation on `database`, with all that a rule may look at.
    pub fn of(database: &Arc<str>, access: query::TableAccess<'_>) -> Self {
        Self {
            // Of a neighbour: its rules decide.
            database: access.database.map_or_else(|| database.clone(), Arc::from),
            table: access.table.to_owned(),
            operation: access.operation,
            op: access.op,
            find: access.find.cloned(),
            docs: access.docs.cloned().unwrap_or_default(),
            changes: access.changes.to_vec(),
            limit: access.limit,
            skip: (access.skip > 0).then_some(access.skip),
        }
    }
}

impl From<Access> for wire::Access {
    fn from(access: Access) -> Self {
        let Access::Table(access) = access;
        let table = wire::TableAccess {
            database: access.database.as_ref().to_owned(),
            table: access.table,
            operation: words::Operation::from(access.operation).into(),
            op: access.op.to_owned(),
            find: access.find.map(Into::into),
            docs: access.docs.iter().cloned().map(Into::into).collect(),
            changes: each(access.changes),
            limit: access.limit,
            skip: access.skip,
        };
        Self { resource: Some(wire::access::Resource::Table(table)) }
    }
}

impl TryFrom<wire::Access> for Access {
    type Error = query::Error;

    fn try_from(access: wire::Access) -> Result<Self, query::Error> {
        let wire::access::Resource::Table(access) = required(access.resource, "access.resource")?;
        let op = OPS.into_iter().find(|op| *op == access.op);
        Ok(Access::Table(TableAccess {
            database: access.database.into(),
            table: access.table,
            operation: member::<words::Operation, _>(access.operation, "access.operation")?,
            op: op.ok_or_else(|| {
                query::Error::Malformed(format!("invalid access.op {:?}: expected one, all or count", access.op))
            })?,
            find: access.find.map(Filter::try_from).transpose()?,
            docs: all::<_, Document>(access.docs)?.into(),
            changes: all(access.changes)?,
            limit: access.limit,
            skip: access.skip,
        }))
    }
}

impl Carried for AuthorizeRequest {
    type Wire = wire::AuthorizeRequest;

    fn into_wire(self) -> wire::AuthorizeRequest {
        wire::AuthorizeRequest {
            project: self.project.as_ref().to_owned(),
            token: self.token.as_ref().to_owned(),
            accesses: each(self.accesses),
        }
    }

    fn from_wire(wire: wire::AuthorizeRequest) -> Result<Self, Status> {
        let accesses = all(wire.accesses).map_err(invalid)?;
        Ok(Self { project: wire.project.into(), token: wire.token.into(), accesses })
    }

    fn bytes(&self) -> usize {
        0
    }
}

impl Carried for AuthorizeResponse {
    type Wire = wire::AuthorizeResponse;

    fn into_wire(self) -> wire::AuthorizeResponse {
        let token_expires_ms = self.token_expires_ms.unwrap_or_default();
        let relations = each(self.relations);
        wire::AuthorizeResponse { grants: each(self.grants), token_expires_ms, relations }
    }

    fn from_wire(wire: wire::AuthorizeResponse) -> Result<Self, Status> {
        let token_expires_ms = (wire.token_expires_ms != 0).then_some(wire.token_expires_ms);
        Ok(Self { grants: each(wire.grants), token_expires_ms, relations: each(wire.relations) })
    }

    fn bytes(&self) -> usize {
        0
    }
}

impl From<RuleRelations> for wire::RuleRelations {
    fn from(relations: RuleRelations) -> Self {
        let paths = relations.paths.iter().map(|names| wire::RelationPath { names: names.clone() }).collect();
        // A request has fewer accesses than the number holds.
        Self { access: u32::try_from(relations.access).unwrap_or(u32::MAX), paths }
    }
}

impl From<wire::RuleRelations> for RuleRelations {
    fn from(wire: wire::RuleRelations) -> Self {
        let paths = wire.paths.into_iter().map(|path| path.names).collect();
        Self { access: wire.access as usize, paths }
    }
}

impl Carried for ReachableRequest {
    type Wire = wire::ReachableRequest;

    fn into_wire(self) -> wire::ReachableRequest {
        wire::ReachableRequest { project: self.project, token: self.token }
    }

    fn from_wire(wire: wire::ReachableRequest) -> Result<Self, Status> {
        Ok(Self { project: wire.project, token: wire.token })
    }

    fn bytes(&self) -> usize {
        0
    }
}

impl Carried for ReachableResponse {
    type Wire = wire::ReachableResponse;

    fn into_wire(self) -> wire::ReachableResponse {
        let table = |table: ReachableTable| {
            let (operations, columns): (Vec<_>, Vec<_>) = table.operations.into_iter().unzip();
            wire::ReachableTable {
                database: table.database,
                table: table.table,
                operations: operations.into_iter().map(|operation| words::Operation::from(operation).into()).collect(),
                columns: columns.iter().map(|columns| Columns::clone(columns).into()).collect(),
            }
        };
        wire::ReachableResponse { tables: self.tables.into_iter().map(table).collect() }
    }

    fn from_wire(wire: wire::ReachableResponse) -> Result<Self, Status> {
        let table = |table: wire::ReachableTable| {
            if table.operations.len() != table.columns.len() {
                let text = format!("{} operations with {} columns", table.operations.len(), table.columns.len());
                return Err(invalid(query::Error::Malformed(text)));
            }
            let operation = |(number, columns): (i32, wire::Columns)| {
                let operation = member::<words::Operation, _>(number, "operation").map_err(invalid)?;
                Ok((operation, Arc::new(columns.into())))
            };
            let operations = table.operations.into_iter().zip(table.columns).map(operation);
            let operations = operations.collect::<Result<_, Status>>()?;
            Ok(ReachableTable { database: table.database, table: table.table, operations })
        };
        Ok(Self { tables: wire.tables.into_iter().map(table).collect::<Result<_, Status>>()? })
    }

    fn bytes(&self) -> usize {
        0
    }
}
