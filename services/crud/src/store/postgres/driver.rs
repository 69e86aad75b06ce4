//! Driver of a connection that one caller uses at a time: its bytes are moved by that caller.
//!
//! A driver in a task of its own costs each statement two changes of tasks, which are mostly changes of threads: one until
//! what was queued is sent, and one from the answer that was received to who waits for it.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures::task::AtomicWaker;

use super::error::chain;

/// The work of a connection: sends what is queued, and receives. It ends with the connection.
pub type Driving = Pin<Box<dyn Future<Output = Result<(), tokio_postgres::Error>> + Send>>;

/// Driver of a connection. While nobody calls it, nothing is sent or received.
pub struct Driver {
    /// Absent once the connection has ended.
    driving: Mutex<Option<Driving>>,
    relay: Arc<Relay>,
}

/// Wakes who waits for an answer, unless he is the one who receives it: he looks for it then.
#[derive(Default)]
struct Relay {
    is_receiving: AtomicBool,
    waiting: AtomicWaker,
}

impl Driver {
    /// A driver that does the work of a connection.
    pub fn new(driving: Driving) -> Self {
        Self { driving: Mutex::new(Some(driving)), relay: Arc::default() }
    }

    /// Waits for `work` over the connection, and drives it meanwhile.
    pub async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let waker = Waker::from(self.relay.clone());
        let mut is_sent = false;
        // What is queued first would else wake who drove the connection before.
        self.look();
        poll_fn(move |context| {
            self.relay.waiting.register(context.waker());
            if is_sent {
                self.relay.is_receiving.store(true, Ordering::SeqCst);
                let _ = self.poll(context);
                self.relay.is_receiving.store(false, Ordering::SeqCst);
            }
            let done = work.as_mut().poll(&mut Context::from_waker(&waker));
            if done.is_pending() && !std::mem::replace(&mut is_sent, true) {
                let _ = self.poll(context);
            }
            done
        })
        .await
    }

    /// Drives the connection until it ends.
    pub async fn finish(&self) {
        poll_fn(|context| self.poll(context)).await;
    }

    /// Sends and receives what can be at once: what a server has told meanwhile, such as the end of the connection.
    pub fn look(&self) {
        let _ = self.poll(&mut Context::from_waker(Waker::noop()));
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut driving = self.driving();
        let Some(work) = driving.as_mut() else { return Poll::Ready(()) };
        let ended = match work.as_mut().poll(context) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(ended) => ended,
        };
        if let Err(error) = ended {
            tracing::debug!(error = chain(&error), "connection to the database ended");
        }
        *driving = None;
        Poll::Ready(())
    }

    fn driving(&self) -> MutexGuard<'_, Option<Driving>> {
        self.driving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Relay {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_receiving.load(Ordering::SeqCst) {
            self.waiting.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use futures::FutureExt;
    use tokio::sync::{Notify, mpsc, oneshot};

    use super::*;

    /// A connection that answers each question, and ends with the last asker.
    fn connection() -> (mpsc::UnboundedSender<oneshot::Sender<u32>>, Driver, Arc<AtomicUsize>) {
        let (asks, mut asked) = mpsc::unbounded_channel::<oneshot::Sender<u32>>();
        let answers = Arc::new(AtomicUsize::new(0));
        let counted = answers.clone();
        let driving = async move {
            while let Some(asker) = asked.recv().await {
                tokio::task::yield_now().await;
                counted.fetch_add(1, Ordering::Relaxed);
                let _ = asker.send(7);
            }
            Ok(())
        };
        (asks, Driver::new(Box::pin(driving)), answers)
    }

    #[tokio::test]
    async fn who_waits_drives() {
        let (asks, driver, answers) = connection();
        let ask = async {
            let mut sum = 0;
            for _ in 0..10 {
                let (asker, answer) = oneshot::channel();
                asks.send(asker).expect("the connection is there");
                sum += answer.await.expect("it answers");
            }
            sum
        };
        assert_eq!(driver.during(ask).await, 70);
        assert_eq!(answers.load(Ordering::Relaxed), 10);
    }

    #[tokio::test]
    async fn what_the_work_waits_for_elsewhere_wakes_it() {
        let (_asks, driver, _) = connection();
        let notify = Arc::new(Notify::new());
        let other = notify.clone();
        let work = driver.during(async move { other.notified().await });
        let notifying = async {
            tokio::task::yield_now().await;
            notify.notify_one();
        };
        futures::join!(work, notifying);
    }

    #[tokio::test]
    async fn a_connection_that_was_left_goes_on_with_the_next() {
        let (asks, driver, answers) = connection();
        let (asker, _answer) = oneshot::channel();
        let left = driver.during(async {
            asks.send(asker).expect("the connection is there");
            std::future::pending::<()>().await;
        });
        assert!(left.now_or_never().is_none());
        let (asker, answer) = oneshot::channel();
        let ask = async {
            asks.send(asker).expect("the connection is there");
            answer.await
        };
        assert_eq!(driver.during(ask).await, Ok(7));
        assert_eq!(answers.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn it_ends_with_the_connection() {
        let (asks, driver, _) = connection();
        drop(asks);
        driver.look();
        assert!(driver.finish().now_or_never().is_some());
        let (asks, driver, _) = connection();
        let finished = async {
            tokio::task::yield_now().await;
            drop(asks);
        };
        futures::join!(driver.finish(), finished);
    }
}
