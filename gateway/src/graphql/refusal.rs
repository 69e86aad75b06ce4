//! A request that is not carried out, and where in its document that was found.

use async_graphql_parser::Pos;
use mesh::{Code, Fault};
use query::{Operation, Table};

/// Boxed, since results of planning are otherwise small.
pub type Result<T> = std::result::Result<T, Box<Refusal>>;

/// A request that is not carried out.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// Cause of the refusal.
    pub cause: Cause,
    /// Position in the document, if it has one.
    pub at: Option<Pos>,
    /// Response keys that lead to the field it is about.
    pub path: Vec<String>,
    /// The root table it is about: a caller who may not use it learns nothing more. Several, where a name without a
    /// database was not found in any.
    pub accesses: Vec<RootAccess>,
}

/// Cause of a refusal.
#[derive(Debug, Clone, PartialEq)]
pub enum Cause {
    /// It does not fit the model or the schema.
    Model(query::Error),
    /// Anything else.
    Fault(Fault),
}

/// An attempted access to a root table.
#[derive(Debug, Clone, PartialEq)]
pub struct RootAccess {
    /// The database's id.
    pub database: String,
    /// The table's name, known or not.
    pub table: String,
    /// The attempted operation.
    pub operation: Operation,
}

impl Refusal {
    /// A refusal because of `cause`, without a position.
    pub fn new(cause: impl Into<Cause>) -> Box<Self> {
        Box::new(Self { cause: cause.into(), at: None, path: Vec::new(), accesses: Vec::new() })
    }

    /// The refusal of a malformed request.
    pub fn malformed(text: impl Into<String>) -> Box<Self> {
        Self::new(query::Error::Malformed(text.into()))
    }

    /// The refusal at `at`, unless it has a position.
    pub fn at(mut self: Box<Self>, at: Pos) -> Box<Self> {
        self.at = self.at.or(Some(at));
        self
    }

    /// The refusal as one of rows of `table` of the database `id`, to which a relation leads.
    pub fn in_related(mut self: Box<Self>, id: &str, table: &Table) -> Box<Self> {
        self.cause = match self.cause {
            Cause::Model(error) => Cause::Model(error.in_related(table).in_schema_of(id)),
            Cause::Fault(fault) => Cause::Fault(fault),
        };
        self
    }

    /// Whether a schema that is newer than ours may know what is asked for.
    pub fn may_be_stale(&self) -> bool {
        match &self.cause {
            Cause::Model(error) => error.is_unknown_name() || matches!(error, query::Error::UnknownArgument { .. }),
            Cause::Fault(fault) => matches!(fault.code, Code::UnknownTable | Code::UnknownDatabase | Code::Unavailable),
        }
    }
}

impl From<query::Error> for Cause {
    fn from(error: query::Error) -> Self {
        Cause::Model(error)
    }
}

impl From<Fault> for Cause {
    fn from(fault: Fault) -> Self {
        Cause::Fault(fault)
    }
}

/// Says where in the document a result went wrong.
pub trait Located<T> {
    /// The result, with refusals located at `at`.
    fn at(self, at: Pos) -> Result<T>;
}

impl<T> Located<T> for std::result::Result<T, query::Error> {
    fn at(self, at: Pos) -> Result<T> {
        self.map_err(|error| Refusal::new(error).at(at))
    }
}

impl<T> Located<T> for Result<T> {
    fn at(self, at: Pos) -> Result<T> {
        self.map_err(|refusal| refusal.at(at))
    }
}
