//! The service and its RPCs.

use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures::StreamExt;
use mesh::{
    Call, Code, Component, ComponentState, Fault, Mesh, Tasks, clock,
    config::ServiceName,
    resources::Current,
    telemetry::{Gauge, Metrics},
};
use proto::{
    auth::{CallGrant, SignedGrant},
    functions::{
        CAPACITY, CAPACITY_MAX, CallRequest, CallResponse, FUNCTIONS_MAX, QueueRequest, QueueResponse, Register,
        WorkRequest, WorkResponse, work_request,
    },
    grant::Verifier,
    link::Messages,
    services::functions::functions_server::Functions,
};
use query::function::Function;
use tonic::{Request, Response, Status, Streaming};
use tracing::warn;

use crate::{
    Config, Error, answer,
    breaker::{Admitted, Outcome},
    client::{Client, SendError},
    events::{CustomEvents, Events},
    request::request,
    retries::CallRetries,
    targets::{FunctionState, Target, Targets},
    workers::{self, Invocation, Registration, Workers},
};

/// How long a worker may take to register.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(10);

/// The service of functions.
#[derive(Clone)]
pub struct Service {
    targets: Targets,
    verifier: Verifier,
    /// Why there is none where it could not be made.
    client: Result<Client, String>,
    workers: Workers,
    /// `None` where there is no client either.
    events: Option<CustomEvents>,
    tasks: Tasks,
    metrics: Metrics,
}

impl Service {
    /// Starts with the services of the resources in force, and follows them.
    pub fn start(mesh: Mesh, config: Config, current: Current, verifier: Verifier, tasks: Tasks) -> Self {
        let targets = Targets::start(current.clone(), &tasks);
        let client = Client::new(config.egress);
        let state = match &client {
            Ok(_) => ComponentState::Ready,
            Err(cause) => ComponentState::Failing(format!("no HTTP client: {cause}")),
        };
        mesh.health().set(Component::Service(ServiceName::of(&proto::services::functions::FUNCTIONS)), state);
        let events = client
            .as_ref()
            .ok()
            .map(|client| Events::start(mesh.clone(), (config.queue, &config.data), client.clone(), current, &tasks));
        let workers = Workers::new(mesh.metrics().function_workers());
        Self { targets, verifier, client, workers, events, tasks, metrics: mesh.metrics().clone() }
    }

    /// What a grant is for.
    fn granted(&self, grant: Option<SignedGrant>) -> Result<CallGrant, Error> {
        let grant = self.verifier.call_grant(grant.ok_or(Error::WrongGrant("there is none"))?)?;
        match clock::unix_ms(SystemTime::now()) >= grant.expires_ms {
            true => Err(Error::WrongGrant("it is void")),
            false => Ok(grant),
        }
    }

    /// Queues custom events that a grant is for.
    async fn enqueue(&self, mut message: QueueRequest) -> Result<QueueResponse, Fault> {
        let grant = message.grant.take().ok_or(Error::WrongGrant("there is none"))?;
        let grant = self.verifier.event_grant(grant).map_err(Error::from)?;
        if clock::unix_ms(SystemTime::now()) >= grant.expires_ms {
            return Err(Error::WrongGrant("it is void").into());
        }
        if message.events.iter().any(|event| !grant.types.contains(&event.r#type)) {
            return Err(Error::WrongGrant("it is for other types of events").into());
        }
        let no_client = || Fault::new(Code::Unavailable, "this node has no queue of events");
        let events = self.events.as_ref().ok_or_else(no_client)?;
        Ok(events.queue(&grant.project, message).await?)
    }

    /// Makes whoever sends `messages` a worker: the messages to it.
    async fn register(&self, mut messages: Streaming<WorkRequest>) -> Result<Messages<WorkResponse>, Error> {
        let first = tokio::time::timeout(REGISTER_TIMEOUT, messages.next()).await;
        let Ok(Some(Ok(WorkRequest { message: Some(work_request::Message::Register(register)) }))) = first else {
            return Err(Error::Registration("expected a first message that registers"));
        };
        let Register { grant, functions, capacity } = register;
        let grant = self.verifier.worker_grant(grant.ok_or(Error::WrongGrant("there is none"))?)?;
        if clock::unix_ms(SystemTime::now()) >= grant.expires_ms {
            return Err(Error::WrongGrant("it is void"));
        }
        if capacity > CAPACITY_MAX || functions.len() > FUNCTIONS_MAX {
            return Err(Error::Registration("expected a capacity of at most 1000, and at most 1000 functions"));
        }
        let capacity = if capacity == 0 { CAPACITY } else { capacity };
        let (project, service) = (grant.project, grant.service);
        let registration = Registration { project, service, functions, capacity };
        workers::serve(&self.workers, registration, messages, &self.tasks)
    }

    /// Calls the function of a grant, once. Dropped, its request is given up.
    async fn invoke(&self, message: CallRequest) -> Result<CallResponse, Error> {
        let CallRequest { grant, params, timeout_ms, answer_bytes } = message;
        let grant = self.granted(grant)?;
        let target = self.targets.find(&grant.project, &grant.service, &grant.function)?;
        let Some((function, state)) = target.function(&grant.function) else {
            return Err(Error::Unknown { service: grant.service, function: grant.function });
        };
        let limit = function.request_bytes();
        if params.len() as u64 > limit {
            return Err(Error::LargeParameters { bytes: params.len(), limit });
        }
        let time = time(function.timeout(), timeout_ms);
        let deadline = Instant::now() + time;
        let answer_bytes = Some(answer_bytes)
            .filter(|bytes| *bytes > 0)
            .map_or(function.answer_bytes(), |bytes| bytes.min(function.answer_bytes()));
        let admitted = admitted(&target, state, &grant)?;
        let outcome = Outcome::Unknown;
        let mut attempts =
            Attempts { service: self, target: &target, function, state, grant: &grant, params, answer_bytes, outcome };
        let answered = tokio::time::timeout_at(deadline.into(), attempts.run(deadline)).await;
        let answered = answered.unwrap_or(Err(Error::Deadline(time)));
        if admitted.is_some_and(|admitted| admitted.ended(attempts.outcome, Instant::now())) {
            let CallGrant { service, function, .. } = &grant;
            warn!(service, function, "function is not called for a while: its server cannot be reached");
            self.metrics.function_circuits_opened().inc();
        }
        answered
    }
}

/// Leave of the circuit breaker; `None` where there is none, because each worker is an instance of its own.
fn admitted<'s>(target: &Target, state: &'s FunctionState, grant: &CallGrant) -> Result<Option<Admitted<'s>>, Error> {
    if target.spec.http.is_none() {
        return Ok(None);
    }
    let open = |left: Duration| Error::CircuitOpen {
        service: grant.service.clone(),
        function: grant.function.clone(),
        // Up to the next one: never none, and never too soon.
        left: Duration::from_millis(u64::try_from(left.as_millis()).unwrap_or(u64::MAX).saturating_add(1)),
    };
    state.breaker.admit(Instant::now()).map(Some).map_err(open)
}

