//! From an operation of a document to reads and mutations of the model.

mod arguments;
mod cache;
mod call;
mod changes;
mod feed;
mod introspect;
mod parameter;
mod root;
mod select;
#[cfg(test)]
mod tests;
mod write;

use std::{cell::Cell, sync::Arc};

use async_graphql_parser::{
    Pos,
    types::{OperationDefinition, OperationType},
};
use query::{Budget, Guard, Mutation, Operation, Read};

pub use self::{
    cache::PlanCache,
    call::{PlannedCall, ServiceMember, ServiceValue},
    changes::{ChangeMember, ChangesPlan},
    feed::{FeedMember, FeedPlan, PAYLOAD_TYPENAME},
    introspect::IntrospectionField,
};
use self::{
    cache::{KeptSelection, PlanKey, SelectionKey, SetId},
    call::CallForm,
    parameter::{KeptPlan, Parameters},
    select::Group,
};
use super::{
    document::Document,
    names::Names,
    refusal::{Refusal, Result, RootAccess},
    variables::Variables,
};

/// Query plan of one operation.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Whether rows are read or written.
    pub kind: Kind,
    /// Members of `data`, in their order.
    pub fields: Arc<[ResponseField]>,
    /// Reads that they refer to.
    pub reads: Vec<Read>,
    /// Mutations that they refer to, each with the id of its database.
    pub writes: Vec<(Arc<str>, Mutation)>,
    /// Calls of functions that they refer to.
    pub calls: Vec<PlannedCall>,
    /// Fields of introspection that they refer to.
    pub introspected: Vec<IntrospectionField>,
    /// What is told of the rows of the only read, where each change of one is told.
    pub changes: Option<Arc<RowChanges>>,
}

/// Form in which each change of a row is told.
#[derive(Debug, Clone, PartialEq)]
pub enum RowChanges {
    /// That of the published schema.
    Typed(ChangesPlan),
    /// That of the dialect.
    Dialect(FeedPlan),
}

impl RowChanges {
    fn memory_bytes(&self) -> usize {
        match self {
            RowChanges::Typed(changes) => changes.memory_bytes(),
            RowChanges::Dialect(feed) => feed.memory_bytes(),
        }
    }
}

/// Whether rows are read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `query`
    Query,
    /// `mutation`
    Mutation,
    /// `subscription`: a query of one field, which is answered again and again.
    Subscription,
}

/// A root field of the response: a member of `data`.
#[derive(Debug, Clone, PartialEq)]
pub struct ResponseField {
    /// The response key.
    pub key: String,
    /// Position of the field in the document.
    pub at: Pos,
    /// Source of its value.
    pub source: FieldSource,
}

/// Source of the value of a member of `data`.
#[derive(Debug, Clone, PartialEq)]
pub enum FieldSource {
    /// `Query` or `Mutation`.
    Typename,
    /// null
    Null,
    /// The answer of the field of introspection at an index.
    Introspected(usize),
    /// The answer of the read at an index.
    Read(usize),
    /// The answer of the call at an index.
    Call(usize),
    /// An object of answers of calls.
    Service(Vec<ServiceMember>),
    /// The result of the mutation at an index, with these members.
    Write(usize, Vec<PayloadField>),
}

/// A member of a mutation payload.
#[derive(Debug, Clone, PartialEq)]
pub struct PayloadField {
    /// The response key.
    pub key: String,
    /// Its value.
    pub value: PayloadValue,
}

/// Value of a member of a mutation payload.
#[derive(Debug, Clone, PartialEq)]
pub enum PayloadValue {
    /// 200, or the status that the failure's code goes with.
    Status,
    /// The message of the error, or null.
    Error,
    /// Number of rows.
    Affected,
    /// The rows.
    Returning,
    /// `AlbumMutation`
    Typename(String),
}

/// The counters of one request.
pub struct Counters {
    /// Budget of everything that it asks for.
    pub budget: Budget,
    /// Selections that are looked at, through fragments wherever they are spread: the document's own size says little of
    /// the work.
    pub guard: Guard,
}

/// What a plan depends on besides its operation and its limits.
#[derive(Debug, Clone, Copy)]
pub struct PlanContext<'a> {
    /// The document.
    pub document: &'a Document,
    /// Names of the project's tables.
    pub names: &'a Names,
    /// Values of its variables.
    pub variables: &'a Variables<'a>,
}

impl Plan {
    /// The plan of `operation`, within the limits of the counters. One without variables but for values of keys and
    /// documents of inserts is made once: under the same limits, the counters count the same each time.
    pub fn of(context: PlanContext<'_>, operation: &OperationDefinition, counters: Counters) -> Result<Arc<Self>> {
        let PlanContext { document, names, variables } = context;
        let key = PlanKey { names: names.id, set: SetId::of(&operation.selection_set.node) };
        let limits = *counters.budget.limits();
        variables.begin();
        if let Some(kept) = document.plans.plan(key)
            && let Some(plan) = kept.bind(context, limits)
        {
            return Ok(plan);
        }
        variables.begin();
        let mut planner = Planner::new(context, counters);
        let plan = Arc::new(planner.plan(operation)?);
        let (parameters, bytes) = (std::mem::take(&mut planner.parameters), planner.bytes.get());
        if !planner.has_variables.get() {
            let kept = KeptPlan::new(plan.clone(), parameters, limits, planner.budget.values());
            document.plans.keep_plan(key, kept, bytes);
        }
        if planner.has_variables.get() || !variables.are_none() {
            document.plans.keep_selections(&planner.selections);
        }
        Ok(plan)
    }

