//! Events: changes of rows, times and custom ones that triggers name, delivered to webhooks at least once.
//!
//! The log of changes is followed for each table that a trigger is about; what becomes an event is made durable in the
//! queue together with the position in the log, and delivered from there. One node has the queue of a data folder; a queue in
//! PostgreSQL is of all nodes that have it: one of them follows a table, and all deliver.

mod attempt;
mod backoff;
mod cloud_event;
mod custom;
mod dispatcher;
mod endpoint;
mod fate;
mod followup;
mod function_call;
mod intake;
mod others;
mod plan;
mod queue;
mod refusal;
mod registry;
mod reply;
mod resource;
mod row;
mod scheduler;
mod signature;
mod template;
mod timetable;
mod webhook;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use mesh::{Mesh, Tasks, bus::Bus, config::QueueConfig, resources::Current, telemetry::EventMeters};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::{
    attempt::Carrier,
    dispatcher::{Dispatcher, QUEUE},
    intake::Intake,
    queue::{FollowedTable, Holder, observer::Observer},
    registry::Registry,
    scheduler::Scheduler,
};
pub use self::{
    custom::CustomEvents,
    queue::{
        Queue, QueueError,
        operate::{EventFilter, EventStatus, EventSummary},
    },
    resource::TRIGGER,
};
use crate::{client::Client, health::PartHealth};

/// How often a queue is tried to be opened that another node has still.
const OPEN_INTERVAL: Duration = Duration::from_millis(250);
/// How often a node tells that it follows its tables still, and after how long without that another one does.
const BEAT_INTERVAL: Duration = Duration::from_secs(2);
const HOLD_TIME: Duration = Duration::from_secs(10);
/// How long nobody has followed a table of a shared queue before it is forgotten: nodes learn of triggers one after the other.
const LEFT_TIME: Duration = Duration::from_secs(60);

/// Events of a node.
pub struct Events {
    mesh: Mesh,
    data: PathBuf,
    config: QueueConfig,
    client: Client,
    registry: Registry,
    health: PartHealth,
    meters: EventMeters,
    /// Told of the queue when it is open.
    opened: watch::Sender<Option<Queue>>,
    tasks: Tasks,
}

/// The intake of a table, ended when dropped.
struct RunningIntake {
    stop: DropGuard,
    /// Fires when it has ended.
    ended: CancellationToken,
}

impl Events {
    /// Makes and delivers events as the triggers in force say, until the node stops. The way for custom ones.
    pub fn start(
        mesh: Mesh,
        (config, data): (QueueConfig, &Path),
        (client, health): (Client, PartHealth),
        current: Current,
        tasks: &Tasks,
    ) -> CustomEvents {
        let (registry, following) = Registry::new(current);
        let stop = tasks.stop().clone();
        tasks.spawn("events: follow resources", async move {
            stop.run_until_cancelled(following).await;
        });
        let meters = mesh.metrics().events();
        let data = data.to_owned();
        let (opened, queue) = watch::channel(None);
        let custom = CustomEvents::new(queue, registry.clone(), meters.clone());
        let events = Self { mesh, data, config, client, registry, health, meters, opened, tasks: tasks.clone() };
        let draining = tasks.draining().clone();
        let running = async move {
            draining.run_until_cancelled(Box::pin(events.run())).await;
        };
        spawn(tasks, "events", running);
        custom
    }

    async fn run(mut self) {
        // A node without triggers has no queue.
        while self.registry.now().is_empty() && !Queue::exists(&self.config, &self.data) {
            self.registry.changed().await;
        }
        let queue = self.open().await;
        self.opened.send_replace(Some(queue.clone()));
        let carrier = Carrier { client: self.client.clone(), mesh: self.mesh.clone(), renders: attempt::renders() };
        let (registry, health) = (self.registry.clone(), self.health.clone());
        let dispatcher = Dispatcher::new(queue.clone(), registry, carrier, health, self.meters.clone());
        if let Bus::Nats(nats) = self.mesh.bus()
            && !queue.is_shared()
        {
            spawn(&self.tasks, "events: find other nodes", others::watch(nats.clone(), self.health.clone()));
        }
        let scheduler = Scheduler::new(queue.clone(), self.registry.clone());
        spawn(&self.tasks, "events: schedules", scheduler.run(self.health.clone(), self.meters.clone()));
        let listening = queue.clone();
        spawn(&self.tasks, "events: listen", async move { listening.listen().await });
        spawn(&self.tasks, "events: deliver", dispatcher.run(self.tasks.draining().clone()));
        self.follow_tables(&queue).await;
    }

