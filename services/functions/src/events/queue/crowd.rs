//! How much there is in the queue, by which callers are told to come later: what is given up for being too much is never for
//! what a stranger sends.
//!
//! Counted by the upkeep, and raised at once by what is added. Events that are delayed are counted apart: one caller, who may
//! delay for a year, keeps no others away.

use std::collections::HashMap;

use super::{NewEvent, TriggerKey};

/// Events of a trigger that are due, and bytes of their messages, from which on callers queue no more.
const DUE: Amount = Amount { events: 500_000, bytes: 4 << 30 };
/// The same of events that are delayed.
const DELAYED: Amount = Amount { events: 100_000, bytes: 1 << 30 };
/// Names of requests of a project, from which on callers give no more.
pub const NAMES_MAX: i64 = 1_000_000;

/// What there is.
#[derive(Debug, Default)]
pub struct Crowd {
    waiting: HashMap<TriggerKey, Waiting>,
    /// Names of requests of projects.
    names: HashMap<String, i64>,
}

/// Events of a trigger that wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Those that are due, or were attempted.
    pub due: Amount,
    /// Those that are not due yet.
    pub delayed: Amount,
}

/// Events, and bytes of their messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// How many.
    pub events: i64,
    /// Their bytes.
    pub bytes: i64,
}

impl Amount {
    fn reaches(self, Self { events, bytes }: Self) -> bool {
        self.events >= events || self.bytes >= bytes
    }
}

impl Crowd {
    /// The events were counted.
    pub fn count_events(&mut self, counts: impl Iterator<Item = (TriggerKey, Waiting)>) {
        self.waiting = counts.collect();
    }

    /// The names of requests were counted.
    pub fn count_names(&mut self, counts: impl Iterator<Item = (String, i64)>) {
        self.names = counts.collect();
    }

    /// Events were added.
    pub fn add(&mut self, events: &[NewEvent], now_ms: i64) {
        for event in events {
            let Ok(body) = &event.body else { continue };
            let waiting = self.waiting.entry(event.trigger.clone()).or_default();
            let amount = match event.due_ms.is_some_and(|due_ms| due_ms > now_ms) {
                true => &mut waiting.delayed,
                false => &mut waiting.due,
            };
            amount.events += 1;
            amount.bytes += i64::try_from(body.len()).unwrap_or(i64::MAX);
        }
    }

    /// Names of a project were added.
    pub fn add_names(&mut self, project: &str, count: usize) {
        *self.names.entry(project.to_owned()).or_default() += i64::try_from(count).unwrap_or(i64::MAX);
    }

    /// Whether so much of a trigger is due that callers queue no more.
    pub fn is_full(&self, trigger: &TriggerKey) -> bool {
        self.waiting.get(trigger).is_some_and(|waiting| waiting.due.reaches(DUE))
    }

    /// Whether so much of a trigger is delayed that callers delay no more.
    pub fn has_many_delayed(&self, trigger: &TriggerKey) -> bool {
        self.waiting.get(trigger).is_some_and(|waiting| waiting.delayed.reaches(DELAYED))
    }

    /// Whether there are so many names of a project that callers give no more.
    pub fn has_many_names(&self, project: &str) -> bool {
        self.names.get(project).is_some_and(|count| *count >= NAMES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::followup::BUDGET;

    fn trigger(id: &str) -> TriggerKey {
        TriggerKey { project: "shop".into(), id: id.into() }
    }

    fn event(id: &str, due_ms: Option<i64>) -> NewEvent {
        NewEvent {
            id: "e".to_owned(),
            trigger: trigger(id),
            r#type: "order".into(),
            due_ms,
            body: Ok(b"{}".to_vec()),
            order_key: None,
            budget: BUDGET,
            is_awaited: false,
        }
    }

    #[test]
    fn what_is_delayed_keeps_nothing_else_away_and_what_is_added_counts_at_once() {
        let mut crowd = Crowd::default();
        let of = |crowd: &Crowd| {
            [crowd.is_full(&trigger("a")), crowd.has_many_delayed(&trigger("a")), crowd.is_full(&trigger("b"))]
        };
        crowd.add(&vec![event("a", Some(9)); 99_999], 1);
        assert_eq!(of(&crowd), [false, false, false]);
        crowd.add(&[event("a", Some(9))], 1);
        assert_eq!(of(&crowd), [false, true, false]);
        let nearly = Waiting { due: Amount { events: 499_999, bytes: 0 }, ..Waiting::default() };
        crowd.count_events([(trigger("a"), nearly)].into_iter());
        assert_eq!(of(&crowd), [false, false, false], "they were counted anew");
        crowd.add(&[event("a", Some(1))], 1);
        assert_eq!(of(&crowd), [true, false, false]);
        let large = Waiting { delayed: Amount { events: 1, bytes: 1 << 30 }, ..Waiting::default() };
        crowd.count_events([(trigger("a"), large)].into_iter());
        assert_eq!(of(&crowd), [false, true, false]);
    }

    #[test]
    fn names_of_requests_are_bounded_for_each_project() {
        let mut crowd = Crowd::default();
        crowd.count_names([("shop".to_owned(), NAMES_MAX - 1)].into_iter());
        assert!(!crowd.has_many_names("shop"));
        crowd.add_names("shop", 1);
        assert!(crowd.has_many_names("shop") && !crowd.has_many_names("other"));
    }
}
