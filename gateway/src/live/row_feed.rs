//! Row feeds: changes of rows for clients of the predecessor, which have no message for RESYNC.
//!
//! Such a client merges what it is told into the rows that it has, by their keys. A feed knows which these are: after a
//! RESYNC it compares the rows that there are with them, and tells the differences as inserts, updates and deletes. It knows
//! them also where its client does not want the rows of the beginning: those that are gone are told as well.

mod known;
#[cfg(test)]
mod tests;

use std::{time::SystemTime, vec};

use bytes::Bytes;
use mesh::{Code, Fault, clock};
use proto::realtime::{Event, Row};
use query::{Field, FieldKind, Read};

use self::known::{Comparison, KnownRows};
use super::{Hold, Watch, WatchedRows};

/// Time of the rows that there are at the beginning: any change is later.
const INITIAL_TIME_MS: i64 = 1;
/// Bytes of known rows that are counted at once.
const COUNT_STEP: usize = 16 * 1024;

/// A feed. Dropped, it ends.
pub struct RowFeed {
    watch: Watch,
    merge: Merge,
    /// The memory of what is known of its rows.
    hold: Hold,
    counted: usize,
}

/// How a feed tells rows.
#[derive(Debug, Clone, Copy)]
pub struct FeedOptions {
    /// Columns of the key, all of which have to be told.
    pub key_columns: usize,
    /// What becomes of the rows that there are at the beginning.
    pub initial: InitialRows,
}

/// What becomes of the rows that there are at the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InitialRows {
    /// They are collected until [`FeedMessage::Ready`]: the client has none before.
    Collected,
    /// Each is told at once.
    Told,
    /// They are not told.
    Skipped,
}

/// What a feed tells.
#[derive(Debug, Clone, PartialEq)]
pub enum FeedMessage {
    /// A row.
    Row(FeedRow),
    /// The rows that there are at the beginning have been told.
    Ready,
    /// The rows that were collected are void; all follow.
    Void,
}

/// A row, and what became of it.
#[derive(Debug, Clone, PartialEq)]
pub struct FeedRow {
    /// What became of it.
    pub kind: FeedKind,
    /// JSON of the row; of one that is gone, of its key.
    pub row: Bytes,
    /// JSON of its key: columns and values.
    pub key: Bytes,
    /// When it was committed, in milliseconds since the Unix epoch; never before that of an earlier one.
    pub time_ms: i64,
}

/// What became of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedKind {
    /// It is there at the beginning.
    Initial,
    /// It is new.
    Insert,
    /// It is another, or came into view.
    Update,
    /// It is gone, or out of view.
    Delete,
}

impl FeedKind {
    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            FeedKind::Initial => "initial",
            FeedKind::Insert => "insert",
            FeedKind::Update => "update",
            FeedKind::Delete => "delete",
        }
    }
}

impl FeedRow {
    /// The key as a text: its value, or a list of them where it has several.
    pub fn doc_id(&self) -> String {
        let values = known::values(&self.key).unwrap_or_default();
        let text = |value: &str| serde_json::from_str(value).unwrap_or_else(|_| value.to_owned());
        match values.as_slice() {
            [value] => text(value.get()),
            values => {
                let values: Vec<&str> = values.iter().map(|value| value.get()).collect();
                format!("[{}]", values.join(","))
            }
        }
    }
}

impl RowFeed {
    /// The feed of `watch`; `hold` counts what is known of its rows.
    pub fn new(watch: Watch, options: FeedOptions, hold: Hold) -> Self {
        Self { watch, merge: Merge::new(options), hold, counted: 0 }
    }

    /// What it watches of `read`: the rows that there are, and nothing of rows as they were, which takes a field of its own to
    /// say.
    pub fn watched(read: Read) -> WatchedRows {
        let before = vec![Field { key: String::new(), kind: FieldKind::Constant(String::new()) }];
        WatchedRows { read, before, skip_initial: false, after: String::new() }
    }

    /// The rows that its client was told of as deletes, one after the other: it may not have them any more. No other message
    /// follows them.
    pub fn take_away(&mut self) -> impl Iterator<Item = FeedRow> + '_ {
        if self.merge.options.initial != InitialRows::Skipped {
            (self.merge.gone, self.merge.compared_ms) =
                (self.merge.known.keys().into_iter(), clock::unix_ms(SystemTime::now()));
        }
        std::iter::from_fn(|| self.merge.next_gone())
    }

    /// The next message. An error ends the feed. Cancel safe.
    pub async fn next(&mut self) -> Result<FeedMessage, Fault> {
        loop {
            if let Some(gone) = self.merge.next_gone() {
                return Ok(FeedMessage::Row(gone));
            }
            let message = self.watch.next().await?;
            let told = self.merge.take(message.event, clock::unix_ms(SystemTime::now()))?;
            self.count()?;
            if let Some(told) = told {
                return Ok(told);
            }
        }
    }

    /// Counts what is known of the rows. Errors: it is over a limit.
    fn count(&mut self) -> Result<(), Fault> {
        let bytes = self.merge.known.bytes();
        if bytes > self.counted || bytes + 2 * COUNT_STEP < self.counted {
            let counted = bytes.next_multiple_of(COUNT_STEP);
            self.hold.resize(counted)?;
            self.counted = counted;
        }
        Ok(())
    }
}

