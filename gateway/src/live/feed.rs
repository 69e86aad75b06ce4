//! Feeds: one stream of changes per table, and one of the rules, shared by all live queries that depend on them.
//!
//! A table of few live queries tells that it changed, and all of them are asked again. Where many depend on some of its rows
//! only, the images of changes are followed, and those are asked again that a change concerns.

use std::{
    sync::{Arc, Mutex, MutexGuard, atomic::AtomicU64},
    time::Duration,
};

use bytes::Bytes;
use futures::FutureExt;
use mesh::{
    Call, Code, Fault, Mesh, Tasks,
    follow::{self, Feed, SharedFeeds},
    telemetry::LiveChanges,
};
use proto::{
    Links,
    crud::{ChangesRequest, Event, LogRequest, LogResponse, Snapshot},
};
use tokio::{sync::watch, time::Instant};

use super::{
    CallerId,
    followed_tables::{FollowedTable, FollowedTables},
    interests::{Interests, Registered, TableRows},
    may_pass,
};

/// Until images are asked for again that could not be followed.
const IMAGES_RETRY_INTERVAL: Duration = Duration::from_secs(60);

/// Source of changes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

/// State of a feed.
#[derive(Debug, Clone)]
pub enum FeedState {
    /// Nothing is known yet.
    Connecting,
    /// What changes is told, also what changed while the stream was broken.
    Live,
    /// It ended.
    Failed(Fault),
}

/// A feed.
#[derive(Debug, Clone)]
pub struct SourceFeed {
    state: FeedState,
    /// Of those who listen.
    interests: Arc<Interests>,
}

impl Feed for SourceFeed {
    fn failed(&mut self, fault: Fault) {
        self.state = FeedState::Failed(fault);
        self.interests.tell_all();
    }
}

/// Feeds by source, as long as somebody listens to them.
pub struct Feeds {
    mesh: Mesh,
    shared: SharedFeeds<Source, SourceFeed>,
    /// The number of the last event of any source.
    events: Arc<AtomicU64>,
    changes: LiveChanges,
    /// Whose live queries make it worth it to follow images.
    followed: FollowedTables,
}

/// A listener to a feed. Dropped, it is one no longer.
pub struct Listener {
    feed: watch::Receiver<SourceFeed>,
    registered: Registered,
    /// The number of the last event of the feed that an answer has seen.
    seen: u64,
    /// The number of the last one before the grants were asked for with which it is read.
    marked: u64,
}

impl Feeds {
    /// Feeds over `mesh`.
    pub fn new(mesh: Mesh, tasks: Tasks, followed: FollowedTables) -> Self {
        let changes = mesh.metrics().live_changes();
        Self { mesh, shared: SharedFeeds::new(tasks), events: Arc::default(), changes, followed }
    }

    /// Counts a watch of `caller` for a table. Errors: `TOO_MANY` where it would be one table too many.
    pub fn watched(&self, table: &Source, caller: CallerId) -> Result<FollowedTable, Fault> {
        self.followed.require(caller, table)
    }

    /// Listens to the feed of `source` for `caller`; it begins with its first listener. Where `rows` are given, changes of others
    /// may not be told.
    pub fn listen(&self, source: &Source, rows: Option<&TableRows>, caller: CallerId) -> Listener {
        let (mesh, followed, changes) = (self.mesh.clone(), source.clone(), self.changes.clone());
        let follow =
            |feed: Arc<watch::Sender<SourceFeed>>| async move { followed.follow(&mesh, &feed, &changes).await };
        let interests = Arc::new(Interests::new(self.events.clone()));
        let feed = SourceFeed { state: FeedState::Connecting, interests };
        let (feed, _) = self.shared.read(source, feed, follow);
        let registered = Interests::register(&feed.borrow().interests, rows, || self.followed.take(caller, source));
        let since = registered.since();
        Listener { feed, registered, seen: since, marked: since }
    }
}

impl Listener {
    /// Waits until the feed is live. Errors: it failed.
    pub async fn live(&mut self) -> Result<(), Fault> {
        let feed = self.feed.wait_for(|feed| !matches!(feed.state, FeedState::Connecting)).await;
        match feed.as_deref().map(|feed| &feed.state) {
            Ok(FeedState::Failed(fault)) => Err(fault.clone()),
            Ok(FeedState::Live | FeedState::Connecting) => Ok(()),
            Err(_) => Err(Fault::new(Code::Unavailable, "the node stops")),
        }
    }

    /// Why the feed ended, if it has.
    pub fn fault(&self) -> Option<Fault> {
        match &self.feed.borrow().state {
            FeedState::Failed(fault) => Some(fault.clone()),
            FeedState::Live | FeedState::Connecting => None,
        }
    }

    /// Waits until something that concerns the listener has happened that no answer has seen. Cancel safe.
    pub async fn changed(&self) {
        self.registered.interest.told_after(self.seen).await;
    }

    /// The number of the last event of the feed, which a read that begins now sees.
    pub fn now(&self) -> u64 {
        self.registered.interests.last()
    }

    /// Grants are asked for now: they may not be of what happens later.
    pub fn mark(&mut self) {
        self.marked = self.now();
    }

    /// The number of the last event that concerned the listener.
    pub fn needed(&self) -> u64 {
        self.registered.interest.told()
    }

