//! Writing.

use query::{Filter, Mutation, MutationKind, Operation};
use serde_json::json;

use super::support::{Db, engines};
use crate::{
    Error,
    budget::Budget,
    sql::Dialect,
    store::{Statement, postgres::Postgres},
};

#[tokio::test]
async fn documents_may_have_different_columns() {
    for db in engines().await {
        let docs = json!([{"amount": 1}, {"amount": 2, "maker": 1, "number": 1}, {}, {"maker": null, "amount": 4}, {}]);
        let (affected, rows) = db.mutate(db.insert("stock", docs, Some(json!(["amount", "maker"])))).await.unwrap();
        assert_eq!(affected, 5);
        assert_eq!(
            rows,
            json!([{"amount": 1, "maker": null}, {"amount": 2, "maker": 1}, {"amount": 7, "maker": null},
                   {"amount": 4, "maker": null}, {"amount": 7, "maker": null}])
        );
        assert_eq!(db.mutate(db.insert("stock", json!([]), Some(json!(["amount"])))).await.unwrap(), (0, json!([])));
        assert_eq!(db.read("stock", json!({"shape": "count"})).await.unwrap(), json!(8));
    }
}

#[tokio::test]
async fn more_documents_than_a_statement_takes_are_inserted_together() {
    for db in engines().await {
        let docs: Vec<_> = (0..40_000).map(|n| json!({"maker": n, "number": 7})).collect();
        let (affected, _) = db.mutate(db.insert("part", json!(docs), None)).await.unwrap();
        assert_eq!(affected, 40_000);
        let mut docs: Vec<_> = (40_000..80_000).map(|n| json!({"maker": n, "number": 7})).collect();
        docs.push(json!({"maker": 1, "number": 1}));
        let failed = db.mutate(db.insert("part", json!(docs), None)).await;
        assert!(matches!(failed, Err(Error::Conflict { .. })), "{failed:?}");
        assert_eq!(db.read("part", json!({"shape": "count"})).await.unwrap(), json!(40_004));
    }
}

#[tokio::test]
async fn returning_follows_relations() {
    for db in engines().await {
        let returning = json!({"title": 1, "artist": {"select": {"name": 1, "album": {"select": ["album_id"]}}}});
        let (_, rows) = db
            .mutate(db.insert("album", json!({"album_id": 50, "title": "New", "artist_id": 2}), Some(returning)))
            .await
            .unwrap();
        assert_eq!(
            rows,
            json!([{"title": "New", "artist": {"name": "Accept", "album": [{"album_id": 3}, {"album_id": 50}]}}])
        );
        let (affected, rows) = db
            .mutate(db.delete(
                "album",
                json!({"album_id": 1}),
                Some(json!({"title": 1, "track": {"select": ["name"], "sort": ["name"], "limit": 2}})),
            ))
            .await
            .unwrap();
        assert_eq!(
            (affected, rows),
            (1, json!([{"title": "Let There Be Rock", "track": [{"name": "Dog Eat Dog"}, {"name": "Go Down"}]}]))
        );
        assert_eq!(db.read("track", json!({"shape": "count"})).await.unwrap(), json!(2));
        let parts = json!({"maker": 1, "number": 2, "amount": 3});
        let (_, rows) = db
            .mutate(db.insert(
                "stock",
                json!([parts, {"maker": 2, "number": 1}]),
                Some(json!({"part": {"select": ["label"]}})),
            ))
            .await
            .unwrap();
        assert_eq!(rows, json!([{"part": {"label": "b"}}, {"part": {"label": "c"}}]));
    }
}

#[tokio::test]
async fn updates_set_and_add_in_one_statement() {
    for db in engines().await {
        let update = json!({"$set": {"name": "X"}, "$inc": {"milliseconds": 5, "unit_price": 0.01}});
        let returning = Some(json!(["name", "milliseconds", "unit_price"]));
        let update = db.update("track", json!({"track_id": {"$in": [1, 2]}}), update, returning);
        let written = db.write(&[update]).await.unwrap().remove(0);
        assert_eq!(written.affected, 2);
        assert_eq!(
            String::from_utf8(written.rows).unwrap(),
            r#"[{"name":"X","milliseconds":331185,"unit_price":1.00},{"name":"X","milliseconds":215201,"unit_price":1.00}]"#
        );
        let (affected, _) = db.mutate(db.update("track", json!({"track_id": 1}), json!({}), None)).await.unwrap();
        assert_eq!(affected, 0);
        let (affected, _) = db
            .mutate(db.update(
                "track",
                json!({"album": {"title": "Back in Black"}}),
                json!({"$set": {"album_id": null}}),
                None,
            ))
            .await
            .unwrap();
        assert_eq!(affected, 1);
    }
}

