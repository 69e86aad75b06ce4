//! The log of changes that a logical replication slot tells, in the order of commits.
//!
//! A transaction is sent when its commit is written, which is before others see it. It is held back until a snapshot sees
//! it: whoever reads after it was told sees what it wrote, and which transactions a read saw shows in the read's snapshot.
//! So the rule is that of the log of triggers, and so are positions, but that what was told is the place of a commit.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    hash::{Hash, Hasher},
    sync::Arc,
    time::{Duration, Instant},
};

use proto::crud::{ResyncReason, Snapshot};
use query::resources::Numbers;

use self::{
    beside::CatalogLook,
    framing::RawPart,
    images::ToldRelations,
    obstacle::SlotObstacle,
    setup::{Now, PublishedTables, SlotRecord, SlotRelation, SlotRelations, SlotState},
    stream::{OBJECT_IN_USE, SlotStream, StreamEnd, StreamTarget},
};
use super::{locks::TableLock, setup::TriggerKind};
use crate::{
    Error,
    store::{
        log::{ImageWriter, LogLook, LogPosition, Loss},
        postgres::{
            Postgres,
            cell::TextForm,
            error::PostgresError,
            replication::{ReplicationConnection, ReplicationError, System},
        },
    },
};

mod beside;
pub mod forms;
mod framing;
pub mod images;
pub mod obstacle;
mod reader;
pub mod setup;
pub mod stream;

/// How long to wait for a transaction to be seen that was sent, after so many looks without a wait: nearly all are seen as soon
/// as a snapshot can be asked for.
const UNSEEN_INTERVAL: Duration = Duration::from_millis(2);
const UNSEEN_LOOKS: u32 = 3;
/// Looks of each length of the wait, and the longest: a commit may wait for a standby that is not there.
const UNSEEN_LOOKS_OF_ONE: u32 = 8;
const UNSEEN_INTERVAL_MAX: Duration = Duration::from_millis(100);
/// Most bytes of the server's log that are kept for that.
const KEEP_BYTES: u64 = 64 << 20;
/// How often a slot is tried to be dropped that a connection of ours still had.
const DROP_ATTEMPTS: usize = 20;
const DROP_INTERVAL: Duration = Duration::from_millis(50);

/// The log of a slot, and how far it was read.
#[derive(Debug)]
pub struct SlotReader {
    name: String,
    source: u64,
    stream: SlotStream,
    tables: BTreeMap<String, SlotTable>,
    relations: ToldRelations,
    /// The commit that was told last, and of it the row, with the captures that were begun since.
    told: (u64, u64),
    /// What the position where the slot was started is seen by.
    first: Snapshot,
    /// A snapshot of which all has been told.
    seen: Snapshot,
    /// Snapshots of which all will have been told when the stream has passed a place.
    coming: VecDeque<(Snapshot, u64)>,
    /// The last snapshot.
    now: Option<Now>,
    pending: VecDeque<RawPart>,
    /// Looks in a row since which the same transaction waits to be seen.
    unseen_looks: u32,
    /// The catalog was asked since the first of them could not be read on.
    was_asked: bool,
    losses: Vec<Loss>,
    is_moved: bool,
    catalog_seen: Instant,
    /// A look at the catalog beside the reading.
    beside: Option<CatalogLook>,
    /// Relations that were published for this reader: what was before was not told.
    published: BTreeSet<u32>,
    /// What the publication's comment said last: whoever drops the publication does not know it.
    noted: PublishedTables,
    /// Places that were told, with when.
    kept: VecDeque<(Instant, u64)>,
    keep_bytes: u64,
}

/// A table that is followed.
#[derive(Debug)]
pub struct SlotTable {
    pub writer: Arc<ImageWriter>,
    /// How texts of the writer's columns are read.
    pub forms: Vec<TextForm>,
    pub relations: SlotRelations,
    /// The position after which the log has all of its changes.
    pub since: LogPosition,
    /// When a loss was told last, transactions that this sees were seen: it is told of them.
    pub lost: Snapshot,
    /// It was emptied, so that its file is another one.
    pub has_new_file: bool,
}

