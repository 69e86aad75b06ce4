//! The queue, in a file and in PostgreSQL: nothing is lost, nothing is delivered twice at once, and what is late changes
//! nothing.

mod custom;
mod file;

use std::{
    collections::HashSet,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use mesh::config::{PostgresQueue, QueueConfig, Secret};

use super::{
    FollowedTable, Holder, NewEvent, Queue, QueueError, TakenPosition, TriggerKey,
    delivery::{EndedAttempt, Fate, Lease, LeaseRequest},
    operate::{BATCH, EventFilter, EventStatus},
    store::Statement,
    upkeep::WaitingBounds,
};

/// Each scenario in a file, and in PostgreSQL where `TEST_POSTGRES_URL` is its URL.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod in_a_file {
            $(#[tokio::test] async fn $name() { super::$name(super::Place::file()).await; })*
        }
        mod in_postgres {
            $(#[tokio::test] async fn $name() {
                if let Some(place) = super::Place::postgres() {
                    super::$name(place).await;
                }
            })*
        }
    };
}
pub(crate) use on_both;

on_both!(
    events_and_the_position_are_durable_together_and_once,
    an_event_is_leased_to_one_and_what_is_late_changes_nothing,
    what_a_process_gives_up_is_due_at_once,
    retries_are_due_later,
    events_of_one_key_are_delivered_one_after_the_other,
    an_event_that_is_replayed_waits_for_one_of_its_key_that_is_being_delivered,
    keys_go_on_whatever_becomes_of_their_first_event,
    messages_are_taken_up_to_their_bytes,
    a_probe_is_drawn_by_lot,
    events_do_not_wait_forever_nor_without_number,
    a_clock_that_was_set_back_delays_no_retry,
    events_of_triggers_that_are_gone_are_dead_letters_that_can_be_replayed,
    operators_choose_what_is_replayed_and_removed,
    many_events_are_changed_in_batches,
);

/// Where a queue is, until this is dropped.
pub struct Place {
    folder: tempfile::TempDir,
    config: QueueConfig,
}

impl Place {
    /// A file of its own.
    pub fn file() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), config: QueueConfig::File {} }
    }

    /// A schema of its own; `None`, and a word about it, where there is no server and none is demanded.
    pub fn postgres() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let Ok(url) = std::env::var("TEST_POSTGRES_URL") else {
            assert!(std::env::var_os("CI").is_none(), "TEST_POSTGRES_URL names no server");
            eprintln!("skipped on PostgreSQL: TEST_POSTGRES_URL names no server");
            return None;
        };
        let unique = format!("queue_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let server = PostgresQueue { url: Secret(url), schema: unique, connections: 4 };
        Some(Self { folder: tempfile::tempdir().unwrap(), config: QueueConfig::Postgres(Box::new(server)) })
    }

    /// The queue for a node.
    pub async fn open(&self) -> Queue {
        Queue::open(&self.config, self.folder.path()).await.unwrap()
    }

    /// The queue with events of a table that is followed.
    async fn with(&self, events: &[NewEvent]) -> Queue {
        let queue = self.open().await;
        assert!(queue.hold(&table(), None).await.unwrap());
        queue.take(&table(), &position(b"1"), events, 0).await.unwrap();
        queue
    }
}

fn table() -> FollowedTable {
    FollowedTable { project: "shop".into(), database: "music".into(), table: "invoice".into() }
}

fn trigger(id: &str) -> TriggerKey {
    TriggerKey { project: "shop".into(), id: id.into() }
}

fn position(log: &'static [u8]) -> TakenPosition {
    TakenPosition { log: log.into(), transaction: u64::MAX, changes: 7 }
}

fn event(id: &str, order_key: Option<&str>) -> NewEvent {
    NewEvent {
        id: id.to_owned(),
        trigger: trigger("a"),
        r#type: "DB_INSERT".into(),
        due_ms: None,
        body: Ok(b"{}".to_vec()),
        order_key: order_key.map(|key| key.as_bytes().to_vec()),
        budget: 0,
        is_awaited: false,
    }
}

