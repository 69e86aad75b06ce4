//! An insert that is prepared serves those of its shape, for callers with grants like its own.

use std::sync::Arc;

use proptest::prelude::*;
use query::{Columns, Document, Mutation, MutationKind, Operation, Typed};
use serde_json::{Value as Json, json};

use super::support::{Db, engines, grants, sqlite};
use crate::{
    Error,
    bind::Bind,
    budget::AnswerLimit,
    prepared::{PreparedOperations, SingleInsert},
    resolve::Resolver,
    sql::Dialect,
    write::CompiledInsert,
};

/// Whether an insert like `mutation` is prepared for the rules in force.
fn is_prepared(db: &Db, mutation: &Mutation) -> bool {
    let known = db.schema();
    let terms = db.terms(&query::mutation_accesses(&known.schema, mutation).unwrap());
    let Some(one) = SingleInsert::of(std::slice::from_ref(mutation)) else { return false };
    let shape = one.shape(known.id, &terms, db.options.limit);
    db.prepared.bind_insert(&shape, &known.dialect).unwrap().is_some()
}

fn part(db: &Db, number: i64, label: &str) -> Mutation {
    db.insert("part", json!({"maker": 9, "number": number, "label": label}), Some(json!(["number", "label"])))
}

async fn parts(db: &Db) -> Json {
    db.read("part", json!({"shape": "count", "find": {"maker": 9}})).await.unwrap()
}

#[tokio::test]
async fn inserts_of_one_shape_store_their_own_values() {
    let all = |id: i64, twice: bool| {
        let text = if twice { "a\"b" } else { "ä" };
        json!({"id": id, "flag": twice, "big": id << 40, "ratio": 0.5 + f64::from(twice), "price": format!("{id}.50"),
            "words": text, "raw": if twice { "AAE=" } else { "" }, "born": format!("20{id}-01-31"),
            "clock": format!("13:14:{id}"), "seen": format!("20{id}-01-31T13:14:15Z"),
            "ident": format!("0190c2c4-7a3e-7cc1-9a3b-5d0a4f0e6b{id}"), "doc": {"a": [id]}})
    };
    let none = |id: i64| {
        let names = ["flag", "big", "ratio", "price", "words", "raw", "born", "clock", "seen", "ident", "doc"];
        let mut doc = json!({ "id": id });
        names.iter().for_each(|name| doc[*name] = Json::Null);
        doc
    };
    for db in engines().await {
        let returning = || Some(json!(["id", "flag", "big", "ratio", "price", "words", "raw", "doc", "born", "ident"]));
        for (doc, was_prepared) in
            [(all(11, false), false), (all(12, true), true), (none(13), true), (all(14, true), true)]
        {
            let id = doc["id"].as_i64();
            let insert = db.insert("kinds", doc.clone(), returning());
            assert_eq!(is_prepared(&db, &insert), was_prepared, "{doc}");
            let (affected, rows) = db.mutate(insert).await.unwrap();
            assert_eq!(affected, 1);

            let whole = db.read("kinds", json!({"find": {"id": id}, "shape": "one"})).await.unwrap();
            assert_eq!((&rows[0]["words"], &rows[0]["doc"]), (&whole["words"], &whole["doc"]));
            for name in ["id", "flag", "big", "ratio", "words", "raw", "born", "ident", "doc"] {
                assert_eq!((&whole[name], &rows[0][name]), (&doc[name], &doc[name]), "{name}");
            }
            let price = doc["price"].as_str().map(|price| price.parse::<f64>().unwrap());
            assert_eq!(whole["price"].as_f64(), price);
        }
        // Without the answer, and with the defaults of the database.
        for number in 20..23 {
            assert_eq!(db.mutate(db.insert("kinds", json!({"id": number}), None)).await.unwrap().0, 1);
        }
        for _ in 0..2 {
            let (_, rows) = db.mutate(db.insert("stock", json!({}), Some(json!(["amount"])))).await.unwrap();
            assert_eq!(rows, json!([{"amount": 7}]));
        }
    }
}

/// Changes the grants of a caller.
type Change = fn(&mut Db);

