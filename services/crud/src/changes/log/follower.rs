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

use super::{
    CaptureState, LogShared, LogState, Since,
    ring::{Ring, RingEvent},
    source::LogSource,
};
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
    /// It was told so at this position, and starts there with an item of the ring.
    StartingAnew { position: Bytes, next: u64, after: LogPosition, is_ahead: bool },
    /// It reads what the ring does not have any more. It starts at the position once the log was looked at.
    CatchingUp { source: Box<LogSource>, events: VecDeque<RingEvent>, has_looked: bool, start: Option<LogPosition> },
    /// It waits until the ring has come to its position, which is ahead of it.
    Ahead { after: LogPosition, encoded: Bytes, until: Instant },
    /// It goes on with an item of the ring. What has been told at the position is not told again; while that is not all
    /// before the item, positions say so.
    Following { next: u64, after: LogPosition, is_ahead: bool },
}

/// What a follower does next.
type Step = ControlFlow<Option<LogResponse>>;

/// How far a follower is in the ring: as of [`FollowStage::Following`].
type Going<'f> = (&'f mut u64, &'f mut LogPosition, &'f mut bool);

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
                let (started, stage) = start(&state, end, after, &since);
                let missed = missed_at_once(&state.ring, &self.tables, &stage);
                let started = started.map(|position| message(&position, Event::Started(Started {})));
                let (message, stage) = missed.map_or((started, stage), |(missed, stage)| (Some(missed), stage));
                self.stage = stage;
                message.map_or(Step::Continue(()), |message| Step::Break(Some(message)))
            }
            FollowStage::Missed { reason, tables } => {
                let resync = Resync { reason: (*reason).into(), tables: std::mem::take(tables) };
                let (next, after, position) = (state.ring.numbers().1, end.clone(), end.encode());
                let missed = told(&position, Event::Resync(resync));
                let is_ahead = state.ring.is_ahead(&after, &position);
                self.stage = FollowStage::StartingAnew { position, next, after, is_ahead };
                Step::Break(Some(missed))
            }
            FollowStage::StartingAnew { position, next, after, is_ahead } => {
                let started = told(position, Event::Started(Started {}));
                let (next, after, is_ahead) = (*next, after.clone(), *is_ahead);
                self.stage = FollowStage::Following { next, after, is_ahead };
                Step::Break(Some(started))
            }
            FollowStage::CatchingUp { has_looked: false, .. } => Step::Break(None),
            FollowStage::CatchingUp { source, events, start, .. } => {
                match caught_up(&self.tables, events, start) {
                    Step::Break(None) => {}
                    step => return Ok(step),
                }
                let Some(stage) = joined(&state, source, &since) else { return Ok(Step::Break(None)) };
                self.stage = stage;
                Step::Continue(())
            }
            FollowStage::Ahead { after, encoded, until } => {
                let is_late = Instant::now() >= *until || after.source != end.source;
                match state.ring.after(after, encoded) {
                    Some(next) => self.stage = FollowStage::in_ring(&state, next, after, encoded),
                    None if is_late => {
                        self.stage = FollowStage::at_end(&state, end);
                        return Ok(missed_all(end, ResyncReason::LogLost));
                    }
                    None => return Ok(Step::Break(None)),
                }
                Step::Continue(())
            }
            FollowStage::Following { next, after, is_ahead } => {
                if is_left_behind(&state.ring, &since, next, after) {
                    self.stage = FollowStage::at_end(&state, end);
                    return Ok(missed_all(end, ResyncReason::Overflow));
                }
                follow(&state.ring, &self.tables, (next, after, is_ahead))
            }
        })
    }

    /// Reads more of the log. Cancel safe: what was read is kept as soon as it is there.
    async fn catch_up(&mut self) -> Result<(), Error> {
        let shared = self.shared.clone();
        let FollowStage::CatchingUp { source, events, has_looked, .. } = &mut self.stage else { return Ok(()) };
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
        FollowStage::Following { next, after: end.clone(), is_ahead: state.ring.is_ahead(end, &end.encode()) }
    }

    /// A follower goes on after a position with an item of the ring.
    fn in_ring(state: &LogState, next: u64, after: &LogPosition, encoded: &Bytes) -> Self {
        let is_ahead = state.ring.is_ahead(after, encoded);
        FollowStage::Following { next, after: after.clone(), is_ahead }
    }
}

