//! Sizes of the parts of uploads: what has come of an upload counts against the limit of its bucket before it is joined.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use foldhash::HashMap;

use crate::{Error, backend::Backend};

/// Most parts that are known. Beyond, they are looked up again.
const KNOWN_MAX: usize = 1 << 17;

/// Sizes of the parts of uploads that this node takes in, by name and number. Clones are the same.
///
/// What another node takes in meanwhile does not count; the size of the whole is checked when the parts are joined.
#[derive(Clone, Default)]
pub struct PartSizes(Arc<Mutex<HashMap<String, BTreeMap<u32, u64>>>>);

impl PartSizes {
    /// Bytes of all parts of an upload but the one with this number.
    pub async fn besides(&self, backend: &Backend, name: &str, number: u32) -> Result<u64, Error> {
        if let Some(bytes) = self.known_besides(name, number) {
            return Ok(bytes);
        }
        let parts = backend.parts(name).await?;
        let mut known = self.known();
        if known.values().map(BTreeMap::len).sum::<usize>() + parts.len() > KNOWN_MAX {
            known.clear();
        }
        let sizes = known.entry(name.to_owned()).or_default();
        sizes.extend(parts.into_iter().map(|part| (part.number, part.size)));
        Ok(sum_besides(sizes, number))
    }

    /// Notes a part that has come.
    pub fn add(&self, name: &str, number: u32, size: u64) {
        if let Some(sizes) = self.known().get_mut(name) {
            sizes.insert(number, size);
        }
    }

    /// Forgets an upload that has ended.
    pub fn forget(&self, name: &str) {
        self.known().remove(name);
    }

    fn known_besides(&self, name: &str, number: u32) -> Option<u64> {
        self.known().get(name).map(|sizes| sum_besides(sizes, number))
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, BTreeMap<u32, u64>>> {
        // No code panics while it holds this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sum_besides(sizes: &BTreeMap<u32, u64>, number: u32) -> u64 {
    sizes.iter().filter(|(other, _)| **other != number).map(|(_, size)| size).sum()
}
