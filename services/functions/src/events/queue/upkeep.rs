//! Upkeep of the queue: leases of processes that are gone, events that waited for too long, and those that are finished.

use std::collections::{BTreeMap, HashSet};

use super::{
    Queue, QueueError, TriggerKey,
    crowd::{Amount, Waiting},
    order,
    store::Statement,
};

/// Finished events that are removed in one transaction.
const PRUNE_BATCH: i64 = 1000;
/// Events of a trigger that become dead letters in one transaction.
const FAIL_BATCH: i64 = 5000;
/// Events after which finished ones are removed, the oldest first.
const EVENTS_MAX: i64 = 1_000_000;
/// A clock that went back by less was not set back.
const CLOCK_STEP_MS: i64 = 2000;

/// The lease of an event that is being delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::FromRow)]
pub struct RunningLease {
    /// The event's place in the queue.
    pub seq: i64,
    /// The process that has it.
    pub lease_owner: i64,
    /// The attempt.
    pub attempts: i64,
    /// For how long it has it, from when that is seen first.
    pub lease_ms: i64,
}

/// Bounds of the events of a trigger that wait and are due.
#[derive(Debug, Clone, Copy)]
pub struct WaitingBounds {
    /// How many.
    pub events: i64,
    /// Bytes of their messages.
    pub bytes: i64,
    /// Since when the oldest is due, in milliseconds since 1970.
    pub due_ms: i64,
}

impl Queue {
    /// The leases that are held now.
    pub async fn running(&self) -> Result<Vec<RunningLease>, QueueError> {
        let select = "SELECT seq, lease_owner, attempts, lease_ms FROM events WHERE status = 'running'";
        Ok(self.store.rows(Statement::new(select)).await?)
    }

    /// Whether a lease is of this process.
    pub fn is_own(&self, lease: &RunningLease) -> bool {
        lease.lease_owner == self.owner
    }

    /// Makes the events of leases due that are held still; how many.
    pub async fn expire(&self, leases: &[RunningLease]) -> Result<u64, QueueError> {
        let mut expired = 0;
        for RunningLease { seq, lease_owner, attempts, .. } in leases {
            let expire = Statement::new(
                "UPDATE events SET status = 'pending', lease_owner = NULL, lease_ms = NULL WHERE status = 'running' \
                 AND seq = ",
            );
            let expire = expire.bind(*seq).push(" AND lease_owner = ").bind(*lease_owner);
            expired += self.store.execute(expire.push(" AND attempts = ").bind(*attempts)).await?;
        }
        Ok(expired)
    }

    /// Where the clock of the queue was set back, makes events due that much earlier that wait for some time, rather than
    /// for a moment; by how many milliseconds.
    pub async fn follow_clock(&self, now_ms: i64) -> Result<i64, QueueError> {
        let mut transaction = self.store.begin().await?;
        let lock = Statement::new("SELECT latest_ms FROM queue_clock WHERE id = 1").push(self.store.skip_locked());
        let latest: Vec<(i64,)> = transaction.rows(lock).await?;
        // Where another node does so, this one would wait, and its time would be old by then.
        let Some((latest_ms,)) = latest.first() else { return Ok(0) };
        let step_ms = latest_ms - now_ms;
        let is_step = step_ms >= CLOCK_STEP_MS;
        if is_step {
            let earlier = Statement::new("UPDATE events SET due_ms = due_ms - ").bind(step_ms);
            let earlier = earlier.push(" WHERE status = 'pending' AND due_ms > ").bind(now_ms);
            transaction.execute(earlier.push(" AND (attempts > 0 OR due_ms <= since_ms)")).await?;
        }
        if is_step || step_ms < 0 {
            let latest = Statement::new("UPDATE queue_clock SET latest_ms = ").bind(now_ms).push(" WHERE id = 1");
            transaction.execute(latest).await?;
        }
        transaction.commit().await?;
        Ok(if is_step { step_ms } else { 0 })
    }

