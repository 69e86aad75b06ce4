//! What the caller of a watch is told: the rows that pass the condition and the grant, and what of them.

use std::sync::Arc;

use query::{GrantTerms, Table};

use crate::{
    Error,
    access::Granted,
    plan::{Plan, Told},
    position::Fingerprint,
    row_rights::RowRights,
};

/// Rights of a caller to what a watch tells.
pub struct Rights {
    /// The grants that they are.
    pub granted: Granted,
    /// What is told of a row.
    pub told: Arc<Told>,
    /// How rows are decided on.
    pub decision: Decision,
    /// The same for the same query, columns and rights.
    pub fingerprint: Fingerprint,
}

/// How it is decided whether a row is told.
pub enum Decision {
    /// In memory, by a condition.
    Memory(Arc<RowRights>),
    /// By the database: comparisons with this column or over this relation are known there alone. `None` where the rules
    /// make them, of which callers are told no names.
    Database(Option<String>),
}

impl Rights {
    /// The rights that grants for the read of a plan give.
    pub fn of(plan: &Plan, granted: Granted) -> Result<Self, Error> {
        let own = granted.own()?;
        let table = plan.table()?;
        let told = Arc::new(plan.told(own)?);
        let fingerprint = fingerprint(plan, table, &granted);
        let asked = &plan.request.read.node.filter;
        let decision = match (asked.undecidable(table), own.filter.undecidable(table)) {
            (Some(name), _) => Decision::Database(Some(name.to_owned())),
            (None, Some(_)) => Decision::Database(None),
            (None, None) => Decision::Memory(Arc::new(RowRights {
                fingerprint,
                filter: own.filter.typed(table)?.and(asked.clone()),
                told: told.clone(),
                schema: plan.schema.clone(),
                table: table.name.clone(),
            })),
        };
        Ok(Self { granted, told, decision, fingerprint })
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
