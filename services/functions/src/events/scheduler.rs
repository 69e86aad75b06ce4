//! Scheduler: makes an event of each time at which a trigger is due.
//!
//! When a trigger is due next stands in the queue. Whoever sees that it is due writes the event and the next time in one
//! transaction: of several nodes one does, and whatever the clock does, no time is due twice.

use std::{collections::HashMap, sync::Arc, time::Duration};

use mesh::telemetry::EventMeters;
use query::trigger::{Ordered, Trigger, TriggerSource};

use super::{
    cloud_event,
    health::EventHealth,
    queue::{NewEvent, Queue, QueueError, TriggerKey, schedule::NextDue},
    registry::{Registry, Triggers},
    timetable::Timetable,
};

/// How often it is looked whether a trigger is due, at least.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// What is wrong, as `/ready` names it.
const PART: &str = "schedules of triggers";
/// The type of events of schedules.
const TYPE: &str = "SCHEDULE";

/// Makes events of due times.
pub struct Scheduler {
    queue: Queue,
    registry: Registry,
    scheduled: HashMap<TriggerKey, Scheduled>,
    /// What they were read from.
    read_from: Option<Arc<Triggers>>,
}

/// A trigger on a schedule.
struct Scheduled {
    spec: Arc<Trigger>,
    schedule: String,
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
        Self { queue, registry, scheduled: HashMap::new(), read_from: None }
    }

    /// Makes events for ever.
    pub async fn run(mut self, health: EventHealth, meters: EventMeters) {
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

    /// Makes events of the triggers that are due.
    pub async fn fire(&mut self, now_ms: i64) -> Result<Fired, QueueError> {
        self.read();
        if self.scheduled.is_empty() {
            return Ok(Fired::default());
        }
        let known: HashMap<TriggerKey, NextDue> = self.queue.schedules().await?.into_iter().collect();
        let mut fired = Fired::default();
        for (trigger, scheduled) in &self.scheduled {
            let next_ms = match known.get(trigger).filter(|next| next.schedule == scheduled.schedule) {
                Some(due) => match due.due_ms {
                    Some(due_ms) if due_ms <= now_ms => {
                        let (next_ms, event) = scheduled.event(trigger, due_ms, now_ms);
                        fired.events += self.queue.fire(event, (due, next_ms), now_ms).await?;
                        next_ms
                    }
                    due_ms => due_ms,
                },
                None => {
                    let due_ms = scheduled.timetable.after(now_ms);
                    let next = NextDue { schedule: scheduled.schedule.clone(), due_ms };
                    self.queue.schedule(trigger, &next).await?;
                    due_ms
                }
            };
            fired.next_ms = [fired.next_ms, next_ms].into_iter().flatten().min();
        }
        Ok(fired)
    }

    /// Reads the triggers in force, where they are others.
    fn read(&mut self) {
        let triggers = self.registry.now();
        if self.read_from.as_ref().is_some_and(|read| Arc::ptr_eq(read, &triggers)) {
            return;
        }
        let scheduled = triggers.scheduled().filter_map(|(key, spec)| {
            let TriggerSource::Schedule(schedule) = &spec.on else { return None };
            // Documents with a schedule that is wrong are not in force.
            let timetable = Timetable::of(schedule).ok()?;
            Some((key.clone(), Scheduled { spec: spec.clone(), schedule: schedule.to_string(), timetable }))
        });
        self.scheduled = scheduled.collect();
        self.read_from = Some(triggers);
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
        let event = NewEvent { id, trigger: trigger.clone(), r#type: TYPE, body, order_key };
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
