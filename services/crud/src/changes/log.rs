//! The log of changes of one database: transactions with the rows before and after, for any number of followers.
//!
//! One task reads the log while somebody follows it, and keeps what it found in a ring; followers take it from there,
//! each at its own pace. One that is left behind by the ring is told that it missed something.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::{Stream, stream};
use mesh::Tasks;
use proto::crud::{LogResponse, Snapshot};
use query::{Schema, Table, resources::Numbers};
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::Instant,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::{follower::Follower, ring::Ring, source::LogSource};
use super::upkeep::{LINGER, LINGER_CHECK_INTERVAL, Upkeep};
use crate::{
    Error,
    sql::Dialect,
    store::{
        Store,
        log::{ImageWriter, LogLag, LogLook, LogPosition},
    },
};

mod follower;
mod ring;
mod source;

/// Followers that read the log by themselves at the same time, since they start before the ring; more wait.
const CATCHING_UP_MAX: usize = 2;
/// Least time between two looks at a log that is asked for: what is committed meanwhile is found together.
const LOOK_INTERVAL_MIN: Duration = Duration::from_millis(2);
/// Transactions that come closer together than this are waited for, so long, where the log arrives by itself.
const BUSY_INTERVAL: Duration = Duration::from_micros(500);
const BEAT: Duration = Duration::from_millis(1);

/// The log of one database. Dropped, it ends its followers.
#[derive(Debug)]
pub struct LogHub {
    shared: Arc<LogShared>,
    tasks: Tasks,
    stop: CancellationToken,
    _end: DropGuard,
}

#[derive(Debug)]
struct LogShared {
    store: Store,
    schema: ArcSwap<Schema>,
    state: Mutex<LogState>,
    /// Counts changes of the state, for followers.
    progress: watch::Sender<u64>,
    /// Another table is followed.
    wake: Notify,
    dialect: Dialect,
    /// Followers that read what the ring does not have any more: a few at a time.
    catching_up: Semaphore,
}

#[derive(Debug, Default)]
struct LogState {
    tables: BTreeMap<String, TableCapture>,
    ring: Ring,
    /// Of which followers that start before the ring have one each, at their positions; `None` where only one may read.
    source: Option<LogSource>,
    numbers: Numbers,
    is_read: bool,
    lag: LogLag,
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
    /// The log has all changes after this position.
    Captured(Box<LogPosition>),
    /// It failed.
    Failed(Error),
}

impl LogHub {
    /// The log of `store`, whose tables are those of `schema` until it is told of another.
    pub fn new(store: &Store, schema: Arc<Schema>, dialect: Dialect, tasks: &Tasks) -> Self {
        let stop = tasks.draining().child_token();
        let shared = LogShared {
            store: store.clone(),
            schema: ArcSwap::new(schema),
            state: Mutex::default(),
            progress: watch::Sender::new(0),
            wake: Notify::new(),
            dialect,
            catching_up: Semaphore::new(CATCHING_UP_MAX),
        };
        let _end = stop.clone().drop_guard();
        let hub = Self { shared: Arc::new(shared), tasks: tasks.clone(), stop, _end };
        hub.shared.state().is_read = true;
        hub.read(Upkeep::at_start());
        hub
    }

    /// Images have the columns of `schema` from now on.
    pub fn describe(&self, schema: Arc<Schema>) {
        self.shared.schema.store(schema);
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
            let capture = state.tables.entry(table.clone()).or_insert_with(|| TableCapture {
                followers: 0,
                unfollowed: None,
                progress: CaptureState::Pending,
            });
            capture.followers += 1;
            capture.unfollowed = None;
            if matches!(capture.progress, CaptureState::Failed(_)) {
                capture.progress = CaptureState::Pending;
            }
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
        self.shared.state().lag
    }

    /// Whether tables are captured.
    pub fn is_kept(&self) -> bool {
        self.shared.state().ring.end().is_some()
    }

    /// Starts the task that reads the log. It ends its captures when the database is closed, unless the node drains: then
    /// those of tables that were followed stay, and the next node that starts takes them over or ends them.
    fn read(&self, mut upkeep: Upkeep) {
        let (shared, stop, dropped) = (self.shared.clone(), self.stop.clone(), self.tasks.stop().clone());
        let draining = self.tasks.draining().clone();
        let task = async move {
            let mut source = LogSource::new(&shared.store);
            let reading = Box::pin(shared.read(&mut source, &mut upkeep));
            if stop.run_until_cancelled(reading).await.is_none() {
                shared.fail(&Error::Unavailable("the database is closed".to_owned()));
                // Who followed a table goes on where it was when the node is back, or on another.
                if !draining.is_cancelled() || !shared.is_captured() {
                    upkeep.end("triggers of the log", source.release(&[])).await;
                }
            }
        };
        self.tasks.spawn_until_drain("log", async move {
            dropped.run_until_cancelled(Box::pin(task)).await;
        });
    }
}

impl LogShared {
    /// Reads the log until nothing is captured any more.
    async fn read(&self, source: &mut LogSource, upkeep: &mut Upkeep) {
        let (mut schema, mut last_look) = (self.schema.load_full(), Instant::now());
        loop {
            let now = self.schema.load_full();
            if !Arc::ptr_eq(&schema, &now) {
                self.describe(source, &now);
                schema = now;
            }
            self.capture(source, upkeep, &schema).await;
            let (mut has_more, mut found) = (false, None);
            if source.is_capturing() {
                let numbers = self.state().numbers;
                match source.look(numbers).await {
                    Ok(look) => {
                        (has_more, found) = (look.has_more, Some(look.parts.len()));
                        self.found(look, source);
                    }
                    Err(error) => {
                        self.fail(&error);
                        upkeep.sweep_within(LINGER);
                    }
                }
            }
            self.release(source, upkeep).await;
            if upkeep.is_done() && self.is_done() {
                return;
            }
            if has_more {
                continue;
            }
            if let Some(pause) = pause(source, found, last_look.elapsed()) {
                tokio::time::sleep(pause).await;
            }
            last_look = Instant::now();
            tokio::select! {
                () = source.commit_after(), if self.has_followers() => {}
                () = self.wake.notified() => {}
                () = tokio::time::sleep(LINGER_CHECK_INTERVAL) => {}
            }
        }
    }

