//! A worker: sessions one after the other, until it is stopped.

use std::{
    collections::BTreeMap,
    fmt,
    fmt::Display,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{sync::oneshot, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{Client, Error, session};

/// Time before the first attempt to come back, which doubles up to the longest.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LONGEST: Duration = Duration::from_secs(10);
/// Calls at once, unless set.
const CAPACITY: u32 = 64;
/// How long calls may take to end after a stop, unless set.
const GRACE: Duration = Duration::from_secs(30);

/// The most that a function may answer: a larger message would end the connection, and all calls with it.
const ANSWER_BYTES: usize = 8 << 20;
/// Of the text of an error, which may have what the caller sent in it.
const ERROR_BYTES: usize = 4096;

/// A function: JSON, or the text of its failure.
type Function = Box<dyn Fn(Call) -> BoxFuture<'static, Result<Vec<u8>, String>> + Send + Sync>;

/// A call as a function sees it. The future of the function is dropped when nobody waits for its answer any more: the
/// caller left, the time is over, or the connection ended.
#[derive(Debug, Clone)]
pub struct Call {
    /// Its id.
    pub id: String,
    /// The function.
    pub function: String,
    /// The parameters, JSON.
    pub params: Bytes,
    /// Claims of the caller's valid token, a JSON object.
    pub auth: Bytes,
    /// When nobody waits any more.
    pub deadline: Instant,
}

/// A worker, which begins with [`Worker::run`].
pub struct Worker {
    pub(crate) client: Client,
    pub(crate) service: String,
    pub(crate) functions: BTreeMap<String, Function>,
    pub(crate) capacity: u32,
    grace: Duration,
}

impl Call {
    /// The parameters as a type.
    pub fn params<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_slice(&self.params)
    }

    /// Claims of the caller as a type.
    pub fn auth<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_slice(&self.auth)
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("client", &self.client)
            .field("service", &self.service)
            .field("functions", &self.functions.keys())
            .finish_non_exhaustive()
    }
}

impl Worker {
    pub(crate) fn new(client: Client, service: &str) -> Self {
        let service = service.to_owned();
        Self { client, service, functions: BTreeMap::new(), capacity: CAPACITY, grace: GRACE }
    }

    /// With a function. What it returns is its answer, as JSON; the text of its error is told to the caller.
    #[must_use]
    pub fn function<F, R, T, E>(mut self, name: &str, function: F) -> Self
    where
        F: Fn(Call) -> R + Send + Sync + 'static,
        R: Future<Output = Result<T, E>> + Send + 'static,
        T: Serialize,
        E: Display,
    {
        let run = move |call: Call| {
            let answered = function(call);
            async move {
                let answer = answered.await.map_err(|error| error.to_string())?;
                serde_json::to_vec(&answer).map_err(|error| error.to_string())
            }
            .boxed()
        };
        self.functions.insert(name.to_owned(), Box::new(run));
        self
    }

    /// With so many calls at once, 1 to 1000; 64 unless set.
    #[must_use]
    pub fn capacity(self, capacity: u32) -> Self {
        Self { capacity, ..self }
    }

    /// With so much time for calls to end after a stop; 30 s unless set.
    #[must_use]
    pub fn grace(self, grace: Duration) -> Self {
        Self { grace, ..self }
    }

    /// Takes calls, and comes back where a connection ends, until `stop` does: then it takes no more, and returns when those
    /// that it has are answered or their time is over. Dropped, all ends at once.
    ///
    /// Errors: the gateway refuses the worker.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), Error> {
        if self.functions.is_empty() {
            return Err(Error::NoFunctions);
        }
        let (worker, stopping) = (Arc::new(self), CancellationToken::new());
        let mut sessions = JoinSet::new();
        let result = {
            let mut attempts = Box::pin(attempts(&worker, &stopping, &mut sessions));
            tokio::select! {
                result = &mut attempts => result,
                () = stop => {
                    stopping.cancel();
                    attempts.await
                }
            }
        };
        let ended = async { while sessions.join_next().await.is_some() {} };
        // What is late is ended with the sessions.
        let _ = tokio::time::timeout(worker.grace, ended).await;
        result
    }

    /// Runs the function of a call: JSON, or the text of its failure; `None` where its time is over.
    pub(crate) async fn answer(&self, call: Call) -> Option<Result<Vec<u8>, String>> {
        let (name, left) = (call.function.clone(), call.deadline.saturating_duration_since(Instant::now()));
        let Some(function) = self.functions.get(&name) else {
            return Some(Err(format!("function {name} is not known")));
        };
        let run = async move { function(call).await };
        let run = AssertUnwindSafe(run).catch_unwind();
        let answer = tokio::time::timeout(left, run).await.ok()?;
        let answer = answer.unwrap_or_else(|_| Err("the function panicked".to_owned()));
        let answer = answer.and_then(|answer| match answer.len() > ANSWER_BYTES {
            true => Err(format!("the answer is over the limit of {ANSWER_BYTES} bytes")),
            false => Ok(answer),
        });
        Some(answer.map_err(failure).inspect_err(|error| warn!(function = name, error, "function failed")))
    }
}

/// The text of a failure, which is not empty and within its limit.
fn failure(mut error: String) -> String {
    error.truncate(error.floor_char_boundary(ERROR_BYTES));
    if error.is_empty() { "the function failed".to_owned() } else { error }
}

/// Sessions one after the other, until `stopping`. Errors: the gateway refuses the worker.
async fn attempts(worker: &Arc<Worker>, stopping: &CancellationToken, sessions: &mut JoinSet<()>) -> Result<(), Error> {
    let mut delay = RETRY_FIRST;
    while !stopping.is_cancelled() {
        let begin = Instant::now();
        let (leaving, left) = oneshot::channel();
        sessions.spawn(session::run(worker.clone(), stopping.clone(), leaving));
        // Those that have ended.
        while sessions.try_join_next().is_some() {}
        match left.await {
            Ok(Err(error @ Error::Refused(_))) => return Err(error),
            Ok(Err(error)) => warn!(service = worker.service, %error, "worker is not connected"),
            Ok(Ok(())) | Err(_) => {}
        }
        if begin.elapsed() > RETRY_LONGEST {
            delay = RETRY_FIRST;
        }
        let wait = tokio::time::sleep(delay.mul_f64(rand::random_range(0.5..1.0)));
        // A stop needs not wait.
        let _ = stopping.run_until_cancelled(wait).await;
        delay = (delay * 2).min(RETRY_LONGEST);
    }
    Ok(())
}
