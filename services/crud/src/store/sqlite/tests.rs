//! What holds for SQLite alone.

use query::{Type, Typed};

use super::*;
use crate::{
    cell::Cell,
    store::{FormedColumn, PlainStatement},
};

fn statement(text: &str, columns: &[Type]) -> Statement {
    let columns = columns.iter().map(|r#type| (*r#type).into()).collect();
    Statement { text: text.into(), args: Vec::new(), columns, sources: Vec::new(), plain: None }
}

fn file() -> (tempfile::TempDir, Sqlite) {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::open(&folder.path().join("a/b/test.db"), &[], &Tasks::default()).unwrap();
    (folder, store)
}

/// A connection that is idle, or a new one.
fn reader(store: &Sqlite) -> Box<Reader> {
    store.inner.idle().unwrap_or_else(|| Box::new(Reader::open(&store.inner.path).unwrap()))
}

/// Counts for as long as `rows` take.
fn count_to(rows: u64) -> Statement {
    let text = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1) SELECT count(*) FROM n";
    Statement { args: vec![Typed::Int(rows as i64).into()], ..statement(text, &[Type::Int64]) }
}

#[tokio::test]
async fn a_long_read_moves_to_another_thread_and_answers() {
    let (_folder, store) = file();
    let rows = store.snapshot(&[count_to(300_000), count_to(1)], &Budget::unlimited()).await.unwrap();
    assert_eq!(rows[0].cell(0, 0), Cell::Int(300_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_nobody_waits_for_stops() {
    let (_folder, store) = file();
    let endless = tokio::spawn({
        let store = store.clone();
        async move { store.snapshot(&[count_to(u64::MAX >> 1)], &Budget::unlimited()).await.map(|_| ()) }
    });
    while store.inner.blocking_reads.available_permits() == BLOCKING_READS {
        tokio::task::yield_now().await;
    }
    endless.abort();
    assert!(endless.await.unwrap_err().is_cancelled());
    // The reader comes back only when its statement has stopped.
    while store.inner.readers().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(store.inner.blocking_reads.available_permits(), BLOCKING_READS);
}

#[test]
fn an_interrupted_snapshot_leaves_its_reader_usable() {
    let (_folder, store) = file();
    for _ in 0..200 {
        let interrupted = store.inner.read(reader(&store), &Interrupt::After(1), Instant::now(), |reader| {
            snapshot(reader, &[count_to(10), count_to(2000), count_to(5000)], UNLIMITED, &store.inner.plain)
        });
        assert!(matches!(interrupted, Err(SqliteError::Interrupted)), "{interrupted:?}");
    }
    let rows = store.inner.read(reader(&store), &Interrupt::After(u32::MAX), Instant::now(), |reader| {
        snapshot(reader, &[count_to(1), count_to(2)], UNLIMITED, &store.inner.plain)
    });
    assert_eq!(rows.unwrap().0[1].cell(0, 0), Cell::Int(2));
    assert_eq!(store.inner.readers().len(), 1);
}

#[tokio::test]
async fn a_transaction_that_is_dropped_leaves_nothing() {
    let (_folder, store) = file();
    store.write(&statement("CREATE TABLE t (a INTEGER)", &[]), None).await.unwrap();
    let insert = statement("INSERT INTO t VALUES (1)", &[]);
    let mut tx = store.begin().await.unwrap();
    assert_eq!(tx.run(std::slice::from_ref(&insert), &Budget::unlimited()).await.unwrap()[0].len(), 1);
    drop(tx);
    let mut tx = store.begin().await.unwrap();
    tx.run(&[insert.clone(), insert.clone()], &Budget::unlimited()).await.unwrap();
    assert!(tx.run(&[statement("INSERT INTO missing VALUES (1)", &[])], &Budget::unlimited()).await.is_err());
    assert!(
        tx.run(std::slice::from_ref(&insert), &Budget::unlimited()).await.is_err(),
        "a failed transaction has ended"
    );
    assert!(tx.commit().await.is_err());
    let rows =
        store.snapshot(&[statement("SELECT count(*) FROM t", &[Type::Int64])], &Budget::unlimited()).await.unwrap();
    assert_eq!(rows[0].cell(0, 0), Cell::Int(0));
}

#[tokio::test]
async fn readers_do_not_write() {
    let (_folder, store) = file();
    store.write(&statement("CREATE TABLE t (a INTEGER)", &[]), None).await.unwrap();
    let written = store.snapshot(&[statement("INSERT INTO t VALUES (1)", &[])], &Budget::unlimited()).await;
    let Err(StatementError { error: Error::Refused { code, .. }, statement: Some(0) }) = &written else {
        panic!("{written:?}")
    };
    assert_eq!(*code, mesh::Code::Denied);
}

#[test]
fn a_file_is_made_as_a_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let (path, good, bad) = (folder.path().join("x.db"), folder.path().join("good.sql"), folder.path().join("bad.sql"));
    std::fs::write(&good, "BEGIN; CREATE TABLE t (a); INSERT INTO t VALUES (1); COMMIT;").unwrap();
    std::fs::write(&bad, "INSERT INTO t VALUES (2); INSERT INTO nowhere VALUES (1);").unwrap();

    let failed = Sqlite::open(&path, &[good.clone(), bad.clone()], &Tasks::default()).unwrap_err();
    assert!(failed.cause().is_some_and(|cause| cause.contains("bad.sql") && cause.contains("nowhere")), "{failed:?}");
    assert!(!path.exists());
    Sqlite::open(&path, &[good], &Tasks::default()).unwrap();
    // The second time the file is there, and nothing is run.
    Sqlite::open(&path, &[bad], &Tasks::default()).unwrap();

    let mut left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.retain(|name| name.to_string_lossy().contains("draft"));
    assert_eq!(left, [""; 0]);
    let missing = Sqlite::existing(&folder.path().join("missing.db"), &Tasks::default()).unwrap_err();
    assert!(matches!(missing, Error::Unavailable(_)), "{missing:?}");
}

#[tokio::test]
async fn what_is_no_database_is_unavailable() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.db");
    std::fs::write(&path, "no database, but long enough to be taken for one at first sight: ".repeat(99)).unwrap();
    assert!(matches!(Sqlite::open(&path, &[], &Tasks::default()), Err(Error::Unavailable(_))));
}

#[tokio::test]
async fn writes_that_wait_together_fail_apart() {
    let (_folder, store) = file();
    for sql in [
        "CREATE TABLE t (a INTEGER PRIMARY KEY)",
        "CREATE TABLE late (a INTEGER REFERENCES t DEFERRABLE INITIALLY DEFERRED)",
        "CREATE TRIGGER worst BEFORE INSERT ON t WHEN NEW.a = 99 BEGIN SELECT RAISE(ROLLBACK, 'all of it'); END",
    ] {
        store.write(&statement(sql, &[]), None).await.unwrap();
    }
    let insert = |sql: String| {
        let store = store.clone();
        async move { store.write(&statement(&sql, &[]), None).await.map(|rows| rows.len()) }
    };
    let count = async |table: &str| {
        let sql = format!("SELECT count(*) FROM {table}");
        match store.snapshot(&[statement(&sql, &[Type::Int64])], &Budget::unlimited()).await.unwrap()[0].cell(0, 0) {
            Cell::Int(count) => count,
            other => panic!("{other:?}"),
        }
    };
    let conflict = Err(Error::Conflict { columns: vec!["a".to_owned()] });

    let held = store.lease().await;
    let writes = futures::future::join_all([1, 2, 1, 3].map(|a| insert(format!("INSERT INTO t VALUES ({a})"))));
    let (done, ()) = tokio::join!(writes, async { drop(held) });
    assert_eq!(done, [Ok(1), Ok(1), conflict, Ok(1)]);
    assert_eq!(count("t").await, 3);

    // One that undoes all of the transaction, and one that fails at its end.
    let held = store.lease().await;
    let writes = ["t VALUES (4)", "t VALUES (99)", "late VALUES (7)", "t VALUES (5)", "late VALUES (5)"];
    let writes = futures::future::join_all(writes.map(|values| insert(format!("INSERT INTO {values}"))));
    let (done, ()) = tokio::join!(writes, async { drop(held) });
    let outcomes: Vec<bool> = done.iter().map(Result::is_ok).collect();
    assert_eq!(outcomes, [true, false, false, true, true], "{done:?}");
    assert_eq!((count("t").await, count("late").await), (5, 1));

    // One that nobody waits for is not done.
    let held = store.lease().await;
    let mut abandoned = Box::pin(insert("INSERT INTO t VALUES (50)".to_owned()));
    assert!(futures::poll!(&mut abandoned).is_pending());
    drop(abandoned);
    drop(held);
    assert_eq!(insert("INSERT INTO t VALUES (51)".to_owned()).await, Ok(1));
    assert_eq!(count("t").await, 6);
}

/// A table `t` with a column `a`, and what counts its rows.
async fn counted(store: &Sqlite) -> Statement {
    store.write(&statement("CREATE TABLE t (a INTEGER)", &[]), None).await.unwrap();
    statement("SELECT count(*) FROM t", &[Type::Int64])
}

/// What another program does to the file.
fn stranger(folder: &tempfile::TempDir) -> Connection {
    let stranger = Connection::open(folder.path().join("a/b/test.db")).unwrap();
    stranger.execute_batch("PRAGMA synchronous = OFF; PRAGMA busy_timeout = 0").unwrap();
    stranger
}

/// Whether the log could be copied and cut off, which takes that nobody uses it.
fn is_cut(stranger: &Connection) -> bool {
    stranger.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0)).unwrap() == 0
}

