//! Cache of what is planned alike for every request of a document: operations and selections without variables.
//!
//! It belongs to the document, so that it goes with it, and is keyed by the document's selection sets.

use std::{fmt, hash::Hash, sync::Arc};

use arc_swap::ArcSwap;
use async_graphql_parser::types::SelectionSet;
use foldhash::{HashMap, HashMapExt};
use query::{Field, SelectionCost};

use super::Plan;

/// Plans and selections of one document, for the versions of projects that use it.
#[derive(Debug)]
pub struct PlanCache {
    plans: BoundedCache<PlanKey, Arc<Plan>>,
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
}

impl PlanCache {
    /// Bytes of text for each field that is kept: about the length of a field's name, so that what is kept takes some
    /// thirty times the text.
    const BYTES_PER_FIELD: usize = 8;
    /// Fields that are kept of the shortest text.
    const FIELDS_MIN: usize = 16;

    /// An empty cache for a document of so many bytes.
    pub fn new(bytes: usize) -> Self {
        let fields = (bytes / Self::BYTES_PER_FIELD).max(Self::FIELDS_MIN);
        Self { plans: BoundedCache::new(fields), selections: BoundedCache::new(fields) }
    }

    /// The plan of an operation without variables.
    pub fn plan(&self, key: PlanKey) -> Option<Arc<Plan>> {
        self.plans.get(&key)
    }

    /// Keeps the plan of an operation without variables, in which so many fields, conditions and values were counted.
    pub fn keep_plan(&self, key: PlanKey, plan: Arc<Plan>, counted: usize) {
        self.plans.insert(key, plan, counted);
    }

    /// The fields of a selection without variables.
    pub fn selection(&self, key: SelectionKey) -> Option<KeptSelection> {
        self.selections.get(&key)
    }

    /// Keeps the fields of a selection without variables.
    pub fn keep_selection(&self, key: SelectionKey, selection: KeptSelection) {
        let weight = selection.cost.fields;
        self.selections.insert(key, selection, weight);
    }
}

/// A small map that is read far more often than written: readers take no lock.
struct BoundedCache<K, V> {
    entries: ArcSwap<Entries<K, V>>,
    weight_max: usize,
}

#[derive(Debug, Clone)]
struct Entries<K, V> {
    map: HashMap<K, V>,
    weight: usize,
}

impl<K: Copy + Eq + Hash, V: Clone> BoundedCache<K, V> {
    fn new(weight_max: usize) -> Self {
        Self { entries: ArcSwap::from_pointee(Entries { map: HashMap::new(), weight: 0 }), weight_max }
    }

    fn get(&self, key: &K) -> Option<V> {
        self.entries.load().map.get(key).cloned()
    }

    /// Adds a value; one that there is no room for takes the place of all others, one over the limit is not kept.
    fn insert(&self, key: K, value: V, weight: usize) {
        if weight > self.weight_max {
            return;
        }
        self.entries.rcu(|entries| {
            let mut next = match entries.weight + weight > self.weight_max {
                true => Entries { map: HashMap::new(), weight: 0 },
                false => Entries::clone(entries),
            };
            if next.map.insert(key, value.clone()).is_none() {
                next.weight += weight;
            }
            next
        });
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for BoundedCache<K, V> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("BoundedCache").field("entries", &self.entries).field("weight_max", &self.weight_max).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_holds_at_most_its_weight() {
        let cache = BoundedCache::new(10);

        cache.insert(1, 'a', 6);
        cache.insert(1, 'b', 6);
        cache.insert(2, 'c', 4);
        assert_eq!((cache.get(&1), cache.get(&2)), (Some('b'), Some('c')));

        cache.insert(3, 'd', 1);
        assert_eq!((cache.get(&1), cache.get(&2), cache.get(&3)), (None, None, Some('d')));

        cache.insert(4, 'e', 11);
        assert_eq!((cache.get(&3), cache.get(&4)), (Some('d'), None));
    }
}
