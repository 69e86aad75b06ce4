//! A byte budget for answers that their clients have not taken yet, all connections together.
//!
//! A slow reader holds its answer for as long as it reads. When the budget is full, those that are far behind lose their
//! connection; where all keep up, a new large answer is refused. Small answers always pass.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    Error,
    body::{Body, HttpBody},
    response::Response,
};
use bytes::Bytes;
use foldhash::HashMap;
use futures::{FutureExt, StreamExt};
use http::Version;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use mesh::{
    Code, Fault,
    listener::{Connection, Running},
    telemetry::{Counter, Gauge, Metrics},
};
use tokio::time::Instant;

/// Answers up to this size always pass.
const SMALL_BYTES: usize = 64 * 1024;
/// Bytes that are handed on at a time; what is handed on is copied, so that a cut answer leaves nothing of itself in
/// buffers.
const HTTP1_CHUNK: usize = 64 * 1024;
const HTTP2_CHUNK: usize = 16 * 1024;
/// Bytes of a stream that are held at a time, on their way from where they are read to the socket.
const STREAM_BYTES: u64 = 512 * 1024;
/// A client may be behind for so long, by so much that buffers hold, before it counts as slow.
const SLOW_AFTER: Duration = Duration::from_secs(1);
const BUFFERED_BYTES: f64 = 256.0 * 1024.0;
/// Bytes per second below which a client is slow.
const SLOW_RATE: f64 = 64.0 * 1024.0;
/// How often answers are compared with the timeout.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Byte budget of a node. Clones are the same budget.
#[derive(Clone)]
pub(crate) struct SendBudget {
    state: Arc<BudgetState>,
}

struct BudgetState {
    limit: usize,
    ledger: Mutex<Ledger>,
    unsent: Gauge,
    shed: Counter,
}

#[derive(Default)]
struct Ledger {
    bytes: usize,
    next: u64,
    answers: HashMap<u64, Arc<UnsentAnswer>>,
}

/// An answer that is being sent.
struct UnsentAnswer {
    size: usize,
    taken: AtomicUsize,
    /// For a message of a socket: where its connection was when it was queued.
    socket: Option<SocketProgress>,
    since: Instant,
    connection: Option<Arc<Connection>>,
    /// Bytes taken at the last check that saw progress, and when that was.
    progress: Mutex<(usize, Instant)>,
}

/// How many bytes the client of a socket has taken of all messages. Clones are of the same socket.
///
/// Its messages are sent one after the other: one that waits for others is not slow while they go on.
#[derive(Clone)]
pub(crate) struct SocketProgress {
    connection: Arc<Connection>,
    taken: Arc<AtomicUsize>,
    /// Bytes that were taken before.
    before: usize,
}

impl SocketProgress {
    /// A client at the other end of `connection` that has taken nothing.
    pub(crate) fn new(connection: Arc<Connection>) -> Self {
        Self { connection, taken: Arc::default(), before: 0 }
    }

    /// Counts bytes that the client has taken.
    pub(crate) fn add(&self, bytes: usize) {
        self.taken.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes that were taken.
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed) - self.before
    }

    /// The connection, which may be cut.
    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    fn restarted(&self) -> Self {
        Self { before: self.taken.load(Ordering::Relaxed), ..self.clone() }
    }
}

impl UnsentAnswer {
    fn taken(&self) -> usize {
        self.socket.as_ref().map_or_else(|| self.taken.load(Ordering::Relaxed), SocketProgress::taken)
    }

    /// Bytes that its client is behind the slow rate; `None` for a client that keeps up.
    fn bytes_behind(&self, now: Instant) -> Option<f64> {
        let age = now.duration_since(self.since);
        let expected = age.as_secs_f64() * SLOW_RATE + BUFFERED_BYTES.min(self.size as f64 / 2.0);
        let behind = expected - self.taken() as f64;
        (age >= SLOW_AFTER && behind > 0.0 && self.connection.is_some()).then_some(behind)
    }

