//! Registry of the buckets of all projects, opened and replaced as the resources say.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use foldhash::{HashMap, HashMapExt};
use mesh::{
    Component, ComponentState, Mesh, Tasks,
    config::ServiceName,
    resources::{Current, Snapshot},
};
use query::resources::{Bucket as Spec, BucketMeta, BucketResource};
use tracing::{error, info, warn};

use crate::{Config, Error, backend::Backend};

/// How often what uploads have left is looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(600);
/// Age of what is swept: no upload that goes on waits so long for its client.
const SWEPT_AGE: Duration = Duration::from_secs(3600);
/// How often a bucket that could not be opened is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// Backends that were opened in this process.
static OPENINGS: AtomicU64 = AtomicU64::new(0);

/// Buckets by project and id.
type Opened = HashMap<(String, String), Arc<Bucket>>;

/// The buckets of all projects.
#[derive(Clone)]
pub struct Buckets {
    opened: Arc<ArcSwap<Opened>>,
}

/// A bucket of the resources in force.
pub struct Bucket {
    /// Its settings.
    pub spec: Spec,
    /// Its backend; why there is none where it could not be opened.
    backend: Result<Backend, String>,
    /// Which opening of a backend it has.
    opened: u64,
    project: String,
    id: String,
}

impl Bucket {
    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its project.
    pub fn project(&self) -> &str {
        &self.project
    }

    /// A number that no other backend has, nor one that was opened in its place.
    pub fn opened(&self) -> u64 {
        self.opened
    }

    /// Its backend. Errors: it could not be opened.
    pub fn backend(&self) -> Result<&Backend, Error> {
        self.backend.as_ref().map_err(|_| Error::Unreachable(self.id.clone()))
    }
}

impl Buckets {
    /// The buckets of `current`, followed from now on.
    pub fn start(mesh: &Mesh, config: Config, mut current: Current, tasks: &Tasks) -> Self {
        let snapshot = current.borrow_and_update().clone();
        let first = opened(&snapshot, &config, tasks, &Opened::new());
        tell_health(mesh, &first);
        let buckets = Self { opened: Arc::new(ArcSwap::from_pointee(first)) };
        let (following, stop) = (buckets.clone(), tasks.stop().clone());
        let (mesh, for_follow) = (mesh.clone(), tasks.clone());
        tasks.spawn("storage: follow resources", async move {
            stop.run_until_cancelled(following.follow(mesh, config, current, for_follow)).await;
        });
        let (sweeping, stop) = (buckets.clone(), tasks.stop().clone());
        tasks.spawn("storage: sweep", async move {
            stop.run_until_cancelled(sweeping.sweep()).await;
        });
        buckets
    }

    /// The bucket `id` of a project.
    pub fn find(&self, project: &str, id: &str) -> Result<Arc<Bucket>, Error> {
        let opened = self.opened.load();
        let found = opened.get(&(project.to_owned(), id.to_owned()));
        found.cloned().ok_or_else(|| Error::UnknownBucket(id.to_owned()))
    }

    /// Opens the buckets of each new snapshot, and tries those again that could not be opened.
    async fn follow(self, mesh: Mesh, config: Config, mut current: Current, tasks: Tasks) {
        loop {
            let failed = self.opened.load().values().any(|bucket| bucket.backend.is_err());
            let changed = async { current.changed().await.is_ok() };
            let goes_on = match failed {
                true => tokio::time::timeout(RETRY_INTERVAL, changed).await.unwrap_or(true),
                false => changed.await,
            };
            if !goes_on {
                return;
            }
            let (snapshot, before) = (current.borrow_and_update().clone(), self.opened.load_full());
            let (config, tasks) = (config.clone(), tasks.clone());
            // Folders are made and opened.
            match tokio::task::spawn_blocking(move || opened(&snapshot, &config, &tasks, &before)).await {
                Ok(next) => {
                    tell_health(&mesh, &next);
                    self.opened.store(Arc::new(next));
                }
                Err(error) => error!(%error, "new buckets failed to open, the previous ones stay in force"),
            }
        }
    }

    async fn sweep(self) {
        let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
        loop {
            ticks.tick().await;
            for ((project, id), bucket) in self.opened.load_full().iter() {
                let Ok(backend) = bucket.backend() else { continue };
                match backend.sweep(u64::try_from(SWEPT_AGE.as_millis()).unwrap_or(u64::MAX)).await {
                    Ok(0) => {}
                    Ok(swept) => info!(project, bucket = id, swept, "unfinished uploads removed"),
                    Err(error) => warn!(project, bucket = id, %error, "unfinished uploads could not be removed"),
                }
            }
        }
    }
}

/// The buckets of `snapshot`; a backend whose settings are as `before` stays open.
fn opened(snapshot: &Snapshot, config: &Config, tasks: &Tasks, before: &Opened) -> Opened {
    let mut buckets = Opened::new();
    for document in snapshot.of_kind("bucket") {
        // What has faults is not in force.
        let Ok(BucketResource { meta: BucketMeta { project, id }, spec }) = document.read::<BucketMeta, Spec>() else {
            continue;
        };
        let known = before.get(&(project.clone(), id.clone())).filter(|known| known.spec.backend == spec.backend);
        let (backend, opened) = match known.map(|known| (&known.backend, known.opened)) {
            Some((Ok(backend), opened)) => (Ok(backend.clone()), opened),
            Some((Err(_), _)) | None => {
                let backend = Backend::open(&spec.backend, &project, &id, config, tasks);
                (backend.map_err(|error| why(&error)), OPENINGS.fetch_add(1, Ordering::Relaxed))
            }
        };
        if let (Err(cause), None) = (&backend, known) {
            error!(project, bucket = id, cause, "bucket cannot be opened");
        }
        let key = (project.clone(), id.clone());
        buckets.insert(key, Arc::new(Bucket { spec, backend, opened, project, id }));
    }
    buckets
}

/// Why a bucket could not be opened, for who runs the node.
fn why(error: &Error) -> String {
    match error {
        Error::Backend(cause) | Error::Full(cause) => cause.clone(),
        other => other.to_string(),
    }
}

fn tell_health(mesh: &Mesh, opened: &Opened) {
    let failed = opened.iter().filter_map(|((project, id), bucket)| {
        bucket.backend.as_ref().err().map(|cause| (format!("bucket {project}/{id}"), cause.clone()))
    });
    let failed: BTreeMap<String, String> = failed.collect();
    let state = if failed.is_empty() { ComponentState::Ready } else { ComponentState::Partial(failed) };
    mesh.health().set(Component::Service(ServiceName::of(&proto::services::storage::STORAGE)), state);
}
