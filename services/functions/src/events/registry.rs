//! Registry of the triggers of all projects, replaced as the resources say.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use mesh::resources::{Current, Snapshot};
use query::trigger::{Trigger, TriggerResource, TriggerSource};
use tokio::sync::watch;

use super::queue::{FollowedTable, TriggerKey};

/// The triggers in force. Clones are the same registry.
#[derive(Debug, Clone)]
pub struct Registry(watch::Receiver<Arc<Triggers>>);

/// All triggers at a moment.
#[derive(Debug, Default, PartialEq)]
pub struct Triggers {
    by_key: HashMap<TriggerKey, Arc<Trigger>>,
    by_table: BTreeMap<FollowedTable, Vec<TriggerKey>>,
    /// By project and type of custom events.
    by_event: HashMap<Arc<str>, HashMap<String, Vec<TriggerKey>>>,
}

impl Triggers {
    /// The triggers of resources.
    pub fn of(snapshot: &Snapshot) -> Self {
        let mut triggers = Self::default();
        for (TriggerResource { meta, spec }, _) in snapshot.of() {
            let project: Arc<str> = meta.project.as_str().into();
            let key = TriggerKey { project: project.clone(), id: meta.id.as_str().into() };
            match &spec.on {
                TriggerSource::Rows(changes) => {
                    let (database, table) = (changes.database.as_str().into(), changes.table.as_str().into());
                    let table = FollowedTable { project, database, table };
                    triggers.by_table.entry(table).or_default().push(key.clone());
                }
                TriggerSource::Event(name) => {
                    let of_project = triggers.by_event.entry(project).or_default();
                    of_project.entry(name.clone()).or_default().push(key.clone());
                }
                TriggerSource::Schedule(_) => {}
            }
            triggers.by_key.insert(key, Arc::new(spec.clone()));
        }
        triggers
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// A trigger.
    pub fn get(&self, key: &TriggerKey) -> Option<&Arc<Trigger>> {
        self.by_key.get(key)
    }

    /// Those on schedules.
    pub fn scheduled(&self) -> impl Iterator<Item = (&TriggerKey, &Arc<Trigger>)> {
        self.by_key.iter().filter(|(_, trigger)| matches!(trigger.on, TriggerSource::Schedule(_)))
    }

    /// All of them.
    pub fn keys(&self) -> HashSet<TriggerKey> {
        self.by_key.keys().cloned().collect()
    }

    /// The tables that they are about.
    pub fn tables(&self) -> BTreeSet<FollowedTable> {
        self.by_table.keys().cloned().collect()
    }

    /// Whether there is a trigger of custom events of a type.
    pub fn has_event(&self, project: &str, name: &str) -> bool {
        self.by_event.get(project).is_some_and(|of_project| of_project.contains_key(name))
    }

    /// How many triggers of custom events of a type there are.
    pub fn count_of_event(&self, project: &str, name: &str) -> usize {
        self.by_event.get(project).and_then(|of_project| of_project.get(name)).map_or(0, Vec::len)
    }

    /// The triggers of custom events of a type.
    pub fn of_event(&self, project: &str, name: &str) -> Vec<(TriggerKey, Arc<Trigger>)> {
        let keys = self.by_event.get(project).and_then(|of_project| of_project.get(name)).into_iter().flatten();
        keys.filter_map(|key| Some((key.clone(), self.get(key)?.clone()))).collect()
    }

    /// The triggers that are about a table.
    pub fn of_table(&self, table: &FollowedTable) -> Vec<(TriggerKey, Arc<Trigger>)> {
        let keys = self.by_table.get(table).into_iter().flatten();
        keys.filter_map(|key| Some((key.clone(), self.get(key)?.clone()))).collect()
    }
}

impl Registry {
    /// The triggers of `current`, and what keeps them up to date.
    pub fn new(mut current: Current) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (sender, receiver) = watch::channel(Arc::new(Triggers::of(&current.borrow_and_update())));
        let following = async move {
            while current.changed().await.is_ok() {
                let next = Triggers::of(&current.borrow_and_update());
                sender.send_if_modified(|triggers| {
                    let is_other = **triggers != next;
                    if is_other {
                        *triggers = Arc::new(next);
                    }
                    is_other
                });
            }
        };
        (Self(receiver), following)
    }

    /// Triggers that stay as they are.
    #[cfg(test)]
    pub fn of(triggers: Arc<Triggers>) -> Self {
        Self(watch::channel(triggers).1)
    }

    /// The triggers now.
    pub fn now(&self) -> Arc<Triggers> {
        self.0.borrow().clone()
    }

    /// Waits until they are others, where they were not since this was last asked. Cancel-safe.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
