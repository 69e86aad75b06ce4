//! What a server's log of changes is read from: a slot where that is possible, else triggers.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use proto::crud::{ResyncReason, Snapshot};
use query::resources::{ChangesSource, Numbers};

use super::{
    images::ImageReader,
    setup::{self, TriggerKind},
    slot::{
        SlotReader, SlotRefusal,
        obstacle::SlotObstacle,
        setup::{PublishedTables, reader_name},
    },
};
use crate::{
    Error,
    store::{
        log::{ImageWriter, LogLag, LogLook, LogPosition, Loss},
        postgres::Postgres,
    },
};

/// How often it is looked whether a slot stands that nobody reads, while triggers are.
const STALE_CHECK_INTERVAL: Duration = Duration::from_secs(60);
/// How long nobody may have read a slot until another process removes it.
const STALE_AGE: Duration = Duration::from_secs(600);

/// How long an elected reader waits for the one before to end, and how often it tries.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(10);
const HANDOVER_INTERVAL: Duration = Duration::from_millis(50);
/// How long it has to let go of the slot by itself.
const HANDOVER_GRACE: Duration = Duration::from_secs(2);
/// How long any other waits for a slot that another process reads, and how often it tries: one that ends lets go of it, and
/// the server needs a moment to see that one was killed.
const ACTIVE_TIMEOUT: Duration = Duration::from_secs(5);
const ACTIVE_INTERVAL: Duration = Duration::from_millis(200);

/// The log of changes of a server.
#[derive(Debug, Default)]
pub struct PostgresLog {
    reader: SourceReader,
    /// Why the log is not read from a slot, as far as the process's log has it.
    told: Option<String>,
    /// By which election nobody else is to read it: who does is about to end.
    election: Option<String>,
    /// The log is another one, which followers do not know yet.
    is_other: bool,
    /// It could not be read on by triggers: its followers are to be told.
    failed: Option<Error>,
    /// Tables as they were before a slot was read that has ended.
    noted: PublishedTables,
    /// When it was last looked for a slot that nobody reads, and since when there is one.
    checked: Option<Instant>,
    stale: Option<Instant>,
}

#[derive(Debug, Default)]
enum SourceReader {
    /// Nothing is captured.
    #[default]
    None,
    Triggers(Box<ImageReader>),
    Slot(Box<SlotReader>),
}

impl Postgres {
    /// Captures the changes of a table; the position after which the log has all of them.
    pub async fn capture_log(
        &self,
        log: &mut PostgresLog,
        table: &str,
        writer: Arc<ImageWriter>,
    ) -> Result<LogPosition, Error> {
        if let SourceReader::None = log.reader {
            log.reader = self.begin_log(log, table).await?;
        }
        let refused = match &mut log.reader {
            SourceReader::Slot(reader) => match Box::pin(self.capture_slot(reader, table, writer.clone())).await {
                Ok(since) => return Ok(since),
                Err(refusal) => refusal,
            },
            SourceReader::Triggers(reader) => return self.capture_images(reader, table, writer).await,
            SourceReader::None => return Err(Error::Unavailable("no table is captured".to_owned())),
        };
        match refused {
            SlotRefusal::Error(error) => Err(error),
            SlotRefusal::Obstacle(obstacle) if self.inner.changes.source == ChangesSource::Slot => {
                Err(refused_by_slot(table, &obstacle))
            }
            SlotRefusal::Obstacle(obstacle) => {
                if let Err(error) = Box::pin(self.fall_back(log, &obstacle)).await {
                    // Other tables are followed by nothing now.
                    log.failed = Some(error.clone());
                    return Err(error);
                }
                match &mut log.reader {
                    SourceReader::Triggers(reader) => self.capture_images(reader, table, writer).await,
                    SourceReader::Slot(_) | SourceReader::None => {
                        Err(Error::Unavailable("the triggers of the log were not made".to_owned()))
                    }
                }
            }
        }
    }

    /// Decides what the log is read from.
    async fn begin_log(&self, log: &mut PostgresLog, table: &str) -> Result<SourceReader, Error> {
        let source = self.inner.changes.source;
        match source {
            ChangesSource::Off => return Err(Error::unfollowed(table, "changes.source of its database is off")),
            ChangesSource::Triggers => return Ok(SourceReader::Triggers(Box::default())),
            ChangesSource::Slot | ChangesSource::Auto => {}
        }
        match Box::pin(self.take_slot(log.election.as_deref(), &log.noted)).await {
            Ok(reader) => {
                log.noted.clear();
                log.say("slot", &self.inner.database, None);
                Ok(SourceReader::Slot(Box::new(reader)))
            }
            // Servers that speak the protocol only may not know of slots.
            Err(SlotRefusal::Error(error @ Error::Database(_))) if source == ChangesSource::Auto => {
                let why = error.cause().unwrap_or_default().to_owned();
                log.say("triggers", &self.inner.database, Some(&SlotObstacle::Failed(why)));
                Ok(SourceReader::Triggers(Box::default()))
            }
            Err(SlotRefusal::Error(error)) => Err(error),
            Err(SlotRefusal::Obstacle(obstacle)) if source == ChangesSource::Slot => {
                Err(refused_by_slot(table, &obstacle))
            }
            Err(SlotRefusal::Obstacle(obstacle)) => {
                log.say("triggers", &self.inner.database, Some(&obstacle));
                Ok(SourceReader::Triggers(Box::default()))
            }
        }
    }

