//! Load shedding: so many requests are answered at once, some more wait for a short time, the rest is refused.
//!
//! A request takes its slot once its body is there: clients that send slowly hold connections and no slots.

use std::{
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    BoxError,
    body::{Body, HttpBody},
};
use bytes::Bytes;
use futures::future::BoxFuture;
use hyper::body::{Frame, SizeHint};
use mesh::{
    Code, Fault,
    telemetry::{Counter, Gauge, Metrics},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a request waits for a slot: shorter than clients take for a failure.
const QUEUE_TIMEOUT: Duration = Duration::from_millis(500);

/// Concurrency limit of a node, with a bounded FIFO queue.
pub(crate) struct Admission {
    slots: Arc<Semaphore>,
    limit: usize,
    waiting: AtomicUsize,
    queue: usize,
    timeout: Duration,
    in_flight: Gauge,
    shed: Counter,
}

impl Admission {
    /// `limit` slots, and `queue` places to wait for one.
    pub(crate) fn new(limit: usize, queue: usize, metrics: &Metrics) -> Arc<Self> {
        let (in_flight, shed) = (metrics.load().in_flight.clone(), metrics.shed("in_flight"));
        let slots = Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS)));
        let waiting = AtomicUsize::new(0);
        Arc::new(Self { slots, limit, waiting, queue, timeout: QUEUE_TIMEOUT, in_flight, shed })
    }

    fn try_enter(&self) -> Option<Slot> {
        let permit = self.slots.clone().try_acquire_owned().ok()?;
        Some(Slot::new(permit, &self.in_flight))
    }

    /// A slot, or `None` where there is none in time.
    async fn enter(&self) -> Option<Slot> {
        let waiting = QueuePlace::new(&self.waiting);
        let slot = if waiting.before < self.queue {
            let permit = tokio::time::timeout(self.timeout, self.slots.clone().acquire_owned()).await;
            permit.ok().and_then(Result::ok).map(|permit| Slot::new(permit, &self.in_flight))
        } else {
            None
        };
        if slot.is_none() {
            self.shed.inc();
        }
        slot
    }

    fn fault(&self) -> Fault {
        let message = format!("the limit of {} requests at once is reached, try again later", self.limit);
        Fault::new(Code::Unavailable, message)
    }
}

/// A permit to answer one request.
#[derive(Debug)]
struct Slot {
    _permit: OwnedSemaphorePermit,
    in_flight: Gauge,
}

impl Slot {
    fn new(permit: OwnedSemaphorePermit, in_flight: &Gauge) -> Self {
        in_flight.inc();
        Self { _permit: permit, in_flight: in_flight.clone() }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.in_flight.dec();
    }
}

/// A place in the queue.
struct QueuePlace<'a> {
    count: &'a AtomicUsize,
    before: usize,
}

impl<'a> QueuePlace<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        Self { count, before: count.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for QueuePlace<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Admission of one request: takes its slot and keeps it until the last clone is dropped.
#[derive(Clone)]
pub(crate) struct Ticket {
    admission: Arc<Admission>,
    /// Its slot; `None` once it is refused.
    slot: Arc<OnceLock<Option<Slot>>>,
}

impl Ticket {
    pub(crate) fn new(admission: &Arc<Admission>) -> Self {
        Self { admission: admission.clone(), slot: Arc::default() }
    }

    /// Takes a slot, where it has to wait for no body. Errors: `UNAVAILABLE`.
    pub(crate) async fn enter(&self) -> Result<(), Fault> {
        let slot = match self.admission.try_enter() {
            Some(slot) => Some(slot),
            None => Box::pin(self.admission.enter()).await,
        };
        self.decide(slot);
        self.refusal().map_or(Ok(()), Err)
    }

    /// `body`, whose end is only seen once there is a slot.
    pub(crate) fn body<B>(&self, body: B) -> Body
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        Body::new(AdmittedBody { body, ticket: self.clone(), entering: None })
    }

    /// The reason of a refusal.
    pub(crate) fn refusal(&self) -> Option<Fault> {
        let is_refused = self.slot.get().is_some_and(Option::is_none);
        is_refused.then(|| self.admission.fault())
    }

    fn decide(&self, slot: Option<Slot>) {
        // A ticket is decided once: it is either entered or given to one body.
        let _ = self.slot.set(slot);
    }
}

