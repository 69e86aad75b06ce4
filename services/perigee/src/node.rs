//! One node of the mesh in this process: its services, started, opened to each other, and served.

use std::{ffi::OsString, net::SocketAddr, time::Duration};

use anyhow::{Context, anyhow};
use mesh::{
    Mesh, Tasks,
    config::{self, ServiceName},
    resources::{self, Current},
};
use proto::{
    grant::{self, Signer, Verifier},
    link::{self, Host},
    services,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::{
    check::{self as folder_check, KINDS},
    failure::Failure,
    token::{self, DEV_KEYS},
};

/// Mode of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// One process on one machine: projects without keys get one of their own, kept under the data folder, and no other
    /// node can reach this one. Refusals explain themselves, and pages of this machine may call.
    Dev,
    /// Production: everything as the configuration says.
    Serve,
}

/// A running node. Dropped, it ends at once, with whatever it was doing.
pub struct Node {
    /// Address for clients; `None` without a gateway.
    pub http: Option<SocketAddr>,
    /// Address for other nodes; `None` in development, or without a service for them.
    pub peer: Option<SocketAddr>,
    mesh: Mesh,
    current: Current,
    tasks: Tasks,
    servers: JoinSet<()>,
    stop: CancellationToken,
    drain: Duration,
}

impl Node {
    /// Starts the services that `config` names. The configuration and the resources are checked before a port is
    /// opened; a database or a peer that is down is no failure, the node says so on `/ready`.
    pub async fn start(config: config::Node, mode: Mode) -> Result<Node, Failure> {
        check(&config, mode)?;
        for variable in &config.unknown_variables {
            tracing::warn!(variable, "variable names no setting");
        }
        install_tls();
        allow_open_files(config.limits.connections);
        let tasks = Tasks::default();
        let mesh = Mesh::connect(&config, &tasks).await.context("the configuration is wrong")?;
        let current = watch(&config, &tasks, &mesh)?;
        let ports = Ports::bind(&config, mode).await?;
        std::fs::create_dir_all(&config.data)
            .with_context(|| format!("the data folder {} cannot be made", config.data.display()))?;
        let http = ports.http.as_ref().map(TcpListener::local_addr).transpose().context("no HTTP address")?;
        let peer = ports.mesh.as_ref().map(TcpListener::local_addr).transpose().context("no mesh address")?;

        let stop = CancellationToken::new();
        let mut servers = JoinSet::new();
        let (signer, verifier) = grant::pair(&grant_secret(&config, mode));
        let position_secret = position_secret(&config, mode)?;
        let start = Start {
            config: &config,
            mode,
            mesh: &mesh,
            current: &current,
            tasks: &tasks,
            signer,
            verifier: verifier.clone(),
            position_secret,
        };
        host(&start);
        if let Some(listener) = ports.mesh {
            let (mesh, routes, stop) = (mesh.clone(), peer_routes(&mesh), stop.clone());
            servers.spawn(async move { mesh.serve(listener, routes, stop, config.drain).await });
        }
        if let Some(listener) = ports.http {
            let (edge, current) = (edge(&config, mode), current.clone());
            let service = gateway::Service::start(mesh.clone(), edge, current, verifier, tasks.clone());
            servers.spawn(gateway::serve(listener, service.front(), stop.clone(), config.drain));
        }
        tracing::info!(http = ?http, mesh = ?peer, services = ?config.services, "node started");
        Ok(Node { http, peer, mesh, current, tasks, servers, stop, drain: config.drain })
    }

    /// The node's view of the mesh.
    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// The resources in force.
    pub fn resources(&self) -> &Current {
        &self.current
    }

    /// Serves until a signal asks it to stop, then drains; a second signal ends it at once.
    pub async fn run(self, mut signals: Signals) -> Result<(), Failure> {
        signals.next().await;
        tokio::select! {
            () = self.drain() => Ok(()),
            () = signals.next() => Err(anyhow!("stopped by a second signal, before running requests had finished").into()),
        }
    }

