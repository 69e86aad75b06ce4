//! gRPC and grpc-web: `perigee.api.v1.Data`, `Files` and `Functions`, with health and reflection.

pub(crate) mod accept;
mod data;
mod files;
mod function_stream;
mod functions;
mod messages;
mod select;
pub(crate) mod unary;
pub(crate) mod upload;
mod value;
mod watch;
mod work;

use std::{sync::Arc, time::Duration};

use axum::{body::Body, extract::Request, response::Response};
use futures::FutureExt;
use http::{HeaderValue, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use mesh::{Code, Fault};
use proto::api::v1::{
    data_server::{self, DataServer},
    files_server::{self, FilesServer},
    functions_server::{self, FunctionsServer},
};
use query::function::MESSAGE_BYTES;
use tonic::Status;
use tower::{Service as _, ServiceExt};

use crate::{Service, error, http::body};
pub(crate) use files::{broken_off, pieces};

/// Path of the methods of [`DataServer`].
const DATA_PATH: &str = "/perigee.api.v1.Data/";
/// Path of the methods of [`FilesServer`].
const FILES_PATH: &str = "/perigee.api.v1.Files/";
/// Methods of [`FilesServer`] that take as long as files are large.
const OF_LARGE_FILES: [&str; 4] = ["Put", "Get", "Copy", "Move"];
/// Path of the method whose answers are counted for the connection of the caller.
const WATCH_PATH: &str = "/perigee.api.v1.Data/Watch";
/// Path of the method of workers, which are counted for their callers.
const WORK_PATH: &str = "/perigee.api.v1.Functions/Work";
/// Path of the method whose answers go on, and count for the connection of the caller.
const STREAM_PATH: &str = "/perigee.api.v1.Functions/Stream";
/// Path of the methods of [`FunctionsServer`].
const FUNCTIONS_PATH: &str = "/perigee.api.v1.Functions/";
/// Bytes of a worker's message: the largest answer that a function may have, and what is around it. One over it would end all
/// calls of the worker.
const WORKER_MESSAGE_BYTES: usize = MESSAGE_BYTES as usize + (64 << 10);
/// Bytes around a message that are no payload of the project.
pub(crate) const MESSAGE_FRAMING: usize = 64 * 1024;
/// The method that is called by far the most.
const READ: &str = "Read";

/// The gRPC services. Nearly all requests are for one of them, which are spared the router.
#[derive(Clone)]
pub struct Services {
    data: DataServer<data::Data>,
    handlers: Arc<data::Data>,
    files: FilesServer<files::Files>,
    functions: FunctionsServer<functions::Functions>,
    workers: FunctionsServer<functions::Functions>,
    /// Bytes that a message may have.
    limit: usize,
    /// Until when a message has to be there.
    time: Duration,
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
        let files = FilesServer::new(files::Files::new(service.clone()))
            .max_decoding_message_size(limit)
            .max_encoding_message_size(usize::MAX);
        let functions = Arc::new(functions::Functions::new(service.clone()));
        let workers = FunctionsServer::from_arc(functions.clone())
            .max_decoding_message_size(WORKER_MESSAGE_BYTES)
            .max_encoding_message_size(usize::MAX);
        let functions =
            FunctionsServer::from_arc(functions).max_decoding_message_size(limit).max_encoding_message_size(usize::MAX);
        let time = service.config().time;
        Self { data, handlers, files, functions, workers, limit, time, others: others() }
    }

    /// The answer to a request.
    pub async fn answer(&self, request: Request) -> Response {
        let request = match has_own_time(request.uri().path()) {
            true => match Box::pin(begun(request, self.limit, self.time)).await {
                Ok(request) => request,
                Err(fault) => return refused(fault),
            },
            false => request,
        };
        let path = request.uri().path();
        let method = path.strip_prefix(DATA_PATH);
        if method == Some(READ) && !request.headers().contains_key(unary::ENCODING) {
            return self.answer_read(request).await;
        }
        if method.is_some_and(is_method) {
            return self.call_data(request).await;
        }
        if path.strip_prefix(FILES_PATH).is_some_and(is_method) {
            let Ok(response) = self.files.clone().call(request).await;
            return with_fault_code(response);
        }
        if path == WORK_PATH {
            let Ok(response) = self.workers.clone().call(request).await;
            return with_fault_code(response);
        }
        if path.strip_prefix(FUNCTIONS_PATH).is_some_and(is_method) {
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

/// A request that takes as long as its handler says, with its message of up to `limit` bytes, which has to be there in `time`; of
/// an upload it is told whether it has ended.
pub(crate) async fn begun(request: Request, limit: usize, time: Duration) -> Result<Request, Fault> {
    if upload::is_upload(request.uri().path()) {
        return Ok(upload::watched(request));
    }
    let (head, body) = request.into_parts();
    let read = tokio::time::timeout(time, Limited::new(body, limit.saturating_add(MESSAGE_FRAMING)).collect()).await;
    let read = read.map_err(|_| Fault::new(Code::Deadline, "the message did not come in time"))?;
    let read = read.map_err(|cause| match cause.is::<LengthLimitError>() {
        true => body::too_large(limit, None),
        false => error::bad_request(format!("the message broke off: {cause}")),
    })?;
    Ok(Request::from_parts(head, Body::from(read.to_bytes())))
}

/// Whether `path` is of a call that takes as long as its file is large, or its handler says.
pub fn has_own_time(path: &str) -> bool {
    path.strip_prefix(FILES_PATH).is_some_and(|method| OF_LARGE_FILES.contains(&method))
}

/// Whether `path` is of a method that counts for the connection of its caller, or for their address.
pub fn is_of_connection(path: &str) -> bool {
    let of_files = path.strip_prefix('/').and_then(|path| path.strip_prefix(files_server::SERVICE_NAME));
    [WATCH_PATH, WORK_PATH, STREAM_PATH].contains(&path) || of_files.is_some_and(|method| method.starts_with('/'))
}

fn is_method(name: &str) -> bool {
    !name.is_empty() && !name.contains('/')
}

/// Routes of health and reflection.
fn others() -> axum::Router {
    let (reporter, health) = tonic_health::server::health_reporter();
    for service in [data_server::SERVICE_NAME, files_server::SERVICE_NAME, functions_server::SERVICE_NAME] {
        reporter
            .set_service_status(service, tonic_health::ServingStatus::Serving)
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
pub(crate) fn status(mut fault: Fault) -> Status {
    if fault.code.is_denial() {
        fault.details.clear();
    }
    fault.into()
}

async fn unknown_method(request: Request) -> Response {
    refused(Fault::new(Code::Method, format!("method {} is not known", request.uri().path())))
}

fn unknown_method_fault() -> Fault {
    Fault::new(Code::Method, "the service has no such method")
}

/// Gives a stable code to what tonic says of requests that never reached a handler: those of a handler have one.
pub(crate) fn with_fault_code(response: http::Response<tonic::body::Body>) -> Response {
    let Some(status) = response.extensions().get::<Status>() else {
        // The generated server writes this one status by hand.
        let is_unknown = response.headers().get("grpc-status").is_some_and(|status| status == "12");
        return if is_unknown { refused(unknown_method_fault()) } else { response.map(Body::new) };
    };
    match wire_fault(status) {
        Some(fault) => refused(fault),
        None => response.map(Body::new),
    }
}

/// The fault of what tonic says of a message that it could not take; `None` of any other status.
pub(crate) fn wire_fault(status: &Status) -> Option<Fault> {
    if !status.details().is_empty() {
        return None;
    }
    Some(match status.code() {
        tonic::Code::Internal if status.message().contains("recursion limit") => {
            Fault::new(Code::TooComplex, "the message is nested too deeply")
        }
        tonic::Code::Internal => {
            Fault::new(Code::BadRequest, format!("the message is malformed: {}", status.message()))
        }
        tonic::Code::OutOfRange | tonic::Code::ResourceExhausted => {
            Fault::new(Code::TooLarge, status.message().trim_start_matches("Error, "))
        }
        tonic::Code::Unimplemented => Fault::new(Code::Method, status.message()),
        _ => return None,
    })
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
