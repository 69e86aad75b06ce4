//! Fields of `Query`, and what they lead to.

use super::*;

#[test]
fn columns_are_read_under_their_response_keys() {
    let read = read("{ albums: album { album_id t: title __typename } }");

    assert_eq!((&*read.database, &*read.table), ("music", "album"));
    assert_eq!(
        read.node,
        Node::new(
            Shape::Many,
            vec![column("album_id", "album_id"), column("t", "title"), constant("__typename", "Album")]
        )
    );
}

#[test]
fn roots_keep_the_order_of_the_document() {
    let plan = plan("{ __typename b: album { title } a: artist { name } n: __typename }");

    let keys: Vec<&str> = plan.fields.iter().map(|root| root.key.as_str()).collect();
    assert_eq!(keys, ["__typename", "b", "a", "n"]);
    assert_eq!(plan.fields[1].source, FieldSource::Read(0));
    assert_eq!(plan.fields[2].source, FieldSource::Read(1));
    assert_eq!(plan.fields[3].source, FieldSource::Typename);
    assert_eq!(plan.field_of(1).map(|root| root.key.as_str()), Some("a"));
}

#[test]
fn relations_are_nodes_of_the_tree_and_take_arguments_where_they_lead_to_many() {
    let read = read(
        r#"{ album { artist { name } track(where: {milliseconds: {_gt: 1000}}, sort: ["-name"], skip: 1, limit: 2) { name } } }"#,
    );

    let (name, artist) = relation(&read.node.fields[0]);
    assert_eq!((name, artist.shape, keys(&artist.fields)), ("artist", Shape::One, vec!["name"]));
    let (name, track) = relation(&read.node.fields[1]);
    assert_eq!((name, track.shape, track.skip, track.limit), ("track", Shape::Many, 1, Some(2)));
    assert_eq!(track.filter, compare("milliseconds", Comparison::Gt, Typed::Int(1000)));
    assert_eq!(track.sort, [Sort { column: "name".to_owned(), descending: true }]);
    assert_eq!(error("{ album { artist(limit: 1) { name } } }"), "argument limit of artist is not known");
}

#[test]
fn relations_go_by_their_long_names_too() {
    let project = fixture::long_names();
    let plan = |text: &str| planned(&project, text, "{}").unwrap_or_else(|refusal| panic!("{refusal:?}"));

    let read = only(plan("{ staff { staff_by_boss { name } staff_by_boss_2 { name } staff { name } } }").reads);
    let names: Vec<&str> = read.node.fields.iter().map(|field| relation(field).0).collect();
    assert_eq!(names, ["boss_row", "staff", "staff"]);
    assert_eq!(keys(&read.node.fields), ["staff_by_boss", "staff_by_boss_2", "staff"]);
    let read = only(plan("{ staff { task_list_by_owner_aggregate { count } } }").reads);
    let (name, counted) = relation(&read.node.fields[0]);
    assert_eq!((name, counted.shape), ("task list_of_owner", Shape::Aggregate));
    for (condition, name) in [
        ("staff_by_boss: {name: \"x\"}", "boss_row"),
        ("boss_row: {name: \"x\"}", "boss_row"),
        ("task_list_by_owner: {_some: {owner: \"x\"}}", "task list_of_owner"),
    ] {
        let read = only(plan(&format!("{{ staff(where: {{{condition}}}) {{ name }} }}")).reads);
        let Filter::Related { relation, .. } = &read.node.filter else { panic!("{:?}", read.node.filter) };
        assert_eq!(relation, name);
    }
    assert!(planned(&project, "{ staff { staff_by_boss_aggregate { count } } }", "{}").is_err(), "to one");
}

#[test]
fn rows_are_counted_at_the_root_and_below() {
    let root = read("{ album_aggregate(where: {title: \"x\"}) { n: count __typename } }");
    let below = read("{ album { tracks: track_aggregate { count } } }");

    assert_eq!(root.node.shape, Shape::Aggregate);
    assert_eq!(root.node.filter, equal("title", text("x")));
    assert_eq!(
        root.node.fields[..],
        [Field { key: "n".to_owned(), kind: FieldKind::Count }, constant("__typename", "AlbumAggregate")]
    );
    let (name, node) = relation(&below.node.fields[0]);
    assert_eq!((name, node.shape), ("track", Shape::Aggregate));
    assert_eq!(error("{ album_aggregate { cuont } }"), "field cuont is not in AlbumAggregate; did you mean count?");
}

