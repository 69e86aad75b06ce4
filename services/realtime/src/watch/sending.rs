//! Messages that are being told: made one by one, so that none waits in memory.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use proto::realtime::{Event, Ready, Resync, Row, WatchResponse};

use super::{Following, Next, Watch};
use crate::{
    Error,
    feed::{Entry, Happened, RowVersion, TransactionPart},
    image::{Image, ImageReader},
    memory::RowHold,
    position::Position,
};

/// Changes that are looked at before others have a turn.
const SCAN_MAX: usize = 1024;

/// What is being told.
pub enum Sending {
    /// Nothing.
    Nothing,
    /// The rows that there are, and READY.
    Rows(Box<SentRows>),
    /// A transaction, or a part of it.
    Part(SentPart),
    /// Events that were found by reading again.
    Events(VecDeque<Event>),
}

/// Rows that are being told.
pub struct SentRows {
    reason: Option<&'static str>,
    rows: std::vec::IntoIter<Bytes>,
    reader: ImageReader,
    /// The position of READY.
    ready: String,
    _hold: Option<RowHold>,
}

/// Rows that were read, and the memory that they take.
pub struct HeldRows {
    /// Parts of one answer.
    pub rows: Vec<Bytes>,
    /// As long as it is held.
    pub hold: RowHold,
}

impl HeldRows {
    /// Bytes of the rows.
    pub fn bytes(&self) -> usize {
        self.rows.iter().map(Bytes::len).sum()
    }
}

/// A part of a transaction that is being told. Each change has two steps: a changed key is two messages.
pub struct SentPart {
    entry: Arc<Entry>,
    steps: u64,
}

impl Sending {
    /// READY alone.
    pub fn ready(position: String) -> Self {
        Self::rows(None, None, position)
    }

    /// RESYNC where there is a reason, `rows` and READY.
    pub fn rows(reason: Option<&'static str>, rows: Option<HeldRows>, ready: String) -> Self {
        let (rows, hold) = rows.map(|held| (held.rows, held.hold)).unzip();
        let (rows, reader) = (rows.unwrap_or_default().into_iter(), ImageReader::default());
        Sending::Rows(Box::new(SentRows { reason, rows, reader, ready, _hold: hold }))
    }

    /// What a transaction changed.
    pub fn part(entry: Arc<Entry>) -> Self {
        Sending::Part(SentPart { entry, steps: 0 })
    }

    /// Differences.
    pub fn events(events: VecDeque<Event>) -> Self {
        Sending::Events(events)
    }

    /// Whether something is left.
    pub fn is_something(&self) -> bool {
        !matches!(self, Sending::Nothing)
    }
}

impl Watch {
    /// The next message of what is being told. Where there is none, nothing is being told, or others have a turn.
    pub fn next_message(&mut self) -> Result<Option<WatchResponse>, Error> {
        match std::mem::replace(&mut self.sending, Sending::Nothing) {
            Sending::Nothing => Ok(None),
            Sending::Rows(rows) => self.next_row(rows).map(Some),
            Sending::Part(part) => Ok(self.next_step(part)),
            Sending::Events(mut events) => {
                let Some(event) = events.pop_front() else { return Ok(None) };
                self.sending = if events.is_empty() { Sending::Nothing } else { Sending::Events(events) };
                Ok(Some(WatchResponse { position: self.anew_position(), event: Some(event) }))
            }
        }
    }

    fn next_row(&mut self, mut sent: Box<SentRows>) -> Result<WatchResponse, Error> {
        let event = if let Some(reason) = sent.reason.take() {
            Event::Resync(Resync { reason: reason.to_owned() })
        } else if let Some(row) = sent.rows.next() {
            let image = sent.reader.read(row)?;
            Event::Initial(self.row(&image, None, 0))
        } else {
            return Ok(WatchResponse { position: sent.ready, event: Some(Event::Ready(Ready {})) });
        };
        self.sending = Sending::Rows(sent);
        Ok(WatchResponse { position: self.anew_position(), event: Some(event) })
    }

