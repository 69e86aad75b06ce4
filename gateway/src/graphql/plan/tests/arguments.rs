//! Arguments: conditions, orders, pages.

use super::*;

#[test]
fn conditions_take_operators_and_plain_values() {
    let filter = |text: &str| read(&format!("{{ album(where: {text}) {{ title }} }}")).node.filter;

    assert_eq!(filter(r#"{title: "x"}"#), equal("title", text("x")));
    assert_eq!(filter("{title: null}"), Filter::IsNull { column: "title".to_owned() });
    assert_eq!(filter("null"), Filter::TRUE);
    assert_eq!(
        filter("{album_id: [1, 2]}"),
        Filter::In { column: "album_id".to_owned(), values: vec![Typed::Int(1), Typed::Int(2)] }
    );
    assert_eq!(
        filter(r#"{_or: [{album_id: {_lt: 3}}, {artist: {name: "AC/DC"}}]}"#),
        Filter::Or(vec![
            compare("album_id", Comparison::Lt, Typed::Int(3)),
            Filter::Related {
                relation: "artist".to_owned(),
                long_name: None,
                quantifier: Quantifier::Some,
                filter: Box::new(equal("name", text("AC/DC"))),
            },
        ])
    );
    assert_eq!(filter(r#"{album__title: "x"}"#), equal("title", text("x")));
}

#[test]
fn texts_are_kept_as_they_are() {
    let read = read(r#"{ album(where: {title: "a__b"}) { title } }"#);

    assert_eq!(read.node.filter, equal("title", text("a__b")));
    assert_eq!(
        mutation(r#"mutation { insert_album(docs: [{title: "user__name@x.com", artist_id: 1}]) { status } }"#),
        MutationKind::Insert {
            docs: vec![query::Document(vec![
                ("title".to_owned(), text("user__name@x.com")),
                ("artist_id".to_owned(), Typed::Int(1))
            ])]
            .into()
        }
    );
}

#[test]
fn operators_in_variables_may_be_spelled_both_ways() {
    let query = "query($w: AlbumFilter) { album(where: $w) { title } }";
    let underscore = read_with(query, r#"{"w": {"_or": [{"title": "x"}], "album_id": {"_gt": 1}}}"#);
    let dollar = read_with(query, r#"{"w": {"$or": [{"title": "x"}], "album_id": {"$gt": 1}}}"#);

    assert_eq!(underscore, dollar);
    assert_eq!(read_with(query, "{}").node.filter, Filter::TRUE);
}

#[test]
fn an_absent_variable_leaves_its_member_out() {
    let query = "query($t: String, $n: String) { album(where: {title: $t, album_id: {_gt: 1}}, limit: 1) { title } }";

    assert_eq!(read_with(query, "{}").node.filter, compare("album_id", Comparison::Gt, Typed::Int(1)));
    assert_eq!(
        read_with(query, r#"{"t": null}"#).node.filter,
        Filter::And(vec![
            Filter::IsNull { column: "title".to_owned() },
            compare("album_id", Comparison::Gt, Typed::Int(1))
        ])
    );
    assert_eq!(error("{ album(where: {title: $t}) { title } }"), "variable $t is not declared");
}

#[test]
fn numbers_keep_every_digit() {
    let read = read("{ track(where: {unit_price: 0.12345678901234567890}) { name } }");

    assert_eq!(read.node.filter, equal("unit_price", Typed::Decimal("0.12345678901234567890".to_owned())));
    assert!(error("{ album(where: {album_id: 99999999999999999999}) { title } }").contains("out of range"));
}

#[test]
fn orders_have_many_spellings() {
    let sort = |text: &str| read(&format!("{{ album(sort: {text}) {{ title }} }}")).node.sort;
    let key = |column: &str, descending| Sort { column: column.to_owned(), descending };

    assert_eq!(sort(r#"["-title", "album_id"]"#), [key("title", true), key("album_id", false)]);
    assert_eq!(sort("[title_desc, album_id_asc]"), [key("title", true), key("album_id", false)]);
    assert_eq!(sort("title_desc"), [key("title", true)]);
    assert_eq!(sort("title"), [key("title", false)]);
    assert_eq!(sort("{title: -1, album_id: asc}"), [key("title", true), key("album_id", false)]);
    assert_eq!(sort("{title: desc, album_id: ASC}"), [key("title", true), key("album_id", false)]);
    assert_eq!(
        error("{ album(sort: {title: up}) { title } }"),
        "invalid sort of title: expected 1 or -1, found string"
    );
    assert_eq!(
        error("{ album(sort: [titel_desc]) { title } }"),
        "column titel is not in table album; did you mean title?"
    );
    assert!(error("{ album(sort: 1) { title } }").starts_with("invalid sort: expected "));
}

#[test]
fn skip_and_limit_are_whole_numbers() {
    assert_eq!(read("{ album(limit: 0) { title } }").node.limit, Some(0));
    assert_eq!(error(r#"{ album(limit: "2") { title } }"#), "invalid limit: expected integer, found string");
    assert_eq!(
        error("{ album(limit: 2.9) { title } }"),
        "invalid limit: expected integer, found number with a fraction"
    );
    assert_eq!(error("{ album(skip: -1) { title } }"), "invalid skip: must not be negative");
    assert!(error("{ album(skip: 99999999999999999999) { title } }").contains("out of range"));
}

#[test]
fn all_rows_are_meant_unless_another_op_is_named() {
    assert_eq!(read("{ album(op: all, limit: 2) { title } }"), read("{ album(limit: 2) { title } }"));
    for page in ["skip: 1", "limit: 1"] {
        let text = format!("{{ album(op: count, {page}) @music }}");
        assert_eq!(error(&text), "invalid op count: skip and limit are not allowed");
    }
}

#[test]
fn wrong_conditions_are_refused_where_they_stand() {
    let refusal = refusal("{\n  album(where: 5) { title } }");

    assert_eq!(refusal.at.map(|at| (at.line, at.column)), Some((2, 16)));
    assert_eq!(refusal.path, ["album"]);
    assert_eq!(
        refusal.accesses,
        [RootAccess { database: "music".to_owned(), table: "album".to_owned(), operation: Operation::Read }]
    );
    assert_eq!(message(refusal), "invalid where: expected object of conditions, found integer");
}

#[test]
fn renamed_columns_are_meant_by_their_graphql_names_everywhere() {
    let project = fixture::odd_names();
    let plan = |text: &str| planned(&project, text, "{}").unwrap_or_else(|refusal| panic!("{refusal:?}"));

    let rows = plan(
        r#"{ order_items(where: {unit_price_1: "a", _or: [{_2nd: "b"}]}, sort: [_2nd_desc]) { unit_price_1 unit_price _2nd } }"#,
    );
    let node = &rows.reads[0].node;
    assert_eq!(
        node.fields[..],
        [column("unit_price_1", "unit price"), column("unit_price", "unit_price"), column("_2nd", "2nd")]
    );
    assert_eq!(node.filter, Filter::And(vec![equal("unit price", text("a")), equal("2nd", text("b"))]));
    assert_eq!(node.sort, [Sort { column: "2nd".to_owned(), descending: true }]);
    assert_eq!(plan("{ order_items_by_pk(_2nd: \"x\") { _2nd } }").reads[0].node.filter, equal("2nd", text("x")));
    let inserted = plan(r#"mutation { insert_order_items(docs: {_2nd: "x"}) { status } }"#);
    assert_eq!(
        inserted.writes[0].1.kind,
        MutationKind::Insert { docs: vec![query::Document(vec![("2nd".to_owned(), text("x"))])].into() }
    );
    assert_eq!(plan("{ order_items @odd }").reads[0].node.fields[0], column("unit_price_1", "unit price"));
}
