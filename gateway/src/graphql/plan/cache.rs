//! Cache of what is planned alike for every request of a document: operations whose variables are values of keys,
//! and selections without variables.
//!
//! It belongs to the document, so that it goes with it, and is keyed by the document's selection sets.

use std::{hash::Hash, sync::Arc};

use arc_swap::ArcSwap;
use async_graphql_parser::types::SelectionSet;
use foldhash::{HashMap, HashMapExt};
use query::{Field, SelectionCost};

use super::KeptPlan;

/// Plans and selections of one document, for the versions of projects that use it.
#[derive(Debug)]
pub struct PlanCache {
    plans: BoundedCache<PlanKey, Arc<KeptPlan>>,
    selections: BoundedCache<SelectionKey, KeptSelection>,
}

/// An operation of the document, planned against names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PlanKey {
    /// [`crate::graphql::names::Names::id`].
    pub names: u64,
    /// Its selection.
    pub set: SetId,
}

/// A selection of the document on a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SelectionKey {
    /// [`crate::graphql::names::Names::id`].
    pub names: u64,
    /// Index of the table in the names.
    pub table: usize,
    /// What stands in the document.
    pub set: SetId,
}

/// Identity of a selection set in its document: the address of its items.
///
/// Its position does not identify it: to the parser, a carriage return alone goes back to the beginning of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SetId(usize);

impl SetId {
    /// The identity of `set`, which has an item, in a document that stays as it is.
    pub fn of(set: &SelectionSet) -> Self {
        Self(set.items.as_ptr().addr())
    }
}

/// A selection that is the same for every request.
#[derive(Debug, Clone)]
pub struct KeptSelection {
    /// What is selected.
    pub fields: Arc<[Field]>,
    /// What it counts for the limits.
    pub cost: SelectionCost,
    /// Approximate memory in bytes.
    pub bytes: usize,
}

impl PlanCache {
    /// Bytes that plans, and again selections, may take for each byte of the document's text.
    pub const BYTES_PER_BYTE: usize = 30;
    /// Bytes that they may take of the shortest text.
    const BYTES_MIN: usize = 4000;

    /// An empty cache for a document of so many bytes.
    pub fn new(text_bytes: usize) -> Self {
        let bytes = (text_bytes * Self::BYTES_PER_BYTE).max(Self::BYTES_MIN);
        Self { plans: BoundedCache::new(bytes), selections: BoundedCache::new(bytes) }
    }

    /// The plan of an operation without variables but for parameters.
    pub fn plan(&self, key: PlanKey) -> Option<Arc<KeptPlan>> {
        self.plans.get(&key)
    }

    /// Keeps a plan, which takes so many bytes.
    pub fn keep_plan(&self, key: PlanKey, plan: KeptPlan, bytes: usize) {
        self.plans.insert(&[(key, Arc::new(plan))], |_| bytes);
    }

    /// The fields of a selection without variables.
    pub fn selection(&self, key: SelectionKey) -> Option<KeptSelection> {
        self.selections.get(&key)
    }

    /// Keeps the fields of selections without variables.
    pub fn keep_selections(&self, selections: &[(SelectionKey, KeptSelection)]) {
        self.selections.insert(selections, |selection| selection.bytes);
    }
}

/// A small map that is read far more often than written: readers take no lock.
#[derive(Debug)]
struct BoundedCache<K, V> {
    entries: ArcSwap<Entries<K, V>>,
    bytes_max: usize,
}

#[derive(Debug, Clone)]
struct Entries<K, V> {
    map: HashMap<K, V>,
    bytes: usize,
}

impl<K, V> Default for Entries<K, V> {
    fn default() -> Self {
        Self { map: HashMap::new(), bytes: 0 }
    }
}

impl<K: Copy + Eq + Hash, V: Clone> BoundedCache<K, V> {
    /// Approximate memory of an entry besides its value.
    const ENTRY_BYTES: usize = 100;

    fn new(bytes_max: usize) -> Self {
        Self { entries: ArcSwap::default(), bytes_max }
    }

    fn get(&self, key: &K) -> Option<V> {
        self.entries.load().map.get(key).cloned()
    }

    /// Adds values; one that there is no room for takes the place of all others, one over the limit is not kept.
    ///
    /// The map is copied once for all of them.
    fn insert(&self, values: &[(K, V)], bytes: impl Fn(&V) -> usize) {
        if values.is_empty() {
            return;
        }
        self.entries.rcu(|entries| {
            let mut next = Entries::clone(entries);
            for (key, value) in values {
                let bytes = bytes(value).saturating_add(Self::ENTRY_BYTES);
                if bytes > self.bytes_max || next.map.contains_key(key) {
                    continue;
                }
                if next.bytes + bytes > self.bytes_max {
                    next = Entries::default();
                }
                next.map.insert(*key, value.clone());
                next.bytes += bytes;
            }
            next
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_holds_at_most_its_bytes() {
        const OWN: usize = BoundedCache::<u8, usize>::ENTRY_BYTES;
        let cache = BoundedCache::new(10 + 2 * OWN);
        let kept = || [1, 2, 3, 4].map(|key| cache.get(&key));
        let bytes = |value: &usize| *value;

        cache.insert(&[(1, 6), (1, 6), (2, 4)], bytes);
        assert_eq!(kept(), [Some(6), Some(4), None, None]);

        cache.insert(&[(3, 0)], bytes);
        assert_eq!(kept(), [None, None, Some(0), None]);

        cache.insert(&[(4, 11 + OWN)], bytes);
        assert_eq!(kept(), [None, None, Some(0), None]);

        cache.insert(&[(4, 10 + OWN)], bytes);
        assert_eq!(kept(), [None, None, None, Some(10 + OWN)]);
    }
}
