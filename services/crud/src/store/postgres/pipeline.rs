//! Pipelined connections, shared by all short reads: statements are sent without waiting and answered in order.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;

use super::{
    PostgresRows,
    connection::Connection,
    connector::{Callers, Connector},
    error::PostgresError,
    statement_stats::StatementStats,
};
use crate::{bind::Bind, budget::Budget};

/// A shared connection that gave no answer for this long while statements wait has stalled: those statements take
/// connections of their own, and what held them up is cancelled. Ten times what makes a statement short.
const STALL_TIMEOUT: Duration = Duration::from_millis(30);

/// Pipelined connections shared by short statements, chosen round robin.
///
/// One slow statement holds up all behind it, so statements known to be long take a connection of their own.
pub struct Pipeline {
    connector: Arc<Connector>,
    slots: Box<[PipelineSlot]>,
    next: AtomicUsize,
}

/// Place of one shared connection, which is replaced when it is lost or stalls.
#[derive(Default)]
struct PipelineSlot {
    current: ArcSwapOption<PipelinedConnection>,
    /// Held while a connection is made, so that no second one is.
    connecting: tokio::sync::Mutex<()>,
}

/// A connection with statements of several callers in flight.
struct PipelinedConnection {
    connection: Connection,
    connector: Arc<Connector>,
    opened: Instant,
    /// Statements sent and not answered.
    waiting: AtomicUsize,
    /// When the last answer came, or the first statement after a pause was sent; in nanoseconds after `opened`.
    answered: AtomicU64,
    /// Somebody left before a slow answer came.
    abandoned: AtomicBool,
}

impl Pipeline {
    /// A pipeline of `count` connections; none is opened yet.
    pub fn new(connector: Arc<Connector>, count: usize) -> Self {
        Self { connector, slots: (0..count).map(|_| PipelineSlot::default()).collect(), next: AtomicUsize::new(0) }
    }

    /// Runs a short statement. `None` if all connections are stalled or this one stalls: it takes one of its own then.
    pub async fn run(
        &self,
        stats: &StatementStats,
        args: &[Bind],
        budget: &Budget<'_>,
    ) -> Option<Result<PostgresRows, PostgresError>> {
        if self.connector.is_shared() {
            return None;
        }
        let first = self.next.fetch_add(1, Relaxed);
        for offset in 0..self.slots.len() {
            let slot = &self.slots[first.wrapping_add(offset) % self.slots.len()];
            match slot.current.load_full() {
                Some(shared) if shared.connection.is_closed() => {}
                Some(shared) if shared.is_stalled() => continue,
                Some(shared) => return slot.run(&shared, stats, args, budget).await,
                None => {}
            }
            let Ok(connecting) = slot.connecting.try_lock() else { continue };
            let connection = match self.connector.connect(Callers::Many).await {
                Ok(connection) => connection,
                Err(failure) => return Some(Err(failure)),
            };
            let shared = Arc::new(PipelinedConnection::new(connection, self.connector.clone()));
            slot.current.store(Some(shared.clone()));
            drop(connecting);
            return slot.run(&shared, stats, args, budget).await;
        }
        None
    }
}

impl PipelineSlot {
    /// Runs a statement over `shared`; `None` if that stalls.
    async fn run(
        &self,
        shared: &Arc<PipelinedConnection>,
        stats: &StatementStats,
        args: &[Bind],
        budget: &Budget<'_>,
    ) -> Option<Result<PostgresRows, PostgresError>> {
        let room = budget.shared_room();
        let mut in_flight = shared.enter(self);
        let work = pin!(async {
            let ready = shared.connection.prepare(stats).await?;
            let sent = shared.opened.elapsed();
            let rows = shared.connection.run(&ready, args, &room).await;
            stats.record(shared.answered_after(sent), &rows);
            rows
        });
        let Some(result) = shared.unless_stalled(work).await else {
            // The stall cannot be attributed: all statements in flight are recorded as long. Short ones recover.
            stats.record_time(STALL_TIMEOUT);
            return None;
        };
        in_flight.is_answered = true;
        if result.as_ref().is_err_and(PostgresError::is_fatal) {
            self.retire(shared);
        }
        Some(result)
    }

    /// Makes way for a new connection, unless another has done so. The old one serves those that are on it.
    fn retire(&self, shared: &Arc<PipelinedConnection>) {
        self.current.compare_and_swap(shared, None);
    }
}

/// A statement in flight, until it is answered or its caller leaves.
struct InFlight<'a> {
    slot: &'a PipelineSlot,
    shared: &'a Arc<PipelinedConnection>,
    is_answered: bool,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if !self.is_answered && self.shared.is_stalled() {
            self.shared.abandoned.store(true, Relaxed);
            self.slot.retire(self.shared);
        }
        self.shared.waiting.fetch_sub(1, Relaxed);
    }
}

impl PipelinedConnection {
    fn new(connection: Connection, connector: Arc<Connector>) -> Self {
        Self {
            connection,
            connector,
            opened: Instant::now(),
            waiting: AtomicUsize::new(0),
            answered: AtomicU64::new(0),
            abandoned: AtomicBool::new(false),
        }
    }

    fn enter<'a>(self: &'a Arc<Self>, slot: &'a PipelineSlot) -> InFlight<'a> {
        if self.waiting.fetch_add(1, Relaxed) == 0 {
            self.answered.store(nanos(self.opened.elapsed()), Relaxed);
        }
        InFlight { slot, shared: self, is_answered: false }
    }

    /// Records the answer to a statement sent at `sent`. Returns what the server took for this statement alone:
    /// those before it do not count.
    fn answered_after(&self, sent: Duration) -> Duration {
        let now = self.opened.elapsed();
        let before = Duration::from_nanos(self.answered.swap(nanos(now), Relaxed));
        now.saturating_sub(before.max(sent))
    }

    /// The outcome of `work`; `None` as soon as the connection stalls, by this statement or one before it.
    async fn unless_stalled<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        loop {
            match tokio::time::timeout(STALL_TIMEOUT, &mut work).await {
                Ok(result) => return Some(result),
                Err(_) if self.is_stalled() => return None,
                // The queue is long, but it moves.
                Err(_) => {}
            }
        }
    }

    fn is_stalled(&self) -> bool {
        let answered = Duration::from_nanos(self.answered.load(Relaxed));
        self.waiting.load(Relaxed) > 0 && self.opened.elapsed().saturating_sub(answered) > STALL_TIMEOUT
    }
}

impl Drop for PipelinedConnection {
    /// Nobody waits for an answer any more: what still runs is what was abandoned.
    fn drop(&mut self) {
        if *self.abandoned.get_mut() {
            self.connector.cancel(self.connection.cancellation(), ());
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
