//! The log of changes: each change of a row once, in order, with the rows that a read would have answered.

use std::{pin::Pin, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt};
use proto::crud::{Event, LogResponse, Operation, Resync, ResyncReason, Transaction};
use query::resources::Numbers;
use serde_json::json;

use super::support::{Db, engines, logs, meshes, over_nats, read, same_file, same_schema};
use crate::{Error, sql::Dialect};

mod drain;
mod images;
mod mysql;
mod mysql_server;
mod nodes;
mod postgres;
mod replay;
mod slot;
mod sqlite;

/// What a log tells a follower.
pub struct Follower {
    messages: Pin<Box<dyn Stream<Item = Result<LogResponse, Error>> + Send>>,
    /// The position of the last message.
    pub position: Bytes,
    /// What it was told to have missed before it started.
    missed: Option<Resync>,
}

impl Follower {
    /// A follower that has been told that it started.
    pub async fn of(db: &Db, tables: &[&str], after: Bytes) -> Self {
        let mut follower = Self::not_started(db, tables, after.clone());
        loop {
            match follower.next().await {
                Ok(Event::Started(_)) => return follower,
                Ok(Event::Resync(missed)) if follower.missed.is_none() => follower.missed = Some(missed),
                // Another test holds a lock.
                Err(Error::Refused { .. }) => follower = Self::not_started(db, tables, after.clone()),
                other => panic!("{other:?}"),
            }
        }
    }

    pub fn not_started(db: &Db, tables: &[&str], after: Bytes) -> Self {
        let tables = tables.iter().map(|table| (*table).to_owned()).collect();
        let messages = Box::pin(db.database.follow(tables, after, Numbers::Exact).unwrap());
        Self { messages, position: Bytes::new(), missed: None }
    }

    pub async fn next(&mut self) -> Result<Event, Error> {
        let message = tokio::time::timeout(Duration::from_secs(60), self.messages.next()).await;
        let message = message.expect("it is told something").expect("it goes on")?;
        self.position = message.position;
        Ok(message.event.expect("each message has an event"))
    }

    /// Whether there is nothing to take now.
    pub fn is_idle(&mut self) -> bool {
        self.messages.next().now_or_never().is_none()
    }

    /// The changes of the next transaction, as `TABLE OPERATION BEFORE AFTER`.
    pub async fn changes(&mut self) -> Vec<String> {
        match self.next().await.unwrap() {
            Event::Transaction(transaction) => told(&transaction),
            other => panic!("changes, not {other:?}"),
        }
    }

    /// So many changes of the next transactions.
    pub async fn so_many(&mut self, count: usize) -> Vec<String> {
        let mut changes = Vec::new();
        while changes.len() < count {
            changes.extend(self.changes().await);
        }
        assert_eq!(changes.len(), count, "{changes:?}");
        changes
    }

    pub async fn resync(&mut self) -> Resync {
        if let Some(missed) = self.missed.take() {
            return missed;
        }
        match self.next().await.unwrap() {
            Event::Resync(resync) => resync,
            other => panic!("a resync, not {other:?}"),
        }
    }
}

/// The changes of a transaction.
pub fn told(transaction: &Transaction) -> Vec<String> {
    let text = |image: &Bytes| String::from_utf8(image.to_vec()).unwrap();
    let change = |change: &proto::crud::Change| {
        let operation = match change.operation() {
            Operation::Insert => "+",
            Operation::Update => "~",
            Operation::Delete => "-",
            Operation::Unspecified => panic!("{change:?}"),
        };
        let images: Vec<String> =
            [&change.before, &change.after].map(text).into_iter().filter(|text| !text.is_empty()).collect();
        format!("{} {operation} {}", change.table, images.join(" "))
    };
    transaction.changes.iter().map(change).collect()
}

