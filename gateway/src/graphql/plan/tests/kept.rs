//! What is kept of one request's plan serves another only where both ask for the same.

use query::Limits;

use super::*;
use crate::catalogue::Project;

pub struct Kept {
    pub document: Document,
    pub names: Names,
}

impl Kept {
    pub fn new(text: &str) -> Self {
        let document = Document::parse(text, Guard::default()).unwrap_or_else(|refusal| panic!("{refusal:?}"));
        Self { document, names: Names::new(fixture::shop()) }
    }

    pub fn plan(&self, sent: &[(&str, Value)], limits: Limits) -> Result<Arc<Plan>> {
        self.plan_of(None, sent, limits)
    }

    fn plan_of(&self, name: Option<&str>, sent: &[(&str, Value)], limits: Limits) -> Result<Arc<Plan>> {
        let sent = query::Object(sent.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect());
        let operation = &self.document.operation(name)?.node;
        let variables = Variables::new(&self.document, operation, sent)?;
        let counters = Counters { budget: Budget::new(limits), guard: Guard::default() };
        Plan::of(
            PlanContext { document: &self.document, names: &self.names, variables: &variables },
            operation,
            counters,
        )
    }

    fn read(&self, sent: &[(&str, Value)]) -> Read {
        let plan = self.plan(sent, Limits::default()).unwrap_or_else(|refusal| panic!("{refusal:?}"));
        only(plan.reads.clone())
    }
}

#[test]
fn an_operation_without_variables_is_planned_once() {
    let kept = Kept::new(r#"{ album(where: {title: "x"}, limit: 3) { title track(limit: 1) { name } } }"#);

    let (first, second) = (kept.plan(&[], Limits::default()).unwrap(), kept.plan(&[], Limits::default()).unwrap());

    assert!(Arc::ptr_eq(&first, &second));
}

#[test]
fn selections_of_an_operation_with_variables_are_looked_up_once() {
    let kept = Kept::new("query($id: Int!) { album_by_pk(album_id: $id) { title artist { name } } }");

    let (one, two) = (kept.read(&[("id", Value::Int(1))]), kept.read(&[("id", Value::Int(2))]));

    assert!(Arc::ptr_eq(&one.node.fields, &two.node.fields));
    assert_eq!(one.node.filter, equal("album_id", Typed::Int(1)));
    assert_eq!(two.node.filter, equal("album_id", Typed::Int(2)));
}

#[test]
fn selections_are_looked_up_once_for_all_limits() {
    let kept = Kept::new(
        "query($id: Int!) { album_by_pk(album_id: $id) { title artist { name } track_aggregate { count } } }",
    );
    let plan = |nodes| kept.plan(&[("id", Value::Int(1))], Limits { nodes, ..Limits::default() }).unwrap();

    assert!(Arc::ptr_eq(&plan(50).reads[0].node.fields, &plan(51).reads[0].node.fields));
}

#[test]
fn each_of_many_selections_takes_its_own_memory() {
    let fields = (0..60).map(|index| format!("a{index}: artist(limit: $most) {{ name }} ")).collect::<String>();
    let kept = Kept::new(&format!("query($most: Int) {{ {fields} }}"));
    let plan = |most| kept.plan(&[("most", Value::Int(most))], Limits::default()).unwrap();

    for (one, two) in plan(1).reads.iter().zip(&plan(2).reads) {
        assert!(Arc::ptr_eq(&one.node.fields, &two.node.fields));
    }
}

#[test]
fn a_variable_takes_memory_by_the_length_of_its_name() {
    let name = "v".repeat(500);
    let kept = Kept::new(&format!("query(${name}: Int!) {{ album_by_pk(album_id: ${name}) {{ title }} }}"));
    let plan = |id| kept.plan(&[(&name, Value::Int(id))], Limits::default()).unwrap();

    assert!(Arc::ptr_eq(&plan(1).fields, &plan(2).fields));
}

#[test]
fn values_of_keys_are_bound_to_what_is_kept() {
    let text = "query($id: Int!, $other: Int) {
        a: album_by_pk(album_id: $id) { title } b: album_by_pk(album_id: 3) { title }
        c: album_by_pk(album_id: $other) { title }
    }";
    let kept = Kept::new(text);
    let sent = |id, other| [("id", Value::Int(id)), ("other", other)];
    let plan = |id, other| kept.plan(&sent(id, Value::Int(other)), Limits::default()).unwrap();
    let ids = |plan: &Plan| plan.reads.iter().map(|read| read.node.filter.clone()).collect::<Vec<_>>();
    let expected = |ids: [i64; 3]| ids.map(|id| equal("album_id", Typed::Int(id))).to_vec();

    let (first, second) = (plan(1, 2), plan(4, 5));

    assert!(Arc::ptr_eq(&first.fields, &second.fields));
    assert_eq!((ids(&first), ids(&second)), (expected([1, 3, 2]), expected([4, 3, 5])));
    for wrong in [Value::Null, Value::Int(1 << 40)] {
        let refused = |kept: &Kept| {
            let refusal = kept.plan(&sent(6, wrong.clone()), Limits::default()).unwrap_err();
            (refusal.at, message(*refusal))
        };
        assert_eq!(refused(&kept), refused(&Kept::new(text)));
    }
    assert_eq!(ids(&plan(7, 8)), expected([7, 3, 8]));
}

