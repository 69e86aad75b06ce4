//! What `perigee doctor` says of a database, and removes from it.

use super::*;
use crate::store::diagnosis::{Diagnosis, NamedObject, Removal, Severity, WhileUsed};

/// Every schema, relation, function and trigger with its owner, rights and comments.
const CATALOG: &str = "
    SELECT string_agg(line, E'\\n' ORDER BY line) FROM (
        SELECT concat_ws(' ', 'schema', nspname, nspowner, nspacl, obj_description(oid, 'pg_namespace')) FROM pg_namespace
            WHERE nspname NOT LIKE 'pg\\_%'
        UNION ALL SELECT concat_ws(' ', 'relation', oid, relname, relowner, relacl) FROM pg_class
            WHERE relnamespace >= 16384
        UNION ALL SELECT concat_ws(' ', 'function', oid, proname, proacl) FROM pg_proc WHERE oid >= 16384
        UNION ALL SELECT concat_ws(' ', 'type', oid, typname) FROM pg_type WHERE oid >= 16384
        UNION ALL SELECT concat_ws(' ', 'trigger', oid, tgname, tgenabled) FROM pg_trigger
    ) all_lines (line)";

impl Server {
    async fn catalog(&self) -> String {
        self.client.query_one(CATALOG, &[]).await.unwrap().get(0)
    }
}

fn told(diagnosis: &Diagnosis, severity: Severity) -> Vec<(&str, Option<&str>)> {
    let findings = diagnosis.findings.iter().filter(|finding| finding.severity == severity);
    findings.map(|finding| (finding.text.as_str(), finding.sql.as_deref())).collect()
}

fn names(objects: &[NamedObject]) -> Vec<String> {
    objects.iter().map(|object| format!("{} {}", object.kind, object.name)).collect()
}

#[tokio::test]
async fn what_cannot_be_followed_is_named_and_nothing_is_made() {
    let Some(server) = Server::with("doctor_kinds", MUSIC).await else { return };
    server.execute("CREATE UNLOGGED TABLE below () INHERITS (parent)").await;
    // Version 18 makes none.
    let unlogged_root = "
        DO $$ BEGIN CREATE UNLOGGED TABLE root (id int) PARTITION BY RANGE (id);
        EXCEPTION WHEN feature_not_supported THEN CREATE TABLE root (id int) PARTITION BY RANGE (id); END $$;
        CREATE TABLE leaf PARTITION OF root FOR VALUES FROM (0) TO (9);";
    server.execute(unlogged_root).await;
    let before = server.catalog().await;

    let diagnosis = server.store().diagnose().await.unwrap();

    let unfollowed = [
        ("fleeting: expected a table, found an unlogged table", Some("ALTER TABLE music.fleeting SET LOGGED;")),
        ("kept: expected a table, found a materialized view", None),
        (
            "parent: expected a table, found an unlogged table, music.below, below it",
            Some("ALTER TABLE music.below SET LOGGED;"),
        ),
        ("titles: expected a table, found a view", None),
    ];
    let mut found = told(&diagnosis, Severity::Unfollowed);
    found.retain(|(text, _)| !text.starts_with("below: "));
    found.sort_unstable();
    assert_eq!(found, unfollowed);
    assert_eq!(told(&diagnosis, Severity::Missing), []);
    assert!(diagnosis.followed.contains(&"part".to_owned()) && diagnosis.followed.contains(&"it's".to_owned()));
    assert_eq!(diagnosis.objects, []);
    assert_eq!(server.catalog().await, before);
    server.execute("ALTER TABLE music.fleeting SET LOGGED; ALTER TABLE music.below SET LOGGED;").await;
    let store = server.store();
    let mut position = captured(&store, &["fleeting", "parent", "root"]).await;
    server.execute("INSERT INTO root VALUES (1)").await;
    assert_eq!(changed(&store, &mut position).await, ["root"]);
}

