//! Interests: the rows of a table on which live queries depend, and which of them a change concerns.

use std::{
    collections::{BTreeMap, VecDeque},
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use proto::{
    crud::{Change, Snapshot, Transaction},
    json,
};
use query::{Filter, FilterHandle, FilterIndex, Guard, Object, Row, Schema, Table, Value};
use tokio::sync::{Notify, watch};

use super::followed_tables::FollowedTable;

/// Live queries that depend on some rows of a table, and count for their callers, from which on the images of its changes are
/// followed, and below which they are not any more. Images cost each writer some twenty microseconds for a row, and spare all those that a change does
/// not concern a read.
const IMAGES_FROM: usize = 9;
const IMAGES_UNTIL: usize = 4;
/// Changes of a transaction that are looked at; a larger one is taken to concern all.
const CHANGES_MAX: usize = 64;
/// Transactions that are kept of those that a read may not see yet: for one live query, and for those that will begin.
const UNSEEN_MAX: usize = 128;
const RECENT_MAX: usize = 1024;

/// Rows of a table on which an answer depends.
#[derive(Debug, Clone)]
pub struct TableRows {
    /// The schema of which the table is.
    pub schema: Arc<Schema>,
    /// The table.
    pub table: (Option<String>, String),
    /// Those that pass this, before a change or after it.
    pub filter: Filter,
}

/// Interests in one source.
#[derive(Debug)]
pub struct Interests {
    state: Mutex<InterestsState>,
    /// The number of the last event of any source.
    events: Arc<AtomicU64>,
    /// The number of the last event.
    last: AtomicU64,
    /// How many depend on some rows of the table only, and count for their callers.
    selective: watch::Sender<usize>,
    /// Whether images are followed.
    has_images: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct InterestsState {
    /// All that are told of each event, where images are followed.
    layouts: Vec<Layout>,
    /// Those that depend on all that happens.
    open: BTreeMap<u64, Arc<Interest>>,
    /// The last place among those.
    last_open: u64,
    /// What was told last.
    recent: Unseen,
}

/// Interests by the columns of the table that they know.
#[derive(Debug)]
struct Layout {
    table: Table,
    index: FilterIndex<Arc<Interest>>,
}

/// Interest of one live query.
#[derive(Debug)]
pub struct Interest {
    /// The rows, where it is in some of them only.
    filter: Filter,
    /// The number of the last event that concerns it.
    told: AtomicU64,
    /// Transactions that concern it and that no read has seen.
    unseen: Mutex<Unseen>,
    news: Notify,
}

/// Transactions that a read may not see, which were told with the events of these numbers.
#[derive(Debug, Default)]
struct Unseen {
    transactions: VecDeque<(u64, u64)>,
    /// Those up to this are unseen by reads that do not see all up to it; more than are kept.
    rest: Option<u64>,
}

/// Place of an interest. Dropped, it is given up.
#[derive(Debug)]
pub struct Registered {
    /// All interests in the source.
    pub interests: Arc<Interests>,
    /// Its own.
    pub interest: Arc<Interest>,
    /// `None` once it is given up.
    place: Option<IndexEntry>,
    since: u64,
    /// Whether a read has seen what was told before it was registered.
    has_looked_back: bool,
    /// Where it counts for its caller.
    followed: Option<FollowedTable>,
}

/// Where an interest is registered.
#[derive(Debug)]
enum IndexEntry {
    Open(u64),
    /// In the index over those that know the same columns.
    Rows(TableRows, FilterHandle),
}

impl Interests {
    /// No interests yet. `events` numbers the events of all sources: what a feed that ended has told is not taken for what
    /// the next one of its source tells.
    pub fn new(events: Arc<AtomicU64>) -> Self {
        let (state, last) = (Mutex::default(), AtomicU64::new(next(&events)));
        Self { state, events, last, selective: watch::Sender::new(0), has_images: watch::Sender::new(false) }
    }

    /// Registers an interest in `rows`, or in all that happens. One in some rows makes it worth it to follow images where its
    /// caller has room for that.
    pub fn register(
        all: &Arc<Self>,
        rows: Option<&TableRows>,
        room: impl FnOnce() -> Option<FollowedTable>,
    ) -> Registered {
        let rows = rows.filter(|rows| !rows.filter.is_true() && rows.table().is_some()).cloned();
        let filter = rows.as_ref().map_or(Filter::TRUE, |rows| rows.filter.clone());
        let mut state = all.state();
        let since = all.last();
        let (told, unseen, news) = (AtomicU64::new(since), Mutex::default(), Notify::new());
        let interest = Arc::new(Interest { filter, told, unseen, news });
        let place = match rows {
            None => {
                state.last_open += 1;
                let place = state.last_open;
                state.open.insert(place, interest.clone());
                IndexEntry::Open(place)
            }
            Some(rows) => {
                let handle = state.layout(&rows).index.insert(&rows.filter, interest.clone());
                IndexEntry::Rows(rows, handle)
            }
        };
        drop(state);
        let followed = if let IndexEntry::Rows(..) = place { room() } else { None };
        if followed.is_some() {
            all.selective.send_modify(|count| *count += 1);
        }
        Registered { interests: all.clone(), interest, place: Some(place), since, has_looked_back: false, followed }
    }

    /// The number of the last event.
    pub fn last(&self) -> u64 {
        self.last.load(Ordering::Acquire)
    }

    /// Waits until so many depend on some rows that it is worth its price to follow images.
    pub async fn wait_until_worth_images(&self) {
        // The sender is this one's own.
        let _ = self.selective.subscribe().wait_for(|count| *count >= IMAGES_FROM).await;
    }

    /// Waits until so few do that it is not.
    pub async fn wait_until_not_worth_images(&self) {
        let _ = self.selective.subscribe().wait_for(|count| *count < IMAGES_UNTIL).await;
    }

    /// Waits until images are followed.
    pub async fn wait_for_images(&self) {
        let _ = self.has_images.subscribe().wait_for(|has_images| *has_images).await;
    }

    /// Whether images are followed: transactions may be told then that a read does not see yet.
    pub fn has_images(&self) -> bool {
        *self.has_images.borrow()
    }

    /// Images are followed from now on.
    pub fn begin_images(&self) {
        self.has_images.send_replace(true);
    }

    /// They are not any more.
    pub fn end_images(&self) {
        self.has_images.send_replace(false);
        self.forget_transactions();
    }

    /// Forgets which transactions were told: those to come are of another log.
    pub fn forget_transactions(&self) {
        let mut state = self.state();
        state.recent = Unseen::default();
        state.all().for_each(|interest| *interest.unseen() = Unseen::default());
    }

    /// Something happened that may concern all.
    pub fn tell_all(&self) {
        let state = self.state();
        let number = next(&self.events);
        state.all().for_each(|interest| interest.tell(number, None));
        self.last.store(number, Ordering::Release);
    }

    /// Tells those whom a transaction concerns; whether there are any.
    pub fn tell(&self, transaction: &Transaction) -> bool {
        let mut state = self.state();
        let (number, id) = (next(&self.events), transaction.id);
        state.recent.push(number, id, RECENT_MAX);
        let is_of_some = state.tell(number, transaction);
        // What counts as told has been told to all whom it concerns.
        self.last.store(number, Ordering::Release);
        is_of_some
    }

    fn state(&self) -> MutexGuard<'_, InterestsState> {
        self.state.lock().expect("no code panics while it holds this lock")
    }
}

/// The number of a new event.
fn next(events: &AtomicU64) -> u64 {
    events.fetch_add(1, Ordering::AcqRel) + 1
}

/// The row before a change and after it; `None` where they cannot be read.
fn images(change: &Change) -> Option<Vec<Object>> {
    let texts = [&change.before, &change.after].into_iter().filter(|text| !text.is_empty());
    let image = |text: &bytes::Bytes| match json::parse(text, Guard::default()) {
        Ok(Value::Object(row)) => Some(row),
        _ => None,
    };
    texts.map(image).collect()
}

/// Whether a row has the columns of a table.
fn has_columns(table: &Table, row: &Object) -> bool {
    let readable = || table.columns.iter().filter(|column| column.readable);
    readable().count() == row.0.len() && readable().zip(&row.0).all(|(column, (name, _))| column.name == *name)
}

impl InterestsState {
    fn layout(&mut self, rows: &TableRows) -> &mut Layout {
        let table = rows.table().expect("who registers has found the table");
        let known = self.layouts.iter().position(|layout| layout.table.columns == table.columns);
        let index = known.unwrap_or_else(|| {
            self.layouts.push(Layout { table: table.clone(), index: FilterIndex::new(table) });
            self.layouts.len() - 1
        });
        &mut self.layouts[index]
    }

    /// Tells those whom a transaction concerns; whether there are any.
    fn tell(&mut self, number: u64, transaction: &Transaction) -> bool {
        let tell = |interest: &Arc<Interest>| interest.tell(number, Some(transaction.id));
        if transaction.changes.len() > CHANGES_MAX {
            self.all().for_each(tell);
            return true;
        }
        self.open.values().for_each(tell);
        let mut is_of_some = !self.open.is_empty();
        let changes = if self.layouts.is_empty() { &[] } else { &transaction.changes[..] };
        for images in changes.iter().map(images) {
            for layout in &mut self.layouts {
                is_of_some |= layout.tell(images.as_deref(), tell);
            }
        }
        is_of_some
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Interest>> {
        self.layouts.iter().flat_map(|layout| layout.index.keys()).chain(self.open.values())
    }
}

impl Layout {
    /// Calls `tell` with those whom a change with these images concerns; whether there are any. A row that cannot be looked
    /// at may concern all.
    fn tell(&mut self, images: Option<&[Object]>, tell: impl Fn(&Arc<Interest>)) -> bool {
        let images = images.filter(|images| images.iter().all(|image| has_columns(&self.table, image)));
        let Some(images) = images else {
            self.index.keys().for_each(tell);
            return true;
        };
        let (rows, table): (Vec<&Object>, _) = (images.iter().collect(), &self.table);
        let mut is_of_some = false;
        self.index.candidates(&rows, |interest| {
            let row = |columns| Row { table, columns, related: &[] };
            if images.iter().any(|columns| interest.filter.matches(&row(columns)) == Some(true)) {
                is_of_some = true;
                tell(interest);
            }
        });
        is_of_some
    }
}

impl TableRows {
    fn table(&self) -> Option<&Table> {
        self.schema.table_of(self.table.0.as_deref(), &self.table.1).ok()
    }
}

impl PartialEq for TableRows {
    fn eq(&self, other: &Self) -> bool {
        self.table == other.table
            && self.filter == other.filter
            && (Arc::ptr_eq(&self.schema, &other.schema) || self.table() == other.table())
    }
}

impl Interest {
    /// The number of the last event that concerns it.
    pub fn told(&self) -> u64 {
        self.told.load(Ordering::Acquire)
    }

    /// Waits for an event after `number` that concerns it. Cancel safe.
    pub async fn told_after(&self, number: u64) {
        loop {
            let mut news = pin!(self.news.notified());
            // What comes from here on is not missed.
            news.as_mut().enable();
            if self.told() > number {
                return;
            }
            news.await;
        }
    }

    fn tell(&self, number: u64, transaction: Option<u64>) {
        if let Some(transaction) = transaction {
            self.unseen().push(number, transaction, UNSEEN_MAX);
        }
        self.told.store(number, Ordering::Release);
        self.news.notify_waiters();
    }

    fn unseen(&self) -> MutexGuard<'_, Unseen> {
        self.unseen.lock().expect("no code panics while it holds this lock")
    }
}

impl Unseen {
    fn push(&mut self, number: u64, transaction: u64, most: usize) {
        if self.transactions.back().is_some_and(|(_, last)| *last == transaction) {
            return;
        }
        if self.transactions.len() == most
            && let Some((_, oldest)) = self.transactions.pop_front()
        {
            self.rest = self.rest.max(Some(oldest));
        }
        self.transactions.push_back((number, transaction));
    }

    /// Whether one of the snapshots does not see all of what was told before the event `until`.
    fn has_unseen(&self, snapshots: &[&Snapshot], until: u64) -> bool {
        self.rest.is_some_and(|rest| !is_over(snapshots, rest))
            || self.transactions.iter().any(|(number, id)| *number <= until && !see(snapshots, *id))
    }

    /// Forgets what all of the snapshots see.
    fn forget_seen(&mut self, snapshots: &[&Snapshot]) {
        self.transactions.retain(|(_, transaction)| !see(snapshots, *transaction));
        self.rest = self.rest.filter(|rest| !is_over(snapshots, *rest));
    }
}

fn see(snapshots: &[&Snapshot], transaction: u64) -> bool {
    snapshots.iter().all(|snapshot| snapshot.sees(transaction))
}

/// Whether all transactions up to one have ended before the snapshots.
fn is_over(snapshots: &[&Snapshot], transaction: u64) -> bool {
    snapshots.iter().all(|snapshot| transaction < snapshot.start)
}

impl Registered {
    /// The number of the last event before it was registered.
    pub fn since(&self) -> u64 {
        self.since
    }

    /// Whether a read in these snapshots did not see a transaction that concerns the interest, or may do so.
    pub fn has_unseen(&mut self, snapshots: &[&Snapshot]) -> bool {
        if !self.has_looked_back {
            // A transaction that was told before may not have been seen either. It is not forgotten for that: reads of
            // others may be in older snapshots.
            self.has_looked_back = !self.interests.state().recent.has_unseen(snapshots, self.since);
        }
        let mut own = self.interest.unseen();
        own.forget_seen(snapshots);
        own.has_unseen(snapshots, u64::MAX) || !self.has_looked_back
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut state = self.interests.state();
        match self.place.take() {
            Some(IndexEntry::Rows(rows, handle)) => {
                state.layout(&rows).index.remove(handle);
                state.layouts.retain(|layout| !layout.index.is_empty());
                drop(state);
                if self.followed.is_some() {
                    self.interests.selective.send_modify(|count| *count -= 1);
                }
            }
            Some(IndexEntry::Open(place)) => drop(state.open.remove(&place)),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests;
