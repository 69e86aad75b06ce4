//! Folders of a local bucket: opened, made and removed without following links.

use std::{os::fd::OwnedFd, time::SystemTime};

use mesh::clock;
use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, fsync, mkdirat, openat, statat, unlinkat},
    io::Errno,
};

use super::attributes;
use crate::Error;

/// Most levels of folders that are removed: more than paths can have.
const DEPTH_MAX: usize = 600;

/// The folder `name` in `parent`, open.
pub fn open(parent: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

/// The folder `name` in `parent`, open; it is made where it is not there, and is there after a loss of power.
pub fn make(parent: &OwnedFd, name: &str) -> Result<OwnedFd, Error> {
    match mkdirat(parent, name, Mode::from_raw_mode(0o777)) {
        Ok(()) => fsync(parent)?,
        Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    match open(parent, name) {
        Err(Errno::NOTDIR | Errno::LOOP) => Err(Error::Conflict(format!("{name} is a file, not a folder"))),
        opened => Ok(opened?),
    }
}

/// Removes `name` from `parent`: a file, or a folder with all that is in it.
pub fn remove(parent: &OwnedFd, name: &str) -> Result<(), Error> {
    remove_at(parent, name, 0)
}

fn remove_at(parent: &OwnedFd, name: &str, depth: usize) -> Result<(), Error> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) if depth < DEPTH_MAX => {}
        Err(error) => return Err(error.into()),
    }
    let folder = open(parent, name)?;
    for entry in Dir::read_from(&folder)? {
        let entry = entry?;
        let child = entry.file_name();
        if child == c"." || child == c".." {
            continue;
        }
        match entry.file_type() {
            FileType::Directory | FileType::Unknown => match child.to_str() {
                Ok(child) => remove_at(&folder, child, depth + 1)?,
                Err(_) => remove_foreign(&folder, child)?,
            },
            _ => match unlinkat(&folder, child, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            },
        }
    }
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Removes an empty folder whose name is no text: others made it, and what is in it stays for them.
fn remove_foreign(parent: &OwnedFd, name: &std::ffi::CStr) -> Result<(), Error> {
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Removes everything from `folder` that was not changed for longer than `age_ms`; how much that was.
pub fn sweep(folder: &OwnedFd, age_ms: u64) -> Result<usize, Error> {
    let mut swept = 0;
    for name in names(folder)? {
        let name = name?;
        // Else it was published or dropped in between.
        if age_in_ms(folder, &name)?.is_some_and(|age| age >= age_ms) {
            remove(folder, &name)?;
            swept += 1;
        }
    }
    Ok(swept)
}

/// The names in `folder` that are text.
pub fn names(folder: &OwnedFd) -> Result<impl Iterator<Item = Result<String, Error>>, Error> {
    let names = Dir::read_from(folder)?.map(|entry| Ok(entry?.file_name().to_str().ok().map(str::to_owned)));
    let is_own = |name: &String| name != "." && name != "..";
    Ok(names.filter_map(move |name| name.map(|name| name.filter(is_own)).transpose()))
}

/// Milliseconds since `name` in `folder` was changed; `None` where it is not there.
pub fn age_in_ms(folder: &OwnedFd, name: &str) -> Result<Option<u64>, Error> {
    let modified_ns = match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => attributes::modified_ns(&stat),
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let age = clock::unix_ms(SystemTime::now()).saturating_sub(modified_ns / 1_000_000);
    Ok(Some(u64::try_from(age).unwrap_or_default()))
}
