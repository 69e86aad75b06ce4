//! Every type of PostgreSQL: what is read is found, sorted as it is compared, and can be written.

use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use query::{
    Comparisons, Error as Unfit,
    resources::{ChangesSource, Numbers},
};
use serde_json::{Value as Json, json};

use super::{Equality, check, ids};
use crate::{
    Error,
    budget::Budget,
    sql::Dialect,
    store::Statement,
    tests::support::{Db, engines},
};

/// Types and literals of their values.
const TYPES: [(&str, &[&str]); 88] = [
    ("bool", &["true", "false"]),
    ("bytea", &["", "\\x00ff", "\\x00", "\\x414243"]),
    ("\"char\"", &["a", "b", "Z"]),
    ("name", &["a", "B", "pg_class", ""]),
    ("int8", &["0", "-9223372036854775808", "9223372036854775807", "9007199254740993"]),
    ("int2", &["0", "-32768", "32767"]),
    ("int2vector", &["1 2", "", "3"]),
    ("int4", &["0", "-2147483648", "2147483647"]),
    ("regproc", &["now", "pg_client_encoding"]),
    ("text", &["", "a", "B", "naïve \"x\" \\\\ {y,z}", "NULL", "null", " ", "1.0", "infinity"]),
    ("oid", &["0", "4294967295", "16384"]),
    ("tid", &["(0,1)", "(1,0)", "(0,12)"]),
    ("xid", &["0", "4294967295", "7"]),
    ("cid", &["0", "7"]),
    ("oidvector", &["1 2", "", "4294967295"]),
    ("json", &["{\"a\": [1, null]}", "[[1,2],[3]]", "1", "\"x\""]),
    ("xml", &["<a>1</a>", "x", "<b/>"]),
    ("point", &["(1,2)", "(NaN,Infinity)", "(0.1,-1e300)"]),
    ("lseg", &["[(1,2),(3,4)]", "[(0,0),(0,0)]"]),
    ("path", &["((1,2),(3,4))", "[(1,2),(3,4)]", "[(0,0)]"]),
    ("box", &["(3,4),(1,2)", "(1,1),(0,0)"]),
    ("polygon", &["((1,2),(3,4),(5,6))", "((0,0))"]),
    ("line", &["{1,2,3}", "{1,-1,0}"]),
    ("circle", &["<(1,2),3>", "<(0,0),0.5>"]),
    ("float4", &["0", "0.1", "-1.5", "NaN", "Infinity", "-Infinity", "3.4028235e38", "16777217", "1e-40"]),
    ("float8", &["0", "0.1", "NaN", "Infinity", "-Infinity", "1e300", "5e-324", "9007199254740993"]),
    ("money", &["0", "-12.34", "92233720368547758.07"]),
    ("macaddr", &["08:00:2b:01:02:03", "ff:ff:ff:ff:ff:ff"]),
    ("macaddr8", &["08:00:2b:01:02:03:04:05", "00:00:00:00:00:00:00:00"]),
    (
        "inet",
        &[
            "10.0.0.1",
            "10.0.0.1/8",
            "10.0.0.0/8",
            "0.0.0.0",
            "::1",
            "::",
            "::2",
            "::1.2.3.4",
            "::ffff:1.2.3.4",
            "2001:db8::/32",
            "1:0:0:2:0:0:0:3",
            "1:0:2:3:4:5:6:7",
            "::1:0",
            "fe80::1/64",
            "0:1::/16",
            "::0.1.0.0",
        ],
    ),
    ("cidr", &["10.0.0.0/8", "10.0.0.1/32", "2001:db8::/32", "::1/128"]),
    ("char(4)", &["ab", "abcd", ""]),
    ("bpchar", &["ab ", "b"]),
    ("varchar(9)", &["ab", "AB ", ""]),
    (
        "date",
        &[
            "infinity",
            "-infinity",
            "4714-11-24 BC",
            "5874897-12-31",
            "0001-12-31 BC",
            "0001-01-01",
            "9999-12-31",
            "10000-01-01",
        ],
    ),
    ("time", &["00:00", "24:00:00", "13:14:15.5", "23:59:59.999999"]),
    (
        "timestamp",
        &[
            "infinity",
            "-infinity",
            "4714-11-24 00:00:00 BC",
            "294246-12-31 23:59:59.999999",
            "0044-03-15 12:00:00 BC",
            "2024-01-01 10:00:00.1",
            "10000-01-01",
        ],
    ),
    (
        "timestamptz",
        &[
            "infinity",
            "-infinity",
            "0044-03-15 12:00:00+00 BC",
            "12345-06-07 08:09:10+00",
            "2024-01-01 10:00:00+02",
            "1969-12-31 23:59:59.999999+00",
        ],
    ),
    ("timestamp(0)", &["2024-01-01 10:00:00", "12345-06-07"]),
    ("interval", &["1 mon", "30 days", "-1 day +02:00:00", "1.5 s", "100 years", "0"]),
    ("timetz", &["24:00:00+00", "13:14:15.5-08", "00:00:00+15:59", "12:00:00+02:30"]),
    ("bit(3)", &["101", "000"]),
    ("varbit", &["1", "", "10101"]),
    (
        "numeric",
        &["0", "1.0", "1.00", "-0.001", "NaN", "Infinity", "-Infinity", "123456789012345678901234567890.5", "1e-20"],
    ),
    ("numeric(10,2)", &["0.99", "-5", "99999999.99", "NaN"]),
    ("refcursor", &["a", "b"]),
    ("regprocedure", &["now()", "abs(integer)"]),
    ("regoper", &["pg_catalog.||/"]),
    ("regoperator", &["+(integer,integer)"]),
    ("regclass", &["pg_class", "pg_type"]),
    ("regtype", &["integer", "text"]),
    ("regcollation", &["\"C\""]),
    ("regrole", &["pg_monitor"]),
    ("regnamespace", &["pg_catalog"]),
    ("regconfig", &["english", "simple"]),
    ("regdictionary", &["simple"]),
    ("uuid", &["0190c2c4-7a3e-7cc1-9a3b-5d0a4f0e6b1d", "00000000-0000-0000-0000-000000000000"]),
    ("jsonb", &["{\"a\": [1, null]}", "[[1,2],[3]]", "1", "{}"]),
    ("pg_lsn", &["0/0", "16/B374D848"]),
    ("tsvector", &["'a':1 'b':2", "'it''s'", ""]),
    ("tsquery", &["'a' & 'b'", "!'c'"]),
    ("txid_snapshot", &["10:20:10,14"]),
    ("pg_snapshot", &["10:20:10,14"]),
    ("xid8", &["0", "18446744073709551615"]),
    ("jsonpath", &["$.\"a\"[*]"]),
    ("aclitem", &["postgres=r/postgres"]),
    ("int4range", &["[1,5)", "empty", "(,3)", "[1,1]"]),
    ("int8range", &["[1,5)", "empty"]),
    ("numrange", &["[1.0,5.00)", "(0,)"]),
    ("tsrange", &["[2024-01-01,infinity)", "(,0044-03-15 12:00:00 BC]"]),
    ("tstzrange", &["[2024-01-01 00:00:00+00,infinity]", "empty"]),
    ("daterange", &["[2024-01-01,2024-02-01)", "(,)"]),
    ("int4multirange", &["{[1,5),[7,9)}", "{}"]),
    ("int8multirange", &["{[1,5)}", "{}"]),
    ("nummultirange", &["{[1.0,5.00)}", "{(,)}"]),
    ("tsmultirange", &["{[2024-01-01,infinity)}", "{}"]),
    ("tstzmultirange", &["{[2024-01-01 00:00:00+00,infinity)}", "{}"]),
    ("datemultirange", &["{[2024-01-01,2024-02-01)}", "{}"]),
    ("{s}mood", &["sad", "so so", "happy"]),
    ("{s}price", &["1.00", "99.5"]),
    ("{s}host", &["10.0.0.1", "10.0.0.1/8"]),
    ("{s}pair", &["(1,a)", "(,\"b c\")", "(2,)"]),
    ("{s}pairs", &["(1,a)"]),
    ("{s}labels", &["{a,NULL}", "{}"]),
    ("citext", &["a", "A", "b"]),
    ("ltree", &["a.b", "a", ""]),
    ("lquery", &["a.*", "b"]),
    ("hstore", &["\"a\"=>\"1\"", "", "\"a\"=>NULL"]),
];
const SETUP: [&str; 9] = [
    "CREATE TYPE {s}mood AS ENUM ('sad', 'so so', 'happy')",
    "CREATE DOMAIN {s}price AS numeric(10,2)",
    "CREATE DOMAIN {s}host AS inet",
    "CREATE TYPE {s}pair AS (a int, b text)",
    "CREATE DOMAIN {s}pairs AS {s}pair",
    "CREATE DOMAIN {s}labels AS text[]",
    "CREATE EXTENSION IF NOT EXISTS citext SCHEMA public",
    "CREATE EXTENSION IF NOT EXISTS hstore SCHEMA public",
    "CREATE EXTENSION IF NOT EXISTS ltree SCHEMA public",
];
/// Rows, each with a value and an array of every type.
const ROWS: usize = 24;

