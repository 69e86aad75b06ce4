//! Operations that the model can express and that mean nothing, or more than their caller may want.

use query::{
    Change, Document, Error as Unfit, Field, FieldKind, Filter, Mutation, MutationKind, Node, Operation, Read, Shape,
    Sort, Typed,
};
use serde_json::{Value as Json, json};

use super::support::{Db, engines, read, sqlite};
use crate::Error;

fn malformed(text: &str) -> Error {
    Error::Query(Unfit::Malformed(text.to_owned()))
}

fn sort(column: &str, descending: bool) -> Sort {
    Sort { column: column.to_owned(), descending }
}

/// A way to ask for less than all rows, or for an order of them.
fn windows() -> [fn(&mut Node); 3] {
    [|node| node.skip = 1, |node| node.limit = Some(1), |node| node.sort = vec![sort("name", false)]]
}

fn condition(db: &Db, table: &str, find: Json) -> Filter {
    match db.delete(table, find, None).kind {
        MutationKind::Delete { filter, .. } => filter,
        other => panic!("a delete, not {other:?}"),
    }
}

async fn answer(db: &Db, table: &str, node: Node) -> Result<String, Error> {
    let read = Read { database: "music".into(), table: table.into(), node };
    let answer = db.answers(&[read]).await?.remove(0);
    Ok(String::from_utf8(answer.json.to_vec()).unwrap())
}

#[tokio::test]
async fn a_count_has_no_window() {
    for db in engines().await {
        let count = Node::new(Shape::Count, Vec::new());
        assert_eq!(answer(&db, "artist", count.clone()).await.unwrap(), "3");
        for change in windows() {
            let mut node = count.clone();
            change(&mut node);
            assert_eq!(
                answer(&db, "artist", node).await,
                Err(malformed("invalid count: sort, skip and limit are not allowed"))
            );
        }
    }
}

