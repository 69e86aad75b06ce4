use crate::fixtures::{chinook, rest, value};
use crate::{
    Budget, Change, Document, Field, Filter, Limits, Mutation, MutationKind, Node, Options, Quantifier, Read, Schema,
    Shape, TableAccess, Typed, mutation_accesses, read_accesses,
};

fn read(schema: &Schema, table: &str, find: &str, select: &str) -> Read {
    let parser = rest(schema);
    let table = schema.table(table).unwrap();
    let options = Options { select: Some(value(select)), ..Options::default() };
    let node = parser.node(table, &options, &mut Budget::default()).unwrap();
    let filter = parser.filter(table, &value(find), &mut Budget::default()).unwrap();
    Read { database: "music".into(), table: (*table.name).into(), node: Node { filter, ..node } }
}

/// `table.op`, with `?` where there is a condition.
fn names(accesses: &[TableAccess]) -> Vec<String> {
    let mark = |access: &TableAccess| if access.find.is_some() { "?" } else { "" };
    accesses
        .iter()
        .map(|access| format!("{} {} {}{}", access.operation.name(), access.table, access.op, mark(access)))
        .collect()
}

#[test]
fn a_node_comes_before_its_filter_and_that_before_its_relations() {
    let schema = chinook();
    let read = read(
        &schema,
        "album",
        r#"{"$or": [{"artist": {"name": "x"}}, {"$not": {"track": {"$some": {"genre": {"name": "y"}}}}}], "title": "z"}"#,
        r#"{"title": 1,
            "track": {"find": {"media_type": null}, "limit": 5, "skip": 1, "select": {"name": 1, "genre": 1}},
            "artist": 1}"#,
    );

    let accesses = read_accesses(&schema, &read).unwrap();

    assert_eq!(
        names(&accesses),
        [
            "read album all?",
            "read artist all?",
            "read track all?",
            "read genre all?",
            "read track all?",
            "read media_type all",
            "read genre one",
            "read artist one",
        ]
    );
    assert_eq!((accesses[4].limit, accesses[4].skip), (Some(5), 1));
    assert_eq!((accesses[0].limit, accesses[0].skip), (None, 0));
}