    /// Takes no new connection, lets running requests finish for at most the time that the configuration gives them,
    /// and stops everything.
    pub async fn drain(mut self) {
        tracing::info!("node stops");
        self.stop.cancel();
        self.tasks.begin_drain();
        while let Some(ended) = self.servers.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a server ended wrongly");
            }
        }
        if tokio::time::timeout(self.drain, self.tasks.finish()).await.is_err() {
            tracing::warn!("some tasks did not end in time");
        }
        tracing::info!("node stopped");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // The servers end with their `JoinSet`; the tasks are told to.
        self.tasks.stop().cancel();
    }
}

/// SIGINT and SIGTERM, caught instead of ending the process.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Catches them from now on.
    pub fn catch() -> anyhow::Result<Signals> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt()).context("SIGINT cannot be caught")?,
            terminate: signal(SignalKind::terminate()).context("SIGTERM cannot be caught")?,
        })
    }

    /// Waits for the next one. Cancel-safe.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Refuses a node that could never answer, and one whose grants anybody could forge.
fn check(config: &config::Node, mode: Mode) -> Result<(), Failure> {
    for (caller, called) in calls(config) {
        let is_missing = |service: &&ServiceName| !config.runs(**service) && !config.peers.contains_key(*service);
        let missing: Vec<&str> = called.iter().filter(is_missing).map(|service| service.as_str()).collect();
        if !missing.is_empty() {
            let missing = missing.join(" and ");
            return Err(anyhow!(
                "the configuration is wrong: {caller} calls {missing}, found neither in services nor in peers"
            )
            .into());
        }
    }
    let address = config.listen.mesh;
    let is_loopback = address.ip().to_canonical().is_loopback();
    if mode == Mode::Serve && is_called(config) && config.mesh_key.is_none() && !is_loopback {
        return Err(anyhow!(
            "the configuration is wrong: mesh_key is not set, and listen.mesh is {address}, where others could forge \
             grants; set mesh_key to the same secret on all nodes, or listen.mesh to a loopback address"
        )
        .into());
    }
    Ok(())
}

/// What the services of this process call, each with its name in errors.
fn calls(config: &config::Node) -> Vec<(&'static str, Vec<ServiceName>)> {
    let gateway = config.runs(ServiceName::GATEWAY).then(|| {
        // Not every project has buckets or functions; without these services, requests for them are told so.
        let optional = [&services::storage::STORAGE, &services::functions::FUNCTIONS].map(ServiceName::of);
        ("the gateway", ServiceName::all().into_iter().filter(|service| !optional.contains(service)).collect())
    });
    let runs = |service: &&Service| config.runs(ServiceName::of(service.contract));
    let others = SERVICES.iter().filter(runs).map(|service| {
        let called = service.calls.iter().map(|called| ServiceName::of(called)).collect();
        (service.contract.name, called)
    });
    gateway.into_iter().chain(others).collect()
}

/// The resources of `config`, watched from now on; all that is wrong with them where anything is.
fn watch(config: &config::Node, tasks: &Tasks, mesh: &Mesh) -> Result<Current, Failure> {
    let config::Resources::Folder { path } = &config.resources;
    folder_check::is_folder(path)?;
    resources::watch(path, KINDS, tasks, mesh.health()).map_err(|faults| Failure::faults(path, &faults))
}

/// The ports of this node, open.
struct Ports {
    http: Option<TcpListener>,
    mesh: Option<TcpListener>,
}

impl Ports {
    /// Opens what `config` needs: the HTTP port for a gateway, the mesh port for a service that others may call.
    async fn bind(config: &config::Node, mode: Mode) -> Result<Ports, Failure> {
        let is_called = mode == Mode::Serve && is_called(config);
        Ok(Ports {
            http: if config.runs(ServiceName::GATEWAY) {
                Some(listen(config.listen.http, "listen.http").await?)
            } else {
                None
            },
            mesh: if is_called { Some(listen(config.listen.mesh, "listen.mesh").await?) } else { None },
        })
    }
}

async fn listen(address: SocketAddr, setting: &str) -> Result<TcpListener, Failure> {
    let listener = TcpListener::bind(address).await;
    Ok(listener.with_context(|| format!("cannot listen on {address}; choose another address for {setting}"))?)
}

