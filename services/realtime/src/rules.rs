//! Changes of rules: watches are authorised again whenever other rules may be in force.

use std::sync::Arc;

use mesh::{Mesh, Tasks, follow};
use tokio::sync::watch;

/// Told of each change of rules.
pub type Revisions = watch::Receiver<RulesState>;

/// Whether changes of rules are told. Each change is a new version of this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RulesState {
    /// They are.
    Followed,
    /// No node of auth-rules could be followed for long.
    Lost,
}

/// Follows the rules of all nodes of auth-rules.
#[derive(Clone)]
pub struct Rules {
    told: Arc<watch::Sender<RulesState>>,
}

impl Rules {
    /// Follows them until the tasks end.
    pub fn follow(mesh: &Mesh, tasks: &Tasks) -> Self {
        let told = Arc::new(watch::Sender::new(RulesState::Followed));
        let (mesh, sender, stop) = (mesh.clone(), told.clone(), tasks.stop().clone());
        tasks.spawn("realtime: follow rules", async move {
            let following = Box::pin(async {
                loop {
                    let told = || {
                        sender.send_replace(RulesState::Followed);
                    };
                    follow::rules(&mesh, told).await;
                    tracing::warn!("changes of rules cannot be followed: watches end");
                    sender.send_replace(RulesState::Lost);
                }
            });
            stop.run_until_cancelled(following).await;
        });
        Self { told }
    }

    /// Changes from now on.
    pub fn subscribe(&self) -> Revisions {
        self.told.subscribe()
    }
}

/// Waits until the rules have changed. Cancel safe, and the change stays to be seen.
pub async fn changed(revisions: &Revisions) {
    // A clone sees what this one has not seen.
    if revisions.clone().changed().await.is_err() {
        // The sender is gone with the node.
        std::future::pending::<()>().await;
    }
}
