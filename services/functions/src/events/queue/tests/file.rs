//! A queue in a file: of one node at a time, readable by its owner alone, and as earlier versions left it.

use mesh::config::QueueConfig;

use super::{ended, event, ids, lease, position, status, table};
use crate::events::queue::{Queue, QueueError, delivery::Fate};

const FILE: QueueConfig = QueueConfig::File {};

#[tokio::test]
async fn one_node_has_a_queue_and_commands_stand_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let queue = Queue::open(&FILE, folder.path()).await.unwrap();
    queue.hold(&table(), None).await.unwrap();
    queue.take(&table(), &position(b"1"), &[event("e1", None)], 0).await.unwrap();
    assert!(matches!(Queue::open(&FILE, folder.path()).await, Err(QueueError::Locked)));
    let beside = Queue::beside(&FILE, folder.path()).await.unwrap();
    assert_eq!(status(&beside, "e1").await, ("pending".to_owned(), 0));
    drop((queue, beside));
    Queue::open(&FILE, folder.path()).await.unwrap();
    let other = tempfile::tempdir().unwrap();
    assert!(matches!(Queue::beside(&FILE, other.path()).await, Err(QueueError::Absent(_))));
}

#[tokio::test]
async fn what_a_process_had_that_was_killed_is_free_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let queue = Queue::open(&FILE, folder.path()).await.unwrap();
    queue.hold(&table(), None).await.unwrap();
    queue.take(&table(), &position(b"1"), &[event("e1", None), event("e2", None)], 0).await.unwrap();
    let (leases, _) = lease(&queue, 1, 0).await;
    drop(queue);
    let queue = Queue::open(&FILE, folder.path()).await.unwrap();
    let (again, _) = lease(&queue, 9, 0).await;
    assert_eq!((ids(&again), again[0].attempts, again[1].attempts), (vec!["e1", "e2"], 2, 1));
    assert_eq!(queue.end(&[ended(&leases[0], Fate::Processed)], 1).await.unwrap().attempts, 0);
    assert!(queue.hold(&table(), None).await.unwrap());
}

#[cfg(unix)]
#[tokio::test]
async fn its_file_is_of_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let _queue = Queue::open(&FILE, folder.path()).await.unwrap();
    for file in ["events.db", "events.db-wal"] {
        let mode = folder.path().join("functions").join(file).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[tokio::test]
async fn a_file_of_an_earlier_version_keeps_its_events_and_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("functions/events.db");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&file).create_if_missing(true);
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let mut first = sqlx::migrate!("migrations/sqlite");
    first.migrations.to_mut().truncate(1);
    first.run(&pool).await.unwrap();
    sqlx::raw_sql(
        "INSERT INTO followed_tables VALUES ('shop', 'music', 'invoice', x'31', 5, 1);
         INSERT INTO events (id, project, trigger_id, type, body, order_key, status, created_ms, since_ms, due_ms,
             finished_ms, lease_until_ms) VALUES
             ('a1', 'shop', 'a', 'DB_INSERT', x'7b7d', x'61', 'running', 0, 0, 0, NULL, 5),
             ('a2', 'shop', 'a', 'DB_INSERT', x'7b7d', x'61', 'pending', 0, 0, 0, NULL, NULL),
             ('b1', 'shop', 'a', 'DB_INSERT', x'7b7d', x'62', 'processed', 0, 0, 0, 9, NULL),
             ('b2', 'shop', 'a', 'DB_INSERT', x'7b7d', x'62', 'pending', 0, 0, 0, NULL, NULL);",
    )
    .execute(&pool)
    .await
    .unwrap();
    pool.close().await;

    let queue = Queue::open(&FILE, folder.path()).await.unwrap();
    let (leases, _) = lease(&queue, 9, 0).await;
    assert_eq!(ids(&leases), ["a1", "b2"]);
    queue.end(&[ended(&leases[0], Fate::Processed)], 1).await.unwrap();
    assert_eq!(ids(&lease(&queue, 9, 1).await.0), ["a2"]);
    assert_eq!(queue.position(&table()).await.unwrap().unwrap().transaction, 5);
}
