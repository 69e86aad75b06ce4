//! Authorization: the one path of every protocol to the database service.
//!
//! It obtains grants for everything that a request accesses, then forwards the request with them.

mod batch_call;
mod disclosure;
mod edits;
mod files;
mod function_stream;
mod functions;
mod hooks;
mod queue;
mod shares;

use std::sync::Arc;

use bytes::Bytes;
use futures::future::try_join_all;
use mesh::{Call, Code, Fault, Mesh, fault::answer_too_large};
use proto::{
    Links,
    auth::{
        Access, AuthorizeRequest, AuthorizeResponse, ReachableRequest, ReachableResponse, RuleRelations, TableAccess,
    },
    crud::{ReadRequest, Snapshot, WriteRequest},
    grant::Grant,
    link::Messages,
    realtime::{WatchRequest, WatchResponse},
};
use query::{Mutation, Read, visit_mutation_accesses, visit_read_accesses};
use tokio::sync::watch;

use crate::{
    Config,
    catalogue::{Catalogue, KnownProject, Project, ProjectRef},
};

pub use disclosure::AttemptedAccess;
pub(crate) use files::Credential;
pub(crate) use function_stream::{BegunStream, StreamPermission};
use functions::CallLimit;
pub(crate) use functions::{FunctionAnswer, FunctionCall};
pub use proto::crud::Answer as ReadResult;
pub(crate) use queue::{CustomEvent, QueuedEvents};
use shares::Shares;

/// Identity and call context of a request.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Trace, request id and deadline.
    pub call: Call,
    /// The token as sent, without its scheme; empty where there is none.
    pub token: Arc<str>,
}

/// Fault of reads.
#[derive(Debug, Clone)]
pub enum ReadFault {
    /// None was begun.
    Refused(Fault),
    /// They were authorised, and failed in the database service. The detail `read` is the index of the one that did,
    /// where it is known.
    Failed(Fault),
}

impl From<Fault> for ReadFault {
    fn from(fault: Fault) -> Self {
        ReadFault::Refused(fault)
    }
}

impl From<ReadFault> for Fault {
    fn from(failure: ReadFault) -> Self {
        match failure {
            ReadFault::Refused(fault) | ReadFault::Failed(fault) => fault,
        }
    }
}

/// Result of one mutation.
#[derive(Debug, Clone)]
pub struct WriteResult {
    /// Rows inserted, changed or deleted.
    pub affected: u64,
    /// The JSON that `returning` asks for; empty where it asks for nothing.
    pub rows: Bytes,
}

/// Authorizes requests and forwards them. Clones are the same edge.
#[derive(Clone)]
pub struct Edge {
    mesh: Mesh,
    catalogue: Catalogue,
    /// Bytes of an answer, unless a project lowers it.
    answer_bytes: usize,
    /// Whether unknown names are told to everybody, and refusals logged.
    is_development: bool,
    calls: CallLimit,
    /// Of requests that wait for answers of triggers.
    waits: CallLimit,
}

impl Edge {
    /// The path over `mesh` for the projects of `catalogue`.
    pub(crate) fn new(mesh: Mesh, catalogue: Catalogue, config: &Config) -> Self {
        let calls = CallLimit::of_calls(config.in_flight, mesh.metrics());
        let waits = CallLimit::of_waits(config.in_flight, mesh.metrics());
        Self { mesh, catalogue, answer_bytes: config.answer_bytes, is_development: config.development, calls, waits }
    }

    /// Bytes of JSON that the answer to a request to `project` may have.
    pub(crate) fn answer_bytes(&self, project: &Project) -> u64 {
        let own = project.spec.limits.answer_bytes;
        own.map_or(self.answer_bytes, |own| own.min(self.answer_bytes)) as u64
    }

    /// The project that a request is for.
    pub async fn project(&self, _caller: &Caller, project: ProjectRef<'_>) -> Result<Arc<Project>, Fault> {
        self.catalogue.project(project).await
    }

    /// The project after asking crud to look at its databases again (at most once a second): for a caller whose request
    /// names something unknown. `None` where nothing changed.
    pub async fn refreshed(&self, caller: &Caller, project: &Project) -> Result<Option<Arc<Project>>, Fault> {
        self.catalogue.refreshed(&caller.call, project).await
    }

    /// The project called `id`, as far as it is known without any waiting.
    pub(crate) fn known(&self, id: &str) -> Option<KnownProject> {
        self.catalogue.known(id)
    }

    /// The project called `id` as its resources say, without any waiting.
    pub(crate) fn settings(&self, id: &str) -> Option<Arc<Project>> {
        self.catalogue.settings(id)
    }

