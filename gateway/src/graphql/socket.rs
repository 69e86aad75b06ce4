//! GraphQL over WebSocket: the handshake, and one task per connection.

mod closing;
mod connection;
mod handshake;
mod message;
mod operation;
mod outgoing;
mod protocol;
mod receive;
mod running;
mod session;
mod token;

use std::net::IpAddr;

use axum::{
    extract::{Path, State},
    response::Response,
};
use http::{HeaderMap, header};
use mesh::{Code, Fault, telemetry::Gauge};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use self::handshake::{Upgrade, is_asked};
use self::{
    handshake::Accepted,
    session::{Opening, Session},
};
use crate::{
    Service,
    catalogue::Project,
    edge::Caller,
    http::{answer, body, cors},
    live::{CallerId, SocketQuota},
};

/// Answers a handshake.
pub async fn open(
    State(service): State<Service>,
    caller: Caller,
    Path(project): Path<String>,
    headers: HeaderMap,
    upgrade: Upgrade,
) -> Response {
    match accept(&service, &caller, project, &headers, upgrade).await {
        Ok(response) => response,
        Err(fault) => answer::fault(&fault, &caller.call),
    }
}

async fn accept(
    service: &Service,
    caller: &Caller,
    project: String,
    headers: &HeaderMap,
    upgrade: Upgrade,
) -> Result<Response, Fault> {
    let found = service.edge().project(caller, (&*project).into()).await?;
    check_origin(service, &project, headers)?;
    let peer = upgrade.peer;
    let Accepted { response, upgraded, protocol } = handshake::accept(headers, upgrade)?;
    let quota = quota(service, caller, &found, peer).await?;
    let open = OpenSocket::new(service)?;
    let most = body::limit(service.config(), Some(&found));
    let time = service.config().time(&found.spec);
    let session = Session::new(service.clone(), caller, Opening { project, protocol, peer, quota });
    // What it has begun still ends where the node drains.
    service.tasks().clone().spawn_until_drain("socket", async move {
        Box::pin(connection::serve(session, upgraded, most, time)).await;
        drop(open);
    });
    Ok(response)
}

/// Counts the socket for whom the handshake names, until its first message says who it is for. Errors: there are too many.
async fn quota(
    service: &Service,
    caller: &Caller,
    project: &Project,
    peer: Option<IpAddr>,
) -> Result<SocketQuota, Fault> {
    // A token that is not valid would count for whom it names; the first message may bring another.
    let is_known = !caller.token.is_empty() && service.edge().reach(caller, project).await.is_ok();
    service.quotas().socket(match is_known {
        true => CallerId::of(&project.id, &caller.token, peer),
        false => CallerId::unidentified(&project.id, peer),
    })
}

/// Refuses pages of other sites that the project does not list: a browser lets any page open a socket.
fn check_origin(service: &Service, project: &str, headers: &HeaderMap) -> Result<(), Fault> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    // A proxy that speaks TLS for the node says so; the node itself does not speak it.
    let scheme = text("x-forwarded-proto").unwrap_or("http");
    let page = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    let is_own = page.zip(text("host")).is_some_and(|((page_scheme, page_host), host)| {
        page_scheme.eq_ignore_ascii_case(scheme) && page_host.eq_ignore_ascii_case(host)
    });
    let is_local = service.config().development && cors::is_local_page(origin);
    let access = cors::access(&service.edge().origins(Some(project)), origin);
    if is_own || is_local || access != cors::Access::None {
        return Ok(());
    }
    let origin = String::from_utf8_lossy(origin.as_bytes());
    Err(Fault::new(Code::Denied, format!("origin {origin} is not allowed: it is not in cors.origins of the project")))
}

/// A socket that counts as open until it is dropped.
struct OpenSocket {
    open: Gauge,
    _permit: OwnedSemaphorePermit,
}

impl OpenSocket {
    /// Errors: there are too many.
    fn new(service: &Service) -> Result<Self, Fault> {
        let metrics = service.mesh().metrics();
        let permit = Semaphore::try_acquire_owned(service.sockets().clone()).map_err(|_| {
            metrics.shed("sockets").inc();
            Fault::new(Code::Unavailable, "there are too many WebSocket connections; try again later")
        })?;
        let open = metrics.load().sockets.clone();
        open.inc();
        Ok(Self { open, _permit: permit })
    }
}

impl Drop for OpenSocket {
    fn drop(&mut self) {
        self.open.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::stage::Stage;

    fn page(service: &Service, origin: &str, proto: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "shop.test".parse().expect("a header"));
        headers.insert(header::ORIGIN, origin.parse().expect("a header"));
        if let Some(proto) = proto {
            headers.insert("x-forwarded-proto", proto.parse().expect("a header"));
        }
        check_origin(service, "shop", &headers).is_ok()
    }

    #[tokio::test]
    async fn a_page_of_this_site_has_its_scheme_too() {
        let service = Stage::new().await.service;
        assert!(page(&service, "http://shop.test", None));
        assert!(page(&service, "https://shop.test", Some("https")));
        for (origin, proto) in [
            ("https://shop.test", None),
            ("http://shop.test", Some("https")),
            ("ftp://shop.test", None),
            ("http://other.test", None),
            ("http://shop.test:81", None),
            ("null", None),
        ] {
            assert!(!page(&service, origin, proto), "{origin} {proto:?}");
        }
    }
}
