//! Positions in the log: which transactions have been told.

use proto::crud::Snapshot;

/// Places between two rows of a commit, as a power of two: one for each capture that is begun there.
pub const CAPTURE_BITS: u32 = 16;
/// Version of the encoding.
const VERSION: u8 = 1;

/// A position: all that its snapshot sees has been told, and of what another snapshot sees, what stands before a place.
///
/// The second snapshot is that of a look which has not been told whole. An engine whose ids are in the order of commits
/// needs none.
#[derive(Debug, Clone, PartialEq)]
pub struct LogPosition {
    /// Hash of the log's epoch: a log that was made anew, or restored, has another.
    pub source: u64,
    /// Hash of the last change that was told, where the engine can look it up: after a restore there is another in its
    /// place.
    pub mark: u32,
    /// What has been told.
    pub seen: Snapshot,
    /// What has been told of a look.
    pub partly: Option<(Snapshot, (u64, u64))>,
    /// What need not be told besides: a read saw it, before the log told all that is before it.
    pub also: Option<Snapshot>,
}

/// Where a part of a transaction stands in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The transaction's id.
    pub id: u64,
    /// Order within a look: of the transaction, and of the part within that.
    pub order: (u64, u64),
}

impl LogPosition {
    /// The position that a snapshot has.
    pub fn of(source: u64, seen: Snapshot) -> Self {
        Self { source, mark: 0, seen, partly: None, also: None }
    }

    /// The position after a place, in a log that is told in the order of commits: all that `seen` sees has been told, and
    /// all before it.
    pub fn in_commit_order(source: u64, seen: Snapshot, order: (u64, u64)) -> Self {
        Self { partly: Some((of_all(), order)), ..Self::of(source, seen) }
    }

    /// The place of a commit up to which all was told; `None` where the log is not told in the order of commits.
    pub fn commit_order(&self) -> Option<(u64, u64)> {
        self.partly.as_ref().filter(|(look, _)| look.end == u64::MAX).map(|(_, order)| *order)
    }

    /// Whether it is after a whole commit, in a log that is told in the order of commits.
    pub fn is_after_commit(&self) -> bool {
        self.commit_order().is_some_and(|(_, row)| row == u64::MAX)
    }

    /// Begins a place after all positions that have been told, and before what is told next, in a log that is told in the
    /// order of commits.
    pub fn begin_captured(&mut self) {
        if let Some((_, order)) = &mut self.partly {
            *order = place_after(*order);
        }
    }

    /// All up to another position has been told, too, in a log that is told in the order of commits.
    pub fn reach(&mut self, other: &Self) {
        let Some(order) = other.commit_order().filter(|_| self.source == other.source) else { return };
        if self.commit_order().is_none_or(|own| own < order) {
            self.partly = Some((of_all(), order));
        }
    }

    /// What need not be told of what is not told yet: the later one of two snapshots.
    pub fn ahead(&self) -> &Snapshot {
        self.also.as_ref().unwrap_or(&self.seen)
    }

    /// Whether what stands at a place has been told.
    pub fn is_after(&self, place: &Place) -> bool {
        let is_told = |(look, order): &(Snapshot, (u64, u64))| look.sees(place.id) && place.order <= *order;
        self.seen.sees(place.id)
            || self.partly.as_ref().is_some_and(is_told)
            || self.also.as_ref().is_some_and(|also| also.sees(place.id))
    }

    /// Whether all that has been told at the position `other` has been told at this one; `false` where that does not
    /// show. What has been told at a place of a commit is seen by `other.seen`, where this one is only a snapshot.
    pub fn covers(&self, other: &Self) -> bool {
        if let Some(told) = other.commit_order() {
            let is_told = match self.commit_order() {
                Some(own) => own >= told,
                None => self.sees_all_of(&other.seen),
            };
            return self.source == other.source && is_told && other.also.is_none();
        }
        let looks = other.partly.iter().map(|(look, _)| look).chain(&other.also).chain([&other.seen]);
        self.source == other.source && looks.into_iter().all(|look| self.sees_all_of(look))
    }

    /// Whether all that a snapshot sees has been told; `false` where that does not show.
    pub fn sees_all_of(&self, snapshot: &Snapshot) -> bool {
        sees_all_of(&self.seen, snapshot)
    }

    /// Memory of its transactions in progress: there may be many where many write.
    pub fn bytes(&self) -> usize {
        let looks = self.partly.iter().map(|(look, _)| look).chain(&self.also).chain([&self.seen]);
        looks.map(|look| size_of_val(look.running.as_slice())).sum()
    }

