//! Pages of folders.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use proto::storage::ListRequest;

use crate::{Error, object::Entry};

/// Most entries of a page.
pub const PAGE_MAX: usize = 1000;
/// Most entries that are looked at for a page: one that finds little ends there, with a cursor.
pub const LOOKED_AT_MAX: usize = 10_000;

/// What a page is asked to have.
#[derive(Debug, Clone)]
pub struct PageRequest {
    /// Entries.
    pub limit: usize,
    /// The place of the last entry of the page before; empty at the beginning.
    pub after: String,
    /// Everything below the folder.
    pub recursive: bool,
    files: bool,
    folders: bool,
    search: String,
}

/// A page of a folder.
#[derive(Debug, Default)]
pub struct Page {
    /// Its entries.
    pub entries: Vec<Entry>,
    /// Where the next one begins; empty at the end.
    pub cursor: String,
}

impl TryFrom<ListRequest> for PageRequest {
    type Error = Error;

    fn try_from(request: ListRequest) -> Result<Self, Error> {
        let limit = request.limit as usize;
        if !(1..=PAGE_MAX).contains(&limit) {
            return Err(Error::Malformed(format!("invalid limit: expected 1 to {PAGE_MAX}, found {limit}")));
        }
        let after = URL_SAFE_NO_PAD.decode(&request.cursor).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let after = after.ok_or_else(|| Error::Malformed("invalid cursor".to_owned()))?;
        let ListRequest { recursive, files, folders, search, .. } = request;
        Ok(Self { limit, after, recursive, files, folders, search: search.to_lowercase() })
    }
}

impl PageRequest {
    /// A request for `limit` entries, whatever they are.
    #[cfg(test)]
    pub fn all(limit: usize, recursive: bool) -> Self {
        Self { limit, after: String::new(), recursive, files: true, folders: true, search: String::new() }
    }

    /// Whether an entry at `place`, which ends with a slash if it is a folder's, is asked for.
    pub fn wants(&self, place: &str) -> bool {
        let (is_folder, place) = (place.ends_with('/'), place.trim_end_matches('/'));
        let name = place.rsplit('/').next().unwrap_or(place);
        let is_found = self.search.is_empty() || name.to_lowercase().contains(&self.search);
        is_found && if is_folder { self.folders } else { self.files }
    }
}

impl Page {
    /// The page after whose last entry the folder goes on at `place`.
    pub fn cut(entries: Vec<Entry>, place: &str) -> Self {
        Self { entries, cursor: URL_SAFE_NO_PAD.encode(place) }
    }
}
