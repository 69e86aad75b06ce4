//! Registry of the databases of all projects: opened in the background, polled, swapped when resources change.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use foldhash::{HashMap, HashMapExt};
use mesh::{Component, ComponentState, Mesh, Tasks, clock, resources};
use query::resources::{
    ChangesSource, Database as DatabaseSpec, DatabaseMeta, DatabaseResource, Numbers, ProjectResource,
};
use tokio::sync::{Notify, watch};
use tokio_util::sync::DropGuard;

use crate::{
    Error, Introspected, LeftOut, blocking,
    budget::{AnswerLimit, Memory},
    changes::log::SharedLog,
    config::{self, Config},
    database::Database,
    held_tables::{self, HeldTables},
    links::{self, DatabaseLinks},
    neighbour::Neighbour,
    neighbours,
    options::AnswerOptions,
    prepared::PreparedOperations,
    store::{
        mysql::Mysql,
        postgres::{Postgres, Survey},
    },
};

/// How often the schema of an open database is polled.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// Back-off before the first retry of a connection that failed; doubles up to [`RETRY_MAX`].
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// Least time between two refreshes that callers ask for.
const REFRESH_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// From how late changes of rows are told, `/ready` says so.
const LAG_REPORTED: Duration = Duration::from_secs(10);
/// How long a call waits for the first attempt to open a database.
const FIRST_ATTEMPT_TIMEOUT: Duration = Duration::from_millis(750);

/// Registry of the databases of all projects, by the resources in force.
pub struct Databases {
    mesh: Mesh,
    tasks: Tasks,
    data: PathBuf,
    memory: Memory,
    prepared: PreparedOperations,
    projects: ArcSwap<HashMap<String, Project>>,
}

/// A project's databases, by id.
#[derive(Clone, Default)]
struct Project {
    numbers: Numbers,
    databases: HashMap<String, Arc<DatabaseEntry>>,
}

/// A database of the registry, open or not.
pub struct DatabaseEntry {
    /// The project's id.
    pub project: String,
    /// Its id.
    pub id: String,
    /// Spec of its resource.
    pub spec: DatabaseSpec,
    folder: PathBuf,
    /// Other schemas of the same database.
    neighbours: Vec<Neighbour>,
    /// Links of its tables.
    links: ArcSwap<DatabaseLinks>,
    /// Tables that triggers are about, and the number format of their images.
    trigger_tables: ArcSwap<(BTreeSet<String>, Numbers)>,
    held: HeldTables,
    state: watch::Sender<DatabaseState>,
    /// Version of the schema that the mesh was last told of; 0 before the first.
    told: AtomicU64,
    last_refresh: Mutex<Instant>,
    /// Objects and links that are left out of its schema, as far as the log has them: why, by name.
    left_out: Mutex<BTreeMap<String, String>>,
    /// Ends the task that keeps it open.
    _stop: DropGuard,
}

/// State of the connection to a database.
#[derive(Clone)]
pub enum DatabaseState {
    /// Not attempted yet.
    Connecting,
    /// Connected.
    Open(Arc<Database>),
    /// The last attempt failed; why, for people.
    Failed(String),
}

impl Databases {
    /// The databases of `current`, and of what comes after it.
    pub fn start(mesh: Mesh, config: Config, mut current: resources::Current, tasks: Tasks) -> Arc<Self> {
        let projects = ArcSwap::from_pointee(HashMap::new());
        let databases = Arc::new(Self {
            mesh,
            tasks: tasks.clone(),
            data: config.data,
            memory: Memory::default(),
            prepared: PreparedOperations::default(),
            projects,
        });
        databases.swap(&current.borrow_and_update().clone());
        let (all, stop) = (Arc::downgrade(&databases), tasks.stop().clone());
        tasks.spawn("crud resources", async move {
            while let Some(Ok(())) = stop.run_until_cancelled(current.changed()).await {
                let Some(databases) = all.upgrade() else { break };
                databases.swap(&current.borrow_and_update().clone());
            }
        });
        databases
    }

    /// A database, and the number format of its project.
    pub fn find(&self, project: &str, database: &str) -> Result<(Arc<DatabaseEntry>, Numbers), Error> {
        let projects = self.projects.load();
        let of = projects.get(project).ok_or_else(|| Error::UnknownProject(project.to_owned()))?;
        match of.databases.get(database) {
            Some(found) => Ok((found.clone(), of.numbers)),
            None => Err(Error::UnknownDatabase(database.to_owned())),
        }
    }

    /// The databases of a project, by id.
    pub fn of(&self, project: &str) -> Result<Vec<Arc<DatabaseEntry>>, Error> {
        let projects = self.projects.load();
        let of = projects.get(project).ok_or_else(|| Error::UnknownProject(project.to_owned()))?;
        let mut databases: Vec<_> = of.databases.values().cloned().collect();
        databases.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(databases)
    }