    fn is_stalled(&self, now: Instant, timeout: Duration) -> bool {
        let taken = self.taken();
        let mut progress = self.progress.lock().expect("no code panics while it holds this lock");
        if progress.0 != taken {
            *progress = (taken, now);
        }
        now.duration_since(progress.1) >= timeout
    }

    fn cut(&self) {
        if let Some(connection) = &self.connection {
            connection.cut();
        }
    }
}

impl SendBudget {
    pub(crate) fn new(limit: usize, metrics: &Metrics) -> Self {
        let (unsent, shed) = (metrics.load().unsent_bytes.clone(), metrics.shed("unsent_bytes"));
        Self { state: Arc::new(BudgetState { limit, ledger: Mutex::default(), unsent, shed }) }
    }

    /// `response` with a body that is sent in chunks and counted until the client has taken it.
    ///
    /// A small one over HTTP/1.1 is left as it is: there is one on a connection at most, and the socket takes it.
    /// Errors: `UNAVAILABLE` where there is no room.
    pub(crate) fn track(
        &self,
        response: Response,
        version: Version,
        connection: Option<&Arc<Connection>>,
    ) -> Result<Response, Fault> {
        let is_http1 = version < Version::HTTP_2;
        let known = response.body().size_hint().exact();
        if is_http1 && known.is_some_and(|size| size <= SMALL_BYTES as u64) {
            return Ok(response);
        }
        let (head, mut body) = response.into_parts();
        // What is there already counts before its client is ready for it, which may be never.
        let first = body.frame().now_or_never().flatten();
        let (rest, first) = match first {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => (data, None),
                Err(frame) => (Bytes::new(), Some(Ok(frame))),
            },
            Some(Err(error)) => (Bytes::new(), Some(Err(error))),
            None => (Bytes::new(), None),
        };
        let reservation = if rest.is_empty() { None } else { Some(self.reserve(rest.len(), connection, None)?) };
        let sending = ChunkedBody {
            body,
            next: first,
            is_whole: true,
            size: known,
            rest,
            chunk: if is_http1 { HTTP1_CHUNK } else { HTTP2_CHUNK },
            reservation,
            _running: connection.map(|connection| connection.running()),
        };
        Ok(Response::from_parts(head, Body::new(sending)))
    }

    /// `response`, whose body is a stream of `size` bytes: what is held of it at a time counts until its end.
    ///
    /// Errors: `UNAVAILABLE` where there is no room.
    pub(crate) fn track_stream(
        &self,
        response: Response,
        size: u64,
        connection: Option<&Arc<Connection>>,
    ) -> Result<Response, Fault> {
        let held = usize::try_from(size.min(STREAM_BYTES)).unwrap_or(usize::MAX);
        let reservation = self.reserve(held, connection, None)?;
        let (head, body) = response.into_parts();
        let counted = body.into_data_stream().map(move |piece| {
            let taken = piece.as_ref().map_or(0, Bytes::len);
            reservation.answer.taken.fetch_add(taken, Ordering::Relaxed);
            piece
        });
        Ok(Response::from_parts(head, Body::from_stream(counted)))
    }

    /// Counts a message of `size` bytes that is queued for a socket, until the reservation is dropped.
    ///
    /// Errors: `UNAVAILABLE` where there is no room.
    pub(crate) fn queue(&self, size: usize, socket: &SocketProgress) -> Result<Reservation, Fault> {
        self.reserve(size, Some(&socket.connection), Some(socket.restarted()))
    }

    fn reserve(
        &self,
        size: usize,
        connection: Option<&Arc<Connection>>,
        socket: Option<SocketProgress>,
    ) -> Result<Reservation, Fault> {
        let now = Instant::now();
        let mut ledger = self.ledger();
        if !self.fits(&ledger, size) {
            self.make_room(&mut ledger, size, now);
            let is_alone = ledger.bytes == 0;
            if !self.fits(&ledger, size) && size > SMALL_BYTES && !is_alone {
                self.state.shed.inc();
                let message = format!(
                    "the limit of {} bytes for answers that are not taken yet is reached, try again later",
                    self.state.limit
                );
                return Err(Fault::new(Code::Unavailable, message));
            }
        }
        let id = ledger.next;
        let answer = Arc::new(UnsentAnswer {
            size,
            taken: AtomicUsize::new(0),
            socket,
            since: now,
            connection: connection.cloned(),
            progress: Mutex::new((0, now)),
        });
        ledger.next += 1;
        ledger.answers.insert(id, answer.clone());
        ledger.bytes += size;
        self.state.unsent.set(ledger.bytes as i64);
        Ok(Reservation { id, answer, budget: self.clone() })
    }

    /// Whether `size` more bytes are within the budget.
    fn fits(&self, ledger: &Ledger, size: usize) -> bool {
        ledger.bytes + size <= self.state.limit
    }

    /// Closes connections of the slowest clients until `size` fits.
    fn make_room(&self, ledger: &mut Ledger, size: usize, now: Instant) {
        let slow = ledger.answers.iter().filter_map(|(id, answer)| Some((answer.bytes_behind(now)?, *id)));
        let mut slow: Vec<(f64, u64)> = slow.collect();
        slow.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        let mut cut = 0;
        for (_, id) in slow {
            if self.fits(ledger, size) {
                break;
            }
            if let Some(answer) = ledger.answers.remove(&id) {
                ledger.bytes -= answer.size;
                answer.cut();
                cut += 1;
            }
        }
        self.state.shed.inc_by(cut);
    }

    /// Closes connections of clients that take nothing for as long as `timeout`; never ends.
    pub(crate) async fn cut_stalled(self, timeout: Duration) {
        let mut checks = tokio::time::interval((timeout / 4).clamp(Duration::from_millis(1), CHECK_INTERVAL));
        loop {
            let now = checks.tick().await;
            let stalled = |answer: &&Arc<UnsentAnswer>| answer.is_stalled(now, timeout);
            self.ledger().answers.values().filter(stalled).for_each(|answer| answer.cut());
        }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.state.ledger.lock().expect("no code panics while it holds this lock")
    }
}

