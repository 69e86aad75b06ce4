//! The log of changes of one database: transactions with the rows before and after, for any number of followers.
//!
//! One task reads the log while somebody follows it, and keeps what it found in a ring; followers take it from there,
//! each at its own pace. One that is left behind by the ring is told that it missed something. Where nodes share a database
//! and a bus, one of them reads for all, and each fills its ring from the journal that this one writes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::{FutureExt, Stream, stream};
use mesh::Tasks;
use proto::crud::{LogResponse, Snapshot};
use query::{Schema, resources::Numbers};
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::Instant,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::{
    follower::Follower,
    outlet::Outlet,
    reader::{CaptureLoop, LogDatabase},
    ring::Ring,
    shared::LogNode,
    source::LogSource,
};
use super::upkeep::{LINGER, Upkeep};
use crate::{
    Error,
    sql::Dialect,
    store::{
        Store,
        log::{LogLag, LogPosition, Loss},
    },
};

mod follower;
mod outlet;
mod reader;
mod record;
mod ring;
mod shared;
mod source;

pub use shared::SharedLog;

/// Followers that read the log by themselves at the same time, since they start before the ring; more wait.
const CATCHING_UP_MAX: usize = 2;

/// The log of one database. Dropped, it ends its followers.
#[derive(Debug)]
pub struct LogHub {
    shared: Arc<LogShared>,
    database: Arc<LogDatabase>,
    /// Where other nodes read the same database.
    nodes: Option<SharedLog>,
    tasks: Tasks,
    stop: CancellationToken,
    _end: DropGuard,
}

#[derive(Debug)]
struct LogShared {
    state: Mutex<LogState>,
    /// Counts changes of the state, for followers.
    progress: watch::Sender<u64>,
    /// Another table is followed.
    wake: Notify,
    /// Followers that read what the ring does not have any more: a few at a time.
    catching_up: Semaphore,
    /// How far what this node read was behind what was committed.
    lag: Arc<Mutex<LogLag>>,
}

#[derive(Debug, Default)]
struct LogState {
    tables: BTreeMap<String, TableCapture>,
    ring: Ring,
    /// Of which followers that start before the ring have one each, at their positions; `None` where only one may read.
    source: Option<LogSource>,
    numbers: Numbers,
    is_read: bool,
    /// The tables that the reader of all nodes captures, as far as this one knows.
    known: BTreeMap<String, Since>,
    /// Counts tables that are followed again after their capture failed.
    attempt: u64,
}

/// Capture of a table.
#[derive(Debug)]
struct TableCapture {
    followers: usize,
    /// Since when nobody follows it.
    unfollowed: Option<Instant>,
    progress: CaptureState,
}

/// How far the capture of a table is.
#[derive(Debug, Clone)]
enum CaptureState {
    /// Not begun.
    Pending,
    /// All changes after these positions are there.
    Captured(Box<Since>),
    /// It failed.
    Failed(Error),
}

/// Since when the changes of a table are all there.
#[derive(Debug, Clone, PartialEq)]
struct Since {
    /// In the log of the database.
    log: LogPosition,
    /// In the ring, as far as that goes back.
    ring: LogPosition,
}

impl LogHub {
    /// The log of `store`, whose tables are those of `schema` until it is told of another; with `nodes`, one of them reads
    /// it for all.
    pub fn new(store: &Store, schema: Arc<Schema>, dialect: Dialect, tasks: &Tasks, nodes: Option<SharedLog>) -> Self {
        let stop = tasks.draining().child_token();
        let database = LogDatabase { store: store.clone(), schema: ArcSwap::new(schema), dialect };
        let (database, shared) = (Arc::new(database), Arc::default());
        let _end = stop.clone().drop_guard();
        let hub = Self { shared, database, nodes, tasks: tasks.clone(), stop, _end };
        hub.shared.state().is_read = true;
        hub.read(Upkeep::at_start());
        hub
    }

