//! Slots: what is made for them, and that nothing of it is left.

use std::sync::Arc;

use query::resources::{Changes, ChangesSource, Numbers};

use super::{
    super::{slot::setup::reader_name, source::PostgresLog},
    *,
};
use crate::store::{
    diagnosis::WhileUsed,
    log::{ImageWriter, LogPosition},
    postgres::replication::ReplicationConnection,
};

const TABLES: &str = "CREATE TABLE keyed (id int PRIMARY KEY, v text);
    CREATE TABLE indexed (id int NOT NULL CONSTRAINT ids UNIQUE); ALTER TABLE indexed REPLICA IDENTITY USING INDEX ids;
    CREATE TABLE silent (id int); ALTER TABLE silent REPLICA IDENTITY NOTHING;
    CREATE TABLE whole (id int); ALTER TABLE whole REPLICA IDENTITY FULL;";
const IDENTITIES: &str = "SELECT string_agg(relreplident::text, '' ORDER BY relname) FROM pg_class c
    JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = 'music' AND relkind = 'r'";

impl Server {
    async fn text(&self, sql: &str) -> String {
        self.client.query_one(sql, &[]).await.unwrap().get(0)
    }

    /// Slots and publications of ours.
    async fn slots(&self) -> i64 {
        let sql = "SELECT (SELECT count(*) FROM pg_replication_slots WHERE database = current_database())
            + (SELECT count(*) FROM pg_publication)";
        self.count(sql).await
    }
}

fn by(source: ChangesSource) -> Changes {
    Changes { source, unbounded_slot: false }
}

pub async fn follow(store: &Postgres, log: &mut PostgresLog, table: &str) -> Result<LogPosition, Error> {
    let schema = store.introspect(&[]).await.unwrap().schema;
    let writer = Arc::new(ImageWriter::of(schema.table(table).unwrap(), |_| ""));
    // Others may hold up the slot, or a lock.
    for _ in 0..20 {
        match store.capture_log(log, table, writer.clone()).await {
            Err(Error::Refused { .. }) => tokio::time::sleep(Duration::from_millis(100)).await,
            followed => return followed,
        }
    }
    panic!("{table} is not followed");
}

/// Follows a table by a slot, which is not made while others of the server write: a source that may be another does not wait
/// for them.
async fn follow_by_slot(store: &Postgres, table: &str) -> PostgresLog {
    let mut log = PostgresLog::default();
    for _ in 0..20 {
        if follow(store, &mut log, table).await.unwrap().commit_order().is_some() {
            break;
        }
        store.release_log(&mut log, &[]).await.unwrap();
    }
    log
}

#[tokio::test]
async fn identities_are_restored_and_nothing_of_a_slot_is_left() {
    let Some(server) = Server::with("slot", TABLES).await else { return };
    let store = server.store().learning(by(ChangesSource::Slot));
    let before = server.text(IDENTITIES).await;
    assert_eq!(before, "idnf");
    let mut log = PostgresLog::default();
    for table in ["keyed", "indexed", "silent", "whole"] {
        follow(&store, &mut log, table).await.unwrap();
    }
    assert_eq!(server.text(IDENTITIES).await, "ffff");
    assert_eq!(server.slots().await, 2);
    assert_eq!(server.count("SELECT count(*) FROM pg_publication_tables").await, 4);
    for sql in ["INSERT INTO silent VALUES (1)", "UPDATE silent SET id = 2", "DELETE FROM silent"] {
        server.execute(sql).await;
    }

    store.release_log(&mut log, &["keyed".to_owned()]).await.unwrap();
    assert_eq!(server.text(IDENTITIES).await, "ifnf");
    assert_eq!(server.count("SELECT count(*) FROM pg_publication_tables").await, 1);
    // One that is dropped meanwhile, and one whose transaction holds a lock.
    follow(&store, &mut log, "whole").await.unwrap();
    server.execute("DROP TABLE whole").await;
    let other = server.other().await;
    other.batch_execute("BEGIN; SELECT * FROM keyed").await.unwrap();
    store.release_log(&mut log, &[]).await.unwrap_err();
    other.batch_execute("COMMIT").await.unwrap();
    store.release_log(&mut log, &[]).await.unwrap();
    assert_eq!(server.text(IDENTITIES).await, "idn");
    assert_eq!((server.slots().await, server.ours().await), (0, 0));
}

