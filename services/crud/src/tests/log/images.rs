//! Images of rows are what a read of these rows answers.

use query::resources::ChangesSource;

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

#[tokio::test]
async fn images_of_every_type_of_a_server_are_what_a_read_answers() {
    use crate::tests::stored::postgres;

    for source in [ChangesSource::Triggers, ChangesSource::Slot] {
        let Some(db) = postgres::postgres_by(source).await else { return };
        postgres::filled(&db).await;
        images_are_what_a_read_answers(&db).await;
    }
}

async fn images_are_what_a_read_answers(db: &Db) {
    let (s, mut log) = (db.prefix(), Follower::of(db, &["every"], Bytes::new()).await);
    let count = db.count(&format!("SELECT count(*) FROM {s}every")).await;
    for id in 1..=count {
        let before = row(db, "every", id).await;
        db.execute(&format!("UPDATE {s}every SET id = id + 100 WHERE id = {id}")).await;
        let after = row(db, "every", id + 100).await;
        assert_eq!(log.changes().await, [format!("every ~ {before} {after}")]);
    }
    // A session that writes its values otherwise.
    db.execute(&format!(
        "DO $$ BEGIN SET LOCAL DateStyle TO 'SQL, DMY'; SET LOCAL IntervalStyle TO sql_standard; \
         SET LOCAL extra_float_digits TO -15; SET LOCAL bytea_output TO escape; SET LOCAL TimeZone TO 'Asia/Kolkata'; \
         SET LOCAL search_path TO pg_temp; SET LOCAL row_security TO off; UPDATE {s}every SET id = id - 100; END $$"
    ))
    .await;
    for change in log.so_many(usize::try_from(count).unwrap()).await {
        let id = change.split("\"id\":").nth(2).and_then(|rest| rest.split(',').next()).unwrap().parse().unwrap();
        let after = row(db, "every", id).await;
        assert!(change.ends_with(&after), "{change}\n{after}");
    }
}
