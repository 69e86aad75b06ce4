//! A service of its own, near and far: its links are generated, and both ways behave alike.

use std::{
    net::SocketAddr,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use mesh::{
    Call, Code, Fault, Mesh,
    config::{Node, ServiceName},
};
use proto::carried::MESSAGE_BYTES;
use tests::{
    echo::Echo,
    services::{
        self, Links,
        echo::{ECHO, host},
    },
    wire::echo::v1::{RepeatRequest, SayRequest, SayResponse},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// The service by one of its ways.
struct Way {
    name: &'static str,
    mesh: Mesh,
    echo: Echo,
    /// The mesh of the node that answers.
    server: Mesh,
    _stop: tokio_util::sync::DropGuard,
}

async fn ways() -> [Way; 2] {
    [way("near").await, way("far").await]
}

async fn way(name: &'static str) -> Way {
    let echo = Echo::default();
    let server = Mesh::of(&Node::default(), &services::ALL).expect("no peers are named");
    server.host(host(echo.clone()));
    let stop = CancellationToken::new();
    let mesh = match name {
        "near" => server.clone(),
        _ => far(&server, stop.clone()).await,
    };
    Way { name, mesh, echo, server, _stop: stop.drop_guard() }
}

/// A mesh whose peer is `server`, on a port.
async fn far(server: &Mesh, stop: CancellationToken) -> Mesh {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let (served, routes) = (server.clone(), server.routes());
    tokio::spawn(async move { served.serve(listener, routes, stop, Duration::ZERO).await });
    let mut node = Node::default();
    node.peers.insert(ServiceName::of(&ECHO), vec![format!("http://{address}")]);
    Mesh::of(&node, &services::ALL).expect("the address is sound")
}

fn call() -> Call {
    Call::begin(Some("req-1"), None, Some(Duration::from_secs(20)))
}

fn request(text: &str) -> SayRequest {
    SayRequest { text: text.to_owned() }
}

fn requests(texts: &[&str]) -> proto::link::Sent<SayRequest> {
    let texts: Vec<SayRequest> = texts.iter().map(|text| request(text)).collect();
    stream::iter(texts).boxed()
}

async fn say(way: &Way, text: &str) -> Result<SayResponse, Fault> {
    way.mesh.echo().say(&call(), request(text)).await.map_err(Fault::from)
}

async fn repeat(way: &Way, call: &Call, text: &str, times: u32) -> Vec<Result<String, Code>> {
    let messages = way.mesh.echo().repeat(call, RepeatRequest { text: text.to_owned(), times }).await;
    messages.expect("it begins").map(text_or_code).collect().await
}

fn text_or_code(message: Result<SayResponse, Status>) -> Result<String, Code> {
    message.map(|message| format!("{} {}", message.request_id, message.text)).map_err(|status| Fault::from(status).code)
}

/// Waits until the node that answers has counted a call of `method` with `code`.
async fn counted(way: &Way, method: &str, code: &str) {
    let line = format!(r#"perigee_requests_total{{service="echo",method="{method}",code="{code}"}} 1"#);
    let began = Instant::now();
    while !way.server.metrics().render().lines().any(|have| have == line) {
        assert!(began.elapsed() < Duration::from_secs(10), "{}: {line}\n{}", way.name, way.server.metrics().render());
        tokio::task::yield_now().await;
    }
}

/// Waits until the service works on nothing any more.
async fn idle(way: &Way) {
    let began = Instant::now();
    while way.echo.open.load(Ordering::SeqCst) > 0 {
        assert!(began.elapsed() < Duration::from_secs(10), "{}", way.name);
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn every_kind_of_rpc_is_answered() {
    for way in ways().await {
        let answer = say(&way, "hello").await.unwrap();
        assert_eq!((answer.text.as_str(), answer.request_id.as_str()), ("hello", "req-1"), "{}", way.name);
        let expected: Vec<_> = ["req-1 0", "req-1 1", "req-1 end"].map(|text| Ok(text.to_owned())).into();
        assert_eq!(repeat(&way, &call(), "end", 2).await, expected, "{}", way.name);
        let call = call();
        let joined = way.mesh.echo().join(&call, requests(&["a", "b", "c"])).await.unwrap();
        assert_eq!((joined.text.as_str(), joined.request_id.as_str()), ("a b c", "req-1"), "{}", way.name);
        let talk = way.mesh.echo().talk(&call, requests(&["a", "b"])).await.unwrap();
        let told: Vec<_> = talk.map(text_or_code).collect().await;
        assert_eq!(told, [Ok("req-1 a".to_owned()), Ok("req-1 b".to_owned())], "{}", way.name);
        for method in ["Say", "Repeat", "Join", "Talk"] {
            counted(&way, method, "Ok").await;
        }
    }
}

#[tokio::test]
async fn what_is_not_answered_in_time_is_late() {
    for way in ways().await {
        say(&way, "connected").await.unwrap();
        let call = Call::begin(None, None, Some(Duration::from_millis(100)));
        let late = way.mesh.echo().tell(&call, request("hang")).await.map_err(Fault::from).unwrap_err();
        assert_eq!(late, Fault::new(Code::Deadline, "service echo did not answer in time"), "{}", way.name);
        let call = Call::begin(Some("r"), None, Some(Duration::from_millis(100)));
        assert_eq!(repeat(&way, &call, "hang", 1).await, [Ok("r 0".to_owned()), Err(Code::Deadline)], "{}", way.name);
        idle(&way).await;
    }
}

#[tokio::test]
async fn what_nobody_waits_for_ends() {
    for way in ways().await {
        say(&way, "connected").await.unwrap();
        let call = call();
        let asked =
            tokio::time::timeout(Duration::from_millis(100), way.mesh.echo().tell(&call, request("hang"))).await;
        assert!(asked.is_err(), "{}", way.name);
        let mut messages =
            way.mesh.echo().repeat(&call, RepeatRequest { text: "hang".to_owned(), times: 1 }).await.unwrap();
        assert_eq!(messages.next().await.map(text_or_code), Some(Ok("req-1 0".to_owned())), "{}", way.name);
        drop(messages);
        idle(&way).await;
        counted(&way, "Tell", "Cancelled").await;
        counted(&way, "Repeat", "Cancelled").await;
    }
}

#[tokio::test]
async fn a_panic_is_internal_and_the_next_call_lives() {
    for way in ways().await {
        let fault = say(&way, "panic").await.unwrap_err();
        assert_eq!(fault, Fault::new(Code::Internal, "service echo failed"), "{}", way.name);
        counted(&way, "Say", "Internal").await;
        let told = repeat(&way, &call(), "panic", 1).await;
        assert_eq!(told, [Ok("req-1 0".to_owned()), Err(Code::Internal)], "{}", way.name);
        counted(&way, "Repeat", "Internal").await;
        assert_eq!(say(&way, "hello").await.unwrap().text, "hello", "{}", way.name);
    }
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_and_one_at_it_passes() {
    for way in ways().await {
        // A tag and a length of four bytes, twice: the text, and the id.
        let most = MESSAGE_BYTES - 5 - 7;
        let answer = say(&way, &format!("large {most}")).await.unwrap();
        assert_eq!(answer.text.len(), most, "{}", way.name);
        let fault = say(&way, &format!("large {}", most + 1)).await.unwrap_err();
        assert_eq!(fault.code, Code::TooLarge, "{}: {fault}", way.name);
        assert!(fault.message.contains(&format!("the limit is: {MESSAGE_BYTES} bytes")), "{}: {fault}", way.name);
        let fault = say(&way, &"x".repeat(MESSAGE_BYTES)).await.unwrap_err();
        assert_eq!(fault.code, Code::TooLarge, "{}: {fault}", way.name);
        let told = repeat(&way, &call(), &format!("large {}", most + 1), 1).await;
        assert_eq!(told, [Ok("req-1 0".to_owned()), Err(Code::TooLarge)], "{}", way.name);
    }
}

#[tokio::test]
async fn only_a_far_call_that_may_be_repeated_is_sent_once_more() {
    for (way, says) in ways().await.into_iter().zip([1, 2]) {
        assert_eq!(say(&way, "gone").await.unwrap_err().code, Code::Unavailable);
        assert_eq!(way.echo.heard.swap(0, Ordering::SeqCst), says, "{}", way.name);
        let told = way.mesh.echo().tell(&call(), request("gone")).await;
        assert_eq!(Fault::from(told.unwrap_err()).code, Code::Unavailable);
        assert_eq!(way.echo.heard.swap(0, Ordering::SeqCst), 1, "{}", way.name);
        assert_eq!(say(&way, "panic").await.unwrap_err().code, Code::Internal);
        assert_eq!(way.echo.heard.load(Ordering::SeqCst), 1, "{}: a panic is not repeated", way.name);
    }
}

#[tokio::test]
async fn retries_stay_a_part_of_all_calls() {
    let way = way("far").await;
    for _ in 0..400 {
        assert_eq!(say(&way, "gone").await.unwrap_err().code, Code::Unavailable);
    }
    let heard = way.echo.heard.load(Ordering::SeqCst);
    assert!((401..700).contains(&heard), "{heard} calls for 400");
}