#[tokio::test]
async fn a_prepared_insert_is_for_grants_like_its_own() {
    let only = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    let denied: [Change; 6] = [
        |db| db.rule("part", Operation::Create).columns.deny = vec!["label".to_owned()],
        |db| db.rule("part", Operation::Create).columns.write = Some(vec!["maker".to_owned(), "number".to_owned()]),
        |db| db.rule("part", Operation::Read).columns.deny = vec!["label".to_owned()],
        |db| db.rule("part", Operation::Read).columns.read = Some(vec!["number".to_owned()]),
        |db| db.rule("part", Operation::Create).check = db.filter("part", json!({"label": "x"})),
        |db| db.rule("part", Operation::Create).check = query::Filter::FALSE,
    ];
    for mut db in engines().await {
        db.mutate(part(&db, 1, "a")).await.unwrap();
        assert!(is_prepared(&db, &part(&db, 2, "b")));
        for change in denied {
            change(&mut db);
            assert!(!is_prepared(&db, &part(&db, 2, "b")));
            for _ in 0..2 {
                let refused = db.mutate(part(&db, 2, "b")).await;
                assert!(matches!(refused, Err(Error::Denied(_))), "{refused:?}");
            }
            assert_eq!(parts(&db).await, json!(1));
            db.rules.clear();
        }
        // What a caller may not read is left out of the answer, whoever inserted before.
        db.rule("part", Operation::Read).filter = db.filter("part", json!({"label": "mine"}));
        for (number, label, is_seen) in [(2, "other", false), (3, "mine", true), (4, "other", false), (5, "mine", true)]
        {
            let (affected, rows) = db.mutate(part(&db, number, label)).await.unwrap();
            assert_eq!((affected, rows.as_array().map(Vec::len)), (1, Some(usize::from(is_seen))), "{label}");
        }
        assert!(is_prepared(&db, &part(&db, 6, "b")));
        // The value of a rule is the caller's own.
        db.rule("part", Operation::Read).filter = db.filter("part", json!({"label": "theirs"}));
        for (number, label, is_seen) in [(6, "mine", false), (7, "theirs", true)] {
            assert!(is_prepared(&db, &part(&db, number, label)));
            let (_, rows) = db.mutate(part(&db, number, label)).await.unwrap();
            assert_eq!(rows.as_array().map(Vec::len), Some(usize::from(is_seen)), "{label}");
        }
        // A caller whose rules name the columns is served with what they allow.
        db.rules.clear();
        db.rule("part", Operation::Create).columns =
            Columns { write: only(&["maker", "number", "label"]), ..Columns::default() };
        for number in [8, 9] {
            assert_eq!(db.mutate(part(&db, number, "x")).await.unwrap().1, json!([{"number": number, "label": "x"}]));
        }
    }
}

#[tokio::test]
async fn an_insert_that_is_checked_passes_its_check_each_time() {
    for mut db in engines().await {
        db.rule("part", Operation::Create).check = db.filter("part", json!({"label": "a"}));
        for (number, label, is_done) in [(1, "a", true), (2, "b", false), (3, "a", true), (4, "b", false)] {
            let done = db.mutate(part(&db, number, label)).await;
            assert_eq!(done.is_ok(), is_done, "{done:?}");
        }
        assert_eq!(parts(&db).await, json!(2));
    }
}

#[tokio::test]
async fn grants_of_a_prepared_insert_hold_for_each_request() {
    let db = sqlite().await;
    let insert = part(&db, 1, "a");
    db.mutate(insert.clone()).await.unwrap();
    let accesses = query::mutation_accesses(&db.schema().schema, &insert).unwrap().len();
    let changes: [fn(&mut query::GrantTerms); 5] = [
        |grant| grant.project = "other".to_owned(),
        |grant| grant.database = "other".to_owned(),
        |grant| grant.table = "track".to_owned(),
        |grant| grant.operation = Operation::Update,
        |grant| grant.expires_ms = 999,
    ];
    let insert = part(&db, 2, "b");
    let known = db.schema();
    let terms = || db.terms(&query::mutation_accesses(&known.schema, &insert).unwrap());
    let outcome = async |terms: &[Arc<query::GrantTerms>]| {
        db.database.write(std::slice::from_ref(&insert), grants(terms), db.options).await
    };
    for index in 0..accesses {
        for change in changes {
            let mut terms = terms();
            change(Arc::make_mut(&mut terms[index]));
            let refused = outcome(&terms).await;
            assert!(matches!(refused, Err(Error::Denied(_) | Error::Ungranted(_))), "{refused:?}");
        }
        let mut fewer = terms();
        fewer.remove(index);
        assert!(matches!(outcome(&fewer).await, Err(Error::Ungranted(_))));
    }
    assert!(matches!(outcome(&[terms(), terms()].concat()).await, Err(Error::Ungranted(_))));
    assert_eq!(parts(&db).await, json!(1));
    assert!(outcome(&terms()).await.is_ok());
}

