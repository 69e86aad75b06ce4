//! Circuit breaker of one function: calls of a server that is away are refused at once, not each after its time.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Calls that fail, with no answer between them, until the circuit is open.
pub const FAILURES: u32 = 5;
/// How long an open circuit refuses calls before it lets one through, which doubles with each that fails.
const OPEN_FIRST: Duration = Duration::from_secs(1);
const OPEN_LONGEST: Duration = Duration::from_secs(30);

/// The circuit breaker of a function on this node.
#[derive(Debug, Default)]
pub struct Breaker(Mutex<Circuit>);

#[derive(Debug, Default)]
struct Circuit {
    /// Calls that failed since the last answer.
    failures: u32,
    /// Until when calls are refused, and for how long that was; `None`: the circuit is closed.
    open: Option<(Instant, Duration)>,
}

/// What an attempt of a call says of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It answers.
    Healthy,
    /// It cannot be reached.
    Failed,
    /// Nothing: whatever happened may be for what the caller sent, or for the time that it gave.
    Unknown,
}

/// A call that was let through. Dropped before its end is told, it says nothing of the server.
#[derive(Debug)]
pub struct Admitted<'b> {
    breaker: &'b Breaker,
    is_probe: bool,
}

impl Breaker {
    fn circuit(&self) -> MutexGuard<'_, Circuit> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a call through, or says for how long calls are refused still.
    pub fn admit(&self, now: Instant) -> Result<Admitted<'_>, Duration> {
        let mut circuit = self.circuit();
        let Some((until, _)) = &mut circuit.open else { return Ok(Admitted { breaker: self, is_probe: false }) };
        if now < *until {
            return Err(*until - now);
        }
        // The next one, should this one take long or be given up.
        *until = now + OPEN_FIRST;
        Ok(Admitted { breaker: self, is_probe: true })
    }
}

impl Admitted<'_> {
    /// The call has ended. Whether that opened the circuit.
    pub fn ended(self, outcome: Outcome, now: Instant) -> bool {
        let mut circuit = self.breaker.circuit();
        match outcome {
            Outcome::Healthy => {
                *circuit = Circuit::default();
                false
            }
            Outcome::Failed => {
                circuit.failures = circuit.failures.saturating_add(1);
                let is_closed = circuit.open.is_none();
                // Calls that began before it opened say nothing new.
                let opens = if is_closed { circuit.failures >= FAILURES } else { self.is_probe };
                if opens {
                    let time = circuit.open.map_or(OPEN_FIRST, |(_, time)| (time * 2).min(OPEN_LONGEST));
                    circuit.open = Some((now + time, time));
                }
                opens && is_closed
            }
            Outcome::Unknown => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn fail(breaker: &Breaker, times: u32, now: Instant) -> Vec<bool> {
        (0..times).map(|_| breaker.admit(now).unwrap().ended(Outcome::Failed, now)).collect()
    }

    #[test]
    fn failures_one_after_the_other_open_it() {
        let (breaker, now) = (Breaker::default(), Instant::now());
        assert_eq!(fail(&breaker, 4, now), [false; 4]);
        breaker.admit(now).unwrap().ended(Outcome::Healthy, now);
        assert_eq!(fail(&breaker, 4, now), [false; 4]);
        breaker.admit(now).unwrap().ended(Outcome::Unknown, now);
        breaker.admit(now).unwrap();
        assert_eq!(fail(&breaker, 1, now), [true]);
        assert_eq!(breaker.admit(now).unwrap_err(), SECOND);
        assert_eq!(breaker.admit(now + SECOND / 2).unwrap_err(), SECOND / 2);
    }

    #[test]
    fn one_call_probes_it() {
        let (breaker, now) = (Breaker::default(), Instant::now());
        fail(&breaker, FAILURES, now);
        let later = now + SECOND;
        let probe = breaker.admit(later).unwrap();
        assert!(breaker.admit(later).is_err(), "one in its time");
        assert!(!probe.ended(Outcome::Failed, later));
        assert_eq!(breaker.admit(later).unwrap_err(), 2 * SECOND, "twice the time");
        let later = later + 2 * SECOND;
        breaker.admit(later).unwrap();
        assert!(breaker.admit(later + SECOND / 2).is_err(), "one that takes long, or is given up, has its time");
        let later = later + SECOND;
        assert!(!breaker.admit(later).unwrap().ended(Outcome::Unknown, later));
        assert_eq!(breaker.admit(later).unwrap_err(), SECOND, "it said nothing");
        let later = later + SECOND;
        assert!(!breaker.admit(later).unwrap().ended(Outcome::Healthy, later));
        assert_eq!(fail(&breaker, 1, later), [false], "it is closed");
        let mut time = later;
        fail(&breaker, FAILURES - 1, time);
        for _ in 0..10 {
            time += OPEN_LONGEST;
            breaker.admit(time).unwrap().ended(Outcome::Failed, time);
        }
        assert_eq!(breaker.admit(time).unwrap_err(), OPEN_LONGEST);
    }

    #[test]
    fn calls_that_began_before_it_opened_change_nothing() {
        let (breaker, now) = (Breaker::default(), Instant::now());
        let early = breaker.admit(now).unwrap();
        fail(&breaker, FAILURES, now);
        assert!(!early.ended(Outcome::Failed, now + SECOND / 2));
        assert_eq!(breaker.admit(now).unwrap_err(), SECOND);
        let (early, other) = (Breaker::default(), Instant::now());
        let healthy = early.admit(other).unwrap();
        fail(&early, FAILURES, other);
        healthy.ended(Outcome::Healthy, other);
        assert!(early.admit(other).is_ok(), "it answers after all");
    }
}
