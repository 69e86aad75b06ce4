//! Reading of a journal.

use std::time::Duration;

use async_nats::jetstream::{
    Message,
    consumer::{AckPolicy, DeliverPolicy, pull},
};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use tokio::sync::watch;

use super::{BEFORE, Journal, PART, POSITION, created, header, unhex};
use crate::bus::nats::BusConnection;

/// Messages that the server sends ahead.
const AHEAD_MAX: usize = 64;
/// How often the server says that there is nothing, and how long it waits for a message until it is asked again.
const HEARTBEAT: Duration = Duration::from_secs(3);
const ASK_INTERVAL: Duration = Duration::from_secs(15);
/// How long the server keeps the state of a reader that has gone.
const GONE_AFTER: Duration = Duration::from_secs(30);
/// Most bytes of a record: larger ones are not written.
const RECORD_BYTES_MAX: usize = 80 << 20;
/// Back-off after a failure; doubles up to [`RETRY_MAX`].
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// A reader of a journal: first of all that is there, then of what comes.
pub struct JournalReader {
    journal: Journal,
    connection: watch::Receiver<BusConnection>,
    /// The stream, and the number and the id of the last message taken.
    at: Option<(i128, u64, String)>,
    open: Option<OpenJournal>,
    /// Parts of a record of which more are to come: how many, and their bytes.
    parts: Option<(usize, BytesMut)>,
    /// Whether messages were missed since the last record.
    has_gap: bool,
    wait: Duration,
}

/// Messages as the server sends them.
struct OpenJournal {
    messages: pull::Stream,
    stream: i128,
    /// The number of the last message that was there when the reader began.
    end: u64,
    has_begun: bool,
}

/// A record of a journal.
#[derive(Debug)]
pub struct Followed {
    /// Whether it follows the one that was taken before, with none between; it does not at the beginning.
    pub is_next: bool,
    /// The position of the source after it.
    pub position: Bytes,
    /// Its content; `None` where its beginning was missed.
    pub payload: Option<Bytes>,
    /// Whether it was there before it was read: there are later ones.
    pub is_old: bool,
}

impl Journal {
    /// A reader from the first message on that is there.
    pub fn follow(&self) -> JournalReader {
        JournalReader {
            connection: self.nats.connection(),
            journal: self.clone(),
            at: None,
            open: None,
            parts: None,
            has_gap: false,
            wait: RETRY_FIRST,
        }
    }
}

