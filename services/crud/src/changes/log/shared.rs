//! The log of a database that nodes share: one of them, who is elected, reads it and writes a journal; all fill their rings from
//! that.
//!
//! The reader learns by notices which tables are followed anywhere. One that lost the election cannot write any more, since it
//! says after which message it writes. The next goes on after the last position in the journal.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::FutureExt;
use mesh::{
    bus::{
        Nats,
        journal::{Followed, Journal, JournalEnd},
        lease::{Election, Lease, NOTICE_INTERVAL, Notices},
    },
    telemetry::{BusMeters, Metrics},
};
use proto::crud::{ResyncReason, Snapshot, record::CaptureNotice};
use query::resources::Numbers;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    CaptureState, LogShared, LogState, Since, TableCapture,
    outlet::Outlet,
    reader::{CaptureLoop, LogDatabase},
    record::LogRecord,
    ring::Ring,
    source::LogSource,
};
use crate::{
    Error,
    changes::upkeep::{LINGER, Upkeep},
    store::log::{LogLag, LogLook, LogPosition, Loss},
};

/// How long there may be no record until followers are told that changes cannot be followed: three times as long as a reader
/// is silent.
const SILENCE_MAX: Duration = Duration::from_secs(12);
/// How often those are told who come while there is none.
const SILENCE_INTERVAL: Duration = Duration::from_secs(1);
/// How often tables that nobody follows any more are looked for.
const LAPSE_INTERVAL: Duration = Duration::from_secs(5);
/// How long a node without followers stays, in which it may be elected to remove what another left.
const SWEEP_TIME: Duration = Duration::from_secs(30);
/// How often the reader is told of commits at most.
const COMMIT_INTERVAL: Duration = Duration::from_millis(5);
/// Back-off after a failure of the bus.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);
/// How long a node that stops may take to say so.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// What the nodes that share a database share besides.
#[derive(Debug, Clone)]
pub struct SharedLog {
    journal: Journal,
    election: Election,
    meters: BusMeters,
}

/// A node that takes part in reading a log.
pub struct LogNode {
    nodes: SharedLog,
    shared: Arc<LogShared>,
    database: Arc<LogDatabase>,
    is_reading: AtomicBool,
}

impl SharedLog {
    /// That of a database of a project.
    pub fn new(nats: &Nats, project: &str, database: &str, metrics: &Metrics) -> Self {
        let (journal, election) = (nats.changes(project, database), nats.election(project, database));
        Self { journal, election, meters: metrics.bus() }
    }
}

impl LogNode {
    /// A node that follows tables of `shared`.
    pub fn new(nodes: SharedLog, shared: Arc<LogShared>, database: Arc<LogDatabase>) -> Self {
        Self { nodes, shared, database, is_reading: AtomicBool::new(false) }
    }

    /// Takes part until nobody has followed a table here for long, or `stop`. Captures end when the database is closed, unless
    /// the node drains: then others go on.
    pub async fn run(&self, upkeep: Upkeep, stop: &CancellationToken, draining: &CancellationToken) {
        if !self.shared.is_captured() && !upkeep.is_done() {
            // What nobody follows is to be removed some time after the start.
            let first = tokio::time::timeout(LINGER, self.shared.wake.notified());
            if stop.run_until_cancelled(first).await.is_none() {
                return;
            }
        }
        let done = stop.child_token();
        tokio::join!(
            done.run_until_cancelled(self.fill()),
            self.notice(&done),
            self.take_turns(&done, draining),
            self.lapse(&done),
            done.run_until_cancelled(self.tell_commits()),
        );
        if stop.is_cancelled() {
            self.shared.fail(&Error::Unavailable("the database is closed".to_owned()));
        }
    }

