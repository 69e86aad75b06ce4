//! Retries of what fails for a while: less and less often, and not for ever.

use std::time::Duration;

use tokio::time::Instant;

/// How long what fails is tried again.
pub const RETRY_TIMEOUT: Duration = Duration::from_secs(60);

/// Retries of one thing.
pub struct Retries {
    first: Duration,
    max: Duration,
    /// Since when it fails, and the last back-off.
    failing: Option<(Instant, Duration)>,
}

impl Retries {
    /// Retries with a back-off from `first`, doubled up to `max`.
    pub const fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, failing: None }
    }

    /// It works.
    pub fn succeeded(&mut self) {
        self.failing = None;
    }

    /// It failed: how long to wait before it is tried again; `None` where it has failed for too long.
    pub fn failed(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let (since, wait) = match self.failing {
            Some((since, wait)) => (since, (wait * 2).min(self.max)),
            None => (now, self.first),
        };
        self.failing = Some((since, wait));
        (now.duration_since(since) < RETRY_TIMEOUT).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_tried_less_and_less_often_and_for_a_while() {
        let (first, max) = (Duration::from_secs(1), Duration::from_secs(5));
        let mut retries = Retries::new(first, max);
        let waits: Vec<_> = (0..4).map(|_| retries.failed().map(|wait| wait.as_secs())).collect();
        assert_eq!(waits, [Some(1), Some(2), Some(4), Some(5)]);
        tokio::time::advance(RETRY_TIMEOUT).await;
        assert_eq!(retries.failed(), None);
        retries.succeeded();
        assert_eq!(retries.failed(), Some(first));
    }
}
