//! Writers that know nothing of subscribers: they have connections of their own to the database.

use std::{
    ops::Range,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use rusqlite::Connection;
use tokio_postgres::{Client, NoTls, types::Type};

/// Posts of the one topic.
const POSTS: usize = 2_000;
/// Writers of PostgreSQL that write as fast as they can; SQLite has one at a time.
const WRITERS: usize = 8;

/// A database with a table `note`.
#[derive(Debug, Clone)]
pub enum Database {
    /// A URL.
    Postgres(String),
    /// A file.
    Sqlite(PathBuf),
}

/// Writers.
pub struct Writers;

/// When the transaction of a number was committed, by its number.
pub type Commits = Vec<Instant>;

/// A row that transactions change.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// A note, by its id.
    Note(usize),
    /// The topic that all posts are of.
    Topic,
}

impl Target {
    /// The update that sets its body; placeholders are written as SQLite and PostgreSQL both have them.
    fn update(self) -> &'static str {
        match self {
            Target::Note(_) => "UPDATE note SET body = $1 WHERE note_id = $2",
            Target::Topic => "UPDATE topic SET body = $1 WHERE topic_id = $2",
        }
    }

    fn id(self) -> anyhow::Result<i64> {
        Ok(match self {
            Target::Note(id) => i64::try_from(id)?,
            Target::Topic => 1,
        })
    }
}

impl Database {
    /// Makes the tables anew: so many notes whose rank is their id, and a topic of [`POSTS`] posts, likewise. With `notifies`,
    /// triggers tell of each change by `NOTIFY`.
    pub async fn prepare(&self, rows: usize, notifies: bool) -> anyhow::Result<()> {
        match self {
            Database::Postgres(url) => {
                let trigger = if notifies {
                    "CREATE OR REPLACE FUNCTION note_changed() RETURNS trigger LANGUAGE plpgsql AS
                         'BEGIN PERFORM pg_notify(''note'', NEW.body); RETURN NULL; END';
                     CREATE TRIGGER note_changed AFTER INSERT OR UPDATE ON note FOR EACH ROW
                         EXECUTE FUNCTION note_changed();
                     CREATE TRIGGER topic_changed AFTER INSERT OR UPDATE ON topic FOR EACH ROW
                         EXECUTE FUNCTION note_changed();"
                } else {
                    ""
                };
                let sql = format!(
                    "DROP TABLE IF EXISTS note;
                     CREATE TABLE note (note_id bigserial PRIMARY KEY, body text NOT NULL, rank int NOT NULL);
                     INSERT INTO note (body, rank) SELECT 'x', n FROM generate_series(1, {rows}) n;
                     CREATE INDEX ON note (rank);
                     DROP TABLE IF EXISTS post; DROP TABLE IF EXISTS topic;
                     CREATE TABLE topic (topic_id int PRIMARY KEY, body text NOT NULL);
                     CREATE TABLE post (post_id int PRIMARY KEY, topic_id int NOT NULL REFERENCES topic, rank int NOT NULL);
                     INSERT INTO topic VALUES (1, 'x');
                     INSERT INTO post SELECT n, 1, n FROM generate_series(1, {POSTS}) n;
                     CREATE INDEX ON post (rank); {trigger} ANALYZE note; ANALYZE post; ANALYZE topic; CHECKPOINT;"
                );
                let client = connect(url).await?;
                for statement in split(&sql) {
                    client.batch_execute(statement).await?;
                }
            }
            Database::Sqlite(file) => {
                let sql = format!(
                    "DROP TABLE IF EXISTS note;
                     CREATE TABLE note (note_id INTEGER PRIMARY KEY, body TEXT NOT NULL, rank INTEGER NOT NULL);
                     WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {rows})
                     INSERT INTO note (body, rank) SELECT 'x', n FROM n;
                     CREATE INDEX note_rank ON note (rank);
                     DROP TABLE IF EXISTS post; DROP TABLE IF EXISTS topic;
                     CREATE TABLE topic (topic_id INTEGER PRIMARY KEY, body TEXT NOT NULL);
                     CREATE TABLE post (post_id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL REFERENCES topic,
                         rank INTEGER NOT NULL);
                     INSERT INTO topic VALUES (1, 'x');
                     WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {POSTS})
                     INSERT INTO post SELECT n, 1, n FROM n;
                     CREATE INDEX post_rank ON post (rank); ANALYZE;"
                );
                open(file)?.execute_batch(&sql)?;
            }
        }
        Ok(())
    }

    /// Sets the body of the first note.
    pub async fn change(&self, body: &str) -> anyhow::Result<()> {
        let first = Target::Note(1);
        match self {
            Database::Postgres(url) => {
                connect(url).await?.execute(first.update(), &[&body, &first.id()?]).await?;
            }
            Database::Sqlite(file) => {
                open(file)?.execute(first.update(), (body, first.id()?))?;
            }
        }
        Ok(())
    }

    /// Transactions of the database so far, where it counts them, and when they were counted.
    pub async fn transactions(&self) -> anyhow::Result<Option<(f64, Instant)>> {
        let Database::Postgres(url) = self else { return Ok(None) };
        // A session that has nothing to do tells what it did after ten seconds.
        tokio::time::sleep(Duration::from_secs(12)).await;
        let sql =
            "SELECT (xact_commit + xact_rollback)::float8 FROM pg_stat_database WHERE datname = current_database()";
        Ok(Some((connect(url).await?.query_one(sql, &[]).await?.get(0), Instant::now())))
    }
}