/// Why a table is not captured by a slot.
#[derive(Debug)]
pub enum SlotRefusal {
    /// It cannot be, or not now.
    Obstacle(SlotObstacle),
    /// It failed.
    Error(Error),
}

impl Postgres {
    /// What keeps the slot of this database from being used, if anything does.
    pub async fn slot_obstacle(&self) -> Result<Option<SlotObstacle>, Error> {
        let (name, state) = self.slot_state().await?;
        if self.inner.pool.connector.is_shared() {
            return Ok(Some(SlotObstacle::Pooled));
        }
        Ok(state.obstacle(&name, self.inner.changes.unbounded_slot))
    }

    /// The name of the slot, and what there is of it.
    pub async fn slot_state(&self) -> Result<(String, SlotState), Error> {
        let schema = self.inner.schema.as_str();
        let read = self.with_retry(|connection| {
            Box::pin(async move {
                let rows = connection.query("SELECT pg_catalog.current_database()::text", &[]).await?;
                let database: String = rows.first().ok_or_else(PostgresError::unanswered)?.try_get(0)?;
                let name = setup::name(&database, schema);
                let state = setup::state(&connection, &name).await?;
                Ok((name, state))
            })
        });
        Box::pin(read).await.map_err(|failure| self.error(failure))
    }

    /// Starts to read the slot, which is made where it is missing. Tables were as they are `noted` before they were published,
    /// where the publication does not say that any more. The reader says which `election` it is of.
    pub async fn start_slot(&self, noted: &PublishedTables, election: Option<&str>) -> Result<SlotReader, SlotRefusal> {
        let (name, state) = self.slot_state().await?;
        if self.inner.pool.connector.is_shared() {
            return Err(SlotObstacle::Pooled.into());
        }
        if let Some(obstacle) = state.obstacle(&name, self.inner.changes.unbounded_slot) {
            return Err(obstacle.into());
        }
        let (record, from) = match &state.record {
            Some(record) if state.has_slot && !state.is_lost => (record.clone(), state.confirmed),
            _ => Box::pin(self.make_slot(&name, &state, noted)).await?,
        };
        let reader = setup::reader_name(&name, election);
        let (connection, system) = self.started(&name, &reader, from).await?;
        let now = self.now().await?;
        let mut hasher = std::hash::DefaultHasher::new();
        (&system, &record.epoch).hash(&mut hasher);
        let kept = u64::try_from(state.keep_megabytes).map_or(KEEP_BYTES, |most| (most << 20) / 4);
        let stream = SlotStream::start(self, connection, StreamTarget { name: name.clone(), reader, system }, from);
        Ok(SlotReader {
            name,
            source: hasher.finish(),
            stream,
            tables: BTreeMap::new(),
            relations: ToldRelations::default(),
            told: (from.saturating_sub(1), u64::MAX),
            first: now.seen,
            seen: Snapshot::default(),
            coming: VecDeque::new(),
            now: None,
            pending: VecDeque::new(),
            unseen_looks: 0,
            was_asked: false,
            losses: Vec::new(),
            is_moved: false,
            catalog_seen: Instant::now(),
            beside: None,
            published: BTreeSet::new(),
            noted: record.tables,
            kept: VecDeque::new(),
            keep_bytes: kept.min(KEEP_BYTES),
        })
    }

