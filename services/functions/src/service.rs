//! The service and its RPCs.

use std::time::{Duration, Instant, SystemTime};

use futures::{StreamExt, stream};
use mesh::{
    Code, Component, ComponentState, Fault, Mesh, Tasks, clock, config::ServiceName, resources::Current,
    telemetry::Gauge,
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
use tonic::{Request, Response, Status, Streaming};

use crate::{
    Config, Error,
    answer_cache::{self, AnswerCache},
    asked::AskedCall,
    attempts::{Attempts, CallMeans, admitted, time},
    batch::ItemBatch,
    breaker::Outcome,
    client::{CheckedAddresses, Client},
    conversions::Conversions,
    events::{CustomEvents, Events},
    health::PartHealth,
    streams,
    targets::{Surroundings, Targets},
    workers::{self, Registration, Workers},
};

/// How long a worker may take to register.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(10);

/// The service of functions.
#[derive(Clone)]
pub struct Service {
    targets: Targets,
    verifier: Verifier,
    means: CallMeans,
    /// `None` where there is no client.
    events: Option<CustomEvents>,
    tasks: Tasks,
    kept: AnswerCache,
}

impl Service {
    /// Starts with the services of the resources in force, and follows them.
    pub fn start(mesh: Mesh, config: Config, current: Current, verifier: Verifier, tasks: Tasks) -> Self {
        let health = PartHealth::new(mesh.health().clone());
        let addresses = CheckedAddresses::new(config.egress);
        let conversions = Conversions::new();
        let surroundings = Surroundings {
            addresses: addresses.clone(),
            conversions: conversions.clone(),
            health: health.clone(),
            tasks: tasks.clone(),
        };
        let client = Client::new(addresses);
        let component = Component::Service(ServiceName::of(&proto::services::functions::FUNCTIONS));
        mesh.health().set(component, ComponentState::Ready);
        if let Err(cause) = &client {
            health.set("HTTP client", Some(cause.clone()));
        }
        let targets = Targets::start(current.clone(), surroundings);
        let events = client.as_ref().ok().map(|client| {
            Events::start(mesh.clone(), (config.queue, &config.data), (client.clone(), health), current, &tasks)
        });
        let workers = Workers::new(mesh.metrics().function_workers());
        let means = CallMeans { client, workers, conversions, metrics: mesh.metrics().clone() };
        Self { targets, verifier, means, events, tasks, kept: AnswerCache::new() }
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
        workers::serve(&self.means.workers, registration, messages, &self.tasks)
    }

    /// The call that a message asks for.
    async fn asked(&self, message: CallRequest) -> Result<AskedCall, Error> {
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
        state.schemas.check_input(&params, &self.means.conversions).await?;
        let time = time(function.timeout(), timeout_ms);
        let answer_bytes = Some(answer_bytes)
            .filter(|bytes| *bytes > 0)
            .map_or(function.answer_bytes(), |bytes| bytes.min(function.answer_bytes()));
        Ok(AskedCall { grant, target, params, time, answer_bytes })
    }

    async fn called(&self, message: CallRequest) -> Result<CallResponse, Error> {
        let asked = self.asked(message).await?;
        Box::pin(self.answer(asked)).await
    }

    /// The answer of the function of a grant. Dropped, its request is given up.
    async fn answer(&self, mut asked: AskedCall) -> Result<CallResponse, Error> {
        let (function, _) = asked.function()?;
        let kept = function.cache.as_ref().map(|settings| {
            let key = answer_cache::key(settings, asked.target.number, &asked.grant, &asked.params)?;
            Ok::<_, Error>((key, settings.ttl()))
        });
        let kept = kept.transpose()?;
        if let Some(answer) = kept.as_ref().and_then(|(key, _)| self.kept.answer(key, Instant::now())) {
            let limit = asked.answer_bytes;
            return if answer.body.len() as u64 > limit { Err(Error::LargeAnswer(limit)) } else { Ok(answer) };
        }
        let batch = self.batch(&asked).await?;
        if let Some(batch) = &batch {
            if let Some(answer) = batch.answered() {
                return Ok(answer);
            }
            asked.params = batch.params.clone();
        }
        let answer = Box::pin(self.invoke(&asked)).await?;
        let (_, state) = asked.function()?;
        let conversions = &self.means.conversions;
        state.schemas.check_output((answer.status, &answer.body), conversions).await?;
        let (bytes, limit) = (answer.body.len(), asked.answer_bytes);
        let answer = match batch {
            Some(batch) => conversions.run(bytes, move || batch.answer(answer, limit)).await?,
            None => answer,
        };
        if let Some((key, ttl)) = kept {
            self.kept.keep(key, &answer, (Instant::now(), ttl));
        }
        Ok(answer)
    }

    /// The items of a call of a function that takes lists. Errors: the rule was asked of something else.
    async fn batch(&self, asked: &AskedCall) -> Result<Option<ItemBatch>, Error> {
        let (function, _) = asked.function()?;
        let (CallGrant { is_list, of_operator, .. }, params) = (&asked.grant, asked.params.clone());
        let batch = match function.batch {
            true => Some(self.means.conversions.run(params.len(), move || ItemBatch::of(&params)).await?),
            false => None,
        };
        let is_taken_as_list = batch.as_ref().is_some_and(|batch| !batch.is_single);
        match *of_operator || *is_list == is_taken_as_list {
            true => Ok(batch),
            false => Err(Error::Edited),
        }
    }

    /// Calls the function of a grant, once.
    async fn invoke(&self, asked: &AskedCall) -> Result<CallResponse, Error> {
        let (function, state) = asked.function()?;
        let AskedCall { grant, target, params, time, answer_bytes } = asked;
        let deadline = Instant::now() + *time;
        let admitted = admitted(target, state, grant)?;
        let (params, answer_bytes, outcome) = (params.clone(), *answer_bytes, Outcome::Unknown);
        let mut attempts =
            Attempts { means: &self.means, target, function, state, grant, params, answer_bytes, outcome };
        let answered = tokio::time::timeout_at(deadline.into(), attempts.run(deadline)).await;
        let answered = answered.unwrap_or(Err(Error::Deadline(*time)));
        self.means.ended(admitted, attempts.outcome, grant);
        answered
    }

    /// The answers of the function of a grant. Dropped, its request is given up.
    async fn open(&self, message: CallRequest) -> Result<Messages<CallResponse>, Error> {
        let asked = self.asked(message).await?;
        if asked.target.remote().is_some() {
            let answers = Box::pin(streams::open(&self.means, asked)).await?;
            return Ok(answers.map(|message| message.map_err(Status::from)).boxed());
        }
        // One answer is a stream of one.
        let answer = Box::pin(self.answer(asked)).await?;
        Ok(stream::iter([Ok(answer)]).boxed())
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
        let _counted = Counted::begin(self.means.metrics.function_calls());
        let answer = Box::pin(self.called(request.into_inner())).await?;
        self.means.metrics.function_answers(class(answer.status)).inc();
        Ok(Response::new(answer))
    }

    async fn queue(&self, request: Request<QueueRequest>) -> Result<Response<QueueResponse>, Status> {
        Ok(Response::new(Box::pin(self.enqueue(request.into_inner())).await?))
    }

    type StreamStream = Messages<CallResponse>;

    async fn stream(&self, request: Request<CallRequest>) -> Result<Response<Messages<CallResponse>>, Status> {
        let counted = Counted::begin(self.means.metrics.function_calls());
        let answers = Box::pin(self.open(request.into_inner())).await?;
        let metrics = self.means.metrics.clone();
        let answers = answers.inspect(move |answer| {
            // Until the stream is dropped.
            let _counted = &counted;
            if let Ok(answer) = answer {
                metrics.function_answers(class(answer.status)).inc();
            }
        });
        Ok(Response::new(answers.boxed()))
    }

    type WorkStream = Messages<WorkResponse>;

    async fn work(&self, request: Request<Streaming<WorkRequest>>) -> Result<Response<Messages<WorkResponse>>, Status> {
        Ok(Response::new(Box::pin(self.register(request.into_inner())).await?))
    }
}