    /// Refreshes the schema of a database, unless that was done within the second.
    pub async fn refresh(&self, database: &DatabaseEntry) {
        let DatabaseState::Open(open) = database.after_first_attempt().await else { return };
        if !database.may_refresh() {
            return;
        }
        self.poll(database, &open).await;
    }

    /// Puts the databases of `snapshot` in the place of those in force. Those whose resource is the same stay open.
    fn swap(self: &Arc<Self>, snapshot: &resources::Snapshot) {
        let before = self.projects.load_full();
        // A project exists with and without databases.
        let project = |(ProjectResource { meta, spec }, _): (&_, _)| {
            (meta.id.clone(), Project { numbers: spec.numbers, databases: HashMap::new() })
        };
        let mut projects: HashMap<String, Project> = snapshot.of().map(project).collect();
        let links = links::of(snapshot);
        let mut trigger_tables = held_tables::trigger_tables(snapshot);
        let mut neighbours = neighbours::of(snapshot, &links);
        for (DatabaseResource { meta, spec }, document) in snapshot.of() {
            let Some(project) = projects.get_mut(&meta.project) else { continue };
            let known = before.get(&meta.project).and_then(|project| project.databases.get(&meta.id));
            let neighbours = neighbours.remove(&(meta.project.clone(), meta.id.clone())).unwrap_or_default();
            let links = DatabaseLinks::of(&meta.project, &meta.id, &neighbours, &links);
            let database = match known {
                Some(known)
                    if known.spec == *spec && known.folder == document.folder && known.neighbours == neighbours =>
                {
                    known.clone()
                }
                _ => self.add(meta, spec.clone(), &document.folder, neighbours),
            };
            database.links.store(Arc::new(links));
            let tables = trigger_tables.remove(&(meta.project.clone(), meta.id.clone())).unwrap_or_default();
            database.trigger_tables.store(Arc::new((tables, project.numbers)));
            project.databases.insert(meta.id.clone(), database);
        }
        for database in before.values().flat_map(|project| project.databases.values()) {
            let stays =
                projects.get(&database.project).is_some_and(|project| project.databases.contains_key(&database.id));
            if !stays {
                self.mesh.health().remove(&database.component());
                self.mesh.metrics().forget_changes_lag(&database.project, &database.id);
            }
        }
        let projects = Arc::new(projects);
        self.projects.store(projects.clone());
        for database in projects.values().flat_map(|project| project.databases.values()) {
            if let DatabaseState::Open(open) = &*database.state.borrow() {
                self.link(database, open);
            }
        }
    }

    /// Declares the links of a database that is open; where they are others than before, that is published.
    fn link(&self, database: &DatabaseEntry, open: &Database) {
        if open.link(database.links.load_full()) {
            self.report_ready(database, open);
            self.publish_change(database, open);
        }
    }

    /// Adds a database and the task that keeps it open for as long as it is in force.
    fn add(
        self: &Arc<Self>,
        meta: &DatabaseMeta,
        spec: DatabaseSpec,
        folder: &Path,
        neighbours: Vec<Neighbour>,
    ) -> Arc<DatabaseEntry> {
        let stop = self.tasks.stop().child_token();
        let database = Arc::new(DatabaseEntry {
            project: meta.project.clone(),
            id: meta.id.clone(),
            spec,
            folder: folder.to_owned(),
            neighbours,
            links: ArcSwap::default(),
            trigger_tables: ArcSwap::default(),
            held: HeldTables::default(),
            state: watch::Sender::new(DatabaseState::Connecting),
            told: AtomicU64::new(0),
            last_refresh: Mutex::new(Instant::now()),
            left_out: Mutex::default(),
            _stop: stop.clone().drop_guard(),
        });
        let (all, this) = (Arc::downgrade(self), Arc::downgrade(&database));
        self.tasks.spawn("database", async move {
            let mut wait = RETRY_FIRST;
            loop {
                let (Some(databases), Some(database)) = (all.upgrade(), this.upgrade()) else { break };
                let Some(next) = stop.run_until_cancelled(Box::pin(databases.connect_or_poll(&database, wait))).await
                else {
                    break;
                };
                wait = next;
                let moved = database.moved();
                // Nothing keeps the database while its task waits.
                drop((databases, database));
                // A statement may find out sooner that the schema moved.
                let next = tokio::time::timeout(wait, moved.notified());
                if stop.run_until_cancelled(next).await.is_none() {
                    break;
                }
            }
        });
        database
    }

