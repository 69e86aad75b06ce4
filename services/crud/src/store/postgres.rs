//! PostgreSQL 13 and later: short reads pipelined over a few shared connections, all else over pooled ones.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use arc_swap::ArcSwap;
use mesh::tasks::Tasks;
use query::{Schema, resources::Changes};
use tokio::sync::Notify;
use tokio_postgres::Row;

use self::{
    cell::{Decoder, Raw},
    connection::{Connection, Message, send_pipelined},
    connector::Connector,
    error::{Keys, PostgresError},
    pipeline::Pipeline,
    pool::{ConnectionLease, Pool, State},
    pooler::TransactionKind,
    replication::{ReplicationConnection, ReplicationError, System},
    statement_stats::{StatementRegistry, StatementStats},
};
use super::Statement;
use crate::{
    Error, Introspected, LeftOut,
    bind::Bind,
    budget::{Budget, SharedRoom},
    cell::Cell,
    error::StatementError,
    neighbour::Neighbour,
};

mod batch;
mod bind;
mod cell;
pub mod changes;
mod connection;
mod connector;
mod driver;
mod equality;
mod error;
mod introspect;
mod merged;
mod neighbours;
mod pipeline;
mod pool;
mod pooler;
mod replication;
mod rewritten;
mod sqlstate;
mod statement_stats;
mod survey;
mod tls;
mod tx;
mod unordered;

pub use connector::target;
pub use survey::{OutwardKey, SchemaSize, Survey};
pub use tx::PostgresTx;

/// A database on a PostgreSQL server. Connections are made when they are needed, and made again when they are lost.
#[derive(Clone)]
pub struct Postgres {
    inner: Arc<PostgresInner>,
}

struct PostgresInner {
    /// The database's id, for messages.
    database: String,
    schema: String,
    /// From what changes of rows are learnt.
    changes: Changes,
    statements: StatementRegistry,
    pipeline: Pipeline,
    pool: Arc<Pool>,
    /// Columns of unique keys, as the last introspection found them.
    keys: ArcSwap<Keys>,
    /// Labels of enumerated types, by the names of the types, as the last introspection found them.
    labels: ArcSwap<HashMap<String, Vec<String>>>,
    /// Result of the last introspection.
    seen: Mutex<Option<Schema>>,
    /// Told of our commits; one task waits for it.
    commits: Notify,
    /// As `commits`, for the task that reads the log.
    log_commits: Notify,
}

/// The rows of one statement, as the server sent them; cells are decoded when they are asked for.
pub struct PostgresRows {
    rows: Vec<Row>,
    decoders: Arc<[Decoder]>,
    affected: u64,
    /// Memory that they take.
    size: usize,
}

impl Postgres {
    /// The database at `url`, with `schema` for names that do not say theirs, over at most `max` connections. Does not
    /// connect.
    ///
    /// Errors: what is wrong with the URL, without its password.
    pub fn open(database: &str, url: &str, schema: &str, max: usize, tasks: &Tasks) -> Result<Self, String> {
        let connector = Arc::new(Connector::parse(url, schema, tasks)?);
        // Two reach what a server gives on two cores; more than four only take from its other connections.
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let pipelined = cores.clamp(2, 4).min(max / 2);
        Ok(Self {
            inner: Arc::new(PostgresInner {
                database: database.to_owned(),
                schema: schema.to_owned(),
                changes: Changes::default(),
                statements: StatementRegistry::default(),
                pipeline: Pipeline::new(connector.clone(), pipelined),
                pool: Arc::new(Pool::new(connector, max - pipelined)),
                keys: ArcSwap::default(),
                labels: ArcSwap::default(),
                seen: Mutex::default(),
                commits: Notify::new(),
                log_commits: Notify::new(),
            }),
        })
    }

