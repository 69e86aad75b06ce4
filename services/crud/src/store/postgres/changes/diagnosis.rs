//! Diagnosis of a server's database, and removal of what is ours.

use futures::future::BoxFuture;
use query::resources::ChangesSource;
use tokio_postgres::types::Type as Native;

use super::{
    obstacle::Obstacle,
    setup::{self, TriggerKind},
    slot::{
        obstacle::SlotObstacle,
        setup::{MARK, PublishedTables},
    },
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
UNION ALL
SELECT 'publication', p.pubname::text FROM pg_catalog.pg_publication p WHERE p.pubname LIKE 'perigee\\_%'
UNION ALL
SELECT 'replication slot', s.slot_name::text FROM pg_catalog.pg_replication_slots s
WHERE s.slot_name LIKE 'perigee\\_%' AND s.database = pg_catalog.current_database()
ORDER BY 1, 2";

/// Slots and publications that may be ours, and whether a slot is read now.
const SLOTS: &str = "\
SELECT ours.name, pg_catalog.bool_or(ours.is_active) FROM (
    SELECT s.slot_name::text, s.active FROM pg_catalog.pg_replication_slots s
    WHERE s.slot_name LIKE 'perigee\\_%' AND s.plugin = 'pgoutput' AND s.database = pg_catalog.current_database()
    UNION ALL
    SELECT p.pubname::text, false FROM pg_catalog.pg_publication p
    WHERE p.pubname LIKE 'perigee\\_%' AND pg_catalog.pg_has_role(p.pubowner, 'USAGE')
        AND pg_catalog.starts_with(pg_catalog.obj_description(p.oid, 'pg_publication'), $1)
) ours (name, is_active)
GROUP BY ours.name ORDER BY ours.name";
impl Postgres {
    /// What live queries have of the database. Nothing is made in it.
    pub async fn diagnose(&self) -> Result<Diagnosis, Error> {
        let served = self.introspect(&[]).await?.schema;
        let objects = self.objects().await?;
        let (source, no_slot) = self.applying_source().await?;
        let mut diagnosis = Diagnosis { objects, source, ..Diagnosis::default() };
        diagnosis.findings.extend(no_slot);
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

    /// What changes of rows are learnt from, and what keeps them from being learnt from a slot.
    async fn applying_source(&self) -> Result<(&'static str, Option<Finding>), Error> {
        let source = self.inner.changes.source;
        match source {
            ChangesSource::Off | ChangesSource::Triggers => return Ok((source.name(), None)),
            ChangesSource::Slot | ChangesSource::Auto => {}
        }
        // One that is read is in use as it should be.
        let obstacle = self.slot_obstacle().await?.filter(|obstacle| *obstacle != SlotObstacle::Active);
        let Some(obstacle) = obstacle else { return Ok(("slot", None)) };
        let (source, severity) = match source {
            ChangesSource::Slot => ("slot", Severity::Missing),
            ChangesSource::Auto | ChangesSource::Off | ChangesSource::Triggers => ("triggers", Severity::Note),
        };
        let text = format!("no slot is used for changes of rows: {obstacle}");
        Ok((source, Some(Finding { severity, text, sql: obstacle.remedy() })))
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
        let slots = self.in_catalog(|connection| Box::pin(slots(connection))).await?;
        let read: Vec<&str> = slots.iter().filter(|(_, is_read)| *is_read).map(|(name, _)| name.as_str()).collect();
        if !read.is_empty() && while_used == WhileUsed::Refuse {
            let read = read.join(", ");
            let warnings =
                vec![format!("nothing is removed: a server reads the slot {read}; stop it first, or use --force")];
            return Ok(Removal { left: before, warnings, is_partial: true, ..Removal::default() });
        }
        let mut unremoved = Vec::new();
        for (name, _) in &slots {
            if let Err(error) = Box::pin(self.remove_slot_of_others(name)).await {
                let why = error.cause().map_or_else(|| error.to_string(), str::to_owned);
                unremoved.push(format!("{name} stays: {why}"));
            }
        }
        let forgotten =
            self.set_up(|connection| async move { Ok(Ok(setup::forget_readers(&connection).await?)) }).await?;
        forgotten.map_err(Error::Database)?;
        let released = self.drop_triggers(&[], TriggerKind::Note).await;
        let released = released.and(self.drop_triggers(&[], TriggerKind::Image).await);
        let mut removal = Removal::between(before, self.objects().await?);
        removal.is_partial |= !unremoved.is_empty();
        removal.warnings.extend(unremoved);
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

    /// Removes a slot with what it needed, whoever reads it.
    async fn remove_slot_of_others(&self, name: &str) -> Result<(), Error> {
        self.end_reader(name, None).await?;
        self.remove_slot(name, &PublishedTables::new()).await
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

async fn slots(connection: &Connection) -> Result<Vec<(String, bool)>, PostgresError> {
    let rows = connection.query(SLOTS, &[(&MARK, Native::TEXT)]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
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
