//! Feeds: one stream of changes per table, and one of the rules, shared by all live queries that depend on them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{Stream, StreamExt, stream::BoxStream};
use mesh::{Call, Code, Fault, Mesh, Tasks};
use proto::{Links, auth::RevisionsRequest, crud::ChangesRequest};
use tokio::sync::watch;
use tonic::Status;

use super::retry::Retries;

/// Back-off before the first retry of a stream that broke off; doubles up to [`RETRY_MAX`].
const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(1);

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

/// Feeds by source, as long as somebody listens to them.
pub struct Feeds {
    mesh: Mesh,
    tasks: Tasks,
    feeds: Arc<Mutex<FeedMap>>,
}

type FeedMap = BTreeMap<Source, Arc<watch::Sender<FeedState>>>;

impl Feeds {
    /// Feeds over `mesh`.
    pub fn new(mesh: Mesh, tasks: Tasks) -> Self {
        Self { mesh, tasks, feeds: Arc::default() }
    }

    /// Listens to the feed of `source`, which begins with its first listener.
    pub fn listen(&self, source: &Source) -> watch::Receiver<FeedState> {
        let mut feeds = self.feeds.lock().expect("no code panics while it holds this lock");
        if let Some(feed) = feeds.get(source) {
            return feed.subscribe();
        }
        let feed = Arc::new(watch::Sender::new(FeedState::Connecting));
        let listener = feed.subscribe();
        feeds.insert(source.clone(), feed.clone());
        let (mesh, all, source, stop) =
            (self.mesh.clone(), self.feeds.clone(), source.clone(), self.tasks.stop().clone());
        self.tasks.spawn("live feed", async move {
            tokio::select! {
                failed = follow(&mesh, &source, &feed) => {
                    remove(&all, &source, |_| true);
                    feed.send_replace(FeedState::Failed(failed));
                }
                () = unlistened(&all, &source, &feed) => {}
                () = stop.cancelled() => {}
            }
        });
        listener
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

/// Ends when nobody listens to the feed, which is removed then.
async fn unlistened(all: &Mutex<FeedMap>, source: &Source, feed: &watch::Sender<FeedState>) {
    loop {
        feed.closed().await;
        // Under the lock nobody can begin to listen.
        if remove(all, source, |feed| feed.receiver_count() == 0) {
            return;
        }
    }
}

/// Removes a feed if it `is_meant`; whether it was removed.
fn remove(all: &Mutex<FeedMap>, source: &Source, is_meant: impl FnOnce(&watch::Sender<FeedState>) -> bool) -> bool {
    let mut all = all.lock().expect("no code panics while it holds this lock");
    let is_removed = all.get(source).is_some_and(|feed| is_meant(feed));
    if is_removed {
        all.remove(source);
    }
    is_removed
}

/// Tells `feed` of all that `source` tells, connecting again where that breaks off. Returns why it ends for good: what it
/// follows is not there any more, or cannot be reached for long.
async fn follow(mesh: &Mesh, source: &Source, feed: &watch::Sender<FeedState>) -> Fault {
    let mut retries = Retries::new(RETRY_FIRST, RETRY_MAX);
    loop {
        let ended = match Box::pin(source.open(mesh)).await {
            Ok(changes) => told(changes, feed, &mut retries).await,
            Err(status) => Err(status),
        };
        let fault = ended.map_or_else(Fault::from, |()| Fault::new(Code::Unavailable, "the stream has ended"));
        if !matches!(fault.code, Code::Unavailable | Code::Deadline | Code::Internal) {
            return fault;
        }
        let Some(wait) = retries.failed() else {
            tracing::warn!(?source, %fault, "changes cannot be followed: live queries end");
            return Fault::new(Code::Unavailable, "changes cannot be followed now");
        };
        tracing::debug!(?source, %fault, "changes are not followed now");
        tokio::time::sleep(wait).await;
    }
}

/// Tells `feed` of `changes` until they end.
async fn told(
    mut changes: impl Stream<Item = Result<(), Status>> + Unpin,
    feed: &watch::Sender<FeedState>,
    retries: &mut Retries,
) -> Result<(), Status> {
    while let Some(change) = changes.next().await {
        change?;
        retries.succeeded();
        feed.send_replace(FeedState::Live);
    }
    Ok(())
}

impl Source {
    /// An item at once, and one for each change.
    async fn open(&self, mesh: &Mesh) -> Result<BoxStream<'static, Result<(), Status>>, Status> {
        let call = Call::begin(None, None, None);
        match self {
            Source::Rules => {
                let revisions = mesh.auth_rules().revisions(&call, RevisionsRequest {}).await?;
                Ok(revisions.map(|revision| revision.map(|_| ())).boxed())
            }
            Source::Table { project, database, table } => {
                let (project, database, table) = (project.clone(), database.clone(), table.clone());
                let changes = Box::pin(mesh.crud().changes(&call, ChangesRequest { project, database, table })).await?;
                Ok(changes.map(|change| change.map(|_| ())).boxed())
            }
        }
    }
}
