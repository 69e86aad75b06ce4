//! The connection to a gRPC server: made when a call needs it, and anew when it has ended. The addresses of the server are
//! looked up and checked each time, and one that passed is dialled.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use futures::{FutureExt, future::BoxFuture};
use http::{Request, Response, header::CONTENT_TYPE};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use mesh::Tasks;
use query::function::GrpcUrl;
use rustls::{client::danger::ServerCertVerifier, crypto::CryptoProvider, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::Mutex,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tonic::body::Body;
use tower::Service;

use crate::client::{CONNECT_TIMEOUT, CheckedAddresses, SendError};

/// Interval of pings while calls run; a server that answers none within the time-out is given up.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes in flight of one answer.
const STREAM_WINDOW: u32 = 256 << 10;
/// Of all answers together, as many as HTTP/2 knows: streams that nobody takes leave room to others, and their number is bounded.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;
/// The least time that one of several addresses gets.
const ADDRESS_TIMEOUT: Duration = Duration::from_millis(250);
/// Bytes of the headers and trailers of an answer.
const HEADER_BYTES: u32 = 64 << 10;

/// A stream of bytes, with TLS or without.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// How the server is reached. Clones are the same.
#[derive(Clone)]
pub struct Connection(Arc<ServerConnection>);

struct ServerConnection {
    url: GrpcUrl,
    addresses: CheckedAddresses,
    /// `None` without TLS; else the client of it, or why there is none.
    tls: Option<Result<TlsConnector, String>>,
    sender: ArcSwapOption<SendRequest<Body>>,
    /// Held by the attempt to connect: when the last one failed, and why.
    connecting: Mutex<Option<(Instant, SendError)>>,
    tasks: Tasks,
}

impl Connection {
    /// None yet.
    pub fn new(url: GrpcUrl, addresses: CheckedAddresses, tasks: Tasks) -> Self {
        let tls = url.is_tls().then(|| tls(rustls_platform_verifier::Verifier::new));
        Self::with_tls(url, addresses, tls, tasks)
    }

    fn with_tls(
        url: GrpcUrl,
        addresses: CheckedAddresses,
        tls: Option<Result<TlsConnector, String>>,
        tasks: Tasks,
    ) -> Self {
        Self(Arc::new(ServerConnection {
            url,
            addresses,
            tls,
            sender: ArcSwapOption::empty(),
            connecting: Mutex::default(),
            tasks,
        }))
    }

    /// The sender of requests. One attempt to connect serves all who wait for it. Cancel-safe.
    async fn sender(&self) -> Result<SendRequest<Body>, SendError> {
        if let Some(sender) = self.open() {
            return Ok(sender);
        }
        let began = Instant::now();
        let mut last = self.0.connecting.lock().await;
        if let Some(sender) = self.open() {
            return Ok(sender);
        }
        if let Some((_, error)) = last.as_ref().filter(|(failed, _)| *failed >= began) {
            return Err(error.clone());
        }
        let connected = timeout(CONNECT_TIMEOUT, self.connect()).await;
        let late = || SendError::Unreachable(format!("no connection within {CONNECT_TIMEOUT:?}"));
        match connected.unwrap_or_else(|_| Err(late())) {
            Ok(sender) => {
                self.0.sender.store(Some(Arc::new(sender.clone())));
                Ok(sender)
            }
            Err(error) => {
                *last = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    fn open(&self) -> Option<SendRequest<Body>> {
        let sender = self.0.sender.load();
        sender.as_ref().filter(|sender| !sender.is_closed()).map(|sender| SendRequest::clone(sender))
    }

    async fn connect(&self) -> Result<SendRequest<Body>, SendError> {
        let unreachable = |error: &dyn std::error::Error| SendError::Unreachable(chain(error));
        let io = self.dial().await?;
        let (sender, connection) = Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(HEADER_BYTES)
            .handshake(TokioIo::new(io))
            .await
            .map_err(|error| unreachable(&error))?;
        let stop = self.0.tasks.stop().clone();
        // It ends when nobody has a sender any more; how it ended is told to the calls on it.
        let ended = connection.map(drop).boxed();
        self.0.tasks.spawn("functions: gRPC connection", async move {
            stop.run_until_cancelled(ended).await;
        });
        Ok(sender)
    }

    async fn dial(&self) -> Result<Box<dyn Io>, SendError> {
        let (host, port) = self.0.url.target();
        let addresses = self.0.addresses.of(host).await?;
        let stream = first(&addresses, port).await?;
        let tls = match &self.0.tls {
            None => return Ok(Box::new(stream)),
            Some(Ok(tls)) => tls,
            Some(Err(cause)) => return Err(SendError::Unreachable(cause.clone())),
        };
        let unreachable = |cause: String| SendError::Unreachable(format!("no TLS: {cause}"));
        let name = ServerName::try_from(host.to_owned()).map_err(|_| unreachable(format!("invalid name {host}")))?;
        let stream = tls.connect(name, stream).await.map_err(|error| unreachable(error.to_string()))?;
        match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => Ok(Box::new(stream)),
            _ => Err(unreachable("the server does not speak HTTP/2".to_owned())),
        }
    }
}

/// A connection to the first of the addresses that takes one.
async fn first(addresses: &[IpAddr], port: u16) -> Result<TcpStream, SendError> {
    let mut last = String::new();
    // One that says nothing must not take the time of the others.
    let share = (CONNECT_TIMEOUT / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1)).max(ADDRESS_TIMEOUT);
    for address in addresses {
        let address = SocketAddr::new(*address, port);
        let late = |_| Err(std::io::ErrorKind::TimedOut.into());
        match timeout(share, TcpStream::connect(address)).await.unwrap_or_else(late) {
            // A port that nobody listens on may be drawn for the socket itself. Source: RFC 9293, section 3.5.
            Ok(stream) if stream.local_addr().is_ok_and(|local| local == address) => {
                last = "connection refused".to_owned();
            }
            Ok(stream) => {
                stream.set_nodelay(true).map_err(|error| SendError::Unreachable(error.to_string()))?;
                return Ok(stream);
            }
            Err(error) => last = error.to_string(),
        }
    }
    Err(SendError::Unreachable(last))
}

/// A client of TLS for HTTP/2. The system decides what is trusted, but in tests.
fn tls<V: ServerCertVerifier + 'static>(
    verifier: impl FnOnce(Arc<CryptoProvider>) -> Result<V, rustls::Error>,
) -> Result<TlsConnector, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = verifier(provider.clone()).map_err(|error| error.to_string())?;
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = builder
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The texts of an error and its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut texts = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        texts.push(error.to_string());
        cause = error.source();
    }
    texts.join(": ")
}

