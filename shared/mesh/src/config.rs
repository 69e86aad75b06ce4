//! Node configuration: a commented default compiled in, then the operator's file, then `PERIGEE_…`
//! variables.

mod images;
mod layer;
mod nats;
mod queue;

use std::{
    collections::BTreeMap,
    fmt, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use proto::carried::ANSWER_BYTES_MAX;
use serde::{Deserialize, Deserializer, de::Error as _};

use layer::Layers;

pub use images::ImageLimits;
pub use nats::NatsBus;
pub use queue::{PostgresQueue, QueueConfig};

use crate::{deserialize, egress::Egress};

/// The commented default; it documents every key.
pub const DEFAULT: &str = include_str!("config/default.yaml");

/// The longest that a request may be given: shorter than what auth-rules grants it holds.
pub const MAX_REQUEST_TIME: Duration = Duration::from_secs(50);

/// Error of an invalid configuration.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

/// Configuration of a node: its services, and the way to the others.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// The services this process runs; absent: all.
    #[serde(default = "ServiceName::all")]
    pub services: Vec<ServiceName>,
    /// Listen addresses.
    pub listen: Listen,
    /// Base URLs of the nodes that run a service; a service that is not named here is near, in this process.
    pub peers: BTreeMap<ServiceName, Vec<String>>,
    /// The secret that all nodes of a mesh share; absent: a well-known one, fit for one process only.
    #[serde(default)]
    pub mesh_key: Option<Secret>,
    /// Source of resource documents.
    pub resources: Resources,
    /// Data folder of this node.
    pub data: PathBuf,
    /// Event bus.
    pub bus: BusConfig,
    /// Where events of triggers wait.
    pub queue: QueueConfig,
    /// Addresses that requests to targets of users may go to.
    pub egress: Egress,
    /// Limits of requests.
    pub limits: Limits,
    /// Limits of the images that storage makes.
    pub images: ImageLimits,
    /// Logs.
    pub telemetry: Telemetry,
    /// How long running requests may take to finish when the node stops.
    #[serde(deserialize_with = "deserialize_duration")]
    pub drain: Duration,
    /// Variables that begin like those of a node and name no setting, each with what is wrong with it.
    #[serde(skip)]
    pub unknown_variables: Vec<String>,
}

/// The name of a service, as it stands in a configuration: the gateway, or one that has a contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(&'static str);

/// Listen addresses of a node.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// GraphQL, REST, gRPC, grpc-web.
    #[serde(deserialize_with = "deserialize_address")]
    pub http: SocketAddr,
    /// gRPC between services; never public.
    #[serde(deserialize_with = "deserialize_address")]
    pub mesh: SocketAddr,
    /// Whether `/metrics` and the parts of `/ready` are told to everybody on the HTTP port, or to this machine only.
    pub http_details: bool,
}

/// A secret, which no log and no error shows.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

/// Source of resource documents.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Resources {
    /// YAML files under a folder.
    Folder {
        /// The folder.
        path: PathBuf,
    },
}

/// Event bus.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum BusConfig {
    /// In this process.
    Memory {},
    /// A NATS server, or a cluster of them, with JetStream.
    Nats(Box<NatsBus>),
}

/// Limits of one request of a client, and of all together.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Bytes of its body.
    pub body_bytes: usize,
    /// Bytes of JSON that its answer has.
    pub answer_bytes: usize,
    /// Time until its answer.
    #[serde(deserialize_with = "deserialize_duration")]
    pub time: Duration,
    /// Levels of a selection.
    pub depth: usize,
    /// Levels of a condition.
    pub filter_depth: usize,
    /// Selected fields and parts of conditions.
    pub nodes: usize,
    /// Reads, mutations and selected relations.
    pub statements: usize,
    /// Items of one list.
    pub list_items: usize,
    /// Values to write and to look for.
    pub values: usize,
    /// Connections of clients at once.
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
    /// Tables of which the live queries and watches of one caller of a project have the rows of changes followed.
    pub followed_tables: usize,
    /// Requests that are answered at once.
    pub in_flight: usize,
    /// Requests that wait for a short time until they are.
    pub queue: usize,
    /// Bytes of answers that clients have not taken yet.
    pub unsent_bytes: usize,
}

