//! Workers of a JSON socket: they register by `service-register`, and get and answer calls by `service-request`.

use std::{mem::size_of, sync::Arc};

use futures::stream;
use mesh::Fault;
use proto::functions::WorkResult;
use query::{Object, Value};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use super::message::{self, Head};
use crate::{
    Service,
    live::Hold,
    socket::{Closing, Outgoing},
    worker::{FromWorker, Registration, ToWorker, WorkerCall, WorkerMessages},
};

/// Answers of a worker that wait to be handed on; with more, its connection is closed.
const ANSWERS_MAX: usize = 128;

/// A registration as its client sends it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RegisterRequest {
    /// The service.
    pub service: String,
    /// The project; empty: that of the socket.
    pub project: String,
    /// Its token; empty: that of the handshake.
    pub token: Arc<str>,
    /// Whether it is told of calls for which nobody waits any more: earlier clients do not know that message.
    pub takes_cancels: bool,
}

/// A worker of a socket.
pub struct SocketWorker {
    /// The gateway.
    pub service: Service,
    /// What it registers.
    pub registration: Registration,
    /// Whether it is told of calls for which nobody waits any more.
    pub takes_cancels: bool,
    /// Of the message that registers it.
    pub head: Head,
    /// Queues to the client.
    pub outgoing: Outgoing,
    /// What it holds in memory.
    pub hold: Hold,
    /// Its answers.
    pub answers: mpsc::Receiver<FromWorker>,
}

impl RegisterRequest {
    /// Parses the `data` of a message. Errors name what is wrong.
    pub fn of(data: Value) -> Result<Self, String> {
        let mut request = Self::default();
        for (name, value) in members(data)? {
            match name.as_str() {
                "service" => request.service = message::name_of(&name, value)?,
                "project" => request.project = message::name_of(&name, value)?,
                "token" => request.token = message::token(value)?,
                "cancel" => match value {
                    Value::Null => {}
                    Value::Bool(takes_cancels) => request.takes_cancels = takes_cancels,
                    other => return Err(format!("invalid cancel: expected boolean, found {}", other.kind())),
                },
                _ => {}
            }
        }
        Ok(request)
    }

    /// Approximate bytes of memory that it takes.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.service.len() + self.project.len() + self.token.len()
    }
}

/// The answer that `data` of a `service-request` is; `None` where it names no call.
pub fn answer(data: Value) -> Option<WorkResult> {
    let mut answer = WorkResult::default();
    for (name, value) in members(data).ok()? {
        match (name.as_str(), value) {
            ("id", Value::Text(id)) => answer.id = id,
            ("params", value) => answer.result = json(&value).into(),
            ("error", Value::Null) => {}
            ("error", Value::Text(error)) => answer.error = error,
            ("error", value) => answer.error = String::from_utf8_lossy(&json(&value)).into_owned(),
            _ => {}
        }
    }
    (!answer.id.is_empty()).then_some(answer)
}

fn members(data: Value) -> Result<Vec<(String, Value)>, String> {
    match data {
        Value::Object(Object(members)) => Ok(members),
        other => Err(format!("invalid data: expected object, found {}", other.kind())),
    }
}

fn json(value: &Value) -> Vec<u8> {
    let mut json = Vec::new();
    value.write_json(&mut json);
    json
}

impl SocketWorker {
    /// The queue of the answers of a worker.
    pub fn queue() -> (mpsc::Sender<FromWorker>, mpsc::Receiver<FromWorker>) {
        mpsc::channel(ANSWERS_MAX)
    }

    /// Registers it and hands it calls until it is dropped or refused. Why the connection ends, where it does.
    pub async fn run(self) -> Option<Closing> {
        let Self { service, registration, takes_cancels, head, outgoing, hold: _hold, answers } = self;
        // A client that takes nothing gets no calls.
        drop(outgoing.slot(0).await?);
        let name = registration.service.clone();
        let registered = match registration.checked() {
            Ok(registration) => Box::pin(registration.register(&service)).await,
            Err(fault) => Err(fault),
        };
        let slot = outgoing.slot(0).await?;
        let (session, to_worker) = match registered {
            Ok(registered) => registered,
            Err(fault) => {
                slot.refuse(head.not_registered(&fault.message)).done().await;
                return None;
            }
        };
        // The reply comes before the first call: they are told one after the other.
        let _written = slot.refuse(head.registered());
        let answers = stream::unfold(answers, |mut answers| async { Some((answers.recv().await?, answers)) });
        tokio::select! {
            ended = Box::pin(session.run(answers)) => ended.err().map(|fault| Closing::ended(&fault)),
            ended = tell(&outgoing, to_worker, &name, takes_cancels) => ended.err().map(|fault| Closing::ended(&fault)),
        }
    }
}

