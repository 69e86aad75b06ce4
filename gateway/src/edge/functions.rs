//! Calls of functions: the rule is asked, then the service that carries them out.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use mesh::{
    Code, Fault,
    telemetry::{Counter, Metrics},
};
use proto::{
    Links,
    auth::{AuthorizeCallRequest, AuthorizeCallResponse, AuthorizeWorkerRequest, SignedGrant},
    functions::{CallRequest, CallResponse},
};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{Caller, Edge, batch_call::is_batch};
use crate::catalogue::Project;

/// Bytes of the text that a function says of its failure, for callers who see nothing else of its answer.
const ERROR_BYTES: usize = 1024;

/// A call of a function.
#[derive(Debug, Clone, PartialEq)]
pub struct FunctionCall {
    /// The service's id.
    pub service: String,
    /// The function's name.
    pub function: String,
    /// Its parameters, JSON.
    pub params: Bytes,
    /// Time until its answer, which only shortens the function's own.
    pub timeout: Option<Duration>,
}

impl FunctionCall {
    /// Milliseconds until its answer; 0: as many as the function says.
    pub(super) fn timeout_ms(&self) -> u64 {
        // No time at all would be the function's own.
        self.timeout.map_or(0, |timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).max(1))
    }
}

/// The answer of a function.
#[derive(Debug, Clone, PartialEq)]
pub struct FunctionAnswer {
    /// Its HTTP status.
    pub status: u16,
    /// JSON; empty where it has none.
    pub body: Bytes,
}

impl FunctionAnswer {
    /// What the service of functions answers.
    pub(crate) fn of(answer: CallResponse) -> Result<Self, Fault> {
        let status = u16::try_from(answer.status).ok().filter(|status| (200..600).contains(status));
        let Some(status) = status else {
            return Err(Fault::internal("the function could not be called", format!("status {}", answer.status)));
        };
        Ok(Self { status, body: answer.body })
    }

    /// The JSON of a call that succeeded. Errors: `FUNCTION` with the text of the function.
    pub fn result(self) -> Result<Bytes, Fault> {
        match (200..300).contains(&self.status) {
            true if self.body.is_empty() => Ok(Bytes::from_static(b"null")),
            true => Ok(self.body),
            false => Err(self.fault()),
        }
    }

    /// What the function says of its failure: its `error`, or that it failed.
    fn fault(&self) -> Fault {
        let json: Option<serde_json::Value> = serde_json::from_slice(&self.body).ok();
        let own = json.as_ref().and_then(|json| json.get("error")).and_then(|error| error.as_str());
        let text = match own.filter(|text| !text.is_empty()) {
            Some(text) => text.get(..text.floor_char_boundary(ERROR_BYTES)).unwrap_or_default().to_owned(),
            None => format!("the function answered with status {}", self.status),
        };
        Fault::new(Code::Function, text).with("status", self.status.to_string())
    }
}

/// Concurrency limit of calls, or of what waits as they do: functions may be slow, and requests of other kinds find room beside
/// them.
#[derive(Clone)]
pub(super) struct CallLimit {
    running: Arc<Semaphore>,
    limit: usize,
    /// What it is of.
    what: &'static str,
    shed: Counter,
}

impl CallLimit {
    /// Of calls: half of the requests that are answered at once.
    pub(super) fn of_calls(in_flight: usize, metrics: &Metrics) -> Self {
        Self::new(in_flight / 2, "calls of functions", metrics)
    }

    /// Of requests that wait for answers of triggers: a quarter of them.
    pub(super) fn of_waits(in_flight: usize, metrics: &Metrics) -> Self {
        Self::new(in_flight / 4, "requests that wait for answers of triggers", metrics)
    }

    fn new(limit: usize, what: &'static str, metrics: &Metrics) -> Self {
        let limit = limit.clamp(1, Semaphore::MAX_PERMITS);
        Self { running: Arc::new(Semaphore::new(limit)), limit, what, shed: metrics.shed("in_flight") }
    }

