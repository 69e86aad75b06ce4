//! Images that are made of files: smaller ones, and of other formats.
//!
//! A file is whatever somebody has written: what it claims is looked at before any of it is decoded, and what is made of
//! it is bounded in pixels, memory, time and number. What was made is kept in memory, by the entity tag of its file: a file
//! that is replaced has another one.

mod geometry;
mod inspection;
mod queue;
mod rendering;
mod stop;
mod wanted;

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use futures::TryStreamExt;
use mesh::{
    cache::{self, WeightedCache},
    config::ImageLimits,
    telemetry::ImageMeters,
};
use query::resources::ImageKind;
use tokio::{sync::OwnedSemaphorePermit, time::timeout};
use tracing::debug;

pub use self::wanted::WantedImage;
use self::{
    queue::{Place, Queue},
    rendering::Rendering,
    stop::StopFlag,
};
use crate::{
    Error,
    backend::Reader,
    buckets::Bucket,
    object::File,
    read::{Parts, Pieces, pieces_of},
};

/// Bytes of an image that is usual in the cache.
const USUAL_BYTES: u64 = 32 * 1024;
/// Bytes that an entry of the cache takes besides the image.
const ENTRY_BYTES: u64 = 256;

/// Makes images, and keeps them. Clones are the same.
#[derive(Clone)]
pub struct Images {
    made: Arc<WeightedCache<ImageKey, MadeImage, ImageWeight>>,
    queue: Queue,
    limits: Arc<ImageLimits>,
    meters: ImageMeters,
}

/// What an image is made of, and how.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct ImageKey {
    /// Which backend: one that was opened anew may give an entity tag again.
    backend: u64,
    path: String,
    etag: String,
    modified_ms: i64,
    size: u64,
    wanted: WantedImage,
}

/// An image that was made.
#[derive(Debug, Clone)]
pub struct MadeImage {
    bytes: Bytes,
    /// Kind of the file that it was made of.
    source: ImageKind,
    /// Its own kind.
    kind: ImageKind,
}

/// Weighs an image with what it was made of.
#[derive(Debug, Clone)]
struct ImageWeight;

impl cache::Weighter<ImageKey, MadeImage> for ImageWeight {
    fn weight(&self, key: &ImageKey, image: &MadeImage) -> u64 {
        (image.bytes.len() + key.path.len() + key.etag.len()) as u64 + ENTRY_BYTES
    }
}

/// A file that is open, of which an image is made.
pub struct ImageSource<'a> {
    /// Its bucket.
    pub bucket: &'a Bucket,
    /// What is known of it.
    pub file: &'a File,
    /// Its bytes.
    pub reader: Reader,
}

impl Images {
    /// Images within `limits`.
    pub fn new(limits: ImageLimits, meters: ImageMeters) -> Self {
        let expected = usize::try_from(limits.cache_bytes / USUAL_BYTES).unwrap_or(usize::MAX).max(1);
        let made = Arc::new(cache::weighted(limits.cache_bytes, expected, ImageWeight));
        let queue = Queue::new(limits.workers, limits.queue);
        Self { made, queue, limits: Arc::new(limits), meters }
    }

    /// Pixels of the longest side of what is made.
    pub fn side(&self) -> u32 {
        self.limits.side
    }

    /// The image of `source` that is wanted, made or kept. Dropped, nothing more is done for it.
    pub async fn image(&self, source: ImageSource<'_>, wanted: &WantedImage) -> Result<MadeImage, Error> {
        let bucket = source.bucket;
        let image = Box::pin(self.found(source, wanted)).await;
        let image = image.inspect_err(|error| match error {
            Error::TooManyImages => drop(self.meters.refused.inc()),
            _ => drop(self.meters.failed.inc()),
        })?;
        // The kinds that the bucket takes may have changed since it was made.
        inspection::check_kind(image.source, &bucket.spec.images)?;
        Ok(image)
    }

    async fn found(&self, source: ImageSource<'_>, wanted: &WantedImage) -> Result<MadeImage, Error> {
        let File { path, size, modified_ms, etag, .. } = source.file.clone();
        let (backend, wanted) = (source.bucket.opened(), *wanted);
        let key = ImageKey { backend, path, etag, modified_ms, size, wanted };
        if let Some(kept) = self.made.get(&key) {
            self.meters.kept.inc();
            return Ok(kept);
        }
        // Who waits for the same image of another request has a place as well.
        let place = self.queue.enter(source.bucket.project())?;
        let made = Box::pin(self.made.get_or_insert_async(&key, self.make(source, key.wanted, &place)));
        timeout(self.limits.wait + self.limits.time, made).await.unwrap_or(Err(Error::ImageTime))
    }

    async fn make(&self, source: ImageSource<'_>, wanted: WantedImage, place: &Place) -> Result<MadeImage, Error> {
        let (limit, found) = (self.limits.source_bytes, source.file.size);
        if found > limit {
            return Err(Error::ImageTooLarge { what: "bytes", limit, found });
        }
        let worker = timeout(self.limits.wait, self.queue.worker(place)).await;
        let worker = worker.unwrap_or(Err(Error::TooManyImages))?;
        timeout(self.limits.time, self.begun(source, wanted, worker)).await.unwrap_or(Err(Error::ImageTime))
    }

    async fn begun(
        &self,
        source: ImageSource<'_>,
        wanted: WantedImage,
        worker: OwnedSemaphorePermit,
    ) -> Result<MadeImage, Error> {
        let ImageSource { bucket, file, reader } = source;
        let content = whole(reader, file.size).await?;
        let stop = StopFlag::after(self.limits.time);
        // The thread goes on to its next step where nobody waits for it any longer, and has its place until then.
        let _stops = stop.clone().drop_guard();
        let rendering =
            Rendering { content, wanted, kinds: bucket.spec.images.clone(), limits: self.limits.clone(), stop };
        self.rendered(rendering, worker).await
    }

    async fn rendered(&self, rendering: Rendering, worker: OwnedSemaphorePermit) -> Result<MadeImage, Error> {
        let begin = Instant::now();
        let rendered = tokio::task::spawn_blocking(move || {
            let _worker = worker;
            rendering.run()
        });
        let image = rendered.await.unwrap_or_else(|panic| {
            debug!(%panic, "an image made its decoder panic");
            Err(Error::BrokenImage)
        })?;
        self.meters.seconds.observe(begin.elapsed().as_secs_f64());
        self.meters.made.inc();
        Ok(image)
    }
}

/// All bytes of a file of `size` bytes.
async fn whole(reader: Reader, size: u64) -> Result<Vec<u8>, Error> {
    let mut content = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
    let mut pieces = reader.parts(Parts::Whole);
    while let Some(piece) = pieces.try_next().await? {
        content.extend_from_slice(&piece);
    }
    Ok(content)
}

impl MadeImage {
    /// What is known of it, made of `file` with the entity tag `etag`.
    pub fn file(&self, file: File, etag: String) -> File {
        let content_type = self.kind.media_type().to_owned();
        File { size: self.bytes.len() as u64, etag, content_type, ..file }
    }

    /// The bytes of `parts`, one after the other.
    pub fn parts(self, parts: Parts) -> Pieces {
        pieces_of(self.bytes, parts)
    }
}