#[tokio::test]
async fn one_row_at_most_where_asked() {
    for db in engines().await {
        let mut update =
            db.update("track", json!({"album_id": 1}), json!({"$set": {"name": "X"}}), Some(json!(["track_id"])));
        let MutationKind::Update { one, .. } = &mut update.kind else { unreachable!() };
        *one = true;
        assert_eq!(db.mutate(update).await.unwrap(), (1, json!([{"track_id": 1}])));
        for (table, column, docs) in [
            ("odd \"name", "select", json!([{"select": 8}, {"select": 8}])),
            ("part", "number", json!([{"number": 8, "maker": 50}, {"number": 8, "maker": 51}])),
        ] {
            db.mutate(db.insert(table, docs, None)).await.unwrap();
            assert_eq!(db.mutate(delete_one(&db, table, json!({column: 8}))).await.unwrap().0, 1);
            assert_eq!(db.read(table, json!({"find": {column: 8}, "shape": "count"})).await.unwrap(), json!(1));
        }
    }
}

/// A delete of one row at most.
fn delete_one(db: &Db, table: &str, find: serde_json::Value) -> Mutation {
    let mut delete = db.delete(table, find, None);
    let MutationKind::Delete { one, .. } = &mut delete.kind else { unreachable!() };
    *one = true;
    delete
}

#[tokio::test]
async fn one_of_several_rows_that_nothing_tells_apart_is_not_written() {
    for db in engines().await {
        let prefix = db.prefix();
        db.execute(&format!("CREATE TABLE {prefix}twin (n INTEGER)")).await;
        db.execute(&format!("INSERT INTO {prefix}twin VALUES (1), (1), (2)")).await;
        db.execute(&format!("CREATE VIEW {prefix}twins AS SELECT n FROM {prefix}twin")).await;
        if db.schema().dialect == Dialect::Sqlite {
            let delete = "DELETE FROM twin WHERE n = old.n";
            db.execute(&format!("CREATE TRIGGER t INSTEAD OF DELETE ON twins BEGIN {delete}; END")).await;
        }
        assert!(db.database.refresh().await.unwrap());

        let refused = db.mutate(delete_one(&db, "twins", json!({"n": 1}))).await;

        // A statement of MariaDB writes as many rows as it is told to.
        if db.schema().dialect == Dialect::Mysql {
            assert_eq!(refused.unwrap().0, 1);
            assert_eq!(db.read("twins", json!({"find": {"n": 1}, "shape": "count"})).await, Ok(json!(1)));
            continue;
        }
        let text = "one row of twins cannot be written: 2 are equal in every column";
        assert_eq!(refused, Err(Error::Constraint(text.to_owned())));
        assert_eq!(db.read("twins", json!({"shape": "count"})).await, Ok(json!(3)));
        assert_eq!(db.mutate(delete_one(&db, "twins", json!({"n": 2}))).await.unwrap().0, 1);
        assert_eq!(db.mutate(db.delete("twins", json!({"n": 1}), None)).await.unwrap().0, 2);
    }
}

#[tokio::test]
async fn one_row_that_a_rule_no_longer_allows_when_it_is_locked_is_left() {
    for mut db in engines().await.into_iter().filter(|db| matches!(db.schema().dialect, Dialect::Postgres { .. })) {
        db.rule("part", Operation::Delete).filter = db.filter("part", json!({"label": "a"}));
        let table = format!("{}part", db.prefix());
        let statement = |text: String| Statement {
            text: text.into(),
            args: Vec::new(),
            columns: [].into(),
            sources: Vec::new(),
            plain: None,
        };
        let taken = statement(format!("UPDATE {table} SET label = 'taken' WHERE maker = 1 AND number = 1"));
        let url = std::env::var("TEST_POSTGRES_URL").unwrap();
        let store = Postgres::open("other", &url, "public", 2, &mesh::Tasks::default()).unwrap();
        let mut other = store.begin().await.unwrap();
        other.run(&[taken], &Budget::unlimited()).await.unwrap();
        let delete = delete_one(&db, "part", json!({"maker": 1}));
        let waiting = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'DELETE FROM \"{}%'",
            db.schema().dialect.schema().unwrap()
        );
        let commit = async {
            while db.count(&waiting).await == 0 {
                tokio::task::yield_now().await;
            }
            other.commit().await.unwrap();
        };

        let (deleted, ()) = futures::join!(db.mutate(delete), commit);

        assert_eq!(deleted.unwrap().0, 0);
        assert_eq!(db.read("part", json!({"find": {"maker": 1}, "shape": "count"})).await.unwrap(), json!(2));
    }
}

