//! REST: rows by `crud/{database}/{table}/{operation}`, and several writes by `crud/{database}/batch`. Functions, and custom
//! events.

mod body_shape;
mod call;
mod call_stream;
mod fields;
mod queue;
mod request;
mod watch;

use std::{pin::pin, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    response::Response,
    routing::{get, post},
};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, request::Parts};
use mesh::{Call, Code, Fault};
use query::{Error, Mutation, Node, Operation, Read, Shape, Value};

use crate::{
    Service,
    catalogue::{Project, ProjectRef},
    edge::{Caller, ReadResult, WriteResult},
    error,
    http::{API_PREFIX, answer, body, guarded, plain_segment},
    plan::{RequestPlanner, TableRef},
};
pub use body_shape::ReadCache;
pub(crate) use call::{call_by_fields, is_call};
pub(crate) use fields::Fields;

const TRUNCATED: HeaderName = HeaderName::from_static("x-perigee-truncated");

/// Routes of the REST API.
pub fn routes() -> Router<Service> {
    Router::new()
        .route("/v1/api/{project}/crud/{database}/batch", post(batch))
        .route("/v1/api/{project}/crud/{database}/{table}/create", post(create))
        .route("/v1/api/{project}/crud/{database}/{table}/read", post(read))
        .route("/v1/api/{project}/crud/{database}/{table}/update", post(update))
        .route("/v1/api/{project}/crud/{database}/{table}/delete", post(delete))
        .route("/v1/api/{project}/crud/{database}/{table}/watch", get(watch::open))
        .merge(call::routes())
        .merge(queue::routes())
}

/// A path of the REST API that needs no decoding: lengths of the names in it, and the operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PostedTable {
    project: u16,
    database: u16,
    table: u16,
    operation: Operation,
}

const CRUD: &str = "crud/";

impl PostedTable {
    /// Parses `path`; `None` where it is no such path.
    pub(crate) fn of(path: &str) -> Option<Self> {
        let (project, rest) = plain_segment(path.strip_prefix(API_PREFIX)?)?;
        let (database, rest) = plain_segment(rest.strip_prefix(CRUD)?)?;
        let (table, operation) = plain_segment(rest)?;
        let operation = match operation {
            "create" => Operation::Create,
            "read" => Operation::Read,
            "update" => Operation::Update,
            "delete" => Operation::Delete,
            _ => return None,
        };
        let length = |name: &str| u16::try_from(name.len()).ok();
        Some(Self { project: length(project)?, database: length(database)?, table: length(table)?, operation })
    }

    /// The project's id in `path`, the one that was parsed.
    pub(crate) fn project(self, path: &str) -> &str {
        &path[API_PREFIX.len()..][..usize::from(self.project)]
    }

    /// The names in `path`, the one that was parsed.
    pub(crate) fn table_ref(self, path: &str) -> TableRef<'_> {
        let [project, database, table] = [self.project, self.database, self.table].map(usize::from);
        let rest = &path[API_PREFIX.len()..];
        let (project, rest) = (&rest[..project], &rest[project + 1 + CRUD.len()..]);
        let (database, rest) = (&rest[..database], &rest[database + 1..]);
        TableRef { project, database, table: &rest[..table] }
    }
}

/// The answer to a POST to the path of `posted`.
pub(crate) async fn answer_post(
    service: &Service,
    call: &Call,
    (posted, project): (PostedTable, Option<Arc<Project>>),
    head: &Parts,
    body: Body,
) -> Response {
    let caller = match Caller::of(call.clone(), &head.headers) {
        Ok(caller) => caller,
        Err(fault) => return answer::fault(&fault, call),
    };
    let table_ref = posted.table_ref(head.uri.path());
    let work = async {
        match posted.operation {
            Operation::Read => read_rows(service, &caller, (table_ref, project), body).await,
            operation @ (Operation::Create | Operation::Update | Operation::Delete) => {
                Box::pin(write_rows(service, &caller, (table_ref, project), operation, body)).await
            }
        }
    };
    let done = guarded(call, pin!(work)).await;
    respond(&caller, done.unwrap_or_else(Err))
}

type TablePath = Path<(String, String, String)>;

async fn read(State(service): State<Service>, caller: Caller, Path(path): TablePath, body: Body) -> Response {
    respond(&caller, read_rows(&service, &caller, (table_ref(&path), None), body).await)
}

async fn create(State(service): State<Service>, caller: Caller, Path(path): TablePath, body: Body) -> Response {
    respond(&caller, write_rows(&service, &caller, (table_ref(&path), None), Operation::Create, body).await)
}

