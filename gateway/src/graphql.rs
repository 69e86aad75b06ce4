//! GraphQL over HTTP: documents become reads and mutations of the model, answers are spliced in unread.
//!
//! A document is parsed once per text ([`document`]) and planned for each request ([`plan`]) against the names of the
//! project's tables ([`names`]): the typed roots, and the dialect that names a database by a directive.

mod calls;
mod changes;
mod document;
mod events;
#[cfg(test)]
pub(crate) mod fixture;
mod function_stream;
mod graphiql;
mod introspection;
pub(crate) mod names;
mod plan;
mod refusal;
mod request;
mod response;
mod scan;
mod socket;
mod turns;
mod value;
mod variables;

use std::{
    pin::{Pin, pin},
    sync::Arc,
};

use arc_swap::ArcSwap;
use async_graphql_parser::types::OperationType;
use axum::{
    Router,
    body::Body,
    extract::{Path, RawQuery, State},
    response::Response,
    routing::get,
};
use foldhash::{HashMap, HashMapExt};
use futures::stream;
use http::{HeaderMap, request::Parts};
use mesh::{
    Call, Code, Fault,
    cache::{self, WeightedCache, Weighter},
    listener::Connection,
};

#[cfg(test)]
pub(crate) use self::socket::client as socket_client;
use self::{
    document::Document,
    introspection::IntrospectionCache,
    names::Names,
    plan::{Counters, FieldSource, Kind, Plan, PlanCache, PlanContext, ResponseField},
    refusal::{Cause, Refusal},
    request::Request,
    response::{LocatedFault, QueryAnswer},
    variables::Variables,
};
pub(crate) use self::{
    introspection::{CompressedJson, NoAnswer, Output, reach},
    request::Media,
};
use crate::{
    Service,
    catalogue::{Project, ProjectRef},
    edge::{self, Caller, ReadFault, WriteResult},
    http::{API_PREFIX, HeaderSummary, answer, body, current, guarded, plain_segment},
    socket::{Upgrade, is_asked},
};

/// Documents longer than this are parsed on the blocking pool and not cached.
const UNCACHED_BYTES: usize = 32 * 1024;
/// Approximate memory limit of the document cache.
const DOCUMENT_CACHE_BYTES: u64 = 64 * 1024 * 1024;
/// Documents of the size that is usual that it holds.
const DOCUMENTS_EXPECTED: usize = 4000;
/// Projects whose names are cached; the cache is cleared when it is full.
const CACHED_PROJECTS: usize = 1000;

/// Caches of parsed documents, of the names of each project's schema and of what was shown of it.
pub struct Caches {
    documents: WeightedCache<String, Arc<Document>, DocumentWeighter>,
    names: ArcSwap<HashMap<String, Arc<Names>>>,
    pub(crate) introspection: IntrospectionCache,
}

impl Caches {
    /// Names of this version of the project.
    pub(crate) fn names(&self, project: Arc<Project>) -> Arc<Names> {
        if let Some(names) = self.names.load().get(&*project.id)
            && names.project.version == project.version
        {
            return names.clone();
        }
        let id = project.id.as_ref().to_owned();
        let names = Arc::new(Names::new(project));
        self.names.rcu(|kept| {
            let mut kept = if kept.len() < CACHED_PROJECTS { HashMap::clone(kept) } else { HashMap::new() };
            kept.insert(id.clone(), names.clone());
            kept
        });
        names
    }
}

impl Default for Caches {
    fn default() -> Self {
        let documents = cache::weighted(DOCUMENT_CACHE_BYTES, DOCUMENTS_EXPECTED, DocumentWeighter);
        Self { documents, names: ArcSwap::default(), introspection: IntrospectionCache::default() }
    }
}

/// Approximate memory of a document in bytes.
#[derive(Clone)]
struct DocumentWeighter;

impl Weighter<String, Arc<Document>> for DocumentWeighter {
    /// A tree takes about twenty times the bytes of its text, besides what is planned of it: plans and selections.
    fn weight(&self, text: &String, _: &Arc<Document>) -> u64 {
        let bytes = text.len() * (20 + 2 * PlanCache::BYTES_PER_BYTE) + 500;
        bytes as u64
    }
}

