//! Catalogue of projects: settings, databases and their schemas.

mod check;
mod follow;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use foldhash::{HashMap, HashMapExt};
use mesh::{Call, Code, Fault, Mesh, Tasks, resources::Current};
use proto::{
    Links,
    crud::{Database as Described, DescribeRequest, DescribeResponse},
};
use query::{
    Operation, Schema, function,
    hook::{BeforeWrites, Hook},
    resources::{self, Engine},
};
use tokio::sync::{Mutex, watch};

pub use check::{PROJECT, is_project_id};

/// The shortest time between two refreshes of a project on behalf of clients.
const MIN_REFRESH_INTERVAL: Duration = Duration::from_secs(1);
/// How long requests to a new project wait for the first description of its databases.
const FIRST_DESCRIBE_WAIT: Duration = Duration::from_millis(500);

/// A project at one moment. Swapped as a whole.
#[derive(Debug, Clone)]
pub struct Project {
    /// Its id.
    pub id: Arc<str>,
    /// Its settings.
    pub spec: resources::Project,
    /// Its databases, in the order of their resources.
    pub databases: Vec<Database>,
    /// Its buckets, in the order of their resources.
    pub buckets: Vec<Arc<BucketSettings>>,
    /// Its services, in the order of their resources.
    pub services: Vec<Arc<ServiceSettings>>,
    /// Functions that are asked before rows are written, by database and table; `default`: before those of tables without a
    /// document of their own.
    pub hooks: Arc<Hooks>,
    /// Whether callers may queue custom events of some type.
    pub has_events: bool,
    /// Changes whenever the settings or a schema do: what is planned under one version is void under another.
    pub version: u64,
}

/// Hooks by database and table.
pub type Hooks = BTreeMap<(String, String), BeforeWrites>;

/// The id of the document of tables without one of their own.
pub(crate) const DEFAULT_TABLE: &str = "default";

/// A project as it is known at a moment.
#[derive(Debug)]
pub struct KnownProject {
    /// The project.
    pub project: Arc<Project>,
    /// Whether its databases were looked at.
    pub is_described: bool,
}

/// The project that a request is for.
#[derive(Debug, Clone)]
pub struct ProjectRef<'a> {
    /// Its id.
    pub id: &'a str,
    /// The project, where it was found when the request began, and its databases had been looked at.
    pub found: Option<Arc<Project>>,
}

impl<'a> From<&'a str> for ProjectRef<'a> {
    fn from(id: &'a str) -> Self {
        Self { id, found: None }
    }
}

/// A database of a project.
#[derive(Debug, Clone, PartialEq)]
pub struct Database {
    /// Its id.
    pub id: Arc<str>,
    /// Which engine.
    pub engine: resources::Engine,
    /// Its schema; `None` while it has not been reached.
    pub schema: Option<Arc<Schema>>,
    /// The version of the schema; 0 while the database has not been reached.
    pub version: u64,
    /// Whether the first attempt to reach it is still under way.
    pub is_opening: bool,
}

/// A bucket of a project.
#[derive(Debug, PartialEq)]
pub struct BucketSettings {
    /// Its id.
    pub id: String,
    /// Its settings.
    pub spec: resources::Bucket,
}

/// The id of the document of services without one of their own.
const DEFAULT_SERVICE: &str = "default";

/// A service of a project.
#[derive(Debug, PartialEq)]
pub struct ServiceSettings {
    /// Its id.
    pub id: String,
    /// Its settings.
    pub spec: function::Service,
}

impl Database {
    /// Why it has no schema, for callers.
    pub(crate) fn why_unreachable(&self) -> String {
        let Self { id, is_opening, .. } = self;
        if *is_opening {
            format!("database {id} is still being opened")
        } else {
            format!("database {id} cannot be reached")
        }
    }
}

