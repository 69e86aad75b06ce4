//! Client of the streaming replication protocol, as far as a logical slot needs it: the driver knows no such connections.
//!
//! Source: PostgreSQL's documentation, "Frontend/Backend Protocol", "Streaming Replication Protocol".

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};
use tokio_postgres::config::{ChannelBinding, Host, SslMode};

use super::{cell::EPOCH_MICROS, connector::Connector};

mod login;

/// How long it may take to make a connection, log-in included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Most bytes of a message that is kept: of a larger one only its beginning is.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Bytes of the beginning that is kept of one.
const HEAD_BYTES: usize = 64;
/// Least room for what is read at once.
const READ_BYTES: usize = 256 << 10;

/// Why a replication connection failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplicationError {
    /// The server refused, with the code of its error.
    Refused {
        /// Its SQLSTATE.
        code: String,
        /// What it says.
        text: String,
    },
    /// It could not be made, or was lost.
    Lost(String),
}

/// A connection that replicates. Dropped, it is closed.
pub struct ReplicationConnection {
    stream: Box<dyn Duplex>,
    input: BytesMut,
    /// A message that is too large: its beginning, and how many bytes of it are still to come.
    cut: Option<(Message, usize)>,
}

/// A message of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its kind.
    pub tag: u8,
    /// What follows.
    pub body: Bytes,
    /// Whether the body is only the beginning of one that is too large.
    pub is_cut: bool,
}

/// Which history of which server a connection reads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct System {
    /// The identifier of the cluster.
    pub id: String,
    /// Its timeline: another one after the promotion of a standby.
    pub timeline: String,
    /// Since when its statistics count: another time after it was not shut down cleanly, when ids of transactions are given
    /// again that had not reached its disk. Empty where it does not say.
    pub recovered: String,
}

/// What a stream of a slot carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replicated {
    /// A message of the output plugin.
    Data {
        /// It.
        message: Bytes,
        /// Whether it is only the beginning of one that is too large.
        is_cut: bool,
    },
    /// All that was committed before this place has been sent.
    Alive {
        /// The place.
        end: u64,
        /// Whether the server asks for our status.
        wants_status: bool,
    },
}

trait Duplex: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Duplex for S {}

impl Connector {
    /// A replication connection to the primary server of the URL, with the settings of sessions.
    ///
    /// It says that it is `name`.
    pub async fn replicate(&self, name: &str) -> Result<(ReplicationConnection, System), ReplicationError> {
        if self.config.get_channel_binding() == ChannelBinding::Require {
            return Err(lost("channel_binding=require is not possible for replication"));
        }
        let mut last = lost("the url names no host");
        for (address, host) in self.addresses() {
            let connected =
                tokio::time::timeout(CONNECT_TIMEOUT, Box::pin(self.replicate_at(&address, &host, name))).await;
            match connected {
                Ok(Ok(connected)) => return Ok(connected),
                Ok(Err(error)) => last = error,
                Err(_) => last = lost(format!("no connection within {CONNECT_TIMEOUT:?}")),
            }
        }
        Err(last)
    }

    /// Where the server may be, each with its name for TLS.
    fn addresses(&self) -> Vec<(Address, String)> {
        let (hosts, addresses, ports) = (self.config.get_hosts(), self.config.get_hostaddrs(), self.config.get_ports());
        let count = hosts.len().max(addresses.len());
        let port = |index: usize| ports.get(index).or(ports.first()).copied().unwrap_or(5432);
        let one = |index: usize| match (addresses.get(index), hosts.get(index)) {
            (Some(address), Some(Host::Tcp(name))) => (Address::Tcp(address.to_string(), port(index)), name.clone()),
            (Some(address), _) => (Address::Tcp(address.to_string(), port(index)), String::new()),
            (None, Some(Host::Tcp(name))) => (Address::Tcp(name.clone(), port(index)), name.clone()),
            (None, Some(Host::Unix(folder))) => {
                (Address::Unix(folder.join(format!(".s.PGSQL.{}", port(index)))), String::new())
            }
            (None, None) => (Address::Tcp(String::new(), port(index)), String::new()),
        };
        (0..count).map(one).collect()
    }

