//! Buckets in a folder of this machine.
//!
//! Every path is walked from the open folder of the bucket, segment by segment, and no symbolic link is followed: what is
//! opened lies in the bucket whatever others put there. A file is written beside, flushed to the disk and renamed.

mod attributes;
mod listing;
mod parts;
mod resumable;
mod tree;
mod upload;

use std::{
    io,
    os::fd::OwnedFd,
    path::Path,
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard},
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use proto::storage::Precondition;
use query::file::FilePath;
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, fsync, openat, renameat, statat, unlinkat},
    io::Errno,
};

use self::attributes::Attributes;
pub use self::{
    parts::path as part_path,
    resumable::{LocalAppend, LocalJoined},
    upload::LocalUpload,
};
use crate::{
    Error, content_type,
    list::{Judging, Page, PageRequest},
    object::{Entry, File, LOCKS, Publication, Published, check, lock_index},
    read::{PIECE_BYTES, Parts, Pieces},
};

/// Folder of the bucket's own files, in its root.
const OWN: &str = ".perigee";
/// Files that are being taken in, below [`OWN`].
const UPLOADS: &str = "uploads";
/// Resumable uploads and their records, below [`OWN`].
const RESUMABLE: &str = "resumable";
/// Parts of resumable uploads, below [`OWN`], in a folder for each upload.
const PARTS: &str = "parts";
/// Folders that are being deleted, below [`OWN`].
const DELETED: &str = "deleted";

/// A bucket in a folder. Clones are the same.
#[derive(Clone)]
pub struct Local {
    root: Arc<Root>,
}

/// The open folder of a bucket.
struct Root {
    dir: OwnedFd,
    uploads: OwnedFd,
    resumable: OwnedFd,
    parts: OwnedFd,
    deleted: OwnedFd,
    locks: [Mutex<()>; LOCKS],
    /// Held by who adds entries, and by who deletes a folder while nothing may be added.
    changes: RwLock<()>,
}

impl Local {
    /// Opens the folder, and makes it where it is not there.
    ///
    /// Errors: it cannot be made or opened, or its file system keeps no extended attributes.
    pub fn open(path: &Path) -> Result<Self, Error> {
        std::fs::create_dir_all(path)?;
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(path, flags, Mode::empty())?;
        let own = tree::make(&dir, OWN)?;
        let (uploads, deleted) = (tree::make(&own, UPLOADS)?, tree::make(&own, DELETED)?);
        let (resumable, parts) = (tree::make(&own, RESUMABLE)?, tree::make(&own, PARTS)?);
        let root = Root {
            dir,
            uploads,
            resumable,
            parts,
            deleted,
            locks: [const { Mutex::new(()) }; LOCKS],
            changes: RwLock::new(()),
        };
        upload::probe(&root)?;
        Ok(Self { root: Arc::new(root) })
    }

