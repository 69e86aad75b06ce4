//! A read-write transaction.

use std::fmt;

use mysql_async::Conn;

use super::{
    FailedStatement, Mysql, MysqlRows,
    connection::{command, run},
    pool::{ConnLease, ConnState},
};
use crate::{
    Error,
    budget::{Budget, SharedRoom},
    store::Statement,
};

/// A transaction on a connection of its own. Dropped without [`MysqlTx::commit`] it is rolled back.
pub struct MysqlTx {
    store: Mysql,
    lease: ConnLease,
    stage: TxStage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TxStage {
    /// It begins with the first statements.
    New,
    /// It may be committed.
    Begun,
    /// A statement failed: only the end is left.
    Failed,
}

impl MysqlTx {
    pub(super) fn new(store: Mysql, lease: ConnLease) -> Self {
        Self { store, lease, stage: TxStage::New }
    }

    /// Runs statements in their order. The first that fails ends the transaction.
    pub async fn run(&mut self, statements: &[Statement], budget: &Budget<'_>) -> Result<Vec<MysqlRows>, Error> {
        if self.stage == TxStage::Failed {
            return Err(ended());
        }
        let stage = std::mem::replace(&mut self.stage, TxStage::Failed);
        let room = budget.shared_room();
        let work = self.lease.run(ConnState::Open, |conn| Box::pin(in_order(conn, statements, stage, &room)));
        let rows = work.await.map_err(|FailedStatement(failure, at)| {
            self.store.error_of(*failure, at.and_then(|at| statements.get(at)))
        })?;
        self.stage = TxStage::Begun;
        Ok(rows)
    }

    /// Commits. After the error of a lost connection it is unknown whether it is committed.
    pub async fn commit(mut self) -> Result<(), Error> {
        match self.stage {
            TxStage::New => Ok(()),
            TxStage::Failed => Err(ended()),
            TxStage::Begun => {
                let work = self.lease.run(ConnState::Clean, |conn| Box::pin(command(conn, "COMMIT")));
                work.await.map_err(|failure| self.store.error_of(failure, None))
            }
        }
    }
}

async fn in_order(
    conn: &mut Conn,
    statements: &[Statement],
    stage: TxStage,
    room: &SharedRoom<'_, '_>,
) -> Result<Vec<MysqlRows>, FailedStatement> {
    if stage == TxStage::New {
        command(conn, "START TRANSACTION").await.map_err(|failure| FailedStatement(Box::new(failure), None))?;
    }
    let mut all = Vec::with_capacity(statements.len());
    for (at, statement) in statements.iter().enumerate() {
        let rows = run(conn, statement, room).await;
        all.push(rows.map_err(|failure| FailedStatement(Box::new(failure), Some(at)))?);
    }
    Ok(all)
}

impl fmt::Debug for MysqlTx {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("MysqlTx").field("stage", &self.stage).finish_non_exhaustive()
    }
}

fn ended() -> Error {
    Error::Database("the transaction ended with its first failed statement".to_owned())
}
