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
    record::{Found, Record, StoredPart},
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
    Remote(Box<remote::ObjectUpload>),
}

/// A resumable upload that goes on. Dropped, it keeps what has come, unless that has to be verified.
pub enum Appending {
    /// Into a local folder.
    Local(local::LocalAppend),
    /// Into an object store.
    Remote(Box<remote::ObjectAppend>),
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
            BucketBackend::Memory { .. }
            | BucketBackend::S3 { .. }
            | BucketBackend::Gcs { .. }
            | BucketBackend::Azure { .. } => Remote::open(spec, tasks.clone()).map(Backend::Remote),
        }
    }

    /// Begins to take in a file, whose path need not be known yet.
    pub async fn begin(&self, path: Option<&FilePath>, content_type: &str, meta: &str) -> Result<Upload, Error> {
        match self {
            Backend::Local(local) => local.begin().await.map(Upload::Local),
            Backend::Remote(remote) => Ok(Upload::Remote(Box::new(remote.begin(path, content_type, meta)))),
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

    /// Bytes of the file at `path`; `None` where there is none, or a folder.
    pub async fn size_of(&self, path: &FilePath) -> Result<Option<u64>, Error> {
        match self {
            Backend::Local(local) => match local.info(path).await? {
                Entry::File(file) => Ok(Some(file.size)),
                Entry::Folder { .. } => Ok(None),
            },
            Backend::Remote(remote) => remote.size_of(path).await,
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
    ///
    /// Errors: `Conflict` where the digest of the entries below it is not `judged`, unless that is empty.
    pub async fn delete_folder(&self, path: &FilePath, judged: &[u8]) -> Result<bool, Error> {
        match self {
            Backend::Local(local) => local.delete_folder(path, judged.to_vec()).await,
            Backend::Remote(remote) => Box::pin(remote.delete_folder(path, judged)).await,
        }
    }

    /// Whether it moves files.
    pub fn renames(&self) -> bool {
        match self {
            Backend::Local(_) => true,
            Backend::Remote(_) => false,
        }
    }

    /// Moves a file inside the backend; `None` where it can only be copied and deleted.
    pub async fn rename(&self, from: &FilePath, to: &Publication) -> Option<Result<Published, Error>> {
        match self {
            Backend::Local(local) => Some(local.rename(from, to).await),
            Backend::Remote(_) => None,
        }
    }

    /// Begins a resumable upload.
    pub async fn begin_upload(&self, name: &str, record: &Record) -> Result<(), Error> {
        match self {
            Backend::Local(local) => local.begin_upload(name, record).await,
            Backend::Remote(remote) => remote.begin_upload(name, record).await,
        }
    }

    /// What is known of a resumable upload.
    pub async fn find_upload(&self, name: &str) -> Result<Found, Error> {
        match self {
            Backend::Local(local) => local.find_upload(name).await,
            Backend::Remote(remote) => remote.find_upload(name).await,
        }
    }

    /// The names of the uploads that `wanted` wants.
    pub async fn upload_names(&self, wanted: impl Fn(&str) -> bool + Send + 'static) -> Result<Vec<String>, Error> {
        match self {
            Backend::Local(local) => local.upload_names(wanted).await,
            Backend::Remote(remote) => remote.upload_names(wanted).await,
        }
    }

    /// The path of a part of the upload `name`.
    pub fn part_path(&self, name: &str, number: u32) -> FilePath {
        match self {
            Backend::Local(_) => local::part_path(name, number),
            Backend::Remote(_) => remote::part_path(name, number),
        }
    }

    /// The parts of the upload `name` that have come, by their numbers.
    pub async fn parts(&self, name: &str) -> Result<Vec<StoredPart>, Error> {
        match self {
            Backend::Local(local) => local.parts(name).await,
            Backend::Remote(remote) => remote.parts(name).await,
        }
    }

    /// Notes that an upload in parts goes on.
    pub async fn touch_upload(&self, name: &str) -> Result<(), Error> {
        match self {
            Backend::Local(local) => local.touch_upload(name).await,
            // The times of its parts say so.
            Backend::Remote(_) => Ok(()),
        }
    }

    /// Leaves nothing of an upload in parts but that its file was published.
    pub async fn close_upload(&self, name: &str) -> Result<(), Error> {
        match self {
            Backend::Local(local) => local.close_upload(name).await,
            Backend::Remote(remote) => remote.close_upload(name).await,
        }
    }

    /// A resumable upload, for one stream alone, whose bytes count as they come, or once they are verified.
    ///
    /// Errors: `Busy` while another stream has it.
    pub async fn resume_upload(&self, name: &str, is_checked: bool) -> Result<Appending, Error> {
        match self {
            Backend::Local(local) => local.resume_upload(name, is_checked).await.map(Appending::Local),
            Backend::Remote(remote) => {
                remote.resume_upload(name, is_checked).await.map(Box::new).map(Appending::Remote)
            }
        }
    }

    /// The bytes of a resumable upload, and how many that are.
    pub async fn read_upload(&self, name: &str) -> Result<(u64, Pieces), Error> {
        match self {
            Backend::Local(local) => local.read_upload(name).await,
            Backend::Remote(remote) => remote.read_upload(name).await,
        }
    }

    /// Notes an upload whose file was published.
    pub async fn note_published(&self, name: &str, record: &Record) -> Result<(), Error> {
        match self {
            Backend::Local(local) => local.note_published(name, record).await,
            Backend::Remote(remote) => remote.note_published(name, record).await,
        }
    }

    /// Removes a resumable upload.
    pub async fn drop_upload(&self, name: &str) -> Result<(), Error> {
        match self {
            Backend::Local(local) => local.drop_upload(name).await,
            Backend::Remote(remote) => remote.drop_upload(name).await,
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

    /// Waits until what it holds is in the way of other uploads.
    pub async fn is_in_the_way(&mut self) {
        match self {
            Upload::Local(_) => std::future::pending().await,
            Upload::Remote(upload) => upload.is_in_the_way().await,
        }
    }

    /// Publishes the file: after that it is there, whatever happens.
    pub async fn publish(self, publication: Publication) -> Result<Published, Error> {
        match self {
            Upload::Local(upload) => upload.publish(publication).await,
            Upload::Remote(upload) => Box::pin(upload.publish(publication)).await,
        }
    }
}

impl Appending {
    /// Bytes that have come.
    pub fn offset(&self) -> u64 {
        match self {
            Appending::Local(append) => append.offset(),
            Appending::Remote(append) => append.offset(),
        }
    }

    /// Takes in more bytes.
    pub async fn write(&mut self, data: Bytes) -> Result<(), Error> {
        match self {
            Appending::Local(append) => append.write(data).await,
            Appending::Remote(append) => append.write(data).await,
        }
    }

    /// Waits until what it holds is in the way of other uploads.
    pub async fn is_in_the_way(&mut self) {
        match self {
            Appending::Local(_) => std::future::pending().await,
            Appending::Remote(append) => append.is_in_the_way().await,
        }
    }

    /// What has come counts, and is there after a failure of the node.
    pub async fn keep(self) -> Result<Self, Error> {
        match self {
            Appending::Local(append) => append.keep().await.map(Appending::Local),
            Appending::Remote(append) => append.keep().await.map(Box::new).map(Appending::Remote),
        }
    }

    /// What has come in this stream does not count.
    pub async fn discard(self) -> Result<(), Error> {
        match self {
            Appending::Local(append) => append.discard().await,
            Appending::Remote(append) => append.discard().await,
        }
    }

    /// Its first bytes, which tell its type.
    pub async fn beginning(self) -> Result<(Self, Vec<u8>), Error> {
        Ok(match self {
            Appending::Local(append) => {
                let (append, beginning) = append.beginning().await?;
                (Appending::Local(append), beginning)
            }
            Appending::Remote(append) => {
                let (append, beginning) = append.beginning().await?;
                (Appending::Remote(Box::new(append)), beginning)
            }
        })
    }

    /// All of it as one, which can be published. Dropped, the upload stays as it is.
    pub async fn joined(self, publication: &Publication) -> Result<Joined, Error> {
        match self {
            Appending::Local(append) => append.joined().await.map(Joined::Local),
            Appending::Remote(append) => Box::pin(append.joined(publication)).await.map(Box::new).map(Joined::Remote),
        }
    }
}

/// A resumable upload that is complete, and can be published.
pub enum Joined {
    /// In a local folder.
    Local(local::LocalJoined),
    /// In an object store.
    Remote(Box<remote::ObjectJoined>),
}

impl Joined {
    /// Publishes the file, as it was said before. Where that fails, the upload stays as it is.
    pub async fn publish(self, publication: Publication) -> Result<Published, Error> {
        match self {
            Joined::Local(joined) => joined.publish(publication).await,
            Joined::Remote(joined) => Box::pin(joined.publish(publication)).await,
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
