//! The ring: the latest of what a log told, bounded by time and bytes.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use mesh::Fault;
use proto::crud::{Change, Event, LogResponse, ResyncReason, Snapshot, Transaction};
use tokio::time::Instant;

use super::groups::Groups;
use crate::{
    Error,
    image::{ImageReader, RowChange, RowVersion},
};

/// Bytes of images that a ring keeps, and how long it keeps them.
const RING_BYTES: usize = 16 << 20;
const RING_TIME: Duration = Duration::from_secs(60);
/// Bytes that an entry counts besides its images.
const ENTRY_BYTES: usize = 256;

/// State of a feed.
#[derive(Debug, Clone)]
pub enum FeedState {
    /// The log has not started.
    Connecting,
    /// It has; it is connected again where it breaks off.
    Live,
    /// It ended for good.
    Failed(Fault),
}

/// The latest entries of a feed.
#[derive(Debug)]
pub struct Ring {
    /// Whether it is fed.
    pub state: FeedState,
    /// Watches that are told of what concerns them.
    pub groups: Groups,
    entries: VecDeque<(Arc<Entry>, Instant)>,
    /// Number of the first of them.
    first: u64,
    bytes: usize,
    /// Position of the log after all of them.
    position: Bytes,
    reader: ImageReader,
}

/// Something that the log told.
#[derive(Debug)]
pub struct Entry {
    /// Its number in the feed.
    pub number: u64,
    /// Position of the log after it.
    pub after: Bytes,
    /// What happened.
    pub happened: Happened,
    bytes: usize,
}

/// What happened to a table.
#[derive(Debug)]
pub enum Happened {
    /// A transaction changed rows.
    Changes(TransactionPart),
    /// Changes may have been missed, for this reason.
    Resync(&'static str),
}

/// A transaction, or a part of it.
#[derive(Debug)]
pub struct TransactionPart {
    /// The id of the transaction, as snapshots see it.
    pub id: u64,
    /// Milliseconds since the Unix epoch.
    pub committed_ms: i64,
    /// Position of the log from which it tells the transaction: that before all of it, or that after an earlier part.
    pub before: Bytes,
    /// Changes of the transaction between that position and this part.
    pub told: u64,
    /// In their order.
    pub changes: Vec<RowChange>,
}

impl Ring {
    /// An empty ring of what the log tells after a position.
    pub fn new(position: Bytes) -> Self {
        let (groups, entries, reader) = (Groups::default(), VecDeque::new(), ImageReader::default());
        Self { state: FeedState::Connecting, groups, entries, first: 0, bytes: 0, position, reader }
    }

    /// The entries, the oldest first.
    pub fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.iter().map(|(entry, _)| entry)
    }

