//! Files that are taken in as parts of a multipart upload, which is not there before it is completed.

use bytes::Bytes;
use object_store::{
    CopyOptions, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload,
    path::Path,
};
use query::file::FilePath;

use super::{Remote, UPLOADS, attributes, held::Held};
use crate::{
    Error,
    object::{File, Publication, Published, check},
};

/// Bytes of the first parts: the least that stores take.
const PART_BYTES: usize = 5 << 20;
/// Parts after which parts are twice as large: stores take ten thousand.
const PARTS_OF_SIZE: u32 = 2000;

/// A file that is taken in.
pub struct ObjectUpload {
    remote: Remote,
    /// The path that it was begun for; `None`: one that is told when it is published.
    path: Option<FilePath>,
    content_type: String,
    meta: String,
    waiting: Vec<Bytes>,
    waiting_bytes: usize,
    held: Held,
    size: u64,
    parts: u32,
    /// Begun with the first part. Taken when it is completed.
    multipart: Option<(Box<dyn MultipartUpload>, Path)>,
}

impl Drop for ObjectUpload {
    fn drop(&mut self) {
        if let Some((mut multipart, _)) = self.multipart.take() {
            self.remote.tasks.spawn("storage: abort of an upload", async move {
                if let Err(error) = multipart.abort().await {
                    tracing::warn!(%error, "a broken off upload stays in the store until its rules remove it");
                }
            });
        }
    }
}

impl ObjectUpload {
    pub(super) fn begin(remote: Remote, path: Option<&FilePath>, content_type: &str, meta: &str) -> Self {
        Self {
            remote,
            path: path.cloned(),
            content_type: content_type.to_owned(),
            meta: meta.to_owned(),
            waiting: Vec::new(),
            waiting_bytes: 0,
            held: Held::default(),
            size: 0,
            parts: 0,
            multipart: None,
        }
    }

    /// Takes in more bytes. Only what is less than a part is held.
    pub async fn write(&mut self, data: Bytes) -> Result<(), Error> {
        self.held.add(&self.remote.held, data.len()).await?;
        self.size += data.len() as u64;
        self.waiting_bytes += data.len();
        self.waiting.push(data);
        let part_bytes = PART_BYTES << (self.parts / PARTS_OF_SIZE).min(8);
        if self.waiting_bytes < part_bytes {
            return Ok(());
        }
        self.send_part().await
    }

    /// Waits until what this upload holds is in the way of others.
    pub async fn is_in_the_way(&mut self) {
        self.held.is_in_the_way(&self.remote.held).await;
    }

    async fn send_part(&mut self) -> Result<(), Error> {
        let part: PutPayload = std::mem::take(&mut self.waiting).into_iter().collect();
        self.waiting_bytes = 0;
        self.parts += 1;
        let (multipart, _) = match &mut self.multipart {
            Some(begun) => begun,
            None => {
                let key = match &self.path {
                    Some(path) => path.as_str().to_owned(),
                    None => format!("{UPLOADS}/{}", crate::random_name()),
                };
                let location = self.remote.location(&key)?;
                let attributes = attributes(&self.content_type, &self.meta);
                let options = PutMultipartOptions { attributes, ..PutMultipartOptions::default() };
                let begun = self.remote.store.put_multipart_opts(&location, options).await?;
                self.multipart.insert((begun, location))
            }
        };
        multipart.put_part(part).await?;
        self.held.shrink_to(0);
        Ok(())
    }

    /// Publishes the file.
    pub async fn publish(mut self, publication: Publication) -> Result<Published, Error> {
        let remote = self.remote.clone();
        let path = publication.path.clone();
        let _shared = remote.changes.read().await;
        remote.check_parents(&path).await?;
        let _lock = remote.lock(&path).await;
        let current = remote.head(&path).await?;
        check(publication.precondition.as_ref(), current.as_ref().map(|(file, _)| file.etag.as_str()))?;
        if current.is_none() && remote.is_folder(&path).await? {
            return Err(Error::Conflict(format!("{path} is a folder")));
        }
        let created = current.is_none();
        if self.multipart.is_none() {
            let absent = publication.precondition.as_ref().is_some_and(|precondition| precondition.absent);
            let mode = if absent { PutMode::Create } else { PutMode::Overwrite };
            self.put(&publication, mode).await?;
        } else {
            self.complete(&publication).await?;
        }
        let (file, _) = remote.head(&path).await?.ok_or(Error::NotFound)?;
        Ok(Published { file: File { size: self.size, ..file }, created })
    }

    /// All of it at once.
    async fn put(&mut self, publication: &Publication, mode: PutMode) -> Result<(), Error> {
        let payload: PutPayload = std::mem::take(&mut self.waiting).into_iter().collect();
        let attributes = attributes(&publication.content_type, &publication.meta);
        let options = PutOptions { mode, attributes, ..PutOptions::default() };
        let location = self.remote.location(publication.path.as_str())?;
        self.remote.store.put_opts(&location, payload, options).await?;
        Ok(())
    }

    /// The last part, and the end of the multipart upload.
    async fn complete(&mut self, publication: &Publication) -> Result<(), Error> {
        if publication.meta != self.meta {
            return Err(Error::Malformed("meta must come before a large file in a form, on this bucket".to_owned()));
        }
        if self.waiting_bytes > 0 {
            self.send_part().await?;
        }
        let Some((multipart, location)) = &mut self.multipart else {
            return Err(Error::Backend("an upload has no parts".to_owned()));
        };
        multipart.complete().await?;
        let location = location.clone();
        self.multipart = None;
        let target = self.remote.location(publication.path.as_str())?;
        if location == target {
            return Ok(());
        }
        let copied = self.remote.store.copy_opts(&location, &target, CopyOptions::default()).await;
        // Where it cannot be deleted now, the sweep does it.
        let _ = self.remote.store.delete(&location).await;
        Ok(copied?)
    }
}