    /// Starts to read the slot, once no other process does; that is waited for, for a while.
    async fn take_slot(&self, election: Option<&str>, noted: &PublishedTables) -> Result<SlotReader, SlotRefusal> {
        let is_elected = election.is_some();
        let (timeout, interval) =
            if is_elected { (HANDOVER_TIMEOUT, HANDOVER_INTERVAL) } else { (ACTIVE_TIMEOUT, ACTIVE_INTERVAL) };
        let until = Instant::now() + timeout;
        let mut ends_reader = is_elected.then(|| Instant::now() + HANDOVER_GRACE);
        loop {
            match Box::pin(self.start_slot(noted, election)).await {
                Err(SlotRefusal::Obstacle(SlotObstacle::Active)) if Instant::now() < until => {
                    tokio::time::sleep(interval).await;
                }
                started => return started,
            }
            if let Some(election) = election
                && ends_reader.is_some_and(|at| Instant::now() >= at)
            {
                self.end_reader_before(election).await?;
                ends_reader = Some(Instant::now() + HANDOVER_GRACE);
            }
        }
    }

    /// Ends who reads the slot although another was elected: a process that stands still, or cannot reach the bus, keeps its
    /// connection. Whoever is of no such election, or of another, goes on.
    async fn end_reader_before(&self, election: &str) -> Result<(), Error> {
        let (name, state) = self.slot_state().await?;
        if !state.is_active || !state.is_own_slot {
            return Ok(());
        }
        let database = &self.inner.database;
        match self.end_reader(&name, Some(reader_name(&name, Some(election)).as_str())).await {
            Ok(true) => {
                tracing::warn!(database, "the reader of the changes before has not let go of the slot: it is ended")
            }
            Ok(false) => tracing::debug!(database, "the slot is read by another, which was not elected here"),
            // It may let go by itself still.
            Err(error) => {
                tracing::warn!(database, %error, cause = error.cause(), "the reader of the changes before cannot be ended");
            }
        }
        Ok(())
    }

    /// Goes on by triggers, for all tables that the slot told. Its followers are told that something may be missing.
    async fn fall_back(&self, log: &mut PostgresLog, obstacle: &SlotObstacle) -> Result<(), Error> {
        let SourceReader::Slot(reader) = std::mem::take(&mut log.reader) else { return Ok(()) };
        log.say("triggers", &self.inner.database, Some(obstacle));
        let (tables, name) = (reader.tables(), reader.name().to_owned());
        log.noted.clone_from(reader.noted());
        log.is_other |= !tables.is_empty();
        reader.close().await;
        let mut triggers = Box::<ImageReader>::default();
        for (table, writer) in tables {
            self.capture_images(&mut triggers, &table, writer).await?;
        }
        log.reader = SourceReader::Triggers(triggers);
        let removed = self.remove_slot(&name, &log.noted).await;
        if removed.is_ok() {
            log.noted.clear();
        }
        if let Err(error) = removed {
            tracing::warn!(%error, cause = error.cause(), "a slot that is used no longer stays in the database for now");
        }
        Ok(())
    }

    /// What was committed since the last look.
    pub async fn look_at_log(&self, log: &mut PostgresLog, numbers: Numbers) -> Result<LogLook, Error> {
        if let Some(error) = log.failed.take() {
            return Err(error);
        }
        let looked = match &mut log.reader {
            SourceReader::None => return Err(Error::Unavailable("no table is captured".to_owned())),
            SourceReader::Triggers(reader) => {
                let look = Box::pin(self.changed_images(reader, numbers)).await;
                self.remove_stale_slot(log).await;
                look
            }
            SourceReader::Slot(reader) => match Box::pin(self.look_at_slot(reader, numbers)).await {
                Ok(look) => Ok(look),
                Err(SlotRefusal::Error(error)) => Err(error),
                Err(SlotRefusal::Obstacle(obstacle)) => Box::pin(self.slot_lost(log, obstacle)).await,
            },
        };
        let mut look = looked?;
        if std::mem::take(&mut log.is_other) {
            look.losses.insert(0, Loss { reason: ResyncReason::LogLost, tables: Vec::new() });
        }
        Ok(look)
    }

