//! A relation finds what the database joins, whatever the types and collations of its keys.

use std::collections::BTreeMap;

use proptest::{prelude::*, sample::select, strategy::ValueTree, test_runner::TestRunner};
use query::{Field, FieldKind, Node, Shape, Type};
use serde_json::{Value as Json, json};

use super::support::{Db, engines, read, sqlite};
use crate::{budget::Budget, cell::Cell, sql::Dialect, store::Statement};

mod mysql;

/// Rows of each table of a pair. Their number times that of the pairs is twice the number of values.
const ROWS: i64 = 45;

/// Two tables, `p…` and `c…`, whose columns `k0`, `k1`… are joined by a foreign key of the second.
struct Pair {
    /// Declarations of the columns of the first.
    parent: Vec<&'static str>,
    /// Of those of the second.
    child: Vec<&'static str>,
    /// What the database compares with `p."k"`, of `c."k"`.
    cast: &'static str,
}

/// Pairs of ids of the two tables' rows that the database joins, by the child's and by the parent's.
struct Joined {
    parents: BTreeMap<i64, Vec<i64>>,
    children: BTreeMap<i64, Vec<i64>>,
}

const SQLITE: [&str; 17] = [
    "INTEGER",
    "INT8",
    "TEXT",
    "VARCHAR(9)",
    "TEXT COLLATE NOCASE",
    "TEXT COLLATE RTRIM",
    "",
    "COLLATE NOCASE",
    "BLOB",
    "REAL",
    "NUMERIC COLLATE NOCASE",
    "DECIMAL(10,2)",
    "DATE",
    "DATETIME",
    "BOOLEAN",
    "UUID",
    "ANY",
];

/// Literals that some database takes for equal, several times each.
const SQLITE_VALUES: [&str; 38] = [
    "'a'",
    "'A'",
    "'a '",
    "'A  '",
    "'\u{e4}'",
    "''",
    "' '",
    "5",
    "5.0",
    "'5'",
    "'5.0'",
    "'05'",
    "' 5'",
    "'5e0'",
    "x'35'",
    "0",
    "0.0",
    "'0'",
    "'-0'",
    "0.5",
    "'.5'",
    "'0.50'",
    "9007199254740993",
    "9007199254740992.0",
    "'9007199254740992'",
    "9223372036854775807",
    "9223372036854775808.0",
    "1e300",
    "x'61'",
    "x'ff'",
    "CAST(x'ff' AS TEXT)",
    "CAST(x'fe' AS TEXT)",
    "CAST(x'610062' AS TEXT)",
    "'2020-07-17'",
    "'2020-07-17 00:00:00'",
    "1594944000",
    "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
    "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'",
];

const TEXTS: &[&str] =
    &["a", "A", "a ", "A  ", "\u{e4}", "\u{c4}", "a\u{308}", "", " ", "ab", "aB", "abc", "de", "DE "];
const NUMBERS: &[&str] = &["0", "1", "-1", "5", "7", "100", "32767", "42"];
const DECIMALS: &[&str] =
    &["0", "0.0", "1", "1.0", "1.00", "-1.5", "-1.50", "0.1", "100", "1e2", "16777217", "0.3", "NaN"];
const DOUBLES: &[&str] =
    &["0", "-0", "1", "0.1", "0.10000000149011612", "0.3", "16777216", "16777217", "1e30", "NaN", "Infinity", "-5"];
const MOMENTS: &[&str] = &[
    "2024-01-01",
    "2024-01-01 00:00:00",
    "2024-01-01 12:00:00.5",
    "2024-02-29",
    "1999-12-31 23:59:59",
    "infinity",
    "2024-01-02",
];
const INTERVALS: &[&str] =
    &["1 day", "24 hours", "1440 minutes", "1 mon", "30 days", "720:00:00", "1 year", "12 mons", "0"];
const JSONS: &[&str] = &["1", "1.0", "1.00", "\"a\"", "[1, 2]", "[1.0,2]", "{\"a\": 1}", "{\"a\":1.0}", "null", "true"];

