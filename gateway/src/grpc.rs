//! gRPC and grpc-web: `perigee.api.v1.Data` and `perigee.api.v1.Functions`, with health and reflection.

mod data;
mod functions;
mod select;
mod unary;
mod value;
mod watch;

use std::sync::Arc;

use axum::{body::Body, extract::Request, response::Response};
use futures::FutureExt;
use http::{HeaderValue, header};
use mesh::{Code, Fault};
use proto::api::v1::{
    data_server::{DataServer, SERVICE_NAME},
    functions_server::{self, FunctionsServer},
};
use tonic::Status;
use tower::{Service as _, ServiceExt};

use crate::Service;

/// Path of the methods of [`DataServer`].
const DATA_PATH: &str = "/perigee.api.v1.Data/";
/// Path of the method whose answers are counted for the connection of the caller.
pub const WATCH_PATH: &str = "/perigee.api.v1.Data/Watch";
/// Path of the methods of [`FunctionsServer`].
const FUNCTIONS_PATH: &str = "/perigee.api.v1.Functions/";
/// The method that is called by far the most.
const READ: &str = "Read";

/// The gRPC services. Nearly all requests are for one of them, which are spared the router.
#[derive(Clone)]
pub struct Services {
    data: DataServer<data::Data>,
    handlers: Arc<data::Data>,
    functions: FunctionsServer<functions::Functions>,
    /// Bytes that a message may have.
    limit: usize,
    others: axum::Router,
}

impl Services {
    /// The services of the gateway.
    pub fn new(service: &Service) -> Self {
        let limit = service.config().body_bytes;
        let handlers = Arc::new(data::Data::new(service.clone()));
        let data = DataServer::from_arc(handlers.clone())
            .max_decoding_message_size(limit)
            .max_encoding_message_size(usize::MAX);
        let functions = FunctionsServer::new(functions::Functions::new(service.clone()))
            .max_decoding_message_size(limit)
            .max_encoding_message_size(usize::MAX);
        Self { data, handlers, functions, limit, others: others() }
    }

    /// The answer to a request.
    pub async fn answer(&self, request: Request) -> Response {
        let method = request.uri().path().strip_prefix(DATA_PATH);
        if method == Some(READ) && !request.headers().contains_key(unary::ENCODING) {
            return self.answer_read(request).await;
        }
        if method.is_some_and(|method| !method.is_empty() && !method.contains('/')) {
            return self.call_data(request).await;
        }
        if request.uri().path().starts_with(FUNCTIONS_PATH) {
            let Ok(response) = self.functions.clone().call(request).await;
            return with_fault_code(response);
        }
        let Ok(response) = self.others.clone().oneshot(request).await;
        response
    }

    /// The answer to a read.
    async fn answer_read(&self, request: Request) -> Response {
        let (head, body) = request.into_parts();
        let message = match unary::message(body, self.limit).await {
            Ok(message) => message,
            Err(body) => return self.call_data(Request::from_parts(head, body)).await,
        };
        let read = self.handlers.answer_read(&head, message).await;
        read.and_then(|read| unary::response(&read)).unwrap_or_else(|fault| with_fault_code(status(fault).into_http()))
    }

    async fn call_data(&self, request: Request) -> Response {
        let Ok(response) = self.data.clone().call(request).await;
        with_fault_code(response)
    }
}

/// Routes of health and reflection.
fn others() -> axum::Router {
    let (reporter, health) = tonic_health::server::health_reporter();
    for name in [SERVICE_NAME, functions_server::SERVICE_NAME] {
        reporter
            .set_service_status(name, tonic_health::ServingStatus::Serving)
            .now_or_never()
            .expect("nobody else holds the reporter yet");
    }

    let mut router = axum::Router::new().route_service("/grpc.health.v1.Health/{method}", health);
    match reflection().build_v1() {
        Ok(server) => router = router.route_service("/grpc.reflection.v1.ServerReflection/{method}", server),
        Err(error) => tracing::error!(%error, "no reflection"),
    }
    match reflection().build_v1alpha() {
        Ok(server) => router = router.route_service("/grpc.reflection.v1alpha.ServerReflection/{method}", server),
        Err(error) => tracing::error!(%error, "no reflection of the older version"),
    }
    router.fallback(unknown_method)
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::api::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// `fault` as the answer to a gRPC request.
pub fn refused(fault: Fault) -> Response {
    let is_later = matches!(fault.code, Code::TooMany | Code::Unavailable);
    let mut response = status(fault).into_http::<Body>();
    if is_later {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// The status of a fault. A denial carries no details: one that hides another fault has none.
fn status(mut fault: Fault) -> Status {
    if fault.code.is_denial() {
        fault.details.clear();
    }
    fault.into()
}

async fn unknown_method(request: Request) -> Response {
    refused(Fault::new(Code::Method, format!("method {} is not known", request.uri().path())))
}

fn unknown_method_fault() -> Fault {
    Fault::new(Code::Method, "the service does not have the method")
}

/// Gives a stable code to what tonic says of requests that never reached a handler: those of a handler have one.
fn with_fault_code(response: http::Response<tonic::body::Body>) -> Response {
    let Some(status) = response.extensions().get::<Status>() else {
        // The generated server writes this one status by hand.
        let is_unknown = response.headers().get("grpc-status").is_some_and(|status| status == "12");
        return if is_unknown { refused(unknown_method_fault()) } else { response.map(Body::new) };
    };
    let own = status.details().is_empty();
    let fault = match status.code() {
        tonic::Code::Internal if own && status.message().contains("recursion limit") => {
            Fault::new(Code::TooComplex, "the message is nested too deeply")
        }
        tonic::Code::Internal if own => {
            Fault::new(Code::BadRequest, format!("the message is malformed: {}", status.message()))
        }
        tonic::Code::OutOfRange | tonic::Code::ResourceExhausted if own => {
            Fault::new(Code::TooLarge, status.message().trim_start_matches("Error, "))
        }
        tonic::Code::Unimplemented if own => Fault::new(Code::Method, status.message()),
        _ => return response.map(Body::new),
    };
    refused(fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(status: Status) -> tonic::Code {
        let response = with_fault_code(status.into_http());
        response.extensions().get::<Status>().expect("a status stays one").code()
    }

    #[test]
    fn bytes_that_are_no_message_are_the_clients_fault() {
        assert_eq!(code(Status::internal("failed to decode Protobuf message")), tonic::Code::InvalidArgument);
    }

    #[test]
    fn a_message_over_the_limit_is_too_large() {
        assert_eq!(code(Status::out_of_range("message length too large")), tonic::Code::ResourceExhausted);
    }

    #[test]
    fn what_a_handler_says_stays_as_it_is() {
        assert_eq!(code(status(Fault::new(Code::Internal, "the database failed"))), tonic::Code::Internal);
    }

    #[test]
    fn who_is_to_come_again_is_told_when() {
        let later = |code| refused(Fault::new(code, "no")).headers().get(header::RETRY_AFTER).is_some();
        assert!(later(Code::Unavailable) && later(Code::TooMany));
        assert!(!later(Code::Internal) && !later(Code::Denied));
    }

    #[test]
    fn a_denial_carries_no_details() {
        let denied = status(Fault::new(Code::Denied, "no").with("access", "3"));
        assert_eq!(denied.details(), status(Fault::new(Code::Denied, "no")).details());
    }
}
