//! What delivery does with the queue: it leases events that are due, and writes what became of them.

use std::{collections::HashSet, time::Duration};

use bytes::Bytes;

use super::{
    NewEvent, Queue, QueueError, TriggerKey, chunks, order,
    store::{Parameter, Statement, StoreTransaction},
};

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
    /// Since when its attempts count, in milliseconds since 1970: when it was made, replayed, or due first.
    pub since_ms: i64,
    /// What it is ordered by, where it is.
    pub order_key: Option<Vec<u8>>,
    /// How many events may follow from it.
    pub budget: i64,
    /// 1 where somebody waits for its answer.
    pub awaited: i64,
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
    /// Whether they are drawn by lot, rather than those that are due longest: what was due longest when an endpoint was paused are
    /// those that it takes least.
    pub is_probe: bool,
}

/// Events that are due longest, of which a probe is drawn.
const PROBED_MAX: usize = 1000;

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
    /// The event's trigger.
    pub trigger: TriggerKey,
    /// The event, and the attempt.
    pub lease: Lease,
    /// What became of it.
    pub fate: Fate,
    /// Status of the answer, where there was one.
    pub code: Option<u16>,
    /// The beginning of the answer, or what went wrong.
    pub last: String,
    /// What whoever waits for the event gets, JSON.
    pub response: Option<Bytes>,
    /// Events that follow, durable with what became of this one.
    pub follows: Vec<NewEvent>,
}

/// What was written of attempts that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrittenEnds {
    /// Attempts that had their leases still.
    pub attempts: u64,
    /// Events that follow from them.
    pub follows: u64,
}

