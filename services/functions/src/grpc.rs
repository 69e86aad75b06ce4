//! gRPC servers of users: any contract, found by reflection or in a file, called with JSON.

mod codec;
mod connection;
mod fields;
mod json;
mod reflection;
mod wire;

use std::{
    error::Error as _,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::{HeaderMap, HeaderValue, Uri, header::USER_AGENT};
use mesh::{
    Code, Tasks,
    contract::{Contract, ServiceMethod},
};
use proto::{auth::CallGrant, functions::CallResponse};
use query::{function::GrpcServer, resources::Numbers};
use serde_json::json;
use tokio::sync::Mutex;
use tonic::{Code as GrpcCode, Extensions, Request, Status, client::Grpc, metadata::MetadataMap};

use self::{codec::BytesCodec, connection::Connection, reflection::Untold};
use crate::{
    Error,
    client::{CheckedAddresses, SendError},
    conversions::Conversions,
    request::{identify, trace},
};

/// How long a server may take to tell its contract.
const REFLECTION_TIMEOUT: Duration = Duration::from_secs(5);
/// The least time between two questions for a method that is not known.
const ASK_INTERVAL: Duration = Duration::from_secs(5);
/// What the time that a server was told may be short of ours.
const CLOCK_SLACK: Duration = Duration::from_millis(20);
/// Bytes of the text that a server says of a failure.
const ERROR_BYTES: usize = 1024;
/// The status of a call that the server says failed, as of a worker.
const FAILED: u32 = 500;

/// A service of a gRPC server.
pub struct Remote {
    /// Where it is.
    pub server: GrpcServer,
    /// The id of its resource, for messages.
    id: String,
    origin: Uri,
    connection: Connection,
    /// What is known of it; by reflection it is asked for again.
    contract: ArcSwapOption<Contract>,
    /// Held by the question for the contract.
    asking: Mutex<LastQuestion>,
    conversions: Conversions,
}

/// The last question for a contract.
#[derive(Default)]
struct LastQuestion {
    /// When it began.
    began: Option<Instant>,
    /// When the last one failed, and why.
    failure: Option<(Instant, Error)>,
}

/// A call of a method.
pub struct MethodCall<'c> {
    /// Who calls which function.
    pub grant: &'c CallGrant,
    /// JSON.
    pub params: Bytes,
    /// When nobody waits any more; `None`: the call goes on.
    pub deadline: Option<Instant>,
    /// Most bytes of an answer.
    pub answer_bytes: u64,
    /// How integers are written.
    pub numbers: Numbers,
}

impl MethodCall<'_> {
    /// Whether its time is over, as far as a clock of another process can tell.
    fn is_over(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= Instant::now() + CLOCK_SLACK)
    }
}

impl Remote {
    /// The service of `server`, with the content of its descriptor file where it has one.
    pub fn new(
        server: GrpcServer,
        id: String,
        (addresses, tasks, conversions): (CheckedAddresses, Tasks, Conversions),
        descriptor: Option<&[u8]>,
    ) -> Result<Self, String> {
        let origin = server.url.0.parse::<Uri>().map_err(|error| error.to_string())?;
        let connection = Connection::new(server.url.clone(), addresses, tasks);
        let contract = descriptor.map(|content| Contract::of_set(content, &server.service.0)).transpose()?;
        let contract = ArcSwapOption::from(contract.map(Arc::new));
        Ok(Self { server, id, origin, connection, contract, asking: Mutex::default(), conversions })
    }