    async fn replicate_at(
        &self,
        address: &Address,
        host: &str,
        name: &str,
    ) -> Result<(ReplicationConnection, System), ReplicationError> {
        let stream: Box<dyn Duplex> = match address {
            Address::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
        };
        let stream = match (self.config.get_ssl_mode(), address) {
            (SslMode::Disable, _) | (_, Address::Unix(_)) => stream,
            (mode, Address::Tcp(..)) => self.encrypted(stream, host, mode).await?,
        };
        let mut connection = ReplicationConnection { stream, input: BytesMut::new(), cut: None };
        login::log_in(&mut connection, &self.config, name).await?;
        connection.query(&self.session).await?;
        let is_standby = connection.query("SELECT pg_catalog.pg_is_in_recovery()").await?;
        if is_standby.first().and_then(|row| row.first()).is_some_and(|is_standby| is_standby.as_deref() != Some("f")) {
            return Err(lost("the server is a standby"));
        }
        let system = connection.query("IDENTIFY_SYSTEM").await?;
        let column = |index: usize| system.first().and_then(|row| row.get(index)).cloned().flatten();
        match (column(0), column(1)) {
            (Some(id), Some(timeline)) => {
                let recovered = recovered(&mut connection).await?;
                Ok((connection, System { id, timeline, recovered }))
            }
            (Some(_) | None, _) => Err(lost("the server did not say which it is")),
        }
    }

    /// The same stream with TLS, unless the server has none and need not.
    async fn encrypted(
        &self,
        mut stream: Box<dyn Duplex>,
        host: &str,
        mode: SslMode,
    ) -> Result<Box<dyn Duplex>, ReplicationError> {
        let mut request = BytesMut::new();
        postgres_protocol::message::frontend::ssl_request(&mut request);
        stream.write_all(&request).await?;
        stream.flush().await?;
        match stream.read_u8().await? {
            b'S' => Ok(Box::new(self.tls.encrypt(host, stream).await.map_err(lost)?)),
            _ if mode == SslMode::Require => Err(lost("the server has no TLS")),
            _ => Ok(stream),
        }
    }
}

/// Since when the statistics of a server count.
async fn recovered(connection: &mut ReplicationConnection) -> Result<String, ReplicationError> {
    const RECOVERED: &str =
        "SELECT pg_catalog.date_part('epoch', s.stats_reset)::text FROM pg_catalog.pg_stat_bgwriter s";
    match connection.query(RECOVERED).await {
        Ok(rows) => Ok(rows.into_iter().next().and_then(|row| row.into_iter().next()).flatten().unwrap_or_default()),
        // A server that only speaks the protocol may have no such statistics.
        Err(ReplicationError::Refused { .. }) => Ok(String::new()),
        Err(error) => Err(error),
    }
}

/// Where a server may be.
enum Address {
    Tcp(String, u16),
    Unix(std::path::PathBuf),
}

impl ReplicationConnection {
    /// The rows of a simple query, as texts.
    pub async fn query(&mut self, text: &str) -> Result<Vec<Vec<Option<String>>>, ReplicationError> {
        let mut message = BytesMut::new();
        postgres_protocol::message::frontend::query(text, &mut message)?;
        self.send(&message).await?;
        let (mut rows, mut failure) = (Vec::new(), None);
        loop {
            let message = self.next().await?;
            match message.tag {
                b'D' => rows.push(row(message.body)?),
                b'E' => failure = failure.or(Some(refusal(&message.body))),
                b'Z' => return failure.map_or(Ok(rows), Err),
                _ => {}
            }
        }
    }

    /// Starts to stream what was committed after `from`, of the tables of a publication.
    pub async fn start(&mut self, slot: &str, from: u64, publication: &str) -> Result<(), ReplicationError> {
        let text = format!(
            "START_REPLICATION SLOT \"{slot}\" LOGICAL {} (proto_version '1', publication_names '\"{publication}\"')",
            Lsn(from)
        );
        let mut message = BytesMut::new();
        postgres_protocol::message::frontend::query(&text, &mut message)?;
        self.send(&message).await?;
        loop {
            let message = self.next().await?;
            match message.tag {
                // CopyBothResponse, which the parser of the driver's crate does not know.
                b'W' => return Ok(()),
                b'E' => return Err(refusal(&message.body)),
                b'N' | b'S' => {}
                tag => return Err(lost(format!("unexpected message {tag}"))),
            }
        }
    }

