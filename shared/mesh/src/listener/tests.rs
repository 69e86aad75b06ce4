use http_body_util::Full;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    task::JoinHandle,
};

use super::*;

const SHORT: Option<Duration> = Some(Duration::from_millis(20));
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

struct Port {
    address: SocketAddr,
    settings: Settings,
    stop: CancellationToken,
    server: JoinHandle<()>,
}

impl Port {
    /// Answers every request with `bytes` of zeros.
    async fn open(bytes: usize, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings {
            connections: 100,
            streams: 10,
            stream_window: 1 << 16,
            connection_window: 1 << 16,
            send_buffer: 1 << 16,
            unsent: Some(1 << 16),
            ping: Duration::from_secs(30),
            pong: Duration::from_secs(30),
            resets: None,
            timeouts: Timeouts::default(),
            notice: Duration::ZERO,
            open: Gauge::default(),
            shed: Counter::default(),
        };
        change(&mut settings);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let stop = CancellationToken::new();
        let zeros = Bytes::from(vec![0; bytes]);
        let service = move |_: &Arc<Connection>| {
            let zeros = zeros.clone();
            move |_| {
                let zeros = zeros.clone();
                async move { Response::new(Full::new(zeros)) }
            }
        };
        let serving = serve(listener, settings.clone(), service, stop.clone(), Duration::ZERO);
        Self { address, settings, stop, server: tokio::spawn(serving) }
    }

    /// A connection that sends `bytes` at first.
    async fn connect(&self, bytes: &[u8]) -> TcpStream {
        let mut socket = TcpStream::connect(self.address).await.expect("the port is open");
        socket.write_all(bytes).await.expect("the connection is open");
        socket
    }

    async fn close(self) {
        self.stop.cancel();
        self.server.await.expect("the server ends in order");
        assert_eq!(self.settings.open.get(), 0, "every connection is counted down");
    }
}

/// What comes until the server closes the connection; with bytes unread it resets it.
async fn rest(socket: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    let _ = socket.read_to_end(&mut rest).await;
    rest
}

#[tokio::test]
async fn a_connection_without_a_first_byte_is_closed() {
    let port = Port::open(1, |settings| settings.timeouts.first = SHORT).await;
    assert_eq!(rest(&mut port.connect(b"").await).await, b"");
    port.close().await;
}

#[tokio::test]
async fn a_head_that_does_not_end_closes_its_connection() {
    let port = Port::open(1, |settings| settings.timeouts.head = SHORT).await;
    assert_eq!(rest(&mut port.connect(b"G").await).await, b"");
    assert_eq!(rest(&mut port.connect(b"GET / HTTP/1.1\r\nho").await).await, b"");
    port.close().await;
}

#[tokio::test]
async fn a_head_that_does_not_end_closes_a_connection_that_was_used() {
    let port = Port::open(1, |settings| {
        settings.timeouts.head = SHORT;
        settings.timeouts.idle = Some(Duration::from_secs(3600));
    })
    .await;
    let mut socket = port.connect(REQUEST).await;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\0") {
        assert_ne!(socket.read_buf(&mut answer).await.expect("the connection is open"), 0);
    }
    // Bytes that come before the connection is seen idle count as its past: the client goes on sending.
    while socket.write_all(b"G").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    port.close().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_answer() {
    let port = Port::open(1, |settings| settings.timeouts.idle = SHORT).await;
    let answer = rest(&mut port.connect(REQUEST).await).await;
    assert!(answer.starts_with(b"HTTP/1.1 200 OK"), "{}", String::from_utf8_lossy(&answer));
    port.close().await;
}