/// Logs.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    /// A filter: `info`, `warn,crud=debug`.
    pub log: String,
    /// Format of lines.
    pub format: Format,
}

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

impl ServiceName {
    /// The edge.
    pub const GATEWAY: ServiceName = ServiceName("gateway");

    /// The name of `service`.
    pub fn of(service: &'static proto::link::Service) -> Self {
        Self(service.name)
    }

    /// Every service: the gateway, then those with a contract.
    pub fn all() -> Vec<ServiceName> {
        let others = proto::services::ALL.iter().map(|service| ServiceName::of(service));
        std::iter::once(ServiceName::GATEWAY).chain(others).collect()
    }

    /// `gateway`, `auth-rules`.
    pub fn as_str(self) -> &'static str {
        self.0
    }
}

impl Limits {
    /// Limits that are counted per request: name, limit, and the highest limit that can be set.
    ///
    /// A message between services and of gRPC carries no more levels, and no larger answer.
    pub fn request_limits(&self) -> [(&'static str, usize, usize); 7] {
        [
            ("answer_bytes", self.answer_bytes, ANSWER_BYTES_MAX),
            ("depth", self.depth, query::Limits::MAX_DEPTH),
            ("filter_depth", self.filter_depth, query::Limits::MAX_FILTER_DEPTH),
            ("nodes", self.nodes, usize::MAX),
            ("statements", self.statements, usize::MAX),
            ("list_items", self.list_items, usize::MAX),
            ("values", self.values, usize::MAX),
        ]
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl<'de> Deserialize<'de> for ServiceName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl FromStr for ServiceName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let known = ServiceName::all();
        let found = known.iter().find(|service| service.0 == text).copied();
        let names: Vec<&str> = known.iter().map(|service| service.0).collect();
        found.ok_or_else(|| Error(deserialize::unknown("service", text, &names)))
    }
}

impl Default for Node {
    /// The compiled-in defaults: every service near, in this process.
    fn default() -> Self {
        Layers::default().node().expect("a test reads the compiled-in default")
    }
}

impl Node {
    /// The defaults, then `file`, then `variables` (those called `PERIGEE_…`), later ones winning.
    pub fn load(file: Option<&Path>, variables: impl IntoIterator<Item = (String, String)>) -> Result<Self, Error> {
        let Some(file) = file else { return Layers::default().variables(variables)?.node() };
        let name = file.display().to_string();
        let text = fs::read_to_string(file).map_err(|error| Error(format!("{name}: cannot be read: {error}")))?;
        Layers::default().file(&name, &text)?.variables(variables)?.node()
    }

    /// The defaults, then `text`, which errors call `name`, then `variables`.
    pub fn parse(name: &str, text: &str, variables: impl IntoIterator<Item = (String, String)>) -> Result<Self, Error> {
        Layers::default().file(name, text)?.variables(variables)?.node()
    }

    /// Whether this process runs `service`.
    pub fn runs(&self, service: ServiceName) -> bool {
        self.services.contains(&service)
    }

    /// The secret that grants are signed with: `mesh_key`, or the well-known one that every node without it uses.
    pub fn grant_secret(&self) -> &[u8] {
        self.mesh_key.as_ref().map_or(b"perigee".as_slice(), |secret| secret.0.as_bytes())
    }

