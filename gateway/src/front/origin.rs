//! The `Origin` of a request, and the CORS headers of its answer.

use axum::{extract::Request, response::Response};
use http::{HeaderValue, header};

use super::route::{self, Protocol};
use crate::{
    Service,
    http::{
        HeaderSummary,
        cors::{self, RequestedProject},
    },
};

/// Response extension of an answer to a preflight, whose CORS headers are complete.
#[derive(Debug, Clone)]
pub struct PreflightAnswered;

/// The `Origin` of a request, and the project whose CORS settings apply.
pub struct RequestOrigin {
    /// The header as sent.
    pub name: HeaderValue,
    project: Option<String>,
    from_message: Option<RequestedProject>,
}

impl RequestOrigin {
    /// The origin of `request`, if it has one.
    pub fn of(request: &mut Request, protocol: Protocol, summary: HeaderSummary) -> Option<Self> {
        if !summary.has_origin {
            return None;
        }
        let name = request.headers().get(header::ORIGIN)?.clone();
        let project = route::project(request.uri().path()).map(str::to_owned);
        let is_grpc = protocol != Protocol::Web || project.is_none();
        let from_message = is_grpc.then(RequestedProject::default);
        if let Some(from_message) = &from_message {
            request.extensions_mut().insert(from_message.clone());
        }
        Some(Self { name, project, from_message })
    }

    /// Whether any origin may call.
    pub fn is_served(&self, service: &Service) -> bool {
        self.known_access(service).is_some()
    }

    /// Permissions of the origin.
    pub fn access(&self, service: &Service) -> cors::Access {
        self.known_access(service).unwrap_or(cors::Access::None)
    }

    /// Writes the CORS headers of an answer, unless it answers a preflight.
    pub fn write(self, service: &Service, response: &mut Response) {
        let is_preflight = response.extensions().get::<PreflightAnswered>().is_some();
        if !is_preflight && let Some(access) = self.known_access(service) {
            cors::write_headers(response.headers_mut(), access, self.name);
        }
    }

    /// Permissions of the origin by the settings of the project; where none is known (a preflight of gRPC cannot tell),
    /// by those of all. `None` where no origin may call.
    fn known_access(&self, service: &Service) -> Option<cors::Access> {
        if service.config().development && cors::is_local_page(&self.name) {
            return Some(cors::Access::Listed);
        }
        let from_message = self.from_message.as_ref().and_then(|from_message| from_message.get());
        let origins = service.edge().origins(self.project.as_deref().or(from_message));
        (!origins.is_empty()).then(|| cors::access(&origins, &self.name))
    }
}
