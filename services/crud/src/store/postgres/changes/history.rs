//! Snapshots that may become the limit up to which entries are removed from a log.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// How long entries stay in a log, for other readers, and how often those older are removed.
pub const PRUNE_AGE: Duration = Duration::from_secs(60);
const PRUNE_INTERVAL: Duration = Duration::from_secs(10);

/// Snapshots with when they were taken, the oldest first.
#[derive(Debug, Clone)]
pub struct SnapshotHistory<S>(pub VecDeque<(Instant, S)>);

impl<S> Default for SnapshotHistory<S> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<S: Clone> SnapshotHistory<S> {
    /// The snapshot up to which entries are to be removed now, if there is one; `snapshot` is that of now.
    pub fn limit(&mut self, now: Instant, snapshot: &S) -> Option<S> {
        if self.0.back().is_some_and(|(taken, _)| now.duration_since(*taken) < PRUNE_INTERVAL) {
            return None;
        }
        self.0.push_back((now, snapshot.clone()));
        let (taken, _) = self.0.front()?;
        match now.duration_since(*taken) >= PRUNE_AGE {
            true => self.0.pop_front().map(|(_, limit)| limit),
            false => None,
        }
    }
}
