//! Change capture: triggers note each transaction that changes rows of a table that somebody listens to in a log.
//!
//! An entry is a transaction and a table, without anything of rows. Sequence numbers and the ids of transactions are in
//! another order than commits, so the log is read by difference of snapshots: of the transactions that the last snapshot
//! did not see, those that this one sees. No transaction that runs for long holds up others, and none is missed.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_postgres::{
    Row,
    types::{ToSql, Type as Native},
};

use self::snapshot::ServerSnapshot;
use super::{Postgres, connection::Connection, error::PostgresError, pool::State, pooler::TransactionKind};
use crate::{Error, store::Changed};

mod setup;
mod snapshot;

/// Time between two looks at the log while changes are found; doubles up to [`POLL_INTERVAL_MAX`] while none are.
const POLL_INTERVAL_MIN: Duration = Duration::from_millis(5);
const POLL_INTERVAL_MAX: Duration = Duration::from_millis(100);
/// Time between two looks at the catalog: whether triggers and tables are still what they were.
const CATALOG_INTERVAL: Duration = Duration::from_millis(100);
/// How long entries stay in the log, for other readers, and how often those older are removed.
const PRUNE_AGE: Duration = Duration::from_secs(60);
const PRUNE_INTERVAL: Duration = Duration::from_secs(10);

/// What changed since the snapshot with this end and these transactions in progress.
const LOG: &str = "\
SELECT pg_catalog.pg_current_snapshot()::text, pg_catalog.pg_postmaster_start_time()::text,
    (SELECT s.epoch FROM perigee_changes.state s), (SELECT s.pruned FROM perigee_changes.state s),
    ARRAY(SELECT l.tbl FROM perigee_changes.log l WHERE l.xid >= $1::xid8
        UNION SELECT l.tbl FROM perigee_changes.log l WHERE l.xid = ANY ($2::xid8[]))";

/// Tables of a schema with those below them, each with what changes when it or its triggers do.
const CATALOG: &str = "\
WITH RECURSIVE tree (name, relation) AS (
    SELECT c.relname::text, c.oid
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relname = ANY ($2)
    UNION
    SELECT tree.name, i.inhrelid FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.relation
)
SELECT tree.name, tree.relation, pg_catalog.concat_ws(' ', c.xmin, c.relfilenode,
    (SELECT pg_catalog.string_agg(a.xmin::text, ',' ORDER BY a.attnum)
        FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0),
    (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', t.oid, t.xmin, t.tgenabled), ',' ORDER BY t.oid)
        FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND t.tgname LIKE 'perigee\\_changes\\_%'))
FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.relation
ORDER BY tree.name, tree.relation";

/// Makes `$1` the limit up to which entries may have been removed.
const LIMIT: &str = "UPDATE perigee_changes.state SET pruned = $1";
/// Removes what a snapshot with this end and these transactions in progress sees.
const PRUNE: &str = "DELETE FROM perigee_changes.log WHERE xid < $1::xid8 AND NOT xid = ANY ($2::xid8[])";

/// How far the log has been read, and which tables of it are followed.
#[derive(Debug, Default)]
pub struct Position {
    last: Option<LastLook>,
    tables: BTreeMap<String, Relations>,
    catalog_seen: Option<Instant>,
    pause: Duration,
    /// Snapshots that may become the limit of the log, the oldest first.
    history: VecDeque<(Instant, ServerSnapshot)>,
}

/// What the last look at the log found.
#[derive(Debug, Clone, PartialEq)]
struct LastLook {
    snapshot: ServerSnapshot,
    /// Since when the server runs.
    started: String,
    /// Of the log: it is another when entries were lost, as in a crash of the server; `None` where that was not repaired.
    epoch: Option<String>,
}

/// A table and those below it, by their ids, each with what changes when it or its triggers do.
type Relations = BTreeMap<u32, String>;

/// What a look at the log finds.
struct Found {
    look: LastLook,
    /// Entries that this sees may have been removed.
    pruned: Option<ServerSnapshot>,
    /// Tables with new entries.
    relations: Vec<u32>,
    /// The tables that are followed, if the catalog was looked at.
    catalog: Option<BTreeMap<String, Relations>>,
}