async fn update(State(service): State<Service>, caller: Caller, Path(path): TablePath, body: Body) -> Response {
    respond(&caller, write_rows(&service, &caller, (table_ref(&path), None), Operation::Update, body).await)
}

async fn delete(State(service): State<Service>, caller: Caller, Path(path): TablePath, body: Body) -> Response {
    respond(&caller, write_rows(&service, &caller, (table_ref(&path), None), Operation::Delete, body).await)
}

async fn batch(
    State(service): State<Service>,
    caller: Caller,
    Path((project, database)): Path<(String, String)>,
    body: Body,
) -> Response {
    respond(&caller, write_batch(&service, &caller, &project, &database, body).await)
}

fn table_ref((project, database, table): &(String, String, String)) -> TableRef<'_> {
    TableRef { project, database, table }
}

fn respond(caller: &Caller, result: Result<Response, Fault>) -> Response {
    result.unwrap_or_else(|fault| answer::fault(&fault, &caller.call))
}

/// The fields of a request's body; a body without a byte has none.
async fn fields(service: &Service, project: &Project, body: Body) -> Result<Fields, Fault> {
    parsed(service, &body::read(service.config(), project, body).await?)
}

fn parsed(service: &Service, body: &[u8]) -> Result<Fields, Fault> {
    if body.is_empty() {
        return Ok(Fields::default());
    }
    let parsed = proto::json::parse(body, service.guard()).map_err(|error| match error {
        Error::Malformed(what) => error::bad_request(format!("the body is not valid JSON: {what}")),
        other => Fault::from(other),
    });
    match parsed? {
        Value::Object(object) => Ok(Fields::new(object)),
        other => Err(error::bad_request(format!("invalid body: expected object, found {}", other.kind()))),
    }
}

