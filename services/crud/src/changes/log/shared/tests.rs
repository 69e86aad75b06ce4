use std::collections::BTreeSet;

use mesh::bus::journal::Followed;
use proto::crud::{Event, Operation, Resync};

use super::{super::follower::Follower, *};
use crate::store::log::{LogPart, Place, change};

const SOURCE: u64 = 7;

fn snapshot(end: u64) -> Snapshot {
    Snapshot { start: end, end, running: Vec::new() }
}

/// A place of a commit, of which a snapshot is known that sees some of what is before: those of a slot are behind.
fn place(seen: u64, commit: u64) -> LogPosition {
    LogPosition::in_commit_order(SOURCE, snapshot(seen), (commit, 1 << 20))
}

/// A record after which the log is at a position.
fn followed(position: &LogPosition, record: &LogRecord, is_next: bool) -> Followed {
    Followed { is_next, position: position.encode(), payload: Some(record.encode()), is_old: false }
}

/// The record of transaction `id`, committed at `commit`, when all before `visible` were visible.
fn part(id: u64, commit: u64, visible: u64) -> (LogPosition, LogRecord) {
    let changes = vec![change("note", Operation::Insert, Bytes::new(), Bytes::from_static(b"{}"))];
    let (position, place) = (place(5, commit), Place { id, order: (commit, 1 << 20) });
    let part = LogPart { place, committed_us: 0, changes, position: position.clone() };
    (position, LogRecord::part(part, Some(Arc::new(snapshot(visible)))))
}

/// The state at `commit` of a log that has all of a table since long.
fn state(commit: u64, visible: Option<u64>) -> (LogPosition, LogRecord) {
    let captures = BTreeMap::from([("note".to_owned(), place(1, 10))]);
    (place(5, commit), LogRecord::captures(&captures, visible.map(|visible| Arc::new(snapshot(visible)))))
}

/// What is told first to a follower that comes with a position: whether it goes on there.
async fn goes_on(shared: &Arc<LogShared>, after: &LogPosition) -> bool {
    let mut follower = Follower::new(shared.clone(), BTreeSet::from(["note".to_owned()]), after.encode());
    match tokio::time::timeout(Duration::from_secs(5), follower.next()).await.unwrap().unwrap().event {
        Some(Event::Started(_)) => true,
        Some(Event::Resync(_)) => false,
        other => panic!("unexpected {other:?}"),
    }
}

fn take(shared: &LogShared, (position, record): &(LogPosition, LogRecord), is_next: bool) {
    let followed = followed(position, record, is_next);
    let has_gap = !followed.is_next;
    assert!(!shared.state().take(followed, has_gap));
}

/// Transaction 8 was committed at 200, which this node was not told: a read that did not see it does not go on after it.
#[tokio::test(start_paused = true)]
async fn a_read_from_before_a_gap_does_not_go_on_behind_it() {
    let seen = |end| LogPosition::of(SOURCE, snapshot(end));
    let then_state = [part(9, 300, 10), state(310, Some(10))];
    let cases = [
        (vec![part(9, 300, 10)], Some(10)),
        (vec![state(300, Some(10))], Some(10)),
        (vec![state(300, None)], None),
        (then_state.to_vec(), Some(10)),
    ];
    for (records, visible) in cases {
        let shared = Arc::new(LogShared::default());
        shared.state().follow("note");
        take(&shared, &state(100, Some(6)), true);
        assert!(goes_on(&shared, &seen(6)).await, "it saw all before");
        assert!(!goes_on(&shared, &seen(5)).await, "the ring begins later");
        for (index, record) in records.iter().enumerate() {
            take(&shared, record, index > 0);
        }
        assert!(!goes_on(&shared, &seen(8)).await, "it did not see 8: {records:?}");
        assert!(!goes_on(&shared, &place(5, 150)).await, "it was not told 8: {records:?}");
        assert!(goes_on(&shared, &place(5, 300)).await, "{records:?}");
        // Also when nobody is told of the gap any more.
        tokio::time::advance(Duration::from_secs(61)).await;
        take(&shared, &part(12, 400, 13), true);
        assert!(!goes_on(&shared, &seen(8)).await, "it did not see 8: {records:?}");
        assert_eq!(goes_on(&shared, &seen(10)).await, visible.is_some(), "{records:?}");
        assert!(!goes_on(&shared, &place(5, 150)).await, "it was not told 8: {records:?}");
        assert!(goes_on(&shared, &place(5, 310)).await, "{records:?}");
    }
}

