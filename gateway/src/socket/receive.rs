//! The receiving side of a WebSocket: what clients send of messages that are not complete is bounded.
//!
//! A message may come in as many pieces as its client likes, however slowly, and pings and pongs between them.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use crate::live::{CallerTurns, Turn};

/// Messages up to this size need no turn: what a connection may hold of one is part of what any takes.
pub const SMALL_BYTES: usize = 16 * 1024;
/// Bytes of a frame of a client besides its payload, of which a control frame has up to 125. Source: RFC 6455, section 5.2.
const CONTROL_OVERHEAD: usize = 6;

/// Bytes that were received since the last message was complete. Clones are of the same socket.
#[derive(Clone, Default)]
pub struct Incomplete(Arc<IncompleteState>);

#[derive(Default)]
struct IncompleteState {
    bytes: AtomicUsize,
    /// Turns of the caller for large messages, once it is known who that is.
    turns: OnceLock<Arc<CallerTurns>>,
}

impl Incomplete {
    /// A message is complete.
    pub fn completed(&self) {
        self.0.bytes.store(0, Ordering::Relaxed);
    }

    /// From now on messages may be large, in turn.
    pub fn acknowledged(&self, turns: CallerTurns) {
        // A connection is acknowledged once.
        let _ = self.0.turns.set(Arc::new(turns));
    }

    /// A ping, a pong or a close of so many bytes is complete; it may have come between pieces of a message.
    pub fn control(&self, payload: usize) {
        let taken = |bytes: usize| Some(bytes.saturating_sub(payload + CONTROL_OVERHEAD));
        // It always has a value to store.
        let _ = self.0.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken);
    }

    fn bytes(&self) -> usize {
        self.0.bytes.load(Ordering::Relaxed)
    }
}

/// A connection that is read from no further than [`SMALL_BYTES`] of a message without a turn of the node, and for no longer
/// than the time limit.
pub struct BoundedReads<C> {
    connection: C,
    turn: Option<Turn>,
    /// The wait for a turn.
    waiting: Option<BoxFuture<'static, Turn>>,
    /// Dropped after what is had of its turns, as [`CallerTurns`] want it.
    incomplete: Incomplete,
    /// When the rest of a message must be there.
    timeout: Option<Pin<Box<Sleep>>>,
    time: Duration,
}

impl<C> BoundedReads<C> {
    /// Reads of `connection`, counted in `incomplete`; one message may take `time`.
    pub fn new(connection: C, incomplete: Incomplete, time: Duration) -> Self {
        Self { connection, turn: None, waiting: None, incomplete, timeout: None, time }
    }

