//! Sizes of the parts of uploads: what has come of an upload counts against the limit of its bucket before it is joined.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use foldhash::HashMap;

use crate::{Error, backend::Backend, record::StoredPart};

/// Most uploads and parts that are known of uploads none of which is coming. Beyond, they are looked up again.
const KNOWN_MAX: usize = 1 << 17;
/// How long an upload is known none of which is coming. Whoever began it may never come again.
const REST_MAX: Duration = Duration::from_secs(3600);
/// How often such uploads are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// Sizes of the parts of uploads that this node takes in, by name. Clones are the same.
///
/// What another node takes in meanwhile does not count; the size of the whole is checked when the parts are joined.
#[derive(Clone, Default)]
pub struct PartSizes {
    known: Arc<Mutex<KnownUploads>>,
    streams: Arc<AtomicU64>,
}

/// Uploads whose sizes are known.
#[derive(Default)]
struct KnownUploads {
    /// By name. Whoever locks one of them has locked the registry before, if it needs both.
    uploads: HashMap<String, Arc<Mutex<UploadSizes>>>,
    /// Parts of them that have come.
    parts: usize,
    swept: Option<Instant>,
}

/// Sizes of the parts of one upload.
#[derive(Default)]
struct UploadSizes {
    /// Of the parts that have come, by number.
    stored: BTreeMap<u32, u64>,
    /// Numbers and bytes so far of the parts that are coming, by stream.
    coming: BTreeMap<u64, (u32, u64)>,
    /// By number, the largest of what has come and what is coming: a part that comes again, or twice at once, counts once.
    largest: HashMap<u32, u64>,
    /// Bytes of the largest ones.
    total: u64,
    /// When the last one has ended.
    rests_since: Option<Instant>,
    /// Whether the upload has ended: nothing more of it counts.
    has_ended: bool,
}

/// A part that is coming. Dropped, it counts no longer, unless it is stored.
pub struct ComingPart {
    sizes: PartSizes,
    name: String,
    upload: Arc<Mutex<UploadSizes>>,
    stream: u64,
    is_stored: bool,
}

impl UploadSizes {
    /// Counts bytes of a part that is coming; the bytes of the upload as this part sees it.
    fn grow(&mut self, stream: u64, bytes: u64) -> u64 {
        let Some((number, own)) = self.coming.get_mut(&stream) else { return bytes };
        *own = own.saturating_add(bytes);
        let largest = self.largest.entry(*number).or_default();
        let others = self.total.saturating_sub(*largest);
        *largest = (*own).max(*largest);
        self.total = others.saturating_add(*largest);
        others.saturating_add(*own)
    }

    /// Ends a part that was coming; whether one has come of which there was none.
    fn end(&mut self, stream: u64, is_stored: bool) -> bool {
        self.rests_since = Some(Instant::now());
        let Some((number, size)) = self.coming.remove(&stream) else { return false };
        let is_new = is_stored && self.stored.insert(number, size).is_none();
        self.measure(number);
        is_new
    }

    /// Counts the part `number` again.
    fn measure(&mut self, number: u32) {
        let coming = self.coming.values().filter(|(other, _)| *other == number).map(|(_, size)| *size);
        let largest = coming.chain(self.stored.get(&number).copied()).max();
        let before = match largest {
            Some(largest) => self.largest.insert(number, largest),
            None => self.largest.remove(&number),
        };
        let others = self.total.saturating_sub(before.unwrap_or_default());
        self.total = others.saturating_add(largest.unwrap_or_default());
    }

    fn is_known_until(&self, now: Instant) -> bool {
        !self.coming.is_empty() || self.rests_since.is_some_and(|since| now.duration_since(since) < REST_MAX)
    }
}

impl KnownUploads {
    /// Forgets uploads none of which is coming: those that rest for long, and all where too much is known.
    fn sweep(&mut self, now: Instant) {
        let is_full = self.uploads.len() + self.parts > KNOWN_MAX;
        if !is_full && self.swept.is_some_and(|swept| now.duration_since(swept) < SWEEP_INTERVAL) {
            return;
        }
        self.swept = Some(now);
        let mut parts = 0;
        self.uploads.retain(|_, upload| {
            let upload = locked(upload);
            let stays = if is_full { !upload.coming.is_empty() } else { upload.is_known_until(now) };
            parts += if stays { upload.stored.len() } else { 0 };
            stays
        });
        self.parts = parts;
    }

