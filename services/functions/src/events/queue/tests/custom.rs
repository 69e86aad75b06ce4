//! Custom events: made once for a name, and not before they are due.

use super::*;
use crate::events::queue::{
    crowd::NAMES_MAX,
    custom::{Queued, RequestName},
};

on_both!(
    a_request_with_a_name_is_made_once_a_day,
    what_is_delayed_is_not_early_and_its_attempts_count_from_then,
    what_follows_is_durable_with_what_became_of_its_event,
    names_are_looked_up_counted_and_forgotten_in_batches,
    what_is_delayed_is_counted_apart_and_at_once,
);

const DAY: i64 = 86_400_000;

fn name(name: &str, types: &[&str], request: &[u8]) -> RequestName {
    let types = types.iter().map(|one| (*one).to_owned()).collect();
    RequestName {
        project: "shop".to_owned(),
        types,
        name: name.to_owned(),
        request: request.to_vec(),
        awaited: vec!["x".to_owned()],
    }
}

async fn a_request_with_a_name_is_made_once_a_day(place: Place) {
    let queue = place.open().await;
    let add =
        async |id: &str, name: &RequestName, now_ms| queue.add(&[event(id, None)], Some(name), now_ms).await.unwrap();
    let first = name("k", &["order", "other"], b"1");
    assert_eq!(add("e1", &first, 0).await, Queued::New(1));
    assert_eq!(add("e2", &first, DAY).await, Queued::Known(vec!["x".to_owned()]));
    assert_eq!(add("e3", &name("k", &["order"], b"2"), 1).await, Queued::Conflict);
    assert_eq!(add("e4", &name("k", &["third", "other"], b"3"), 1).await, Queued::Conflict);
    assert_eq!(add("e5", &name("k", &["third"], b"3"), 1).await, Queued::New(1), "what failed left nothing");
    assert_eq!(add("e6", &name("l", &["order"], b"2"), 1).await, Queued::New(1));
    let other = RequestName { project: "q".to_owned(), ..name("k", &["order"], b"2") };
    assert_eq!(add("e7", &other, 1).await, Queued::New(1));
    assert_eq!(add("e8", &name("k", &["order"], b"2"), DAY + 1).await, Queued::New(1), "a day is over");
    assert!(!queue.forget_requests(3 * DAY).await.unwrap());
    assert_eq!(add("e9", &name("l", &["order"], b"7"), 2).await, Queued::New(1), "old names are forgotten");
    assert_eq!(queue.add(&[event("e10", None)], None, 0).await.unwrap(), Queued::New(1));
    let mut ids: Vec<String> = lease(&queue, 100, 3 * DAY).await.0.into_iter().map(|lease| lease.id).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["e1", "e10", "e5", "e6", "e7", "e8", "e9"]);
}

async fn what_is_delayed_is_not_early_and_its_attempts_count_from_then(place: Place) {
    let queue = place.open().await;
    let delayed = NewEvent { due_ms: Some(5000), ..event("later", None) };
    let past = NewEvent { due_ms: Some(-5000), ..event("now", None) };
    queue.add(&[delayed, past], None, 1000).await.unwrap();
    let (leases, next) = lease(&queue, 9, 4999).await;
    assert_eq!((leases.len(), leases[0].id.as_str(), next), (1, "now", Some(5000)));
    // A clock that is set back leaves a moment as it is.
    queue.follow_clock(4999).await.unwrap();
    assert_eq!(queue.follow_clock(1000).await.unwrap(), 3999);
    assert!(lease(&queue, 9, 4999).await.0.is_empty());
    let (leases, _) = lease(&queue, 9, 6000).await;
    assert_eq!((leases[0].id.as_str(), leases[0].since_ms, leases[0].attempts), ("later", 5000, 1));
}

