//! Every type of MariaDB, and texts in several collations: what is read is found, sorted as it is compared, and can be
//! written.

use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use query::{Comparisons, Error as Unfit, Type, resources::Numbers};
use serde_json::json;

use super::{
    Equality, check, ids,
    postgres::{equal, refused, written},
};
use crate::{
    Error,
    sql::Dialect,
    tests::support::{Db, engines},
};

/// Texts that collations take for equal: by case, accents, spaces at the end, and beyond the first plane.
const TEXTS: &[&str] = &["", "a", "A", "á", "ä", "a ", "b", "B ", "ß", "ss", " a", "a\tb", "it''s \"x\" \\\\n", "NULL"];
const WIDE: &[&str] = &["", "a", "A", "ä", "a ", "ß", "ss", "☃", "😀", "😎", "Å", "Å", "中", "a\u{200b}"];

/// Types and literals of their values, without quotes.
const TYPES: [(&str, &[&str]); 53] = [
    ("tinyint(1)", &["0", "1", "5", "-1"]),
    ("bit(1)", &["0", "1"]),
    ("bit(9)", &["0", "1", "256", "511"]),
    ("bit(64)", &["0", "18446744073709551615", "9223372036854775808"]),
    ("tinyint", &["0", "-128", "127"]),
    ("tinyint unsigned", &["0", "255"]),
    ("smallint", &["-32768", "32767", "0"]),
    ("smallint unsigned", &["65535", "0"]),
    ("mediumint", &["-8388608", "8388607"]),
    ("mediumint unsigned", &["16777215"]),
    ("int", &["-2147483648", "2147483647"]),
    ("int unsigned", &["4294967295", "0"]),
    ("int(5) zerofill", &["7", "12345"]),
    ("bigint", &["-9223372036854775808", "9223372036854775807", "9007199254740993"]),
    ("bigint unsigned", &["18446744073709551615", "9223372036854775808", "0", "1"]),
    ("decimal(10,2)", &["0", "-0.01", "99999999.99", "1.50"]),
    ("decimal(65,0)", &["99999999999999999999999999999999999999999999999999999999999999999", "0", "-1"]),
    ("decimal(38,30)", &["0.000000000000000000000000000001", "12345678.9", "-0.5"]),
    ("decimal(60,15)", &["123456789012345678901234567890123456789012345.000000000000001", "0.5"]),
    ("decimal(65,10)", &["1234567890123456789012345678901234567890123456789012345.0000000001", "0.5", "-1"]),
    ("float", &["0", "0.1", "-1.5", "3.4e38", "16777217", "1e-38"]),
    ("double", &["0", "0.1", "-1.5", "1e300", "5e-324", "9007199254740993"]),
    ("year", &["1901", "2155", "2020", "0"]),
    ("date", &["1000-01-01", "9999-12-31", "0001-01-01", "2020-02-29"]),
    ("time", &["00:00:00", "23:59:59", "13:14:15"]),
    ("time(6)", &["00:00:00.000001", "23:59:59.999999", "13:14:15.5"]),
    ("datetime", &["1000-01-01 00:00:00", "9999-12-31 23:59:59", "2020-02-29 12:00:00"]),
    ("datetime(3)", &["2020-02-29 12:00:00.123", "1969-12-31 23:59:59.999"]),
    ("datetime(6)", &["2020-02-29 12:00:00.123456", "1969-12-31 23:59:59.999999", "0001-01-01 00:00:00"]),
    ("timestamp", &["1970-01-01 00:00:01", "2038-01-19 03:14:07", "2020-03-29 01:30:00"]),
    ("timestamp(6)", &["1970-01-01 00:00:01.000001", "2020-10-25 01:30:00.5"]),
    ("char(20)", TEXTS),
    ("varchar(20)", TEXTS),
    ("varchar(20) collate utf8mb4_bin", TEXTS),
    ("varchar(20) collate utf8mb4_nopad_bin", TEXTS),
    ("varchar(20) collate utf8mb4_unicode_ci", WIDE),
    ("varchar(20) collate utf8mb4_unicode_520_nopad_ci", WIDE),
    ("varchar(20) character set latin1", &["", "a", "A", "ä", "a ", "ß"]),
    ("varchar(20) character set latin1 collate latin1_bin", &["", "a", "A", "ä", "a "]),
    ("varchar(20) character set utf8mb3", &["", "a", "A", "ä", "☃"]),
    ("varchar(20) character set ucs2", &["", "a", "A", "ä", "☃"]),
    ("tinytext", TEXTS),
    ("text", WIDE),
    ("mediumtext", TEXTS),
    ("longtext", WIDE),
    ("binary(4)", &["ab", "abcd", ""]),
    ("varbinary(20)", &["", "a", "A", "a ", "ä"]),
    ("blob", &["", "ab", "\t"]),
    ("enum('a','B','it''s')", &["a", "B", "it''s"]),
    ("set('x','y','z')", &["", "x", "x,z"]),
    (
        "uuid",
        &[
            "0190c2c4-7a3e-7cc1-9a3b-5d0a4f0e6b1d",
            "00000000-0000-0000-0000-000000000000",
            "ffffffff-0000-1000-8000-000000000001",
        ],
    ),
    ("inet6", &["::1", "2001:db8::ff00:42:8329", "::ffff:1.2.3.4"]),
    ("json", &["{\"a\": [1, null]}", "1", "\"x\""]),
];
/// Rows, each with a value of every type.
const ROWS: usize = 40;

