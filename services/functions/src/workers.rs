//! Worker pools: processes of users that dialled in and take calls of a service, least busy first.

mod instance;
mod session;

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use mesh::telemetry::Gauge;
use proto::functions::CallResponse;
use query::function::Function;
use tokio::sync::{SemaphorePermit, oneshot};

use self::instance::Instance;
pub use self::{
    instance::{Invocation, Registration},
    session::serve,
};
use crate::{Error, limiter::Limiter};

/// The most workers of one service on a node.
const INSTANCES_MAX: usize = 1000;

/// The workers of all services. Clones are the same.
#[derive(Clone)]
pub struct Workers(Arc<Shared>);

struct Shared {
    /// Those of services that have workers, by project and service.
    pools: Mutex<HashMap<(String, String), Arc<Pool>>>,
    next: AtomicU64,
    connected: Gauge,
}

/// The workers of one service, and the calls that wait for them.
#[derive(Default)]
struct Pool(Mutex<PoolState>);

#[derive(Default)]
struct PoolState {
    instances: Vec<Arc<Instance>>,
    /// In order of arrival, which is that of their numbers. None waits while a worker has room for it.
    waiting: VecDeque<Waiter>,
    arrivals: u64,
}

/// A call that waits. Dropped, its caller is told that there is no worker.
struct Waiter {
    number: u64,
    function: String,
    concurrency: u32,
    slot: oneshot::Sender<Slot>,
}

/// The result of a call, as its worker tells it.
pub type WorkerResult = Result<CallResponse, Error>;

impl Workers {
    /// None yet; `connected` counts them.
    pub fn new(connected: Gauge) -> Self {
        Self(Arc::new(Shared { pools: Mutex::default(), next: AtomicU64::new(0), connected }))
    }

    fn pools(&self) -> MutexGuard<'_, HashMap<(String, String), Arc<Pool>>> {
        self.0.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pool(&self, project: &str, service: &str) -> Option<Arc<Pool>> {
        self.pools().get(&(project.to_owned(), service.to_owned())).cloned()
    }

    /// A number that no other worker and no other call of this process has.
    fn number(&self) -> u64 {
        self.0.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Adds a worker. Errors: there are too many.
    fn add(&self, instance: &Arc<Instance>) -> Result<(), Error> {
        let Registration { project, service, .. } = &instance.registration;
        let mut pools = self.pools();
        let pool = pools.entry((project.clone(), service.clone())).or_default().clone();
        {
            let mut state = pool.state();
            if state.instances.len() >= INSTANCES_MAX {
                return Err(Error::TooManyWorkers(INSTANCES_MAX));
            }
            state.instances.push(instance.clone());
        }
        self.0.connected.inc();
        drop(pools);
        pool.dispatch(instance);
        Ok(())
    }

    /// Removes a worker; its calls fail at once.
    fn remove(&self, instance: &Instance) {
        let Registration { project, service, .. } = &instance.registration;
        let key = (project.clone(), service.clone());
        instance.break_off();
        let mut pools = self.pools();
        let Some(pool) = pools.get(&key).cloned() else { return };
        let is_empty = {
            let mut state = pool.state();
            state.instances.retain(|other| other.number != instance.number);
            state.instances.is_empty()
        };
        if is_empty {
            pools.remove(&key);
        }
        self.0.connected.dec();
        drop(pools);
        pool.refuse_unserved();
    }

    /// The worker gets no more calls. Those that wait for it alone are refused.
    fn drain(&self, instance: &Instance) {
        let Registration { project, service, .. } = &instance.registration;
        instance.drain();
        if let Some(pool) = self.pool(project, service) {
            pool.refuse_unserved();
        }
    }

    /// Calls a function of a service: on the worker that has the fewest calls, once one has room.
    ///
    /// Errors: there is no worker, too many calls wait, or the worker goes meanwhile. Dropped, the worker is told.
    pub async fn call(
        &self,
        (project, service): (&str, &str),
        limits: (&Function, &Limiter),
        invocation: Invocation,
    ) -> WorkerResult {
        let none = || Error::NoWorker(service.to_owned());
        let pool = self.pool(project, service).ok_or_else(none)?;
        let slot = match pool.enter(&invocation.function, limits)? {
            Entered::Slot(slot) => slot,
            Entered::Waits(slot, _turn) => slot.await.map_err(|_| none())?,
            Entered::Unserved => return Err(none()),
        };
        slot.run(invocation, format!("{:x}", self.number())).await
    }
}

/// What a search for room came to.
enum Entered<'l> {
    Slot(Slot),
    /// All workers of the function are busy.
    Waits(oneshot::Receiver<Slot>, Turn<'l>),
    /// No worker has the function.
    Unserved,
}

impl Pool {
    fn state(&self) -> MutexGuard<'_, PoolState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room on the least busy worker that has the function, of which it runs fewer than its `concurrency`; else a place
    /// among the calls that wait. Errors: too many wait.
    fn enter<'l>(
        self: &Arc<Self>,
        function: &str,
        (limits, limiter): (&Function, &'l Limiter),
    ) -> Result<Entered<'l>, Error> {
        let concurrency = limits.concurrency();
        let mut state = self.state();
        let mut serving = state.instances.iter().filter(|instance| instance.serves(function)).peekable();
        if serving.peek().is_none() {
            return Ok(Entered::Unserved);
        }
        let now = Instant::now();
        let free = serving.filter_map(|instance| Some((instance.load(function, concurrency, now)?, instance)));
        let least = free.min_by_key(|(load, _)| *load).map(|(_, instance)| instance.clone());
        if let Some(instance) = least
            && instance.begin(function, concurrency)
        {
            return Ok(Entered::Slot(self.slot(instance, function)));
        }
        let place = limiter.wait()?;
        let (slot, given) = oneshot::channel();
        state.arrivals += 1;
        let number = state.arrivals;
        state.waiting.push_back(Waiter { number, function: function.to_owned(), concurrency, slot });
        Ok(Entered::Waits(given, Turn { pool: self.clone(), number, _place: place }))
    }

