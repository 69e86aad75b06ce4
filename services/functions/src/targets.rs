//! Registry of the services of all projects, replaced as the resources say.

mod remotes;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use mesh::{
    Tasks,
    resources::{Current, Document, Snapshot},
};
use query::{
    function::{Function, Service as Spec, ServiceMeta, ServiceResource},
    resources::{Numbers, Project, ProjectMeta, Resource},
};

use self::remotes::KnownRemote;
use crate::{
    Error, breaker::Breaker, client::CheckedAddresses, conversions::Conversions, grpc::Remote, health::PartHealth,
    limiter::Limiter, schemas::Schemas,
};

/// The id of the document of services without one of their own.
const DEFAULT: &str = "default";

/// Numbers of services.
static NUMBERS: AtomicU64 = AtomicU64::new(0);

/// Services by project and id.
type Known = HashMap<(String, String), Arc<Target>>;

/// The services of all projects. Clones are the same registry.
#[derive(Clone)]
pub struct Targets {
    known: Arc<ArcSwap<Known>>,
}

/// What servers of services need of the node.
pub struct Surroundings {
    /// The addresses that may be dialled.
    pub addresses: CheckedAddresses,
    /// Room for large messages.
    pub conversions: Conversions,
    /// Tells what does not work.
    pub health: PartHealth,
    /// Runs what outlives a call.
    pub tasks: Tasks,
}

/// A service of the resources in force.
pub struct Target {
    /// Tells it from all others of this process, also from itself before it was edited.
    pub number: u64,
    /// Its settings.
    pub spec: Spec,
    /// How its project writes integers.
    pub numbers: Numbers,
    /// Of a gRPC server.
    remote: Option<Arc<KnownRemote>>,
    states: BTreeMap<String, FunctionState>,
    /// Of all functions that are not listed together: their names are the callers'.
    default: Option<FunctionState>,
}

/// What this node knows of the calls of a function.
pub struct FunctionState {
    /// Its concurrency limit.
    pub limiter: Limiter,
    /// Its circuit breaker.
    pub breaker: Breaker,
    /// Its schemas.
    pub schemas: Arc<Schemas>,
}

impl FunctionState {
    fn of(function: &Function) -> Self {
        let schemas = Arc::new(Schemas::of(function));
        Self { limiter: Limiter::of(function), breaker: Breaker::default(), schemas }
    }
}

impl Target {
    fn new(spec: Spec, numbers: Numbers, remote: Option<Arc<KnownRemote>>) -> Self {
        let state = |(name, function): (&String, &Function)| (name.clone(), FunctionState::of(function));
        let states = spec.functions.iter().map(state).collect();
        let default = spec.default.as_ref().map(FunctionState::of);
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        Self { number, spec, numbers, remote, states, default }
    }

    /// Its gRPC server; `None` where it has none. Errors: its contract cannot be read.
    pub fn remote(&self) -> Option<Result<&Remote, Error>> {
        self.remote.as_ref().map(|remote| remote.remote())
    }

    /// The function called `name`, and what is known of its calls.
    pub fn function(&self, name: &str) -> Option<(&Function, &FunctionState)> {
        let listed = self.spec.functions.get(name).zip(self.states.get(name));
        listed.or_else(|| self.spec.default.as_ref().zip(self.default.as_ref()))
    }
}

impl Targets {
    /// The services of `current`, followed from now on.
    pub fn start(mut current: Current, surroundings: Surroundings) -> Self {
        let first = known(&current.borrow_and_update(), &Known::new(), &surroundings);
        let targets = Self { known: Arc::new(ArcSwap::from_pointee(first)) };
        let (following, tasks) = (targets.clone(), surroundings.tasks.clone());
        let stop = tasks.stop().clone();
        tasks.spawn("functions: follow resources", async move {
            stop.run_until_cancelled(following.follow(current, surroundings)).await;
        });
        targets
    }

    /// The service `id` of a project, which has a function called `function`.
    pub fn find(&self, project: &str, id: &str, function: &str) -> Result<Arc<Target>, Error> {
        let known = self.known.load();
        let of = |id: &str| known.get(&(project.to_owned(), id.to_owned()));
        let found = of(id).or_else(|| of(DEFAULT));
        let found = found.filter(|target| target.function(function).is_some());
        found.cloned().ok_or_else(|| Error::Unknown { service: id.to_owned(), function: function.to_owned() })
    }

    async fn follow(self, mut current: Current, surroundings: Surroundings) {
        while current.changed().await.is_ok() {
            let next = known(&current.borrow_and_update(), &self.known.load(), &surroundings);
            self.known.store(Arc::new(next));
        }
    }
}

/// The services of `snapshot`; one whose settings are as `before` keeps counting its calls, and a gRPC server its connection.
fn known(snapshot: &Snapshot, before: &Known, surroundings: &Surroundings) -> Known {
    let numbers = numbers(snapshot);
    let mut services = Known::new();
    for document in snapshot.of_kind("service") {
        // What has faults is not in force.
        let Ok(ServiceResource { meta: ServiceMeta { project, id }, spec }) = document.read::<ServiceMeta, Spec>()
        else {
            continue;
        };
        let numbers = numbers.get(&project).copied().unwrap_or_default();
        let key = (project, id);
        let before = before.get(&key);
        let remote = remotes::of(document, &key, &spec, before.and_then(|known| known.remote.as_ref()), surroundings);
        let kept = before.filter(|known| {
            let is_same_remote = match (&known.remote, &remote) {
                (Some(known), Some(remote)) => Arc::ptr_eq(known, remote),
                (known, remote) => known.is_none() && remote.is_none(),
            };
            known.spec == spec && known.numbers == numbers && is_same_remote
        });
        let target = kept.cloned().unwrap_or_else(|| Arc::new(Target::new(spec, numbers, remote)));
        services.insert(key, target);
    }
    services
}

/// How the projects write integers.
fn numbers(snapshot: &Snapshot) -> HashMap<String, Numbers> {
    let read = |document: &Document| document.read::<ProjectMeta, Project>().ok();
    let of = |Resource { meta, spec }: Resource<ProjectMeta, Project>| (meta.id, spec.numbers);
    snapshot.of_kind("project").filter_map(read).map(of).collect()
}
