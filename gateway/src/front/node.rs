//! Liveness, readiness and metrics endpoints.

use std::collections::BTreeMap;

use axum::{
    Extension, Router,
    extract::{FromRef, Request, State},
    response::Response,
    routing::get,
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use mesh::{Component, ComponentState, Mesh, config::ServiceName, listener::Connection};
use serde::Serialize;

use crate::{Service, http::answer};

/// `health-check`, `live`, `ready`, `metrics`.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S>
where
    Mesh: FromRef<S>,
{
    Router::new()
        .route("/v1/api/health-check", get(alive))
        .route("/live", get(alive))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
}

/// Whether a caller may see what this node consists of: names of components, faults, metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Details {
    /// To callers on this machine, on the mesh port, and where the configuration says so.
    Shown,
    /// To everybody else.
    Hidden,
}

impl Details {
    /// Details for a request with these `headers`. A forwarded request does not count as local.
    pub fn of(service: &Service, connection: Option<&Connection>, headers: &HeaderMap) -> Self {
        let is_local = connection.is_some_and(|connection| connection.peer.ip().to_canonical().is_loopback());
        let is_forwarded = headers.contains_key(header::FORWARDED) || headers.contains_key("x-forwarded-for");
        match service.config().http_details || (is_local && !is_forwarded) {
            true => Details::Shown,
            false => Details::Hidden,
        }
    }
}

impl FromRef<Service> for Mesh {
    fn from_ref(service: &Service) -> Self {
        service.mesh().clone()
    }
}

async fn alive() -> Response {
    answer::json(StatusCode::OK, "{}")
}

/// 503 where a service of this node, or every peer of another, does not answer. A database or a bus that does not, or a
/// resource folder with a fault, is reported as degraded but leaves the node ready: everything else is served.
async fn ready(State(mesh): State<Mesh>, Extension(details): Extension<Details>) -> Response {
    let components = mesh.health().components();
    let mut readiness = Readiness::of(&components);
    if details == Details::Hidden {
        readiness.parts.clear();
        readiness.degraded.clear();
    }
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer::json(status, serde_json::to_vec(&readiness).expect("texts can always be written as JSON"))
}

async fn metrics(State(mesh): State<Mesh>, Extension(details): Extension<Details>, request: Request) -> Response {
    if details == Details::Hidden {
        return answer::unknown_path(request).await;
    }
    let mut response = answer::json(StatusCode::OK, mesh.metrics().render());
    let text = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, text);
    response
}

#[derive(Debug, PartialEq, Serialize)]
struct Readiness<'a> {
    ready: bool,
    /// Names of the parts that fail while the rest is served.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    degraded: Vec<String>,
    /// The components by their names.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    parts: BTreeMap<String, PartReadiness<'a>>,
}

#[derive(Debug, PartialEq, Serialize)]
struct PartReadiness<'a> {
    ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    /// Parts of it that are not served: why, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<&'a BTreeMap<String, String>>,
}

impl<'a> Readiness<'a> {
    fn of(components: &'a BTreeMap<Component, ComponentState>) -> Self {
        let mut readiness = Readiness { ready: true, degraded: Vec::new(), parts: BTreeMap::new() };
        let mut peers: BTreeMap<ServiceName, bool> = BTreeMap::new();
        for (component, state) in components {
            let part = match state {
                ComponentState::Ready => PartReadiness { ready: true, error: None, left_out: None },
                ComponentState::Partial(parts) => PartReadiness { ready: true, error: None, left_out: Some(parts) },
                ComponentState::Failing(why) => PartReadiness { ready: false, error: Some(why), left_out: None },
            };
            match component {
                Component::Service(_) => readiness.ready &= part.ready,
                Component::Peer { service, .. } => *peers.entry(*service).or_default() |= part.ready,
                Component::Database { .. } | Component::Resources | Component::Bus if part.ready => {}
                Component::Database { .. } | Component::Resources | Component::Bus => {
                    readiness.degraded.push(component.to_string());
                }
            }
            readiness.parts.insert(component.to_string(), part);
        }
        readiness.ready &= peers.values().all(|is_reached| *is_reached);
        readiness
    }
}

#[cfg(test)]
mod tests {
    use proto::services::{auth::AUTH_RULES, crud::CRUD};

    use super::*;

    fn service(service: &'static proto::link::Service) -> Component {
        Component::Service(ServiceName::of(service))
    }

    fn peer(url: &str) -> Component {
        Component::Peer { service: ServiceName::of(&CRUD), url: url.into() }
    }

    fn is_ready(failing: Component) -> bool {
        let name = failing.to_string();
        let components = BTreeMap::from([
            (service(&CRUD), ComponentState::Ready),
            (failing, ComponentState::Failing("gone".to_owned())),
        ]);
        let readiness = Readiness::of(&components);
        assert_eq!(readiness.parts[&name].error, Some("gone"));
        readiness.ready
    }

    #[test]
    fn a_service_that_is_down_makes_the_node_unready() {
        assert!(!is_ready(service(&AUTH_RULES)));
    }

    #[test]
    fn the_last_peer_of_a_service_that_is_down_makes_the_node_unready() {
        assert!(!is_ready(peer("http://crud-0:4130")));
        let components = BTreeMap::from([
            (peer("http://crud-0:4130"), ComponentState::Failing("gone".to_owned())),
            (peer("http://crud-1:4130"), ComponentState::Ready),
        ]);
        assert!(Readiness::of(&components).ready);
    }

    #[test]
    fn what_is_left_out_of_a_database_is_told_and_leaves_it_ready() {
        let database = Component::Database { project: "shop".to_owned(), database: "music".to_owned() };
        let left_out = BTreeMap::from([("stale".to_owned(), "no such column: gone".to_owned())]);
        let components = BTreeMap::from([(database, ComponentState::Partial(left_out))]);
        assert_eq!(
            serde_json::to_value(Readiness::of(&components)).unwrap(),
            serde_json::json!({"ready": true, "parts": {
                "database shop/music": {"ready": true, "left_out": {"stale": "no such column: gone"}}
            }})
        );
    }

    #[test]
    fn a_database_or_a_fault_in_the_resources_is_told_but_leaves_the_node_ready() {
        assert!(is_ready(Component::Database { project: "shop".to_owned(), database: "music".to_owned() }));
        assert!(is_ready(Component::Resources));
        assert!(is_ready(Component::Bus));
        let components = BTreeMap::from([
            (service(&CRUD), ComponentState::Ready),
            (Component::Bus, ComponentState::Failing("gone".to_owned())),
        ]);
        assert_eq!(Readiness::of(&components).degraded, ["bus"]);
    }
}
