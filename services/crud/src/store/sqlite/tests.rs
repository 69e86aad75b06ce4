//! What holds for SQLite alone.

use query::Type;

use super::*;
use crate::{cell::Cell, store::Bind};

fn statement(text: &str, columns: &[Type]) -> Statement {
    let columns = columns.iter().map(|r#type| (*r#type).into()).collect();
    Statement { text: text.into(), args: Vec::new(), columns }
}

fn file() -> (tempfile::TempDir, Sqlite) {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::open(&folder.path().join("a/b/test.db"), &[]).unwrap();
    (folder, store)
}

/// Counts for as long as `rows` take.
fn count_to(rows: u64) -> Statement {
    let text = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1) SELECT count(*) FROM n";
    Statement { args: vec![Bind::Int(Type::Int64, rows as i64)], ..statement(text, &[Type::Int64]) }
}

#[tokio::test]
async fn a_long_read_moves_to_another_thread_and_answers() {
    let (_folder, store) = file();
    let rows = store.snapshot(&[count_to(300_000), count_to(1)]).await.unwrap();
    assert_eq!(rows[0].cell(0, 0), Cell::Int(300_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_nobody_waits_for_stops() {
    let (_folder, store) = file();
    let endless = tokio::spawn({
        let store = store.clone();
        async move { store.snapshot(&[count_to(u64::MAX >> 1)]).await.map(|_| ()) }
    });
    while store.inner.long_reads.available_permits() == LONG_READS {
        tokio::task::yield_now().await;
    }
    endless.abort();
    assert!(endless.await.unwrap_err().is_cancelled());
    // The reader comes back only when its statement has stopped.
    while store.inner.readers.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(store.inner.long_reads.available_permits(), LONG_READS);
}

#[test]
fn an_interrupted_snapshot_leaves_its_reader_usable() {
    let (_folder, store) = file();
    for _ in 0..200 {
        let interrupted = store.inner.read(&Stop::Budget(Duration::ZERO), |reader| {
            snapshot(reader, &[count_to(10), count_to(2000), count_to(5000)])
        });
        assert!(matches!(interrupted, Err(Failure::Interrupted)), "{interrupted:?}");
    }
    let rows = store.inner.read(&Stop::Budget(Duration::MAX), |reader| snapshot(reader, &[count_to(1), count_to(2)]));
    assert_eq!(rows.unwrap()[1].cell(0, 0), Cell::Int(2));
    assert_eq!(store.inner.readers.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_transaction_that_is_dropped_leaves_nothing() {
    let (_folder, store) = file();
    store.write(&statement("CREATE TABLE t (a INTEGER)", &[])).await.unwrap();
    let insert = statement("INSERT INTO t VALUES (1)", &[]);
    let mut tx = store.begin().await.unwrap();
    assert_eq!(tx.run(std::slice::from_ref(&insert)).await.unwrap()[0].len(), 1);
    drop(tx);
    let mut tx = store.begin().await.unwrap();
    tx.run(&[insert.clone(), insert.clone()]).await.unwrap();
    assert!(tx.run(&[statement("INSERT INTO missing VALUES (1)", &[])]).await.is_err());
    assert!(tx.run(std::slice::from_ref(&insert)).await.is_err(), "a failed transaction has ended");
    assert!(tx.commit().await.is_err());
    let rows = store.snapshot(&[statement("SELECT count(*) FROM t", &[Type::Int64])]).await.unwrap();
    assert_eq!(rows[0].cell(0, 0), Cell::Int(0));
}

#[tokio::test]
async fn readers_do_not_write() {
    let (_folder, store) = file();
    store.write(&statement("CREATE TABLE t (a INTEGER)", &[])).await.unwrap();
    let written = store.snapshot(&[statement("INSERT INTO t VALUES (1)", &[])]).await;
    assert!(matches!(written, Err(Error::Database(_))), "{written:?}");
}

#[test]
fn a_file_is_made_as_a_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let (path, good, bad) = (folder.path().join("x.db"), folder.path().join("good.sql"), folder.path().join("bad.sql"));
    std::fs::write(&good, "BEGIN; CREATE TABLE t (a); INSERT INTO t VALUES (1); COMMIT;").unwrap();
    std::fs::write(&bad, "INSERT INTO t VALUES (2); INSERT INTO nowhere VALUES (1);").unwrap();

    let failed = Sqlite::open(&path, &[good.clone(), bad.clone()]).unwrap_err();
    assert!(failed.cause().is_some_and(|cause| cause.contains("bad.sql") && cause.contains("nowhere")), "{failed:?}");
    assert!(!path.exists());
    Sqlite::open(&path, &[good]).unwrap();
    // The second time the file is there, and nothing is run.
    Sqlite::open(&path, &[bad]).unwrap();

    let mut left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.retain(|name| name.to_string_lossy().contains("draft"));
    assert_eq!(left, [""; 0]);
    let missing = Sqlite::existing(&folder.path().join("missing.db")).unwrap_err();
    assert!(matches!(missing, Error::Unavailable(_)), "{missing:?}");
}

#[tokio::test]
async fn what_is_no_database_is_unavailable() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.db");
    std::fs::write(&path, "no database, but long enough to be taken for one at first sight: ".repeat(99)).unwrap();
    assert!(matches!(Sqlite::open(&path, &[]), Err(Error::Unavailable(_))));
}