impl Queue {
    /// Leases events that are due, until their messages have so many bytes. Of those with the same order key only one that
    /// is not blocked is.
    pub async fn lease(
        &self,
        requests: &[LeaseRequest<'_>],
        mut bytes: usize,
        now_ms: i64,
    ) -> Result<Vec<Leased>, QueueError> {
        let mut transaction = self.store.begin().await?;
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
        transaction: &mut StoreTransaction,
        LeaseRequest { trigger, count, time, is_probe }: &LeaseRequest<'_>,
        bytes: usize,
        now_ms: i64,
    ) -> Result<Leased, QueueError> {
        let count = i64::try_from(*count).unwrap_or(i64::MAX);
        let (due, looked_at) = match is_probe {
            true => ("probed", i64::try_from(PROBED_MAX).unwrap_or(i64::MAX)),
            false => ("due", count),
        };
        let lease = Statement::new("WITH ")
            .push(due)
            .push(
                " AS MATERIALIZED (SELECT seq, due_ms, bytes FROM events WHERE status = 'pending' \
                 AND blocked = 0 AND project = ",
            )
            .bind(&*trigger.project)
            .push(" AND trigger_id = ")
            .bind(&*trigger.id)
            .push(" AND due_ms <= ")
            .bind(now_ms)
            .push(" ORDER BY due_ms, seq LIMIT ")
            .bind(looked_at)
            .push(self.store.skip_locked());
        let lease = match is_probe {
            true => lease
                .push("), due AS MATERIALIZED (SELECT seq, due_ms, bytes FROM probed ORDER BY random() LIMIT ")
                .bind(count),
            false => lease,
        };
        let lease = lease.push(
            "), placed AS MATERIALIZED (SELECT seq, sum(bytes) OVER (ORDER BY due_ms, seq) - bytes AS before FROM due) \
             UPDATE events SET status = 'running', attempts = attempts + 1, since_ms = CASE WHEN attempts = 0 \
             AND due_ms > since_ms THEN due_ms ELSE since_ms END, lease_owner = ",
        )
        .bind(self.owner)
        .push(", lease_ms = ")
        .bind(i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
        .push(" WHERE seq IN (SELECT seq FROM placed WHERE before < ")
        .bind(i64::try_from(bytes).unwrap_or(i64::MAX))
        .push(") RETURNING seq, id, body, attempts, since_ms, order_key, budget, awaited");
        let mut leases: Vec<Lease> = transaction.rows(lease).await?;
        leases.sort_by_key(|lease| lease.seq);
        let next_due_ms = match (leases.len() as i64) < count {
            true => next_due(transaction, trigger, now_ms).await?,
            false => None,
        };
        Ok(Leased { leases, next_due_ms })
    }

    /// Writes what became of attempts that have their leases still, and the events that follow from these.
    pub async fn end(&self, attempts: &[EndedAttempt], now_ms: i64) -> Result<WrittenEnds, QueueError> {
        let mut transaction = self.store.begin().await?;
        let finished = attempts.iter().filter(|attempt| !matches!(attempt.fate, Fate::Retried { .. }));
        let keys =
            order::keys(finished.filter_map(|attempt| Some((&attempt.trigger, attempt.lease.order_key.as_deref()?))));
        if !keys.is_empty() || attempts.iter().flat_map(|attempt| &attempt.follows).any(|next| next.order_key.is_some())
        {
            transaction.lock_order().await?;
        }
        let mut held = HashSet::new();
        for chunk in chunks(attempts) {
            let end = Statement::new(
                "WITH ended(seq, attempts, status, due_ms, finished_ms, code, last, response) AS (VALUES ",
            )
            .rows(chunk.iter().map(|attempt| ended_row(attempt, now_ms)))
            .push(
                ") UPDATE events SET status = ended.status, due_ms = coalesce(ended.due_ms, events.due_ms), \
                 finished_ms = ended.finished_ms, code = ended.code, last = ended.last, \
                 response = ended.response, lease_owner = NULL, \
                 lease_ms = NULL FROM ended WHERE events.seq = ended.seq AND events.status = 'running' \
                 AND events.attempts = ended.attempts AND events.lease_owner = ",
            )
            .bind(self.owner)
            .push(" RETURNING events.seq");
            let rows: Vec<(i64,)> = transaction.rows(end).await?;
            held.extend(rows.into_iter().map(|(seq,)| seq));
        }
        order::unblock(&mut transaction, &keys).await?;
        let of_held = attempts.iter().filter(|attempt| held.contains(&attempt.lease.seq));
        let follows: Vec<NewEvent> = of_held.flat_map(|attempt| attempt.follows.iter().cloned()).collect();
        let added = if follows.is_empty() { 0 } else { self.insert(&mut transaction, &follows, now_ms).await? };
        transaction.commit().await?;
        self.ended.notify_waiters();
        if !follows.is_empty() {
            self.added(&follows, now_ms);
        }
        Ok(WrittenEnds { attempts: held.len() as u64, follows: added })
    }

    /// Gives up what this process has: the next begins again what it began, and follows its tables.
    pub async fn release(&self) -> Result<(), QueueError> {
        let leases = Statement::new(
            "UPDATE events SET status = 'pending', lease_owner = NULL, lease_ms = NULL WHERE status = 'running' \
             AND lease_owner = ",
        );
        self.store.execute(leases.bind(self.owner)).await?;
        let tables = Statement::new("UPDATE followed_tables SET holder = 0 WHERE holder = ").bind(self.owner);
        self.store.execute(tables).await?;
        Ok(())
    }
}

async fn next_due(
    transaction: &mut StoreTransaction,
    trigger: &TriggerKey,
    now_ms: i64,
) -> Result<Option<i64>, QueueError> {
    let next = Statement::new("SELECT due_ms FROM events WHERE status = 'pending' AND blocked = 0 AND project = ")
        .bind(&*trigger.project)
        .push(" AND trigger_id = ")
        .bind(&*trigger.id)
        .push(" AND due_ms > ")
        .bind(now_ms)
        .push(" ORDER BY due_ms LIMIT 1");
    let next: Vec<(i64,)> = transaction.rows(next).await?;
    Ok(next.first().map(|(due_ms,)| *due_ms))
}

fn ended_row(attempt: &EndedAttempt, now_ms: i64) -> [Parameter<'_>; 8] {
    let EndedAttempt { lease, fate, code, last, response, .. } = attempt;
    let (status, due_ms, finished_ms) = match fate {
        Fate::Processed => ("processed", None, Some(now_ms)),
        Fate::Retried { due_ms } => ("pending", Some(*due_ms), None),
        Fate::Failed => ("failed", None, Some(now_ms)),
    };
    [
        lease.seq.into(),
        lease.attempts.into(),
        status.into(),
        due_ms.into(),
        finished_ms.into(),
        code.map(i64::from).into(),
        last.as_str().into(),
        response.as_deref().into(),
    ]
}