#[tokio::test]
async fn an_http2_connection_without_streams_is_told_to_go() {
    let port = Port::open(1, |settings| settings.timeouts.idle = SHORT).await;
    let mut socket = port.connect(PREFACE).await;
    let mut head = [0; 9];
    // The kind of a frame is its fourth byte, and GOAWAY is 7.
    while head[3] != 7 {
        socket.read_exact(&mut head).await.expect("a GOAWAY frame comes before the end");
        let mut body = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        socket.read_exact(&mut body).await.expect("frames are whole");
    }
    port.close().await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_loses_its_connection() {
    let port = Port::open(64 << 20, |settings| settings.timeouts.write = SHORT).await;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let mut socket = socket.connect(port.address).await.expect("the port is open");
    socket.write_all(REQUEST).await.expect("the connection is open");
    while port.settings.open.get() == 0 {
        tokio::task::yield_now().await;
    }
    while port.settings.open.get() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // What the system still holds is dropped as well, not sent at the client's leisure.
    let end = socket.read_to_end(&mut Vec::new()).await.expect_err("the answer is not whole");
    assert_eq!(end.kind(), io::ErrorKind::ConnectionReset);
    port.close().await;
}

#[tokio::test]
async fn one_connection_too_many_is_closed_at_once() {
    let port = Port::open(1, |settings| settings.connections = 1).await;
    let mut first = port.connect(REQUEST).await;
    assert_ne!(first.read(&mut [0; 100]).await.expect("it is answered"), 0);
    assert_eq!(rest(&mut TcpStream::connect(port.address).await.expect("it is accepted")).await, b"");
    assert_eq!(port.settings.shed.get(), 1);
    assert_eq!(port.settings.open.get(), 1);
    drop(first);
    while port.settings.open.get() > 0 {
        tokio::task::yield_now().await;
    }
    assert_ne!(port.connect(REQUEST).await.read(&mut [0; 100]).await.expect("it is answered"), 0);
    port.close().await;
}

#[tokio::test]
async fn a_connection_can_be_cut() {
    let connection = Connection::new(([127, 0, 0, 1], 1).into());
    assert!(!connection.is_cut());
    connection.cut();
    assert!(connection.is_cut());
}

#[tokio::test]
async fn a_client_of_http2_is_told_the_limits_of_the_port() {
    let port = Port::open(1, |settings| (settings.streams, settings.stream_window) = (7, 1 << 17)).await;
    let mut socket = port.connect(PREFACE).await;
    let mut head = [0; 9];
    socket.read_exact(&mut head).await.expect("the server has settings");
    // The kind of a frame is its fourth byte, and SETTINGS is 4.
    assert_eq!(head[3], 4);
    let mut body = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    socket.read_exact(&mut body).await.expect("frames are whole");
    let setting = |id: u16| {
        let entry = body.chunks_exact(6).find(|entry| entry[..2] == id.to_be_bytes())?;
        Some(u32::from_be_bytes([entry[2], entry[3], entry[4], entry[5]]))
    };
    // SETTINGS_MAX_CONCURRENT_STREAMS and SETTINGS_INITIAL_WINDOW_SIZE.
    assert_eq!((setting(3), setting(4)), (Some(7), Some(1 << 17)));
    port.close().await;
}

#[tokio::test]
async fn answers_do_not_wait_for_the_system() {
    let port = Port::open(1, |_| {}).await;
    let socket = port.connect(b"").await;
    Server::new(port.settings.clone()).prepare(&socket);
    assert!(socket.nodelay().expect("the socket is open"));
    #[cfg(target_os = "linux")]
    assert_eq!(SockRef::from(&socket).tcp_notsent_lowat().expect("the socket is open"), 1 << 16);
    drop(socket);
    port.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_to_accept_is_waited_out_unless_it_is_the_clients() {
    for (kind, pause) in [
        (io::ErrorKind::ConnectionReset, Duration::ZERO),
        (io::ErrorKind::ConnectionAborted, Duration::ZERO),
        (io::ErrorKind::ConnectionRefused, Duration::ZERO),
        (io::ErrorKind::Other, ACCEPT_RETRY_INTERVAL),
    ] {
        let began = tokio::time::Instant::now();
        not_accepted(&kind.into()).await;
        assert_eq!(began.elapsed(), pause, "{kind}");
    }
}

#[test]
fn connections_are_looked_at_several_times_within_the_shortest_timeout() {
    let millis = |millis| Some(Duration::from_millis(millis));
    for (timeouts, expected) in [
        (Timeouts { first: millis(400), idle: millis(2000), ..Timeouts::default() }, 100),
        (Timeouts { write: millis(60_000), ..Timeouts::default() }, 1000),
        (Timeouts { head: millis(2), ..Timeouts::default() }, 1),
        (Timeouts::default(), 250),
    ] {
        assert_eq!(timeouts.check_interval(), Duration::from_millis(expected), "{timeouts:?}");
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_system_gives_up_a_host_that_is_gone_after_the_write_timeout() {
    for write in [None, Some(Duration::from_secs(30))] {
        let port = Port::open(1, |settings| settings.timeouts.write = write).await;
        let socket = TcpStream::connect(port.address).await.expect("the port is open");
        Server::new(port.settings.clone()).prepare(&socket);
        assert_eq!(SockRef::from(&socket).tcp_user_timeout().expect("Linux tells it"), write);
    }
}
