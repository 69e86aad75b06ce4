//! Records of a journal of changes, as they are written and read.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use mesh::Code;
use proto::crud::{Resync, Snapshot, Transaction, record};

use crate::{
    Error,
    store::log::{LogPart, LogPosition, Loss, Place, of_all},
};

/// A record.
#[derive(Debug, Clone)]
pub enum LogRecord {
    /// Changes, and what sees them, where their position does not say that.
    Part(Box<LogPart>, Option<Arc<Snapshot>>),
    /// Changes may have been missed; the position after which there are all again.
    Loss(Loss, Box<LogPosition>),
    /// The tables that are captured, with the positions after which there are all changes of them; and what sees all before,
    /// where positions do not say that.
    Captures(BTreeMap<String, LogPosition>, Option<Arc<Snapshot>>),
    /// A table is not captured; where its name is empty, none is.
    Failure {
        /// Its name.
        table: String,
        /// Why.
        error: Error,
    },
}

impl LogRecord {
    /// Changes, and what sees them, where their position does not say that.
    pub fn part(part: LogPart, visible: Option<Arc<Snapshot>>) -> Self {
        LogRecord::Part(Box::new(part), visible)
    }

    /// Changes that may have been missed, and the position after which there are all again.
    pub fn loss(loss: &Loss, since: &LogPosition) -> Self {
        LogRecord::Loss(loss.clone(), Box::new(since.clone()))
    }

    /// The tables that are captured, and what sees all before, where positions do not say that.
    pub fn captures(captures: &BTreeMap<String, LogPosition>, visible: Option<Arc<Snapshot>>) -> Self {
        LogRecord::Captures(captures.clone(), visible)
    }

    /// A table that is not captured.
    pub fn failure(table: &str, error: &Error) -> Self {
        LogRecord::Failure { table: table.to_owned(), error: error.clone() }
    }

    /// What sees all that the log has up to `position`, after the record, where that does not say it. A record that does not
    /// say it either is taken to need more than any snapshot sees.
    pub fn visible(record: Option<&Self>, position: &LogPosition) -> Option<Arc<Snapshot>> {
        position.commit_order()?;
        Some(match record {
            Some(LogRecord::Part(_, Some(visible)) | LogRecord::Captures(_, Some(visible))) => visible.clone(),
            Some(LogRecord::Loss(_, since)) => Arc::new(since.seen.clone()),
            Some(LogRecord::Part(_, None) | LogRecord::Captures(_, None) | LogRecord::Failure { .. }) | None => {
                Arc::new(of_all())
            }
        })
    }

    /// Its encoding.
    pub fn encode(&self) -> Bytes {
        let record = match self {
            LogRecord::Part(part, visible) => {
                let changes = part.changes.clone();
                let transaction = Transaction { id: part.place.id, committed_us: part.committed_us, changes };
                let (order, part_order) = part.place.order;
                let visible = visible.as_deref().cloned();
                let transaction = Some(transaction);
                record::Record::Part(record::RecordedPart { transaction, order, part_order, visible })
            }
            LogRecord::Loss(Loss { reason, tables }, since) => {
                let resync = Resync { reason: (*reason).into(), tables: tables.clone() };
                record::Record::Loss(record::RecordedLoss { resync: Some(resync), since: since.encode() })
            }
            LogRecord::Captures(captures, visible) => {
                let capture = |(table, since): (&String, &LogPosition)| record::Capture {
                    table: table.clone(),
                    since: since.encode(),
                };
                let captures = captures.iter().map(capture).collect();
                record::Record::Captures(record::Captures { captures, visible: visible.as_deref().cloned() })
            }
            LogRecord::Failure { table, error } => {
                let (code, text) = failure(error);
                record::Record::Failure(record::CaptureFailure { table: table.clone(), code, text })
            }
        };
        record::encoded(&record::LogRecord { record: Some(record) })
    }

