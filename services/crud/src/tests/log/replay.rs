//! Followers that join and leave at random while many write: who replays the log has the rows that are there, and no
//! change is missed, told twice or told out of its order.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::*;

/// Rows that are written to.
const ROWS: i64 = 60;
/// The row that is inserted last.
const LAST: i64 = -1;

/// How much is done.
#[derive(Clone, Copy)]
struct Budget {
    writers: u64,
    transactions: u64,
    followers: u64,
    bulks: u64,
}

fn budget() -> Budget {
    match std::env::var_os("PROVE") {
        Some(_) => Budget { writers: 24, transactions: 1500, followers: 16, bulks: 200 },
        None => Budget { writers: 6, transactions: 60, followers: 4, bulks: 4 },
    }
}

/// Numbers that look random, the same with each run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// A transaction of a writer.
fn script(random: &mut Random, s: &str, begin: &str, pause: &str) -> String {
    let mut sql = format!("{begin}; ");
    let mut ids: Vec<u64> = (0..1 + random.below(4)).map(|_| 1 + random.below(ROWS as u64)).collect();
    // In one order: deadlocks are not what is tried.
    ids.sort_unstable();
    for id in ids {
        let row = format!("id IN ({id}, {})", id + 1000);
        match random.below(10) {
            0 => sql.push_str(&format!(
                "SAVEPOINT a; UPDATE {s}counted SET ver = ver + 1, note = 'undone' WHERE {row}; ROLLBACK TO SAVEPOINT a; RELEASE SAVEPOINT a; "
            )),
            2 => sql.push_str(&format!(
                "UPDATE {s}counted SET id = CASE id WHEN {id} THEN {id} + 1000 ELSE {id} END, ver = ver + 1 WHERE {row}; "
            )),
            3 => sql.push_str(&format!(
                "SAVEPOINT b; UPDATE {s}counted SET ver = ver + 1, note = 'kept' WHERE {row}; RELEASE SAVEPOINT b; "
            )),
            4 => sql.push_str(&format!(
                "DELETE FROM {s}counted WHERE {row}; INSERT INTO {s}counted VALUES ({id}, {}, 'again'); ",
                random.below(1_000_000)
            )),
            5 if !pause.is_empty() => sql.push_str(&format!(
                "UPDATE {s}counted SET ver = ver + 1 WHERE {row}; {pause}; "
            )),
            _ => sql.push_str(&format!("UPDATE {s}counted SET ver = ver + 1, note = 'n{}' WHERE {row}; ", random.0 % 97)),
        }
    }
    sql.push_str(if random.below(10) == 0 { "ROLLBACK" } else { "COMMIT" });
    sql
}

/// Runs scripts on connections of their own, each in a transaction that is rolled back where it fails.
async fn write(db: &Db, writer: u64, budget: Budget) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (writer + 1));
    let s = db.prefix();
    let (begin, pause) = match db.schema().dialect {
        Dialect::Sqlite => ("BEGIN IMMEDIATE", ""),
        Dialect::Postgres { .. } => ("BEGIN", "SELECT pg_sleep(0.03)"),
        Dialect::Mysql => ("BEGIN", "DO sleep(0.03)"),
    };
    let mut scripts: Vec<String> = (0..budget.transactions).map(|_| script(&mut random, &s, begin, pause)).collect();
    if writer == 0 {
        let step = (scripts.len() / budget.bulks.max(1) as usize).max(1);
        for at in (0..scripts.len()).step_by(step) {
            scripts[at] = format!("UPDATE {s}counted SET ver = ver + 1");
        }
    }
    if db.schema().dialect == Dialect::Mysql {
        return mysql::run(db, scripts).await;
    }
    if s.is_empty() {
        let file = db.file();
        let written = tokio::task::spawn_blocking(move || {
            let connection = rusqlite::Connection::open(file).unwrap();
            connection.busy_timeout(Duration::from_secs(120)).unwrap();
            for script in scripts {
                if connection.execute_batch(&script).is_err() && !connection.is_autocommit() {
                    connection.execute_batch("ROLLBACK").unwrap();
                }
            }
        });
        return written.await.unwrap();
    }
    let url = crate::tests::postgres_url().unwrap();
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    for script in scripts {
        if client.batch_execute(&script).await.is_err() {
            client.batch_execute("ROLLBACK").await.unwrap();
        }
    }
}

/// Rows as a follower has them.
#[derive(Default)]
struct Replay {
    rows: BTreeMap<i64, String>,
    changes: usize,
}

