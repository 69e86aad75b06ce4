//! Registry of the services of all projects, replaced as the resources say.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use arc_swap::ArcSwap;
use mesh::{
    Tasks,
    resources::{Current, Snapshot},
};
use query::function::{Function, Service as Spec, ServiceMeta, ServiceResource};

use crate::{Error, breaker::Breaker, limiter::Limiter};

/// The id of the document of services without one of their own.
const DEFAULT: &str = "default";

/// Services by project and id.
type Known = HashMap<(String, String), Arc<Target>>;

/// The services of all projects. Clones are the same registry.
#[derive(Clone)]
pub struct Targets {
    known: Arc<ArcSwap<Known>>,
}

/// A service of the resources in force.
pub struct Target {
    /// Its settings.
    pub spec: Spec,
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
}

impl FunctionState {
    fn of(function: &Function) -> Self {
        Self { limiter: Limiter::of(function), breaker: Breaker::default() }
    }
}

impl Target {
    fn new(spec: Spec) -> Self {
        let state = |(name, function): (&String, &Function)| (name.clone(), FunctionState::of(function));
        let states = spec.functions.iter().map(state).collect();
        let default = spec.default.as_ref().map(FunctionState::of);
        Self { spec, states, default }
    }

    /// The function called `name`, and what is known of its calls.
    pub fn function(&self, name: &str) -> Option<(&Function, &FunctionState)> {
        let listed = self.spec.functions.get(name).zip(self.states.get(name));
        listed.or_else(|| self.spec.default.as_ref().zip(self.default.as_ref()))
    }
}

impl Targets {
    /// The services of `current`, followed from now on.
    pub fn start(mut current: Current, tasks: &Tasks) -> Self {
        let first = known(&current.borrow_and_update(), &Known::new());
        let targets = Self { known: Arc::new(ArcSwap::from_pointee(first)) };
        let (following, stop) = (targets.clone(), tasks.stop().clone());
        tasks.spawn("functions: follow resources", async move {
            stop.run_until_cancelled(following.follow(current)).await;
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

    async fn follow(self, mut current: Current) {
        while current.changed().await.is_ok() {
            let next = known(&current.borrow_and_update(), &self.known.load());
            self.known.store(Arc::new(next));
        }
    }
}

/// The services of `snapshot`; one whose settings are as `before` keeps counting its calls.
fn known(snapshot: &Snapshot, before: &Known) -> Known {
    let mut services = Known::new();
    for document in snapshot.of_kind("service") {
        // What has faults is not in force.
        let Ok(ServiceResource { meta: ServiceMeta { project, id }, spec }) = document.read::<ServiceMeta, Spec>()
        else {
            continue;
        };
        let key = (project, id);
        let kept = before.get(&key).filter(|known| known.spec == spec).cloned();
        services.insert(key, kept.unwrap_or_else(|| Arc::new(Target::new(spec))));
    }
    services
}