#[tokio::test]
async fn what_anybody_commits_is_read_at_once() {
    let (folder, store) = file();
    let count = counted(&store).await;
    let stranger = stranger(&folder);
    for round in 0..300 {
        let who = round % 3;
        if who == 0 {
            store.write(&statement("INSERT INTO t VALUES (1)", &[]), None).await.unwrap();
        } else {
            stranger.execute_batch("INSERT INTO t VALUES (1)").unwrap();
        }
        if round % 50 == 0 {
            stranger.execute_batch("PRAGMA wal_checkpoint(PASSIVE)").unwrap();
        }
        for _ in 0..=who {
            let rows = store.snapshot(std::slice::from_ref(&count), &Budget::unlimited()).await.unwrap();
            assert_eq!(rows[0].cell(0, 0), Cell::Int(round + 1));
        }
    }
    assert_eq!(store.inner.readers().len(), 1);
}

#[tokio::test]
async fn a_table_that_another_program_alters_is_read_as_it_is() {
    let (folder, store) = file();
    counted(&store).await;
    let stranger = stranger(&folder);
    store.snapshot(&[statement("SELECT a FROM t", &[Type::Int64])], &Budget::unlimited()).await.unwrap();
    stranger.execute_batch("ALTER TABLE t ADD COLUMN b INTEGER DEFAULT 7; INSERT INTO t (a) VALUES (1)").unwrap();
    let rows = store
        .snapshot(&[statement("SELECT a, b FROM t", &[Type::Int64, Type::Int64])], &Budget::unlimited())
        .await
        .unwrap();
    assert_eq!(rows[0].cell(0, 1), Cell::Int(7));
}

