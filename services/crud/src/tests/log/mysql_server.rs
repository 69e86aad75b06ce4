//! Servers of MariaDB that a test starts, kills and restores: what followers of their binary logs are told then.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
};

use mysql_async::{Conn, prelude::Queryable};
use query::resources::ChangesSource;

use super::*;
use crate::{
    store::{
        diagnosis::{Diagnosis, Finding, Severity},
        mysql::Mysql,
    },
    tests::support::{self, same_schema_by},
};

const LOGGED: &[&str] = &["--log-bin=log", "--binlog-format=ROW", "--binlog-row-metadata=FULL", "--server-id=7"];

/// A server of a test, killed when dropped.
struct MariaDb {
    folder: tempfile::TempDir,
    port: u16,
    options: &'static [&'static str],
    child: Child,
}

fn program(name: &str) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(name);
    command.env("PATH", format!("{path}:/usr/sbin"));
    command
}

impl MariaDb {
    /// Starts one; `None` where the tests have no MariaDB.
    async fn start(options: &'static [&'static str]) -> Option<Self> {
        crate::tests::mysql_url()?;
        let folder = tempfile::tempdir().unwrap();
        let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
        let made = program("mariadb-install-db")
            .env("TMPDIR", folder.path())
            .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"])
            .arg(format!("--user={}", user.trim()))
            .arg(format!("--datadir={}", folder.path().join("data").display()))
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Self::run(folder.path(), port, options);
        let server = Self { folder, port, options, child };
        server.is_ready().await;
        Some(server)
    }

    fn run(folder: &Path, port: u16, options: &[&str]) -> Child {
        let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
        let log = std::fs::File::create(folder.join("server.log")).unwrap();
        program("mariadbd")
            .env("TMPDIR", folder)
            .arg("--no-defaults")
            .arg(format!("--user={}", user.trim()))
            .arg(format!("--datadir={}", folder.join("data").display()))
            .arg(format!("--socket={}", folder.join("s").display()))
            .args(["--bind-address=127.0.0.1", &format!("--port={port}"), "--innodb-buffer-pool-size=16M"])
            .args(options)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    fn url(&self) -> String {
        format!("mysql://root@127.0.0.1:{}/mysql", self.port)
    }

    async fn is_ready(&self) {
        let until = std::time::Instant::now() + Duration::from_secs(60);
        while Conn::from_url(self.url()).await.is_err() {
            let log = || std::fs::read_to_string(self.folder.path().join("server.log")).unwrap_or_default();
            assert!(std::time::Instant::now() < until, "{}", log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    async fn begin(&mut self) {
        self.child = Self::run(self.folder.path(), self.port, self.options);
        self.is_ready().await;
    }

    async fn execute(&self, sql: &str) {
        Conn::from_url(self.url()).await.unwrap().query_drop(sql).await.unwrap();
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn insert(db: &Db, id: i64) {
    db.execute(&format!("INSERT INTO artist VALUES ({id}, 'x')")).await;
}

fn inserted(id: i64) -> [String; 1] {
    [format!(r#"artist + {{"artist_id":{id},"name":"x"}}"#)]
}

/// A follower that was told of one insert, and the position after it.
async fn following(db: &Db) -> (Follower, Bytes) {
    let mut log = Follower::of(db, &["artist"], Bytes::new()).await;
    insert(db, 10).await;
    log.changes().await;
    let position = log.position.clone();
    (log, position)
}

/// Follows again after the last message, once the server is there.
async fn again(db: &Db, position: &Bytes) -> Follower {
    let until = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        let mut log = Follower::not_started(db, &["artist"], position.clone());
        log.position = position.clone();
        match log.next().await {
            Ok(Event::Started(_)) => return log,
            Ok(Event::Resync(missed)) => {
                log.missed = Some(missed);
                assert!(matches!(log.next().await, Ok(Event::Started(_))));
                return log;
            }
            Err(Error::Unavailable(_)) if std::time::Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_server_that_is_killed_goes_on_without_a_loss() {
    let Some(mut server) = MariaDb::start(LOGGED).await else { return };
    let db = support::mysql(&server.url()).await;
    let mut log = Follower::of(&db, &["artist"], Bytes::new()).await;
    for round in 0..3 {
        insert(&db, 10 + 2 * round).await;
        assert_eq!(log.changes().await, inserted(10 + 2 * round));
        let position = log.position.clone();
        server.kill();
        server.begin().await;
        mysql::execute(&db, &format!("INSERT INTO artist VALUES ({}, 'x')", 11 + 2 * round)).await;
        drop(log);
        log = again(&db, &position).await;
        assert_eq!(log.changes().await, inserted(11 + 2 * round));
        assert!(log.is_idle() && log.missed.is_none());
    }
}

#[tokio::test]
async fn a_log_that_was_purged_is_one_resync() {
    let Some(server) = MariaDb::start(LOGGED).await else { return };
    let db = support::mysql(&server.url()).await;
    let (mut log, position) = following(&db).await;
    insert(&db, 11).await;
    server.execute("FLUSH BINARY LOGS").await;
    insert(&db, 12).await;
    assert_eq!(log.so_many(2).await.len(), 2);
    let last = log.position.clone();
    // The server keeps a file until all that is in it has reached the tables.
    let mut conn = Conn::from_url(server.url()).await.unwrap();
    while conn.query_first::<(String, u64), _>("SHOW BINARY LOGS").await.unwrap().unwrap().0 == "log.000001" {
        conn.query_drop("PURGE BINARY LOGS TO 'log.000002'").await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    // Who reads on misses nothing; a process that was not there does.
    let other = same_schema_by(&db, ChangesSource::Auto).await;
    let mut late = Follower::of(&other, &["artist"], position).await;
    assert_eq!(late.resync().await.reason(), ResyncReason::LogLost);
    let mut kept = Follower::of(&other, &["artist"], last).await;
    assert!(kept.missed.is_none());
    insert(&db, 13).await;
    for log in [&mut log, &mut late, &mut kept] {
        assert_eq!(log.changes().await, inserted(13));
        assert!(log.is_idle());
    }
}

#[tokio::test]
async fn a_log_that_was_begun_anew_is_one_resync() {
    let Some(server) = MariaDb::start(LOGGED).await else { return };
    let db = support::mysql(&server.url()).await;
    let (log, position) = following(&db).await;
    drop(log);
    // Files are told apart by the second in which they were made.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    server.execute("RESET MASTER").await;
    // The new log becomes longer than the old one was.
    for id in 20..60 {
        insert(&db, id).await;
    }
    for db in [&db, &same_schema_by(&db, ChangesSource::Auto).await] {
        let mut log = again(db, &position).await;
        assert_eq!(log.resync().await.reason(), ResyncReason::LogLost);
        let last = 100 + db.count("SELECT count(*) FROM artist").await;
        insert(db, last).await;
        // The new log is read from where it was when that was found out.
        while log.changes().await != inserted(last) {}
        let rest = tokio::time::timeout(Duration::from_millis(100), log.next()).await;
        assert!(rest.is_err(), "{rest:?}");
    }
}

#[tokio::test]
async fn a_log_that_is_begun_anew_while_it_is_read_is_one_resync() {
    let Some(server) = MariaDb::start(LOGGED).await else { return };
    let db = support::mysql(&server.url()).await;
    let mut log = Follower::of(&db, &["artist"], Bytes::new()).await;
    for id in 10..14 {
        insert(&db, id).await;
        assert_eq!(log.changes().await, inserted(id));
    }
    // Files are told apart by the second in which they were made.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    server.execute("RESET MASTER").await;
    assert_eq!(log.resync().await.reason(), ResyncReason::LogLost);
    insert(&db, 20).await;
    assert_eq!(log.changes().await, inserted(20));
}

#[tokio::test]
async fn what_a_server_lacks_is_said_with_what_gives_it() {
    let Some(mut server) = MariaDb::start(&[]).await else { return };
    let db = support::mysql(&server.url()).await;
    let error = Follower::not_started(&db, &["artist"], Bytes::new()).next().await.unwrap_err();
    let expected = "changes of artist cannot be followed: expected log_bin = ON of the server, found OFF";
    assert_eq!(error.to_string(), expected);
    server.kill();
    server.options =
        &["--log-bin=log", "--binlog-format=MIXED", "--binlog-row-metadata=FULL", "--binlog-ignore-db=left"];
    server.begin().await;
    let found = diagnosed(db.url()).await;
    let [finding] = &missing(&found)[..] else { panic!("{found:?}") };
    assert_eq!(finding.text, "live queries: expected binlog_format = ROW of the server, found MIXED");
    server.execute(finding.sql.as_ref().unwrap()).await;
    let found = diagnosed(db.url()).await;
    assert!(missing(&found).is_empty() && found.source == "binlog", "{found:?}");
    assert!(found.followed.contains(&"artist".to_owned()) && found.objects.is_empty());

    let name = db.url().rsplit('/').next().unwrap().trim_end_matches('?').to_owned();
    server.execute(&format!("CREATE USER app; GRANT ALL ON {name}.* TO app; CREATE DATABASE `left`")).await;
    let app = db.url().replace("root@", "app@");
    let mut rights = Vec::new();
    loop {
        let found = diagnosed(&app).await;
        let Some(finding) = missing(&found).into_iter().next() else { break };
        let sql = finding.sql.unwrap();
        server.execute(&sql).await;
        rights.push(sql);
        assert!(rights.len() < 3, "{rights:?}");
    }
    assert_eq!(rights, ["GRANT BINLOG MONITOR ON *.* TO 'app'@'%';", "GRANT REPLICATION SLAVE ON *.* TO 'app'@'%';"]);
    let left = server.url().replace("/mysql", "/left");
    assert_eq!(
        diagnosed(&left).await.findings[0].text,
        "live queries: expected a binary log of database left, which the server's filters leave out"
    );
}

/// What an operator may change.
fn missing(found: &Diagnosis) -> Vec<Finding> {
    found.findings.iter().filter(|finding| finding.severity == Severity::Missing).cloned().collect()
}

async fn diagnosed(url: &str) -> Diagnosis {
    let store = Mysql::open("test", url, 2, &mesh::Tasks::default()).unwrap();
    store.diagnose(ChangesSource::Auto).await.unwrap()
}

/// These concern all tables of the server.
#[tokio::test]
async fn what_the_log_does_not_have_as_rows_is_one_resync_each() {
    let Some(server) = MariaDb::start(LOGGED).await else { return };
    let db = support::mysql(&server.url()).await;
    let mut log = Follower::of(&db, &["artist"], Bytes::new()).await;
    mysql::execute(&db, "XA START 'a'; INSERT INTO artist VALUES (10, 'x'); XA END 'a'; XA PREPARE 'a'").await;
    insert(&db, 11).await;
    assert_eq!(log.changes().await, inserted(11));
    mysql::execute(&db, "XA COMMIT 'a'").await;
    assert_eq!(log.resync().await.reason(), ResyncReason::LogLost);
    insert(&db, 12).await;
    assert_eq!(log.changes().await, inserted(12));
    mysql::execute(&db, "SET binlog_format = STATEMENT; UPDATE artist SET name = 'y' WHERE artist_id = 12").await;
    assert_eq!(log.resync().await.reason(), ResyncReason::LogLost);
    insert(&db, 13).await;
    assert_eq!(log.changes().await, inserted(13));
    assert!(log.is_idle());
}
