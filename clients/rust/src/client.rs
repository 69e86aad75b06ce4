//! Where a gateway is, and as whom its workers come.

use std::{fmt, sync::Arc, time::Duration};

use futures::future::{BoxFuture, FutureExt};
use tonic::transport::Endpoint;

use crate::{Error, Worker};

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often an idle connection is asked whether it is one, and how long the answer may take.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Makes the token for one registration.
pub(crate) type TokenSource = Arc<dyn Fn() -> BoxFuture<'static, String> + Send + Sync>;

/// Where a gateway is, and as whom its workers come. It holds no connection of its own.
#[derive(Clone)]
pub struct Client {
    pub(crate) endpoint: Endpoint,
    pub(crate) project: String,
    pub(crate) token: TokenSource,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("endpoint", &self.endpoint)
            .field("project", &self.project)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A client of the gateway at `url` for a project. Errors: `url` is no address.
    pub fn new(url: &str, project: &str) -> Result<Self, Error> {
        let invalid = || Error::Address(url.to_owned());
        let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|_| invalid())?;
        let endpoint = match endpoint.uri().scheme_str() {
            Some("http") => endpoint,
            #[cfg(feature = "tls")]
            Some("https") => endpoint
                .tls_config(tonic::transport::ClientTlsConfig::new().with_native_roots())
                .map_err(|_| invalid())?,
            _ => return Err(invalid()),
        };
        let endpoint = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT);
        Ok(Self {
            endpoint,
            project: project.to_owned(),
            token: Arc::new(|| futures::future::ready(String::new()).boxed()),
        })
    }

    /// With the token of its workers.
    #[must_use]
    pub fn token(self, token: impl Into<String>) -> Self {
        let token = token.into();
        self.token_source(move || futures::future::ready(token.clone()))
    }

    /// With what makes the token for one registration: tokens expire.
    #[must_use]
    pub fn token_source<F, R>(self, source: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = String> + Send + 'static,
    {
        Self { token: Arc::new(move || source().boxed()), ..self }
    }

    /// A worker of a service, which begins with [`Worker::run`].
    pub fn worker(&self, service: &str) -> Worker {
        Worker::new(self.clone(), service)
    }
}
