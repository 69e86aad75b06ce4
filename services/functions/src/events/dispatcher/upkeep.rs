//! Upkeep: leases that are over, events that are old or of triggers that are gone, clocks that are set.

use std::{collections::HashSet, time::Duration};

use tokio::time::Instant;

use super::{Dispatcher, QUEUE, UPKEEP_INTERVAL};
use crate::events::queue::{
    QueueError, TriggerKey,
    upkeep::{RunningLease, WaitingBounds},
};

/// How long no node has a trigger in force before its events are dead letters: nodes learn of triggers one after the other.
const SERVED_TIME: Duration = Duration::from_secs(60);
/// How long events are kept that were delivered, and those that were not.
const PROCESSED_AGE: Duration = Duration::from_secs(7 * 86_400);
const FAILED_AGE: Duration = Duration::from_secs(30 * 86_400);
/// Batches of them that are removed at once, so that deliveries go on.
const PRUNE_BATCHES: usize = 100;
/// Events of a trigger that may wait, and bytes of their messages.
const WAITING_MAX: i64 = 1_000_000;
const WAITING_BYTES: i64 = 8 << 30;

/// A part of the upkeep of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upkeep {
    /// The clock, and what its steps change.
    Clock,
    /// Leases that are over.
    Leases,
    /// Old events that were delivered.
    Processed,
    /// Old dead letters.
    Failed,
    /// Old names of requests.
    Requests,
    /// Events of triggers that are gone.
    Others,
    /// Events that wait for too long, or are too many.
    Waiting,
}

impl Upkeep {
    /// Each of them.
    pub const ALL: [Self; 7] =
        [Self::Clock, Self::Leases, Self::Processed, Self::Failed, Self::Requests, Self::Others, Self::Waiting];
}

impl Dispatcher {
    /// Makes events of triggers that no node has in force dead letters.
    pub(super) async fn fail_others(&mut self, known: &HashSet<TriggerKey>) -> Result<(), QueueError> {
        let is_shared = self.queue.is_shared();
        if is_shared {
            self.queue.serve(known).await?;
        }
        let waiting = self.queue.waiting().await?;
        let (now, now_ms) = (Instant::now(), self.queue.now_ms());
        self.served.see(waiting.iter().cloned(), now);
        let mut failed = 0;
        for (trigger, _) in waiting.iter().filter(|(trigger, _)| !known.contains(trigger)) {
            if !is_shared || self.served.unchanged(trigger, now) >= SERVED_TIME {
                failed += self.queue.fail_trigger(trigger, now_ms).await?;
            }
        }
        if failed > 0 {
            tracing::warn!(failed, "events of triggers that are gone are dead letters now");
        }
        Ok(())
    }

    /// Makes events due whose leases are over: those of other processes that were seen for long enough, and those of this one
    /// of which it knows nothing.
    pub(super) async fn expire(&mut self, now: Instant) -> Result<(), QueueError> {
        if !self.ended.is_empty() {
            return Ok(());
        }
        let leases = self.queue.running().await?;
        self.leases.see(leases.iter().map(|lease| (lease.seq, (lease.lease_owner, lease.attempts))), now);
        let is_over = |lease: &RunningLease| match self.queue.is_own(lease) {
            true => !self.running.contains(&lease.seq),
            false => {
                let time = Duration::from_millis(u64::try_from(lease.lease_ms).unwrap_or_default());
                self.leases.unchanged(&lease.seq, now) >= time
            }
        };
        let over: Vec<RunningLease> = leases.into_iter().filter(is_over).collect();
        let expired = self.queue.expire(&over).await?;
        if expired > 0 {
            tracing::warn!(expired, "leases of events ended before their deliveries");
        }
        Ok(())
    }

    /// Each part of the upkeep, also where another one fails. What fails takes long where the server is away: past its time the
    /// rest waits for the next round, which begins there.
    pub(super) async fn upkeep(&mut self) {
        let (begun, mut failures) = (Instant::now(), Vec::new());
        for _ in Upkeep::ALL {
            let part = Upkeep::ALL[self.next_upkeep];
            self.next_upkeep = (self.next_upkeep + 1) % Upkeep::ALL.len();
            failures.extend(self.keep_up(part).await.err());
            if !failures.is_empty() && begun.elapsed() >= UPKEEP_INTERVAL {
                break;
            }
        }
        failures.iter().for_each(|error| self.failed(error));
        if failures.is_empty() {
            self.health.set(QUEUE, None);
        }
    }

    async fn keep_up(&mut self, part: Upkeep) -> Result<(), QueueError> {
        let now_ms = self.queue.now_ms();
        let before = |age: Duration| now_ms.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
        match part {
            Upkeep::Clock => {
                self.queue.set_clock().await?;
                let step_ms = self.queue.follow_clock(self.queue.now_ms()).await?;
                if step_ms > 0 {
                    tracing::warn!(step_ms, "the clock was set back");
                }
            }
            Upkeep::Leases => self.expire(Instant::now()).await?,
            Upkeep::Processed => self.prune("processed", before(PROCESSED_AGE)).await?,
            Upkeep::Requests => {
                for _ in 0..PRUNE_BATCHES {
                    if !self.queue.forget_requests(now_ms).await? {
                        break;
                    }
                }
                self.queue.count_requests().await?;
            }
            Upkeep::Failed => self.prune("failed", before(FAILED_AGE)).await?,
            // Events of a trigger that is gone may have come after that.
            Upkeep::Others => self.fail_others(&self.registry.now().keys()).await?,
            Upkeep::Waiting => {
                let bounds = WaitingBounds { events: WAITING_MAX, bytes: WAITING_BYTES, due_ms: before(FAILED_AGE) };
                let given_up = self.queue.give_up(bounds, now_ms).await?;
                if given_up > 0 {
                    tracing::error!(given_up, "events waited for too long or were too many, and are dead letters now");
                }
                self.meters.pending.set(self.queue.pending().await?);
            }
        }
        Ok(())
    }

    async fn prune(&self, status: &'static str, before_ms: i64) -> Result<(), QueueError> {
        for _ in 0..PRUNE_BATCHES {
            if !self.queue.prune(status, before_ms).await? {
                break;
            }
        }
        Ok(())
    }
}
