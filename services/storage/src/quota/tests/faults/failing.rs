//! A store that fails: before it has done what it is asked, after that, and in the middle of bytes.

use std::{
    fmt,
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, stream, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart, memory::InMemory, path::Path,
};
use rand::{Rng, SeedableRng, rngs::StdRng};

/// A store in memory with failures that a seed decides. Clones are the same.
#[derive(Debug, Clone)]
pub struct Failing {
    inner: Arc<InMemory>,
    random: Arc<Mutex<StdRng>>,
    fails: Arc<AtomicBool>,
}

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Done,
    /// Nothing of it is done.
    Refused,
    /// It is done, and its answer is lost.
    Lost,
}

fn failure() -> Error {
    Error::Generic { store: "failing", source: "on purpose".into() }
}

impl Failing {
    pub fn new(seed: u64) -> Self {
        let random = Arc::new(Mutex::new(StdRng::seed_from_u64(seed)));
        Self { inner: Arc::new(InMemory::new()), random, fails: Arc::new(AtomicBool::new(true)) }
    }

    /// From now on it fails, or does not.
    pub fn fail(&self, fails: bool) {
        self.fails.store(fails, Ordering::Relaxed);
    }

    fn draw(&self, below: u32) -> u32 {
        self.random.lock().expect("no thread panics").random_range(0..below)
    }

    fn fate(&self) -> Fate {
        if !self.fails.load(Ordering::Relaxed) {
            return Fate::Done;
        }
        match self.draw(12) {
            0 => Fate::Refused,
            1 => Fate::Lost,
            _ => Fate::Done,
        }
    }

    async fn run<T: Send>(&self, request: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let fate = self.fate();
        if fate == Fate::Refused {
            return Err(failure());
        }
        let done = request.await;
        if fate == Fate::Lost { Err(failure()) } else { done }
    }

    /// A stream that may end with a failure in its middle.
    fn cut<T: Send + 'static>(&self, whole: BoxStream<'static, Result<T>>) -> BoxStream<'static, Result<T>> {
        if self.fate() == Fate::Done {
            return whole;
        }
        let first = self.draw(3) as usize;
        whole.take(first).chain(stream::once(async { Err(failure()) })).boxed()
    }
}

impl fmt::Display for Failing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[tonic::async_trait]
impl ObjectStore for Failing {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.run(self.inner.put_opts(location, payload, options)).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let upload = self.run(self.inner.put_multipart_opts(location, options)).await?;
        Ok(Box::new(FailingUpload { store: self.clone(), upload }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let found = self.run(self.inner.get_opts(location, options)).await?;
        let (meta, range) = (found.meta.clone(), found.range.clone());
        let (attributes, extensions) = (found.attributes.clone(), found.extensions.clone());
        let payload = GetResultPayload::Stream(self.cut(found.into_stream()));
        Ok(GetResult { payload, meta, range, attributes, extensions })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.run(self.inner.get_ranges(location, ranges)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let deleted = locations.then(move |location| {
            let store = store.clone();
            async move {
                let mut one = store.inner.delete_stream(stream::once(async { location }).boxed());
                store.run(async { one.next().await.unwrap_or_else(|| Err(failure())) }).await
            }
        });
        deleted.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.cut(self.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.cut(self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.run(self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.run(self.inner.copy_opts(from, to, options)).await
    }
}

#[derive(Debug)]
struct FailingUpload {
    store: Failing,
    upload: Box<dyn MultipartUpload>,
}

#[tonic::async_trait]
impl MultipartUpload for FailingUpload {
    fn put_part(&mut self, payload: PutPayload) -> UploadPart {
        match self.store.fate() {
            Fate::Done => self.upload.put_part(payload),
            Fate::Refused | Fate::Lost => std::future::ready(Err(failure())).boxed(),
        }
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let store = self.store.clone();
        store.run(self.upload.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.upload.abort().await
    }
}
