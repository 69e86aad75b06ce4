//! Resumable uploads into an object store: pieces beside a record, joined once all of them are there.
//!
//! A piece is named by where it begins. What counts are the pieces without a gap from the first on.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutPayload, path::Path};
use query::file::FilePath;

use super::{ObjectUpload, Remote, held::Held};
use crate::{
    Error,
    content_type::SNIFFED_BYTES,
    object::{Publication, Published},
    read::Pieces,
    record::{Found, LIFETIME_MS, OF_PATH_MAX, RECORD_BYTES, Record, StoredPart, of_path, part_name, part_number},
};

/// Prefix of the objects of uploads, each of which has a folder.
const RESUMABLE: &str = ".perigee/resumable";
/// Object of what an upload was begun with.
const RECORD: &str = "record";
/// Object of an upload whose file is there.
const PUBLISHED: &str = "published";
/// What the names of pieces begin with.
const PIECE: &str = "p";
/// Objects that are asked for at once.
const HEADS: usize = 16;
/// Bytes of a piece.
const PIECE_BYTES: usize = 8 << 20;

/// Names of the uploads that go on in this process. Clones are the same.
#[derive(Clone, Default)]
pub struct Busy(Arc<Mutex<HashSet<String>>>);

impl Busy {
    fn names(&self) -> MutexGuard<'_, HashSet<String>> {
        // No code panics while it holds this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, name: &str) -> Result<BusyUpload, Error> {
        match self.names().insert(name.to_owned()) {
            true => Ok(BusyUpload { busy: self.clone(), name: name.to_owned() }),
            false => Err(Error::Busy),
        }
    }
}

/// An upload that goes on in this process.
struct BusyUpload {
    busy: Busy,
    name: String,
}

impl Drop for BusyUpload {
    fn drop(&mut self) {
        self.busy.names().remove(&self.name);
    }
}

/// What the store has of an upload.
#[derive(Default)]
struct Stored {
    /// Where pieces begin, and their bytes, in order and without a gap.
    pieces: Vec<(u64, u64)>,
    /// Pieces after a gap.
    orphans: Vec<u64>,
    is_published: bool,
    changed_ms: i64,
}

impl Stored {
    fn offset(&self) -> u64 {
        self.pieces.last().map_or(0, |(start, size)| start + size)
    }
}

/// An upload that goes on.
pub struct ObjectAppend {
    remote: Remote,
    upload: Option<BusyUpload>,
    pieces: Vec<(u64, u64)>,
    /// Bytes that have come.
    offset: u64,
    /// Where the piece begins that is being filled.
    start: u64,
    waiting: Vec<Bytes>,
    waiting_bytes: usize,
    held_bytes: Held,
    /// The first piece of a stream that has to be verified as a whole: without it, none of the others counts.
    held: Option<(u64, Vec<Bytes>)>,
    is_checked: bool,
}

impl Remote {
    /// Begins an upload.
    pub async fn begin_upload(&self, name: &str, record: &Record) -> Result<(), Error> {
        if self.unfinished(of_path(name)).await? >= OF_PATH_MAX {
            return Err(Error::TooManyUploads);
        }
        let location = self.location(&key(name, RECORD))?;
        self.store.put(&location, record.written()?.into()).await?;
        Ok(())
    }

    /// Notes an upload whose file was published.
    pub async fn note_published(&self, name: &str, record: &Record) -> Result<(), Error> {
        // Whoever finds its record finds that.
        self.store.put(&self.location(&key(name, PUBLISHED))?, PutPayload::default()).await?;
        self.store.put(&self.location(&key(name, RECORD))?, record.written()?.into()).await?;
        Ok(())
    }

    /// The bytes of an upload that count, and how many that are.
    pub async fn read_upload(&self, name: &str) -> Result<(u64, Pieces), Error> {
        let stored = self.stored(name).await?;
        let (size, name) = (stored.offset(), name.to_owned());
        let remote = self.clone();
        let opened = stream::iter(stored.pieces).then(move |(start, size)| {
            let (remote, key) = (remote.clone(), piece_key(&name, start));
            async move {
                let found = match remote.store.get(&remote.location(&key)?).await {
                    Err(object_store::Error::NotFound { .. }) => return Err(Error::TakenOver),
                    found => found?,
                };
                // Another stream has replaced it.
                match found.meta.size == size {
                    true => Ok(found.into_stream().map_err(Error::from)),
                    false => Err(Error::TakenOver),
                }
            }
        });
        Ok((size, opened.try_flatten().boxed()))
    }

