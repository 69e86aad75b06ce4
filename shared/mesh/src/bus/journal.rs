//! A journal: records in their order, written by one node at a time and read by all, in a JetStream stream of its own.
//!
//! Each message names the one before it, so a reader knows whether it missed any, whatever was done to the stream meanwhile. A
//! writer says which message it takes for the last one, and which number that has: it cannot write after another has.

mod append;
mod follow;

use std::time::Duration;

use async_nats::{
    HeaderMap,
    jetstream::{
        context::{CreateStreamErrorKind, GetStreamErrorKind},
        stream::{Config, DiscardPolicy, Info, StorageType, Stream},
    },
};
use bytes::Bytes;

pub use self::{
    append::{AppendError, Appender},
    follow::{Followed, JournalReader},
};
use super::{Nats, subject::word};

/// The message before this one.
const BEFORE: &str = "Perigee-Before";
/// The position of the source after this message.
const POSITION: &str = "Perigee-Position";
/// Which part of a record this is, and of how many.
const PART: &str = "Perigee-Part";
/// Names of tables that a record is about.
const TABLES: &str = "Perigee-Tables";
/// Most bytes of that header; where it would have more, it is `*`.
const TABLES_BYTES_MAX: usize = 1024;
/// How long the server knows ids of messages: longer than a writer tries again.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(60);

/// A journal of one database.
#[derive(Debug, Clone)]
pub struct Journal {
    nats: Nats,
    /// Name of the stream.
    stream: String,
    subject: String,
}

/// A record to write.
#[derive(Debug, Clone)]
pub struct Record {
    /// What it is.
    pub kind: RecordKind,
    /// The position of the source after it.
    pub position: Bytes,
    /// Names of tables that it is about.
    pub tables: Vec<String>,
    /// Its content.
    pub payload: Bytes,
}

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// What was found: no other record has its position.
    Found,
    /// What is to be known of what was found.
    Note,
    /// Where the log is. The last one is found by itself.
    State,
}

/// The end of a journal.
#[derive(Debug, Clone, PartialEq)]
pub struct JournalEnd {
    /// The stream: one that was made anew is another.
    stream: i128,
    /// Number of the last message; 0 before the first.
    sequence: u64,
    /// Id of the last message, where it is there.
    id: Option<String>,
    /// The position of the source after it.
    pub position: Option<Bytes>,
    /// The last state.
    pub state: Option<Bytes>,
}

impl Nats {
    /// The journal of the changes of a database.
    pub fn changes(&self, project: &str, database: &str) -> Journal {
        let (mesh, project, database) = (self.mesh(), word(project), word(database));
        Journal {
            nats: self.clone(),
            stream: format!("CHANGES_{mesh}_{project}_{database}"),
            subject: format!("cdc.{mesh}.{project}.{database}"),
        }
    }
}

impl Journal {
    /// The subject of a kind of records.
    fn subject(&self, kind: RecordKind) -> String {
        match kind {
            RecordKind::Found | RecordKind::Note => self.subject.clone(),
            RecordKind::State => format!("{}.state", self.subject),
        }
    }

    /// The stream, with the limits of the configuration; it is made where there is none.
    async fn stream(&self) -> Result<Stream, String> {
        let opened = Box::pin(self.open_stream()).await;
        self.nats.noted(&self.stream, opened)
    }

    async fn open_stream(&self) -> Result<Stream, String> {
        let settings = self.nats.config();
        let wanted = Config {
            name: self.stream.clone(),
            description: Some("Changes of the rows of a database, whole transactions in order".to_owned()),
            subjects: vec![self.subject(RecordKind::Found), self.subject(RecordKind::State)],
            max_bytes: i64::try_from(settings.changes_bytes).unwrap_or(i64::MAX),
            max_age: settings.changes_age,
            discard: DiscardPolicy::Old,
            storage: StorageType::File,
            duplicate_window: DUPLICATE_WINDOW,
            allow_direct: true,
            deny_delete: true,
            num_replicas: 1,
            ..Config::default()
        };
        let context = self.nats.context();
        let found = match context.get_stream(&self.stream).await {
            Ok(stream) => stream,
            Err(error) if is_missing(&error.kind()) => match context.create_stream(&wanted).await {
                Ok(stream) => return Ok(stream),
                // Another node has made it meanwhile.
                Err(error) if matches!(error.kind(), CreateStreamErrorKind::JetStream(_)) => {
                    context.get_stream(&self.stream).await.map_err(|_| error.to_string())?
                }
                Err(error) => return Err(error.to_string()),
            },
            Err(error) => return Err(error.to_string()),
        };
        let config = &found.cached_info().config;
        let has_limits = |one: &Config, other: &Config| {
            (one.max_bytes, one.max_age, &one.subjects) == (other.max_bytes, other.max_age, &other.subjects)
        };
        if !has_limits(config, &wanted) {
            // Copies and places are the operator's.
            let config = Config {
                max_bytes: wanted.max_bytes,
                max_age: wanted.max_age,
                subjects: wanted.subjects,
                ..config.clone()
            };
            context.update_stream(&config).await.map_err(|error| error.to_string())?;
        }
        Ok(found)
    }

    /// Where it ends now. Errors: that cannot be found out now.
    pub async fn end(&self) -> Result<JournalEnd, String> {
        let stream = Box::pin(self.stream()).await?;
        let info = stream.get_info().await.map_err(|error| error.to_string())?;
        let sequence = info.state.last_sequence;
        let mut end = JournalEnd { stream: created(&info), sequence, id: None, position: None, state: None };
        if info.state.messages == 0 {
            return Ok(end);
        }
        let last = stream.get_raw_message(sequence).await.map_err(|error| error.to_string())?;
        end.id = header(&last.headers, async_nats::header::NATS_MESSAGE_ID.as_ref());
        end.position = header(&last.headers, POSITION).and_then(|text| unhex(&text));
        // Of several messages in a row, which a state always is smaller than, the last one is whole.
        let state = stream.get_last_raw_message_by_subject(&self.subject(RecordKind::State)).await;
        end.state = state.ok().map(|message| message.payload);
        Ok(end)
    }
}

impl JournalEnd {
    /// Whether nothing is known of what was written before.
    pub fn is_unknown(&self) -> bool {
        self.id.is_none() || self.position.is_none()
    }
}

/// When a stream was made: what tells it from another of its name.
fn created(info: &Info) -> i128 {
    info.created.unix_timestamp_nanos()
}

fn is_missing(kind: &GetStreamErrorKind) -> bool {
    use async_nats::jetstream::ErrorCode;
    matches!(kind, GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).map(|value| value.as_str().to_owned())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // A String takes all that is written to it.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<Bytes> {
    let digits = text.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
        u8::from_str_radix(pair, 16).ok()
    });
    digits.collect::<Option<Vec<u8>>>().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_written_as_digits() {
        assert_eq!(hex(&[0, 255, 16]), "00ff10");
        assert_eq!(unhex("00ff10"), Some(Bytes::from_static(&[0, 255, 16])));
        for wrong in ["0", "0g", "é"] {
            assert_eq!(unhex(wrong), None, "{wrong}");
        }
    }
}
