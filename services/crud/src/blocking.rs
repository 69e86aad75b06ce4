//! Work on blocking threads, which ends when nobody waits for it any more.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use mesh::{Call, tasks::panic_text};
use tokio::task::JoinError;

use crate::Error;

/// Cancellation flag of work that cannot be dropped, with the deadline of the call it is done for.
///
/// The work looks at it every few milliseconds and ends by itself.
#[derive(Debug, Clone)]
pub struct Stop {
    is_cancelled: Arc<AtomicBool>,
    deadline: Option<Instant>,
}

/// Cancels on drop: kept by the future that waits for the work.
#[derive(Debug)]
pub struct StopOnDrop(Stop);

impl Stop {
    /// Whether nobody waits for the work any more.
    pub fn is_due(&self) -> bool {
        self.is_cancelled.load(Ordering::Relaxed) || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

impl StopOnDrop {
    /// A stop for work that is part of the current call.
    pub fn new() -> Self {
        let deadline = Call::current().and_then(|call| call.deadline);
        Self(Stop { is_cancelled: Arc::default(), deadline })
    }

    /// The token that the work checks.
    pub fn stop(&self) -> Stop {
        self.0.clone()
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.is_cancelled.store(true, Ordering::Relaxed);
    }
}

/// Does `work` on a blocking thread. Dropping the future, and the call's deadline, stop it.
///
/// Errors: a panic of `work`, with its text.
pub async fn run<T: Send + 'static>(work: impl FnOnce(&Stop) -> T + Send + 'static) -> Result<T, Error> {
    let waiting = StopOnDrop::new();
    let stop = waiting.stop();
    tokio::task::spawn_blocking(move || work(&stop)).await.map_err(ended)
}

fn ended(end: JoinError) -> Error {
    match end.try_into_panic() {
        Ok(panic) => Error::Panicked(panic_text(panic.as_ref()).to_owned()),
        // The runtime ends, and the work did not begin.
        Err(end) => Error::Unavailable(end.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mesh::{Code, Fault};

    use super::*;

    /// Ends when it is stopped; its end is told.
    fn endless() -> (impl FnOnce(&Stop) + Send + 'static, tokio::sync::oneshot::Receiver<()>) {
        let (ended, end) = tokio::sync::oneshot::channel();
        let work = move |stop: &Stop| {
            while !stop.is_due() {
                std::thread::yield_now();
            }
            ended.send(()).unwrap();
        };
        (work, end)
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_ends() {
        let (work, end) = endless();
        let mut waiting = Box::pin(run(work));
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(waiting);
        end.await.unwrap();
    }

    #[tokio::test]
    async fn work_past_the_deadline_of_its_call_ends() {
        let (work, end) = endless();
        let call = Call::begin(None, None, Some(Duration::from_millis(1)));
        call.scope(run(work)).await.unwrap();
        end.await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_is_internal_and_keeps_its_text() {
        let error = run(|_| -> () { panic!("on purpose") }).await.unwrap_err();
        assert_eq!(error, Error::Panicked("on purpose".to_owned()));
        let fault = Fault::from(error);
        assert_eq!(fault.code, Code::Internal);
        assert!(!fault.message.contains("on purpose"), "{fault}");
    }
}