struct AdmittedBody<B> {
    body: B,
    ticket: Ticket,
    entering: Option<BoxFuture<'static, Option<Slot>>>,
}

impl<B> HttpBody for AdmittedBody<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if this.entering.is_none() {
            // A body that knows its end needs not be asked for it.
            let frame = if this.body.is_end_stream() { None } else { ready!(Pin::new(&mut this.body).poll_frame(cx)) };
            match frame {
                Some(frame) => return Poll::Ready(Some(frame.map_err(Into::into))),
                None if this.ticket.slot.get().is_some() => return Poll::Ready(None),
                None => {}
            }
            if let Some(slot) = this.ticket.admission.try_enter() {
                this.ticket.decide(Some(slot));
                return Poll::Ready(None);
            }
        }
        let admission = &this.ticket.admission;
        let entering = this.entering.get_or_insert_with(|| {
            let admission = admission.clone();
            Box::pin(async move { admission.enter().await })
        });
        let slot = ready!(entering.as_mut().poll(cx));
        this.entering = None;
        this.ticket.decide(slot);
        Poll::Ready(this.ticket.refusal().map(|fault| Err(fault.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() && self.ticket.slot.get().is_some()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use http_body_util::BodyExt;

    use super::*;

    fn admission(limit: usize, queue: usize) -> Arc<Admission> {
        Admission::new(limit, queue, &Metrics::default())
    }

    #[tokio::test]
    async fn a_slot_is_free_again_once_its_request_is_answered() {
        let admission = admission(1, 0);
        let first = Ticket::new(&admission);
        first.enter().await.expect("there is a slot");
        assert_eq!(admission.in_flight.get(), 1);
        let refused = Ticket::new(&admission);
        let fault =
            refused.enter().now_or_never().expect("nobody waits without a queue").expect_err("there is no slot");
        assert_eq!(fault.code, Code::Unavailable);
        assert_eq!(fault.message, "the limit of 1 requests at once is reached, try again later");
        drop(first);
        Ticket::new(&admission).enter().await.expect("there is a slot");
        assert_eq!((admission.in_flight.get(), admission.shed.get()), (0, 1));
    }

    #[tokio::test]
    async fn those_that_wait_are_served_in_their_order() {
        let admission = admission(1, 2);
        let [first, second, third, fourth] = [(); 4].map(|()| Ticket::new(&admission));
        first.enter().await.expect("there is a slot");
        let (mut second, mut third) = (Box::pin(second.enter()), Box::pin(third.enter()));
        assert!(second.as_mut().now_or_never().is_none() && third.as_mut().now_or_never().is_none());
        assert!(fourth.enter().now_or_never().is_some_and(|entered| entered.is_err()), "the queue is full");
        drop(first);
        assert!(third.as_mut().now_or_never().is_none());
        assert_eq!(second.now_or_never(), Some(Ok(())));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_long() {
        let admission = admission(1, 1);
        let first = Ticket::new(&admission);
        first.enter().await.expect("there is a slot");
        Ticket::new(&admission).enter().await.expect_err("nobody leaves");
        assert_eq!(admission.waiting.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_takes_its_slot_at_its_end() {
        let admission = admission(1, 1);
        let (ticket, refused) = (Ticket::new(&admission), Ticket::new(&admission));
        assert_eq!(ticket.refusal(), None);
        let mut body = ticket.body(Body::from("hello"));
        assert_eq!(body.size_hint().exact(), Some(5));
        let frame = body.frame().await.expect("a frame").expect("the body is sound");
        assert_eq!(frame.into_data().ok().as_deref(), Some(&b"hello"[..]));
        assert_eq!((admission.in_flight.get(), body.is_end_stream()), (0, false));
        for _ in 0..2 {
            assert!(body.frame().now_or_never().is_some_and(|end| end.is_none()), "its end stays its end");
            assert_eq!((admission.in_flight.get(), body.is_end_stream()), (1, true));
        }
        assert!(refused.body(Body::empty()).collect().await.is_err());
        assert_eq!(refused.refusal().map(|fault| fault.code), Some(Code::Unavailable));
        assert_eq!(ticket.refusal(), None);
    }
}