    /// Connects to a database, or polls its schema; how long until the next time.
    async fn connect_or_poll(&self, database: &DatabaseEntry, wait: Duration) -> Duration {
        let state = database.state.borrow().clone();
        if let DatabaseState::Open(open) = state {
            self.poll(database, &open).await;
            database.hold(&open);
            return POLL_INTERVAL;
        }
        match self.connect(database).await {
            Ok(open) => {
                let tables = open.schema_snapshot().schema.tables().len();
                tracing::info!(project = database.project, database = database.id, tables, "database open");
                self.report_ready(database, &open);
                let open = Arc::new(open);
                database.state.send_replace(DatabaseState::Open(open.clone()));
                // Links that came meanwhile found nothing open.
                self.link(database, &open);
                self.publish_change(database, &open);
                database.hold(&open);
                POLL_INTERVAL
            }
            Err(error) => {
                let why = self.report_failure(&database.project, &database.id, &error);
                database.state.send_replace(DatabaseState::Failed(why));
                (wait * 2).min(RETRY_MAX)
            }
        }
    }

    async fn connect(&self, database: &DatabaseEntry) -> Result<Database, Error> {
        let source = config::DatabaseSource {
            id: database.id.clone(),
            spec: database.spec.clone(),
            folder: database.folder.clone(),
            data: self.data.clone(),
            neighbours: database.neighbours.clone(),
        };
        let tasks = self.tasks.clone();
        let (store, dialect) = blocking::run(move |_| config::open(&source, &tasks)).await??;
        let (metrics, memory, prepared) = (self.mesh.metrics(), self.memory.clone(), self.prepared.clone());
        let nats = self.mesh.bus().nats().filter(|_| store.shares_log());
        let nodes = nats.map(|nats| SharedLog::new(nats, &database.project, &database.id, metrics));
        let open = Database::connect(store, dialect, metrics, memory, prepared, (&self.tasks, nodes)).await?;
        open.link(database.links.load_full());
        Ok(open)
    }

    async fn poll(&self, database: &DatabaseEntry, open: &Database) {
        let (project, id) = (database.project.as_str(), database.id.as_str());
        match open.refresh().await {
            Ok(_) => {
                self.report_ready(database, open);
                if self.publish_change(database, open) {
                    tracing::info!(project, database = id, "schema changed");
                }
            }
            Err(error) => {
                self.report_failure(project, id, &error);
            }
        }
    }

    /// Reports that a database is served as its health, and to the log what is newly left out of it.
    fn report_ready(&self, database: &DatabaseEntry, open: &Database) {
        let mut logged = database.left_out.lock().expect("no code panics while it holds this lock");
        let snapshot = open.schema_snapshot();
        let why = |object: &LeftOut| (object.name.clone(), object.why.clone());
        let left_out = snapshot.left_out.iter().chain(&snapshot.links_left_out);
        let mut left_out: BTreeMap<String, String> = left_out.map(why).collect();
        for (name, why) in left_out.iter().filter(|(name, why)| logged.get(*name) != Some(*why)) {
            tracing::warn!(project = database.project, database = database.id, object = name, why, "left out");
        }
        logged.clone_from(&left_out);
        left_out.extend(self.report_lag(database, open));
        let state = if left_out.is_empty() { ComponentState::Ready } else { ComponentState::Partial(left_out) };
        self.mesh.health().set(database.component(), state);
    }

    /// Tells the metrics how late changes of rows are told; where that is long, with what `/ready` says of it.
    fn report_lag(&self, database: &DatabaseEntry, open: &Database) -> Option<(String, String)> {
        let lag = open.log_lag();
        let now_us = clock::unix_ms(SystemTime::now()).saturating_mul(1000);
        let late_us = lag.since_us.map_or(0, |since| now_us.saturating_sub(since).max(0));
        let late = Duration::from_micros(u64::try_from(late_us).unwrap_or_default());
        self.mesh.metrics().changes_lag(&database.project, &database.id, lag.bytes, late);
        (late >= LAG_REPORTED).then(|| {
            let text = format!("told {} s late, {} bytes of the log wait", late.as_secs(), lag.bytes);
            ("(changes)".to_owned(), text)
        })
    }

    /// Reports a failure as the health of the database and, when it is a new one, to the log.
    fn report_failure(&self, project: &str, id: &str, error: &Error) -> String {
        let component = component(project, id);
        let state = ComponentState::Failing(error.to_string());
        if self.mesh.health().get(&component).as_ref() != Some(&state) {
            tracing::warn!(project, database = id, cause = error.cause().unwrap_or_default(), "{error}");
        }
        self.mesh.health().set(component, state);
        error.to_string()
    }

