use bytes::Bytes;
use mesh::telemetry::Metrics;
use query::{Abilities, Column, Comparison, Matching, Type, Typed};

use super::*;
use crate::live::{CallerId, feed::Source, followed_tables::FollowedTables};

const COLUMNS: [&str; 3] = ["id", "owner", "rank"];

fn schema() -> Arc<Schema> {
    let column = |name: &&str| {
        let abilities = Abilities { matching: Matching::All, ..Abilities::default() };
        Column { nullable: true, abilities, ..Column::new(*name, Type::Int64, "") }
    };
    Arc::new(Schema::new(vec![Table::new("note", COLUMNS.iter().map(column).collect())]))
}

fn rows(filter: Filter) -> TableRows {
    TableRows { schema: schema(), table: (None, "note".to_owned()), filter }
}

fn compares(column: &str, comparison: Comparison, value: i64) -> Filter {
    Filter::Compare { column: column.to_owned(), comparison, value: Typed::Int(value) }
}

fn row(values: [i64; 3]) -> String {
    let members: Vec<String> = COLUMNS.iter().zip(values).map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", members.join(","))
}

fn transaction(id: u64, changes: &[(&str, &str)]) -> Transaction {
    let change = |(before, after): &(&str, &str)| Change {
        table: "note".to_owned(),
        before: Bytes::copy_from_slice(before.as_bytes()),
        after: Bytes::copy_from_slice(after.as_bytes()),
        ..Change::default()
    };
    Transaction { id, committed_us: 0, changes: changes.iter().map(change).collect() }
}

fn interests() -> Arc<Interests> {
    Arc::new(Interests::new(Arc::default()))
}

/// An interest of a caller who has room for it.
fn register(all: &Arc<Interests>, rows: Option<&TableRows>) -> Registered {
    let followed = FollowedTables::new(1, &Metrics::default());
    Interests::register(all, rows, || followed.take(CallerId::of("shop", "ann", None), &Source::Rules))
}

fn snapshot(end: u64, running: &[u64]) -> Snapshot {
    Snapshot { start: running.first().copied().unwrap_or(end), end, running: running.to_vec() }
}