#[test]
fn the_condition_of_an_access_is_the_one_at_its_place() {
    let schema = chinook();
    let read = read(&schema, "album", r#"{"artist": {"name": "x"}}"#, r#"["title"]"#);

    let accesses = read_accesses(&schema, &read).unwrap();

    assert_eq!(accesses[0].find, Some(&read.node.filter));
    let Filter::Related { filter, .. } = &read.node.filter else { panic!() };
    assert_eq!(accesses[1].find, Some(&**filter));
}

#[test]
fn shapes_have_the_names_of_operations() {
    let schema = chinook();
    for (shape, op) in [(Shape::Many, "all"), (Shape::One, "one"), (Shape::Count, "count"), (Shape::Aggregate, "count")]
    {
        let node = Node::new(shape, Vec::new());
        let read = Read { database: "music".into(), table: "album".into(), node };
        assert_eq!(read_accesses(&schema, &read).unwrap()[0].op, op);
    }
}

#[test]
fn unknown_tables_and_relations_are_errors() {
    let schema = chinook();
    let node = Node::new(Shape::Many, Vec::new());
    let read = |table: &str, node| Read { database: "".into(), table: table.into(), node };
    assert_eq!(read_accesses(&schema, &read("albums", node.clone())).unwrap_err().reason(), "UNKNOWN_TABLE");
    let filter = Filter::Related {
        relation: "artists".to_owned(),
        long_name: None,
        quantifier: Quantifier::Some,
        filter: Box::new(Filter::TRUE),
    };
    let read = read("album", Node { filter, ..node });
    assert_eq!(read_accesses(&schema, &read).unwrap_err().reason(), "UNKNOWN_RELATION");
}

#[test]
fn an_update_comes_first_then_its_filter_then_what_it_returns() {
    let schema = chinook();
    let table = schema.table("album").unwrap();
    let parser = rest(&schema);
    let changes = vec![Change::Set { column: "title".to_owned(), value: Typed::Text("x".to_owned()) }];
    let filter = parser.filter(table, &value(r#"{"artist": {"name": "x"}}"#), &mut Budget::default()).unwrap();
    let select = Options { select: Some(value(r#"{"album_id": 1, "artist": 1}"#)), ..Options::default() };
    let returning = Some(parser.node(table, &select, &mut Budget::default()).unwrap());
    let update = |one| Mutation {
        table: "album".to_owned(),
        kind: MutationKind::Update { filter: filter.clone(), changes: changes.clone(), one },
        returning: returning.clone(),
    };

    let all = update(false);
    let accesses = mutation_accesses(&schema, &all).unwrap();
    assert_eq!(names(&accesses), ["update album all?", "read artist all?", "read album all", "read artist one"]);
    assert_eq!(accesses[0].changes, changes);
    assert!(accesses[1..].iter().all(|access| access.changes.is_empty()));

    assert_eq!(mutation_accesses(&schema, &update(true)).unwrap()[0].op, "one");
}

#[test]
fn an_insert_of_one_document_is_one() {
    let schema = chinook();
    let insert = |docs| Mutation { table: "artist".to_owned(), kind: MutationKind::Insert { docs }, returning: None };
    let doc = Document(vec![("artist_id".to_owned(), Typed::Int(1))]);
    for (docs, op) in [(vec![], "all"), (vec![doc.clone()], "one"), (vec![doc.clone(), doc], "all")] {
        let insert = insert(docs.clone().into());
        let accesses = mutation_accesses(&schema, &insert).unwrap();
        assert_eq!(names(&accesses), [format!("create artist {op}")]);
        assert_eq!(accesses[0].docs.map(|docs| docs.to_vec()), Some(docs));
    }
}

#[test]
fn a_delete_has_its_condition_if_it_has_one() {
    let schema = chinook();
    let delete = |filter: &Filter, one| {
        let kind = MutationKind::Delete { filter: filter.clone(), one };
        let delete = Mutation { table: "employee".to_owned(), kind, returning: None };
        names(&mutation_accesses(&schema, &delete).unwrap())
    };
    let condition = nested(0, |inner| inner);
    assert_eq!(delete(&Filter::TRUE, false), ["delete employee all"]);
    assert_eq!(delete(&condition, false), ["delete employee all?"]);
    assert_eq!(delete(&condition, true), ["delete employee one?"]);
}

#[test]
fn what_is_nested_deeper_than_the_wire_carries_is_too_complex() {
    let schema = chinook();
    let with = |filter| Read {
        database: "music".into(),
        table: "employee".into(),
        node: Node { filter, ..Node::new(Shape::Many, Vec::new()) },
    };
    let not = |levels| with(nested(levels, |inner| Filter::Not(Box::new(inner))));
    let and = |levels| with(nested(levels, |inner| Filter::And(vec![inner])));
    for (read, deepest) in [
        (not(89), None),
        (not(90), Some(91)),
        (and(44), None),
        (and(45), Some(91)),
        (deepest(29, 1), None),
        (deepest(30, 1), Some(91)),
        (deepest(29, 2), None),
        (deepest(29, 3), Some(92)),
    ] {
        let found = read_accesses(&schema, &read).map(|_| ());
        let expected = deepest.map(|seen| crate::Error::TooComplex { what: "depth", seen, limit: 90 });
        assert_eq!(found.err(), expected);
    }
}

/// A condition in which each level is built by `wrap` out of the one below.
fn nested(levels: usize, wrap: fn(Filter) -> Filter) -> Filter {
    let leaf =
        Filter::Compare { column: "employee_id".to_owned(), comparison: crate::Comparison::Eq, value: Typed::Int(1) };
    (0..levels).fold(leaf, |filter, _| wrap(filter))
}

/// A condition of `levels`, each of them but the last a relation, inside `relations` that are selected.
fn deepest(relations: usize, levels: usize) -> Read {
    let related = |filter| Filter::Related {
        relation: "employee_by_reports_to".to_owned(),
        long_name: None,
        quantifier: Quantifier::Every,
        filter: Box::new(filter),
    };
    let leaf =
        Node { filter: nested(levels - 1, related), ..Node::new(Shape::Many, vec![Field::column("employee_id")]) };
    let node = (0..relations).fold(leaf, |node, _| {
        let name = "employee_by_reports_to".to_owned();
        Node::new(Shape::Many, vec![Field { key: "up".to_owned(), kind: crate::FieldKind::Relation { name, node } }])
    });
    Read { database: "music".into(), table: "employee".into(), node }
}

#[test]
fn whatever_the_limits_allow_is_walked() {
    let schema = chinook();
    for relations in 0..Limits::MAX_DEPTH {
        let levels = Limits::MAX_FILTER_DEPTH.min((Limits::NESTING - relations) / 2);
        assert!(read_accesses(&schema, &deepest(relations, levels)).is_ok(), "{relations} {levels}");
    }
}
