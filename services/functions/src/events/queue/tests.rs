//! The queue: nothing is lost, nothing is delivered twice at once, and what is late changes nothing.

use std::{collections::HashSet, time::Duration};

use super::{
    FollowedTable, NewEvent, Queue, QueueError, TakenPosition, TriggerKey,
    delivery::{EndedAttempt, Fate, Lease, LeaseRequest},
    operate::{EventFilter, EventStatus},
};

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
        r#type: "DB_INSERT",
        body: Ok(b"{}".to_vec()),
        order_key: order_key.map(|key| key.as_bytes().to_vec()),
    }
}

async fn with(events: &[NewEvent]) -> (tempfile::TempDir, Queue) {
    let folder = tempfile::tempdir().unwrap();
    let queue = Queue::open(folder.path()).await.unwrap();
    queue.take(&table(), &position(b"1"), events, 0).await.unwrap();
    (folder, queue)
}

async fn lease(queue: &Queue, count: usize, now_ms: i64) -> (Vec<Lease>, Option<i64>) {
    let trigger = trigger("a");
    let request = LeaseRequest { trigger: &trigger, count, time: Duration::from_secs(1) };
    let leased = queue.lease(&[request], usize::MAX, now_ms).await.unwrap().remove(0);
    (leased.leases, leased.next_due_ms)
}

fn ids(leases: &[Lease]) -> Vec<&str> {
    leases.iter().map(|lease| lease.id.as_str()).collect()
}

fn ended(lease: &Lease, fate: Fate) -> EndedAttempt {
    EndedAttempt { lease: lease.clone(), fate, code: Some(200), last: "ok".to_owned() }
}

async fn status(queue: &Queue, id: &str) -> (String, i64) {
    let filter = EventFilter { ids: vec![id.to_owned()], ..EventFilter::default() };
    let event = queue.list(&filter, 0).await.unwrap().remove(0);
    (event.status, event.attempts)
}

#[tokio::test]
async fn events_and_the_position_are_durable_together_and_once() {
    let folder = tempfile::tempdir().unwrap();
    let queue = Queue::open(folder.path()).await.unwrap();
    assert_eq!(queue.position(&table()).await.unwrap(), None);
    assert_eq!(queue.take(&table(), &position(b"1"), &[event("e1", None), event("e2", None)], 5).await.unwrap(), 2);
    assert_eq!(queue.take(&table(), &position(b"2"), &[event("e2", None), event("e3", None)], 6).await.unwrap(), 1);
    drop(queue);

    let queue = Queue::open(folder.path()).await.unwrap();
    assert_eq!(queue.position(&table()).await.unwrap(), Some(position(b"2")));
    assert_eq!(queue.tables().await.unwrap(), [table()]);
    assert_eq!(ids(&lease(&queue, 9, 6).await.0), ["e1", "e2", "e3"]);
    queue.forget(&table()).await.unwrap();
    assert_eq!(queue.position(&table()).await.unwrap(), None);
}

#[tokio::test]
async fn one_node_has_a_queue_and_commands_stand_beside_it() {
    let (folder, queue) = with(&[event("e1", None)]).await;
    assert!(matches!(Queue::open(folder.path()).await, Err(QueueError::Locked)));
    let beside = Queue::beside(folder.path()).await.unwrap();
    assert_eq!(status(&beside, "e1").await, ("pending".to_owned(), 0));
    drop((queue, beside));
    Queue::open(folder.path()).await.unwrap();
    let other = tempfile::tempdir().unwrap();
    assert!(matches!(Queue::beside(other.path()).await, Err(QueueError::Absent(_))));
}

