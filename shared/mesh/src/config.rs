//! Node configuration: a commented default compiled in, then the operator's file, then `PERIGEE_…`
//! variables.

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf, time::Duration};

use serde::Deserialize;

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

/// What this process runs and how it reaches the rest.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// The services this process runs; absent: all.
    pub services: Option<Vec<Service>>,
    /// Where it listens.
    pub listen: Listen,
    /// Base URLs of the nodes that run a service; a service that is not named here is near, in this process.
    pub peers: BTreeMap<Service, Vec<String>>,
    /// The secret that all nodes of a mesh share; absent: a well-known one, fit for one process only.
    pub mesh_key: Option<Secret>,
    /// Where projects, databases and rules are described.
    pub resources: Resources,
    /// Folder of what this node keeps.
    pub data: PathBuf,
    /// Where events travel.
    pub bus: Bus,
    /// What one request of a client may cost.
    pub limits: Limits,
    /// Logs.
    pub telemetry: Telemetry,
    /// How long running requests may take to finish when the node stops.
    pub drain: Duration,
}

/// A service of the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Service {
    /// The edge.
    Gateway,
    /// Rows in databases.
    Crud,
    /// Who may do what.
    AuthRules,
}

/// Where a node listens.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// GraphQL, REST, sockets, gRPC, grpc-web.
    pub http: SocketAddr,
    /// gRPC between services; never public.
    pub mesh: SocketAddr,
}

/// A text that no log and no error shows.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

/// Where projects, databases and rules are described.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Resources {
    /// YAML files under a folder.
    Folder {
        /// The folder.
        path: PathBuf,
    },
}

/// Where events travel.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Bus {
    /// In this process.
    Memory {},
}

/// What one request of a client may cost.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Bytes of its body.
    pub body_bytes: usize,
    /// Time until its answer.
    pub time: Duration,
    /// Levels of nesting of what it selects.
    pub depth: usize,
    /// Fields that it selects.
    pub nodes: usize,
}

/// Logs.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    /// A filter: `info`, `warn,crud=debug`.
    pub log: String,
    /// How lines look.
    pub format: Format,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

impl Service {
    /// Every service.
    pub const ALL: [Service; 3] = [Service::Gateway, Service::Crud, Service::AuthRules];

    /// `gateway`, `crud`, `auth-rules`.
    pub fn name(self) -> &'static str {
        match self {
            Service::Gateway => "gateway",
            Service::Crud => "crud",
            Service::AuthRules => "auth-rules",
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Default for Node {
    /// The compiled-in defaults: every service near, in this process.
    fn default() -> Self {
        todo!()
    }
}
