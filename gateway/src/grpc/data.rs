//! The service `perigee.api.v1.Data`.

use std::sync::Arc;

use http::request::Parts;
use mesh::{Fault, listener::Connection};
use prost::Message;
use proto::api::v1::{self as api, batch_item, data_server};
use query::{Budget, Error, Field, FieldKind, Guard, Mutation, Node, Operation, Parser, Read, Shape, Table, Value};
use tonic::{Request, Response, Status};

use super::{
    accept::{accepted, required},
    messages::Messages,
    select::{self, Selection},
    status, value, watch,
};
use crate::{
    Service,
    catalogue::{Project, ProjectRef},
    edge::{Caller, ReadResult, WriteResult},
    error,
    plan::{RequestPlanner, TableRef},
    write::Write,
};

/// The caller of a request, and its project where all is known of it.
pub type FoundCaller<'a> = (&'a Caller, Option<Arc<Project>>);

/// The handlers.
pub struct Data {
    service: Service,
}

#[tonic::async_trait]
impl data_server::Data for Data {
    async fn read(&self, request: Request<api::ReadRequest>) -> Result<Response<api::ReadResponse>, Status> {
        let (caller, message, project) = self.accept(request, |message| &message.project).map_err(status)?;
        Box::pin(self.read_rows((&caller, project), message)).await.map(Response::new).map_err(status)
    }

    async fn aggregate(&self, request: Request<api::AggregateRequest>) -> Result<Response<api::ReadResponse>, Status> {
        let (caller, message, project) = self.accept(request, |message| &message.project).map_err(status)?;
        Box::pin(self.count_rows((&caller, project), message)).await.map(Response::new).map_err(status)
    }

    async fn create(&self, request: Request<api::CreateRequest>) -> Result<Response<api::WriteResponse>, Status> {
        let (caller, message, _) = self.accept(request, |message| &message.project).map_err(status)?;
        self.write_one(&caller, batch_item::Write::Create(message)).await.map(Response::new).map_err(status)
    }

    async fn update(&self, request: Request<api::UpdateRequest>) -> Result<Response<api::WriteResponse>, Status> {
        let (caller, message, _) = self.accept(request, |message| &message.project).map_err(status)?;
        self.write_one(&caller, batch_item::Write::Update(message)).await.map(Response::new).map_err(status)
    }

    async fn delete(&self, request: Request<api::DeleteRequest>) -> Result<Response<api::WriteResponse>, Status> {
        let (caller, message, _) = self.accept(request, |message| &message.project).map_err(status)?;
        self.write_one(&caller, batch_item::Write::Delete(message)).await.map(Response::new).map_err(status)
    }

    async fn batch(&self, request: Request<api::BatchRequest>) -> Result<Response<api::BatchResponse>, Status> {
        let (caller, message, _) = self.accept(request, |message| &message.project).map_err(status)?;
        self.write_batch(&caller, message).await.map(Response::new).map_err(status)
    }

    type WatchStream = Messages<api::WatchResponse>;

    async fn watch(
        &self,
        request: Request<api::WatchRequest>,
    ) -> Result<Response<Messages<api::WatchResponse>>, Status> {
        let connection = request.extensions().get::<Arc<Connection>>().cloned();
        let (caller, message, project) = self.accept(request, |message| &message.project).map_err(status)?;
        let begun = watch::begin(&self.service, (&caller, project), message, connection);
        Box::pin(begun).await.map(Response::new).map_err(status)
    }
}

impl Data {
    /// Handlers of `service`.
    pub fn new(service: Service) -> Self {
        Self { service }
    }

    /// The answer to a read, without tonic.
    pub async fn answer_read(&self, head: &Parts, message: api::ReadRequest) -> Result<api::ReadResponse, Fault> {
        let (caller, project) = accepted(&self.service, (&head.headers, &head.extensions), &message, &message.project)?;
        Box::pin(self.read_rows((&caller, project), message)).await
    }

    /// The caller and the message of a request, and its project where all is known of it.
    fn accept<M: Message>(
        &self,
        request: Request<M>,
        project: impl Fn(&M) -> &str,
    ) -> Result<(Caller, M, Option<Arc<Project>>), Fault> {
        let (head, message) = ((request.metadata().as_ref(), request.extensions()), request.get_ref());
        let (caller, found) = accepted(&self.service, head, message, project(message))?;
        Ok((caller, request.into_inner(), found))
    }

