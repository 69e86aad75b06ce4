//! Feeds: one stream of changes per table, and one of the rules, shared by all live queries that depend on them.

mod rules;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{Stream, StreamExt};
use mesh::{Call, Code, Fault, Mesh, Tasks, follow::Retries};
use proto::{Links, crud::ChangesRequest};
use tokio::sync::watch;
use tonic::Status;

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
                failed = source.follow(&mesh, &feed) => {
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

impl Source {
    /// Tells `feed` of all changes. Returns why that ends for good: what it follows is not there any more, or cannot be
    /// reached for long.
    async fn follow(&self, mesh: &Mesh, feed: &watch::Sender<FeedState>) -> Fault {
        match self {
            Source::Rules => rules::follow(mesh, feed).await,
            Source::Table { project, database, table } => {
                let (project, database, table) = (project.clone(), database.clone(), table.clone());
                follow_table(mesh, &ChangesRequest { project, database, table }, feed).await
            }
        }
    }
}

/// Follows a table, connecting again where that breaks off.
async fn follow_table(mesh: &Mesh, table: &ChangesRequest, feed: &watch::Sender<FeedState>) -> Fault {
    let mut retries = Retries::new(RETRY_FIRST, RETRY_MAX);
    loop {
        let call = Call::begin(None, None, None);
        let ended = match Box::pin(mesh.crud().changes(&call, table.clone())).await {
            Ok(changes) => told(changes, feed, &mut retries).await,
            Err(status) => Err(status),
        };
        let fault = ended.map_or_else(Fault::from, |()| Fault::new(Code::Unavailable, "the stream has ended"));
        if !matches!(fault.code, Code::Unavailable | Code::Deadline | Code::Internal) {
            return fault;
        }
        let Some(wait) = retries.failed() else {
            tracing::warn!(?table, %fault, "changes cannot be followed: live queries end");
            return cannot_be_followed();
        };
        tracing::debug!(?table, %fault, "changes are not followed now");
        tokio::time::sleep(wait).await;
    }
}

/// The fault of a source that nobody tells of.
fn cannot_be_followed() -> Fault {
    Fault::new(Code::Unavailable, "changes cannot be followed now")
}

/// Tells `feed` of `changes` until they end.
async fn told<C>(
    mut changes: impl Stream<Item = Result<C, Status>> + Unpin,
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
