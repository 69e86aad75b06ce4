//! Custom events: `eventing/queue` takes one, or a list of them as `events`.

use std::{pin::pin, time::SystemTime};

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    response::Response,
    routing::post,
};
use http::{HeaderMap, HeaderName, StatusCode};
use mesh::{Code, Fault, clock};
use proto::functions::{EVENTS_MAX, IDEMPOTENCY_KEY_BYTES};
use query::{
    Error, Value,
    event::{self, Moment},
};

use super::{fields::Fields, respond};
use crate::{
    Service,
    edge::{Caller, CustomEvent, QueuedEvents},
    error,
    http::{answer, guarded},
};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Routes of custom events; the second one is of clients of earlier servers.
pub fn routes() -> Router<Service> {
    Router::new()
        .route("/v1/api/{project}/eventing/queue", post(queue))
        .route("/v1/api/{project}/eventing/admin-queue", post(queue))
}

async fn queue(
    State(service): State<Service>,
    caller: Caller,
    Path(project): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let queued = pin!(queue_events(&service, &caller, &project, &headers, body));
    let answered = guarded(&caller.call, queued).await.unwrap_or_else(Err);
    respond(&caller, answered)
}

async fn queue_events(
    service: &Service,
    caller: &Caller,
    project: &str,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Fault> {
    let project = service.edge().project(caller, project.into()).await?;
    let idempotency_key = idempotency_key(headers)?;
    let fields = super::fields(service, &project, body).await?;
    let (events, is_awaited) = events(fields, clock::unix_ms(SystemTime::now()))?;
    if events.is_empty() {
        return Ok(answer::json(StatusCode::OK, "{}"));
    }
    let events = QueuedEvents { events, idempotency_key, is_awaited };
    let body = match service.edge().queue_events(caller, &project, events).await? {
        Some(response) => [&b"{\"result\":"[..], &response, b"}"].concat(),
        None => b"{}".to_vec(),
    };
    Ok(answer::json(StatusCode::OK, body))
}

/// The name of a request; empty where it has none.
fn idempotency_key(headers: &HeaderMap) -> Result<String, Fault> {
    let mut all = headers.get_all(IDEMPOTENCY_KEY).iter();
    let (first, more) = (all.next(), all.next());
    let Some(key) = first else { return Ok(String::new()) };
    let text = key.to_str().ok().filter(|text| (1..=IDEMPOTENCY_KEY_BYTES).contains(&text.len()));
    match text.filter(|text| more.is_none() && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))) {
        Some(text) => Ok(text.to_owned()),
        None => {
            let expected = format!("expected one of 1 to {IDEMPOTENCY_KEY_BYTES} printable ASCII characters");
            Err(error::bad_request(format!("invalid Idempotency-Key: {expected}")))
        }
    }
}

/// The events of a body: those of its list, or the one that it is; and whether its answer is waited for.
fn events(mut fields: Fields, now_ms: i64) -> Result<(Vec<CustomEvent>, bool), Fault> {
    let Some(items) = fields.list("events")? else {
        let is_awaited = flag(&mut fields, "isSynchronous")?;
        return Ok((vec![custom_event(fields, now_ms)?], is_awaited));
    };
    if items.len() > EVENTS_MAX {
        let text = format!("{} events are over the limit of {EVENTS_MAX} events of a request", items.len());
        return Err(Fault::new(Code::TooLarge, text));
    }
    let item = |(index, item): (usize, Value)| {
        let name = format!("events[{index}]");
        match item {
            Value::Object(object) => {
                let mut fields = Fields::inside(name, object);
                if flag(&mut fields, "isSynchronous")? {
                    let name = fields.name("isSynchronous");
                    return Err(error::bad_request(format!("{name}: the answers of a list are not waited for")));
                }
                custom_event(fields, now_ms)
            }
            other => Err(error::bad_request(format!("invalid {name}: expected object, found {}", other.kind()))),
        }
    };
    Ok((items.into_iter().enumerate().map(item).collect::<Result<_, _>>()?, false))
}

