//! Live queries: reads that are answered again whenever their answer may differ.
//!
//! A live query is a read like any other, with its grants: it is asked again after commits that changed a table it
//! accesses or that a rule of it looks at, when other rules or settings of the project come into force, when its token is
//! renewed and when it expires. Nothing is asked while nothing happens.

mod changes;
mod dependencies;
mod feed;
mod quota;
mod row_feed;
mod turns;

use std::{sync::Arc, time::Duration};

use futures::future::select_all;
use mesh::{
    Call, Code, Fault, Mesh, Tasks, clock,
    follow::Retries,
    telemetry::{Gauge, LiveReads},
};
use proto::auth::RuleRelations;
use query::Read;
use tokio::{sync::watch, time::Instant};

use self::{
    dependencies::Dependencies,
    feed::{FeedState, Feeds},
};
use crate::{
    catalogue::Project,
    config::Config,
    edge::{Caller, Edge, ReadFault, ReadResult},
};

pub use self::{
    changes::{Watch, WatchedRows},
    quota::{CallerId, Hold, Quotas, SocketQuota},
    row_feed::{FeedKind, FeedMessage, FeedOptions, FeedRow, InitialRows, RowFeed},
    turns::{CallerTurns, NodeTurns, Turn},
};

/// Reads at once for all live queries.
const READS_MAX: usize = 64;
/// Least time between two reads of one live query: what is committed meanwhile is one change to it.
const READ_INTERVAL_MIN: Duration = Duration::from_millis(50);
/// Time until the next read of a token that has expired by the clock here, and is valid for auth-rules still.
const EXPIRED_INTERVAL: Duration = Duration::from_secs(1);
/// Back-off after a read that nobody could answer; doubles up to [`RETRY_MAX`].
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// The live queries of a gateway.
pub struct LiveQueries {
    shared: Arc<LiveShared>,
}

struct LiveShared {
    edge: Edge,
    feeds: Feeds,
    turns: NodeTurns,
    config: Config,
    open: Gauge,
    reads: LiveReads,
}

/// Whom a live query is for.
#[derive(Debug, Clone)]
pub struct Subscriber {
    /// The caller with whom it shares turns to read.
    pub caller: CallerId,
    /// The id of the request that began it.
    pub request_id: Arc<str>,
    /// Its token, whenever it is renewed.
    pub token: watch::Receiver<Arc<str>>,
}

/// A live query. Dropped, it ends.
pub struct LiveQuery {
    shared: Arc<LiveShared>,
    project: Arc<str>,
    reads: Arc<dyn AsRef<[Read]> + Send + Sync>,
    request_id: Arc<str>,
    token: watch::Receiver<Arc<str>>,
    turns: CallerTurns,
    /// Told when a project is another.
    projects: watch::Receiver<()>,
    /// One for each source of its dependencies, in their order.
    feeds: Vec<watch::Receiver<FeedState>>,
    /// What its feeds follow, by a version of the project and what rules looked at then.
    dependencies: Dependencies,
    version: u64,
    relations: Vec<RuleRelations>,
    expires: Option<Instant>,
    /// Hash of the last answer that was delivered.
    last: Option<blake3::Hash>,
    /// Hash of the answer that is to be delivered.
    next: Option<blake3::Hash>,
    last_read: Option<Instant>,
    retries: Retries,
    /// When a read that failed is tried again.
    retry: Option<Instant>,
}

impl LiveQueries {
    /// Live queries by `edge`, each read of which is a request within the limits of `config`.
    pub(crate) fn new(edge: Edge, mesh: Mesh, config: Config, tasks: Tasks) -> Self {
        let (open, reads) = (mesh.metrics().load().live_queries.clone(), mesh.metrics().live_reads());
        let (feeds, turns) = (Feeds::new(mesh, tasks), NodeTurns::new(READS_MAX));
        Self { shared: Arc::new(LiveShared { edge, feeds, turns, config, open, reads }) }
    }

