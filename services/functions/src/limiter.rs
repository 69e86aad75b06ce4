//! Concurrency limit of one function: so many calls run, so many wait, more are refused at once.

use std::sync::Arc;

use query::function::Function;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::Error;

/// The concurrency limit of a function on this node.
#[derive(Debug)]
pub struct Limiter {
    running: Arc<Semaphore>,
    waiting: Semaphore,
    /// Permits of both, for messages.
    limits: (u32, u32),
}

impl Limiter {
    /// The limit that the function says.
    pub fn of(function: &Function) -> Self {
        let limits = (function.concurrency(), function.queue());
        let permits = |count: u32| Semaphore::new(count as usize);
        Self { running: Arc::new(permits(limits.0)), waiting: permits(limits.1), limits }
    }

    /// Waits for its turn, in order of arrival. Errors: too many wait already. Cancel-safe.
    pub async fn enter(&self) -> Result<SemaphorePermit<'_>, Error> {
        if let Ok(running) = self.running.try_acquire() {
            return Ok(running);
        }
        let _waits = self.wait()?;
        Ok(self.running.acquire().await.expect("the semaphore is never closed"))
    }

    /// As [`Limiter::enter`], for what outlives the call that began it.
    pub async fn enter_owned(&self) -> Result<OwnedSemaphorePermit, Error> {
        if let Ok(running) = self.running.clone().try_acquire_owned() {
            return Ok(running);
        }
        let _waits = self.wait()?;
        Ok(self.running.clone().acquire_owned().await.expect("the semaphore is never closed"))
    }

    /// A place among those that wait. Errors: too many wait already.
    pub fn wait(&self) -> Result<SemaphorePermit<'_>, Error> {
        let (running, waiting) = self.limits;
        self.waiting.try_acquire().map_err(|_| Error::TooMany { running, waiting })
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn calls_run_wait_and_are_refused() {
        let function = Function { concurrency: Some(1), queue: Some(1), ..Function::default() };
        let limiter = Limiter::of(&function);
        let first = limiter.enter().await.unwrap();
        let mut second = Box::pin(limiter.enter());
        assert!(second.as_mut().now_or_never().is_none(), "it waits");
        let refused = limiter.enter().await.unwrap_err();
        assert_eq!(refused.to_string(), "too many calls of the function: 1 are running and 1 wait");
        drop(first);
        let second = second.await.unwrap();
        // Who gives up leaves its place.
        drop(Box::pin(limiter.enter()).as_mut().now_or_never());
        assert!(Box::pin(limiter.enter()).as_mut().now_or_never().is_none());
        drop(second);
        assert!(limiter.enter().await.is_ok());
    }
}
