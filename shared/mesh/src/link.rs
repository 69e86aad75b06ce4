//! How services reach each other: a generated client over the generated server in this process, or over a channel.

mod connection;
mod pool;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use http::{Request, Response};
use proto::{
    auth::v1::{auth_rules_client::AuthRulesClient, auth_rules_server::AuthRules},
    crud::v1::{crud_client::CrudClient, crud_server::Crud},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{Status, body::Body, service::Routes};
use tower::{service_fn, util::BoxCloneSyncService};

use pool::Pool;

use crate::{
    Board, Call, Code, Fault,
    bus::Bus,
    config::{self, Service},
    method::Methods,
    near::{self, AuthRulesLink, CrudLink, Local},
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
    local: Local,
    far: Vec<Service>,
    crud: CrudClient<Link>,
    auth_rules: AuthRulesClient<Link>,
    board: Board,
    metrics: Metrics,
    bus: Bus,
}

impl Mesh {
    /// Links as `config` says: far to the peers it names, near for the rest. No call waits for it: peers are connected
    /// in the background, now and whenever they come back.
    ///
    /// # Panics
    /// Outside of a runtime, where the config names peers.
    pub fn new(config: &config::Node) -> Result<Self, config::Error> {
        let board = Board::default();
        let metrics = Metrics::default();
        let near = Arc::new(Near { routes: OnceLock::new(), methods: Methods::new(&metrics) });
        let link = |service: Service| -> Result<Link, config::Error> {
            let way = match config.peers.get(&service) {
                Some(urls) => Way::Far(Arc::new(Pool::open(service, urls, &board)?)),
                None => Way::Near(near.clone()),
            };
            Ok(link(service, way))
        };
        let crud = CrudClient::new(link(Service::Crud)?)
            .max_decoding_message_size(server::MESSAGE_BYTES)
            .max_encoding_message_size(server::MESSAGE_BYTES);
        let auth_rules = AuthRulesClient::new(link(Service::AuthRules)?)
            .max_decoding_message_size(server::MESSAGE_BYTES)
            .max_encoding_message_size(server::MESSAGE_BYTES);
        let far = config.peers.keys().copied().collect();
        let parts = Parts { near, local: Local::default(), far, crud, auth_rules, board, metrics, bus: Bus::memory() };
        Ok(Self { parts: Arc::new(parts) })
    }

    /// Opens this process's services to near links and to [`Mesh::serve`]. Calls before answer `UNAVAILABLE`; only the
    /// first opening counts.
    pub fn open(&self, routes: Routes) {
        if self.parts.near.routes.set(routes.prepare()).is_err() {
            tracing::warn!("the services of this process are open already");
        }
    }

    /// Lends this process's crud to near calls, which then need no wire. Where peers are named for it, those are
    /// called.
    pub fn lend_crud(&self, crud: Arc<dyn Crud>) {
        if !self.parts.far.contains(&Service::Crud) && self.parts.local.crud.set(crud).is_err() {
            near::twice(Service::Crud);
        }
    }

    /// Lends this process's auth-rules to near calls, likewise.
    pub fn lend_auth_rules(&self, auth_rules: Arc<dyn AuthRules>) {
        if !self.parts.far.contains(&Service::AuthRules) && self.parts.local.auth_rules.set(auth_rules).is_err() {
            near::twice(Service::AuthRules);
        }
    }

    /// Serves this process's services to other nodes, until `stop` fires and running calls have ended; those that take
    /// longer than `drain` are broken off.
    pub async fn serve(&self, listener: TcpListener, stop: CancellationToken, drain: Duration) {
        let near = self.parts.near.clone();
        let answer = move |request| {
            let near = near.clone();
            async move { near.answer(request).await }
        };
        server::serve(listener, answer, stop, drain).await;
    }

    /// Rows in databases.
    pub fn crud(&self) -> CrudLink<'_> {
        let Parts { local, crud, near, .. } = &*self.parts;
        CrudLink { local, client: crud, methods: &near.methods }
    }

    /// Who may do what.
    pub fn auth_rules(&self) -> AuthRulesLink<'_> {
        let Parts { local, auth_rules, near, .. } = &*self.parts;
        AuthRulesLink { local, client: auth_rules, methods: &near.methods }
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
    Far(Arc<Pool>),
}

/// The services of this process, once they are open.
struct Near {
    routes: OnceLock<Routes>,
    methods: Methods,
}

impl Near {
    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        match self.routes.get() {
            Some(routes) => server::answer(routes.clone(), &self.methods, request).await,
            None => unavailable("the services of this node are not open yet").into_http(),
        }
    }
}

/// The client's side of every call over a wire: none goes out, or is waited for, past its deadline, unless somebody
/// else sees to that.
fn link(service: Service, way: Way) -> Link {
    BoxCloneSyncService::new(service_fn(move |request: Request<Body>| {
        let way = way.clone();
        async move {
            let Some(limit) = request.extensions().get::<Call>().and_then(Call::limit) else {
                return way.send(request).await;
            };
            let answer = way.send(request);
            tokio::time::timeout_at(limit.into(), answer).await.unwrap_or_else(|_| Err(late(service.name())))
        }
    }))
}

impl Way {
    async fn send(self, request: Request<Body>) -> Result<Response<Body>, Status> {
        match self {
            Way::Near(near) => Ok(near.answer(request).await),
            Way::Far(pool) => pool.send(request).await,
        }
    }
}

pub(crate) fn late(service: &'static str) -> Status {
    Fault::new(Code::Deadline, format!("service {service} did not answer in time")).into()
}

fn unavailable(message: impl Into<String>) -> Status {
    Fault::new(Code::Unavailable, message).into()
}
