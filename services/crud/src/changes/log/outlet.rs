//! Where a reader puts what it finds: into the ring of its node, or into the journal from which all nodes fill theirs.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use mesh::{
    bus::journal::{Appender, JournalEnd, Record, RecordKind},
    telemetry::BusMeters,
};
use proto::crud::{ResyncReason, Snapshot};
use tokio::time::Instant;

use super::{
    LogShared, Since,
    record::{self, LogRecord},
    source::LogSource,
};
use crate::{
    Error,
    store::log::{LogLook, LogPart, LogPosition, Loss},
};

/// How often the journal is told how far the log has been read, while that is further than before.
const POSITION_INTERVAL: Duration = Duration::from_millis(500);
/// How often it is told all the same: that there is a reader.
pub const STATE_INTERVAL: Duration = Duration::from_secs(4);

/// How often it is told which tables are not captured that somebody follows.
const FAILURE_INTERVAL: Duration = Duration::from_secs(1);

/// Where a reader puts what it finds.
pub enum Outlet {
    /// The ring of this node: the reader puts it there itself.
    Ring,
    /// A journal.
    Journal(Box<JournalOutlet>),
}

/// A journal, as its one writer sees it.
pub struct JournalOutlet {
    appender: Appender,
    meters: BusMeters,
    /// Where the journal ended when this writer began.
    last: Option<LogPosition>,
    /// Since when it has all changes of tables, those of the writer before included.
    since: BTreeMap<String, LogPosition>,
    /// What the log of this writer had of tables: all after these positions.
    logged: BTreeMap<String, LogPosition>,
    has_begun: bool,
    /// The position after the last record.
    position: Option<LogPosition>,
    failures_told: Instant,
    /// When the state was told last; `None` where it is another by now.
    told: Option<Instant>,
}

impl Outlet {
    /// The journal after `end`, where it ends.
    pub fn journal(appender: Appender, end: &JournalEnd, meters: BusMeters) -> Self {
        let last = end.position.as_ref().and_then(|position| LogPosition::decode(position));
        let since = end.state.as_ref().and_then(record::captures).unwrap_or_default();
        Self::Journal(Box::new(JournalOutlet {
            appender,
            meters,
            since: if last.is_some() { since } else { BTreeMap::new() },
            last,
            logged: BTreeMap::new(),
            has_begun: false,
            position: None,
            failures_told: Instant::now(),
            told: None,
        }))
    }

    /// The tables whose changes the journal had.
    pub fn inherited(&self) -> Vec<String> {
        match self {
            Outlet::Ring => Vec::new(),
            Outlet::Journal(journal) => journal.since.keys().cloned().collect(),
        }
    }

    /// A first table is captured: the reader goes on where the one before ended.
    pub async fn begin(&mut self, source: &mut LogSource) -> Result<(), Error> {
        match self {
            Outlet::Ring => Ok(()),
            Outlet::Journal(journal) => Box::pin(journal.begin(source)).await,
        }
    }

    /// Since when there are all changes of a table, of which the log has those after `since.log`.
    pub fn since(&mut self, table: &str, since: Since) -> Since {
        let Outlet::Journal(journal) = self else { return since };
        let Since { log, ring } = since;
        let at = match log.commit_order() {
            Some(_) => journal.since_commit(table, log),
            None => journal.since_look(table, log, ring),
        };
        journal.since.insert(table.to_owned(), at.clone());
        Since { log: at.clone(), ring: at }
    }

    /// Tables are captured, or are no longer.
    pub fn captured(&mut self) {
        if let Outlet::Journal(journal) = self {
            journal.told = None;
        }
    }

    /// A table is not captured; where its name is empty, none is.
    pub async fn failed(&mut self, table: &str, error: &Error) -> Result<(), Error> {
        match self {
            Outlet::Ring => Ok(()),
            Outlet::Journal(journal) => {
                journal.since.remove(table);
                journal.note(LogRecord::failure(table, error)).await
            }
        }
    }