    /// Approximate bytes of memory that its reads and its keys take.
    pub fn memory_bytes(&self) -> usize {
        let keys: usize = self.fields.iter().map(|root| root.key.len()).sum();
        let changes = self.changes.as_ref().map_or(0, |changes| changes.memory_bytes());
        let params: usize = self.calls.iter().map(|planned| planned.call.params.len()).sum();
        self.reads.iter().map(Read::memory_bytes).sum::<usize>() + keys + changes + params
    }

    /// The member of `data` that the read or mutation at an index is for.
    pub fn field_of(&self, index: usize) -> Option<&ResponseField> {
        self.fields.iter().find(|root| match &root.source {
            FieldSource::Read(read) => *read == index,
            FieldSource::Write(write, _) => *write == index,
            FieldSource::Typename
            | FieldSource::Null
            | FieldSource::Introspected(_)
            | FieldSource::Call(_)
            | FieldSource::Service(_) => false,
        })
    }
}

impl AsRef<[Read]> for Plan {
    fn as_ref(&self) -> &[Read] {
        &self.reads
    }
}

struct Planner<'a> {
    document: &'a Document,
    names: &'a Names,
    variables: &'a Variables<'a>,
    budget: Budget,
    guard: Guard,
    /// Whether a variable was met that is no parameter: a plan with one is made anew for each request.
    has_variables: Cell<bool>,
    /// Variables that are values of keys, and documents in which variables stand.
    parameters: Parameters,
    /// Whether an argument was met since it was last unset.
    has_arguments: bool,
    /// Selections that are the same for every request, none of them inside another.
    selections: Vec<(SelectionKey, KeptSelection)>,
    /// Approximate memory of what is planned, in bytes: a fragment may bring a short text many times.
    bytes: Cell<usize>,
    /// Bytes of the parameters of calls.
    parameter_bytes: usize,
}

impl<'a> Planner<'a> {
    fn new(PlanContext { document, names, variables }: PlanContext<'a>, counters: Counters) -> Self {
        let Counters { budget, guard } = counters;
        let (has_variables, has_arguments, selections, bytes, parameter_bytes) = Default::default();
        let parameters = Parameters::default();
        Self {
            document,
            names,
            variables,
            budget,
            guard,
            has_variables,
            parameters,
            has_arguments,
            selections,
            bytes,
            parameter_bytes,
        }
    }

    fn plan(&mut self, operation: &'a OperationDefinition) -> Result<Plan> {
        let kind = match operation.ty {
            OperationType::Query => Kind::Query,
            OperationType::Mutation => Kind::Mutation,
            OperationType::Subscription => Kind::Subscription,
        };
        let (mut fields, mut reads, mut writes, mut introspected) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (mut calls, mut changes) = (Vec::new(), None);
        for (key, group) in self.collect(&[&operation.selection_set])? {
            let call_form = if kind == Kind::Query { CallForm::Query } else { CallForm::Any };
            let called = self.call_root((key, &group), call_form, &mut calls);
            if let Some(source) = called.map_err(|refusal| at_field(refusal, key, &group))? {
                fields.push(ResponseField { key: key.to_owned(), at: group.at, source });
                continue;
            }
            let source = match kind {
                Kind::Query if matches!(group.name(), "__schema" | "__type") => {
                    self.introspection_root(&group, &mut introspected)
                }
                Kind::Query => self.query_root(&group, &mut reads),
                Kind::Mutation => self.mutation_root(&group, &mut writes),
                Kind::Subscription => self.subscription_root(&group, &mut reads, &mut changes),
            };
            let source = source.map_err(|refusal| at_field(refusal, key, &group))?;
            fields.push(ResponseField { key: key.to_owned(), at: group.at, source });
        }
        if kind == Kind::Subscription && fields.len() != 1 {
            let text = format!("invalid subscription: expected one root field, found {}", fields.len());
            return Err(Refusal::malformed(text));
        }
        let is_of_service = matches!(fields.first(), Some(ResponseField { source: FieldSource::Service(_), .. }));
        if kind == Kind::Subscription && is_of_service && calls.len() != 1 {
            let text = format!("invalid subscription: expected one function, found {}", calls.len());
            return Err(Refusal::malformed(text));
        }
        if !writes.is_empty() && !calls.is_empty() {
            let text = "invalid mutation: calls of functions and changes of rows must be in documents of their own";
            return Err(Refusal::malformed(text));
        }
        Ok(Plan { kind, fields: fields.into(), reads, writes, calls, introspected, changes })
    }
}

/// Locates `refusal` at the field `key`, which `group` selects.
fn at_field(mut refusal: Box<Refusal>, key: &str, group: &Group<'_>) -> Box<Refusal> {
    refusal.path.insert(0, key.to_owned());
    refusal.at(group.at)
}

/// Ties `refusal` to a root table: only callers who may use the table get to see it.
fn at_table(mut refusal: Box<Refusal>, names: &Names, table: usize, operation: Operation) -> Box<Refusal> {
    refusal.accesses = vec![RootAccess {
        database: names.database_id(table).to_owned(),
        table: names.stored(table).name.clone(),
        operation,
    }];
    refusal
}
