//! The gateway's shared state: mesh, catalogue, caches, budgets.

use std::{net::IpAddr, sync::Arc};

use mesh::{Fault, Mesh, Tasks, resources};
use proto::grant::Verifier;
use query::{Budget, Guard};
use tokio::sync::{Semaphore, watch};

use crate::{
    catalogue::{Catalogue, Project},
    config::Config,
    edge::{Caller, Edge},
    files::FileRates,
    function_answers::StreamPlaces,
    graphql,
    http::{Admission, SendBudget},
    live::{CallerId, Hold, LiveQueries, NodeTurns, Quotas, Subscriber, Watch, WatchedRows},
    rest,
};

/// The gateway of this node. Clones are the same gateway.
#[derive(Clone)]
pub struct Service {
    state: Arc<ServiceState>,
}

struct ServiceState {
    mesh: Mesh,
    config: Config,
    edge: Edge,
    graphql: graphql::Caches,
    rest_reads: rest::ReadCache,
    admission: Arc<Admission>,
    send_budget: SendBudget,
    live: LiveQueries,
    /// Room for WebSocket connections.
    sockets: Arc<Semaphore>,
    /// Turns for large messages that sockets receive.
    large_messages: NodeTurns,
    quotas: Quotas,
    stream_places: StreamPlaces,
    file_rates: FileRates,
    tasks: Tasks,
}

impl Service {
    /// A gateway for the projects of `current`. It learns in the background what their databases hold, and goes on
    /// doing so until `tasks` end.
    /// `verifier` reads the grants of the rule engine.
    pub fn start(mesh: Mesh, config: Config, current: resources::Current, verifier: Verifier, tasks: Tasks) -> Self {
        let catalogue = Catalogue::start(mesh.clone(), current, &tasks);
        let edge = Edge::new(mesh.clone(), catalogue, &config);
        let send_budget = SendBudget::new(config.unsent_bytes, mesh.metrics());
        let (stop, watch) = (tasks.stop().clone(), send_budget.clone().cut_stalled(config.write_timeout));
        tasks.spawn("send budget", async move { stop.run_until_cancelled(watch).await.unwrap_or_default() });
        let admission = Admission::new(config.in_flight, config.queue, mesh.metrics());
        let (graphql, rest_reads) = (graphql::Caches::default(), rest::ReadCache::default());
        let live = LiveQueries::new(edge.clone(), mesh.clone(), config.clone(), verifier, tasks.clone());
        let sockets = Arc::new(Semaphore::new(config.connections.min(Semaphore::MAX_PERMITS)));
        let large = (config.live_bytes / config.body_bytes.max(1)).clamp(1, Semaphore::MAX_PERMITS);
        let (large_messages, quotas) = (NodeTurns::new(large), Quotas::new(&config, mesh.metrics()));
        let file_rates = FileRates::new(mesh.metrics().shed("file_rate"));
        let state = ServiceState {
            mesh,
            config,
            edge,
            graphql,
            rest_reads,
            admission,
            send_budget,
            live,
            sockets,
            large_messages,
            quotas,
            stream_places: StreamPlaces::default(),
            file_rates,
            tasks,
        };
        Self { state: Arc::new(state) }
    }

    /// Authorization and forwarding.
    pub fn edge(&self) -> &Edge {
        &self.state.edge
    }

    /// Limits of this node.
    pub(crate) fn config(&self) -> &Config {
        &self.state.config
    }

    /// The counter of a request to `project`.
    pub(crate) fn budget(&self, project: &Project) -> Budget {
        Budget::new(self.config().limits(&project.spec))
    }

    /// The guard of a text or a message that a client sends.
    pub(crate) fn guard(&self) -> Guard {
        Guard::of(&self.config().limits)
    }

    /// Caches of GraphQL.
    pub(crate) fn graphql(&self) -> &graphql::Caches {
        &self.state.graphql
    }

    /// The reads that are kept for REST.
    pub(crate) fn rest_reads(&self) -> &rest::ReadCache {
        &self.state.rest_reads
    }

    /// Live queries.
    pub(crate) fn live(&self) -> &LiveQueries {
        &self.state.live
    }

    /// Room for WebSocket connections.
    pub(crate) fn sockets(&self) -> &Arc<Semaphore> {
        &self.state.sockets
    }

    /// Turns for large messages that sockets receive: as many as have room in `limits.live_bytes`.
    pub(crate) fn large_messages(&self) -> &NodeTurns {
        &self.state.large_messages
    }

    /// Quotas of operations over sockets.
    pub(crate) fn quotas(&self) -> &Quotas {
        &self.state.quotas
    }

    /// The streams of functions of each caller.
    pub(crate) fn stream_places(&self) -> &StreamPlaces {
        &self.state.stream_places
    }

    /// Rates of requests for files.
    pub(crate) fn file_rates(&self) -> &FileRates {
        &self.state.file_rates
    }

    /// Counts a stream that takes so many bytes for its caller. Errors: the token is not valid, or the caller has too many.
    pub(crate) async fn hold(
        &self,
        caller: &Caller,
        project: &Project,
        peer: Option<IpAddr>,
        bytes: usize,
    ) -> Result<Hold, Fault> {
        if !caller.token.is_empty() {
            // Else a forged token would count for whom it names.
            self.edge().reach(caller, project).await?;
        }
        self.quotas().socket(CallerId::of(&project.id, &caller.token, peer))?.hold(bytes)
    }

    /// Begins a watch that is counted for its caller, and whose token nobody renews.
    pub(crate) async fn watch(
        &self,
        caller: &Caller,
        project: &Project,
        peer: Option<IpAddr>,
        rows: WatchedRows,
    ) -> Result<(Watch, Hold), Fault> {
        let hold = self.hold(caller, project, peer, rows.read.memory_bytes()).await?;
        let (_, token) = watch::channel(caller.token.clone());
        let subscriber = Subscriber { caller: hold.caller(), request_id: caller.call.request_id.clone(), token };
        Ok((self.live().watch(project, rows, subscriber).await?, hold))
    }

    /// What outlives a request.
    pub(crate) fn tasks(&self) -> &Tasks {
        &self.state.tasks
    }

    /// The concurrency limit.
    pub(crate) fn admission(&self) -> &Arc<Admission> {
        &self.state.admission
    }

    /// The budget of unsent answers.
    pub(crate) fn send_budget(&self) -> &SendBudget {
        &self.state.send_budget
    }

    /// This node's view of the mesh.
    pub(crate) fn mesh(&self) -> &Mesh {
        &self.state.mesh
    }
}
