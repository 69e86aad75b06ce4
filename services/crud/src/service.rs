//! The RPCs.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use mesh::{Call, Fault, Mesh, Tasks, resources, seal::Opener};
use proto::{auth::v1::SealedGrant, crud::v1 as wire, query::v1 as model};
use tonic::{Request, Response, Status};

use crate::{
    Error,
    config::Config,
    databases::{Database, Databases, Reached},
    grant::{Grants, Place},
};

/// Rows in the databases of all projects.
#[derive(Clone)]
pub struct Service {
    databases: Arc<Databases>,
    opener: Opener,
}

impl Service {
    /// Opens the databases of the resources in force, in the background, and follows what becomes of them.
    ///
    /// Never fails: a database that cannot be reached is told on the board and tried again.
    pub fn start(mesh: Mesh, config: Config, current: resources::Current, opener: Opener, tasks: Tasks) -> Self {
        Self { databases: Databases::start(mesh, config, current, tasks), opener }
    }

    async fn answer_reads(
        &self,
        place: Place<'_>,
        grants: &[SealedGrant],
        reads: Vec<model::Read>,
    ) -> Result<Vec<wire::Answer>, Error> {
        let (database, numbers) = self.databases.find(place.project, place.database)?;
        let grants = Grants::open(&self.opener, place, grants)?;
        let reads = reads.into_iter().map(query::Read::try_from).collect::<Result<Vec<_>, _>>()?;
        let open = database.open().await?;
        let answers = open.read(&reads, &grants, database.style(numbers)).await?;
        let answer = |answer: crate::tree::Answer| wire::Answer {
            json: answer.json.into(),
            truncated: answer.truncated,
            statements: u32::try_from(answer.statements).unwrap_or(u32::MAX),
        };
        Ok(answers.into_iter().map(answer).collect())
    }

    async fn perform(
        &self,
        place: Place<'_>,
        grants: &[SealedGrant],
        mutations: Vec<model::Mutation>,
    ) -> Result<Vec<wire::Written>, Error> {
        let (database, numbers) = self.databases.find(place.project, place.database)?;
        let grants = Grants::open(&self.opener, place, grants)?;
        let mutations = mutations.into_iter().map(query::Mutation::try_from).collect::<Result<Vec<_>, _>>()?;
        let open = database.open().await?;
        let written = open.write(&mutations, &grants, database.style(numbers)).await?;
        let written = written.into_iter().map(|done| wire::Written { affected: done.affected, rows: done.rows.into() });
        Ok(written.collect())
    }

    async fn describe_project(&self, request: &wire::DescribeRequest) -> Result<Vec<wire::Database>, Error> {
        let databases = self.databases.of(&request.project)?;
        if request.refresh {
            let looks = databases.iter().map(|database| self.databases.refresh(database));
            futures::future::join_all(looks).await;
        }
        Ok(futures::future::join_all(databases.iter().map(|database| description(database))).await)
    }
}

async fn description(database: &Database) -> wire::Database {
    let (version, schema, error) = match database.after_first_try().await {
        Reached::Yes(open) => {
            let known = open.known();
            (known.version, Some((&known.schema).into()), String::new())
        }
        Reached::No(why) => (0, None, why),
        Reached::Starting => (0, None, "it is still being opened".to_owned()),
    };
    let r#type = database.spec.engine().map(|engine| engine.name().to_owned()).unwrap_or_default();
    wire::Database { id: database.id.clone(), r#type, version, schema, error }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The error as the caller sees it; what the driver says goes to the log.
fn status(project: &str, database: &str, error: Error) -> Status {
    let call = Call::current();
    let request_id = call.as_ref().map_or("", |call| &*call.request_id);
    match &error {
        Error::Database(cause) => tracing::error!(request_id, project, database, cause, "database failed"),
        Error::Unavailable(cause) => tracing::warn!(request_id, project, database, cause, "database unavailable"),
        Error::Seal => tracing::error!(request_id, project, database, "grants cannot be verified"),
        Error::Query(_)
        | Error::Denied(_)
        | Error::UnknownProject(_)
        | Error::UnknownDatabase(_)
        | Error::Conflict { .. }
        | Error::Constraint(_)
        | Error::WrongType(_)
        | Error::OutOfRange(_)
        | Error::TooComplex
        | Error::TooLarge(_)
        | Error::SchemaMoved => tracing::debug!(request_id, project, database, %error, "refused"),
    }
    let mut fault = Fault::from(error.clone());
    if let Error::Unavailable(_) = error {
        fault.message = format!("database {database} cannot be reached");
    }
    fault.into()
}

#[tonic::async_trait]
impl proto::crud::v1::crud_server::Crud for Service {
    async fn read(&self, request: Request<wire::ReadRequest>) -> Result<Response<wire::ReadResponse>, Status> {
        let request = request.into_inner();
        let place = Place { project: &request.project, database: &request.database, now_ms: now_ms() };
        match self.answer_reads(place, &request.grants, request.reads).await {
            Ok(answers) => Ok(Response::new(wire::ReadResponse { answers })),
            Err(error) => Err(status(place.project, place.database, error)),
        }
    }

    async fn write(&self, request: Request<wire::WriteRequest>) -> Result<Response<wire::WriteResponse>, Status> {
        let request = request.into_inner();
        let place = Place { project: &request.project, database: &request.database, now_ms: now_ms() };
        match self.perform(place, &request.grants, request.mutations).await {
            Ok(written) => Ok(Response::new(wire::WriteResponse { written })),
            Err(error) => Err(status(place.project, place.database, error)),
        }
    }

    async fn describe(
        &self,
        request: Request<wire::DescribeRequest>,
    ) -> Result<Response<wire::DescribeResponse>, Status> {
        let request = request.into_inner();
        match self.describe_project(&request).await {
            Ok(databases) => Ok(Response::new(wire::DescribeResponse { databases })),
            Err(error) => Err(status(&request.project, "", error)),
        }
    }
}
