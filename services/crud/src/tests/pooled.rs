//! Behind a pooler that hands each transaction to any of its connections, everything is as it is without one.

use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use futures::future::join_all;
use serde_json::{Value as Json, json};

use super::support::{Db, postgres};
use crate::{Error, store::Store, store::postgres::Postgres};

/// Callers at once.
const CALLERS: i64 = 12;
/// Rounds of each; a round is seven requests.
const ROUNDS: i64 = 120;

/// A pgbouncer in transaction mode before the server of tests, with three connections; ended with this.
struct Pooler {
    process: Child,
    url: String,
    _folder: tempfile::TempDir,
}

impl Pooler {
    /// `None`, and a word about it, where there is no server or no pgbouncer, and none is demanded.
    async fn start() -> Option<Self> {
        let program = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"].into_iter().find(|path| Path::new(path).exists());
        let (Some(program), Ok(server)) = (program, std::env::var("TEST_POSTGRES_URL")) else {
            assert!(
                std::env::var_os("CI").is_none(),
                "pgbouncer is not installed, or TEST_POSTGRES_URL names no server"
            );
            eprintln!("skipped: pgbouncer is not installed, or TEST_POSTGRES_URL names no server");
            return None;
        };
        let (user, rest) = server.split_once("://").unwrap().1.split_once('@').unwrap();
        let (address, name) = rest.split_once('/').unwrap();
        let (host, port) = address.split_once(':').unwrap();
        let own_port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pgbouncer.ini");
        // The settings of its connections are not those of the sessions.
        let settings = "SET IntervalStyle TO iso_8601; SET bytea_output TO escape; SET DateStyle TO German; \
                        SET TimeZone TO 'Asia/Tokyo'; SET search_path TO pg_catalog";
        let text = format!(
            "[databases]\n{name} = host={host} port={port} user={user} connect_query='{}'\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {own_port}\nauth_type = any\n\
             pool_mode = transaction\ndefault_pool_size = 3\nunix_socket_dir =\n",
            settings.replace('\'', "''")
        );
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new(program);
        command.arg("-q").stdout(Stdio::null()).stderr(Stdio::null());
        // It refuses to run as root, and has to read the file.
        if is_root() {
            open_to_all(folder.path());
            command.args(["-u", "postgres"]);
        }
        let process = command.arg(&file).spawn().unwrap();
        let pooler = Self { process, url: format!("postgres://{user}@127.0.0.1:{own_port}/{name}"), _folder: folder };
        let answers = async {
            let store =
                Store::Postgres(Postgres::open("test", &pooler.url, "public", 4, &mesh::Tasks::default()).unwrap());
            while store.ping().await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), answers).await.expect("pgbouncer answers");
        Some(pooler)
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        // It has ended already where this fails.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

fn open_to_all(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Seven requests of a caller, whose rows are its own.
async fn round(db: &Db, id: i64) -> Result<(), Error> {
    let artist = json!({"artist_id": id, "name": format!("artist {id}")});
    let (_, written) = db.mutate(db.insert("artist", artist.clone(), Some(json!(["artist_id", "name"])))).await?;
    assert_eq!(written, json!([artist]));

    // A batch, one of whose mutations reads a relation.
    let album =
        |number: i64| json!({"album_id": id * 2 + number, "title": format!("title {id} {number}"), "artist_id": id});
    let returning = json!({"title": 1, "artist": {"select": ["name"]}});
    let batch = [db.insert("album", album(0), Some(returning)), db.insert("album", album(1), None)];
    let written = db.write(&batch).await?;
    let rows: Json = serde_json::from_slice(&written[0].rows).unwrap();
    assert_eq!(rows, json!([{"title": format!("title {id} 0"), "artist": {"name": format!("artist {id}")}}]));

    let tree =
        json!({"find": {"artist_id": id}, "select": {"name": 1, "album": {"select": ["title"], "sort": ["title"]}}});
    let titles = json!([{"title": format!("title {id} 0")}, {"title": format!("title {id} 1")}]);
    assert_eq!(db.read("artist", tree).await?, json!([{"name": format!("artist {id}"), "album": titles}]));

    let by_key = json!({"find": {"album_id": id * 2}, "select": ["title"], "shape": "one"});
    assert_eq!(db.read("album", by_key).await?, json!({"title": format!("title {id} 0")}));

    let span = json!({"id": id, "span": "1 day 02:00:00", "at": "2024-01-01T00:00:00Z", "raw": "AP8=", "word": "Word"});
    let all = json!(["id", "span", "at", "raw", "word"]);
    assert_eq!(db.mutate(db.insert("spans", span.clone(), Some(all.clone()))).await?.1, json!([span]));
    let same = json!({"find": {"word": "wORD", "id": {"$in": [id, id + 1_000_000]}}, "select": all});
    assert_eq!(db.read("spans", same).await?, json!([span]));

    // What the database refuses says so, and leaves nothing.
    let refused = db.mutate(db.insert("album", album(0), None)).await;
    assert!(matches!(refused, Err(Error::Conflict { .. })), "{refused:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_behind_a_pooler_find_what_they_wrote() {
    let Some(pooler) = Pooler::start().await else { return };
    let db = postgres(&pooler.url).await;
    let prefix = db.prefix();
    db.execute("CREATE EXTENSION IF NOT EXISTS citext WITH SCHEMA public").await;
    db.execute(&format!(
        "CREATE TABLE {prefix}spans (id INTEGER PRIMARY KEY, span INTERVAL, at TIMESTAMPTZ, raw BYTEA, word public.citext)"
    ))
    .await;
    assert!(db.database.refresh().await.unwrap());

    let db = &db;
    let caller = |caller: i64| async move {
        for number in 0..ROUNDS {
            let id = 1000 + caller * ROUNDS + number;
            round(db, id).await.unwrap_or_else(|error| panic!("{id}: {error:?}"));
        }
    };
    join_all((0..CALLERS).map(caller)).await;

    const { assert!(CALLERS * ROUNDS * 7 >= 10_000) };
    let count = db.read("album", json!({"find": {"album_id": {"$gte": 2000}}, "shape": "count"})).await;
    assert_eq!(count, Ok(json!(CALLERS * ROUNDS * 2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_moves_behind_a_pooler_is_seen() {
    let Some(pooler) = Pooler::start().await else { return };
    let db = postgres(&pooler.url).await;
    let prefix = db.prefix();
    let all = json!({"select": ["name"], "limit": 1});
    assert_eq!(db.read("artist", all.clone()).await, Ok(json!([{"name": "AC/DC"}])));
    db.execute(&format!("ALTER TABLE {prefix}artist ALTER COLUMN name TYPE TEXT")).await;
    assert_eq!(db.read("artist", all.clone()).await, Ok(json!([{"name": "AC/DC"}])));
    db.execute(&format!("ALTER TABLE {prefix}artist RENAME COLUMN name TO label")).await;
    assert!(db.database.refresh().await.unwrap());
    assert_eq!(db.read("artist", json!({"select": ["label"], "limit": 1})).await, Ok(json!([{"label": "AC/DC"}])));
}