async fn lease(queue: &Queue, count: usize, now_ms: i64) -> (Vec<Lease>, Option<i64>) {
    let trigger = trigger("a");
    let request = LeaseRequest { trigger: &trigger, count, time: Duration::from_secs(1), is_probe: false };
    let leased = queue.lease(&[request], usize::MAX, now_ms).await.unwrap().remove(0);
    (leased.leases, leased.next_due_ms)
}

fn ids(leases: &[Lease]) -> Vec<&str> {
    leases.iter().map(|lease| lease.id.as_str()).collect()
}

fn ended(lease: &Lease, fate: Fate) -> EndedAttempt {
    let (trigger, lease, last) = (trigger("a"), lease.clone(), "ok".to_owned());
    EndedAttempt { trigger, lease, fate, code: Some(200), last, response: None, follows: Vec::new() }
}

async fn status(queue: &Queue, id: &str) -> (String, i64) {
    let filter = EventFilter { ids: vec![id.to_owned()], ..EventFilter::default() };
    let event = queue.list(&filter, 0).await.unwrap().remove(0);
    (event.status, event.attempts)
}

async fn events_and_the_position_are_durable_together_and_once(place: Place) {
    let queue = place.open().await;
    assert_eq!(queue.position(&table()).await.unwrap(), None);
    assert!(matches!(queue.take(&table(), &position(b"1"), &[event("e1", None)], 5).await, Err(QueueError::Lost)));
    assert!(lease(&queue, 9, 6).await.0.is_empty(), "who does not follow a table writes nothing");
    assert!(queue.hold(&table(), None).await.unwrap());
    assert_eq!(queue.take(&table(), &position(b"1"), &[event("e1", None), event("e2", None)], 5).await.unwrap(), 2);
    assert_eq!(queue.take(&table(), &position(b"2"), &[event("e2", None), event("e3", None)], 6).await.unwrap(), 1);
    let many: Vec<NewEvent> = (0..200).map(|id| event(&format!("m{id:03}"), None)).collect();
    assert_eq!(queue.take(&table(), &position(b"3"), &many, 7).await.unwrap(), 200);
    queue.release().await.unwrap();
    drop(queue);

    let queue = place.open().await;
    assert_eq!(queue.position(&table()).await.unwrap(), Some(position(b"3")));
    assert_eq!(queue.tables().await.unwrap(), [(table(), Holder { owner: 0, beat: 3 })]);
    let (leases, _) = lease(&queue, 300, 7).await;
    assert_eq!((ids(&leases)[..4].to_vec(), leases.len()), (vec!["e1", "e2", "e3", "m000"], 203));
    assert!(leases.is_sorted_by_key(|lease| &lease.id));
    queue.forget(&table()).await.unwrap();
    assert!(queue.position(&table()).await.unwrap().is_some(), "it is not followed");
    assert!(queue.hold(&table(), None).await.unwrap());
    queue.forget(&table()).await.unwrap();
    assert_eq!(queue.position(&table()).await.unwrap(), None);
}

