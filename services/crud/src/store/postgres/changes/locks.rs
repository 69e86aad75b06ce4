//! Locks that others hold on tables, asked for before one of ours is waited for: whoever comes after it waits as long.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio_postgres::types::{ToSql, Type as Native};

use crate::{
    Error,
    store::postgres::{Postgres, connection::Connection, error::PostgresError},
};

/// A lock that is held for longer than this is not waited for.
const HELD_MAX: Duration = Duration::from_millis(100);

/// Transactions that hold a lock on one of the tables `$1` or one below it, except those of the modes `$2`.
const HOLDERS: &str = "\
WITH RECURSIVE tree (root, relation) AS (
    SELECT roots.oid, roots.oid FROM pg_catalog.unnest($1::oid[]) roots (oid)
    UNION
    SELECT tree.root, i.inhrelid
    FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.relation
    JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid AND c.relpersistence <> 't'
)
SELECT DISTINCT tree.root, l.virtualtransaction
FROM tree JOIN pg_catalog.pg_locks l ON l.relation = tree.relation
WHERE l.locktype = 'relation' AND l.granted AND l.mode <> ALL ($2::text[])
    AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
    AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()";

/// What is done to a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableLock {
    /// Its triggers are made: readers go on.
    MakeTriggers,
    /// Its triggers are removed: nobody goes on.
    DropTriggers,
}

impl TableLock {
    /// Locks of others that it can be held beside.
    fn beside(self) -> &'static [&'static str] {
        match self {
            TableLock::MakeTriggers => &["AccessShareLock", "RowShareLock"],
            TableLock::DropTriggers => &[],
        }
    }
}

type Holders = BTreeMap<u32, BTreeSet<String>>;

impl Postgres {
    /// Those of `tables`, by their ids, that cannot be locked in a short time: a transaction that goes on for long, a
    /// vacuum or an index that is built holds a lock on them.
    pub(super) async fn held(&self, tables: &[u32], lock: TableLock) -> Result<BTreeSet<u32>, Error> {
        let before = self.holders(tables, lock).await?;
        if before.is_empty() {
            return Ok(BTreeSet::new());
        }
        tokio::time::sleep(HELD_MAX).await;
        let now = self.holders(tables, lock).await?;
        let is_held = |(table, holders): &(u32, BTreeSet<String>)| {
            before.get(table).is_some_and(|before| !before.is_disjoint(holders))
        };
        Ok(now.into_iter().filter(is_held).map(|(table, _)| table).collect())
    }

    async fn holders(&self, tables: &[u32], lock: TableLock) -> Result<Holders, Error> {
        let found = self.with_retry(|connection| Box::pin(async move { holders(&connection, tables, lock).await }));
        Box::pin(found).await.map_err(|failure| self.error(failure))
    }
}

async fn holders(connection: &Connection, tables: &[u32], lock: TableLock) -> Result<Holders, PostgresError> {
    let beside = lock.beside();
    let args: [(&(dyn ToSql + Sync), Native); 2] = [(&tables, Native::OID_ARRAY), (&beside, Native::TEXT_ARRAY)];
    let mut holders = Holders::new();
    for row in connection.query(HOLDERS, &args).await? {
        holders.entry(row.try_get(0)?).or_default().insert(row.try_get(1)?);
    }
    Ok(holders)
}
