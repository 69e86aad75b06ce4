//! Live queries: reads that are answered again whenever their answer may differ.
//!
//! A live query is a read like any other, with its grants: it is asked again after commits that changed rows on which it
//! depends or a table that a rule of it looks at, when other rules or settings of the project come into force, when its token
//! is renewed and when it expires. Nothing is asked while nothing happens. Those that ask for the same with the same grants
//! are answered by one read, and those that differ in values only by one request.

mod answers;
mod batches;
mod changes;
mod dependencies;
mod feed;
mod followed_tables;
mod interests;
mod quota;
mod read;
mod row_feed;
mod shape;
mod turns;

use std::{
    collections::BTreeMap,
    mem,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::future::select_all;
use mesh::{
    Call, Code, Fault, Mesh, Tasks, clock,
    follow::Retries,
    telemetry::{Gauge, LiveReads},
};
use proto::grant::Verifier;
use query::{GrantTerms, Read};
use tokio::{sync::watch, time::Instant};

use self::{
    answers::{Answer, AnswerKey, AnswerMember, SharedAnswers, Versions, Wanted},
    dependencies::{Dependencies, SourceRows},
    feed::{Feeds, Listener, Source},
    followed_tables::FollowedTables,
    read::{BatchRead, LiveRead, ReadBatches, ReadMember},
};
use crate::{
    catalogue::Project,
    config::Config,
    edge::{Authorized, Caller, Edge, ReadFault, ReadResult},
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
/// Time until the next read of one that did not see all that was told before; doubles so many times.
const BEHIND_INTERVAL_FIRST: Duration = READ_INTERVAL_MIN;
const BEHIND_DOUBLED_MAX: u32 = 5;
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
    verifier: Verifier,
    feeds: Feeds,
    answers: Arc<SharedAnswers>,
    batches: ReadBatches,
    /// Number of the last read.
    last_read: AtomicU64,
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
    caller: CallerId,
    reads: Arc<dyn AsRef<[Read]> + Send + Sync>,
    request_id: Arc<str>,
    token: watch::Receiver<Arc<str>>,
    turns: CallerTurns,
    /// Told when a project is another.
    projects: watch::Receiver<()>,
    /// One for each source of its dependencies, in their order.
    listeners: Vec<Listener>,
    dependencies: Dependencies,
    /// The version of the project for which they are.
    version: u64,
    /// Hash of the reads.
    reads_hash: blake3::Hash,
    /// Its place among those that ask for the same.
    member: Option<AnswerMember>,
    /// Its place among those that differ in values only.
    batch: Option<Arc<ReadMember>>,
    /// Number of the last read that had begun when it began itself, or when it was answered last: what it is answered next
    /// was begun later.
    begun: u64,
    /// Reads, one after the other, that did not see all that was told before them: it is read again.
    behind: u32,
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
    pub(crate) fn new(edge: Edge, mesh: Mesh, config: Config, verifier: Verifier, tasks: Tasks) -> Self {
        let (open, reads) = (mesh.metrics().load().live_queries.clone(), mesh.metrics().live_reads());
        let followed = FollowedTables::new(config.followed_tables, mesh.metrics());
        let (feeds, turns) = (Feeds::new(mesh, tasks, followed), NodeTurns::new(READS_MAX));
        let (answers, batches, last_read) = Default::default();
        let shared = LiveShared { edge, verifier, feeds, answers, batches, last_read, turns, config, open, reads };
        Self { shared: Arc::new(shared) }
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
        let begun = shared.begun();
        let turns = shared.turns.of(caller);
        let reader = shared.caller(project, &request_id, token.borrow_and_update().clone());
        let authorized = shared.edge.authorize_reads(&reader, project, (*reads).as_ref()).await?;
        shared.open.inc();
        let mut live = LiveQuery {
            project: project.id.clone(),
            caller,
            reads_hash: hash_of(&(*reads).as_ref()),
            reads,
            request_id,
            token,
            turns,
            projects: shared.edge.project_changes(),
            listeners: Vec::new(),
            dependencies: Dependencies::default(),
            version: project.version,
            member: None,
            batch: None,
            begun,
            behind: 0,
            expires: authorized.token_expires_ms.and_then(clock::instant),
            last: None,
            next: None,
            last_read: None,
            retries: Retries::new(RETRY_FIRST, RETRY_MAX),
            retry: None,
            shared,
        };
        live.listen(project, &authorized).await?;
        Ok(live)
    }
}

/// Whether what failed may succeed when it is tried again.
fn may_pass(fault: &Fault) -> bool {
    matches!(fault.code, Code::Unavailable | Code::Deadline)
}

impl LiveShared {
    /// Number of the last read that has begun.
    fn begun(&self) -> u64 {
        self.last_read.load(Ordering::Acquire)
    }

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
        let project_changed = self.shared.edge.edited(&self.project, Some(self.version), &mut self.projects);
        let until_again =
            self.behind.checked_sub(1).map(|times| BEHIND_INTERVAL_FIRST * (1 << times.min(BEHIND_DOUBLED_MAX)));
        // What is told stays so until an answer has seen it: a wait that is dropped below forgets nothing.
        let told = select_all(self.listeners.iter().map(|listener| Box::pin(listener.changed())));
        tokio::select! {
            _ = told => {}
            () = tokio::time::sleep_until(last_read + until_again.unwrap_or_default()), if until_again.is_some() => {}
            () = project_changed => {}
            // Nobody can renew the token any more: the socket ends.
            Ok(()) = self.token.changed() => {}
            () = expired => {}
        }
        tokio::time::sleep_until(last_read + READ_INTERVAL_MIN).await;
    }

    /// The answer; `None` where it is the last one again, or where nobody can answer now and it will be retried.
    ///
    /// An error ends the live query.
    pub async fn read(&mut self) -> Result<Option<Vec<ReadResult>>, ReadFault> {
        for (source, listener) in self.dependencies.sources.keys().zip(&self.listeners) {
            // It was tried again for long enough.
            if let Some(fault) = listener.fault() {
                return Err(self.dependencies.disclosed(source, fault).into());
            }
        }
        let read = Box::pin(self.read_now()).await;
        self.last_read = Some(Instant::now());
        match read {
            Ok(answer) => {
                let hash = Some(answer.hash);
                let is_same = self.last == hash;
                if is_same {
                    self.succeeded();
                } else {
                    self.next = hash;
                }
                let counter = if is_same { &self.shared.reads.same } else { &self.shared.reads.changed };
                counter.inc();
                Ok((!is_same).then(|| answer.results.clone()))
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

    async fn read_now(&mut self) -> Result<Arc<Answer>, ReadFault> {
        let shared = self.shared.clone();
        // Others of its shape wait for it.
        let due = self.batch.as_ref().map(|batch| batch.due());
        let turn = self.turns.next().await;
        // The token that is there after the wait: it may allow less than the one before.
        let token = self.token.borrow_and_update().clone();
        let caller = Caller { call: Call::begin(Some(&self.request_id), None, Some(shared.config.time)), token };
        let project = shared.edge.project(&caller, (&*self.project).into()).await?;
        let caller = shared.caller(&project, &self.request_id, caller.token);
        // What happens from here on may not be in the grants.
        self.listeners.iter_mut().for_each(Listener::mark);
        let authorized = shared.edge.authorize_reads(&caller, &project, (*self.reads).as_ref()).await?;
        self.expires = authorized.token_expires_ms.and_then(clock::instant);
        // A relation may lead to another table now, or a rule looks at another.
        self.listen(&project, &authorized).await?;
        let wanted = self.wanted();
        let batch = self.batch.clone().filter(|batch| batch.has_others());
        let held = (turn, batch.as_ref().map(|batch| batch.due()));
        drop(due);
        let (reads, turns) = (self.reads.clone(), self.turns.clone());
        let asked = BatchRead { reads, authorized, snapshot: wanted.snapshot, turns };
        let read = LiveRead { shared: shared.clone(), caller, project, asked, versions: wanted.now.clone() };
        let read = move |held| async move { read.answer(held, batch.as_deref()).await };
        let (answer, is_shared) = match &self.member {
            Some(member) => member.answer(&wanted, held, read).await,
            None => (read(Some(held)).await.map(Arc::new), false),
        };
        let answer = answer?;
        if is_shared {
            shared.reads.shared.inc();
        }
        self.saw(&answer);
        Ok(answer)
    }

    /// What the next answer has to have seen.
    fn wanted(&self) -> Wanted {
        // Reads are numbered: what others have read is not older than the answer before, or than the query itself.
        let needed = [self.begun + 1].into_iter().chain(self.listeners.iter().map(Listener::needed)).collect();
        let number = self.shared.last_read.fetch_add(1, Ordering::AcqRel) + 1;
        let now: Versions = [number].into_iter().chain(self.listeners.iter().map(Listener::now)).collect();
        Wanted { needed, now, snapshot: self.listeners.iter().any(Listener::needs_snapshot) }
    }

    /// Notes what an answer has seen.
    fn saw(&mut self, answer: &Answer) {
        let versions = answer.versions.iter().skip(1);
        let mut is_behind = false;
        let sources = self.dependencies.sources.values().zip(&mut self.listeners);
        for ((source, listener), version) in sources.zip(versions) {
            let seen = answer.snapshots.iter().filter(|(database, _)| source.read_by.contains(&**database));
            let snapshots: Vec<_> = seen.map(|(_, snapshot)| snapshot).collect();
            is_behind |= listener.saw(*version, &snapshots);
        }
        self.begun = self.shared.begun();
        self.behind = if is_behind { self.behind.saturating_add(1) } else { 0 };
    }

    /// Plans a retry after a failure that may pass; any other, and one that lasts too long, is given back.
    fn failed(&mut self, failure: ReadFault, is_expired: bool) -> Result<(), ReadFault> {
        let (ReadFault::Refused(fault) | ReadFault::Failed(fault)) = &failure;
        if is_expired && fault.code == Code::Unauthenticated {
            return Err(Fault::new(Code::TokenExpired, "the token has expired").into());
        }
        let Some(wait) = may_pass(fault).then(|| self.retries.failed()).flatten() else { return Err(failure) };
        self.retry = Some(Instant::now() + wait);
        Ok(())
    }

    /// Listens to the rules and to the rows on which the reads and their rules depend, from before it returns, and joins
    /// those that ask for the same.
    async fn listen(&mut self, project: &Project, authorized: &Authorized) -> Result<(), Fault> {
        // Grants of another `mesh_key` are for the database service to refuse: nothing is shared or left out by them.
        let terms = self.shared.terms(authorized);
        let key = terms.as_ref().map(|terms| self.key(project, terms, authorized));
        if key.is_some() && self.member.as_ref().map(|member| member.key) == key {
            return Ok(());
        }
        let terms = terms.unwrap_or_default();
        let dependencies = Dependencies::of(project, (*self.reads).as_ref(), &authorized.relations, &terms)?;
        if dependencies != self.dependencies {
            let is_new = |(source, of): &(&Source, &SourceRows)| self.dependencies.sources.get(*source) != Some(of);
            let listen = |(source, of): (&Source, &SourceRows)| {
                (source.clone(), self.shared.feeds.listen(source, of.rows.as_ref(), self.caller))
            };
            let mut added: BTreeMap<Source, Listener> =
                dependencies.sources.iter().filter(is_new).map(listen).collect();
            let are_live = async {
                for (source, listener) in &mut added {
                    listener.live().await.map_err(|fault| dependencies.disclosed(source, fault))?;
                }
                Ok::<(), Fault>(())
            };
            let late = |_| Fault::new(Code::Unavailable, "the changes of the tables cannot be followed now");
            tokio::time::timeout(self.shared.config.time(&project.spec), are_live).await.map_err(late)??;
            let before = mem::replace(&mut self.dependencies, dependencies).sources.into_keys();
            let mut all: BTreeMap<Source, Listener> = before.zip(mem::take(&mut self.listeners)).collect();
            all.append(&mut added);
            all.retain(|source, _| self.dependencies.sources.contains_key(source));
            self.listeners = all.into_values().collect();
        }
        (self.version, self.behind) = (project.version, 0);
        self.member = key.map(|key| self.shared.answers.join(key));
        let shape = key.map(|_| shape::of(project, (*self.reads).as_ref(), &terms));
        if self.batch.as_ref().map(|batch| batch.key) != shape {
            self.batch = shape.map(|shape| Arc::new(self.shared.batches.join(shape)));
        }
        Ok(())
    }

    /// Hash of all that decides what the reads are answered, and what they depend on. The expiry of a grant decides nothing
    /// of that.
    fn key(&self, project: &Project, terms: &[Arc<GrantTerms>], authorized: &Authorized) -> AnswerKey {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.reads_hash.as_bytes());
        hasher.update(hash_of(&(&project.id, project.version, &authorized.relations)).as_bytes());
        for terms in terms {
            let GrantTerms { project, database, table, operation, filter, check, columns, allow_all, expires_ms: _ } =
                &**terms;
            let decides = (project, database, table, operation, filter, check, columns, allow_all);
            hasher.update(hash_of(&decides).as_bytes());
        }
        hasher.finalize()
    }
}

impl LiveShared {
    /// The terms of the grants for reads; `None` where they are signed with another key.
    fn terms(&self, authorized: &Authorized) -> Option<Vec<Arc<GrantTerms>>> {
        authorized.grants().iter().map(|grant| self.verifier.terms(grant.clone()).ok()).collect()
    }
}

impl Drop for LiveQuery {
    fn drop(&mut self) {
        self.shared.open.dec();
    }
}

/// Hash of the text of a value for debugging, in which texts are quoted: values that differ have different ones.
fn hash_of(value: &impl std::fmt::Debug) -> blake3::Hash {
    blake3::hash(format!("{value:?}").as_bytes())
}

/// Hash of an answer.
fn hash(answers: &[ReadResult]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for ReadResult { json, truncated, .. } in answers {
        hasher.update(&(json.len() as u64).to_le_bytes()).update(json).update(&[u8::from(*truncated)]);
    }
    hasher.finalize()
}