    /// The same, which is not used yet, with changes of rows learnt from what `changes` says.
    pub fn learning(mut self, changes: Changes) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.inner) {
            inner.changes = changes;
        }
        self
    }

    /// A replication connection that says it is `name`, and what it is to.
    async fn replicate(&self, name: &str) -> Result<(ReplicationConnection, System), ReplicationError> {
        Box::pin(self.inner.pool.connector.replicate(name)).await
    }

    fn tasks(&self) -> &Tasks {
        &self.inner.pool.connector.tasks
    }

    /// Independent reads: several in one read-only snapshot and one round trip. What a lost connection did not answer
    /// is asked once more over a new one. Dropping the future ends them on the server.
    pub async fn snapshot(
        &self,
        statements: &[Statement],
        budget: &Budget<'_>,
    ) -> Result<Vec<PostgresRows>, StatementError> {
        match statements {
            [] => Ok(Vec::new()),
            [statement] => Ok(vec![self.read(statement, budget).await?]),
            _ => {
                let stats = self.stats(statements);
                let stats = &stats;
                let work = |connection: Arc<Connection>| {
                    let room = budget.shared_room();
                    Box::pin(async move { snapshot(&connection, stats, statements, &room).await })
                };
                self.with_retry(work).await.map_err(|failure| self.statement_error(failure))
            }
        }
    }

    /// As [`Postgres::snapshot`], with statements that are equal but for their values merged; also how many were sent. Where
    /// that fails, each is sent alone: it tells what is wrong with it.
    pub async fn merged_snapshot(
        &self,
        statements: &[Statement],
        budget: &Budget<'_>,
    ) -> Result<(Vec<PostgresRows>, usize), StatementError> {
        let groups = merged::groups(statements);
        if !groups.is_empty() {
            let (registry, of) = (&self.inner.statements, (statements, groups.as_slice()));
            let work = |connection: Arc<Connection>| {
                let room = budget.shared_room();
                Box::pin(async move { merged::merged_snapshot(&connection, registry, of, &room).await })
            };
            match self.with_retry(work).await {
                Ok(read) => return Ok(read),
                Err(failure) if failure.is_of_statements() => {
                    tracing::debug!(database = self.inner.database, ?failure, "merged statements are sent alone");
                }
                Err(failure) => return Err(self.statement_error(failure)),
            }
        }
        Ok((self.snapshot(statements, budget).await?, statements.len()))
    }

    /// One write in its own transaction. Never sent twice: a lost connection does not say whether it was done.
    pub async fn write(&self, statement: &Statement) -> Result<PostgresRows, Error> {
        let stats = self.inner.statements.stats(&statement.text);
        let mut lease = self.lease().await?;
        let budget = Budget::unlimited();
        let room = budget.shared_room();
        let work = Box::pin(run_one(lease.connection(), &stats, &statement.args, &room));
        let written = lease.run(State::Clean, work).await.map_err(|failure| self.error(failure));
        self.inner.committed();
        written
    }

    /// A transaction that may write, on a connection of its own. Dropped without [`PostgresTx::commit`] it is rolled
    /// back.
    pub async fn begin(&self) -> Result<PostgresTx, Error> {
        Ok(PostgresTx::new(self.clone(), self.lease().await?))
    }

    /// Introspects the schema, as far as our role may use it.
    ///
    /// What cannot be served is left out, foreign tables whose server does not answer too.
    ///
    /// Tables of its neighbours are there too, as far as foreign keys or links connect them.
    pub async fn introspect(&self, neighbours: &[Neighbour]) -> Result<Introspected, Error> {
        let name = self.inner.schema.as_str();
        let read = self.with_retry(|connection| Box::pin(async move { introspect::catalog(&connection, name).await }));
        let introspect::Catalog { found: Introspected { schema, mut left_out }, keys, foreign, labels } =
            read.await.map_err(|failure| self.error(failure))?;
        let unreadable = self.unreadable(&foreign).await?;
        let is_readable = |table: &query::Table| unreadable.iter().all(|object| object.name != table.name);
        let schema = match unreadable.is_empty() {
            true => schema,
            false => Schema::new(schema.tables().iter().filter(|table| is_readable(table)).cloned().collect()),
        };
        left_out.extend(unreadable);
        let schema = if neighbours.is_empty() {
            schema
        } else {
            let (schema, unusable) = self.with_neighbours(schema, neighbours).await?;
            left_out.extend(unusable);
            schema
        };
        rewritten::once_each(&mut left_out);
        self.inner.keys.store(Arc::new(keys));
        self.inner.labels.store(Arc::new(labels));
        let before = self.inner.seen.lock().unwrap_or_else(PoisonError::into_inner).replace(schema.clone());
        if before.is_some_and(|before| before != schema) {
            // What was prepared for the old types would fail, or bind at a width that is too small now.
            self.inner.statements.clear();
        }
        Ok(Introspected { schema, left_out })
    }

    async fn with_neighbours(&self, schema: Schema, neighbours: &[Neighbour]) -> Result<(Schema, Vec<LeftOut>), Error> {
        let (own, tables) = (self.inner.schema.as_str(), schema.into_tables());
        let join = |connection: Arc<Connection>| {
            let tables = tables.clone();
            Box::pin(async move { neighbours::join(&connection, own, neighbours, tables).await })
        };
        let (tables, left_out) = self.with_retry(join).await.map_err(|failure| self.error(failure))?;
        let has_neighbours = tables.iter().any(|table| table.database.is_some());
        let database = if has_neighbours { self.inner.database.clone() } else { String::new() };
        Ok((Schema::with_neighbours(database, tables), left_out))
    }

    /// The schemas of the database, and the foreign keys between them.
    pub async fn survey(&self) -> Result<Survey, Error> {
        let survey = self.with_retry(|connection| Box::pin(async move { survey::survey(&connection).await }));
        survey.await.map_err(|failure| self.error(failure))
    }

    /// Labels of the enumerated type called `native`, in their order; `None` where there is no such type.
    pub fn labels(&self, native: &str) -> Option<Vec<String>> {
        self.inner.labels.load().get(native).cloned()
    }

    /// A text that changes whenever the schema does.
    pub async fn schema_mark(&self, neighbours: &[Neighbour]) -> Result<Option<String>, Error> {
        let own = self.inner.schema.as_str();
        let mark = self.with_retry(|connection| {
            Box::pin(async move {
                let Some(mark) = introspect::mark(&connection, &[own]).await? else { return Ok(None) };
                match neighbours.is_empty() {
                    true => Ok(Some(mark)),
                    false => Ok(Some(mark + &neighbours::mark(&connection, own, neighbours).await?)),
                }
            })
        });
        mark.await.map_err(|failure| self.error(failure))
    }

    /// Whether the server answers.
    pub async fn ping(&self) -> Result<(), Error> {
        let asked = self.with_retry(|connection| Box::pin(async move { connection.command("SELECT 1").await }));
        asked.await.map_err(|failure| self.error(failure))
    }

    /// One read: pipelined if it is known to be short.
    async fn read(&self, statement: &Statement, budget: &Budget<'_>) -> Result<PostgresRows, Error> {
        let stats = self.inner.statements.stats(&statement.text);
        if stats.is_short() {
            match self.inner.pipeline.run(&stats, &statement.args, budget).await {
                Some(Err(failure)) if failure.is_lost() => {}
                Some(result) => return result.map_err(|failure| self.error(failure)),
                None => {}
            }
        }
        let stats = &stats;
        let work = |connection: Arc<Connection>| {
            let room = budget.shared_room();
            Box::pin(async move { run_one(connection, stats, &statement.args, &room).await })
        };
        Box::pin(self.with_retry(work)).await.map_err(|failure| self.error(failure))
    }

    /// Runs idempotent `work` on a connection of its own, and retries it once on a new one if that was lost.
    async fn with_retry<T, Work>(&self, work: impl Fn(Arc<Connection>) -> Work) -> Result<T, PostgresError>
    where
        Work: Future<Output = Result<T, PostgresError>>,
    {
        let mut lease = self.inner.pool.lease().await?;
        let mut result = lease.run(State::Clean, work(lease.connection())).await;
        if result.as_ref().is_err_and(PostgresError::is_lost) {
            drop(lease);
            let mut lease = self.inner.pool.lease_new().await?;
            result = lease.run(State::Clean, work(lease.connection())).await;
        }
        result
    }

    async fn lease(&self) -> Result<ConnectionLease, Error> {
        self.inner.pool.lease().await.map_err(|failure| self.error(failure))
    }

    fn stats(&self, statements: &[Statement]) -> Vec<Arc<StatementStats>> {
        statements.iter().map(|statement| self.inner.statements.stats(&statement.text)).collect()
    }

    fn error(&self, failure: PostgresError) -> Error {
        self.statement_error(failure).into()
    }

    /// The error as callers see it. After a stale statement, nothing prepared before is used again.
    fn statement_error(&self, failure: PostgresError) -> StatementError {
        if failure.is_stale() {
            tracing::debug!(database = self.inner.database, ?failure, "a statement is older than the schema");
            self.inner.statements.clear();
        }
        failure.into_error(&self.inner.database, &self.inner.keys.load())
    }
}

