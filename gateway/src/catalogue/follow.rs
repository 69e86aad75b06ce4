//! Refresh of the catalogue: on changed resources, on schema events, and by polling where an event was lost.

use std::{collections::HashSet, sync::Arc, time::Duration};

use foldhash::{HashMap, HashMapExt};
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use mesh::{
    Call, Component, ComponentState, Tasks,
    bus::{Event, Subscription},
    config::ServiceName,
    resources::{Current, Document, Snapshot},
};
use proto::{Links, crud::DescribeResponse};
use query::{
    function::ServiceResource,
    hook::BeforeWrites,
    resources::{self, BucketResource, DatabaseResource, ProjectResource},
};
use serde::Deserialize;
use tokio::time::{Instant, MissedTickBehavior};
use tonic::Status;

use super::{
    BucketSettings, Catalogue, DEFAULT_TABLE, Database, Hooks, Project, ProjectEntry, ServiceSettings, describe_request,
};

/// Name of the gateway in the health report.
const COMPONENT: Component = Component::Service(ServiceName::GATEWAY);
/// Bus subject on which crud announces that a database changed or can be reached again.
const SCHEMA_SUBJECT: &str = "schema";
/// First retry interval for databases that could not be described; doubled after each retry.
const RETRY_FIRST: Duration = Duration::from_millis(20);
/// Longest retry interval.
const RETRY_MAX: Duration = Duration::from_millis(500);
/// Interval at which all projects are described: an event may have been lost.
const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// How long the node is not ready for a database that is still being opened: one of many must not keep all from being
/// served.
const FIRST_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time-out of one `describe` call.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(10);

type DescribeCalls = FuturesUnordered<BoxFuture<'static, (String, Result<DescribeResponse, Status>)>>;

/// Fills `catalogue` and follows `current` until the tasks end.
pub fn start(catalogue: Catalogue, current: Current, tasks: &Tasks) {
    let changes = catalogue.shared.mesh.bus().subscribe(SCHEMA_SUBJECT);
    let stop = tasks.stop().clone();
    let mut follower = Follower {
        catalogue,
        calls: DescribeCalls::new(),
        in_flight: HashSet::new(),
        queued: HashSet::new(),
        is_ready: false,
    };
    let snapshot = current.borrow().clone();
    let why = ComponentState::Failing("the schemas of the databases are not known yet".to_owned());
    follower.catalogue.shared.mesh.health().set(COMPONENT, why);
    follower.apply_snapshot(&snapshot);
    follower.report_readiness();
    tasks.spawn("catalogue", async move {
        stop.run_until_cancelled(follower.run(current, changes)).await;
    });
}

struct Follower {
    catalogue: Catalogue,
    calls: DescribeCalls,
    /// Projects with a call under way.
    in_flight: HashSet<String>,
    /// Projects to describe once more when the call under way is done.
    queued: HashSet<String>,
    /// Whether the databases of all projects were described once.
    is_ready: bool,
}

impl Follower {
    async fn run(&mut self, mut current: Current, mut changes: Subscription) {
        let mut poll = tokio::time::interval(POLL_INTERVAL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut wait, mut retry) = (RETRY_FIRST, Box::pin(tokio::time::sleep(RETRY_FIRST)));
        let (mut has_resources, mut has_bus) = (true, true);
        loop {
            // Each branch takes one thing that is already there and leaves the others as they are.
            tokio::select! {
                changed = current.changed(), if has_resources => match changed {
                    Ok(()) => {
                        let snapshot = current.borrow_and_update().clone();
                        wait = RETRY_FIRST;
                        retry.as_mut().reset(Instant::now() + wait);
                        self.apply_snapshot(&snapshot).into_iter().for_each(|id| self.describe(id));
                    }
                    Err(_) => has_resources = false,
                },
                message = changes.next(), if has_bus => match message {
                    Some(Event::Message(message)) => self.changed(&message.payload),
                    Some(Event::Lagged(_)) => self.projects(|_| true).into_iter().for_each(|id| self.describe(id)),
                    None => has_bus = false,
                },
                Some((id, described)) = self.calls.next() => self.described(id, described),
                () = retry.as_mut() => {
                    self.projects(ProjectEntry::is_partial).into_iter().for_each(|id| self.describe(id));
                    wait = (wait * 2).min(RETRY_MAX);
                    retry.as_mut().reset(Instant::now() + wait);
                }
                _ = poll.tick() => self.projects(|_| true).into_iter().for_each(|id| self.describe(id)),
            }
        }
    }

