//! The HTTP client: what a name leads to is checked once, and the address that was checked is dialled.

use std::{
    error::Error as StdError,
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use mesh::egress::Egress;
use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect::Policy,
};

/// How long an unused connection is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection may take, with the look-up of its name: a host that is off answers nothing.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Looks a name up.
type Lookup = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// An HTTP client that reaches allowed addresses only. It follows no redirects and knows no proxies.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    addresses: CheckedAddresses,
}

/// The addresses that a name leads to, as far as they are allowed.
#[derive(Clone)]
pub struct CheckedAddresses {
    egress: Arc<Egress>,
    lookup: Lookup,
}

/// The error of an address that is not allowed.
#[derive(Debug)]
struct ForbiddenAddress;

impl fmt::Display for ForbiddenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the address is not allowed")
    }
}

impl StdError for ForbiddenAddress {}

impl Client {
    /// A client within `egress`. Errors: the system has no certificates.
    pub fn new(addresses: CheckedAddresses) -> Result<Self, String> {
        let http = reqwest::Client::builder()
            .dns_resolver(Arc::new(addresses.clone()))
            .redirect(Policy::none())
            .no_proxy()
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .user_agent("perigee")
            .build()
            .map_err(|error| chain(&error))?;
        Ok(Self { http, addresses })
    }

    /// Sends a request. Dropped, the connection is closed. Errors: see [`is_forbidden`].
    pub async fn send(&self, request: reqwest::Request) -> Result<reqwest::Response, SendError> {
        // The resolver is not asked for what is an address already.
        if address(request.url()).is_some_and(|address| !self.addresses.egress.allows(address)) {
            return Err(SendError::Forbidden);
        }
        self.http.execute(request).await.map_err(|error| match () {
            () if is_forbidden(&error) => SendError::Forbidden,
            () if error.is_connect() => SendError::Unreachable(chain(&error)),
            () => SendError::BrokeOff(chain(&error)),
        })
    }
}

/// Why a request has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SendError {
    /// Its address is not allowed, and was not dialled.
    #[error("the address is not allowed")]
    Forbidden,
    /// There is no connection.
    #[error("{0}")]
    Unreachable(String),
    /// The connection ended before the answer began, or what came is none.
    #[error("{0}")]
    BrokeOff(String),
}

impl CheckedAddresses {
    /// Addresses within `egress`, as the system finds them.
    pub fn new(egress: Egress) -> Self {
        let lookup = |name: String| async move { Ok(tokio::net::lookup_host((name, 0)).await?.collect()) }.boxed();
        Self::with_lookup(egress, Arc::new(lookup))
    }

    pub(crate) fn with_lookup(egress: Egress, lookup: Lookup) -> Self {
        Self { egress: Arc::new(egress), lookup }
    }

    /// The addresses of a host, a name or an address, that may be dialled: one at least. Errors: there is none, or the name
    /// is not known.
    pub async fn of(&self, host: &str) -> Result<Vec<IpAddr>, SendError> {
        let found = match host.parse::<IpAddr>() {
            Ok(address) => vec![address],
            Err(_) => match (self.lookup)(host.to_owned()).await {
                Ok(found) => found.into_iter().map(|address| address.ip()).collect(),
                Err(error) => return Err(SendError::Unreachable(error.to_string())),
            },
        };
        let allowed: Vec<IpAddr> = found.into_iter().filter(|address| self.egress.allows(*address)).collect();
        if allowed.is_empty() { Err(SendError::Forbidden) } else { Ok(allowed) }
    }
}