async fn read_rows(
    service: &Service,
    caller: &Caller,
    (table_ref, found): (TableRef<'_>, Option<Arc<Project>>),
    body: Body,
) -> Result<Response, Fault> {
    // An unknown project is told before anything that is wrong with the body.
    let project = service.edge().project(caller, ProjectRef { id: table_ref.project, found }).await?;
    let body = body::read(service.config(), &project, body).await?;
    let (project, read) = match service.rest_reads().find(&project, table_ref, &body) {
        Some(read) => (project, read),
        // Kept out of the futures of all others.
        None => Box::pin(plan_read(RequestPlanner::new(service, caller, project), table_ref, &body)).await?,
    };
    let (wanted, table) = (read.node.shape, table_ref.table);
    let answers = service.edge().read(caller, &project, vec![read]).await?;
    let ReadResult { json, truncated, .. } = only_answer(answers, wanted, table)?;
    Ok(rows(&json, truncated))
}

/// The answer to the read that the fields of a request ask for.
pub(crate) async fn read_by_fields(
    service: &Service,
    caller: &Caller,
    (table_ref, found): (TableRef<'_>, Option<Arc<Project>>),
    fields: Fields,
) -> Result<ReadResult, Fault> {
    let planner = RequestPlanner::begin(service, caller, ProjectRef { id: table_ref.project, found }).await?;
    let (project, read) = Box::pin(planned(planner, table_ref, fields)).await?;
    let wanted = read.node.shape;
    only_answer(service.edge().read(caller, &project, vec![read]).await?, wanted, table_ref.table)
}

/// The answer to the one read of a table that was asked for. Errors: no row passes where one is wanted.
fn only_answer(answers: Vec<ReadResult>, wanted: Shape, table: &str) -> Result<ReadResult, Fault> {
    let Some(answer) = answers.into_iter().next() else {
        return Err(Fault::internal("the request could not be answered", "no answer to a read"));
    };
    if wanted == Shape::One && answer.json == "null" {
        return Err(Fault::new(Code::NotFound, format!("no row of table {table} passes")));
    }
    Ok(answer)
}

/// The read that a body asks for, which is kept for others of its shape.
async fn plan_read(
    planner: RequestPlanner<'_>,
    table_ref: TableRef<'_>,
    body: &[u8],
) -> Result<(Arc<Project>, Read), Fault> {
    let service = planner.service();
    let (project, read) = Box::pin(planned(planner, table_ref, parsed(service, body)?)).await?;
    service.rest_reads().keep(&project, table_ref, body, &read);
    Ok((project, read))
}

async fn planned(
    mut planner: RequestPlanner<'_>,
    table_ref: TableRef<'_>,
    fields: Fields,
) -> Result<(Arc<Project>, Read), Fault> {
    let wanted = request::read(fields)?;
    let planned = planner
        .plan(table_ref, Operation::Read, |parser, table, budget| {
            let filter = parser.filter(table, &wanted.find, budget)?;
            match wanted.shape {
                Shape::Count | Shape::Aggregate => {
                    budget.field()?;
                    Ok(Node { filter, ..Node::new(Shape::Count, Vec::new()) })
                }
                shape @ (Shape::Many | Shape::One) => {
                    Ok(Node { shape, filter, ..parser.node(table, &wanted.options, budget)? })
                }
            }
        })
        .await?;
    let read = Read { database: planned.database, table: table_ref.table.into(), node: planned.plan };
    Ok((planned.project, read))
}

/// `{"result": …}`, which says so where rows were cut off.
fn rows(json: &Bytes, truncated: bool) -> Response {
    let parts: [&[u8]; 3] = [b"{\"result\":", json, if truncated { b",\"truncated\":true}" } else { b"}" }];
    // With no room to spare, the bytes are handed on without another allocation.
    let mut body = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
    parts.iter().for_each(|part| body.extend_from_slice(part));
    let mut response = answer::json(StatusCode::OK, body);
    if truncated {
        response.headers_mut().insert(TRUNCATED, HeaderValue::from_static("true"));
    }
    response
}

async fn write_rows(
    service: &Service,
    caller: &Caller,
    (table_ref, found): (TableRef<'_>, Option<Arc<Project>>),
    operation: Operation,
    body: Body,
) -> Result<Response, Fault> {
    let planner = RequestPlanner::begin(service, caller, ProjectRef { id: table_ref.project, found }).await?;
    let fields = fields(service, planner.project(), body).await?;
    let Some(WriteResult { affected, rows }) = write_by_fields(planner, caller, table_ref, operation, fields).await?
    else {
        return Ok(answer::json(StatusCode::OK, "{}"));
    };
    let mut body = format!("{{\"affected\":{affected},\"result\":").into_bytes();
    body.extend_from_slice(&rows);
    body.push(b'}');
    Ok(answer::json(StatusCode::OK, body))
}

/// Writes what the fields of a request ask for; what was written, where they ask for that.
pub(crate) async fn write_by_fields(
    mut planner: RequestPlanner<'_>,
    caller: &Caller,
    table_ref: TableRef<'_>,
    operation: Operation,
    mut fields: Fields,
) -> Result<Option<WriteResult>, Fault> {
    let service = planner.service();
    let returning = request::returning(&mut fields)?;
    let wanted = request::write(operation, fields)?;
    let planned = planner
        .plan(table_ref, operation, |parser, table, budget| {
            let returning = returning.as_ref().map(|options| parser.node(table, options, budget)).transpose()?;
            Ok(Mutation { table: table.name.clone(), kind: wanted.mutation_kind(parser, table, budget)?, returning })
        })
        .await?;
    let mutation = (planned.database, planned.plan);
    let written = Box::pin(service.edge().write(caller, &planned.project, vec![mutation])).await?;
    let Some(written) = written.into_iter().next() else {
        return Err(Fault::internal("the request could not be answered", "no answer to a write"));
    };
    Ok(Some(written?).filter(|_| returning.is_some()))
}

/// Writes a batch in one transaction; an empty one does nothing.
async fn write_batch(
    service: &Service,
    caller: &Caller,
    project: &str,
    database: &str,
    body: Body,
) -> Result<Response, Fault> {
    let planner = RequestPlanner::begin(service, caller, project.into()).await?;
    let fields = fields(service, planner.project(), body).await?;
    write_batch_by_fields(planner, caller, (project, database), fields).await?;
    Ok(answer::json(StatusCode::OK, "{}"))
}

/// Writes the batch that the fields of a request ask for.
pub(crate) async fn write_batch_by_fields(
    mut planner: RequestPlanner<'_>,
    caller: &Caller,
    (project, database): (&str, &str),
    fields: Fields,
) -> Result<(), Fault> {
    let service = planner.service();
    let items = request::batch(fields)?;
    let mut mutations = Vec::with_capacity(items.len());
    let mut newest = None;
    for item in &items {
        let table_ref = TableRef { project, database, table: &item.table };
        let planned = planner
            .plan(table_ref, item.write.operation(), |parser, table, budget| {
                Ok(Mutation {
                    table: table.name.clone(),
                    kind: item.write.mutation_kind(parser, table, budget)?,
                    returning: None,
                })
            })
            .await?;
        mutations.push((planned.database, planned.plan));
        newest = Some(planned.project);
    }
    if let Some(project) = newest {
        for written in Box::pin(service.edge().write(caller, &project, mutations)).await? {
            written?;
        }
    }
    Ok(())
}