#[tokio::test]
async fn the_sql_that_is_told_gives_a_role_what_it_lacks() {
    let Some(server) = Server::with("doctor_rights", MUSIC).await else { return };
    let store = server.store_of("changes_patient").await;
    server.execute("ALTER TABLE \"it's\" OWNER TO changes_patient").await;

    let diagnosis = store.diagnose().await.unwrap();

    let missing = told(&diagnosis, Severity::Missing);
    let no_right = "role changes_patient needs the right CREATE on database changes_doctor_rights, or a schema \
                    perigee_changes of its own";
    assert_eq!(missing[0], (no_right, Some("CREATE SCHEMA perigee_changes AUTHORIZATION changes_patient;")));
    let owner = "album: role changes_patient must own music.album to make triggers, its owner is postgres";
    assert!(missing.contains(&(owner, Some("ALTER TABLE music.album OWNER TO changes_patient;"))), "{missing:?}");
    assert!(!missing.iter().any(|(text, _)| text.starts_with("it's:")), "{missing:?}");
    assert_eq!(diagnosis.followed, [""; 0]);

    // A table and its partitions are each told of.
    for sql in missing.iter().filter_map(|(_, sql)| *sql) {
        server.execute(sql).await;
    }
    let diagnosis = store.diagnose().await.unwrap();
    assert_eq!(told(&diagnosis, Severity::Missing), []);
    let mut position = captured(&store, &["album", "it's", "part", "parent", "above"]).await;
    store.release(&mut position, &[]).await.unwrap();

    // Nothing of ours is in a schema that was made for the role.
    let removal = store.remove_capture(WhileUsed::Refuse).await.unwrap();
    assert_eq!((names(&removal.left), removal.is_partial), (vec!["schema perigee_changes".to_owned()], false));
    assert!(removal.warnings[0].ends_with("DROP SCHEMA perigee_changes;"), "{:?}", removal.warnings);
    server.execute("DROP SCHEMA perigee_changes").await;
}

#[tokio::test]
async fn removal_leaves_the_catalog_as_it_was_before() {
    let Some(server) = Server::with("doctor_removal", MUSIC).await else { return };
    server.execute("CREATE SCHEMA hr; CREATE TABLE hr.staff (id int)").await;
    let before = server.catalog().await;
    let store = server.store();
    let hr = Postgres::open("hr", &server.url, "hr", 2, &Tasks::default()).unwrap();
    let _of_killed = (captured(&store, &["album", "part", "child"]).await, captured(&hr, &["staff"]).await);
    for (store, table) in [(&store, "album"), (&hr, "staff")] {
        store.make_triggers(table, TriggerKind::Image).await.unwrap();
    }
    let there = store.diagnose().await.unwrap();
    let used = "a server follows tables of schema hr, music now, or did within the last five minutes";
    assert_eq!(told(&there, Severity::Note), [(used, None)]);

    // A server was seen just now.
    let refused = store.remove_capture(WhileUsed::Refuse).await.unwrap();
    assert_eq!((refused.removed.len(), &refused.left, refused.is_partial), (0, &there.objects, true));
    assert_eq!(refused.warnings, [format!("nothing is removed: {used}; stop it first, or use --force")]);
    assert_eq!(store.diagnose().await.unwrap(), there);

    // It was seen longer ago.
    server.execute("UPDATE perigee_changes.readers SET seen = now() - interval '301 s'").await;
    let removal = store.remove_capture(WhileUsed::Refuse).await.unwrap();
    assert_eq!(removal, Removal { removed: there.objects, ..Removal::default() });
    let removed = names(&removal.removed);
    for object in ["schema perigee_changes", "table perigee_changes.log", "function perigee_changes.note()"] {
        assert!(removed.contains(&object.to_owned()), "{removed:?}");
    }
    assert_eq!(removed.iter().filter(|name| name.starts_with("trigger perigee_changes_")).count(), 4, "{removed:?}");
    assert_eq!(removed.iter().filter(|name| name.starts_with("trigger \"!perigee_image_")).count(), 2, "{removed:?}");
    assert_eq!(server.catalog().await, before);
    assert_eq!(store.remove_capture(WhileUsed::Refuse).await.unwrap(), Removal::default(), "it is removed once");
}