async fn an_event_is_leased_to_one_and_what_is_late_changes_nothing(place: Place) {
    let queue = place.with(&[event("e1", None)]).await;
    let (first, next_due) = lease(&queue, 2, 0).await;
    assert_eq!((ids(&first), next_due, first[0].attempts), (vec!["e1"], None, 1));
    assert!(lease(&queue, 2, 500).await.0.is_empty(), "it is leased");

    let running = queue.running().await.unwrap();
    assert_eq!((running.len(), running[0].attempts, running[0].lease_ms), (1, 1, 1000));
    assert!(queue.is_own(&running[0]));
    assert_eq!(queue.expire(&running).await.unwrap(), 1);
    let (second, _) = lease(&queue, 2, 1001).await;
    assert_eq!(second[0].attempts, 2);
    assert_eq!(queue.expire(&running).await.unwrap(), 0, "it is another lease");
    assert_eq!(queue.end(&[ended(&first[0], Fate::Failed)], 1002).await.unwrap().attempts, 0);
    assert_eq!(status(&queue, "e1").await, ("running".to_owned(), 2));
    assert_eq!(queue.end(&[ended(&second[0], Fate::Processed)], 1003).await.unwrap().attempts, 1);
    assert_eq!(queue.end(&[ended(&second[0], Fate::Retried { due_ms: 0 })], 1004).await.unwrap().attempts, 0);
    assert_eq!(status(&queue, "e1").await, ("processed".to_owned(), 2));
    assert!(lease(&queue, 2, i64::MAX / 2).await.0.is_empty(), "it is never delivered again");
}

async fn what_a_process_gives_up_is_due_at_once(place: Place) {
    let queue = place.with(&[event("e1", None), event("e2", None)]).await;
    assert_eq!(lease(&queue, 9, 0).await.0.len(), 2);
    queue.release().await.unwrap();
    let (again, _) = lease(&queue, 9, 0).await;
    assert_eq!((ids(&again), again[0].attempts), (vec!["e1", "e2"], 2));
}

async fn retries_are_due_later(place: Place) {
    let queue = place.with(&[event("e1", None)]).await;
    let (leases, _) = lease(&queue, 1, 0).await;
    queue.end(&[ended(&leases[0], Fate::Retried { due_ms: 700 })], 10).await.unwrap();
    assert_eq!(lease(&queue, 1, 699).await, (vec![], Some(700)));
    assert_eq!(ids(&lease(&queue, 1, 700).await.0), ["e1"]);
}

async fn events_of_one_key_are_delivered_one_after_the_other(place: Place) {
    let all = [event("a1", Some("a")), event("a2", Some("a")), event("b1", Some("b")), event("x", None)];
    let queue = place.with(&all).await;
    let (leases, _) = lease(&queue, 9, 0).await;
    assert_eq!(ids(&leases), ["a1", "b1", "x"]);
    queue.end(&[ended(&leases[0], Fate::Retried { due_ms: 50 })], 1).await.unwrap();
    assert!(lease(&queue, 9, 10).await.0.is_empty(), "a2 waits for a1, which is tried again");
    let (leases, _) = lease(&queue, 9, 50).await;
    assert_eq!(ids(&leases), ["a1"]);
    queue.take(&table(), &position(b"2"), &[event("a3", Some("a"))], 50).await.unwrap();
    queue.end(&[ended(&leases[0], Fate::Failed)], 51).await.unwrap();
    let (leases, _) = lease(&queue, 9, 51).await;
    assert_eq!(ids(&leases), ["a2"]);
    queue.end(&[ended(&leases[0], Fate::Processed)], 52).await.unwrap();
    let (leases, _) = lease(&queue, 9, 52).await;
    queue.end(&[ended(&leases[0], Fate::Processed)], 53).await.unwrap();
    assert_eq!(ids(&leases), ["a3"]);
    queue.take(&table(), &position(b"3"), &[event("a4", Some("a"))], 54).await.unwrap();
    assert_eq!(ids(&lease(&queue, 9, 54).await.0), ["a4"], "nothing is before it any more");
}

async fn an_event_that_is_replayed_waits_for_one_of_its_key_that_is_being_delivered(place: Place) {
    let queue = place.with(&[event("a1", Some("a")), event("a2", Some("a"))]).await;
    let (leases, _) = lease(&queue, 9, 0).await;
    queue.end(&[ended(&leases[0], Fate::Failed)], 1).await.unwrap();
    let (second, _) = lease(&queue, 9, 1).await;
    assert_eq!(ids(&second), ["a2"]);
    let failed = EventFilter { status: Some(EventStatus::Failed), ..EventFilter::default() };
    assert_eq!(queue.replay(&failed, 2).await.unwrap(), 1);
    assert!(lease(&queue, 9, 2).await.0.is_empty());
    queue.end(&[ended(&second[0], Fate::Processed)], 3).await.unwrap();
    assert_eq!(ids(&lease(&queue, 9, 3).await.0), ["a1"]);
}