#[test]
fn a_transaction_is_told_to_those_on_whose_rows_it_has_an_effect() {
    let all = interests();
    let mine = register(&all, Some(&rows(compares("owner", Comparison::Eq, 1))));
    let high = register(&all, Some(&rows(compares("rank", Comparison::Gt, 5))));
    let open = register(&all, None);
    let (one, other) = (row([1, 1, 0]), row([1, 2, 9]));
    assert!(all.tell(&transaction(1, &[(&one, "")])));
    assert_eq!((mine.interest.told(), high.interest.told(), open.interest.told()), (2, 1, 2));
    drop(open);
    assert!(!all.tell(&transaction(2, &[("", &row([1, 2, 0]))])));
    assert!(all.tell(&transaction(3, &[(&one, &other), ("", &row([3, 3, 3]))])));
    assert_eq!((mine.interest.told(), high.interest.told()), (4, 4));
    for unreadable in
        ["[", "1", r#"{"id":1}"#, r#"{"id":1,"owner":2,"rank":3,"text":4}"#, r#"{"id":1,"owner":2,"other":3}"#]
    {
        let number = all.last();
        assert!(all.tell(&transaction(4, &[("", unreadable)])), "{unreadable}");
        assert_eq!((mine.interest.told(), high.interest.told()), (number + 1, number + 1));
    }
    let many = vec![("", one.as_str()); CHANGES_MAX + 1];
    assert!(all.tell(&transaction(5, &many)));
    assert_eq!(high.interest.told(), all.last(), "it is not looked at");
    drop((mine, high));
    assert!(all.state().layouts.is_empty() && !all.tell(&transaction(5, &[(&one, "")])));
}

#[tokio::test]
async fn images_are_worth_their_price_for_many_who_depend_on_some_rows() {
    use futures::FutureExt;

    let all = interests();
    let some = rows(compares("owner", Comparison::Eq, 1));
    let open: Vec<_> = (0..20).map(|_| register(&all, Some(&rows(Filter::TRUE)))).collect();
    let without_room: Vec<_> = (0..20).map(|_| Interests::register(&all, Some(&some), || None)).collect();
    let mut registered: Vec<_> = (1..IMAGES_FROM).map(|_| register(&all, Some(&some))).collect();
    assert!(all.wait_until_worth_images().now_or_never().is_none());
    registered.push(register(&all, Some(&some)));
    assert!(all.wait_until_worth_images().now_or_never().is_some());
    registered.truncate(IMAGES_UNTIL);
    assert!(all.wait_until_not_worth_images().now_or_never().is_none());
    registered.pop();
    assert!(all.wait_until_not_worth_images().now_or_never().is_some());
    drop((open, without_room));
    assert_eq!(*all.selective.borrow(), registered.len());
}

#[test]
fn a_transaction_that_a_read_did_not_see_is_unseen_until_one_does() {
    let all = interests();
    let some = rows(compares("owner", Comparison::Eq, 1));
    let mut early = register(&all, Some(&some));
    assert!(!early.has_unseen(&[&snapshot(1, &[])]));
    all.tell(&transaction(5, &[("", &row([1, 1, 1]))]));
    all.tell(&transaction(7, &[("", &row([1, 2, 1]))]));
    let mut late = register(&all, Some(&some));
    assert!(early.has_unseen(&[&snapshot(8, &[5])]));
    assert!(!early.has_unseen(&[&snapshot(8, &[7])]), "the other does not concern it");
    assert!(late.has_unseen(&[&snapshot(8, &[7])]), "it may");
    assert!(!late.has_unseen(&[&snapshot(8, &[])]));
    all.tell(&transaction(9, &[("", &row([1, 2, 1]))]));
    assert!(!late.has_unseen(&[&snapshot(9, &[])]), "what is told later is told to whom it concerns");
}

#[test]
fn transactions_beyond_those_that_are_kept_are_unseen_until_all_up_to_them_are_seen() {
    let all = interests();
    let mut mine = register(&all, Some(&rows(compares("owner", Comparison::Eq, 1))));
    let many = UNSEEN_MAX as u64 + 10;
    for id in 1..=many {
        all.tell(&transaction(id, &[("", &row([1, 1, 1]))]));
    }
    assert!(mine.interest.unseen().transactions.len() <= UNSEEN_MAX);
    assert!(mine.has_unseen(&[&snapshot(many + 1, &[10])]), "the tenth is among the rest");
    assert!(!mine.has_unseen(&[&snapshot(many + 1, &[])]));
    all.tell(&transaction(1, &[("", &row([1, 1, 1]))]));
    all.forget_transactions();
    assert!(!mine.has_unseen(&[&snapshot(1, &[])]));
}

#[test]
fn a_read_in_an_older_snapshot_has_not_seen_what_a_newer_one_has() {
    let all = interests();
    all.tell(&transaction(5, &[("", &row([1, 1, 1]))]));
    let some = rows(compares("owner", Comparison::Eq, 1));
    let [mut one, mut other] = [(); 2].map(|()| register(&all, Some(&some)));
    assert!(!one.has_unseen(&[&snapshot(6, &[])]));
    assert!(other.has_unseen(&[&snapshot(6, &[5])]));
    assert!(other.has_unseen(&[&snapshot(6, &[]), &snapshot(6, &[5])]), "one of two databases has not");
    assert!(!other.has_unseen(&[&snapshot(6, &[])]));
}

#[test]
fn events_of_a_feed_that_follows_another_are_later_than_all_of_that() {
    let events: Arc<AtomicU64> = Arc::default();
    let first = Arc::new(Interests::new(events.clone()));
    (0..3).for_each(|_| first.tell_all());
    let second = Arc::new(Interests::new(events));
    let registered = register(&second, None);
    assert!(registered.since() > first.last());
    second.tell_all();
    assert!(registered.interest.told() > registered.since());
    drop(registered);
    assert!(second.state().open.is_empty());
}