impl Project {
    /// The database that `alias` means: its id; else without a `sql-` prefix; else, for `postgres`, `mysql`, `sqlite`
    /// and `mongo` (with or without `sql-`), the only database of that engine. `None` where nothing is meant.
    pub fn database(&self, alias: &str) -> Option<&Database> {
        let called = |id: &str| self.databases.iter().find(|database| &*database.id == id);
        let bare = alias.strip_prefix("sql-").unwrap_or(alias);
        if let Some(database) = called(alias).or_else(|| called(bare)) {
            return Some(database);
        }
        let mut of_engine = self.databases.iter().filter(|database| database.engine.name() == bare);
        let only = of_engine.next()?;
        of_engine.next().is_none().then_some(only)
    }

    /// The bucket that is reached without its id: the default one, or the only one.
    pub(crate) fn default_bucket(&self) -> Option<&Arc<BucketSettings>> {
        let default = self.buckets.iter().find(|bucket| bucket.spec.default);
        default.or_else(|| self.buckets.first().filter(|_| self.buckets.len() == 1))
    }

    /// The function of a service, as far as the resources say.
    pub(crate) fn function(&self, service: &str, function: &str) -> Option<&function::Function> {
        let of = |id: &str| self.services.iter().find(|known| known.id == id);
        of(service).or_else(|| of(DEFAULT_SERVICE))?.spec.function(function)
    }

    /// What is asked before an operation on rows of a table.
    pub(crate) fn hook(&self, database: &str, table: &str, operation: Operation) -> Option<&Hook> {
        if self.hooks.is_empty() {
            return None;
        }
        let of = |table: &str| self.hooks.get(&(database.to_owned(), table.to_owned()));
        of(table).or_else(|| of(DEFAULT_TABLE))?.of(operation)
    }

    /// The schema of the database called `id`.
    ///
    /// Errors: `UNKNOWN_DATABASE`; `UNAVAILABLE` while it has not been reached.
    pub(crate) fn schema(&self, id: &str) -> Result<&Arc<Schema>, Fault> {
        self.described(id).map(|(_, schema)| schema)
    }

    /// The database called `id`, and its schema. Errors: as of [`Project::schema`].
    pub(crate) fn described(&self, id: &str) -> Result<(&Database, &Arc<Schema>), Fault> {
        let known = self.databases.iter().find(|database| &*database.id == id);
        let database = known.ok_or_else(|| unknown_database(self, id))?;
        let schema = database.schema.as_ref().ok_or_else(|| unreachable(database))?;
        Ok((database, schema))
    }
}

/// The fault of a project without a database called `alias`.
pub(crate) fn unknown_database(project: &Project, alias: &str) -> Fault {
    Fault::new(Code::UnknownDatabase, format!("database {alias} is not in project {}", project.id))
}

/// The fault of a database without a schema.
pub(crate) fn unreachable(database: &Database) -> Fault {
    Fault::new(Code::Unavailable, database.why_unreachable())
}

/// All projects of this node, each as it is known now. Clones are the same catalogue.
#[derive(Clone)]
pub struct Catalogue {
    shared: Arc<Shared>,
}

struct Shared {
    mesh: Mesh,
    entries: ArcSwap<HashMap<String, Arc<ProjectEntry>>>,
    versions: AtomicU64,
    changes: watch::Sender<()>,
}

/// Cache entry of one project: its current snapshot and the state of its refreshes.
struct ProjectEntry {
    now: ArcSwap<Project>,
    /// When the project was added.
    since: Instant,
    /// Whether crud has described its databases once, each after a first attempt to reach it.
    is_described: watch::Sender<bool>,
    /// When a client last had the databases looked at again. Who holds the lock asks; the others wait for the outcome.
    refreshed: Mutex<Option<Instant>>,
}

impl Catalogue {
    /// A catalogue of the projects of `current`, followed in the background from now on.
    pub fn start(mesh: Mesh, current: Current, tasks: &Tasks) -> Self {
        let (entries, versions, changes) = (ArcSwap::default(), AtomicU64::new(1), watch::Sender::default());
        let shared = Shared { mesh, entries, versions, changes };
        let catalogue = Self { shared: Arc::new(shared) };
        follow::start(catalogue.clone(), current, tasks);
        catalogue
    }

