//! Feeds: what the log tells of one table, kept for a while in a ring that all watches of the table read.
//!
//! A watch has a cursor into the ring. One that is so slow that what it reads next has left the ring is told so, and costs
//! nobody else anything.

mod ring;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt;
use mesh::{Call, Code, Fault, Mesh, Tasks, follow::Retries};
use proto::{
    Links,
    crud::{LogRequest, LogResponse, Snapshot},
    link::Messages,
};
use tokio::sync::watch;
use tonic::Status;

use self::ring::{FeedState, Ring};
use crate::Error;

pub use self::ring::{Entry, Happened, RowVersion, TransactionPart};

/// Back-off before the first retry of a log that broke off; doubles up to [`RETRY_MAX`].
const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// A table in its project.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableId {
    /// The project's id.
    pub project: Arc<str>,
    /// The database's id.
    pub database: Arc<str>,
    /// The table's name.
    pub table: Arc<str>,
}

/// Feeds by table, as long as a watch reads them.
#[derive(Clone)]
pub struct Feeds {
    mesh: Mesh,
    tasks: Tasks,
    shared: Arc<Mutex<FeedMap>>,
}

type FeedMap = BTreeMap<TableId, Arc<watch::Sender<Ring>>>;

/// What a watch reads next of a feed.
pub struct Cursor {
    ring: watch::Receiver<Ring>,
    /// Number of the next entry.
    next: u64,
}

/// What a cursor came to.
pub enum Taken {
    /// The next entry.
    Entry(Arc<Entry>),
    /// The next entry is not kept any more.
    Overflow,
}

impl Feeds {
    /// Feeds over `mesh`.
    pub fn new(mesh: Mesh, tasks: Tasks) -> Self {
        Self { mesh, tasks, shared: Arc::default() }
    }

    /// A cursor at what happens to `table` from now on.
    pub fn now(&self, table: &TableId) -> Cursor {
        let mut shared = self.shared();
        let feed = match shared.get(table) {
            Some(feed) => feed.clone(),
            None => self.begin(&mut shared, table, Bytes::new()),
        };
        let ring = feed.subscribe();
        let next = ring.borrow().end();
        Cursor { ring, next }
    }

    /// A cursor at what happened to `table` after a position of its log. Where the feed that others read does not keep it, it
    /// has a feed of its own.
    pub fn after(&self, table: &TableId, log: &Bytes) -> Cursor {
        let mut shared = self.shared();
        let (feed, next) = match shared.get(table) {
            Some(feed) => {
                let found = feed.borrow().after(log);
                match found {
                    Some(next) => (feed.clone(), next),
                    None => (self.own(table, log.clone()), 0),
                }
            }
            None => (self.begin(&mut shared, table, log.clone()), 0),
        };
        Cursor { ring: feed.subscribe(), next }
    }

    /// Begins the feed that all watches of a table read.
    fn begin(&self, shared: &mut FeedMap, table: &TableId, after: Bytes) -> Arc<watch::Sender<Ring>> {
        let feed = Arc::new(watch::Sender::new(Ring::new(after)));
        shared.insert(table.clone(), feed.clone());
        let (feeds, ring, table) = (self.clone(), feed.clone(), table.clone());
        self.spawn(async move {
            tokio::select! {
                fault = follow(&feeds.mesh, &table, &ring) => {
                    feeds.remove(&table, &ring, |_| true);
                    ring.send_modify(|ring| ring.state = FeedState::Failed(fault));
                }
                () = feeds.unread(&table, &ring) => {}
            }
        });
        feed
    }

    /// Begins a feed for one watch.
    fn own(&self, table: &TableId, after: Bytes) -> Arc<watch::Sender<Ring>> {
        let feed = Arc::new(watch::Sender::new(Ring::new(after)));
        let (mesh, ring, table) = (self.mesh.clone(), feed.clone(), table.clone());
        self.spawn(async move {
            tokio::select! {
                fault = follow(&mesh, &table, &ring) => ring.send_modify(|ring| ring.state = FeedState::Failed(fault)),
                () = ring.closed() => {}
            }
        });
        feed
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.tasks.stop().clone();
        self.tasks.spawn("realtime: feed", async move {
            stop.run_until_cancelled(Box::pin(task)).await;
        });
    }

    /// Ends when nobody reads the feed, which is removed then.
    async fn unread(&self, table: &TableId, feed: &Arc<watch::Sender<Ring>>) {
        loop {
            feed.closed().await;
            // Under the lock nobody can begin to read.
            if self.remove(table, feed, |feed| feed.receiver_count() == 0) {
                return;
            }
        }
    }

