//! Dispatcher: delivers the events that are due, a few of each trigger at once, and writes what became of them.

mod upkeep;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use mesh::telemetry::EventMeters;
use query::trigger::Trigger;
use tokio::{
    task::{JoinError, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    attempt::{self, Answer, Carrier, Message, Verdict},
    endpoint::Endpoint,
    fate::fate,
    followup,
    queue::{
        Queue, QueueError, TriggerKey,
        delivery::{EndedAttempt, Fate, Lease, LeaseRequest, Leased},
        observer::Observer,
    },
    registry::{Registry, Triggers},
};
use crate::health::PartHealth;
/// How long a lease goes on after the time of its attempt, and within which of it the attempt begins or does not.
const LEASE_MARGIN: Duration = Duration::from_secs(10);
const BEGIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How often all queues are looked at: a command may have changed them.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How often leases that are over are looked for, old events are removed, and those that wait are counted.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(10);
/// Deliveries of all triggers at once.
const DELIVERIES_MAX: usize = 512;
/// Bytes of the messages of all triggers at once, over which the last one may be.
const DELIVERIES_BYTES: usize = 64 << 20;
/// How long deliveries that run may take when the node stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Wait before what failed in the queue is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Delivers events.
pub struct Dispatcher {
    queue: Queue,
    registry: Registry,
    carrier: Carrier,
    health: PartHealth,
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
    /// The part of the upkeep that comes next.
    next_upkeep: usize,
}

/// A delivery that ended.
struct Delivery {
    trigger: TriggerKey,
    spec: Arc<Trigger>,
    lease: Lease,
    /// The event.
    message: Bytes,
    answer: Answer,
}

impl Dispatcher {
    /// A dispatcher that has delivered nothing yet.
    pub fn new(queue: Queue, registry: Registry, carrier: Carrier, health: PartHealth, meters: EventMeters) -> Self {
        Self {
            queue,
            registry,
            carrier,
            health,
            meters,
            endpoints: HashMap::new(),
            deliveries: JoinSet::new(),
            running: HashSet::new(),
            bytes: 0,
            ended: Vec::new(),
            leases: Observer::default(),
            served: Observer::default(),
            next_upkeep: 0,
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

    fn ended(&mut self, Delivery { trigger, spec, lease, message, answer }: Delivery) {
        self.running.remove(&lease.seq);
        self.bytes = self.bytes.saturating_sub(message.len());
        let now = Instant::now();
        let is_delivered = answer.verdict == Verdict::Delivered;
        let endpoint = self.endpoints.entry(trigger.clone()).or_default();
        let has_turned = match answer.verdict {
            Verdict::Late | Verdict::Unusable => endpoint.give_back(),
            Verdict::Delivered | Verdict::Failed { .. } | Verdict::Gone => endpoint.end(is_delivered, now),
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
            let age = u64::try_from(now_ms.saturating_sub(lease.since_ms)).unwrap_or_default();
            self.meters.seconds.observe(Duration::from_millis(age).as_secs_f64());
        }
        if let (Fate::Retried { due_ms }, Some(at)) = (&fate, self.endpoints.get_mut(&trigger)) {
            at.look_at(now + Duration::from_millis(u64::try_from(due_ms - now_ms).unwrap_or_default()));
        }
        self.ended.push(self.attempt(trigger, lease, fate, (answer, &message)));
    }

    /// An attempt that ended, with what follows from it.
    fn attempt(
        &self,
        trigger: TriggerKey,
        lease: Lease,
        fate: Fate,
        (answer, message): (Answer, &[u8]),
    ) -> EndedAttempt {
        let Answer { code, text: mut last, response, events, .. } = answer;
        let (triggers, now_ms) = (self.registry.now(), self.queue.now_ms());
        let bounds = (lease.budget, now_ms);
        let follows = match fate {
            Fate::Processed => followup::of_answer(&trigger, events, &triggers, bounds),
            Fate::Failed => Ok(followup::of_dead_letter(&trigger, message, &triggers, bounds)),
            Fate::Retried { .. } => Ok(Vec::new()),
        };
        let follows = follows.unwrap_or_else(|why| {
            last.insert_str(0, &format!("events of the answer are left out: {why}: "));
            tracing::warn!(
                project = &*trigger.project,
                trigger = &*trigger.id,
                why,
                "events of an answer are left out"
            );
            Vec::new()
        });
        let response = response.filter(|_| lease.awaited != 0 && fate == Fate::Processed);
        EndedAttempt { trigger, lease, fate, code, last, response, follows }
    }

    /// Writes what became of attempts. Where that fails it is kept, and nothing is begun meanwhile.
    async fn write_ended(&mut self) {
        if self.ended.is_empty() {
            return;
        }
        match self.queue.end(&self.ended, self.queue.now_ms()).await {
            Ok(written) => {
                self.meters.queued.inc_by(written.follows);
                self.ended.clear();
            }
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
            self.running.insert(lease.seq);
            self.bytes += lease.body.len();
            let (carrier, spec, trigger) = (self.carrier.clone(), spec.clone(), trigger.clone());
            self.deliveries.spawn(async move {
                let attempt = u32::try_from(lease.attempts).unwrap_or(u32::MAX);
                let mut lease = lease;
                let body = Bytes::from(std::mem::take(&mut lease.body));
                let (project, id) = (trigger.project.clone(), lease.id.clone());
                let message = Message { project, id, attempt, body: body.clone(), is_event: true };
                let answer = match at.elapsed() < BEGIN_TIMEOUT {
                    true => Box::pin(attempt::attempt(&carrier, &spec, message)).await,
                    // Another node may have it soon.
                    false => Answer::late(),
                };
                Delivery { trigger, spec, lease, message: body, answer }
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

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_endpoint_answers_is_not_told_by_health() {
        let answer = |code| paused_by(&Answer::failed(code, "hidden".to_owned()));
        assert_eq!(answer(Some(500)), "paused after failures in a row, the last with status 500");
        assert_eq!(answer(None), "paused after failures in a row, the last without an answer");
    }
}