/// What the result of an attempt says of the server. One that is reached may break off or hang for what its caller sent, and
/// no caller must take a function away from others.
fn outcome(result: &Result<CallResponse, Error>) -> Outcome {
    match result {
        Err(Error::Unreachable { .. }) => Outcome::Failed,
        Ok(_) | Err(Error::NotJson(_) | Error::Redirect(_) | Error::WrongStatus(_) | Error::LargeAnswer(_)) => {
            Outcome::Healthy
        }
        Err(_) => Outcome::Unknown,
    }
}

/// The attempts of one call.
struct Attempts<'c> {
    service: &'c Service,
    target: &'c Target,
    function: &'c Function,
    state: &'c FunctionState,
    grant: &'c CallGrant,
    params: Bytes,
    answer_bytes: u64,
    /// Of the last attempt that has ended.
    outcome: Outcome,
}

impl Attempts<'_> {
    /// The first answer, or the last failure.
    async fn run(&mut self, deadline: Instant) -> Result<CallResponse, Error> {
        let mut retries = CallRetries::of(self.function);
        // Room for a call of a server is kept between attempts; a worker is looked for anew.
        let _running = match &self.target.spec.http {
            Some(_) => Some(self.state.limiter.enter().await?),
            None => None,
        };
        loop {
            let result = self.attempt(deadline).await;
            self.outcome = outcome(&result);
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(wait) = retries.wait(&result, left, rand::random()) else { return result };
            self.service.metrics.function_retries().inc();
            tokio::time::sleep(wait).await;
        }
    }

    async fn attempt(&self, deadline: Instant) -> Result<CallResponse, Error> {
        let Self { service, grant, function, .. } = self;
        let params = self.params.clone();
        let Some(server) = &self.target.spec.http else {
            let called = (&*grant.project, &*grant.service);
            let invocation =
                Invocation { function: grant.function.clone(), params, claims: grant.claims.clone(), deadline };
            let answer = service.workers.call(called, (function, &self.state.limiter), invocation).await?;
            return match answer.body.len() as u64 > self.answer_bytes {
                true => Err(Error::LargeAnswer(self.answer_bytes)),
                false => Ok(answer),
            };
        };
        let client = service.client.as_ref().map_err(|cause| Error::NoClient(cause.clone()))?;
        let left = deadline.saturating_duration_since(Instant::now());
        let request = request(server, function, grant, (params, left))?;
        let response = client.send(request).await.map_err(|error| failed(error, &grant.service))?;
        answer::read(response, &grant.service, self.answer_bytes).await
    }
}

/// The time of a call: that of its function, which the caller and the request it belongs to only shorten.
fn time(own: Duration, asked_ms: u64) -> Duration {
    let asked = Some(asked_ms).filter(|asked| *asked > 0).map(Duration::from_millis);
    let left = Call::current().and_then(|call| call.time_left());
    [asked, left].into_iter().flatten().fold(own, Duration::min)
}

fn failed(error: SendError, service: &str) -> Error {
    let service = service.to_owned();
    match error {
        SendError::Forbidden => Error::Forbidden(service),
        SendError::Unreachable(cause) => Error::Unreachable { service, cause },
        SendError::BrokeOff(cause) => Error::BrokeOff { service, cause },
    }
}

/// A call that runs or waits, counted until it is dropped.
struct Counted(Gauge);

impl Counted {
    fn begin(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The class of an HTTP status.
fn class(status: u32) -> &'static str {
    match status {
        200..=299 => "2xx",
        400..=499 => "4xx",
        _ => "5xx",
    }
}

#[tonic::async_trait]
impl Functions for Service {
    async fn call(&self, request: Request<CallRequest>) -> Result<Response<CallResponse>, Status> {
        let _counted = Counted::begin(self.metrics.function_calls());
        let answer = Box::pin(self.invoke(request.into_inner())).await?;
        self.metrics.function_answers(class(answer.status)).inc();
        Ok(Response::new(answer))
    }

    async fn queue(&self, request: Request<QueueRequest>) -> Result<Response<QueueResponse>, Status> {
        Ok(Response::new(Box::pin(self.enqueue(request.into_inner())).await?))
    }

    type WorkStream = Messages<WorkResponse>;

    async fn work(&self, request: Request<Streaming<WorkRequest>>) -> Result<Response<Messages<WorkResponse>>, Status> {
        Ok(Response::new(Box::pin(self.register(request.into_inner())).await?))
    }
}
