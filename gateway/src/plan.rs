//! Query planning for the protocols that address one table: names of a request are resolved against the schema.

use std::sync::Arc;

use mesh::Fault;
use query::{Budget, Error, Operation, Parser, Spelling, Table};

use crate::{
    Service,
    catalogue::{self, Database, Project, ProjectRef},
    edge::{AttemptedAccess, Caller},
};

/// Reference to a table by the names in a request.
#[derive(Debug, Clone, Copy)]
pub struct TableRef<'a> {
    /// The project's id.
    pub project: &'a str,
    /// The database's id or alias.
    pub database: &'a str,
    /// The table's name.
    pub table: &'a str,
}

/// A plan and what it was made for.
pub struct Planned<T> {
    /// The project it was planned for.
    pub project: Arc<Project>,
    /// The database's id.
    pub database: Arc<str>,
    /// The plan.
    pub plan: T,
}

/// Planner of one request to a project; counts what the request asks for against its limits.
pub struct RequestPlanner<'a> {
    service: &'a Service,
    caller: &'a Caller,
    project: Arc<Project>,
    budget: Budget,
}

impl<'a> RequestPlanner<'a> {
    /// A planner for a request to a project.
    ///
    /// Errors: `UNKNOWN_PROJECT`.
    pub async fn begin(service: &'a Service, caller: &'a Caller, project: ProjectRef<'_>) -> Result<Self, Fault> {
        Ok(Self::new(service, caller, service.edge().project(caller, project).await?))
    }

    /// A planner for a request to `project`.
    pub fn new(service: &'a Service, caller: &'a Caller, project: Arc<Project>) -> Self {
        Self { service, caller, budget: service.budget(&project), project }
    }

    /// The gateway.
    pub fn service(&self) -> &'a Service {
        self.service
    }

    /// The project.
    pub fn project(&self) -> &Project {
        &self.project
    }

    /// Plans against the table that `table_ref` names; where a name is unknown, against a refreshed schema once more.
    ///
    /// Errors: in this order, what is wrong with the project, the database, the table, the rest; all but the first only
    /// for callers who may use the table, and a denial for others. An unreachable database is reported to all.
    pub async fn plan<T>(
        &mut self,
        table_ref: TableRef<'_>,
        operation: Operation,
        plan: impl Fn(Parser<'_>, &Table, &mut Budget) -> Result<T, Error>,
    ) -> Result<Planned<T>, Fault> {
        let (edge, caller) = (self.service.edge(), self.caller);
        let project = self.project.clone();
        let attempt = AttemptedAccess { database: table_ref.database, table: table_ref.table, operation };
        let Some(database) = project.database(table_ref.database) else {
            let fault = catalogue::unknown_database(&project, table_ref.database);
            let fault = Box::pin(edge.denied_or(caller, &project, attempt, fault)).await;
            edge.log_refusal(caller, &fault);
            return Err(fault);
        };
        let attempt = AttemptedAccess { database: &database.id, ..attempt };
        let error = match self.attempt(database, table_ref.table, &plan) {
            Attempt::Planned(plan) => {
                let database = database.id.clone();
                return Ok(Planned { project, database, plan });
            }
            Attempt::Unreachable => return Err(catalogue::unreachable(database)),
            Attempt::Wrong(error) => error,
        };
        // Where crud cannot look, what is known stays what is known.
        if error.is_unknown_name()
            && let Ok(Some(project)) = Box::pin(edge.refreshed(caller, &project)).await
            && let Some(database) = project.database(table_ref.database)
            && let Attempt::Planned(plan) = self.attempt(database, table_ref.table, &plan)
        {
            self.project = project.clone();
            let database = database.id.clone();
            return Ok(Planned { project, database, plan });
        }
        let fault = Box::pin(edge.denied_or_error(caller, &project, attempt, error)).await;
        edge.log_refusal(caller, &fault);
        Err(fault)
    }

    /// Plans against what is known of `database`. Only what is planned counts.
    fn attempt<T>(
        &mut self,
        database: &Database,
        table: &str,
        plan: impl Fn(Parser<'_>, &Table, &mut Budget) -> Result<T, Error>,
    ) -> Attempt<T> {
        let Some(schema) = &database.schema else { return Attempt::Unreachable };
        let parser = Parser { schema, spelling: Spelling::Dollar };
        let mut budget = self.budget.clone();
        let planned = schema.table(table).and_then(|table| {
            budget.operation()?;
            plan(parser, table, &mut budget)
        });
        match planned {
            Ok(plan) => {
                self.budget = budget;
                Attempt::Planned(plan)
            }
            Err(error) => Attempt::Wrong(error),
        }
    }
}

enum Attempt<T> {
    Planned(T),
    Unreachable,
    Wrong(Error),
}
