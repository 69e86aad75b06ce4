//! Calls of functions: `services/{service}/{function}` answers as the function does, `functions/{service}/{function}`
//! puts its answer into `result`.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    response::Response,
    routing::post,
};
use bytes::Bytes;
use http::{StatusCode, request::Parts};
use mesh::{Call, Fault};
use query::{Value, function::TIMEOUT_MAX};

use super::{
    call_stream::{self, Wrapping, asks_for_events, in_object},
    fields::Fields,
    respond,
};
use crate::{
    Service,
    catalogue::Project,
    edge::{Caller, FunctionAnswer, FunctionCall},
    error,
    http::{API_PREFIX, answer, guarded, plain_segment},
};

/// A number up to this one is of seconds, a larger one of milliseconds: old clients send either.
const SECONDS_MAX: f64 = 300.0;
/// Time for what is around a call: its function ends it first.
const GRACE: Duration = Duration::from_secs(1);

/// Routes of calls.
pub fn routes() -> Router<Service> {
    Router::new()
        .route("/v1/api/{project}/services/{service}/{function}", post(bare))
        .route("/v1/api/{project}/functions/{service}/{function}", post(wrapped))
}

/// Whether `path` is one of calls, whose functions have times of their own.
pub fn is_call(path: &str) -> bool {
    let rest = path.strip_prefix(API_PREFIX).and_then(plain_segment);
    rest.is_some_and(|(_, rest)| rest.starts_with("services/") || rest.starts_with("functions/"))
}

type FunctionPath = Path<(String, String, String)>;

async fn bare(
    State(service): State<Service>,
    caller: Caller,
    Path(path): FunctionPath,
    head: Parts,
    body: Body,
) -> Response {
    answered(&service, &caller, path, (&head, Wrapping::Bare), body).await
}

async fn wrapped(
    State(service): State<Service>,
    caller: Caller,
    Path(path): FunctionPath,
    head: Parts,
    body: Body,
) -> Response {
    answered(&service, &caller, path, (&head, Wrapping::Result), body).await
}

/// The answer of the function that a path names, or its answers as events where those are asked for.
async fn answered(
    service: &Service,
    caller: &Caller,
    path: (String, String, String),
    (head, wrapping): (&Parts, Wrapping),
    body: Body,
) -> Response {
    let answered = match asks_for_events(&head.headers) {
        true => Box::pin(stream(service, caller, path, (head, wrapping), body)).await,
        false => call(service, caller, path, body).await.map(|answer| match wrapping {
            Wrapping::Bare => with_status(answer.status, answer.body),
            Wrapping::Result => in_result(answer, &caller.call),
        }),
    };
    respond(caller, answered)
}

/// `{"result": …}`, or the error of the function with its status.
fn in_result(answered: FunctionAnswer, call: &Call) -> Response {
    let status = answered.status;
    match answered.result() {
        Ok(json) => answer::json(StatusCode::OK, in_object(&json)),
        Err(fault) => {
            let mut response = answer::fault(&fault, call);
            *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            response
        }
    }
}

fn with_status(status: u16, body: Bytes) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if status == StatusCode::NO_CONTENT {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        return response;
    }
    answer::json(status, body)
}

/// The answer of the function that a path names.
async fn call(
    service: &Service,
    caller: &Caller,
    path: (String, String, String),
    body: Body,
) -> Result<FunctionAnswer, Fault> {
    let (own, project, call) = asked(service, caller, path, body).await?;
    let answered = pin!(service.edge().call_function(&own, &project, call));
    guarded(&own.call, answered).await?
}

/// The answers of the function that a path names, as events.
async fn stream(
    service: &Service,
    caller: &Caller,
    path: (String, String, String),
    told: (&Parts, Wrapping),
    body: Body,
) -> Result<Response, Fault> {
    let (own, project, call) = asked(service, caller, path, body).await?;
    let begun = pin!(call_stream::open(service, (&own, &project), call, told));
    guarded(&own.call, begun).await?
}