#[tokio::test]
async fn what_is_left_of_a_log_is_removed() {
    let Some(server) = Server::with("doctor_damaged", MUSIC).await else { return };
    server.execute("CREATE SCHEMA hr; CREATE TABLE hr.staff (id int)").await;
    let before = server.catalog().await;
    let store = server.store();
    let hr = Postgres::open("hr", &server.url, "hr", 2, &Tasks::default()).unwrap();
    for damage in ["readers, perigee_changes.log", "log", "state"] {
        let _of_killed = (captured(&store, &["album"]).await, captured(&hr, &["staff"]).await);
        server.execute(&format!("DROP TABLE perigee_changes.{damage}")).await;

        let removal = store.remove_capture(WhileUsed::Remove).await.unwrap();

        assert_eq!((removal.left, removal.is_partial), (Vec::new(), false), "{damage}");
        assert_eq!(server.catalog().await, before, "{damage}");
    }
}

#[tokio::test]
async fn what_a_server_uses_is_removed_where_that_is_wanted() {
    let Some(server) = Server::with("doctor_force", MUSIC).await else { return };
    let before = server.catalog().await;
    let store = server.store();
    let mut position = captured(&store, &["album"]).await;

    let removal = store.remove_capture(WhileUsed::Remove).await.unwrap();

    assert_eq!((removal.left, removal.is_partial), (Vec::new(), false));
    assert_eq!(server.catalog().await, before);
    // A server that runs finds out, and makes them again.
    assert_eq!(changed(&store, &mut position).await, ["any"]);
    store.capture(&mut position, "album").await.unwrap();
    assert_ne!(server.ours().await, 0);
}

#[tokio::test]
async fn objects_of_others_that_are_called_like_ours_stay() {
    let Some(server) = Server::with("doctor_alike", MUSIC).await else { return };
    let alike = "
        CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
        CREATE TRIGGER perigee_changes_7 AFTER INSERT ON album FOR EACH ROW EXECUTE FUNCTION note();
        CREATE SCHEMA perigee_notes; CREATE TABLE perigee_notes.log (mine text);";
    server.execute(alike).await;
    let before = server.catalog().await;
    let store = server.store();
    let _of_killed = captured(&store, &["album", "part"]).await;

    let removal = store.remove_capture(WhileUsed::Remove).await.unwrap();

    let left = ["schema perigee_notes", "table perigee_notes.log", "trigger perigee_changes_7 on music.album"];
    assert_eq!((names(&removal.left), removal.is_partial), (left.map(str::to_owned).into(), false));
    assert_eq!(server.catalog().await, before);

    server.execute("CREATE SCHEMA perigee_changes; CREATE TABLE perigee_changes.log (mine text)").await;
    let before = server.catalog().await;
    let other = ("the database has another schema perigee_changes", None);
    assert_eq!(told(&store.diagnose().await.unwrap(), Severity::Missing), [other]);
    assert_eq!(store.remove_capture(WhileUsed::Remove).await.unwrap().removed, []);
    assert_eq!(server.catalog().await, before);
}

