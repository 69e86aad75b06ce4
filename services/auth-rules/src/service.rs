//! The service and its RPCs.

use std::{sync::Arc, time::SystemTime};

use arc_swap::ArcSwap;
use futures::{StreamExt, stream};
use mesh::{Component, ComponentState, Fault, Mesh, Tasks, config::ServiceName, resources::Current};
use proto::{
    auth::{
        AuthorizeCallRequest, AuthorizeCallResponse, AuthorizeEventsRequest, AuthorizeEventsResponse,
        AuthorizeFilesRequest, AuthorizeFilesResponse, AuthorizeRequest, AuthorizeResponse, AuthorizeWorkerRequest,
        AuthorizeWorkerResponse, ReachableRequest, ReachableResponse, RevisionsRequest, RevisionsResponse,
        SignFileRequest, SignFileResponse,
    },
    grant::Signer,
    link::Messages,
    services::auth::auth_rules_server::AuthRules,
};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tracing::error;

use crate::{
    config::{Config, Development},
    error::Error,
    event_grant,
    grant::Caller,
    policy_set::{PolicySet, ProjectPolicies},
    questions::Questions,
};

mod ask;

/// The authorization service.
#[derive(Clone)]
pub struct Service {
    policies: Arc<ArcSwap<PolicySet>>,
    /// Told of each change of the policies once it is in force.
    revisions: watch::Sender<()>,
    draining: CancellationToken,
    signer: Signer,
    development: Option<Arc<Development>>,
    /// By which functions are asked; `None` where none can be.
    mesh: Option<Mesh>,
    /// Places of questions to functions; where all are taken, rules that ask do not pass.
    questions: Arc<Semaphore>,
}

/// Bytes of payloads up to which they are held against their schemas at once; more of them take long.
const INLINE_BYTES: usize = 16 * 1024;

/// Questions to functions at once.
const QUESTIONS_MAX: usize = 256;

impl Service {
    /// Starts with the resources in force, and follows them.
    pub fn start(mesh: Mesh, config: Config, current: Current, signer: Signer, tasks: Tasks) -> Self {
        let mut current = current;
        let snapshot = current.borrow_and_update().clone();
        let first = PolicySet::new(&snapshot, config.dev_keys(), &PolicySet::default());
        let policies = Arc::new(ArcSwap::from_pointee(first));
        let development = config.development.clone().map(Arc::new);
        let (revisions, draining) = (watch::Sender::new(()), tasks.draining().clone());
        let service = Self {
            policies: policies.clone(),
            revisions: revisions.clone(),
            draining,
            signer,
            development,
            mesh: Some(mesh.clone()),
            questions: Arc::new(Semaphore::new(QUESTIONS_MAX)),
        };
        let stop = tasks.stop().clone();
        tasks.spawn("auth-rules: follow resources", async move {
            stop.run_until_cancelled(follow(policies, revisions, config, current)).await;
        });
        let component = Component::Service(ServiceName::of(&proto::services::auth::AUTH_RULES));
        mesh.health().set(component, ComponentState::Ready);
        service
    }

    /// A service with these policies, which does not follow the resources.
    #[cfg(test)]
    pub(crate) fn of(policies: Arc<ArcSwap<PolicySet>>, signer: Signer) -> Self {
        let (revisions, draining) = Default::default();
        let questions = Arc::new(Semaphore::new(QUESTIONS_MAX));
        Self { policies, revisions, draining, signer, development: None, mesh: None, questions }
    }

    /// As it is, in development.
    #[cfg(test)]
    pub(crate) fn developing(self, development: Development) -> Self {
        Self { development: Some(Arc::new(development)), ..self }
    }

    /// Grants for all accesses of a request that is made at `now`; the first that is denied denies the request.
    pub fn authorize(&self, request: AuthorizeRequest, now: SystemTime) -> Result<AuthorizeResponse, Error> {
        let policies = self.policies.load();
        self.grants(policies.project(&request.project)?, request, now, None)
    }

    fn grants(
        &self,
        project: &ProjectPolicies,
        request: AuthorizeRequest,
        now: SystemTime,
        questions: Option<&Questions>,
    ) -> Result<AuthorizeResponse, Error> {
        let AuthorizeRequest { project: id, token, accesses } = request;
        let mut caller = Caller::new(project, &id, &token, now, self.development.as_deref());
        caller.questions = questions;
        let mut grants = Vec::with_capacity(accesses.len());
        let mut relations = Vec::new();
        for (index, access) in accesses.into_iter().enumerate() {
            let (grant, looked_at) = caller.grant(access, index, &self.signer)?;
            grants.push(grant);
            relations.extend(looked_at);
        }
        Ok(AuthorizeResponse { grants, token_expires_ms: caller.token_expires_ms(), relations })
    }

