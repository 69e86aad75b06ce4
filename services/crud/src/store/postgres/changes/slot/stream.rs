//! The stream of a slot: a task that reads it into a bounded queue, answers the server, and connects again.
//!
//! The server sends transactions whole, in the order of their commits. While there are few, each is read as it comes; while
//! there are many, the task reads in beats, which costs both sides a fraction of the time.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::framing::{Framing, RawPart};
use crate::store::postgres::{
    Postgres,
    replication::{Replicated, ReplicationConnection, ReplicationError, System},
};

/// Bytes of messages that wait to be taken, after which no more are read.
const QUEUE_BYTES: usize = 16 << 20;
/// Time between two transactions below which the stream is read in beats, of this length.
const BUSY_INTERVAL: Duration = Duration::from_micros(500);
const BEAT: Duration = Duration::from_millis(1);
/// How often it is looked whether the server is to be told something.
const STATUS_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How often the server is told at least how far its log was read.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);
/// How long the server may be silent until the connection is taken for lost.
const SILENCE_MAX: Duration = Duration::from_secs(40);
/// Back-off before the first attempt to connect again; doubles up to [`RETRY_MAX`].
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// Failures within the server one after the other, at the same place of its log, until the slot is taken for lost.
const INTERNAL_ERRORS_MAX: u32 = 5;
/// How long a stream may be interrupted until that is told.
const INTERRUPTION_MAX: Duration = Duration::from_secs(1);
/// Bytes of the server's log without anything for us after which the reader is woken, to confirm them.
const QUIET_BYTES: u64 = 16 << 20;

/// What a slot has told, and was not taken yet. Dropped, the connection is closed.
#[derive(Debug)]
pub struct SlotStream {
    shared: Arc<StreamShared>,
    /// The place that it was started after.
    pub began: u64,
    /// Fires when the connection is closed.
    ended: CancellationToken,
    _end: DropGuard,
}

#[derive(Debug)]
struct StreamShared {
    state: Mutex<StreamState>,
    /// Something is there to be taken.
    arrived: Notify,
    /// Something was taken.
    taken: Notify,
    /// The server need not keep what is before this place.
    confirmed: AtomicU64,
}

#[derive(Debug, Default)]
struct StreamState {
    parts: VecDeque<RawPart>,
    bytes: usize,
    /// All that was committed before this place has arrived.
    passed: u64,
    /// The last commit of which something has arrived, and of it the last row.
    arrived: (u64, u64),
    /// All up to this row of this commit was taken for good.
    taken_up_to: (u64, u64),
    /// The last place that the reader was woken for without anything to take.
    noticed: u64,
    end: Option<StreamEnd>,
    /// Since when there is no connection, and why.
    interruption: Option<(Instant, String)>,
}

/// Why a stream has ended for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamEnd {
    /// The slot does not have what is next, or is gone.
    SlotLost(String),
    /// The server is another one, or has another history.
    OtherServer,
    /// The server was not shut down cleanly: what snapshots saw before may be other transactions now.
    Recovered,
    /// Another process reads the slot.
    Taken,
}

/// What a stream is of.
#[derive(Debug, Clone)]
pub struct StreamTarget {
    /// Name of the slot, and of the publication.
    pub name: String,
    /// What its reader says that it is.
    pub reader: String,
    /// Which server it is of.
    pub system: System,
}

impl SlotStream {
    /// Reads a slot over `connection`, in which it was started after `from`.
    pub fn start(store: &Postgres, connection: ReplicationConnection, target: StreamTarget, from: u64) -> Self {
        let shared = Arc::new(StreamShared {
            state: Mutex::new(StreamState { passed: from, noticed: from, ..StreamState::default() }),
            arrived: Notify::new(),
            taken: Notify::new(),
            confirmed: AtomicU64::new(from),
        });
        let tasks = store.tasks();
        let stop = tasks.stop().child_token();
        let ended = CancellationToken::new();
        let (guard, task) = (ended.clone().drop_guard(), shared.clone());
        let (store, dropped) = (store.clone(), stop.clone());
        tasks.spawn("slot", async move {
            let _ended = guard;
            let mut reader = StreamReader { shared: task.clone(), framing: Framing::new(from) };
            if let Some(end) = dropped.run_until_cancelled(Box::pin(reader.run(&store, connection, &target))).await {
                task.state().end = Some(end);
                task.arrived.notify_one();
            }
        });
        Self { shared, began: from, ended, _end: stop.drop_guard() }
    }

