//! Against a real server, the one that `TEST_POSTGRES_URL` names: each test in a database of its own.

use mesh::tasks::Tasks;
use tokio_postgres::{Client, NoTls};

use super::*;

/// A database of its own, gone with the next run of the same test.
struct Server {
    url: String,
    client: Client,
}

impl Server {
    /// `None`, and a word about it, where there is no server and none is demanded.
    async fn with(test: &str, setup: &str) -> Option<Self> {
        let Ok(url) = std::env::var("TEST_POSTGRES_URL") else {
            assert!(std::env::var_os("CI").is_none(), "TEST_POSTGRES_URL names no server");
            eprintln!("skipped: TEST_POSTGRES_URL names no server");
            return None;
        };
        let admin = connect(&url).await;
        admin.batch_execute(&format!("DROP DATABASE IF EXISTS changes_{test} WITH (FORCE)")).await.unwrap();
        admin.batch_execute(&format!("CREATE DATABASE changes_{test}")).await.unwrap();
        let (address, _) = url.rsplit_once('/').unwrap();
        let url = format!("{address}/changes_{test}");
        let client = connect(&url).await;
        client.batch_execute("SET client_min_messages TO warning; CREATE SCHEMA music").await.unwrap();
        client.batch_execute("SET search_path TO music").await.unwrap();
        client.batch_execute(setup).await.unwrap();
        Some(Self { url, client })
    }

    fn store(&self) -> Postgres {
        Postgres::open("shop", &self.url, "music", 4, &Tasks::default()).unwrap()
    }

    /// The store of another role, which is made.
    async fn store_of(&self, role: &str) -> Postgres {
        self.role(role).await;
        let url = self.url.replacen("postgres@", &format!("{role}@"), 1);
        Postgres::open("shop", &url, "music", 4, &Tasks::default()).unwrap()
    }

    /// Makes a role that may use all that there is in the schema.
    async fn role(&self, role: &str) {
        let sql = format!(
            "DO $$ BEGIN CREATE ROLE {role} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
             GRANT USAGE ON SCHEMA music TO {role}; GRANT ALL ON ALL TABLES IN SCHEMA music TO {role}"
        );
        self.execute(&sql).await;
    }

    /// Another connection, to the same tables.
    async fn other(&self) -> Client {
        let other = connect(&self.url).await;
        other.batch_execute("SET search_path TO music").await.unwrap();
        other
    }

