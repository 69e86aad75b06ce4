//! Messages that are being told: made one by one, so that none waits in memory.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use proto::realtime::{Event, Ready, Resync, Row, WatchResponse};

use super::{Following, Next, Watch};
use crate::{
    Error,
    feed::{Decided, Entry, Happened, TransactionPart},
    image::{Image, ImageReader},
    memory::RowHold,
    position::Position,
    rights::Decision,
    row_rights::{ChangeEvents, RowRights},
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
    /// What the group of the watch decided of it.
    decided: Option<Arc<Decided>>,
    /// Changes that were looked at: all of them, or those that concern the group.
    looked_at: usize,
    /// What follows of the change that was looked at last.
    events: VecDeque<(u64, Event)>,
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

    /// What a transaction changed, and what the group of the watch decided of it.
    pub fn part(entry: Arc<Entry>, decided: Option<Arc<Decided>>) -> Self {
        Sending::Part(SentPart { entry, decided, looked_at: 0, events: VecDeque::new() })
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
        // A group knows the columns of what it decides.
        if sent.looked_at == 0 && sent.decided.is_none() && !self.knows_columns(part) {
            self.next = Next::Plan;
            return None;
        }
        let (Following::Log(follow), Decision::Memory(rights)) = (&self.following, &self.rights.decision) else {
            return None;
        };
        let (resumed, steps) = (follow.resumed, 2 * part.changes.len() as u64);
        let turn = sent.looked_at + SCAN_MAX;
        while let Some((step, event)) = sent.next_event(part, rights, turn) {
            let told = 2 * part.told + step + 1;
            if resumed.0 == part.id && told <= resumed.1 {
                continue;
            }
            // Going on after it tells what was told since the log's position again, or what follows.
            let seen = follow.seen.clone();
            let position = match step + 1 == steps && entry.after != part.before {
                true => Position { seen, ..Position::after(entry.after.clone()) },
                false => Position { log: part.before.clone(), seen, transaction: part.id, step: told },
            };
            let position = self.shared.sealer.follow(self.rights.fingerprint, &position);
            self.sending = sent.rest(part);
            return Some(WatchResponse { position, event: Some(event) });
        }
        self.sending = sent.rest(part);
        None
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
}

impl SentPart {
    /// The next event and its step; `None` where there is none among the changes before `turn`.
    fn next_event(&mut self, part: &TransactionPart, rights: &RowRights, turn: usize) -> Option<(u64, Event)> {
        while self.events.is_empty() && self.looked_at < turn {
            let (index, events) = self.next_change(part, rights)?;
            let steps = (2 * index as u64..).zip(events);
            self.events.extend(steps.filter_map(|(step, event)| Some((step, event?))));
        }
        self.events.pop_front()
    }

    /// The next change and its events.
    fn next_change(&mut self, part: &TransactionPart, rights: &RowRights) -> Option<(usize, ChangeEvents)> {
        let place = self.looked_at;
        self.looked_at += 1;
        let Some(decided) = &self.decided else {
            let change = part.changes.get(place)?;
            let seen = rights.seen(change);
            let events = seen.map(|seen| rights.events(change, seen, part.committed_ms));
            return Some((place, events.unwrap_or_default()));
        };
        let known = decided.change(place)?;
        let change = part.changes.get(known.index)?;
        let write = || rights.events(change, known.seen, part.committed_ms);
        Some((known.index, decided.events(known, write)))
    }

    /// What is left to be told.
    fn rest(self, part: &TransactionPart) -> Sending {
        let changes = self.decided.as_ref().map_or(part.changes.len(), |decided| decided.len());
        let is_told = self.events.is_empty() && self.looked_at >= changes;
        if is_told { Sending::Nothing } else { Sending::Part(self) }
    }
}