pub async fn mysql() -> Option<Db> {
    engines().await.into_iter().find(|db| db.schema().dialect == Dialect::Mysql)
}

/// A literal of a value of a type, many of them chosen anew.
fn literal(name: &str, samples: &'static [&'static str]) -> BoxedStrategy<String> {
    let sample = prop::sample::select(samples.to_vec()).prop_map(str::to_owned);
    let other = match name {
        "smallint" => any::<i16>().prop_map(|number| number.to_string()).boxed(),
        "int" => any::<i32>().prop_map(|number| number.to_string()).boxed(),
        "bigint" => any::<i64>().prop_map(|number| number.to_string()).boxed(),
        "bigint unsigned" => any::<u64>().prop_map(|number| number.to_string()).boxed(),
        // Those that the reader of JSON in tests keeps.
        "float" | "double" => any::<i16>().prop_map(|number| (f64::from(number) / 8.0).to_string()).boxed(),
        "decimal(10,2)" => "-?[0-9]{1,8}(\\.[0-9]{1,2})?".boxed(),
        "decimal(65,0)" => "-?[0-9]{1,65}".boxed(),
        "varchar(20)" | "text" | "varchar(20) collate utf8mb4_unicode_ci" => "[a-cA-Cäö ]{0,3}".boxed(),
        "date" => (1..=9999_u32).prop_map(|year| format!("{year:04}-02-{:02}", 1 + year % 28)).boxed(),
        "datetime(6)" => (1..=9999_u32, 0..1_000_000_u32)
            .prop_map(|(year, part)| format!("{year:04}-02-03 04:05:06.{part:06}"))
            .boxed(),
        _ => return sample.boxed(),
    };
    prop_oneof![1 => sample, 2 => other].boxed()
}

/// A table with a column of each type, all but those of JSON indexed as far as the server bears.
pub async fn filled(db: &Db) {
    let columns = TYPES.iter().enumerate().map(|(at, (name, _))| format!("c{at} {name} NULL"));
    let columns = columns.collect::<Vec<_>>().join(", ");
    let indexes =
        ["decimal(10,2)", "float", "varchar(20)", "varchar(20) character set latin1", "bigint unsigned", "uuid"];
    let index = |name: &str| TYPES.iter().position(|(known, _)| *known == name).map(|at| format!(", KEY (c{at})"));
    let indexes: String = indexes.into_iter().filter_map(index).collect();
    db.execute(&format!("CREATE TABLE every (id int PRIMARY KEY, {columns}{indexes})")).await;
    let mut runner = TestRunner::default();
    for id in 1..=ROWS {
        let mut values = vec![id.to_string()];
        for (name, samples) in &TYPES {
            let value = literal(name, samples).new_tree(&mut runner).unwrap().current();
            values.push(match *name {
                _ if id % 9 == 0 => "NULL".to_owned(),
                name if name.starts_with("bit") => value,
                _ => format!("'{value}'"),
            });
        }
        db.execute(&format!("INSERT INTO every VALUES ({})", values.join(", "))).await;
    }
    assert!(db.database.refresh().await.unwrap());
}