    /// Makes events dead letters that are beyond the bounds of their triggers, the oldest first; how many.
    pub async fn give_up(&self, bounds: WaitingBounds, now_ms: i64) -> Result<u64, QueueError> {
        let WaitingBounds { events, bytes, due_ms } = bounds;
        let counted = self.count_waiting(now_ms).await?;
        let mut given_up = 0;
        for (TriggerKey { project, id }, Waiting { due, .. }, oldest_ms) in counted {
            let (many, large) = ((due.events - events).max(0), (due.bytes - bytes).max(0));
            if many == 0 && large == 0 && oldest_ms >= due_ms {
                continue;
            }
            let first = |fail: Statement<'static>| {
                fail.push(
                    "SELECT seq FROM (SELECT seq, due_ms, row_number() OVER oldest AS place, \
                     sum(bytes) OVER oldest - bytes AS before FROM events WHERE status = 'pending' AND project = ",
                )
                .bind(project.to_string())
                .push(" AND trigger_id = ")
                .bind(id.to_string())
                .push(" AND (attempts > 0 OR due_ms <= ")
                .bind(now_ms)
                .push(") WINDOW oldest AS (ORDER BY due_ms, seq)) AS waiting WHERE due_ms < ")
                .bind(due_ms)
                .push(" OR place <= ")
                .bind(many)
                .push(" OR before < ")
                .bind(large)
            };
            given_up += self.fail(first, "it waited for too long", now_ms).await?;
        }
        Ok(given_up)
    }

    /// Counts the events of each trigger that wait, with when the first of them is due.
    async fn count_waiting(&self, now_ms: i64) -> Result<Vec<(TriggerKey, Waiting, i64)>, QueueError> {
        let select = "SELECT project, trigger_id, count(*), CAST(sum(bytes) AS BIGINT), min(due_ms) FROM events \
            WHERE status = 'pending' AND (attempts > 0 OR due_ms <= ";
        let due = Statement::new(select).bind(now_ms).push(") GROUP BY project, trigger_id");
        let select = "SELECT project, trigger_id, count(*), CAST(sum(bytes) AS BIGINT), min(due_ms) FROM events \
            WHERE status = 'pending' AND attempts = 0 AND due_ms > ";
        let delayed = Statement::new(select).bind(now_ms).push(" GROUP BY project, trigger_id");
        let mut all: BTreeMap<TriggerKey, (Waiting, i64)> = BTreeMap::new();
        for (statement, is_delayed) in [(due, false), (delayed, true)] {
            let rows: Vec<(String, String, i64, i64, i64)> = self.store.rows(statement).await?;
            for (project, id, events, bytes, first_ms) in rows {
                let key = TriggerKey { project: project.into(), id: id.into() };
                let (waiting, oldest_ms) = all.entry(key).or_insert((Waiting::default(), i64::MAX));
                *(if is_delayed { &mut waiting.delayed } else { &mut waiting.due }) = Amount { events, bytes };
                *oldest_ms = first_ms.min(*oldest_ms);
            }
        }
        self.crowd().count_events(all.iter().map(|(key, (waiting, _))| (key.clone(), *waiting)));
        Ok(all.into_iter().map(|(key, (waiting, oldest_ms))| (key, waiting, oldest_ms)).collect())
    }

    /// Whether so much of a trigger is due that callers queue no more.
    pub fn is_crowded(&self, trigger: &TriggerKey) -> bool {
        self.crowd().is_full(trigger)
    }

    /// Whether so much of a trigger is delayed that callers delay no more.
    pub fn has_many_delayed(&self, trigger: &TriggerKey) -> bool {
        self.crowd().has_many_delayed(trigger)
    }

    /// Tells other nodes that this one has these triggers in force.
    pub async fn serve(&self, known: &HashSet<TriggerKey>) -> Result<(), QueueError> {
        for TriggerKey { project, id } in known {
            let serve = Statement::new("INSERT INTO served_triggers (project, trigger_id, beat) VALUES (");
            let serve = serve.bind(&**project).push(", ").bind(&**id).push(", 1) ON CONFLICT (project, trigger_id) ");
            self.store.execute(serve.push("DO UPDATE SET beat = served_triggers.beat + 1")).await?;
        }
        Ok(())
    }

    /// The triggers of which events wait or times are known, each with the number that nodes raise which have it in force; 0 where none has.
    pub async fn waiting(&self) -> Result<Vec<(TriggerKey, i64)>, QueueError> {
        let select = "SELECT w.project, w.trigger_id, coalesce(s.beat, 0) FROM (SELECT project, trigger_id FROM events \
            WHERE status = 'pending' UNION SELECT project, trigger_id FROM schedules) AS w LEFT JOIN served_triggers s ON s.project = w.project \
            AND s.trigger_id = w.trigger_id";
        let rows: Vec<(String, String, i64)> = self.store.rows(Statement::new(select)).await?;
        let key =
            |(project, id, beat): (String, String, i64)| (TriggerKey { project: project.into(), id: id.into() }, beat);
        Ok(rows.into_iter().map(key).collect())
    }

    /// Makes the events of a trigger that is gone dead letters, and forgets its times; how many.
    pub async fn fail_trigger(&self, trigger: &TriggerKey, now_ms: i64) -> Result<u64, QueueError> {
        let all = |fail: Statement<'static>| {
            let of = fail.push("SELECT seq FROM events WHERE status = 'pending' AND project = ");
            let of = of.bind(trigger.project.to_string()).push(" AND trigger_id = ").bind(trigger.id.to_string());
            of.push(" ORDER BY due_ms, seq LIMIT ").bind(FAIL_BATCH)
        };
        let mut failed = 0;
        loop {
            let batch = self.fail(all, "trigger not found", now_ms).await?;
            failed += batch;
            if batch < FAIL_BATCH.cast_unsigned() {
                break;
            }
        }
        for delete in ["DELETE FROM served_triggers WHERE project = ", "DELETE FROM schedules WHERE project = "] {
            let delete = Statement::new(delete).bind(&*trigger.project).push(" AND trigger_id = ");
            self.store.execute(delete.bind(&*trigger.id)).await?;
        }
        Ok(failed)
    }

    /// Makes those of the events that wait dead letters which a query selects; how many.
    async fn fail(
        &self,
        query: impl FnOnce(Statement<'static>) -> Statement<'static>,
        why: &'static str,
        now_ms: i64,
    ) -> Result<u64, QueueError> {
        let mut transaction = self.store.begin().await?;
        transaction.lock_order().await?;
        let fail = Statement::new("UPDATE events SET status = 'failed', finished_ms = ").bind(now_ms);
        let fail = fail.push(", last = ").bind(why).push(" WHERE status = 'pending' AND seq IN (");
        let failed = transaction.execute(query(fail).push(")")).await?;
        order::unblock_all(&mut transaction).await?;
        transaction.commit().await?;
        Ok(failed)
    }

    /// Removes events of a status that were finished before a time, or before the last million; a batch of each, and whether
    /// there may be more.
    pub async fn prune(&self, status: &'static str, before_ms: i64) -> Result<bool, QueueError> {
        let old =
            Statement::new("DELETE FROM events WHERE seq IN (SELECT seq FROM events WHERE status = ").bind(status);
        let old = old.push(" AND finished_ms IS NOT NULL AND finished_ms < ").bind(before_ms).push(" LIMIT ");
        let old = self.store.execute(old.bind(PRUNE_BATCH).push(self.store.skip_locked()).push(")")).await?;
        let many =
            Statement::new("DELETE FROM events WHERE seq IN (SELECT seq FROM events WHERE status = ").bind(status);
        let many = many.push(" AND seq <= (SELECT max(seq) FROM events) - ").bind(EVENTS_MAX).push(" LIMIT ");
        let many = self.store.execute(many.bind(PRUNE_BATCH).push(self.store.skip_locked()).push(")")).await?;
        Ok(old.max(many) == PRUNE_BATCH.cast_unsigned())
    }

    /// Events that wait.
    pub async fn pending(&self) -> Result<i64, QueueError> {
        let count = "SELECT count(*) FROM events WHERE status = 'pending'";
        let count: Vec<(i64,)> = self.store.rows(Statement::new(count)).await?;
        Ok(count.first().map_or(0, |(count,)| *count))
    }
}