    /// Takes what a look found, and returns once it is kept; what is left is for the ring of the reader.
    pub async fn write(&mut self, look: LogLook) -> Result<LogLook, Error> {
        match self {
            Outlet::Ring => Ok(look),
            Outlet::Journal(journal) => journal.write(look).await,
        }
    }

    /// Tells how far the log has been read and which tables are captured, where it is time for that.
    pub async fn tell_state(&mut self, shared: &LogShared, source: &LogSource) -> Result<(), Error> {
        let Outlet::Journal(journal) = self else { return Ok(()) };
        journal.tell_failures(shared).await?;
        match source.passed() {
            Some(position) => journal.tell_state(shared, position, source.visible()).await,
            None => Ok(()),
        }
    }

    /// How long a reader may wait without telling its state.
    pub fn idle_max(&self) -> Duration {
        match self {
            Outlet::Ring => Duration::MAX,
            Outlet::Journal(_) => FAILURE_INTERVAL,
        }
    }
}

impl JournalOutlet {
    async fn begin(&mut self, source: &mut LogSource) -> Result<(), Error> {
        if std::mem::replace(&mut self.has_begun, true) {
            return Ok(());
        }
        let Some(now) = source.position() else { return Ok(()) };
        match self.last.clone() {
            Some(last) if last.source == now.source => {
                match source.at(&last) {
                    Some(at) => *source = at,
                    // It tells again what was written, which is left out; or not all that follows that.
                    None if last.covers(&now) => {}
                    None => return self.begin_anew(now).await,
                }
                self.position = Some(last);
                Ok(())
            }
            // Another log: that of a database that was restored, or made anew.
            Some(_) => self.begin_anew(now).await,
            None => {
                self.position = Some(now);
                Ok(())
            }
        }
    }

    /// The journal goes on with another log, or with what does not follow what it has.
    async fn begin_anew(&mut self, now: LogPosition) -> Result<(), Error> {
        self.last = None;
        self.since.clear();
        self.position = Some(now.clone());
        self.note(LogRecord::loss(&Loss { reason: ResyncReason::LogLost, tables: Vec::new() }, &now)).await
    }

    /// Since when the journal has all changes of a table, of which the log has those after `log`, and is read from `now` on.
    fn since_look(&self, table: &str, log: LogPosition, now: LogPosition) -> LogPosition {
        match self.since.get(table) {
            // The log had it all the time, too.
            Some(before) if now.covers(&log) && before.covers(&log) && now.covers(before) => before.clone(),
            _ if now.covers(&log) => now,
            _ => log,
        }
    }

    /// Since when the journal has all changes of a table, of which a log in the order of commits has those after `log`.
    fn since_commit(&mut self, table: &str, log: LogPosition) -> LogPosition {
        let is_same = self.logged.insert(table.to_owned(), log.clone()).as_ref() == Some(&log);
        let Some(position) = self.position.as_mut().filter(|position| position.covers(&log)) else { return log };
        match self.since.get(table) {
            // The log tells again what the writer before had written, and what follows; or it has told all the time.
            Some(before) if is_same || log.is_after_commit() => before.clone(),
            // What the log tells again of it is not written any more.
            _ => {
                position.begin_captured();
                LogPosition { seen: log.seen, ..position.clone() }
            }
        }
    }