#[tokio::test]
async fn a_snapshot_is_kept_for_the_next_read_and_ends_when_none_comes() {
    let (folder, store) = file();
    let count = counted(&store).await;
    let stranger = stranger(&folder);
    store.snapshot(&[count.clone(), count.clone()], &Budget::unlimited()).await.unwrap();
    stranger.execute_batch("INSERT INTO t VALUES (1)").unwrap();
    assert!(!is_cut(&stranger), "the snapshot is kept");
    let end = Instant::now() + Duration::from_secs(30);
    while !is_cut(&stranger) {
        assert!(Instant::now() < end, "the snapshot does not end");
        tokio::time::sleep(reader::SNAPSHOT_LIFETIME / 10).await;
    }
    assert!(!store.inner.is_watched.load(Ordering::Relaxed));
    // And once more: whoever watched has ended.
    store.snapshot(std::slice::from_ref(&count), &Budget::unlimited()).await.unwrap();
    stranger.execute_batch("INSERT INTO t VALUES (1)").unwrap();
    while !is_cut(&stranger) {
        assert!(Instant::now() < end, "the snapshot does not end");
        tokio::time::sleep(reader::SNAPSHOT_LIFETIME / 10).await;
    }
}

#[tokio::test]
async fn a_log_that_is_copied_can_be_cut_while_everybody_reads() {
    let (folder, store) = file();
    let count = counted(&store).await;
    let stranger = stranger(&folder);
    for outcome in [false, true] {
        store.snapshot(std::slice::from_ref(&count), &Budget::unlimited()).await.unwrap();
        assert_eq!(is_cut(&stranger), outcome);
    }
    assert!(store.inner.is_watched.load(Ordering::Relaxed));
}