    /// Reads what has come. Cancel safe.
    pub async fn fill(&mut self) -> Result<(), ReplicationError> {
        self.input.reserve(READ_BYTES);
        match self.stream.read_buf(&mut self.input).await? {
            0 => Err(lost("the server closed the connection")),
            _ => Ok(()),
        }
    }

    /// The next of what a stream carries, where it has come.
    pub fn take_replicated(&mut self) -> Result<Option<Replicated>, ReplicationError> {
        while let Some(Message { tag, mut body, is_cut }) = self.take() {
            match tag {
                b'd' => {}
                b'E' => return Err(refusal(&body)),
                b'N' | b'S' => continue,
                _ => return Err(lost("the server ended the stream")),
            }
            match body.try_get_u8() {
                // Start, end and time of the server's log, then the message.
                Ok(b'w') if body.len() >= 24 => {
                    body.advance(24);
                    return Ok(Some(Replicated::Data { message: body, is_cut }));
                }
                Ok(b'k') if body.len() >= 17 => {
                    let end = body.get_u64();
                    body.advance(8);
                    return Ok(Some(Replicated::Alive { end, wants_status: body.get_u8() != 0 }));
                }
                Ok(_) | Err(_) => return Err(lost("unexpected data in the stream")),
            }
        }
        Ok(None)
    }

    /// Tells the server how far its log was `received`, and up to where it is needed no longer.
    pub async fn confirm(&mut self, received: u64, confirmed: u64, wants_answer: bool) -> Result<(), ReplicationError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        let mut message = BytesMut::with_capacity(39);
        message.put_u8(b'd');
        message.put_i32(38);
        message.put_u8(b'r');
        message.put_u64(received);
        message.put_u64(confirmed);
        message.put_u64(confirmed);
        message.put_i64(i64::try_from(now).unwrap_or(i64::MAX).saturating_sub(EPOCH_MICROS));
        message.put_u8(u8::from(wants_answer));
        self.send(&message).await
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), ReplicationError> {
        self.stream.write_all(bytes).await?;
        Ok(self.stream.flush().await?)
    }

    async fn next(&mut self) -> Result<Message, ReplicationError> {
        loop {
            if let Some(message) = self.take() {
                return Ok(message);
            }
            self.fill().await?;
        }
    }

    /// The next message, where all of it has come.
    fn take(&mut self) -> Option<Message> {
        if let Some((_, left)) = &mut self.cut {
            let here = self.input.len().min(*left);
            self.input.advance(here);
            *left -= here;
            return if *left == 0 { self.cut.take().map(|(message, _)| message) } else { None };
        }
        let (tag, length) = match &*self.input {
            [tag, a, b, c, d, ..] => (*tag, u32::from_be_bytes([*a, *b, *c, *d]) as usize),
            _ => return None,
        };
        let length = length.saturating_sub(4);
        if length > MESSAGE_BYTES_MAX {
            if self.input.len() < 5 + HEAD_BYTES {
                return None;
            }
            self.input.advance(5);
            let body = Bytes::copy_from_slice(&self.input.split_to(HEAD_BYTES));
            self.cut = Some((Message { tag, body, is_cut: true }, length - HEAD_BYTES));
            return self.take();
        }
        if self.input.len() < 5 + length {
            return None;
        }
        self.input.advance(5);
        Some(Message { tag, body: self.input.split_to(length).freeze(), is_cut: false })
    }
}