    /// The slot does not tell what is next, or a table not at all: all tables are captured anew.
    async fn slot_lost(&self, log: &mut PostgresLog, obstacle: SlotObstacle) -> Result<LogLook, Error> {
        let SourceReader::Slot(reader) = std::mem::take(&mut log.reader) else {
            return Err(Error::Unavailable("no table is captured".to_owned()));
        };
        let database = &self.inner.database;
        tracing::warn!(database, why = %obstacle, "the slot of the log is begun anew");
        let (tables, name) = (reader.tables(), reader.name().to_owned());
        log.noted.clone_from(reader.noted());
        log.is_other = true;
        reader.close().await;
        if let SlotObstacle::Failed(_) = obstacle {
            self.remove_slot(&name, &log.noted).await?;
            log.noted.clear();
        }
        let mut failed = Vec::new();
        for (table, writer) in tables {
            match Box::pin(self.capture_log(log, &table, writer)).await {
                Ok(_) => {}
                Err(error) if matches!(error, Error::Query(_)) => failed.push((table, error)),
                Err(error) => return Err(error),
            }
        }
        if let SourceReader::Slot(reader) = &log.reader
            && !failed.is_empty()
        {
            // Their identity may be what fails updates.
            let kept: Vec<String> = reader.tables().into_iter().map(|(table, _)| table).collect();
            if let Err(error) = self.release_slot_tables(&name, &kept).await {
                tracing::warn!(%error, cause = error.cause(), "a table that is followed no longer stays published for now");
            }
        }
        log.is_other = false;
        let position = log.position().ok_or_else(|| super::busy("the slot was lost".to_owned()))?;
        let losses = vec![Loss { reason: ResyncReason::LogLost, tables: Vec::new() }];
        Ok(LogLook { losses, failed, parts: Vec::new(), position, has_more: false, visible: None })
    }

    /// Removes a slot of a process that was killed, once nobody has read it for long: the server keeps its log for it.
    async fn remove_stale_slot(&self, log: &mut PostgresLog) {
        let now = Instant::now();
        if log.checked.is_some_and(|checked| now.duration_since(checked) < STALE_CHECK_INTERVAL) {
            return;
        }
        log.checked = Some(now);
        let removed = async {
            let (name, state) = self.slot_state().await?;
            if !state.has_slot || !state.is_own_slot || state.is_active || state.is_standby {
                log.stale = None;
                return Ok(());
            }
            let since = *log.stale.get_or_insert(now);
            if now.duration_since(since) >= STALE_AGE { self.remove_slot(&name, &log.noted).await } else { Ok(()) }
        };
        let removed: Result<(), Error> = Box::pin(removed).await;
        if let Err(error) = removed {
            tracing::warn!(%error, cause = error.cause(), "a slot that nobody reads stays in the database for now");
        }
    }

    /// Ends the capture of all tables but `kept`, also that which a process before did not end.
    pub async fn release_log(&self, log: &mut PostgresLog, kept: &[String]) -> Result<(), Error> {
        match &mut log.reader {
            SourceReader::Triggers(reader) => {
                let released = self.release_images(reader, kept).await;
                if kept.is_empty() {
                    log.reader = SourceReader::None;
                    return released.and(Box::pin(self.remove_unread_slot(&mut log.noted)).await);
                }
                released
            }
            SourceReader::Slot(reader) if !kept.is_empty() => {
                reader.retain(kept);
                let name = reader.name().to_owned();
                let released = self.release_slot_tables(&name, kept).await;
                released.and(self.drop_unread_triggers().await)
            }
            SourceReader::Slot(_) => {
                let SourceReader::Slot(reader) = std::mem::take(&mut log.reader) else { return Ok(()) };
                let name = reader.name().to_owned();
                log.noted.clone_from(reader.noted());
                reader.close().await;
                let removed = self.remove_slot(&name, &log.noted).await;
                if removed.is_ok() {
                    log.noted.clear();
                }
                removed.and(self.drop_unread_triggers().await)
            }
            SourceReader::None => {
                let released = self.drop_triggers(kept, TriggerKind::Image).await;
                released.and(Box::pin(self.remove_unread_slot(&mut log.noted)).await)
            }
        }
    }

