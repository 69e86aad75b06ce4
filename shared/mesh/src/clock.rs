//! Moments as messages have them: milliseconds since the Unix epoch.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// A moment as messages have it; 0 for one before 1970.
pub fn unix_ms(moment: SystemTime) -> i64 {
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// When a moment of a message is, now at the earliest; `None` for one that no clock reaches.
pub fn instant(unix_ms: i64) -> Option<Instant> {
    let moment = UNIX_EPOCH + Duration::from_millis(u64::try_from(unix_ms).ok()?);
    Instant::now().checked_add(moment.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_the_same_as_a_message_has_it() {
        let moment = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        assert_eq!(unix_ms(moment), 1_700_000_000_123);
        assert_eq!(unix_ms(UNIX_EPOCH - Duration::from_secs(1)), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_passed_is_now() {
        assert_eq!(instant(0), Some(Instant::now()));
        let later = instant(unix_ms(SystemTime::now() + Duration::from_secs(60))).unwrap();
        assert!(later > Instant::now() + Duration::from_secs(50));
        assert_eq!(instant(-1), None);
    }
}
