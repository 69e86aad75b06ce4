//! Fields of `Mutation`.

use super::*;

#[test]
fn rows_are_inserted() {
    let one = "mutation { insert_album(docs: {album_id: 9, title: \"z\"}) @music { status returning { i: title } st: status __typename } }";
    let plan = plan(one);

    let (_, Mutation { table, kind, returning }) = &plan.writes[0];
    assert_eq!(table, "album");
    assert_eq!(
        *kind,
        MutationKind::Insert {
            docs: vec![query::Document(vec![("album_id".to_owned(), Typed::Int(9)), ("title".to_owned(), text("z"))])]
                .into()
        }
    );
    assert_eq!(returning.as_ref().map(|node| node.fields.clone()), Some(vec![column("i", "title")].into()));
    let FieldSource::Write(0, members) = &plan.fields[0].source else { panic!("a write") };
    let members: Vec<(&str, &PayloadValue)> =
        members.iter().map(|member| (member.key.as_str(), &member.value)).collect();
    assert_eq!(
        members,
        [
            ("status", &PayloadValue::Status),
            ("returning", &PayloadValue::Returning),
            ("st", &PayloadValue::Status),
            ("__typename", &PayloadValue::Typename("AlbumMutation".to_owned())),
        ]
    );
    assert_eq!(set_of_none("mutation { insert_album @music { status } }"), 0);
}

fn set_of_none(text: &str) -> usize {
    match mutation(text) {
        MutationKind::Insert { docs } => docs.len(),
        other => panic!("an insert, not {other:?}"),
    }
}

#[test]
fn rows_are_updated() {
    assert_eq!(
        mutation(
            r#"mutation { update_track(where: {track_id: 1}, set: {name: "z"}, inc: {milliseconds: 1}) { status } }"#
        ),
        MutationKind::Update {
            filter: equal("track_id", Typed::Int(1)),
            changes: vec![
                Change::Set { column: "name".to_owned(), value: text("z") },
                Change::Inc { column: "milliseconds".to_owned(), by: Typed::Int(1) },
            ],
            one: false,
        }
    );
    assert_eq!(
        mutation("mutation { update_track(where: {track_id: 1}, op: one) { status } }"),
        MutationKind::Update { filter: equal("track_id", Typed::Int(1)), changes: Vec::new(), one: true }
    );
    assert_eq!(
        error("mutation { update_track(where: {track_id: 1}, remove: {name: 1}) { status } }"),
        "argument remove of update_track is not known"
    );
    assert_eq!(
        error("mutation { update_track(op: 5) { status } }"),
        "invalid op: expected all, one or count, found integer"
    );
    assert_eq!(
        error("mutation { update_track(op: upsert) { status } }"),
        "invalid op \"upsert\": expected one of all, one, count"
    );
    assert_eq!(
        error("mutation { update_track(set: 5) { status } }"),
        "invalid set: expected object of columns, found integer"
    );
}

#[test]
fn wrong_changes_are_refused_where_they_stand() {
    for argument in ["set", "inc"] {
        let refusal = refusal(&format!("mutation {{\n  update_track({argument}: {{nope: 1}}) {{ status }} }}"));
        assert_eq!(refusal.at.map(|at| (at.line, at.column)), Some((2, 21)), "{argument}");
    }
}

#[test]
fn rows_are_deleted() {
    assert_eq!(
        mutation("mutation { delete_album(where: {album_id: 1}) { affected } }"),
        MutationKind::Delete { filter: equal("album_id", Typed::Int(1)), one: false }
    );
    assert_eq!(
        mutation("mutation { delete_album { affected } }"),
        MutationKind::Delete { filter: Filter::TRUE, one: false },
        "whether that is allowed is not for the planner to say"
    );
}

#[test]
fn mutations_keep_their_order_and_may_be_of_several_databases() {
    let project = fixture::two_databases();
    let text = "mutation {
        insert_genre(docs: []) @archive { status }
        delete_album(where: {album_id: 1}) { status }
        second: insert_genre(docs: []) @archive
    }";

    let plan = planned(&project, text, "{}").unwrap();

    let writes: Vec<(&str, &str)> =
        plan.writes.iter().map(|(database, mutation)| (&**database, mutation.table.as_str())).collect();
    assert_eq!(writes, [("archive", "genre"), ("music", "album"), ("archive", "genre")]);
    assert_eq!(plan.fields[2].source, FieldSource::Write(2, Vec::new()));
    let keys = [0, 1, 2, 3].map(|index| plan.field_of(index).map(|field| field.key.as_str()));
    assert_eq!(keys, [Some("insert_genre"), Some("delete_album"), Some("second"), None]);
}

#[test]
fn wrong_mutations_are_refused() {
    assert!(error("mutation { foo_album { status } }").starts_with("field foo_album is not in Mutation"));
    assert!(error("mutation { album { status } }").starts_with("field album is not in Mutation"));
    assert!(error("mutation { insert_album_by_pk { status } }").starts_with("field insert_album_by_pk is not"));
    assert_eq!(
        error("mutation { insert_bestseller(docs: []) { status } }"),
        "bestseller is a view and cannot be written"
    );
    assert_eq!(error("mutation { insert_album(docs: []) }"), "field insert_album needs a selection of its fields");
    assert_eq!(
        error("mutation { insert_album(docs: []) { a: returning { title } b: returning { title } } }"),
        "returning can be selected under one key only"
    );
    assert_eq!(
        error("mutation { insert_album(docs: []) { stauts } }"),
        "field stauts is not in AlbumMutation; did you mean status?"
    );
    assert_eq!(
        refusal("mutation { delete_nothing { status } }").accesses,
        [RootAccess { database: "music".to_owned(), table: "nothing".to_owned(), operation: Operation::Delete }]
    );
    let named = "mutation { delete_nothing @archive { status } }";
    assert_eq!(
        planned(&fixture::two_databases(), named, "{}").expect_err(named).accesses,
        [RootAccess { database: "archive".to_owned(), table: "nothing".to_owned(), operation: Operation::Delete }]
    );
}
