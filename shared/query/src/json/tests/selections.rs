use crate::fixtures::{chinook, rest, types, value};
use crate::{Budget, Error, Field, FieldKind, Filter, Limits, Node, Options, SelectionCost, Shape, Sort};

/// The node of `options`, written as JSON, on a table of the Chinook database.
fn node(table: &str, options: &str) -> Result<Node, Error> {
    let schema = chinook();
    let options = value(options);
    let crate::Value::Object(options) = options else { panic!() };
    let given = |name| options.get(name).cloned();
    let options = Options { select: given("select"), sort: given("sort"), skip: given("skip"), limit: given("limit") };
    rest(&schema).node(schema.table(table).unwrap(), &options, &mut Budget::default())
}

fn ok(table: &str, options: &str) -> Node {
    node(table, options).unwrap_or_else(|error| panic!("{options}: {error}"))
}

fn refused(table: &str, options: &str) -> (&'static str, String) {
    match node(table, options) {
        Ok(node) => panic!("{options} is {node:?}"),
        Err(error) => (error.reason(), error.to_string()),
    }
}

fn keys(node: &Node) -> Vec<&str> {
    node.fields.iter().map(|field| field.key.as_str()).collect()
}

fn relation<'n>(node: &'n Node, name: &str) -> &'n Node {
    let field = node.fields.iter().find(|field| field.key == name).unwrap();
    match &field.kind {
        FieldKind::Relation { node, .. } => node,
        other => panic!("{other:?}"),
    }
}

#[test]
fn no_selection_is_every_column() {
    for options in [r#"{}"#, r#"{"select": null}"#, r#"{"select": []}"#, r#"{"select": {}}"#] {
        assert_eq!(ok("album", options).fields[..], [Field::columns()], "{options}");
    }
    let node = ok("album", "{}");
    assert_eq!((node.shape, node.skip, node.limit), (Shape::Many, 0, None));
    assert!(node.filter.is_true() && node.sort.is_empty());
}

