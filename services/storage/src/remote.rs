//! Buckets in an object store: that of a cloud, or one in memory.
//!
//! An object store has no folders: a folder is there as long as a file is in it, or a mark that it was made. Marks and
//! unfinished files are objects of the bucket's own, which no path reaches.

mod bounded;
mod held;
mod listing;
mod resumable;
mod upload;

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use mesh::Tasks;
use object_store::{
    Attribute, Attributes, GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt, PutPayload,
    aws::AmazonS3Builder, azure::MicrosoftAzureBuilder, gcp::GoogleCloudStorageBuilder, path::Path,
};
use proto::storage::Precondition;
use query::{file::FilePath, resources::BucketBackend};
use tokio::sync::{Mutex, MutexGuard, RwLock};

pub use self::{
    resumable::{ObjectAppend, ObjectJoined, part_path},
    upload::ObjectUpload,
};
use crate::{
    Error, content_type,
    list::{Judging, Page, PageRequest},
    object::{Entry, File, LOCKS, check, lock_index},
    read::{PIECE_BYTES, Parts, Pieces},
};

/// Prefix of the bucket's own objects.
const OWN: &str = ".perigee";
/// Prefix of marks of folders. A segment of a folder's path begins with `d`, and the mark itself is [`MARK`], so that no
/// mark is where another's folder is.
const FOLDERS: &str = ".perigee/folders";
/// Name of a mark: before all folders in the order of bytes.
const MARK: &str = "0";
/// Prefix of files whose path is not known yet.
const UPLOADS: &str = ".perigee/uploads";
/// Name of the user's metadata in the store: letters alone, as Azure wants it.
const META: &str = "perigeemeta";
/// Bytes of a bucket in memory that does not say how many.
const MEMORY_BYTES: u64 = 256 << 20;
/// The region of a store that has none.
const REGION: &str = "us-east-1";

/// A bucket in an object store. Clones are the same.
#[derive(Clone)]
pub struct Remote {
    store: Arc<dyn ObjectStore>,
    /// What the locations of all objects begin with; empty, or without a slash at its end.
    prefix: Arc<str>,
    locks: Arc<[Mutex<()>; LOCKS]>,
    /// Held by who adds entries, and by who deletes a folder while nothing may be added.
    changes: Arc<RwLock<()>>,
    busy: resumable::Busy,
    held: held::HeldBudget,
    /// For what ends an upload that was dropped.
    tasks: Tasks,
}

/// An object that is open.
pub struct ObjectReader {
    remote: Remote,
    location: Path,
    meta: ObjectMeta,
}

impl Remote {
    /// The bucket that `spec` describes. Errors: it is wrong.
    pub fn open(spec: &BucketBackend, tasks: Tasks) -> Result<Self, Error> {
        let (store, prefix): (Arc<dyn ObjectStore>, &Option<String>) = match spec {
            BucketBackend::S3 { bucket, region, endpoint, access_key, secret_key, path_style, prefix } => {
                let mut builder = AmazonS3Builder::new()
                    .with_bucket_name(bucket)
                    .with_region(region.as_deref().unwrap_or(REGION))
                    .with_virtual_hosted_style_request(!path_style);
                if let Some(endpoint) = endpoint {
                    builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
                }
                if let (Some(id), Some(secret)) = (access_key, secret_key) {
                    builder = builder.with_access_key_id(id).with_secret_access_key(secret);
                }
                (Arc::new(builder.build()?), prefix)
            }
            BucketBackend::Gcs { bucket, credentials, prefix } => {
                let mut builder = GoogleCloudStorageBuilder::new().with_bucket_name(bucket);
                if let Some(credentials) = credentials {
                    builder = builder.with_service_account_key(credentials);
                }
                (Arc::new(builder.build()?), prefix)
            }
            BucketBackend::Azure { account, container, key, prefix } => {
                let builder = MicrosoftAzureBuilder::new().with_account(account).with_container_name(container);
                (Arc::new(builder.with_access_key(key).build()?), prefix)
            }
            BucketBackend::Memory { size } => {
                let limit = size.map_or(MEMORY_BYTES, |size| size.0);
                (Arc::new(bounded::Bounded::new(limit)), &None)
            }
            BucketBackend::Local { .. } => return Err(Error::Backend("a local bucket is no object store".to_owned())),
        };
        Ok(Self::with(store, prefix.as_deref().unwrap_or_default(), tasks))
    }

    /// A bucket whose objects are below `prefix` in `store`.
    pub fn with(store: Arc<dyn ObjectStore>, prefix: &str, tasks: Tasks) -> Self {
        let locks = Arc::new([const { Mutex::const_new(()) }; LOCKS]);
        let (busy, held) = (resumable::Busy::default(), held::HeldBudget::default());
        Self { store, prefix: prefix.trim_matches('/').into(), locks, changes: Arc::default(), busy, held, tasks }
    }

