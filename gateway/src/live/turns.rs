//! Turns of reads: so many are made at once for all live queries, and fewer for those of one caller, so that one with many
//! live queries does not hold up the others.

use std::sync::{Arc, Mutex, Weak};

use foldhash::HashMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::CallerId;

/// Reads at once.
const READS_MAX: usize = 64;
/// Reads at once of one caller.
const READS_OF_CALLER_MAX: usize = 8;

type CallerMap = HashMap<CallerId, Weak<Semaphore>>;

/// Turns of a node.
pub struct ReadTurns {
    all: Arc<Semaphore>,
    callers: Arc<Mutex<CallerMap>>,
}

/// Turns of one caller.
pub struct CallerTurns {
    caller: CallerId,
    own: Arc<Semaphore>,
    all: Arc<Semaphore>,
    callers: Arc<Mutex<CallerMap>>,
}

/// A turn, until it is dropped.
pub struct ReadTurn {
    _own: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl Default for ReadTurns {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(READS_MAX)), callers: Arc::default() }
    }
}

impl ReadTurns {
    /// The turns of `caller`, which all of their live queries share.
    pub fn of(&self, caller: CallerId) -> CallerTurns {
        let mut callers = self.callers.lock().expect("no code panics while it holds this lock");
        let own = callers.get(&caller).and_then(Weak::upgrade).unwrap_or_else(|| {
            let own = Arc::new(Semaphore::new(READS_OF_CALLER_MAX));
            callers.insert(caller, Arc::downgrade(&own));
            own
        });
        CallerTurns { caller, own, all: self.all.clone(), callers: self.callers.clone() }
    }
}

impl CallerTurns {
    /// Waits for a turn.
    pub async fn next(&self) -> ReadTurn {
        const NEVER_CLOSED: &str = "nobody closes the semaphore";
        // While it waits for those of its caller, it is not among those that wait for all.
        let own = self.own.clone().acquire_owned().await.expect(NEVER_CLOSED);
        let of_all = self.all.clone().acquire_owned().await.expect(NEVER_CLOSED);
        ReadTurn { _own: own, _of_all: of_all }
    }
}

impl Drop for CallerTurns {
    fn drop(&mut self) {
        let mut callers = self.callers.lock().expect("no code panics while it holds this lock");
        // Under the lock nobody else can begin to share them; turns that last hold them too.
        if Arc::strong_count(&self.own) == 1 {
            callers.remove(&self.caller);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn caller(name: &str) -> CallerId {
        CallerId::of("shop", name, None)
    }

    #[test]
    fn a_caller_with_many_reads_leaves_turns_to_others() {
        let turns = ReadTurns::default();
        let (one, again, other) = (turns.of(caller("ann")), turns.of(caller("ann")), turns.of(caller("bob")));
        let taken: Vec<_> = (0..READS_OF_CALLER_MAX).map(|_| one.next().now_or_never().expect("it is free")).collect();
        assert!(again.next().now_or_never().is_none(), "another live query of the same caller waits");
        assert!(other.next().now_or_never().is_some(), "another caller does not");
        drop(taken);
        assert!(again.next().now_or_never().is_some());
    }

    #[test]
    fn so_many_reads_are_made_at_once_and_nothing_is_kept_of_callers_that_left() {
        let turns = ReadTurns::default();
        let callers: Vec<_> = (0..=READS_MAX).map(|index| turns.of(caller(&index.to_string()))).collect();
        let next = |turns: &CallerTurns| turns.next().now_or_never();
        let mut taken: Vec<_> = callers[..READS_MAX].iter().map(|turns| next(turns).expect("it is free")).collect();
        assert!(next(&callers[READS_MAX]).is_none());
        taken.pop();
        assert!(next(&callers[READS_MAX]).is_some());
        drop((taken, callers));
        assert!(turns.callers.lock().unwrap().is_empty());
    }
}
