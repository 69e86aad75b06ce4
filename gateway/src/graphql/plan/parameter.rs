//! Kept plans, and their parameters: variables that are the value of a key and nothing else.
//!
//! A plan depends on such a variable in one condition, whose form is the same for every value.

use std::sync::Arc;

use query::{Budget, Column, Filter, Limits, Parser, Read, Value};

use super::Plan;
use crate::graphql::variables::Variables;

/// A plan that serves every request of its operation.
#[derive(Debug)]
pub struct KeptPlan {
    /// The plan, without the conditions that its parameters make.
    plan: Arc<Plan>,
    parameters: Vec<KeyParameter>,
    /// Limits that it was planned within.
    limits: Limits,
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

impl KeptPlan {
    /// Keeps `plan`, whose parameters are to be bound.
    pub fn new(plan: Arc<Plan>, parameters: Vec<KeyParameter>, limits: Limits) -> Self {
        if parameters.is_empty() {
            return Self { plan, parameters, limits };
        }
        let mut plan = Plan::clone(&plan);
        parameters.iter().for_each(|parameter| parameter.set(&mut plan.reads, Filter::TRUE));
        Self { plan: Arc::new(plan), parameters, limits }
    }

    /// The plan with the values of `variables`. `None` under other limits, and where a value cannot be that of its key:
    /// planning says why.
    pub fn bind(&self, variables: &Variables<'_>, limits: Limits) -> Option<Arc<Plan>> {
        if limits != self.limits {
            return None;
        }
        if self.parameters.is_empty() {
            return Some(self.plan.clone());
        }
        let Plan { kind, fields, reads, writes, introspected, changes } = &*self.plan;
        let mut reads = reads.clone();
        for parameter in &self.parameters {
            let filter = parameter.filter(variables)?;
            parameter.set(&mut reads, filter);
        }
        let (fields, writes, introspected, changes) =
            (fields.clone(), writes.clone(), introspected.clone(), changes.clone());
        Some(Arc::new(Plan { kind: *kind, fields, reads, writes, introspected, changes }))
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