    /// The queue, once no other node has it.
    async fn open(&self) -> Queue {
        loop {
            match Queue::open(&self.config, &self.data).await {
                Ok(queue) => {
                    self.health.set(QUEUE, None);
                    return queue;
                }
                Err(error) => {
                    if self.health.set(QUEUE, Some(error.to_string())) {
                        tracing::warn!(cause = ?error, "{error}");
                    }
                }
            }
            tokio::time::sleep(OPEN_INTERVAL).await;
        }
    }

    /// Follows the tables that triggers are about, as these change, as far as no other node does.
    async fn follow_tables(&mut self, queue: &Queue) {
        let (mut intakes, mut holders) = (BTreeMap::new(), Observer::default());
        loop {
            if let Err(error) = self.settle(queue, &mut intakes, &mut holders).await {
                tracing::warn!(cause = ?error, "{error}");
            }
            tokio::select! {
                () = self.registry.changed() => {}
                () = tokio::time::sleep(BEAT_INTERVAL) => {}
            }
        }
    }

    /// Ends and begins intakes as the triggers in force and other nodes have it.
    async fn settle(
        &self,
        queue: &Queue,
        intakes: &mut BTreeMap<FollowedTable, RunningIntake>,
        holders: &mut Observer<FollowedTable, Holder>,
    ) -> Result<(), QueueError> {
        let wanted = self.registry.now().tables();
        let is_needless =
            |table: &FollowedTable, intake: &RunningIntake| !wanted.contains(table) || intake.ended.is_cancelled();
        let needless: Vec<FollowedTable> = intakes
            .iter()
            .filter(|(table, intake)| is_needless(table, intake))
            .map(|(table, _)| table.clone())
            .collect();
        for table in needless {
            if let Some(RunningIntake { stop, ended }) = intakes.remove(&table) {
                drop(stop);
                // It writes nothing after this.
                ended.cancelled().await;
            }
        }
        queue.beat().await?;
        let now = Instant::now();
        let known: BTreeMap<FollowedTable, Holder> = queue.tables().await?.into_iter().collect();
        holders.see(known.iter().map(|(table, holder)| (table.clone(), *holder)), now);
        let gone =
            |table: &FollowedTable| known.get(table).copied().filter(|_| holders.unchanged(table, now) >= HOLD_TIME);
        for (table, holder) in known.iter().filter(|(table, _)| !wanted.contains(*table)) {
            // One that comes back begins then. Of nodes that share a queue another one may have a trigger still, or already.
            if queue.is_shared() && (queue.leave(table).await? || holders.unchanged(table, now) < LEFT_TIME) {
                continue;
            }
            if queue.hold(table, Some(*holder)).await? {
                queue.forget(table).await?;
            }
        }
        for table in wanted {
            if !intakes.contains_key(&table) && queue.hold(&table, gone(&table)).await? {
                intakes.insert(table.clone(), self.follow(queue, table));
            }
        }
        Ok(())
    }

    fn follow(&self, queue: &Queue, table: FollowedTable) -> RunningIntake {
        let (stop, ended) = (self.tasks.draining().child_token(), CancellationToken::new());
        let intake = Intake {
            mesh: self.mesh.clone(),
            queue: queue.clone(),
            registry: self.registry.clone(),
            table,
            health: self.health.clone(),
            meters: self.meters.clone(),
            is_lost: false,
        };
        let (stopped, at_end) = (stop.clone(), ended.clone().drop_guard());
        spawn(&self.tasks, "events: follow table", async move {
            let _at_end = at_end;
            Box::pin(intake.run(stopped)).await;
        });
        RunningIntake { stop: stop.drop_guard(), ended }
    }
}

/// Starts a task that ends by itself when the node begins to drain, and at once where the node is dropped.
fn spawn(tasks: &Tasks, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
    let dropped = tasks.stop().clone();
    tasks.spawn_until_drain(name, async move {
        dropped.run_until_cancelled(Box::pin(task)).await;
    });
}
