//! Exponential back-off.

use std::time::Duration;

/// The wait after the attempt of a number, from 1: the first, which doubles up to the longest.
pub fn doubled(first: Duration, longest: Duration, attempt: u32) -> Duration {
    first.saturating_mul(1_u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX)).min(longest)
}