    /// Where the object `key` is.
    fn location(&self, key: &str) -> Result<Path, Error> {
        let location = match (&*self.prefix, key) {
            ("", key) => Path::parse(key),
            (prefix, "") => Path::parse(prefix),
            (prefix, key) => Path::parse(format!("{prefix}/{key}")),
        };
        location.map_err(|error| Error::Malformed(error.to_string()))
    }

    async fn lock(&self, path: &FilePath) -> MutexGuard<'_, ()> {
        self.locks[lock_index(path)].lock().await
    }

    /// Begins to take in a file, whose path need not be known yet.
    pub fn begin(&self, path: Option<&FilePath>, content_type: &str, meta: &str) -> ObjectUpload {
        ObjectUpload::begin(self.clone(), path, content_type, meta)
    }

    /// Opens a file, and what is known of it.
    pub async fn read(&self, path: &FilePath) -> Result<(File, ObjectReader), Error> {
        let Some((file, meta)) = self.head(path).await? else { return Err(self.why_missing(path).await?) };
        let reader = ObjectReader { remote: self.clone(), location: self.location(path.as_str())?, meta };
        Ok((file, reader))
    }

    /// What is known of the file at `path`; `None` where there is none.
    async fn head(&self, path: &FilePath) -> Result<Option<(File, ObjectMeta)>, Error> {
        if path.is_root() {
            return Ok(None);
        }
        let options = GetOptions { head: true, ..GetOptions::default() };
        match self.store.get_opts(&self.location(path.as_str())?, options).await {
            Ok(GetResult { meta, attributes, .. }) => Ok(Some((file(path.as_str(), &meta, &attributes), meta))),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Bytes of the file at `path`; `None` where there is none.
    pub async fn size_of(&self, path: &FilePath) -> Result<Option<u64>, Error> {
        Ok(self.head(path).await?.map(|(file, _)| file.size))
    }

    /// Why there is no file at `path`.
    async fn why_missing(&self, path: &FilePath) -> Result<Error, Error> {
        Ok(match self.is_folder(path).await? {
            true => Error::IsFolder(path.to_string()),
            false => Error::NotFound,
        })
    }

    /// Whether a file is below `path`, or a mark of the folder.
    async fn is_folder(&self, path: &FilePath) -> Result<bool, Error> {
        if path.is_root() {
            return Ok(true);
        }
        for location in [self.location(path.as_str())?, self.location(&marks(path.as_str()))?] {
            let mut found = self.store.list(Some(&location));
            while let Some(object) = found.try_next().await? {
                // A store may have an object of the folder's own name with a slash.
                if object.location != location {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// What is known of a file or a folder.
    pub async fn info(&self, path: &FilePath) -> Result<Entry, Error> {
        match self.head(path).await? {
            Some((file, _)) => Ok(Entry::File(file)),
            None if self.is_folder(path).await? => Ok(Entry::folder(path.as_str())),
            None => Err(Error::NotFound),
        }
    }

    /// A page of a folder.
    pub async fn list(&self, folder: &FilePath, request: PageRequest) -> Result<Page, Error> {
        let page = listing::page(self, folder, &request).await?;
        let is_empty = page.entries.is_empty() && page.last.is_empty() && request.after.is_empty();
        if is_empty && !self.is_folder(folder).await? {
            return Err(Error::NoFolder);
        }
        Ok(page)
    }

    /// Marks a folder as made.
    pub async fn make_folder(&self, path: &FilePath) -> Result<(), Error> {
        if path.is_root() {
            return Ok(());
        }
        let _shared = self.changes.read().await;
        self.check_parents(path).await?;
        if self.head(path).await?.is_some() {
            return Err(Error::Conflict(format!("{path} is a file, not a folder")));
        }
        let mark = self.location(&format!("{}/{MARK}", marks(path.as_str())))?;
        self.store.put(&mark, PutPayload::default()).await?;
        Ok(())
    }

    /// Whether no folder above `path` is a file.
    async fn check_parents(&self, path: &FilePath) -> Result<(), Error> {
        let above: Vec<&str> = path.as_str().match_indices('/').map(|(at, _)| &path.as_str()[..at]).collect();
        let heads = above.iter().map(|folder| async move {
            match self.store.head(&self.location(folder)?).await {
                // Other programs mark folders by empty objects.
                Ok(meta) if meta.size > 0 => Err(Error::Conflict(format!("/{folder} is a file, not a folder"))),
                Ok(_) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(error.into()),
            }
        });
        futures::future::try_join_all(heads).await.map(drop)
    }

    /// Deletes a file.
    pub async fn delete_file(&self, path: &FilePath, precondition: Option<&Precondition>) -> Result<(), Error> {
        let _lock = self.lock(path).await;
        let Some((file, _)) = self.head(path).await? else { return Err(self.why_missing(path).await?) };
        check(precondition, Some(&file.etag))?;
        Ok(self.store.delete(&self.location(path.as_str())?).await?)
    }

    /// Deletes a folder with all that is in it; whether there was one.
    pub async fn delete_folder(&self, path: &FilePath, judged: &[u8]) -> Result<bool, Error> {
        let _nothing_new = match judged.is_empty() {
            true => None,
            false => Some(self.changes.write().await),
        };
        if !judged.is_empty() {
            Box::pin(self.check_judged(path, judged)).await?;
        }
        let mut deleted = 0;
        for location in [self.location(path.as_str())?, self.location(&marks(path.as_str()))?] {
            let listed = self.store.list(Some(&location)).map_ok(|object| object.location).boxed();
            let mut done = self.store.delete_stream(listed);
            while let Some(location) = done.next().await {
                match location {
                    Ok(_) => deleted += 1,
                    Err(object_store::Error::NotFound { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(deleted > 0)
    }

    /// Compares what is below a folder with what was judged.
    async fn check_judged(&self, folder: &FilePath, judged: &[u8]) -> Result<(), Error> {
        let (mut judging, mut next) = (Judging::default(), Some(PageRequest::everything()));
        while let Some(request) = next {
            next = match self.list(folder, request).await {
                Err(Error::NoFolder | Error::NotFound) => None,
                page => judging.next(page?),
            };
        }
        judging.check(judged)
    }

    /// Deletes unfinished files that were not changed for longer than `age_ms`, and resumable uploads that are void.
    pub async fn sweep(&self, age_ms: u64) -> Result<usize, Error> {
        let now = mesh::clock::unix_ms(std::time::SystemTime::now());
        let mut found = self.store.list(Some(&self.location(UPLOADS)?));
        let mut swept = 0;
        while let Some(object) = found.try_next().await? {
            let age = now.saturating_sub(object.last_modified.timestamp_millis());
            if u64::try_from(age).is_ok_and(|age| age >= age_ms) {
                self.store.delete(&object.location).await?;
                swept += 1;
            }
        }
        Ok(swept + self.sweep_uploads(now).await?)
    }
}

/// Prefix of the marks of a folder and of those below it.
fn marks(folder: &str) -> String {
    let segments = folder.split('/').filter(|segment| !segment.is_empty());
    segments.fold(FOLDERS.to_owned(), |marks, segment| format!("{marks}/d{segment}"))
}

/// The opaque part of an entity tag.
fn opaque(etag: Option<&str>) -> String {
    let etag = etag.unwrap_or_default();
    etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"').to_owned()
}

fn file(path: &str, meta: &ObjectMeta, attributes: &Attributes) -> File {
    let name = path.rsplit('/').next().unwrap_or(path);
    let user =
        attributes.get(&Attribute::Metadata(META.into())).and_then(|text| URL_SAFE_NO_PAD.decode(text.as_ref()).ok());
    File {
        path: path.to_owned(),
        size: meta.size,
        modified_ms: meta.last_modified.timestamp_millis(),
        etag: opaque(meta.e_tag.as_deref()),
        content_type: content_type::of_stored(attributes.get(&Attribute::ContentType).map(AsRef::as_ref), name),
        meta: user.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default(),
    }
}

/// Attributes of an object with this type and metadata.
fn attributes(content_type: &str, meta: &str) -> Attributes {
    let mut attributes = Attributes::new();
    attributes.insert(Attribute::ContentType, content_type.to_owned().into());
    if !meta.is_empty() {
        attributes.insert(Attribute::Metadata(META.into()), URL_SAFE_NO_PAD.encode(meta).into());
    }
    attributes
}

impl ObjectReader {
    /// The bytes of `parts`, one after the other, of the version that was opened.
    pub fn parts(self, parts: Parts) -> Pieces {
        let ranges = match parts {
            Parts::Whole => vec![None],
            Parts::Some(ranges) => ranges.into_iter().map(Some).collect(),
            Parts::Unsatisfiable => Vec::new(),
        };
        let ObjectReader { remote, location, meta } = self;
        let opened = stream::iter(ranges).then(move |range| {
            let (remote, location, if_match) = (remote.clone(), location.clone(), meta.e_tag.clone());
            async move {
                let range = range.map(GetRange::Bounded);
                let options = GetOptions { range, if_match, ..GetOptions::default() };
                let result = remote.store.get_opts(&location, options).await?;
                Ok::<_, Error>(result.into_stream().map_err(Error::from))
            }
        });
        opened.try_flatten().map_ok(|bytes| stream::iter(pieces(bytes)).map(Ok)).try_flatten().boxed()
    }
}

/// `bytes` in pieces, which share their memory.
fn pieces(mut bytes: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        let length = bytes.len().min(PIECE_BYTES);
        (length > 0).then(|| bytes.split_to(length))
    })
}
