//! One connection and its cache of prepared statements.

use std::{
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
};

use foldhash::HashMap;
use futures::{
    TryStreamExt,
    future::{BoxFuture, MaybeDone},
};
use tokio_postgres::{
    CancelToken, Client, Row,
    types::{ToSql, Type},
};
use tokio_util::sync::CancellationToken;

use super::{
    PostgresRows,
    bind::Bound,
    cell::Decoder,
    driver::Driver,
    error::PostgresError,
    pooler::{SessionTransactions, TransactionKind},
    statement_stats::StatementStats,
};
use crate::{bind::Bind, budget::SharedRoom};

/// Prepared statements kept on one connection; each costs memory of the server.
const CACHE_CAPACITY: usize = 256;
/// Sets how long one look at the catalog may take: some ten times as long as that of a schema of two thousand tables.
const CATALOG_TIMEOUT: &str = "SET LOCAL statement_timeout TO '30s'";
/// Memory that a row takes beside its bytes.
const ROW_BYTES: usize = 96;
/// Memory that each of its values takes: its range in those bytes.
const VALUE_BYTES: usize = 24;

/// A connection to the server. Statements may run at once: the server answers them in order.
pub struct Connection {
    client: Client,
    /// Who sends and receives.
    drive: Drive,
    prepared: Mutex<StatementCache>,
    /// Present behind a pooler that shares the server's connections between sessions.
    shared: Option<Arc<SessionTransactions>>,
}

/// Who sends and receives over a connection.
#[derive(Clone)]
pub enum Drive {
    /// Who waits for an answer.
    Caller(Arc<Driver>),
    /// A task of its own; this fires when nothing more can come.
    Task(CancellationToken),
}

/// Cancels the statements of a connection that nobody waits for any more.
pub struct Cancellation {
    /// Cancels the one that is running.
    pub cancel: CancelToken,
    /// Whose end is that no statement is left: the connection is dropped, and closes after the last of them.
    pub drive: Drive,
}

/// A statement that is ready to run on one connection.
#[derive(Clone)]
pub enum PreparedStatement {
    /// Prepared there.
    Named {
        /// Under this name.
        statement: tokio_postgres::Statement,
        /// Of its result columns.
        decoders: Arc<[Decoder]>,
    },
    /// Sent with its text each time.
    Unnamed(Arc<str>),
}

/// Cache of prepared statements; full, it evicts the least recently used.
#[derive(Default)]
struct StatementCache {
    by_id: HashMap<u64, (PreparedStatement, u64)>,
    lookups: u64,
}

/// One of several messages that are sent together.
pub type Message<'a> = Pin<Box<dyn Future<Output = Result<Option<PostgresRows>, PostgresError>> + Send + 'a>>;

impl Drive {
    /// Waits for `work` over the connection, and drives it meanwhile where nobody else does.
    pub async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        match self {
            Drive::Caller(driver) => driver.during(work).await,
            Drive::Task(_) => work.await,
        }
    }

    /// Waits for the end of the connection, and drives it where nobody else does.
    pub async fn ended(&self) {
        match self {
            Drive::Caller(driver) => driver.finish().await,
            Drive::Task(ended) => ended.cancelled().await,
        }
    }
}

impl Connection {
    /// A connection over which nothing was prepared yet.
    pub fn new(client: Client, drive: Drive, shared: Option<Arc<SessionTransactions>>) -> Self {
        Self { client, drive, prepared: Mutex::default(), shared }
    }