    /// Whether transactions are told that a read may not see yet: then its snapshot says so.
    pub fn needs_snapshot(&self) -> bool {
        self.registered.interests.has_images()
    }

    /// An answer has seen all events up to `number`, in these snapshots where there are any; what came after the mark is to
    /// be read again. Whether there may be a transaction that concerns the listener and that one of them did not see.
    pub fn saw(&mut self, number: u64, snapshots: &[&Snapshot]) -> bool {
        self.seen = self.seen.max(number.min(self.marked));
        !snapshots.is_empty() && self.registered.has_unseen(snapshots)
    }
}

impl Source {
    /// Tells `feed` of all changes. Returns why that ends for good: what it follows is not there any more, or cannot be
    /// reached for long.
    async fn follow(&self, mesh: &Mesh, feed: &watch::Sender<SourceFeed>, changes: &LiveChanges) -> Fault {
        match self {
            Source::Rules => {
                let interests = feed.borrow().interests.clone();
                follow::rules(mesh, || live(feed, &interests)).await;
                tracing::warn!("changes of rules cannot be followed: live queries end");
                follow::unfollowed()
            }
            Source::Table { project, database, table } => {
                let (project, database, table) = (project.clone(), database.clone(), table.clone());
                let interests = feed.borrow().interests.clone();
                TableSource { project, database, table, mesh, feed, interests, changes }.follow().await
            }
        }
    }
}

/// All that is followed may have changed.
fn live(feed: &watch::Sender<SourceFeed>, interests: &Interests) {
    interests.tell_all();
    feed.send_if_modified(|feed| {
        let is_new = matches!(feed.state, FeedState::Connecting);
        feed.state = FeedState::Live;
        is_new
    });
}

/// A table that is followed.
struct TableSource<'f> {
    project: String,
    database: String,
    table: String,
    mesh: &'f Mesh,
    feed: &'f watch::Sender<SourceFeed>,
    interests: Arc<Interests>,
    changes: &'f LiveChanges,
}

impl TableSource<'_> {
    /// Follows what tells enough of the changes, as those who listen come and go.
    async fn follow(&self) -> Fault {
        let mut notes = Box::pin(self.follow_notes());
        // When images may be asked for; never where the table has none.
        let mut images_from = Some(Instant::now());
        loop {
            tokio::select! {
                fault = &mut notes => return fault,
                () = self.wait_until_worth_images(images_from) => {}
            }
            let mut images = Box::pin(self.follow_images());
            // It may take a while until they can be followed.
            let mut ended = tokio::select! {
                fault = &mut notes => return fault,
                fault = &mut images => Some(fault),
                () = self.interests.wait_for_images() => None,
            };
            if ended.is_none() {
                drop(notes);
                ended = tokio::select! {
                    fault = &mut images => Some(fault),
                    () = self.interests.wait_until_not_worth_images() => None,
                };
                notes = Box::pin(self.follow_notes());
            }
            self.interests.end_images();
            if let Some(fault) = ended {
                let may_pass = may_pass(&fault);
                tracing::debug!(table = self.table, %fault, may_pass, "images of changes cannot be followed");
                images_from = may_pass.then(|| Instant::now() + IMAGES_RETRY_INTERVAL);
            }
        }
    }

    async fn wait_until_worth_images(&self, from: Option<Instant>) {
        match from {
            Some(from) => tokio::time::sleep_until(from).await,
            None => std::future::pending().await,
        }
        self.interests.wait_until_worth_images().await;
    }

    /// All listeners are told of each change.
    async fn follow_notes(&self) -> Fault {
        let (project, database, table) = (self.project.clone(), self.database.clone(), self.table.clone());
        let request = ChangesRequest { project, database, table };
        let open = || {
            let (mesh, request) = (self.mesh.clone(), request.clone());
            async move { Box::pin(mesh.crud().changes(&Call::begin(None, None, None), request)).await }.boxed()
        };
        let changed = |_| {
            live(self.feed, &self.interests);
            Ok(())
        };
        follow::stream(&request, open, changed).await
    }

    /// Those listeners are told of a change whom it concerns.
    async fn follow_images(&self) -> Fault {
        let position = Mutex::new(Bytes::new());
        let known = || -> MutexGuard<'_, Bytes> { position.lock().expect("no code panics while it holds this lock") };
        let what = (&self.project, &self.database, &self.table);
        let open = || {
            let request = LogRequest {
                project: self.project.clone(),
                database: self.database.clone(),
                tables: vec![self.table.clone()],
                after: known().clone(),
                complete: true,
            };
            let mesh = self.mesh.clone();
            async move { Box::pin(mesh.crud().log(&Call::begin(None, None, None), request)).await }.boxed()
        };
        let told = |LogResponse { position: after, event }| {
            *known() = after;
            match event {
                Some(Event::Transaction(transaction)) => {
                    let is_of_some = self.interests.tell(&transaction);
                    let counter = if is_of_some { &self.changes.told } else { &self.changes.skipped };
                    counter.inc();
                }
                Some(Event::Started(_)) => {
                    self.interests.begin_images();
                    live(self.feed, &self.interests);
                }
                Some(Event::Resync(_)) | None => {
                    // The transactions that follow may be of another log.
                    self.interests.forget_transactions();
                    live(self.feed, &self.interests);
                }
            }
            Ok(())
        };
        follow::stream(&what, open, told).await
    }
}