    /// The project called `id`, as far as it is known without any waiting.
    pub(crate) fn known(&self, id: &str) -> Option<KnownProject> {
        let entries = self.shared.entries.load();
        let entry = entries.get(id)?;
        Some(KnownProject { project: entry.now.load_full(), is_described: *entry.is_described.borrow() })
    }

    /// The project called `id`, as far as its resources say.
    pub(crate) fn settings(&self, id: &str) -> Option<Arc<Project>> {
        self.shared.entries.load().get(id).map(|entry| entry.now.load_full())
    }

    /// Told when a project is added, changed or removed, or what a database of it holds.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.shared.changes.subscribe()
    }

    /// All projects as far as their resources say, ordered by their ids.
    pub(crate) fn projects(&self) -> Vec<Arc<Project>> {
        let entries = self.shared.entries.load();
        let mut projects: Vec<Arc<Project>> = entries.values().map(|entry| entry.now.load_full()).collect();
        projects.sort_by(|one, other| one.id.cmp(&other.id));
        projects
    }

    /// The origins that project `id` lets call from a browser; those of all projects where it is `None`.
    pub(crate) fn origins(&self, id: Option<&str>) -> Vec<String> {
        let entries = self.shared.entries.load();
        let of = |entry: &Arc<ProjectEntry>| entry.now.load().spec.cors.origins.clone();
        match id {
            Some(id) => entries.get(id).map(of).unwrap_or_default(),
            None => entries.values().flat_map(of).collect(),
        }
    }

    /// The project that a request is for. Waits, and not for long, only where it is new and its databases are not yet known.
    ///
    /// Errors: `UNKNOWN_PROJECT`.
    pub(crate) async fn project(&self, project: ProjectRef<'_>) -> Result<Arc<Project>, Fault> {
        if let Some(found) = project.found {
            return Ok(found);
        }
        let entry = self.entry(project.id)?;
        let is_described = *entry.is_described.borrow();
        let left =
            if is_described { Duration::ZERO } else { FIRST_DESCRIBE_WAIT.saturating_sub(entry.since.elapsed()) };
        if !left.is_zero() {
            let mut described = entry.is_described.subscribe();
            let described = async move { described.wait_for(|described| *described).await.map(drop) };
            // Whatever comes first: with nothing known, the request is told that its database cannot be reached.
            let _ = Box::pin(tokio::time::timeout(left, described)).await;
        }
        Ok(entry.now.load_full())
    }

    /// The project after crud has looked at its databases again; `None` where that showed nothing new, or where it
    /// happened less than a second ago and showed `known`.
    pub(crate) async fn refreshed(&self, call: &Call, known: &Project) -> Result<Option<Arc<Project>>, Fault> {
        let entry = self.entry(&known.id)?;
        let newer = || Some(entry.now.load_full()).filter(|now| now.version != known.version);
        let mut last = entry.refreshed.lock().await;
        let is_due = last.is_none_or(|last| last.elapsed() >= MIN_REFRESH_INTERVAL);
        if newer().is_none() && is_due {
            let request = describe_request(&entry.now.load(), true);
            let described = self.shared.mesh.crud().describe(call, request).await?;
            *last = Some(Instant::now());
            self.apply_description(&entry, described);
        }
        Ok(newer())
    }

    fn entry(&self, id: &str) -> Result<Arc<ProjectEntry>, Fault> {
        let known = self.shared.entries.load().get(id).cloned();
        known.ok_or_else(|| Fault::new(Code::UnknownProject, format!("project {id} is not known")))
    }

    /// Replaces the known databases by what crud describes. A database that cannot be reached now keeps
    /// what it held before.
    fn apply_description(&self, entry: &ProjectEntry, described: DescribeResponse) {
        let mut found: HashMap<String, Database> = HashMap::new();
        for database in described.databases {
            let engine = Engine::named(&database.engine);
            // What is known already is not sent again.
            let Some(engine) = engine.filter(|_| database.schema.is_some() || database.version == 0) else { continue };
            let is_opening = database.is_opening();
            let Described { id, version, schema, .. } = database;
            found.insert(id.clone(), Database { id: id.into(), engine, schema, version, is_opening });
        }
        let before = entry.now.rcu(|now| {
            // Where the resources here say another engine, crud knows better: it has the database open.
            let of = |known: &Database| match found.get(&*known.id) {
                // One that cannot be reached now keeps what it held before.
                Some(found) if found.schema.is_some() || known.schema.is_none() => found.clone(),
                Some(_) | None => known.clone(),
            };
            let databases: Vec<Database> = now.databases.iter().map(of).collect();
            if databases == now.databases {
                return now.clone();
            }
            Arc::new(Project { databases, version: self.next_version(), ..Project::clone(now) })
        });
        if before.version != entry.now.load().version {
            self.shared.changes.send_replace(());
        }
    }

    fn next_version(&self) -> u64 {
        self.shared.versions.fetch_add(1, Ordering::Relaxed)
    }
}