async fn what_follows_is_durable_with_what_became_of_its_event(place: Place) {
    let queue = place.open().await;
    let awaited = NewEvent { is_awaited: true, budget: 9, ..event("first", None) };
    queue.add(&[awaited], None, 0).await.unwrap();
    let (leases, _) = lease(&queue, 9, 0).await;
    assert_eq!((leases[0].budget, leases[0].awaited), (9, 1));
    let outcomes = async || queue.outcomes(&["first".to_owned(), "gone".to_owned()]).await.unwrap();
    assert_eq!(outcomes().await[0].status, "running");
    let end = |follow: &str, attempts| EndedAttempt {
        lease: Lease { attempts, ..leases[0].clone() },
        response: Some("{}".into()),
        follows: vec![event(follow, Some("k")), event(&format!("{follow}2"), Some("k"))],
        code: Some(200),
        ..ended(&leases[0], Fate::Processed)
    };
    // Another attempt had the event: nothing follows.
    let late = queue.end(&[end("late", 7)], 1).await.unwrap();
    assert_eq!((late.attempts, late.follows), (0, 0));
    let ends = queue.end(&[end("next", 1)], 1).await.unwrap();
    assert_eq!((ends.attempts, ends.follows), (1, 2));
    let outcome = outcomes().await.remove(0);
    assert_eq!(
        (outcome.status.as_str(), outcome.code, outcome.response.as_deref()),
        ("processed", Some(200), Some(&b"{}"[..]))
    );
    let ids: Vec<String> = lease(&queue, 9, 1).await.0.into_iter().map(|lease| lease.id).collect();
    assert_eq!(ids, ["next"], "the second one of its key waits");
}

async fn names_are_looked_up_counted_and_forgotten_in_batches(place: Place) {
    let queue = place.open().await;
    let types: Vec<String> = (0..1001).map(|id| format!("t{id:04}")).collect();
    let many = RequestName { types, ..name("k", &[], b"1") };
    assert_eq!(queue.known(&many, 0).await.unwrap(), None);
    queue.add(&[event("e1", None)], Some(&many), 0).await.unwrap();
    assert_eq!(queue.known(&many, DAY).await.unwrap(), Some(Queued::Known(vec!["x".to_owned()])));
    assert_eq!(queue.known(&name("k", &["t0007"], b"2"), DAY).await.unwrap(), Some(Queued::Conflict));
    assert_eq!(queue.known(&many, DAY + 1).await.unwrap(), None, "a day is over");
    let full = [("shop".to_owned(), NAMES_MAX - 1)];
    queue.crowd().count_names(full.clone().into_iter());
    assert!(!queue.has_many_names("shop"));
    queue.add(&[event("e2", None)], Some(&name("l", &["order"], b"1")), 1).await.unwrap();
    assert!(queue.has_many_names("shop"), "it counts at once");
    queue.count_requests().await.unwrap();
    assert!(!queue.has_many_names("shop"));
    assert!(queue.forget_requests(DAY + 1).await.unwrap(), "1000 of them");
    assert!(!queue.forget_requests(DAY + 1).await.unwrap());
    assert_eq!(queue.known(&many, 1).await.unwrap(), None);
    assert!(queue.known(&name("l", &["order"], b"1"), 1).await.unwrap().is_some(), "it is not old");
}

async fn what_is_delayed_is_counted_apart_and_at_once(place: Place) {
    let queue = place.open().await;
    let delayed = |id: usize| NewEvent { due_ms: Some(5000), ..event(&format!("e{id}"), None) };
    let crowded = || [queue.is_crowded(&trigger("a")), queue.has_many_delayed(&trigger("a"))];
    queue.crowd().add(&vec![delayed(0); 99_980], 0);
    queue.add(&(1..20).map(delayed).collect::<Vec<_>>(), None, 0).await.unwrap();
    assert_eq!(crowded(), [false, false]);
    queue.add(&[delayed(20)], None, 0).await.unwrap();
    assert_eq!(crowded(), [false, true], "it counts at once, and keeps no others away");
    let bounds = WaitingBounds { events: 15, bytes: i64::MAX, due_ms: 0 };
    assert_eq!(queue.give_up(bounds, 4999).await.unwrap(), 0, "nothing is due");
    assert_eq!(crowded(), [false, false], "they were counted");
    assert_eq!(queue.give_up(bounds, 5000).await.unwrap(), 5);
}
