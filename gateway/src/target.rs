//! From the names in a request to a plan against the schema: alike for all protocols that address one table.

use std::sync::Arc;

use mesh::Fault;
use query::{Budget, Error, Operation, Parser, Spelling, Table};

use crate::{
    Service,
    catalogue::{self, Database, Project},
    edge::{Caller, Place},
};

/// A table as a request names it.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The project's id.
    pub project: &'a str,
    /// The database's id or alias.
    pub database: &'a str,
    /// The table's name.
    pub table: &'a str,
}

/// What a request turned out to want.
pub struct Planned<T> {
    /// The project it was planned for.
    pub project: Arc<Project>,
    /// The database's id.
    pub database: String,
    /// The plan.
    pub plan: T,
}

/// The planning of one request to a project, and the counter of what it asks for.
pub struct Planning<'a> {
    service: &'a Service,
    caller: &'a Caller,
    budget: Budget,
}

impl<'a> Planning<'a> {
    /// Begins the planning of a request to the project called `id`.
    ///
    /// Errors: `UNKNOWN_PROJECT`.
    pub async fn begin(service: &'a Service, caller: &'a Caller, id: &str) -> Result<Self, Fault> {
        let project = service.edge().project(caller, id).await?;
        Ok(Self { service, caller, budget: service.budget(&project) })
    }

    /// What `plan` makes of the table that `target` names. Where it names something unknown, crud looks at the database
    /// once more.
    ///
    /// Errors: in this order, what is wrong with the project, the database, the table, the rest; all but the first only
    /// for callers who may use the table, and a denial for others. That a database cannot be reached is told to all.
    pub async fn plan<T>(
        &mut self,
        target: Target<'_>,
        operation: Operation,
        plan: impl Fn(Parser<'_>, &Table, &mut Budget) -> Result<T, Error>,
    ) -> Result<Planned<T>, Fault> {
        let (edge, caller) = (self.service.edge(), self.caller);
        let project = edge.project(caller, target.project).await?;
        let place = Place { database: target.database, table: target.table, operation };
        let Some(database) = project.database(target.database) else {
            let fault = catalogue::unknown_database(&project, target.database);
            return Err(Box::pin(edge.veil(caller, &project, place, fault)).await);
        };
        let place = Place { database: &database.id, ..place };
        let error = match self.attempt(database, target.table, &plan) {
            Attempt::Planned(plan) => {
                let database = database.id.clone();
                return Ok(Planned { project, database, plan });
            }
            Attempt::Unreachable => return Err(catalogue::unreachable(&database.id)),
            Attempt::Wrong(error) => error,
        };
        // Where crud cannot look, what is known stays what is known.
        if error.is_unknown_name()
            && let Ok(Some(project)) = Box::pin(edge.refreshed(caller, &project)).await
            && let Some(database) = project.database(target.database)
            && let Attempt::Planned(plan) = self.attempt(database, target.table, &plan)
        {
            let database = database.id.clone();
            return Ok(Planned { project, database, plan });
        }
        Err(Box::pin(edge.refuse(caller, &project, place, error)).await)
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