    /// Makes the publication, then the slot; where it begins.
    async fn make_slot(
        &self,
        name: &str,
        state: &SlotState,
        noted: &PublishedTables,
    ) -> Result<(SlotRecord, u64), SlotRefusal> {
        let (name, state) = (name.to_owned(), state.clone());
        let tables = state.record.as_ref().map_or(noted, |record| &record.tables).clone();
        let record = self.set_up({
            let (name, state) = (name.clone(), state.clone());
            |connection| async move {
                if state.has_slot {
                    setup::drop_slot(&connection, &name).await?;
                }
                Ok(Ok(setup::begin_epoch(&connection, &name, &state, tables).await?))
            }
        });
        let record = record.await?.map_err(Error::Database)?;
        let mut lease = self.lease().await?;
        let connection = lease.connection();
        let making = Box::pin(async { setup::create_slot(&connection, &name).await });
        let made = lease.run(super::super::pool::State::Open, making).await;
        match made {
            Ok(()) => {}
            Err(failure) if failure.db_error().is_some() => {
                let why = failure.db_error().map(|error| error.message().to_owned()).unwrap_or_default();
                return Err(SlotObstacle::Failed(format!("the slot was not made: {why}")).into());
            }
            Err(failure) => return Err(self.error(failure).into()),
        }
        drop(lease);
        let (_, state) = self.slot_state().await?;
        Ok((record, state.confirmed))
    }

    /// Ends who reads a slot, where that is who is named, if anybody is; whether there was one.
    pub async fn end_reader(&self, name: &str, reader: Option<&str>) -> Result<bool, Error> {
        let ending =
            self.with_retry(|connection| Box::pin(async move { setup::end_reader(&connection, name, reader).await }));
        Box::pin(ending).await.map_err(|failure| self.error(failure))
    }

    /// A connection in which the slot was started.
    async fn started(
        &self,
        name: &str,
        reader: &str,
        from: u64,
    ) -> Result<(ReplicationConnection, System), SlotRefusal> {
        let refused = |error: ReplicationError| match error.is(OBJECT_IN_USE) {
            true => SlotObstacle::Active,
            false => SlotObstacle::Failed(format!("the slot cannot be read: {error}")),
        };
        let (mut connection, system) = self.replicate(reader).await.map_err(refused)?;
        connection.start(name, from, name).await.map_err(refused)?;
        Ok((connection, system))
    }

    /// Captures the changes of a table from now on; the position after which the log has all of them.
    pub async fn capture_slot(
        &self,
        reader: &mut SlotReader,
        table: &str,
        writer: Arc<ImageWriter>,
    ) -> Result<LogPosition, SlotRefusal> {
        let forms = self.forms(table, &writer).await?;
        let (relations, record) = self.published(&reader.name, table).await?;
        let is_known = record.is_some_and(|record| is_known(&record, &relations));
        let followed = reader.tables.get(table).map(|followed| followed.since.clone());
        let since = match followed.filter(|_| is_known) {
            Some(since) => since,
            // It was followed by a process before, up to which the stream goes back.
            None if is_known && reader.has_all_of(&relations) => LogPosition {
                seen: reader.first.clone(),
                ..reader.place((reader.stream.began.saturating_sub(1), u64::MAX))
            },
            None => {
                let now = self.publish(reader, table, &relations).await?;
                reader.published.extend(relations.keys());
                reader.begin_captured();
                LogPosition { seen: now.seen, ..reader.place(reader.told) }
            }
        };
        let (relations, record) = self.published(&reader.name, table).await?;
        if let Some(record) = record {
            reader.noted = record.tables;
        }
        let lost = Snapshot::default();
        let table_of = SlotTable { writer, forms, relations, since: since.clone(), lost, has_new_file: false };
        reader.tables.insert(table.to_owned(), table_of);
        reader.relations.settle(&reader.tables);
        Ok(since)
    }

    /// The relations of a table, and what the publication's comment says of them. Errors: it cannot be followed.
    async fn published(&self, name: &str, table: &str) -> Result<(SlotRelations, Option<SlotRecord>), SlotRefusal> {
        let tree = self.tree(table, TriggerKind::Image).await?;
        if let Some(why) = tree.obstacles().map_err(|failure| self.error(failure))?.first() {
            return Err(Error::unfollowed(table, &why.to_string()).into());
        }
        let (mut catalog, state) = self.slot_catalog(name, &[table]).await?;
        let relations = catalog.remove(table).unwrap_or_default();
        let obstacle = |relation: &SlotRelation| Some((relation.name.clone(), relation.obstacle.clone()?));
        if let Some((table, why)) = relations.values().find_map(obstacle) {
            return Err(SlotObstacle::Table { table, why }.into());
        }
        Ok((relations, state.record))
    }