#[tokio::test]
async fn snapshots_that_are_kept_do_not_keep_the_log_from_starting_anew() {
    let (folder, store) = file();
    let count = counted(&store).await;
    let stranger = stranger(&folder);
    for round in 1..=500 {
        stranger.execute_batch("INSERT INTO t VALUES (zeroblob(36000))").unwrap();
        let rows = store.snapshot(std::slice::from_ref(&count), &Budget::unlimited()).await.unwrap();
        assert_eq!(rows[0].cell(0, 0), Cell::Int(round));
    }
    // Of five thousand frames, as many as are written before the log is copied, and some more.
    let log = std::fs::metadata(folder.path().join("a/b/test.db-wal")).unwrap().len();
    assert!(log < 1200 * 4200, "the log has {log} bytes");
}

#[tokio::test]
async fn a_snapshot_that_is_read_all_the_time_ends_as_well() {
    let (_folder, store) = file();
    let count = counted(&store).await;
    let mut reader = Reader::open(&store.inner.path).unwrap();
    let mut read = || {
        let rows = reader.read(&Interrupt::After(u32::MAX), Instant::now(), |reader| {
            snapshot(reader, std::slice::from_ref(&count), UNLIMITED, &PlainColumns::default())
        });
        rows.unwrap();
        reader.since().unwrap()
    };
    let (first, begun) = (read(), Instant::now());
    while read() == first {
        assert!(begun.elapsed() < Duration::from_secs(30), "the snapshot does not end");
    }
}

#[tokio::test]
async fn the_first_read_opens_its_connection_on_another_thread() {
    let (_folder, store) = file();
    let (one, budget) = ([count_to(1)], Budget::unlimited());
    let opening = store.inner.opening.lock().await;
    let mut first = Box::pin(store.snapshot(&one, &budget));
    assert!(futures::poll!(&mut first).is_pending());
    drop(opening);
    assert_eq!(first.await.unwrap()[0].cell(0, 0), Cell::Int(1));
    assert!(futures::poll!(Box::pin(store.snapshot(&one, &budget))).is_ready());
    assert_eq!(store.inner.readers().len(), 1);
}

#[tokio::test]
async fn a_read_that_was_slow_does_not_hold_up_the_runtime_again_until_it_is_quick() {
    let (_folder, store) = file();
    let (slow, quick, budget) = ([count_to(300_000)], [count_to(1)], Budget::unlimited());
    store.snapshot(&slow, &budget).await.unwrap();
    assert!(store.inner.slow.contain(&quick), "it is the same text");
    // A busy machine may take long for the quick one too.
    while store.inner.slow.contain(&quick) {
        let turns = store.inner.blocking_reads.acquire_many(BLOCKING_READS as u32).await.unwrap();
        let mut read = Box::pin(store.snapshot(&quick, &budget));
        assert!(futures::poll!(&mut read).is_pending());
        drop(turns);
        assert_eq!(read.await.unwrap()[0].cell(0, 0), Cell::Int(1));
    }
    assert!(futures::poll!(Box::pin(store.snapshot(&quick, &budget))).is_ready());
}

#[tokio::test]
async fn a_write_whose_rows_have_no_room_is_undone_alone_and_among_others() {
    let (_folder, store) = file();
    let count = counted(&store).await;
    let insert = |values: &str| statement(&format!("INSERT INTO t VALUES {values} RETURNING a"), &[Type::Int64]);
    let (many, one) = (insert("(1), (2), (3)"), insert("(4)"));
    let room = Some(Room { bytes: 40, limit: 5 });

    assert_eq!(store.write(&many, room).await.map(|rows| rows.len()), Err(crate::budget::too_large(5)));
    assert_eq!(store.write(&one, room).await.map(|rows| rows.len()), Ok(1));
    let held = store.lease().await;
    let both = futures::future::join(store.write(&many, room), store.write(&one, room));
    let ((many, one), ()) = tokio::join!(both, async { drop(held) });

    assert_eq!(many.map(|rows| rows.len()), Err(crate::budget::too_large(5)));
    assert_eq!(one.map(|rows| rows.len()), Ok(1));
    let rows = store.snapshot(&[count], &Budget::unlimited()).await.unwrap();
    assert_eq!(rows[0].cell(0, 0), Cell::Int(2));
}