/// Start context of a service.
struct Start<'a> {
    config: &'a config::Node,
    mode: Mode,
    mesh: &'a Mesh,
    current: &'a Current,
    tasks: &'a Tasks,
    signer: Signer,
    verifier: Verifier,
    /// What positions of changes and cursors of lists are sealed with.
    position_secret: Vec<u8>,
}

/// A service that a node runs, other than the gateway.
struct Service {
    contract: &'static link::Service,
    /// Services that it calls.
    calls: &'static [&'static link::Service],
    start: fn(&Start<'_>) -> Host,
}

/// All services of this binary.
const SERVICES: &[Service] = &[
    Service { contract: &services::crud::CRUD, calls: &[], start: host_crud },
    Service { contract: &services::auth::AUTH_RULES, calls: &[], start: host_auth_rules },
    Service {
        contract: &services::realtime::REALTIME,
        calls: &[&services::crud::CRUD, &services::auth::AUTH_RULES],
        start: host_realtime,
    },
    Service { contract: &services::storage::STORAGE, calls: &[], start: host_storage },
    Service { contract: &services::functions::FUNCTIONS, calls: &[], start: host_functions },
];

/// Starts the services of this process that others call.
fn host(start: &Start<'_>) {
    let names = &start.config.services;
    let is_here = |service: &&Service| names.iter().any(|name| *name == ServiceName::of(service.contract));
    SERVICES.iter().filter(is_here).for_each(|service| start.mesh.host((service.start)(start)));
}

fn host_crud(start: &Start<'_>) -> Host {
    let Start { mesh, current, tasks, verifier, .. } = start;
    let config = crud::Config { data: start.config.data.clone() };
    let (mesh, current, tasks) = (Mesh::clone(mesh), Current::clone(current), Tasks::clone(tasks));
    services::crud::host(crud::Service::start(mesh, config, current, verifier.clone(), tasks))
}

fn host_auth_rules(start: &Start<'_>) -> Host {
    let Start { mesh, current, tasks, signer, .. } = start;
    let development = (start.mode == Mode::Dev).then(|| {
        let config::Resources::Folder { path } = &start.config.resources;
        let token_options = token::options(path, &start.config.data);
        auth_rules::Development { keys: start.config.data.join(DEV_KEYS), token_options }
    });
    let (mesh, current, tasks) = (Mesh::clone(mesh), Current::clone(current), Tasks::clone(tasks));
    services::auth::host(auth_rules::Service::start(
        mesh,
        auth_rules::Config { development },
        current,
        signer.clone(),
        tasks,
    ))
}

fn host_realtime(start: &Start<'_>) -> Host {
    let Start { mesh, tasks, verifier, .. } = start;
    let limits = &start.config.limits;
    let config = realtime::Config {
        position_secret: start.position_secret.clone(),
        answer_bytes: limits.answer_bytes as u64,
        waiting_bytes: limits.live_bytes,
    };
    services::realtime::host(realtime::Service::start(Mesh::clone(mesh), config, verifier.clone(), tasks))
}

fn host_storage(start: &Start<'_>) -> Host {
    let Start { mesh, current, tasks, verifier, .. } = start;
    let config = storage::Config {
        data: start.config.data.clone(),
        cursor_secret: start.position_secret.clone(),
        images: start.config.images.clone(),
    };
    let (mesh, current, tasks) = (Mesh::clone(mesh), Current::clone(current), Tasks::clone(tasks));
    services::storage::host(storage::Service::start(mesh, config, current, verifier.clone(), tasks))
}

fn host_functions(start: &Start<'_>) -> Host {
    let Start { mesh, current, tasks, verifier, .. } = start;
    let egress = start.config.egress.clone();
    let egress = if start.mode == Mode::Dev { egress.with_loopback() } else { egress };
    let config = functions::Config { egress, data: start.config.data.clone(), queue: start.config.queue.clone() };
    let (mesh, current, tasks) = (Mesh::clone(mesh), Current::clone(current), Tasks::clone(tasks));
    services::functions::host(functions::Service::start(mesh, config, current, verifier.clone(), tasks))
}

