//! Snapshots of the server: which transactions a statement sees.

use std::fmt;

/// A snapshot. It sees the transactions before [`ServerSnapshot::end`] that are not [`ServerSnapshot::running`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerSnapshot {
    /// The first transaction that had not begun.
    pub end: u64,
    /// Transactions before it that were in progress.
    pub running: Vec<u64>,
}

impl ServerSnapshot {
    /// A snapshot that sees all transactions there will ever be.
    pub fn of_all() -> Self {
        Self { end: u64::MAX, running: Vec::new() }
    }

    /// A snapshot as the server writes it: `xmin:xmax:xip,xip`. What is not one sees nothing.
    pub fn parse(text: &str) -> Self {
        let mut parts = text.split(':').skip(1);
        let end = parts.next().and_then(|end| end.parse().ok());
        let running = parts.next().unwrap_or_default().split(',').filter_map(|id| id.parse().ok());
        end.map_or_else(Self::default, |end| Self { end, running: running.collect() })
    }

    /// Whether each transaction that `other` sees is seen by this one too; `false` where that does not show.
    pub fn sees_all_of(&self, other: &Self) -> bool {
        let is_seen = |id: &u64| *id >= other.end || other.running.contains(id);
        other.end <= self.end && self.running.iter().all(is_seen)
    }

    /// The transactions in progress, as texts.
    pub fn running_texts(&self) -> Vec<String> {
        self.running.iter().map(u64::to_string).collect()
    }
}

impl From<ServerSnapshot> for proto::crud::Snapshot {
    fn from(ServerSnapshot { end, mut running }: ServerSnapshot) -> Self {
        running.sort_unstable();
        Self { start: running.first().copied().unwrap_or(end), end, running }
    }
}

impl From<proto::crud::Snapshot> for ServerSnapshot {
    fn from(proto::crud::Snapshot { end, running, .. }: proto::crud::Snapshot) -> Self {
        Self { end, running }
    }
}

impl fmt::Display for ServerSnapshot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.running.iter().min().unwrap_or(&self.end);
        write!(formatter, "{first}:{}:{}", self.end, self.running_texts().join(","))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sees(snapshot: &ServerSnapshot, id: u64) -> bool {
        id < snapshot.end && !snapshot.running.contains(&id)
    }

    fn snapshot() -> impl Strategy<Value = ServerSnapshot> {
        let running = proptest::collection::btree_set(1u64..12, 0..6);
        (1u64..12, running).prop_map(|(end, running)| ServerSnapshot {
            end,
            running: running.into_iter().filter(|id| *id < end).collect(),
        })
    }

    proptest! {
        #[test]
        fn a_snapshot_that_sees_all_of_another_does(one in snapshot(), other in snapshot()) {
            if one.sees_all_of(&other) {
                prop_assert!((0..20).all(|id| sees(&one, id) || !sees(&other, id)));
            }
            prop_assert!(one.sees_all_of(&one));
            prop_assert!(one.sees_all_of(&ServerSnapshot::default()));
            prop_assert_eq!(ServerSnapshot::parse(&one.to_string()), one);
        }
    }

    #[test]
    fn snapshots_are_read_as_the_server_writes_them() {
        assert_eq!(ServerSnapshot::parse("10:20:10,14"), ServerSnapshot { end: 20, running: vec![10, 14] });
        assert_eq!(ServerSnapshot::parse("10:10:"), ServerSnapshot { end: 10, running: vec![] });
        assert_eq!(ServerSnapshot::parse(""), ServerSnapshot::default());
    }
}
