//! From an operation of a document to reads and mutations of the model.

mod arguments;
mod root;
mod select;
#[cfg(test)]
mod tests;
mod write;

use async_graphql_parser::{
    Pos,
    types::{OperationDefinition, OperationType},
};
use query::{Budget, Guard, Mutation, Operation, Read};

use self::select::Group;
use super::{
    document::Document,
    names::Names,
    refusal::{Place, Refusal, Result},
    variables::Variables,
};

/// What a request asks for.
#[derive(Debug, PartialEq)]
pub struct Plan {
    /// Whether rows are read or written.
    pub kind: Kind,
    /// Members of `data`, in their order.
    pub roots: Vec<Root>,
    /// Reads that they refer to.
    pub reads: Vec<Read>,
    /// Mutations that they refer to, each with the id of its database.
    pub writes: Vec<(String, Mutation)>,
}

/// Whether rows are read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `query`
    Query,
    /// `mutation`
    Mutation,
}

/// A member of `data`.
#[derive(Debug, PartialEq)]
pub struct Root {
    /// The response key.
    pub key: String,
    /// Where the field stands.
    pub at: Pos,
    /// What it becomes.
    pub what: What,
}

/// What a member of `data` becomes.
#[derive(Debug, PartialEq)]
pub enum What {
    /// `Query` or `Mutation`.
    Typename,
    /// null
    Null,
    /// The answer of the read at an index.
    Read(usize),
    /// The result of the mutation at an index, with these members.
    Write(usize, Vec<Member>),
}

/// A member of a mutation's result.
#[derive(Debug, PartialEq)]
pub struct Member {
    /// The response key.
    pub key: String,
    /// What it is.
    pub what: Part,
}

/// What a mutation's result can say.
#[derive(Debug, PartialEq)]
pub enum Part {
    /// 200, or the status that the failure's code goes with.
    Status,
    /// null, or what went wrong.
    Error,
    /// How many rows.
    Affected,
    /// The rows.
    Returning,
    /// `AlbumMutation`
    Typename(String),
}

/// The counters of one request.
pub struct Counters {
    /// What it asks for.
    pub budget: Budget,
    /// Selections that are looked at, through fragments wherever they are spread: the document's own size says little of
    /// the work.
    pub guard: Guard,
}

impl Plan {
    /// Plans `operation`, within what the counters let pass.
    pub fn new(
        document: &Document,
        operation: &OperationDefinition,
        names: &Names,
        variables: &Variables<'_>,
        counters: Counters,
    ) -> Result<Self> {
        let kind = match operation.ty {
            OperationType::Query => Kind::Query,
            OperationType::Mutation => Kind::Mutation,
            OperationType::Subscription => return Err(Refusal::malformed("Invalid operation: subscription")),
        };
        let Counters { budget, guard } = counters;
        let mut planner = Planner { document, names, variables, budget, guard };
        let mut plan = Plan { kind, roots: Vec::new(), reads: Vec::new(), writes: Vec::new() };
        for (key, group) in planner.collect(&[&operation.selection_set.node])? {
            let what = match kind {
                Kind::Query => planner.query_root(&group, &mut plan.reads),
                Kind::Mutation => planner.mutation_root(&group, &mut plan.writes),
            };
            let what = what.map_err(|refusal| under(refusal, key, &group))?;
            plan.roots.push(Root { key: key.to_owned(), at: group.at, what });
        }
        Ok(plan)
    }

    /// The member of `data` that the read or mutation at an index is for.
    pub fn root_of(&self, index: usize) -> Option<&Root> {
        self.roots.iter().find(|root| match &root.what {
            What::Read(read) => *read == index,
            What::Write(write, _) => *write == index,
            What::Typename | What::Null => false,
        })
    }
}

struct Planner<'a> {
    document: &'a Document,
    names: &'a Names,
    variables: &'a Variables<'a>,
    budget: Budget,
    guard: Guard,
}

/// `refusal` as of the field `key`, which `group` selects.
fn under(mut refusal: Box<Refusal>, key: &str, group: &Group<'_>) -> Box<Refusal> {
    refusal.path.insert(0, key.to_owned());
    refusal.at(group.at)
}

/// `refusal` as of a root table, which is not to be learned of by those who may not use it.
fn about(mut refusal: Box<Refusal>, names: &Names, table: usize, operation: Operation) -> Box<Refusal> {
    refusal.places = vec![Place {
        database: names.database_id(table).to_owned(),
        table: names.stored(table).name.clone(),
        operation,
    }];
    refusal
}