    /// Uploads to a path that are not published, as far as they count.
    async fn unfinished(&self, of_path: &str) -> Result<usize, Error> {
        let folder = self.location(RESUMABLE)?;
        let mut objects =
            self.store.list_with_offset(Some(&folder), &self.location(&format!("{RESUMABLE}/{of_path}"))?);
        let (mut begun, mut published) = (HashSet::new(), HashSet::new());
        while let Some(object) = objects.try_next().await? {
            let mut segments = object.location.as_ref().rsplit('/');
            let (Some(kind), Some(name)) = (segments.next(), segments.next()) else { continue };
            // They come in the order of names.
            if !name.starts_with(of_path) || begun.len() >= OF_PATH_MAX + published.len() {
                break;
            }
            match kind {
                RECORD => drop(begun.insert(name.to_owned())),
                PUBLISHED => drop(published.insert(name.to_owned())),
                _ => {}
            }
        }
        Ok(begun.difference(&published).count())
    }

    /// What is known of an upload.
    pub async fn find_upload(&self, name: &str) -> Result<Found, Error> {
        let location = self.location(&key(name, RECORD))?;
        let options = GetOptions { range: Some(GetRange::Bounded(0..RECORD_BYTES as u64)), ..GetOptions::default() };
        let bytes = match self.store.get_opts(&location, options).await {
            Err(object_store::Error::NotFound { .. }) => return Err(Error::NoUpload),
            found => found?.bytes().await?,
        };
        let (record, stored) = (Record::read(&bytes)?, self.stored(name).await?);
        let offset = if stored.is_published { record.size } else { stored.offset() };
        Found { record, offset, is_published: stored.is_published, changed_ms: stored.changed_ms }.in_time()
    }

    /// The names of the uploads that `wanted` wants. Their pieces are not listed.
    pub async fn upload_names(&self, wanted: impl Fn(&str) -> bool) -> Result<Vec<String>, Error> {
        let folders = self.store.list_with_delimiter(Some(&self.location(RESUMABLE)?)).await?.common_prefixes;
        let names = folders.iter().filter_map(Path::filename);
        Ok(names.filter(|name| wanted(name)).map(str::to_owned).collect())
    }

    async fn stored(&self, name: &str) -> Result<Stored, Error> {
        let folder = self.location(&format!("{RESUMABLE}/{name}"))?;
        let mut found: Vec<_> = self.store.list(Some(&folder)).try_collect().await?;
        found.sort_by(|one, other| one.location.cmp(&other.location));
        let mut stored = Stored::default();
        for object in found {
            stored.changed_ms = stored.changed_ms.max(object.last_modified.timestamp_millis());
            let name = object.location.filename().unwrap_or_default();
            stored.is_published |= name == PUBLISHED;
            let Some(start) = name.strip_prefix(PIECE).and_then(|start| start.parse::<u64>().ok()) else { continue };
            match start == stored.offset() && object.size > 0 {
                true => stored.pieces.push((start, object.size)),
                false => stored.orphans.push(start),
            }
        }
        Ok(stored)
    }

    /// The upload, for one stream alone. Bytes that could not be verified are left out.
    pub async fn resume_upload(&self, name: &str, is_checked: bool) -> Result<ObjectAppend, Error> {
        let upload = self.busy.enter(name)?;
        let Stored { mut pieces, orphans, is_published, .. } = self.stored(name).await?;
        if is_published {
            return Err(Error::NoUpload);
        }
        for orphan in orphans {
            self.delete_object(&piece_key(name, orphan)).await?;
        }
        let offset = pieces.last().map_or(0, |(start, size)| start + size);
        let (mut start, mut waiting) = (offset, Vec::new());
        // A piece that is not full is replaced by one with what comes now: uploads in small steps have few pieces.
        if let Some((last, _)) = pieces.pop_if(|(_, size)| *size < PIECE_BYTES as u64) {
            start = last;
            waiting.push(self.store.get(&self.location(&piece_key(name, last))?).await?.bytes().await?);
        }
        let waiting_bytes = waiting.iter().map(Bytes::len).sum();
        let mut held_bytes = Held::default();
        held_bytes.add(&self.held, waiting_bytes).await?;
        let (remote, upload, held) = (self.clone(), Some(upload), None);
        Ok(ObjectAppend { remote, upload, pieces, offset, start, waiting, waiting_bytes, held_bytes, held, is_checked })
    }