async fn keys_go_on_whatever_becomes_of_their_first_event(place: Place) {
    let all: Vec<NewEvent> = (1..=4).map(|id| event(&format!("a{id}"), Some("a"))).collect();
    let queue = place.with(&all).await;
    let of = |id: &str| EventFilter { ids: vec![id.to_owned()], ..EventFilter::default() };
    assert_eq!(queue.purge(&of("a1")).await.unwrap(), 1);
    let bounds = WaitingBounds { events: 2, bytes: i64::MAX, due_ms: 0 };
    assert_eq!(queue.give_up(bounds, 1).await.unwrap(), 1);
    let (leases, _) = lease(&queue, 9, 1).await;
    assert_eq!(ids(&leases), ["a3"]);
    queue.expire(&queue.running().await.unwrap()).await.unwrap();
    let (leases, _) = lease(&queue, 9, 1).await;
    assert_eq!(ids(&leases), ["a3"], "it is the first still");
    queue.release().await.unwrap();
    assert_eq!(ids(&lease(&queue, 9, 1).await.0), ["a3"]);
}

async fn messages_are_taken_up_to_their_bytes(place: Place) {
    let all = ["e1", "e2", "e3"].map(|id| NewEvent { body: Ok(vec![b'x'; 100]), ..event(id, None) });
    let queue = place.with(&all).await;
    let trigger = trigger("a");
    for (bytes, expected) in [(0, vec![]), (101, vec!["e1", "e2"]), (1, vec!["e3"])] {
        let request = LeaseRequest { trigger: &trigger, count: 9, time: Duration::from_secs(1), is_probe: false };
        let leased = queue.lease(&[request], bytes, 0).await.unwrap().remove(0);
        assert_eq!(ids(&leased.leases), expected, "{bytes}");
    }
}

async fn a_probe_is_drawn_by_lot(place: Place) {
    let queue = place.with(&["e1", "e2", "e3"].map(|id| event(id, None))).await;
    let trigger = trigger("a");
    let mut drawn = HashSet::new();
    for _ in 0..200 {
        let probe = LeaseRequest { trigger: &trigger, count: 1, time: Duration::from_secs(1), is_probe: true };
        let mut leased = queue.lease(&[probe], 100, 0).await.unwrap().remove(0);
        let lease = leased.leases.pop().expect("all are due");
        assert!(leased.leases.is_empty(), "one is asked for");
        drawn.insert(lease.id.clone());
        queue.end(&[ended(&lease, Fate::Retried { due_ms: 0 })], 0).await.unwrap();
    }
    assert_eq!(drawn.len(), 3);
}

async fn events_do_not_wait_forever_nor_without_number(place: Place) {
    let queue = place.with(&["e1", "e2", "e3", "e4"].map(|id| event(id, None))).await;
    let bounds = |events, bytes, due_ms| WaitingBounds { events, bytes, due_ms };
    assert_eq!(queue.give_up(bounds(4, 8, 0), 5).await.unwrap(), 0);
    assert_eq!(queue.give_up(bounds(3, 8, 0), 5).await.unwrap(), 1);
    assert_eq!(status(&queue, "e1").await.0, "failed");
    assert_eq!(queue.give_up(bounds(3, 5, 0), 5).await.unwrap(), 1, "messages of 2 bytes: 6 are too many");
    assert_eq!(status(&queue, "e2").await.0, "failed");
    assert_eq!(queue.pending().await.unwrap(), 2);
    assert_eq!(queue.give_up(bounds(3, 8, 1), 5).await.unwrap(), 2);
    assert_eq!(queue.pending().await.unwrap(), 0);
}

