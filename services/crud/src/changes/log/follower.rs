//! A follower of a log: takes what concerns it from the ring, at its own pace.

use std::{
    collections::{BTreeSet, VecDeque},
    ops::ControlFlow,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use proto::crud::{Change, Event, LogResponse, Resync, ResyncReason, Started, Transaction};
use tokio::{sync::watch, time::Instant};

use super::{CaptureState, LogShared, LogState, Since, ring::RingEvent, source::LogSource};
use crate::{
    Error,
    store::log::{LogLook, LogPart, LogPosition, Loss},
};

/// How long a follower waits for the ring to come to a position that a read has seen already.
const AHEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// A follower of some tables. Dropped, it is one no longer.
pub struct Follower {
    shared: Arc<LogShared>,
    tables: BTreeSet<String>,
    progress: watch::Receiver<u64>,
    stage: FollowStage,
}

/// How far a follower is.
enum FollowStage {
    /// It waits for the capture of its tables, to go on after a position.
    Starting { after: Bytes },
    /// It is to be told that changes may have been missed.
    Missed { reason: ResyncReason, tables: Vec<String> },
    /// It reads what the ring does not have any more.
    CatchingUp { source: Box<LogSource>, events: VecDeque<RingEvent>, has_looked: bool },
    /// It waits until the ring has come to its position, which is ahead of it.
    Ahead { after: LogPosition, encoded: Bytes, until: Instant },
    /// It goes on with an item of the ring. What had been told at the position is not told again; while that is not all
    /// before the item, positions say so.
    Following { next: u64, after: LogPosition, is_ahead: bool },
}

/// What a follower does next.
type Step = ControlFlow<Option<LogResponse>>;

impl Follower {
    /// A follower of tables after a position; without one, from now on.
    pub(super) fn new(shared: Arc<LogShared>, tables: BTreeSet<String>, after: Bytes) -> Self {
        let progress = shared.progress.subscribe();
        Self { shared, tables, progress, stage: FollowStage::Starting { after } }
    }

    /// The next message. Cancel safe.
    pub async fn next(&mut self) -> Result<LogResponse, Error> {
        loop {
            self.progress.mark_unchanged();
            let told = loop {
                if let ControlFlow::Break(told) = self.step()? {
                    break told;
                }
            };
            if let Some(message) = told {
                return Ok(message);
            }
            if let FollowStage::CatchingUp { .. } = self.stage {
                self.catch_up().await?;
                continue;
            }
            let changed = match self.stage {
                // The end of the time is looked at by the next step.
                FollowStage::Ahead { until, .. } => {
                    tokio::time::timeout_at(until, self.progress.changed()).await.unwrap_or(Ok(()))
                }
                _ => self.progress.changed().await,
            };
            if changed.is_err() {
                return Err(Error::Unavailable("the database is closed".to_owned()));
            }
        }
    }

    /// One step without waiting: it breaks with a message, or with none where there is something to wait for.
    fn step(&mut self) -> Result<Step, Error> {
        let shared = self.shared.clone();
        let state = shared.state();
        let Some(since) = captured(&state, &self.tables)? else { return Ok(Step::Break(None)) };
        let Some(end) = state.ring.end() else { return Ok(Step::Break(None)) };
        Ok(match &mut self.stage {
            FollowStage::Starting { after } => {
                let (position, stage) = start(&state, end, after, &since);
                self.stage = stage;
                Step::Break(Some(message(&position, Event::Started(Started {}))))
            }
            FollowStage::Missed { reason, tables } => {
                let resync = Resync { reason: (*reason).into(), tables: std::mem::take(tables) };
                self.stage = FollowStage::at_end(&state, end);
                Step::Break(Some(message(end, Event::Resync(resync))))
            }
            FollowStage::CatchingUp { source, events, has_looked } => match events.pop_front() {
                Some(event) => concerning(&self.tables, &event, &event.position().encode()),
                None => match joined(&state, source, &since).filter(|_| *has_looked) {
                    Some(stage) => {
                        self.stage = stage;
                        Step::Continue(())
                    }
                    None => Step::Break(None),
                },
            },
            FollowStage::Ahead { after, encoded, until } => {
                let is_late = Instant::now() >= *until || after.source != end.source;
                match state.ring.after(after, encoded) {
                    Some(next) => self.stage = FollowStage::in_ring(&state, next, after, encoded),
                    None if is_late => {
                        self.stage = FollowStage::Missed { reason: ResyncReason::LogLost, tables: Vec::new() };
                    }
                    None => return Ok(Step::Break(None)),
                }
                Step::Continue(())
            }
            FollowStage::Following { next, after, is_ahead } => {
                let (first, _) = state.ring.numbers();
                if *next < first {
                    let resync = Resync { reason: ResyncReason::Overflow.into(), tables: Vec::new() };
                    self.stage = FollowStage::at_end(&state, end);
                    return Ok(Step::Break(Some(message(end, Event::Resync(resync)))));
                }
                told_next(&state, &self.tables, (next, after, is_ahead))
            }
        })
    }

    /// Reads more of the log. Cancel safe: what was read is kept as soon as it is there.
    async fn catch_up(&mut self) -> Result<(), Error> {
        let shared = self.shared.clone();
        let FollowStage::CatchingUp { source, events, has_looked } = &mut self.stage else { return Ok(()) };
        let _turn = shared.catching_up.acquire().await.expect("nobody closes the semaphore");
        let numbers = shared.state().numbers;
        let before = source.position();
        let LogLook { losses, parts, position, failed, .. } = Box::pin(source.look(numbers)).await?;
        if let Some((_, error)) = failed.into_iter().next() {
            return Err(error);
        }
        // Only now is the position known to be one of this log.
        *has_looked = true;
        let before = before.unwrap_or_else(|| position.clone());
        let place = |loss: &Loss| if loss.tables.is_empty() { position.clone() } else { before.clone() };
        events.extend(losses.into_iter().map(|loss| (place(&loss), loss)).map(|(at, loss)| RingEvent::Loss(loss, at)));
        events.extend(parts.into_iter().map(RingEvent::Part));
        Ok(())
    }
}

/// The tables with the positions after which the log has all their changes; `None` until all are captured.
fn captured<'s>(
    state: &'s LogState,
    tables: &'s BTreeSet<String>,
) -> Result<Option<Vec<(&'s String, &'s Since)>>, Error> {
    let mut since = Vec::with_capacity(tables.len());
    for table in tables {
        match state.tables.get(table).map(|capture| &capture.progress) {
            Some(CaptureState::Captured(position)) => since.push((table, &**position)),
            Some(CaptureState::Failed(error)) => return Err(error.clone()),
            Some(CaptureState::Pending) => return Ok(None),
            None => return Err(Error::Unavailable("the capture of a table has ended".to_owned())),
        }
    }
    Ok(Some(since))
}

