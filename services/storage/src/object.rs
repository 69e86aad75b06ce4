//! What is known of a file or a folder, and what is said of a file when it is published.

use proto::storage::{self as wire, Precondition};
use query::file::FilePath;

use crate::Error;

/// A file or a folder.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// A file.
    File(File),
    /// A folder.
    Folder {
        /// Its path.
        path: String,
        /// Milliseconds since the Unix epoch; 0 where it is not known.
        modified_ms: i64,
    },
}

/// What is known of a file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct File {
    /// Its path in its bucket, without the slash at the beginning.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Milliseconds since the Unix epoch.
    pub modified_ms: i64,
    /// The opaque part of its strong entity tag.
    pub etag: String,
    /// Its media type.
    pub content_type: String,
    /// The user's metadata: a JSON object, or nothing.
    pub meta: String,
}

impl Entry {
    /// The folder at `path`.
    pub fn folder(path: impl Into<String>) -> Self {
        Entry::Folder { path: path.into(), modified_ms: 0 }
    }
}

impl From<File> for wire::Entry {
    fn from(file: File) -> Self {
        let File { path, size, modified_ms, etag, content_type, meta } = file;
        Self { path, is_folder: false, size, modified_ms, etag, content_type, meta }
    }
}

impl From<Entry> for wire::Entry {
    fn from(entry: Entry) -> Self {
        match entry {
            Entry::File(file) => file.into(),
            Entry::Folder { path, modified_ms } => Self { path, is_folder: true, modified_ms, ..Self::default() },
        }
    }
}

/// How a file that was taken in is published.
#[derive(Debug, Clone)]
pub struct Publication {
    /// Its path.
    pub path: FilePath,
    /// Its media type.
    pub content_type: String,
    /// The user's metadata: a JSON object, or nothing.
    pub meta: String,
    /// What must hold of the file that is there.
    pub precondition: Option<Precondition>,
    /// The folder above must be there, where there are folders.
    pub needs_parent: bool,
}

/// A file that was published.
#[derive(Debug, Clone, PartialEq)]
pub struct Published {
    /// The file.
    pub file: File,
    /// Whether there was none before.
    pub created: bool,
}

/// Locks of paths of a bucket: changes of one path wait for each other.
pub const LOCKS: usize = 64;

/// Which of the [`LOCKS`] is that of a path.
pub fn lock_index(path: &FilePath) -> usize {
    let hash = blake3::hash(path.as_str().as_bytes());
    usize::from(hash.as_bytes()[0]) % LOCKS
}

/// Whether the file that is there is as the caller expects.
pub fn check(precondition: Option<&Precondition>, current: Option<&str>) -> Result<(), Error> {
    let Some(Precondition { absent, etags, present }) = precondition else { return Ok(()) };
    let is_met = match current {
        Some(etag) => !absent && (etags.is_empty() || etags.iter().any(|wanted| wanted == etag)),
        None => !present && etags.is_empty(),
    };
    if is_met { Ok(()) } else { Err(Error::Precondition) }
}