    /// Verdicts on all accesses to files of a request that is made at `now`.
    pub fn authorize_files(
        &self,
        request: AuthorizeFilesRequest,
        now: SystemTime,
    ) -> Result<AuthorizeFilesResponse, Error> {
        let policies = self.policies.load();
        let (id, token) = (request.project.clone(), request.token.clone());
        let project = policies.project(&id)?;
        let mut caller = Caller::new(project, &id, &token, now, self.development.as_deref());
        if !request.access_key.is_empty() {
            caller = caller.with_access_key(&request.access_key);
        }
        Ok(AuthorizeFilesResponse { verdicts: caller.files(request, &self.signer)? })
    }

    /// The grant to call a function at `now`.
    pub fn authorize_call(
        &self,
        request: &AuthorizeCallRequest,
        now: SystemTime,
        questions: Option<&Questions>,
    ) -> Result<AuthorizeCallResponse, Error> {
        let policies = self.policies.load();
        let AuthorizeCallRequest { project: id, token, .. } = request;
        let project = policies.project(id)?;
        let mut caller = Caller::new(project, id, token, now, self.development.as_deref());
        caller.questions = questions;
        let (grant, refused) = match request.is_list {
            true => caller.call_with_list(request)?,
            false => (caller.call(request)?, Vec::new()),
        };
        let (grant, token_expires_ms) = (Some(self.signer.call_grant(&grant)), caller.token_expires_ms());
        Ok(AuthorizeCallResponse { grant, refused, token_expires_ms })
    }

    /// The grant to queue custom events at `now`. Their payloads are not looked at by more than the rules.
    pub fn authorize_events(
        &self,
        request: &AuthorizeEventsRequest,
        now: SystemTime,
        questions: Option<&Questions>,
    ) -> Result<AuthorizeEventsResponse, Error> {
        let policies = self.policies.load();
        let AuthorizeEventsRequest { project: id, token, .. } = request;
        let project = policies.project(id)?;
        let mut caller = Caller::new(project, id, token, now, self.development.as_deref());
        caller.questions = questions;
        Ok(AuthorizeEventsResponse { grant: Some(self.signer.event_grant(&caller.events(request)?)) })
    }

    /// Errors: a payload is not what the schema of its type says.
    pub fn check_payloads(&self, request: &AuthorizeEventsRequest) -> Result<(), Error> {
        let policies = self.policies.load();
        event_grant::check_payloads(policies.project(&request.project)?, &request.events)
    }

    /// The grant to be a worker at `now`.
    pub fn authorize_worker(
        &self,
        request: &AuthorizeWorkerRequest,
        now: SystemTime,
        questions: Option<&Questions>,
    ) -> Result<AuthorizeWorkerResponse, Error> {
        let policies = self.policies.load();
        let AuthorizeWorkerRequest { project: id, token, service } = request;
        let project = policies.project(id)?;
        let mut caller = Caller::new(project, id, token, now, self.development.as_deref());
        caller.questions = questions;
        Ok(AuthorizeWorkerResponse { grant: Some(self.signer.worker_grant(&caller.worker(service)?)) })
    }

    /// The signature of an address, made at `now` for a caller who is allowed what it lets do.
    pub fn sign_file(&self, request: SignFileRequest, now: SystemTime) -> Result<SignFileResponse, Error> {
        let policies = self.policies.load();
        let SignFileRequest { project: id, token, access, seconds } = request;
        let project = policies.project(&id)?;
        let access = access.ok_or_else(|| query::Error::Malformed("access is missing".to_owned()))?;
        let mut caller = Caller::new(project, &id, &token, now, self.development.as_deref());
        Ok(SignFileResponse { signature: Some(caller.sign_file(access, seconds)?) })
    }

    /// Operations that the caller could be allowed by some request that is made at `now`.
    pub fn reachable(&self, request: &ReachableRequest, now: SystemTime) -> Result<ReachableResponse, Error> {
        let policies = self.policies.load();
        let ReachableRequest { project: id, token } = request;
        let project = policies.project(id)?;
        let tables = Caller::new(project, id, token, now, None).reach().map_err(Error::InvalidToken)?;
        Ok(ReachableResponse { tables })
    }
}

