//! In-flight limit of a worker: the calls of all nodes together that it has, and those that wait for it.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use proto::functions::Invocation;

use super::WorkerCall;

/// The calls of one worker. Each node sends no more than its share of them.
pub struct CallWindow {
    capacity: usize,
    /// By the ids that the worker knows: the link and the id there.
    running: HashMap<String, (u64, String)>,
    /// In order of arrival.
    held: VecDeque<HeldCall>,
}

struct HeldCall {
    link: u64,
    call: Invocation,
    deadline: Instant,
}

impl CallWindow {
    /// No calls yet, and room for so many.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, running: HashMap::new(), held: VecDeque::new() }
    }

    /// A call has come over `link`.
    pub fn hold(&mut self, link: u64, call: Invocation) {
        let deadline = Instant::now() + Duration::from_millis(call.timeout_ms);
        self.held.push_back(HeldCall { link, call, deadline });
    }

    /// The next call for which there is room. The worker knows it by an id that others cannot guess.
    pub fn take(&mut self) -> Option<WorkerCall> {
        if self.running.len() >= self.capacity {
            return None;
        }
        let HeldCall { link, call, deadline } = self.held.pop_front()?;
        let Invocation { id: node_id, function, params, claims, .. } = call;
        let id = format!("{:032x}", rand::random::<u128>());
        self.running.insert(id.clone(), (link, node_id));
        let left = deadline.saturating_duration_since(Instant::now());
        Some(WorkerCall { id, function, params, claims, left })
    }

    /// The worker has answered the call with this id: its link and its id there; `None` where it has no such call.
    pub fn answered(&mut self, id: &str) -> Option<(u64, String)> {
        self.running.remove(id)
    }

    /// Nobody waits any more for a call of `link`: the id that the worker knows, if it has the call.
    pub fn cancelled(&mut self, link: u64, node_id: &str) -> Option<String> {
        self.held.retain(|held| held.link != link || held.call.id != node_id);
        let is_it = |(_, of): &(&String, &(u64, String))| of.0 == link && of.1 == node_id;
        let id = self.running.iter().find(is_it).map(|(id, _)| id.clone())?;
        self.running.remove(&id);
        Some(id)
    }

    /// Nobody waits any more for the calls of `link`: the ids of those that the worker has.
    pub fn link_ended(&mut self, link: u64) -> Vec<String> {
        self.held.retain(|held| held.link != link);
        self.running.extract_if(|_, of| of.0 == link).map(|(id, _)| id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(id: &str) -> Invocation {
        Invocation { id: id.to_owned(), function: format!("of {id}"), timeout_ms: 5000, ..Invocation::default() }
    }

    fn functions(calls: &mut CallWindow) -> Vec<WorkerCall> {
        std::iter::from_fn(|| calls.take()).collect()
    }

    #[test]
    fn calls_of_all_links_share_the_room_in_order() {
        let mut calls = CallWindow::new(2);
        for (link, id) in [(1, "a"), (2, "a"), (1, "b"), (2, "b"), (2, "c")] {
            calls.hold(link, call(id));
        }
        let first = functions(&mut calls);
        assert_eq!(first.len(), 2, "two at once");
        assert!(first.iter().all(|call| call.function == "of a" && call.left <= Duration::from_secs(5)));
        assert_ne!(first[0].id, first[1].id);
        // What is answered is that call of that link.
        assert_eq!(calls.answered(&first[1].id), Some((2, "a".to_owned())));
        assert_eq!(calls.answered(&first[1].id), None, "once");
        assert_eq!(calls.answered("a"), None);
        let second = functions(&mut calls);
        assert_eq!(second.iter().map(|call| call.function.as_str()).collect::<Vec<_>>(), ["of b"]);
        // One that waits is left out, one that runs is told.
        assert_eq!(calls.cancelled(2, "b"), None);
        assert_eq!(calls.cancelled(2, "a"), None, "it was answered");
        assert_eq!(calls.cancelled(1, "a").as_ref(), Some(&first[0].id));
        let third = functions(&mut calls);
        assert_eq!(third.iter().map(|call| call.function.as_str()).collect::<Vec<_>>(), ["of c"]);
    }

    #[test]
    fn a_link_that_ends_takes_its_calls_along() {
        let mut calls = CallWindow::new(1);
        for (link, id) in [(1, "a"), (1, "b"), (2, "c")] {
            calls.hold(link, call(id));
        }
        let first = functions(&mut calls);
        assert_eq!(calls.link_ended(1), [first[0].id.clone()]);
        assert_eq!(functions(&mut calls)[0].function, "of c");
    }
}