    /// Runs `work` on a thread that may wait for the disk.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Root) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let root = self.root.clone();
        on_disk(move || work(&root)).await
    }

    /// Begins to take in a file.
    pub async fn begin(&self) -> Result<LocalUpload, Error> {
        LocalUpload::begin(self.root.clone()).await
    }

    /// Opens a file, and what is known of it.
    pub async fn read(&self, path: &FilePath) -> Result<(File, LocalReader), Error> {
        let path = path.clone();
        self.blocking(move |root| {
            let opened = root.open_file(&path)?;
            let own = opened.attributes.as_ref().filter(|attributes| attributes.are_of(&opened.stat));
            let hash = own.and_then(Attributes::hash);
            let file = opened.file(path.as_str());
            let reader = LocalReader { file: Arc::new(opened.file), size: file.size, hash };
            Ok((file, reader))
        })
        .await
    }

    /// What is known of a file or a folder.
    pub async fn info(&self, path: &FilePath) -> Result<Entry, Error> {
        let path = path.clone();
        self.blocking(move |root| root.entry(&path)).await
    }

    /// A page of a folder.
    pub async fn list(&self, folder: &FilePath, request: PageRequest) -> Result<Page, Error> {
        let folder = folder.clone();
        self.blocking(move |root| listing::page(root, &folder, &request)).await
    }

    /// Makes a folder, and those above it unless they have to be there already.
    pub async fn make_folder(&self, path: &FilePath, needs_parent: bool) -> Result<(), Error> {
        let path = path.clone();
        self.blocking(move |root| {
            let _shared = root.add();
            if needs_parent {
                root.parent(&path, Missing::Refused)?;
            }
            root.folder(path.segments(), Missing::Made).map(drop)
        })
        .await
    }

    /// Deletes a file.
    pub async fn delete_file(&self, path: &FilePath, precondition: Option<Precondition>) -> Result<(), Error> {
        let path = path.clone();
        self.blocking(move |root| {
            let _lock = root.lock(&path);
            let current = root.open_file(&path)?;
            check(precondition.as_ref(), Some(&current.file(path.as_str()).etag))?;
            let parent = root.parent(&path, Missing::Error)?;
            unlinkat(&parent, path.name(), AtFlags::empty())?;
            Ok(fsync(&parent)?)
        })
        .await
    }

    /// Deletes a folder with all that is in it; whether there was one. It is out of sight in one step.
    pub async fn delete_folder(&self, path: &FilePath, judged: Vec<u8>) -> Result<bool, Error> {
        let path = path.clone();
        self.blocking(move |root| {
            let parent = match root.parent(&path, Missing::Error) {
                Err(Error::NotFound) => return Ok(false),
                parent => parent?,
            };
            match statat(&parent, path.name(), AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => return Ok(false),
                Err(error) => return Err(error.into()),
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::Directory => return Ok(false),
                Ok(_) => {}
            }
            let nothing_new = match judged.is_empty() {
                true => None,
                false => Some(root.changes.write().unwrap_or_else(PoisonError::into_inner)),
            };
            if nothing_new.is_some() {
                root.check_judged(&path, &judged)?;
            }
            let name = crate::random_name();
            match renameat(&parent, path.name(), &root.deleted, &name) {
                Err(Errno::NOENT) => return Ok(false),
                renamed => renamed?,
            }
            drop(nothing_new);
            fsync(&parent)?;
            tree::remove(&root.deleted, &name)?;
            Ok(true)
        })
        .await
    }

    /// Moves a file.
    pub async fn rename(&self, from: &FilePath, to: &Publication) -> Result<Published, Error> {
        let (from, to) = (from.clone(), to.clone());
        self.blocking(move |root| upload::rename(root, &from, &to)).await
    }

    /// Deletes what uploads and deletions have left that are broken off since longer than `age_ms`, and resumable uploads
    /// that are void.
    pub async fn sweep(&self, age_ms: u64) -> Result<usize, Error> {
        self.blocking(move |root| {
            let swept = tree::sweep(&root.uploads, age_ms)? + resumable::sweep(root)? + parts::sweep(root, age_ms)?;
            Ok(swept + tree::sweep(&root.deleted, age_ms)?)
        })
        .await
    }
}

/// Runs `work` on a thread that may wait for the disk. It is run to its end even where nobody waits for it.
async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Error::Backend(error.to_string())))
}

/// What happens with a folder that is not there.
#[derive(Clone, Copy, PartialEq)]
enum Missing {
    /// `NotFound`, and so where a file is in its place.
    Error,
    /// `NoParent`.
    Refused,
    /// It is made.
    Made,
}

/// An open file with what is known of it.
struct Opened {
    file: OwnedFd,
    stat: Stat,
    attributes: Option<Attributes>,
}

impl Opened {
    fn file(&self, path: &str) -> File {
        let (size, modified_ns) = (attributes::size(&self.stat), attributes::modified_ns(&self.stat));
        let attributes = self.attributes.as_ref();
        let hash = attributes.filter(|attributes| attributes.are_of(&self.stat)).map(|known| &known.hash);
        let name = path.rsplit('/').next().unwrap_or(path);
        let stored = attributes.map(|attributes| attributes.content_type.as_str());
        File {
            path: path.to_owned(),
            size,
            modified_ms: modified_ns / 1_000_000,
            etag: match hash {
                Some(hash) => hash.chars().take(attributes::ETAG_CHARS).collect(),
                // Another program wrote it.
                None => format!("{modified_ns:x}-{size:x}-{:x}", self.stat.st_ino),
            },
            content_type: content_type::of_stored(stored, name),
            meta: attributes.map(|attributes| attributes.meta.clone()).unwrap_or_default(),
        }
    }
}

impl Root {
    /// Waits until nobody else changes the path.
    fn lock(&self, path: &FilePath) -> std::sync::MutexGuard<'_, ()> {
        // The lock protects nothing in memory.
        self.locks[lock_index(path)].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets entries be added, until it is dropped.
    fn add(&self) -> RwLockReadGuard<'_, ()> {
        self.changes.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Compares what is below a folder with what was judged.
    fn check_judged(&self, folder: &FilePath, judged: &[u8]) -> Result<(), Error> {
        let (mut judging, mut next) = (Judging::default(), Some(PageRequest::everything()));
        while let Some(request) = next {
            next = judging.next(listing::page(self, folder, &request)?);
        }
        judging.check(judged)
    }

