//! Transport of calls between services: by the server trait in this process, or over a connection to a peer.
//!
//! Links are generated from the contracts and use this transport. What layers do for a call on a wire
//! (deadline, trace, panics, metrics, message sizes) is done here for both ways, once for each kind of RPC.

mod connection;
mod far;
mod near;
mod nodes;
mod pool;
mod stream;

use std::{
    any::Any,
    borrow::Cow,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use http::Request as HttpRequest;
use proto::{
    carried::Carried,
    link::{Answer, Host, Messages, Sent, Service, Transport},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, Streaming, body::Body, service::Routes};

pub use nodes::Nodes;
use pool::Pool;

use crate::{
    Call, Code, Fault, Health, Tasks,
    bus::{Bus, Nats},
    config::{self, ServiceName},
    meter::{Meters, MethodMeter},
    server,
    telemetry::Metrics,
};

/// The services of the mesh, as this node reaches them.
#[derive(Clone)]
pub struct Mesh {
    parts: Arc<Parts>,
    /// The only node that calls of one service go to.
    node: Option<ServiceNode>,
}

/// A node that runs a service.
#[derive(Clone, Copy)]
struct ServiceNode {
    service: &'static Service,
    address: SocketAddr,
}

struct Parts {
    links: Vec<Link>,
    /// Paths that no service has.
    unknown: MethodMeter,
    health: Health,
    metrics: Metrics,
    bus: Bus,
}

/// How one service is reached.
struct Link {
    service: &'static Service,
    meters: Meters,
    /// The service in this process, once it is registered.
    host: OnceLock<Registered>,
    /// Peers that run it. Where they are named, they are called.
    peers: Option<Pool>,
    /// Whether the node is configured to run it, or names peers that do.
    is_configured: bool,
}

struct Registered {
    /// An `Arc` of the trait object that the service's link calls.
    near: Box<dyn Any + Send + Sync>,
    routes: Routes,
}

/// Route of one call.
enum Route<'l, S: ?Sized> {
    Near(&'l S),
    Far(Cow<'l, Pool>),
}

impl Mesh {
    /// Links to all services of the contracts as `config` says: far to the peers it names, near for the rest. No call
    /// waits for it: peers are connected in the background, now and whenever they come back.
    ///
    /// # Panics
    /// Outside of a runtime, where the config names peers.
    pub fn new(config: &config::Node) -> Result<Self, config::Error> {
        Self::of(config, &proto::services::ALL)
    }

    /// As [`Mesh::new`], with the bus of the configuration, connected among `tasks`.
    pub async fn connect(config: &config::Node, tasks: &Tasks) -> Result<Self, config::Error> {
        let mut mesh = Self::new(config)?;
        if let config::BusConfig::Nats(nats) = &config.bus {
            let Parts { health, metrics, .. } = &*mesh.parts;
            let bus = Box::pin(Nats::connect(nats, config.grant_secret(), health, metrics, tasks)).await?;
            let parts = Arc::get_mut(&mut mesh.parts).expect("nobody else has a mesh that was just made");
            parts.bus = Bus::Nats(bus);
        }
        Ok(mesh)
    }

    /// As [`Mesh::new`], with links to `services`.
    ///
    /// # Panics
    /// As [`Mesh::new`].
    pub fn of(config: &config::Node, services: &[&'static Service]) -> Result<Self, config::Error> {
        let (health, metrics) = (Health::default(), Metrics::default());
        let link = |service: &&'static Service| {
            let name = ServiceName::of(service);
            let peers = config.peers.get(&name).map(|urls| Pool::open(name, urls, &health)).transpose()?;
            let is_configured = peers.is_some() || config.runs(name);
            Ok(Link { service, meters: Meters::new(&metrics, service), host: OnceLock::new(), peers, is_configured })
        };
        let links = services.iter().map(link).collect::<Result<_, config::Error>>()?;
        let unknown = MethodMeter::new(&metrics, "other", "other");
        Ok(Self { parts: Arc::new(Parts { links, unknown, health, metrics, bus: Bus::memory() }), node: None })
    }

    /// Registers a service of this process, for calls from here and for [`Mesh::serve`]. Calls before answer
    /// `UNAVAILABLE`; of two servers of one service the first counts.
    pub fn host(&self, host: Host) {
        let Host { service, near, routes } = host;
        let link = self.parts.links.iter().find(|link| std::ptr::eq(link.service, service));
        let is_new = link.is_some_and(|link| link.host.set(Registered { near, routes }).is_ok());
        if !is_new {
            tracing::error!(service = service.name, "service is registered already, or not one of this mesh");
        }
    }

    /// The routes of all services that are registered.
    pub fn routes(&self) -> Routes {
        let registered = self.parts.links.iter().filter_map(|link| link.host.get());
        let routers = registered.map(|registered| registered.routes.clone().into_axum_router().reset_fallback());
        let none = Routes::default().into_axum_router();
        Routes::from(routers.fold(none, |all, router| all.merge(router)))
    }

    /// Serves `routes` to other nodes, until `stop` fires and running calls have ended; those that take longer than
    /// `drain` are broken off.
    pub async fn serve(&self, listener: TcpListener, routes: Routes, stop: CancellationToken, drain: Duration) {
        let (mesh, routes) = (self.clone(), routes.prepare());
        let answer = move |request: HttpRequest<Body>| {
            let (mesh, routes) = (mesh.clone(), routes.clone());
            async move { server::answer(routes, mesh.parts.meter(request.uri().path()), request).await }
        };
        server::serve(listener, answer, stop, drain).await;
    }

    /// State of the components of this node.
    pub fn health(&self) -> &Health {
        &self.parts.health
    }

    /// Counters of this node.
    pub fn metrics(&self) -> &Metrics {
        &self.parts.metrics
    }

    /// Events between services.
    pub fn bus(&self) -> &Bus {
        &self.parts.bus
    }

    /// The nodes that run `service`, each of which can be called by itself.
    pub fn nodes(&self, service: &'static Service) -> Nodes {
        let peers = self.link(service).ok().and_then(|link| link.peers.clone());
        Nodes::new(self.clone(), service, peers)
    }

    fn link(&self, service: &'static Service) -> Result<&Link, Status> {
        let link = self.parts.links.iter().find(|link| std::ptr::eq(link.service, service));
        link.ok_or_else(|| unavailable(format!("service {} is not one of this mesh", service.name)))
    }
}

impl Parts {
    /// The meter of the RPC at `path`. Unknown paths share one, so that callers cannot make new ones.
    fn meter(&self, path: &str) -> &MethodMeter {
        self.links.iter().find_map(|link| link.meters.at(path)).unwrap_or(&self.unknown)
    }
}

impl Link {
    /// The way to the service: to `node` alone, where that is one of its nodes.
    fn route<S: ?Sized + Send + Sync + 'static>(&self, node: Option<&ServiceNode>) -> Result<Route<'_, S>, Status> {
        if let Some(peers) = &self.peers {
            return Ok(Route::Far(match node.filter(|node| std::ptr::eq(node.service, self.service)) {
                Some(node) => Cow::Owned(peers.only(node.address)),
                None => Cow::Borrowed(peers),
            }));
        }
        let near = self.host.get().and_then(|registered| registered.near.downcast_ref::<Arc<S>>());
        let name = self.service.name;
        near.map(|near| Route::Near(&**near)).ok_or_else(|| match self.is_configured {
            true => unavailable(format!("service {name} is not open yet")),
            false => unavailable(format!("service {name} is neither among the services nor the peers of this node")),
        })
    }
}

impl Transport for Mesh {
    type Call = Call;

    async fn unary<'a, S: ?Sized + Send + Sync + 'static, Q: Carried, A: Carried>(
        &'a self,
        service: &'static Service,
        method: usize,
        call: &'a Call,
        message: Q,
        near: impl FnOnce(&'a S, Request<Q>) -> Answer<'a, A> + Send + 'a,
    ) -> Result<A, Status> {
        let link = self.link(service)?;
        match link.route::<S>(self.node.as_ref())? {
            Route::Near(server) => {
                let meter = link.meters.of(method);
                near::unary(meter, call, message, |request| near(server, request)).await
            }
            Route::Far(pool) => Box::pin(far::unary(&pool, &service.methods[method], call, message)).await,
        }
    }

    async fn server_streaming<'a, S: ?Sized + Send + Sync + 'static, Q: Carried, A: Carried>(
        &'a self,
        service: &'static Service,
        method: usize,
        call: &'a Call,
        message: Q,
        near: impl FnOnce(&'a S, Request<Q>) -> Answer<'a, Messages<A>> + Send + 'a,
    ) -> Result<Messages<A>, Status> {
        let link = self.link(service)?;
        match link.route::<S>(self.node.as_ref())? {
            Route::Near(server) => {
                let meter = link.meters.of(method);
                near::server_streaming(meter, call, message, |request| near(server, request)).await
            }
            Route::Far(pool) => far::server_streaming(&pool, &service.methods[method], call, message).await,
        }
    }

    async fn client_streaming<'a, S: ?Sized + Send + Sync + 'static, Q: Carried, A: Carried>(
        &'a self,
        service: &'static Service,
        method: usize,
        call: &'a Call,
        messages: Sent<Q>,
        near: impl FnOnce(&'a S, Request<Streaming<Q>>) -> Answer<'a, A> + Send + 'a,
    ) -> Result<A, Status> {
        let link = self.link(service)?;
        match link.route::<S>(self.node.as_ref())? {
            Route::Near(server) => {
                let meter = link.meters.of(method);
                near::client_streaming(meter, call, messages, |request| near(server, request)).await
            }
            Route::Far(pool) => far::client_streaming(&pool, &service.methods[method], call, messages).await,
        }
    }

    async fn streaming<'a, S: ?Sized + Send + Sync + 'static, Q: Carried, A: Carried>(
        &'a self,
        service: &'static Service,
        method: usize,
        call: &'a Call,
        messages: Sent<Q>,
        near: impl FnOnce(&'a S, Request<Streaming<Q>>) -> Answer<'a, Messages<A>> + Send + 'a,
    ) -> Result<Messages<A>, Status> {
        let link = self.link(service)?;
        match link.route::<S>(self.node.as_ref())? {
            Route::Near(server) => {
                let meter = link.meters.of(method);
                near::streaming(meter, call, messages, |request| near(server, request)).await
            }
            Route::Far(pool) => far::streaming(&pool, &service.methods[method], call, messages).await,
        }
    }
}

/// The error of a call without an answer before its deadline.
fn deadline_exceeded(service: &str) -> Status {
    Fault::new(Code::Deadline, format!("service {service} did not answer in time")).into()
}

fn unavailable(message: impl Into<String>) -> Status {
    Fault::new(Code::Unavailable, message).into()
}
