//! Live queries: reads that are answered again whenever their answer may differ.
//!
//! A live query is a read like any other, with its grants: it is asked again after commits that changed a table it
//! accesses, when other rules come into force, when its token is renewed and when it expires. Nothing is asked while
//! nothing happens.

mod feed;
mod quota;

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::future::select_all;
use mesh::{
    Call, Code, Fault, Mesh, Tasks,
    telemetry::{Gauge, LiveReads},
};
use query::{Read, read_accesses};
use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};

use self::feed::{FeedState, Feeds, Source};
use crate::{
    catalogue::Project,
    config::Config,
    edge::{Authorized, Caller, Edge, ReadFault, ReadResult},
};

pub use self::quota::{CallerId, Hold, Quotas, SocketQuota};

/// Least time between two reads of one live query: what is committed meanwhile is one change to it.
const READ_INTERVAL_MIN: Duration = Duration::from_millis(50);
/// Reads of live queries at once; more wait.
const READS_MAX: usize = 64;
/// Back-off after a read that nobody could answer; doubles up to [`RETRY_MAX`].
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// How long a live query waits for a part of the mesh that does not answer.
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);

/// The live queries of a gateway.
pub struct LiveQueries {
    shared: Arc<LiveShared>,
}

struct LiveShared {
    edge: Edge,
    feeds: Feeds,
    turns: Semaphore,
    config: Config,
    open: Gauge,
    reads: LiveReads,
}

/// A live query. Dropped, it ends.
pub struct LiveQuery {
    shared: Arc<LiveShared>,
    project: Arc<str>,
    reads: Arc<dyn AsRef<[Read]> + Send + Sync>,
    request_id: Arc<str>,
    token: watch::Receiver<Arc<str>>,
    tables: BTreeSet<Source>,
    feeds: Vec<watch::Receiver<FeedState>>,
    /// Version of the project by which its tables are known.
    version: u64,
    expires: Option<Instant>,
    /// Hash of the last answer.
    last: Option<blake3::Hash>,
    last_read: Option<Instant>,
    failing: Option<Failing>,
}

/// A read that could not be answered, and is retried.
struct Failing {
    since: Instant,
    wait: Duration,
    retry: Instant,
}

impl LiveQueries {
    /// Live queries by `edge`, each read of which is a request within the limits of `config`.
    pub(crate) fn new(edge: Edge, mesh: Mesh, config: Config, tasks: Tasks) -> Self {
        let (open, reads) = (mesh.metrics().load().live_queries.clone(), mesh.metrics().live_reads());
        let turns = Semaphore::new(READS_MAX);
        let shared = LiveShared { edge, feeds: Feeds::new(mesh, tasks), turns, config, open, reads };
        Self { shared: Arc::new(shared) }
    }

    /// Begins a live query of `reads` by the bearer of `token`, once that is authorised: nothing is set up for a caller
    /// who may not read.
    pub(crate) async fn begin(
        &self,
        project: &Project,
        reads: Arc<dyn AsRef<[Read]> + Send + Sync>,
        request_id: Arc<str>,
        mut token: watch::Receiver<Arc<str>>,
    ) -> Result<LiveQuery, Fault> {
        let shared = self.shared.clone();
        let caller = shared.caller(project, &request_id, token.borrow_and_update().clone());
        let authorized = shared.edge.authorize_reads(&caller, project, (*reads).as_ref()).await?;
        shared.open.inc();
        let mut live = LiveQuery {
            shared,
            project: project.id.clone(),
            reads,
            request_id,
            token,
            tables: BTreeSet::new(),
            feeds: Vec::new(),
            version: project.version,
            expires: expires(&authorized),
            last: None,
            last_read: None,
            failing: None,
        };
        live.listen(project).await?;
        Ok(live)
    }
}

impl LiveShared {
    /// The caller of one read, who has as much time as for any request.
    fn caller(&self, project: &Project, request_id: &str, token: Arc<str>) -> Caller {
        Caller { call: Call::begin(Some(request_id), None, Some(self.config.time(&project.spec))), token }
    }
}

impl LiveQuery {
    /// Waits until the answer may differ from the last one; at first it may. Cancel safe.
    pub async fn changed(&mut self) {
        let Some(last_read) = self.last_read else { return };
        if let Some(failing) = &self.failing {
            return tokio::time::sleep_until(failing.retry).await;
        }
        let expires = self.expires;
        let expired = async {
            match expires {
                Some(expires) => tokio::time::sleep_until(expires).await,
                None => std::future::pending().await,
            }
        };
        let feeds = select_all(self.feeds.iter_mut().map(|feed| Box::pin(feed.changed())));
        tokio::select! {
            // A feed that is gone fails the next read.
            _ = feeds => {}
            // Nobody can renew the token any more: the socket ends.
            Ok(()) = self.token.changed() => {}
            () = expired => {}
        }
        // The feeds stay marked as changed until the read: a wait that is dropped below forgets nothing.
        self.feeds.iter_mut().for_each(watch::Receiver::mark_changed);
        tokio::time::sleep_until(last_read + READ_INTERVAL_MIN).await;
    }

