//! What delivery does with the queue: it leases events that are due, and writes what became of them.

use std::{collections::HashSet, time::Duration};

use sqlx::{Sqlite, Transaction};

use super::{Queue, QueueError, TriggerKey};

/// Finished events that are removed in one transaction.
const PRUNE_BATCH: i64 = 1000;
/// Events after which finished ones are removed, the oldest first.
const EVENTS_MAX: i64 = 1_000_000;

/// An event that is leased for one attempt.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Lease {
    /// Its place in the queue.
    pub seq: i64,
    /// Its id.
    pub id: String,
    /// The message.
    pub body: Vec<u8>,
    /// The number of the attempt, from 1.
    pub attempts: i64,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: i64,
    /// Since when its attempts count.
    pub since_ms: i64,
}

/// Asks for leases of the events of a trigger.
#[derive(Debug)]
pub struct LeaseRequest<'a> {
    /// The trigger.
    pub trigger: &'a TriggerKey,
    /// At most so many.
    pub count: usize,
    /// How long they are leased.
    pub time: Duration,
}

/// What there is for a trigger.
#[derive(Debug, Default, PartialEq)]
pub struct Leased {
    /// Events to deliver now.
    pub leases: Vec<Lease>,
    /// When the next one is due, where fewer are leased than were asked for.
    pub next_due_ms: Option<i64>,
}

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum Fate {
    /// The event was delivered.
    Processed,
    /// It is tried again at this time.
    Retried {
        /// In milliseconds since 1970.
        due_ms: i64,
    },
    /// It is a dead letter.
    Failed,
}

/// An attempt that ended.
#[derive(Debug)]
pub struct EndedAttempt {
    /// The event, and the attempt.
    pub lease: Lease,
    /// What became of it.
    pub fate: Fate,
    /// Status of the answer, where there was one.
    pub code: Option<u16>,
    /// The beginning of the answer, or what went wrong.
    pub last: String,
}