pub async fn postgres() -> Option<Db> {
    engines().await.into_iter().find(|db| matches!(db.schema().dialect, Dialect::Postgres { .. }))
}

/// A database whose log of changes is read from a source.
pub async fn postgres_by(source: ChangesSource) -> Option<Db> {
    Some(crate::tests::support::postgres_by(&crate::tests::postgres_url()?, source).await)
}

/// A literal of a value of a type, many of them chosen anew.
fn literal(name: &str, samples: &'static [&'static str]) -> BoxedStrategy<String> {
    let sample = prop::sample::select(samples.to_vec()).prop_map(str::to_owned);
    let other = match name {
        "int2" => any::<i16>().prop_map(|number| number.to_string()).boxed(),
        "int4" => any::<i32>().prop_map(|number| number.to_string()).boxed(),
        "int8" => any::<i64>().prop_map(|number| number.to_string()).boxed(),
        // Those that the reader of JSON in tests keeps.
        "float4" | "float8" => any::<i16>().prop_map(|number| (f64::from(number) / 8.0).to_string()).boxed(),
        "numeric" => "-?[0-9]{1,25}(\\.[0-9]{1,12})?".boxed(),
        "text" => "[^\0]{0,5}".boxed(),
        "date" => (0..300_000_u32).prop_map(|year| format!("{:04}-02-{}", 1 + year, 1 + year % 28)).boxed(),
        "timestamp" | "timestamptz" => (0..290_000_u32, any::<u32>())
            .prop_map(|(year, part)| format!("{:04}-02-03 04:05:06.{part}+00", 1 + year))
            .boxed(),
        "time" => (0..86_400_u32).prop_map(|at| format!("{}:{}:{}", at / 3600, at / 60 % 60, at % 60)).boxed(),
        "inet" => (any::<u128>(), 0..6_u32, 0..=128_u8)
            .prop_map(|(bits, words, length)| {
                format!("{}/{length}", std::net::Ipv6Addr::from(bits >> (words * 16) & !(0xffff << 32)))
            })
            .boxed(),
        _ => return sample.boxed(),
    };
    prop_oneof![1 => sample, 3 => other].boxed()
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A table with a column of each type and one of its arrays.
pub async fn filled(db: &Db) {
    let prefix = db.prefix();
    for sql in SETUP {
        db.execute(&sql.replace("{s}", &prefix)).await;
    }
    let named = TYPES.iter().map(|(name, samples)| (name.replace("{s}", &prefix), *samples));
    let types: Vec<(String, &[&str])> = named.collect();
    let columns = types.iter().enumerate().map(|(at, (name, _))| format!("c{at} {name}, l{at} {name}[]"));
    let columns = columns.collect::<Vec<_>>().join(", ");
    db.execute(&format!("CREATE TABLE {prefix}every (id int PRIMARY KEY, {columns})")).await;
    let mut runner = TestRunner::default();
    for id in 1..=ROWS {
        let mut values = vec![id.to_string()];
        for (name, samples) in &types {
            let mut value =
                || format!("{}::text", quoted(&literal(name, samples).new_tree(&mut runner).unwrap().current()));
            let (one, two, three, four) = (value(), value(), value(), value());
            values.push(format!("{one}::{name}"));
            let array = match id % 8 {
                0 => "NULL".to_owned(),
                1 => "ARRAY[]::text[]".to_owned(),
                2 => format!("ARRAY[{one}, NULL, {two}]"),
                3 => format!("ARRAY[[{one}, {two}], [{three}, {four}]]"),
                4 => format!("ARRAY[[{one}], [{two}]]"),
                5 => format!("'[-1:1]=' || (ARRAY[{one}, NULL, {two}]::{name}[])::text"),
                6 => format!("'[0:1][7:8]=' || (ARRAY[[{one}, {two}], [{three}, {four}]]::{name}[])::text"),
                _ => format!("ARRAY[{three}]"),
            };
            values.push(format!("({array})::{name}[]"));
        }
        db.execute(&format!("INSERT INTO {prefix}every VALUES ({})", values.join(", "))).await;
    }
    assert!(db.database.refresh().await.unwrap());
}

#[tokio::test]
async fn what_is_read_is_found_sorted_as_it_is_compared_and_written() {
    let Some(mut db) = postgres().await else { return };
    db.options.numbers = Numbers::Strings;
    filled(&db).await;
    let known = db.schema();
    let mut compared = 0;
    for column in &known.schema.table("every").unwrap().columns[1..] {
        let native = &column.native;
        match column.comparisons() {
            Comparisons::All => {
                let of_column = check(&db, "every", &column.name, Equality::OfType).await;
                assert!(of_column > 0, "{native} has no values");
                compared += of_column;
            }
            Comparisons::Equality => {
                equal(&db, &column.name).await;
                refused(&db, &column.name, json!({ "$lt": "x" })).await;
            }
            Comparisons::None => refused(&db, &column.name, json!("x")).await,
        }
        written(&db, &column.name, native).await;
    }
    assert!(compared >= 2000, "only {compared} values");
}

pub(super) async fn values(db: &Db, column: &str) -> Vec<(i64, Json)> {
    let rows = db.read("every", json!({"select": ["id", column], "sort": ["id"]})).await.unwrap();
    rows.as_array().unwrap().iter().map(|row| (row["id"].as_i64().unwrap(), row[column].clone())).collect()
}

/// What is read is found, where there is no order.
pub(super) async fn equal(db: &Db, column: &str) {
    for (id, value) in values(db, column).await.iter().filter(|(_, value)| !value.is_null()) {
        let found = ids(db, "every", json!({ (column): value })).await;
        assert!(found.as_ref().is_ok_and(|found| found.contains(id)), "{column} of {id}: {value}: {found:?}");
    }
}

/// What the database cannot compare is refused by its name.
pub(super) async fn refused(db: &Db, column: &str, cond: Json) {
    let known = db.schema();
    let is_list = matches!(known.schema.table("every").unwrap().column(column).unwrap().r#type, query::Type::List(_));
    let asked = match cond {
        Json::String(_) if is_list => json!({ (column): [] }),
        cond => json!({ (column): cond }),
    };
    for find in [asked, json!({})] {
        let sort = if find == json!({}) { json!([column]) } else { json!([]) };
        match crate::tests::support::read(&known.schema, "every", &json!({"find": find, "sort": sort})) {
            Err(Error::Query(Unfit::WrongType { name, expected, found })) => {
                assert!([&name, &expected, &found].iter().any(|part| part.contains(column)), "{name}: {found}");
            }
            other => panic!("{column}: {other:?}"),
        }
    }
}

/// What is read is written, and then read again.
pub(super) async fn written(db: &Db, column: &str, native: &str) {
    let before = values(db, column).await;
    for (id, value) in &before {
        let update = db.update("every", json!({"id": id}), json!({"$set": { (column): value }}), Some(json!([column])));
        let written = db.mutate(update).await;
        assert_eq!(written, Ok((1, json!([{ (column): value }]))), "{native} of {id}");
    }
    assert_eq!(values(db, column).await, before, "{native}");
}

#[tokio::test]
async fn the_types_tried_are_those_that_the_server_has() {
    let Some(db) = postgres().await else { return };
    let statement = Statement {
        // Without those that nobody can write.
        text:
            "SELECT t.typname::text FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace \
               WHERE n.nspname = 'pg_catalog' AND t.typtype IN ('b', 'r', 'm') AND t.typarray <> 0 \
               AND t.typname NOT IN ('gtsvector')"
                .into(),
        args: Vec::new(),
        columns: [query::Type::Text.into()].into(),
        sources: Vec::new(),
        plain: None,
    };
    let rows = &db.database.store().snapshot(&[statement], &Budget::unlimited()).await.unwrap()[0];
    let tried = |name: &str| {
        TYPES.iter().any(|(known, _)| known.split('(').next().unwrap_or_default().trim_matches('"') == name)
    };
    let names: Vec<String> = (0..rows.len()).map(|row| rows.cell(row, 0).text().unwrap()).collect();
    let missed: Vec<&String> = names.iter().filter(|name| !tried(name)).collect();
    assert!(names.len() > 60 && missed.is_empty(), "{missed:?} of {}", names.len());
}

#[tokio::test]
async fn lists_that_do_not_fit_are_refused_by_the_name_of_their_column() {
    let Some(db) = postgres().await else { return };
    db.execute(&format!("CREATE TABLE {}lists (id int PRIMARY KEY, n int[])", db.prefix())).await;
    assert!(db.database.refresh().await.unwrap());
    let known = db.schema();
    for doc in [json!({"id": 1, "n": [[1], [1, 2]]}), json!({"id": 1, "n": "{1,2}"}), json!({"id": 1, "n": [true]})] {
        let docs = crate::tests::support::parser(&known.schema).docs(
            known.schema.table("lists").unwrap(),
            &query::Value::from(&doc),
            &mut query::Budget::new(query::Limits::default()),
        );
        assert!(matches!(&docs, Err(Unfit::WrongType { name, .. }) if name == "n"), "{docs:?}");
    }
    let inserted = db.mutate(db.insert("lists", json!({"id": 1, "n": [1, null]}), None)).await;
    assert_eq!(inserted, Ok((1, Json::Null)));
    assert_eq!(ids(&db, "lists", json!({"n": {"$in": [[2], [1, null]]}})).await.unwrap().len(), 1);
    assert_eq!(ids(&db, "lists", json!({"n": {"$ne": [1, null]}})).await, Ok([].into()));
    assert_eq!(ids(&db, "lists", json!({"n": {"$in": [[2]]}})).await, Ok([].into()));
}