impl PostgresInner {
    /// Tells who waits for our commits.
    fn committed(&self) {
        self.commits.notify_one();
        self.log_commits.notify_one();
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Postgres").field("database", &self.inner.database).finish_non_exhaustive()
    }
}

/// Runs one statement, which is its own transaction.
async fn run_one(
    connection: Arc<Connection>,
    stats: &StatementStats,
    args: &[Bind],
    room: &SharedRoom<'_, '_>,
) -> Result<PostgresRows, PostgresError> {
    let ready = connection.prepare(stats).await?;
    let sent = Instant::now();
    let rows = if connection.is_shared() {
        run_in_transaction(&connection, &ready, args, room).await
    } else {
        connection.run(&ready, args, room).await
    };
    stats.record(sent.elapsed(), &rows);
    rows
}

/// Runs one statement in a transaction of its own, all sent at once.
async fn run_in_transaction(
    connection: &Connection,
    ready: &connection::PreparedStatement,
    args: &[Bind],
    room: &SharedRoom<'_, '_>,
) -> Result<PostgresRows, PostgresError> {
    let messages: Vec<Message<'_>> = vec![
        begin(connection, TransactionKind::Write),
        Box::pin(async move { connection.run(ready, args, room).await.map(Some) }),
        command(connection, "COMMIT"),
    ];
    send_pipelined(messages).await.map(|mut rows| rows.remove(0)).map_err(|(_, failure)| failure)
}

