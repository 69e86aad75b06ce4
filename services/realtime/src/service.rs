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
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::{config::Config, shared::Shared, watch::Watch};

/// The service of live changes.
#[derive(Clone)]
pub struct Service {
    shared: Arc<Shared>,
    draining: CancellationToken,
}

impl Service {
    /// Starts the service, which calls others over `mesh`; `verifier` reads the grants of the rule engine.
    pub fn start(mesh: Mesh, config: Config, verifier: Verifier, tasks: &Tasks) -> Self {
        let component = Component::Service(ServiceName::of(&proto::services::realtime::REALTIME));
        mesh.health().set(component, ComponentState::Ready);
        let draining = tasks.draining().clone();
        Self { shared: Arc::new(Shared::new(mesh, &config, verifier, tasks)), draining }
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