#[tokio::test]
async fn an_event_is_leased_to_one_and_what_is_late_changes_nothing() {
    let (_folder, queue) = with(&[event("e1", None)]).await;
    let (first, next_due) = lease(&queue, 2, 0).await;
    assert_eq!((ids(&first), next_due, first[0].attempts), (vec!["e1"], None, 1));
    assert!(lease(&queue, 2, 500).await.0.is_empty(), "it is leased");

    assert_eq!(queue.expire(1000, &HashSet::new()).await.unwrap(), 0);
    let running = HashSet::from([first[0].seq]);
    assert_eq!(queue.expire(i64::MAX, &running).await.unwrap(), 0, "the clock was set, and it is delivered still");
    assert_eq!(queue.expire(1001, &HashSet::new()).await.unwrap(), 1);
    let (second, _) = lease(&queue, 2, 1001).await;
    assert_eq!(second[0].attempts, 2);
    assert_eq!(queue.end(&[ended(&first[0], Fate::Failed)], 1002).await.unwrap(), 0);
    assert_eq!(status(&queue, "e1").await, ("running".to_owned(), 2));
    assert_eq!(queue.end(&[ended(&second[0], Fate::Processed)], 1003).await.unwrap(), 1);
    assert_eq!(queue.end(&[ended(&second[0], Fate::Retried { due_ms: 0 })], 1004).await.unwrap(), 0);
    assert_eq!(status(&queue, "e1").await, ("processed".to_owned(), 2));
    assert!(lease(&queue, 2, i64::MAX / 2).await.0.is_empty(), "it is never delivered again");
}

#[tokio::test]
async fn what_a_process_leased_that_was_killed_is_due_at_once() {
    let (folder, queue) = with(&[event("e1", None), event("e2", None)]).await;
    let (leases, _) = lease(&queue, 1, 0).await;
    drop(queue);
    let queue = Queue::open(folder.path()).await.unwrap();
    let (again, _) = lease(&queue, 9, 0).await;
    assert_eq!((ids(&again), again[0].attempts, again[1].attempts), (vec!["e1", "e2"], 2, 1));
    assert_eq!(queue.end(&[ended(&leases[0], Fate::Processed)], 1).await.unwrap(), 0);
    queue.release().await.unwrap();
    assert_eq!(ids(&lease(&queue, 9, 0).await.0), ["e1", "e2"]);
}

#[tokio::test]
async fn retries_are_due_later() {
    let (_folder, queue) = with(&[event("e1", None)]).await;
    let (leases, _) = lease(&queue, 1, 0).await;
    queue.end(&[ended(&leases[0], Fate::Retried { due_ms: 700 })], 10).await.unwrap();
    assert_eq!(lease(&queue, 1, 699).await, (vec![], Some(700)));
    assert_eq!(ids(&lease(&queue, 1, 700).await.0), ["e1"]);
}

#[tokio::test]
async fn events_of_one_key_are_delivered_one_after_the_other() {
    let all = [event("a1", Some("a")), event("a2", Some("a")), event("b1", Some("b")), event("x", None)];
    let (_folder, queue) = with(&all).await;
    let (leases, _) = lease(&queue, 9, 0).await;
    assert_eq!(ids(&leases), ["a1", "b1", "x"]);
    queue.end(&[ended(&leases[0], Fate::Retried { due_ms: 50 })], 1).await.unwrap();
    assert!(lease(&queue, 9, 10).await.0.is_empty(), "a2 waits for a1, which is tried again");
    let (leases, _) = lease(&queue, 9, 50).await;
    assert_eq!(ids(&leases), ["a1"]);
    queue.end(&[ended(&leases[0], Fate::Failed)], 51).await.unwrap();
    assert_eq!(ids(&lease(&queue, 9, 51).await.0), ["a2"]);
}

