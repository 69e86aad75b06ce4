//! Change capture: triggers note each transaction that changes rows of a table that somebody listens to in a log.
//!
//! An entry is a transaction and a table, without anything of rows. Sequence numbers and the ids of transactions are in
//! another order than commits, so the log is read by difference of snapshots: of the transactions that the last snapshot
//! did not see, those that this one sees. No transaction that runs for long holds up others, and none is missed.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use mesh::Code;
use tokio::sync::watch;
use tokio_postgres::{
    Row,
    error::SqlState,
    types::{ToSql, Type as Native},
};

use self::{history::SnapshotHistory, locks::TableLock, setup::TriggerKind, snapshot::ServerSnapshot};
use super::{Postgres, connection::Connection, error::PostgresError, pool::State, pooler::TransactionKind};
use query::Type;

use crate::{
    Error,
    store::{Changed, Rows, Statement},
};

mod diagnosis;
mod history;
pub mod images;
mod locks;
mod obstacle;
mod prune;
mod setup;
pub(crate) mod slot;
mod snapshot;
pub(crate) mod source;

/// Time between two looks at the log while changes are found; doubles up to [`POLL_INTERVAL_MAX`] while none are.
const POLL_INTERVAL_MIN: Duration = Duration::from_millis(5);
const POLL_INTERVAL_MAX: Duration = Duration::from_millis(100);
/// Time between two looks at the catalog: whether triggers and tables are still what they were.
const CATALOG_INTERVAL: Duration = Duration::from_millis(100);
/// How often the capture of a table begins anew where its triggers are changed meanwhile.
const CAPTURE_ATTEMPTS: usize = 3;

/// How the log and the catalog are read: by nobody's operators, in whatever schema these are. Statistics of a log that
/// grows fast are too old to choose an index by, or to tell that a compiler is not worth its time.
const BY_INDEX: &str = "\
SET LOCAL search_path TO pg_catalog; SET LOCAL enable_seqscan TO off; SET LOCAL enable_bitmapscan TO off; SET LOCAL jit TO off";
/// What changed since the snapshot with this end and these transactions in progress. Of transactions that were prepared
/// before the server was started, the log may not know any more what they changed.
const LOG: &str = "\
SELECT pg_catalog.pg_current_snapshot()::text, pg_catalog.pg_postmaster_start_time()::text,
    (SELECT s.epoch FROM perigee_changes.state s), (SELECT s.pruned FROM perigee_changes.state s),
    ARRAY(SELECT l.tbl FROM perigee_changes.log l WHERE l.xid >= $1::xid8
        UNION SELECT l.tbl FROM perigee_changes.log l WHERE l.xid = ANY ($2::xid8[])),
    ARRAY(SELECT p.transaction::text FROM pg_catalog.pg_prepared_xact() p
        WHERE p.prepared < pg_catalog.pg_postmaster_start_time())";

/// Tables of a schema with those below them, each with what changes when it or its triggers do.
const CATALOG: &str = "\
WITH RECURSIVE tree (name, relation) AS (
    SELECT c.relname::text, c.oid
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relname = ANY ($2)
    UNION
    SELECT tree.name, i.inhrelid
    FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.relation
    JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid AND c.relpersistence <> 't'
)
SELECT tree.name, tree.relation, pg_catalog.concat_ws(' ', c.xmin, c.relfilenode,
    (SELECT pg_catalog.string_agg(a.xmin::text, ',' ORDER BY a.attnum)
        FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0),
    (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', t.oid, t.xmin, t.tgenabled), ',' ORDER BY t.oid)
        FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND t.tgname LIKE 'perigee\\_changes\\_%'))
FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.relation
ORDER BY tree.name, tree.relation";

/// The statement whose row tells which transactions its snapshot sees.
pub fn end_statement() -> Statement {
    Statement {
        text: "SELECT pg_catalog.pg_current_snapshot()::text".into(),
        args: Vec::new(),
        columns: [Type::Text.into()].into(),
        sources: Vec::new(),
        plain: None,
    }
}

/// The snapshot of the row of [`end_statement`]. Positions have no mark.
pub fn end(rows: &Rows) -> Option<(proto::crud::Snapshot, u32)> {
    match (rows.len(), rows) {
        (1, rows) => rows.cell(0, 0).text().map(|text| (ServerSnapshot::parse(&text).into(), 0)),
        _ => None,
    }
}