/// Runs statements in one read-only transaction, all sent at once. Where one fails, the commit rolls back.
async fn snapshot(
    connection: &Connection,
    stats: &[Arc<StatementStats>],
    statements: &[Statement],
    room: &SharedRoom<'_, '_>,
) -> Result<Vec<PostgresRows>, PostgresError> {
    let ready = prepared(connection, stats).await?;
    let mut messages = vec![begin(connection, TransactionKind::Snapshot)];
    for (ready, statement) in ready.iter().zip(statements) {
        messages.push(Box::pin(async move { connection.run(ready, &statement.args, room).await.map(Some) }));
    }
    messages.push(command(connection, "COMMIT"));
    send_pipelined(messages).await.map_err(|(message, failure)| match message.checked_sub(1) {
        Some(statement) if statement < statements.len() => failure.of_statement(statement),
        Some(_) | None => failure,
    })
}

/// Statements prepared on `connection`, the new ones in one round trip.
async fn prepared(
    connection: &Connection,
    stats: &[Arc<StatementStats>],
) -> Result<Vec<connection::PreparedStatement>, PostgresError> {
    // All are waited for, also after a failure: a statement that is prepared and not kept would stay on the server.
    let ready = futures::future::join_all(stats.iter().map(|stats| connection.prepare(stats))).await;
    let ready = ready.into_iter().enumerate();
    ready.map(|(index, ready)| ready.map_err(|failure| failure.of_statement(index))).collect()
}

fn begin(connection: &Connection, kind: TransactionKind) -> Message<'_> {
    Box::pin(async move { connection.begin(kind).await.map(|()| None) })
}

fn command<'a>(connection: &'a Connection, text: &'static str) -> Message<'a> {
    Box::pin(async move { connection.command(text).await.map(|()| None) })
}

impl PostgresRows {
    /// Number of rows; for a statement without result columns, of affected rows.
    pub fn len(&self) -> usize {
        if self.decoders.is_empty() { usize::try_from(self.affected).unwrap_or(usize::MAX) } else { self.rows.len() }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory that they take, in bytes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// A value of a row.
    ///
    /// Panics where there is no such row or column.
    pub fn cell(&self, row: usize, column: usize) -> Cell<'_> {
        match self.raw(row, column) {
            Some(raw) => self.decoders[column].decode(raw),
            None => Cell::Null,
        }
    }

    /// A value of a row as the server sent it; `None` for NULL.
    ///
    /// Panics where there is no such row or column.
    pub fn raw(&self, row: usize, column: usize) -> Option<&[u8]> {
        let raw: Option<Raw<'_>> = self.rows[row].get(column);
        raw.map(|raw| raw.0)
    }
}

impl fmt::Debug for PostgresRows {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PostgresRows").field("len", &self.len()).field("decoders", &self.decoders).finish()
    }
}

#[cfg(test)]
mod tests;
