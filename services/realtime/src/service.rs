//! The service and its RPC.

use std::sync::Arc;

use futures::{StreamExt, stream};
use mesh::{Call, Component, ComponentState, Mesh, Tasks, config::ServiceName};
use proto::{
    grant::Verifier,
    link::Messages,
    realtime::{WatchRequest, WatchResponse},
    services::realtime::realtime_server::Realtime,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::{access::Authorizer, config::Config, position::Signer, schemas::Schemas, watch::Watch};

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
    /// Asks for grants.
    pub authorizer: Authorizer,
    /// Schemas of databases.
    pub schemas: Schemas,
    /// Signs positions.
    pub signer: Signer,
}

impl Service {
    /// Starts the service, which calls others over `mesh`; `verifier` reads the grants of the rule engine.
    pub fn start(mesh: Mesh, config: Config, verifier: Verifier, tasks: &Tasks) -> Self {
        let shared = Shared {
            authorizer: Authorizer::new(mesh.clone(), verifier),
            schemas: Schemas::new(mesh.clone()),
            signer: Signer::new(&config.position_secret),
            mesh,
        };
        let component = Component::Service(ServiceName::of(&proto::services::realtime::REALTIME));
        shared.mesh.health().set(component, ComponentState::Ready);
        Self { shared: Arc::new(shared), draining: tasks.draining().clone() }
    }
}

#[tonic::async_trait]
impl Realtime for Service {
    type WatchStream = Messages<WatchResponse>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Messages<WatchResponse>>, Status> {
        let call = Call::current().unwrap_or_else(|| Call::begin(None, None, None));
        let watch = Watch::begin(self.shared.clone(), &call, request.into_inner()).await?;
        let next = |watch: Option<Watch>| async {
            let mut watch = watch?;
            let message = watch.next().await?;
            let rest = message.is_ok().then_some(watch);
            Some((message.map_err(Status::from), rest))
        };
        let messages = stream::unfold(Some(watch), next).take_until(self.draining.clone().cancelled_owned());
        Ok(Response::new(messages.boxed()))
    }
}