#[test]
fn a_row_is_found_by_all_columns_of_its_key() {
    let one = read("{ album_by_pk(album_id: 1) { title } }");
    let two = read("{ playlist_track_by_pk(track_id: 2, playlist_id: 1) { track { name } } }");

    assert_eq!((one.node.shape, one.node.filter), (Shape::One, equal("album_id", Typed::Int(1))));
    assert_eq!(
        two.node.filter,
        Filter::And(vec![equal("playlist_id", Typed::Int(1)), equal("track_id", Typed::Int(2))])
    );
    assert_eq!(
        error("{ playlist_track_by_pk(track_id: 2) { playlist_id } }"),
        "argument playlist_id of playlist_track_by_pk is required"
    );
    assert_eq!(error("{ album_by_pk(album_id: null) { title } }"), "argument album_id of album_by_pk is required");
    assert_eq!(
        error("{ album_by_pk(album_id: [1, 2]) { title } }"),
        "invalid album_id: expected single value, found array"
    );
    assert!(error("{ album_by_pk(album_id: {_gt: 0}) { title } }").contains("expected single value"));
}

#[test]
fn a_directive_names_the_database() {
    for text in ["{ album @music { title } }", "{ album @sqlite { title } }"] {
        assert_eq!(&*read(text).database, "music", "{text}");
    }
    assert_eq!(&*read(r#"{ artist @music(col: "album") { title } }"#).table, "album");
    assert_eq!(error("{ album @msic { title } }"), "database msic is not in the project; did you mean @music?");
    assert_eq!(error("{ album @music(cache: {ttl: 1}) { title } }"), "argument cache of @music is not known");
    assert_eq!(
        error("{ album @music @sqlite { title } }"),
        "directive @sqlite is one too many: a field has one database"
    );
}

#[test]
fn below_the_root_there_is_no_directive_of_a_database() {
    let refused = error(r#"{ artist { album(where: {artist_id: "artist.artist_id"}) @music { title } } }"#);

    assert_eq!(refused, "directive @music is not known on field album: a database is named at the root only");
}

#[test]
fn a_name_that_several_databases_have_needs_one() {
    let project = fixture::two_databases();
    let read = |text| planned(&project, text, "{}").map(|plan| only(plan.reads));

    assert_eq!(&*read("{ genre @archive { name } }").unwrap().database, "archive");
    assert_eq!(&*read("{ music_genre { name } }").unwrap().database, "music");
    let refusal = *read("{ genre { name } }").unwrap_err();
    assert_eq!(refusal.accesses.len(), 2);
    assert_eq!(message(refusal), "several databases have a table genre: say genre @music or music_genre");
}

#[test]
fn a_database_that_is_not_reached_is_unavailable() {
    for text in ["{ album { title } }", "{ album @music { title } }"] {
        let refusal = *planned(&fixture::unreached(), text, "{}").unwrap_err();

        assert!(refusal.may_be_stale());
        assert!(matches!(&refusal.cause, Cause::Fault(fault) if fault.code == mesh::Code::Unavailable), "{text}");
    }
}

#[test]
fn the_dialect_reads_whole_rows_one_row_and_counts() {
    assert_eq!(keys(&read("{ album @music }").node.fields), ["album_id", "title", "artist_id"]);
    assert_eq!(read("{ album(op: one) @music { title } }").node.shape, Shape::One);
    assert_eq!(read(r#"{ album(op: "one") { title } }"#).node.shape, Shape::One);
    let count = read(r#"{ album(op: count, where: {title: "x"}) @music { title } }"#);
    assert_eq!(count.node, Node { filter: equal("title", text("x")), ..Node::new(Shape::Count, Vec::new()) });
    assert_eq!(error("{ album(op: most) { title } }"), "invalid op \"most\": expected one of all, one, count");
    assert_eq!(error("{ album }"), "field album needs a selection of its fields");
}

#[test]
fn what_nobody_knows_is_refused_with_the_nearest() {
    assert_eq!(error("{ albun { title } }"), "table albun is not in the database; did you mean album?");
    assert_eq!(error("{ album { titel } }"), "column titel is not in table album; did you mean title?");
    assert_eq!(error("{ album { trakc { name } } }"), "relation trakc is not in table album; did you mean track?");
    assert_eq!(error("{ album(were: {}) { title } }"), "argument were of album is not known; did you mean where?");
    assert!(error("{ album(where: {title: {_qe: 1}}) { title } }").contains("_qe"));
    assert_eq!(refusal("{ a: artist { x: album { titel } } }").path, ["a", "x", "titel"]);
}

#[test]
fn an_unknown_table_may_be_of_any_database() {
    let refusal = *planned(&fixture::two_databases(), "{ nothing { a } }", "{}").unwrap_err();

    let databases: Vec<&str> = refusal.accesses.iter().map(|place| place.database.as_str()).collect();
    assert_eq!(databases, ["music", "archive"]);
    assert!(refusal.may_be_stale());
}

#[test]
fn selections_fit_what_they_select() {
    assert_eq!(error("{ album { title { x } } }"), "field title has no fields to select");
    assert_eq!(error("{ album { artist } }"), "field artist needs a selection of its fields");
    assert_eq!(error("{ album { title(x: 1) } }"), "argument x of title is not known");
    assert_eq!(error("{ audit { payload { x } } }"), "field payload has no fields to select");
    assert_eq!(read("{ audit { payload } }").node.fields[..], [column("payload", "payload")]);
}