/// Sends the messages to a worker, until there are no more or the socket is closed. Errors: they take too much memory.
async fn tell(
    outgoing: &Outgoing,
    mut to_worker: WorkerMessages,
    service: &str,
    takes_cancels: bool,
) -> Result<(), Fault> {
    while let Some(message) = to_worker.next().await {
        let text = match &message {
            ToWorker::Call(call) => written_call(service, call),
            ToWorker::Cancel(id) if takes_cancels => written("service-cancel", CancelData { id }),
            // It connects again when the node closes its connection.
            ToWorker::Cancel(_) | ToWorker::Drain => continue,
        };
        drop(message);
        let Some(slot) = outgoing.slot_for(text.len()).await? else { return Ok(()) };
        // Nobody waits until it is written.
        let _ = slot.send(text).await.map_err(|(_, fault)| fault)?;
    }
    // What ended the session ends this.
    std::future::pending().await
}

#[derive(Serialize)]
struct Pushed<'a, T> {
    r#type: &'a str,
    data: T,
    id: &'a str,
}

#[derive(Serialize)]
struct CallData<'a> {
    id: &'a str,
    auth: &'a RawValue,
    params: &'a RawValue,
    service: &'a str,
    func: &'a str,
    error: &'a str,
}

#[derive(Serialize)]
struct CancelData<'a> {
    id: &'a str,
}

fn written_call(service: &str, call: &WorkerCall) -> Vec<u8> {
    // Both are JSON: the edge has read the parameters, and the rule engine has written the claims.
    let raw = |json: &[u8]| serde_json::from_slice::<Box<RawValue>>(json).unwrap_or_else(|_| RawValue::NULL.to_owned());
    let (auth, params) = (raw(call.claims.as_bytes()), raw(&call.params));
    let data = CallData { id: &call.id, auth: &auth, params: &params, service, func: &call.function, error: "" };
    written("service-request", data)
}

fn written(r#type: &str, data: impl Serialize) -> Vec<u8> {
    message::written(&Pushed { r#type, data, id: "" })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use query::Guard;
    use serde_json::json;

    use super::*;

    fn value(json: serde_json::Value) -> Value {
        proto::json::parse(json.to_string().as_bytes(), Guard::new(100, 100)).expect("it is JSON")
    }

    #[test]
    fn registrations_are_parsed() {
        let parsed = RegisterRequest::of(value(json!({"service": "s", "project": "p", "token": "Bearer t", "x": 1})));
        let (service, project) = ("s".to_owned(), "p".to_owned());
        assert_eq!(parsed, Ok(RegisterRequest { service, project, token: "t".into(), takes_cancels: false }));
        assert!(RegisterRequest::of(value(json!({"cancel": true}))).is_ok_and(|request| request.takes_cancels));
        for (wrong, told) in [
            (json!([]), "invalid data: expected object, found array"),
            (json!({"service": 1}), "invalid service: expected string, found integer"),
            (json!({"cancel": "yes"}), "invalid cancel: expected boolean, found string"),
        ] {
            assert_eq!(RegisterRequest::of(value(wrong)), Err(told.to_owned()));
        }
    }

    #[test]
    fn answers_are_results_or_errors() {
        let parsed = |data| answer(value(data)).map(|answer| (answer.result, answer.error));
        let is = |result: &'static str, error: &str| Some((result.into(), error.to_owned()));
        assert_eq!(parsed(json!({"id": "1", "params": {"a": [1.50]}, "token": "t"})), is(r#"{"a":[1.5]}"#, ""));
        assert_eq!(parsed(json!({"id": "1", "error": "boom"})), is("", "boom"));
        assert_eq!(parsed(json!({"id": "1", "params": 1, "error": ""})), is("1", ""));
        assert_eq!(parsed(json!({"id": "1", "error": {"a": 1}})), is("", r#"{"a":1}"#));
        for none in [json!(null), json!({"params": 1}), json!({"id": 1}), json!({"id": ""})] {
            assert_eq!(parsed(none.clone()), None, "{none}");
        }
    }

    #[test]
    fn calls_are_told_as_clients_know_them() {
        let (params, claims) = (r#"{"n":1.50}"#.into(), r#"{"id":12345678901234567890}"#.to_owned());
        let left = Duration::from_secs(1);
        let call = WorkerCall { id: "1".to_owned(), function: "f".to_owned(), params, claims, left };
        let told = String::from_utf8(written_call("s", &call)).expect("it is UTF-8");
        let expected = concat!(
            r#"{"type":"service-request","data":{"id":"1","auth":{"id":12345678901234567890},"#,
            r#""params":{"n":1.50},"service":"s","func":"f","error":""},"id":""}"#
        );
        assert_eq!(told, expected);
    }
}