/// Routes of the mesh port: the services of this node, and its health. Other paths are answered as gRPC.
fn peer_routes(mesh: &Mesh) -> Routes {
    let about = gateway::node_routes(mesh.clone()).reset_fallback();
    Routes::from(mesh.routes().into_axum_router().merge(about))
}

/// Limits of requests at the edge.
fn edge(config: &config::Node, mode: Mode) -> gateway::Config {
    let limits = &config.limits;
    let config::Resources::Folder { path: folder } = &config.resources;
    gateway::Config {
        body_bytes: limits.body_bytes,
        answer_bytes: limits.answer_bytes,
        time: limits.time,
        limits: query::Limits {
            depth: limits.depth,
            filter_depth: limits.filter_depth,
            nodes: limits.nodes,
            statements: limits.statements,
            list_items: limits.list_items,
            values: limits.values,
        },
        connections: limits.connections,
        streams: limits.streams,
        subscriptions: limits.subscriptions,
        sockets: limits.sockets,
        socket_bytes: limits.socket_bytes,
        caller_bytes: limits.caller_bytes,
        live_bytes: limits.live_bytes,
        followed_tables: limits.followed_tables,
        in_flight: limits.in_flight,
        queue: limits.queue,
        unsent_bytes: limits.unsent_bytes,
        http_details: config.listen.http_details,
        introspection: mode == Mode::Dev,
        development: mode == Mode::Dev,
        pages: (mode == Mode::Dev).then(|| folder.clone()),
        ..gateway::Config::default()
    }
}

/// What grants are signed with: in development a secret that nobody ever learns; between nodes the one that all of them
/// are configured with, or else the well-known one, so that they understand each other out of the box.
fn grant_secret(config: &config::Node, mode: Mode) -> Vec<u8> {
    if mode == Mode::Dev {
        return rand::random::<[u8; 32]>().to_vec();
    }
    if is_called(config) && config.mesh_key.is_none() {
        tracing::warn!("mesh_key is not set: who reaches the mesh port can forge grants; set it alike on all nodes");
    }
    config.grant_secret().to_vec()
}

/// What positions of changes and cursors of lists are sealed with: they are good on all nodes of a mesh and after a restart, in development too.
fn position_secret(config: &config::Node, mode: Mode) -> Result<Vec<u8>, Failure> {
    match mode {
        Mode::Dev => {
            let secret = auth_rules::dev_key(&config.data.join(POSITION_KEYS), "position");
            Ok(secret.context("the key of positions cannot be kept under the data folder")?.into_bytes())
        }
        Mode::Serve => Ok(config.grant_secret().to_vec()),
    }
}

/// Whether the node runs a service that others may call.
fn is_called(config: &config::Node) -> bool {
    config.services.iter().any(|service| *service != ServiceName::GATEWAY)
}

/// The variables that configure a node; others need not be text.
pub fn variables() -> impl Iterator<Item = (String, String)> {
    let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    std::env::vars_os().filter_map(text).filter(|(name, _)| name.starts_with("PERIGEE_"))
}

/// The folder under `data` with the key of positions, in development.
const POSITION_KEYS: &str = "realtime";

/// Files that a node has open besides connections of clients: databases, peers, logs.
const OTHER_FILES: u64 = 256;

/// Lets this process have as many files open as the system allows: each connection is one, and shells give a thousand.
fn allow_open_files(connections: usize) {
    let limit = getrlimit(Resource::Nofile);
    // Where it cannot be raised, what there is has to do.
    let _raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if files < (connections as u64).saturating_add(OTHER_FILES) {
        tracing::warn!(files, connections, "fewer open files are allowed than limits.connections asks for");
    }
}

/// Chooses the one TLS provider of this process.
fn install_tls() {
    // It fails where a provider is installed already, as by an earlier node of this process: that one is as good.
    let _installed = rustls::crypto::ring::default_provider().install_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_of_a_node_are_those_that_the_model_has() {
        assert_eq!(edge(&config::Node::default(), Mode::Serve).limits, query::Limits::default());
    }
}
