//! Queue of messages to one worker. A call for which nobody waits any more leaves it, so that a worker that reads nothing holds no
//! more calls in memory than it may have.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use mesh::{Code, Fault};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::ToWorker;

/// The end of the queue that sends.
pub struct MessageQueue(Arc<Queue>);

/// The end of the queue that the worker reads.
pub struct WorkerMessages(Arc<Queue>);

struct Queue {
    state: Mutex<QueueState>,
    capacity: usize,
    /// Told of a message and of the end.
    changed: Notify,
    /// Nobody reads any more.
    left: CancellationToken,
}

#[derive(Default)]
struct QueueState {
    messages: VecDeque<ToWorker>,
    /// Messages that were taken back or spared since the worker last took one, as if they were still there.
    spared: usize,
    has_ended: bool,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MessageQueue {
    /// Both ends of a queue of so many messages.
    pub fn new(capacity: usize) -> (Self, WorkerMessages) {
        let (state, changed, left) = Default::default();
        let queue = Arc::new(Queue { state, capacity, changed, left });
        (Self(queue.clone()), WorkerMessages(queue))
    }

    /// Adds a message. Errors: the worker does not take its messages.
    pub fn send(&self, message: ToWorker) -> Result<(), Fault> {
        let mut state = self.0.state();
        if state.messages.len() + state.spared >= self.0.capacity || self.0.left.is_cancelled() {
            return Err(Fault::new(Code::TooMany, "the worker does not take its messages"));
        }
        state.messages.push_back(message);
        drop(state);
        self.0.changed.notify_one();
        Ok(())
    }

    /// Nobody waits for a call any more: it is taken back, or the worker is told that has it. Errors: as of [`Self::send`].
    pub fn cancel(&self, id: String) -> Result<(), Fault> {
        let mut state = self.0.state();
        let of_call = |message: &ToWorker| matches!(message, ToWorker::Call(call) if call.id == id);
        if let Some(index) = state.messages.iter().position(of_call) {
            state.messages.remove(index);
            // The call and its cancellation: a worker that never reads is found out all the same.
            state.spared += 2;
            return Ok(());
        }
        drop(state);
        self.send(ToWorker::Cancel(id))
    }

    /// Waits until nobody reads any more. Cancel safe.
    pub async fn closed(&self) {
        self.0.left.cancelled().await;
    }
}

impl Drop for MessageQueue {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.has_ended = true;
        // They have failed.
        state.messages.retain(|message| !matches!(message, ToWorker::Call(_)));
        drop(state);
        self.0.changed.notify_one();
    }
}

impl WorkerMessages {
    /// The next message; `None` where no more come. Cancel safe.
    pub async fn next(&mut self) -> Option<ToWorker> {
        loop {
            {
                let mut state = self.0.state();
                if let Some(message) = state.messages.pop_front() {
                    state.spared = 0;
                    return Some(message);
                }
                if state.has_ended {
                    return None;
                }
            }
            self.0.changed.notified().await;
        }
    }
}

impl Drop for WorkerMessages {
    fn drop(&mut self) {
        self.0.left.cancel();
        self.0.state().messages.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use futures::FutureExt;

    use super::*;
    use crate::worker::WorkerCall;

    fn call(id: &str) -> ToWorker {
        let (id, function, claims) = (id.to_owned(), "f".to_owned(), "{}".to_owned());
        ToWorker::Call(WorkerCall { id, function, params: Bytes::new(), claims, left: Duration::from_secs(1) })
    }

    fn cancel(id: &str) -> ToWorker {
        ToWorker::Cancel(id.to_owned())
    }

    #[tokio::test]
    async fn calls_that_nobody_waits_for_take_no_room() {
        let (queue, messages) = MessageQueue::new(4);
        for _ in 0..2 {
            queue.send(call("a")).unwrap();
            queue.cancel("a".to_owned()).unwrap();
        }
        assert!(queue.0.state().messages.is_empty(), "there is nothing to tell");
        let refused = queue.send(call("a")).unwrap_err();
        assert_eq!(refused.message, "the worker does not take its messages");
        drop((queue, messages));
        let (queue, mut messages) = MessageQueue::new(2);
        queue.send(call("b")).unwrap();
        assert_eq!(messages.next().await, Some(call("b")));
        queue.cancel("b".to_owned()).unwrap();
        queue.send(call("c")).unwrap();
        assert!(queue.send(ToWorker::Drain).is_err(), "it is full");
        // The calls that are there end with their session; what else there is to say is said.
        drop(queue);
        assert_eq!(messages.next().await, Some(cancel("b")));
        assert_eq!(messages.next().await, None);
    }

    #[tokio::test]
    async fn each_end_learns_of_the_end_of_the_other() {
        let (queue, mut messages) = MessageQueue::new(1);
        let mut next = Box::pin(messages.next());
        assert!(next.as_mut().now_or_never().is_none());
        queue.send(ToWorker::Drain).unwrap();
        assert_eq!(next.await, Some(ToWorker::Drain));
        assert!(queue.closed().now_or_never().is_none());
        drop(messages);
        queue.closed().await;
        assert!(queue.send(ToWorker::Drain).is_err());
        let (queue, mut messages) = MessageQueue::new(1);
        let mut next = Box::pin(messages.next());
        assert!(next.as_mut().now_or_never().is_none());
        drop(queue);
        assert_eq!(next.await, None);
    }
}
