//! Tables that triggers are about: captured also while nobody follows them, so that whoever makes events of their changes
//! misses none while it is away.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    pin::Pin,
    sync::Mutex,
};

use bytes::Bytes;
use futures::Stream;
use mesh::resources::Snapshot;
use proto::crud::LogResponse;
use query::{resources::Numbers, trigger::TriggerResource};

use crate::{Error, database::Database};

/// Tables by project and database.
pub type TriggerTables = HashMap<(String, String), BTreeSet<String>>;

/// A follower that takes nothing.
type Follower = Pin<Box<dyn Stream<Item = Result<LogResponse, Error>> + Send>>;

/// The tables that triggers of resources are about.
pub fn trigger_tables(snapshot: &Snapshot) -> TriggerTables {
    let mut tables = TriggerTables::new();
    for (TriggerResource { meta, spec }, _) in snapshot.of() {
        let Some(changes) = spec.on.rows() else { continue };
        let database = (meta.project.clone(), changes.database.clone());
        tables.entry(database).or_default().insert(changes.table.clone());
    }
    tables
}

/// Followers that keep tables of a database captured.
#[derive(Default)]
pub struct HeldTables(Mutex<BTreeMap<String, Follower>>);

impl HeldTables {
    /// Holds the tables that are `wanted`, and no others. A table whose capture failed is captured anew, and one that is not
    /// known is left out until it is.
    pub fn hold(&self, database: &Database, wanted: &BTreeSet<String>, numbers: Numbers) {
        let mut held = self.0.lock().expect("no code panics while it holds this lock");
        if wanted.is_empty() && held.is_empty() {
            return;
        }
        // The followers of before end after those of now have begun: nothing is released between.
        let follow = |table: &String| {
            let follower = database.follow(vec![table.clone()], Bytes::new(), numbers).ok()?;
            Some((table.clone(), Box::pin(follower) as Follower))
        };
        let now = wanted.iter().filter_map(follow).collect();
        drop(std::mem::replace(&mut *held, now));
    }
}

impl fmt::Debug for HeldTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("held tables")
    }
}
