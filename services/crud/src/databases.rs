//! The databases of all projects: opened in the background, looked at again and again, swapped when resources change.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use foldhash::{HashMap, HashMapExt};
use mesh::{Mesh, State, Tasks, resources};
use query::resources::{Database as Spec, DatabaseMeta, Numbers};
use tokio::sync::watch;
use tokio_util::sync::DropGuard;

use crate::{
    Error, blocking,
    budget::{AnswerLimit, Memory},
    config::{self, Config},
    open::Open,
    options::AnswerOptions,
};

/// How often an open database is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// How soon a database that was not reached is tried again; doubles up to [`LATEST`].
const SOONEST: Duration = Duration::from_millis(100);
const LATEST: Duration = Duration::from_secs(2);
/// Least time between two looks that callers ask for.
const ASKED: Duration = Duration::from_secs(1);
/// How long a call waits for the first try to reach a database.
const PATIENCE: Duration = Duration::from_millis(750);

/// All projects, as the resources in force say.
pub struct Databases {
    mesh: Mesh,
    tasks: Tasks,
    data: PathBuf,
    memory: Memory,
    projects: ArcSwap<HashMap<String, Project>>,
}

/// A project's databases, by id.
#[derive(Clone, Default)]
struct Project {
    numbers: Numbers,
    databases: HashMap<String, Arc<Database>>,
}

/// One database, whether it is reached or not.
pub struct Database {
    /// The project's id.
    pub project: String,
    /// Its id.
    pub id: String,
    /// What its resource says.
    pub spec: Spec,
    folder: PathBuf,
    reached: watch::Sender<Reached>,
    asked: Mutex<Instant>,
    /// Ends the task that looks after it.
    _stop: DropGuard,
}

/// Whether a database is reached.
#[derive(Clone)]
pub enum Reached {
    /// Not tried yet.
    Starting,
    /// Yes.
    Yes(Arc<Open>),
    /// No; why, for people.
    No(String),
}

impl Databases {
    /// The databases of `current`, and of what comes after it.
    pub fn start(mesh: Mesh, config: Config, mut current: resources::Current, tasks: Tasks) -> Arc<Self> {
        let projects = ArcSwap::from_pointee(HashMap::new());
        let databases =
            Arc::new(Self { mesh, tasks: tasks.clone(), data: config.data, memory: Memory::default(), projects });
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

    /// A database and how its project wants its answers.
    pub fn find(&self, project: &str, database: &str) -> Result<(Arc<Database>, Numbers), Error> {
        let projects = self.projects.load();
        let of = projects.get(project).ok_or_else(|| Error::UnknownProject(project.to_owned()))?;
        match of.databases.get(database) {
            Some(found) => Ok((found.clone(), of.numbers)),
            None => Err(Error::UnknownDatabase(database.to_owned())),
        }
    }

    /// The databases of a project, by id.
    pub fn of(&self, project: &str) -> Result<Vec<Arc<Database>>, Error> {
        let projects = self.projects.load();
        let of = projects.get(project).ok_or_else(|| Error::UnknownProject(project.to_owned()))?;
        let mut databases: Vec<_> = of.databases.values().cloned().collect();
        databases.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(databases)
    }

    /// Looks at a database now, unless that was done within the second.
    pub async fn refresh(&self, database: &Database) {
        let Reached::Yes(open) = database.after_first_try().await else { return };
        if !database.is_due() {
            return;
        }
        self.look(&database.project, &database.id, &open).await;
    }

    /// Puts the databases of `snapshot` in the place of those in force. Those whose resource is the same stay open.
    fn swap(self: &Arc<Self>, snapshot: &resources::Snapshot) {
        let before = self.projects.load_full();
        let mut projects: HashMap<String, Project> = config::projects(snapshot)
            .into_iter()
            .map(|(id, project)| (id, Project { numbers: project.numbers, databases: HashMap::new() }))
            .collect();
        for document in snapshot.of("database") {
            // The folder's checker refuses what does not read.
            let Ok((meta, spec)) = document.read::<DatabaseMeta, Spec>() else { continue };
            let Some(project) = projects.get_mut(&meta.project) else { continue };
            let known = before.get(&meta.project).and_then(|project| project.databases.get(&meta.id));
            let database = match known {
                Some(known) if known.spec == spec && known.folder == document.folder => known.clone(),
                _ => self.add(&meta, spec, &document.folder),
            };
            project.databases.insert(meta.id, database);
        }
        for database in before.values().flat_map(|project| project.databases.values()) {
            let stays =
                projects.get(&database.project).is_some_and(|project| project.databases.contains_key(&database.id));
            if !stays {
                self.mesh.board().remove(&database.part());
            }
        }
        self.projects.store(Arc::new(projects));
    }

    /// A database and the task that looks after it, for as long as it is in force.
    fn add(self: &Arc<Self>, meta: &DatabaseMeta, spec: Spec, folder: &Path) -> Arc<Database> {
        let stop = self.tasks.stop().child_token();
        let database = Arc::new(Database {
            project: meta.project.clone(),
            id: meta.id.clone(),
            spec,
            folder: folder.to_owned(),
            reached: watch::Sender::new(Reached::Starting),
            asked: Mutex::new(Instant::now()),
            _stop: stop.clone().drop_guard(),
        });
        let (all, this) = (Arc::downgrade(self), Arc::downgrade(&database));
        self.tasks.spawn("database", async move {
            let mut wait = SOONEST;
            loop {
                let (Some(databases), Some(database)) = (all.upgrade(), this.upgrade()) else { break };
                let Some(next) = stop.run_until_cancelled(Box::pin(databases.tend(&database, wait))).await else {
                    break;
                };
                wait = next;
                // Nothing keeps the database while its task waits.
                drop((databases, database));
                if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                    break;
                }
            }
        });
        database
    }