/// The statements of a script, one that has a body in quotes as a whole.
fn split(sql: &str) -> impl Iterator<Item = &str> {
    let mut rest = sql;
    std::iter::from_fn(move || {
        let mut quoted = false;
        let end = rest.find(|character| {
            quoted ^= character == '\'';
            character == ';' && !quoted
        })?;
        let statement = &rest[..end];
        rest = &rest[end + 1..];
        Some(statement)
    })
}

async fn connect(url: &str) -> anyhow::Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

fn open(file: &PathBuf) -> anyhow::Result<Connection> {
    let connection = Connection::open(file)?;
    connection.busy_timeout(Duration::from_secs(20))?;
    connection.pragma_update(None, "synchronous", "normal")?;
    Ok(connection)
}

impl Writers {
    /// Writes so many transactions a second, each of which sets the body of `target(number)` to its number.
    pub async fn paced(
        database: &Database,
        rate: u64,
        lasting: Duration,
        target: impl Fn(u64) -> Target + Send + 'static,
    ) -> anyhow::Result<Commits> {
        let pause = Duration::from_secs(1) / u32::try_from(rate)?;
        let count = u64::try_from(lasting.as_nanos() / pause.as_nanos())?;
        match database.clone() {
            Database::Postgres(url) => {
                let client = connect(&url).await?;
                let update = client.prepare_typed(target(0).update(), &[Type::TEXT, Type::INT8]).await?;
                let (begin, mut commits) = (tokio::time::Instant::now(), Commits::new());
                for number in 0..count {
                    tokio::time::sleep_until(begin + pause * u32::try_from(number)?).await;
                    client.execute(&update, &[&number.to_string(), &target(number).id()?]).await?;
                    commits.push(Instant::now());
                }
                Ok(commits)
            }
            Database::Sqlite(file) => {
                tokio::task::spawn_blocking(move || {
                    let connection = open(&file)?;
                    let (begin, mut commits) = (Instant::now(), Commits::new());
                    for number in 0..count {
                        let due = begin + pause * u32::try_from(number)?;
                        std::thread::sleep(due.saturating_duration_since(Instant::now()));
                        let mut update = connection.prepare_cached(target(number).update())?;
                        update.execute((number.to_string(), target(number).id()?))?;
                        commits.push(Instant::now());
                    }
                    Ok(commits)
                })
                .await?
            }
        }
    }

    /// Transactions a second of writers that do nothing else.
    pub async fn saturated(database: &Database, lasting: Duration, rows: Range<usize>) -> anyhow::Result<f64> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut writers = tokio::task::JoinSet::new();
        let row = move |writer: usize, number: usize| {
            i64::try_from(rows.start + (writer * 7919 + number) % rows.len()).context("there are fewer rows")
        };
        match database.clone() {
            Database::Postgres(url) => {
                for writer in 0..WRITERS {
                    let (url, stop, row) = (url.clone(), stop.clone(), row.clone());
                    writers.spawn(async move {
                        let client = connect(&url).await?;
                        let update = client.prepare(Target::Note(0).update()).await?;
                        let mut number = 0;
                        while !stop.load(Ordering::Relaxed) {
                            client.execute(&update, &[&"a body of some length", &row(writer, number)?]).await?;
                            number += 1;
                        }
                        anyhow::Ok(number)
                    });
                }
            }
            Database::Sqlite(file) => {
                let stop = stop.clone();
                writers.spawn_blocking(move || {
                    let connection = open(&file)?;
                    let mut number = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let mut update = connection.prepare_cached(Target::Note(0).update())?;
                        update.execute(("a body of some length", row(0, number)?))?;
                        number += 1;
                    }
                    anyhow::Ok(number)
                });
            }
        }
        let begin = Instant::now();
        tokio::time::sleep(lasting).await;
        stop.store(true, Ordering::Relaxed);
        let mut written = 0;
        while let Some(writer) = writers.join_next().await {
            written += writer??;
        }
        Ok(written as f64 / begin.elapsed().as_secs_f64())
    }
}
