//! Removal of old images, in batches.

use proto::crud::Snapshot;
use tokio_postgres::types::{ToSql, Type as Native};

use crate::{
    Error,
    store::postgres::{
        Postgres,
        changes::{setup, snapshot::ServerSnapshot},
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
/// Removes a batch of images that a snapshot with this end and these transactions in progress sees.
const BATCH: &str = "\
WITH batch AS MATERIALIZED (
    SELECT l.ctid AS place FROM perigee_changes.images l
    WHERE l.xid < $1::xid8 AND NOT l.xid = ANY ($2::xid8[]) ORDER BY l.xid, l.seq LIMIT 10000
), removed AS (
    DELETE FROM perigee_changes.images WHERE ctid = ANY (ARRAY(SELECT batch.place FROM batch)) RETURNING 1
)
SELECT pg_catalog.count(*) FROM removed";
/// Entries of a batch.
const BATCH_ENTRIES: i64 = 10_000;

impl Postgres {
    /// Removes the images that `limit` sees, unless another process does.
    pub(super) async fn prune_images(&self, limit: &Snapshot) {
        let limit = ServerSnapshot::from(limit.clone());
        loop {
            match self.prune_image_batch(&limit).await {
                Ok(BATCH_ENTRIES) => {}
                Ok(_) | Err(Error::SchemaMoved(_)) => return,
                Err(error) => {
                    tracing::warn!(%error, cause = error.cause(), "the log of images is not pruned now");
                    return;
                }
            }
        }
    }

    async fn prune_image_batch(&self, limit: &ServerSnapshot) -> Result<i64, Error> {
        let schema = self.inner.schema.as_str();
        let removed =
            self.transaction(BEGIN, |connection| async move { Ok(Ok(batch(&connection, schema, limit).await?)) });
        removed.await?.map_err(Error::Database)
    }
}

/// Removes the next batch; how many entries it had.
async fn batch(connection: &Connection, schema: &str, limit: &ServerSnapshot) -> Result<i64, PostgresError> {
    setup::require_own(connection).await?;
    setup::note_reader(connection, schema).await?;
    let turn = connection.query(TURN, &[]).await?;
    if !turn.first().map(|row| row.try_get(0)).transpose()?.unwrap_or(false) {
        return Ok(0);
    }
    let before = connection.query(PRUNED, &[]).await?;
    let before: Option<String> = before.first().map(|row| row.try_get(0)).transpose()?;
    if !before.is_some_and(|before| ServerSnapshot::parse(&before).sees_all_of(limit)) {
        connection.query(LIMIT, &[(&limit.to_string(), Native::TEXT)]).await?;
    }
    let (end, running) = (limit.end.to_string(), limit.running_texts());
    let args: [(&(dyn ToSql + Sync), Native); 2] = [(&end, Native::TEXT), (&running, Native::TEXT_ARRAY)];
    let rows = connection.query(BATCH, &args).await?;
    Ok(rows.first().map(|row| row.try_get(0)).transpose()?.unwrap_or_default())
}
