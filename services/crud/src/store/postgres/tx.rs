//! A read-write transaction.

use std::{fmt, sync::Arc};

use super::{
    Postgres, PostgresRows, begin,
    connection::{Connection, Message, send_pipelined},
    error::PostgresError,
    pool::{ConnectionLease, State},
    pooler::TransactionKind,
    prepared,
    statement_stats::StatementStats,
};
use crate::{
    Error,
    budget::{Budget, SharedRoom},
    store::Statement,
};

/// A transaction on a connection of its own. Dropped without [`PostgresTx::commit`] it is rolled back.
pub struct PostgresTx {
    store: Postgres,
    lease: ConnectionLease,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// `BEGIN` goes out with the first statements.
    New,
    /// It may be committed.
    Begun,
    /// A statement failed: only the end is left.
    Failed,
}

impl PostgresTx {
    pub(super) fn new(store: Postgres, lease: ConnectionLease) -> Self {
        Self { store, lease, stage: Stage::New }
    }

    /// Runs statements in their order, pipelined. The first that fails ends the transaction.
    pub async fn run(&mut self, statements: &[Statement], budget: &Budget<'_>) -> Result<Vec<PostgresRows>, Error> {
        if self.stage == Stage::Failed {
            return Err(ended());
        }
        let stats = self.store.stats(statements);
        let stage = std::mem::replace(&mut self.stage, Stage::Failed);
        let connection = self.lease.connection();
        let room = budget.shared_room();
        let work = self.lease.run(State::Open, pipelined(&connection, &stats, statements, stage, &room));
        let rows = work.await.map_err(|failure| self.store.error(failure))?;
        self.stage = Stage::Begun;
        Ok(rows)
    }

    /// Commits. Deferred constraints may fail here. After the error of a lost connection it is unknown whether it is
    /// committed.
    pub async fn commit(mut self) -> Result<(), Error> {
        match self.stage {
            Stage::New => Ok(()),
            Stage::Failed => Err(ended()),
            Stage::Begun => {
                let connection = self.lease.connection();
                let work = self.lease.run(State::Clean, connection.command("COMMIT"));
                let committed = work.await.map_err(|failure| self.store.error(failure));
                self.store.inner.committed();
                committed
            }
        }
    }
}

async fn pipelined(
    connection: &Connection,
    stats: &[Arc<StatementStats>],
    statements: &[Statement],
    stage: Stage,
    room: &SharedRoom<'_, '_>,
) -> Result<Vec<PostgresRows>, PostgresError> {
    let ready = prepared(connection, stats).await?;
    let mut messages: Vec<Message<'_>> = Vec::with_capacity(statements.len() + 1);
    if stage == Stage::New {
        messages.push(begin(connection, TransactionKind::Write));
    }
    for (ready, statement) in ready.iter().zip(statements) {
        messages.push(Box::pin(async move { connection.run(ready, &statement.args, room).await.map(Some) }));
    }
    send_pipelined(messages).await.map_err(|(_, failure)| failure)
}

impl fmt::Debug for PostgresTx {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PostgresTx").field("stage", &self.stage).finish_non_exhaustive()
    }
}

fn ended() -> Error {
    Error::Database("the transaction ended with its first failed statement".to_owned())
}