    fn slot(self: &Arc<Self>, instance: Arc<Instance>, function: &str) -> Slot {
        Slot { pool: self.clone(), instance, function: function.to_owned() }
    }

    /// Gives the room on `instance` to the calls that wait, in order of arrival.
    fn dispatch(self: &Arc<Self>, instance: &Arc<Instance>) {
        let mut left = Vec::new();
        let mut state = self.state();
        let mut index = 0;
        while let Some(waiter) = state.waiting.get(index)
            && instance.has_room()
        {
            if waiter.slot.is_closed() {
                state.waiting.remove(index);
                continue;
            }
            if !instance.begin(&waiter.function, waiter.concurrency) {
                index += 1;
                continue;
            }
            let Waiter { function, slot, .. } = state.waiting.remove(index).expect("it was just looked at");
            if let Err(slot) = slot.send(self.slot(instance.clone(), &function)) {
                left.push(slot);
            }
        }
        drop(state);
        // Slots of callers who have just left give their room on: not under the lock, which they take.
        drop(left);
    }

    /// Refuses calls that wait for a function that no worker has any more.
    fn refuse_unserved(&self) {
        let mut state = self.state();
        let PoolState { instances, waiting, .. } = &mut *state;
        waiting.retain(|waiter| instances.iter().any(|instance| instance.serves(&waiter.function)));
    }
}

/// The turn of a call that waits, given up when it is dropped: workers may be busy for long, and callers come and go.
struct Turn<'l> {
    pool: Arc<Pool>,
    number: u64,
    _place: SemaphorePermit<'l>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.state();
        let waiting = &mut state.waiting;
        if let Ok(index) = waiting.binary_search_by_key(&self.number, |waiter| waiter.number) {
            waiting.remove(index);
        }
    }
}

/// Room for one call on a worker, which is another call's when it is dropped.
struct Slot {
    pool: Arc<Pool>,
    instance: Arc<Instance>,
    function: String,
}

impl Slot {
    async fn run(self, invocation: Invocation, id: String) -> WorkerResult {
        let (answer, answered) = oneshot::channel();
        let deadline = invocation.deadline;
        self.instance.invoke(id.clone(), invocation, answer)?;
        let _running = RunningCall { slot: self, id, deadline };
        answered.await.unwrap_or_else(|_| Err(Error::Disconnected))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.instance.end(&self.function);
        self.pool.dispatch(&self.instance);
    }
}

/// A call that a worker runs. Dropped before its answer came, the worker is told that nobody waits.
struct RunningCall {
    slot: Slot,
    id: String,
    deadline: Instant,
}

impl Drop for RunningCall {
    fn drop(&mut self) {
        let now = Instant::now();
        self.slot.instance.give_up(&self.id, now >= self.deadline, now);
    }
}

#[cfg(test)]
mod tests;
