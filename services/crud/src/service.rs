//! The gRPC service.

use std::{sync::Arc, time::SystemTime};

use futures::StreamExt;
use mesh::{Call, Fault, Mesh, Tasks, clock, resources};
use proto::{
    crud::{
        ChangesRequest, ChangesResponse, Database as Description, DescribeRequest, DescribeResponse, LogRequest,
        LogResponse, ReadRequest, ReadResponse, WriteRequest, WriteResponse, Written,
    },
    grant::{Grant, Verifier},
    link::Messages,
    services::crud::crud_server::Crud,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::{
    Error,
    budget::AnswerLimit,
    config::Config,
    database::Answers,
    databases::{DatabaseEntry, DatabaseState, Databases},
    error::ReadError,
    grant::{self, GrantScope, Grants},
    options::AnswerOptions,
};

/// The gRPC service of rows in the databases of all projects.
#[derive(Clone)]
pub struct Service {
    databases: Arc<Databases>,
    verifier: Verifier,
    draining: CancellationToken,
}

impl Service {
    /// Opens the databases of the resources in force, in the background, and follows what becomes of them.
    ///
    /// Never fails: a database that cannot be reached is reported as failing and retried.
    pub fn start(mesh: Mesh, config: Config, current: resources::Current, verifier: Verifier, tasks: Tasks) -> Self {
        let draining = tasks.draining().clone();
        Self { databases: Databases::start(mesh, config, current, tasks), verifier, draining }
    }

    async fn answer_reads(
        &self,
        scope: GrantScope<'_>,
        grants: Vec<Grant>,
        reads: &[query::Read],
        limit: AnswerLimit,
        snapshot: bool,
    ) -> Result<ReadResponse, ReadError> {
        let (database, numbers) = self.databases.find(scope.project, scope.database)?;
        let grants = grant::verified(&self.verifier, grants)?;
        let open = database.open().await?;
        let options = AnswerOptions { snapshot, ..database.options(numbers, limit) };
        let Answers { answers, seen } = open.read(reads, Grants::new(scope, &grants), options).await?;
        Ok(ReadResponse { answers, seen })
    }

    async fn perform(
        &self,
        scope: GrantScope<'_>,
        grants: Vec<Grant>,
        mutations: &[query::Mutation],
        limit: AnswerLimit,
    ) -> Result<Vec<Written>, Error> {
        let (database, numbers) = self.databases.find(scope.project, scope.database)?;
        let grants = grant::verified(&self.verifier, grants)?;
        let open = database.open().await?;
        let writing = open.write(mutations, Grants::new(scope, &grants), database.options(numbers, limit));
        let written = Box::pin(writing).await?;
        let written = written.into_iter().map(|done| Written { affected: done.affected, rows: done.rows.into() });
        Ok(written.collect())
    }

    /// Changes of a table, for a stream that ends with the drain of this node.
    async fn listen(&self, request: ChangesRequest) -> Result<Messages<ChangesResponse>, Status> {
        let ChangesRequest { project, database, table } = request;
        let listening = async {
            let (entry, _) = self.databases.find(&project, &database)?;
            entry.learns_changes(&table)?;
            entry.open().await?.listen(&table)
        };
        let changes = listening.await.map_err(|error| status(&project, &database, error))?;
        let message = move |change: Result<(), Error>| {
            change.map(|()| ChangesResponse {}).map_err(|error| status(&project, &database, error))
        };
        Ok(changes.map(message).take_until(self.draining.clone().cancelled_owned()).boxed())
    }

    /// The log of changes of tables, for a stream that ends with the drain of this node.
    async fn follow(&self, request: LogRequest) -> Result<Messages<LogResponse>, Status> {
        let LogRequest { project, database, tables, after, complete } = request;
        let following = async {
            let (entry, numbers) = self.databases.find(&project, &database)?;
            tables.iter().try_for_each(|table| entry.learns_changes(table))?;
            let database = entry.open().await?;
            if complete {
                database.check_complete(&tables).await?;
            }
            database.follow(tables, after, numbers)
        };
        let messages = following.await.map_err(|error| status(&project, &database, error))?;
        let message =
            move |message: Result<LogResponse, Error>| message.map_err(|error| status(&project, &database, error));
        Ok(messages.map(message).take_until(self.draining.clone().cancelled_owned()).boxed())
    }

    async fn describe_project(&self, request: &DescribeRequest) -> Result<Vec<Description>, Error> {
        let databases = self.databases.of(&request.project)?;
        if request.refresh {
            let refreshes = databases.iter().map(|database| self.databases.refresh(database));
            futures::future::join_all(refreshes).await;
        }
        let descriptions = databases.iter().map(|database| description(database, request.known.get(&database.id)));
        Ok(futures::future::join_all(descriptions).await)
    }
}

/// The schema of a database, unless the caller has that version.
async fn description(database: &DatabaseEntry, known: Option<&u64>) -> Description {
    let (version, schema, error) = match database.after_first_attempt().await {
        DatabaseState::Open(open) => {
            let now = open.schema_snapshot();
            let schema = (known != Some(&now.version)).then(|| now.schema.clone());
            (now.version, schema, String::new())
        }
        DatabaseState::Failed(why) => (0, None, why),
        DatabaseState::Connecting => (0, None, String::new()),
    };
    let engine = database.spec.engine().map(|engine| engine.name().to_owned()).unwrap_or_default();
    Description { id: database.id.clone(), engine, version, schema, error }
}

/// The error as the caller sees it; what the driver says goes to the log.
fn status(project: &str, database: &str, failure: impl Into<ReadError>) -> Status {
    let failure = failure.into();
    let error = &failure.error;
    let call = Call::current();
    let request_id = call.as_ref().map_or("", |call| &*call.request_id);
    match error {
        Error::Database(cause) => tracing::error!(request_id, project, database, cause, "database failed"),
        Error::Ungranted(cause) => {
            tracing::error!(request_id, project, database, cause, "grants do not fit the operation");
        }
        Error::Panicked(panic) => tracing::error!(request_id, project, database, panic, "blocking work panicked"),
        Error::Unavailable(cause) | Error::SchemaMoved(cause) | Error::StaleStatement(cause) => {
            tracing::warn!(request_id, project, database, cause, "database unavailable");
        }
        Error::Refused { cause: Some(cause), .. } => {
            tracing::warn!(request_id, project, database, cause, %error, "database refused");
        }
        Error::Signature => tracing::error!(request_id, project, database, "grants cannot be verified"),
        Error::Query(_)
        | Error::Denied(_)
        | Error::UnknownProject(_)
        | Error::UnknownDatabase(_)
        | Error::Conflict { .. }
        | Error::Constraint(_)
        | Error::NotNull(_)
        | Error::Raced
        | Error::WrongType(_)
        | Error::OutOfRange(_)
        | Error::InvalidValue(_)
        | Error::Refused { cause: None, .. }
        | Error::Unpopulated(_)
        | Error::TooComplex
        | Error::TooLarge(_)
        | Error::Deadline => tracing::debug!(request_id, project, database, %error, "refused"),
    }
    let is_unreached = matches!(error, Error::Unavailable(_));
    let mut fault = Fault::from(failure);
    if is_unreached {
        fault.message = format!("database {database} cannot be reached");
    }
    fault.into()
}

#[tonic::async_trait]
impl Crud for Service {
    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<ReadResponse>, Status> {
        let ReadRequest { project, database, reads, grants, answer_bytes, snapshot } = request.into_inner();
        let scope = GrantScope { project: &project, database: &database, now_ms: clock::unix_ms(SystemTime::now()) };
        match self.answer_reads(scope, grants, &reads, AnswerLimit::new(answer_bytes, 0), snapshot).await {
            Ok(answer) => Ok(Response::new(answer)),
            Err(error) => Err(status(&project, &database, error)),
        }
    }

    async fn write(&self, request: Request<WriteRequest>) -> Result<Response<WriteResponse>, Status> {
        let WriteRequest { project, database, mutations, grants, answer_bytes, answer_bytes_used } =
            request.into_inner();
        let scope = GrantScope { project: &project, database: &database, now_ms: clock::unix_ms(SystemTime::now()) };
        let limit = AnswerLimit::new(answer_bytes, answer_bytes_used);
        match Box::pin(self.perform(scope, grants, &mutations, limit)).await {
            Ok(written) => Ok(Response::new(WriteResponse { written })),
            Err(error) => Err(status(&project, &database, error)),
        }
    }

    type ChangesStream = Messages<ChangesResponse>;

    async fn changes(&self, request: Request<ChangesRequest>) -> Result<Response<Messages<ChangesResponse>>, Status> {
        self.listen(request.into_inner()).await.map(Response::new)
    }

    type LogStream = Messages<LogResponse>;

    async fn log(&self, request: Request<LogRequest>) -> Result<Response<Messages<LogResponse>>, Status> {
        self.follow(request.into_inner()).await.map(Response::new)
    }

    async fn describe(&self, request: Request<DescribeRequest>) -> Result<Response<DescribeResponse>, Status> {
        let request = request.into_inner();
        match self.describe_project(&request).await {
            Ok(databases) => Ok(Response::new(DescribeResponse { databases })),
            Err(error) => Err(status(&request.project, "", error)),
        }
    }
}
