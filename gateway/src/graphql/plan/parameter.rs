//! Kept plans, and their parameters: variables that are the value of a key, or stand in the documents of an insert, and
//! nothing else.
//!
//! A plan depends on such a key in one condition, whose form is the same for every value, and on documents only where
//! they stand.

use std::sync::Arc;

use async_graphql_value::Value as AstValue;
use query::{Budget, Column, Document, Filter, Limits, Mutation, MutationKind, Parser, Read, Value};

use super::{Plan, PlanContext};
use crate::graphql::variables::Variables;

/// A plan that serves every request of its operation.
#[derive(Debug)]
pub struct KeptPlan {
    /// The plan, without the conditions and the documents that its parameters make.
    plan: Arc<Plan>,
    parameters: Parameters,
    /// Limits that it was planned within.
    limits: Limits,
    /// What it counts for them without the documents of its parameters.
    values: usize,
}

/// Parameters of a plan.
#[derive(Debug, Default)]
pub struct Parameters {
    /// Variables that are values of keys.
    pub keys: Vec<KeyParameter>,
    /// Documents of inserts in which variables stand.
    pub documents: Vec<DocumentsParameter>,
}

/// Documents of an insert in which variables stand.
#[derive(Debug)]
pub struct DocumentsParameter {
    /// Index of the mutation.
    pub write: usize,
    /// Index of its table in the names.
    pub table: usize,
    /// The argument as it stands in the document.
    pub written: AstValue,
    /// Values that were counted of it.
    pub values: usize,
}

/// A variable that is the value of a column of a key.
#[derive(Debug, Clone)]
pub struct KeyParameter {
    /// Index of the read.
    pub read: usize,
    /// Index of its condition, where the key has several columns.
    pub condition: Option<usize>,
    /// Name of the variable.
    pub variable: String,
    /// The column.
    pub column: Column,
}

impl Parameters {
    fn are_none(&self) -> bool {
        self.keys.is_empty() && self.documents.is_empty()
    }
}

impl KeptPlan {
    /// Keeps `plan`, whose parameters are to be bound and for which so many values were counted.
    pub fn new(plan: Arc<Plan>, parameters: Parameters, limits: Limits, values: usize) -> Self {
        let values = values - parameters.documents.iter().map(|documents| documents.values).sum::<usize>();
        if parameters.are_none() {
            return Self { plan, parameters, limits, values };
        }
        let mut plan = Plan::clone(&plan);
        parameters.keys.iter().for_each(|key| key.set(&mut plan.reads, Filter::TRUE));
        parameters.documents.iter().for_each(|documents| documents.set(&mut plan.writes, Arc::default()));
        Self { plan: Arc::new(plan), parameters, limits, values }
    }

    /// The plan with the values of the variables. `None` under other limits, where a value cannot be that of its key or
    /// column, and where documents are beyond the limits: planning says why.
    pub fn bind(&self, context: PlanContext<'_>, limits: Limits) -> Option<Arc<Plan>> {
        if limits != self.limits {
            return None;
        }
        if self.parameters.are_none() {
            return Some(self.plan.clone());
        }
        let mut plan = Plan::clone(&self.plan);
        for key in &self.parameters.keys {
            let filter = key.filter(context.variables)?;
            key.set(&mut plan.reads, filter);
        }
        let mut budget = Budget::with_values(limits, self.values);
        for documents in &self.parameters.documents {
            let docs = context.docs(documents.table, &documents.written, &mut budget).ok()?;
            documents.set(&mut plan.writes, docs);
        }
        Some(Arc::new(plan))
    }
}

impl DocumentsParameter {
    fn set(&self, writes: &mut [(Arc<str>, Mutation)], rows: Arc<[Document]>) {
        if let (_, Mutation { kind: MutationKind::Insert { docs }, .. }) = &mut writes[self.write] {
            *docs = rows;
        }
    }
}

impl KeyParameter {
    /// The condition that the column has the value of the variable, if that is a single value of its type.
    pub fn filter(&self, variables: &Variables<'_>) -> Option<Filter> {
        match variables.value(&self.variable).ok()?? {
            value @ (Value::Bool(_) | Value::Int(_) | Value::Number(_) | Value::Text(_)) => {
                Parser::equals(&self.column, value, &mut Budget::default()).ok()
            }
            Value::Null | Value::List(_) | Value::Object(_) => None,
        }
    }

    fn set(&self, reads: &mut [Read], filter: Filter) {
        let whole = &mut reads[self.read].node.filter;
        match (self.condition, whole) {
            (Some(index), Filter::And(conditions)) => conditions[index] = filter,
            (_, whole) => *whole = filter,
        }
    }
}
