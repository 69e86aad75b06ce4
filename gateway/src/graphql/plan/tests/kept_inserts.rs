//! What is kept of one request's insert serves another with documents of its own.

use proptest::prelude::*;
use query::{Limits, Object};

use super::{kept::Kept, *};
use crate::catalogue::Project;

fn object(members: &[(&str, Value)]) -> Value {
    Value::Object(Object(members.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()))
}

fn album(id: i64) -> Value {
    object(&[("album_id", Value::Int(id)), ("title", Value::Text(format!("t{id}")))])
}

/// The documents of each mutation.
fn docs(plan: &Plan) -> Vec<Vec<query::Document>> {
    let docs = plan.writes.iter().map(|(_, mutation)| match &mutation.kind {
        MutationKind::Insert { docs } => docs.to_vec(),
        other => panic!("an insert, not {other:?}"),
    });
    docs.collect()
}

/// What is planned after `first` is what is planned of `second` alone. Whether the first plan served both.
fn serves_both(text: &str, first: &[(&str, Value)], second: &[(&str, Value)]) -> bool {
    let seen = |kept: &Kept, sent: &[(&str, Value)]| {
        kept.plan(sent, Limits::default()).map_err(|refusal| (refusal.at, refusal.path.clone(), message(*refusal)))
    };
    let seasoned = Kept::new(text);
    let before = seen(&seasoned, first);
    let after = seen(&seasoned, second);
    assert_eq!(after, seen(&Kept::new(text), second), "{text}");
    matches!((before, after), (Ok(before), Ok(after)) if Arc::ptr_eq(&before.fields, &after.fields))
}

#[test]
fn documents_are_bound_to_what_is_kept() {
    let kept = Kept::new(
        "mutation($docs: [AlbumInsert!]!, $title: String) {
             a: insert_album(docs: $docs) { returning { title } }
             b: insert_album(docs: [{album_id: 3, title: \"t3\"}]) { affected }
             c: insert_album(docs: [{album_id: 4, title: $title}, {album_id: 5}]) { status }
         }",
    );
    let plan = |ids: &[i64], title: &str| {
        let albums = Value::List(ids.iter().map(|id| album(*id)).collect());
        kept.plan(&[("docs", albums), ("title", Value::Text(title.to_owned()))], Limits::default()).unwrap()
    };
    let id = |id| ("album_id".to_owned(), Typed::Int(id));
    let titled = |id_: i64, title: &str| query::Document(vec![id(id_), ("title".to_owned(), text(title))]);
    let expected = |first: Vec<query::Document>, title| {
        vec![first, vec![titled(3, "t3")], vec![titled(4, title), query::Document(vec![id(5)])]]
    };

    let (first, second) = (plan(&[1, 2], "x"), plan(&[7], "y"));

    assert!(Arc::ptr_eq(&first.fields, &second.fields));
    assert_eq!(docs(&first), expected(vec![titled(1, "t1"), titled(2, "t2")], "x"));
    assert_eq!(docs(&second), expected(vec![titled(7, "t7")], "y"));
    assert_eq!(docs(&plan(&[], "z")), expected(Vec::new(), "z"));
}

#[test]
fn documents_are_typed_for_each_request() {
    let whole = "mutation($docs: [AlbumInsert!]) { insert_album(docs: $docs) { affected } }";
    let parts = "mutation($id: Int, $title: String) {
        insert_album(docs: {album_id: $id, title: $title}) { affected }
    }";
    let one = [("docs", album(1))];
    let given = |id: Value| [("id", id), ("title", Value::Text("x".to_owned()))];
    for (sent, is_kept) in [
        (Value::List(vec![album(2), album(3)]), true),
        (Value::List(vec![]), true),
        (Value::Null, true),
        (object(&[]), true),
        (object(&[("title", Value::Null)]), true),
        (object(&[("title", Value::Int(1))]), false),
        (object(&[("no_such", Value::Int(1))]), false),
        (object(&[("album_id", Value::Int(1 << 40))]), false),
        (Value::List(vec![album(2), Value::Int(3)]), false),
        (Value::Int(3), false),
    ] {
        assert_eq!(serves_both(whole, &one, &[("docs", sent.clone())]), is_kept, "{sent:?}");
    }
    assert!(serves_both(whole, &one, &[]));
    assert!(serves_both(whole, &[], &one));
    assert!(serves_both(parts, &given(Value::Int(1)), &given(Value::Int(2))));
    assert!(serves_both(parts, &given(Value::Int(1)), &[]));
    assert!(!serves_both(parts, &given(Value::Int(1)), &given(Value::Int(1 << 40))));
}

#[test]
fn what_else_depends_on_variables_is_planned_for_each_request() {
    for text in [
        "mutation($docs: [AlbumInsert!], $has: Boolean!) {
             insert_album(docs: $docs) { affected returning { title @include(if: $has) } }
         }",
        "mutation($docs: [AlbumInsert!], $has: Boolean!) {
             insert_album(docs: $docs) { affected } insert_artist(docs: {name: \"x\"}) @include(if: $has) { affected }
         }",
    ] {
        let sent = |has| [("docs", album(1)), ("has", Value::Bool(has))];
        assert!(!serves_both(text, &sent(true), &sent(false)));
    }
}

#[test]
fn names_of_documents_are_those_of_the_database() {
    let document = "mutation($docs: [OrderItemsInsert!]) { insert_order_items(docs: $docs) { affected } }";
    let kept = Kept { names: Names::new(fixture::odd_names()), ..Kept::new(document) };
    let plan = |price: &str| {
        let doc = object(&[("_2nd", Value::Text("k".to_owned())), ("unit_price_1", Value::Text(price.to_owned()))]);
        kept.plan(&[("docs", doc)], Limits::default()).unwrap_or_else(|refusal| panic!("{refusal:?}"))
    };
    let (first, second) = (plan("1"), plan("2"));

    assert!(Arc::ptr_eq(&first.fields, &second.fields));
    let names = |plan: &Plan| docs(plan)[0][0].0.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&first), names(&second));
    assert_eq!(names(&second), ["2nd", "unit price"]);
    assert_eq!(docs(&second)[0][0].0[1].1, text("2"));
}

