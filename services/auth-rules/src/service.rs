//! The RPCs.

use std::{path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;
use mesh::{Mesh, Tasks, resources::Current};
use proto::{
    auth::{AuthorizeRequest, AuthorizeResponse, ReachableRequest, ReachableResponse, ReachableTable},
    grant::Signer,
    services::auth::auth_rules_server::AuthRules,
};
use query::Operation;
use time::OffsetDateTime;
use tonic::{Request, Response, Status};
use tracing::error;

use crate::{config::Config, error::Error, eval, grant::Caller, state::State, table::OPERATIONS};

/// Who may do what.
#[derive(Clone)]
pub struct Service {
    state: Arc<ArcSwap<State>>,
    signer: Signer,
}

impl Service {
    /// Starts with the resources in force, and follows them.
    pub fn start(mesh: Mesh, config: Config, current: Current, signer: Signer, tasks: Tasks) -> Self {
        let mut current = current;
        let snapshot = current.borrow_and_update().clone();
        let first = State::new(&snapshot, config.dev_keys.as_deref(), &State::default());
        let state = Arc::new(ArcSwap::from_pointee(first));
        let service = Self { state: state.clone(), signer };
        let stop = tasks.stop().clone();
        tasks.spawn("auth-rules: follow resources", async move {
            stop.run_until_cancelled(follow(state, config.dev_keys, current)).await;
        });
        mesh.board().set("service auth-rules", mesh::State::Ready);
        service
    }

    /// A service over a state that nobody follows.
    #[cfg(test)]
    pub(crate) fn of(state: Arc<ArcSwap<State>>, signer: Signer) -> Self {
        Self { state, signer }
    }

    /// Grants for all accesses of a request, asked at `now`; the first that is denied denies it.
    pub fn authorize(&self, request: AuthorizeRequest, now: OffsetDateTime) -> Result<AuthorizeResponse, Error> {
        let state = self.state.load();
        let AuthorizeRequest { project: id, token, accesses } = request;
        let project = state.project(&id).ok_or_else(|| Error::UnknownProject(id.clone()))?;
        let mut caller = Caller::new(project, &id, &token, now);
        let mut grants = Vec::with_capacity(accesses.len());
        for (index, access) in accesses.into_iter().enumerate() {
            grants.push(self.signer.grant(caller.terms(access, index)?));
        }
        Ok(AuthorizeResponse { grants })
    }

    /// Operations that the rules allow somebody.
    pub fn reachable(&self, request: &ReachableRequest) -> Result<ReachableResponse, Error> {
        let state = self.state.load();
        let id = &request.project;
        let project = state.project(id).ok_or_else(|| Error::UnknownProject(id.clone()))?;
        let mut tables = Vec::new();
        for (database, table, guards) in project.tables() {
            let possible = |operation: &Operation| {
                guards.of(*operation).is_some_and(|guard| eval::is_possible(&guard.rule, *operation))
            };
            let operations: Vec<Operation> = OPERATIONS.into_iter().filter(possible).collect();
            if !operations.is_empty() {
                tables.push(ReachableTable { database: database.to_owned(), table: table.to_owned(), operations });
            }
        }
        Ok(ReachableResponse { tables })
    }
}

/// Puts each new snapshot in force; many rules take a while to read, so that happens beside the calls.
async fn follow(state: Arc<ArcSwap<State>>, dev_keys: Option<PathBuf>, mut current: Current) {
    while current.changed().await.is_ok() {
        let snapshot = current.borrow_and_update().clone();
        let (before, dev_keys) = (state.load_full(), dev_keys.clone());
        let next = tokio::task::spawn_blocking(move || State::new(&snapshot, dev_keys.as_deref(), &before)).await;
        match next {
            Ok(next) => state.store(Arc::new(next)),
            Err(error) => error!(%error, "rules stay as they were"),
        }
    }
}

#[tonic::async_trait]
impl AuthRules for Service {
    async fn authorize(&self, request: Request<AuthorizeRequest>) -> Result<Response<AuthorizeResponse>, Status> {
        let response = Service::authorize(self, request.into_inner(), OffsetDateTime::now_utc())?;
        Ok(Response::new(response))
    }

    async fn reachable(&self, request: Request<ReachableRequest>) -> Result<Response<ReachableResponse>, Status> {
        let response = Service::reachable(self, request.get_ref())?;
        Ok(Response::new(response))
    }
}

#[cfg(test)]
mod tests;
