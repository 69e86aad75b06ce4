//! Changes of rows by server-sent events: `GET crud/{database}/{table}/watch`.

use std::sync::Arc;

use axum::{
    extract::{Path, Query, State},
    response::Response,
};
use futures::{Stream, StreamExt, stream};
use http::{HeaderMap, Uri, request::Parts};
use mesh::{Call, Fault, listener::Connection};
use proto::realtime::{Event as Change, Row, WatchResponse};
use query::{Guard, Node, Operation, Options, Read, Shape, Value};
use serde::Serialize;

use super::TablePath;
use crate::{
    Service,
    edge::Caller,
    error,
    events::{Ends, Event, EventQueue, EventStream},
    http::{answer, bearer},
    live::{Watch, WatchedRows},
    plan::{RequestPlanner, TableRef},
};

/// Header of a client that goes on, with the `id` of the last event that it has.
const LAST_EVENT_ID: &str = "last-event-id";

/// What the query of the address asks for.
#[derive(Debug, Default, PartialEq)]
struct WatchParameters {
    find: Option<Value>,
    select: Option<Value>,
    initial: Option<bool>,
    after: Option<String>,
    token: Option<String>,
}

/// The stream of changes, or what is wrong with the request, by its status.
pub(super) async fn open(
    State(service): State<Service>,
    caller: Caller,
    Path(path): TablePath,
    head: Parts,
) -> Response {
    let call = caller.call.clone();
    Box::pin(begin(&service, caller, &path, &head)).await.unwrap_or_else(|fault| answer::fault(&fault, &call))
}

async fn begin(
    service: &Service,
    mut caller: Caller,
    (project, database, table): &(String, String, String),
    head: &Parts,
) -> Result<Response, Fault> {
    let table_ref = TableRef { project, database, table };
    let mut planner = RequestPlanner::begin(service, &caller, project.as_str().into()).await?;
    let parameters = WatchParameters::parse(&head.uri, service.guard())?;
    if let (true, Some(token)) = (caller.token.is_empty(), &parameters.token) {
        caller.token = bearer(token).into();
        planner = RequestPlanner::begin(service, &caller, project.as_str().into()).await?;
    }
    let (options, find) = (Options { select: parameters.select, ..Options::default() }, parameters.find);
    let planned = planner
        .plan(table_ref, Operation::Read, |parser, table, budget| {
            let node = parser.node(table, &options, budget)?;
            let filter = find.as_ref().map(|find| parser.filter(table, find, budget)).transpose()?;
            Ok(Node { shape: Shape::Many, filter: filter.unwrap_or(query::Filter::TRUE), ..node })
        })
        .await?;
    let read = Read { database: planned.database, table: table_ref.table.into(), node: planned.plan };
    // A client that connects again says the same address, and how far it has come.
    let after = last_event_id(&head.headers).or(parameters.after).unwrap_or_default();
    let rows = WatchedRows { read, before: Vec::new(), skip_initial: parameters.initial == Some(false), after };
    let connection = head.extensions.get::<Arc<Connection>>();
    let peer = connection.map(|connection| connection.peer.ip());
    let (watch, hold) = Box::pin(service.watch(&caller, &planned.project, peer, rows)).await?;
    let queue = EventQueue::new(service.send_budget().clone(), connection);
    let ends = Ends { drained: Some(Event::new("end", None, b"{}")), last: None };
    let events = events(watch, queue.clone(), caller.call).boxed();
    Ok(EventStream::new(service, &queue, events, ends, hold).response())
}

fn last_event_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(LAST_EVENT_ID)?;
    // What is no text is no position of ours, and answered as such.
    Some(String::from_utf8_lossy(id.as_bytes()).into_owned()).filter(|id| !id.is_empty())
}

/// The events of a watch; the last one is the error that ended it.
fn events(watch: Watch, queue: EventQueue, call: Call) -> impl Stream<Item = Event> + Send {
    stream::unfold(Some((watch, queue, call)), |state| async {
        let (mut watch, queue, call) = state?;
        let told = watch.next().await.and_then(|message| queue.counted(event(&message)));
        Some(match told {
            Ok(event) => (event, Some((watch, queue, call))),
            Err(fault) => (Event::new("error", None, &answer::fault_json(&fault, &call)), None),
        })
    })
}

/// The event that tells a message.
fn event(message: &WatchResponse) -> Event {
    let (name, data) = match &message.event {
        Some(Change::Initial(row)) => ("initial", images(row)),
        Some(Change::Insert(row)) => ("insert", images(row)),
        Some(Change::Update(row)) => ("update", images(row)),
        Some(Change::Delete(row)) => ("delete", images(&Row { row: row.key.clone(), ..row.clone() })),
        Some(Change::Resync(resync)) => ("resync", reason(&resync.reason)),
        Some(Change::Ready(_)) | None => ("ready", b"{}".to_vec()),
    };
    Event::new(name, Some(&message.position), &data)
}