/// What a client has, and how messages change it.
struct Merge {
    options: FeedOptions,
    known: KnownRows,
    phase: FeedPhase,
    /// Keys of rows that are gone, which are yet to be told.
    gone: vec::IntoIter<Bytes>,
    /// Of the last row that was told.
    time_ms: i64,
    /// When the rows that are gone were looked for.
    compared_ms: i64,
}

/// How far a feed is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FeedPhase {
    /// The rows that there are at the beginning are told.
    Initial,
    /// Changes are told.
    Following,
    /// The rows that there are after a RESYNC are compared with those that are known.
    Comparing,
}

impl Merge {
    fn new(options: FeedOptions) -> Self {
        let (known, gone) = (KnownRows::default(), Vec::new().into_iter());
        Self { options, known, phase: FeedPhase::Initial, gone, time_ms: INITIAL_TIME_MS, compared_ms: 0 }
    }

    /// What an event is to the client at `now_ms`. Errors: rows cannot be told apart.
    fn take(&mut self, event: Option<Event>, now_ms: i64) -> Result<Option<FeedMessage>, Fault> {
        match event {
            Some(Event::Initial(row)) => self.there_is(row, now_ms),
            Some(Event::Insert(row)) => self.changed(FeedKind::Insert, row, now_ms),
            Some(Event::Update(row)) => self.changed(FeedKind::Update, row, now_ms),
            Some(Event::Delete(row)) => {
                self.check(&row)?;
                self.known.remove(&row.key);
                let time_ms = self.time(row.committed_ms, now_ms);
                let row = FeedRow { kind: FeedKind::Delete, row: row.key.clone(), key: row.key, time_ms };
                Ok(Some(FeedMessage::Row(row)))
            }
            Some(Event::Ready(_)) | None => Ok(self.ready(now_ms)),
            Some(Event::Resync(_)) => Ok(self.resync()),
        }
    }

    fn there_is(&mut self, row: Row, now_ms: i64) -> Result<Option<FeedMessage>, Fault> {
        self.check(&row)?;
        let compared = self.known.compare(&row);
        let kind = match (self.phase, compared) {
            (_, Comparison::Same) => return Ok(None),
            (FeedPhase::Initial, _) if self.options.initial == InitialRows::Skipped => return Ok(None),
            (FeedPhase::Initial, _) => FeedKind::Initial,
            (FeedPhase::Following | FeedPhase::Comparing, Comparison::Other) => FeedKind::Update,
            (FeedPhase::Following | FeedPhase::Comparing, Comparison::New) => FeedKind::Insert,
        };
        let time_ms = match kind {
            FeedKind::Initial => INITIAL_TIME_MS,
            FeedKind::Insert | FeedKind::Update | FeedKind::Delete => self.time(0, now_ms),
        };
        Ok(Some(FeedMessage::Row(FeedRow { kind, row: row.row, key: row.key, time_ms })))
    }

    fn changed(&mut self, kind: FeedKind, row: Row, now_ms: i64) -> Result<Option<FeedMessage>, Fault> {
        self.check(&row)?;
        // Whether it is another makes no difference: each change is told.
        self.known.compare(&row);
        let time_ms = self.time(row.committed_ms, now_ms);
        Ok(Some(FeedMessage::Row(FeedRow { kind, row: row.row, key: row.key, time_ms })))
    }

    fn ready(&mut self, now_ms: i64) -> Option<FeedMessage> {
        match std::mem::replace(&mut self.phase, FeedPhase::Following) {
            FeedPhase::Initial => Some(FeedMessage::Ready),
            FeedPhase::Following => None,
            FeedPhase::Comparing => {
                (self.gone, self.compared_ms) = (self.known.stale().into_iter(), now_ms);
                None
            }
        }
    }

    fn resync(&mut self) -> Option<FeedMessage> {
        if self.phase == FeedPhase::Initial && self.options.initial != InitialRows::Told {
            self.known = KnownRows::default();
            return Some(FeedMessage::Void);
        }
        self.phase = FeedPhase::Comparing;
        self.known.begin_comparison();
        None
    }

    /// The next row that is gone.
    fn next_gone(&mut self) -> Option<FeedRow> {
        let key = self.gone.next()?;
        self.known.remove(&key);
        let time_ms = self.time(0, self.compared_ms);
        Some(FeedRow { kind: FeedKind::Delete, row: key.clone(), key, time_ms })
    }

    /// When a change was committed, or now; never before an earlier one: clients drop what is older than what they have.
    fn time(&mut self, committed_ms: i64, now_ms: i64) -> i64 {
        self.time_ms = self.time_ms.max(if committed_ms > 0 { committed_ms } else { now_ms });
        self.time_ms
    }

    /// Refuses a row whose key is not told as a whole: a client would take several rows for one.
    fn check(&self, row: &Row) -> Result<(), Fault> {
        match known::values(&row.key) {
            Some(values) if values.len() == self.options.key_columns && !values.is_empty() => Ok(()),
            _ => {
                let what = "the rows cannot be told apart: not all columns of their key may be read";
                Err(Fault::new(Code::BadRequest, what))
            }
        }
    }
}
