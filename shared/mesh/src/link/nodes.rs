//! The nodes that run one service, for calls that have to reach each of them.

use std::{collections::BTreeMap, net::SocketAddr};

use proto::link::Service;
use tokio::sync::watch;

use super::{Mesh, ServiceNode, pool::Pool};

/// The nodes of a service, as they come and go.
pub struct Nodes {
    mesh: Mesh,
    service: &'static Service,
    /// Its peers; `None` where it runs in this process.
    peers: Option<(Pool, watch::Receiver<u64>)>,
}

impl Nodes {
    pub(super) fn new(mesh: Mesh, service: &'static Service, peers: Option<Pool>) -> Self {
        let peers = peers.map(|pool| {
            let changes = pool.changes();
            (pool, changes)
        });
        Self { mesh, service, peers }
    }

    /// Those that are up now, by their addresses; `None` is this process. Calls of the service over the mesh of a node go
    /// to that node alone.
    pub fn up(&mut self) -> BTreeMap<Option<SocketAddr>, Mesh> {
        let Some((pool, changes)) = &mut self.peers else { return BTreeMap::from([(None, self.mesh.clone())]) };
        // Seen before they are read: a change that comes later wakes.
        changes.mark_unchanged();
        let (mesh, service) = (&self.mesh, self.service);
        let node = |address| Mesh { node: Some(ServiceNode { service, address }), ..mesh.clone() };
        pool.up().into_iter().map(|address| (Some(address), node(address))).collect()
    }

    /// Waits until others may be up than [`Nodes::up`] said. Cancel safe.
    pub async fn changed(&mut self) {
        if let Some((_, changes)) = &mut self.peers
            && changes.changed().await.is_ok()
        {
            return;
        }
        // This process is always up; the sender of the others lives in the pool.
        std::future::pending().await
    }
}