#[tokio::test]
async fn a_role_that_may_not_replicate_is_followed_by_triggers_and_told_so() {
    let Some(server) = Server::with("slot_role", "CREATE TABLE note (id int PRIMARY KEY)").await else { return };
    let store = server.store_of("slot_plain").await.learning(by(ChangesSource::Auto));
    server
        .execute(
            "ALTER TABLE note OWNER TO slot_plain; GRANT CREATE ON DATABASE changes_slot_role TO slot_plain;
             ALTER ROLE slot_plain NOREPLICATION",
        )
        .await;
    let mut log = PostgresLog::default();
    let since = follow(&store, &mut log, "note").await.unwrap();
    assert_eq!((since.commit_order(), server.slots().await), (None, 0));
    let diagnosis = store.diagnose().await.unwrap();
    assert_eq!(diagnosis.source, "triggers");
    let finding = &diagnosis.findings[0];
    assert_eq!(
        (finding.text.as_str(), finding.sql.as_deref()),
        (
            "no slot is used for changes of rows: role slot_plain needs the attribute REPLICATION",
            Some("ALTER ROLE slot_plain REPLICATION;")
        )
    );
    store.release_log(&mut log, &[]).await.unwrap();

    let store = server.store_of("slot_plain").await.learning(by(ChangesSource::Slot));
    let refused = follow(&store, &mut PostgresLog::default(), "note").await.unwrap_err().to_string();
    assert!(refused.contains("source of its database is slot: role slot_plain needs"), "{refused}");
    let store = server.store_of("slot_plain").await.learning(by(ChangesSource::Off));
    let refused = follow(&store, &mut PostgresLog::default(), "note").await.unwrap_err().to_string();
    assert!(refused.ends_with("changes.source of its database is off"), "{refused}");
    server.execute("ALTER ROLE slot_plain REPLICATION").await;
    let store = server.store_of("slot_plain").await.learning(by(ChangesSource::Auto));
    let mut log = follow_by_slot(&store, "note").await;
    assert_eq!((store.diagnose().await.unwrap().source, server.slots().await), ("slot", 2));
    store.release_log(&mut log, &[]).await.unwrap();
}

#[tokio::test]
async fn removal_waits_for_the_reader_of_a_slot_or_ends_it() {
    let Some(server) = Server::with("slot_removed", TABLES).await else { return };
    let store = server.store().learning(by(ChangesSource::Slot));
    let mut log = PostgresLog::default();
    follow(&store, &mut log, "keyed").await.unwrap();
    let refused = store.remove_capture(WhileUsed::Refuse).await.unwrap();
    assert!(refused.is_partial && refused.removed.is_empty(), "{refused:?}");
    assert!(refused.warnings[0].starts_with("nothing is removed: a server reads the slot perigee_"), "{refused:?}");
    // A process that is gone for good.
    let removal = loop {
        let removal = store.remove_capture(WhileUsed::Remove).await.unwrap();
        // The stream of this process connects again, as one does that runs.
        if !removal.is_partial {
            break removal;
        }
    };
    assert!(removal.left.is_empty(), "{removal:?}");
    assert_eq!((server.slots().await, server.text(IDENTITIES).await), (0, "idnf".to_owned()));
}

