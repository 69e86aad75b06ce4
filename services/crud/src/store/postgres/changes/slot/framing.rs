//! Framing of a slot's stream: messages of the output plugin as parts of transactions.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};

use crate::store::postgres::cell::EPOCH_MICROS;

/// Bytes of messages after which a part of a transaction ends.
const PART_BYTES: usize = 2 << 20;
/// Memory that a message takes beside its bytes.
const MESSAGE_BYTES: usize = 64;

/// A transaction, or a part of one.
#[derive(Debug, PartialEq, Eq)]
pub struct RawPart {
    /// The lower half of the transaction's id.
    pub xid: u32,
    /// Place of its commit.
    pub commit: u64,
    /// When it was committed, in microseconds since 1970.
    pub committed_us: i64,
    /// Messages about rows and relations.
    pub messages: VecDeque<RawMessage>,
    /// Number of the last row of it.
    pub last: u64,
    bytes: usize,
}

impl RawPart {
    /// Memory that it takes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Number of the last row that was read of it.
    pub fn read(&self) -> u64 {
        let left = self.messages.iter().filter(|message| message.body.first() != Some(&b'R'));
        self.last - left.count() as u64
    }
}

/// A message of the output plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawMessage {
    /// It.
    pub body: Bytes,
    /// Whether it is only the beginning of one that is too large.
    pub is_cut: bool,
}

/// Puts messages together to parts of transactions.
#[derive(Debug)]
pub struct Framing {
    current: Option<CurrentTransaction>,
    /// The place after the last transaction that has arrived whole: the stream goes on there.
    pub resume: u64,
    /// All that was committed before this place has arrived.
    pub passed: u64,
    /// Of a transaction that has arrived in part, over a connection before: its commit, and the last row.
    partly: Option<(u64, u64)>,
}

#[derive(Debug)]
struct CurrentTransaction {
    part: RawPart,
    /// Rows up to this number have arrived before.
    known: u64,
    /// Bytes of rows of the part, whether they are known or not: a part ends at the same row each time.
    rows_bytes: usize,
}

/// What a message brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Framed {
    /// A part of a transaction that is whole now.
    pub part: Option<RawPart>,
    /// It ends the transaction.
    pub is_commit: bool,
}

impl Framing {
    /// Of a stream that is started after `from`.
    pub fn new(from: u64) -> Self {
        Self { current: None, resume: from, passed: from, partly: None }
    }

    /// Another connection begins, after the last whole transaction.
    pub fn begin_again(&mut self) {
        self.current = None;
    }

    /// All that was committed before `place` has arrived.
    pub fn pass(&mut self, place: u64) {
        // Within a transaction, its own commit is not behind yet.
        if self.current.is_none() {
            self.passed = self.passed.max(place);
        }
    }

    /// Takes a message; `None` for one that is none of the protocol.
    ///
    /// Source: PostgreSQL's documentation, "Logical Replication Message Formats", version 1.
    pub fn take(&mut self, message: Bytes, is_cut: bool) -> Option<Framed> {
        let mut body = message.clone();
        match body.try_get_u8().ok()? {
            b'B' => {
                let commit = body.try_get_u64().ok()?;
                let committed_us = body.try_get_i64().ok()?.checked_add(EPOCH_MICROS)?;
                let xid = body.try_get_u32().ok()?;
                let known = self.partly.filter(|(partly, _)| *partly == commit).map_or(0, |(_, last)| last);
                let part = RawPart { xid, commit, committed_us, messages: VecDeque::new(), last: 0, bytes: 0 };
                self.current = Some(CurrentTransaction { part, known, rows_bytes: 0 });
                Some(Framed::default())
            }
            b'C' => {
                let end = {
                    body.try_get_u8().ok()?;
                    body.try_get_u64().ok()?;
                    body.try_get_u64().ok()?
                };
                let current = self.current.take()?;
                (self.resume, self.partly) = (end, None);
                self.passed = self.passed.max(end);
                let part = Some(current.part).filter(|part| !part.messages.is_empty());
                Some(Framed { part, is_commit: true })
            }
            b'R' => {
                self.current.as_mut()?.add(message, is_cut);
                Some(Framed::default())
            }
            b'I' | b'U' | b'D' | b'T' => {
                let current = self.current.as_mut()?;
                current.part.last += 1;
                current.rows_bytes += message.len() + MESSAGE_BYTES;
                if current.part.last > current.known {
                    current.add(message, is_cut);
                }
                if current.rows_bytes < PART_BYTES {
                    return Some(Framed::default());
                }
                current.rows_bytes = 0;
                let part = current.split();
                if part.last > current.known {
                    self.partly = Some((part.commit, part.last));
                }
                Some(Framed { part: Some(part).filter(|part| !part.messages.is_empty()), is_commit: false })
            }
            _ => Some(Framed::default()),
        }
    }
}

