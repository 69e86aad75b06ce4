//! Applications that change their schema beside us.

use super::*;

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

/// Writers wait while triggers are made.
#[tokio::test]
async fn the_triggers_of_many_tables_are_made_in_few_steps() {
    let Some(server) = Server::with("steps", MUSIC).await else { return };
    server.execute("CREATE TABLE child_2 () INHERITS (parent); CREATE TABLE grandchild () INHERITS (child)").await;
    let store = server.store();
    let mut position = captured(&store, &["album"]).await;
    for (table, tables) in [("parent", 4), ("part_2", 2), ("part", 4)] {
        let mut steps = Vec::new();
        while let Some(sql) = store.tree(table, TriggerKind::Note).await.unwrap().missing("music").unwrap() {
            server.execute(&sql).await;
            steps.push(sql.split("; ").count());
        }
        assert!(steps.len() <= setup::CAPTURE_STEPS, "{table}: {steps:?}");
        assert!(steps.iter().sum::<usize>() > tables, "{table}: {steps:?}");
        assert_eq!(store.tree(table, TriggerKind::Note).await.unwrap().wanting().unwrap(), Vec::<String>::new());
    }
    store.release(&mut position, &[]).await.unwrap();
    assert_eq!(server.ours().await, 0);
}

/// Nobody but its session sees its rows.
#[tokio::test]
async fn a_temporary_table_below_another_is_not_followed() {
    let Some(server) = Server::with("temporary", MUSIC).await else { return };
    server.execute("CREATE TEMP TABLE below () INHERITS (parent)").await;
    let store = server.store();
    let mut position = captured(&store, &["parent"]).await;
    server.execute("INSERT INTO below VALUES (1)").await;
    assert_eq!(changed(&store, &mut position).await, Vec::<String>::new());
    server.execute("BEGIN; INSERT INTO below VALUES (1)").await;
    store.release(&mut position, &[]).await.unwrap();
    server.execute("COMMIT").await;
    assert_eq!(server.ours().await, 0);
}