#[test]
fn a_selection_keeps_its_order() {
    assert_eq!(keys(&ok("album", r#"{"select": ["title", "album_id", "title"]}"#)), ["title", "album_id"]);
    assert_eq!(keys(&ok("album", r#"{"select": {"title": 1, "album_id": true}}"#)), ["title", "album_id"]);
    assert_eq!(ok("album", r#"{"select": {"album.title": 1}}"#).fields[..], [Field::column("title")]);
}

#[test]
fn relations_are_selected_with_all_columns_or_a_tree() {
    let node = ok("album", r#"{"select": {"title": 1, "artist": 1, "track": {"select": ["name"]}}}"#);
    assert_eq!(keys(&node), ["title", "artist", "track"]);
    assert_eq!(relation(&node, "artist").fields[..], [Field::columns()]);
    assert_eq!(relation(&node, "artist").shape, Shape::One);
    assert_eq!(keys(relation(&node, "track")), ["name"]);
    assert_eq!(relation(&node, "track").shape, Shape::Many);
    assert_eq!(relation(&ok("album", r#"{"select": ["artist"]}"#), "artist").fields[..], [Field::columns()]);
    assert_eq!(relation(&ok("album", r#"{"select": {"artist": {}}}"#), "artist").fields[..], [Field::columns()]);
}

#[test]
fn a_relation_that_is_called_by_its_long_name_is_answered_by_it() {
    let node = ok("employee", r#"{"select": {"employee_by_reports_to": 1, "employee": {"select": ["title"]}}}"#);
    assert_eq!(keys(&node), ["employee_by_reports_to", "employee"]);
    let names = node.fields.iter().map(|field| match &field.kind {
        FieldKind::Relation { name, .. } => name.as_str(),
        other => panic!("{other:?}"),
    });
    assert_eq!(names.collect::<Vec<_>>(), ["reports_to_row", "employee"]);
}

#[test]
fn options_of_a_relation_are_its_own() {
    let node = ok(
        "album",
        r#"{"limit": 3, "select": {"artist": {"select": {"name": 1, "album": {"limit": 1}}, "find": {"name": "x"}},
            "track": {"where": {"bytes": null}, "sort": ["-name"], "skip": 2, "limit": 5}}}"#,
    );
    let track = relation(&node, "track");
    assert_eq!(track.filter, Filter::IsNull { column: "bytes".to_owned() });
    assert_eq!(track.sort, [Sort { column: "name".to_owned(), descending: true }]);
    assert_eq!((track.skip, track.limit), (2, Some(5)));
    assert_eq!(relation(relation(&node, "artist"), "album").limit, Some(1));
    assert!(!relation(&node, "artist").filter.is_true());
    assert_eq!(node.limit, Some(3));
}

#[test]
fn unknown_and_misplaced_options_are_refused() {
    for (options, reason, message) in [
        (r#"{"select": {"artist": {"limit": 1}}}"#, "UNKNOWN_ARGUMENT", "argument artist.limit is not known"),
        (
            r#"{"select": {"track": {"limi": 1}}}"#,
            "UNKNOWN_ARGUMENT",
            "argument track.limi is not known; did you mean limit?",
        ),
        (r#"{"select": {"track": {"name": 1}}}"#, "UNKNOWN_ARGUMENT", "argument track.name is not known"),
        (
            r#"{"select": {"track": {"find": {}, "where": {}}}}"#,
            "BAD_REQUEST",
            "relation track has both find and where",
        ),
        (r#"{"select": {"title": 0}}"#, "BAD_REQUEST", "select cannot leave out title: name what to select"),
        (r#"{"select": {"title": 2}}"#, "WRONG_TYPE", "invalid select of title: expected 1, found integer"),
        (r#"{"select": {"title": {}}}"#, "WRONG_TYPE", "invalid select of title: expected 1, found object"),
        (
            r#"{"select": {"track": "x"}}"#,
            "WRONG_TYPE",
            "invalid select of track: expected 1 or object of options, found string",
        ),
        (r#"{"select": "title"}"#, "WRONG_TYPE", "invalid select: expected array of names or object, found string"),
        (r#"{"select": [1]}"#, "WRONG_TYPE", "invalid select: expected array of names, found integer"),
        (r#"{"select": ["titel"]}"#, "UNKNOWN_COLUMN", "column titel is not in table album; did you mean title?"),
    ] {
        let (found_reason, found) = refused("album", options);
        assert_eq!(found_reason, reason, "{options}");
        assert!(found.starts_with(message), "{options}: {found}");
    }
}

#[test]
fn sort_has_three_forms() {
    let key = |column: &str, descending| Sort { column: column.to_owned(), descending };
    let expected = [key("title", false), key("album_id", true)];
    for options in [
        r#"{"sort": ["title", "-album_id"]}"#,
        r#"{"sort": ["album.title", "-album.album_id"]}"#,
        r#"{"sort": {"title": 1, "album_id": -1}}"#,
        r#"{"sort": ["title", "-album_id", "-title"]}"#,
    ] {
        assert_eq!(ok("album", options).sort, expected, "{options}");
    }
    assert_eq!(ok("album", r#"{"sort": "-title"}"#).sort, [key("title", true)]);
    assert!(ok("album", r#"{"sort": null}"#).sort.is_empty());
    for (options, reason) in [
        (r#"{"sort": ["titel"]}"#, "UNKNOWN_COLUMN"),
        (r#"{"sort": ["--title"]}"#, "UNKNOWN_COLUMN"),
        (r#"{"sort": ["artist"]}"#, "UNKNOWN_COLUMN"),
        (r#"{"sort": [1]}"#, "WRONG_TYPE"),
        (r#"{"sort": 1}"#, "WRONG_TYPE"),
        (r#"{"sort": {"title": 0}}"#, "WRONG_TYPE"),
        (r#"{"sort": {"title": "desc"}}"#, "WRONG_TYPE"),
    ] {
        assert_eq!(refused("album", options).0, reason, "{options}");
    }
}

#[test]
fn json_has_no_order() {
    let schema = types();
    let refused = rest(&schema).sort(schema.table("t").unwrap(), &value(r#"["doc"]"#));
    assert_eq!(
        refused.unwrap_err().to_string(),
        "invalid sort: expected column that has an order, found doc, which holds JSON"
    );
}

#[test]
fn counts_are_integers_from_zero() {
    let node = ok("album", r#"{"skip": 0, "limit": 0}"#);
    assert_eq!((node.skip, node.limit), (0, Some(0)));
    assert_eq!(ok("album", r#"{"limit": 5.0}"#).limit, Some(5));
    assert_eq!(ok("album", r#"{"limit": null, "skip": null}"#).limit, None);
    for (options, reason, message) in [
        (r#"{"limit": -1}"#, "BAD_REQUEST", "invalid limit: must not be negative"),
        (r#"{"skip": -1.0}"#, "BAD_REQUEST", "invalid skip: must not be negative"),
        (r#"{"limit": 2.9}"#, "WRONG_TYPE", "invalid limit: expected integer, found number with a fraction"),
        (r#"{"limit": "5"}"#, "WRONG_TYPE", "invalid limit: expected integer, found string"),
        (r#"{"skip": true}"#, "WRONG_TYPE", "invalid skip: expected integer, found boolean"),
        (r#"{"limit": 9223372036854775808}"#, "OUT_OF_RANGE", "limit is out of range: expected integer of 64 bits"),
    ] {
        assert_eq!(refused("album", options), (reason, message.to_owned()), "{options}");
    }
}

#[test]
fn limits_count_fields_and_conditions_of_a_tree_together() {
    let schema = chinook();
    let table = schema.table("album").unwrap();
    let select = r#"{"title": 1, "track": {"find": {"bytes": 1}, "select": {"name": 1, "genre": 1}}}"#;
    let options = Options { select: Some(value(select)), ..Options::default() };
    let parse = |limits| rest(&schema).node(table, &options, &mut Budget::new(limits)).map(|_| ());
    let enough = Limits { depth: 3, nodes: 7, statements: 2, ..Limits::default() };
    assert_eq!(parse(enough), Ok(()));
    for (limits, what, seen) in [
        (Limits { depth: 2, ..enough }, "depth", 3),
        (Limits { nodes: 6, ..enough }, "nodes", 7),
        (Limits { statements: 1, ..enough }, "statements", 2),
    ] {
        assert_eq!(parse(limits), Err(Error::TooComplex { what, seen, limit: seen - 1 }));
    }
}

#[test]
fn relations_beside_each_other_are_at_one_level() {
    let schema = chinook();
    let select = r#"{"artist": {"select": ["name"]}, "track": {"select": ["name"]}}"#;
    let options = Options { select: Some(value(select)), ..Options::default() };
    let mut budget = Budget::new(Limits { depth: 2, statements: 2, ..Limits::default() });
    assert!(rest(&schema).node(schema.table("album").unwrap(), &options, &mut budget).is_ok());
}

#[test]
fn a_known_selection_counts_what_it_counts_when_it_is_parsed() {
    let schema = chinook();
    let table = schema.table("album").unwrap();
    let inside = r#"{"select": {"name": 1, "album": {"select": ["title"]}}}"#;
    let select = format!(r#"{{"title": 1, "artist": {inside}, "track": {{"select": ["name"]}}}}"#);
    let options = Options { select: Some(value(&select)), ..Options::default() };
    let parse = |budget: &mut Budget| rest(&schema).node(table, &options, budget);
    let mut parsed = Budget::default();
    let cost = SelectionCost::of(&parse(&mut parsed).unwrap().fields);
    assert_eq!(cost, SelectionCost { fields: 7, relations: 3, depth: 2 });
    let mut known = Budget::default();
    known.selection(cost).unwrap();
    assert_eq!((known.counted(), parsed.counted()), (7, 7));

    let all = Limits::default();
    let bounds = (1..5).map(|depth| Limits { depth, ..all });
    let bounds = bounds.chain((1..5).map(|statements| Limits { statements, ..all }));
    for limits in bounds.chain((5..30).map(|nodes| Limits { nodes, ..all })) {
        let (mut known, mut parsed) = (Budget::new(limits), Budget::new(limits));
        // Several in one request.
        for turn in 0..3 {
            let (known, parsed) = (known.selection(cost), parse(&mut parsed).map(|_| ()));
            assert_eq!(known, parsed, "{turn} {limits:?}");
            if known.is_err() {
                break;
            }
        }
        // Inside a relation.
        let (mut known, mut parsed) = (Budget::new(limits), Budget::new(limits));
        if known.enter_relation().is_ok() && parsed.enter_relation().is_ok() {
            assert_eq!(known.selection(cost), parse(&mut parsed).map(|_| ()), "{limits:?}");
        }
    }
}

#[test]
fn what_is_counted_is_fields_conditions_and_values() {
    let schema = chinook();
    let mut budget = Budget::default();
    let filter = value(r#"{"title": ["a", "b", "c"], "artist_id": 1}"#);
    rest(&schema).filter(schema.table("album").unwrap(), &filter, &mut budget).unwrap();
    budget.field().unwrap();
    assert_eq!(budget.counted(), 6);
}

#[test]
fn a_field_that_is_named_twice_counts_once() {
    let schema = chinook();
    let options = Options { select: Some(value(r#"["title", "title", "album.title"]"#)), ..Options::default() };
    let mut budget = Budget::new(Limits { nodes: 1, ..Limits::default() });
    assert!(rest(&schema).node(schema.table("album").unwrap(), &options, &mut budget).is_ok());
}

#[test]
fn a_condition_inside_a_relation_nests_on() {
    let schema = chinook();
    let table = schema.table("employee").unwrap();
    let parse = |relations: usize, nots: usize| {
        let condition = format!("{}{{\"title\": \"x\"}}{}", r#"{"$not": "#.repeat(nots), "}".repeat(nots));
        let inner = format!(r#"{{"find": {condition}, "select": ["title"]}}"#);
        let select = (1..relations).fold(inner, |inner, _| format!(r#"{{"select": {{"reports_to_row": {inner}}}}}"#));
        let select = format!(r#"{{"reports_to_row": {select}}}"#);
        let options = Options { select: Some(value(&select)), ..Options::default() };
        let limits = Limits { depth: Limits::MAX_DEPTH, ..Limits::default() };
        rest(&schema).node(table, &options, &mut Budget::new(limits)).map(|_| ())
    };
    assert_eq!(parse(2, 14), Ok(()));
    assert_eq!(parse(2, 15), Err(Error::TooComplex { what: "nesting", seen: 34, limit: 32 }));
    assert_eq!(parse(29, 0), Ok(()));
    assert_eq!(parse(30, 0), Err(Error::TooComplex { what: "depth", seen: 31, limit: 30 }));
}

#[test]
fn an_unknown_name_with_options_is_an_unknown_relation() {
    let (reason, text) = refused("album", r#"{"select": {"tracks": {"select": ["name"]}}}"#);

    assert_eq!(reason, "UNKNOWN_RELATION");
    assert!(text.contains("did you mean track?"), "{text}");
}