    /// Reports the gateway ready once the databases of all projects are described.
    ///
    /// Before, it has nothing to serve.
    fn report_readiness(&mut self) {
        let is_unknown = |entry: &ProjectEntry| !*entry.is_described.borrow();
        if self.is_ready || !self.projects(is_unknown).is_empty() {
            return;
        }
        self.is_ready = true;
        self.catalogue.shared.mesh.health().set(COMPONENT, ComponentState::Ready);
    }

    /// Makes the projects of `snapshot` those of the catalogue; answers which of them are new or changed.
    fn apply_snapshot(&mut self, snapshot: &Snapshot) -> Vec<String> {
        let before = self.catalogue.shared.entries.load_full();
        let mut entries = HashMap::new();
        let mut changed = Vec::new();
        for (id, spec, databases) in projects(snapshot) {
            let (buckets, services) = (buckets(snapshot, &id), services(snapshot, &id));
            let hooks = hooks(snapshot, &id);
            let has_events = snapshot.of_kind("event").any(|document| document.name("project") == Some(id.as_str()));
            let known = before.get(&id);
            let now = known.map(|entry| entry.now.load_full());
            let databases = with_schemas(databases, now.as_deref());
            if let (Some(entry), Some(now)) = (known, &now)
                && now.spec == spec
                && now.databases == databases
                && now.buckets == buckets
                && now.services == services
                && now.has_events == has_events
                && *now.hooks == hooks
            {
                entries.insert(id, entry.clone());
                continue;
            }
            let version = self.catalogue.next_version();
            let project = Project {
                id: id.as_str().into(),
                spec,
                databases,
                buckets,
                services,
                hooks: Arc::new(hooks),
                has_events,
                version,
            };
            let entry = match known {
                Some(entry) => {
                    entry.now.store(Arc::new(project));
                    entry.clone()
                }
                None => Arc::new(ProjectEntry::new(project)),
            };
            entries.insert(id.clone(), entry);
            changed.push(id);
        }
        let is_other = !changed.is_empty() || entries.len() != before.len();
        self.catalogue.shared.entries.store(Arc::new(entries));
        if is_other {
            self.catalogue.shared.changes.send_replace(());
        }
        changed
    }

    fn projects(&self, is_meant: impl Fn(&ProjectEntry) -> bool) -> Vec<String> {
        let entries = self.catalogue.shared.entries.load();
        entries.iter().filter(|(_, entry)| is_meant(entry)).map(|(id, _)| id.clone()).collect()
    }

    /// Asks about the project of the database, `project/database`, whose schema changed.
    fn changed(&mut self, database: &[u8]) {
        let database = std::str::from_utf8(database).ok();
        if let Some((project, _)) = database.and_then(|database| database.split_once('/')) {
            self.describe(project.to_owned());
        }
    }

    /// Asks crud about a project, one call at a time.
    fn describe(&mut self, id: String) {
        let Ok(entry) = self.catalogue.entry(&id) else { return };
        if !self.in_flight.insert(id.clone()) {
            self.queued.insert(id);
            return;
        }
        let mesh = self.catalogue.shared.mesh.clone();
        self.calls.push(Box::pin(async move {
            let call = Call::begin(None, None, Some(DESCRIBE_TIMEOUT));
            let request = describe_request(&entry.now.load(), false);
            let described = mesh.crud().describe(&call, request).await;
            (id, described)
        }));
    }

