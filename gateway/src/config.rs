//! Configuration of the gateway: limits of requests.

use std::{path::PathBuf, time::Duration};

use query::{Limits, resources::Project};

/// Limits of the edge; a project may lower them.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// Bytes of JSON of an answer.
    pub answer_bytes: usize,
    /// Time limit of a request.
    pub time: Duration,
    /// Limits of a request.
    pub limits: Limits,
    /// Connections at once.
    pub connections: usize,
    /// Requests at once on an HTTP/2 connection.
    pub streams: u32,
    /// Operations at once over WebSockets, of one caller of a project.
    pub subscriptions: usize,
    /// WebSockets and event streams at once, of one caller of a project.
    pub sockets: usize,
    /// Bytes that operations of one WebSocket hold, and bytes of answers that its client has not taken.
    pub socket_bytes: usize,
    /// Bytes that the operations of one caller of a project hold over WebSockets.
    pub caller_bytes: usize,
    /// Bytes that all operations hold over WebSockets.
    pub live_bytes: usize,
    /// Tables of which the live queries of one caller of a project have the rows of changes followed.
    pub followed_tables: usize,
    /// Requests that are answered at once.
    pub in_flight: usize,
    /// Requests that wait for a short time until they are.
    pub queue: usize,
    /// Bytes of answers that clients have not taken yet.
    pub unsent_bytes: usize,
    /// Write timeout: how long a client may read nothing of its answer.
    pub write_timeout: Duration,
    /// Whether projects that do not say show their GraphQL schema.
    pub introspection: bool,
    /// Whether all callers may see `/metrics` and the parts of `/ready`, or those on this machine only.
    pub http_details: bool,
    /// Whether the node is for development on this machine: refusals explain themselves and are logged, unknown names
    /// are told to everybody, and pages of this machine may call.
    pub development: bool,
    /// Folder whose pages are shown, if any are.
    pub pages: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            body_bytes: 8 * 1024 * 1024,
            answer_bytes: 64 * 1024 * 1024,
            time: Duration::from_secs(30),
            limits: Limits::default(),
            connections: 10_000,
            streams: 256,
            subscriptions: 10_000,
            sockets: 1000,
            socket_bytes: 8 * 1024 * 1024,
            caller_bytes: 128 * 1024 * 1024,
            live_bytes: 512 * 1024 * 1024,
            followed_tables: 64,
            in_flight: 1024,
            queue: 256,
            unsent_bytes: 256 * 1024 * 1024,
            write_timeout: Duration::from_secs(30),
            introspection: false,
            http_details: false,
            development: false,
            pages: None,
        }
    }
}

impl Config {
    /// Whether a project shows its GraphQL schema.
    pub fn publishes(&self, project: &Project) -> bool {
        project.graphql.introspection.unwrap_or(self.introspection)
    }

    /// Time limit of a request to a project: the shorter of those of the node and of the project.
    pub fn time(&self, project: &Project) -> Duration {
        let own = project.limits.time_seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        own.map_or(self.time, |own| own.min(self.time))
    }

    /// Limits of a request to a project: the lower of those of the node and of the project.
    ///
    /// `graphql.depth` and `graphql.nodes` of a project are another spelling of `limits.depth` and `limits.nodes` and
    /// hold for every protocol, since the same request is refused by all protocols or by none.
    pub fn limits(&self, project: &Project) -> Limits {
        let (node, own, graphql) = (&self.limits, &project.limits, &project.graphql);
        let lowest = |node: usize, own: [Option<usize>; 2]| own.into_iter().flatten().fold(node, usize::min);
        Limits {
            depth: lowest(node.depth, [own.depth, graphql.depth]),
            filter_depth: lowest(node.filter_depth, [own.filter_depth, None]),
            nodes: lowest(node.nodes, [own.nodes, graphql.nodes]),
            statements: lowest(node.statements, [own.statements, None]),
            list_items: lowest(node.list_items, [own.list_items, None]),
            values: lowest(node.values, [own.values, None]),
        }
    }
}

#[cfg(test)]
mod tests {
    use query::resources::{Graphql, ProjectLimits};

    use super::*;

    #[test]
    fn a_project_lowers_limits_and_raises_none() {
        let node = Config::default();
        let limits = ProjectLimits {
            depth: Some(3),
            nodes: Some(1_000_000),
            statements: Some(4),
            list_items: Some(5),
            values: Some(6),
            ..ProjectLimits::default()
        };
        let project = Project { limits, ..Project::default() };
        let wanted = Limits { depth: 3, statements: 4, list_items: 5, values: 6, ..node.limits };
        assert_eq!(node.limits(&project), wanted);
    }

    #[test]
    fn limits_of_graphql_are_those_of_every_protocol() {
        let node = Config::default();
        let graphql = Graphql { depth: Some(4), nodes: Some(50), ..Graphql::default() };
        let limits = ProjectLimits { depth: Some(5), nodes: Some(40), ..ProjectLimits::default() };
        let project = Project { graphql, limits, ..Project::default() };
        assert_eq!(node.limits(&project), Limits { depth: 4, nodes: 40, ..node.limits });
    }
}