    /// The number of the entry that comes next.
    pub fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// The entry of this number, where it is kept.
    pub fn entry(&self, number: u64) -> Option<Arc<Entry>> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.entries.get(index).map(|(entry, _)| entry.clone())
    }

    /// Whether a transaction of the entries is not visible in a snapshot.
    pub fn has_unseen(&self, snapshot: &Snapshot) -> bool {
        self.entries.iter().rev().any(|(entry, _)| entry.is_unseen(snapshot))
    }

    /// The position of the log after all entries.
    pub fn position(&self) -> &Bytes {
        &self.position
    }

    /// The number of the first entry that may not have been told at a position of the log, where that is known.
    pub fn after(&self, log: &Bytes) -> Option<u64> {
        let mut found = None;
        for (entry, _) in self.entries.iter().rev() {
            match (&entry.happened, found) {
                (Happened::Changes(part), _) if part.before == *log && part.told == 0 => {
                    found = Some(Some(entry.number))
                }
                // Of a transaction whose first part may be gone.
                (Happened::Changes(part), _) if part.before == *log => found = Some(None),
                (Happened::Changes(_), None) if entry.after == *log => return Some(entry.number + 1),
                // A gap has the position of what was before it, and may be told twice.
                (Happened::Resync(_), _) if entry.after == *log => found = Some(Some(entry.number)),
                (_, None) => {}
                (_, Some(found)) => return found,
            }
        }
        found.unwrap_or_else(|| (self.position == *log).then(|| self.end()))
    }

    /// Keeps what the log told.
    pub fn push(&mut self, response: LogResponse) -> Result<(), Error> {
        let LogResponse { position, event } = response;
        match event {
            Some(Event::Started(_)) => self.state = FeedState::Live,
            Some(Event::Transaction(transaction)) => {
                let part = self.part(transaction)?;
                self.keep(Happened::Changes(part), &position);
            }
            Some(Event::Resync(resync)) => self.keep(Happened::Resync(reason(resync.reason())), &position),
            None => return Err(Error::Unreadable("an empty message of the log".to_owned())),
        }
        self.position = position;
        Ok(())
    }

    fn part(&mut self, transaction: Transaction) -> Result<TransactionPart, Error> {
        let Transaction { id, committed_us, changes } = transaction;
        let (before, told) = match self.entries.back().map(|(entry, _)| &entry.happened) {
            // A log that goes on after a part counts from there, so the same is done where it has told all.
            Some(Happened::Changes(part)) if part.id == id && part.before == self.position => {
                (part.before.clone(), part.told + part.changes.len() as u64)
            }
            _ => (self.position.clone(), 0),
        };
        let changes = changes.into_iter().map(|change| self.change(change)).collect::<Result<_, _>>()?;
        Ok(TransactionPart { id, committed_ms: committed_us / 1000, before, told, changes })
    }

    fn change(&mut self, change: Change) -> Result<RowChange, Error> {
        let mut version = |json: Bytes| -> Result<Option<RowVersion>, Error> {
            if json.is_empty() {
                return Ok(None);
            }
            let image = self.reader.read(json)?;
            Ok(Some(RowVersion { values: image.values(), image }))
        };
        Ok(RowChange { before: version(change.before)?, after: version(change.after)? })
    }

    fn keep(&mut self, happened: Happened, position: &Bytes) {
        let now = Instant::now();
        let bytes = ENTRY_BYTES + happened.bytes();
        self.bytes += bytes;
        let entry = Entry { number: self.end(), after: position.clone(), happened, bytes };
        self.groups.push(&entry);
        self.entries.push_back((Arc::new(entry), now));
        // The newest is kept however large it is.
        while self.entries.len() > 1
            && let Some((oldest, since)) = self.entries.front()
            && (self.bytes > RING_BYTES || now.duration_since(*since) > RING_TIME)
        {
            self.bytes -= oldest.bytes;
            self.entries.pop_front();
            self.first += 1;
        }
    }
}

impl Entry {
    /// Whether it is a transaction that is not visible in a snapshot.
    pub fn is_unseen(&self, snapshot: &Snapshot) -> bool {
        matches!(&self.happened, Happened::Changes(part) if !snapshot.sees(part.id))
    }
}

impl Happened {
    fn bytes(&self) -> usize {
        let Happened::Changes(part) = self else { return 0 };
        let versions = part.changes.iter().flat_map(|change| [&change.before, &change.after]).flatten();
        // Values take about as much again as the texts that they were read of.
        versions.map(|version| 2 * version.image.len()).sum()
    }
}

/// The name by which clients know a reason.
fn reason(reason: ResyncReason) -> &'static str {
    match reason {
        ResyncReason::Overflow => "overflow",
        ResyncReason::LogLost | ResyncReason::Unspecified => "log_lost",
        ResyncReason::Truncate => "truncate",
        ResyncReason::Restored => "restored",
        ResyncReason::Position => "position",
    }
}

#[cfg(test)]
mod tests {
    use proto::crud::{Operation, Resync, Started};

    use super::*;

    fn position(number: u64) -> Bytes {
        number.to_string().into()
    }

    /// The log tells a part of transaction `id`, after which it is at `position`.
    fn transaction(ring: &mut Ring, id: u64, at: u64, bytes: usize) {
        let after = format!("{{\"text\":\"{}\"}}", "x".repeat(bytes)).into();
        let change = Change { table: "t".to_owned(), operation: Operation::Insert.into(), before: Bytes::new(), after };
        let event = Event::Transaction(Transaction { id, committed_us: 7999, changes: vec![change] });
        ring.push(LogResponse { position: position(at), event: Some(event) }).unwrap();
    }

    fn started(at: u64) -> Ring {
        let mut ring = Ring::new(Bytes::new());
        ring.push(LogResponse { position: position(at), event: Some(Event::Started(Started {})) }).unwrap();
        ring
    }

    fn part(ring: &Ring, number: u64) -> (u64, Bytes, u64) {
        let entry = ring.entry(number).unwrap();
        let Happened::Changes(part) = &entry.happened else { panic!("changes") };
        assert_eq!(part.committed_ms, 7);
        (part.id, part.before.clone(), part.told)
    }

