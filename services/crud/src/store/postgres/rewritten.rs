//! Views and foreign tables: what can be written through them, and whether foreign servers answer.
//!
//! PostgreSQL answers both with the code of other programs, which may fail: that is the end of one object, not of the
//! introspection.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use query::Writes;
use tokio_postgres::{
    Row,
    types::{ToSql, Type},
};

use super::{Postgres, connection::Connection, error::PostgresError};
use crate::{Error, LeftOut, store::identifier};

/// How long a foreign server may take to answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Names of views and foreign tables that our role may use; of foreign tables it may read, their server.
const NAMES: &str = "\
SELECT c.relname::text,
    CASE WHEN pg_catalog.has_any_column_privilege(c.oid, 'SELECT') THEN s.srvname::text END
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_foreign_table f ON f.ftrelid = c.oid
LEFT JOIN pg_catalog.pg_foreign_server s ON s.oid = f.ftserver
WHERE n.nspname = $1 AND c.relkind IN ('v', 'f') AND NOT c.relispartition
    AND (pg_catalog.has_table_privilege(c.oid, 'SELECT, INSERT, UPDATE, DELETE')
        OR pg_catalog.has_any_column_privilege(c.oid, 'SELECT, INSERT, UPDATE'))
ORDER BY c.relname";

/// Which of the events 4 (update), 8 (insert) and 16 (delete) the views and foreign tables called `$2` take, and the
/// columns of a view that PostgreSQL cannot write by itself, where no trigger or rule of the view does.
const EVENTS: &str = "\
SELECT c.relname::text, pg_catalog.pg_relation_is_updatable(c.oid, true),
    ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = c.oid AND c.relkind = 'v' AND a.attnum > 0 AND NOT a.attisdropped
            AND NOT pg_catalog.pg_column_is_updatable(c.oid, a.attnum, false)
            AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND t.tgtype & 64 <> 0)
            AND NOT EXISTS (SELECT FROM pg_catalog.pg_rewrite r WHERE r.ev_class = c.oid AND r.ev_type <> '1'))
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relname = ANY($2)";

/// Views and foreign tables of a schema.
#[derive(Debug, Default)]
pub struct Rewritten {
    /// What can be written through them, by name.
    pub events: HashMap<String, Events>,
    /// Those of which PostgreSQL cannot even say that.
    pub left_out: Vec<LeftOut>,
    /// Foreign tables to read from, and their servers.
    pub foreign: Vec<(String, String)>,
}

/// What can be written through a view or foreign table.
#[derive(Debug)]
pub struct Events {
    /// The operations.
    pub writes: Writes,
    /// Columns that cannot.
    pub read_only: Vec<String>,
}

/// Finds the views and foreign tables of the schema called `schema`.
pub async fn find(connection: &Connection, schema: &str) -> Result<Rewritten, PostgresError> {
    let mut found = Rewritten::default();
    let mut names: Vec<String> = Vec::new();
    let of_schema: [(&(dyn ToSql + Sync), Type); 1] = [(&schema, Type::TEXT)];
    for row in connection.in_catalog(Box::pin(connection.query(NAMES, &of_schema))).await? {
        names.push(row.try_get(0)?);
        if let Some(server) = row.try_get(1)? {
            found.foreign.push((row.try_get(0)?, server));
        }
    }
    match events(connection, schema, &names).await {
        Err(error) if error.db_error().is_some() => {}
        all => {
            all?.iter().try_for_each(|row| found.add(row))?;
            return Ok(found);
        }
    }
    for name in names {
        match events(connection, schema, std::slice::from_ref(&name)).await {
            Ok(rows) => rows.iter().try_for_each(|row| found.add(row))?,
            Err(error) => {
                let why = said(&error).ok_or(error)?;
                found.foreign.retain(|(foreign, _)| *foreign != name);
                found.left_out.push(LeftOut::until_change(name, why));
            }
        }
    }
    Ok(found)
}

async fn events(connection: &Connection, schema: &str, names: &[String]) -> Result<Vec<Row>, PostgresError> {
    let args: [(&(dyn ToSql + Sync), Type); 2] = [(&schema, Type::TEXT), (&names, Type::TEXT_ARRAY)];
    connection.in_catalog(Box::pin(connection.query(EVENTS, &args))).await
}

/// What the server says of one statement; `None` where the connection failed.
fn said(error: &PostgresError) -> Option<String> {
    error.db_error().map(|error| error.message().to_owned())
}

impl Rewritten {
    fn add(&mut self, row: &Row) -> Result<(), PostgresError> {
        let bits: i32 = row.try_get(1)?;
        let writes = Writes { insert: bits & 8 != 0, update: bits & 4 != 0, delete: bits & 16 != 0 };
        self.events.insert(row.try_get(0)?, Events { writes, read_only: row.try_get(2)? });
        Ok(())
    }
}

impl Postgres {
    /// Foreign tables that cannot be read now. Those of a server that does not answer are not tried one by one.
    pub(super) async fn unreadable(&self, foreign: &[(String, String)]) -> Result<Vec<LeftOut>, Error> {
        let mut away: HashMap<&str, String> = HashMap::new();
        let mut left_out = Vec::new();
        for (name, server) in foreign {
            let why = match away.get(server.as_str()) {
                Some(why) => why.clone(),
                None => match self.probe(name).await? {
                    Probe::Read => continue,
                    Probe::Refused(why) => why,
                    Probe::Away(why) => {
                        away.insert(server, why.clone());
                        why
                    }
                },
            };
            left_out.push(LeftOut { name: name.clone(), why, is_transient: true });
        }
        Ok(left_out)
    }

    /// Begins to read a foreign table, which connects to its server.
    async fn probe(&self, name: &str) -> Result<Probe, Error> {
        let text = format!("SELECT FROM {}.{} LIMIT 0", identifier(&self.inner.schema), identifier(name));
        let text = text.as_str();
        let work = self.with_retry(|connection| async move {
            match Box::pin(connection.query(text, &[])).await {
                Ok(_) => Ok(Probe::Read),
                Err(error) => match said(&error) {
                    Some(why) if error.is_behind() || error.is_lost() => Ok(Probe::Away(why)),
                    Some(why) => Ok(Probe::Refused(why)),
                    None => Err(error),
                },
            }
        });
        match tokio::time::timeout(PROBE_TIMEOUT, work).await {
            Ok(probe) => probe.map_err(|failure| self.error(failure)),
            Err(_) => Ok(Probe::Away(format!("its server did not answer within {PROBE_TIMEOUT:?}"))),
        }
    }
}

/// Outcome of a read of a foreign table.
enum Probe {
    Read,
    /// The table cannot be read; why.
    Refused(String),
    /// Its server cannot be reached; why.
    Away(String),
}

/// Sorts `left_out` by name, each object once.
pub fn once_each(left_out: &mut Vec<LeftOut>) {
    let mut names = HashSet::new();
    left_out.retain(|object| names.insert(object.name.clone()));
    left_out.sort_by(|one, other| one.name.cmp(&other.name));
}