    /// Told when a project is added, changed or removed, or what a database of it holds.
    pub(crate) fn project_changes(&self) -> watch::Receiver<()> {
        self.catalogue.changes()
    }

    /// All projects as their resources say, ordered by their ids.
    pub(crate) fn projects(&self) -> Vec<Arc<Project>> {
        self.catalogue.projects()
    }

    /// The origins that project `id` lets call from a browser; those of all projects where it is `None`.
    pub(crate) fn origins(&self, id: Option<&str>) -> Vec<String> {
        self.catalogue.origins(id)
    }

    /// Logs the refusal of a request, in development only: there whoever reads the log is who sent it.
    pub(crate) fn log_refusal(&self, caller: &Caller, fault: &Fault) {
        let is_refusal = fault.code.http() < 500;
        if self.is_development && is_refusal {
            let (request_id, code) = (&*caller.call.request_id, fault.code.as_str());
            tracing::warn!(request_id, code, reason = fault.message, "request refused");
        }
    }

    /// Reads, which may be of several databases: one authorisation for all, then one snapshot per database. A denial
    /// has the index of its read as detail `read`.
    pub async fn read(
        &self,
        caller: &Caller,
        project: &Project,
        reads: Vec<Read>,
    ) -> Result<Vec<ReadResult>, ReadFault> {
        if reads.is_empty() {
            return Ok(Vec::new());
        }
        let authorized = self.authorize_reads(caller, project, &reads).await?;
        self.read_authorized(caller, project, reads, authorized).await
    }

    /// Grants for reads, which may be of several databases. A denial has the index of its read as detail `read`.
    pub(crate) async fn authorize_reads(
        &self,
        caller: &Caller,
        project: &Project,
        reads: &[Read],
    ) -> Result<Authorized, Fault> {
        let mut requested = RequestedAccesses::of(reads.len());
        for read in reads {
            let (database, schema) = project.described(&read.database)?;
            requested.operation(&database.id, |visit| visit_read_accesses(schema, read, visit))?;
        }
        self.authorize(caller, project, requested, "read").await
    }

    /// As [`Edge::read`], with the grants that the reads were given.
    async fn read_authorized(
        &self,
        caller: &Caller,
        project: &Project,
        reads: Vec<Read>,
        authorized: Authorized,
    ) -> Result<Vec<ReadResult>, ReadFault> {
        let Authorized { grants, shares, .. } = authorized;
        let answer_bytes = self.answer_bytes(project);

        if let Some((first, rest)) = reads.split_first()
            && rest.iter().all(|read| read.database == first.database)
        {
            let (database, _) = project.described(&first.database)?;
            let (project, database) = (project.id.clone(), database.id.clone());
            let request = ReadRequest { project, database, grants, reads, answer_bytes, snapshot: false };
            return self.answers(caller, request).await.map_err(ReadFault::Failed);
        }
        // Rare, and large: kept out of the futures of all others.
        let read = Box::pin(self.read_databases(caller, project, reads, (grants, shares), false)).await;
        read.map(|(results, _)| results)
    }

    /// As [`Edge::read`], with the grants that the reads were given; with the snapshot of each database by its id, where
    /// `snapshot` says so.
    pub(crate) async fn read_snapshots(
        &self,
        caller: &Caller,
        project: &Project,
        reads: Vec<Read>,
        (authorized, snapshot): (Authorized, bool),
    ) -> Result<(Vec<ReadResult>, Snapshots), ReadFault> {
        let Authorized { grants, shares, .. } = authorized;
        self.read_databases(caller, project, reads, (grants, shares), snapshot).await
    }

    /// Reads of several databases, with their grants and how many each read takes.
    async fn read_databases(
        &self,
        caller: &Caller,
        project: &Project,
        reads: Vec<Read>,
        (grants, shares): (Vec<Grant>, Shares),
        snapshot: bool,
    ) -> Result<(Vec<ReadResult>, Snapshots), ReadFault> {
        let (total, answer_bytes) = (reads.len(), self.answer_bytes(project));
        let counts = shares.counts(grants.len());
        let mut grants = grants.into_iter();
        let mut groups: Vec<ReadGroup> = Vec::new();
        for (index, (read, count)) in reads.into_iter().zip(counts).enumerate() {
            let is_of_database = |group: &ReadGroup| *group.request.database == *read.database;
            let group =
                group_or_insert(&mut groups, is_of_database, || ReadGroup::new(project, &read.database, answer_bytes));
            group.indexes.push(index);
            group.request.grants.extend(grants.by_ref().take(count));
            group.request.reads.push(read);
        }
        let answered = try_join_all(groups.into_iter().map(|ReadGroup { indexes, mut request }| async {
            request.snapshot = snapshot;
            let database = request.database.clone();
            let answers = self.answers_seen(caller, request).await;
            let (answers, seen) = answers.map_err(|fault| ReadFault::Failed(in_request(fault, &indexes)))?;
            Ok::<_, ReadFault>((indexes.into_iter().zip(answers), seen.map(|seen| (database, seen))))
        }));
        let (answers, snapshots): (Vec<_>, Vec<_>) = answered.await?.into_iter().unzip();
        let answers = in_request_order(answers.into_iter().flatten(), total)?;
        match answers.iter().map(|answer| answer.json.len() as u64).sum::<u64>() > answer_bytes {
            true => Err(ReadFault::Failed(Fault::new(Code::TooLarge, answer_too_large(answer_bytes)))),
            false => Ok((answers, snapshots.into_iter().flatten().collect())),
        }
    }