/// The call that a path and a body ask for, and its caller.
async fn asked(
    service: &Service,
    caller: &Caller,
    (project, name, function): (String, String, String),
    body: Body,
) -> Result<(Caller, Arc<Project>, FunctionCall), Fault> {
    let mut own = caller.clone();
    let request = async {
        let project = service.edge().project(caller, project.as_str().into()).await?;
        let fields = super::fields(service, &project, body).await?;
        Ok::<_, Fault>((project, fields))
    };
    own.call.deadline = Some(Instant::now() + service.config().time);
    let (project, fields) = guarded(&own.call, pin!(request)).await??;
    let (own, call) = call_of(&own, &project, (name, function), fields)?;
    Ok((own, project, call))
}

/// The answer of the function that the fields of a request call.
pub(crate) async fn call_by_fields(
    service: &Service,
    caller: &Caller,
    project: &Project,
    path: (String, String),
    fields: Fields,
) -> Result<FunctionAnswer, Fault> {
    let (own, call) = call_of(caller, project, path, fields)?;
    let answered = pin!(service.edge().call_function(&own, project, call));
    guarded(&own.call, answered).await?
}

/// The call of a function by the fields of a request, and its caller, who waits as long as the function takes at most.
fn call_of(
    caller: &Caller,
    project: &Project,
    (service, function): (String, String),
    mut fields: Fields,
) -> Result<(Caller, FunctionCall), Fault> {
    let timeout = timeout(&mut fields)?;
    let mut params = Vec::new();
    fields.take("params").unwrap_or(Value::Null).write_json(&mut params);
    let mut own = caller.clone();
    own.call.deadline = Some(Instant::now() + limit(project, &service, &function, timeout) + GRACE);
    Ok((own, FunctionCall { service, function, params: params.into(), timeout }))
}

/// The time that a call may take.
fn limit(project: &Project, service: &str, function: &str, asked: Option<Duration>) -> Duration {
    let own = project.function(service, function).map_or(TIMEOUT_MAX, query::function::Function::timeout);
    asked.map_or(own, |asked| asked.min(own))
}

/// The `timeout` of a body; `None` where it leaves that to the function.
fn timeout(fields: &mut Fields) -> Result<Option<Duration>, Fault> {
    let number = match fields.take("timeout") {
        None => return Ok(None),
        Some(Value::Int(number)) => number as f64,
        Some(Value::Number(text)) => text.parse().unwrap_or(f64::NAN),
        Some(other) => return Err(fields.wrong_type("timeout", "number", &other)),
    };
    let seconds = if number <= SECONDS_MAX { number } else { number / 1000.0 };
    let time = Duration::try_from_secs_f64(seconds);
    let time = time.map_err(|_| error::bad_request(format!("invalid timeout: expected seconds, found {number}")))?;
    Ok(Some(time).filter(|time| !time.is_zero()))
}

#[cfg(test)]
mod tests {
    use mesh::Code;
    use query::Object;

    use super::*;

    fn timeout_of(value: Value) -> Result<Option<Duration>, Code> {
        let mut fields = Fields::new(Object(vec![("timeout".to_owned(), value)]));
        timeout(&mut fields).map_err(|fault| fault.code)
    }

    #[test]
    fn small_numbers_are_seconds_and_large_ones_milliseconds() {
        let number = |text: &str| timeout_of(Value::number(text).unwrap());
        assert_eq!(number("5"), Ok(Some(Duration::from_secs(5))));
        assert_eq!(number("0.5"), Ok(Some(Duration::from_millis(500))));
        assert_eq!(number("300"), Ok(Some(Duration::from_secs(300))));
        assert_eq!(number("301"), Ok(Some(Duration::from_millis(301))));
        assert_eq!(number("5000"), Ok(Some(Duration::from_secs(5))));
        assert_eq!(number("0"), Ok(None));
        assert_eq!(timeout_of(Value::Null), Ok(None));
        assert_eq!(number("-1"), Err(Code::BadRequest));
        assert_eq!(number("1e400"), Err(Code::BadRequest));
        assert_eq!(timeout_of(Value::Text("5".to_owned())), Err(Code::BadRequest));
    }

    #[test]
    fn paths_of_calls_are_told_from_others() {
        assert!(is_call("/v1/api/shop/services/mail/send") && is_call("/v1/api/shop/functions/mail/send"));
        assert!(!is_call("/v1/api/shop/crud/services/t/read") && !is_call("/v1/api/shop/graphql"));
    }
}
