//! How often a delivery that failed is tried again.

use std::time::Duration;

use serde::Deserialize;

use crate::datetime;

/// Attempts after the first where a trigger does not say.
const RETRIES: u32 = 3;
/// Waits before the first retry and at most, where a trigger does not say.
const RETRY_FIRST: Duration = Duration::from_secs(5);
const RETRY_LONGEST: Duration = Duration::from_secs(300);
/// The longest wait, and the longest time of all attempts.
const WAIT_MAX: Duration = Duration::from_secs(30 * 86_400);

/// How often a delivery that failed is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(from = "RetryNumbers")]
#[cfg_attr(feature = "json-schema", schemars(with = "RetryNumbers"))]
pub struct Retries {
    /// Attempts after the first; `None`: any number within `time`.
    pub max: Option<u32>,
    /// Time from the event to its last attempt.
    pub time: Option<Duration>,
    /// Wait before the first retry, which doubles with each.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Self { max: Some(RETRIES), time: None, first: RETRY_FIRST, longest: RETRY_LONGEST }
    }
}

#[derive(Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(untagged, expecting = "expected a number of attempts, or {max, for, first, longest}")]
enum RetryNumbers {
    Max(u32),
    Exactly(RetryTimes),
}

#[derive(Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct RetryTimes {
    /// Attempts after the first; absent: 3, or any number where `for` is given.
    #[serde(default)]
    max: Option<u32>,
    /// Time from the event to its last attempt; absent: any.
    #[serde(default)]
    r#for: Option<Wait>,
    /// Wait before the first retry; absent: 5 seconds.
    #[serde(default)]
    first: Option<Wait>,
    /// The longest wait; absent: 5 minutes.
    #[serde(default)]
    longest: Option<Wait>,
}

impl From<RetryNumbers> for Retries {
    fn from(numbers: RetryNumbers) -> Self {
        match numbers {
            RetryNumbers::Max(max) => Self { max: Some(max), ..Self::default() },
            RetryNumbers::Exactly(RetryTimes { max, r#for, first, longest }) => {
                let first = first.map_or(RETRY_FIRST, |wait| wait.0);
                Self {
                    max: max.or(r#for.is_none().then_some(RETRIES)),
                    time: r#for.map(|wait| wait.0),
                    first,
                    longest: longest.map_or(RETRY_LONGEST, |wait| wait.0).max(first),
                }
            }
        }
    }
}

/// A wait of at most 30 days.
#[derive(Clone, Copy, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(try_from = "WaitText")]
#[cfg_attr(feature = "json-schema", schemars(with = "WaitText"))]
struct Wait(Duration);

#[derive(Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
enum WaitText {
    Seconds(f64),
    Text(String),
}

impl TryFrom<WaitText> for Wait {
    type Error = String;

    fn try_from(text: WaitText) -> Result<Self, String> {
        let time = match &text {
            WaitText::Seconds(seconds) => Duration::try_from_secs_f64(*seconds).ok(),
            WaitText::Text(text) => datetime::duration(text).and_then(|time| Duration::try_from(time).ok()),
        };
        let time = time.filter(|time| !time.is_zero() && *time <= WAIT_MAX);
        time.map(Self).ok_or_else(|| "expected a time up to 720h, such as 5s, 24h or a number of seconds".to_owned())
    }
}