    /// Publishes to the mesh that a schema changed, unless it was told of this one: of which project, and of which of
    /// its databases. Whether it did.
    fn publish_change(&self, database: &DatabaseEntry, open: &Database) -> bool {
        let version = open.schema_snapshot().version;
        let is_news = database.told.swap(version, Ordering::Relaxed) != version;
        if is_news {
            self.mesh.bus().publish("schema.changed", format!("{}/{}", database.project, database.id));
        }
        is_news
    }
}

impl DatabaseEntry {
    /// The database once it is open; a call before the first attempt has ended waits for it.
    pub async fn open(&self) -> Result<Arc<Database>, Error> {
        if let DatabaseState::Open(open) = &*self.state.borrow() {
            return Ok(open.clone());
        }
        // Rare, and large: kept out of the futures of all others.
        match Box::pin(self.after_first_attempt()).await {
            DatabaseState::Open(open) => Ok(open),
            DatabaseState::Connecting => Err(Error::Unavailable("it is still being opened".to_owned())),
            DatabaseState::Failed(why) => Err(Error::Unavailable(why)),
        }
    }

    /// Refuses live queries of a table where changes are not to be learnt.
    pub fn learns_changes(&self, table: &str) -> Result<(), Error> {
        match self.spec.changes.source {
            ChangesSource::Off => Err(Error::unfollowed(table, "changes.source of its database is off")),
            ChangesSource::Auto | ChangesSource::Slot | ChangesSource::Triggers => Ok(()),
        }
    }

    /// Keeps the tables captured that triggers are about.
    fn hold(&self, open: &Database) {
        let tables = self.trigger_tables.load();
        let none = BTreeSet::new();
        let wanted = if self.spec.changes.source == ChangesSource::Off { &none } else { &tables.0 };
        self.held.hold(open, wanted, tables.1);
    }

    /// The options of its answers.
    pub fn options(&self, numbers: Numbers, answer: AnswerLimit) -> AnswerOptions {
        AnswerOptions { limit: self.spec.limit, numbers, answer, snapshot: false }
    }

    /// Its state once the first attempt has ended.
    pub async fn after_first_attempt(&self) -> DatabaseState {
        let mut state = self.state.subscribe();
        let attempted = state.wait_for(|state| !matches!(state, DatabaseState::Connecting));
        match tokio::time::timeout(FIRST_ATTEMPT_TIMEOUT, attempted).await {
            Ok(Ok(state)) => state.clone(),
            // Nobody is left to try, or it takes too long.
            Ok(Err(_)) | Err(_) => DatabaseState::Connecting,
        }
    }

    fn may_refresh(&self) -> bool {
        let mut last_refresh = self.last_refresh.lock().expect("no code panics while it holds this lock");
        let is_due = last_refresh.elapsed() >= REFRESH_INTERVAL_MIN;
        if is_due {
            *last_refresh = Instant::now();
        }
        is_due
    }

    /// What is told when a statement finds that its schema moved; never while it is not open.
    fn moved(&self) -> Arc<Notify> {
        match &*self.state.borrow() {
            DatabaseState::Open(open) => open.moved(),
            DatabaseState::Connecting | DatabaseState::Failed(_) => Arc::default(),
        }
    }

    fn component(&self) -> Component {
        component(&self.project, &self.id)
    }
}

fn component(project: &str, id: &str) -> Component {
    Component::Database { project: project.to_owned(), database: id.to_owned() }
}

/// Introspects the database behind `url`, which is opened for it. A missing SQLite file is an error.
pub async fn introspect(url: &str, schema: &str, data: &Path) -> Result<Introspected, Error> {
    use crate::store::{Store, sqlite::Sqlite};
    use query::resources::Engine;

    let store = match Engine::of_url(url) {
        Some(Engine::Sqlite) => {
            let file = config::path(url, data).map_err(Error::Unavailable)?;
            Store::Sqlite(blocking::run(move |_| Sqlite::existing(&file, &Tasks::default())).await??)
        }
        Some(Engine::Postgres) => {
            let store = Postgres::open("introspected", url, schema, 1, &Tasks::default());
            Store::Postgres(store.map_err(query::Error::Malformed)?)
        }
        Some(Engine::Mysql) => {
            let store = Mysql::open("introspected", url, 1, &Tasks::default());
            Store::Mysql(store.map_err(query::Error::Malformed)?)
        }
        None => {
            let text = "expected a url of sqlite:, postgres: or mysql:".to_owned();
            return Err(query::Error::Malformed(text).into());
        }
    };
    store.introspect(&[]).await
}

/// The schemas of the PostgreSQL database behind `url`, which is opened for it, and the foreign keys between them.
pub async fn survey(url: &str) -> Result<Survey, Error> {
    let store = Postgres::open("surveyed", url, "public", 1, &Tasks::default()).map_err(query::Error::Malformed)?;
    Box::pin(store.survey()).await
}