    /// Begins a live query of `reads` for `subscriber`, once that is authorised: nothing is set up for a caller who may
    /// not read.
    pub(crate) async fn begin(
        &self,
        project: &Project,
        reads: Arc<dyn AsRef<[Read]> + Send + Sync>,
        subscriber: Subscriber,
    ) -> Result<LiveQuery, Fault> {
        let Subscriber { caller, request_id, mut token } = subscriber;
        let shared = self.shared.clone();
        let turns = shared.turns.of(caller);
        let caller = shared.caller(project, &request_id, token.borrow_and_update().clone());
        let authorized = shared.edge.authorize_reads(&caller, project, (*reads).as_ref()).await?;
        shared.open.inc();
        let mut live = LiveQuery {
            project: project.id.clone(),
            reads,
            request_id,
            token,
            turns,
            projects: shared.edge.project_changes(),
            feeds: Vec::new(),
            dependencies: Dependencies::default(),
            version: project.version,
            relations: Vec::new(),
            expires: authorized.token_expires_ms.and_then(clock::instant),
            last: None,
            next: None,
            last_read: None,
            retries: Retries::new(RETRY_FIRST, RETRY_MAX),
            retry: None,
            shared,
        };
        live.listen(project, authorized.relations).await?;
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
        if let Some(retry) = self.retry {
            return tokio::time::sleep_until(retry).await;
        }
        let expires = self.expires;
        let expired = async {
            match expires {
                Some(expires) if expires > last_read => tokio::time::sleep_until(expires).await,
                Some(_) => tokio::time::sleep_until(last_read + EXPIRED_INTERVAL).await,
                None => std::future::pending().await,
            }
        };
        let (edge, project, version) = (&self.shared.edge, &self.project, self.version);
        let is_other = || edge.settings(project).is_none_or(|project| project.version != version);
        let projects = &mut self.projects;
        let project_changed = async {
            while !is_other() {
                if projects.changed().await.is_err() {
                    // The catalogue is gone with the node.
                    std::future::pending::<()>().await;
                }
            }
        };
        let feeds = select_all(self.feeds.iter_mut().map(|feed| Box::pin(feed.changed())));
        tokio::select! {
            // A feed that is gone fails the next read.
            _ = feeds => {}
            () = project_changed => {}
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
        // Seen before the read: a change that comes later is read again.
        for (source, feed) in self.dependencies.sources.iter().zip(&mut self.feeds) {
            // It was tried again for long enough.
            if let FeedState::Failed(fault) = &*feed.borrow_and_update() {
                return Err(self.dependencies.disclosed(source, fault.clone()).into());
            }
        }
        let read = self.read_now().await;
        self.last_read = Some(Instant::now());
        match read {
            Ok(answers) => {
                let hash = Some(hash(&answers));
                let is_same = self.last == hash;
                if is_same {
                    self.succeeded();
                } else {
                    self.next = hash;
                }
                let counter = if is_same { &self.shared.reads.same } else { &self.shared.reads.changed };
                counter.inc();
                Ok((!is_same).then_some(answers))
            }
            Err(failure) => {
                self.shared.reads.failed.inc();
                // It may have waited for its turn for longer than the token was valid.
                let is_expired = self.expires.is_some_and(|expires| Instant::now() >= expires);
                self.failed(failure, is_expired).map(|()| None)
            }
        }
    }

    /// The answer of the last read is on its way.
    pub fn delivered(&mut self) {
        self.last = self.next.take();
        self.succeeded();
    }

    /// The answer of the last read was dropped: it is asked for again at once.
    pub fn dropped(&mut self) {
        self.last_read = None;
        self.succeeded();
    }

    /// The answer of the last read cannot be sent now: it is asked for again a while later. An error ends the live query.
    pub fn postponed(&mut self, fault: Fault) -> Result<(), Fault> {
        Ok(self.failed(fault.into(), false)?)
    }

    fn succeeded(&mut self) {
        self.retries.succeeded();
        self.retry = None;
    }

    async fn read_now(&mut self) -> Result<Vec<ReadResult>, ReadFault> {
        let shared = self.shared.clone();
        let _turn = self.turns.next().await;
        // The token that is there after the wait: it may allow less than the one before.
        let token = self.token.borrow_and_update().clone();
        let caller = Caller { call: Call::begin(Some(&self.request_id), None, Some(shared.config.time)), token };
        let project = shared.edge.project(&caller, (&*self.project).into()).await?;
        let caller = shared.caller(&project, &self.request_id, caller.token);
        let reads = (*self.reads).as_ref();
        let mut authorized = shared.edge.authorize_reads(&caller, &project, reads).await?;
        self.expires = authorized.token_expires_ms.and_then(clock::instant);
        // A relation may lead to another table now, or a rule looks at another.
        if project.version != self.version || authorized.relations != self.relations {
            self.listen(&project, std::mem::take(&mut authorized.relations)).await?;
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
        let may_pass = matches!(fault.code, Code::Unavailable | Code::Deadline);
        let Some(wait) = may_pass.then(|| self.retries.failed()).flatten() else { return Err(failure) };
        self.retry = Some(Instant::now() + wait);
        Ok(())
    }

    /// Listens to the rules and to the tables that the reads access or that their rules look at, from before it returns.
    async fn listen(&mut self, project: &Project, relations: Vec<RuleRelations>) -> Result<(), Fault> {
        let dependencies = Dependencies::of(project, (*self.reads).as_ref(), &relations)?;
        if dependencies != self.dependencies {
            let sources = dependencies.sources.iter();
            let mut feeds: Vec<_> = sources.map(|source| (source, self.shared.feeds.listen(source))).collect();
            let are_live = async {
                for (source, feed) in &mut feeds {
                    feed::live(feed).await.map_err(|fault| dependencies.disclosed(source, fault))?;
                }
                Ok::<(), Fault>(())
            };
            let late = |_| Fault::new(Code::Unavailable, "the changes of the tables cannot be followed now");
            tokio::time::timeout(self.shared.config.time(&project.spec), are_live).await.map_err(late)??;
            self.feeds = feeds.into_iter().map(|(_, feed)| feed).collect();
            self.dependencies = dependencies;
        }
        (self.version, self.relations) = (project.version, relations);
        Ok(())
    }
}

impl Drop for LiveQuery {
    fn drop(&mut self) {
        self.shared.open.dec();
    }
}

fn hash(answers: &[ReadResult]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for ReadResult { json, truncated } in answers {
        hasher.update(&(json.len() as u64).to_le_bytes()).update(json).update(&[u8::from(*truncated)]);
    }
    hasher.finalize()
}