    /// Errors: `TimedOut` for a message that takes too long; `FileTooLarge` for one that is large before it is known whose
    /// it is.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let bytes = self.incomplete.bytes();
        if bytes == 0 {
            (self.turn, self.timeout) = (None, None);
            return Poll::Ready(Ok(()));
        }
        if bytes >= SMALL_BYTES && self.turn.is_none() {
            let Some(turns) = self.incomplete.0.turns.get() else {
                return Poll::Ready(Err(io::ErrorKind::FileTooLarge.into()));
            };
            let next = |turns: Arc<CallerTurns>| async move { turns.next().await }.boxed();
            let waiting = self.waiting.get_or_insert_with(|| next(turns.clone()));
            self.turn = Some(ready!(waiting.poll_unpin(cx)));
            // What it has waited for others does not count.
            (self.waiting, self.timeout) = (None, None);
        }
        let time = self.time;
        let timeout = self.timeout.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + time)));
        match timeout.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Ready(Ok(())),
        }
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for BoundedReads<C> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.poll_turn(cx))?;
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.connection).poll_read(cx, buffer))?;
        this.incomplete.0.bytes.fetch_add(buffer.filled().len() - before, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for BoundedReads<C> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::live::{CallerId, NodeTurns};

    const TIME: Duration = Duration::from_secs(30);

    fn acknowledged(turns: &NodeTurns, caller: &str) -> Incomplete {
        let incomplete = Incomplete::default();
        incomplete.acknowledged(turns.of(CallerId::of("shop", caller, None)));
        incomplete
    }

    #[tokio::test(start_paused = true)]
    async fn one_large_message_waits_for_another_and_small_ones_do_not() {
        let turns = NodeTurns::new(1);
        let open = |caller: &str| {
            let (client, server) = tokio::io::duplex(4 * SMALL_BYTES);
            (client, BoundedReads::new(server, acknowledged(&turns, caller), TIME))
        };
        let ((mut one, mut first), (mut other, mut second)) = (open("ann"), open("bob"));
        let mut buffer = vec![0; SMALL_BYTES];
        for client in [&mut one, &mut other] {
            client.write_all(&vec![0; 2 * SMALL_BYTES]).await.expect("it fits");
        }
        for server in [&mut first, &mut second] {
            server.read_exact(&mut buffer).await.expect("the first part is read");
        }
        first.read_exact(&mut buffer).await.expect("there is a turn");
        assert!(second.read(&mut buffer).now_or_never().is_none(), "there is none");
        first.incomplete.completed();
        one.write_all(b"next").await.expect("it fits");
        first.read_exact(&mut buffer[..4]).await.expect("the next message is small");
        second.read_exact(&mut buffer).await.expect("the turn is free");
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_with_many_large_messages_does_not_hold_up_those_of_others() {
        let turns = NodeTurns::new(8);
        let open = |caller: &str| {
            let (client, server) = tokio::io::duplex(4 * SMALL_BYTES);
            (client, BoundedReads::new(server, acknowledged(&turns, caller), TIME))
        };
        let mut buffer = vec![0; SMALL_BYTES];
        let mut sockets: Vec<_> = ["ann"; 9].into_iter().chain(["bob"]).map(open).collect();
        for (client, server) in &mut sockets {
            client.write_all(&vec![0; 2 * SMALL_BYTES]).await.expect("it fits");
            server.read_exact(&mut buffer).await.expect("the first part is read");
        }
        let mut go_on = |(_, server): &mut (_, BoundedReads<_>)| server.read(&mut buffer).now_or_never().is_some();
        assert_eq!(sockets[..9].iter_mut().filter_map(|socket| go_on(socket).then_some(())).count(), 1);
        assert!(go_on(&mut sockets[9]), "another caller has a turn");
        drop(sockets);
        assert!(turns.is_unused(), "nothing is kept of callers that left in the middle of a message");
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_does_not_end_breaks_the_connection() {
        for size in [1, SMALL_BYTES] {
            let (mut client, server) = tokio::io::duplex(4 * SMALL_BYTES);
            let mut server = BoundedReads::new(server, acknowledged(&NodeTurns::new(1), "ann"), TIME);
            client.write_all(&vec![0; size]).await.expect("it fits");
            server.read_exact(&mut vec![0; size]).await.expect("it is there");
            let begin = Instant::now();
            let error = server.read(&mut [0; 1]).await.expect_err("nothing more comes");
            assert_eq!((error.kind(), begin.elapsed()), (io::ErrorKind::TimedOut, TIME), "{size}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_is_silent_between_messages_has_time() {
        let (mut client, server) = tokio::io::duplex(SMALL_BYTES);
        let mut server = BoundedReads::new(server, acknowledged(&NodeTurns::new(1), "ann"), TIME);
        for _ in 0..2 {
            client.write_all(&[0; 9]).await.expect("it fits");
            server.read_exact(&mut [0; 9]).await.expect("it is there");
            server.incomplete.completed();
            let silent = tokio::time::timeout(2 * TIME, server.read(&mut [0; 1])).await;
            assert!(silent.is_err(), "nothing is wrong with it");
        }
    }

    #[tokio::test]
    async fn a_stranger_has_no_turn() {
        let (mut client, server) = tokio::io::duplex(4 * SMALL_BYTES);
        let mut server = BoundedReads::new(server, Incomplete::default(), TIME);
        client.write_all(&vec![0; 2 * SMALL_BYTES]).await.expect("it fits");
        server.read_exact(&mut vec![0; SMALL_BYTES]).await.expect("it is there");
        let error = server.read(&mut [0; 1]).await.expect_err("it is over the limit");
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn pongs_between_pieces_of_a_message_complete_none() {
        let incomplete = Incomplete::default();
        incomplete.0.bytes.store(100 + CONTROL_OVERHEAD, Ordering::Relaxed);
        incomplete.control(0);
        assert_eq!(incomplete.bytes(), 100);
        incomplete.control(125);
        assert_eq!(incomplete.bytes(), 0);
    }
}
