//! The queue of events: tables of ours in an SQLite file or in PostgreSQL, where an event stays until it was delivered.
//!
//! An event that is delivered is leased: its row says by whom, for how long, and by which attempt. What an attempt came to is
//! written only where the row says so still, so that one that is late changes nothing. Of the events of an order key that are
//! not finished one is not blocked; it alone is leased.

pub mod crowd;
pub mod custom;
pub mod delivery;
pub mod observer;
mod open;
pub mod operate;
mod order;
pub mod schedule;
mod store;
#[cfg(test)]
pub mod tests;
pub mod upkeep;

use std::{
    borrow::Cow,
    collections::BTreeSet,
    fs::File,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
    time::{Instant, SystemTime},
};

use bytes::Bytes;
use mesh::clock;
use sqlx::migrate::MigrateError;
use tokio::sync::Notify;

use self::{
    crowd::Crowd,
    store::{Parameter, Statement, Store},
};

/// Rows of one statement: a few sizes, so that few statements are prepared.
const CHUNKS: [usize; 3] = [64, 8, 1];

/// The queue of a node, or of a command beside it. Clones are the same queue.
#[derive(Debug, Clone)]
pub struct Queue {
    store: Store,
    /// Of leases: another one for each process.
    owner: i64,
    arrivals: Arc<Arrivals>,
    /// What the clock of a server told, and when.
    server_clock: Arc<Mutex<Option<(i64, Instant)>>>,
    /// What there is of each trigger, and of each project.
    crowd: Arc<Mutex<Crowd>>,
    /// Told when attempts of this process have ended.
    ended: Arc<Notify>,
    /// Locked while a node has the queue.
    _lock: Option<Arc<File>>,
}

/// Why the queue cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// Its database cannot be read or written.
    #[error("the queue of events failed")]
    Database(#[from] sqlx::Error),
    /// Its tables cannot be made.
    #[error("the tables of the queue of events cannot be made")]
    Migration(#[from] MigrateError),
    /// Its folder or its lock cannot be made.
    #[error("the queue of events cannot be opened")]
    File(#[from] std::io::Error),
    /// Another node has it.
    #[error("another node has the queue of events of this data folder")]
    Locked,
    /// There is none.
    #[error("there is no queue of events in {0}: no trigger has been served with this data folder")]
    Absent(PathBuf),
    /// An event that was asked for is not there.
    #[error("event {0} does not exist")]
    UnknownEvent(String),
    /// Another node follows the table.
    #[error("another node follows the table")]
    Lost,
}

/// A trigger: project and id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TriggerKey {
    /// The project's id.
    pub project: Arc<str>,
    /// The trigger's id.
    pub id: Arc<str>,
}

/// A table of a database of a project.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FollowedTable {
    /// The project's id.
    pub project: Arc<str>,
    /// The database's id.
    pub database: Arc<str>,
    /// The table's name.
    pub table: Arc<str>,
}

/// Who follows a table, at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// The process; 0: nobody.
    pub owner: i64,
    /// A number that it raises.
    pub beat: i64,
}

/// How far the log of a table was taken.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TakenPosition {
    /// Position of the log; empty: from now on.
    pub log: Bytes,
    /// The transaction that it ends with.
    pub transaction: u64,
    /// Changes of it that were taken.
    pub changes: u64,
}

/// An event that is about to be made durable.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    /// The same whenever the event is made.
    pub id: String,
    /// Its trigger.
    pub trigger: TriggerKey,
    /// `DB_INSERT` and so on.
    pub r#type: Cow<'static, str>,
    /// When it is due, in milliseconds since 1970; `None`: when it is made.
    pub due_ms: Option<i64>,
    /// The message, or why there is none: then it is not delivered.
    pub body: Result<Vec<u8>, String>,
    /// Events with the same key are delivered one after the other.
    pub order_key: Option<Vec<u8>>,
    /// How many events may follow from it.
    pub budget: i64,
    /// Whether somebody waits for its answer.
    pub is_awaited: bool,
}

/// Triggers that have new events.
#[derive(Debug, Default)]
struct Arrivals {
    triggers: Mutex<BTreeSet<TriggerKey>>,
    told: Notify,
}

impl Queue {
    /// The time of the queue in milliseconds since 1970: that of the server which nodes share, otherwise of this machine.
    pub fn now_ms(&self) -> i64 {
        match *self.server_clock.lock().expect("no code panics while it holds this lock") {
            Some((then_ms, at)) => then_ms.saturating_add(i64::try_from(at.elapsed().as_millis()).unwrap_or(i64::MAX)),
            None => clock::unix_ms(SystemTime::now()),
        }
    }