/// Reserved bytes of the budget, released when dropped.
pub(crate) struct Reservation {
    id: u64,
    answer: Arc<UnsentAnswer>,
    budget: SendBudget,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut ledger = self.budget.ledger();
        // One that was cut is not there any more.
        if ledger.answers.remove(&self.id).is_some() {
            ledger.bytes -= self.answer.size;
        }
        self.budget.state.unsent.set(ledger.bytes as i64);
    }
}

/// A body that is handed on in chunks.
struct ChunkedBody {
    body: Body,
    /// The frame after `rest`, if it was polled already.
    next: Option<Result<Frame<Bytes>, Error>>,
    rest: Bytes,
    /// Nothing of the frame in `rest` was handed on yet.
    is_whole: bool,
    /// Bytes of the whole body, while none was handed on.
    size: Option<u64>,
    chunk: usize,
    reservation: Option<Reservation>,
    _running: Option<Running>,
}

impl ChunkedBody {
    fn next_chunk(&mut self) -> Bytes {
        let is_last = self.rest.len() <= self.chunk;
        let piece = match is_last {
            true if self.is_whole => std::mem::take(&mut self.rest),
            true => Bytes::copy_from_slice(&std::mem::take(&mut self.rest)),
            false => Bytes::copy_from_slice(&self.rest.split_to(self.chunk)),
        };
        self.is_whole = is_last;
        self.size = None;
        if let Some(reservation) = &self.reservation {
            reservation.answer.taken.fetch_add(piece.len(), Ordering::Relaxed);
        }
        if is_last {
            self.reservation = None;
        }
        piece
    }
}