    /// Reaches a database, or looks at it; how long until the next time.
    async fn tend(&self, database: &Database, wait: Duration) -> Duration {
        let reached = database.reached.borrow().clone();
        if let Reached::Yes(open) = reached {
            self.look(&database.project, &database.id, &open).await;
            return LOOK;
        }
        match self.reach(database).await {
            Ok(open) => {
                let tables = open.known().schema.tables().len();
                tracing::info!(project = database.project, database = database.id, tables, "database open");
                database.reached.send_replace(Reached::Yes(Arc::new(open)));
                self.mesh.board().set(&database.part(), State::Ready);
                self.changed(&database.project, &database.id);
                LOOK
            }
            Err(error) => {
                let why = self.failing(&database.project, &database.id, &error);
                database.reached.send_replace(Reached::No(why));
                (wait * 2).min(LATEST)
            }
        }
    }

    async fn reach(&self, database: &Database) -> Result<Open, Error> {
        let source = config::DatabaseSource {
            id: database.id.clone(),
            spec: database.spec.clone(),
            folder: database.folder.clone(),
            data: self.data.clone(),
        };
        let tasks = self.tasks.clone();
        let (store, dialect) = blocking::run(move |_| config::open(&source, &tasks)).await??;
        Open::reach(store, dialect, self.mesh.metrics(), self.memory.clone()).await
    }

    async fn look(&self, project: &str, id: &str, open: &Open) {
        match open.refresh().await {
            Ok(has_changed) => {
                self.mesh.board().set(&part(project, id), State::Ready);
                if has_changed {
                    tracing::info!(project, database = id, "schema changed");
                    self.changed(project, id);
                }
            }
            Err(error) => {
                self.failing(project, id, &error);
            }
        }
    }

    /// Tells the board and, when that is news, the log.
    fn failing(&self, project: &str, id: &str, error: &Error) -> String {
        let part = part(project, id);
        let state = State::Failing(error.to_string());
        if self.mesh.board().parts().get(&part) != Some(&state) {
            tracing::warn!(project, database = id, cause = error.cause().unwrap_or_default(), "{error}");
        }
        self.mesh.board().set(&part, state);
        error.to_string()
    }

    /// Tells the mesh that a schema is not what it was: of which project, and of which of its databases.
    fn changed(&self, project: &str, database: &str) {
        self.mesh.bus().publish("schema.changed", format!("{project}/{database}"));
    }
}

impl Database {
    /// The database once it is reached; a call that comes before the first try waits for it.
    pub async fn open(&self) -> Result<Arc<Open>, Error> {
        if let Reached::Yes(open) = &*self.reached.borrow() {
            return Ok(open.clone());
        }
        match self.after_first_try().await {
            Reached::Yes(open) => Ok(open),
            Reached::Starting => Err(Error::Unavailable("it is still being opened".to_owned())),
            Reached::No(why) => Err(Error::Unavailable(why)),
        }
    }

    /// The options of its answers.
    pub fn options(&self, numbers: Numbers, answer: AnswerLimit) -> AnswerOptions {
        AnswerOptions { limit: self.spec.limit, numbers, answer }
    }

    /// Whether it is reached, once that was tried.
    pub async fn after_first_try(&self) -> Reached {
        let mut reached = self.reached.subscribe();
        let tried = reached.wait_for(|reached| !matches!(reached, Reached::Starting));
        match tokio::time::timeout(PATIENCE, tried).await {
            Ok(Ok(reached)) => reached.clone(),
            // Nobody is left to try, or it takes too long.
            Ok(Err(_)) | Err(_) => Reached::Starting,
        }
    }

    fn is_due(&self) -> bool {
        let mut asked = self.asked.lock().expect("no code panics while it holds this lock");
        let is_due = asked.elapsed() >= ASKED;
        if is_due {
            *asked = Instant::now();
        }
        is_due
    }

    fn part(&self) -> String {
        part(&self.project, &self.id)
    }
}

fn part(project: &str, id: &str) -> String {
    format!("database {project}/{id}")
}

/// What the database behind `url` holds: opens it, looks, closes it. A missing SQLite file is an error.
pub async fn introspect(url: &str, schema: &str, data: &Path) -> Result<query::Schema, Error> {
    use crate::store::{Store, postgres::Postgres, sqlite::Sqlite};
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
        None => {
            let text = "expected a url of sqlite: or postgres:".to_owned();
            return Err(query::Error::Malformed(text).into());
        }
    };
    store.introspect().await
}