#[test]
fn limits_hold_for_documents_that_are_bound() {
    let text = "mutation($docs: [AlbumInsert!], $title: String) {
        a: insert_album(docs: $docs) { affected }
        b: insert_album(docs: [{album_id: 3}, {album_id: 4}]) { affected }
        c: insert_album(docs: {title: $title}) { affected }
    }";
    let sent = |count: i64| [("docs", Value::List((0..count).map(album).collect())), ("title", Value::Null)];
    let default = Limits::default();
    for most in 1..30 {
        for limits in [Limits { values: most, ..default }, Limits { list_items: most, ..default }] {
            // What is kept was planned within these very limits.
            let seasoned = Kept::new(text);
            let _ = seasoned.plan(&sent(0), limits);
            for count in 0..8 {
                let seen = |kept: &Kept| kept.plan(&sent(count), limits).map_err(|refusal| message(*refusal));
                assert_eq!(seen(&seasoned), seen(&Kept::new(text)), "{limits:?} {count}");
            }
        }
    }
    let kept = Kept::new(text);
    kept.plan(&sent(1), default).unwrap();
    let refused = kept.plan(&sent(1), Limits { statements: 2, ..default }).map_err(|refusal| message(*refusal));
    assert!(refused.is_err_and(|text| text.starts_with("statements of ")));
}

#[test]
fn inserts_into_another_version_of_a_project_are_planned_anew() {
    let mut kept = Kept::new("mutation($docs: [AlbumInsert!]) { insert_album(docs: $docs) { affected } }");
    let sent = [("docs", album(1))];
    kept.plan(&sent, Limits::default()).unwrap();

    let mut project = Project::clone(&kept.names.project);
    let mut tables = project.databases[0].schema.as_ref().unwrap().tables().to_vec();
    tables.iter_mut().for_each(|table| table.columns.retain(|column| column.name != "title"));
    project.databases[0].schema = Some(Arc::new(query::Schema::new(tables)));
    kept.names = Names::new(Arc::new(project));

    let refused = kept.plan(&sent, Limits::default()).map_err(|refusal| message(*refusal));
    assert!(refused.is_err_and(|text| text.contains("title")));
}

/// The documents that a plan is kept with stand in its text once, whatever is sent.
#[test]
fn what_is_sent_takes_no_memory_of_what_is_kept() {
    let text = "mutation($docs: [AlbumInsert!]) { insert_album(docs: $docs) { affected } }";
    let many = Value::List((0..1000).map(album).collect());
    assert!(serves_both(text, &[("docs", many)], &[("docs", album(1))]));
}