#[tokio::test]
async fn errors_of_a_prepared_insert_are_those_of_any() {
    for db in engines().await {
        let album = |title: &str| db.insert("album", json!({"title": title, "artist_id": 1}), Some(json!(["title"])));
        // What the schema before let pass.
        let mut untitled = album("");
        if let MutationKind::Insert { docs } = &mut untitled.kind {
            let members = docs[0].0.iter().map(|(name, value)| match name.as_str() {
                "title" => (name.clone(), Typed::Null),
                _ => (name.clone(), value.clone()),
            });
            *docs = [Document(members.collect())].into();
        }
        let failures = [album("Back in Black"), untitled];
        let mut before = Vec::new();
        for failure in &failures {
            before.push(db.mutate(failure.clone()).await.unwrap_err());
        }
        assert!(matches!(before[0], Error::Conflict { .. }), "{before:?}");
        assert_eq!(before[1], Error::Query(query::Error::Required("title".to_owned())));
        db.mutate(album("x")).await.unwrap();
        assert!(is_prepared(&db, &failures[0]));
        for (failure, before) in failures.into_iter().zip(before) {
            assert_eq!(db.mutate(failure).await.unwrap_err(), before);
        }
        let orphan = |artist: i64| db.insert("album", json!({"title": "y", "artist_id": artist}), None);
        assert_eq!(db.mutate(orphan(77)).await.unwrap_err(), db.mutate(orphan(78)).await.unwrap_err());
        assert_eq!(db.mutate(orphan(2)).await.unwrap().0, 1);
    }
}

#[tokio::test]
async fn of_several_wrong_values_the_same_is_named_once_prepared() {
    for db in engines().await {
        let insert = |ratio: f64, price: &str| {
            let members = [("ratio", Typed::Float(ratio)), ("price", Typed::Decimal(price.to_owned()))];
            let members = members.map(|(name, value)| (name.to_owned(), value));
            let docs = [Document(members.into())].into();
            Mutation { kind: MutationKind::Insert { docs }, ..db.insert("kinds", json!({}), None) }
        };
        let refused = || db.mutate(insert(f64::NAN, "123456789.5"));
        let before = refused().await.unwrap_err();
        db.mutate(insert(0.5, "1.25")).await.unwrap();
        assert!(is_prepared(&db, &insert(1.5, "2.25")));

        assert_eq!(refused().await.unwrap_err(), before);
        assert!(before.to_string().starts_with("price "), "{before}");
    }
}

#[tokio::test]
async fn an_insert_is_prepared_anew_for_another_schema() {
    for db in engines().await {
        db.mutate(part(&db, 1, "a")).await.unwrap();
        db.execute(&format!("ALTER TABLE {}part RENAME COLUMN label TO other", db.prefix())).await;
        let insert = part(&db, 2, "b");
        let refused = db.mutate(insert).await;
        assert!(refused.is_err(), "{refused:?}");
        assert!(db.database.refresh().await.is_ok());
        let insert = db.insert("part", json!({"maker": 9, "number": 2, "other": "b"}), Some(json!(["other"])));
        assert!(!is_prepared(&db, &insert));
        assert_eq!(db.mutate(insert).await.unwrap(), (1, json!([{"other": "b"}])));
    }
}

#[tokio::test]
async fn the_answer_of_a_prepared_insert_is_within_its_limit() {
    for mut db in engines().await {
        let long = |number: i64, bytes: usize| part(&db, number, &"\u{1}".repeat(bytes));
        let (short, long) = ([long(1, 10), long(2, 10)], [long(3, 10_000), long(4, 10_000)]);
        db.options.answer = AnswerLimit::new(20_000, 0);
        for insert in short {
            db.mutate(insert).await.unwrap();
        }
        for insert in long {
            assert!(is_prepared(&db, &insert));
            let refused = db.mutate(insert).await;
            assert!(matches!(refused, Err(Error::TooLarge(_))), "{refused:?}");
        }
        assert_eq!(parts(&db).await, json!(2));
    }
}

