use proptest::prelude::*;

use crate::fixtures::{chinook, graphql, rest, table, typed, types, value};
use crate::value::tests::values;
use crate::{Budget, Comparison, Error, Filter, Limits, Parser, Quantifier, Schema, Spelling, Typed, Value};

fn find(json: &str) -> Result<Filter, Error> {
    let schema = types();
    rest(&schema).filter(schema.table("t").unwrap(), &value(json), &mut Budget::default())
}

fn ok(json: &str) -> Filter {
    find(json).unwrap_or_else(|error| panic!("{json}: {error}"))
}

fn refused(json: &str) -> (&'static str, String) {
    match find(json) {
        Ok(filter) => panic!("{json} is {filter:?}"),
        Err(error) => (error.reason(), error.to_string()),
    }
}

/// A condition on a table of the Chinook database.
fn on(table: &str, json: &str) -> Result<Filter, Error> {
    let schema = chinook();
    rest(&schema).filter(schema.table(table).unwrap(), &value(json), &mut Budget::default())
}

fn compare(column: &str, comparison: Comparison, json: &str) -> Filter {
    Filter::Compare { column: column.to_owned(), comparison, value: typed(column, json) }
}

fn eq(column: &str, json: &str) -> Filter {
    compare(column, Comparison::Eq, json)
}

fn within(column: &str, json: &str) -> Filter {
    let Value::List(values) = value(json) else { panic!() };
    let json = |value: &Value| {
        let mut json = Vec::new();
        value.write_json(&mut json);
        String::from_utf8(json).unwrap()
    };
    Filter::In { column: column.to_owned(), values: values.iter().map(|value| typed(column, &json(value))).collect() }
}

fn is_null(column: &str) -> Filter {
    Filter::IsNull { column: column.to_owned() }
}

fn not(filter: Filter) -> Filter {
    Filter::Not(Box::new(filter))
}

fn related(relation: &str, quantifier: Quantifier, filter: Filter) -> Filter {
    Filter::Related { relation: relation.to_owned(), long_name: None, quantifier, filter: Box::new(filter) }
}

