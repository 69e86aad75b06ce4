//! What a live query depends on: tables whose changes may change its answer, and which of their rows.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};

use mesh::Fault;
use proto::auth::RuleRelations;
use query::{Concern, GrantTerms, Read, RuleFilter, read_concerns};

use super::{feed::Source, interests::TableRows};
use crate::catalogue::Project;

/// What reads depend on.
#[derive(Debug, Default, PartialEq)]
pub struct Dependencies {
    /// All sources of changes.
    pub sources: BTreeMap<Source, SourceRows>,
    /// Those that the caller asked for; the others are looked at by rules alone, and not told of.
    own: BTreeSet<Source>,
}

/// What reads depend on of a source.
#[derive(Debug, PartialEq)]
pub struct SourceRows {
    /// The rows; `None` for all that happens.
    pub rows: Option<TableRows>,
    /// The ids of the databases whose snapshots say what was seen.
    pub read_by: BTreeSet<String>,
}

impl Dependencies {
    /// Of `reads` with the grants `terms`, as far as these are known, whose rules look at the tables that `relations` lead
    /// to.
    pub fn of(
        project: &Project,
        reads: &[Read],
        relations: &[RuleRelations],
        terms: &[Arc<GrantTerms>],
    ) -> Result<Self, Fault> {
        let rules = SourceRows { rows: None, read_by: BTreeSet::new() };
        let mut found =
            Self { sources: BTreeMap::from([(Source::Rules, rules)]), own: BTreeSet::from([Source::Rules]) };
        // Accesses are numbered over all reads, as they were authorised.
        let mut index = 0;
        for read in reads {
            let schema = project.schema(&read.database)?;
            let source = |(database, table): (Option<&str>, &str)| Source::Table {
                project: project.id.as_ref().to_owned(),
                database: database.unwrap_or(&read.database).to_owned(),
                table: table.to_owned(),
            };
            let granted: Vec<&RuleFilter> = terms.iter().skip(index).map(|terms| &terms.filter).collect();
            for Concern { database, table, filter } in read_concerns(schema, read, &granted).map_err(Fault::from)? {
                let own = source((database, &table.name));
                found.own.insert(own.clone());
                let name = (database.map(str::to_owned), table.name.clone());
                found.add(own, Some(TableRows { schema: schema.clone(), table: name, filter }), &read.database);
                let paths = relations.iter().filter(|one| one.access == index).flat_map(|one| one.paths.iter());
                let looked_at = paths.flat_map(|path| schema.tables_along((database, &table.name), path)).map(source);
                looked_at.for_each(|source| found.add(source, None, &read.database));
                index += 1;
            }
        }
        Ok(found)
    }

    /// The tables that the caller asked for.
    pub fn named_tables(&self) -> impl Iterator<Item = &Source> {
        self.own.iter().filter(|source| matches!(source, Source::Table { .. }))
    }

    /// Adds rows of a source, or all of them, to what is known of it.
    fn add(&mut self, source: Source, rows: Option<TableRows>, read_by: &str) {
        let known = match self.sources.entry(source) {
            Entry::Vacant(place) => {
                place.insert(SourceRows { rows, read_by: BTreeSet::from([read_by.to_owned()]) });
                return;
            }
            Entry::Occupied(known) => known.into_mut(),
        };
        known.read_by.insert(read_by.to_owned());
        known.rows = known.rows.take().zip(rows).map(|(known, rows)| {
            let filter = if known.filter == rows.filter { rows.filter } else { known.filter.or(rows.filter) };
            TableRows { filter, ..known }
        });
    }

    /// The fault of a source that cannot be followed, without the names of tables that only rules look at.
    pub fn disclosed(&self, source: &Source, fault: Fault) -> Fault {
        match self.own.contains(source) {
            true => fault,
            false => Fault::new(fault.code, "the changes of a table that the rules look at cannot be followed"),
        }
    }
}
