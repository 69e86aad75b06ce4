//! What is kept with a local file, in an extended attribute: it is there exactly if the file is, and moves with it.

use std::os::fd::OwnedFd;

use rustix::{
    fs::{Stat, XattrFlags, fgetxattr, fsetxattr},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use crate::Error;

/// Name of the attribute.
const NAME: &str = "user.perigee";
/// Most bytes of the attribute: file systems keep about 4 KiB of them in all.
const BYTES_MAX: usize = 3800;
/// Characters of the hash that are the entity tag.
pub const ETAG_CHARS: usize = 32;

/// What is kept with a file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attributes {
    /// BLAKE3 of the content, in hex.
    pub hash: String,
    /// Media type; empty: by the name.
    #[serde(rename = "type")]
    pub content_type: String,
    /// The user's metadata.
    pub meta: String,
    /// Bytes and time of the file that the hash is of: a file that another program changed has others.
    size: u64,
    modified_ns: i64,
}

impl Attributes {
    /// The attributes of a file with this `hash`, as `stat` has it.
    pub fn new(hash: blake3::Hash, content_type: String, meta: String, stat: &Stat) -> Self {
        let hash = hash.to_hex().to_string();
        Self { hash, content_type, meta, size: size(stat), modified_ns: modified_ns(stat) }
    }

    /// The attributes of an open file, where it has any that can be read.
    pub fn of(file: &OwnedFd) -> Option<Self> {
        let mut bytes = vec![0; BYTES_MAX];
        let length = fgetxattr(file, NAME, &mut bytes[..]).ok()?;
        serde_json::from_slice(&bytes[..length]).ok()
    }

    /// Keeps them with `file`.
    pub fn write(&self, file: &OwnedFd) -> Result<(), Error> {
        let bytes = serde_json::to_vec(self).map_err(|error| Error::Backend(error.to_string()))?;
        let too_large = || Error::Malformed("the metadata and the type of the file are too large".to_owned());
        if bytes.len() > BYTES_MAX {
            return Err(too_large());
        }
        match fsetxattr(file, NAME, &bytes, XattrFlags::empty()) {
            Err(Errno::RANGE | Errno::TOOBIG) => Err(too_large()),
            Err(Errno::OPNOTSUPP) => {
                Err(Error::Backend("the file system keeps no extended attributes (user.*)".to_owned()))
            }
            written => Ok(written?),
        }
    }

    /// Whether the hash is of the file that `stat` is of.
    pub fn are_of(&self, stat: &Stat) -> bool {
        (self.size, self.modified_ns) == (size(stat), modified_ns(stat)) && self.hash.len() == 64
    }

    /// The hash.
    pub fn hash(&self) -> Option<blake3::Hash> {
        blake3::Hash::from_hex(&self.hash).ok()
    }
}

/// Bytes of a file.
pub fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or_default()
}

/// Nanoseconds since the Unix epoch of its last change.
pub fn modified_ns(stat: &Stat) -> i64 {
    let nanoseconds = i64::try_from(stat.st_mtime_nsec).unwrap_or_default();
    stat.st_mtime.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}