    /// Waits for `work` over the connection, which is sent and answered meanwhile.
    pub async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        self.drive.during(work).await
    }

    /// Sends what is queued, without waiting for the answer.
    pub fn send(&self) {
        if let Drive::Caller(driver) = &self.drive {
            driver.look();
        }
    }

    /// Whether its session holds for a transaction only, behind a pooler.
    pub fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// Begins a transaction. The first poll sends it.
    pub async fn begin(&self, kind: TransactionKind) -> Result<(), PostgresError> {
        let text = self.shared.as_ref().map_or(kind.begin(), |shared| shared.begin(kind));
        Ok(self.client.batch_execute(text).await?)
    }

    /// Runs `work`, which reads the catalog over this connection, in one snapshot. The time limit that the server's role
    /// has is meant for requests: here it is [`CATALOG_TIMEOUT`].
    pub async fn in_catalog<T>(&self, work: BoxFuture<'_, Result<T, PostgresError>>) -> Result<T, PostgresError> {
        self.begin(TransactionKind::Snapshot).await?;
        self.command(CATALOG_TIMEOUT).await?;
        let found = work.await;
        self.command("COMMIT").await?;
        found
    }

    /// The rows of a statement that is not worth keeping, with the types of its arguments.
    pub async fn query(&self, text: &str, args: &[(&(dyn ToSql + Sync), Type)]) -> Result<Vec<Row>, PostgresError> {
        Ok(self.client.query_typed(text, args).await?)
    }

    /// The decoders of the results of a statement, which is not run.
    pub async fn result_decoders(&self, text: &str) -> Result<Arc<[Decoder]>, PostgresError> {
        decoders(self.client.prepare(text).await?.columns())
    }

    /// Whether the server or the network ended it.
    pub fn is_closed(&self) -> bool {
        self.send();
        self.client.is_closed()
    }

    /// Cancels its statements, once it is dropped.
    pub fn cancellation(&self) -> Cancellation {
        Cancellation { cancel: self.client.cancel_token(), drive: self.drive.clone() }
    }

    /// Prepares a statement on this connection; from the cache where it was before.
    pub async fn prepare(&self, stats: &StatementStats) -> Result<PreparedStatement, PostgresError> {
        if self.is_shared() {
            return Ok(PreparedStatement::Unnamed(stats.text.clone()));
        }
        if let Some(ready) = self.cache().find(stats.id) {
            return Ok(ready);
        }
        let statement = self.client.prepare(&stats.text).await?;
        let ready = PreparedStatement::Named { decoders: decoders(statement.columns())?, statement };
        self.cache().insert(stats.id, ready.clone());
        Ok(ready)
    }

    /// Runs a statement prepared here. The first poll sends it.
    pub async fn run(
        &self,
        ready: &PreparedStatement,
        args: &[Bind],
        room: &SharedRoom<'_, '_>,
    ) -> Result<PostgresRows, PostgresError> {
        let bound = args.iter().enumerate().map(|(at, value)| Bound { value, at });
        let sent = match ready {
            PreparedStatement::Named { statement, .. } => self.client.query_raw(statement, bound).await,
            // The server infers the types, and parses texts.
            PreparedStatement::Unnamed(text) => {
                self.client.query_typed_raw(text, bound.map(|arg| (arg, Type::UNKNOWN))).await
            }
        };
        let stream = sent.map_err(|error| PostgresError::of_args(error, args))?;
        let mut stream = pin!(stream);
        let mut rows = Vec::new();
        let mut size = 0;
        while let Some(row) = stream.try_next().await.map_err(|error| PostgresError::of_args(error, args))? {
            let bytes = row_bytes(&row);
            if !room.has_taken(bytes) {
                room.wait_and_take(bytes).await.map_err(PostgresError::Refused)?;
            }
            size += bytes;
            rows.push(row);
        }
        let affected = stream.rows_affected().unwrap_or_default();
        let decoders = match (ready, rows.first()) {
            (PreparedStatement::Named { decoders, .. }, _) => decoders.clone(),
            (PreparedStatement::Unnamed(_), Some(row)) => decoders(row.columns())?,
            (PreparedStatement::Unnamed(_), None) => Arc::default(),
        };
        Ok(PostgresRows { rows, decoders, affected, size })
    }

    /// Runs a fixed statement without rows and arguments. The first poll sends it.
    pub async fn command(&self, text: &'static str) -> Result<(), PostgresError> {
        Ok(self.client.batch_execute(text).await?)
    }

    /// Runs statements without rows and arguments, whose text is ours but for quoted names.
    pub async fn define(&self, text: &str) -> Result<(), PostgresError> {
        Ok(self.client.batch_execute(text).await?)
    }

    fn cache(&self) -> MutexGuard<'_, StatementCache> {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Memory that a row takes.
pub fn row_bytes(row: &Row) -> usize {
    ROW_BYTES + row.len() * VALUE_BYTES + row.raw_size_bytes()
}

/// The decoders of result columns.
pub fn decoders(columns: &[tokio_postgres::Column]) -> Result<Arc<[Decoder]>, PostgresError> {
    let decoder = |column: &tokio_postgres::Column| {
        Decoder::of(column.type_()).ok_or_else(|| PostgresError::undecodable(column.name(), column.type_()))
    };
    columns.iter().map(decoder).collect()
}

impl StatementCache {
    fn find(&mut self, id: u64) -> Option<PreparedStatement> {
        self.lookups += 1;
        let (ready, used) = self.by_id.get_mut(&id)?;
        *used = self.lookups;
        Some(ready.clone())
    }

    /// Inserts `ready`; evicts the least recently used when there are too many.
    fn insert(&mut self, id: u64, ready: PreparedStatement) {
        if self.by_id.len() >= CACHE_CAPACITY {
            let oldest = self.by_id.iter().min_by_key(|(_, (_, used))| *used).map(|(id, _)| *id);
            oldest.and_then(|id| self.by_id.remove(&id));
        }
        self.by_id.insert(id, (ready, self.lookups));
    }
}

/// Pipelines `messages`: sends all in their order before it waits for an answer, in one round trip.
///
/// All are answered when it ends, and the first failure is the one reported, with the index of its message. Only rows
/// that are refused end it at once: what follows may be long.
pub async fn send_pipelined(messages: Vec<Message<'_>>) -> Result<Vec<PostgresRows>, (usize, PostgresError)> {
    let mut messages: Vec<_> = messages.into_iter().map(MaybeDone::Future).collect();
    std::future::poll_fn(|context| {
        let mut waiting = false;
        for message in &mut messages {
            waiting |= Pin::new(&mut *message).poll(context).is_pending();
            if matches!(message, MaybeDone::Done(Err(PostgresError::Refused(_)))) {
                return Poll::Ready(());
            }
        }
        if waiting { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    let mut answers = Vec::with_capacity(messages.len());
    // A message without an answer is one that was cut short by another whose rows are refused.
    for (index, message) in messages.iter_mut().enumerate() {
        if let Some(answer) = Pin::new(message).take_output() {
            answers.extend(answer.map_err(|failure| (index, failure))?);
        }
    }
    Ok(answers)
}
