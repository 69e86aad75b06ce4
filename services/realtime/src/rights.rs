//! What the caller of a watch is told: the rows that pass the condition and the grant, and what of them.

use query::{Filter, GrantTerms, Row, Table};

use crate::{
    Error,
    access::Granted,
    feed::RowVersion,
    plan::{Plan, Told},
    position::Fingerprint,
};

/// Rights of a caller to what a watch tells.
pub struct Rights {
    /// The grants that they are.
    pub granted: Granted,
    /// What is told of a row.
    pub told: Told,
    /// How rows are decided on.
    pub decision: Decision,
    /// The same for the same query, columns and rights.
    pub fingerprint: Fingerprint,
}

/// How it is decided whether a row is told.
pub enum Decision {
    /// In memory, by this condition.
    Memory(Filter),
    /// By the database: comparisons with this column or over this relation are known there alone.
    Database(String),
}

impl Rights {
    /// The rights that grants for the read of a plan give.
    pub fn of(plan: &Plan, granted: Granted) -> Result<Self, Error> {
        let own = granted.own()?;
        let table = plan.table()?;
        let told = plan.told(own)?;
        let asked = &plan.request.read.node.filter;
        let decision = match asked.undecidable(table).or_else(|| own.filter.undecidable(table)) {
            Some(name) => Decision::Database(name.to_owned()),
            None => Decision::Memory(own.filter.typed(table)?.and(asked.clone())),
        };
        let fingerprint = fingerprint(plan, table, &granted);
        Ok(Self { granted, told, decision, fingerprint })
    }

    /// Whether a row is told, where memory decides.
    pub fn pass(&self, plan: &Plan, version: &RowVersion) -> bool {
        let (Decision::Memory(filter), Ok(table)) = (&self.decision, plan.table()) else { return false };
        filter.matches(&Row { table, columns: &version.values, related: &[] }) == Some(true)
    }
}

/// Hash of the query, the columns of the table, and of what decides in the grants which rows are told and what of them.
fn fingerprint(plan: &Plan, table: &Table, granted: &Granted) -> Fingerprint {
    let query = (&plan.request.read, &plan.request.before, &plan.key);
    let mut parts = vec![format!("{query:?}"), format!("{:?}", table.columns)];
    parts.extend(granted.terms.iter().map(|terms| {
        let GrantTerms { project, database, table, filter, columns, .. } = &**terms;
        format!("{:?}", (project, database, table, filter, columns))
    }));
    let parts: Vec<&[u8]> = parts.iter().map(String::as_bytes).collect();
    Fingerprint::of(&parts)
}