#[tokio::test]
async fn what_keeps_a_slot_from_being_used_is_named_with_sql_that_helps() {
    let Some(server) = Server::with("slot_lacks", TABLES).await else { return };
    let (name, state) = server.store().slot_state().await.unwrap();
    assert_eq!(state.obstacle(&name, false), None);
    let lacking = |change: &dyn Fn(&mut super::super::slot::setup::SlotState)| {
        let mut state = state.clone();
        change(&mut state);
        let obstacle = state.obstacle(&name, false).unwrap();
        (obstacle.to_string(), obstacle.remedy().unwrap_or_default())
    };
    let (text, sql) = lacking(&|state| state.wal_level = "replica".to_owned());
    assert_eq!(text, "expected wal_level logical, found replica");
    assert!(sql.starts_with("ALTER SYSTEM SET wal_level = 'logical';"));
    let (text, sql) = lacking(&|state| state.keep_megabytes = -1);
    assert!(text.contains("found max_slot_wal_keep_size -1") && sql.contains("max_slot_wal_keep_size = '10GB'"));
    let (text, sql) = lacking(&|state| state.free_slots = 0);
    assert!(text.contains("max_replication_slots") && sql.contains(&(state.max_slots + 10).to_string()));
    assert!(lacking(&|state| state.free_senders = 0).0.contains("max_wal_senders"));
    assert!(lacking(&|state| state.synchronous = "FIRST 1 (*)".to_owned()).0.contains("FIRST 1 (*)"));
    assert!(lacking(&|state| state.is_standby = true).0.contains("standby"));
    assert!(lacking(&|state| state.may_create = false).1.starts_with("GRANT CREATE ON DATABASE"));
    let unbounded = super::super::slot::setup::SlotState { keep_megabytes: -1, ..state.clone() };
    assert_eq!(unbounded.obstacle(&name, true), None);
}

/// Looks until a change of a table is told.
async fn until_changed(store: &Postgres, log: &mut PostgresLog, table: &str) {
    for _ in 0..500 {
        let look = store.look_at_log(log, Numbers::Exact).await.unwrap();
        if look.parts.iter().flat_map(|part| &part.changes).any(|change| change.table == table) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no change of {table} is told");
}

#[tokio::test]
async fn a_table_that_is_followed_after_its_changes_were_passed_over_is_told_to_lack_them() {
    let Some(server) = Server::with("slot_later", TABLES).await else { return };
    let store = server.store().learning(by(ChangesSource::Slot));
    let mut log = PostgresLog::default();
    for table in ["keyed", "whole", "silent"] {
        follow(&store, &mut log, table).await.unwrap();
    }
    let before = log.position().unwrap();
    // The process ends, and another one goes on with the slot.
    drop(log);
    server.execute("INSERT INTO whole VALUES (1); INSERT INTO keyed VALUES (1, 'a')").await;
    let mut log = PostgresLog::default();
    let keyed = follow(&store, &mut log, "keyed").await.unwrap();
    assert!(before.covers(&keyed), "{before:?} {keyed:?}");
    until_changed(&store, &mut log, "keyed").await;
    let whole = follow(&store, &mut log, "whole").await.unwrap();
    assert!(!before.covers(&whole), "its row was passed over");
    let silent = follow(&store, &mut log, "silent").await.unwrap();
    assert!(before.covers(&silent), "there was nothing to pass over");

    // One that is captured again, as after an interruption, has what it had; none before it was published.
    let indexed = follow(&store, &mut log, "indexed").await.unwrap();
    assert!(!before.covers(&indexed));
    for (table, since) in [("keyed", keyed), ("whole", whole), ("indexed", indexed)] {
        assert_eq!(follow(&store, &mut log, table).await.unwrap(), since, "{table}");
    }

    // A table that cannot be released yet is followed no longer all the same.
    let other = server.other().await;
    other.batch_execute("BEGIN; SELECT * FROM silent").await.unwrap();
    store.release_log(&mut log, &["keyed".to_owned()]).await.unwrap_err();
    let between = log.position().unwrap();
    other.batch_execute("COMMIT").await.unwrap();
    server.execute("INSERT INTO silent VALUES (1); INSERT INTO keyed VALUES (2, 'b')").await;
    until_changed(&store, &mut log, "keyed").await;
    let silent = follow(&store, &mut log, "silent").await.unwrap();
    assert!(!between.covers(&silent), "{between:?} {silent:?}");
    store.release_log(&mut log, &[]).await.unwrap();
}

#[tokio::test]
async fn updates_that_would_fail_with_whole_rows_go_on_and_are_told_by_triggers() {
    let setup = "CREATE TABLE listed (id int PRIMARY KEY, v text); CREATE PUBLICATION own FOR TABLE listed (id);
        CREATE TABLE later (id int PRIMARY KEY, v text); INSERT INTO later VALUES (1, 'a');
        CREATE TABLE parent (id int); CREATE TABLE child (twice int GENERATED ALWAYS AS (id * 2) STORED) INHERITS (parent)";
    let Some(server) = Server::with("slot_lists", "").await else { return };
    if server.count("SELECT current_setting('server_version_num')::int8").await < 150_000 {
        return;
    }
    server.execute(setup).await;
    let store = server.store().learning(by(ChangesSource::Slot));
    let mut log = PostgresLog::default();
    let refused = |table: &'static str| {
        let store = store.clone();
        async move { follow(&store, &mut PostgresLog::default(), table).await.unwrap_err().to_string() }
    };
    let listed = refused("listed").await;
    assert!(listed.contains("music.listed: is in publication own with a list of columns"), "{listed}");
    server.execute("INSERT INTO listed VALUES (1); UPDATE listed SET v = 'b'").await;
    let generated = refused("parent").await;
    assert!(generated.contains("music.child: has generated columns"), "{generated}");

    // One that is published in part after it is followed: it is released with the next look at the catalog.
    follow(&store, &mut log, "later").await.unwrap();
    let before = store.schema_mark(&[]).await.unwrap();
    server.execute("CREATE PUBLICATION other FOR TABLE later (id)").await;
    assert_ne!(store.schema_mark(&[]).await.unwrap(), before);
    let schema = store.introspect(&[]).await.unwrap().schema;
    log.describe("later", Arc::new(ImageWriter::of(schema.table("later").unwrap(), |_| "")));
    // The connection before may be there still: then all followers are told an error.
    if let Ok(look) = store.look_at_log(&mut log, Numbers::Exact).await {
        assert_eq!(look.failed[0].0, "later");
    }
    store.release_log(&mut log, &[]).await.unwrap();
    server.execute("UPDATE later SET v = 'b'").await;

    let store = server.store().learning(by(ChangesSource::Auto));
    let mut log = PostgresLog::default();
    assert_eq!(follow(&store, &mut log, "listed").await.unwrap().commit_order(), None);
    server.execute("UPDATE listed SET v = 'c'").await;
    until_changed(&store, &mut log, "listed").await;
    store.release_log(&mut log, &[]).await.unwrap();
}