impl Queue {
    /// Leases events that are due, until their messages have so many bytes. Of those with the same order key only the first
    /// that is not finished is, and none while another is being delivered.
    pub async fn lease(
        &self,
        requests: &[LeaseRequest<'_>],
        mut bytes: usize,
        now_ms: i64,
    ) -> Result<Vec<Leased>, QueueError> {
        let mut transaction = self.write().await?;
        let mut all = Vec::with_capacity(requests.len());
        for request in requests {
            let leased = self.lease_of(&mut transaction, request, bytes, now_ms).await?;
            bytes = bytes.saturating_sub(leased.leases.iter().map(|lease| lease.body.len()).sum());
            all.push(leased);
        }
        transaction.commit().await?;
        Ok(all)
    }

    async fn lease_of(
        &self,
        transaction: &mut Transaction<'_, Sqlite>,
        LeaseRequest { trigger, count, time }: &LeaseRequest<'_>,
        bytes: usize,
        now_ms: i64,
    ) -> Result<Leased, QueueError> {
        let count = i64::try_from(*count).unwrap_or(i64::MAX);
        let mut leases: Vec<Lease> = sqlx::query_as(
            "UPDATE events SET status = 'running', attempts = attempts + 1, lease_owner = ?1, lease_until_ms = ?2 \
             WHERE seq IN (SELECT seq FROM (SELECT seq, sum(bytes) OVER (ORDER BY due_ms, seq) - bytes AS before \
                 FROM (SELECT e.seq, e.due_ms, length(e.body) AS bytes FROM events e WHERE e.status = 'pending' \
                     AND e.project = ?3 AND e.trigger_id = ?4 AND e.due_ms <= ?5 \
                     AND (e.order_key IS NULL OR NOT EXISTS (SELECT 1 FROM events o WHERE o.project = ?3 \
                         AND o.trigger_id = ?4 AND o.order_key = e.order_key AND o.order_key IS NOT NULL \
                         AND o.status IN ('pending', 'running') AND o.seq < e.seq) \
                         AND NOT EXISTS (SELECT 1 FROM events o INDEXED BY events_leased WHERE o.status = 'running' \
                         AND o.project = ?3 AND o.trigger_id = ?4 AND o.order_key = e.order_key)) \
                     ORDER BY e.due_ms, e.seq LIMIT ?6)) WHERE before < ?7) \
             RETURNING seq, id, body, attempts, created_ms, since_ms",
        )
        .bind(self.owner)
        .bind(now_ms.saturating_add(i64::try_from(time.as_millis()).unwrap_or(i64::MAX)))
        .bind(&*trigger.project)
        .bind(&*trigger.id)
        .bind(now_ms)
        .bind(count)
        .bind(i64::try_from(bytes).unwrap_or(i64::MAX))
        .fetch_all(&mut **transaction)
        .await?;
        leases.sort_by_key(|lease| lease.seq);
        let next_due_ms = match (leases.len() as i64) < count {
            true => {
                sqlx::query_scalar(
                    "SELECT min(due_ms) FROM events WHERE status = 'pending' AND project = ?1 AND trigger_id = ?2 \
                     AND due_ms > ?3",
                )
                .bind(&*trigger.project)
                .bind(&*trigger.id)
                .bind(now_ms)
                .fetch_one(&mut **transaction)
                .await?
            }
            false => None,
        };
        Ok(Leased { leases, next_due_ms })
    }

    /// Writes what became of attempts; how many of them had their leases still.
    pub async fn end(&self, attempts: &[EndedAttempt], now_ms: i64) -> Result<u64, QueueError> {
        let mut transaction = self.write().await?;
        let mut written = 0;
        for EndedAttempt { lease, fate, code, last } in attempts {
            let (status, due_ms, finished_ms) = match fate {
                Fate::Processed => ("processed", None, Some(now_ms)),
                Fate::Retried { due_ms } => ("pending", Some(*due_ms), None),
                Fate::Failed => ("failed", None, Some(now_ms)),
            };
            let ended = sqlx::query(
                "UPDATE events SET status = ?1, due_ms = coalesce(?2, due_ms), finished_ms = ?3, code = ?4, last = ?5, \
                 lease_owner = NULL, lease_until_ms = NULL \
                 WHERE seq = ?6 AND status = 'running' AND lease_owner = ?7 AND attempts = ?8",
            )
            .bind(status)
            .bind(due_ms)
            .bind(finished_ms)
            .bind(code.map(i64::from))
            .bind(last)
            .bind(lease.seq)
            .bind(self.owner)
            .bind(lease.attempts)
            .execute(&mut *transaction)
            .await?;
            written += ended.rows_affected();
        }
        transaction.commit().await?;
        Ok(written)
    }

    /// Gives up the leases of this process: what it began is begun again by the next.
    pub async fn release(&self) -> Result<(), QueueError> {
        sqlx::query(
            "UPDATE events SET status = 'pending', lease_owner = NULL, lease_until_ms = NULL \
             WHERE status = 'running' AND lease_owner = ?1",
        )
        .bind(self.owner)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Makes events due whose leases are over, except those that are `running` all the same: the clock may have been set.
    pub async fn expire(&self, now_ms: i64, running: &HashSet<i64>) -> Result<u64, QueueError> {
        let mut transaction = self.write().await?;
        let over: Vec<i64> =
            sqlx::query_scalar("SELECT seq FROM events WHERE status = 'running' AND lease_until_ms < ?1")
                .bind(now_ms)
                .fetch_all(&mut *transaction)
                .await?;
        let mut expired = 0;
        for seq in over.into_iter().filter(|seq| !running.contains(seq)) {
            let done = sqlx::query(
                "UPDATE events SET status = 'pending', lease_owner = NULL, lease_until_ms = NULL WHERE seq = ?1",
            );
            expired += done.bind(seq).execute(&mut *transaction).await?.rows_affected();
        }
        transaction.commit().await?;
        Ok(expired)
    }

    /// Makes events that are due later than `now_ms` due earlier by a step of the clock.
    pub async fn set_back(&self, step_ms: i64, now_ms: i64) -> Result<(), QueueError> {
        sqlx::query("UPDATE events SET due_ms = due_ms - ?1 WHERE status = 'pending' AND due_ms > ?2")
            .bind(step_ms)
            .bind(now_ms)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Makes events dead letters that have been due since before a time, and the oldest where more than `max` of a trigger
    /// wait; how many.
    pub async fn give_up(&self, max: i64, before_ms: i64, now_ms: i64) -> Result<u64, QueueError> {
        let mut transaction = self.write().await?;
        let waiting: Vec<(String, String, i64)> = sqlx::query_as(
            "SELECT project, trigger_id, count(*) FROM events WHERE status = 'pending' GROUP BY project, trigger_id",
        )
        .fetch_all(&mut *transaction)
        .await?;
        let mut given_up = 0;
        for (project, id, count) in waiting {
            let done = sqlx::query(
                "UPDATE events SET status = 'failed', finished_ms = ?1, last = 'it waited for too long' \
                 WHERE seq IN (SELECT seq FROM events WHERE status = 'pending' AND project = ?2 AND trigger_id = ?3 \
                     AND due_ms < ?4 UNION ALL SELECT seq FROM (SELECT seq FROM events WHERE status = 'pending' \
                     AND project = ?2 AND trigger_id = ?3 ORDER BY due_ms, seq LIMIT ?5))",
            )
            .bind(now_ms)
            .bind(project)
            .bind(id)
            .bind(before_ms)
            .bind((count - max).max(0))
            .execute(&mut *transaction)
            .await?;
            given_up += done.rows_affected();
        }
        transaction.commit().await?;
        Ok(given_up)
    }

    /// Makes events of triggers that are not `known` dead letters; how many.
    pub async fn fail_others(&self, known: &HashSet<TriggerKey>, now_ms: i64) -> Result<u64, QueueError> {
        let mut transaction = self.write().await?;
        let waiting: Vec<(String, String)> =
            sqlx::query_as("SELECT DISTINCT project, trigger_id FROM events WHERE status = 'pending'")
                .fetch_all(&mut *transaction)
                .await?;
        let mut failed = 0;
        for (project, id) in waiting {
            if known.contains(&TriggerKey { project: project.as_str().into(), id: id.as_str().into() }) {
                continue;
            }
            let done = sqlx::query(
                "UPDATE events SET status = 'failed', finished_ms = ?1, last = 'trigger not found' \
                 WHERE status = 'pending' AND project = ?2 AND trigger_id = ?3",
            )
            .bind(now_ms)
            .bind(project)
            .bind(id)
            .execute(&mut *transaction)
            .await?;
            failed += done.rows_affected();
        }
        transaction.commit().await?;
        Ok(failed)
    }

    /// Removes events of a status that were finished before a time, or before the last million; a batch of each, and whether
    /// there may be more.
    pub async fn prune(&self, status: &'static str, before_ms: i64) -> Result<bool, QueueError> {
        let old = sqlx::query(
            "DELETE FROM events WHERE seq IN (SELECT seq FROM events WHERE status = ?1 AND finished_ms IS NOT NULL \
             AND finished_ms < ?2 LIMIT ?3)",
        );
        let old = old.bind(status).bind(before_ms).bind(PRUNE_BATCH).execute(&self.pool).await?.rows_affected();
        let many = sqlx::query(
            "DELETE FROM events WHERE seq IN (SELECT seq FROM events WHERE status = ?1 \
             AND seq <= (SELECT max(seq) FROM events) - ?2 LIMIT ?3)",
        );
        let many = many.bind(status).bind(EVENTS_MAX).bind(PRUNE_BATCH).execute(&self.pool).await?.rows_affected();
        Ok(old.max(many) == PRUNE_BATCH.cast_unsigned())
    }

    /// Events that wait.
    pub async fn pending(&self) -> Result<i64, QueueError> {
        Ok(sqlx::query_scalar("SELECT count(*) FROM events WHERE status = 'pending'").fetch_one(&self.pool).await?)
    }
}