/// A place in the server's log, as it writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The place that `text` names.
    pub fn parse(text: &str) -> Option<u64> {
        let (high, low) = text.split_once('/')?;
        Some(u64::from(u32::from_str_radix(high, 16).ok()?) << 32 | u64::from(u32::from_str_radix(low, 16).ok()?))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

/// The columns of a `DataRow`.
fn row(mut body: Bytes) -> Result<Vec<Option<String>>, ReplicationError> {
    let malformed = |_| lost("a malformed row");
    let count = body.try_get_u16().map_err(malformed)?;
    let mut columns = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let length = body.try_get_i32().map_err(malformed)?;
        columns.push(match usize::try_from(length) {
            Ok(length) if length <= body.len() => Some(String::from_utf8_lossy(&body.split_to(length)).into_owned()),
            Ok(_) => return Err(lost("a malformed row")),
            Err(_) => None,
        });
    }
    Ok(columns)
}

/// The error that an `ErrorResponse` tells.
fn refusal(body: &[u8]) -> ReplicationError {
    let (mut code, mut text) = (String::new(), String::new());
    for field in body.split(|byte| *byte == 0) {
        match field.split_first() {
            Some((b'C', value)) => code = String::from_utf8_lossy(value).into_owned(),
            Some((b'M', value)) => text = String::from_utf8_lossy(value).into_owned(),
            Some(_) | None => {}
        }
    }
    ReplicationError::Refused { code, text }
}

fn lost(why: impl ToString) -> ReplicationError {
    ReplicationError::Lost(why.to_string())
}

impl ReplicationError {
    /// Whether the server refused with this SQLSTATE.
    pub fn is(&self, sqlstate: &str) -> bool {
        matches!(self, ReplicationError::Refused { code, .. } if code == sqlstate)
    }
}

impl fmt::Display for ReplicationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplicationError::Refused { code, text } => write!(f, "{text} ({code})"),
            ReplicationError::Lost(why) => f.write_str(why),
        }
    }
}

impl From<std::io::Error> for ReplicationError {
    fn from(error: std::io::Error) -> Self {
        lost(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn taken(bytes: &[u8], step: usize) -> Vec<Message> {
        let (mut server, client) = tokio::io::duplex(1 << 20);
        let mut connection = ReplicationConnection { stream: Box::new(client), input: BytesMut::new(), cut: None };
        let mut messages = Vec::new();
        for piece in bytes.chunks(step) {
            server.write_all(piece).await.unwrap();
            connection.fill().await.unwrap();
            while let Some(message) = connection.take() {
                messages.push(message);
            }
        }
        messages
    }

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[tag][..], &length.to_be_bytes(), body].concat()
    }

    #[tokio::test]
    async fn messages_are_taken_in_whatever_pieces_they_come() {
        let bytes = [message(b'd', b"abc"), message(b'Z', b""), message(b'd', b"x")].concat();
        for step in [1, 2, 7, 100] {
            let messages = taken(&bytes, step).await;
            let bodies: Vec<&[u8]> = messages.iter().map(|message| &*message.body).collect();
            assert_eq!(bodies, [&b"abc"[..], b"", b"x"], "{step}");
        }
    }

    #[tokio::test]
    async fn of_a_message_that_is_too_large_the_beginning_is_kept() {
        let mut large = vec![7; MESSAGE_BYTES_MAX + 1];
        large[0] = b'w';
        let messages = taken(&[message(b'd', &large), message(b'd', b"next")].concat(), 200_000).await;
        assert_eq!(messages.len(), 2);
        assert!(messages[0].is_cut && messages[0].body.len() == HEAD_BYTES && messages[0].body[0] == b'w');
        assert_eq!((messages[1].is_cut, &*messages[1].body), (false, &b"next"[..]));
    }

    #[test]
    fn places_are_written_as_the_server_does() {
        assert_eq!(Lsn(0x16_b374_d848).to_string(), "16/B374D848");
        assert_eq!(Lsn::parse("16/B374D848"), Some(0x16_b374_d848));
        assert_eq!((Lsn::parse(""), Lsn::parse("1"), Lsn::parse("x/1")), (None, None, None));
    }

    #[test]
    fn errors_have_their_code_and_no_more_than_their_text() {
        let error = refusal(b"SERROR\0C55006\0Mslot is active\0Dsecret\0\0");
        assert_eq!(error.to_string(), "slot is active (55006)");
        assert!(error.is("55006") && !error.is("55000"));
    }
}
