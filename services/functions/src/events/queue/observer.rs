//! Observer: how long others have left something as it was.
//!
//! Clocks of nodes and of a server may be set; how much time passes, each process tells by itself. Who has something raises
//! a number while it does; whoever sees the same number for long enough knows that nobody has it.

use std::{collections::HashMap, hash::Hash, time::Duration};

use tokio::time::Instant;

/// Since when each thing has been as it is.
#[derive(Debug)]
pub struct Observer<K, V>(HashMap<K, (V, Instant)>);

impl<K, V> Default for Observer<K, V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash, V: PartialEq> Observer<K, V> {
    /// Takes what there is now; the rest is forgotten.
    pub fn see(&mut self, all: impl IntoIterator<Item = (K, V)>, now: Instant) {
        let mut before = std::mem::take(&mut self.0);
        for (key, value) in all {
            let since = before.remove(&key).filter(|(known, _)| *known == value).map_or(now, |(_, since)| since);
            self.0.insert(key, (value, since));
        }
    }

    /// How long something has been as it is; zero where it is not known.
    pub fn unchanged(&self, key: &K, now: Instant) -> Duration {
        self.0.get(key).map_or(Duration::ZERO, |(_, since)| now.saturating_duration_since(*since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_or_comes_back_begins_anew() {
        let (mut observer, start) = (Observer::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        observer.see([("a", 1), ("b", 1)], start);
        observer.see([("a", 1), ("b", 2)], after(5));
        let unchanged =
            |observer: &Observer<&str, i32>, key, seconds| observer.unchanged(&key, after(seconds)).as_secs();
        assert_eq!(
            (unchanged(&observer, "a", 6), unchanged(&observer, "b", 6), unchanged(&observer, "c", 6)),
            (6, 1, 0)
        );
        observer.see([("b", 2)], after(7));
        observer.see([("a", 1), ("b", 2)], after(8));
        assert_eq!((unchanged(&observer, "a", 9), unchanged(&observer, "b", 9)), (1, 4));
    }
}
