//! PostgreSQL 13 and later: short reads pipelined over a few shared connections, everything else on one of its own.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use arc_swap::ArcSwap;
use mesh::tasks::Tasks;
use query::Schema;
use tokio_postgres::Row;

use self::{
    cell::{Decoder, Raw},
    connection::{Connection, Message, send_pipelined},
    connector::Connector,
    error::{Keys, PostgresError},
    pipeline::Pipeline,
    pool::{ConnectionLease, Pool, State},
    statement_stats::{StatementRegistry, StatementStats},
};
use super::Statement;
use crate::{
    Error,
    bind::Bind,
    budget::{Budget, SharedRoom},
    cell::Cell,
};

mod batch;
mod bind;
mod cell;
mod connection;
mod connector;
mod error;
mod introspect;
mod pipeline;
mod pool;
mod statement_stats;
mod tls;
mod tx;

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
    statements: StatementRegistry,
    lanes: Pipeline,
    pool: Arc<Pool>,
    /// Columns of unique keys, as the last introspection found them.
    keys: ArcSwap<Keys>,
    /// What the last introspection found.
    seen: Mutex<Option<Schema>>,
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
        let target = Arc::new(Connector::parse(url, schema, tasks)?);
        // Two lanes reach what a server gives on two cores; more than four only take from its other connections.
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let lanes = cores.clamp(2, 4).min(max / 2);
        Ok(Self {
            inner: Arc::new(PostgresInner {
                database: database.to_owned(),
                schema: schema.to_owned(),
                statements: StatementRegistry::default(),
                lanes: Pipeline::new(target.clone(), lanes),
                pool: Arc::new(Pool::new(target, max - lanes)),
                keys: ArcSwap::default(),
                seen: Mutex::default(),
            }),
        })
    }

    /// Independent reads: several in one read-only snapshot and one round trip. What a lost connection did not answer
    /// is asked once more over a new one. Dropping the future ends them on the server.
    pub async fn snapshot(&self, statements: &[Statement], budget: &Budget<'_>) -> Result<Vec<PostgresRows>, Error> {
        match statements {
            [] => Ok(Vec::new()),
            [statement] => self.read(statement, budget).await.map(|rows| vec![rows]),
            _ => {
                let known = self.known(statements);
                let known = &known;
                let work = |connection: Arc<Connection>| {
                    let room = budget.shared_room();
                    Box::pin(async move { snapshot(&connection, known, statements, &room).await })
                };
                self.again(work).await
            }
        }
    }

    /// One write in its own transaction. Never sent twice: a lost connection does not say whether it was done.
    pub async fn write(&self, statement: &Statement) -> Result<PostgresRows, Error> {
        let known = self.inner.statements.known(&statement.text);
        let mut lease = self.lease().await?;
        let budget = Budget::unlimited();
        let room = budget.shared_room();
        let work = Box::pin(one(lease.connection(), &known, &statement.args, &room));
        lease.run(State::Clean, work).await.map_err(|failure| self.error(failure))
    }

    /// A transaction that may write, on a connection of its own. Dropped without [`PostgresTx::commit`] it is rolled back.
    pub async fn begin(&self) -> Result<PostgresTx, Error> {
        Ok(PostgresTx::new(self.clone(), self.lease().await?))
    }

    /// What the schema holds, as far as our role may use it.
    pub async fn introspect(&self) -> Result<Schema, Error> {
        let name = self.inner.schema.as_str();
        let found = self.again(|connection| Box::pin(async move { introspect::schema(&connection, name).await }));
        let (schema, keys) = found.await?;
        self.inner.keys.store(Arc::new(keys));
        let before = self.inner.seen.lock().unwrap_or_else(PoisonError::into_inner).replace(schema.clone());
        if before.is_some_and(|before| before != schema) {
            // What was prepared for the old types would fail, or bind at a width that is too small now.
            self.inner.statements.forget();
        }
        Ok(schema)
    }

    /// A text that changes whenever the schema does.
    pub async fn schema_mark(&self) -> Result<Option<String>, Error> {
        let name = self.inner.schema.as_str();
        self.again(|connection| Box::pin(async move { introspect::mark(&connection, name).await })).await
    }

    /// Whether the server answers.
    pub async fn ping(&self) -> Result<(), Error> {
        self.again(|connection| Box::pin(async move { connection.command("SELECT 1").await })).await
    }

    /// One read: on a lane if it is known to be short.
    async fn read(&self, statement: &Statement, budget: &Budget<'_>) -> Result<PostgresRows, Error> {
        let known = self.inner.statements.known(&statement.text);
        if known.is_short() {
            match self.inner.lanes.run(&known, &statement.args, budget).await {
                Some(Err(failure)) if failure.is_lost() => {}
                Some(result) => return result.map_err(|failure| self.error(failure)),
                None => {}
            }
        }
        let known = &known;
        let work = |connection: Arc<Connection>| {
            let room = budget.shared_room();
            Box::pin(async move { one(connection, known, &statement.args, &room).await })
        };
        Box::pin(self.again(work)).await
    }

    /// Runs idempotent `work` on a connection of its own; once more on a new one, if that was lost.
    async fn again<T, Work>(&self, work: impl Fn(Arc<Connection>) -> Work) -> Result<T, Error>
    where
        Work: Future<Output = Result<T, PostgresError>>,
    {
        let mut lease = self.lease().await?;
        let mut result = lease.run(State::Clean, work(lease.connection())).await;
        if result.as_ref().is_err_and(PostgresError::is_lost) {
            drop(lease);
            let mut lease = self.inner.pool.lease_new().await.map_err(|failure| self.error(failure))?;
            result = lease.run(State::Clean, work(lease.connection())).await;
        }
        result.map_err(|failure| self.error(failure))
    }

    async fn lease(&self) -> Result<ConnectionLease, Error> {
        self.inner.pool.lease().await.map_err(|failure| self.error(failure))
    }

    fn known(&self, statements: &[Statement]) -> Vec<Arc<StatementStats>> {
        statements.iter().map(|statement| self.inner.statements.known(&statement.text)).collect()
    }

    /// The failure as callers see it. After one that says so, nothing prepared before is used again.
    fn error(&self, failure: PostgresError) -> Error {
        if failure.is_stale() {
            tracing::debug!(database = self.inner.database, ?failure, "a statement is older than the schema");
            self.inner.statements.forget();
        }
        failure.into_error(&self.inner.database, &self.inner.keys.load())
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Postgres").field("database", &self.inner.database).finish_non_exhaustive()
    }
}

