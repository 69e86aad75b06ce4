//! Responses that operations share: one for each status of errors, and the headers.

use mesh::Code;
use serde_json::{Map, Value, json};

use super::values::reference;

/// Statuses of errors of every operation.
const STATUSES: [u16; 9] = [400, 401, 403, 404, 413, 429, 500, 503, 504];
/// The status of a unique violation, which writes alone can have.
const CONFLICT: u16 = 409;
/// The status of a function that did not answer as it must.
const BAD_GATEWAY: u16 = 502;

/// The responses of an operation whose success answers with `schema`.
pub fn of_operation(schema: Value, is_write: bool) -> Value {
    let mut responses = Map::new();
    let ok = json!({
        "description": "Done",
        "headers": { "X-Request-Id": { "$ref": "#/components/headers/RequestId" } },
        "content": { "application/json": { "schema": schema } },
    });
    responses.insert("200".to_owned(), ok);
    let statuses = STATUSES.into_iter().chain(is_write.then_some(CONFLICT));
    responses.extend(
        statuses
            .map(|status| (status.to_string(), json!({ "$ref": format!("#/components/responses/{}", name(status)) }))),
    );
    responses.into()
}

/// The responses of an operation whose success answers with events.
pub fn of_events(description: &str) -> Value {
    let mut responses = of_operation(Value::Null, false);
    responses["200"]["description"] = description.into();
    responses["200"]["content"] = json!({ "text/event-stream": { "schema": { "type": "string" } } });
    responses
}

/// The responses of a call of a function: one that it answers itself, whatever its status, and those of errors.
pub fn of_call(answer: Value) -> Value {
    let mut responses = of_operation(Value::Null, false);
    responses["200"] = answer.clone();
    responses[BAD_GATEWAY.to_string()] = json!({ "$ref": format!("#/components/responses/{}", name(BAD_GATEWAY)) });
    responses["default"] = answer;
    responses
}

/// The responses of a request to queue events, whose triggers may have been waited for.
pub fn of_queue(schema: Value) -> Value {
    let mut responses = of_operation(schema, true);
    responses[BAD_GATEWAY.to_string()] = json!({ "$ref": format!("#/components/responses/{}", name(BAD_GATEWAY)) });
    responses
}

/// The responses of errors as components.
pub fn components() -> Value {
    let statuses = STATUSES.into_iter().chain([CONFLICT, BAD_GATEWAY]);
    statuses.map(|status| (name(status), response(status))).collect::<Map<String, Value>>().into()
}

/// The headers that responses name.
pub fn headers() -> Value {
    json!({
        "RequestId": {
            "description": "The caller's id of the request if it sent one, else a new one.",
            "schema": { "type": "string" },
        },
        "RetryAfter": { "description": "Seconds after which to try again.", "schema": { "type": "string" } },
    })
}

/// The body of every error.
pub fn error() -> Value {
    let codes: Vec<&str> = Code::ALL.into_iter().map(Code::as_str).collect();
    json!({
        "type": "object",
        "required": ["error", "rawError", "code", "requestId"],
        "properties": {
            "error": { "type": "string", "description": "What is wrong, for people." },
            "rawError": { "type": "string" },
            "code": { "enum": codes, "description": "What is wrong, for programs." },
            "requestId": { "type": "string" },
        },
    })
}

fn response(status: u16) -> Value {
    let codes: Vec<&str> = Code::ALL.into_iter().filter(|code| code.http() == status).map(Code::as_str).collect();
    let mut headers = json!({ "X-Request-Id": { "$ref": "#/components/headers/RequestId" } });
    if matches!(status, 429 | 503) {
        headers["Retry-After"] = json!({ "$ref": "#/components/headers/RetryAfter" });
    }
    let schema = json!({ "allOf": [reference("Error"), { "properties": { "code": { "enum": codes } } }] });
    json!({
        "description": codes.join(", "),
        "headers": headers,
        "content": { "application/json": { "schema": schema } },
    })
}

fn name(status: u16) -> String {
    format!("Error{status}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_response_but_for_those_of_other_methods_and_of_files() {
        let described: Vec<u16> = STATUSES.into_iter().chain([CONFLICT, BAD_GATEWAY]).collect();
        let missing: Vec<Code> = Code::ALL.into_iter().filter(|code| !described.contains(&code.http())).collect();
        let of_files = [Code::Precondition, Code::UnsupportedType, Code::Range, Code::Full];
        let expected: Vec<Code> =
            Code::ALL.into_iter().filter(|code| *code == Code::Method || of_files.contains(code)).collect();
        assert_eq!(missing, expected);
    }
}
