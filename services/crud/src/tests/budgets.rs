//! Limits of answers: by bytes of JSON, by memory of rows, and for writes before they last.

use serde_json::{Value as Json, json};

use super::support::{Db, engines, read};
use crate::{
    Error,
    budget::{AnswerLimit, Budget, too_large},
    sql::Dialect,
    store::Statement,
};

fn bytes(limit: usize) -> AnswerLimit {
    AnswerLimit::new(limit as u64, 0)
}

/// Every track through its album, which the tracks of an album share.
fn tracks() -> Json {
    json!({"select": {"name": 1, "album": {"select": {"title": 1, "track": {"select": ["name"]}}}}})
}

#[tokio::test]
async fn an_answer_at_its_limit_is_given_and_one_over_it_refused() {
    for mut db in engines().await {
        let whole = db.answer("track", tracks()).await.unwrap().json;
        db.options.answer = bytes(whole.len());
        assert_eq!(db.answer("track", tracks()).await.unwrap().json, whole);
        db.options.answer = bytes(whole.len() - 1);
        let text = format!(
            "the answer is over the limit of {} bytes; ask for less with select, where or limit",
            whole.len() - 1
        );
        assert_eq!(db.answer("track", tracks()).await.unwrap_err(), Error::TooLarge(text));
    }
}

#[tokio::test]
async fn the_answers_of_a_request_share_the_limit() {
    for mut db in engines().await {
        let known = db.schema();
        let reads = [read(&known.schema, "artist", &json!({})), read(&known.schema, "album", &json!({}))];
        let reads = reads.map(Result::unwrap);
        let sizes: usize = db.answers(&reads).await.unwrap().iter().map(|answer| answer.json.len()).sum();
        db.options.answer = bytes(sizes);
        assert!(db.answers(&reads).await.is_ok());
        db.options.answer = bytes(sizes - 1);
        assert_eq!(db.answers(&reads).await.unwrap_err(), too_large(sizes as u64 - 1));
        db.options.answer = AnswerLimit::new(sizes as u64 + 9, 10);
        assert_eq!(db.answers(&reads).await.unwrap_err(), too_large(sizes as u64 + 9));
    }
}

#[tokio::test]
async fn what_grows_as_it_is_written_is_refused_by_what_is_written() {
    for mut db in engines().await {
        let long = "\"".repeat(100_000);
        db.mutate(db.insert("kinds", json!({"id": 1, "words": long, "doc": [long]}), None)).await.unwrap();
        for column in ["words", "doc"] {
            let options = json!({"select": [column]});
            let whole = db.answer("kinds", options.clone()).await.unwrap().json.len();
            assert!(whole > 200_000, "{whole}");
            for (limit, is_given) in [(whole, true), (whole - 1, false), (whole / 2, false)] {
                db.options.answer = bytes(limit);
                assert_eq!(db.answer("kinds", options.clone()).await.is_ok(), is_given, "{column} {limit}");
            }
            db.options.answer = bytes(0);
        }
    }
}

/// An answer that is neither small nor over the limit.
#[tokio::test]
async fn a_large_answer_is_whole() {
    for db in engines().await {
        let docs: Vec<Json> = (0..300).map(|id| json!({"id": id, "words": "x".repeat(10_000 + id)})).collect();
        db.mutate(db.insert("kinds", json!(docs), None)).await.unwrap();
        let rows = db.read("kinds", json!({"select": ["words"]})).await.unwrap();
        let rows = rows.as_array().unwrap();
        let lengths = rows.iter().map(|row| row["words"].as_str().map_or(0, str::len));
        assert!(lengths.eq(10_000..10_300));
    }
}

async fn names(db: &Db) -> Json {
    db.read("artist", json!({"sort": ["artist_id"], "select": ["name"]})).await.unwrap()
}

#[tokio::test]
async fn a_write_whose_answer_is_too_large_is_not_done() {
    for mut db in engines().await {
        db.options.answer = bytes(0);
        let before = names(&db).await;
        let wide = Some(json!(["artist_id", "name"]));
        let nested = Some(json!({"name": 1, "album": {"select": ["title"]}}));
        let doc = json!({"artist_id": 9, "name": "x".repeat(90)});
        let all = json!({"artist_id": {"$gt": 0}});
        let change = json!({"$set": {"name": "changed, and answered at some length, three times"}});
        let lonely = json!({"artist_id": 3});
        for mutation in [
            db.insert("artist", doc.clone(), wide.clone()),
            db.insert("artist", doc, nested.clone()),
            db.update("artist", all.clone(), change.clone(), wide.clone()),
            db.update("artist", all, change, nested.clone()),
            db.delete("artist", lonely.clone(), wide),
            db.delete("artist", lonely, nested),
        ] {
            db.options.answer = bytes(20);
            let failed = db.write(&[mutation.clone(), mutation.clone()]).await;
            assert_eq!(failed.unwrap_err(), too_large(20));
            let failed = db.mutate(mutation).await;
            db.options.answer = bytes(0);
            assert_eq!(failed.unwrap_err(), too_large(20));
            assert_eq!(names(&db).await, before);
        }
    }
}

#[tokio::test]
async fn a_write_that_may_be_too_large_and_is_not_is_done() {
    for mut db in engines().await {
        let change = || json!({"$set": {"name": "changed"}});
        let all = || json!({"artist_id": {"$gt": 0}});
        let expected = json!([{"name": "changed"}, {"name": "changed"}, {"name": "changed"}]);
        // Exactly what it takes: nobody knows before that it is enough.
        db.options.answer = bytes(expected.to_string().len());
        let done = db.mutate(db.update("artist", all(), change(), Some(json!(["name"])))).await.unwrap();
        assert_eq!(done, (3, expected.clone()));
        assert_eq!(names(&db).await, expected);
        let done = db.mutate(db.insert("artist", json!({"artist_id": 9}), Some(json!(["artist_id"])))).await.unwrap();
        assert_eq!(done, (1, json!([{"artist_id": 9}])));
        let done = db.mutate(db.insert("artist", json!({"artist_id": 10, "name": "x".repeat(90)}), None)).await;
        assert_eq!(done.unwrap().0, 1);
    }
}

/// Rows without end are not waited for, and the connection that gives them is not used again.
#[tokio::test]
async fn rows_over_their_memory_end_the_statement() {
    for db in engines().await {
        let endless = match db.schema().dialect {
            Dialect::Sqlite | Dialect::Postgres { .. } => {
                "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
            }
            // Its recursions end after a thousand rows.
            Dialect::Mysql => "SELECT a.seq FROM seq_1_to_1000000000 AS a",
        };
        let columns = vec![query::Type::Int64.into()];
        let statement = |text: &str| Statement {
            text: text.into(),
            args: Vec::new(),
            columns: columns.clone().into(),
            sources: Vec::new(),
            plain: None,
        };
        let (endless, one) = (statement(endless), statement("SELECT 1"));
        let store = db.database.store();
        let budget = || Budget::write(bytes(1));
        for statements in [vec![endless.clone()], vec![one.clone(), endless.clone(), endless]] {
            assert_eq!(store.snapshot(&statements, &budget()).await.unwrap_err().error, too_large(1));
            let mut tx = store.begin().await.unwrap();
            assert_eq!(tx.run(&statements, &budget()).await.unwrap_err(), too_large(1));
            drop(tx);
            assert_eq!(store.snapshot(&[one.clone(), one.clone()], &budget()).await.unwrap().len(), 2);
        }
    }
}
