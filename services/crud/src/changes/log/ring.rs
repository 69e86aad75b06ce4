//! The last part of a log, in memory.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use foldhash::HashMap;
use proto::crud::{ResyncReason, Snapshot};
use tokio::time::Instant;

use crate::store::log::{LogLook, LogPart, LogPosition, Loss};

/// Most bytes of images that a ring has.
const RING_BYTES: usize = 64 << 20;
/// How long a change stays in a ring.
const RING_AGE: Duration = Duration::from_secs(60);
/// Memory that an item takes beside its images.
const ITEM_BYTES: usize = 256;

/// What was found in a log, the last of it.
#[derive(Debug, Default)]
pub struct Ring {
    items: VecDeque<RingItem>,
    /// Numbers of the items by the positions after them, as these are encoded: who was told an item resumes there.
    by_position: HashMap<Bytes, u64>,
    /// Number of the first item.
    first: u64,
    bytes: usize,
    /// The position before the first item, and that after the last one; `None` before the log is read.
    ends: Option<(LogPosition, LogPosition)>,
}

/// An item of a ring.
#[derive(Debug)]
struct RingItem {
    event: RingEvent,
    position: Bytes,
    bytes: usize,
    found: Instant,
    /// What sees it, where its position does not say that.
    visible: Option<Arc<Snapshot>>,
}

/// What followers are told.
#[derive(Debug)]
pub enum RingEvent {
    /// Changes.
    Part(LogPart),
    /// Changes may have been missed before this position.
    Loss(Loss, LogPosition),
}

impl Ring {
    /// Begins at a position; where it has begun, that is the one after the last item now. What is of another log is
    /// removed.
    pub fn begin(&mut self, position: LogPosition) {
        match &mut self.ends {
            Some((_, end)) if end.source == position.source => *end = position,
            Some(_) | None => self.begin_anew(position.clone(), position),
        }
    }

    /// Begins at `end`, whatever there was. Reads go on there that are after `start`, which is the same place: positions of
    /// another log are not compared with those before.
    pub fn begin_anew(&mut self, start: LogPosition, end: LogPosition) {
        self.first += self.items.len() as u64;
        self.items.clear();
        self.by_position.clear();
        (self.bytes, self.ends) = (0, Some((start, end)));
    }

    /// The position after the last item.
    pub fn end(&self) -> Option<&LogPosition> {
        self.ends.as_ref().map(|(_, end)| end)
    }

    /// The position before the first item.
    pub fn start(&self) -> Option<&LogPosition> {
        self.ends.as_ref().map(|(start, _)| start)
    }

    /// The number of the first item, and that after the last one.
    pub fn numbers(&self) -> (u64, u64) {
        (self.first, self.first + self.items.len() as u64)
    }

    /// The item of a number, with the position after it.
    pub fn item(&self, number: u64) -> Option<(&RingEvent, &Bytes)> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.items.get(index).map(|item| (&item.event, &item.position))
    }

    /// The number of the first item that may not have been told at a position; `None` where the ring does not show that
    /// all that follows is in it, or that the position is one of this log.
    pub fn after(&self, position: &LogPosition, encoded: &Bytes) -> Option<u64> {
        let (start, end) = self.ends.as_ref()?;
        let (first, next) = self.numbers();
        // Of what a read saw besides, no item knows.
        let plain = position.also.is_some().then(|| LogPosition { also: None, ..position.clone() });
        let number = match &plain {
            Some(plain) => self.by_position.get(&plain.encode()),
            None => self.by_position.get(encoded),
        };
        let place = plain.as_ref().unwrap_or(position);
        match number {
            Some(number) => Some(number + 1),
            None if place == end => Some(next),
            None if place == start => Some(first),
            // In the order of commits, all that follows what the ring begins with is in it, or will be.
            None if end.commit_order().is_some() => position.covers(start).then_some(first),
            // Where there are marks, only those tell it from one of another log.
            None => {
                let is_own = [0, start.mark, end.mark].contains(&position.mark);
                let is_whole = is_own && position.partly.is_none() && position.also.is_none();
                (is_whole && position.covers(start) && end.covers(position)).then_some(first)
            }
        }
    }

    /// Whether more may have been told at a position than what stands before the next item. In the order of commits, a log
    /// that is begun tells again what was seen at its beginning: the next part says whether that is over.
    pub fn is_ahead(&self, position: &LogPosition, encoded: &Bytes) -> bool {
        let is_own = |(start, end): &(LogPosition, LogPosition)| position == start || position == end;
        let is_known = self.by_position.contains_key(encoded) || self.ends.as_ref().is_some_and(is_own);
        position.mark == 0 && (position.commit_order().is_some() || !is_known)
    }

    /// Adds what a look found; whether it found anything. What is old, or too much, is removed.
    pub fn add(&mut self, look: LogLook, now: Instant) -> bool {
        if look.losses.iter().any(|loss| loss.tables.is_empty()) {
            self.begin_anew(look.since(), look.position.clone());
        }
        let before = self.items.len();
        // What else this look found is told after it.
        let position = self.end().unwrap_or(&look.position).clone();
        for loss in look.losses {
            self.push(RingEvent::Loss(loss, position.clone()), now, look.visible.clone());
        }
        for part in look.parts {
            if !part.is_too_large() {
                self.push(RingEvent::Part(part), now, look.visible.clone());
                continue;
            }
            let loss = Loss { reason: ResyncReason::Overflow, tables: part.tables() };
            self.push(RingEvent::Loss(loss, part.position), now, look.visible.clone());
        }
        let is_news = self.items.len() > before;
        match &mut self.ends {
            Some((_, end)) => *end = look.position,
            None => self.ends = Some((look.position.clone(), look.position)),
        }
        let is_old = |item: &RingItem| now.duration_since(item.found) >= RING_AGE;
        while self.bytes > RING_BYTES || self.items.front().is_some_and(is_old) {
            let Some(item) = self.items.pop_front() else { break };
            self.first += 1;
            self.bytes -= item.bytes;
            if self.by_position.get(&item.position).is_some_and(|number| *number < self.first) {
                self.by_position.remove(&item.position);
            }
            if let Some((start, _)) = &mut self.ends {
                start.clone_from(item.event.position());
                if let Some(visible) = item.visible {
                    start.seen.clone_from(&visible);
                }
            }
        }
        is_news
    }

    fn push(&mut self, event: RingEvent, found: Instant, visible: Option<Arc<Snapshot>>) {
        let position = event.position().encode();
        let bytes = ITEM_BYTES + event.bytes() + event.position().bytes() + position.len();
        self.bytes += bytes;
        self.by_position.insert(position.clone(), self.numbers().1);
        self.items.push_back(RingItem { event, position, bytes, found, visible });
    }
}

impl RingEvent {
    /// The position after it.
    pub fn position(&self) -> &LogPosition {
        match self {
            RingEvent::Part(part) => &part.position,
            RingEvent::Loss(_, position) => position,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            RingEvent::Part(part) => part.bytes(),
            RingEvent::Loss(..) => 0,
        }
    }
}