fn id(row: &str) -> i64 {
    serde_json::from_str::<serde_json::Value>(row).unwrap()["id"].as_i64().unwrap()
}

impl Replay {
    fn of(rows: &[u8]) -> Self {
        let rows = std::str::from_utf8(rows).unwrap().trim_start_matches("[{").trim_end_matches("}]");
        let rows = rows.split("},{").map(|row| format!("{{{row}}}")).map(|row| (id(&row), row)).collect();
        Self { rows, changes: 0 }
    }

    fn apply(&mut self, transaction: &Transaction) {
        for change in &transaction.changes {
            let text = |image: &Bytes| String::from_utf8(image.to_vec()).unwrap();
            let (before, after) = (text(&change.before), text(&change.after));
            self.changes += 1;
            if !before.is_empty() {
                let known = self.rows.remove(&id(&before));
                assert_eq!(known.as_ref(), Some(&before), "the row before is the one that was told last: {after}");
            }
            if !after.is_empty() {
                let known = self.rows.insert(id(&after), after.clone());
                assert_eq!(known, None, "a row that was there is not inserted: {after}");
            }
        }
    }
}

/// Joins, replays some messages, leaves and comes back, until the last row is told.
async fn follow(db: &Db, number: u64, resumes: &AtomicUsize) -> Replay {
    let mut random = Random(0xdead_beef ^ (number + 1));
    // One way to start: the log, then a read, and what the read saw is left out. The other: after the position of a read.
    let mut log = Follower::of(db, &["counted"], Bytes::new()).await;
    let (rows, seen, position) = read_at(db, "counted").await;
    let mut seen = Some(seen);
    if number % 2 == 1 {
        log = Follower::of(db, &["counted"], position).await;
        seen = None;
    }
    let mut replay = Replay::of(&rows);
    while !replay.rows.contains_key(&LAST) {
        if seen.is_none() && random.below(40) == 0 {
            let position = log.position.clone();
            drop(log);
            log = Follower::of(db, &["counted"], position).await;
            resumes.fetch_add(1, Ordering::Relaxed);
        }
        match log.next().await.unwrap() {
            Event::Transaction(transaction) => {
                if seen.as_ref().is_none_or(|seen| !seen.sees(transaction.id)) {
                    replay.apply(&transaction);
                }
            }
            // It was too slow: it begins anew.
            Event::Resync(resync) if resync.reason() == ResyncReason::Overflow => {
                let (rows, now, _) = read_at(db, "counted").await;
                (replay.rows, seen) = (Replay::of(&rows).rows, Some(now));
            }
            other => panic!("{other:?}"),
        }
    }
    replay
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_log_that_is_replayed_gives_the_rows_that_are_there() {
    let budget = budget();
    for db in logs().await {
        let (s, db) = (db.prefix(), Arc::new(db));
        db.execute(&format!("CREATE TABLE {s}counted (id INTEGER PRIMARY KEY, ver BIGINT NOT NULL, note TEXT)")).await;
        let rows: Vec<String> = (1..=ROWS).map(|id| format!("({id}, 0, 'first')")).collect();
        db.execute(&format!("INSERT INTO {s}counted VALUES {}", rows.join(", "))).await;
        assert!(db.database.refresh().await.unwrap());
        let kept = Follower::of(&db, &["counted"], Bytes::new()).await;

        let writers: Vec<_> = (0..budget.writers)
            .map(|writer| {
                let db = db.clone();
                tokio::spawn(async move { write(&db, writer, budget).await })
            })
            .collect();
        let resumes = Arc::new(AtomicUsize::new(0));
        let followers: Vec<_> = (0..budget.followers)
            .map(|number| {
                let (db, resumes) = (db.clone(), resumes.clone());
                tokio::spawn(async move { follow(&db, number, &resumes).await })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
        db.execute(&format!("INSERT INTO {s}counted VALUES ({LAST}, 0, 'last')")).await;
        let (rows, ..) = read_at(&db, "counted").await;
        let there = Replay::of(&rows).rows;
        let mut changes = 0;
        for follower in followers {
            let replay = follower.await.unwrap();
            assert_eq!(replay.rows, there);
            changes = changes.max(replay.changes);
        }
        eprintln!("{:?}: {changes} changes, {resumes:?} resumes", db.schema().dialect.engine());
        assert!(changes > 300 && resumes.load(Ordering::Relaxed) > 0);
        drop(kept);
    }
}