    #[tokio::test]
    async fn parts_of_a_transaction_have_the_position_before_it() {
        let mut ring = started(1);
        for (id, at) in [(5, 1), (5, 1), (5, 2), (6, 3)] {
            transaction(&mut ring, id, at, 1);
        }
        let parts: Vec<_> = (0..4).map(|number| part(&ring, number)).collect();
        assert_eq!(parts, [(5, position(1), 0), (5, position(1), 1), (5, position(1), 2), (6, position(2), 0)]);
        assert_eq!(ring.after(&position(1)), Some(0));
        assert_eq!(ring.after(&position(2)), Some(3));
        assert_eq!(ring.after(&position(3)), Some(4));
        assert_eq!(ring.after(&position(4)), None);
    }

    #[tokio::test]
    async fn a_part_after_which_the_log_goes_on_is_one_to_go_on_after() {
        let mut ring = started(1);
        for (id, at) in [(5, 2), (5, 3), (5, 4)] {
            transaction(&mut ring, id, at, 1);
        }
        let parts: Vec<_> = (0..3).map(|number| part(&ring, number)).collect();
        assert_eq!(parts, [(5, position(1), 0), (5, position(2), 0), (5, position(3), 0)]);
        assert_eq!(
            (1..=4).map(|at| ring.after(&position(at))).collect::<Vec<_>>(),
            [Some(0), Some(1), Some(2), Some(3)]
        );
    }

    #[tokio::test]
    async fn a_transaction_whose_beginning_is_gone_is_not_gone_on_with() {
        let mut ring = started(1);
        for at in [1, 1, 1, 2] {
            transaction(&mut ring, 5, at, RING_BYTES / 7);
        }
        assert_eq!(ring.first, 1);
        assert_eq!(ring.after(&position(1)), None);
        assert_eq!(ring.after(&position(2)), Some(4));
    }

    #[tokio::test]
    async fn a_gap_is_told_to_who_goes_on_after_what_was_before_it() {
        let mut ring = started(1);
        let gap = |ring: &mut Ring, at| {
            let resync = Resync { reason: ResyncReason::Truncate.into(), tables: Vec::new() };
            ring.push(LogResponse { position: position(at), event: Some(Event::Resync(resync)) }).unwrap();
        };
        gap(&mut ring, 1);
        assert_eq!(ring.after(&position(1)), Some(0));
        transaction(&mut ring, 5, 2, 1);
        assert_eq!(ring.after(&position(1)), Some(0));
        gap(&mut ring, 2);
        assert_eq!(ring.after(&position(2)), Some(2));
        transaction(&mut ring, 6, 3, 1);
        assert_eq!((ring.after(&position(2)), ring.after(&position(3))), (Some(2), Some(4)));
    }

    #[tokio::test]
    async fn a_ring_keeps_the_latest_by_bytes() {
        let mut ring = started(0);
        for number in 0..40 {
            transaction(&mut ring, number, number + 1, RING_BYTES / 20);
        }
        assert_eq!(ring.end(), 40);
        // Each counts twice: the text, and the values that are read of it.
        assert_eq!(ring.first, 31);
        assert!(ring.entry(30).is_none() && ring.entry(31).is_some() && ring.entry(40).is_none());
        transaction(&mut ring, 40, 41, 2 * RING_BYTES);
        assert_eq!((ring.first, ring.end()), (40, 41));
    }

    #[tokio::test(start_paused = true)]
    async fn a_ring_keeps_the_latest_by_time() {
        let mut ring = started(0);
        transaction(&mut ring, 1, 1, 1);
        tokio::time::advance(RING_TIME / 2).await;
        transaction(&mut ring, 2, 2, 1);
        tokio::time::advance(RING_TIME / 2 + Duration::from_millis(1)).await;
        transaction(&mut ring, 3, 3, 1);
        assert_eq!((ring.first, ring.end()), (1, 3));
    }

    #[tokio::test]
    async fn a_gap_is_kept_by_the_name_of_its_reason() {
        let mut ring = started(0);
        let resync = Resync { reason: ResyncReason::Truncate.into(), tables: Vec::new() };
        ring.push(LogResponse { position: position(1), event: Some(Event::Resync(resync)) }).unwrap();
        assert!(matches!(ring.entry(0).unwrap().happened, Happened::Resync("truncate")));
        assert!(ring.push(LogResponse { position: position(1), event: None }).is_err());
    }
}