    async fn slot_catalog(
        &self,
        name: &str,
        tables: &[&str],
    ) -> Result<(BTreeMap<String, SlotRelations>, SlotState), Error> {
        let schema = self.inner.schema.as_str();
        let read = self.with_retry(|connection| {
            Box::pin(async move {
                let catalog = setup::catalog(&connection, schema, tables, name).await?;
                Ok((catalog, setup::state(&connection, name).await?))
            })
        });
        Box::pin(read).await.map_err(|failure| self.error(failure))
    }

    async fn publish(&self, reader: &mut SlotReader, table: &str, relations: &SlotRelations) -> Result<Now, Error> {
        if relations.is_empty() {
            // A partitioned table without partitions.
            return self.now().await;
        }
        let lacking = relations.iter().filter(|(_, relation)| relation.is_lacking());
        let ids: Vec<u32> = lacking.map(|(id, _)| *id).collect();
        let lock = match relations.values().all(|relation| relation.is_full) {
            true => TableLock::MakeTriggers,
            false => TableLock::DropTriggers,
        };
        if !self.held_within(&ids, lock).await?.is_empty() {
            return Err(super::busy(format!("a transaction holds a lock on {table}")));
        }
        let name = reader.name.clone();
        let published = self
            .set_up(|connection| async move { Ok(Ok(Box::pin(setup::publish(&connection, &name, relations)).await?)) });
        published.await?.map_err(Error::Database)
    }

    async fn now(&self) -> Result<Now, Error> {
        let read = self.with_retry(|connection| Box::pin(async move { setup::now(&connection).await }));
        Box::pin(read).await.map_err(|failure| self.error(failure))
    }

    /// What was committed since the last look, or more of that.
    pub async fn look_at_slot(&self, reader: &mut SlotReader, numbers: Numbers) -> Result<LogLook, SlotRefusal> {
        // Until it is told something, it waits the longer, also where that fails.
        reader.unseen_looks = reader.unseen_looks.saturating_add(1);
        let mut look = LogLook::of(Vec::new(), reader.position());
        if reader.is_moved || self.is_other_beside(reader) {
            self.check_slot(reader, &mut look).await?;
        }
        let (passed, is_all) = reader.receive();
        if let Some(end) = reader.stream.end().filter(|_| reader.pending.is_empty()) {
            return Err(lost(end).into());
        }
        if let Some(why) = reader.stream.interruption() {
            return Err(Error::Unavailable(format!("the stream of the slot is interrupted: {why}")).into());
        }
        if !reader.sees_pending() {
            let now = self.now().await?;
            reader.coming.push_back((now.seen.clone(), now.end));
            if reader.coming.len() > 8 {
                // The oldest is told soonest, the newest is what is wanted.
                reader.coming.remove(1);
            }
            reader.now = Some(now);
        }
        // From here on nothing fails: what is taken is told.
        look.losses = std::mem::take(&mut reader.losses);
        let is_told = reader.tell(&mut look, numbers);
        if is_told || !look.parts.is_empty() {
            reader.unseen_looks = 0;
        }
        if is_told && is_all {
            // Nothing of what was committed before is still to be told.
            reader.pass(passed);
        }
        look.position = reader.position();
        look.visible = reader.now.as_ref().map(|now| Arc::new(now.seen.clone()));
        Ok(look)
    }

