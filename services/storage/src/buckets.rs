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
    telemetry::{Counter, Metrics},
};
use proto::storage::Precondition;
use query::{
    file::FilePath,
    resources::{Bucket as Spec, BucketMeta, BucketResource, FileQuota, Project, ProjectMeta},
};
use tokio::sync::Semaphore;
use tracing::{error, info, warn};

use crate::{
    Config, Error,
    backend::{Appending, Backend, Upload},
    object::{Publication, Published},
    quota::{Account, CountingTurn, Ledger, Planned, QuotaMeters},
};

/// How often what uploads have left is looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(600);
/// How often it is looked at whether a bucket has to be counted again.
const RECOUNT_CHECK: Duration = Duration::from_secs(60);
/// Buckets that are counted again at once.
const COUNTS: usize = 4;
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
    /// What it has; `None` where it could not be opened.
    account: Option<Arc<Account>>,
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

impl Bucket {
    /// Its backend, and what it has.
    fn parts(&self) -> Result<(&Backend, &Arc<Account>), Error> {
        let (backend, account) = (self.backend()?, self.account.as_ref());
        account.map(|account| (backend, account)).ok_or_else(|| Error::Unreachable(self.id.clone()))
    }

    /// The most bytes that a file at `path` may have; `None`: any number.
    pub fn size_limit(&self, path: &FilePath) -> Option<u64> {
        let of_quotas = self.account.as_ref().and_then(|account| account.size_limit(path));
        [self.spec.limits.size.map(|size| size.0), of_quotas].into_iter().flatten().min()
    }

    /// Refuses a file that has no room now, before any of it is taken in. `uploads` are the unfinished ones that it was.
    pub async fn check_room(&self, path: &FilePath, size: u64, uploads: &[String]) -> Result<(), Error> {
        let (backend, account) = self.parts()?;
        account.check_room(backend, (path, size), uploads).await
    }

    /// Publishes a file of `size` bytes. `uploads` are the unfinished ones that are complete with it.
    pub async fn publish(
        &self,
        upload: Upload,
        publication: Publication,
        size: u64,
        uploads: Vec<String>,
    ) -> Result<Published, Error> {
        let planned = Planned::Files(vec![(publication.path.clone(), Some(size))]);
        let change = async move { upload.publish(publication).await };
        self.changed((planned, uploads), change).await
    }

    /// Publishes a file that is joined of the parts of the unfinished upload `name`, which ends with it.
    pub async fn publish_parts(
        &self,
        upload: Upload,
        publication: Publication,
        (name, size): (String, u64),
    ) -> Result<Published, Error> {
        let (planned, backend) =
            (Planned::Files(vec![(publication.path.clone(), Some(size))]), self.backend()?.clone());
        let closed = name.clone();
        let change = async move {
            let published = upload.publish(publication).await?;
            if let Err(error) = backend.close_upload(&closed).await {
                warn!(%error, "the parts of a file that was joined could not be removed");
            }
            Ok(published)
        };
        self.changed((planned, vec![name]), change).await
    }

    /// Publishes the file of the resumable upload `name`, of `size` bytes.
    pub async fn publish_upload(
        &self,
        upload: Appending,
        publication: Publication,
        (name, size): (String, u64),
    ) -> Result<Published, Error> {
        // Joining takes long, and keeps nobody waiting.
        let joined = upload.joined(&publication).await?;
        let planned = Planned::Files(vec![(publication.path.clone(), Some(size))]);
        self.changed((planned, vec![name]), async move { joined.publish(publication).await }).await
    }

    /// Deletes a file.
    pub async fn delete_file(&self, path: &FilePath, precondition: Option<Precondition>) -> Result<(), Error> {
        let (backend, at) = (self.backend()?.clone(), path.clone());
        let change = async move { backend.delete_file(&at, precondition.as_ref()).await };
        self.changed((Planned::Files(vec![(path.clone(), None)]), Vec::new()), change).await
    }

    /// Deletes a folder; whether there was one.
    pub async fn delete_folder(&self, path: &FilePath, judged: Vec<u8>) -> Result<bool, Error> {
        let (backend, account) = self.parts()?;
        Box::pin(account.delete_folder(backend, path, judged)).await
    }

    /// Moves a file inside the bucket; `None` where it can only be copied and deleted.
    pub async fn rename(&self, from: &FilePath, to: &Publication) -> Option<Result<Published, Error>> {
        let backend = self.backend().ok().filter(|backend| backend.renames())?.clone();
        let (source, publication) = (from.clone(), to.clone());
        let change = async move {
            let renamed = backend.rename(&source, &publication).await;
            renamed.unwrap_or_else(|| Err(Error::Backend("the backend moves no files".to_owned())))
        };
        Some(self.changed((Planned::Move { from: from.clone(), to: to.path.clone() }, Vec::new()), change).await)
    }