#[tokio::test]
async fn a_read_that_waits_for_another_process_stops_when_nobody_waits_for_it() {
    let (folder, store) = file();
    store.write(&statement("CREATE TABLE t (a INTEGER)", &[]), None).await.unwrap();
    let stranger = stranger(&folder);
    stranger.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut tx = store.begin().await.unwrap();
    let (insert, budget) = ([statement("INSERT INTO t VALUES (1)", &[])], Budget::unlimited());
    let mut waiting = Box::pin(tx.run(&insert, &budget));
    assert!(futures::poll!(&mut waiting).is_pending());
    let start = Instant::now();
    drop(waiting);
    drop(tx);
    drop(store.lease().await);
    assert!(start.elapsed() < BUSY_TIMEOUT / 2, "{:?}", start.elapsed());
}

/// A statement that answers 1 on the forms of `t.at`, and 2 on values as they are stored.
fn formed() -> Statement {
    let column = FormedColumn { table: "t".to_owned(), column: "at".to_owned(), function: "perigee_timestamp" };
    let plain = PlainStatement { text: "SELECT 2".into(), columns: [column].into() };
    Statement { plain: Some(plain), ..statement("SELECT 1", &[Type::Int64]) }
}

async fn is_plain(store: &Sqlite) -> bool {
    let rows = store.snapshot(&[formed()], &Budget::unlimited()).await.unwrap();
    rows[0].cell(0, 0) == Cell::Int(2)
}

/// Scans the column whenever it may be, until the statement has the outcome.
async fn becomes_plain(store: &Sqlite) {
    while !is_plain(store).await {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn statements_run_on_values_as_they_are_stored_once_all_are_known_to_have_their_form() {
    let (_folder, store) = file();
    let other = Connection::open(&store.inner.path).unwrap();
    other.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, at DATETIME)").unwrap();
    let insert = |at: &str| statement(&format!("INSERT INTO t (at) VALUES ('{at}')"), &[]);
    store.write(&insert("2020-07-17 21:56:16"), None).await.unwrap();
    assert!(!is_plain(&store).await, "nobody has looked yet");
    becomes_plain(&store).await;

    store.write(&insert("2020-07-17 21:56:17"), None).await.unwrap();
    let mut tx = store.begin().await.unwrap();
    tx.run(&[insert("2020-07-17 21:56:18")], &Budget::unlimited()).await.unwrap();
    tx.commit().await.unwrap();
    assert!(is_plain(&store).await, "what this server writes has the form");

    other.execute_batch("INSERT INTO t (at) VALUES ('2020-07-17T21:56:16Z')").unwrap();
    assert!(!is_plain(&store).await, "nobody knows what others wrote");
}

#[tokio::test]
async fn a_transaction_runs_on_values_as_they_are_stored_where_it_keeps_their_form() {
    let (_folder, store) = file();
    let other = Connection::open(&store.inner.path).unwrap();
    other.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, at DATETIME)").unwrap();
    becomes_plain(&store).await;
    let insert = statement("INSERT INTO t (at) VALUES ('2020-07-17 21:56:16')", &[]);
    let is_plain = async |tx: &mut SqliteTx| {
        let rows = tx.run(&[insert.clone(), formed()], &Budget::unlimited()).await.unwrap();
        rows[1].cell(0, 0) == Cell::Int(2)
    };
    let mut tx = store.begin().await.unwrap();
    assert!(is_plain(&mut tx).await && is_plain(&mut tx).await);
    tx.commit().await.unwrap();

    other.execute_batch("INSERT INTO t (at) VALUES (5)").unwrap();
    let mut tx = store.begin().await.unwrap();
    assert!(!is_plain(&mut tx).await, "nobody knows what others wrote");
}