impl Service<Request<Body>> for Connection {
    type Response = Response<Body>;
    type Error = SendError;
    type Future = BoxFuture<'static, Result<Response<Body>, SendError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let connection = self.clone();
        Box::pin(async move {
            let broke_off = |error: &hyper::Error| SendError::BrokeOff(chain(error));
            let mut unsent = match connection.sender().await?.try_send_request(request).await {
                Ok(response) => return checked(response),
                Err(unsent) => unsent,
            };
            // Servers end old connections, some before a request could be sent on them.
            let Some(request) = unsent.take_message() else { return Err(broke_off(unsent.error())) };
            connection.0.sender.store(None);
            let response = connection.sender().await?.send_request(request).await;
            checked(response.map_err(|error| broke_off(&error))?)
        })
    }
}

/// An answer of gRPC; what is none came from something on the way, or from another kind of server.
fn checked(response: Response<hyper::body::Incoming>) -> Result<Response<Body>, SendError> {
    let status = response.status();
    let media = response.headers().get(CONTENT_TYPE).map(http::HeaderValue::as_bytes).unwrap_or_default();
    match status.is_success() && media.starts_with(b"application/grpc") {
        true => Ok(response.map(Body::new)),
        false => Err(SendError::BrokeOff(format!("the answer of status {status} is not gRPC"))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use mesh::egress::Egress;
    use tokio::net::TcpListener;

    use super::*;

    fn egress(allowed: &[&str]) -> Egress {
        Egress { allow: allowed.iter().map(|network| network.parse().unwrap()).collect() }
    }

    fn connection(url: &str, addresses: CheckedAddresses) -> Connection {
        Connection::new(GrpcUrl::try_from(url.to_owned()).unwrap(), addresses, Tasks::default())
    }

    #[tokio::test]
    async fn addresses_that_are_not_allowed_are_not_dialled() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for host in ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"] {
            let connection = connection(&format!("http://{host}:{port}"), CheckedAddresses::new(egress(&[])));
            let refused = connection.sender().await.map(drop).unwrap_err();
            assert!(matches!(refused, SendError::Forbidden), "{host}: {refused:?}");
        }
        assert!(listener.accept().now_or_never().is_none(), "nobody dialled it");
    }

    #[tokio::test]
    async fn a_name_that_leads_elsewhere_later_is_checked_again() {
        let inside = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = inside.local_addr().unwrap().port();
        let outside = TcpListener::bind(("127.0.0.2", port)).await.unwrap();
        let asked = AtomicUsize::new(0);
        let lookup = move |_: String| {
            let host = if asked.fetch_add(1, Ordering::SeqCst) == 0 { [127, 0, 0, 1] } else { [127, 0, 0, 2] };
            async move { Ok(vec![SocketAddr::from((host, 0))]) }.boxed()
        };
        let addresses = CheckedAddresses::with_lookup(egress(&["127.0.0.1/32"]), Arc::new(lookup));
        let connection = connection(&format!("http://mail.test:{port}"), addresses);
        let (accepted, _) = tokio::join!(inside.accept(), connection.dial());
        assert!(accepted.is_ok());
        assert!(matches!(connection.dial().await.map(drop), Err(SendError::Forbidden)));
        assert!(outside.accept().now_or_never().is_none(), "nobody dialled it");
    }

    #[tokio::test]
    async fn a_request_that_was_not_sent_goes_on_another_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (accepted, held) = (Arc::new(AtomicUsize::new(0)), Arc::new(tokio::sync::Notify::new()));
        let (counting, is_held) = (accepted.clone(), held.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let is_first = counting.fetch_add(1, Ordering::SeqCst) == 0;
                let (holding, ends) = (is_held.clone(), is_held.clone());
                let answer = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                    let holding = holding.clone();
                    async move {
                        if request.uri().path() == "/held" {
                            holding.notify_one();
                            std::future::pending::<()>().await;
                        }
                        let answer = Response::builder().header(CONTENT_TYPE, "application/grpc");
                        answer.body(Body::empty())
                    }
                });
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let serving = builder.serve_connection(TokioIo::new(stream), answer);
                tokio::spawn(async move {
                    let mut serving = std::pin::pin!(serving);
                    tokio::select! {
                        _ = serving.as_mut() => return,
                        () = ends.notified(), if is_first => serving.as_mut().graceful_shutdown(),
                    }
                    let _ended = serving.await;
                });
            }
        });
        let url = format!("http://127.0.0.1:{port}");
        let connection = connection(&url, CheckedAddresses::new(egress(&["127.0.0.1/32"])));
        let send = |path: &str| {
            let request = Request::post(format!("{url}{path}")).body(Body::empty()).unwrap();
            connection.clone().call(request)
        };
        let _held = tokio::spawn(send("/held"));
        // Each is answered, until the first connection takes no more.
        while accepted.load(Ordering::SeqCst) < 2 {
            assert!(send("/now").await.is_ok());
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn an_address_that_says_nothing_leaves_time_to_the_next() {
        // A listener whose queue is full takes no more connections.
        let silent = socket_that_is_full().await;
        let listener = TcpListener::bind(("127.0.0.2", silent.1)).await.unwrap();
        let both = [[127, 0, 0, 1], [127, 0, 0, 2]].map(IpAddr::from);
        let (reached, accepted) = tokio::join!(first(&both, silent.1), listener.accept());
        assert!(reached.is_ok() && accepted.is_ok());
    }

    /// A port of 127.0.0.1 that accepts nothing, what listens there, and the connections that wait.
    async fn socket_that_is_full() -> (tokio::net::TcpListener, u16, Vec<TcpStream>) {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(Ok(stream)) = timeout(Duration::from_millis(100), TcpStream::connect(address)).await {
            waiting.push(stream);
        }
        (listener, address.port(), waiting)
    }

    #[tokio::test]
    async fn one_failure_is_told_to_all_who_waited() {
        let asked = Arc::new(AtomicUsize::new(0));
        let counting = asked.clone();
        let lookup = move |_: String| {
            counting.fetch_add(1, Ordering::SeqCst);
            async {
                tokio::task::yield_now().await;
                Err(std::io::Error::other("no such name"))
            }
            .boxed()
        };
        let connection = connection("http://mail.test", CheckedAddresses::with_lookup(egress(&[]), Arc::new(lookup)));
        let attempts = futures::future::join_all((0..9).map(|_| connection.sender())).await;
        assert!(attempts.iter().all(|attempt| matches!(attempt, Err(SendError::Unreachable(_)))));
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        assert!(connection.sender().await.is_err());
        assert_eq!(asked.load(Ordering::SeqCst), 2, "a later call tries anew");
    }

    #[tokio::test]
    async fn a_server_without_tls_is_not_reached_by_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connection = connection(
            &format!("https://localhost:{port}"),
            CheckedAddresses::new(egress(&["127.0.0.0/8", "::1/128"])),
        );
        let closes = async {
            // Another address of the name may be tried first.
            let _ = timeout(CONNECT_TIMEOUT, listener.accept()).await;
        };
        let (_, refused) = tokio::join!(closes, connection.sender());
        assert!(matches!(refused.map(drop), Err(SendError::Unreachable(_))));
    }

    /// Serves TLS with these protocols until the test ends: where.
    async fn tls_server(protocols: &[&[u8]]) -> u16 {
        let certificate = rustls::pki_types::CertificateDer::from(&include_bytes!("certificates/leaf.der")[..]);
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(&include_bytes!("certificates/leaf.key")[..]);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config =
            builder.unwrap().with_no_client_auth().with_single_cert(vec![certificate], key.into()).unwrap();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                open.extend(acceptor.accept(stream).await);
            }
        });
        port
    }

    #[tokio::test]
    async fn tls_is_of_the_name_and_of_whom_is_trusted() {
        let (port, old) = (tls_server(&[b"h2", b"http/1.1"]).await, tls_server(&[b"http/1.1"]).await);
        let authority = rustls::pki_types::CertificateDer::from(&include_bytes!("certificates/ca.der")[..]);
        let trusting = |provider: Arc<CryptoProvider>| {
            rustls_platform_verifier::Verifier::new_with_extra_roots([authority.clone()], provider)
        };
        for (host, port, own, told) in [
            ("mail.test", port, true, None),
            ("mail.test", port, false, Some("no TLS: ")),
            ("other.test", port, true, Some("no TLS: ")),
            ("mail.test", old, true, Some("no TLS: ")),
        ] {
            let lookup = |_: String| async { Ok(vec![SocketAddr::from(([127, 0, 0, 1], 0))]) }.boxed();
            let addresses = CheckedAddresses::with_lookup(egress(&["127.0.0.1/32"]), Arc::new(lookup));
            let url = GrpcUrl::try_from(format!("https://{host}:{port}")).unwrap();
            let connector = if own { tls(trusting) } else { tls(rustls_platform_verifier::Verifier::new) };
            let dialled = Connection::with_tls(url, addresses, Some(connector), Tasks::default()).dial().await;
            match (dialled.map(drop), told) {
                (Ok(()), None) => {}
                (Err(SendError::Unreachable(cause)), Some(told)) => assert!(cause.starts_with(told), "{host}: {cause}"),
                (other, _) => panic!("{host}:{port}: {other:?}"),
            }
        }
    }
}