impl JournalReader {
    /// The next record. It waits for a server that cannot be reached, and goes on then. Cancel safe.
    pub async fn next(&mut self) -> Followed {
        loop {
            let Some(open) = &mut self.open else {
                match Box::pin(self.journal.open(self.at.as_ref())).await {
                    Ok(open) => self.open = Some(open),
                    Err(error) => {
                        tracing::debug!(error, stream = self.journal.stream, "changes cannot be read from the bus now");
                        self.pause().await;
                    }
                }
                continue;
            };
            let made = self.connection.borrow_and_update().made;
            let next = tokio::select! {
                next = open.messages.next() => next,
                // The server has forgotten what was asked over a connection before.
                () = is_remade(&mut self.connection, made) => None,
            };
            match next {
                Some(Ok(message)) => {
                    if let Some(record) = self.take(message) {
                        return record;
                    }
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, stream = self.journal.stream, "changes are asked for again");
                    self.open = None;
                    self.pause().await;
                }
                None => self.open = None,
            }
        }
    }

    /// Waits before the next attempt, less where the connection is made anew.
    async fn pause(&mut self) {
        let wait = self.wait;
        self.wait = (wait * 2).min(RETRY_MAX);
        let made = self.connection.borrow_and_update().made;
        // The time is what ends it else.
        let _ = tokio::time::timeout(wait, is_remade(&mut self.connection, made)).await;
    }

    /// Takes a message; the record that it completes.
    fn take(&mut self, message: Message) -> Option<Followed> {
        let open = self.open.as_mut()?;
        let (Ok(info), Some(headers)) = (message.info(), &message.headers) else { return None };
        let (number, is_first) = (info.stream_sequence, !std::mem::replace(&mut open.has_begun, true));
        let expected = self.at.as_ref().map(|(_, last, _)| last + 1);
        if !is_first && expected.is_some_and(|expected| number != expected) {
            // Some were lost on their way, or are sent twice.
            self.open = None;
            return None;
        }
        self.wait = RETRY_FIRST;
        let before = header(headers, BEFORE);
        let is_next = matches!((&self.at, &before), (Some((_, _, last)), Some(before)) if last == before);
        let id = header(headers, async_nats::header::NATS_MESSAGE_ID.as_ref()).unwrap_or_default();
        let is_old = number < open.end;
        self.at = Some((open.stream, number, id));
        if !is_next {
            (self.has_gap, self.parts) = (true, None);
        }
        let (index, count) = header(headers, PART).and_then(|part| parsed(&part)).unwrap_or((0, 1));
        let position = header(headers, POSITION).and_then(|text| unhex(&text)).unwrap_or_default();
        let payload = self.joined(index, count, message.payload.clone());
        if index + 1 < count {
            return None;
        }
        Some(Followed { is_next: !std::mem::take(&mut self.has_gap), position, payload, is_old })
    }

    /// Puts a part to those before it; the content of the record that is whole by it.
    fn joined(&mut self, index: usize, count: usize, part: Bytes) -> Option<Bytes> {
        if count == 1 {
            self.parts = None;
            return Some(part);
        }
        if index == 0 {
            self.parts = Some((0, BytesMut::new()));
        }
        let (next, bytes) = self.parts.as_mut()?;
        if *next != index || bytes.len() + part.len() > RECORD_BYTES_MAX {
            self.parts = None;
            return None;
        }
        *next += 1;
        bytes.extend_from_slice(&part);
        if index + 1 < count { None } else { self.parts.take().map(|(_, bytes)| bytes.freeze()) }
    }
}

impl Journal {
    /// Opens the messages after one that was taken; from the first on where that is not one of this stream.
    async fn open(&self, at: Option<&(i128, u64, String)>) -> Result<OpenJournal, String> {
        let stream = Box::pin(self.stream()).await?;
        let info = stream.get_info().await.map_err(|error| error.to_string())?;
        let (created, last) = (created(&info), info.state.last_sequence);
        let start_sequence = match at {
            Some((stream, number, _)) if *stream == created && *number <= last => number + 1,
            _ => 1,
        };
        let config = pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence },
            ack_policy: AckPolicy::None,
            inactive_threshold: GONE_AFTER,
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        let consumer = Box::pin(stream.create_consumer(config)).await.map_err(|error| error.to_string())?;
        let messages = consumer.stream().max_messages_per_batch(AHEAD_MAX).heartbeat(HEARTBEAT).expires(ASK_INTERVAL);
        let messages = messages.messages().await.map_err(|error| error.to_string())?;
        // What came while it was not connected is news.
        let end = if at.is_none() { last } else { 0 };
        Ok(OpenJournal { messages, stream: created, end, has_begun: false })
    }
}

/// Waits until the connection is up that is made after `made` others.
async fn is_remade(connection: &mut watch::Receiver<BusConnection>, made: u64) {
    let remade = connection.wait_for(|state| state.is_up && state.made != made).await.map(drop);
    if remade.is_err() {
        // The bus is closed: nothing comes any more.
        std::future::pending::<()>().await;
    }
}

/// Which part a message is, and of how many.
fn parsed(part: &str) -> Option<(usize, usize)> {
    let (index, count) = part.split_once('/')?;
    Some((index.parse().ok()?, count.parse().ok()?)).filter(|(index, count)| index < count)
}

#[cfg(test)]
mod tests {
    #[test]
    fn parts_are_below_their_number() {
        assert_eq!(super::parsed("1/2"), Some((1, 2)));
        for wrong in ["2/2", "0/0", "18446744073709551615/2", "1", "a/2", ""] {
            assert_eq!(super::parsed(wrong), None, "{wrong}");
        }
    }
}