    /// The changes of the rows of a table, which realtime authorises again whenever rights change. There is no limit of time.
    pub(crate) async fn watch(
        &self,
        request_id: &str,
        request: WatchRequest,
    ) -> Result<Messages<WatchResponse>, Fault> {
        let call = Call::begin(Some(request_id), None, None);
        let begun = Box::pin(self.mesh.realtime().watch(&call, request)).await.map_err(Fault::from);
        if let Err(fault) = &begun {
            self.log_refusal(&Caller { call, token: Arc::default() }, fault);
        }
        begun
    }

    /// Mutations as `(database, mutation)` in document order: all authorised first, then one transaction per database.
    /// Databases run one after the other in order of their first mutation; the first failure stops the rest. One result
    /// per mutation, in order; a mutation of a database that failed has that failure, one of a database not reached
    /// `UNAVAILABLE`. A denial fails as a whole, before anything runs, with the index of its mutation as detail
    /// `mutation`.
    pub async fn write(
        &self,
        caller: &Caller,
        project: &Project,
        mut mutations: Vec<(Arc<str>, Mutation)>,
    ) -> Result<Vec<Result<WriteResult, Fault>>, Fault> {
        if mutations.is_empty() {
            return Ok(Vec::new());
        }
        let mut authorized = self.authorize_writes(caller, project, &mutations).await?;
        let has_hooks = !project.hooks.is_empty();
        if has_hooks && Box::pin(self.ask_hooks(caller, project, &mut mutations)).await? {
            // The rules judge what is written, whoever changed it.
            authorized = self.authorize_writes(caller, project, &mutations).await?;
        }
        let Authorized { grants, shares, .. } = authorized;

        let total = mutations.len();
        let answer_bytes = self.answer_bytes(project);
        let counts = shares.counts(grants.len());
        let mut grants = grants.into_iter();
        let mut groups: Vec<WriteGroup> = Vec::with_capacity(1);
        for (index, ((database, mutation), count)) in mutations.into_iter().zip(counts).enumerate() {
            let is_of_database = |group: &WriteGroup| *group.request.database == *database;
            let group =
                group_or_insert(&mut groups, is_of_database, || WriteGroup::new(project, &database, answer_bytes));
            group.indexes.push(index);
            group.request.grants.extend(grants.by_ref().take(count));
            group.request.mutations.push(mutation);
        }
        let mut results = Vec::with_capacity(total);
        let mut failed: Option<Arc<str>> = None;
        let mut answer_bytes_used = 0;
        for mut group in groups {
            group.request.answer_bytes_used = answer_bytes_used;
            let database = group.request.database.clone();
            let written = match &failed {
                None => self.write_group(caller, group).await,
                Some(failed) => group.not_done(failed),
            };
            if failed.is_none() && written.iter().any(|(_, result)| result.is_err()) {
                failed = Some(database);
            }
            let rows = written.iter().filter_map(|(_, result)| result.as_ref().ok()).map(|one| one.rows.len() as u64);
            answer_bytes_used += rows.sum::<u64>();
            results.extend(written);
        }
        in_request_order(results.into_iter(), total)
    }

    /// Grants for mutations.
    async fn authorize_writes(
        &self,
        caller: &Caller,
        project: &Project,
        mutations: &[(Arc<str>, Mutation)],
    ) -> Result<Authorized, Fault> {
        let mut requested = RequestedAccesses::of(mutations.len());
        for (database, mutation) in mutations {
            let (database, schema) = project.described(database)?;
            requested.operation(&database.id, |visit| visit_mutation_accesses(schema, mutation, visit))?;
        }
        self.authorize(caller, project, requested, "mutation").await
    }