impl FollowStage {
    /// A follower goes on at the end of the ring.
    fn at_end(state: &LogState, end: &LogPosition) -> Self {
        let (_, next) = state.ring.numbers();
        FollowStage::Following { next, after: end.clone(), is_ahead: false }
    }

    /// A follower goes on after a position with an item of the ring.
    fn in_ring(state: &LogState, next: u64, after: &LogPosition, encoded: &Bytes) -> Self {
        let is_ahead = state.ring.is_ahead(after, encoded);
        FollowStage::Following { next, after: after.clone(), is_ahead }
    }
}

/// The position at which a follower starts that was told all before `after`, and what it does next. `since` are the
/// positions after which the log has all changes of its tables.
fn start(
    state: &LogState,
    end: &LogPosition,
    encoded: &Bytes,
    since: &[(&String, &Since)],
) -> (LogPosition, FollowStage) {
    if encoded.is_empty() {
        return (end.clone(), FollowStage::at_end(state, end));
    }
    let missed = |reason, tables| (end.clone(), FollowStage::Missed { reason, tables });
    let Some(after) = LogPosition::decode(encoded) else { return missed(ResyncReason::Position, Vec::new()) };
    if after.source != end.source {
        return missed(ResyncReason::LogLost, Vec::new());
    }
    let lacking = since.iter().filter(|(_, since)| !after.covers(&since.log));
    let lacking: Vec<String> = lacking.map(|(table, _)| (*table).clone()).collect();
    if !lacking.is_empty() {
        return missed(ResyncReason::LogLost, lacking);
    }
    let next = state.ring.after(&after, encoded);
    if let Some(next) = next.filter(|_| is_in_ring(since, &after)) {
        let stage = FollowStage::in_ring(state, next, &after, encoded);
        return (after, stage);
    }
    match &state.source {
        Some(source) => match source.at(&after) {
            Some(source) => {
                let source = Box::new(source);
                (after, FollowStage::CatchingUp { source, events: VecDeque::new(), has_looked: false })
            }
            None => missed(ResyncReason::LogLost, Vec::new()),
        },
        // The node that reads for all tells how far that is from time to time.
        None if next.is_none() && state.ring.start().is_some_and(|start| after.covers(start)) => {
            let until = Instant::now() + AHEAD_TIMEOUT;
            (after.clone(), FollowStage::Ahead { after, encoded: encoded.clone(), until })
        }
        None => missed(ResyncReason::LogLost, Vec::new()),
    }
}

