//! Where the queue is: an SQLite file below the data folder of one node, or PostgreSQL that nodes share.

use std::{
    fs::{File, TryLockError},
    path::Path,
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use mesh::config::{PostgresQueue, QueueConfig};
use sqlx::{
    AssertSqlSafe, Connection, PgConnection,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{
    Queue, QueueError, TriggerKey,
    store::{Statement, Store, within},
};

/// The folder of the queue below the data folder, its file, and the file that its owner has locked.
const FOLDER: &str = "functions";
const FILE: &str = "events.db";
const LOCK_FILE: &str = "events.lock";
/// How long a statement waits for another process that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection of the pool is waited for.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// Wait before what failed is tried again.
const LISTEN_RETRY: Duration = Duration::from_secs(1);
/// Settings of sessions: a server ends what hangs, and the transactions of processes that are gone.
const SESSION: [(&str, &str); 6] = [
    ("statement_timeout", "30s"),
    ("lock_timeout", "10s"),
    // After a lock each statement has to see what its last holder wrote, whatever the database has as its default.
    ("default_transaction_isolation", "read committed"),
    ("idle_in_transaction_session_timeout", "30s"),
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
];

impl Queue {
    /// Whether there is a queue, as far as that is known without asking a server.
    pub fn exists(config: &QueueConfig, data: &Path) -> bool {
        match config {
            QueueConfig::File {} => data.join(FOLDER).join(FILE).exists(),
            QueueConfig::Postgres(_) => true,
        }
    }

    /// The queue for a node that delivers what is in it; made where there is none. A file is of one node.
    pub async fn open(config: &QueueConfig, data: &Path) -> Result<Self, QueueError> {
        match config {
            QueueConfig::File {} => Self::open_file(data).await,
            QueueConfig::Postgres(server) => Box::pin(Self::connect_server(server)).await,
        }
    }

    /// The queue for a command beside the node that delivers what is in it.
    pub async fn beside(config: &QueueConfig, data: &Path) -> Result<Self, QueueError> {
        match config {
            QueueConfig::File {} if !Self::exists(config, data) => Err(QueueError::Absent(data.to_owned())),
            QueueConfig::File {} => Self::connect_file(&data.join(FOLDER).join(FILE)).await,
            QueueConfig::Postgres(server) => Box::pin(Self::connect_server(server)).await,
        }
    }

    async fn open_file(data: &Path) -> Result<Self, QueueError> {
        let folder = data.join(FOLDER);
        std::fs::create_dir_all(&folder)?;
        let lock = File::create(folder.join(LOCK_FILE))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(QueueError::Locked),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        create_private(&folder.join(FILE))?;
        let queue = Self { _lock: Some(Arc::new(lock)), ..Self::connect_file(&folder.join(FILE)).await? };
        // Nobody else delivers or follows tables: whoever did is gone.
        for statement in [
            "UPDATE events SET status = 'pending', lease_owner = NULL, lease_ms = NULL WHERE status = 'running'",
            "UPDATE followed_tables SET holder = 0",
        ] {
            queue.store.execute(Statement::new(statement)).await?;
        }
        Ok(queue)
    }

    async fn connect_file(file: &Path) -> Result<Self, QueueError> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT);
        // One writer at a time is what a file has; who waits for it, waits here.
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
        sqlx::migrate!("migrations/sqlite").run(&pool).await?;
        Ok(Self::new(Store::Sqlite(pool)))
    }

    async fn connect_server(server: &PostgresQueue) -> Result<Self, QueueError> {
        let options = PgConnectOptions::from_str(&server.url.0)?
            .application_name("perigee events")
            .options(SESSION)
            .options([("search_path", server.schema.as_str())]);
        let mut first = within(Box::pin(PgConnection::connect_with(&options))).await?;
        // Several nodes may begin at once: one of them makes it.
        let known: Option<i32> = sqlx::query_scalar("SELECT 1 FROM pg_namespace WHERE nspname = $1")
            .bind(&server.schema)
            .fetch_optional(&mut first)
            .await?;
        if known.is_none() {
            // The configuration lets letters, digits and underscores be a name of a schema.
            let create = format!("CREATE SCHEMA IF NOT EXISTS {}", server.schema);
            sqlx::query(AssertSqlSafe(create)).execute(&mut first).await?;
        }
        first.close().await?;
        let pool = PgPoolOptions::new().max_connections(server.connections).acquire_timeout(ACQUIRE_TIMEOUT);
        let pool = Box::pin(pool.connect_with(options)).await?;
        sqlx::migrate!("migrations/postgres").run(&pool).await?;
        let queue = Self::new(Store::Postgres(pool));
        queue.set_clock().await?;
        Ok(queue)
    }

    fn new(store: Store) -> Self {
        // 0 is nobody.
        let owner = rand::random::<i64>() | 1;
        let (arrivals, server_clock, crowd, ended) = Default::default();
        Self { store, owner, arrivals, server_clock, crowd, ended, _lock: None }
    }

    /// Sets the clock of the queue by that of the server which nodes share, never ahead of it.
    pub async fn set_clock(&self) -> Result<(), QueueError> {
        if self.is_shared() {
            let now = Statement::new("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint");
            let told: Vec<(i64,)> = self.store.rows(now).await?;
            let at = Instant::now();
            *self.server_clock.lock().expect("no code panics while it holds this lock") =
                told.first().map(|(now_ms,)| (*now_ms, at));
        }
        Ok(())
    }

    /// Hears from other nodes of new events, for ever.
    pub async fn listen(&self) {
        let Store::Postgres(pool) = &self.store else { return std::future::pending().await };
        loop {
            if let Err(error) = Box::pin(self.listen_on(pool)).await {
                tracing::debug!(%error, "other nodes are not heard of new events");
            }
            tokio::time::sleep(LISTEN_RETRY).await;
        }
    }

    async fn listen_on(&self, pool: &sqlx::PgPool) -> Result<(), sqlx::Error> {
        let channel: String = sqlx::query_scalar("SELECT current_schema()::text").fetch_one(pool).await?;
        let mut listener = Box::pin(PgListener::connect_with(pool)).await?;
        Box::pin(listener.listen(&channel)).await?;
        loop {
            let told = Box::pin(listener.recv()).await?;
            if let Some((project, id)) = told.payload().split_once('/') {
                self.arrived(std::iter::once(TriggerKey { project: project.into(), id: id.into() }));
            }
        }
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