/// One statement that is its own transaction.
async fn one(
    connection: Arc<Connection>,
    known: &StatementStats,
    args: &[Bind],
    room: &SharedRoom<'_, '_>,
) -> Result<PostgresRows, PostgresError> {
    let ready = connection.prepare(known).await?;
    let sent = Instant::now();
    let rows = connection.run(&ready, args, room).await;
    known.answered(sent.elapsed(), &rows);
    rows
}

/// Statements between `BEGIN` and `COMMIT`, all sent at once. Where one fails, the commit rolls back.
async fn snapshot(
    connection: &Connection,
    known: &[Arc<StatementStats>],
    statements: &[Statement],
    room: &SharedRoom<'_, '_>,
) -> Result<Vec<PostgresRows>, PostgresError> {
    let ready = prepared(connection, known).await?;
    let mut messages = vec![command(connection, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")];
    for (ready, statement) in ready.iter().zip(statements) {
        messages.push(Box::pin(async move { connection.run(ready, &statement.args, room).await.map(Some) }));
    }
    messages.push(command(connection, "COMMIT"));
    send_pipelined(messages).await
}

/// Statements prepared on `connection`, those that are new to it in one go.
async fn prepared(
    connection: &Connection,
    known: &[Arc<StatementStats>],
) -> Result<Vec<connection::PreparedStatement>, PostgresError> {
    // All are waited for, also after a failure: a statement that is prepared and not kept would stay on the server.
    futures::future::join_all(known.iter().map(|known| connection.prepare(known))).await.into_iter().collect()
}

fn command<'a>(connection: &'a Connection, text: &'static str) -> Message<'a> {
    Box::pin(async move { connection.command(text).await.map(|()| None) })
}

impl PostgresRows {
    /// How many rows; for a statement without result columns, how many it touched.
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
        let raw: Option<Raw<'_>> = self.rows[row].get(column);
        raw.map_or(Cell::Null, |raw| self.decoders[column].decode(raw.0))
    }
}

impl fmt::Debug for PostgresRows {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PostgresRows").field("len", &self.len()).field("decoders", &self.decoders).finish()
    }
}

#[cfg(test)]
mod tests;