    /// Ends `done` once nobody has followed a table here for long.
    async fn lapse(&self, done: &CancellationToken) {
        let begun = Instant::now();
        while done.run_until_cancelled(tokio::time::sleep(LAPSE_INTERVAL)).await.is_some() {
            let mut state = self.shared.state();
            state.lapse(Instant::now());
            let may_end = !self.is_reading.load(Ordering::Relaxed) && begun.elapsed() >= SWEEP_TIME;
            if may_end && state.tables.is_empty() {
                // Who follows next takes part anew.
                state.is_read = false;
                state.known.clear();
                state.ring = Ring::default();
                done.cancel();
            }
        }
    }

    /// Fills the ring from the journal.
    async fn fill(&self) {
        let mut journal = self.nodes.journal.follow();
        let (mut has_gap, mut wait) = (false, SILENCE_MAX);
        loop {
            let Ok(followed) = tokio::time::timeout(wait, journal.next()).await else {
                let why = "no node reads the log, or the bus cannot be reached";
                self.shared.fail(&Error::Unavailable(why.to_owned()));
                wait = SILENCE_INTERVAL;
                continue;
            };
            wait = SILENCE_MAX;
            has_gap |= !followed.is_next || followed.payload.is_none();
            has_gap = self.shared.state().take(followed, has_gap);
            self.shared.told();
        }
    }