    /// Whether other nodes may have the queue too.
    pub fn is_shared(&self) -> bool {
        matches!(self.store, Store::Postgres(_))
    }

    /// Begins to follow a table, unless another process does: one that was `seen` for too long as it is still may be gone.
    /// Whether this process follows it now.
    pub async fn hold(&self, table: &FollowedTable, seen: Option<Holder>) -> Result<bool, QueueError> {
        let FollowedTable { project, database, table } = table;
        let new = Statement::new(
            "INSERT INTO followed_tables (project, database_id, table_name, position, transaction_id, changes, holder, \
             beat) VALUES (",
        )
        .bind(&**project)
        .push(", ")
        .bind(&**database)
        .push(", ")
        .bind(&**table)
        .push(", ")
        .bind(&b""[..])
        .push(", 0, 0, ")
        .bind(self.owner)
        .push(", 0) ON CONFLICT DO NOTHING");
        if self.store.execute(new).await? == 1 {
            return Ok(true);
        }
        let seen = seen.unwrap_or(Holder { owner: self.owner, beat: -1 });
        let hold = Statement::new("UPDATE followed_tables SET beat = beat + 1, holder = ").bind(self.owner);
        let hold = of_table(hold, project, database, table).push(" AND (holder IN (0, ").bind(self.owner);
        let hold = hold.push(") OR holder = ").bind(seen.owner).push(" AND beat = ").bind(seen.beat).push(")");
        Ok(self.store.execute(hold).await? == 1)
    }

    /// Tells others that this process follows its tables still.
    pub async fn beat(&self) -> Result<(), QueueError> {
        let beat = Statement::new("UPDATE followed_tables SET beat = beat + 1 WHERE holder = ").bind(self.owner);
        self.store.execute(beat).await?;
        Ok(())
    }

    /// How far the log of a table was taken; `None` where it never was.
    pub async fn position(&self, table: &FollowedTable) -> Result<Option<TakenPosition>, QueueError> {
        let select = Statement::new("SELECT position, transaction_id, changes FROM followed_tables");
        let rows: Vec<(Vec<u8>, i64, i64)> =
            self.store.rows(of_table(select, &table.project, &table.database, &table.table)).await?;
        Ok(rows.into_iter().next().map(|(log, transaction, changes)| TakenPosition {
            log: log.into(),
            transaction: transaction.cast_unsigned(),
            changes: changes.cast_unsigned(),
        }))
    }

    /// The tables whose log was taken, and who follows them.
    pub async fn tables(&self) -> Result<Vec<(FollowedTable, Holder)>, QueueError> {
        let select = "SELECT project, database_id, table_name, holder, beat FROM followed_tables";
        let rows: Vec<(String, String, String, i64, i64)> = self.store.rows(Statement::new(select)).await?;
        let table = |(project, database, table, owner, beat): (String, String, String, i64, i64)| {
            let table = FollowedTable { project: project.into(), database: database.into(), table: table.into() };
            (table, Holder { owner, beat })
        };
        Ok(rows.into_iter().map(table).collect())
    }

    /// Makes events durable, and with them how far the log was taken: both or neither. How many are new. An event that there
    /// is already is left as it is. Errors: another process follows the table.
    pub async fn take(
        &self,
        table: &FollowedTable,
        position: &TakenPosition,
        events: &[NewEvent],
        now_ms: i64,
    ) -> Result<u64, QueueError> {
        let mut transaction = self.store.begin().await?;
        let added = self.insert(&mut transaction, events, now_ms).await?;
        let taken = Statement::new("UPDATE followed_tables SET beat = beat + 1, position = ")
            .bind(&position.log[..])
            .push(", transaction_id = ")
            .bind(position.transaction.cast_signed())
            .push(", changes = ")
            .bind(position.changes.cast_signed());
        let taken = of_table(taken, &table.project, &table.database, &table.table).push(" AND holder = ");
        if transaction.execute(taken.bind(self.owner)).await? == 0 {
            return Err(QueueError::Lost);
        }
        transaction.commit().await?;
        self.added(events, now_ms);
        Ok(added)
    }