impl HttpBody for ChunkedBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        loop {
            if !self.rest.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(self.next_chunk()))));
            }
            if let Some(next) = self.next.take() {
                return Poll::Ready(Some(next));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                end => return Poll::Ready(end),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.next.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.size.map(SizeHint::with_exact).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: usize = SMALL_BYTES + 1;

    fn budget(limit: usize) -> SendBudget {
        SendBudget::new(limit, &Metrics::default())
    }

    fn connection() -> Arc<Connection> {
        Arc::new(Connection::new(([127, 0, 0, 1], 1).into()))
    }

    fn response(size: usize) -> Response {
        Response::new(Body::from(vec![7; size]))
    }

    #[tokio::test]
    async fn an_answer_arrives_whole_and_gives_its_bytes_back() {
        for version in [Version::HTTP_11, Version::HTTP_2] {
            for size in [0, 1, HTTP2_CHUNK, LARGE, 5 * LARGE + 3] {
                let budget = budget(usize::MAX);
                let response = budget.track(response(size), version, Some(&connection())).expect("there is room");
                assert_eq!(response.body().size_hint().exact(), Some(size as u64));
                let body = response.into_body().collect().await.expect("it is whole").to_bytes();
                assert_eq!(body, vec![7; size]);
                assert_eq!(budget.ledger().bytes, 0);
            }
        }
    }

    #[tokio::test]
    async fn what_is_held_of_a_stream_counts_until_its_end() {
        let budget = budget(STREAM_BYTES as usize + LARGE - 1);
        let stream =
            |size: usize| futures::stream::iter([Ok::<_, Error>(Bytes::from(vec![7; size])), Ok(Bytes::new())]);
        let response = |size| Response::new(Body::from_stream(stream(size)));
        let first = budget.track_stream(response(2 * LARGE), 1 << 40, Some(&connection())).expect("there is room");
        assert_eq!(budget.ledger().bytes as u64, STREAM_BYTES);
        let refused = budget.track_stream(response(LARGE), LARGE as u64, Some(&connection())).map(drop);
        assert_eq!(refused.expect_err("there is no room").code, Code::Unavailable);
        budget.track_stream(response(1), 1, Some(&connection())).expect("small ones pass");
        let mut body = first.into_body();
        body.frame().await.expect("a frame").expect("it is sound");
        assert_eq!(budget.ledger().answers.values().map(|answer| answer.taken()).sum::<usize>(), 2 * LARGE);
        drop(body);
        assert_eq!(budget.ledger().bytes, 0);
    }

    #[tokio::test]
    async fn answers_are_sent_in_chunks_and_counted_until_the_last() {
        for (version, size, lengths, counted) in [
            (Version::HTTP_10, 65_536, vec![65_536], false),
            (Version::HTTP_11, 65_536, vec![65_536], false),
            (Version::HTTP_11, 65_537, vec![65_536, 1], true),
            (Version::HTTP_2, 1, vec![1], true),
            (Version::HTTP_2, 16_384, vec![16_384], true),
            (Version::HTTP_2, 32_769, vec![16_384, 16_384, 1], true),
        ] {
            let budget = budget(usize::MAX);
            let mut body = budget.track(response(size), version, None).expect("there is room").into_body();
            for (index, length) in lengths.iter().enumerate() {
                assert_eq!(budget.ledger().bytes, if counted { size } else { 0 }, "{version:?} {size} {index}");
                assert!(!body.is_end_stream());
                let frame = body.frame().await.expect("there is more").expect("it is sound");
                assert_eq!(frame.into_data().expect("bytes").len(), *length, "{version:?} {size} {index}");
            }
            assert_eq!(budget.ledger().bytes, 0);
            assert!(body.is_end_stream());
        }
    }

    #[tokio::test]
    async fn chunks_of_an_answer_keep_none_of_the_others_in_memory() {
        for (size, are_copies) in [(HTTP2_CHUNK, false), (HTTP2_CHUNK + 1, true)] {
            let bytes = Bytes::from(vec![7; size]);
            let whole = Response::new(Body::from(bytes.clone()));
            let mut body = budget(usize::MAX).track(whole, Version::HTTP_2, None).expect("there is room").into_body();
            while let Some(frame) = body.frame().await {
                let chunk = frame.expect("it is sound").into_data().expect("bytes");
                assert_eq!(!bytes.as_ptr_range().contains(&chunk.as_ptr()), are_copies, "{size}");
            }
        }
    }

    #[tokio::test]
    async fn trailers_come_after_the_bytes() {
        let bytes = Frame::data(Bytes::from(vec![7; LARGE]));
        for (frames, length) in [(vec![bytes], LARGE), (Vec::new(), 0)] {
            let trailers = Frame::trailers(http::HeaderMap::new());
            let frames = frames.into_iter().chain([trailers]).map(Ok::<_, std::convert::Infallible>);
            let body = http_body_util::StreamBody::new(futures::stream::iter(frames));
            let response = budget(usize::MAX).track(Response::new(Body::new(body)), Version::HTTP_2, None);
            let body = response.expect("there is room").into_body();
            assert!(!body.is_end_stream());
            let body = body.collect().await.expect("it is whole");
            assert!(body.trailers().is_some());
            assert_eq!(body.to_bytes().len(), length);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_answer_that_does_not_fit_is_refused_and_a_small_one_is_not() {
        let budget = budget(2 * LARGE);
        let hold = |size| budget.track(response(size), Version::HTTP_2, Some(&connection()));
        let (first, _second) = (hold(LARGE), hold(LARGE));
        let fault = hold(LARGE).expect_err("the budget is full");
        assert_eq!(fault.code, Code::Unavailable);
        let _small = hold(SMALL_BYTES).expect("small answers pass");
        drop(first);
        hold(SMALL_BYTES + 1).expect_err("the small one took the place");
        drop(_small);
        drop(hold(LARGE).expect("there is room"));
        drop(_second);
        assert_eq!((budget.ledger().bytes, budget.state.shed.get()), (0, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_over_the_whole_budget_is_sent_alone() {
        let budget = budget(1);
        let hold = || budget.track(response(LARGE), Version::HTTP_11, Some(&connection()));
        let _held = hold().expect("nothing else is held");
        hold().expect_err("one is");
    }

    #[tokio::test(start_paused = true)]
    async fn those_furthest_behind_lose_their_connection_to_make_room() {
        let budget = budget(40 * LARGE);
        let (fast, slow, new) = (connection(), connection(), connection());
        let hold =
            |connection: &Arc<Connection>| budget.track(response(20 * LARGE), Version::HTTP_11, Some(connection));
        let mut reading = hold(&fast).expect("there is room").into_body();
        let _stuck = hold(&slow).expect("there is room");
        hold(&new).expect_err("nobody is slow yet");
        tokio::time::advance(SLOW_AFTER).await;
        for _ in 0..10 {
            reading.frame().await.expect("there is more").expect("it is sound");
        }
        let _new = hold(&new).expect("one was slow");
        assert_eq!((fast.is_cut(), slow.is_cut(), new.is_cut()), (false, true, false));
        assert_eq!(budget.ledger().bytes, 40 * LARGE);
        drop(_stuck);
        assert_eq!(budget.ledger().bytes, 40 * LARGE, "what was cut is given back once");
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_connections_are_cut_than_the_room_takes() {
        let budget = budget(40 * LARGE);
        let [slow, slower, new] = [(); 3].map(|()| connection());
        let hold =
            |connection: &Arc<Connection>| budget.track(response(20 * LARGE), Version::HTTP_11, Some(connection));
        let mut reading = hold(&slow).expect("there is room").into_body();
        let _stuck = hold(&slower).expect("there is room");
        reading.frame().await.expect("there is more").expect("it is sound");
        tokio::time::advance(SLOW_AFTER).await;
        let _new = hold(&new).expect("one was slow enough");
        assert_eq!((slow.is_cut(), slower.is_cut(), new.is_cut()), (false, true, false));
        assert_eq!(budget.state.shed.get(), 1);
    }

    /// 64 KiB a second, beyond 256 KiB or half of the answer that buffers may hold.
    #[tokio::test(start_paused = true)]
    async fn a_client_is_slow_that_takes_less_than_the_slow_rate() {
        const KIB: usize = 1024;
        for (size, seconds, enough) in
            [(1024 * KIB, 1, 320 * KIB), (1024 * KIB, 3, 448 * KIB), (128 * KIB, 1, 128 * KIB)]
        {
            let since = Instant::now();
            let behind = |taken: usize, connection: Option<Arc<Connection>>, age: Duration| {
                let progress = Mutex::new((0, since));
                UnsentAnswer { size, taken: AtomicUsize::new(taken), socket: None, since, connection, progress }
                    .bytes_behind(since + age)
            };
            let age = Duration::from_secs(seconds);
            assert_eq!(behind(enough, Some(connection()), age), None);
            assert_eq!(behind(enough - 3, Some(connection()), age), Some(3.0));
            assert_eq!(behind(0, Some(connection()), Duration::from_millis(999)), None, "it had no time");
            assert_eq!(behind(0, None, age), None, "there is nothing to cut");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_timeout_is_kept() {
        let budget = budget(usize::MAX);
        let stuck = connection();
        let _held = budget.track(response(LARGE), Version::HTTP_2, Some(&stuck)).expect("there is room");
        let watching = tokio::spawn(budget.cut_stalled(Duration::from_millis(200)));
        for (wait_ms, is_cut) in [(190, false), (60, true)] {
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
            assert_eq!(stuck.is_cut(), is_cut);
        }
        watching.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn messages_of_a_socket_count_and_wait_for_each_other() {
        let budget = budget(20 * LARGE);
        let (fast, stuck) = (SocketProgress::new(connection()), SocketProgress::new(connection()));
        let _queued = [budget.queue(5 * LARGE, &fast), budget.queue(5 * LARGE, &fast)].map(|one| one.expect("room"));
        let _stuck = budget.queue(10 * LARGE, &stuck).expect("there is room");
        assert_eq!(budget.ledger().bytes, 20 * LARGE);
        assert!(budget.queue(LARGE, &fast).is_err(), "nobody is slow yet");
        tokio::time::advance(SLOW_AFTER).await;
        fast.add(5 * LARGE);
        let _more = budget.queue(LARGE, &fast).expect("one was slow");
        assert_eq!((fast.connection().is_cut(), stuck.connection().is_cut()), (false, true));
        drop(_queued);
        assert_eq!(budget.ledger().bytes, LARGE);
    }

    #[test]
    fn what_a_socket_has_taken_counts_from_where_it_was() {
        let socket = SocketProgress::new(connection());
        socket.add(5);
        let later = socket.restarted();
        assert_eq!((socket.taken(), later.taken()), (5, 0));
        later.add(3);
        assert_eq!((socket.taken(), later.taken(), later.restarted().taken()), (8, 3, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_loses_its_connection() {
        let budget = budget(usize::MAX);
        let (fast, stuck) = (connection(), connection());
        let hold = |connection: &Arc<Connection>| budget.track(response(20 * LARGE), Version::HTTP_2, Some(connection));
        let mut reading = hold(&fast).expect("there is room").into_body();
        let _held = hold(&stuck).expect("there is room");
        let timeout = Duration::from_secs(10);
        let watching = tokio::spawn(budget.cut_stalled(timeout));
        for _ in 0..15 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            reading.frame().await.expect("there is more").expect("it is sound");
        }
        assert_eq!((fast.is_cut(), stuck.is_cut()), (false, true));
        watching.abort();
    }
}
