//! A server that crashes, and gives ids of transactions again that had not reached its disk.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use mesh::tasks::Tasks;
use query::resources::{Changes, ChangesSource, Numbers};

use super::{slot::follow, *};
use crate::store::{log::LogLook, postgres::changes::source::PostgresLog};

/// A server of a test, stopped when dropped.
struct OwnServer {
    folder: tempfile::TempDir,
    programs: PathBuf,
    port: u16,
}

impl OwnServer {
    /// `None` where none is demanded.
    fn start() -> Option<Self> {
        crate::tests::postgres_url()?;
        let mut versions: Vec<PathBuf> =
            std::fs::read_dir("/usr/lib/postgresql").unwrap().map(|entry| entry.unwrap().path()).collect();
        versions.sort_by_key(|path| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()));
        let programs = versions.last().expect("a version").join("bin");
        let folder = tempfile::tempdir().unwrap();
        // It does not run as root: another user has to write there.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let server = Self { folder, programs, port };
        server.run("initdb", &["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8"]);
        server.control(&["start"]);
        Some(server)
    }

    fn control(&self, arguments: &[&str]) {
        let settings = format!(
            "-c listen_addresses=127.0.0.1 -c port={} -c unix_socket_directories='' -c wal_level=logical \
             -c max_slot_wal_keep_size=1GB -c wal_writer_delay=10s",
            self.port
        );
        let log = self.folder.path().join("log").display().to_string();
        self.run("pg_ctl", &[&["-w", "-l", &log, "-o", &settings], arguments].concat());
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let data: &Path = &self.folder.path().join("data");
        let program = self.programs.join(program);
        let is_root = std::fs::metadata("/proc/self").is_ok_and(|of| std::os::unix::fs::MetadataExt::uid(&of) == 0);
        let mut command = Command::new(if is_root { Path::new("runuser") } else { &program });
        if is_root {
            command.args(["-u", "postgres", "--"]).arg(&program);
        }
        command.arg("-D").arg(data).args(arguments).current_dir("/");
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(status.unwrap().success(), "{program:?} {arguments:?}");
    }

    async fn client(&self) -> Client {
        connect(&self.url()).await
    }

    fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return self.control(&["stop", "-m", "immediate"]);
        }
        let pid = std::fs::read_to_string(self.folder.path().join("data/postmaster.pid")).unwrap_or_default();
        let _ = Command::new("sh").args(["-c", "kill -QUIT $0", pid.lines().next().unwrap_or_default()]).status();
    }
}

/// Looks until something is told.
async fn told(store: &Postgres, log: &mut PostgresLog) -> LogLook {
    for _ in 0..1000 {
        // The server may be away.
        if let Ok(look) = store.look_at_log(log, Numbers::Exact).await
            && (!look.parts.is_empty() || !look.losses.is_empty())
        {
            return look;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("nothing is told");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_crashed_is_another_log_and_one_that_was_stopped_is_the_same() {
    let Some(server) = OwnServer::start() else { return };
    server.client().await.batch_execute("CREATE TABLE note (id int PRIMARY KEY)").await.unwrap();
    let store = Postgres::open("shop", &server.url(), "public", 4, &Tasks::default()).unwrap();
    let store = store.learning(Changes { source: ChangesSource::Slot, unbounded_slot: false });
    let mut log = PostgresLog::default();
    follow(&store, &mut log, "note").await.unwrap();
    let source = log.position().unwrap().source;

    // It does not wait for us: `pg_ctl` fails where it takes a minute.
    server.control(&["stop", "-m", "fast"]);
    server.control(&["start"]);
    server.client().await.batch_execute("INSERT INTO note VALUES (1)").await.unwrap();
    let look = told(&store, &mut log).await;
    assert_eq!((look.losses.len(), look.parts.len(), look.position.source), (0, 1, source));

    // A transaction that writes nothing reaches the disk with a later one only; reads see that it is over.
    let client = server.client().await;
    client.batch_execute("BEGIN").await.unwrap();
    let id = async |client: &Client| -> String {
        client.query_one("SELECT pg_current_xact_id()::text", &[]).await.unwrap().get(0)
    };
    let given = id(&client).await;
    client.batch_execute("ROLLBACK").await.unwrap();
    server.control(&["stop", "-m", "immediate"]);
    server.control(&["start"]);
    let client = server.client().await;
    client.batch_execute("BEGIN; INSERT INTO note VALUES (2)").await.unwrap();
    assert_eq!(id(&client).await, given, "it is given again");
    client.batch_execute("COMMIT").await.unwrap();

    let look = told(&store, &mut log).await;
    assert!(look.losses.iter().any(|loss| loss.tables.is_empty()), "{look:?}");
    assert_ne!(look.position.source, source);
    client.batch_execute("INSERT INTO note VALUES (3)").await.unwrap();
    let mut rows = Vec::new();
    while !rows.iter().any(|row: &String| row.contains('3')) {
        let look = told(&store, &mut log).await;
        rows.extend(look.parts.iter().flat_map(|part| &part.changes).map(|change| format!("{:?}", change.after)));
    }
    drop(log);
}