#[tokio::test]
async fn identities_are_restored_although_somebody_dropped_the_publication() {
    let Some(server) = Server::with("slot_publication", TABLES).await else { return };
    let store = server.store().learning(by(ChangesSource::Slot));
    let mut log = PostgresLog::default();
    let tables = ["keyed", "indexed", "silent", "whole"];
    for table in tables {
        follow(&store, &mut log, table).await.unwrap();
    }
    let (name, _) = store.slot_state().await.unwrap();
    // Found out by the reader, who goes on; then by the one who ends all captures.
    server.execute(&format!("DROP PUBLICATION {name}; INSERT INTO keyed VALUES (1, 'a')")).await;
    let mut has_loss = false;
    while !has_loss {
        has_loss = store.look_at_log(&mut log, Numbers::Exact).await.is_ok_and(|look| !look.losses.is_empty());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(server.text(IDENTITIES).await, "ffff");
    server.execute("INSERT INTO keyed VALUES (2, 'b')").await;
    until_changed(&store, &mut log, "keyed").await;
    store.release_log(&mut log, &[]).await.unwrap();
    assert_eq!((server.text(IDENTITIES).await, server.slots().await), ("idnf".to_owned(), 0));

    let mut log = PostgresLog::default();
    for table in tables {
        follow(&store, &mut log, table).await.unwrap();
    }
    server.execute(&format!("DROP PUBLICATION {name}")).await;
    // A table that is locked then has its turn with the next attempt.
    let other = server.other().await;
    other.batch_execute("BEGIN; LOCK TABLE indexed IN ACCESS SHARE MODE").await.unwrap();
    assert!(store.release_log(&mut log, &[]).await.is_err());
    other.batch_execute("ROLLBACK").await.unwrap();
    store.release_log(&mut log, &[]).await.unwrap();
    assert_eq!((server.text(IDENTITIES).await, server.slots().await), ("idnf".to_owned(), 0));
}

/// A connection that reads the slot for who was elected by an election, and takes nothing.
async fn paused_reader(store: &Postgres, name: &str, election: &str) -> ReplicationConnection {
    loop {
        let (mut connection, _) = store.replicate(&reader_name(name, Some(election))).await.unwrap();
        match connection.start(name, 0, name).await {
            Ok(()) => return connection,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Two meshes, or two projects, may have the same database: neither takes the slot from the other.
#[tokio::test]
async fn who_is_elected_does_not_end_a_reader_of_another_election() {
    let Some(server) = Server::with("slot_others", TABLES).await else { return };
    let store = server.store().learning(by(ChangesSource::Auto));
    drop(follow_by_slot(&store, "keyed").await);
    let (name, _) = store.slot_state().await.unwrap();
    let paused = paused_reader(&store, &name, "0123456789abcdef").await;
    let of_slot = format!("SELECT active_pid::text FROM pg_replication_slots WHERE slot_name = '{name}'");
    let pid = server.text(&of_slot).await;

    let mut log = PostgresLog::elected("fedcba9876543210".to_owned());
    let since = follow(&store, &mut log, "keyed").await.unwrap();
    assert!(since.commit_order().is_none(), "it reads triggers");
    assert_eq!(server.text(&of_slot).await, pid);
    server.execute("INSERT INTO keyed VALUES (1, 'a')").await;
    until_changed(&store, &mut log, "keyed").await;
    drop(paused);
    store.release_log(&mut log, &[]).await.unwrap();
}

#[tokio::test]
async fn who_is_elected_ends_a_reader_that_does_not_let_go() {
    let Some(server) = Server::with("slot_elected", TABLES).await else { return };
    let store = server.store().learning(by(ChangesSource::Auto));
    drop(follow_by_slot(&store, "keyed").await);
    // A process that stands still keeps its connection, and reads nothing.
    let election = "0123456789abcdef";
    let (name, _) = store.slot_state().await.unwrap();
    let _paused = paused_reader(&store, &name, election).await;

    let mut log = PostgresLog::elected(election.to_owned());
    let since = follow(&store, &mut log, "keyed").await.unwrap();
    assert!(since.commit_order().is_some(), "it reads the slot");
    server.execute("INSERT INTO keyed VALUES (1, 'a')").await;
    until_changed(&store, &mut log, "keyed").await;
    store.release_log(&mut log, &[]).await.unwrap();
}

#[tokio::test]
async fn changes_do_not_wait_for_a_look_at_the_catalog() {
    let Some(server) = Server::with("slot_beside", TABLES).await else { return };
    let store = server.store().learning(by(ChangesSource::Slot));
    let mut log = PostgresLog::default();
    follow(&store, &mut log, "keyed").await.unwrap();
    // Whoever asks for tables below others waits.
    let other = server.other().await;
    other.batch_execute("BEGIN; LOCK TABLE pg_catalog.pg_inherits IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let told = async |log: &mut PostgresLog, rows: i32| {
        let mut left = rows;
        while left > 0 {
            let look = store.look_at_log(log, Numbers::Exact).await.unwrap();
            left -= look.parts.iter().map(|part| part.changes.len() as i32).sum::<i32>();
            tokio::task::yield_now().await;
        }
    };
    let until = std::time::Instant::now() + Duration::from_millis(2500);
    let mut id = 0;
    while std::time::Instant::now() < until {
        server.execute(&format!("INSERT INTO keyed VALUES ({id}, 'a')")).await;
        tokio::time::timeout(Duration::from_secs(20), told(&mut log, 1)).await.expect("it is told");
        id += 1;
    }
    other.batch_execute("ROLLBACK").await.unwrap();
    store.release_log(&mut log, &[]).await.unwrap();
}
