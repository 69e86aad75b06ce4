//! Slow statements: texts whose last run took too long for a runtime's thread, so that the next one does not try.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
};

use crate::store::Statement;

/// Slots of the table: a statement evicts another now and then, which is tried anew.
const SLOTS: usize = 256;

/// Hashes of the texts of slow statements.
#[derive(Debug)]
pub struct SlowStatements {
    /// 0 where there is none.
    marks: [AtomicU64; SLOTS],
    /// Number of entries. While it is 0, no text is hashed.
    count: AtomicUsize,
}

impl Default for SlowStatements {
    fn default() -> Self {
        Self { marks: [const { AtomicU64::new(0) }; SLOTS], count: AtomicUsize::new(0) }
    }
}

impl SlowStatements {
    /// Whether the last run of `statements` was slow.
    pub fn contain(&self, statements: &[Statement]) -> bool {
        self.count.load(Relaxed) > 0 && {
            let (hash, slot) = self.slot(statements);
            slot.load(Relaxed) == hash
        }
    }

    /// Records a run.
    pub fn ran(&self, statements: &[Statement], is_slow: bool) {
        let (hash, slot) = self.slot(statements);
        if !is_slow {
            if slot.compare_exchange(hash, 0, Relaxed, Relaxed).is_ok() {
                self.count.fetch_sub(1, Relaxed);
            }
        } else if slot.swap(hash, Relaxed) == 0 {
            self.count.fetch_add(1, Relaxed);
        }
    }

    fn slot(&self, statements: &[Statement]) -> (u64, &AtomicU64) {
        let mut hasher = DefaultHasher::new();
        statements.iter().for_each(|statement| statement.text.hash(&mut hasher));
        let hash = hasher.finish().max(1);
        (hash, &self.marks[hash as usize % SLOTS])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statements(texts: &[&str]) -> Vec<Statement> {
        let statement = |text: &&str| Statement {
            text: (*text).into(),
            args: Vec::new(),
            columns: [].into(),
            sources: Vec::new(),
            plain: None,
        };
        texts.iter().map(statement).collect()
    }

    #[test]
    fn a_statement_is_slow_from_a_slow_run_to_the_next_quick_one() {
        let slow = SlowStatements::default();
        let (both, one) = (statements(&["SELECT 1", "SELECT 2"]), statements(&["SELECT 1"]));
        slow.ran(&both, true);
        assert!(slow.contain(&both) && !slow.contain(&one));
        slow.ran(&both, true);
        slow.ran(&one, false);
        assert!(slow.contain(&both));
        slow.ran(&both, false);
        assert!(!slow.contain(&both));
        assert_eq!(slow.count.load(Relaxed), 0);
    }

    #[test]
    fn no_number_of_statements_takes_more_places() {
        let slow = SlowStatements::default();
        for number in 0..10_000 {
            let statement = statements(&[&format!("SELECT {number}")]);
            slow.ran(&statement, true);
            assert!(slow.contain(&statement));
        }
        assert!(slow.count.load(Relaxed) <= SLOTS);
    }
}
