//! Rights to rows that memory decides on: which changes are told, and what of them.

use std::sync::Arc;

use proto::realtime::Event;
use query::{Filter, Row, Schema, Table};

use crate::{
    image::{RowChange, RowVersion},
    plan::Told,
    position::Fingerprint,
};

/// Rights to the rows of a watch that memory decides on. They are the same for watches of the same fingerprint.
#[derive(Debug)]
pub struct RowRights {
    /// Hash of the query, the table's columns and the grants.
    pub fingerprint: Fingerprint,
    /// The rows that are told.
    pub filter: Filter,
    /// What is told of them.
    pub told: Arc<Told>,
    /// The schema that they were planned for.
    pub schema: Arc<Schema>,
    /// The name of the table.
    pub table: String,
}

/// Which images of a change are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenImages {
    /// The row as it was.
    pub before: bool,
    /// The row as it is.
    pub after: bool,
}

/// What a change is to who may see these images: a changed key is two events.
pub type ChangeEvents = [Option<Event>; 2];

impl RowRights {
    /// The table.
    pub fn table(&self) -> &Table {
        self.schema.table(&self.table).expect("a plan has found the table in its schema")
    }

    /// Which images of a change are told; `None` where none is, or they differ in nothing that is.
    pub fn seen(&self, change: &RowChange) -> Option<SeenImages> {
        let seen =
            SeenImages { before: self.passes(change.before.as_ref()), after: self.passes(change.after.as_ref()) };
        match (&change.before, &change.after) {
            _ if !seen.before && !seen.after => None,
            (Some(before), Some(after)) if seen.before && seen.after => {
                let is_told = self.told.is_moved(&before.image, &after.image)
                    || !self.told.is_hidden(&before.image, &after.image);
                is_told.then_some(seen)
            }
            _ => Some(seen),
        }
    }

    fn passes(&self, version: Option<&RowVersion>) -> bool {
        let row = |version: &'_ RowVersion| {
            self.filter.matches(&Row { table: self.table(), columns: &version.values, related: &[] })
        };
        version.is_some_and(|version| row(version) == Some(true))
    }

    /// What is told of a change of which these images are seen.
    pub fn events(&self, change: &RowChange, seen: SeenImages, committed_ms: i64) -> ChangeEvents {
        let told = &self.told;
        let gone = |before: &RowVersion| Event::Delete(told.gone(&before.image, committed_ms));
        let row = |after: &RowVersion, before: Option<&RowVersion>| {
            told.row(&after.image, before.map(|before| &before.image), committed_ms)
        };
        match (&change.before, &change.after) {
            (None, Some(after)) if seen.after => [Some(Event::Insert(row(after, None))), None],
            (Some(before), None) if seen.before => [Some(gone(before)), None],
            (Some(before), Some(after)) if told.is_moved(&before.image, &after.image) => {
                [seen.before.then(|| gone(before)), seen.after.then(|| Event::Insert(row(after, None)))]
            }
            (Some(before), Some(after)) => match (seen.before, seen.after) {
                (true, true) => [Some(Event::Update(row(after, Some(before)))), None],
                (false, true) => [Some(Event::Update(row(after, None))), None],
                (true, false) => [Some(gone(before)), None],
                (false, false) => [None, None],
            },
            _ => [None, None],
        }
    }
}