/// Types of PostgreSQL, what a foreign key casts the second to, and texts of their values.
fn postgres_pairs() -> Vec<(Pair, &'static [&'static str])> {
    let one = |parent, child, cast, values| (Pair { parent: vec![parent], child: vec![child], cast }, values);
    vec![
        one("char(3)", "varchar(5)", "", TEXTS),
        one("char(3)", "text", "::bpchar", TEXTS),
        one("char(3)", "char(3)", "", TEXTS),
        one("char(5)", "char(3)", "", TEXTS),
        one("bpchar", "varchar", "", TEXTS),
        one("bpchar", "bpchar", "", TEXTS),
        one("text", "char(4)", "", TEXTS),
        one("text", "varchar(5)", "", TEXTS),
        one("text", "name", "", TEXTS),
        one("citext", "citext", "", TEXTS),
        one("text", "citext", "", TEXTS),
        one("{s}words", "{s}words", "", TEXTS),
        one("text COLLATE {s}nocase", "text COLLATE {s}nocase", "", TEXTS),
        one("text COLLATE {s}nocase", "varchar COLLATE \"C\"", " COLLATE {s}nocase", TEXTS),
        one("text COLLATE {s}nocase", "text", "", TEXTS),
        one("text COLLATE \"C\"", "text COLLATE {s}nocase", " COLLATE \"C\"", TEXTS),
        one("text", "text COLLATE \"C\"", "", TEXTS),
        one("char(3) COLLATE {s}nocase", "text", "::bpchar", TEXTS),
        one("bigint", "smallint", "", NUMBERS),
        one("numeric", "bigint", "", NUMBERS),
        one("float8", "int", "", NUMBERS),
        one("numeric", "numeric", "", DECIMALS),
        one("numeric(12,2)", "numeric", "", DECIMALS),
        one("float8", "float4", "", DOUBLES),
        one("float4", "float8", "", DOUBLES),
        one("float4", "float4", "", DOUBLES),
        one("float8", "numeric", "", &["0", "1.0", "1.00", "0.1", "0.3", "16777217"]),
        one("timestamp", "date", "", MOMENTS),
        one("date", "timestamp", "", MOMENTS),
        one("timestamptz", "timestamp", "", MOMENTS),
        one("timestamptz", "date", "", MOMENTS),
        one("interval", "interval", "", INTERVALS),
        one("jsonb", "jsonb", "", JSONS),
        one("numeric[]", "numeric[]", "", &["{1}", "{1.0}", "{1.00,2}", "{1,2}", "{}", "{{1,2}}", "{{1.0,2}}"]),
        one("text[]", "text[]", "", &["{a}", "{A}", "{a,b}", "{{a,b}}", "{}", "{\"a\\\"b,\",NULL}"]),
        one("{s}pair", "{s}pair", "", &["(1,a)", "(1.0,a)", "(1.00,a)", "(2,a)", "(1,A)"]),
        one("inet", "inet", "", &["10.0.0.1", "10.0.0.1/32", "10.0.0.1/8", "::1"]),
        one("uuid", "uuid", "", &["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]),
        one("bytea", "bytea", "", &["\\x", "\\x00", "\\xff00"]),
        (Pair { parent: vec!["citext", "numeric"], child: vec!["citext", "int"], cast: "" }, NUMBERS),
        (Pair { parent: vec!["int", "char(4)"], child: vec!["smallint", "varchar"], cast: "" }, NUMBERS),
        (Pair { parent: vec!["int", "text"], child: vec!["int", "varchar"], cast: "" }, NUMBERS),
    ]
}

impl Pair {
    /// The statements that make its tables.
    fn tables(&self, index: usize, prefix: &str, engine_id: &str) -> [String; 2] {
        let keys: Vec<String> = (0..self.parent.len()).map(|index| format!("k{index}")).collect();
        let columns = |declared: &[&str]| {
            let column = |(key, declared): (&String, &&str)| format!("{key} {}", declared.replace("{s}", prefix));
            keys.iter().zip(declared).map(column).collect::<Vec<_>>().join(", ")
        };
        let (parent, child, keys) = (columns(&self.parent), columns(&self.child), keys.join(", "));
        [
            format!("CREATE TABLE {prefix}p{index} (id {engine_id}, {parent}, n INTEGER, UNIQUE ({keys}))"),
            format!(
                "CREATE TABLE {prefix}c{index} (id {engine_id}, {child}, n INTEGER, \
                 FOREIGN KEY ({keys}) REFERENCES {prefix}p{index} ({keys}))"
            ),
        ]
    }

    /// The pairs that the database joins; the parent's collation decides.
    async fn joined(&self, db: &Db, index: usize) -> Joined {
        let prefix = db.prefix();
        let cast = self.cast.replace("{s}", &prefix);
        let on: Vec<String> = (0..self.parent.len()).map(|key| format!("p.k{key} = c.k{key}{cast}")).collect();
        let int = if db.schema().dialect == Dialect::Mysql { "SIGNED" } else { "BIGINT" };
        let sql = format!(
            "SELECT CAST(c.id AS {int}), CAST(p.id AS {int}) FROM {prefix}p{index} AS p JOIN {prefix}c{index} AS c \
             ON {} ORDER BY c.id, p.id",
            on.join(" AND ")
        );
        let (mut parents, mut children) = (BTreeMap::<_, Vec<_>>::new(), BTreeMap::<_, Vec<_>>::new());
        for (child, parent) in numbers(db, &sql).await {
            parents.entry(child).or_default().push(parent);
            children.entry(parent).or_default().push(child);
        }
        children.values_mut().for_each(|children| children.sort_unstable());
        Joined { parents, children }
    }
}

/// Two columns of numbers.
pub async fn numbers(db: &Db, sql: &str) -> Vec<(i64, i64)> {
    let statement = Statement {
        text: sql.into(),
        args: Vec::new(),
        columns: [Type::Int64.into(), Type::Int64.into()].into(),
        sources: Vec::new(),
        plain: None,
    };
    let rows = &db.database.store().snapshot(&[statement], &Budget::unlimited()).await.unwrap()[0];
    let number = |row, column| match rows.cell(row, column) {
        Cell::Int(number) => number,
        other => panic!("{other:?}"),
    };
    (0..rows.len()).map(|row| (number(row, 0), number(row, 1))).collect()
}

pub fn ids(rows: &[i64]) -> Json {
    rows.iter().map(|id| json!({ "id": id })).collect()
}

fn first(rows: Option<&Vec<i64>>) -> Json {
    rows.map_or(Json::Null, |rows| json!({"id": rows[0]}))
}

/// What a read of the whole table gives, by id.
async fn rows(db: &Db, table: &str, select: Json) -> BTreeMap<i64, Json> {
    by_id(&db.read(table, json!({"select": select, "sort": ["id"]})).await.unwrap())
}

pub fn by_id(rows: &Json) -> BTreeMap<i64, Json> {
    rows.as_array().unwrap().iter().map(|row| (row["id"].as_i64().unwrap(), row.clone())).collect()
}

/// Compares reads in both directions with what the database joins.
async fn check_reads(db: &Db, index: usize, context: &str, joined: &Joined) {
    let (p, c) = (format!("p{index}"), format!("c{index}"));
    let known = db.schema();
    let none = Vec::new();

    let up = json!({"id": 1, (&p): {"select": {"id": 1, (&c): {"select": ["id"], "sort": ["id"]}}}});
    for (id, row) in rows(db, &c, up).await {
        let parents = joined.parents.get(&id);
        assert_eq!(row[&p]["id"], first(parents)["id"], "{context}: the parent of {id}");
        let siblings = parents.map_or(Json::Null, |parents| ids(&joined.children[&parents[0]]));
        assert_eq!(row[&p][&c], siblings, "{context}: the siblings of {id}");
    }

    let page = json!({"select": ["id"], "sort": ["-id"], "skip": 1, "limit": 2});
    let down = json!({"id": 1, (&c): {"select": {"id": 1, (&p): {"select": ["id"]}}, "sort": ["id"]}});
    let pages = rows(db, &p, json!({"id": 1, (&c): page})).await;
    for (id, row) in rows(db, &p, down).await {
        let children = joined.children.get(&id).unwrap_or(&none);
        let expected: Json = children.iter().map(|id| json!({"id": id, (&p): first(joined.parents.get(id))})).collect();
        assert_eq!(row[&c], expected, "{context}: the children of {id}");
        let last: Vec<i64> = children.iter().rev().skip(1).take(2).copied().collect();
        assert_eq!(pages[&id][&c], ids(&last), "{context}: a page of the children of {id}");
    }
    // Below a page of rows, and below a page of what is below them.
    let below = json!({"id": 1, (&c): {"select": {"id": 1, (&p): {"select": ["id"]}}, "sort": ["id"], "limit": 1}});
    let some = json!({"select": below, "sort": ["-id"], "limit": 7});
    for (id, row) in by_id(&db.read(&p, some).await.unwrap()) {
        let expected: Json = joined.children.get(&id).unwrap_or(&none)[..]
            .iter()
            .take(1)
            .map(|id| json!({"id": id, (&p): first(joined.parents.get(id))}))
            .collect();
        assert_eq!(row[&c], expected, "{context}: the first child of {id}");
    }

    let mut counts = read(&known.schema, &p, &json!({"select": ["id"], "sort": ["id"]})).unwrap();
    let kind = FieldKind::Relation { name: c.clone(), node: Node::new(Shape::Count, Vec::new()) };
    counts.node.fields = counts.node.fields.iter().cloned().chain([Field { key: "count".to_owned(), kind }]).collect();
    let answer = db.answers(&[counts]).await.unwrap().remove(0);
    for (id, row) in by_id(&serde_json::from_slice(&answer.json).unwrap()) {
        let count = joined.children.get(&id).map_or(0, Vec::len);
        assert_eq!(row["count"], json!(count), "{context}: the number of children of {id}");
    }

    // A page of rows of which no column is asked.
    let mut named = Node::new(Shape::Many, vec![Field { key: "is".to_owned(), kind: FieldKind::Constant(c.clone()) }]);
    named.limit = Some(1);
    let mut firsts = read(&known.schema, &p, &json!({"select": ["id"]})).unwrap();
    let relation = Field { key: "first".to_owned(), kind: FieldKind::Relation { name: c.clone(), node: named } };
    firsts.node.fields = firsts.node.fields.iter().cloned().chain([relation]).collect();
    let answer = db.answers(&[firsts]).await.unwrap().remove(0);
    for (id, row) in by_id(&serde_json::from_slice(&answer.json).unwrap()) {
        let expected: Json = joined.children.get(&id).map_or(json!([]), |_| json!([{"is": c}]));
        assert_eq!(row["first"], expected, "{context}: whether {id} has a child");
    }

    let has_parent = json!({"find": {(&p): {"id": {"$gt": 0}}}, "select": ["id"], "sort": ["id"]});
    let found = db.read(&c, has_parent).await.unwrap();
    assert_eq!(found, ids(&Vec::from_iter(joined.parents.keys().copied())), "{context}: children with a parent");
}

/// Compares what mutations return with what the database joins. Nothing is left of the children.
async fn check_writes(db: &Db, index: usize, context: &str, joined: &Joined) {
    let (p, c) = (format!("p{index}"), format!("c{index}"));
    let none = Vec::new();
    let all = || json!({"id": {"$gt": 0}});
    let up = json!({"id": 1, (&p): {"select": {"id": 1, (&c): {"select": ["id"], "sort": ["id"]}}}});
    let down = json!({"id": 1, (&c): {"select": {"id": 1, (&p): {"select": ["id"]}}, "sort": ["-id"], "limit": 2}});
    let check = |rows: &Json, what: &str| {
        for (id, row) in by_id(rows) {
            let parents = joined.parents.get(&id);
            assert_eq!(row[&p]["id"], first(parents)["id"], "{context}: the parent of {id} that was {what}");
            let siblings = parents.map_or(Json::Null, |parents| ids(&joined.children[&parents[0]]));
            assert_eq!(row[&p][&c], siblings, "{context}: the siblings of {id} that was {what}");
        }
    };
    let set = json!({"$set": {"n": 1}});
    let (_, parents) = db.mutate(db.update(&p, all(), set.clone(), Some(down))).await.unwrap();
    for (id, row) in by_id(&parents) {
        let children = joined.children.get(&id).unwrap_or(&none).iter().rev().take(2);
        let expected: Json = children.map(|id| json!({"id": id, (&p): first(joined.parents.get(id))})).collect();
        assert_eq!(row[&c], expected, "{context}: the children of {id}, which was changed");
    }
    let (_, children) = db.mutate(db.update(&c, all(), set, Some(up.clone()))).await.unwrap();
    check(&children, "changed");
    let (_, children) = db.mutate(db.delete(&c, all(), Some(up))).await.unwrap();
    check(&children, "deleted");
}

/// Pairs of columns of SQLite: each declaration with some others.
fn sqlite_pairs(runner: &mut TestRunner) -> Vec<Pair> {
    let mut pick = || select(&SQLITE[..]).new_tree(runner).unwrap().current();
    let mut pairs = Vec::new();
    for declared in SQLITE {
        pairs.push(Pair { parent: vec![declared], child: vec![declared], cast: "" });
        pairs.push(Pair { parent: vec![declared], child: vec![pick()], cast: "" });
        pairs.push(Pair { parent: vec![pick(), declared], child: vec![pick(), pick()], cast: "" });
    }
    pairs
}

#[tokio::test]
async fn a_relation_is_the_join_that_sqlite_makes() {
    let db = sqlite().await;
    let mut runner = TestRunner::default();
    let pairs = sqlite_pairs(&mut runner);
    // Other programs store keys that refer to nothing.
    let stranger = rusqlite::Connection::open(db.file()).unwrap();
    stranger.execute_batch("PRAGMA foreign_keys = OFF; BEGIN").unwrap();
    let value = prop_oneof![20 => select(&SQLITE_VALUES[..]), 1 => Just("NULL")];
    for (index, pair) in pairs.iter().enumerate() {
        pair.tables(index, "", "INTEGER PRIMARY KEY").iter().for_each(|sql| stranger.execute_batch(sql).unwrap());
        for id in 1..=ROWS {
            for table in ["p", "c"] {
                let key: Vec<&str> =
                    pair.parent.iter().map(|_| value.new_tree(&mut runner).unwrap().current()).collect();
                let sql = format!("INSERT OR IGNORE INTO {table}{index} VALUES ({id}, {}, 0)", key.join(", "));
                stranger.execute_batch(&sql).unwrap();
            }
        }
    }
    stranger.execute_batch("COMMIT").unwrap();
    drop(stranger);
    assert!(db.database.refresh().await.unwrap());
    let mut found = 0;
    for (index, pair) in pairs.iter().enumerate() {
        let context = format!("{:?} <- {:?}", pair.parent, pair.child);
        let joined = pair.joined(&db, index).await;
        found += joined.parents.len();
        check_reads(&db, index, &context, &joined).await;
        check_writes(&db, index, &context, &joined).await;
    }
    assert!(found >= 400 && pairs.len() as i64 * ROWS >= 2000, "{found} keys of {} pairs", pairs.len());
}

#[tokio::test]
async fn a_relation_to_a_view_of_sqlite_is_the_join_that_it_makes() {
    let db = sqlite().await;
    let stranger = rusqlite::Connection::open(db.file()).unwrap();
    stranger
        .execute_batch(
            "PRAGMA foreign_keys = OFF; CREATE TABLE base (id INTEGER PRIMARY KEY, v);
             INSERT INTO base VALUES (1, '5'), (2, 6), (3, 'a'), (4, 'A'), (5, x'61');
             CREATE VIEW p0 AS SELECT id, v || '' AS k0, 0 AS n FROM base;
             CREATE TABLE c0 (id INTEGER PRIMARY KEY, k0 INTEGER, n INTEGER, FOREIGN KEY (k0) REFERENCES p0 (k0));
             INSERT INTO c0 VALUES (1, 5, 0), (2, '6', 0), (3, 'a', 0), (4, NULL, 0), (5, 7, 0);
             CREATE VIEW p1 AS SELECT id, v AS k0, 0 AS n FROM base;
             CREATE TABLE c1 (id INTEGER PRIMARY KEY, k0 TEXT COLLATE NOCASE, n INTEGER,
                 FOREIGN KEY (k0) REFERENCES p1 (k0));
             INSERT INTO c1 VALUES (1, 5, 0), (2, '6', 0), (3, 'a', 0), (4, NULL, 0), (5, 'A', 0);",
        )
        .unwrap();
    drop(stranger);
    assert!(db.database.refresh().await.unwrap());
    for index in 0..2 {
        let joined = Pair { parent: vec![""], child: vec![""], cast: "" }.joined(&db, index).await;
        assert!(joined.parents.len() >= 3);
        check_reads(&db, index, "a view", &joined).await;
    }
}

/// Adds rows whose keys the database takes.
async fn fill(db: &Db, index: usize, pair: &Pair, values: &'static [&'static str], runner: &mut TestRunner) {
    let prefix = db.prefix();
    let value = prop_oneof![20 => select(values).prop_map(|text| format!("'{text}'")), 1 => Just("NULL".to_owned())];
    let mut inserts = String::new();
    for (table, declared) in [("p", &pair.parent), ("c", &pair.child)] {
        for id in 1..=ROWS {
            let key = declared.iter().map(|declared| {
                let r#type = declared.split(" COLLATE").next().unwrap().replace("{s}", &prefix);
                format!("{}::{type}", value.new_tree(runner).unwrap().current())
            });
            let key = key.collect::<Vec<_>>().join(", ");
            inserts.push_str(&format!(
                "BEGIN INSERT INTO {prefix}{table}{index} VALUES ({id}, {key}, 0); EXCEPTION WHEN \
                 integrity_constraint_violation OR data_exception THEN NULL; END;\n"
            ));
        }
    }
    db.execute(&format!("DO $do$ BEGIN\n{inserts}END $do$")).await;
}

#[tokio::test]
async fn a_relation_is_the_join_that_postgres_makes() {
    let engines = engines().await;
    let Some(db) = engines.iter().find(|db| matches!(db.schema().dialect, Dialect::Postgres { .. })) else { return };
    let prefix = db.prefix();
    for sql in [
        "CREATE EXTENSION IF NOT EXISTS citext WITH SCHEMA public".to_owned(),
        format!("CREATE COLLATION {prefix}nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"),
        format!("CREATE DOMAIN {prefix}words AS citext"),
        format!("CREATE TYPE {prefix}pair AS (n numeric, t text)"),
    ] {
        db.execute(&sql).await;
    }
    let mut runner = TestRunner::default();
    let pairs = postgres_pairs();
    for (index, (pair, values)) in pairs.iter().enumerate() {
        for sql in pair.tables(index, &prefix, "INTEGER PRIMARY KEY") {
            db.execute(&sql).await;
        }
        fill(db, index, pair, values, &mut runner).await;
    }
    assert!(db.database.refresh().await.unwrap());
    let mut found = 0;
    for (index, (pair, _)) in pairs.iter().enumerate() {
        let context = format!("{:?} <- {:?}", pair.parent, pair.child);
        let joined = pair.joined(db, index).await;
        found += joined.parents.len();
        let keys: Vec<String> = (0..pair.child.len()).map(|key| format!("k{key}")).collect();
        let with_key = keys.join(" IS NOT NULL AND ");
        let sql =
            format!("SELECT id::bigint, 0::bigint FROM {prefix}c{index} WHERE {with_key} IS NOT NULL ORDER BY id");
        let referring: Vec<i64> = numbers(db, &sql).await.into_iter().map(|(id, _)| id).collect();
        assert_eq!(referring, Vec::from_iter(joined.parents.keys().copied()), "{context}: the foreign key finds");
        check_reads(db, index, &context, &joined).await;
        check_inserts(db, index, &keys, &context, &joined).await;
        check_writes(db, index, &context, &joined).await;
    }
    assert!(found >= 500 && pairs.len() as i64 * ROWS * 2 >= 2000, "{found} keys of {} pairs", pairs.len());
}

/// Inserts the children that are there once more, with other ids, and deletes them again.
async fn check_inserts(db: &Db, index: usize, keys: &[String], context: &str, joined: &Joined) {
    let (p, c) = (format!("p{index}"), format!("c{index}"));
    let select: Vec<&str> = keys.iter().map(String::as_str).chain(["id"]).collect();
    let rows = db.read(&c, json!({"select": select, "sort": ["id"]})).await.unwrap();
    let mut docs = rows.clone();
    let docs_of = docs.as_array_mut().unwrap();
    // JSON's null is one of the values of a column of JSON, but none that can be sent.
    docs_of.retain(|doc| doc["k0"] != json!("infinity") && !doc["k0"].is_null());
    docs_of.iter_mut().for_each(|doc| doc["id"] = json!(doc["id"].as_i64().unwrap() + 1000));
    let returning = json!({"id": 1, (&p): {"select": ["id"]}});
    let (_, inserted) = db.mutate(db.insert(&c, docs, Some(returning))).await.unwrap();
    for (id, row) in by_id(&inserted) {
        assert_eq!(row[&p], first(joined.parents.get(&(id - 1000))), "{context}: the parent of {id}, inserted");
    }
    db.mutate(db.delete(&c, json!({"id": {"$gt": 1000}}), None)).await.unwrap();
}
