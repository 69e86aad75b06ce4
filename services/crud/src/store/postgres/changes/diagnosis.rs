//! Diagnosis of a server's database, and removal of what is ours.

use futures::future::BoxFuture;

use super::{
    obstacle::Obstacle,
    setup::{self, TriggerKind},
};
use crate::{
    Error,
    store::{
        diagnosis::{Diagnosis, Finding, NamedObject, Removal, Severity, WhileUsed},
        postgres::{Postgres, connection::Connection, error::PostgresError},
    },
};

/// Objects whose names begin as ours do, what is in schemas of such names, and triggers that execute it.
const NAMED_OBJECTS: &str = "\
SELECT 'schema', n.nspname::text FROM pg_catalog.pg_namespace n WHERE n.nspname LIKE 'perigee\\_%'
UNION ALL
SELECT CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'S' THEN 'sequence' ELSE 'table' END,
    pg_catalog.format('%I.%I', n.nspname, c.relname)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname LIKE 'perigee\\_%' AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
UNION ALL
SELECT 'type', pg_catalog.format('%I.%I', n.nspname, t.typname)
FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
WHERE n.nspname LIKE 'perigee\\_%' AND t.typtype IN ('d', 'e', 'r')
UNION ALL
SELECT 'function', pg_catalog.format('%I.%I(%s)', n.nspname, p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid))
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname LIKE 'perigee\\_%'
UNION ALL
SELECT 'trigger', pg_catalog.format('%I on %I.%I', t.tgname, n.nspname, c.relname)
FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid JOIN pg_catalog.pg_namespace f ON f.oid = p.pronamespace
WHERE (t.tgname LIKE 'perigee\\_%' OR f.nspname LIKE 'perigee\\_%') AND t.tgparentid = 0
ORDER BY 1, 2";

impl Postgres {
    /// What live queries have of the database. Nothing is made in it.
    pub async fn diagnose(&self) -> Result<Diagnosis, Error> {
        let served = self.introspect(&[]).await?.schema;
        let objects = self.objects().await?;
        let mut diagnosis = Diagnosis { objects, ..Diagnosis::default() };
        let log = self.in_catalog(|connection| Box::pin(setup::log_obstacle(connection))).await?;
        diagnosis.findings.extend(log.iter().map(|obstacle| finding(obstacle, obstacle.to_string())));
        for table in served.tables() {
            let name = &table.name;
            let tree = self.tree(name, TriggerKind::Note).await?;
            let obstacles = tree.obstacles().map_err(|failure| self.error(failure))?;
            if obstacles.is_empty() && log.is_none() {
                diagnosis.followed.push(name.clone());
            }
            diagnosis
                .findings
                .extend(obstacles.iter().map(|obstacle| finding(obstacle, format!("{name}: {obstacle}"))));
            let silent = tree.silent().map_err(|failure| self.error(failure))?;
            diagnosis.findings.extend(silent.iter().map(|(table, trigger)| silent_trigger(table, trigger)));
            diagnosis.tables.push(name.clone());
        }
        let readers = self.in_catalog(|connection| Box::pin(setup::readers_seen(connection))).await?;
        if !readers.is_empty() {
            diagnosis.findings.push(Finding { severity: Severity::Note, text: used(&readers), sql: None });
        }
        Ok(diagnosis)
    }

    /// Removes what is ours from the whole database.
    pub async fn remove_capture(&self, while_used: WhileUsed) -> Result<Removal, Error> {
        let before = self.objects().await?;
        let obstacle = self.in_catalog(|connection| Box::pin(setup::log_obstacle(connection))).await?;
        if let Some(obstacle @ (Obstacle::OtherRole { is_marked: true, .. } | Obstacle::Standby)) = obstacle {
            let (warnings, is_partial) = (vec![format!("nothing is removed: {obstacle}")], !before.is_empty());
            return Ok(Removal { left: before, warnings, is_partial, ..Removal::default() });
        }
        let readers = self.in_catalog(|connection| Box::pin(setup::readers_seen(connection))).await?;
        if !readers.is_empty() && while_used == WhileUsed::Refuse {
            let warnings = vec![format!("nothing is removed: {}; stop it first, or use --force", used(&readers))];
            return Ok(Removal { left: before, warnings, is_partial: true, ..Removal::default() });
        }
        let forgotten =
            self.set_up(|connection| async move { Ok(Ok(setup::forget_readers(&connection).await?)) }).await?;
        forgotten.map_err(Error::Database)?;
        let released = self.drop_triggers(&[], TriggerKind::Note).await;
        let released = released.and(self.drop_triggers(&[], TriggerKind::Image).await);
        let mut removal = Removal::between(before, self.objects().await?);
        let executing = self.in_catalog(|connection| Box::pin(setup::executing(connection))).await?;
        if let Err(error) = released {
            removal.is_partial = true;
            removal.warnings.push(error.cause().map_or_else(|| error.to_string(), str::to_owned));
        } else if !executing.is_empty() {
            removal.is_partial = true;
            removal.warnings.push(format!(
                "the schema perigee_changes stays: trigger {} executes a function of it, and is not called as ours are; drop \
                 it, and remove once more",
                executing.join(", ")
            ));
        }
        if self.in_catalog(|connection| Box::pin(setup::is_empty_schema(connection))).await? {
            let text = "the schema perigee_changes is empty and stays, as one that was made for the role; whoever made it may \
                        drop it: DROP SCHEMA perigee_changes;";
            removal.warnings.push(text.to_owned());
        }
        Ok(removal)
    }

    async fn objects(&self) -> Result<Vec<NamedObject>, Error> {
        self.in_catalog(|connection| Box::pin(objects(connection))).await
    }

    /// Runs `work`, which reads the catalog, in one snapshot.
    async fn in_catalog<T>(
        &self,
        work: impl for<'a> Fn(&'a Connection) -> BoxFuture<'a, Result<T, PostgresError>>,
    ) -> Result<T, Error> {
        let read = self.with_retry(|connection| {
            let work = &work;
            Box::pin(async move { connection.in_catalog(work(&connection)).await })
        });
        Box::pin(read).await.map_err(|failure| self.error(failure))
    }
}

async fn objects(connection: &Connection) -> Result<Vec<NamedObject>, PostgresError> {
    let rows = connection.query(NAMED_OBJECTS, &[]).await?;
    rows.iter().map(|row| Ok(NamedObject { kind: row.try_get(0)?, name: row.try_get(1)? })).collect()
}

fn finding(obstacle: &Obstacle, text: String) -> Finding {
    let severity = if obstacle.is_of_kind() { Severity::Unfollowed } else { Severity::Missing };
    Finding { severity, text, sql: obstacle.remedy() }
}

fn silent_trigger(table: &str, trigger: &str) -> Finding {
    Finding {
        severity: Severity::Note,
        text: format!(
            "trigger {trigger} on {table} does not fire for all changes; a server that follows the table repairs it"
        ),
        sql: Some(format!("ALTER TABLE ONLY {table} ENABLE ALWAYS TRIGGER {trigger};")),
    }
}

fn used(schemas: &[String]) -> String {
    format!("a server follows tables of schema {} now, or did within the last five minutes", schemas.join(", "))
}
