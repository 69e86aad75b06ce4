//! Dispatcher: delivers the events that are due, a few of each trigger at once, and writes what became of them.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use mesh::telemetry::EventMeters;
use query::trigger::Trigger;
use tokio::{
    task::{JoinError, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    attempt::{self, Answer, Message, Verdict},
    backoff,
    endpoint::Endpoint,
    health::EventHealth,
    queue::{
        Queue, QueueError, TriggerKey,
        delivery::{EndedAttempt, Fate, Lease, LeaseRequest, Leased},
        observer::Observer,
        upkeep::{RunningLease, WaitingBounds},
    },
    registry::{Registry, Triggers},
};
use crate::client::Client;

/// How long a lease goes on after the time of its attempt, and within which of it the attempt begins or does not.
const LEASE_MARGIN: Duration = Duration::from_secs(10);
const BEGIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long no node has a trigger in force before its events are dead letters: nodes learn of triggers one after the other.
const SERVED_TIME: Duration = Duration::from_secs(60);
/// How often all queues are looked at: a command may have changed them.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How often leases that are over are looked for, old events are removed, and those that wait are counted.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(10);
/// How long events are kept that were delivered, and those that were not.
const PROCESSED_AGE: Duration = Duration::from_secs(7 * 86_400);
const FAILED_AGE: Duration = Duration::from_secs(30 * 86_400);
/// Batches of them that are removed at once, so that deliveries go on.
const PRUNE_BATCHES: usize = 100;
/// Deliveries of all triggers at once.
const DELIVERIES_MAX: usize = 512;
/// Bytes of the messages of all triggers at once, over which the last one may be.
const DELIVERIES_BYTES: usize = 64 << 20;
/// Events of a trigger that may wait, and bytes of their messages.
const WAITING_MAX: i64 = 1_000_000;
const WAITING_BYTES: i64 = 8 << 30;
/// How long deliveries that run may take when the node stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Wait before an attempt that could not begin in time, in milliseconds.
const LATE_WAIT_MS: i64 = 500;
/// Wait before what failed in the queue is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Delivers events.
pub struct Dispatcher {
    queue: Queue,
    registry: Registry,
    client: Client,
    health: EventHealth,
    meters: EventMeters,
    endpoints: HashMap<TriggerKey, Endpoint>,
    /// Tasks of their own: the time of an attempt passes while the queue is waited for.
    deliveries: JoinSet<Delivery>,
    /// The events of the deliveries that run, and the bytes of their messages.
    running: HashSet<i64>,
    bytes: usize,
    /// What is still to be written.
    ended: Vec<EndedAttempt>,
    /// Leases by the places of their events, as they were seen.
    leases: Observer<i64, (i64, i64)>,
    /// Triggers of which events wait, as nodes were seen to have them.
    served: Observer<TriggerKey, i64>,
}

/// A delivery that ended.
struct Delivery {
    trigger: TriggerKey,
    spec: Arc<Trigger>,
    lease: Lease,
    bytes: usize,
    answer: Answer,
}

impl Dispatcher {
    /// A dispatcher that has delivered nothing yet.
    pub fn new(queue: Queue, registry: Registry, client: Client, health: EventHealth, meters: EventMeters) -> Self {
        Self {
            queue,
            registry,
            client,
            health,
            meters,
            endpoints: HashMap::new(),
            deliveries: JoinSet::new(),
            running: HashSet::new(),
            bytes: 0,
            ended: Vec::new(),
            leases: Observer::default(),
            served: Observer::default(),
        }
    }

    /// Delivers until `stop` fires, then waits a while for what runs.
    pub async fn run(mut self, stop: CancellationToken) {
        let (mut looks, mut upkeep) = (tokio::time::interval(LOOK_INTERVAL), tokio::time::interval(UPKEEP_INTERVAL));
        self.triggers_changed().await;
        while !stop.is_cancelled() {
            self.write_ended().await;
            self.begin_due().await;
            let next_look = self.endpoints.values().filter_map(|endpoint| endpoint.next_look).min();
            let is_written = self.ended.is_empty();
            tokio::select! {
                () = stop.cancelled() => {}
                Some(delivery) = self.deliveries.join_next() => self.take(delivery),
                () = self.queue.arrival() => self.look_at_arrivals(),
                () = self.registry.changed() => self.triggers_changed().await,
                () = until(next_look), if is_written => {}
                () = tokio::time::sleep(RETRY_INTERVAL), if !is_written => {}
                _ = looks.tick() => self.look().await,
                _ = upkeep.tick() => self.upkeep().await,
            }
        }
        Box::pin(self.drain()).await;
    }

    /// Waits for what runs, and gives up what does not end in time: the next process begins it again.
    async fn drain(mut self) {
        let until = Instant::now() + DRAIN_TIMEOUT;
        while let Ok(Some(delivery)) = tokio::time::timeout_at(until, self.deliveries.join_next()).await {
            self.take(delivery);
            self.write_ended().await;
        }
        // What is given up is not under way any more.
        self.deliveries.shutdown().await;
        if let Err(error) = self.queue.release().await {
            tracing::warn!(cause = ?error, "{error}");
        }
    }

    /// Takes what deliveries came to, of all that have ended.
    fn take(&mut self, first: Result<Delivery, JoinError>) {
        let mut next = Some(first);
        while let Some(delivery) = next {
            match delivery {
                Ok(delivery) => self.ended(delivery),
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
            next = self.deliveries.try_join_next();
        }
    }

    fn ended(&mut self, Delivery { trigger, spec, lease, bytes, answer }: Delivery) {
        self.running.remove(&lease.seq);
        self.bytes = self.bytes.saturating_sub(bytes);
        let now = Instant::now();
        let is_delivered = answer.verdict == Verdict::Delivered;
        let endpoint = self.endpoints.entry(trigger.clone()).or_default();
        let has_turned = match answer.verdict {
            Verdict::Late => endpoint.give_back(),
            _ => endpoint.end(is_delivered, now),
        };
        let paused = endpoint.paused_until().map(|until| until.saturating_duration_since(now));
        // There may be more of it, or one that waited for this one.
        endpoint.look_at(now);
        if has_turned {
            let part = format!("endpoint of trigger {}/{}", trigger.project, trigger.id);
            let why = paused.map(|_| paused_by(&answer));
            match &why {
                Some(why) => tracing::warn!(part, why, "endpoint is paused"),
                None => tracing::info!(part, "endpoint is not paused any more"),
            }
            self.health.set(&part, why);
        }
        let now_ms = self.queue.now_ms();
        let fate = fate(&spec, &lease, &answer.verdict, now_ms);
        self.meters.delivered(match fate {
            Fate::Processed => "delivered",
            Fate::Retried { .. } => "retried",
            Fate::Failed => "dead",
        });
        if fate == Fate::Processed {
            let age = u64::try_from(now_ms.saturating_sub(lease.created_ms)).unwrap_or_default();
            self.meters.seconds.observe(Duration::from_millis(age).as_secs_f64());
        }
        if let (Fate::Retried { due_ms }, Some(at)) = (&fate, self.endpoints.get_mut(&trigger)) {
            at.look_at(now + Duration::from_millis(u64::try_from(due_ms - now_ms).unwrap_or_default()));
        }
        self.ended.push(EndedAttempt { trigger, lease, fate, code: answer.code, last: answer.text });
    }

    /// Writes what became of attempts. Where that fails it is kept, and nothing is begun meanwhile.
    async fn write_ended(&mut self) {
        if self.ended.is_empty() {
            return;
        }
        match self.queue.end(&self.ended, self.queue.now_ms()).await {
            Ok(_) => self.ended.clear(),
            Err(error) => self.failed(&error),
        }
        if self.ended.is_empty() {
            self.health.set(QUEUE, None);
        }
    }

    /// Begins what is due, as far as the triggers may have more at once.
    async fn begin_due(&mut self) {
        let (now, triggers) = (Instant::now(), self.registry.now());
        let free_bytes = DELIVERIES_BYTES.saturating_sub(self.bytes);
        let free_of_all = DELIVERIES_MAX.saturating_sub(self.deliveries.len());
        let mut free_of_all = if free_bytes == 0 { 0 } else { free_of_all };
        let mut wanted = Vec::new();
        for (key, endpoint) in &mut self.endpoints {
            let free = endpoint.free(now).min(free_of_all);
            let is_due = endpoint.next_look.is_some_and(|next| next <= now);
            if let Some(spec) = triggers.get(key).filter(|_| is_due && self.ended.is_empty()) {
                endpoint.next_look = None;
                if free > 0 {
                    free_of_all -= free;
                    wanted.push((key.clone(), spec.clone(), (free, endpoint.paused_until().is_some())));
                } else if free_of_all == 0 {
                    endpoint.next_look = Some(now + RETRY_INTERVAL);
                }
            }
        }
        if wanted.is_empty() {
            return;
        }
        let requests: Vec<LeaseRequest<'_>> = wanted
            .iter()
            .map(|(trigger, spec, (count, is_probe))| {
                let time = spec.timeout() + LEASE_MARGIN;
                LeaseRequest { trigger, count: *count, time, is_probe: *is_probe }
            })
            .collect();
        let now_ms = self.queue.now_ms();
        match self.queue.lease(&requests, free_bytes, now_ms).await {
            Ok(all) => {
                drop(requests);
                for ((trigger, spec, (free, _)), leased) in wanted.into_iter().zip(all) {
                    self.begin(trigger, &spec, free, (leased, now));
                }
            }
            Err(error) => {
                for (trigger, _, _) in &wanted {
                    if let Some(endpoint) = self.endpoints.get_mut(trigger) {
                        endpoint.look_at(now + RETRY_INTERVAL);
                    }
                }
                self.failed(&error);
            }
        }
    }

    fn begin(&mut self, trigger: TriggerKey, spec: &Arc<Trigger>, free: usize, (leased, at): (Leased, Instant)) {
        let Leased { leases, next_due_ms } = leased;
        let now_ms = self.queue.now_ms();
        let Some(endpoint) = self.endpoints.get_mut(&trigger) else { return };
        endpoint.begin(leases.len());
        // Where all that was free is taken, the next that ends looks again.
        if let Some(due_ms) = next_due_ms.filter(|_| leases.len() < free) {
            let wait = Duration::from_millis(u64::try_from(due_ms.saturating_sub(now_ms)).unwrap_or_default());
            endpoint.look_at(Instant::now() + wait.min(LOOK_INTERVAL));
        }
        for lease in leases {
            let bytes = lease.body.len();
            self.running.insert(lease.seq);
            self.bytes += bytes;
            let (client, spec, trigger) = (self.client.clone(), spec.clone(), trigger.clone());
            self.deliveries.spawn(async move {
                let attempt = u32::try_from(lease.attempts).unwrap_or(u32::MAX);
                let mut lease = lease;
                let message = Message { id: lease.id.clone(), attempt, body: std::mem::take(&mut lease.body) };
                let answer = match at.elapsed() < BEGIN_TIMEOUT {
                    true => Box::pin(attempt::attempt(&client, &spec, message)).await,
                    // Another node may have it soon.
                    false => Answer::late(),
                };
                Delivery { trigger, spec, lease, bytes, answer }
            });
        }
    }

    fn look_at_arrivals(&mut self) {
        let (now, triggers) = (Instant::now(), self.registry.now());
        // Other nodes, and whoever may write to the database, tell of any.
        for trigger in self.queue.arrivals().into_iter().filter(|trigger| triggers.get(trigger).is_some()) {
            self.endpoints.entry(trigger).or_default().look_at(now);
        }
    }

    /// Looks at all queues, and at the leases of other nodes.
    async fn look(&mut self) {
        let now = Instant::now();
        self.endpoints.values_mut().for_each(|endpoint| endpoint.look_at(now));
        if self.queue.is_shared() {
            let looked = async {
                self.queue.set_clock().await?;
                self.expire(now).await
            };
            if let Err(error) = looked.await {
                self.failed(&error);
            }
        }
    }

    /// Others are in force: those that are gone have no events any more.
    async fn triggers_changed(&mut self) {
        let triggers: Arc<Triggers> = self.registry.now();
        let known = triggers.keys();
        let health = &self.health;
        self.endpoints.retain(|key, endpoint| {
            let stays = known.contains(key) || !endpoint.is_idle();
            if !known.contains(key) {
                health.set(&format!("endpoint of trigger {}/{}", key.project, key.id), None);
                health.set(&format!("trigger {}/{}", key.project, key.id), None);
            }
            stays
        });
        for key in &known {
            self.endpoints.entry(key.clone()).or_default().look_at(Instant::now());
        }
        if let Err(error) = self.fail_others(&known).await {
            self.failed(&error);
        }
    }

    /// Makes events of triggers that no node has in force dead letters.
    async fn fail_others(&mut self, known: &HashSet<TriggerKey>) -> Result<(), QueueError> {
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
    async fn expire(&mut self, now: Instant) -> Result<(), QueueError> {
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

    async fn upkeep(&mut self) {
        if let Err(error) = self.keep_up().await {
            self.failed(&error);
        }
    }

    async fn keep_up(&mut self) -> Result<(), QueueError> {
        self.queue.set_clock().await?;
        let now_ms = self.queue.now_ms();
        let step_ms = self.queue.follow_clock(now_ms).await?;
        if step_ms > 0 {
            tracing::warn!(step_ms, "the clock was set back");
        }
        self.expire(Instant::now()).await?;
        let before = |age: Duration| now_ms.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
        for (status, age) in [("processed", PROCESSED_AGE), ("failed", FAILED_AGE)] {
            for _ in 0..PRUNE_BATCHES {
                if !self.queue.prune(status, before(age)).await? {
                    break;
                }
            }
        }
        // Events of a trigger that is gone may have come after that.
        self.fail_others(&self.registry.now().keys()).await?;
        let bounds = WaitingBounds { events: WAITING_MAX, bytes: WAITING_BYTES, due_ms: before(FAILED_AGE) };
        let given_up = self.queue.give_up(bounds, now_ms).await?;
        if given_up > 0 {
            tracing::error!(given_up, "events waited for too long or were too many, and are dead letters now");
        }
        self.meters.pending.set(self.queue.pending().await?);
        self.health.set(QUEUE, None);
        Ok(())
    }

    fn failed(&self, error: &QueueError) {
        if self.health.set(QUEUE, Some(error.to_string())) {
            tracing::error!(cause = ?error, "{error}");
        }
    }
}

/// The queue, as `/ready` names it.
pub const QUEUE: &str = "queue of events";

/// Why an endpoint is paused, for `/ready`: nothing of what it answered, which is for operators only.
fn paused_by(answer: &Answer) -> String {
    let last = answer.code.map_or_else(|| "without an answer".to_owned(), |code| format!("with status {code}"));
    format!("paused after failures in a row, the last {last}")
}

/// What becomes of an event after an attempt.
fn fate(spec: &Trigger, lease: &Lease, verdict: &Verdict, now_ms: i64) -> Fate {
    let retry_after = match verdict {
        Verdict::Delivered => return Fate::Processed,
        Verdict::Gone => return Fate::Failed,
        Verdict::Late => return Fate::Retried { due_ms: now_ms.saturating_add(LATE_WAIT_MS) },
        Verdict::Failed { retry_after } => *retry_after,
    };
    let attempt = u32::try_from(lease.attempts).unwrap_or(u32::MAX);
    let wait = backoff::wait(&spec.retries, attempt, rand::random(), retry_after);
    let due_ms = now_ms.saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX));
    let age = Duration::from_millis(u64::try_from(due_ms.saturating_sub(lease.since_ms)).unwrap_or_default());
    match backoff::is_retried(&spec.retries, attempt, age) {
        true => Fate::Retried { due_ms },
        false => Fate::Failed,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_an_endpoint_answers_is_not_told_by_health() {
        let answer = |code| {
            paused_by(&Answer { verdict: Verdict::Failed { retry_after: None }, code, text: "hidden".to_owned() })
        };
        assert_eq!(answer(Some(500)), "paused after failures in a row, the last with status 500");
        assert_eq!(answer(None), "paused after failures in a row, the last without an answer");
    }

    #[test]
    fn an_attempt_decides_what_becomes_of_an_event() {
        let spec = json!({"on": {"database": "d", "table": "t"}, "to": {"url": "http://a"}, "retries": {"max": 2, "for": 100, "first": 4}});
        let spec: Trigger = serde_json::from_value(spec).unwrap();
        let lease = |attempts, since_ms| {
            let (id, body) = ("evt".to_owned(), Vec::new());
            Lease { seq: 1, id, body, attempts, created_ms: 0, since_ms, order_key: None }
        };
        let failed = |seconds: Option<u64>| Verdict::Failed { retry_after: seconds.map(Duration::from_secs) };
        assert_eq!(fate(&spec, &lease(9, 0), &Verdict::Delivered, 1), Fate::Processed);
        assert_eq!(fate(&spec, &lease(1, 0), &Verdict::Gone, 1), Fate::Failed);
        let Fate::Retried { due_ms } = fate(&spec, &lease(1, 0), &failed(None), 1000) else {
            panic!("it is tried again")
        };
        assert!((4000..=6000).contains(&due_ms), "{due_ms}");
        assert_eq!(
            fate(&spec, &lease(99, 0), &Verdict::Late, 1_000_000),
            Fate::Retried { due_ms: 1_000_000 + LATE_WAIT_MS },
            "what was not sent is no dead letter"
        );
        assert_eq!(fate(&spec, &lease(1, 0), &failed(Some(60)), 1000), Fate::Retried { due_ms: 61_000 });
        assert_eq!(fate(&spec, &lease(1, 0), &failed(Some(100)), 1000), Fate::Failed, "it would be too late");
        assert_eq!(fate(&spec, &lease(3, 0), &failed(None), 1000), Fate::Failed, "it was tried often enough");
        assert!(
            matches!(fate(&spec, &lease(2, 90_000), &failed(None), 100_000), Fate::Retried { .. }),
            "it was replayed"
        );
    }
}
