//! Decisions on the changes of an entry, kept for all watches of a group within a bound of memory.

use std::{
    mem::size_of,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use proto::realtime::{Event, Row};

use crate::row_rights::{ChangeEvents, SeenImages};

/// Bytes that decisions and what was written for them take, of all groups of a feed: past them each watch decides and
/// writes by itself.
const MEMORY_BYTES: usize = 16 << 20;

/// Bytes that decisions take.
#[derive(Debug, Default)]
pub struct DecisionMemory(AtomicUsize);

/// The changes of an entry that concern a group.
#[derive(Debug)]
pub struct Decided {
    changes: Vec<DecidedChange>,
    /// Whether several watches are told.
    is_shared: bool,
    memory: Arc<DecisionMemory>,
    bytes: AtomicUsize,
}

/// A change that concerns a group.
#[derive(Debug)]
pub struct DecidedChange {
    /// Its place in the entry.
    pub index: usize,
    /// The images that are told.
    pub seen: SeenImages,
    written: OnceLock<Box<ChangeEvents>>,
}

impl DecisionMemory {
    /// Bytes that are taken.
    #[cfg(test)]
    pub fn taken(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> bool {
        let taken = |now: usize| (now + bytes <= MEMORY_BYTES).then_some(now + bytes);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok()
    }
}

impl DecidedChange {
    /// That these images of the change at `index` are told.
    pub fn new(index: usize, seen: SeenImages) -> Self {
        Self { index, seen, written: OnceLock::new() }
    }
}

impl Decided {
    /// Decisions that are kept, for one watch or several; `None` where there is no memory for them.
    pub fn kept(changes: Vec<DecidedChange>, is_shared: bool, memory: &Arc<DecisionMemory>) -> Option<Arc<Self>> {
        let bytes = size_of::<Self>() + changes.capacity() * size_of::<DecidedChange>();
        let bytes_now = AtomicUsize::new(bytes);
        memory.take(bytes).then(|| Arc::new(Self { changes, is_shared, memory: memory.clone(), bytes: bytes_now }))
    }

    /// The change at `place`.
    pub fn change(&self, place: usize) -> Option<&DecidedChange> {
        self.changes.get(place)
    }

    /// How many changes concern the group.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// What is told of a change: as it was written for another watch, where it was, else as `write` says.
    pub fn events(&self, change: &DecidedChange, write: impl FnOnce() -> ChangeEvents) -> ChangeEvents {
        if let Some(written) = change.written.get() {
            return (**written).clone();
        }
        let events = write();
        let bytes = size_of::<ChangeEvents>() + events.iter().flatten().map(event_bytes).sum::<usize>();
        if self.is_shared && self.memory.take(bytes) {
            match change.written.set(Box::new(events.clone())) {
                Ok(()) => drop(self.bytes.fetch_add(bytes, Ordering::Relaxed)),
                // Another was faster.
                Err(_) => drop(self.memory.0.fetch_sub(bytes, Ordering::Relaxed)),
            }
        }
        events
    }
}

impl Drop for Decided {
    fn drop(&mut self) {
        self.memory.0.fetch_sub(*self.bytes.get_mut(), Ordering::Relaxed);
    }
}

fn event_bytes(event: &Event) -> usize {
    match event {
        Event::Initial(row) | Event::Insert(row) | Event::Update(row) | Event::Delete(row) => {
            let Row { row, before, key, .. } = row;
            row.len() + before.len() + key.len()
        }
        Event::Ready(_) | Event::Resync(_) => 0,
    }
}
