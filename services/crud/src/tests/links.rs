//! A link is the join that the database makes of its columns, and leads to one row where there cannot be more.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use query::resources::TableLink;
use serde_json::json;

use super::{
    relations::{by_id, ids, numbers},
    support::{Db, engines, sqlite},
};
use crate::{LeftOut, budget::Budget, links::DatabaseLinks, sql::Dialect, store::Statement};

mod mysql;

/// Declarations of columns of SQLite.
const SQLITE: [&str; 11] = [
    "INTEGER",
    "TEXT",
    "TEXT COLLATE NOCASE",
    "TEXT COLLATE RTRIM",
    "",
    "BLOB",
    "REAL",
    "DECIMAL(10,2)",
    "DATETIME",
    "BOOLEAN",
    "UUID",
];

/// Literals that some of those take for equal.
const SQLITE_VALUES: [&str; 20] = [
    "'a'",
    "'A'",
    "'a '",
    "x'61'",
    "1",
    "1.0",
    "'1'",
    "'01'",
    "'1.0'",
    "x'31'",
    "TRUE",
    "9007199254740993",
    "9007199254740992",
    "9007199254740992.0",
    "'9007199254740992'",
    "'2020-07-17'",
    "'2020-07-17 00:00:00'",
    "1594944000",
    "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
    "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'",
];

const TEXTS: &[&str] = &["a", "A", "a ", "\u{e4}", "", "1"];
const NUMBERS: &[&str] = &["0", "1", "-1", "7"];
const LARGE: &[&str] = &["0", "1", "9007199254740992", "9007199254740993"];
const DECIMALS: &[&str] = &["1", "9007199254740992", "9007199254740993", "0.1", "0.10000000149011612"];
const DOUBLES: &[&str] = &["1", "9007199254740992", "0.1", "0.10000000149011612", "NaN"];
const MOMENTS: &[&str] =
    &["2024-01-01", "2024-01-01 12:00:00", "2024-03-31 01:30:00", "2024-03-31 02:30:00", "infinity"];

