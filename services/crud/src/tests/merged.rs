//! Reads of one shape that are asked for together answer what each answers alone, whatever their values and grants are.

use proptest::{prelude::*, sample::select, strategy::ValueTree, test_runner::TestRunner};
use query::Read;
use serde_json::{Value as Json, json};

use super::support::{Db, engines, grants, read};

/// Reads that are asked for together.
const READS: usize = 100;
/// Texts that they ask for.
const TEXTS: &[&str] = &["AC/DC", "Accept", "Go Down", "Back in Black", "a\"b'$1\\", ""];

/// A read of one of many shapes, in which `a` and `b` are numbers and `text` is a text.
fn options(shape: usize, (a, b, text): (i64, i64, &str)) -> (&'static str, Json) {
    match shape {
        0 => ("album", json!({ "find": { "artist_id": a }, "sort": ["-title"], "limit": 2 })),
        1 => {
            let track = json!({ "select": ["name"], "sort": ["-milliseconds"], "limit": 2 });
            let album = json!({ "select": { "title": 1, "track": track }, "sort": ["title"] });
            ("artist", json!({ "find": { "artist_id": { "$in": [a, b] } }, "select": { "name": 1, "album": album } }))
        }
        2 => ("track", json!({ "find": { "album_id": a }, "shape": "count" })),
        3 => {
            let find = json!({ "$or": [{ "milliseconds": { "$gt": a * 100_000 } }, { "name": text }] });
            ("track", json!({ "find": find, "shape": "aggregate" }))
        }
        4 => {
            let select = json!({ "title": 1, "artist": { "select": ["name"] } });
            ("album", json!({ "find": { "artist": { "name": text } }, "select": select, "skip": 1, "limit": 3 }))
        }
        5 => ("track", json!({ "find": { "album_id": null, "milliseconds": { "$gte": b } }, "select": ["name"] })),
        6 => {
            let select = json!({ "amount": 1, "part": { "select": { "label": 1 } } });
            ("stock", json!({ "find": { "amount": { "$gt": a * 5 } }, "select": select, "sort": ["-amount"] }))
        }
        7 => ("part", json!({ "find": { "maker": { "$ne": b } }, "select": { "label": 1, "stock": { "limit": 1 } } })),
        _ => {
            let select = json!({ "name": 1, "album": { "limit": 1, "select": ["title"] } });
            ("artist", json!({ "find": { "artist_id": a }, "shape": "one", "select": select }))
        }
    }
}

/// The answers to reads that are asked for together, and alone.
async fn both(db: &Db, reads: &[Read], own: impl Fn(usize) -> i64) -> [Vec<String>; 2] {
    let schema = db.schema().schema.clone();
    let terms = |index: usize| {
        let mut terms = db.terms(&query::read_accesses(&schema, &reads[index]).unwrap());
        for terms in &mut terms {
            let column = if terms.table == "artist" { "artist_id" } else { return_id(&terms.table) };
            let granted = db.filter(&terms.table, json!({ column: { "$lte": own(index) } }));
            std::sync::Arc::make_mut(terms).filter = granted;
        }
        terms
    };
    let text = |answer: &proto::crud::Answer| String::from_utf8(answer.json.to_vec()).unwrap();
    let all: Vec<_> = (0..reads.len()).flat_map(terms).collect();
    let together = db.database.read(reads, grants(&all), db.options).await.unwrap();
    let mut alone = Vec::new();
    for (index, read) in reads.iter().enumerate() {
        let answer = db.database.read(std::slice::from_ref(read), grants(&terms(index)), db.options).await.unwrap();
        alone.extend(answer.answers.iter().map(text));
    }
    [together.answers.iter().map(text).collect(), alone]
}

fn return_id(table: &str) -> &'static str {
    match table {
        "album" => "album_id",
        "track" => "track_id",
        "stock" => "stock_id",
        "part" => "maker",
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn reads_of_one_shape_answer_together_what_they_answer_alone() {
    let value = (0..5_i64, 0..5_i64, select(TEXTS));
    let mut runner = TestRunner::deterministic();
    let mut values = || value.new_tree(&mut runner).unwrap().current();
    for db in engines().await {
        for shape in 0..9 {
            let schema = db.schema().schema.clone();
            let one = |values| {
                let (table, options) = options(shape, values);
                read(&schema, table, &options).unwrap_or_else(|error| panic!("{shape}: {error:?}"))
            };
            let reads: Vec<Read> = (0..READS).map(|_| one(values())).collect();
            let [together, alone] = both(&db, &reads, |index| (index % 4) as i64).await;
            assert_eq!(together, alone, "shape {shape}");
        }
        // Of all shapes at once.
        let schema = db.schema().schema.clone();
        let mixed = (0..READS).map(|index| {
            let (table, options) = options(index % 9, values());
            read(&schema, table, &options).unwrap()
        });
        let [together, alone] = both(&db, &mixed.collect::<Vec<_>>(), |index| (index % 3) as i64).await;
        assert_eq!(together, alone);
    }
}

#[tokio::test]
async fn a_read_whose_grants_do_not_fit_fails_with_its_index() {
    for db in engines().await {
        let schema = db.schema().schema.clone();
        let reads: Vec<Read> =
            (0..20).map(|number| read(&schema, "album", &json!({ "find": { "album_id": number } })).unwrap()).collect();
        let mut terms: Vec<_> =
            reads.iter().flat_map(|read| db.terms(&query::read_accesses(&schema, read).unwrap())).collect();
        let options = db.options;
        assert_eq!(db.database.read(&reads, grants(&terms), options).await.unwrap().answers.len(), 20);
        std::sync::Arc::make_mut(&mut terms[7]).expires_ms = 10;
        let failure = db.database.read(&reads, grants(&terms), options).await.unwrap_err();
        assert_eq!(failure.read, Some(7), "{failure:?}");
        std::sync::Arc::make_mut(&mut terms[7]).expires_ms = 2000;
        terms.push(terms[0].clone());
        assert!(db.database.read(&reads, grants(&terms), options).await.is_err(), "a grant that nobody needs");
        terms.truncate(19);
        assert_eq!(db.database.read(&reads, grants(&terms), options).await.unwrap_err().read, Some(19));
    }
}