#[tokio::test]
async fn each_change_of_a_row_is_told_with_the_rows_before_and_after() {
    for db in logs().await {
        let s = db.prefix();
        let mut log = Follower::of(&db, &["artist", "part"], Bytes::new()).await;
        db.execute(&format!("INSERT INTO {s}artist VALUES (7, 'x'), (8, NULL)")).await;
        assert_eq!(
            log.so_many(2).await,
            [r#"artist + {"artist_id":7,"name":"x"}"#, r#"artist + {"artist_id":8,"name":null}"#]
        );
        db.execute(&format!("UPDATE {s}artist SET name = 'y' WHERE artist_id = 7")).await;
        assert_eq!(log.changes().await, [r#"artist ~ {"artist_id":7,"name":"x"} {"artist_id":7,"name":"y"}"#]);
        db.execute(&format!("UPDATE {s}artist SET artist_id = 9 WHERE artist_id = 8")).await;
        assert_eq!(log.changes().await, [r#"artist ~ {"artist_id":8,"name":null} {"artist_id":9,"name":null}"#]);
        db.execute(&format!("INSERT INTO {s}track (name, milliseconds) VALUES ('not followed', 1)")).await;
        db.execute(&format!("DELETE FROM {s}artist WHERE artist_id > 6")).await;
        assert_eq!(
            log.so_many(2).await,
            [r#"artist - {"artist_id":7,"name":"y"}"#, r#"artist - {"artist_id":9,"name":null}"#]
        );
        db.execute(&format!("UPDATE {s}part SET label = 'z' WHERE maker = 1 AND number = 2")).await;
        assert_eq!(
            log.changes().await,
            [r#"part ~ {"maker":1,"number":2,"label":"b"} {"maker":1,"number":2,"label":"z"}"#]
        );
        db.execute(&format!("DELETE FROM {s}part WHERE maker = 2 AND number = 2")).await;
        assert_eq!(log.changes().await, [r#"part - {"maker":2,"number":2,"label":"d"}"#]);
        assert!(log.is_idle());
    }
}

#[tokio::test]
async fn a_read_says_where_the_log_goes_on() {
    for db in logs().await {
        let s = db.prefix();
        let mut log = Follower::of(&db, &["artist"], Bytes::new()).await;
        db.execute(&format!("INSERT INTO {s}artist VALUES (7, 'x')")).await;
        let seen = seen(&db).await;
        db.execute(&format!("INSERT INTO {s}artist VALUES (8, 'y')")).await;

        let [first, second] = [log.next().await.unwrap(), log.next().await.unwrap()];
        let (Event::Transaction(first), Event::Transaction(second)) = (first, second) else { panic!("changes") };
        assert!(seen.0.sees(first.id) && !seen.0.sees(second.id));
        let mut later = Follower::of(&db, &["artist"], seen.1).await;
        assert_eq!(later.changes().await, told(&second));
        assert!(later.is_idle());
    }
}

/// Nodes share a database: a read of one may be placed in the log that another one follows.
#[tokio::test]
async fn a_read_of_a_node_where_nobody_follows_the_log_says_where_it_goes_on() {
    for db in engines().await.into_iter().chain(meshes().await) {
        let s = db.prefix();
        let other = match db.schema().dialect {
            Dialect::Sqlite => same_file(&db).await,
            Dialect::Postgres { .. } | Dialect::Mysql => same_schema(&db).await,
        };
        let mut log = Follower::of(&db, &["artist"], Bytes::new()).await;
        db.execute(&format!("INSERT INTO {s}artist VALUES (7, 'x')")).await;
        let (snapshot, position) = seen(&other).await;
        db.execute(&format!("INSERT INTO {s}artist VALUES (8, 'y')")).await;

        let [first, second] = [log.next().await.unwrap(), log.next().await.unwrap()];
        let (Event::Transaction(first), Event::Transaction(second)) = (first, second) else { panic!("changes") };
        assert!(snapshot.sees(first.id) && !snapshot.sees(second.id));
        let mut later = Follower::of(&db, &["artist"], position).await;
        assert_eq!(later.changes().await, told(&second));
    }
}

/// What a read sees, and its position.
pub async fn seen(db: &Db) -> (proto::crud::Snapshot, Bytes) {
    let (_, snapshot, position) = read_at(db, "artist").await;
    (snapshot, position)
}

/// The rows of a table, what the read saw, and its position.
pub async fn read_at(db: &Db, table: &str) -> (Vec<u8>, proto::crud::Snapshot, Bytes) {
    let read = read(&db.schema().schema, table, &json!({"limit": 100_000})).unwrap();
    let terms = db.terms(&query::read_accesses(&db.schema().schema, &read).unwrap());
    let options = crate::options::AnswerOptions { snapshot: true, ..db.options };
    let read = db.database.read(&[read], super::support::grants(&terms), options).await.unwrap();
    let seen = read.seen.unwrap();
    (read.answers[0].json.to_vec(), seen.snapshot.unwrap(), seen.position)
}

#[tokio::test]
async fn a_position_that_is_none_is_a_resync() {
    for db in logs().await {
        let s = db.prefix();
        let mut log = Follower::of(&db, &["artist"], Bytes::from_static(b"?")).await;
        assert_eq!(log.resync().await.reason(), ResyncReason::Position);
        db.execute(&format!("INSERT INTO {s}artist VALUES (7, 'x')")).await;
        assert_eq!(log.changes().await.len(), 1);
    }
}