/// Declarations of columns of PostgreSQL, and texts of their values.
const POSTGRES: [(&str, &[&str]); 34] = [
    ("smallint", NUMBERS),
    ("integer", NUMBERS),
    ("bigint", LARGE),
    ("numeric", DECIMALS),
    ("numeric(20,1)", DECIMALS),
    ("real", DOUBLES),
    ("double precision", DOUBLES),
    ("oid", &["0", "1"]),
    ("text", TEXTS),
    ("varchar(5)", TEXTS),
    ("char(3)", TEXTS),
    ("bpchar", TEXTS),
    ("name", TEXTS),
    ("citext", TEXTS),
    ("text COLLATE {s}folded", TEXTS),
    ("text COLLATE \"C\"", TEXTS),
    ("{s}mood", &["a", "A"]),
    ("{s}word", TEXTS),
    ("date", MOMENTS),
    ("timestamp", MOMENTS),
    ("timestamp(0)", MOMENTS),
    ("timestamptz", MOMENTS),
    ("time", &["00:00", "12:00"]),
    ("timetz", &["00:00+00", "12:00+00"]),
    ("interval", &["1 day", "1 mon"]),
    ("boolean", &["true", "false"]),
    ("uuid", &["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]),
    ("bytea", &["a", "b"]),
    ("json", &["1"]),
    ("point", &["(0,0)"]),
    ("inet", &["10.0.0.1", "10.0.0.0/8"]),
    ("cidr", &["10.0.0.1", "10.0.0.0/8"]),
    ("integer[]", &["{1}", "{1,2}"]),
    ("text[]", &["{a}", "{A}"]),
];

/// Types of PostgreSQL that have no order, and so no keys.
const WITHOUT_KEYS: [&str; 2] = ["json", "point"];

fn link(table: &str, on: &[(&str, &str)], many: Option<bool>) -> TableLink {
    let on = on.iter().map(|(here, there)| ((*here).to_owned(), (*there).to_owned())).collect();
    TableLink { table: table.to_owned(), database: None, on, many }
}

fn of(table: &str, links: impl IntoIterator<Item = (&'static str, TableLink)>) -> Arc<DatabaseLinks> {
    let links = links.into_iter().map(|(name, link)| (name.to_owned(), link)).collect();
    Arc::new(BTreeMap::from([(table.to_owned(), links)]).into())
}

/// Links of each column of `near` with each of `far`, called after their numbers.
fn pairs(count: usize) -> Arc<DatabaseLinks> {
    let name = |index: usize| format!("k{index}");
    let all = (0..count * count).map(|pair| (pair / count, pair % count));
    let links =
        all.map(|(here, there)| (format!("l{here}_{there}"), link("far", &[(&name(here), &name(there))], None)));
    Arc::new(BTreeMap::from([("near".to_owned(), links.collect())]).into())
}

async fn compiles(db: &Db, sql: &str) -> bool {
    let statement =
        Statement { text: sql.into(), args: Vec::new(), columns: [].into(), sources: Vec::new(), plain: None };
    db.database.store().snapshot(&[statement], &Budget::unlimited()).await.is_ok()
}

/// Checks every link of [`pairs`] against the join by `on`. Returns how many links there are, and how many pairs of rows
/// they join; of the others, those for which the database has an equality.
async fn check(db: &Db, count: usize, on: impl Fn(usize, usize) -> String) -> (usize, usize, Vec<(usize, usize)>) {
    let (prefix, snapshot) = (db.prefix(), db.schema());
    let near = snapshot.schema.table("near").unwrap();
    let (mut links, mut joined, mut missing) = (0, 0, Vec::new());
    for (here, there) in (0..count * count).map(|pair| (pair / count, pair % count)) {
        let from = format!("FROM {prefix}near AS n JOIN {prefix}far AS f ON {}", on(here, there));
        let name = format!("l{here}_{there}");
        let Ok(relation) = near.relation(&name) else {
            if compiles(db, &format!("SELECT 1 {from}")).await {
                missing.push((here, there));
            }
            continue;
        };
        let mut expected = BTreeMap::<i64, BTreeSet<i64>>::new();
        let int = if snapshot.dialect == Dialect::Mysql { "SIGNED" } else { "BIGINT" };
        let sql = format!("SELECT CAST(n.id AS {int}), CAST(f.id AS {int}) {from}");
        for (own, other) in numbers(db, &sql).await {
            expected.entry(own).or_default().insert(other);
        }
        let read = json!({"id": 1, (&name): {"select": ["id"]}});
        let rows = db.read("near", json!({"select": read, "sort": ["id"], "limit": 10_000})).await.unwrap();
        for (id, row) in by_id(&rows) {
            let others = Vec::from_iter(expected.get(&id).into_iter().flatten().copied());
            joined += others.len();
            let wanted = match (relation.many, others.as_slice()) {
                (true, others) => ids(others),
                (false, []) => json!(null),
                (false, [other]) => json!({ "id": other }),
                (false, several) => panic!("{name} leads to {several:?} from {id}"),
            };
            assert_eq!(row[&name], wanted, "{name} from {id}");
        }
        links += 1;
    }
    (links, joined, missing)
}

#[tokio::test]
async fn a_link_is_the_join_that_sqlite_makes() {
    let db = sqlite().await;
    let stranger = rusqlite::Connection::open(db.file()).unwrap();
    let columns = |after: &str| {
        let column = |(index, declared): (usize, &&str)| format!("k{index} {declared}{after}");
        SQLITE.iter().enumerate().map(column).collect::<Vec<_>>().join(", ")
    };
    let mut script = format!(
        "BEGIN; CREATE TABLE near (id INTEGER PRIMARY KEY, {}); CREATE TABLE far (id INTEGER PRIMARY KEY, {});",
        columns(""),
        columns(" UNIQUE")
    );
    for (table, index) in ["near", "far"].into_iter().flat_map(|table| (0..SQLITE.len()).map(move |at| (table, at))) {
        for value in SQLITE_VALUES {
            script.push_str(&format!("INSERT OR IGNORE INTO {table} (k{index}) VALUES ({value});"));
        }
    }
    stranger.execute_batch(&format!("{script} COMMIT;")).unwrap();
    assert!(db.database.refresh().await.unwrap());

    assert!(db.database.link(pairs(SQLITE.len())));

    // The collation of the left side decides.
    let (links, joined, missing) = check(&db, SQLITE.len(), |here, there| format!("f.k{there} = n.k{here}")).await;
    assert_eq!((links, missing), (SQLITE.len() * SQLITE.len(), Vec::new()));
    assert!(joined > 500, "{joined}");
    let snapshot = db.schema();
    let ones = snapshot.schema.table("near").unwrap().relations.iter().filter(|relation| !relation.many).count();
    assert!(ones >= 80, "{ones}");
}

#[tokio::test]
async fn a_link_is_the_join_that_postgres_makes() {
    let engines = engines().await;
    let Some(db) = engines.iter().find(|db| matches!(db.schema().dialect, Dialect::Postgres { .. })) else { return };
    let prefix = db.prefix();
    let declared = POSTGRES.map(|(declared, _)| declared.replace("{s}", &prefix));
    let columns = |after: &str| {
        let column = |(index, declared): (usize, &String)| {
            let after = if WITHOUT_KEYS.contains(&declared.as_str()) { "" } else { after };
            format!("k{index} {declared}{after}")
        };
        declared.iter().enumerate().map(column).collect::<Vec<_>>().join(", ")
    };
    for sql in [
        "CREATE EXTENSION IF NOT EXISTS citext WITH SCHEMA public".to_owned(),
        format!("CREATE COLLATION {prefix}folded (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"),
        format!("CREATE TYPE {prefix}mood AS ENUM ('a', 'A')"),
        format!("CREATE DOMAIN {prefix}word AS text"),
        format!("CREATE TABLE {prefix}near (id serial PRIMARY KEY, {})", columns("")),
        format!("CREATE TABLE {prefix}far (id serial PRIMARY KEY, {})", columns(" UNIQUE")),
    ] {
        db.execute(&sql).await;
    }
    let mut inserts = String::new();
    for (index, (_, values)) in POSTGRES.iter().enumerate() {
        for (table, value) in
            ["near", "far"].into_iter().flat_map(|table| values.iter().map(move |value| (table, value)))
        {
            inserts.push_str(&format!(
                "BEGIN INSERT INTO {prefix}{table} (k{index}) VALUES ('{value}'); EXCEPTION WHEN \
                 integrity_constraint_violation OR data_exception THEN NULL; END;\n"
            ));
        }
    }
    db.execute(&format!("DO $do$ BEGIN\n{inserts}END $do$")).await;
    assert!(db.database.refresh().await.unwrap());

    assert!(db.database.link(pairs(POSTGRES.len())));

    let (links, joined, missing) = check(db, POSTGRES.len(), |here, there| on(&declared, here, there)).await;
    let missing: Vec<_> = missing.into_iter().map(|(here, there)| (POSTGRES[here].0, POSTGRES[there].0)).collect();
    // An integer may be too large for an identifier, which is an error then; times of different kinds are left out too.
    assert_eq!(
        missing,
        [
            ("smallint", "oid"),
            ("integer", "oid"),
            ("oid", "smallint"),
            ("oid", "integer"),
            ("time", "timetz"),
            ("time", "interval"),
            ("timetz", "time"),
            ("interval", "time"),
        ]
    );
    assert!(links >= 150 && joined >= 600, "{links} {joined}");
    let snapshot = db.schema();
    let ones = snapshot.schema.table("near").unwrap().relations.iter().filter(|relation| !relation.many).count();
    assert!(ones >= 100, "{ones}");
}

/// The comparison of two columns as a foreign key from `near` to `far` makes it: the collation of the second decides.
fn on(declared: &[String], here: usize, there: usize) -> String {
    let collation = |index: usize| declared[index].split_once(" COLLATE ").map(|(_, name)| name.to_owned());
    let is_text = |index: usize| POSTGRES[index].1 == TEXTS;
    let is_padded = |index: usize| matches!(POSTGRES[index].0, "char(3)" | "bpchar");
    let cast = if is_padded(there) && declared[here].starts_with("text") && !declared[here].starts_with("text[") {
        "::bpchar"
    } else {
        ""
    };
    let collate = match (is_text(here) && is_text(there), collation(here), collation(there)) {
        (true, here, there) if here != there => format!(" COLLATE {}", there.unwrap_or("\"default\"".to_owned())),
        _ => String::new(),
    };
    format!("f.k{there} = n.k{here}{cast}{collate}")
}

#[tokio::test]
async fn links_that_a_schema_cannot_have_are_left_out() {
    for db in engines().await {
        let before = db.schema();
        let declared = of(
            "album",
            [
                ("artist", link("track", &[("title", "name")], None)),
                ("nowhere", link("atrist", &[("artist_id", "artist_id")], None)),
                ("here", link("artist", &[("artistid", "artist_id")], None)),
                ("there", link("artist", &[("artist_id", "atrist_id")], None)),
                ("title", link("artist", &[("artist_id", "artist_id")], None)),
                ("single", link("track", &[("album_id", "album_id")], Some(false))),
                ("part", link("part", &[("album_id", "maker")], Some(false))),
                ("document", link("kinds", &[("album_id", "doc")], None)),
                ("whole", link("part", &[("album_id", "maker"), ("artist_id", "number")], Some(false))),
            ],
        );

        assert!(db.database.link(declared.clone()));

        let now = db.schema();
        let album = now.schema.table("album").unwrap();
        let names: Vec<_> = album.relations.iter().map(|to| (to.name.as_str(), to.table.as_str(), to.many)).collect();
        assert_eq!(names, [("artist", "track", true), ("track", "track", true), ("whole", "part", false)]);
        let left_out: Vec<(&str, &str)> =
            now.links_left_out.iter().map(|LeftOut { name, why, .. }| (name.as_str(), why.as_str())).collect();
        let kind = |sqlite: &'static str, postgres: &'static str, mysql: &'static str| match now.dialect {
            Dialect::Sqlite => sqlite,
            Dialect::Postgres { .. } => postgres,
            Dialect::Mysql => mysql,
        };
        let document = format!(
            "album_id of table album ({}) cannot be equal to doc of table kinds ({})",
            kind("INTEGER", "integer", "int(11)"),
            kind("JSON", "jsonb", "longtext")
        );
        assert_eq!(
            left_out,
            [
                ("album.links.document", document.as_str()),
                ("album.links.here", "column artistid is not in table album; did you mean artist_id?"),
                ("album.links.nowhere", "table atrist is not in the database; did you mean artist?"),
                ("album.links.part", "invalid many: expected true, because maker of table part may have several rows"),
                (
                    "album.links.single",
                    "invalid many: expected true, because album_id of table track may have several rows"
                ),
                ("album.links.there", "column atrist_id is not in table artist; did you mean artist_id?"),
                ("album.links.title", "title is a column of table album: expected another name"),
            ]
        );
        assert_ne!(now.version, before.version);
        assert!(!db.database.link(declared), "they are declared already");
        assert!(db.database.link(Arc::default()));
        let after = db.schema();
        assert_eq!(
            (after.version, &after.schema, &after.links_left_out),
            (before.version, &before.schema, &Vec::new())
        );
    }
}

#[tokio::test]
async fn a_link_follows_the_schema() {
    for db in engines().await {
        let prefix = db.prefix();
        db.database.link(of("artist", [("fans", link("fan", &[("artist_id", "artist")], None))]));
        assert_eq!(db.schema().links_left_out.len(), 1);

        db.execute(&format!("CREATE TABLE {prefix}fan (id INTEGER PRIMARY KEY, artist INTEGER)")).await;
        db.execute(&format!("INSERT INTO {prefix}fan VALUES (1, 2)")).await;
        assert!(db.database.refresh().await.unwrap());

        assert_eq!(db.schema().links_left_out, []);
        let read = json!({"select": {"fans": {"select": ["id"]}}, "sort": ["artist_id"], "limit": 2});
        let rows = db.read("artist", read.clone()).await.unwrap();
        assert_eq!(rows, json!([{"fans": []}, {"fans": [{"id": 1}]}]));

        db.execute(&format!("CREATE UNIQUE INDEX only_one ON {prefix}fan (artist)")).await;
        assert!(db.database.refresh().await.unwrap());

        let rows = db.read("artist", read).await.unwrap();
        assert_eq!(rows, json!([{"fans": null}, {"fans": {"id": 1}}]));
    }
}

#[tokio::test]
async fn the_collation_of_the_key_decides_what_a_link_joins() {
    let db = sqlite().await;
    for sql in [
        "CREATE TABLE near (id INTEGER PRIMARY KEY, folded_key TEXT COLLATE NOCASE UNIQUE, exact_key TEXT UNIQUE, \
         folded TEXT COLLATE NOCASE, exact TEXT)",
        "CREATE TABLE far (id INTEGER PRIMARY KEY, folded_key TEXT COLLATE NOCASE UNIQUE, exact_key TEXT UNIQUE, \
         folded TEXT COLLATE NOCASE, exact TEXT)",
        "INSERT INTO near VALUES (1, 'a', 'a', 'a', 'a')",
        "INSERT INTO far VALUES (7, 'A', 'A', 'A', 'A')",
    ] {
        db.execute(sql).await;
    }
    assert!(db.database.refresh().await.unwrap());
    // Where both sides hold a key, or neither does, the link refers to the other table.
    for (here, there, is_found) in [
        ("folded_key", "exact", true),
        ("exact_key", "folded", false),
        ("folded", "exact_key", false),
        ("exact", "folded_key", true),
        ("folded_key", "exact_key", false),
        ("exact_key", "folded_key", true),
        ("folded", "exact", false),
        ("exact", "folded", true),
    ] {
        assert!(db.database.link(of("near", [("others", link("far", &[(here, there)], Some(true)))])));
        let rows = db.read("near", json!({"select": {"others": {"select": ["id"]}}})).await.unwrap();
        let others = if is_found { json!([{"id": 7}]) } else { json!([]) };
        assert_eq!(rows, json!([{"others": others}]), "{here} {there}");
    }
}
