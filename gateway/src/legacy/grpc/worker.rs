//! WorkerFraming: messages of `Service` and those of the JSON socket that they stand for.

use bytes::Bytes;
use proto::predecessor::FunctionsPayload;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::stream::{StreamFraming, repeated};
use crate::legacy::message::written;

/// Types of messages.
const REGISTER: &str = "service-register";
const REQUEST: &str = "service-request";

/// The framing.
pub struct WorkerFraming;

#[derive(Serialize)]
struct SentWorkerMessage<'a, T> {
    id: &'a str,
    r#type: &'a str,
    data: T,
}

#[derive(Serialize)]
struct SentRegistration<'a> {
    service: &'a str,
    project: &'a str,
    token: &'a str,
}

#[derive(Serialize)]
struct SentAnswer<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    params: Option<&'a RawValue>,
    error: &'a str,
}

#[derive(Deserialize)]
struct ToldWorkerMessage<'a> {
    r#type: &'a str,
    #[serde(borrow)]
    data: &'a RawValue,
    id: String,
}

#[derive(Deserialize)]
struct ToldCall<'a> {
    id: String,
    #[serde(borrow)]
    auth: &'a RawValue,
    #[serde(borrow)]
    params: &'a RawValue,
    service: String,
    func: String,
}

#[derive(Deserialize)]
struct ToldRegistration {
    #[serde(default)]
    error: String,
}

impl StreamFraming for WorkerFraming {
    type Request = FunctionsPayload;
    type Response = FunctionsPayload;

    fn names(request: &FunctionsPayload) -> (&str, &str) {
        (&request.project, &request.token)
    }

    fn received(request: FunctionsPayload) -> Option<Vec<u8>> {
        let FunctionsPayload { params, service, r#type, id, error, project, token, .. } = &request;
        match r#type.as_str() {
            REGISTER => {
                Some(written(&SentWorkerMessage { id, r#type, data: SentRegistration { service, project, token } }))
            }
            REQUEST => {
                let (params, error) = match (params.is_empty(), serde_json::from_slice(params)) {
                    (true, _) => (None, error.as_str()),
                    (false, Ok(params)) => (Some(params), error.as_str()),
                    (false, Err(_)) => (None, "the answer of the worker is not JSON"),
                };
                Some(written(&SentWorkerMessage { id: "", r#type, data: SentAnswer { id, params, error } }))
            }
            _ => None,
        }
    }

    fn told(text: &[u8]) -> Option<FunctionsPayload> {
        let ToldWorkerMessage { r#type, data, id } = serde_json::from_slice(text).ok()?;
        let json = |json: &RawValue| Bytes::copy_from_slice(json.get().as_bytes());
        match r#type {
            REGISTER => {
                let ToldRegistration { error } = serde_json::from_str(data.get()).ok()?;
                let (params, r#type) = (json(data), r#type.to_owned());
                Some(FunctionsPayload { params, r#type, id, error, ..FunctionsPayload::default() })
            }
            REQUEST => {
                let ToldCall { id, auth, params, service, func: function } = serde_json::from_str(data.get()).ok()?;
                let (auth, params, r#type) = (json(auth), json(params), r#type.to_owned());
                Some(FunctionsPayload { auth, params, service, function, r#type, id, ..FunctionsPayload::default() })
            }
            _ => None,
        }
    }

    fn refused(request: &FunctionsPayload, error: &str) -> FunctionsPayload {
        let (id, r#type, error) = (repeated(&request.id), repeated(&request.r#type), error.to_owned());
        let params = Bytes::from_static(br#"{"ack":false}"#);
        FunctionsPayload { params, r#type, id, error, ..FunctionsPayload::default() }
    }

    /// A stream is for one worker.
    fn is_last(told: &FunctionsPayload) -> bool {
        told.r#type == REGISTER && !told.error.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(request: FunctionsPayload) -> serde_json::Value {
        serde_json::from_slice(&WorkerFraming::received(request).expect("it is known")).expect("it is JSON")
    }

    #[test]
    fn registrations_and_answers_are_messages_of_the_socket() {
        let base = FunctionsPayload { id: "1".to_owned(), token: "t".to_owned(), ..FunctionsPayload::default() };
        let register = FunctionsPayload { r#type: REGISTER.to_owned(), service: "s".to_owned(), ..base.clone() };
        let data = serde_json::json!({"service": "s", "project": "", "token": "t"});
        assert_eq!(sent(register), serde_json::json!({"id": "1", "type": REGISTER, "data": data}));
        for (params, error, data) in [
            (r#"{"a": 1}"#, "", serde_json::json!({"id": "1", "params": {"a": 1}, "error": ""})),
            ("", "boom", serde_json::json!({"id": "1", "error": "boom"})),
            ("{", "", serde_json::json!({"id": "1", "error": "the answer of the worker is not JSON"})),
        ] {
            let (params, error) = (params.into(), error.to_owned());
            let answer = FunctionsPayload { r#type: REQUEST.to_owned(), params, error, ..base.clone() };
            assert_eq!(sent(answer)["data"], data);
        }
        assert_eq!(WorkerFraming::received(FunctionsPayload { r#type: "service-cancel".to_owned(), ..base }), None);
    }

    #[test]
    fn calls_and_replies_are_told() {
        let call = concat!(
            r#"{"type":"service-request","data":{"id":"9","auth":{},"params":null,"service":"s","func":"f","error":""},"#,
            r#""id":""}"#
        );
        let told = WorkerFraming::told(call.as_bytes()).expect("it is told");
        assert_eq!((&*told.id, &*told.function, &*told.auth, &*told.params), ("9", "f", &b"{}"[..], &b"null"[..]));
        let reply = br#"{"type":"service-register","data":{"ack":true},"id":"1"}"#;
        let told = WorkerFraming::told(reply).expect("it is told");
        assert_eq!((&*told.id, &*told.params, &*told.error), ("1", &br#"{"ack":true}"#[..], ""));
        let reply = br#"{"type":"service-register","data":{"ack":false,"error":"no"},"id":"1"}"#;
        assert_eq!(WorkerFraming::told(reply).map(|told| told.error).as_deref(), Some("no"));
    }
}
