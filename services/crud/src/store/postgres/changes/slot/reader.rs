//! How far a slot was read, and what of that is told.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use proto::crud::{ResyncReason, Snapshot};
use query::resources::Numbers;

use super::{
    SlotReader,
    framing::RawPart,
    images::{ReadContext, ReadPart, ReadStop},
    setup::{Now, PublishedTables, SlotRelations},
};
use crate::store::log::{CAPTURE_BITS, ImageWriter, LogLag, LogLook, LogPart, LogPosition, Place, place_after};

/// Bytes of images that one look tells.
const LOOK_BYTES: usize = 4 << 20;
/// How long the server keeps what was told, for another process that goes on with the slot.
const KEEP_AGE: Duration = Duration::from_secs(60);
/// Time between two places that are remembered for that.
const KEEP_INTERVAL: Duration = Duration::from_secs(1);

impl SlotReader {
    /// The name of the slot.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Tables as they were before they were published.
    pub fn noted(&self) -> &PublishedTables {
        &self.noted
    }

    /// The tables that are followed, with their writers.
    pub fn tables(&self) -> Vec<(String, Arc<ImageWriter>)> {
        self.tables.iter().map(|(name, table)| (name.clone(), table.writer.clone())).collect()
    }

    /// Images of a table have the columns of `writer` from the next look on, which asks the catalog.
    pub fn describe(&mut self, table: &str, writer: Arc<ImageWriter>) {
        if let Some(followed) = self.tables.get_mut(table) {
            followed.writer = writer;
            self.is_moved = true;
        }
    }

    /// Ends the capture of all tables but `kept`.
    pub fn retain(&mut self, kept: &[String]) {
        self.tables.retain(|table, _| kept.contains(table));
        self.relations.settle(&self.tables);
    }

    /// The position after the last look. Before the first one, it is that of what was seen then.
    pub fn position(&self) -> LogPosition {
        let seen = if self.seen.end == 0 { &self.first } else { &self.seen };
        LogPosition { seen: seen.clone(), ..self.place(self.told) }
    }

    /// What sees all that was told, by this process and by those before it.
    pub fn visible(&self) -> &Snapshot {
        self.now.as_ref().map_or(&self.first, |now| &now.seen)
    }

    /// The position after all that has arrived.
    pub fn passed(&self) -> LogPosition {
        let mut position = self.position();
        let (passed, is_all) = self.stream.passed();
        let after = (passed.saturating_sub(1), u64::MAX);
        if is_all && self.pending.is_empty() && after > self.told {
            position.partly = self.place(after).partly;
        }
        position
    }

    /// What is before `position` is told for good: the server need not keep it, but for a while, for another process that
    /// goes on with the slot.
    pub fn confirm(&mut self, position: &LogPosition) {
        let now = Instant::now();
        let (passed, is_all) = self.stream.passed();
        let (told, row) = position.commit_order().unwrap_or_default();
        self.stream.took((told, row >> CAPTURE_BITS));
        let is_end = is_all && self.pending.is_empty() && *position == self.position();
        let place = if is_end { passed } else { told };
        if self.kept.back().is_none_or(|(since, _)| now.duration_since(*since) >= KEEP_INTERVAL) {
            self.kept.push_back((now, place));
        }
        while let Some((since, kept)) = self.kept.front()
            && (now.duration_since(*since) >= KEEP_AGE || place.saturating_sub(*kept) > self.keep_bytes)
        {
            self.stream.confirm(*kept);
            self.kept.pop_front();
        }
        if place.saturating_sub(self.stream.confirmed()) > self.keep_bytes {
            self.stream.confirm(place.saturating_sub(self.keep_bytes));
        }
    }

    /// How far what was told is behind the server.
    pub fn lag(&self) -> LogLag {
        let end = self.now.as_ref().map_or(0, |now| now.end).max(self.stream.passed().0);
        match self.pending.front() {
            Some(part) => LogLag { bytes: end.saturating_sub(self.told.0), since_us: Some(part.committed_us) },
            None => LogLag::default(),
        }
    }

    /// Whether no change of these relations was passed over, since they were not followed yet.
    pub(super) fn has_all_of(&self, relations: &SlotRelations) -> bool {
        relations.keys().all(|id| !self.published.contains(id) && !self.relations.has_passed_over(*id))
    }

    /// Closes the connection of the stream.
    pub async fn close(self) {
        self.stream.close().await;
    }

    /// Begins a place after all positions that have been told, and before what is told next.
    pub(super) fn begin_captured(&mut self) {
        self.told = place_after(self.told);
    }

    pub(super) fn place(&self, order: (u64, u64)) -> LogPosition {
        LogPosition::in_commit_order(self.source, Snapshot::default(), order)
    }

