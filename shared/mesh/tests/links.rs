//! Calls between services, near and far: alike where they work, and with the same codes where they do not.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use mesh::{
    Call, Code, Component, ComponentState, Fault, Mesh, Tasks,
    config::{Node, ServiceName},
};
use proto::{
    Links,
    crud::{
        ChangesRequest, ChangesResponse, Database, DescribeRequest, DescribeResponse, LogRequest, LogResponse,
        ReadRequest, ReadResponse, WriteRequest, WriteResponse,
    },
    link::Messages,
    services::crud::{CRUD, crud_server::Crud, host},
};
use tokio::{net::TcpListener, sync::Notify, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Answers every call with its own name, the request's id and trace; what it does besides, the project's name says.
struct Fake {
    name: String,
    arrived: Arc<Notify>,
    go_on: Arc<Notify>,
}

/// The peer of crud at `url`.
fn component(url: &str) -> Component {
    Component::Peer { service: ServiceName::of(&CRUD), url: url.into() }
}

#[tonic::async_trait]
impl Crud for Fake {
    async fn read(&self, _: Request<ReadRequest>) -> Result<Response<ReadResponse>, Status> {
        Err(Fault::new(Code::UnknownTable, "table albun is not in the database").with("nearest", "album").into())
    }

    async fn write(&self, _: Request<WriteRequest>) -> Result<Response<WriteResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    type LogStream = Messages<LogResponse>;

    async fn log(&self, _: Request<LogRequest>) -> Result<Response<Messages<LogResponse>>, Status> {
        Err(Status::unimplemented("not here"))
    }

    type ChangesStream = Messages<ChangesResponse>;

    async fn changes(&self, _: Request<ChangesRequest>) -> Result<Response<Messages<ChangesResponse>>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn describe(&self, request: Request<DescribeRequest>) -> Result<Response<DescribeResponse>, Status> {
        let call = Call::current().expect("it is called");
        match request.into_inner().project.as_str() {
            "panics" => panic!("on purpose"),
            "never" => std::future::pending().await,
            "waits" => {
                self.arrived.notify_one();
                self.go_on.notified().await;
            }
            "large" => {
                let database = Database { error: "x".repeat(6 << 20), ..Database::default() };
                return Ok(Response::new(DescribeResponse { databases: vec![database] }));
            }
            _ => (),
        }
        let trace = call.traceparent.as_deref().unwrap_or_default().to_owned();
        let database = |id: &str, error: String| Database { id: id.to_owned(), error, ..Database::default() };
        let databases = vec![database(&self.name, call.request_id.to_string()), database("trace", trace)];
        Ok(Response::new(DescribeResponse { databases }))
    }
}

/// A node that runs [`Fake`] on a port.
struct Peer {
    address: SocketAddr,
    stop: CancellationToken,
    tasks: Tasks,
    arrived: Arc<Notify>,
    go_on: Arc<Notify>,
    mesh: Mesh,
}

impl Peer {
    async fn start(name: &str, address: SocketAddr, drain: Duration) -> Self {
        let listener = TcpListener::bind(address).await.expect("the port is free");
        let address = listener.local_addr().expect("it is bound");
        let (mesh, arrived, go_on) = near(name);
        let (tasks, stop) = (Tasks::default(), CancellationToken::new());
        let (served, stopped) = (mesh.clone(), stop.clone());
        tasks.spawn("peer", async move { served.serve(listener, served.routes(), stopped, drain).await });
        Self { address, stop, tasks, arrived, go_on, mesh }
    }

    async fn any(name: &str) -> Self {
        Self::start(name, ANY, Duration::ZERO).await
    }

    /// Ends it at once, with all its connections.
    async fn kill(self) -> SocketAddr {
        self.stop.cancel();
        self.tasks.finish().await;
        self.address
    }
}

fn near(name: &str) -> (Mesh, Arc<Notify>, Arc<Notify>) {
    let mesh = Mesh::new(&Node::default()).expect("no peers are named");
    let (arrived, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let fake = Fake { name: name.to_owned(), arrived: arrived.clone(), go_on: go_on.clone() };
    mesh.host(host(fake));
    (mesh, arrived, go_on)
}

fn far(addresses: &[SocketAddr]) -> Mesh {
    let urls = addresses.iter().map(|address| format!("http://{address}")).collect();
    let mut node = Node::default();
    node.peers.insert(ServiceName::of(&CRUD), urls);
    Mesh::new(&node).expect("the addresses are sound")
}

async fn describe(mesh: &Mesh, call: &Call, project: &str) -> Result<DescribeResponse, Fault> {
    let request = DescribeRequest { project: project.to_owned(), ..Default::default() };
    mesh.crud().describe(call, request).await.map_err(Fault::from)
}

/// Who answered.
async fn name(mesh: &Mesh) -> Result<String, Fault> {
    describe(mesh, &call(), "any").await.map(|answer| answer.databases[0].id.clone())
}

fn call() -> Call {
    Call::begin(Some("req-1"), Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), None)
}

/// Waits until `mesh` reaches somebody; how long that took.
async fn recovered(mesh: &Mesh) -> Duration {
    let began = Instant::now();
    while let Err(fault) = name(mesh).await {
        assert!(began.elapsed() < Duration::from_secs(20), "{fault}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    began.elapsed()
}

#[tokio::test]
async fn a_call_carries_identity_and_trace_near_and_far() {
    let peer = Peer::any("a").await;
    for mesh in [near("a").0, far(&[peer.address])] {
        let call = call();
        let answer = describe(&mesh, &call, "any").await.unwrap();
        assert_eq!((answer.databases[0].id.as_str(), answer.databases[0].error.as_str()), ("a", "req-1"));
        let (sent, arrived) = (call.traceparent.unwrap(), &answer.databases[1].error);
        assert_eq!(sent[..36], arrived[..36], "one trace");
        assert_ne!(sent[36..52], arrived[36..52], "a span of its own");
    }
}

#[tokio::test]
async fn each_node_of_a_service_can_be_called_by_itself() {
    let (one, other) = (Peer::any("one").await, Peer::any("other").await);
    let mut nodes = far(&[one.address, other.address]).nodes(&CRUD);
    while nodes.up().len() < 2 {
        nodes.changed().await;
    }
    let up = nodes.up();
    for (address, expected) in [(one.address, "one"), (other.address, "other")] {
        for _ in 0..3 {
            assert_eq!(name(&up[&Some(address)]).await.unwrap(), expected);
        }
    }
    let gone = one.kill().await;
    while nodes.up().len() > 1 {
        nodes.changed().await;
    }
    assert_eq!(name(&up[&Some(gone)]).await.unwrap_err().code, Code::Unavailable, "no other takes its calls");

    let mut nodes = near("a").0.nodes(&CRUD);
    assert_eq!(name(&nodes.up()[&None]).await.unwrap(), "a");
    assert!(timeout(Duration::from_millis(1), nodes.changed()).await.is_err(), "this process stays");
}

#[tokio::test]
async fn a_fault_arrives_as_it_was_sent_near_and_far() {
    let peer = Peer::any("a").await;
    for mesh in [near("a").0, far(&[peer.address])] {
        let fault = Fault::from(mesh.crud().read(&call(), ReadRequest::default()).await.unwrap_err());
        let sent = Fault::new(Code::UnknownTable, "table albun is not in the database").with("nearest", "album");
        assert_eq!(fault, sent);
        let fault = Fault::from(mesh.crud().write(&call(), WriteRequest::default()).await.unwrap_err());
        assert_eq!(fault.code, Code::Method);
    }
}

#[tokio::test]
async fn a_panic_is_internal_and_the_next_call_lives_near_and_far() {
    let peer = Peer::any("a").await;
    for mesh in [near("a").0, far(&[peer.address])] {
        let fault = describe(&mesh, &call(), "panics").await.unwrap_err();
        assert_eq!(fault, Fault::new(Code::Internal, "service crud failed"));
        assert_eq!(name(&mesh).await.unwrap(), "a");
    }
    let counted = r#"perigee_requests_total{service="crud",method="Describe",code="Internal"} 1"#;
    assert!(peer.mesh.metrics().render().contains(counted));
}

#[tokio::test]
async fn a_call_ends_with_its_deadline_near_and_far() {
    let peer = Peer::any("a").await;
    for mesh in [near("a").0, far(&[peer.address])] {
        name(&mesh).await.unwrap();
        let call = Call::begin(None, None, Some(Duration::from_millis(50)));
        let fault = describe(&mesh, &call, "never").await.unwrap_err();
        assert_eq!(fault, Fault::new(Code::Deadline, "service crud did not answer in time"));
        assert!(call.time_left().is_some_and(|left| left.is_zero()));
    }
}

#[tokio::test]
async fn a_large_answer_arrives_near_and_far() {
    let peer = Peer::any("a").await;
    for mesh in [near("a").0, far(&[peer.address])] {
        let answer = describe(&mesh, &call(), "large").await.unwrap();
        assert_eq!(answer.databases[0].error.len(), 6 << 20);
    }
}

#[tokio::test]
async fn services_that_are_not_open_yet_are_unavailable() {
    let mesh = Mesh::new(&Node::default()).unwrap();
    assert_eq!(name(&mesh).await.unwrap_err().code, Code::Unavailable);
    mesh.host(host(Fake { name: "late".to_owned(), arrived: Arc::default(), go_on: Arc::default() }));
    assert_eq!(name(&mesh).await.unwrap(), "late");
}

#[tokio::test]
async fn a_peer_that_is_down_is_unavailable_at_once_and_recovers_by_itself() {
    let address = Peer::any("a").await.kill().await;
    let peer_component = component(&format!("http://{address}"));
    let mesh = far(&[address]);
    let began = Instant::now();
    assert_eq!(name(&mesh).await, Err(Fault::new(Code::Unavailable, "service crud cannot be reached")));
    assert!(began.elapsed() < Duration::from_secs(1));
    assert!(
        matches!(mesh.health().get(&peer_component), Some(ComponentState::Failing(why)) if why.contains("refused"))
    );

    for turn in 0..3 {
        let peer = Peer::start("a", address, Duration::ZERO).await;
        assert!(recovered(&mesh).await < Duration::from_secs(1), "turn {turn}");
        assert_eq!(mesh.health().get(&peer_component), Some(ComponentState::Ready));
        peer.kill().await;
        let began = Instant::now();
        assert_eq!(name(&mesh).await.unwrap_err().code, Code::Unavailable);
        assert!(began.elapsed() < Duration::from_secs(1));
    }
}

#[tokio::test]
async fn the_first_call_goes_to_the_peer_that_is_up() {
    let down = Peer::any("down").await.kill().await;
    let up = Peer::any("up").await;
    let mesh = far(&[down, up.address]);
    let both_tried = async {
        let is_refused =
            |state: &ComponentState| matches!(state, ComponentState::Failing(why) if why.contains("refused"));
        while !mesh.health().components().values().all(|state| *state == ComponentState::Ready || is_refused(state)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(5), both_tried).await.unwrap();
    assert_eq!(name(&mesh).await.unwrap(), "up");
}

#[tokio::test]
async fn calls_are_spread_and_go_on_with_the_peer_that_is_left() {
    let (one, two) = (Peer::any("one").await, Peer::any("two").await);
    let mesh = far(&[one.address, two.address]);
    let both_up = async {
        while !mesh.health().components().values().all(|state| *state == ComponentState::Ready) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(5), both_up).await.unwrap();
    let mut names = Vec::new();
    for _ in 0..4 {
        names.push(name(&mesh).await.unwrap());
    }
    names.sort();
    assert_eq!(names, ["one", "one", "two", "two"]);

    one.kill().await;
    for _ in 0..20 {
        assert_eq!(name(&mesh).await.unwrap(), "two");
    }
}

#[tokio::test]
async fn a_call_under_way_when_its_peer_dies_is_unavailable() {
    let peer = Peer::any("a").await;
    let mesh = far(&[peer.address]);
    let arrived = peer.arrived.clone();
    let kill = async {
        arrived.notified().await;
        peer.kill().await;
    };
    let call = call();
    let (answer, _) = tokio::join!(describe(&mesh, &call, "waits"), kill);
    // It is sent once more, and then there is nobody.
    assert_eq!(answer.unwrap_err(), Fault::new(Code::Unavailable, "service crud cannot be reached"));
}

#[tokio::test]
async fn a_node_that_stops_answers_what_it_accepted() {
    let peer = Peer::start("a", ANY, Duration::from_secs(10)).await;
    let mesh = far(&[peer.address]);
    let stop = async {
        peer.arrived.notified().await;
        peer.stop.cancel();
        // Refused from now on: the listener is closed.
        while TcpListener::bind(peer.address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        peer.go_on.notify_one();
        peer.tasks.finish().await;
    };
    let call = call();
    let both = async { tokio::join!(describe(&mesh, &call, "waits"), stop) };
    let (answer, ()) = timeout(Duration::from_secs(20), both).await.unwrap();
    assert_eq!(answer.unwrap().databases[0].id, "a");
}

#[tokio::test]
async fn a_name_that_nobody_knows_is_unavailable_and_reported_as_failing() {
    let mut node = Node::default();
    node.peers.insert(ServiceName::of(&CRUD), vec!["http://nobody.invalid:4130".to_owned()]);
    let mesh = Mesh::new(&node).unwrap();
    assert_eq!(name(&mesh).await.unwrap_err().code, Code::Unavailable);
    let state = mesh.health().get(&component("http://nobody.invalid:4130"));
    assert!(matches!(state, Some(ComponentState::Failing(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_given_up_do_not_cost_the_connection() {
    let peer = Peer::any("a").await;
    let mesh = far(&[peer.address]);
    name(&mesh).await.unwrap();
    for _ in 0..20 {
        let calls = (0..100).map(|_| async {
            let call = Call::begin(None, None, Some(Duration::from_millis(5)));
            describe(&mesh, &call, "never").await.unwrap_err().code
        });
        for code in futures::future::join_all(calls).await {
            assert_eq!(code, Code::Deadline);
        }
    }
    assert_eq!(name(&mesh).await.unwrap(), "a");
}