    /// Grants for all requested accesses, in their order, and how many each operation takes. A denial has the index
    /// of its operation as detail `name`.
    async fn authorize(
        &self,
        caller: &Caller,
        project: &Project,
        requested: RequestedAccesses,
        name: &str,
    ) -> Result<Authorized, Fault> {
        let wanted = requested.accesses.len();
        let AuthorizeResponse { grants, token_expires_ms, relations } =
            match self.grants(caller, project, requested.accesses).await {
                Ok(granted) => granted,
                Err(fault) => {
                    self.log_refusal(caller, &fault);
                    let access = fault.detail("access").and_then(|access| access.parse().ok());
                    let index =
                        access.filter(|access| *access < wanted).map(|access| requested.shares.operation(access));
                    return Err(match index {
                        Some(index) => fault.with(name, index.to_string()),
                        None => fault,
                    });
                }
            };
        if grants.len() != wanted {
            let cause = format!("{} grants for {wanted} accesses", grants.len());
            return Err(Fault::internal("the request could not be authorised", cause));
        }
        Ok(Authorized { grants, shares: requested.shares, token_expires_ms, relations })
    }

    /// What the caller could ever be allowed in `project`.
    pub async fn reach(&self, caller: &Caller, project: &Project) -> Result<ReachableResponse, Fault> {
        let request = ReachableRequest { project: project.id.as_ref().to_owned(), token: caller.token.to_string() };
        Ok(self.mesh.auth_rules().reachable(&caller.call, request).await?)
    }

    async fn grants(
        &self,
        caller: &Caller,
        project: &Project,
        accesses: Vec<Access>,
    ) -> Result<AuthorizeResponse, Fault> {
        let request = AuthorizeRequest { project: project.id.clone(), token: caller.token.clone(), accesses };
        Ok(self.mesh.auth_rules().authorize(&caller.call, request).await?)
    }

    /// Answers to reads of one database, in their order.
    async fn answers(&self, caller: &Caller, request: ReadRequest) -> Result<Vec<ReadResult>, Fault> {
        self.answers_seen(caller, request).await.map(|(results, _)| results)
    }

    /// As [`Edge::answers`], with the snapshot that they saw where it was asked for and a log is kept.
    async fn answers_seen(
        &self,
        caller: &Caller,
        request: ReadRequest,
    ) -> Result<(Vec<ReadResult>, Option<Snapshot>), Fault> {
        let wanted = request.reads.len();
        let read = self.mesh.crud().read(&caller.call, request).await.map_err(|status| {
            let fault = Fault::from(status);
            self.log_refusal(caller, &fault);
            fault
        })?;
        if read.answers.len() != wanted {
            return Err(wrong_count(read.answers.len(), wanted));
        }
        Ok((read.answers, read.seen.and_then(|seen| seen.snapshot)))
    }

    async fn write_group(&self, caller: &Caller, group: WriteGroup) -> Vec<(usize, Result<WriteResult, Fault>)> {
        let WriteGroup { indexes, request } = group;
        let written = match self.mesh.crud().write(&caller.call, request).await {
            Ok(response) => response.written,
            Err(status) => {
                let fault = Fault::from(status);
                self.log_refusal(caller, &fault);
                return fail_all(indexes, fault);
            }
        };
        if written.len() != indexes.len() {
            let fault = wrong_count(written.len(), indexes.len());
            return fail_all(indexes, fault);
        }
        let written = written.into_iter().map(|one| Ok(WriteResult { affected: one.affected, rows: one.rows }));
        indexes.into_iter().zip(written).collect()
    }
}

/// What reads saw, by the ids of databases.
pub(crate) type Snapshots = Vec<(Arc<str>, Snapshot)>;

/// Grants of a request.
#[derive(Clone, Default)]
pub(crate) struct Authorized {
    grants: Vec<Grant>,
    /// How many of them each operation takes.
    shares: Shares,
    /// [`AuthorizeResponse::token_expires_ms`].
    pub token_expires_ms: Option<i64>,
    /// [`AuthorizeResponse::relations`].
    pub relations: Vec<RuleRelations>,
}

impl Authorized {
    /// The grants of several requests as those of one: what they say of tokens and rules is of none of them.
    pub fn joined(all: impl Iterator<Item = Self>) -> Self {
        let reduced = all.reduce(|mut joined, one| {
            joined.shares.append(joined.grants.len(), one.shares);
            joined.grants.extend(one.grants);
            joined
        });
        let Self { grants, shares, .. } = reduced.unwrap_or_default();
        Self { grants, shares, ..Self::default() }
    }