async fn a_clock_that_was_set_back_delays_no_retry(place: Place) {
    let queue = place.with(&[event("e1", None)]).await;
    let (leases, _) = lease(&queue, 1, 10_000).await;
    queue.end(&[ended(&leases[0], Fate::Retried { due_ms: 10_100 })], 10_000).await.unwrap();
    assert_eq!(queue.follow_clock(10_000).await.unwrap(), 0);
    assert_eq!(queue.follow_clock(9_000).await.unwrap(), 0, "no step is so short");
    assert_eq!(queue.follow_clock(1000).await.unwrap(), 9000);
    assert_eq!(queue.follow_clock(1001).await.unwrap(), 0, "of several nodes one sees it");
    assert_eq!(lease(&queue, 1, 1001).await, (vec![], Some(1100)));
    assert_eq!(ids(&lease(&queue, 1, 1100).await.0), ["e1"]);
}

async fn events_of_triggers_that_are_gone_are_dead_letters_that_can_be_replayed(place: Place) {
    let queue = place.with(&[event("e1", None)]).await;
    assert_eq!(queue.waiting().await.unwrap(), [(trigger("a"), 0)]);
    queue.serve(&HashSet::from([trigger("a"), trigger("b")])).await.unwrap();
    queue.serve(&HashSet::from([trigger("a")])).await.unwrap();
    assert_eq!(queue.waiting().await.unwrap(), [(trigger("a"), 2)]);
    assert_eq!(queue.fail_trigger(&trigger("b"), 1).await.unwrap(), 0);
    assert_eq!(queue.fail_trigger(&trigger("a"), 1).await.unwrap(), 1);
    let failed = EventFilter { status: Some(EventStatus::Failed), ..EventFilter::default() };
    let listed = queue.list(&failed, 0).await.unwrap();
    assert_eq!((listed.len(), listed[0].last.as_str()), (1, "trigger not found"));
    assert!(queue.list(&failed, listed[0].seq).await.unwrap().is_empty());
    assert_eq!(queue.replay(&failed, 9).await.unwrap(), 1);
    let (leases, _) = lease(&queue, 9, 9).await;
    assert_eq!((leases[0].attempts, leases[0].since_ms), (1, 9));
}

async fn operators_choose_what_is_replayed_and_removed(place: Place) {
    let too_large = NewEvent { body: Err("over the limit".to_owned()), ..event("large", Some("a")) };
    let queue = place.with(&[event("e1", None), event("e2", None), too_large]).await;
    let of = |id: &str| EventFilter { ids: vec![id.to_owned()], ..EventFilter::default() };
    assert_eq!(status(&queue, "large").await, ("failed".to_owned(), 0));
    assert_eq!(queue.replay(&of("large"), 1).await.unwrap(), 0, "there is nothing to deliver");
    assert_eq!(queue.replay(&of("e1"), 1).await.unwrap(), 0, "it is not finished");
    let unknown = queue.replay(&of("e9"), 1).await.unwrap_err();
    assert_eq!(unknown.to_string(), "event e9 does not exist");
    let two = EventFilter { ids: vec!["e1".to_owned(), "e2".to_owned()], ..EventFilter::default() };
    assert_eq!(queue.list(&two, 0).await.unwrap().len(), 2);
    let (leases, _) = lease(&queue, 1, 0).await;
    let all = EventFilter { project: Some("shop".to_owned()), trigger: Some("a".to_owned()), ..EventFilter::default() };
    assert_eq!(queue.purge(&EventFilter { project: Some("other".to_owned()), ..all.clone() }).await.unwrap(), 0);
    assert_eq!(queue.purge(&all).await.unwrap(), 2, "e1 is being delivered");
    queue.end(&[ended(&leases[0], Fate::Processed)], 5).await.unwrap();
    assert!(!queue.prune("processed", 5).await.unwrap());
    assert_eq!(status(&queue, "e1").await.0, "processed");
    queue.prune("processed", 6).await.unwrap();
    assert!(queue.list(&all, 0).await.unwrap().is_empty());
}