    /// Removes a feed if it `is_meant`; whether it was removed.
    fn remove(
        &self,
        table: &TableId,
        feed: &Arc<watch::Sender<Ring>>,
        is_meant: impl FnOnce(&watch::Sender<Ring>) -> bool,
    ) -> bool {
        let mut shared = self.shared();
        let is_removed = shared.get(table).is_some_and(|known| Arc::ptr_eq(known, feed) && is_meant(known));
        if is_removed {
            shared.remove(table);
        }
        is_removed
    }

    fn shared(&self) -> MutexGuard<'_, FeedMap> {
        self.shared.lock().expect("no code panics while it holds this lock")
    }
}

impl Cursor {
    /// Waits until the log has started: what a snapshot does not see that is read then is told after it. Errors: it cannot
    /// be followed.
    pub async fn live(&mut self) -> Result<(), Error> {
        let ring = self.ring.wait_for(|ring| !matches!(ring.state, FeedState::Connecting)).await;
        match ring.as_deref().map(|ring| &ring.state) {
            Ok(FeedState::Failed(fault)) => Err(fault.clone().into()),
            Ok(FeedState::Live | FeedState::Connecting) => Ok(()),
            Err(_) => Err(stopped().into()),
        }
    }

    /// Waits until there is something to take. Cancel safe. Errors: nothing will come any more.
    pub async fn changed(&mut self) -> Result<(), Error> {
        loop {
            {
                let ring = self.ring.borrow_and_update();
                match &ring.state {
                    _ if self.next < ring.end() => return Ok(()),
                    FeedState::Failed(fault) => return Err(fault.clone().into()),
                    FeedState::Live | FeedState::Connecting => {}
                }
            }
            if self.ring.changed().await.is_err() {
                return Err(stopped().into());
            }
        }
    }

    /// Takes the next entry, where it is there.
    pub fn take(&mut self) -> Option<Taken> {
        let ring = self.ring.borrow_and_update();
        if let Some(entry) = ring.entry(self.next) {
            self.next += 1;
            return Some(Taken::Entry(entry));
        }
        let is_behind = self.next < ring.end();
        self.next = ring.end();
        is_behind.then_some(Taken::Overflow)
    }

    /// Whether something was told that a snapshot does not see.
    pub fn has_unseen(&self, snapshot: &Snapshot) -> bool {
        self.ring.borrow().has_unseen(snapshot)
    }

    /// Goes back to the first entry that is kept; returns the number of the entry that would come after all of them.
    pub fn back(&mut self) -> u64 {
        let ring = self.ring.borrow_and_update();
        self.next = ring.first();
        ring.end()
    }
}

fn stopped() -> Fault {
    Fault::new(Code::Unavailable, "the node stops")
}

/// Keeps in `ring` what the log tells of a table, connecting again where that breaks off. Returns why that ends for good.
async fn follow(mesh: &Mesh, table: &TableId, ring: &watch::Sender<Ring>) -> Fault {
    let mut retries = Retries::new(RETRY_FIRST, RETRY_MAX);
    loop {
        let request = LogRequest {
            project: table.project.as_ref().to_owned(),
            database: table.database.as_ref().to_owned(),
            tables: vec![table.table.as_ref().to_owned()],
            after: ring.borrow().position().clone(),
        };
        let call = Call::begin(None, None, None);
        let ended = match Box::pin(mesh.crud().log(&call, request)).await {
            Ok(log) => told(log, ring, &mut retries).await,
            Err(status) => Err(status),
        };
        let fault = ended.map_or_else(Fault::from, |()| Fault::new(Code::Unavailable, "the log has ended"));
        if !matches!(fault.code, Code::Unavailable | Code::Deadline | Code::Internal) {
            return fault;
        }
        let Some(wait) = retries.failed() else {
            tracing::warn!(?table, %fault, "changes cannot be followed: watches end");
            return Fault::new(Code::Unavailable, "changes cannot be followed now");
        };
        tracing::debug!(?table, %fault, "changes are not followed now");
        tokio::time::sleep(wait).await;
    }
}

/// Keeps what `log` tells until it ends.
async fn told(mut log: Messages<LogResponse>, ring: &watch::Sender<Ring>, retries: &mut Retries) -> Result<(), Status> {
    while let Some(response) = log.next().await {
        let response = response?;
        retries.succeeded();
        let mut kept = Ok(());
        ring.send_modify(|ring| kept = ring.push(response));
        kept?;
    }
    Ok(())
}
