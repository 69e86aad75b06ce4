//! A lean gRPC client: prepared HTTP/2 frames, with many requests under way on one connection.
//!
//! A load generator must cost the same for every protocol, and the clients of HTTP/1.1 write prepared bytes too. What a
//! request repeats of the one before is sent as an index, as gRPC's clients do.

use std::time::Instant;

use anyhow::{bail, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The largest window: nothing that is read here waits for one.
const WINDOW: u32 = (1 << 31) - 1;
/// The window that a connection begins with.
const FIRST_WINDOW: u32 = 65_535;
/// Bytes that are read before the server is told that they were: long before the window of a connection is used up.
const ACKNOWLEDGED_BYTES: u32 = 1 << 30;
const FRAME_HEAD: usize = 9;
/// The names of these headers in HPACK's static table.
const AUTHORITY: u8 = 1;
const PATH: u8 = 4;
const AUTHORIZATION: u8 = 23;
const CONTENT_TYPE: u8 = 31;
/// Fields of HPACK's static table: `:method: POST` and `:scheme: http`.
const POST_HTTP: [u8; 2] = [0x83, 0x86];

mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
}

mod flag {
    pub const ACK: u8 = 1;
    pub const END_STREAM: u8 = 1;
    pub const END_HEADERS: u8 = 4;
}

/// Calls of one method, taken in turn.
#[derive(Debug, Clone)]
pub struct Calls {
    /// Path of the method.
    pub path: &'static str,
    /// Bearer token.
    pub token: String,
    /// Encoded messages.
    pub messages: Vec<Vec<u8>>,
}

/// A connection of one client.
pub struct Connection {
    stream: TcpStream,
    calls: Calls,
    turn: usize,
    next_stream: u32,
    /// Fewer than are worth a map.
    running: Vec<Running>,
    to_send: Vec<u8>,
    received: Vec<u8>,
    unacknowledged: u32,
}

struct Running {
    stream: u32,
    began: Instant,
    has_message: bool,
}

struct Frame<'a> {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: &'a [u8],
}

impl Connection {
    /// Connects to a port on loopback; begins with call number `turn`.
    pub async fn open(port: u16, calls: Calls, turn: usize) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let mut to_send = PREFACE.to_vec();
        let settings =
            [(2_u16, 0), (4, WINDOW)].map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat());
        push_frame(&mut to_send, kind::SETTINGS, 0, 0, &settings.concat());
        push_frame(&mut to_send, kind::WINDOW_UPDATE, 0, 0, &(WINDOW - FIRST_WINDOW).to_be_bytes());
        let received = Vec::with_capacity(128 * 1024);
        Ok(Self { stream, calls, turn, next_stream: 1, running: Vec::new(), to_send, received, unacknowledged: 0 })
    }

    /// Calls under way.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Begins with the first call again.
    pub fn rewind(&mut self) {
        self.turn = 0;
    }

    /// Begins the next call, which is sent with the next [`Self::ended`].
    pub fn begin(&mut self) {
        let (stream, out) = (self.next_stream, &mut self.to_send);
        match stream {
            1 => push_frame(out, kind::HEADERS, flag::END_HEADERS, stream, &first_head(&self.calls)),
            _ => push_frame(out, kind::HEADERS, flag::END_HEADERS, stream, &repeated_head()),
        }
        let message = &self.calls.messages[self.turn % self.calls.messages.len()];
        push_frame_head(out, kind::DATA, flag::END_STREAM, stream, 5 + message.len());
        out.push(0);
        out.extend_from_slice(&length(message.len()));
        out.extend_from_slice(message);
        self.turn += 1;
        self.next_stream += 2;
        self.running.push(Running { stream, began: Instant::now(), has_message: false });
    }

    /// Waits for the server; when the calls began that have ended since, all of them with success.
    pub async fn ended(&mut self) -> anyhow::Result<Vec<Instant>> {
        if !self.to_send.is_empty() {
            self.stream.write_all(&self.to_send).await?;
            self.to_send.clear();
        }
        ensure!(self.stream.read_buf(&mut self.received).await? > 0, "the server hung up");
        let received = std::mem::take(&mut self.received);
        let (mut ended, mut rest) = (Vec::new(), &received[..]);
        while let Some((frame, after)) = Frame::split(rest) {
            ended.extend(self.accept(&frame)?);
            rest = after;
        }
        let parsed = received.len() - rest.len();
        self.received = received;
        self.received.drain(..parsed);
        Ok(ended)
    }

    /// When the call began that `frame` ends.
    fn accept(&mut self, frame: &Frame<'_>) -> anyhow::Result<Option<Instant>> {
        match frame.kind {
            kind::DATA => self.acknowledge(frame.payload.len() as u32),
            kind::HEADERS => {}
            kind::SETTINGS | kind::PING if frame.flags & flag::ACK == 0 => {
                let payload = if frame.kind == kind::PING { frame.payload } else { &[] };
                push_frame(&mut self.to_send, frame.kind, flag::ACK, 0, payload);
                return Ok(None);
            }
            kind::RST_STREAM | kind::GOAWAY => bail!("the server ends a stream or the connection: {:?}", frame.payload),
            _ => return Ok(None),
        }
        let Some(at) = self.running.iter().position(|running| running.stream == frame.stream) else {
            bail!("a frame of stream {}, which is not open", frame.stream)
        };
        self.running[at].has_message |= frame.kind == kind::DATA && !frame.payload.is_empty();
        if frame.flags & flag::END_STREAM == 0 {
            return Ok(None);
        }
        let ended = self.running.swap_remove(at);
        // A unary call that fails is answered by its status alone.
        ensure!(ended.has_message, "a failure: no message but {:?}", String::from_utf8_lossy(frame.payload));
        Ok(Some(ended.began))
    }

    /// Lets the server send as many bytes again as have come, now and then.
    fn acknowledge(&mut self, bytes: u32) {
        self.unacknowledged += bytes;
        if self.unacknowledged >= ACKNOWLEDGED_BYTES {
            push_frame(&mut self.to_send, kind::WINDOW_UPDATE, 0, 0, &self.unacknowledged.to_be_bytes());
            self.unacknowledged = 0;
        }
    }
}

