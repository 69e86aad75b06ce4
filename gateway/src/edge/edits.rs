//! Edits of projects, for those who go on after a request.

use tokio::sync::watch;

use super::Edge;

impl Edge {
    /// The version of project `id` as its resources say, without any waiting; `None` where there is none.
    pub(crate) fn version(&self, id: &str) -> Option<u64> {
        self.settings(id).map(|project| project.version)
    }

    /// Waits until project `id` has another version than `known`. `changes` are [`Edge::project_changes`]. Cancel safe.
    pub(crate) async fn edited(&self, id: &str, known: Option<u64>, changes: &mut watch::Receiver<()>) {
        while self.version(id) == known {
            if changes.changed().await.is_err() {
                // The catalogue is gone with the node.
                std::future::pending::<()>().await;
            }
        }
    }
}
