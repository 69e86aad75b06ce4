//! What a database holds in a column is compared as it is read: in SQLite whatever its storage class and spelling, in
//! PostgreSQL and MariaDB whatever its type.

use std::collections::{HashMap, HashSet};

use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use query::Type;
use serde_json::{Value as Json, json};

use super::{
    compile::selected,
    support::{Db, read, sqlite},
};
use crate::{Error, budget::Budget, cell::Cell, sql::Dialect, store::Statement};

pub mod mysql;
pub mod postgres;

/// Declarations of columns. Their number times [`ROWS`] values are tried.
const DECLARED: [&str; 20] = [
    "",
    "ANY",
    "UNHEARD_OF",
    "BOOLEAN",
    "BOOL TEXT",
    "DATETIME",
    "TIMESTAMP TEXT",
    "DATE",
    "DATE TEXT",
    "TIME",
    "UUID",
    "GUID TEXT",
    "INTEGER",
    "DOUBLE",
    "DECIMAL(10,2)",
    "NUMERIC TEXT",
    "VARCHAR(20)",
    "STRING",
    "BLOB",
    "INTERVAL",
];
const ROWS: usize = 160;

/// A literal of SQL: values of each storage class, many of them spellings of few moments, booleans, days and UUIDs.
fn stored() -> impl Strategy<Value = String> {
    let text = |text: String| format!("'{}'", text.replace('\'', "''"));
    let zone = prop::sample::select(vec!["", "Z", "z", "+00:00", " +00:00", "+02:00", "-05:30", " -01", "+14:00"]);
    let fraction = prop::sample::select(vec!["", ":16", ":16.0", ":16.5", ":16.500", ":16.123456789", ":60"]);
    let between = prop::sample::select(vec![" ", "T", "t"]);
    let moment = (16..19_u8, between, 20..24_u8, fraction, zone)
        .prop_map(|(day, between, hour, fraction, zone)| format!("2020-07-{day}{between}{hour}:56{fraction}{zone}"));
    let word = prop::sample::select(vec![
        "true",
        "FALSE",
        "t",
        "f",
        "yes",
        "1",
        "0",
        "",
        "soon",
        "2020-07-17",
        "2020-02-30",
        "21:56",
        "21:56:16",
        "21:56:16.0",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
        "a0eebc999c0b4ef8bb6d6bb9bd380a11",
        "12345678-9012-3456-7890-123456789012",
        "10000000000000000000000000000000",
        "0.5",
        "0.50",
        "5",
        "5.0",
        "1e3",
        "QUJD",
        "9999-12-31 23:59:59.999999",
        "0000-01-01",
        "ä",
    ]);
    let number = prop::sample::select(vec![
        "0",
        "1",
        "2",
        "-1",
        "5",
        "0.5",
        "-0.25",
        "1595022976",
        "1595022976.5",
        "1595022976000",
        "4102444800",
        "2459048.41407407",
        "2459048",
        "1e300",
        "123456789012",
        "-62167219200",
        "253402300800",
        "78976",
        "1e8",
    ]);
    let bytes =
        prop::sample::select(vec!["x''", "x'414243'", "x'a0eebc999c0b4ef8bb6d6bb9bd380a11'", "x'ff00'", "x'74727565'"]);
    prop_oneof![
        5 => moment.prop_map(text),
        5 => word.prop_map(move |word: &str| format!("'{word}'")),
        3 => number.prop_map(str::to_owned),
        1 => (-80_000..80_000).prop_map(|eighths| (f64::from(eighths) / 8.0).to_string()),
        1 => "[a-c]{0,2}".prop_map(text),
        1 => bytes.prop_map(str::to_owned),
        1 => Just("NULL".to_owned()),
    ]
}

/// A table with a column of each declaration, one of them strict, and a view of expressions on them.
pub async fn filled() -> Db {
    let db = sqlite().await;
    let columns = |with_type: bool| {
        let column = |(index, declared): (usize, &&str)| format!("c{index} {}", if with_type { declared } else { "" });
        DECLARED.iter().enumerate().map(column).collect::<Vec<_>>().join(", ")
    };
    db.execute(&format!("CREATE TABLE loose (id INTEGER PRIMARY KEY, {})", columns(true))).await;
    db.execute("CREATE TABLE strict_any (id INTEGER PRIMARY KEY, c0 ANY) STRICT").await;
    db.execute(
        "CREATE VIEW shown AS SELECT id, c0, iif(typeof(c0) = 'blob', NULL, c0 || '') AS c1, c5, max(c5, c5) AS c2, c12 * 1 AS c3, coalesce(c3, 2) AS c4 \
         FROM loose UNION ALL SELECT id + 1000, 7, 'seven', 7, 7, 'seven', 'seven' FROM loose WHERE id = 1",
    )
    .await;
    let (mut runner, stored) = (TestRunner::default(), stored());
    for id in 1..=ROWS {
        let mut value = || stored.new_tree(&mut runner).unwrap().current();
        let values: Vec<String> = DECLARED.iter().map(|_| value()).collect();
        db.execute(&format!("INSERT INTO loose VALUES ({id}, {})", values.join(", "))).await;
        db.execute(&format!("INSERT INTO strict_any VALUES ({id}, {})", value())).await;
    }
    assert!(db.database.refresh().await.unwrap());
    db
}