#[test]
fn a_key_of_several_columns_is_bound_by_column() {
    let kept = Kept::new(
        "query($list: Int!, $track: Int!) {
             playlist_track_by_pk(playlist_id: $list, track_id: $track) { track_id }
         }",
    );
    let read = |list, track| kept.read(&[("list", Value::Int(list)), ("track", Value::Int(track))]).node.filter;
    let expected =
        |list, track| Filter::And(vec![equal("playlist_id", Typed::Int(list)), equal("track_id", Typed::Int(track))]);

    assert_eq!((read(1, 2), read(3, 4)), (expected(1, 2), expected(3, 4)));
}

#[test]
fn variables_in_a_selection_count_for_each_request() {
    let kept = Kept::new(
        "query($all: Boolean!, $most: Int) {
             artist(limit: $most) { name @include(if: $all) album(limit: $most) { title track { name } } }
         }",
    );
    let read = |all, most| kept.read(&[("all", Value::Bool(all)), ("most", Value::Int(most))]);
    let seen = |read: Read| {
        let keys: Vec<String> = keys(&read.node.fields).into_iter().map(str::to_owned).collect();
        (keys, read.node.limit, relation(read.node.fields.last().unwrap()).1.limit)
    };

    assert_eq!(seen(read(true, 1)), (vec!["name".to_owned(), "album".to_owned()], Some(1), Some(1)));
    assert_eq!(seen(read(false, 2)), (vec!["album".to_owned()], Some(2), Some(2)));
}

#[test]
fn limits_hold_for_what_is_kept() {
    let kept = Kept::new(
        "query($id: Int!) { album_by_pk(album_id: $id) { title artist { name } track { name genre { name } } } }",
    );
    let seen = |limits| kept.plan(&[("id", Value::Int(1))], limits).map(|_| ()).map_err(|refusal| message(*refusal));
    let default = Limits::default();
    assert_eq!(seen(default), Ok(()));

    assert_eq!(seen(Limits { nodes: 8, statements: 4, depth: 3, ..default }), Ok(()));
    for (limits, what) in [
        (Limits { nodes: 7, ..default }, "nodes"),
        (Limits { statements: 3, ..default }, "statements"),
        (Limits { depth: 2, ..default }, "depth"),
    ] {
        let refused = seen(limits).unwrap_err();
        assert!(refused.starts_with(what), "{refused}");
    }
}

