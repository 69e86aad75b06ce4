use bytes::Bytes;
use futures::FutureExt;
use proto::{
    crud::{Change, Event as LogEvent, LogResponse, Operation, Resync, ResyncReason, Started, Transaction},
    realtime::Event,
};
use query::{Abilities, Column, Comparison, Field, Filter, Matching, Schema, Table, Type, Typed};
use serde_json::{Value as Json, json};
use tokio::sync::watch;

use super::{
    super::{Cursor, Taken, ring::Ring},
    *,
};
use crate::plan::Told;

fn table(columns: &[&str]) -> Table {
    let column = |name: &&str| {
        let r#type = if *name == "text" { Type::Text } else { Type::Int64 };
        let abilities = Abilities { matching: Matching::All, ..Abilities::default() };
        Column { nullable: *name != "id", abilities, ..Column::new(*name, r#type, "") }
    };
    Table { primary_key: vec!["id".to_owned()], ..Table::new("note", columns.iter().map(column).collect()) }
}

const COLUMNS: [&str; 4] = ["id", "owner", "rank", "text"];

fn schema() -> Arc<Schema> {
    Arc::new(Schema::new(vec![table(&COLUMNS)]))
}

/// Rights that `number` tells from others.
fn rights(number: u64, schema: &Arc<Schema>, filter: Filter) -> Arc<RowRights> {
    let fields: Vec<Field> = COLUMNS.iter().map(|name| Field::column(name)).collect();
    let told = Told { before: fields.clone(), fields, key: vec![Field::column("id")], readable: None };
    let fingerprint = Fingerprint::of(&[&number.to_be_bytes()]);
    Arc::new(RowRights { fingerprint, filter, told: told.into(), schema: schema.clone(), table: "note".to_owned() })
}

fn compares(column: &str, comparison: Comparison, value: i64) -> Filter {
    Filter::Compare { column: column.to_owned(), comparison, value: Typed::Int(value) }
}

fn owned(owner: i64) -> Filter {
    compares("owner", Comparison::Eq, owner)
}

struct Log {
    ring: watch::Sender<Ring>,
    told: u64,
}

impl Log {
    fn new() -> Self {
        let log = Self { ring: watch::Sender::new(Ring::new(Bytes::new())), told: 0 };
        log.push(LogEvent::Started(Started {}));
        log
    }

    fn push(&self, event: LogEvent) {
        let position = self.told.to_string().into();
        self.ring.send_modify(|ring| ring.push(LogResponse { position, event: Some(event) }).unwrap());
    }

    fn commit(&mut self, changes: &[(Option<Json>, Option<Json>)]) {
        self.told += 1;
        let json = |row: &Option<Json>| row.as_ref().map(|row| row.to_string().into()).unwrap_or_default();
        let change = |(before, after): &(Option<Json>, Option<Json>)| Change {
            table: "note".to_owned(),
            operation: Operation::Update.into(),
            before: json(before),
            after: json(after),
        };
        let changes = changes.iter().map(change).collect();
        self.push(LogEvent::Transaction(Transaction { id: self.told, committed_us: 0, changes }));
    }

    fn cursor(&self) -> Cursor {
        let ring = self.ring.subscribe();
        let next = ring.borrow().end();
        Cursor::new(ring, next, None)
    }

    fn joined(&self, rights: &Arc<RowRights>) -> Cursor {
        let mut cursor = self.cursor();
        cursor.join(rights);
        cursor
    }
}

fn row(id: i64, owner: i64) -> Json {
    json!({ "id": id, "owner": owner, "rank": 0, "text": "a" })
}

/// What a watch tells of all that there is to take; `None` for an entry that tells that something may be missed.
fn told(cursor: &mut Cursor, rights: &RowRights) -> Vec<Option<Event>> {
    let mut events = Vec::new();
    while let Some(taken) = cursor.take() {
        let Taken::Entry(entry, decided) = taken else { panic!("nothing has left the ring") };
        let Happened::Changes(part) = &entry.happened else {
            events.push(None);
            continue;
        };
        match decided {
            None => {
                let seen = part.changes.iter().filter_map(|change| Some((change, rights.seen(change)?)));
                events.extend(seen.flat_map(|(change, seen)| rights.events(change, seen, 0)).flatten().map(Some));
            }
            Some(decided) => {
                for place in 0..decided.len() {
                    let known = decided.change(place).unwrap();
                    let change = &part.changes[known.index];
                    let written = decided.events(known, || rights.events(change, known.seen, 0));
                    events.extend(written.into_iter().flatten().map(Some));
                }
            }
        }
    }
    events
}

#[test]
fn a_change_wakes_those_whom_it_concerns_alone() {
    let (mut log, schema) = (Log::new(), schema());
    let all: Vec<_> = (0..100).map(|owner| rights(owner, &schema, owned(owner.cast_signed()))).collect();
    let mut cursors: Vec<_> = all.iter().map(|rights| log.joined(rights)).collect();
    let mut waits: Vec<_> = cursors.iter_mut().map(|cursor| Box::pin(cursor.changed())).collect();
    assert!(waits.iter_mut().all(|wait| wait.now_or_never().is_none()));
    log.commit(&[(Some(row(1, 5)), Some(row(1, 7)))]);
    let woken: Vec<usize> =
        waits.iter_mut().enumerate().filter_map(|(owner, wait)| wait.now_or_never().map(|_| owner)).collect();
    assert_eq!(woken, [5, 7]);
    drop(waits);
    let events: Vec<_> =
        [5, 7].map(|owner: usize| told(&mut cursors[owner], &all[owner])).into_iter().flatten().collect();
    assert!(matches!(events[..], [Some(Event::Delete(_)), Some(Event::Update(_))]), "{events:?}");
}

#[test]
fn a_watch_that_waits_is_woken_where_changes_cannot_be_followed_any_more() {
    let (log, schema) = (Log::new(), schema());
    let mut cursor = log.joined(&rights(1, &schema, owned(1)));
    let mut wait = Box::pin(cursor.changed());
    assert!(wait.as_mut().now_or_never().is_none());
    let fault = mesh::Fault::new(mesh::Code::Unavailable, "gone");
    log.ring.send_modify(|ring| mesh::follow::Feed::failed(ring, fault));
    assert!(wait.now_or_never().is_some_and(|ended| ended.is_err()));
}

#[test]
fn equal_watches_share_a_decision_and_what_is_written_for_it() {
    let (mut log, schema) = (Log::new(), schema());
    let (mine, other) = (rights(1, &schema, owned(1)), rights(2, &schema, Filter::TRUE));
    let mut cursors = [&mine, &mine, &mine, &other].map(|rights| log.joined(rights));
    log.commit(&[(None, Some(row(1, 1)))]);
    let place = |cursor: &mut Cursor| match &told(cursor, &mine)[..] {
        [Some(Event::Insert(row))] => row.row.as_ptr(),
        other => panic!("{other:?}"),
    };
    let [one, two, three, alone] = cursors.each_mut().map(place);
    assert!(one == two && two == three, "the text was written once");
    assert_ne!(one, alone, "nothing is shared with other rights");
}

#[test]
fn nothing_is_kept_of_watches_that_are_gone() {
    let (mut log, schema) = (Log::new(), schema());
    let rights = rights(1, &schema, owned(1));
    let cursors = [log.joined(&rights), log.joined(&rights)];
    let groups = log.ring.borrow().groups.clone();
    log.commit(&[(None, Some(row(1, 1)))]);
    drop(cursors);
    assert!(groups.state().known.is_empty() && groups.state().layouts.is_empty());
    assert_eq!(groups.memory.taken(), 0);
}

#[test]
fn images_of_other_columns_are_looked_at_by_each_watch() {
    let (mut log, schema) = (Log::new(), schema());
    let rights = rights(1, &schema, owned(1));
    let mut cursor = log.joined(&rights);
    log.commit(&[(None, Some(json!({ "id": 1, "owner": 2 })))]);
    let Some(Taken::Entry(_, None)) = cursor.take() else { panic!("it is told, undecided") };
    log.commit(&[(None, Some(row(1, 2)))]);
    assert!(cursor.take().is_none());
}

/// A number that a seed and a round determine (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> i64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end).cast_signed()
    }

    fn filter(&mut self, depth: u64) -> Filter {
        let column = ["id", "owner", "rank"][usize::try_from(self.below(3)).unwrap()];
        match self.below(if depth > 0 { 8 } else { 5 }) {
            0 | 1 => compares(column, Comparison::Eq, self.below(8)),
            2 => compares(column, Comparison::Gt, self.below(8)),
            3 => Filter::IsNull { column: column.to_owned() },
            4 => Filter::In { column: column.to_owned(), values: vec![Typed::Int(self.below(8)), Typed::Int(3)] },
            5 => Filter::And(vec![self.filter(depth - 1), self.filter(depth - 1)]),
            6 => Filter::Or(vec![self.filter(depth - 1), self.filter(depth - 1)]),
            _ => Filter::Not(Box::new(self.filter(depth - 1))),
        }
    }

    fn row(&mut self) -> Json {
        let rank = if self.below(4) == 0 { Json::Null } else { self.below(8).into() };
        json!({ "id": self.below(8), "owner": self.below(8), "rank": rank, "text": "a" })
    }

    fn change(&mut self) -> (Option<Json>, Option<Json>) {
        match self.below(4) {
            0 => (None, Some(self.row())),
            1 => (Some(self.row()), None),
            _ => (Some(self.row()), Some(self.row())),
        }
    }
}

