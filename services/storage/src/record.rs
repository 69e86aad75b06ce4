//! What is kept of a resumable upload beside its bytes.

use mesh::clock;
use proto::storage::FindUploadResponse;
use query::file::FilePath;
use serde::{Deserialize, Serialize};

use crate::Error;

/// Milliseconds for which an upload waits to go on.
pub const LIFETIME_MS: u64 = 24 * 3600 * 1000;
/// Most uploads to one path that are not published: who may write one file fills no disk with unfinished ones.
pub const OF_PATH_MAX: usize = 64;
/// Most parts of an upload in parts.
pub const PARTS_MAX: u32 = 10_000;
/// Characters at the beginning of the name of an upload that tell its path.
const PATH_CHARS: usize = 16;
/// Characters after these that tell its creator.
const OWNER_CHARS: usize = 4;
/// Characters after these that tell it from others.
const RANDOM_CHARS: usize = 12;
/// Most bytes of the record of an upload.
pub const RECORD_BYTES: usize = 16 * 1024;
/// Most bytes of what the creator of an upload is told again.
pub const LABEL_BYTES: usize = 4096;

/// What an upload was begun with.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// Path of the file, without the slash at the beginning.
    pub path: String,
    /// Bytes of the file.
    pub size: u64,
    /// Media type as declared; empty: by the name.
    pub content_type: String,
    /// The user's metadata: a JSON object, or nothing.
    pub meta: String,
    /// What tells its creator from others, in hex.
    pub owner: String,
    /// What its creator is told again.
    pub label: String,
    /// Whether it comes in parts; then its size is not known.
    pub in_parts: bool,
    /// Whether it is a part of a file that is put together of several uploads.
    pub is_partial: bool,
    /// Ids of the uploads that it was put together of.
    pub joined_of: Vec<String>,
}

/// An upload that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// What it was begun with.
    pub record: Record,
    /// Bytes that have come.
    pub offset: u64,
    /// Whether the file is there.
    pub is_published: bool,
    /// Milliseconds since the Unix epoch at which it went on.
    pub changed_ms: i64,
}

impl Found {
    /// Milliseconds since the Unix epoch from which it is void.
    pub fn expires_ms(&self) -> i64 {
        expires_ms(self.changed_ms)
    }

    /// The upload, unless it is void.
    pub fn in_time(self) -> Result<Self, Error> {
        match clock::unix_ms(std::time::SystemTime::now()) < self.expires_ms() {
            true => Ok(self),
            false => Err(Error::NoUpload),
        }
    }

    /// As messages tell it.
    pub fn into_wire(self, bucket: String) -> FindUploadResponse {
        let expires_ms = self.expires_ms();
        let Found { record, offset, is_published, .. } = self;
        let Record { path, size, content_type, meta, owner, label, in_parts, is_partial, joined_of } = record;
        let owner = blake3::Hash::from_hex(&owner).map(|owner| owner.as_bytes().to_vec()).unwrap_or_default();
        let published = is_published;
        FindUploadResponse {
            bucket,
            path,
            size,
            offset,
            content_type,
            meta,
            owner,
            label,
            expires_ms,
            published,
            in_parts,
            partial: is_partial,
            joined_of,
        }
    }
}

/// Milliseconds since the Unix epoch from which an upload is void that went on at `changed_ms`.
pub fn expires_ms(changed_ms: i64) -> i64 {
    changed_ms.saturating_add_unsigned(LIFETIME_MS)
}

/// A new name of an upload to `path` by the creator `owner`, in hex: it tells both, so that those of others need not be read.
pub fn name(path: &FilePath, owner: &str) -> String {
    let hash = blake3::hash(path.as_str().as_bytes()).to_hex();
    format!("{}{}{:012x}", &hash[..PATH_CHARS], owner_mark(owner), rand::random::<u64>() >> 16)
}

/// The name of the upload to `path` by the creator `owner` that is put together of others: each time the same.
pub fn name_of_joined(path: &FilePath, owner: &str, names: &[String]) -> String {
    let (hash, of) =
        (blake3::hash(path.as_str().as_bytes()).to_hex(), blake3::hash(names.join("/").as_bytes()).to_hex());
    format!("{}{}{}", &hash[..PATH_CHARS], owner_mark(owner), &of[..RANDOM_CHARS])
}

/// What the names of the uploads of a creator have after what tells their path.
fn owner_mark(owner: &str) -> String {
    blake3::hash(owner.as_bytes()).to_hex()[..OWNER_CHARS].to_owned()
}

/// What tells the creator in the name of an upload.
pub fn creator_of(name: &str) -> Option<&str> {
    name.get(PATH_CHARS..PATH_CHARS + OWNER_CHARS)
}

/// Whether an upload can be of a creator, in hex.
pub fn may_be_of(name: &str, owner: &str) -> bool {
    creator_of(name).is_some_and(|mark| mark == owner_mark(owner))
}

/// What the names of all uploads to the path begin with that the one called `name` is for.
pub fn of_path(name: &str) -> &str {
    name.get(..PATH_CHARS).unwrap_or(name)
}

/// A part of an upload in parts.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredPart {
    /// 1 to [`PARTS_MAX`].
    pub number: u32,
    /// Bytes.
    pub size: u64,
    /// The opaque part of its entity tag.
    pub etag: String,
    /// Milliseconds since the Unix epoch.
    pub modified_ms: i64,
}

/// The name of a part: names are in the order of numbers.
pub fn part_name(number: u32) -> String {
    format!("part{number:05}")
}

/// The number in the name of a part.
pub fn part_number(name: &str) -> Option<u32> {
    name.strip_prefix("part")?.parse().ok()
}

impl Record {
    /// The record in `bytes`. Errors: there is none, as after a loss of power.
    pub fn read(bytes: &[u8]) -> Result<Self, Error> {
        serde_json::from_slice(bytes).map_err(|_| Error::NoUpload)
    }

    /// As it is kept.
    pub fn written(&self) -> Result<Vec<u8>, Error> {
        let bytes = serde_json::to_vec(self).map_err(|error| Error::Backend(error.to_string()))?;
        match bytes.len() > RECORD_BYTES {
            true => Err(Error::Malformed("the metadata of the upload is too large".to_owned())),
            false => Ok(bytes),
        }
    }

    /// The path of the file.
    pub fn file_path(&self) -> Result<FilePath, Error> {
        Ok(FilePath::from_key(&self.path)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_path_and_creator() {
        let path = FilePath::from_key("a/b").expect("a sound path");
        let (ann, nobody) = (name(&path, "ann"), name(&path, ""));
        assert_eq!(of_path(&ann), of_path(&nobody));
        assert!(may_be_of(&ann, "ann") && !may_be_of(&ann, "bob") && !may_be_of(&ann, "") && may_be_of(&nobody, ""));
        assert_eq!((ann.len(), nobody.len()), (crate::NAME_CHARS, crate::NAME_CHARS), "ids have as many");
        assert!(!may_be_of("short", "ann"));
        assert_ne!(name(&path, "ann"), ann);
    }
}