async fn many_events_are_changed_in_batches(place: Place) {
    let count = usize::try_from(BATCH).unwrap() + 1;
    let key = |id: usize| id.is_multiple_of(2).then(|| format!("k{}", id % 14));
    let all: Vec<NewEvent> = (0..count).map(|id| event(&format!("e{id}"), key(id).as_deref())).collect();
    let queue = place.with(&all).await;
    assert_eq!(queue.fail_trigger(&trigger("a"), 1).await.unwrap(), count as u64);
    assert_eq!(queue.pending().await.unwrap(), 0);
    let all = EventFilter::default();
    assert_eq!(queue.replay(&all, 2).await.unwrap(), count as u64);
    assert_eq!(lease(&queue, count, 2).await.0.len(), count / 2 + 7, "of each key the first");
    queue.release().await.unwrap();
    assert_eq!(queue.purge(&all).await.unwrap(), count as u64);
    assert_eq!(queue.purge(&all).await.unwrap(), 0);
}

/// A server that nodes share: what one has, no other has.
mod shared {
    use futures::future::join_all;

    use super::*;

    #[tokio::test]
    async fn several_nodes_never_have_an_event_or_two_of_a_key_at_once() {
        let Some(place) = Place::postgres() else { return };
        let all: Vec<NewEvent> = (0..300)
            .map(|id| event(&format!("e{id:03}"), (id % 3 > 0).then(|| format!("k{}", id % 7)).as_deref()))
            .collect();
        let first = place.with(&all).await;
        let nodes = [first, place.open().await, place.open().await];
        let delivered = std::sync::Mutex::new(Vec::<(String, Option<Vec<u8>>)>::new());
        let held = std::sync::Mutex::new(HashSet::<Vec<u8>>::new());
        join_all(nodes.iter().enumerate().map(|(node, queue)| {
            let (delivered, held) = (&delivered, &held);
            async move {
                while delivered.lock().unwrap().len() < 300 {
                    let (leases, _) = lease(queue, 5 + node, 0).await;
                    for key in leases.iter().filter_map(|lease| lease.order_key.clone()) {
                        assert!(held.lock().unwrap().insert(key), "two of a key are delivered");
                    }
                    tokio::task::yield_now().await;
                    for lease in &leases {
                        assert_eq!(lease.attempts, 1);
                        delivered.lock().unwrap().push((lease.id.clone(), lease.order_key.clone()));
                        lease.order_key.iter().for_each(|key| assert!(held.lock().unwrap().remove(key)));
                    }
                    let ends: Vec<EndedAttempt> = leases.iter().map(|lease| ended(lease, Fate::Processed)).collect();
                    assert_eq!(queue.end(&ends, 1).await.unwrap().attempts, leases.len() as u64);
                }
            }
        }))
        .await;
        let delivered = delivered.into_inner().unwrap();
        assert_eq!(delivered.iter().map(|(id, _)| id).collect::<HashSet<_>>().len(), 300);
        for key in (0..7).map(|key| format!("k{key}").into_bytes()) {
            let of_key = delivered.iter().filter(|(_, of)| of.as_ref() == Some(&key)).map(|(id, _)| id);
            assert!(of_key.is_sorted(), "in order, whoever delivers");
        }
    }