#[tokio::test]
async fn what_is_read_is_found_sorted_as_it_is_compared_and_written() {
    let Some(mut db) = mysql().await else { return };
    db.options.numbers = Numbers::Strings;
    filled(&db).await;
    let known = db.schema();
    let mut compared = 0;
    for (column, (name, _)) in known.schema.table("every").unwrap().columns[1..].iter().zip(TYPES) {
        match column.comparisons() {
            Comparisons::All => {
                let of_column = check(&db, "every", &column.name, Equality::AsRead).await;
                // Read as their text, beside the numbers.
                assert!(of_column > 0, "{name} has no values");
                compared += of_column;
            }
            Comparisons::Equality => {
                equal(&db, &column.name).await;
                refused(&db, &column.name, json!({ "$lt": "x" })).await;
            }
            Comparisons::None => refused(&db, &column.name, json!("x")).await,
        }
        // Any other number that is read as true is written as 1.
        if name != "tinyint(1)" {
            written(&db, &column.name, name).await;
        }
    }
    assert!(compared >= 1000, "only {compared} values");
}

/// Lists of more values than are arguments each.
#[tokio::test]
async fn long_lists_find_what_short_ones_do() {
    let Some(mut db) = mysql().await else { return };
    db.options.numbers = Numbers::Strings;
    filled(&db).await;
    let known = db.schema();
    for column in &known.schema.table("every").unwrap().columns[1..] {
        if column.comparisons() == Comparisons::None {
            continue;
        }
        let name = &column.name;
        let rows = db.read("every", json!({"select": [name], "find": {"id": {"$lt": 5}}})).await.unwrap();
        let values: Vec<_> = rows.as_array().unwrap().iter().map(|row| row[name].clone()).collect();
        let short = ids(&db, "every", json!({ (name): {"$in": values} })).await.unwrap();
        let long: Vec<_> = values.iter().cycle().take(2000).collect();
        assert_eq!(ids(&db, "every", json!({ (name): {"$in": long} })).await.unwrap(), short, "{}", column.native);
        assert!(short.len() >= 4, "{}", column.native);
    }
}

#[tokio::test]
async fn what_does_not_fit_is_refused_by_the_name_of_its_column() {
    let Some(db) = mysql().await else { return };
    db.execute(
        "CREATE TABLE fits (id int PRIMARY KEY, small tinyint, big bigint unsigned, price decimal(4,2), word varchar(3),
            mood enum('sad', 'happy'), at timestamp NULL, latin varchar(9) character set latin1, flags bit(3), y year)",
    )
    .await;
    assert!(db.database.refresh().await.unwrap());
    for (column, value, expected) in [
        ("small", json!(300), "OutOfRange"),
        ("big", json!(-1), "OutOfRange"),
        ("big", json!("1.5"), "WrongType"),
        ("price", json!("100.00"), "OutOfRange"),
        ("word", json!("four"), "OutOfRange"),
        ("mood", json!("hapy"), "WrongType"),
        ("at", json!("1960-01-01T00:00:00Z"), "OutOfRange"),
        ("latin", json!("☃"), "WrongType"),
        ("flags", json!(8), "OutOfRange"),
        ("y", json!(1700), "OutOfRange"),
    ] {
        for mutation in [
            db.insert("fits", json!({"id": 1, (column): value}), None),
            db.insert("fits", json!([{"id": 1}, {"id": 2, (column): value}]), Some(json!(["id"]))),
        ] {
            let refused = db.mutate(mutation).await;
            let told = match &refused {
                Err(Error::Query(Unfit::OutOfRange { name, .. })) if name == column => "OutOfRange",
                Err(Error::Query(Unfit::WrongType { name, .. })) if name == column => "WrongType",
                _ => "",
            };
            assert_eq!(told, expected, "{column}: {refused:?}");
        }
    }
    let refused = db.mutate(db.insert("fits", json!({"id": 1, "mood": "hapy"}), None)).await.unwrap_err();
    assert!(refused.to_string().contains("sad, happy"), "{refused}");
    assert_eq!(db.read("fits", json!({"shape": "count"})).await, Ok(json!(0)));
}

