//! The `Origin` of a request, and the CORS headers of its answer.

use axum::{extract::Request, response::Response};
use http::{HeaderValue, header};

use super::route::{self, Protocol};
use crate::{
    Service,
    http::cors::{self, RequestedProject},
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
    pub fn of(request: &mut Request, protocol: Protocol) -> Option<Self> {
        let name = request.headers().get(header::ORIGIN)?.clone();
        let project = route::project(request.uri().path()).map(str::to_owned);
        let is_grpc = protocol != Protocol::Web || project.is_none();
        let from_message = is_grpc.then(RequestedProject::default);
        if let Some(from_message) = &from_message {
            request.extensions_mut().insert(from_message.clone());
        }
        Some(Self { name, project, from_message })
    }

    /// Origins of the project; where none is known (a preflight of gRPC cannot tell), those of all.
    pub fn origins(&self, service: &Service) -> Vec<String> {
        let from_message = self.from_message.as_ref().and_then(|from_message| from_message.get());
        service.edge().origins(self.project.as_deref().or(from_message))
    }

    /// Whether any origin may call.
    pub fn is_served(&self, service: &Service) -> bool {
        !self.origins(service).is_empty()
    }

    /// Permissions of the origin.
    pub fn access(&self, service: &Service) -> cors::Access {
        cors::access(&self.origins(service), &self.name)
    }

    /// Writes the CORS headers of an answer, unless it answers a preflight.
    pub fn write(self, service: &Service, response: &mut Response) {
        let origins = self.origins(service);
        let is_preflight = response.extensions().get::<PreflightAnswered>().is_some();
        if !origins.is_empty() && !is_preflight {
            cors::write_headers(response.headers_mut(), cors::access(&origins, &self.name), self.name);
        }
    }
}
