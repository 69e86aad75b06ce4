//! Pages of folders.

use proto::storage::{EntriesDigest, ListRequest};
use query::file::{FilePath, PAGE_MAX};

use crate::{Error, cursor::Cursors, object::Entry};

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
    /// The place after which the next one begins; empty at the end.
    pub last: String,
}

impl PageRequest {
    /// What `request` asks for of `folder`, whose cursors `cursors` opens. Errors: it is malformed.
    pub fn new(request: ListRequest, folder: &FilePath, cursors: &Cursors<'_>) -> Result<Self, Error> {
        let limit = request.limit as usize;
        if !(1..=PAGE_MAX).contains(&request.limit) {
            return Err(Error::Malformed(format!("invalid limit: expected 1 to {PAGE_MAX}, found {limit}")));
        }
        let after = match request.cursor.as_str() {
            "" => String::new(),
            cursor => cursors.open(cursor).filter(|place| is_place(folder, place)).ok_or_else(malformed_cursor)?,
        };
        let ListRequest { recursive, files, folders, search, .. } = request;
        Ok(Self { limit, after, recursive, files, folders, search: search.to_lowercase() })
    }

    /// A request for `limit` entries, whatever they are.
    pub fn all(limit: usize, recursive: bool) -> Self {
        Self { limit, after: String::new(), recursive, files: true, folders: true, search: String::new() }
    }

    /// A request for all that is below a folder, page by page.
    pub fn everything() -> Self {
        Self::all(PAGE_MAX as usize, true)
    }

    /// Whether an entry at `place`, which ends with a slash if it is a folder's, is asked for.
    pub fn wants(&self, place: &str) -> bool {
        let (is_folder, place) = (place.ends_with('/'), place.trim_end_matches('/'));
        let name = place.rsplit('/').next().unwrap_or(place);
        let is_found = self.search.is_empty() || name.to_lowercase().contains(&self.search);
        is_found && if is_folder { self.folders } else { self.files }
    }
}

/// Compares the entries of a folder, which come page by page, with those that were judged.
#[derive(Default)]
pub struct Judging(EntriesDigest);

impl Judging {
    /// Takes the next page; the request for the one after it, or `None` at the end.
    pub fn next(&mut self, page: Page) -> Option<PageRequest> {
        let entries: Vec<_> = page.entries.into_iter().map(Into::into).collect();
        self.0.add(&entries);
        (!page.last.is_empty()).then(|| PageRequest { after: page.last, ..PageRequest::everything() })
    }

    /// Errors: `Changed` where other entries were judged.
    pub fn check(&self, judged: &[u8]) -> Result<(), Error> {
        if self.0.finish() == judged { Ok(()) } else { Err(Error::Changed) }
    }
}

/// Whether an entry can be at `place` in a folder: no cursor leads out of it.
pub fn is_place(folder: &FilePath, place: &str) -> bool {
    let place = place.strip_suffix('/').unwrap_or(place);
    let path = match folder.as_str() {
        "" => place.to_owned(),
        above => format!("{above}/{place}"),
    };
    !place.is_empty() && FilePath::from_key(&path).is_ok_and(|found| found.as_str() == path)
}

fn malformed_cursor() -> Error {
    Error::Malformed("invalid cursor".to_owned())
}