impl CurrentTransaction {
    fn add(&mut self, body: Bytes, is_cut: bool) {
        self.part.bytes += body.len() + MESSAGE_BYTES;
        self.part.messages.push_back(RawMessage { body, is_cut });
    }

    /// Takes the part that has arrived.
    fn split(&mut self) -> RawPart {
        let next = RawPart { messages: VecDeque::new(), bytes: 0, ..self.part };
        std::mem::replace(&mut self.part, next)
    }
}

#[cfg(test)]
mod tests {
    use bytes::{BufMut, BytesMut};

    use super::*;

    fn begin(commit: u64, xid: u32) -> Bytes {
        let mut out = BytesMut::from(&b"B"[..]);
        out.put_u64(commit);
        out.put_i64(0);
        out.put_u32(xid);
        out.freeze()
    }

    fn commit(commit: u64, end: u64) -> Bytes {
        let mut out = BytesMut::from(&b"C\0"[..]);
        out.put_u64(commit);
        out.put_u64(end);
        out.put_i64(0);
        out.freeze()
    }

    fn row(bytes: usize) -> Bytes {
        [&b"I"[..], &vec![0; bytes]].concat().into()
    }

    fn framed(framing: &mut Framing, messages: &[Bytes]) -> Vec<(u64, u64, usize)> {
        let take = |message: &Bytes| framing.take(message.clone(), false).unwrap().part;
        messages.iter().filter_map(take).map(|part| (part.commit, part.last, part.messages.len())).collect()
    }

    #[test]
    fn transactions_are_whole_and_empty_ones_are_left_out() {
        let mut framing = Framing::new(5);
        let messages = [begin(10, 1), row(1), row(1), commit(10, 20), begin(30, 2), commit(30, 40)];
        assert_eq!(framed(&mut framing, &messages), [(10, 2, 2)]);
        assert_eq!((framing.resume, framing.passed), (40, 40));
        framing.pass(50);
        assert_eq!((framing.resume, framing.passed), (40, 50));
        framing.take(begin(60, 3), false).unwrap();
        framing.pass(70);
        assert_eq!(framing.passed, 50, "its commit is not behind");
    }

    #[test]
    fn a_large_transaction_comes_in_parts_and_goes_on_within_after_a_loss() {
        let large = PART_BYTES / 2;
        let relation = Bytes::from_static(b"R....");
        let rows = [begin(10, 1), relation.clone(), row(large), row(large), row(large), row(large), row(1)];
        let mut framing = Framing::new(0);
        assert_eq!(framed(&mut framing, &rows), [(10, 2, 3), (10, 4, 2)]);
        framing.begin_again();
        assert_eq!(framing.resume, 0);
        let again = framed(&mut framing, &[&rows[..], &[commit(10, 20)]].concat());
        assert_eq!(again, [(10, 2, 1), (10, 5, 1)], "the relation, then the row that was not told");
        assert_eq!(framing.resume, 20);
    }

    #[test]
    fn what_is_none_of_the_protocol_is_refused() {
        for message in [&b""[..], b"B", b"C", b"I", b"R"] {
            assert_eq!(Framing::new(0).take(Bytes::from_static(message), false), None, "{message:?}");
        }
    }
}
