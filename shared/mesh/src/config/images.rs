//! Images that storage makes of files.

use std::time::Duration;

use serde::Deserialize;

use super::deserialize_duration;

/// Limits of the limits.
const WORKERS_MAX: usize = 64;
const TIME_MAX: Duration = Duration::from_secs(60);
const PIXELS_MAX: u64 = 1 << 28;
const SOURCE_BYTES_MAX: u64 = 1 << 30;
/// Source: the largest side of WebP, of RFC 9649.
const SIDE_MAX: u32 = 16_383;

/// Limits of the images that a node makes.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageLimits {
    /// Images that are made at once.
    pub workers: usize,
    /// Requests that wait until theirs is made. Those of one project have at most half of the places.
    pub queue: usize,
    /// Time that a request waits until its own is begun.
    #[serde(deserialize_with = "deserialize_duration")]
    pub wait: Duration,
    /// Time to make one.
    #[serde(deserialize_with = "deserialize_duration")]
    pub time: Duration,
    /// Pixels that a source may have.
    pub pixels: u64,
    /// Bytes that a source may have.
    pub source_bytes: u64,
    /// Pixels of the longest side of what is made.
    pub side: u32,
    /// Bytes of made images that are kept.
    pub cache_bytes: u64,
}

impl ImageLimits {
    /// Checks what types alone do not say. An error is a field, and the reason.
    pub(super) fn check(&self) -> Result<(), (String, String)> {
        for (field, value, most) in [
            ("workers", self.workers as u64, WORKERS_MAX as u64),
            ("pixels", self.pixels, PIXELS_MAX),
            ("source_bytes", self.source_bytes, SOURCE_BYTES_MAX),
            ("side", u64::from(self.side), u64::from(SIDE_MAX)),
        ] {
            if !(1..=most).contains(&value) {
                return Err((field.to_owned(), format!("must be from 1 to {most}")));
            }
        }
        for (field, time) in [("wait", self.wait), ("time", self.time)] {
            if time.is_zero() || time > TIME_MAX {
                return Err((field.to_owned(), format!("must be positive, and at most {}s", TIME_MAX.as_secs())));
            }
        }
        Ok(())
    }
}