/// Routes of the GraphQL endpoint and of its page for browsers.
pub fn routes() -> Router<Service> {
    Router::new()
        .route("/", get(graphiql::start))
        .route("/v1/api/{project}/graphql", get(get_document).post(post_document))
        .route("/v1/api/{project}/graphql/socket", get(socket::open))
        .route("/v1/api/{project}/graphql/{file}", get(graphiql::file))
}

async fn get_document(
    State(service): State<Service>,
    caller: Caller,
    Path(project): Path<String>,
    head: Parts,
    RawQuery(query): RawQuery,
    upgrade: Upgrade,
) -> Response {
    if is_asked(&head.headers) {
        return Box::pin(socket::open(State(service), caller, Path(project), head.headers, upgrade)).await;
    }
    let media = Media::of(&head.headers, HeaderSummary::of(&head.headers));
    let responder = Responder { service: &service, caller: &caller, media };
    let work = async {
        let project = match service.edge().project(&caller, project.as_str().into()).await {
            Ok(project) => project,
            Err(fault) => return answer::fault(&fault, &caller.call),
        };
        if let Some(page) = graphiql::page(&service, &project, &head.headers) {
            return page;
        }
        match Request::of_parameters(query.as_deref().unwrap_or_default(), service.guard()) {
            Ok(request) => responder.answer(project, Transport::Get, request, head.extensions.get()).await,
            Err(fault) => responder.fault(fault),
        }
    };
    responder.guarded(pin!(work)).await
}

async fn post_document(
    State(service): State<Service>,
    Path(project): Path<String>,
    request: axum::extract::Request,
) -> Response {
    let (head, body) = request.into_parts();
    let (call, summary) = (current(), HeaderSummary::of(&head.headers));
    let sender = Sender { headers: &head.headers, summary, connection: head.extensions.get() };
    Box::pin(answer_post(&service, call, project.as_str().into(), sender, body)).await
}

/// A path of the GraphQL endpoint that needs no decoding: the length of the project's id in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PostedDocument {
    project: u16,
}

impl PostedDocument {
    /// Parses `path`; `None` where it is no such path.
    pub(crate) fn of(path: &str) -> Option<Self> {
        let (project, rest) = plain_segment(path.strip_prefix(API_PREFIX)?)?;
        let project = u16::try_from(project.len()).ok()?;
        (rest == "graphql").then_some(Self { project })
    }

    /// The project's id in `path`, the one that was parsed.
    pub(crate) fn project(self, path: &str) -> &str {
        &path[API_PREFIX.len()..][..usize::from(self.project)]
    }
}

/// Who posts a document, and how.
pub(crate) struct Sender<'a> {
    /// The headers of the request.
    pub headers: &'a HeaderMap,
    /// Their summary.
    pub summary: HeaderSummary,
    /// The connection that it came on, where it is known.
    pub connection: Option<&'a Arc<Connection>>,
}

/// The answer to a POST of a document for `project`.
pub(crate) async fn answer_post(
    service: &Service,
    call: Call,
    project: ProjectRef<'_>,
    Sender { headers, summary, connection }: Sender<'_>,
    body: Body,
) -> Response {
    let caller = match Caller::of(call.clone(), headers) {
        Ok(caller) => caller,
        Err(fault) => return answer::fault(&fault, &call),
    };
    let responder = Responder { service, caller: &caller, media: Media::of(headers, summary) };
    let work = async {
        let project = match service.edge().project(&caller, project).await {
            Ok(project) => project,
            Err(fault) => return answer::fault(&fault, &caller.call),
        };
        if let Err(fault) = request::check_content_type(headers, summary) {
            return responder.unsupported_media(fault);
        }
        let sent = match body::read(service.config(), &project, body).await {
            Ok(sent) => sent,
            Err(fault) => return responder.fault(fault),
        };
        match Request::of_json(&sent, service.guard()) {
            Ok(request) => responder.answer(project, Transport::Post, request, connection).await,
            Err(fault) => responder.fault(fault),
        }
    };
    responder.guarded(pin!(work)).await
}

/// The GraphQL answer to a request that `fault` stopped before its handler.
pub(crate) fn refused(service: &Service, call: &Call, media: Media, fault: &Fault) -> Response {
    let caller = Caller { call: call.clone(), token: Arc::default() };
    Responder { service, caller: &caller, media }.unlocated_fault(fault.code.http(), fault)
}

