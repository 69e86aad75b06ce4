//! Removal of old entries of the log, beside its reading: in batches, each in a transaction of its own.

use tokio_postgres::types::{ToSql, Type as Native};

use super::{
    Position,
    setup::{self, TriggerKind},
    snapshot::ServerSnapshot,
};
use crate::{
    Error,
    store::postgres::{Postgres, connection::Connection, error::PostgresError},
};

/// Begins a transaction that removes entries. Capture does not wait for it, nor it for capture. It reads by index, as
/// [`super::BY_INDEX`] says.
const BEGIN: &str = "\
BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL lock_timeout TO '100ms'; SET LOCAL statement_timeout TO '30s';
SET LOCAL search_path TO pg_catalog; SET LOCAL enable_seqscan TO off; SET LOCAL enable_bitmapscan TO off; SET LOCAL jit TO off";

/// Whether no other process removes entries now. None begins to before the end of the transaction.
const TURN: &str = "SELECT pg_catalog.pg_try_advisory_xact_lock(8099000146718220900)";
const PRUNED: &str = "SELECT s.pruned FROM perigee_changes.state s";
/// Makes `$1` the limit up to which entries may have been removed.
const LIMIT: &str = "UPDATE perigee_changes.state SET pruned = $1";

/// Removes a batch of entries, from `$1` on, that a snapshot with this end and these transactions in progress sees. The
/// last one of a full batch is returned: the next begins there, and not among what is removed already.
const BATCH: &str = "\
WITH batch AS MATERIALIZED (
    SELECT l.ctid AS place, l.xid FROM perigee_changes.log l
    WHERE l.xid >= $1::xid8 AND l.xid < $2::xid8 AND NOT l.xid = ANY ($3::xid8[])
    ORDER BY l.xid LIMIT 50000
), removed AS (
    DELETE FROM perigee_changes.log WHERE ctid = ANY (ARRAY(SELECT batch.place FROM batch))
)
SELECT batch.xid::text FROM batch ORDER BY batch.xid OFFSET 49999";

/// Removes the entries of the transactions `$1` that such a snapshot sees.
const REST: &str = "\
DELETE FROM perigee_changes.log
WHERE xid = ANY ($1::xid8[]) AND xid < $2::xid8 AND NOT xid = ANY ($3::xid8[])";

impl Postgres {
    /// Removes the entries that the limits of a position see, as these come. Ends with the position.
    pub fn pruning(&self, position: &Position) -> impl Future<Output = ()> + Send + use<> {
        let (store, mut limits) = (self.clone(), position.limits.subscribe());
        async move {
            let mut done = ServerSnapshot::default();
            while limits.changed().await.is_ok() {
                let limit = limits.borrow_and_update().clone();
                done = match Box::pin(store.prune(&limit, &done)).await {
                    Ok(true) => limit,
                    Ok(false) => done,
                    // Our objects were dropped: the reader of the log finds that too.
                    Err(Error::SchemaMoved(_)) => ServerSnapshot::default(),
                    Err(error) => {
                        tracing::warn!(%error, cause = error.cause(), "the log of changes is not pruned now");
                        ServerSnapshot::default()
                    }
                };
            }
        }
    }

    /// Removes the entries that `limit` sees; `false` where another process removes some now or removed more.
    ///
    /// Those that `done` sees are removed already. They are not looked through again: their places stay in the index
    /// while a transaction of anybody goes on that began before.
    pub(super) async fn prune(&self, limit: &ServerSnapshot, done: &ServerSnapshot) -> Result<bool, Error> {
        let schema = self.inner.schema.as_str();
        // Before the first entry is gone.
        let marked =
            self.transaction(BEGIN, |connection| async move { Ok(Ok(mark(&connection, schema, limit, done).await?)) });
        let mut from = marked.await?.map_err(Error::Database)?;
        let has_turn = from.is_some();
        while let Some(first) = from {
            from = self.prune_batch(limit, &first).await?;
        }
        Ok(has_turn)
    }

    /// Removes the next batch, from the transaction `first` on. Where more may follow, it begins at the one returned.
    pub(super) async fn prune_batch(&self, limit: &ServerSnapshot, first: &str) -> Result<Option<String>, Error> {
        let removed =
            self.transaction(BEGIN, |connection| async move { Ok(Ok(batch(&connection, limit, first).await?)) });
        removed.await?.map_err(Error::Database)
    }
}

/// Makes `limit` that of the log, notes who reads it, and removes what only ended after `done`. The first transaction
/// after that is returned, where no other process removes entries now, or removed more.
async fn mark(
    connection: &Connection,
    schema: &str,
    limit: &ServerSnapshot,
    done: &ServerSnapshot,
) -> Result<Option<String>, PostgresError> {
    setup::require_own(connection).await?;
    setup::note_reader(connection, schema, TriggerKind::Note).await?;
    if !is_turn(connection).await? {
        return Ok(None);
    }
    let rows = connection.query(PRUNED, &[]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let before: Option<String> = row.try_get(0)?;
    if before.as_ref().is_some_and(|before| ServerSnapshot::parse(before).sees_all_of(limit)) {
        return Ok(None);
    }
    connection.query(LIMIT, &[(&limit.to_string(), Native::TEXT)]).await?;
    if before.is_none() {
        // The log was made anew.
        return Ok(Some("0".to_owned()));
    }
    let (rest, end, running) = (done.running_texts(), limit.end.to_string(), limit.running_texts());
    let args: [(&(dyn ToSql + Sync), Native); 3] =
        [(&rest, Native::TEXT_ARRAY), (&end, Native::TEXT), (&running, Native::TEXT_ARRAY)];
    connection.query(REST, &args).await?;
    Ok(Some(done.end.to_string()))
}

async fn batch(connection: &Connection, limit: &ServerSnapshot, first: &str) -> Result<Option<String>, PostgresError> {
    setup::require_own(connection).await?;
    if !is_turn(connection).await? {
        return Ok(None);
    }
    let (end, running) = (limit.end.to_string(), limit.running_texts());
    let args: [(&(dyn ToSql + Sync), Native); 3] =
        [(&first, Native::TEXT), (&end, Native::TEXT), (&running, Native::TEXT_ARRAY)];
    let rows = connection.query(BATCH, &args).await?;
    Ok(rows.first().map(|row| row.try_get(0)).transpose()?)
}

async fn is_turn(connection: &Connection) -> Result<bool, PostgresError> {
    let rows = connection.query(TURN, &[]).await?;
    Ok(rows.first().map(|row| row.try_get(0)).transpose()?.unwrap_or(false))
}