/// The `describe` request of a project; schemas of known versions are not sent again.
fn describe_request(project: &Project, refresh: bool) -> DescribeRequest {
    let known = project.databases.iter().filter(|database| database.schema.is_some());
    let known = known.map(|database| (database.id.as_ref().to_owned(), database.version)).collect();
    DescribeRequest { project: project.id.as_ref().to_owned(), refresh, known }
}

impl ProjectEntry {
    fn new(project: Project) -> Self {
        Self {
            now: ArcSwap::from_pointee(project),
            since: Instant::now(),
            is_described: watch::Sender::new(false),
            refreshed: Mutex::new(None),
        }
    }

    /// Whether something is still to be learnt of its databases.
    fn is_partial(&self) -> bool {
        self.now.load().databases.iter().any(|database| database.schema.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(databases: &[(&str, Engine)]) -> Project {
        let database = |&(id, engine): &(&str, Engine)| Database {
            id: id.into(),
            engine,
            schema: None,
            version: 0,
            is_opening: false,
        };
        Project {
            id: "shop".into(),
            spec: resources::Project::default(),
            databases: databases.iter().map(database).collect(),
            buckets: Vec::new(),
            services: Vec::new(),
            hooks: Arc::default(),
            has_events: false,
            version: 1,
        }
    }

    fn meant(databases: &[(&str, Engine)], alias: &str) -> Option<String> {
        project(databases).database(alias).map(|database| database.id.as_ref().to_owned())
    }

    #[test]
    fn an_id_means_its_database_even_if_it_is_the_name_of_an_engine() {
        let databases = [("sqlite", Engine::Postgres), ("sql-music", Engine::Sqlite), ("music", Engine::Sqlite)];
        assert_eq!(meant(&databases, "sqlite").as_deref(), Some("sqlite"));
        assert_eq!(meant(&databases, "sql-music").as_deref(), Some("sql-music"));
        assert_eq!(meant(&databases, "sql-sqlite").as_deref(), Some("sqlite"));
    }

    #[test]
    fn an_engine_means_its_only_database() {
        let databases = [("music", Engine::Sqlite), ("shop", Engine::Postgres)];
        for alias in ["postgres", "sql-postgres", "shop", "sql-shop"] {
            assert_eq!(meant(&databases, alias).as_deref(), Some("shop"), "{alias}");
        }
    }

    #[test]
    fn an_engine_with_two_databases_or_none_means_nothing() {
        let databases = [("a", Engine::Sqlite), ("b", Engine::Sqlite)];
        for alias in ["sqlite", "sql-sqlite", "mysql", "mongo", "", "sql-"] {
            assert_eq!(meant(&databases, alias), None, "{alias}");
        }
    }
}
