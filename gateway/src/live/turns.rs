//! Turns: so much is done at once for all callers, and less for one of them, so that one who asks for much does not hold up
//! the others.

use std::sync::{Arc, Mutex, Weak};

use foldhash::HashMap;
use futures::future::select_all;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::CallerId;

/// Callers who can have all the turns they may have at once.
const CALLERS_AT_ONCE: usize = 8;

type CallerMap = HashMap<CallerId, Weak<Semaphore>>;

/// Turns of a node.
pub struct NodeTurns {
    all: Arc<Semaphore>,
    /// How many one caller may have at once.
    of_caller: usize,
    callers: Arc<Mutex<CallerMap>>,
}

/// Turns of one caller. Whoever has a turn drops it before these, or a place of the caller is kept.
#[derive(Clone)]
pub struct CallerTurns {
    caller: CallerId,
    own: Arc<Semaphore>,
    all: Arc<Semaphore>,
    callers: Arc<Mutex<CallerMap>>,
}

/// A turn, until it is dropped.
pub struct Turn {
    _own: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl NodeTurns {
    /// So many at once.
    pub fn new(count: usize) -> Self {
        let all = Arc::new(Semaphore::new(count));
        Self { all, of_caller: (count / CALLERS_AT_ONCE).max(1), callers: Arc::default() }
    }

    /// The turns of `caller`, which all that they do shares.
    pub fn of(&self, caller: CallerId) -> CallerTurns {
        let mut callers = self.callers.lock().expect("no code panics while it holds this lock");
        let own = callers.get(&caller).and_then(Weak::upgrade).unwrap_or_else(|| {
            let own = Arc::new(Semaphore::new(self.of_caller));
            callers.insert(caller, Arc::downgrade(&own));
            own
        });
        CallerTurns { caller, own, all: self.all.clone(), callers: self.callers.clone() }
    }
}

#[cfg(test)]
impl NodeTurns {
    /// Whether nothing is kept of any caller.
    pub fn is_unused(&self) -> bool {
        self.callers.lock().unwrap().is_empty()
    }
}

impl CallerTurns {
    /// Waits for a turn.
    pub async fn next(&self) -> Turn {
        const NEVER_CLOSED: &str = "nobody closes the semaphore";
        // While it waits for those of its caller, it is not among those that wait for all.
        let own = self.own.clone().acquire_owned().await.expect(NEVER_CLOSED);
        let of_all = self.all.clone().acquire_owned().await.expect(NEVER_CLOSED);
        Turn { _own: own, _of_all: of_all }
    }
}

/// Waits for a turn of any of several callers, so that none waits for another who has none left; with whose it is, in the order in
/// which they are to be dropped.
pub async fn next_of_any(callers: Vec<CallerTurns>) -> Option<(Turn, CallerTurns)> {
    let mut each: Vec<CallerTurns> = Vec::with_capacity(1);
    for turns in callers {
        if !each.iter().any(|known| known.caller == turns.caller) {
            each.push(turns);
        }
    }
    if each.is_empty() {
        return None;
    }
    let (turn, index) = {
        let (turn, index, _others) = select_all(each.iter().map(|turns| Box::pin(turns.next()))).await;
        (turn, index)
    };
    Some((turn, each.swap_remove(index)))
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

    const TURNS: usize = 64;

    fn caller(name: &str) -> CallerId {
        CallerId::of("shop", name, None)
    }

    #[test]
    fn a_caller_who_asks_for_many_turns_leaves_some_to_others() {
        let turns = NodeTurns::new(TURNS);
        let (one, again, other) = (turns.of(caller("ann")), turns.of(caller("ann")), turns.of(caller("bob")));
        let taken: Vec<_> =
            (0..TURNS / CALLERS_AT_ONCE).map(|_| one.next().now_or_never().expect("it is free")).collect();
        assert!(again.next().now_or_never().is_none(), "another of the same caller waits");
        assert!(other.next().now_or_never().is_some(), "another caller does not");
        drop(taken);
        assert!(again.next().now_or_never().is_some());
    }

    #[test]
    fn a_turn_of_any_waits_for_no_caller_without_one() {
        let turns = NodeTurns::new(TURNS);
        let (one, other) = (turns.of(caller("ann")), turns.of(caller("bob")));
        let taken: Vec<_> =
            (0..TURNS / CALLERS_AT_ONCE).map(|_| one.next().now_or_never().expect("it is free")).collect();
        let any = || next_of_any(vec![one.clone(), one.clone(), other.clone()]).now_or_never();
        let (turn, whose) = any().expect("another has one").expect("there are callers");
        assert!(whose.caller == other.caller);
        assert!(next_of_any(vec![one.clone()]).now_or_never().is_none());
        assert!(next_of_any(Vec::new()).now_or_never().expect("there is nothing to wait for").is_none());
        drop((taken, one, other));
        assert!(!turns.is_unused(), "who has a turn is kept");
        drop((turn, whose));
        assert!(turns.is_unused());
    }

    #[test]
    fn so_many_have_turns_at_once_and_nothing_is_kept_of_callers_that_left() {
        let turns = NodeTurns::new(TURNS);
        let callers: Vec<_> = (0..=TURNS).map(|index| turns.of(caller(&index.to_string()))).collect();
        let next = |turns: &CallerTurns| turns.next().now_or_never();
        let mut taken: Vec<_> = callers[..TURNS].iter().map(|turns| next(turns).expect("it is free")).collect();
        assert!(next(&callers[TURNS]).is_none());
        taken.pop();
        assert!(next(&callers[TURNS]).is_some());
        drop((taken, callers));
        assert!(turns.is_unused());
    }
}
