//! Retries of calls: which failures of an idempotent function are tried again, and after which wait.

use std::time::Duration;

use mesh::Code;
use proto::functions::CallResponse;
use query::function::Function;

use crate::{Error, backoff::doubled};

/// The wait before the first retry, which doubles up to the longest.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LONGEST: Duration = Duration::from_secs(1);

/// The retries of a call.
#[derive(Debug)]
pub struct CallRetries {
    most: u32,
    made: u32,
}

impl CallRetries {
    /// Those of a call of the function: none where it is not idempotent.
    pub fn of(function: &Function) -> Self {
        Self { most: function.retries(), made: 0 }
    }

    /// The wait before the next attempt; `None` where the result of the last one stands, because it is an answer, no retry is
    /// left, or the next one would begin after `time_left`. `jitter` is from 0 to 1.
    pub fn wait(&mut self, result: &Result<CallResponse, Error>, time_left: Duration, jitter: f64) -> Option<Duration> {
        if self.made == self.most || !is_transient(result) {
            return None;
        }
        // Half less to all of it, so that those that failed together do not come back together.
        let wait = doubled(RETRY_FIRST, RETRY_LONGEST, self.made + 1).mul_f64(0.5 + jitter / 2.0);
        if wait >= time_left {
            return None;
        }
        self.made += 1;
        Some(wait)
    }
}

/// Whether nobody answered, or somebody on the way for a server that is away.
fn is_transient(result: &Result<CallResponse, Error>) -> bool {
    match result {
        Ok(CallResponse { status, .. }) => matches!(status, 502..=504),
        // What proxies answer is HTML.
        Err(Error::NotJson(status)) => matches!(status, 502..=504),
        Err(Error::Unreachable { .. } | Error::BrokeOff { .. } | Error::Disconnected) => true,
        Err(Error::Said { code, .. }) => *code == Code::Unavailable,
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn retries(retries: Option<u32>, idempotent: bool) -> CallRetries {
        CallRetries::of(&Function { retries, idempotent, ..Function::default() })
    }

    fn status(status: u32) -> Result<CallResponse, Error> {
        Ok(CallResponse { status, body: Bytes::new() })
    }

    #[test]
    fn only_what_is_idempotent_is_tried_again() {
        assert_eq!(retries(None, false).wait(&Err(Error::Disconnected), SECOND, 1.0), None);
        assert_eq!(retries(Some(0), true).wait(&Err(Error::Disconnected), SECOND, 1.0), None);
        assert!(retries(None, true).wait(&Err(Error::Disconnected), SECOND, 1.0).is_some());
    }

    #[test]
    fn answers_and_refusals_stand() {
        for result in [
            status(200),
            status(429),
            status(500),
            Err(Error::NotJson(200)),
            Err(Error::TooMany { running: 1, waiting: 1 }),
            Err(Error::Forbidden("mail".to_owned())),
            Err(Error::NoWorker("mail".to_owned())),
            Err(Error::Said { code: Code::TooMany, text: String::new() }),
        ] {
            assert_eq!(retries(None, true).wait(&result, SECOND, 1.0), None, "{result:?}");
        }
        let away = Err(Error::Said { code: Code::Unavailable, text: String::new() });
        for result in [status(502), status(503), status(504), Err(Error::NotJson(503)), away] {
            assert!(retries(None, true).wait(&result, SECOND, 1.0).is_some(), "{result:?}");
        }
    }

    #[test]
    fn waits_double_and_end_with_the_time() {
        let mut retries = retries(Some(10), true);
        let waits: Vec<u128> =
            (0..7).map_while(|_| retries.wait(&status(503), 10 * SECOND, 1.0)).map(|wait| wait.as_millis()).collect();
        assert_eq!(waits, [50, 100, 200, 400, 800, 1000, 1000]);
        assert_eq!(retries.wait(&status(503), SECOND, 1.0), None, "it would begin too late");
        assert_eq!(retries.wait(&status(503), SECOND, 0.0), Some(SECOND / 2));
        let left = (0..9).map_while(|_| retries.wait(&status(503), 10 * SECOND, 0.0)).count();
        assert_eq!(left, 2);
    }
}
