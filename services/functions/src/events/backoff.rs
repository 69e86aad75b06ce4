//! Waits between attempts: exponential back-off with jitter.

use std::time::Duration;

use query::trigger::Retries;

use crate::backoff::doubled;

/// The longest wait that an endpoint may ask for.
const ASKED_MAX: Duration = Duration::from_secs(86_400);

/// The wait after the attempt of a number, from 1; `jitter` is from 0 to 1, `asked` what the endpoint asked for.
pub fn wait(retries: &Retries, attempt: u32, jitter: f64, asked: Option<Duration>) -> Duration {
    // A quarter more or less, so that those that failed together do not come back together.
    let wait = doubled(retries.first, retries.longest, attempt).mul_f64(0.75 + jitter / 2.0);
    asked.map_or(wait, |asked| asked.min(ASKED_MAX).max(wait))
}

/// Whether there is an attempt after `attempt`, which would begin `age` after the event.
pub fn is_retried(retries: &Retries, attempt: u32, age: Duration) -> bool {
    retries.max.is_none_or(|max| attempt <= max) && retries.time.is_none_or(|time| age <= time)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn waits_double_up_to_the_longest_and_as_asked() {
        let retries = Retries { first: 5 * SECOND, longest: 60 * SECOND, ..Retries::default() };
        let waits: Vec<u64> = (1..7).map(|attempt| wait(&retries, attempt, 0.5, None).as_secs()).collect();
        assert_eq!(waits, [5, 10, 20, 40, 60, 60]);
        assert_eq!(wait(&retries, u32::MAX, 0.5, None), 60 * SECOND);
        assert_eq!((wait(&retries, 3, 0.0, None), wait(&retries, 3, 1.0, None)), (15 * SECOND, 25 * SECOND));
        assert_eq!(wait(&retries, 1, 0.5, Some(90 * SECOND)), 90 * SECOND);
        assert_eq!(wait(&retries, 3, 0.5, Some(SECOND)), 20 * SECOND);
        assert_eq!(wait(&retries, 1, 0.5, Some(Duration::MAX)), ASKED_MAX);
    }

    #[test]
    fn attempts_end_by_number_or_time() {
        let retries = |max, time| Retries { max, time, ..Retries::default() };
        assert!(
            is_retried(&retries(Some(1), None), 1, Duration::MAX) && !is_retried(&retries(Some(1), None), 2, SECOND)
        );
        assert!(!is_retried(&retries(Some(0), None), 1, SECOND));
        let day = retries(None, Some(60 * SECOND));
        assert!(is_retried(&day, 900, 60 * SECOND) && !is_retried(&day, 1, 61 * SECOND));
    }
}