#[test]
fn a_value_is_equality() {
    assert_eq!(ok(r#"{"a": 1}"#), eq("a", "1"));
    assert_eq!(ok(r#"{"s": "x"}"#), eq("s", "\"x\""));
    assert_eq!(ok(r#"{"flag": true}"#), eq("flag", "true"));
    assert_eq!(ok(r#"{"a": {"$eq": 1}}"#), eq("a", "1"));
    assert_eq!(ok(r#"{"t.a": 1}"#), eq("a", "1"));
    assert_eq!(ok(r#"{"a": 1, "s": "x"}"#), Filter::And(vec![eq("a", "1"), eq("s", "\"x\"")]));
}

#[test]
fn a_relation_has_both_its_names_whichever_a_condition_says() {
    let named = |relation: &str, long_name: &str| Filter::Related {
        relation: relation.to_owned(),
        long_name: Some(long_name.to_owned()),
        quantifier: Quantifier::Some,
        filter: Box::new(Filter::IsNull { column: "title".to_owned() }),
    };
    for name in ["employee_by_reports_to", "reports_to_row"] {
        let found = on("employee", &format!(r#"{{"{name}": {{"title": null}}}}"#)).unwrap();
        assert_eq!(found, named("reports_to_row", "employee_by_reports_to"));
    }
    for name in ["employee_by_reports_to_2", "employee"] {
        let found = on("employee", &format!(r#"{{"{name}": {{"$some": {{"title": null}}}}}}"#)).unwrap();
        assert_eq!(found, named("employee", "employee_by_reports_to_2"));
    }
}

#[test]
fn null_is_null() {
    assert_eq!(ok(r#"{"a": null}"#), is_null("a"));
    assert_eq!(ok(r#"{"a": {"$eq": null}}"#), is_null("a"));
    assert_eq!(ok(r#"{"a": {"$ne": null}}"#), not(is_null("a")));
    assert_eq!(ok(r#"{"a": {"$isNull": true}}"#), is_null("a"));
    assert_eq!(ok(r#"{"a": {"$isNull": false}}"#), not(is_null("a")));
    assert_eq!(ok(r#"{"doc": null}"#), is_null("doc"));
    for operator in ["$gt", "$gte", "$lt", "$lte"] {
        assert_eq!(ok(&format!(r#"{{"a": {{"{operator}": null}}}}"#)), Filter::FALSE);
    }
    assert_eq!(refused(r#"{"a": {"$isNull": 1}}"#).1, "invalid $isNull of a: expected boolean, found integer");
}

#[test]
fn a_list_is_membership() {
    assert_eq!(ok(r#"{"a": [1, 2]}"#), within("a", "[1, 2]"));
    assert_eq!(ok(r#"{"a": {"$eq": [1, 2]}}"#), within("a", "[1, 2]"));
    assert_eq!(ok(r#"{"a": {"$in": [1, 2]}}"#), within("a", "[1, 2]"));
    assert_eq!(ok(r#"{"s": {"$in": "x"}}"#), within("s", "[\"x\"]"));
    assert_eq!(ok(r#"{"a": {"$nin": [1, 2]}}"#), not(within("a", "[1, 2]")));
    assert_eq!(ok(r#"{"a": {"$ne": [1, 2]}}"#), not(within("a", "[1, 2]")));
    assert_eq!(ok(r#"{"a": {"$nin": 1}}"#), not(within("a", "[1]")));
}

#[test]
fn an_empty_list_is_decided() {
    for json in [r#"{"a": []}"#, r#"{"a": {"$in": []}}"#, r#"{"$or": []}"#, r#"{"$not": {}}"#] {
        assert_eq!(ok(json), Filter::FALSE, "{json}");
    }
    for json in [
        r#"{"a": {"$nin": []}}"#,
        r#"{"a": {"$ne": []}}"#,
        r#"{"$and": []}"#,
        r#"{}"#,
        r#"{"$and": [{}, {"$and": []}], "a": {"$nin": []}}"#,
        r#"{"$or": [{}]}"#,
        r#"{"$or": [{"a": 1}, {}]}"#,
        r#"{"$not": {"$or": []}}"#,
        "null",
    ] {
        assert_eq!(ok(json), Filter::TRUE, "{json}");
    }
}

#[test]
fn null_in_a_list_is_found() {
    assert_eq!(ok(r#"{"a": {"$in": [1, null]}}"#), Filter::Or(vec![within("a", "[1]"), is_null("a")]));
    assert_eq!(ok(r#"{"a": {"$nin": [1, null]}}"#), Filter::And(vec![not(within("a", "[1]")), not(is_null("a"))]));
    assert_eq!(ok(r#"{"a": [null]}"#), is_null("a"));
}

#[test]
fn unequal_matches_null_for_booleans_only() {
    assert_eq!(ok(r#"{"a": {"$ne": 3}}"#), compare("a", Comparison::Ne, "3"));
    assert_eq!(
        ok(r#"{"flag": {"$ne": true}}"#),
        Filter::Or(vec![compare("flag", Comparison::Ne, "true"), is_null("flag")])
    );
}

#[test]
fn operators_of_one_column_are_all_meant() {
    assert_eq!(
        ok(r#"{"a": {"$gte": 1, "$lt": 5}}"#),
        Filter::And(vec![compare("a", Comparison::Gte, "1"), compare("a", Comparison::Lt, "5")])
    );
    assert_eq!(ok(r#"{"a": {"$not": {"$gt": 3}}}"#), not(compare("a", Comparison::Gt, "3")));
}

#[test]
fn branches_nest() {
    let (a, b, c) = (eq("a", "1"), eq("small", "2"), eq("big", "3"));
    assert_eq!(ok(r#"{"$or": [{"a": 1}, {"small": 2}]}"#), Filter::Or(vec![a.clone(), b.clone()]));
    assert_eq!(ok(r#"{"$or": [{"a": 1}]}"#), a);
    assert_eq!(ok(r#"{"$or:1": [{"a": 1}, {"small": 2}]}"#), Filter::Or(vec![a.clone(), b.clone()]));
    assert_eq!(
        ok(r#"{"$or": [{"a": 1}, {"$or": [{"small": 2}, {"big": 3}]}]}"#),
        Filter::Or(vec![a.clone(), Filter::Or(vec![b.clone(), c.clone()])])
    );
    assert_eq!(
        ok(r#"{"big": 3, "$or": [{"a": 1}, {"small": 2}]}"#),
        Filter::And(vec![c, Filter::Or(vec![a.clone(), b.clone()])])
    );
    assert_eq!(ok(r#"{"$and": [{"a": 1}, {"small": 2}]}"#), Filter::And(vec![a.clone(), b]));
    assert_eq!(ok(r#"{"$not": {"a": 1}}"#), not(a));
}

#[test]
fn malformed_conditions_say_what_was_expected() {
    for (json, message) in [
        (r#"{"a": {}}"#, "empty condition on column a"),
        (r#"{"a": {"$in": null}}"#, "invalid $in of a: expected array, found null"),
        (r#"{"a": {"$nin": {}}}"#, "invalid $nin of a: expected array, found object"),
        (r#"{"a": {"$not": 3}}"#, "invalid $not: expected object, found integer"),
        (r#"{"$and": {"a": {"$gt": 1}}}"#, "invalid $and: expected array, found object"),
        (r#"{"$or": null}"#, "invalid $or: expected array, found null"),
        (r#"{"$or": [1]}"#, "invalid $or: expected object, found integer"),
        (r#"{"$or": [null]}"#, "invalid $or: expected object, found null"),
        (r#"{"$not": [{"a": 1}]}"#, "invalid $not: expected object, found array"),
    ] {
        assert_eq!(refused(json), ("BAD_REQUEST", message.to_owned()), "{json}");
    }
    assert_eq!(refused("[]"), ("WRONG_TYPE", "invalid condition: expected object, found array".to_owned()));
}

#[test]
fn unknown_names_are_refused_with_the_nearest() {
    for (json, reason, message) in [
        (r#"{"a": {"$foo": 1}}"#, "UNKNOWN_OPERATOR", "operator $foo is not known"),
        (r#"{"a": {"$gtt": 1}}"#, "UNKNOWN_OPERATOR", "operator $gtt is not known; did you mean $gt?"),
        (r#"{"a": {"gt": 1}}"#, "UNKNOWN_OPERATOR", "operator gt is not known; did you mean $gt?"),
        (r#"{"a": {"_gt": 1}}"#, "UNKNOWN_OPERATOR", "operator _gt is not known; did you mean $gt?"),
        (r#"{"a": {"b": 1}}"#, "UNKNOWN_OPERATOR", "operator b is not known"),
        (r#"{"s": {"$like": "x%"}}"#, "UNKNOWN_OPERATOR", "operator $like is not known"),
        (r#"{"$nor": []}"#, "UNKNOWN_OPERATOR", "operator $nor is not known; did you mean $not?"),
        (r#"{"a; drop table x": 1}"#, "UNKNOWN_COLUMN", "column a; drop table x is not in table t"),
        (r#"{"smal": 1}"#, "UNKNOWN_COLUMN", "column smal is not in table t; did you mean small?"),
        (r#"{"x.a": 1}"#, "UNKNOWN_COLUMN", "column x.a is not in table t"),
        (r#"{"_or": []}"#, "UNKNOWN_COLUMN", "column _or is not in table t"),
    ] {
        let (found_reason, found) = refused(json);
        assert_eq!(found_reason, reason, "{json}");
        assert!(found.starts_with(message), "{json}: {found}");
    }
}

#[test]
fn values_fit_their_columns() {
    for (json, reason) in [
        (r#"{"a": "x"}"#, "WRONG_TYPE"),
        (r#"{"a": 2147483648}"#, "OUT_OF_RANGE"),
        (r#"{"a": {"$gt": [1, 2]}}"#, "WRONG_TYPE"),
        (r#"{"a": {"$gt": {}}}"#, "WRONG_TYPE"),
        (r#"{"a": {"$eq": {"k": 1}}}"#, "WRONG_TYPE"),
        (r#"{"a": [[1]]}"#, "WRONG_TYPE"),
        (r#"{"a": {"$in": [1, "x"]}}"#, "WRONG_TYPE"),
        (r#"{"s": 5}"#, "WRONG_TYPE"),
        (r#"{"flag": 1}"#, "WRONG_TYPE"),
        (r#"{"flag": {"$ne": "x"}}"#, "WRONG_TYPE"),
        (r#"{"at": "yesterday"}"#, "WRONG_TYPE"),
        (r#"{"doc": 5}"#, "WRONG_TYPE"),
        (r#"{"doc": {"$eq": {"k": 1}}}"#, "WRONG_TYPE"),
    ] {
        assert_eq!(refused(json).0, reason, "{json}");
    }
    assert_eq!(refused(r#"{"small": 40000}"#).1, "small is out of range: expected integer from -32768 to 32767");
    ok(r#"{"big": "9007199254740993", "d": "0.10", "at": "2009-01-01", "a": 5.0, "f": 1}"#);
}

#[test]
fn a_relation_to_one_takes_a_condition() {
    let name = || related("artist", Quantifier::Some, eq("name", "\"x\""));
    assert_eq!(on("album", r#"{"artist": {"name": "x"}}"#), Ok(name()));
    assert_eq!(on("album", r#"{"artist": null}"#), Ok(related("artist", Quantifier::None, Filter::TRUE)));
    assert_eq!(on("album", r#"{"artist": {"$isNull": true}}"#), Ok(related("artist", Quantifier::None, Filter::TRUE)));
    assert_eq!(on("album", r#"{"artist": {"$isNull": false}}"#), Ok(related("artist", Quantifier::Some, Filter::TRUE)));
    assert_eq!(on("album", r#"{"artist": {}}"#), Ok(related("artist", Quantifier::Some, Filter::TRUE)));
    assert_eq!(
        on("album", r#"{"artist": {"$isNull": false, "name": "x"}}"#),
        Ok(Filter::And(vec![related("artist", Quantifier::Some, Filter::TRUE), name()]))
    );
    assert_eq!(on("album", r#"{"artist": {"artist.name": "x"}}"#), Ok(name()));
    assert_eq!(on("album", r#"{"artist": 5}"#).unwrap_err().reason(), "WRONG_TYPE");
    assert_eq!(on("album", r#"{"artist": {"nam": "x"}}"#).unwrap_err().reason(), "UNKNOWN_COLUMN");
    assert_eq!(on("album", r#"{"artist": {"$isNull": 1}}"#).unwrap_err().reason(), "WRONG_TYPE");
    assert_eq!(
        on("album", r#"{"artists": {"name": "x"}}"#).unwrap_err().to_string(),
        "column artists is not in table album; did you mean artist?"
    );
}

#[test]
fn a_relation_to_many_takes_quantified_conditions() {
    let long = || compare("milliseconds", Comparison::Gt, "1000");
    assert_eq!(
        on("album", r#"{"track": {"$some": {"milliseconds": {"$gt": 1000}}}}"#),
        Ok(related("track", Quantifier::Some, long()))
    );
    assert_eq!(
        on("album", r#"{"track": {"$none": {"milliseconds": {"$gt": 1000}}, "$every": {"genre": {"name": "x"}}}}"#),
        Ok(Filter::And(vec![
            related("track", Quantifier::None, long()),
            related("track", Quantifier::Every, related("genre", Quantifier::Some, eq("name", "\"x\""))),
        ]))
    );
    assert_eq!(on("album", r#"{"track": {"$some": {}}}"#), Ok(related("track", Quantifier::Some, Filter::TRUE)));
    let refused = |json: &str| {
        let error = on("album", json).unwrap_err();
        (error.reason(), error.to_string())
    };
    assert_eq!(refused(r#"{"track": {}}"#), ("BAD_REQUEST", "empty condition on relation track".to_owned()));
    assert_eq!(
        refused(r#"{"track": {"name": "x"}}"#),
        ("UNKNOWN_OPERATOR", "operator name is not known; did you mean $some?".to_owned())
    );
    assert_eq!(
        refused(r#"{"track": null}"#),
        ("WRONG_TYPE", "invalid track: expected object of $some, $none, $every, found null".to_owned())
    );
    assert_eq!(
        refused(r#"{"track": {"$some": null}}"#),
        ("BAD_REQUEST", "invalid $some: expected object, found null".to_owned())
    );
}

#[test]
fn graphql_spells_operators_with_underscores_and_accepts_dollars() {
    let schema = chinook();
    let track = schema.table("track").unwrap();
    let album = schema.table("album").unwrap();
    let parser = graphql(&schema);
    for (table, graphql, dollar) in [
        (track, r#"{"milliseconds": {"_gt": 1, "$lt": 5}}"#, r#"{"milliseconds": {"$gt": 1, "$lt": 5}}"#),
        (track, r#"{"_or": [{"name": "x"}, {"bytes": 1}]}"#, r#"{"$or": [{"name": "x"}, {"bytes": 1}]}"#),
        (track, r#"{"$or": [{"name": "x"}, {"bytes": 1}]}"#, r#"{"$or": [{"name": "x"}, {"bytes": 1}]}"#),
        (track, r#"{"_not": {"bytes": {"_isNull": true}}}"#, r#"{"$not": {"bytes": {"$isNull": true}}}"#),
        (track, r#"{"track__name": "x", "track.bytes": 1}"#, r#"{"name": "x", "bytes": 1}"#),
        (track, r#"{"album": {"_isNull": true}}"#, r#"{"album": {"$isNull": true}}"#),
        (album, r#"{"track": {"_some": {"name": {"_ne": "x"}}}}"#, r#"{"track": {"$some": {"name": {"$ne": "x"}}}}"#),
    ] {
        let expected = rest(&schema).filter(table, &value(dollar), &mut Budget::default()).unwrap();
        assert_eq!(parser.filter(table, &value(graphql), &mut Budget::default()), Ok(expected), "{graphql}");
    }
    let unknown = parser.filter(track, &value(r#"{"bytes": {"_gtt": 1}}"#), &mut Budget::default()).unwrap_err();
    assert_eq!(unknown.to_string(), "operator _gtt is not known; did you mean _gt?");
    assert_eq!(
        parser.filter(track, &value(r#"{"_nor": []}"#), &mut Budget::default()).unwrap_err().reason(),
        "UNKNOWN_COLUMN"
    );
}

#[test]
fn a_column_that_is_called_like_an_operator_is_a_column() {
    let schema = Schema::new(vec![crate::fixtures::table("t", "_or:int _id:int $or:int", &[], &[])]);
    let table = schema.table("t").unwrap();
    let one =
        |column: &str| Filter::Compare { column: column.to_owned(), comparison: Comparison::Eq, value: Typed::Int(1) };
    assert_eq!(graphql(&schema).filter(table, &value(r#"{"_or": 1}"#), &mut Budget::default()), Ok(one("_or")));
    assert_eq!(graphql(&schema).filter(table, &value(r#"{"_id": 1}"#), &mut Budget::default()), Ok(one("_id")));
    assert_eq!(rest(&schema).filter(table, &value(r#"{"$or": []}"#), &mut Budget::default()), Ok(Filter::FALSE));
    assert_eq!(rest(&schema).filter(table, &value(r#"{"t.$or": 1}"#), &mut Budget::default()), Ok(one("$or")));
}

#[test]
fn limits_count_conditions_and_levels() {
    let schema = types();
    let table = schema.table("t").unwrap();
    let parse = |filter_depth, nodes, json: &str| {
        let mut budget = Budget::new(Limits { filter_depth, nodes, ..Limits::default() });
        rest(&schema).filter(table, &value(json), &mut budget).map(|_| ())
    };
    let nested = r#"{"$or": [{"a": 1}, {"$not": {"a": {"$in": [1, 2], "$not": {"$gt": 3}}}}]}"#;
    assert_eq!(parse(4, 6, nested), Ok(()));
    assert_eq!(parse(3, 6, nested), Err(Error::TooComplex { what: "filter depth", seen: 4, limit: 3 }));
    assert_eq!(parse(4, 5, nested), Err(Error::TooComplex { what: "nodes", seen: 6, limit: 5 }));
    for same in [r#"{"a": {"$eq": 1}}"#, r#"{"a": 1}"#, r#"{"a": null}"#, r#"{"a": [1, 2, 3]}"#] {
        assert_eq!(parse(1, 1, same), Ok(()), "{same}");
    }
    assert!(parse(1, 9, r#"{"$and": [{"a": 1}]}"#).is_err(), "a connective of one condition is one");
}

#[test]
fn a_relation_around_a_condition_is_a_level() {
    let schema = chinook();
    let parse = |table: &str, filter_depth, json: &str| {
        let mut budget = Budget::new(Limits { filter_depth, ..Limits::default() });
        rest(&schema).filter(schema.table(table).unwrap(), &value(json), &mut budget).map(|_| ())
    };
    let error = Err(Error::TooComplex { what: "filter depth", seen: 3, limit: 2 });
    for (table, two, three) in [
        ("album", r#"{"artist": {"name": "x"}}"#, r#"{"artist": {"album": {"$some": {"title": "x"}}}}"#),
        ("artist", r#"{"album": {"$some": {"title": "x"}}}"#, r#"{"album": {"$some": {"artist": {"name": "x"}}}}"#),
        ("artist", r#"{"$not": {"name": "x"}}"#, r#"{"$not": {"$not": {"name": "x"}}}"#),
        // What stands beside it is at its level.
        (
            "artist",
            r#"{"$not": {"name": "x"}, "album": {"$some": {"title": "x"}, "$none": {"title": "y"}}}"#,
            r#"{"$or": [{"$not": {"name": "x"}}]}"#,
        ),
    ] {
        assert_eq!(parse(table, 2, two), Ok(()), "{two}");
        assert_eq!(parse(table, 2, three), error, "{three}");
    }
}

#[test]
fn lists_have_a_limit_each_and_all_together() {
    let schema = types();
    let table = schema.table("t").unwrap();
    let parse = |json: &str| {
        let mut budget = Budget::new(Limits { list_items: 3, values: 5, ..Limits::default() });
        rest(&schema).filter(table, &value(json), &mut budget).map(|_| ())
    };
    let long = Error::TooLong { list: "the list for a".to_owned(), seen: 4, limit: 3 };
    for json in [r#"{"a": [1, 2, 3, 4]}"#, r#"{"a": {"$nin": [1, 2, 3, 4]}}"#, r#"{"a": {"$ne": [1, 2, 3, 4]}}"#] {
        assert_eq!(parse(json), Err(long.clone()), "{json}");
    }
    assert_eq!(long.to_string(), "the list for a of 4 items is over the limit of 3");
    assert_eq!(long.reason(), "TOO_LARGE");
    assert_eq!(parse(r#"{"a": [1, 2, 3], "small": [1, 2]}"#), Ok(()));
    let many = Error::TooComplex { what: "values", seen: 6, limit: 5 };
    assert_eq!(parse(r#"{"a": [1, 2, 3], "small": [1, 2, 3]}"#), Err(many));
}

#[test]
fn a_list_is_one_value_of_a_column_of_lists() {
    let schema = Schema::new(vec![table("t", "id:int tags:int[]?", &["id"], &[])]);
    let parse = |json: &str, values| {
        let mut budget = Budget::new(Limits { values, ..Limits::default() });
        rest(&schema).filter(schema.table("t").unwrap(), &value(json), &mut budget)
    };
    let list = |items: &[i64]| Typed::List(items.iter().map(|item| Typed::Int(*item)).collect());
    let tags = || "tags".to_owned();
    let compared = |comparison| Filter::Compare { column: tags(), comparison, value: list(&[1, 2]) };
    for (json, expected) in [
        (r#"{"tags": [1, 2]}"#, compared(Comparison::Eq)),
        (r#"{"tags": {"$eq": [1, 2]}}"#, compared(Comparison::Eq)),
        (r#"{"tags": {"$ne": [1, 2]}}"#, compared(Comparison::Ne)),
        (r#"{"tags": {"$gt": [1, 2]}}"#, compared(Comparison::Gt)),
    ] {
        assert_eq!(parse(json, 3), Ok(expected), "{json}");
        assert_eq!(parse(json, 2), Err(Error::TooComplex { what: "values", seen: 3, limit: 2 }), "{json}");
    }
    let within = Filter::In { column: tags(), values: vec![list(&[1]), list(&[2, 3])] };
    assert_eq!(parse(r#"{"tags": {"$in": [[1], [2, 3]]}}"#, 5), Ok(within));
}

#[test]
fn long_names_are_not_echoed() {
    let long = "x".repeat(1_000_000);
    for json in [
        format!(r#"{{"{long}": 1}}"#),
        format!(r#"{{"${long}": 1}}"#),
        format!(r#"{{"a": {{"${long}": 1}}}}"#),
        format!(r#"{{"$or:{long}": 1}}"#),
        format!(r#"{{"s": {{"$gt": ["{long}"]}}}}"#),
        format!(r#"{{"at": "{long}"}}"#),
        format!(r#"{{"a": {{"$in": {{"{long}": 1}}}}}}"#),
    ] {
        assert!(refused(&json).1.len() < 300);
    }
}

/// Documents that look like conditions more often than not.
fn likely(keys: &'static [&'static str]) -> impl Strategy<Value = Value> {
    values().prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::List),
            prop::collection::btree_map(prop::sample::select(keys), inner, 0..5).prop_map(|members| {
                let members = members.into_iter().map(|(name, value)| (name.to_owned(), value));
                Value::Object(crate::Object(members.collect()))
            }),
        ]
    })
}

const KEYS: &[&str] = &[
    "name",
    "title",
    "album_id",
    "artist",
    "track",
    "album",
    "$or",
    "_or",
    "$and:1",
    "$not",
    "$some",
    "_every",
    "$none",
    "$eq",
    "$ne",
    "$in",
    "_nin",
    "$gt",
    "$isNull",
    "select",
    "find",
    "where",
    "sort",
    "limit",
    "skip",
    "$set",
    "set",
    "$inc",
    "album.title",
    "album__title",
    "$x",
    "_",
];

proptest! {
    #[test]
    fn no_value_makes_the_parser_panic(document in likely(KEYS)) {
        let schema = chinook();
        for spelling in [Spelling::Dollar, Spelling::Underscore] {
            let parser = Parser { schema: &schema, spelling };
            for name in ["album", "artist", "employee"] {
                let table = schema.table(name).unwrap();
                let _ = parser.filter(table, &document, &mut Budget::default());
                let _ = parser.sort(table, &document);
                let _ = parser.changes(table, &document, &mut Budget::default());
                let _ = parser.docs(table, &document, &mut Budget::default());
                let options = crate::Options {
                    select: Some(document.clone()),
                    limit: Some(document.clone()),
                    ..Default::default()
                };
                let _ = parser.node(table, &options, &mut Budget::default());
            }
        }
    }
}
