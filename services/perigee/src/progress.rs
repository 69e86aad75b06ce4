//! Progress of long work, on a terminal only.

use std::time::Duration;

use indicatif::ProgressBar;

/// How often a terminal is drawn anew.
const TICK: Duration = Duration::from_millis(100);

/// A spinner on stderr with what is being done, until it is dropped. Where stderr is no terminal, nothing is written.
pub struct Progress(ProgressBar);

impl Progress {
    /// Says `what` is being done.
    pub fn start(what: impl Into<String>) -> Self {
        let bar = ProgressBar::new_spinner().with_message(what.into());
        bar.enable_steady_tick(TICK);
        Self(bar)
    }

    /// Says `what` is being done now.
    pub fn next(&self, what: impl Into<String>) {
        self.0.set_message(what.into());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