fn whole(commit: u64) -> LogPosition {
    LogPosition::in_commit_order(7, Snapshot::default(), (commit, u64::MAX))
}

fn look(id: u64, commit: u64) -> LogLook {
    let changes = vec![change("note", Operation::Insert, Bytes::new(), Bytes::from_static(b"{}"))];
    let part =
        LogPart { place: Place { id, order: (commit, u64::MAX) }, committed_us: 0, changes, position: whole(commit) };
    LogLook::of(vec![part], whole(commit))
}

/// A log, and who follows it and was told the change at 100.
async fn told_at_100() -> (Arc<LogShared>, Follower) {
    let shared = Arc::new(LogShared::default());
    shared.state().ring.begin(whole(50));
    shared.state().captured([("note".to_owned(), whole(50))].into(), whole(50));
    shared.state().follow("note");
    let mut follower = Follower::new(shared.clone(), ["note".to_owned()].into(), Bytes::new());
    assert!(matches!(follower.next().await.unwrap().event, Some(Event::Started(_))));
    shared.state().found(look(2, 100));
    assert!(matches!(follower.next().await.unwrap().event, Some(Event::Transaction(_))));
    (shared, follower)
}

/// A journal that was lost goes on with what the log tells again, or with what is later: only then is anything missed.
#[tokio::test]
async fn a_gap_is_told_to_whom_the_log_does_not_tell_again_what_is_in_it() {
    for (goes_on_at, told) in [(90, vec!["3"]), (99, vec!["3"]), (101, vec!["resync", "3"]), (120, vec!["resync", "3"])]
    {
        let (shared, mut follower) = told_at_100().await;
        shared.state().miss(whole(goes_on_at), None);
        shared.state().captured([("note".to_owned(), whole(50))].into(), whole(goes_on_at));
        // Told again where the journal goes on before it.
        if goes_on_at < 100 {
            shared.state().found(look(2, 100));
        }
        shared.state().found(look(3, 130));
        let mut seen = Vec::new();
        while let Ok(message) = tokio::time::timeout(Duration::from_millis(20), follower.next()).await {
            match message.unwrap().event.unwrap() {
                Event::Transaction(transaction) => seen.push(transaction.id.to_string()),
                Event::Resync(Resync { reason, .. }) => {
                    assert_eq!(reason, i32::from(ResyncReason::LogLost));
                    seen.push("resync".to_owned());
                }
                Event::Started(_) => {}
            }
        }
        assert_eq!(seen, told, "after 100 it goes on at {goes_on_at}");
    }
}

/// The loss of a table stands where the change before it does. Who was told that change, and stood still until the ring had let
/// go of both, is told that it missed something.
#[tokio::test(start_paused = true)]
async fn who_stood_still_is_told_of_a_loss_that_the_ring_has_no_more() {
    let (shared, mut follower) = told_at_100().await;

    let loss = Loss { reason: ResyncReason::Truncate, tables: vec!["note".to_owned()] };
    let mut after = whole(100);
    after.begin_captured();
    let lost = LogLook { losses: vec![loss.clone()], ..LogLook::of(Vec::new(), after.clone()) };
    shared.state().lost(&loss, &after);
    shared.state().found(lost);
    tokio::time::advance(Duration::from_secs(61)).await;
    shared.state().found(look(3, 130));
    assert!(matches!(follower.next().await.unwrap().event, Some(Event::Resync(_))));
}