    /// The answer; `None` where it is the last one again, or where nobody can answer now and it will be retried.
    ///
    /// An error ends the live query.
    pub async fn read(&mut self) -> Result<Option<Vec<ReadResult>>, ReadFault> {
        let is_expired = self.expires.is_some_and(|expires| Instant::now() >= expires);
        let read = self.read_now().await;
        self.last_read = Some(Instant::now());
        match read {
            Ok(answers) => {
                let hash = Some(hash(&answers));
                let is_same = std::mem::replace(&mut self.last, hash) == hash;
                if is_same {
                    self.failing = None;
                }
                let counter = if is_same { &self.shared.reads.same } else { &self.shared.reads.changed };
                counter.inc();
                Ok((!is_same).then_some(answers))
            }
            Err(failure) => {
                self.shared.reads.failed.inc();
                self.failed(failure, is_expired).map(|()| None)
            }
        }
    }

    /// The answer of the last read is on its way.
    pub fn delivered(&mut self) {
        self.failing = None;
    }

    /// The answer of the last read was dropped: it is asked for again at once.
    pub fn dropped(&mut self) {
        (self.last, self.last_read, self.failing) = (None, None, None);
    }

    /// The answer of the last read cannot be sent now: it is asked for again a while later. An error ends the live query.
    pub fn postponed(&mut self, fault: Fault) -> Result<(), Fault> {
        self.last = None;
        Ok(self.failed(fault.into(), false)?)
    }

    async fn read_now(&mut self) -> Result<Vec<ReadResult>, ReadFault> {
        // Seen before the read: a change that comes later is read again.
        for feed in &mut self.feeds {
            if let FeedState::Failed(fault) = &*feed.borrow_and_update() {
                return Err(fault.clone().into());
            }
        }
        let token = self.token.borrow_and_update().clone();
        let shared = self.shared.clone();
        let _turn = shared.turns.acquire().await.expect("nobody closes the semaphore");
        let caller = Caller { call: Call::begin(Some(&self.request_id), None, Some(shared.config.time)), token };
        let project = shared.edge.project(&caller, (&*self.project).into()).await?;
        let caller = shared.caller(&project, &self.request_id, caller.token);
        let reads = (*self.reads).as_ref();
        let authorized = shared.edge.authorize_reads(&caller, &project, reads).await?;
        self.expires = expires(&authorized);
        if project.version != self.version {
            // A relation may lead to another table now.
            self.listen(&project).await?;
            self.version = project.version;
        }
        let reads = (*self.reads).as_ref().to_vec();
        shared.edge.read_authorized(&caller, &project, reads, authorized).await
    }

    /// Plans a retry after a failure that may pass; any other, and one that lasts too long, is given back.
    fn failed(&mut self, failure: ReadFault, is_expired: bool) -> Result<(), ReadFault> {
        let (ReadFault::Refused(fault) | ReadFault::Failed(fault)) = &failure;
        if is_expired && fault.code == Code::Unauthenticated {
            return Err(Fault::new(Code::TokenExpired, "the token has expired").into());
        }
        let now = Instant::now();
        let (since, wait) = match &self.failing {
            Some(failing) => (failing.since, (failing.wait * 2).min(RETRY_MAX)),
            None => (now, RETRY_FIRST),
        };
        let may_pass = matches!(fault.code, Code::Unavailable | Code::Deadline);
        if !may_pass || now.duration_since(since) >= RETRY_TIMEOUT {
            return Err(failure);
        }
        self.failing = Some(Failing { since, wait, retry: now + wait });
        Ok(())
    }

    /// Listens to the rules and to the tables that the reads access, from before it returns.
    async fn listen(&mut self, project: &Project) -> Result<(), Fault> {
        let mut tables = BTreeSet::from([Source::Rules]);
        for read in (*self.reads).as_ref() {
            let accesses = read_accesses(project.schema(&read.database)?, read).map_err(Fault::from)?;
            tables.extend(accesses.into_iter().map(|access| Source::Table {
                project: project.id.as_ref().to_owned(),
                database: read.database.clone(),
                table: access.table.to_owned(),
            }));
        }
        if tables == self.tables {
            return Ok(());
        }
        let mut feeds: Vec<_> = tables.iter().map(|source| self.shared.feeds.listen(source)).collect();
        let are_live = async {
            for feed in &mut feeds {
                feed::live(feed).await?;
            }
            Ok::<(), Fault>(())
        };
        let late = |_| Fault::new(Code::Unavailable, "the changes of the tables cannot be followed now");
        tokio::time::timeout(self.shared.config.time(&project.spec), are_live).await.map_err(late)??;
        (self.tables, self.feeds) = (tables, feeds);
        Ok(())
    }
}

impl Drop for LiveQuery {
    fn drop(&mut self) {
        self.shared.open.dec();
    }
}

/// When the token of a request is no longer valid.
fn expires(authorized: &Authorized) -> Option<Instant> {
    let expires = UNIX_EPOCH + Duration::from_millis(u64::try_from(authorized.token_expires_ms?).ok()?);
    Instant::now().checked_add(expires.duration_since(SystemTime::now()).unwrap_or_default())
}

fn hash(answers: &[ReadResult]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for ReadResult { json, truncated } in answers {
        hasher.update(&(json.len() as u64).to_le_bytes()).update(json).update(&[u8::from(*truncated)]);
    }
    hasher.finalize()
}