#[tokio::test]
async fn a_commit_that_changes_nothing_is_not_taken_for_the_next_of_another_program() {
    let (_folder, store) = file();
    let other = Connection::open(&store.inner.path).unwrap();
    other.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, at DATETIME)").unwrap();
    store.write(&statement("INSERT INTO t (at) VALUES ('2020-07-17 21:56:16')", &[]), None).await.unwrap();
    becomes_plain(&store).await;
    let lease = store.lease().await;
    for nothing in ["DELETE FROM t WHERE id > 1", "UPDATE t SET at = at"] {
        lease.writer.execute_batch("BEGIN IMMEDIATE").unwrap();
        let begun = store.inner.begun(&lease.writer);
        lease.writer.execute_batch(nothing).unwrap();
        lease.writer.execute_batch("COMMIT").unwrap();
        assert!(is_plain(&store).await, "{nothing}");
        other.execute_batch("INSERT INTO t (at) VALUES ('2020-07-17T21:56:16Z')").unwrap();
        store.inner.committed(&lease.writer, begun);
        assert!(!is_plain(&store).await, "{nothing}");
        other.execute_batch("DELETE FROM t WHERE id > 1").unwrap();
        store.inner.plain.scanned(formed().plain.unwrap().columns[0].clone(), Instant::now(), None);
        let scan = plain::Scan { is_plain: true, keeps: true };
        let header = store.inner.wal.as_ref().unwrap().header();
        store.inner.plain.scanned(formed().plain.unwrap().columns[0].clone(), Instant::now(), Some((scan, header)));
    }
}

#[tokio::test]
async fn a_column_with_other_forms_is_compared_by_them() {
    let (_folder, store) = file();
    store.write(&statement("CREATE TABLE t (id INTEGER PRIMARY KEY, at DATETIME)", &[]), None).await.unwrap();
    for at in ["'2020-07-17T21:56:16Z'", "1595022976", "'soon'"] {
        store.write(&statement("DELETE FROM t", &[]), None).await.unwrap();
        store.write(&statement(&format!("INSERT INTO t (at) VALUES (NULL), ({at})"), &[]), None).await.unwrap();
        let reader = Connection::open(&store.inner.path).unwrap();
        form::define(&reader).unwrap();
        let scan = plain::scan(&reader, &formed().plain.unwrap().columns[0]).unwrap();
        assert_eq!(scan, plain::Scan { is_plain: false, keeps: false }, "{at}");
    }
}

#[test]
fn only_writes_of_this_server_keep_the_form() {
    let reader = Connection::open_in_memory().unwrap();
    form::define(&reader).unwrap();
    reader
        .execute_batch(
            "CREATE TABLE held (at DATETIME, made DATETIME DEFAULT (datetime('now')), text TEXT, twice AS (at),
                             parent DATETIME REFERENCES p (at) ON UPDATE CASCADE, soon DATETIME DEFAULT 'soon',
                             seconds DATETIME DEFAULT 5, day DATETIME DEFAULT CURRENT_DATE,
                             current DATETIME DEFAULT CURRENT_TIMESTAMP, unset DATETIME DEFAULT NULL,
                             first DATETIME DEFAULT '2020-07-17 21:56:16', quoted DATETIME DEFAULT 'it''s');
             CREATE TABLE p (at DATETIME UNIQUE);
             CREATE TABLE \"a\"\"b\" (at DATETIME);
             CREATE TRIGGER y AFTER INSERT ON p BEGIN DELETE FROM p; END;",
        )
        .unwrap();
    let keeps = |table: &str, column: &str| {
        let column = FormedColumn { table: table.to_owned(), column: column.to_owned(), function: "perigee_timestamp" };
        plain::scan(&reader, &column).unwrap().keeps
    };
    for column in ["at", "current", "unset", "first"] {
        assert!(keeps("held", column), "{column}");
    }
    for column in ["made", "text", "twice", "parent", "soon", "seconds", "day", "quoted"] {
        assert!(!keeps("held", column), "{column}");
    }
    assert!(!keeps("p", "at") && !keeps("a\"b", "at"));
    reader.execute_batch("CREATE TRIGGER x AFTER INSERT ON p BEGIN UPDATE Held SET at = 5; END").unwrap();
    assert!(!keeps("held", "at"));
}
