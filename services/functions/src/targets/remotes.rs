//! The gRPC servers of services: kept as long as their settings are the same, and asked for their contracts again.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use mesh::resources::Document;
use query::function::{GrpcServer, Service as Spec};
use tokio_util::sync::DropGuard;

use super::Surroundings;
use crate::{Error, backoff::doubled, grpc::Remote, health::PartHealth};

/// How often a server is asked for its contract: it may be replaced by another version of it.
const ASK_INTERVAL: Duration = Duration::from_secs(30);
/// The wait after a failure, while nothing is known of it.
const RETRY_FIRST: Duration = Duration::from_millis(500);

/// A gRPC server of a service.
pub struct KnownRemote {
    server: GrpcServer,
    /// Content of its descriptor file.
    descriptor: Option<Bytes>,
    /// Why it cannot be called, for people, where its contract cannot be read.
    remote: Result<Arc<Remote>, String>,
    id: String,
    /// Ends the questions to it.
    _asked: DropGuard,
}

impl KnownRemote {
    /// The server. Errors: its contract cannot be read.
    pub fn remote(&self) -> Result<&Remote, Error> {
        self.remote.as_deref().map_err(|cause| Error::NoContract { service: self.id.clone(), cause: cause.clone() })
    }
}

/// The gRPC server of a service; that of `before` where it is the same.
pub fn of(
    document: &Document,
    (project, id): &(String, String),
    spec: &Spec,
    before: Option<&Arc<KnownRemote>>,
    surroundings: &Surroundings,
) -> Option<Arc<KnownRemote>> {
    let server = spec.grpc.as_ref()?;
    let read = |path: &String| document.file(path).map_err(|error| format!("the file {path} cannot be read: {error}"));
    let descriptor = server.descriptor.as_ref().map(read).transpose();
    let content = descriptor.as_ref().ok().and_then(Clone::clone);
    if let Some(same) = before.filter(|known| known.server == *server && known.descriptor == content) {
        return Some(same.clone());
    }
    let Surroundings { addresses, conversions, health, tasks } = surroundings;
    let remote = descriptor.and_then(|descriptor| {
        let near = (addresses.clone(), tasks.clone(), conversions.clone());
        Remote::new(server.clone(), id.clone(), near, descriptor.as_deref()).map(Arc::new)
    });
    let part = format!("service {project}/{id} at {}", server.url.0);
    let ended = tasks.stop().child_token();
    let (stop, health, asked) = (ended.clone(), health.clone(), remote.clone());
    tasks.spawn("functions: contract of a service", async move {
        match asked {
            Ok(remote) if remote.server.reflection => {
                stop.run_until_cancelled(Box::pin(ask(&remote, &health, &part))).await;
            }
            Ok(_) => {}
            Err(cause) => {
                let told = async {
                    // Another document of the same server may have been told to work meanwhile.
                    loop {
                        health.set(&part, Some(cause.clone()));
                        tokio::time::sleep(ASK_INTERVAL).await;
                    }
                };
                stop.run_until_cancelled(told).await;
            }
        }
        health.set(&part, None);
    });
    let known =
        KnownRemote { server: server.clone(), descriptor: content, remote, id: id.clone(), _asked: ended.drop_guard() };
    Some(Arc::new(known))
}

/// Asks the server for its contract, again and again.
async fn ask(remote: &Remote, health: &PartHealth, part: &str) {
    let mut failures = 0;
    loop {
        let wait = match remote.ask().await {
            Ok(_) => {
                failures = 0;
                health.set(part, None);
                ASK_INTERVAL
            }
            // What is known stays.
            Err(_) if remote.known().is_some() => ASK_INTERVAL,
            Err(error) => {
                let why = cause(error);
                if health.set(part, Some(why.clone())) {
                    tracing::warn!(part, why, "the contract of a service is not known");
                }
                failures += 1;
                doubled(RETRY_FIRST, ASK_INTERVAL, failures)
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// Why a contract is not known.
fn cause(error: Error) -> String {
    match error {
        Error::NoContract { cause, .. } | Error::Unreachable { cause, .. } | Error::BrokeOff { cause, .. } => cause,
        other => other.to_string(),
    }
}
