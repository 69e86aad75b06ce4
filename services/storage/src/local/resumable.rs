//! Resumable uploads into a folder: a file that grows beside its record, and is renamed once it is complete.

use std::{
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rustix::{
    fs::{
        AtFlags, FlockOperation, Mode, OFlags, SeekFrom, XattrFlags, fgetxattr, flock, fremovexattr, fsetxattr, fstat,
        fsync, ftruncate, openat, seek, statat, unlinkat,
    },
    io::Errno,
};

use super::{Local, LocalReader, Root, attributes, on_disk, parts, tree, upload, write_all};
use crate::{
    Error,
    content_type::SNIFFED_BYTES,
    object::{Publication, Published},
    read::{PIECE_BYTES, Parts, Pieces},
    record::{Found, LIFETIME_MS, OF_PATH_MAX, RECORD_BYTES, Record, of_path},
};

/// Attribute of an upload whose last bytes are not verified yet: how many before them count.
const VERIFIED: &str = "user.perigee.verified";
/// What the name of a record ends with.
const RECORD: &str = ".json";
/// How often a stream notes that its upload goes on.
const TOUCH_INTERVAL: Duration = Duration::from_secs(60);

/// An upload that goes on. No other process has it.
pub struct LocalAppend {
    /// `None` while a thread writes, and after a failure.
    growing: Option<Box<Growing>>,
    offset: u64,
}

struct Growing {
    root: Arc<Root>,
    name: String,
    file: OwnedFd,
    /// Bytes at the beginning of this stream.
    before: u64,
    /// When it was noted last that the upload goes on.
    touched: Instant,
    /// Of all that has come, where it came in this stream.
    hasher: Option<blake3::Hasher>,
}

impl Local {
    /// Begins an upload.
    pub async fn begin_upload(&self, name: &str, record: &Record) -> Result<(), Error> {
        let (name, record) = (name.to_owned(), record.written()?);
        self.blocking(move |root| {
            if unfinished(root, of_path(&name))? >= OF_PATH_MAX {
                return Err(Error::TooManyUploads);
            }
            openat(&root.resumable, &name, new_file(), Mode::from_raw_mode(0o666))?;
            write_record(root, &name, &record)
        })
        .await
    }

    /// Notes an upload whose file was published.
    pub async fn note_published(&self, name: &str, record: &Record) -> Result<(), Error> {
        let (name, record) = (name.to_owned(), record.written()?);
        self.blocking(move |root| {
            // One that a loss of power has left.
            match unlinkat(&root.resumable, record_name(&name), AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
            write_record(root, &name, &record)
        })
        .await
    }

    /// The bytes of an upload that count, and how many that are.
    pub async fn read_upload(&self, name: &str) -> Result<(u64, Pieces), Error> {
        let name = name.to_owned();
        self.blocking(move |root| {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = match openat(&root.resumable, &name, flags, Mode::empty()) {
                Err(Errno::NOENT) => return Err(Error::NoUpload),
                file => file?,
            };
            let size = verified(&file)?;
            let reader = LocalReader { file: Arc::new(file), size, hash: None };
            Ok((size, reader.parts(Parts::Whole)))
        })
        .await
    }

    /// What is known of an upload.
    pub async fn find_upload(&self, name: &str) -> Result<Found, Error> {
        let name = name.to_owned();
        self.blocking(move |root| found(root, &name)).await
    }

    /// The names of the uploads that `wanted` wants.
    pub async fn upload_names(&self, wanted: impl Fn(&str) -> bool + Send + 'static) -> Result<Vec<String>, Error> {
        self.blocking(move |root| {
            let names = tree::names(&root.resumable)?;
            let of_record = |name: String| Some(name.strip_suffix(RECORD).filter(|name| wanted(name))?.to_owned());
            names.filter_map(|name| name.map(of_record).transpose()).collect()
        })
        .await
    }

    /// The upload, for one stream alone. Bytes that could not be verified are left out.
    pub async fn resume_upload(&self, name: &str, is_checked: bool) -> Result<LocalAppend, Error> {
        let (root, name) = (self.root.clone(), name.to_owned());
        on_disk(move || {
            let growing = Growing::open(root, name, is_checked)?;
            Ok(LocalAppend { offset: growing.before, growing: Some(Box::new(growing)) })
        })
        .await
    }

    /// Removes an upload.
    pub async fn drop_upload(&self, name: &str) -> Result<(), Error> {
        let name = name.to_owned();
        self.blocking(move |root| forget(root, &name)).await
    }
}

/// How a new file is opened.
fn new_file() -> OFlags {
    OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

/// Writes the record of an upload, which is there after a loss of power.
fn write_record(root: &Root, name: &str, record: &[u8]) -> Result<(), Error> {
    let file = openat(&root.resumable, record_name(name), new_file(), Mode::from_raw_mode(0o666))?;
    write_all(&file, record)?;
    fsync(&file)?;
    Ok(fsync(&root.resumable)?)
}

/// The name of the record of an upload.
pub(super) fn record_name(name: &str) -> String {
    format!("{name}{RECORD}")
}

/// Removes an upload: after its parts its record, since a record without bytes is that of a file that was published.
fn forget(root: &Root, name: &str) -> Result<(), Error> {
    tree::remove(&root.parts, name)?;
    for part in [record_name(name).as_str(), name] {
        match unlinkat(&root.resumable, part, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Removes uploads that are void, as their records say, and what a record was lost of; how many that were.
pub fn sweep(root: &Root) -> Result<usize, Error> {
    let mut swept = 0;
    for name in tree::names(&root.resumable)? {
        let name = name?;
        let name = name.strip_suffix(RECORD).unwrap_or(&name);
        let age = match tree::age_in_ms(&root.resumable, &record_name(name))? {
            None => tree::age_in_ms(&root.resumable, name)?,
            of_record => of_record,
        };
        if age.is_some_and(|age| age >= LIFETIME_MS) {
            forget(root, name)?;
            swept += 1;
        }
    }
    Ok(swept)
}

/// Uploads to a path that are not published, as far as they count.
fn unfinished(root: &Root, of_path: &str) -> Result<usize, Error> {
    let mut found = 0;
    for name in tree::names(&root.resumable)? {
        let name = name?;
        found += usize::from(name.starts_with(of_path) && !name.ends_with(RECORD));
        if found >= OF_PATH_MAX {
            break;
        }
    }
    Ok(found)
}

fn found(root: &Root, name: &str) -> Result<Found, Error> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match openat(&root.resumable, record_name(name), flags, Mode::empty()) {
        Err(Errno::NOENT | Errno::LOOP) => return Err(Error::NoUpload),
        file => file?,
    };
    let mut bytes = vec![0; RECORD_BYTES];
    let length = read_at(&file, &mut bytes, 0)?;
    let record = Record::read(&bytes[..length])?;
    let changed_ms = attributes::modified_ns(&fstat(&file)?) / 1_000_000;
    let (offset, is_published) = match openat(&root.resumable, name, flags, Mode::empty()) {
        Ok(file) => (verified(&file)?, false),
        // It was renamed.
        Err(Errno::NOENT) => (record.size, true),
        Err(error) => return Err(error.into()),
    };
    Found { record, offset, is_published, changed_ms }.in_time()
}

/// Bytes of an upload that count.
fn verified(file: &OwnedFd) -> Result<u64, Error> {
    let size = attributes::size(&fstat(file)?);
    let mut bytes = [0; 8];
    match fgetxattr(file, VERIFIED, &mut bytes[..]) {
        Ok(8) => Ok(u64::from_le_bytes(bytes).min(size)),
        Ok(_) | Err(Errno::NODATA) => Ok(size),
        Err(error) => Err(error.into()),
    }
}

/// Fills `bytes` as far as the file goes; how many there are.
fn read_at(file: &OwnedFd, bytes: &mut [u8], offset: u64) -> Result<usize, Error> {
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::io::pread(file, &mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(filled)
}

impl Growing {
    fn open(root: Arc<Root>, name: String, is_checked: bool) -> Result<Self, Error> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match openat(&root.resumable, &name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Err(Error::NoUpload),
            file => file?,
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Err(Error::Busy),
            locked => locked?,
        }
        // It may have been published, or removed, between the two.
        let is_there = statat(&root.resumable, &name, AtFlags::SYMLINK_NOFOLLOW);
        if !is_there.is_ok_and(|stat| fstat(&file).is_ok_and(|own| own.st_ino == stat.st_ino)) {
            return Err(Error::NoUpload);
        }
        let before = verified(&file)?;
        cut(&file, before)?;
        if is_checked {
            fsetxattr(&file, VERIFIED, &before.to_le_bytes(), XattrFlags::empty())?;
        }
        seek(&file, SeekFrom::Start(before))?;
        let hasher = (before == 0).then(blake3::Hasher::new);
        let mut growing = Self { root, name, file, before, touched: Instant::now(), hasher };
        growing.touch();
        Ok(growing)
    }

    /// Notes that the upload goes on.
    fn touch(&mut self) {
        self.touched = Instant::now();
        parts::touch(&self.root, &record_name(&self.name));
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        if self.touched.elapsed() >= TOUCH_INTERVAL {
            self.touch();
        }
        write_all(&self.file, bytes)
    }

    fn keep(&mut self) -> Result<(), Error> {
        forget_verified(&self.file)?;
        fsync(&self.file)?;
        self.touch();
        Ok(())
    }

    /// BLAKE3 of all of it.
    fn hash(&mut self) -> Result<blake3::Hash, Error> {
        if let Some(hasher) = &self.hasher {
            return Ok(hasher.finalize());
        }
        let (mut hasher, mut piece, mut offset) = (blake3::Hasher::new(), vec![0; PIECE_BYTES], 0);
        loop {
            match read_at(&self.file, &mut piece, offset)? {
                0 => return Ok(hasher.finalize()),
                read => {
                    hasher.update(&piece[..read]);
                    offset += read as u64;
                }
            }
        }
    }
}

/// Leaves out what comes after the first `size` bytes.
fn cut(file: &OwnedFd, size: u64) -> Result<(), Error> {
    if attributes::size(&fstat(file)?) != size {
        ftruncate(file, size)?;
    }
    forget_verified(file)
}

fn forget_verified(file: &OwnedFd) -> Result<(), Error> {
    match fremovexattr(file, VERIFIED) {
        Ok(()) | Err(Errno::NODATA) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

impl LocalAppend {
    /// Bytes that have come.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Takes in more bytes, which are written when it returns.
    pub async fn write(&mut self, data: Bytes) -> Result<(), Error> {
        let mut growing = self.take()?;
        let length = data.len() as u64;
        self.growing = Some(on_disk(move || growing.write(&data).map(|()| growing)).await?);
        self.offset += length;
        Ok(())
    }

    /// What has come counts, and is on the disk.
    pub async fn keep(mut self) -> Result<Self, Error> {
        let mut growing = self.take()?;
        self.growing = Some(on_disk(move || growing.keep().map(|()| growing)).await?);
        Ok(self)
    }

    /// What has come in this stream does not count.
    pub async fn discard(mut self) -> Result<(), Error> {
        let growing = self.take()?;
        on_disk(move || cut(&growing.file, growing.before)).await
    }

    /// Its first bytes, which tell its type.
    pub async fn beginning(mut self) -> Result<(Self, Vec<u8>), Error> {
        let growing = self.take()?;
        let (growing, beginning) = on_disk(move || {
            let mut beginning = vec![0; SNIFFED_BYTES];
            let length = read_at(&growing.file, &mut beginning, 0)?;
            beginning.truncate(length);
            Ok((growing, beginning))
        })
        .await?;
        self.growing = Some(growing);
        Ok((self, beginning))
    }

    /// All of it, with its hash.
    pub async fn joined(mut self) -> Result<LocalJoined, Error> {
        let mut growing = self.take()?;
        on_disk(move || growing.hash().map(|hash| LocalJoined { growing, hash })).await
    }

    fn take(&mut self) -> Result<Box<Growing>, Error> {
        self.growing.take().ok_or_else(|| Error::Backend("an upload went on after it had failed".to_owned()))
    }
}

/// An upload that is complete.
pub struct LocalJoined {
    growing: Box<Growing>,
    hash: blake3::Hash,
}

impl LocalJoined {
    /// Publishes the file. Where that fails, the upload stays as it is.
    pub async fn publish(self, publication: Publication) -> Result<Published, Error> {
        let Self { growing, hash } = self;
        on_disk(move || {
            let from = (&growing.root.resumable, growing.name.as_str());
            upload::publish(&growing.root, from, &growing.file, hash, publication)
        })
        .await
    }
}
