//! The queue of events: tables of ours in an SQLite file, where an event stays until it was delivered.
//!
//! An event that is delivered is leased: its row says by whom, until when, and by which attempt. What an attempt came to is
//! written only where the row says so still, so that one that is late changes nothing.

pub mod delivery;
pub mod operate;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use sqlx::{
    Row, Sqlite, SqlitePool, Transaction,
    migrate::MigrateError,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::sync::Notify;

/// The folder of the queue below the data folder, its file, and the file that its owner has locked.
const FOLDER: &str = "functions";
const FILE: &str = "events.db";
const LOCK_FILE: &str = "events.lock";
/// How long a statement waits for another process that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// The queue of a node, or of a command beside it. Clones are the same queue.
#[derive(Debug, Clone)]
pub struct Queue {
    pool: SqlitePool,
    /// Of leases: another one for each process.
    owner: i64,
    arrivals: Arc<Arrivals>,
    /// Locked while a node has the queue.
    _lock: Option<Arc<File>>,
}

/// Why the queue cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// Its file cannot be read or written.
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
    pub r#type: &'static str,
    /// The message, or why there is none: then it is not delivered.
    pub body: Result<Vec<u8>, String>,
    /// Events with the same key are delivered one after the other.
    pub order_key: Option<Vec<u8>>,
}

/// Triggers that have new events.
#[derive(Debug, Default)]
struct Arrivals {
    triggers: Mutex<BTreeSet<TriggerKey>>,
    told: Notify,
}

impl Queue {
    /// Whether there is a queue below `data`.
    pub fn exists(data: &Path) -> bool {
        data.join(FOLDER).join(FILE).exists()
    }

    /// The queue below `data` for the one node that delivers what is in it; made where there is none.
    pub async fn open(data: &Path) -> Result<Self, QueueError> {
        let folder = data.join(FOLDER);
        std::fs::create_dir_all(&folder)?;
        let lock = File::create(folder.join(LOCK_FILE))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(QueueError::Locked),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        create_private(&folder.join(FILE))?;
        let queue = Self { _lock: Some(Arc::new(lock)), ..Self::connect(&folder.join(FILE)).await? };
        // Nobody else delivers: what is leased was leased by a process that is gone.
        sqlx::query(
            "UPDATE events SET status = 'pending', lease_owner = NULL, lease_until_ms = NULL WHERE status = 'running'",
        )
        .execute(&queue.pool)
        .await?;
        Ok(queue)
    }

    async fn connect(file: &Path) -> Result<Self, QueueError> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT);
        // One writer at a time is what a file has; who waits for it, waits here.
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
        sqlx::migrate!().run(&pool).await?;
        Ok(Self { pool, owner: rand::random(), arrivals: Arc::default(), _lock: None })
    }

    /// A transaction that has the right to write from its beginning.
    async fn write(&self) -> Result<Transaction<'static, Sqlite>, QueueError> {
        Ok(self.pool.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// How far the log of a table was taken; `None` where it never was.
    pub async fn position(&self, table: &FollowedTable) -> Result<Option<TakenPosition>, QueueError> {
        let row = sqlx::query(
            "SELECT position, transaction_id, changes FROM followed_tables \
             WHERE project = ?1 AND database_id = ?2 AND table_name = ?3",
        )
        .bind(&*table.project)
        .bind(&*table.database)
        .bind(&*table.table)
        .fetch_optional(&self.pool)
        .await?;
        let position = |row: sqlx::sqlite::SqliteRow| -> Result<TakenPosition, sqlx::Error> {
            let (log, transaction, changes): (Vec<u8>, i64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            Ok(TakenPosition {
                log: log.into(),
                transaction: transaction.cast_unsigned(),
                changes: changes.cast_unsigned(),
            })
        };
        Ok(row.map(position).transpose()?)
    }

    /// The tables whose log was taken.
    pub async fn tables(&self) -> Result<Vec<FollowedTable>, QueueError> {
        let rows = sqlx::query_as::<_, (String, String, String)>(
            "SELECT project, database_id, table_name FROM followed_tables",
        );
        let table = |(project, database, table): (String, String, String)| FollowedTable {
            project: project.into(),
            database: database.into(),
            table: table.into(),
        };
        Ok(rows.fetch_all(&self.pool).await?.into_iter().map(table).collect())
    }

    /// Makes events durable, and with them how far the log was taken: both or neither. How many are new. An event that there
    /// is already is left as it is.
    pub async fn take(
        &self,
        table: &FollowedTable,
        position: &TakenPosition,
        events: &[NewEvent],
        now_ms: i64,
    ) -> Result<u64, QueueError> {
        let mut transaction = self.write().await?;
        let mut added = 0;
        for event in events {
            added += insert(&mut transaction, event, now_ms).await?;
        }
        sqlx::query(
            "INSERT INTO followed_tables (project, database_id, table_name, position, transaction_id, changes) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO UPDATE SET position = excluded.position, \
             transaction_id = excluded.transaction_id, changes = excluded.changes",
        )
        .bind(&*table.project)
        .bind(&*table.database)
        .bind(&*table.table)
        .bind(&position.log[..])
        .bind(position.transaction.cast_signed())
        .bind(position.changes.cast_signed())
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        self.arrived(events.iter().map(|event| event.trigger.clone()));
        Ok(added)
    }

    /// Forgets how far the log of a table was taken: whoever follows it next begins then.
    pub async fn forget(&self, table: &FollowedTable) -> Result<(), QueueError> {
        sqlx::query("DELETE FROM followed_tables WHERE project = ?1 AND database_id = ?2 AND table_name = ?3")
            .bind(&*table.project)
            .bind(&*table.database)
            .bind(&*table.table)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    fn arrived(&self, triggers: impl Iterator<Item = TriggerKey>) {
        self.arrivals.triggers.lock().expect("no code panics while it holds this lock").extend(triggers);
        self.arrivals.told.notify_one();
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

/// Makes the file where there is none: rows are in it, which nobody else may read.
fn create_private(file: &Path) -> std::io::Result<()> {
    let mut options = File::options();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(file).map(drop)
}

async fn insert(transaction: &mut Transaction<'_, Sqlite>, event: &NewEvent, now_ms: i64) -> Result<u64, QueueError> {
    let (body, status, last) = match &event.body {
        Ok(body) => (&body[..], "pending", ""),
        Err(why) => (&[][..], "failed", why.as_str()),
    };
    let inserted = sqlx::query(
        "INSERT INTO events (id, project, trigger_id, type, body, order_key, status, created_ms, since_ms, due_ms, last, \
         finished_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8, ?8, ?9, iif(?7 = 'failed', ?8, NULL)) \
         ON CONFLICT (id) DO NOTHING",
    )
    .bind(&event.id)
    .bind(&*event.trigger.project)
    .bind(&*event.trigger.id)
    .bind(event.r#type)
    .bind(body)
    .bind(event.order_key.as_deref())
    .bind(status)
    .bind(now_ms)
    .bind(last)
    .execute(&mut **transaction)
    .await?;
    Ok(inserted.rows_affected())
}