#[tokio::test]
async fn all_rows_are_changed_only_where_a_rule_allows_it() {
    for mut db in engines().await {
        let update = db.update("artist", json!({}), json!({"$set": {"name": "X"}}), None);
        let refused = db.mutate(update.clone()).await;
        assert!(matches!(refused, Err(Error::Query(query::Error::WhereRequired("update")))), "{refused:?}");
        let refused = db.mutate(db.delete("track", json!({}), None)).await;
        assert!(matches!(refused, Err(Error::Query(query::Error::WhereRequired("delete")))), "{refused:?}");
        let everything = Filter::Or(vec![
            Filter::FALSE,
            Filter::Not(Box::new(Filter::In { column: "artist_id".to_owned(), values: Vec::new() })),
        ]);
        let mut veiled = update.clone();
        veiled.kind = MutationKind::Delete { filter: everything, one: false };
        let refused = db.mutate(veiled).await;
        assert!(matches!(refused, Err(Error::Query(query::Error::WhereRequired("delete")))), "{refused:?}");
        db.rule("artist", Operation::Update).allow_all = true;
        assert_eq!(db.mutate(update).await.unwrap().0, 3);
    }
}

#[tokio::test]
async fn rows_outside_the_rule_are_not_touched() {
    for mut db in engines().await {
        let own = db.filter("album", json!({"artist": {"name": "AC/DC"}}));
        db.rule("album", Operation::Update).filter = own.clone();
        db.rule("album", Operation::Delete).filter = own;
        let update = db.update("album", json!({"album_id": {"$gt": 0}}), json!({"$set": {"artist_id": 1}}), None);
        assert_eq!(db.mutate(update).await.unwrap().0, 2);
        assert_eq!(db.mutate(db.delete("album", json!({"album_id": 3}), None)).await.unwrap().0, 0);
    }
}

#[tokio::test]
async fn a_row_that_fails_the_check_undoes_everything() {
    for mut db in engines().await {
        let check = db.filter("album", json!({"artist": {"name": "AC/DC"}}));
        for operation in [Operation::Create, Operation::Update] {
            db.rule("album", operation).check = check.clone();
        }
        let docs = json!([{"title": "a", "artist_id": 1}, {"title": "b", "artist_id": 2}]);
        let refused = db.mutate(db.insert("album", docs, None)).await;
        assert!(matches!(refused, Err(Error::Denied(_))), "{refused:?}");
        assert_eq!(db.read("album", json!({"shape": "count"})).await.unwrap(), json!(3));
        let stolen =
            db.mutate(db.update("album", json!({"album_id": 1}), json!({"$set": {"artist_id": 2}}), None)).await;
        assert!(matches!(stolen, Err(Error::Denied(_))), "{stolen:?}");
        let (affected, rows) =
            db.mutate(db.insert("album", json!({"title": "a", "artist_id": 1}), Some(json!(["title"])))).await.unwrap();
        assert_eq!((affected, rows), (1, json!([{"title": "a"}])));
        db.rule("album", Operation::Create).check = db.filter("album", json!({"title": {"$in": ["c", "d"]}}));
        let (affected, _) = db
            .mutate(db.insert("album", json!([{"title": "c", "artist_id": 1}, {"title": "d", "artist_id": 1}]), None))
            .await
            .unwrap();
        assert_eq!(affected, 2);
    }
}

#[tokio::test]
async fn rows_that_may_not_be_read_are_not_returned() {
    for mut db in engines().await {
        db.rule("track", Operation::Read).filter = db.filter("track", json!({"milliseconds": {"$gt": 300_000}}));
        let update =
            db.update("track", json!({"album_id": 1}), json!({"$set": {"unit_price": 2}}), Some(json!(["track_id"])));
        assert_eq!(db.mutate(update).await.unwrap(), (3, json!([{"track_id": 1}, {"track_id": 3}])));
        let returning = json!({"track_id": 1, "album": {"select": ["title"]}});
        let delete = db.delete("track", json!({"album_id": 1}), Some(returning));
        let album = json!({"title": "Let There Be Rock"});
        let rows = json!([{"track_id": 1, "album": album}, {"track_id": 3, "album": album}]);
        assert_eq!(db.mutate(delete).await.unwrap(), (3, rows));
    }
}