    async fn read_rows(&self, caller: FoundCaller<'_>, message: api::ReadRequest) -> Result<api::ReadResponse, Fault> {
        let table_ref = table_ref(&message.project, &message.database, &message.table)?;
        let mut guard = self.service.guard();
        let find = value::object(message.r#where, &mut guard).map_err(Fault::from)?;
        let selection = Selection::of(message.select, &mut guard).map_err(Fault::from)?;
        let plan = |parser: Parser<'_>, table: &Table, budget: &mut Budget| {
            Ok(Node {
                filter: parser.filter(table, &find, budget)?,
                sort: select::sort(parser, table, &message.sort)?,
                skip: message.skip.into(),
                limit: message.limit.map(u64::from),
                ..Node::new(Shape::Many, selection.fields(parser, table, budget)?)
            })
        };
        self.execute_read(caller, table_ref, plan).await
    }

    async fn count_rows(
        &self,
        caller: FoundCaller<'_>,
        message: api::AggregateRequest,
    ) -> Result<api::ReadResponse, Fault> {
        let table_ref = table_ref(&message.project, &message.database, &message.table)?;
        check_aggregate(&message)?;
        let find = value::object(message.r#where, &mut self.service.guard()).map_err(Fault::from)?;
        let plan = |parser: Parser<'_>, table: &Table, budget: &mut Budget| {
            let count = Field { key: "count".to_owned(), kind: FieldKind::Count };
            budget.field()?;
            Ok(Node { filter: parser.filter(table, &find, budget)?, ..Node::new(Shape::Aggregate, vec![count]) })
        };
        self.execute_read(caller, table_ref, plan).await
    }

    async fn execute_read(
        &self,
        (caller, found): FoundCaller<'_>,
        table_ref: TableRef<'_>,
        plan: impl Fn(Parser<'_>, &Table, &mut Budget) -> Result<Node, Error>,
    ) -> Result<api::ReadResponse, Fault> {
        let mut planner =
            RequestPlanner::begin(&self.service, caller, ProjectRef { id: table_ref.project, found }).await?;
        let planned = planner.plan(table_ref, Operation::Read, plan).await?;
        let read = Read { database: planned.database, table: table_ref.table.into(), node: planned.plan };
        let answers = self.service.edge().read(caller, &planned.project, vec![read]).await?;
        let Some(ReadResult { json, truncated, .. }) = answers.into_iter().next() else {
            return Err(Fault::internal("the request could not be answered", "no answer to a read"));
        };
        Ok(api::ReadResponse { rows: json, truncated })
    }

    async fn write_one(&self, caller: &Caller, write: batch_item::Write) -> Result<api::WriteResponse, Fault> {
        let mut results =
            self.execute_writes(caller, vec![TableWrite::parse(write, &mut self.service.guard())?]).await?;
        results.pop().ok_or_else(|| Fault::internal("the request could not be answered", "no answer to a write"))
    }

    async fn write_batch(&self, caller: &Caller, message: api::BatchRequest) -> Result<api::BatchResponse, Fault> {
        let project = self.service.edge().project(caller, required("project", &message.project)?.into()).await?;
        required("database", &message.database)?;
        let mut guard = self.service.guard();
        let mut writes = Vec::with_capacity(message.items.len());
        for (index, item) in message.items.into_iter().enumerate() {
            let Some(write) = item.write else {
                return Err(Fault::from(Error::Required(format!("write of items[{index}]"))));
            };
            let mut write = TableWrite::parse(write, &mut guard)?;
            for (name, own, of_batch) in
                [("project", &mut write.project, &*project.id), ("database", &mut write.database, &message.database)]
            {
                if !own.is_empty() && *own != of_batch {
                    let message = format!("{name} of items[{index}] is {own}, expected that of the batch, {of_batch}");
                    return Err(error::bad_request(message));
                }
                *own = of_batch.to_owned();
            }
            writes.push(write);
        }
        Ok(api::BatchResponse { results: self.execute_writes(caller, writes).await? })
    }

    /// Writes of one database, in one transaction.
    async fn execute_writes(&self, caller: &Caller, writes: Vec<TableWrite>) -> Result<Vec<api::WriteResponse>, Fault> {
        let Some(first) = writes.first() else { return Ok(Vec::new()) };
        let mut planner =
            RequestPlanner::begin(&self.service, caller, required("project", &first.project)?.into()).await?;
        let mut mutations = Vec::with_capacity(writes.len());
        let mut newest = None;
        for write in &writes {
            let table_ref = table_ref(&write.project, &write.database, &write.table)?;
            let plan = |parser: Parser<'_>, table: &Table, budget: &mut Budget| write.mutation(parser, table, budget);
            let planned = planner.plan(table_ref, write.kind.operation(), plan).await?;
            mutations.push((planned.database, planned.plan));
            newest = Some(planned.project);
        }
        let Some(project) = newest else { return Ok(Vec::new()) };
        let written = Box::pin(self.service.edge().write(caller, &project, mutations)).await?;
        let response = |written: WriteResult| api::WriteResponse { affected: written.affected, rows: written.rows };
        written.into_iter().map(|one| one.map(response)).collect()
    }
}

/// A write and the table it is for.
struct TableWrite {
    project: String,
    database: String,
    table: String,
    kind: Write,
    returning: Option<Selection>,
}

impl TableWrite {
    fn parse(write: batch_item::Write, guard: &mut Guard) -> Result<Self, Fault> {
        Self::parse_model(write, guard).map_err(Fault::from)
    }

