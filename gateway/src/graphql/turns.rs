//! A bounded queue for work that is done one after the other.

use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard, Semaphore};

/// Most requests that wait for their turn; the next ones are refused.
const MAX_WAITING: usize = 32;

/// Turns of some costly work: one at a time.
#[derive(Debug)]
pub struct Turns {
    waiting: Semaphore,
    lock: Arc<Mutex<()>>,
}

impl Default for Turns {
    fn default() -> Self {
        Self { waiting: Semaphore::new(MAX_WAITING), lock: Arc::default() }
    }
}

impl Turns {
    /// The next turn, which lasts until it is dropped; `None` where too many wait already.
    pub async fn next(&self) -> Option<OwnedMutexGuard<()>> {
        let _waiting = self.waiting.try_acquire().ok()?;
        Some(self.lock.clone().lock_owned().await)
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, future::join_all};

    use super::*;

    #[tokio::test]
    async fn turns_come_one_after_the_other_and_the_queue_is_bounded() {
        let turns = Turns::default();
        let first = turns.next().await;
        assert!(first.is_some());

        let waiting = (0..MAX_WAITING).map(|_| async { turns.next().await.is_some() });
        let mut waiting = Box::pin(join_all(waiting));
        assert!(waiting.as_mut().now_or_never().is_none(), "the first turn lasts");
        assert!(turns.next().await.is_none(), "the queue is full");

        drop(first);
        assert!(waiting.await.into_iter().all(|had| had));
        assert!(turns.next().await.is_some());
    }
}
