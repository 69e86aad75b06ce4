//! How services reach each other: a generated client over the generated server in this process, or over a channel.

use proto::{auth::v1::auth_rules_client::AuthRulesClient, crud::v1::crud_client::CrudClient};
use tonic::{Status, body::Body};
use tower::util::BoxCloneSyncService;

use crate::{Board, bus::Bus, config, telemetry::Metrics};

/// The transport of every generated client.
pub type Link = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Status>;

/// This node's view of the mesh.
#[derive(Clone)]
pub struct Mesh {}

impl Mesh {
    /// Links as `config` says: far to the peers it names, near for the rest. Nothing is connected yet.
    pub fn new(_config: &config::Node) -> Result<Self, config::Error> {
        todo!()
    }

    /// Opens this process's services to near links. Calls before answer `UNAVAILABLE`.
    pub fn open(&self, _routes: tonic::service::Routes) {
        todo!()
    }

    /// Rows in databases.
    pub fn crud(&self) -> CrudClient<Link> {
        todo!()
    }

    /// Who may do what.
    pub fn auth_rules(&self) -> AuthRulesClient<Link> {
        todo!()
    }

    /// What of this node works.
    pub fn board(&self) -> &Board {
        todo!()
    }

    /// Counters of this node.
    pub fn metrics(&self) -> &Metrics {
        todo!()
    }

    /// Events between services.
    pub fn bus(&self) -> &Bus {
        todo!()
    }
}