/// A table whose rows only MariaDB can tell: views, triggers, defaults, generated columns.
#[tokio::test]
async fn what_the_database_makes_of_a_row_is_what_is_returned() {
    let Some(db) = mysql().await else { return };
    for sql in [
        "CREATE TABLE made (id bigint unsigned AUTO_INCREMENT PRIMARY KEY, code char(4) DEFAULT 'none', n int, \
         twice int AS (n * 2) STORED, changed datetime(6) DEFAULT '2000-01-01' ON UPDATE current_timestamp(6), UNIQUE (n))",
        "CREATE TRIGGER made_insert BEFORE INSERT ON made FOR EACH ROW SET NEW.code = coalesce(NEW.code, 'trig')",
        "CREATE TRIGGER made_update BEFORE UPDATE ON made FOR EACH ROW SET NEW.code = concat(NEW.n, '')",
        "CREATE VIEW shown AS SELECT id, n FROM made WHERE n < 100 WITH CHECK OPTION",
    ] {
        db.execute(sql).await;
    }
    assert!(db.database.refresh().await.unwrap());
    let known = db.schema();
    let made = known.schema.table("made").unwrap();
    assert_eq!(
        (made.primary_key.as_slice(), made.unique_keys.as_slice()),
        (&["id".to_owned()][..], &[vec!["n".to_owned()]][..])
    );
    assert!(made.column("twice").unwrap().generated && made.column("id").unwrap().has_default);
    assert_eq!(made.column("id").unwrap().r#type, Type::Decimal);
    let all = || Some(json!(["id", "code", "n", "twice"]));
    let written =
        db.mutate(db.insert("made", json!([{"n": 1}, {"n": 2, "code": null}, {"n": 3, "code": "x"}]), all())).await;
    assert_eq!(
        written,
        Ok((
            3,
            json!([
                {"id": 1, "code": "none", "n": 1, "twice": 2},
                {"id": 2, "code": "trig", "n": 2, "twice": 4},
                {"id": 3, "code": "x", "n": 3, "twice": 6},
            ])
        ))
    );
    let updated = db.mutate(db.update("made", json!({"n": {"$gt": 1}}), json!({"$inc": {"n": 10}}), all())).await;
    assert_eq!(
        updated,
        Ok((2, json!([{"id": 2, "code": "12", "n": 12, "twice": 24}, {"id": 3, "code": "13", "n": 13, "twice": 26}])))
    );
    // The key itself, by a value and by a sum.
    let updated = db.mutate(db.update("made", json!({"id": 3}), json!({"$set": {"id": 30}}), all())).await;
    assert_eq!(updated, Ok((1, json!([{"id": 30, "code": "13", "n": 13, "twice": 26}]))));
    let updated = db
        .mutate(db.update("made", json!({"n": {"$gte": 12}}), json!({"$inc": {"id": 100}}), Some(json!(["id"]))))
        .await;
    assert_eq!(updated, Ok((2, json!([{"id": 102}, {"id": 130}]))));

    let shown = db.mutate(db.insert("shown", json!({"id": 7, "n": 50}), Some(json!(["id", "n"])))).await;
    assert_eq!(shown, Ok((1, json!([{"id": 7, "n": 50}]))));
    let refused = db.mutate(db.insert("shown", json!({"id": 8, "n": 500}), None)).await;
    assert!(matches!(&refused, Err(Error::Constraint(text)) if text.contains("view")), "{refused:?}");
    assert_eq!(db.mutate(db.update("shown", json!({"id": 7}), json!({"$set": {"n": 51}}), None)).await.unwrap().0, 1);
    let deleted = db.mutate(db.delete("shown", json!({"id": 7}), Some(json!(["n"])))).await;
    assert_eq!(deleted, Ok((1, json!([{"n": 51}]))));
}

#[tokio::test]
async fn rows_without_a_key_are_updated_and_not_returned() {
    let Some(db) = mysql().await else { return };
    db.execute("CREATE TABLE bare (n int)").await;
    db.execute("INSERT INTO bare VALUES (1), (1), (2)").await;
    assert!(db.database.refresh().await.unwrap());
    let update = |returning| db.update("bare", json!({"n": 1}), json!({"$inc": {"n": 5}}), returning);
    let refused = db.mutate(update(Some(json!(["n"])))).await;
    assert!(
        matches!(&refused, Err(Error::Query(Unfit::Malformed(text))) if text.contains("primary key")),
        "{refused:?}"
    );
    assert_eq!(db.mutate(update(None)).await.unwrap().0, 2);
    assert_eq!(db.mutate(db.delete("bare", json!({"n": 6}), Some(json!(["n"])))).await.unwrap().0, 2);
}

/// Case and accents of a rule's text count, whatever the collation of its column.
#[tokio::test]
async fn a_rule_sees_texts_as_they_are() {
    let Some(mut db) = mysql().await else { return };
    db.execute("CREATE TABLE owned (id int PRIMARY KEY, owner varchar(20))").await;
    db.execute("INSERT INTO owned VALUES (1, 'ann'), (2, 'Ann'), (3, 'ánn'), (4, 'ann ')").await;
    assert!(db.database.refresh().await.unwrap());
    db.rule("owned", query::Operation::Read).filter = db.filter("owned", json!({"owner": "ann"}));
    assert_eq!(db.read("owned", json!({"select": ["id"]})).await, Ok(json!([{"id": 1}])));
    db.rule("owned", query::Operation::Update).check = db.filter("owned", json!({"owner": "ann"}));
    let changed = db.mutate(db.update("owned", json!({"id": 1}), json!({"$set": {"owner": "ANN"}}), None)).await;
    assert!(matches!(changed, Err(Error::Denied(_))), "{changed:?}");
    assert_eq!(db.count("SELECT count(*) FROM owned WHERE CAST(owner AS BINARY) = 'ann'").await, 1);
}

/// The server takes 99 for 1999 where it is compared with a year, or stored as one.
#[tokio::test]
async fn a_year_is_the_number_that_is_read() {
    let Some(db) = mysql().await else { return };
    db.execute("CREATE TABLE aged (id int PRIMARY KEY, y year)").await;
    db.execute("INSERT INTO aged VALUES (1, 1999), (2, 2005), (3, 0), (4, NULL)").await;
    assert!(db.database.refresh().await.unwrap());
    let long: Vec<i32> = (1..=99).cycle().take(2000).collect();
    for (find, expected) in [
        (json!({"y": 99}), json!([])),
        (json!({"y": {"$in": [5, 99]}}), json!([])),
        (json!({"y": {"$in": long}}), json!([])),
        (json!({"y": {"$lt": 70}}), json!([{"id": 3}])),
        (json!({"y": {"$gt": 99}}), json!([{"id": 1}, {"id": 2}])),
        (json!({"y": {"$ne": 99}}), json!([{"id": 1}, {"id": 2}, {"id": 3}])),
        (json!({"y": 1999}), json!([{"id": 1}])),
    ] {
        assert_eq!(
            db.read("aged", json!({"select": ["id"], "find": find, "sort": ["id"]})).await,
            Ok(expected),
            "{find}"
        );
    }
    for mutation in [
        db.insert("aged", json!({"id": 9, "y": 99}), None),
        db.update("aged", json!({"id": 1}), json!({"$set": {"y": 5}}), None),
    ] {
        let refused = db.mutate(mutation).await;
        assert!(matches!(&refused, Err(Error::Query(Unfit::OutOfRange { name, .. })) if name == "y"), "{refused:?}");
    }
}

/// `IS NULL` is true of them.
#[tokio::test]
async fn a_day_of_zeros_is_not_null() {
    let Some(mut db) = mysql().await else { return };
    db.execute("CREATE TABLE zeros (id int PRIMARY KEY, d date NOT NULL, at datetime NOT NULL)").await;
    db.execute("INSERT IGNORE INTO zeros VALUES (1, '0000-00-00', '0000-00-00'), (2, '2020-01-01', '2020-01-01')")
        .await;
    assert!(db.database.refresh().await.unwrap());
    for (find, expected) in [
        (json!({"d": null}), json!([])),
        (json!({"at": null}), json!([])),
        (json!({"$not": {"at": null}}), json!([{"id": 1}, {"id": 2}])),
    ] {
        assert_eq!(
            db.read("zeros", json!({"select": ["id"], "find": find, "sort": ["id"]})).await,
            Ok(expected),
            "{find}"
        );
    }
    db.rule("zeros", query::Operation::Read).filter = db.filter("zeros", json!({"d": null}));
    assert_eq!(db.read("zeros", json!({"select": ["id"]})).await, Ok(json!([])));
}

#[tokio::test]
async fn characters_that_a_column_cannot_hold_are_found_nowhere() {
    let Some(db) = mysql().await else { return };
    db.execute(
        "CREATE TABLE narrow (id int PRIMARY KEY, a varchar(9) character set utf8mb3, \
         b varchar(9) character set utf8mb3 collate utf8mb3_nopad_bin, c varchar(9) character set latin1, \
         e enum('x', '?') character set latin1)",
    )
    .await;
    db.execute("INSERT INTO narrow VALUES (1, '?', '?', '?', '?')").await;
    assert!(db.database.refresh().await.unwrap());
    for column in ["a", "b", "c", "e"] {
        let ids = async |find| ids(&db, "narrow", json!({ (column): find })).await;
        assert_eq!(ids(json!("😀")).await.unwrap().len(), 0, "{column}");
        assert_eq!(ids(json!({"$in": ["😀", "😎"]})).await.unwrap().len(), 0, "{column}");
        assert_eq!(ids(json!({"$ne": "😀"})).await.unwrap().len(), 1, "{column}");
        let changed = db.mutate(db.update("narrow", json!({ (column): "😀" }), json!({"$inc": {"id": 1}}), None)).await;
        assert_eq!(changed.map(|(affected, _)| affected), Ok(0), "{column}");
    }
}

/// Pages follow each other by what rows are compared by, whatever of a text the server sorts by.
#[tokio::test]
async fn long_texts_are_sorted_as_they_are_compared() {
    let Some(db) = mysql().await else { return };
    db.execute("CREATE TABLE long_texts (id int PRIMARY KEY, a text, b longtext)").await;
    db.execute(
        "INSERT INTO long_texts SELECT 3 - n, concat(repeat('x', 9000), n), concat(repeat('y', 9000), n) \
                FROM (SELECT 1 AS n UNION SELECT 2) AS t",
    )
    .await;
    assert!(db.database.refresh().await.unwrap());
    for sort in [json!(["a"]), json!(["b", "a"]), json!(["b"])] {
        let read = json!({"select": ["id"], "sort": sort});
        assert_eq!(db.read("long_texts", read).await, Ok(json!([{"id": 2}, {"id": 1}])), "{sort}");
    }
}

/// The server stores it without the spaces at its end, or in its own case.
#[tokio::test]
async fn a_row_whose_key_is_stored_otherwise_than_given_is_returned() {
    let Some(mut db) = mysql().await else { return };
    db.execute("CREATE TABLE coded (code char(9) PRIMARY KEY, owner varchar(9))").await;
    db.execute("INSERT INTO coded VALUES ('a', 'ann'), ('c', 'bob')").await;
    assert!(db.database.refresh().await.unwrap());
    let update = |code: &str| {
        let change = json!({"$set": {"code": code}});
        db.update("coded", json!({"owner": "ann"}), change, Some(json!(["code", "owner"])))
    };
    assert_eq!(db.mutate(update("b  ")).await, Ok((1, json!([{"code": "b", "owner": "ann"}]))));
    assert_eq!(db.mutate(update("B")).await, Ok((1, json!([{"code": "B", "owner": "ann"}]))));
    let refused = db.mutate(update("C ")).await;
    assert!(matches!(refused, Err(Error::Conflict { .. })), "{refused:?}");
    db.rule("coded", query::Operation::Update).check = db.filter("coded", json!({"code": "B"}));
    let mutation = db.update("coded", json!({"owner": "ann"}), json!({"$set": {"code": "b "}}), None);
    let refused = db.mutate(mutation).await;
    assert!(matches!(refused, Err(Error::Denied(_))), "{refused:?}");
}

/// What a rule refuses after it was written is taken back, or is not written at all.
#[tokio::test]
async fn tables_without_transactions_are_read_only() {
    let Some(mut db) = mysql().await else { return };
    db.execute("CREATE TABLE plain (id int PRIMARY KEY, owner varchar(9)) ENGINE = Aria").await;
    db.execute("INSERT INTO plain VALUES (1, 'ann')").await;
    assert!(db.database.refresh().await.unwrap());
    db.rule("plain", query::Operation::Create).check = db.filter("plain", json!({"owner": "ann"}));
    let known = db.schema();
    assert_eq!(known.schema.table("plain").unwrap().writes, query::Writes::NONE);
    assert_eq!(known.schema.table("artist").unwrap().writes, query::Writes::ALL);
    assert_eq!(db.read("plain", json!({})).await, Ok(json!([{"id": 1, "owner": "ann"}])));
}