impl Postgres {
    /// Captures the changes of a table from now on. Its triggers are made where they are missing.
    ///
    /// Errors: the table cannot be followed, or a lock on it was not free in a short time.
    pub async fn capture(&self, position: &mut Position, table: &str) -> Result<(), Error> {
        position.tables.remove(table);
        let schema = self.inner.schema.as_str();
        let captured = self.set_up(|connection| async move { setup::capture(&connection, schema, table).await });
        captured.await?.map_err(|why| Error::unfollowed(table, &why))?;
        // Before the table's first message is sent, so that nothing is missed after it.
        let mut found =
            self.look(&ServerSnapshot::default(), Some(&[table])).await.map_err(|failure| self.error(failure))?;
        let relations = found.catalog.as_mut().and_then(|catalog| catalog.remove_entry(table));
        position.tables.extend(relations);
        position.last.get_or_insert(found.look);
        Ok(())
    }

    /// Ends the capture of all tables but `kept`, also that which a process before did not end. Nothing of ours is left
    /// in the database when no table of any schema is captured.
    pub async fn release(&self, position: &mut Position, kept: &[String]) -> Result<(), Error> {
        position.tables.retain(|table, _| kept.contains(table));
        let schema = self.inner.schema.as_str();
        let needless =
            self.with_retry(|connection| Box::pin(async move { setup::needless(&connection, schema, kept).await }));
        for sql in Box::pin(needless).await.map_err(|failure| self.error(failure))? {
            // Each in a transaction of its own: the lock of one table is not held while that of another is waited for.
            let sql = sql.as_str();
            let dropped = self.set_up(|connection| async move { Ok(Ok(connection.define(sql).await?)) });
            dropped.await?.map_err(Error::Database)?;
        }
        let removed = self.set_up(|connection| async move { Ok(Ok(setup::remove(&connection).await?)) });
        removed.await?.map_err(Error::Database)
    }

    /// What transactions changed that the last look at the log did not see, and this one sees.
    pub async fn changes_since(&self, position: &mut Position) -> Result<Changed, Error> {
        let Some(before) = position.last.take() else { return Ok(Changed::Any) };
        let is_due = position.catalog_seen.is_none_or(|seen| seen.elapsed() >= CATALOG_INTERVAL);
        let names: Vec<&str> = position.tables.keys().map(String::as_str).collect();
        let found = match self.look(&before.snapshot, is_due.then_some(&names)).await {
            Ok(found) => found,
            // Our objects were dropped.
            Err(failure) if failure.is_stale() => return Ok(Changed::Any),
            Err(failure) => return Err(self.error(failure)),
        };
        if is_due {
            position.catalog_seen = Some(Instant::now());
        }
        let has_lost = found.has_lost(&before) || found.catalog.is_some_and(|catalog| catalog != position.tables);
        let changed = |relations: &Relations| found.relations.iter().any(|relation| relations.contains_key(relation));
        let tables = position.tables.iter().filter(|(_, relations)| changed(relations));
        let tables: Vec<String> = tables.map(|(name, _)| name.clone()).collect();
        position.pause = match tables.is_empty() {
            true => (position.pause * 2).clamp(POLL_INTERVAL_MIN, POLL_INTERVAL_MAX),
            false => POLL_INTERVAL_MIN,
        };
        let limit = position.limit(Instant::now(), &found.look.snapshot);
        position.last = Some(found.look);
        if let Some(limit) = limit
            && let Err(error) = self.prune(&limit).await
        {
            tracing::warn!(%error, cause = error.cause(), "the log of changes is not pruned now");
        }
        Ok(if has_lost { Changed::Any } else { Changed::Tables(tables) })
    }

    /// Waits until it is time to look at the log again, or until something is committed by us.
    pub async fn commit_after(&self, position: &Position) {
        tokio::select! {
            () = self.inner.commits.notified() => {}
            () = tokio::time::sleep(position.pause.max(POLL_INTERVAL_MIN)) => {}
        }
    }

    /// Looks at the log, and at the catalog for these tables.
    async fn look(&self, since: &ServerSnapshot, tables: Option<&[&str]>) -> Result<Found, PostgresError> {
        let schema = self.inner.schema.as_str();
        self.with_retry(|connection| Box::pin(async move { Box::pin(look(&connection, since, schema, tables)).await }))
            .await
    }

    /// Removes the entries that `limit` sees, unless another process removes some now or removed more.
    async fn prune(&self, limit: &ServerSnapshot) -> Result<(), Error> {
        let pruned = self.set_up(|connection| async move { Ok(Ok(prune(&connection, limit).await?)) });
        pruned.await?.map_err(Error::Database)
    }

