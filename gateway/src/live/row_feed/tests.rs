use std::collections::BTreeMap;

use proptest::prelude::*;
use proto::realtime::{Ready, Resync};
use serde_json::{Value, json};

use super::*;

const OPTIONS: FeedOptions = FeedOptions { key_columns: 1, initial: InitialRows::Told };

fn row(id: u8, value: u8, committed_ms: i64) -> Row {
    let bytes = |value: Value| value.to_string().into_bytes().into();
    Row {
        row: bytes(json!({ "id": id, "value": value })),
        key: bytes(json!({ "id": id })),
        committed_ms,
        ..Row::default()
    }
}

fn merge(options: FeedOptions) -> Merge {
    Merge::new(options)
}

/// What is told of an event, and of the rows that are gone by it.
fn told(merge: &mut Merge, event: Event) -> Vec<(&'static str, String, i64)> {
    let message = merge.take(Some(event), 1000).expect("the rows have keys");
    let rows = message.into_iter().filter_map(|message| match message {
        FeedMessage::Row(row) => Some(row),
        FeedMessage::Ready | FeedMessage::Void => None,
    });
    let mut rows: Vec<FeedRow> = rows.collect();
    rows.extend(std::iter::from_fn(|| merge.next_gone()));
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).expect("JSON is UTF-8");
    rows.iter().map(|row| (row.kind.name(), text(&row.row), row.time_ms)).collect()
}

const READY: Event = Event::Ready(Ready {});

fn resync() -> Event {
    Event::Resync(Resync { reason: "overflow".to_owned() })
}

