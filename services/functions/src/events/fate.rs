//! What becomes of an event after an attempt.

use std::time::Duration;

use query::trigger::Trigger;

use super::{
    attempt::Verdict,
    backoff,
    queue::delivery::{Fate, Lease},
};

/// Wait before an attempt that could not begin in time, in milliseconds.
const LATE_WAIT_MS: i64 = 500;

/// What becomes of an event after an attempt.
pub fn fate(spec: &Trigger, lease: &Lease, verdict: &Verdict, now_ms: i64) -> Fate {
    let retry_after = match verdict {
        Verdict::Delivered => return Fate::Processed,
        Verdict::Gone | Verdict::Unusable => return Fate::Failed,
        Verdict::Late => return Fate::Retried { due_ms: now_ms.saturating_add(LATE_WAIT_MS) },
        Verdict::Failed { retry_after } => *retry_after,
    };
    let attempt = u32::try_from(lease.attempts).unwrap_or(u32::MAX);
    let wait = backoff::wait(&spec.retries, attempt, rand::random(), retry_after);
    let due_ms = now_ms.saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX));
    let age = Duration::from_millis(u64::try_from(due_ms.saturating_sub(lease.since_ms)).unwrap_or_default());
    match backoff::is_retried(&spec.retries, attempt, age) {
        true => Fate::Retried { due_ms },
        false => Fate::Failed,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_attempt_decides_what_becomes_of_an_event() {
        let spec = json!({"on": {"database": "d", "table": "t"}, "to": {"url": "http://a"}, "retries": {"max": 2, "for": 100, "first": 4}});
        let spec: Trigger = serde_json::from_value(spec).unwrap();
        let lease = |attempts, since_ms| {
            let (id, body) = ("evt".to_owned(), Vec::new());
            Lease { seq: 1, id, body, attempts, since_ms, order_key: None, budget: 0, awaited: 0 }
        };
        let failed = |seconds: Option<u64>| Verdict::Failed { retry_after: seconds.map(Duration::from_secs) };
        assert_eq!(fate(&spec, &lease(9, 0), &Verdict::Delivered, 1), Fate::Processed);
        assert_eq!(fate(&spec, &lease(1, 0), &Verdict::Gone, 1), Fate::Failed);
        assert_eq!(fate(&spec, &lease(1, 0), &Verdict::Unusable, 1), Fate::Failed);
        let Fate::Retried { due_ms } = fate(&spec, &lease(1, 0), &failed(None), 1000) else {
            panic!("it is tried again")
        };
        assert!((4000..=6000).contains(&due_ms), "{due_ms}");
        assert_eq!(
            fate(&spec, &lease(99, 0), &Verdict::Late, 1_000_000),
            Fate::Retried { due_ms: 1_000_000 + LATE_WAIT_MS },
            "what was not sent is no dead letter"
        );
        assert_eq!(fate(&spec, &lease(1, 0), &failed(Some(60)), 1000), Fate::Retried { due_ms: 61_000 });
        assert_eq!(fate(&spec, &lease(1, 0), &failed(Some(100)), 1000), Fate::Failed, "it would be too late");
        assert_eq!(fate(&spec, &lease(3, 0), &failed(None), 1000), Fate::Failed, "it was tried often enough");
        assert!(
            matches!(fate(&spec, &lease(2, 90_000), &failed(None), 100_000), Fate::Retried { .. }),
            "it was replayed"
        );
    }
}
