//! The paths of calls of functions. Their names are not in them: whoever may call a function knows it.

use serde_json::{Value, json};

use super::{responses, values::reference};

/// The paths of calls, each with its item.
pub fn paths() -> [(&'static str, Value); 2] {
    let bare = responses::of_call(json!({
        "description": "Status and body of the function",
        "content": { "application/json": { "schema": {} }, "text/event-stream": { "schema": { "type": "string" } } },
    }));
    let wrapped = json!({ "type": "object", "required": ["result"], "properties": { "result": {} } });
    let wrapped = json!({
        "description": "The answer of the function",
        "content": {
            "application/json": { "schema": { "anyOf": [wrapped, reference("Error")] } },
            "text/event-stream": { "schema": { "type": "string" } },
        },
    });
    [
        ("/services/{service}/{function}", item("Call a function, which answers itself", "call", bare)),
        (
            "/functions/{service}/{function}",
            item("Call a function, whose answer is wrapped", "callWrapped", responses::of_call(wrapped)),
        ),
    ]
}

fn item(summary: &str, id: &str, responses: Value) -> Value {
    let parameter = |name: &str| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string", "minLength": 1 } });
    let time = "Time until the answer: seconds up to 300, above milliseconds; 0: that of the function.";
    let body = json!({
        "type": "object",
        "properties": {
            "params": { "description": "Parameters of the function." },
            "timeout": { "type": ["number", "null"], "minimum": 0, "description": time },
        },
    });
    json!({ "post": {
        "operationId": id,
        "summary": summary,
        "tags": ["functions"],
        "parameters": [parameter("service"), parameter("function")],
        "requestBody": { "required": false, "content": { "application/json": { "schema": body } } },
        "responses": responses,
    }})
}