/// How a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    /// The method GET.
    Get,
    /// The method POST.
    Post,
    /// A message on a socket.
    Socket,
}

/// Answers one request: for its caller, in the media type that they accept.
struct Responder<'a> {
    service: &'a Service,
    caller: &'a Caller,
    media: Media,
}

impl Responder<'_> {
    /// The answer of `work`, unless it panics or its time is over.
    async fn guarded(&self, work: Pin<&mut impl Future<Output = Response>>) -> Response {
        let done = guarded(&self.caller.call, work).await;
        done.unwrap_or_else(|fault| self.fault(fault))
    }

    async fn answer(
        &self,
        project: Arc<Project>,
        transport: Transport,
        request: Request,
        connection: Option<&Arc<Connection>>,
    ) -> Response {
        if self.media == Media::Events {
            return Box::pin(self.events(project, transport, request, connection)).await;
        }
        match self.plan(project, transport, request).await {
            Ok((names, plan)) => self.execute(&names, plan).await,
            Err(refused) => *refused,
        }
    }

    /// The plan of a request, against the names it was made for. An error is the answer.
    async fn plan(
        &self,
        project: Arc<Project>,
        transport: Transport,
        request: Request,
    ) -> Result<(Arc<Names>, Arc<Plan>), Box<Response>> {
        let Request { query, operation, variables } = request;
        let document = match self.document(query).await {
            Ok(document) => document,
            Err(refusal) => return Err(Box::pin(self.refuse(&project, *refusal)).await.into()),
        };
        let operation = match document.operation(operation.as_deref()) {
            Ok(operation) => &operation.node,
            Err(refusal) => return Err(Box::pin(self.refuse(&project, *refusal)).await.into()),
        };
        match (operation.ty, transport) {
            (OperationType::Mutation, Transport::Get) => {
                let fault = Fault::new(Code::Method, "a mutation needs the method POST");
                return Err(self.wrong_method(fault).into());
            }
            (OperationType::Subscription, Transport::Get | Transport::Post) if self.media != Media::Events => {
                let refusal = Refusal::malformed(
                    "a subscription needs a WebSocket of graphql-transport-ws, or the header accept: text/event-stream",
                );
                return Err(Box::pin(self.refuse(&project, *refusal)).await.into());
            }
            _ => {}
        }
        let variables = match Variables::new(&document, operation, variables) {
            Ok(variables) => variables,
            Err(refusal) => return Err(Box::pin(self.refuse(&project, *refusal)).await.into()),
        };
        let plan = |names: &Names| {
            let counters = Counters { budget: self.service.budget(&names.project), guard: self.service.guard() };
            Plan::of(PlanContext { document: &document, names, variables: &variables }, operation, counters)
        };
        let mut names = self.service.graphql().names(project);
        let mut planned = plan(&names);
        if planned.as_ref().is_err_and(|refusal| refusal.may_be_stale())
            && let Ok(Some(project)) = Box::pin(self.service.edge().refreshed(self.caller, &names.project)).await
        {
            names = self.service.graphql().names(project);
            planned = plan(&names);
        }
        match planned {
            Ok(plan) if transport == Transport::Get && plan.calls.iter().any(|call| !call.is_idempotent) => {
                let fault =
                    Fault::new(Code::Method, "a call of a function that is not idempotent needs the method POST");
                Err(self.wrong_method(fault).into())
            }
            Ok(plan) => Ok((names, plan)),
            Err(refusal) => Err(Box::pin(self.refuse(&names.project, *refusal)).await.into()),
        }
    }

    async fn document(&self, text: String) -> refusal::Result<Arc<Document>> {
        let documents = &self.service.graphql().documents;
        if let Some(document) = documents.get(text.as_str()) {
            return Ok(document);
        }
        let guard = self.service.guard();
        if text.len() > UNCACHED_BYTES {
            let parsed = tokio::task::spawn_blocking(move || Document::parse(&text, guard)).await;
            let parsed =
                parsed.map_err(|panic| Refusal::new(Fault::internal("the document could not be parsed", panic)));
            return Ok(Arc::new(parsed??));
        }
        let document = Arc::new(Document::parse(&text, guard)?);
        documents.insert(text, document.clone());
        Ok(document)
    }

    async fn execute(&self, names: &Arc<Names>, mut plan: Arc<Plan>) -> Response {
        let (edge, project) = (self.service.edge(), &names.project);
        if !plan.calls.is_empty() {
            return Box::pin(self.execute_calls(names, plan)).await;
        }
        match plan.kind {
            Kind::Query | Kind::Subscription => {
                let introspected = match plan.introspected.is_empty() {
                    true => Vec::new(),
                    false => match Box::pin(self.introspected(names, &plan)).await {
                        Ok(introspected) => introspected,
                        Err(fault) => return self.fail(&plan, fault, "field"),
                    },
                };
                let own = Arc::get_mut(&mut plan).map(|own| std::mem::take(&mut own.reads));
                let reads = own.unwrap_or_else(|| plan.reads.clone());
                match edge.read(self.caller, project, reads).await {
                    Ok(answers) => self.queried(response::read(&plan, &answers), introspected),
                    Err(ReadFault::Failed(fault)) if !fault.code.is_denial() => self.fail_executed(&plan, &fault),
                    Err(failure) => self.fail(&plan, failure.into(), "read"),
                }
            }
            Kind::Mutation => {
                let own = Arc::get_mut(&mut plan).map(|own| std::mem::take(&mut own.writes));
                let writes = own.unwrap_or_else(|| plan.writes.clone());
                match Box::pin(edge.write(self.caller, project, writes)).await {
                    Ok(written) => match denial(&written) {
                        Some(denial) => self.fail(&plan, denial, "mutation"),
                        None => self.data(response::written(&plan, &written, &self.caller.call)),
                    },
                    Err(fault) => self.fail(&plan, fault, "mutation"),
                }
            }
        }
    }

    /// JSON of the fields of introspection. A fault has the index of its field as detail `field`.
    async fn introspected(&self, names: &Arc<Names>, plan: &Plan) -> Result<Vec<CompressedJson>, Fault> {
        let (edge, project) = (self.service.edge(), &names.project);
        if !self.service.config().publishes(&project.spec) {
            // Clients ask for types that may not exist, but nobody asks for the schema of a server without one.
            return match plan.introspected.iter().position(|field| field.name == "__schema") {
                None => Ok(vec![CompressedJson::null(); plan.introspected.len()]),
                Some(index) => {
                    let fault = Fault::new(Code::BadRequest, "introspection is not available in this project");
                    Err(fault.with("field", index.to_string()))
                }
            };
        }
        let reach = edge.reach(self.caller, project).await.map_err(|fault| fault.with("field", "0"))?;
        let answers = &self.service.graphql().introspection;
        answers.answers(names, reach, &plan.introspected, edge.answer_bytes(project)).await
    }

    /// The answer to a request that is not carried out; it discloses nothing of tables that the caller may not use.
    async fn refuse(&self, project: &Project, refusal: Refusal) -> Response {
        let Refusal { cause, at, path, accesses } = refusal;
        let mut fault = None;
        // A fault about an unreachable database is disclosed if the caller may use the table in one of the databases;
        // any other fault only if they may in all.
        let is_unreached = matches!(&cause, Cause::Fault(fault) if fault.code == Code::Unavailable);
        for access in &accesses {
            let access =
                edge::AttemptedAccess { database: &access.database, table: &access.table, operation: access.operation };
            let edge = self.service.edge();
            let disclosed = match cause.clone() {
                Cause::Model(error) => Box::pin(edge.denied_or_error(self.caller, project, access, error)).await,
                Cause::Fault(fault) => edge.denied_or(self.caller, project, access, fault).await,
            };
            let is_denial = disclosed.code.is_denial();
            fault = Some(disclosed);
            if is_denial != is_unreached {
                break;
            }
        }
        let fault = fault.unwrap_or_else(|| match cause {
            Cause::Model(error) => Fault::from(error),
            Cause::Fault(fault) => fault,
        });
        self.service.edge().log_refusal(self.caller, &fault);
        let code = fault.code;
        let errors = response::errors(&[LocatedFault { fault: &fault, at, path: &path }], &self.caller.call);
        self.respond(self.media.status(code), Some(code), errors)
    }

    /// The answer to an operation that failed as a whole.
    ///
    /// `detail` names the fault's detail with the index of the failed read or mutation.
    fn fail(&self, plan: &Plan, fault: Fault, detail: &str) -> Response {
        let root = failed_field(plan, &fault, detail);
        let path: Vec<String> = root.iter().map(|root| root.key.clone()).collect();
        let disclosed = LocatedFault { fault: &fault, at: root.map(|root| root.at), path: &path };
        let errors = response::errors(&[disclosed], &self.caller.call);
        self.respond(self.media.status(fault.code), Some(fault.code), errors)
    }

    /// The answer to reads whose execution began: it has data, which are null.
    fn fail_executed(&self, plan: &Plan, fault: &Fault) -> Response {
        let only = plan.fields.first().filter(|_| plan.fields.len() == 1);
        let root = failed_field(plan, fault, "read").or(only);
        let path: Vec<String> = root.iter().map(|root| root.key.clone()).collect();
        let disclosed = LocatedFault { fault, at: root.map(|root| root.at), path: &path };
        let body = response::null_data(&disclosed, &self.caller.call);
        self.respond(self.media.status(fault.code), Some(fault.code), body)
    }

    fn fault(&self, fault: Fault) -> Response {
        self.unlocated_fault(fault.code.http(), &fault)
    }

    fn unsupported_media(&self, fault: Fault) -> Response {
        self.unlocated_fault(415, &fault)
    }

    fn wrong_method(&self, fault: Fault) -> Response {
        let mut response = self.unlocated_fault(fault.code.http(), &fault);
        response.headers_mut().insert(http::header::ALLOW, http::HeaderValue::from_static("POST"));
        response
    }

    fn unlocated_fault(&self, status: u16, fault: &Fault) -> Response {
        let errors = response::errors(&[LocatedFault { fault, at: None, path: &[] }], &self.caller.call);
        self.respond(status, Some(fault.code), errors)
    }

    fn data(&self, body: Vec<u8>) -> Response {
        self.respond(200, None, body)
    }

    /// The answer to a query, into which what is introspected is put while it is sent.
    fn queried(&self, answer: QueryAnswer, introspected: Vec<CompressedJson>) -> Response {
        match introspected.is_empty() {
            true => self.data(answer.json),
            false => self.respond(200, None, Body::from_stream(stream::iter(answer.pieces(introspected)))),
        }
    }

    fn respond(&self, status: u16, code: Option<Code>, body: impl Into<Body>) -> Response {
        let status = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = answer::of_type(self.media.content_type(), status, body);
        if matches!(code, Some(Code::TooMany | Code::Unavailable)) {
            response.headers_mut().insert(http::header::RETRY_AFTER, http::HeaderValue::from_static("1"));
        }
        response
    }
}

