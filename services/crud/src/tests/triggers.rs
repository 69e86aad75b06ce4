//! Triggers of the database that fail, and other refusals of its own.

use std::sync::Arc;

use serde_json::json;

use super::support::{engines, sqlite};
use crate::{Error, sql::Dialect, store::Statement};

/// Numbers of a sequence are not given back: they count how often a trigger ran.
#[tokio::test]
async fn a_write_that_a_trigger_fails_is_sent_once_and_does_not_refresh_the_schema() {
    for db in engines().await.into_iter().filter(|db| matches!(db.schema().dialect, Dialect::Postgres { .. })) {
        let prefix = db.prefix();
        db.execute(&format!("CREATE TABLE {prefix}booking (id INTEGER PRIMARY KEY, v TEXT)")).await;
        db.execute(&format!("CREATE SEQUENCE {prefix}runs")).await;
        let runs = format!("PERFORM nextval('{prefix}runs');");
        for (name, body) in [
            ("misses_table", "PERFORM 1 FROM audit_log;"),
            ("misses_column", "NEW.v = NEW.\"createdAt\";"),
            ("misses_function", "PERFORM audit('x');"),
        ] {
            let function =
                format!("{prefix}{name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {runs} {body} END $$");
            db.execute(&format!("CREATE OR REPLACE FUNCTION {function}")).await;
            let trigger = format!("BEFORE INSERT ON {prefix}booking FOR EACH ROW EXECUTE FUNCTION {prefix}{name}()");
            db.execute(&format!("CREATE TRIGGER {name} {trigger}")).await;
            db.database.refresh().await.unwrap();
            db.count(&format!("SELECT setval('{prefix}runs', 1)")).await;
            let before = db.schema();
            let failed = db.mutate(db.insert("booking", json!({"id": 1, "v": "x"}), None)).await;
            let Err(Error::Database(cause)) = &failed else { panic!("{failed:?}") };
            assert!(cause.contains("(42") && cause.contains(name), "{cause}");
            assert_eq!(db.count(&format!("SELECT last_value FROM {prefix}runs")).await, 2, "{name}");
            assert!(Arc::ptr_eq(&before, &db.schema()), "{name}");
            db.execute(&format!("DROP TRIGGER {name} ON {prefix}booking")).await;
        }
    }
}

/// Its faults are found when the statement is compiled: nothing runs.
#[tokio::test]
async fn a_trigger_of_sqlite_that_names_nothing_does_not_refresh_the_schema() {
    let db = sqlite().await;
    db.execute("CREATE TABLE booking (id INTEGER PRIMARY KEY, v TEXT)").await;
    db.execute("CREATE TABLE audit (id INTEGER PRIMARY KEY)").await;
    for body in
        ["INSERT INTO audit_log VALUES (1)", "INSERT INTO audit (nowhere) VALUES (1)", "SELECT nowhere FROM audit"]
    {
        db.execute(&format!("CREATE TRIGGER fails AFTER INSERT ON booking BEGIN {body}; END")).await;
        db.database.refresh().await.unwrap();
        let before = db.schema();
        let failed = db.mutate(db.insert("booking", json!({"id": 1, "v": "x"}), Some(json!([])))).await;
        let Err(Error::Database(cause)) = &failed else { panic!("{failed:?}") };
        assert!(cause.contains("audit") || cause.contains("nowhere"), "{cause}");
        assert!(Arc::ptr_eq(&before, &db.schema()), "{body}");
        db.execute("DROP TRIGGER fails").await;
    }
}

#[tokio::test]
async fn a_value_that_a_trigger_leaves_out_is_not_asked_of_the_caller() {
    let db = sqlite().await;
    db.execute("CREATE TABLE booking (id INTEGER PRIMARY KEY, v TEXT)").await;
    db.execute("CREATE TABLE audit (who TEXT NOT NULL)").await;
    db.execute("CREATE TRIGGER t AFTER INSERT ON booking BEGIN INSERT INTO audit VALUES (NULL); END").await;
    assert!(db.database.refresh().await.unwrap());
    let failed = db.mutate(db.insert("booking", json!({"id": 1, "v": null}), None)).await;
    assert_eq!(failed, Err(Error::NotNull("who".to_owned())));
}

#[tokio::test]
async fn a_full_disk_asks_to_try_again() {
    let db = sqlite().await;
    db.execute("CREATE TABLE paper (id INTEGER PRIMARY KEY, v TEXT)").await;
    assert!(db.database.refresh().await.unwrap());
    let pages = Statement {
        text: "PRAGMA max_page_count = 1".into(),
        args: Vec::new(),
        columns: [query::Type::Int64.into()].into(),
        sources: Vec::new(),
        plain: None,
    };
    db.database.store().write(&pages).await.unwrap();
    let full = db.mutate(db.insert("paper", json!({"id": 1, "v": "x".repeat(100_000)}), None)).await;
    let Err(Error::Refused { code, text, .. }) = &full else { panic!("{full:?}") };
    assert_eq!((*code, text.as_str()), (mesh::Code::Unavailable, "the disk of the database is full"));
    assert_eq!(db.read("paper", json!({})).await, Ok(json!([])));
}

#[tokio::test]
async fn a_view_that_lost_its_data_is_named_where_the_request_names_it() {
    for db in engines().await.into_iter().filter(|db| matches!(db.schema().dialect, Dialect::Postgres { .. })) {
        let prefix = db.prefix();
        db.execute(&format!("CREATE MATERIALIZED VIEW {prefix}digest AS SELECT title FROM {prefix}album")).await;
        db.execute(&format!("CREATE VIEW {prefix}over_digest AS SELECT title FROM {prefix}digest")).await;
        assert!(db.database.refresh().await.unwrap());
        db.execute(&format!("REFRESH MATERIALIZED VIEW {prefix}digest WITH NO DATA")).await;
        for (table, expected) in [
            ("digest", "digest has no data yet; refresh it"),
            ("over_digest", "a view that is read has no data yet; refresh it"),
        ] {
            let failed = db.read(table, json!({})).await;
            let Err(Error::Refused { code: mesh::Code::Unavailable, text, .. }) = &failed else { panic!("{failed:?}") };
            assert_eq!(text, expected);
        }
    }
}