    /// Writes events, and tells other nodes; how many are new.
    async fn insert(
        &self,
        transaction: &mut store::StoreTransaction,
        events: &[NewEvent],
        now_ms: i64,
    ) -> Result<u64, QueueError> {
        let keys = order::keys(events.iter().filter_map(|event| Some((&event.trigger, event.order_key.as_deref()?))));
        if !keys.is_empty() {
            transaction.lock_order().await?;
        }
        let mut added = 0;
        for chunk in chunks(events) {
            let insert = Statement::new(
                "INSERT INTO events (id, project, trigger_id, type, body, bytes, order_key, blocked, status, created_ms, \
                 since_ms, due_ms, last, finished_ms, budget, awaited) VALUES ",
            );
            let insert = insert.rows(chunk.iter().map(|event| new_row(event, now_ms)));
            added += transaction.execute(insert.push(" ON CONFLICT (id) DO NOTHING")).await?;
        }
        order::unblock(transaction, &keys).await?;
        let triggers: BTreeSet<&TriggerKey> = events.iter().map(|event| &event.trigger).collect();
        for TriggerKey { project, id } in triggers {
            transaction.notify(&format!("{project}/{id}")).await?;
        }
        Ok(added)
    }

    /// Lets others follow a table; whether this process followed it.
    pub async fn leave(&self, table: &FollowedTable) -> Result<bool, QueueError> {
        let leave = Statement::new("UPDATE followed_tables SET beat = beat + 1, holder = 0");
        let leave = of_table(leave, &table.project, &table.database, &table.table).push(" AND holder = ");
        Ok(self.store.execute(leave.bind(self.owner)).await? == 1)
    }

    /// Forgets how far the log of a table was taken, where this process follows it: whoever follows it next begins then.
    pub async fn forget(&self, table: &FollowedTable) -> Result<(), QueueError> {
        let delete = Statement::new("DELETE FROM followed_tables");
        let delete = of_table(delete, &table.project, &table.database, &table.table).push(" AND holder = ");
        self.store.execute(delete.bind(self.owner)).await?;
        Ok(())
    }

    /// Events are durable now.
    fn added(&self, events: &[NewEvent], now_ms: i64) {
        self.crowd().add(events, now_ms);
        self.arrived(events.iter().map(|event| event.trigger.clone()));
    }

    fn arrived(&self, triggers: impl Iterator<Item = TriggerKey>) {
        self.arrivals.triggers.lock().expect("no code panics while it holds this lock").extend(triggers);
        self.arrivals.told.notify_one();
    }

    fn crowd(&self) -> MutexGuard<'_, Crowd> {
        self.crowd.lock().expect("no code panics while it holds this lock")
    }

    /// Waits for new events. Cancel-safe.
    pub async fn arrival(&self) {
        self.arrivals.told.notified().await;
    }

    /// The triggers that got events since this was last asked.
    pub fn arrivals(&self) -> BTreeSet<TriggerKey> {
        std::mem::take(&mut *self.arrivals.triggers.lock().expect("no code panics while it holds this lock"))
    }
}

fn of_table<'v>(statement: Statement<'v>, project: &'v str, database: &'v str, table: &'v str) -> Statement<'v> {
    let statement = statement.push(" WHERE project = ").bind(project).push(" AND database_id = ").bind(database);
    statement.push(" AND table_name = ").bind(table)
}

fn new_row(event: &NewEvent, now_ms: i64) -> [Parameter<'_>; 16] {
    let (body, status, last) = match &event.body {
        Ok(body) => (&body[..], "pending", ""),
        Err(why) => (&[][..], "failed", why.as_str()),
    };
    let due_ms = event.due_ms.map_or(now_ms, |due_ms| due_ms.max(now_ms));
    let is_ordered = event.order_key.is_some() && event.body.is_ok();
    [
        event.id.as_str().into(),
        (&*event.trigger.project).into(),
        (&*event.trigger.id).into(),
        (&*event.r#type).into(),
        body.into(),
        i64::try_from(body.len()).unwrap_or(i64::MAX).into(),
        event.order_key.as_deref().into(),
        i64::from(is_ordered).into(),
        status.into(),
        now_ms.into(),
        now_ms.into(),
        due_ms.into(),
        last.into(),
        event.body.is_err().then_some(now_ms).into(),
        event.budget.into(),
        i64::from(event.is_awaited).into(),
    ]
}

/// Parts of `all` of the sizes of [`CHUNKS`].
fn chunks<T>(mut all: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let size = CHUNKS.into_iter().find(|size| *size <= all.len())?;
        let (chunk, rest) = all.split_at(size);
        all = rest;
        Some(chunk)
    })
}
