//! Sizes of the parts of uploads: what has come of an upload counts against the limit of its bucket before it is joined.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use foldhash::HashMap;

use crate::{Error, backend::Backend};

/// Most parts that are known of uploads none of which is coming. Beyond, they are looked up again.
const KNOWN_MAX: usize = 1 << 17;

/// Sizes of the parts of uploads that this node takes in, by name. Clones are the same.
///
/// What another node takes in meanwhile does not count; the size of the whole is checked when the parts are joined.
#[derive(Clone, Default)]
pub struct PartSizes {
    uploads: Arc<Mutex<HashMap<String, UploadSizes>>>,
    streams: Arc<AtomicU64>,
}

/// Sizes of the parts of one upload.
#[derive(Default)]
struct UploadSizes {
    /// Of the parts that have come, by number.
    stored: BTreeMap<u32, u64>,
    /// Numbers and bytes so far of the parts that are coming, by stream.
    coming: BTreeMap<u64, (u32, u64)>,
}

impl UploadSizes {
    /// Bytes of the upload as the part of `stream` sees it: a part that comes again, or twice at once, counts once.
    fn total(&self, stream: u64) -> u64 {
        let (number, own) = self.coming.get(&stream).copied().unwrap_or_default();
        let all = self.stored.iter().map(|(number, size)| (*number, *size)).chain(self.coming.values().copied());
        let mut largest: HashMap<u32, u64> = HashMap::default();
        for (other, size) in all.filter(|(other, _)| *other != number) {
            let known = largest.entry(other).or_default();
            *known = size.max(*known);
        }
        largest.values().fold(own, |total, size| total.saturating_add(*size))
    }
}

/// A part that is coming. Dropped, it counts no longer.
pub struct ComingPart {
    sizes: PartSizes,
    name: String,
    stream: u64,
}

impl PartSizes {
    /// Begins to count a part of the upload `name`.
    pub async fn begin(&self, backend: &Backend, name: &str, number: u32) -> Result<ComingPart, Error> {
        let known = self.uploads().contains_key(name);
        let stored = if known { Vec::new() } else { backend.parts(name).await? };
        let stream = self.streams.fetch_add(1, Ordering::Relaxed);
        let mut uploads = self.uploads();
        let resting = uploads.values().filter(|upload| upload.coming.is_empty());
        if resting.map(|upload| upload.stored.len()).sum::<usize>() > KNOWN_MAX {
            uploads.retain(|other, upload| other == name || !upload.coming.is_empty());
        }
        let upload = uploads.entry(name.to_owned()).or_default();
        for part in stored {
            // Others may have come since they were looked up.
            upload.stored.entry(part.number).or_insert(part.size);
        }
        upload.coming.insert(stream, (number, 0));
        Ok(ComingPart { sizes: self.clone(), name: name.to_owned(), stream })
    }

    /// Forgets an upload that has ended.
    pub fn forget(&self, name: &str) {
        self.uploads().remove(name);
    }

    fn uploads(&self) -> MutexGuard<'_, HashMap<String, UploadSizes>> {
        // No code panics while it holds this lock.
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ComingPart {
    /// Counts bytes that have come; the bytes of all parts of the upload.
    pub fn grow(&self, bytes: u64) -> u64 {
        let mut uploads = self.sizes.uploads();
        // Where the upload has ended, nothing is published of it.
        let Some(upload) = uploads.get_mut(&self.name) else { return bytes };
        if let Some((_, size)) = upload.coming.get_mut(&self.stream) {
            *size = size.saturating_add(bytes);
        }
        upload.total(self.stream)
    }

    /// Notes that the part has come as a whole.
    pub fn stored(self) {
        if let Some(upload) = self.sizes.uploads().get_mut(&self.name)
            && let Some((number, size)) = upload.coming.get(&self.stream).copied()
        {
            upload.stored.insert(number, size);
        }
    }
}

impl Drop for ComingPart {
    fn drop(&mut self) {
        if let Some(upload) = self.sizes.uploads().get_mut(&self.name) {
            upload.coming.remove(&self.stream);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coming(sizes: &PartSizes, number: u32) -> ComingPart {
        let stream = sizes.streams.fetch_add(1, Ordering::Relaxed);
        sizes.uploads().entry("a".to_owned()).or_default().coming.insert(stream, (number, 0));
        ComingPart { sizes: sizes.clone(), name: "a".to_owned(), stream }
    }

    #[test]
    fn parts_that_come_at_once_count_together() {
        let sizes = PartSizes::default();
        let (first, second) = (coming(&sizes, 1), coming(&sizes, 2));
        assert_eq!((first.grow(10), second.grow(5), first.grow(1)), (10, 16, 16));
        first.stored();
        assert_eq!(second.grow(1), 17);
        // A part that comes again counts as the larger of the two for others, and takes the place of the one before.
        let again = coming(&sizes, 1);
        assert_eq!((again.grow(3), second.grow(0)), (9, 17));
        assert_eq!((again.grow(20), second.grow(0)), (29, 29));
        drop(again);
        assert_eq!(second.grow(0), 17);
        let twice = coming(&sizes, 2);
        assert_eq!(twice.grow(1), 12);
        sizes.forget("a");
        assert_eq!(second.grow(1), 1);
    }
}
