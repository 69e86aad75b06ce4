//! An attempt to deliver an event by a call of a function, as the node.

use std::time::Duration;

use bytes::Bytes;
use mesh::{Call, Mesh};
use proto::{
    Links,
    auth::AuthorizeCallRequest,
    functions::{CallRequest, CallResponse},
};
use query::trigger::FunctionTarget;
use reqwest::StatusCode;
use tonic::Status;

use super::{
    attempt::{Answer, Message, Verdict},
    reply::{ANSWER_BYTES, Reply},
};

/// Calls a function with a message as its parameters: its own rule is not asked, and its caller has no claims.
pub async fn send(mesh: &Mesh, to: &FunctionTarget, message: Message, time: Duration) -> Answer {
    match Box::pin(call(mesh, to, message, time)).await {
        Ok(answer) => answered(&answer),
        Err(status) => Answer::failed(None, status.message().to_owned()),
    }
}

async fn call(mesh: &Mesh, to: &FunctionTarget, message: Message, time: Duration) -> Result<CallResponse, Status> {
    let call = Call::begin(Some(&message.id), None, Some(time));
    let asked = AuthorizeCallRequest {
        project: (*message.project).to_owned(),
        token: String::new(),
        service: to.service.clone(),
        function: to.function.clone(),
        params: Bytes::new(),
        of_operator: true,
        is_list: false,
    };
    let grant = mesh.auth_rules().authorize_call(&call, asked).await?.grant;
    let timeout_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let request = CallRequest { grant, params: message.body, timeout_ms, answer_bytes: ANSWER_BYTES as u64 };
    mesh.functions().call(&call, request).await
}

fn answered(CallResponse { status, body }: &CallResponse) -> Answer {
    let code = u16::try_from(*status).ok();
    let is_success = (200..300).contains(status);
    let reply = if is_success { Reply::of(body) } else { Reply::default() };
    let verdict = match code {
        _ if is_success && !reply.is_refusal => Verdict::Delivered,
        Some(code) if code == StatusCode::GONE.as_u16() => Verdict::Gone,
        _ => Verdict::Failed { retry_after: None },
    };
    Answer::new(verdict, code, body, reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_answers_as_a_webhook_does() {
        let of = |status, body: &'static str| {
            answered(&CallResponse { status, body: Bytes::from_static(body.as_bytes()) }).verdict
        };
        let failed = Verdict::Failed { retry_after: None };
        for (status, body) in [(200, "{}"), (204, ""), (200, "[]"), (201, r#"{"ack":true}"#)] {
            assert_eq!(of(status, body), Verdict::Delivered, "{status} {body}");
        }
        for (status, body) in [(200, r#"{"ack":false}"#), (200, r#"{"error":"x"}"#), (500, "{}"), (429, "{}")] {
            assert_eq!(of(status, body), failed, "{status} {body}");
        }
        assert_eq!(of(410, "{}"), Verdict::Gone);
    }
}