/// Each watch tells what it would tell by a look at all that happens, however seldom it takes what there is.
#[test]
fn a_watch_of_a_group_is_told_what_a_watch_by_itself_is_told() {
    let rounds = if std::env::var_os("PROVE").is_some() { 20_000 } else { 100 };
    for seed in 0..rounds {
        let (mut random, mut log, schema) = (Random(seed), Log::new(), schema());
        let all: Vec<_> = (0..30).map(|number| rights(number, &schema, random.filter(3))).collect();
        let mut watches = Vec::new();
        for _ in 0..100 {
            match random.below(10) {
                0..3 => {
                    let rights = &all[usize::try_from(random.below(30)).unwrap()];
                    watches.push((rights.clone(), log.joined(rights), log.cursor()));
                }
                3 if !watches.is_empty() => {
                    let gone = random.below(watches.len() as u64);
                    watches.swap_remove(usize::try_from(gone).unwrap());
                }
                4 => {
                    let resync = Resync { reason: ResyncReason::Truncate.into(), tables: Vec::new() };
                    log.push(LogEvent::Resync(resync));
                }
                5 if random.below(20) == 0 => {
                    let many: Vec<_> = (0..2 * DECIDED_CHANGES_MAX).map(|_| random.change()).collect();
                    log.commit(&many);
                }
                _ => {
                    let count = 1 + random.below(4);
                    let changes: Vec<_> = (0..count).map(|_| random.change()).collect();
                    log.commit(&changes);
                }
            }
            let every = 1 + random.below(60);
            for (index, (rights, grouped, plain)) in watches.iter_mut().enumerate() {
                if (index as i64 + every) % 40 == 0 {
                    assert_eq!(told(grouped, rights), told(plain, rights), "seed {seed}");
                }
            }
        }
        for (rights, grouped, plain) in &mut watches {
            assert_eq!(told(grouped, rights), told(plain, rights), "seed {seed}");
        }
        drop(watches);
        assert_eq!(log.ring.borrow().groups.memory.taken(), 0);
    }
}
