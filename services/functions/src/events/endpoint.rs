//! Endpoint of a trigger: how many deliveries it has at once, and a circuit breaker.

use std::time::Duration;

use tokio::time::Instant;

/// Deliveries of a trigger at once.
const CONCURRENCY: usize = 32;
/// Failures in a row that pause an endpoint.
const FAILURES: u32 = 10;
/// How long it is paused first; doubles with each probe that fails.
const PAUSE_FIRST: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// State of an endpoint.
#[derive(Debug, Default)]
pub struct Endpoint {
    running: usize,
    /// In a row.
    failures: u32,
    pause: Option<Pause>,
    /// When its queue is looked at next; `None`: when it gets an event.
    pub next_look: Option<Instant>,
}

#[derive(Debug)]
struct Pause {
    until: Instant,
    time: Duration,
}

impl Endpoint {
    /// Deliveries that may begin now: one where it is probed.
    pub fn free(&self, now: Instant) -> usize {
        match &self.pause {
            None => CONCURRENCY.saturating_sub(self.running),
            Some(pause) => usize::from(self.running == 0 && now >= pause.until),
        }
    }

    /// Whether it has no deliveries.
    pub fn is_idle(&self) -> bool {
        self.running == 0
    }

    /// Deliveries begin.
    pub fn begin(&mut self, count: usize) {
        self.running += count;
    }

    /// A delivery was not begun after all, which says nothing about the endpoint: no pause begins or ends.
    pub fn give_back(&mut self) -> bool {
        self.running = self.running.saturating_sub(1);
        false
    }

    /// A delivery ended; whether that began or ended a pause.
    pub fn end(&mut self, is_delivered: bool, now: Instant) -> bool {
        self.running = self.running.saturating_sub(1);
        if is_delivered {
            self.failures = 0;
            return self.pause.take().is_some();
        }
        self.failures = self.failures.saturating_add(1);
        match &mut self.pause {
            // Of several that were begun before the pause, none makes it longer.
            Some(pause) if now >= pause.until => {
                pause.time = (pause.time * 2).min(PAUSE_MAX);
                pause.until = now + pause.time;
                false
            }
            Some(_) => false,
            None if self.failures >= FAILURES => {
                self.pause = Some(Pause { until: now + PAUSE_FIRST, time: PAUSE_FIRST });
                true
            }
            None => false,
        }
    }

    /// The queue is to be looked at, at this time at the latest, and not while there is a pause.
    pub fn look_at(&mut self, at: Instant) {
        let at = self.pause.as_ref().map_or(at, |pause| at.max(pause.until));
        self.next_look = Some(self.next_look.map_or(at, |next| next.min(at)));
    }

    /// Until when it is paused.
    pub fn paused_until(&self) -> Option<Instant> {
        self.pause.as_ref().map(|pause| pause.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ten_failures_in_a_row_pause_it_and_a_probe_opens_it() {
        let mut endpoint = Endpoint::default();
        let start = Instant::now();
        assert_eq!(endpoint.free(start), CONCURRENCY);
        endpoint.begin(12);
        assert_eq!(endpoint.free(start), CONCURRENCY - 12);
        let paused: Vec<bool> = (0..12).map(|_| endpoint.end(false, start)).collect();
        assert_eq!(paused.iter().position(|paused| *paused), Some(9));
        assert_eq!(paused.iter().filter(|paused| **paused).count(), 1);
        assert_eq!((endpoint.free(start), endpoint.free(start + PAUSE_FIRST)), (0, 1));

        let probe = start + PAUSE_FIRST;
        endpoint.begin(1);
        assert_eq!(endpoint.free(probe), 0);
        assert!(!endpoint.end(false, probe));
        assert_eq!(endpoint.paused_until(), Some(probe + 2 * PAUSE_FIRST));
        for _ in 0..20 {
            let until = endpoint.paused_until().unwrap();
            endpoint.begin(1);
            endpoint.end(false, until);
        }
        let (before, until) = (endpoint.paused_until().unwrap() - PAUSE_MAX, endpoint.paused_until().unwrap());
        assert_eq!(endpoint.free(before), 0);
        endpoint.begin(1);
        assert!(endpoint.end(true, until), "a success ends the pause");
        assert_eq!((endpoint.free(until), endpoint.is_idle()), (CONCURRENCY, true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_between_failures_counts_anew() {
        let mut endpoint = Endpoint::default();
        for _ in 0..5 {
            endpoint.begin(10);
            (0..9).for_each(|_| assert!(!endpoint.end(false, Instant::now())));
            assert!(!endpoint.end(true, Instant::now()));
        }
        assert_eq!(endpoint.paused_until(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_given_back_is_no_failure() {
        let (mut endpoint, now) = (Endpoint::default(), Instant::now());
        endpoint.begin(CONCURRENCY);
        (0..CONCURRENCY).for_each(|_| assert!(!endpoint.give_back()));
        assert_eq!((endpoint.free(now), endpoint.paused_until()), (CONCURRENCY, None));
    }

    #[tokio::test(start_paused = true)]
    async fn its_queue_is_looked_at_as_soon_as_anybody_wants() {
        let (mut endpoint, now) = (Endpoint::default(), Instant::now());
        endpoint.look_at(now + PAUSE_FIRST);
        endpoint.look_at(now);
        endpoint.look_at(now + PAUSE_MAX);
        assert_eq!(endpoint.next_look, Some(now));
    }
}