    /// Images have the columns of `schema` from now on.
    pub fn describe(&self, schema: Arc<Schema>) {
        self.database.schema.store(schema);
        // A source may have to ask the database what has changed.
        self.shared.wake.notify_one();
    }

    /// Changes of tables after a position; without one, from now on. An error is the last item.
    pub fn follow(
        &self,
        tables: Vec<String>,
        after: Bytes,
        numbers: Numbers,
    ) -> impl Stream<Item = Result<LogResponse, Error>> + Send + use<> {
        let mut state = self.shared.state();
        state.numbers = numbers;
        for table in &tables {
            state.follow(table);
        }
        if !std::mem::replace(&mut state.is_read, true) {
            self.read(Upkeep::default());
        }
        drop(state);
        self.shared.wake.notify_one();
        let follower = Follower::new(self.shared.clone(), tables.into_iter().collect(), after);
        stream::unfold(Some(follower), |follower| async {
            let mut follower = follower?;
            match follower.next().await {
                Ok(message) => Some((Ok(message), Some(follower))),
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    /// The position of reads in a snapshot; `None` where no table is captured.
    pub fn position(&self, seen: Snapshot, mark: u32) -> Option<LogPosition> {
        let source = self.shared.state().ring.end()?.source;
        Some(LogPosition { mark, ..LogPosition::of(source, seen) })
    }

    /// How far followers are behind what was committed.
    pub fn lag(&self) -> LogLag {
        *self.shared.lag()
    }

    /// Whether tables are captured.
    pub fn is_kept(&self) -> bool {
        self.shared.state().ring.end().is_some()
    }

    /// Starts the task that reads the log, or takes part in that.
    fn read(&self, upkeep: Upkeep) {
        let dropped = self.tasks.stop().clone();
        let task = match &self.nodes {
            None => Box::pin(self.read_alone(upkeep)).boxed(),
            Some(nodes) => {
                let node = LogNode::new(nodes.clone(), self.shared.clone(), self.database.clone());
                let (stop, draining) = (self.stop.clone(), self.tasks.draining().clone());
                async move { Box::pin(node.run(upkeep, &stop, &draining)).await }.boxed()
            }
        };
        self.tasks.spawn_until_drain("log", async move {
            dropped.run_until_cancelled(task).await;
        });
    }

    /// Reads the log for this node. Captures end when the database is closed, unless the node drains: then those of tables
    /// that were followed stay, and the next node that starts takes them over or ends them.
    fn read_alone(&self, mut upkeep: Upkeep) -> impl Future<Output = ()> + Send + use<> {
        let (shared, database, stop) = (self.shared.clone(), self.database.clone(), self.stop.clone());
        let draining = self.tasks.draining().clone();
        async move {
            let mut source = LogSource::new(&database.store);
            let mut reader = CaptureLoop {
                database: &database,
                shared: &shared,
                source: &mut source,
                upkeep: &mut upkeep,
                outlet: &mut Outlet::Ring,
            };
            if stop.run_until_cancelled(Box::pin(reader.read())).await.is_none() {
                shared.fail(&Error::Unavailable("the database is closed".to_owned()));
                // Who followed a table goes on where it was when the node is back, or on another.
                if !draining.is_cancelled() || !shared.is_captured() {
                    upkeep.end("triggers of the log", source.release(&[])).await;
                }
            }
        }
    }
}

impl LogShared {
    /// Ends all followers; whether any had not ended before.
    fn fail(&self, error: &Error) -> bool {
        let mut state = self.state();
        state.known.clear();
        let mut is_news = false;
        for capture in state.tables.values_mut() {
            is_news |= !matches!(capture.progress, CaptureState::Failed(_));
            capture.progress = CaptureState::Failed(error.clone());
        }
        drop(state);
        self.told();
        is_news
    }

    /// The tables whose capture has not begun.
    fn pending(&self) -> Vec<String> {
        let state = self.state();
        let pending = state.tables.iter().filter(|(_, capture)| matches!(capture.progress, CaptureState::Pending));
        pending.map(|(name, _)| name.clone()).collect()
    }

    /// Whether nothing is captured any more; whoever follows next starts a task then.
    fn is_done(&self) -> bool {
        let mut state = self.state();
        state.is_read = !state.tables.is_empty();
        !state.is_read
    }

    fn told(&self) {
        self.progress.send_modify(|count| *count += 1);
    }

    /// Whether any table is captured still.
    fn is_captured(&self) -> bool {
        !self.state().tables.is_empty()
    }

    fn has_followers(&self) -> bool {
        self.state().tables.values().any(|capture| capture.followers > 0)
    }

    /// A follower of these tables is gone.
    fn unfollow(&self, tables: &BTreeSet<String>) {
        let mut state = self.state();
        for table in tables {
            if let Some(capture) = state.tables.get_mut(table) {
                capture.followers = capture.followers.saturating_sub(1);
                if capture.followers == 0 {
                    capture.unfollowed = Some(Instant::now());
                }
            }
        }
    }

    fn lag(&self) -> MutexGuard<'_, LogLag> {
        self.lag.lock().expect("no code panics while it holds this lock")
    }

    fn state(&self) -> MutexGuard<'_, LogState> {
        self.state.lock().expect("no code panics while it holds this lock")
    }
}

impl LogState {
    /// A table has a follower more.
    fn follow(&mut self, table: &str) {
        let known = self.known.get(table);
        let capture = self.tables.entry(table.to_owned()).or_insert_with(|| TableCapture {
            followers: 0,
            unfollowed: None,
            progress: known.map_or(CaptureState::Pending, |since| CaptureState::Captured(Box::new(since.clone()))),
        });
        capture.followers += 1;
        capture.unfollowed = None;
        if matches!(capture.progress, CaptureState::Failed(_)) {
            capture.progress = CaptureState::Pending;
            self.attempt += 1;
        }
    }

    /// Changes may have been missed up to a position.
    fn lost(&mut self, loss: &Loss, position: &LogPosition) {
        let since = Since { log: position.clone(), ring: position.clone() };
        for (_, known) in self.known.iter_mut().filter(|(name, _)| loss.concerns(name)) {
            known.clone_from(&since);
        }
        for (_, capture) in self.tables.iter_mut().filter(|(name, _)| loss.concerns(name)) {
            if matches!(capture.progress, CaptureState::Captured(_)) {
                capture.progress = CaptureState::Captured(Box::new(since.clone()));
            }
        }
    }

    /// Forgets tables that nobody has followed for long, and those that are not captured; whether any was of the former.
    fn lapse(&mut self, now: Instant) -> bool {
        let mut has_lapsed = false;
        self.tables.retain(|_, capture| {
            let is_failed = matches!(capture.progress, CaptureState::Failed(_));
            let stays = capture.followers > 0
                || !is_failed && capture.unfollowed.is_none_or(|since| now.duration_since(since) < LINGER);
            has_lapsed |= !stays && !is_failed;
            stays
        });
        has_lapsed
    }

    /// The tables that somebody follows although they are not captured, and why they are not.
    fn failures(&self) -> Vec<(String, Error)> {
        let followed = self.tables.iter().filter(|(_, capture)| capture.followers > 0);
        let failed = followed.filter_map(|(name, capture)| match &capture.progress {
            CaptureState::Failed(error) => Some((name.clone(), error.clone())),
            CaptureState::Pending | CaptureState::Captured(_) => None,
        });
        failed.collect()
    }

    /// The tables that are captured, with the positions after which all changes are there.
    fn captures(&self) -> BTreeMap<String, LogPosition> {
        let captured = self.tables.iter().filter_map(|(name, capture)| match &capture.progress {
            CaptureState::Captured(since) => Some((name.clone(), since.ring.clone())),
            CaptureState::Pending | CaptureState::Failed(_) => None,
        });
        captured.collect()
    }
}

impl Default for LogShared {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            progress: watch::Sender::new(0),
            wake: Notify::new(),
            catching_up: Semaphore::new(CATCHING_UP_MAX),
            lag: Arc::default(),
        }
    }
}