    /// Checks what types alone do not say. An error is a path, and the reason.
    fn check(&self) -> Result<(), (String, String)> {
        let wrong = |path: String, message: &str| Err((path, message.to_owned()));
        if self.services.is_empty() {
            return wrong("services".to_owned(), "must not be empty; leave it out for all services");
        }
        for (service, urls) in &self.peers {
            let path = format!("peers.{service}");
            if *service == ServiceName::GATEWAY {
                return wrong(path, "not allowed: no service calls the gateway");
            }
            if urls.is_empty() {
                return wrong(path, "must not be empty; leave it out for a service in this process");
            }
            for (index, url) in urls.iter().enumerate() {
                if let Err(message) = peer_authority(url) {
                    return Err((format!("{path}.{index}"), message));
                }
            }
        }
        let limits = &self.limits;
        if limits.time.is_zero() {
            return wrong("limits.time".to_owned(), "must be positive");
        }
        if limits.time > MAX_REQUEST_TIME {
            let message =
                format!("must be at most {}s, found {}s", MAX_REQUEST_TIME.as_secs(), limits.time.as_secs_f64());
            return Err(("limits.time".to_owned(), message));
        }
        for (name, is_positive) in [
            ("connections", limits.connections > 0),
            ("streams", limits.streams > 0),
            ("sockets", limits.sockets > 0),
            ("in_flight", limits.in_flight > 0),
            ("unsent_bytes", limits.unsent_bytes > 0),
        ] {
            if !is_positive {
                return wrong(format!("limits.{name}"), "must be positive");
            }
        }
        self.check_servers()?;
        self.images.check().map_err(|(field, message)| (format!("images.{field}"), message))?;
        if self.mesh_key.as_ref().is_some_and(|key| key.0.is_empty()) {
            return wrong("mesh_key".to_owned(), "must not be empty");
        }
        for (name, limit, most) in self.limits.request_limits() {
            if limit == 0 || limit > most {
                let message = match most {
                    usize::MAX => "must be at least 1".to_owned(),
                    most => format!("must be from 1 to {most}"),
                };
                return Err((format!("limits.{name}"), message));
            }
        }
        if let Err(error) = tracing_subscriber::EnvFilter::try_new(&self.telemetry.log) {
            return Err(("telemetry.log".to_owned(), format!("expected a log filter such as info: {error}")));
        }
        Ok(())
    }

    /// The same of the servers that nodes share.
    fn check_servers(&self) -> Result<(), (String, String)> {
        if let BusConfig::Nats(nats) = &self.bus {
            nats.check().map_err(|(field, message)| (format!("bus.{field}"), message))?;
        }
        if let QueueConfig::Postgres(server) = &self.queue {
            server.check().map_err(|(field, message)| (format!("queue.{field}"), message))?;
        }
        Ok(())
    }
}

/// A duration as people write it: numbers and units, `500ms`, `10s`, `1.5m`, `1h30m`, `7d`.
pub fn duration(text: &str) -> Result<Duration, Error> {
    let wrong = || Error("expected a duration such as 500ms, 10s, 2m, 1h or 7d".to_owned());
    let text: String = text.split_whitespace().collect();
    let has_unit = text.ends_with(|c: char| c.is_ascii_alphabetic());
    let duration = query::datetime::duration(&text).filter(|_| has_unit).ok_or_else(wrong)?;
    Duration::try_from(duration).map_err(|_| wrong())
}

/// Host and port of the base URL of a peer.
pub(crate) fn peer_authority(url: &str) -> Result<http::uri::Authority, String> {
    let wrong = || "expected a base URL such as http://crud-0:4130".to_owned();
    let parsed: http::Uri = url.parse().map_err(|_| wrong())?;
    let is_base = matches!(parsed.path(), "" | "/") && parsed.query().is_none();
    let authority = parsed.authority().filter(|authority| is_base && !authority.as_str().contains('@'));
    match (parsed.scheme_str(), authority) {
        (Some("http"), Some(authority)) => Ok(authority.clone()),
        (Some("https"), Some(_)) => Err("expected http://: nodes do not speak TLS to each other".to_owned()),
        _ => Err(wrong()),
    }
}

fn deserialize_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    duration(&text).map_err(D::Error::custom)
}

