//! Positions: where a watch goes on, as a client keeps it. They are encrypted and authenticated: a client can neither make
//! one up nor learn from the numbers in it what others changed, or from the hash in it what the rules compare with.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use mesh::seal::{self, TAG_BYTES};
use proto::crud::{Snapshot, record};

/// Version of the form.
const VERSION: u8 = 2;
/// Bytes of the fingerprint.
const SHORT_HASH: usize = 16;
/// Tag, version, kind, fingerprint, transaction, step and the length of what was seen.
const FIXED_BYTES: usize = TAG_BYTES + 2 + SHORT_HASH + 18;
/// Characters that a position may have.
const LENGTH_MAX: usize = 512;

/// Point between two messages of a watch.
#[derive(Debug, Clone, PartialEq)]
pub struct Position {
    /// Position of the log to go on after.
    pub log: Bytes,
    /// The snapshot of the rows that the client has, encoded: the log may tell transactions that it sees after others that it
    /// does not see. Empty where the log's position says that.
    pub seen: Bytes,
    /// The transaction after it of which a part was told; 0 for none.
    pub transaction: u64,
    /// How many of its steps after that position were told.
    pub step: u64,
}

/// Hash of what a watch tells: query, schema and rights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; SHORT_HASH]);

/// Kind of a position.
#[derive(Clone, Copy)]
enum Kind {
    /// A watch goes on after it.
    Follow = 0,
    /// It was told while not all rows were: a watch begins anew.
    Anew = 1,
}

/// Seals and opens positions: equal ones have equal texts.
#[derive(Clone)]
pub struct Sealer(seal::Sealer);

impl Sealer {
    /// With keys derived from `secret`.
    pub fn new(secret: &[u8]) -> Self {
        Self(seal::Sealer::new("perigee watch position v1", secret))
    }

    /// The text of a position to go on after; of one to begin anew where it would be too long.
    pub fn follow(&self, fingerprint: Fingerprint, position: &Position) -> String {
        let text_bytes = (FIXED_BYTES + position.seen.len() + position.log.len()).div_ceil(3) * 4;
        if text_bytes > LENGTH_MAX {
            return self.anew(fingerprint, position.step);
        }
        self.text(Kind::Follow, fingerprint, position)
    }

    /// The text of the position of the message `number` after which a watch begins anew.
    pub fn anew(&self, fingerprint: Fingerprint, number: u64) -> String {
        self.text(Kind::Anew, fingerprint, &Position { step: number, ..Position::after(Bytes::new()) })
    }

    fn text(&self, kind: Kind, fingerprint: Fingerprint, position: &Position) -> String {
        let mut bytes = Vec::with_capacity(FIXED_BYTES + position.seen.len() + position.log.len());
        bytes.extend([VERSION, kind as u8]);
        bytes.extend(fingerprint.0);
        bytes.extend(position.transaction.to_be_bytes());
        bytes.extend(position.step.to_be_bytes());
        // A text has less than that.
        bytes.extend((position.seen.len() as u16).to_be_bytes());
        bytes.extend_from_slice(&position.seen);
        bytes.extend_from_slice(&position.log);
        URL_SAFE_NO_PAD.encode(self.0.seal(b"", &bytes))
    }

    /// The position that `text` is for a watch with this fingerprint; `None` where it is none, or one to begin anew.
    pub fn parse(&self, fingerprint: Fingerprint, text: &str) -> Option<Position> {
        if text.len() > LENGTH_MAX {
            return None;
        }
        let bytes = self.0.open(b"", URL_SAFE_NO_PAD.decode(text).ok()?)?;
        let (head, rest) = bytes.split_first_chunk::<{ 2 + SHORT_HASH }>()?;
        let is_meant = head[..2] == [VERSION, Kind::Follow as u8] && head[2..] == fingerprint.0;
        if !is_meant {
            return None;
        }
        let (transaction, rest) = rest.split_first_chunk::<8>()?;
        let (step, rest) = rest.split_first_chunk::<8>()?;
        let (seen_bytes, rest) = rest.split_first_chunk::<2>()?;
        let (seen, log) = rest.split_at_checked(usize::from(u16::from_be_bytes(*seen_bytes)))?;
        let (seen, log) = (Bytes::copy_from_slice(seen), Bytes::copy_from_slice(log));
        let (transaction, step) = (u64::from_be_bytes(*transaction), u64::from_be_bytes(*step));
        Some(Position { log, seen, transaction, step })
    }
}

/// What a snapshot has seen, as positions have it: the transactions that run by how far they are before its end.
pub fn encoded(snapshot: &Snapshot) -> Bytes {
    let end = snapshot.end;
    let running = snapshot.running.iter().map(|id| end.saturating_sub(*id)).collect();
    record::encoded(&Snapshot { start: 0, end, running })
}