#[tokio::test]
async fn counts_stand_in_aggregates_and_nothing_else_does() {
    let db = sqlite().await;
    let field = |key: &str, kind| Field { key: key.to_owned(), kind };
    let (count, column) = (field("n", FieldKind::Count), Field::column("name"));
    let node = Node::new(Shape::Many, vec![Field::column("title")]);
    let relation = field("album", FieldKind::Relation { name: "album".to_owned(), node });
    let aggregate = Node::new(Shape::Aggregate, vec![count.clone()]);
    assert_eq!(answer(&db, "artist", aggregate).await.unwrap(), r#"[{"n":3}]"#);
    for (shape, field, text) in [
        (Shape::Many, &count, "count is allowed in an aggregate only"),
        (Shape::One, &count, "count is allowed in an aggregate only"),
        (Shape::Aggregate, &column, "name is not allowed in an aggregate"),
        (Shape::Count, &column, "name is not allowed in an aggregate"),
        (Shape::Aggregate, &relation, "album is not allowed in an aggregate"),
    ] {
        let node = Node::new(shape, vec![field.clone()]);
        assert_eq!(answer(&db, "artist", node).await, Err(malformed(text)), "{shape:?}");
    }
}

#[tokio::test]
async fn json_has_no_order() {
    let db = sqlite().await;
    let mut node = Node::new(Shape::Many, vec![Field::column("id")]);
    node.sort = vec![sort("doc", false)];
    let refused = answer(&db, "kinds", node).await.unwrap_err();
    assert_eq!(refused.to_string(), "invalid sort: expected column that has an order, found doc, which holds JSON");
}

#[tokio::test]
async fn returning_is_all_rows_in_their_order() {
    for db in engines().await {
        let insert = |returning: Node| Mutation {
            returning: Some(returning),
            ..db.insert("artist", json!([{"artist_id": 9}, {"artist_id": 8}]), None)
        };
        let all = Node::new(Shape::Many, vec![Field::column("artist_id")]);
        let refused = Err(malformed("invalid returning: sort, skip, limit and aggregates are not allowed"));
        for change in windows() {
            let mut node = all.clone();
            change(&mut node);
            assert_eq!(db.mutate(insert(node)).await, refused);
        }
        for shape in [Shape::One, Shape::Count, Shape::Aggregate] {
            assert_eq!(db.mutate(insert(Node::new(shape, Vec::new()))).await, refused);
        }
        assert_eq!(db.mutate(insert(all)).await, Ok((2, json!([{"artist_id": 9}, {"artist_id": 8}]))));
    }
}

#[tokio::test]
async fn a_column_is_written_once() {
    let db = sqlite().await;
    let value = |text: &str| Typed::Text(text.to_owned());
    let mut insert = db.insert("artist", json!([]), None);
    let doc = ["a", "b"].map(|text| ("name".to_owned(), value(text)));
    insert.kind = MutationKind::Insert { docs: vec![Document(doc.to_vec())].into() };
    assert_eq!(db.mutate(insert).await, Err(malformed("column name is given twice")));
    let mut update = db.update("artist", json!({"artist_id": 1}), json!({}), None);
    let MutationKind::Update { changes, .. } = &mut update.kind else { unreachable!() };
    *changes = ["a", "b"].map(|text| Change::Set { column: "name".to_owned(), value: value(text) }).to_vec();
    assert_eq!(db.mutate(update).await, Err(malformed("column name is changed twice")));
}

#[tokio::test]
async fn only_numbers_are_added() {
    let db = sqlite().await;
    let mut update = db.update("artist", json!({"artist_id": 1}), json!({}), None);
    let MutationKind::Update { changes, .. } = &mut update.kind else { unreachable!() };
    *changes = vec![Change::Inc { column: "name".to_owned(), by: Typed::Int(1) }];
    let [name, expected, found] =
        ["name", "numeric column to increment", "column of type VARCHAR(120)"].map(str::to_owned);
    let refused = Unfit::WrongType { name, expected, found };
    assert_eq!(db.mutate(update).await, Err(Error::Query(refused)));
}

#[tokio::test]
async fn computed_columns_are_read_and_not_written() {
    for db in engines().await {
        let prefix = db.prefix();
        let doubled = "twice INTEGER GENERATED ALWAYS AS (number * 2) STORED";
        db.execute(&format!("CREATE TABLE {prefix}sums (id INTEGER PRIMARY KEY, number INTEGER, {doubled})")).await;
        assert!(db.database.refresh().await.unwrap());
        let returning = Some(json!(["twice"]));
        let written = db.mutate(db.insert("sums", json!({"id": 1, "number": 4}), returning)).await;
        assert_eq!(written, Ok((1, json!([{"twice": 8}]))));
        let refused = Err(malformed("column twice is computed by the database and cannot be written"));
        let (column, value) = ("twice".to_owned(), Typed::Int(4));
        let docs = vec![Document(vec![(column.clone(), value.clone())])].into();
        let filter = condition(&db, "sums", json!({"id": 1}));
        let changes = vec![Change::Set { column, value }];
        for kind in [MutationKind::Insert { docs }, MutationKind::Update { filter, changes, one: false }] {
            let mutation = Mutation { table: "sums".to_owned(), kind, returning: None };
            assert_eq!(db.mutate(mutation).await, refused);
        }
    }
}

/// Conditions that every row passes ask for all rows, however they are written; others ask for some.
#[tokio::test]
async fn a_condition_that_is_always_true_is_none() {
    let mut db = sqlite().await;
    let and = |all: &[&Filter]| Filter::And(all.iter().map(|filter| (*filter).clone()).collect());
    let or = |any: &[&Filter]| Filter::Or(any.iter().map(|filter| (*filter).clone()).collect());
    let not = |filter: &Filter| Filter::Not(Box::new(filter.clone()));
    let never = Filter::In { column: "artist_id".to_owned(), values: Vec::new() };
    let always = not(&never);
    let [some, null] = [json!({"artist_id": 99}), json!({"name": null, "artist_id": 99})];
    let [some, both] = [some, null].map(|find| condition(&db, "artist", find));
    let refused = Err(Error::Query(Unfit::WhereRequired("delete")));
    for (filter, is_refused) in [
        (Filter::TRUE, true),
        (Filter::FALSE, false),
        (always.clone(), true),
        (never.clone(), false),
        (and(&[&always]), true),
        (and(&[&always, &always]), true),
        (and(&[&always, &never]), false),
        (and(&[&always, &some]), false),
        (and(&[&never, &some]), false),
        (or(&[&always, &some]), true),
        (or(&[&never, &always]), true),
        (or(&[&never, &never]), false),
        (or(&[&never, &some]), false),
        (or(&[&some, &some]), false),
        (not(&or(&[&never, &never])), true),
        (not(&and(&[&always])), false),
        (not(&some), false),
        (some, false),
        (both, false),
    ] {
        // Nothing is deleted: albums refer to all artists but the last, and that is not there.
        let delete = Mutation {
            kind: MutationKind::Delete { filter: filter.clone(), one: false },
            ..db.delete("artist", json!({}), None)
        };
        let outcome = db.mutate(delete).await;
        assert_eq!(outcome == refused, is_refused, "{filter:?}: {outcome:?}");
    }
    db.rule("artist", Operation::Delete).allow_all = true;
    let outcome = db.mutate(db.delete("artist", json!({}), None)).await;
    assert!(matches!(outcome, Err(Error::Constraint(_))), "{outcome:?}");
}

#[tokio::test]
async fn a_column_orders_once() {
    let db = sqlite().await;
    let mut node = read(&db.schema().schema, "artist", &json!({"select": ["artist_id"]})).unwrap().node;
    node.sort = vec![sort("artist_id", true), sort("artist_id", false)];
    assert_eq!(answer(&db, "artist", node).await.unwrap(), r#"[{"artist_id":3},{"artist_id":2},{"artist_id":1}]"#);
}
