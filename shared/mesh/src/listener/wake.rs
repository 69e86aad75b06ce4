//! Wake-ups of connections: those of HTTP/1.1 that ask for nothing are left out, those of HTTP/2 are batched.
//!
//! Whoever takes a piece of a request's body wakes the connection, so that it reads the next one. Nearly all bodies are
//! one piece, taken while the connection is polled: the runtime would schedule and poll it once more for nothing, which
//! is some three percent of a short request.
//!
//! Whoever has an answer for HTTP/2 wakes the connection, so that it writes it. While others are under way, it is polled
//! at the end of the runtime's turn: answers that are ready by then are one write.

use std::{
    cell::RefCell,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker, ready},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::activity::Activity;
use crate::batch::Deferral;

thread_local! {
    /// Whether this thread takes a piece of a body.
    static TAKING: RefCell<Taking> = const { RefCell::new(Taking::Nothing) };
}

/// What this thread does with a body.
enum Taking {
    Nothing,
    /// It takes a piece, which has woken no connection.
    Piece,
    /// It takes a piece, which woke this connection.
    Woken(Arc<ConnectionWaker>),
}

/// The waker of a connection's task, for what is polled in it.
pub(super) struct WakeFilter {
    activity: Arc<Activity>,
    deferral: Deferral,
    known: Option<(Arc<ConnectionWaker>, Waker)>,
}

struct ConnectionWaker(Waker);

/// The body of a request, whose last piece wakes no HTTP/1.1 connection.
#[derive(Debug)]
pub struct RequestBody {
    body: Incoming,
    is_http1: bool,
}

impl WakeFilter {
    /// A filter for the connection with this activity.
    pub(super) fn new(activity: Arc<Activity>) -> Self {
        Self { activity, deferral: Deferral::default(), known: None }
    }

    /// Polls `connection`, woken by this filter from now on.
    pub(super) fn poll<F: Future>(&mut self, connection: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<F::Output> {
        if self.deferral.is_deferred() || self.activity.is_multiplexed() {
            ready!(self.deferral.poll(cx));
        }
        let known = self.known.take().filter(|(task, _)| task.0.will_wake(cx.waker()));
        let (_, waker) = self.known.insert(known.unwrap_or_else(|| {
            let task = Arc::new(ConnectionWaker(cx.waker().clone()));
            (task.clone(), Waker::from(task))
        }));
        connection.poll(&mut Context::from_waker(waker))
    }
}

impl Wake for ConnectionWaker {
    fn wake(self: Arc<Self>) {
        let passed_on = TAKING.with_borrow_mut(|taking| match taking {
            Taking::Piece => {
                *taking = Taking::Woken(self);
                None
            }
            Taking::Nothing | Taking::Woken(_) => Some(self),
        });
        if let Some(connection) = passed_on {
            connection.0.wake_by_ref();
        }
    }
}

impl RequestBody {
    pub(super) fn new(body: Incoming, is_http1: bool) -> Self {
        Self { body, is_http1 }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if !self.is_http1 {
            return Pin::new(&mut self.body).poll_frame(cx);
        }
        TAKING.set(Taking::Piece);
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        // After the last byte of a body whose length is known the connection has nothing to read for it.
        if let Taking::Woken(connection) = TAKING.replace(Taking::Nothing)
            && !self.body.is_end_stream()
        {
            connection.0.wake_by_ref();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        future::poll_fn,
        pin::pin,
        sync::atomic::{AtomicBool, Ordering},
    };

    use futures::FutureExt;
    use http::{Request, Response, Version};
    use http_body_util::{BodyExt, Full};
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::{super::activity::Running, *};

    #[derive(Default)]
    struct Task {
        is_woken: AtomicBool,
    }

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.is_woken.store(true, Ordering::SeqCst);
        }
    }

