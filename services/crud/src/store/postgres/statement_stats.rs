//! Statistics per statement text: recent times and rows, and the id that connections cache prepared statements by.

use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use foldhash::HashMap;

use super::PostgresRows;

/// A statement is short below this average time, and shares a connection with others that wait behind it.
const SHORT_TIME: Duration = Duration::from_millis(3);
/// A statement with more rows is not short whatever its time: on a connection of its own the database works on
/// several of them at once (50 rows sorted out of a thousand: 67 instead of 92 µs of our processor time, and a fifth
/// more answers).
const SHORT_ROWS: u64 = 16;
/// Statement texts kept. Equal operations have equal texts, so this is the number of different operations in use.
const REGISTRY_CAPACITY: usize = 4096;

/// Statistics of one statement text.
#[derive(Debug)]
pub struct StatementStats {
    /// Never given to another text.
    pub id: u64,
    /// SQL.
    pub text: Arc<str>,
    /// Moving average of its times in nanoseconds, the latest weighing a third; 0 before the first.
    nanos: AtomicU64,
    /// Moving average of its numbers of rows, likewise.
    rows: AtomicU64,
    /// When it was last asked for, in look-ups.
    used: AtomicU64,
}

impl StatementStats {
    /// Whether it is short on average; `false` where it never ran.
    pub fn is_short(&self) -> bool {
        let nanos = self.nanos.load(Relaxed);
        nanos > 0 && u128::from(nanos) < SHORT_TIME.as_nanos() && self.rows.load(Relaxed) <= SHORT_ROWS
    }

    /// Records a time, and the number of rows where there was no failure.
    pub fn record<E>(&self, time: Duration, rows: &Result<PostgresRows, E>) {
        self.record_time(time);
        if let Ok(rows) = rows {
            self.record_rows(rows.len());
        }
    }

    fn record_rows(&self, rows: usize) {
        let latest = u64::try_from(rows).unwrap_or(u64::MAX / 4).min(u64::MAX / 4);
        self.rows.store((self.rows.load(Relaxed) * 2 + latest) / 3, Relaxed);
    }

    /// Records a time. Two at once may lose one: it is an average.
    pub fn record_time(&self, time: Duration) {
        let latest = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 4).clamp(1, u64::MAX / 4);
        let average = match self.nanos.load(Relaxed) {
            0 => latest,
            before => (before * 2 + latest) / 3,
        };
        self.nanos.store(average, Relaxed);
    }
}

/// Registry of all statement texts in use. Full, it evicts the half that was least recently used.
#[derive(Debug, Default)]
pub struct StatementRegistry {
    by_text: RwLock<HashMap<Arc<str>, Arc<StatementStats>>>,
    ids: AtomicU64,
    lookups: AtomicU64,
}

impl StatementRegistry {
    /// The statistics of `text`.
    pub fn stats(&self, text: &str) -> Arc<StatementStats> {
        let now = self.lookups.fetch_add(1, Relaxed);
        if let Some(stats) = self.by_text.read().unwrap_or_else(PoisonError::into_inner).get(text) {
            stats.used.store(now, Relaxed);
            return stats.clone();
        }
        let mut by_text = self.by_text.write().unwrap_or_else(PoisonError::into_inner);
        if by_text.len() >= REGISTRY_CAPACITY {
            evict_half(&mut by_text);
        }
        let text: Arc<str> = text.into();
        let fresh = || {
            let id = self.ids.fetch_add(1, Relaxed);
            Arc::new(StatementStats {
                id,
                text: text.clone(),
                nanos: AtomicU64::new(0),
                rows: AtomicU64::new(0),
                used: AtomicU64::new(now),
            })
        };
        by_text.entry(text.clone()).or_insert_with(fresh).clone()
    }

    /// Invalidates all prepared statements: every text gets a new id.
    pub fn clear(&self) {
        self.by_text.write().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

fn evict_half(by_text: &mut HashMap<Arc<str>, Arc<StatementStats>>) {
    let mut uses: Vec<u64> = by_text.values().map(|stats| stats.used.load(Relaxed)).collect();
    let (_, &mut median, _) = uses.select_nth_unstable(REGISTRY_CAPACITY / 2);
    by_text.retain(|_, stats| stats.used.load(Relaxed) > median);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_short_once_it_was_seen_to_be() {
        let statements = StatementRegistry::default();
        let stats = statements.stats("SELECT 1");
        assert!(!stats.is_short());

        stats.record_time(Duration::from_micros(300));
        assert!(stats.is_short());

        stats.record_time(Duration::from_millis(100));
        assert!(!stats.is_short());

        (0..20).for_each(|_| stats.record_time(Duration::from_micros(300)));
        assert!(stats.is_short());
    }

    #[test]
    fn a_statement_with_many_rows_is_not_short() {
        let statements = StatementRegistry::default();
        let stats = statements.stats("SELECT 1");
        stats.record_time(Duration::from_micros(300));

        (0..5).for_each(|_| stats.record_rows(50));
        assert!(!stats.is_short());

        (0..20).for_each(|_| stats.record_rows(1));
        assert!(stats.is_short());
    }

    #[test]
    fn a_forgotten_statement_gets_another_id() {
        let statements = StatementRegistry::default();
        let before = statements.stats("SELECT 1").id;
        assert_eq!(statements.stats("SELECT 1").id, before);

        statements.clear();

        assert_ne!(statements.stats("SELECT 1").id, before);
    }

    #[test]
    fn what_is_in_use_outlives_what_is_not() {
        let statements = StatementRegistry::default();
        let kept = "SELECT 'kept'";
        let id = statements.stats(kept).id;
        for number in 0..REGISTRY_CAPACITY * 2 {
            statements.stats(&format!("SELECT {number}"));
            assert_eq!(statements.stats(kept).id, id);
        }
        assert!(statements.by_text.read().unwrap().len() <= REGISTRY_CAPACITY);
    }
}