#[test]
fn what_is_kept_counts_as_what_is_planned() {
    for selection in [
        "title",
        "title artist { name album { title } }",
        "a: track { name genre { name } } track_aggregate { count __typename } ...F",
        "... @skip(if: $skip) { title } ...F ... { artist { ...A } }",
        "track(limit: 1) { name genre { name } } artist { ...A } artist { artist_id }",
        // Conditions count, and are no part of what a kept selection counts.
        "track(where: {track_id: 1}) { name }",
        "artist { name } track_aggregate(where: {track_id: 1}) { count }",
    ] {
        let text = format!(
            "query($id: Int!, $skip: Boolean = false) {{ album_by_pk(album_id: $id) {{ {selection} }} }}
             fragment F on Album {{ artist {{ ...A }} b: title }}
             fragment A on Artist {{ name album {{ track {{ name }} }} }}"
        );
        let warm = Kept::new(&text);
        let id = [("id", Value::Int(1))];
        let whole = warm.plan(&id, Limits::default()).unwrap_or_else(|refusal| panic!("{text}: {refusal:?}"));
        for most in 1..30 {
            let default = Limits::default();
            for limits in [
                Limits { nodes: most, ..default },
                Limits { statements: most, ..default },
                Limits { depth: most, ..default },
            ] {
                let (first, again) = (Kept::new(&text).plan(&id, limits), warm.plan(&id, limits));

                assert_eq!(first.is_ok(), again.is_ok(), "{limits:?} {text}");
                assert!(again.is_err() || again == Ok(whole.clone()), "{text}");
            }
        }
    }
}

#[test]
fn another_version_of_a_project_is_planned_anew() {
    let mut kept = Kept::new("query($id: Int!) { album_by_pk(album_id: $id) { title } }");
    let id = [("id", Value::Int(1))];
    kept.read(&id);

    let mut project = Project::clone(&kept.names.project);
    let mut tables = project.databases[0].schema.as_ref().unwrap().tables().to_vec();
    tables.iter_mut().for_each(|table| table.columns.retain(|column| column.name != "title"));
    project.databases[0].schema = Some(Arc::new(query::Schema::new(tables)));
    kept.names = Names::new(Arc::new(project));

    assert!(kept.plan(&id, Limits::default()).is_err());
}

#[test]
fn what_stands_at_the_same_position_is_told_apart() {
    // To the parser a carriage return alone goes back to the first column of the same line.
    for text in [
        "query A { album { title } }\rquery B { album { album_id } }",
        "query A($n: Int) { album(limit: $n) { title } }\rquery B($n: Int) { album(limit: $n) { album_id } }",
    ] {
        let kept = Kept::new(text);
        let fields = |operation| {
            let plan = kept.plan_of(Some(operation), &[], Limits::default()).unwrap();
            keys(&plan.reads[0].node.fields).join(",")
        };

        assert_eq!([fields("A"), fields("B"), fields("A")], ["title", "album_id", "title"], "{text:?}");
    }
}

/// A fragment brings the same text, or the same names, wherever it is spread.
#[test]
fn a_plan_that_takes_far_more_than_its_text_is_not_kept() {
    let long = "x".repeat(4000);
    let spread = |root: &str| (0..100).map(|index| format!("a{index}: {root} ")).collect::<String>();
    for (text, is_kept) in [
        (format!("{{ album(where: {{title: {long:?}}}) {{ title }} }}"), true),
        // All columns are named by nothing in the text.
        (format!("{{ {} }}", spread("album @music")), false),
        (format!("{{ {} }} fragment F on Artist {{ {long}: name }}", spread("artist { ...F }")), false),
        (
            format!(
                "{{ {} }} fragment F on Artist {{ album(where: {{title: {long:?}}}) {{ title }} }}",
                spread("artist { ...F }")
            ),
            false,
        ),
        (
            format!(
                "mutation {{ {} }} fragment F on AlbumMutation {{ {} }}",
                spread("insert_album(docs: []) { ...F }"),
                spread("affected")
            ),
            false,
        ),
    ] {
        let kept = Kept::new(&text);
        let plan = || kept.plan(&[], Limits::default()).unwrap();
        let (first, second) = (plan(), plan());

        assert_eq!(Arc::ptr_eq(&first, &second), is_kept, "{}", &text[..60]);
    }
}

#[test]
fn a_selection_that_takes_far_more_than_its_text_is_not_kept() {
    let long = "x".repeat(4000);
    let spread = (0..100).map(|index| format!("a{index}: artist {{ ...F }} ")).collect::<String>();
    let kept = Kept::new(&format!(
        "query($id: Int!) {{ album_by_pk(album_id: $id) {{ {spread} }} }} fragment F on Artist {{ {long}: name }}"
    ));
    let read = |id| kept.read(&[("id", Value::Int(id))]);

    assert!(!Arc::ptr_eq(&read(1).node.fields, &read(2).node.fields));
}
