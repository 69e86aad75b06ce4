//! Work on large messages: off the threads that answer requests, and a few at once, since what is made of a message may take
//! many times its memory.

use std::{sync::Arc, thread::available_parallelism};

use tokio::sync::Semaphore;

use crate::Error;

/// Bytes of a message that is worked on at once, in well under a millisecond.
const INLINE_BYTES: usize = 64 << 10;
/// Least number of large messages that are worked on at once.
const LEAST_AT_ONCE: usize = 2;

/// Room for the work on large messages of a node. Clones are the same.
#[derive(Clone)]
pub struct Conversions(Arc<Semaphore>);

impl Conversions {
    /// As much as the machine has processors.
    pub fn new() -> Self {
        let processors = available_parallelism().map_or(LEAST_AT_ONCE, usize::from);
        Self(Arc::new(Semaphore::new(processors.max(LEAST_AT_ONCE))))
    }

    /// Does the work on a message of so many bytes. Dropped before it has begun, it is not done.
    pub async fn run<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        if bytes <= INLINE_BYTES {
            return work();
        }
        let turn = self.0.clone().acquire_owned().await.expect("the semaphore is never closed");
        let done = tokio::task::spawn_blocking(move || {
            // Until it ends, also where nobody waits for it any more.
            let _turn = turn;
            work()
        });
        done.await.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn large_messages_wait_for_their_turn_also_for_work_that_nobody_waits_for() {
        let conversions = Conversions(Arc::new(Semaphore::new(1)));
        let (end, ended) = mpsc::channel::<()>();
        let mut left = Box::pin(conversions.run(INLINE_BYTES + 1, move || Ok(ended.recv())));
        assert!(left.as_mut().now_or_never().is_none());
        drop(left);
        let mut next = Box::pin(conversions.run(INLINE_BYTES + 1, || Ok(1)));
        assert!(next.as_mut().now_or_never().is_none());
        assert_eq!(conversions.run(INLINE_BYTES, || Ok(2)).await.unwrap(), 2, "a small one does not wait");
        end.send(()).unwrap();
        assert_eq!(next.await.unwrap(), 1);
    }
}
