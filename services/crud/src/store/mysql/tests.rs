//! Behaviour of connections: what a caller who left started is ended, and what is lost is made again.

use std::time::Duration;

use mesh::Tasks;

use super::Mysql;
use crate::{
    Error,
    budget::Budget,
    cell::Cell,
    store::{Output, Statement},
    tests::mysql_url,
};
use query::Type;

fn statement(text: &str, columns: &[Type]) -> Statement {
    let columns = columns.iter().map(|column| Output::from(*column)).collect();
    Statement { text: text.into(), args: Vec::new(), columns, sources: Vec::new(), plain: None }
}

fn open(max: usize) -> Option<Mysql> {
    Some(Mysql::open("test", &mysql_url()?, max, &Tasks::default()).unwrap())
}

async fn number(store: &Mysql, text: &str) -> i64 {
    let rows = store.snapshot(&[statement(text, &[Type::Int64])], &Budget::unlimited()).await.unwrap();
    match rows[0].cell(0, 0) {
        Cell::Int(number) => number,
        other => panic!("{other:?}"),
    }
}

/// How many statements with `mark` in their text run on the server.
async fn running(store: &Mysql, mark: &str) -> i64 {
    let text = format!(
        "SELECT count(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE '%{mark}%' AND ID <> connection_id()"
    );
    number(store, &text).await
}