    /// The folder at `segments`, open.
    fn folder<'a>(&self, segments: impl Iterator<Item = &'a str>, missing: Missing) -> Result<OwnedFd, Error> {
        let mut folder = openat(&self.dir, c".", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        for segment in segments {
            folder = match (tree::open(&folder, segment), missing) {
                (Ok(next), _) => next,
                (Err(Errno::NOENT), Missing::Made) => tree::make(&folder, segment)?,
                (Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP), Missing::Error) => return Err(Error::NotFound),
                (Err(Errno::NOENT), Missing::Refused) => return Err(Error::NoParent),
                (Err(Errno::NOTDIR | Errno::LOOP), Missing::Made | Missing::Refused) => {
                    return Err(Error::Conflict(format!("{segment} is a file, not a folder")));
                }
                (Err(error), _) => return Err(error.into()),
            };
        }
        Ok(folder)
    }

    /// The folder that the path is in.
    fn parent(&self, path: &FilePath, missing: Missing) -> Result<OwnedFd, Error> {
        let above = path.segments().count().saturating_sub(1);
        self.folder(path.segments().take(above), missing)
    }

    /// Opens a file for reading.
    fn open_file(&self, path: &FilePath) -> Result<Opened, Error> {
        if path.is_root() {
            return Err(Error::IsFolder(path.to_string()));
        }
        let parent = self.parent(path, Missing::Error)?;
        match open_in(&parent, path.name())? {
            Some(opened) => Ok(opened),
            None => {
                let stat = statat(&parent, path.name(), AtFlags::SYMLINK_NOFOLLOW)?;
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory => Err(Error::IsFolder(path.to_string())),
                    _ => Err(Error::NotFound),
                }
            }
        }
    }

    fn entry(&self, path: &FilePath) -> Result<Entry, Error> {
        match self.open_file(path) {
            Ok(opened) => Ok(Entry::File(opened.file(path.as_str()))),
            Err(Error::IsFolder(_)) => {
                let folder = self.folder(path.segments(), Missing::Error)?;
                let modified_ms = attributes::modified_ns(&fstat(&folder)?) / 1_000_000;
                Ok(Entry::Folder { path: path.as_str().to_owned(), modified_ms })
            }
            Err(error) => Err(error),
        }
    }
}

/// The regular file `name` of a folder, open; `None` where it is none.
fn open_in(folder: &OwnedFd, name: &str) -> Result<Option<Opened>, Error> {
    // Without waiting: a pipe would not open before somebody writes to it.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(folder, name, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::LOOP | Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let stat = fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    let attributes = Attributes::of(&file);
    Ok(Some(Opened { attributes, file, stat }))
}

/// An open file that is read.
pub struct LocalReader {
    file: Arc<OwnedFd>,
    size: u64,
    /// Of all of it.
    hash: Option<blake3::Hash>,
}

/// A part of a file on its way.
struct Reading {
    file: Arc<OwnedFd>,
    left: std::vec::IntoIter<std::ops::Range<u64>>,
    part: std::ops::Range<u64>,
    /// What was read so far, of a whole file with a known hash.
    check: Option<(blake3::Hasher, blake3::Hash)>,
}

impl LocalReader {
    /// The bytes of `parts`, one after the other. A whole file is compared with its hash before its last piece is handed out.
    pub fn parts(self, parts: Parts) -> Pieces {
        let LocalReader { file, size, hash } = self;
        let (ranges, check) = match parts {
            Parts::Whole => {
                let whole = 0..size;
                (vec![whole], hash.map(|hash| (blake3::Hasher::new(), hash)))
            }
            Parts::Some(ranges) => (ranges, None),
            Parts::Unsatisfiable => (Vec::new(), None),
        };
        let reading = Reading { file, left: ranges.into_iter(), part: 0..0, check };
        stream::try_unfold(reading, |reading| async {
            on_disk(move || {
                let mut reading = reading;
                Ok(reading.next()?.map(|piece| (piece, reading)))
            })
            .await
        })
        .boxed()
    }
}

impl Reading {
    /// The next piece; `None` at the end.
    fn next(&mut self) -> Result<Option<Bytes>, Error> {
        while self.part.is_empty() {
            match self.left.next() {
                Some(part) => self.part = part,
                None => return Ok(None),
            }
        }
        let length = usize::try_from(self.part.end - self.part.start).unwrap_or(usize::MAX).min(PIECE_BYTES);
        let mut piece = vec![0; length];
        let mut filled = 0;
        while filled < length {
            match rustix::io::pread(&*self.file, &mut piece[filled..], self.part.start + filled as u64)? {
                0 => return Err(Error::Damaged("the file became shorter while it was read".to_owned())),
                read => filled += read,
            }
        }
        self.part.start += length as u64;
        if let Some((hasher, expected)) = &mut self.check {
            hasher.update(&piece);
            if self.part.is_empty() && hasher.finalize() != *expected {
                return Err(Error::Damaged("a file is not what was written: its hash differs".to_owned()));
            }
        }
        Ok(Some(piece.into()))
    }
}

/// As the standard library writes a file, for system calls that may write less.
fn write_all(file: &OwnedFd, mut bytes: &[u8]) -> Result<(), Error> {
    while !bytes.is_empty() {
        match rustix::io::write(file, bytes) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
