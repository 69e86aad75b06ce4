//! Reading.

use query::{Field, FieldKind, Filter, Node, Operation, Quantifier, Read, Shape, resources::Numbers};
use serde_json::json;

use super::support::{Db, engines, read, sqlite};
use crate::Error;

#[tokio::test]
async fn rows_come_in_the_order_of_the_key_unless_asked_otherwise() {
    for db in engines().await {
        let rows = db.read("artist", json!({"select": ["name", "artist_id"]})).await.unwrap();
        assert_eq!(
            rows.to_string(),
            r#"[{"name":"AC/DC","artist_id":1},{"name":"Accept","artist_id":2},{"name":null,"artist_id":3}]"#
        );
        let rows = db.read("artist", json!({"select": ["artist_id"], "sort": ["-name"]})).await.unwrap();
        assert_eq!(rows, json!([{"artist_id": 3}, {"artist_id": 2}, {"artist_id": 1}]));
        let rows = db.read("artist", json!({"select": ["artist_id"], "sort": ["name"], "skip": 1, "limit": 1})).await;
        assert_eq!(rows.unwrap(), json!([{"artist_id": 2}]));
    }
}

#[tokio::test]
async fn a_tree_takes_one_statement_per_level_and_keeps_every_order() {
    for db in engines().await {
        let tree = json!({"select": {"name": 1, "album": {"sort": ["-title"], "select": {"title": 1,
            "track": {"select": {"name": 1}, "sort": ["name"]}}}}});
        let answer = db.answer("artist", tree).await.unwrap();
        assert_eq!(answer.statements, 3);
        assert!(!answer.truncated);
        assert_eq!(
            String::from_utf8(answer.json.to_vec()).unwrap(),
            concat!(
                r#"[{"name":"AC/DC","album":[{"title":"Let There Be Rock","track":"#,
                r#"[{"name":"Dog Eat Dog"},{"name":"Go Down"},{"name":"Overdose"}]},"#,
                r#"{"title":"Back in Black","track":[{"name":"Hells Bells"}]}]},"#,
                r#"{"name":"Accept","album":[{"title":"Balls to the Wall","track":[]}]},{"name":null,"album":[]}]"#
            )
        );
    }
}

#[tokio::test]
async fn relations_to_one_are_objects_or_null() {
    for db in engines().await {
        let tree = json!({"find": {"track_id": {"$gte": 4}}, "select": {"name": 1, "album": {"select": {"title": 1,
            "artist": {"select": {"name": 1}}}}}});
        let answer = db.answer("track", tree).await.unwrap();
        assert_eq!(answer.statements, 3);
        assert_eq!(
            String::from_utf8(answer.json.to_vec()).unwrap(),
            r#"[{"name":"Hells Bells","album":{"title":"Back in Black","artist":{"name":"AC/DC"}}},{"name":"Alone","album":null}]"#
        );
    }
}

#[tokio::test]
async fn keys_of_several_columns_join() {
    for db in engines().await {
        let rows =
            db.read("stock", json!({"select": {"stock_id": 1, "part": {"select": {"label": 1}}}})).await.unwrap();
        assert_eq!(
            rows,
            json!([{"stock_id": 1, "part": {"label": "b"}}, {"stock_id": 2, "part": {"label": "c"}}, {"stock_id": 3, "part": null}])
        );
        let rows =
            db.read("part", json!({"select": {"label": 1, "stock": {"select": {"amount": 1}, "limit": 1}}})).await;
        assert_eq!(
            rows.unwrap(),
            json!([{"label": "a", "stock": []}, {"label": "b", "stock": [{"amount": 10}]},
                   {"label": "c", "stock": [{"amount": 20}]}, {"label": "d", "stock": []}])
        );
    }
}