    async fn write(&mut self, mut look: LogLook) -> Result<LogLook, Error> {
        let mut records = Vec::new();
        let before = self.position.clone().unwrap_or_else(|| look.position.clone());
        for (table, error) in &look.failed {
            self.since.remove(table);
            records.push(self.record(
                RecordKind::Note,
                &before,
                vec![table.clone()],
                &LogRecord::failure(table, error),
            ));
        }
        let lost = look.since();
        for loss in &look.losses {
            let at = if loss.tables.is_empty() { &look.position } else { &before };
            for (_, since) in self.since.iter_mut().filter(|(table, _)| loss.concerns(table)) {
                since.clone_from(&lost);
            }
            let written = LogRecord::loss(loss, &lost);
            records.push(self.record(RecordKind::Note, at, loss.tables.clone(), &written));
        }
        if look.losses.iter().any(|loss| loss.tables.is_empty()) {
            // Places of another log are not compared with those before.
            self.last = None;
            self.logged.clear();
        }
        // A source that cannot be told where to begin tells again what the writer before had written.
        let is_written = |part: &LogPart| {
            self.last.as_ref().is_some_and(|last| match last.commit_order() {
                Some(order) => part.place.order <= order,
                None => last.is_after(&part.place),
            })
        };
        let mut parts = std::mem::take(&mut look.parts);
        parts.retain(|part| !is_written(part));
        for part in parts {
            let (tables, position) = (part.tables(), part.position.clone());
            let (kind, written) = match part.is_too_large() {
                false => (RecordKind::Found, LogRecord::part(part, look.visible.clone())),
                true => {
                    let loss = Loss { reason: ResyncReason::Overflow, tables: tables.clone() };
                    (RecordKind::Note, LogRecord::loss(&loss, &position))
                }
            };
            records.push(self.record(kind, &position, tables, &written));
            self.position = Some(position);
        }
        if look.losses.iter().any(|loss| loss.tables.is_empty()) && self.position.as_ref() == Some(&before) {
            self.position = Some(look.position.clone());
        }
        self.append(&records).await?;
        Ok(look)
    }

    async fn tell_state(
        &mut self,
        shared: &LogShared,
        position: LogPosition,
        visible: Option<Arc<Snapshot>>,
    ) -> Result<(), Error> {
        // A log that is told again is behind what the journal has.
        let behind = self.position.as_ref().filter(|own| own.covers(&position) && !position.covers(own));
        let position = behind.cloned().unwrap_or(position);
        let is_further = self.position.as_ref() != Some(&position);
        let is_due = self
            .told
            .is_none_or(|told| told.elapsed() >= STATE_INTERVAL || is_further && told.elapsed() >= POSITION_INTERVAL);
        if !is_due {
            return Ok(());
        }
        let captures = shared.state().captures();
        let tables = captures.keys().cloned().collect();
        let record = self.record(RecordKind::State, &position, tables, &LogRecord::captures(&captures, visible));
        self.append(&[record]).await?;
        (self.position, self.told) = (Some(position), Some(Instant::now()));
        Ok(())
    }

    /// Tells again which tables are not captured that somebody follows: a node may have begun to read the journal since.
    async fn tell_failures(&mut self, shared: &LogShared) -> Result<(), Error> {
        if self.failures_told.elapsed() < FAILURE_INTERVAL {
            return Ok(());
        }
        self.failures_told = Instant::now();
        let failures = shared.state().failures();
        for (table, error) in failures {
            self.note(LogRecord::failure(&table, &error)).await?;
        }
        Ok(())
    }

    async fn note(&mut self, written: LogRecord) -> Result<(), Error> {
        // Before a table is captured there is no position.
        let position = self.position.as_ref().or(self.last.as_ref()).map(LogPosition::encode).unwrap_or_default();
        let record = Record { kind: RecordKind::Note, position, tables: Vec::new(), payload: written.encode() };
        self.append(&[record]).await
    }

    fn record(&self, kind: RecordKind, position: &LogPosition, tables: Vec<String>, written: &LogRecord) -> Record {
        Record { kind, position: position.encode(), tables, payload: written.encode() }
    }

    async fn append(&mut self, records: &[Record]) -> Result<(), Error> {
        let written = self.appender.append(records).await;
        let written = written.map_err(|error| Error::Unavailable(error.to_string()))?;
        self.meters.published.inc_by(written as u64);
        Ok(())
    }
}