    /// The parts of the upload `name` that have come, by their numbers.
    pub async fn parts(&self, name: &str) -> Result<Vec<StoredPart>, Error> {
        let folder = self.location(&format!("{RESUMABLE}/{name}"))?;
        let mut found = self.store.list(Some(&folder));
        let mut parts = Vec::new();
        while let Some(object) = found.try_next().await? {
            let Some(number) = object.location.filename().and_then(part_number) else { continue };
            let etag = super::opaque(object.e_tag.as_deref());
            let modified_ms = object.last_modified.timestamp_millis();
            parts.push(StoredPart { number, size: object.size, etag, modified_ms });
        }
        parts.sort_unstable_by_key(|part| part.number);
        self.with_etags(name, parts).await
    }

    /// The parts with the entity tags that some stores leave out of their lists.
    async fn with_etags(&self, name: &str, parts: Vec<StoredPart>) -> Result<Vec<StoredPart>, Error> {
        let told = parts.into_iter().map(|part| async move {
            if !part.etag.is_empty() {
                return Ok(part);
            }
            let location = self.location(part_path(name, part.number).as_str())?;
            let etag = super::opaque(self.store.head(&location).await?.e_tag.as_deref());
            Ok::<_, Error>(StoredPart { etag, ..part })
        });
        futures::stream::iter(told).buffered(HEADS).try_collect().await
    }

    /// Leaves nothing of an upload in parts but that its file was published.
    pub async fn close_upload(&self, name: &str) -> Result<(), Error> {
        self.store.put(&self.location(&key(name, PUBLISHED))?, PutPayload::default()).await?;
        self.delete_pieces(name, false).await
    }

    /// Removes an upload.
    pub async fn drop_upload(&self, name: &str) -> Result<(), Error> {
        self.delete_object(&key(name, RECORD)).await?;
        self.delete_pieces(name, true).await
    }