    /// Takes the next part of a transaction.
    pub fn take(&self) -> Option<RawPart> {
        let mut state = self.shared.state();
        let part = state.parts.pop_front()?;
        state.bytes -= part.bytes();
        drop(state);
        self.shared.taken.notify_one();
        Some(part)
    }

    /// The place before which all has arrived, and whether all of that was taken.
    pub fn passed(&self) -> (u64, bool) {
        let mut state = self.shared.state();
        state.noticed = state.passed;
        (state.passed, state.parts.is_empty())
    }

    /// Why nothing more will arrive, after what is there.
    pub fn end(&self) -> Option<StreamEnd> {
        let state = self.shared.state();
        if state.parts.is_empty() { state.end.clone() } else { None }
    }

    /// Why nothing has arrived for a while, as far as that shows.
    pub fn interruption(&self) -> Option<String> {
        let state = self.shared.state();
        let long = |(since, _): &&(Instant, String)| since.elapsed() > INTERRUPTION_MAX;
        state.interruption.as_ref().filter(long).map(|(_, why)| why.clone())
    }

    /// The server need not keep what is before `place` any more. It is told within a second.
    pub fn confirm(&self, place: u64) {
        self.shared.confirmed.fetch_max(place, Ordering::Relaxed);
    }

    /// All up to a row of a commit was taken for good. Where the server asks, as before it shuts down, it is told so at once: it
    /// would wait.
    pub fn took(&self, place: (u64, u64)) {
        self.shared.state().took(place);
    }

    /// The place before which the server need not keep anything.
    pub fn confirmed(&self) -> u64 {
        self.shared.confirmed.load(Ordering::Relaxed)
    }

    /// Waits until there is something to take, or nothing will come.
    pub async fn arrival(&self) {
        self.shared.arrived.notified().await;
    }

    /// Closes the connection, and waits for that.
    pub async fn close(self) {
        let Self { ended, _end, .. } = self;
        drop(_end);
        ended.cancelled().await;
    }
}

impl StreamState {
    fn took(&mut self, place: (u64, u64)) {
        self.taken_up_to = self.taken_up_to.max(place);
    }
}

impl StreamShared {
    fn state(&self) -> MutexGuard<'_, StreamState> {
        self.state.lock().expect("no code panics while it holds this lock")
    }
}

/// The task that reads a stream.
struct StreamReader {
    shared: Arc<StreamShared>,
    framing: Framing,
}

