//! The attempts of one call: with leave of the circuit breaker, within its time, again where that may help.

use std::time::{Duration, Instant};

use bytes::Bytes;
use mesh::{Call, telemetry::Metrics};
use proto::{auth::CallGrant, functions::CallResponse};
use query::function::Function;

use crate::{
    Error, answer,
    breaker::{Admitted, Outcome},
    client::Client,
    conversions::Conversions,
    grpc::MethodCall,
    request::request,
    retries::CallRetries,
    targets::{FunctionState, Target},
    workers::{Invocation, Workers},
};

/// What calls are made with. Clones are the same.
#[derive(Clone)]
pub struct CallMeans {
    /// Why there is none where it could not be made.
    pub client: Result<Client, String>,
    /// The workers of all services.
    pub workers: Workers,
    /// Room for large messages.
    pub conversions: Conversions,
    /// Counts what is tried again, and functions that are not called for a while.
    pub metrics: Metrics,
}

impl CallMeans {
    /// Tells the circuit breaker how a call has ended.
    pub fn ended(&self, admitted: Option<Admitted<'_>>, outcome: Outcome, grant: &CallGrant) {
        if admitted.is_some_and(|admitted| admitted.ended(outcome, Instant::now())) {
            let CallGrant { service, function, .. } = grant;
            tracing::warn!(service, function, "function is not called for a while: its server cannot be reached");
            self.metrics.function_circuits_opened().inc();
        }
    }
}

/// Leave of the circuit breaker; `None` where there is none, because each worker is an instance of its own.
pub fn admitted<'s>(
    target: &Target,
    state: &'s FunctionState,
    grant: &CallGrant,
) -> Result<Option<Admitted<'s>>, Error> {
    if target.spec.worker.is_some() {
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
pub fn outcome<T>(result: &Result<T, Error>) -> Outcome {
    match result {
        Err(Error::Unreachable { .. }) => Outcome::Failed,
        Ok(_)
        | Err(
            Error::NotJson(_)
            | Error::Redirect(_)
            | Error::WrongStatus(_)
            | Error::LargeAnswer(_)
            | Error::WrongMessage { .. }
            | Error::WrongBatch { .. }
            | Error::WrongOutput(_)
            | Error::Said { .. },
        ) => Outcome::Healthy,
        Err(_) => Outcome::Unknown,
    }
}

/// The attempts of one call.
pub struct Attempts<'c> {
    /// What they are made with.
    pub means: &'c CallMeans,
    /// What is called.
    pub target: &'c Target,
    /// Its settings.
    pub function: &'c Function,
    /// What is known of its calls.
    pub state: &'c FunctionState,
    /// Who calls it.
    pub grant: &'c CallGrant,
    /// JSON.
    pub params: Bytes,
    /// Most bytes of the answer.
    pub answer_bytes: u64,
    /// Of the last attempt that has ended.
    pub outcome: Outcome,
}

impl Attempts<'_> {
    /// The first answer, or the last failure.
    pub async fn run(&mut self, deadline: Instant) -> Result<CallResponse, Error> {
        let mut retries = CallRetries::of(self.function);
        // Room for a call of a server is kept between attempts; a worker is looked for anew.
        let _running = match &self.target.spec.worker {
            None => Some(self.state.limiter.enter().await?),
            Some(_) => None,
        };
        loop {
            let result = self.attempt(deadline).await;
            self.outcome = outcome(&result);
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(wait) = retries.wait(&result, left, rand::random()) else { return result };
            self.means.metrics.function_retries().inc();
            tokio::time::sleep(wait).await;
        }
    }

    /// One of them.
    async fn attempt(&self, deadline: Instant) -> Result<CallResponse, Error> {
        let Self { means, grant, function, .. } = self;
        let params = self.params.clone();
        if let Some(remote) = self.target.remote() {
            let (answer_bytes, numbers) = (self.answer_bytes, self.target.numbers);
            let deadline = Some(deadline);
            let call = MethodCall { grant, params, deadline, answer_bytes, numbers };
            return Box::pin(remote?.call(call)).await;
        }
        let Some(server) = &self.target.spec.http else {
            let called = (&*grant.project, &*grant.service);
            let invocation =
                Invocation { function: grant.function.clone(), params, claims: grant.claims.clone(), deadline };
            let answer = means.workers.call(called, (function, &self.state.limiter), invocation).await?;
            return match answer.body.len() as u64 > self.answer_bytes {
                true => Err(Error::LargeAnswer(self.answer_bytes)),
                false => Ok(answer),
            };
        };
        let client = means.client.as_ref().map_err(|cause| Error::NoClient(cause.clone()))?;
        let left = deadline.saturating_duration_since(Instant::now());
        let request = request(server, function, grant, (params, left))?;
        let response = client.send(request).await.map_err(|error| Error::unanswered(error, &grant.service))?;
        answer::read(response, &grant.service, self.answer_bytes).await
    }
}

/// The time of a call: that of its function, which the caller and the request it belongs to only shorten.
pub fn time(own: Duration, asked_ms: u64) -> Duration {
    let asked = Some(asked_ms).filter(|asked| *asked > 0).map(Duration::from_millis);
    let left = Call::current().and_then(|call| call.time_left());
    [asked, left].into_iter().flatten().fold(own, Duration::min)
}
