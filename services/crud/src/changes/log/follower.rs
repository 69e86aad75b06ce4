//! A follower of a log: takes what concerns it from the ring, at its own pace.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use proto::crud::{Change, Event, LogResponse, Resync, ResyncReason, Started, Transaction};
use tokio::sync::watch;

use super::{CaptureState, LogShared, LogState, ring::RingEvent};
use crate::{
    Error,
    store::log::{LogPart, LogPosition, Loss},
};

/// A follower of some tables. Dropped, it is one no longer.
pub struct Follower {
    shared: Arc<LogShared>,
    tables: BTreeSet<String>,
    progress: watch::Receiver<u64>,
    stage: Stage,
}

/// How far a follower is.
enum Stage {
    /// It waits for the capture of its tables, to go on after a position.
    Starting { after: Bytes },
    /// It is to be told that changes may have been missed.
    Missed { reason: ResyncReason, tables: Vec<String>, next: u64 },
    /// It goes on with an item of the ring. What stands before the position was told.
    Following { next: u64, after: LogPosition },
}

impl Follower {
    /// A follower of tables after a position; without one, from now on.
    pub(super) fn new(shared: Arc<LogShared>, tables: BTreeSet<String>, after: Bytes) -> Self {
        let progress = shared.progress.subscribe();
        Self { shared, tables, progress, stage: Stage::Starting { after } }
    }

    /// The next message. Cancel safe.
    pub async fn next(&mut self) -> Result<LogResponse, Error> {
        loop {
            self.progress.mark_unchanged();
            if let Some(message) = self.take()? {
                return Ok(message);
            }
            if self.progress.changed().await.is_err() {
                return Err(Error::Unavailable("the database is closed".to_owned()));
            }
        }
    }

    /// The next message, if there is one.
    fn take(&mut self) -> Result<Option<LogResponse>, Error> {
        let shared = self.shared.clone();
        let state = shared.state();
        let mut since = Vec::with_capacity(self.tables.len());
        for table in &self.tables {
            match state.tables.get(table).map(|capture| &capture.progress) {
                Some(CaptureState::Captured(position)) => since.push((table, position)),
                Some(CaptureState::Failed(error)) => return Err(error.clone()),
                Some(CaptureState::Pending) => return Ok(None),
                None => return Err(Error::Unavailable("the capture of a table has ended".to_owned())),
            }
        }
        match &self.stage {
            Stage::Starting { after } => {
                let lacking = |after: &LogPosition| {
                    let lacking = since.iter().filter(|(_, since)| !after.covers(since));
                    lacking.map(|(table, _)| (*table).clone()).collect()
                };
                let Some((position, stage)) = start(&state, after, lacking) else { return Ok(None) };
                self.stage = stage;
                Ok(Some(message(&position, Event::Started(Started {}))))
            }
            Stage::Missed { reason, tables, next } => {
                let Some(end) = state.ring.end() else { return Ok(None) };
                let resync = Resync { reason: (*reason).into(), tables: tables.clone() };
                let told = message(end, Event::Resync(resync));
                self.stage = Stage::Following { next: *next, after: end.clone() };
                Ok(Some(told))
            }
            Stage::Following { next, after } => {
                let (first, end) = state.ring.numbers();
                if *next < first {
                    let Some(after) = state.ring.end().cloned() else { return Ok(None) };
                    let resync = Resync { reason: ResyncReason::Overflow.into(), tables: Vec::new() };
                    let told = message(&after, Event::Resync(resync));
                    self.stage = Stage::Following { next: end, after };
                    return Ok(Some(told));
                }
                let mut next = *next;
                let mut told = None;
                while let (None, Some(event)) = (&told, state.ring.item(next)) {
                    told = self.concerning(event, after);
                    next += 1;
                }
                let after = after.clone();
                self.stage = Stage::Following { next, after };
                Ok(told)
            }
        }
    }

    /// What this follower, which was told all before `after`, is told of an event.
    fn concerning(&self, event: &RingEvent, after: &LogPosition) -> Option<LogResponse> {
        match event {
            RingEvent::Part(part) if after.is_after(&part.place) => None,
            RingEvent::Part(part) => {
                let changes = self.changes(part);
                let transaction = Transaction { id: part.place.id, committed_us: part.committed_us, changes };
                (!transaction.changes.is_empty()).then(|| message(&part.position, Event::Transaction(transaction)))
            }
            RingEvent::Loss(Loss { reason, tables }, position) => {
                let own: Vec<String> = tables.iter().filter(|table| self.tables.contains(*table)).cloned().collect();
                let is_concerned = tables.is_empty() || !own.is_empty();
                let resync = Resync { reason: (*reason).into(), tables: own };
                is_concerned.then(|| message(position, Event::Resync(resync)))
            }
        }
    }

    fn changes(&self, part: &LogPart) -> Vec<Change> {
        part.changes.iter().filter(|change| self.tables.contains(&change.table)).cloned().collect()
    }
}

/// The position at which a follower starts that was told all before `after`, and what it does next. `lacking` are the
/// tables of which the log lacks changes after a position.
fn start(
    state: &LogState,
    after: &Bytes,
    lacking: impl Fn(&LogPosition) -> Vec<String>,
) -> Option<(LogPosition, Stage)> {
    let (start, end) = (state.ring.start()?, state.ring.end()?);
    let (first, next) = state.ring.numbers();
    let missed = |reason, tables| (end.clone(), Stage::Missed { reason, tables, next });
    if after.is_empty() {
        return Some((end.clone(), Stage::Following { next, after: end.clone() }));
    }
    Some(match LogPosition::decode(after) {
        None => missed(ResyncReason::Position, Vec::new()),
        Some(after) if after.source != end.source => missed(ResyncReason::LogLost, Vec::new()),
        Some(after) if !after.covers(start) => missed(ResyncReason::LogLost, Vec::new()),
        Some(after) => match lacking(&after) {
            tables if tables.is_empty() => (after.clone(), Stage::Following { next: first, after }),
            tables => missed(ResyncReason::LogLost, tables),
        },
    })
}

fn message(position: &LogPosition, event: Event) -> LogResponse {
    LogResponse { position: position.encode(), event: Some(event) }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.shared.unfollow(&self.tables);
    }
}
