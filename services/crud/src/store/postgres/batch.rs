//! Write batching: what several callers send in one turn of the runtime is one system call.

use std::{
    pin::{Pin, pin},
    task::{Context, Poll},
};

/// The driver of a connection, whose polls are deferred to the end of the runtime's turn.
///
/// A connection that is polled as soon as one caller has a statement for it writes that statement alone: a system call
/// for each, and one for each answer. At the end of the turn the other callers have theirs ready as well.
pub struct Batched<F> {
    work: Pin<Box<F>>,
    is_deferred: bool,
}

impl<F> Batched<F> {
    /// Batches the writes of `work`.
    pub fn new(work: F) -> Self {
        Self { work: Box::pin(work), is_deferred: false }
    }
}

impl<F: Future> Future for Batched<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        self.is_deferred = !self.is_deferred;
        if self.is_deferred {
            // Woken when all that are ready have had their turn. Waking oneself would come to the same, but wake
            // another thread of the runtime as well, which finds nothing to do.
            return pin!(tokio::task::yield_now()).poll(context).map(|()| unreachable!("a yield is pending at first"));
        }
        self.work.as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use tokio::sync::mpsc;

    use super::*;

    /// Two senders are woken one after the other; the receiver, woken by the first, finds both messages.
    #[tokio::test]
    async fn what_is_sent_in_one_turn_is_found_at_once() {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let turns = Arc::new(AtomicUsize::new(0));
        let counted = turns.clone();
        let work = std::future::poll_fn(move |context| {
            let mut all = Vec::new();
            let more = receiver.poll_recv_many(context, &mut all, 10);
            if !all.is_empty() {
                counted.fetch_add(1, Ordering::Relaxed);
            }
            match more {
                Poll::Ready(0) => Poll::Ready(()),
                Poll::Ready(_) => {
                    context.waker().wake_by_ref();
                    Poll::Pending
                }
                Poll::Pending => Poll::Pending,
            }
        });
        let gathering = tokio::spawn(Batched::new(work));
        tokio::task::yield_now().await;
        let senders = [1, 2].map(|message| {
            let sender = sender.clone();
            tokio::spawn(async move { sender.send(message).expect("the receiver lives") })
        });
        drop(sender);
        for sender in senders {
            sender.await.expect("a sender does not panic");
        }
        gathering.await.expect("the receiver does not panic");

        assert_eq!(turns.load(Ordering::Relaxed), 1);
    }
}
