//! Files that are taken in: beside, flushed, and published by one rename.

use std::{os::fd::OwnedFd, sync::Arc};

use bytes::{Bytes, BytesMut};
use query::file::FilePath;
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, fstat, fsync, linkat, openat, renameat, statat, unlinkat},
    io::Errno,
};

use super::{Missing, Opened, Root, attributes::Attributes, on_disk, write_all};
use crate::{
    Error,
    object::{Publication, Published, check, lock_index},
    read::PIECE_BYTES,
};

/// A file that is taken in.
pub struct LocalUpload {
    /// `None` while a thread writes, and after a failure.
    writing: Option<Box<Writing>>,
    waiting: BytesMut,
}

/// The file beside, which goes away with it unless it was published.
struct Writing {
    root: Arc<Root>,
    name: String,
    file: OwnedFd,
    hasher: blake3::Hasher,
}

impl Drop for Writing {
    fn drop(&mut self) {
        // Where it cannot be removed now, the sweep does it; after it was renamed there is none.
        let _ = unlinkat(&self.root.uploads, &self.name, AtFlags::empty());
    }
}

impl Writing {
    fn create(root: Arc<Root>) -> Result<Self, Error> {
        let name = crate::random_name();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&root.uploads, &name, flags, Mode::from_raw_mode(0o666))?;
        Ok(Self { root, name, file, hasher: blake3::Hasher::new() })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.hasher.update(bytes);
        write_all(&self.file, bytes)
    }

    fn publish(self, publication: Publication) -> Result<Published, Error> {
        let from = (&self.root.uploads, self.name.as_str());
        publish(&self.root, from, &self.file, self.hasher.finalize(), publication)
    }
}

/// Publishes the file that is open as `file` and lies in a folder of the bucket's own: what is there is replaced in one step.
pub(super) fn publish(
    root: &Root,
    (folder, name): (&OwnedFd, &str),
    file: &OwnedFd,
    hash: blake3::Hash,
    publication: Publication,
) -> Result<Published, Error> {
    let Publication { path, content_type, meta, precondition, needs_parent } = publication;
    let stat = fstat(file)?;
    let attributes = Attributes::new(hash, content_type, meta, &stat);
    attributes.write(file)?;
    fsync(file)?;
    let missing = if needs_parent { Missing::Refused } else { Missing::Made };
    let _shared = root.add();
    let parent = root.parent(&path, missing)?;
    let _lock = root.lock(&path);
    let current = current_etag(root, &path)?;
    check(precondition.as_ref(), current.as_deref())?;
    let must_be_absent = precondition.is_some_and(|precondition| precondition.absent);
    let place = path.name();
    let published = match must_be_absent {
        // Another process may have made it since.
        true => linkat(folder, name, &parent, place, AtFlags::empty()),
        false => renameat(folder, name, &parent, place),
    };
    match published {
        Err(Errno::EXIST) if must_be_absent => return Err(Error::Precondition),
        Err(Errno::ISDIR | Errno::EXIST | Errno::NOTEMPTY) => return Err(is_folder(&path)),
        // The folder was deleted while the file was taken in.
        Err(Errno::NOENT) => return Err(Error::Conflict("the folder of the file was deleted".to_owned())),
        published => published?,
    }
    fsync(&parent)?;
    let opened = Opened { file: file.try_clone()?, stat, attributes: Some(attributes) };
    Ok(Published { file: opened.file(path.as_str()), created: current.is_none() })
}

/// The entity tag of the file at `path`; `None` where there is none. Errors: a folder is there.
fn current_etag(root: &Root, path: &FilePath) -> Result<Option<String>, Error> {
    match root.open_file(path) {
        Ok(opened) => Ok(Some(opened.file(path.as_str()).etag)),
        Err(Error::NotFound) => Ok(None),
        Err(Error::IsFolder(_)) => Err(is_folder(path)),
        Err(error) => Err(error),
    }
}

fn is_folder(path: &FilePath) -> Error {
    Error::Conflict(format!("{path} is a folder"))
}

impl LocalUpload {
    /// Begins with an empty file beside.
    pub(super) async fn begin(root: Arc<Root>) -> Result<Self, Error> {
        let writing = on_disk(move || Writing::create(root).map(Box::new)).await?;
        Ok(Self { writing: Some(writing), waiting: BytesMut::new() })
    }

    /// Takes in more bytes. They are on their way to the disk when it returns, but for the last few.
    pub async fn write(&mut self, data: Bytes) -> Result<(), Error> {
        if self.waiting.is_empty() && data.len() >= PIECE_BYTES {
            return self.write_out(data).await;
        }
        self.waiting.extend_from_slice(&data);
        if self.waiting.len() < PIECE_BYTES {
            return Ok(());
        }
        let waiting = self.waiting.split().freeze();
        self.write_out(waiting).await
    }

    async fn write_out(&mut self, bytes: Bytes) -> Result<(), Error> {
        let mut writing = self.take()?;
        let written = on_disk(move || writing.write(&bytes).map(|()| writing)).await?;
        self.writing = Some(written);
        Ok(())
    }

    /// Publishes the file.
    pub async fn publish(mut self, publication: Publication) -> Result<Published, Error> {
        let mut writing = self.take()?;
        let rest = self.waiting.split().freeze();
        on_disk(move || {
            writing.write(&rest)?;
            writing.publish(publication)
        })
        .await
    }

    fn take(&mut self) -> Result<Box<Writing>, Error> {
        self.writing.take().ok_or_else(|| Error::Backend("an upload went on after it had failed".to_owned()))
    }
}

/// Tries whether the file system keeps what buckets need.
pub fn probe(root: &Root) -> Result<(), Error> {
    let name = crate::random_name();
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = openat(&root.uploads, &name, flags, Mode::from_raw_mode(0o600))?;
    let written = Attributes::default().write(&file);
    unlinkat(&root.uploads, &name, AtFlags::empty())?;
    written
}

/// Moves the file at `from` as `to` says; its type and metadata stay as they are.
pub fn rename(root: &Root, from: &FilePath, to: &Publication) -> Result<Published, Error> {
    let _shared = root.add();
    let parent = root.parent(from, Missing::Error)?;
    let target = root.parent(&to.path, Missing::Made)?;
    let (first, second) = (lock_index(from).min(lock_index(&to.path)), lock_index(from).max(lock_index(&to.path)));
    let lock = |index: usize| root.locks[index].lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let _first = lock(first);
    let _second = (first != second).then(|| lock(second));
    let stat = statat(&parent, from.name(), AtFlags::SYMLINK_NOFOLLOW)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {}
        FileType::Directory => return Err(Error::IsFolder(from.to_string())),
        _ => return Err(Error::NotFound),
    }
    let current = current_etag(root, &to.path)?;
    check(to.precondition.as_ref(), current.as_deref())?;
    match renameat(&parent, from.name(), &target, to.path.name()) {
        Err(Errno::ISDIR | Errno::EXIST | Errno::NOTEMPTY) => return Err(is_folder(&to.path)),
        renamed => renamed?,
    }
    fsync(&target)?;
    fsync(&parent)?;
    let file = root.open_file(&to.path)?.file(to.path.as_str());
    Ok(Published { file, created: current.is_none() })
}
