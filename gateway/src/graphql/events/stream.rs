//! The stream of a response: events, comments while there are none, and the end. Source: HTML Standard, "Server-sent
//! events".

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use http::{HeaderName, HeaderValue, StatusCode, header};
use mesh::{Call, Code, Fault, listener::Connection, telemetry::Gauge};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use crate::{
    Service,
    http::{Reservation, SendBudget, SocketProgress, answer},
    live::Hold,
};

/// How often a comment is sent: no proxy takes the connection for idle, and a client that is gone is noticed.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// Bytes that are handed on at a time, as a copy: in the buffers of the connection they hold nothing else in memory.
const PIECE_BYTES: usize = 16 * 1024;
const COMMENT: &[u8] = b":\n\n";
/// Browsers tell of no event without data.
const COMPLETE: &[u8] = b"event: complete\ndata:\n\n";

/// An event, or part of the stream that is none.
pub struct Event {
    text: Bytes,
    counted: Option<Reservation>,
}

/// Where events are counted until the client has taken them.
#[derive(Clone)]
pub struct EventQueue {
    budget: SendBudget,
    progress: SocketProgress,
}

/// The stream of one response.
pub struct EventStream {
    events: BoxStream<'static, Event>,
    queue: EventQueue,
    call: Call,
    draining: CancellationToken,
    keep_alive: Interval,
    /// What is being sent.
    sending: Event,
    is_ended: bool,
    open: Gauge,
    _hold: Hold,
}

impl Event {
    /// The event `next` with an answer. A line break in JSON is white space, and begins another line of data.
    pub fn next(answer: &[u8]) -> Self {
        let mut text = Vec::with_capacity(answer.len() + 32);
        text.extend_from_slice(b"event: next\n");
        for line in answer.split(|byte| matches!(byte, b'\n' | b'\r')) {
            text.extend_from_slice(b"data: ");
            text.extend_from_slice(line);
            text.push(b'\n');
        }
        text.push(b'\n');
        Self { text: text.into(), counted: None }
    }

    fn plain(text: &'static [u8]) -> Self {
        Self { text: Bytes::from_static(text), counted: None }
    }
}

impl EventQueue {
    /// A queue to the client of `connection`.
    pub fn new(budget: SendBudget, connection: Option<&Arc<Connection>>) -> Self {
        let unknown = || Arc::new(Connection::new(([0, 0, 0, 0], 0).into()));
        Self { budget, progress: SocketProgress::new(connection.cloned().unwrap_or_else(unknown)) }
    }

    /// `event`, counted until it is sent. Errors: `UNAVAILABLE` where there is no room.
    pub fn counted(&self, event: Event) -> Result<Event, Fault> {
        let counted = self.budget.queue(event.text.len(), &self.progress)?;
        Ok(Event { counted: Some(counted), ..event })
    }
}

impl EventStream {
    /// The stream of `events`, each of which is asked for when the one before is sent.
    pub fn new(
        service: &Service,
        call: &Call,
        queue: &EventQueue,
        events: BoxStream<'static, Event>,
        hold: Hold,
    ) -> Self {
        let open = service.mesh().metrics().load().event_streams.clone();
        open.inc();
        let mut keep_alive = interval_at(Instant::now() + KEEP_ALIVE_INTERVAL, KEEP_ALIVE_INTERVAL);
        keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            events,
            queue: queue.clone(),
            call: call.clone(),
            draining: service.tasks().draining().clone(),
            keep_alive,
            // Some browsers look at the head only when something follows.
            sending: Event::plain(COMMENT),
            is_ended: false,
            open,
            _hold: hold,
        }
    }

    /// The response, whose end is that of the work for it.
    pub fn response(self) -> Response {
        let pieces = stream::unfold(self, |mut stream| async {
            let piece = stream.piece().await?;
            Some((Ok::<_, Infallible>(piece), stream))
        });
        let media = HeaderValue::from_static("text/event-stream; charset=utf-8");
        let mut response = answer::of_type(media, StatusCode::OK, Body::from_stream(pieces));
        let headers = response.headers_mut();
        // Whoever compresses or buffers holds events back.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
        headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
        response
    }

    /// The next bytes; `None` at the end. Cancel safe: what is asked for stays asked for.
    async fn piece(&mut self) -> Option<Bytes> {
        while self.sending.text.is_empty() {
            if self.is_ended {
                return None;
            }
            self.sending = tokio::select! {
                biased;
                event = self.events.next() => event.unwrap_or_else(|| self.complete()),
                () = self.draining.cancelled() => self.stopped(),
                _ = self.keep_alive.tick() => Event::plain(COMMENT),
            };
        }
        let sending = &mut self.sending;
        let piece = Bytes::copy_from_slice(&sending.text.split_to(PIECE_BYTES.min(sending.text.len())));
        self.queue.progress.add(piece.len());
        if sending.text.is_empty() {
            sending.counted = None;
        }
        Some(piece)
    }

    /// The end, of which nothing follows.
    fn complete(&mut self) -> Event {
        self.is_ended = true;
        Event::plain(COMPLETE)
    }

    /// The last answer of a node that stops.
    fn stopped(&mut self) -> Event {
        self.events = stream::empty().boxed();
        Event::errors(&Fault::new(Code::Unavailable, "the node stops; connect again"), &self.call)
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        self.open.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_break_between_values_begins_another_line_of_data() {
        for (answer, text) in [
            ("{}", "event: next\ndata: {}\n\n"),
            ("{\n\"a\":\r1}", "event: next\ndata: {\ndata: \"a\":\ndata: 1}\n\n"),
            ("{\r\n}", "event: next\ndata: {\ndata: \ndata: }\n\n"),
        ] {
            assert_eq!(Event::next(answer.as_bytes()).text, text);
        }
    }
}