async fn ids(db: &Db, table: &str, find: Json) -> Result<HashSet<i64>, Error> {
    let rows = db.read(table, json!({"select": ["id"], "find": find})).await?;
    Ok(rows.as_array().unwrap().iter().map(|row| row["id"].as_i64().unwrap()).collect())
}

/// Which values are equal.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Equality {
    /// Those that are read alike. What is not read as a value of the column's type cannot be asked for.
    AsRead,
    /// Those that the type of the column says, some of which are written otherwise: `1.0` and `1.00`.
    OfType,
}

/// Checks all values of a column; how many of them can be compared.
async fn check(db: &Db, table: &str, column: &str, equality: Equality) -> usize {
    let sorted = db.read(table, json!({"select": ["id", column], "sort": [column]})).await.unwrap();
    let rows: Vec<(i64, &Json)> =
        sorted.as_array().unwrap().iter().map(|row| (row["id"].as_i64().unwrap(), &row[column])).collect();
    let place = |id: &i64| rows.iter().position(|(known, _)| known == id).unwrap();
    let bytes = bytes(db, table, column).await;
    let mut known = HashMap::new();
    let mut compared = 0;
    for (id, value) in rows.iter().filter(|(id, value)| !value.is_null() && !bytes.contains(id)) {
        let context = format!("{table}.{column} of {id}: {value}");
        if let Some(same) = known.get(&value.to_string()) {
            let same: &HashSet<i64> = same;
            assert!(same.contains(id), "{context} is not found by what is read");
            compared += 1;
            continue;
        }
        let same = match (ids(db, table, json!({ (column): value })).await, equality) {
            (Ok(same), _) => same,
            (Err(_), Equality::AsRead) => continue,
            (Err(error), Equality::OfType) => panic!("{context}: {error:?}"),
        };
        assert!(same.contains(id), "{context} is not found by what is read");
        compared += 1;
        let read_alike = same.iter().filter(|id| rows[place(id)].1 == *value).count();
        let is_read_alike = equality == Equality::OfType || read_alike == same.len();
        assert!(is_read_alike, "{context} is found by what is read otherwise");
        assert_eq!(ids(db, table, json!({ (column): {"$in": [value]} })).await, Ok(same.clone()), "{context}");
        known.insert(value.to_string(), same.clone());
        let less = ids(db, table, json!({ (column): {"$lt": value} })).await.unwrap();
        let greater = ids(db, table, json!({ (column): {"$gt": value} })).await.unwrap();
        let other = ids(db, table, json!({"$and": [{ (column): {"$ne": value} }, { (column): {"$isNull": false} }]}));
        assert!(less.is_disjoint(&greater) && less.is_disjoint(&same) && greater.is_disjoint(&same), "{context}");
        let other = other.await.unwrap();
        assert_eq!(&other - &bytes, &(&less | &greater) - &bytes, "{context}");
        let texts = |ids: &HashSet<i64>| (ids - &bytes).iter().map(place).collect::<Vec<_>>();
        let last = |ids: &HashSet<i64>| texts(ids).into_iter().max();
        let first = |ids: &HashSet<i64>| texts(ids).into_iter().min().unwrap_or(usize::MAX);
        assert!(
            last(&less) < Some(first(&same)) && last(&same) < Some(first(&greater)),
            "{context} is sorted elsewhere"
        );
        let not_greater = ids(db, table, json!({ (column): {"$lte": value} })).await.unwrap();
        assert_eq!(&not_greater - &bytes, &(&less | &same) - &bytes, "{context}");
        let not_less = ids(db, table, json!({ (column): {"$gte": value} })).await.unwrap();
        assert_eq!(&not_less - &bytes, &(&greater | &same) - &bytes, "{context}");
        let compared: HashSet<i64> = &(&less | &same) | &greater;
        for (condition, passing) in [
            (json!(value), &same),
            (json!({"$in": [value]}), &same),
            (json!({"$lt": value}), &less),
            (json!({"$gt": value}), &greater),
            (json!({"$lte": value}), &not_greater),
            (json!({"$gte": value}), &not_less),
        ] {
            let others = ids(db, table, json!({"$not": { (column): condition }})).await.unwrap();
            assert_eq!(&others - &bytes, &(&compared - passing) - &bytes, "{context}: not {condition}");
        }
    }
    compared
}

