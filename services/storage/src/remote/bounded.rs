//! A store in memory that takes in so many bytes and no more.

use std::{
    fmt,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart, memory::InMemory, path::Path,
};
use tokio::sync::Mutex;

use crate::error::NoRoom;

/// What an object counts besides its bytes: its name, its type and its place.
const ENTRY_BYTES: u64 = 1024;

/// A store in memory.
#[derive(Debug, Clone)]
pub struct Bounded {
    inner: Arc<InMemory>,
    room: Arc<Room>,
    /// Changes wait for each other: what an object takes is known while it is replaced.
    changes: Arc<Mutex<()>>,
}

#[derive(Debug)]
struct Room {
    limit: u64,
    used: AtomicU64,
}

/// Bytes that are taken, and given back when it is dropped.
#[derive(Debug)]
struct Taken {
    room: Arc<Room>,
    bytes: u64,
}

impl Room {
    fn take(self: &Arc<Self>, bytes: u64) -> Result<Taken> {
        let within = |used: u64| used.checked_add(bytes).filter(|used| *used <= self.limit);
        match self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within) {
            Ok(_) => Ok(Taken { room: self.clone(), bytes }),
            Err(_) => Err(Error::Generic { store: "memory", source: Box::new(NoRoom) }),
        }
    }
}

impl Taken {
    /// They stay taken, by an object.
    fn keep(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.room.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Bounded {
    /// An empty store that takes in `limit` bytes.
    pub fn new(limit: u64) -> Self {
        let room = Arc::new(Room { limit, used: AtomicU64::new(0) });
        Self { inner: Arc::new(InMemory::new()), room, changes: Arc::default() }
    }

    /// What the object at `location` takes.
    async fn taken_by(&self, location: &Path) -> u64 {
        self.inner.head(location).await.map_or(0, |meta| meta.size + ENTRY_BYTES)
    }

    /// Runs `change`, after which there is an object at `location` that takes `bytes`.
    async fn replace<T>(&self, location: &Path, bytes: u64, change: impl Future<Output = Result<T>>) -> Result<T> {
        let _turn = self.changes.lock().await;
        let taken = self.room.take(bytes)?;
        let before = self.taken_by(location).await;
        let changed = change.await?;
        taken.keep();
        drop(Taken { room: self.room.clone(), bytes: before });
        Ok(changed)
    }

    async fn remove(&self, location: Path) -> Result<Path> {
        let _turn = self.changes.lock().await;
        let before = self.taken_by(&location).await;
        self.inner.delete(&location).await?;
        drop(Taken { room: self.room.clone(), bytes: before });
        Ok(location)
    }
}

impl fmt::Display for Bounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[tonic::async_trait]
impl ObjectStore for Bounded {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let bytes = payload.content_length() as u64 + ENTRY_BYTES;
        self.replace(location, bytes, self.inner.put_opts(location, payload, options)).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let upload = self.inner.put_multipart_opts(location, options).await?;
        let taken = vec![self.room.take(ENTRY_BYTES)?];
        Ok(Box::new(BoundedUpload { store: self.clone(), location: location.clone(), upload, taken }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let deleted = locations.then(move |location| {
            let store = store.clone();
            async move { store.remove(location?).await }
        });
        deleted.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let bytes = self.taken_by(from).await;
        self.replace(to, bytes, self.inner.copy_opts(from, to, options)).await
    }
}

/// An object that comes in parts, all of which count.
#[derive(Debug)]
struct BoundedUpload {
    store: Bounded,
    location: Path,
    upload: Box<dyn MultipartUpload>,
    taken: Vec<Taken>,
}

#[tonic::async_trait]
impl MultipartUpload for BoundedUpload {
    fn put_part(&mut self, payload: PutPayload) -> UploadPart {
        match self.store.room.take(payload.content_length() as u64) {
            Ok(taken) => {
                self.taken.push(taken);
                self.upload.put_part(payload)
            }
            Err(error) => std::future::ready(Err(error)).boxed(),
        }
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let Self { store, location, upload, taken } = self;
        let _turn = store.changes.lock().await;
        let before = store.taken_by(location).await;
        let completed = upload.complete().await?;
        taken.drain(..).for_each(Taken::keep);
        drop(Taken { room: store.room.clone(), bytes: before });
        Ok(completed)
    }

    async fn abort(&mut self) -> Result<()> {
        self.taken.clear();
        self.upload.abort().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(store: &Bounded) -> u64 {
        store.room.used.load(Ordering::Relaxed)
    }

    async fn put(store: &Bounded, at: &str, bytes: usize) -> Result<PutResult> {
        store.put(&Path::from(at), vec![7; bytes].into()).await
    }

    #[tokio::test]
    async fn what_is_replaced_and_deleted_makes_room() {
        let store = Bounded::new(10_000);
        put(&store, "a", 5000).await.expect("there is room");
        assert!(put(&store, "b", 5000).await.is_err());
        put(&store, "a", 2900).await.expect("both are there for a moment");
        assert_eq!(used(&store), 2900 + ENTRY_BYTES);
        store.copy(&Path::from("a"), &Path::from("b")).await.expect("there is room");
        assert!(store.copy(&Path::from("a"), &Path::from("c")).await.is_err());
        for object in ["a", "b"] {
            store.delete(&Path::from(object)).await.expect("it is there");
        }
        assert_eq!(used(&store), 0);
        assert_eq!(store.list(None).count().await, 0);
    }

    #[tokio::test]
    async fn parts_count_until_they_are_aborted_or_replaced() {
        let store = Bounded::new(10_000);
        let location = Path::from("a");
        for round in 0..3 {
            let mut upload = store.put_multipart(&location).await.expect("there is room");
            upload.put_part(vec![7; 3000].into()).await.expect("there is room");
            assert!(upload.put_part(vec![7; 9000].into()).await.is_err());
            match round {
                0 => upload.abort().await.expect("it can be aborted"),
                1 => drop(upload.complete().await.expect("it can be completed")),
                _ => drop(upload),
            }
            assert_eq!(used(&store), if round == 0 { 0 } else { 3000 + ENTRY_BYTES }, "round {round}");
        }
    }
}