    /// Whether each read takes as many of the grants as the one of `other` in its place.
    pub fn is_shared_as(&self, other: &Self) -> bool {
        (self.grants.len(), &self.shares) == (other.grants.len(), &other.shares)
    }

    /// The grants, in the order of the accesses of all reads.
    pub fn grants(&self) -> &[Grant] {
        &self.grants
    }
}

/// Accesses to authorize, and how many each operation takes.
struct RequestedAccesses {
    accesses: Vec<Access>,
    shares: Shares,
    has_first: bool,
}

impl RequestedAccesses {
    /// An empty list with room for that many operations: most take one access.
    fn of(operations: usize) -> Self {
        Self { accesses: Vec::with_capacity(operations), shares: Shares::default(), has_first: false }
    }

    /// Adds the accesses of an operation, which `visit` visits.
    fn operation<'a>(
        &mut self,
        database: &Arc<str>,
        visit: impl FnOnce(&mut dyn FnMut(query::TableAccess<'a>)) -> Result<(), query::Error>,
    ) -> Result<(), Fault> {
        if std::mem::replace(&mut self.has_first, true) {
            self.shares.begin(self.accesses.len());
        }
        visit(&mut |access| self.accesses.push(Access::Table(TableAccess::of(database, access)))).map_err(Fault::from)
    }
}

/// The fault of one of the reads at `indexes` of a request, with its index there.
fn in_request(mut fault: Fault, indexes: &[usize]) -> Fault {
    for (_, index) in fault.details.iter_mut().filter(|(name, _)| name == "read") {
        if let Some(own) = index.parse().ok().and_then(|at: usize| indexes.get(at)) {
            *index = own.to_string();
        }
    }
    fault
}

/// Reads of one database, and their indexes in the request.
struct ReadGroup {
    indexes: Vec<usize>,
    request: ReadRequest,
}

impl ReadGroup {
    fn new(project: &Project, database: &str, answer_bytes: u64) -> Self {
        let (project, database) = (project.id.clone(), database.into());
        let request = ReadRequest { project, database, answer_bytes, ..Default::default() };
        Self { indexes: Vec::new(), request }
    }
}

/// Mutations of one database, and their indexes in the request.
struct WriteGroup {
    indexes: Vec<usize>,
    request: WriteRequest,
}

impl WriteGroup {
    fn new(project: &Project, database: &str, answer_bytes: u64) -> Self {
        let (project, database) = (project.id.clone(), database.into());
        let request = WriteRequest { project, database, answer_bytes, ..Default::default() };
        Self { indexes: Vec::new(), request }
    }

    fn not_done(self, failed: &str) -> Vec<(usize, Result<WriteResult, Fault>)> {
        let message = format!("not done, because database {failed} failed before");
        fail_all(self.indexes, Fault::new(Code::Unavailable, message))
    }
}

/// The first group that `is_wanted`; a new one at the end where there is none.
fn group_or_insert<G>(groups: &mut Vec<G>, is_wanted: impl Fn(&G) -> bool, new: impl FnOnce() -> G) -> &mut G {
    let index = groups.iter().position(is_wanted).unwrap_or_else(|| {
        groups.push(new());
        groups.len() - 1
    });
    &mut groups[index]
}

fn fail_all(indexes: Vec<usize>, fault: Fault) -> Vec<(usize, Result<WriteResult, Fault>)> {
    indexes.into_iter().map(|index| (index, Err(fault.clone()))).collect()
}

/// `results` in the order of their indexes, of which there are `count`.
fn in_request_order<T>(results: impl Iterator<Item = (usize, T)>, count: usize) -> Result<Vec<T>, Fault> {
    let mut results: Vec<(usize, T)> = results.collect();
    results.sort_by_key(|(index, _)| *index);
    match results.len() == count {
        true => Ok(results.into_iter().map(|(_, result)| result).collect()),
        false => Err(wrong_count(results.len(), count)),
    }
}

fn wrong_count(got: usize, wanted: usize) -> Fault {
    Fault::internal("the database service gave the wrong number of answers", format!("{got} for {wanted}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_of_a_read_has_its_index_in_the_request() {
        let fault = Fault::new(Code::Internal, "x").with("read", "1").with("columns", "0");
        let expected = Fault::new(Code::Internal, "x").with("read", "7").with("columns", "0");
        assert_eq!(in_request(fault, &[3, 7]), expected);
    }

    #[test]
    fn results_come_back_in_the_order_of_the_request() {
        assert_eq!(in_request_order([(1, 'b'), (0, 'a')].into_iter(), 2), Ok(vec!['a', 'b']));
        assert_eq!(in_request_order([(1, 'b')].into_iter(), 2).unwrap_err().code, Code::Internal);
    }
}