#[tokio::test]
async fn limit_and_skip_of_a_relation_count_for_each_parent() {
    for db in engines().await {
        let tree = json!({"select": {"album_id": 1, "track": {"select": {"name": 1}, "sort": ["-milliseconds"], "limit": 1, "skip": 1}}});
        let rows = db.read("album", tree).await.unwrap();
        assert_eq!(
            rows,
            json!([{"album_id": 1, "track": [{"name": "Go Down"}]}, {"album_id": 2, "track": []}, {"album_id": 3, "track": []}])
        );
        let tree = json!({"select": {"artist_id": 1, "album": {"limit": 1, "select": {"title": 1, "track": {"select": ["name"]}}}},
            "limit": 1});
        let rows = db.read("artist", tree).await.unwrap();
        let tracks = json!([{"name": "Go Down"}, {"name": "Dog Eat Dog"}, {"name": "Overdose"}]);
        assert_eq!(rows, json!([{"artist_id": 1, "album": [{"title": "Let There Be Rock", "track": tracks}]}]));
        let none = json!({"select": {"artist_id": 1, "album": {"limit": 0, "select": {"title": 1, "track": {"select": ["name"]}}}}, "limit": 1});
        let answer = db.answer("artist", none).await.unwrap();
        assert_eq!((answer.json.as_ref(), answer.statements), (br#"[{"artist_id":1,"album":[]}]"#.as_slice(), 1));
    }
}

#[tokio::test]
async fn counts_are_numbers_and_aggregates_rows() {
    for db in engines().await {
        assert_eq!(db.read("track", json!({"shape": "count"})).await.unwrap(), json!(5));
        assert_eq!(db.read("track", json!({"shape": "count", "find": {"album_id": 1}})).await.unwrap(), json!(3));
        assert_eq!(db.read("track", json!({"shape": "aggregate"})).await.unwrap(), json!([{"count": 5}]));
        let fields = [FieldKind::Count, FieldKind::Constant("track".to_owned()), FieldKind::Count];
        let fields = fields.into_iter().zip(["a", "b", "c"]).map(|(kind, key)| Field { key: key.to_owned(), kind });
        let found = answered(&db, "track", Node::new(Shape::Aggregate, fields.collect::<Vec<_>>())).await;
        assert_eq!(found, (r#"[{"a":5,"b":"track","c":5}]"#.to_owned(), 1));
    }
}

#[tokio::test]
async fn aggregates_below_a_row_are_of_its_rows() {
    for db in engines().await {
        let known = db.schema();
        let count = query::Field { key: "count".to_owned(), kind: query::FieldKind::Count };
        let aggregate = query::Node::new(query::Shape::Aggregate, vec![count]);
        let number = query::Node::new(query::Shape::Count, Vec::new());
        let mut tracks = read(&known.schema, "album", &json!({"select": ["album_id"]})).unwrap();
        for (key, node) in [("rows", aggregate), ("number", number)] {
            let kind = query::FieldKind::Relation { name: "track".to_owned(), node };
            let field = query::Field { key: key.to_owned(), kind };
            tracks.node.fields = tracks.node.fields.iter().cloned().chain([field]).collect();
        }
        let answer = db.answers(&[tracks]).await.unwrap().remove(0);
        assert_eq!(
            String::from_utf8(answer.json.to_vec()).unwrap(),
            r#"[{"album_id":1,"rows":[{"count":3}],"number":3},{"album_id":2,"rows":[{"count":1}],"number":1},{"album_id":3,"rows":[{"count":0}],"number":0}]"#
        );
    }
}

/// What a node of `table` answers, and how many statements that takes.
async fn answered(db: &Db, table: &str, node: Node) -> (String, u32) {
    let read = Read { database: "music".into(), table: table.into(), node };
    let answer = db.answers(&[read]).await.unwrap().remove(0);
    (String::from_utf8(answer.json.to_vec()).unwrap(), answer.statements)
}

fn related(name: &str, node: Node) -> Field {
    Field { key: "in".to_owned(), kind: FieldKind::Relation { name: name.to_owned(), node } }
}

/// The first row of a table, with what `field` says.
fn first(field: Field) -> Node {
    Node { limit: Some(1), ..Node::new(Shape::Many, vec![field]) }
}

/// Where skip and limit leave nothing of one row, nothing is asked: not for it, nor for what is below.
#[tokio::test]
async fn skip_and_limit_of_one_row_leave_it_or_nothing() {
    let count = Field { key: "n".to_owned(), kind: FieldKind::Count };
    for db in engines().await {
        for (skip, limit, is_left) in [
            (0, None, true),
            (0, Some(1), true),
            (0, Some(9), true),
            (0, Some(0), false),
            (1, None, false),
            (1, Some(1), false),
        ] {
            let expected = |left: &str, nothing: &str, statements: (u32, u32)| match is_left {
                true => (left.to_owned(), statements.0),
                false => (nothing.to_owned(), statements.1),
            };
            let artist = related("artist", Node::new(Shape::One, vec![Field::column("name")]));
            let album = Node { skip, limit, ..Node::new(Shape::One, vec![artist]) };
            let found = answered(&db, "track", first(related("album", album))).await;
            assert_eq!(
                found,
                expected(r#"[{"in":{"in":{"name":"AC/DC"}}}]"#, r#"[{"in":null}]"#, (3, 1)),
                "{skip} {limit:?}"
            );
            let counted = Node { skip, limit, ..Node::new(Shape::Aggregate, vec![count.clone()]) };
            let found = answered(&db, "album", first(related("track", counted.clone()))).await;
            assert_eq!(found, expected(r#"[{"in":[{"n":3}]}]"#, r#"[{"in":[]}]"#, (2, 1)), "{skip} {limit:?}");
            let found = answered(&db, "track", counted).await;
            assert_eq!(found, expected(r#"[{"n":5}]"#, "[]", (1, 0)), "{skip} {limit:?}");
        }
    }
}

#[tokio::test]
async fn the_first_of_many_has_others_behind_it() {
    for db in engines().await {
        for (skip, limit, name, statements) in [
            (0, None, Some("Go Down"), 1),
            (1, None, Some("Dog Eat Dog"), 1),
            (1, Some(5), Some("Dog Eat Dog"), 1),
            (5, None, None, 1),
            (0, Some(0), None, 0),
        ] {
            let one = name.map_or(json!(null), |name| json!({"name": name})).to_string();
            let track = Node { skip, limit, ..Node::new(Shape::One, vec![Field::column("name")]) };
            let below = answered(&db, "album", first(related("track", track.clone()))).await;
            assert_eq!(below, (format!(r#"[{{"in":{one}}}]"#), statements + 1), "{skip} {limit:?}");
            assert_eq!(answered(&db, "track", track).await, (one, statements), "{skip} {limit:?}");
        }
    }
}

#[tokio::test]
async fn the_first_row_or_null_answers_one() {
    for db in engines().await {
        let one = |find| json!({"shape": "one", "find": find, "select": ["name"]});
        assert_eq!(db.read("artist", one(json!({"artist_id": 2}))).await.unwrap(), json!({"name": "Accept"}));
        assert_eq!(db.read("artist", one(json!({"artist_id": 9}))).await.unwrap(), json!(null));
    }
}

#[tokio::test]
async fn conditions_mean_what_sql_means() {
    for db in engines().await {
        for (find, expected) in [
            (json!({"name": null}), vec![3]),
            (json!({"name": {"$ne": null}}), vec![1, 2]),
            (json!({"name": {"$ne": "Accept"}}), vec![1]),
            (json!({"name": {"$in": ["Accept", "AC/DC"]}}), vec![1, 2]),
            (json!({"name": {"$in": []}}), vec![]),
            (json!({"name": {"$nin": []}}), vec![1, 2, 3]),
            (json!({"artist_id": {"$in": [3, 1]}}), vec![1, 3]),
            (json!({"$or": [{"artist_id": 1}, {"name": "Accept"}]}), vec![1, 2]),
            (json!({"artist_id": {"$gt": 1, "$lte": 2}}), vec![2]),
            (json!({"album": {"$some": {"title": "Back in Black"}}}), vec![1]),
            (json!({"album": {"$none": {"title": "Back in Black"}}}), vec![2, 3]),
            (json!({"album": {"$every": {"title": {"$lt": "Bb"}}}}), vec![2, 3]),
        ] {
            let rows = db.read("artist", json!({"find": find, "select": ["artist_id"]})).await.unwrap();
            let expected: Vec<_> = expected.into_iter().map(|id| json!({"artist_id": id})).collect();
            assert_eq!(rows, json!(expected), "{find}");
        }
    }
}

#[tokio::test]
async fn many_terms_do_not_exhaust_the_database() {
    for db in engines().await {
        let terms: Vec<_> = (0..5000).map(|id| json!({"artist_id": id, "name": {"$ne": null}})).collect();
        let rows = db.read("artist", json!({"find": {"$or": terms}, "shape": "count"})).await.unwrap();
        assert_eq!(rows, json!(2));
        let ids: Vec<i64> = (0..100_000).collect();
        let rows = db.read("artist", json!({"find": {"artist_id": {"$in": ids}}, "shape": "count"})).await;
        assert!(rows.is_ok_and(|rows| rows == json!(3)));
    }
}

#[tokio::test]
async fn the_limit_of_the_database_cuts_and_says_so() {
    for mut db in engines().await {
        db.options.limit = 3;
        let answer = db.answer("artist", json!({"select": ["artist_id"]})).await.unwrap();
        assert!(!answer.truncated, "there are three");
        db.options.limit = 2;
        let answer =
            db.answer("artist", json!({"select": {"artist_id": 1, "album": {"select": ["album_id"]}}})).await.unwrap();
        assert!(answer.truncated);
        assert_eq!(
            answer.json,
            r#"[{"artist_id":1,"album":[{"album_id":1},{"album_id":2}]},{"artist_id":2,"album":[{"album_id":3}]}]"#
        );
        let answer = db.answer("artist", json!({"select": ["artist_id"], "limit": 3})).await.unwrap();
        assert!(!answer.truncated);
        assert_eq!(answer.json, r#"[{"artist_id":1},{"artist_id":2},{"artist_id":3}]"#);
        let answer = db.answer("artist", json!({"limit": 0})).await.unwrap();
        assert_eq!((answer.json.as_ref(), answer.statements), (b"[]".as_slice(), 0));
    }
}

#[tokio::test]
async fn a_level_that_is_too_large_is_refused_by_name() {
    for mut db in engines().await {
        db.options.limit = 1;
        let doc = |n| json!({"name": format!("n{n}"), "album_id": 3, "milliseconds": n});
        let tree = || json!({"find": {"album_id": 3}, "select": {"track": {"select": ["name"]}}});
        db.mutate(db.insert("track", (0..100).map(doc).collect(), None)).await.unwrap();
        let read = db.read("album", tree()).await.unwrap();
        assert_eq!(read[0]["track"].as_array().map(Vec::len), Some(100));
        db.mutate(db.insert("track", doc(100), None)).await.unwrap();
        let read = db.read("album", tree()).await;
        assert!(
            matches!(&read, Err(Error::TooLarge(text)) if text.contains("relation track") && text.contains("limit")),
            "{read:?}"
        );
        let rows = db
            .read("album", json!({"find": {"album_id": 3}, "select": {"track": {"select": ["name"], "limit": 1}}}))
            .await;
        assert_eq!(rows.unwrap(), json!([{"track": [{"name": "n0"}]}]));
    }
}

#[tokio::test]
async fn a_level_of_many_rows_is_whole() {
    for db in engines().await {
        let doc = |n| json!({"name": format!("n{n}"), "album_id": 2 + n % 2, "milliseconds": n});
        db.mutate(db.insert("track", (0..10_000).map(doc).collect(), None)).await.unwrap();
        let tree = json!({"find": {"album_id": {"$gt": 1}}, "select": {"track": {"select": ["name"]}}});
        let albums = db.read("album", tree).await.unwrap();
        for (album, expected) in [(0, "n9998"), (1, "n9999")] {
            let tracks = albums[album]["track"].as_array().unwrap();
            assert_eq!((tracks.len(), &tracks[tracks.len() - 1]["name"]), (5001 - album, &json!(expected)));
        }
    }
}

#[tokio::test]
async fn several_reads_share_a_snapshot_and_keep_their_order() {
    for db in engines().await {
        let known = db.schema();
        let reads = [
            read(&known.schema, "artist", &json!({"shape": "count"})).unwrap(),
            read(&known.schema, "album", &json!({"select": {"title": 1, "artist": {"select": ["name"]}}, "limit": 1}))
                .unwrap(),
            read(&known.schema, "track", &json!({"limit": 0})).unwrap(),
            read(&known.schema, "track", &json!({"shape": "count"})).unwrap(),
        ];
        let answers = db.answers(&reads).await.unwrap();
        let texts: Vec<_> = answers.iter().map(|answer| String::from_utf8(answer.json.to_vec()).unwrap()).collect();
        assert_eq!(texts, ["3", r#"[{"title":"Let There Be Rock","artist":{"name":"AC/DC"}}]"#, "[]", "5"]);
        assert_eq!(answers.iter().map(|answer| answer.statements).collect::<Vec<_>>(), [1, 2, 0, 1]);
    }
}

#[tokio::test]
async fn every_table_is_filtered_by_its_own_rule() {
    for mut db in engines().await {
        db.rule("track", Operation::Read).filter = db.filter("track", json!({"milliseconds": {"$gt": 300_000}}));
        db.rule("album", Operation::Read).filter = db.filter("album", json!({"artist": {"name": "AC/DC"}}));
        let rows = db.read(
            "artist",
            json!({"find": {"artist_id": {"$lt": 3}}, "select": {"artist_id": 1,
            "album": {"select": {"album_id": 1, "track": {"select": ["track_id"]}}}}}),
        );
        assert_eq!(
            rows.await.unwrap(),
            json!([{"artist_id": 1, "album": [{"album_id": 1, "track": [{"track_id": 1}, {"track_id": 3}]},
                {"album_id": 2, "track": [{"track_id": 4}]}]}, {"artist_id": 2, "album": []}])
        );
        // Rows that the caller may not see prove nothing.
        let found = db.read("album", json!({"find": {"track": {"$some": {"name": "Dog Eat Dog"}}}, "shape": "count"}));
        assert_eq!(found.await.unwrap(), json!(0));
        let every = db.read(
            "album",
            json!({"find": {"track": {"$every": {"milliseconds": {"$gt": 300_000}}}}, "shape": "count"}),
        );
        assert_eq!(every.await.unwrap(), json!(2));
        let one = db.read("track", json!({"find": {"track_id": 1}, "select": {"album": {"select": {"title": 1}}}}));
        assert_eq!(one.await.unwrap(), json!([{"album": {"title": "Let There Be Rock"}}]));
    }
}

#[tokio::test]
async fn every_with_an_unknown_fails() {
    for db in engines().await {
        let inner = Filter::Compare {
            column: "album_id".to_owned(),
            comparison: query::Comparison::Gt,
            value: query::Typed::Int(0),
        };
        let filter = Filter::Related {
            relation: "track".to_owned(),
            long_name: None,
            quantifier: Quantifier::Every,
            filter: Box::new(Filter::Not(Box::new(inner))),
        };
        let known = db.schema();
        let mut albums = read(&known.schema, "album", &json!({"select": ["album_id"]})).unwrap();
        albums.node.filter = filter;
        let answer = db.answers(&[albums]).await.unwrap().remove(0);
        assert_eq!(answer.json, r#"[{"album_id":3}]"#);
    }
}

#[tokio::test]
async fn values_of_every_type_go_in_and_out_alike() {
    for mut db in engines().await {
        let doc = json!({
            "id": 1, "flag": true, "big": 9_007_199_254_740_993_i64, "ratio": 0.1, "price": "12.5", "words": "a\"\\\nä",
            "raw": "AP8=", "born": "2009-01-31", "clock": "13:14:15.5", "seen": "2009-01-31T13:14:15.25+01:00",
            "ident": "0190C2C4-7a3e-7cc1-9a3b-5d0a4f0e6b1d", "doc": {"a": [1, null]}
        });
        let written = db.write(&[db.insert("kinds", doc, Some(json!(["id", "price"])))]).await.unwrap().remove(0);
        assert_eq!((written.affected, written.rows.as_slice()), (1, br#"[{"id":1,"price":12.50}]"#.as_slice()));
        db.mutate(db.insert("kinds", json!({"id": 2}), None)).await.unwrap();
        let answer = db.answer("kinds", json!({"find": {"id": 1}})).await.unwrap();
        assert_eq!(
            String::from_utf8(answer.json.to_vec()).unwrap().replace(": ", ":").replace("[1, null]", "[1,null]"),
            concat!(
                r#"[{"id":1,"flag":true,"big":9007199254740993,"ratio":0.1,"price":12.50,"words":"a\"\\\nä","#,
                r#""raw":"AP8=","born":"2009-01-31","clock":"13:14:15.5","seen":"2009-01-31T12:14:15.25Z","#,
                r#""ident":"0190c2c4-7a3e-7cc1-9a3b-5d0a4f0e6b1d","doc":{"a":[1,null]}}]"#
            )
        );
        for find in [
            json!({"flag": true}),
            json!({"big": "9007199254740993"}),
            json!({"ratio": {"$lt": 0.2}}),
            json!({"price": 12.5}),
            json!({"price": {"$in": ["12.50", 3]}}),
            json!({"words": "a\"\\\nä"}),
            json!({"raw": "AP8="}),
            json!({"raw": {"$in": ["AP8=", ""]}}),
            json!({"born": {"$gte": "2009-01-31", "$lt": "2009-02-01"}}),
            json!({"clock": "13:14:15.500"}),
            json!({"seen": {"$lt": "2009-01-31T12:14:15.3Z", "$gt": "2009-01-31T12:14:15Z"}}),
            json!({"seen": {"$in": ["2009-01-31T12:14:15.25Z"]}}),
            json!({"ident": "0190c2c4-7A3E-7cc1-9a3b-5d0a4f0e6b1d"}),
            json!({"flag": {"$in": [true]}}),
        ] {
            let count = db.read("kinds", json!({"find": find, "shape": "count"})).await;
            assert_eq!(count.unwrap(), json!(1), "{find}");
        }
        db.options.numbers = Numbers::Strings;
        let rows = db.read("kinds", json!({"find": {"id": 1}, "select": ["id", "big", "price"]})).await.unwrap();
        assert_eq!(rows.to_string(), r#"[{"id":1,"big":"9007199254740993","price":"12.50"}]"#);
    }
}

#[tokio::test]
async fn names_are_quoted_and_views_are_read() {
    for db in engines().await {
        db.mutate(db.insert("odd \"name", json!([{"select": 1, "a b": "x"}, {"select": 2}]), None)).await.unwrap();
        let rows = db.read("odd \"name", json!({"find": {"a b": "x"}, "sort": ["-select"]})).await.unwrap();
        assert_eq!(rows, json!([{"select": 1, "a b": "x"}]));
        let rows = db.read("titles", json!({"sort": ["title"], "limit": 1, "select": ["title"]})).await.unwrap();
        assert_eq!(rows, json!([{"title": "Back in Black"}]));
    }
}

#[tokio::test]
async fn a_schema_that_moved_is_read_again() {
    for db in engines().await {
        let prefix = db.prefix();
        let version = db.schema().version;
        // On first use: somebody else knows the column before this node looks.
        let mut born = read(&db.schema().schema, "artist", &json!({"select": ["artist_id"], "limit": 1})).unwrap();
        born.node.fields = vec![query::Field::column("born")].into();
        db.execute(&format!("ALTER TABLE {prefix}artist ADD COLUMN born INTEGER")).await;
        let answers = db.answers(std::slice::from_ref(&born)).await.unwrap();
        assert_eq!(answers[0].json, r#"[{"born":null}]"#);
        assert_ne!(db.schema().version, version);
        assert!(!db.database.refresh().await.unwrap());

        db.execute(&format!("ALTER TABLE {prefix}artist DROP COLUMN born")).await;
        let answer = db.answers(&[born]).await;
        assert!(matches!(&answer, Err(Error::Query(query::Error::UnknownColumn { .. }))), "{answer:?}");
        assert_eq!(db.schema().version, version);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn levels_of_one_answer_never_mix_two_states() {
    for db in engines().await {
        let flip = |id: i64| db.update("track", json!({"track_id": 4}), json!({"$set": {"album_id": id}}), None);
        let known = db.schema();
        // One read looks from the album, the other from the track: they agree in every snapshot.
        let options = json!({"find": {"album_id": {"$in": [1, 2]}}, "select": {"album_id": 1, "track": {"select": ["track_id"]}}});
        let albums = read(&known.schema, "album", &options).unwrap();
        let options = json!({"find": {"track_id": 4}, "select": {"album": {"select": {"album_id": 1}}}});
        let track = read(&known.schema, "track", &options).unwrap();
        let writes = async {
            for turn in 0..60 {
                db.mutate(flip(1 + turn % 2)).await.unwrap();
            }
        };
        let reads = async {
            for _ in 0..200 {
                let answers = db.answers_once(&[albums.clone(), track.clone()]).await.unwrap();
                let (albums, track) =
                    (String::from_utf8_lossy(&answers[0].json), String::from_utf8_lossy(&answers[1].json));
                let expected = match track.contains(r#""album_id":1"#) {
                    true => r#"{"track_id":4}]},{"album_id":2,"track":[]}]"#,
                    false => r#"{"album_id":2,"track":[{"track_id":4}]}]"#,
                };
                assert!(albums.ends_with(expected), "{albums} {track}");
                tokio::task::yield_now().await;
            }
        };
        tokio::join!(writes, reads);
    }
}

#[tokio::test]
async fn more_values_than_a_statement_takes_are_too_complex() {
    let db = sqlite().await;
    // There is no list of bytes to bind on SQLite.
    let values = vec![json!("AAAA"); 40_000];
    let read = db.read("kinds", json!({"find": {"raw": {"$in": values}}, "shape": "count"})).await;
    assert!(matches!(read, Err(Error::TooComplex)), "{read:?}");
    let delete = db.mutate(db.delete("kinds", json!({"raw": {"$in": values}}), None)).await;
    assert!(matches!(delete, Err(Error::TooComplex)), "{delete:?}");
}

#[tokio::test]
async fn a_value_that_was_typed_for_another_schema_is_typed_again() {
    let born = |value: &str| Filter::Compare {
        column: "born".to_owned(),
        comparison: query::Comparison::Eq,
        value: query::Typed::Text(value.to_owned()),
    };
    for db in engines().await {
        let doc = query::Document(vec![("born".to_owned(), query::Typed::Text("2009-01-31".to_owned()))]);
        let mut insert = db.insert("kinds", json!([]), None);
        insert.kind = query::MutationKind::Insert { docs: vec![doc].into() };
        db.mutate(insert).await.unwrap();
        let known = db.schema();
        let mut kinds = read(&known.schema, "kinds", &json!({"select": ["born"]})).unwrap();
        kinds.node.filter = born("2009-01-31");
        assert_eq!(
            db.answers(std::slice::from_ref(&kinds)).await.unwrap().remove(0).json,
            r#"[{"born":"2009-01-31"}]"#
        );
        kinds.node.filter = born("yesterday");
        assert!(matches!(db.answers(&[kinds]).await, Err(Error::Query(query::Error::WrongType { .. }))));
    }
}

/// The reads were planned before the schema moved, as by another node.
#[tokio::test]
async fn all_columns_are_those_that_the_table_has_now() {
    for db in engines().await {
        let prefix = db.prefix();
        db.execute(&format!("CREATE TABLE {prefix}memo (id INTEGER PRIMARY KEY, v TEXT, old TEXT, more TEXT)")).await;
        db.execute(&format!("INSERT INTO {prefix}memo VALUES (1, 'x', 'y', 'z')")).await;
        assert!(db.database.refresh().await.unwrap());
        let all = read(&db.schema().schema, "memo", &json!({})).unwrap();
        let named = read(&db.schema().schema, "memo", &json!({"select": ["id", "old"]})).unwrap();
        let insert = db.insert("memo", json!({"id": 2, "v": "n"}), Some(json!([])));
        let told = async || {
            let answer = db.answers(std::slice::from_ref(&all)).await.unwrap().remove(0);
            serde_json::from_slice::<serde_json::Value>(&answer.json).unwrap()
        };
        assert_eq!(told().await, json!([{"id": 1, "v": "x", "old": "y", "more": "z"}]));
        db.execute(&format!("ALTER TABLE {prefix}memo DROP COLUMN old")).await;
        assert_eq!(told().await, json!([{"id": 1, "v": "x", "more": "z"}]));
        let refused = db.answers_once(&[named]).await.unwrap_err();
        assert!(
            matches!(&refused, Error::Query(query::Error::UnknownColumn { column, .. }) if column == "old"),
            "{refused:?}"
        );
        db.execute(&format!("ALTER TABLE {prefix}memo RENAME COLUMN more TO less")).await;
        let written = db.mutate(insert).await;
        assert_eq!(written, Ok((1, json!([{"id": 2, "v": "n", "less": null}]))));
        assert_eq!(told().await, json!([{"id": 1, "v": "x", "less": "z"}, {"id": 2, "v": "n", "less": null}]));
    }
}
