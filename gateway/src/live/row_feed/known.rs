//! Known rows: what a client has been told, as keys and hashes.

use std::mem::size_of;

use bytes::Bytes;
use foldhash::HashMap;
use proto::realtime::Row;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Bytes of a hash of a row: as many as make two rows of one hash unlikely, whoever chooses them.
const HASH_BYTES: usize = 16;
/// Approximate bytes of an entry of the map besides the key's.
const ENTRY_BYTES: usize = size_of::<(Bytes, KnownRow)>() + 48;

/// Rows by their keys.
#[derive(Debug, Default)]
pub struct KnownRows {
    rows: HashMap<Bytes, KnownRow>,
    key_bytes: usize,
    /// Comparisons with the rows that there are, so far.
    comparison: u32,
}

#[derive(Debug)]
struct KnownRow {
    hash: [u8; HASH_BYTES],
    /// The last comparison in which it was there.
    seen: u32,
}

/// What a row is to those that are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// It was known as it is.
    Same,
    /// It was known otherwise.
    Other,
    /// It was not known.
    New,
}

impl KnownRows {
    /// Approximate bytes of memory that it takes.
    pub fn bytes(&self) -> usize {
        self.key_bytes + self.rows.len() * ENTRY_BYTES
    }

    /// Compares `row`, which is known from now on.
    pub fn compare(&mut self, row: &Row) -> Comparison {
        let mut hash = [0; HASH_BYTES];
        hash.copy_from_slice(&blake3::hash(&row.row).as_bytes()[..HASH_BYTES]);
        let seen = self.comparison;
        match self.rows.get_mut(&row.key) {
            Some(known) => {
                let compared = if known.hash == hash { Comparison::Same } else { Comparison::Other };
                *known = KnownRow { hash, seen };
                compared
            }
            None => {
                // The message's bytes may be part of many.
                let key = Bytes::copy_from_slice(&row.key);
                self.key_bytes += key.len();
                self.rows.insert(key, KnownRow { hash, seen });
                Comparison::New
            }
        }
    }

    /// A row is gone.
    pub fn remove(&mut self, key: &Bytes) {
        if let Some((key, _)) = self.rows.remove_entry(key) {
            self.key_bytes -= key.len();
        }
    }

    /// From now on all rows that there are are compared.
    pub fn begin_comparison(&mut self) {
        self.comparison = self.comparison.wrapping_add(1);
    }

    /// Keys of all rows.
    pub fn keys(&self) -> Vec<Bytes> {
        self.rows.keys().cloned().collect()
    }

    /// Keys of the rows that were not compared since that began.
    pub fn stale(&self) -> Vec<Bytes> {
        let stale = self.rows.iter().filter(|(_, known)| known.seen != self.comparison);
        stale.map(|(key, _)| key.clone()).collect()
    }
}

/// The values of a JSON object, in their order; `None` where it is none.
pub fn values(key: &[u8]) -> Option<Vec<&RawValue>> {
    struct ObjectValues;
    impl<'de> Visitor<'de> for ObjectValues {
        type Value = Vec<&'de RawValue>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
            let mut values = Vec::new();
            while let Some((_, value)) = members.next_entry::<IgnoredAny, &RawValue>()? {
                values.push(value);
            }
            Ok(values)
        }
    }
    serde_json::Deserializer::from_slice(key).deserialize_map(ObjectValues).ok()
}