/// The position at which a follower starts that was told all before `after`, where that is known, and what it does next.
/// `since` are the positions after which the log has all changes of its tables.
fn start(
    state: &LogState,
    end: &LogPosition,
    encoded: &Bytes,
    since: &[(&String, &Since)],
) -> (Option<LogPosition>, FollowStage) {
    if encoded.is_empty() {
        return (Some(end.clone()), FollowStage::at_end(state, end));
    }
    let missed = |reason, tables| (None, FollowStage::Missed { reason, tables });
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
        return (Some(after), stage);
    }
    match &state.source {
        Some(source) => match source.at(&after) {
            Some(source) => {
                let (source, events, start) = (Box::new(source), VecDeque::new(), Some(after));
                (None, FollowStage::CatchingUp { source, events, has_looked: false, start })
            }
            None => missed(ResyncReason::LogLost, Vec::new()),
        },
        // The node that reads for all tells how far that is from time to time.
        None if next.is_none() && state.ring.start().is_some_and(|start| after.covers(start)) => {
            let until = Instant::now() + AHEAD_TIMEOUT;
            (Some(after.clone()), FollowStage::Ahead { after, encoded: encoded.clone(), until })
        }
        None => missed(ResyncReason::LogLost, Vec::new()),
    }
}

/// Whether the ring does not have all any more that follows what was told at a position, before the item that is `next`. What
/// was missed of a table stands at the place of what was told before it: only `since` says that it was.
fn is_left_behind(ring: &Ring, since: &[(&String, &Since)], next: &mut u64, position: &LogPosition) -> bool {
    let (first, _) = ring.numbers();
    // One that was begun anew may have all.
    if *next < first && ring.start().is_some_and(|start| position.covers(start)) && is_in_ring(since, position) {
        *next = first;
    }
    *next < first
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

/// The next message of a follower of tables that goes on with an item of the ring; none where there is nothing to tell.
fn follow(ring: &Ring, tables: &BTreeSet<String>, (next, after, is_ahead): Going<'_>) -> Step {
    let (event, position) = loop {
        let Some((event, position)) = ring.item(*next) else { return Step::Break(None) };
        *next += 1;
        let is_told = is_told(after, event);
        if let RingEvent::Part(part) = event {
            after.reach(&part.position);
        }
        if !is_told {
            break (event, position);
        }
    };
    match event {
        RingEvent::Part(part) => *is_ahead &= !part.position.sees_all_of(after.ahead()),
        RingEvent::Loss(loss, _) if !loss.tables.is_empty() => {}
        RingEvent::Loss(_, anew) => {
            // What follows may be of another log.
            after.clone_from(anew);
            *is_ahead = ring.is_ahead(anew, position);
            return concerning(tables, event, position);
        }
    }
    match *is_ahead {
        true => {
            let position = LogPosition { also: Some(after.ahead().clone()), ..event.position().clone() };
            concerning(tables, event, &position.encode())
        }
        false => concerning(tables, event, position),
    }
}

/// Whether what was told at a position is all of an event.
fn is_told(position: &LogPosition, event: &RingEvent) -> bool {
    match event {
        RingEvent::Part(part) => position.is_after(&part.place),
        RingEvent::Loss(_, lost) => match (position.commit_order(), lost.commit_order()) {
            (Some(own), Some(lost_at)) => position.source == lost.source && own > lost_at,
            (Some(_) | None, _) => false,
        },
    }
}

/// The loss that is the first that a follower of tables would be told, and what it does after it.
fn missed_at_once(ring: &Ring, tables: &BTreeSet<String>, stage: &FollowStage) -> Option<(LogResponse, FollowStage)> {
    let FollowStage::Following { next, after, is_ahead } = stage else { return None };
    let (mut next, mut after, mut is_ahead) = (*next, after.clone(), *is_ahead);
    let told = loop {
        if let Step::Break(told) = follow(ring, tables, (&mut next, &mut after, &mut is_ahead)) {
            break told?;
        }
    };
    let is_loss = matches!(told.event, Some(Event::Resync(_)));
    let position = told.position.clone();
    is_loss.then(|| (told, FollowStage::StartingAnew { position, next, after, is_ahead }))
}

/// What a follower is told of what it has read by itself; none where nothing of that is left. It starts at `start`, but for what
/// it missed before: that is told first.
fn caught_up(tables: &BTreeSet<String>, events: &mut VecDeque<RingEvent>, start: &mut Option<LogPosition>) -> Step {
    let is_missed = |event: &RingEvent| match event {
        RingEvent::Part(part) => changes(tables, part).is_empty(),
        RingEvent::Loss(..) => true,
    };
    if start.is_some() && !events.front().is_some_and(is_missed) {
        return Step::Break(start.take().map(|position| message(&position, Event::Started(Started {}))));
    }
    let Some(event) = events.pop_front() else { return Step::Break(None) };
    if let Some(start) = start {
        start.clone_from(event.position());
    }
    concerning(tables, &event, &event.position().encode())
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

/// Changes of any table may have been missed before a position.
fn missed_all(position: &LogPosition, reason: ResyncReason) -> Step {
    Step::Break(Some(message(position, Event::Resync(Resync { reason: reason.into(), tables: Vec::new() }))))
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

#[cfg(test)]
mod tests {
    use proto::crud::Snapshot;

    use super::*;
    use crate::{
        changes::log::{Since, TableCapture},
        store::log::{Place, change},
    };

    fn part(id: u64, commit: u64) -> LogPart {
        let changes = vec![change("note", proto::crud::Operation::Insert, Bytes::new(), Bytes::from_static(b"{}"))];
        let order = (commit, 1);
        let position = LogPosition::in_commit_order(7, Snapshot::default(), order);
        LogPart { place: Place { id, order }, committed_us: 0, changes, position }
    }

    async fn next(follower: &mut Follower) -> Option<Option<u64>> {
        let message = tokio::time::timeout(Duration::from_millis(50), follower.next()).await.ok()?.unwrap();
        match message.event {
            Some(Event::Transaction(transaction)) => Some(Some(transaction.id)),
            _ => Some(None),
        }
    }

    /// A slot tells again what was committed before it was started, in the order of commits: a transaction that was not
    /// seen then may be between others that were.
    #[tokio::test]
    async fn what_was_seen_at_the_start_is_not_told_to_who_comes_back_either() {
        let seen = Snapshot { start: 5, end: 10, running: vec![5] };
        let start = LogPosition { seen, ..LogPosition::in_commit_order(7, Snapshot::default(), (99, u64::MAX)) };
        for loss in [None, Some(vec![]), Some(vec!["note".to_owned()])] {
            let shared = Arc::new(LogShared::default());
            let since = Since { log: start.clone(), ring: start.clone() };
            let progress = CaptureState::Captured(Box::new(since));
            let capture = TableCapture { followers: 1, unfollowed: None, progress };
            shared.state().tables.insert("note".to_owned(), capture);
            shared.state().ring.begin(start.clone());
            let follow = |after: &Bytes| Follower::new(shared.clone(), ["note".to_owned()].into(), after.clone());
            let mut follower = follow(&Bytes::new());
            assert_eq!(next(&mut follower).await, Some(None));
            if let Some(tables) = loss {
                let losses = vec![Loss { reason: ResyncReason::LogLost, tables }];
                shared.state().ring.add(LogLook { losses, ..LogLook::of(vec![], start.clone()) }, Instant::now());
                assert_eq!(next(&mut follower).await, Some(None));
            }
            let parts = vec![part(4, 100), part(5, 110), part(6, 120), part(12, 130)];
            let end = parts[3].position.clone();
            shared.state().ring.add(LogLook::of(parts, end), Instant::now());
            let message = follower.next().await.unwrap();
            assert!(matches!(message.event, Some(Event::Transaction(Transaction { id: 5, .. }))));
            for follower in [&mut follower, &mut follow(&message.position)] {
                let mut told = Vec::new();
                while let Some(message) = next(follower).await {
                    told.extend(message);
                }
                assert_eq!(told, [12], "not 6, which was seen");
            }
        }
    }

    /// Where the log is read by snapshots, a read may have seen more than was told before: its position says so, until all of
    /// that has been told.
    #[tokio::test]
    async fn a_position_ahead_of_the_log_is_found_again() {
        let seen = |end| Snapshot { start: end, end, running: Vec::new() };
        let shared = Arc::new(LogShared::default());
        let start = LogPosition::of(7, seen(10));
        let since = Since { log: start.clone(), ring: start.clone() };
        let progress = CaptureState::Captured(Box::new(since));
        let capture = TableCapture { followers: 1, unfollowed: None, progress };
        shared.state().tables.insert("note".to_owned(), capture);
        shared.state().ring.begin(start);
        let follow = |after: &Bytes| Follower::new(shared.clone(), ["note".to_owned()].into(), after.clone());
        let mut follower = follow(&LogPosition::of(7, seen(12)).encode());
        assert_eq!(next(&mut follower).await, Some(None));
        let parts = [11, 13, 14].map(|id| {
            let order = (id, id);
            let position = LogPosition { partly: Some((seen(15), order)), ..LogPosition::of(7, seen(10)) };
            LogPart { place: Place { id, order }, position, ..part(id, id) }
        });
        let look = LogLook::of(parts.to_vec(), LogPosition::of(7, seen(15)));
        shared.state().ring.add(look, Instant::now());
        shared.told();
        let message = follower.next().await.unwrap();
        assert!(matches!(message.event, Some(Event::Transaction(Transaction { id: 13, .. }))));
        let mut again = follow(&message.position);
        assert!(matches!(again.next().await.unwrap().event, Some(Event::Started(_))));
        for follower in [&mut follower, &mut again] {
            assert_eq!(next(follower).await, Some(Some(14)));
            assert_eq!(next(follower).await, None);
        }
    }
}