    fn parse_model(write: batch_item::Write, guard: &mut Guard) -> Result<Self, Error> {
        let (project, database, table, kind, returning) = match write {
            batch_item::Write::Create(create) => {
                let docs = create.docs.into_iter().map(|doc| value::object(Some(doc), guard));
                let docs = Value::List(docs.collect::<Result<_, _>>()?);
                (create.project, create.database, create.table, Write::Create { docs }, create.returning)
            }
            batch_item::Write::Update(update) => {
                let find = value::object(update.r#where, guard)?;
                let changes = value::object(update.update, guard)?;
                let kind = Write::Update { find, update: changes, one: false };
                (update.project, update.database, update.table, kind, update.returning)
            }
            batch_item::Write::Delete(delete) => {
                let find = value::object(delete.r#where, guard)?;
                (delete.project, delete.database, delete.table, Write::Delete { find, one: false }, delete.returning)
            }
        };
        let returning = returning.map(|select| Selection::of(Some(select), guard)).transpose()?;
        Ok(Self { project, database, table, kind, returning })
    }

    fn mutation(&self, parser: Parser<'_>, table: &Table, budget: &mut Budget) -> Result<Mutation, Error> {
        let returning = self.returning.as_ref().map(|selection| selection.fields(parser, table, budget)).transpose()?;
        Ok(Mutation {
            table: table.name.clone(),
            kind: self.kind.mutation_kind(parser, table, budget)?,
            returning: returning.map(|fields| Node::new(Shape::Many, fields)),
        })
    }
}

/// Refuses what an aggregate cannot say yet: all but a count of the rows that pass.
fn check_aggregate(message: &api::AggregateRequest) -> Result<(), Fault> {
    if let Some(other) = message.aggregates.iter().find(|aggregate| aggregate.function != "count") {
        let message = format!("function {:?} is not known, expected count", other.function);
        return Err(error::bad_request(message));
    }
    if let Some(count) = message.aggregates.iter().find(|aggregate| !aggregate.column.is_empty()) {
        return Err(error::bad_request(format!("invalid count: expected no column, found {}", count.column)));
    }
    let is_given = [
        ("group", !message.group.is_empty()),
        ("sort", !message.sort.is_empty()),
        ("skip", message.skip > 0),
        ("limit", message.limit.is_some()),
    ];
    match is_given.into_iter().find(|(_, is_given)| *is_given) {
        Some((name, _)) => Err(error::bad_request(format!("{name} of an aggregate is not supported by this version"))),
        None => Ok(()),
    }
}

/// The table that a message names.
pub fn table_ref<'a>(project: &'a str, database: &'a str, table: &'a str) -> Result<TableRef<'a>, Fault> {
    Ok(TableRef {
        project: required("project", project)?,
        database: required("database", database)?,
        table: required("table", table)?,
    })
}
