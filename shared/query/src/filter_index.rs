//! Index over conditions: which of many filters a row may pass, without a look at each of them.
//!
//! A filter is entered where a row that passes it must be found: equalities by a hash of the value, ranges in an interval
//! tree, each branch of a disjunction by itself, and a conjunction by the part that is most selective among all that are
//! entered. What is found is a candidate: [`Filter::matches`] decides.

mod cover;
mod intervals;
mod probe;

use foldhash::{HashMap, fast::RandomState};

use self::{
    cover::{Compiler, Cover, Entry},
    intervals::Intervals,
    probe::Probe,
};
use crate::{Column, Filter, Object, Table, Value};

/// Filters on the rows of one table, each under a key.
#[derive(Debug)]
pub struct FilterIndex<K> {
    /// In the order of the table.
    columns: Vec<IndexedColumn>,
    /// Slots of filters that may pass whatever a row is.
    unselective: Vec<u32>,
    slots: Vec<Slot<K>>,
    free: Vec<u32>,
    len: usize,
    /// Number of the last lookup.
    round: u64,
    hasher: RandomState,
}

/// A filter of an index, until it is removed.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct FilterHandle(u32);

#[derive(Debug)]
struct Slot<K> {
    /// `None` where it is free.
    key: Option<K>,
    /// The last lookup that found it.
    round: u64,
    /// Where it is entered.
    place: Place,
}

#[derive(Debug)]
enum Place {
    Entries(Box<[Entry]>),
    /// Its place among those that may pass whatever a row is.
    Unselective(usize),
}

#[derive(Debug)]
struct IndexedColumn {
    column: Column,
    /// Where rows had it last.
    position: usize,
    /// Slots by the hash of a value that is equal.
    points: HashMap<u64, Vec<u32>>,
    /// Ranges of values of one class.
    ranges: Vec<(u8, Intervals)>,
}

impl<K> FilterIndex<K> {
    /// An empty index over filters on rows of `table`.
    pub fn new(table: &Table) -> Self {
        let indexed = |column: &Column| IndexedColumn {
            column: column.clone(),
            position: 0,
            points: HashMap::default(),
            ranges: Vec::new(),
        };
        Self {
            columns: table.columns.iter().map(indexed).collect(),
            unselective: Vec::new(),
            slots: Vec::new(),
            free: Vec::new(),
            len: 0,
            round: 0,
            hasher: RandomState::default(),
        }
    }

    /// How many filters it has.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Enters `filter` under `key`.
    pub fn insert(&mut self, filter: &Filter, key: K) -> FilterHandle {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { key: None, round: 0, place: Place::Entries(Box::default()) });
            u32::try_from(self.slots.len() - 1).expect("memory holds fewer filters")
        });
        let columns = |name: &str| self.columns.iter().position(|one| one.column.name == name);
        let crowd = |entry: &Entry| self.columns[entry.column()].crowd(entry);
        let compiler = Compiler { columns: &columns, crowd: &crowd, hasher: &self.hasher };
        let place = match compiler.compile(filter) {
            Cover::All => {
                self.unselective.push(slot);
                Place::Unselective(self.unselective.len() - 1)
            }
            Cover::Entries(entries) => {
                entries.iter().for_each(|entry| self.columns[entry.column()].enter(entry, slot));
                Place::Entries(entries.into())
            }
        };
        self.slots[slot as usize] = Slot { key: Some(key), round: self.round, place };
        self.len += 1;
        FilterHandle(slot)
    }

    /// Removes a filter; its key.
    pub fn remove(&mut self, FilterHandle(slot): FilterHandle) -> Option<K> {
        let one = self.slots.get_mut(slot as usize)?;
        let key = one.key.take()?;
        match std::mem::replace(&mut one.place, Place::Entries(Box::default())) {
            Place::Entries(entries) => entries.iter().for_each(|entry| self.columns[entry.column()].leave(entry, slot)),
            Place::Unselective(position) => {
                self.unselective.swap_remove(position);
                if let Some(moved) = self.unselective.get(position) {
                    self.slots[*moved as usize].place = Place::Unselective(position);
                }
            }
        }
        self.free.push(slot);
        self.len -= 1;
        Some(key)
    }

    /// All keys.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.slots.iter().filter_map(|slot| slot.key.as_ref())
    }

    /// Calls `found` once with the key of each filter that one of `rows` may pass: of those that are not found, none passes.
    pub fn candidates(&mut self, rows: &[&Object], mut found: impl FnMut(&K)) {
        self.round += 1;
        let (round, slots) = (self.round, &mut self.slots);
        let mut hit = |slot: u32| {
            let slot = &mut slots[slot as usize];
            if slot.round != round {
                slot.round = round;
                slot.key.iter().for_each(&mut found);
            }
        };
        self.unselective.iter().for_each(|slot| hit(*slot));
        for column in &mut self.columns {
            column.look_up(rows, &self.hasher, &mut hit);
        }
    }
}

