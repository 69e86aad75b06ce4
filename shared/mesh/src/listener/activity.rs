//! Activity of a connection, counted where it happens and compared with the timeouts from outside: no timer is set
//! and no clock is read for a request.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Instant,
};

use super::{Connection, Timeouts};

/// How an HTTP/2 connection begins.
const PREFACE: &[u8] = b"PRI";

/// Counters of one connection.
#[derive(Debug, Default)]
pub(super) struct Activity {
    received: AtomicU64,
    sent: AtomicU64,
    /// The last write found the socket full.
    is_blocked: AtomicBool,
    is_http2: AtomicBool,
    requests: AtomicU64,
    running: AtomicUsize,
    has_ended: AtomicBool,
    is_cut: AtomicBool,
}

impl Activity {
    /// What was written and is not sent is dropped with the connection.
    pub(super) fn cut(&self) {
        self.is_cut.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.load(Ordering::Relaxed) > 0
    }

    /// The client has begun to speak HTTP/2.
    pub(super) fn begin_http2(&self) {
        self.is_http2.store(true, Ordering::Relaxed);
    }

    /// Whether answers to several requests may be ready at the same time.
    pub(super) fn is_multiplexed(&self) -> bool {
        self.is_http2.load(Ordering::Relaxed) && self.running.load(Ordering::Relaxed) > 1
    }
}

/// A request whose answer is not complete: while there is one, its connection is not idle.
#[derive(Debug)]
pub struct Running(Arc<Activity>);

