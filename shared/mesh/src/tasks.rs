//! Background tasks: named, ended by a token, outliving requests.

use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The tasks of this node.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    /// Of the tasks that end with the drain.
    drained: TaskTracker,
    drain: CancellationToken,
    stop: CancellationToken,
}

impl Tasks {
    /// Starts `task`; it must end soon after [`Tasks::stop`] fires. One that ends with a panic is logged.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(async move {
            if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
                tracing::error!(task = name, panic = panic_text(panic.as_ref()), "task panicked");
            }
        });
    }

    /// Runs a task that ends when the node begins to drain, and for which what other tasks do is there until then.
    pub fn spawn_until_drain(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let task = self.drained.track_future(task);
        self.spawn(name, task);
    }

    /// Begins the drain: what would go on without end, such as streams, ends now.
    pub fn begin_drain(&self) {
        self.drain.cancel();
    }

    /// Fires when the node begins to drain, before [`Tasks::stop`].
    pub fn draining(&self) -> &CancellationToken {
        &self.drain
    }

    /// Fires when the node stops.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Stops all tasks and waits for their end.
    pub async fn finish(&self) {
        self.drain.cancel();
        self.drained.close();
        self.drained.wait().await;
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// Message of a panic.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    match panic.downcast_ref::<String>() {
        Some(text) => text,
        None => panic.downcast_ref::<&str>().copied().unwrap_or("no text"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn finish_stops_tasks_and_outlives_a_panic() {
        let tasks = Tasks::default();
        let stop = tasks.stop().clone();
        tasks.spawn("waits", async move { stop.cancelled().await });
        tasks.spawn("panics", async { panic!("on purpose") });
        tasks.finish().await;
        assert!(tasks.tracker.is_empty());
    }

    #[tokio::test]
    async fn tasks_that_end_with_the_drain_have_the_others_until_then() {
        let tasks = Tasks::default();
        let (stop, draining) = (tasks.stop().clone(), tasks.draining().clone());
        let (told, has_stopped) = tokio::sync::oneshot::channel();
        tasks.spawn_until_drain("ends", async move {
            draining.cancelled().await;
            tokio::task::yield_now().await;
            told.send(stop.is_cancelled()).unwrap();
        });
        tasks.finish().await;
        assert_eq!(has_stopped.await, Ok(false));
    }
}
