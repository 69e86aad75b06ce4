//! MariaDB 10.6 and later: one statement at a time over pooled connections, since the protocol has no pipelining.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex},
};

use arc_swap::ArcSwap;
use mesh::tasks::Tasks;
use mysql_async::Conn;
use query::Type;

use self::{
    connection::run,
    connector::MysqlConnector,
    error::{MysqlError, UniqueKeys},
    pool::{ConnLease, ConnState, MysqlPool},
};
use super::Statement;
use crate::{Error, Introspected, budget::Budget, error::StatementError};

mod bind;
pub mod binlog;
mod connection;
mod connector;
mod error;
mod introspect;
mod pool;
mod rows;
#[cfg(test)]
mod tests;
mod tls;
mod tx;

pub use introspect::labels;
pub use rows::MysqlRows;
pub use tx::MysqlTx;

/// Begins a transaction all of whose reads see the database as it is now. The isolation holds for this one.
const BEGIN_SNAPSHOT: &str = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; \
     START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY";

/// A database on a server of MariaDB. Connections are made when they are needed, and made again when they are lost.
#[derive(Clone)]
pub struct Mysql {
    inner: Arc<MysqlInner>,
}

struct MysqlInner {
    /// The database's id, for messages.
    database: String,
    pool: Arc<MysqlPool>,
    /// Columns of unique keys, as the last introspection found them.
    keys: ArcSwap<UniqueKeys>,
    /// When files of the binary log were made, in seconds since 1970, by their numbers.
    files: Mutex<BTreeMap<u32, u32>>,
}

/// A statement that reads nothing.
fn ping_statement() -> Statement {
    Statement {
        text: "SELECT 1".into(),
        args: Vec::new(),
        columns: [Type::Int32.into()].into(),
        sources: Vec::new(),
        plain: None,
    }
}

impl Mysql {
    /// The database at `url`, over at most `max` connections. Does not connect.
    ///
    /// Errors: what is wrong with the URL, without its password.
    pub fn open(database: &str, url: &str, max: usize, tasks: &Tasks) -> Result<Self, String> {
        let connector = Arc::new(MysqlConnector::parse(url, tasks)?);
        let inner = MysqlInner {
            database: database.to_owned(),
            pool: MysqlPool::new(connector, max),
            keys: ArcSwap::default(),
            files: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Independent reads: several in one read-only snapshot. What a lost connection did not answer is asked once more
    /// over a new one. Dropping the future ends them on the server.
    pub async fn snapshot(
        &self,
        statements: &[Statement],
        budget: &Budget<'_>,
    ) -> Result<Vec<MysqlRows>, StatementError> {
        if statements.is_empty() {
            return Ok(Vec::new());
        }
        let mut lease = self.inner.pool.lease().await.map_err(|failure| self.error_of(failure, None))?;
        let mut result = lease.run(ConnState::Clean, |conn| Box::pin(read(conn, statements, budget))).await;
        if result.as_ref().is_err_and(|failure| failure.0.is_lost()) {
            drop(lease);
            lease = self.inner.pool.lease_new().await.map_err(|failure| self.error_of(failure, None))?;
            result = lease.run(ConnState::Clean, |conn| Box::pin(read(conn, statements, budget))).await;
        }
        result.map_err(|FailedStatement(failure, at)| StatementError {
            error: self.error_of(*failure, at.and_then(|at| statements.get(at))),
            statement: at,
        })
    }

    /// One write in its own transaction. Never sent twice: a lost connection does not say whether it was done.
    pub async fn write(&self, statement: &Statement) -> Result<MysqlRows, Error> {
        let mut lease = self.lease().await?;
        let budget = Budget::unlimited();
        let room = budget.shared_room();
        let written = lease.run(ConnState::Clean, |conn| Box::pin(run(conn, statement, &room))).await;
        written.map_err(|failure| self.error_of(failure, Some(statement)))
    }

    /// A transaction that may write, on a connection of its own. Dropped without [`MysqlTx::commit`] it is rolled back.
    pub async fn begin(&self) -> Result<MysqlTx, Error> {
        Ok(MysqlTx::new(self.clone(), self.lease().await?))
    }

    /// Introspects the schema, as far as our user may use it. What cannot be served is left out.
    pub async fn introspect(&self) -> Result<Introspected, Error> {
        let catalog = self.catalog().await?;
        let (found, keys) = introspect::introspected(&catalog);
        self.inner.keys.store(Arc::new(keys));
        Ok(found)
    }

    /// A text that changes whenever the schema does.
    pub async fn schema_mark(&self) -> Result<String, Error> {
        Ok(introspect::mark(&self.catalog().await?))
    }

    /// Whether the server answers.
    pub async fn ping(&self) -> Result<(), Error> {
        self.snapshot(&[ping_statement()], &Budget::unlimited()).await?;
        Ok(())
    }

    async fn catalog(&self) -> Result<introspect::MysqlCatalog, Error> {
        let mut lease = self.lease().await?;
        let mut read = lease.run(ConnState::Clean, |conn| Box::pin(introspect::read(conn))).await;
        if read.as_ref().is_err_and(MysqlError::is_lost) {
            drop(lease);
            lease = self.inner.pool.lease_new().await.map_err(|failure| self.error_of(failure, None))?;
            read = lease.run(ConnState::Clean, |conn| Box::pin(introspect::read(conn))).await;
        }
        read.map_err(|failure| self.error_of(failure, None))
    }

    async fn lease(&self) -> Result<ConnLease, Error> {
        self.inner.pool.lease().await.map_err(|failure| self.error_of(failure, None))
    }

    /// The error of a statement as callers see it. After a stale one, no connection that prepared it is used again.
    fn error_of(&self, failure: MysqlError, statement: Option<&Statement>) -> Error {
        if failure.is_stale() {
            self.inner.pool.clear();
        }
        failure.into_error(&self.inner.database, statement, &self.inner.keys.load())
    }
}

impl fmt::Debug for Mysql {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Mysql").field("database", &self.inner.database).finish_non_exhaustive()
    }
}

/// A failure, and the statement that failed, of several.
#[derive(Debug)]
struct FailedStatement(Box<MysqlError>, Option<usize>);

impl AsRef<MysqlError> for FailedStatement {
    fn as_ref(&self) -> &MysqlError {
        &self.0
    }
}

/// Runs reads, several of them in one read-only transaction, which is open still where one fails.
async fn read(
    conn: &mut Conn,
    statements: &[Statement],
    budget: &Budget<'_>,
) -> Result<Vec<MysqlRows>, FailedStatement> {
    let room = budget.shared_room();
    let of = |at| move |failure| FailedStatement(Box::new(failure), at);
    if let [statement] = statements {
        return Ok(vec![run(conn, statement, &room).await.map_err(of(Some(0)))?]);
    }
    connection::command(conn, BEGIN_SNAPSHOT).await.map_err(of(None))?;
    let mut all = Vec::with_capacity(statements.len());
    for (at, statement) in statements.iter().enumerate() {
        match run(conn, statement, &room).await {
            Ok(rows) => all.push(rows),
            Err(failure) => return Err(of(Some(at))(failure)),
        }
    }
    connection::command(conn, "COMMIT").await.map_err(of(None))?;
    Ok(all)
}
