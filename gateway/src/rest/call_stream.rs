//! Answers of a function by server-sent events: a POST to its path with `Accept: text/event-stream`.

use std::sync::Arc;

use axum::response::Response;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http::{HeaderMap, header, request::Parts};
use mesh::{Call, Fault, listener::Connection};
use tokio::sync::watch;

use crate::{
    Service,
    catalogue::Project,
    edge::{Caller, FunctionCall},
    events::{Ends, Event, EventQueue, EventStream},
    function_answers::{self, FunctionAnswers},
    http::answer,
    live::Subscriber,
};

/// What is sent of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrapping {
    /// The answer.
    Bare,
    /// `{"result": …}`
    Result,
}

/// Whether a client asks for events before all else.
pub fn asks_for_events(headers: &HeaderMap) -> bool {
    let accepted = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let first = accepted.split([',', ';']).next().unwrap_or_default().trim();
    first.eq_ignore_ascii_case("text/event-stream")
}

/// The stream of a call, which counts as a socket of its caller.
pub async fn open(
    service: &Service,
    (caller, project): (&Caller, &Project),
    call: FunctionCall,
    (head, wrapping): (&Parts, Wrapping),
) -> Result<Response, Fault> {
    let connection = head.extensions.get::<Arc<Connection>>();
    let peer = connection.map(|connection| connection.peer.ip());
    let hold = service.hold(caller, project, peer, call.params.len()).await?;
    let (_, token) = watch::channel(caller.token.clone());
    let subscriber = Subscriber { caller: hold.caller(), request_id: caller.call.request_id.clone(), token };
    let answers = function_answers::begin(service, (caller, subscriber), project, call).await?;
    let queue = EventQueue::new(service.send_budget().clone(), connection);
    let events = events(answers, wrapping, queue.clone(), caller.call.clone()).boxed();
    let end = || Event::new("end", None, b"{}");
    let ends = Ends { drained: Some(end()), last: None };
    Ok(EventStream::new(service, &queue, events, ends, hold).response())
}

/// The events of a stream; the last one tells its end, or the error that ended it.
fn events(
    answers: FunctionAnswers,
    wrapping: Wrapping,
    queue: EventQueue,
    call: Call,
) -> impl Stream<Item = Event> + Send {
    stream::unfold(Some((answers, queue, call)), move |state| async move {
        let (mut answers, queue, call) = state?;
        let told = match answers.next().await {
            Ok(Some(answer)) => queue.counted(event(&answer, wrapping)),
            Ok(None) => return Some((Event::new("end", None, b"{}"), None)),
            Err(fault) => Err(fault),
        };
        Some(match told {
            Ok(event) => (event, Some((answers, queue, call))),
            Err(fault) => (Event::new("error", None, &answer::fault_json(&fault, &call)), None),
        })
    })
}

fn event(answer: &Bytes, wrapping: Wrapping) -> Event {
    match wrapping {
        Wrapping::Bare => Event::new("message", None, answer),
        Wrapping::Result => Event::new("message", None, &in_object(answer)),
    }
}

/// `{"result": …}` with the JSON of an answer.
pub fn in_object(answer: &[u8]) -> Vec<u8> {
    [&b"{\"result\":"[..], answer, b"}"].concat()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn events_are_asked_for_by_the_first_type() {
        let asks = |accept: &'static str| {
            asks_for_events(&HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]))
        };
        assert!(asks("text/event-stream") && asks("Text/Event-Stream;q=1, application/json"));
        assert!(!asks("application/json, text/event-stream") && !asks("*/*") && !asks_for_events(&HeaderMap::new()));
    }

    #[test]
    fn an_answer_is_an_event() {
        let text = |wrapping| event(&Bytes::from_static(b"[1]"), wrapping).text().to_vec();
        assert_eq!(text(Wrapping::Bare), b"event: message\ndata: [1]\n\n");
        assert_eq!(text(Wrapping::Result), b"event: message\ndata: {\"result\":[1]}\n\n");
    }
}
