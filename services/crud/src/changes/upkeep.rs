//! When what is made in a database for captures is removed again.

use std::time::Duration;

use tokio::time::Instant;

use crate::Error;

/// How long a table that nobody listens to stays captured: making triggers anew changes the schema, and who comes back goes
/// on where it was.
pub const LINGER: Duration = Duration::from_secs(600);
/// How often tables that nobody listens to are looked for.
pub const LINGER_CHECK_INTERVAL: Duration = Duration::from_secs(60);
/// How long the end of all captures may take when the node stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// What has to be removed, and when.
#[derive(Debug, Default)]
pub struct Upkeep {
    /// When all captures that nobody needs are to be ended.
    sweep: Option<Instant>,
    /// Whether a capture was begun.
    has_captured: bool,
}

impl Upkeep {
    /// That of a process that starts: what the one before left is removed as late as what nobody listens to.
    pub fn at_start() -> Self {
        Self { sweep: Some(Instant::now() + LINGER), ..Self::default() }
    }

    /// A capture is begun.
    pub fn capturing(&mut self) {
        self.has_captured = true;
    }

    /// Captures that nobody needs are to be ended after `wait`, or before.
    pub fn sweep_within(&mut self, wait: Duration) {
        let at = Instant::now() + wait;
        self.sweep = Some(self.sweep.map_or(at, |sweep| sweep.min(at)));
    }

    /// Whether captures are to be ended now.
    pub fn is_due(&self, now: Instant) -> bool {
        self.sweep.is_some_and(|sweep| now >= sweep)
    }

    /// Whether nothing is to be removed later.
    pub fn is_done(&self) -> bool {
        self.sweep.is_none()
    }

    /// Ends the captures that nobody needs by `release`, and again after a while where it fails. `triggers` are what stays
    /// then.
    pub async fn release(&mut self, triggers: &str, release: impl Future<Output = Result<(), Error>>) {
        self.sweep = None;
        if let Err(error) = release.await {
            self.sweep_within(LINGER_CHECK_INTERVAL);
            let cause = error.cause();
            tracing::warn!(%error, cause, "{triggers} that nobody needs stay in the database for now");
        }
    }

    /// Ends all captures by `release`, as far as that is possible in a short time.
    pub async fn end(&self, triggers: &str, release: impl Future<Output = Result<(), Error>>) {
        if !self.has_captured {
            return;
        }
        match tokio::time::timeout(STOP_TIMEOUT, release).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, cause = error.cause(), "{triggers} stay in the database"),
            Err(_) => tracing::warn!("{triggers} stay in the database, which took too long to remove them"),
        }
    }
}