/// Puts the policies of each new snapshot in force.
///
/// Parsing many rules takes long, so it runs on a blocking thread.
async fn follow(policies: Arc<ArcSwap<PolicySet>>, revisions: watch::Sender<()>, config: Config, mut current: Current) {
    while current.changed().await.is_ok() {
        let snapshot = current.borrow_and_update().clone();
        let (before, config) = (policies.load_full(), config.clone());
        let next = tokio::task::spawn_blocking(move || PolicySet::new(&snapshot, config.dev_keys(), &before)).await;
        match next {
            Ok(next) => {
                policies.store(Arc::new(next));
                revisions.send_replace(());
            }
            Err(error) => error!(%error, "new rules failed to load, the previous ones stay in force"),
        }
    }
}

#[tonic::async_trait]
impl AuthRules for Service {
    async fn authorize(&self, request: Request<AuthorizeRequest>) -> Result<Response<AuthorizeResponse>, Status> {
        let (request, now) = (request.into_inner(), SystemTime::now());
        {
            let policies = self.policies.load();
            let project = policies.project(&request.project)?;
            if !project.asks {
                return Ok(Response::new(self.grants(project, request, now, None)?));
            }
        }
        let caller = (&*request.project, &*request.token);
        let decide = |questions: &Questions| {
            let policies = self.policies.load();
            self.grants(policies.project(&request.project)?, request.clone(), now, Some(questions))
        };
        Ok(Response::new(Box::pin(self.asking(caller, decide)).await?))
    }

    async fn reachable(&self, request: Request<ReachableRequest>) -> Result<Response<ReachableResponse>, Status> {
        let response = Service::reachable(self, request.get_ref(), SystemTime::now())?;
        Ok(Response::new(response))
    }

    async fn authorize_files(
        &self,
        request: Request<AuthorizeFilesRequest>,
    ) -> Result<Response<AuthorizeFilesResponse>, Status> {
        let response = Service::authorize_files(self, request.into_inner(), SystemTime::now())?;
        Ok(Response::new(response))
    }

    async fn authorize_call(
        &self,
        request: Request<AuthorizeCallRequest>,
    ) -> Result<Response<AuthorizeCallResponse>, Status> {
        let (request, now) = (request.into_inner(), SystemTime::now());
        let decide = |questions: &Questions| Service::authorize_call(self, &request, now, Some(questions));
        let decided = self.asking((&request.project, &request.token), decide);
        Ok(Response::new(Box::pin(decided).await?))
    }

    async fn authorize_events(
        &self,
        request: Request<AuthorizeEventsRequest>,
    ) -> Result<Response<AuthorizeEventsResponse>, Status> {
        let (request, now) = (request.into_inner(), SystemTime::now());
        let decide = |questions: &Questions| Service::authorize_events(self, &request, now, Some(questions));
        let granted = Box::pin(self.asking((&request.project, &request.token), decide)).await?;
        let bytes: usize = request.events.iter().map(|event| event.payload.len()).sum();
        match bytes > INLINE_BYTES {
            false => self.check_payloads(&request)?,
            true => {
                let service = self.clone();
                let checked = tokio::task::spawn_blocking(move || service.check_payloads(&request)).await;
                checked.map_err(|error| Fault::internal("the payloads could not be checked", error))??;
            }
        }
        Ok(Response::new(granted))
    }

    async fn authorize_worker(
        &self,
        request: Request<AuthorizeWorkerRequest>,
    ) -> Result<Response<AuthorizeWorkerResponse>, Status> {
        let (request, now) = (request.into_inner(), SystemTime::now());
        let decide = |questions: &Questions| Service::authorize_worker(self, &request, now, Some(questions));
        let decided = self.asking((&request.project, &request.token), decide);
        Ok(Response::new(Box::pin(decided).await?))
    }

    async fn sign_file(&self, request: Request<SignFileRequest>) -> Result<Response<SignFileResponse>, Status> {
        let response = Service::sign_file(self, request.into_inner(), SystemTime::now())?;
        Ok(Response::new(response))
    }

    type RevisionsStream = Messages<RevisionsResponse>;

    async fn revisions(
        &self,
        _request: Request<RevisionsRequest>,
    ) -> Result<Response<Messages<RevisionsResponse>>, Status> {
        let mut revisions = self.revisions.subscribe();
        revisions.mark_changed();
        let next = |mut revisions: watch::Receiver<()>| async {
            revisions.changed().await.ok()?;
            Some((Ok(RevisionsResponse {}), revisions))
        };
        let messages = stream::unfold(revisions, next).take_until(self.draining.clone().cancelled_owned());
        Ok(Response::new(messages.boxed()))
    }
}

#[cfg(test)]
mod tests;
