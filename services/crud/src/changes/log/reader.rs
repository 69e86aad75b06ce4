//! The reader of a log: captures the tables that are followed, looks at the log, and gives what it finds to an outlet.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use query::{Schema, Table};
use tokio::time::Instant;

use super::{CaptureState, LogShared, Since, outlet::Outlet, ring::Ring, source::LogSource};
use crate::{
    Error,
    changes::upkeep::{LINGER, LINGER_CHECK_INTERVAL, Upkeep},
    sql::Dialect,
    store::{
        Store,
        log::{ImageWriter, LogLag, LogLook},
    },
};

/// Least time between two looks at a log that is asked for: what is committed meanwhile is found together.
const LOOK_INTERVAL_MIN: Duration = Duration::from_millis(2);
/// Transactions that come closer together than this are waited for, so long, where the log arrives by itself.
const BUSY_INTERVAL: Duration = Duration::from_micros(500);
const BEAT: Duration = Duration::from_millis(1);

/// The database whose log is read.
#[derive(Debug)]
pub struct LogDatabase {
    pub store: Store,
    pub schema: ArcSwap<Schema>,
    pub dialect: Dialect,
}

/// A reader of the log of a database, for those who follow tables of `shared`.
pub struct CaptureLoop<'a> {
    pub database: &'a LogDatabase,
    pub shared: &'a LogShared,
    pub source: &'a mut LogSource,
    pub upkeep: &'a mut Upkeep,
    pub outlet: &'a mut Outlet,
}

impl CaptureLoop<'_> {
    /// Reads the log until nothing is captured any more. Errors: the outlet takes no more of this reader.
    pub async fn read(&mut self) -> Result<(), Error> {
        let (mut schema, mut last_look) = (self.database.schema.load_full(), Instant::now());
        loop {
            let now = self.database.schema.load_full();
            if !Arc::ptr_eq(&schema, &now) {
                self.describe(&now);
                schema = now;
            }
            Box::pin(self.capture(&schema)).await?;
            let (mut has_more, mut found) = (false, None);
            if self.source.is_capturing() {
                let numbers = self.shared.state().numbers;
                match self.source.look(numbers).await {
                    Ok(look) => {
                        (has_more, found) = (look.has_more, Some(look.parts.len()));
                        Box::pin(self.found(look)).await?;
                    }
                    Err(error) => {
                        if self.shared.fail(&error) {
                            self.outlet.failed("", &error).await?;
                        }
                        self.upkeep.sweep_within(LINGER);
                    }
                }
            }
            self.release().await;
            if self.upkeep.is_done() && self.shared.is_done() {
                return Ok(());
            }
            if has_more {
                continue;
            }
            self.outlet.tell_state(self.shared, self.source).await?;
            if let Some(pause) = pause(self.source, found, last_look.elapsed()) {
                tokio::time::sleep(pause).await;
            }
            last_look = Instant::now();
            tokio::select! {
                () = self.source.commit_after(), if self.shared.has_followers() => {}
                () = self.shared.wake.notified() => {}
                () = tokio::time::sleep(self.outlet.idle_max().min(LINGER_CHECK_INTERVAL)) => {}
            }
        }
    }

    /// Captures the tables whose capture has not begun.
    async fn capture(&mut self, schema: &Schema) -> Result<(), Error> {
        for name in self.shared.pending() {
            self.upkeep.capturing();
            let captured = match schema.table(&name) {
                Ok(table) => self.source.capture(&name, self.writer(table)).await,
                Err(error) => Err(error.into()),
            };
            let progress = match captured {
                Ok(log) => {
                    self.outlet.begin(self.source).await?;
                    // In the order of commits, a ring has all that the log has had of a table, as far as it goes back.
                    let now = self.source.position().filter(|_| log.commit_order().is_none());
                    let ring = now.unwrap_or_else(|| log.clone());
                    CaptureState::Captured(Box::new(self.outlet.since(&name, Since { log, ring })))
                }
                Err(error) => {
                    let wait = if matches!(error, Error::Query(_)) { Duration::ZERO } else { LINGER };
                    self.upkeep.sweep_within(wait);
                    self.outlet.failed(&name, &error).await?;
                    CaptureState::Failed(error)
                }
            };
            let mut state = self.shared.state();
            if let Some(position) = self.source.position() {
                state.source = self.source.at(&position);
                state.ring.begin(position);
            }
            if let Some(capture) = state.tables.get_mut(&name) {
                capture.progress = progress;
            }
            drop(state);
            self.outlet.captured();
            self.shared.told();
        }
        Ok(())
    }

    fn writer(&self, table: &Table) -> Arc<ImageWriter> {
        Arc::new(ImageWriter::of(table, |column| self.database.dialect.result_cast(column)))
    }

    /// Images have the columns of `schema` from now on.
    fn describe(&mut self, schema: &Schema) {
        let names: Vec<String> = self.shared.state().tables.keys().cloned().collect();
        for name in names {
            if let Ok(table) = schema.table(&name) {
                let writer = self.writer(table);
                self.source.describe(&name, writer);
            }
        }
        let source = self.source.position().and_then(|position| self.source.at(&position));
        self.shared.state().source = source;
    }

    /// Gives what a look found to the outlet, then to the ring. The database is told what is kept.
    async fn found(&mut self, look: LogLook) -> Result<(), Error> {
        let mut look = Box::pin(self.outlet.write(look)).await?;
        let mut state = self.shared.state();
        let failed = std::mem::take(&mut look.failed);
        let is_other = !failed.is_empty() || !look.losses.is_empty();
        for (name, error) in failed {
            if let Some(capture) = state.tables.get_mut(&name) {
                capture.progress = CaptureState::Failed(error);
            }
        }
        for loss in &look.losses {
            state.lost(loss, &look.since());
        }
        if is_other {
            state.source = self.source.at(&look.position);
            self.outlet.captured();
        }
        let taken = look.position.clone();
        let is_news = state.ring.add(look, Instant::now()) || is_other;
        drop(state);
        self.source.confirm(&taken);
        *self.shared.lag() = self.source.lag();
        if is_news {
            self.shared.told();
        }
        Ok(())
    }

    /// Ends the capture of tables that nobody has followed for long, and what else is due.
    async fn release(&mut self) {
        let now = Instant::now();
        let has_lapsed = self.shared.state().lapse(now);
        if !has_lapsed && !self.upkeep.is_due(now) {
            return;
        }
        let kept: Vec<String> = self.shared.state().tables.keys().cloned().collect();
        if kept.is_empty() {
            let mut state = self.shared.state();
            (state.ring, state.source) = (Ring::default(), None);
            *self.shared.lag() = LogLag::default();
        }
        self.outlet.captured();
        self.upkeep.release("triggers of the log", self.source.release(&kept)).await;
    }
}

/// How long to wait after a look that found so many transactions, none where it failed, and the wait for which began `since`
/// ago: what is committed meanwhile is found together.
fn pause(source: &LogSource, found: Option<usize>, since: Duration) -> Option<Duration> {
    let Some(found) = found.filter(|_| source.is_streamed()) else { return Some(LOOK_INTERVAL_MIN) };
    let found = u32::try_from(found).unwrap_or(u32::MAX);
    (found > 1 && since < BUSY_INTERVAL.saturating_mul(found)).then_some(BEAT)
}