#[test]
fn differences_are_told_after_a_resync() {
    let mut merge = merge(OPTIONS);
    assert_eq!(told(&mut merge, Event::Initial(row(1, 0, 0)))[0].0, "initial");
    for id in 2..=3 {
        told(&mut merge, Event::Initial(row(id, 0, 0)));
    }
    assert_eq!(merge.take(Some(READY), 1000).unwrap(), Some(FeedMessage::Ready));
    assert_eq!(told(&mut merge, resync()), []);
    assert_eq!(told(&mut merge, Event::Initial(row(1, 0, 0))), [], "it is the same");
    let changed = told(&mut merge, Event::Initial(row(2, 7, 0)));
    assert_eq!(changed, [("update", r#"{"id":2,"value":7}"#.to_owned(), 1000)]);
    assert_eq!(told(&mut merge, Event::Initial(row(4, 0, 0)))[0].0, "insert");
    assert_eq!(told(&mut merge, READY), [("delete", r#"{"id":3}"#.to_owned(), 1000)]);
    assert_eq!(told(&mut merge, Event::Delete(row(4, 0, 900))), [("delete", r#"{"id":4}"#.to_owned(), 1000)]);
}

#[test]
fn times_never_go_back() {
    let mut merge = merge(OPTIONS);
    told(&mut merge, READY);
    let times = [(5000, 5000), (0, 5000), (4000, 5000), (6000, 6000)];
    for (committed, expected) in times {
        assert_eq!(told(&mut merge, Event::Update(row(1, 0, committed)))[0].2, expected);
    }
}

#[test]
fn rows_that_were_collected_are_void_after_a_resync() {
    let mut merge = merge(FeedOptions { initial: InitialRows::Collected, ..OPTIONS });
    for _ in 0..2 {
        assert_eq!(told(&mut merge, Event::Initial(row(1, 0, 0)))[0].0, "initial");
        assert_eq!(merge.take(Some(resync()), 1000).unwrap(), Some(FeedMessage::Void));
    }
    assert_eq!(merge.take(Some(READY), 1000).unwrap(), Some(FeedMessage::Ready));
}

#[test]
fn rows_of_the_beginning_that_are_not_wanted_are_known_all_the_same() {
    let mut merge = merge(FeedOptions { initial: InitialRows::Skipped, ..OPTIONS });
    for id in [9, 1, 2] {
        assert_eq!(told(&mut merge, Event::Initial(row(id, 0, 0))), []);
    }
    // They were not told as a whole: what is there now is not new either.
    told(&mut merge, resync());
    for id in 1..=3 {
        assert_eq!(told(&mut merge, Event::Initial(row(id, 0, 0))), []);
    }
    assert_eq!(told(&mut merge, READY), []);
    assert_eq!(told(&mut merge, Event::Insert(row(4, 0, 7)))[0].0, "insert");
    told(&mut merge, resync());
    assert_eq!(told(&mut merge, Event::Initial(row(1, 0, 0))), [], "it is the same");
    assert_eq!(told(&mut merge, Event::Initial(row(2, 8, 0)))[0].0, "update");
    assert_eq!(told(&mut merge, Event::Initial(row(5, 0, 0)))[0].0, "insert");
    let mut gone = told(&mut merge, READY);
    gone.sort();
    let expected = [3, 4].map(|id| ("delete", format!(r#"{{"id":{id}}}"#), 1000));
    assert_eq!(gone, expected, "also the one that was not told");
}

#[test]
fn rows_without_a_whole_key_are_refused() {
    let hidden = Row { key: Bytes::from_static(b"{}"), ..row(1, 0, 0) };
    for (columns, of) in [(1, hidden.clone()), (2, row(1, 0, 0)), (0, hidden)] {
        for event in
            [Event::Initial(of.clone()), Event::Insert(of.clone()), Event::Update(of.clone()), Event::Delete(of)]
        {
            let refused = merge(FeedOptions { key_columns: columns, ..OPTIONS }).take(Some(event), 0);
            assert_eq!(refused.map_err(|fault| fault.code), Err(Code::BadRequest));
        }
    }
}

#[test]
fn a_key_is_a_text() {
    for (key, text) in [
        (r#"{"id":"t1"}"#, "t1"),
        (r#"{"id":7}"#, "7"),
        (r#"{"id":9007199254740993}"#, "9007199254740993"),
        (r#"{"a":1,"b":"x"}"#, r#"[1,"x"]"#),
    ] {
        let key = Bytes::from_static(key.as_bytes());
        assert_eq!(FeedRow { kind: FeedKind::Delete, row: key.clone(), key, time_ms: 1 }.doc_id(), text);
    }
}

#[test]
fn what_is_known_is_counted() {
    let mut merge = merge(OPTIONS);
    for id in 0..100 {
        told(&mut merge, Event::Insert(row(id, 0, 0)));
    }
    assert!(merge.known.bytes() > 100 * ENTRY);
    for id in 0..100 {
        told(&mut merge, Event::Delete(row(id, 0, 0)));
    }
    assert_eq!(merge.known.bytes(), 0);
}

/// What an entry takes at least: a hash and a key.
const ENTRY: usize = 24;

/// Rows as clients keep them, by the rules of merging that the predecessor's clients have.
#[derive(Debug, Default)]
struct Client {
    /// Rows in the order in which they came: key, value, time and whether it is deleted. Clients that know rows by their
    /// columns empty a deleted one, which is never found again.
    rows: Vec<(Value, Value, i64, bool)>,
    keeps_tombstones: bool,
}

impl Client {
    fn merge(&mut self, told: &FeedRow) {
        let [key, payload] = [&told.key, &told.row].map(|json| serde_json::from_slice::<Value>(json).expect("JSON"));
        let keeps = self.keeps_tombstones;
        let found = self.rows.iter_mut().find(|(known, _, _, is_deleted)| *known == key && (keeps || !*is_deleted));
        match (told.kind, found) {
            (FeedKind::Delete, Some(row)) if row.2 <= told.time_ms => (row.2, row.3) = (told.time_ms, true),
            (FeedKind::Delete, _) => {}
            (FeedKind::Insert | FeedKind::Update, Some(row)) => {
                if row.2 <= told.time_ms {
                    *row = (key, payload, told.time_ms, false);
                }
            }
            (FeedKind::Initial, _) | (_, None) => self.rows.push((key, payload, told.time_ms, false)),
        }
    }

    fn rows(&self) -> BTreeMap<String, Value> {
        let live: Vec<_> = self.rows.iter().filter(|row| !row.3).collect();
        let rows: BTreeMap<_, _> = live.iter().map(|row| (row.0.to_string(), row.1.clone())).collect();
        assert_eq!(rows.len(), live.len(), "no row is there twice: {self:?}");
        rows
    }
}

/// What happens to a table, and to the messages about it.
#[derive(Debug, Clone)]
enum Step {
    Put(u8, u8, i64),
    Remove(u8, i64),
    /// Messages are lost from here on, until a RESYNC.
    Lose,
    /// RESYNC, so many rows, and another RESYNC, or all rows and READY.
    Resync(Option<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..6u8, 0..4u8, 1..2000i64).prop_map(|(id, value, at)| Step::Put(id, value, at)),
        2 => (0..6u8, 1..2000i64).prop_map(|(id, at)| Step::Remove(id, at)),
        1 => Just(Step::Lose),
        2 => proptest::option::of(0..4u8).prop_map(Step::Resync),
    ]
}

proptest! {
    #[test]
    fn clients_have_the_rows_that_there_are(
        first in proptest::collection::btree_map(0..6u8, 0..4u8, 0..5),
        steps in proptest::collection::vec(step(), 1..40),
        keeps_tombstones in any::<bool>(),
    ) {
        let (mut merge, mut client) = (merge(OPTIONS), Client { keeps_tombstones, ..Client::default() });
        let (mut table, mut is_lost) = (first, false);
        let tell = |merge: &mut Merge, client: &mut Client, event: Event| {
            if let Some(FeedMessage::Row(row)) = merge.take(Some(event), 1000).expect("the rows have keys") {
                client.merge(&row);
            }
            while let Some(row) = merge.next_gone() {
                client.merge(&row);
            }
        };
        for (id, value) in &table {
            tell(&mut merge, &mut client, Event::Initial(row(*id, *value, 0)));
        }
        tell(&mut merge, &mut client, READY);
        for step in steps.into_iter().chain([Step::Resync(None)]) {
            match step {
                Step::Put(id, value, at) => {
                    let is_new = table.insert(id, value).is_none();
                    let changed = row(id, value, at);
                    if !is_lost {
                        tell(&mut merge, &mut client, if is_new { Event::Insert(changed) } else { Event::Update(changed) });
                    }
                }
                Step::Remove(id, at) => {
                    if let Some(value) = table.remove(&id) && !is_lost {
                        tell(&mut merge, &mut client, Event::Delete(row(id, value, at)));
                    }
                }
                Step::Lose => is_lost = true,
                Step::Resync(rows) => {
                    tell(&mut merge, &mut client, resync());
                    for (id, value) in table.iter().take(rows.map_or(usize::MAX, usize::from)) {
                        tell(&mut merge, &mut client, Event::Initial(row(*id, *value, 0)));
                    }
                    is_lost = rows.is_some();
                    if !is_lost {
                        tell(&mut merge, &mut client, READY);
                    }
                }
            }
            if !is_lost {
                let expected: BTreeMap<_, _> = table
                    .iter()
                    .map(|(id, value)| (json!({ "id": id }).to_string(), json!({ "id": id, "value": value })))
                    .collect();
                prop_assert_eq!(client.rows(), expected);
            }
        }
    }
}