    /// What is encoded in a record after which the log is at a position; `None` where it is not one of ours.
    pub fn decode(bytes: Bytes, position: &LogPosition) -> Option<Self> {
        let decoded: record::LogRecord = record::decoded(bytes)?;
        Some(match decoded.record? {
            record::Record::Part(record::RecordedPart { transaction, order, part_order, visible }) => {
                let Transaction { id, committed_us, changes } = transaction?;
                let place = Place { id, order: (order, part_order) };
                let part = LogPart { place, committed_us, changes, position: position.clone() };
                LogRecord::part(part, visible.map(Arc::new))
            }
            record::Record::Loss(record::RecordedLoss { resync, since }) => {
                let resync = resync?;
                let loss = Loss { reason: resync.reason(), tables: resync.tables };
                LogRecord::Loss(loss, Box::new(LogPosition::decode(&since)?))
            }
            record::Record::Captures(record::Captures { captures, visible }) => {
                let capture = |record::Capture { table, since }| Some((table, LogPosition::decode(&since)?));
                let captures = captures.into_iter().map(capture).collect::<Option<_>>()?;
                LogRecord::Captures(captures, visible.map(Arc::new))
            }
            record::Record::Failure(record::CaptureFailure { table, code, text }) => {
                LogRecord::Failure { table, error: error(&code, text) }
            }
        })
    }
}

/// The tables that are captured by the state of a journal.
pub fn captures(state: &Bytes) -> Option<BTreeMap<String, LogPosition>> {
    let decoded: record::LogRecord = record::decoded(state.clone())?;
    let record::Record::Captures(record::Captures { captures, .. }) = decoded.record? else { return None };
    let capture = |record::Capture { table, since }| Some((table, LogPosition::decode(&since)?));
    captures.into_iter().map(capture).collect()
}

/// The code and the text of an error. What the driver says goes to the log of the node that reads only.
fn failure(error: &Error) -> (String, String) {
    match error {
        Error::Query(error) => (Code::from(error).as_str().to_owned(), error.to_string()),
        Error::Refused { code, text, .. } => (code.as_str().to_owned(), text.clone()),
        other => (String::new(), other.to_string()),
    }
}

fn error(code: &str, text: String) -> Error {
    match Code::parse(code) {
        Some(Code::BadRequest) => Error::Query(query::Error::Malformed(text)),
        Some(code) => Error::Refused { code, text, cause: None },
        None => Error::Unavailable(format!("the node that reads the log: {text}")),
    }
}

#[cfg(test)]
mod tests {
    use proto::crud::{Change, Operation, ResyncReason};

    use super::*;

    fn position(end: u64) -> LogPosition {
        LogPosition::of(7, Snapshot { start: end, end, running: Vec::new() })
    }

    fn again(record: &LogRecord) -> String {
        format!("{:?}", LogRecord::decode(record.encode(), &position(9)).expect("it is one of ours"))
    }

    #[test]
    fn what_is_written_is_read() {
        let change = Change {
            table: "album".to_owned(),
            operation: Operation::Insert.into(),
            before: Bytes::new(),
            after: Bytes::from_static(b"{\"id\":1}"),
        };
        let place = Place { id: 3, order: (4, 5) };
        let part = LogPart { place, committed_us: 6, changes: vec![change], position: position(9) };
        let loss = Loss { reason: ResyncReason::Truncate, tables: vec!["album".to_owned()] };
        let captures = BTreeMap::from([("album".to_owned(), position(2)), ("b".to_owned(), position(3))]);
        for record in [
            LogRecord::part(part.clone(), None),
            LogRecord::part(part, Some(Arc::new(Snapshot { start: 3, end: 9, running: vec![4] }))),
            LogRecord::loss(&loss, &position(8)),
            LogRecord::captures(&captures, None),
            LogRecord::captures(&captures, Some(Arc::new(Snapshot { start: 3, end: 9, running: vec![4] }))),
            LogRecord::failure("album", &Error::unfollowed("album", "it is a view")),
        ] {
            assert_eq!(again(&record), format!("{record:?}"));
        }
        assert_eq!(super::captures(&LogRecord::captures(&captures, None).encode()), Some(captures));
        assert!(LogRecord::decode(Bytes::from_static(b"\xff"), &position(1)).is_none());
        assert!(LogRecord::decode(Bytes::new(), &position(1)).is_none());
    }

    #[test]
    fn what_a_driver_says_is_not_written() {
        let record = LogRecord::failure("", &Error::Unavailable("password of 10.0.0.1".to_owned()));
        let LogRecord::Failure { error, .. } = LogRecord::decode(record.encode(), &position(1)).unwrap() else {
            panic!("a failure")
        };
        assert!(matches!(&error, Error::Unavailable(text) if !text.contains("password")), "{error:?}");
    }
}