    async fn execute(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    async fn count(&self, sql: &str) -> i64 {
        self.client.query_one(sql, &[]).await.unwrap().get(0)
    }

    /// Objects of ours, and triggers.
    async fn ours(&self) -> i64 {
        let ours = "SELECT (SELECT count(*) FROM pg_namespace WHERE nspname = 'perigee_changes')
            + (SELECT count(*) FROM pg_proc WHERE proname = 'note')
            + (SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'perigee%')";
        self.count(ours).await
    }
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// The tables that were changed, after a look at the catalog.
async fn changed(store: &Postgres, position: &mut Position) -> Vec<String> {
    position.catalog_seen = None;
    match store.changes_since(position).await.unwrap() {
        Changed::Tables(tables) => tables,
        Changed::Any => vec!["any".to_owned()],
    }
}

/// A store and its position, after the capture of these tables.
async fn captured(store: &Postgres, tables: &[&str]) -> Position {
    let mut position = Position::default();
    for table in tables {
        store.capture(&mut position, table).await.unwrap();
    }
    assert_eq!(changed(store, &mut position).await, Vec::<String>::new());
    position
}

async fn refusal(store: &Postgres, table: &str) -> String {
    store.capture(&mut Position::default(), table).await.unwrap_err().to_string()
}

const MUSIC: &str = "
    CREATE TABLE album (id int PRIMARY KEY, title text, by int);
    CREATE TABLE \"it's\" (id serial, album int REFERENCES album ON DELETE CASCADE);
    CREATE TABLE part (id int, year int) PARTITION BY RANGE (year);
    CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (10);
    CREATE TABLE part_2 PARTITION OF part FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (year);
    CREATE TABLE part_2_1 PARTITION OF part_2 FOR VALUES FROM (10) TO (20);
    CREATE TABLE parent (id int);
    CREATE TABLE child (more int) INHERITS (parent);
    CREATE TABLE above (id int);
    CREATE TABLE own (more int) INHERITS (above);
    INSERT INTO album VALUES (1, 'a'), (2, 'b');
    INSERT INTO \"it's\" (album) VALUES (1);
    CREATE VIEW titles AS SELECT title FROM album;
    CREATE MATERIALIZED VIEW kept AS SELECT title FROM album;
    CREATE UNLOGGED TABLE fleeting (id int);";

#[tokio::test]
async fn every_way_to_change_rows_is_captured() {
    let Some(server) = Server::with("ways", MUSIC).await else { return };
    let store = server.store();
    server.role("changes_writer").await;
    let mut position = captured(&store, &["album", "it's", "part", "parent", "own"]).await;
    for (sql, expected) in [
        ("SELECT 1", &[][..]),
        ("INSERT INTO album VALUES (3, 'c')", &["album"]),
        ("INSERT INTO album VALUES (3, 'x') ON CONFLICT (id) DO UPDATE SET title = 'd'", &["album"]),
        ("UPDATE album SET id = 4 WHERE id = 3", &["album"]),
        ("BEGIN; UPDATE album SET title = 'x'; ROLLBACK", &[]),
        (
            "BEGIN; SAVEPOINT a; UPDATE album SET title = 'x'; ROLLBACK TO a; DELETE FROM parent; INSERT INTO parent VALUES (1); COMMIT",
            &["parent"],
        ),
        (
            "BEGIN; SAVEPOINT a; UPDATE album SET title = 'x'; ROLLBACK TO a; UPDATE album SET title = 'y'; COMMIT",
            &["album"],
        ),
        ("DELETE FROM album WHERE id = 1", &["album", "it's"]),
        ("DO $$ BEGIN INSERT INTO album VALUES (9, 'z'); RAISE 'x'; EXCEPTION WHEN OTHERS THEN NULL; END $$", &[]),
        ("INSERT INTO part VALUES (1, 1), (2, 11)", &["part"]),
        ("UPDATE part SET year = 12 WHERE id = 1", &["part"]),
        ("INSERT INTO part_2_1 VALUES (3, 13)", &["part"]),
        ("DELETE FROM part_2", &["part"]),
        ("INSERT INTO child VALUES (1, 2)", &["parent"]),
        ("UPDATE parent SET id = 5", &["parent"]),
        ("INSERT INTO own VALUES (1, 2)", &["own"]),
        ("UPDATE above SET id = 5", &["own"]),
        (
            "SET session_replication_role TO replica; UPDATE album SET title = 'r'; RESET session_replication_role",
            &["album"],
        ),
        (
            "SET session_replication_role TO replica; INSERT INTO part_1 VALUES (1, 1); RESET session_replication_role",
            &["part"],
        ),
        ("SET ROLE changes_writer; UPDATE album SET title = 'w'; RESET ROLE", &["album"]),
        ("BEGIN ISOLATION LEVEL SERIALIZABLE; UPDATE album SET title = 's'; COMMIT", &["album"]),
        (
            "BEGIN ISOLATION LEVEL REPEATABLE READ; UPDATE album SET title = 's'; UPDATE album SET title = 't'; COMMIT",
            &["album"],
        ),
        ("COPY (SELECT 1) TO STDOUT", &[]),
        ("BEGIN READ ONLY; SELECT * FROM album; COMMIT", &[]),
        ("TRUNCATE parent", &["any"]),
    ] {
        match sql.starts_with("COPY") {
            true => drop(server.client.copy_out(sql).await.unwrap()),
            false => server.execute(sql).await,
        }
        assert_eq!(changed(&store, &mut position).await, expected, "{sql}");
    }
}

/// Mutants of the reader are asked beside it: a cut by the greatest id that was seen, and one by the oldest in progress.
#[tokio::test]
async fn a_transaction_is_seen_when_it_is_committed_and_not_before() {
    let Some(server) = Server::with("visibility", MUSIC).await else { return };
    let store = server.store();
    let mut position = captured(&store, &["album", "parent"]).await;
    let (long, short) = (server.other().await, server.other().await);
    let by_greatest = async |after: i64| -> i64 {
        let log = "SELECT count(*) FROM perigee_changes.log WHERE xid::text::bigint > ";
        server.count(&format!("{log} {after}")).await
    };
    let before_oldest = "SELECT count(*) FROM perigee_changes.log WHERE xid < pg_snapshot_xmin(pg_current_snapshot())";

    long.batch_execute("BEGIN; SAVEPOINT a; INSERT INTO album VALUES (7, 'g'); SAVEPOINT b").await.unwrap();
    short.batch_execute("INSERT INTO parent VALUES (1)").await.unwrap();
    assert_eq!(server.count(before_oldest).await, 0, "a cut by the oldest in progress waits");
    assert_eq!(changed(&store, &mut position).await, ["parent"]);
    assert_eq!(changed(&store, &mut position).await, Vec::<String>::new(), "it is told once");
    let greatest = server.count("SELECT max(xid::text::bigint) FROM perigee_changes.log").await;

    short.batch_execute("UPDATE album SET title = 'x'").await.unwrap();
    assert_eq!(changed(&store, &mut position).await, ["album"]);
    let greatest = greatest.max(server.count("SELECT max(xid::text::bigint) FROM perigee_changes.log").await);
    long.batch_execute("COMMIT").await.unwrap();
    assert_eq!(by_greatest(greatest).await, 0, "a cut by the greatest id misses it");
    assert_eq!(changed(&store, &mut position).await, ["album"]);
    assert_eq!(changed(&store, &mut position).await, Vec::<String>::new());

    if server.count("SELECT current_setting('max_prepared_transactions')::bigint").await > 0 {
        long.batch_execute("BEGIN; DELETE FROM parent; PREPARE TRANSACTION 'held'").await.unwrap();
        short.batch_execute("UPDATE album SET title = 'y'").await.unwrap();
        assert_eq!(changed(&store, &mut position).await, ["album"]);
        long.batch_execute("COMMIT PREPARED 'held'").await.unwrap();
        assert_eq!(changed(&store, &mut position).await, ["parent"]);
    }
}

#[tokio::test]
async fn a_statement_has_the_same_results_with_triggers() {
    let Some(server) = Server::with("results", MUSIC).await else { return };
    let _ = captured(&server.store(), &["it's", "part"]).await;

    assert_eq!(server.client.execute("INSERT INTO \"it's\" (album) VALUES (1), (2)", &[]).await.unwrap(), 2);
    assert_eq!(server.count("SELECT lastval()").await, 3);
    assert_eq!(server.client.execute("UPDATE \"it's\" SET album = 2", &[]).await.unwrap(), 3);
    assert_eq!(
        server.client.execute("INSERT INTO part SELECT 1, n FROM generate_series(0, 19) n", &[]).await.unwrap(),
        20
    );
}

#[tokio::test]
async fn an_application_changes_its_schema_beside_us() {
    let Some(server) = Server::with("ddl", MUSIC).await else { return };
    let store = server.store();
    let mut position = captured(&store, &["album", "it's", "part", "parent", "child"]).await;
    for (sql, table) in [
        ("ALTER TABLE album ADD COLUMN more int DEFAULT 7", Some("album")),
        ("ALTER TABLE album RENAME COLUMN more TO less; ALTER TABLE album ALTER COLUMN less TYPE text", Some("album")),
        ("ALTER TABLE album DROP COLUMN less", Some("album")),
        ("CREATE TABLE part_3 PARTITION OF part FOR VALUES FROM (20) TO (30)", Some("part")),
        ("INSERT INTO part_3 VALUES (1, 25)", Some("part")),
        ("ALTER TABLE part DETACH PARTITION part_3; INSERT INTO part_3 VALUES (1, 25)", Some("part")),
        ("ALTER TABLE part ATTACH PARTITION part_3 FOR VALUES FROM (20) TO (30)", Some("part")),
        ("CREATE TABLE grandchild () INHERITS (child); INSERT INTO grandchild VALUES (1, 2)", Some("parent")),
        ("INSERT INTO grandchild VALUES (1, 2)", Some("parent")),
        ("CLUSTER album USING album_pkey; CREATE INDEX ON album (title)", Some("album")),
        ("ALTER TABLE album DISABLE TRIGGER ALL; INSERT INTO album VALUES (8, 'h')", Some("album")),
        ("INSERT INTO album VALUES (9, 'i')", Some("album")),
        ("BEGIN; TRUNCATE album CASCADE; INSERT INTO album VALUES (8, 'h'); COMMIT", Some("album")),
        ("BEGIN; DROP TABLE parent CASCADE; CREATE TABLE parent (id int); COMMIT", Some("parent")),
        ("INSERT INTO parent VALUES (1)", Some("parent")),
        ("ALTER TABLE album RENAME TO record; INSERT INTO record VALUES (5, 'e')", None),
        ("ALTER TABLE \"it's\" SET SCHEMA public; INSERT INTO public.\"it's\" (album) VALUES (5)", None),
        ("DROP TABLE part", None),
    ] {
        server.execute(sql).await;
        let found = changed(&store, &mut position).await;
        assert!(table.is_none_or(|table| found.iter().any(|name| name == table || name == "any")), "{sql}: {found:?}");
        for name in position.tables.keys().cloned().collect::<Vec<_>>() {
            // What is there no longer is refused.
            let _ = store.capture(&mut position, &name).await;
        }
        if position.last.is_none() {
            store.capture(&mut position, "parent").await.unwrap();
        }
        changed(&store, &mut position).await;
    }
    store.release(&mut position, &[]).await.unwrap();
    assert_eq!(server.ours().await, 0);
    server.execute("INSERT INTO record VALUES (6, 'f'); INSERT INTO public.\"it's\" (album) VALUES (5)").await;
}

#[tokio::test]
async fn a_table_that_was_captured_may_become_a_partition_of_another() {
    let Some(server) = Server::with("attached", MUSIC).await else { return };
    server.execute("CREATE TABLE part_3 (id int, year int)").await;
    let store = server.store();
    let mut position = captured(&store, &["part", "part_3"]).await;

    server.execute("ALTER TABLE part ATTACH PARTITION part_3 FOR VALUES FROM (20) TO (30)").await;
    assert_eq!(changed(&store, &mut position).await, ["any"]);
    store.capture(&mut position, "part").await.unwrap();
    store.capture(&mut position, "part_3").await.unwrap();
    server.execute("INSERT INTO part VALUES (1, 21)").await;
    assert_eq!(changed(&store, &mut position).await, ["part", "part_3"]);
    server.execute("ALTER TABLE part DETACH PARTITION part_3").await;
    store.release(&mut position, &[]).await.unwrap();
    assert_eq!(server.ours().await, 0);
}

#[tokio::test]
async fn only_tables_whose_changes_can_be_seen_are_captured() {
    let Some(server) = Server::with("kinds", MUSIC).await else { return };
    let store = server.store();
    for (table, found) in [
        ("titles", "a view"),
        ("kept", "a materialized view"),
        ("fleeting", "an unlogged table"),
        ("lost", "nothing of that name"),
    ] {
        let error = refusal(&store, table).await;
        assert_eq!(error, format!("changes of {table} cannot be followed: expected a table, found {found}"));
    }
    server.execute("CREATE UNLOGGED TABLE below () INHERITS (parent)").await;
    let error = refusal(&store, "parent").await;
    let below = "expected a table, found an unlogged table, music.below, below it";
    assert_eq!(error, format!("changes of parent cannot be followed: {below}"));
    assert_eq!(server.ours().await, 0);
}

#[tokio::test]
async fn a_missing_right_is_named() {
    let Some(server) = Server::with("rights", MUSIC).await else { return };
    let store = server.store_of("changes_app").await;
    let mine = "CREATE TABLE mine (id int); ALTER TABLE mine OWNER TO changes_app";
    server.execute(mine).await;
    assert_eq!(
        refusal(&store, "album").await,
        "changes of album cannot be followed: role changes_app must own music.album to make triggers, its owner is postgres"
    );
    assert_eq!(
        refusal(&store, "mine").await,
        "changes of mine cannot be followed: role changes_app needs the right CREATE on database changes_rights, \
         or a schema perigee_changes of its own"
    );
    server.execute("CREATE SCHEMA perigee_changes").await;
    assert_eq!(
        refusal(&store, "mine").await,
        "changes of mine cannot be followed: role changes_app must own schema perigee_changes, its owner is postgres"
    );
    server.execute("ALTER SCHEMA perigee_changes OWNER TO changes_app").await;
    let mut position = captured(&store, &["mine"]).await;
    server.execute("INSERT INTO mine VALUES (1)").await;
    assert_eq!(changed(&store, &mut position).await, ["mine"]);
    store.release(&mut position, &[]).await.unwrap();
    assert_eq!(server.ours().await, 1, "a schema that we could not make again stays");

    server.execute("DROP SCHEMA perigee_changes; GRANT CREATE ON DATABASE changes_rights TO changes_app").await;
    let mut position = captured(&store, &["mine"]).await;
    store.release(&mut position, &[]).await.unwrap();
    assert_eq!(server.ours().await, 0);
}

/// The owner of a table makes partitions while a role that may do all follows it.
#[tokio::test]
async fn the_owner_of_a_table_goes_on_beside_a_role_of_ours() {
    let Some(server) = Server::with("owner", MUSIC).await else { return };
    server.role("changes_owner").await;
    server
        .execute(
            "GRANT ALL ON SCHEMA music TO changes_owner; ALTER TABLE album OWNER TO changes_owner;
             ALTER TABLE part OWNER TO changes_owner; CREATE TABLE part_5 (id int, year int);
             ALTER TABLE part_5 OWNER TO changes_owner",
        )
        .await;
    let store = server.store();
    let mut position = captured(&store, &["part", "album"]).await;
    for sql in [
        "CREATE TABLE part_3 PARTITION OF part FOR VALUES FROM (20) TO (30)",
        "CREATE TABLE part_4 PARTITION OF part FOR VALUES FROM (30) TO (40) PARTITION BY RANGE (year)",
        "CREATE TABLE part_4_1 PARTITION OF part_4 FOR VALUES FROM (30) TO (40)",
        "ALTER TABLE part ATTACH PARTITION part_5 FOR VALUES FROM (50) TO (60)",
        "INSERT INTO part VALUES (1, 25), (1, 35), (1, 55); UPDATE part SET year = 21 WHERE year = 55",
        "ALTER TABLE part DETACH PARTITION part_5; INSERT INTO part_5 VALUES (1, 1); DROP TABLE part_3",
        "ALTER TABLE album ADD COLUMN wide text; ALTER TABLE album RENAME COLUMN wide TO wider",
        "UPDATE album SET wider = repeat('x', 100000); UPDATE album SET title = 'y'; TRUNCATE album CASCADE",
        "ALTER TABLE album DROP CONSTRAINT album_pkey CASCADE; INSERT INTO album VALUES (1), (1); DELETE FROM album",
        "ALTER TABLE album SET UNLOGGED; INSERT INTO album VALUES (1); ALTER TABLE album SET LOGGED",
        "ALTER TABLE album RENAME TO record; DROP TABLE record CASCADE; DROP TABLE part",
    ] {
        let script = format!("SET ROLE changes_owner; {sql}; RESET ROLE");
        server.execute(&script).await;
        let found = changed(&store, &mut position).await;
        assert!(!found.is_empty(), "{sql}");
        for table in ["part", "album"] {
            // What is there no longer is refused.
            let _ = store.capture(&mut position, table).await;
        }
    }
    store.release(&mut position, &[]).await.unwrap();
    assert_eq!(server.ours().await, 0);
}

/// Code of a stranger would run with the rights of our role, in this case those of a superuser.
#[tokio::test]
async fn objects_of_another_role_are_not_used() {
    let Some(server) = Server::with("stranger", MUSIC).await else { return };
    server.role("changes_stranger").await;
    server.execute("GRANT CREATE ON DATABASE changes_stranger TO changes_stranger").await;
    let mark = format!("COMMENT ON SCHEMA perigee_changes IS '{}'", setup::MARK);
    let schema = format!("CREATE SCHEMA perigee_changes AUTHORIZATION changes_stranger; {mark}");
    let trap = "
        CREATE FUNCTION perigee_changes.trap() RETURNS text LANGUAGE plpgsql AS $$ BEGIN
            ALTER ROLE changes_stranger SUPERUSER; RETURN 'x'; END $$;
        CREATE FUNCTION perigee_changes.spring() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            ALTER ROLE changes_stranger SUPERUSER; RETURN NEW; END $$;";
    let tables = "
        CREATE TABLE perigee_changes.log (xid xid8, tbl oid, PRIMARY KEY (xid, tbl));
        CREATE TABLE perigee_changes.state (one boolean PRIMARY KEY DEFAULT true, epoch text NOT NULL, pruned text);
        CREATE TABLE perigee_changes.readers (schema text PRIMARY KEY, seen timestamptz NOT NULL);
        CREATE TRIGGER spring BEFORE INSERT ON perigee_changes.state FOR EACH ROW EXECUTE FUNCTION perigee_changes.spring();
        CREATE TRIGGER spring BEFORE INSERT ON perigee_changes.readers FOR EACH ROW EXECUTE FUNCTION perigee_changes.spring();";
    let views = "
        CREATE VIEW perigee_changes.log AS SELECT '1'::xid8 AS xid, 1::oid AS tbl WHERE perigee_changes.trap() = '';
        CREATE VIEW perigee_changes.state AS SELECT perigee_changes.trap() AS epoch, perigee_changes.trap() AS pruned;
        CREATE VIEW perigee_changes.readers AS SELECT perigee_changes.trap() AS schema, now() AS seen;";
    let given =
        "ALTER SCHEMA perigee_changes OWNER TO postgres; GRANT ALL ON SCHEMA perigee_changes TO changes_stranger";
    let store = server.store();
    let of_schema = "schema perigee_changes, its owner is changes_stranger";
    for (objects, after, why) in [
        (tables, "", of_schema),
        (views, "", of_schema),
        (tables, given, "perigee_changes.log, its owner is changes_stranger"),
        (views, given, "perigee_changes.log, its owner is changes_stranger"),
    ] {
        let mut position = captured(&store, &["album"]).await;
        let script = format!(
            "DROP SCHEMA perigee_changes CASCADE; SET ROLE changes_stranger; {schema}; {trap} {objects} RESET ROLE; {after}"
        );
        server.execute(&script).await;

        // It is read, pruned, captured and released as before.
        let limit = position.last.clone().unwrap().snapshot;
        assert_eq!(changed(&store, &mut position).await, ["any"], "{script}");
        assert!(store.prune(&limit).await.is_err(), "{script}");
        let error = refusal(&store, "album").await;
        assert_eq!(error, format!("changes of album cannot be followed: role postgres must own {why}"), "{script}");
        store.release(&mut position, &[]).await.unwrap();
        let privileged = "SELECT count(*) FROM pg_roles WHERE rolname = 'changes_stranger' AND rolsuper";
        assert_eq!(server.count(privileged).await, 0, "{script}");
        assert_eq!(server.count("SELECT count(*) FROM pg_class WHERE relname = 'readers'").await, 1, "{script}");
        server.execute("DROP SCHEMA perigee_changes CASCADE").await;
    }
}

#[tokio::test]
async fn a_schema_that_is_not_ours_is_left_alone() {
    let Some(server) = Server::with("foreign", MUSIC).await else { return };
    server.execute("CREATE SCHEMA perigee_changes; CREATE TABLE perigee_changes.log (mine text)").await;
    let store = server.store();
    assert_eq!(
        refusal(&store, "album").await,
        "changes of album cannot be followed: the database has another schema perigee_changes"
    );
    store.release(&mut Position::default(), &[]).await.unwrap();
    assert_eq!(server.count("SELECT count(*) FROM perigee_changes.log").await, 0);
}

#[tokio::test]
async fn nobody_else_writes_to_the_log_and_it_has_nothing_of_rows() {
    let Some(server) = Server::with("secret", MUSIC).await else { return };
    let _ = captured(&server.store(), &["album"]).await;
    server.role("changes_reader").await;
    server.execute("INSERT INTO album VALUES (5, 'secret'); CREATE PUBLICATION everything FOR ALL TABLES").await;
    for sql in [
        "INSERT INTO perigee_changes.log VALUES ('1', 1)",
        "DELETE FROM perigee_changes.log",
        "UPDATE perigee_changes.state SET pruned = '9:9:'",
        "DELETE FROM perigee_changes.readers",
        "CREATE TABLE perigee_changes.mine ()",
        "LOCK TABLE perigee_changes.log IN ROW EXCLUSIVE MODE",
    ] {
        let refused = server.client.batch_execute(&format!("BEGIN; SET ROLE changes_reader; {sql}")).await.unwrap_err();
        assert_eq!(refused.code().unwrap().code(), "42501", "{sql}");
        server.execute("ROLLBACK").await;
    }
    let columns = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'perigee_changes.log'::regclass AND attnum > 0";
    assert_eq!(server.count(columns).await, 2, "a transaction and a table");
    let published = "SELECT count(*) FROM pg_publication_tables WHERE schemaname = 'perigee_changes'";
    assert_eq!(server.count(published).await, 0, "who replicates all tables does not replicate ours");
}

#[tokio::test]
async fn what_is_released_leaves_nothing_and_spares_what_others_need() {
    let Some(server) = Server::with("released", MUSIC).await else { return };
    server.execute("CREATE SCHEMA film; CREATE TABLE film.title (id int)").await;
    let store = server.store();
    let film = Postgres::open("shop", &server.url, "film", 4, &Tasks::default()).unwrap();
    let mut position = captured(&store, &["album", "it's", "part", "parent"]).await;
    let mut of_film = captured(&film, &["title"]).await;

    store.release(&mut position, &["album".to_owned()]).await.unwrap();
    assert_eq!(changed(&store, &mut position).await, Vec::<String>::new());
    server
        .execute("UPDATE album SET title = 'x'; INSERT INTO parent VALUES (1); INSERT INTO film.title VALUES (1)")
        .await;
    assert_eq!(changed(&store, &mut position).await, ["album"]);
    assert_eq!(changed(&film, &mut of_film).await, ["title"]);
    store.release(&mut position, &[]).await.unwrap();
    assert_eq!(server.ours().await, 3, "schema, function and the trigger of the other");
    server
        .execute("UPDATE album SET title = 'x'; INSERT INTO part VALUES (1, 1); INSERT INTO film.title VALUES (1)")
        .await;
    film.release(&mut of_film, &[]).await.unwrap();
    assert_eq!(server.ours().await, 0);
    server.execute("UPDATE album SET title = 'x'; INSERT INTO film.title VALUES (1)").await;
    film.release(&mut of_film, &[]).await.unwrap();
}

#[tokio::test]
async fn what_a_process_left_is_taken_over_and_two_share_a_database() {
    let Some(server) = Server::with("shared", MUSIC).await else { return };
    let (one, other) = (server.store(), server.store());
    let mut position = captured(&one, &["album", "part"]).await;
    let made = server.ours().await;
    let mut of_other = captured(&other, &["album", "part"]).await;
    assert_eq!(server.ours().await, made);
    server.execute("UPDATE album SET title = 'x'").await;
    assert_eq!(changed(&one, &mut position).await, ["album"]);
    assert_eq!(changed(&other, &mut of_other).await, ["album"]);

    // One that does not know of the other removes what that needs, which is noticed.
    one.release(&mut position, &[]).await.unwrap();
    assert_eq!(server.ours().await, 0);
    server.execute("INSERT INTO part VALUES (1, 1)").await;
    assert_eq!(changed(&other, &mut of_other).await, ["any"]);
    for table in ["album", "part"] {
        other.capture(&mut of_other, table).await.unwrap();
    }
    server.execute("INSERT INTO part VALUES (1, 1)").await;
    assert_eq!(changed(&other, &mut of_other).await, ["part"]);
    // A new process, which captures nothing.
    server.store().release(&mut Position::default(), &[]).await.unwrap();
    assert_eq!(server.ours().await, 0);
}

#[tokio::test]
async fn serializable_transactions_do_not_conflict_because_of_us() {
    let Some(server) = Server::with("serializable", MUSIC).await else { return };
    let database = "ALTER DATABASE changes_serializable SET default_transaction_isolation TO serializable";
    server.execute(database).await;
    let store = server.store();
    let mut position = captured(&store, &["album", "parent"]).await;
    let (one, other) = (server.other().await, server.other().await);
    for round in 0..20 {
        for (client, sql) in [(&one, "UPDATE album SET by = 1 WHERE id = 1"), (&other, "INSERT INTO parent VALUES (1)")]
        {
            client.batch_execute(&format!("BEGIN; {sql}; {sql}")).await.unwrap();
        }
        changed(&store, &mut position).await;
        one.batch_execute("COMMIT").await.unwrap_or_else(|error| panic!("{round}: {error}"));
        assert_eq!(changed(&store, &mut position).await, ["album"]);
        let limit = position.last.clone().unwrap().snapshot;
        store.prune(&limit).await.unwrap();
        other.batch_execute("COMMIT").await.unwrap_or_else(|error| panic!("{round}: {error}"));
        assert_eq!(changed(&store, &mut position).await, ["parent"]);
    }
}

#[tokio::test]
async fn what_may_have_lost_entries_is_noticed() {
    let Some(server) = Server::with("lost", MUSIC).await else { return };
    let store = server.store();
    let mut position = captured(&store, &["album"]).await;
    for sql in [
        // A crash of the server empties what is unlogged.
        "TRUNCATE perigee_changes.log, perigee_changes.state",
        "DROP SCHEMA perigee_changes CASCADE",
        "DROP TRIGGER \"perigee_changes_' || oid || '\" ON album",
        // As after a restore from a server that is further.
        "UPDATE perigee_changes.state SET pruned = '99999:99999:'",
        "INSERT INTO perigee_changes.log VALUES ('99999', 1)",
    ] {
        let oid = server.count("SELECT 'album'::regclass::oid::bigint").await.to_string();
        server.execute(&sql.replace("' || oid || '", &oid)).await;
        if !sql.starts_with("INSERT") {
            assert_eq!(changed(&store, &mut position).await, ["any"], "{sql}");
        }
        store.capture(&mut position, "album").await.unwrap();
        changed(&store, &mut position).await;
        server.execute("UPDATE album SET title = 'x'").await;
        let found = changed(&store, &mut position).await;
        assert!(found == ["album"] || found == ["any"], "{sql}: {found:?}");
        store.capture(&mut position, "album").await.unwrap();
        server.execute("UPDATE album SET title = 'x'").await;
        assert_eq!(changed(&store, &mut position).await, ["album"], "{sql}");
    }
}

#[tokio::test]
async fn the_log_is_pruned_and_who_missed_entries_learns_it() {
    let Some(server) = Server::with("pruned", MUSIC).await else { return };
    let store = server.store();
    let mut position = captured(&store, &["album"]).await;
    let mut late = Position { last: position.last.clone(), tables: position.tables.clone(), ..Position::default() };
    let long = server.other().await;
    let entries = "SELECT count(*) FROM perigee_changes.log";
    long.batch_execute("BEGIN; UPDATE album SET by = 1 WHERE id = 1").await.unwrap();
    server.execute("UPDATE album SET title = 'x' WHERE id = 2").await;
    assert_eq!(changed(&store, &mut position).await, ["album"]);
    let limit = position.last.clone().unwrap().snapshot;
    long.batch_execute("COMMIT").await.unwrap();
    assert_eq!(server.count(entries).await, 2);

    store.prune(&limit).await.unwrap();
    assert_eq!(server.count(entries).await, 1, "what the limit does not see stays");
    assert_eq!(changed(&store, &mut position).await, ["album"]);
    assert_eq!(changed(&store, &mut late).await, ["any"]);
    // Another process prunes now.
    let turn = server.other().await;
    turn.batch_execute("BEGIN; SELECT pg_advisory_xact_lock(8099000146718220900)").await.unwrap();
    store.prune(&position.last.clone().unwrap().snapshot).await.unwrap();
    assert_eq!(server.count(entries).await, 1);
    turn.batch_execute("COMMIT").await.unwrap();
    // Never back.
    store.prune(&ServerSnapshot::default()).await.unwrap();
    let pruned = format!("SELECT count(*) FROM perigee_changes.state WHERE pruned = '{limit}'");
    assert_eq!(server.count(&pruned).await, 1);
}

/// A process was killed that left many entries.
#[tokio::test]
async fn a_long_log_is_pruned_in_batches_and_not_read_by_a_capture() {
    let Some(server) = Server::with("batches", MUSIC).await else { return };
    let store = server.store();
    let mut position = captured(&store, &["album"]).await;
    let entries = "SELECT count(*) FROM perigee_changes.log";
    let fill = "INSERT INTO perigee_changes.log SELECT n::text::xid8, 'album'::regclass FROM generate_series(1, 600) n, \
                LATERAL (SELECT 1) one; INSERT INTO perigee_changes.log SELECT '700', n FROM generate_series(1, 120000) n";
    server.execute(fill).await;
    let limit = ServerSnapshot { end: 701, running: vec![5] };

    let found = store.baseline("album").await.unwrap().unwrap();
    assert_eq!(found.relations, Vec::<u32>::new());
    assert_eq!(store.prune_batch(&limit, "0").await.unwrap(), Some("700".to_owned()));
    assert_eq!(server.count(entries).await, 70_600);
    // Capture goes on beside it.
    let pruning = server.other().await;
    pruning.batch_execute("BEGIN; SELECT pg_advisory_xact_lock(8099000146718220900)").await.unwrap();
    store.capture(&mut position, "parent").await.unwrap();
    pruning.batch_execute("COMMIT").await.unwrap();
    store.prune(&limit).await.unwrap();
    assert_eq!(server.count(entries).await, 1, "what the limit does not see stays");
}

/// What is found is told at once: the log is pruned beside it.
#[tokio::test]
async fn limits_are_pruned_as_they_come() {
    let Some(server) = Server::with("limits", MUSIC).await else { return };
    let store = server.store();
    let mut position = captured(&store, &["album"]).await;
    server.execute("UPDATE album SET title = 'x'").await;
    assert_eq!(changed(&store, &mut position).await, ["album"]);
    let snapshot = position.last.clone().unwrap().snapshot;
    position.history = [(Instant::now().checked_sub(2 * PRUNE_AGE).unwrap(), snapshot)].into();
    let pruning = store.pruning(&position);
    let turn = server.other().await;
    turn.batch_execute("BEGIN; LOCK TABLE perigee_changes.log IN SHARE MODE").await.unwrap();

    assert_eq!(changed(&store, &mut position).await, Vec::<String>::new());
    turn.batch_execute("COMMIT").await.unwrap();
    drop(position);
    pruning.await;
    assert_eq!(server.count("SELECT count(*) FROM perigee_changes.log").await, 0);
}

#[test]
fn entries_stay_for_a_while() {
    let mut position = Position::default();
    let start = Instant::now();
    let at = |second: u64| ServerSnapshot { end: second, running: Vec::new() };
    let mut limits = Vec::new();
    for second in 0..100 {
        limits
            .extend(position.limit(start + Duration::from_secs(second), &at(second)).map(|limit| (second, limit.end)));
    }
    assert_eq!(limits, [(60, 0), (70, 10), (80, 20), (90, 30)]);
    assert!(position.history.len() < 10);
}

#[tokio::test]
async fn a_lock_is_waited_for_shortly_only() {
    let Some(server) = Server::with("locked", MUSIC).await else { return };
    let store = server.store();
    let long = server.other().await;
    long.batch_execute("BEGIN; UPDATE album SET title = 'x'").await.unwrap();
    let error = store.capture(&mut Position::default(), "album").await.unwrap_err();
    assert_eq!(mesh::Fault::from(error).code, mesh::Code::Unavailable);
    assert_eq!(server.ours().await, 0);
    long.batch_execute("COMMIT").await.unwrap();
    let mut position = captured(&store, &["album"]).await;

    long.batch_execute("BEGIN; SELECT * FROM album").await.unwrap();
    assert!(store.release(&mut position, &[]).await.is_err());
    long.batch_execute("COMMIT").await.unwrap();
    store.release(&mut position, &[]).await.unwrap();
    assert_eq!(server.ours().await, 0);
}

/// A lock that is waited for holds up all who come later.
#[tokio::test]
async fn a_lock_that_is_held_for_long_is_not_waited_for() {
    let Some(server) = Server::with("held", MUSIC).await else { return };
    let store = server.store();
    let (long, writer) = (server.other().await, server.other().await);
    writer.batch_execute("SET lock_timeout TO '20ms'").await.unwrap();
    for (table, statement, insert) in [
        ("album", "UPDATE album SET by = 1 WHERE id = 1", "INSERT INTO album (id) VALUES (50)"),
        ("part", "INSERT INTO part VALUES (1, 1)", "INSERT INTO part_2 VALUES (1, 11)"),
        ("parent", "LOCK TABLE parent IN SHARE UPDATE EXCLUSIVE MODE", "INSERT INTO parent VALUES (1)"),
    ] {
        long.batch_execute(&format!("BEGIN; {statement}")).await.unwrap();
        let mut position = Position::default();
        let insert = format!("BEGIN; {insert}; ROLLBACK");
        let mut capturing = Box::pin(store.capture(&mut position, table));
        let refused = loop {
            tokio::select! {
                biased;
                refused = &mut capturing => break refused,
                written = writer.batch_execute(&insert) => written.unwrap(),
            }
        };
        assert_eq!(mesh::Fault::from(refused.unwrap_err()).code, Code::Unavailable, "{table}");
        long.batch_execute("COMMIT").await.unwrap();
    }

    // A table that is always written to by short transactions is captured.
    writer.batch_execute("RESET lock_timeout").await.unwrap();
    let writing = async {
        loop {
            writer.batch_execute("INSERT INTO parent VALUES (1)").await.unwrap();
        }
    };
    let mut position = Position::default();
    tokio::select! {
        captured = store.capture(&mut position, "parent") => captured.unwrap(),
        () = writing => {}
    }
}

#[tokio::test]
async fn tables_that_are_locked_keep_no_other_from_being_released() {
    let Some(server) = Server::with("locked_one", MUSIC).await else { return };
    let store = server.store();
    let mut position = captured(&store, &["album", "it's", "child"]).await;
    let long = server.other().await;
    for table in ["album", "\"it's\"", "child"] {
        long.batch_execute(&format!("BEGIN; SELECT * FROM {table}")).await.unwrap();
        for table in ["album", "it's", "child"] {
            store.capture(&mut position, table).await.unwrap();
        }
        let error = store.release(&mut position, &[]).await.unwrap_err();
        assert_eq!(mesh::Fault::from(error).code, Code::Unavailable);
        assert_eq!(server.ours().await, 3, "schema, function and the trigger of {table}");
        long.batch_execute("COMMIT").await.unwrap();
    }
    store.release(&mut position, &[]).await.unwrap();
    assert_eq!(server.ours().await, 0);
}

/// After an error each table is captured anew, by who listens to it then.
#[tokio::test]
async fn a_table_that_nobody_listens_to_after_an_error_is_forgotten() {
    let Some(server) = Server::with("forgotten", MUSIC).await else { return };
    server.execute("ALTER DATABASE changes_forgotten SET statement_timeout TO '1s'").await;
    let store = server.store();
    let mut position = captured(&store, &["album", "parent"]).await;
    let other = server.other().await;
    other.batch_execute("BEGIN; LOCK TABLE perigee_changes.log").await.unwrap();
    assert!(store.changes_since(&mut position).await.is_err());
    other.batch_execute("COMMIT").await.unwrap();

    server.execute("DROP TABLE parent CASCADE").await;
    store.capture(&mut position, "album").await.unwrap();
    assert_eq!(changed(&store, &mut position).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_trigger_that_is_lost_before_the_first_look_is_made_anew() {
    let Some(server) = Server::with("window", MUSIC).await else { return };
    let store = server.store();
    store.make_triggers("part").await.unwrap();
    assert!(store.baseline("part").await.unwrap().is_some());
    for sql in [
        "ALTER TABLE part_1 DISABLE TRIGGER ALL",
        "CREATE TABLE part_0 (id int, year int); ALTER TABLE part ATTACH PARTITION part_0 FOR VALUES FROM (-9) TO (0);
         ALTER TABLE part_0 DISABLE TRIGGER ALL",
        "DROP SCHEMA perigee_changes CASCADE",
        "TRUNCATE perigee_changes.state",
    ] {
        server.execute(sql).await;
        assert!(store.baseline("part").await.unwrap().is_none(), "{sql}");
        let mut position = captured(&store, &["part"]).await;
        server.execute("INSERT INTO part VALUES (1, 1)").await;
        assert_eq!(changed(&store, &mut position).await, ["part"], "{sql}");
    }
}

/// A crash empties the log, and not what was prepared before it.
#[test]
fn the_end_of_a_transaction_that_was_prepared_before_a_crash_is_noticed() {
    let look = |prepared: &[&str]| LastLook {
        snapshot: ServerSnapshot::default(),
        started: "now".to_owned(),
        epoch: Some("one".to_owned()),
        prepared: prepared.iter().map(|id| (*id).to_owned()).collect(),
    };
    let found = |look: LastLook| Found { look, pruned: None, relations: Vec::new(), catalog: None };
    assert!(!found(look(&["7", "8"])).has_lost(&look(&["7", "8"])));
    assert!(!found(look(&["7"])).has_lost(&look(&[])));
    assert!(found(look(&["8"])).has_lost(&look(&["7", "8"])));
}

#[tokio::test]
async fn defaults_of_a_role_are_not_in_the_way() {
    let Some(server) = Server::with("defaults", MUSIC).await else { return };
    server
        .execute(
            "CREATE ACCESS METHOD rows TYPE TABLE HANDLER heap_tableam_handler;
             ALTER DATABASE changes_defaults SET default_table_access_method TO rows;
             ALTER DATABASE changes_defaults SET default_transaction_read_only TO on;
             ALTER DATABASE changes_defaults SET default_transaction_deferrable TO on;
             ALTER DATABASE changes_defaults SET search_path TO none",
        )
        .await;
    let store = server.store();
    let mut position = captured(&store, &["album"]).await;
    server.execute("UPDATE album SET title = 'x'").await;
    assert_eq!(changed(&store, &mut position).await, ["album"]);
    let heaps = "SELECT count(*) FROM pg_class c JOIN pg_am m ON m.oid = c.relam \
                 WHERE c.relnamespace = 'perigee_changes'::regnamespace AND c.relkind = 'r' AND m.amname = 'heap'";
    assert_eq!(server.count(heaps).await, 3);
    store.prune(&position.last.clone().unwrap().snapshot).await.unwrap();
    store.release(&mut position, &[]).await.unwrap();
    assert_eq!(server.ours().await, 0);
}

#[tokio::test]
async fn triggers_of_a_schema_that_nobody_reads_any_more_are_removed() {
    let Some(server) = Server::with("renamed_schema", MUSIC).await else { return };
    server.execute("CREATE SCHEMA film; CREATE TABLE film.title (id int)").await;
    let store = server.store();
    // As one that was killed, before another schema was configured.
    let film = Postgres::open("shop", &server.url, "film", 4, &Tasks::default()).unwrap();
    let _ = captured(&film, &["title"]).await;
    let mut position = captured(&store, &["album"]).await;
    store.release(&mut position, &["album".to_owned()]).await.unwrap();
    assert_eq!(server.ours().await, 4, "schema, function and both triggers");

    server.execute("UPDATE perigee_changes.readers SET seen = now() - interval '1 hour'").await;
    store.release(&mut position, &["album".to_owned()]).await.unwrap();
    assert_eq!(server.ours().await, 3);
    // Who reads says so.
    server.execute("UPDATE perigee_changes.readers SET seen = now() - interval '1 hour'").await;
    store.prune(&position.last.clone().unwrap().snapshot).await.unwrap();
    let seen = "SELECT count(*) FROM perigee_changes.readers WHERE seen > now() - interval '1 minute'";
    assert_eq!(server.count(seen).await, 1);
}

#[tokio::test]
async fn looks_become_rare_while_nothing_changes() {
    let Some(server) = Server::with("pause", MUSIC).await else { return };
    let store = server.store();
    let mut position = captured(&store, &["album"]).await;
    for _ in 0..10 {
        store.changes_since(&mut position).await.unwrap();
    }
    assert_eq!(position.pause, POLL_INTERVAL_MAX);
    server.execute("UPDATE album SET title = 'x'").await;
    assert_eq!(changed(&store, &mut position).await, ["album"]);
    assert_eq!(position.pause, POLL_INTERVAL_MIN);
}

#[tokio::test]
async fn own_commits_are_waited_for() {
    let Some(server) = Server::with("own", MUSIC).await else { return };
    let store = server.store();
    let position = Position { pause: Duration::from_secs(3600), ..Position::default() };
    let statement = |text: &str| crate::store::Statement {
        text: text.into(),
        args: Vec::new(),
        columns: [].into(),
        sources: Vec::new(),
        plain: None,
    };
    store.write(&statement("DELETE FROM parent")).await.unwrap();
    store.commit_after(&position).await;
    let mut tx = store.begin().await.unwrap();
    tx.run(&[statement("DELETE FROM parent")], &crate::budget::Budget::unlimited()).await.unwrap();
    tx.commit().await.unwrap();
    store.commit_after(&position).await;
}