/// Rows that hold bytes in a column of other values: they are shown as base64, and have no order with texts.
async fn bytes(db: &Db, table: &str, column: &str) -> HashSet<i64> {
    let known = db.schema();
    if known.dialect != Dialect::Sqlite {
        return HashSet::new();
    }
    if !matches!(known.schema.table(table).unwrap().column(column).unwrap().r#type, Type::Any | Type::Text) {
        return HashSet::new();
    }
    let statement = Statement {
        text: format!("SELECT id FROM {table} WHERE typeof({column}) = 'blob'").into(),
        args: Vec::new(),
        columns: [Type::Int64.into()].into(),
        sources: Vec::new(),
        plain: None,
    };
    let rows = &db.database.store().snapshot(&[statement], &Budget::unlimited()).await.unwrap()[0];
    let id = |row| match rows.cell(row, 0) {
        Cell::Int(id) => id,
        other => panic!("{other:?}"),
    };
    (0..rows.len()).map(id).collect()
}

/// How SQLite runs a read of `column`, whose values are compared as they are read: the details of its plan.
async fn plan(db: &Db, find: Json) -> String {
    let known = db.schema();
    let read = read(&known.schema, "moment", &json!({"select": ["id"], "find": find})).unwrap();
    let mut statement = selected(db, &Dialect::Sqlite, &read).unwrap().remove(0);
    statement.text = format!("EXPLAIN QUERY PLAN {}", statement.text).into();
    statement.columns = [Type::Int64.into(), Type::Int64.into(), Type::Int64.into(), Type::Text.into()].into();
    statement.plain = None;
    let rows = &db.database.store().snapshot(&[statement], &Budget::unlimited()).await.unwrap()[0];
    (0..rows.len()).filter_map(|row| rows.cell(row, 3).text()).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn comparisons_find_the_ends_of_their_ranges_in_an_index() {
    let db = sqlite().await;
    db.execute("CREATE TABLE moment (id INTEGER PRIMARY KEY, at DATETIME, d DATE, k INT, c TEXT, v)").await;
    for column in ["at", "d", "k", "c", "v"] {
        db.execute(&format!("CREATE INDEX moment_{column} ON moment ({column})")).await;
    }
    assert!(db.database.refresh().await.unwrap());
    for (column, low, high) in
        [("at", "2020-07-17T21:56:16Z", "2020-07-18T21:56:16Z"), ("d", "2020-07-17", "2020-07-18")]
    {
        let both = format!("({column}>? AND {column}<?)");
        for find in [json!({ (column): low }), json!({ (column): {"$gte": low, "$lt": high} })] {
            let plan = plan(&db, find.clone()).await;
            assert_eq!(plan.matches(&both).count(), 3, "{find}: {plan}");
        }
        for find in [
            json!({ (column): {"$lt": low} }),
            json!({"$or": [{ (column): {"$lt": low} }, { (column): {"$gt": high} }]}),
            json!({"$and": [{"id": 5}, { (column): {"$gt": high} }]}),
        ] {
            let plan = plan(&db, find.clone()).await;
            assert!(!plan.contains("SCAN moment"), "{find}: {plan}");
        }
    }
    for (column, low, high) in [("k", json!(5), json!(9)), ("c", json!("a"), json!("b")), ("v", json!(5), json!(9))] {
        let plan = plan(&db, json!({ (column): {"$gte": low, "$lt": high} })).await;
        assert!(plan.contains(&format!("({column}>? AND {column}<?)")), "{plan}");
    }
}

#[tokio::test]
async fn what_is_read_is_found_and_sorted_as_it_is_compared() {
    let db = filled().await;
    assert_eq!(db.schema().dialect, Dialect::Sqlite);
    let mut compared = 0;
    for (index, declared) in DECLARED.iter().enumerate() {
        let of_column = check(&db, "loose", &format!("c{index}"), Equality::AsRead).await;
        assert!(of_column > 0, "{declared} has {of_column} values of its type");
        compared += of_column;
    }
    compared += check(&db, "strict_any", "c0", Equality::AsRead).await;
    for column in ["c0", "c1", "c2", "c3", "c4", "c5"] {
        compared += check(&db, "shown", column, Equality::AsRead).await;
    }
    assert!(compared >= 2000, "only {compared} values");
}