    /// Runs `work` in a transaction that waits for locks for a short time only: who needs one after it waits as long. The
    /// transaction is rolled back where `work` says why it cannot be done.
    async fn set_up<Work>(&self, work: impl FnOnce(Arc<Connection>) -> Work) -> Result<Result<(), String>, Error>
    where
        Work: Future<Output = Result<Result<(), String>, PostgresError>>,
    {
        let mut lease = self.lease().await?;
        let connection = lease.connection();
        let worked = async {
            connection.command(setup::BEGIN).await?;
            work(connection.clone()).await
        };
        let worked = Box::pin(lease.run(State::Open, worked)).await.map_err(|failure| self.error(failure))?;
        if worked.is_ok() {
            let committed = lease.run(State::Clean, connection.command("COMMIT")).await;
            committed.map_err(|failure| self.error(failure))?;
        }
        Ok(worked)
    }
}

impl Position {
    /// The snapshot up to which entries are to be removed now, if there is one; `snapshot` is that of now.
    fn limit(&mut self, now: Instant, snapshot: &ServerSnapshot) -> Option<ServerSnapshot> {
        if self.history.back().is_some_and(|(taken, _)| now.duration_since(*taken) < PRUNE_INTERVAL) {
            return None;
        }
        self.history.push_back((now, snapshot.clone()));
        let (taken, _) = self.history.front()?;
        match now.duration_since(*taken) >= PRUNE_AGE {
            true => self.history.pop_front().map(|(_, limit)| limit),
            false => None,
        }
    }
}

impl Found {
    /// Whether entries may be missing that were made after `before`.
    fn has_lost(&self, before: &LastLook) -> bool {
        let is_other = self.look.started != before.started || self.look.epoch != before.epoch;
        is_other
            || self.look.epoch.is_none()
            || self.pruned.as_ref().is_some_and(|pruned| !before.snapshot.sees_all_of(pruned))
    }
}

/// One look in one snapshot and one round trip. It is never serializable, which could fail who writes to the log.
async fn look(
    connection: &Connection,
    since: &ServerSnapshot,
    schema: &str,
    tables: Option<&[&str]>,
) -> Result<Found, PostgresError> {
    let (end, running) = (since.end.to_string(), since.running_texts());
    let log: [(&(dyn ToSql + Sync), Native); 2] = [(&end, Native::TEXT), (&running, Native::TEXT_ARRAY)];
    let names = tables.unwrap_or_default();
    let catalog: [(&(dyn ToSql + Sync), Native); 2] = [(&schema, Native::TEXT), (&names, Native::TEXT_ARRAY)];
    let catalog = async {
        match tables {
            Some(_) => connection.query(CATALOG, &catalog).await.map(Some),
            None => Ok(None),
        }
    };
    let begin = connection.begin(TransactionKind::Snapshot);
    let all = futures::join!(begin, connection.query(LOG, &log), catalog, connection.command("COMMIT"));
    let (begun, log, catalog, ended) = all;
    begun?;
    let (log, catalog) = (log?, catalog?);
    ended?;
    let row = log.first().ok_or_else(PostgresError::unanswered)?;
    let pruned: Option<String> = row.try_get(3)?;
    Ok(Found {
        look: LastLook {
            snapshot: ServerSnapshot::parse(row.try_get(0)?),
            started: row.try_get(1)?,
            epoch: row.try_get(2)?,
        },
        pruned: pruned.map(|pruned| ServerSnapshot::parse(&pruned)),
        relations: row.try_get(4)?,
        catalog: catalog.map(|rows| relations(&rows)).transpose()?,
    })
}

fn relations(rows: &[Row]) -> Result<BTreeMap<String, Relations>, PostgresError> {
    let mut tables: BTreeMap<String, Relations> = BTreeMap::new();
    for row in rows {
        tables.entry(row.try_get(0)?).or_default().insert(row.try_get(1)?, row.try_get(2)?);
    }
    Ok(tables)
}

async fn prune(connection: &Connection, limit: &ServerSnapshot) -> Result<(), PostgresError> {
    let rows = connection.query("SELECT s.pruned FROM perigee_changes.state s FOR UPDATE SKIP LOCKED", &[]).await?;
    let Some(row) = rows.first() else { return Ok(()) };
    let before: Option<String> = row.try_get(0)?;
    if before.is_some_and(|before| ServerSnapshot::parse(&before).sees_all_of(limit)) {
        return Ok(());
    }
    let (text, end, running) = (limit.to_string(), limit.end.to_string(), limit.running_texts());
    connection.query(LIMIT, &[(&text, Native::TEXT)]).await?;
    connection.query(PRUNE, &[(&end, Native::TEXT), (&running, Native::TEXT_ARRAY)]).await?;
    Ok(())
}

#[cfg(test)]
mod tests;
