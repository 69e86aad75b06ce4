//! Scheduler: makes an event of each time at which a trigger is due.
//!
//! When a trigger is due next stands in the queue. Whoever sees that it is due writes the event and the next time in one
//! transaction: of several nodes one does, and whatever the clock does, no time is due twice.

use std::{collections::HashMap, sync::Arc, time::Duration};

use mesh::telemetry::EventMeters;
use query::trigger::{Ordered, Trigger, TriggerSource};
use tokio::time::Instant;

use super::{
    cloud_event,
    followup::BUDGET,
    queue::{
        NewEvent, Queue, QueueError, TriggerKey,
        observer::Observer,
        schedule::{NextDue, ScheduleKey},
    },
    registry::{Registry, Triggers},
    timetable::Timetable,
};
use crate::health::PartHealth;

/// How often it is looked whether a trigger is due, at least.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How often a node tells that it has its schedules in force, and after how long without that one is forgotten.
const KEEP_INTERVAL: Duration = Duration::from_secs(10);
const KEPT_TIME: Duration = Duration::from_secs(60);
/// What is wrong, as `/ready` names it.
const PART: &str = "schedules of triggers";
/// The type of events of schedules.
const TYPE: &str = "SCHEDULE";

/// Makes events of due times.
pub struct Scheduler {
    queue: Queue,
    registry: Registry,
    scheduled: HashMap<ScheduleKey, Scheduled>,
    /// What they were read from.
    read_from: Option<Arc<Triggers>>,
    /// Schedules, as nodes were seen to have them in force.
    kept: Observer<ScheduleKey, i64>,
    /// When this node told last that it has its own.
    kept_at: Option<Instant>,
}

/// A trigger on a schedule.
struct Scheduled {
    spec: Arc<Trigger>,
    timetable: Timetable,
}

/// What a look at the schedules came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Fired {
    /// Events that were made.
    pub events: u64,
    /// When the next trigger is due, in milliseconds since 1970.
    pub next_ms: Option<i64>,
}

impl Scheduler {
    /// A scheduler of the triggers in force.
    pub fn new(queue: Queue, registry: Registry) -> Self {
        let (scheduled, kept) = (HashMap::new(), Observer::default());
        Self { queue, registry, scheduled, read_from: None, kept, kept_at: None }
    }

    /// Makes events for ever.
    pub async fn run(mut self, health: PartHealth, meters: EventMeters) {
        loop {
            let now_ms = self.queue.now_ms();
            let wait = match self.fire(now_ms).await {
                Ok(Fired { events, next_ms }) => {
                    health.set(PART, None);
                    meters.queued.inc_by(events);
                    let wait_ms = next_ms.map(|next| u64::try_from(next.saturating_sub(now_ms)).unwrap_or_default());
                    wait_ms.map_or(LOOK_INTERVAL, |ms| Duration::from_millis(ms).min(LOOK_INTERVAL))
                }
                Err(error) => {
                    if health.set(PART, Some(error.to_string())) {
                        tracing::error!(cause = ?error, "{error}");
                    }
                    LOOK_INTERVAL
                }
            };
            tokio::select! {
                () = self.registry.changed() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Makes events of the triggers that are due, and forgets schedules that no node has in force.
    pub async fn fire(&mut self, now_ms: i64) -> Result<Fired, QueueError> {
        let is_read = self.read();
        let now = Instant::now();
        let is_kept = self.kept_at.is_some_and(|at| now.saturating_duration_since(at) < KEEP_INTERVAL);
        if self.scheduled.is_empty() && is_kept && !is_read {
            return Ok(Fired::default());
        }
        let known: HashMap<ScheduleKey, NextDue> = self.queue.schedules().await?.into_iter().collect();
        let mut fired = Fired::default();
        for (key, scheduled) in &self.scheduled {
            let next_ms = match known.get(key).map(|next| next.due_ms) {
                Some(Some(due_ms)) if due_ms <= now_ms => {
                    let (next_ms, event) = scheduled.event(&key.trigger, due_ms, now_ms);
                    fired.events += self.queue.fire(event, key, (due_ms, next_ms), now_ms).await?;
                    next_ms
                }
                Some(due_ms) => due_ms,
                None => {
                    let due_ms = scheduled.timetable.after(now_ms);
                    self.queue.schedule(key, due_ms).await?;
                    due_ms
                }
            };
            fired.next_ms = [fired.next_ms, next_ms].into_iter().flatten().min();
        }
        if is_read || !is_kept {
            self.keep(known, now).await?;
        }
        Ok(fired)
    }

    /// Tells that the schedules of this node are in force, and forgets those that none has. Nodes that share a queue learn of
    /// triggers one after the other.
    async fn keep(&mut self, known: HashMap<ScheduleKey, NextDue>, now: Instant) -> Result<(), QueueError> {
        let is_shared = self.queue.is_shared();
        if is_shared {
            for key in self.scheduled.keys() {
                self.queue.keep_schedule(key).await?;
            }
        }
        self.kept.see(known.iter().map(|(key, next)| (key.clone(), next.beat)), now);
        for (key, next) in known.iter().filter(|(key, _)| !self.scheduled.contains_key(key)) {
            if !is_shared || self.kept.unchanged(key, now) >= KEPT_TIME {
                self.queue.forget_schedule(key, *next).await?;
            }
        }
        self.kept_at = Some(now);
        Ok(())
    }

    /// Reads the triggers in force, where they are others; whether they are.
    fn read(&mut self) -> bool {
        let triggers = self.registry.now();
        if self.read_from.as_ref().is_some_and(|read| Arc::ptr_eq(read, &triggers)) {
            return false;
        }
        let scheduled = triggers.scheduled().filter_map(|(key, spec)| {
            let TriggerSource::Schedule(schedule) = &spec.on else { return None };
            // Documents with a schedule that is wrong are not in force.
            let timetable = Timetable::of(schedule).ok()?;
            let key = ScheduleKey { trigger: key.clone(), schedule: schedule.to_string() };
            Some((key, Scheduled { spec: spec.clone(), timetable }))
        });
        self.scheduled = scheduled.collect();
        self.read_from = Some(triggers);
        true
    }
}

impl Scheduled {
    /// The event of a trigger that has been due since a time, and when it is due next.
    fn event(&self, trigger: &TriggerKey, due_ms: i64, now_ms: i64) -> (Option<i64>, NewEvent) {
        let due_ms = self.timetable.latest(due_ms, now_ms);
        let id = event_id(trigger, due_ms);
        let body = Ok(cloud_event::schedule_message(&id, trigger, due_ms));
        // All are of one key where they are ordered.
        let order_key = (self.spec.ordered != Ordered::No).then(|| TYPE.as_bytes().to_vec());
        let event = NewEvent {
            id,
            trigger: trigger.clone(),
            r#type: TYPE.into(),
            due_ms: None,
            body,
            order_key,
            budget: BUDGET,
            is_awaited: false,
        };
        (self.timetable.after(now_ms), event)
    }
}

/// The id of the event of a time: the same whoever makes it.
fn event_id(trigger: &TriggerKey, due_ms: i64) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in [TYPE, &*trigger.project, &*trigger.id] {
        hasher.update(&(part.len() as u64).to_be_bytes()).update(part.as_bytes());
    }
    let hash = hasher.update(&due_ms.to_be_bytes()).finalize().to_hex();
    format!("evt_{}", &hash[..32])
}

#[cfg(test)]
mod tests;
