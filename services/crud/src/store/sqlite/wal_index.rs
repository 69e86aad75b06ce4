//! Reader of SQLite's WAL index: shared memory of the connections of all processes, which tells what is committed.
//!
//! Source of the layout: SQLite, "WAL-mode File Format", 2.1 "The WAL-Index Header" and 2.2 "WAL-Index Locks".

#![allow(unsafe_code, reason = "SQLite gives the shared memory of a connection as a pointer only")]

use std::{
    ffi::{c_int, c_void},
    ptr::{self, NonNull},
    sync::atomic::{AtomicU32, Ordering, fence},
};

use rusqlite::{Connection, ffi};

/// The only format of the index there has been. Source: section 2.1, `iVersion`.
const INDEX_VERSION: u32 = 3_007_000;
/// Bytes of the first region of the index.
const REGION_BYTES: c_int = 32_768;
/// Words of the header. A second copy of it follows, then the number of frames copied by checkpoints.
const HEADER_WORDS: usize = 12;
const CHANGES_WORD: usize = 2;
const FRAMES_WORD: usize = 4;
const COPIED_WORD: usize = 2 * HEADER_WORDS;

/// The WAL index as one connection maps it.
#[derive(Debug)]
pub struct WalIndex {
    words: NonNull<AtomicU32>,
}

// SAFETY: the memory is shared between processes already, and all that is done with it is to load words of it.
unsafe impl Send for WalIndex {}
// SAFETY: as above; loads of words may be done by several threads at once.
unsafe impl Sync for WalIndex {}

/// Header of the index after one commit; no two commits have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalHeader([u32; HEADER_WORDS]);

impl WalIndex {
    /// The index that `connection` uses. `None` where it has no write-ahead log, or none of a format known here.
    ///
    /// It must be used no longer than its connection is open; the connection cannot leave the log while it only reads.
    pub fn of(connection: &Connection) -> Option<Self> {
        let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0)).ok()?;
        if mode != "wal" {
            return None;
        }
        // SQLite has opened the index by now: the memory is there before this function asks for it.
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).ok()?;
        let index = Self { words: map(connection)? };
        (index.header().0[0] == INDEX_VERSION).then_some(index)
    }

    /// The header now: what is committed before this call is in it.
    pub fn header(&self) -> WalHeader {
        fence(Ordering::SeqCst);
        let header = WalHeader(std::array::from_fn(|word| self.word(word)));
        fence(Ordering::SeqCst);
        header
    }

    /// Whether a checkpoint has copied all of the log into the database.
    pub fn is_copied(&self) -> bool {
        self.word(COPIED_WORD) == self.word(FRAMES_WORD)
    }

    fn word(&self, index: usize) -> u32 {
        debug_assert!(index < REGION_BYTES as usize / size_of::<u32>());
        // SAFETY: the region is longer than any index asked for, SQLite aligns it, and it is mapped for as long as the
        // connection is open.
        unsafe { self.words.add(index).as_ref() }.load(Ordering::Relaxed)
    }
}

impl WalHeader {
    /// Whether one commit led from the state of `before` to this one. Source: section 2.1, `iChange`.
    pub fn is_next_of(&self, before: &WalHeader) -> bool {
        self.0[CHANGES_WORD] == before.0[CHANGES_WORD].wrapping_add(1)
    }

    /// Frames in the log.
    pub fn frames(&self) -> u32 {
        self.0[FRAMES_WORD]
    }
}

/// Pages that `connection` has written since it was opened; counted modulo 2^31.
///
/// A commit that changes anything writes a page at least, and one that changes nothing writes none. The number of rows
/// that a statement changed does not tell: one that sets a row to what it is changes no page.
pub fn pages_written(connection: &Connection) -> Option<c_int> {
    let (mut written, mut most) = (0, 0);
    // SAFETY: the handle is that of an open connection, and SQLite writes both numbers.
    let status = unsafe {
        let request = ffi::SQLITE_DBSTATUS_CACHE_WRITE;
        ffi::sqlite3_db_status(connection.handle(), request, &raw mut written, &raw mut most, 0)
    };
    (status == ffi::SQLITE_OK).then_some(written)
}

/// Maps the first region of the index, which SQLite keeps mapped until the connection is closed.
fn map(connection: &Connection) -> Option<NonNull<AtomicU32>> {
    let mut file: *mut ffi::sqlite3_file = ptr::null_mut();
    let mut start: *mut c_void = ptr::null_mut();
    // SAFETY: the handle is that of an open connection. For this request SQLite writes a pointer to the file of the
    // main database, which lives as long as the connection; `xShmMap` is there from version 2 of a file's methods on.
    unsafe {
        let request = ffi::SQLITE_FCNTL_FILE_POINTER;
        let status = ffi::sqlite3_file_control(connection.handle(), c"main".as_ptr(), request, (&raw mut file).cast());
        let methods = file.as_ref()?.pMethods.as_ref()?;
        if status != ffi::SQLITE_OK || methods.iVersion < 2 {
            return None;
        }
        let status = methods.xShmMap?(file, 0, REGION_BYTES, 0, &raw mut start);
        if status != ffi::SQLITE_OK {
            return None;
        }
    }
    NonNull::new(start.cast())
}
