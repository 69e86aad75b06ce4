//! Groups: watches of a table that are told the same, and the index over all of them. A change wakes the groups that it
//! concerns, is decided once for each, and costs the others nothing.

mod decided;

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

use foldhash::HashMap;
use query::{FilterHandle, FilterIndex, Object};
use tokio::sync::Notify;

use super::{Entry, Happened, TransactionPart};
use crate::{
    image::{RowChange, RowVersion},
    plan::has_columns,
    position::Fingerprint,
    row_rights::RowRights,
};

pub use decided::Decided;

use decided::{DecidedChange, DecisionMemory};

/// Entries that a group knows to concern it. A watch that is further behind looks for them by itself.
const MARKS_MAX: usize = 32;
/// Changes of an entry that are decided for all groups at once; of a larger one each watch decides by itself, in turns.
const DECIDED_CHANGES_MAX: usize = 64;

/// The groups of a feed. Clones are the same groups.
#[derive(Debug, Clone, Default)]
pub struct Groups {
    state: Arc<Mutex<GroupsState>>,
    memory: Arc<DecisionMemory>,
}

#[derive(Debug, Default)]
struct GroupsState {
    known: HashMap<Fingerprint, (Arc<Group>, FilterHandle)>,
    layouts: Vec<Layout>,
}

/// The index over groups that know the same columns of the table.
#[derive(Debug)]
struct Layout {
    /// Those of one of its groups, for the table.
    rights: Arc<RowRights>,
    /// Columns of images that were found to be those of the table.
    names: Option<Arc<[String]>>,
    index: FilterIndex<Arc<Group>>,
}

/// Watches that are told the same.
#[derive(Debug)]
pub struct Group {
    /// What they are told.
    pub rights: Arc<RowRights>,
    members: AtomicUsize,
    marks: Mutex<Marks>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Marks {
    /// By number of the entry.
    marks: VecDeque<Mark>,
    /// The number from which on they are all there.
    from: u64,
}

/// An entry that concerns a group.
#[derive(Debug, Clone)]
pub struct Mark {
    /// Its number.
    pub number: u64,
    /// What was decided of it; `None` where each watch decides by itself.
    pub decided: Option<Arc<Decided>>,
}

/// Place of a watch in its group. Dropped, it leaves.
#[derive(Debug)]
pub struct Member {
    groups: Groups,
    /// Its group.
    pub group: Arc<Group>,
    /// The number of the entry from which on the group knows what concerns it.
    pub from: u64,
}

/// What a group knows of what follows.
#[derive(Debug)]
pub enum Known {
    /// This entry is the next that concerns it.
    Next(Mark),
    /// None does, of those that there are.
    Nothing,
    /// Only from this number on.
    From(u64),
}

impl Groups {
    /// Joins the group that has these rights, from the entry `from` on: the feed tells of none before it joined.
    pub fn join(&self, rights: &Arc<RowRights>, from: u64) -> Member {
        let mut state = self.state();
        let known = state.known.get(&rights.fingerprint).map(|(group, _)| group.clone());
        let group = known.unwrap_or_else(|| {
            let marks = Mutex::new(Marks { marks: VecDeque::new(), from });
            let (rights, members, news) = (rights.clone(), AtomicUsize::new(0), Notify::new());
            let group = Arc::new(Group { rights, members, marks, news });
            state.enter(&group);
            group
        });
        group.members.fetch_add(1, Ordering::Relaxed);
        Member { groups: self.clone(), group, from }
    }

    /// Tells the groups that an entry concerns.
    pub fn push(&self, entry: &Entry) {
        let mut state = self.state();
        for layout in &mut state.layouts {
            match &entry.happened {
                Happened::Changes(part) if layout.knows_columns(part) => {
                    layout.tell(entry.number, part, &self.memory);
                }
                // Each watch looks at what it means.
                Happened::Changes(_) | Happened::Resync(_) => {
                    layout.index.keys().for_each(|group| group.mark(entry.number, None));
                }
            }
        }
    }

    /// Wakes all.
    pub fn wake(&self) {
        self.state().known.values().for_each(|(group, _)| group.news.notify_waiters());
    }

    fn state(&self) -> MutexGuard<'_, GroupsState> {
        self.state.lock().expect("no code panics while it holds this lock")
    }
}