    /// Removes the slot, unless another process reads it, and restores what is `noted`.
    async fn remove_unread_slot(&self, noted: &mut PublishedTables) -> Result<(), Error> {
        let (name, state) = match self.slot_state().await {
            Ok(found) => found,
            // A server that knows of no slots has none.
            Err(Error::Database(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        let is_noted = !state.has_publication && !noted.is_empty();
        let is_there = state.has_slot || state.has_publication && state.record.is_some() || is_noted;
        if !is_there || state.is_active || state.is_standby {
            return Ok(());
        }
        self.remove_slot(&name, noted).await?;
        noted.clear();
        Ok(())
    }

    /// Drops the triggers of the log, unless another process reads what they write.
    async fn drop_unread_triggers(&self) -> Result<(), Error> {
        let schema = self.inner.schema.as_str();
        let is_read =
            self.set_up(|connection| async move { Ok(Ok(setup::are_images_read(&connection, schema).await?)) });
        match is_read.await?.map_err(Error::Database)? {
            true => Ok(()),
            false => self.drop_triggers(&[], TriggerKind::Image).await,
        }
    }

    /// Waits until something may have been committed since the last look.
    pub async fn log_commit_after(&self, log: &PostgresLog) {
        match &log.reader {
            SourceReader::None => std::future::pending().await,
            SourceReader::Triggers(reader) => self.image_commit_after(reader).await,
            SourceReader::Slot(reader) => self.slot_commit_after(reader).await,
        }
    }
}

impl PostgresLog {
    /// The log as the one reader has it that an election of this id has chosen.
    pub fn elected(election: String) -> Self {
        Self { election: Some(election), ..Self::default() }
    }

    /// Images of a table have the columns of `writer` from now on.
    pub fn describe(&mut self, table: &str, writer: Arc<ImageWriter>) {
        match &mut self.reader {
            SourceReader::None => {}
            SourceReader::Triggers(reader) => reader.describe(table, writer),
            SourceReader::Slot(reader) => reader.describe(table, writer),
        }
    }

    /// The position after the last look; `None` where nothing is captured.
    pub fn position(&self) -> Option<LogPosition> {
        match &self.reader {
            SourceReader::None => None,
            SourceReader::Triggers(reader) => reader.position(),
            SourceReader::Slot(reader) => Some(reader.position()),
        }
    }

    /// The position after all that the server has told, also where nothing of it was for us.
    pub fn passed(&self) -> Option<LogPosition> {
        match &self.reader {
            SourceReader::None | SourceReader::Triggers(_) => self.position(),
            SourceReader::Slot(reader) => Some(reader.passed()),
        }
    }

    /// What sees all that was told, where positions do not say that.
    pub fn visible(&self) -> Option<Arc<Snapshot>> {
        match &self.reader {
            SourceReader::None | SourceReader::Triggers(_) => None,
            SourceReader::Slot(reader) => Some(Arc::new(reader.visible().clone())),
        }
    }

    /// Whether a look has something to tell.
    pub fn is_capturing(&self) -> bool {
        self.failed.is_some() || self.position().is_some()
    }

    /// Whether what is committed arrives by itself.
    pub fn is_streamed(&self) -> bool {
        matches!(self.reader, SourceReader::Slot(_))
    }

    /// What is before `position` was taken for good.
    pub fn confirm(&mut self, position: &LogPosition) {
        match &mut self.reader {
            SourceReader::None | SourceReader::Triggers(_) => {}
            SourceReader::Slot(reader) => reader.confirm(position),
        }
    }

    /// How far what was told is behind what was committed.
    pub fn lag(&self) -> LogLag {
        match &self.reader {
            SourceReader::None => LogLag::default(),
            SourceReader::Triggers(reader) => reader.lag(),
            SourceReader::Slot(reader) => reader.lag(),
        }
    }

    /// A log of the same tables that is read from `position` on beside this one; `None` where only one may read.
    pub fn at(&self, position: &LogPosition) -> Option<Self> {
        match &self.reader {
            SourceReader::Triggers(reader) => {
                Some(Self { reader: SourceReader::Triggers(Box::new(reader.at(position))), ..Self::default() })
            }
            SourceReader::None | SourceReader::Slot(_) => None,
        }
    }

    /// Says once from what the log is read, and why not from a slot.
    fn say(&mut self, source: &'static str, database: &str, obstacle: Option<&SlotObstacle>) {
        let why = obstacle.map(ToString::to_string);
        let text = format!("{source} {}", why.as_deref().unwrap_or_default());
        if self.told.as_ref() != Some(&text) {
            tracing::info!(database, source, no_slot = why, "changes of rows are followed");
            self.told = Some(text);
        }
    }
}

fn refused_by_slot(table: &str, obstacle: &SlotObstacle) -> Error {
    match obstacle.is_transient() {
        true => super::busy(format!("the slot: {obstacle}")),
        false => Error::unfollowed(table, &format!("changes.source of its database is slot: {obstacle}")),
    }
}