    /// Captures the tables whose capture has not begun.
    async fn capture(&self, source: &mut LogSource, upkeep: &mut Upkeep, schema: &Schema) {
        for name in self.pending() {
            upkeep.capturing();
            let captured = match schema.table(&name) {
                Ok(table) => source.capture(&name, self.writer(table)).await,
                Err(error) => Err(error.into()),
            };
            let progress = match captured {
                Ok(since) => CaptureState::Captured(Box::new(since)),
                Err(error) => {
                    upkeep.sweep_within(if matches!(error, Error::Query(_)) { Duration::ZERO } else { LINGER });
                    CaptureState::Failed(error)
                }
            };
            let mut state = self.state();
            if let Some(position) = source.position() {
                state.source = source.at(&position);
                state.ring.begin(position);
            }
            if let Some(capture) = state.tables.get_mut(&name) {
                capture.progress = progress;
            }
            drop(state);
            self.told();
        }
    }

    fn pending(&self) -> Vec<String> {
        let state = self.state();
        let pending = state.tables.iter().filter(|(_, capture)| matches!(capture.progress, CaptureState::Pending));
        pending.map(|(name, _)| name.clone()).collect()
    }

    fn writer(&self, table: &Table) -> Arc<ImageWriter> {
        Arc::new(ImageWriter::of(table, |column| self.dialect.result_cast(column)))
    }

    /// Images have the columns of `schema` from now on.
    fn describe(&self, source: &mut LogSource, schema: &Schema) {
        let mut state = self.state();
        for name in state.tables.keys() {
            if let Ok(table) = schema.table(name) {
                source.describe(name, self.writer(table));
            }
        }
        state.source = source.position().and_then(|position| source.at(&position));
    }

    /// Puts what a look found into the ring.
    fn found(&self, mut look: LogLook, source: &mut LogSource) {
        let mut state = self.state();
        let failed = std::mem::take(&mut look.failed);
        let is_other = !failed.is_empty() || !look.losses.is_empty();
        for (name, error) in failed {
            if let Some(capture) = state.tables.get_mut(&name) {
                capture.progress = CaptureState::Failed(error);
            }
        }
        for loss in &look.losses {
            let mut position = Box::new(look.position.clone());
            if let Some(visible) = &look.visible {
                position.seen.clone_from(visible);
            }
            for (name, capture) in &mut state.tables {
                let is_lost = loss.tables.is_empty() || loss.tables.contains(name);
                if is_lost && matches!(capture.progress, CaptureState::Captured(_)) {
                    capture.progress = CaptureState::Captured(position.clone());
                }
            }
        }
        if is_other {
            state.source = source.at(&look.position);
        }
        let taken = look.position.clone();
        let is_news = state.ring.add(look, Instant::now()) || is_other;
        source.confirm(&taken);
        state.lag = source.lag();
        drop(state);
        if is_news {
            self.told();
        }
    }

    /// Ends all followers.
    fn fail(&self, error: &Error) {
        for capture in self.state().tables.values_mut() {
            capture.progress = CaptureState::Failed(error.clone());
        }
        self.told();
    }

    fn told(&self) {
        self.progress.send_modify(|count| *count += 1);
    }

    /// Ends the capture of tables that nobody has followed for long, and what else is due.
    async fn release(&self, source: &mut LogSource, upkeep: &mut Upkeep) {
        let now = Instant::now();
        let mut has_lapsed = false;
        self.state().tables.retain(|_, capture| {
            let is_failed = matches!(capture.progress, CaptureState::Failed(_));
            let stays = capture.followers > 0
                || !is_failed && capture.unfollowed.is_none_or(|since| now.duration_since(since) < LINGER);
            has_lapsed |= !stays && !is_failed;
            stays
        });
        if !has_lapsed && !upkeep.is_due(now) {
            return;
        }
        let kept: Vec<String> = self.state().tables.keys().cloned().collect();
        if kept.is_empty() {
            let mut state = self.state();
            (state.ring, state.source, state.lag) = (Ring::default(), None, LogLag::default());
        }
        upkeep.release("triggers of the log", source.release(&kept)).await;
    }

    /// Whether nothing is captured any more; whoever follows next starts a task then.
    fn is_done(&self) -> bool {
        let mut state = self.state();
        state.is_read = !state.tables.is_empty();
        !state.is_read
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

    fn state(&self) -> MutexGuard<'_, LogState> {
        self.state.lock().expect("no code panics while it holds this lock")
    }
}

/// How long to wait after a look that found so many transactions, none where it failed, and the wait for which began `since`
/// ago: what is committed meanwhile is found together.
fn pause(source: &LogSource, found: Option<usize>, since: Duration) -> Option<Duration> {
    let Some(found) = found.filter(|_| source.is_streamed()) else { return Some(LOOK_INTERVAL_MIN) };
    let found = u32::try_from(found).unwrap_or(u32::MAX);
    (found > 1 && since < BUSY_INTERVAL.saturating_mul(found)).then_some(BEAT)
}