    /// Asks the server for its contract. One question serves all who wait for it. Cancel-safe.
    pub async fn ask(&self) -> Result<Arc<Contract>, Error> {
        let began = Instant::now();
        let before = self.contract.load_full();
        let mut last = self.asking.lock().await;
        let now = self.contract.load_full();
        if let Some(now) = now.filter(|now| before.as_ref().is_none_or(|before| !Arc::ptr_eq(before, now))) {
            return Ok(now);
        }
        if let Some((_, error)) = last.failure.as_ref().filter(|(failed, _)| *failed >= began) {
            return Err(error.clone());
        }
        last.began = Some(Instant::now());
        let asked = Box::pin(reflection::contract(&self.connection, &self.origin, &self.server.service.0));
        let late = || Untold::Invalid(format!("the server did not tell its contract within {REFLECTION_TIMEOUT:?}"));
        let asked = tokio::time::timeout(REFLECTION_TIMEOUT, asked).await.unwrap_or_else(|_| Err(late()));
        match asked {
            Ok(contract) => {
                let contract = Arc::new(contract);
                self.contract.store(Some(contract.clone()));
                Ok(contract)
            }
            Err(untold) => {
                let error = self.untold(untold);
                last.failure = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// What is known of the service; `None` where nothing is yet.
    pub fn known(&self) -> Option<Arc<Contract>> {
        self.contract.load_full()
    }

    fn untold(&self, untold: Untold) -> Error {
        let service = self.id.clone();
        match untold {
            Untold::Failed(status) => match transport_error(&status) {
                Some(SendError::BrokeOff(cause)) => Error::NoContract { service, cause },
                Some(error) => Error::unanswered(error, &service),
                None => Error::NoContract { service, cause: format!("{:?}: {}", status.code(), status.message()) },
            },
            Untold::Invalid(cause) => Error::NoContract { service, cause },
        }
    }

    async fn method(&self, function: &str) -> Result<ServiceMethod, Error> {
        let contract = match self.known() {
            Some(contract) => contract,
            None => self.ask().await?,
        };
        if let Some(method) = contract.methods.get(function) {
            return Ok(method.clone());
        }
        // The server may have been replaced by one that has it.
        let newer = if self.server.reflection && !self.has_asked_lately() { self.ask().await.ok() } else { None };
        let none = || Error::NoMethod { service: self.id.clone(), function: function.to_owned() };
        newer.and_then(|contract| contract.methods.get(function).cloned()).ok_or_else(none)
    }

    /// Whether the server is asked now, or was within the interval: names of methods are the callers'.
    fn has_asked_lately(&self) -> bool {
        let Ok(last) = self.asking.try_lock() else { return true };
        last.began.is_some_and(|began| began.elapsed() < ASK_INTERVAL)
    }

    fn client(&self, answer_bytes: u64) -> Grpc<Connection> {
        let most = usize::try_from(answer_bytes).unwrap_or(usize::MAX);
        Grpc::with_origin(self.connection.clone(), self.origin.clone()).max_decoding_message_size(most)
    }

    /// Calls a method that answers once. Dropped, the call is cancelled.
    pub async fn call(&self, call: MethodCall<'_>) -> Result<CallResponse, Error> {
        let function = &call.grant.function;
        let method = self.method(function).await?;
        if method.is_streaming {
            let why = "answers with a stream, which is asked for by Stream, a subscription or server-sent events";
            return Err(Error::NotCallable { function: function.clone(), why });
        }
        let request = self.request(&call, &method).await?;
        let mut client = self.client(call.answer_bytes);
        let failed = |status| self.failed(&status, call.answer_bytes);
        client.ready().await.map_err(|error| failed(Status::from_error(error.into())))?;
        match client.unary(request, method.path.clone(), BytesCodec).await {
            Ok(response) => {
                let options = (call.numbers, call.answer_bytes);
                let body = answer(response.into_inner(), &method, options, &self.conversions).await?;
                Ok(CallResponse { status: 200, body })
            }
            // Servers give up at the time that they were told, in their own words.
            Err(status) if status.code() == GrpcCode::Cancelled && call.is_over() => {
                Err(Error::Said { code: Code::Deadline, text: "the function did not answer in time".to_owned() })
            }
            Err(status) => match failed(status) {
                Error::Said { code: Code::Function, text } => {
                    Ok(CallResponse { status: FAILED, body: json!({ "error": text }).to_string().into() })
                }
                error => Err(error),
            },
        }
    }

    /// The answers of a method, many or one. Dropped, the call is cancelled.
    pub async fn stream(
        &self,
        call: MethodCall<'_>,
    ) -> Result<impl Stream<Item = Result<Bytes, Error>> + Send + use<>, Error> {
        let method = self.method(&call.grant.function).await?;
        let request = self.request(&call, &method).await?;
        let (limit, numbers, id) = (call.answer_bytes, call.numbers, self.id.clone());
        let conversions = self.conversions.clone();
        let mut client = self.client(limit);
        let failed = move |status: Status| failed(&status, &id, limit);
        client.ready().await.map_err(|error| failed(Status::from_error(error.into())))?;
        let response = client.server_streaming(request, method.path.clone(), BytesCodec).await;
        let messages = response.map_err(&failed)?.into_inner();
        Ok(messages.then(move |message| {
            let (method, message, conversions) = (method.clone(), message.map_err(&failed), conversions.clone());
            async move { answer(message?, &method, (numbers, limit), &conversions).await }
        }))
    }

    async fn request(&self, call: &MethodCall<'_>, method: &ServiceMethod) -> Result<Request<Bytes>, Error> {
        if method.takes_stream {
            let (function, why) = (call.grant.function.clone(), "takes a stream, and cannot be called");
            return Err(Error::NotCallable { function, why });
        }
        let (params, input) = (call.params.clone(), method.input.clone());
        let message = self.conversions.run(params.len(), move || json::message(&params, &input)).await?;
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_static("perigee"));
        identify(&mut headers, call.grant);
        let left = call.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        trace(&mut headers, left);
        let mut request = Request::from_parts(MetadataMap::from_headers(headers), Extensions::default(), message);
        if let Some(left) = left {
            request.set_timeout(left);
        }
        Ok(request)
    }

    fn failed(&self, status: &Status, limit: u64) -> Error {
        failed(status, &self.id, limit)
    }
}

/// A message as JSON, with numbers as the project wants them and of so many bytes at most.
async fn answer(
    message: Bytes,
    method: &ServiceMethod,
    (numbers, limit): (Numbers, u64),
    conversions: &Conversions,
) -> Result<Bytes, Error> {
    let output = method.output.clone();
    conversions.run(message.len(), move || json::json(message, &output, numbers, limit)).await
}

/// What the connection says of a failure; `None` where the server says it.
fn transport_error(status: &Status) -> Option<SendError> {
    let source = status.source()?;
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(source);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<SendError>() {
            return Some(error.clone());
        }
        cause = error.source();
    }
    Some(SendError::BrokeOff(source.to_string()))
}

/// The error of a call that failed.
fn failed(status: &Status, service: &str, limit: u64) -> Error {
    if let Some(error) = transport_error(status) {
        return Error::unanswered(error, service);
    }
    // The client says so of an answer over the limit; a server that says the same means the same.
    if status.code() == GrpcCode::OutOfRange && status.message().starts_with("Error, decoded message length too large")
    {
        return Error::LargeAnswer(limit);
    }
    let code = match status.code() {
        GrpcCode::InvalidArgument => Code::BadRequest,
        GrpcCode::NotFound => Code::NotFound,
        GrpcCode::PermissionDenied => Code::Denied,
        GrpcCode::ResourceExhausted => Code::TooMany,
        GrpcCode::Unavailable => Code::Unavailable,
        GrpcCode::DeadlineExceeded => Code::Deadline,
        _ => Code::Function,
    };
    let text = match status.message() {
        "" => format!("the function answered with {:?}", status.code()),
        text => text.get(..text.floor_char_boundary(ERROR_BYTES)).unwrap_or_default().to_owned(),
    };
    Error::Said { code, text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(status: &Status) -> (Code, String) {
        let fault = mesh::Fault::from(failed(status, "mail", 5));
        (fault.code, fault.message)
    }

    #[test]
    fn some_codes_keep_their_meaning() {
        for (of_server, code) in [
            (GrpcCode::InvalidArgument, Code::BadRequest),
            (GrpcCode::NotFound, Code::NotFound),
            (GrpcCode::PermissionDenied, Code::Denied),
            (GrpcCode::ResourceExhausted, Code::TooMany),
            (GrpcCode::Unavailable, Code::Unavailable),
            (GrpcCode::DeadlineExceeded, Code::Deadline),
            (GrpcCode::Unknown, Code::Function),
            (GrpcCode::Internal, Code::Function),
            (GrpcCode::Unauthenticated, Code::Function),
            (GrpcCode::AlreadyExists, Code::Function),
        ] {
            assert_eq!(told(&Status::new(of_server, "x")), (code, "x".to_owned()));
        }
        assert_eq!(told(&Status::new(GrpcCode::NotFound, "")).1, "the function answered with NotFound");
        assert_eq!(told(&Status::unknown("ä".repeat(2000))).1.len(), ERROR_BYTES);
        let large =
            Status::out_of_range("Error, decoded message length too large: found 9 bytes, the limit is: 5 bytes");
        assert_eq!(told(&large).0, Code::TooLarge);
    }

    #[test]
    fn what_the_connection_says_is_not_the_server() {
        let of = |error: SendError| told(&Status::from_error(error.into())).0;
        assert_eq!(of(SendError::Forbidden), Code::BadGateway);
        assert_eq!(of(SendError::Unreachable("refused".to_owned())), Code::Unavailable);
        assert_eq!(of(SendError::BrokeOff("reset".to_owned())), Code::BadGateway);
    }
}
