//! The binary log as the server streams it to a connection of its own, read ahead by a task within bounds.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt;
use mysql_async::{BinlogStream, BinlogStreamRequest, Conn, prelude::Queryable};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::DropGuard;

use super::place::{BinlogPlace, parse_file};
use crate::store::mysql::{connector::MysqlConnector, error::MysqlError};

/// Events that are read ahead, and their kibibytes.
const EVENTS_AHEAD: usize = 1024;
const KIBIBYTES_AHEAD: u32 = 8192;
/// How often a server says that it is there while nothing is committed, in nanoseconds, and how long it may say nothing.
const HEARTBEAT: &str = "SET @mariadb_slave_capability = 4, @master_heartbeat_period = 2000000000";
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// How long a stream may take to begin.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// The first offset of a file.
pub const FIRST_OFFSET: u64 = 4;
/// A flag of events that are made for this stream: they stand in no file.
const ARTIFICIAL: u16 = 0x20;

/// Types of events.
pub mod kind {
    pub const QUERY: u8 = 2;
    pub const ROTATE: u8 = 4;
    pub const INTVAR: u8 = 5;
    pub const RAND: u8 = 13;
    pub const USER_VAR: u8 = 14;
    pub const FORMAT: u8 = 15;
    pub const XID: u8 = 16;
    pub const BEGIN_LOAD: u8 = 17;
    pub const EXECUTE_LOAD: u8 = 18;
    pub const TABLE_MAP: u8 = 19;
    pub const WRITE_ROWS: u8 = 23;
    pub const UPDATE_ROWS: u8 = 24;
    pub const DELETE_ROWS: u8 = 25;
    pub const INCIDENT: u8 = 26;
    pub const HEARTBEAT: u8 = 27;
    pub const XA_PREPARE: u8 = 38;
    pub const GTID: u8 = 162;
    pub const QUERY_COMPRESSED: u8 = 165;
    pub const ROWS_COMPRESSED: std::ops::RangeInclusive<u8> = 166..=171;
}

/// An event of the log.
#[derive(Debug)]
pub struct RawEvent {
    pub kind: u8,
    /// In seconds since 1970.
    pub timestamp: u32,
    /// Its bytes in the file.
    pub size: u32,
    /// The lowest bits of the offset after it; zero of one that stands in no file.
    pub log_pos: u32,
    /// What follows its header.
    pub body: Bytes,
    /// Its share of what may be read ahead.
    _held: Option<OwnedSemaphorePermit>,
}

/// Why a stream ended.
#[derive(Debug)]
pub enum BinlogEnd {
    /// The connection is lost: another may go on.
    Lost(MysqlError),
    /// The log does not go on at that place: it was purged, or is another one.
    Gone(String),
}

/// A stream of events.
#[derive(Debug)]
pub struct EventStream {
    events: mpsc::Receiver<Result<RawEvent, BinlogEnd>>,
    arrived: Arc<Notify>,
    /// When the file of the first event was made, in seconds since 1970.
    pub file_made: u32,
    /// Ends the task.
    _end: DropGuard,
}

impl EventStream {
    /// Opens the stream after a place of the log whose files have a base name.
    pub async fn open(connector: &MysqlConnector, base: &str, place: BinlogPlace) -> Result<Self, BinlogEnd> {
        let opened = async {
            let mut conn = connector.connect().await.map_err(BinlogEnd::Lost)?;
            conn.query_drop(HEARTBEAT).await.map_err(ended)?;
            let name = format!("{base}.{:06}", place.file());
            let request = BinlogStreamRequest::new(reader_id(&conn))
                .with_filename(name.as_bytes())
                .with_pos(place.offset().max(FIRST_OFFSET));
            let mut stream = conn.get_binlog_stream(request).await.map_err(ended)?;
            let file_made = loop {
                let event = next(&mut stream).await?;
                if event.kind == kind::FORMAT {
                    break event.timestamp;
                }
            };
            Ok::<_, BinlogEnd>((stream, file_made))
        };
        let silent = || BinlogEnd::Lost(MysqlError::Connect(format!("no binary log within {OPEN_TIMEOUT:?}")));
        let opened = tokio::time::timeout(OPEN_TIMEOUT, Box::pin(opened)).await.unwrap_or_else(|_| Err(silent()));
        let (stream, file_made) = opened?;
        let (sender, events) = mpsc::channel(EVENTS_AHEAD);
        let arrived = Arc::new(Notify::new());
        let stop = connector.tasks.stop().child_token();
        let (reading, _end) = (read_ahead(stream, sender, arrived.clone()), stop.clone().drop_guard());
        connector.tasks.spawn("binary log", async move {
            stop.run_until_cancelled(Box::pin(reading)).await;
        });
        Ok(Self { events, arrived, file_made, _end })
    }

    /// The next event; `None` where none has arrived within `wait`.
    pub async fn next(&mut self, wait: Duration) -> Result<Option<RawEvent>, BinlogEnd> {
        if let Some(event) = self.try_next()? {
            return Ok(Some(event));
        }
        match tokio::time::timeout(wait, self.events.recv()).await {
            Ok(event) => event.unwrap_or_else(|| Err(closed())).map(Some),
            Err(_) => Ok(None),
        }
    }