    #[tokio::test]
    async fn keys_go_on_while_one_node_finishes_and_another_adds() {
        let Some(place) = Place::postgres() else { return };
        let (adding, delivering) = (place.with(&[]).await, place.open().await);
        let add = async {
            for id in 0..100 {
                let position = TakenPosition { changes: id, ..position(b"1") };
                adding.take(&table(), &position, &[event(&format!("e{id:03}"), Some("k"))], 0).await.unwrap();
            }
        };
        let deliver = async {
            let mut all = Vec::new();
            while all.len() < 100 {
                for lease in lease(&delivering, 9, 0).await.0 {
                    delivering.end(&[ended(&lease, Fate::Processed)], 0).await.unwrap();
                    all.push(lease.id);
                }
            }
            all
        };
        let both = async { tokio::join!(add, deliver).1 };
        let all = tokio::time::timeout(Duration::from_secs(60), both).await.expect("no key is stuck");
        assert!(all.is_sorted());
    }

    #[tokio::test]
    async fn a_table_is_followed_by_one_node_until_it_is_gone() {
        let Some(place) = Place::postgres() else { return };
        let (first, second) = (place.with(&[]).await, place.open().await);
        assert!(!second.hold(&table(), None).await.unwrap());
        assert!(first.hold(&table(), None).await.unwrap(), "it has it already");
        let seen = second.tables().await.unwrap()[0].1;
        first.beat().await.unwrap();
        assert!(!second.hold(&table(), Some(seen)).await.unwrap(), "it has told that it is there");
        second.forget(&table()).await.unwrap();
        assert!(first.position(&table()).await.unwrap().is_some());

        let seen = second.tables().await.unwrap()[0].1;
        assert!(second.hold(&table(), Some(seen)).await.unwrap());
        let late = first.take(&table(), &position(b"9"), &[event("late", None)], 0).await;
        assert!(matches!(late, Err(QueueError::Lost)));
        assert!(lease(&second, 1, 0).await.0.is_empty());
        assert_eq!(second.position(&table()).await.unwrap(), Some(position(b"1")));
    }

    #[tokio::test]
    async fn a_table_that_one_node_leaves_is_followed_by_another_from_where_it_was() {
        let Some(place) = Place::postgres() else { return };
        let (first, second) = (place.with(&[]).await, place.open().await);
        assert!(!second.leave(&table()).await.unwrap(), "it does not follow it");
        assert!(first.leave(&table()).await.unwrap());
        let late = first.take(&table(), &position(b"9"), &[event("late", None)], 0).await;
        assert!(matches!(late, Err(QueueError::Lost)));
        assert!(second.hold(&table(), None).await.unwrap());
        assert_eq!(second.position(&table()).await.unwrap(), Some(position(b"1")));
    }

    #[tokio::test]
    async fn a_node_does_not_wait_for_another_that_follows_the_clock() {
        let Some(place) = Place::postgres() else { return };
        let (first, second) = (place.with(&[]).await, place.open().await);
        first.follow_clock(100_000).await.unwrap();
        let mut held = first.store.begin().await.unwrap();
        held.execute(Statement::new("UPDATE queue_clock SET latest_ms = latest_ms")).await.unwrap();
        assert_eq!(second.follow_clock(50_000).await.unwrap(), 0);
        drop(held);
    }

    #[tokio::test]
    async fn nodes_hear_of_events_of_others_and_have_one_clock() {
        let Some(place) = Place::postgres() else { return };
        let (first, second) = (place.with(&[]).await, place.open().await);
        let heard = async {
            loop {
                // Who begins to listen hears what is told from then on.
                first.take(&table(), &position(b"2"), &[event("e1", None)], 0).await.unwrap();
                if tokio::time::timeout(Duration::from_millis(200), second.arrival()).await.is_ok() {
                    return second.arrivals();
                }
            }
        };
        tokio::select! {
            () = second.listen() => panic!("it listens for ever"),
            heard = tokio::time::timeout(Duration::from_secs(30), heard) => {
                assert!(heard.unwrap().contains(&trigger("a")));
            }
        }
        assert!((first.now_ms() - second.now_ms()).abs() < 1000);
        assert!(second.is_shared() && !Place::file().open().await.is_shared());
    }
}