fn flag(fields: &mut Fields, name: &str) -> Result<bool, Fault> {
    match fields.take(name) {
        None => Ok(false),
        Some(Value::Bool(flag)) => Ok(flag),
        Some(other) => Err(fields.wrong_type(name, "boolean", &other)),
    }
}

fn custom_event(mut fields: Fields, now_ms: i64) -> Result<CustomEvent, Fault> {
    let r#type = fields.text("type")?.ok_or_else(|| Fault::from(Error::Required(fields.name("type"))))?;
    let payload = fields.take("payload").or_else(|| fields.take("data")).unwrap_or(Value::Null);
    // Triggers have no options that these would have to fit.
    fields.object("options")?;
    let delay_ms = delay(&mut fields)?;
    let at_ms = timestamp(&mut fields, now_ms)?;
    let mut json = Vec::new();
    payload.write_json(&mut json);
    Ok(CustomEvent { r#type, payload: json.into(), delay_ms, at_ms })
}

/// Milliseconds of `delay`, which are seconds where `delayUnit` does not say `ms`.
fn delay(fields: &mut Fields) -> Result<u64, Fault> {
    let (unit, number) = (fields.text("delayUnit")?, number(fields, "delay")?);
    event::delay_ms(number, unit.as_deref())
        .map_err(|(key, why)| error::bad_request(format!("invalid {}: {why}", fields.name(key))))
}

/// The time from which an event is due, in milliseconds since 1970; `None` where nothing is said.
fn timestamp(fields: &mut Fields, now_ms: i64) -> Result<Option<i64>, Fault> {
    let moment = match fields.take("timestamp") {
        None => return Ok(None),
        Some(Value::Text(text)) => Moment::Text(text),
        Some(value @ (Value::Int(_) | Value::Number(_))) => Moment::Number(float(&value)),
        Some(other) => return Err(fields.wrong_type("timestamp", "string or number", &other)),
    };
    moment.unix_ms(now_ms).map_err(|why| error::bad_request(format!("invalid {}: {why}", fields.name("timestamp"))))
}

fn number(fields: &mut Fields, name: &str) -> Result<Option<f64>, Fault> {
    match fields.take(name) {
        None => Ok(None),
        Some(value @ (Value::Int(_) | Value::Number(_))) => Ok(Some(float(&value))),
        Some(other) => Err(fields.wrong_type(name, "number", &other)),
    }
}

fn float(value: &Value) -> f64 {
    match value {
        Value::Int(number) => *number as f64,
        Value::Number(text) => text.parse().unwrap_or(f64::NAN),
        Value::Null | Value::Bool(_) | Value::Text(_) | Value::List(_) | Value::Object(_) => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use query::Guard;

    use super::*;

    const NOW: i64 = 1_700_000_000_000;

    fn of(json: &str) -> Result<Vec<CustomEvent>, String> {
        match proto::json::parse(json.as_bytes(), Guard::default()) {
            Ok(Value::Object(object)) => {
                events(Fields::new(object), NOW).map(|(events, _)| events).map_err(|fault| fault.message)
            }
            other => panic!("expected object, found {other:?}"),
        }
    }

    fn one(json: &str) -> CustomEvent {
        of(json).unwrap().remove(0)
    }

    #[test]
    fn a_body_is_an_event_or_a_list_of_them() {
        let old =
            r#"{"type":"order","delay":0,"timestamp":"","payload":{"n":1.50},"options":{},"isSynchronous":false}"#;
        let event = one(old);
        let CustomEvent { r#type, payload, delay_ms, at_ms } = &event;
        assert_eq!((r#type.as_str(), &payload[..], *delay_ms, *at_ms), ("order", &br#"{"n":1.50}"#[..], 0, None));
        assert_eq!(&one(r#"{"type":"a","data":[1]}"#).payload[..], b"[1]");
        assert_eq!(&one(r#"{"Type":"a","Payload":7}"#).payload[..], b"7", "of clients in Go");
        assert_eq!(&one(r#"{"type":"a"}"#).payload[..], b"null");
        assert_eq!(of(r#"{"events":[{"type":"a"},{"type":"b"}]}"#).unwrap().len(), 2);
        assert_eq!(of(r#"{"events":[]}"#).unwrap().len(), 0);
        let many = format!(r#"{{"events":[{}{{"type":"a"}}]}}"#, r#"{"type":"a"},"#.repeat(EVENTS_MAX));
        for (json, told) in [
            ("{}", "type is required"),
            (r#"{"type":1}"#, "invalid type: expected string, found integer"),
            (r#"{"events":{}}"#, "invalid events: expected array, found object"),
            (r#"{"events":[1]}"#, "invalid events[0]: expected object, found integer"),
            (r#"{"events":[{"type":"a"},{}]}"#, "events[1].type is required"),
            (r#"{"type":"a","options":1}"#, "invalid options: expected object, found integer"),
            (r#"{"type":"a","isSynchronous":"x"}"#, "invalid isSynchronous: expected boolean, found string"),
            (
                r#"{"events":[{"type":"a","isSynchronous":true}]}"#,
                "events[0].isSynchronous: the answers of a list are not waited for",
            ),
            (&many, "1001 events are over the limit of 1000 events of a request"),
        ] {
            assert_eq!(of(json).unwrap_err(), told);
        }
    }

    #[test]
    fn delays_are_seconds_unless_said_otherwise() {
        for (json, delay_ms) in [
            (r#"{"type":"a","delay":1.5}"#, 1500),
            (r#"{"type":"a","delay":1500,"delayUnit":"ms"}"#, 1500),
            (r#"{"type":"a","delay":2,"delayUnit":"s"}"#, 2000),
            (r#"{"type":"a","delay":null}"#, 0),
        ] {
            assert_eq!(one(json).delay_ms, delay_ms, "{json}");
        }
        for json in [
            r#"{"type":"a","delay":-1}"#,
            r#"{"type":"a","delay":1e400}"#,
            r#"{"type":"a","delay":31622401}"#,
            r#"{"type":"a","delay":"5"}"#,
            r#"{"type":"a","delay":5,"delayUnit":"m"}"#,
        ] {
            assert!(of(json).unwrap_err().starts_with("invalid delay"), "{json}");
        }
    }

    #[test]
    fn a_time_is_a_text_or_a_number_and_goes_on_as_it_is() {
        let at = |time: &str| one(&format!(r#"{{"type":"a","timestamp":{time}}}"#)).at_ms;
        assert_eq!(at("1700000060"), Some(NOW + 60_000));
        assert_eq!(at("1700000060000"), Some(NOW + 60_000));
        assert_eq!(at("\"2023-11-14T22:14:20Z\""), Some(NOW + 60_000));
        assert_eq!(at("\"2023-11-14T23:14:20.5+01:00\""), Some(NOW + 60_500));
        for time in ["\"\"", "null"] {
            assert_eq!(at(time), None, "{time}");
        }
        // Whatever the clock says: the same request is the same a minute later.
        for (time, at_ms) in [("0", 0), ("1700000030", NOW + 30_000), ("\"2023-11-14T22:13:20Z\"", NOW)] {
            assert_eq!(at(time), Some(at_ms), "{time}");
        }
        let both = one(r#"{"type":"a","timestamp":1700000010,"delay":5}"#);
        assert_eq!((both.at_ms, both.delay_ms), (Some(NOW + 10_000), 5000));
        for time in ["\"soon\"", "-1", "1e300", "\"2030-01-01T00:00:00Z\"", "true"] {
            let told = of(&format!(r#"{{"type":"a","timestamp":{time}}}"#)).unwrap_err();
            assert!(told.starts_with("invalid timestamp"), "{told}");
        }
    }

    #[test]
    fn a_name_is_one_short_text() {
        let of = |values: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(IDEMPOTENCY_KEY, HeaderValue::from_bytes(value).unwrap());
            }
            idempotency_key(&headers).map_err(|fault| fault.code)
        };
        assert_eq!((of(&[]), of(&[b"k 1"])), (Ok(String::new()), Ok("k 1".to_owned())));
        for wrong in [&[&b""[..]][..], &[&[b'k'; 256]], &[b"a", b"b"], &["ä".as_bytes()], &[b"a\tb"]] {
            assert_eq!(of(wrong), Err(Code::BadRequest), "{wrong:?}");
        }
    }
}