    /// The next event; `None` where none has arrived.
    pub fn try_next(&mut self) -> Result<Option<RawEvent>, BinlogEnd> {
        match self.events.try_recv() {
            Ok(event) => event.map(Some),
            Err(mpsc::error::TryRecvError::Empty) => Ok(None),
            Err(mpsc::error::TryRecvError::Disconnected) => Err(closed()),
        }
    }

    /// Whether nothing has arrived that was not taken.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && !self.events.is_closed()
    }

    /// Waits until something has arrived.
    pub async fn arrival(&self) {
        while self.is_empty() {
            self.arrived.notified().await;
        }
    }
}

fn closed() -> BinlogEnd {
    BinlogEnd::Lost(MysqlError::Connect("the binary log ended".to_owned()))
}

async fn read_ahead(mut stream: BinlogStream, sender: mpsc::Sender<Result<RawEvent, BinlogEnd>>, arrived: Arc<Notify>) {
    let room = Arc::new(Semaphore::new(KIBIBYTES_AHEAD as usize));
    loop {
        let event = next(&mut stream).await;
        let is_end = event.is_err();
        let event = match event {
            // It says no more than where the log is.
            Ok(event) if event.kind == kind::HEARTBEAT && sender.capacity() < EVENTS_AHEAD => continue,
            Ok(mut event) => {
                let share = (event.size / 1024 + 1).min(KIBIBYTES_AHEAD);
                event._held = room.clone().acquire_many_owned(share).await.ok();
                Ok(event)
            }
            Err(end) => Err(end),
        };
        if sender.send(event).await.is_err() {
            return;
        }
        arrived.notify_one();
        if is_end {
            return;
        }
    }
}

async fn next(stream: &mut BinlogStream) -> Result<RawEvent, BinlogEnd> {
    let silent = || BinlogEnd::Lost(MysqlError::Connect(format!("the server said nothing for {SILENCE_MAX:?}")));
    let event = tokio::time::timeout(SILENCE_MAX, stream.next()).await.map_err(|_| silent())?;
    let closed = || BinlogEnd::Lost(MysqlError::Connect("the server ended the binary log".to_owned()));
    let event = event.ok_or_else(closed)?.map_err(ended)?;
    let header = event.header();
    let log_pos = if header.flags_raw() & ARTIFICIAL == 0 { header.log_pos() } else { 0 };
    Ok(RawEvent {
        kind: header.event_type_raw(),
        timestamp: header.timestamp(),
        size: header.event_size(),
        log_pos,
        body: Bytes::copy_from_slice(event.data()),
        _held: None,
    })
}

/// Why a stream ended, by the error of the driver. What cannot be read is not read the next time either.
fn ended(error: mysql_async::Error) -> BinlogEnd {
    match &error {
        mysql_async::Error::Server(server) if server.code == 1236 => BinlogEnd::Gone(server.message.clone()),
        mysql_async::Error::Io(mysql_async::IoError::Io(io)) if io.kind() == std::io::ErrorKind::InvalidData => {
            BinlogEnd::Gone(format!("it cannot be read: {io}"))
        }
        mysql_async::Error::Driver(driver @ mysql_async::DriverError::PacketTooLarge) => {
            BinlogEnd::Gone(driver.to_string())
        }
        _ => BinlogEnd::Lost(MysqlError::Driver(error)),
    }
}

/// The number by which the server tells readers apart: of two with the same one it ends the first. Those of servers are small
/// as a rule; this one is of the connection and of the moment.
fn reader_id(conn: &Conn) -> u32 {
    use std::hash::{BuildHasher, RandomState};
    let hash = RandomState::new().hash_one((conn.id(), std::time::SystemTime::now()));
    1 << 31 | u32::try_from(hash & 0x7fff_fffe).unwrap_or_default()
}

impl RawEvent {
    /// An event of a test.
    #[cfg(test)]
    pub fn of(kind: u8, log_pos: u32, size: u32, body: Vec<u8>) -> Self {
        Self { kind, timestamp: 1, size, log_pos, body: body.into(), _held: None }
    }

    /// The place that a rotation leads to.
    pub fn rotated_to(&self) -> Option<BinlogPlace> {
        let (offset, name) = self.body.split_first_chunk()?;
        let (_, file) = parse_file(std::str::from_utf8(name).ok()?.trim_end_matches('\0'))?;
        Some(BinlogPlace::new(file, u64::from_le_bytes(*offset)))
    }

    /// The database in which a statement was run, and its text.
    pub fn statement(&self) -> Option<(String, String)> {
        let head = self.body.get(..13)?;
        let status = usize::from(u16::from_le_bytes([head[11], head[12]]));
        let database = 13 + status;
        let text = database + usize::from(head[8]) + 1;
        let read = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Some((read(self.body.get(database..text - 1)?), read(self.body.get(text..)?)))
    }

    /// Flags of the transaction that a GTID begins.
    pub fn transaction_flags(&self) -> Option<u8> {
        self.body.get(12).copied()
    }
}
