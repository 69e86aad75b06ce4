//! Followed tables: those of whose changes the rows are followed, by the callers whose live queries make it worth it, or whose
//! watches need it. Writers pay for that, so one caller can bring it about for a bounded number of tables.

use std::sync::{Arc, Mutex, MutexGuard};

use foldhash::HashMap;
use mesh::{
    Code, Fault,
    telemetry::{Counter, Metrics},
};

use super::{CallerId, feed::Source};

/// Tables by callers, with the live queries and watches that count for them.
type CallerTables = HashMap<CallerId, HashMap<Source, usize>>;

/// Followed tables of a node.
pub struct FollowedTables {
    /// `limits.followed_tables`
    most: usize,
    callers: Arc<Mutex<CallerTables>>,
    shed: Counter,
}

/// A table for which a live query or a watch of a caller counts. Dropped, it counts no more.
#[derive(Debug)]
pub struct FollowedTable {
    caller: CallerId,
    table: Source,
    callers: Arc<Mutex<CallerTables>>,
}

impl FollowedTables {
    /// At most so many of each caller.
    pub fn new(most: usize, metrics: &Metrics) -> Self {
        Self { most, callers: Arc::default(), shed: metrics.shed("followed_tables") }
    }

    /// Counts a watch of `caller` for a table. Errors: `TOO_MANY` where it would be one table too many.
    pub fn require(&self, caller: CallerId, table: &Source) -> Result<FollowedTable, Fault> {
        let refused = || {
            let limit = self.most;
            let what = "the tables whose changes the caller follows are at the limit of limits.followed_tables";
            Fault::new(Code::TooMany, format!("{what}: {limit}"))
        };
        self.take(caller, table).ok_or_else(refused)
    }

    /// Counts a live query of `caller` for a table; `None` where it would be one table too many.
    pub fn take(&self, caller: CallerId, table: &Source) -> Option<FollowedTable> {
        let mut callers = lock(&self.callers);
        let tables = callers.get(&caller);
        let is_known = tables.is_some_and(|tables| tables.contains_key(table));
        if !is_known && tables.map_or(0, HashMap::len) >= self.most {
            self.shed.inc();
            return None;
        }
        *callers.entry(caller).or_default().entry(table.clone()).or_default() += 1;
        Some(FollowedTable { caller, table: table.clone(), callers: self.callers.clone() })
    }
}

impl Drop for FollowedTable {
    fn drop(&mut self) {
        let mut callers = lock(&self.callers);
        let Some(tables) = callers.get_mut(&self.caller) else { return };
        if let Some(count) = tables.get_mut(&self.table) {
            *count -= 1;
            if *count == 0 {
                tables.remove(&self.table);
            }
        }
        if tables.is_empty() {
            callers.remove(&self.caller);
        }
    }
}

fn lock(callers: &Mutex<CallerTables>) -> MutexGuard<'_, CallerTables> {
    callers.lock().expect("no code panics while it holds this lock")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str) -> Source {
        Source::Table { project: "shop".to_owned(), database: "db".to_owned(), table: name.to_owned() }
    }

    #[test]
    fn a_caller_has_so_many_tables_until_the_live_queries_of_one_are_gone() {
        let metrics = Metrics::default();
        let followed = FollowedTables::new(1, &metrics);
        let [ann, bob] = ["ann", "bob"].map(|name| CallerId::of("shop", name, None));
        let first = [followed.take(ann, &table("a")), followed.take(ann, &table("a"))];
        assert!(first.iter().all(Option::is_some));
        assert!(followed.take(ann, &table("b")).is_none());
        assert!(metrics.render().contains("perigee_shed_total{limit=\"followed_tables\"} 1"));
        assert!(followed.take(bob, &table("b")).is_some(), "others have theirs");
        let [one, other] = first;
        drop(one);
        assert!(followed.take(ann, &table("b")).is_none(), "another counts for the first");
        drop(other);
        let second = followed.take(ann, &table("b"));
        assert!(second.is_some());
        drop(second);
        assert!(lock(&followed.callers).is_empty());
    }
}