/// Conditions at a place that are counted when one is entered.
const CROWD_MAX: usize = 64;

impl IndexedColumn {
    /// How many conditions are at a place of an entry, up to [`CROWD_MAX`].
    fn crowd(&self, entry: &Entry) -> usize {
        let count = match entry {
            Entry::Point { hash, .. } => self.points.get(hash).map_or(0, Vec::len),
            Entry::Range { class, low, .. } => {
                let ranges = self.ranges.iter().find(|(known, _)| known == class);
                ranges.map_or(0, |(_, ranges)| ranges.count(*low, CROWD_MAX))
            }
        };
        count.min(CROWD_MAX)
    }

    fn enter(&mut self, entry: &Entry, slot: u32) {
        match entry {
            Entry::Point { hash, .. } => self.points.entry(*hash).or_default().push(slot),
            Entry::Range { class, low, high, .. } => {
                let known = self.ranges.iter().position(|(known, _)| known == class);
                let index = known.unwrap_or_else(|| {
                    self.ranges.push((*class, Intervals::default()));
                    self.ranges.len() - 1
                });
                self.ranges[index].1.insert(*low, *high, slot);
            }
        }
    }

    fn leave(&mut self, entry: &Entry, slot: u32) {
        match entry {
            Entry::Point { hash, .. } => {
                let Some(slots) = self.points.get_mut(hash) else { return };
                if let Some(position) = slots.iter().position(|known| *known == slot) {
                    slots.swap_remove(position);
                }
                if slots.is_empty() {
                    self.points.remove(hash);
                }
            }
            Entry::Range { class, low, high, .. } => {
                if let Some((_, ranges)) = self.ranges.iter_mut().find(|(known, _)| known == class) {
                    ranges.remove(*low, *high, slot);
                }
                self.ranges.retain(|(_, ranges)| !ranges.is_empty());
            }
        }
    }

    fn look_up(&mut self, rows: &[&Object], hasher: &RandomState, hit: &mut impl FnMut(u32)) {
        if self.points.is_empty() && self.ranges.is_empty() {
            return;
        }
        let mut last = None;
        for row in rows {
            let Some(value) = self.value(row) else { continue };
            // Most changes leave most columns as they are.
            if last.replace(value) == Some(value) {
                continue;
            }
            let Some(probe) = Probe::held(&self.column, value) else { continue };
            if !self.points.is_empty()
                && let Some(slots) = probe.hash(hasher).and_then(|hash| self.points.get(&hash))
            {
                slots.iter().for_each(|slot| hit(*slot));
            }
            if !self.ranges.is_empty()
                && let Some((class, place)) = probe.place()
                && let Some((_, ranges)) = self.ranges.iter().find(|(known, _)| *known == class)
            {
                ranges.visit(place, hit);
            }
        }
    }

    fn value<'r>(&mut self, row: &'r Object) -> Option<&'r Value> {
        let name = &self.column.name;
        if let Some((known, value)) = row.0.get(self.position)
            && known == name
        {
            return Some(value);
        }
        self.position = row.0.iter().position(|(known, _)| known == name)?;
        Some(&row.0[self.position].1)
    }
}

#[cfg(test)]
mod tests;