impl Running {
    pub(super) fn new(activity: Arc<Activity>) -> Self {
        activity.requests.fetch_add(1, Ordering::Relaxed);
        activity.running.fetch_add(1, Ordering::Relaxed);
        Self(activity)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A socket that counts what it carries.
pub(super) struct Observed {
    socket: TcpStream,
    activity: Arc<Activity>,
}

impl Observed {
    pub(super) fn new(socket: TcpStream, activity: Arc<Activity>) -> Self {
        Self { socket, activity }
    }

    fn written(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.activity.is_blocked.store(written.is_pending(), Ordering::Relaxed);
        if let Poll::Ready(Ok(count)) = &written {
            self.activity.sent.fetch_add(*count as u64, Ordering::Relaxed);
        }
        written
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        self.activity.has_ended.store(true, Ordering::Relaxed);
        if self.activity.is_cut.load(Ordering::Relaxed) {
            // Otherwise the system would go on sending what it holds, to a client that takes its time. It fails only on
            // a dead connection.
            let _ = self.socket.set_zero_linger();
        }
    }
}

impl AsyncRead for Observed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, buffer))?;
        let read = &buffer.filled()[before..];
        let received = self.activity.received.fetch_add(read.len() as u64, Ordering::Relaxed);
        if received == 0 && read.starts_with(PREFACE) {
            self.activity.begin_http2();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Observed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.written(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, bytes);
        self.written(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// A connection and how long it has been as it is.
pub(super) struct Watched {
    connection: Arc<Connection>,
    /// The last write that found the socket full: when it was seen, and bytes sent until then.
    blocked: Option<(Instant, u64)>,
    waiting: Option<Waiting>,
}

/// A connection without a running request.
#[derive(Clone, Copy)]
struct Waiting {
    since: Instant,
    /// Requests until then.
    requests: u64,
    /// Bytes received until then.
    received: u64,
    /// When the first bytes of the next head were seen.
    head: Option<Instant>,
}

impl Watched {
    pub(super) fn new(connection: Arc<Connection>) -> Self {
        let waiting = Waiting { since: Instant::now(), requests: 0, received: 0, head: None };
        Self { connection, blocked: None, waiting: Some(waiting) }
    }

    /// Closes the connection if one of its `timeouts` is over; whether it is still open.
    pub(super) fn is_open_at(&mut self, now: Instant, timeouts: &Timeouts) -> bool {
        if self.connection.activity.has_ended.load(Ordering::Relaxed) {
            return false;
        }
        let is_over =
            |since: Instant, limit: Option<Duration>| limit.is_some_and(|limit| now.duration_since(since) >= limit);
        if let Some(since) = self.blocked_since(now) {
            self.waiting = None;
            if is_over(since, timeouts.write) {
                self.connection.cut();
            }
            return true;
        }
        let Some(waiting) = self.waiting(now) else { return true };
        let silent = if self.has_begun() { timeouts.idle } else { timeouts.first };
        match waiting.head {
            Some(since) if is_over(since, timeouts.head) => self.connection.cut(),
            None if is_over(waiting.since, silent) => self.connection.retire(),
            _ => {}
        }
        true
    }

    /// Since when its client has taken nothing of what is to be written.
    fn blocked_since(&mut self, now: Instant) -> Option<Instant> {
        let activity = &self.connection.activity;
        let sent = activity.sent.load(Ordering::Relaxed);
        self.blocked = match self.blocked {
            _ if !activity.is_blocked.load(Ordering::Relaxed) => None,
            Some((since, before)) if before == sent => Some((since, before)),
            _ => Some((now, sent)),
        };
        self.blocked.map(|(since, _)| since)
    }

    /// How it waits for its next request, if it does.
    fn waiting(&mut self, now: Instant) -> Option<Waiting> {
        let activity = &self.connection.activity;
        let requests = activity.requests.load(Ordering::Relaxed);
        let received = activity.received.load(Ordering::Relaxed);
        if activity.is_running() {
            self.waiting = None;
            return None;
        }
        let mut waiting = match self.waiting {
            Some(waiting) if waiting.requests == requests => waiting,
            _ => Waiting { since: now, requests, received, head: None },
        };
        let is_http2 = activity.is_http2.load(Ordering::Relaxed);
        if waiting.head.is_none() && !is_http2 && received > waiting.received {
            waiting.head = Some(now);
        }
        self.waiting = Some(waiting);
        self.waiting
    }

    fn has_begun(&self) -> bool {
        self.connection.activity.received.load(Ordering::Relaxed) > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUTS: Timeouts = Timeouts {
        first: Some(Duration::from_secs(1)),
        head: Some(Duration::from_secs(2)),
        idle: Some(Duration::from_secs(4)),
        write: Some(Duration::from_secs(8)),
    };

    /// What becomes of a connection.
    #[derive(Debug, PartialEq)]
    enum Fate {
        Open,
        Retired,
        Cut,
        Ended,
    }
    use Fate::{Cut, Ended, Open, Retired};

    struct Stage {
        connection: Arc<Connection>,
        watched: Watched,
        began: Instant,
    }

    impl Stage {
        fn new() -> Self {
            let connection = Arc::new(Connection::new(([127, 0, 0, 1], 1).into()));
            Self { watched: Watched::new(connection.clone()), connection, began: Instant::now() }
        }

        /// What the connection is after it was looked at so long after it was made.
        fn at(&mut self, millis: u64) -> Fate {
            let is_open = self.watched.is_open_at(self.began + Duration::from_millis(millis), &TIMEOUTS);
            match (is_open, self.connection.is_cut(), self.connection.retire.is_cancelled()) {
                (false, ..) => Ended,
                (true, true, _) => Cut,
                (true, false, true) => Retired,
                (true, false, false) => Open,
            }
        }

        fn receives(&self, bytes: u64) {
            self.connection.activity.received.fetch_add(bytes, Ordering::Relaxed);
        }

        fn writes(&self, bytes: u64, is_blocked: bool) {
            self.connection.activity.sent.fetch_add(bytes, Ordering::Relaxed);
            self.connection.activity.is_blocked.store(is_blocked, Ordering::Relaxed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_has_a_time_for_its_first_byte() {
        let mut stage = Stage::new();
        assert_eq!((stage.at(0), stage.at(999), stage.at(1000)), (Open, Open, Retired));
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_has_a_time_from_its_first_byte() {
        let mut stage = Stage::new();
        stage.receives(1);
        assert_eq!((stage.at(500), stage.at(1500)), (Open, Open));
        stage.receives(1);
        assert_eq!((stage.at(2499), stage.at(2500)), (Open, Cut));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_from_the_end_of_its_answer() {
        let mut stage = Stage::new();
        stage.receives(50);
        let running = stage.connection.running();
        assert_eq!((stage.at(0), stage.at(100_000)), (Open, Open));
        drop(running);
        assert_eq!((stage.at(100_000), stage.at(103_999)), (Open, Open));
        // A request between two looks begins the time anew.
        drop(stage.connection.running());
        assert_eq!((stage.at(104_000), stage.at(107_999), stage.at(108_000)), (Open, Open, Retired));
    }

    #[tokio::test(start_paused = true)]
    async fn an_http2_connection_is_idle_from_its_beginning() {
        let mut stage = Stage::new();
        stage.connection.activity.is_http2.store(true, Ordering::Relaxed);
        stage.receives(24);
        assert_eq!((stage.at(1000), stage.at(3999), stage.at(4000)), (Open, Open, Retired));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_has_a_time_to_take_more_of_an_answer() {
        let mut stage = Stage::new();
        stage.receives(50);
        stage.writes(5, true);
        assert_eq!((stage.at(0), stage.at(7999)), (Open, Open));
        stage.writes(1, true);
        assert_eq!((stage.at(8000), stage.at(15_999)), (Open, Open));
        stage.writes(1, false);
        assert_eq!(stage.at(16_000), Open);
        stage.writes(0, true);
        assert_eq!((stage.at(17_000), stage.at(24_999), stage.at(25_000)), (Open, Open, Cut));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_has_ended_is_watched_no_more() {
        let mut stage = Stage::new();
        stage.connection.activity.has_ended.store(true, Ordering::Relaxed);
        assert_eq!(stage.at(0), Ended);
    }
}
