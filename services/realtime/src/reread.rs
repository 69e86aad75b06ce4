//! Watches whose rows the database alone can decide on: they are read again after each change, and the differences by key
//! are told. What is between two reads is told together.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::future::select_all;
use mesh::Fault;
use proto::{crud::Snapshot, realtime::Event};
use tokio::time::Instant;

use crate::{
    Error,
    feed::{Cursor, Happened, Taken},
    image::{Image, ImageReader},
    memory::RowHold,
    plan::Plan,
    rights::{Decision, Rights},
    shared::Shared,
};

/// Least time between two reads: what is committed meanwhile is one difference.
const READ_INTERVAL_MIN: Duration = Duration::from_millis(50);

/// The rows that were told, and the tables on which they depend.
pub struct Reread {
    /// The watched table first.
    cursors: Vec<Cursor>,
    /// Which of them are of tables that the caller named.
    is_named: Vec<bool>,
    /// By their keys.
    rows: BTreeMap<Bytes, Image>,
    last_read: Instant,
    /// What was seen before a read that failed.
    unread: Option<Seen>,
    /// Memory of the rows.
    hold: Option<RowHold>,
}

/// What happened to the watched table since the last read.
#[derive(Debug, Default)]
pub struct Seen {
    /// Keys of rows that were inserted.
    inserted: BTreeSet<Bytes>,
    /// When the last change was committed; 0 where none was seen.
    committed_ms: i64,
}

impl Reread {
    /// Follows the tables on which the rows depend, from before the next read. Errors: rows cannot be told apart by columns
    /// that the caller may read, or a table cannot be followed.
    pub async fn begin(shared: &Arc<Shared>, plan: &Plan, rights: &Rights) -> Result<Self, Error> {
        if let Decision::Database(name) = &rights.decision
            && rights.told.key.len() < plan.key.len()
        {
            let of = name.as_ref().map_or_else(|| "of the rules".to_owned(), |name| format!("with {name}"));
            let why = format!(
                "conditions {of} are decided by the database, and then all columns of the key must be readable"
            );
            return Err(Error::Refused(format!("changes of {} cannot be watched: {why}", plan.request.read.table)));
        }
        let mut own = shared.feeds.now(&plan.table_id());
        own.live().await?;
        let (mut cursors, mut named) = (vec![own], vec![true]);
        for (table, is_named) in plan.other_tables(&rights.granted.relations)? {
            let mut cursor = shared.feeds.now(&table);
            match cursor.live().await {
                Err(error) if !is_named => return Err(undisclosed(error)),
                live => live?,
            }
            cursors.push(cursor);
            named.push(is_named);
        }
        Ok(Self {
            cursors,
            is_named: named,
            rows: BTreeMap::new(),
            last_read: Instant::now(),
            unread: None,
            hold: None,
        })
    }

    /// With the rows that are told at first.
    pub fn reading(
        mut self,
        rights: &Rights,
        (rows, hold): (&[Bytes], RowHold),
        snapshot: &Snapshot,
    ) -> Result<Self, Error> {
        self.rows = by_key(rights, rows)?;
        self.hold = Some(hold);
        self.has_read(snapshot);
        Ok(self)
    }

    /// The rows were read. A server may tell of a transaction that it has not made visible yet: then they are read again.
    fn has_read(&mut self, snapshot: &Snapshot) {
        self.last_read = Instant::now();
        let is_behind = self.cursors.iter().any(|cursor| cursor.has_unseen(snapshot));
        self.unread = is_behind.then(Seen::default);
    }

    /// Waits until the rows may be others than those that were told. Cancel safe.
    pub async fn changed(&mut self) -> Result<(), Error> {
        if self.unread.is_none() {
            let changed = self.cursors.iter_mut().map(|cursor| Box::pin(cursor.changed()));
            let (first, index, _) = select_all(changed).await;
            first.map_err(|error| if self.is_named[index] { error } else { undisclosed(error) })?;
        }
        tokio::time::sleep_until(self.last_read + READ_INTERVAL_MIN).await;
        Ok(())
    }

    /// Takes what happened until now.
    pub fn take(&mut self, rights: &Rights) -> Seen {
        let mut seen = self.unread.take().unwrap_or_default();
        for (index, cursor) in self.cursors.iter_mut().enumerate() {
            while let Some(taken) = cursor.take() {
                if let Taken::Entry(entry, _) = taken
                    && let (0, Happened::Changes(part)) = (index, &entry.happened)
                {
                    seen.committed_ms = part.committed_ms;
                    let inserts = part.changes.iter().filter(|change| change.before.is_none());
                    let keys =
                        inserts.filter_map(|change| change.after.as_ref()).map(|row| rights.told.key(&row.image));
                    seen.inserted.extend(keys);
                }
            }
        }
        seen
    }

    /// The rows could not be read now.
    pub fn failed(&mut self, seen: Seen) {
        self.last_read = Instant::now();
        self.unread = Some(seen);
    }

    /// What differs in `rows` from those that were told.
    pub fn differences(
        &mut self,
        rights: &Rights,
        (rows, hold): (&[Bytes], RowHold),
        snapshot: &Snapshot,
        seen: Seen,
    ) -> Result<VecDeque<Event>, Error> {
        let now = by_key(rights, rows)?;
        let told = std::mem::take(&mut self.rows);
        let (row, committed) = (&rights.told, seen.committed_ms);
        let gone = told.iter().filter(|(key, _)| !now.contains_key(*key));
        let mut events: VecDeque<Event> = gone.map(|(_, image)| Event::Delete(row.gone(image, committed))).collect();
        for (key, image) in &now {
            match told.get(key) {
                Some(before) if before.is_same(image) => {}
                Some(before) => events.push_back(Event::Update(row.row(image, Some(before), committed))),
                None if seen.inserted.contains(key) => events.push_back(Event::Insert(row.row(image, None, committed))),
                None => events.push_back(Event::Update(row.row(image, None, committed))),
            }
        }
        (self.rows, self.hold) = (now, Some(hold));
        self.has_read(snapshot);
        // What was seen of it is told then.
        if let Some(unread) = &mut self.unread {
            *unread = seen;
        }
        Ok(events)
    }
}

fn by_key(rights: &Rights, rows: &[Bytes]) -> Result<BTreeMap<Bytes, Image>, Error> {
    let mut reader = ImageReader::default();
    let mut images = BTreeMap::new();
    for row in rows {
        // A copy, so that one row does not keep the whole answer.
        let image = reader.read(Bytes::copy_from_slice(row))?;
        images.insert(rights.told.key(&image), image);
    }
    Ok(images)
}

/// The error of a table that the rules alone look at, without its name.
fn undisclosed(error: Error) -> Error {
    let code = Fault::from(error).code;
    Fault::new(code, "the changes of a table that the rules look at cannot be followed").into()
}