    /// Answers a request with its body.
    async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let is_http1 = request.version() < Version::HTTP_2;
        let body = RequestBody::new(request.into_body(), is_http1).collect().await.expect("the body is whole");
        Ok(Response::new(Full::new(body.to_bytes())))
    }

    /// How often a connection is polled, as a runtime does it, for each of `pieces` that arrive one after the other, and
    /// what it answers to all.
    fn polls(pieces: &[&str]) -> (Vec<usize>, String) {
        let (mut client, server): (DuplexStream, DuplexStream) = tokio::io::duplex(4096);
        let mut filter = WakeFilter::new(Arc::default());
        let builder = hyper::server::conn::http1::Builder::new();
        let mut connection = pin!(builder.serve_connection(TokioIo::new(server), service_fn(echo)));
        let task = Arc::new(Task::default());
        let waker = Waker::from(task.clone());
        let mut counts = Vec::new();
        task.is_woken.store(true, Ordering::SeqCst);
        for piece in pieces {
            client.write_all(piece.as_bytes()).now_or_never().expect("there is room").expect("it is open");
            let mut count = 0;
            while task.is_woken.swap(false, Ordering::SeqCst) {
                assert!(filter.poll(connection.as_mut(), &mut Context::from_waker(&waker)).is_pending());
                count += 1;
            }
            counts.push(count);
        }
        let mut answer = Vec::new();
        while client.read_buf(&mut answer).now_or_never().is_some() {}
        (counts, String::from_utf8(answer).expect("it is ASCII"))
    }

    const HEAD: &str = "POST / HTTP/1.1\r\nhost: x\r\n";

    #[test]
    fn what_is_under_way_on_http2_is_waited_for_until_the_end_of_the_turn() {
        let activity = Arc::<Activity>::default();
        let mut filter = WakeFilter::new(activity.clone());
        let mut polls = 0;
        let mut work = pin!(poll_fn(|_| {
            polls += 1;
            Poll::<()>::Pending
        }));
        let mut is_woken_again = || {
            let task = Arc::new(Task::default());
            assert!(filter.poll(work.as_mut(), &mut Context::from_waker(&Waker::from(task.clone()))).is_pending());
            task.is_woken.load(Ordering::SeqCst)
        };
        let running = [(); 2].map(|()| Running::new(activity.clone()));
        assert!(!is_woken_again(), "HTTP/1.1 has one answer at a time");
        activity.begin_http2();
        assert!(is_woken_again(), "the other answer may be ready in this turn");
        drop(running);
        assert!(!is_woken_again(), "the turn is over");
        assert!(!is_woken_again(), "no other is under way");
        assert_eq!(polls, 3);
    }

    #[test]
    fn a_body_of_one_piece_is_polled_once() {
        let request = format!("{HEAD}content-length: 5\r\n\r\nhello");
        let (polls, answer) = polls(&[&request, &request]);
        assert_eq!(polls, [1, 1]);
        assert_eq!(answer.matches("\r\n\r\nhello").count(), 2, "{answer}");
    }

    #[test]
    fn a_body_in_pieces_is_read_to_its_end() {
        let head = format!("{HEAD}content-length: 10\r\n\r\n");
        for pieces in [["hello", "world"], ["", "helloworld"], ["helloworl", "d"]] {
            let first = format!("{head}{}", pieces[0]);
            let (polls, answer) = polls(&[&first, pieces[1]]);
            assert!(answer.ends_with("\r\n\r\nhelloworld"), "{polls:?} {answer}");
        }
    }

    #[test]
    fn a_body_of_unknown_length_is_read_to_its_end() {
        let head = format!("{HEAD}transfer-encoding: chunked\r\n\r\n");
        for pieces in [["5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n", ""], ["5\r\nhello\r\n5\r\nwo", "rld\r\n0\r\n\r\n"]] {
            let first = format!("{head}{}", pieces[0]);
            let (polls, answer) = polls(&[&first, pieces[1]]);
            assert!(answer.ends_with("\r\n\r\nhelloworld"), "{polls:?} {answer}");
        }
    }
}