    fn described(&mut self, id: String, described: Result<DescribeResponse, Status>) {
        self.in_flight.remove(&id);
        let Ok(entry) = self.catalogue.entry(&id) else { return };
        match described {
            Ok(described) => {
                let is_opening = described.databases.iter().any(proto::crud::Database::is_opening);
                self.catalogue.apply_description(&entry, described);
                if !is_opening || entry.since.elapsed() > FIRST_ATTEMPT_TIMEOUT {
                    entry.is_described.send_replace(true);
                    self.report_readiness();
                }
            }
            Err(status) => tracing::debug!(project = id, error = status.message(), "databases not described"),
        }
        if self.queued.remove(&id) {
            self.describe(id);
        }
    }
}

/// The buckets of a project.
fn buckets(snapshot: &Snapshot, project: &str) -> Vec<Arc<BucketSettings>> {
    let documents = snapshot.of_kind("bucket").filter(|document| document.name("project") == Some(project));
    let bucket = |document: &Document| {
        // What has faults is not in force.
        let BucketResource { meta, spec } = document.read().ok()?;
        Some(Arc::new(BucketSettings { id: meta.id, spec }))
    };
    documents.filter_map(bucket).collect()
}

/// The services of a project.
fn services(snapshot: &Snapshot, project: &str) -> Vec<Arc<ServiceSettings>> {
    let documents = snapshot.of_kind("service").filter(|document| document.name("project") == Some(project));
    let service = |document: &Document| {
        // What has faults is not in force.
        let ServiceResource { meta, spec } = document.read().ok()?;
        Some(Arc::new(ServiceSettings { id: meta.id, spec }))
    };
    documents.filter_map(service).collect()
}

/// The hooks of the tables of a project. A table with a document has those of `default` too, as with rules.
fn hooks(snapshot: &Snapshot, project: &str) -> Hooks {
    let documents = snapshot.of_kind("table").filter(|document| document.name("project") == Some(project));
    let of = |document: &Document| {
        let (database, table) = (document.name("database")?, document.name("id")?);
        let before = document.spec.get("before").filter(|before| !before.is_null());
        // What has faults is not in force.
        let before = before.map(|before| BeforeWrites::deserialize(before).ok()).unwrap_or_default();
        Some(((database.to_owned(), table.to_owned()), before.unwrap_or_default()))
    };
    let all: Hooks = documents.filter_map(of).collect();
    if all.values().all(|before| *before == BeforeWrites::default()) {
        return Hooks::default();
    }
    let default_of = |database: &str| all.get(&(database.to_owned(), DEFAULT_TABLE.to_owned())).cloned();
    let with_default = |(key, before): (&(String, String), &BeforeWrites)| {
        (key.clone(), before.clone().or(&default_of(&key.0).unwrap_or_default()))
    };
    all.iter().map(with_default).collect()
}

/// The projects of a snapshot with their databases.
fn projects(snapshot: &Snapshot) -> Vec<(String, resources::Project, Vec<Database>)> {
    let project = |(project, _): (&ProjectResource, _)| (project.meta.id.clone(), project.spec.clone(), Vec::new());
    let mut projects: Vec<(String, resources::Project, Vec<Database>)> = snapshot.of().map(project).collect();
    for (DatabaseResource { meta, spec }, _) in snapshot.of() {
        let Some(engine) = spec.engine() else { continue };
        if let Some((_, _, databases)) = projects.iter_mut().find(|(id, ..)| *id == meta.project) {
            databases.push(Database {
                id: meta.id.as_str().into(),
                engine,
                schema: None,
                version: 0,
                is_opening: true,
            });
        }
    }
    projects
}

/// `databases` with what is known of those that were there before.
fn with_schemas(mut databases: Vec<Database>, before: Option<&Project>) -> Vec<Database> {
    for database in &mut databases {
        let known = before.and_then(|project| project.databases.iter().find(|known| known.id == database.id));
        if let Some(known) = known.filter(|known| known.schema.is_some()) {
            *database = known.clone();
        }
    }
    databases
}