    /// Its encoding, of some tens of bytes.
    pub fn encode(&self) -> bytes::Bytes {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.source.to_be_bytes());
        out.extend_from_slice(&self.mark.to_be_bytes());
        write_snapshot(&mut out, &self.seen);
        out.push(u8::from(self.partly.is_some()) | u8::from(self.also.is_some()) << 1);
        if let Some((look, order)) = &self.partly {
            write_snapshot(&mut out, look);
            write(&mut out, order.0);
            write(&mut out, order.1);
        }
        if let Some(also) = &self.also {
            write_snapshot(&mut out, also);
        }
        out.into()
    }

    /// What [`LogPosition::encode`] has encoded; `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        let (source, rest) = rest.split_first_chunk()?;
        let (mark, mut rest) = rest.split_first_chunk()?;
        let (source, mark) = (u64::from_be_bytes(*source), u32::from_be_bytes(*mark));
        let seen = read_snapshot(&mut rest)?;
        let (parts, mut rest) = rest.split_first()?;
        let partly = match parts & 1 {
            0 => None,
            _ => Some((read_snapshot(&mut rest)?, (read(&mut rest)?, read(&mut rest)?))),
        };
        let also = if parts & 2 == 0 { None } else { Some(read_snapshot(&mut rest)?) };
        let is_whole = *version == VERSION && *parts < 4 && rest.is_empty();
        is_whole.then_some(Self { source, mark, seen, partly, also })
    }
}

/// A place in the order of commits after another one, and before the row after that.
pub fn place_after((commit, row): (u64, u64)) -> (u64, u64) {
    match row {
        u64::MAX => (commit.saturating_add(1), 0),
        row if (row + 1) % (1 << CAPTURE_BITS) == 0 => (commit, row),
        row => (commit, row + 1),
    }
}

/// A snapshot that sees all transactions there will ever be.
pub fn of_all() -> Snapshot {
    Snapshot { start: u64::MAX, end: u64::MAX, running: Vec::new() }
}

/// Whether each transaction that `other` sees is seen by `snapshot` too.
fn sees_all_of(snapshot: &Snapshot, other: &Snapshot) -> bool {
    other.end <= snapshot.end && snapshot.running.iter().all(|id| !other.sees(*id))
}

fn write_snapshot(out: &mut Vec<u8>, snapshot: &Snapshot) {
    write(out, snapshot.end);
    write(out, snapshot.running.len() as u64);
    let mut before = snapshot.end;
    for id in snapshot.running.iter().rev() {
        write(out, before.wrapping_sub(*id));
        before = *id;
    }
}

fn read_snapshot(rest: &mut &[u8]) -> Option<Snapshot> {
    let end = read(rest)?;
    let count = usize::try_from(read(rest)?).ok().filter(|count| *count <= rest.len())?;
    let mut running = Vec::with_capacity(count);
    let mut before = end;
    for _ in 0..count {
        before = before.checked_sub(read(rest)?)?;
        running.push(before);
    }
    running.reverse();
    let is_ascending = running.windows(2).all(|pair| pair[0] < pair[1]) && running.last().is_none_or(|id| *id < end);
    is_ascending.then(|| Snapshot { start: running.first().copied().unwrap_or(end), end, running })
}

/// Writes a number, seven bits to a byte, the lowest first.
fn write(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn read(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        let bits = u64::from(byte & 0x7f);
        if bits > u64::MAX >> shift {
            return None;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn snapshot() -> impl Strategy<Value = Snapshot> {
        let ids = proptest::collection::btree_set(1u64..40, 0..6);
        (ids, 1u64..50, 0u64..1 << 40).prop_map(|(ids, end, offset)| {
            let running: Vec<u64> = ids.into_iter().filter(|id| *id < end).map(|id| id + offset).collect();
            let end = end + offset;
            Snapshot { start: running.first().copied().unwrap_or(end), end, running }
        })
    }

    fn position() -> impl Strategy<Value = LogPosition> {
        let partly = proptest::option::of((snapshot(), (any::<u64>(), any::<u64>())));
        let also = proptest::option::of(snapshot());
        (any::<u64>(), any::<u32>(), snapshot(), partly, also)
            .prop_map(|(source, mark, seen, partly, also)| LogPosition { source, mark, seen, partly, also })
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(position in position()) {
            let bytes = position.encode();
            prop_assert_eq!(LogPosition::decode(&bytes), Some(position));
            for end in 0..bytes.len() {
                // A shorter one is none, unless it is the encoding of another.
                let cut = LogPosition::decode(&bytes[..end]);
                prop_assert!(cut.is_none_or(|cut| cut.encode() == bytes[..end]));
            }
        }

        #[test]
        fn what_is_no_position_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Some(position) = LogPosition::decode(&bytes) {
                prop_assert_eq!(LogPosition::decode(&position.encode()), Some(position));
            }
        }

        #[test]
        fn a_position_covers_one_at_which_less_was_told(one in position(), other in position(), ids in proptest::collection::vec(0u64..100, 20)) {
            if one.covers(&other) {
                for id in ids {
                    let place = Place { id, order: (id, id) };
                    prop_assert!(one.is_after(&place) || !other.is_after(&place));
                }
            }
            let whole = LogPosition { partly: None, also: None, ..one.clone() };
            prop_assert!(whole.covers(&whole));
        }
    }
}
