//! The path of custom events. Their types are not in it: whoever may queue one knows it.

use serde_json::{Value, json};

use super::responses;

/// The path, with its item.
pub fn path() -> (&'static str, Value) {
    let event = json!({
        "type": "object",
        "required": ["type"],
        "properties": {
            "type": { "type": "string", "minLength": 1, "maxLength": 128 },
            "payload": { "description": "What triggers get as `data`." },
            "delay": {
                "type": ["number", "null"],
                "minimum": 0,
                "maximum": 31_622_400,
                "description": "Seconds that the event waits; milliseconds with `delayUnit: ms`.",
            },
            "delayUnit": { "enum": ["s", "ms"] },
            "isSynchronous": { "type": "boolean", "description": "Whether the answer of a trigger is waited for." },
            "timestamp": { "type": ["string", "null"], "description": "When the event is due, RFC 3339; up to 30 s ahead: now." },
        },
    });
    let list = json!({
        "type": "object",
        "required": ["events"],
        "properties": { "events": { "type": "array", "maxItems": 1000, "items": event } },
    });
    let key = json!({
        "name": "Idempotency-Key",
        "in": "header",
        "required": false,
        "description": "A name for the request: sent again within 24 hours it does nothing more.",
        "schema": { "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$" },
    });
    let item = json!({ "post": {
        "operationId": "queueEvents",
        "summary": "Queue custom events for triggers, all or none",
        "tags": ["events"],
        "parameters": [key],
        "requestBody": { "required": true, "content": { "application/json": { "schema": { "anyOf": [event, list] } } } },
        "responses": responses::of_queue(json!({ "type": "object", "properties": { "result": {} } })),
    }});
    ("/eventing/queue", item)
}
