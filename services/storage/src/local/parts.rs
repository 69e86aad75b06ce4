//! Parts of resumable uploads in a folder: files in a folder for each upload, read and written as all others.

use query::file::FilePath;
use rustix::{
    fs::{AtFlags, Timespec, Timestamps, UTIME_NOW, unlinkat, utimensat},
    io::Errno,
};

use super::{Local, OWN, PARTS, Root, open_in, resumable::record_name, tree};
use crate::{
    Error,
    record::{StoredPart, part_name, part_number},
};

/// The path of a part of the upload `name`.
pub fn path(name: &str, number: u32) -> FilePath {
    FilePath::reserved(format!("{OWN}/{PARTS}/{name}/{}", part_name(number)))
}

impl Local {
    /// The parts of the upload `name` that have come, by their numbers.
    pub async fn parts(&self, name: &str) -> Result<Vec<StoredPart>, Error> {
        let name = name.to_owned();
        self.blocking(move |root| stored(root, &name)).await
    }

    /// Notes that an upload in parts goes on.
    pub async fn touch_upload(&self, name: &str) -> Result<(), Error> {
        let record = record_name(name);
        self.blocking(move |root| {
            touch(root, &record);
            Ok(())
        })
        .await
    }

    /// Leaves nothing of an upload in parts but its record: its file was published.
    pub async fn close_upload(&self, name: &str) -> Result<(), Error> {
        let name = name.to_owned();
        self.blocking(move |root| {
            match unlinkat(&root.resumable, &name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
            tree::remove(&root.parts, &name)
        })
        .await
    }
}

/// Notes that the upload of a record goes on.
pub fn touch(root: &Root, record: &str) {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let times = Timestamps { last_access: now, last_modification: now };
    // Where it fails, the upload is void sooner than it could be.
    let _ = utimensat(&root.resumable, record, &times, AtFlags::SYMLINK_NOFOLLOW);
}

fn stored(root: &Root, name: &str) -> Result<Vec<StoredPart>, Error> {
    let folder = match tree::open(&root.parts, name) {
        Err(Errno::NOENT) => return Ok(Vec::new()),
        folder => folder?,
    };
    let mut parts = Vec::new();
    for file in tree::names(&folder)? {
        let file = file?;
        let Some(number) = part_number(&file) else { continue };
        let opened = match open_in(&folder, &file) {
            // It was removed in between.
            Err(Error::NotFound) => continue,
            opened => opened?,
        };
        let Some(opened) = opened else { continue };
        let file = opened.file(&file);
        parts.push(StoredPart { number, size: file.size, etag: file.etag, modified_ms: file.modified_ms });
    }
    parts.sort_unstable_by_key(|part| part.number);
    Ok(parts)
}

/// Removes parts that have come for an upload that was ended meanwhile; how many folders of them.
pub fn sweep(root: &Root, age_ms: u64) -> Result<usize, Error> {
    let mut swept = 0;
    for name in tree::names(&root.parts)? {
        let name = name?;
        let has_record = tree::age_in_ms(&root.resumable, &record_name(&name))?.is_some();
        if !has_record && tree::age_in_ms(&root.parts, &name)?.is_some_and(|age| age >= age_ms) {
            tree::remove(&root.parts, &name)?;
            swept += 1;
        }
    }
    Ok(swept)
}
