//! Nodes started in this process.

use std::{net::SocketAddr, path::Path, process::Command};

use mesh::config::{self, ServiceName};
use perigee::node::{Mode, Node};

const CHINOOK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/chinook");

/// A configuration on free ports with the example's resources.
fn config(services: &[ServiceName], data: &Path) -> config::Node {
    let mut config = config::Node { services: services.to_vec(), data: data.to_owned(), ..config::Node::default() };
    config.listen.http = SocketAddr::from(([127, 0, 0, 1], 0));
    config.listen.mesh = SocketAddr::from(([127, 0, 0, 1], 0));
    config.resources = config::Resources::Folder { path: CHINOOK.into() };
    config
}

/// All but the gateway.
fn others() -> Vec<ServiceName> {
    ServiceName::all().into_iter().filter(|service| *service != ServiceName::GATEWAY).collect()
}

async fn is_healthy(address: SocketAddr) -> bool {
    let health = move || Command::new(env!("CARGO_BIN_EXE_perigee")).args(["health", &address.to_string()]).status();
    tokio::task::spawn_blocking(health).await.expect("no panic").expect("the binary runs").success()
}

async fn first_artist(address: SocketAddr) -> String {
    let url = format!("http://{address}/v1/api/shop/graphql");
    let body = r#"{"query": "{ artist(limit: 1, sort: [artist_id_asc]) { name } }"}"#;
    let mut curl = Command::new("curl");
    curl.args(["-s", &url, "-H", "content-type: application/json", "-d", body]);
    let output = tokio::task::spawn_blocking(move || curl.output()).await.expect("no panic").expect("curl runs");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_gateway_tells_how_it_is_on_its_mesh_port() {
    let data = tempfile::tempdir().expect("a temporary folder");
    let node = Node::start(config(&others(), data.path()), Mode::Serve).await.expect("starts");
    let address = node.peer.expect("a mesh port");

    assert_eq!(node.http, None);
    assert!(is_healthy(address).await);

    node.drain().await;
    assert!(!is_healthy(address).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_serves_what_its_peers_hold() {
    let (near, far) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let services = others();
    let peer = Node::start(config(&services, far.path()), Mode::Serve).await.expect("starts");
    let url = format!("http://{}", peer.peer.expect("a mesh port"));
    let mut gateway = config(&[ServiceName::GATEWAY], near.path());
    gateway.peers = services.into_iter().map(|service| (service, vec![url.clone()])).collect();

    let gateway = Node::start(gateway, Mode::Serve).await.expect("starts");

    let address = gateway.http.expect("an HTTP port");
    assert_eq!(first_artist(address).await, r#"{"data":{"artist":[{"name":"AC/DC"}]}}"#);
    gateway.drain().await;
    peer.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_nobody_stands_behind_does_not_start() {
    let data = tempfile::tempdir().expect("a temporary folder");

    let failure =
        Node::start(config(&[ServiceName::GATEWAY], data.path()), Mode::Serve).await.err().expect("does not start");

    assert!(failure.to_string().contains("auth-rules and crud and realtime,"), "{failure}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_without_storage_serves_all_but_files() {
    let (data, folder) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let documents = "kind: project\nmeta: { id: none }\n---\nkind: project\nmeta: { id: shop }\n---\n\
                     kind: bucket\nmeta: { project: shop, id: files }\n\
                     spec: { rules: [{ prefix: /, read: { rule: allow } }] }\n";
    std::fs::write(folder.path().join("a.yaml"), documents).expect("written");
    let services: Vec<ServiceName> =
        ServiceName::all().into_iter().filter(|service| service.as_str() != "storage").collect();
    let mut config = config(&services, data.path());
    config.resources = config::Resources::Folder { path: folder.path().to_owned() };

    let node = Node::start(config, Mode::Serve).await.expect("starts");

    let address = node.http.expect("an HTTP port");
    for (project, code) in [("none", "UNKNOWN_BUCKET"), ("shop", "UNAVAILABLE")] {
        let mut curl = Command::new("curl");
        curl.args(["-s", &format!("http://{address}/v1/api/{project}/files/a")]);
        let output = tokio::task::spawn_blocking(move || curl.output()).await.expect("no panic").expect("curl runs");
        let answer = String::from_utf8(output.stdout).expect("UTF-8");
        assert!(answer.contains(&format!("\"code\":\"{code}\"")), "{project}: {answer}");
    }
    node.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_a_faulty_folder_does_not_start() {
    let data = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(data.path().join("a.yaml"), "kind: project\nmeta: { id: shop }\nspec: { nmae: x }\n")
        .expect("written");
    let mut config = config(&ServiceName::all(), data.path());
    config.resources = config::Resources::Folder { path: data.path().to_owned() };

    let failure = Node::start(config, Mode::Serve).await.err().expect("does not start");

    assert!(failure.to_string().contains("a.yaml:3:"), "{failure}");
    assert_eq!(failure.code(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mesh_port_off_loopback_needs_a_key() {
    let data = tempfile::tempdir().expect("a temporary folder");
    let mut config = config(&others(), data.path());
    config.listen.mesh = SocketAddr::from(([0, 0, 0, 0], 0));

    Node::start(config.clone(), Mode::Serve).await.err().expect("it has no key");

    config.mesh_key = Some(config::Secret("a secret".to_owned()));
    Node::start(config.clone(), Mode::Serve).await.expect("starts").drain().await;
    config.mesh_key = None;
    config.services = ServiceName::all();
    let node = Node::start(config, Mode::Dev).await.expect("no mesh port is opened in development");
    assert_eq!(node.peer, None);
}
