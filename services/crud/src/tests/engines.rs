//! What only one of the engines has.

use query::{Error as Unfit, Table};
use serde_json::json;

use super::support::engines;
use crate::{Error, sql::Dialect};

#[tokio::test]
async fn columns_that_lead_an_index_are_looked_up_in_it() {
    for db in engines().await {
        let is_looked_up = |table: &str, column: &str| {
            let known = db.schema();
            let table: &Table = known.schema.table(table).unwrap();
            let column = table.column(column).unwrap();
            known.dialect.subselect(table, column, column).0 == " = ANY(ARRAY("
        };
        let has_arrays = matches!(db.schema().dialect, Dialect::Postgres { .. });
        for (table, column) in [("album", "album_id"), ("album", "title"), ("part", "maker")] {
            assert_eq!(is_looked_up(table, column), has_arrays, "{table}.{column}");
        }
        for (table, column) in [("album", "artist_id"), ("part", "number"), ("titles", "title")] {
            assert!(!is_looked_up(table, column), "{table}.{column}");
        }
    }
}

#[tokio::test]
async fn values_of_types_that_only_the_database_knows_are_its_text() {
    for db in engines().await.into_iter().filter(|db| matches!(db.schema().dialect, Dialect::Postgres { .. })) {
        let prefix = db.prefix();
        db.execute(&format!("CREATE TABLE {prefix}hosts (id INTEGER PRIMARY KEY, address INET, ports INT4RANGE)"))
            .await;
        assert!(db.database.refresh().await.unwrap());
        let host = json!({"id": 1, "address": "10.0.0.1/8", "ports": "[80,444)"});
        let written = db.mutate(db.insert("hosts", host.clone(), Some(json!(["id", "address", "ports"])))).await;
        assert_eq!(written, Ok((1, json!([host]))));
        for find in [json!({"address": "10.0.0.1/8"}), json!({"ports": {"$in": ["[80,81)", "[80,444)"]}})] {
            assert_eq!(db.read("hosts", json!({"find": find})).await, Ok(json!([host])), "{find}");
        }
        let below = json!({"select": {"id": 1, "ports": 1}, "sort": ["-ports"], "limit": 1});
        assert_eq!(db.read("hosts", below).await, Ok(json!([{"id": 1, "ports": "[80,444)"}])));
    }
}

#[tokio::test]
async fn decimals_are_kept_whole_or_refused() {
    for db in engines().await {
        let prefix = db.prefix();
        db.execute(&format!("CREATE TABLE {prefix}sums (id INTEGER PRIMARY KEY, amount NUMERIC(20,2))")).await;
        assert!(db.database.refresh().await.unwrap());
        db.mutate(db.insert("sums", json!({"id": 1, "amount": "1234567890123.45"}), None)).await.unwrap();
        let amount = "12345678901234567.89";
        let insert = db.mutate(db.insert("sums", json!({"id": 2, "amount": amount}), None)).await;
        let update = db.mutate(db.update("sums", json!({"id": 1}), json!({"$set": {"amount": amount}}), None)).await;
        let answer = db.answer("sums", json!({"find": {"id": 1}, "select": ["amount"]})).await.unwrap();
        let found = String::from_utf8(answer.json.to_vec()).unwrap();
        if db.schema().dialect == Dialect::Sqlite {
            for refused in [insert, update] {
                assert!(matches!(&refused, Err(Error::Query(Unfit::OutOfRange { .. }))), "{refused:?}");
            }
            assert_eq!(found, r#"[{"amount":1234567890123.45}]"#);
        } else {
            assert_eq!((insert.unwrap().0, update.unwrap().0), (1, 1));
            assert_eq!(found, r#"[{"amount":12345678901234567.89}]"#);
        }
    }
}

#[tokio::test]
async fn doubles_that_are_no_finite_numbers_are_texts() {
    for db in engines().await {
        let prefix = db.prefix();
        db.execute(&format!(
            "CREATE TABLE {prefix}samples (id INTEGER PRIMARY KEY, f8 DOUBLE PRECISION NOT NULL, n NUMERIC)"
        ))
        .await;
        assert!(db.database.refresh().await.unwrap());
        if db.schema().dialect == Dialect::Mysql {
            for number in ["-Infinity", "NaN"] {
                let written = db.mutate(db.insert("samples", json!({"id": 4, "f8": number}), None)).await;
                assert!(matches!(&written, Err(Error::Query(Unfit::OutOfRange { .. }))), "{written:?}");
            }
            continue;
        }
        let rows = json!([{"id": 1, "f8": "-Infinity"}, {"id": 2, "f8": 1.5}, {"id": 3, "f8": "Infinity"}]);
        let written = db.mutate(db.insert("samples", rows.clone(), Some(json!(["id", "f8"])))).await;
        assert_eq!(written, Ok((3, rows)));
        let ids = |find| db.read("samples", json!({"select": ["id"], "find": find}));
        assert_eq!(ids(json!({"f8": "Infinity"})).await, Ok(json!([{"id": 3}])));
        assert_eq!(ids(json!({"f8": {"$in": ["-Infinity", 1.5]}})).await, Ok(json!([{"id": 1}, {"id": 2}])));
        assert_eq!(ids(json!({"f8": {"$gt": "-Infinity"}})).await, Ok(json!([{"id": 2}, {"id": 3}])));
        let nan = db.insert("samples", json!({"id": 4, "f8": "NaN", "n": "NaN"}), Some(json!(["f8", "n"])));
        let written = db.mutate(nan).await;
        if db.schema().dialect == Dialect::Sqlite {
            assert!(matches!(&written, Err(Error::Query(Unfit::OutOfRange { .. }))), "{written:?}");
        } else {
            assert_eq!(written, Ok((1, json!([{"f8": "NaN", "n": "NaN"}]))));
            assert_eq!(ids(json!({"f8": "NaN", "n": "NaN"})).await, Ok(json!([{"id": 4}])));
            assert_eq!(ids(json!({"n": {"$in": ["NaN"]}})).await, Ok(json!([{"id": 4}])));
        }
    }
}