    /// Finds tables that are not what they were, and captures them anew.
    async fn check_slot(&self, reader: &mut SlotReader, look: &mut LogLook) -> Result<(), SlotRefusal> {
        let names: Vec<String> = reader.tables.keys().cloned().collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let (catalog, state) = self.slot_catalog(&reader.name, &names).await?;
        if !state.has_publication || !state.has_slot {
            return Err(lost(StreamEnd::SlotLost("the publication is gone".to_owned())).into());
        }
        let seen = self.now().await?.seen;
        for name in names {
            let Some(table) = reader.tables.get_mut(name) else { continue };
            let now = catalog.get(name);
            let has_other_file = now.is_some_and(|now| only_files_differ(&table.relations, now));
            if has_other_file && std::mem::take(&mut table.has_new_file) {
                table.relations = now.cloned().unwrap_or_default();
                continue;
            }
            let is_same = now.is_some_and(|now| *now == table.relations);
            let writer = table.writer.clone();
            if is_same && !reader.is_moved {
                continue;
            }
            match Box::pin(self.capture_slot(reader, name, writer)).await {
                Ok(_) if is_same => {}
                Ok(_) => {
                    let reason = if has_other_file { ResyncReason::Truncate } else { ResyncReason::LogLost };
                    reader.losses.push(Loss { reason, tables: vec![name.to_owned()] });
                    if let Some(table) = reader.tables.get_mut(name) {
                        table.lost.clone_from(&seen);
                    }
                }
                Err(SlotRefusal::Error(error @ Error::Query(_))) => {
                    reader.tables.remove(name);
                    look.failed.push((name.to_owned(), error));
                }
                // It is tried again with the next look.
                Err(error) => return Err(error),
            }
        }
        reader.relations.settle(&reader.tables);
        (reader.is_moved, reader.was_asked) = (false, true);
        (reader.catalog_seen, reader.beside) = (Instant::now(), None);
        Ok(())
    }

    /// Waits until something may have been committed since the last look.
    pub async fn slot_commit_after(&self, reader: &SlotReader) {
        let is_waiting = !reader.pending.is_empty() || !reader.losses.is_empty() || reader.is_moved;
        let Some(looks) = reader.unseen_looks.checked_sub(UNSEEN_LOOKS).filter(|_| is_waiting) else {
            return if is_waiting { tokio::task::yield_now().await } else { reader.stream.arrival().await };
        };
        tokio::select! {
            () = reader.stream.arrival() => {}
            () = tokio::time::sleep(unseen_interval(looks)) => {}
        }
    }

    /// Ends the capture of all tables but `kept` by the slot, also that which a process before did not end.
    pub async fn release_slot_tables(&self, name: &str, kept: &[String]) -> Result<(), Error> {
        let kept: Vec<&str> = kept.iter().map(String::as_str).collect();
        let (catalog, state) = self.slot_catalog(name, &kept).await?;
        let is_kept = |id: &u32| catalog.values().any(|relations| relations.contains_key(id));
        let record = state.record.unwrap_or_default();
        let needless: Vec<u32> = record.tables.keys().copied().filter(|id| !is_kept(id)).collect();
        let held = self.held_within(&needless, TableLock::DropTriggers).await?;
        let mut done = Ok(());
        for id in needless {
            // Each in a transaction of its own: the lock of one table is not held while that of another is waited for.
            let released = match held.contains(&id) {
                true => Err(super::busy("a transaction holds a lock on a table".to_owned())),
                false => {
                    let unpublish =
                        self.set_up(|connection| async move { Ok(Ok(setup::unpublish(&connection, name, id).await?)) });
                    unpublish.await.map(drop)
                }
            };
            done = done.and(released);
        }
        done
    }

