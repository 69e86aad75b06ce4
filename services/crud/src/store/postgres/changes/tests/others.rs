//! Other roles and transactions: what they may do, and what is left to them.

use super::*;

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
        assert!(store.prune(&limit, &ServerSnapshot::default()).await.is_err(), "{script}");
        let error = refusal(&store, "album").await;
        assert_eq!(error, format!("changes of album cannot be followed: role postgres must own {why}"), "{script}");
        store.release(&mut position, &[]).await.unwrap();
        let privileged = "SELECT count(*) FROM pg_roles WHERE rolname = 'changes_stranger' AND rolsuper";
        assert_eq!(server.count(privileged).await, 0, "{script}");
        assert_eq!(server.count("SELECT count(*) FROM pg_class WHERE relname = 'readers'").await, 1, "{script}");
        server.execute("DROP SCHEMA perigee_changes CASCADE").await;
    }
}

/// An operator that is found by the types of what is compared runs the code of who made it.
#[tokio::test]
async fn operators_of_another_role_are_not_used() {
    let Some(server) = Server::with("operators", MUSIC).await else { return };
    server.role("changes_operator").await;
    let store = server.store();
    let mut position = captured(&store, &["album"]).await;
    server
        .execute(
            "GRANT CREATE ON SCHEMA music TO changes_operator; SET ROLE changes_operator;
             CREATE FUNCTION music.trap(name, name) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'trap'; END $$;
             CREATE OPERATOR music.~~ (LEFTARG = name, RIGHTARG = name, FUNCTION = music.trap);
             CREATE OPERATOR music.!~~ (LEFTARG = name, RIGHTARG = name, FUNCTION = music.trap);
             CREATE OPERATOR music.|| (LEFTARG = name, RIGHTARG = name, FUNCTION = music.trap);
             RESET ROLE",
        )
        .await;
    server.client.batch_execute("SELECT 1 WHERE 'a'::name LIKE 'a'").await.unwrap_err();

    assert_eq!(changed(&store, &mut position).await, Vec::<String>::new());
    store.capture(&mut position, "part").await.unwrap();
    store.survey().await.unwrap();
    store.prune(&position.last.clone().unwrap().snapshot, &ServerSnapshot::default()).await.unwrap();
    store.release(&mut position, &[]).await.unwrap();
    server.execute("SET search_path TO pg_catalog").await;
    assert_eq!(server.ours().await, 0);
}

/// Default privileges of our role are rights on what it makes.
#[tokio::test]
async fn no_role_has_a_right_by_its_name() {
    let Some(server) = Server::with("defaults", MUSIC).await else { return };
    let all = "ON TABLES TO changes_default; ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO changes_default; \
               ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO changes_default";
    let grants = format!("ALTER DEFAULT PRIVILEGES GRANT ALL {all}");
    server.execute(&format!("DROP ROLE IF EXISTS changes_default; CREATE ROLE changes_default; {grants}")).await;
    let store = server.store();
    let mut position = captured(&store, &["album"]).await;

    for sql in [
        "INSERT INTO perigee_changes.log VALUES ('1', 1)",
        "CREATE TRIGGER mine BEFORE INSERT ON perigee_changes.log FOR EACH ROW EXECUTE FUNCTION perigee_changes.note()",
        "CREATE TABLE perigee_changes.mine ()",
    ] {
        let refused =
            server.client.batch_execute(&format!("BEGIN; SET ROLE changes_default; {sql}")).await.unwrap_err();
        assert_eq!(refused.code().unwrap().code(), "42501", "{sql}");
        server.execute("ROLLBACK").await;
    }
    let revocations = grants.replace("GRANT", "REVOKE").replace(" TO ", " FROM ");
    server.execute(&format!("{revocations}; DROP ROLE changes_default")).await;
    // A right that is taken from all is given again.
    server.execute("REVOKE EXECUTE ON FUNCTION perigee_changes.note() FROM PUBLIC").await;
    store.capture(&mut position, "album").await.unwrap();
    let may =
        "SELECT count(*) FROM pg_proc WHERE proname = 'note' AND has_function_privilege('public', oid, 'EXECUTE')";
    assert_eq!(server.count(may).await, 1);
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
        store.prune(&limit, &ServerSnapshot::default()).await.unwrap();
        other.batch_execute("COMMIT").await.unwrap_or_else(|error| panic!("{round}: {error}"));
        assert_eq!(changed(&store, &mut position).await, ["parent"]);
    }
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