    fn next_step(&mut self, mut sent: SentPart) -> Option<WatchResponse> {
        let entry = sent.entry.clone();
        let Happened::Changes(part) = &entry.happened else { return None };
        if sent.steps == 0 && !self.knows_columns(part) {
            self.next = Next::Plan;
            return None;
        }
        let Following::Log(follow) = &self.following else { return None };
        let resumed = follow.resumed;
        let steps = 2 * part.changes.len() as u64;
        let turn = steps.min(sent.steps + 2 * SCAN_MAX as u64);
        while sent.steps < turn {
            let step = sent.steps;
            sent.steps += 1;
            let told = 2 * part.told + sent.steps;
            if resumed.0 == part.id && told <= resumed.1 {
                continue;
            }
            if let Some(event) = self.event(part, step) {
                // Going on after it tells what was told since the log's position again, or what follows.
                let position = match sent.steps == steps && entry.after != part.before {
                    true => Position { log: entry.after.clone(), transaction: 0, step: 0 },
                    false => Position { log: part.before.clone(), transaction: part.id, step: told },
                };
                let position = self.shared.sealer.follow(self.rights.fingerprint, &position);
                self.sending = if sent.steps < steps { Sending::Part(sent) } else { Sending::Nothing };
                return Some(WatchResponse { position, event: Some(event) });
            }
        }
        if sent.steps < steps {
            self.sending = Sending::Part(sent);
        }
        None
    }

    /// What a step of a transaction is to the caller.
    fn event(&self, part: &TransactionPart, step: u64) -> Option<Event> {
        let change = part.changes.get(usize::try_from(step / 2).ok()?)?;
        let seen = |version: &Option<RowVersion>| version.as_ref().is_some_and(|one| self.rights.pass(&self.plan, one));
        let (before, after) = (change.before.as_ref(), change.after.as_ref());
        let told = &self.rights.told;
        let is_moved = match (before, after) {
            (Some(before), Some(after)) => told.is_moved(&before.image, &after.image),
            _ => false,
        };
        let is_second = step % 2 == 1;
        let row = |version: &RowVersion, before: Option<&RowVersion>| {
            self.row(&version.image, before.map(|before| &before.image), part.committed_ms)
        };
        match (before, after) {
            (None, Some(after)) if !is_second && seen(&change.after) => Some(Event::Insert(row(after, None))),
            (Some(before), None) if !is_second && seen(&change.before) => {
                Some(Event::Delete(self.gone(&before.image, part.committed_ms)))
            }
            (Some(before), Some(after)) if is_moved => match is_second {
                false if seen(&change.before) => Some(Event::Delete(self.gone(&before.image, part.committed_ms))),
                true if seen(&change.after) => Some(Event::Insert(row(after, None))),
                _ => None,
            },
            (Some(before), Some(after)) if !is_second => match (seen(&change.before), seen(&change.after)) {
                (true, true) if told.is_hidden(&before.image, &after.image) => None,
                (true, true) => Some(Event::Update(row(after, Some(before)))),
                (false, true) => Some(Event::Update(row(after, None))),
                (true, false) => Some(Event::Delete(self.gone(&before.image, part.committed_ms))),
                (false, false) => None,
            },
            _ => None,
        }
    }

    /// Whether images have the columns that the plan knows.
    fn knows_columns(&mut self, part: &TransactionPart) -> bool {
        let versions = part.changes.iter().flat_map(|change| [&change.before, &change.after]).flatten();
        for version in versions {
            let names = version.image.names();
            let is_known = self.columns.as_ref().is_some_and(|known| Arc::ptr_eq(known, names));
            if !is_known {
                if !self.plan.has_columns(names) {
                    return false;
                }
                self.columns = Some(names.clone());
            }
        }
        true
    }

    /// What is told of a row.
    fn row(&self, image: &Image, before: Option<&Image>, committed_ms: i64) -> Row {
        self.rights.told.row(image, before, committed_ms)
    }

    /// What is told of a row that is gone.
    fn gone(&self, image: &Image, committed_ms: i64) -> Row {
        self.rights.told.gone(image, committed_ms)
    }
}
