//! The gRPC service of the predecessor. A message names its project and has its token, and an error is told in a message:
//! the status of a call is OK.

mod data;
mod files;
mod live_query;
mod stream;
mod worker;

use std::{
    net::IpAddr,
    pin::{Pin, pin},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::Stream;
use mesh::Fault;
use prost::Message;
use proto::predecessor::{
    self as api,
    space_cloud_server::{self, SpaceCloudServer},
};
use query::Value;
use tonic::{Request, Status, Streaming, metadata::MetadataValue};
use tower::Service as _;

use self::stream::ToldMessages;
use crate::{
    Service,
    catalogue::Project,
    edge::Caller,
    error,
    files::peer,
    grpc::{
        self, MESSAGE_FRAMING,
        accept::{accepted, required},
        unary,
    },
    http::{TOKEN_BYTES_MAX, bearer, body, current, guarded},
    rest::{self, Fields},
};

/// Path of the methods.
const PATH: &str = "/proto.SpaceCloud/";
/// Methods whose calls take as long as a file is large, or a function says.
const OF_OWN_TIME: [&str; 3] = ["Call", "UploadFile", "DownloadFile"];
/// Methods whose messages are counted for the connection of the caller.
const OF_CONNECTION: [&str; 2] = ["RealTime", "Service"];
/// Methods whose calls may be counted for the address of the caller.
const OF_FILES: [&str; 5] = ["CreateFolder", "ListFiles", "DeleteFile", "UploadFile", "DownloadFile"];

/// Bytes of a message that begins a live query: a stream may wait for the rest of one for long.
const LIVE_QUERY_BYTES: usize = 64 * 1024;
/// Bytes of a message of a worker, whose stream ends where it may not be one.
const WORKER_BYTES: usize = 1024 * 1024;

/// The answers of one call.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The handlers.
#[derive(Clone)]
pub struct SpaceCloud {
    service: Service,
}

/// A call that is accepted: who asks, about which project, and the message.
struct AskedCall<M> {
    caller: Caller,
    project: Option<Arc<Project>>,
    meta: api::Meta,
    message: M,
    /// Where the caller is, of calls that count for it.
    peer: Option<IpAddr>,
}

/// Whether `path` is of a method.
pub fn is_path(path: &str) -> bool {
    path.strip_prefix(PATH).is_some_and(|method| !method.is_empty() && !method.contains('/'))
}

/// Whether the call to `path` takes as long as its handler says.
pub fn has_own_time(path: &str) -> bool {
    path.strip_prefix(PATH).is_some_and(|method| OF_OWN_TIME.contains(&method))
}

/// Whether the call to `path` counts for the connection of its caller, or for their address.
pub fn is_of_connection(path: &str) -> bool {
    let counts = |method: &str| OF_CONNECTION.contains(&method) || OF_FILES.contains(&method);
    path.strip_prefix(PATH).is_some_and(counts)
}

/// The server of the service.
#[derive(Clone)]
pub struct Server {
    /// Bytes that a message may have.
    limit: usize,
    /// Until when a message has to be there.
    time: Duration,
    unary: SpaceCloudServer<SpaceCloud>,
    live_queries: SpaceCloudServer<SpaceCloud>,
    workers: SpaceCloudServer<SpaceCloud>,
}

impl Server {
    /// Of a gateway.
    pub fn new(service: &Service) -> Self {
        let handlers = Arc::new(SpaceCloud { service: service.clone() });
        let of = |limit: usize| {
            let server = SpaceCloudServer::from_arc(handlers.clone());
            server.max_decoding_message_size(limit).max_encoding_message_size(usize::MAX)
        };
        let (limit, time) = (service.config().body_bytes, service.config().time);
        let unary = of(limit.saturating_add(MESSAGE_FRAMING));
        Self { limit, time, unary, live_queries: of(LIVE_QUERY_BYTES), workers: of(WORKER_BYTES) }
    }

    /// The answer to a request.
    pub async fn answer(&self, request: axum::extract::Request) -> axum::response::Response {
        let request = match has_own_time(request.uri().path()) {
            true => match grpc::begun(request, self.limit, self.time).await {
                Ok(request) => request,
                Err(fault) => return refused(fault),
            },
            false => request,
        };
        let server = match request.uri().path().strip_prefix(PATH) {
            Some("RealTime") => &self.live_queries,
            Some("Service") => &self.workers,
            _ => &self.unary,
        };
        let Ok(response) = server.clone().call(request).await;
        grpc::with_fault_code(response)
    }
}

#[tonic::async_trait]
impl space_cloud_server::SpaceCloud for SpaceCloud {
    async fn create(&self, request: Request<api::CreateRequest>) -> ToldAnswer {
        told(Box::pin(self.create_rows(request))).await
    }

    async fn read(&self, request: Request<api::ReadRequest>) -> ToldAnswer {
        told(Box::pin(self.read_rows(request))).await
    }

    async fn update(&self, request: Request<api::UpdateRequest>) -> ToldAnswer {
        told(Box::pin(self.update_rows(request))).await
    }

    async fn delete(&self, request: Request<api::DeleteRequest>) -> ToldAnswer {
        told(Box::pin(self.delete_rows(request))).await
    }

    async fn aggregate(&self, _: Request<api::AggregateRequest>) -> ToldAnswer {
        told(Box::pin(async {
            Err::<Bytes, _>(error::bad_request("pipelines are not supported by this version").into())
        }))
        .await
    }

    async fn batch(&self, request: Request<api::BatchRequest>) -> ToldAnswer {
        told(Box::pin(self.write_batch(request))).await
    }

    async fn call(&self, request: Request<api::FunctionsRequest>) -> ToldAnswer {
        told(Box::pin(self.call_function(request))).await
    }

    type RealTimeStream = ToldMessages<api::RealTimeResponse>;

    async fn real_time(
        &self,
        request: Request<Streaming<api::RealTimeRequest>>,
    ) -> Result<tonic::Response<Self::RealTimeStream>, Status> {
        Box::pin(stream::serve::<live_query::LiveQueryFraming>(&self.service, request)).await
    }

    type ServiceStream = ToldMessages<api::FunctionsPayload>;

    async fn service(
        &self,
        request: Request<Streaming<api::FunctionsPayload>>,
    ) -> Result<tonic::Response<Self::ServiceStream>, Status> {
        Box::pin(stream::serve::<worker::WorkerFraming>(&self.service, request)).await
    }

    async fn create_folder(&self, request: Request<api::CreateFolderRequest>) -> ToldAnswer {
        told(Box::pin(self.make_folder(request))).await
    }

    async fn list_files(&self, request: Request<api::ListFilesRequest>) -> ToldAnswer {
        told(Box::pin(self.list(request))).await
    }

    async fn delete_file(&self, request: Request<api::DeleteFileRequest>) -> ToldAnswer {
        told(Box::pin(self.remove(request))).await
    }

    async fn upload_file(&self, request: Request<Streaming<api::UploadFileRequest>>) -> ToldAnswer {
        told(Box::pin(self.write(request))).await
    }

    type DownloadFileStream = Answers<api::FilePayload>;

    async fn download_file(
        &self,
        request: Request<api::DownloadFileRequest>,
    ) -> Result<tonic::Response<Self::DownloadFileStream>, Status> {
        Ok(tonic::Response::new(Box::pin(self.open(request)).await))
    }
}

/// An answer, or the error that is told in its place.
type ToldAnswer = Result<tonic::Response<api::Response>, Status>;

/// A fault, and whether its caller has sent a token.
struct RefusedCall {
    fault: Fault,
    has_token: bool,
}

impl From<Fault> for RefusedCall {
    fn from(fault: Fault) -> Self {
        Self { fault, has_token: true }
    }
}

impl RefusedCall {
    fn of<M>(accepted: &AskedCall<M>) -> impl Fn(Fault) -> Self + use<M> {
        let has_token = !accepted.caller.token.is_empty();
        move |fault| Self { fault, has_token }
    }

    /// The HTTP status and the text that clients know.
    fn told(&self) -> (i32, String) {
        (self.fault.code.http().into(), super::error_text(&self.fault, self.has_token).to_owned())
    }
}

/// What is told of a call that succeeds.
struct CallAnswer {
    result: Bytes,
    /// Whether rows were cut off.
    is_truncated: bool,
}

impl From<Bytes> for CallAnswer {
    fn from(result: Bytes) -> Self {
        Self { result, is_truncated: false }
    }
}

/// Response extension: the HTTP status that an answer tells.
#[derive(Debug, Clone, Copy)]
pub struct ToldStatus(pub u16);

/// Tells the answer of a call, or why there is none, also where it takes too long.
async fn told<A: Into<CallAnswer>>(mut answer: Pin<Box<impl Future<Output = Result<A, RefusedCall>>>>) -> ToldAnswer {
    let answered = guarded(&current(), answer.as_mut()).await.unwrap_or_else(|fault| Err(fault.into()));
    let (answer, is_truncated) = match answered.map(Into::into) {
        Ok(CallAnswer { result, is_truncated }) => {
            (api::Response { status: 200, error: String::new(), result }, is_truncated)
        }
        Err(refusal) => {
            let (status, error) = refusal.told();
            (api::Response { status, error, result: Bytes::new() }, false)
        }
    };
    let status = ToldStatus(u16::try_from(answer.status).unwrap_or(500));
    let mut response = tonic::Response::new(answer);
    response.extensions_mut().insert(status);
    if is_truncated {
        response.metadata_mut().insert("x-perigee-truncated", MetadataValue::from_static("true"));
    }
    Ok(response)
}

/// Whether a fault of the call to `path` is told in its answer.
pub fn is_told(path: &str) -> bool {
    path.strip_prefix(PATH).is_some_and(|method| !OF_CONNECTION.contains(&method))
}

/// `fault` as the answer to a call: all of them tell it by the same fields.
pub fn refused(fault: Fault) -> axum::response::Response {
    let (status, error) = RefusedCall::from(fault).told();
    let answer = unary::response(&api::Response { status, error, result: Bytes::new() });
    let mut response = answer.unwrap_or_else(grpc::refused);
    response.extensions_mut().insert(ToldStatus(u16::try_from(status).unwrap_or(500)));
    response
}

/// The token of a message.
fn token(text: &str) -> Result<Arc<str>, Fault> {
    match bearer(text) {
        token if token.len() > TOKEN_BYTES_MAX => {
            Err(error::bad_request(format!("token must be at most {TOKEN_BYTES_MAX} bytes long")))
        }
        token => Ok(token.into()),
    }
}

impl SpaceCloud {
    /// Who sends a message, of which `meta` takes what it is about.
    fn accept<M: Message>(
        &self,
        request: Request<M>,
        meta: impl FnOnce(&mut M) -> Option<api::Meta>,
    ) -> Result<AskedCall<M>, Fault> {
        let (metadata, extensions, mut message) = request.into_parts();
        let meta = meta(&mut message).ok_or_else(|| query::Error::Required("meta".to_owned()))?;
        required("meta.project", &meta.project)?;
        let (size, most) = (message.encoded_len(), self.service.config().body_bytes);
        if size > most {
            return Err(body::too_large(most, Some(size as u64)));
        }
        let head = (metadata.as_ref(), &extensions);
        let (mut caller, project) = accepted(&self.service, head, &message, &meta.project)?;
        if !meta.token.is_empty() {
            caller.token = token(&meta.token)?;
        }
        let peer = peer(&extensions);
        Ok(AskedCall { caller, project, meta, message, peer })
    }

    /// The JSON that the field `name` of a message holds; nothing where it has no byte.
    fn json(&self, name: &str, json: &[u8]) -> Result<Value, Fault> {
        if json.is_empty() {
            return Ok(Value::Null);
        }
        proto::json::parse(json, self.service.guard()).map_err(|cause| {
            let fault = Fault::from(cause);
            Fault { message: format!("invalid {name}: {}", fault.message), ..fault }
        })
    }

    async fn call_function(&self, request: Request<api::FunctionsRequest>) -> Result<Bytes, RefusedCall> {
        let project = request.get_ref().project.clone();
        // Clients of one language do not name it.
        let project = match (project.is_empty(), &self.service.edge().projects()[..]) {
            (true, [only]) => only.id.to_string(),
            _ => required("project", &project)?.to_owned(),
        };
        let accepted = self.accept(request, |message| {
            Some(api::Meta { project, token: std::mem::take(&mut message.token), ..api::Meta::default() })
        })?;
        let refusal = RefusedCall::of(&accepted);
        let AskedCall { mut caller, meta, message, .. } = accepted;
        let api::FunctionsRequest { params, timeout, service, function, .. } = message;
        let answered = async {
            let fields =
                vec![("params".to_owned(), self.json("params", &params)?), ("timeout".to_owned(), Value::Int(timeout))];
            required("service", &service)?;
            required("function", &function)?;
            caller.call.deadline = Some(Instant::now() + self.service.config().time);
            let project = pin!(self.service.edge().project(&caller, meta.project.as_str().into()));
            let project = guarded(&caller.call, project).await??;
            let fields = Fields::new(query::Object(fields));
            rest::call_by_fields(&self.service, &caller, &project, (service, function), fields).await?.result()
        };
        answered.await.map_err(refusal)
    }
}