    /// Takes what has arrived; the place before which all has arrived, and whether all of that was taken.
    pub(super) fn receive(&mut self) -> (u64, bool) {
        let passed = self.stream.passed();
        let mut bytes: usize = self.pending.iter().map(RawPart::bytes).sum();
        while bytes < LOOK_BYTES {
            let Some(part) = self.stream.take() else { break };
            bytes += part.bytes();
            self.pending.push_back(part);
        }
        (passed.0, passed.1 || self.stream.passed() == (passed.0, true))
    }

    /// Whether the last snapshot sees what waits.
    pub(super) fn sees_pending(&self) -> bool {
        let sees = |now: &Now| self.pending.iter().all(|part| now.seen.sees(whole_id(part.xid, now.seen.end)));
        self.pending.is_empty() || self.now.as_ref().is_some_and(sees)
    }

    /// Adds to a look what is seen of what waits, up to something that is to be done first. Whether nothing waits any more.
    pub(super) fn tell(&mut self, look: &mut LogLook, numbers: Numbers) -> bool {
        let Some(now) = &self.now else { return self.pending.is_empty() };
        let seen = now.seen.clone();
        let mut bytes = 0;
        while let Some(part) = self.pending.front_mut() {
            let id = whole_id(part.xid, seen.end);
            if !seen.sees(id) {
                break;
            }
            if bytes >= LOOK_BYTES {
                look.has_more = true;
                break;
            }
            let (commit, committed_us) = (part.commit, part.committed_us);
            let context = ReadContext { seen: &seen, id, numbers, was_asked: self.was_asked };
            let ReadPart { changes, stop } = self.relations.read(part, &mut self.tables, &context);
            // What a connection tells again without rows, and a capture that was begun after the last row, are behind.
            let order = (commit, part.read() << CAPTURE_BITS).max(self.told);
            self.told = order;
            pass(&mut self.seen, &mut self.coming, commit);
            if !changes.is_empty() {
                let position = LogPosition::in_commit_order(self.source, self.seen.clone(), order);
                let part = LogPart { place: Place { id, order }, committed_us, changes, position };
                bytes += part.bytes();
                look.parts.push(part);
            }
            match stop {
                Some(stop) => {
                    match stop {
                        ReadStop::Loss(loss) => {
                            // The identity of a table may be another one.
                            self.is_moved |= loss.reason == ResyncReason::LogLost;
                            // Who was told what is before it, and is gone, comes back before it.
                            self.begin_captured();
                            let since = LogPosition { seen: seen.clone(), ..self.place(self.told) };
                            for table in &loss.tables {
                                if let Some(table) = self.tables.get_mut(table) {
                                    table.since.clone_from(&since);
                                }
                            }
                            self.losses.push(loss);
                        }
                        ReadStop::Moved => (self.is_moved, self.was_asked) = (true, false),
                    }
                    look.has_more = true;
                    return false;
                }
                None => {
                    self.was_asked = false;
                    self.pending.pop_front();
                }
            }
        }
        look.has_more |= self.pending.is_empty() && !self.stream.passed().1;
        self.pending.is_empty()
    }

    pub(super) fn pass(&mut self, place: u64) {
        pass(&mut self.seen, &mut self.coming, place);
    }
}

/// All that was committed before `place` has been told.
fn pass(seen: &mut Snapshot, coming: &mut VecDeque<(Snapshot, u64)>, place: u64) {
    while coming.front().is_some_and(|(_, end)| *end <= place) {
        if let Some((snapshot, _)) = coming.pop_front() {
            *seen = snapshot;
        }
    }
}

/// The id of a transaction of which the stream has the lower half: the one nearest to `now`.
fn whole_id(xid: u32, now: u64) -> u64 {
    let ahead = xid.wrapping_sub(now as u32).cast_signed();
    now.saturating_add_signed(i64::from(ahead))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_transactions_are_the_nearest_whole_ones() {
        let wrap = 1 << 32;
        assert_eq!(whole_id(10, 12), 10);
        assert_eq!(whole_id(12, 10), 12, "it began after the snapshot");
        assert_eq!(whole_id(u32::MAX, wrap + 5), wrap - 1);
        assert_eq!(whole_id(3, wrap - 1), wrap + 3);
        assert_eq!(whole_id(7, 5 * wrap + 7), 5 * wrap + 7);
    }

    #[test]
    fn a_snapshot_is_told_when_its_place_is_passed() {
        let snapshot = |end| Snapshot { start: end, end, running: Vec::new() };
        let (mut seen, mut coming) = (Snapshot::default(), VecDeque::from([(snapshot(5), 50), (snapshot(9), 90)]));
        pass(&mut seen, &mut coming, 49);
        assert_eq!(seen, Snapshot::default());
        pass(&mut seen, &mut coming, 95);
        assert_eq!((seen, coming.len()), (snapshot(9), 0));
    }
}
