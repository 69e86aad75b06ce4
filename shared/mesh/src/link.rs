//! How services reach each other: a generated client over the generated server in this process, or over a channel.

use std::sync::{Arc, OnceLock};

use http::{Request, Response};
use proto::{auth::v1::auth_rules_client::AuthRulesClient, crud::v1::crud_client::CrudClient};
use tonic::{Status, body::Body, service::Routes};
use tower::{service_fn, util::BoxCloneSyncService};

use crate::{
    Board, Call, Code, Fault,
    bus::Bus,
    config::{self, Service},
    server,
    telemetry::Metrics,
};

/// The transport of every generated client.
pub type Link = BoxCloneSyncService<Request<Body>, Response<Body>, Status>;

/// This node's view of the mesh.
#[derive(Clone)]
pub struct Mesh {
    parts: Arc<Parts>,
}

struct Parts {
    near: Arc<Near>,
    crud: CrudClient<Link>,
    auth_rules: AuthRulesClient<Link>,
    board: Board,
    metrics: Metrics,
    bus: Bus,
}

impl Mesh {
    /// Links as `config` says: far to the peers it names, near for the rest. Nothing is connected yet.
    pub fn new(config: &config::Node) -> Result<Self, config::Error> {
        let board = Board::default();
        let metrics = Metrics::default();
        let near = Arc::new(Near { routes: OnceLock::new(), metrics: metrics.clone() });
        let way = |service: Service| -> Result<Way, config::Error> {
            match config.peers.get(&service) {
                Some(_) => todo!(),
                None => Ok(Way::Near(near.clone())),
            }
        };
        let crud = CrudClient::new(link(Service::Crud, way(Service::Crud)?));
        let auth_rules = AuthRulesClient::new(link(Service::AuthRules, way(Service::AuthRules)?));
        let parts = Parts {
            near,
            crud: crud
                .max_decoding_message_size(server::MESSAGE_BYTES)
                .max_encoding_message_size(server::MESSAGE_BYTES),
            auth_rules: auth_rules
                .max_decoding_message_size(server::MESSAGE_BYTES)
                .max_encoding_message_size(server::MESSAGE_BYTES),
            board,
            metrics,
            bus: Bus::memory(),
        };
        Ok(Self { parts: Arc::new(parts) })
    }

    /// Opens this process's services to near links. Calls before answer `UNAVAILABLE`; only the first opening counts.
    pub fn open(&self, routes: Routes) {
        if self.parts.near.routes.set(routes.prepare()).is_err() {
            tracing::warn!("the services of this process are open already");
        }
    }

    /// Rows in databases.
    pub fn crud(&self) -> CrudClient<Link> {
        self.parts.crud.clone()
    }

    /// Who may do what.
    pub fn auth_rules(&self) -> AuthRulesClient<Link> {
        self.parts.auth_rules.clone()
    }

    /// What of this node works.
    pub fn board(&self) -> &Board {
        &self.parts.board
    }

    /// Counters of this node.
    pub fn metrics(&self) -> &Metrics {
        &self.parts.metrics
    }

    /// Events between services.
    pub fn bus(&self) -> &Bus {
        &self.parts.bus
    }
}

/// How a service is reached.
#[derive(Clone)]
enum Way {
    Near(Arc<Near>),
}

/// The services of this process, once they are open.
struct Near {
    routes: OnceLock<Routes>,
    metrics: Metrics,
}

/// The client's side of every call, near and far alike: no call goes out, or is waited for, past its deadline.
fn link(service: Service, way: Way) -> Link {
    BoxCloneSyncService::new(service_fn(move |request: Request<Body>| {
        let way = way.clone();
        async move {
            let Some(deadline) = request.extensions().get::<Call>().and_then(|call| call.deadline) else {
                return way.send(service, request).await;
            };
            let answer = way.send(service, request);
            tokio::time::timeout_at(deadline.into(), answer).await.unwrap_or_else(|_| Err(late(service)))
        }
    }))
}

impl Way {
    async fn send(self, service: Service, request: Request<Body>) -> Result<Response<Body>, Status> {
        match self {
            Way::Near(near) => match near.routes.get() {
                Some(routes) => Ok(server::answer(routes.clone(), &near.metrics, request).await),
                None => Err(unavailable(format!("service {service} is not open yet"))),
            },
        }
    }
}

fn late(service: Service) -> Status {
    Fault::new(Code::Deadline, format!("service {service} did not answer in time")).into()
}

fn unavailable(message: String) -> Status {
    Fault::new(Code::Unavailable, message).into()
}
