//! One worker: what it takes, what it runs, and the queue to it.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use proto::functions::{self as wire, WorkResponse, work_response::Message};
use tokio::sync::{Notify, mpsc, oneshot};

use super::WorkerResult;
use crate::{Error, breaker::FAILURES};

/// How long a worker that does not answer is avoided, which doubles with each further call that it lets pass.
const AVOID_FIRST: Duration = Duration::from_secs(1);
const AVOID_LONGEST: Duration = Duration::from_secs(30);

/// What a worker registers.
#[derive(Debug, Clone)]
pub struct Registration {
    /// The project's id.
    pub project: String,
    /// The service's id.
    pub service: String,
    /// The functions that it has; none: all.
    pub functions: Vec<String>,
    /// Calls at once.
    pub capacity: u32,
}

/// A call as a worker gets it.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// The function's name.
    pub function: String,
    /// JSON.
    pub params: Bytes,
    /// Claims of the caller, a JSON object.
    pub claims: String,
    /// When nobody waits any more.
    pub deadline: Instant,
}

/// A worker that is connected.
pub struct Instance {
    /// Tells it from all others of this process.
    pub number: u64,
    /// What it registered.
    pub registration: Registration,
    /// Messages to it: two for each call, and few others. Where it is full, the worker is given up.
    queue: mpsc::Sender<WorkResponse>,
    state: Mutex<InstanceState>,
    /// Told when a call of it has ended, and when its end is wanted.
    pub changed: Notify,
}

#[derive(Default)]
struct InstanceState {
    /// Calls that run, by their functions.
    running: HashMap<String, u32>,
    /// Who waits for which call.
    waiting: HashMap<String, oneshot::Sender<WorkerResult>>,
    is_draining: bool,
    /// Calls that it let pass without an answer, one after the other.
    unanswered: u32,
    /// Until when others are asked first, and for how long that was.
    avoided: Option<(Instant, Duration)>,
    /// It takes no messages, or is gone.
    is_broken: bool,
}

impl Registration {
    /// Whether it has the function.
    fn has(&self, function: &str) -> bool {
        self.functions.is_empty() || self.functions.iter().any(|own| own == function)
    }
}

impl InstanceState {
    fn takes_calls(&self) -> bool {
        !self.is_draining && !self.is_broken
    }

    /// Calls that run.
    fn load(&self) -> u32 {
        self.running.values().sum()
    }
}

impl Instance {
    /// A worker, and the messages to it.
    pub fn new(number: u64, registration: Registration) -> (Self, mpsc::Receiver<WorkResponse>) {
        let (queue, messages) = mpsc::channel(registration.capacity as usize * 2 + 4);
        (Self { number, registration, queue, state: Mutex::default(), changed: Notify::new() }, messages)
    }

    fn state(&self) -> MutexGuard<'_, InstanceState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it takes calls of the function.
    pub fn serves(&self, function: &str) -> bool {
        self.registration.has(function) && self.state().takes_calls()
    }

    /// Whether others are asked first, and calls that it runs; `None` where it has no room for one more of the function.
    pub fn load(&self, function: &str, concurrency: u32, now: Instant) -> Option<(bool, u32)> {
        let state = self.state();
        let load = state.load();
        let own = state.running.get(function).copied().unwrap_or(0);
        let is_avoided = state.avoided.is_some_and(|(until, _)| now < until);
        (load < self.registration.capacity && own < concurrency).then_some((is_avoided, load))
    }

    /// Whether it has room for a call of some function.
    pub fn has_room(&self) -> bool {
        let state = self.state();
        state.takes_calls() && state.load() < self.registration.capacity
    }

    /// Counts a call, if it has the function and room for it.
    pub fn begin(&self, function: &str, concurrency: u32) -> bool {
        let mut state = self.state();
        let own = state.running.get(function).copied().unwrap_or(0);
        let fits = self.registration.has(function)
            && state.takes_calls()
            && state.load() < self.registration.capacity
            && own < concurrency;
        if fits {
            state.running.insert(function.to_owned(), own + 1);
        }
        fits
    }

    /// Counts the end of a call.
    pub fn end(&self, function: &str) {
        let mut state = self.state();
        if let Some(count) = state.running.get_mut(function) {
            *count -= 1;
            if *count == 0 {
                state.running.remove(function);
            }
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Sends it a call, whose result goes to `answer`. Errors: it is gone.
    pub fn invoke(
        &self,
        id: String,
        invocation: Invocation,
        answer: oneshot::Sender<WorkerResult>,
    ) -> Result<(), Error> {
        let Invocation { function, params, claims, deadline } = invocation;
        let left = deadline.saturating_duration_since(Instant::now());
        // No time at all would be no limit.
        let timeout_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1);
        let call = wire::Invocation { id: id.clone(), function, params, claims, timeout_ms };
        {
            let mut state = self.state();
            if state.is_broken {
                return Err(Error::Disconnected);
            }
            state.waiting.insert(id, answer);
        }
        self.send(Message::Call(call))
    }

    /// Sends a message. One who takes none any more is given up.
    pub fn send(&self, message: Message) -> Result<(), Error> {
        if self.queue.try_send(WorkResponse { message: Some(message) }).is_ok() {
            return Ok(());
        }
        self.break_off();
        Err(Error::Disconnected)
    }

    /// The result of a call, from the worker. One that is of no call is ignored: nobody waits for it any more, or it is
    /// another worker's.
    pub fn answered(&self, id: &str, result: WorkerResult) {
        let mut state = self.state();
        if let Some(answer) = state.waiting.remove(id) {
            (state.unanswered, state.avoided) = (0, None);
            // Whoever waited may have left.
            let _ = answer.send(result);
        }
    }

    /// Nobody waits for the call any more; `is_late` where its time is over. One that lets calls pass, with no answer between
    /// them, is called only where no other worker has room: who sent them must not take the function away from all.
    pub fn give_up(&self, id: &str, is_late: bool, now: Instant) {
        let was_waiting = {
            let mut state = self.state();
            let was_waiting = state.waiting.remove(id).is_some();
            if was_waiting && is_late {
                state.unanswered = state.unanswered.saturating_add(1);
                if state.unanswered >= FAILURES {
                    let time = state.avoided.map_or(AVOID_FIRST, |(_, time)| (time * 2).min(AVOID_LONGEST));
                    state.avoided = Some((now + time, time));
                }
            }
            was_waiting
        };
        if was_waiting {
            // One that is gone needs not be told.
            let _ = self.send(Message::Cancel(wire::Cancel { id: id.to_owned() }));
        }
    }

    /// It gets no more calls.
    pub fn drain(&self) {
        self.state().is_draining = true;
        self.changed.notify_one();
    }

    /// Whether it gets no more calls, and runs none.
    pub fn is_drained(&self) -> bool {
        let state = self.state();
        state.is_draining && state.running.is_empty()
    }

    /// Whether it was given up.
    pub fn is_broken(&self) -> bool {
        self.state().is_broken
    }

    /// All its calls fail, and it gets no more.
    pub fn break_off(&self) {
        let mut state = self.state();
        state.is_broken = true;
        // Whoever waits is told by the end of their channels.
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        drop(waiting);
        self.changed.notify_one();
    }
}
