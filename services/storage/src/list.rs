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
    prefix: String,
}

/// Comes after every character that a name can have.
const LAST: char = '\u{10ffff}';

/// A page of a folder.
#[derive(Debug, Default)]
pub struct Page {
    /// Its entries.
    pub entries: Vec<Entry>,
    /// The place after which the next one begins; empty at the end.
    pub last: String,
}

impl Page {
    /// The request for what comes after it, of one for everything; `None` at the end.
    pub fn following(&self) -> Option<PageRequest> {
        (!self.last.is_empty()).then(|| PageRequest { after: self.last.clone(), ..PageRequest::everything() })
    }
}

impl PageRequest {
    /// What `request` asks for of `folder`, whose cursors `cursors` opens. Errors: it is malformed.
    pub fn new(request: ListRequest, folder: &FilePath, cursors: &Cursors<'_>) -> Result<Self, Error> {
        let limit = request.limit as usize;
        if !(1..=PAGE_MAX).contains(&request.limit) {
            return Err(Error::Malformed(format!("invalid limit: expected 1 to {PAGE_MAX}, found {limit}")));
        }
        let after = match request.cursor.as_str() {
            "" if request.after.is_empty() => String::new(),
            "" => Some(request.after.clone()).filter(|place| is_place(folder, place)).ok_or_else(malformed_after)?,
            cursor => cursors.open(cursor).filter(|place| is_place(folder, place)).ok_or_else(malformed_cursor)?,
        };
        let ListRequest { recursive, files, folders, search, prefix, .. } = request;
        if prefix.contains('/') {
            return Err(Error::Malformed("invalid prefix: must not have slashes".to_owned()));
        }
        // What comes before need not be looked at.
        let after = after.max(before(&prefix));
        Ok(Self { limit, after, recursive, files, folders, search: search.to_lowercase(), prefix })
    }

    /// A request for `limit` entries, whatever they are.
    pub fn all(limit: usize, recursive: bool) -> Self {
        Self {
            limit,
            after: String::new(),
            recursive,
            files: true,
            folders: true,
            search: String::new(),
            prefix: String::new(),
        }
    }

    /// A request for all that is below a folder, page by page.
    pub fn everything() -> Self {
        // A folder is read as a whole for each page: there are few of them.
        Self::all(LOOKED_AT_MAX, true)
    }

    /// Whether an entry at `place`, which ends with a slash if it is a folder's, is asked for.
    pub fn wants(&self, place: &str) -> bool {
        let (is_folder, place) = (place.ends_with('/'), place.trim_end_matches('/'));
        let name = place.rsplit('/').next().unwrap_or(place);
        let is_found =
            place.starts_with(&self.prefix) && (self.search.is_empty() || name.to_lowercase().contains(&self.search));
        is_found && if is_folder { self.folders } else { self.files }
    }
}

impl PageRequest {
    /// Whether what begins at `place`, a name in the folder or what is below it, is left out.
    pub fn leaves_out(&self, place: &str) -> bool {
        !place.starts_with(&self.prefix)
    }

    /// Whether nothing that is asked for comes at `place` or after it.
    pub fn ends_before(&self, place: &str) -> bool {
        place > self.prefix.as_str() && self.leaves_out(place)
    }
}

/// A text before all that begin with `prefix`, and after nearly all that come before these; empty where it is empty.
fn before(prefix: &str) -> String {
    let mut chars = prefix.chars();
    let Some(last) = chars.next_back() else { return String::new() };
    let lower = (u32::from(' ')..u32::from(last)).rev().take(0x1000).filter_map(char::from_u32).find(|c| *c != '/');
    match lower {
        Some(lower) => format!("{}{lower}{LAST}", chars.as_str()),
        None => String::new(),
    }
}

/// Compares the entries of a folder, which come page by page, with those that were judged.
#[derive(Default)]
pub struct Judging(EntriesDigest);

impl Judging {
    /// Takes the next page; the request for the one after it, or `None` at the end.
    pub fn next(&mut self, page: Page) -> Option<PageRequest> {
        let next = page.following();
        let entries: Vec<_> = page.entries.into_iter().map(Into::into).collect();
        self.0.add(&entries);
        next
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

fn malformed_after() -> Error {
    Error::Malformed("invalid after: expected a path below the folder".to_owned())
}

fn malformed_cursor() -> Error {
    Error::Malformed("invalid cursor".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_before_a_prefix_is_passed_over() {
        for (prefix, passed) in [("ab", "aa~"), ("a0", "a.~"), ("\u{e000}", "a"), ("b", "a/x")] {
            let after = before(prefix);
            assert!(after.as_str() < prefix && passed < after.as_str(), "{prefix}");
            assert!(!after.contains('/'), "a place in a folder would lead into it");
        }
        assert_eq!((before(""), before(" ")), (String::new(), String::new()));
    }
}