/// How far the log has been read, and which tables of it are followed.
#[derive(Debug, Default)]
pub struct Position {
    last: Option<LastLook>,
    tables: BTreeMap<String, Relations>,
    catalog_seen: Option<Instant>,
    pause: Duration,
    history: SnapshotHistory<ServerSnapshot>,
    /// The limit of now.
    limits: watch::Sender<ServerSnapshot>,
}

/// What the last look at the log found.
#[derive(Debug, Clone, PartialEq)]
struct LastLook {
    snapshot: ServerSnapshot,
    /// Since when the server runs.
    started: String,
    /// Of the log: it is another when entries were lost, as in a crash of the server; `None` where that was not repaired.
    epoch: Option<String>,
    /// Transactions that were prepared before that, and have not ended.
    prepared: Vec<String>,
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
        for _ in 0..CAPTURE_ATTEMPTS {
            self.make_triggers(table, TriggerKind::Note).await?;
            // Before the table's first message is sent, so that nothing is missed after it.
            if let Some(mut found) = self.baseline(table).await? {
                let relations = found.catalog.as_mut().and_then(|catalog| catalog.remove_entry(table));
                position.tables.extend(relations);
                position.last.get_or_insert(found.look);
                return Ok(());
            }
        }
        Err(busy(format!("the triggers of {table} are changed by others")))
    }

    /// Makes the triggers of a table where they are missing, unless a lock that is needed is held for long.
    async fn make_triggers(&self, table: &str, kind: TriggerKind) -> Result<(), Error> {
        let schema = self.inner.schema.as_str();
        let tree = self.tree(table, kind).await?;
        let read = |failure| self.error(failure);
        if let Some(root) = tree.root().map_err(read)?
            && !tree.wanting().map_err(read)?.is_empty()
            && !self.held(&[root], TableLock::MakeTriggers).await?.is_empty()
        {
            return Err(busy(format!("a transaction holds a lock on {table}")));
        }
        let made = self.set_up(|connection| async move { setup::capture(&connection, schema, table, kind).await });
        made.await?.map_err(|why| Error::unfollowed(table, &why))
    }

    /// What the log and the catalog are now for a table; `None` where triggers were lost before this look at them.
    async fn baseline(&self, table: &str) -> Result<Option<Found>, Error> {
        let found = match self.look(&ServerSnapshot::of_all(), Some(&[table])).await {
            Ok(found) => found,
            Err(failure) if is_not_ours(&failure) => return Ok(None),
            Err(failure) => return Err(self.error(failure)),
        };
        let tree = self.tree(table, TriggerKind::Note).await?;
        let wanting = tree.wanting().map_err(|failure| self.error(failure))?;
        Ok((wanting.is_empty() && found.look.epoch.is_some()).then_some(found))
    }

    async fn tree(&self, table: &str, kind: TriggerKind) -> Result<setup::TableTree, Error> {
        let schema = self.inner.schema.as_str();
        let tree =
            self.with_retry(|connection| Box::pin(async move { setup::tree(&connection, schema, table, kind).await }));
        Box::pin(tree).await.map_err(|failure| self.error(failure))
    }

    /// Ends the capture of all tables but `kept`, also that which a process before did not end. Nothing of ours is left
    /// in the database when no table of any schema is captured.
    ///
    /// Errors: that of the first table whose trigger stays.
    pub async fn release(&self, position: &mut Position, kept: &[String]) -> Result<(), Error> {
        position.tables.retain(|table, _| kept.contains(table));
        self.drop_triggers(kept, TriggerKind::Note).await
    }

    /// Drops the triggers of all tables but `kept`, and all of ours where none is left.
    async fn drop_triggers(&self, kept: &[String], kind: TriggerKind) -> Result<(), Error> {
        let schema = self.inner.schema.as_str();
        let needless =
            self.set_up(|connection| async move { Ok(Ok(setup::needless(&connection, schema, kept, kind).await?)) });
        let needless = needless.await?.map_err(Error::Database)?;
        let tables: Vec<u32> = needless.iter().map(|(table, _)| *table).collect();
        let held = self.held(&tables, TableLock::DropTriggers).await?;
        let mut done = Ok(());
        for (table, sql) in &needless {
            // Each in a transaction of its own: the lock of one table is not held while that of another is waited for.
            let dropped = match held.contains(table) {
                true => Err(busy("a transaction holds a lock on a table".to_owned())),
                false => self.set_up(|connection| async move { Ok(Ok(connection.define(sql).await?)) }).await.map(drop),
            };
            match dropped {
                Err(error @ Error::Unavailable(_)) => return Err(error),
                dropped => done = done.and(dropped),
            }
        }
        let removed = self.set_up(|connection| async move { Ok(Ok(setup::remove(&connection).await?)) }).await;
        done.and(removed.map(drop))
    }

    /// What transactions changed that the last look at the log did not see, and this one sees.
    pub async fn changes_since(&self, position: &mut Position) -> Result<Changed, Error> {
        let Some(before) = position.last.take() else { return Ok(Changed::Any) };
        let is_due = position.catalog_seen.is_none_or(|seen| seen.elapsed() >= CATALOG_INTERVAL);
        let names: Vec<&str> = position.tables.keys().map(String::as_str).collect();
        let found = match self.look(&before.snapshot, is_due.then_some(&names)).await {
            Ok(found) => found,
            Err(failure) => {
                // Each is captured anew.
                position.tables.clear();
                return if is_not_ours(&failure) { Ok(Changed::Any) } else { Err(self.error(failure)) };
            }
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
        if let Some(limit) = position.history.limit(Instant::now(), &found.look.snapshot) {
            position.limits.send_replace(limit);
        }
        position.last = Some(found.look);
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

    /// Runs `work` in a transaction that makes or removes something, as [`Postgres::transaction`].
    async fn set_up<T, Work>(&self, work: impl FnOnce(Arc<Connection>) -> Work) -> Result<Result<T, String>, Error>
    where
        Work: Future<Output = Result<Result<T, String>, PostgresError>>,
    {
        self.transaction(setup::BEGIN, work).await
    }

    /// Runs `work` in a transaction that waits for locks for a short time only: who needs one after it waits as long. The
    /// transaction is rolled back where `work` says why it cannot be done.
    async fn transaction<T, Work>(
        &self,
        begin: &'static str,
        work: impl FnOnce(Arc<Connection>) -> Work,
    ) -> Result<Result<T, String>, Error>
    where
        Work: Future<Output = Result<Result<T, String>, PostgresError>>,
    {
        let mut lease = self.lease().await?;
        let connection = lease.connection();
        let worked = async {
            connection.command(begin).await?;
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

impl Found {
    /// Whether entries may be missing that were made after `before`.
    fn has_lost(&self, before: &LastLook) -> bool {
        let is_other = self.look.started != before.started || self.look.epoch != before.epoch;
        is_other
            || before.prepared.iter().any(|transaction| !self.look.prepared.contains(transaction))
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
    let (begun, ready, is_locked, is_own, log, catalog, ended) = futures::join!(
        connection.begin(TransactionKind::Snapshot),
        connection.command(BY_INDEX),
        connection.command(setup::LOCK_LOG),
        connection.query(setup::REQUIRE_OWN, &[]),
        connection.query(LOG, &log),
        catalog,
        connection.command("COMMIT"),
    );
    begun.and(ready).and(is_locked)?;
    is_own?;
    let (log, catalog) = (log?, catalog?);
    ended?;
    let row = log.first().ok_or_else(PostgresError::unanswered)?;
    let pruned: Option<String> = row.try_get(3)?;
    Ok(Found {
        look: LastLook {
            snapshot: ServerSnapshot::parse(row.try_get(0)?),
            started: row.try_get(1)?,
            epoch: row.try_get(2)?,
            prepared: row.try_get(5)?,
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

/// Whether our objects were dropped, or are those of another role.
fn is_not_ours(failure: &PostgresError) -> bool {
    let code = failure.db_error().map(|error| error.code());
    failure.is_stale() || matches!(code, Some(&SqlState::INSUFFICIENT_PRIVILEGE | &SqlState::WRONG_OBJECT_TYPE))
}

fn busy(cause: String) -> Error {
    Error::refused(Code::Unavailable, "the database is busy: a lock was not free in time; try again", cause)
}

#[cfg(test)]
mod tests;
