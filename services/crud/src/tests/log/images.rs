//! Images of rows are what a read of these rows answers.

use super::*;

/// The row of a key as a read writes it.
async fn row(db: &Db, table: &str, id: i64) -> String {
    let answer = db.answer(table, json!({"find": {"id": id}, "shape": "one"})).await.unwrap();
    String::from_utf8(answer.json.to_vec()).unwrap()
}

#[tokio::test]
async fn images_are_what_a_read_of_the_row_answers() {
    let db = crate::tests::stored::filled().await;
    let mut log = Follower::of(&db, &["loose", "strict_any"], Bytes::new()).await;
    let count = db.count("SELECT count(*) FROM loose").await;
    for id in 1..=count {
        for table in ["loose", "strict_any"] {
            let before = row(&db, table, id).await;
            db.execute(&format!("UPDATE {table} SET id = id + 100000 WHERE id = {id}")).await;
            let after = row(&db, table, id + 100_000).await;
            assert_eq!(log.changes().await, [format!("{table} ~ {before} {after}")]);
        }
    }
}
