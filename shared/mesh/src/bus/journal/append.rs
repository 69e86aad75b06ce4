//! Writing of a journal.

use std::{collections::VecDeque, ops::Range, time::Duration};

use async_nats::jetstream::{
    context::{PublishAckFuture, PublishError, PublishErrorKind},
    message::PublishMessage,
};
use bytes::Bytes;

use super::{BEFORE, Journal, JournalEnd, PART, POSITION, Record, RecordKind, TABLES, TABLES_BYTES_MAX, hex};
use crate::bus::subject::word;

/// Messages that are sent before the first of them is acknowledged, and bytes of them.
const IN_FLIGHT_MAX: usize = 256;
const IN_FLIGHT_BYTES_MAX: usize = 4 << 20;
/// Most bytes of the content of a message, where the server takes as many.
const PART_BYTES_MAX: usize = 256 << 10;
/// Bytes of a message besides its content.
const HEADER_BYTES_MAX: usize = 8 << 10;
/// Back-off after a failure; doubles up to [`RETRY_MAX`].
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// The writer of a journal, after an end of it.
#[derive(Debug)]
pub struct Appender {
    journal: Journal,
    stream: i128,
    sequence: u64,
    /// Id of the last message; empty before the first that is known.
    id: String,
    /// Position after the last record.
    position: Bytes,
}

/// Why records cannot be written any more by this writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The journal ends elsewhere than where this writer left it: another writes, or something was lost.
    #[error("the journal of changes ends elsewhere than where it was left")]
    Moved,
}

/// A message that is to be sent.
#[derive(Debug)]
struct Outgoing {
    kind: RecordKind,
    id: String,
    before: String,
    /// After the message: that before the record until its last part.
    position: String,
    tables: String,
    part: Option<String>,
    payload: Bytes,
}

impl Journal {
    /// The writer after an end of it.
    pub fn append_after(&self, end: &JournalEnd) -> Appender {
        Appender {
            journal: self.clone(),
            stream: end.stream,
            sequence: end.sequence,
            id: end.id.clone().unwrap_or_default(),
            position: end.position.clone().unwrap_or_default(),
        }
    }
}

