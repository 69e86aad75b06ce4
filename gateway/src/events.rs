//! Server-sent events: the stream of a response, with comments while there are no events, and its end. Source: HTML
//! Standard, "Server-sent events".

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use http::{HeaderName, HeaderValue, StatusCode, header};
use mesh::{Fault, listener::Connection, telemetry::Gauge};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use crate::{
    Service,
    http::{Reservation, SendBudget, SocketProgress, answer, or_unknown},
    live::Hold,
};

/// How often a comment is sent: no proxy takes the connection for idle, and a client that is gone is noticed.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// Bytes that are handed on at a time, as a copy: in the buffers of the connection they hold nothing else in memory.
const PIECE_BYTES: usize = 16 * 1024;
const COMMENT: &[u8] = b":\n\n";

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
    ends: Ends,
    draining: CancellationToken,
    keep_alive: Interval,
    /// What is being sent.
    sending: Event,
    open: Gauge,
    _hold: Hold,
}

/// The last events of a stream.
pub struct Ends {
    /// Of a stream whose node stops.
    pub drained: Option<Event>,
    /// Of any, after all others.
    pub last: Option<Event>,
}

impl Event {
    /// The event `name` with JSON. A line break in JSON is white space, and begins another line of data. A stream can be
    /// gone on with after `id`, where there is one, which has no line breaks.
    ///
    /// Browsers tell of no event without data, so there is a line of it always.
    pub fn new(name: &str, id: Option<&str>, data: &[u8]) -> Self {
        let mut text = Vec::with_capacity(data.len() + name.len() + id.map_or(0, str::len) + 32);
        for (field, value) in [("event", Some(name)), ("id", id)] {
            if let Some(value) = value {
                text.extend_from_slice(field.as_bytes());
                text.extend_from_slice(b": ");
                text.extend_from_slice(value.as_bytes());
                text.push(b'\n');
            }
        }
        match data {
            [] => text.extend_from_slice(b"data:\n"),
            data => {
                for line in data.split(|byte| matches!(byte, b'\n' | b'\r')) {
                    text.extend_from_slice(b"data: ");
                    text.extend_from_slice(line);
                    text.push(b'\n');
                }
            }
        }
        text.push(b'\n');
        Self { text: text.into(), counted: None }
    }

    fn plain(text: &'static [u8]) -> Self {
        Self { text: Bytes::from_static(text), counted: None }
    }
}

#[cfg(test)]
impl Event {
    /// What is sent.
    pub fn text(&self) -> &[u8] {
        &self.text
    }
}

impl EventQueue {
    /// A queue to the client of `connection`.
    pub fn new(budget: SendBudget, connection: Option<&Arc<Connection>>) -> Self {
        Self { budget, progress: SocketProgress::new(or_unknown(connection.cloned())) }
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
        queue: &EventQueue,
        events: BoxStream<'static, Event>,
        ends: Ends,
        hold: Hold,
    ) -> Self {
        let open = service.mesh().metrics().load().event_streams.clone();
        open.inc();
        let mut keep_alive = interval_at(Instant::now() + KEEP_ALIVE_INTERVAL, KEEP_ALIVE_INTERVAL);
        keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            events,
            queue: queue.clone(),
            ends,
            draining: service.tasks().draining().clone(),
            keep_alive,
            // Some browsers look at the head only when something follows.
            sending: Event::plain(COMMENT),
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
            self.sending = tokio::select! {
                biased;
                event = self.events.next() => match event {
                    Some(event) => event,
                    // Nothing follows.
                    None => {
                        self.events = stream::empty().boxed();
                        self.ends.last.take()?
                    }
                },
                () = self.draining.cancelled() => {
                    self.events = stream::empty().boxed();
                    self.ends.drained.take().or_else(|| self.ends.last.take())?
                }
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
    fn an_event_may_have_an_id() {
        assert_eq!(Event::new("insert", Some("p.1"), b"{}").text, "event: insert\nid: p.1\ndata: {}\n\n");
    }

    #[test]
    fn a_line_break_between_values_begins_another_line_of_data() {
        for (answer, text) in [
            ("{}", "event: next\ndata: {}\n\n"),
            ("{\n\"a\":\r1}", "event: next\ndata: {\ndata: \"a\":\ndata: 1}\n\n"),
            ("{\r\n}", "event: next\ndata: {\ndata: \ndata: }\n\n"),
            ("", "event: next\ndata:\n\n"),
        ] {
            assert_eq!(Event::new("next", None, answer.as_bytes()).text, text);
        }
    }
}