#[tokio::test]
async fn other_mutations_are_not_prepared() {
    let db = sqlite().await;
    let insert = |docs: Json, returning: Option<Json>| db.insert("album", docs, returning);
    let album = json!({"title": "x", "artist_id": 1});
    let one = insert(album.clone(), Some(json!(["title"])));
    let is_single = |mutations: &[Mutation]| SingleInsert::of(mutations).is_some();
    assert!(is_single(std::slice::from_ref(&one)));
    assert!(!is_single(&[]));
    assert!(!is_single(&[one.clone(), one]));
    assert!(!is_single(&[insert(json!([]), None)]));
    assert!(!is_single(&[insert(json!([album, album]), None)]));
    assert!(!is_single(&[insert(album, Some(json!({"title": 1, "artist": {"select": ["name"]}})))]));
    assert!(!is_single(&[db.delete("album", json!({"album_id": 1}), None)]));
    assert!(!is_single(&[db.update("album", json!({"album_id": 1}), json!({"$set": {"title": "x"}}), None)]));
}

/// A value for a column, nearly always of its type.
fn value(column: &str) -> BoxedStrategy<Typed> {
    let own = match column {
        "ratio" => prop_oneof![any::<f64>(), Just(f64::NAN)].prop_map(Typed::Float).boxed(),
        "price" => "-?[0-9]{1,11}([.][0-9]{1,4})?".prop_map(Typed::Decimal).boxed(),
        "words" => "\\PC{0,3}".prop_map(Typed::Text).boxed(),
        _ => prop_oneof![any::<i32>().prop_map(i64::from), any::<i64>()].prop_map(Typed::Int).boxed(),
    };
    let other =
        prop_oneof![Just(Typed::Bool(true)), "[0-9x]{1,2}".prop_map(Typed::Text), Just(Typed::Json("1".to_owned()))];
    prop_oneof![12 => own, 3 => Just(Typed::Null), 1 => other].boxed()
}

/// Two documents of the same columns.
fn two_documents() -> impl Strategy<Value = [Document; 2]> {
    let columns = prop::sample::subsequence(vec!["id", "big", "ratio", "price", "words"], 0..=5).prop_shuffle();
    columns.prop_flat_map(|columns| {
        let values = columns.iter().map(|column| (value(column), value(column))).collect::<Vec<_>>();
        values.prop_map(move |values| {
            let (one, two): (Vec<_>, Vec<_>) = values.into_iter().unzip();
            let named = |values: Vec<Typed>| columns.iter().map(|name| (*name).to_owned()).zip(values).collect();
            [Document(named(one)), Document(named(two))]
        })
    })
}

/// Whatever an insert is prepared from, what reaches the database is that of the request, and so is what is refused.
#[test]
fn a_prepared_insert_is_bound_to_the_values_of_each_request() {
    let mut db = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(sqlite());
    db.rule("kinds", Operation::Read).filter = db.filter("kinds", json!({"words": "rule", "big": [1, 2]}));
    let known = db.schema();
    let like = db.insert("kinds", json!({}), Some(json!(["id", "price"])));
    let terms = db.terms(&query::mutation_accesses(&known.schema, &like).unwrap());
    // Texts, for `NaN` equals nothing.
    let shown = |insert: Result<CompiledInsert, Error>| {
        let parts = insert.map(|insert| (insert.statement.text, insert.statement.args, insert.returned));
        format!("{parts:?}")
    };
    let of_rule = Bind::Value(Typed::Text("rule".to_owned()));
    let has_rule = |insert: &CompiledInsert| insert.statement.args.contains(&of_rule);
    let bound_again = std::cell::Cell::new(0);
    let config = ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(documents in two_documents())| {
        let inserts = documents.map(|document| {
            Mutation { kind: MutationKind::Insert { docs: [document].into() }, ..like.clone() }
        });
        for dialect in [Dialect::Sqlite, Dialect::postgres("public", Vec::new())] {
            let [first, second] = inserts.each_ref().map(|insert| {
                let resolved = Resolver::new(&known.schema, grants(&terms)).mutation(insert)?;
                Ok(CompiledInsert::of(&dialect, &resolved, 1000)?.expect("it is one"))
            });
            let [one, two] = inserts.each_ref().map(|insert| SingleInsert::of(std::slice::from_ref(insert)).unwrap());
            let prepared = PreparedOperations::default();
            let Ok(first) = first else { continue };
            prepared.keep_insert(one.shape(0, &terms, 1000), &first);
            if let Some(bound) = prepared.bind_insert(&two.shape(0, &terms, 1000), &dialect).transpose() {
                bound_again.set(bound_again.get() + usize::from(bound.as_ref().is_ok_and(has_rule)));
                prop_assert_eq!(shown(bound), shown(second));
            }
        }
    });
    assert!(bound_again.get() > 500, "too few of the inserts were prepared: {}", bound_again.get());
}