#[tokio::test]
async fn what_stays_in_our_schema_is_told_with_the_reason() {
    let Some(server) = Server::with("doctor_stays", MUSIC).await else { return };
    let store = server.store();
    let _of_killed = captured(&store, &["album"]).await;
    let renamed = "
        DO $$ BEGIN EXECUTE format('ALTER TRIGGER %I ON music.album RENAME TO mine',
            (SELECT tgname FROM pg_trigger WHERE tgname LIKE 'perigee%')); END $$;
        CREATE TYPE perigee_changes.mood AS ENUM ('calm');";
    server.execute(renamed).await;
    assert!(names(&store.diagnose().await.unwrap().objects).contains(&"trigger mine on music.album".to_owned()));

    let removal = store.remove_capture(WhileUsed::Remove).await.unwrap();

    assert_eq!((&removal.removed, removal.is_partial), (&Vec::new(), true));
    let reason = "the schema perigee_changes stays: trigger mine on music.album executes a function of it";
    assert!(removal.warnings.len() == 1 && removal.warnings[0].starts_with(reason), "{:?}", removal.warnings);

    server.execute("DROP TRIGGER mine ON album").await;
    let removal = store.remove_capture(WhileUsed::Remove).await.unwrap();

    let left = ["schema perigee_changes", "type perigee_changes.mood"];
    assert_eq!((names(&removal.left), removal.is_partial), (left.map(str::to_owned).into(), false));
    assert_eq!(removal.warnings, [""; 0]);
    let other = ("the database has another schema perigee_changes", None);
    assert_eq!(told(&store.diagnose().await.unwrap(), Severity::Missing), [other]);
}

#[tokio::test]
async fn what_another_role_made_is_told_and_left() {
    let Some(server) = Server::with("doctor_roles", MUSIC).await else { return };
    let _of_killed = captured(&server.store(), &["album"]).await;
    let store = server.store_of("changes_second").await;
    server.execute("GRANT CREATE ON DATABASE changes_doctor_roles TO changes_second").await;
    server.execute("ALTER TABLE \"it's\" OWNER TO changes_second").await;

    let diagnosis = store.diagnose().await.unwrap();
    let removal = store.remove_capture(WhileUsed::Remove).await.unwrap();

    let of_other = "role changes_second must own schema perigee_changes, its owner is postgres";
    let drop = "DROP SCHEMA perigee_changes CASCADE; -- once no server of its owner runs";
    assert_eq!(told(&diagnosis, Severity::Missing)[0], (of_other, Some(drop)));
    assert_eq!((removal.removed.len(), removal.is_partial), (0, true));
    assert_eq!(removal.warnings, [format!("nothing is removed: {of_other}")]);
    assert_ne!(server.ours().await, 0);
    server.execute(drop.split(" --").next().unwrap()).await;
    let _ = captured(&store, &["it's"]).await;
}

#[tokio::test]
async fn a_trigger_that_was_disabled_is_told_with_what_enables_it() {
    let Some(server) = Server::with("doctor_disabled", MUSIC).await else { return };
    let store = server.store();
    let _of_killed = captured(&store, &["album"]).await;
    server.execute("ALTER TABLE album DISABLE TRIGGER USER").await;

    let diagnosis = store.diagnose().await.unwrap();

    let [(text, Some(sql)), _used] = told(&diagnosis, Severity::Note)[..] else { panic!("{diagnosis:?}") };
    assert!(text.contains("on music.album does not fire for all changes"), "{text}");
    server.execute(sql).await;
    assert_eq!(told(&store.diagnose().await.unwrap(), Severity::Note).len(), 1);
}

#[tokio::test]
async fn a_table_that_is_locked_keeps_its_trigger_and_that_is_told() {
    let Some(server) = Server::with("doctor_locked", MUSIC).await else { return };
    let store = server.store();
    let _of_killed = captured(&store, &["album", "child"]).await;
    let long = server.other().await;
    long.batch_execute("BEGIN; SELECT * FROM album").await.unwrap();

    let removal = store.remove_capture(WhileUsed::Remove).await.unwrap();

    assert!(removal.is_partial && removal.warnings == ["a transaction holds a lock on a table"], "{removal:?}");
    assert_eq!(removal.removed.len(), 1, "{removal:?}");
    long.batch_execute("COMMIT").await.unwrap();
    assert!(!store.remove_capture(WhileUsed::Refuse).await.unwrap().is_partial);
    assert_eq!(server.ours().await, 0);
}