    fn forget(&mut self, name: &str) {
        if let Some(upload) = self.uploads.remove(name) {
            let mut upload = locked(&upload);
            upload.has_ended = true;
            self.parts -= upload.stored.len();
        }
    }
}

impl PartSizes {
    /// Begins to count a part of the upload `name`.
    pub async fn begin(&self, backend: &Backend, name: &str, number: u32) -> Result<ComingPart, Error> {
        if let Some(coming) = self.coming(name, number, None) {
            return Ok(coming);
        }
        let stored = backend.parts(name).await?;
        self.coming(name, number, Some(stored)).ok_or_else(|| Error::Backend("an upload is not counted".to_owned()))
    }

    /// A part of an upload that is known, or of which these parts have come.
    fn coming(&self, name: &str, number: u32, stored: Option<Vec<StoredPart>>) -> Option<ComingPart> {
        let mut known = self.known();
        known.sweep(Instant::now());
        let upload = match known.uploads.get(name).cloned() {
            // More may have come since they were looked up.
            Some(upload) => upload,
            None => {
                let mut upload = UploadSizes::default();
                for part in stored? {
                    upload.stored.insert(part.number, part.size);
                    upload.measure(part.number);
                }
                known.parts += upload.stored.len();
                let upload = Arc::new(Mutex::new(upload));
                known.uploads.insert(name.to_owned(), upload.clone());
                upload
            }
        };
        let stream = self.streams.fetch_add(1, Ordering::Relaxed);
        let mut sizes = locked(&upload);
        sizes.coming.insert(stream, (number, 0));
        sizes.measure(number);
        drop(sizes);
        Some(ComingPart { sizes: self.clone(), name: name.to_owned(), upload, stream, is_stored: false })
    }

    /// Forgets an upload that has ended.
    pub fn forget(&self, name: &str) {
        self.known().forget(name);
    }

