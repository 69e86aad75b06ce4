//! Folders of a local bucket: opened, made and removed without following links.

use std::{
    os::fd::OwnedFd,
    time::{SystemTime, UNIX_EPOCH},
};

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
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let mut swept = 0;
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        if name == "." || name == ".." {
            continue;
        }
        let stat = match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // It was published or dropped in between.
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error.into()),
        };
        let modified = u128::try_from(attributes::modified_ns(&stat) / 1_000_000).unwrap_or_default();
        if now.saturating_sub(modified) >= u128::from(age_ms) {
            remove(folder, name)?;
            swept += 1;
        }
    }
    Ok(swept)
}