/// What [`encoded`] has encoded.
pub fn decoded(seen: &Bytes) -> Option<Snapshot> {
    let Snapshot { end, running, .. } = record::decoded(seen.clone())?;
    let running: Vec<u64> = running.into_iter().map(|before| end.checked_sub(before)).collect::<Option<_>>()?;
    Some(Snapshot { start: running.first().copied().unwrap_or(end), end, running })
}

impl Position {
    /// The position after all that was told at a position of the log.
    pub fn after(log: Bytes) -> Self {
        Self { log, seen: Bytes::new(), transaction: 0, step: 0 }
    }
}

impl Fingerprint {
    /// The hash of `parts`, of which none can be taken for a part of another.
    pub fn of(parts: &[&[u8]]) -> Self {
        Self(*seal::hash_of(parts).as_bytes().first_chunk().expect("a hash has 32 bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINE: Fingerprint = Fingerprint([7; SHORT_HASH]);

    fn position(log: usize) -> Position {
        Position { log: vec![5; log].into(), seen: vec![6; 3].into(), transaction: 9, step: 3 }
    }

    #[test]
    fn a_position_is_read_by_who_has_the_key_for_the_same_watch() {
        let sealer = Sealer::new(b"secret");
        let text = sealer.follow(MINE, &position(12));
        assert_eq!(sealer.parse(MINE, &text), Some(position(12)));
        assert_eq!(sealer.parse(Fingerprint([8; SHORT_HASH]), &text), None);
        assert_eq!(Sealer::new(b"other").parse(MINE, &text), None);
    }

    #[test]
    fn a_snapshot_takes_few_bytes_where_many_write() {
        let running: Vec<u64> = (0..100).map(|at| 5_000_000_000 + 3 * at).collect();
        for running in [running, Vec::new()] {
            let end = 5_000_000_300;
            let snapshot = Snapshot { start: running.first().copied().unwrap_or(end), end, running };
            let seen = encoded(&snapshot);
            assert!(seen.len() < 200, "{}", seen.len());
            assert_eq!(decoded(&seen), Some(snapshot));
        }
        assert_eq!(decoded(&Bytes::new()), Some(Snapshot::default()), "it sees nothing");
        assert_eq!(decoded(&Bytes::from_static(b"x")), None);
    }

    #[test]
    fn a_position_that_was_changed_cut_or_made_up_is_none() {
        let sealer = Sealer::new(b"secret");
        let text = sealer.follow(MINE, &position(12));
        for at in 0..text.len() {
            let other = if text.as_bytes()[at] == b'A' { "B" } else { "A" };
            let changed = format!("{}{other}{}", &text[..at], &text[at + 1..]);
            assert_eq!(sealer.parse(MINE, &changed), None, "{at}");
            assert_eq!(sealer.parse(MINE, &text[..at]), None, "{at}");
        }
        for made_up in ["", "x", "0", "ä", "=", &"A".repeat(600)] {
            assert_eq!(sealer.parse(MINE, made_up), None, "{made_up}");
        }
    }

    #[test]
    fn a_position_shows_nothing_of_what_is_in_it() {
        let sealer = Sealer::new(b"secret");
        let one = sealer.follow(MINE, &position(12));
        let other = sealer.follow(MINE, &Position { step: 4, ..position(12) });
        let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
        let (one, other) = (bytes(&one), bytes(&other));
        assert_eq!(one.len(), other.len());
        let same = one.iter().zip(&other).filter(|(one, other)| one == other).count();
        assert!(same < 10, "{same} of {} bytes are the same", one.len());
        assert!(!one.windows(4).any(|bytes| bytes == [7; 4] || bytes == [5; 4]), "{one:?}");
    }

    #[test]
    fn a_position_has_at_most_512_ascii_characters() {
        let sealer = Sealer::new(b"secret");
        let most = (0..).take_while(|log| sealer.parse(MINE, &sealer.follow(MINE, &position(*log))).is_some()).count();
        assert!(most > 300, "{most}");
        for log in [0, most - 1, most, 10_000] {
            let text = sealer.follow(MINE, &position(log));
            assert!(text.len() <= LENGTH_MAX && text.is_ascii(), "{log}");
        }
    }

    #[test]
    fn a_watch_begins_anew_after_what_it_told_before_ready() {
        let sealer = Sealer::new(b"secret");
        assert_eq!(sealer.parse(MINE, &sealer.anew(MINE, 1)), None);
        assert_ne!(sealer.anew(MINE, 1), sealer.anew(MINE, 2));
    }
}