    /// Room for a call, until it is dropped. Errors: `TOO_MANY`.
    pub(super) fn enter(&self) -> Result<SemaphorePermit<'_>, Fault> {
        self.running.try_acquire().map_err(|_| {
            self.shed.inc();
            let text = format!("the limit of {} {} at once is reached, try again later", self.limit, self.what);
            Fault::new(Code::TooMany, text)
        })
    }
}

impl Edge {
    /// Calls a function, if its rule allows it. Dropped, the call is given up.
    pub(crate) async fn call_function(
        &self,
        caller: &Caller,
        project: &Project,
        call: FunctionCall,
    ) -> Result<FunctionAnswer, Fault> {
        let answered = Box::pin(self.called(caller, project, call)).await;
        if let Err(fault) = &answered {
            self.log_refusal(caller, fault);
        }
        answered
    }

    /// The grant to be a worker of a service, if its rule allows that.
    pub(crate) async fn worker_grant(
        &self,
        caller: &Caller,
        project: &str,
        service: &str,
    ) -> Result<Option<SignedGrant>, Fault> {
        let (project, token, service) = (project.to_owned(), caller.token.to_string(), service.to_owned());
        let asked = AuthorizeWorkerRequest { project, token, service };
        Ok(self.mesh.auth_rules().authorize_worker(&caller.call, asked).await?.grant)
    }

    async fn called(&self, caller: &Caller, project: &Project, call: FunctionCall) -> Result<FunctionAnswer, Fault> {
        match is_batch(project, &call) {
            true => Box::pin(self.called_with_list(caller, project, call)).await,
            false => self.called_once(caller, project, call).await,
        }
    }

    async fn called_once(
        &self,
        caller: &Caller,
        project: &Project,
        call: FunctionCall,
    ) -> Result<FunctionAnswer, Fault> {
        let asked = Self::asked_of(caller, project, &call);
        let (request, _) = self.authorized_call(caller, project, (call, asked)).await?;
        let _running = self.calls.enter()?;
        FunctionAnswer::of(self.mesh.functions().call(&caller.call, request).await?)
    }

    /// A call that the rule of its function allows, and milliseconds since the Unix epoch from which the caller's token is void.
    pub(super) async fn authorized_call(
        &self,
        caller: &Caller,
        project: &Project,
        (call, asked): (FunctionCall, AuthorizeCallRequest),
    ) -> Result<(CallRequest, Option<i64>), Fault> {
        let (timeout_ms, answer_bytes) = (call.timeout_ms(), self.answer_bytes(project));
        let AuthorizeCallResponse { grant, token_expires_ms, .. } =
            self.mesh.auth_rules().authorize_call(&caller.call, asked).await?;
        Ok((CallRequest { grant, params: call.params, timeout_ms, answer_bytes }, token_expires_ms))
    }

    /// What the rule of a function is asked of a call.
    pub(super) fn asked_of(caller: &Caller, project: &Project, call: &FunctionCall) -> AuthorizeCallRequest {
        AuthorizeCallRequest {
            project: project.id.to_string(),
            token: caller.token.to_string(),
            service: call.service.clone(),
            function: call.function.clone(),
            params: call.params.clone(),
            of_operator: false,
            is_list: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> FunctionAnswer {
        FunctionAnswer { status, body: Bytes::copy_from_slice(body.as_bytes()) }
    }

    #[test]
    fn an_answer_is_its_json_or_the_text_of_its_failure() {
        assert_eq!(answer(201, "[1]").result(), Ok(Bytes::from_static(b"[1]")));
        assert_eq!(answer(204, "").result(), Ok(Bytes::from_static(b"null")));
        let text = |status, body: &str| answer(status, body).result().map_err(|fault| fault.message);
        assert_eq!(text(500, r#"{"error":"boom"}"#), Err("boom".to_owned()));
        for body in ["", "[]", r#"{"error":""}"#, r#"{"error":{"a":1}}"#, "null"] {
            assert_eq!(text(404, body), Err("the function answered with status 404".to_owned()), "{body}");
        }
        let long = format!(r#"{{"error":"{}"}}"#, "ä".repeat(ERROR_BYTES));
        assert_eq!(text(500, &long).unwrap_err().len(), ERROR_BYTES);
        assert_eq!(answer(404, "").result().unwrap_err().detail("status"), Some("404"));
    }
}