/// `{"row": …, "before": …}`
fn images(row: &Row) -> Vec<u8> {
    let mut out = Vec::with_capacity(row.row.len() + row.before.len() + 24);
    out.extend_from_slice(b"{\"row\":");
    out.extend_from_slice(&row.row);
    if !row.before.is_empty() {
        out.extend_from_slice(b",\"before\":");
        out.extend_from_slice(&row.before);
    }
    out.push(b'}');
    out
}

fn reason(reason: &str) -> Vec<u8> {
    #[derive(Serialize)]
    struct Reason<'a> {
        reason: &'a str,
    }
    serde_json::to_vec(&Reason { reason }).expect("texts can always be written as JSON")
}

impl WatchParameters {
    fn parse(uri: &Uri, guard: Guard) -> Result<Self, Fault> {
        let malformed = |cause| error::bad_request(format!("the address is malformed: {cause}"));
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(malformed)?;
        let mut parameters = Self::default();
        let mut seen: Vec<String> = Vec::new();
        for (name, text) in pairs {
            if seen.contains(&name) {
                return Err(error::bad_request(format!("parameter {name} is given twice")));
            }
            match name.as_str() {
                "find" => parameters.find = Some(object_or_list(&name, &text, guard, false)?),
                "select" => parameters.select = Some(object_or_list(&name, &text, guard, true)?),
                "initial" => parameters.initial = Some(boolean(&text)?),
                "after" => parameters.after = Some(text),
                "token" => parameters.token = Some(text),
                // Clients add some against caches.
                _ => {}
            }
            seen.push(name);
        }
        Ok(parameters)
    }
}

fn object_or_list(name: &str, text: &str, guard: Guard, may_be_list: bool) -> Result<Value, Fault> {
    let expected = if may_be_list { "object or array of names" } else { "object" };
    let value = proto::json::parse(text.as_bytes(), guard).map_err(|error| {
        let fault = Fault::from(error);
        Fault { message: format!("{name}: {}", fault.message), ..fault }
    })?;
    match value {
        Value::Object(_) => Ok(value),
        Value::List(_) if may_be_list => Ok(value),
        other => Err(error::bad_request(format!("invalid {name}: expected {expected}, found {}", other.kind()))),
    }
}

fn boolean(text: &str) -> Result<bool, Fault> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        other => Err(error::bad_request(format!("invalid initial: expected true or false, found {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use proto::realtime::{Ready, Resync};

    use super::*;

    fn parsed(query: &str) -> Result<WatchParameters, String> {
        let uri: Uri = format!("/watch?{query}").parse().expect("the test sends a legal address");
        WatchParameters::parse(&uri, Guard::default()).map_err(|fault| fault.message)
    }

    #[test]
    fn parameters_are_json_words_and_texts() {
        let parameters = parsed("find=%7B%22a%22:1%7D&select=[%22a%22]&initial=false&after=p&token=t&_=7").unwrap();
        assert!(matches!((&parameters.find, &parameters.select), (Some(Value::Object(_)), Some(Value::List(_)))));
        assert_eq!((parameters.initial, parameters.after.as_deref()), (Some(false), Some("p")));
        assert_eq!(parameters.token.as_deref(), Some("t"));
        assert_eq!(parsed(""), Ok(WatchParameters::default()));
        for (query, message) in [
            ("find=[]", "invalid find: expected object, found array"),
            ("select=1", "invalid select: expected object or array of names, found integer"),
            ("initial=no", "invalid initial: expected true or false, found no"),
            ("find=%7B%7D&find=%7B%7D", "parameter find is given twice"),
        ] {
            assert_eq!(parsed(query), Err(message.to_owned()), "{query}");
        }
        assert!(parsed("find=%7B").unwrap_err().starts_with("find: "));
    }

    #[test]
    fn each_kind_of_message_is_an_event_of_its_name() {
        let bytes = |text: &str| text.as_bytes().to_vec().into();
        let row = Row { row: bytes(r#"{"id":1,"a":null}"#), key: bytes(r#"{"id":1}"#), ..Row::default() };
        let changed = Row { before: bytes(r#"{"id":1,"a":0}"#), ..row.clone() };
        for (change, name, data) in [
            (Change::Initial(row.clone()), "initial", r#"{"row":{"id":1,"a":null}}"#),
            (Change::Insert(row.clone()), "insert", r#"{"row":{"id":1,"a":null}}"#),
            (Change::Update(changed.clone()), "update", r#"{"row":{"id":1,"a":null},"before":{"id":1,"a":0}}"#),
            (Change::Delete(changed), "delete", r#"{"row":{"id":1},"before":{"id":1,"a":0}}"#),
            (Change::Ready(Ready {}), "ready", "{}"),
            (Change::Resync(Resync { reason: "log_lost".to_owned() }), "resync", r#"{"reason":"log_lost"}"#),
        ] {
            let event = event(&WatchResponse { position: "p.1".to_owned(), event: Some(change) });
            assert_eq!(event.text(), format!("event: {name}\nid: p.1\ndata: {data}\n\n").as_bytes());
        }
    }
}