impl Appender {
    /// Writes records, and returns once the server has all of them: it waits for a server that cannot be reached. How many
    /// messages they were. Not cancel safe: some may have been written, or all.
    pub async fn append(&mut self, records: &[Record]) -> Result<usize, AppendError> {
        let messages = self.messages(records);
        let (mut done, mut wait, mut is_told) = (0, RETRY_FIRST, false);
        while done < messages.len() {
            let window = window(&messages, done);
            let (acknowledged, failure) = self.send(&messages[window], done).await;
            if acknowledged > 0 {
                (done, wait) = (done + acknowledged, RETRY_FIRST);
            }
            let Some(error) = failure else { continue };
            let stream = &self.journal.stream;
            match wait == RETRY_MAX && !std::mem::replace(&mut is_told, true) {
                true => tracing::warn!(%error, stream, "changes are not taken by the bus for some time"),
                false => tracing::debug!(%error, stream, "changes are not taken by the bus now"),
            }
            // What was written of that is found out before it is sent again.
            match Box::pin(self.journal.end()).await {
                Ok(end) => done = self.reached(&messages, done, &end)?,
                Err(error) => tracing::debug!(error, "the end of a journal cannot be found out now"),
            }
            let mut connection = self.journal.nats.connection();
            connection.borrow_and_update();
            // A connection that is made anew ends the wait.
            let _ = tokio::time::timeout(wait, connection.changed()).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
        if let (Some(last), Some(record)) = (messages.last(), records.last()) {
            self.sequence += messages.len() as u64;
            self.id.clone_from(&last.id);
            self.position = record.position.clone();
        }
        Ok(messages.len())
    }

    /// How many of the messages the journal has, by its end.
    fn reached(&self, messages: &[Outgoing], done: usize, end: &JournalEnd) -> Result<usize, AppendError> {
        let written = end.sequence.checked_sub(self.sequence).and_then(|count| usize::try_from(count).ok());
        let Some(written) = written.filter(|count| *count <= messages.len() && *count >= done) else {
            return Err(AppendError::Moved);
        };
        let last = if written == 0 { &self.id } else { &messages[written - 1].id };
        // Without any message it is known by its number.
        let is_ours = end.stream == self.stream && end.id.as_ref().is_none_or(|id| id == last);
        if is_ours { Ok(written) } else { Err(AppendError::Moved) }
    }

    /// Sends messages, of which `done` others were written before; how many were acknowledged, and why not all.
    async fn send(&self, messages: &[Outgoing], done: usize) -> (usize, Option<PublishError>) {
        let mut sent: VecDeque<PublishAckFuture> = VecDeque::with_capacity(messages.len());
        let mut failure = None;
        for (index, message) in messages.iter().enumerate() {
            let publish = message.publish(self.sequence + (done + index) as u64);
            match self.journal.nats.context().send_publish(self.journal.subject(message.kind), publish).await {
                Ok(acknowledgement) => sent.push_back(acknowledgement),
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        let mut acknowledged = 0;
        for acknowledgement in sent {
            match acknowledgement.await {
                Ok(at) if at.sequence == self.sequence + (done + acknowledged) as u64 + 1 => acknowledged += 1,
                Ok(_) => return (acknowledged, Some(PublishError::new(PublishErrorKind::WrongLastSequence))),
                Err(error) => return (acknowledged, Some(error)),
            }
        }
        (acknowledged, failure)
    }

    /// The messages of records: one each, or several of a large one.
    fn messages(&self, records: &[Record]) -> Vec<Outgoing> {
        let most = self.journal.nats.message_bytes().saturating_sub(HEADER_BYTES_MAX).clamp(1024, PART_BYTES_MAX);
        let mut messages: Vec<Outgoing> = Vec::with_capacity(records.len());
        let (mut before, mut position) = (self.id.clone(), hex(&self.position));
        for record in records {
            let (id, after) = (id(record, &before), hex(&record.position));
            let count = record.payload.len().div_ceil(most).max(1);
            for index in 0..count {
                let is_last = index + 1 == count;
                let id = if is_last { id.clone() } else { format!("{id}.{index}") };
                let end = ((index + 1) * most).min(record.payload.len());
                messages.push(Outgoing {
                    kind: record.kind,
                    before: std::mem::replace(&mut before, id.clone()),
                    id,
                    position: if is_last { after.clone() } else { position.clone() },
                    tables: tables(&record.tables),
                    part: (count > 1).then(|| format!("{index}/{count}")),
                    payload: record.payload.slice(index * most..end),
                });
            }
            position = after;
        }
        messages
    }
}

impl Outgoing {
    fn publish(&self, last: u64) -> PublishMessage {
        let mut publish = PublishMessage::build()
            .payload(self.payload.clone())
            .message_id(&self.id)
            .expected_last_sequence(last)
            .header(BEFORE, self.before.as_str())
            .header(POSITION, self.position.as_str())
            .header(TABLES, self.tables.as_str());
        if let Some(part) = &self.part {
            publish = publish.header(PART, part.as_str());
        }
        // Without it the message after one that was refused would be taken, if another writer wrote just one.
        if !self.before.is_empty() { publish.expected_last_message_id(&self.before) } else { publish }
    }
}

/// The id of a record: that of its position, so that it is written once; or that of its place, where others have its position.
fn id(record: &Record, before: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    match record.kind {
        RecordKind::Found => _ = hasher.update(b"found"),
        RecordKind::Note | RecordKind::State => {
            hasher.update(b"at").update(before.as_bytes()).update(&record.payload);
        }
    }
    hasher.update(&record.position);
    hex(&hasher.finalize().as_bytes()[..16])
}

fn tables(names: &[String]) -> String {
    let names = names.iter().map(|name| word(name)).collect::<Vec<_>>().join(",");
    if names.len() > TABLES_BYTES_MAX { "*".to_owned() } else { names }
}

/// The messages from `done` on that are sent together.
fn window(messages: &[Outgoing], done: usize) -> Range<usize> {
    let (mut end, mut bytes) = (done, 0);
    while end < messages.len() && end - done < IN_FLIGHT_MAX && (end == done || bytes < IN_FLIGHT_BYTES_MAX) {
        bytes += messages[end].payload.len();
        end += 1;
    }
    done..end
}
