//! Looks at the catalog beside the reading of a slot: the stream does not tell of partitions that are made, or of tables that
//! somebody takes out of the publication. Changes do not wait for such a look, which takes many times as long as they do.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tokio::sync::oneshot::{self, error::TryRecvError};

use super::{
    SlotReader,
    setup::{SlotRelations, SlotState},
};
use crate::store::postgres::Postgres;

/// How often the catalog is looked at while there are changes.
const CATALOG_INTERVAL: Duration = Duration::from_secs(1);

/// A look that was begun; it ends with the reader.
pub type CatalogLook = oneshot::Receiver<(BTreeMap<String, SlotRelations>, SlotState)>;

impl Postgres {
    /// Begins a look where it is time for one; whether one has found that tables are not what they were, or was not possible.
    pub(super) fn is_other_beside(&self, reader: &mut SlotReader) -> bool {
        let Some(look) = &mut reader.beside else {
            if !reader.pending.is_empty() && reader.catalog_seen.elapsed() >= CATALOG_INTERVAL {
                reader.beside = Some(self.look_beside(reader));
            }
            return false;
        };
        let is_other = match look.try_recv() {
            Err(TryRecvError::Empty) => return false,
            Err(TryRecvError::Closed) => true,
            Ok((catalog, state)) => !reader.is_as(&catalog, &state),
        };
        (reader.beside, reader.catalog_seen) = (None, Instant::now());
        is_other
    }

    fn look_beside(&self, reader: &SlotReader) -> CatalogLook {
        let (mut tells, look) = oneshot::channel();
        let (store, name) = (self.clone(), reader.name.clone());
        let tables: Vec<String> = reader.tables.keys().cloned().collect();
        self.tasks().spawn("slot catalog", async move {
            let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
            let found = tokio::select! {
                found = store.slot_catalog(&name, &tables) => found,
                () = tells.closed() => return,
            };
            match found {
                // Nobody may wait for it any more.
                Ok(found) => drop(tells.send(found)),
                Err(error) => tracing::debug!(%error, cause = error.cause(), "the catalog cannot be looked at now"),
            }
        });
        look
    }
}

impl SlotReader {
    /// Whether the tables that are followed are as they were.
    fn is_as(&self, catalog: &BTreeMap<String, SlotRelations>, state: &SlotState) -> bool {
        let is_same = |(name, table): (&String, &super::SlotTable)| catalog.get(name) == Some(&table.relations);
        state.has_publication && state.has_slot && self.tables.iter().all(is_same)
    }
}