async fn until(what: &str, mut is_true: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(20), async {
        while !is_true().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn a_statement_whose_caller_left_is_ended_and_its_connection_given_back() {
    let (Some(store), Some(other)) = (open(1), open(1)) else { return };
    let mark = format!("left{}", std::process::id());
    let long = [statement(&format!("SELECT sleep(600) AS {mark}"), &[Type::Int64])];
    let budget = Budget::unlimited();
    let mut waiting = Box::pin(store.snapshot(&long, &budget));
    until("it runs", async || {
        assert!(futures::poll!(&mut waiting).is_pending());
        running(&other, &mark).await == 1
    })
    .await;

    drop(waiting);

    // The only connection is free once the server has ended the statement.
    assert_eq!(number(&store, "SELECT 7").await, 7);
    until("nothing of it runs", async || running(&other, &mark).await == 0).await;
}

#[tokio::test]
async fn a_write_whose_caller_left_is_rolled_back() {
    let (Some(store), Some(other)) = (open(2), open(1)) else { return };
    let table = format!("left_{}", std::process::id());
    store.write(&statement(&format!("CREATE TABLE {table} (id INT PRIMARY KEY)"), &[])).await.unwrap();
    let insert = |id| statement(&format!("INSERT INTO {table} VALUES ({id})"), &[]);
    let count = format!("SELECT count(*) FROM {table}");

    let mut tx = store.begin().await.unwrap();
    tx.run(&[insert(1)], &Budget::unlimited()).await.unwrap();
    drop(tx);
    let mut tx = store.begin().await.unwrap();
    let slow = statement(&format!("SELECT sleep(600) FROM {table} UNION SELECT sleep(600)"), &[Type::Int64]);
    tx.run(&[insert(2)], &Budget::unlimited()).await.unwrap();
    let budget = Budget::unlimited();
    let slow = [slow];
    let mut waiting = Box::pin(tx.run(&slow, &budget));
    assert!(futures::poll!(&mut waiting).is_pending());
    drop(waiting);
    drop(tx);

    // Locks of both are free.
    let mut tx = store.begin().await.unwrap();
    tx.run(&[insert(1), insert(2)], &Budget::unlimited()).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(number(&other, &count).await, 2);
    store.write(&statement(&format!("DROP TABLE {table}"), &[])).await.unwrap();
}

#[tokio::test]
async fn a_connection_that_the_server_ended_is_made_again() {
    let (Some(store), Some(other)) = (open(1), open(1)) else { return };
    for _ in 0..3 {
        let id = number(&store, "SELECT connection_id()").await;
        other.write(&statement(&format!("KILL CONNECTION {id}"), &[])).await.unwrap();
        assert_ne!(number(&store, "SELECT connection_id()").await, id);
    }
}

#[tokio::test]
async fn idle_connections_are_closed_when_the_node_stops() {
    let (Some(url), Some(other)) = (mysql_url(), open(1)) else { return };
    let tasks = Tasks::default();
    let store = Mysql::open("test", &url, 2, &tasks).unwrap();
    let id = number(&store, "SELECT connection_id()").await;
    let still = format!("SELECT count(*) FROM information_schema.PROCESSLIST WHERE ID = {id}");
    assert_eq!(number(&other, &still).await, 1);

    tasks.finish().await;

    until("it is closed, while its store is there", async || number(&other, &still).await == 0).await;
    // One that is made afterwards is not kept.
    let id = number(&store, "SELECT connection_id()").await;
    let still = format!("SELECT count(*) FROM information_schema.PROCESSLIST WHERE ID = {id}");
    until("it is closed as well", async || number(&other, &still).await == 0).await;
}

#[tokio::test]
async fn reads_of_one_snapshot_see_no_later_commit() {
    let (Some(store), Some(other)) = (open(1), open(1)) else { return };
    let table = format!("seen_{}", std::process::id());
    store.write(&statement(&format!("CREATE TABLE {table} (id INT PRIMARY KEY)"), &[])).await.unwrap();
    let count = || statement(&format!("SELECT count(*) FROM {table}"), &[Type::Int64]);
    let slow = statement("SELECT sleep(0.2)", &[Type::Int64]);
    let reads = [count(), slow, count()];
    let budget = Budget::unlimited();
    let reading = store.snapshot(&reads, &budget);
    let writing = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        other.write(&statement(&format!("INSERT INTO {table} VALUES (1)"), &[])).await.unwrap();
    };
    let (rows, ()) = futures::join!(reading, writing);
    let rows = rows.unwrap();
    assert_eq!(rows[0].cell(0, 0), rows[2].cell(0, 0));
    store.write(&statement(&format!("DROP TABLE {table}"), &[])).await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unavailable_and_no_secret_is_told() {
    let store = Mysql::open("shop", "mysql://ann:hunter2@127.0.0.1:1/shop", 1, &Tasks::default()).unwrap();
    let error = store.ping().await.unwrap_err();
    assert!(matches!(&error, Error::Unavailable(cause) if !cause.contains("hunter2")), "{error:?}");
    let Some(url) = mysql_url() else { return };
    let (_, address) = url.split_once('@').unwrap();
    let url = format!("mysql://nobody:hunter2@{address}");
    let error = Mysql::open("shop", &url, 1, &Tasks::default()).unwrap().ping().await.unwrap_err();
    assert!(matches!(&error, Error::Unavailable(cause) if !cause.contains("hunter2")), "{error:?}");
}

#[tokio::test]
async fn a_statement_whose_caller_left_is_ended_once_the_server_has_room() {
    let Some(other) = open(1) else { return };
    let user = format!("crowded_{}", std::process::id());
    let grant = format!("CREATE USER {user}@'%' WITH MAX_USER_CONNECTIONS 1");
    other.write(&statement(&grant, &[])).await.unwrap();
    let url = mysql_url().unwrap();
    let (address, _) = url.split_once('@').and_then(|(_, address)| address.rsplit_once('/')).unwrap();
    let url = format!("mysql://{user}@{address}/information_schema");
    let store = Mysql::open("crowded", &url, 1, &Tasks::default()).unwrap();
    let mark = format!("crowded{}", std::process::id());
    let long = [statement(&format!("SELECT sleep(600) AS {mark}"), &[Type::Int64])];
    let budget = Budget::unlimited();
    let mut waiting = Box::pin(store.snapshot(&long, &budget));
    until("it runs", async || {
        assert!(futures::poll!(&mut waiting).is_pending());
        running(&other, &mark).await == 1
    })
    .await;
    drop(waiting);
    // It is asked to in vain meanwhile.
    tokio::time::sleep(Duration::from_millis(200)).await;
    other.write(&statement(&format!("ALTER USER {user}@'%' WITH MAX_USER_CONNECTIONS 2"), &[])).await.unwrap();
    until("nothing of it runs", async || running(&other, &mark).await == 0).await;
    other.write(&statement(&format!("DROP USER {user}@'%'"), &[])).await.unwrap();
}
