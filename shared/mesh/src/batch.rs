//! Batching by deferral: work that several tasks bring about in one turn of the runtime is done once, at its end.

use std::{
    pin::pin,
    task::{Context, Poll},
};

/// Deferral of a task's polls to the end of the runtime's turn.
///
/// A connection that is polled as soon as one task has something for it writes that alone: a system call for each, and
/// one for whoever reads it. At the end of the turn the other tasks have theirs ready as well.
#[derive(Debug, Default)]
pub struct Deferral {
    is_deferred: bool,
}

impl Deferral {
    /// Pending at first, and ready in the poll after that.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.is_deferred = !self.is_deferred;
        if !self.is_deferred {
            return Poll::Ready(());
        }
        // Woken when all that are ready have had their turn. Waking oneself would come to the same, but wake another
        // thread of the runtime as well, which finds nothing to do.
        pin!(tokio::task::yield_now()).poll(context)
    }

    /// Whether the next poll is ready.
    pub fn is_deferred(&self) -> bool {
        self.is_deferred
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::ready,
    };

    use tokio::sync::mpsc;

    use super::*;

    /// Two senders are woken one after the other; the receiver, woken by the first, finds both messages.
    #[tokio::test]
    async fn what_is_sent_in_one_turn_is_found_at_once() {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let turns = Arc::new(AtomicUsize::new(0));
        let counted = turns.clone();
        let mut deferral = Deferral::default();
        let received = tokio::spawn(poll_fn(move |context| {
            ready!(deferral.poll(context));
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
        }));
        tokio::task::yield_now().await;
        let senders = [1, 2].map(|message| {
            let sender = sender.clone();
            tokio::spawn(async move { sender.send(message).expect("the receiver lives") })
        });
        drop(sender);
        for sender in senders {
            sender.await.expect("a sender does not panic");
        }
        received.await.expect("the receiver does not panic");

        assert_eq!(turns.load(Ordering::Relaxed), 1);
    }
}