    /// Removes the slot, the publication, and the identities that it needed; not while it is read. Where somebody has dropped
    /// the publication, identities are restored as they are `noted`.
    pub async fn remove_slot(&self, name: &str, noted: &PublishedTables) -> Result<(), Error> {
        let mut attempt = 0;
        loop {
            let (_, state) = self.slot_catalog(name, &[]).await?;
            if state.has_publication && (!state.is_own_publication || state.record.is_none()) {
                return Ok(());
            }
            if state.is_active {
                attempt += 1;
                if attempt > DROP_ATTEMPTS {
                    return Err(super::busy(format!("the slot {name} is read by another process")));
                }
                tokio::time::sleep(DROP_INTERVAL).await;
                continue;
            }
            if state.has_slot && state.is_own_slot {
                let dropping =
                    self.with_retry(|connection| Box::pin(async move { setup::drop_slot(&connection, name).await }));
                Box::pin(dropping).await.map_err(|failure| self.error(failure))?;
            }
            if !state.has_publication {
                return self.restore_identities(name, noted).await;
            }
            self.release_slot_tables(name, &[]).await?;
            let dropped =
                self.set_up(|connection| async move { Ok(Ok(setup::drop_publication(&connection, name).await?)) });
            return dropped.await.map(drop);
        }
    }

    /// Restores identities of tables that were published.
    async fn restore_identities(&self, name: &str, noted: &PublishedTables) -> Result<(), Error> {
        let ids: Vec<u32> = noted.keys().copied().collect();
        let held = self.held_within(&ids, TableLock::DropTriggers).await?;
        for (id, published) in noted {
            if held.contains(id) {
                return Err(super::busy("a transaction holds a lock on a table".to_owned()));
            }
            let restored = self
                .set_up(|connection| async move { Ok(Ok(setup::restore(&connection, name, *id, published).await?)) });
            restored.await?.map_err(Error::Database)?;
        }
        Ok(())
    }

    /// Those of `tables` that cannot be locked in a short time.
    async fn held_within(&self, tables: &[u32], lock: TableLock) -> Result<BTreeSet<u32>, Error> {
        if tables.is_empty() { Ok(BTreeSet::new()) } else { self.held(tables, lock).await }
    }
}

/// How long to wait for a transaction to be seen, after so many looks with a wait.
fn unseen_interval(looks: u32) -> Duration {
    let factor = 1_u32.checked_shl(looks / UNSEEN_LOOKS_OF_ONE).unwrap_or(u32::MAX);
    UNSEEN_INTERVAL.saturating_mul(factor).min(UNSEEN_INTERVAL_MAX)
}

/// Whether a process before followed these relations as they are now.
fn is_known(record: &SlotRecord, relations: &SlotRelations) -> bool {
    let is_known = |(id, relation): (&u32, &SlotRelation)| {
        relation.is_full
            && relation.is_published
            && record.tables.get(id).is_some_and(|published| published.mark == relation.mark())
    };
    !relations.is_empty() && relations.iter().all(is_known)
}

/// Whether tables are what they were but for their files.
fn only_files_differ(before: &SlotRelations, now: &SlotRelations) -> bool {
    let same = |(id, before): (&u32, &SlotRelation)| {
        now.get(id).is_some_and(|now| *before == SlotRelation { file: before.file, ..now.clone() })
    };
    before != now && before.len() == now.len() && before.iter().all(same)
}

fn lost(end: StreamEnd) -> SlotObstacle {
    match end {
        StreamEnd::SlotLost(why) => SlotObstacle::Failed(format!("the slot is lost: {why}")),
        StreamEnd::OtherServer => SlotObstacle::Failed("the slot is of another server".to_owned()),
        StreamEnd::Recovered => SlotObstacle::Recovered,
        StreamEnd::Taken => SlotObstacle::Active,
    }
}

impl From<SlotObstacle> for SlotRefusal {
    fn from(obstacle: SlotObstacle) -> Self {
        SlotRefusal::Obstacle(obstacle)
    }
}

impl From<Error> for SlotRefusal {
    fn from(error: Error) -> Self {
        SlotRefusal::Error(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_unseen_is_looked_at_less_and_less() {
        assert_eq!(unseen_interval(0), UNSEEN_INTERVAL);
        let waits: Vec<Duration> = (0..200).map(unseen_interval).collect();
        assert!(waits.is_sorted() && waits[199] == UNSEEN_INTERVAL_MAX);
        assert_eq!(unseen_interval(u32::MAX), UNSEEN_INTERVAL_MAX);
    }
}
