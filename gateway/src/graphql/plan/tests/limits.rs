//! What each part of a document counts for the limits.

use query::Limits;

use super::*;

fn refused(text: &str, limits: Limits) -> Option<String> {
    let document = Document::parse(text, Guard::default()).unwrap_or_else(|refusal| panic!("{refusal:?}"));
    let operation = &document.operation(None).unwrap_or_else(|refusal| panic!("{refusal:?}")).node;
    let names = Names::new(fixture::shop());
    let variables = Variables::new(&document, operation, query::Object::default()).unwrap_or_else(|_| panic!("{text}"));
    let counters = Counters { budget: Budget::new(limits), guard: Guard::default() };
    Plan::of(PlanContext { document: &document, names: &names, variables: &variables }, operation, counters)
        .err()
        .map(|refusal| message(*refusal))
}

#[test]
fn every_part_counts() {
    for (text, nodes, statements, depth) in [
        ("{ __typename }", 1, 0, 0),
        ("{ album { __typename title } }", 2, 1, 0),
        ("{ album { title artist { name } track { name } } }", 5, 3, 2),
        ("{ album { title artist { name } track(where: {track_id: 1}) { name genre { name } } } }", 8, 4, 3),
        ("{ album(op: count) @music }", 1, 1, 0),
        ("{ album @music }", 3, 1, 0),
        ("{ album(where: {title: \"x\"}) { title } track { name } }", 3, 2, 0),
        ("{ track_aggregate { count __typename } }", 2, 1, 0),
        ("{ album { track_aggregate { count } again: track_aggregate { count } } }", 4, 3, 2),
        ("{ album { track { name } artist { name } again: track(limit: 1) { name } } }", 6, 4, 2),
        ("mutation { __typename }", 1, 0, 0),
        ("mutation { delete_album(where: {album_id: 1}) { affected } }", 1, 1, 0),
        (
            "mutation { delete_album(where: {album_id: 1}) { status error __typename returning { title artist { name } } } }",
            7,
            2,
            2,
        ),
    ] {
        let all = Limits::default();
        let exact = Limits { nodes, statements, depth, ..all };
        assert_eq!(refused(text, exact), None, "{text}");
        let fewer = [
            (nodes > 0).then(|| (Limits { nodes: nodes - 1, ..all }, "nodes of ")),
            (statements > 0).then(|| (Limits { statements: statements - 1, ..all }, "statements of ")),
            (depth > 0).then(|| (Limits { depth: depth - 1, ..all }, "depth of ")),
        ];
        for (limits, what) in fewer.into_iter().flatten() {
            let told = refused(text, limits);
            assert!(told.as_ref().is_some_and(|told| told.starts_with(what)), "{text}: {what}{told:?}");
        }
    }
}