/// To the parser, a number that it cannot hold is a short word.
#[test]
fn a_number_takes_memory_by_its_digits() {
    let number = format!("0.{}", "3".repeat(950));
    let spread = |root: &str| (0..50).map(|index| format!("a{index}: {root} ")).collect::<String>();
    let track = format!("track(where: {{unit_price: {number}}}) {{ name }}");
    for (text, is_kept) in [
        (format!("{{ {track} }}"), true),
        (format!("{{ {} }} fragment F on Album {{ {track} }}", spread("album { ...F }")), false),
    ] {
        let kept = Kept::new(&text);
        let plan = || kept.plan(&[], Limits::default()).unwrap_or_else(|refusal| panic!("{refusal:?}"));
        let (first, second) = (plan(), plan());

        assert_eq!(Arc::ptr_eq(&first, &second), is_kept, "{}", &text[..60]);
    }
}

const MUTATIONS: [&str; 6] = [
    "mutation($docs: [AlbumInsert!]!) { insert_album(docs: $docs) { affected returning { title } } }",
    "mutation($docs: [AlbumInsert] = [{album_id: 5}], $x: Int) {
         a: insert_album(docs: $docs) { affected } b: insert_album(docs: [{album_id: $x}, {title: \"t\"}]) { status }
     }",
    "mutation($docs: AlbumInsert, $x: String = \"d\") {
         insert_album(docs: [$docs, {title: $x}]) @music { returning { artist { name } } }
     }",
    "mutation($docs: Any, $x: Any = null) {
         insert_audit(docs: {text: \"t\", payload: {a: [$x, 1e400], b: $docs}}) { affected }
     }",
    "mutation($docs: [TrackInsert!], $x: Decimal = 1.5) {
         a: insert_track(docs: {unit_price: $x, milliseconds: 1}) { affected } a: insert_track(docs: {unit_price: $x,
         milliseconds: 1}) { status } insert_track(docs: $docs) { affected }
     }",
    "mutation($docs: [AlbumInsert!], $x: Boolean = true) {
         insert_album(docs: $docs) @skip(if: $x) { affected } insert_artist(docs: {name: WORD}) { affected }
     }",
];

/// A value of a variable, of any kind, and often documents; `None` where none is sent.
fn sent() -> impl Strategy<Value = Option<Value>> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        prop::sample::select(&[0, 1, -1, 1 << 31, i64::MAX][..]).prop_map(Value::Int),
        prop::sample::select(&["1.5", "1e400", "99999999999999999999"][..])
            .prop_map(|text| Value::Number(text.to_owned())),
        "[a-z1\"]{0,3}".prop_map(Value::Text),
    ];
    let member = prop::sample::select(&["album_id", "title", "artist_id", "unit_price", "milliseconds", "nope"][..]);
    let any_value = leaf.prop_recursive(3, 12, 3, move |inside| {
        let members = prop::collection::vec((member.clone().prop_map(str::to_owned), inside.clone()), 0..3);
        let list = prop::collection::vec(inside, 0..3).prop_map(Value::List);
        prop_oneof![members.prop_map(|members| Value::Object(Object(members))), list]
    });
    let albums = prop::collection::vec((0..9_i64).prop_map(album), 0..3).prop_map(Value::List);
    prop::option::weighted(
        0.9,
        prop_oneof![any_value, albums, (0..9_i64).prop_map(album), (0..9_i64).prop_map(Value::Int)],
    )
}

/// Whatever was planned before, an insert is planned as it is planned alone, and refused for the same.
#[test]
fn any_values_are_planned_as_without_what_is_kept() {
    let bound = std::cell::Cell::new(0);
    let config = ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() };
    let text = prop::sample::select(&MUTATIONS[..]);
    proptest!(config, |(text in text, one in (sent(), sent()), two in (sent(), sent()))| {
        let [first, second] = [&one, &two].map(|(docs, x)| {
            let given = |name, value: &Option<Value>| value.clone().map(|value| (name, value));
            [given("docs", docs), given("x", x)].into_iter().flatten().collect::<Vec<_>>()
        });
        bound.set(bound.get() + usize::from(serves_both(text, &first, &second)));
    });
    assert!(bound.get() > 20, "too few of the inserts were bound: {}", bound.get());
}
