//! What a live query depends on: tables whose changes may change its answer.

use std::collections::BTreeSet;

use mesh::Fault;
use proto::auth::RuleRelations;
use query::{Read, read_accesses};

use super::feed::Source;
use crate::catalogue::Project;

/// What reads depend on.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Dependencies {
    /// All sources of changes.
    pub sources: BTreeSet<Source>,
    /// Those that the caller asked for; the others are looked at by rules alone, and not told of.
    own: BTreeSet<Source>,
}

impl Dependencies {
    /// Of `reads`, whose rules look at the tables that `relations` lead to.
    pub fn of(project: &Project, reads: &[Read], relations: &[RuleRelations]) -> Result<Self, Fault> {
        let mut own = BTreeSet::from([Source::Rules]);
        let mut by_rules = Vec::new();
        // Accesses are numbered over all reads, as they were authorised.
        let mut index = 0;
        for read in reads {
            let schema = project.schema(&read.database)?;
            let source = |(database, table): (Option<&str>, &str)| Source::Table {
                project: project.id.as_ref().to_owned(),
                database: database.unwrap_or(&read.database).to_owned(),
                table: table.to_owned(),
            };
            for access in read_accesses(schema, read).map_err(Fault::from)? {
                let table = (access.database, access.table);
                own.insert(source(table));
                let paths = relations.iter().filter(|one| one.access == index).flat_map(|one| one.paths.iter());
                by_rules.extend(paths.flat_map(|path| schema.tables_along(table, path)).map(source));
                index += 1;
            }
        }
        let sources = own.iter().cloned().chain(by_rules).collect();
        Ok(Self { sources, own })
    }

    /// The fault of a source that cannot be followed, without the names of tables that only rules look at.
    pub fn disclosed(&self, source: &Source, fault: Fault) -> Fault {
        match self.own.contains(source) {
            true => fault,
            false => Fault::new(fault.code, "the changes of a table that the rules look at cannot be followed"),
        }
    }
}
