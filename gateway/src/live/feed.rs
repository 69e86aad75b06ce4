//! Feeds: one stream of changes per table, and one of the rules, shared by all live queries that depend on them.

use std::sync::Arc;

use futures::FutureExt;
use mesh::{
    Call, Code, Fault, Mesh, Tasks,
    follow::{self, Feed, SharedFeeds},
};
use proto::{Links, crud::ChangesRequest};
use tokio::sync::watch;

/// Source of changes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Rules and keys of all projects.
    Rules,
    /// Rows of a table.
    Table {
        /// The project's id.
        project: String,
        /// The database's id.
        database: String,
        /// The table's name.
        table: String,
    },
}

/// State of a feed. Each change of what it follows is a new version of it.
#[derive(Debug, Clone)]
pub enum FeedState {
    /// Nothing is known yet.
    Connecting,
    /// What changes is told, also what changed while the stream was broken.
    Live,
    /// It ended.
    Failed(Fault),
}

impl Feed for FeedState {
    fn failed(&mut self, fault: Fault) {
        *self = FeedState::Failed(fault);
    }
}

/// Feeds by source, as long as somebody listens to them.
pub struct Feeds {
    mesh: Mesh,
    shared: SharedFeeds<Source, FeedState>,
}

impl Feeds {
    /// Feeds over `mesh`.
    pub fn new(mesh: Mesh, tasks: Tasks) -> Self {
        Self { mesh, shared: SharedFeeds::new(tasks) }
    }

    /// Listens to the feed of `source`, which begins with its first listener.
    pub fn listen(&self, source: &Source) -> watch::Receiver<FeedState> {
        let (mesh, followed) = (self.mesh.clone(), source.clone());
        let follow = |feed: Arc<watch::Sender<FeedState>>| async move { followed.follow(&mesh, &feed).await };
        self.shared.read(source, FeedState::Connecting, follow).0
    }
}

/// Waits until the feed is live. Errors: it failed.
pub async fn live(listener: &mut watch::Receiver<FeedState>) -> Result<(), Fault> {
    let state = listener.wait_for(|state| !matches!(state, FeedState::Connecting)).await;
    match state.as_deref() {
        Ok(FeedState::Failed(fault)) => Err(fault.clone()),
        Ok(FeedState::Live | FeedState::Connecting) => Ok(()),
        Err(_) => Err(Fault::new(Code::Unavailable, "the node stops")),
    }
}

impl Source {
    /// Tells `feed` of all changes. Returns why that ends for good: what it follows is not there any more, or cannot be
    /// reached for long.
    async fn follow(&self, mesh: &Mesh, feed: &watch::Sender<FeedState>) -> Fault {
        let told = || {
            feed.send_replace(FeedState::Live);
        };
        match self {
            Source::Rules => {
                follow::rules(mesh, told).await;
                tracing::warn!("changes of rules cannot be followed: live queries end");
                follow::unfollowed()
            }
            Source::Table { project, database, table } => {
                let (project, database, table) = (project.clone(), database.clone(), table.clone());
                let request = ChangesRequest { project, database, table };
                let open = || {
                    let (mesh, request) = (mesh.clone(), request.clone());
                    async move { Box::pin(mesh.crud().changes(&Call::begin(None, None, None), request)).await }.boxed()
                };
                let changed = |_| {
                    told();
                    Ok(())
                };
                follow::stream(&request, open, changed).await
            }
        }
    }
}