    fn known(&self) -> MutexGuard<'_, KnownUploads> {
        // No code panics while it holds this lock.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sizes of an upload, for this thread alone.
fn locked(upload: &Mutex<UploadSizes>) -> MutexGuard<'_, UploadSizes> {
    // No code panics while it holds this lock.
    upload.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ComingPart {
    /// Counts bytes that have come; the bytes of all parts of the upload.
    pub fn grow(&self, bytes: u64) -> u64 {
        locked(&self.upload).grow(self.stream, bytes)
    }

    /// The bytes of all parts of the upload, each as the largest of what has come and what is coming of it; `None` once the
    /// upload has ended.
    pub fn total(&self) -> Option<u64> {
        total(&self.upload)
    }

    /// Notes that the part has come as a whole.
    pub fn stored(&mut self) {
        self.is_stored = true;
    }

    /// Ends it; the upload goes on.
    pub fn end(self) -> CountedUpload {
        CountedUpload(self.upload.clone())
    }
}

/// An upload of which a part has ended.
pub struct CountedUpload(Arc<Mutex<UploadSizes>>);

impl CountedUpload {
    /// The bytes of all of its parts; `None` where it has ended.
    pub fn total(&self) -> Option<u64> {
        total(&self.0)
    }
}

fn total(upload: &Mutex<UploadSizes>) -> Option<u64> {
    let upload = locked(upload);
    (!upload.has_ended).then_some(upload.total)
}

impl Drop for ComingPart {
    fn drop(&mut self) {
        let mut known = self.sizes.known();
        let mut upload = locked(&self.upload);
        let is_new = upload.end(self.stream, self.is_stored);
        // It may have been forgotten, and another one be known by its name.
        if known.uploads.get(&self.name).is_none_or(|other| !Arc::ptr_eq(other, &self.upload)) {
            return;
        }
        known.parts += usize::from(is_new);
        if upload.coming.is_empty() && upload.stored.is_empty() {
            known.uploads.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coming(sizes: &PartSizes, name: &str, number: u32) -> ComingPart {
        sizes.coming(name, number, Some(Vec::new())).expect("it is counted")
    }

    fn stored(mut part: ComingPart) {
        part.stored();
    }

    /// Uploads and parts that are known.
    fn known(sizes: &PartSizes) -> (usize, usize) {
        let known = sizes.known();
        let parts = known.uploads.values().map(|upload| locked(upload).stored.len()).sum();
        assert_eq!(known.parts, parts);
        (known.uploads.len(), parts)
    }

    #[test]
    fn parts_that_come_at_once_count_together() {
        let sizes = PartSizes::default();
        let (first, second) = (coming(&sizes, "a", 1), coming(&sizes, "a", 2));
        assert_eq!((first.grow(10), second.grow(5), first.grow(1)), (10, 15, 16));
        stored(first);
        assert_eq!((second.grow(1), second.total()), (17, Some(17)));
        // A part that comes again counts as the larger of the two for others, and takes the place of the one before.
        let again = coming(&sizes, "a", 1);
        assert_eq!((again.grow(3), second.grow(0)), (9, 17));
        assert_eq!((again.grow(20), second.grow(0)), (29, 29));
        assert_eq!(again.end().total(), Some(17));
        assert_eq!(second.grow(0), 17);
        let twice = coming(&sizes, "a", 2);
        assert_eq!(twice.grow(1), 12);
        let smaller = coming(&sizes, "a", 1);
        smaller.grow(2);
        stored(smaller);
        assert_eq!((second.grow(0), twice.grow(0)), (8, 3));
        assert_eq!(coming(&sizes, "b", 1).grow(1), 1, "another upload");
    }

    #[test]
    fn parts_that_had_come_before_count() {
        let sizes = PartSizes::default();
        let stored = |number, size| StoredPart { number, size, etag: String::new(), modified_ms: 0 };
        assert!(sizes.coming("a", 3, None).is_none(), "it is not known");
        let third = sizes.coming("a", 3, Some(vec![stored(1, 10), stored(2, 5)])).expect("it is counted");
        assert_eq!(third.grow(1), 16);
        let second = sizes.coming("a", 2, None).expect("it is known");
        assert_eq!((second.grow(1), third.grow(0)), (12, 16));
        assert_eq!(known(&sizes), (1, 2));
    }

    #[test]
    fn what_has_ended_is_forgotten() {
        let sizes = PartSizes::default();
        for _ in 0..3 {
            let (first, second) = (coming(&sizes, "cut", 1), coming(&sizes, "cut", 2));
            assert_eq!(known(&sizes), (1, 0));
            first.grow(1);
            drop((first, second));
            assert_eq!(known(&sizes), (0, 0), "nothing of it has come");
        }
        for end in [stored as fn(ComingPart), drop] {
            stored(coming(&sizes, "dropped", 1));
            let late = coming(&sizes, "dropped", 2);
            assert_eq!(known(&sizes), (1, 1));
            sizes.forget("dropped");
            assert_eq!((known(&sizes), late.total()), ((0, 0), None));
            end(late);
            assert_eq!(known(&sizes), (0, 0), "one that comes late is not known");
        }
    }

    #[test]
    fn uploads_that_rest_are_swept() {
        let sizes = PartSizes::default();
        stored(coming(&sizes, "rests", 1));
        let comes = coming(&sizes, "comes", 1);
        sizes.known().sweep(Instant::now() + REST_MAX / 2);
        assert_eq!(known(&sizes), (2, 1));
        sizes.known().sweep(Instant::now() + REST_MAX * 2);
        assert_eq!(known(&sizes), (1, 0));
        stored(comes);
        assert_eq!(known(&sizes), (1, 1));
        // Too many.
        for upload in 0..=KNOWN_MAX / 2 {
            stored(coming(&sizes, &upload.to_string(), 1));
        }
        let (uploads, parts) = known(&sizes);
        assert!(uploads + parts <= KNOWN_MAX + 2, "{uploads} {parts}");
    }
}
