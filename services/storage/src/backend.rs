//! Backends of buckets: where their files are.

use bytes::Bytes;
use mesh::Tasks;
use proto::storage::Precondition;
use query::{file::FilePath, resources::BucketBackend};

use crate::{
    Config, Error,
    list::{Page, PageRequest},
    local::{self, Local},
    object::{Entry, File, Publication, Published},
    read::{Parts, Pieces},
    remote::{self, Remote},
};

/// Where the files of a bucket are. Clones are the same.
#[derive(Clone)]
pub enum Backend {
    /// A folder of this machine.
    Local(Local),
    /// An object store: that of a cloud, or one in memory.
    Remote(Remote),
}

/// A file that is taken in. Dropped before it is published, it leaves nothing.
pub enum Upload {
    /// Into a local folder.
    Local(local::LocalUpload),
    /// Into an object store.
    Remote(remote::ObjectUpload),
}

/// A file that is open.
pub enum Reader {
    /// Of a local folder.
    Local(local::LocalReader),
    /// Of an object store.
    Remote(remote::ObjectReader),
}

impl Backend {
    /// Opens the backend of the bucket `id` of a project. Errors: it is wrong, or cannot be used.
    pub fn open(spec: &BucketBackend, project: &str, id: &str, config: &Config, tasks: &Tasks) -> Result<Self, Error> {
        match spec {
            BucketBackend::Local { path: None } => {
                Local::open(&config.data.join("objects").join(project).join(id)).map(Backend::Local)
            }
            // An absolute path stands for itself.
            BucketBackend::Local { path: Some(path) } => Local::open(&config.data.join(path)).map(Backend::Local),
            BucketBackend::Memory {}
            | BucketBackend::S3 { .. }
            | BucketBackend::Gcs { .. }
            | BucketBackend::Azure { .. } => Remote::open(spec, tasks.clone()).map(Backend::Remote),
        }
    }

    /// Begins to take in a file, whose path need not be known yet.
    pub async fn begin(&self, path: Option<&FilePath>, content_type: &str, meta: &str) -> Result<Upload, Error> {
        match self {
            Backend::Local(local) => local.begin().await.map(Upload::Local),
            Backend::Remote(remote) => Ok(Upload::Remote(remote.begin(path, content_type, meta))),
        }
    }

    /// Opens a file, and what is known of it.
    pub async fn read(&self, path: &FilePath) -> Result<(File, Reader), Error> {
        match self {
            Backend::Local(local) => local.read(path).await.map(|(file, reader)| (file, Reader::Local(reader))),
            Backend::Remote(remote) => remote.read(path).await.map(|(file, reader)| (file, Reader::Remote(reader))),
        }
    }

    /// What is known of a file or a folder.
    pub async fn info(&self, path: &FilePath) -> Result<Entry, Error> {
        match self {
            Backend::Local(local) => local.info(path).await,
            Backend::Remote(remote) => remote.info(path).await,
        }
    }

    /// A page of a folder.
    pub async fn list(&self, folder: &FilePath, request: PageRequest) -> Result<Page, Error> {
        match self {
            Backend::Local(local) => local.list(folder, request).await,
            Backend::Remote(remote) => remote.list(folder, request).await,
        }
    }

    /// Makes a folder, and those above it unless they have to be there already.
    pub async fn make_folder(&self, path: &FilePath, needs_parent: bool) -> Result<(), Error> {
        match self {
            Backend::Local(local) => local.make_folder(path, needs_parent).await,
            Backend::Remote(remote) => remote.make_folder(path).await,
        }
    }

    /// Deletes a file.
    pub async fn delete_file(&self, path: &FilePath, precondition: Option<&Precondition>) -> Result<(), Error> {
        match self {
            Backend::Local(local) => local.delete_file(path, precondition.cloned()).await,
            Backend::Remote(remote) => remote.delete_file(path, precondition).await,
        }
    }

    /// Deletes a folder with all that is in it; whether there was one.
    pub async fn delete_folder(&self, path: &FilePath) -> Result<bool, Error> {
        match self {
            Backend::Local(local) => local.delete_folder(path).await,
            Backend::Remote(remote) => remote.delete_folder(path).await,
        }
    }

    /// Moves a file inside the backend; `None` where it can only be copied and deleted.
    pub async fn rename(&self, from: &FilePath, to: &Publication) -> Option<Result<Published, Error>> {
        match self {
            Backend::Local(local) => Some(local.rename(from, to).await),
            Backend::Remote(_) => None,
        }
    }

    /// Deletes what uploads have left that are broken off since longer than `age_ms`.
    pub async fn sweep(&self, age_ms: u64) -> Result<usize, Error> {
        match self {
            Backend::Local(local) => local.sweep(age_ms).await,
            Backend::Remote(remote) => remote.sweep(age_ms).await,
        }
    }
}

impl Upload {
    /// Takes in more bytes.
    pub async fn write(&mut self, data: Bytes) -> Result<(), Error> {
        match self {
            Upload::Local(upload) => upload.write(data).await,
            Upload::Remote(upload) => upload.write(data).await,
        }
    }

    /// Publishes the file: after that it is there, whatever happens.
    pub async fn publish(self, publication: Publication) -> Result<Published, Error> {
        match self {
            Upload::Local(upload) => upload.publish(publication).await,
            Upload::Remote(upload) => upload.publish(publication).await,
        }
    }
}

impl Reader {
    /// The bytes of `parts`, one after the other.
    pub fn parts(self, parts: Parts) -> Pieces {
        match self {
            Reader::Local(reader) => reader.parts(parts),
            Reader::Remote(reader) => reader.parts(parts),
        }
    }
}