    /// Holds room for an unfinished upload, of which `bytes` tells how many it has.
    pub async fn hold_upload(&self, name: &str, path: &FilePath, bytes: impl Fn() -> Option<u64>) -> Result<(), Error> {
        let (_, account) = self.parts()?;
        account.hold_upload(name, path, bytes).await
    }

    /// An unfinished upload that is held begins, or has begun.
    pub fn begin_upload(&self, name: &str, is_beginning: bool) {
        if let Some(account) = &self.account {
            account.begin_upload(name, is_beginning);
        }
    }

    /// An unfinished upload has no more than so many bytes; `None`: it has ended.
    pub fn shrink_upload(&self, name: &str, bytes: impl FnOnce() -> Option<u64>) {
        if let Some(account) = &self.account {
            account.shrink_upload(name, bytes);
        }
    }

    /// Whether it has a quota.
    pub fn has_quota(&self) -> bool {
        self.account.as_ref().is_some_and(|account| account.has_limits())
    }

    /// Makes a change, within the quotas.
    async fn changed<T: Send + 'static>(
        &self,
        planned: (Planned, Vec<String>),
        change: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let (backend, account) = self.parts()?;
        Box::pin(account.change(backend, planned, change)).await
    }
}

impl Buckets {
    /// The buckets of `current`, followed from now on.
    pub fn start(mesh: &Mesh, config: Config, mut current: Current, tasks: &Tasks) -> Self {
        let snapshot = current.borrow_and_update().clone();
        let (metrics, refused) = (mesh.metrics().clone(), mesh.metrics().shed("file_quota"));
        let opener = Opener { config, tasks: tasks.clone(), metrics, refused };
        let first = opened(&snapshot, &opener, &Opened::new());
        tell_health(mesh, &first);
        count_new(&first, tasks);
        let buckets = Self { opened: Arc::new(ArcSwap::from_pointee(first)) };
        let (following, stop) = (buckets.clone(), tasks.stop().clone());
        let mesh = mesh.clone();
        tasks.spawn("storage: follow resources", async move {
            stop.run_until_cancelled(following.follow(mesh, opener, current)).await;
        });
        let (sweeping, stop) = (buckets.clone(), tasks.stop().clone());
        tasks.spawn("storage: sweep", async move {
            stop.run_until_cancelled(sweeping.sweep()).await;
        });
        let (counting, stop, for_counts) = (buckets.clone(), tasks.stop().clone(), tasks.clone());
        tasks.spawn("storage: count again", async move {
            stop.run_until_cancelled(counting.recount(for_counts)).await;
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
    async fn follow(self, mesh: Mesh, opener: Opener, mut current: Current) {
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
            let with = opener.clone();
            // Folders are made and opened.
            match tokio::task::spawn_blocking(move || opened(&snapshot, &with, &before)).await {
                Ok(next) => {
                    tell_health(&mesh, &next);
                    count_new(&next, &opener.tasks);
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

    /// Counts what buckets with quotas have again from time to time, each on its own, a few at once.
    async fn recount(self, tasks: Tasks) {
        let (mut ticks, turns) = (tokio::time::interval(RECOUNT_CHECK), Arc::new(Semaphore::new(COUNTS)));
        loop {
            ticks.tick().await;
            for bucket in self.opened.load_full().values() {
                let account = bucket.account.as_ref().filter(|own| own.is_due());
                let Some(turn) = account.and_then(Account::begin_counting) else { continue };
                let (bucket, turns, stop) = (bucket.clone(), turns.clone(), tasks.stop().clone());
                tasks.spawn("storage: count files again", async move {
                    stop.run_until_cancelled(Box::pin(recounted(&bucket, (turn, &turns)))).await;
                });
            }
        }
    }
}

/// Counts what buckets with quotas have, where that is not known yet.
fn count_new(opened: &Opened, tasks: &Tasks) {
    for bucket in opened.values() {
        let Some(turn) = bucket.account.as_ref().filter(|own| !own.is_counted()).and_then(Account::begin_counting)
        else {
            continue;
        };
        let (bucket, stop) = (bucket.clone(), tasks.stop().clone());
        tasks.spawn("storage: count files", async move {
            stop.run_until_cancelled(counted(&bucket, turn)).await;
        });
    }
}

/// Counts a bucket again, once it is its turn.
async fn recounted(bucket: &Bucket, (_turn, turns): (CountingTurn, &Semaphore)) {
    let (Ok(_place), Ok((backend, account))) = (turns.acquire().await, bucket.parts()) else { return };
    if let Err(error) = account.count(backend).await {
        let (project, bucket) = (&bucket.project, &bucket.id);
        warn!(project, bucket, %error, "files of a bucket with quotas could not be counted");
    }
}

/// Counts a bucket until it is counted.
async fn counted(bucket: &Bucket, turn: CountingTurn) {
    let Ok((backend, account)) = bucket.parts() else { return };
    let mut turn = Some(turn);
    while turn.is_some() {
        while !account.is_counted() {
            if let Err(error) = account.count(backend).await {
                let (project, bucket) = (&bucket.project, &bucket.id);
                warn!(project, bucket, %error, "files of a bucket with quotas could not be counted");
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
        }
        drop(turn);
        // Another quota may have come between.
        turn = (!account.is_counted()).then(|| account.begin_counting()).flatten();
    }
}

/// Ledgers of projects: those of the buckets `before`, with the quotas of `snapshot`.
struct Ledgers<'a> {
    snapshot: &'a Snapshot,
    before: &'a Opened,
    known: HashMap<String, (Arc<Ledger>, Option<FileQuota>)>,
}

impl Ledgers<'_> {
    fn of(&mut self, project: &str) -> (Arc<Ledger>, Option<FileQuota>) {
        if let Some(known) = self.known.get(project) {
            return known.clone();
        }
        let mut before = self.before.iter().filter(|((of, _), _)| of == project);
        let ledger = before.find_map(|(_, bucket)| bucket.account.as_ref()).map(|account| account.ledger().clone());
        let documents = self.snapshot.of_kind("project").filter(|document| document.name("id") == Some(project));
        let specs = documents.filter_map(|document| document.read::<ProjectMeta, Project>().ok());
        let quota = specs.map(|project| project.spec.limits.file_quota).next().flatten();
        let ledger = ledger.unwrap_or_default();
        ledger.limit_project(quota);
        self.known.insert(project.to_owned(), (ledger.clone(), quota));
        (ledger, quota)
    }

    /// The account of a bucket: that of the same backend before, where there is one.
    fn account(&mut self, opener: &Opener, key: (&str, &str), spec: &Spec, known: Option<&Bucket>) -> Arc<Account> {
        let (ledger, of_project) = self.of(key.0);
        let known = known.and_then(|known| known.account.clone());
        let account = known.unwrap_or_else(|| {
            let meters =
                QuotaMeters { usage: opener.metrics.file_usage(key.0, key.1), refused: opener.refused.clone() };
            Arc::new(Account::new(ledger, opener.tasks.clone(), meters))
        });
        account.limit(spec, of_project);
        account
    }
}

/// What buckets are opened with.
#[derive(Clone)]
struct Opener {
    config: Config,
    tasks: Tasks,
    metrics: Metrics,
    /// Changes that a quota has refused.
    refused: Counter,
}

/// The buckets of `snapshot`; a backend whose settings are as `before` stays open.
fn opened(snapshot: &Snapshot, opener: &Opener, before: &Opened) -> Opened {
    let mut buckets = Opened::new();
    let mut ledgers = Ledgers { snapshot, before, known: HashMap::new() };
    for document in snapshot.of_kind("bucket") {
        // What has faults is not in force.
        let Ok(BucketResource { meta: BucketMeta { project, id }, spec }) = document.read::<BucketMeta, Spec>() else {
            continue;
        };
        let known = before.get(&(project.clone(), id.clone())).filter(|known| known.spec.backend == spec.backend);
        let (backend, opened) = match known.map(|known| (&known.backend, known.opened)) {
            Some((Ok(backend), opened)) => (Ok(backend.clone()), opened),
            Some((Err(_), _)) | None => {
                let backend = Backend::open(&spec.backend, &project, &id, &opener.config, &opener.tasks);
                (backend.map_err(|error| why(&error)), OPENINGS.fetch_add(1, Ordering::Relaxed))
            }
        };
        if let (Err(cause), None) = (&backend, known) {
            error!(project, bucket = id, cause, "bucket cannot be opened");
        }
        let same = known.filter(|known| known.opened == opened).map(Arc::as_ref);
        let account = backend.is_ok().then(|| ledgers.account(opener, (&project, &id), &spec, same));
        let key = (project.clone(), id.clone());
        buckets.insert(key, Arc::new(Bucket { spec, backend, opened, account, project, id }));
    }
    end_replaced(opener, before, &buckets);
    buckets
}

/// Ends the accounts of buckets that are there no longer, or have another backend: requests that still go on have them.
fn end_replaced(opener: &Opener, before: &Opened, opened: &Opened) {
    for (key, bucket) in before {
        let next = opened.get(key).and_then(|next| next.account.as_ref());
        if let Some(account) = bucket.account.as_ref().filter(|own| next.is_none_or(|next| !Arc::ptr_eq(own, next))) {
            account.end();
        }
        if next.is_none_or(|next| !next.has_limits()) {
            opener.metrics.file_usage(&key.0, &key.1).forget();
        }
    }
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