/// Whether the ring has all changes of tables after a position, as far as it goes back.
fn is_in_ring(since: &[(&String, &Since)], position: &LogPosition) -> bool {
    since.iter().all(|(_, since)| position.covers(&since.ring))
}

/// What a follower does that has read so much that the ring has all that follows.
fn joined(state: &LogState, source: &LogSource, since: &[(&String, &Since)]) -> Option<FollowStage> {
    let (position, start) = (source.position()?, state.ring.start()?);
    let (next, _) = state.ring.numbers();
    let is_whole = position.partly.is_none() && position.also.is_none();
    let is_ahead = position.mark == 0;
    (is_whole && position.covers(start) && is_in_ring(since, &position)).then_some(FollowStage::Following {
        next,
        after: position,
        is_ahead,
    })
}

/// What a follower is told of item `next` of the ring, or of the first one from there that it was not told at `after` already.
fn told_next(
    state: &LogState,
    tables: &BTreeSet<String>,
    (next, after, is_ahead): (&mut u64, &mut LogPosition, &mut bool),
) -> Step {
    while let Some((RingEvent::Part(part), _)) = state.ring.item(*next)
        && after.is_after(&part.place)
    {
        *next += 1;
    }
    let Some((event, position)) = state.ring.item(*next) else { return Step::Break(None) };
    *next += 1;
    if let RingEvent::Loss(loss, position) = event
        && loss.tables.is_empty()
    {
        // What follows may be of another log.
        after.clone_from(position);
        *is_ahead = false;
    }
    *is_ahead &= !event.position().sees_all_of(after.ahead());
    if !*is_ahead {
        return concerning(tables, event, position);
    }
    let position = LogPosition { also: Some(after.ahead().clone()), ..event.position().clone() };
    concerning(tables, event, &position.encode())
}

/// What a follower of tables is told of an event.
fn concerning(tables: &BTreeSet<String>, event: &RingEvent, position: &Bytes) -> Step {
    match event {
        RingEvent::Part(part) => {
            let changes = changes(tables, part);
            if changes.is_empty() {
                return Step::Continue(());
            }
            let transaction = Transaction { id: part.place.id, committed_us: part.committed_us, changes };
            Step::Break(Some(told(position, Event::Transaction(transaction))))
        }
        RingEvent::Loss(Loss { reason, tables: lost }, _) => {
            let own: Vec<String> = lost.iter().filter(|table| tables.contains(*table)).cloned().collect();
            if !lost.is_empty() && own.is_empty() {
                return Step::Continue(());
            }
            let resync = Resync { reason: (*reason).into(), tables: own };
            Step::Break(Some(told(position, Event::Resync(resync))))
        }
    }
}

fn changes(tables: &BTreeSet<String>, part: &LogPart) -> Vec<Change> {
    part.changes.iter().filter(|change| tables.contains(&change.table)).cloned().collect()
}

fn message(position: &LogPosition, event: Event) -> LogResponse {
    told(&position.encode(), event)
}

fn told(position: &Bytes, event: Event) -> LogResponse {
    LogResponse { position: position.clone(), event: Some(event) }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.shared.unfollow(&self.tables);
    }
}
