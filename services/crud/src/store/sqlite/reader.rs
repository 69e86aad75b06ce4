//! Read-only connections, which share a snapshot between short reads.
//!
//! After a short read a connection keeps its snapshot, and the next short read uses it if nothing has been committed
//! since: beginning and ending a read transaction is three quarters of what a read by key costs, in locks that all
//! threads contend for.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use rusqlite::Connection;

use super::{
    Interrupt, SqliteError, StepLimit, interrupt_when, open,
    wal_index::{WalHeader, WalIndex},
};
use crate::Error;

/// Frames of the log at which SQLite starts a checkpoint. Source: SQLite, `PRAGMA
/// wal_autocheckpoint`.
const CHECKPOINT_FRAMES: u32 = 1000;
/// How long a snapshot is kept. Some hundred reads share it then, and who waits for the log waits no longer.
pub const SNAPSHOT_LIFETIME: Duration = Duration::from_millis(5);

/// A read-only connection that keeps its snapshot from one short read to the next.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
    wal: Option<WalIndex>,
    kept: Option<KeptSnapshot>,
    /// Limit of the steps of short reads, while the connection has the handlers of those.
    steps: Option<StepLimit>,
}

/// A connection that reads, with what is known of the state that it sees.
pub struct Snapshot<'r> {
    /// The connection.
    pub connection: &'r Connection,
    wal: Option<&'r WalIndex>,
    /// Whether the transaction sees a state already: that of `start`.
    is_kept: bool,
    /// State of the file before the transaction began, or in which one began that is kept.
    start: Option<WalHeader>,
}

impl Snapshot<'_> {
    /// The state of the file that the transaction sees, which begins with that; `None` where it is not known.
    pub fn header(&self) -> Result<Option<WalHeader>, SqliteError> {
        if self.start.is_some() && !self.is_kept {
            self.connection.prepare_cached("SELECT 1 FROM sqlite_schema LIMIT 1")?.query([])?.next()?;
        }
        // Where nothing was committed meanwhile, the transaction sees the state before it.
        Ok(self.start.filter(|start| self.wal.map(WalIndex::header).as_ref() == Some(start)))
    }
}

/// A snapshot that is kept.
#[derive(Debug)]
struct KeptSnapshot {
    header: WalHeader,
    /// It began when all of the log had been copied: SQLite reads it from the database, and the log is free.
    is_copied: bool,
    since: Instant,
}

impl Reader {
    /// A connection to the file at `path`.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let connection = open::reader(path)?;
        let wal = WalIndex::of(&connection);
        Ok(Self { connection, wal, kept: None, steps: None })
    }

    /// Runs `work` on the connection, which sees all that was committed before `now`, this moment.
    pub fn read<T>(
        &mut self,
        interrupt: &Interrupt,
        now: Instant,
        work: impl FnOnce(&Snapshot<'_>) -> Result<T, SqliteError>,
    ) -> Result<T, SqliteError> {
        let is_short = matches!(interrupt, Interrupt::After(_));
        let start = self.header();
        let header = start.filter(|_| is_short);
        if !header.is_some_and(|header| self.keeps_current(&header, now)) {
            self.end_snapshot()?;
        }
        let is_kept = self.kept.is_some();
        let is_copied = self.is_copied();
        // The log starts anew only where nobody uses it: while it is long, snapshots are as short as they can be.
        let keeps = header.filter(|header| header.frames() < CHECKPOINT_FRAMES || is_copied);
        if keeps.is_some() && self.connection.is_autocommit() {
            self.connection.prepare_cached("BEGIN")?.execute([])?;
        }
        let wal = self.wal.as_ref();
        let work = |connection: &mut Connection| work(&Snapshot { connection, wal, is_kept, start });
        let done = match interrupt {
            Interrupt::After(calls) => {
                if self.steps.is_none() {
                    self.steps = Some(StepLimit::install(&mut self.connection)?);
                }
                let steps = self.steps.as_ref().expect("it was installed");
                steps.set(*calls);
                let done = work(&mut self.connection);
                steps.lift();
                done
            }
            Interrupt::When(stop) => {
                self.steps = None;
                interrupt_when(stop, &mut self.connection, work)
            }
        };
        // Of a commit meanwhile nobody knows whether the snapshot has it.
        let kept = keeps.filter(|header| done.is_ok() && self.header() == Some(*header));
        let since = self.kept.as_ref().map_or(now, |kept| kept.since);
        self.kept = kept.map(|header| KeptSnapshot { header, is_copied, since });
        done
    }

    /// Ends a read transaction that is not kept; whether that worked. A connection where it did not is to be closed.
    pub fn finish(&mut self) -> bool {
        self.kept.is_some() || self.end_snapshot().is_ok()
    }

    /// Ends a kept snapshot that is stale or old; whether one is still kept.
    pub fn expire(&mut self) -> bool {
        if !self.header().is_some_and(|header| self.keeps_current(&header, Instant::now())) {
            // A connection that cannot end it is closed by the next who wants to read with it.
            drop(self.end_snapshot());
        }
        self.kept.is_some()
    }

    /// Whether the snapshot of `header` is kept, and does not hold up checkpoints. An old one may: one that began at
    /// the moment when the copying of the log ended may hold the log all the same.
    fn keeps_current(&self, header: &WalHeader, now: Instant) -> bool {
        let is_fine = |kept: &KeptSnapshot| {
            kept.header == *header && kept.is_copied == self.is_copied() && now - kept.since < SNAPSHOT_LIFETIME
        };
        self.kept.as_ref().is_some_and(is_fine)
    }

    /// When the snapshot that is kept began.
    #[cfg(test)]
    pub fn since(&self) -> Option<Instant> {
        self.kept.as_ref().map(|kept| kept.since)
    }

    fn end_snapshot(&mut self) -> Result<(), SqliteError> {
        self.kept = None;
        if !self.connection.is_autocommit() {
            self.connection.prepare_cached("ROLLBACK")?.execute([])?;
        }
        Ok(())
    }

    fn header(&self) -> Option<WalHeader> {
        self.wal.as_ref().map(WalIndex::header)
    }

    /// Whether all of the log is copied into the database.
    fn is_copied(&self) -> bool {
        self.wal.as_ref().is_some_and(WalIndex::is_copied)
    }
}