#[tokio::test]
async fn an_event_that_is_replayed_waits_for_one_of_its_key_that_is_being_delivered() {
    let (_folder, queue) = with(&[event("a1", Some("a")), event("a2", Some("a"))]).await;
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

#[tokio::test]
async fn messages_are_taken_up_to_their_bytes() {
    let all = ["e1", "e2", "e3"].map(|id| NewEvent { body: Ok(vec![b'x'; 100]), ..event(id, None) });
    let (_folder, queue) = with(&all).await;
    let trigger = trigger("a");
    for (bytes, expected) in [(0, vec![]), (101, vec!["e1", "e2"]), (1, vec!["e3"])] {
        let request = LeaseRequest { trigger: &trigger, count: 9, time: Duration::from_secs(1) };
        let leased = queue.lease(&[request], bytes, 0).await.unwrap().remove(0);
        assert_eq!(ids(&leased.leases), expected, "{bytes}");
    }
}

#[tokio::test]
async fn events_do_not_wait_forever_nor_without_number() {
    let (_folder, queue) = with(&[event("e1", None), event("e2", None), event("e3", None)]).await;
    assert_eq!(queue.give_up(3, 0, 5).await.unwrap(), 0);
    assert_eq!(queue.give_up(2, 0, 5).await.unwrap(), 1);
    assert_eq!(status(&queue, "e1").await.0, "failed");
    assert_eq!(queue.give_up(2, 1, 5).await.unwrap(), 2);
    assert_eq!(queue.pending().await.unwrap(), 0);
}

#[tokio::test]
async fn a_clock_that_was_set_back_delays_nothing() {
    let (_folder, queue) = with(&[event("e1", None)]).await;
    let (leases, _) = lease(&queue, 1, 10_000).await;
    queue.end(&[ended(&leases[0], Fate::Retried { due_ms: 10_100 })], 10_000).await.unwrap();
    queue.set_back(9000, 1000).await.unwrap();
    assert_eq!(lease(&queue, 1, 1000).await, (vec![], Some(1100)));
    queue.set_back(9000, 1100).await.unwrap();
    assert_eq!(ids(&lease(&queue, 1, 1100).await.0), ["e1"]);
}

#[cfg(unix)]
#[tokio::test]
async fn its_file_is_of_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let (folder, _queue) = with(&[event("e1", None)]).await;
    for file in ["events.db", "events.db-wal"] {
        let mode = folder.path().join("functions").join(file).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[tokio::test]
async fn events_of_triggers_that_are_gone_are_dead_letters_that_can_be_replayed() {
    let (_folder, queue) = with(&[event("e1", None)]).await;
    assert_eq!(queue.fail_others(&HashSet::from([trigger("a")]), 1).await.unwrap(), 0);
    assert_eq!(queue.fail_others(&HashSet::from([trigger("b")]), 1).await.unwrap(), 1);
    let failed = EventFilter { status: Some(EventStatus::Failed), ..EventFilter::default() };
    let listed = queue.list(&failed, 0).await.unwrap();
    assert_eq!((listed.len(), listed[0].last.as_str()), (1, "trigger not found"));
    assert!(queue.list(&failed, listed[0].seq).await.unwrap().is_empty());
    assert_eq!(queue.replay(&failed, 9).await.unwrap(), 1);
    let (leases, _) = lease(&queue, 9, 9).await;
    assert_eq!((leases[0].attempts, leases[0].since_ms, leases[0].created_ms), (1, 9, 0));
}

#[tokio::test]
async fn operators_choose_what_is_replayed_and_removed() {
    let too_large = NewEvent { body: Err("over the limit".to_owned()), ..event("large", None) };
    let (_folder, queue) = with(&[event("e1", None), event("e2", None), too_large]).await;
    let of = |id: &str| EventFilter { ids: vec![id.to_owned()], ..EventFilter::default() };
    assert_eq!(status(&queue, "large").await, ("failed".to_owned(), 0));
    assert_eq!(queue.replay(&of("large"), 1).await.unwrap(), 0, "there is nothing to deliver");
    assert_eq!(queue.replay(&of("e1"), 1).await.unwrap(), 0, "it is not finished");
    let unknown = queue.replay(&of("e9"), 1).await.unwrap_err();
    assert_eq!(unknown.to_string(), "event e9 does not exist");
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