    async fn delete_object(&self, key: &str) -> Result<(), Error> {
        match self.store.delete(&self.location(key)?).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes the pieces of an upload; where it is removed, all of its objects.
    async fn delete_pieces(&self, name: &str, is_removed: bool) -> Result<(), Error> {
        let folder = self.location(&format!("{RESUMABLE}/{name}"))?;
        let listed = self.store.list(Some(&folder)).map_ok(|object| object.location);
        let pieces = listed.try_filter(move |location| {
            let is_piece = location.filename().is_some_and(|name| name.starts_with(PIECE) && name != PUBLISHED);
            std::future::ready(is_removed || is_piece)
        });
        let mut deleted = self.store.delete_stream(pieces.boxed());
        while let Some(location) = deleted.next().await {
            match location {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Deletes uploads that have not gone on for as long as they wait; how many objects that were.
    pub(super) async fn sweep_uploads(&self, now_ms: i64) -> Result<usize, Error> {
        let mut newest = foldhash::HashMap::<String, (i64, usize)>::default();
        let mut found = self.store.list(Some(&self.location(RESUMABLE)?));
        while let Some(object) = found.try_next().await? {
            let mut segments = object.location.as_ref().rsplit('/');
            let (Some(_), Some(name)) = (segments.next(), segments.next()) else { continue };
            let known = newest.entry(name.to_owned()).or_default();
            *known = (known.0.max(object.last_modified.timestamp_millis()), known.1 + 1);
        }
        let mut swept = 0;
        for (name, (changed_ms, objects)) in newest {
            let age = u64::try_from(now_ms.saturating_sub(changed_ms)).unwrap_or_default();
            if age >= LIFETIME_MS {
                self.drop_upload(&name).await?;
                swept += objects;
            }
        }
        Ok(swept)
    }
}

/// The path of a part of the upload `name`.
pub fn part_path(name: &str, number: u32) -> FilePath {
    FilePath::reserved(key(name, &part_name(number)))
}

fn key(name: &str, object: &str) -> String {
    format!("{RESUMABLE}/{name}/{object}")
}

fn piece_key(name: &str, start: u64) -> String {
    key(name, &format!("{PIECE}{start:020}"))
}

impl Drop for ObjectAppend {
    fn drop(&mut self) {
        let Some(upload) = self.upload.take().filter(|_| !self.is_checked && self.waiting_bytes > 0) else { return };
        let (remote, start, waiting) = (self.remote.clone(), self.start, std::mem::take(&mut self.waiting));
        self.remote.tasks.spawn("storage: last piece of an upload", async move {
            if let Err(error) = put_piece(&remote, &upload.name, start, waiting).await {
                tracing::warn!(%error, "bytes that came last of an upload have to come again");
            }
        });
    }
}

async fn put_piece(remote: &Remote, name: &str, start: u64, bytes: Vec<Bytes>) -> Result<(), Error> {
    let payload: PutPayload = bytes.into_iter().collect();
    remote.store.put(&remote.location(&piece_key(name, start))?, payload).await?;
    Ok(())
}

impl ObjectAppend {
    /// Bytes that have come.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    fn name(&self) -> Result<&str, Error> {
        let upload = self.upload.as_ref();
        upload.map(|upload| upload.name.as_str()).ok_or_else(|| Error::Backend("an upload has ended".to_owned()))
    }

    /// Takes in more bytes. Only what is less than a piece is held, and one piece of what has to be verified.
    pub async fn write(&mut self, mut data: Bytes) -> Result<(), Error> {
        self.held_bytes.add(&self.remote.held, data.len()).await?;
        self.offset += data.len() as u64;
        while !data.is_empty() {
            let part = data.split_to(data.len().min(PIECE_BYTES - self.waiting_bytes));
            self.waiting_bytes += part.len();
            self.waiting.push(part);
            if self.waiting_bytes == PIECE_BYTES {
                self.end_piece().await?;
            }
        }
        Ok(())
    }

    /// Waits until what this upload holds is in the way of others.
    pub async fn is_in_the_way(&mut self) {
        self.held_bytes.is_in_the_way(&self.remote.held).await;
    }

    async fn end_piece(&mut self) -> Result<(), Error> {
        if self.waiting_bytes == 0 {
            return Ok(());
        }
        let (start, size) = (self.start, self.waiting_bytes as u64);
        let bytes = self.waiting.clone();
        match self.is_checked && self.held.is_none() {
            true => self.held = Some((start, bytes)),
            false => {
                put_piece(&self.remote, self.name()?, start, bytes).await?;
                self.held_bytes.shrink_to(self.held.as_ref().map_or(0, |_| PIECE_BYTES));
            }
        }
        self.pieces.push((start, size));
        (self.start, self.waiting_bytes) = (start + size, 0);
        self.waiting.clear();
        Ok(())
    }

    /// What has come counts, and is in the store.
    pub async fn keep(mut self) -> Result<Self, Error> {
        self.end_piece().await?;
        if let Some((start, bytes)) = self.held.take() {
            put_piece(&self.remote, self.name()?, start, bytes).await?;
        }
        Ok(self)
    }

    /// What has come in this stream does not count.
    pub async fn discard(mut self) -> Result<(), Error> {
        let held = self.held.take().map_or(self.start, |(start, _)| start);
        self.waiting_bytes = 0;
        for (start, _) in self.pieces.iter().filter(|(start, _)| *start > held) {
            self.remote.delete_object(&piece_key(self.name()?, *start)).await?;
        }
        Ok(())
    }

    /// Its first bytes, which tell its type.
    pub async fn beginning(self) -> Result<(Self, Vec<u8>), Error> {
        let Some((start, size)) = self.pieces.first().copied() else { return Ok((self, Vec::new())) };
        let location = self.remote.location(&piece_key(self.name()?, start))?;
        let range = 0..size.min(SNIFFED_BYTES as u64);
        let beginning = self.remote.store.get_range(&location, range).await?.to_vec();
        Ok((self, beginning))
    }

    /// All of its pieces as one object that is not there yet.
    pub async fn joined(self, publication: &Publication) -> Result<ObjectJoined, Error> {
        let (remote, name) = (&self.remote, self.name()?);
        let Publication { path, content_type, meta, .. } = publication;
        let mut upload = remote.begin(Some(path), content_type, meta);
        for (start, size) in &self.pieces {
            let mut bytes = match remote.store.get(&remote.location(&piece_key(name, *start))?).await {
                Err(object_store::Error::NotFound { .. }) => return Err(Error::TakenOver),
                found => found?.into_stream(),
            };
            let mut joined = 0;
            while let Some(bytes) = bytes.try_next().await? {
                joined += bytes.len() as u64;
                upload.write(bytes).await?;
            }
            // Another node has replaced it, with what its own stream of the upload brought.
            if joined != *size {
                return Err(Error::TakenOver);
            }
        }
        Ok(ObjectJoined { append: self, upload })
    }
}

/// An upload that is complete.
pub struct ObjectJoined {
    append: ObjectAppend,
    upload: ObjectUpload,
}

impl ObjectJoined {
    /// Publishes the file. Where that fails, the upload stays as it is.
    pub async fn publish(self, publication: Publication) -> Result<Published, Error> {
        let published = self.upload.publish(publication).await?;
        if let Err(error) = self.append.remote.close_upload(self.append.name()?).await {
            tracing::warn!(%error, "the pieces of a file that was joined could not be removed");
        }
        Ok(published)
    }
}