impl Resolve for CheckedAddresses {
    fn resolve(&self, name: Name) -> Resolving {
        let (egress, found) = (self.egress.clone(), (self.lookup)(name.as_str().to_owned()));
        Box::pin(async move {
            let found = found.await?;
            let allowed: Vec<SocketAddr> = found.into_iter().filter(|address| egress.allows(address.ip())).collect();
            match allowed.is_empty() {
                true => Err(ForbiddenAddress.into()),
                false => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}

/// The host of a URL that is an address.
fn address(url: &Url) -> Option<IpAddr> {
    let host = url.host_str()?;
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).parse().ok()
}

fn is_forbidden(error: &reqwest::Error) -> bool {
    let mut cause: Option<&(dyn StdError + 'static)> = error.source();
    while let Some(error) = cause {
        if error.is::<ForbiddenAddress>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The texts of an error and its causes, without the URL, which may have parameters in it.
pub fn chain(error: &reqwest::Error) -> String {
    let mut texts = Vec::new();
    let mut cause: Option<&(dyn StdError + 'static)> = error.source();
    while let Some(error) = cause {
        texts.push(error.to_string());
        cause = error.source();
    }
    if texts.is_empty() { "the request failed".to_owned() } else { texts.join(": ") }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// A server that counts connections, and answers once on each.
    async fn counted(address: &str) -> (SocketAddr, Arc<AtomicUsize>) {
        let listener = TcpListener::bind(address).await.unwrap();
        let (at, count) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let counting = count.clone();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                counting.fetch_add(1, Ordering::SeqCst);
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
            }
        });
        (at, count)
    }

    fn egress(allowed: &[&str]) -> Egress {
        let _installed = rustls::crypto::ring::default_provider().install_default();
        Egress { allow: allowed.iter().map(|network| network.parse().unwrap()).collect() }
    }

    fn get(url: String) -> reqwest::Request {
        reqwest::Request::new(reqwest::Method::GET, url.parse().unwrap())
    }

    #[tokio::test]
    async fn a_name_that_leads_elsewhere_later_is_checked_again() {
        let (inside, allowed) = counted("127.0.0.1:0").await;
        let outside = TcpListener::bind(("127.0.0.2", inside.port())).await.unwrap();
        let asked = AtomicUsize::new(0);
        let lookup = move |_: String| {
            let host = if asked.fetch_add(1, Ordering::SeqCst) == 0 { [127, 0, 0, 1] } else { [127, 0, 0, 2] };
            async move { Ok(vec![SocketAddr::from((host, 0))]) }.boxed()
        };
        let client = Client::new(CheckedAddresses::with_lookup(egress(&["127.0.0.1/32"]), Arc::new(lookup))).unwrap();
        let url = format!("http://mail.test:{}/", inside.port());
        assert_eq!(client.send(get(url.clone())).await.unwrap().status(), 204);
        assert!(matches!(client.send(get(url)).await, Err(SendError::Forbidden)));
        assert_eq!(allowed.load(Ordering::SeqCst), 1);
        assert!(outside.accept().now_or_never().is_none(), "nobody dialled it");
    }

    #[tokio::test]
    async fn of_several_addresses_only_allowed_ones_are_dialled() {
        let (inside, allowed) = counted("127.0.0.1:0").await;
        let outside = TcpListener::bind(("127.0.0.3", inside.port())).await.unwrap();
        let lookup = |_: String| {
            async { Ok([[127, 0, 0, 3], [127, 0, 0, 1]].map(|host| SocketAddr::from((host, 0))).to_vec()) }.boxed()
        };
        let client = Client::new(CheckedAddresses::with_lookup(egress(&["127.0.0.1/32"]), Arc::new(lookup))).unwrap();
        assert_eq!(client.send(get(format!("http://mail.test:{}/", inside.port()))).await.unwrap().status(), 204);
        assert_eq!(allowed.load(Ordering::SeqCst), 1);
        assert!(outside.accept().now_or_never().is_none(), "nobody dialled it");
    }

    #[tokio::test]
    async fn addresses_in_every_spelling_are_checked() {
        let (inside, dialled) = counted("127.0.0.1:0").await;
        let client = Client::new(CheckedAddresses::new(egress(&[]))).unwrap();
        for host in
            ["127.0.0.1", "127.1", "0x7f.1", "2130706433", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "localhost"]
        {
            let sent = client.send(get(format!("http://{host}:{}/", inside.port()))).await;
            assert!(matches!(sent, Err(SendError::Forbidden)), "{host}: {sent:?}");
        }
        assert_eq!(dialled.load(Ordering::SeqCst), 0);
    }
}