    /// Tells the reader which tables are followed here.
    async fn notice(&self, done: &CancellationToken) {
        while !done.is_cancelled() {
            let noticed = self.nodes.election.notice(self.shared.state().notice());
            let wait = match done.run_until_cancelled(Box::pin(noticed)).await {
                Some(Ok(())) => NOTICE_INTERVAL,
                Some(Err(error)) => {
                    tracing::debug!(error, "the reader of changes cannot be told what is followed");
                    RETRY_INTERVAL
                }
                None => break,
            };
            tokio::select! {
                () = done.cancelled() => {}
                () = self.shared.wake.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
        // It runs out else.
        let _ = tokio::time::timeout(STOP_TIMEOUT, Box::pin(self.nodes.election.withdraw())).await;
    }

    /// Reads the log whenever this node is elected to.
    async fn take_turns(&self, done: &CancellationToken, draining: &CancellationToken) {
        while let Some(lease) = done.run_until_cancelled(Box::pin(self.nodes.election.win())).await {
            self.is_reading.store(true, Ordering::Relaxed);
            self.nodes.meters.read_databases.inc();
            self.nodes.meters.elections.inc();
            self.read(lease, done, draining).boxed().await;
            self.nodes.meters.read_databases.dec();
            self.is_reading.store(false, Ordering::Relaxed);
            done.run_until_cancelled(tokio::time::sleep(RETRY_INTERVAL)).await;
        }
    }

    /// Reads the log for all nodes as long as the lease is held.
    async fn read(&self, mut lease: Lease, done: &CancellationToken, draining: &CancellationToken) {
        let wanted = LogShared { lag: self.shared.lag.clone(), ..LogShared::default() };
        let mut source = LogSource::elected(&self.database.store, self.nodes.election.id());
        let mut upkeep = Upkeep::at_start();
        if !self.shared.is_captured() {
            upkeep.sweep_within(SWEEP_TIME / 2);
        }
        tracing::info!(journal = ?self.nodes.journal, "this node reads the changes");
        let reading = async {
            let end = Box::pin(self.end()).await;
            let mut outlet = Outlet::journal(self.nodes.journal.append_after(&end), &end, self.nodes.meters.clone());
            wanted.state().inherit(outlet.inherited());
            let (database, shared) = (&*self.database, &wanted);
            let (source, upkeep, outlet) = (&mut source, &mut upkeep, &mut outlet);
            CaptureLoop { database, shared, source, upkeep, outlet }.read().boxed().await
        };
        let has_lost_lease = tokio::select! {
            ended = Box::pin(reading) => {
                if let Err(error) = ended {
                    tracing::warn!(%error, cause = error.cause(), "this node reads the changes no longer");
                }
                false
            }
            () = self.listen(&wanted) => false,
            () = self.hear_commits(&wanted) => false,
            () = Box::pin(lease.keep()) => true,
            () = done.cancelled() => false,
        };
        if done.is_cancelled() && !draining.is_cancelled() {
            upkeep.end("triggers of the log", source.release(&[])).await;
        }
        // The next one reads from where this one did.
        drop(source);
        *self.shared.lag() = LogLag::default();
        if has_lost_lease {
            tracing::warn!("this node reads the changes no longer: its lease is lost");
        } else {
            // It runs out else.
            let _ = tokio::time::timeout(STOP_TIMEOUT, Box::pin(lease.release())).await;
        }
    }

    /// Tells the node that reads of commits of this one.
    async fn tell_commits(&self) {
        loop {
            if !self.is_reading.load(Ordering::Relaxed) {
                self.database.store.committed().await;
                self.nodes.election.committed();
            }
            tokio::time::sleep(COMMIT_INTERVAL).await;
        }
    }

    /// Looks at the log when other nodes have committed something.
    async fn hear_commits(&self, wanted: &LogShared) {
        let mut commits = self.nodes.election.commits();
        while commits.next().await.is_some() {
            wanted.wake.notify_one();
        }
        std::future::pending().await
    }

    /// Where the journal ends.
    async fn end(&self) -> JournalEnd {
        loop {
            match Box::pin(self.nodes.journal.end()).await {
                Ok(end) => return end,
                Err(error) => tracing::debug!(error, "the journal of changes cannot be reached"),
            }
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    }

    /// Notes what nodes want, as long as this one reads for them.
    async fn listen(&self, wanted: &LogShared) {
        let mut before = BTreeMap::new();
        loop {
            match Box::pin(self.nodes.election.notices()).await {
                Ok(mut notices) => {
                    while let Ok(()) = notices.changed().await {
                        wanted.state().want(&notices, &mut before);
                        wanted.wake.notify_one();
                    }
                }
                Err(error) => tracing::debug!(error, "it cannot be found out what is followed"),
            }
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    }
}

impl LogState {
    /// Takes a record, before which others were missed where it `has_gap`; whether that is still to be told, where the record does
    /// not say where the log is.
    fn take(&mut self, followed: Followed, has_gap: bool) -> bool {
        let Followed { position, payload, is_old, .. } = followed;
        let position = LogPosition::decode(&position);
        let unknown = || LogPosition::of(0, Default::default());
        let record = payload.and_then(|payload| LogRecord::decode(payload, position.as_ref().unwrap_or(&unknown())));
        // What is not understood may have been changes.
        let has_gap = has_gap || record.is_none();
        if let Some(LogRecord::Failure { table, error }) = &record
            && !is_old
        {
            self.refuse(table, error);
        }
        let Some(position) = position else { return has_gap };
        let visible = LogRecord::visible(record.as_ref(), &position);
        let begins = self.ring.end().is_none();
        if begins {
            let start = LogLook { visible: visible.clone(), ..LogLook::of(Vec::new(), position.clone()) }.since();
            self.ring.begin_anew(start, position.clone());
        } else if has_gap {
            self.miss(position.clone(), visible.clone());
        }
        match record {
            Some(LogRecord::Captures(captures, _)) => self.captured(captures, position),
            // What it tells is before where this begins, or has been lost.
            _ if begins || has_gap => {}
            Some(LogRecord::Part(part, visible)) => {
                self.found(LogLook { visible, ..LogLook::of(vec![*part], position) });
            }
            Some(LogRecord::Loss(loss, since)) => {
                self.lost(&loss, &since);
                self.found(LogLook { losses: vec![loss], visible, ..LogLook::of(Vec::new(), position) });
            }
            Some(LogRecord::Failure { .. }) | None => {}
        }
        false
    }

    /// What this node wants.
    fn notice(&self) -> Bytes {
        let followed = self.tables.iter().filter(|(_, capture)| capture.followers > 0);
        proto::crud::record::encoded(&CaptureNotice {
            tables: followed.map(|(name, _)| name.clone()).collect(),
            big_numbers_as_strings: self.numbers == Numbers::Strings,
            attempt: self.attempt,
        })
    }

    /// Takes over the tables that the reader before had captured.
    fn inherit(&mut self, tables: Vec<String>) {
        for table in tables {
            let unfollowed = Some(Instant::now());
            self.tables.insert(table, TableCapture { followers: 0, unfollowed, progress: CaptureState::Pending });
        }
    }

    /// Notes what nodes want. `before` is what they wanted: a table that could not be captured is tried again where a node wants it
    /// that did not, or says so.
    fn want(&mut self, notices: &Notices, before: &mut BTreeMap<String, CaptureNotice>) {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        before.retain(|known, _| notices.values().any(|(node, _)| node == known));
        for (node, notice) in notices.values() {
            let Some(notice) = proto::crud::record::decoded::<CaptureNotice>(notice.clone()) else { continue };
            self.numbers = if notice.big_numbers_as_strings { Numbers::Strings } else { Numbers::Exact };
            let last = before.insert(node.to_owned(), notice.clone()).unwrap_or_default();
            for table in notice.tables {
                if (last.attempt != notice.attempt || !last.tables.contains(&table))
                    && let Some(capture) = self.tables.get_mut(&table)
                    && matches!(capture.progress, CaptureState::Failed(_))
                {
                    capture.progress = CaptureState::Pending;
                }
                *counts.entry(table).or_default() += 1;
            }
        }
        for (table, capture) in &mut self.tables {
            let followers = counts.remove(table).unwrap_or_default();
            if followers > 0 {
                capture.unfollowed = None;
            } else if capture.followers > 0 {
                capture.unfollowed = Some(Instant::now());
            }
            capture.followers = followers;
        }
        for (table, followers) in counts {
            let capture = TableCapture { followers, unfollowed: None, progress: CaptureState::Pending };
            self.tables.insert(table, capture);
        }
    }

    /// Followers of a table, or of all where the name is empty, are told that it cannot be followed.
    fn refuse(&mut self, table: &str, error: &Error) {
        let is_refused = |name: &String| table.is_empty() || name == table;
        self.known.retain(|name, _| !is_refused(name));
        for (_, capture) in self.tables.iter_mut().filter(|(name, _)| is_refused(name)) {
            capture.progress = CaptureState::Failed(error.clone());
        }
    }

    /// Everything up to a position may have been missed: who goes on there is who has seen all that `visible` sees, where the
    /// position does not say that.
    fn miss(&mut self, position: LogPosition, visible: Option<Arc<Snapshot>>) {
        let loss = Loss { reason: ResyncReason::LogLost, tables: Vec::new() };
        let look = LogLook { losses: vec![loss.clone()], visible, ..LogLook::of(Vec::new(), position) };
        self.lost(&loss, &look.since());
        self.found(look);
    }

    /// The reader has captured these tables.
    fn captured(&mut self, captures: BTreeMap<String, LogPosition>, position: LogPosition) {
        self.known = captures.into_iter().map(|(name, at)| (name, Since { log: at.clone(), ring: at })).collect();
        let mut lost = Vec::new();
        for (name, capture) in &mut self.tables {
            match (self.known.get(name), &capture.progress) {
                (Some(since), _) => capture.progress = CaptureState::Captured(Box::new(since.clone())),
                (None, CaptureState::Captured(_)) => {
                    capture.progress = CaptureState::Pending;
                    lost.push(name.clone());
                }
                (None, CaptureState::Pending | CaptureState::Failed(_)) => {}
            }
        }
        let mut look = LogLook::of(Vec::new(), position);
        if !lost.is_empty() {
            look.losses.push(Loss { reason: ResyncReason::LogLost, tables: lost });
        }
        self.found(look);
    }

    fn found(&mut self, look: LogLook) {
        self.ring.add(look, Instant::now());
    }
}

#[cfg(test)]
mod tests;
