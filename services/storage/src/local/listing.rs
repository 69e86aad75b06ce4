//! Lists of local folders: a page holds the next entries in memory and no others, however many a folder has.

use std::{collections::BinaryHeap, os::fd::OwnedFd};

use query::file::{FilePath, RESERVED_PREFIX};
use rustix::fs::{AtFlags, Dir, FileType, fstat, statat};

use super::{Missing, Root, attributes, open_in, tree};
use crate::{
    Error,
    list::{LOOKED_AT_MAX, Page, PageRequest, is_place},
    object::Entry,
};

/// A walk through a folder, for one page.
struct Walk<'a> {
    request: &'a PageRequest,
    listed: &'a FilePath,
    entries: Vec<Entry>,
    looked_at: usize,
    /// The place of the last entry that was looked at, where the page ends before the folder does.
    end: Option<String>,
    last: String,
}

/// The page that `request` asks for.
pub fn page(root: &Root, folder: &FilePath, request: &PageRequest) -> Result<Page, Error> {
    let opened = root.folder(folder.segments(), Missing::Error).map_err(|error| match error {
        Error::NotFound => Error::NoFolder,
        other => other,
    })?;
    let mut walk =
        Walk { request, listed: folder, entries: Vec::new(), looked_at: 0, end: None, last: request.after.clone() };
    let prefix = if folder.is_root() { String::new() } else { format!("{}/", folder.as_str()) };
    walk.folder(&opened, &prefix, "", &request.after)?;
    Ok(match walk.end {
        Some(last) => Page { entries: walk.entries, last },
        None => Page { entries: walk.entries, last: String::new() },
    })
}

impl Walk<'_> {
    /// Adds entries of a folder whose places begin with `above`, after the place `after` in it; `prefix` is the path that
    /// places begin at.
    fn folder(&mut self, folder: &OwnedFd, prefix: &str, above: &str, after: &str) -> Result<(), Error> {
        // Where a page goes on inside of a folder, that comes first.
        let mut after = after.to_owned();
        if self.request.recursive
            && let Some((child, rest)) = after.clone().split_once('/')
        {
            // It may be gone since.
            if let Ok(opened) = tree::open(folder, child) {
                self.folder(&opened, prefix, &format!("{above}{child}/"), rest)?;
            }
            after = format!("{child}/");
        }
        while self.end.is_none() {
            let is_root = prefix.is_empty() && above.is_empty();
            let wanted = self.request.limit + 1;
            let (names, is_all) = smallest(folder, &after, wanted, is_root)?;
            for name in names {
                if self.entries.len() == self.request.limit || self.looked_at == LOOKED_AT_MAX {
                    self.end = Some(self.last.clone());
                    return Ok(());
                }
                let place = format!("{above}{name}");
                if !is_place(self.listed, &place) {
                    // Too long to be asked for, and so is what is in it.
                    after = name;
                    continue;
                }
                if self.request.ends_before(&place) {
                    return Ok(());
                }
                if self.request.leaves_out(&place) {
                    after = name;
                    continue;
                }
                self.looked_at += 1;
                self.last.clone_from(&place);
                if self.request.wants(&place) {
                    self.entries.extend(entry(folder, &name, &format!("{prefix}{place}"))?);
                }
                if self.request.recursive
                    && let Some(child) = name.strip_suffix('/')
                    && let Ok(opened) = tree::open(folder, child)
                {
                    self.folder(&opened, prefix, &place, "")?;
                    if self.end.is_some() {
                        return Ok(());
                    }
                }
                after = name;
            }
            if is_all {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// The first `count` names after `after` in a folder, in order, those of folders with a slash at their end; and whether
/// these are all.
fn smallest(folder: &OwnedFd, after: &str, count: usize, is_root: bool) -> Result<(Vec<String>, bool), Error> {
    let mut names = BinaryHeap::with_capacity(count.min(64));
    let mut is_all = true;
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        // What has no name of ours cannot be asked for.
        let Ok(name) = entry.file_name().to_str() else { continue };
        let is_own = is_root
            && name.get(..RESERVED_PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(RESERVED_PREFIX));
        // Also with a slash at its end it comes before.
        if name.bytes().chain([b'/']).le(after.bytes()) {
            continue;
        }
        if is_own || !FilePath::parse(&format!("/x/{name}")).is_ok_and(|path| path.name() == name) {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                Err(_) => continue,
            },
            kind => kind,
        };
        let name = match kind {
            FileType::RegularFile => name.to_owned(),
            FileType::Directory => format!("{name}/"),
            _ => continue,
        };
        if name.as_str() <= after {
            continue;
        }
        names.push(name);
        if names.len() > count {
            names.pop();
            is_all = false;
        }
    }
    Ok((names.into_sorted_vec(), is_all))
}

/// The entry of a name; `None` where it is gone since.
fn entry(folder: &OwnedFd, name: &str, path: &str) -> Result<Option<Entry>, Error> {
    if let Some(child) = name.strip_suffix('/') {
        let Ok(opened) = tree::open(folder, child) else { return Ok(None) };
        let modified_ms = attributes::modified_ns(&fstat(&opened)?) / 1_000_000;
        return Ok(Some(Entry::Folder { path: path.trim_end_matches('/').to_owned(), modified_ms }));
    }
    match open_in(folder, name) {
        Ok(opened) => Ok(opened.map(|opened| {
            let mut file = opened.file(path);
            file.meta = String::new();
            Entry::File(file)
        })),
        Err(Error::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}