impl StreamReader {
    /// Reads until nothing more can be read, and connects again where the connection is lost.
    async fn run(&mut self, store: &Postgres, connection: ReplicationConnection, target: &StreamTarget) -> StreamEnd {
        let mut connection = Some(connection);
        let mut wait = RETRY_FIRST;
        let mut taken_since = None;
        let mut internal_errors = (self.framing.resume, 0);
        loop {
            let read = match connection.take() {
                Some(mut connection) => {
                    (wait, taken_since) = (RETRY_FIRST, None);
                    self.shared.state().interruption = None;
                    self.read(&mut connection).await
                }
                None => Ok(()),
            };
            let failed = match read {
                Ok(()) => match self.connect_again(store, target).await {
                    Ok(Ok(again)) => {
                        connection = Some(again);
                        continue;
                    }
                    Ok(Err(end)) => return end,
                    Err(error) => error,
                },
                Err(error) => error,
            };
            if let Some(end) = fatal(&failed) {
                return end;
            }
            if failed.is(INTERNAL_ERROR) {
                let (place, count) = internal_errors;
                internal_errors = (self.framing.resume, if place == self.framing.resume { count + 1 } else { 1 });
                if internal_errors.1 >= INTERNAL_ERRORS_MAX {
                    return StreamEnd::SlotLost(failed.to_string());
                }
            }
            self.interrupted(&failed);
            if failed.is(OBJECT_IN_USE) {
                // The server may not have seen yet that our connection before is gone.
                let since: &mut Instant = taken_since.get_or_insert_with(Instant::now);
                if since.elapsed() > Duration::from_secs(90) {
                    return StreamEnd::Taken;
                }
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    /// Notes that there is no connection now.
    fn interrupted(&self, failed: &ReplicationError) {
        let mut state = self.shared.state();
        let (since, is_news) = match &state.interruption {
            Some((since, why)) => (*since, *why != failed.to_string()),
            None => (Instant::now(), true),
        };
        state.interruption = Some((since, failed.to_string()));
        drop(state);
        if is_news {
            tracing::warn!(error = %failed, "the stream of a slot is interrupted");
        }
        if since.elapsed() > INTERRUPTION_MAX {
            self.shared.arrived.notify_one();
        }
    }

    async fn connect_again(
        &mut self,
        store: &Postgres,
        target: &StreamTarget,
    ) -> Result<Result<ReplicationConnection, StreamEnd>, ReplicationError> {
        let (mut connection, system) = store.replicate(&target.reader).await?;
        if (&system.id, &system.timeline) != (&target.system.id, &target.system.timeline) {
            return Ok(Err(StreamEnd::OtherServer));
        }
        if system != target.system {
            return Ok(Err(StreamEnd::Recovered));
        }
        self.framing.begin_again();
        connection.start(&target.name, self.framing.resume, &target.name).await?;
        Ok(Ok(connection))
    }

    /// Reads until the connection ends, which is always an error.
    async fn read(&mut self, connection: &mut ReplicationConnection) -> Result<(), ReplicationError> {
        let mut status = Status { told: (0, 0), at: Instant::now(), heard: Instant::now() };
        let mut check = tokio::time::interval(STATUS_CHECK_INTERVAL);
        check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut last_read = Instant::now();
        loop {
            let mut commits = 0;
            let mut wants_status = false;
            while let Some(replicated) = connection.take_replicated()? {
                match replicated {
                    Replicated::Data { message, is_cut } => {
                        let done = self.framing.take(message, is_cut).ok_or_else(malformed)?;
                        commits += u32::from(done.is_commit);
                        self.queue(done.part);
                    }
                    Replicated::Alive { end, wants_status: wants } => {
                        self.framing.pass(end);
                        wants_status |= wants;
                    }
                }
            }
            self.arrived();
            if wants_status {
                self.confirm_taken();
                self.tell(connection, &mut status, false).await?;
            }
            let elapsed = last_read.elapsed();
            last_read = Instant::now();
            if commits > 1 && elapsed < BUSY_INTERVAL * commits {
                tokio::time::sleep(BEAT).await;
            }
            loop {
                let has_room = self.shared.state().bytes < QUEUE_BYTES;
                tokio::select! {
                    filled = connection.fill(), if has_room => {
                        filled?;
                        status.heard = Instant::now();
                        break;
                    }
                    () = self.shared.taken.notified(), if !has_room => {}
                    _ = check.tick() => {
                        if has_room && status.heard.elapsed() > SILENCE_MAX {
                            return Err(ReplicationError::Lost("the server is silent".to_owned()));
                        }
                        if !has_room {
                            status.heard = Instant::now();
                        }
                        let now = (self.framing.passed, self.shared.confirmed.load(Ordering::Relaxed));
                        if status.told != now || status.at.elapsed() > STATUS_INTERVAL {
                            let asks = status.heard.elapsed() > STATUS_INTERVAL;
                            self.tell(connection, &mut status, asks).await?;
                        }
                    }
                }
            }
        }
    }

    async fn tell(
        &self,
        connection: &mut ReplicationConnection,
        status: &mut Status,
        wants_answer: bool,
    ) -> Result<(), ReplicationError> {
        let now = (self.framing.passed, self.shared.confirmed.load(Ordering::Relaxed));
        connection.confirm(now.0, now.1, wants_answer).await?;
        (status.told, status.at) = (now, Instant::now());
        Ok(())
    }

    fn queue(&self, part: Option<RawPart>) {
        let Some(part) = part else { return };
        let mut state = self.shared.state();
        state.bytes += part.bytes();
        state.arrived = (part.commit, part.last);
        state.parts.push_back(part);
    }

    /// Confirms all that has arrived, where it was taken for good.
    fn confirm_taken(&self) {
        let is_all = {
            let state = self.shared.state();
            state.taken_up_to >= state.arrived
        };
        if is_all {
            self.shared.confirmed.fetch_max(self.framing.passed, Ordering::Relaxed);
        }
    }

    /// Wakes the reader where there is something for it.
    fn arrived(&self) {
        let mut state = self.shared.state();
        state.passed = self.framing.passed;
        let is_quiet = state.passed.saturating_sub(state.noticed) < QUIET_BYTES;
        if state.parts.is_empty() && is_quiet {
            return;
        }
        state.noticed = state.passed;
        drop(state);
        self.shared.arrived.notify_one();
    }
}

/// What the server was told last.
struct Status {
    told: (u64, u64),
    at: Instant,
    /// When something came from the server.
    heard: Instant,
}

/// SQLSTATE of a slot that another connection reads.
pub const OBJECT_IN_USE: &str = "55006";

/// SQLSTATE of a failure within the server: it may pass, or what the slot has cannot be decoded.
const INTERNAL_ERROR: &str = "XX000";

/// What an error means that does not pass by itself.
fn fatal(error: &ReplicationError) -> Option<StreamEnd> {
    let ReplicationError::Refused { code, text } = error else { return None };
    match code.as_str() {
        // The slot is invalidated; it, or the publication, is gone; the server's log is gone.
        "55000" | "42704" | "58P01" => Some(StreamEnd::SlotLost(text.clone())),
        _ => None,
    }
}

fn malformed() -> ReplicationError {
    ReplicationError::Lost("a malformed message of the output plugin".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A transaction whose first part was taken is not taken whole.
    #[test]
    fn what_the_server_asks_for_is_confirmed_once_all_parts_were_taken() {
        let shared = Arc::new(StreamShared {
            state: Mutex::default(),
            arrived: Notify::new(),
            taken: Notify::new(),
            confirmed: AtomicU64::new(0),
        });
        let mut reader = StreamReader { shared: shared.clone(), framing: Framing::new(0) };
        let mut take = |message: Vec<u8>| {
            let framed = reader.framing.take(message.into(), false).expect("a message of the protocol");
            reader.queue(framed.part);
            reader.confirm_taken();
            shared.confirmed.load(Ordering::Relaxed)
        };
        let numbers = |numbers: [u64; 2]| numbers.map(u64::to_be_bytes).concat();
        take([b"B".as_slice(), &numbers([100, 0]), &[0, 0, 0, 7]].concat());
        take([b"I".as_slice(), &vec![0; 3 << 20]].concat());
        shared.state().took((100, 1));
        take([b"I".as_slice(), &[0; 8]].concat());
        let commit = [b"C\0".as_slice(), &numbers([100, 110]), &0_u64.to_be_bytes()].concat();
        assert_eq!(take(commit), 0, "the second row was not taken");
        let parts = shared.state().parts.iter().map(|part| part.last).collect::<Vec<_>>();
        assert_eq!(parts, [1, 2]);
        shared.state().took((100, 2));
        reader.confirm_taken();
        assert_eq!(shared.confirmed.load(Ordering::Relaxed), 110);
    }

    #[test]
    fn only_errors_of_the_slot_end_a_stream() {
        let refused = |code: &str| ReplicationError::Refused { code: code.to_owned(), text: String::new() };
        assert!(fatal(&refused("55000")).is_some() && fatal(&refused("42704")).is_some());
        assert!(fatal(&refused(OBJECT_IN_USE)).is_none() && fatal(&refused("57P01")).is_none());
        assert!(fatal(&refused(INTERNAL_ERROR)).is_none(), "it may pass");
        assert!(fatal(&ReplicationError::Lost(String::new())).is_none());
    }
}