fn deserialize_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| D::Error::custom("expected an IP address and a port such as 127.0.0.1:4122"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, variables: &[(&str, &str)]) -> Result<Node, String> {
        let variables = variables.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        Node::parse("node.yaml", text, variables).map_err(|error| error.to_string())
    }

    fn refused(text: &str, variables: &[(&str, &str)]) -> String {
        parse(text, variables).unwrap_err()
    }

    #[test]
    fn the_compiled_in_default_is_one_process_on_loopback() {
        let node = Node::default();
        assert_eq!(node.services, ServiceName::all());
        assert_eq!(node.listen.http, "127.0.0.1:4122".parse().unwrap());
        assert!(node.peers.is_empty());
        let limits = &node.limits;
        assert_eq!((limits.body_bytes, limits.time, limits.depth), (8 << 20, Duration::from_secs(30), 16));
        assert_eq!((limits.connections, limits.streams, limits.in_flight), (10_000, 256, 1024));
        assert!(!node.listen.http_details);
        let counted = limits.request_limits().map(|(_, limit, _)| limit);
        assert_eq!(counted, [64 << 20, 16, 16, 2000, 1000, 100_000, 200_000]);
        assert_eq!(node.drain, Duration::from_secs(10));
    }

    #[test]
    fn a_queue_is_a_file_or_a_database_that_nodes_share() {
        assert_eq!(parse("", &[]).unwrap().queue, QueueConfig::File {});
        let text = "queue: { kind: postgres, url: 'postgres://a:b@c/d' }";
        let QueueConfig::Postgres(server) = parse(text, &[]).unwrap().queue else { panic!("it is a database") };
        assert_eq!(
            (server.url.0.as_str(), server.schema.as_str(), server.connections),
            ("postgres://a:b@c/d", "perigee_events", 8)
        );
        let variables = [
            ("PERIGEE_QUEUE__CONNECTIONS", "9"),
            ("PERIGEE_QUEUE__KIND", "postgres"),
            ("PERIGEE_QUEUE__URL", "postgres://c/d"),
        ];
        let QueueConfig::Postgres(server) = parse("", &variables).unwrap().queue else { panic!("it is a database") };
        assert_eq!(server.connections, 9);
        for (more, expected) in [
            ("", "queue.url: must be set"),
            ("url: 'mysql://c/d'", "queue.url: must be set"),
            ("url: 'postgres://c/d', schema: 'a; b'", "queue.schema: invalid schema \"a; b\""),
            ("url: 'postgres://c/d', schema: pg_temp", "queue.schema: invalid schema"),
            ("url: 'postgres://c/d', connections: 2", "queue.connections: must be from 3 to 1000"),
            ("url: 'postgres://c/d', table: a", "queue"),
        ] {
            let text = refused(&format!("queue: {{ kind: postgres, {more} }}"), &[]);
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn variables_win_over_the_file_and_the_file_over_the_default() {
        let text = "limits: { depth: 5, nodes: 6 }\npeers: { crud: ['http://a:1'] }\n";
        let node = parse(text, &[("PERIGEE_LIMITS__NODES", "7"), ("OTHER_LIMITS__DEPTH", "9")]).unwrap();
        assert_eq!((node.limits.depth, node.limits.nodes, node.limits.body_bytes), (5, 7, 8 << 20));
        assert_eq!(node.peers[&ServiceName("crud")], ["http://a:1"]);
    }

    #[test]
    fn a_list_in_a_variable_has_commas_or_brackets() {
        let wanted = [ServiceName::GATEWAY, ServiceName("auth-rules")];
        for text in ["gateway,auth-rules", "[gateway, auth-rules]", " gateway , auth-rules "] {
            assert_eq!(parse("", &[("PERIGEE_SERVICES", text)]).unwrap().services, wanted);
        }
        let node = parse("", &[("PERIGEE_PEERS__AUTH_RULES", "http://a:1,http://b:2")]).unwrap();
        assert_eq!(node.peers[&ServiceName("auth-rules")], ["http://a:1", "http://b:2"]);
    }

    #[test]
    fn a_variable_that_looks_like_a_number_stays_a_text_where_one_is_wanted() {
        let node = parse("", &[("PERIGEE_MESH_KEY", "12345"), ("PERIGEE_DATA", "1")]).unwrap();
        assert_eq!(node.grant_secret(), b"12345");
        assert_eq!(node.data, Path::new("1"));
    }

    #[test]
    fn variables_that_name_no_setting_are_told_and_left_alone() {
        let made = [
            ("PERIGEE_PORT", "tcp://10.0.0.1:4122"),
            ("PERIGEE_SERVICE_HOST", "10.0.0.1"),
            ("PERIGEE_CRUD_PORT_4130_TCP_ADDR", "10.0.0.1"),
            ("PERIGEE_LISTEN__HTPP", "127.0.0.1:1"),
            ("PERIGEE_DATA__FOLDER", "x"),
            ("PERIGEE_LIMITS__DEPTH", "7"),
        ];
        let node = parse("", &made).unwrap();
        assert_eq!(node.limits.depth, 7);
        let named: Vec<&str> = node.unknown_variables.iter().filter_map(|text| text.split(':').next()).collect();
        let wanted = ["PERIGEE_CRUD_PORT_4130_TCP_ADDR", "PERIGEE_DATA__FOLDER", "PERIGEE_LISTEN__HTPP"];
        assert_eq!(named, [&wanted[..], &["PERIGEE_PORT", "PERIGEE_SERVICE_HOST"]].concat());
        assert!(node.unknown_variables[2].contains("did you mean http?"), "{:?}", node.unknown_variables);
        assert_eq!(node.listen, Node::default().listen);
    }

    #[test]
    fn limits_have_limits() {
        let time = |text: &str| refused("", &[("PERIGEE_LIMITS__TIME", text)]);
        assert_eq!(time("2m"), "PERIGEE_LIMITS__TIME: limits.time: must be at most 50s, found 120s");
        assert_eq!(time("50001ms"), "PERIGEE_LIMITS__TIME: limits.time: must be at most 50s, found 50.001s");
        assert_eq!(time("0s"), "PERIGEE_LIMITS__TIME: limits.time: must be positive");
        assert!(parse("limits: { time: 50s }", &[]).is_ok());
        for name in ["connections", "streams", "sockets", "in_flight", "unsent_bytes"] {
            let fault = refused(&format!("limits: {{ {name}: 0 }}"), &[]);
            assert!(fault.ends_with(&format!("limits.{name}: must be positive")), "{fault}");
        }
        assert!(parse("limits: { queue: 0 }", &[]).is_ok());
        assert!(refused("mesh_key: ''", &[]).ends_with("mesh_key: must not be empty"));
    }

    #[test]
    fn images_have_limits() {
        let images = parse("images: { side: 100 }", &[("PERIGEE_IMAGES__WORKERS", "3")]).unwrap().images;
        assert_eq!((images.side, images.workers, images.queue), (100, 3, 64));
        for (fields, told) in [
            ("workers: 0", "images.workers: must be from 1 to 64"),
            ("side: 16384", "images.side: must be from 1 to 16383"),
            ("time: 0s", "images.time: must be positive, and at most 60s"),
            ("wait: 61s", "images.wait: must be positive, and at most 60s"),
            ("widht: 1", "images.widht"),
        ] {
            let fault = refused(&format!("images: {{ {fields} }}"), &[]);
            assert!(fault.contains(told), "{fault}");
        }
    }

    #[test]
    fn a_variable_may_be_true_or_false() {
        assert!(parse("", &[("PERIGEE_LISTEN__HTTP_DETAILS", "true")]).unwrap().listen.http_details);
        assert!(refused("", &[("PERIGEE_LISTEN__HTTP_DETAILS", "yes")]).contains("expected boolean, found string"));
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_place_and_the_nearest_one() {
        let wanted = "node.yaml:2:3: limits.dept: key dept is not known; did you mean depth? \
                      known: body_bytes, answer_bytes, time, depth, filter_depth, nodes, statements, list_items, values, \
                      connections, streams, subscriptions, sockets, socket_bytes, \
                      caller_bytes, live_bytes, followed_tables, in_flight, queue, unsent_bytes";
        assert_eq!(refused("limits:\n  dept: 3\n", &[]), wanted);
        assert!(refused("listn: x", &[]).contains("did you mean listen?"));
    }

    #[test]
    fn a_value_that_does_not_fit_is_refused_with_its_place() {
        let wanted = "node.yaml:1:1: drain: expected a duration such as 500ms, 10s, 2m, 1h or 7d";
        assert_eq!(refused("drain: soon", &[]), wanted);
        assert_eq!(refused("drain: 10", &[]), "node.yaml:1:1: drain: expected string, found integer");
        let wanted = "PERIGEE_LISTEN__HTTP: listen.http: expected an IP address and a port such as 127.0.0.1:4122";
        assert_eq!(refused("", &[("PERIGEE_LISTEN__HTTP", "4122")]), wanted);
        let wanted = "PERIGEE_LIMITS__DEPTH: limits.depth: expected non-negative integer, found string";
        assert_eq!(refused("", &[("PERIGEE_LIMITS__DEPTH", "deep")]), wanted);
        let wanted = "node.yaml:1:12: services.0: service crd is not known; did you mean crud? \
                      known: gateway, auth-rules, crud, functions, realtime, storage";
        assert_eq!(refused("services: [crd]", &[]), wanted);
        assert!(refused("a: [", &[]).starts_with("node.yaml:"));
        assert!(refused("- 1", &[]).ends_with("expected mapping, found list"));
        assert!(refused("a: 1\n---\nb: 2", &[]).ends_with("expected one document, found 2"));
    }

    #[test]
    fn limits_that_no_request_or_no_message_fits_are_refused() {
        for name in ["depth", "filter_depth", "nodes", "statements", "list_items", "values"] {
            let fault = refused(&format!("limits: {{ {name}: 0 }}"), &[]);
            assert!(fault.contains(&format!("limits.{name}: must be ")), "{fault}");
        }
        assert!(refused("limits: { depth: 31 }", &[]).ends_with("limits.depth: must be from 1 to 30"));
        assert!(refused("limits: { filter_depth: 17 }", &[]).ends_with("limits.filter_depth: must be from 1 to 16"));
        assert!(parse("limits: { depth: 30, filter_depth: 16 }", &[]).is_ok());
    }

    #[test]
    fn a_secret_may_stand_in_a_file_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let (config, key) = (folder.path().join("node.yaml"), folder.path().join("key"));
        fs::write(&config, "mesh_key: ${file:key}").unwrap();
        let unread = Node::load(Some(&config), []).unwrap_err().to_string();
        let expected = "mesh_key: the file key cannot be read: No such file or directory (os error 2)";
        assert!(unread.contains("node.yaml:1:") && unread.ends_with(expected), "{unread}");
        fs::write(&key, "hush\n").unwrap();
        assert_eq!(Node::load(Some(&config), []).unwrap().grant_secret(), b"hush");

        let reference = format!("${{file:{}}}", key.display());
        let node = parse("mesh_key: ${file:no/such}", &[("PERIGEE_MESH_KEY", &reference)]).unwrap();
        assert_eq!(node.grant_secret(), b"hush");
        let wrong = refused("", &[("PERIGEE_MESH_KEY", "${file:no/such}")]);
        assert!(wrong.starts_with("PERIGEE_MESH_KEY: mesh_key: the file no/such cannot be read: "), "{wrong}");
        fs::write(&key, "\n").unwrap();
        assert!(refused("", &[("PERIGEE_MESH_KEY", &reference)]).ends_with("mesh_key: must not be empty"));
    }

    #[test]
    fn peers_are_base_urls_without_tls() {
        for url in ["crud:4130", "http://", "http://a/x", "ftp://a", "http://u@a:1", "https://a:1"] {
            let fault = refused(&format!("peers:\n  crud: ['{url}']"), &[]);
            assert!(fault.starts_with("node.yaml:2:10: peers.crud.0: expected "), "{fault}");
        }
        assert!(refused("peers: { crud: [] }", &[]).contains("must not be empty"));
        assert!(
            refused("peers: { gateway: ['http://a:1'] }", &[]).contains("not allowed: no service calls the gateway")
        );
        assert!(refused("peers: { nowhere: ['http://a:1'] }", &[]).contains("nowhere is not known"));
    }

    #[test]
    fn another_kind_replaces_the_default_one_with_its_keys() {
        let fault = refused("bus: { kind: rabbit, url: 'amqp://a' }", &[]);
        assert!(fault.starts_with("node.yaml:1:8: bus.kind: value rabbit is not known; "), "{fault}");
        assert!(fault.ends_with("known: memory, nats"), "{fault}");
        let fault = refused("bus: { kind: memory, url: 'nats://a' }", &[]);
        assert!(fault.contains("bus.url: key url is not known"), "{fault}");
    }

    fn nats(text: &str, variables: &[(&str, &str)]) -> Box<NatsBus> {
        match parse(text, variables).unwrap().bus {
            BusConfig::Nats(nats) => nats,
            BusConfig::Memory {} => panic!("another bus was asked for"),
        }
    }

    #[test]
    fn a_bus_of_nats_has_an_address_and_limits() {
        let bus = nats("bus: { kind: nats, url: 'nats://a, tls://b:4223' }", &[]);
        assert_eq!(bus.urls().collect::<Vec<_>>(), ["nats://a", "tls://b:4223"]);
        assert_eq!((bus.changes_bytes, bus.changes_age), (64 << 20, Duration::from_secs(600)));
        // Variables come in the order of their names; a kind comes first all the same.
        let variables = [
            ("PERIGEE_BUS__CHANGES_BYTES", "1048576"),
            ("PERIGEE_BUS__KIND", "nats"),
            ("PERIGEE_BUS__PASSWORD", "hush"),
            ("PERIGEE_BUS__URL", "nats://a:4222"),
            ("PERIGEE_BUS__USER", "7"),
        ];
        let bus = nats("", &variables);
        assert_eq!((bus.changes_bytes, bus.user.as_deref()), (1 << 20, Some("7")));
        assert_eq!(bus.password, Some(Secret("hush".to_owned())));
        assert!(!format!("{bus:?}").contains("hush"));
    }

    #[test]
    fn faults_of_a_bus_name_their_field() {
        let wrong = |fields: &str| refused(&format!("bus: {{ kind: nats, {fields} }}"), &[]);
        for (fields, expected) in [
            ("", "bus.url: must be set, such as nats://nats:4222"),
            ("url: 'http://a'", "bus.url: expected nats:// or tls:// and a host, found scheme http"),
            ("url: 'nats://u:p@a'", "bus.url: no user and password are allowed in it; set bus.user and bus.password"),
            ("url: 'nats://a/x'", "bus.url: no path is allowed after the host"),
            ("url: 'nats://a:b'", "bus.url: expected nats:// or tls:// and a host: invalid port number"),
            ("url: 'nats://a', user: u", "bus.password: must be set where bus.user is"),
            ("url: 'nats://a', password: u", "bus.user: must be set where bus.password is"),
            ("url: 'nats://a', token: t, user: u, password: p", "bus.token: not allowed beside bus.user"),
            ("url: 'nats://a', token: ''", "bus.token: must not be empty"),
            ("url: 'nats://a', credentials: /nowhere", "bus.credentials: the file /nowhere cannot be read: "),
            ("url: 'tls://a', ca: /nowhere", "bus.ca: the file /nowhere cannot be read: "),
            ("url: 'tls://a', certificate: /nowhere", "bus.key: must be set where bus.certificate is"),
            ("url: 'nats://a', changes_bytes: 5", "bus.changes_bytes: must be at least 1048576"),
            ("url: 'nats://a', changes_age: 10s", "bus.changes_age: must be at least 60s"),
            ("url: 'nats://a', tokn: t", "bus.tokn: key tokn is not known; did you mean token?"),
        ] {
            let fault = wrong(fields);
            assert!(fault.contains(expected), "{fields}: {fault}");
            assert!(!fault.contains("u:p"), "{fault}");
        }
    }

    #[test]
    fn networks_are_checked() {
        let allowed = parse("egress: { allow: [10.2.0.0/16] }", &[]).unwrap().egress;
        assert!(allowed.allows([10, 2, 0, 1].into()) && !Node::default().egress.allows([10, 2, 0, 1].into()));
        let fault = refused("egress: { allow: [10.2.0.0/33] }", &[]);
        assert!(fault.starts_with("node.yaml:1:") && fault.contains("egress.allow.0: expected a network"), "{fault}");
    }

    #[test]
    fn a_secret_is_not_shown() {
        let node = parse("mesh_key: hush", &[]).unwrap();
        assert!(!format!("{node:?}").contains("hush"));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let fault = Node::load(Some(Path::new("/nowhere/node.yaml")), []).unwrap_err().to_string();
        assert!(fault.starts_with("/nowhere/node.yaml: cannot be read: "), "{fault}");
    }

    #[test]
    fn durations_have_a_number_and_a_unit() {
        assert_eq!(duration("1.5s").ok(), Some(Duration::from_millis(1500)));
        assert_eq!(duration("7d").ok(), Some(Duration::from_secs(604_800)));
        for text in ["", "5", "s", "-1s", "1e9s", "5 parsecs", "inf s", "1..5s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