impl GroupsState {
    fn enter(&mut self, group: &Arc<Group>) {
        let rights = &group.rights;
        let layout = match self.layouts.iter().position(|layout| layout.is_of(rights)) {
            Some(index) => &mut self.layouts[index],
            None => {
                let index = FilterIndex::new(rights.table());
                self.layouts.push(Layout { rights: rights.clone(), names: None, index });
                self.layouts.last_mut().expect("it was pushed")
            }
        };
        let handle = layout.index.insert(&rights.filter, group.clone());
        self.known.insert(rights.fingerprint, (group.clone(), handle));
    }

    fn leave(&mut self, rights: &RowRights) {
        let Some((_, handle)) = self.known.remove(&rights.fingerprint) else { return };
        let Some(place) = self.layouts.iter().position(|layout| layout.is_of(rights)) else { return };
        self.layouts[place].index.remove(handle);
        if self.layouts[place].index.is_empty() {
            self.layouts.swap_remove(place);
        }
    }
}

impl Layout {
    fn is_of(&self, rights: &RowRights) -> bool {
        Arc::ptr_eq(&self.rights.schema, &rights.schema) || self.rights.table().columns == rights.table().columns
    }

    /// Whether images have the columns that the groups know.
    fn knows_columns(&mut self, part: &TransactionPart) -> bool {
        let versions = part.changes.iter().flat_map(|change| [&change.before, &change.after]).flatten();
        for version in versions {
            let names = version.image.names();
            if !self.names.as_ref().is_some_and(|known| Arc::ptr_eq(known, names)) {
                if !has_columns(self.rights.table(), names) {
                    return false;
                }
                self.names = Some(names.clone());
            }
        }
        true
    }

    fn tell(&mut self, number: u64, part: &TransactionPart, memory: &Arc<DecisionMemory>) {
        if part.changes.len() > DECIDED_CHANGES_MAX {
            let rows: Vec<&Object> = part.changes.iter().flat_map(values).collect();
            return self.index.candidates(&rows, |group| group.mark(number, None));
        }
        let mut concerned: Vec<(Arc<Group>, Vec<DecidedChange>)> = Vec::new();
        let mut places: HashMap<Fingerprint, usize> = HashMap::default();
        for (index, change) in part.changes.iter().enumerate() {
            let rows: Vec<&Object> = values(change).collect();
            self.index.candidates(&rows, |group| {
                let Some(seen) = group.rights.seen(change) else { return };
                let place = *places.entry(group.rights.fingerprint).or_insert_with(|| {
                    concerned.push((group.clone(), Vec::new()));
                    concerned.len() - 1
                });
                concerned[place].1.push(DecidedChange::new(index, seen));
            });
        }
        for (group, changes) in concerned {
            let is_shared = group.members.load(Ordering::Relaxed) > 1;
            group.mark(number, Decided::kept(changes, is_shared, memory));
        }
    }
}

fn values(change: &RowChange) -> impl Iterator<Item = &Object> {
    [&change.before, &change.after].into_iter().flatten().map(|RowVersion { values, .. }| values)
}

impl Group {
    /// Waits for the next news; those that come from now on are not missed.
    pub fn news(&self) -> tokio::sync::futures::Notified<'_> {
        self.news.notified()
    }

    /// What is known of the entries from `next` on.
    pub fn next(&self, next: u64) -> Known {
        let marks = self.marks();
        if next < marks.from {
            return Known::From(marks.from);
        }
        let place = marks.marks.partition_point(|mark| mark.number < next);
        marks.marks.get(place).cloned().map_or(Known::Nothing, Known::Next)
    }

    fn mark(&self, number: u64, decided: Option<Arc<Decided>>) {
        let mut marks = self.marks();
        if marks.marks.len() == MARKS_MAX
            && let Some(oldest) = marks.marks.pop_front()
        {
            marks.from = oldest.number + 1;
        }
        marks.marks.push_back(Mark { number, decided });
        drop(marks);
        self.news.notify_waiters();
    }

    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().expect("no code panics while it holds this lock")
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut state = self.groups.state();
        if self.group.members.fetch_sub(1, Ordering::Relaxed) == 1 {
            state.leave(&self.group.rights);
        }
    }
}

#[cfg(test)]
mod tests;
