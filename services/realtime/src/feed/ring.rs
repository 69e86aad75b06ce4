//! The ring: the latest of what a log told, bounded by time and bytes.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use mesh::Fault;
use proto::crud::{Change, Event, LogResponse, ResyncReason, Snapshot, Transaction};
use query::Object;
use tokio::time::Instant;

use crate::{
    Error,
    image::{Image, ImageReader},
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
    /// Position of the log before the transaction.
    pub before: Bytes,
    /// Changes of the transaction in the parts before.
    pub told: u64,
    /// In their order.
    pub changes: Vec<RowChange>,
}

/// A change of one row; at least one of both is there.
#[derive(Debug)]
pub struct RowChange {
    /// The row as it was.
    pub before: Option<RowVersion>,
    /// The row as it is.
    pub after: Option<RowVersion>,
}

/// A row at a moment.
#[derive(Debug)]
pub struct RowVersion {
    /// What is told of it.
    pub image: Image,
    /// What conditions on it are decided by.
    pub values: Object,
}

impl Ring {
    /// An empty ring of what the log tells after a position.
    pub fn new(position: Bytes) -> Self {
        let (entries, reader) = (VecDeque::new(), ImageReader::default());
        Self { state: FeedState::Connecting, entries, first: 0, bytes: 0, position, reader }
    }

    /// The number of the first entry.
    pub fn first(&self) -> u64 {
        self.first
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
        let is_unseen = |entry: &Entry| matches!(&entry.happened, Happened::Changes(part) if !snapshot.sees(part.id));
        self.entries.iter().rev().any(|(entry, _)| is_unseen(entry))
    }

    /// The position of the log after all entries.
    pub fn position(&self) -> &Bytes {
        &self.position
    }

    /// The number of the first entry after a position of the log, where that is known.
    pub fn after(&self, log: &Bytes) -> Option<u64> {
        let after = self.entries.iter().rev().find(|(entry, _)| entry.after == *log).map(|(entry, _)| entry.number + 1);
        let before = || {
            let is_at = |entry: &Entry| matches!(&entry.happened, Happened::Changes(part) if part.before == *log && part.told == 0);
            self.entries.iter().find(|(entry, _)| is_at(entry)).map(|(entry, _)| entry.number)
        };
        let is_now = || (self.position == *log).then(|| self.end());
        // A part of a transaction may have the position before all of it.
        before().or(after).or_else(is_now)
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
            Some(Happened::Changes(part)) if part.id == id => {
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
    async fn a_ring_keeps_the_latest_by_bytes() {
        let mut ring = started(0);
        for number in 0..40 {
            transaction(&mut ring, number, number + 1, RING_BYTES / 20);
        }
        assert_eq!(ring.end(), 40);
        // Each counts twice: the text, and the values that are read of it.
        assert_eq!(ring.first(), 31);
        assert!(ring.entry(30).is_none() && ring.entry(31).is_some() && ring.entry(40).is_none());
        transaction(&mut ring, 40, 41, 2 * RING_BYTES);
        assert_eq!((ring.first(), ring.end()), (40, 41));
    }

    #[tokio::test(start_paused = true)]
    async fn a_ring_keeps_the_latest_by_time() {
        let mut ring = started(0);
        transaction(&mut ring, 1, 1, 1);
        tokio::time::advance(RING_TIME / 2).await;
        transaction(&mut ring, 2, 2, 1);
        tokio::time::advance(RING_TIME / 2 + Duration::from_millis(1)).await;
        transaction(&mut ring, 3, 3, 1);
        assert_eq!((ring.first(), ring.end()), (1, 3));
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
