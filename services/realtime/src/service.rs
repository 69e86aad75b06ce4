//! The service and its RPC.

use std::sync::Arc;

use futures::{StreamExt, stream};
use mesh::{Call, Code, Component, ComponentState, Fault, Mesh, Tasks, config::ServiceName};
use proto::{
    grant::Verifier,
    link::Messages,
    realtime::{WatchRequest, WatchResponse},
    services::realtime::realtime_server::Realtime,
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::{
    Error, access::Authorizer, config::Config, feed::Feeds, plan::Plan, position::Signer, rights::Rights, rules::Rules,
    schemas::Schemas, watch::Watch,
};

/// Reads at once for all watches.
const READS_MAX: usize = 64;

/// The service of live changes.
#[derive(Clone)]
pub struct Service {
    shared: Arc<Shared>,
    draining: CancellationToken,
}

/// What all watches share.
pub struct Shared {
    /// The other services.
    pub mesh: Mesh,
    /// Schemas of databases.
    pub schemas: Schemas,
    /// What logs tell.
    pub feeds: Feeds,
    /// Changes of rules.
    pub rules: Rules,
    /// Signs positions.
    pub signer: Signer,
    /// Turns to read.
    pub reads: Semaphore,
    authorizer: Authorizer,
}

impl Service {
    /// Starts the service, which calls others over `mesh`; `verifier` reads the grants of the rule engine.
    pub fn start(mesh: Mesh, config: Config, verifier: Verifier, tasks: &Tasks) -> Self {
        let shared = Shared {
            authorizer: Authorizer::new(mesh.clone(), verifier),
            schemas: Schemas::new(mesh.clone()),
            feeds: Feeds::new(mesh.clone(), tasks.clone()),
            rules: Rules::follow(&mesh, tasks),
            signer: Signer::new(&config.position_secret),
            reads: Semaphore::new(READS_MAX),
            mesh,
        };
        let component = Component::Service(ServiceName::of(&proto::services::realtime::REALTIME));
        shared.mesh.health().set(component, ComponentState::Ready);
        Self { shared: Arc::new(shared), draining: tasks.draining().clone() }
    }
}

impl Shared {
    /// The rights of the caller of a watch.
    pub async fn rights(&self, call: &Call, plan: &Plan) -> Result<Rights, Error> {
        let WatchRequest { project, token, read, .. } = &plan.request;
        let granted = self.authorizer.authorize(call, (project, token), &plan.schema, read).await?;
        Rights::of(plan, granted)
    }
}

#[tonic::async_trait]
impl Realtime for Service {
    type WatchStream = Messages<WatchResponse>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Messages<WatchResponse>>, Status> {
        let call = Call::current().unwrap_or_else(|| Call::begin(None, None, None));
        let watch = Box::pin(Watch::begin(self.shared.clone(), &call, request.into_inner())).await?;
        let next = |(watch, draining): (Option<Box<Watch>>, CancellationToken)| async move {
            let mut watch = watch?;
            let message = match draining.run_until_cancelled(Box::pin(watch.message())).await {
                Some(message) => message,
                None => Err(Fault::new(Code::Unavailable, "the node stops").into()),
            };
            let rest = message.is_ok().then_some(watch);
            Some((message.map_err(Status::from), (rest, draining)))
        };
        let messages = stream::unfold((Some(Box::new(watch)), self.draining.clone()), next);
        Ok(Response::new(messages.boxed()))
    }
}