impl<'a> Frame<'a> {
    /// The first frame of `bytes` and what follows it; `None` while it is not whole.
    fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (head, rest) = bytes.split_first_chunk::<FRAME_HEAD>()?;
        let size = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (payload, after) = rest.split_at_checked(size)?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some((Self { kind: head[3], flags: head[4], stream, payload }, after))
    }
}

fn push_frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    push_frame_head(out, kind, flags, stream, payload.len());
    out.extend_from_slice(payload);
}

fn push_frame_head(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, size: usize) {
    out.extend_from_slice(&length(size)[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
}

fn length(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).expect("requests are small").to_be_bytes()
}

/// The headers of the first call of a connection, which the server keeps in its table.
fn first_head(calls: &Calls) -> Vec<u8> {
    let mut head = POST_HTTP.to_vec();
    for (name, value) in [
        (PATH, calls.path),
        (AUTHORITY, "localhost"),
        (CONTENT_TYPE, "application/grpc"),
        (AUTHORIZATION, &format!("Bearer {}", calls.token)),
    ] {
        head.push(0x40 | name);
        push_text(&mut head, value);
    }
    head.push(0x40);
    push_text(&mut head, "te");
    push_text(&mut head, "trailers");
    head
}

/// The headers of [`first_head`] once more: the five at the beginning of the server's table, the oldest last.
fn repeated_head() -> [u8; 7] {
    let [post, http] = POST_HTTP;
    [post, http, 0xc2, 0xc1, 0xc0, 0xbf, 0xbe]
}

/// A text in HPACK, as it is. Its length has a prefix of seven bits.
fn push_text(out: &mut Vec<u8>, text: &str) {
    let mut rest = text.len();
    if rest < 127 {
        out.push(rest as u8);
    } else {
        out.push(127);
        rest -= 127;
        while rest >= 128 {
            out.push((rest % 128) as u8 | 128);
            rest /= 128;
        }
        out.push(rest as u8);
    }
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_have_long_lengths() {
        let head = |length: usize| {
            let mut out = Vec::new();
            push_text(&mut out, &"x".repeat(length));
            out.truncate(out.len() - length);
            out
        };
        // Source: RFC 7541, section 5.1.
        assert_eq!(head(126), [126]);
        assert_eq!(head(127), [127, 0]);
        assert_eq!(head(127 + 1337 - 31), [127, 154, 10]);
    }

    #[test]
    fn a_frame_is_split_off_once_it_is_whole() {
        let mut bytes = Vec::new();
        push_frame(&mut bytes, kind::PING, flag::ACK, 3, b"12345678");
        bytes.extend_from_slice(b"rest");
        assert!(Frame::split(&bytes[..16]).is_none());
        let (frame, rest) = Frame::split(&bytes).unwrap();
        assert_eq!(
            (frame.kind, frame.flags, frame.stream, frame.payload),
            (kind::PING, flag::ACK, 3, &b"12345678"[..])
        );
        assert_eq!(rest, b"rest");
    }
}
