//! Removal of old images, in batches.

use std::time::Instant;

use proto::crud::Snapshot;
use tokio_postgres::types::{ToSql, Type as Native};

use crate::{
    Error,
    store::postgres::{
        Postgres,
        changes::{
            images::ImageReader,
            setup::{self, TriggerKind},
            snapshot::ServerSnapshot,
        },
        connection::Connection,
        error::PostgresError,
    },
};

/// As that of the log without images.
const BEGIN: &str = "\
BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL lock_timeout TO '100ms'; SET LOCAL statement_timeout TO '30s';
SET LOCAL search_path TO pg_catalog; SET LOCAL enable_seqscan TO off; SET LOCAL enable_bitmapscan TO off; SET LOCAL jit TO off";
/// Whether no other process removes images now. None begins to before the end of the transaction.
const TURN: &str = "SELECT pg_catalog.pg_try_advisory_xact_lock(8099000146718220901)";
const PRUNED: &str = "SELECT f.since FROM perigee_changes.followed f WHERE f.tbl = 0";
/// Makes `$1` the limit up to which images may have been removed.
const LIMIT: &str = "\
INSERT INTO perigee_changes.followed (tbl, mark, since) VALUES (0, '', $1)
ON CONFLICT (tbl) DO UPDATE SET since = EXCLUDED.since";
/// Removes a batch of images, from the transaction `$3` on, that a snapshot with this end and these transactions in
/// progress sees.
const BATCH: &str = "\
WITH batch AS MATERIALIZED (
    SELECT l.ctid AS place FROM perigee_changes.images l
    WHERE l.xid >= $3::xid8 AND l.xid < $1::xid8 AND NOT l.xid = ANY ($2::xid8[]) ORDER BY l.xid, l.seq LIMIT 10000
), removed AS (
    DELETE FROM perigee_changes.images WHERE ctid = ANY (ARRAY(SELECT batch.place FROM batch)) RETURNING 1
)
SELECT pg_catalog.count(*) FROM removed";
/// Entries of a batch.
const BATCH_ENTRIES: i64 = 10_000;

impl Postgres {
    /// Removes a batch of old images where some are due, unless another process does. `seen` is the snapshot of now.
    ///
    /// Those of transactions before the last limit are not looked through again: their places stay in the index while a
    /// transaction of anybody goes on that began before.
    pub(super) async fn prune_images(&self, reader: &mut ImageReader, seen: &Snapshot) {
        if let Some(limit) = reader.history.limit(Instant::now(), seen) {
            reader.pruning = Some(limit);
        }
        let Some(limit) = reader.pruning.take() else { return };
        match self.prune_image_batch(&limit.clone().into(), reader.pruned).await {
            Ok(Some(BATCH_ENTRIES)) => reader.pruning = Some(limit),
            Ok(Some(_)) => reader.pruned = limit.start,
            Ok(None) | Err(Error::SchemaMoved(_)) => {}
            Err(error) => tracing::warn!(%error, cause = error.cause(), "the log of images is not pruned now"),
        }
    }

    /// Removes the next batch of images, from the transaction `from` on; how many it had, where no other process removes
    /// some now.
    pub(in super::super) async fn prune_image_batch(
        &self,
        limit: &ServerSnapshot,
        from: u64,
    ) -> Result<Option<i64>, Error> {
        let schema = self.inner.schema.as_str();
        let removed =
            self.transaction(BEGIN, |connection| async move { Ok(Ok(batch(&connection, schema, limit, from).await?)) });
        removed.await?.map_err(Error::Database)
    }
}

/// Removes the next batch; how many entries it had, where no other process removes some now.
async fn batch(
    connection: &Connection,
    schema: &str,
    limit: &ServerSnapshot,
    from: u64,
) -> Result<Option<i64>, PostgresError> {
    setup::require_own(connection).await?;
    setup::note_reader(connection, schema, TriggerKind::Image).await?;
    let turn = connection.query(TURN, &[]).await?;
    if !turn.first().map(|row| row.try_get(0)).transpose()?.unwrap_or(false) {
        return Ok(None);
    }
    let before = connection.query(PRUNED, &[]).await?;
    let before: Option<String> = before.first().map(|row| row.try_get(0)).transpose()?;
    if !before.is_some_and(|before| ServerSnapshot::parse(&before).sees_all_of(limit)) {
        connection.query(LIMIT, &[(&limit.to_string(), Native::TEXT)]).await?;
    }
    let (end, running, from) = (limit.end.to_string(), limit.running_texts(), from.to_string());
    let args: [(&(dyn ToSql + Sync), Native); 3] =
        [(&end, Native::TEXT), (&running, Native::TEXT_ARRAY), (&from, Native::TEXT)];
    let rows = connection.query(BATCH, &args).await?;
    Ok(rows.first().map(|row| row.try_get(0)).transpose()?)
}