/// The root field whose read or mutation failed: its index is the fault's detail called `detail`.
fn failed_field<'p>(plan: &'p Plan, fault: &Fault, detail: &str) -> Option<&'p ResponseField> {
    let index = fault.detail(detail).and_then(|index| index.parse().ok());
    index.and_then(|index| match detail {
        "field" => plan.fields.iter().find(|root| root.source == FieldSource::Introspected(index)),
        _ => plan.field_of(index),
    })
}

/// The denial that stopped everything. Whether a rule says no before a row is looked at or after makes no difference to
/// clients, as long as nothing has been done. Detail `mutation` is the index of what was denied: of a transaction of
/// several mutations, databases do not say which one it was.
fn denial(written: &[Result<WriteResult, Fault>]) -> Option<Fault> {
    if written.iter().any(Result::is_ok) {
        return None;
    }
    let mut faults = written.iter().filter_map(|result| result.as_ref().err());
    let fault = faults.find(|fault| fault.code.is_denial())?;
    Some(if written.len() == 1 { fault.clone().with("mutation", "0") } else { fault.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_document_that_is_cached_has_room() {
        let Caches { documents, .. } = Caches::default();
        let text = format!("{:UNCACHED_BYTES$}", "{ album { title } }");
        let document = Arc::new(Document::parse(&text, query::Guard::default()).unwrap());

        documents.insert(text.clone(), document);

        assert!(documents.get(text.as_str()).is_some());
        assert_eq!(documents.num_shards(), cache::SHARDS, "on every machine");
    }
}