#[tokio::test]
async fn mutations_of_one_call_are_all_or_none() {
    for db in engines().await {
        let good = db.insert("artist", json!({"artist_id": 10, "name": "New"}), None);
        let uses = db.insert("album", json!({"title": "First", "artist_id": 10}), Some(json!(["title"])));
        let bad = db.insert("album", json!({"title": "Back in Black", "artist_id": 10}), None);
        let failed = db.write(&[good.clone(), uses.clone(), bad]).await;
        assert_eq!(failed, Err(Error::Conflict { columns: vec!["title".to_owned()] }));
        assert_eq!(db.read("artist", json!({"shape": "count"})).await.unwrap(), json!(3));
        let written = db.write(&[good, uses]).await.unwrap();
        assert_eq!(written[1].rows, br#"[{"title":"First"}]"#);
    }
}

#[tokio::test]
async fn constraints_are_named() {
    for db in engines().await {
        let refused = db.mutate(db.insert("album", json!({"title": "x", "artist_id": 99}), None)).await;
        assert!(matches!(&refused, Err(Error::Constraint(text)) if text.contains("foreign key")), "{refused:?}");
        let mut untitled = db.insert("album", json!([]), None);
        let doc = query::Document(vec![("artist_id".to_owned(), query::Typed::Int(1))]);
        untitled.kind = MutationKind::Insert { docs: vec![doc].into() };
        let refused = db.mutate(untitled).await;
        assert_eq!(refused, Err(Error::Query(query::Error::Required("title".to_owned()))));
        let refused = db
            .mutate(db.update("track", json!({"track_id": 1}), json!({"$inc": {"milliseconds": -9_999_999}}), None))
            .await;
        assert!(matches!(&refused, Err(Error::Constraint(text)) if text.contains("check")), "{refused:?}");
        let refused = db.mutate(db.delete("artist", json!({"artist_id": 1}), None)).await;
        assert!(matches!(&refused, Err(Error::Constraint(_))), "{refused:?}");
        let refused = db.mutate(db.insert("part", json!({"maker": 1, "number": 1}), None)).await;
        assert_eq!(refused, Err(Error::Conflict { columns: vec!["maker".to_owned(), "number".to_owned()] }));
        let mut shown = db.insert("album", json!([]), None);
        let doc = query::Document(vec![("title".to_owned(), query::Typed::Text("x".to_owned()))]);
        (shown.table, shown.kind) = ("titles".to_owned(), MutationKind::Insert { docs: vec![doc].into() });
        let refused = db.mutate(shown).await;
        let why = match db.schema().dialect {
            Dialect::Sqlite => query::Error::Malformed("titles is a view and cannot be written".to_owned()).into(),
            // It writes through the view, into which the album's artist was not put.
            Dialect::Postgres { .. } => query::Error::Required("artist_id".to_owned()).into(),
            Dialect::Mysql => Error::Constraint("the table under the view has a column without a default".to_owned()),
        };
        assert_eq!(refused, Err(why));
    }
}

#[tokio::test]
async fn an_increment_past_the_range_is_refused_and_changes_nothing() {
    for db in engines().await {
        for (column, held, by) in [
            ("big", json!(i64::MAX), json!(1)),
            ("big", json!(i64::MIN), json!(-1)),
            ("price", json!(99_999_999.99), json!(0.01)),
        ] {
            db.mutate(db.delete("kinds", json!({"id": 1}), None)).await.unwrap();
            db.mutate(db.insert("kinds", json!({"id": 1, column: held}), None)).await.unwrap();
            let inc = db.update("kinds", json!({"id": 1}), json!({"$inc": {column: by}}), None);
            let failed = db.mutate(inc).await;
            let is_named =
                matches!(&failed, Err(Error::Query(query::Error::OutOfRange { name, .. })) if name == column);
            assert!(is_named, "{column}: {failed:?}");
            assert_eq!(db.read("kinds", json!({"select": [column]})).await.unwrap(), json!([{column: held}]));
        }
    }
}

#[tokio::test]
async fn decimals_are_kept_exactly_or_refused() {
    for db in engines().await {
        for (given, stored) in
            [("0.005", "0.01"), ("-0.005", "-0.01"), ("-0.001", "0.00"), ("99999999.99", "99999999.99")]
        {
            db.mutate(db.delete("kinds", json!({"id": 1}), None)).await.unwrap();
            db.mutate(db.insert("kinds", json!({"id": 1, "price": given}), None)).await.unwrap();
            let answer = db.answer("kinds", json!({"select": ["price"]})).await.unwrap();
            assert_eq!(
                String::from_utf8(answer.json.to_vec()).unwrap(),
                format!(r#"[{{"price":{stored}}}]"#),
                "{given}"
            );
        }
        for given in ["99999999.995", "100000000", "1e400", "-1e10"] {
            let failed = db.mutate(db.update("kinds", json!({"id": 1}), json!({"$set": {"price": given}}), None)).await;
            let Err(Error::Query(error @ query::Error::OutOfRange { .. })) = failed else {
                panic!("{given}: {failed:?}")
            };
            assert!(error.to_string().starts_with("price is out of range: expected decimal of 10 digits"), "{error}");
        }
        for _ in 0..10 {
            db.mutate(db.update("kinds", json!({"id": 1}), json!({"$inc": {"price": -0.1}}), None)).await.unwrap();
        }
        let answer = db.answer("kinds", json!({"select": ["price"]})).await.unwrap();
        assert_eq!(String::from_utf8(answer.json.to_vec()).unwrap(), r#"[{"price":99999998.99}]"#);
    }
}
